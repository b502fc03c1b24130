"""A day in the life: two workspaces' keys, five VMs, traffic, an upgrade to programs of another build under them, a power cut, and nothing left at its end"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

from harness import BUILD, Iron, wait_for
from kill_lab import machines, roles

HOST = "api.example.com"


class Day:
    def __init__(self, iron):
        self.iron = iron
        self.keys, self.vms, self.boots = {}, {}, {}

    def key_of(self, name):
        return self.keys["b" if name.startswith("b") else "admin"]

    def sh(self, name, script):
        return self.iron.call("POST", f"/vms/{self.vms[name]['id']}/exec", {"argv": ["/bin/sh", "-c", script], "user": "root"},
                              key=self.key_of(name), timeout=120)

    def show(self, name):
        return self.iron.call("GET", f"/vms/{self.vms[name]['id']}", key=self.key_of(name))

    def until(self, name, detail, seconds=120):
        wait_for(f"{name} to be {detail}", lambda: self.show(name)["status_detail"] == detail, seconds, lambda: self.show(name))

    def boot(self, name):
        return self.sh(name, "cat /proc/sys/kernel/random/boot_id")["stdout"]


def image_with_disk(iron):
    """mini, and a disk: what the guest writes there is what a reboot must leave."""
    images = iron.dir / "state/images"
    source = max(images.iterdir(), key=lambda d: json.loads((d / "manifest.json").read_text())["created_at"])
    made = images / "img_00000000000zz"
    shutil.copytree(source, made, copy_function=shutil.copyfile)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest.update(id=made.name, name="mini-disk", disk=True, hash="0" * 64)
    (made / "manifest.json").unlink()
    (made / "manifest.json").write_text(json.dumps(manifest))
    (made / "disk.raw").write_bytes(b"\0" * (4 << 20))


@pytest.fixture(scope="module")
def day():
    with Iron("day", extra="allow_tcg_multi_tenant: true") as iron:
        image_with_disk(iron)
        iron.irond("reload")
        yield Day(iron)


def test_morning_keys(day):
    """Of two workspaces, and with different scopes."""
    iron = day.iron
    day.keys["admin"] = iron.key
    day.keys["b"] = iron.irond("key", "create", "b-admin", "--workspace", "team-b", "--scopes", "admin").strip()
    day.keys["ci"] = iron.call("POST", "/keys", {"name": "ci", "scopes": ["vm:read", "vm:run"]}, status=201)["key"]
    day.keys["auditor"] = iron.irond("key", "create", "b-auditor", "--workspace", "team-b", "--scopes", "audit:read,vm:read").strip()
    refused = [("ci", "PUT", "/egress/policy", {"mode": "warn"}), ("ci", "GET", "/audit/egress", None), ("ci", "POST", "/vms", {"name": "x"}),
               ("auditor", "POST", "/vms", {"name": "x"}), ("auditor", "GET", "/egress/rules", None)]
    for who, method, path, body in refused:
        assert iron.api(method, path, body, key=day.keys[who]).status == 403, (who, method, path)
    assert iron.call("GET", "/vms", key=day.keys["ci"]) == [] and iron.call("GET", "/audit/egress", key=day.keys["auditor"]) == []


def test_forenoon_five_vms(day):
    iron = day.iron
    wanted = {"a-always": {"restart": "always"}, "a-plain": {}, "a-disk": {"image": "mini-disk"}, "b-always": {"restart": "always"}, "b-plain": {}}
    for who in ("admin", "b"):
        iron.call("POST", "/egress/rules", {"host": HOST}, status=201, key=day.keys[who])
    for name, body in wanted.items():
        day.vms[name] = iron.call("POST", "/vms", {"name": name, **body}, status=201, key=day.key_of(name))
    for name in wanted:
        day.until(name, "ready")
        day.boots[name] = day.boot(name)
    assert len(set(day.boots.values())) == 5


def traffic(day, mark):
    for name in day.vms:
        if day.show(name)["status_detail"] != "ready":
            continue
        out = day.sh(name, f"curl -sS -m 20 http://{HOST}/{mark}-{name}; curl -sS -m 20 http://denied.example/{mark}")["stdout"]
        assert f"hello from {HOST}" in out and "Blocked by this machine's egress policy" in out, (name, out)


def on_record(day, mark, names):
    def paths(key):
        return {e["path"] for e in day.iron.call("GET", "/audit/egress?limit=500&verdict=allowed", key=key)}
    for name in names:
        wait_for(f"{mark} of {name} on record", lambda: f"/{mark}-{name}" in paths(day.key_of(name)))
        assert f"/{mark}-{name}" not in paths(day.keys["b" if name.startswith("a") else "admin"])


def test_noon_traffic(day):
    traffic(day, "noon")
    on_record(day, "noon", day.vms)
    assert day.iron.call("POST", f"/vms/{day.vms['a-plain']['id']}/exec", {"argv": ["true"]}, key=day.keys["ci"])["exit_code"] == 0
    for method, suffix in (("GET", ""), ("POST", "/stop"), ("GET", "/sessions"), ("GET", "/console"), ("DELETE", "?force=true")):
        assert day.iron.api(method, f"/vms/{day.vms['b-plain']['id']}{suffix}", key=day.keys["admin"]).status == 404, suffix
    assert day.sh("a-disk", "echo written at noon | dd of=/dev/vda bs=512 seek=9 conv=fsync,notrunc 2>/dev/null; sync")["exit_code"] == 0


def another_build(iron, name, programs):
    """A directory of the same programs, these of them with other bytes: what an upgrade puts in place."""
    new = iron.dir / name
    new.mkdir()
    for program in iron.libexec.iterdir():
        shutil.copy(program, new / program.name)
        if program.name in programs:
            with open(new / program.name, "ab") as f:
                f.write(b"another build")
    iron.libexec = new


def upgrade(day, name, programs):
    """irond stopped, started with other programs: these run anew, the rest and the machines as before."""
    iron = day.iron
    before, running = machines(iron), set(roles(iron))
    iron.stop_irond()
    assert machines(iron) == before and len(before) == 5
    another_build(iron, name, programs)
    iron.start_irond()
    for vm in day.vms:
        day.until(vm, "ready")
        assert day.boot(vm) == day.boots[vm]
    assert machines(iron) == before
    now = set(roles(iron))
    assert {role for role, _, _ in running - now} == {role for role, _, _ in now - running} == {"iron-control", *programs}
    assert not {pid for role, _, pid in running & now if role in programs}
    for role, _, pid in now - running:
        assert os.readlink(f"/proc/{pid}/exe") == str(iron.libexec / role)


def test_afternoon_upgrade_in_place(day):
    """First all but the doors, and a download goes on; then the doors."""
    iron = day.iron
    day.sh("a-plain", f"curl -sS -m 120 --limit-rate 2M -o /dev/null -w '%{{size_download}}' http://{HOST}/bytes/40000000 >/tmp/got 2>&1 &")
    wait_for("the download to be on record", lambda: any(
        e["path"] == "/bytes/40000000" for e in iron.call("GET", "/audit/egress?limit=20")))
    upgrade(day, "libexec-2", {"iron-api", "iron-vm", "iron-audit"})
    wait_for("the download", lambda: day.sh("a-plain", "cat /tmp/got")["stdout"], 120)
    assert day.sh("a-plain", "cat /tmp/got")["stdout"] == "40000000"
    upgrade(day, "libexec-3", {"iron-egress"})
    traffic(day, "afternoon")
    on_record(day, "afternoon", day.vms)


def processes(iron):
    """Everything of this instance: in its groups, or naming its directory."""
    out = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            groups = pathlib.Path(f"/proc/{pid}/cgroup").read_text()
            words = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
            exe = os.readlink(f"/proc/{pid}/exe")
        except OSError:
            continue
        if f"/{iron.name}" in groups or (str(iron.dir).encode() in words and (exe.startswith(str(BUILD)) or exe.startswith(str(iron.dir)))):
            out.add(int(pid))
    return out - {os.getpid(), int((iron.dir / "origin/pid").read_text()) if (iron.dir / "origin/pid").exists() else 0}


def groups(iron):
    top = pathlib.Path("/sys/fs/cgroup")
    return [p for root in [*top.glob(iron.name), *top.glob(f"*/{iron.name}")] for p in [*root.rglob("*"), root] if p.is_dir()]


def tables(iron):
    out = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return [line.split()[1:] for line in out.splitlines() if iron.name in line]


def mounts(iron):
    text = pathlib.Path("/proc/self/mountinfo").read_text()
    return re.findall(rf" ({re.escape(str(iron.dir))}\S*) ", text)


def reboot(iron):
    """What a power cut leaves: the state directory."""
    iron.process.kill()
    iron.process.wait()
    for pid in processes(iron):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    wait_for("everything to end", lambda: not processes(iron))
    for target in reversed(mounts(iron)):
        subprocess.run(["umount", "-l", target], check=True)
    for family, name in tables(iron):
        subprocess.run(["nft", "delete", "table", family, name], check=True)
    for directory in sorted(groups(iron), reverse=True):
        wait_for("its group to be empty", lambda: not directory.exists() or rmdir(directory))
    shutil.rmtree(iron.dir / "run")
    (iron.dir / "run").mkdir(mode=0o755)


def rmdir(path):
    try:
        path.rmdir()
        return True
    except OSError:
        return False


def test_evening_power_cut(day):
    iron = day.iron
    reboot(iron)
    iron.start_irond()
    for name in day.vms:
        day.until(name, "ready" if name.endswith("always") else "stopped")
    for name in day.vms:
        if name.endswith("always"):
            assert day.boot(name) != day.boots[name]
        else:
            assert day.show(name)["status_reason"], "stopped, and it does not say why"
        ended = [s for s in iron.call("GET", f"/vms/{day.vms[name]['id']}/sessions", key=day.key_of(name)) if s["ended_at"]]
        assert "restarted" in ended[0]["end_reason"], ended
    iron.call("POST", f"/vms/{day.vms['a-disk']['id']}/start", key=day.keys["admin"])
    day.until("a-disk", "ready")
    assert day.sh("a-disk", "dd if=/dev/vda bs=512 skip=9 count=1 2>/dev/null | head -n 1")["stdout"] == "written at noon\n"
    on_record(day, "noon", day.vms)
    traffic(day, "evening")
    on_record(day, "evening", [n for n in day.vms if n.endswith("always") or n == "a-disk"])
    assert iron.call("GET", "/me", key=day.keys["ci"])["scopes"] == ["vm:read", "vm:run"]


def test_late_stop_and_start_of_it_all(day):
    """irond stop --vms is no stop of a VM's: what is to run always is back with irond."""
    iron = day.iron
    iron.end()
    iron.start_irond()
    for name in day.vms:
        day.until(name, "ready" if name.endswith("always") else "stopped")
    assert day.show("a-disk")["status_reason"] == "iron was stopped"
    assert day.iron.call("GET", f"/vms/{day.vms['a-disk']['id']}/sessions")[0]["end_reason"] == "iron was stopped"


def test_night_nothing_is_left(day):
    iron = day.iron
    iron.call("DELETE", f"/vms/{day.vms['a-plain']['id']}", status=204)
    day.until("a-plain", "destroyed")
    iron.end()
    wait_for("every process to end", lambda: not processes(iron), 30, lambda: processes(iron))
    assert not groups(iron), groups(iron)
    assert not tables(iron) and not mounts(iron)
    assert not (iron.dir / "run/vms").exists() or not list((iron.dir / "run/vms").iterdir())
    assert {p.name for p in (iron.dir / "state/vms").iterdir()} == {vm["id"] for name, vm in day.vms.items() if name != "a-plain"}, "their disks stay"
