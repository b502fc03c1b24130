"""iron-vm's end of a byte channel (codec/stream.h), played by a test of iron-api."""

import itertools
import re
import socket
import threading

import wire

VM = "vm_00000000000h1"
KINDS = {}
for _m in re.finditer(r"^\tSTREAM_(\w+)(?: = (\d+))?,", (wire.CODEC / "stream.h").read_text(), re.M):
    KINDS[_m[1]] = int(_m[2]) if _m[2] else max(KINDS.values()) + 1
NAMES = {n: k for k, n in KINDS.items()}
REQUESTS = {"EXEC": "stream_exec", "ATTACH": "stream_attach", "EXEC_SIGNAL": "stream_exec_signal", "EXEC_REMOVE": "stream_exec_ref",
            "FILE": "stream_file"}
TOKENS = itertools.count(1000)
FILE_OPS = "READ WRITE REMOVE STAT LIST MKDIR MOVE PACK UNPACK".split()


class End:
    """script(end) runs on a thread once iron-api has the channel and has sent its request: `kind`, and `asked` as a dict."""

    def __init__(self, api, op, script):
        self.api, self.script = api, script
        self.error = None
        self.asked = None
        self.received = 0
        self.enough = False
        self.finished = threading.Event()
        self.began = threading.Event()
        api.control.on[op] = self.open

    def open(self, control, request):
        self.request = request
        self.token = next(TOKENS)
        self.stream = self.api.stream(self.token)
        self.stream.settimeout(60)
        control.done(request, value=self.token)
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        try:
            self.kind, data = self.receive()
            self.asked = wire.decode(REQUESTS[self.kind], data) if self.kind in REQUESTS else data
            self.began.set()
            self.script(self)
        except (BrokenPipeError, ConnectionResetError):
            self.enough = True  # iron-api has all it wanted
        except BaseException as e:
            self.error = e
        finally:
            self.stream.close()
            self.finished.set()

    def receive(self):
        """The next datagram: (name of its kind, bytes); (None, b"") at the end."""
        try:
            data = self.stream.recv(200000)
        except ConnectionResetError:  # it left something unread
            data = b""
        return (NAMES[data[0]], data[1:]) if data else (None, b"")

    def send(self, kind, data=b"", /, **values):
        if values:
            data = wire.encode({"INFO": "stream_file_info", "EXEC_ROW": "stream_exec_row", "EXIT": "stream_exit", "ERROR": "stream_error"}[kind], **values)
        self.stream.send(bytes([KINDS[kind]]) + data)

    def info(self, kind=1, size=0, mode=0o644, owner="agent", group="agent", **values):
        self.send("INFO", kind=kind, size=size, mode=mode, owner=owner, group=group, **values)

    def stdin(self):
        """All of it to its end; None when the channel ends before."""
        out = bytearray()
        while True:
            kind, data = self.receive()
            if kind != "STDIN":
                return bytes(out) if kind == "STDIN_EOF" else None
            assert 0 < len(data) <= 32768
            self.received += 1
            out += data

    def join(self, seconds=30):
        assert self.finished.wait(seconds), "iron-vm's end did not come to its end"
        if self.error:
            raise self.error
        return self
