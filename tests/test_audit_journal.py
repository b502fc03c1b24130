"""iron-audit as a process: what it acknowledges it keeps, through kills and full disks, and who may write what."""

import pathlib
import random
import struct
import subprocess
import tempfile
import threading
import time

import pytest

from audit_lab import (CLOSE, CLOSE_ABORTED, CLOSE_DONE, EVENT, KEEP, OPEN, PROGRESS, ROLE_CONTROL, ROLE_EGRESS, UID, Audit, closes,
                       disk_shim, record_close, record_event, record_open, record_progress)
from harness import wait_for

EPERM, EIO, EBADMSG, ENOSPC = 1, 5, 74, 28


@pytest.fixture
def audit():
    with Audit() as a:
        yield a.start()


def test_what_is_acknowledged_is_there(audit):
    control = audit.writer(ROLE_CONTROL, 0)
    worker = audit.writer()
    first = worker.write([record_open(host=f"h{i}.example") for i in range(3)])
    assert first.code == 0 and first.count == 3
    ack = control.write([record_event()], durable=True)
    assert ack.code == 0 and ack.first == first.first + 3
    ack = worker.write([record_progress(first.first, 10, 20), record_close(first.first, 11, 21)])
    assert ack.code == 0
    records = audit.records()
    assert [r[0] for r in records] == list(range(1, len(records) + 1))
    assert [r[1] for r in records] == [EVENT, OPEN, OPEN, OPEN, EVENT, PROGRESS, CLOSE]
    assert closes(records) == {first.first: (11, 21, CLOSE_DONE)}


def test_the_head_is_told(audit):
    control = audit.writer(ROLE_CONTROL, 0)
    worker = audit.writer()
    seen = []

    def head():
        control.write([record_event()])
        seen.extend(control.heads)
        control.heads.clear()
        return seen

    wait_for("the first head", head)
    for _ in range(50):
        last = worker.write([record_open()])
    wait_for("the last head", lambda: head()[-1][2] > last.first)
    segment, offset, seq = seen[-1]
    assert segment == 1 and seq == audit.records()[-1][0] or seq >= last.first
    assert all(a[2] < b[2] for a, b in zip(seen, seen[1:]))
    assert len(seen) < 200


def test_who_may_write_what(audit):
    worker = audit.writer(ROLE_EGRESS, 1)
    control = audit.writer(ROLE_CONTROL, 0)
    assert worker.write([record_event()]).code == -EBADMSG
    assert worker.write([record_open(workspace=2)]).code == -EPERM
    assert control.write([record_open()]).code == -EBADMSG
    assert worker.write([b"\x01\x00junk"]).code == -EBADMSG
    assert worker.write([b""]).code == -EBADMSG
    assert worker.write([]).code == -EBADMSG
    # the good one beside a bad one is not written either
    assert worker.write([record_open(), record_open(workspace=2)]).code == -EPERM
    assert [r[1] for r in audit.records()] == [EVENT]
    # another worker cannot end what is not its own
    mine = worker.write([record_open()])
    other = audit.writer(ROLE_EGRESS, 2)
    assert other.write([record_close(mine.first, 1, 1)]).code == 0
    assert closes(audit.records()) == {0: (1, 1, CLOSE_DONE)}
    assert worker.write([record_close(mine.first, 2, 2)]).code == 0
    assert closes(audit.records())[mine.first] == (2, 2, CLOSE_DONE)


def test_a_broken_peer_loses_its_channel_only(audit):
    bad, good = audit.writer(ROLE_EGRESS, 1), audit.writer(ROLE_EGRESS, 2)
    bad.sock.send(struct.pack("<HHI", 20, 0, 1) + b"\0" * 36)
    assert bad.receive() == (0, None)
    assert good.write([record_open(workspace=2)]).code == 0
    assert audit.ping() == 0


def test_a_dead_worker_is_closed_as_aborted(audit):
    worker = audit.writer(ROLE_EGRESS, 1)
    ack = worker.write([record_open() for _ in range(1000)])
    worker.write([record_progress(ack.first + 7, 123, 456), record_close(ack.first + 8, 1, 2)])
    worker.close()
    wait_for("the closes", lambda: len(closes(audit.records())) == 1000)
    ended = closes(audit.records())
    assert ended[ack.first + 7] == (123, 456, CLOSE_ABORTED)
    assert ended[ack.first + 8] == (1, 2, CLOSE_DONE)
    assert ended[ack.first + 9] == (0, 0, CLOSE_ABORTED)
    # a new channel to the same worker ends the old one's too
    worker = audit.writer(ROLE_EGRESS, 1)
    ack = worker.write([record_open()])
    again = audit.writer(ROLE_EGRESS, 1)
    wait_for("its close", lambda: ack.first in closes(audit.records()))
    assert again.write([record_open()]).code == 0


def test_a_new_life_adopts_what_is_open(audit):
    worker = audit.writer(ROLE_EGRESS, 1)
    ack = worker.write([record_open(), record_open()])
    audit.kill()
    audit.start()
    worker = audit.writer(ROLE_EGRESS, 1)
    other = audit.writer(ROLE_EGRESS, 2)
    assert other.write([record_close(ack.first, 9, 9)]).code == 0
    assert worker.write([record_progress(ack.first + 1, 5, 6)]).code == 0
    assert worker.write([record_close(ack.first, 3, 4)]).code == 0
    ended = closes(audit.records())
    assert ended[ack.first] == (3, 4, CLOSE_DONE) and ended[0] == (9, 9, CLOSE_DONE)
    worker.close()
    wait_for("the other's end", lambda: ack.first + 1 in closes(audit.records()))
    assert closes(audit.records())[ack.first + 1] == (5, 6, CLOSE_ABORTED)


class Load(threading.Thread):
    """Writes until its channel closes; remembers what was acknowledged: seq → host."""

    def __init__(self, writer, workspace, durable):
        super().__init__(daemon=True)
        self.writer, self.workspace, self.durable = writer, workspace, durable
        self.acked, self.sent, self.refused = {}, 0, 0

    def run(self):
        waiting = {}
        while True:
            try:
                while len(waiting) < 8:
                    hosts = [f"h{self.workspace}-{self.sent + i}.example" for i in range(random.randrange(1, 60))]
                    self.sent += len(hosts)
                    waiting[self.writer.send([record_open(self.workspace, host=h) for h in hosts], self.durable)] = hosts
                txn, ack = self.writer.receive()
            except OSError:
                return
            if not ack:
                return
            hosts = waiting.pop(txn)
            if ack.code:
                self.refused += 1
                continue
            assert ack.count == len(hosts)
            self.acked.update({ack.first + i: h for i, h in enumerate(hosts)})


def host_of(payload):
    (n,) = struct.unpack("<I", payload[32:36])
    return payload[36:36 + n].decode()


def test_kill_under_load_loses_nothing_acknowledged():
    with Audit(segment_bytes=1 << 20) as audit:
        acked = {}
        for life in range(6):
            audit.start()
            loads = [Load(audit.writer(ROLE_EGRESS, i), i, durable=i % 2 == 0) for i in range(1, 5)]
            for load in loads:
                load.start()
            wait_for("load", lambda: all(len(load.acked) > 300 for load in loads))
            time.sleep(random.random() / 5)
            audit.kill()
            for load in loads:
                load.join(KEEP)
                assert not load.is_alive() and not load.refused
                for seq, host in load.acked.items():
                    assert seq not in acked
                    acked[seq] = host
        records = audit.start().records()
        there = {seq: host_of(p) for seq, kind, p in records if kind == OPEN}
        assert len({r[0] for r in records}) == len(records)
        assert [r[0] for r in records] == sorted(r[0] for r in records)
        missing = [seq for seq, host in acked.items() if there.get(seq) != host]
        assert not missing, f"{len(missing)} of {len(acked)} are gone"
        assert len(list(audit.dir.glob("*.seg"))) > 6


@pytest.fixture
def small_disk():
    where = pathlib.Path(tempfile.mkdtemp(prefix="iron-test-audit-", dir="/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=755", "iron-test", where], check=True)
    yield where
    subprocess.run(["umount", where], check=True)
    where.rmdir()


def test_a_full_disk(small_disk):
    with Audit(small_disk, segment_bytes=1 << 20) as audit:
        audit.start()
        worker, control = audit.writer(ROLE_EGRESS, 1), audit.writer(ROLE_CONTROL, 0)
        acked, ack = 0, None
        batch = [record_open(path="/" + "p" * 900) for _ in range(50)]
        while acked < 50000:
            ack = worker.write(batch)
            if ack.code:
                break
            acked += 50
        assert ack.code == -ENOSPC
        # guests stop before the record does: the acts of people still go into what is left
        assert control.write([record_event()], durable=True).code == 0
        # nothing of what was refused is there, all of what was not is
        assert sum(r[1] == OPEN for r in audit.records()) == acked
        assert audit.ping() == 0
        # until that is full as well
        codes = set()
        for _ in range(20000):
            codes.add(control.write([record_event()] * 20).code)
            if -ENOSPC in codes:
                break
        assert codes == {0, -ENOSPC}
        # somebody makes room: it goes on by itself
        (small_disk / "audit" / f"{1:020d}.seg").unlink()
        (small_disk / "audit" / f"{2:020d}.seg").unlink()
        wait_for("room", lambda: control.write([record_event()], durable=True).code == 0)
        wait_for("room", lambda: worker.write([record_open()]).code == 0)
        assert worker.write([record_open()], durable=True).code == 0


def test_a_full_disk_at_the_start(small_disk):
    with Audit(small_disk, segment_bytes=1 << 20) as audit:
        filler = small_disk / "filler"
        filler.write_bytes(b"x" * (11 << 19))
        with pytest.raises(AssertionError):
            audit.start()
        assert audit.process.wait(KEEP) == 1
        filler.unlink()
        audit.start()
        assert audit.writer().write([record_open()], durable=True).code == 0


def test_durable_batches_share_syncs(tmp_path):
    """400 durable batches at once on a disk that takes 50 ms a sync: one sync each would take 20 s."""
    with Audit(LD_PRELOAD=disk_shim(tmp_path), SHIM_SYNC_MS="50") as audit:
        control = audit.start().writer(ROLE_CONTROL, 0)
        start = time.monotonic()
        for _ in range(400):
            control.send([record_event()], durable=True)
        assert [control.receive()[1].code for _ in range(400)] == [0] * 400
        assert 0.04 < time.monotonic() - start < 5


def test_who_does_not_ask_for_the_disk_does_not_wait(tmp_path):
    with Audit(LD_PRELOAD=disk_shim(tmp_path), SHIM_SYNC_MS="4000", segment_bytes=4 << 20) as audit:
        control, worker = audit.start().writer(ROLE_CONTROL, 0), audit.writer()
        control.send([record_event()], durable=True)
        start = time.monotonic()
        for _ in range(200):
            assert worker.write([record_open()]).code == 0
        assert time.monotonic() - start < 3.5
        assert control.receive()[1].code == 0
        assert time.monotonic() - start > 3.5


def test_a_sync_that_fails_is_told_and_passed(tmp_path):
    """EIO: whoever waited is told, the journal goes on in a new segment, and no number is given twice."""
    with Audit(LD_PRELOAD=disk_shim(tmp_path), SHIM_FAIL_FROM="2", SHIM_FAIL_TO="3", sync_ms=1000) as audit:
        control = audit.start().writer(ROLE_CONTROL, 0)
        acks = [control.write([record_event()], durable=True) for _ in range(8)]
        codes = [ack.code for ack in acks]
        assert -EIO in codes and codes[-1] == 0 and set(codes) == {0, -EIO}
        good = [ack.first for ack in acks if ack.code == 0]
        assert good == sorted(set(good))
        records = audit.records()
        assert {seq for seq, _, _ in records} >= set(good)
        assert len([p for p in audit.dir.iterdir() if p.read_bytes()[:8] == b"IRONSEG1"]) > 1


def test_a_quiet_journal_is_synced_in_time(audit):
    """Without anyone asking, a record is on the disk within the interval: fdatasync is seen to be called."""
    worker = audit.writer()
    io = pathlib.Path(f"/proc/{audit.process.pid}/task")
    threads = [t for t in io.iterdir() if int(t.name) != audit.process.pid]
    assert len(threads) == 1

    def turns():
        return sum(int(line.split()[1]) for line in (threads[0] / "status").read_text().splitlines() if "ctxt_switches" in line)

    time.sleep(0.3)
    before = turns()
    time.sleep(0.3)
    assert turns() <= before + 1  # idle: it sleeps
    worker.write([record_open()])
    wait_for("the sync", lambda: turns() > before + 1, 2)


def test_the_walls(audit):
    """Its own uid, no capability, a filter, and no way to another file."""
    status = pathlib.Path(f"/proc/{audit.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Uid"].split() == [str(UID)] * 4
    assert int(fields["CapEff"], 16) == 0 and fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"
    for segment in audit.dir.iterdir():
        st = segment.stat()
        assert (st.st_uid, st.st_mode & 0o777) == (UID, 0o600)


def test_it_ends_with_irond(audit):
    worker = audit.writer()
    ack = worker.write([record_open()])
    audit.stop()
    assert worker.receive() == (0, None)
    # the worker may live on: what it has open is the next life's to end
    assert ack.first not in closes(audit.records())


def test_segments_are_sealed_and_made_ahead(audit):
    worker = audit.writer()
    for _ in range(40):
        assert worker.write([record_open(path="/" + "p" * 900)] * 60).code == 0
    segments = sorted(audit.dir.iterdir())
    assert len(segments) >= 3
    wait_for("the next", lambda: len(sorted(audit.dir.iterdir())[-1].read_bytes().strip(b"\0")) == 0)
    wait_for("sealing", lambda: sorted(audit.dir.iterdir())[0].stat().st_size < 1 << 20)
    assert sorted(audit.dir.iterdir())[-1].stat().st_blocks * 512 >= 1 << 20
