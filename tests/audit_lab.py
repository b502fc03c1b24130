"""An iron-audit by itself: its channel to irond, and writers' channels, in a test's hands. Also a reader of segments that
shares no code with iron's."""

import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile

from harness import BUILD

PROGRAM = BUILD / "src" / "prog" / "iron-audit"
UID = 2999990
ROLE_CONTROL, ROLE_EGRESS = 2, 4
MSG_RESULT, MSG_PEER, MSG_PING, MSG_AUDIT_CONFIG = 1, 2, 3, 14
MSG_BATCH, MSG_ACK, MSG_HEAD = 60, 61, 62
OPEN, PROGRESS, CLOSE, DNS, DROP, EVENT = range(1, 7)
CLOSE_DONE, CLOSE_ABORTED = 1, 8
KEEP = 300  # seconds that anything may take


def s(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<I", len(value)) + value


def record_open(workspace=1, vm=1, host="api.example.com", path="/", reason=""):
    return (struct.pack("<HQQQQ", OPEN, vm, workspace, 1, 0) + s(host) + s("") + s("") + struct.pack("<HB", 443, 2) + s("GET") + s(path)
            + struct.pack("<BBQ", 1, 0, 0) + s("") + s(reason))


def record_progress(seq, sent, received):
    return struct.pack("<HQQQ", PROGRESS, seq, sent, received)


def record_close(seq, sent=0, received=0):
    return struct.pack("<HQQQIHB", CLOSE, seq, sent, received, 5, 200, CLOSE_DONE) + s("") + s("")


def record_event(kind="exec", action="run", workspace=1):
    return struct.pack("<H", EVENT) + s(kind) + s(action) + struct.pack("<QQQ", workspace, 0, 0) + s("") + s("ok") + s("{}")


def disk_shim(directory):
    """A library whose fdatasync is slow, or fails (audit_disk_shim.c)."""
    out = directory / "audit_disk_shim.so"
    source = pathlib.Path(__file__).with_name("audit_disk_shim.c")
    subprocess.run(["cc", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", out, source], check=True)
    return str(out)


class Ack:
    def __init__(self, body):
        self.code, self.first, self.count, self.vm = struct.unpack("<qQIQ", body)


class Writer:
    def __init__(self, sock):
        self.sock = sock
        self.sock.settimeout(KEEP)
        self.txn = 0
        self.heads = []

    def send(self, records, durable=False):
        self.txn += 1
        body = struct.pack("<B", durable) + s(b"".join(s(r) for r in records))
        self.sock.send(struct.pack("<HHI", MSG_BATCH, 0, self.txn) + body)
        return self.txn

    def receive(self):
        """(txn, Ack) of the next answer; heads are kept aside. (0, None): the channel is closed."""
        while True:
            try:
                data = self.sock.recv(1 << 18)
            except ConnectionError:
                data = b""
            if not data:
                return 0, None
            kind, _, txn = struct.unpack("<HHI", data[:8])
            if kind == MSG_HEAD:
                self.heads.append(struct.unpack("<QQQ", data[8:]))
                continue
            assert kind == MSG_ACK
            return txn & 0x7FFFFFFF, Ack(data[8:])  # the top bit marks an answer

    def write(self, records, durable=False):
        txn = self.send(records, durable)
        answered, ack = self.receive()
        assert answered == txn
        return ack

    def close(self):
        self.sock.close()


class Audit:
    def __init__(self, directory=None, segment_bytes=1 << 20, sync_ms=20, **environment):
        # of a sanitizer build: the leak check wants a process of its own, which the walls refuse
        self.environment = {"PATH": "/usr/bin", "LANG": "C", "ASAN_OPTIONS": "detect_leaks=0:verify_asan_link_order=0", **environment}
        self.own = directory is None
        self.state = pathlib.Path(directory or tempfile.mkdtemp(prefix="iron-test-audit-", dir="/tmp"))
        self.state.chmod(0o755)
        self.dir = self.state / "audit"
        self.dir.mkdir(exist_ok=True, mode=0o700)
        os.chown(self.dir, UID, UID)
        self.segment_bytes, self.sync_ms = segment_bytes, sync_ms
        self.process = None
        self.log = open(self.state / "log", "ab")

    def start(self):
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.channel.settimeout(KEEP)
        self.process = subprocess.Popen(
            [PROGRAM, "--uid", str(UID), "--gid", str(UID), "--state", self.state, "--log", "info"],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, env=self.environment,
            preexec_fn=lambda: os.dup2(theirs.fileno(), 3), pass_fds=(3,))
        theirs.close()
        fd = os.open(self.dir, os.O_RDONLY | os.O_DIRECTORY)
        socket.send_fds(self.channel, [struct.pack("<HHIII", MSG_AUDIT_CONFIG, 0, 0, self.segment_bytes, self.sync_ms)], [fd])
        os.close(fd)
        assert self.ping() == 0
        return self

    def ping(self):
        try:
            self.channel.send(struct.pack("<HHI", MSG_PING, 0, 77))
            data = self.channel.recv(1 << 16)
        except ConnectionError:
            data = b""
        assert data, (self.state / "log").read_text()
        return struct.unpack("<q", data[8:16])[0]

    def writer(self, role=ROLE_EGRESS, ident=1):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, 32, 1 << 22)  # SO_SNDBUFFORCE
        theirs.setblocking(False)
        socket.send_fds(self.channel, [struct.pack("<HHIBQ", MSG_PEER, 0, 0, role, ident)], [theirs.fileno()])
        theirs.close()
        return Writer(ours)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(KEEP)
        self.channel.close()

    def stop(self):
        self.channel.close()
        assert self.process.wait(KEEP) == 0, (self.state / "log").read_text()

    def finish(self):
        if self.process and self.process.poll() is None:
            self.kill()
        self.log.close()
        if self.own:
            shutil.rmtree(self.state)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.finish()

    def records(self):
        """[(seq, type, payload)] of the whole journal, checked as docs say a segment is laid out."""
        return read_journal(self.dir)


def make_table():
    table = []
    for i in range(256):
        for _ in range(8):
            i = (i >> 1) ^ (0x82F63B78 if i & 1 else 0)
        table.append(i)
    return table


TABLE = make_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def read_segment(path, check=200):
    """The first `check` records with their CRC, the rest by their frames."""
    data = path.read_bytes()
    out = []
    if len(data) < 128 or data[:8] != b"IRONSEG1":
        return out
    assert struct.unpack("<I", data[124:128])[0] == crc32c(data[:124])
    number, expect = struct.unpack("<QQ", data[16:32])
    assert f"{number:020d}.seg" == path.name
    at = 128
    while at + 64 <= len(data):
        length, crc, seq, _, kind = struct.unpack("<IIQqH", data[at:at + 26])
        end = at + 64 + (length + 7) // 8 * 8
        if length == 0 or length > 32768 or end > len(data) or seq != expect:
            break
        if check > 0 or end + 64 > len(data) or data[end:end + 4] == b"\0\0\0\0":
            check -= 1
            if crc != crc32c(data[at:at + 4] + data[at + 8:end]):
                break
        out.append((seq, kind, data[at + 64:at + 64 + length]))
        expect += 1
        at = end
    return out


def read_journal(directory):
    out = []
    for path in sorted(directory.glob("*.seg")):
        out += read_segment(path)
    return out


def closes(records):
    """open_seq → (sent, received, outcome)"""
    out = {}
    for _, kind, p in records:
        if kind == CLOSE:
            seq, sent, received, _, _, outcome = struct.unpack("<QQQIHB", p[:31])
            out[seq] = (sent, received, outcome)
    return out
