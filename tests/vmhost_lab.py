"""The mechanisms around one VM without irond: a namespace whose tap the test holds, so that it is the guest, frame by frame."""

import contextlib
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("IRON_BUILD", ROOT / "build-test" / "gcc"))
DRIVER = BUILD / "src" / "broker" / "vmhost_driver"
GUEST_MAC, TAP_MAC = bytes.fromhex("020000000002"), bytes.fromhex("020000000001")
GUEST, GATEWAY = "10.77.0.2", "10.77.0.1"
VNET = bytes(10)  # virtio_net_hdr: no offload
VNET_CSUM = struct.pack("<BBHHHH", 0, 0, 0, 0, 0, 0)
SYN, ACK, RST, FIN = 2, 16, 4, 1


def directory(name):
    path = pathlib.Path(tempfile.mkdtemp(prefix=f"iron-test-{name}-", dir="/tmp"))
    path.chmod(0o755)
    return path


def driver(*words, check=True, **more):
    done = subprocess.run([DRIVER, *map(str, words)], capture_output=True, text=True, **more)
    assert not check or done.returncode == 0, done.stderr
    return done


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(source, destination, protocol, payload, fragment=0, identity=1):
    head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), identity, fragment, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(destination))
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def pseudo(source, destination, protocol, length):
    return socket.inet_aton(source) + socket.inet_aton(destination) + struct.pack("!BBH", 0, protocol, length)


def tcp(source, destination, sport, dport, flags, seq=1000, ack=0, payload=b""):
    head = struct.pack("!HHIIBBHHH", sport, dport, seq, ack, 0x50, flags, 64240, 0, 0)
    sum_ = checksum(pseudo(source, destination, 6, len(head) + len(payload)) + head + payload)
    return ipv4(source, destination, 6, head[:16] + struct.pack("!H", sum_) + head[18:] + payload)


def udp(source, destination, sport, dport, payload=b""):
    head = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    sum_ = checksum(pseudo(source, destination, 17, 8 + len(payload)) + head + payload)
    return ipv4(source, destination, 17, head[:6] + struct.pack("!H", sum_ or 0xFFFF) + payload)


def icmp_echo(source, destination):
    body = struct.pack("!BBHHH", 8, 0, 0, 7, 1) + b"ping"
    return ipv4(source, destination, 1, body[:2] + struct.pack("!H", checksum(body)) + body[4:])


def ether(payload, kind=0x0800, source=GUEST_MAC, destination=TAP_MAC):
    return destination + source + struct.pack("!H", kind) + payload


def arp(operation, sender_mac, sender, target, target_mac=bytes(6), source=None):
    body = struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + sender_mac + socket.inet_aton(sender) + target_mac + socket.inet_aton(target)
    return ether(body, 0x0806, source or sender_mac, b"\xff" * 6)


class Segment:
    """An IPv4 packet that came to the guest."""

    def __init__(self, frame):
        ip = frame[14:]
        self.protocol = ip[9]
        self.source, self.destination = socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20])
        self.payload = ip[(ip[0] & 15) * 4 : struct.unpack_from("!H", ip, 2)[0]]
        if self.protocol in (6, 17):
            self.sport, self.dport = struct.unpack_from("!HH", self.payload)
        if self.protocol == 6:
            self.seq, self.ack = struct.unpack_from("!II", self.payload, 4)
            self.flags = self.payload[13]


class Net:
    """A namespace and its door. The test is the guest (send, frames) and the egress worker (tcp, udp, nflog)."""

    def __init__(self):
        self.dir = directory("net")
        self.pin = self.dir / "net"
        self.tap, tcp_fd, udp_fd, nflog_fd = self.ask("net", 4)
        os.set_blocking(self.tap, False)
        self.adopt(tcp_fd, udp_fd, nflog_fd)

    def adopt(self, tcp_fd, udp_fd, nflog_fd):
        self.tcp, self.udp = socket.socket(fileno=tcp_fd), socket.socket(fileno=udp_fd)
        self.nflog = socket.socket(fileno=nflog_fd)
        self.tcp.settimeout(5)

    def ask(self, what, count):
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine, its:
            driver(what, self.pin, its.fileno(), pass_fds=[its.fileno()])
            _, fds, _, _ = socket.recv_fds(mine, 10, count)
        assert len(fds) == count
        return fds

    def close(self):
        os.close(self.tap)
        for s in (self.tcp, self.udp, self.nflog):
            s.close()
        driver("unpin", self.pin)
        shutil.rmtree(self.dir)

    def run(self, *words):
        """A command inside the namespace."""
        return subprocess.run(["nsenter", f"--net={self.pin}", *words], check=True, capture_output=True, text=True).stdout

    def send(self, frame):
        os.write(self.tap, VNET + frame)

    def frames(self, seconds=0.3):
        """What reached the guest until nothing came for that long."""
        got = []
        while select.select([self.tap], [], [], seconds)[0]:
            got.append(os.read(self.tap, 70000)[len(VNET) :])
        return got

    def expect(self, condition, seconds=5.0):
        """The first IPv4 packet to the guest that meets the condition."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for frame in self.frames(0.02):
                if frame[12:14] == b"\x08\x00" and condition(Segment(frame)):
                    return Segment(frame)
        raise AssertionError("the guest was not sent what was expected")

    def connect(self, address, port, sport):
        """A handshake as the guest does it; the worker's accepted socket, and the guest's next seq and ack."""
        self.send(ether(tcp(GUEST, address, sport, port, SYN)))
        answer = self.expect(lambda s: s.protocol == 6 and s.dport == sport and s.flags == SYN | ACK)
        assert (answer.source, answer.sport) == (address, port)
        self.send(ether(tcp(GUEST, address, sport, port, ACK, answer.ack, answer.seq + 1)))
        accepted, peer = self.tcp.accept()
        assert peer == (GUEST, sport)
        return accepted, answer.ack, answer.seq + 1

    def drops(self, wanted=1, seconds=3.0):
        """(prefix, first bytes) of what NFLOG told, at least `wanted` of them."""
        got = []
        end = time.monotonic() + seconds
        while len(got) < wanted and select.select([self.nflog], [], [], max(0, end - time.monotonic()))[0]:
            got += parse_nflog(self.nflog.recv(1 << 20))
        return got

    def no_drops(self, seconds=0.4):
        return not select.select([self.nflog], [], [], seconds)[0]


def parse_nflog(data):
    """nfnetlink_log(7)-style messages: attribute 9 is the payload, 10 the prefix."""
    found = []
    while len(data) >= 16:
        length, kind = struct.unpack_from("=IH", data)
        if kind == 0x400:
            attributes, at = {}, 20
            while at + 4 <= length:
                size, number = struct.unpack_from("=HH", data, at)
                attributes[number & 0x3FFF] = data[at + 4 : at + size]
                at += (size + 3) & ~3
            found.append((attributes.get(10, b"").rstrip(b"\0").decode(), attributes.get(9, b"")))
        data = data[(length + 3) & ~3 :]
    return found


@contextlib.contextmanager
def net():
    n = Net()
    try:
        yield n
    finally:
        n.close()


def wait_for(what, condition, seconds=10.0):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.02)


class Machine:
    """QEMU as irond starts it."""

    def __init__(self, kernel, initrd, disk="-", overlay="-", memory=256, tap=None, cmdline="", uid=2099001):
        self.dir = directory("qemu")
        self.uid = uid
        words = [DRIVER, "qemu", self.dir, uid, kernel, initrd, disk, overlay, "-" if tap is None else tap, memory, tsc_khz(), cmdline]
        self.process = subprocess.Popen([str(w) for w in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, pass_fds=[] if tap is None else [tap])
        line = self.process.stdout.readline()
        assert line, self.process.stderr.read()
        self.pid = int(line)

    def channel(self, name):
        s = socket.socket(socket.AF_UNIX)
        s.connect(str(self.dir / f"{name}.sock"))
        return s

    def hello(self, seconds=60.0):
        """Until the agent answers; the connected channel."""
        s, nonce, got = self.channel("agent"), os.urandom(16), b""
        s.settimeout(0.25)
        end = time.monotonic() + seconds
        while nonce not in got:
            assert time.monotonic() < end, "the agent does not answer"
            with contextlib.suppress(TimeoutError):
                s.sendall(struct.pack("<IHHI", 36, 1, 0, 0) + b"iron-agent-sync\n" + struct.pack("<I", 1) + nonce)
                got += s.recv(4096)
        return s

    def status(self):
        lines = pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return {k: v.strip() for k, v in (line.split(":", 1) for line in lines)}

    def close(self):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()
        self.process.stderr.close()
        shutil.rmtree(self.dir)


def tsc_khz():
    with tempfile.TemporaryDirectory(prefix="iron-test-tsc-", dir="/tmp") as empty:
        # without an image there is nothing to probe with: only the measurement is made
        return int(driver("accel", empty, empty).stdout.split()[1])
