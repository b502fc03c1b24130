"""commands as events, detached and attached to, in a real machine over the API"""

import base64
import json
import os
import ssl
import struct
import threading
import time

import pytest
import websocket

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("execs") as i:
        yield i


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("execs")


def path(vm, rest=""):
    return f"/vms/{vm['id']}/execs{rest}"


def detach(iron, vm, command, **body):
    return iron.call("POST", f"/vms/{vm['id']}/exec", {"command": command, "detach": True, **body})["exec_id"]


def events(answer):
    assert answer.headers["Content-Type"] == "text/event-stream", answer.body
    out = []
    for block in answer.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if line and not line.startswith(":"))
        if fields:
            out.append((fields["event"], fields["data"], int(fields["id"]) if "id" in fields else None))
    return out


def output(found, name="stdout"):
    return b"".join(base64.b64decode(data) for event, data, _ in found if event == name)


def one(iron, vm, exec_id, query=""):
    return iron.call("GET", path(vm, f"/{exec_id}{query}"))


def ended(iron, vm, exec_id):
    return wait_for("the command's end", lambda: (d := one(iron, vm, exec_id))["status"] == "exited" and d)


def test_events(iron, vm):
    answer = iron.api("POST", f"/vms/{vm['id']}/exec", {"command": "cat; echo err >&2; exit 3", "stdin": base64.b64encode(b"in\xff").decode()},
                      headers={"Accept": "text/event-stream"})
    found = events(answer)
    assert (output(found), output(found, "stderr"), json.loads(found[-1][1])) == (b"in\xff", b"err\n", {"exit_code": 3, "timed_out": False})
    listed = iron.api("GET", path(vm)).json["data"]
    mine = next(x for x in listed if x["id"] == answer.headers["Iron-Exec-Id"])
    assert (mine["status"], mine["exit_code"], mine["detached"], mine["user"]) == ("exited", 3, False, "agent")
    answer = iron.api("POST", f"/vms/{vm['id']}/exec", {"command": "sleep 60", "timeout_s": 1}, headers={"Accept": "text/event-stream"})
    assert json.loads(events(answer)[-1][1])["timed_out"] is True


def test_a_detached_command_is_followed_signalled_and_forgotten(iron, vm):
    e = detach(iron, vm, "echo one; echo two >&2; sleep 600")
    data = wait_for("its output", lambda: (d := one(iron, vm, e))["output_bytes"] == 8 and d)
    assert (data["status"], data["exit_code"], data["ended_at"], data["detached"], data["stdout"], data["stderr"]) == ("running", None, None, True, "one\n", "two\n")
    assert (data["offset"], data["next_offset"], data["kept_from"], data["truncated"]) == (0, 8, 0, False)
    assert one(iron, vm, e, "?offset=8")["stdout"] == ""
    assert iron.api("GET", path(vm)).json["data"][0]["id"] == e  # newest first
    assert iron.api("POST", path(vm, f"/{e}/signal"), {"signal": "SIGTERM"}).status == 204
    data = ended(iron, vm, e)
    assert (data["exit_code"], data["ended_at"] is not None) == (143, True)
    assert iron.api("DELETE", path(vm, f"/{e}")).status == 204
    answer = iron.api("GET", path(vm, f"/{e}"))
    assert (answer.status, answer.json["error"]["code"]) == (404, "exec_not_found")
    e = detach(iron, vm, "trap '' TERM; echo up; sleep 600")
    wait_for("its output", lambda: one(iron, vm, e)["output_bytes"])
    assert iron.api("DELETE", path(vm, f"/{e}")).status == 204
    wait_for("it to be gone", lambda: "sleep 600" not in iron.sh(vm, "ps | grep -v grep || true")["stdout"])


def test_output_live_and_from_an_offset(iron, vm):
    e = detach(iron, vm, "for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done")
    found = events(iron.api("GET", path(vm, f"/{e}"), headers={"Accept": "text/event-stream"}))
    assert output(found) == b"".join(b"line %d\n" % i for i in range(1, 6))
    assert (found[0][0], found[-1][0], found[-2][2]) == ("exec", "exit", 35)
    again = events(iron.api("GET", path(vm, f"/{e}"), headers={"Accept": "text/event-stream", "Last-Event-ID": "28"}))
    assert output(again) == b"line 5\n"


def test_the_last_8_mib_are_kept_and_read_a_mebibyte_a_call(iron, vm):
    total = 10 << 20
    e = detach(iron, vm, f"head -c {total} /dev/zero | tr '\\0' x")
    data = ended(iron, vm, e)
    assert data["output_bytes"] == total and total - (8 << 20) <= data["kept_from"] <= total - (7 << 20)
    at, n = data["kept_from"], 0
    while True:
        data = one(iron, vm, e, f"?offset={at}")
        assert data["offset"] == at and data["next_offset"] - at == len(data["stdout"]) <= 1 << 20
        n += len(data["stdout"])
        at = data["next_offset"]
        if not data["truncated"]:
            break
    assert at == total and n == total - one(iron, vm, e)["kept_from"]
    iron.api("DELETE", path(vm, f"/{e}"))


def dial(iron, vm, rest):
    return websocket.create_connection(f"wss://localhost:{iron.port}/v1{rest}", timeout=30, header=["Authorization: Bearer " + iron.key],
                                       sslopt={"ca_certs": str(iron.dir / "tls/cert.pem")})


def receive_until(ws, what):
    got = b""
    while what not in got:
        _, frame = ws.recv_data()
        if frame[0] in (1, 2):
            got += frame[1:]
    return got


def test_attach_leave_and_come_back(iron, vm):
    e = detach(iron, vm, "read a; echo got $a; read b; echo and $b", tty=True, rows=24, cols=80)
    ws = dial(iron, vm, path(vm, f"/{e}"))
    ws.send(json.dumps({"input": True}))
    ws.send_binary(b"\x00first\n")
    receive_until(ws, b"got first")
    ws.close()
    assert one(iron, vm, e)["status"] == "running"  # leaving does not hang it up
    offset = one(iron, vm, e)["next_offset"]
    looker = dial(iron, vm, path(vm, f"/{e}"))
    looker.send(json.dumps({"offset": offset}))
    ws = dial(iron, vm, path(vm, f"/{e}"))
    ws.send(json.dumps({"offset": offset, "input": True}))
    ws.send_binary(b"\x00second\n")
    assert b"got first" not in receive_until(ws, b"and second")
    receive_until(looker, b"and second")
    assert ended(iron, vm, e)["exit_code"] == 0


def test_it_outlives_iron_api_and_iron_vm(iron, vm):
    """Output goes on while nobody listens, and is there afterwards."""
    e = detach(iron, vm, "i=0; while [ $i -lt 40 ]; do echo tick $i; i=$((i+1)); sleep 0.1; done")
    pids = {r["name"]: r["pid"] for r in iron.call("GET", "/host")["roles"]}
    os.kill(pids["iron-api"], 9)
    os.kill(pids["iron-control"], 9)

    def back():
        try:
            return one(iron, vm, e)["status"] == "exited" and one(iron, vm, e)
        except (OSError, AssertionError):
            return None
    data = wait_for("the end", back, 60)
    assert data["stdout"].split("\n")[:-1] == [f"tick {i}" for i in range(40)]


def test_a_call_right_after_a_kill_of_iron_control_is_held(iron, vm):
    for _ in range(3):
        pid = next(r["pid"] for r in iron.call("GET", "/host")["roles"] if r["name"] == "iron-control")
        os.kill(pid, 9)
        answer = iron.api("POST", f"/vms/{vm['id']}/exec", {"argv": ["echo", "still"]})
        assert (answer.status, answer.json.get("data", {}).get("stdout")) == (200, "still\n"), answer.body
        wait_for("control", lambda: iron.api("GET", "/readyz", key=None).status == 200)


def test_a_command_that_its_client_leaves_is_hung_up(iron, vm):
    ws = dial(iron, vm, f"/vms/{vm['id']}/exec")
    ws.send(json.dumps({"command": "echo up; sleep 601"}))
    receive_until(ws, b"up")
    ws.close()
    wait_for("it to be gone", lambda: "sleep 601" not in iron.sh(vm, "ps | grep -v grep || true")["stdout"])


def test_many_at_a_time_and_the_64_that_ended(iron, vm):
    ids = [detach(iron, vm, f"echo {i}") for i in range(70)]
    for e in ids[-3:]:
        assert ended(iron, vm, e)["stdout"] == f"{ids.index(e)}\n"
    listed = [x["id"] for x in iron.api("GET", path(vm)).json["data"]]
    assert listed[0] == ids[-1] and 64 <= len(listed) <= 70 and ids[0] not in listed
    assert iron.api("GET", path(vm, "/" + ids[0])).status == 404


def test_the_same_idempotency_key_starts_one_command(iron, vm):
    def start():
        return iron.api("POST", f"/vms/{vm['id']}/exec", {"command": "echo ran >> /tmp/once", "detach": True}, headers={"Idempotency-Key": "once"})
    first, second = start(), start()
    assert first.json["data"]["exec_id"] == second.json["data"]["exec_id"] and second.headers["Idempotent-Replayed"] == "true"
    ended(iron, vm, first.json["data"]["exec_id"])
    assert iron.sh(vm, "cat /tmp/once")["stdout"] == "ran\n"
    made = [iron.api("POST", f"/vms/{vm['id']}/files/mkdir", {"path": "/tmp/made", "parents": False}, headers={"Idempotency-Key": "made"}) for _ in range(2)]
    assert [a.status for a in made] == [201, 201] and made[0].json == made[1].json


def test_it_is_on_record(iron, vm):
    e = detach(iron, vm, "exit 5")
    ended(iron, vm, e)
    iron.api("DELETE", path(vm, f"/{e}"))

    def found():
        mine = [x for x in iron.api("GET", f"/audit/events?kind=exec&vm_id={vm['id']}&limit=20").json["data"] if x["detail"].get("exec_id") == e]
        return mine if {("open", "accepted"), ("close", "detached"), ("remove", "accepted"), ("remove", "done")} <= {(x["action"], x["outcome"]) for x in mine} else None
    mine = wait_for("the records", found)
    assert next(x for x in mine if x["action"] == "open")["detail"]["command"] == "exit 5"


def test_the_console_shows_what_the_kernel_said(iron, vm):
    iron.sh(vm, "echo said-by-the-guest > /dev/console")
    wait_for("the console", lambda: b"said-by-the-guest" in iron.api("GET", f"/vms/{vm['id']}/console").body)
