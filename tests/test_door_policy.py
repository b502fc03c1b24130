"""What may be dialled, what happens when the policy changes under a connection, and that the door fails closed."""

import errno
import os
import threading
import time

import pytest
from door_lab import VM, lab, read_all, read_until, rule  # noqa: F401
from door_wire import OUTCOME, VERDICT
from harness import wait_for

REBINDING = {
    "rebind-loop": "127.0.0.1",
    "rebind-meta": "169.254.169.254",
    "rebind-mapped": "::ffff:a00:1",
    "rebind-host": "45.76.10.1",
    "never": "45.76.10.3",
    "wire": "168.63.129.16",
    "private": "10.9.0.1",
    "private-not-allowed": "10.10.0.1",
}


@pytest.mark.parametrize("name", REBINDING)
def test_what_dns_says_is_judged_when_dialled(lab, name):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    status, body = lab.http(f"http://{name}.example.com/")
    assert status == 403 and REBINDING[name].encode() in body, body
    closed = lab.audit.close_of(lab.audit.one(mark, host=f"{name}.example.com"))
    assert closed.outcome == OUTCOME["CLOSE_DENIED"] and closed.address == "" and REBINDING[name] in closed.reason
    assert lab.curl(f"https://{name}.example.com/").returncode == 35


def test_a_private_address_among_others_is_skipped(lab):
    lab.policy(rule("*.example.com"))
    assert lab.http("http://mixed.example.com/")[0] == 200


def test_private_allow(lab):
    lab.policy(rule("*.example.com"))
    assert lab.http("http://covered.example.com/")[0] == 200  # the entry's hosts cover it
    lab.policy(rule("private.example.com", addresses=["10.9.0.0/24"]),
               rule("private-not-allowed.example.com", addresses=["10.10.0.0/24"]))
    assert lab.http("http://private.example.com/")[0] == 200
    assert lab.http("http://private-not-allowed.example.com/")[0] == 403  # no rule reaches past private_allow
    lab.policy(rule(cidr="10.9.0.0/24", ports=[80]), rule(cidr="10.10.0.0/24", ports=[80]))
    assert lab.http("http://10.9.0.1/")[0] == 200
    assert lab.http("http://10.10.0.1/")[0] == 403


def test_upstream_failures(lab):
    lab.policy(rule("*.example.com", ports=[80, 443, 81]))
    assert lab.http("http://nxdomain.example.com/")[0] == 502
    assert lab.http("http://closed.example.com:81/")[0] == 502
    start = time.monotonic()
    assert lab.http("http://silent.example.com/")[0] == 504
    assert 2 < time.monotonic() - start < 6
    assert lab.curl("https://nxdomain.example.com/").returncode == 35


def start_download(lab, mark):
    s = lab.connect("api.example.com", 80)
    s.sendall(b"GET /forever HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
    read_until(s, b"xxxx")
    return s, lab.audit.one(mark, host="api.example.com")


def test_a_change_cuts_what_it_no_longer_allows(lab):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    http, opened = start_download(lab, mark)
    tls = lab.start_guest("curl", "-sSN", "--cacert", lab.dir / "ca.pem", "https://tls.example.com/forever")
    tls.stdout.read(2000)
    lab.policy(rule("tls.example.com"))
    start = time.monotonic()
    _, reset = read_all(http)
    assert reset and time.monotonic() - start < 1
    assert lab.audit.close_of(opened).outcome == OUTCOME["CLOSE_CUT"]
    assert tls.poll() is None, "what is still allowed goes on"
    start = time.monotonic()
    lab.policy(rule("other.example.com"))
    reader = threading.Thread(target=tls.stdout.read)
    reader.start()
    reader.join(5)
    assert tls.wait(5) != 0 and time.monotonic() - start < 1
    assert lab.audit.close_of(lab.audit.one(mark, host="tls.example.com")).outcome == OUTCOME["CLOSE_CUT"]


def test_from_warn_to_enforce_cuts(lab):
    lab.policy(mode=1)
    mark = lab.audit.mark()
    s, opened = start_download(lab, mark)
    assert opened.verdict == VERDICT["VERDICT_WARN"]
    lab.policy(mode=0)
    assert read_all(s)[1] and lab.audit.close_of(opened).outcome == OUTCOME["CLOSE_CUT"]


def test_a_deny_added_cuts(lab):
    lab.policy(rule("*.example.com"))
    s, opened = start_download(lab, lab.audit.mark())
    lab.policy(rule("*.example.com"), rule("api.example.com", action=1))
    assert read_all(s)[1] and lab.audit.close_of(opened).outcome == OUTCOME["CLOSE_CUT"]


def test_commit_is_strict(lab):
    lab.policy(rule("api.example.com"))
    old = lab.version

    def commit(version, rules, announced=None):
        count = len(rules) if announced is None else announced
        lab.control.send("msg_policy_begin", vm=VM, version=version, mode=0, rules=count)
        for r in rules:
            lab.control.send("msg_policy_rule", vm=VM, version=version, rule=r)
        return lab.control.call("msg_policy_commit", vm=VM, version=version).code

    assert commit(old - 1, []) == -errno.ESTALE
    assert commit(old + 1, [], announced=1) == -errno.EPROTO
    assert commit(old + 1, [b"\xff\xff"]) < 0
    assert lab.control.call("msg_policy_commit", vm=99, version=1).code == -errno.ENOENT
    assert lab.http("http://api.example.com/")[0] == 200, "the old policy still holds"
    lab.version += 2


def test_no_policy_nothing_passes(lab):
    names = lab.names_fd
    lab.policy(rule("*.example.com"))
    address = lab.address("api.example.com")
    lab.detach()
    lab.attach(names)
    status, body = lab.http(f"http://{address}/", "-H", "Host: api.example.com")
    assert status == 503 and b"no policy" in body
    assert lab.curl("--connect-to", f"api.example.com:443:{address}:443", "https://api.example.com/").returncode == 35
    import dns.rcode

    assert lab.dig("api.example.com").rcode() == dns.rcode.SERVFAIL
    lab.version = 0
    lab.policy(rule("*.example.com"))
    assert lab.http("http://api.example.com/")[0] == 200


def test_nothing_goes_up_before_the_journal_has_it(lab):
    lab.policy(rule("*.example.com"))
    seen = lab.http("http://api.example.com/seen")[1]
    lab.audit.hold.clear()
    try:
        s = lab.connect("api.example.com", 80)
        s.sendall(b"GET /held HTTP/1.1\r\nHost: api.example.com\r\n\r\n")
        s.settimeout(0.7)
        with pytest.raises(TimeoutError):
            s.recv(1)
    finally:
        lab.audit.hold.set()
    s.settimeout(5)
    assert b"200 OK" in s.recv(1000)
    assert lab.http("http://api.example.com/seen")[1] == seen.rstrip(b"\n") + b"\nGET /held HTTP/1.1\n"


def test_a_journal_that_refuses(lab):
    lab.policy(rule("*.example.com"))
    lab.audit.code = -28
    try:
        status, body = lab.http("http://api.example.com/refused")
        assert status == 503 and b"journal" in body
        assert lab.curl("https://api.example.com/").returncode == 35
    finally:
        lab.audit.code = 0
    wait_for("the door to open again", lambda: lab.http("http://api.example.com/")[0] == 200, 5)
    assert b"/refused" not in lab.http("http://api.example.com/seen")[1]


def test_a_vm_over_its_budget_of_the_journal(lab):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    going, opened = start_download(lab, mark)
    lab.audit.over_budget = VM
    try:
        assert lab.http("http://api.example.com/over")[0] == 503
        going.close()
    finally:
        lab.audit.over_budget = 0
    wait_for("the door to open again", lambda: lab.http("http://api.example.com/")[0] == 200, 5)
    assert lab.audit.close_of(opened).outcome == OUTCOME["CLOSE_CLIENT"]


def test_without_iron_audit(lab):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    going, opened = start_download(lab, mark)
    lab.audit.disconnect()
    wait_for("the door to close", lambda: lab.http("http://api.example.com/")[0] == 503, 5)
    assert lab.http("http://iron.internal/")[0] == 200
    assert len(going.recv(10)) > 0, "what went on goes on"
    going.close()
    time.sleep(0.5)
    lab.give_audit()
    closed = lab.audit.close_of(opened)
    assert closed.outcome == OUTCOME["CLOSE_CLIENT"], "its close was kept for the next iron-audit"
    assert lab.http("http://api.example.com/")[0] == 200


def test_control_may_come_and_go(lab):
    lab.policy(rule("*.example.com"))
    lab.control.sock.close()
    assert lab.http("http://api.example.com/")[0] == 200
    lab.control = lab.give_peer("ROLE_CONTROL")
    lab.policy(rule("api.example.com"))
    assert lab.http("http://other.example.com/")[0] == 403


def test_detach_cuts_and_records(lab):
    names = lab.names_fd
    lab.policy(rule("*.example.com"))
    s, opened = start_download(lab, lab.audit.mark())
    lab.detach()
    assert read_all(s)[1]
    assert lab.audit.close_of(opened).outcome == OUTCOME["CLOSE_CUT"]
    assert lab.irond.call("msg_vm_detach", vm=VM).code == 0
    lab.attach(names)
    lab.version = 0
    lab.policy(rule("*.example.com"))
    fds = [os.open("/dev/null", os.O_RDWR) for _ in range(4)]
    assert lab.irond.call("msg_vm_attach", fds=fds, vm=VM, generation=1, name="x").code == -errno.EEXIST
    assert lab.irond.call("msg_vm_attach", fds=fds, vm=VM + 1, generation=1, name="x").code < 0
    for fd in fds:
        os.close(fd)
