"""The record, read: every filter and order of egress, its sum by host, everything else on record, and explain, whose answer
is what a request then meets"""

import datetime
import http.client
import ssl
import urllib.parse

import pytest

from harness import Iron, free_net, wait_for


@pytest.fixture(scope="module")
def iron():
    net = free_net()
    with Iron("record", net, hosts=("api.example.com", "warned.example.net"), egress_extra=f"    - cidr: 10.78.{net}.1/32") as it:
        it.call("POST", "/egress/rules", {"cidr": f"10.78.{net}.1/32", "ports": [80]}, status=201)
        it.call("POST", "/egress/rules", {"host": "api.example.com", "methods": ["GET"], "paths": ["/ok", "/ok/*"], "ports": [80]}, status=201)
        it.call("POST", "/egress/rules", {"host": "api.example.com", "paths": ["/ok/secret"], "ports": [80], "action": "deny"}, status=201)
        it.call("POST", "/egress/rules", {"host": "*.api.example.com"}, status=201)
        it.call("POST", "/egress/rules", {"host": "bad.api.example.com", "action": "deny"}, status=201)
        it.call("POST", "/egress/rules", {"cidr": it.origin["cidr"], "ports": [80]}, status=201)
        it.call("POST", "/egress/rules", {"cidr": "8.8.0.0/16", "action": "deny"}, status=201)
        it.call("POST", "/egress/rules", {"cidr": "127.0.0.0/8"}, status=201)
        it.call("POST", "/egress/rules", {"cidr": "192.168.0.0/16"}, status=201)
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("one")


def explain(iron, vm, host, **more):
    return iron.call("POST", "/egress/explain", {"vm_id": vm["id"], "host": host, **more})


def pages(iron, path, **query):
    """All items of a list, page by page, and the last page's cursor."""
    items, cursor = [], query.pop("cursor", None)
    while True:
        q = {**query, **({"cursor": cursor} if cursor else {})}
        page = iron.api("GET", path + "?" + urllib.parse.urlencode(q)).json
        items += page["data"]
        cursor = page["cursor"] or cursor
        if not page["has_more"]:
            return items, page["cursor"]


# what curl says of a refusal by the door: 403 over HTTP, an alert over TLS, no answer at all
def fetch(iron, vm, url, method="GET", resolve=()):
    more = [x for r in resolve for x in ("--resolve", r)]
    done = iron.run(vm, "curl", "-sS", "-k", "-m", "20", "-X", method, *more, "-o", "/dev/null", "-w", "%{http_code}", url)
    return done["exit_code"] == 0 and done["stdout"] not in ("403", "000")


REQUESTS = [
    ("http://api.example.com/ok", "GET"), ("http://api.example.com/ok/more?x=/no", "GET"), ("http://api.example.com/ok", "POST"),
    ("http://api.example.com/ok/secret", "GET"), ("http://api.example.com/other", "GET"), ("https://api.example.com/", "GET"),
    ("http://sub.api.example.com/x", "PUT"), ("https://sub.api.example.com/", "GET"), ("http://bad.api.example.com/", "GET"),
    ("https://bad.api.example.com/", "GET"), ("http://unknown.example.org/", "GET"), ("https://unknown.example.org/", "GET"),
    ("http://8.8.8.8/", "GET"), ("http://192.168.77.1/", "GET"), ("http://iron.internal/", "GET"),
    ("http://something.internal/", "GET"), ("http://169.254.169.254/", "GET"),
]


@pytest.mark.parametrize("mode", ["enforce", "warn"])
def test_explain_is_what_a_request_meets(iron, vm, mode):
    iron.call("PUT", f"/vms/{vm['id']}/egress/policy", {"mode": mode})
    for url, method in REQUESTS:
        if mode == "warn" and "unknown" in url:
            continue  # would be let through, to a name that nothing here resolves
        u = urllib.parse.urlsplit(url)
        said = explain(iron, vm, u.hostname, port=443 if u.scheme == "https" else 80, method=method, path=u.path)
        met = fetch(iron, vm, url, method)
        assert said["allowed"] == met, (mode, url, method, said)
        assert said["mode"] == mode and said["protocol"] == ("tls" if u.scheme == "https" else "http")
    iron.call("DELETE", f"/vms/{vm['id']}/egress/policy", status=204)


def test_explain_names_the_rule_and_all_that_matched(iron, vm):
    said = explain(iron, vm, "API.example.com.", port=80, path="/ok/secret?x")
    assert said["verdict"] == "denied" and said["rule"]["action"] == "deny" and said["rule"]["paths"] == ["/ok/secret"]
    assert said["rule"]["id"] in said["reason"] and [r["action"] for r in said["matched"]].count("allow") == 2
    assert sorted(r["id"] for r in said["matched"]) == [r["id"] for r in said["matched"]] and len(said["matched"]) == 3
    none = explain(iron, vm, "unknown.example.org")
    assert none["rule"] is None and none["matched"] == [] and none["reason"] == "no rule allows unknown.example.org:443"
    never = explain(iron, vm, "127.0.0.1", port=80)
    assert not never["allowed"] and "the VM itself" in never["reason"]
    private = explain(iron, vm, "192.168.1.1", port=80)
    assert not private["allowed"] and "private_allow" in private["reason"] and private["rule"] is None and private["matched"]
    assert "IPv4" in explain(iron, vm, "2001:db8::1")["reason"]
    assert "port 53" in explain(iron, vm, "sub.api.example.com", port=53)["reason"]
    synthetic = iron.run(vm, "curl", "-sS", "-o", "/dev/null", "-w", "%{remote_ip}", "http://api.example.com/ok")["stdout"]
    assert "stands for a name" in explain(iron, vm, synthetic)["reason"]
    host = f"10.78.{iron.net}.1"
    local = explain(iron, vm, host, port=80)
    assert not local["allowed"] and local["reason"] == f"{host} is an address of the host itself" and not fetch(iron, vm, f"http://{host}/")
    assert wait_for("its record", lambda: [e for e in iron.call("GET", f"/audit/egress?host={host}") if local["reason"] in e["reason"]])
    origin = iron.origin["dns"]
    assert explain(iron, vm, origin, port=80)["allowed"] and fetch(iron, vm, f"http://{origin}/")


def test_a_vm_that_inherits_nothing_still_has_the_workspaces_denies(iron):
    other = iron.call("POST", "/vms", {"name": "alone", "egress": {"inherit": False, "rules": [{"host": "bad.api.example.com"}]}}, status=201)
    bad, sub = explain(iron, other, "bad.api.example.com"), explain(iron, other, "sub.api.example.com")
    assert bad["verdict"] == "denied" and bad["rule"]["action"] == "deny" and {r["action"] for r in bad["matched"]} == {"allow", "deny"}
    assert sub["verdict"] == "denied" and sub["rule"] is None
    iron.call("DELETE", f"/vms/{other['id']}?force=true", status=204)
    wait_for("its end", lambda: iron.api("POST", "/egress/explain", {"vm_id": other["id"], "host": "x.com"}).status == 404)


@pytest.mark.parametrize("body, field", [
    ({"host": "x.com"}, "vm_id"), ({"vm_id": "vm_nonsense", "host": "x.com"}, "vm_id"), ({"vm": 1}, "vm"),
    ({"host": "x.com:80"}, "host"), ({"host": "*.x.com"}, "host"), ({"host": "https://x.com/"}, "host"), ({}, "host"),
    ({"host": "x.com", "port": 0}, "port"), ({"host": "x.com", "path": "x"}, "path"), ({"host": "x.com", "method": "A B"}, "method"),
    ({"host": "x.com", "protocol": "udp"}, "protocol"),
])
def test_explain_refuses_what_is_no_question(iron, vm, body, field):
    if field not in ("vm_id", "vm"):
        body = {"vm_id": vm["id"], **body}
    answer = iron.api("POST", "/egress/explain", body)
    assert answer.status == 422 and answer.json["error"]["message"].startswith(field), answer.body


def test_summary_counts_each_host(iron, vm):
    before = {s["host"]: s for s in iron.call("GET", "/audit/egress/summary")}.get("counted.example.org", {"total": 0})
    assert before["total"] == 0
    for _ in range(3):
        fetch(iron, vm, "http://counted.example.org/")
    fetch(iron, vm, "http://sub.api.example.com/")

    def counted():
        rows = {s["host"]: s for s in iron.call("GET", f"/audit/egress/summary?vm_id={vm['id']}")}
        return rows if rows.get("counted.example.org", {"total": 0})["total"] == 3 else None

    rows = wait_for("the summary", counted)
    assert rows["counted.example.org"] == {"host": "counted.example.org", "total": 3, "allowed": 0, "warned": 0, "denied": 3,
                                           "bytes_sent": 0, "bytes_received": 0}
    events, _ = pages(iron, "/audit/egress", vm_id=vm["id"], limit=100, order="asc")
    for host, row in rows.items():
        of_host = [e for e in events if e["host"] == host]
        assert row["total"] == len(of_host) == row["allowed"] + row["warned"] + row["denied"], host
        assert row["denied"] == sum(e["verdict"] == "denied" for e in of_host)
    assert list(rows) == sorted(rows, key=lambda h: (-rows[h]["total"], h))
    assert iron.call("GET", "/audit/egress/summary?since=2099-01-01T00:00:00Z") == []
    assert iron.call("GET", "/audit/egress/summary?until=2020-01-01T00:00:00%2B02:00") == []


def test_dropped_packets_are_counted_by_destination_and_second(iron, vm):
    iron.sh(vm, "ping -c 3 -i 0.1 -W 1 9.9.9.9; ping -c 2 -i 0.1 -W 1 9.9.9.10; true")

    def seen():
        found = iron.call("GET", f"/audit/egress?protocol=icmp&vm_id={vm['id']}&limit=500")
        by_host = {h: [e for e in found if e["host"] == h] for h in ("9.9.9.9", "9.9.9.10")}
        packets = {h: sum(int(e["reason"].split()[0]) for e in es) for h, es in by_host.items()}
        return found if packets == {"9.9.9.9": 3, "9.9.9.10": 2} else None

    for e in wait_for("five packets", seen):
        assert not e["allowed"] and e["verdict"] == "denied" and e["bytes_sent"] == 0 and "dropped" in e["reason"]


def test_every_filter_finds_exactly_what_it_says(iron, vm):
    iron.call("PUT", f"/vms/{vm['id']}/egress/policy", {"mode": "warn"})
    fetch(iron, vm, "http://warned.example.net/x")
    iron.call("DELETE", f"/vms/{vm['id']}/egress/policy", status=204)
    wait_for("a warning", lambda: iron.call("GET", "/audit/egress?verdict=warn"))
    everything, end = pages(iron, "/audit/egress", order="asc", limit=500)
    assert end and len(everything) > 20
    times = sorted(e["timestamp"] for e in everything)
    early, late = times[len(times) // 4], times[3 * len(times) // 4]
    cidr = next(e["cidr"] for e in everything if e["cidr"])
    filters = [
        ({}, lambda e: True),
        ({"vm_id": vm["id"]}, lambda e: e["vm_id"] == vm["id"]), ({"vm_id": "vm_0000000000001"}, lambda e: False),
        ({"verdict": "allowed"}, lambda e: e["verdict"] == "allowed"), ({"verdict": "warn"}, lambda e: e["verdict"] == "warn"),
        ({"verdict": "denied"}, lambda e: e["verdict"] in ("denied", "warn")), ({"verdict": "blocked"}, lambda e: not e["allowed"]),
        ({"allowed": "true"}, lambda e: e["allowed"]), ({"allowed": "false"}, lambda e: not e["allowed"]),
        ({"mode": "warn"}, lambda e: e["mode"] == "warn"), ({"mode": "enforce"}, lambda e: e["mode"] == "enforce"),
        ({"host": "sub.api.example.com"}, lambda e: e["host"] == "sub.api.example.com"),
        ({"host": "SUB.api.example.com."}, lambda e: e["host"] == "sub.api.example.com"),
        ({"host": "8.8.8.8"}, lambda e: e["host"] == "8.8.8.8"), ({"cidr": cidr}, lambda e: e["cidr"] == cidr),
        ({"protocol": "tls"}, lambda e: e["protocol"] == "tls"), ({"protocol": "icmp"}, lambda e: e["protocol"] == "icmp"),
        ({"protocol": "http", "verdict": "denied", "mode": "warn"},
         lambda e: e["protocol"] == "http" and e["verdict"] != "allowed" and e["mode"] == "warn"),
        ({"since": early}, lambda e: e["timestamp"] >= early), ({"until": late}, lambda e: e["timestamp"] <= late),
        ({"since": early, "until": late}, lambda e: early <= e["timestamp"] <= late),
        ({"since": "2099-01-01T00:00:00Z"}, lambda e: False),
    ]
    for query, keep in filters:
        expected = [e["id"] for e in everything if keep(e)]
        for limit in (4, 500):
            up, cursor = pages(iron, "/audit/egress", **query, order="asc", limit=limit)
            assert [e["id"] for e in up][:len(expected)] == expected and cursor, (query, limit)
            down, cursor = pages(iron, "/audit/egress", **query, order="desc", limit=limit)
            assert [e["id"] for e in down][-len(expected):] == expected[::-1][-len(down):] and cursor is None, (query, limit)
    # the same instants, said with another offset
    shifted = (datetime.datetime.fromisoformat(late.replace("Z", "+00:00")).astimezone(datetime.timezone(datetime.timedelta(hours=-7, minutes=-30))))
    assert pages(iron, "/audit/egress", until=shifted.isoformat(), order="asc")[0] == pages(iron, "/audit/egress", until=late, order="asc")[0]
    assert not [e for e in everything if e["protocol"] == "dns"]
    dns = pages(iron, "/audit/egress", protocol="dns", vm_id=vm["id"], limit=500)[0]
    assert dns and {e["protocol"] for e in dns} == {"dns"} and "sub.api.example.com" in {e["host"] for e in dns}


def test_orders_and_cursors(iron, vm):
    first = iron.api("GET", "/audit/egress?limit=2").json
    assert first["data"][0]["timestamp"] >= first["data"][1]["timestamp"] and first["has_more"] and first["cursor"]
    since = urllib.parse.quote(first["data"][1]["timestamp"])
    assert iron.call("GET", f"/audit/egress?since={since}")[0]["id"] == first["data"][1]["id"], "asc with since"
    assert iron.call("GET", f"/audit/egress?since={since}&order=desc")[0]["id"] == first["data"][0]["id"]
    for path in ("/audit/egress", "/audit/events"):
        empty = iron.api("GET", path + "?order=asc&since=2099-01-01T00:00:00Z").json
        assert empty["data"] == [] and not empty["has_more"] and empty["cursor"]
        again = iron.api("GET", path + "?order=asc&since=2099-01-01T00:00:00Z&cursor=" + empty["cursor"]).json
        assert again["data"] == [] and again["cursor"] == empty["cursor"] or path == "/audit/events"
        for cursor in ("x", empty["cursor"][:-1], "0" * 40):
            assert iron.api("GET", f"{path}?order=asc&cursor={cursor}").status == 422
        assert iron.api("GET", f"{path}?order=desc&cursor={empty['cursor']}").status == 422, "a cursor of the other order"
        assert iron.api("GET", f"{path}?limit=501").status == 422 and iron.api("GET", f"{path}?since=yesterday").status == 422
    # what comes after a cursor is what was appended since, each once
    _, cursor = pages(iron, "/audit/egress", order="asc", host="after.example.org")
    fetch(iron, vm, "http://after.example.org/")
    fetch(iron, vm, "http://not.example.org/")
    got = wait_for("it", lambda: pages(iron, "/audit/egress", order="asc", host="after.example.org", cursor=cursor)[0])
    assert [e["host"] for e in got] == ["after.example.org"]


def test_events_say_who_what_where_from_when_and_how_it_ended(iron, vm):
    key = iron.call("POST", "/keys", {"name": "ci", "scopes": ["vm:run", "vm:read", "audit:read"]}, status=201)
    agent = {"User-Agent": "irons/1.2.3 (test)"}
    assert iron.api("POST", f"/vms/{vm['id']}/exec", {"argv": ["true"]}, key=key["key"], headers=agent).status == 200

    def of(kind, **query):
        return iron.call("GET", "/audit/events?" + urllib.parse.urlencode({"kind": kind, **query}))

    execs = wait_for("the exec", lambda: (lambda x: x if {e["action"] for e in x} >= {"close"} else None)(of("exec", key_id=key["id"])))
    assert len(execs) == 2 and [e["client"] for e in execs] == [agent["User-Agent"]] * 2
    e = execs[0]
    assert e["id"].startswith("op_") and e["vm_id"] == vm["id"] and e["key_id"] == key["id"] and e["key_name"] == "ci"
    assert e["address"] == "127.0.0.1" and e["client"] == agent["User-Agent"] and e["outcome"] and e["timestamp"]
    assert e["action"] and isinstance(e["detail"], dict) and "client" not in e["detail"]
    assert of("exec", key_id=key["id"], vm_id=vm["id"]) == execs and of("key", key_id=key["id"]) == []
    assert {"key", "rule", "vm", "daemon", "exec", "api", "image", "policy"} <= {x["kind"] for x in pages(iron, "/audit/events", limit=500)[0]}
    # what belongs to no workspace is not for a key without admin; the rest is
    mine = iron.call("GET", "/audit/events?limit=500", key=key["key"])
    assert mine and not [x for x in mine if x["kind"] == "daemon"]
    up, cursor = pages(iron, "/audit/events", order="asc", limit=7)
    down, end = pages(iron, "/audit/events", order="desc", limit=500)
    assert end is None and cursor and [x["id"] for x in up] == [x["id"] for x in reversed(down)][:len(up)]
    assert len({x["id"] for x in down}) == len(down)
    since = urllib.parse.quote(e["timestamp"])
    assert iron.call("GET", f"/audit/events?since={since}&until={since}&kind=exec")[0]["id"] == e["id"]


def api_events(iron, since):
    return [e for e in pages(iron, "/audit/events", kind="api", since=since, order="asc", limit=500)[0]]


def now(iron):
    """The server's last word on the time: of an event that was just made."""
    iron.call("GET", "/me")
    return max(e["timestamp"] for e in wait_for("an event", lambda: iron.call("GET", "/audit/events?kind=api&limit=1")))


def test_every_call_is_on_record_also_what_never_reached_control(iron, vm):
    since, agent = now(iron), {"User-Agent": "irons/9.9 (every call)"}
    key = iron.call("POST", "/keys", {"name": "short", "scopes": ["vm:read"]}, status=201)["key"]
    calls = [("GET", "/me", None, 200, "ME"), ("GET", "/nothing", None, 404, "none"), ("DELETE", "/me", None, 405, "none"),
             ("POST", "/vms", {"nme": 1}, 422, "VM_CREATE"), ("GET", f"/vms/{vm['id']}", None, 200, "VM_GET"),
             ("GET", "/vms/vm_0000000000001", None, 404, "VM_GET"), ("POST", f"/vms/{vm['id']}/start", {}, 409, "VM_START")]
    for method, path, body, status, _ in calls:
        assert iron.api(method, path, body, headers=agent).status == status, (method, path)
    assert iron.api("GET", "/keys", key=key, headers=agent).status == 403
    assert iron.api("GET", "/vms", key=None, headers=agent).status == 401
    assert iron.api("GET", "/vms", key="iron_live_wrong", headers=agent).status == 401
    calls += [("GET", "/keys", None, 403, "KEY_LIST"), ("GET", "/vms", None, 401, "VM_LIST"), ("GET", "/vms", None, 401, "VM_LIST")]

    def all_of_them():
        found = [e for e in api_events(iron, since) if e["client"] == agent["User-Agent"]]
        return found if len(found) >= len(calls) else None

    found = wait_for("every call", all_of_them)
    assert [(e["detail"]["method"], e["detail"]["path"].removeprefix("/v1"), int(e["outcome"]), e["action"]) for e in found] == \
        [(m, p, s, a) for m, p, _, s, a in calls]
    for e in found:
        assert e["kind"] == "api" and e["address"] == "127.0.0.1" and e["detail"]["duration_us"] > 0
    assert [e["vm_id"] for e in found if e["action"] == "VM_START"] == [vm["id"]]
    assert [e["key_name"] for e in found if e["outcome"] == "403"] == ["short"] and found[-1]["key_id"] == ""


def test_a_flood_of_calls_is_counted_not_listed(iron, vm):
    since = now(iron)
    context = ssl.create_default_context(cafile=str(iron.dir / "tls/cert.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", iron.port, context=context, timeout=30)
    for _ in range(700):
        connection.request("GET", "/v1/vms", headers={"User-Agent": "flood"})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in (401, 429)
    connection.close()

    def counted():
        found = [e for e in api_events(iron, since) if e["outcome"] in ("401", "429")]
        return found if sum(e["detail"].get("count", 1) for e in found) >= 700 else None

    found = wait_for("the sum", counted)
    assert sum(e["detail"].get("count", 1) for e in found) == 700
    assert len(found) < 200, "most are only counted"
