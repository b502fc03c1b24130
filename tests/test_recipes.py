"""Images by recipe: packages and files from Debian, scripts in a VM behind the door, nothing left of a build, units that rebuild"""

import os
import subprocess

import pytest
from harness import BUILD, Iron

ALLOWED, OTHER = "api.example.com", "other.example.com"

BASIC = """\
name: basic
packages: [jq]
files:
  - path: /etc/app/app.conf
    mode: "0640"
    owner: root:adm
    content: |
      a: b
  - {path: /home/agent/tool, source: files/tool, mode: "0755", owner: agent}
"""
SCRIPTED = """\
name: scripted
from: basic
files:
  - {path: /etc/scripted.conf, content: "x", mode: "0600", owner: agent}
scripts:
  - source: setup.py
  - run: |
      stat -c '%a %U:%G' /etc/scripted.conf >/etc/seen
      curl -sS --max-time 60 http://api.example.com/ >/etc/fetched
      echo "the other host: $(curl -s --max-time 60 -o /dev/null -w '%{http_code}' http://other.example.com/)"
      dd if=/dev/zero of=/root/zeros bs=1M count=64 2>/dev/null
      rm /root/zeros
egress: [api.example.com]
"""
FAILING = """\
name: failing
from: basic
scripts:
  - run: |
      echo before
      echo "this is why" >&2
      false
      echo after
"""


@pytest.fixture(scope="module")
def iron():
    with Iron("recipes", hosts=(ALLOWED, OTHER)) as it:
        # the workspace lets both through; a build inherits nothing of that
        for host in (ALLOWED, OTHER):
            it.call("POST", "/egress/rules", {"host": host}, status=201)
        yield it


def recipe(iron, name, text, **files):
    directory = iron.dir / f"recipe-{name}"
    (directory / "files").mkdir(parents=True, exist_ok=True)
    for path, content in files.items():
        (directory / path.replace("__", "/").replace("_py", ".py")).write_text(content)
    path = directory / f"{name}.yaml"
    path.write_text(text)
    return path


def build(iron, *words, timeout=900):
    return subprocess.run([BUILD / "src/prog/irond", "image", *words, "-c", iron.dir / "iron.yaml", "--libexec", iron.libexec],
                          capture_output=True, text=True, timeout=timeout)


def left(iron):
    """What a build may leave: images that are listed, and nothing else."""
    listed = {i["id"] for i in iron.call("GET", "/images")}
    there = {p.name for p in (iron.dir / "state/images").iterdir()} - listed
    vms = [v for v in iron.call("GET", "/vms") if v["name"].startswith("image-build-")]
    keys = [k for k in iron.call("GET", "/keys") if k["name"].startswith("image-build-")]
    return sorted(there), vms, keys


def image_of(iron, name):
    return next((i for i in iron.call("GET", "/images") if i["name"] == name), None)


@pytest.fixture(scope="module")
def basic(iron):
    done = build(iron, "build", recipe(iron, "basic", BASIC, files__tool="#!/bin/sh\necho tool\n"))
    assert done.returncode == 0, done.stdout + done.stderr
    return image_of(iron, "basic")


@pytest.fixture(scope="module")
def scripted(iron, basic):
    path = recipe(iron, "scripted", SCRIPTED, setup_py="#!/usr/bin/python3\nprint('made by python', flush=True)\nopen('/etc/made', 'w').write('yes')\n")
    done = build(iron, "build", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, image_of(iron, "scripted"), path


def test_an_image_says_what_it_was_made_from(iron, basic):
    assert basic["made_from"].startswith("recipe basic, from base; packages jq; 2 files; Debian 12")
    assert basic["size_bytes"] > 100 << 20 and basic["created_at"] and len(basic["hash"]) == 64
    assert left(iron) == ([], [], [])


def test_scripts_run_in_a_vm_behind_the_door(iron, scripted):
    shown, image, _ = scripted
    assert "made by python" in shown and "the other host: 403" in shown
    assert image["made_from"].startswith("recipe scripted, from basic; 1 file; 2 scripts; recipe basic, from base; packages jq")
    assert left(iron) == ([], [], [])
    events = iron.call("GET", "/audit/egress?limit=200&protocol=http")
    seen = {(e["host"], e["verdict"]) for e in events}
    assert (ALLOWED, "allowed") in seen and (OTHER, "denied") in seen


def test_a_vm_of_it_has_all_of_it(iron, scripted):
    vm = iron.create("user", image="scripted", memory_mib=512)
    try:
        out = iron.sh(vm, "set -e; cat /etc/made; cat /etc/seen; test -s /etc/fetched; jq --version; stat -c '%a %U:%G' "
                          "/etc/app/app.conf /home/agent/tool; cat /etc/app/app.conf; ls -a /root; /home/agent/tool")
        assert out["exit_code"] == 0, out
        assert out["stdout"].startswith("yes600 agent:agent\njq-1.6\n640 root:adm\n755 agent:agent\na: b\n")
        assert out["stdout"].endswith("\ntool\n") and ".iron-script" not in out["stdout"] and "zeros" not in out["stdout"]
    finally:
        iron.call("DELETE", f"/vms/{vm['id']}?force=true", status=204)


def test_the_same_inputs_are_not_built_twice(iron, scripted):
    _, image, path = scripted
    done = build(iron, "build", path, timeout=60)
    assert done.returncode == 0 and "up to date" in done.stdout and image_of(iron, "scripted")["id"] == image["id"]
    # known by what lies with the image alone
    path.unlink()
    done = build(iron, "rebuild", "--older-than", "0")
    assert done.returncode == 0, done.stderr
    assert "scripted: up to date" in done.stdout and "basic: up to date" in done.stdout
    assert build(iron, "rebuild").stdout == ""


def test_a_script_that_fails_fails_the_build_and_leaves_nothing(iron, basic):
    done = build(iron, "build", recipe(iron, "failing", FAILING))
    assert done.returncode == 1
    assert "script 1 of 1 ended with exit status 1" in done.stderr and "this is why" in done.stderr and "after" not in done.stdout
    assert image_of(iron, "failing") is None and left(iron) == ([], [], [])


@pytest.mark.parametrize("text, words", [
    ("name: x\npackages: [jq]\nhosts: [a]\n", "x.yaml:3: unknown key 'hosts'"),
    ("name: ../x\npackages: [jq]\n", "x.yaml:1: name: expected"),
    ("name: x\nfiles: [{path: /etc/../../x, content: a}]\n", "files[0].path"),
    ("name: x\nfiles: [{path: /x, source: ../../../etc/shadow}]\n", "files[0].source"),
    ("name: x\nfiles: [{path: /x, source: link}]\n", "a link leads out"),
    ("name: x\nfiles: [{path: /x, source: huge}]\n", "too large"),
    ("name: x\npackages: [no-such-package-anywhere]\n", "knows no package no-such-package-anywhere"),
    ("name: x\nfrom: absent\nscripts: [{run: a}]\n", "there is no image absent"),
    ("name: x\nfrom: mini\nscripts: [{run: a}]\n", "from: expected"),
])
def test_a_bad_recipe_is_refused_before_anything_is_made(iron, text, words):
    path = recipe(iron, "x", text)
    link, huge = path.parent / "link", path.parent / "huge"
    link.unlink(missing_ok=True)
    link.symlink_to("/etc/shadow")
    with open(huge, "wb") as f:
        f.truncate(1 << 40)
    done = build(iron, "build", path, timeout=120)
    assert done.returncode == 1 and words in done.stderr, done.stderr
    assert image_of(iron, "x") is None and left(iron) == ([], [], [])


def test_without_a_running_irond_scripts_are_refused(iron, basic, tmp_path):
    conf = (iron.dir / "iron.yaml").read_text().replace(f"run_dir: {iron.dir}/run", f"run_dir: {iron.dir}/run2")
    (tmp_path / "iron.yaml").write_text(conf)
    done = subprocess.run([BUILD / "src/prog/irond", "image", "build", recipe(iron, "failing", FAILING), "-c", tmp_path / "iron.yaml",
                           "--libexec", iron.libexec], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "irond does not run" in done.stderr
    assert left(iron) == ([], [], [])


def qemu_io(path, *commands, fmt="qcow2"):
    words = [w for c in commands for w in ("-c", c)]
    subprocess.run(["qemu-io", "-f", fmt, *words, path], check=True, capture_output=True)


def flatten(overlay, disk, size):
    import fcntl
    with open(overlay, "rb") as o, open(disk, "r+b") as d:
        lifted = [fcntl.fcntl(f, fcntl.F_DUPFD, 100) for f in (o, d)]
        try:
            return subprocess.run([BUILD / "src/prog/iron-worker", "--uid", "65534", "--gid", "65534", "flatten", str(size)], close_fds=False,
                                  preexec_fn=lambda: (os.dup2(lifted[0], 4), os.dup2(lifted[1], 5)), capture_output=True, text=True)
        finally:
            for fd in lifted:
                os.close(fd)


def test_flattening_is_what_qemu_reads(tmp_path):
    """Against qemu-img: data, zeros, discards, a disk that is larger than its base; and a header that points elsewhere."""
    size = 1 << 30
    base, overlay, want, got = (tmp_path / n for n in ("base", "overlay", "want", "got"))
    for f in (base, got):
        with open(f, "wb") as out:
            out.truncate(600 << 20)
    writes = ["write -P 1 0 1M", "write -P 2 512M 3M"]
    qemu_io(base, *writes, fmt="raw")
    qemu_io(got, *writes, fmt="raw")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, overlay, "1G"], check=True)
    qemu_io(overlay, "write -P 7 10k 100k", "write -z 512M 1M", "discard 0 64k", "write -P 9 900M 5M", "write -P 3 599M 2M")
    subprocess.run(["qemu-img", "convert", "-O", "raw", overlay, want], check=True)
    refused = flatten(overlay, got, size)
    assert refused.returncode == 1 and "names a backing file" in refused.stderr
    subprocess.run(["qemu-img", "rebase", "-u", "-b", "", overlay], check=True)
    done = flatten(overlay, got, size)
    assert done.returncode == 0, done.stderr
    assert subprocess.run(["cmp", want, got]).returncode == 0 and got.stat().st_blocks <= want.stat().st_blocks + 256
    assert flatten(overlay, got, size * 2).returncode == 1


def test_the_units_are_sound(tmp_path):
    units = BUILD / "systemd"
    names = ["iron-images.service", "iron-images.timer"]
    # where this build's program is, since what is installed need not be there
    for name in names:
        text = (units / name).read_text()
        line = next((l for l in text.splitlines() if l.startswith("ExecStart=")), "")
        if line:
            text = text.replace(line.split("=")[1].split()[0], str(BUILD / "src/prog/irond"))
        (tmp_path / name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *names], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"})
    assert done.returncode == 0 and "iron-images" not in done.stderr, done.stderr
