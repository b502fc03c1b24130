"""PATCH, restart: always, sessions and two workspaces side by side, on a whole iron. What a VM was told to do with itself holds over kill -9 of its machine"""

import os
import signal

import pytest

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("vmlife", extra="allow_tcg_multi_tenant: true") as it:
        yield it


def qemu_of(iron, vm):
    """The process of its machine, by the file that irond gave it as standard error."""
    log = f"{iron.dir}/state/vms/{vm['id']}/qemu.log"
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/fd/2") == log and "qemu" in os.readlink(f"/proc/{pid}/exe"):
                return int(pid)
        except OSError:
            continue
    return None


def show(iron, vm):
    return iron.call("GET", f"/vms/{vm['id']}")


def test_patch(iron):
    vm = iron.create("first", labels={"a": "1"})
    assert vm["restart"] == "never"
    assert iron.call("PATCH", f"/vms/{vm['id']}", {})["name"] == "first"
    changed = iron.call("PATCH", f"/vms/{vm['id']}", {"name": "renamed", "labels": {"b": "2"}, "restart": "always"})
    assert (changed["name"], changed["labels"], changed["restart"]) == ("renamed", {"b": "2"}, "always")
    assert changed["status_detail"] == "ready"
    assert show(iron, vm) == changed
    assert iron.call("PATCH", f"/vms/{vm['id']}", {"name": "", "labels": {}})["labels"] == {}
    for body in [{"name": "No"}, {"name": "vm_x"}, {"restart": "sometimes"}, {"labels": {"": "x"}}, {"ttl_s": 5}, {"idle_suspend_s": 5}]:
        answer = iron.api("PATCH", f"/vms/{vm['id']}", body)
        assert answer.status == 422 and next(iter(body)) in answer.json["error"]["message"], (body, answer.body)
    other = iron.call("POST", "/vms", {"name": "first"}, status=201)
    taken = iron.api("PATCH", f"/vms/{other['id']}", {"name": "renamed"})
    assert taken.status == 409 and taken.json["error"]["code"] == "vm_name_taken"
    iron.call("DELETE", f"/vms/{other['id']}?force=true", status=204)
    assert iron.api("PATCH", f"/vms/{other['id']}", {"name": "again"}).status == 404
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)


def test_a_machine_that_dies(iron):
    """With never it is failed and says why; with always it is back, on a new session."""
    vm = iron.create("dies")
    os.kill(qemu_of(iron, vm), signal.SIGKILL)
    wait_for("it to be failed", lambda: show(iron, vm)["status"] == "failed")
    assert "killed by signal 9" in show(iron, vm)["status_reason"]
    iron.call("PATCH", f"/vms/{vm['id']}", {"restart": "always"})
    iron.call("POST", f"/vms/{vm['id']}/start")
    iron.wait_ready(vm["id"])
    assert iron.sh(vm, "echo there >/tmp/there")["exit_code"] == 0
    os.kill(qemu_of(iron, vm), signal.SIGKILL)
    pending = wait_for("it to be started again", lambda: [v for v in [show(iron, vm)] if v["status"] == "pending"])[0]
    assert "killed by signal 9" in pending["status_reason"] or pending["status_reason"] == "starting its machine"
    iron.wait_ready(vm["id"])
    assert iron.sh(vm, "test ! -e /tmp/there")["exit_code"] == 0, "a start, and no resumption"
    iron.call("POST", f"/vms/{vm['id']}/stop")
    wait_for("it to be stopped", lambda: show(iron, vm)["status_detail"] == "stopped")
    iron.call("DELETE", f"/vms/{vm['id']}", status=204)
    wait_for("it to be destroyed", lambda: show(iron, vm)["status_detail"] == "destroyed")
    sessions = iron.call("GET", f"/vms/{vm['id']}/sessions")
    assert [s["vm_id"] for s in sessions] == [vm["id"]] * 3
    assert [s["end_reason"].split(";")[0] for s in sessions] == ["stopped"] + ["QEMU killed by signal 9 (Killed)"] * 2
    assert [s["generation"] for s in sessions] == [3, 2, 1]
    for s in sessions:
        assert s["id"].startswith("ses_") and s["ended_at"] > s["started_at"] and s["duration_ms"] > 0


def test_stats(iron):
    vm = iron.create("stats")
    before = iron.call("GET", f"/vms/{vm['id']}/stats")
    assert before["vm_id"] == vm["id"] and before["running"] and before["generation"] == 1
    assert 0 < before["memory_bytes"] <= before["memory_peak_bytes"] <= before["memory_limit_bytes"]
    iron.sh(vm, "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    after = iron.call("GET", f"/vms/{vm['id']}/stats")
    assert after["cpu_time_ms"] > before["cpu_time_ms"] and after["uptime_ms"] > before["uptime_ms"]
    iron.call("POST", f"/vms/{vm['id']}/stop")
    wait_for("it to be stopped", lambda: show(iron, vm)["status_detail"] == "stopped")
    session = iron.call("GET", f"/vms/{vm['id']}/sessions")[0]
    assert session["cpu_time_ms"] >= after["cpu_time_ms"] and session["memory_peak_bytes"] >= after["memory_bytes"]
    rest = iron.call("GET", f"/vms/{vm['id']}/stats")
    assert not rest["running"] and rest["memory_bytes"] == 0 and rest["cpu_time_ms"] == session["cpu_time_ms"]
    iron.call("DELETE", f"/vms/{vm['id']}", status=204)


def test_workspaces_side_by_side(iron):
    """What belongs to another workspace is not there: 404 for each of its ids, and in no list."""
    key = iron.irond("key", "create", "second", "--workspace", "team-b", "--scopes", "admin").strip()
    me = iron.call("GET", "/me", key=key)
    assert me["workspace"] == "team-b" and me["workspace_id"] != iron.call("GET", "/me")["workspace_id"]
    again = iron.irond("key", "create", "second", "--workspace", "team-b", "--scopes", "vm:read").strip()
    assert iron.call("GET", "/me", key=again)["workspace_id"] == me["workspace_id"]
    mine = iron.create("shared-name")
    theirs = iron.call("POST", "/vms", {"name": "shared-name"}, status=201, key=key)
    assert [v["id"] for v in iron.call("GET", "/vms", key=key)] == [theirs["id"]]
    assert mine["id"] in [v["id"] for v in iron.call("GET", "/vms")]
    assert theirs["id"] not in [v["id"] for v in iron.call("GET", "/vms")]
    rows = [line.split() for line in iron.irond("status").splitlines() if line.startswith("iron-egress")]
    assert len(rows) == 2, rows
    listed = {line.split()[2].rstrip(":"): line for line in iron.irond("status").splitlines() if line.startswith("workspace")}
    assert set(listed) == {"default", "team-b"} and me["workspace_id"] in listed["team-b"]
    assert listed["team-b"].endswith("1 VMs, 1 running, 2 keys") or listed["team-b"].endswith("1 VMs, 0 running, 2 keys")
    for vm, k in ((mine, iron.key), (theirs, key)):
        iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204, key=k)
