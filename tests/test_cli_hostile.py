"""A server and a guest that mean harm: escapes, lists without end, wrong types, bad frames, broken and slow answers, hostile file names; the command line survives, says what happened, and writes nothing but what it was told to"""

import base64
import json
import os
import random
import signal
import struct
import subprocess
import time

import pytest

from cli_lab import Fake, IRON, VM, VM_ID, error, page, server  # noqa: F401 (server: a fixture)
from harness import wait_for
from test_cli_output import EXEC, PRINTING, fill

EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egpj.exe\r\n\x00\x08"
BAD_BYTES = [b"\x1b", b"\x07", "\x9b".encode(), "\u202e".encode(), b"\r", b"\x08", b"\x00"]


@pytest.fixture
def fake(server):
    server.reset()
    return server


def survives(done):
    """It ended by itself, not by a signal or the sanitizer, and steers no terminal."""
    assert done.returncode in (0, 1, 2, 124, 125), (done.returncode, done.stderr[-3000:])
    assert b"Sanitizer" not in done.stderr and b"runtime error" not in done.stderr, done.stderr[-3000:]
    for bad in BAD_BYTES:
        assert bad not in done.stderr + done.stdout, (bad, done.stdout[-500:], done.stderr[-500:])


def poison(value):
    """Every text in it evil; names and ids too."""
    if isinstance(value, dict):
        return {k: poison(v) for k, v in value.items()}
    if isinstance(value, list):
        return [poison(v) for v in value]
    return value + EVIL if isinstance(value, str) else value


def spoil(value, rng):
    """Anything in it may be anything else."""
    if rng.random() < 0.2:
        return rng.choice([None, True, -1, 1 << 62, 1e308, "", EVIL, "x" * 5000, [], {}, [[]], [None], {"data": []}, {EVIL: EVIL}, 0])
    if isinstance(value, dict):
        return {k: spoil(v, rng) for k, v in value.items() if rng.random() > 0.05}
    if isinstance(value, list):
        return [spoil(v, rng) for v in value]
    return value


def change_answers(fake, change):
    for i, (method, pattern, answer) in enumerate(list(fake.routes)):
        if isinstance(answer, tuple) and isinstance(answer[1], dict):
            fake.routes[i] = (method, pattern, (answer[0], change(answer[1]), *answer[2:]))
        elif isinstance(answer, dict):
            changed = change(answer)
            fake.routes[i] = (method, pattern, changed if isinstance(changed, dict) else (200, changed))


# the console's bytes are as they are where no terminal takes them; a VM whose state nobody knows is not waited for long
WORDS = [words + " --timeout 1" * (words in ("wait demo", "create x", "start demo")) for words in PRINTING if words != "console demo"]


@pytest.mark.parametrize("words", WORDS)
def test_no_text_steers_the_terminal(fake, words):
    fill(fake)
    resolve = [r for r in fake.routes if "name=" in r[1]]
    change_answers(fake, poison)
    fake.routes += resolve  # names are still found
    survives(fake.iron(*words.split()))
    t = fake.terminal(80, *words.split())
    seen = t.wait()
    assert t.code in (0, 1, 124) and "\x1b]" not in seen and "\x1b[2J" not in seen and "\x9b" not in seen and "\u202e" not in seen and "\x07" not in seen


def test_a_console_steers_no_terminal(fake):
    fill(fake)
    fake.on("GET", rf"/vms/{VM_ID}/console", (200, b"boot\r\n" + EVIL.encode() + b"\xff\x9b[2J\nlogin: "))
    t = fake.terminal(80, "console", "demo")
    seen = t.wait()
    assert "boot\n" in seen and "login: " in seen and "\\x1b[2J" in seen
    assert not [bad for bad in BAD_BYTES if bad.decode() in seen] and "\ufffd" not in seen
    assert fake.iron("console", "demo").stdout.endswith(b"\xff\x9b[2J\nlogin: ")
    survives(fake.iron("console", "demo", "--json"))


def test_no_type_is_relied_on(fake):
    rng = random.Random(4)
    for round_ in range(4):
        for words in WORDS:
            fake.reset()
            fill(fake)
            change_answers(fake, lambda v: json.dumps(spoil(v, rng)).encode())
            survives(fake.iron(*words.split(), timeout=30))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"[" * 100000, b'{"data":' * 5000, b"\xff\xfe", b'"x"', b"{", b'{"data": [], "data": []}', b"0"])
def test_what_is_no_answer_is_said(fake, body):
    fake.on("GET", r"/vms\?limit.*", (200, body))
    done = fake.iron("list")
    survives(done)
    assert done.returncode == 1 and b"is the URL right?" in done.stderr
    fake.on("GET", r"/vms\?limit.*", (500, body))
    done = fake.iron("list")
    survives(done)
    assert done.returncode == 1 and done.stderr


def test_an_error_whose_message_is_evil(fake):
    fake.on("GET", r"/vms\?limit.*", error(422, EVIL, EVIL * 1000))
    survives(fake.iron("list"))
    fake.on("GET", r"/vms\?limit.*", (422, {"error": [1]}))
    done = fake.iron("list")
    survives(done)
    assert b"422" in done.stderr


def test_a_list_without_end(fake):
    fake.on("GET", r"/vms\?limit.*", lambda h: page([VM] * 100, has_more=True, cursor=os.urandom(8).hex()))
    done = fake.iron("list", "-q")
    assert done.returncode == 0 and done.stdout.count(b"\n") == 10000
    done = fake.iron("egress", "list")
    fake.on("GET", "/egress/rules.*", lambda h: page([{"id": "egr_1"}] * 200, has_more=True, cursor=os.urandom(8).hex()))
    done = fake.iron("egress", "list")
    survives(done)
    assert done.returncode == 0 and b"this is not all" in done.stderr
    fake.on("GET", r"/vms\?limit.*", page([VM], has_more=True, cursor="same"))
    done = fake.iron("list")
    assert done.returncode == 1 and b"does not end" in done.stderr and done.stdout == b""


def test_an_answer_without_end(fake):
    def endless(h):
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        while True:
            h.wfile.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
    fake.on("GET", "/host", endless)
    done = fake.iron("host")
    survives(done)
    assert done.returncode == 1 and b"MiB" in done.stderr
    fake.on("GET", rf"/vms/{VM_ID}/console", endless)
    done = fake.iron("console", "demo")
    assert done.returncode == 1 and b"more than a console holds" in done.stderr and done.stdout == b""


def test_a_slow_answer_has_a_deadline(fake):
    release = []
    fake.on("GET", "/host", lambda h: wait_for("the end", lambda: release, 20) and None)
    begun = time.monotonic()
    done = fake.iron("host", IRON_API_TIMEOUT="1")
    release.append(1)
    assert done.returncode == 1 and b"IRON_API_TIMEOUT" in done.stderr and time.monotonic() - begun < 6

    def drip(h):
        h.send_response(200)
        h.send_header("Content-Length", "1000")
        h.end_headers()
        for _ in range(1000):
            h.wfile.write(b" ")
            h.wfile.flush()
            time.sleep(0.1)
    fake.on("GET", "/host", drip)
    assert fake.iron("host", IRON_API_TIMEOUT="1").returncode == 1 and time.monotonic() - begun < 12


@pytest.mark.parametrize("bad", ["../../admin", "vm_1/../../x", "", "vm_" + "a" * 100, "vm_1?x=", EVIL])
def test_an_id_that_is_none_goes_into_no_path(fake, bad):
    fake.on("GET", r"/vms\?name=demo", page([VM | {"id": bad}]))
    done = fake.iron("destroy", "--force", "demo")
    survives(done)
    assert done.returncode == 1 and not [s for s in fake.seen if s[0] == "DELETE"]


# --- the WebSocket ---

def exec_with(fake, script):
    fake.on("GET", rf"/vms/{VM_ID}/exec", lambda h: (h.upgrade(), script(h))[-1] and None)
    return fake.iron("exec", "demo", "--", "x", timeout=30)


def test_frames_that_are_none(fake):
    rng = random.Random(5)
    for i in range(30):
        junk = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 300)))
        done = exec_with(fake, lambda h: h.wfile.write(junk) and h.wfile.flush())
        assert 0 <= done.returncode < 256 and done.returncode not in (134, 139), (junk, done)
        assert b"Sanitizer" not in done.stderr


@pytest.mark.parametrize("frame", [
    b"\x82\x7f" + struct.pack(">Q", 1 << 62), b"\x82\x7f" + struct.pack(">Q", 1 << 40) + b"x" * 1000, b"\x82\x84abcdefgh", b"\xf2\x01x", b"\x80\x01x",
    b"\x88\x02\x03\xe8", b"\x88\x00", b""])
def test_frames_that_break_the_rules(fake, frame):
    done = exec_with(fake, lambda h: h.wfile.write(frame) and h.wfile.flush())
    assert done.returncode == 125 and done.stderr, done


def test_control_messages_that_are_none(fake):
    def script(h):
        for message in ([], None, {"type": 5}, {"type": "exit", "exit_code": "x"},):
            h.send(3, message)
    done = exec_with(fake, script)
    assert 0 <= done.returncode < 256 and b"Sanitizer" not in done.stderr
    done = exec_with(fake, lambda h: h.send(3, {"type": "error", "message": EVIL}))
    survives(done)
    assert done.returncode == 125


def test_a_handshake_that_is_none(fake):
    for answer in ((200, b"{}"), (101, None, [("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "x")]), (403, {"error": {"message": EVIL}}),
                   (500, b"x" * 100000), (404, b"")):
        fake.on("GET", rf"/vms/{VM_ID}/exec", answer)
        done = fake.iron("exec", "demo", "--", "x", timeout=30)
        survives(done)
        assert done.returncode == 125 and done.stderr, answer


# --- logs ---

def test_events_that_are_none(fake):
    fake.on("GET", rf"/vms/{VM_ID}/execs/exec_1(\?.*)?", lambda h: logs_answer(h, b"event: stdout\ndata: !!!\n\n"))
    done = fake.iron("logs", "demo", "exec_1")
    survives(done)
    assert done.returncode == 1 and b"base64" in done.stderr
    fake.on("GET", rf"/vms/{VM_ID}/execs/exec_1(\?.*)?", lambda h: logs_answer(h, b"data: " + b"A" * (4 << 20)))
    done = fake.iron("logs", "demo", "exec_1")
    survives(done)
    assert done.returncode == 1
    fake.on("GET", rf"/vms/{VM_ID}/execs/exec_1(\?.*)?", lambda h: logs_answer(h, b"event: error\ndata: " + json.dumps({"message": EVIL}).encode() + b"\n\n"))
    survives(fake.iron("logs", "demo", "exec_1"))


def logs_answer(h, events):
    if "event-stream" in h.headers.get("Accept", ""):
        return 200, events, [("Content-Type", "text/event-stream")]
    return {"data": EXEC | {"id": "exec_1", "output_bytes": 100}}


def test_logs_go_on_where_the_stream_broke(fake):
    output = b"".join(b"line %d\n" % i for i in range(500))
    asked = []

    def answer(h):
        if "event-stream" not in h.headers.get("Accept", ""):
            return {"data": EXEC | {"id": "exec_1", "output_bytes": len(output)}}
        at = int(h.path.split("offset=")[1])
        asked.append(at)
        h.send_response(200)
        h.send_header("Transfer-Encoding", "chunked")
        h.end_headers()
        for _ in range(3):
            piece = output[at:at + 700]
            at += len(piece)
            event = b": comment\r\nevent: stdout\r\nid: %d\r\ndata: %s\r\n\r\n" % (at, base64.b64encode(piece))
            for part in (event[:7], event[7:]):
                h.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            h.wfile.flush()
            if at == len(output):
                break
        h.close_connection = True  # and the chunks do not end: the connection is cut
    fake.on("GET", rf"/vms/{VM_ID}/execs/exec_1(\?.*)?", answer)
    done = fake.iron("logs", "demo", "exec_1")
    assert done.returncode == 0 and done.stdout == output and len(asked) == 2 or asked == sorted(set(asked)), (done, asked)
    assert done.stdout == output


# --- files ---

FILE = rf"/vms/{VM_ID}/files\?path=.*"


def everything(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


def test_a_file_that_breaks_off_leaves_nothing(fake, tmp_path):
    (tmp_path / "f").write_text("old")

    def broken(h):
        h.send_response(200)
        h.send_header("Content-Length", "100000")
        h.end_headers()
        h.wfile.write(b"x" * 5000)
        h.close_connection = True
    fake.on("GET", FILE, broken)
    done = fake.iron("cp", "demo:f", ".", cwd=tmp_path)
    survives(done)
    assert done.returncode == 1 and everything(tmp_path) == ["f"] and (tmp_path / "f").read_text() == "old"
    fake.on("GET", FILE, error(404, "file_not_found", f"no {EVIL}"))
    done = fake.iron("cp", "demo:f", "g", cwd=tmp_path)
    survives(done)
    assert done.returncode == 1 and everything(tmp_path) == ["f"]


def test_a_copy_that_is_interrupted_leaves_the_old_file(fake, tmp_path):
    (tmp_path / "f").write_text("old")
    begun = []

    def endless(h):
        h.send_response(200)
        h.send_header("Content-Length", str(1 << 40))
        h.end_headers()
        while True:
            h.wfile.write(b"x" * 1000)
            begun.append(1)
            time.sleep(0.02)
    fake.on("GET", FILE, endless)
    p = fake.start("cp", "demo:f", "f", cwd=tmp_path)
    wait_for("the copy", lambda: len(begun) > 5 and len(everything(tmp_path)) == 2)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 130 and b"not complete" in err
    assert everything(tmp_path) == ["f"] and (tmp_path / "f").read_text() == "old"


def test_modes_and_links_and_special_files(fake, tmp_path):
    fake.on("GET", FILE, (200, b"new", [("Iron-File-Mode", "7755")]))
    fake.ok("cp", "demo:f", "f", cwd=tmp_path)
    assert (tmp_path / "f").stat().st_mode & 0o7777 == 0o755
    for mode in ("99999999999999", "-1", "", "0x1ff", EVIL.encode("unicode_escape").decode()):
        fake.on("GET", FILE, (200, b"new", [("Iron-File-Mode", mode)]))
        fake.ok("cp", "demo:f", "g", cwd=tmp_path)
        assert (tmp_path / "g").stat().st_mode & 0o7777 == 0o644
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    fake.ok("cp", "demo:f", "link", cwd=tmp_path)  # this user's own link, and it stays one
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    fake.ok("cp", "demo:f", "/dev/null", cwd=tmp_path)
    assert os.path.exists("/dev/null") and not os.path.isfile("/dev/null")
    done = fake.iron("cp", "demo:f", "no/such/directory/f", cwd=tmp_path)
    assert done.returncode == 1 and b"no/such/directory" in done.stderr


@pytest.mark.parametrize("src", ["demo:..", "demo:a/..", "demo:/a/../..", "demo:x\x1by", "demo:a\nb"])
def test_names_that_make_no_name_here(fake, tmp_path, src):
    fake.on("GET", FILE, (200, b"new"))
    done = fake.iron("cp", src, ".", cwd=tmp_path)
    survives(done)
    assert done.returncode == 1 and everything(tmp_path) == []


def test_an_upload_that_is_refused_on_the_way(fake, tmp_path):
    (tmp_path / "f").write_bytes(os.urandom(1 << 20) * 30)

    def refuse(h):
        h.rfile.read(1 << 16)
        h.close_connection = True
        return (507, {"error": {"code": "no_room", "message": "the disk is full; make it larger"}}, [("Connection", "close")])
    fake.on("PUT", FILE, refuse)
    fake.on("GET", rf"/vms/{VM_ID}/files/stat.*", error(404, "file_not_found", "no"))
    done = fake.iron("cp", "f", "demo:f", cwd=tmp_path)
    survives(done)
    assert done.returncode == 1


def test_a_guest_that_says_its_command_is_over_and_goes_on(fake):
    def script(h):
        h.send(3, {"type": "exit", "exit_code": 256 + 3})
        for _ in range(100):
            h.send(1, b"x" * 100)
    assert exec_with(fake, script).returncode == 3


def test_a_server_that_floods_a_command_whose_reader_is_gone(fake):
    def script(h):
        while True:
            h.send(1, b"x" * 10000)
    fake.on("GET", rf"/vms/{VM_ID}/exec", lambda h: (h.upgrade(), script(h))[-1] and None)
    p = subprocess.Popen([IRON, "exec", "demo", "--", "yes"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=fake.env())
    p.stdout.read(10)
    p.stdout.close()
    assert p.wait(20) == 128 + signal.SIGPIPE
    p.stderr.close()
