"""exec as events and detached, and earlier commands, over the API with iron-control, irond and iron-vm played by the test"""

import base64
import json
import os
import struct
import threading
import time

import pytest
import websocket

from api_lab import KEY, Api, answer_vm, stands_still
from harness import wait_for
from stream_lab import End, VM

EXEC, EXECS = f"/vms/{VM}/exec", f"/vms/{VM}/execs"
ID, NUMBER = "exec_00000000000h1", 0x221
ONE = f"{EXECS}/{ID}"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        before = a.descriptors()
        yield a
        wait_for("descriptors to be closed", lambda: a.descriptors() <= before)


@pytest.fixture(autouse=True)
def fresh(api):
    api.control.on.clear()
    api.control.seen.clear()
    api.control.records.clear()
    api.control.closed.clear()


def error(answer, status, code):
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.body
    return answer.json["error"]["message"]


def events(body):
    """[(event, data, id)] of a whole stream; comments are ("", …)."""
    out = []
    for block in body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":") and line)
        if fields:
            out.append((fields["event"], fields["data"], fields.get("id")))
    return out


def output(found, name):
    return b"".join(base64.b64decode(data) for event, data, _ in found if event == name)


def row(e, exec_id=NUMBER, **values):
    e.send("EXEC_ROW", **{"exec": exec_id, "argv": [b"sh"], "user": "agent", "running": True, "started_at": 1_700_000_000_000, **values})


# --- events ---

def test_output_as_events(api):
    noise = os.urandom(200_000)

    def script(e):
        e.got = e.stdin()
        e.send("STARTED")
        for at in range(0, len(noise), 32768):
            e.send("STDOUT", noise[at:at + 32768])
        e.send("STDERR", b"\n\ndata: x\n")
        e.send("EXIT", code=7, timed_out=True)
    e = End(api, "VM_EXEC", script)
    answer = api.call("POST", EXEC, {"argv": ["a"], "stdin": base64.b64encode(b"in").decode()}, headers={"Accept": "application/json;q=0.1, text/event-stream; q=1"})
    e.join()
    found = events(answer.body)
    assert (answer.status, answer.headers["Content-Type"], e.got) == (200, "text/event-stream", b"in")
    assert answer.headers["Iron-Exec-Id"].startswith("exec_") and e.asked["exec"] == e.token
    assert (output(found, "stdout"), output(found, "stderr")) == (noise, b"\n\ndata: x\n")
    assert (found[-1][0], json.loads(found[-1][1])) == ("exit", {"exit_code": 7, "timed_out": True})
    wait_for("its record", lambda: api.control.closed)
    closed = api.control.closed[-1]
    assert (closed["outcome"], closed["exec"], closed["sent"], closed["received"]) == (b"7", e.token, 2, len(noise) + 10)


def test_what_fails_before_it_runs_has_its_status_and_later_its_event(api):
    End(api, "VM_EXEC", lambda e: e.send("ERROR", code="no_such_user", message="bob"))
    error(api.call("POST", EXEC, {"argv": ["a"]}, headers=EVENTS), 422, "validation_error")
    End(api, "VM_EXEC", lambda e: (e.send("STARTED"), e.send("STDOUT", b"x"), e.send("ERROR", code="vm_gone", message="it\nstopped\x01")))
    answer = api.call("POST", EXEC, {"argv": ["a"]}, headers=EVENTS)
    name, data, _ = events(answer.body)[-1]
    assert (answer.status, name, json.loads(data)) == (200, "error", {"code": "vm_not_running", "message": "vm_gone: it\nstopped\x01"})
    End(api, "VM_EXEC", lambda e: e.send("STARTED"))
    name, data, _ = events(api.call("POST", EXEC, {"argv": ["a"]}, headers=EVENTS).body)[-1]
    assert (name, json.loads(data)["code"]) == ("error", "unavailable")
    End(api, "VM_EXEC", lambda e: (e.send("STARTED"), e.send("INFO", b"x")))
    name, data, _ = events(api.call("POST", EXEC, {"argv": ["a"]}, headers=EVENTS).body)[-1]
    assert (name, json.loads(data)["code"]) == ("error", "internal")


def test_silence_has_its_comments_and_a_client_that_goes_ends_it(api):
    e = End(api, "VM_EXEC", lambda e: (e.stdin(), e.send("STARTED"), setattr(e, "after", e.receive())))
    s = api.connect(25)
    body = b'{"argv":["a"]}'
    s.sendall(f"POST /v1{EXEC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nAccept: text/event-stream\r\n"
              f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    data, start = b"", time.monotonic()
    while b"\r\n\r\n4\r\n: \n\n\r\n" not in data:
        data += s.recv(65536)
    assert 13 < time.monotonic() - start < 20
    s.close()
    assert e.join().after == (None, b"")


def test_a_client_that_does_not_read_holds_the_command_back(api):
    sent, enough = [], threading.Event()

    def script(e):
        e.send("STARTED")
        while not enough.is_set():
            e.send("STDOUT", bytes(32768))
            sent.append(1)
            assert len(sent) < 2000
        e.send("EXIT", code=0)
    e = End(api, "VM_EXEC", script)
    s = api.connect(30)
    body = b'{"argv":["a"]}'
    s.sendall(f"POST /v1{EXEC} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nAccept: text/event-stream\r\n"
              f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    wait_for("it to stand still", lambda: len(sent) > 4 and stands_still(lambda: len(sent)))
    enough.set()
    found = events(api.read_answer(s).body)
    s.close()
    e.join()
    assert len(output(found, "stdout")) == len(sent) * 32768 and found[-1][0] == "exit"


# --- detached ---

def test_detached_is_only_started(api):
    e = End(api, "VM_EXEC", lambda e: (e.send("STARTED"), e.send("DONE"), setattr(e, "after", e.receive())))
    answer = api.call("POST", EXEC, {"argv": ["a"], "detach": True}, headers=EVENTS)
    e.join()
    assert answer.status == 200 and list(answer.json["data"]) == ["exec_id"]
    assert answer.json["data"]["exec_id"] == answer.headers["Iron-Exec-Id"]
    assert e.asked["detach"] and e.asked["exec"] == e.token and e.request.detach and e.after == (None, b"")
    End(api, "VM_EXEC", lambda e: e.send("ERROR", code="exec_failed", message="no such program"))
    error(api.call("POST", EXEC, {"argv": ["a"], "detach": True}), 422, "validation_error")
    End(api, "VM_EXEC", lambda e: (e.send("STARTED"), e.send("EXIT", code=0)))
    error(api.call("POST", EXEC, {"argv": ["a"], "detach": True}), 500, "internal")
    message = error(api.call("POST", EXEC, {"argv": ["a"], "detach": True, "stdin": "aGk="}), 422, "validation_error")
    assert message.startswith("stdin")


# --- the list ---

def test_the_list_is_newest_first_and_safe_to_show(api):
    def script(e):
        row(e, 1, started_at=1000, running=False, ended_at=2000, code=137, signal=9, timed_out=True, output=9 << 20, offset=1 << 20)
        row(e, 2, started_at=3000, argv=[b"a", b'\xff"\x1b'], command="", tty=True, detached=True)
        row(e, 3, started_at=2000, argv=[], command="echo \x00", user="x\r\ny")
        e.send("DONE")
    End(api, "VM_EXEC_LIST", script)
    page = api.call("GET", EXECS).json
    assert (page["has_more"], page["cursor"]) == (False, None)
    assert [r["started_at"] for r in page["data"]] == ["1970-01-01T00:00:03.000Z", "1970-01-01T00:00:02.000Z", "1970-01-01T00:00:01.000Z"]
    assert page["data"][0] == {"id": "exec_0000000000002", "vm_id": VM, "argv": ["a", '\ufffd"\x1b'], "command": "", "user": "agent", "tty": True, "detached": True,
                               "status": "running", "exit_code": None, "timed_out": False, "started_at": "1970-01-01T00:00:03.000Z", "ended_at": None,
                               "output_bytes": 0, "kept_from": 0}
    last = page["data"][2]
    assert (last["status"], last["exit_code"], last["timed_out"], last["output_bytes"], last["kept_from"]) == ("exited", 137, True, 9 << 20, 1 << 20)


@pytest.mark.parametrize("script", [lambda e: e.send("EXEC_ROW", b"\x01"), lambda e: e.send("STDOUT", b"x"), lambda e: [row(e, i + 1) for i in range(600)],
                                    lambda e: row(e), lambda e: e.send("EXIT", code=0)])
def test_a_guest_that_breaks_the_protocol_of_the_list(api, script):
    End(api, "VM_EXEC_LIST", script)
    assert api.call("GET", EXECS).status in (500, 503)


# --- one's output ---

def test_output_from_an_offset(api):
    e = End(api, "VM_EXEC_GET", lambda e: (row(e, output=20, offset=5), e.send("STDOUT", b"abc"), e.send("STDERR", b"de\xff"), e.send("DONE")))
    data = api.call("GET", ONE + "?offset=5").json["data"]
    assert (data["offset"], data["next_offset"], data["stdout"], data["stderr"], data["truncated"], data["kept_from"]) == (5, 11, "abc", "de\ufffd", False, 0)
    assert (data["id"], data["status"]) == (ID, "running")
    assert e.join().asked == {"exec": NUMBER, "offset": 5, "follow": False, "input": False}
    assert e.request.record["exec"] == NUMBER
    e = End(api, "VM_EXEC_GET", lambda e: (row(e, output=9 << 20, offset=1 << 20, running=False, code=3, ended_at=5), e.send("DONE")))
    data = api.call("GET", ONE).json["data"]
    assert (data["offset"], data["next_offset"], data["kept_from"], data["exit_code"]) == (1 << 20, 1 << 20, 1 << 20, 3)
    assert e.join().asked["offset"] == 0


def test_one_mebibyte_a_call(api):
    def script(e):
        row(e, output=4 << 20, offset=0)
        for i in range(100):
            e.send("STDOUT" if i % 2 else "STDERR", b"x" * 32_000)
        e.receive()
    e = End(api, "VM_EXEC_GET", script)
    data = api.call("GET", ONE).json["data"]
    assert data["truncated"] and data["next_offset"] == 1 << 20 == len(data["stdout"]) + len(data["stderr"])
    e.join()


def test_live_from_an_offset(api):
    def script(e):
        row(e, output=8, offset=2)
        e.send("STDOUT", b"cdef")
        e.send("STDERR", b"gh")
        e.send("EXIT", code=4)
    e = End(api, "VM_EXEC_GET", script)
    answer = api.call("GET", ONE + "?offset=2", headers=EVENTS)
    found = events(answer.body)
    assert [(name, number) for name, _, number in found] == [("exec", "2"), ("stdout", "6"), ("stderr", "8"), ("exit", None)]
    assert json.loads(found[0][1])["offset"] == 2 and answer.headers["Iron-Exec-Id"] == ID
    assert e.join().asked == {"exec": NUMBER, "offset": 2, "follow": True, "input": False}
    e = End(api, "VM_EXEC_GET", script)
    api.call("GET", ONE, headers={**EVENTS, "Last-Event-ID": "6"})
    assert e.join().asked["offset"] == 6
    error(api.call("GET", ONE, headers={**EVENTS, "Last-Event-ID": "x"}), 422, "validation_error")
    for bad in ("x", "-1", str(2**63), "01"):
        assert error(api.call("GET", ONE + "?offset=" + bad), 422, "validation_error").startswith("offset")


def test_a_gap_before_a_slow_reader(api):
    def script(e):
        row(e, output=30, offset=0)
        e.send("STDOUT", b"ab")
        row(e, output=30, offset=28)
        e.send("STDERR", b"yz")
        e.send("EXIT" if e.asked["follow"] else "DONE", **({"code": 0} if e.asked["follow"] else {}))
    e = End(api, "VM_EXEC_GET", script)
    found = events(api.call("GET", ONE, headers=EVENTS).body)
    assert [(name, number) for name, _, number in found] == [("exec", "0"), ("stdout", "2"), ("exec", "28"), ("stderr", "30"), ("exit", None)]
    e.join()
    e = End(api, "VM_EXEC_GET", script)
    data = api.call("GET", ONE).json["data"]
    assert (data["stdout"], data["stderr"], data["next_offset"], data["truncated"]) == ("ab", "", 2, True), "no gap within one answer"
    e.join()


@pytest.mark.parametrize("script", [lambda e: e.send("STDOUT", b"x"), lambda e: e.send("DONE"), lambda e: (row(e), row(e)), lambda e: e.send("EXIT", code=0),
                                    lambda e: (row(e), e.send("EXIT", code=0)), lambda e: e.send("EXEC_ROW", b"")])
def test_a_guest_that_breaks_the_protocol_of_an_output(api, script):
    End(api, "VM_EXEC_GET", script)
    error(api.call("GET", ONE), 500, "internal")


def test_unknown_commands(api):
    for op, method, path, body in (("VM_EXEC_GET", "GET", "", None), ("VM_EXEC_SIGNAL", "POST", "/signal", {"signal": "TERM"}), ("VM_EXEC_DELETE", "DELETE", "", None)):
        End(api, op, lambda e: e.send("ERROR", code="no_such_exec", message="gone"))
        error(api.call(method, ONE + path, body), 404, "exec_not_found")
    error(api.call("GET", EXECS + "/x"), 404, "exec_not_found")
    error(api.call("DELETE", EXECS + "/" + VM), 404, "exec_not_found")


@pytest.mark.parametrize("given,number", [("TERM", 15), ("SIGTERM", 15), (15, 15), ("15", 15), ("KILL", 9), (64, 64), ("SIGWINCH", 28)])
def test_signals(api, given, number):
    e = End(api, "VM_EXEC_SIGNAL", lambda e: e.send("DONE"))
    assert api.call("POST", ONE + "/signal", {"signal": given}).status == 204
    assert e.join().asked == {"exec": NUMBER, "number": number}


@pytest.mark.parametrize("given", ["NOPE", 0, 65, -1, "", None, True, 1.5, "term", ["TERM"]])
def test_what_is_no_signal(api, given):
    assert error(api.call("POST", ONE + "/signal", {"signal": given}), 422, "validation_error").startswith("signal")


def test_remove(api):
    e = End(api, "VM_EXEC_DELETE", lambda e: e.send("DONE"))
    assert api.call("DELETE", ONE).status == 204 and e.join().asked == {"exec": NUMBER}


# --- attach ---

def dial(api):
    api.control.on["VM_GET"] = answer_vm()
    return websocket.create_connection(f"wss://localhost:{api.port}/v1{ONE}", timeout=15, header=[f"Authorization: Bearer {KEY}"], sslopt={"ca_certs": str(api.ca)})


def gather(ws):
    out, controls = {1: b"", 2: b""}, []
    while True:
        opcode, frame = ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            return out, controls, struct.unpack("!H", frame[:2])[0]
        if frame[0] == 3:
            controls.append(json.loads(frame[1:]))
        else:
            out[frame[0]] += frame[1:]


def test_attach_with_input(api):
    def script(e):
        row(e, output=10, offset=3, tty=True)
        e.send("STDOUT", b"$ ")
        assert e.receive() == ("STDIN", b"ls\n")
        assert e.receive() == ("RESIZE", struct.pack("<HH", 40, 100))
        assert e.receive() == ("STDIN_EOF", b"")
        e.send("STDERR", b"bye")
        e.send("EXIT", code=0)
    e = End(api, "VM_EXEC_GET", script)
    ws = dial(api)
    ws.send(json.dumps({"offset": 3, "input": True}))
    ws.send_binary(b"\x00ls\n")
    ws.send_binary(b'\x03{"type":"resize","rows":40,"cols":100}')
    ws.send_binary(b'\x03{"type":"eof"}')
    out, controls, code = gather(ws)
    e.join()
    assert out == {1: b"$ ", 2: b"bye"} and code == 1000
    assert (controls[0]["type"], controls[0]["offset"], controls[0]["id"], controls[1]["type"]) == ("attached", 3, ID, "exit")
    assert e.asked == {"exec": NUMBER, "offset": 3, "follow": True, "input": True}


def test_rows_wait_for_a_client_that_does_not_read(api):
    sent, enough = [], threading.Event()

    def script(e):
        while not enough.is_set():
            sent.append(1)
            row(e, offset=len(sent), output=1 << 30, argv=[b"x" * 4000])
            assert len(sent) < 8000
        e.send("EXIT", code=0)
    e = End(api, "VM_EXEC_GET", script)
    ws = dial(api)
    ws.send("{}")
    wait_for("it to stand still", lambda: len(sent) > 4 and stands_still(lambda: len(sent)))
    enough.set()
    _, controls, code = gather(ws)
    e.join()
    assert [c.get("offset") for c in controls] == [*range(1, len(sent) + 1), None] and code == 1000


@pytest.mark.parametrize("message,code", [(b"\x00x", "validation_error"), (b'\x03{"type":"eof"}', "validation_error"),
                                          (b'\x03{"type":"signal","signal":"TERM"}', "validation_error"), (b"\x01x", "bad_request")])
def test_an_attach_that_only_looks_on(api, message, code):
    e = End(api, "VM_EXEC_GET", lambda e: (row(e), setattr(e, "after", e.receive())))
    ws = dial(api)
    ws.send("{}")
    assert b'"attached"' in ws.recv_data()[1]
    ws.send_binary(message)
    _, controls, _ = gather(ws)
    assert (controls[-1]["type"], controls[-1]["code"]) == ("error", code)
    assert e.join().after == (None, b"") and e.asked["input"] is False


def test_an_attach_to_what_is_not_there(api):
    End(api, "VM_EXEC_GET", lambda e: e.send("ERROR", code="no_such_exec", message="gone"))
    ws = dial(api)
    ws.send("{}")
    _, controls, _ = gather(ws)
    assert controls[-1]["code"] == "exec_not_found"
    ws = dial(api)
    ws.send('{"argv":["a"]}')
    _, controls, code = gather(ws)
    assert controls[-1]["code"] == "validation_error" and code == 1008
