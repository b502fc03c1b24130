"""What a person and a script see: tables that fit the window, colours on a terminal only, one JSON document, quiet, progress, exit codes, helpful errors"""

import json
import re
import unicodedata

import pytest

from cli_lab import Fake, KEY, VM, VM_ID, error, page, server  # noqa: F401 (server: a fixture)

NOW = "2026-01-31T12:00:00Z"
RULE = {"id": "egr_00000000j6hb7", "name": "npm", "host": "registry.npmjs.example", "cidr": "", "ports": [80, 443], "methods": [], "paths": [],
        "tls": "intercept", "action": "allow", "addresses": [], "preset": "", "comment": "a comment of some length", "created_at": NOW}
EVENT = {"id": "ee_1", "timestamp": NOW, "vm_id": VM_ID, "host": "api.example.com", "cidr": "", "address": "10.0.0.1", "port": 443, "protocol": "http",
         "method": "GET", "path": "/a/rather/long/path/that/goes/on", "status_code": 200, "bytes_sent": 10, "bytes_received": 2048, "duration_ms": 3,
         "verdict": "allowed", "allowed": True, "mode": "enforce", "rule_id": "", "secrets": [], "reason": ""}
GENERAL = {"id": "op_1", "timestamp": NOW, "kind": "exec", "action": "start", "vm_id": VM_ID, "key_id": "key_1", "key_name": "test",
           "address": "127.0.0.1", "client": "iron", "outcome": "ok", "detail": {"argv": ["a", "b"]}}
EXEC = {"id": "exec_00000000j6hb7", "vm_id": VM_ID, "argv": ["/usr/bin/make", "-j4", "world"], "command": "", "user": "agent", "tty": False,
        "detached": True, "status": "running", "exit_code": None, "timed_out": False, "started_at": NOW, "ended_at": None, "output_bytes": 3,
        "kept_from": 0}
SESSION = {"id": "ses_1", "vm_id": VM_ID, "generation": 1, "started_at": NOW, "ended_at": NOW, "duration_ms": 3723000, "end_reason": "stopped",
           "cpu_time_ms": 1500, "memory_peak_bytes": 1 << 28, "disk_bytes": 1 << 20, "disk_read_bytes": 1, "disk_written_bytes": 2,
           "network_sent_bytes": 3, "network_received_bytes": 4}
STATS = {"vm_id": VM_ID, "generation": 1, "running": True, "cpu_time_ms": 1, "memory_bytes": 1, "memory_peak_bytes": 1, "memory_limit_bytes": 1,
         "disk_bytes": 1, "disk_limit_bytes": 1, "disk_read_bytes": 1, "disk_written_bytes": 1, "network_sent_bytes": 1, "network_received_bytes": 1,
         "uptime_ms": 1}
IMAGE = {"id": "img_1", "name": "base", "hash": "ab", "kernel": "6.1", "made_from": "debian bookworm", "size_bytes": 1 << 30, "created_at": NOW}
APIKEY = {"id": "key_1", "name": "ci", "key": "", "hint": "iron_live_x", "scopes": ["vm:read", "vm:run"], "created_at": NOW, "expires_at": None,
          "last_used_at": NOW}
SUMMARY = {"host": "api.example.com", "total": 5, "allowed": 3, "warned": 1, "denied": 1, "bytes_sent": 1 << 20, "bytes_received": 5}
HOST = {"version": "1", "accelerator": "tcg", "accelerator_reason": "no KVM", "isolation": "process", "memory_total_mib": 100, "roles": [
    {"name": "iron-audit", "id": "", "state": "ok", "pid": 7, "restarts": 0, "started_at": NOW}]}
PRESET = {"name": "npm", "description": "npm's packages", "added": True, "rules": [
    {"host": "registry.npm.example", "ports": [443], "methods": ["GET"], "paths": ["/-/npm/v1/security/*"], "tls": "intercept", "action": "allow"},
    {"host": "registry.yarn.example", "ports": [443], "methods": [], "paths": [], "tls": "intercept", "action": "allow"}]}
EXPLAIN = {"verdict": "denied", "allowed": False, "mode": "enforce", "protocol": "http", "reason": "no rule allows it", "rule": None, "matched": [RULE]}


def fill(fake):
    vm = rf"/vms/{VM_ID}"
    fake.on("GET", r"/vms\?limit=100.*", page([VM, VM | {"name": "a-name-that-is-much-longer-than-the-other", "labels": {"team": "infra"}}]))
    for path, item in (("/egress/rules.*", RULE), ("/audit/egress.*", EVENT), ("/audit/events.*", GENERAL), (f"{vm}/execs", EXEC),
                       (f"{vm}/sessions.*", SESSION), (r"/images\?.*", IMAGE), (r"/keys.*", APIKEY), ("/egress/presets", PRESET), (r"/audit/egress/summary.*", SUMMARY)):
        fake.on("GET", path, page([item]))
    for path, item in ((f"{vm}/stats", STATS), ("/images/img_1", IMAGE), ("/me", {"workspace": "default", "scopes": ["admin"]}), ("/host", HOST),
                       ("/egress/policy", {"mode": "enforce", "inherited": False}), (f"{vm}/execs/{EXEC['id']}.*", EXEC)):
        fake.on("GET", path, {"data": item})
    fake.on("POST", "/egress/explain", {"data": EXPLAIN})
    fake.on("POST", r"/(vms/[^/]*/)?egress/rules", (201, {"data": RULE}))
    fake.on("POST", "/egress/presets/.*", {"data": PRESET})
    fake.on("POST", "/keys", (201, {"data": APIKEY | {"key": "iron_live_new"}}))
    fake.on("POST", r"/vms", (201, {"data": VM}))
    fake.on("POST", rf"{vm}/(start|stop)", {"data": VM})
    fake.on("PATCH", vm, {"data": VM})
    fake.on("PUT", r".*/policy", {"data": {"mode": "warn", "inherited": False}})
    fake.on("DELETE", r".*", (204, None))
    fake.on("POST", r".*/signal", (204, None))
    fake.on("POST", rf"{vm}/exec", {"data": {"exec_id": EXEC["id"]}})
    fake.on("GET", rf"{vm}/console", (200, b"boot\r\nlogin: ", [("Content-Type", "text/plain")]))


# every command that prints, as it could be given
PRINTING = ["create x", "create x --async", "list", "show demo", "set demo --label a=b", "start demo", "wait demo", "destroy demo", "console demo", "stats demo",
            "sessions demo", "ps demo", "kill demo make", "egress add --host x", "egress remove egr_1", "egress list", "egress mode", "egress mode warn",
            "egress explain --vm demo https://x/y", "egress preset list", "egress preset show npm", "egress preset add npm", "egress preset remove npm",
            "audit egress", "audit events", "audit summary", "image list", "image show base", "keys list",
            "keys create ci --scope vm:read", "keys revoke ci", "host", "whoami", "exec -d demo -- make"]
TABLES = ["list", "sessions demo", "ps demo", "egress list", "audit egress", "audit events", "audit summary", "image list", "keys list", "host",
          "egress explain --vm demo https://x/y", "egress preset list", "egress preset show npm"]


@pytest.fixture
def fake(server):
    server.reset()
    fill(server)
    return server


@pytest.mark.parametrize("words", PRINTING)
def test_json_is_one_document_and_plain_output_is_plain(fake, words):
    before, dashes, after = words.partition(" --") if " -- " in words else (words, "", "")
    done = fake.iron(*before.split(), "--json", *(dashes + after).split())
    assert done.returncode == 0, done.stderr
    json.loads(done.stdout)
    assert done.stdout.count(b"\n") == 1
    done = fake.iron(*words.split())
    assert done.returncode == 0 and b"\x1b" not in done.stdout + done.stderr and done.stdout, done.stderr


def width(line):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 0 if unicodedata.combining(c) else 1 for c in line)


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*[mK]", "", text).replace("\r", "")


@pytest.mark.parametrize("columns", [24, 40, 80, 200])
@pytest.mark.parametrize("words", TABLES)
def test_what_goes_to_a_window_fits_it(fake, words, columns):
    t = fake.terminal(columns, *words.split())
    lines = plain(t.wait()).split("\n")
    assert t.code == 0
    assert max(width(line) for line in lines) <= columns, lines


def test_a_wide_window_and_wide_and_no_window_cut_nothing(fake):
    name = "a-name-that-is-much-longer-than-the-other"
    assert name in plain(fake.terminal(200, "list").wait())
    cut = plain(fake.terminal(60, "list").wait())
    assert name not in cut and "…" in cut
    assert name in plain(fake.terminal(60, "list", "--wide").wait())
    assert name in fake.ok("list") and "team=infra" in fake.ok("list")


def test_wide_characters_stay_in_their_columns(fake):
    fake.on("GET", r"/vms\?limit=100.*", page([VM | {"name": "名前は長い名前です" * 4, "image": "图"}, VM]))
    for columns in (40, 60, 100):
        lines = [line for line in plain(fake.terminal(columns, "list").wait()).split("\n") if line]
        assert all(width(line) <= columns for line in lines)
    lines = fake.ok("list").splitlines()
    at = [width(line[:re.search("STATUS|ready", line).start()]) for line in lines]
    assert len(set(at)) == 1, lines


def test_colours(fake):
    assert "\x1b[32m" in fake.terminal(100, "list").wait()
    assert "\x1b[32m" not in fake.terminal(100, "list", NO_COLOR="1").wait()
    assert "\x1b[3" not in fake.terminal(100, "list", TERM="dumb").wait()
    assert "\x1b[32m" in fake.terminal(100, "list", NO_COLOR="").wait()  # no-color.org: set and not empty


def test_quiet(fake):
    assert fake.ok("list", "-q").splitlines() == ["demo", "a-name-that-is-much-longer-than-the-other"]
    assert fake.ok("create", "x", "-q") == VM_ID + "\n"
    assert fake.ok("destroy", "demo", "-q") == ""
    assert fake.ok("egress", "list", "-q") == RULE["id"] + "\n"
    assert fake.ok("ps", "demo", "-q") == EXEC["id"] + "\n"
    assert fake.ok("keys", "create", "ci", "--scope", "admin", "-q") == "iron_live_new\n"


def slow_create(fake, seconds=1.6):
    import time
    begun = time.monotonic()

    def show(handler):
        ready = time.monotonic() - begun > seconds
        time.sleep(0.2)
        return {"data": VM | ({} if ready else {"status": "pending", "status_detail": "starting", "status_reason": "waiting \x1b[31mfor the guest"})}
    fake.on("GET", rf"/vms/{VM_ID}(\?.*)?", show)


def test_progress_where_it_goes_to_no_terminal_is_plain_lines(fake):
    slow_create(fake)
    done = fake.iron("create", "x")
    lines = done.stderr.decode().splitlines()
    assert done.returncode == 0 and lines == ["iron: creating: waiting \\x1b[31mfor the guest"]
    slow_create(fake)
    assert fake.iron("create", "x", "-q").stderr == b""


def test_progress_on_a_terminal_is_one_line_that_goes_away(fake):
    slow_create(fake)
    out = fake.terminal(80, "create", "x").wait()
    assert "creating" in out and "waiting" in out and out.rstrip("\n").split("\r")[-1].startswith("\x1b[Kdemo ready in ")
    assert "\x1b[31m" not in out


def test_what_is_quick_shows_no_progress(fake):
    assert fake.iron("create", "x").stderr == b""


# --- exit codes and errors ---

def test_exit_codes(fake):
    fake.on("GET", rf"/vms/{VM_ID}(\?.*)?", {"data": VM | {"status": "pending", "status_detail": "starting", "status_reason": "waiting"}})
    done = fake.iron("wait", "demo", "--timeout", "1")
    assert done.returncode == 124 and b"still starting after 1 s: waiting" in done.stderr
    fake.on("GET", rf"/vms/{VM_ID}(\?.*)?", {"data": VM | {"status": "stopped", "status_detail": "stopped"}})
    done = fake.iron("wait", "demo")
    assert done.returncode == 1 and b"iron start demo" in done.stderr
    assert fake.iron("wait", "demo", "--for", "stopped").returncode == 0
    assert fake.iron("wait", "demo", "--for", "noon").returncode == 2
    assert fake.iron("exec", "demo").returncode == 2
    assert fake.iron("exec", "nope", "--", "x").returncode == 125
    assert fake.iron("show", "nope").returncode == 1


@pytest.mark.parametrize("words, says", [
    (["list", "--statu", "x"], b"unknown option --statu"),
    (["list", "--status", "up"], b"pending|running|stopped|destroyed|failed"),
    (["list", "--limit", "0"], b"from 1 to 10000"),
    (["show"], b"usage: iron show VM"),
    (["create", "a", "b"], b"usage: iron create NAME"),
    (["lst"], b"is it `iron list`?"),
    (["egress", "lits"], b"is it `iron egress list`?"),
    (["xyzzy"], b"iron --help"),
    (["egress", "nope"], b"iron egress add"),
    (["set", "demo"], b"--name, --label"),
    (["destroy"], b"--label KEY=VALUE"),
    (["cp", "a", "b"], b"one side must be VM:PATH"),
    (["cp", "x:a", "y:b"], b"both sides"),
    (["attach", "demo", "make", "--json"], b"no --json"),
    (["egress", "explain", "x.example"], b"--vm VM"),
    (["egress", "explain", "--vm", "demo", "x.example:99999"], b"port"),
    (["egress", "preset"], b"usage: iron egress preset list"),
    (["egress", "preset", "list", "npm"], b"list takes no name"),
    (["egress", "preset", "show"], b"show takes one"),
    (["egress", "preset", "add"], b"name the presets"),
    (["egress", "preset", "drop", "npm"], b"list, show, add or remove?"),
    (["egress", "preset", "remove", ".."], b"no preset's name"),
    (["audit", "egress", "--since", "yesterday"], b"10m, 2h, 3d"),
    (["create", "x", "--label", "nope"], b"NAME=VALUE"),
    (["keys", "create", "ci"], b"--scope"),
])
def test_mistakes_say_what_would_be_right(fake, words, says):
    done = fake.iron(*words)
    assert done.returncode == 2 and says in done.stderr and done.stdout == b"", done
    assert not [s for s in fake.seen if s[0] != "GET"]


def test_several_at_once_and_one_that_fails(fake):
    fake.on("DELETE", r"/vms/.*", lambda h: error(409, "vm_not_stopped", "it is not stopped"))
    done = fake.iron("destroy", "demo", "nope", "demo")
    assert done.returncode == 1 and done.stderr.count(b"iron destroy --force demo") == 2 and b"no VM 'nope'" in done.stderr
    fake.on("DELETE", r"/vms/.*", (204, None))
    assert [v["name"] for v in json.loads(fake.ok("destroy", "--json", "--label", "team=infra"))] == ["demo", "a-name-that-is-much-longer-than-the-other"]


# --- what is asked of the API ---

def asked(fake, method):
    return [path for m, path, _ in fake.seen if m == method][-1]


def test_filters_go_into_the_query(fake):
    fake.ok("list", "--all", "--label", "a=b c", "--sort", "name", "--order", "asc")
    paths = [p for _, p, _ in fake.seen]
    assert paths[-2:] == ["/v1/vms?limit=100&label=a%3Db%20c&sort=name&order=asc", "/v1/vms?limit=100&label=a%3Db%20c&sort=name&order=asc&status=destroyed"]
    fake.ok("audit", "egress", "--vm", "demo", "--verdict", "blocked", "--allowed", "false", "--host", "a&b", "--mode", "warn", "--protocol", "dns")
    assert f"vm_id={VM_ID}" in asked(fake, "GET") and "host=a%26b" in asked(fake, "GET") and "allowed=false" in asked(fake, "GET")
    fake.ok("audit", "events", "--key", "ci", "--kind", "exec")
    path = [p for _, p, _ in fake.seen if p.startswith("/v1/audit/events")][-1]
    assert "key_id=key_1" in path and "kind=exec" in path
    assert "| api.example.com | 5 | 3 | 1 | 1 | 1.0 MiB | 5 B |" in fake.ok("audit", "summary", "--format", "markdown")


def test_presets(fake):
    assert fake.ok("egress", "preset", "list", "-q") == "npm\n"
    shown = fake.ok("egress", "preset", "show", "npm")
    assert "registry.yarn.example" in shown and "/-/npm/v1/security/*" in shown and "yes" in shown
    done = fake.iron("egress", "preset", "show", "nope")
    assert done.returncode == 1 and b"no preset nope" in done.stderr
    fake.ok("egress", "preset", "add", "npm", "pypi")
    assert [p for m, p, _ in fake.seen if m == "POST"] == ["/v1/egress/presets/npm", "/v1/egress/presets/pypi"]
    fake.ok("egress", "preset", "remove", "npm")
    assert asked(fake, "DELETE") == "/v1/egress/presets/npm"
    sent = []
    fake.on("POST", "/vms", lambda h: (sent.append(json.loads(h.body())), setattr(h, "was_read", True), (201, {"data": VM}))[-1])
    fake.ok("create", "x", "--async", "--preset", "npm", "--preset", "pypi")
    assert sent == [{"name": "x", "egress": {"presets": ["npm", "pypi"]}}]


def test_set_merges_labels(fake):
    sent = []
    fake.on("GET", rf"/vms/{VM_ID}", {"data": VM | {"labels": {"keep": "1", "go": "2", "change": "3"}}})
    fake.on("PATCH", rf"/vms/{VM_ID}", lambda h: (sent.append(json.loads(h.body())), setattr(h, "was_read", True), {"data": VM})[-1])
    fake.ok("set", "demo", "--label", "change=4", "--label", "new=5", "--remove-label", "go", "--name", "other", "--restart", "always")
    assert sent == [{"name": "other", "restart": "always", "labels": {"keep": "1", "change": "4", "new": "5"}}]
    done = fake.iron("set", "demo", "--remove-label", "nope")
    assert done.returncode == 1 and b"no label 'nope'" in done.stderr and len(sent) == 1


@pytest.mark.parametrize("target, wanted", [
    ("https://x.example/a/b?q=1", {"host": "x.example", "port": 443, "protocol": "http", "path": "/a/b"}),
    ("http://x.example:8080", {"host": "x.example", "port": 8080, "protocol": "http", "path": "/"}),
    ("x.example:22", {"host": "x.example", "port": 22}),
    ("x.example", {"host": "x.example"}),
    ("2001:db8::1", {"host": "2001:db8::1"}),
    ("[2001:db8::1]:443", {"host": "2001:db8::1", "port": 443}),
])
def test_explain_reads_targets(fake, target, wanted):
    sent = []
    fake.on("POST", "/egress/explain", lambda h: (sent.append(json.loads(h.body())), setattr(h, "was_read", True), {"data": EXPLAIN})[-1])
    out = fake.ok("egress", "explain", "--vm", "demo", target)
    assert sent == [wanted | {"vm_id": VM_ID}] and out.startswith("denied\n") and "no rule allows it" in out and "registry.npmjs.example" in out


def test_what_comes_too_fast_is_asked_again_when_the_api_says(fake):
    answers = [(429, {"error": {"code": "rate_limited", "message": "slower"}}, [("Retry-After", "1")]), (204, None)]
    fake.on("DELETE", r"/vms/.*", lambda h: answers.pop(0))
    assert fake.ok("destroy", "demo") == "demo destroyed\n" and not answers
    for headers in ([], [("Retry-After", "3600")]):
        fake.on("DELETE", r"/vms/.*", (429, {"error": {"code": "rate_limited", "message": "slower"}}, headers))
        fake.seen.clear()
        done = fake.iron("destroy", "demo")
        assert done.returncode == 1 and b"slower" in done.stderr and len([s for s in fake.seen if s[0] == "DELETE"]) == 1
    fake.on("DELETE", r"/vms/.*", (503, {"error": {"code": "unavailable", "message": "busy"}}, [("Retry-After", "1")]))
    assert fake.iron("destroy", "demo").returncode == 1  # it may have been begun


def test_the_key_is_sent_to_the_api_alone(fake):
    fake.on("GET", "/me", (302, None, [("Location", f"https://127.0.0.1:{fake.port}/v1/stolen")]))
    done = fake.iron("whoami")
    assert done.returncode == 1 and b"302" in done.stderr
    assert not [s for s in fake.seen if "stolen" in s[1]] and fake.seen[-1][2]["Authorization"] == f"Bearer {KEY}"
