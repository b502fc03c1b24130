"""A VM's namespace: what passes the two walls, and that nothing else does"""

import os
import socket
import struct
import subprocess
import time

import pytest

from vmhost_lab import (ACK, GATEWAY, GUEST, GUEST_MAC, RST, SYN, TAP_MAC, Net, arp, driver, ether, icmp_echo, ipv4, net, tcp, udp)

OTHER_MAC = bytes.fromhex("020000000099")


@pytest.fixture
def door():
    with net() as n:
        yield n


@pytest.mark.parametrize("address,port", [("1.2.3.4", 443), ("10.0.0.1", 22), ("169.254.169.254", 80), (GATEWAY, 80), ("28.0.0.5", 15001),
                                          ("192.168.1.1", 53), ("8.8.8.8", 65535)])
def test_tcp_to_any_address_and_port_arrives_with_its_destination(door, address, port):
    accepted, seq, ack = door.connect(address, port, 40000)
    with accepted:
        assert accepted.getsockname() == (address, port)
        door.send(ether(tcp(GUEST, address, 40000, port, ACK, seq, ack, b"hello")))
        accepted.settimeout(5)
        assert accepted.recv(100) == b"hello"
        accepted.sendall(b"world")
        answer = door.expect(lambda s: s.protocol == 6 and s.payload.endswith(b"world"))
        assert (answer.source, answer.sport) == (address, port)
    assert door.no_drops()


def test_dns_arrives_and_is_answered_from_the_address_that_was_asked(door):
    door.send(ether(udp(GUEST, "9.9.9.9", 5353, 53, b"question")))
    door.udp.settimeout(5)
    data, ancillary, _, peer = door.udp.recvmsg(2000, 256)
    assert (data, peer) == (b"question", (GUEST, 5353))
    kinds = {(level, kind): value for level, kind, value in ancillary}
    index, _, header = struct.unpack("=I4s4s", kinds[socket.IPPROTO_IP, 8])  # IP_PKTINFO
    assert socket.inet_ntoa(header) == "9.9.9.9"
    assert kinds[socket.IPPROTO_IP, 20][:8] == struct.pack("=H", socket.AF_INET) + struct.pack("!H", 53) + socket.inet_aton("9.9.9.9")
    info = struct.pack("=I4s4s", 0, socket.inet_aton("9.9.9.9"), bytes(4))
    door.udp.sendmsg([b"answer"], [(socket.IPPROTO_IP, 8, info)], 0, peer)
    answer = door.expect(lambda s: s.protocol == 17)
    assert (answer.source, answer.sport, answer.dport, answer.payload[8:]) == ("9.9.9.9", 53, 5353, b"answer")


def test_arp_for_the_gateway_is_answered(door):
    door.send(arp(1, GUEST_MAC, GUEST, GATEWAY))
    frames = [f for f in door.frames() if f[12:14] == b"\x08\x06"]
    assert len(frames) == 1 and frames[0][22:28] == TAP_MAC and frames[0][20:22] == b"\x00\x02"


FOREIGN = {
    "another MAC": ether(tcp(GUEST, "1.2.3.4", 1, 80, SYN), source=OTHER_MAC),
    "another address": ether(tcp("10.77.0.3", "1.2.3.4", 1, 80, SYN)),
    "the gateway's address": ether(tcp(GATEWAY, "1.2.3.4", 1, 80, SYN)),
    "ARP reply": arp(2, GUEST_MAC, GUEST, GATEWAY, TAP_MAC),
    "ARP for another sender": arp(1, GUEST_MAC, "10.77.0.9", GATEWAY),
    "ARP with another MAC inside": arp(1, OTHER_MAC, GUEST, GATEWAY, source=GUEST_MAC),
    "ARP as the gateway": arp(1, GUEST_MAC, GATEWAY, GATEWAY),
    "RARP": ether(bytes(28), 0x8035),
    "IPv6": ether(bytes([0x60]) + bytes(39), 0x86DD),
    "IPv6 neighbour advertisement": ether(bytes.fromhex("6000000000203aff") + bytes(64), 0x86DD, destination=bytes.fromhex("333300000001")),
    "VLAN": ether(struct.pack("!HH", 5, 0x0800) + tcp(GUEST, "1.2.3.4", 1, 80, SYN), 0x8100),
    "priority tag": ether(struct.pack("!HH", 0, 0x0800) + tcp(GUEST, "1.2.3.4", 1, 80, SYN), 0x8100),
    "tagged ARP": ether(struct.pack("!HH", 0, 0x0806) + arp(1, GUEST_MAC, GUEST, GATEWAY)[14:], 0x8100),
    "QinQ": ether(struct.pack("!HHHH", 5, 0x8100, 0, 0x0800) + tcp(GUEST, "1.2.3.4", 1, 80, SYN), 0x88A8),
    "PPPoE": ether(bytes(20), 0x8864),
    "MPLS": ether(bytes(40), 0x8847),
    "LLC": ether(bytes(60), 60),
    "loopback frame": ether(bytes(46), 0x9000),
    "first fragment": ether(ipv4(GUEST, "1.2.3.4", 6, bytes(24), 0x2000)),
    "last fragment": ether(ipv4(GUEST, "1.2.3.4", 17, bytes(24), 0x0010)),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_frame_is_told_and_dropped_at_the_tap(door, what):
    before = door.run("ip", "neigh")
    door.send(FOREIGN[what])
    told = door.drops()
    assert [prefix for prefix, _ in told] == ["eth"], told
    assert door.frames() == []
    assert door.run("ip", "neigh") == before
    door.tcp.settimeout(0.1)
    with pytest.raises(TimeoutError):
        door.tcp.accept()


DROPPED = {
    "ping": icmp_echo(GUEST, "1.1.1.1"),
    "ping of the gateway": icmp_echo(GUEST, GATEWAY),
    "SCTP": ipv4(GUEST, "1.1.1.1", 132, bytes(12)),
    "GRE": ipv4(GUEST, "1.1.1.1", 47, bytes(12)),
    "ESP": ipv4(GUEST, "1.1.1.1", 50, bytes(12)),
    "IP in IP": ipv4(GUEST, "1.1.1.1", 4, tcp(GUEST, "1.2.3.4", 1, 80, SYN)),
    "6in4": ipv4(GUEST, "1.1.1.1", 41, bytes(40)),
    "TCP to this host": tcp(GUEST, "127.0.0.1", 1, 80, SYN),
    "TCP to nowhere": tcp(GUEST, "0.0.0.0", 1, 80, SYN),
    "TCP to a group": tcp(GUEST, "224.0.0.1", 1, 80, SYN),
    "TCP to everybody": tcp(GUEST, "255.255.255.255", 1, 80, SYN),
    "DNS to a group": udp(GUEST, "224.0.0.251", 5353, 53),
    "DHCP": udp(GUEST, "255.255.255.255", 68, 67),
    "IGMP": ipv4(GUEST, "224.0.0.22", 2, bytes(8)),
}


@pytest.mark.parametrize("what", DROPPED)
def test_what_is_neither_tcp_nor_dns_is_told_and_dropped(door, what):
    door.send(ether(DROPPED[what]))
    told = door.drops()
    assert [prefix for prefix, _ in told] == ["ip"], told
    assert told[0][1] == DROPPED[what][: len(told[0][1])] and len(told[0][1]) == min(128, len(DROPPED[what]))
    assert door.frames() == []


def test_other_udp_is_told_and_rejected_at_once(door):
    start = time.monotonic()
    door.send(ether(udp(GUEST, "1.1.1.1", 50000, 443, b"QUIC")))
    answer = door.expect(lambda s: s.protocol == 1)
    assert time.monotonic() - start < 1
    assert answer.payload[0] == 3  # destination unreachable
    assert answer.payload[8:][:28] == udp(GUEST, "1.1.1.1", 50000, 443, b"QUIC")[:28]
    assert [prefix for prefix, _ in door.drops()] == ["ip"]


def test_a_flood_of_udp_is_answered_at_a_bounded_rate(door):
    start = time.monotonic()
    for i in range(5000):
        door.send(ether(udp(GUEST, f"1.1.{i % 250}.{i // 250}", 50000, 443, b"x")))
        if i % 100 == 0:
            door.drops(0, 0)
    took = time.monotonic() - start
    answers = len(door.frames())
    assert 0 < answers <= 110 + 210 * (took + 1)


def test_no_connection_tracking(door):
    for port in range(1, 200):
        door.send(ether(tcp(GUEST, "1.2.3.4", 40000 + port, port, SYN)))
    door.frames(0.1)
    count = door.run("sh", "-c", "cat /proc/sys/net/netfilter/nf_conntrack_count 2>/dev/null || echo 0")
    assert int(count) == 0


def test_the_namespace_leads_nowhere(door):
    assert [line.split(": ")[1] for line in door.run("ip", "-o", "link").splitlines()] == ["lo", "tap0"]
    assert [line.split()[0] for line in door.run("ip", "route").splitlines()] == [GUEST]
    assert door.run("ip", "-6", "addr") == ""
    assert door.run("sysctl", "-n", "net.ipv4.ip_forward").strip() == "0"
    # what a process inside sends to anybody but the guest is not sent
    assert "PermissionError" in say_from_inside(door, GUEST, 4000)
    assert "OSError" in say_from_inside(door, "1.1.1.1", 4000)
    assert door.frames() == []
    door.run("nft", "flush", "ruleset")
    assert say_from_inside(door, GUEST, 4000) == ""  # the positive control: it was the rules that refused
    assert len(door.frames()) == 1


def say_from_inside(door, address, port):
    """A datagram from a process inside the namespace; why it was not sent."""
    code = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{address}', {port}))"
    return subprocess.run(["nsenter", f"--net={door.pin}", "/usr/bin/python3", "-c", code], capture_output=True, text=True).stderr


def add_outside(door, name):
    """A second interface, as a mistake would add one, and routing switched on: now only the rules are in the way."""
    door.run("ip", "link", "add", "out0", "type", "veth", "peer", "name", name)
    door.run("ip", "addr", "add", "192.0.2.1/24", "dev", "out0")
    door.run("ip", "link", "set", "out0", "up")
    door.run("ip", "link", "set", name, "up")


def test_nothing_is_forwarded_with_and_without_the_rules(door):
    add_outside(door, "peer0")
    door.run("ip", "neigh", "add", "192.0.2.7", "lladdr", "02:00:00:00:00:77", "dev", "out0")
    capture = subprocess.Popen(["nsenter", f"--net={door.pin}", "timeout", "20", "tcpdump", "-i", "peer0", "-n", "-l", "--immediate-mode", "ip"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        line = b"tcpdump"
        while line and b"listening on" not in line:
            line = capture.stderr.readline()
        attempts = [tcp(GUEST, "192.0.2.7", 40001, 80, SYN), udp(GUEST, "192.0.2.7", 4000, 4000, b"x"), icmp_echo(GUEST, "192.0.2.7"),
                    udp(GUEST, "192.0.2.7", 4000, 53, b"x")]

        def attempt():
            for packet in attempts:
                door.send(ether(packet))
            door.frames()

        attempt()
        door.run("nft", "flush", "ruleset")
        attempt()
        # the positive control: a packet that is let out is seen by this capture
        assert say_from_inside(door, "192.0.2.7", 4000) == ""
        seen = capture.stdout.readline()
    finally:
        capture.terminate()
        rest = capture.communicate()[0]
    assert b" > 192.0.2.7.4000: UDP" in seen and GUEST.encode() not in seen + rest


def test_with_the_rules_alone_nothing_is_forwarded_though_routing_is_on(door):
    add_outside(door, "peer0")
    door.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    door.run("ip", "neigh", "add", "192.0.2.7", "lladdr", "02:00:00:00:00:77", "dev", "out0")
    before = door.run("ip", "-s", "-j", "link", "show", "out0")
    for packet in (icmp_echo(GUEST, "192.0.2.7"), udp(GUEST, "192.0.2.7", 4000, 4000, b"x"), tcp(GUEST, "192.0.2.7", 40001, 80, SYN)):
        door.send(ether(packet))
    door.frames()
    assert door.run("ip", "-s", "-j", "link", "show", "out0") == before
    door.run("nft", "flush", "ruleset")
    door.send(ether(udp(GUEST, "192.0.2.7", 4000, 4000, b"x")))
    door.frames()
    assert door.run("ip", "-s", "-j", "link", "show", "out0") != before  # the positive control: it was the rules


def test_the_door_opens_again_in_the_pinned_namespace(door):
    accepted, _, _ = door.connect("1.2.3.4", 80, 40000)
    accepted.close()
    for s in (door.tcp, door.udp, door.nflog):
        s.close()
    door.adopt(*door.ask("reopen", 3))
    door.frames()
    accepted, _, _ = door.connect("5.6.7.8", 81, 40001)
    assert accepted.getsockname() == ("5.6.7.8", 81)
    accepted.close()
    door.send(ether(icmp_echo(GUEST, "1.1.1.1")))
    assert [prefix for prefix, _ in door.drops()] == ["ip"]


def test_a_second_one_at_the_same_place_is_refused_and_leaves_the_first(door):
    a, b = socket.socketpair()
    with a, b:
        done = driver("net", door.pin, b.fileno(), pass_fds=[b.fileno()], check=False)
    assert done.returncode == 1 and "File exists" in done.stderr
    accepted, _, _ = door.connect("1.2.3.4", 80, 40000)
    accepted.close()


def test_nothing_is_left_of_a_namespace(tmp_path):
    before = subprocess.run(["lsns", "-t", "net", "-n"], capture_output=True, text=True).stdout.count("\n")
    n = Net()
    inode = os.stat(n.pin).st_ino
    directory = n.dir
    n.close()
    assert not directory.exists()
    assert str(inode) not in open("/proc/self/mountinfo").read()
    assert subprocess.run(["lsns", "-t", "net", "-n"], capture_output=True, text=True).stdout.count("\n") <= before
    # where it cannot be pinned, none is left either
    a, b = socket.socketpair()
    with a, b:
        done = driver("net", tmp_path / "absent" / "net", b.fileno(), pass_fds=[b.fileno()], check=False)
    assert done.returncode == 1 and "No such file" in done.stderr


def test_it_takes_milliseconds():
    took = []
    for _ in range(10):
        start = time.monotonic()
        n = Net()
        took.append(time.monotonic() - start)
        n.close()
    assert sorted(took)[5] < 0.1, took
