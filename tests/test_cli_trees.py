"""iron cp -r: whole directories either way through a stand-in server, byte for byte; and archives that mean harm, which write nothing outside the target"""

import io
import os
import random
import signal
import stat
import subprocess
import tarfile
import time

import pytest

from cli_lab import Fake, VM_ID, error, server  # noqa: F401 (server: a fixture)
from harness import wait_for

ARCHIVE = rf"/vms/{VM_ID}/files/archive\?path=.*"
STAT = rf"/vms/{VM_ID}/files/stat\?path=.*"


@pytest.fixture
def fake(server):
    server.reset()
    server.on("GET", STAT, {"data": {"name": "x", "type": "directory"}})
    return server


def entry(name, data=b"", type=tarfile.REGTYPE, link="", mode=0o644, mtime=1700000000):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.mtime, info.size = type, link, mode, mtime, len(data)
    return info, data


def directory(name, mode=0o755):
    return entry(name, type=tarfile.DIRTYPE, mode=mode)


def link(name, to):
    return entry(name, type=tarfile.SYMTYPE, link=to)


def archive(*entries, format=tarfile.PAX_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as t:
        for info, data in entries:
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def send(fake, data):
    fake.on("GET", ARCHIVE, (200, data, [("Content-Type", "application/x-tar")]))


def everything(path):
    """All below it: kind, mode, content or target."""
    out = {}
    for directory_, directories, files in os.walk(path):
        for name in directories + files:
            p = os.path.join(directory_, name)
            st = os.lstat(p)
            what = os.readlink(p) if stat.S_ISLNK(st.st_mode) else open(p, "rb").read() if stat.S_ISREG(st.st_mode) else None
            out[os.path.relpath(p, path)] = (stat.S_IFMT(st.st_mode), None if stat.S_ISLNK(st.st_mode) else st.st_mode & 0o7777, what)
    return out


@pytest.fixture
def place(tmp_path):
    """A target, and beside it what must not be touched."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "target").mkdir()
    return tmp_path


def fetch(fake, place, *entries, data=None, format=tarfile.PAX_FORMAT):
    before = everything(place / "outside")
    send(fake, data if data is not None else archive(*entries, format=format))
    done = fake.iron("cp", "-r", "demo:dir/.", "target", cwd=place)
    assert everything(place / "outside") == before
    assert sorted(os.listdir(place)) == ["outside", "target"]
    assert done.returncode in (0, 1) and b"Sanitizer" not in done.stderr, done
    for name in everything(place / "target"):
        assert ".iron-" not in name
    return done


# --- what is honest ---

HONEST = [directory("a"), entry("a/f", b"x" * 100000, mode=0o755), entry("a/empty"), link("a/l", "f"), link("a/up", "../top"), entry("top", b"t"),
          directory("a/b/"), entry("./a/b/" + "n" * 200, b"long"), entry("/".join(["d" * 50] * 6) + "/deep", b"deep"), entry("ünï 名前", b"u"),
          entry("hard", type=tarfile.LNKTYPE, link="a/f"), link("dangling", "nowhere"), directory("locked", 0o500), entry("locked/f", b"in"),
          entry("missing/parents/f", b"p")]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_a_tree_comes_as_it_is(fake, place, format):
    done = fetch(fake, place, *HONEST, format=format)
    assert done.returncode == 0, done.stderr
    t = place / "target"
    assert (t / "a/f").read_bytes() == b"x" * 100000 and (t / "a/f").stat().st_mode & 0o7777 == 0o755 and (t / "a/f").stat().st_mtime == 1700000000
    assert os.readlink(t / "a/l") == "f" and (t / "a/up").read_text() == "t" and (t / "a/b" / ("n" * 200)).read_text() == "long"
    assert (t / "ünï 名前").read_text() == "u" and (t / "hard").stat().st_ino == (t / "a/f").stat().st_ino
    assert (t / "locked").stat().st_mode & 0o7777 == 0o500 and (t / "locked/f").read_text() == "in" and (t / "missing/parents/f").exists()
    done = fetch(fake, place, *HONEST, format=format)  # and again over itself
    assert done.returncode == 0, done.stderr


def test_where_it_goes(fake, place):
    send(fake, archive(entry("f", b"1")))
    fake.ok("cp", "-r", "demo:some/dir", "target", cwd=place)
    fake.ok("cp", "-r", "demo:some/dir/", "new", cwd=place)
    fake.ok("cp", "-r", "demo:dir/.", "new2", cwd=place)
    assert (place / "target/dir/f").exists() and (place / "new/f").exists() and (place / "new2/f").exists()
    done = fake.iron("cp", "-r", "demo:dir", "no/such", cwd=place)
    assert done.returncode == 1 and b"no/such" in done.stderr
    fake.on("GET", STAT, {"data": {"name": "x", "type": "file"}})
    fake.on("GET", rf"/vms/{VM_ID}/files\?path=.*", (200, b"one file"))
    fake.ok("cp", "-r", "demo:f", "target", cwd=place)
    assert (place / "target/f").read_text() == "one file"


def test_what_is_there_is_replaced_and_not_followed(fake, place):
    t = place / "target"
    (t / "f").symlink_to(place / "outside/secret")
    (t / "hard").hardlink_to(place / "outside/secret")
    done = fetch(fake, place, entry("f", b"new"), entry("hard", b"new"), link("l", "f"))
    assert done.returncode == 0 and (t / "f").read_text() == "new" and not (t / "f").is_symlink() and (t / "hard").read_text() == "new"


# --- what is not ---

REFUSED = {
    "absolute": [entry("/tmp/iron-evil", b"x")],
    "up": [entry("../outside/evil", b"x")],
    "up within": [directory("a"), entry("a/../../outside/evil", b"x")],
    "dots inside": [entry("a/./b", b"x")],
    "dot dot alone": [entry("..", b"x")],
    "dot dot directory": [directory("..")],
    "empty part": [entry("a//b", b"x")],
    "control byte": [entry("a\x1b[2J", b"x")],
    "newline": [entry("a\nb", b"x")],
    "delete byte": [entry("a\x7f", b"x")],
    "too deep": [entry("/".join(["d"] * 200), b"x")],
    "part too long": [entry("n" * 300, b"x")],
    "link out, absolute": [link("l", "/etc")],
    "link up": [link("l", "../outside")],
    "link up in disguise": [directory("a"), link("a/l", "b/../../../outside")],
    "link through link": [directory("a"), directory("a/b"), link("a/b/up", "../.."), link("out", "a/b/up/../outside")],
    "empty link": [link("l", "")],
    "write through a sent link": [link("l", "."), entry("l/f", b"x")],
    "write through a link to a directory": [directory("d"), link("l", "d"), entry("l/f", b"x")],
    "directory over a link": [directory("d"), link("l", "d"), directory("l")],
    "hard link out": [entry("h", type=tarfile.LNKTYPE, link="../outside/secret")],
    "hard link to an absolute": [entry("h", type=tarfile.LNKTYPE, link="/etc/passwd")],
    "hard link to a link": [link("l", "nowhere"), entry("h", type=tarfile.LNKTYPE, link="l")],
    "hard link to a directory": [directory("d"), entry("h", type=tarfile.LNKTYPE, link="d")],
    "character device": [entry("null", type=tarfile.CHRTYPE)],
    "block device": [entry("sda", type=tarfile.BLKTYPE)],
    "pipe": [entry("p", type=tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_and_said(fake, place, what):
    done = fetch(fake, place, entry("before", b"b"), *REFUSED[what], entry("after", b"a"))
    assert done.returncode == 1 and (b"refused" in done.stderr or b"no archive" in done.stderr), done.stderr
    assert b"\x1b" not in done.stderr
    t = place / "target"
    assert (t / "before").exists() and not (t / "after").exists()
    for name, (kind, _, target) in everything(t).items():
        if kind == stat.S_IFLNK:
            inside = os.path.realpath(t / name)
            assert inside == str(t) or inside.startswith(str(t) + "/"), (name, target)


def test_a_link_of_this_users_own_on_the_way(fake, place):
    (place / "target/l").symlink_to(place / "outside")
    done = fetch(fake, place, entry("l/secret", b"overwritten"))
    assert done.returncode == 1 and b"link here" in done.stderr
    done = fetch(fake, place, directory("l", 0o777))
    assert done.returncode == 1


def test_modes_give_nothing_away(fake, place):
    done = fetch(fake, place, entry("suid", b"x", mode=0o6755), directory("sticky", 0o1777))
    assert done.returncode == 0
    assert (place / "target/suid").stat().st_mode & 0o7777 == 0o755 and (place / "target/sticky").stat().st_mode & 0o7000 == 0


def test_what_is_no_archive(fake, place):
    good = archive(*HONEST)
    rng = random.Random(6)
    cases = [b"", b"x", b"\0" * 512, os.urandom(5000), good[:100], good[:512], good[:1000], good[:-2000], b"\0" * 1024 + good, good + os.urandom(3000)]
    big = bytearray(archive(entry("f", b"x")))
    big[124:136] = b"\x80" + b"\xff" * 11
    cases.append(bytes(big))
    for _ in range(60):
        data = bytearray(good)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            data[at] = rng.randrange(256)
            if rng.random() < 0.7:  # and its header's sum is right again
                head = at - at % 512
                data[head + 148:head + 156] = b" " * 8
                data[head + 148:head + 156] = b"%06o\0 " % sum(data[head:head + 512])
        cases.append(bytes(data))
    for data in cases:
        fetch(fake, place, data=data)
        subprocess.run(["chmod", "-R", "u+rwx", place / "target"], check=True)
        subprocess.run(["rm", "-rf", place / "target"], check=True)
        (place / "target").mkdir()
    assert fetch(fake, place, data=good[:5000]).returncode == 1
    assert fetch(fake, place, data=b"").returncode == 1


def test_a_pax_header_that_lies(fake, place):
    for records in (b"99999999999 path=x\n", b"5 path=x\n", b"10 path=x\n" * 5, b"12 path=../../x\n", b"x path=x\n", b"9 path=\n", b"30 size=99999999999999999999999\n"):
        head, _ = entry("pax", records, type=tarfile.XHDTYPE)
        done = fetch(fake, place, data=head.tobuf(tarfile.USTAR_FORMAT) + records.ljust(512, b"\0") + archive(entry("f", b"x")))
        assert done.returncode in (0, 1)


def test_directories_whose_mode_comes_later_are_not_remembered_without_end(fake, place):
    one = directory("d", 0o500)[0].tobuf(tarfile.USTAR_FORMAT)
    done = fetch(fake, place, data=one * 1000 + bytes(1024))
    assert done.returncode == 0 and (place / "target/d").stat().st_mode & 0o7777 == 0o500, done.stderr
    (place / "target/d").chmod(0o700)
    done = fetch(fake, place, data=one * 65537 + bytes(1024))
    assert done.returncode == 1 and b"more than 65536 directories that their owner" in done.stderr, done.stderr


def test_ctrl_c_leaves_whole_files_and_no_others(fake, place):
    begun = []

    def endless(h):
        h.send_response(200)
        h.send_header("Content-Length", str(1 << 40))
        h.end_headers()
        h.wfile.write(archive(entry("whole", b"w" * 600))[:1536])
        info = tarfile.TarInfo("part")
        info.size = 1 << 33
        h.wfile.write(info.tobuf(tarfile.PAX_FORMAT))
        while True:
            h.wfile.write(b"x" * 1024)
            begun.append(1)
            time.sleep(0.02)
    fake.on("GET", ARCHIVE, endless)
    p = fake.start("cp", "-r", "demo:dir/.", "target", cwd=place)
    wait_for("the copy", lambda: len(begun) > 5 and len(os.listdir(place / "target")) == 2)
    p.send_signal(signal.SIGTERM)
    out, err = p.communicate(timeout=20)
    assert p.returncode == 130 and b"not complete" in err and os.listdir(place / "target") == ["whole"]


# --- and the other way ---

def upload(fake, place, *words):
    got = []
    fake.on("GET", STAT, error(404, "file_not_found", "no"))
    fake.on("PUT", ARCHIVE, lambda h: (got.append(h.body()), {"data": {"name": "x", "type": "directory"}})[-1])
    done = fake.iron("cp", "-r", *words, cwd=place)
    return done, got[0] if got else b""


def test_a_tree_goes_as_it_is(fake, place, tmp_path):
    src = place / "src"
    (src / "a/b/c").mkdir(parents=True)
    (src / "a/f").write_bytes(os.urandom(300000))
    (src / "a/f").chmod(0o750)
    (src / "a/b" / ("n" * 180)).write_text("long")
    (src / "ünï").write_text("u")
    (src / "empty").write_text("")
    (src / "l").symlink_to("a/f")
    (src / "out").symlink_to("/etc/passwd")
    (src / ("t" * 150)).symlink_to("x" * 200)
    os.mkfifo(src / "pipe")
    done, data = upload(fake, place, "src", "demo:")
    assert done.returncode == 0 and b"1 that are neither" in done.stderr, done.stderr
    assert fake.seen[-1][1].endswith("archive?path=.")
    (place / "copy").mkdir()
    subprocess.run(["tar", "x", "--no-same-owner", "-C", place / "copy"], input=data, check=True)
    os.unlink(src / "pipe")
    assert everything(place / "copy") == everything(src)  # GNU tar reads it as we mean it
    send(fake, data)
    fake.on("GET", STAT, {"data": {"name": "x", "type": "directory"}})
    os.unlink(src / "out")
    done = fake.iron("cp", "-r", "demo:x/.", "target", cwd=place)
    assert done.returncode == 1 and b"link that leads out" in done.stderr  # ours comes back, and is held to the same


def test_what_cannot_be_read_is_said(fake, place):
    (place / "src").mkdir()
    (place / "src/good").write_text("g")
    (place / "src/gone").write_text("g")
    user = {"preexec_fn": lambda: os.setresuid(65534, 65534, 65534)}
    (place / "src/gone").chmod(0)
    got = []
    fake.on("GET", STAT, error(404, "file_not_found", "no"))
    fake.on("PUT", ARCHIVE, lambda h: (got.append(h.body()), {"data": {}})[-1])
    for d in (place, *place.parents):
        if str(d).startswith("/tmp/pytest"):
            d.chmod(0o755)
    home = fake.path / "home-nobody"
    if not home.exists():
        fake.configure(home)
        fake.path.chmod(0o755)
        subprocess.run(["chown", "-R", "65534:65534", home], check=True)
    import shutil
    binary = shutil.copy(__import__("cli_lab").IRON, fake.path / "iron")
    done = subprocess.run([binary, "cp", "-r", str(place / "src"), "demo:"], capture_output=True, env=fake.env(HOME=str(home)), cwd="/", timeout=60, **user)
    assert done.returncode == 1 and b"gone: Permission denied" in done.stderr and b"all others were copied" in done.stderr, done
    assert tarfile.open(fileobj=io.BytesIO(got[0])).getnames() == ["good"]


def test_a_directory_needs_r(fake, place):
    done = fake.iron("cp", "outside", "demo:", cwd=place)
    assert done.returncode == 1 and b"-r" in done.stderr
