"""openapi.json is the API as it runs: schemathesis finds no answer that it does not describe, no wrong request that passes.
The description is valid OpenAPI 3.1; every operation is tried with what it describes and with what it excludes, against a
running server with a VM in it."""

import hashlib
import json
import os
import subprocess
import sys

import pytest

from harness import Iron, ROOT

REQUIREMENTS = ROOT / "tests" / "openapi-requirements.txt"
# pinned, from the package index that pip is configured with; made once for each version of the list
VENV = ROOT / "build-test" / ("venv-" + hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12])

CONFIG = """\
[phases.coverage]
# CONNECT and TRACE are refused before there is a path: 501
unexpected-methods = ["DELETE", "GET", "OPTIONS", "PATCH", "POST", "PUT"]
"""


@pytest.fixture(scope="module")
def tools():
    if not (VENV / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        subprocess.run([VENV / "bin/pip", "install", "-q", "--disable-pip-version-check", "-r", REQUIREMENTS], check=True, timeout=300)
        (VENV / "done").touch()
    return VENV / "bin"


@pytest.fixture(scope="module")
def iron():
    with Iron("openapi", extra="limits: {max_vms: 3}") as running:
        yield running


@pytest.fixture(scope="module")
def description(iron):
    answer = iron.api("GET", "/openapi.json", key=None)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json


def test_it_is_valid_openapi(description, tools, tmp_path):
    path = tmp_path / "openapi.json"
    path.write_text(json.dumps(description))
    done = subprocess.run([tools / "openapi-spec-validator", path], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def walk(node, visit):
    if isinstance(node, dict):
        visit(node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
        walk(child, visit)


def test_every_field_says_what_it_is(description):
    undocumented = []

    def body_of(operation):
        return operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})

    for path, item in description["paths"].items():
        for method, operation in item.items():
            for parameter in operation["parameters"]:
                if not parameter.get("description"):
                    undocumented.append(f"{method} {path} {parameter['name']}")
            for name, schema in body_of(operation).get("properties", {}).items():
                if not schema.get("description"):
                    undocumented.append(f"{method} {path} {name}")
    assert not undocumented


def strict(description, ids):
    """What an answer holds beyond its description is an error here (a client may not rely on that: fields are added); and
    the ids of a path are now and then those of objects that there are."""
    parts = set()

    def whole(node):
        if "allOf" in node:
            node["unevaluatedProperties"] = False
            parts.update(part["$ref"].rpartition("/")[2] for part in node["allOf"] if "$ref" in part)

    walk(description["paths"], whole)
    for name, schema in description["components"]["schemas"].items():
        if name not in parts:
            schema["additionalProperties"] = False

    def visit(node):
        if node.get("in") == "path" and node["name"] in ids:
            node["schema"] = {"type": "string", "pattern": node["schema"]["pattern"], "enum": ids[node["name"]]}

    walk(description["paths"], visit)
    # the machine that commands and files are tried in stays up
    for path, method in [("/vms/{id}", "delete"), ("/vms/{id}/stop", "post")]:
        for parameter in description["paths"][path][method]["parameters"]:
            if parameter["in"] == "path":
                parameter["schema"]["enum"] = ids["id"][1:]
    return description


def objects(iron):
    vm = iron.create("described")
    stopped = iron.create("stopped")
    iron.call("POST", f"/vms/{stopped['id']}/stop")
    rule = iron.call("POST", "/egress/rules", {"host": "api.example.com"}, status=201)
    key = iron.call("POST", "/keys", {"name": "spare", "scopes": ["vm:read"]}, status=201)
    exec_id = iron.call("POST", f"/vms/{vm['id']}/exec", {"command": "sleep 600", "user": "root", "detach": True})["exec_id"]
    image = iron.api("GET", "/images").json["data"][0]
    return {
        "id": [vm["id"], stopped["id"], "vm_0000000000001"],
        "rule": [rule["id"], "egr_0000000000001"],
        "key": [key["id"], "key_0000000000001"],
        "exec": [exec_id, "exec_0000000000001"],
        "image": [image["id"], "img_0000000000001"],
    }


def test_answers_are_as_described(iron, description, tools, tmp_path):
    document = tmp_path / "openapi.json"
    document.write_text(json.dumps(strict(description, objects(iron))))
    (tmp_path / "schemathesis.toml").write_text(CONFIG)
    seconds = int(os.environ.get("OPENAPI_SECONDS", "45"))
    argv = [tools / "st", "--config-file", "schemathesis.toml", "run", document, "--url", f"https://127.0.0.1:{iron.port}/v1",
            "--tls-verify", iron.dir / "tls/cert.pem", "-H", f"Authorization: Bearer {iron.key}",
            "--phases", "coverage,fuzzing", "--max-examples", "25", "--max-time", str(seconds), "--seed", "4",
            # a schema cannot say all: a host's name, one of two fields and not both
            "--exclude-checks", "positive_data_acceptance",
            "--continue-on-failure", "--request-timeout", "30", "--no-color", "--suppress-health-check", "all"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=seconds + 120,
                          env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]
    assert "Tested: %d" % sum(len(item) for item in description["paths"].values()) in done.stdout, done.stdout[-3000:]
    # what iron-control refused with was in the tables
    assert "an error that the description does not have" not in (iron.dir / "irond.log").read_text(errors="replace")
    assert iron.api("GET", "/readyz", key=None).status == 200
