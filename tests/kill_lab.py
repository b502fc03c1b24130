"""SIGKILL at random while a client works, and what must hold afterwards. test_kill_runs.py does it thirty times, bench/soak
hundreds. The client keeps a journal of what it was answered; a call without an answer may have been done or not, and one
that was answered never comes undone."""

import hashlib
import http.client
import json
import os
import pathlib
import random
import re
import signal
import ssl
import subprocess
import threading
import time

import wire
from audit_lab import read_journal
from harness import wait_for

HOST = "api.example.com"
STATES = ("ok", "silent", "starting", "down")
SETTLE_S = 120
VICTIMS = ["iron-api", "iron-control", "iron-vm", "iron-egress", "iron-audit", "qemu", "irond"]
STARTING = {"queued", "creating", "starting", "running"}


def roles(iron):
    """[(name, id or "", pid)] of what `irond status` lists as answering."""
    out = []
    for line in iron.irond("status").splitlines():
        row = line.split()
        if not line.startswith("iron-"):
            continue
        ident, words = ("", row[1:]) if row[1] in STATES else (row[1], row[2:])
        if words[0] == "ok":
            out.append((row[0], ident, int(words[1])))
    return out


def machines(iron):
    """VM → pid of its QEMU, by the file that is its standard error."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            log = os.readlink(f"/proc/{pid}/fd/2")
            if log.startswith(f"{iron.dir}/state/vms/") and "qemu-system" in os.readlink(f"/proc/{pid}/exe"):
                found[log.split("/")[-2]] = int(pid)
        except OSError:
            pass
    return found


class Vm:
    """What the client knows of one."""

    def __init__(self, name, ident=None):
        self.name, self.id = name, ident
        self.gone = False           # True: answered so; None: asked, and not answered
        self.runs = True            # the same, of its running
        self.may_fail = False       # its QEMU was killed, or it was starting when something was
        self.was_ready = False      # ever
        self.restart = "never"
        self.files = {}             # path → the md5 sums it may have; None: not there
        self.rules = {}             # id → True, or None while its removal is not answered


class Client:
    """One call at a time, and the journal of what came of it."""

    def __init__(self, iron):
        self.iron = iron
        self.context = ssl.create_default_context(cafile=str(iron.dir / "tls/cert.pem"))

    def ask(self, method, path, body=None, timeout=30, key=None):
        """The answer; None when none came or iron itself failed (5xx), so that nobody knows whether it was done."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.iron.port, context=self.context, timeout=timeout)
        raw = isinstance(body, bytes)
        head = {"Authorization": "Bearer " + (key or self.iron.key), "Content-Type": "application/octet-stream" if raw else "application/json"}
        try:
            connection.request(method, "/v1" + path, body if raw or body is None else json.dumps(body), head)
            answer = connection.getresponse()
            data = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if answer.status >= 500:
            return None
        return answer.status, json.loads(data) if data else None


class KillRun:
    ACTIONS = ["create", "exec", "transfer", "stop_start", "policy", "destroy", "download", "keys", "patch", "rest"]

    def __init__(self, iron, seed, victims, say=print):
        self.iron, self.victims, self.say = iron, victims, say
        self.random = random.Random(seed)
        self.client = Client(iron)
        self.vms = []
        self.serial = 0
        self.mode = {"enforce"}     # what the workspace's mode may be
        self.keys = {}              # key → True alive, False revoked, None either
        self.executed, self.fetched = set(), set()  # markers of what was acknowledged
        self.seqs = set()
        self.last = None            # seen of the VM that is waited for
        self.own_tables, self.other_links = self.tables(), self.links()

    # --- the client's actions ---

    def mark(self):
        self.serial += 1
        return f"mark-{self.serial:06d}-"

    def pick(self, running=True):
        some = [v for v in self.vms if v.gone is False and v.id and (not running or v.runs is True)]
        return self.random.choice(some) if some else None

    def create(self):
        vm = Vm(f"k{self.mark()[5:11]}")
        vm.restart = self.random.choice(["never", "always"])
        self.vms.append(vm)
        answer = self.client.ask("POST", "/vms", {"name": vm.name, "restart": vm.restart, "egress": {"rules": [{"host": HOST}]}})
        if answer:
            assert answer[0] == 201, answer
            vm.id = answer[1]["data"]["id"]
        else:
            vm.gone = None

    def exec(self):
        vm, mark = self.pick(), self.mark()
        answer = vm and self.client.ask("POST", f"/vms/{vm.id}/exec", {"argv": ["/bin/echo", mark], "user": "root"})
        if answer and answer[0] == 200:
            self.executed.add(mark)

    def transfer(self):
        """A file over what may be there: afterwards the new one when that was answered, else the one or the other, whole."""
        vm = self.pick()
        if not vm:
            return
        path = self.random.choice(["/root/one", "/root/two"])
        data = self.random.randbytes(2_000_000)
        before, new = vm.files.get(path, {None}), hashlib.md5(data).hexdigest()
        vm.files[path] = before | {new}
        answer = self.client.ask("PUT", f"/vms/{vm.id}/files?path={path}&user=root", data)
        if answer and answer[0] != 409:  # vm_gone: the agent went in the middle of it
            vm.files[path] = {new} if answer[0] == 200 else before

    def download(self):
        """Through the door, so that a worker, or the record, is killed under a connection."""
        vm, mark = self.pick(), self.mark()
        answer = vm and self.client.ask("POST", f"/vms/{vm.id}/exec", {
            "command": f"curl -sS -m 10 http://{HOST}/{mark} && curl -sS -m 10 -o /dev/null http://{HOST}/bytes/4000000", "user": "root"})
        if answer and answer[0] == 200 and f"hello from {HOST}" in answer[1]["data"]["stdout"]:
            self.fetched.add(mark)

    def stop_start(self):
        vm = self.pick()
        if not vm:
            return
        vm.runs = None
        answer = self.client.ask("POST", f"/vms/{vm.id}/stop")
        if not answer:
            return
        vm.runs = answer[0] != 200 and None
        vm.files.clear()  # mini keeps them in memory
        if self.random.random() < 0.3:
            return
        self.start(vm)

    def start(self, vm):
        before, vm.runs = vm.runs, None
        answer = self.client.ask("POST", f"/vms/{vm.id}/start")
        if answer:
            vm.runs = True if answer[0] == 200 else before

    def policy(self):
        to = self.random.choice(["warn", "enforce"])
        self.mode.add(to)
        answer = self.client.ask("PUT", "/egress/policy", {"mode": to})
        if answer and answer[0] == 200:
            self.mode = {to}
        vm = self.pick(running=False)
        answer = vm and self.client.ask("POST", f"/vms/{vm.id}/egress/rules", {"host": f"{self.mark()}x.example.com"})
        if not answer or answer[0] != 201:
            return
        rule = answer[1]["data"]["id"]
        vm.rules[rule] = True
        if self.random.random() < 0.5:
            vm.rules[rule] = None
            answer = self.client.ask("DELETE", f"/vms/{vm.id}/egress/rules/{rule}")
            if answer and answer[0] == 204:
                vm.rules[rule] = False

    def destroy(self):
        vm = self.pick(running=False)
        if not vm:
            return
        vm.gone = None
        answer = self.client.ask("DELETE", f"/vms/{vm.id}?force=true")
        if answer:
            assert answer[0] == 204, answer
            vm.gone = True

    def make_key(self):
        answer = self.client.ask("POST", "/keys", {"name": self.mark(), "scopes": ["vm:read"]})
        if not answer or answer[0] != 201:
            return
        key, ident = answer[1]["data"]["key"], answer[1]["data"]["id"]
        self.keys[key] = True
        if self.random.random() < 0.5:
            self.keys[key] = None
            answer = self.client.ask("DELETE", f"/keys/{ident}")
            if answer and answer[0] == 204:
                self.keys[key] = False

    def patch(self):
        vm = self.pick(running=False)
        if not vm:
            return
        to = self.random.choice(["never", "always"])
        before, vm.restart = vm.restart, None
        answer = self.client.ask("PATCH", f"/vms/{vm.id}", {"restart": to})
        vm.restart = None if not answer else to if answer[0] == 200 else before

    def rest(self):
        pass

    # --- one kill ---

    def victim(self):
        """(what, its VM or "", pid): a kind first, so that many VMs do not hide the single roles."""
        kind = self.random.choice(self.victims)
        if kind == "irond":
            return kind, "", self.iron.process.pid
        if kind == "qemu":
            found = sorted(machines(self.iron).items())
            return (kind, *self.random.choice(found)) if found else None
        found = [r for r in roles(self.iron) if r[0] == kind]
        return self.random.choice(found) if found else None

    def one(self, number):
        action = self.random.choice(self.ACTIONS)
        delay = self.random.random() ** 2 * 1.5
        failed = []

        def act():
            try:
                getattr(self, "make_key" if action == "keys" else action)()
            except BaseException as e:  # told by the thread that joins
                failed.append(e)

        chosen = self.victim()
        worker = threading.Thread(target=act)
        worker.start()
        time.sleep(delay)  # the moment of the kill: it is what is tried here
        if chosen:
            self.kill(*chosen)
        worker.join()
        self.say(f"kill {number}: {chosen and chosen[:2]} {delay:.2f} s into {action}", flush=True)
        if failed:
            raise failed[0]
        self.check()

    def kill(self, what, ident, pid):
        for vm in self.vms:
            if what == "qemu" and vm.id == ident:
                vm.may_fail = True
                vm.files.clear()
        self.killed_at = time.monotonic()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return  # it ended by itself meanwhile (its VM was destroyed)
        if what == "irond":
            self.iron.process.wait()
            self.iron.start_irond()

    # --- what must hold ---

    def check(self):
        wait_for("all roles to answer", lambda: self.status("/readyz") == 200, 60)
        for vm in list(self.vms):
            self.find(vm)
        for vm in [v for v in self.vms if v.id]:
            self.check_vm(vm)
        self.check_settings()
        self.check_record()
        wait_for("nothing to be left behind", lambda: not self.left(), 20, lambda: "\n".join(self.left()))
        self.mend()

    def status(self, path, key=None):
        answer = self.client.ask("GET", path, key=key)
        return answer and answer[0]

    def get(self, path):
        """Asked until it is answered: after a kill that is all a client can do."""
        return wait_for(f"an answer to {path}", lambda: self.client.ask("GET", path), 30)

    def find(self, vm):
        """One whose creation was not answered is there as a whole, or not at all."""
        if vm.id:
            return
        found = self.get(f"/vms?name={vm.name}")[1]["data"]
        if found:
            vm.id, vm.gone, vm.may_fail = found[0]["id"], False, True
        else:
            self.vms.remove(vm)

    def settled(self, vm):
        status, body = self.get(f"/vms/{vm.id}")
        assert status == 200, f"{vm.name} was answered to and is now {status}"
        row = body["data"]
        if row["status_detail"] in STARTING | {"stopping", "destroying"}:
            return None
        return row

    def check_vm(self, vm):
        """It answers, or is where it was told to be, or says why not. What was killed a moment ago may be seen as ready first."""
        wait_for(f"{vm.name} ({vm.id}) to answer, or to be stopped or failed", lambda: self.is_true(vm), SETTLE_S, lambda: self.last)
        if vm.gone:
            return
        rules = {r["id"] for r in self.get(f"/vms/{vm.id}/egress/rules?limit=200")[1]["data"]}
        for rule, there in vm.rules.items():
            if there is None:
                vm.rules[rule] = rule in rules
            else:
                assert (rule in rules) == there, f"{vm.name}: rule {rule} was {there}"

    def is_true(self, vm):
        self.last = row = self.settled(vm)
        if not row:
            return False
        detail, reason = row["status_detail"], row["status_reason"]
        if vm.gone is None:
            vm.gone = detail == "destroyed"
        assert (detail == "destroyed") == vm.gone, f"{vm.name}: gone was {vm.gone}, it is {detail}"
        if vm.gone:
            return True
        if vm.restart is None:
            vm.restart = row["restart"]
        assert row["restart"] == vm.restart, row
        if detail == "ready":
            assert vm.runs is not False, f"{vm.name} was stopped, and runs"
            return self.answers(vm)
        if detail == "stopped":
            assert vm.runs is not True, f"{vm.name} was running and nobody stopped it: {reason}"
        else:
            assert detail == "failed" and reason, row
            assert vm.may_fail or self.was_starting(row), f"{vm.name} failed, and nothing of it was killed: {reason}"
        vm.runs = False
        return True

    def was_starting(self, row):
        """It was not ready in its last run: a start that something died under may fail, and says so."""
        sessions = self.get(f"/vms/{row['id']}/sessions")[1]["data"]
        return not sessions or not row["started_at"] or row["started_at"] < sessions[0]["started_at"]

    def answers(self, vm):
        mark = self.mark()
        self.last = answer = self.client.ask("POST", f"/vms/{vm.id}/exec", {"argv": ["/bin/echo", mark], "user": "root"})
        if not answer or answer[0] != 200 or mark not in answer[1]["data"]["stdout"]:
            return False
        vm.runs, vm.may_fail, vm.was_ready = True, False, True
        self.executed.add(mark)
        for path, sums in vm.files.items():
            answer = wait_for("the file's sum", lambda: self.client.ask("POST", f"/vms/{vm.id}/exec", {
                "argv": ["md5sum", path], "user": "root"}), 30)
            assert answer[0] == 200, answer
            found = answer[1]["data"]["stdout"][:32] or None
            assert found in sums, f"{vm.name}: {path} is {found}, answered was {sums}"
            vm.files[path] = {found}
        return True

    def check_settings(self):
        mode = self.get("/egress/policy")[1]["data"]["mode"]
        assert mode in self.mode, f"the mode is {mode}, answered was {self.mode}"
        self.mode = {mode}
        for key, alive in self.keys.items():
            status = wait_for("an answer about a key", lambda: self.status("/me", key))
            if alive is None:
                self.keys[key] = status == 200
            else:
                assert (status == 200) == alive, f"a key that was {alive} answers {status}"

    def check_record(self):
        """The files hold every acknowledged mark, and whatever they held before; the API's trail holds each once."""
        records = read_journal(self.iron.dir / "state/audit")
        seqs = [seq for seq, _, _ in records]
        assert len(seqs) == len(set(seqs))
        lost = self.seqs - set(seqs)
        assert not lost, f"records that were read are gone: {sorted(lost)[:5]}"
        self.seqs = set(seqs)
        events = b"\n".join(p for _, kind, p in records if kind == 6)
        opens = [wire.decode("record_open", p)["path"] for _, kind, p in records if kind == 1]
        missing = [m for m in self.executed if m.encode() not in events]
        assert not missing, f"executed, answered, and not on record: {missing}"
        fetched = {p for p in opens if p.startswith(b"/mark-")}
        missing = [m for m in self.fetched if b"/" + m.encode() not in fetched]
        assert not missing, f"fetched, and not on record: {missing}"
        wait_for("the trail to show it", lambda: self.trail() >= {p.decode() for p in fetched}, 30)

    def trail(self):
        seen, cursor = [], ""
        while True:
            body = self.get(f"/audit/egress?order=asc&limit=500{cursor and '&cursor=' + cursor}")[1]
            seen += [e["path"] for e in body["data"] if e["path"].startswith("/mark-")]
            if not body["has_more"]:
                break
            cursor = body["cursor"]
        assert len(seen) == len(set(seen)), "an event is listed twice"
        return set(seen)

    # --- what is left behind ---

    def left(self):
        """What belongs to no VM that is there, a sentence each."""
        runs, there, maybe = set(), set(), set()
        for vm in self.vms:
            if vm.gone is not True and vm.id:
                there.add(vm.id)
                if not vm.was_ready:
                    maybe.add(vm.id)  # a first start that failed takes its disk away again
                if vm.runs:
                    runs.add(vm.id)
        out = []
        for name, found, expected in [
                ("machines", set(machines(self.iron)), runs),
                ("iron-vm processes", self.programs("iron-vm"), len(runs)),
                ("iron-api processes", self.programs("iron-api"), 1),
                ("iron-control processes", self.programs("iron-control"), 1),
                ("iron-audit processes", self.programs("iron-audit"), 1),
                ("directories of VMs", self.names(self.iron.dir / "state/vms") | maybe, there),
                ("run directories", self.names(self.iron.dir / "run/vms"), runs),
                ("groups", self.groups(), {f"{kind}-{vm}" for vm in runs for kind in ("qemu", "role")}),
                ("pinned namespaces", self.pins(), runs),
                ("tables", self.tables(), self.own_tables),
                ("links", self.links() - self.other_links, set()),
                ("files of uids that nobody has", self.files_of_nobody(there), set())]:
            if found != expected:
                out.append(f"{name}: {found}, not {expected}")
        return out

    def programs(self, name):
        n, program = 0, str((pathlib.Path(self.iron.libexec) / name).resolve())
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                mine = str(self.iron.dir) in pathlib.Path(f"/proc/{pid}/cmdline").read_text() or \
                    f"/{self.iron.name}" in pathlib.Path(f"/proc/{pid}/cgroup").read_text() or self.is_child(pid)
                n += mine and os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == program
            except OSError:
                pass
        return n

    def is_child(self, pid):
        return int(re.search(r"^PPid:\s*(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1]) == self.iron.process.pid

    @staticmethod
    def names(directory):
        try:
            return set(os.listdir(directory))
        except FileNotFoundError:
            return set()

    def groups(self):
        top = pathlib.Path("/sys/fs/cgroup")
        roots = [*top.glob(self.iron.name), *top.glob(f"*/{self.iron.name}")]
        # os.walk passes over what goes meanwhile
        return {name for root in roots for _, names, _ in os.walk(root) for name in names if "-vm_" in name}

    def pins(self):
        text = pathlib.Path(f"/proc/{self.iron.process.pid}/mountinfo").read_text()
        return set(re.findall(rf"{re.escape(str(self.iron.dir))}/run/vms/(vm_\w+)/", text))

    def tables(self):
        """Of this instance, in the host's own namespace."""
        out = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
        return {line for line in out.splitlines() if self.iron.name in line}

    @staticmethod
    def links():
        """Taps lie in the VMs' own namespaces: none of them here."""
        return {name for name in os.listdir("/sys/class/net") if name.startswith("tap")}

    def files_of_nobody(self, there):
        first = int(re.search(r"^uid_base: (\d+)", (self.iron.dir / "iron.yaml").read_text(), re.M)[1])
        found = set()
        for top in ("state", "run"):
            for directory, names, files in os.walk(self.iron.dir / top):
                for name in names + files:
                    path = os.path.join(directory, name)
                    try:
                        owner = os.lstat(path).st_uid
                    except OSError:
                        continue
                    if first <= owner < first + 40000 and not any(vm in path for vm in there):
                        found.add(path)
        return found

    # --- between two kills ---

    def mend(self):
        """Two VMs that run, four at most: what failed is started again or destroyed."""
        self.vms = [v for v in self.vms if v.gone is not True]
        for vm in self.vms:
            if vm.runs is False and self.random.random() < 0.7:
                self.start(vm)
        while len(self.vms) > 4:
            vm = self.vms[0]
            wait_for("it to be destroyed", lambda: (self.client.ask("DELETE", f"/vms/{vm.id}?force=true") or (0,))[0] == 204)
            vm.gone = True
            self.vms.remove(vm)
        while len([v for v in self.vms if v.runs]) < 2:
            self.create()
            self.find(self.vms[-1])

    def begin(self):
        self.mend()
        self.check()

    def end(self):
        for vm in self.vms:
            wait_for("it to be destroyed", lambda: (self.client.ask("DELETE", f"/vms/{vm.id}?force=true") or (0,))[0] == 204)
            vm.gone, vm.runs = True, False
        wait_for("nothing to be left behind", lambda: not self.left(), 60, lambda: "\n".join(self.left()))
        self.check_record()


def run(iron, seed, kills, victims, say=print):
    """Kills so often; the seed and what was going on are printed, so that a failure can be played again."""
    say(f"seed {seed}, {kills} kills", flush=True)
    r = KillRun(iron, seed, victims, say)
    r.begin()
    for number in range(1, kills + 1):
        r.one(number)
    r.end()
