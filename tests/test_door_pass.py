"""What the door lets through, and what it refuses, with curl as the guest."""

import json
import ssl

from door_lab import ORIGIN, VM, lab, read_all, read_until, rule  # noqa: F401
from door_wire import OUTCOME, PROTOCOL, VERDICT


def test_https_allowed(lab):
    lab.policy(rule("api.example.com"))
    mark = lab.audit.mark()
    status, body = lab.http("https://api.example.com/")
    assert (status, body) == (200, b"hello from the origin\n")
    opened = lab.audit.one(mark, host="api.example.com")
    assert (opened.vm, opened.workspace, opened.generation, opened.port) == (VM, 7, 3, 443)
    assert (opened.protocol, opened.verdict) == (PROTOCOL["PROTO_TLS"], VERDICT["VERDICT_ALLOWED"])
    closed = lab.audit.close_of(opened)
    # a client may close without reading the other's close_notify: that is a reset to the kernel
    assert closed.outcome in (OUTCOME["CLOSE_DONE"], OUTCOME["CLOSE_CLIENT"]) and closed.address == ORIGIN
    assert closed.bytes_sent > 500 and closed.bytes_received > 500


def test_http_allowed(lab):
    lab.policy(rule("api.example.com"))
    mark = lab.audit.mark()
    assert lab.http("http://api.example.com/x?secret=1") == (200, b"hello from the origin\n")
    opened = lab.audit.one(mark, host="api.example.com")
    assert (opened.method, opened.path, opened.port) == ("GET", "/x", 80)
    closed = lab.audit.close_of(opened)
    assert (closed.status, closed.outcome) == (200, OUTCOME["CLOSE_DONE"])
    assert len(lab.audit.since(mark, "record_open")) == 1


def test_denied_http_explains_itself(lab):
    lab.policy(rule("api.example.com"))
    mark = lab.audit.mark()
    r = lab.curl("-i", "http://denied.example/path?q=1")
    assert r.returncode == 0
    head, _, body = r.stdout.decode().partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 403 ") and "Proxy-Status: iron; error=http_request_denied" in head
    error = json.loads(body)["error"]
    assert error["message"].startswith("Blocked by this machine's egress policy, not by denied.example. Do not retry")
    opened = lab.audit.one(mark, host="denied.example")
    assert (opened.verdict, opened.path, opened.method) == (VERDICT["VERDICT_DENIED"], "/path", "GET")
    closed = lab.audit.close_of(opened)
    assert (closed.status, closed.outcome, closed.address) == (403, OUTCOME["CLOSE_DENIED"], "")


def test_denied_https_gets_an_alert(lab):
    lab.policy(rule("api.example.com"))
    mark = lab.audit.mark()
    r = lab.curl("https://denied.example/")
    assert r.returncode == 35 and b"access denied" in r.stderr, r.stderr
    opened = lab.audit.one(mark, host="denied.example")
    assert (opened.verdict, opened.protocol) == (VERDICT["VERDICT_DENIED"], PROTOCOL["PROTO_TLS"])


def test_denied_tcp_is_reset(lab):
    lab.policy(rule("api.example.com"))
    s = lab.connect("api.example.com", 2525)
    s.send(b"\x00\x01\x02")
    assert read_all(s) == (b"", True)


def test_nothing_is_resolved_for_what_is_denied(lab):
    lab.policy(rule("api.example.com"))
    asked = int(lab.http("http://api.example.com/dns")[1])
    assert lab.http("http://nobody-allows.example.com/")[0] == 403
    assert lab.curl("https://nobody-allows.example.com/").returncode == 35
    assert int(lab.http("http://api.example.com/dns")[1]) - asked <= 2  # A and AAAA of the question itself


def test_wildcard(lab):
    lab.policy(rule("*.example.com"))
    for host in ("example.com", "a.example.com", "b.c.example.com"):
        assert lab.http(f"http://{host}/")[0] == 200
    for host in ("badexample.com", "example.com.other.org", "other.org"):
        assert lab.http(f"http://{host}/")[0] == 403


def test_deny_wins(lab):
    lab.policy(rule("*.example.com"), rule("secret.example.com", action=1, number=5))
    mark = lab.audit.mark()
    assert lab.http("http://api.example.com/")[0] == 200
    assert lab.http("http://secret.example.com/")[0] == 403
    assert lab.audit.one(mark, host="secret.example.com").rule == 5


def test_ports(lab):
    lab.policy(rule("api.example.com", ports=[8080]))
    assert lab.http("http://api.example.com:8080/")[0] == 200
    assert lab.http("http://api.example.com/")[0] == 403


def test_methods_and_paths(lab):
    lab.policy(rule("api.example.com", ports=[80], methods=["GET"], paths=["/head/*", "/head"]))
    assert lab.http("http://api.example.com/head")[0] == 200
    assert lab.http("http://api.example.com/other")[0] == 403
    assert lab.http("http://api.example.com/head", "-d", "x")[0] == 403


def test_literal_and_cidr(lab):
    lab.policy(rule(ORIGIN, ports=[80, 443]))
    assert lab.http(f"http://{ORIGIN}/")[0] == 200
    assert lab.http(f"https://{ORIGIN}/")[0] == 200
    assert lab.http("http://45.76.10.9/")[0] == 403
    lab.policy(rule(cidr="45.76.10.0/24", ports=[80]))
    mark = lab.audit.mark()
    assert lab.http(f"http://{ORIGIN}/")[0] == 200
    assert lab.audit.one(mark, host=ORIGIN).cidr == "45.76.10.0/24"


def test_no_cidr_rule_reaches_a_synthetic_address(lab):
    lab.policy(rule(cidr="0.0.0.0/0", ports=[80, 443]))
    assert lab.http(f"http://{lab.address('api.example.com')}/", "-H", "Host: api.example.com")[0] == 403
    assert lab.http("http://28.0.60.60/")[0] == 403  # stands for no name
    assert lab.http(f"http://{ORIGIN}/")[0] == 200


def test_sni_must_be_the_name(lab):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    address = lab.address("api.example.com")
    r = lab.curl("--connect-to", f"other.example.com:443:{address}:443", "https://other.example.com/")
    assert r.returncode == 35 and b"unrecognized name" in r.stderr, r.stderr
    opened = lab.audit.one(mark, host="api.example.com")
    assert opened.verdict == VERDICT["VERDICT_DENIED"] and "other.example.com" in opened.reason


def test_a_hello_without_sni_is_refused_for_a_name(lab):
    lab.policy(rule("*.example.com"))
    s = lab.connect("api.example.com", 443)
    context = ssl._create_unverified_context()
    try:
        context.wrap_socket(s)
        raise AssertionError("went through")
    except ssl.SSLError as e:
        assert "UNRECOGNIZED_NAME" in str(e).upper().replace(" ", "_"), e


def test_host_must_be_the_name(lab):
    lab.policy(rule("*.example.com"))
    mark = lab.audit.mark()
    status, body = lab.http("http://api.example.com/", "-H", "Host: other.example.com")
    assert status == 403 and b"other.example.com" in body
    assert lab.audit.one(mark, host="api.example.com").verdict == VERDICT["VERDICT_DENIED"]
    assert lab.http("http://api.example.com/", "-H", "Host: api.example.com:81")[0] == 421


def test_raw_tcp_needs_its_rule(lab):
    lab.policy(rule("mail.example.com", ports=[2525], tls=1))
    mark = lab.audit.mark()
    s = lab.connect("mail.example.com", 2525)
    assert s.recv(100) == b"220 ready\r\n"  # the server speaks first
    s.send(b"EHLO\r\n")
    assert read_until(s, b"EHLO\r\n") == b"EHLO\r\n"
    s.shutdown(1)
    assert read_all(s) == (b"221 bye\r\n", False)  # half-close: the answer still comes
    opened = lab.audit.one(mark, host="mail.example.com")
    closed = lab.audit.close_of(opened)
    assert opened.protocol == PROTOCOL["PROTO_TCP"]
    assert (closed.bytes_sent, closed.bytes_received, closed.outcome) == (6, 26, OUTCOME["CLOSE_DONE"])


def test_a_hello_on_raw_tcp_must_carry_the_name(lab):
    lab.policy(rule("mail.example.com", ports=[8443], tls=1))
    address = lab.address("mail.example.com")
    assert lab.http("https://mail.example.com:8443/")[0] == 200
    r = lab.curl("--connect-to", f"x.example.com:8443:{address}:8443", "https://x.example.com:8443/")
    assert r.returncode == 35, r.stderr


def test_warn_mode_turns_one_verdict_only(lab):
    lab.policy(rule("bad.example.com", action=1), mode=1)
    mark = lab.audit.mark()
    assert lab.http("http://anything.example.com/")[0] == 200
    assert lab.http("https://anything.example.com/")[0] == 200
    opened = lab.audit.since(mark, "record_open", host="anything.example.com")
    assert [(o.verdict, o.mode) for o in opened] == [(VERDICT["VERDICT_WARN"], 1)] * 2
    assert lab.http("http://bad.example.com/")[0] == 403
    assert lab.http("http://anything.example.com/", "-H", "Host: other.example.com")[0] == 403
    address = lab.address("anything.example.com")
    assert lab.curl("--connect-to", f"x.example.com:443:{address}:443", "https://x.example.com/").returncode == 35
    assert lab.http("http://rebind-loop.example.com/")[0] == 403
    assert lab.http("http://28.0.60.60/")[0] == 403
    s = lab.connect("mail.example.com", 2525)  # raw, and the server speaks first: after the peek deadline
    assert s.recv(100) == b"220 ready\r\n"
    s.close()


def test_iron_internal(lab):
    lab.policy(rule("api.example.com", ports=[80, 443], number=9))
    assert lab.http("http://was-denied.example.com/")[0] == 403
    status, text = lab.http("http://iron.internal/")
    assert status == 200 and b"enforce" in text and b"api.example.com" in text and b"was-denied.example.com" in text
    status, body = lab.http("http://10.77.0.1/", "-H", "Accept: application/json")
    page = json.loads(body)
    assert page["mode"] == "enforce" and page["rules"][0]["host"] == "api.example.com"
    assert page["denials"][0]["host"] == "was-denied.example.com"
    assert lab.http("http://iron.internal/other")[0] == 404
    assert lab.http("http://iron.internal/", "-d", "x")[0] == 405
    assert lab.http("http://iron.internal:8080/")[0] == 403
    assert lab.curl("https://iron.internal/").returncode == 35
