"""The command line against a whole iron and a real VM: create, files and trees both ways, commands attached and detached, Ctrl-C in the guest, run, egress, explain, the record, stats"""

import json
import os
import signal
import subprocess
import time

import pytest

from cli_lab import IRON, Terminal, in_session
from harness import Iron, wait_for
from test_cli_trees import everything


@pytest.fixture(scope="module")
def iron():
    with Iron("cli") as i:
        i.ok("create", "demo", "--label", "team=infra")
        yield i


def env(iron):
    return {"HOME": str(iron.dir / "home"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "ASAN_OPTIONS": "detect_leaks=0"}


def test_a_vm_from_first_to_last(iron):
    assert "ready" in iron.ok("list", "--label", "team=infra") and iron.ok("list", "-q") == "demo\n"
    iron.ok("set", "demo", "--label", "owner=ada", "--remove-label", "team", "--restart", "always")
    vm = json.loads(iron.ok("show", "demo", "--json"))
    assert vm["labels"] == {"owner": "ada"} and vm["restart"] == "always"
    vm_id = iron.ok("create", "second", "--async", "-q").strip()
    assert "ready" in iron.ok("wait", "second")
    iron.ok("set", "second", "--name", "third")
    assert iron.ok("stop", "third").startswith("third stopped in ")
    assert iron.ok("start", "third").startswith("third ready in ")
    done = iron.iron("destroy", "third")
    assert done.returncode == 1 and b"iron destroy --force third" in done.stderr
    assert iron.ok("destroy", "--force", "third") == "third destroyed\n"
    assert "third" not in iron.ok("list") and "third" in iron.ok("list", "--all")
    wait_for("both sessions to have ended", lambda: [bool(s["ended_at"]) for s in json.loads(iron.ok("sessions", vm_id, "--json"))] == [True, True])
    assert iron.iron("wait", vm_id, "--for", "destroyed").returncode == 0


def test_what_it_uses_and_its_console(iron):
    stats = json.loads(iron.ok("stats", "demo", "--json"))
    assert stats["running"] and stats["memory_bytes"] > 1 << 20
    assert "memory" in iron.ok("stats", "demo")
    assert isinstance(json.loads(iron.ok("console", "demo", "--json"))["console"], str)


def test_files_and_trees(iron, tmp_path):
    data = os.urandom(5 << 20)
    (tmp_path / "src/a/b").mkdir(parents=True)
    (tmp_path / "src/a/b/big").write_bytes(data)
    (tmp_path / "src/a/run").write_text("#!/bin/sh\necho hi\n")
    (tmp_path / "src/a/run").chmod(0o755)
    (tmp_path / "src/l").symlink_to("a/run")
    (tmp_path / "src" / ("n" * 200)).write_text("")
    iron.ok("cp", tmp_path / "src/a/b/big", "demo:")
    iron.ok("cp", "demo:big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == data
    iron.ok("cp", "-r", tmp_path / "src", "demo:")
    assert iron.ok("exec", "demo", "--", "src/l") == "hi\n"
    iron.ok("cp", "-r", "demo:src", tmp_path / "copy")
    assert everything(tmp_path / "copy") == everything(tmp_path / "src")
    iron.ok("cp", "-r", "demo:src/.", tmp_path / "copy")
    assert everything(tmp_path / "copy") == everything(tmp_path / "src")
    assert iron.iron("cp", "-", "demo:in", stdin=b"from stdin").returncode == 0
    assert iron.iron("cp", "demo:in", "-").stdout == b"from stdin"
    for words, says in ((["demo:nope", "."], b"nope"), (["demo:/etc", str(tmp_path / "x")], b"directory"), ([tmp_path / "back", "demo:/etc/x"], b"denied"),
                        ([tmp_path / "back", "demo:no/such/x"], b"--parents"), ([tmp_path / "src", "demo:"], b"-r")):
        done = iron.iron("cp", *words)
        assert done.returncode == 1 and says in done.stderr, done


def test_a_guest_whose_tree_means_harm(iron, tmp_path):
    """The links are real ones, made in the guest by its owner; what they lead to stays untouched here."""
    iron.ok("exec", "demo", "--", "sh", "-c", "mkdir -p evil/d && ln -s /etc evil/out && ln -s d evil/in && echo x >evil/d/f && touch 'evil/a\033[2J'")
    done = iron.iron("cp", "-r", "demo:evil", tmp_path / "evil")
    assert done.returncode == 1 and done.stderr and b"\x1b" not in done.stderr
    assert not (tmp_path / "evil/out").exists() and not (tmp_path / "evil/out").is_symlink()


def test_ctrl_c_reaches_the_guest(iron):
    t = Terminal(80, [IRON, "exec", "demo", "--", "sh", "-c", "trap 'echo caught; exit 33' INT; echo go; while :; do sleep 0.1; done"], env(iron))
    t.until(b"go")
    t.type(b"\x03")
    assert "caught" in t.wait() and t.code == 33
    t = Terminal(80, [IRON, "exec", "-t", "demo", "--", "sh"], env(iron))
    t.until(b"$ ")
    t.type(b"stty size; sh -c \"echo u''p; exec sleep 99\"\r")
    t.until(b"24 80")
    t.until(b"up")  # it is in the foreground now: between two commands Ctrl-C is nobody's
    t.type(b"\x03")
    t.type(b"echo st''ill; exit 4\r")
    assert "still" in t.wait() and t.code == 4
    assert iron.iron("exec", "--timeout", "1", "demo", "--", "sleep", "60").returncode == 124
    assert iron.iron("exec", "demo", "--", "sh", "-c", "kill -9 $$").returncode == 137


def test_a_command_that_is_left_to_itself(iron):
    script = "read line; echo got $line; for i in 1 2 3; do echo $i; echo e$i >&2; sleep 0.3; done; exit 9"
    exec_id = iron.ok("exec", "-d", "demo", "--", "sh", "-c", script).strip()
    assert exec_id in iron.ok("ps", "demo") and exec_id in iron.ok("ps", "demo", "--running", "-q")
    done = iron.iron("attach", "demo", exec_id, stdin=b"word\n")
    assert done.returncode == 9 and done.stdout.startswith(b"got word\n1\n2\n3\n") and b"e1\ne2\ne3\n" in done.stderr
    done = iron.iron("logs", "-f", "demo", exec_id)
    assert done.returncode == 0 and done.stdout == b"got word\n1\n2\n3\n" and done.stderr == b"e1\ne2\ne3\n"
    assert json.loads(iron.ok("logs", "demo", exec_id, "--json"))["exit_code"] == 9
    assert iron.iron("attach", "demo", exec_id).returncode == 9
    iron.ok("exec", "-d", "demo", "--", "sleep", "1000")
    iron.ok("kill", "demo", "sleep", "-s", "KILL")
    wait_for("its end", lambda: not json.loads(iron.ok("ps", "demo", "--running", "--json")), 15)
    iron.ok("kill", "demo", exec_id, "--remove")
    assert exec_id not in iron.ok("ps", "demo")


def test_run(iron, tmp_path):
    done = subprocess.run([IRON, "run", "--out", "result", "--", "sh", "-c", "echo out; echo r >result; exit 6"], capture_output=True, env=env(iron),
                          cwd=tmp_path, stdin=subprocess.DEVNULL, timeout=120)
    assert (done.returncode, done.stdout) == (6, b"out\n") and (tmp_path / "result").read_text() == "r\n"
    assert iron.ok("list", "-q") == "demo\n"
    p = subprocess.Popen([IRON, "run", "--", "sh", "-c", "trap '' INT; echo go; sleep 99"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env(iron))
    assert p.stdout.readline() == b"go\n"
    in_session(p.pid)
    for _ in range(3):
        p.send_signal(signal.SIGINT)
        time.sleep(0.3)
    p.communicate(timeout=60)
    assert p.returncode == 130
    wait_for("the VM to go", lambda: iron.ok("list", "-q") == "demo\n", 60)


def test_egress_and_the_record(iron):
    assert iron.ok("egress", "mode") == "enforce\n"
    explained = iron.ok("egress", "explain", "--vm", "demo", "https://api.example.com/v1")
    assert explained.startswith("denied\n")
    rule = json.loads(iron.ok("egress", "add", "--host", "api.example.com", "--name", "api", "--json"))
    explained = json.loads(iron.ok("egress", "explain", "--vm", "demo", "https://api.example.com/v1", "--json"))
    assert explained["allowed"] and explained["rule"]["id"] == rule["id"]
    iron.iron("exec", "demo", "--", "curl", "-sS", "-m", "10", "https://api.example.com/")
    iron.iron("exec", "demo", "--", "curl", "-sS", "-m", "10", "http://denied.example/")
    wait_for("the record", lambda: "denied.example" in iron.ok("audit", "egress", "--verdict", "denied", "--vm", "demo", "--since", "5m"), 20)
    assert "api.example.com" in iron.ok("audit", "egress", "--host", "api.example.com", "--allowed", "true")
    hosts = {row["host"]: row for row in json.loads(iron.ok("audit", "summary", "--json"))}
    assert hosts["denied.example"]["denied"] == 1
    assert "| denied.example |" in iron.ok("audit", "summary", "--format", "markdown").replace("\\", "")
    kinds = {e["kind"] for e in json.loads(iron.ok("audit", "events", "--limit", "500", "--json"))}
    assert {"exec", "files", "vm", "rule"} <= kinds, kinds
    assert "demo" in iron.ok("audit", "events", "--kind", "exec")
    assert iron.ok("audit", "events", "--key", "test", "--limit", "3").count("\n") == 3
    iron.ok("egress", "remove", "api")
    assert "no rules" in iron.ok("egress", "list")


def test_following_events_does_not_follow_itself(iron):
    looks = iron.looks("AUDIT_EVENTS")
    p = subprocess.Popen([IRON, "audit", "events", "--follow"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env(iron))
    try:
        # each of them is on record, and so would be seen by the next
        wait_for("some looks", lambda: iron.looks("AUDIT_EVENTS") >= looks + 3)
        iron.ok("egress", "mode", "warn", "--vm", "demo")
        iron.ok("egress", "mode", "inherit", "--vm", "demo")
        lines = [p.stdout.readline().decode()]
        while "POLICY_DELETE" not in lines[-1]:
            lines.append(p.stdout.readline().decode())
    finally:
        p.kill()
        p.wait()
        p.stdout.close()
    assert not [line for line in lines if "AUDIT_EVENTS" in line] and [line for line in lines if "policy" in line], lines


def test_the_rest(iron):
    assert "mini" in iron.ok("image", "list") and "made_from" in iron.ok("image", "show", "mini")
    key = iron.ok("keys", "create", "reader", "--scope", "vm:read", "--days", "1", "-q").strip()
    home = iron.dir / "reader"
    iron.write_cli_configuration(home, key)
    assert iron.iron("list", home=home).returncode == 0
    done = iron.iron("exec", "demo", "--", "true", home=home)
    assert done.returncode == 125 and b"scope" in done.stderr
    assert "reader" in iron.ok("keys", "list")
    iron.ok("keys", "revoke", "reader")
    done = iron.iron("list", home=home)
    assert done.returncode == 1 and b"IRON_API_KEY" in done.stderr
    assert "iron-control" in iron.ok("host") and "default" in iron.ok("whoami")
