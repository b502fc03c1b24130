"""Guests and upstreams that mean harm to the worker itself: it must outlive them, and leave others their turn."""

import contextlib
import json
import re
import socket
import struct
import threading
import time

import pytest
from door_lab import in_namespace, lab, read_all, rule  # noqa: F401
from door_wire import OUTCOME
from harness import wait_for
from test_door_limits import client_hello

ASKS_WITHOUT_END = """
import socket, sys, threading
blob = bytes.fromhex(sys.argv[1]) * 2000
s = socket.create_connection(("10.77.0.1", 53))
def drain():
    while s.recv(1 << 20):
        pass
threading.Thread(target=drain, daemon=True).start()
while True:
    s.sendall(blob)
"""


def reset(s):
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def is_alive(lab):
    return lab.worker.poll() is None and lab.irond.call("msg_ping").code == 0


def listener(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("0.0.0.0", port))
    s.listen(64)
    return s.detach()


@contextlib.contextmanager
def upstream(lab, port, play):
    """A server at every name: play(socket) for each connection."""
    (fd,) = in_namespace(lab.namespaces["origin"], lambda: [listener(port)])
    server = socket.socket(fileno=fd)

    def one(s):
        with contextlib.suppress(OSError):
            play(s)
        s.close()

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=one, args=(server.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        server.close()


def test_fin_then_reset_while_the_upstream_sends(lab):
    def flood(s):
        s.settimeout(10)
        while True:
            s.sendall(b"x" * 65536)

    lab.policy(rule("raw.example.com", ports=[3001], tls=1))
    with upstream(lab, 3001, flood):
        for i in range(8):
            s = lab.connect("raw.example.com", 3001)
            s.recv(1000)
            s.shutdown(socket.SHUT_WR)
            time.sleep(0.1)
            for _ in range(i):
                s.recv(100000)
            reset(s)
            time.sleep(0.1)
            assert is_alive(lab)


def test_fin_then_reset_of_the_upstream_while_the_guest_sends(lab):
    def end(s):
        s.shutdown(socket.SHUT_WR)
        time.sleep(0.2)
        reset(s)

    lab.policy(rule("raw.example.com", ports=[3002], tls=1))
    with upstream(lab, 3002, end):
        s = lab.connect("raw.example.com", 3002)
        with contextlib.suppress(OSError):
            for _ in range(40):
                s.sendall(b"y" * 20000)
                time.sleep(0.02)
    assert is_alive(lab)


@pytest.mark.parametrize("port", [80, 443])
@pytest.mark.parametrize("how", ["policy", "detach"])
def test_cut_while_a_silent_resolver_is_asked(lab, how, port):
    """c-ares holds the question longer than the connection that asked it lives."""
    first = client_hello("silent.example.com") if port == 443 else b"GET / HTTP/1.1\r\nHost: silent.example.com\r\n\r\n"
    lab.policy(rule("silent.example.com"))
    for _ in range(3):
        lab.connect("silent.example.com", port).sendall(first)
    time.sleep(0.5)
    names = lab.names_fd
    if how == "detach":
        lab.detach()
    else:
        lab.policy(rule("api.example.com"))
    time.sleep(3)  # past connect_timeout_ms
    assert is_alive(lab)
    if how == "detach":
        lab.attach(names)
        lab.version = 0
    lab.policy(rule("api.example.com"))
    assert lab.http("http://api.example.com/")[0] == 200


def test_a_guest_that_asks_dns_without_end_leaves_others_their_turn(lab):
    import dns.message

    lab.policy(rule("api.example.com"))
    query = dns.message.make_query("x.example.com", "AAAA").to_wire()
    framed = (struct.pack(">H", len(query)) + query).hex()
    guests = [lab.start_guest("/usr/bin/python3", "-c", ASKS_WITHOUT_END, framed) for _ in range(2)]
    try:
        time.sleep(0.7)
        for _ in range(5):
            start = time.monotonic()
            assert is_alive(lab) and time.monotonic() - start < 1
            time.sleep(0.2)
        assert lab.http("http://api.example.com/")[0] == 200
    finally:
        for g in guests:
            g.kill()
            g.wait()


def versioned(hello, minor):
    return hello[:2] + bytes([minor]) + hello[3:]


def test_a_hello_in_disguise_on_raw_tcp(lab):
    """Servers ignore the version of the first record, and some still take an SSLv2 hello, which carries no name."""
    lab.policy(rule("mail.example.com", ports=[8443], tls=1))
    sslv2 = b"\x80\x2e\x01\x03\x03\x00\x15\x00\x00\x00\x10" + b"\x00\x00\x2f" * 7 + b"c" * 16
    for first in (versioned(client_hello("x.example.com"), 5), versioned(client_hello("x.example.com"), 255), sslv2):
        mark = lab.audit.mark()
        s = lab.connect("mail.example.com", 8443)
        s.sendall(first)
        assert read_all(s) == (b"", True)
        closed = lab.audit.close_of(lab.audit.one(mark))
        assert closed.outcome == OUTCOME["CLOSE_DENIED"] and closed.bytes_sent == 0, closed.reason


def test_the_page_inside_holds_what_fits_of_a_large_policy(lab):
    long = [rule("api.example.com", paths=[f"/{'p' * 200}{i}-{j}" for j in range(10)], number=i + 1)
            for i in range(600)]
    lab.policy(*long)
    status, page = lab.http("http://iron.internal/")
    assert status == 200 and re.search(rb"\n  and 5\d\d more that are not shown\n", page) and b"Latest denials" in page
    status, page = lab.http("http://iron.internal/", "-H", "Accept: application/json")
    shown = json.loads(page)
    assert status == 200 and 10 < len(shown["rules"]) == 600 - shown["rules_not_shown"]
    lab.policy(rule("api.example.com"))
    shown = json.loads(lab.http("http://iron.internal/", "-H", "Accept: application/json")[1])
    assert (len(shown["rules"]), shown["rules_not_shown"]) == (1, 0)


CONNECTS = """
import socket, sys
for _ in range(30000):
    s = socket.socket()
    s.connect_ex((sys.argv[1], 80))  # a reset may overtake connect's return
    s.close()
"""


def test_a_flood_of_connections_while_the_journal_stalls(lab):
    lab.policy(rule("api.example.com"))
    address = lab.address("api.example.com")
    lab.audit.hold.clear()
    try:
        assert lab.guest("/usr/bin/python3", "-c", CONNECTS, address, timeout=60).returncode == 0
        assert lab.http("http://api.example.com/")[0] == 503, "what waits for the journal is bounded"
    finally:
        lab.audit.hold.set()
    wait_for("the door to open again", lambda: lab.http("http://api.example.com/")[0] == 200, 10)
