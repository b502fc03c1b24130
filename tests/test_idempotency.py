"""Idempotency-Key: the same call is done once, and answered the same, whatever is killed in between. Two at once, another body,
a key's secret, exec and its large output, crashes of iron-control and iron-api."""

import json
import os
import signal
import threading
import time
import uuid

import pytest

from harness import Iron, wait_for


@pytest.fixture(scope="module")
def iron():
    with Iron("once") as running:
        yield running


@pytest.fixture(scope="module")
def vm(iron):
    return iron.create("once")


def post(iron, path, body, key, **kw):
    return iron.api("POST", path, body, headers={"Idempotency-Key": key}, **kw)


def fresh():
    return str(uuid.uuid4())


def kill(iron, role):
    """SIGKILL, as soon as it is found; irond starts it again."""
    before = next(r for r in iron.call("GET", "/host")["roles"] if r["name"] == role)
    os.kill(before["pid"], signal.SIGKILL)

    def back():
        try:
            answer = iron.api("GET", "/host")
        except OSError:
            return False
        if answer.status != 200:
            return False
        role_now = next(r for r in answer.json["data"]["roles"] if r["name"] == role)
        return role_now["pid"] != before["pid"] and iron.api("GET", "/readyz", key=None).status == 200

    wait_for(f"{role} to be back", back, 30)


def test_rule_is_made_once(iron):
    key = fresh()
    body = {"host": "api.example.com", "name": "once"}
    first = post(iron, "/egress/rules", body, key)
    second = post(iron, "/egress/rules", body, key)
    assert first.status == second.status == 201
    assert first.body == second.body
    assert second.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert [r["name"] for r in iron.api("GET", "/egress/rules").json["data"]].count("once") == 1


@pytest.mark.parametrize("what", ["body", "endpoint", "query"])
def test_another_call_is_a_mismatch(iron, vm, what):
    key = fresh()
    body = {"host": "api.example.com"}
    assert post(iron, "/egress/rules", body, key).status == 201
    path, other = {
        "body": ("/egress/rules", {"host": "www.example.com"}),
        "endpoint": (f"/vms/{vm['id']}/egress/rules", body),
        "query": ("/keys", body),
    }[what]
    answer = post(iron, path, other, key)
    assert (answer.status, answer.json["error"]["code"]) in [(409, "idempotency_mismatch"), (422, "validation_error")]
    if what != "query":
        assert answer.json["error"]["code"] == "idempotency_mismatch"


def test_what_changed_nothing_is_not_kept(iron):
    key = fresh()
    assert post(iron, "/egress/rules", {"host": "not a host"}, key).status == 422
    assert post(iron, "/egress/rules", {"host": "kept.example.com"}, key).status == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\tb", "\u00e9".encode().decode("latin-1")])
def test_keys_that_are_none(iron, key):
    answer = post(iron, "/egress/rules", {"host": "api.example.com"}, key)
    assert answer.status == 422 or (answer.status == 400 and key == "a\tb")
    assert "Idempotency-Key" in answer.json["error"]["message"]


def test_longest_key(iron):
    key = "~" * 255
    assert post(iron, "/egress/rules", {"host": "long.example.com"}, key).status == 201
    assert post(iron, "/egress/rules", {"host": "long.example.com"}, key).headers["Idempotent-Replayed"] == "true"


def test_a_key_is_shown_once_and_kept_nowhere(iron):
    key = fresh()
    body = {"name": "once", "scopes": ["vm:read"]}
    first = post(iron, "/keys", body, key).json["data"]
    second = post(iron, "/keys", body, key)
    assert second.status == 201
    assert second.json["data"] == {**first, "key": ""}
    files = [p for p in (iron.dir / "state/db").iterdir() if p.is_file()]
    assert not [p for p in files if first["key"].encode() in p.read_bytes()]


def test_two_at_once_are_one(iron):
    key, answers = fresh(), []
    body = {"name": "at-once"}
    threads = [threading.Thread(target=lambda: answers.append(post(iron, "/vms", body, key))) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert {a.status for a in answers} == {201}
    assert len({a.json["data"]["id"] for a in answers}) == 1
    iron.call("DELETE", f"/vms/{answers[0].json['data']['id']}?force=true", status=204)


def test_exec_runs_once(iron, vm):
    key = fresh()
    body = {"command": "echo ran >> /tmp/ran; wc -l < /tmp/ran", "user": "root"}
    first = post(iron, f"/vms/{vm['id']}/exec", body, key)
    second = post(iron, f"/vms/{vm['id']}/exec", body, key)
    assert first.status == 200 and first.json["data"]["stdout"].strip() == "1"
    assert second.body == first.body
    assert second.headers["Idempotent-Replayed"] == "true"
    # a second one, while the first runs, waits for it
    key, answers = fresh(), []
    body = {"command": "sleep 2; echo ran >> /tmp/ran; wc -l < /tmp/ran", "user": "root"}
    threads = [threading.Thread(target=lambda: answers.append(post(iron, f"/vms/{vm['id']}/exec", body, key))) for _ in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert [a.json["data"]["stdout"].strip() for a in answers] == ["2", "2"]


def test_exec_that_did_not_begin_is_not_kept(iron, vm):
    key = fresh()
    body = {"argv": ["/tmp/not-there-yet"], "user": "root"}
    assert post(iron, f"/vms/{vm['id']}/exec", body, key).status == 422
    iron.sh(vm, "printf '#!/bin/sh\\necho here\\n' > /tmp/not-there-yet; chmod 755 /tmp/not-there-yet")
    answer = post(iron, f"/vms/{vm['id']}/exec", body, key)
    assert answer.status == 200 and answer.json["data"]["stdout"] == "here\n"


def test_large_output_is_not_kept_and_the_command_not_run_again(iron, vm):
    key = fresh()
    body = {"command": "echo ran >> /tmp/large; head -c 200000 /dev/zero | tr '\\0' x", "user": "root"}
    first = post(iron, f"/vms/{vm['id']}/exec", body, key)
    assert first.status == 200 and len(first.json["data"]["stdout"]) == 200000
    second = post(iron, f"/vms/{vm['id']}/exec", body, key)
    assert (second.status, second.json["error"]["code"]) == (409, "idempotency_mismatch")
    assert "not kept" in second.json["error"]["message"]
    assert iron.sh(vm, "wc -l < /tmp/large")["stdout"].strip() == "1"


def test_a_client_that_left(iron, vm):
    key = fresh()
    body = {"command": "echo ran >> /tmp/left; sleep 60", "user": "root"}
    with pytest.raises(OSError):
        post(iron, f"/vms/{vm['id']}/exec", body, key, timeout=2)
    wait_for("the command to have begun", lambda: iron.sh(vm, "wc -l < /tmp/left")["stdout"].strip() == "1")

    def answered():
        answer = post(iron, f"/vms/{vm['id']}/exec", body, key)
        return answer.status == 409 and answer

    assert "not kept" in wait_for("the first call to be over", answered).json["error"]["message"]
    assert iron.sh(vm, "wc -l < /tmp/left")["stdout"].strip() == "1"


def test_start_and_stop(iron):
    vm = iron.create("turns")
    key = fresh()
    for _ in range(2):
        assert post(iron, f"/vms/{vm['id']}/stop", {}, key).status == 200
    wait_for("the VM to stop", lambda: iron.call("GET", f"/vms/{vm['id']}")["status_detail"] == "stopped")
    # without the key the same call is refused
    assert iron.api("POST", f"/vms/{vm['id']}/stop").status == 409
    assert post(iron, f"/vms/{vm['id']}/stop", {}, key).headers["Idempotent-Replayed"] == "true"
    iron.call("DELETE", f"/vms/{vm['id']}", status=204)


def retried(iron, path, body, key):
    """As a client does it: again until there is an answer that is no 503, 5 tries a second."""
    end = time.monotonic() + 40
    while True:
        try:
            answer = post(iron, path, body, key, timeout=30)
            if answer.status != 503:
                return answer
        except OSError:
            pass
        assert time.monotonic() < end
        time.sleep(0.2)


@pytest.mark.parametrize("role", ["iron-control", "iron-api"])
@pytest.mark.parametrize("delay_ms", [0, 15, 60, 300])
def test_killed_in_between(iron, role, delay_ms):
    """The client is cut off at some point of a create, and retries: there is one VM, whatever happened first."""
    key = fresh()
    body = {"name": f"cut-{role[5:]}-{delay_ms}"}
    pid = next(r for r in iron.call("GET", "/host")["roles"] if r["name"] == role)["pid"]
    answers = []

    def call():
        try:
            answers.append(post(iron, "/vms", body, key))
        except OSError:
            pass

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(delay_ms / 1000)
    os.kill(pid, signal.SIGKILL)
    thread.join()
    answer = retried(iron, "/vms", body, key)
    assert answer.status == 201, answer.body
    made = answer.json["data"]
    for seen in answers:
        assert seen.status == 503 or seen.json["data"]["id"] == made["id"]
    assert retried(iron, "/vms", body, key).json["data"]["id"] == made["id"]
    alive = iron.api("GET", "/vms?limit=100").json["data"]
    assert [vm["name"] for vm in alive].count(body["name"]) == 1
    iron.call("DELETE", f"/vms/{made['id']}?force=true", status=204)


def test_kept_over_restarts(iron):
    key = fresh()
    body = {"host": "restart.example.com", "name": "restart"}
    first = post(iron, "/egress/rules", body, key)
    for role in ["iron-control", "iron-api"]:
        kill(iron, role)
        again = post(iron, "/egress/rules", body, key)
        assert (again.status, json.loads(again.body)) == (201, json.loads(first.body))


def test_detached_and_files(iron, vm):
    """What only the VM's stream answers: a command that runs on, a directory, a signal without a body."""
    key = fresh()
    body = {"command": "sleep 600", "user": "root", "detach": True}
    first, second = [post(iron, f"/vms/{vm['id']}/exec", body, key) for _ in range(2)]
    assert first.status == 200 and first.body == second.body
    exec_id = first.json["data"]["exec_id"]
    assert len([e for e in iron.api("GET", f"/vms/{vm['id']}/execs").json["data"] if e["command"] == "sleep 600"]) == 1
    key = fresh()
    for _ in range(2):
        answer = post(iron, f"/vms/{vm['id']}/execs/{exec_id}/signal", {"signal": "KILL"}, key)
        assert answer.status == 204 and not answer.body
    key = fresh()
    made = [post(iron, f"/vms/{vm['id']}/files/mkdir", {"path": "/tmp/once", "user": "root", "parents": False}, key) for _ in range(2)]
    assert made[0].status == made[1].status == 201 and made[0].body == made[1].body
    # without the key it is there already
    assert iron.api("POST", f"/vms/{vm['id']}/files/mkdir", {"path": "/tmp/once", "user": "root", "parents": False}).status == 422


def test_events_are_not_kept_and_the_command_not_run_again(iron, vm):
    key = fresh()
    body = {"command": "echo ran >> /tmp/events", "user": "root"}
    answers = [iron.api("POST", f"/vms/{vm['id']}/exec", body, headers={"Idempotency-Key": key, "Accept": "text/event-stream"})
               for _ in range(2)]
    assert answers[0].status == 200 and b"event: exit" in answers[0].body
    assert answers[1].status == 409 and answers[1].json["error"]["code"] == "idempotency_mismatch"
    assert iron.sh(vm, "wc -l < /tmp/events")["stdout"].strip() == "1"
