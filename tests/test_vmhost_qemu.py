"""QEMU as irond starts it: what it holds, sees and may do; overlays; images, built for real"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import pytest

from vmhost_lab import BUILD, DRIVER, Machine, Net, directory, driver, wait_for


@pytest.fixture(scope="module")
def state():
    """state_dir with mini in it, and where the programs are."""
    top = directory("image")
    for name in ("state", "run", "libexec"):
        (top / name).mkdir()
    (top / "libexec" / "iron-worker").symlink_to(BUILD / "src" / "prog" / "iron-worker")
    (top / "libexec" / "iron-agent").symlink_to(BUILD / "src" / "agent" / "iron-agent")
    build(top, "mini")
    yield top
    shutil.rmtree(top)


def build(top, name, force="no", **more):
    return driver("image", top / "state", top / "run", top / "libexec", name, force, timeout=600, **more)


def images(top):
    return sorted(p for p in (top / "state" / "images").iterdir() if p.name.startswith("img_"))


def boot(top, **more):
    (image, *_) = [p for p in images(top) if json.loads((p / "manifest.json").read_text())["name"] == "mini"]
    return Machine(image / "kernel", image / "initrd", **more)


@pytest.fixture(scope="module")
def machine(state):
    path = state / "overlay.qcow2"
    driver("overlay", path, "-", 4, 2099001)
    m = boot(state, overlay=path)
    m.channel_kept = m.hello()
    yield m
    m.channel_kept.close()
    m.close()


def test_it_holds_only_its_own_descriptors(machine):
    allowed = ("socket:", "anon_inode:", "/null", "/memfd:")
    names = {fd: os.readlink(f"/proc/{machine.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{machine.pid}/fd")}
    files = {n for n in names.values() if not n.startswith(allowed) and not n.startswith("pipe:")}
    assert {pathlib.Path(f).name for f in files} == {"kernel", "initrd", "overlay.qcow2"}
    writable = []
    for fd, name in names.items():
        flags = next(line for line in open(f"/proc/{machine.pid}/fdinfo/{fd}") if line.startswith("flags:"))
        if name in files and int(flags.split()[1], 8) & 3:
            writable.append(pathlib.Path(name).name)
    assert set(writable) <= {"overlay.qcow2"}


def test_it_has_no_identity_but_its_own(machine):
    status = machine.status()
    assert status["Uid"].split() == [str(machine.uid)] * 4 and status["Gid"].split() == [str(machine.uid)] * 4
    assert status["Groups"] == "" and status["NoNewPrivs"] == "1" and status["Seccomp"] == "2"
    assert all(int(status[c], 16) == 0 for c in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"))
    assert status["NSpid"].split()[-1] == "1"
    limits = pathlib.Path(f"/proc/{machine.pid}/limits").read_text()
    assert [line.split()[4:6] for line in limits.splitlines() if line.startswith("Max core")] == [["0", "0"]]
    assert pathlib.Path(f"/proc/{machine.pid}/environ").read_bytes() == b"LC_ALL=C\0"


def test_it_shares_no_namespace_with_the_host(machine):
    for kind in ("mnt", "pid", "ipc", "net", "uts"):
        assert os.readlink(f"/proc/{machine.pid}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    links = subprocess.run(["nsenter", "-t", str(machine.pid), "-n", "ip", "-o", "link"], capture_output=True, text=True).stdout
    assert len(links.splitlines()) == 1 and "lo:" in links and "state DOWN" in links


def test_its_root_holds_what_it_runs_and_cannot_be_written(machine):
    mounts = [line.split() for line in open(f"/proc/{machine.pid}/mountinfo")]
    for mount in mounts:
        options = mount[5].split(",")
        assert "nosuid" in options and ("ro" in options or mount[4] == "/proc"), mount
        assert "nodev" in options or mount[4] == "/dev", mount
    root = pathlib.Path(f"/proc/{machine.pid}/root")
    assert sorted(p.name for p in root.iterdir()) == ["dev", "lib", "lib64", "proc", "usr"]
    assert sorted(p.name for p in (root / "dev").iterdir()) == ["null"]
    assert {p.name for p in (root / "usr" / "bin").iterdir()} == {"qemu-system-x86_64"}
    others = [m[4] for m in mounts if m[4] not in ("/", "/dev", "/proc", "/usr/bin/qemu-system-x86_64", "/usr/share/qemu/bios-microvm.bin")]
    assert all(".so" in m for m in others), others
    # as that uid, inside that root, nothing can be made
    tried = subprocess.run(["nsenter", "-t", str(machine.pid), "-m", "-S", str(machine.uid), "-G", str(machine.uid), "/lib64/ld-linux-x86-64.so.2",
                            "--list", "/usr/bin/qemu-system-x86_64"], capture_output=True, text=True)
    assert tried.returncode == 0 and "not found" not in tried.stdout  # complete, and readable by it
    for place in ("", "dev", "usr", "proc"):
        with pytest.raises(OSError):
            (root / place / "x").write_text("x")


def test_its_channels_are_roots_alone_and_accept_again(machine):
    for name in ("qmp", "agent", "console"):
        assert (machine.dir / f"{name}.sock").stat().st_mode & 0o777 == 0o600
    for _ in range(2):
        with machine.channel("qmp") as s:
            s.settimeout(5)
            assert b'"QMP"' in s.recv(4096)
    machine.channel_kept.close()
    machine.channel_kept = machine.hello()


def qmp(machine, command, **arguments):
    with machine.channel("qmp") as s:
        f = s.makefile("rw")
        f.readline()
        for message in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            f.write(json.dumps(message))
            f.flush()
            answer = json.loads(f.readline())
            while "event" in answer:
                answer = json.loads(f.readline())
        return answer


def test_a_guest_that_owns_its_monitor_opens_no_file(machine):
    """The worst that QMP can ask of a QEMU: it sees no file of the host's."""
    for path in ("/etc/shadow", "/etc/passwd", f"/proc/{os.getpid()}/environ", "/proc/kcore", str(machine.dir / "qmp.sock")):
        answer = qmp(machine, "blockdev-add", driver="file", filename=path, **{"node-name": "x", "read-only": True})
        assert "error" in answer, answer
    answer = qmp(machine, "chardev-add", id="x", backend={"type": "socket", "data": {"addr": {"type": "inet", "data": {
        "host": "127.0.0.1", "port": "22"}}, "server": False}})
    assert "error" in answer, answer
    answer = qmp(machine, "dump-guest-memory", paging=False, protocol="file:/dump")
    assert "error" in answer, answer


def test_the_devices_are_where_a_snapshot_expects_them(machine):
    (bus,) = qmp(machine, "query-pci")["return"]
    assert {d["slot"]: d["id"]["device"] for d in bus["devices"] if d["slot"]} == {3: 0x1003, 4: 0x1005, 6: 0x1001}


def test_a_failed_start_says_why_and_leaves_nothing(state, tmp_path):
    image = images(state)[0]
    done = driver("qemu", tmp_path / "absent", 2099001, image / "kernel", image / "initrd", "-", "-", "-", 256, 0, "", check=False, input="")
    assert done.returncode == 1 and "No such file" in done.stderr
    long = tmp_path / ("x" * 100)
    long.mkdir()
    done = driver("qemu", long, 2099001, image / "kernel", image / "initrd", "-", "-", "-", 256, 0, "", check=False, input="")
    assert done.returncode == 1 and "too long for a socket's path" in done.stderr


def test_it_boots_behind_its_tap(state):
    n = Net()
    try:
        m = boot(state, tap=n.tap)
        try:
            m.hello().close()
            (bus,) = qmp(m, "query-pci")["return"]
            assert {d["slot"] for d in bus["devices"]} >= {3, 4, 5}
        finally:
            m.close()
    finally:
        n.close()


# --- overlays ---


@pytest.mark.parametrize("gib", [1, 4, 511, 512, 513, 2048])
def test_an_overlay_is_a_clean_qcow2_without_a_backing_name(tmp_path, gib):
    path = tmp_path / "o.qcow2"
    driver("overlay", path, "-", gib, 1234)
    assert subprocess.run(["qemu-img", "check", path], capture_output=True, text=True).returncode == 0
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True, text=True).stdout)
    assert info["virtual-size"] == gib << 30 and "backing-filename" not in info and info["format"] == "qcow2"
    st = path.stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (1234, 1234, 0o600)
    assert st.st_blocks * 512 < 1 << 20


def test_an_overlay_takes_what_is_written_and_keeps_its_base(tmp_path):
    base, path = tmp_path / "base.raw", tmp_path / "o.qcow2"
    base.write_bytes(b"base" * 262144)
    driver("overlay", path, base, 1, 0)
    opts = f"driver=qcow2,file.driver=file,file.filename={path},backing.driver=raw,backing.file.driver=file,backing.file.filename={base}"
    out = subprocess.run(["qemu-io", "--image-opts", opts, "-c", "read -P 0x62 0 1", "-c", "write -P 7 4096 65536", "-c", "read -P 7 4096 65536",
                          "-c", "write -P 9 600M 1M", "-c", "read -P 9 600M 1M", "-c", "read -P 0 700M 1M"], capture_output=True, text=True).stdout
    assert "Pattern verification failed" not in out and out.count("ops;") == 6, out
    assert base.read_bytes() == b"base" * 262144
    assert subprocess.run(["qemu-img", "check", path], capture_output=True).returncode == 0


def test_an_overlay_is_as_large_as_its_base(tmp_path):
    base, path = tmp_path / "base.raw", tmp_path / "o.qcow2"
    with open(base, "wb") as f:
        f.truncate(5 << 30)
    driver("overlay", path, base, 4, 0)
    info = json.loads(subprocess.run(["qemu-img", "info", "--output=json", path], check=True, capture_output=True, text=True).stdout)
    assert info["virtual-size"] == 5 << 30
    assert driver("overlay", path, base, 4, 0, check=False).returncode == 1  # it exists
    assert driver("overlay", tmp_path / "p", "-", 0, 0, check=False).returncode == 1
    assert not (tmp_path / "p").exists()


# --- images ---


def test_an_image_is_described_and_read_only(state):
    (image,) = images(state)
    manifest = json.loads((image / "manifest.json").read_text())
    assert manifest["id"] == image.name and manifest["name"] == "mini" and len(manifest["hash"]) == 64 and manifest["disk"] is False
    assert "cloud-amd64" in manifest["kernel"] and "busybox-static=" in manifest["made_from"] and manifest["size_bytes"] > 1 << 20
    for file in image.iterdir():
        st = file.stat()
        assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (0, 0, 0o444), file
    assert {p.name for p in image.iterdir()} == {"kernel", "initrd", "manifest.json"}


def test_the_same_inputs_are_not_built_twice_but_by_force(state):
    before = images(state)
    assert "up to date" in build(state, "mini").stdout
    assert images(state) == before
    out = build(state, "mini", "yes").stdout
    assert "its agent answered after" in out
    (new,) = set(images(state)) - set(before)
    shutil.rmtree(new)


def leftovers(state):
    return [p.name for p in (state / "state" / "images").iterdir() if not p.name.startswith("img_")] + [p.name for p in (state / "run").iterdir()]


def start_build(state):
    # a run of the tests in the background has SIGINT ignored, and what is ignored is inherited
    return subprocess.Popen([DRIVER, "image", state / "state", state / "run", state / "libexec", "mini", "yes"], stdout=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def inside(place):
    """Processes whose working directory is below a place."""
    found = []
    for p in pathlib.Path("/proc").iterdir():
        if p.name.isdigit():
            try:
                if os.readlink(p / "cwd").startswith(str(place)):
                    found.append(int(p.name))
            except OSError:
                pass
    return found


@pytest.mark.parametrize("stage", ["fetching", "booting"])
def test_an_interrupted_build_leaves_nothing(state, stage):
    before = images(state)
    job = start_build(state)
    while stage not in job.stdout.readline():
        assert job.poll() is None
    job.send_signal(signal.SIGINT)
    assert job.wait(20) == -signal.SIGINT  # it dies of the signal, when it has cleared up
    job.stdout.close()
    assert leftovers(state) == [] and images(state) == before


def test_a_build_runs_in_its_walls(state):
    job = start_build(state)
    while "fetching" not in job.stdout.readline():
        assert job.poll() is None
    found = [dict(line.split(":\t", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)
             for pid in inside(state / "state" / "images")]
    job.send_signal(signal.SIGINT)
    job.wait(20)
    job.stdout.close()
    assert found
    for status in found:
        assert status["Seccomp"] == "2", status["Name"]
        assert "0" not in status["Uid"].split() and status["CapEff"] == "0" * 16, status["Name"]


def test_a_killed_build_is_cleared_by_the_next_and_its_processes_are_gone(state):
    before = images(state)
    job = start_build(state)
    while "fetching" not in job.stdout.readline():
        assert job.poll() is None
    assert inside(state / "state" / "images")
    second = build(state, "mini", check=False)
    assert second.returncode == 1 and "another image is being built" in second.stderr
    job.kill()
    job.wait()
    job.stdout.close()
    wait_for("the recipe's processes to end", lambda: not inside(state / "state" / "images"))
    assert "up to date" in build(state, "mini").stdout
    assert leftovers(state) == [] and images(state) == before


def test_an_image_that_does_not_boot_is_not_listed(state, tmp_path):
    """The agent of this one is a program that says nothing."""
    libexec = directory("mute")
    try:
        (libexec / "iron-worker").symlink_to(BUILD / "src" / "prog" / "iron-worker")
        (libexec / "iron-agent").write_bytes(pathlib.Path("/bin/busybox").read_bytes())
        job = subprocess.Popen([DRIVER, "image", state / "state", state / "run", libexec, "mini", "no"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        before = images(state)
        while "booting" not in job.stdout.readline():
            assert job.poll() is None
        time.sleep(6)  # longer than a boot takes: it must not be taken for one
        assert job.poll() is None and images(state) == before
        job.send_signal(signal.SIGTERM)
        assert job.wait(20) == -signal.SIGTERM
        job.stdout.close()
        job.stderr.close()
        assert leftovers(state) == [] and images(state) == before
    finally:
        shutil.rmtree(libexec)


def test_a_name_is_one_of_two_and_a_path_a_file(state):
    for what, words in (("bose", "there is no recipe"), ("../base", "../base: No such file"), ("/dev/null", "is not a file")):
        done = build(state, what, check=False)
        assert done.returncode == 1 and words in done.stderr, done.stderr


# --- the accelerator ---


def test_the_verdict_is_proved_kept_and_found_again(state):
    def ask():
        start = time.monotonic()
        word, khz, reason = driver("accel", state / "state", state / "run", timeout=60).stdout.strip().split(" ", 2)
        return word, int(khz), reason, time.monotonic() - start

    first = ask()
    assert first[0] in ("kvm", "tcg") and first[3] < 20
    kept = json.loads((state / "state" / "accel.json").read_text())
    assert kept["kvm"] == (first[0] == "kvm") and kept["reason"] == first[2]
    second = ask()
    assert second[:1] + second[2:3] == first[:1] + first[2:3] and second[3] < 2
    assert abs(second[1] - first[1]) < first[1] * 0.0005
    kept["key"] = "another kernel"
    (state / "state" / "accel.json").write_text(json.dumps(kept))
    assert ask()[0] == first[0]
    assert json.loads((state / "state" / "accel.json").read_text())["key"] != "another kernel"
    assert leftovers(state) == []
