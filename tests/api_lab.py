"""iron-api alone, in its sandbox, with iron-control and irond played by the test over the real channels."""

import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import threading
import time

import wire
from harness import BUILD, Answer, wait_for

UID = 65534
OPS = re.findall(r"^\s*O\((\w+),", (wire.CODEC.parent / "model/op.h").read_text(), re.M)
KEY = "iron_live_test"


def make_certificate(directory):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-keyout", directory / "key.pem", "-out", directory / "cert.pem"], check=True, capture_output=True)


class Control:
    """Answers on a thread. `on[OP]` is a function(control, request) that answers; requests are kept in `seen`."""

    def __init__(self, channel):
        self.channel = channel
        self.on = {}
        self.seen = []
        self.records = []
        self.closed = []
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            try:
                m = self.channel.receive(timeout=None)
            except OSError:
                return
            if m is None:
                return
            if m.name == "msg_api_record":
                self.records.append(m.record)
                continue
            if m.name == "msg_vm_closed":
                self.closed.append(m.record)
                continue
            m.op_name = OPS[m.op]
            if m.op_name == "ME" and "ME" not in self.on:
                self.answer_key(m)
                continue
            self.seen.append(m)
            self.on.get(m.op_name, Control.refuse)(self, m)

    def done(self, request, status=200, **values):
        self.channel.answer(request, "msg_done", status=status, **values)

    def row(self, request, record, /, **values):
        self.channel.answer(request, record, **values)

    def refuse(self, request):
        self.done(request, 404, code="vm_not_found", message="there is no such VM")

    def answer_key(self, request):
        """What is asked before a request is refused for its form, and before an upgrade: here every key may all."""
        self.row(request, "row_me", workspace=1, workspace_name="default", key=3, key_name="test", scopes=512)
        self.done(request)

    def close(self):
        try:
            self.channel.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(5)
        self.channel.close()


class Api:
    def __init__(self, tls=True, max_connections=256, max_body_bytes=1 << 20, idle_timeout_ms=75000, control=True, wrapper=(), requests_per_key=0,
                 requests_per_address=0, failures_per_address=0):
        self.tls, self.wrapper = tls, wrapper
        self.config = dict(max_connections=max_connections, max_body_bytes=max_body_bytes, idle_timeout_ms=idle_timeout_ms,
                           requests_per_key=requests_per_key, requests_per_address=requests_per_address,
                           failures_per_address=failures_per_address)
        self.with_control = control
        self.control = None

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="iron-test-api-", dir="/tmp")
        directory = pathlib.Path(self.dir.name)
        make_certificate(directory)
        self.ca = directory / "cert.pem"
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        self.irond, theirs = wire.Channel.pair()
        self.log_path = directory / "log"
        who = ["--uid", str(UID), "--gid", str(UID)] if os.getuid() == 0 else ["--uid", "0", "--gid", "0"]
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                [*self.wrapper, str(BUILD / "src/prog/iron-api"), *who, "--state", str(directory), "--log", "info"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(3,),
                preexec_fn=lambda: os.dup2(theirs.fileno(), 3),
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "ASAN_OPTIONS": "detect_leaks=0:quarantine_size_mb=1"})
        theirs.close()
        with open(directory / "cert.pem") as cert, open(directory / "key.pem") as key:
            self.irond.send("msg_api_config", fds=[cert.fileno(), key.fileno(), self.listener.fileno()], listeners=1, tls=self.tls,
                            public_host="", **self.config)
        self.ping()
        if self.with_control:
            self.connect_control()
        return self

    def __exit__(self, *exc):
        if exc[0]:
            print(self.log())
        self.irond.close()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            if self.control:
                self.control.close()
            self.listener.close()
            log = self.log()
            self.dir.cleanup()
        if not exc[0]:
            assert status == 0, f"iron-api ended with {status}: {log}"

    def log(self):
        return self.log_path.read_text(errors="replace")

    def ping(self):
        txn = self.irond.call("msg_ping")
        answer = self.irond.receive(30)
        assert answer is not None, self.log()
        assert answer.txn == txn and answer.code == 0

    def connect_control(self):
        ours, theirs = wire.Channel.pair()
        self.irond.send("msg_peer", fds=[theirs.fileno()], role=2, id=0)
        theirs.close()
        self.control = Control(ours)
        self.ping()  # in order: it has the peer

    def stream(self, token):
        """Hands iron-api a VM's stream, as irond does; this is iron-vm's end."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.irond.send("msg_stream", fds=[theirs.fileno()], token=token)
        theirs.close()
        ours.settimeout(10)
        return ours

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    # --- as a client ---

    def connect(self, timeout=15, source=None, context=None):
        s = socket.create_connection(("127.0.0.1", self.port), timeout, source_address=(source, 0) if source else None)
        if not self.tls:
            return s
        context = context or ssl.create_default_context(cafile=str(self.ca))
        return context.wrap_socket(s, server_hostname="localhost")

    def call(self, method, path, body=None, key=KEY, headers=None, timeout=60, source=None):
        """One call below /v1 on a connection of its own."""
        send = {"Host": "localhost", **(headers or {})}
        if key is not None:
            send.setdefault("Authorization", "Bearer " + key)
        data = b""
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            send.setdefault("Content-Type", "application/json")
            send["Content-Length"] = str(len(data))
        head = f"{method} /v1{path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in send.items()) + "\r\n"
        with self.connect(timeout, source) as s:
            s.sendall(head.encode("latin-1") + data)
            return self.read_answer(s, method)

    def raw(self, data, timeout=15, shut=False):
        """What is answered to these bytes until the server closes, or is silent for a second."""
        with self.connect(timeout) as s:
            s.sendall(data)
            if shut:
                s.shutdown(socket.SHUT_WR)
            return read_all(s)

    def read_answer(self, s, method="GET"):
        response = http.client.HTTPResponse(s, method=method)
        response.begin()
        return Answer(response.status, response.headers, response.read())


def read_all(s, silence=1.0):
    s.settimeout(silence)
    out = b""
    while True:
        try:
            piece = s.recv(65536)
        except (TimeoutError, socket.timeout, ssl.SSLError, ConnectionError):
            return out
        if not piece:
            return out
        out += piece


def stands_still(value, seconds=0.7):
    """Whether the value was the same all that time: back pressure has reached what makes it grow."""
    a = value()
    time.sleep(seconds)
    return a == value()


def vm_row(**values):
    row = dict(id=0x1234567, name="demo", status="running", status_detail="ready", image="mini", generation=1, vcpus=1,
               memory_mib=256, disk_gib=4, created_at=1700000000000, updated_at=1700000000000)
    return {**row, **values}


def answer_vm(http_status=200, /, **values):
    def handle(control, request):
        control.row(request, "row_vm", **vm_row(**values))
        control.done(request, http_status)
    return handle
