"""iron-vm and iron-agent together, without a machine

The real agent runs on this host, its contract in namespaces of its own."""

import hashlib
import os
import socket
import struct
import threading
import time

import pytest

import guest_lab as lab
from guest_lab import EXEC, READY, SIGNAL, STARTED, STDERR, STDIN, STDIN_EOF, STDOUT


@pytest.fixture
def pair(tmp_path):
    """A ready machine and its agent; nothing of it is left open afterwards."""
    vm = lab.IronVm()
    agent = lab.HostAgent(vm.ours.pop("agent"), tmp_path)
    try:
        assert vm.contract(trust="-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----",
                           environment=["GREETING=it's\ntwo lines", "B=2"]) == 0
        vm.states = vm.wait_state(READY)
        vm.at_rest = vm.descriptors()
        vm.agent = agent
        yield vm
        lab.wait_for("streams to be closed", lambda: vm.descriptors() == vm.at_rest)
        assert vm.alive()
    finally:
        vm.close()
        agent.close()


def test_contract_is_run_for_real(pair):
    assert [s.step for s in pair.states if s.state == lab.BOOTING and s.step in lab.STEPS] == lab.STEPS
    beside = pair.agent.run_beside
    assert beside("hostname") == "demo\n"
    assert beside("cat", "/etc/hostname") == "demo\n"
    assert beside("cat", "/etc/hosts") == "127.0.0.1\tlocalhost\n127.0.1.1\tdemo\n"
    assert beside("cat", "/etc/machine-id") == lab.MACHINE_ID + "\n"
    assert beside("stat", "-c", "%F %a", "/etc/resolv.conf") == "regular file 644\n"
    assert beside("cat", "/etc/resolv.conf") == "nameserver 10.77.0.1\n"
    assert beside("cat", "/run/iron/generation") == "4\n"
    assert beside("sh", "-c", ". /etc/iron/environment; printf %s \"$GREETING|$B\"") == "it's\ntwo lines|2"
    assert "ours" in beside("cat", "/etc/ssl/certs/ca-certificates.crt")
    assert "10.77.0.2/24" in beside("ip", "-4", "addr", "show", "eth0")
    assert "default via 10.77.0.1 dev eth0" in beside("ip", "route")


def test_contract_again_replaces(pair):
    assert pair.contract(hostname="other", environment=[], trust="", generation=5) == 0
    pair.wait_state(READY)
    beside = pair.agent.run_beside
    assert beside("cat", "/etc/hosts") == "127.0.0.1\tlocalhost\n127.0.1.1\tother\n"
    assert beside("cat", "/etc/iron/environment") == ""
    assert "ours" not in beside("cat", "/etc/ssl/certs/ca-certificates.crt")
    assert beside("cat", "/run/iron/generation") == "5\n"


def test_login_environment(pair):
    end, out, err = pair.run(["env", "-0"], env=["B=mine", "EXTRA=1"], cwd="/tmp")
    env = dict(v.split("=", 1) for v in out.decode().split("\0") if v)
    assert end == ("exit", 0, 0, 0) and err == b""
    assert env["HOME"] == "/root" and env["USER"] == env["LOGNAME"] == "root"
    assert env["GREETING"] == "it's\ntwo lines" and env["FROM_SYSTEM"] == "a b"
    assert env["B"] == "mine" and env["EXTRA"] == "1" and "TERM" not in env


def test_another_user_and_groups(pair):
    end, out, _ = pair.run(["id"], user="daemon")
    assert end[1] == 0 and b"uid=1(daemon) gid=1(daemon)" in out and b"root" not in out


def test_exit_code_and_both_outputs(pair):
    end, out, err = pair.run(command="echo out; echo err >&2; exit 7")
    assert (end, out, err) == (("exit", 7, 0, 0), b"out\n", b"err\n")


def test_death_by_signal(pair):
    assert pair.run(command="kill -9 $$")[0] == ("exit", 137, 9, 0)


def test_what_does_not_start(pair):
    assert pair.run(["no-such-program"])[0][:2] == ("error", "exec_failed")
    assert pair.run(["true"], user="nobody-here")[0][:2] == ("error", "no_such_user")
    assert pair.run(["true"], cwd="/no/such")[0][:2] == ("error", "no_such_directory")
    assert pair.run(["true"], env=["NOEQUALS"])[0][:2] == ("error", "bad_request")
    assert pair.run(["a\0b"])[0][:2] == ("error", "bad_request")


def test_requests_that_are_refused_here(pair):
    assert pair.run()[0][:2] == ("error", "bad_request")
    assert pair.run(["true"], command="true")[0][:2] == ("error", "bad_request")
    for datagram in (bytes([EXEC]) + b"rubbish", bytes([STDIN]) + b"x", bytes([99])):
        stream = pair.open()
        stream.sock.send(datagram)
        assert stream.finish()[0][:2] == ("error", "bad_request")
        stream.close()
    stream = pair.open()
    stream.exec(["sleep", "60"])
    assert stream.receive()[0] == STARTED
    stream.send(SIGNAL, b"\x00")
    assert stream.finish()[0][:2] == ("error", "bad_request")
    stream.close()
    lab.wait_for("the process of a refused client to end", lambda: not pair.agent.children())


def test_stdin_both_ways_at_size(pair):
    data = os.urandom(5 << 20)
    stream = pair.open()
    stream.exec(["cat"])

    def feed():
        for at in range(0, len(data), 30000):
            stream.send(STDIN, data[at : at + 30000])
        stream.send(STDIN_EOF)

    feeder = threading.Thread(target=feed)
    feeder.start()
    end, out, _ = stream.finish()
    feeder.join()
    stream.close()
    assert end == ("exit", 0, 0, 0)
    assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest()


def test_a_program_that_reads_nothing(pair):
    stream = pair.open()
    stream.exec(command="exec 0<&-; sleep 0.3; echo done")
    for _ in range(64):
        stream.send(STDIN, b"x" * 32768)
    stream.send(STDIN_EOF)
    assert stream.finish() == (("exit", 0, 0, 0), b"done\n", b"")
    stream.close()


def test_signals_reach_the_group(pair):
    stream = pair.open()
    stream.exec(command="sh -c 'trap \"echo child; exit 0\" TERM; echo up; while :; do sleep 0.05; done'; echo $?")
    assert stream.receive()[0] == STARTED
    assert stream.receive() == (STDOUT, b"up\n")
    stream.send(SIGNAL, bytes([15]))
    end, out, _ = stream.finish()
    assert end == ("exit", 143, 15, 0) and b"child" in out
    stream.close()


def test_timeout_terminates_then_kills(pair):
    begin = time.monotonic()
    assert pair.run(["sleep", "60"], timeout_ms=200)[0] == ("exit", 143, 15, 1)
    assert time.monotonic() - begin < 2
    end, out, _ = pair.run(command="trap '' TERM; echo deaf; while :; do sleep 0.05; done", timeout_ms=200)
    assert end == ("exit", 137, 9, 1) and out == b"deaf\n"
    assert 2 < time.monotonic() - begin < 6


def test_background_process_does_not_hold_the_end(pair):
    begin = time.monotonic()
    end, out, _ = pair.run(command="(sleep 1; echo late; sleep 30) & echo early")
    assert (end, out) == (("exit", 0, 0, 0), b"early\n")
    assert time.monotonic() - begin < 5
    for pid in pair.agent.children():
        os.kill(pid, 9)


def test_output_before_the_end_is_whole(pair):
    for size in (1, 65536, 300000, 3000000):
        end, out, _ = pair.run(command=f"head -c {size} /dev/zero; exit 3")
        assert end[1] == 3 and len(out) == size


def test_pty(pair):
    stream = pair.open()
    stream.exec(command="stty -echo; stty size; echo $TERM; tty; read x; stty size; echo got $x; exit 5", tty=True,
                rows=33, cols=99)
    out = b""
    while b"/dev/pts" not in out:
        kind, data = stream.receive()
        out += data if kind == STDOUT else b""
    stream.send(lab.RESIZE, struct.pack("<HH", 40, 120))
    stream.send(STDIN, b"word\n")
    end, rest, err = stream.finish()
    out += rest
    stream.close()
    assert end == ("exit", 5, 0, 0) and err == b""
    assert b"33 99\r\n" in out and b"xterm-256color\r\n" in out and b"40 120\r\n" in out and b"got word" in out


def test_pty_end_of_file_and_interrupt(pair):
    stream = pair.open()
    stream.exec(["cat"], tty=True)
    assert stream.receive()[0] == STARTED
    stream.send(STDIN, b"line\n")
    stream.send(STDIN_EOF)
    end, out, _ = stream.finish()
    assert end == ("exit", 0, 0, 0) and out.count(b"line") == 2
    stream.close()
    stream = pair.open()
    stream.exec(command="trap 'echo caught; exit 4' INT; echo up; while :; do sleep 0.05; done", tty=True)
    out = b""
    while b"up" not in out:
        out += stream.receive()[1]
    stream.send(STDIN, b"\x03")
    end, out, _ = stream.finish()
    assert end == ("exit", 4, 0, 0) and b"caught" in out
    stream.close()


def test_a_client_that_goes_hangs_up_its_process(pair):
    stream = pair.open()
    stream.exec(command="trap 'exit 0' HUP; echo up; while :; do sleep 0.05; done")
    assert stream.receive()[0] == STARTED
    assert stream.receive() == (STDOUT, b"up\n")
    assert len(pair.agent.children()) == 1
    stream.close()
    lab.wait_for("the process to end", lambda: not pair.agent.children())


def test_a_slow_client_stops_its_process_and_no_other(pair):
    slow = pair.open()
    slow.exec(["sh", "-c", "yes | head -c 50000000"])
    assert slow.receive()[0] == STARTED
    time.sleep(0.3)
    before = pair.rss_kib()
    for _ in range(5):
        assert pair.run(["echo", "quick"])[1] == b"quick\n"
    time.sleep(0.5)
    assert pair.rss_kib() - before < 4096, "what a slow client does not read piles up"
    end, out, _ = slow.finish(30)
    assert end[1] == 0 and len(out) == 50000000
    slow.close()


def test_a_stuck_client_can_still_go(pair):
    """Its input waits for a process that does not read; its hang-up is seen all the same."""
    stream = pair.open()
    stream.exec(["sleep", "600"])
    assert stream.receive()[0] == STARTED
    stream.sock.setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            stream.send(STDIN, b"x" * 32768)
    stream.close()
    lab.wait_for("the process to end", lambda: not pair.agent.children())


def test_many_streams_and_their_limit(pair):
    streams = [pair.open() for _ in range(256)]
    assert pair.open() == -11
    for stream in streams:
        stream.exec(["cat"])
    for i, stream in enumerate(streams):
        stream.send(STDIN, str(i).encode())
        stream.send(STDIN_EOF)
    for i, stream in enumerate(streams):
        assert stream.finish() == (("exit", 0, 0, 0), str(i).encode(), b"")
        stream.close()


def test_a_lost_agent_ends_its_streams(tmp_path):
    vm = lab.IronVm()
    agent = lab.HostAgent(vm.ours.pop("agent"), tmp_path)
    vm.contract()
    vm.wait_state(READY)
    stream = vm.open()
    stream.exec(["sleep", "600"])
    assert stream.receive()[0] == STARTED
    (child,) = agent.children()
    agent.process.kill()
    assert stream.finish()[0][:2] == ("error", "vm_gone")
    assert vm.wait_state(lab.FAILED)[-1].step == "agent"
    assert vm.refuses()
    os.kill(child, 9)
    stream.close()
    vm.close()
    agent.close()


def test_a_lost_host_hangs_up_processes(tmp_path):
    vm = lab.IronVm()
    agent = lab.HostAgent(vm.ours.pop("agent"), tmp_path)
    vm.contract()
    vm.wait_state(READY)
    marker = tmp_path / "hung-up"
    stream = vm.open()
    # (a shell that tells its lost standard error of its child's death dies of that)
    stream.exec(command=f"exec 2>/dev/null; trap 'touch {marker}; exit 0' HUP; echo up; while :; do sleep 0.05; done")
    assert stream.receive()[0] == STARTED
    assert stream.receive() == (STDOUT, b"up\n")
    vm.process.kill()
    vm.process.wait()
    lab.wait_for("SIGHUP", marker.exists)
    stream.close()
    agent.close()


def test_throughput(pair):
    """On the way out, through both processes and a client that is Python."""
    size = 1 << 30
    stream = pair.open()
    begin = time.monotonic()
    stream.exec(["head", "-c", str(size), "/dev/zero"])
    got, space = 0, bytearray(1 << 17)
    stream.sock.settimeout(60)
    while True:
        n = stream.sock.recv_into(space)
        if space[0] == lab.EXIT:
            break
        got += n - 1 if space[0] == STDOUT else 0
    rate = got / (time.monotonic() - begin) / 1e6
    stream.close()
    print(f"{rate:.0f} MB/s")
    assert got == size and rate > 100
