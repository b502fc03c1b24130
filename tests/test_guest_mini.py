"""The agent as init of a real machine (mini), and iron-vm in front of it"""

import hashlib
import os
import time

import pytest

import guest_lab as lab
from guest_lab import BOOTING, LOST, OFF, READY
from guest_machine import Machine, make_mini, output


@pytest.fixture(scope="session")
def mini(tmp_path_factory):
    return make_mini(tmp_path_factory.mktemp("mini"))


@pytest.fixture
def machine(mini, tmp_path):
    m = Machine(mini, tmp_path)
    try:
        m.connect()
        yield m
    finally:
        m.close()


def test_boot_contract_exec_reboot_and_power_off(machine):
    vm = machine.vm
    assert output(vm, "hostname") == "mini-test\n"
    assert output(vm, "cat /etc/machine-id") == lab.MACHINE_ID + "\n"
    assert "10.77.0.2/24" in output(vm, "ip -4 addr show eth0")
    assert "default via 10.77.0.1" in output(vm, "ip route")
    assert output(vm, "cat /etc/resolv.conf") == "nameserver 10.77.0.1\n"
    edge = int(output(vm, "a=$(date +%s); while [ $(date +%s) = $a ]; do :; done; date +%s"))
    assert -0.5 < time.time() - edge < 1, "the clock is off (or this host very slow)"
    assert output(vm, "id -un; echo $GREETING; pwd", user="agent") == "agent\nhello\n/home/agent\n"
    assert "rows 31" in output(vm, "stty size | sed 's/ .*//; s/^/rows /'", tty=True, rows=31, cols=90)
    assert output(vm, "mount | grep -c 'on /dev/pts type devpts'") == "1\n"
    output(vm, "for i in 1 2 3 4 5 6 7 8; do (sleep 0.2 & ) ; done; sleep 1")
    assert output(vm, "ps -o stat,args | grep -c '^Z' || true") == "0\n", "init does not reap"
    before = output(vm, "cat /proc/sys/kernel/random/boot_id")

    vm.run(command="echo b > /proc/sysrq-trigger", seconds=60)
    assert {LOST, BOOTING} <= {s.state for s in vm.wait_state(READY, 120)}
    assert output(vm, "cat /proc/sys/kernel/random/boot_id") != before
    assert output(vm, "hostname") == "mini-test\n"

    assert vm.shutdown(20000) == 0
    assert vm.wait_state(OFF, 30)[-1].reason == "guest-shutdown"
    assert machine.process.wait(10) == 0


def test_another_iron_vm_finds_a_clean_channel(machine):
    """The first one dies in the middle of frames both ways; what it left in the channel reaches nobody."""
    vm = machine.vm
    marker = output(vm, "mktemp").strip()
    stream = vm.open()
    stream.exec(command=f"trap 'echo hup > {marker}; exit' HUP; exec 2>/dev/null; yes stale & cat > /dev/null")
    assert stream.receive()[0] == lab.STARTED
    for _ in range(50):
        stream.send(lab.STDIN, b"stale" * 6000)
        stream.receive()
    vm.process.kill()
    vm.process.wait()
    stream.close()
    machine.vm = None
    machine.connect()
    vm = machine.vm
    for i in range(20):
        assert output(vm, f"echo fresh {i}") == f"fresh {i}\n"
    lab.wait_for("SIGHUP to what the first one ran", lambda: output(vm, f"cat {marker}") == "hup\n", 30)
    assert "yes" not in output(vm, "ps -o args | grep '^yes' || true")


def test_bytes_are_whole_through_virtio(machine):
    end, out, _ = machine.vm.run(command="head -c 30000000 /dev/urandom | tee /tmp/sent", seconds=120)
    assert end[1] == 0 and len(out) == 30000000
    end, _, err = machine.vm.run(command="sha256sum < /tmp/sent >&2", seconds=60)
    assert hashlib.sha256(out).hexdigest() in err.decode()


def test_two_machines_of_one_image_differ(mini, tmp_path):
    seen = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        m = Machine(mini, tmp_path / name)
        try:
            m.connect()
            seen.append(output(m.vm, "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid"))
        finally:
            m.close()
    assert seen[0].splitlines()[0] != seen[1].splitlines()[0] and seen[0].splitlines()[1] != seen[1].splitlines()[1]


def agent_kib(vm):
    return int(output(vm, "grep VmRSS /proc/1/status").split()[1])


def test_files_through_virtio(machine):
    """Whole both ways, and neither iron-vm nor the agent grows by it; as the user agent, who owns what he wrote."""
    vm = machine.vm
    content = os.urandom(1 << 20) * 40
    assert vm.file(lab.F_WRITE, "warm", content[: 4 << 20], user="agent")[0] == ("done",)
    before, agent_before = vm.rss_kib(), agent_kib(vm)
    end, (info,), _, _ = vm.file(lab.F_WRITE, "big", content, user="agent", seconds=120)
    assert end == ("done",) and (info["size"], info["owner"], info["mode"]) == (len(content), b"agent", 0o644)
    assert hashlib.sha256(content).hexdigest() in output(vm, "sha256sum /home/agent/big")
    end, (info,), out, _ = vm.file(lab.F_READ, "/home/agent/big", user="agent", seconds=120)
    assert end == ("done",) and out == content
    assert vm.rss_kib() - before < 8 << 10 and agent_kib(vm) - agent_before < 8 << 10
    assert vm.file(lab.F_WRITE, "/etc/no", b"x", user="agent")[0][1] == "denied"
    assert vm.file(lab.F_READ, "/dev/console")[0][1] == "unsafe"
    assert output(vm, "ls -A /home/agent") == "big\nwarm\n"
    end, _, archive, _ = vm.file(lab.F_PACK, "/home/agent", user="agent", seconds=120)
    assert end == ("done",) and len(archive) > len(content)
    assert vm.file(lab.F_REMOVE, "big", user="agent")[0] == ("done",)
    assert vm.file(lab.F_UNPACK, "copy", archive, user="agent", seconds=120)[0] == ("done",)
    assert hashlib.sha256(content).hexdigest() in output(vm, "sha256sum /home/agent/copy/big")
    names = [r["name"] for r in vm.file(lab.F_LIST, "copy", user="agent")[1]]
    assert names == [b"big", b"warm"]


def test_a_detached_command_outlives_iron_vm(machine):
    vm = machine.vm
    stream = vm.open()
    stream.exec(command="echo $$; while [ ! -e /tmp/go ]; do sleep 0.1; done; echo went", exec_id=9, detach=True)
    assert stream.receive()[0] == lab.STARTED and stream.answers()[0] == ("done",)
    stream.close()
    vm.process.kill()
    vm.process.wait()
    machine.vm = None
    machine.connect()
    vm = machine.vm
    lab.wait_for("what it said", lambda: vm.ask(lab.ATTACH, "stream_attach", exec=9)[2].strip().isdigit())
    assert vm.ask(lab.EXECS)[1][0]["running"]
    output(vm, "touch /tmp/go")
    end, _, out, _ = vm.ask(lab.ATTACH, "stream_attach", exec=9, follow=True, seconds=60)
    assert end == ("exit", 0, 0, 0) and out.endswith(b"went\n")
    output(vm, "echo said so > /dev/console")
    lab.wait_for("the console", lambda: b"said so" in vm.ask(lab.CONSOLE)[2])
