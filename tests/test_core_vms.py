"""A VM's life in irond: real QEMU, namespaces and cgroups; the roles played by the test"""

import json
import os
import pathlib
import signal
import struct
import subprocess

import pytest

import wire
from core_lab import Lab, alive
from harness import wait_for

VM, EGRESS = 3, 4
WORKSPACE = 77
PREFIX = {"vm": "vm_", "ws": "ws_"}
DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"


def id_text(prefix, n):
    return prefix + "".join(DIGITS[n >> 5 * i & 31] for i in reversed(range(13)))


class Machines:
    def __init__(self, lab):
        self.lab = lab
        self.control = lab.role("iron-control")
        image = self.control.message("msg_image")
        assert image.str("name") == "mini" and len(image.str("hash")) == 64
        self.image = image["id"]

    def dir(self, vm):
        return self.lab.state / "vms" / id_text("vm_", vm)

    def run_dir(self, vm):
        return self.lab.run / "vms" / id_text("vm_", vm)

    def prepare(self, vm, workspace=WORKSPACE, memory_mib=256, code=0):
        got, reason = self.control.result("msg_vm_prepare", vm=vm, workspace=workspace, image=self.image, vcpus=1,
                                          memory_mib=memory_mib, disk_gib=4)
        assert got == code, reason

    def start(self, vm, generation=1):
        code, reason = self.control.result("msg_vm_start", vm=vm, generation=generation)
        assert code == 0, reason

    def kill(self, vm):
        assert self.control.result("msg_vm_kill", vm=vm)[0] == 0

    def remove(self, vm):
        assert self.control.result("msg_vm_remove", vm=vm)[0] == 0

    def group(self, vm, controller="memory", kind="qemu"):
        for base in (pathlib.Path("/sys/fs/cgroup") / controller, pathlib.Path("/sys/fs/cgroup")):
            path = base / self.lab.name / self.lab.name / f"{kind}-{id_text('vm_', vm)}"
            if path.is_dir():
                return path
        return None

    def qemu(self, vm):
        """Pids in the VM's group, the first being QEMU."""
        return [int(p) for p in (self.group(vm) / "cgroup.procs").read_text().split()]

    def nothing_runs(self, vm):
        assert self.group(vm) is None and self.group(vm, kind="role") is None
        assert not self.run_dir(vm).exists()
        assert str(self.run_dir(vm)) not in open("/proc/mounts").read()


@pytest.fixture(scope="module")
def lab():
    with Lab("vms", net=62) as it:
        it.add_mini()
        it.start()
        it.keep_accel()
        yield it


@pytest.fixture(scope="module")
def machines(lab):
    return Machines(lab)


@pytest.fixture
def one(machines, request):
    """A VM that runs. Its number is the test's own."""
    vm = 1000 + abs(hash(request.node.name)) % 10**6
    machines.prepare(vm)
    machines.start(vm)
    yield vm
    machines.kill(vm)
    machines.remove(vm)


def status(pid, field):
    return next(l for l in open(f"/proc/{pid}/status") if l.startswith(field + ":")).split()[1:]


def test_prepare_makes_the_record_and_remove_takes_everything(machines):
    machines.prepare(5)
    record = json.loads((machines.dir(5) / "vm.json").read_text())
    assert record["vm"] == id_text("vm_", 5) and record["workspace"] == id_text("ws_", WORKSPACE)
    assert machines.dir(5).stat().st_mode & 0o777 == 0o700 and machines.dir(5).stat().st_uid == 0
    machines.prepare(5, code=-17)
    rows = [r for r in machines.control.call("msg_vms_get") if r.name == "msg_vm_row"]
    assert [(r["running"], r["exited"]) for r in rows if r["vm"] == 5] == [(0, 0)]
    machines.remove(5)
    assert not machines.dir(5).exists()
    machines.remove(5)


@pytest.mark.parametrize("change, code", [({"image": 99}, -2), ({"vcpus": 0}, -22), ({"memory_mib": 255}, -22),
                                          ({"disk_gib": 0}, -22), ({"workspace": 0}, -22), ({"vm": 0}, -22)])
def test_a_prepare_out_of_bounds_leaves_nothing(machines, change, code):
    fields = dict(vm=6, workspace=WORKSPACE, image=machines.image, vcpus=1, memory_mib=256, disk_gib=4) | change
    assert machines.control.result("msg_vm_prepare", **fields)[0] == code
    assert not machines.dir(6).exists() and not machines.dir(0).exists()


def test_a_start_makes_all_and_tells_all(lab, machines, one):
    egress, vm = lab.role("iron-egress", WORKSPACE), lab.role("iron-vm", one)
    assert egress.message("msg_egress_config")["workspace"] == WORKSPACE
    attach = egress.wait(lambda l: l.name == "msg_vm_attach" and l["vm"] == one)
    assert attach["fds"] == 4 and attach["generation"] == 1
    assert vm.message("msg_vm_config")["fds"] == 3
    # iron-control had both channels before it had its answer
    control = machines.control
    answer = max(i for i, l in enumerate(control.lines) if l.kind == "answer" and l.name == "msg_result")
    before = [(l["role"], l["id"]) for l in control.lines[:answer] if l.name == "msg_peer"]
    assert (VM, one) in before and (EGRESS, WORKSPACE) in before


def test_qemu_and_its_iron_vm_are_apart_in_uid_group_and_limits(lab, machines, one):
    slot = json.loads((machines.dir(one) / "vm.json").read_text())["slot"]
    qemu, vm, worker = machines.qemu(one)[0], lab.role("iron-vm", one).pid, lab.role("iron-egress", WORKSPACE).pid
    assert status(qemu, "Uid") == [str(lab.uid_base + 4096 + 2 * slot + 1)] * 4
    assert status(qemu, "Groups") == [] and status(qemu, "NoNewPrivs") == ["1"] and status(qemu, "CapEff") == ["0" * 16]
    assert str(vm) in (machines.group(one, kind="role") / "cgroup.procs").read_text().split()
    assert str(worker) not in (machines.group(one) / "cgroup.procs").read_text().split()
    if (limit := machines.group(one) / "memory.limit_in_bytes").exists():
        assert int(limit.read_text()) == (256 + 64 + 96) << 20
        assert (machines.group(one, "cpu") / "cpu.cfs_quota_us").read_text() == "100000\n"
    else:
        assert int((machines.group(one) / "memory.max").read_text()) == (256 + 64 + 96) << 20
        assert (machines.group(one) / "cpu.max").read_text() == "100000 100000\n"
    assert int((machines.group(one, "pids") / "pids.max").read_text()) == 128


def test_a_stream_reaches_iron_api_before_the_answer(lab, machines, one):
    api = lab.role("iron-api")
    assert machines.control.result("msg_vm_stream", vm=one, token=4242)[0] == 0
    stream = api.wait(lambda l: l.name == "msg_stream" and l["token"] == 4242)
    assert stream["fds"] == 1


def test_iron_vm_dies_and_the_machine_does_not(lab, machines, one):
    qemu, control = machines.qemu(one)[0], machines.control
    before = len(control.lines)
    os.kill(lab.role("iron-vm", one).pid, signal.SIGKILL)
    again = lab.role("iron-vm", one, nth=1)
    assert again.message("msg_vm_config")["fds"] == 3
    control.wait(lambda l: l.name == "msg_peer" and (l["role"], l["id"]) == (VM, one), after=before)
    assert alive(qemu) and machines.control.result("msg_vm_stream", vm=one, token=1)[0] == 0


def test_the_worker_dies_and_the_door_is_attached_to_the_next(lab, machines, one):
    qemu, control = machines.qemu(one)[0], machines.control
    nth = sum(r.name == "iron-egress" and r.id == WORKSPACE for r in lab.roles)
    before = len(control.lines)
    os.kill(lab.role("iron-egress", WORKSPACE, nth=nth - 1).pid, signal.SIGKILL)
    again = lab.role("iron-egress", WORKSPACE, nth=nth)
    assert again.wait(lambda l: l.name == "msg_vm_attach" and l["vm"] == one)["fds"] == 4
    control.wait(lambda l: l.name == "msg_peer" and (l["role"], l["id"]) == (EGRESS, WORKSPACE), after=before)
    assert alive(qemu)
    # and on request, for one that does not acknowledge a policy
    assert control.result("msg_egress_restart", workspace=WORKSPACE)[0] == 0
    assert not alive(again.pid)
    lab.role("iron-egress", WORKSPACE, nth=nth + 1).wait(lambda l: l.name == "msg_vm_attach" and l["vm"] == one)


def test_what_a_run_uses_is_told_while_it_runs_and_with_its_end(machines):
    usage_of = lambda line: dict(zip([n for n, _ in wire.RECORDS["rec_vm_usage"]], struct.unpack("<10Q", bytes.fromhex(line.fields["usage"]))))
    machines.prepare(19)
    machines.start(19, generation=3)
    stats = lambda: machines.control.call("msg_vm_stats_get", vm=19)[-1]
    told = wait_for("the guest to run", lambda: (s := stats())["memory_bytes"] > 10 << 20 and s)
    assert told.name == "msg_vm_stats" and told["running"] == 1 and told["generation"] == 3
    assert told["cpu_us"] > 10_000 and told["memory_limit_bytes"] == (256 + 64 + 96) << 20
    assert told["memory_peak_bytes"] >= told["memory_bytes"]
    row = next(r for r in machines.control.call("msg_vms_get") if r.name == "msg_vm_row" and r["vm"] == 19)
    assert usage_of(row)["cpu_us"] >= told["cpu_us"]
    machines.kill(19)
    ended = usage_of(machines.control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 19))
    assert ended["cpu_us"] >= told["cpu_us"] and ended["memory_peak_bytes"] >= told["memory_peak_bytes"]
    after = stats()
    assert after["running"] == 0 and after["cpu_us"] == 0
    machines.remove(19)
    assert machines.control.result("msg_vm_stats_get", vm=19)[0] == -2


def test_qemu_dies_and_all_of_it_goes(lab, machines):
    machines.prepare(20)
    machines.start(20, generation=9)
    egress = [r for r in lab.roles if r.name == "iron-egress"][-1]
    os.kill(machines.qemu(20)[0], signal.SIGKILL)
    ended = machines.control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 20)
    assert ended["generation"] == 9 and "killed by signal 9" in ended.str("reason") and ended["status"] == 9
    egress.wait(lambda l: l.name == "msg_vm_detach" and l["vm"] == 20)
    machines.nothing_runs(20)
    assert not alive(lab.role("iron-vm", 20).pid)
    row = next(r for r in machines.control.call("msg_vms_get") if r.name == "msg_vm_row" and r["vm"] == 20)
    assert row["exited"] == 1 and row["running"] == 0 and "signal 9" in row.str("reason")
    machines.start(20, generation=10)  # and again
    assert machines.control.result("msg_vm_start", vm=20, generation=11)[0] == -114
    assert machines.control.result("msg_vm_remove", vm=20)[0] == -16
    machines.kill(20)
    ended = machines.control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 20 and l["generation"] == 10)
    assert ended.str("reason") == "killed"
    machines.nothing_runs(20)
    machines.remove(20)


def test_running_out_of_memory_is_told(machines):
    machines.prepare(21)
    machines.start(21)
    group = machines.group(21)
    v1 = (group / "memory.limit_in_bytes").exists()
    wait_for("the guest to use some memory", lambda: int((group / ("memory.usage_in_bytes" if v1 else "memory.current")).read_text()) > 90 << 20)
    used = int((group / ("memory.usage_in_bytes" if v1 else "memory.current")).read_text())
    (group / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(used + (8 << 20)))
    hog = subprocess.Popen(["/usr/bin/python3", "-c", "import sys; sys.stdin.read(1); b = bytearray(48 << 20); sys.stdin.read()"],
                           stdin=subprocess.PIPE)
    (group / "cgroup.procs").write_text(str(hog.pid))
    hog.stdin.write(b"x")
    hog.stdin.flush()
    try:
        ended = machines.control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 21, 20)
        assert ended.str("reason").startswith("out of memory")
    finally:
        hog.kill()
        hog.wait()
    machines.nothing_runs(21)
    machines.remove(21)


def test_a_worker_that_refuses_undoes_the_start(lab, machines):
    workspace = WORKSPACE  # whose worker is there, or comes
    machines.prepare(22)
    egress = wait_for("a worker", lambda: [r for r in lab.roles if r.name == "iron-egress" and r.id == workspace and alive(r.pid)])[-1]
    egress.say("refuse")
    code, reason = machines.control.result("msg_vm_start", vm=22, generation=1)
    assert code < 0 and "told to refuse" in reason
    machines.nothing_runs(22)
    os.kill(egress.pid, signal.SIGKILL)  # the next one does not refuse
    wait_for("the next worker", lambda: [r for r in lab.roles if r.name == "iron-egress" and r.pid != egress.pid and alive(r.pid)])
    machines.start(22, 2)
    machines.kill(22)
    machines.remove(22)


def test_iron_control_dies_in_the_middle_of_a_start(lab, machines):
    machines.prepare(28)
    old = machines.control
    old.say("call msg_vm_start vm=28 generation=5")
    wait_for("the start to have begun", lambda: machines.group(28))
    os.kill(old.pid, signal.SIGKILL)
    nth = sum(r.name == "iron-control" for r in lab.roles)
    machines.control = control = lab.role("iron-control", nth=nth)
    control.message("msg_images_end")
    control.wait(lambda l: l.name == "msg_peer" and (l["role"], l["id"]) == (VM, 28))
    row = wait_for("it to run", lambda: next((r for r in control.call("msg_vms_get") if r.name == "msg_vm_row" and r["vm"] == 28 and r["running"]), None))
    assert row["generation"] == 5
    assert not any(l.kind == "answer" and l.name == "msg_result" and l["code"] for l in control.lines), "no answer of the old one's"
    machines.kill(28)
    machines.remove(28)


def test_a_kill_in_the_middle_of_a_start(machines):
    machines.prepare(23)
    control, after = machines.control, len(machines.control.lines)
    control.say("call msg_vm_start vm=23 generation=1")
    control.say("call msg_vm_kill vm=23")
    control.drain(2, after)
    assert sorted(l["code"] for l in control.lines[after:] if l.name == "msg_result") == [-125, 0]
    machines.nothing_runs(23)
    machines.remove(23)


def test_an_image_that_is_gone_fails_the_start(lab, machines):
    machines.prepare(24)
    images = lab.state / "images"
    images.rename(lab.state / "images.away")
    try:
        code, reason = machines.control.result("msg_vm_start", vm=24, generation=1)
    finally:
        (lab.state / "images.away").rename(images)
    assert code == -2, reason
    machines.nothing_runs(24)
    machines.remove(24)


@pytest.fixture
def broken(lab, request):
    """A role's program that ends at once."""
    program = lab.libexec / request.param
    target = os.readlink(program)
    program.unlink()
    program.symlink_to("/bin/false")
    yield request.param
    program.unlink()
    program.symlink_to(target)


@pytest.mark.parametrize("broken", ["iron-vm", "iron-egress"], indirect=True)
def test_a_role_that_does_not_start_undoes_the_vms_start(lab, machines, broken):
    for egress in [r for r in lab.roles if r.name == "iron-egress" and alive(r.pid)]:
        if broken == "iron-egress":
            os.kill(egress.pid, signal.SIGKILL)
    machines.prepare(26)
    code, reason = machines.control.result("msg_vm_start", vm=26, generation=1)
    assert code < 0 and "exited with status 1" in reason, reason
    assert broken == "iron-vm" or "iron-egress did not start" in reason
    machines.nothing_runs(26)
    machines.remove(26)


def test_two_workspaces_without_kvm_need_the_operators_word(lab, machines, one):
    host = machines.control.call("msg_host_get")[-1]
    machines.prepare(25, workspace=WORKSPACE + 1)
    code, reason = machines.control.result("msg_vm_start", vm=25, generation=1)
    if host.str("accelerator") == "tcg":
        assert code == -1 and "allow_tcg_multi_tenant" in reason
    else:
        assert code == 0
        machines.kill(25)
    machines.remove(25)


def test_stop_vms_asks_the_guest_first_and_the_next_irond_knows_its_vms(lab, machines):
    machines.prepare(30)
    machines.start(30)
    vm, qemu = lab.role("iron-vm", 30), machines.qemu(30)[0]
    slot = json.loads((machines.dir(30) / "vm.json").read_text())["slot"]
    stopped = lab.irond("stop", "--vms")
    assert "stopping 1 VM" in stopped.stdout
    assert lab.process.wait(10) == 0
    assert any(l.name == "msg_vm_shutdown" for l in vm.lines)  # the stand-in let the deadline pass
    ended = machines.control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 30)
    assert ended.str("reason") == "killed" and not alive(qemu)
    machines.nothing_runs(30)
    assert not lab.cgroups()
    assert lab.name not in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout

    lab.process = None
    count = sum(r.name == "iron-control" for r in lab.roles)
    lab.start(wait=False)
    control = lab.role("iron-control", nth=count)
    machines.control = control
    control.message("msg_images_end")
    rows = {r["vm"]: r for r in control.call("msg_vms_get") if r.name == "msg_vm_row"}
    assert rows[30]["running"] == 0 and rows[30]["exited"] == 0
    machines.prepare(31)  # another uid: 30's directory holds its own
    assert json.loads((machines.dir(31) / "vm.json").read_text())["slot"] != slot
    machines.start(30, 2)

    # what an interrupted prepare and an interrupted remove leave
    half, empty = machines.dir(32), machines.dir(33)
    half.mkdir(mode=0o700)
    empty.mkdir(mode=0o700)
    record = json.loads((machines.dir(30) / "vm.json").read_text())
    (half / "vm.json").write_text(json.dumps(record | {"vm": id_text("vm_", 32), "slot": 4000, "prepared": False}))
    (half / "overlay.qcow2").write_bytes(b"half")

    # a killed irond: its successor takes up what runs, and clears away what was half-way
    qemu, worker = machines.qemu(30)[0], [r for r in lab.roles if r.name == "iron-egress"][-1]
    stray = subprocess.Popen(["sleep", "300"])
    (machines.group(30).parent / "qemu-stray").mkdir()
    (machines.group(30).parent / "qemu-stray" / "cgroup.procs").write_text(str(stray.pid))
    attached = len(worker.lines)
    lab.process.kill()
    lab.process.wait()
    assert "VMs running 1" in lab.irond("status", ok=False).stdout
    lab.start(wait=False)
    machines.control = control = lab.role("iron-control", nth=count + 1)
    control.message("msg_images_end")
    assert alive(qemu) and not half.exists() and not empty.exists()
    assert stray.wait(10) == -signal.SIGKILL and not (machines.group(30).parent / "qemu-stray").exists()
    rows = {r["vm"]: r for r in control.call("msg_vms_get") if r.name == "msg_vm_row"}
    assert rows[30]["running"] == 1 and rows[30]["generation"] == 2
    control.wait(lambda l: l.name == "msg_peer" and (l["role"], l["id"]) == (VM, 30))
    # the stand-in did not keep its door: it is opened again through the namespace
    assert worker.wait(lambda l: l.name == "msg_vm_attach" and l["vm"] == 30, after=attached)["fds"] == 4
    os.kill(qemu, signal.SIGKILL)
    ended = control.wait(lambda l: l.name == "msg_vm_exited" and l["vm"] == 30)
    assert ended["generation"] == 2 and ended["status"] != 0
    machines.nothing_runs(30)
    machines.prepare(32)
    machines.remove(32)
    machines.start(30, 3)
    machines.kill(30)
    machines.remove(30)
    machines.remove(31)
