"""VMs, their connections and their streams outlive irond: killed, stopped and started again, all is adopted"""

import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess

import pytest
import websocket

from harness import BUILD, Iron, wait_for

HOST = "api.example.com"


@pytest.fixture(scope="module")
def iron():
    with Iron("adopt", hosts=(HOST,)) as it:
        it.call("POST", "/egress/rules", {"host": HOST}, status=201)
        yield it
        names = [it.name, str(it.dir)]
        it.end()
        assert not left_of(names), left_of(names)


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("lives")


def left_of(names):
    """What of these names the host still has: groups, namespaces, tables, mounts, processes."""
    found = [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob("*/*") if p.name in names]
    found += [l for l in subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.splitlines()
              if any(n in l for n in names)]
    found += [l for l in open("/proc/mounts").read().splitlines() if any(n in l for n in names) and "/run/netns/" not in l]
    for process in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = process.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if line.startswith("iron-") and any(n in line for n in names):
            found.append(line)
    return found


def kill_irond(iron):
    iron.process.send_signal(signal.SIGKILL)
    iron.process.wait(10)


def boot_id(iron, vm):
    out = iron.sh(vm, "cat /proc/sys/kernel/random/boot_id")
    assert out["exit_code"] == 0, out
    return out["stdout"]


def role_pids(iron):
    """By name and object: "iron-vm vm_…" → pid."""
    found = {}
    for line in iron.irond("status").splitlines():
        words = line.split()
        if words and words[0].startswith("iron-"):
            name = " ".join(w for w in words[:2] if w.startswith(("iron-", "vm_", "ws_")))
            found[name] = int(next(w for w in words[1:] if w.isdigit()))
    return found


def of(pids, role):
    return next(pid for name, pid in pids.items() if name.split()[0] == role)


def lasting(iron):
    return {name: pid for name, pid in role_pids(iron).items() if name != "iron-control"}


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def end_of(pid):
    os.kill(pid, signal.SIGKILL)
    wait_for("its end", lambda: not alive(pid))


def qemu_pid(iron, vm):
    return int(next(l for l in (iron.dir / "run/vms" / vm["id"] / "qemu").read_text().splitlines() if l.startswith("pid ")).split()[1])


def works(iron, vm):
    out = iron.sh(vm, f"curl -sS -m 10 http://{HOST}/")
    return out["exit_code"] == 0 and "hello" in out["stdout"]


def test_killed_and_started_again(iron, vm):
    before, roles = boot_id(iron, vm), lasting(iron)
    kill_irond(iron)
    iron.start_irond()
    assert boot_id(iron, vm) == before
    assert lasting(iron) == roles
    wait_for("the door", lambda: works(iron, vm))


def test_what_it_used_is_still_known(iron, vm):
    """The counters outlive irond: of the group, of QEMU and of the tap."""
    before = iron.call("GET", f"/vms/{vm['id']}/stats")
    assert before["running"] and before["network_sent_bytes"] > 500 and before["network_received_bytes"] > 500
    assert before["cpu_time_ms"] > 100 and before["memory_peak_bytes"] > 30 << 20
    kill_irond(iron)
    iron.start_irond()
    after = iron.call("GET", f"/vms/{vm['id']}/stats")
    for name in ("network_sent_bytes", "network_received_bytes", "cpu_time_ms", "memory_peak_bytes"):
        assert after[name] >= before[name], name
    assert after["generation"] == before["generation"]


def test_stopped_and_started_again(iron, vm):
    before, roles = boot_id(iron, vm), lasting(iron)
    assert "1 VM runs on" in iron.irond("stop")
    assert iron.process.wait(20) == 0
    status = subprocess.run([BUILD / "src/prog/irond", "status", "-c", iron.dir / "iron.yaml"], capture_output=True, text=True)
    assert status.returncode == 3 and "VMs running 1" in status.stdout
    away = iron.api("GET", "/vms")
    assert away.status == 503 and away.headers["Retry-After"]
    iron.start_irond()
    assert boot_id(iron, vm) == before and lasting(iron) == roles
    wait_for("the door", lambda: works(iron, vm))


def stream(iron, vm, argv):
    """An attached execution over the API: its WebSocket."""
    ws = websocket.create_connection(f"wss://127.0.0.1:{iron.port}/v1/vms/{vm['id']}/exec", timeout=60,
                                     header=[f"Authorization: Bearer {iron.key}"],
                                     sslopt={"cert_reqs": ssl.CERT_NONE})
    ws.send(json.dumps({"argv": argv, "user": "root"}))
    return ws


def frames(ws):
    while True:
        opcode, data = ws.recv_data()
        if opcode == websocket.ABNF.OPCODE_BINARY:
            yield data
        elif opcode == websocket.ABNF.OPCODE_CLOSE:
            return
        else:
            yield json.loads(data)


def test_what_is_under_way_goes_on(iron, vm):
    """An exec's stream and a connection through the door, over a kill and over a stop; the record is closed rightly."""
    roles = lasting(iron)
    ws = stream(iron, vm, ["/bin/sh", "-c", "while read l; do echo said $l; done; echo end"])

    def say(text):
        ws.send_binary(b"\0" + (text + "\n").encode())
        got = b""
        for frame in frames(ws):
            if isinstance(frame, bytes):
                got += frame[1:]
            if f"said {text}\n".encode() in got:
                return

    say("one")
    iron.sh(vm, f"mkfifo /tmp/pipe; (cat /tmp/pipe | curl -sS -m 120 -X POST -H Transfer-Encoding: -H 'Content-Length: 1000010' -T - http://{HOST}/echo >/tmp/answer 2>/tmp/error; echo $? >/tmp/status) "
                ">/dev/null 2>&1 & (exec 3>/tmp/pipe; head -c 1000000 /dev/zero >&3; while [ ! -e /tmp/enough ]; do sleep 0.1; done; printf 0123456789 >&3) "
                ">/dev/null 2>&1 &")

    def opened():
        return [e for e in iron.call("GET", f"/audit/egress?vm_id={vm['id']}&limit=100") if e["method"] == "POST"]

    wait_for("the upload's record", opened)
    kill_irond(iron)
    say("two")
    iron.start_irond()
    say("three")
    iron.irond("stop")
    iron.process.wait(20)
    say("four")
    iron.start_irond()
    say("five")
    assert lasting(iron) == roles
    iron.sh(vm, "touch /tmp/enough")
    wait_for("the upload's end", lambda: iron.sh(vm, "cat /tmp/status")["stdout"].strip())
    assert iron.sh(vm, "cat /tmp/status /tmp/error")["stdout"].strip() == "0"
    assert iron.sh(vm, "wc -c </tmp/answer; tail -c 10 /tmp/answer")["stdout"].split() == ["1000010", "0123456789"]
    record = wait_for("its record's end", lambda: next((e for e in opened() if e["bytes_sent"] is not None), None))
    assert record["bytes_sent"] > 1000000 and record["status_code"] == 200 and record["allowed"] and "cut" not in record["reason"] and len(opened()) == 1
    ws.close()


def test_an_egress_worker_that_died_meanwhile_is_replaced(iron, vm):
    before, worker = boot_id(iron, vm), of(role_pids(iron), "iron-egress")
    kill_irond(iron)
    end_of(worker)
    iron.start_irond()
    assert boot_id(iron, vm) == before
    wait_for("the door", lambda: works(iron, vm))
    assert of(role_pids(iron), "iron-egress") != worker


def test_an_iron_vm_that_died_meanwhile_is_replaced(iron, vm):
    before, role = boot_id(iron, vm), of(role_pids(iron), "iron-vm")
    kill_irond(iron)
    end_of(role)
    iron.start_irond()
    iron.wait_ready(vm["id"])
    assert boot_id(iron, vm) == before and of(role_pids(iron), "iron-vm") != role


def test_a_role_of_another_build_is_replaced_and_its_vm_lives(iron, vm):
    before, roles = boot_id(iron, vm), lasting(iron)
    for name in ("iron-vm", "iron-audit"):
        link = iron.libexec / name
        real = link.resolve()
        link.unlink()
        shutil.copy(real, link)
        with open(link, "ab") as f:
            f.write(b"another")
    kill_irond(iron)
    iron.start_irond()
    iron.wait_ready(vm["id"])
    after = lasting(iron)
    changed = {name.split()[0] for name in after if after[name] != roles.get(name)}
    assert changed == {"iron-vm", "iron-audit"} and boot_id(iron, vm) == before
    wait_for("the door", lambda: works(iron, vm))


def test_a_record_that_names_another_process_is_not_believed(iron, vm):
    """Neither a role's nor a QEMU's: the bystander lives, and so does the VM where only a role's record is wrong."""
    before, roles = boot_id(iron, vm), lasting(iron)
    bystander = subprocess.Popen(["sleep", "600"])
    kill_irond(iron)
    record = iron.dir / "run/roles" / ("vm-" + vm["id"])
    lines = record.read_text().splitlines()
    record.write_text("\n".join(f"pid {bystander.pid}" if l.startswith("pid ") else l for l in lines) + "\n")
    (iron.dir / "run/roles/api").write_text("nonsense\n")
    iron.start_irond()
    iron.wait_ready(vm["id"])
    assert boot_id(iron, vm) == before and bystander.poll() is None
    after = lasting(iron)
    assert of(after, "iron-vm") != of(roles, "iron-vm") and of(after, "iron-api") != of(roles, "iron-api")
    assert not alive(of(roles, "iron-vm")) and not alive(of(roles, "iron-api"))
    bystander.kill()
    bystander.wait()


def test_roles_that_hang_are_replaced(iron, vm):
    before, roles = boot_id(iron, vm), lasting(iron)
    kill_irond(iron)
    for name in ("iron-audit", "iron-egress"):
        os.kill(of(roles, name), signal.SIGSTOP)
    iron.start_irond()
    assert boot_id(iron, vm) == before
    wait_for("the door", lambda: works(iron, vm))
    after = lasting(iron)
    assert {name.split()[0] for name in after if after[name] != roles.get(name)} == {"iron-audit", "iron-egress"}


def test_a_qemu_that_was_killed_meanwhile_is_told(iron):
    vm = iron.create("killed")
    iron.sh(vm, "head -c 100000 /dev/urandom | sha256sum")
    pid = qemu_pid(iron, vm)
    kill_irond(iron)
    end_of(pid)
    iron.start_irond()
    shown = wait_for("its end to be told", lambda: (v := iron.call("GET", f"/vms/{vm['id']}"))["status"] != "running" and v)
    assert shown["status"] == "failed" and "ended while irond was away" in shown["status_reason"]
    iron.call("POST", f"/vms/{vm['id']}/start")
    iron.wait_ready(vm["id"])
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)


@pytest.mark.parametrize("when", ["away", "adopted"])
def test_a_guest_that_powered_itself_off_is_stopped(iron, when):
    vm = iron.create("off-" + when)
    pid = qemu_pid(iron, vm)
    if when == "away":
        iron.sh(vm, "(sleep 1; poweroff -f || echo o >/proc/sysrq-trigger) >/dev/null 2>&1 &")
        kill_irond(iron)
        wait_for("its end", lambda: not alive(pid))
        iron.start_irond()
    else:
        kill_irond(iron)
        iron.start_irond()
        iron.sh(vm, "(sleep 1; poweroff -f || echo o >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    shown = wait_for("its end to be told", lambda: (v := iron.call("GET", f"/vms/{vm['id']}"))["status"] != "running" and v)
    assert shown["status"] == "stopped", shown
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)
    wait_for("all of it to go", lambda: not (iron.dir / "run/vms" / vm["id"]).exists())


def test_a_qemu_without_a_record_that_can_be_read_is_ended(iron):
    vm = iron.create("unknown")
    pid = qemu_pid(iron, vm)
    kill_irond(iron)
    (iron.dir / "run/vms" / vm["id"] / "qemu").write_text("pid 1\n")
    iron.start_irond()
    shown = wait_for("its end to be told", lambda: (v := iron.call("GET", f"/vms/{vm['id']}"))["status"] != "running" and v)
    assert shown["status"] == "stopped" and not alive(pid)
    iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)


def test_a_start_that_was_cut_off_is_done(iron):
    """SIGKILL in the middle of creates: each VM is ready, or truthfully failed, and none is lost."""
    made = []
    for i in range(3):
        made.append(iron.call("POST", "/vms", {"name": f"cut-{i}"}, status=201)["id"])
        kill_irond(iron)
        iron.start_irond()
    for vm in made:
        iron.wait_ready(vm)
    for vm in made:
        iron.call("DELETE", f"/vms/{vm}?force=true", status=204)
    wait_for("all of them to go", lambda: not any((iron.dir / "state/vms" / vm).exists() for vm in made))


def test_stop_vms_without_an_irond_ends_what_it_left(iron, vm):
    pids = [*lasting(iron).values(), qemu_pid(iron, vm)]
    kill_irond(iron)
    assert "1 VM that an earlier irond left" in iron.irond("stop", "--vms")
    wait_for("all to end", lambda: not any(map(alive, pids)))
    assert not left_of([iron.name, str(iron.dir)])
    iron.start_irond()
    assert iron.call("GET", f"/vms/{vm['id']}")["status"] == "stopped"
