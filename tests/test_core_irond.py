"""irond by itself: roles, requests, control socket, what it leaves"""

import contextlib
import fcntl
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess

import pytest

from core_lab import IROND, Lab, alive, cmdline
from harness import wait_for


@pytest.fixture
def lab():
    with Lab() as it:
        yield it


def role_rows(control):
    return {r.str("name"): r.str("state") for r in control.call("msg_roles_get") if r.name == "msg_role_row"}


def open_files(pid):
    with contextlib.suppress(OSError):
        return [os.readlink(f) for f in pathlib.Path(f"/proc/{pid}/fd").iterdir()]
    return []


def peers(role):
    return [l["role"] for l in role.lines if l.kind == "msg" and l.name == "msg_peer"]


API, CONTROL, VM, EGRESS, AUDIT = 1, 2, 3, 4, 6


def test_roles_are_started_configured_and_connected(lab):
    lab.start()
    api, control, audit = lab.role("iron-api"), lab.role("iron-control"), lab.role("iron-audit")
    config = api.message("msg_api_config")
    assert config["listeners"] == 1 and config["fds"] == 3
    assert control.message("msg_control_config").str("state_dir") == str(lab.state)
    assert audit.message("msg_audit_config")["fds"] == 1
    control.wait(lambda l: sorted(peers(control)) == [API, AUDIT])
    wait_for("api's and audit's channels", lambda: peers(api) == [CONTROL] and peers(audit) == [CONTROL])
    control.message("msg_images_end")


def test_a_role_has_nothing_but_its_channel(lab):
    """Descriptors, environment, session: looked at from outside."""
    lab.start()
    pid = lab.role("iron-control").pid
    environment = open(f"/proc/{pid}/environ", "rb").read().split(b"\0")
    assert {e.split(b"=")[0] for e in environment if e} <= {b"PATH", b"LANG", b"ASAN_OPTIONS"}
    assert os.getsid(pid) == pid
    links = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert links["0"] == "/dev/null" and links["3"].startswith("socket:")
    # the stand-in's own: the driver's socket twice, its event loop; and the peers that irond handed over
    assert not [l for l in links.values() if "irond.pid" in l or "irond.sock" in l or "iron.yaml" in l], links


def test_a_dead_role_comes_back_and_its_partners_get_new_channels(lab):
    lab.start()
    control, audit = lab.role("iron-control"), lab.role("iron-audit")
    wait_for("channel", lambda: AUDIT in peers(control))
    before = len(control.lines)
    os.kill(audit.pid, signal.SIGKILL)
    again = lab.role("iron-audit", nth=1)
    again.message("msg_audit_config")
    control.wait(lambda l: l.name == "msg_peer" and l["role"] == AUDIT, after=before)
    rows = [l for l in control.call("msg_roles_get") if l.name == "msg_role_row"]
    assert {r.str("name"): (r.str("state"), r["restarts"]) for r in rows} == {
        "iron-api": ("ok", 0), "iron-control": ("ok", 0), "iron-audit": ("ok", 1)}


def test_a_role_that_breaks_the_protocol_is_killed(lab):
    lab.start()
    api = lab.role("iron-api")
    api.say("call msg_vm_kill vm=7")  # iron-api may ask nothing
    wait_for("its death", lambda: not alive(api.pid))
    lab.role("iron-api", nth=1)
    assert "message not allowed here" in lab.log()


def test_a_role_that_does_not_answer_is_shown(lab):
    lab.start()
    lab.role("iron-audit").say("silent")
    assert role_rows(lab.role("iron-control"))["iron-audit"] == "silent"
    out = lab.irond("status").stdout
    assert "iron-audit" in out and "silent" in out and f"pid {lab.process.pid}" in out


@pytest.mark.parametrize("request_, fields, code", [
    ("msg_vm_prepare", dict(vm=5, workspace=1, image=99, vcpus=1, memory_mib=256, disk_gib=4), -2),
    ("msg_vm_start", dict(vm=5, generation=1), -2),
    ("msg_vm_kill", dict(vm=5), 0),
    ("msg_vm_remove", dict(vm=5), 0),
    ("msg_vm_stream", dict(vm=5, token=1), -2),
    ("msg_segment_open", dict(number=7), -2),
    ("msg_egress_restart", dict(workspace=9), 0),
])
def test_requests_about_what_irond_does_not_know(lab, request_, fields, code):
    lab.start()
    assert lab.role("iron-control").result(request_, **fields)[0] == code


def test_requests_of_a_taken_iron_control(lab):
    """Anything within the records' bounds: irond refuses what it does not know, and neither dies nor makes a thing."""
    lab.start()
    control, draw = lab.role("iron-control"), random.Random(7)
    edges = [0, 1, 2, 31, 32, 255, 256, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
    fields = {"msg_vm_prepare": {"vm": None, "workspace": None, "image": None, "vcpus": 32, "memory_mib": 262144, "disk_gib": 2048},
              "msg_vm_start": {"vm": None, "generation": None}, "msg_vm_kill": {"vm": None}, "msg_vm_remove": {"vm": None},
              "msg_vm_stream": {"vm": None, "token": None}, "msg_segment_open": {"number": None}, "msg_host_get": {},
              "msg_egress_restart": {"workspace": None}, "msg_vms_get": {}, "msg_roles_get": {}}
    after = len(control.lines)
    for _ in range(600):
        name = draw.choice(list(fields))
        values = {f: min(draw.choice(edges), most if most is not None else 2**64) for f, most in fields[name].items()}
        control.say(" ".join(["call", name, *(f"{f}={v}" for f, v in values.items())]))
    control.drain(600, after)
    assert alive(control.pid) and role_rows(control) == {"iron-api": "ok", "iron-audit": "ok", "iron-control": "ok"}
    assert list((lab.state / "vms").iterdir()) == [] and lab.cgroups(roles=False) == []


def test_a_segment_is_handed_out_read_only_by_number(lab):
    lab.start()
    (lab.state / "audit" / "00000000000000000007.seg").write_bytes(b"x")
    answer = lab.role("iron-control").call("msg_segment_open", number=7)[-1]
    assert answer.name == "msg_segment" and answer["number"] == 7 and answer["fds"] == 1
    os.symlink("/etc/shadow", lab.state / "audit" / "00000000000000000008.seg")
    assert lab.role("iron-control").result("msg_segment_open", number=8)[0] == -40  # ELOOP


def test_the_host_is_described(lab):
    lab.start()
    host = lab.role("iron-control").call("msg_host_get")[-1]
    assert host.name == "msg_host" and host["cpus"] >= 1 and host["memory_total_mib"] > 100
    with open("/proc/loadavg") as file:
        load = float(file.read().split()[0]) * 100
    assert abs(host["load_1m_percent"] - load) <= 100  # the kernel reckons it anew every five seconds
    assert host.str("sandbox").startswith("full") and host.str("isolation") in ("process", "hardware")
    assert host.str("cgroup") in ("v1", "v2") and host.str("kernel").startswith("Linux")


def test_degraded_is_passed_on(lab):
    lab.write_configuration(sandbox="degraded")
    lab.start()
    assert "--degraded" in cmdline(lab.role("iron-control").pid)


def test_the_lock_of_one_that_was_killed_is_waited_for(lab):
    """What it forked a moment before holds it still."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    lab.run.mkdir(exist_ok=True)
    with open(lab.run / "irond.pid", "w+") as held:
        held.write(f"{dead.pid}\n")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        lab.start(wait=False)
        wait_for("irond to try", lambda: str(lab.run / "irond.pid") in open_files(lab.process.pid))
    wait_for("irond", lambda: 'msg="ready"' in lab.log())


def test_one_irond_a_run_dir(lab):
    lab.start()
    second = lab.irond("--foreground", ok=False)
    assert second.returncode == 1 and f"irond runs already (pid {lab.process.pid})" in second.stderr
    assert lab.irond("status").returncode == 0
    assert alive(lab.role("iron-audit").pid)


def test_start_stop_status_in_the_background(lab):
    assert lab.irond("status", ok=False).returncode == 3
    started = lab.irond("start")
    assert "iron-control answers" in started.stdout and started.stdout.endswith("iron is up\n")
    pids = [lab.role(n).pid for n in ("iron-api", "iron-control", "iron-audit")]
    pid = int((lab.run / "irond.pid").read_text())
    assert os.getsid(pid) != os.getsid(0) and os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"
    assert "irond" in lab.irond("status").stdout
    assert 'msg="ready"' in (lab.state / "log" / "irond.log").read_text()
    lab.irond("stop")
    assert not alive(pid) and not any(map(alive, pids))
    assert not (lab.run / "irond.sock").exists()
    assert not list(pathlib.Path("/sys/fs/cgroup").glob(f"*/{lab.name}"))
    assert lab.irond("stop").stdout == "irond does not run\n"


@pytest.mark.parametrize("break_, words", [
    (lambda lab: (lab.libexec / "iron-control").unlink(), "is iron installed completely?"),
    (lambda lab: ((lab.libexec / "iron-audit").unlink(), (lab.libexec / "iron-audit").symlink_to("/bin/false")),
     "iron-audit did not start: exited with status 1"),
    (lambda lab: (lab.dir / "tls" / "key.pem").unlink(), "tls.key_file"),
    (lambda lab: lab.write_configuration(uid_base=100), "uid_base"),
])
def test_a_start_that_fails_says_what_to_do_and_leaves_nothing(lab, break_, words):
    break_(lab)
    failed = lab.irond("start", ok=False)
    assert failed.returncode == 1 and words in failed.stderr, failed
    assert not lab.cgroups() and not (lab.run / "irond.sock").exists()
    assert not any(alive(r.pid) for r in lab.roles)
    out = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    assert lab.name not in out


def test_a_uid_base_that_is_taken_is_refused_by_name(lab):
    lab.write_configuration(uid_base=1900000)  # the builder's subordinate ids
    subuid = open("/etc/subuid").read() if os.path.exists("/etc/subuid") else ""
    if "1900000" not in subuid:
        with open("/etc/subuid", "a") as f:
            f.write("iron-work:1900000:65536\n")
    try:
        failed = lab.irond("start", ok=False)
    finally:
        if "1900000" not in subuid:
            open("/etc/subuid", "w").write(subuid)
    assert failed.returncode == 1 and "/etc/subuid:" in failed.stderr and "iron-work" in failed.stderr


def test_words_that_are_not_understood_are_refused(lab):
    for words in (["start", "now"], ["nonsense"], ["--foreground", "start"], ["image", "make", "x"], ["key", "create"], ["--nonsense"]):
        done = lab.irond(*words, ok=False)
        assert done.returncode == 2 and "irond start" in done.stderr, words
    # a copy: the checkout may lie where that user may not look
    copy = shutil.copy(IROND, lab.dir / "irond")
    done = subprocess.run([copy, "status"], capture_output=True, text=True, user=65534, group=65534, cwd="/")
    assert done.returncode == 1 and "must be run as root" in done.stderr


def test_the_control_socket_is_roots(lab):
    lab.start()
    assert (lab.run / "irond.sock").stat().st_mode & 0o777 == 0o600
    denied = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "/usr/bin/python3", "-c",
                             f"import socket; socket.socket(socket.AF_UNIX).connect('{lab.run}/irond.sock')"],
                            capture_output=True, text=True)
    assert "PermissionError" in denied.stderr


def test_nonsense_on_the_control_socket(lab):
    lab.start()
    for line in (b"\n", b"nonsense\n", b"key\n", b"\t\t\t\t\t\t\t\n", b"x" * 5000 + b"\n", b"status"):
        answer = b""
        with socket.socket(socket.AF_UNIX) as s, contextlib.suppress(ConnectionResetError, BrokenPipeError):
            s.connect(str(lab.run / "irond.sock"))
            s.sendall(line)
            s.shutdown(socket.SHUT_WR)
            answer = s.makefile("rb").read()
            assert answer == b"" or answer.startswith(b"fail "), (line, answer)
    assert lab.irond("status").returncode == 0


def test_a_key_is_made_by_iron_control(lab):
    lab.start()
    control = lab.role("iron-control")
    lab.irond("key", "create", "first", "--scopes", "vm:read,admin")
    asked = control.message("msg_root_key_create")
    assert asked.str("name") == "first" and asked["scopes"] == (1 | 1 << 9) and asked["expires_at"] == 0
    control.say("refuse")
    failed = lab.irond("key", "create", "second", ok=False)
    assert failed.returncode == 1 and "told to refuse" in failed.stderr
    assert lab.irond("key", "create", "x", "--scopes", "all", ok=False).returncode == 2


def test_reload_restarts_only_what_changed(lab):
    lab.start()
    api, control, audit = lab.role("iron-api"), lab.role("iron-control"), lab.role("iron-audit")
    lab.irond("reload")
    assert all(alive(r.pid) for r in (api, control, audit))
    control.wait(lambda l: sum(x.name == "msg_images_end" for x in control.lines) == 2)
    lab.write_configuration(shapes="[{name: one, vcpus: 1, memory_mib: 300}]")
    lab.irond("reload")
    again = lab.role("iron-control", nth=1)
    assert "6f6e65" in again.message("msg_control_config").fields["shapes"]
    assert alive(api.pid) and alive(audit.pid) and not alive(control.pid)
    (lab.dir / "tls" / "cert.pem").write_text("renewed\n")
    lab.irond("reload")
    api.message("msg_api_tls")
    assert alive(api.pid) and alive(again.pid)


def test_reload_refuses_what_it_cannot_change(lab):
    lab.start()
    lab.write_configuration(uid_base=lab.uid_base + 40000)
    failed = lab.irond("reload", ok=False)
    assert failed.returncode == 1 and "uid_base can be changed by irond stop and start only" in failed.stderr
    lab.conf.write_text("nonsense: 1\n" + lab.conf.read_text())
    failed = lab.irond("reload", ok=False)
    assert failed.returncode == 1 and "nonsense" in failed.stderr
    assert alive(lab.role("iron-control").pid)


def test_a_killed_irond_leaves_nothing_that_the_next_does_not_clean(lab):
    lab.start()
    lab.process.kill()
    lab.process.wait()
    wait_for("iron-control to end with irond", lambda: not alive(lab.role("iron-control").pid))
    left = [lab.role(name).pid for name in ("iron-api", "iron-audit")]
    assert all(map(alive, left))
    junk = lab.run / "vms" / "vm_0c3n9m5k2r7tq"
    junk.mkdir(parents=True)
    (junk / "net").touch()
    subprocess.run(["mount", "--bind", "/proc/self/ns/net", junk / "net"], check=True)
    groups = [g for g in os.listdir("/sys/fs/cgroup") if os.path.isdir(f"/sys/fs/cgroup/{g}/{lab.name}/{lab.name}")]
    sleeper = subprocess.Popen(["sleep", "1000"])
    for g in groups:
        os.mkdir(f"/sys/fs/cgroup/{g}/{lab.name}/{lab.name}/qemu-left")
        open(f"/sys/fs/cgroup/{g}/{lab.name}/{lab.name}/qemu-left/cgroup.procs", "w").write(str(sleeper.pid))
    assert groups
    lab.start(wait=False)
    assert sleeper.wait(10) == -signal.SIGKILL
    lab.role("iron-control", nth=1).message("msg_images_end")
    assert not junk.exists() and not lab.cgroups(roles=False)
    assert str(junk) not in open("/proc/mounts").read()
    assert "ended what an earlier irond left running" in lab.log()
    assert all(map(alive, left)) and sum(r.name == "iron-api" for r in lab.roles) == 1


def test_irond_reaps_what_its_children_leave(lab):
    """An orphan of a role's is irond's child (subreaper) and does not stay a zombie."""
    lab.start()
    (lab.libexec / "iron-audit").unlink()
    (lab.libexec / "iron-audit").write_text(f"#!/bin/sh\n(sleep 0.3 & echo $! >{lab.dir}/orphan)\nexec {lab.libexec}/iron-real \"$@\"\n")
    (lab.libexec / "iron-audit").chmod(0o755)
    (lab.libexec / "iron-real").symlink_to(os.readlink(lab.libexec / "iron-api"))
    os.kill(lab.role("iron-audit").pid, signal.SIGKILL)
    pid = int(wait_for("orphan", lambda: (lab.dir / "orphan").exists() and (lab.dir / "orphan").read_text().strip()))
    wait_for("its end", lambda: not os.path.exists(f"/proc/{pid}"), 5)
