"""A whole iron of its own for a test: configuration, directories, instance, port, a small internet; and everything gone
again afterwards. Names follow tests/sweep: directories /tmp/iron-test-…, instances and namespaces it-…."""

import contextlib
import http.client
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("IRON_BUILD", ROOT / "build-test" / "gcc"))
# what runs inside guests is static, and the image builder may not trace itself: neither is sanitized
GUEST_BUILD = pathlib.Path(os.environ.get("IRON_GUEST_BUILD", BUILD))
ROLES = ["iron-api", "iron-control", "iron-vm", "iron-egress", "iron-audit", "iron-worker", "iron-recipe"]
# Images are made once for all tests of a checkout and copied by link; irond itself caches them by their inputs.
IMAGE_CACHE = ROOT / "build-test" / "images"


def wait_for(what, condition, seconds=30.0, explain=lambda: ""):
    """The condition's first true value; fails naming `what` (and what explain says then) when it does not come in time."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for {what} {explain()}".rstrip())
        time.sleep(0.05)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def free_net():
    """N such that no interface of this host has 10.78.N.1 (0 is quickstart's). Random, so that two runs do not meet."""
    taken = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True, check=True).stdout
    return random.choice([n for n in range(2, 255) if f" 10.78.{n}.1/" not in taken])


def libexec_dir(parent):
    """Where irond finds the roles: links to what the build made."""
    directory = parent / "libexec"
    directory.mkdir()
    for role in ROLES:
        build = GUEST_BUILD if role == "iron-worker" else BUILD
        (directory / role).symlink_to(build / "src" / "prog" / role)
    (directory / "iron-agent").symlink_to(GUEST_BUILD / "src" / "agent" / "iron-agent")
    return directory


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Iron:
    """A running irond, apart from any other on this host: its name is its own, and `net`, the third byte of the origin's
    address, is one that nobody has."""

    def __init__(self, name="e2e", net=None, hosts=("api.example.com",), extra="", egress_extra=""):
        net = net or free_net()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix=f"iron-test-{name}-", dir="/tmp"))
        self.dir.chmod(0o755)
        self.name, self.net, self.hosts = f"it-{name[:8]}-{net}", net, hosts
        self.port = free_port()
        self.extra, self.egress_extra = extra, egress_extra
        self.origin = None
        self.process = None
        self.key = None

    # --- life ---

    def start(self, image="mini"):
        self.start_origin()
        self.write_configuration(image)
        self.build_image(image)
        self.start_irond()
        self.key = self.irond("key", "create", "test", "--scopes", "admin").strip()
        self.write_cli_configuration(self.dir / "home", self.key)
        return self

    def start_origin(self):
        out = subprocess.run([ROOT / "tools/origin/origin", "up", self.name, self.dir / "origin", "--net", str(self.net), *self.hosts],
                             check=True, capture_output=True, text=True).stdout
        self.origin = json.loads(out)

    def write_configuration(self, image):
        tls = self.dir / "tls"
        tls.mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-keyout", tls / "key.pem", "-out", tls / "cert.pem"], check=True, capture_output=True)
        hosts = ", ".join([*self.hosts, *(f'"*.{h}"' for h in self.hosts)])
        (self.dir / "iron.yaml").write_text(f"""\
listen: ["127.0.0.1:{self.port}"]
tls:
  cert_file: {tls}/cert.pem
  key_file: {tls}/key.pem
state_dir: {self.dir}/state
run_dir: {self.dir}/run
instance: {self.name}
cgroup_root: {self.name}
uid_base: {3000000 + 40000 * self.net}
default_image: {image}
shapes:
  - {{name: small, vcpus: 1, memory_mib: 256}}
{self.extra}
egress:
  resolvers: [{self.origin['dns']}]
  extra_ca_files: [{self.origin['ca']}]
  private_allow:
    - cidr: {self.origin['cidr']}
      hosts: [{hosts}]
{self.egress_extra}
""")
        self.libexec = libexec_dir(self.dir)
        (self.dir / "state").mkdir(mode=0o755)
        (self.dir / "run").mkdir(mode=0o755)

    def build_image(self, image):
        """Built below the cache and linked in: the same inputs are not built twice in one checkout."""
        cached = IMAGE_CACHE / image
        images = self.dir / "state" / "images"
        if cached.is_dir():
            shutil.copytree(cached, images, copy_function=os.link, symlinks=True)
        # the probe of KVM takes seconds and answers the same on one host
        verdict, kept = self.dir / "state" / "accel.json", IMAGE_CACHE / "accel.json"
        if kept.exists():
            shutil.copyfile(kept, verdict)
        self.irond("image", "build", image, timeout=900)
        IMAGE_CACHE.mkdir(parents=True, exist_ok=True)
        if verdict.exists():
            shutil.copyfile(verdict, kept)
        shutil.rmtree(cached, ignore_errors=True)
        cached.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            shutil.copytree(images, cached, copy_function=os.link, symlinks=True)

    def start_irond(self):
        self.log = open(self.dir / "irond.log", "ab")
        self.process = subprocess.Popen([BUILD / "src/prog/irond", "--foreground", "-c", self.dir / "iron.yaml", "--libexec", self.libexec],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

        def ready():
            if self.process.poll() is not None:
                raise AssertionError("irond ended: " + self.log_tail())
            try:
                return self.api("GET", "/readyz", key=None).status == 200
            except OSError:
                return False

        wait_for("irond to be ready; " + str(self.dir / "irond.log"), ready, 30)

    def stop_irond(self, how=signal.SIGTERM, seconds=60):
        """By a signal: SIGTERM leaves VMs running for the next start_irond."""
        self.process.send_signal(how)
        self.process.wait(seconds)

    def end(self):
        """irond, its VMs and all that serves them."""
        self.irond("stop", "--vms")
        if self.process:
            self.process.wait(30)

    def close(self):
        try:
            if self.process:
                self.end()
        finally:
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            if self.origin:
                subprocess.run([ROOT / "tools/origin/origin", "down", self.name, self.dir / "origin"], check=True)
            if os.environ.get("IRON_KEEP"):
                print("kept:", self.dir)
            else:
                shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc):
        if exc[0] and self.process:
            print(self.log_tail())
        self.close()

    def log_tail(self):
        with contextlib.suppress(OSError):
            return (self.dir / "irond.log").read_text(errors="replace")[-6000:]
        return ""

    # --- talking to it ---

    def irond(self, *words, timeout=120):
        done = subprocess.run([BUILD / "src/prog/irond", *words, "-c", self.dir / "iron.yaml", "--libexec", self.libexec],
                              capture_output=True, text=True, timeout=timeout)
        if done.returncode:
            raise AssertionError(f"irond {' '.join(words)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def api(self, method, path, body=None, key="", timeout=60, headers=None):
        """One call below /v1. key: "" the test's own, None none."""
        context = ssl.create_default_context(cafile=str(self.dir / "tls/cert.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=timeout)
        send = dict(headers or {})
        if key is not None:
            send["Authorization"] = "Bearer " + (key or self.key)
        data = None
        if body is not None:
            send["Content-Type"] = "application/json"
            data = json.dumps(body) if not isinstance(body, (str, bytes)) else body
        try:
            connection.request(method, "/v1" + path, data, send)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def call(self, method, path, body=None, status=200, **kw):
        answer = self.api(method, path, body, **kw)
        assert answer.status == status, f"{method} {path}: {answer.status} {answer.body[:1000]}"
        return answer.json["data"] if answer.body else None

    def write_cli_configuration(self, home, key):
        der = subprocess.run(["openssl", "x509", "-in", self.dir / "tls/cert.pem", "-outform", "DER"], check=True, capture_output=True).stdout
        import hashlib
        directory = home / ".config/iron"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "config.yaml").write_text(
            f"api_url: https://127.0.0.1:{self.port}\napi_key: {key}\ntls_sha256: {hashlib.sha256(der).hexdigest()}\n")
        (directory / "config.yaml").chmod(0o600)

    def iron(self, *words, stdin=None, timeout=120, home=None, user=None):
        """The command line; the finished process, whatever its exit code."""
        argv = [str(BUILD / "src/prog/iron"), *map(str, words)]
        if user:
            # a copy: the checkout may lie where that user may not look
            argv[0] = shutil.copy(argv[0], self.dir / "iron")
            argv = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *argv]
        env = {"HOME": str(home or self.dir / "home"), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "TERM": "xterm"}
        return subprocess.run(argv, input=stdin, capture_output=True, timeout=timeout, env=env)

    def ok(self, *words, **kw):
        done = self.iron(*words, **kw)
        assert done.returncode == 0, f"iron {' '.join(map(str, words))}: {done.returncode}\n{done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    def looks(self, action):
        """How often the command line has read the record so far (action: AUDIT_EGRESS, AUDIT_EVENTS), as the record has it."""
        return len([e for e in self.call("GET", "/audit/events?kind=api&limit=500") if e["action"] == action and e["client"].startswith("iron/")])

    def create(self, name, **body):
        vm = self.call("POST", "/vms", {"name": name, **body}, status=201)
        return self.wait_ready(vm["id"])

    def wait_ready(self, vm_id, seconds=180):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            vm = self.call("GET", f"/vms/{vm_id}?wait=ready&timeout_s=20")
            if vm["status"] == "failed":
                raise AssertionError(f"{vm['name']} failed: {vm['status_reason']}\n{self.log_tail()}")
            if vm["status_detail"] == "ready":
                return vm
        raise AssertionError(f"{vm['name']} is still {vm['status_detail']}\n{self.log_tail()}")

    def run(self, vm, *argv, user="root", **body):
        """exec, buffered: its answer."""
        return self.call("POST", f"/vms/{vm['id']}/exec", {"argv": list(argv), "user": user, **body}, timeout=120)

    def sh(self, vm, script, **body):
        return self.run(vm, "/bin/sh", "-c", script, **body)
