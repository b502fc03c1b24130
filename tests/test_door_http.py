"""Plain HTTP through the door: what is smuggled is refused, what is odd but right goes through as it came."""

import hashlib
import os
import re
import socket
import threading
import time

import pytest
from door_lab import lab, read_all, read_until, rule  # noqa: F401
from door_wire import OUTCOME, VERDICT
from harness import wait_for

GET = b"GET %s HTTP/1.1\r\nHost: api.example.com\r\n\r\n"


@pytest.fixture(autouse=True)
def allowed(lab):
    lab.policy(rule("*.example.com"))


def api(lab):
    return lab.connect("api.example.com", 80)


def read_response(s):
    """(head, body) of one answer with a length, leaving what follows it in the socket."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = s.recv(1)
        assert byte, head
        head += byte
    m = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    length = int(m[1]) if m else 0
    body = b""
    while len(body) < length:
        chunk = s.recv(length - len(body))
        assert chunk
        body += chunk
    return head, body


POST = b"POST /upload HTTP/1.1\r\nHost: api.example.com\r\n"
# The bytes of a request, and the status it is refused with.
SMUGGLING = {
    "length and encoding": (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
    "two equal lengths": (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
    "signed length": (POST + b"Content-Length: +3\r\n\r\nabc", 400),
    "list of lengths": (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
    "hex length": (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
    "huge length": (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
    "gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "xchunked": (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    "encoding in 1.0": (POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "obs-fold": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: a\r\n b\r\n\r\n", 400),
    "bare LF": (b"GET / HTTP/1.1\nHost: api.example.com\n\n", 400),
    "bare CR": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: a\rb\r\n\r\n", 400),
    "space before colon": (b"GET / HTTP/1.1\r\nHost : api.example.com\r\n\r\n", 400),
    "NUL": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: a\0b\r\n\r\n", 400),
    "bad chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
    "negative chunk size": (POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n", 400),
    "chunk that does not end": (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
    "chunk extension of 8 KiB": (POST + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 8192 + b"\r\nabc\r\n0\r\n\r\n",
                                 400),
    "HTTP/0.9": (b"GET /\r\n", 400),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: api.example.com\r\n\r\n", 505),
    "absolute form of another host": (b"GET http://evil.org/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 400),
    "no Host": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nHost: evil.org\r\n\r\n", 400),
    "no Host in 1.0": (b"GET / HTTP/1.0\r\n\r\n", 400),
    "h2c": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"HTTP2-Settings: \r\n\r\n", 501),
    "CONNECT": (b"CONNECT api.example.com:80 HTTP/1.1\r\nHost: api.example.com:80\r\n\r\n", 501),
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 501),
    "another port": (b"GET / HTTP/1.1\r\nHost: api.example.com:8080\r\n\r\n", 421),
    "expectation": (POST + b"Expect: 200-ok\r\nContent-Length: 3\r\n\r\nabc", 417),
    "head of 40 KiB": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
    "200 headers": (b"GET / HTTP/1.1\r\nHost: api.example.com\r\n" + b"X: a\r\n" * 200 + b"\r\n", 431),
    "target of 20 KiB": (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 414),
}


@pytest.mark.parametrize("case", SMUGGLING)
def test_smuggling_is_refused_and_recorded(lab, case):
    request, status = SMUGGLING[case]
    mark = lab.audit.mark()
    s = api(lab)
    s.sendall(request + GET % b"/smuggled")
    data, _ = read_all(s)
    assert data.startswith(b"HTTP/1.1 %d " % status), data[:200]
    assert data.count(b"HTTP/1.1 ") == 1, "what follows must not be taken for a request"
    assert b"Proxy-Status: iron; error=http_request_error" in data
    if b"\r\nTransfer-Encoding: chunked\r\n\r\n" in request and "chunk" in case:
        closed = lab.audit.close_of(lab.audit.one(mark, path="/upload"))  # its head was right
    else:
        closed = lab.audit.close_of(lab.audit.one(mark, verdict=VERDICT["VERDICT_DENIED"]))
    assert closed.outcome == OUTCOME["CLOSE_DENIED"] and closed.reason and closed.status == status
    assert b"smuggled" not in lab.http("http://api.example.com/seen")[1]


def test_neither_tls_nor_http_is_reset(lab):
    mark = lab.audit.mark()
    s = api(lab)
    s.send(b"\x01\x02\x03\x04")
    assert read_all(s) == (b"", True)
    assert lab.audit.one(mark).verdict == VERDICT["VERDICT_DENIED"]


def test_bytes_pass_as_they_came(lab):
    s = api(lab)
    s.sendall(b"GET /head?a=%2F&b=%41 HTTP/1.1\r\nhOST: api.example.com\r\nX-OdD:  two  spaces\r\nAccept:*/*\r\n\r\n")
    _, body = read_response(s)
    assert body.startswith(b"GET /head?a=%2F&b=%41 HTTP/1.1\n")
    assert b"hOST: " in body and b"X-OdD: two  spaces" in body


def test_absolute_form(lab):
    s = api(lab)
    s.sendall(b"GET http://api.example.com/head HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    assert read_response(s)[1].startswith(b"GET /head HTTP/1.1\n")


def test_each_request_of_a_connection_is_judged(lab):
    lab.policy(rule("api.example.com", paths=["/", "/head"]))
    mark = lab.audit.mark()
    s = api(lab)
    s.sendall(GET % b"/")
    assert b" 200 " in read_response(s)[0]
    s.sendall(GET % b"/other")
    head, body = read_response(s)
    assert b" 403 " in head and b"Do not retry" in body
    s.sendall(b"GET / HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
    assert b" 403 " in read_response(s)[0]
    s.sendall(GET % b"/head")  # a refusal of a request without a body leaves the connection usable
    assert b" 200 " in read_response(s)[0]
    lab.policy(rule("api.example.com", paths=["/head"]))
    s.sendall(GET % b"/")
    assert b" 403 " in read_response(s)[0]
    wait_for("five opens", lambda: len(lab.audit.since(mark, "record_open")) >= 5)
    opened = lab.audit.since(mark, "record_open")
    allowed, denied = VERDICT["VERDICT_ALLOWED"], VERDICT["VERDICT_DENIED"]
    assert [o.verdict for o in opened] == [allowed, denied, denied, allowed, denied]
    assert [o.connection for o in opened] == [0] + [opened[0].seq] * 4


def test_pipelining(lab):
    s = api(lab)
    s.sendall(GET % b"/bytes/3" + GET % b"/bytes/5" + POST + b"Content-Length: 4\r\n\r\nabcd" + GET % b"/bytes/7")
    assert [len(read_response(s)[1]) for _ in range(2)] == [3, 5]
    assert read_response(s)[1].startswith(b"4 ")
    assert read_response(s)[1] == b"b" * 7


def test_upstream_connection_is_kept(lab):
    s = api(lab)
    s.sendall(GET % b"/connections")
    first = int(read_response(s)[1])
    for _ in range(3):
        s.sendall(GET % b"/connections")
        assert int(read_response(s)[1]) == first
    s.sendall(GET % b"/bye")
    head, _ = read_response(s)
    s.sendall(GET % b"/connections")
    assert int(read_response(s)[1]) == first + 1


def test_upstream_that_closes_a_kept_connection(lab):
    s = api(lab)
    s.sendall(GET % b"/bye-silently")
    read_response(s)
    time.sleep(0.2)
    s.sendall(GET % b"/bytes/4")
    assert read_response(s)[1] == b"bbbb"


@pytest.mark.parametrize("path,status", [("/204", 204), ("/304", 304)])
def test_answers_without_a_body(lab, path, status):
    s = api(lab)
    s.sendall(GET % path.encode())
    assert read_until(s, b"\r\n\r\n").startswith(b"HTTP/1.1 %d " % status)
    s.sendall(GET % b"/bytes/2")
    assert read_response(s)[1] == b"bb"


def test_head(lab):
    s = api(lab)
    s.sendall(b"HEAD /bytes/5 HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    assert b"Content-Length: 5" in read_until(s, b"\r\n\r\n")
    s.sendall(GET % b"/bytes/2")
    assert read_response(s)[1] == b"bb"
    s.sendall(b"HEAD / HTTP/1.1\r\nHost: other.example.com\r\n\r\n")
    head = read_until(s, b"\r\n\r\n")
    assert b" 403 " in head
    s.sendall(GET % b"/bytes/2")
    assert read_response(s)[1] == b"bb"


def test_http10(lab):
    s = api(lab)
    s.sendall(b"GET /bytes/9 HTTP/1.0\r\nHost: api.example.com\r\n\r\n")
    data, reset = read_all(s)
    assert data.endswith(b"b" * 9) and not reset


def test_continue(lab):
    s = api(lab)
    s.sendall(POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert read_until(s, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    s.sendall(b"12345")
    assert read_response(s)[1].startswith(b"5 ")
    s = api(lab)  # denied: refused without a 100
    s.sendall(b"POST / HTTP/1.1\r\nHost: evil.org\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert read_all(s)[0].startswith(b"HTTP/1.1 403 ")


def test_interim_answers_pass(lab):
    s = api(lab)
    s.sendall(GET % b"/hints")
    assert read_response(s)[0].startswith(b"HTTP/1.1 103 ")
    assert read_response(s)[1] == b"final\n"


def test_chunked_request_with_trailers(lab):
    s = api(lab)
    s.sendall(POST + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3;ext=1\r\nabc\r\n")
    time.sleep(0.1)
    s.sendall(b"4\r\ndefg\r\n0\r\nX-Sum: 7\r\n\r\n" + GET % b"/bytes/1")
    body = read_response(s)[1]
    assert body == b"7 " + hashlib.sha256(b"abcdefg").hexdigest().encode() + b" X-Sum: 7\n"
    assert read_response(s)[1] == b"b"


def test_an_answer_streams_event_by_event(lab):
    s = api(lab)
    s.sendall(GET % b"/stream")
    start = time.monotonic()
    read_until(s, b"data: 0\n\n")
    assert time.monotonic() - start < 0.25, "the first event waited for later ones"
    data = read_until(s, b"\r\nX-Trailer: end\r\n\r\n")
    assert data.count(b"data: ") == 4
    s.sendall(GET % b"/bytes/1")
    assert read_response(s)[1] == b"b"


def test_an_early_answer(lab):
    s = api(lab)
    s.sendall(b"POST /early HTTP/1.1\r\nHost: api.example.com\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 100000)
    data = read_until(s, b"early\n")
    assert data.startswith(b"HTTP/1.1 413 ") and b"Connection: close" in data


def test_an_answer_until_the_end(lab):
    s = api(lab)
    s.sendall(GET % b"/close")
    data, reset = read_all(s)
    assert data.endswith(b"\r\n\r\nuntil the end") and not reset


def test_a_cut_answer_is_not_taken_for_a_whole_one(lab):
    mark = lab.audit.mark()
    s = api(lab)
    s.sendall(GET % b"/short")
    data, reset = read_all(s)
    assert data.endswith(b"only this") or reset
    assert reset
    assert lab.audit.close_of(lab.audit.one(mark)).outcome == OUTCOME["CLOSE_UPSTREAM"]


@pytest.mark.parametrize("path", ["/nothing", "/smuggle"])
def test_bad_answers_are_502(lab, path):
    s = api(lab)
    s.sendall(GET % path.encode())
    assert read_all(s)[0].startswith(b"HTTP/1.1 502 ")


def test_an_unasked_answer_is_never_given_to_the_next_request(lab):
    s = api(lab)
    s.sendall(GET % b"/unasked")
    assert read_response(s)[1] == b"one"
    s.sendall(GET % b"/bytes/2")
    assert read_response(s)[1] == b"bb"


def test_half_close(lab):
    s = api(lab)
    s.sendall(GET % b"/bytes/100000")
    s.shutdown(socket.SHUT_WR)
    data, reset = read_all(s)
    assert data.endswith(b"b" * 1000) and len(data) > 100000 and not reset


def test_a_request_that_ends_early_reaches_nobody_as_a_whole(lab):
    mark = lab.audit.mark()
    s = api(lab)
    s.sendall(POST + b"Content-Length: 10\r\n\r\nabc")
    s.shutdown(socket.SHUT_WR)
    read_all(s)
    assert lab.audit.close_of(lab.audit.one(mark)).outcome == OUTCOME["CLOSE_CLIENT"]


def test_websocket(lab):
    mark = lab.audit.mark()
    s = api(lab)
    s.sendall(b"GET /ws HTTP/1.1\r\nHost: api.example.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    data = read_until(s, b"\r\n\r\nhello")
    assert data.startswith(b"HTTP/1.1 101 ") and b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in data
    s.sendall(b"frames")
    assert read_until(s, b"FRAMES") == b"FRAMES"
    s.close()
    closed = lab.audit.close_of(lab.audit.one(mark))
    assert closed.status == 101 and closed.bytes_sent > 6


def test_upload_of_64_mib(lab, tmp_path):
    blob = os.urandom(1 << 20) * 64
    (tmp_path / "blob").write_bytes(blob)
    want = b"%d %s \n" % (len(blob), hashlib.sha256(blob).hexdigest().encode())
    for scheme in ("http", "https"):
        mark = lab.audit.mark()
        assert lab.http(f"{scheme}://api.example.com/upload", "-T", tmp_path / "blob") == (200, want)
        assert lab.audit.close_of(lab.audit.one(mark)).bytes_sent > len(blob)
    r = lab.guest("curl", "-sS", "-T", "-", "http://api.example.com/upload", input=blob)  # of unknown length: chunked
    assert r.stdout == want


def test_download_with_a_slow_reader_is_bounded(lab):
    s = api(lab)
    s.sendall(GET % b"/bytes/50000000")
    time.sleep(1)
    resident = int(next(line for line in open(f"/proc/{lab.worker.pid}/status") if line.startswith("VmRSS")).split()[1])
    assert resident < 150000, f"{resident} KiB"
    total = 0
    while total < 50000000:
        chunk = s.recv(1 << 20)
        assert chunk, "ended early"
        total += len(chunk)


def test_many_at_once(lab):
    failures = []

    def one():
        try:
            s = api(lab)
            for _ in range(20):
                s.sendall(GET % b"/bytes/1000")
                assert len(read_response(s)[1]) == 1000
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not failures


def test_descriptors_come_back(lab):
    wait_for("connections to end", lambda: lab.descriptors() < 40)
