"""Presets: a name that stands for rules of the workspace or of a new VM. What they allow and no more, added once, removed whole, on
record, by scope, by Idempotency-Key, and after iron's processes were killed"""

import json
import threading
import uuid

import pytest

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("presets", egress_extra="""\
  packages:
    - npm=registry.example.net
    - npm=audit.example.net:8443
    - pypi=index.example.net
    - pypi=files.example.net
    - debian=mirror.example.org
    - debian=mirror.example.org:80
    - go=modules.example.net
    - github=packages.example.com
""") as it:
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("one")


@pytest.fixture(autouse=True)
def none_is_left(iron):
    yield
    for preset in iron.call("GET", "/egress/presets"):
        iron.api("DELETE", f"/egress/presets/{preset['name']}")
    for rule in iron.call("GET", "/egress/rules?limit=200"):
        iron.call("DELETE", f"/egress/rules/{rule['id']}", status=204)


def explain(iron, vm, host, path="/", method="GET", port=443):
    return iron.call("POST", "/egress/explain", {"vm_id": vm["id"], "host": host, "path": path, "method": method, "protocol": "http", "port": port})


def rules(iron, where=""):
    return iron.call("GET", f"{where}/egress/rules?limit=200")


def row(iron, name):
    return next(p for p in iron.call("GET", "/egress/presets") if p["name"] == name)


def refused(answer, status, code):
    assert (answer.status, answer.json["error"]["code"]) == (status, code), answer.body
    return answer.json["error"]["message"]


def test_what_there_is(iron):
    answer = iron.api("GET", "/egress/presets").json
    presets = {p["name"]: p for p in answer["data"]}
    assert answer["has_more"] is False and answer["cursor"] is None
    assert list(presets) == ["anthropic", "debian", "github", "gitlab", "go", "huggingface", "npm", "openai", "pypi"]
    for preset in presets.values():
        assert list(preset) == ["name", "description", "added", "rules"] and preset["added"] is False and preset["description"]
        for rule in preset["rules"]:
            assert list(rule) == ["host", "ports", "methods", "paths", "tls", "action"]
            assert rule["tls"] == "intercept" and rule["action"] == "allow" and rule["ports"] in ([443], [80], [8443])
            # each is what the API would take from anyone
            made = iron.call("POST", "/egress/rules", rule, status=201)
            assert {k: made[k] for k in rule} == rule


def test_add_and_remove(iron, vm):
    assert not explain(iron, vm, "registry.example.net")["allowed"]
    kept = iron.call("POST", "/egress/rules", {"host": "example.com", "name": "kept"}, status=201)
    added = iron.call("POST", "/egress/presets/npm", {})
    assert added["added"] and added == row(iron, "npm")
    assert [p["name"] for p in iron.call("GET", "/egress/presets") if p["added"]] == ["npm"]
    said = explain(iron, vm, "registry.example.net")
    assert said["allowed"] and said["rule"]["preset"] == "npm" and said["rule"]["name"] == ""
    assert explain(iron, vm, "audit.example.net", method="HEAD", port=8443)["allowed"] and not explain(iron, vm, "audit.example.net")["allowed"]
    assert not explain(iron, vm, "registry.example.net", "/tokens", "POST")["allowed"]
    assert not explain(iron, vm, "registry.example.net", "/left-pad", "PUT")["allowed"]
    assert not explain(iron, vm, "registry.example.net", port=80)["allowed"]
    assert not explain(iron, vm, "example.net")["allowed"]
    shown = sorted((r["host"], r["methods"]) for r in added["rules"])
    there = [r for r in rules(iron) if r["preset"] == "npm"]
    assert sorted((r["host"], r["methods"]) for r in there) == shown and all(r["id"].startswith("egr_") for r in there)
    assert iron.api("DELETE", "/egress/presets/npm").status == 204
    assert not explain(iron, vm, "registry.example.net")["allowed"]
    assert [r["id"] for r in rules(iron)] == [kept["id"]]
    refused(iron.api("DELETE", "/egress/presets/npm"), 404, "preset_not_found")


def test_again_adds_what_is_missing_only(iron, vm):
    iron.call("POST", "/egress/presets/pypi")
    first = rules(iron)
    assert iron.call("POST", "/egress/presets/pypi")["added"]
    assert rules(iron) == first
    gone = next(r for r in first if r["host"] == "index.example.net")
    iron.call("DELETE", f"/egress/rules/{gone['id']}", status=204)
    assert row(iron, "pypi")["added"] is False and not explain(iron, vm, "index.example.net")["allowed"]
    iron.call("POST", "/egress/presets/pypi")
    again = rules(iron)
    assert len(again) == len(first) and row(iron, "pypi")["added"] and explain(iron, vm, "index.example.net")["allowed"]
    # a rule like it that somebody wrote is somebody's
    own = iron.call("POST", "/egress/rules", {"host": "index.example.net", "ports": [443], "methods": ["GET", "HEAD"]}, status=201)
    assert own["preset"] == ""
    iron.call("DELETE", "/egress/presets/pypi", status=204)
    assert [r["id"] for r in rules(iron)] == [own["id"]]


def test_a_deny_wins(iron, vm):
    iron.call("POST", "/egress/presets/github")
    assert explain(iron, vm, "raw.githubusercontent.com")["allowed"]
    iron.call("POST", "/egress/rules", {"host": "raw.githubusercontent.com", "action": "deny"}, status=201)
    assert not explain(iron, vm, "raw.githubusercontent.com")["allowed"]
    assert explain(iron, vm, "github.com")["allowed"]


@pytest.mark.parametrize("name", ["nope", "NPM", "npm%00", "%6epm", "np", "a" * 64, "egr_00000000j6hb7", "..", "n%2Fm"])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_unknown_names(iron, name, method):
    answer = iron.api(method, f"/egress/presets/{name}")
    if name in ("..", "npm%00", "n%2Fm"):  # these may be refused as paths
        assert answer.status in (400, 404)
    else:
        refused(answer, 404, "preset_not_found")
    assert rules(iron) == []


def test_methods_and_bodies(iron):
    assert iron.api("GET", "/egress/presets/npm").status == 405
    assert iron.api("PUT", "/egress/presets/npm", {}).status == 405
    assert iron.api("POST", "/egress/presets", {}).status == 405
    assert "vm" in refused(iron.api("POST", "/egress/presets/npm", {"vm": 1}), 422, "validation_error")
    assert refused(iron.api("GET", "/egress/presets?name=npm"), 422, "validation_error").startswith("name")
    assert iron.api("GET", "/vms/vm_00000000000h1/egress/presets").status == 404


def test_a_vm_of_its_own(iron, vm):
    made = iron.call("POST", "/vms", {"name": "born", "egress": {"inherit": False, "presets": ["go", "debian"], "rules": [{"host": "example.com"}]}},
                     status=201)
    own = rules(iron, f"/vms/{made['id']}")
    assert sorted(r["preset"] for r in own) == ["", "debian", "debian", "go"]
    assert explain(iron, made, "modules.example.net")["allowed"] and not explain(iron, vm, "modules.example.net")["allowed"]
    assert explain(iron, made, "mirror.example.org", port=80)["allowed"]
    assert explain(iron, made, "mirror.example.org", method="HEAD")["allowed"] and not explain(iron, made, "mirror.example.org", method="PUT")["allowed"]
    assert rules(iron) == [] and not row(iron, "go")["added"]
    event = next(e for e in iron.call("GET", f"/audit/events?kind=vm&vm_id={made['id']}&limit=50") if e["action"] == "create")
    assert "modules.example.net" in json.dumps(event["detail"])
    # its rules are rules: one by one
    iron.call("DELETE", f"/vms/{made['id']}/egress/rules/{next(r for r in own if r['ports'] == [80])['id']}", status=204)
    assert not explain(iron, made, "mirror.example.org", port=80)["allowed"]
    iron.wait_ready(made["id"])
    iron.api("DELETE", f"/vms/{made['id']}?force=true")


def test_a_vm_of_what_there_is_not(iron):
    assert "nope" in refused(iron.api("POST", "/vms", {"name": "x", "egress": {"presets": ["npm", "nope"]}}), 404, "preset_not_found")
    assert "twice" in refused(iron.api("POST", "/vms", {"name": "x", "egress": {"presets": ["npm", "npm"]}}), 422, "validation_error")
    refused(iron.api("POST", "/vms", {"name": "x", "egress": {"presets": [f"p{i}" for i in range(17)]}}), 422, "validation_error")
    assert not iron.call("GET", "/vms?name=x")


def test_scopes(iron):
    def key(*scopes):
        return iron.call("POST", "/keys", {"name": uuid.uuid4().hex[:8], "scopes": list(scopes)}, status=201)["key"]
    reader, writer, admin = key("egress:read"), key("egress:write"), key("vm:admin")
    assert iron.api("GET", "/egress/presets", key=reader).status == 200
    refused(iron.api("GET", "/egress/presets", key=admin), 403, "scope_missing")
    for method in ("POST", "DELETE"):
        refused(iron.api(method, "/egress/presets/npm", key=reader), 403, "scope_missing")
    refused(iron.api("POST", "/vms", {"name": "x", "egress": {"presets": ["npm"]}}, key=admin), 403, "scope_missing")
    assert iron.api("POST", "/egress/presets/npm", key=writer).status == 200
    assert iron.api("DELETE", "/egress/presets/npm", key=writer).status == 204


def test_on_record(iron):
    iron.call("POST", "/egress/presets/openai")
    iron.call("POST", "/egress/presets/openai")  # changes nothing, and is no change on record
    iron.call("DELETE", "/egress/presets/openai", status=204)

    def events():
        found = [e for e in iron.call("GET", "/audit/events?kind=rule&limit=100") if e["detail"].get("preset") == "openai"]
        return len(found) >= 2 and found
    found = wait_for("the record", events, 20)
    assert sorted(e["action"] for e in found) == ["create", "delete"] and all("api.openai.com" in json.dumps(e["detail"]) for e in found)


def test_idempotency_key(iron):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first, second = (iron.api("POST", "/egress/presets/npm", {}, headers=key) for _ in range(2))
    assert first.status == second.status == 200 and first.body == second.body
    assert second.headers["Idempotent-Replayed"] == "true"
    refused(iron.api("POST", "/egress/presets/pypi", {}, headers=key), 409, "idempotency_mismatch")


def test_many_at_once_add_it_once(iron):
    statuses = []
    threads = [threading.Thread(target=lambda: statuses.append(iron.api("POST", "/egress/presets/pypi").status)) for _ in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert statuses == [200] * 8
    hosts = [r["host"] for r in rules(iron)]
    assert len(hosts) == len(set(hosts)) == len(row(iron, "pypi")["rules"])


def test_the_command_line(iron, vm):
    assert "npm" in iron.ok("egress", "preset", "list") and "registry.example.net" in iron.ok("egress", "preset", "show", "npm")
    iron.ok("egress", "preset", "add", "npm", "anthropic")
    assert "allowed" in iron.ok("egress", "explain", "--vm", "one", "https://api.anthropic.com/v1/messages")
    added = [p["name"] for p in json.loads(iron.ok("egress", "preset", "list", "--json")) if p["added"]]
    assert added == ["anthropic", "npm"]
    iron.ok("egress", "preset", "remove", "npm", "anthropic")
    assert "denied" in iron.ok("egress", "explain", "--vm", "one", "https://api.anthropic.com/v1/messages")
    done = iron.iron("egress", "preset", "add", "nope")
    assert done.returncode == 1 and b"iron egress preset list" in done.stderr
    iron.ok("create", "cli", "--async", "--preset", "npm", "--preset", "debian")
    made = iron.call("GET", "/vms?name=cli")[0]
    assert {r["preset"] for r in rules(iron, f"/vms/{made['id']}")} == {"npm", "debian"}
    iron.wait_ready(made["id"])
    iron.ok("destroy", "--force", "cli")


def test_it_outlives_a_restart(iron, vm):
    iron.call("POST", "/egress/presets/huggingface")
    iron.stop_irond()
    iron.start_irond()
    assert row(iron, "huggingface")["added"]
    assert explain(iron, vm, "cdn-lfs-us-1.hf.co")["allowed"]
