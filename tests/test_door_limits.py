"""Bounds: connections, deadlines, floods. Each with an answer that says what it was, and a reason on record."""

import contextlib
import socket
import struct
import time

import pytest
from door_lab import Lab, read_all, read_until, rule
from door_wire import OUTCOME, PROTOCOL, VERDICT
from harness import wait_for


@pytest.fixture(scope="module")
def lab():
    it = Lab({"max_connections_per_vm": 20, "peek_timeout_ms": 1000, "connect_timeout_ms": 1500,
              "idle_timeout_ms": 1500, "total_timeout_ms": 4000})
    try:
        yield it.start()
    finally:
        it.stop()


@pytest.fixture(autouse=True)
def allowed(lab):
    wait_for("earlier connections to end", lambda: lab.descriptors() < 25, 10)
    lab.policy(rule("*.example.com", ports=[80, 443]), rule("raw.example.com", ports=[2525], tls=1))


def test_silence_is_closed_at_the_peek_deadline(lab):
    mark = lab.audit.mark()
    s = lab.connect("api.example.com", 443)
    start = time.monotonic()
    assert read_all(s) == (b"", True)
    assert 0.8 < time.monotonic() - start < 2
    closed = lab.audit.close_of(lab.audit.one(mark))
    assert closed.outcome == OUTCOME["CLOSE_TIMEOUT"] and "peek deadline" in closed.reason


@pytest.mark.parametrize("begun", [b"FROB / HTTP/1.1\r\nHost: other.exam", b"\x16\x03\x01\x01\x00\x01"])
def test_what_was_begun_does_not_become_raw_by_stalling(lab, begun):
    """In warn mode a server that speaks first is waited for; a request or a hello that stalls is not."""
    lab.policy(mode=1)
    mark = lab.audit.mark()
    s = lab.connect("mail.example.com", 2525)
    s.send(begun)
    assert read_all(s) == (b"", True)
    opened = lab.audit.one(mark, host="mail.example.com")
    assert opened.verdict == VERDICT["VERDICT_DENIED"] and "peek deadline" in opened.reason


def test_half_a_hello_is_closed_at_the_peek_deadline(lab):
    mark = lab.audit.mark()
    s = lab.connect("api.example.com", 443)
    s.send(b"\x16\x03\x01\x02\x00\x01\x00")
    read_all(s)
    assert lab.audit.close_of(lab.audit.one(mark)).outcome == OUTCOME["CLOSE_TIMEOUT"]


def test_a_slow_head_is_408(lab):
    mark = lab.audit.mark()
    s = lab.connect("api.example.com", 80)
    s.send(b"GET / HTTP/1.1\r\nHost: api")
    start = time.monotonic()
    data, _ = read_all(s)
    assert data.startswith(b"HTTP/1.1 408 ") and time.monotonic() - start < 4
    assert lab.audit.close_of(lab.audit.one(mark)).outcome == OUTCOME["CLOSE_TIMEOUT"]


def test_an_idle_exchange_is_504(lab):
    mark = lab.audit.mark()
    status, body = lab.http("http://api.example.com/hang")
    assert status == 504 and b"idle" in body
    assert lab.audit.close_of(lab.audit.one(mark)).outcome == OUTCOME["CLOSE_TIMEOUT"]


def test_an_idle_tunnel_is_cut(lab):
    mark = lab.audit.mark()
    s = lab.connect("raw.example.com", 2525)
    read_until(s, b"220 ready\r\n")
    assert read_all(s)[1]
    closed = lab.audit.close_of(lab.audit.one(mark))
    assert closed.outcome == OUTCOME["CLOSE_TIMEOUT"] and "idle" in closed.reason


def test_the_longest_life(lab):
    mark = lab.audit.mark()
    start = time.monotonic()
    r = lab.curl("-o", "/dev/null", "https://api.example.com/forever")
    assert r.returncode != 0 and 3 < time.monotonic() - start < 6
    closed = lab.audit.close_of(lab.audit.one(mark))
    assert closed.outcome == OUTCOME["CLOSE_TIMEOUT"] and "life" in closed.reason


def test_connecting_takes_its_time_at_most(lab):
    start = time.monotonic()
    assert lab.http("http://silent.example.com/")[0] == 504
    assert time.monotonic() - start < 3


def test_connections_of_a_vm_are_bounded(lab):
    mark = lab.audit.mark()
    address = lab.address("api.example.com")
    held = []
    for _ in range(30):
        held.append(lab.socket())
        with contextlib.suppress(ConnectionResetError):
            held[-1].connect((address, 80))
    alive = 0
    for s in held:
        s.settimeout(0.01)
        try:
            s.recv(1)
        except TimeoutError:
            alive += 1
        except OSError:
            pass
    assert alive == 20
    row = lab.audit.one(mark, "record_drop", protocol=PROTOCOL["PROTO_TCP"], port=80)
    assert row.address == address and "connections" in row.reason
    assert lab.address("still.answers.example.com")
    for s in held:
        s.close()


def fragments(hello):
    """The same ClientHello in many records, each sent byte by byte at its start."""
    parts = [hello[i : i + 40] for i in range(5, len(hello), 40)]
    return [b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts]


def client_hello(name):
    import ssl

    context = ssl._create_unverified_context()
    out = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return out.read()


def test_a_hello_in_many_records_and_packets(lab):
    for name, ok in (("api.example.com", True), ("other.example.com", False)):
        s = lab.connect("api.example.com", 443)
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for record in fragments(client_hello(name)):
            s.send(record[:3])
            time.sleep(0.005)
            s.send(record[3:])
            time.sleep(0.005)
        first = s.recv(7)
        assert (first[0] == 22) == ok, first
        if not ok:
            assert first == b"\x15\x03\x03\x00\x02\x02\x70"
        s.close()


def test_progress_is_recorded(lab):
    mark = lab.audit.mark()
    r = lab.curl("-o", "/dev/null", "http://api.example.com/bytes/80000000")
    opened = lab.audit.one(mark, host="api.example.com")
    assert r.returncode == 0, lab.audit.close_of(opened)
    assert lab.audit.since(mark, "record_progress", open_seq=opened.seq)
    assert lab.audit.close_of(opened).bytes_received > 80000000
