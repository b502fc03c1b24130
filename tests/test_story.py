"""The main job, end to end, on mini: a VM, one door, a record"""

import json
import os
import shutil
import subprocess
import threading
import time

import pytest

from harness import BUILD, Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("story") as it:
        yield it


@pytest.fixture(scope="module")
def two(iron):
    """Two VMs of one image, shared by all tests here."""
    first = iron.call("POST", "/vms", {"name": "one", "labels": {"team": "a"}}, status=201)
    second = iron.call("POST", "/vms", {"name": "two"}, status=201)
    return iron.wait_ready(first["id"]), iron.wait_ready(second["id"])


def test_exec_passes_output_and_exit_code_through(iron, two):
    assert iron.run(two[0], "/bin/echo", "hi")["stdout"] == "hi\n"
    done = iron.iron("exec", "one", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 7)


def test_two_vms_of_one_image_differ_before_the_first_command(iron, two):
    ask = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; cat /etc/machine-id; hostname"
    first, second = (iron.sh(vm, ask)["stdout"].split("\n") for vm in two)
    for a, b in zip(first[:4], second[:4]):
        assert a and a != b
    assert first[3] == "one"


def test_clocks_are_right_to_500_ms(iron, two):
    for vm in two:
        before = time.time()
        guest = float(iron.sh(vm, "date +%s.%N 2>/dev/null | grep -v N || cut -d' ' -f1 /proc/uptime")["stdout"])
        after = time.time()
        if guest > 1e9:  # with nanoseconds
            assert before - 0.5 <= guest <= after + 0.5
        else:
            assert abs(int(iron.sh(vm, "date +%s")["stdout"]) - time.time()) < 1.6


def test_what_no_rule_allows_is_refused_and_says_why(iron, two):
    answer = iron.run(two[0], "curl", "-sS", "-i", "-m", "20", "http://denied.example/")
    assert "403" in answer["stdout"].split("\r\n")[0]
    assert "Blocked by this machine's egress policy, not by denied.example. Do not retry" in answer["stdout"]
    tls = iron.run(two[0], "curl", "-sS", "-m", "20", "https://denied.example/")
    assert tls["exit_code"] != 0 and "alert" in tls["stderr"]


def test_a_rule_opens_the_door_and_its_removal_closes_it(iron, two):
    one = two[0]
    refused = iron.run(one, "curl", "-sS", "-m", "20", "https://api.example.com/")
    assert refused["exit_code"] != 0
    iron.ok("egress", "add", "--host", "api.example.com")
    opened = iron.run(one, "curl", "-sS", "-m", "20", "https://api.example.com/")
    assert opened["stdout"] == "hello from api.example.com\n", opened
    assert iron.run(one, "curl", "-sS", "-m", "20", "http://api.example.com/")["stdout"] == "hello from api.example.com\n"
    rule = iron.call("GET", "/egress/rules?host=api.example.com")[0]
    iron.ok("egress", "remove", rule["id"])
    assert iron.run(one, "curl", "-sS", "-m", "20", "https://api.example.com/")["exit_code"] != 0


def test_everything_is_on_record(iron, two):
    events = wait_for("both hosts in the trail", lambda: (
        lambda e: e if {"denied.example", "api.example.com"} <= {x["host"] for x in e} else None)(
            iron.call("GET", f"/audit/egress?vm_id={two[0]['id']}&limit=500")))
    allowed = [e for e in events if e["host"] == "api.example.com" and e["protocol"] == "tls" and e["verdict"] == "allowed"]
    assert allowed and allowed[0]["bytes_received"] > 0 and allowed[0]["port"] == 443 and allowed[0]["rule_id"].startswith("egr_")
    denied = [e for e in events if e["host"] == "denied.example" and e["protocol"] == "http"]
    assert denied[0]["verdict"] == "denied" and denied[0]["status_code"] == 403 and denied[0]["method"] == "GET"


def test_the_trail_is_followed_without_loss_or_doubles(iron, two):
    since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 1))
    page = iron.api("GET", f"/audit/egress?order=asc&since={since}&limit=500").json
    cursor, seen = page["cursor"], []
    assert cursor
    for i in range(5):
        iron.run(two[1], "curl", "-s", "-m", "20", f"http://follow{i}.example/")

    def more():
        nonlocal cursor
        page = iron.api("GET", f"/audit/egress?order=asc&since={since}&limit=2&cursor={cursor}").json
        cursor = page["cursor"]
        seen.extend(e["host"] for e in page["data"] if e["protocol"] == "http")
        return len([h for h in seen if h.startswith("follow")]) >= 5

    wait_for("five events", more)
    assert [h for h in seen if h.startswith("follow")] == [f"follow{i}.example" for i in range(5)]


def test_follow_on_the_command_line(iron, two):
    lines, looks = [], iron.looks("AUDIT_EGRESS")
    p = subprocess.Popen([BUILD / "src/prog/iron", "audit", "egress", "--follow", "--json"], stdout=subprocess.PIPE,
                         env={"HOME": str(iron.dir / "home"), "PATH": os.environ["PATH"]})
    try:
        reader = threading.Thread(target=lambda: [lines.append(x) for x in p.stdout], daemon=True)
        reader.start()
        wait_for("its first look", lambda: iron.looks("AUDIT_EGRESS") > looks)
        iron.run(two[1], "curl", "-s", "-m", "20", "http://live.example/")
        wait_for("the event on the command line", lambda: any(b"live.example" in x for x in list(lines)))
    finally:
        p.terminate()
        p.wait(10)


def test_an_ordinary_user_with_only_a_key(iron, two):
    home = iron.dir / "nobody-home"
    iron.write_cli_configuration(home, iron.key)
    subprocess.run(["chown", "-R", "65534:65534", home], check=True)
    done = iron.iron("exec", "two", "--", "id", "-un", home=home, user="65534")
    assert done.stdout == b"agent\n", done.stderr
    assert b"one" in iron.iron("list", home=home, user="65534").stdout


def test_scopes_are_checked(iron, two):
    key = iron.call("POST", "/keys", {"name": "ci", "scopes": ["vm:read", "vm:run"]}, status=201)["key"]
    assert iron.api("GET", "/vms", key=key).status == 200
    refused = iron.api("POST", "/egress/rules", {"host": "x.example"}, key=key)
    assert refused.status == 403 and refused.json["error"]["code"] == "scope_missing"
    assert iron.api("GET", "/vms", key="iron_live_wrong").status == 401


def test_stop_start_and_destroy(iron, two):
    vm = two[1]
    iron.ok("exec", "two", "-u", "root", "--", "true")
    stopped = iron.call("POST", f"/vms/{vm['id']}/stop")
    assert stopped["status"] in ("stopped", "running")
    wait_for("stopped", lambda: iron.call("GET", f"/vms/{vm['id']}")["status_detail"] == "stopped", 60)
    assert iron.api("POST", f"/vms/{vm['id']}/stop").json["error"]["code"] == "vm_not_running"
    iron.call("POST", f"/vms/{vm['id']}/start")
    vm = iron.wait_ready(vm["id"])
    assert iron.run(vm, "hostname")["stdout"] == "two\n"
    refused = iron.api("DELETE", f"/vms/{vm['id']}")
    assert refused.status == 409 and "not stopped" in refused.json["error"]["message"]
    assert iron.api("DELETE", f"/vms/{vm['id']}?force=true").status == 204
    wait_for("destroyed", lambda: iron.call("GET", f"/vms/{vm['id']}")["status_detail"] == "destroyed")
    assert json.dumps(iron.call("GET", "/vms")).count(vm["id"]) == 0
    again = iron.call("POST", "/vms", {"name": "two"}, status=201)
    assert iron.api("DELETE", f"/vms/{again['id']}?force=true").status == 204


def copy_of_image(iron, image, letter, created_at):
    """Another whole image of the same name; its id differs in the last letter."""
    images = iron.dir / "state/images"
    new = image[:-1] + letter
    shutil.copytree(images / image, images / new)
    manifest = images / new / "manifest.json"
    manifest.chmod(0o644)
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "id": new, "created_at": created_at}))
    return new


def test_a_replaced_image_goes_when_no_vm_was_made_of_it(iron, two):
    """And new VMs are made of the newest, in whatever order images are found."""
    image = iron.call("GET", "/images")[0]["id"]
    letters = [c for c in "0123456789" if c != image[-1]]
    unused = copy_of_image(iron, image, letters[0], "2020-01-01T00:00:00.000Z")
    newest = copy_of_image(iron, image, letters[1], "2099-01-01T00:00:00.000Z")
    iron.end()
    iron.start_irond()
    there = {path.name for path in (iron.dir / "state/images").glob("img_*")}
    assert {image, newest} <= there and unused not in there
    assert [i["id"] for i in iron.call("GET", "/images")] == [newest]
    iron.call("POST", f"/vms/{two[0]['id']}/start")
    assert iron.run(iron.wait_ready(two[0]["id"]), "hostname")["stdout"] == "one\n"
