"""No packet of a guest's leaves but through the sockets, with and without the rules"""

import subprocess
import time

import pytest

from harness import BUILD, Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("leak") as it:
        yield it


@pytest.fixture(scope="module")
def vm(iron):
    vm = iron.create("hostile")
    probe = (BUILD / "tests/guest_probe").read_bytes()
    done = iron.iron("exec", "hostile", "-u", "root", "--", "sh", "-c", "cat >/tmp/probe && chmod +x /tmp/probe", stdin=probe)
    assert done.returncode == 0, done.stderr
    return vm


class Capture:
    """Everything on every interface of the host's namespace, complete: a packet that the capture lost fails the test."""

    def __init__(self, path):
        self.path = path

    def __enter__(self):
        self.said = open(self.path.with_suffix(".log"), "w+")
        self.process = subprocess.Popen(["tcpdump", "-i", "any", "-n", "-s", "1600", "-B", "65536", "--immediate-mode", "-U", "-w", str(self.path)],
                                        stderr=self.said)
        wait_for("tcpdump", lambda: self.path.exists() and self.path.stat().st_size >= 24)
        return self

    def __exit__(self, *exc):
        time.sleep(0.5)  # what is in flight; the capture is then complete
        self.process.terminate()
        self.process.wait(10)
        self.said.seek(0)
        said = self.said.read()
        self.said.close()
        assert "\n0 packets dropped by kernel" in said, said

    def holds(self, marker):
        return marker in self.path.read_bytes()


def neighbours():
    return subprocess.run(["ip", "neigh"], capture_output=True, text=True, check=True).stdout.count("\n")


def probe(iron, vm, marker):
    answer = iron.run(vm, "/tmp/probe", marker, iron.origin["dns"], timeout_s=110)
    assert answer["exit_code"] == 0, answer


def test_positive_control_an_allowed_upload_is_seen(iron, vm):
    iron.call("POST", f"/vms/{vm['id']}/egress/rules", {"host": "api.example.com"}, status=201)
    with Capture(iron.dir / "control.pcap") as capture:
        answer = iron.run(vm, "curl", "-sS", "-m", "20", "-d", "MARKER-CONTROL", "http://api.example.com/echo")
        assert answer["stdout"] == "MARKER-CONTROL"
    assert capture.holds(b"MARKER-CONTROL")


def test_nothing_leaves_with_the_rules(iron, vm):
    before = neighbours()
    with Capture(iron.dir / "rules.pcap") as capture:
        probe(iron, vm, "MARKER-WITH-RULES")
    assert not capture.holds(b"MARKER-WITH-RULES")
    assert neighbours() <= before + 2


def test_drops_are_on_record(iron, vm):
    def dropped():
        events = iron.call("GET", f"/audit/egress?vm_id={vm['id']}&limit=500")
        kinds = {e["protocol"] for e in events if e["verdict"] == "denied"}
        return {"udp", "icmp"} <= kinds and kinds

    wait_for("dropped packets in the trail", dropped)


def test_nothing_leaves_with_every_rule_flushed(iron, vm):
    pin = next((iron.dir / "run/vms").glob("*/net"))
    subprocess.run(["nsenter", f"--net={pin}", "nft", "flush", "ruleset"], check=True)
    with Capture(iron.dir / "flushed.pcap") as capture:
        probe(iron, vm, "MARKER-WITHOUT-RULES")
    assert not capture.holds(b"MARKER-WITHOUT-RULES")


def test_the_namespace_leads_nowhere(iron, vm):
    pin = next((iron.dir / "run/vms").glob("*/net"))

    def inside(*argv):
        return subprocess.run(["nsenter", f"--net={pin}", *argv], check=True, capture_output=True, text=True).stdout

    links = {line.split(":")[1].strip().split("@")[0] for line in inside("ip", "-o", "link").splitlines()}
    assert links == {"lo", "tap0"}
    assert not [line for line in inside("ip", "route").splitlines() if "default" in line]
    assert inside("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "0"
