"""A real machine of mini in QEMU as iron runs it, less its walls, disk and door, with iron-vm in front of it."""

import re
import shutil
import socket
import subprocess

import guest_lab as lab
from guest_lab import READY


def make_mini(directory):
    """kernel and initrd, by the recipe itself."""
    shutil.copy(lab.BUILD / "src" / "agent" / "iron-agent", directory)
    subprocess.run(["sh", "-c", 'exec sh "$0" build 3>&2', lab.ROOT / "images" / "mini"], cwd=directory, check=True,
                   capture_output=True, timeout=300)
    return directory / "out"


CPU = "Westmere-v1,+rdrand"  # broker/qemu_command.c


def tsc_khz():
    return int(float(re.search(r"cpu MHz\s*: ([0-9.]+)", open("/proc/cpuinfo").read())[1]) * 1000)


class Machine:
    def __init__(self, mini, directory, append="", memory_mib=256, devices=()):
        self.directory = directory
        kernel_line = ("console=ttyS0 quiet panic=-1 reboot=t net.ifnames=0 no_timer_check tsc=reliable nowatchdog mitigations=off "
                       f"tsc_early_khz={tsc_khz()} {append}")
        command = ["qemu-system-x86_64", "-M", "microvm,accel=tcg,pcie=on,rtc=on", "-cpu", CPU, "-smp", "1",
                   "-m", str(memory_mib),
                   "-nodefaults", "-no-user-config", "-display", "none", "-kernel", mini / "kernel",
                   "-initrd", mini / "initrd", "-append", kernel_line]
        for name in ("qmp", "console", "agent"):
            command += ["-chardev", f"socket,id={name},path={directory}/{name},server=on,wait=off"]
        command += ["-mon", "chardev=qmp,mode=control", "-serial", "chardev:console",
                    "-device", "virtio-serial-pci,id=serial,max_ports=4,addr=3",
                    "-device", "virtserialport,id=iron.0,bus=serial.0,nr=1,chardev=agent,name=iron.0",
                    "-netdev", "hubport,id=net,hubid=0", "-device", "virtio-net-pci,netdev=net,romfile=,addr=5"]
        self.process = subprocess.Popen([*command, *devices], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.vm = None

    def connect(self):
        sockets = {}
        for name in ("qmp", "console", "agent"):
            sockets[name] = socket.socket(socket.AF_UNIX)

            def attempt(s=sockets[name], path=str(self.directory / name)):
                try:
                    s.connect(path)
                    return True
                except OSError:
                    return False

            lab.wait_for(f"QEMU's {name}", attempt)
        self.vm = lab.IronVm(boot_timeout_ms=120000, **sockets)
        assert self.vm.contract(hostname="mini-test", deadline_ms=60000) == 0
        return self.vm.wait_state(READY, 120)

    def close(self):
        if self.vm:
            self.vm.close()
        self.process.kill()
        self.process.wait()


def output(vm, command, **how):
    end, out, err = vm.run(command=command, seconds=60, **how)
    assert end == ("exit", 0, 0, 0), (end, out, err)
    return out.decode()
