"""DNS by synthetic addresses, the table of names that outlives a worker, and what the rules dropped."""

import mmap
import os
import socket
import struct
import time

import dns.flags
import dns.message
import dns.rcode
import pytest
from door_lab import NAMES_RECORD, VM, lab, read_all, rule  # noqa: F401
from door_wire import PROTOCOL
from harness import wait_for

RECORD = struct.Struct("<qB255s")


@pytest.fixture(autouse=True)
def allowed(lab):
    lab.policy(rule("*.example.com"))


def rcode(answer):
    return dns.rcode.to_text(answer.rcode())


def test_a_name_has_one_address_in_the_range(lab):
    first, second = lab.address("one.example.com"), lab.address("two.example.com")
    assert first != second and first == lab.address("ONE.Example.COM")
    assert all(a.startswith(("28.0.", "28.1.")) for a in (first, second))


def test_tcp_and_any_server_address(lab):
    assert lab.dig("one.example.com", tcp=True).answer[0][0].address == lab.address("one.example.com")
    assert lab.dig("one.example.com", server="8.8.8.8").answer[0][0].address == lab.address("one.example.com")
    assert lab.dig("one.example.com", server="8.8.8.8", tcp=True).answer


@pytest.mark.parametrize("kind", ["AAAA", "HTTPS", "SVCB", "TXT", "MX", "ANY", "SRV"])
def test_other_types_are_empty(lab, kind):
    answer = lab.dig("one.example.com", kind)
    assert rcode(answer) == "NOERROR" and not answer.answer


SPECIAL = ["single", "printer.local", "router.lan", "db.internal", "x.home.arpa", "x.onion", "x.invalid",
           "1.0.0.127.in-addr.arpa", "use-application-dns.net", "1.2.3", "ex!ample.com", "a b.com"]


@pytest.mark.parametrize("name", SPECIAL)
def test_nxdomain(lab, name):
    assert rcode(lab.dig(name.replace(" ", "\\032"))) == "NXDOMAIN"


def test_unless_a_rule_names_it(lab):
    lab.policy(rule("db.internal"), rule("*"))
    assert lab.dig("db.internal").answer and rcode(lab.dig("other.internal")) == "NXDOMAIN"


def test_names_of_its_own(lab):
    assert lab.address("localhost") == "127.0.0.1"
    assert lab.address("iron.internal") == "10.77.0.1"


def test_garbage_is_survived(lab):
    s = lab.socket(socket.SOCK_DGRAM)
    s.connect(("10.77.0.1", 53))
    for n in range(200):
        s.send(os.urandom(n))
    s.send(b"\0" * 12)
    s.send(b"\x12\x34\x01\0\0\1\0\0\0\0\0\0\xc0\x0c\0\1\0\1")
    s.send(b"\x12\x34\x81\0\0\1\0\0\0\0\0\0\1a\0\0\1\0\1")
    two = dns.message.make_query("a.example.com", "A").to_wire()
    s.send(two[:4] + b"\0\2" + two[6:] + two[12:])
    assert lab.address("one.example.com")
    t = lab.socket()
    t.connect(("10.77.0.1", 53))
    t.send(b"\xff\xff" + b"x" * 100)
    assert read_all(t)[0] == b""


def test_pipelined_over_tcp(lab):
    s = lab.socket()
    s.connect(("10.77.0.1", 53))
    wires = [dns.message.make_query(f"p{i}.example.com", "A").to_wire() for i in range(50)]
    s.sendall(b"".join(struct.pack(">H", len(w)) + w for w in wires))
    data = b""
    while data.count(b"example") < 50:
        data += s.recv(65536)


def have_written(lab, name):
    """Until the rows of all questions before are on record: while there are many, it finds no row of its own."""
    mark = lab.audit.mark()
    wait_for("a row of its own", lambda: lab.address(name) and lab.audit.since(mark, "record_dns", name=name))


def test_answers_are_counted(lab):
    have_written(lab, "before.example.com")
    mark = lab.audit.mark()
    for _ in range(40):
        lab.address("counted.example.com")
    lab.dig("nothing.local")

    def counted():
        return lab.audit.since(mark, "record_dns", name="counted.example.com")
    lab.audit.one(mark, "record_dns", name="nothing.local")
    wait_for("all rows", lambda: sum(r.count for r in counted()) >= 40)
    rows = counted()
    assert sum(r.count for r in rows) == 40 and len(rows) <= 3 and rows[0].answer == "address" and rows[0].qtype == 1
    assert lab.audit.since(mark, "record_dns", name="nothing.local", answer="nxdomain")


def test_a_flood_is_bounded_rows(lab):
    mark = lab.audit.mark()
    s = lab.socket(socket.SOCK_DGRAM)
    s.connect(("10.77.0.1", 53))
    for i in range(2000):
        s.send(dns.message.make_query(f"f{i}.example.com", "A").to_wire())
        if i % 50 == 0:
            time.sleep(0.005)
    have_written(lab, "after.example.com")
    wait_for("the flood's rows", lambda: sum(r.count for r in lab.audit.since(mark, "record_dns")) > 1000)
    assert len(lab.audit.since(mark, "record_dns")) <= 3 * 32


def test_drops_are_counted(lab):
    mark = lab.audit.mark()
    s = lab.socket(socket.SOCK_DGRAM)
    s.connect(("45.76.10.2", 443))
    for _ in range(5):
        s.send(b"quic")
        with pytest.raises(ConnectionRefusedError):  # an ICMP error, so that QUIC falls back at once
            s.recv(1)
    ping = lab.socket(socket.SOCK_RAW, proto=socket.IPPROTO_ICMP)
    ping.sendto(b"\x08\x00\xf7\xff\0\0\0\0", ("45.76.10.9", 0))
    raw = lab.socket(socket.SOCK_RAW, family=socket.AF_PACKET)
    raw.bind(("eth0", 0))
    link = bytes.fromhex("020000000001020000000002")
    raw.send(link + b"\x86\xdd" + bytes.fromhex("6000000000080640") + b"\x20" * 32 + b"\0\x50\x01\xbb" + b"\0" * 30)
    raw.send(link + b"\x88\xb5" + b"\0" * 60)
    udp = lab.audit.one(mark, "record_drop", address="45.76.10.2", port=443, protocol=PROTOCOL["PROTO_UDP"])
    icmp = lab.audit.one(mark, "record_drop", address="45.76.10.9", protocol=PROTOCOL["PROTO_ICMP"])
    assert udp.vm == icmp.vm == VM and udp.workspace == 7
    wait_for("all five", lambda: sum(r.count for r in lab.audit.since(mark, "record_drop", address="45.76.10.2")) == 5)
    lab.audit.one(mark, "record_drop", reason="IPv6 is off", port=443, protocol=PROTOCOL["PROTO_TCP"])
    lab.audit.one(mark, "record_drop", reason="neither IPv4 nor ARP")


def reopen(lab):
    """Another worker for the same VM and the same table."""
    names = lab.names_fd
    assert lab.stop_worker() == 0
    lab.start_worker()
    lab.attach(names)
    lab.policy(rule("*.example.com"))


def test_the_table_outlives_a_worker(lab):
    kept = {name: lab.address(name) for name in ("kept1.example.com", "kept2.example.com")}
    reopen(lab)
    assert {name: lab.address(name) for name in kept} == kept
    assert lab.http(f"http://{kept['kept1.example.com']}/", "-H", "Host: kept1.example.com")[0] == 200


def test_a_hostile_table_is_cleared_where_it_is(lab):
    good, bad = lab.address("good.example.com"), lab.address("bad.example.com")
    table = mmap.mmap(lab.names_fd, 0)

    def at(address):
        a, b, c, d = map(int, address.split("."))
        return 4096 + ((c << 8 | d) - 1) * NAMES_RECORD

    def put(address, when, length, name):
        table[at(address) : at(address) + NAMES_RECORD] = RECORD.pack(when, length, name)

    now = int(time.time() * 1000)
    others = [lab.address(f"o{i}.example.com") for i in range(5)]
    put(bad, now, 255, b"\xff" * 255)
    put(others[0], now, 16, b"good.example.com")  # a second owner of that name
    put(others[1], now + 10**9, 14, b"x1.example.com")  # used in the future
    put(others[2], now, 14, b"X2.EXAMPLE.COM")
    put(others[3], -1, 14, b"x3.example.com")
    put(others[4], now, 9, b"a\r\nb.test")
    reopen(lab)
    assert lab.address("good.example.com") == good
    lab.policy(rule("*"))
    for address in [bad, *others]:
        assert lab.http(f"http://{address}/", "-H", "Host: good.example.com")[0] == 403
    table[0:8] = b"nonsense"
    reopen(lab)
    assert lab.address("first.example.com") == "28.0.0.1"


def test_a_full_table_recycles_only_what_is_old(lab):
    table = mmap.mmap(lab.names_fd, 0)
    now = int(time.time() * 1000)
    for i in range(16384):
        name = b"old%d.example.com" % i
        old = now - 2 * 3600 * 1000 + i if i < 3 else now - 60000
        table[4096 + i * NAMES_RECORD : 4096 + (i + 1) * NAMES_RECORD] = RECORD.pack(old, len(name), name)
    reopen(lab)
    held = lab.connect("old1.example.com", 80)  # uses it, and holds it
    time.sleep(0.1)
    first = lab.address("new0.example.com")
    assert first == "28.0.0.1", "the oldest goes first"
    assert lab.address("new1.example.com") == "28.0.0.3"
    assert rcode(lab.dig("new2.example.com")) == "SERVFAIL"
    assert lab.address("old1.example.com") == "28.0.0.2"
    held.close()
    table[0:8] = b"nonsense"
    reopen(lab)
