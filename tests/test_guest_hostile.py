"""iron-vm and iron-agent against peers that mean ill

An agent, a QEMU and a client against iron-vm, a host against iron-agent: none may crash it, none may make it spin or
grow, and what people read names the cause."""

import contextlib
import fcntl
import os
import random
import socket
import struct
import termios
import time

import pytest

import guest_lab as lab
import wire
from guest_lab import BOOTING, FAILED, LOST, OFF, READY, STARTED, STDIN, STDOUT


@pytest.fixture
def vm():
    machine = lab.IronVm()
    machine.agent = lab.FakeAgent(machine.ours["agent"])
    try:
        yield machine
        assert machine.alive()
    finally:
        machine.close()


def make_ready(vm):
    assert vm.contract() == 0
    vm.agent.connect()
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_bytes_before_the_echo_are_dropped(vm):
    vm.contract()
    nonce = vm.agent.read_hello()
    stale = lab.frame(lab.A_STDOUT, 1, b"stale") + lab.hello(lab.HELLO_ACK, b"a" * 16) + os.urandom(3 << 20)
    vm.agent.sock.sendall(stale + lab.hello(lab.HELLO_ACK, nonce))
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def test_the_hello_is_repeated_behind_a_flush(vm):
    first = vm.agent.read_hello()
    vm.agent.fill(5)
    flushed = vm.agent.buffer
    assert vm.agent.read_hello() == first
    assert flushed.startswith(b"\xff" * 100)
    vm.agent.sock.sendall(lab.hello(lab.HELLO_ACK, first) * 3)
    vm.contract()
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def test_another_version_is_named(vm):
    nonce = vm.agent.read_hello()
    vm.agent.sock.sendall(lab.hello(lab.HELLO_ACK, nonce, version=9))
    state = vm.wait_state(FAILED)[-1]
    assert state.step == "agent" and "version 9" in state.reason


VIOLATIONS = {
    "malformed header": b"\xff" * 12,
    "a frame only the host sends": lab.frame(lab.A_STEP, 0, b"x" * 20),
    "an unknown stream": lab.frame(lab.A_STDOUT, 5, b"x"),
    "an exit of no stream": lab.frame(lab.A_EXIT, 1, b"\0\0\0\0"),
    "a step that nobody asked for": lab.frame(lab.A_STEP_DONE, 0, struct.pack("<Iq", 99, 0) + lab.text("")),
    "a payload past its bound": struct.pack("<III", 1 << 30, lab.A_STDOUT, 1),
    "a malformed record": lab.frame(lab.A_STEP_DONE, 0, b"\xff" * 20),
}


@pytest.mark.parametrize("what", VIOLATIONS)
def test_a_violation_resets_and_the_machine_comes_back(vm, what):
    make_ready(vm)
    vm.agent.sock.sendall(VIOLATIONS[what])
    state = vm.wait_state(LOST)[-1]
    assert state.step == "agent" and state.reason
    vm.agent.buffer = b""
    vm.agent.connect()
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def test_violations_in_a_row_are_given_up(vm):
    vm.contract()
    begin = time.monotonic()
    for i in range(5):
        vm.agent.buffer = b""
        vm.agent.connect(seconds=15)
        vm.agent.sock.sendall(b"\xee" * 64)
    state = vm.wait_state(FAILED)[-1]
    assert state.step == "agent" and "malformed" in state.reason
    assert time.monotonic() - begin > 1, "there is no pause between attempts"
    used = cpu_seconds(vm.process.pid)
    vm.agent.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            vm.agent.sock.send(b"\xee" * 65536)
    time.sleep(0.5)
    assert cpu_seconds(vm.process.pid) - used < 0.1, "a channel that was given up is still read"
    assert vm.contract() == 0
    vm.wait_state(BOOTING)


def test_a_flood_before_the_echo_is_cut_off(vm):
    vm.agent.sock.settimeout(0.6)
    rubbish, sent = os.urandom(1 << 20), 0
    with pytest.raises(TimeoutError):
        while sent < 1 << 30:
            sent += vm.agent.sock.send(rubbish)
    assert vm.rss_kib() < 64 << 10


def open_process(vm):
    stream = vm.open()
    stream.exec(["anything"])
    number, _ = vm.agent.await_frame(lab.A_EXEC)
    vm.agent.send(lab.A_STARTED, number)
    assert stream.receive()[0] == STARTED
    return stream, number


@pytest.mark.parametrize("frames", [
    [(lab.A_STARTED, b"")],
    [(lab.A_STDOUT, b"x" * 32768)] * 100, # the client's socket takes some of it, and that is credited
    [(lab.A_CREDIT, struct.pack("<I", 1))],
    [(lab.A_CREDIT, struct.pack("<I", 0))],
    [(lab.A_EXIT, b"\0\0\0\0"), (lab.A_EXIT, b"\0\0\0\0")],
    [(lab.A_EXIT, b"\0\0\0\0"), (lab.A_STDOUT, b"x")],
    [(lab.A_CLOSED, b"")],
    [(lab.A_ERROR, lab.text("exec_failed") + lab.text("x"))],
], ids=["started twice", "output past the window", "credit past the window", "no credit", "two ends", "after the end",
        "closed unasked", "error after start"])
def test_violations_on_a_stream(vm, frames):
    make_ready(vm)
    stream, number = open_process(vm)
    for kind, payload in frames:
        vm.agent.send(kind, number, payload)
    assert vm.wait_state(LOST)[-1].step == "agent"
    assert stream.finish()[0][0] in ("error", "exit")
    stream.close()


def test_an_error_of_an_unknown_code_is_a_violation(vm):
    make_ready(vm)
    stream = vm.open()
    stream.exec(["anything"])
    number, _ = vm.agent.await_frame(lab.A_EXEC)
    vm.agent.send(lab.A_ERROR, number, lab.text("<script>") + lab.text("x"))
    vm.wait_state(LOST)
    assert stream.finish()[0][:2] == ("error", "vm_gone")
    stream.close()


def test_output_waits_for_credit_and_memory_is_bounded(vm):
    make_ready(vm)
    stream, number = open_process(vm)
    sent = 0
    while sent < lab.WINDOW:
        vm.agent.send(lab.A_STDOUT, number, b"x" * 32768)
        sent += 32768
    # What the client's socket took is credited; what it did not take is not.
    credited = 0
    vm.agent.sock.settimeout(1)
    try:
        while True:
            kind, _, payload = vm.agent.receive(1)
            if kind == lab.A_CREDIT:
                credited += struct.unpack("<I", payload)[0]
                for _ in range(credited // 32768 - (sent - lab.WINDOW) // 32768):
                    vm.agent.send(lab.A_STDOUT, number, b"x" * 32768)
                    sent += 32768
    except TimeoutError:
        pass
    assert credited <= 4 << 20, "a client that reads nothing is given credit without end"
    got = 0
    while got < sent:
        kind, data = stream.receive()
        assert kind == STDOUT
        got += len(data)
    vm.agent.send(lab.A_EXIT, number, b"\0\0\0\0")
    assert stream.finish()[0] == ("exit", 0, 0, 0)
    stream.close()


def test_output_in_bytes_costs_no_more_than_output(vm):
    make_ready(vm)
    before = vm.rss_kib()
    times = lab.WINDOW // 256 - 1
    open_ones = [open_process(vm) for _ in range(3)]
    for _, number in open_ones:
        vm.agent.sock.sendall(b"".join(lab.frame(lab.A_STDOUT, number, bytes([i])) for i in range(256)) * times)
    vm.agent.send(lab.A_STDERR, number, b"end")
    vm.agent.send(lab.A_EXIT, number, b"\0\0\0\0")
    lab.wait_for("all to be taken", lambda: queued_bytes(vm.agent.sock) == 0)
    assert vm.rss_kib() - before < 12 << 10
    stream = open_ones[-1][0]
    assert stream.finish() == (("exit", 0, 0, 0), bytes(range(256)) * times, b"end")
    for stream, _ in open_ones:
        stream.close()


def test_pieces_of_output_are_whole_however_slowly_they_are_read(vm):
    seeded = random.Random(11)
    make_ready(vm)
    stream, number = open_process(vm)
    sent, got = {STDOUT: b"", lab.STDERR: b""}, {STDOUT: b"", lab.STDERR: b""}
    for _ in range(40):
        for _ in range(400):
            kind, piece = seeded.choice([STDOUT, STDOUT, lab.STDERR]), seeded.randbytes(seeded.randrange(1, 50))
            vm.agent.send(lab.A_STDOUT if kind == STDOUT else lab.A_STDERR, number, piece)
            sent[kind] += piece
        for _ in range(seeded.randrange(300)):
            if sum(map(len, got.values())) < sum(map(len, sent.values())):
                kind, piece = stream.receive()
                got[kind] += piece
    vm.agent.send(lab.A_EXIT, number, b"\0\0\0\0")
    end, out, err = stream.finish()
    assert end == ("exit", 0, 0, 0) and (got[STDOUT] + out, got[lab.STDERR] + err) == (sent[STDOUT], sent[lab.STDERR])
    stream.close()


def queued_bytes(sock):
    """Sent, and not read by the other end."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


def test_streams_that_cost_too_much_lose_their_clients(vm):
    """Bytes of stdout and stderr in turn are a datagram each: what all streams may cost is bounded, whoever reads."""
    make_ready(vm)
    open_ones = [open_process(vm) for _ in range(13)]
    vm.agent.sock.settimeout(60)
    for _, number in open_ones:
        vm.agent.sock.sendall((lab.frame(lab.A_STDOUT, number, b"x") + lab.frame(lab.A_STDERR, number, b"y")) * (lab.WINDOW // 2))
    assert vm.agent.await_frame(lab.A_CLOSE)[0] in [number for _, number in open_ones]
    assert vm.rss_kib() < (190 << 10) * (3 if lab.is_sanitized(lab.BUILD / "src" / "prog" / "iron-vm") else 1)
    for stream, _ in open_ones:
        stream.close()


def test_an_orphan_is_waited_for_and_its_output_dropped(vm):
    make_ready(vm)
    stream, number = open_process(vm)
    stream.close()
    assert vm.agent.await_frame(lab.A_CLOSE)[0] == number
    vm.agent.send(lab.A_STDOUT, number, b"x" * 1000)
    vm.agent.send(lab.A_CLOSED, number)
    stream, number = open_process(vm)
    vm.agent.send(lab.A_EXIT, number, b"\x01\0\0\0")
    assert stream.finish()[0] == ("exit", 1, 0, 0)
    stream.close()


def test_orphans_count_as_streams(vm):
    """An agent that never says its last word cannot make iron-vm keep more than the limit."""
    make_ready(vm)
    for _ in range(256):
        stream = vm.open()
        stream.exec(["anything"])
        stream.close()
    closed = 0
    while closed < 256:
        vm.agent.await_frame(lab.A_CLOSE)
        closed += 1
    assert vm.open() == -11


def test_random_frames(vm):
    seeded = random.Random(7)
    make_ready(vm)
    for _ in range(4):
        kinds = [*range(1, 11), *range(32, 45), *range(64, 72)]
        for _ in range(50):
            payload = seeded.randbytes(seeded.choice([0, 4, 8, 40]))
            vm.agent.send(seeded.choice(kinds), seeded.randrange(3), payload)
        vm.wait_state(LOST, 20)
        vm.agent.buffer = b""
        vm.agent.connect(seconds=15)
        vm.agent.obey_contract()
        vm.wait_state(READY)


def test_no_answer_fails_with_the_console_s_last_line():
    vm = lab.IronVm(boot_timeout_ms=700)
    vm.ours["console"].sendall(b"Booting\r\n[    1.0] Kernel panic \x1b[31m- not syncing\r\n\r\n")
    state = vm.wait_state(FAILED, 10)[-1]
    assert state.step == "boot" and "Kernel panic \\x1b[31m- not syncing" in state.reason
    vm.close()


def test_a_failed_step_is_named(vm):
    vm.contract()
    vm.agent.connect()
    vm.agent.step_done(vm.agent.step()[0])
    number, name, _ = vm.agent.step()
    vm.agent.step_done(number, -30, "read-only \x1b[2J file system")
    state = vm.wait_state(FAILED)[-1]
    assert (state.step, state.reason) == (name, "read-only \\x1b[2J file system") and name == "dns"
    assert vm.refuses()


def test_a_step_that_is_not_ready_is_asked_again(vm):
    vm.contract()
    vm.agent.connect()
    for _ in range(3):
        number, name, _ = vm.agent.step()
        assert name == "network"
        vm.agent.step_done(number, -19, "no eth0")
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def test_a_step_without_an_answer_has_a_deadline(vm):
    vm.contract(deadline_ms=600)
    vm.agent.connect()
    state = vm.wait_state(FAILED, 10)[-1]
    assert state.step == "network" and "in time" in state.reason


def test_time_and_entropy_are_the_host_s(vm):
    vm.contract()
    vm.agent.connect()
    seen = {}
    for _ in lab.STEPS:
        number, name, body = vm.agent.step()
        seen[name] = body
        vm.agent.step_done(number)
    assert abs(struct.unpack("<q", seen["clock"])[0] / 1e6 - time.time()) < 1
    assert len(seen["entropy"]) == 260 and len(set(seen["entropy"])) > 100
    assert seen["identity"] == lab.text("demo") + lab.text(lab.MACHINE_ID)
    vm.wait_state(READY)


# --- what a guest may not say on a stream of files and executions ---

def info(**values):
    return lab.A_INFO, wire.encode("stream_file_info", **{"kind": 1, **values})


def exec_row(**values):
    return lab.A_EXEC_ROW, wire.encode("stream_exec_row", **{"exec": 5, **values})


def request(vm, kind, record=None, **values):
    stream = vm.open()
    stream.send(kind, wire.encode(record, **values) if record else b"")
    number, _ = vm.agent.await_frame({lab.EXECS: lab.A_EXECS, lab.ATTACH: lab.A_ATTACH, lab.FILE: lab.A_FILE,
                                      lab.EXEC: lab.A_EXEC}[kind])
    return stream, number


READ, WRITE, REMOVE, LIST, STAT = ((lab.FILE, {"record": "stream_file", "op": op, "path": "/x", "limit": 2})
                                   for op in (lab.F_READ, lab.F_WRITE, lab.F_REMOVE, lab.F_LIST, lab.F_STAT))
ATTACH, FOLLOW = ((lab.ATTACH, {"record": "stream_attach", "exec": 5, "follow": f}) for f in (False, True))
DETACH = (lab.EXEC, {"record": "stream_exec", "exec": 5, "command": "x", "detach": True})
OUT, END = (lab.A_STDOUT, b"x" * 10), (lab.A_DONE, b"")
LIES = {
    "output before its INFO": (READ, [OUT]),
    "more than its size": (READ, [info(size=9), OUT]),
    "less than its size": (READ, [info(size=11), OUT, END]),
    "no INFO": (READ, [END]),
    "two INFOs": (READ, [info(size=1), info(size=1)]),
    "stderr of a file": (READ, [info(size=10), (lab.A_STDERR, b"x" * 10)]),
    "exit of a file": (READ, [info(size=0), (lab.A_EXIT, b"\0\0\0\0")]),
    "a name where none is": (STAT, [info(name="x")]),
    "a kind that is none": (STAT, [info(kind=0)]),
    "output of a STAT": (STAT, [info(size=10), OUT]),
    "an INFO of a REMOVE": (REMOVE, [info()]),
    "an INFO before the end of the input": (WRITE, [info()]),
    "a DONE before the end of the input": (WRITE, [END]),
    "names that do not grow": (LIST, [info(name="b"), info(name="a")]),
    "a name twice": (LIST, [info(name="b"), info(name="b")]),
    "a name that leaves": (LIST, [info(name="../x")]),
    "the name ..": (LIST, [info(name="..")]),
    "the empty name": (LIST, [info(name="")]),
    "a NUL in a name": (LIST, [info(name="a\0b")]),
    "more than its limit": (LIST, [info(name="a"), info(name="b"), info(name="c")]),
    "more after there was no more": (LIST, [info(name="a", more=True), info(name="b")]),
    "rows of another": (ATTACH, [exec_row(exec=6)]),
    "output before its row": (ATTACH, [OUT]),
    "a row where nothing is missing": (ATTACH, [exec_row(), OUT, exec_row(offset=10, output=20)]),
    "rows that go back": (FOLLOW, [exec_row(offset=5, output=20), exec_row(offset=4, output=20)]),
    "the same row again": (FOLLOW, [exec_row()] * 2),
    "an offset past the end": (ATTACH, [exec_row(offset=2, output=1)]),
    "an exit without follow": (ATTACH, [exec_row(), (lab.A_EXIT, b"\0\0\0\0")]),
    "a DONE with follow": (FOLLOW, [exec_row(), END]),
    "an error behind its row": (FOLLOW, [exec_row(), (lab.A_ERROR, lab.text("io") + lab.text(""))]),
    "a malformed row": (ATTACH, [(lab.A_EXEC_ROW, b"\xff" * 40)]),
    "output of a detached one": (DETACH, [(lab.A_STARTED, b""), OUT]),
    "an exit of a detached one": (DETACH, [(lab.A_STARTED, b""), (lab.A_EXIT, b"\0\0\0\0")]),
    "a DONE before it started": (DETACH, [END]),
    "rows without end": ((lab.EXECS, {}), [exec_row()] * 2049),
    "rows past the window": ((lab.EXECS, {}), [exec_row(argv=["x" * 1000] * 4)] * 1000),
    "an unknown code": (STAT, [(lab.A_ERROR, lab.text("kaboom") + lab.text("x"))]),
    "started": (STAT, [(lab.A_STARTED, b"")]),
}


@pytest.mark.parametrize("what", LIES)
def test_lies_about_files_and_executions(vm, what):
    (kind, values), frames = LIES[what]
    make_ready(vm)
    stream, number = request(vm, kind, **values)
    vm.agent.sock.settimeout(10)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        vm.agent.sock.sendall(b"".join(lab.frame(k, number, payload) for k, payload in frames))
    assert vm.wait_state(LOST)[-1].step == "agent"
    assert stream.answers()[0][:2] == ("error", "vm_gone")
    stream.close()
    assert vm.rss_kib() < 64 << 10


def test_truth_about_files_and_executions(vm):
    """What the lies above are departures from is let through, hostile text and all."""
    make_ready(vm)
    text = os.urandom(60).replace(b"\0", b"n").replace(b"/", b"n")
    for (kind, values), frames, end in (
            (READ, [info(size=10, owner=text), OUT, END], ("done",)), (READ, [info(kind=4), OUT, OUT, END], ("done",)),
            (LIST, [info(name=b"\x01" + text), info(name=b"\x02", more=True), END], ("done",)), (LIST, [END], ("done",)),
            (REMOVE, [END], ("done",)), (ATTACH, [exec_row(user=text), OUT, exec_row(offset=11, output=11), OUT, END], ("done",)),
            (FOLLOW, [exec_row(), (lab.A_STDERR, b"x"), (lab.A_EXIT, b"\1\0\0\0")], ("exit", 1, 0, 0)),
            (DETACH, [(lab.A_STARTED, b""), END], ("done",)),
            (READ, [info(size=99), OUT, (lab.A_ERROR, lab.text("io") + lab.text("gone"))], ("error", "io", "gone")),
            ((lab.EXECS, {}), [exec_row()] * 500 + [END], ("done",))):
        stream, number = request(vm, kind, **values)
        vm.agent.sock.sendall(b"".join(lab.frame(k, number, payload) for k, payload in frames))
        assert stream.answers()[0] == end
        stream.close()


def test_a_file_without_end_waits_for_its_reader(vm):
    make_ready(vm)
    stream, number = request(vm, *READ[:1], **READ[1])
    vm.agent.send(*info(kind=4)[:1], number, info(kind=4)[1])
    sent, credit = len(info(kind=4)[1]), lab.WINDOW
    with pytest.raises(TimeoutError):
        while True:
            while sent + 32768 <= credit:
                vm.agent.send(lab.A_STDOUT, number, b"x" * 32768)
                sent += 32768
            kind, _, payload = vm.agent.receive(1)
            credit += struct.unpack("<I", payload)[0] if kind == lab.A_CREDIT else 0
    assert sent < 4 << 20 and vm.rss_kib() < 32 << 10
    stream.close()
    assert vm.agent.await_frame(lab.A_CLOSE)[0] == number


@pytest.mark.parametrize("datagrams", [
    [(lab.FILE, b"rubbish")], [(lab.ATTACH, b"")], [(lab.EXECS, b"x")], [(lab.CONSOLE, b"x")], [(lab.DONE, b"")],
    [(lab.EXECS, b""), (STDIN, b"x")], [(lab.EXECS, b""), (lab.EXECS, b"")],
    [(lab.FILE, wire.encode("stream_file", op=lab.F_READ, path="x")), (STDIN, b"x")],
    [(lab.FILE, wire.encode("stream_file", op=lab.F_WRITE, path="x")), (lab.SIGNAL, b"\x0f")],
    [(lab.FILE, wire.encode("stream_file", op=lab.F_WRITE, path="x")), (STDIN, b"x" * 40000)],
    [(lab.FILE, wire.encode("stream_file", op=lab.F_WRITE, path="x")), (lab.STDIN_EOF, b""), (STDIN, b"x")],
    [(lab.FILE, wire.encode("stream_file", op=0, path="x"))],
    [(lab.ATTACH, wire.encode("stream_attach", exec=1, follow=True)), (STDIN, b"x")],
    [(lab.EXEC, wire.encode("stream_exec", exec=1, detach=True, command="x")), (STDIN, b"x")],
])
def test_clients_that_break_the_protocol(vm, datagrams):
    make_ready(vm)
    stream = vm.open()
    for kind, payload in datagrams:
        stream.send(kind, payload)
    assert stream.answers()[0][:2] == ("error", "bad_request")
    stream.close()
    assert vm.alive()


# --- QEMU ---

def test_a_reboot_runs_the_contract_again(vm):
    make_ready(vm)
    stream, _ = open_process(vm)
    vm.qmp.event("RESET", guest=True, reason="guest-reset")
    states = vm.wait_state(BOOTING)
    assert [s.state for s in states] == [LOST, BOOTING] and "rebooted" in states[0].reason
    assert stream.finish()[0][:2] == ("error", "vm_gone")
    vm.agent.connect()
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)
    stream.close()


def test_a_guest_that_only_restarts_fails_and_says_little():
    vm = lab.IronVm(boot_timeout_ms=1500)
    for _ in range(300):
        vm.qmp.event("RESET", guest=True, reason="guest-reset")
    states = vm.wait_state(FAILED, 10)
    assert len(states) <= 3 and states[-1].step == "boot"
    vm.close()


def test_an_agent_that_ends_again_and_again_is_given_up(vm):
    make_ready(vm)
    for i in range(5):
        vm.qmp.event("VSERPORT_CHANGE", id="iron.0", open=False)
        if i == 4:
            break
        vm.wait_state(LOST)
        vm.agent.buffer = b""
        vm.agent.connect(seconds=15)
        vm.agent.obey_contract()
        vm.wait_state(READY)
    assert vm.wait_state(FAILED)[-1].reason == "the guest's agent ended"


def test_an_agent_that_restarts_is_found_at_once(vm):
    make_ready(vm)
    stream, _ = open_process(vm)
    vm.qmp.event("VSERPORT_CHANGE", id="another", open=False)
    vm.qmp.event("VSERPORT_CHANGE", id="iron.0", open=False)
    assert vm.wait_state(LOST)[-1].step == "agent"
    assert stream.finish()[0][:2] == ("error", "vm_gone")
    vm.qmp.event("VSERPORT_CHANGE", id="iron.0", open=True)
    vm.agent.buffer = b""
    vm.agent.connect()
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)
    stream.close()


def test_power_off(vm):
    make_ready(vm)
    stream, _ = open_process(vm)
    vm.qmp.event("SHUTDOWN", guest=True, reason="guest-shutdown")
    assert vm.wait_state(OFF)[-1].reason == "guest-shutdown"
    assert stream.finish()[0][:2] == ("error", "vm_gone")
    assert vm.refuses() and vm.contract() == -107
    stream.close()


def test_a_panic_is_named(vm):
    make_ready(vm)
    vm.qmp.event("GUEST_PANICKED", action="pause")
    assert vm.wait_state(FAILED)[-1].step == "kernel"


def test_a_full_disk_pauses_and_comes_back(vm):
    make_ready(vm)
    vm.qmp.event("BLOCK_IO_ERROR", device="disk", operation="write", action="stop", nospace=True)
    vm.qmp.event("STOP")
    assert vm.wait_state(LOST)[-1].step == "disk"
    assert vm.contract(deadline_ms=500) == 0  # as iron-control does when it hears that
    lab.wait_for("cont", lambda: "cont" in vm.qmp.commands)
    vm.qmp.event("RESUME")
    assert vm.agent.obey_contract() == lab.STEPS
    vm.wait_state(READY)


def test_a_full_disk_during_a_boot_is_named(vm):
    vm.contract()
    vm.qmp.event("BLOCK_IO_ERROR", device="disk", operation="write", action="stop", nospace=True)
    vm.qmp.event("STOP")
    assert vm.wait_state(FAILED)[-1].step == "disk"


@pytest.mark.parametrize("line", [b"rubbish\n", b"[" * 100000 + b"\n", b'{"return": {}, "id": 999}\n',
                                  b"x" * (600 << 10)],
                         ids=["not JSON", "deep", "an answer to nothing", "no end of line"])
def test_a_qemu_that_breaks_the_protocol_is_cut_off(vm, line):
    make_ready(vm)
    with contextlib.suppress(BrokenPipeError):
        vm.ours["qmp"].sendall(line)
    assert vm.wait_state(OFF)[-1].reason.startswith("protocol")


def test_shutdown_asks_then_presses_then_quits(vm):
    make_ready(vm)
    assert vm.shutdown(1000) == 0
    vm.agent.await_frame(lab.A_SHUTDOWN)
    assert vm.refuses()
    lab.wait_for("quit", lambda: "quit" in vm.qmp.commands)
    assert vm.qmp.commands[-2:] == ["system_powerdown", "quit"]
    vm.ours["qmp"].shutdown(socket.SHUT_RDWR)
    assert vm.wait_state(OFF)[-1].reason == "closed by QEMU"


def test_a_guest_that_restarts_instead_is_ended(vm):
    make_ready(vm)
    vm.shutdown(60000)
    vm.agent.await_frame(lab.A_SHUTDOWN)
    vm.qmp.event("RESET", guest=True, reason="guest-reset")
    lab.wait_for("quit", lambda: "quit" in vm.qmp.commands)


def test_shutdown_while_it_boots(vm):
    assert vm.shutdown(60000) == 0
    lab.wait_for("quit", lambda: "quit" in vm.qmp.commands)
    assert "system_powerdown" not in vm.qmp.commands


def test_shutdown_without_an_agent(vm):
    make_ready(vm)
    vm.agent.sock.sendall(b"\xff" * 64)
    vm.wait_state(LOST)
    assert vm.shutdown(600) == 0
    lab.wait_for("quit", lambda: "quit" in vm.qmp.commands)
    assert vm.qmp.commands[-2:] == ["system_powerdown", "quit"]


# --- iron-control ---

def test_a_new_control_learns_the_state(vm):
    make_ready(vm)
    vm.control.sock.close()
    vm.connect_control()
    assert vm.next_state().state == READY


def test_a_contract_of_another_machine_is_refused(vm):
    assert vm.contract(vm=78) == -22


def test_a_control_that_breaks_the_protocol_is_cut_off(vm):
    vm.control.send(lab.VM_CONFIG, b"")
    with pytest.raises((EOFError, ConnectionResetError)):
        while True:
            vm.control.receive(5)
    vm.connect_control()
    assert vm.next_state().state == BOOTING


# --- iron-agent against its host ---

@pytest.fixture
def agent(tmp_path):
    ours, theirs = socket.socketpair()
    process = lab.HostAgent(theirs, tmp_path, isolated=False)
    ours.settimeout(10)
    yield process, ours
    ours.close()
    process.close()


def greet(sock, nonce):
    """Sends a hello and reads up to its echo."""
    sock.sendall(lab.hello(lab.HELLO, nonce))
    got, want = b"", lab.hello(lab.HELLO_ACK, nonce)
    while want not in got:
        got += sock.recv(1 << 16)
    return got.split(want, 1)[1]


def exec_frame(stream, command):
    return lab.frame(lab.A_EXEC, stream, wire.encode("stream_exec", command=command, cwd="/", user="root"))


@pytest.mark.parametrize("attack", [
    b"\x00" * 12,
    os.urandom(100000),
    lab.frame(lab.A_STDIN, 9, b"x"),
    lab.frame(lab.A_STDOUT, 1, b"x"),
    exec_frame(1, "true") + exec_frame(1, "true"),
    lab.frame(lab.A_EXEC, 1, b"rubbish"),
    exec_frame(1, "sleep 60") + lab.frame(lab.A_STDIN, 1, b"x" * 32768) * 16,
    exec_frame(1, "sleep 60") + lab.frame(lab.A_CREDIT, 1, struct.pack("<I", 1)),
    lab.frame(lab.A_FILE, 1, b"rubbish"),
    lab.frame(lab.A_FILE, 1, wire.encode("stream_file", op=lab.F_READ, path="x")) + lab.frame(lab.A_STDIN, 1, b"x"),
    lab.frame(lab.A_ATTACH, 1, b"rubbish"),
    lab.frame(lab.A_EXECS, 2) + lab.frame(lab.A_EXECS, 1),
    lab.frame(lab.A_EXEC_SIGNAL, 1, wire.encode("stream_exec_signal", exec=1)),
    lab.frame(lab.A_HOLD) + lab.frame(lab.A_PING, 0, b"12345678"),
    lab.frame(lab.A_STEP, 0, b"x" * 30),
    struct.pack("<III", 1 << 31, lab.A_STDIN, 1),
], ids=["zeros", "noise", "no stream", "wrong way", "an id twice", "bad record", "past credit", "too much credit", "bad file",
        "input of a READ", "bad attach", "ids that fall", "signal 0", "spoke while held", "bad step", "huge"])
def test_the_agent_resets_and_answers_the_next_hello(agent, attack):
    process, sock = agent
    greet(sock, b"0" * 16)
    sock.sendall(attack)
    sock.sendall(b"\xff" * 120000)
    greet(sock, b"1" * 16)
    sock.sendall(exec_frame(1, "echo fine"))
    got = b""
    while lab.frame(lab.A_EXIT, 1, b"\0\0\0\0") not in got:
        got += sock.recv(1 << 16)
    assert lab.frame(lab.A_STDOUT, 1, b"fine\n") in got
    lab.wait_for("what the attack started to end", lambda: not process.children())


def test_the_agent_holds(agent):
    _, sock = agent
    greet(sock, b"0" * 16)
    sock.sendall(exec_frame(1, "while :; do echo tick; sleep 0.02; done"))
    sock.recv(1 << 16)
    sock.sendall(lab.frame(lab.A_HOLD))
    got = b""
    while not got.endswith(lab.frame(lab.A_HELD)):
        got += sock.recv(1 << 16)
    sock.settimeout(0.4)
    with pytest.raises(TimeoutError):
        sock.recv(1)
    sock.settimeout(10)
    sock.sendall(lab.frame(lab.A_RESUME))
    assert b"tick" in sock.recv(1 << 16)
    sock.sendall(lab.frame(lab.A_CLOSE, 1))
    got = b""
    while lab.frame(lab.A_CLOSED, 1) not in got:
        got += sock.recv(1 << 16)


def test_ends_of_file_that_a_terminal_s_program_does_not_read(agent, tmp_path):
    """They earn no credit, and however many come, the connection stands and input goes on."""
    _, sock = agent
    sock.settimeout(30)
    greet(sock, b"0" * 16)
    command = f"stty raw -echo; echo ready; until [ -e {tmp_path}/go ]; do sleep 0.05; done; head -c 4000 >/dev/null; echo went; exec cat >/dev/null"
    sock.sendall(lab.frame(lab.A_EXEC, 1, wire.encode("stream_exec", command=command, cwd="/", user="root", tty=True)))
    buffer, credit = b"", 0

    def read_until(kind, part):
        nonlocal buffer, credit
        while True:
            while len(buffer) >= 12 and len(buffer) >= 12 + struct.unpack_from("<I", buffer)[0]:
                size, got = struct.unpack_from("<IH", buffer)
                payload, buffer = buffer[12:12 + size], buffer[12 + size:]
                credit += struct.unpack("<I", payload)[0] if got == lab.A_CREDIT else 0
                if got == kind and part in payload:
                    return
            more = sock.recv(1 << 16)
            assert more
            buffer += more
    read_until(lab.A_STDOUT, b"ready")
    for _ in range(120):
        sock.sendall(lab.frame(lab.A_STDIN_EOF, 1) * 10000)
    sock.sendall(lab.frame(lab.A_PING, 0, b"12345678"))
    read_until(lab.A_PONG, b"12345678")
    (tmp_path / "go").touch()
    read_until(lab.A_STDOUT, b"went")
    assert credit == 0
    sock.sendall(lab.frame(lab.A_STDIN, 1, b"x" * 32768) * (lab.WINDOW // 32768))
    while credit <= lab.WINDOW * 3 // 4:
        read_until(lab.A_CREDIT, b"")
    assert credit <= lab.WINDOW


def test_the_agent_s_memory_is_bounded_when_the_host_does_not_read(agent):
    process, sock = agent
    greet(sock, b"0" * 16)
    sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(lab.frame(lab.A_PING, 0, b"12345678") * 1000)
            time.sleep(0.001)
    for line in open(f"/proc/{process.process.pid}/status"):
        if line.startswith("VmRSS:"):
            assert int(line.split()[1]) < 32 << 10
    sock.setblocking(True)
    sock.settimeout(10)


def test_an_unknown_step_is_refused_by_name(agent):
    _, sock = agent
    greet(sock, b"0" * 16)
    sock.sendall(lab.frame(lab.A_STEP, 0, struct.pack("<I", 1) + lab.text("fly") + lab.text("")))
    reply = sock.recv(4096)
    _, kind, _, number, code = struct.unpack_from("<IIIIq", reply)
    assert (kind, number, code) == (lab.A_STEP_DONE, 1, -38)
