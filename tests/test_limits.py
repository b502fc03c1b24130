"""A VM's limits: its disk by QEMU's throttle group, its share of CPUs by cgroup; one that eats its all slows only itself"""

import pathlib
import statistics
import time

import pytest
from harness import Iron, wait_for

IOPS = 150


@pytest.fixture(scope="module")
def iron():
    with Iron("limits", extra=f"limits: {{disk_iops: {IOPS}, disk_iops_burst: 0, disk_mib_per_s: 64, disk_mib_per_s_burst: 0}}") as it:
        yield it


@pytest.fixture(scope="module")
def victim(iron):
    return iron.create("victim")


@pytest.fixture(scope="module")
def hog(iron, victim):
    vm = iron.create("hog", vcpus=2)
    iron.call("POST", "/egress/rules", {"host": "api.example.com"}, status=201)
    return vm


def group_file(iron, group, v1, v2):
    """A file of a group's, whichever hierarchy it is in."""
    root = pathlib.Path("/sys/fs/cgroup")
    for path in [*root.glob(f"*/{iron.name}/{iron.name}/{group}/{v1}"), root / iron.name / iron.name / group / v2]:
        if path.exists():
            return path.read_text().strip(), path.name == v1
    raise AssertionError(f"no cgroup of {group}")


def round_trips(iron, vm, n=15):
    times = []
    for _ in range(n):
        start = time.monotonic()
        assert iron.sh(vm, "echo x")["stdout"] == "x\n"
        times.append(time.monotonic() - start)
    return times


def start(iron, vm, script):
    return iron.call("POST", f"/vms/{vm['id']}/exec", {"argv": ["/bin/sh", "-c", script], "user": "root", "detach": True})["exec_id"]


def end(iron, vm, execs):
    for e in execs:
        iron.call("DELETE", f"/vms/{vm['id']}/execs/{e}", status=204)


def test_shares_of_the_cpus(iron, victim, hog):
    """By size among VMs; what serves all of them comes before any; and no VM has more CPUs than vCPUs."""
    for vm, vcpus in ((victim, 1), (hog, 2)):
        share, v1 = group_file(iron, f"qemu-{vm['id']}", "cpu.shares", "cpu.weight")
        assert int(share) == vcpus * (1024 if v1 else 100)
        quota, v1 = group_file(iron, f"qemu-{vm['id']}", "cpu.cfs_quota_us", "cpu.max")
        assert int(quota.split()[0]) == vcpus * 100000
    for group in ("iron-api", "iron-control", "iron-audit", f"role-{victim['id']}"):
        share, v1 = group_file(iron, group, "cpu.shares", "cpu.weight")
        assert int(share) == (102400 if v1 else 10000), group
        pids, _ = group_file(iron, group, "pids.max", "pids.max")
        assert 0 < int(pids) <= 64


HOGS = {
    "cpu": "for i in 1 2 3 4; do (while :; do :; done) & done; wait",
    "processes": "i=0; while [ $i -lt 3000 ]; do sleep 1000 & i=$((i+1)); done; while :; do ls /proc >/dev/null; done",
    "connections": "while :; do for i in 1 2 3 4 5 6 7 8; do curl -s -m 5 -o /dev/null http://api.example.com/ & done; wait; done",
}


@pytest.mark.parametrize("kind", HOGS)
def test_a_hog_slows_only_itself(iron, victim, hog, kind):
    """The neighbour's exec: its median with a hog beside it against the median before, in the same run. The hog could take both
    CPUs of a small host; a neighbour with half of its share is at most a few times slower."""
    round_trips(iron, victim, 3)
    idle = round_trips(iron, victim)
    begun = start(iron, hog, HOGS[kind])
    try:
        hogged = round_trips(iron, victim)
    finally:
        end(iron, hog, [begun])
    before, after = statistics.median(idle), statistics.median(hogged)
    print(f"{kind}: median {before * 1000:.0f} ms idle, {after * 1000:.0f} ms hogged")
    assert after < 6 * before + 0.05, (kind, before, after)
    assert max(hogged) < 10


def test_a_guest_out_of_memory_is_its_own_affair(iron, victim, hog):
    """Its kernel kills what ate the memory; QEMU, the VM and its neighbour do not notice."""
    out = iron.sh(hog, "tail /dev/zero; echo ended with $?")
    assert out["stdout"].strip() in ("ended with 137", "ended with 1"), out
    vm = iron.call("GET", f"/vms/{hog['id']}")
    assert vm["status_detail"] == "ready" and vm["generation"] == hog["generation"]
    assert iron.sh(hog, "echo alive")["stdout"] == "alive\n" and iron.sh(victim, "echo alive")["stdout"] == "alive\n"


def test_a_disk_is_held_to_its_requests_a_second(iron):
    """The same writes with the limit, and without it after a reload and a new start: the limit is what made the difference."""
    iron.irond("image", "build", "base", timeout=900)
    wait_for("base to be listed", lambda: any(i["name"] == "base" for i in iron.call("GET", "/images")))
    vm = iron.create("disk", image="base", memory_mib=512)
    n = 5 * IOPS

    def writes():
        begin = time.monotonic()
        out = iron.sh(vm, f"dd if=/dev/zero of=/root/x bs=4k count={n} oflag=direct conv=notrunc 2>&1")
        assert out["exit_code"] == 0, out
        return time.monotonic() - begin

    iron.sh(vm, f"dd if=/dev/zero of=/root/x bs=4k count={n} 2>/dev/null; sync")
    held = writes()
    conf = iron.dir / "iron.yaml"
    conf.write_text(conf.read_text().replace(f"disk_iops: {IOPS}", "disk_iops: 0"))
    iron.irond("reload")
    iron.call("POST", f"/vms/{vm['id']}/stop", {})
    wait_for("the VM to stop", lambda: iron.call("GET", f"/vms/{vm['id']}")["status_detail"] == "stopped", 120)
    iron.call("POST", f"/vms/{vm['id']}/start", {})
    iron.wait_ready(vm["id"])
    free = writes()
    print(f"{n} writes of 4 KiB: {held:.1f} s at {IOPS} a second, {free:.1f} s without a limit")
    assert held > 0.9 * n / IOPS
    assert free < held / 2
