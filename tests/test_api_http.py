"""iron-api as a server of bytes: framing, keep-alive, bounds, deadlines, TLS, and what it does to those who misbehave"""

import os
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest

from api_lab import Api, answer_vm, read_all, vm_row
from harness import wait_for

AUTH = b"Authorization: Bearer k\r\n"
HEALTH = b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def api():
    with Api(tls=False) as a:
        yield a


@pytest.fixture(autouse=True)
def fresh(api):
    api.control.on.clear()
    api.control.seen.clear()


def statuses(data):
    return [int(x) for x in re.findall(rb"HTTP/1\.1 (\d{3}) ", data)]


# --- framing ---

def test_keep_alive_and_pipelining_in_order(api):
    api.control.on["VM_LIST"] = lambda c, r: (time.sleep(0.2), c.done(r))
    with api.connect() as s:
        s.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n" + HEALTH + b"GET /v1/none HTTP/1.1\r\nHost: x\r\n\r\n" + HEALTH)
        assert statuses(read_all(s)) == [200, 200, 404, 200]
        s.sendall(HEALTH)
        assert statuses(read_all(s, 0.3)) == [200]


def test_a_request_byte_by_byte(api):
    with api.connect() as s:
        for b in b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + AUTH + \
                b"\r\n3\r\n{\"n\r\n9;ext=1\r\name\":\"a\"}\r\n0\r\nX-T: x\r\n\r\n":
            s.sendall(bytes([b]))
        wait_for("the request", lambda: api.control.seen)
        assert api.control.seen[0].record["name"] == b"a"


def test_connection_close_and_http_1_0(api):
    with api.connect() as s:
        s.sendall(HEALTH.replace(b"Host", b"Connection: close\r\nHost"))
        data = read_all(s, 5)
        assert statuses(data) == [200] and b"Connection: close" in data and s.recv(1) == b""
    with api.connect() as s:
        s.sendall(b"GET /v1/healthz HTTP/1.0\r\n\r\n")
        assert statuses(read_all(s, 5)) == [200] and s.recv(1) == b""


def test_expect_100_continue(api):
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 12\r\n" + AUTH + b"\r\n")
        assert s.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        s.sendall(b'{"name":"a"}')
        assert statuses(read_all(s, 0.5)) == [404]
    with api.connect() as s:  # a final answer instead, and no body is read
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Type: application/json\r\nContent-Length: 12\r\n\r\n")
        assert statuses(read_all(s, 5)) == [401]


SMUGGLING = [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"Content-Length: 5\r\nContent-Length: 6\r\n", b"Content-Length: 5, 5\r\n",
    b"Content-Length: +5\r\n", b"Content-Length: 0x5\r\n", b"Content-Length : 5\r\n", b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding : chunked\r\n",
    b"X: a\r\n b\r\n", b"X: a\nTransfer-Encoding: chunked\r\n", b"X: a\rb\r\n", b"X: \x00\r\n", b"Host: y\r\n",
    b"Content-Length: 99999999999999999999999\r\n", b"Connection: content-length\r\nContent-Length: 5\r\n"]


@pytest.mark.parametrize("header", SMUGGLING)
def test_smuggling_is_refused_and_ends_the_connection(api, header):
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + header + b"\r\n0\r\n\r\n" + HEALTH)
        data = read_all(s, 5)
    got = statuses(data)
    assert len(got) == 1 and got[0] in (400, 501), data
    assert b"Connection: close" in data and not api.control.seen


@pytest.mark.parametrize("first", [b"GET  /v1/healthz HTTP/1.1", b"GET /v1/healthz", b"GET /v1/healthz HTTP/1.2", b"GET /v1/healthz HTTP/2.0",
                                   b"GET /v1/he althz HTTP/1.1", b"CONNECT x:443 HTTP/1.1", b"TRACE / HTTP/1.1", b"GET http://y/v1/healthz HTTP/1.1",
                                   b"\x16\x03\x01\x00\x05hello", b"PRI * HTTP/2.0"])
def test_other_first_lines_are_refused(api, first):
    with api.connect() as s:
        s.sendall(first + b"\r\nHost: x\r\n\r\n" + HEALTH)
        got = statuses(read_all(s, 5))
    assert len(got) == 1 and 400 <= got[0] <= 505


@pytest.mark.parametrize("body", [b"zz\r\n", b"-1\r\n", b"5\r\nabcdefgh\r\n", b"ffffffffffffffffff\r\n", b"5 \r\nabcde\r\n", b"5\nabcde\r\n", b"1;" + b"x" * 600])
def test_bad_chunks(api, body):
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + AUTH + b"\r\n" + body + HEALTH)
        assert statuses(read_all(s, 5)) == [400]
    assert not api.control.seen


# --- bounds ---

def test_too_large_a_body_is_413_before_it_is_sent(api):
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048577\r\n" + AUTH + b"\r\n")
        data = read_all(s, 5)
    assert statuses(data) == [413] and b'"too_large"' in data


def test_too_large_a_chunked_body_is_413_and_the_answer_arrives(api):
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" + AUTH + b"\r\n")
        sender = threading.Thread(target=lambda: [send_quietly(s, b"10000\r\n" + b" " * 65536 + b"\r\n") for _ in range(40)])
        sender.start()
        data = read_all(s, 5)
        sender.join()
    assert statuses(data) == [413]


def send_quietly(s, data):
    try:
        s.sendall(data)
    except OSError:
        pass


def test_the_largest_body_passes(api):
    pad = b" " * ((1 << 20) - 12)
    with api.connect() as s:
        s.sendall(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1048576\r\n" + AUTH + b"\r\n" + b'{"name":"a"}' + pad)
        assert statuses(read_all(s)) == [404]


def test_large_and_many_headers_are_431(api):
    assert statuses(api.raw(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20000 + b"\r\n\r\n")) == [431]
    assert statuses(api.raw(b"GET /v1/healthz HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: a\r\n" % i for i in range(200)) + b"\r\n")) == [431]
    assert statuses(api.raw(b"GET /v1/healthz?" + b"a" * 17000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"))[0] in (414, 431)


def test_a_long_answer_to_a_slow_reader(api):
    def many(control, request):
        for i in range(2000):
            control.row(request, "row_vm", **vm_row(name=f"vm{i}", status_reason="x" * 500))
        control.done(request)
    api.control.on["VM_LIST"] = many
    with api.connect() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        s.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n" + HEALTH)
        time.sleep(0.5)
        assert api.call("GET", "/healthz").status == 200  # nobody else waits
        data = read_all(s)
    assert statuses(data) == [200, 200] and len(data) > 1_500_000


# --- half-closed, pipelined without end ---

def test_a_half_closed_client_still_gets_its_answer(api):
    api.control.on["VM_LIST"] = lambda c, r: (time.sleep(0.3), c.done(r))
    assert statuses(api.raw(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n", shut=True)) == [200]
    assert api.raw(b"GET /v1/vms HTTP/1.1\r\nHo", shut=True) == b""
    assert api.raw(b"POST /v1/vms HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 5\r\n" + AUTH + b"\r\n{", shut=True) == b""


def test_pipelining_without_reading_is_bounded(api):
    held = []
    api.control.on["VM_LIST"] = lambda c, r: held.append(r)
    with api.connect() as s:
        s.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n")
        wait_for("the request", lambda: held)
        s.setblocking(False)
        sent, end = 0, time.monotonic() + 3
        while time.monotonic() < end:
            try:
                sent += s.send(HEALTH * 1000)
            except BlockingIOError:
                time.sleep(0.05)
        rss = int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{api.process.pid}/status").read())[1])
        assert sent < 32 << 20 and rss < 200_000
        api.control.done(held[0])
        s.setblocking(True)
        assert s.recv(12) == b"HTTP/1.1 200"


# --- deadlines ---

def test_an_idle_connection_is_closed_at_its_time():
    with Api(tls=False, idle_timeout_ms=2000) as api:
        start = time.monotonic()
        with api.connect(60) as s:
            assert s.recv(1) == b"" and 1.5 < time.monotonic() - start < 5


# --- how many ---

def test_an_address_gets_half_and_idle_ones_make_room():
    with Api(tls=False, max_connections=64) as api:
        ours = [api.connect() for _ in range(32)]
        for s in ours:
            s.sendall(HEALTH)
            assert s.recv(12) == b"HTTP/1.1 200"
        refused = api.raw(HEALTH)
        assert statuses(refused) == [429] and b"Retry-After" in refused
        for address in ("127.0.0.2", "127.0.0.3"):
            for _ in range(20):
                assert api.call("GET", "/healthz", source=address).status == 200
        others = [api.connect(source="127.0.0.2") for _ in range(32)]  # the house is full: the longest idle one goes
        wait_for("all of them in", lambda: api.descriptors() >= 64)
        assert api.call("GET", "/healthz", source="127.0.0.3").status == 200
        wait_for("the first to be gone", lambda: is_closed(ours[0]))
        for s in ours + others:
            s.close()


def is_closed(s):
    s.settimeout(0.1)
    try:
        return b"" == s.recv(4096) or (s.recv(4096) == b"")
    except (TimeoutError, socket.timeout):
        return False
    except ConnectionError:
        return True


def test_a_full_house_of_busy_ones_is_503():
    with Api(tls=False, max_connections=32) as api:
        held = []
        api.control.on["VM_LIST"] = lambda c, r: held.append(r)
        busy = []
        for address in ("127.0.0.1", "127.0.0.2"):
            for _ in range(16):
                s = api.connect(source=address)
                s.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\n" + AUTH + b"\r\n")
                busy.append(s)
        wait_for("all of them to wait", lambda: len(held) == 32)
        with api.connect(source="127.0.0.3") as s:
            answer = api.read_answer(s)
            assert answer.status == 503 and answer.headers["Retry-After"]
        for r in held:
            api.control.done(r)
        for s in busy:
            assert s.recv(12) == b"HTTP/1.1 200"
            s.close()
        wait_for("room again", lambda: api.call("GET", "/healthz", source="127.0.0.3").status == 200)


# --- TLS ---

@pytest.fixture(scope="module")
def tls():
    with Api() as a:
        yield a


def context(tls, low, high):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(tls.ca)
    c.minimum_version, c.maximum_version = low, high
    c.set_ciphers("ALL:@SECLEVEL=0")
    return c


def test_tls_1_2_and_1_3_only(tls):
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with tls.connect(context=context(tls, version, version)) as s:
            s.sendall(HEALTH)
            assert s.recv(12) == b"HTTP/1.1 200" and s.version() == version.name.replace("_", ".")
    for version in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            tls.connect(context=context(tls, version, version)).close()


def test_alpn(tls):
    c = ssl.create_default_context(cafile=str(tls.ca))
    c.set_alpn_protocols(["h2", "http/1.1"])
    with tls.connect(context=c) as s:
        assert s.selected_alpn_protocol() == "http/1.1"
    c.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError):
        tls.connect(context=c).close()


def test_plain_http_to_the_tls_port_is_closed(tls):
    with socket.create_connection(("127.0.0.1", tls.port), 5) as s:
        s.sendall(HEALTH)
        assert b"200 OK" not in read_all(s)
    assert tls.call("GET", "/healthz").status == 200


def test_renegotiation_is_refused(tls):
    p = subprocess.Popen(["openssl", "s_client", "-connect", f"127.0.0.1:{tls.port}", "-tls1_2", "-CAfile", tls.ca],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    p.stdin.write(b"R\n")
    p.stdin.flush()
    out = p.communicate(timeout=20)[0]
    assert b"no renegotiation" in out or b"wrong" in out or b"alert" in out, out[-500:]


def test_curl_over_one_connection(tls):
    done = subprocess.run(["curl", "-sS", "-v", "--cacert", tls.ca, f"https://localhost:{tls.port}/v1/healthz", f"https://localhost:{tls.port}/v1/healthz"],
                          capture_output=True, text=True, timeout=20)
    assert done.returncode == 0 and done.stdout.count('"ok"') == 2 and "Re-using existing connection" in done.stderr


# --- walls ---

def test_it_runs_as_its_user_without_descriptors_of_files(tls):
    if os.getuid() != 0:
        pytest.fail("needs root")
    status = open(f"/proc/{tls.process.pid}/status").read()
    assert re.search(r"Uid:\s+65534\s+65534\s+65534\s+65534", status) and re.search(r"Seccomp:\s+2", status) and "NoNewPrivs:\t1" in status
    for fd in os.listdir(f"/proc/{tls.process.pid}/fd"):
        target = os.readlink(f"/proc/{tls.process.pid}/fd/{fd}")
        assert target.startswith(("socket:", "anon_inode:", "pipe:", "/dev/null")) or target.endswith("/log"), target
