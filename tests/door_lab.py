"""The door without a VM: one iron-egress process, with a test in the place of irond, iron-control and iron-audit.

Four network namespaces:  guest --(veth named tap0: the rules of src/broker/nft_door.c, TPROXY)-- door
                          host (the worker's sockets upstream) --veth-- origin (DNS and servers of every kind)
The origin's addresses look global, so that nothing of the dialling rules is switched off for the test."""

import contextlib
import ctypes
import errno
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import door_wire as wire
import pytest
from harness import BUILD, ROOT, wait_for

TESTS = pathlib.Path(__file__).resolve().parent
LIBC = ctypes.CDLL(None, use_errno=True)
IP_TRANSPARENT, MFD_CLOEXEC = 19, 1
WORKER_UID = 1234567
VM = 0x1234
NAMES_RECORD = 264  # of egress/names.c: i64 time, u8 length, 255 bytes of name
ORIGIN = "45.76.10.2"
DENIED_ORIGIN = "45.76.10.3"
HOST = "45.76.10.1"
CA = "ca.pem"


def sh(*command, **kw):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, **kw).stdout


def in_namespace(name, work):
    """The descriptors that work() opens inside a network namespace, by a child."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
            if LIBC.setns(fd, 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
            socket.send_fds(theirs, [b"x"], work())
            os._exit(0)
        finally:
            os._exit(1)
    theirs.close()
    _, fds, _, _ = socket.recv_fds(ours, 16, 8)
    assert os.waitpid(pid, 0)[1] == 0, f"the child in {name} failed"
    return fds


def transparent(kind, port):
    s = socket.socket(socket.AF_INET, kind)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    s.bind(("0.0.0.0", port))
    if kind == socket.SOCK_STREAM:
        s.listen(1024)
    return s.detach()


def nflog(group):
    """Bound to the group, copying 128 bytes of each packet (linux/netfilter/nfnetlink_log.h)."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    attrs = struct.pack("<HHB3x", 5, 1, 1)  # NFULA_CFG_CMD: BIND
    attrs += struct.pack("<HH", 10, 2) + struct.pack(">IBx", 128, 2) + b"\0\0"  # NFULA_CFG_MODE: COPY_PACKET
    attrs += struct.pack("<HH", 8, 4) + struct.pack(">I", 10)  # NFULA_CFG_TIMEOUT
    body = struct.pack(">BBH", 0, 0, group) + attrs
    s.send(struct.pack("<IHHII", 16 + len(body), 4 << 8 | 1, 5, 1, 0) + body)
    answer = s.recv(4096)
    assert struct.unpack_from("<i", answer, 16)[0] == 0, "NFLOG bind"
    return s.detach()


def door_rules():
    source = (ROOT / "src" / "broker" / "nft_door.c").read_text()
    text = source[source.index("nft_door_rules[] =") :]
    strings = re.findall(r'"((?:[^"\\]|\\.)*)"', text)
    return "".join(s.encode().decode("unicode_escape") for s in strings)


def rule(host="", cidr="", ports=(), action=0, tls=None, addresses=(), methods=(), paths=(), number=0):
    if tls is None:
        tls = 1 if cidr or re.fullmatch(r"[0-9.]+", host) else 0
    return wire.encode("rec_rule", id=number, host=host, cidr=cidr, ports=sorted(ports), action=action, tls=tls,
                       addresses=list(addresses), methods=sorted(methods), paths=sorted(paths), created_at=1)


class Audit:
    """Plays iron-audit: keeps what it acknowledged."""

    def __init__(self):
        self.records, self.next_seq = [], 1
        self.code, self.over_budget, self.hold = 0, 0, threading.Event()
        self.hold.set()
        self.batches = 0
        self.lock = threading.Lock()
        self.channel = None

    def connect(self):
        self.channel, theirs = wire.channel_pair()
        threading.Thread(target=self.serve, args=(self.channel,), daemon=True).start()
        return theirs

    def disconnect(self):
        self.channel.sock.shutdown(socket.SHUT_RDWR)
        self.channel.sock.close()

    def serve(self, channel):
        with contextlib.suppress(EOFError, OSError):
            while True:
                name, txn, batch, _ = channel.receive()
                assert name == "msg_audit_batch"
                self.hold.wait()
                vm = struct.pack("<Q", self.over_budget)
                over = self.over_budget and any(vm == item[2:10] for item in batch.records)
                if self.code or over:
                    channel.send("msg_audit_ack", txn=txn | wire.ANSWER, code=self.code or -errno.EDQUOT,
                                 vm=self.over_budget if over else 0)
                else:
                    self.take(channel, txn, batch)

    def take(self, channel, txn, batch):
        with self.lock:
            first = self.next_seq
            for item in batch.records:
                kind = wire.RECORD_TYPES[struct.unpack_from("<H", item)[0]]
                value = wire.decode(kind, item[2:])
                value.kind, value.seq = kind, self.next_seq
                self.records.append(value)
                self.next_seq += 1
            self.batches += 1
        channel.send("msg_audit_ack", txn=txn | wire.ANSWER, code=0, first_seq=first, count=len(batch.records))

    def mark(self):
        with self.lock:
            return len(self.records)

    def since(self, mark, kind=None, **fields):
        with self.lock:
            return [r for r in self.records[mark:]
                    if (kind is None or r.kind == kind) and all(getattr(r, k, None) == v for k, v in fields.items())]

    def one(self, mark, kind="record_open", seconds=5, **fields):
        return wait_for(f"a {kind} with {fields}", lambda: self.since(mark, kind, **fields), seconds)[0]

    def close_of(self, opened, seconds=5):
        return self.one(0, "record_close", seconds, open_seq=opened.seq)


class Lab:
    def __init__(self, config=None):
        self.name = f"it-d{os.getpid()}"
        self.namespaces = {k: f"{self.name}-{k}" for k in ("guest", "door", "host", "origin")}
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="iron-test-door-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.audit = Audit()
        self.version = 0
        self.worker = self.origin = None
        self.config = config or {}

    # --- life ---

    def start(self):
        self.make_namespaces()
        self.make_certificates()
        self.start_origin()
        self.start_worker()
        self.attach()
        return self

    def make_namespaces(self):
        g, d, h, o = (self.namespaces[k] for k in ("guest", "door", "host", "origin"))
        for ns in (g, d, h, o):
            sh("ip", "netns", "add", ns)
            sh("ip", "-n", ns, "link", "set", "lo", "up")
        sh("ip", "-n", d, "link", "add", "tap0", "address", "02:00:00:00:00:01", "type", "veth",
           "peer", "name", "eth0", "address", "02:00:00:00:00:02", "netns", g)
        for key in ("all", "default", "tap0"):
            sh("ip", "netns", "exec", d, "sysctl", "-qw", f"net.ipv4.conf.{key}.rp_filter=0")
        sh("ip", "-n", d, "addr", "add", "10.77.0.1/24", "dev", "tap0")
        sh("ip", "-n", d, "link", "set", "tap0", "up")
        sh("ip", "-n", d, "neigh", "add", "10.77.0.2", "lladdr", "02:00:00:00:00:02", "dev", "tap0", "nud", "permanent")
        sh("ip", "-n", d, "rule", "add", "fwmark", "1", "lookup", "100")
        sh("ip", "-n", d, "route", "add", "local", "default", "dev", "lo", "table", "100")
        sh("ip", "-n", g, "addr", "add", "10.77.0.2/24", "dev", "eth0")
        sh("ip", "-n", g, "link", "set", "eth0", "up")
        sh("ip", "-n", g, "route", "add", "default", "via", "10.77.0.1")
        sh("ip", "netns", "exec", d, "nft", "-f", "-", input=door_rules())
        sh("ip", "-n", h, "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", o)
        sh("ip", "-n", h, "addr", "add", f"{HOST}/24", "dev", "up0")
        sh("ip", "-n", h, "link", "set", "up0", "up")
        sh("ip", "-n", h, "route", "add", "default", "via", ORIGIN)
        for address in (ORIGIN, DENIED_ORIGIN):
            sh("ip", "-n", o, "addr", "add", f"{address}/24", "dev", "eth0")
        for address in ("10.9.0.1/32", "169.254.169.254/32", "168.63.129.16/32"):
            sh("ip", "-n", o, "addr", "add", address, "dev", "lo")
        sh("ip", "-n", o, "link", "set", "eth0", "up")
        etc = pathlib.Path("/etc/netns") / g
        etc.mkdir(parents=True)
        (etc / "resolv.conf").write_text("nameserver 10.77.0.1\noptions timeout:2 attempts:2\n")

    def make_certificates(self):
        d = self.dir
        sh("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
           "-subj", "/CN=door test", "-keyout", d / "ca.key", "-out", d / CA)
        sh("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=origin",
           "-keyout", d / "origin.key", "-out", d / "origin.csr")
        (d / "ext").write_text(f"subjectAltName=DNS:*.example.com,DNS:example.com,DNS:*.other.org,IP:{ORIGIN}\n")
        sh("openssl", "x509", "-req", "-in", d / "origin.csr", "-CA", d / CA, "-CAkey", d / "ca.key", "-CAcreateserial",
           "-days", "2", "-extfile", d / "ext", "-out", d / "origin.pem")
        (d / "origin.key").chmod(0o644)

    def start_origin(self):
        self.origin = subprocess.Popen(
            ["ip", "netns", "exec", self.namespaces["origin"], "/usr/bin/python3", TESTS / "door_origin.py", self.dir],
            stdout=subprocess.PIPE, text=True)
        assert self.origin.stdout.readline() == "ready\n"

    def start_worker(self):
        self.irond, theirs = wire.channel_pair()
        self.log = open(self.dir / "worker.log", "ab")
        h = self.namespaces["host"]

        environment = {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS")}
        environment.update(PATH="/usr/bin:/bin", LANG="C")
        # where a build has AddressSanitizer: looking for leaks at the end takes what the walls forbid
        environment.setdefault("ASAN_OPTIONS", "detect_leaks=0")

        def place():
            os.dup2(theirs.fileno(), 3, inheritable=True)
            fd = os.open(f"/run/netns/{h}", os.O_RDONLY)
            if LIBC.setns(fd, 0x40000000):
                os._exit(9)

        self.worker = subprocess.Popen(
            [BUILD / "src" / "prog" / "iron-egress", "--uid", str(WORKER_UID), "--gid", str(WORKER_UID),
             "--state", "/nonexistent", "--log", "debug"],
            close_fds=False, preexec_fn=place, stderr=self.log, env=environment)
        theirs.close()
        config = dict(workspace=7, resolvers=[f"{ORIGIN}#53"], never_dial=["168.63.129.16/32", DENIED_ORIGIN],
                      private_allow=[wire.encode("rec_private", cidr="10.9.0.0/24", hosts=["covered.example.com"])],
                      synthetic_base=28 << 24, synthetic_prefix=15, max_connections_per_vm=64, peek_timeout_ms=1500,
                      connect_timeout_ms=2500, idle_timeout_ms=4000, total_timeout_ms=600000)
        config.update(self.config)
        self.irond.send("msg_egress_config", **config)
        assert self.irond.call("msg_ping").code == 0
        self.control = self.give_peer("ROLE_CONTROL")
        self.give_audit()

    def give_peer(self, role):
        ours, theirs = wire.channel_pair()
        self.irond.send("msg_peer", fds=[theirs.fileno()], role=wire.ROLE[role])
        theirs.close()
        return ours

    def give_audit(self):
        theirs = self.audit.connect()
        self.irond.send("msg_peer", fds=[theirs.fileno()], role=wire.ROLE["ROLE_AUDIT"])
        theirs.close()
        assert self.irond.call("msg_ping").code == 0

    def attach(self, names=None):
        fds = in_namespace(self.namespaces["door"], lambda: [transparent(socket.SOCK_STREAM, 15001),
                                                             transparent(socket.SOCK_DGRAM, 53), nflog(7)])
        if names is None:
            names = os.memfd_create("names")
        self.names_fd = names
        answer = self.irond.call("msg_vm_attach", fds=[*fds, names], vm=VM, generation=3, name="demo")
        for fd in fds:
            os.close(fd)
        assert answer.code == 0, answer.reason

    def detach(self):
        assert self.irond.call("msg_vm_detach", vm=VM).code == 0

    def stop_worker(self):
        if self.worker and self.worker.poll() is None:
            self.irond.sock.close()
            try:
                self.worker.wait(10)
            except subprocess.TimeoutExpired:
                self.worker.kill()
                self.worker.wait()
                raise
        return self.worker and self.worker.returncode

    def stop(self):
        try:
            code = self.stop_worker()
            log = (self.dir / "worker.log").read_text(errors="replace") if self.worker else ""
            assert not self.worker or code == 0, f"the worker ended with {code}:\n{log[-4000:]}"
            assert "ERROR: AddressSanitizer" not in log and "runtime error" not in log, log[-4000:]
        finally:
            if self.origin:
                self.origin.send_signal(signal.SIGKILL)
                self.origin.wait()
            for ns in self.namespaces.values():
                subprocess.run(["ip", "netns", "del", ns], capture_output=True)
            subprocess.run(["rm", "-rf", f"/etc/netns/{self.namespaces['guest']}", self.dir])

    # --- control ---

    def policy(self, *rules, mode=0):
        self.version += 1
        self.control.send("msg_policy_begin", vm=VM, version=self.version, mode=mode, rules=len(rules))
        for r in rules:
            self.control.send("msg_policy_rule", vm=VM, version=self.version, rule=r)
        answer = self.control.call("msg_policy_commit", vm=VM, version=self.version)
        assert answer.code == 0, answer.reason

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.worker.pid}/fd"))

    # --- guest ---

    def guest(self, *command, timeout=30, **kw):
        return subprocess.run(["ip", "netns", "exec", self.namespaces["guest"], *map(str, command)],
                              capture_output=True, timeout=timeout, **kw)

    def start_guest(self, *command, **kw):
        return subprocess.Popen(["ip", "netns", "exec", self.namespaces["guest"], *map(str, command)],
                                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **kw)

    def curl(self, *args, timeout=20):
        return self.guest("curl", "-sS", "--max-time", timeout - 1, "--cacert", self.dir / CA, *args, timeout=timeout)

    def http(self, url, *args):
        """(status, body) by curl."""
        r = self.curl("-w", "\n%{http_code}", url, *args)
        assert r.returncode == 0, r.stderr.decode()
        body, _, status = r.stdout.rpartition(b"\n")
        return int(status), body

    def socket(self, kind=socket.SOCK_STREAM, family=socket.AF_INET, proto=0):
        """A socket of the guest's, in this process."""
        (fd,) = in_namespace(self.namespaces["guest"], lambda: [socket.socket(family, kind, proto).detach()])
        s = socket.socket(fileno=fd)
        s.settimeout(10)
        return s

    def dig(self, name, kind="A", server="10.77.0.1", tcp=False):
        import dns.message
        import dns.query

        q = dns.message.make_query(name, kind)
        s = self.socket(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        if tcp:
            s.connect((server, 53))
            return dns.query.tcp(q, server, timeout=5, sock=s)
        return dns.query.udp(q, server, timeout=5, sock=s)

    def address(self, name):
        return self.dig(name).answer[0][0].address

    def connect(self, name, port):
        s = self.socket()
        s.connect((self.address(name), port))
        return s


@pytest.fixture(scope="module")
def lab():
    it = Lab()
    try:
        yield it.start()
    finally:
        it.stop()


def read_all(s):
    """Until the end or a reset: (bytes, reset)."""
    data = b""
    while True:
        try:
            chunk = s.recv(65536)
        except ConnectionResetError:
            return data, True
        if not chunk:
            return data, False
        data += chunk


def read_until(s, what):
    data = b""
    while what not in data:
        chunk = s.recv(65536)
        assert chunk, f"ended before {what}: {data}"
        data += chunk
    return data
