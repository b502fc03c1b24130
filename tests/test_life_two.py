"""Two instances on one host: each stops, starts and ends without touching the other; and a power cut"""

import os
import shutil
import signal
import subprocess

import pytest

from harness import Iron, wait_for
from test_life_adopt import alive, boot_id, kill_irond, lasting, left_of, qemu_pid


@pytest.fixture(scope="module")
def first():
    with Iron("first") as it:
        yield it


@pytest.fixture(scope="module")
def second():
    with Iron("second") as it:
        yield it


@pytest.fixture(scope="module")
def vms(first, second):
    return first.create("same-name"), second.create("same-name")


def test_what_is_done_to_one_is_not_done_to_the_other(first, second, vms):
    boots = [boot_id(it, vm) for it, vm in zip((first, second), vms)]
    pids = lasting(second)
    kill_irond(first)
    first.start_irond()
    first.irond("stop")
    first.process.wait(20)
    assert boot_id(second, vms[1]) == boots[1]
    first.start_irond()
    assert boot_id(first, vms[0]) == boots[0]
    assert len(first.call("GET", "/vms")) == len(second.call("GET", "/vms")) == 1

    first.end()
    assert not left_of([first.name, str(first.dir)])
    assert boot_id(second, vms[1]) == boots[1] and lasting(second) == pids
    assert left_of([second.name, str(second.dir)])  # the same look finds what is there
    assert second.sh(vms[1], "curl -s -o /dev/null -w %{http_code} http://denied.example/")["stdout"] == "403"


def test_a_power_cut_leaves_vms_stopped_and_their_files(second, vms):
    """Played: everything is killed at once, and run_dir, a tmpfs, is gone."""
    vm = vms[1]
    pids = [second.process.pid, *lasting(second).values(), qemu_pid(second, vm)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    second.process.wait(10)
    wait_for("their end", lambda: not any(map(alive, pids)))
    for pin in (second.dir / "run/vms").glob("*/net"):
        subprocess.run(["umount", pin], check=True)
    shutil.rmtree(second.dir / "run")
    (second.dir / "run").mkdir(mode=0o755)
    second.start_irond()
    shown = wait_for("the VM's state", lambda: (v := second.call("GET", f"/vms/{vm['id']}"))["status"] != "running" and v)
    assert shown["status"] == "stopped" and (second.dir / "state/vms" / vm["id"] / "vm.json").exists()
    second.call("POST", f"/vms/{vm['id']}/start")
    second.wait_ready(vm["id"])
    assert boot_id(second, vm)
