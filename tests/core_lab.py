"""An irond with stand-in roles (role_standin), which the test drives: what irond itself does, without the rest of iron."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading

from harness import BUILD, IMAGE_CACHE, ROLES, free_port, wait_for

STANDIN = BUILD / "tests" / "role_standin"
IROND = BUILD / "src" / "prog" / "irond"


class Line:
    """"answer msg_result code=0 reason=6f6b" as an object."""

    def __init__(self, text):
        self.text = text
        words = text.split()
        self.kind, self.name = words[0], words[1] if len(words) > 1 else ""
        self.fields = dict(w.split("=", 1) for w in words[2:] if "=" in w)

    def __getitem__(self, field):
        return int(self.fields[field])

    def str(self, field):
        return bytes.fromhex(self.fields[field]).decode()

    def __repr__(self):
        return self.text


class Standin:
    """One process that irond started. Its lines are read by a thread, so that nothing it says is lost."""

    def __init__(self, connection):
        self.file = connection.makefile("rw")
        hello = self.file.readline().split()
        self.name, self.id, self.pid = hello[1], int(hello[2]), int(hello[3])
        self.lines = []
        self.changed = threading.Condition()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        try:
            for line in self.file:
                with self.changed:
                    self.lines.append(Line(line.strip()))
                    self.changed.notify_all()
        except (OSError, ValueError):
            pass

    def wait(self, match, seconds=15, after=0):
        """The first line from position `after` on that match() accepts."""
        def find():
            return next((l for l in self.lines[after:] if match(l)), None)
        with self.changed:
            if not self.changed.wait_for(find, seconds):
                raise AssertionError(f"{self.name}: waited in vain; it said {self.lines[-10:]}")
            return find()

    def say(self, text):
        self.file.write(text + "\n")
        self.file.flush()

    def message(self, name, seconds=15, after=0):
        return self.wait(lambda l: l.kind == "msg" and l.name == name, seconds, after)

    def drain(self, n, after=0, seconds=30):
        """Until n requests sent since position `after` have had their last answers."""
        def last(l):
            return l.kind in ("answer", "lost", "error") and l.name not in ("msg_role_row", "msg_vm_row")
        self.wait(lambda _: sum(map(last, self.lines[after:])) >= n, seconds)

    def call(self, name, seconds=30, **fields):
        """A request to irond; all lines up to and with its last answer."""
        after = len(self.lines)
        self.say(" ".join(["call", name, *(f"{k}={v}" for k, v in fields.items())]))
        self.wait(lambda l: l.kind in ("answer", "lost", "error") and l.name not in ("msg_role_row", "msg_vm_row"), seconds, after)
        return [l for l in self.lines[after:] if l.kind in ("answer", "lost", "error")]

    def result(self, name, seconds=30, **fields):
        last = self.call(name, seconds, **fields)[-1]
        assert last.name == "msg_result", last
        return last["code"], last.str("reason")


class Lab:
    def __init__(self, name="core", net=60, extra=""):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"iron-test-{name}-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.name = f"it-{name}{os.getpid()}"  # two runs do not meet
        self.state, self.run = self.dir / "state", self.dir / "run"
        self.uid_base = 3000000 + 40000 * net
        self.port = free_port()
        self.process = None
        self.roles = []
        self.extra = extra
        self.write_configuration()
        self.write_libexec()
        self.state.mkdir()
        self.listen()

    def write_configuration(self, **changes):
        tls = self.dir / "tls"
        tls.mkdir(exist_ok=True)
        for file in ("cert.pem", "key.pem"):
            if not (tls / file).exists():
                (tls / file).write_text("only a stand-in reads it\n")
        keys = {"listen": f'["127.0.0.1:{self.port}"]', "uid_base": self.uid_base, "cgroup_root": self.name, **changes}
        self.conf = self.dir / "iron.yaml"
        self.conf.write_text("".join(f"{k}: {v}\n" for k, v in keys.items()) + f"""\
tls:
  cert_file: {tls}/cert.pem
  key_file: {tls}/key.pem
state_dir: {self.state}
run_dir: {self.run}
instance: {self.name}
limits:
  stop_timeout_s: 2
egress:
  resolvers: [127.0.0.53]
{self.extra}""")

    def write_libexec(self):
        self.libexec = self.dir / "libexec"
        self.libexec.mkdir()
        for role in ROLES:
            (self.libexec / role).symlink_to(STANDIN if role != "iron-worker" else BUILD / "src" / "prog" / role)
        (self.libexec / "iron-agent").symlink_to(BUILD / "src" / "agent" / "iron-agent")

    def add_mini(self):
        """The image mini, from this checkout's cache where it is there; and what was found out about KVM, which takes
        seconds to find out."""
        cached, images = IMAGE_CACHE / "mini", self.state / "images"
        if cached.is_dir():
            shutil.copytree(cached, images, copy_function=os.link, symlinks=True)
        accel = IMAGE_CACHE / "accel.json"
        if accel.exists():
            shutil.copy(accel, self.state / "accel.json")
        self.irond("image", "build", "mini", timeout=900)
        IMAGE_CACHE.mkdir(parents=True, exist_ok=True)
        if not cached.is_dir():
            shutil.copytree(images, cached, copy_function=os.link, symlinks=True)

    def keep_accel(self):
        if (self.state / "accel.json").exists():
            shutil.copy(self.state / "accel.json", IMAGE_CACHE / "accel.json")

    def listen(self):
        path = self.state / "driver.sock"
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(64)
        self.acceptor = threading.Thread(target=self.accept, daemon=True)
        self.acceptor.start()

    def accept(self):
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self.greet, args=(connection,), daemon=True).start()

    def greet(self, connection):
        with contextlib.suppress(IndexError):  # killed before it could say who it is
            self.roles.append(Standin(connection))

    def role(self, name, id=0, nth=0, seconds=15):
        """The nth process of that name and id since the lab began."""
        def find():
            found = [r for r in self.roles if r.name == name and (id == 0 or r.id == id)]
            return found[nth] if len(found) > nth else None
        return wait_for(f"{name} number {nth}; {self.log()[-2000:]}", find, seconds)

    # --- irond ---

    def start(self, wait=True):
        self.out = open(self.dir / "irond.log", "ab")
        self.process = subprocess.Popen([IROND, "--foreground", "-c", self.conf, "--libexec", self.libexec],
                                        stdin=subprocess.DEVNULL, stdout=self.out, stderr=self.out)
        if wait:
            wait_for(f"irond; {self.dir}", lambda: 'msg="ready"' in self.log() or self.process.poll() is not None, 20)
            assert self.process.poll() is None, self.log()
        return self

    def irond(self, *words, ok=True, timeout=60):
        done = subprocess.run([IROND, *words, "-c", self.conf, "--libexec", self.libexec], capture_output=True, text=True,
                              timeout=timeout, stdin=subprocess.DEVNULL)
        if ok:
            assert done.returncode == 0, (words, done.stdout, done.stderr, self.log()[-3000:])
        return done

    def log(self):
        try:
            return (self.dir / "irond.log").read_text(errors="replace")
        except OSError:
            return ""

    def cgroups(self, roles=True):
        """The groups there are; roles: with those of iron-api, iron-control and iron-audit."""
        return [p for base in pathlib.Path("/sys/fs/cgroup").glob("*") for p in base.glob(f"{self.name}/{self.name}/*")
                if p.is_dir() and (roles or not p.name.startswith("iron-"))]

    def stop(self, how=signal.SIGTERM):
        """By a signal: where VMs run, they go on."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            assert self.process.wait(30) == 0, self.log()[-4000:]

    def end(self):
        """irond and all that it started."""
        if self.process:
            if self.irond("stop", "--vms", ok=False).returncode:  # a configuration that a test broke
                self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(30) in (0, -signal.SIGKILL), self.log()[-4000:]

    def close(self):
        try:
            self.end()
        finally:
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if (self.run / "irond.pid").exists():
                pid = int((self.run / "irond.pid").read_text() or 0)
                if pid and re.search(re.escape(str(self.conf)), cmdline(pid)):
                    os.kill(pid, signal.SIGKILL)
            # woken, not only closed: a thread left in accept would take the next lab's connections by the reused number
            self.server.shutdown(socket.SHUT_RDWR)
            self.acceptor.join(10)
            self.server.close()
            for base in pathlib.Path("/sys/fs/cgroup").glob(f"*/{self.name}"):
                for directory, _, _ in os.walk(base, topdown=False):
                    try:
                        os.rmdir(directory)
                    except OSError:
                        pass
            if not os.environ.get("IRON_KEEP"):
                shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        if exc[0]:
            print(self.log()[-6000:])
        self.close()


def cmdline(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False
