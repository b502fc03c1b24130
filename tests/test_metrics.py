"""GET /metrics: Prometheus' format to the letter, numbers that move with what happens, nothing else on its listener and
nothing of it on the API's, whatever a client does there; across a reload, iron-control's death and a new irond."""

import http.client
import os
import re
import signal
import socket

import pytest

from harness import Iron, free_port, wait_for

PORT = free_port()
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)\}})? ([0-9]+(?:\.[0-9]+)?)")


@pytest.fixture(scope="module")
def iron():
    with Iron("metrics", extra=f'metrics_listen: "127.0.0.1:{PORT}"') as iron:
        yield iron


def ask(method="GET", path="/metrics", port=None, **kw):
    connection = http.client.HTTPConnection("127.0.0.1", port or PORT, timeout=30)
    try:
        connection.request(method, path, **kw)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def parse(text):
    """{(name, ((label, value), …)): number}; anything that the format does not have is an error."""
    types, samples, family = {}, {}, None
    assert text.endswith("\n")
    lines = text[:-1].split("\n")
    for at, line in enumerate(lines):
        if m := re.fullmatch(rf"# HELP ({NAME}) (\S.*)", line):
            assert m[1] not in types, f"{m[1]} twice"
            assert lines[at + 1].startswith(f"# TYPE {m[1]} ")
            continue
        if m := re.fullmatch(rf"# TYPE ({NAME}) (counter|gauge|histogram)", line):
            family = m[1]
            types[family] = m[2]
            continue
        m = SAMPLE.fullmatch(line)
        assert m, f"no sample: {line!r}"
        of = re.sub(r"_(bucket|sum|count)$", "", m[1]) if types[family] == "histogram" else m[1]
        assert of == family, f"{m[1]} among {family}"
        assert types[family] != "counter" or m[1].endswith("_total")
        labels = tuple(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', m[2] or ""))
        assert (m[1], labels) not in samples, f"{line} twice"
        samples[m[1], labels] = float(m[3])
    check_histograms(types, samples)
    return samples


def check_histograms(types, samples):
    for name in (n for n, t in types.items() if t == "histogram"):
        for op in {dict(labels)["op"] for n, labels in samples if n == name + "_count"}:
            buckets = [(float(dict(labels)["le"]), v) for (n, labels), v in samples.items()
                       if n == name + "_bucket" and dict(labels)["op"] == op]
            assert buckets == sorted(buckets) and buckets[-1][0] == float("inf")
            assert [v for _, v in buckets] == sorted(v for _, v in buckets)
            assert buckets[-1][1] == samples[name + "_count", (("op", op),)]
            assert samples[name + "_sum", (("op", op),)] >= 0


def scrape(port=None):
    status, headers, body = ask(port=port)
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(body.decode())


def one(samples, name, **labels):
    return samples.get((name, tuple(labels.items())), 0.0)


def pid_of(iron, role):
    line = next(l for l in iron.irond("status").splitlines() if l.startswith(role + " "))
    return int(next(w for w in line.split() if w.isdigit()))


def test_what_is_told(iron):
    s = scrape()
    assert any(n == "iron_build_info" and dict(labels)["version"] for n, labels in s)
    assert one(s, "iron_up") == 1
    for role in ("iron-api", "iron-control", "iron-audit"):
        assert one(s, "iron_role_up", role=role) == 1 and one(s, "iron_role_processes", role=role) == 1
    host = iron.call("GET", "/host")
    assert one(s, "iron_memory_budget_bytes") == host["memory_budget_mib"] << 20
    assert one(s, "iron_host_memory_total_bytes") == host["memory_total_mib"] << 20
    assert one(s, "iron_host_cpus") == host["cpus"] == os.cpu_count()
    assert 0 < one(s, "iron_host_memory_available_bytes") <= one(s, "iron_host_memory_total_bytes")
    assert 0 < one(s, "iron_host_disk_available_bytes") <= one(s, "iron_host_disk_total_bytes")
    assert one(s, "iron_audit_index_whole") == 1 and one(s, "iron_audit_records_written") > 0
    assert iron.key not in repr(s)


def test_calls_are_counted_and_scrapes_are_not(iron):
    before = scrape()
    for _ in range(3):
        iron.call("GET", "/me")
    assert iron.api("GET", "/vms", key="iron_live_nonsense").status == 401
    assert iron.api("GET", "/nothing").status == 404
    ask(path="/nothing")
    s = scrape()

    def grown(op, status):
        return one(s, "iron_api_requests_total", op=op, status=status) - one(before, "iron_api_requests_total", op=op, status=status)

    assert (grown("me", "200"), grown("vm_list", "401"), grown("none", "404")) == (3, 1, 1)
    name = "iron_api_request_duration_seconds"
    assert one(s, name + "_count", op="me") - one(before, name + "_count", op="me") == 3
    assert one(s, name + "_sum", op="me") > one(before, name + "_sum", op="me")
    total = sum(v - before.get(k, 0) for k, v in s.items() if k[0] == "iron_api_requests_total")
    assert total == 5


def test_vms_and_their_memory(iron):
    before = scrape()
    vm = iron.create("counted")
    iron.wait_ready(vm["id"])
    s = scrape()
    assert one(s, "iron_vms", state="ready") == one(before, "iron_vms", state="ready") + 1
    assert one(s, "iron_memory_committed_bytes") - one(before, "iron_memory_committed_bytes") >= 256 << 20
    assert one(s, "iron_role_processes", role="iron-vm") == 1 and one(s, "iron_role_up", role="iron-vm") == 1
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)
    wait_for("its end in the numbers", lambda: scrape() if one(scrape(), "iron_memory_committed_bytes") ==
             one(before, "iron_memory_committed_bytes") else None)
    assert not any(vm["id"] in repr(k) or "counted" in repr(k) for k in scrape())


def test_the_index_comes_after_the_journal(iron):
    before = one(scrape(), "iron_audit_records_indexed")
    iron.call("POST", "/egress/rules", {"name": "seen", "host": "api.example.com"}, status=201)
    wait_for("it in the index", lambda: one(scrape(), "iron_audit_records_indexed") > before)
    wait_for("nothing left to index", lambda: one(scrape(), "iron_audit_index_lag_records") == 0)


def test_nothing_else_is_there(iron):
    assert iron.api("GET", "/metrics").status == 404
    context_free = http.client.HTTPSConnection("127.0.0.1", iron.port, timeout=30, context=__import__("ssl")._create_unverified_context())
    context_free.request("GET", "/metrics")
    assert context_free.getresponse().status == 404
    context_free.close()
    for path in ("/", "/v1/me", "/v1/vms", "/v1/healthz", "/v1/metrics", "/metrics/", "/metrics/x", "//metrics", "/Metrics", "/%6detrics"):
        status, _, body = ask(path=path, headers={"Authorization": "Bearer " + iron.key})
        assert status == 404 and b"not_found" in body, path
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        status, headers, _ = ask(method, body=b"x" * 100, headers={"Content-Type": "text/plain"})
        assert status == 405 and headers["Allow"] == "GET, HEAD"
    status, headers, body = ask("HEAD")
    assert status == 200 and int(headers["Content-Length"]) > 1000 and body == b""
    assert ask(path="/metrics?name[]=iron_up")[0] == 200


def raw(data, seconds=15.0):
    with socket.create_connection(("127.0.0.1", PORT), timeout=seconds) as s:
        s.sendall(data)
        out = b""
        while piece := s.recv(65536):
            out += piece
        return out


def test_hostile_clients(iron):
    assert raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)).startswith(b"HTTP/1.1 400 ")
    assert raw(b"GET /metrics HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert raw(b"GET /" + b"x" * 20000 + b" HTTP/1.1\r\n").split(b" ")[1] in (b"414", b"431")
    assert raw(b"POST /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 405 ")
    assert raw(b"GET /metrics HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    upgrade = b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" \
              b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    assert raw(upgrade).startswith(b"HTTP/1.1 200 ")
    pipelined = raw(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n" * 20 + b"GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert pipelined.count(b"HTTP/1.1 200 OK\r\n") == 21
    # those that leave before their answer, and those that say nothing
    silent = [socket.create_connection(("127.0.0.1", PORT)) for _ in range(50)]
    for _ in range(200):
        with socket.create_connection(("127.0.0.1", PORT)) as s:
            s.sendall(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    assert one(scrape(), "iron_up") == 1
    assert iron.api("GET", "/me").status == 200
    for s in silent:
        s.close()
    wait_for("their end", lambda: one(scrape(), "iron_api_connections") == 1)


def test_without_iron_control_what_iron_api_knows_is_told(iron):
    pid = pid_of(iron, "iron-control")
    os.kill(pid, signal.SIGSTOP)
    try:
        s = scrape()
        assert one(s, "iron_up") == 0 and not any(n == "iron_vms" for n, _ in s)
        assert one(s, "iron_api_requests_total", op="me", status="200") > 0
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for("iron-control", lambda: one(scrape(), "iron_up") == 1)
    os.kill(pid_of(iron, "iron-control"), signal.SIGKILL)
    wait_for("another one", lambda: one(scrape(), "iron_role_restarts", role="iron-control") == 1 and one(scrape(), "iron_up") == 1)


def test_the_next_irond_has_it_too(iron):
    api = pid_of(iron, "iron-api")
    vm = iron.create("lasting")
    iron.wait_ready(vm["id"])
    before = one(scrape(), "iron_api_requests_total", op="me", status="200")
    iron.stop_irond(signal.SIGKILL)
    assert one(scrape(), "iron_up") == 0
    iron.start_irond()
    assert pid_of(iron, "iron-api") == api
    wait_for("all roles", lambda: one(scrape(), "iron_up") == 1)
    assert one(scrape(), "iron_api_requests_total", op="me", status="200") == before
    # and the one after an adopted iron-api has the right socket: plain here, TLS there
    os.kill(api, signal.SIGKILL)
    wait_for("another iron-api", lambda: again(iron) and pid_of(iron, "iron-api") != api)
    assert one(scrape(), "iron_role_restarts", role="iron-api") >= 1
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)


def again(iron):
    try:
        return one(scrape(), "iron_up") == 1 and iron.api("GET", "/me").status == 200
    except (OSError, http.client.HTTPException):
        return False


def refused(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def test_reload(iron):
    conf, other = iron.dir / "iron.yaml", free_port()
    was = conf.read_text()
    conf.write_text(was.replace(str(PORT), str(other)))
    iron.irond("reload")
    wait_for("the new address", lambda: not refused(other) and again_at(iron, other))
    wait_for("the end of the old one", lambda: refused(PORT))
    conf.write_text(was.replace(str(PORT), str(iron.port)))
    with pytest.raises(AssertionError, match="metrics_listen: .* is the API's already"):
        iron.irond("reload")
    assert again_at(iron, other)
    conf.write_text("\n".join(l for l in was.splitlines() if not l.startswith("metrics_listen")))
    iron.irond("reload")
    wait_for("its end", lambda: refused(other))
    wait_for("the API", lambda: api_is_up(iron))
    conf.write_text(was)
    iron.irond("reload")
    wait_for("it again", lambda: again(iron))


def again_at(iron, port):
    try:
        return one(scrape(port), "iron_up") == 1 and iron.api("GET", "/me").status == 200
    except (OSError, http.client.HTTPException):
        return False


def api_is_up(iron):
    try:
        return iron.api("GET", "/me").status == 200
    except (OSError, http.client.HTTPException):
        return False
