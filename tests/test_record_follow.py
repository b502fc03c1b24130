"""A follower loses nothing and sees nothing twice, whoever is killed meanwhile and whatever becomes of the index; a worker that
is killed in the middle of an upload leaves an aborted event with the bytes known"""

import json
import os
import pathlib
import signal
import struct
import subprocess
import threading
import time
import urllib.parse

import pytest

from audit_lab import CLOSE, CLOSE_ABORTED, DROP, OPEN, PROGRESS, closes, read_journal
from harness import BUILD, Iron, wait_for
from test_core_deaths import pids

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
PROTO_DNS = 5


def seq_of(event_id):
    n = 0
    for c in event_id.removeprefix("ee_"):
        n = n * 32 + DIGITS.index(c)
    return n


def egress_in_journal(iron):
    """Sequence numbers of what a list of egress events holds, as the segments have them."""
    out = []
    for seq, kind, p in read_journal(iron.dir / "state/audit"):
        if kind == DROP:
            out.append(seq)
        if kind == OPEN:
            at = 32
            for _ in range(3):
                at += 4 + struct.unpack_from("<I", p, at)[0]
            if p[at + 2] != PROTO_DNS:
                out.append(seq)
    return out


class Follower(threading.Thread):
    """By the API's cursor, as a client would: what fails is asked again."""

    def __init__(self, iron, limit):
        super().__init__(daemon=True)
        self.iron, self.limit, self.ids, self.cursor = iron, limit, [], None
        self.away, self.stopping, self.wrong = 0, False, None
        self.start()

    def run(self):
        while not self.stopping:
            query = {"order": "asc", "limit": self.limit, **({"cursor": self.cursor} if self.cursor else {})}
            try:
                answer = self.iron.api("GET", "/audit/egress?" + urllib.parse.urlencode(query), timeout=20)
            except OSError:
                answer = None
            if not answer or answer.status >= 500:
                self.away += bool(answer) and answer.status == 503
                time.sleep(0.1)
                continue
            if answer.status != 200:
                self.wrong = answer.body
                return
            page = answer.json
            self.ids += [e["id"] for e in page["data"]]
            self.cursor = page["cursor"]
            if not self.cursor:
                self.wrong = page
                return
            if not page["has_more"]:
                time.sleep(0.1)


@pytest.fixture(scope="module")
def iron():
    with Iron("follow", extra="audit:\n  segment_mib: 1\n") as it:
        it.call("POST", "/egress/rules", {"host": "api.example.com"}, status=201)
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("one")


def start_traffic(iron, vm):
    """Requests that are denied, one after the other, each to a name of its own; they go on while nobody attends to them."""
    iron.sh(vm, "rm -f /tmp/stop /tmp/stopped; (i=0; while [ ! -e /tmp/stop ]; do i=$((i+1));"
                " curl -s -m 5 -o /dev/null http://n$i.follow.example/; done; touch /tmp/stopped) >/dev/null 2>&1 </dev/null &")


def stop_traffic(iron, vm):
    """Afterwards there is no further request: the loop itself has said that it is over."""
    iron.sh(vm, "touch /tmp/stop; while [ ! -e /tmp/stopped ]; do sleep 0.1; done")


def kill(iron, role):
    before = wait_for("roles", lambda: pids(iron))
    os.kill(before[role], signal.SIGKILL)
    wait_for(f"another {role}", lambda: pids(iron).get(role, before[role]) != before[role])


def lose_index(iron, change):
    """What is left of the index when iron-control comes to it."""
    before = wait_for("roles", lambda: pids(iron))["iron-control"]
    os.kill(before, signal.SIGSTOP)
    change(iron.dir / "state/db/index.db")
    os.kill(before, signal.SIGKILL)
    wait_for("another iron-control", lambda: pids(iron).get("iron-control", before) != before)


def scribble(path):
    with open(path, "r+b") as f:
        f.seek(0)
        f.write(b"not a database, " * 4096)


def works(iron, vm):
    try:
        return iron.api("POST", f"/vms/{vm['id']}/exec", {"argv": ["true"], "user": "root"}).status == 200
    except OSError:
        return False


def restart_irond(iron, vm, how):
    iron.stop_irond(how)
    iron.start_irond()
    shown = wait_for("the VM's state", lambda: (lambda v: v if v["status"] != "pending" else None)(iron.call("GET", f"/vms/{vm['id']}")))
    assert shown["status"] == "running" and shown["generation"] == vm["generation"], "it lived on, and its traffic with it"
    wait_for("exec", lambda: works(iron, vm))


def reindex(iron):
    said = iron.irond("audit", "reindex")
    assert all("% of the journal" in line for line in said.splitlines()), said


def test_a_follower_loses_and_doubles_nothing(iron, vm):
    start_traffic(iron, vm)
    follower = Follower(iron, 7)
    env = {"HOME": str(iron.dir / "home"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    cli = subprocess.Popen([BUILD / "src/prog/iron", "audit", "egress", "--follow", "--json", "--since", "1h"], env=env,
                           stdout=open(iron.dir / "cli.out", "wb"), stderr=subprocess.DEVNULL)
    trouble = [
        ("iron-control killed", lambda: kill(iron, "iron-control")),
        ("iron-audit killed", lambda: kill(iron, "iron-audit")),
        ("iron-api killed", lambda: kill(iron, "iron-api")),
        ("reindex", lambda: reindex(iron)),
        ("iron-egress killed", lambda: kill(iron, "iron-egress")),
        ("index.db gone", lambda: lose_index(iron, lambda p: [q.unlink() for q in p.parent.glob("index.db*")])),
        ("index.db damaged", lambda: lose_index(iron, scribble)),
        ("irond stopped", lambda: restart_irond(iron, vm, signal.SIGTERM)),
        ("irond killed", lambda: restart_irond(iron, vm, signal.SIGKILL)),
        ("reindex again", lambda: reindex(iron)),
    ]
    try:
        for what, cause in trouble:
            seen = len(follower.ids)
            wait_for(f"traffic before {what}", lambda: len(follower.ids) > seen + 5 or follower.wrong, 60)
            cause()
        seen = len(follower.ids)
        wait_for("traffic after all", lambda: len(follower.ids) > seen + 5 or follower.wrong, 60)
        stop_traffic(iron, vm)
        expected = egress_in_journal(iron)
        wait_for("the follower to be there", lambda: follower.wrong or len(follower.ids) >= len(expected), 30)
    finally:
        follower.stopping = True
        follower.join(30)
    assert not follower.wrong, follower.wrong
    got = [seq_of(i) for i in follower.ids]
    assert len(got) == len(set(got)), "nothing twice"
    assert got == expected, (len(got), len(expected))
    assert len(expected) > 60
    # iron-api counts what it could tell nobody, and tells it later
    def refused():
        events, cursor = [], ""
        while True:
            page = iron.api("GET", f"/audit/events?kind=api&order=asc&limit=500{cursor}").json
            events += page["data"]
            cursor = "&cursor=" + page["cursor"]
            if not page["has_more"]:
                break
        return sum(e["detail"].get("count", 1) for e in events if e["outcome"] == "503")
    wait_for(f"{follower.away} calls that were refused", lambda: refused() >= follower.away)
    # the command line is a client like another, and its server went away under it
    wait_for("iron audit egress --follow", lambda: cli.poll() is not None or len((iron.dir / "cli.out").read_text().splitlines()) >= len(expected), 30)
    cli.kill()
    cli.wait()
    lines = [seq_of(json.loads(line)["id"]) for line in (iron.dir / "cli.out").read_text().splitlines()]
    assert lines == expected


def test_an_index_of_another_journal_is_not_believed(iron, vm):
    """The database was kept and the journal was not, as after a restore: what the index holds is gone from the lists."""
    known = {e["id"] for e in iron.call("GET", "/audit/egress?limit=500")}
    assert known
    iron.end()
    audit = iron.dir / "state/audit"
    aside = iron.dir / "aside"
    aside.mkdir()
    for path in audit.glob("*.seg"):
        path.rename(aside / path.name)
    iron.start_irond()
    wait_for("an index of what is there", lambda: (lambda a: a.status == 200 and not a.json["data"])(iron.api("GET", "/audit/egress")), 30)
    iron.end()
    for path in audit.glob("*.seg"):
        path.unlink()
    for path in aside.glob("*.seg"):
        path.rename(audit / path.name)
    iron.start_irond()
    wait_for("the old one", lambda: known <= {e["id"] for e in iron.call("GET", "/audit/egress?limit=500")}, 30)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_worker_killed_in_mid_upload_leaves_what_is_known(iron, vm, scheme):
    if iron.call("GET", f"/vms/{vm['id']}")["status"] != "running":
        iron.call("POST", f"/vms/{vm['id']}/start")
        iron.wait_ready(vm["id"])
    known = len(read_journal(iron.dir / "state/audit"))
    iron.sh(vm, f"truncate -s 2000M /tmp/up; (curl -sk -T /tmp/up --limit-rate 60M {scheme}://api.example.com/up) >/dev/null 2>&1 </dev/null &")

    def progress():
        for _, kind, p in read_journal(iron.dir / "state/audit")[known:]:
            if kind == PROGRESS:
                seq, sent, received = struct.unpack("<QQQ", p[:24])
                if sent >= 64 << 20:
                    return seq
        return None

    seq = wait_for("a progress record", progress, 60)
    os.kill(pids(iron)["iron-egress"], signal.SIGKILL)
    sent, received, outcome = wait_for("the close", lambda: closes(read_journal(iron.dir / "state/audit")).get(seq), 30)
    assert outcome == CLOSE_ABORTED
    told = [struct.unpack("<QQQ", p[:24]) for _, kind, p in read_journal(iron.dir / "state/audit") if kind == PROGRESS]
    assert sent == max(t[1] for t in told if t[0] == seq) >= 64 << 20

    def event():
        found = [e for e in iron.call("GET", "/audit/egress?limit=500") if seq_of(e["id"]) == seq]
        return found[0] if found and found[0]["duration_ms"] is not None else None

    e = wait_for("the event", event)
    assert e["bytes_sent"] == sent and e["status_code"] is None and e["verdict"] == "allowed" and "ended" in e["reason"]
    assert e["host"] == "api.example.com" and e["duration_ms"] > 0


def test_the_log_is_bounded(iron):
    iron.end()
    iron.irond("start")
    try:
        log = iron.dir / "state/log/irond.log"
        with open(log, "ab") as f:
            f.write((b"y" * 1023 + b"\n") * (17 << 10))
        first = log.with_name("irond.log.1")
        wait_for("the log to be rotated", lambda: first.exists() and log.stat().st_size < 1 << 20)
        assert first.stat().st_size >= 17 << 20 and first.stat().st_mode & 0o777 == 0o640
        before = log.stat().st_size
        os.kill(pids(iron)["iron-api"], signal.SIGKILL)
        wait_for("further lines", lambda: log.stat().st_size > before)
        assert b"\0" not in log.read_bytes(), "it is appended to, not written behind a hole"
    finally:
        iron.irond("stop", "--vms")
