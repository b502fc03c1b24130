"""Commands in a VM as a person meets them: Ctrl-C once and three times, ~., resize, attach and its leaving, logs, run with its results and its end, copies with a bar"""

import base64
import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest

from cli_lab import Fake, IRON, VM, VM_ID, error, in_session, page, server  # noqa: F401 (server: a fixture)
from harness import wait_for
from test_cli_output import EXEC

EXEC_ID = EXEC["id"]


@pytest.fixture
def fake(server):
    server.reset()
    return server


class Guest:
    """What answers the WebSocket: script(handler, the first frame)."""

    def __init__(self, fake, path, script):
        self.asked, self.controls, self.closed, self.stdin = None, [], threading.Event(), b""
        self.script = script
        fake.on("GET", path, self.answer)

    def answer(self, h):
        self.asked = h.upgrade()
        self.handler = h
        try:
            self.script(h, self)
        except (OSError, ValueError):
            pass
        self.stdin = getattr(h, "stdin", b"")
        self.closed.set()

    def hear(self, h):
        message = h.control()
        self.controls.append(message)
        return message


def hear_all(h, g):
    while g.hear(h) is not None:
        pass


def exec_path():
    return rf"/vms/{VM_ID}/exec"


def signals(g):
    return [m["signal"] for m in g.controls if m and m.get("type") == "signal"]


def test_ctrl_c_goes_to_the_guest_and_its_exit_code_comes_back(fake):
    def script(h, g):
        while True:
            message = g.hear(h)
            if message and message["type"] == "signal":
                h.send(1, b"caught\n")
                h.send(3, {"type": "exit", "exit_code": 42, "timed_out": False})
                return
    g = Guest(fake, exec_path(), script)
    t = fake.terminal(80, "exec", "demo", "--", "sleep", "99")
    in_session(t.pid)
    t.type(b"\x03")
    assert "caught" in t.wait() and t.code == 42 and signals(g) == ["INT"]


def test_the_third_ctrl_c_hangs_up(fake):
    g = Guest(fake, exec_path(), hear_all)
    t = fake.terminal(80, "exec", "demo", "--", "deaf")
    in_session(t.pid)
    for n in (1, 2):
        t.type(b"\x03")
        wait_for("the signal", lambda: len(signals(g)) == n)
    t.until(b"once more Ctrl-C hangs up")
    t.type(b"\x03")
    out = t.wait()
    assert t.code == 130 and "hung up" in out
    assert g.closed.wait(10)


@pytest.mark.parametrize("number, name", [(signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP"), (signal.SIGQUIT, "QUIT")])
def test_other_signals_go_too(fake, number, name):
    def script(h, g):
        while g.hear(h)["type"] != "signal":
            pass
        h.send(3, {"type": "exit", "exit_code": 128 + number})
    g = Guest(fake, exec_path(), script)
    p = fake.start("exec", "demo", "--", "x")
    in_session(p.pid)
    p.send_signal(number)
    p.communicate(timeout=15)
    assert p.returncode == 128 + number and signals(g) == [name]


def test_a_terminal_of_its_own_and_its_escapes(fake):
    def script(h, g):
        h.send(1, b"$ ")
        hear_all(h, g)
    g = Guest(fake, exec_path(), script)
    t = fake.terminal(90, "exec", "-t", "demo", "--", "sh")
    t.until(b"$ ")
    assert (g.asked["tty"], g.asked["rows"], g.asked["cols"], g.asked["env"]["TERM"]) == (True, 24, 90, "xterm")
    fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
    wait_for("the size", lambda: {"type": "resize", "rows": 30, "cols": 100} in g.controls)
    t.type(b"echo ~x ~.\x03\r~~tilde\r~n\r~.")
    out = t.wait()
    assert t.code == 130 and "hung up" in out
    assert g.closed.wait(10) and g.stdin == b"echo ~x ~.\x03\r~tilde\r~n\r" and not signals(g)


def test_the_terminal_is_as_it_was_afterwards(fake):
    Guest(fake, exec_path(), lambda h, g: (h.send(1, b"hi"), h.send(3, {"type": "exit", "exit_code": 0})))
    t = fake.terminal(80, "exec", "-t", "demo", "--", "x")
    before = termios.tcgetattr(t.fd)
    t.wait()
    assert t.code == 0
    shell = __import__("cli_lab").Terminal(80, ["/bin/sh", "-c", f"stty -g; {IRON} exec -t demo -- x; stty -g"], fake.env())
    lines = [line for line in shell.wait().replace("hi", "").split("\n") if line.count(":") > 10]
    assert len(lines) == 2 and lines[0] == lines[1] and before


def test_exec_as_one_document(fake):
    def script(h, g):
        g.hear(h)  # the end of standard input: what is unread when a connection closes resets it
        h.send(1, "grüß\n".encode() + b"\xff\xc3")
        h.send(2, b"e" * 60000)
        for _ in range(20):
            h.send(2, b"e" * 60000)
        h.send(3, {"type": "exit", "exit_code": 7, "timed_out": False})
    Guest(fake, exec_path(), script)
    done = fake.iron("exec", "--json", "demo", "--", "x")
    o = json.loads(done.stdout)
    assert done.returncode == 7 and o["exit_code"] == 7 and o["stdout"] == "grüß\n\ufffd\ufffd" and len(o["stderr"]) == 1 << 20 and o["truncated"]
    assert done.stdout.count(b"\n") == 1


def test_a_command_that_is_late_exits_124(fake):
    Guest(fake, exec_path(), lambda h, g: h.send(3, {"type": "exit", "exit_code": 137, "timed_out": True}))
    done = fake.iron("exec", "--timeout", "1", "demo", "--", "x")
    assert done.returncode == 124 and b"time limit" in done.stderr


def test_no_stdin_is_not_read(fake):
    g = Guest(fake, exec_path(), lambda h, g: (time.sleep(0.2), h.send(3, {"type": "exit", "exit_code": 0})))
    done = subprocess.run(["sh", "-c", f"{IRON} exec --no-stdin demo -- x; cat"], input=b"kept", capture_output=True, env=fake.env(), timeout=30)
    assert done.stdout == b"kept" and g.asked["argv"] == ["x"]


# --- what runs detached ---

def with_execs(fake, *execs):
    fake.on("GET", rf"/vms/{VM_ID}/execs", page(list(execs)))
    for e in execs:
        fake.on("GET", rf"/vms/{VM_ID}/execs/{e['id']}(\?.*)?", {"data": e})


def test_a_command_goes_by_its_name_too(fake):
    old = EXEC | {"id": "exec_2", "status": "exited", "exit_code": 1}
    with_execs(fake, EXEC, old, EXEC | {"id": "exec_3", "argv": ["sleep"]}, EXEC | {"id": "exec_4", "argv": [], "command": "sleep 5; x"})
    fake.on("POST", rf"/vms/{VM_ID}/execs/.*/signal", (204, None))
    fake.ok("kill", "demo", "make", "-s", "9")
    assert fake.seen[-1][1].endswith(f"/execs/{EXEC_ID}/signal")  # of two, the one that runs
    done = fake.iron("kill", "demo", "sleep")
    assert done.returncode == 1 and b"2 commands go by 'sleep'" in done.stderr
    assert b"iron ps demo" in fake.iron("logs", "demo", "nope").stderr
    assert fake.ok("ps", "demo", "-q", "--running").split() == [EXEC_ID, "exec_3", "exec_4"]


def test_attach_takes_part_and_leaves(fake):
    with_execs(fake, EXEC)

    def script(h, g):
        h.send(1, b"earlier\n")
        hear_all(h, g)
    g = Guest(fake, rf"/vms/{VM_ID}/execs/{EXEC_ID}", None)
    g.script = script
    fake.on("GET", rf"/vms/{VM_ID}/execs/{EXEC_ID}(\?.*)?", lambda h: g.answer(h) if h.headers.get("Upgrade") else {"data": EXEC})
    t = fake.terminal(80, "attach", "demo", "make")
    t.until(b"earlier")
    t.type(b"hello\n")
    wait_for("the line", lambda: getattr(g.handler, "stdin", b"") == b"hello\n")
    in_session(t.pid)
    t.type(b"\x03")
    out = t.wait()
    assert t.code == 130 and "it runs on: iron attach demo make" in out
    assert g.closed.wait(10) and g.stdin == b"hello\n" and not signals(g) and g.asked == {"input": True}


def test_attach_ends_with_the_command(fake):
    ended = EXEC | {"status": "exited", "exit_code": 9}
    g = Guest(fake, "none", lambda h, g: (h.send(1, b"out"), h.send(2, b"err"), h.send(3, {"type": "exit", "exit_code": 9})))
    fake.on("GET", rf"/vms/{VM_ID}/execs/{EXEC_ID}(\?.*)?", lambda h: g.answer(h) if h.headers.get("Upgrade") else {"data": ended})
    done = fake.iron("attach", "demo", EXEC_ID)
    assert (done.returncode, done.stdout, done.stderr) == (9, b"out", b"err") and g.asked == {"input": False}


def test_logs_end_where_the_output_stood(fake):
    e = EXEC | {"output_bytes": 9, "kept_from": 3}

    def answer(h):
        if "event-stream" not in h.headers.get("Accept", ""):
            return {"data": e}
        assert h.path.endswith("?offset=3")
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        for stream, at, text in (("stdout", 6, b"abc"), ("stderr", 9, b"def"), ("stdout", 12, b"later")):
            event = b"event: %s\nid: %d\ndata: %s\n\n" % (stream.encode(), at, base64.b64encode(text))
            h.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            h.wfile.flush()
            time.sleep(0.1)
        while True:  # it runs on, and so would the stream
            h.wfile.write(b"3\r\n:\n\n\r\n")
            time.sleep(0.1)
    fake.on("GET", rf"/vms/{VM_ID}/execs/{EXEC_ID}(\?.*)?", answer)
    done = fake.iron("logs", "demo", EXEC_ID)
    assert done.returncode == 0 and done.stdout == b"abc" and done.stderr == b"iron: the first 3 bytes are no longer kept\ndef"
    o = json.loads(fake.ok("logs", "--json", "demo", EXEC_ID))
    assert o["stdout"] == "abc" and o["stderr"] == "def" and o["id"] == EXEC_ID


# --- run ---

def running(fake, script):
    made, gone = [], []

    def create(h):
        made.append(json.loads(h.body()))
        h.was_read = True
        return 201, {"data": VM}
    fake.on("POST", "/vms", create)
    fake.on("DELETE", rf"/vms/{VM_ID}\?force=true", lambda h: (gone.append(1), (204, None))[-1])
    return made, gone, Guest(fake, exec_path(), script)


def test_run_makes_runs_fetches_and_destroys(fake, tmp_path):
    made, gone, g = running(fake, lambda h, g: (h.send(1, b"out"), h.send(3, {"type": "exit", "exit_code": 5})))
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", {"data": {"type": "file"}})
    fake.on("GET", rf"/vms/{VM_ID}/files\?path=.*", lambda h: (200, h.path.encode()))
    done = fake.iron("run", "--image", "mini", "--cpus", "2", "--label", "a=b", "-e", "K=v", "-w", "/srv", "--out", "log", "-o", "/x/y:z", "--", "make", "all", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (5, b"out") and gone == [1], done
    assert made[0] | {"name": ""} == {"name": "", "image": "mini", "vcpus": 2, "labels": {"a": "b"}} and made[0]["name"].startswith("run-")
    assert g.asked == {"argv": ["make", "all"], "cwd": "/srv", "env": {"K": "v"}}
    assert sorted(os.listdir(tmp_path)) == ["log", "z"] and "path=log" in (tmp_path / "log").read_text() and "%2Fx%2Fy" in (tmp_path / "z").read_text()


def test_run_destroys_when_it_failed_and_says_what_is_missing(fake, tmp_path):
    made, gone, g = running(fake, lambda h, g: h.send(3, {"type": "exit", "exit_code": 0}))
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", error(404, "file_not_found", "no"))
    done = fake.iron("run", "--out", "nope", "--", "x", cwd=tmp_path)
    assert done.returncode == 1 and b"nope" in done.stderr and gone == [1]
    fake.on("GET", rf"/vms/{VM_ID}(\?.*)?", {"data": VM | {"status": "failed", "status_detail": "failed", "status_reason": "no kernel"}})
    done = fake.iron("run", "--", "x")
    assert done.returncode == 125 and b"no kernel" in done.stderr and gone == [1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_destroys_on_ctrl_c_while_it_waits(fake, number):
    made, gone, g = running(fake, hear_all)
    fake.on("GET", rf"/vms/{VM_ID}(\?.*)?", {"data": VM | {"status": "pending", "status_detail": "starting"}})
    p = fake.start("run", "--", "x")
    wait_for("it to be made and waited for", lambda: made and any(m == "GET" and path.startswith(f"/v1/vms/{VM_ID}") for m, path, _ in fake.seen))
    p.send_signal(number)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 130 and gone == [1] and b"interrupted" in err


def test_run_destroys_when_its_command_is_deaf(fake):
    made, gone, g = running(fake, hear_all)
    p = fake.start("run", "--", "x")
    in_session(p.pid)
    for n in (1, 2):
        p.send_signal(signal.SIGINT)
        wait_for("the signal", lambda: len(signals(g)) == n)
    p.send_signal(signal.SIGINT)
    p.communicate(timeout=20)
    assert p.returncode == 130 and gone == [1]


def test_run_destroys_what_was_made_and_not_answered(fake):
    made, gone, g = running(fake, hear_all)

    def mute(h):
        made.append(json.loads(h.body()))
        h.close_connection = True
    fake.on("POST", "/vms", mute)
    fake.on("GET", r"/vms\?name=run-.*", lambda h: page([VM | {"name": made[-1]["name"]}]))
    done = fake.iron("run", "--", "x")
    assert done.returncode == 125 and gone == [1] and b"broke off" in done.stderr


def test_run_says_what_it_could_not_destroy(fake):
    made, gone, g = running(fake, lambda h, g: h.send(3, {"type": "exit", "exit_code": 0}))
    fake.on("DELETE", r"/vms/.*", error(403, "scope_missing", "the key may not"))
    done = fake.iron("run", "--", "x")
    assert b"iron destroy --force" in done.stderr and b"the key may not" in done.stderr


# --- cp ---

def test_a_bar_with_rate_and_time_left(fake, tmp_path):
    data = os.urandom(4 << 20)

    def slow(h):
        h.send_response(200)
        h.send_header("Content-Length", str(len(data)))
        h.send_header("Iron-File-Mode", "0640")
        h.end_headers()
        for i in range(0, len(data), 1 << 18):
            h.wfile.write(data[i:i + (1 << 18)])
            h.wfile.flush()
            time.sleep(0.1)
    fake.on("GET", rf"/vms/{VM_ID}/files\?path=.*", slow)
    for columns in (40, 100):
        t = fake.terminal(columns, "cp", "demo:f", str(tmp_path / "f"))
        out = t.wait()
        assert t.code == 0 and "%" in out and (columns == 40 or ("[=" in out and "MiB/s" in out and "left" in out and "of 4.0 MiB" in out)), out
        for line in out.replace("\x1b[K", "").replace("\n", "\r").split("\r")[:-2]:
            assert len(line) < columns, line
    assert (tmp_path / "f").read_bytes() == data and (tmp_path / "f").stat().st_mode & 0o777 == 0o640
    done = fake.iron("cp", "demo:f", str(tmp_path / "g"))
    assert done.returncode == 0 and done.stderr == b"" and done.stdout == b""


def test_standard_input_and_output(fake):
    got = []
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", error(404, "file_not_found", "no"))
    fake.on("PUT", rf"/vms/{VM_ID}/files\?path=.*", lambda h: (got.append(h.body()), {"data": {}})[-1])
    data = os.urandom(1 << 20)
    assert fake.iron("cp", "-", "demo:x", stdin=data).returncode == 0 and got == [data]
    fake.on("GET", rf"/vms/{VM_ID}/files\?path=.*", (200, data))
    assert fake.iron("cp", "demo:x", "-").stdout == data
    assert json.loads(fake.ok("cp", "--json", "-", "demo:y", stdin=b"abc"))["bytes"] == 3


def test_where_a_copy_goes_in_the_vm(fake, tmp_path):
    (tmp_path / "f").write_text("x")
    (tmp_path / "f").chmod(0o751)
    (tmp_path / "a:b").write_text("x")
    fake.on("PUT", rf"/vms/{VM_ID}/files\?path=.*", lambda h: (h.body(), {"data": {}})[-1])

    def to(*words):
        fake.ok("cp", *words, cwd=tmp_path)
        return fake.seen[-1][1].split("files?path=")[1]
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", {"data": {"type": "directory"}})
    assert to("f", "demo:") == ".%2Ff&mode=0751"
    assert to("f", "demo:dir") == "dir%2Ff&mode=0751"
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", error(404, "file_not_found", "no"))
    assert to("f", "demo:dir/") == "dir%2Ff&mode=0751"
    assert to("f", "demo:/etc/g", "-u", "root", "--parents") == "%2Fetc%2Fg&user=root&mode=0751&parents=true"
    assert to("./a:b", "demo:g").startswith("g&mode=")
    fake.on("PUT", rf"/vms/{VM_ID}/files\?path=.*", lambda h: (h.body(), error(404, "file_not_found", "no"))[-1])
    done = fake.iron("cp", "f", "demo:no/such/f", cwd=tmp_path)
    assert done.returncode == 1 and b"--parents" in done.stderr
