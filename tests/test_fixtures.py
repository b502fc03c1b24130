"""The first client's recorded calls, replayed one by one: each gets what that client needs, or is known not to be delivered.
tests/fixtures/README.md says what the recording is; docs/COMPAT.md says what differs."""

import datetime
import http.client
import json
import re
import ssl
import time
import urllib.parse

import pytest

from harness import ROOT, Iron

FIXTURES = ROOT / "tests" / "fixtures" / "irons-requests.jsonl"

# What the recording asks for and iron has not yet: 404 not_found, whatever the method. When one of these answers otherwise it
# is delivered: take it out here and in docs/COMPAT.md.
NOT_DELIVERED = [
    re.compile(r"^/v1/vms/[^/]+/ssh$"),
    re.compile(r"^/v1/secrets(/|\?|$)"),
    re.compile(r"^/v1/auth/device/"),
]
# So many of the recorded calls are these and the log-in's: 11 of ssh, 32 of secrets, 7 of the log-in.
MISSING_CALLS = 50
# Needs the token of a log-in, which is not delivered.
NEEDS_LOGIN = {"list (with the token of login)"}
# Answered otherwise than the recording asks for, on purpose: docs/COMPAT.md says why.
DIFFERS = {
    "egress add --cidr 10.0.0.0": (201, "an address without a length is its /32"),
}
# What the client's user had waited for by then: the recording was not made at a machine's pace.
IN_STATE = {"destroy web-1 (running)": "vm_id"}
MISSING = object()


def lines():
    return [json.loads(line) for line in FIXTURES.read_text().splitlines()]


class Client:
    """Sends what was recorded, as it was recorded: method, path, headers and body."""

    def __init__(self, iron):
        self.iron = iron
        self.context = ssl.create_default_context(cafile=str(iron.dir / "tls/cert.pem"))

    def send(self, request):
        connection = http.client.HTTPSConnection("127.0.0.1", self.iron.port, context=self.context, timeout=60)
        connection.putrequest(request["method"], request["path"], skip_accept_encoding=True)
        body = request["body"].encode() if request["body"] is not None else None
        for name, value in request["headers"].items():
            if name == "Content-Length":
                value = str(len(body or b""))
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, data


def substitute(value, variables):
    if isinstance(value, dict):
        return {k: substitute(v, variables) for k, v in value.items()}
    if not isinstance(value, str):
        return value
    for name, text in variables.items():
        value = value.replace("${%s}" % name, text)
    return value


def prepare(request, variables, key):
    request = substitute(request, variables)
    keys = {"Bearer KEY": "Bearer " + key, "Bearer BAD_KEY": "Bearer iron_live_bad"}
    headers = dict(request["headers"])
    if "Authorization" in headers:
        headers["Authorization"] = keys.get(headers["Authorization"], headers["Authorization"])
    return {**request, "headers": headers}


def field(document, path):
    """data.id, data[].name: of every element. MISSING when it is not there."""
    values = [document]
    for part in path.split("."):
        name = part.removesuffix("[]")
        values = [v[name] if isinstance(v, dict) and name in v else MISSING for v in values]
        if part.endswith("[]"):
            if any(not isinstance(v, list) for v in values):
                return MISSING
            values = [item for v in values for item in v]
    if any(v is MISSING for v in values):
        return MISSING
    return values[0] if "[]" not in path and values else values


def problems_of(line, status, data):
    """What the client needs and did not get."""
    needs, out = line["needs"], []
    wanted = needs["status"] if isinstance(needs["status"], list) else [needs["status"]]
    if status not in wanted:
        return [f"status {status}, not {needs['status']}: {data[:300]!r}"]
    try:
        document = json.loads(data) if data else {}
    except ValueError:
        return [f"no JSON: {data[:100]!r}"]
    for path in needs["fields"]:
        # where several statuses will do, the fields are those of the one that came
        if path.startswith("error." if status < 400 else "data"):
            continue
        if field(document, path) is MISSING:
            out.append(f"no {path}")
    return out


def holds(data, until):
    document = json.loads(data)
    return all(field(document, path) == value for path, value in until.items())


@pytest.fixture(scope="module")
def iron():
    with Iron("fixtures") as running:
        yield running


def variables_at_start():
    hour_ago = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(hours=1)
    zone = datetime.timezone(datetime.timedelta(hours=1))
    return {
        "since": urllib.parse.quote(hour_ago.strftime("%Y-%m-%dT%H:%M:%SZ"), safe=""),
        "since_offset": urllib.parse.quote(hour_ago.astimezone(zone).strftime("%Y-%m-%dT%H:%M:%S+01:00"), safe=""),
    }


def is_delivered(line, path):
    return line["case"] not in NEEDS_LOGIN and not any(p.match(path) for p in NOT_DELIVERED)


def replay(client, line, variables, key):
    """Status and body of the last answer, asked again every second until what it waits for holds."""
    request = prepare(line["request"], variables, key)
    until = line["needs"].get("until")
    end = time.monotonic() + 180
    while True:
        status, data = client.send(request)
        if not until or status != 200 or holds(data, until) or time.monotonic() > end:
            return request, status, data
        time.sleep(1)


def test_every_recorded_call(iron):
    client, variables, surprises, missing = Client(iron), variables_at_start(), [], []
    for number, line in enumerate(lines(), 1):
        needs = line["needs"]
        if needs.get("replay") == "skip":
            continue
        where = f"line {number}: {line['case']}, step {line['step']}"
        delivered = is_delivered(line, line["request"]["path"])
        if line["case"] in IN_STATE and line["step"] == 1:
            iron.wait_ready(variables[IN_STATE[line["case"]]])
        request, status, data = replay(client, line, variables, iron.key)
        if line["case"] in DIFFERS:
            if status != DIFFERS[line["case"]][0]:
                surprises.append(f"{where}: known to differ, and answered {status}")
            continue
        if not delivered:
            missing.append(where)
            expected = 401 if line["case"] in NEEDS_LOGIN else 404
            code = json.loads(data)["error"]["code"] if data and status >= 400 else None
            # an id in a path that is none of iron's is 404 too
            if status != expected or code not in ("not_found", "unauthorized", "vm_not_found"):
                surprises.append(f"{where}: listed as not delivered, and answered {status} {data[:200]!r}")
            continue
        found = problems_of(line, status, data)
        if needs.get("until") and not found and not holds(data, needs["until"]):
            found = [f"waited for {needs['until']} in vain: {data[:300]!r}"]
        surprises += [f"{where}: {request['method']} {request['path']}: {problem}" for problem in found]
        if not found:
            for name, path in needs.get("saves", {}).items():
                variables[name] = str(field(json.loads(data), path))
    assert not surprises, "\n".join(surprises)
    assert len(missing) == MISSING_CALLS, "\n".join(missing)
    # all of the rest was really asked
    assert {"vm_id", "vm2_id", "vm3_id", "rule_id", "cursor"} <= variables.keys()


def test_the_list_of_what_is_missing_is_short(iron):
    """Each pattern is there for a call that was recorded."""
    paths = [line["request"]["path"] for line in lines()]
    for pattern in NOT_DELIVERED:
        assert any(pattern.match(path) for path in paths), pattern.pattern
