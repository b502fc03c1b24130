"""What the door lets through, and what it refuses, with curl as the guest."""

import json
import ssl

from door_lab import ORIGIN, VM, lab, rule  # noqa: F401
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
    assert closed.outcome == OUTCOME["CLOSE_DONE"] and closed.address == ORIGIN
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
