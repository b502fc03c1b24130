"""Files, detached executions and the console through iron-vm and iron-agent, without a whole iron

The real agent runs on this host, its contract in namespaces of its own; its peers may mean ill."""

import io
import os
import pathlib
import stat
import subprocess
import tarfile
import tempfile
import time

import pytest

import guest_lab as lab
import wire
from guest_lab import (ATTACH, CONSOLE, DIRECTORY, EXEC_REMOVE, EXEC_ROW, EXEC_SIGNAL, EXECS, F_LIST, F_MKDIR, F_MOVE,
                       F_PACK, F_READ, F_REMOVE, F_STAT, F_UNPACK, F_WRITE, FILE, LINK, MODE_NONE, OTHER, READY,
                       REGULAR, STARTED, STDIN, STDIN_EOF, STDOUT)

DONE = ("done",)


@pytest.fixture
def pair(tmp_path):
    """A ready machine and its agent; nothing of it is left open afterwards."""
    vm = lab.IronVm()
    agent = lab.HostAgent(vm.ours.pop("agent"), tmp_path)
    try:
        assert vm.contract() == 0
        vm.wait_state(READY)
        vm.at_rest = vm.descriptors()
        vm.agent = agent
        yield vm
        lab.wait_for("streams to be closed", lambda: vm.descriptors() == vm.at_rest)
        lab.wait_for("children to end", lambda: not agent.children())
        assert vm.alive()
    finally:
        vm.close()
        agent.close()


@pytest.fixture
def directory():
    """One that the user nobody owns, and reaches."""
    with tempfile.TemporaryDirectory(prefix="iron-test-files-") as d:
        os.chown(d, 65534, 65534)
        yield pathlib.Path(d)


def test_write_then_read(pair, directory):
    content = os.urandom(3 << 20)
    path = str(directory / "a")
    end, (info,), _, _ = pair.file(F_WRITE, path, content, user="nobody", mode=0o640)
    assert end == DONE
    assert (info["kind"], info["size"], info["mode"], info["owner"]) == (REGULAR, len(content), 0o640, b"nobody")
    assert (directory / "a").read_bytes() == content and (directory / "a").stat().st_uid == 65534
    end, (info,), out, _ = pair.file(F_READ, path, user="nobody")
    assert end == DONE and info["size"] == len(content) and out == content
    assert abs(info["modified_at"] / 1000 - time.time()) < 60
    assert os.listdir(directory) == ["a"]


def error(answer):
    end = answer[0]
    assert end[0] == "error", end
    return end[1]


def test_write_replaces_whole_and_keeps_mode_and_owner(pair, directory):
    path = directory / "a"
    path.write_bytes(b"old")
    os.chown(path, 1, 2)
    path.chmod(0o4750)
    before = path.stat().st_ino
    end, (info,), _, _ = pair.file(F_WRITE, str(path), b"new")
    assert end == DONE and path.read_bytes() == b"new"
    now = path.stat()
    assert (stat.S_IMODE(now.st_mode), now.st_uid, now.st_gid) == (0o4750, 1, 2) and now.st_ino != before
    assert (info["owner"], info["mode"]) == (b"daemon", 0o4750)
    end, (info,), _, _ = pair.file(F_WRITE, str(path), b"", owner="bin:daemon", mode=0o600)
    assert end == DONE and path.read_bytes() == b""
    assert (path.stat().st_uid, path.stat().st_gid) == (2, 1) and info["group"] == b"daemon"
    assert error(pair.file(F_WRITE, str(path), b"", owner="no-such")) == "no_such_user"
    assert error(pair.file(F_WRITE, str(path), b"x", user="nobody")) == "denied"
    assert error(pair.file(F_WRITE, str(directory / "b"), b"x", user="nobody", owner="root")) == "denied"
    assert path.read_bytes() == b"" and os.listdir(directory) == ["a"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(pair, directory):
    path = directory / "a"
    path.write_bytes(b"old")
    for end_by in ("close", "refused", "reset"):
        stream = pair.open()
        stream.send(FILE, wire.encode("stream_file", op=F_WRITE, path=str(path), user="root", mode=MODE_NONE))
        for _ in range(20):
            stream.send(STDIN, b"x" * 32768)
        lab.wait_for("the child", pair.agent.children)
        if end_by == "close":
            stream.close()
        elif end_by == "refused":
            stream.send(lab.RESIZE, b"\0\0\0\0")
            assert error(stream.answers()) == "bad_request"
            stream.close()
        else:
            pair.qmp.event("VSERPORT_CHANGE", id="iron.0", open=False)
            assert error(stream.answers()) == "vm_gone"
            stream.close()
            pair.wait_state(READY)
        lab.wait_for("the child to end", lambda: not pair.agent.children())
        assert path.read_bytes() == b"old" and os.listdir(directory) == ["a"]


def test_what_cannot_be_read_or_written(pair, directory):
    os.mkfifo(directory / "fifo")
    os.mkdir(directory / "dir")
    (directory / "secret").write_bytes(b"s")
    (directory / "secret").chmod(0o600)
    (directory / "loop").symlink_to("loop")
    cases = {"fifo": "unsafe", "dir": "is_a_directory", "none": "no_such_file", "secret/x": "not_a_directory",
             "secret": "denied", "loop": "bad_path", "n" * 300: "bad_path"}
    for name, code in cases.items():
        assert error(pair.file(F_READ, str(directory / name), user="nobody")) == code, name
    cases = {"fifo": "unsafe", "dir": "is_a_directory", "none/x": "no_such_file", "secret/x": "not_a_directory",
             "secret": "denied", "dir/": "is_a_directory", "n" * 300: "bad_path"}
    for name, code in cases.items():
        assert error(pair.file(F_WRITE, f"{directory}/{name}", b"x" * 1000000, user="nobody")) == code, name
    assert error(pair.file(F_READ, "/dev/zero")) == "unsafe"
    assert error(pair.file(F_READ, "/etc/passwd", user="no-such-user")) == "no_such_user"
    for bad in ({"path": ""}, {"path": "a\0b"}, {"path": "x", "op": F_MOVE}, {"path": "x", "mode": 0o10000},
                {"path": "x", "limit": 1001}):
        assert error(pair.file(bad.pop("op", F_READ), **bad)) == "bad_request"
    (directory / "link").symlink_to("secret")
    end, (info,), out, _ = pair.file(F_READ, str(directory / "link"))
    assert end == DONE and out == b"s" and info["kind"] == REGULAR
    assert pair.file(F_WRITE, str(directory / "link"), b"new")[0] == DONE
    assert not (directory / "link").is_symlink() and (directory / "secret").read_bytes() == b"s"


def test_files_of_the_kernel_s(pair):
    end, (info,), out, _ = pair.file(F_READ, "/proc/version")
    assert end == DONE and info["kind"] == OTHER and out == pathlib.Path("/proc/version").read_bytes()


def test_paths_begin_at_home(pair, directory):
    assert pair.run(["sh", "-c", "pwd"], user="root")[1] == b"/root\n"
    end, rows, _, _ = pair.file(F_STAT, ".")
    assert end == DONE and rows[0]["kind"] == DIRECTORY
    assert pair.file(F_READ, "../etc/passwd")[2].startswith(b"root:")


def test_parents_and_directories(pair, directory):
    path = directory / "x" / "y" / "z"
    assert error(pair.file(F_WRITE, str(path), b"1")) == "no_such_file"
    assert pair.file(F_WRITE, str(path), b"1", user="nobody", recursive=True)[0] == DONE
    assert path.read_bytes() == b"1" and path.parent.stat().st_uid == 65534
    end, (info,), _, _ = pair.file(F_MKDIR, str(directory / "m"), mode=0o2770, owner="nobody")
    assert end == DONE and info["mode"] == 0o2770 and info["owner"] == b"nobody" and info["kind"] == DIRECTORY
    assert error(pair.file(F_MKDIR, str(directory / "m"))) == "exists"
    assert pair.file(F_MKDIR, str(directory / "m"), recursive=True)[0] == DONE
    assert error(pair.file(F_MKDIR, str(path), recursive=True)) == "exists"
    assert error(pair.file(F_MKDIR, str(directory / "n" / "o"))) == "no_such_file"
    assert pair.file(F_MKDIR, str(directory / "n" / "o"), recursive=True)[0] == DONE


def test_move(pair, directory):
    a, b = directory / "a", directory / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    assert error(pair.file(F_MOVE, str(a), to=str(b))) == "exists" and b.read_bytes() == b"b"
    end, (info,), _, _ = pair.file(F_MOVE, str(a), to=str(b), overwrite=True)
    assert end == DONE and info["size"] == 1 and b.read_bytes() == b"a" and not a.exists()
    assert error(pair.file(F_MOVE, str(a), to=str(b))) == "no_such_file"
    assert pair.file(F_MOVE, str(b), to=str(a))[0] == DONE
    a.chmod(0o4755)
    os.utime(a, (1, 1600000000))
    end, (info,), _, _ = pair.file(F_MOVE, str(a), to="/run/a")
    assert end == DONE and not a.exists() and (info["mode"], info["modified_at"]) == (0o4755, 1600000000000)
    assert error(pair.file(F_MOVE, "/run/a", to=str(a), user="nobody")) == "denied" and not a.exists()
    b.write_bytes(b"b")
    assert error(pair.file(F_MOVE, "/run/a", to=str(b))) == "exists" and b.read_bytes() == b"b"
    assert pair.file(F_MOVE, "/run/a", to=str(b), overwrite=True)[0] == DONE and b.read_bytes() == b"a"
    assert pair.file(F_MOVE, str(b), to=str(a))[0] == DONE
    (directory / "d").mkdir()
    assert error(pair.file(F_MOVE, str(directory / "d"), to="/run/d")) == "bad_path"
    assert sorted(os.listdir(directory)) == ["a", "d"] and pair.agent.run_beside("ls", "/run").split() == ["iron"]
    assert error(pair.file(F_MOVE, "/etc/passwd", to=str(b), user="nobody")) in ("denied", "bad_path")


def test_remove(pair, directory):
    outside = directory / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"k")
    tree = directory / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside)
    (tree / "empty").mkdir()
    deep = tree
    for _ in range(300):
        deep = deep / "d"
        deep.mkdir()
        (deep / "f").write_bytes(b"")
    assert error(pair.file(F_REMOVE, str(tree))) == "not_empty"
    assert error(pair.file(F_REMOVE, str(tree / "none"), recursive=True)) == "no_such_file"
    assert pair.file(F_REMOVE, str(tree / "d" / "f"))[0] == DONE
    assert pair.file(F_REMOVE, str(tree / "empty/"))[0] == DONE
    assert pair.file(F_REMOVE, str(tree), recursive=True) == (DONE, [], b"", b"")
    assert not tree.exists() and (outside / "kept").exists()
    for path in ("/", ".", f"{outside}/.", f"{outside}/.."):
        assert error(pair.file(F_REMOVE, path, recursive=True)) == "bad_path"
    assert error(pair.file(F_REMOVE, str(outside / "kept"), user="daemon")) == "denied"


def test_a_tree_deeper_than_paths_are_long(pair, directory):
    top = os.open(directory, os.O_RDONLY)
    at = top
    for _ in range(1000):
        os.mkdir("d", dir_fd=at)
        below = os.open("d", os.O_RDONLY, dir_fd=at)
        if at != top:
            os.close(at)
        at = below
    os.close(at)
    os.close(top)
    assert pair.file(F_REMOVE, str(directory / "d"), recursive=True)[0] == DONE
    assert not list(directory.iterdir())


def test_stat_and_list(pair, directory):
    (directory / "f").write_bytes(b"123")
    (directory / "l").symlink_to("f")
    os.mkfifo(directory / "p")
    (directory / "d").mkdir()
    (directory / os.fsdecode(b"\xff\x1b[0m")).write_bytes(b"")
    end, rows, _, _ = pair.file(F_LIST, str(directory))
    assert end == DONE
    assert [(r["name"], r["kind"]) for r in rows] == [(b"d", DIRECTORY), (b"f", REGULAR), (b"l", LINK), (b"p", OTHER),
                                                      (b"\xff\x1b[0m", REGULAR)]
    assert rows[1]["size"] == 3 and rows[2]["target"] == b"f" and not any(r["more"] for r in rows)
    end, (info,), _, _ = pair.file(F_STAT, str(directory / "l"))
    assert end == DONE and info["kind"] == LINK and info["target"] == b"f" and info["name"] == b""
    assert error(pair.file(F_LIST, str(directory / "f"))) == "not_a_directory"
    assert error(pair.file(F_STAT, str(directory / "none"))) == "no_such_file"
    assert pair.file(F_LIST, str(directory / "d")) == (DONE, [], b"", b"")


def test_a_directory_of_100000(pair, directory):
    at = os.open(directory, os.O_RDONLY)
    for i in range(100000):
        os.mknod(f"{i:06}", 0o100644, dir_fd=at)
    os.close(at)
    seen, last = 0, ""
    for limit in (1, 10, 1000, 1000):
        end, rows, _, _ = pair.file(F_LIST, str(directory), to=last, limit=limit)
        assert end == DONE and [r["name"] for r in rows] == [b"%06d" % i for i in range(seen, seen + limit)]
        assert [r["more"] for r in rows] == [False] * (limit - 1) + [True]
        seen, last = seen + limit, rows[-1]["name"].decode()
    end, rows, _, _ = pair.file(F_LIST, str(directory), to="099990")
    assert [r["name"] for r in rows] == [b"%06d" % i for i in range(99991, 100000)] and not rows[-1]["more"]
    assert pair.file(F_REMOVE, str(directory), recursive=True)[0] == DONE
    directory.mkdir()


# --- detached executions ---

def start(vm, exec_id, command, **how):
    stream = vm.open()
    stream.exec(command=command, exec_id=exec_id, detach=True, **how)
    assert stream.receive()[0] == STARTED
    assert stream.answers()[0] == DONE
    stream.close()


def attach(vm, exec_id, **how):
    return vm.ask(ATTACH, "stream_attach", exec=exec_id, **how)


def row_of(vm, exec_id):
    (row,) = [r for r in vm.ask(EXECS)[1] if r["exec"] == exec_id]
    return row


def wait_ended(vm, exec_id):
    return lab.wait_for("the end", lambda: (lambda r: not r["running"] and r)(row_of(vm, exec_id)))


def test_a_detached_command_is_kept(pair):
    start(pair, 7, "echo out; echo err >&2; exit 3")
    row = wait_ended(pair, 7)
    assert (row["code"], row["output"], row["offset"], row["detached"]) == (3, 8, 0, True)
    assert row["command"] == b"echo out; echo err >&2; exit 3" and row["user"] == b"root"
    assert 0 < row["started_at"] <= row["ended_at"] <= time.time() * 1000 + 1000
    end, (row,), out, err = attach(pair, 7)
    assert (end, out, err) == (DONE, b"out\n", b"err\n") and row["offset"] == 0 and not row["running"]
    end, (row,), out, err = attach(pair, 7, offset=2, follow=True)
    assert end == ("exit", 3, 0, 0) and row["offset"] == 2 and len(out + err) == 6
    assert attach(pair, 7, offset=99)[1][0]["offset"] == 8
    assert pair.ask(EXEC_REMOVE, "stream_exec_ref", exec=7)[0] == DONE
    for answer in (attach(pair, 7), pair.ask(EXEC_REMOVE, "stream_exec_ref", exec=7),
                   pair.ask(EXEC_SIGNAL, "stream_exec_signal", exec=7, number=15)):
        assert error(answer) == "no_such_exec"


def test_it_outlives_its_stream_and_the_channel(pair):
    start(pair, 1, "for i in 1 2 3; do read x; echo $x; done")
    follower = pair.open()
    follower.send(ATTACH, wire.encode("stream_attach", exec=1, follow=True, input=True))
    assert follower.receive()[0] == EXEC_ROW
    follower.send(STDIN, b"one\n")
    assert follower.receive() == (STDOUT, b"one\n")
    assert error(attach(pair, 1, input=True)) == "limit"
    pair.qmp.event("VSERPORT_CHANGE", id="iron.0", open=False)
    assert error(follower.answers()) == "vm_gone"
    follower.close()
    pair.wait_state(READY)
    assert attach(pair, 1)[2] == b"one\n"
    follower = pair.open()
    follower.send(ATTACH, wire.encode("stream_attach", exec=1, offset=4, follow=True, input=True))
    follower.send(STDIN, b"two\nthree\n")
    end, (row,), out, _ = follower.answers()
    assert (end, out, row["offset"], row["running"]) == (("exit", 0, 0, 0), b"two\nthree\n", 4, True)
    follower.close()


def test_signals_and_removal(pair):
    start(pair, 1, "trap 'echo got; exit 5' TERM; echo up; while :; do sleep 0.05; done")
    start(pair, 2, "sleep 600 & sleep 600")
    lab.wait_for("it to be up", lambda: attach(pair, 1)[2])
    assert pair.ask(EXEC_SIGNAL, "stream_exec_signal", exec=1, number=15)[0] == DONE
    assert attach(pair, 1, follow=True)[::2] == (("exit", 5, 0, 0), b"up\ngot\n")
    assert error(pair.ask(EXEC_SIGNAL, "stream_exec_signal", exec=1, number=15)) == "ended"
    assert error(pair.ask(EXEC_SIGNAL, "stream_exec_signal", exec=2, number=0)) == "bad_request"
    follower = pair.open()
    follower.send(ATTACH, wire.encode("stream_attach", exec=2, follow=True))
    assert follower.receive()[0] == EXEC_ROW
    assert pair.ask(EXEC_REMOVE, "stream_exec_ref", exec=2)[0] == DONE
    assert follower.answers()[0] == ("exit", 137, 9, 0)
    follower.close()
    assert [r["exec"] for r in pair.ask(EXECS)[1]] == [1]


def test_only_the_last_8_mib_are_kept(pair):
    start(pair, 1, "i=0; while [ $i -lt 300 ]; do printf '%065536d' $i; i=$((i+1)); done")
    row = wait_ended(pair, 1)
    assert row["output"] == 300 * 65536 and (7 << 20) < row["output"] - row["offset"] <= (8 << 20)
    end, (row,), out, _ = attach(pair, 1)
    assert end == DONE and len(out) == row["output"] - row["offset"] and out.endswith(b"0" * 65533 + b"299")
    whole = b"".join(b"%065536d" % i for i in range(300))
    assert out == whole[row["offset"] :]
    assert attach(pair, 1, offset=row["output"] - 10)[2] == whole[-10:]


def test_a_follower_that_falls_behind_is_told(pair):
    follower = None
    start(pair, 1, "read x; head -c 30000000 /dev/zero")
    follower = pair.open()
    follower.send(ATTACH, wire.encode("stream_attach", exec=1, follow=True, input=True))
    follower.send(STDIN, b"\n")
    wait_ended(pair, 1)
    end, rows, out, _ = follower.answers()
    assert end == ("exit", 0, 0, 0) and len(rows) == 2 and rows[1]["offset"] > 30000000 - (8 << 20) - 1
    assert len(out) < 30000000 and rows[1]["output"] == 30000000
    follower.close()


def test_ordinary_ones_are_listed(pair):
    stream = pair.open()
    stream.exec(["sleep", "600", *["00"] * 3000], exec_id=5)
    assert stream.receive()[0] == STARTED
    row = row_of(pair, 5)
    assert row["running"] and not row["detached"] and row["argv"][:2] == [b"sleep", b"600"]
    assert 100 < len(row["argv"]) < 3000
    assert error(attach(pair, 5, input=True)) == "bad_request"
    assert error(pair.ask(lab.EXEC, "stream_exec", exec=5, command="true")) == "bad_request"
    assert pair.ask(EXEC_SIGNAL, "stream_exec_signal", exec=5, number=9)[0] == DONE
    assert stream.finish()[0] == ("exit", 137, 9, 0)
    stream.close()
    assert row_of(pair, 5)["code"] == 137 and attach(pair, 5, follow=True)[0] == ("exit", 137, 9, 0)


def test_the_table_is_bounded(pair):
    for i in range(1, 71):
        assert pair.run(["true"], exec_id=i)[0][1] == 0
    assert [r["exec"] for r in pair.ask(EXECS)[1]] == list(range(70, 6, -1))
    for i in range(100, 164):
        start(pair, i, "sleep 600")
    assert error(pair.ask(lab.EXEC, "stream_exec", exec=200, command="true", detach=True)) == "limit"
    assert error(pair.ask(lab.EXEC, "stream_exec", command="true", detach=True)) in ("limit", "bad_request")
    for i in range(100, 164):
        assert pair.ask(EXEC_REMOVE, "stream_exec_ref", exec=i)[0] == DONE
    lab.wait_for("them to end", lambda: not pair.agent.children())
    start(pair, 200, "true")


def test_what_does_not_start_is_not_listed(pair):
    answer = pair.ask(lab.EXEC, "stream_exec", exec=1, argv=["/no/such"], detach=True)
    assert error(answer) == "exec_failed" and pair.ask(EXECS)[1] == []


def test_a_detached_terminal_and_timeout(pair):
    start(pair, 1, "stty size; cat", tty=True, rows=30, cols=99)
    start(pair, 2, "sleep 600", timeout_ms=200)
    lab.wait_for("its size", lambda: attach(pair, 1)[2] == b"30 99\r\n")
    stream = pair.open()
    stream.send(ATTACH, wire.encode("stream_attach", exec=1, follow=True, input=True))
    stream.send(STDIN_EOF)
    assert stream.answers()[0] == ("exit", 0, 0, 0)
    stream.close()
    row = wait_ended(pair, 2)
    assert (row["code"], row["signal"], row["timed_out"]) == (143, 15, True)


# --- the console ---

def test_the_console_in_any_state(pair):
    assert pair.ask(CONSOLE)[::2] == (DONE, b"")
    pair.ours["console"].sendall(bytes(range(256)) * 400)
    lab.wait_for("it to be read", lambda: len(pair.ask(CONSOLE)[2]) == 65536)
    end, _, out, _ = pair.ask(CONSOLE)
    assert end == DONE and out == bytes(range(256)) * 256
    pair.qmp.event("SHUTDOWN", guest=True, reason="guest-shutdown")
    pair.wait_state(lab.OFF)
    assert pair.refuses()
    assert pair.ask(CONSOLE)[2] == out


# --- archives ---

def tar_of(*members):
    """Of (name, type, content or target, mode)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, content, mode in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, mode, 1600000000
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                tar.addfile(info)
    return out.getvalue()


def test_pack_and_unpack(pair, directory):
    tree = directory / "tree"
    (tree / "sub" / "empty").mkdir(parents=True)
    (tree / "sub" / ("n" * 200)).write_bytes(os.urandom(700001))
    (tree / "script").write_bytes(b"#!/bin/sh\n")
    (tree / "script").chmod(0o755)
    (tree / "link").symlink_to("sub/empty")
    os.mkfifo(tree / "fifo")
    (tree / "sub").chmod(0o555)
    end, (info,), archive, _ = pair.file(F_PACK, str(tree))
    assert end == DONE and info["kind"] == DIRECTORY
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert sorted(m.name for m in tar) == ["link", "script", "sub", "sub/empty", "sub/" + "n" * 200]
        assert tar.extractfile("sub/" + "n" * 200).read() == (tree / "sub" / ("n" * 200)).read_bytes()
        assert tar.getmember("script").mode == 0o755 and tar.getmember("script").uname == "root"
    copy = directory / "copy"
    end, (info,), _, _ = pair.file(F_UNPACK, str(copy), archive, user="nobody")
    assert end == DONE and info["kind"] == DIRECTORY and info["owner"] == b"nobody"
    (tree / "fifo").unlink()
    assert subprocess.run(["diff", "-r", "--no-dereference", tree, copy]).returncode == 0
    assert stat.S_IMODE((copy / "sub").stat().st_mode) == 0o555 and (copy / "script").stat().st_uid == 65534
    assert stat.S_IMODE((copy / "script").stat().st_mode) == 0o755
    assert int((copy / "script").stat().st_mtime) == int((tree / "script").stat().st_mtime)
    end, (info,), archive, _ = pair.file(F_PACK, str(tree / "script"))
    assert end == DONE and info["kind"] == REGULAR
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getnames() == ["script"]
    assert error(pair.file(F_PACK, str(tree / "none"))) == "no_such_file"
    assert error(pair.file(F_PACK, "/dev/null")) == "unsafe"


def test_unpack_over_what_is_there(pair, directory):
    (directory / "f").write_bytes(b"old")
    (directory / "l").symlink_to("/etc")
    F, D, S, H = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE
    archive = tar_of(("./", D, "", 0o700), ("f", F, b"new", 0o4644), ("a/b/c", F, b"deep", 0o600), ("l", F, b"f", 0o644),
                     ("s", S, "a/b", 0o777), ("h", H, "a/b/c", 0o600), ("f", F, b"newer", 0o644))
    assert pair.file(F_UNPACK, str(directory), archive, owner="bin")[0] == DONE
    assert (directory / "f").read_bytes() == b"newer" and (directory / "f").stat().st_uid == 2
    assert (directory / "l").read_bytes() == b"f" and not (directory / "l").is_symlink()
    assert (directory / "s" / "c").read_bytes() == b"deep" and (directory / "h").stat().st_nlink == 2
    assert pair.file(F_UNPACK, str(directory), tar_of(("f", F, b"x" * 300000, 0o4755)), chunk=700)[0] == DONE
    assert stat.S_IMODE((directory / "f").stat().st_mode) == 0o755


@pytest.mark.parametrize("name, kind, content", [
    ("../out", tarfile.REGTYPE, b"x"), ("/tmp/iron-out", tarfile.REGTYPE, b"x"), ("a/../../out", tarfile.REGTYPE, b"x"),
    ("l", tarfile.SYMTYPE, "/etc"), ("l", tarfile.SYMTYPE, "../x"), ("l", tarfile.SYMTYPE, "a/.."),
    ("h", tarfile.LNKTYPE, "/etc/passwd"), ("h", tarfile.LNKTYPE, "../outside"), ("h", tarfile.LNKTYPE, "planted/secret"),
    ("h", tarfile.LNKTYPE, "planted"), ("planted/x", tarfile.REGTYPE, b"x"), ("planted/", tarfile.DIRTYPE, ""),
    ("dev", tarfile.CHRTYPE, ""), ("dev", tarfile.BLKTYPE, ""), ("p", tarfile.FIFOTYPE, ""),
])
def test_an_archive_that_would_leave(pair, directory, name, kind, content):
    root, outside = directory / "root", directory / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(b"s")
    (root / "planted").symlink_to(outside)
    archive = tar_of(("first", tarfile.REGTYPE, b"1", 0o644), (name, kind, content, 0o644),
                     ("after", tarfile.REGTYPE, b"2", 0o644))
    assert error(pair.file(F_UNPACK, str(root), archive)) == "unsafe"
    assert (root / "first").read_bytes() == b"1" and not (root / "after").exists()
    assert os.listdir(outside) == ["secret"] and (outside / "secret").stat().st_nlink == 1
    assert sorted(os.listdir(directory)) == ["outside", "root"] and not pathlib.Path("/tmp/iron-out").exists()


def test_archives_that_are_none(pair, directory):
    whole = tar_of(("f", tarfile.REGTYPE, b"x" * 5000, 0o644))
    for bad in (b"", b"x" * 100000, whole[:3000], whole[:600], b"\x1f\x8b" + os.urandom(5000)):
        assert error(pair.file(F_UNPACK, str(directory / "d"), bad)) == "bad_archive"
    assert error(pair.file(F_UNPACK, str(directory / "none" / "d"), whole)) == "no_such_file"
    assert pair.file(F_UNPACK, str(directory / "none" / "d"), whole, recursive=True)[0] == DONE
    (directory / "file").write_bytes(b"")
    assert error(pair.file(F_UNPACK, str(directory / "file"), whole)) == "not_a_directory"
    assert error(pair.file(F_UNPACK, "/root/d", whole, user="nobody")) == "denied"
