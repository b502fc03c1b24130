"""One iron-vm with what stands around it played by the test: irond and iron-control over its channels, QEMU's QMP, and
at the other end of the agent channel the real agent on this host, a hostile one, or a real machine in QEMU."""

import array
import json
import os
import pathlib
import select
import socket
import struct
import subprocess
import threading
import time

import wire

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("IRON_BUILD", ROOT / "build-test" / "gcc"))

RESULT, PEER, PING, VM_CONFIG, CONTRACT, SHUTDOWN, STATE, STREAM_OPEN, STREAM = 1, 2, 3, 12, 40, 41, 42, 43, 44
ROLE_CONTROL = 2
BOOTING, READY, FAILED, LOST, OFF = 1, 2, 3, 4, 5
STDIN, STDOUT, STDERR, EXEC, STDIN_EOF, SIGNAL, RESIZE, EXIT, ERROR, STARTED = 0, 1, 2, 16, 17, 18, 19, 20, 21, 22
ATTACH, EXECS, EXEC_SIGNAL, EXEC_REMOVE, FILE, CONSOLE, EXEC_ROW, INFO, DONE = range(32, 41)
F_READ, F_WRITE, F_REMOVE, F_STAT, F_LIST, F_MKDIR, F_MOVE, F_PACK, F_UNPACK = range(1, 10)
REGULAR, DIRECTORY, LINK, OTHER = 1, 2, 3, 4
MODE_NONE = 0xFFFFFFFF
VM_ID = 77
UID = 54321  # whom iron-vm becomes; nobody's
MACHINE_ID = "0123456789abcdef0123456789abcdef"


def text(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack("<I", len(value)) + value


def items(values):
    return text(b"".join(text(v) for v in values))


def untext(data, at):
    (n,) = struct.unpack_from("<I", data, at)
    return data[at + 4 : at + 4 + n], at + 4 + n


def is_sanitized(program):
    """Built with ASan, whose own memory is then in every figure."""
    return b"__asan_init" in pathlib.Path(program).read_bytes()


class Channel:
    """An end of a SOCK_SEQPACKET channel (os/ipc.h)."""

    def __init__(self, sock):
        self.sock, self.txn, self.kept = sock, 0, []

    def send(self, kind, record=b"", txn=0, fds=()):
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack("<HHI", kind, 0, txn) + record], ancillary)

    def receive(self, seconds=10.0):
        self.sock.settimeout(seconds)
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 17, 4)
        if not data:
            raise EOFError
        kind, _, txn = struct.unpack_from("<HHI", data)
        return kind, txn, data[8:], fds

    def call(self, kind, record=b"", seconds=10.0):
        self.txn += 1
        self.send(kind, record, self.txn)
        while True:
            message = self.receive(seconds)
            if message[1] == self.txn | 0x80000000:
                return message
            self.kept.append(message)


def result_code(message):
    assert message[0] == RESULT
    return struct.unpack_from("<q", message[2])[0]


class State:
    def __init__(self, record):
        self.vm, self.generation, self.state = struct.unpack_from("<QQB", record)
        step, at = untext(record, 17)
        reason, at = untext(record, at)
        self.step, self.reason = step.decode(), reason.decode()

    def __repr__(self):
        return f"State({self.state}, {self.step!r}, {self.reason!r})"


class FakeQmp(threading.Thread):
    """As much of QEMU's monitor as iron-vm talks to; what it was told is in `commands`."""

    def __init__(self, sock):
        super().__init__(daemon=True)
        self.sock, self.commands, self.answer = sock, [], True

    def say(self, **what):
        self.sock.sendall(json.dumps(what).encode() + b"\r\n")

    def event(self, name, **data):
        self.say(event=name, data=data, timestamp={"seconds": 1, "microseconds": 0})

    def run(self):
        try:
            self.say(QMP={"version": {}, "capabilities": []})
            for line in self.sock.makefile("rb"):
                command = json.loads(line)
                self.commands.append(command["execute"])
                value = {"status": "running"} if command["execute"] == "query-status" else {}
                self.say(**{"return": value, "id": command["id"]})
        except OSError:
            pass


class Stream:
    """A client's end (codec/stream.h)."""

    def __init__(self, fd):
        self.sock = socket.socket(fileno=fd)
        self.sock.settimeout(20)

    def send(self, kind, payload=b""):
        self.sock.send(bytes([kind]) + payload)

    def exec(self, argv=(), command="", user="root", tty=False, rows=24, cols=80, timeout_ms=0, cwd="", env=(),
             exec_id=0, detach=False):
        self.send(EXEC, wire.encode("stream_exec", argv=list(argv), command=command, cwd=cwd, environment=list(env),
                                    user=user, tty=tty, rows=rows, cols=cols, timeout_ms=timeout_ms, exec=exec_id,
                                    detach=detach))

    def receive(self, seconds=20.0):
        self.sock.settimeout(seconds)
        data = self.sock.recv(1 << 17)
        if not data:
            raise EOFError
        return data[0], data[1:]

    def finish(self, seconds=20.0):
        """(how it ended, stdout, stderr): ('exit', code, signal, timed_out) or ('error', code, message)."""
        out, err, end = [], [], time.monotonic() + seconds
        while True:
            kind, payload = self.receive(max(0.01, end - time.monotonic()))
            if kind == STDOUT:
                out.append(payload)
            elif kind == STDERR:
                err.append(payload)
            elif kind == EXIT:
                return ("exit", *struct.unpack("<HBB", payload)), b"".join(out), b"".join(err)
            elif kind == ERROR:
                code, at = untext(payload, 0)
                return ("error", code.decode(), untext(payload, at)[0].decode()), b"".join(out), b"".join(err)
            else:
                assert kind == STARTED

    def answers(self, seconds=20.0):
        """What came up to the last word: (that, rows, stdout, stderr). The last word is as finish's, or ('done',); rows
        are records of EXEC_ROW and INFO."""
        rows, out, err, end = [], [], [], time.monotonic() + seconds
        while True:
            kind, payload = self.receive(max(0.01, end - time.monotonic()))
            if kind == STDOUT:
                out.append(payload)
            elif kind == STDERR:
                err.append(payload)
            elif kind == EXEC_ROW:
                rows.append(wire.decode("stream_exec_row", payload))
            elif kind == INFO:
                rows.append(wire.decode("stream_file_info", payload))
            elif kind == EXIT:
                return ("exit", *struct.unpack("<HBB", payload)), rows, b"".join(out), b"".join(err)
            elif kind == ERROR:
                code, at = untext(payload, 0)
                return ("error", code.decode(), untext(payload, at)[0].decode()), rows, b"".join(out), b"".join(err)
            elif kind == DONE:
                return ("done",), rows, b"".join(out), b"".join(err)
            else:
                assert kind == STARTED, kind

    def close(self):
        self.sock.close()


class IronVm:
    """The process, configured and with a channel to iron-control. `agent`, `qmp`, `console` are the far ends, or
    sockets that are connected to a real QEMU's."""

    def __init__(self, agent=None, qmp=None, console=None, boot_timeout_ms=20000, generation=3):
        self.ours = {}
        theirs = {}
        for name, given in (("qmp", qmp), ("agent", agent), ("console", console)):
            if given is None:
                self.ours[name], theirs[name] = socket.socketpair()
            else:
                theirs[name] = given
        irond, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.irond = Channel(irond)
        self.process = subprocess.Popen([BUILD / "src" / "prog" / "iron-vm", "--uid", str(UID), "--gid", str(UID),
                                         "--state", "/nonexistent", "--log", "info"],
                                        preexec_fn=lambda: os.dup2(far.fileno(), 3), pass_fds=[3],
                                        stdin=subprocess.DEVNULL)
        far.close()
        config = wire.encode("msg_vm_config", vm=VM_ID, generation=generation, boot_timeout_ms=boot_timeout_ms)
        self.irond.send(VM_CONFIG, config,
                        fds=[theirs[n].fileno() for n in ("qmp", "agent", "console")])
        for s in theirs.values():
            s.close()
        self.qmp = None
        if qmp is None:
            self.qmp = FakeQmp(self.ours["qmp"])
            self.qmp.start()
        self.control = None
        self.connect_control()

    def connect_control(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.irond.send(PEER, struct.pack("<BQ", ROLE_CONTROL, 0), fds=[theirs.fileno()])
        theirs.close()
        self.control = Channel(ours)

    def contract(self, hostname="demo", environment=("GREETING=hello",), trust="", generation=4, deadline_ms=20000,
                 vm=VM_ID):
        record = wire.encode("msg_contract", vm=vm, generation=generation, hostname=hostname, machine_id=MACHINE_ID,
                             environment=list(environment), trust=trust, deadline_ms=deadline_ms)
        return result_code(self.control.call(CONTRACT, record))

    def shutdown(self, deadline_ms=4000):
        return result_code(self.control.call(SHUTDOWN, struct.pack("<QI", VM_ID, deadline_ms)))

    def next_state(self, seconds=20.0):
        while True:
            kind, _, record, _ = self.control.kept.pop(0) if self.control.kept else self.control.receive(seconds)
            if kind == STATE:
                return State(record)

    def wait_state(self, state, seconds=20.0):
        """The states passed on the way, the one waited for last."""
        seen, end = [], time.monotonic() + seconds
        while not seen or seen[-1].state != state:
            try:
                seen.append(self.next_state(max(0.01, end - time.monotonic())))
            except TimeoutError:
                raise AssertionError(f"waited {seconds} s for state {state}, saw {seen}") from None
        return seen

    def open(self):
        """A Stream, or the code that it was refused with."""
        kind, txn, record, fds = self.irond.call(STREAM_OPEN, struct.pack("<Q", 99))
        if kind == STREAM:
            assert struct.unpack("<Q", record) == (99,)
            return Stream(fds[0])
        return result_code((kind, txn, record))

    def run(self, argv=(), seconds=20.0, **how):
        stream = self.open()
        stream.exec(argv, **how)
        try:
            return stream.finish(seconds)
        finally:
            stream.close()

    def ask(self, kind, record=None, seconds=20.0, **values):
        """A request of one datagram, and its answers."""
        stream = self.open()
        stream.send(kind, wire.encode(record, **values) if record else b"")
        try:
            return stream.answers(seconds)
        finally:
            stream.close()

    def file(self, op, path, content=None, chunk=32768, seconds=60.0, user="root", mode=MODE_NONE, **values):
        """A file operation, with its input."""
        stream = self.open()
        stream.send(FILE, wire.encode("stream_file", op=op, path=path, user=user, mode=mode, **values))
        try:
            if content is not None:
                stream.sock.settimeout(seconds)
                try:
                    for at in range(0, len(content), chunk):
                        stream.send(STDIN, content[at : at + chunk])
                    stream.send(STDIN_EOF)
                except BrokenPipeError:
                    pass  # it was refused in the middle: the answer is there
            return stream.answers(seconds)
        finally:
            stream.close()

    def refuses(self):
        """No request reaches the guest."""
        return self.ask(EXECS)[0][:2] == ("error", "vm_gone")

    def alive(self):
        return self.process.poll() is None and result_code(self.irond.call(PING)) == 0

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def rss_kib(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS:"):
                return int(line.split()[1])

    def close(self):
        """iron-vm ends with its channel to irond."""
        self.irond.sock.close()
        try:
            status = self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for s in self.ours.values():
            s.close()
        self.control.sock.close()
        assert status == 0, f"iron-vm ended with {status}"


# --- the agent protocol (codec/agent.h), for agents that a test plays ---

HELLO, HELLO_ACK, A_PING, A_PONG, A_HOLD, A_HELD, A_RESUME, A_STEP, A_STEP_DONE, A_SHUTDOWN = range(1, 11)
(A_EXEC, A_STARTED, A_STDIN, A_STDIN_EOF, A_STDOUT, A_STDERR, A_SIGNAL, A_RESIZE, A_EXIT, A_ERROR, A_CREDIT, A_CLOSE,
 A_CLOSED) = range(32, 45)
A_ATTACH, A_EXECS, A_EXEC_SIGNAL, A_EXEC_REMOVE, A_FILE, A_EXEC_ROW, A_INFO, A_DONE = range(64, 72)
MAGIC = b"iron-agent-sync\n"
WINDOW = 512 << 10


def frame(kind, stream=0, payload=b""):
    return struct.pack("<III", len(payload), kind, stream) + payload


def hello(kind, nonce, version=1):
    return frame(kind, 0, MAGIC + struct.pack("<I", version) + nonce)


STEPS = ["network", "dns", "clock", "entropy", "identity", "environment", "trust", "generation"]


class FakeAgent:
    """The guest's end of the channel: scans for the hello as an agent does, and then does what a test says."""

    def __init__(self, sock):
        self.sock, self.buffer, self.synced = sock, b"", False

    def fill(self, seconds):
        self.sock.settimeout(seconds)
        data = self.sock.recv(1 << 18)
        if not data:
            raise EOFError
        self.buffer += data

    def read_hello(self, seconds=10.0):
        """The nonce."""
        start = struct.pack("<III", 36, HELLO, 0) + MAGIC
        while True:
            at = self.buffer.find(start)
            if at >= 0 and len(self.buffer) >= at + 48:
                nonce = self.buffer[at + 32 : at + 48]
                self.buffer = self.buffer[at + 48 :]
                return nonce
            if at < 0:
                self.buffer = self.buffer[-27:]
            self.fill(seconds)

    def connect(self, before=b"", seconds=10.0):
        self.sock.sendall(before)
        self.sock.sendall(hello(HELLO_ACK, self.read_hello(seconds)))

    def receive(self, seconds=10.0):
        """The next frame; repeated hellos and flushes do not come once the host has seen the echo."""
        while True:
            if len(self.buffer) >= 12:
                n, kind, stream = struct.unpack_from("<III", self.buffer)
                if len(self.buffer) >= 12 + n:
                    payload, self.buffer = self.buffer[12 : 12 + n], self.buffer[12 + n :]
                    return kind, stream, payload
            self.fill(seconds)

    def send(self, kind, stream=0, payload=b""):
        self.sock.sendall(frame(kind, stream, payload))

    def step(self, seconds=10.0):
        """(id, name, body) of the next step that is asked for."""
        while True:
            kind, _, payload = self.receive(seconds)
            if kind == A_STEP:
                (number,) = struct.unpack_from("<I", payload)
                name, at = untext(payload, 4)
                return number, name.decode(), untext(payload, at)[0]

    def step_done(self, number, code=0, reason=""):
        self.send(A_STEP_DONE, 0, struct.pack("<Iq", number, code) + text(reason))

    def obey_contract(self):
        """Answers every step of a boot well."""
        names = []
        while len(names) < len(STEPS):
            number, name, _ = self.step()
            names.append(name)
            self.step_done(number)
        return names

    def await_frame(self, kind, seconds=10.0):
        while True:
            got = self.receive(seconds)
            if got[0] == kind:
                return got[1], got[2]


# --- the real agent, on this host ---

# Its contract is run for real, in namespaces of its own: hostname, /etc, /run and eth0 are not this machine's. The
# clock is the machine's, and right already, so its step finds nothing to do.
SETUP = """
set -e
mount --make-rprivate /
mkdir -p "$1"; mount -t tmpfs lab "$1"
mkdir "$1/etc" "$1/dbus"
cp /etc/passwd /etc/group "$1/etc/"
printf '127.0.0.1\\tlocalhost\\n127.0.1.1 before\\n' > "$1/etc/hosts"
ln -s /run/elsewhere/resolv.conf "$1/etc/resolv.conf"
printf 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\\nFROM_SYSTEM="a b"\\n' > "$1/etc/environment"
mount --bind "$1/etc" /etc
mount -t tmpfs lab /run
ip link add eth0 type veth peer name far0
ip link set far0 up
exec "$2" --fd "$3" --user root
"""


class HostAgent:
    def __init__(self, sock, directory, isolated=True):
        agent = str(BUILD / "src" / "agent" / "iron-agent")
        fd = sock.fileno()
        command = ["unshare", "--mount", "--uts", "--net", "sh", "-c", SETUP, "agent", str(directory / "lab"), agent,
                   str(fd)]
        if not isolated:
            command = [agent, "--fd", str(fd), "--user", "root"]
        self.process = subprocess.Popen(command, pass_fds=[fd], stdin=subprocess.DEVNULL)
        sock.close()

    def run_beside(self, *command):
        """A command in the agent's namespaces, by this test and not through iron."""
        return subprocess.run(["nsenter", "--target", str(self.process.pid), "--mount", "--uts", "--net", *command],
                              capture_output=True, text=True, check=True, timeout=20).stdout

    def children(self):
        path = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        return [int(pid) for pid in open(path).read().split()]

    def close(self):
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError("the agent did not end with its descriptor") from None


def wait_for(what, condition, seconds=10.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what}")
        select.select([], [], [], 0.02)
