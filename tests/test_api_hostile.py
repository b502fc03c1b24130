"""Clients that are slow, greedy or gone, and those that ask too often: bounded memory, deadlines, and everyone else served.
iron-api in its sandbox; iron-control is played."""

import contextlib
import json
import os
import resource
import select
import socket
import ssl
import threading
import time

import pytest

from api_lab import KEY, Api, Control
from harness import wait_for

# others' worst answer while somebody misbehaves; generous, for a machine that has other work
P99_S = 1.0


def rss_kib(api):
    for line in open(f"/proc/{api.process.pid}/status"):
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def descriptors(api):
    return len(os.listdir(f"/proc/{api.process.pid}/fd"))


def connect(api, tls=True):
    s = socket.create_connection(("127.0.0.1", api.port), timeout=20)
    if not tls:
        return s
    context = ssl.create_default_context(cafile=str(api.ca))
    return context.wrap_socket(s, server_hostname="localhost")


def head(method="GET", path="/v1/healthz", *lines):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *lines, "", ""]).encode()


AUTH = f"Authorization: Bearer {KEY}"


@contextlib.contextmanager
def others_are_served(api, at_least=50):
    """Somebody else asks all the while, on one connection and on new ones."""
    stop, times, failures = threading.Event(), [], []

    def ask():
        s = connect(api)
        while not stop.is_set() or len(times) < at_least:
            start = time.monotonic()
            if len(times) % 10 == 9:
                s.close()
                s = connect(api)
            s.sendall(head())
            answer = s.recv(4096)
            times.append(time.monotonic() - start)
            if not answer.startswith(b"HTTP/1.1 200"):
                failures.append(answer[:200])
                return
            time.sleep(0.01)
        s.close()

    def run():
        try:
            ask()
        except OSError as e:
            failures.append(e)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(60)
    assert not failures, failures
    assert sorted(times)[int(len(times) * 0.99)] < P99_S, sorted(times)[-5:]


@pytest.fixture(scope="module")
def api():
    with Api(max_connections=4096) as running:
        yield running


@pytest.fixture
def control(api):
    api.control.on.clear()
    api.control.seen.clear()
    return api.control


def drain(s, seconds=20):
    """All that comes until the server closes."""
    s.settimeout(seconds)
    data = b""
    with contextlib.suppress(ssl.SSLError, ConnectionError):
        while piece := s.recv(65536):
            data += piece
    return data


# --- too slow ---

def test_slow_heads_and_bodies_have_a_deadline(api, control):
    """A hundred that send a byte a second, in the head or in the body, and the handshake: cut off, with their 408."""
    slow = [connect(api) for _ in range(60)]
    bodies = [connect(api) for _ in range(40)]
    handshakes = [connect(api, tls=False) for _ in range(20)]
    begun = time.monotonic()
    for s in handshakes[::2]:
        s.sendall(b"\x16\x03\x01")
    for s in bodies:
        s.sendall(head("POST", "/v1/vms", AUTH, "Content-Type: application/json", "Content-Length: 1000"))
    rest = iter(head("GET", "/v1/vms", AUTH, "X-Slow: " + "y" * 200))
    with others_are_served(api):
        for byte in rest:
            if time.monotonic() - begun > 9:
                break
            for s in slow:
                s.sendall(bytes([byte]))
            for s in bodies:
                s.sendall(b" ")
            time.sleep(1)
        for s in slow:
            assert drain(s, 30).startswith(b"HTTP/1.1 408 ")
        assert 9 < time.monotonic() - begun < 20
        for s in handshakes:
            assert drain(s, 20) == b""
        for s in bodies:
            assert drain(s, 60).startswith(b"HTTP/1.1 408 ")
    assert 25 < time.monotonic() - begun < 60
    assert not control.seen


def big_list(control, request, rows=4000):
    for n in range(rows):
        control.row(request, "row_vm", id=n + 1, name=f"vm-{n}", status="stopped", status_detail="stopped", status_reason="x" * 500,
                    image="base", snapshot=0, parent=0, generation=1, vcpus=1, memory_mib=256, disk_gib=10, labels=b"", created_at=1,
                    updated_at=1, started_at=1, stopped_at=1)
    control.done(request)


def test_a_reader_that_never_reads(api, control):
    """A large answer waits in memory for its reader, 30 s at the most; others go on, and the memory is given back."""
    control.on["VM_LIST"] = lambda c, r: big_list(c, r, 16000)  # more than the kernel's buffers take
    with connect(api) as s:
        s.sendall(head("GET", "/v1/vms", AUTH, "Connection: close"))
        size = len(drain(s, 30))
    assert size > 12 << 20
    before = rss_kib(api)
    waiting = [connect(api) for _ in range(4)]
    begun = time.monotonic()
    with others_are_served(api):
        for s in waiting:
            s.sendall(head("GET", "/v1/vms", AUTH))
        wait_for("all to be asked", lambda: len(control.seen) >= 5, 30)
        assert rss_kib(api) - before < 4 * 3 * (size >> 10)
        wait_for("the connections to be cut", lambda: api_connections(api) <= 3, 60)
    assert 25 < time.monotonic() - begun < 60
    for s in waiting:
        s.close()


def api_connections(api):
    """Established ones, as the server's descriptors say."""
    count = 0
    for fd in os.listdir(f"/proc/{api.process.pid}/fd"):
        with contextlib.suppress(OSError):
            count += os.readlink(f"/proc/{api.process.pid}/fd/{fd}").startswith("socket:")
    return count - 3  # the listener, and the channels to irond and iron-control


def test_a_slow_reader_that_moves_is_served(api, control):
    control.on["VM_LIST"] = big_list
    with connect(api) as s:
        s.sendall(head("GET", "/v1/vms", AUTH, "Connection: close"))
        data = b""
        while piece := s.recv(65536):
            data += piece
            time.sleep(0.05)
    body = data.partition(b"\r\n\r\n")[2]
    assert len(json.loads(body)["data"]) == 4000


# --- too much ---

@pytest.mark.parametrize("what,status", [
    ("GET /v1/healthz HTTP/1.1\r\nHost: x\r\nX-Big: " + "y" * 20000 + "\r\n\r\n", b"431"),
    ("GET /v1/healthz?" + "y" * 20000 + " HTTP/1.1\r\nHost: x\r\n\r\n", b"4"),
    ("GET /v1/healthz HTTP/1.1\r\nHost: x\r\n" + "".join(f"X-{n}: y\r\n" for n in range(2000)) + "\r\n", b"431")])
def test_heads_that_are_too_large(api, control, what, status):
    with connect(api) as s:
        with contextlib.suppress(OSError):
            s.sendall(what.encode())
        assert drain(s).split()[1].startswith(status)


def test_bodies_that_are_too_large(api, control):
    before = rss_kib(api)
    with connect(api) as s:
        s.sendall(head("POST", "/v1/vms", AUTH, "Content-Type: application/json", "Content-Length: 999999999999"))
        assert drain(s).startswith(b"HTTP/1.1 413 ")
    # without a length: as soon as it is too much, and what follows is not gathered
    with connect(api) as s:
        s.sendall(head("POST", "/v1/vms", AUTH, "Content-Type: application/json", "Transfer-Encoding: chunked"))
        with contextlib.suppress(OSError):
            for _ in range(64):
                s.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
        assert drain(s).startswith(b"HTTP/1.1 413 ")
    assert rss_kib(api) - before < 8192
    assert not control.seen


def test_pipelined_requests_wait_their_turn(api, control):
    """Answers in order, one at a time; what is sent ahead fills the buffers of the kernel, not ours."""
    before = rss_kib(api)
    with connect(api) as s, others_are_served(api):
        s.setblocking(False)
        sent, answers, one = 0, b"", head()
        total = 3000 * len(one)
        pending = one * 3000
        end = time.monotonic() + 60
        while answers.count(b"HTTP/1.1 200") < 3000:
            assert time.monotonic() < end
            with contextlib.suppress(ssl.SSLWantWriteError, ssl.SSLWantReadError, BlockingIOError):
                if sent < total:
                    sent += s.send(pending[sent:sent + 65536])
            try:
                answers += s.recv(1 << 20)
            except (ssl.SSLWantReadError, BlockingIOError):
                select.select([s], [s] if sent < total else [], [], 1)
    assert rss_kib(api) - before < 4096


def test_a_client_that_only_sends(api, control):
    """It pipelines without reading: it is read no further, and cut off after the deadline of a writer."""
    before = rss_kib(api)
    with connect(api) as s, others_are_served(api):
        s.settimeout(5)
        begun, stuck = time.monotonic(), False
        try:
            while time.monotonic() - begun < 60:
                s.sendall(head() * 500)
        except (TimeoutError, ssl.SSLError, ConnectionError):
            stuck = True
        assert stuck
    assert rss_kib(api) - before < 4096


# --- gone ---

def test_half_closed(api, control):
    """Over TLS, before its first word or in the middle of a request: it gets no answer."""
    plain = [connect(api, tls=False) for _ in range(50)]
    for s in plain:
        s.shutdown(socket.SHUT_WR)
    for s in plain:
        assert drain(s) in (b"", b"\x15\x03\x03\x00\x02\x022")  # at most an alert
    with connect(api) as s:
        s.sendall(head("POST", "/v1/vms", AUTH, "Content-Type: application/json", "Content-Length: 10") + b"{")
        s.shutdown(socket.SHUT_WR)
        assert len(drain(s)) < 64  # TLS says goodbye, and nothing else


def test_clients_that_vanish_leave_nothing(api, control):
    """At every stage, by a reset or by an end: handshake, head, body, while iron-control thinks, in the middle of an answer."""
    held = []
    control.on["VM_LIST"] = lambda c, r: held.append(r)
    control.on["IMAGE_LIST"] = big_list
    before = descriptors(api)
    stages = [b"", head()[:10], head("POST", "/v1/vms", AUTH, "Content-Type: application/json", "Content-Length: 10"),
              head("GET", "/v1/vms", AUTH), head("GET", "/v1/images", AUTH)]
    for n in range(40):
        s = connect(api)
        s.sendall(stages[n % len(stages)])
        if n % len(stages) == 3:
            wait_for("the request to be there", lambda: len(held) > n // len(stages))
        if n % 2:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        s.close()
    for r in held:
        control.done(r)
    wait_for("every descriptor to be closed", lambda: descriptors(api) <= before, 40)
    assert b"200" in connect_and_ask(api)


def connect_and_ask(api):
    with connect(api) as s:
        s.sendall(head())
        return s.recv(4096)


def test_thousands_of_idle_connections(api, control):
    """They cost little, nobody notices them, and when there are too many the longest idle go first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    before, idle = rss_kib(api), []
    try:
        with others_are_served(api):
            for n in range(1900):  # half of max_connections is one address's
                s = connect(api)
                s.sendall(head())
                idle.append(s)
            for s in idle:
                assert s.recv(4096).startswith(b"HTTP/1.1 200")
        assert (rss_kib(api) - before) / len(idle) < 64  # KiB each, TLS included
        plain = []
        for n in range(400):
            plain.append(connect(api, tls=False))
        # past its half an address is refused, and the server goes on for those that are there
        idle[-1].sendall(head())
        assert idle[-1].recv(4096).startswith(b"HTTP/1.1 200")
        for s in plain:
            s.close()
    finally:
        for s in idle:
            s.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for("the connections to be gone", lambda: api_connections(api) <= 1, 30)


# --- too often ---

def asked(api, key, n):
    """Statuses of n calls on one connection, with their Retry-After."""
    out = []
    lines = [f"Authorization: Bearer {key}"] if key else []
    s = None
    for _ in range(n):
        s = s or connect(api)
        s.sendall(head("GET", "/v1/vms", *lines))
        answer = s.recv(8192)
        out.append((int(answer.split()[1]), b"Retry-After: " in answer, b"rate_limited" in answer))
        if b"Connection: close" in answer:
            s.close()
            s = None
    if s:
        s.close()
    return out


def by_key(good):
    def answer(control, request):
        status = 200 if request.key_hash == good else 401
        control.done(request, status, **({} if status == 200 else {"code": "unauthorized", "message": "no such key"}))

    return answer


@pytest.fixture
def good_key():
    import hashlib
    return hashlib.sha256(KEY.encode()).digest()


def test_rate_by_key(good_key):
    with Api(requests_per_key=5) as api:
        api.control.on["VM_LIST"] = by_key(good_key)
        got = asked(api, KEY, 60)
        assert got[:50] == [(200, False, False)] * 50
        assert got[-1] == (429, True, True)
        assert len(api.control.seen) < 60
        # others are not concerned, and it passes
        assert connect_and_ask(api).startswith(b"HTTP/1.1 200")
        wait_for("the bucket to fill", lambda: asked(api, KEY, 1)[0][0] == 200, 10)
        # what was refused is on record, counted: a message a second at most, the last with the next call
        refused = [s for s, _, _ in got].count(429)

        def counted():
            assert connect_and_ask(api).startswith(b"HTTP/1.1 200")
            told = [r for r in api.control.records if r["status"] == 429]
            return told if sum(r["count"] for r in told) >= refused else None

        assert len(wait_for("the count", counted)) < refused


def test_rate_by_address():
    with Api(requests_per_address=3) as api:
        statuses = []
        s = connect(api)
        for _ in range(40):
            s.sendall(head())
            statuses.append(s.recv(4096).split()[1])
        s.close()
        assert statuses[:30] == [b"200"] * 30 and statuses[-1] == b"429"


def test_failed_authentications_are_limited_harder(good_key):
    with Api(failures_per_address=2) as api:
        api.control.on["VM_LIST"] = by_key(good_key)
        assert asked(api, KEY, 1)[0][0] == 200
        got = asked(api, "iron_live_guess", 30)
        assert got[:20] == [(401, False, False)] * 20
        assert got[-1] == (429, True, True)
        looked_up = len(api.control.seen)
        assert asked(api, None, 1)[0][0] == 429
        assert asked(api, "iron_live_guess2", 1)[0][0] == 429
        assert len(api.control.seen) == looked_up
        # who has a good key at the same address goes on
        assert asked(api, KEY, 30) == [(200, False, False)] * 30
