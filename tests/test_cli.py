"""The command line against iron-api, with iron-control and the guest played by the test"""

import hashlib
import json
import os
import pty
import select
import signal
import ssl
import struct
import subprocess
import termios
import threading
import time
import fcntl

import pytest

import wire
from api_lab import Api, answer_vm, vm_row
from harness import BUILD, wait_for
from test_api_exec import ERROR, RESIZE, SIGNAL, STDERR, STDIN, STDIN_EOF, STDOUT, Guest

VM = "vm_00000000j6hb7"  # vm_row's


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        yield a


@pytest.fixture(autouse=True)
def fresh(api):
    api.control.on.clear()
    api.control.seen.clear()
    api.control.on["VM_LIST"] = vms(vm_row())
    api.control.on["VM_GET"] = answer_vm()


@pytest.fixture
def home(api, tmp_path):
    der = ssl.PEM_cert_to_DER_cert(api.ca.read_text())
    directory = tmp_path / ".config" / "iron"
    directory.mkdir(parents=True)
    config = directory / "config.yaml"
    config.write_text(f"api_url: https://localhost:{api.port}\napi_key: iron_live_test\ntls_sha256: {hashlib.sha256(der).hexdigest()}\n")
    config.chmod(0o600)
    return tmp_path


def environment(home, **more):
    return {"HOME": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "ASAN_OPTIONS": "detect_leaks=0", **more}


def iron(home, *words, stdin=b"", timeout=60, **env):
    return subprocess.run([str(BUILD / "src/prog/iron"), *words], input=stdin, capture_output=True, timeout=timeout, env=environment(home, **env))


def ok(home, *words, **kw):
    done = iron(home, *words, **kw)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout.decode()


def vms(*rows, **page):
    def handle(control, request):
        wanted = request.record["name"].decode()
        for row in rows:
            if not wanted or row["name"] == wanted:
                control.row(request, "row_vm", **row)
        control.done(request, **page)
    return handle


# --- create, list, show, start, stop, destroy ---

def test_create_waits_and_says_how_long(api, home):
    states = iter([("pending", "creating"), ("pending", "starting"), ("running", "ready")])
    api.control.on["VM_CREATE"] = answer_vm(201, status="pending", status_detail="queued")
    def show(control, request):
        status, detail = next(states)
        answer_vm(status=status, status_detail=detail)(control, request)
    api.control.on["VM_GET"] = show
    out = ok(home, "create", "demo", "--image", "mini", "--cpus", "3", "--memory", "512", "--disk", "8", "--label", "a=b", "--label", "c=d=e")
    assert out.startswith("demo ready in ") and out.endswith(" s\n")
    r = next(m for m in api.control.seen if m.op_name == "VM_CREATE")
    assert (r.record["name"], r.image, r.vcpus, r.memory_mib, r.disk_gib, sorted(r.labels)) == (b"demo", b"mini", 3, 512, 8, [b"a=b", b"c=d=e"])


def test_create_async_json_and_failing(api, home):
    api.control.on["VM_CREATE"] = answer_vm(201, status="pending", status_detail="queued")
    assert json.loads(ok(home, "create", "demo", "--async", "--json"))["status_detail"] == "queued"
    api.control.on["VM_GET"] = answer_vm(status="failed", status_detail="failed", status_reason="no \x1b[31mroom")
    done = iron(home, "create", "demo")
    assert done.returncode == 1 and b"failed" in done.stderr and b"room" in done.stderr and b"\x1b" not in done.stderr + done.stdout
    api.control.on["VM_CREATE"] = lambda c, r: c.done(r, 409, code="vm_name_taken", message="demo exists: destroy it first")
    done = iron(home, "create", "demo")
    assert (done.returncode, done.stderr) == (1, b"iron: demo exists: destroy it first\n")


def test_list_follows_pages_and_escapes(api, home):
    def paged(control, request):
        if not request.cursor:
            control.row(request, "row_vm", **vm_row(name="a"))
            control.done(request, has_more=True, cursor="next")
        else:
            assert request.cursor == b"next"
            control.row(request, "row_vm", **vm_row(name="b", image="\x1b]0;x\x07\u202e"))
            control.done(request)
    api.control.on["VM_LIST"] = paged
    out = ok(home, "list")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "a", "b"]
    assert "\x1b" not in out and "\x07" not in out and "\u202e" not in out
    assert [v["name"] for v in json.loads(ok(home, "list", "--json"))] == ["a", "b"]


@pytest.mark.parametrize("word", ["demo", VM])
def test_names_and_ids(api, home, word):
    assert json.loads(ok(home, "show", word, "--json"))["id"] == VM
    assert "demo" in ok(home, "status", word)


def test_an_unknown_name_and_an_empty_one(api, home):
    done = iron(home, "show", "nope")
    assert done.returncode == 1 and b"nope" in done.stderr and b"iron list" in done.stderr
    before = len(api.control.seen)
    for words in (["show", ""], ["destroy", "", "--force"], ["exec", "", "--", "x"], ["create", ""], ["egress", "remove", ""]):
        assert iron(home, *words).returncode == 2, words
    assert len(api.control.seen) == before


def test_start_stop_destroy(api, home):
    api.control.on["VM_START"] = api.control.on["VM_STOP"] = answer_vm(status="pending", status_detail="starting")
    assert "ready" in ok(home, "start", "demo")
    api.control.on["VM_GET"] = answer_vm(status="stopped", status_detail="stopped")
    assert "stopped" in ok(home, "stop", "demo")
    api.control.on["VM_DELETE"] = lambda c, r: c.done(r, 204) if r.force else c.done(r, 409, code="vm_not_stopped", message="demo is not stopped")
    done = iron(home, "destroy", "demo")
    assert done.returncode == 1 and b"iron destroy --force demo" in done.stderr
    assert ok(home, "destroy", "--force", "demo") == "demo destroyed\n"


# --- egress, audit, keys, images, host ---

def test_egress(api, home):
    rule = wire.encode("rec_rule", id=5, host="api.example.com", ports=[80, 443])
    api.control.on["RULE_CREATE"] = api.control.on["VM_RULE_CREATE"] = lambda c, r: (c.row(r, "row_rule", rule=rule), c.done(r, 201))
    assert "allow api.example.com port 80,443 (egr_" in ok(home, "egress", "add", "--host", "api.example.com", "--port", "443", "--comment", "c")
    asked = wire.decode("rec_rule", api.control.seen[-1].rule)
    assert (asked["host"], asked["comment"], wire.unpack_list(wire.pack_list(asked["ports"]))) == (b"api.example.com", b"c", [struct.pack("<Q", 443)])
    ok(home, "egress", "add", "--cidr", "192.0.2.0/24", "--deny", "--vm", "demo")
    assert api.control.seen[-1].op_name == "VM_RULE_CREATE" and wire.decode("rec_rule", api.control.seen[-1].rule)["action"] == 1
    assert iron(home, "egress", "add").returncode in (1, 2)
    assert iron(home, "egress", "add", "--host", "a", "--port", "x").returncode in (1, 2)
    api.control.on["RULE_LIST"] = lambda c, r: (c.row(r, "row_rule", rule=rule), c.done(r))
    assert "api.example.com" in ok(home, "egress", "list")
    api.control.on["RULE_DELETE"] = lambda c, r: c.done(r, 204)
    assert "removed" in ok(home, "egress", "remove", "egr_0000000000005")
    api.control.on["POLICY_PUT"] = api.control.on["POLICY_GET"] = lambda c, r: (c.row(r, "row_policy", mode=1), c.done(r))
    assert ok(home, "egress", "mode", "warn") == "warn\n" and ok(home, "egress", "mode") == "warn\n"


def event(seq, **values):
    return dict(dict(seq=seq, timestamp=1700000000000 + seq, vm=7, host="x.example", port=443, protocol=2, verdict=2, reason="no rule allows it"), **values)


def test_audit_once(api, home):
    def events(control, request):
        assert request.order == 2
        for seq in (2, 1):
            control.row(request, "row_event", **event(seq, host=f"h{seq}.example", method="GET\x1b", path="/\x9b31m"))
        control.done(request)
    api.control.on["AUDIT_EGRESS"] = events
    out = ok(home, "audit", "egress", "--vm", "demo", "--verdict", "denied", "--since", "1h")
    assert out.index("h1.example:443") < out.index("h2.example:443") and "no rule allows it" in out and "\x1b" not in out and "\x9b" not in out
    assert api.control.seen[-1].vm == 0x1234567 and api.control.seen[-1].verdict == 2
    assert abs(api.control.seen[-1].since / 1000 - time.time() + 3600) < 60
    assert iron(home, "audit", "egress", "--since", "yesterday").returncode in (1, 2)


def test_audit_followed_over_a_restart_of_control(api, home):
    log = [event(1, host="first.example")]

    def events(control, request):
        at = int(request.cursor or b"0")
        for e in log[at:at + 1]:
            control.row(request, "row_event", **e)
        control.done(request, has_more=len(log) > at + 1, cursor=str(min(at + 1, len(log))))
    api.control.on["AUDIT_EGRESS"] = events
    p = subprocess.Popen([BUILD / "src/prog/iron", "audit", "egress", "--follow", "--json"], stdout=subprocess.PIPE, env=environment(home))
    try:
        assert json.loads(p.stdout.readline())["host"] == "first.example"
        api.control.close()
        time.sleep(0.3)
        api.connect_control()
        log += [event(2, host="second.example"), event(3, host="third.example")]
        api.control.on["AUDIT_EGRESS"] = events
        assert [json.loads(p.stdout.readline())["host"] for _ in range(2)] == ["second.example", "third.example"]
    finally:
        p.terminate()
        p.wait(10)
        p.stdout.close()


def test_keys_images_host_whoami(api, home):
    c = api.control
    c.on["KEY_CREATE"] = lambda c, r: (c.row(r, "row_key", id=3, name="ci", key="iron_live_secret", scopes=r.scopes), c.done(r, 201))
    done = iron(home, "keys", "create", "ci", "--scope", "vm:read", "--scope", "vm:run", "--days", "2")
    assert (done.returncode, done.stdout) == (0, b"iron_live_secret\n") and b"once" in done.stderr
    assert c.seen[-1].scopes == 3 and abs(c.seen[-1].expires_at / 1000 - time.time() - 2 * 86400) < 60
    c.on["KEY_LIST"] = lambda c, r: (c.row(r, "row_key", id=3, name="ci", scopes=3), c.done(r))
    assert "vm:read vm:run" in ok(home, "keys", "list")
    c.on["KEY_DELETE"] = lambda c, r: c.done(r, 204)
    assert "revoked" in ok(home, "keys", "revoke", "key_0000000000003")
    c.on["IMAGE_LIST"] = lambda c, r: (c.row(r, "row_image", id=2, name="base", size_bytes=1 << 30), c.done(r))
    c.on["IMAGE_GET"] = lambda c, r: (c.row(r, "row_image", id=2, name="base", size_bytes=1 << 30, made_from="debian"), c.done(r))
    assert "1.0 GiB" in ok(home, "image", "list") and "debian" in ok(home, "image", "show", "base")
    c.on["ME"] = lambda c, r: (c.row(r, "row_me", workspace=1, workspace_name="default", key=3, key_name="me", scopes=512), c.done(r))
    assert "default" in ok(home, "whoami") and "admin" in ok(home, "whoami")

    def host(c, r):
        c.row(r, "row_host", host=wire.encode("msg_host", accelerator="tcg", isolation="process", cpus=2, load_1m_percent=105), vms_running=1)
        c.row(r, "row_role", role=wire.encode("msg_role_row", name="iron-audit", state="ok", pid=7))
        c.done(r)
    c.on["HOST"] = host
    out = ok(home, "host")
    assert "process" in out and "iron-audit" in out and "2, load 1.05" in out
    assert json.loads(ok(home, "host", "--json"))["roles"][0]["pid"] == 7


# --- usage, settings, trust ---

COMMANDS = ["create", "list", "show", "status", "start", "stop", "wait", "destroy", "exec", "egress add", "egress remove", "egress list", "egress mode",
            "audit egress", "keys list", "keys create", "keys revoke", "image list", "image show", "host", "whoami"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_mistakes_are_usage(api, home, command):
    out = ok(home, *command.split(), "--help")
    assert "Examples:" in out or command in out
    assert f"iron {command}" in out
    done = iron(home, *command.split(), "--no-such-option")
    assert done.returncode == 2 and b"no-such-option" in done.stderr
    assert not api.control.seen


def test_top_level(api, home):
    assert "iron create demo" in ok(home, "--help") and iron(home).returncode == 2
    assert ok(home, "--version").startswith("iron ")
    assert "iron egress add" in ok(home, "egress", "--help") and iron(home, "egress").returncode == 2
    done = iron(home, "xy\x1bzzy")
    assert done.returncode == 2 and b"\x1b" not in done.stderr and b"iron --help" in done.stderr


def test_settings(api, home, tmp_path):
    config = home / ".config/iron/config.yaml"
    pin = config.read_text()
    config.write_text(pin.replace("tls_sha256: ", "tls_sha256: 00")[:-3] + "\n")
    done = iron(home, "list")
    assert done.returncode == 1 and b"certificate" in done.stderr.lower() or b"tls_sha256" in done.stderr
    config.write_text(pin + "more: 1\n")
    done = iron(home, "list")
    assert done.returncode == 1 and b"more" in done.stderr
    config.write_text(pin)
    config.chmod(0o644)
    assert b"chmod 600" in iron(home, "list").stderr
    config.chmod(0o600)
    ok(home, "list")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = iron(empty, "list")
    assert done.returncode == 1 and b"IRON_API_URL" in done.stderr
    done = iron(empty, "list", IRON_API_URL=f"https://localhost:{api.port}", IRON_API_KEY="k")  # nobody vouches for it
    assert done.returncode == 1 and b"certificate" in done.stderr.lower(), done.stderr
    done = iron(empty, "list", IRON_API_URL="https://127.0.0.1:1", IRON_API_KEY="k")
    assert done.returncode == 1 and b"127.0.0.1" in done.stderr


# --- exec ---

def test_exec_output_and_exit_code(api, home):
    def script(g):
        assert g.stdin() == b"in"
        g.send(STDOUT, b"out\xff")
        g.send(STDERR, b"err")
        g.exit(7)
    g = Guest(api, script)
    api.control.on["VM_LIST"] = vms(vm_row())
    done = iron(home, "exec", "demo", "-u", "root", "-w", "/tmp", "-e", "A=b c", "--", "sh", "-c", "x", stdin=b"in")
    g.join()
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\xff", b"err")
    assert (g.asked["argv"], g.asked["user"], g.asked["cwd"], g.asked["environment"]) == ([b"sh", b"-c", b"x"], b"root", b"/tmp", [b"A=b c"])


def test_exec_of_much_both_ways_at_once(api, home):
    data = os.urandom(1 << 20) * 12

    def cat(g):
        """As cat would: what comes in goes out, and while nobody takes it nothing more comes in."""
        g.stream.settimeout(60)
        while True:
            kind, piece = g.receive()
            if kind == STDIN_EOF:
                break
            g.send(STDOUT, piece)
        g.exit(0)
    g = Guest(api, cat)
    api.control.on["VM_LIST"] = vms(vm_row())
    done = iron(home, "exec", "demo", "--", "cat", stdin=data)
    g.join()
    assert done.returncode == 0, done.stderr
    assert done.stdout == data


def test_exec_of_a_command_that_says_more_than_it_is_told(api, home):
    """Both directions full at once: who waits to send must go on receiving."""
    data = os.urandom(1 << 20) * 8

    def amplify(g):
        g.stream.settimeout(60)
        while True:
            kind, piece = g.receive()
            if kind == STDIN_EOF:
                break
            for _ in range(8):
                g.send(STDOUT, piece)
        g.exit(0)
    g = Guest(api, amplify)
    api.control.on["VM_LIST"] = vms(vm_row())
    done = iron(home, "exec", "demo", "--", "amplify", stdin=data)
    g.join()
    assert done.returncode == 0 and len(done.stdout) == 8 * len(data)


def test_exec_that_does_not_run(api, home):
    api.control.on["VM_GET"] = answer_vm(status="stopped", status_detail="stopped")
    done = iron(home, "exec", "demo", "--", "true")
    assert done.returncode >= 125 and b"start it" in done.stderr
    g = Guest(api, lambda g: g.send(ERROR, wire.encode("stream_error", code="exec_failed", message="no such program")))
    api.control.on["VM_LIST"] = vms(vm_row())
    done = iron(home, "exec", "demo", "--", "nope")
    g.join()
    assert done.returncode >= 125 and b"no such program" in done.stderr
    assert iron(home, "exec", "demo").returncode == 2


def test_exec_when_the_vm_goes(api, home):
    g = Guest(api, lambda g: g.stream.close())
    api.control.on["VM_LIST"] = vms(vm_row())
    done = iron(home, "exec", "demo", "--", "sleep", "9")
    assert done.returncode == 125 and b"broke off" in done.stderr
    g.join()


def test_a_signal_is_passed_on(api, home):
    got = []

    def script(g):
        while True:
            kind, data = g.receive()
            if kind == SIGNAL:
                got.append(data[0])
                g.exit(130, signal=2)
                return
    g = Guest(api, script)
    api.control.on["VM_LIST"] = vms(vm_row())
    p = subprocess.Popen([BUILD / "src/prog/iron", "exec", "demo", "--", "sleep", "9"], stdin=subprocess.PIPE, env=environment(home))
    wait_for("the command", lambda: hasattr(g, "asked"))
    p.send_signal(signal.SIGINT)
    assert p.wait(15) == 130 and got == [signal.SIGINT]
    p.stdin.close()
    g.join()


def test_on_a_terminal(api, home):
    seen = {}

    def script(g):
        seen["first"] = g.receive()
        g.send(STDOUT, b"prompt$ ")
        seen["key"] = g.receive()
        seen["resize"] = g.receive()
        g.exit(5)
    g = Guest(api, script)
    api.control.on["VM_LIST"] = vms(vm_row())
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 90, 0, 0))
        os.execve(BUILD / "src/prog/iron", ["iron", "exec", "-t", "demo", "--", "bash"], environment(home))
    try:
        wait_for("the command", lambda: hasattr(g, "asked"))
        assert (g.asked["tty"], g.asked["rows"], g.asked["cols"]) == (True, 30, 90)
        wait_for("a raw terminal", lambda: not termios.tcgetattr(master)[3] & (termios.ICANON | termios.ECHO | termios.ISIG))
        os.write(master, b"a")
        out = b""
        while b"prompt$ " not in out:
            assert select.select([master], [], [], 10)[0]
            out += os.read(master, 1000)
        os.write(master, b"\x03")
        wait_for("Ctrl-C as a byte", lambda: "key" in seen)
        fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        g.join()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    finally:
        os.close(master)
    assert seen == {"first": (STDIN, b"a"), "key": (STDIN, b"\x03"), "resize": (RESIZE, struct.pack("<HH", 40, 100))}
