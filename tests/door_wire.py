"""The messages between iron's processes, read from the same tables that the C code is made of (src/codec/*.h), so that
the two cannot drift. Enough for a test to play irond, iron-control and iron-audit toward one role."""

import pathlib
import re
import socket
import struct
import types

CODEC = pathlib.Path(__file__).resolve().parent.parent / "src" / "codec"
ANSWER = 0x80000000
FORMATS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q", "flag": "<?"}


def _headers():
    text = "".join(path.read_text() for path in sorted(CODEC.glob("*.h")))
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return text.replace("\\\n", " ")


_text = _headers()
TABLES = {
    name.lower(): re.findall(r"F\(T, (\w+), (\w+), (\d+)\)", body)
    for name, body in re.findall(r"#define (\w+)_FIELDS\(F, T\)([^\n]*)", _text)
}
NUMBERS = {record: int(n) for n, record in re.findall(r"M\((\d+), (\w+), \d+\)", _text)}
RECORDS = {number: record for record, number in NUMBERS.items()}


def _enum(name):
    body = re.search(r"enum " + name + r" \{([^}]*)\}", _text).group(1)
    values, n = {}, 0
    for item in filter(None, (i.strip() for i in body.split(","))):
        key, _, value = item.partition("=")
        n = int(value) if value.strip() else n
        values[key.strip()] = n
        n += 1
    return values


ROLE = _enum("role")
RECORD_TYPES = {v: k.lower() for k, v in _enum("record_type").items()}
PROTOCOL, VERDICT, OUTCOME = _enum("egress_protocol"), _enum("egress_verdict"), _enum("close_outcome")


def pack_list(items):
    out = b""
    for item in items:
        if isinstance(item, int):
            item = struct.pack("<Q", item)
        elif isinstance(item, str):
            item = item.encode()
        out += struct.pack("<I", len(item)) + item
    return out


def unpack_list(data):
    items = []
    while data:
        n = struct.unpack_from("<I", data)[0]
        items.append(data[4 : 4 + n])
        data = data[4 + n :]
    return items


def encode(record, **values):
    out = b""
    fields = TABLES[record]
    unknown = set(values) - {name for _, name, _ in fields}
    assert not unknown, f"{record} has no {unknown}"
    for kind, name, _ in fields:
        if kind in FORMATS:
            out += struct.pack(FORMATS[kind], values.get(name, 0))
            continue
        value = values.get(name, b"")
        if isinstance(value, (list, tuple)):
            value = pack_list(value)
        elif isinstance(value, str):
            value = value.encode()
        out += struct.pack("<I", len(value)) + value
    return out


def decode(record, data):
    values, at = {}, 0
    for kind, name, _ in TABLES[record]:
        if kind in FORMATS:
            values[name] = struct.unpack_from(FORMATS[kind], data, at)[0]
            at += struct.calcsize(FORMATS[kind])
            continue
        n = struct.unpack_from("<I", data, at)[0]
        raw = data[at + 4 : at + 4 + n]
        values[name] = raw.decode("utf-8", "surrogateescape") if kind == "str" else unpack_list(raw)
        at += 4 + n
    assert at == len(data), f"{record}: {len(data) - at} bytes are left"
    return types.SimpleNamespace(**values)


class Channel:
    """One end of a SOCK_SEQPACKET channel."""

    def __init__(self, sock):
        self.sock, self.txn = sock, 0

    def send(self, record, txn=0, fds=(), **values):
        data = struct.pack("<HHI", NUMBERS[record], 0, txn) + encode(record, **values)
        socket.send_fds(self.sock, [data], list(fds))

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 18, 16)
        if not data:
            raise EOFError
        number, _, txn = struct.unpack_from("<HHI", data)
        return RECORDS[number], txn, decode(RECORDS[number], data[8:]), fds

    def call(self, record, fds=(), **values):
        """The answer to a request; what else comes meanwhile is not expected."""
        self.txn += 1
        self.send(record, txn=self.txn, fds=fds, **values)
        answer, txn, value, _ = self.receive()
        assert txn == self.txn | ANSWER, f"{answer} came in the place of an answer"
        return value


def channel_pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for s in (a, b):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return Channel(a), b
