"""SIGKILL of any one role loses no VM and no acknowledged record; irond stop --vms and start keep every disk"""

import os
import pathlib
import signal

import pytest

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("deaths", net=63) as it:
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    iron.ok("egress", "add", "--host", "api.example.com")
    return iron.create("one")


def pids(iron):
    """name → pid of what `irond status` lists as answering."""
    rows = [line.split() for line in iron.irond("status").splitlines() if line.startswith("iron-")]
    out = {}
    for row in rows:
        words = row[1:] if row[1] in ("ok", "silent", "starting", "down") else row[2:]
        if words[0] == "ok":
            out[row[0]] = int(words[1])
    return out


def works(iron, vm):
    """The whole way: API, exec, the door, and the record of it. None while it does not (a role is coming back)."""
    try:
        answer = iron.api("POST", f"/vms/{vm['id']}/exec", {
            "argv": ["curl", "-sS", "-m", "10", "http://api.example.com/"], "user": "root"}, timeout=30)
    except OSError:
        return None
    if answer.status != 200 or "hello from api.example.com" not in answer.json["data"]["stdout"]:
        return None
    return answer


def events(iron, vm):
    return {e["id"] for e in iron.call("GET", f"/audit/egress?vm_id={vm['id']}&limit=500")}


@pytest.mark.parametrize("role", ["iron-api", "iron-control", "iron-vm", "iron-egress", "iron-audit"])
def test_a_role_is_killed(iron, vm, role):
    boot = iron.sh(vm, "cat /proc/sys/kernel/random/boot_id; echo kept >>/tmp/kept")["stdout"]
    wait_for("the door", lambda: works(iron, vm))
    known = wait_for("the record", lambda: events(iron, vm))
    before = pids(iron)
    os.kill(before[role], signal.SIGKILL)
    wait_for(f"another {role}", lambda: (lambda now: now.get(role, before[role]) != before[role] and now.keys() == before.keys())(pids(iron)), 20)
    after = pids(iron)
    assert {r for r in before if before[r] != after[r]} == {role}, "only the killed one is new"
    wait_for(f"everything to work again after {role}; {iron.dir}", lambda: works(iron, vm), 40)
    assert iron.sh(vm, "cat /proc/sys/kernel/random/boot_id")["stdout"] == boot, "the machine went on"
    shown = iron.call("GET", f"/vms/{vm['id']}")
    assert (shown["status"], shown["status_detail"], shown["generation"]) == ("running", "ready", vm["generation"])
    wait_for("what was on record to be there still", lambda: known <= events(iron, vm), 20)


def test_qemu_is_killed(iron, vm):
    group = next(pathlib.Path("/sys/fs/cgroup").glob(f"**/{iron.name}/{iron.name}/qemu-{vm['id']}/cgroup.procs"))
    os.kill(int(group.read_text().split()[0]), signal.SIGKILL)
    failed = wait_for("its state", lambda: (lambda v: v if v["status"] == "failed" else None)(iron.call("GET", f"/vms/{vm['id']}")))
    assert "killed by signal 9" in failed["status_reason"]
    iron.call("POST", f"/vms/{vm['id']}/start")
    iron.wait_ready(vm["id"])
    wait_for("the door", lambda: works(iron, vm))


def test_irond_is_stopped_with_its_vms_and_started(iron, vm):
    iron.end()
    assert iron.process.returncode == 0, iron.log_tail()
    iron.start_irond()
    stopped = wait_for("the VM's state", lambda: (lambda v: v if v["status"] == "stopped" else None)(iron.call("GET", f"/vms/{vm['id']}")))
    assert stopped["status_detail"] == "stopped"
    iron.call("POST", f"/vms/{vm['id']}/start")
    iron.wait_ready(vm["id"])
    wait_for("the door", lambda: works(iron, vm))


def test_irond_is_killed(iron, vm):
    iron.process.kill()
    iron.process.wait()
    iron.start_irond()
    iron.wait_ready(vm["id"])
    wait_for("the door", lambda: works(iron, vm))
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)
    wait_for("its directory to go", lambda: not (iron.dir / "state/vms" / vm["id"]).exists())
