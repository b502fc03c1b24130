"""The door of the API as a client's author and an attacker try it, on a whole iron: what mattered of its documentation and was not so."""

import json
import signal
import subprocess

import pytest

from harness import BUILD, Iron, wait_for

UPGRADE = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
           "Sec-WebSocket-Version": "13"}


@pytest.fixture(scope="module")
def iron():
    with Iron("contract", net=40) as it:
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("alpha")


def key_of(iron, *scopes):
    return iron.call("POST", "/keys", {"name": "k-" + scopes[0].replace(":", "-"), "scopes": list(scopes)}, status=201)["key"]


@pytest.mark.parametrize("method, path, body", [
    ("POST", "/vms", "{"), ("POST", "/vms", {"name": ""}), ("GET", "/vms?foo=1", None), ("POST", "/egress/rules", {}),
    ("DELETE", "/vms/vm_0000000000001?force=maybe", None)])
def test_a_stranger_learns_nothing_about_what_is_valid(iron, method, path, body):
    answer = iron.api(method, path, body, key="iron_live_wrong")
    assert answer.status == 401 and answer.json["error"]["code"] == "unauthorized"
    assert iron.api(method, path, body).status in (400, 404, 422)
    assert iron.api(method, path, body, key=key_of(iron, "secrets:write")).status == 403


def test_a_key_that_may_not_run_gets_no_websocket(iron, vm):
    path = f"/vms/{vm['id']}/exec"
    assert iron.api("GET", path, key=key_of(iron, "vm:read"), headers=UPGRADE).status == 403
    assert iron.api("GET", path, key="iron_live_wrong", headers=UPGRADE).status == 401
    assert iron.api("GET", path, key=key_of(iron, "vm:run"), headers=UPGRADE).status == 101


@pytest.mark.parametrize("given, asked", [
    ("Api.Example.COM.", "API.example.com"), ("bücher.example", "B%C3%9CCHER.example."), ("*.Foo.example", "*.FOO.example."),
    ("2001:DB8::0001", "2001:db8:0::1")])
def test_a_rule_is_found_by_its_host_however_it_is_written(iron, given, asked):
    rule = iron.call("POST", "/egress/rules", {"host": given}, status=201)
    found = iron.call("GET", "/egress/rules?host=" + asked)
    assert [r["id"] for r in found] == [rule["id"]]
    iron.call("DELETE", "/egress/rules/" + rule["id"], status=204)


def test_the_trail_is_filtered_by_host_however_it_is_written(iron, vm):
    iron.run(vm, "curl", "-s", "-m", "20", "http://seen.example/")
    wait_for("the event", lambda: iron.call("GET", "/audit/egress?host=seen.example"))
    assert iron.call("GET", "/audit/egress?host=Seen.EXAMPLE.")


def test_a_key_is_revoked_by_its_name_when_one_has_it(iron):
    for name in ("once", "twice", "twice"):
        iron.call("POST", "/keys", {"name": name, "scopes": ["vm:read"]}, status=201)
    assert b"once revoked" in iron.iron("keys", "revoke", "once").stdout
    assert iron.call("GET", "/keys?name=once") == []
    for name, says in (("once", b"there is no key 'once'"), ("twice", b"2 are named 'twice'")):
        done = iron.iron("keys", "revoke", name)
        assert done.returncode == 1 and says in done.stderr
    assert len(iron.call("GET", "/keys?name=twice")) == 2


def kill_role(iron, role):
    for pid in subprocess.run(["pgrep", "-P", str(iron.process.pid)], capture_output=True, text=True).stdout.split():
        with open(f"/proc/{pid}/comm") as f:
            if f.read().strip() == role:
                subprocess.run(["kill", "-9", pid], check=True)
                return
    raise AssertionError(f"no {role} of irond's")


def test_follow_survives_its_servers(iron, vm):
    out, looks = open(iron.dir / "follow.json", "wb"), iron.looks("AUDIT_EGRESS")
    p = subprocess.Popen([BUILD / "src/prog/iron", "audit", "egress", "--follow", "--json"], stdout=out, stderr=subprocess.DEVNULL,
                         env={"HOME": str(iron.dir / "home"), "PATH": "/usr/bin:/bin"})

    def hosts():
        return [json.loads(x)["host"] for x in (iron.dir / "follow.json").read_bytes().splitlines() if x]

    try:
        wait_for("its first look", lambda: iron.looks("AUDIT_EGRESS") > looks)
        for i, role in enumerate(("iron-api", "iron-control")):
            iron.run(vm, "curl", "-s", "-m", "20", f"http://before{i}.example/")
            wait_for("the event", lambda: f"before{i}.example" in hosts())
            kill_role(iron, role)
            wait_for("readiness", lambda: ready(iron))
            wait_for("exec", lambda: iron.api("POST", f"/vms/{vm['id']}/exec", {"argv": ["true"]}).status == 200)
            iron.run(vm, "curl", "-s", "-m", "20", f"http://after{i}.example/")
            wait_for("the event after " + role, lambda: f"after{i}.example" in hosts())
        seen = [h for h in hosts() if h.startswith(("before", "after"))]
        assert seen == ["before0.example", "after0.example", "before1.example", "after1.example"]
        assert p.poll() is None
    finally:
        p.send_signal(signal.SIGINT)
        p.wait(10)
        out.close()


def ready(iron):
    try:
        return iron.api("GET", "/readyz", key=None).status == 200
    except OSError:
        return False
