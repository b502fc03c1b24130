"""wire.py as the door's tests speak it: records as namespaces of text, an end of file that raises, and the headers'
enumerations by name. Enough to play irond, iron-control and iron-audit toward one worker."""

import re
import socket
import types

import wire
from wire import ANSWER, encode, pack_list, unpack_list  # noqa: F401 (the lab's own)

_text = "".join(path.read_text() for path in sorted(wire.CODEC.glob("*.h")))


def _enum(name):
    body = re.search(r"enum " + name + r" \{([^}]*)\}", re.sub(r"/\*.*?\*/", "", _text, flags=re.S)).group(1)
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


def decode(record, data):
    kinds = dict(wire.RECORDS[record])
    values = wire.decode(record, data)
    return types.SimpleNamespace(**{
        name: value.decode("utf-8", "surrogateescape") if kinds[name] == "str" else value for name, value in values.items()})


class Channel:
    """One end of a SOCK_SEQPACKET channel."""

    def __init__(self, sock):
        self.sock, self.txn = sock, 0
        self.wire = wire.Channel(sock)

    def send(self, record, txn=0, fds=(), **values):
        self.wire.send(record, txn=txn, fds=fds, **values)

    def receive(self):
        data, fds, _, _ = socket.recv_fds(self.sock, 1 << 18, 16)
        if not data:
            raise EOFError
        number, txn = int.from_bytes(data[:2], "little"), int.from_bytes(data[4:8], "little")
        return wire.NAMES[number], txn, decode(wire.NAMES[number], data[8:]), fds

    def call(self, record, fds=(), **values):
        """The answer to a request; what else comes meanwhile is not expected."""
        self.txn += 1
        self.send(record, txn=self.txn, fds=fds, **values)
        answer, txn, value, _ = self.receive()
        assert txn == self.txn | ANSWER, f"{answer} came in the place of an answer"
        return value


def channel_pair():
    ours, theirs = wire.Channel.pair()
    return Channel(ours.sock), theirs
