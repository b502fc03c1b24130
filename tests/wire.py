"""iron's message records in Python, read from the C headers' X-macros (src/codec/*.h): what a test sends and expects
cannot drift from what the programs speak."""

import array
import pathlib
import re
import socket
import struct

CODEC = pathlib.Path(__file__).resolve().parent.parent / "src" / "codec"
HEADERS = ["msg_broker.h", "msg_vm.h", "msg_egress.h", "msg_api.h", "record.h", "stream.h", "agent.h", "msg.h"]
MSG_MAX = 128 << 10
ANSWER = 0x80000000  # in the txn of an answer

_INTEGERS = {"u8": "<B", "u16": "<H", "u32": "<I", "u64": "<Q", "i64": "<q", "flag": "<?"}


def _macros():
    """{name: body} of every function-like macro, continuation lines joined, comments gone."""
    found = {}
    for header in HEADERS:
        text = re.sub(r"/\*.*?\*/", " ", (CODEC / header).read_text(), flags=re.S).replace("\\\n", " ")
        for m in re.finditer(r"^#define (\w+)\(([^)]*)\)(.*)$", text, re.M):
            found[m[1]] = m[3]
        found.setdefault("", "")
        found[""] += "".join(f"{m[1]} {m[2]}\n" for m in re.finditer(r"^WIRE_DECLARE\((\w+), (\w+)\);", text, re.M))
    return found


def _fields(macros, name):
    out = []
    for m in re.finditer(r"\b(F|[A-Z][A-Z0-9_]+)\(([^()]*)\)", macros[name]):
        arguments = [a.strip() for a in m[2].split(",")]
        if m[1] == "F":
            out.append((arguments[2], arguments[1]))
        elif m[1] in macros:
            out += _fields(macros, m[1])
    return out


_MACROS = _macros()
RECORDS = {record: _fields(_MACROS, fields) for record, fields in re.findall(r"(\w+) (\w+)\n", _MACROS[""])}
TYPES = {name: int(number) for number, name in re.findall(r"M\((\d+), (\w+), \d+\)", _MACROS["MSG_TABLE"])}
NAMES = {number: name for name, number in TYPES.items()}


def pack_list(items):
    """A wire list of bytes, str, integers (u64) or encoded records."""
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
        n, = struct.unpack_from("<I", data)
        items.append(data[4:4 + n])
        data = data[4 + n:]
    return items


def encode(record, /, **values):
    """Members that are not given are zero or empty; one that the record has not is an error."""
    out = b""
    for name, kind in RECORDS[record]:
        value = values.pop(name, None)
        if kind in _INTEGERS:
            out += struct.pack(_INTEGERS[kind], value or 0)
            continue
        if isinstance(value, (list, tuple)):
            value = pack_list(value)
        elif isinstance(value, str):
            value = value.encode()
        value = value or b""
        out += struct.pack("<I", len(value)) + value
    if values:
        raise KeyError(f"{record} has no {', '.join(values)}")
    return out


def decode(record, data):
    """{member: int, bool, bytes (str) or list of bytes (list)}; the whole of data."""
    values, at = {}, 0
    for name, kind in RECORDS[record]:
        if kind in _INTEGERS:
            values[name], = struct.unpack_from(_INTEGERS[kind], data, at)
            at += struct.calcsize(_INTEGERS[kind])
            continue
        n, = struct.unpack_from("<I", data, at)
        at += 4
        value = data[at:at + n]
        assert len(value) == n, f"{record}.{name} is cut"
        at += n
        values[name] = unpack_list(value) if kind == "list" else value
    assert at == len(data), f"{record} has {len(data) - at} bytes too many"
    return values


class Message:
    def __init__(self, name, txn, record, fds):
        self.name, self.txn, self.record, self.fds = name, txn, record, fds

    def __getattr__(self, member):
        return self.record[member]

    def __repr__(self):
        return f"{self.name}(txn={self.txn}, {self.record})"


class Channel:
    """One end of a SOCK_SEQPACKET channel between two of iron's processes."""

    def __init__(self, sock):
        self.sock = sock
        self.txn = 0

    @classmethod
    def pair(cls):
        """This end, and the socket of the other one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for s in (ours, theirs):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        return cls(ours), theirs

    def send(self, message, /, txn=0, fds=(), **values):
        data = struct.pack("<HHI", TYPES[message], 0, txn) + encode(message, **values)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([data], rights)

    def answer(self, request, message, /, fds=(), **values):
        self.send(message, txn=request.txn | ANSWER, fds=fds, **values)

    def call(self, message, /, fds=(), **values):
        """Sends a request; the txn that its answers carry."""
        self.txn += 1
        self.send(message, txn=self.txn, fds=fds, **values)
        return self.txn | ANSWER

    def receive(self, timeout=10.0):
        """The next message; None at the end. TimeoutError."""
        self.sock.settimeout(timeout)
        data, fds, _, _ = socket.recv_fds(self.sock, MSG_MAX, 16)
        if not data:
            return None
        number, _, txn = struct.unpack_from("<HHI", data)
        name = NAMES[number]
        return Message(name, txn, decode(name, data[8:]), fds)

    def close(self):
        self.sock.close()
