"""files, archives and the console over the API, with iron-control, irond and iron-vm played by the test: streams, bounds, hostile guests"""

import http.client
import io
import os
import re
import socket
import struct
import tarfile
import threading
import time

import pytest

from api_lab import KEY, Api, read_all, stands_still
from harness import wait_for
from stream_lab import End, FILE_OPS, VM

FILES = f"/vms/{VM}/files"
SIZE = 12 << 20  # far past max_body_bytes and every buffer


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        before = a.descriptors()
        yield a
        wait_for("descriptors to be closed", lambda: a.descriptors() <= before + 1)  # iron-control's channel is a new one


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
        a.control.closed.clear()


def rss_kib(api):
    return int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{api.process.pid}/status").read())[1])


def head(method, path, *lines, version="1.1"):
    return "".join(f"{line}\r\n" for line in (f"{method} /v1{path} HTTP/{version}", "Host: x", f"Authorization: Bearer {KEY}", *lines, "")).encode()


def read_head(s):
    data = b""
    while not data.endswith(b"\r\n\r\n"):
        piece = s.recv(1)
        assert piece, data
        data += piece
    return data


def error(answer, status, code):
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.body
    return answer.json["error"]["message"]


def outcome(api, end):
    """What iron-control was told of that channel's end: it comes after the answer, and may come after the next call."""
    def mine():
        return [c for c in api.control.closed if c["path"] == end.asked["path"] and c["op"] == end.request.op]
    return wait_for("its record", mine)[-1]


# --- out ---

def test_a_file_as_it_is(api):
    data = os.urandom(100_000)

    def script(e):
        e.info(size=len(data), mode=0o100755, owner="dev", group="staff", modified_at=1_700_000_000_999)
        for at in range(0, len(data), 32768):
            e.send("STDOUT", data[at:at + 32768])
        e.send("DONE")
    e = End(api, "VM_FILE_GET", script)
    answer = api.call("GET", FILES + "?path=%2Fa%20b%2F%FF%22&user=root")
    e.join()
    assert (answer.status, answer.body) == (200, data)
    assert {k: answer.headers[k] for k in ("Content-Type", "Content-Length", "Iron-File-Mode", "Iron-File-Owner", "Last-Modified")} == {
        "Content-Type": "application/octet-stream", "Content-Length": "100000", "Iron-File-Mode": "0755", "Iron-File-Owner": "dev:staff",
        "Last-Modified": "Tue, 14 Nov 2023 22:13:20 GMT"}
    assert (FILE_OPS[e.asked["op"] - 1], e.asked["path"], e.asked["user"]) == ("READ", b'/a b/\xff"', b"root")
    assert (e.request.path, e.request.user) == (b'/a b/\xff"', b"root")
    closed = outcome(api, e)
    assert (closed["outcome"], closed["received"], closed["sent"], closed["path"]) == (b"done", 100_000, 0, b'/a b/\xff"')


def test_what_a_guest_says_of_a_file_breaks_no_head(api):
    e = End(api, "VM_FILE_GET", lambda e: (e.info(size=2, owner="a\r\nX-Evil: 1\r\n\r\n", group=b"\xff\x00:", mode=0o7777 | 1 << 20, modified_at=-5000),
                                           e.send("STDOUT", b"ok"), e.send("DONE")))
    answer = api.call("GET", FILES + "?path=x")
    e.join()
    assert (answer.body, answer.headers["X-Evil"], answer.headers["Iron-File-Owner"], answer.headers["Iron-File-Mode"]) == (b"ok", None, "a??X-Evil??1????:???", "7777")
    assert answer.headers["Last-Modified"] is None


@pytest.mark.parametrize("when", [0, 2**62, 253402300800000, -2**62])
def test_any_time_of_a_guest(api, when):
    End(api, "VM_FILE_GET", lambda e: (e.info(size=1, modified_at=when), e.send("STDOUT", b"x"), e.send("DONE")))
    assert api.call("GET", FILES + "?path=x").body == b"x"


def test_empty_and_unmeasured_files(api):
    End(api, "VM_FILE_GET", lambda e: (e.info(), e.send("DONE")))
    answer = api.call("GET", FILES + "?path=x")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", "0")
    End(api, "VM_FILE_GET", lambda e: (e.info(), e.send("STDOUT", b"of /proc"), e.send("DONE")))
    answer = api.call("GET", FILES + "?path=x")
    assert (answer.body, answer.headers["Transfer-Encoding"]) == (b"of /proc", "chunked")
    End(api, "VM_FILE_GET", lambda e: (e.info(kind=4), e.send("DONE")))
    answer = api.call("GET", FILES + "?path=x")
    assert (answer.body, answer.headers["Transfer-Encoding"]) == (b"", "chunked")


def test_head_of_a_file(api):
    e = End(api, "VM_FILE_GET", lambda e: e.info(size=1 << 40))
    answer = api.call("HEAD", FILES + "?path=x")
    assert (answer.status, answer.body, answer.headers["Content-Length"]) == (200, b"", str(1 << 40))
    e.join()


def test_one_connection_many_transfers(api):
    s = api.connect()
    for n in range(3):
        End(api, "VM_FILE_GET", lambda e: (e.info(size=3), e.send("STDOUT", b"abc"), e.send("DONE")))
        s.sendall(head("GET", FILES + "?path=x"))
        assert api.read_answer(s).body == b"abc"
        e = End(api, "VM_FILE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(size=5), e.send("DONE")))
        s.sendall(head("PUT", FILES + "?path=x", "Content-Length: 5") + b"hello")
        assert api.read_answer(s).json["data"]["size_bytes"] == 5
        assert e.join().got == b"hello"
    s.close()


@pytest.mark.parametrize("script,why", [
    (lambda e: (e.info(size=100), e.send("STDOUT", b"x" * 50), e.send("DONE")), "short"),
    (lambda e: (e.info(size=100), e.send("STDOUT", b"x" * 50)), "ends"),
    (lambda e: (e.info(size=100), e.send("STDOUT", b"x" * 101)), "long"),
    (lambda e: (e.info(size=100), e.send("STDOUT", b"x"), e.send("ERROR", code="io", message="the disk")), "error"),
    (lambda e: (e.info(size=100), e.send("STDOUT", b"x"), e.info(size=100)), "twice"),
    (lambda e: (e.info(size=100), e.send("EXIT", code=0)), "another"),
    (lambda e: (e.info(kind=4), e.send("STDOUT", b"x" * 50), e.send("ERROR", code="io", message="the disk")), "chunked")])
def test_a_cut_file_is_seen(api, script, why):
    e = End(api, "VM_FILE_GET", script)
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.call("GET", FILES + "?path=cut-" + why)
    e.join()
    assert outcome(api, e)["outcome"] != b"done"


def test_a_cut_file_is_seen_in_http_1_0(plain):
    End(plain, "VM_FILE_GET", lambda e: (e.info(kind=4), e.send("STDOUT", b"whole"), e.send("DONE")))
    data = plain.raw(head("GET", FILES + "?path=x", version="1.0"))
    assert data.endswith(b"\r\n\r\nwhole") and b"chunked" not in data and b"Connection: close" in data
    e = End(plain, "VM_FILE_GET", lambda e: (e.info(kind=4), e.send("STDOUT", b"part"), e.receive()))
    s = plain.connect()
    s.sendall(head("GET", FILES + "?path=x", version="1.0"))
    read_head(s)
    assert s.recv(4) == b"part"
    e.stream.shutdown(socket.SHUT_RDWR)
    with pytest.raises(ConnectionResetError):
        s.recv(1)
    s.close()


@pytest.mark.parametrize("script", [
    lambda e: e.send("DONE"), lambda e: e.send("STDOUT", b"x"), lambda e: e.send("INFO", b""), lambda e: e.send("INFO", b"\xff" * 50),
    lambda e: e.info(kind=2), lambda e: e.stream.send(b"\xc8x"), lambda e: e.info(kind=0, mode=0) or e.send("STDERR", b"x"), lambda e: e.send("ERROR", b"\x01")])
def test_a_guest_that_breaks_the_protocol(api, script):
    e = End(api, "VM_FILE_GET", script)
    try:
        assert api.call("GET", FILES + "?path=x").status == 500
    except (http.client.IncompleteRead, ConnectionError):
        pass
    e.join()
    assert api.call("GET", "/healthz").status == 200


@pytest.mark.parametrize("code,status,name", [
    ("no_such_file", 404, "file_not_found"), ("is_a_directory", 422, "validation_error"), ("denied", 422, "validation_error"),
    ("no_such_user", 422, "validation_error"), ("no_room", 507, "no_room"), ("io", 500, "internal"), ("vm_gone", 409, "vm_not_running"),
    ("limit", 429, "rate_limited"), ("unsafe", 422, "validation_error"), ("bad_archive", 422, "validation_error"), ("?", 500, "internal")])
@pytest.mark.parametrize("op,method,path", [("VM_FILE_GET", "GET", ""), ("VM_FILE_STAT", "GET", "/stat"), ("VM_ARCHIVE_PUT", "PUT", "/archive")])
def test_errors_have_their_status(api, op, method, path, code, status, name):
    End(api, op, lambda e: e.send("ERROR", code=code, message='why "\x1b\xff'))
    message = error(api.call(method, FILES + path + "?path=x"), status, name)
    assert message.startswith(code + ": why")


# --- in ---

def chunked(data, size):
    out = b"".join(b"%x\r\n%s\r\n" % (len(data[at:at + size]), data[at:at + size]) for at in range(0, len(data), size))
    return out + b"0\r\n\r\n"


@pytest.mark.parametrize("form", ["length", "chunked", "bytes"])
def test_a_body_of_any_size_arrives(api, form):
    data = os.urandom(SIZE if form != "bytes" else 40_000)
    e = End(api, "VM_FILE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(size=len(e.got), mode=0o600), e.send("DONE")))
    s = api.connect(30)
    path = FILES + "?path=/tmp/x&mode=0600&owner=dev:staff&parents=true&user=root"
    if form == "length":
        s.sendall(head("PUT", path, f"Content-Length: {len(data)}") + data)
    else:
        s.sendall(head("PUT", path, "Transfer-Encoding: chunked") + chunked(data, 100_000 if form == "chunked" else 1))
    answer = api.read_answer(s)
    s.close()
    assert answer.status == 200, answer.body
    assert answer.json["data"] == {"name": "x", "type": "file", "size_bytes": len(data), "mode": "0600", "owner": "agent", "group": "agent",
                                   "modified_at": None, "target": ""}
    assert e.join().got == data
    a = e.asked
    assert (FILE_OPS[a["op"] - 1], a["path"], a["mode"], a["owner"], a["recursive"], a["user"]) == ("WRITE", b"/tmp/x", 0o600, b"dev:staff", True, b"root")
    assert e.received < len(data) / 1000  # many small chunks are few datagrams
    closed = outcome(api, e)
    assert (closed["outcome"], closed["sent"]) == (b"done", len(data))


def test_no_body_is_an_empty_file(api):
    e = End(api, "VM_FILE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(), e.send("DONE")))
    assert api.call("PUT", FILES + "?path=x").status == 200
    assert (e.join().got, e.asked["mode"], e.asked["owner"], e.asked["recursive"]) == (b"", 2**32 - 1, b"", False)


def test_continue_comes_when_the_vm_listens(api):
    gate = threading.Event()

    def open_late(control, request):
        assert gate.wait(10)
        e.open(control, request)
    e = End(api, "VM_FILE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(), e.send("DONE")))
    api.control.on["VM_FILE_PUT"] = lambda c, r: threading.Thread(target=open_late, args=(c, r)).start()
    s = api.connect()
    s.sendall(head("PUT", FILES + "?path=x", "Content-Length: 5", "Expect: 100-continue"))
    s.settimeout(0.4)
    with pytest.raises(TimeoutError):
        s.recv(1)
    gate.set()
    s.settimeout(10)
    assert read_head(s) == b"HTTP/1.1 100 Continue\r\n\r\n"
    s.sendall(b"hello")
    assert api.read_answer(s).status == 200 and e.join().got == b"hello"
    s.close()


def test_refused_before_the_body(api):
    api.control.on["VM_FILE_PUT"] = lambda c, r: c.done(r, 409, code="vm_not_running", message="start it")
    s = api.connect()
    s.sendall(head("PUT", FILES + "?path=x", "Content-Length: 1000000000", "Expect: 100-continue"))
    error(api.read_answer(s), 409, "vm_not_running")
    assert s.recv(1) == b""
    for lines in (["Expect: 100-continue"], []):
        End(api, "VM_FILE_PUT", lambda e: (e.send("ERROR", code="is_a_directory", message="/tmp"), e.receive()))
        s = api.connect()
        s.sendall(head("PUT", FILES + "?path=/tmp", "Content-Length: 1000000000", *lines))
        answer = read_head(s)
        if answer.startswith(b"HTTP/1.1 100"):
            answer = read_head(s)
        assert answer.startswith(b"HTTP/1.1 422 ")
        s.close()
    assert api.call("PUT", FILES + "?path=x", key=None).status == 401


def test_a_client_that_goes_leaves_the_old_file(api):
    for form in ("Content-Length: 1000000", "Transfer-Encoding: chunked"):
        for way in ("close", "reset", "half"):
            e = End(api, "VM_FILE_PUT", lambda e: setattr(e, "got", e.stdin()))
            s = api.connect()
            s.sendall(head("PUT", FILES + "?path=x", form) + (b"5\r\nhello\r\n" if "chunked" in form else b"hello"))
            assert e.began.wait(10)
            wait_for("the first bytes", lambda: e.received or e.finished.is_set())
            if way == "reset":
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if way == "half":
                s.shutdown(socket.SHUT_WR)
            else:
                s.close()
            assert e.join().got is None  # no STDIN_EOF
            s.close()
    wait_for("the records", lambda: len(api.control.closed) == 6)
    assert {c["outcome"] for c in api.control.closed} == {b"client_gone"}


def test_a_malformed_body_leaves_the_old_file(api):
    e = End(api, "VM_FILE_PUT", lambda e: setattr(e, "got", e.stdin()))
    s = api.connect()
    s.sendall(head("PUT", FILES + "?path=x", "Transfer-Encoding: chunked") + b"5\r\nhello\r\nzz\r\n")
    answer = api.read_answer(s)
    assert (answer.status, e.join().got) == (400, None)
    assert s.recv(1) == b""


def test_a_half_close_after_the_whole_body_still_gets_its_answer(plain):
    e = End(plain, "VM_FILE_PUT", lambda e: (setattr(e, "got", e.stdin()), time.sleep(0.3), e.info(size=5), e.send("DONE")))
    data = plain.raw(head("PUT", FILES + "?path=x", "Content-Length: 5") + b"hello", shut=True)
    assert data.startswith(b"HTTP/1.1 200 ") and e.join().got == b"hello"


@pytest.mark.parametrize("script", [lambda e: e.send("DONE"), lambda e: (e.stdin(), e.send("DONE")),
                                    lambda e: (e.info(), e.info()), lambda e: (e.stdin(), e.send("STDOUT", b"x")), lambda e: (e.stdin(), e.info())])
def test_a_guest_that_breaks_the_protocol_of_a_put(api, script):
    e = End(api, "VM_FILE_PUT", script)
    assert api.call("PUT", FILES + "?path=x", b"y" * 10).status in (500, 503)
    e.join()


# --- bounds ---

def test_back_pressure_towards_the_vm(plain):
    go = threading.Event()
    e = End(plain, "VM_FILE_PUT", lambda e: (go.wait(30), setattr(e, "got", e.stdin()), e.info(), e.send("DONE")))
    before = rss_kib(plain)
    s = plain.connect()
    s.sendall(head("PUT", FILES + "?path=x", f"Content-Length: {64 << 20}"))
    assert e.began.wait(10)
    s.setblocking(False)
    piece, sent, end = bytes(65536), 0, time.monotonic() + 2
    while time.monotonic() < end:
        try:
            sent += s.send(piece)
        except BlockingIOError:
            time.sleep(0.05)
    assert sent < 24 << 20 and rss_kib(plain) - before < 2048, (sent, rss_kib(plain) - before)
    s.settimeout(30)
    go.set()
    while sent < 64 << 20:
        sent += s.send(piece[:min(len(piece), (64 << 20) - sent)])
    assert plain.read_answer(s).status == 200
    assert len(e.join().got) == 64 << 20 and rss_kib(plain) - before < 4096
    s.close()


def test_back_pressure_towards_the_client(plain):
    total, sent = 64 << 20, []

    def script(e):
        e.stream.settimeout(60)
        e.info(size=total)
        while len(sent) * 32768 < total:
            e.send("STDOUT", bytes(32768))
            sent.append(1)
        e.send("DONE")
    e = End(plain, "VM_FILE_GET", script)
    before = rss_kib(plain)
    s = plain.connect()
    s.sendall(head("GET", FILES + "?path=x"))
    wait_for("it to stand still", lambda: sent and stands_still(lambda: len(sent)))
    assert len(sent) * 32768 < 24 << 20 and rss_kib(plain) - before < 2048
    assert plain.call("GET", "/healthz").status == 200
    s.settimeout(30)
    assert len(plain.read_answer(s).body) == total
    s.close()
    e.join()
    assert rss_kib(plain) - before < 4096


def test_at_most_64_at_a_time(api):
    ends, sockets = [], []
    for _ in range(64):
        ends.append(End(api, "VM_FILE_GET", lambda e: e.receive()))
        s = api.connect()
        s.sendall(head("GET", FILES + "?path=x"))
        sockets.append(s)
        assert ends[-1].began.wait(10)
    answer = api.call("GET", FILES + "?path=x")
    assert "64" in error(answer, 429, "rate_limited") and answer.headers["Retry-After"]
    other = End(api, "VM_FILE_GET", lambda e: (e.info(), e.send("DONE")))
    assert api.call("GET", f"/vms/vm_00000000000h2/files?path=x").status == 200  # another VM's
    other.join()
    for s in sockets:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    for e in ends:
        e.join()
    End(api, "VM_FILE_GET", lambda e: (e.info(), e.send("DONE")))
    wait_for("room again", lambda: api.call("GET", FILES + "?path=x").status == 200)


def test_a_guest_that_never_answers(api):
    """Four kinds at once: each has its answer after 25 s, and the connection is not held longer. A body that stops coming has
    30 s."""
    cases = [("VM_FILE_STAT", "GET", "/stat"), ("VM_FILE_GET", "GET", ""), ("VM_ARCHIVE_GET", "GET", "/archive"), ("VM_CONSOLE", "GET", None)]
    for op, _, _ in cases:
        End(api, op, lambda e: e.receive())
    answers = {}

    def ask(op, method, path):
        answers[op] = api.call(method, FILES + path + "?path=x" if path is not None else f"/vms/{VM}/console", timeout=40)
    threads = [threading.Thread(target=ask, args=case) for case in cases]
    start = time.monotonic()
    stopped = End(api, "VM_FILE_PUT", lambda e: setattr(e, "got", e.stdin()))
    s = api.connect(40)
    s.sendall(head("PUT", FILES + "?path=x", "Content-Length: 100") + b"half of it")
    for t in threads:
        t.start()
    for t in threads:
        t.join(45)
    assert 24 < time.monotonic() - start < 35
    for op, _, _ in cases:
        assert "in time" in error(answers[op], 503, "unavailable") and answers[op].headers["Retry-After"]
    answer = api.read_answer(s)
    s.close()
    assert (answer.status, stopped.join().got) == (408, None) and 28 < time.monotonic() - start < 40


def test_iron_control_between_two_lives_is_waited_for(api):
    e = End(api, "VM_FILE_STAT", lambda e: (e.info(), e.send("DONE")))
    on = api.control.on
    api.control.close()
    answers = []
    t = threading.Thread(target=lambda: answers.append(api.call("GET", FILES + "/stat?path=x")))
    t.start()
    time.sleep(1)
    assert not answers
    api.connect_control()
    api.control.on.update(on)
    t.join(10)
    assert answers[0].status == 200, answers[0].body
    e.join()
    failures = iter([503, 503])
    e = End(api, "VM_FILE_STAT", lambda e: (e.info(), e.send("DONE")))

    def busy(control, request):
        status = next(failures, None)
        if status:
            control.done(request, status, code="unavailable", message="iron is starting", retry_after_s=2)
        else:
            e.open(control, request)
    api.control.on["VM_FILE_STAT"] = busy
    assert api.call("GET", FILES + "/stat?path=x").status == 200
    api.control.on["VM_FILE_STAT"] = lambda c, r: c.done(r, 503, code="unavailable", message="no journal")
    start = time.monotonic()
    assert "no journal" in error(api.call("GET", FILES + "/stat?path=x"), 503, "unavailable")
    assert 4 < time.monotonic() - start < 9


# --- without bytes ---

def test_a_list_and_its_pages(api):
    names = [b"a", "ü\n".encode(), b"\xff\xfe"]

    def script(e):
        for i, name in enumerate(names):
            e.info(name=name, kind=i + 1, size=i, target="/etc/\x1b" if i == 2 else "", more=True)
        e.send("DONE")
    e = End(api, "VM_FILE_LIST", script)
    page = api.call("GET", FILES + "/list?path=/&limit=3").json
    e.join()
    assert [(f["name"], f["type"], f["size_bytes"], f["target"]) for f in page["data"]] == [
        ("a", "file", 0, ""), ("ü\n", "directory", 1, ""), ("\ufffd\ufffd", "link", 2, "/etc/\x1b")]
    assert page["has_more"] and e.asked["limit"] == 3 and FILE_OPS[e.asked["op"] - 1] == "LIST"
    e = End(api, "VM_FILE_LIST", lambda e: e.send("DONE"))
    page = api.call("GET", FILES + "/list?path=/&cursor=" + page["cursor"]).json
    assert page == {"data": [], "has_more": False, "cursor": None}
    assert (e.join().asked["to"], e.asked["limit"], e.request.to) == (b"\xff\xfe", 100, b"")


def test_a_list_of_long_names_ends_its_page_early(api):
    def script(e):
        for i in range(1000):
            e.info(name=f"{i:04}", kind=3, target="\x01" * 4000, more=i < 999)
        e.send("DONE")
    End(api, "VM_FILE_LIST", script)
    page = api.call("GET", FILES + "/list?path=/&limit=1000").json
    assert 10 < len(page["data"]) < 100 and page["has_more"]
    assert bytes.fromhex(page["cursor"]) == page["data"][-1]["name"].encode()


@pytest.mark.parametrize("script", [
    lambda e: [e.info(name=str(i)) for i in range(3)], lambda e: e.info(name=""), lambda e: e.send("STDOUT", b"x"), lambda e: e.send("EXIT", code=0)])
def test_a_guest_that_breaks_the_protocol_of_a_list(api, script):
    End(api, "VM_FILE_LIST", script)
    assert api.call("GET", FILES + "/list?path=/&limit=2").status in (409, 500)


def test_stat_mkdir_move_remove(api):
    e = End(api, "VM_FILE_STAT", lambda e: (e.info(kind=2, size=4096, mode=0o40755, modified_at=1), e.send("DONE")))
    data = api.call("GET", FILES + "/stat?path=/a/b//").json["data"]
    assert (data["name"], data["type"], data["mode"], data["modified_at"]) == ("b", "directory", "0755", "1970-01-01T00:00:00.001Z")
    e = End(api, "VM_FILE_MKDIR", lambda e: (e.info(kind=2), e.send("DONE")))
    assert api.call("POST", FILES + "/mkdir", {"path": "/a/c", "mode": "700", "owner": "x:y"}).status == 201
    assert (e.join().asked["mode"], e.asked["owner"], e.asked["recursive"]) == (0o700, b"x:y", True)
    e = End(api, "VM_FILE_MKDIR", lambda e: (e.info(kind=2), e.send("DONE")))
    assert api.call("POST", FILES + "/mkdir", {"path": "/a/c", "parents": False}).status == 201
    assert e.join().asked["recursive"] is False
    e = End(api, "VM_FILE_MOVE", lambda e: (e.info(), e.send("DONE")))
    assert api.call("POST", FILES + "/move", {"from": "/a/c", "to": "/a/d", "overwrite": True}).json["data"]["name"] == "d"
    assert (e.join().asked["path"], e.asked["to"], e.asked["overwrite"], e.request.to) == (b"/a/c", b"/a/d", True, b"/a/d")
    e = End(api, "VM_FILE_DELETE", lambda e: e.send("DONE"))
    assert api.call("DELETE", FILES + "?path=/a&recursive=true").status == 204
    assert e.join().asked["recursive"] is True


@pytest.mark.parametrize("method,path,body,field", [
    ("GET", "", None, "path"), ("GET", "?path=", None, "path"), ("PUT", "", None, "path"), ("GET", "/list", None, "path"),
    ("GET", "?path=" + "x" * 4097, None, "path"), ("PUT", "?path=x&mode=9", None, "mode"), ("PUT", "?path=x&mode=77777", None, "mode"),
    ("PUT", "?path=x&owner=" + "o" * 128, None, "owner"), ("PUT", "?path=x&parents=1", None, "parents"), ("GET", "?path=x&user=a%0a", None, "user"),
    ("GET", "/list?path=x&limit=1001", None, "limit"), ("GET", "/list?path=x&cursor=0", None, "cursor"), ("GET", "/list?path=x&cursor=zz", None, "cursor"),
    ("POST", "/mkdir", {}, "path"), ("POST", "/mkdir", {"path": "a\0b"}, "path"), ("POST", "/move", {"from": "a"}, "to"), ("POST", "/move", {"to": "a"}, "from"),
    ("GET", "?path=x&recursive=true", None, "recursive")])
def test_bad_requests_name_the_field(api, method, path, body, field):
    message = error(api.call(method, FILES + path, body), 422, "validation_error")
    assert message.startswith(field), message
    assert not api.control.seen


def test_a_nul_in_a_path_is_refused(api):
    assert api.call("GET", FILES + "?path=a%00b").status == 400 and not api.control.seen


# --- archives, console ---

def member(name, data=b"", type=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = type, link, len(data)
    return info, data


def tar(*members, form=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for info, data in members:
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def header(name, data=b"", type=b"0", link=b"", mode=0o644, magic=b"ustar\x0000", prefix=b""):
    """One header and its bytes, each field as src/codec/tar.c puts it."""
    h, zero = bytearray(512), b"" if type == b"x" else b"0"
    for at, value in ((0, name[:100]), (100, b"%07o" % mode), (108, zero * 7), (116, zero * 7), (124, b"%011o" % len(data)), (136, zero * 11), (148, b" " * 8), (156, type), (157, link[:100]), (257, magic), (345, prefix)):
        h[at:at + len(value)] = value
    h[148:155] = b"%06o\0" % sum(h)
    return bytes(h) + data + bytes(-len(data) % 512)


def record(key, value):
    body, n = b" " + key + b"=" + value + b"\n", 0
    while n != len(body) + len(str(n)):
        n = len(body) + len(str(n))
    return str(n).encode() + body


def packed(*members):
    """As a VM's agent packs them."""
    out = b""
    for info, data in members:
        name, link = os.fsencode(info.name), os.fsencode(info.linkname)
        pax = (record(b"path", name) if len(name) > 100 else b"") + (record(b"linkpath", link) if len(link) > 100 else b"")
        out += (header(b"pax", pax, b"x") if pax else b"") + header(name, data, info.type, link, info.mode)
    return out + bytes(1024)


EVIL, END = b"../../evil", bytes(1024)
# judged by one reader these are harmless; Python's finds a name or a link that leads out, or a device
TWO_MEANINGS = {
    "a prefix of no POSIX header": header(b"safe", magic=b"ustar  ", prefix=EVIL) + END,
    "a name for all": header(b"pax", record(b"path", EVIL), b"g") + header(b"safe") + END,
    "a pax name, a GNU name": header(b"pax", record(b"path", EVIL), b"x") + header(b"L", b"safe\0", b"L") + header(b"safe") + END,
    "a pax target, a GNU target": header(b"pax", record(b"linkpath", b"/etc"), b"x") + header(b"K", b"safe\0", b"K") + header(b"l", type=b"2", link=b"safe") + END,
    "headers in a directory's body": header(b"d/", header(b"device", type=b"3"), b"\0") + END,
}


HONEST = [member("./", type=tarfile.DIRTYPE), member("a/" + "n" * 200, os.urandom(SIZE)), member("a/l", type=tarfile.SYMTYPE, link="n"),
          member("a/up", type=tarfile.SYMTYPE, link="../top"), member("h", type=tarfile.LNKTYPE, link="a/l"), member("ü\n"), member("empty")]
HARMFUL = {
    "absolute": [member("/etc/passwd", b"x")], "up": [member("../x", b"x")], "up inside": [member("a/../../x", b"x")],
    "a link out": [member("l", type=tarfile.SYMTYPE, link="/etc")], "a link up": [member("a/l", type=tarfile.SYMTYPE, link="../../x")],
    "a link up in disguise": [member("a/l", type=tarfile.SYMTYPE, link="b/../../../x")], "a hard link out": [member("h", type=tarfile.LNKTYPE, link="/etc/passwd")],
    "a hard link up": [member("h", type=tarfile.LNKTYPE, link="../x")], "a device": [member("d", type=tarfile.CHRTYPE)],
    "a block device": [member("d", type=tarfile.BLKTYPE)], "a pipe": [member("p", type=tarfile.FIFOTYPE)], "a long way up": [member("a/" * 100 + "../" * 101 + "x", b"x")],
}


def send_archive(e, data, step=30_000):
    e.info(kind=2)
    for at in range(0, len(data), step):
        e.send("STDOUT", data[at:at + step])
    e.send("DONE")


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_archives_both_ways(api, form):
    data = tar(*HONEST, form=form)
    own = packed(*HONEST)
    e = End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, own))
    answer = api.call("GET", FILES + "/archive?path=/a")
    e.join()
    assert (answer.status, answer.headers["Content-Type"], answer.body == own) == (200, "application/x-tar", True)
    assert FILE_OPS[e.asked["op"] - 1] == "PACK"
    e = End(api, "VM_ARCHIVE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(kind=2), e.send("DONE")))
    answer = api.call("PUT", FILES + "/archive?path=/a", data)
    assert (answer.status, answer.json["data"]["type"], e.join().got == data) == (200, "directory", True)
    assert FILE_OPS[e.asked["op"] - 1] == "UNPACK"
    small = packed(*HONEST[2:])
    e = End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, small, 7))
    assert api.call("GET", FILES + "/archive?path=/a").body == small


@pytest.mark.parametrize("what", HARMFUL)
def test_what_would_leave_its_directory_is_not_handed_on(api, what):
    """At the front it is refused, later the archive is cut; what comes in is refused before the machine sees it."""
    data = tar(*HARMFUL[what])
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, packed(*HARMFUL[what])))
    assert error(api.call("GET", FILES + "/archive?path=/a"), 422, "validation_error").startswith("unsafe")
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, packed(member("first", bytes(100_000)), *HARMFUL[what])))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.call("GET", FILES + "/archive?path=/a")
    e = End(api, "VM_ARCHIVE_PUT", lambda e: setattr(e, "got", e.stdin()))
    assert error(api.call("PUT", FILES + "/archive?path=/" + what.replace(" ", "-"), data), 422, "validation_error").startswith("unsafe")
    assert e.join().got is None and e.received == 0
    assert outcome(api, e)["outcome"] == b"validation_error"


@pytest.mark.parametrize("what", TWO_MEANINGS)
def test_what_another_reader_would_take_for_something_else_is_not_handed_on(api, what):
    data = TWO_MEANINGS[what]
    with tarfile.open(fileobj=io.BytesIO(data)) as t:
        assert any(m.name.startswith("..") or m.linkname == "/etc" or m.ischr() for m in t.getmembers())
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, data))
    assert error(api.call("GET", FILES + "/archive?path=/a"), 422, "validation_error").startswith("bad_archive")
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, header(b"first", bytes(100_352)) + data))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        api.call("GET", FILES + "/archive?path=/a")
    e = End(api, "VM_ARCHIVE_PUT", lambda e: setattr(e, "got", e.stdin()))
    assert error(api.call("PUT", FILES + "/archive?path=/a", data), 422, "validation_error").startswith("bad_archive")
    assert e.join().got is None and e.received == 0


@pytest.mark.parametrize("data", [tar(member("n" * 200)), tar(member("n" * 200), form=tarfile.GNU_FORMAT), header(b"a", prefix=b"b") + END,
                                  header(b"g", record(b"comment", b"x"), b"g") + header(b"a") + END], ids=["python", "gnu", "prefix", "global"])
def test_a_guest_speaks_as_its_agent_does_and_a_client_as_it_likes(api, data):
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, data))
    assert error(api.call("GET", FILES + "/archive?path=/a"), 422, "validation_error").startswith("bad_archive")
    e = End(api, "VM_ARCHIVE_PUT", lambda e: (setattr(e, "got", e.stdin()), e.info(kind=2), e.send("DONE")))
    assert api.call("PUT", FILES + "/archive?path=/a", data).status == 200 and e.join().got == data


@pytest.mark.parametrize("data", [b"x" * 2000, bytes(10240) + b"x" * 512, packed(member("a")) + packed(member("../b")), packed(member("a", b"x" * 600))[:1024]],
                         ids=["none", "behind its end", "two", "cut"])
def test_what_is_no_whole_archive(api, data):
    End(api, "VM_ARCHIVE_GET", lambda e: send_archive(e, data))
    try:
        assert api.call("GET", FILES + "/archive?path=/a").status in (422, 500)
    except (http.client.IncompleteRead, ConnectionError):
        pass


def test_the_console_as_it_is(api):
    raw = b"\x1b[2Jpanic\xff\x00\r\n" * 100
    e = End(api, "VM_CONSOLE", lambda e: (e.send("STDOUT", raw), e.send("DONE")))
    answer = api.call("GET", f"/vms/{VM}/console")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/plain; charset=utf-8", raw)
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and e.join().kind == "CONSOLE"
    End(api, "VM_CONSOLE", lambda e: [e.send("STDOUT", bytes(32768)) for _ in range(3)])
    assert api.call("GET", f"/vms/{VM}/console").status == 500  # more than is ever kept
    End(api, "VM_CONSOLE", lambda e: e.send("DONE"))
    assert api.call("GET", f"/vms/{VM}/console").body == b""


def test_throughput_and_no_growth(api):
    """256 MiB each way through TLS: iron-api's own share of the memory does not grow."""
    total, piece = 256 << 20, os.urandom(32768)

    def out(e):
        e.info(size=total)
        for _ in range(total // len(piece)):
            e.send("STDOUT", piece)
        e.send("DONE")
    before = rss_kib(api)
    End(api, "VM_FILE_GET", out)
    s = api.connect(60)
    s.sendall(head("GET", FILES + "?path=x"))
    read_head(s)
    got = 0
    while got < total:
        data = s.recv(1 << 18)
        assert data
        got += len(data)
    e = End(api, "VM_FILE_PUT", lambda e: (setattr(e, "n", drain(e)), e.info(), e.send("DONE")))
    s.sendall(head("PUT", FILES + "?path=x", f"Content-Length: {total}"))
    for _ in range(total // len(piece)):
        s.sendall(piece)
    assert api.read_answer(s).status == 200 and e.join().n == total
    s.close()
    assert rss_kib(api) - before < 4096


def drain(e):
    n = 0
    while True:
        kind, data = e.receive()
        if kind != "STDIN":
            assert kind == "STDIN_EOF"
            return n
        n += len(data)
