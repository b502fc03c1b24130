"""A server that says to the command line whatever a test wants: HTTPS with a certificate of its own, answers by pattern, and
the WebSocket's bytes by hand. And a terminal to run the command line on."""

import base64
import fcntl
import hashlib
import http.server
import json
import os
import pathlib
import pty
import re
import select
import signal
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import time

import pytest

from api_lab import make_certificate
from harness import BUILD, wait_for

IRON = str(BUILD / "src/prog/iron")
VM_ID = "vm_00000000j6hb7"
VM = {"id": VM_ID, "name": "demo", "status": "running", "status_detail": "ready", "status_reason": "", "image": "mini", "snapshot_id": None,
      "parent_id": None, "generation": 1, "vcpus": 1, "memory_mib": 256, "disk_gib": 10, "labels": {}, "restart": "never",
      "created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z", "started_at": None, "stopped_at": None}
KEY = "iron_live_thekey"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except OSError:
            self.close_connection = True

    def any(self):
        fake = self.server.fake
        fake.seen.append((self.command, self.path, dict(self.headers)))
        path = self.path.removeprefix("/v1")
        for method, pattern, answer in reversed(fake.routes):
            if method == self.command and re.fullmatch(pattern, path):
                answer = answer(self) if callable(answer) else answer
                if answer is not None:
                    self.say(*answer) if isinstance(answer, tuple) else self.say(200, answer)
                return
        self.say(404, {"error": {"code": "not_found", "message": f"nothing at {self.command} {path}"}})

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = any

    def body(self):
        """What came with the request, chunked or not."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        out = b""
        while True:
            n = int(self.rfile.readline(), 16)
            out += self.rfile.read(n)
            self.rfile.readline()
            if n == 0:
                return out

    def say(self, status, body=None, headers=()):
        if self.command in ("POST", "PATCH") and not hasattr(self, "was_read"):
            self.body()
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    # --- the WebSocket ---

    def upgrade(self):
        key = self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        self.close_connection = True
        return json.loads(self.frame()[1])

    def frame(self):
        head = self.rfile.read(2)
        if len(head) < 2:
            return None, b""
        n = head[1] & 127
        n = struct.unpack(">H", self.rfile.read(2))[0] if n == 126 else struct.unpack(">Q", self.rfile.read(8))[0] if n == 127 else n
        mask = self.rfile.read(4)
        data = self.rfile.read(n)
        return head[0] & 15, bytes(b ^ mask[i % 4] for i, b in enumerate(data))

    def send(self, channel, data):
        if channel == 3:
            data = json.dumps(data).encode()
        data = bytes([channel]) + data
        head = bytes([0x82]) + (bytes([len(data)]) if len(data) < 126 else bytes([126]) + struct.pack(">H", len(data)))
        self.wfile.write(head + data)
        self.wfile.flush()

    def control(self):
        """The next control message; what is stdin's is kept in self.stdin."""
        self.stdin = getattr(self, "stdin", b"")
        while True:
            opcode, data = self.frame()
            if opcode is None or opcode == 8:
                return None
            if data[:1] == b"\x03":
                return json.loads(data[1:])
            self.stdin += data[1:]


class Fake:
    """`on(method, pattern below /v1, answer)`: JSON, (status, JSON or bytes, headers), or a function of the handler that
    gives one of these, or None when it answered itself. What was added last comes first."""

    def __enter__(self):
        self.dir = tempfile.TemporaryDirectory(prefix="iron-test-fake-", dir="/tmp")
        self.path = pathlib.Path(self.dir.name)
        make_certificate(self.path)
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.fake = self
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.path / "cert.pem", self.path / "key.pem")
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.server.handle_error = lambda *a: None
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.home = self.path / "home"
        self.configure(self.home)
        self.reset()
        return self

    def __exit__(self, *exc):
        self.server.shutdown()
        self.server.server_close()
        self.dir.cleanup()

    def configure(self, home):
        der = ssl.PEM_cert_to_DER_cert((self.path / "cert.pem").read_text())
        directory = home / ".config/iron"
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(
            f"api_url: https://127.0.0.1:{self.port}\napi_key: {KEY}\ntls_sha256: {hashlib.sha256(der).hexdigest()}\n")
        (directory / "config.yaml").chmod(0o600)

    def reset(self):
        self.routes, self.seen = [], []
        self.on("GET", r"/vms\?name=.*", page([]))
        self.on("GET", r"/vms\?name=demo", page([VM]))
        self.on("GET", rf"/vms/{VM_ID}(\?.*)?", {"data": VM})

    def on(self, method, pattern, answer):
        self.routes.append((method, pattern, answer))

    def env(self, **more):
        return {"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm", "ASAN_OPTIONS": "detect_leaks=0", **more}

    def iron(self, *words, stdin=b"", timeout=60, cwd=None, **env):
        return subprocess.run([IRON, *map(str, words)], input=stdin, capture_output=True, timeout=timeout, env=self.env(**env), cwd=cwd)

    def ok(self, *words, **kw):
        done = self.iron(*words, **kw)
        assert done.returncode == 0, (words, done.returncode, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout.decode()

    def start(self, *words, cwd=None, **kw):
        return subprocess.Popen([IRON, *map(str, words)], stdin=kw.pop("stdin", subprocess.PIPE), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                env=self.env(**kw), cwd=cwd)

    def terminal(self, columns, *words, **env):
        return Terminal(columns, [IRON, *map(str, words)], self.env(**env))


def page(items, **more):
    return {"data": items, "has_more": False, "cursor": None} | more


def error(status, code, message):
    return status, {"error": {"code": code, "message": message}}


def in_session(pid):
    """Until that program has its conversation with a command: what signals do then is the session's, SIGQUIT's too."""
    wait_for("its session", lambda: int(re.search(r"^SigCgt:\s*(\w+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.M)[1], 16)
             >> (signal.SIGQUIT - 1) & 1)


class Terminal:
    """A program on a terminal so wide."""

    def __init__(self, columns, argv, env, cwd=None):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            if cwd:
                os.chdir(cwd)
            os.execve(argv[0], argv, env)
        self.out = b""
        self.code = None

    def type(self, data):
        os.write(self.fd, data)

    def until(self, what, seconds=20):
        end = time.monotonic() + seconds
        while what not in self.out:
            assert select.select([self.fd], [], [], max(0, end - time.monotonic()))[0], f"no {what!r} in {self.out!r}"
            self.out += os.read(self.fd, 65536)

    def wait(self, seconds=30):
        """All that it printed, once it ended."""
        end = time.monotonic() + seconds
        while True:
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                os.kill(self.pid, signal.SIGKILL)
                raise AssertionError(f"it does not end: {self.out!r}")
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b""
            if not data:
                break
            self.out += data
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return self.out.decode(errors="replace").replace("\r\n", "\n")


@pytest.fixture(scope="module")
def server():
    with Fake() as f:
        yield f
