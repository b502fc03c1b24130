"""VMs, their connections and their streams outlive irond: killed, stopped and started again, all is adopted"""

import contextlib
import os
import pathlib
import signal

import pytest

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("adopt") as it:
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("lives")


def kill_irond(iron):
    iron.process.send_signal(signal.SIGKILL)
    iron.process.wait(10)


def boot_id(iron, vm):
    out = iron.sh(vm, "cat /proc/sys/kernel/random/boot_id")
    assert out["exit_code"] == 0, out
    return out["stdout"]


def test_killed_and_started_again(iron, vm):
    before = boot_id(iron, vm)
    roles = {r: p for r, p in role_pids(iron).items() if r != "iron-control"}
    kill_irond(iron)
    iron.start_irond()
    assert boot_id(iron, vm) == before
    assert {r: p for r, p in role_pids(iron).items() if r != "iron-control"} == roles


def role_pids(iron):
    """By name and object: "iron-vm vm_…" → pid."""
    found = {}
    for line in iron.irond("status").splitlines():
        words = line.split()
        if words and words[0].startswith("iron-"):
            name = " ".join(w for w in words[:2] if w.startswith(("iron-", "vm_", "ws_")))
            found[name] = int(next(w for w in words[1:] if w.isdigit()))
    return found
