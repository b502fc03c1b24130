"""The API's conventions, operation by operation, against iron-api with iron-control played by the test"""

import datetime
import hashlib
import json
import re

import pytest

import wire
from api_lab import KEY, OPS, Api, Control, answer_vm, vm_row
from harness import wait_for

VM, RULE, KEY_ID, IMAGE, EXEC = (x + "00000000000h1" for x in ("vm_", "egr_", "key_", "img_", "exec_"))
UNIVERSE = re.findall(r'O\((\w+), "(\w+)", "([^"]+)"', (wire.CODEC.parent / "model/op.h").read_text())


def fill(path):
    return path.replace(":id", VM).replace(":rule", RULE).replace(":key", KEY_ID).replace(":image", IMAGE).replace(":exec", EXEC).replace(":name", "npm")


@pytest.fixture(scope="module")
def api():
    with Api() as a:
        yield a


@pytest.fixture(autouse=True)
def fresh(api):
    api.control.on.clear()
    api.control.seen.clear()
    api.control.records.clear()


def error(answer, status, code):
    assert answer.status == status, answer.body
    assert set(answer.json) == {"error"} and set(answer.json["error"]) == {"code", "message"}
    assert answer.json["error"]["code"] == code
    assert answer.json["error"]["message"]
    return answer.json["error"]["message"]


# --- routing ---

@pytest.mark.parametrize("name,method,path", [x for x in UNIVERSE if x[0] not in ("HEALTHZ", "OPENAPI", "VM_EXEC_WS")])
def test_every_operation_reaches_control_under_its_own_number(api, name, method, path):
    body = {"VM_CREATE": {"name": "demo"}, "VM_EXEC": {"argv": ["x"]}, "RULE_CREATE": {"host": "x.example"},
            "VM_EXEC_SIGNAL": {"signal": 15}, "VM_FILE_MKDIR": {"path": "x"}, "VM_FILE_MOVE": {"from": "x", "to": "y"},
            "EGRESS_EXPLAIN": {"vm_id": VM, "host": "x.example"}, "VM_RULE_CREATE": {"host": "x.example"},
            "KEY_CREATE": {"name": "ci", "scopes": ["vm:read"]}}.get(name)
    if name == "ME":
        api.control.on["ME"] = Control.refuse
    query = "" if "/files" not in path or name in ("VM_FILE_MKDIR", "VM_FILE_MOVE") else "?path=/tmp/x"
    answer = api.call(method, fill(path) + query, body)
    error(answer, 404, "vm_not_found")  # what the stand-in says to all
    request = api.control.seen[-1]
    assert OPS[request.op] == name
    if name != "READYZ":
        assert request.key_hash == hashlib.sha256(KEY.encode()).digest()
    assert request.address == b"127.0.0.1"
    for member, text in (("vm", ":id"), ("id", ":")):
        if member in request.record and text in path:
            value = request.record[member]
            assert value == (0x221 if (member == "vm" or path.count(":") > (":id" in path)) else 0)


@pytest.mark.parametrize("path", ["", "/", "/nothing", "/vms/", "//vms", "/vms//exec", f"/vms/{VM}/", f"/vms/{VM}/nothing",
                                  f"/vms/{VM}/exec/", "/VMS", "/vms%2f", "/secrets", "/secrets/x", "/snapshots", "/env", f"/vms/{VM}/snapshots",
                                  f"/vms/{VM}/fork", f"/vms/{VM}/restore", f"/vms/{VM}/secrets", f"/vms/{VM}/ssh",
                                  f"/vms/{VM}/files/", f"/vms/{VM}/execs/", "/egress/presets/npm/x", "/vms;x"])
def test_unknown_paths_are_404(api, path):
    error(api.call("GET", path), 404, "not_found")
    assert not api.control.seen


def test_outside_of_v1(api):
    answer = api.raw(b"GET /vms HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("method,path,allow", [
    ("PATCH", "/vms", "POST, GET, HEAD"), ("PUT", f"/vms/{VM}", "GET, HEAD, DELETE, PATCH"), ("GET", f"/vms/{VM}/start", "POST"),
    ("HEAD", f"/vms/{VM}/stop", "POST"), ("OPTIONS", "/egress/policy", "GET, HEAD, PUT"), ("DELETE", "/healthz", "GET, HEAD")])
def test_other_methods_are_405_with_allow(api, method, path, allow):
    answer = api.call(method, path)
    assert answer.status == 405 and answer.headers["Allow"] == allow
    if method != "HEAD":
        error(answer, 405, "method_not_allowed")


@pytest.mark.parametrize("method,path,code", [
    ("GET", "/vms/demo", "vm_not_found"), ("GET", "/vms/vm_", "vm_not_found"), ("GET", "/vms/vm_0000000000000", "vm_not_found"),
    ("GET", "/vms/vm_00000000000H1", "vm_not_found"), ("GET", f"/vms/{RULE}", "vm_not_found"),
    ("DELETE", f"/egress/rules/{VM}", "rule_not_found"), ("DELETE", f"/vms/{VM}/egress/rules/x", "rule_not_found"),
    ("DELETE", "/keys/x", "key_not_found"), ("GET", "/images/base", "image_not_found")])
def test_what_is_no_id_is_404_of_its_kind(api, method, path, code):
    error(api.call(method, path), 404, code)
    assert not api.control.seen


# --- who asks ---

@pytest.mark.parametrize("headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
                                     {"Authorization": "Basic eDp5"}, {"Authorization": KEY}, {"Authorization": "Bearer " + "k" * 300}])
def test_without_a_key_401(api, headers):
    answer = api.call("GET", "/vms", key=None, headers=headers)
    error(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert not api.control.seen


def test_two_keys_are_none(api):
    answer = api.raw(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a\r\nAuthorization: Bearer b\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_no_key_is_401_before_the_body_is_looked_at(api):
    error(api.call("POST", "/vms", b"{nonsense", key=None), 401, "unauthorized")


def test_health_needs_no_key(api):
    assert api.call("GET", "/healthz", key=None).json["data"]["status"] == "ok"
    api.control.on["READYZ"] = lambda c, r: (c.row(r, "row_role", role=wire.encode("msg_role_row", name="iron-audit", state="ok")), c.done(r))
    assert api.call("GET", "/readyz", key=None).json["data"]["roles"][0]["name"] == "iron-audit"
    assert api.control.seen[-1].key_hash == b""


# --- answers ---

def test_an_object_has_every_field(api):
    api.control.on["VM_GET"] = answer_vm(labels=["a=b", "x=y=z"], started_at=1700000001234)
    vm = api.call("GET", f"/vms/{VM}").json
    assert list(vm) == ["data"]
    assert list(vm["data"]) == ["id", "name", "status", "status_detail", "status_reason", "image", "snapshot_id", "parent_id", "generation",
                                "vcpus", "memory_mib", "disk_gib", "labels", "created_at", "updated_at", "started_at", "stopped_at", "restart"]
    assert vm["data"]["labels"] == {"a": "b", "x": "y=z"}
    assert (vm["data"]["started_at"], vm["data"]["stopped_at"], vm["data"]["snapshot_id"]) == ("2023-11-14T22:13:21.234Z", None, "")


def test_a_list_has_its_frame(api):
    def two(control, request):
        control.row(request, "row_vm", **vm_row(name="a"))
        control.row(request, "row_vm", **vm_row(name="b"))
        control.done(request, has_more=True, cursor="c/1+=")
    api.control.on["VM_LIST"] = two
    page = api.call("GET", "/vms").json
    assert set(page) == {"data", "has_more", "cursor"} and [x["name"] for x in page["data"]] == ["a", "b"]
    assert (page["has_more"], page["cursor"]) == (True, "c/1+=")
    api.control.on["VM_LIST"] = lambda c, r: c.done(r)
    assert api.call("GET", "/vms").json == {"data": [], "has_more": False, "cursor": None}


@pytest.mark.parametrize("cursor", ["c/1+=", "c%2F1%2B%3D"])
def test_a_cursor_comes_back_as_it_was_given(api, cursor):
    api.call("GET", "/vms?cursor=" + cursor)
    assert api.control.seen[-1].cursor == b"c/1+="


def test_a_rule_as_it_is_shown(api):
    rule = wire.encode("rec_rule", id=5, name="n", host="x.example", ports=[443, 80], methods=["GET"], paths=["/a/*"], tls=1, action=1,
                       addresses=["10.0.0.0/8"], preset="p", comment="c", created_at=1700000000000)
    api.control.on["RULE_CREATE"] = lambda c, r: (c.row(r, "row_rule", rule=rule), c.done(r, 201))
    answer = api.call("POST", "/egress/rules", {"host": "x.example"})
    assert answer.status == 201
    assert answer.json["data"] == {
        "id": "egr_0000000000005", "name": "n", "host": "x.example", "cidr": "", "ports": [443, 80], "methods": ["GET"], "paths": ["/a/*"],
        "tls": "passthrough", "action": "deny", "addresses": ["10.0.0.0/8"], "preset": "p", "comment": "c",
        "created_at": "2023-11-14T22:13:20.000Z"}


def test_an_event_before_and_after_it_closed(api):
    base = dict(seq=9, timestamp=1700000000000, vm=7, host="x.example", port=443, protocol=2, verdict=3, mode=1, rule=5, reason="r")
    def events(control, request):
        control.row(request, "row_event", **base)
        control.row(request, "row_event", **base, closed=True, status=0, bytes_sent=1, bytes_received=2, duration_ms=3)
        control.row(request, "row_event", **{**base, "verdict": 2, "protocol": 1}, closed=True, status=403)
        control.done(request, cursor="9")
    api.control.on["AUDIT_EGRESS"] = events
    open_, closed, denied = api.call("GET", "/audit/egress").json["data"]
    assert set(open_) == {"id", "timestamp", "vm_id", "host", "cidr", "address", "port", "protocol", "method", "path", "status_code", "bytes_sent",
                          "bytes_received", "duration_ms", "verdict", "allowed", "mode", "rule_id", "secrets", "reason"}
    assert [open_[k] for k in ("status_code", "bytes_sent", "bytes_received", "duration_ms")] == [None] * 4
    assert [closed[k] for k in ("status_code", "bytes_sent", "bytes_received", "duration_ms")] == [None, 1, 2, 3]
    assert (open_["verdict"], open_["allowed"], open_["mode"], open_["protocol"]) == ("warn", True, "warn", "tls")
    assert (denied["verdict"], denied["allowed"], denied["status_code"], denied["rule_id"]) == ("denied", False, 403, "egr_0000000000005")
    assert open_["id"].startswith("ee_")


def test_keys_images_me_and_host(api):
    c = api.control
    c.on["KEY_CREATE"] = lambda c, r: (c.row(r, "row_key", id=3, name="ci", key="iron_live_x", hint="x…", scopes=r.scopes, created_at=1), c.done(r, 201))
    key = api.call("POST", "/keys", {"name": "ci", "scopes": ["vm:run", "vm:read"]}).json["data"]
    assert (key["key"], key["scopes"], key["expires_at"]) == ("iron_live_x", ["vm:read", "vm:run"], None)
    c.on["IMAGE_GET"] = lambda c, r: (c.row(r, "row_image", id=2, name="base", hash="ab", size_bytes=5, created_at=1), c.done(r))
    assert api.call("GET", f"/images/{IMAGE}").json["data"]["size_bytes"] == 5
    c.on["ME"] = lambda c, r: (c.row(r, "row_me", workspace=1, workspace_name="default", key=3, key_name="ci", scopes=512), c.done(r))
    me = api.call("GET", "/me").json["data"]
    assert me["workspace"] == "default" and me["scopes"] == ["admin"] and me["key_id"].startswith("key_")

    def host(c, r):
        c.row(r, "row_host", host=wire.encode("msg_host", version="1", accelerator="tcg", isolation="process", cpus=2, load_1m_percent=150), vms_running=1, vms_total=2)
        for name, id in (("iron-audit", 0), ("iron-vm", 5)):
            c.row(r, "row_role", role=wire.encode("msg_role_row", name=name, id=id, state="ok", pid=9))
        c.done(r)
    c.on["HOST"] = host
    shown = api.call("GET", "/host").json["data"]
    assert (shown["isolation"], shown["vms_running"], shown["cpus"], shown["load_1m_percent"]) == ("process", 1, 2, 150)
    assert [(x["name"], x["id"]) for x in shown["roles"]] == [("iron-audit", ""), ("iron-vm", "vm_0000000000005")]


def test_hostile_strings_are_valid_json(api):
    nasty = b'"\\\x00\x1f\x7f\n\xff\xc3(\xed\xa0\x80\xf4\x90\x80\x80</script>\xe2\x80\xa8' + "é€😀".encode()
    api.control.on["VM_GET"] = answer_vm(status_reason=nasty)
    answer = api.call("GET", f"/vms/{VM}")
    text = answer.body.decode("utf-8", "strict")
    reason = json.loads(text)["data"]["status_reason"]
    assert reason.startswith('"\\\x00\x1f\x7f\n\ufffd\ufffd(') and reason.endswith("é€😀")
    assert nasty.decode("utf-8", "replace").replace("\ufffd", "") == reason.replace("\ufffd", "")


def test_204_has_no_body(api):
    api.control.on["VM_DELETE"] = lambda c, r: c.done(r, 204)
    answer = api.call("DELETE", f"/vms/{VM}?force=true")
    assert (answer.status, answer.body, answer.headers["Content-Length"], answer.headers["Content-Type"]) == (204, b"", None, None)
    assert api.control.seen[-1].force is True


def test_errors_of_control_pass_with_retry_after(api):
    api.control.on["VM_CREATE"] = lambda c, r: c.done(r, 429, code="quota_exceeded", message="destroy one first", retry_after_s=30)
    answer = api.call("POST", "/vms", {"name": "x"})
    assert error(answer, 429, "quota_exceeded") == "destroy one first"
    assert answer.headers["Retry-After"] == "30"


def test_a_missing_or_second_row_is_an_internal_error(api):
    api.control.on["VM_GET"] = lambda c, r: c.done(r)
    error(api.call("GET", f"/vms/{VM}"), 500, "internal")
    api.control.on["VM_GET"] = lambda c, r: (c.row(r, "row_vm", **vm_row()), c.row(r, "row_vm", **vm_row()), c.done(r))
    error(api.call("GET", f"/vms/{VM}"), 500, "internal")
    api.control.on["RULE_LIST"] = lambda c, r: (c.row(r, "row_rule", rule=b"\x01\x02"), c.done(r))
    error(api.call("GET", "/egress/rules"), 500, "internal")


def test_headers_of_every_answer(api):
    for answer in (api.call("GET", "/healthz"), api.call("GET", "/nothing"), api.call("GET", "/vms", key=None)):
        h = answer.headers
        assert h["Content-Type"] == "application/json" and h["Cache-Control"] == "no-store" and h["X-Content-Type-Options"] == "nosniff"
        assert "frame-ancestors 'none'" in h["Content-Security-Policy"]
        assert abs(datetime.datetime.strptime(h["Date"], "%a, %d %b %Y %H:%M:%S GMT") - datetime.datetime.utcnow()) < datetime.timedelta(seconds=5)
        assert h["Server"] is None


def test_head_is_get_without_the_body(api):
    api.control.on["VM_GET"] = answer_vm()
    full, head = api.call("GET", f"/vms/{VM}"), api.call("HEAD", f"/vms/{VM}")
    assert head.body == b"" and head.headers["Content-Length"] == str(len(full.body))


# --- bodies ---

BAD_BODIES = [
    ("/vms", {}, "name"), ("/vms", {"name": ""}, "name"), ("/vms", {"name": "A"}, "name"), ("/vms", {"name": "vm_x"}, "name"),
    ("/vms", {"name": "a" * 64}, "name"), ("/vms", {"name": 5}, "name"), ("/vms", {"name": "a\u0000b"}, "name"),
    ("/vms", {"name": "a", "vcpus": 0}, "vcpus"), ("/vms", {"name": "a", "vcpus": 33}, "vcpus"), ("/vms", {"name": "a", "vcpus": "2"}, "vcpus"),
    ("/vms", {"name": "a", "vcpus": ""}, "vcpus"), ("/vms", {"name": "a", "vcpus": 1.5}, "vcpus"), ("/vms", {"name": "a", "vcpus": -1}, "vcpus"),
    ("/vms", {"name": "a", "memory_mib": 255}, "memory_mib"), ("/vms", {"name": "a", "disk_gib": 2049}, "disk_gib"),
    ("/vms", {"name": "a", "labels": []}, "labels"), ("/vms", {"name": "a", "labels": {"": "x"}}, "labels"),
    ("/vms", {"name": "a", "labels": {"a=b": "x"}}, "labels"), ("/vms", {"name": "a", "labels": {"a": 1}}, "labels"),
    ("/vms", {"name": "a", "labels": {"a": "x\u001b[31m"}}, "labels"), ("/vms", {"name": "a", "labels": {f"k{i}": "v" for i in range(65)}}, "labels"),
    ("/vms", {"name": "a", "public_key": "no"}, "public_key"), ("/vms", {"name": "a", "image": "x\u0007"}, "image"),
    ("/vms", {"name": "a", "egress": []}, "egress"), ("/vms", {"name": "a", "egress": {"mode": "off"}}, "egress.mode"),
    ("/vms", {"name": "a", "egress": {"inherit": "no"}}, "egress.inherit"), ("/vms", {"name": "a", "egress": {"presets": "x"}}, "egress.presets"),
    ("/vms", {"name": "a", "egress": {"presets": [""]}}, "egress.presets[0]"), ("/vms", {"name": "a", "egress": {"presets": ["x"] * 17}}, "egress.presets"),
    ("/egress/presets/npm", {"x": 1}, "x"),
    ("/vms", {"name": "a", "egress": {"rules": [{"host": "a", "cidr": "10.0.0.0/8"}]}}, "egress.rules[0]"),
    ("/vms", {"name": "a", "egress": {"rules": [{"host": "a"}, {"host": "b", "port": 1}]}}, "egress.rules[1].port"),
    ("/vms", {"name": "a", "egress": {"rules": [{"host": "a", "ports": [0]}]}}, "egress.rules[0].ports[0]"),
    ("/vms", {"name": "a", "egress": {"rules": [{"host": "a"}] * 65}}, "egress.rules"),
    ("/vms", {"name": "a", "ttl_s": 5}, "ttl_s"), ("/vms", {"name": "a", "secrets": []}, "secrets"), ("/vms", {"name": "a", "env": {}}, "env"),
    ("/vms", {"name": "a", "snapshot_id": "snap_x"}, "snapshot_id"),
    (f"/vms/{VM}/start", {"x": 1}, "x"), (f"/vms/{VM}/stop", {"suspend": True}, "suspend"),
    ("/egress/rules", {}, "host"), ("/egress/rules", {"host": "a", "cidr": "b"}, "host"), ("/egress/rules", {"host": "a", "ports": ["80"]}, "ports[0]"),
    ("/egress/rules", {"host": "a", "ports": list(range(1, 130))}, "ports"), ("/egress/rules", {"host": "a", "tls": "off"}, "tls"),
    ("/egress/rules", {"host": "a", "action": "drop"}, "action"), ("/egress/rules", {"host": "a", "methods": [""]}, "methods[0]"),
    ("/egress/rules", {"host": "a", "methods": "GET"}, "methods"), ("/egress/rules", {"host": "a", "paths": [1]}, "paths[0]"),
    ("/egress/rules", {"host": "a", "comment": "x\n"}, "comment"), ("/egress/rules", {"host": "a", "name": "egr_x"}, "name"),
    ("/egress/rules", {"host": "a", "id": "egr_x"}, "id"), ("/egress/rules", {"host": "a\u0000"}, "host"),
    ("/keys", {"name": "a"}, "scopes"), ("/keys", {"name": "a", "scopes": []}, "scopes"), ("/keys", {"name": "a", "scopes": ["root"]}, "scopes[0]"),
    ("/keys", {"name": "a", "scopes": ["vm:read"], "expires_at": "tomorrow"}, "expires_at"),
    ("/keys", {"name": "a", "scopes": ["vm:read"], "expires_at": "2001-01-01T00:00:00Z"}, "expires_at"),
    (f"/vms/{VM}/exec", {}, "argv"), (f"/vms/{VM}/exec", {"argv": []}, "argv"), (f"/vms/{VM}/exec", {"argv": [""]}, "argv[0]"),
    (f"/vms/{VM}/exec", {"argv": ["a"], "command": "b"}, "argv"), (f"/vms/{VM}/exec", {"argv": ["a", 1]}, "argv[1]"),
    (f"/vms/{VM}/exec", {"argv": ["a\u0000b"]}, "argv[0]"), (f"/vms/{VM}/exec", {"argv": ["a"], "env": {"A=": "b"}}, "env"),
    (f"/vms/{VM}/exec", {"argv": ["a"], "env": {"A": "b\u0000"}}, "env"), (f"/vms/{VM}/exec", {"argv": ["a"], "stdin": "?"}, "stdin"),
    (f"/vms/{VM}/exec", {"argv": ["a"], "rows": 10}, "rows"), (f"/vms/{VM}/exec", {"argv": ["a"], "timeout_s": 0}, "timeout_s"),
    (f"/vms/{VM}/exec", {"argv": ["a"], "detach": True, "stdin": "aGk="}, "stdin"), (f"/vms/{VM}/exec", {"argv": ["a"], "user": "x\n"}, "user"),
    (f"/vms/{VM}/exec", {"argv": ["x" * 60000], "env": {"A": "y" * 60000}}, "argv"),
]


@pytest.mark.parametrize("path,body,field", BAD_BODIES, ids=lambda v: json.dumps(v)[:60] if isinstance(v, dict) else None)
def test_bad_bodies_name_the_field(api, path, body, field):
    message = error(api.call("POST", path, body), 422, "validation_error")
    assert re.match(re.escape(field) + r"\b|" + re.escape(field) + "[: ]", message), message
    assert not api.control.seen


@pytest.mark.parametrize("body", [b"{", b"[]", b"null", b"5", b'"x"', b"{}x", b'{"name":"a","name":"b"}', b'{"name":"\xff"}', b"{'name':'a'}",
                                  b'{"name":"a",}', b'{"name":"a"}{}', b"\xef\xbb\xbf{}", b'{"name": nan}', b'{"vcpus":1e400}', b"[" * 4000,
                                  b'{"a":' * 2000 + b"1" + b"}" * 2000, b'{"vcpus":99999999999999999999999}'])
def test_what_is_no_json_object_is_400(api, body):
    error(api.call("POST", "/vms", body), 400, "bad_request")
    assert not api.control.seen


def test_absent_and_empty(api):
    for body in (None, b"", b"  \r\n", {}):
        api.call("POST", f"/vms/{VM}/start", body)
        assert api.control.seen[-1].op_name == "VM_START"
    api.call("POST", "/vms", {"name": "a", "image": "", "public_key": "", "vcpus": None, "labels": None})
    request = api.control.seen[-1]
    assert (request.op_name, request.image, request.vcpus, request.egress_mode, request.egress_inherit) == ("VM_CREATE", b"", 0, 2, True)
    api.call("PUT", "/egress/policy", {})
    assert api.control.seen[-1].mode == 255
    api.call("PUT", "/egress/policy", {"mode": "warn"})
    assert api.control.seen[-1].mode == 1


def test_content_types(api):
    for given in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx", "text/json"):
        error(api.call("POST", "/vms", {"name": "a"}, headers={"Content-Type": given}), 415, "unsupported_media_type")
    for given in ("application/json", "Application/JSON; charset=utf-8"):
        error(api.call("POST", "/vms", {"name": "a"}, headers={"Content-Type": given}), 404, "vm_not_found")
    error(api.call("DELETE", f"/vms/{VM}", b"{}", headers={"Content-Type": "text/plain"}), 404, "vm_not_found")
    error(api.call("GET", "/vms", headers={"Content-Type": "nonsense"}), 404, "vm_not_found")
    error(api.call("POST", "/vms", b"\x1f\x8b", headers={"Content-Encoding": "gzip"}), 415, "unsupported_media_type")


def test_the_whole_of_a_create(api):
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2VBbRQw6dQ0gqZ1a0dP1uJ3jJ1q0Q0X5JZ9xq1c8Yy me"
    api.call("POST", "/vms", {"name": "a", "public_key": f"  {key}\n", "image": "mini", "vcpus": 3, "memory_mib": 512, "disk_gib": 8,
                              "labels": {"team": "x y", "k": ""},
                              "egress": {"mode": "warn", "inherit": False,
                                         "rules": [{"host": "a.example", "tls": "intercept"}, {"cidr": "192.0.2.0/24", "action": "deny"}]}})
    r = api.control.seen[-1]
    assert (r.public_key.decode(), r.image, r.vcpus, r.memory_mib, r.disk_gib) == (key, b"mini", 3, 512, 8)
    assert sorted(r.labels) == [b"k=", b"team=x y"]
    assert (r.egress_mode, r.egress_inherit, r.rules_tls_given) == (1, False, 1)
    rules = [wire.decode("rec_rule", x) for x in r.rules]
    assert [(x["host"], x["cidr"], x["action"]) for x in rules] == [(b"a.example", b"", 0), (b"", b"192.0.2.0/24", 1)]


# --- queries ---

@pytest.mark.parametrize("path,field", [
    ("/vms?name=", "name"), ("/vms?name", "name"), ("/vms?x=1", "x"), ("/vms?limit=0", "limit"), ("/vms?limit=101", "limit"), ("/vms?limit=1x", "limit"),
    ("/vms?limit=+1", "limit"), ("/vms?limit=01", "limit"), ("/vms?limit=99999999999999999999", "limit"), ("/vms?status=nope", "status"),
    ("/vms?status_detail=run", "status_detail"), ("/vms?label=x", "labels"), ("/vms?sort=size", "sort"), ("/vms?order=up", "order"),
    ("/vms?name=a&name=b", "name"), ("/vms?name=%1b", "name"), ("/vms?na%6de=", "name"), (f"/vms/{VM}?wait=gone", "wait"),
    (f"/vms/{VM}?timeout_s=5", "timeout_s"), (f"/vms/{VM}?wait=ready&timeout_s=26", "timeout_s"), (f"/vms/{VM}?force=true", "force"),
    ("/egress/rules?limit=201", "limit"), ("/egress/rules?sort=updated_at", "sort"), (f"/vms/{VM}/egress/rules?sort=updated_at", "sort"), ("/audit/egress?limit=501", "limit"), ("/audit/egress?verdict=x", "verdict"),
    ("/audit/egress?allowed=1", "allowed"), ("/audit/egress?vm_id=demo", "vm_id"), ("/audit/egress?since=yesterday", "since"),
    ("/audit/egress?protocol=icmpv6", "protocol"), ("/audit/events?kind=log", "kind"), ("/keys?x=1", "x"), ("/me?x=1", "x"), ("/host?verbose=true", "verbose")])
def test_bad_queries_name_the_parameter(api, path, field):
    message = error(api.call("GET", path), 422, "validation_error")
    assert message.startswith(field), message
    assert not api.control.seen


@pytest.mark.parametrize("path", ["/vms?name=%zz", "/vms?name=%", "/vms?name=%0", "/vms?%=x", "/vms?name=a%00b"])
def test_malformed_escapes_are_400(api, path):
    error(api.call("GET", path), 400, "bad_request")


def test_force_takes_true_or_false_only(api):
    for value in ("", "1", "yes", "True"):
        error(api.call("DELETE", f"/vms/{VM}?force={value}"), 422, "validation_error")
    assert not api.control.seen


def test_queries_arrive(api):
    api.call("GET", "/vms?status=running&label=a+b%3D=c%26d&limit=7&sort=name&order=desc&name=x")
    r = api.control.seen[-1]
    assert (r.status, r.label_key, r.label_value, r.limit, r.sort, r.order, r.record["name"]) == (b"running", b"a b", b"=c&d", 7, 3, 2, b"x")
    api.call("GET", "/vms")
    assert (api.control.seen[-1].limit, api.control.seen[-1].sort) == (20, 0)
    api.call("GET", f"/audit/egress?vm_id={VM}&verdict=blocked&allowed=false&mode=enforce&protocol=dns&since=2026-01-31T12:00:00+02:00"
                    "&until=2026-01-31t12:00:00.5z&order=asc&host=x.example&cidr=10.0.0.0/8")
    r = api.control.seen[-1]
    assert (r.vm, r.verdict, r.allowed, r.mode, r.protocol, r.order, r.limit) == (0x221, 4, 1, 1, 5, 1, 50)
    assert r.since == int(datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.timezone.utc).timestamp() * 1000)
    assert r.until % 1000 == 500 and r.cidr == b"10.0.0.0/8"
    api.call("GET", f"/vms/{VM}?wait=ready&timeout_s=3")
    assert api.control.seen[-1].wait_ms == 3000
    api.call("GET", f"/vms/{VM}?wait=ready")
    assert api.control.seen[-1].wait_ms == 25000


def test_each_kind_of_event_can_be_asked_for(api):
    """What is written is what the question takes, the description lists and the refusal names: codec/record.h's one table."""
    kinds = ["api", "exec", "files", "vm", "key", "rule", "policy", "image", "audit", "daemon"]
    for kind in kinds:
        api.call("GET", f"/audit/events?kind={kind}")
        assert api.control.seen[-1].kind == kind.encode()
    message = error(api.call("GET", "/audit/events?kind=login"), 422, "validation_error")
    assert message == "kind must be " + ", ".join(kinds[:-1]) + " or daemon"
    parameters = api.call("GET", "/openapi.json").json["paths"]["/audit/events"]["get"]["parameters"]
    assert next(p for p in parameters if p["name"] == "kind")["schema"]["enum"] == kinds


# --- the record ---

def test_every_call_is_on_record_but_good_probes(api):
    api.control.on["VM_GET"] = answer_vm()
    api.call("GET", f"/vms/{VM}?wait=ready", headers={"User-Agent": "curl/8 (x)"})
    api.call("GET", "/nothing", key=None, headers={"User-Agent": "\xe9"})
    api.call("GET", "/healthz")
    api.call("POST", "/vms", {"x": 1})
    # the one of the test before may come late
    records = wait_for("three records", lambda: [r["status"] for r in api.control.records[-3:]] == [200, 404, 422] and api.control.records[-3:])
    assert [(r["status"], r["method"], r["path"]) for r in records] == [
        (200, b"GET", f"/v1/vms/{VM}".encode()), (404, b"GET", b"/v1/nothing"), (422, b"POST", b"/v1/vms")]
    assert records[0]["client"] == b"curl/8 (x)" and records[1]["client"] == b"" and records[0]["key_hash"] == hashlib.sha256(KEY.encode()).digest()
    assert all(r["address"] == b"127.0.0.1" for r in records)


# --- iron-control comes and goes ---

def test_without_control_503_and_back():
    with Api(control=False) as api:
        answer = api.call("GET", "/vms")
        error(answer, 503, "unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        assert api.call("GET", "/healthz").status == 200
        api.connect_control()
        assert api.call("GET", "/vms").status == 404
        hung = []
        api.control.on["VM_LIST"] = lambda c, r: hung.append(r)
        with api.connect() as s:
            s.sendall(b"GET /v1/vms HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\n\r\n")
            wait_for("the request", lambda: hung)
            api.control.close()
            assert api.read_answer(s).status == 503
        api.connect_control()
        assert api.call("GET", "/vms").status == 404
