"""quickstart on a fresh Debian 12: twice, the story as an ordinary user, and removed without a trace"""

import contextlib
import os
import pathlib
import re
import subprocess

import pytest

from fresh import Fresh
from harness import ROOT, free_port

NAME = "it-qs"
UIDS = range(3900000, 3940000)


@pytest.fixture(scope="module")
def machine():
    with Fresh(ROOT / "build-test" / "fresh") as fresh:
        files = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True,
                               capture_output=True).stdout
        subprocess.run(["tar", "-C", ROOT, "--null", "-T", "-", "-cf", fresh.root / "tree.tar"], input=files, check=True)
        fresh.ok("sh", "-c", "useradd -m alice && mkdir /home/alice/iron && tar -xf /tree.tar -C /home/alice/iron && rm /tree.tar")
        fresh.ok("sh", "-c", "chown -R alice: /home/alice")
        fresh.before = census(fresh)
        yield fresh
        # whatever a failure left outside of its namespaces
        subprocess.run([ROOT / "tests/sweep"], check=True, capture_output=True)


def census(fresh):
    """What quickstart could leave: users, files outside the usual caches, what lies in /run and /tmp in its name or mktemp's, files
    of the VMs' users anywhere, namespaces, tables, cgroups, processes."""
    top = pathlib.Path("/sys/fs/cgroup")
    files = fresh.ok("find", "/etc", "/usr/local", "/var/lib", "/home", "/opt", "/root", "-xdev", "-not", "-path", "/var/lib/apt/*", "-not",
                     "-path", "/var/lib/dpkg/*", "-not", "-path", "/home/alice/iron/*").split("\n")
    passing = fresh.ok("find", "/run", "/tmp", "-xdev", "(", "-name", "*iron*", "-o", "-name", "tmp.*", ")").split("\n")
    return {
        "files": {*files, *passing},
        "files of the VMs' users": fresh.ok("find", "/", "/run", "-xdev", "-uid", f"+{UIDS.start - 1}", "-uid", f"-{UIDS.stop}"),
        "users": fresh.ok("sh", "-c", "cut -d: -f1 /etc/passwd /etc/group; cat /etc/subuid /etc/subgid"),
        "packages": set(fresh.ok("dpkg-query", "-W", "-f", "${Package}\n").split()),
        "mounts": fresh.ok("cut", "-d", " ", "-f", "2", "/proc/mounts"),
        "cgroups": sorted(map(str, [*top.glob(NAME), *top.glob(f"*/{NAME}")])),  # v2, v1
        "netns": subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout.count(NAME),
        "tables": subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout.count(NAME),
    }


def quickstart(machine, *words, timeout=900):
    return machine.ok("/home/alice/iron/quickstart", *words, SUDO_USER="alice", timeout=timeout)


def alice(machine, script, timeout=180):
    return machine.run("runuser", "-u", "alice", "--", "env", "HOME=/home/alice", "PATH=/usr/local/bin:/usr/bin:/bin", "sh", "-c", script,
                       timeout=timeout)


def test_first_run_shows_all_of_it(machine):
    out = quickstart(machine, "--port", str(free_port()), "--set", f"instance={NAME}", "--set", f"cgroup_root={NAME}", "--set", f"uid_base={UIDS.start}")
    assert re.search(r"^14/14 .* ok$", out, re.M), out
    assert "git version 2." in out
    assert "Blocked by this machine's egress policy, not by denied.example" in out
    assert "hello from api.example.com" in out
    assert re.search(r"denied +http +denied\.example:80", out), out
    assert "iron create demo && iron exec demo -- git --version" in out


def ours_that_run():
    """The programs of what runs of this iron: irond, the roles, and QEMU by its uid."""
    found = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            exe, uid = os.readlink(process / "exe"), process.stat().st_uid
            if "/usr/local/libexec/iron/" in exe or "/usr/local/sbin/irond" in exe or uid in UIDS:
                found.append(exe)
    return found


def boot_id(machine, name):
    out = alice(machine, f"iron exec {name} -- cat /proc/sys/kernel/random/boot_id")
    assert out.returncode == 0, out.stdout
    return out.stdout


def test_again_upgrades_in_place_and_the_story_holds(machine):
    """With other programs than before, under a VM that runs."""
    assert alice(machine, "iron create before").returncode == 0
    booted = boot_id(machine, "before")
    machine.ok("sh", "-c", "echo 'const char another_build[] = \"2\";' >>/home/alice/iron/src/prog/role_start.c")
    installed = machine.ok("sha256sum", "/usr/local/libexec/iron/iron-vm")
    out = quickstart(machine, "--no-demo", timeout=300)
    assert re.search(r"^ 8/8 .* ok$", out, re.M), out
    assert machine.ok("sha256sum", "/usr/local/libexec/iron/iron-vm") != installed
    # its iron-vm is another one, which has to reach the guest again
    waited = alice(machine, "iron wait --timeout 120 before")
    assert waited.returncode == 0, waited.stdout + machine.ok("tail", "-n", "60", "/var/lib/iron/log/irond.log")
    assert boot_id(machine, "before") == booted
    assert ours_that_run() and not [exe for exe in ours_that_run() if "/usr/local/" in exe and exe.endswith(" (deleted)")]
    story = alice(machine, "iron create demo && iron exec demo -- git --version")
    assert story.returncode == 0 and "git version 2." in story.stdout, story.stdout
    refused = alice(machine, "iron exec demo -- curl -sS http://denied.example/")
    assert "Blocked by this machine's egress policy" in refused.stdout
    allowed = alice(machine, "iron egress add --host api.example.com && iron exec demo -- curl -sS https://api.example.com/")
    assert "hello from api.example.com" in allowed.stdout, allowed.stdout
    trail = alice(machine, "timeout 10 iron audit egress --follow --since 10m")
    assert re.search(r"denied +http +denied\.example:80 GET / 403", trail.stdout), trail.stdout
    assert re.search(r"allowed +tls +api\.example\.com:443", trail.stdout), trail.stdout


def test_a_failed_step_says_what_to_do(machine):
    out = machine.run("/home/alice/iron/quickstart", "--no-demo", "--image", "nosuch", SUDO_USER="alice", timeout=300)
    assert out.returncode == 1
    assert "FAILED" in out.stdout and "Cause:" in out.stdout and "Try:" in out.stdout, out.stdout


def test_remove_leaves_no_trace(machine):
    quickstart(machine, "--remove", timeout=300)
    after = census(machine)
    before = machine.before
    assert after["packages"] == before["packages"]
    assert after["users"] == before["users"]
    assert after["mounts"] == before["mounts"]
    assert (after["cgroups"], after["netns"], after["tables"]) == (before["cgroups"], before["netns"], before["tables"])
    assert after["files of the VMs' users"] == ""
    usual = r"/(etc/(ld\.so\.cache|subuid-|subgid-|passwd-|group-|shadow-|gshadow-)|var/lib/(systemd|ucf|pam|python)" \
            r"|tmp/iron-quickstart\.\w+\.log$)"  # the log of a step that failed
    left = {f for f in after["files"] - before["files"] if not re.match(usual, f)}
    assert not left, sorted(left)[:40]
    assert not ours_that_run()
    assert machine.run("sh", "-c", "command -v iron irond").stdout == ""
