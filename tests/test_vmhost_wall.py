"""The second wall: what the uids of workers cannot reach, whatever they believe"""

import errno
import json
import socket
import subprocess

import pytest

from vmhost_lab import DRIVER, driver

UID, COUNT = 2300000, 4096
NAMESPACE = "it-wall"

# Tries to send from a uid; prints the errno, 0 when it left.
TRY = """
import os, socket, sys
uid, kind, address, port = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])
os.setgroups([]); os.setgid(uid); os.setuid(uid)
s = socket.socket(socket.AF_INET6 if ':' in address else socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
s.settimeout(0.3)
try:
    s.connect((address, port))
    s.send(b'x')
    try:
        s.recv(1)
    except TimeoutError:
        pass
    print(0)
except TimeoutError:
    print(0)
except OSError as e:
    print(e.errno)
"""
REFUSED = {errno.EHOSTUNREACH, errno.EACCES, errno.EPERM, errno.ECONNREFUSED, errno.ENETUNREACH}


def inside(*words, check=True):
    return subprocess.run(["ip", "netns", "exec", NAMESPACE, *map(str, words)], check=check, capture_output=True, text=True)


@pytest.fixture(scope="module")
def host():
    """A host of its own, where every address leads to an interface on which nobody answers: what is not rejected is silence (0)."""
    subprocess.run(["ip", "netns", "del", NAMESPACE], capture_output=True)
    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    for line in ("link set lo up", "link add out0 type veth peer name peer0", "link set out0 up", "link set peer0 up", "addr add 198.18.0.1/32 dev out0", "addr add 2001:db8::1/64 dev out0 nodad",
                 "addr add 9.9.9.1/24 dev out0", "route add default dev out0", "-6 route add default dev out0"):
        inside("ip", *line.split())
    yield
    subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


@pytest.fixture
def wall(host):
    inside(DRIVER, "wall", "it-wall", UID, COUNT, "10.0.0.53#5353", "168.63.129.16/32", "10.9.0.0/16")
    yield
    inside(DRIVER, "unwall", "it-wall")


def attempt(address, port=443, kind="tcp", uid=UID + 7):
    return int(inside("/usr/bin/python3", "-c", TRY, uid, kind, address, port).stdout)


BLOCKED = ["10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "127.0.0.1", "100.64.0.1", "192.0.0.1",
           "192.0.2.1", "198.18.0.9", "198.51.100.1", "203.0.113.9", "240.0.0.1", "168.63.129.16", "9.9.9.1", "::1", "fec0::1", "fc00::1",
           "2001:db8::9", "2002:a00:1::1", "2001::1", "::ffff:10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b::168.63.129.16", "64:ff9b:1::1", "3fff::1", "5f00::1"]
PASSED = ["1.1.1.1", "11.0.0.1", "172.32.0.1", "192.167.0.1", "9.9.9.2", "10.9.1.1", "2606:4700::1111", "64:ff9b::1.1.1.1", "64:ff9b::10.9.0.1"]


@pytest.mark.parametrize("address", BLOCKED)
def test_a_worker_does_not_reach(wall, address):
    assert attempt(address) in REFUSED


@pytest.mark.parametrize("address", PASSED)
def test_a_worker_reaches(wall, address):
    assert attempt(address) == 0


def test_resolvers_alone_are_reached_by_udp(wall):
    assert attempt("10.0.0.53", 5353, "udp") == 0
    assert attempt("10.0.0.53", 5353, "tcp") == 0
    assert attempt("10.0.0.53", 53, "udp") in REFUSED
    assert attempt("10.0.0.53", 53, "tcp") in REFUSED
    assert attempt("1.1.1.1", 53, "udp") in REFUSED
    assert attempt("1.1.1.1", 443, "udp") in REFUSED


def test_it_holds_for_the_range_and_nobody_else(wall):
    for uid in (UID, UID + COUNT - 1):
        assert attempt("10.0.0.1", uid=uid) in REFUSED
    for uid in (UID - 1, UID + COUNT, 65534):
        assert attempt("10.0.0.1", uid=uid) == 0


def test_without_resolvers_in_the_configuration_those_of_the_host_are_let_through(host):
    own = [line.split()[1] for line in open("/etc/resolv.conf") if line.startswith("nameserver")]
    inside(DRIVER, "wall", "it-wall", UID, COUNT, "-", "-", "-")
    rules = inside("nft", "list", "table", "inet", "it-wall-host").stdout
    inside(DRIVER, "unwall", "it-wall")
    assert rules.count("th dport") == len(own[:4])
    assert all(f"daddr {address} meta l4proto {{ tcp, udp }} th dport 53 accept" in rules for address in own[:4])


def tables():
    found = json.loads(inside("nft", "-j", "list", "tables").stdout)["nftables"]
    return [t["table"]["name"] for t in found if "table" in t]


def test_it_is_replaced_and_removed_as_a_whole(wall):
    inside(DRIVER, "wall", "it-wall", UID, COUNT, "-", "-", "10.0.0.0/8")
    assert tables() == ["it-wall-host"]
    assert attempt("10.0.0.1") == 0
    inside(DRIVER, "wall", "it-other", UID + COUNT, 1, "-", "-", "-")
    assert sorted(tables()) == ["it-other-host", "it-wall-host"]
    inside(DRIVER, "unwall", "it-other")
    inside(DRIVER, "unwall", "it-other")
    assert tables() == ["it-wall-host"]


@pytest.mark.parametrize("words", [("10.0.0.53#0", "-", "-"), ("resolver.example", "-", "-"), ("-", "10.0.0.1/8", "-"), ("-", "x; flush ruleset", "-"),
                                   ("-", "-", "10.0.0.0/33")])
def test_what_is_no_address_is_refused_and_changes_nothing(wall, words):
    done = inside(DRIVER, "wall", "it-wall", UID, COUNT, *words, check=False)
    assert done.returncode == 1 and "is not" in done.stderr
    assert attempt("168.63.129.16") in REFUSED
