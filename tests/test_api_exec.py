"""exec over the API, buffered and by WebSocket, with iron-control, irond and iron-vm played by the test"""

import base64
import json
import os
import re
import socket
import ssl
import struct
import threading
import time

import pytest
import websocket

import wire
from api_lab import KEY, Api, answer_vm, read_all, stands_still
from harness import wait_for

VM = "vm_00000000000h1"
STDIN, STDOUT, STDERR, EXEC, STDIN_EOF, SIGNAL, RESIZE, EXIT, ERROR, STARTED = 0, 1, 2, 16, 17, 18, 19, 20, 21, 22
PATH = f"/vms/{VM}/exec"


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        yield a


@pytest.fixture(scope="module")
def plain():
    with Api(tls=False) as a:
        yield a


@pytest.fixture(autouse=True)
def fresh(api, plain):
    for a in (api, plain):
        a.control.on.clear()
        a.control.seen.clear()
        a.control.records.clear()


class Guest:
    """iron-vm's end of one exec: script(guest) runs on a thread once iron-api has its stream."""

    tokens = iter(range(100, 100000))

    def __init__(self, api, script, first="stream"):
        self.api, self.script, self.first = api, script, first
        self.error = None
        self.finished = threading.Event()
        for op in ("VM_EXEC", "VM_EXEC_WS"):
            api.control.on[op] = self.open
        api.control.on["VM_GET"] = answer_vm()

    def open(self, control, request):
        self.request = request
        token = next(Guest.tokens)
        if self.first == "stream":
            self.stream = self.api.stream(token)
        control.done(request, value=token)
        if self.first != "stream":
            time.sleep(0.2)
            self.stream = self.api.stream(token)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            kind, data = self.receive()
            assert kind == EXEC
            self.asked = wire.decode("stream_exec", data)
            self.send(STARTED)
            self.script(self)
        except BaseException as e:
            self.error = e
        finally:
            self.finished.set()

    def receive(self):
        data = self.stream.recv(100000)
        return (data[0], data[1:]) if data else (None, b"")

    def send(self, kind, data=b""):
        self.stream.send(bytes([kind]) + data)

    def exit(self, code=0, **values):
        self.send(EXIT, wire.encode("stream_exit", code=code, **values))

    def stdin(self):
        """All of it, to its end."""
        out = b""
        while True:
            kind, data = self.receive()
            if kind == STDIN_EOF:
                return out
            assert kind == STDIN and 0 < len(data) <= 32768
            out += data

    def join(self):
        assert self.finished.wait(15)
        if self.error:
            raise self.error


# --- buffered ---

@pytest.mark.parametrize("first", ["stream", "answer"])
def test_output_exit_code_and_what_the_guest_is_asked(api, first):
    def script(g):
        assert g.stdin() == b"in\x00put"
        g.send(STDOUT, b"out")
        g.send(STDERR, b"err\n")
        g.send(STDOUT, b"put\n")
        g.exit(7)
    g = Guest(api, script, first)
    answer = api.call("POST", PATH, {"argv": ["a", "", "b c"], "cwd": "/tmp", "env": {"K": "v=\n"}, "user": "root", "stdin": base64.b64encode(b"in\x00put").decode(),
                                     "timeout_s": 5})
    g.join()
    assert answer.status == 200, answer.body
    assert answer.json["data"] == {"exit_code": 7, "stdout": "output\n", "stderr": "err\n", "truncated": False, "timed_out": False}
    a = g.asked
    assert (a["argv"], a["command"], a["cwd"], a["environment"], a["user"], a["timeout_ms"], a["tty"]) == (
        [b"a", b"", b"b c"], b"", b"/tmp", [b"K=v=\n"], b"root", 5000, False)
    assert (g.request.user, g.request.argv) == (b"root", [b"a", b"", b"b c"])


def test_a_command_on_a_terminal(api):
    g = Guest(api, lambda g: (g.stdin(), g.exit(130, signal=2)))
    answer = api.call("POST", PATH, {"command": "exit 130", "tty": True, "rows": 50, "cols": 132})
    g.join()
    assert answer.json["data"]["exit_code"] == 130
    assert (g.asked["command"], g.asked["tty"], g.asked["rows"], g.asked["cols"]) == (b"exit 130", True, 50, 132)


def test_more_than_a_mebibyte_is_cut_and_the_command_goes_on(api):
    def script(g):
        g.stdin()
        for _ in range(80):
            g.send(STDOUT, b"x" * 32768)
        g.send(STDERR, b"\xff\x00\n")
        g.exit(0)
    g = Guest(api, script)
    data = api.call("POST", PATH, {"argv": ["a"]}).json["data"]
    g.join()
    assert (len(data["stdout"]), data["stderr"], data["truncated"]) == (1 << 20, "\ufffd\x00\n", True)


def test_much_stdin_against_a_slow_reader(api):
    def script(g):
        time.sleep(0.5)
        g.send(STDOUT, str(len(g.stdin())).encode())
        g.exit(0)
    g = Guest(api, script)
    answer = api.call("POST", PATH, {"argv": ["a"], "stdin": base64.b64encode(os.urandom(700_000)).decode()})
    g.join()
    assert answer.json["data"]["stdout"] == "700000"


@pytest.mark.parametrize("code,status,name", [("exec_failed", 422, "validation_error"), ("no_such_user", 422, "validation_error"),
                                              ("no_such_directory", 422, "validation_error"), ("vm_gone", 409, "vm_not_running"),
                                              ("limit", 429, "rate_limited"), ("other", 500, "internal")])
def test_what_does_not_start(api, code, status, name):
    g = Guest(api, lambda g: g.send(ERROR, wire.encode("stream_error", code=code, message="why \x1b")))
    answer = api.call("POST", PATH, {"argv": ["a"]})
    g.join()
    assert (answer.status, answer.json["error"]["code"]) == (status, name) and "why \x1b" in answer.json["error"]["message"]


def test_a_stream_that_ends_without_an_exit(api):
    g = Guest(api, lambda g: g.stream.close())
    answer = api.call("POST", PATH, {"argv": ["a"]})
    assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")  # it may have been done
    g.join()


def test_a_stream_that_breaks_its_protocol(api):
    g = Guest(api, lambda g: g.send(EXIT, b"\x01"))
    assert api.call("POST", PATH, {"argv": ["a"]}).status == 500
    g.join()


def test_the_client_leaves_and_the_command_is_hung_up(api):
    for shut in (False, True):
        g = Guest(api, lambda g: (g.stdin(), setattr(g, "after", g.receive())))
        s = api.connect()
        body = b'{"argv":["a"]}'
        s.sendall(f"POST /v1{PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_for("the exec", lambda: hasattr(g, "asked"))
        if shut:
            s.shutdown(socket.SHUT_WR)
        else:
            s.close()
        g.join()
        assert g.after == (None, b"")
        s.close()


def test_streams_that_nobody_awaits_are_closed(api):
    before = api.descriptors()
    orphans = [api.stream(2**40 + i) for i in range(5)]
    again = api.stream(2**40)
    assert again.recv(1) == b""  # a second one for a token
    api.control.on["VM_EXEC"] = lambda c, r: c.done(r, value=2**41)  # whose stream never comes
    answer = api.call("POST", PATH, {"argv": ["a"]})
    assert (answer.status, answer.json["error"]["code"]) == (503, "unavailable")
    for s in orphans:
        s.settimeout(15)
        assert s.recv(1) == b""
    wait_for("descriptors", lambda: api.descriptors() <= before)


def test_refused_by_control(api):
    api.control.on["VM_EXEC"] = lambda c, r: c.done(r, 403, code="scope_missing", message="vm:run is missing")
    answer = api.call("POST", PATH, {"argv": ["a"]})
    assert (answer.status, answer.json["error"]["code"]) == (403, "scope_missing")


# --- by WebSocket ---

def dial(api, key=KEY, timeout=15):
    return websocket.create_connection(f"wss://localhost:{api.port}/v1{PATH}", timeout=timeout, header=[f"Authorization: Bearer {key}"],
                                       sslopt={"ca_certs": str(api.ca)})


def control(ws, **message):
    ws.send_binary(b"\x03" + json.dumps(message).encode())


def gather(ws):
    """Until the server closes: {channel: bytes}, control messages, close code."""
    out, controls = {1: b"", 2: b""}, []
    while True:
        opcode, frame = ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return out, controls, struct.unpack("!H", frame[:2])[0]
        if frame[0] == 3:
            controls.append(json.loads(frame[1:]))
        else:
            out[frame[0]] += frame[1:]


def test_both_ways_signals_and_exit(api):
    def script(g):
        assert g.receive() == (STDIN, b"hello")
        g.send(STDOUT, b"got it\xff")
        assert g.receive() == (RESIZE, struct.pack("<HH", 40, 100))
        assert g.receive() == (SIGNAL, bytes([2]))
        assert g.receive() == (STDIN_EOF, b"")
        g.send(STDERR, b"bye")
        g.exit(130, signal=2)
    g = Guest(api, script)
    ws = dial(api)
    ws.send(json.dumps({"argv": ["sh"], "tty": True, "rows": 24, "cols": 80}))
    ws.send_binary(b"\x00hello")
    control(ws, type="resize", rows=40, cols=100)
    control(ws, type="signal", signal="INT")
    control(ws, type="eof")
    out, controls, code = gather(ws)
    g.join()
    assert out == {1: b"got it\xff", 2: b"bye"} and code == 1000
    assert controls == [{"type": "exit", "exit_code": 130, "signal": 2, "timed_out": False}]
    assert g.asked["tty"] and g.asked["rows"] == 24
    wait_for("its record", lambda: any(r["path"].endswith(b"/exec") and r["status"] == 101 for r in api.control.records))


def upgrade_status(api, key=KEY, path=PATH, **headers):
    send = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **headers}
    return api.call("GET", path, key=key, headers={k: v for k, v in send.items() if v is not None})


def test_what_is_wrong_before_the_upgrade_has_its_status(api):
    assert upgrade_status(api, key=None).status == 401
    assert upgrade_status(api).json["error"]["code"] == "vm_not_found"
    api.control.on["VM_GET"] = lambda c, r: c.done(r, 401, code="unauthorized", message="no such key")
    assert upgrade_status(api).status == 401
    api.control.on["VM_GET"] = answer_vm(status="stopped", status_detail="stopped")
    assert upgrade_status(api).json["error"]["code"] == "vm_not_running"
    assert upgrade_status(api, path="/vms/demo/exec").json["error"]["code"] == "vm_not_found"
    assert upgrade_status(api, Upgrade=None, Connection=None).status == 400
    for headers in ({"Sec-WebSocket-Key": "short"}, {"Sec-WebSocket-Key": None}, {"Sec-WebSocket-Version": "8"}, {"Upgrade": "h2c"}):
        assert 400 <= upgrade_status(api, **headers).status < 502


def test_a_key_that_may_run_but_not_read(api):
    g = Guest(api, lambda g: g.exit(0))
    api.control.on["VM_GET"] = lambda c, r: c.done(r, 403, code="scope_missing", message="vm:read")
    ws = dial(api)
    ws.send(json.dumps({"argv": ["true"]}))
    assert gather(ws)[1][0]["type"] == "exit"
    g.join()


@pytest.mark.parametrize("first,code,close", [
    ("{", "bad_request", 1008), ("{}", "validation_error", 1008), ('{"argv":["a"],"x":1}', "validation_error", 1008),
    ('{"argv":["a"],"stdin":"aGk="}', "validation_error", 1008), (b"\x00early", "bad_request", 1003)])
def test_bad_first_frames(api, first, code, close):
    api.control.on["VM_GET"] = answer_vm()
    ws = dial(api)
    ws.send(first) if isinstance(first, str) else ws.send_binary(first)
    _, controls, got = gather(ws)
    assert (controls[0]["type"], controls[0]["code"], got) == ("error", code, close)


def test_control_says_no_after_the_upgrade(api):
    api.control.on["VM_GET"] = answer_vm()
    api.control.on["VM_EXEC_WS"] = lambda c, r: c.done(r, 409, code="vm_not_running", message="it stopped just now")
    ws = dial(api)
    ws.send(json.dumps({"argv": ["a"]}))
    _, controls, code = gather(ws)
    assert controls == [{"type": "error", "code": "vm_not_running", "message": "it stopped just now"}] and code == 1008


def test_no_first_frame(api):
    api.control.on["VM_GET"] = answer_vm()
    ws = dial(api, timeout=20)
    _, controls, code = gather(ws)
    assert code == 1008 and "in time" in controls[0]["message"]


@pytest.mark.parametrize("message", [b"\x03{", b"\x03{}", b'\x03{"type":"kill"}', b'\x03{"type":"signal","signal":"NOPE"}', b'\x03{"type":"resize","rows":0,"cols":1}',
                                     b'\x03{"type":"eof","x":1}', b"\x03" + b" " * 2000, b"\x01out", b"\x04", b""])
def test_bad_messages_end_it(api, message):
    g = Guest(api, lambda g: setattr(g, "after", g.receive()))
    ws = dial(api)
    ws.send(json.dumps({"argv": ["a"]}))
    wait_for("the exec", lambda: hasattr(g, "asked"))
    ws.send_binary(message)
    _, controls, code = gather(ws)
    g.join()
    assert controls[0]["type"] == "error" and code in (1003, 1008) and g.after == (None, b"")


def raw_session(api):
    """Past the handshake and the first frame, on a bare socket."""
    api.control.on["VM_GET"] = answer_vm()
    s = api.connect()
    s.sendall(f"GET /v1{PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
              "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += s.recv(1)
    assert head.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
    return s


def frame(opcode, payload, fin=True, mask=b"\1\2\3\4", rsv=0):
    n = len(payload)
    head = bytes([(0x80 if fin else 0) | rsv | opcode])
    size = bytes([n]) if n < 126 else b"\x7e" + struct.pack("!H", n) if n < 65536 else b"\x7f" + struct.pack("!Q", n)
    size = bytes([size[0] | (0x80 if mask else 0)]) + size[1:]
    return head + size + (mask + bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if mask else payload)


@pytest.mark.parametrize("bad,code", [
    (frame(1, b"{}", mask=None), 1002), (frame(2, b"x", rsv=0x40), 1002), (frame(3, b""), 1002), (frame(0, b"x"), 1002), (frame(9, b"x" * 126), 1002),
    (frame(9, b"", fin=False), 1002), (frame(8, b"\x03"), 1002), (frame(8, struct.pack("!H", 1005)), 1002), (frame(1, b"\xff"), 1007),
    (frame(2, b"x" * (1 << 18)), 1009), (b"\x82\xff" + struct.pack("!Q", 1 << 62) + b"\1\2\3\4", 1009)])
def test_protocol_violations_close_with_their_code(plain, bad, code):
    s = raw_session(plain)
    s.sendall(bad)
    data = read_all(s, 5)
    s.close()
    close = data.rindex(b"\x88")
    assert struct.unpack("!H", data[close + 2:close + 4])[0] == code


def test_fragments_pings_and_close(plain):
    g = Guest(plain, lambda g: (setattr(g, "got", [g.receive(), g.receive()])))
    s = raw_session(plain)
    first = json.dumps({"argv": ["a"]}).encode()
    s.sendall(frame(1, first[:5], fin=False) + frame(9, b"pi") + frame(0, first[5:8], fin=False) + frame(0, first[8:]))
    assert s.recv(4) == b"\x8a\x02pi"
    s.sendall(frame(2, b"\x00ab", fin=False) + frame(0, b"cd"))
    wait_for("stdin", lambda: hasattr(g, "asked"))
    s.sendall(frame(8, struct.pack("!H", 1000) + b"done"))
    data = read_all(s, 5)
    s.close()
    g.join()
    assert data[:4] == b"\x88\x02" + struct.pack("!H", 1000)
    assert g.got == [(STDIN, b"abcd"), (None, b"")]


def test_a_client_that_vanishes_hangs_the_command_up(plain):
    g = Guest(plain, lambda g: setattr(g, "after", g.receive()))
    s = raw_session(plain)
    s.sendall(frame(1, b'{"argv":["a"]}'))
    wait_for("the exec", lambda: hasattr(g, "asked"))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    g.join()
    assert g.after == (None, b"")


def rss_kib(api):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{api.process.pid}/status").read())[1])


def test_back_pressure_towards_the_client(plain):
    sent, enough = [], threading.Event()

    def script(g):
        g.stream.settimeout(60)
        while not enough.is_set():
            g.send(STDOUT, b"y" * 32768)
            sent.append(1)
            assert len(sent) < 4000
        g.exit(0)
    g = Guest(plain, script)
    before = rss_kib(plain)
    s = raw_session(plain)
    s.sendall(frame(1, b'{"argv":["a"]}'))
    wait_for("it to stop", lambda: len(sent) > 10 and stands_still(lambda: len(sent)))
    assert len(sent) * 32768 < 16 << 20 and rss_kib(plain) - before < 30_000
    assert plain.call("GET", "/healthz").status == 200
    enough.set()
    data = read_all(s, 5)
    s.close()
    g.join()
    assert len(data) > len(sent) * 32768 and b'"exit_code":0' in data


def test_back_pressure_towards_the_vm(plain):
    go = threading.Event()

    def script(g):
        assert go.wait(30)
        got = 0
        while got < total[0]:
            kind, data = g.receive()
            assert kind == STDIN
            got += len(data)
        g.exit(0)
    total = [1 << 62]
    g = Guest(plain, script)
    before = rss_kib(plain)
    s = raw_session(plain)
    s.sendall(frame(1, b'{"argv":["a"]}'))
    wait_for("the exec", lambda: hasattr(g, "asked"))
    piece, sent, pending = frame(2, b"\x00" + b"z" * 100_000), 0, b""
    s.setblocking(False)
    end = time.monotonic() + 3
    while time.monotonic() < end:
        pending = pending or piece
        try:
            n = s.send(pending)
            sent += n
            pending = pending[n:]
        except BlockingIOError:
            time.sleep(0.05)
    assert sent < 24 << 20 and rss_kib(plain) - before < 30_000
    s.settimeout(20)
    frames = (sent + len(pending)) // len(piece)
    total[0] = frames * 100_000
    go.set()
    s.sendall(pending)
    data = read_all(s, 5)
    s.close()
    g.join()
    assert b'"exit_code":0' in data


def test_ping_floods_are_bounded(plain):
    g = Guest(plain, lambda g: setattr(g, "after", g.receive()))
    s = raw_session(plain)
    s.sendall(frame(1, b'{"argv":["a"]}'))
    wait_for("the exec", lambda: hasattr(g, "asked"))
    flood, end, sent, pending = frame(9, b"p" * 125) * 500, time.monotonic() + 3, 0, b""
    s.setblocking(False)
    while time.monotonic() < end:
        pending = pending or flood
        try:
            n = s.send(pending)
            sent += n
            pending = pending[n:]
        except BlockingIOError:
            time.sleep(0.05)
    assert sent < 24 << 20 and rss_kib(plain) < 200_000
    assert plain.call("GET", "/healthz").status == 200
    s.close()
    g.join()


def test_throughput_of_a_live_stream(plain):
    def script(g):
        for _ in range(2048):
            g.send(STDOUT, b"t" * 32768)
        g.exit(0)
    g = Guest(plain, script)
    s = raw_session(plain)
    s.sendall(frame(1, b'{"argv":["a"]}'))
    start, total = time.monotonic(), 0
    s.settimeout(20)
    while total < 2048 * 32768:
        total += len(s.recv(1 << 20))
    assert time.monotonic() - start < 10
    s.close()
    g.join()
