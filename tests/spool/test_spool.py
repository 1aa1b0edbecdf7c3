"""One signal's batches on disk: order, acknowledgement, adoption, limits, and disks that say no."""

import errno
import logging
import os
import random

import pytest

from fakes.batches import batch
from fakes.spools import KIB, Process
from surgetank.model import HeldBatch, Lane, Signal
from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing.filesystem import Fault


def test_what_was_stored_is_leased_oldest_first():
    """First in, first out."""
    process = Process()
    for name in ("a", "b", "c"):
        process.spill(name)

    assert process.drain() == ["a", "b", "c"]


def test_critical_batches_are_leased_first():
    """They are the dearest."""
    process = Process()
    process.spill("normal")
    process.spill("critical", lane=Lane.CRITICAL)

    assert process.drain() == ["critical", "normal"]


def test_a_leased_batch_is_what_was_stored():
    """Body, items, lane, raw size, encoding and the time of sealing."""
    process = Process()
    process.spill("a", 3, size=500)

    held = process.lease()

    assert held.batch.body == b"a" * 500
    assert held.batch.items == 3
    assert held.batch.signal is Signal.SPANS
    assert held.batch.encoding == "identity"


def test_a_batch_in_memory_is_not_leased_from_disk():
    """Or it would be sent twice."""
    process = Process()
    process.append("held")

    assert process.lease() is None


def test_a_released_batch_waits_again():
    """With the attempts that were made."""
    process = Process()
    process.spill("a")
    held = process.lease()
    held.attempts = 7

    assert process.spool.release(held.record, held)

    again = process.lease()
    assert again.batch.id == "a"
    assert again.batch.body
    assert again.attempts == 7


def test_a_segment_that_is_done_is_emptied():
    """What the kernel has not written yet, it need never write."""
    process = Process()
    records = [process.append(name) for name in "abc"]
    (path,) = process.segments()
    full = len(process.filesystem.files[path].data)

    for record in records:
        process.spool.ack(record)

    assert process.filesystem.size_of(path) < full
    assert process.disk.folder.used_bytes == process.filesystem.size_of(path)
    process.spill("d")
    assert process.drain() == ["d"]


def test_a_sealed_segment_that_is_done_is_removed():
    """Eight records a segment here."""
    process = Process()
    records = [process.append(str(n)) for n in range(9)]
    assert len(process.segments()) == 2

    for record in records[:8]:
        process.spool.ack(record)

    assert len(process.segments()) == 1


def test_segments_are_removed_in_order():
    """A missing number would be taken for a loss."""
    process = Process()
    records = [process.append(str(n)) for n in range(17)]
    assert len(process.segments()) == 3

    for record in records[8:16]:
        process.spool.ack(record)
    assert len(process.segments()) == 3
    for record in records[:8]:
        process.spool.ack(record)
    assert len(process.segments()) == 1


def test_the_next_process_adopts_what_a_dead_one_left():
    """In the order in which it was stored, and counted."""
    process = Process()
    for n in range(20):
        process.append(str(n), 2)
    heir = Process(process.die(), process.clock)

    heir.adopt()

    assert heir.recovered == 40
    assert heir.drain() == [str(n) for n in range(20)]
    assert heir.lost == {}
    assert heir.segments() == []


def test_what_was_acknowledged_before_the_crash_is_not_sent_again():
    """In any order."""
    process = Process()
    records = [process.append(str(n), 2) for n in range(20)]
    for n in (0, 3, 4, 11, 19):
        process.spool.ack(records[n])
    heir = Process(process.die(), process.clock)

    heir.adopt()

    assert heir.recovered == 30
    assert heir.drain() == [str(n) for n in range(20) if n not in (0, 3, 4, 11, 19)]


def test_a_living_owners_folder_is_left_alone():
    """The lock says so."""
    process = Process()
    process.spill("a")
    sibling = Process(process.filesystem, process.clock)

    sibling.adopt()

    assert sibling.recovered == 0
    assert process.drain() == ["a"]


def test_an_orphan_is_adopted_by_exactly_one():
    """The lock decides."""
    process = Process()
    process.spill("a")
    filesystem = process.die()
    heirs = [Process(filesystem, process.clock) for _ in range(3)]

    for heir in heirs:
        heir.adopt()

    assert [heir.recovered for heir in heirs] == [1, 0, 0]


def test_an_heirs_heir_goes_on_where_it_stopped():
    """What the first one delivered is not delivered again."""
    process = Process()
    for n in range(10):
        process.spill(str(n))
    heir = Process(process.die(), process.clock)
    heir.adopt()
    for _ in range(4):
        heir.spool.ack(heir.lease().record)
    second = Process(heir.die(), process.clock)

    second.adopt()

    assert second.recovered == 6
    assert second.drain() == [str(n) for n in range(4, 10)]


def test_a_forked_child_touches_nothing_of_its_living_parents():
    """Neither adopts it, nor removes it, whichever way it ends."""
    parent = Process()
    parent.spill("parents")

    child = parent.fork()
    child.adopt()
    child.spill("childs")
    child.disk.close()

    assert child.recovered == 0
    assert parent.drain() == ["parents"]


def test_an_orderly_end_leaves_nothing_behind_but_what_waits():
    """An empty folder is removed, a full one can be adopted at once."""
    process = Process()
    record = process.append("a")
    process.spool.ack(record)
    process.disk.close()
    assert process.filesystem.names("/spool") == []

    process = Process(process.filesystem, process.clock)
    process.spill("b")
    process.disk.close()
    heir = Process(process.filesystem, process.clock)
    heir.adopt()

    assert heir.drain() == ["b"]


def test_over_the_limit_the_oldest_normal_segments_go():
    """Counted in items, critical ones last."""
    process = Process(max_bytes=256 * KIB)
    process.spill("dear", lane=Lane.CRITICAL)
    for n in range(40):
        process.spill(str(n), 5, size=8 * KIB)
    process.note()

    assert process.disk.folder.used_bytes <= 256 * KIB
    left = process.drain()
    assert left[0] == "dear"
    assert left[1:] == [str(n) for n in range(40 - len(left) + 1, 40)]
    assert process.lost == {"spool_full": 5 * (40 - len(left) + 1)}


def test_a_normal_newcomer_displaces_no_critical_batch():
    """It stays in memory instead."""
    process = Process(max_bytes=256 * KIB)
    while (
        process.spill("dear", size=8 * KIB, lane=Lane.CRITICAL) is not None
        and process.disk.folder.used_bytes < 230 * KIB
    ):
        pass
    process.note()

    assert process.append("plain", size=30 * KIB) is None
    assert process.lost == {}


def test_siblings_share_the_limit():
    """One uses what the others do not, and gives it back when they need their equal part."""
    first = Process(max_bytes=512 * KIB)
    for n in range(60):
        first.spill(str(n), size=8 * KIB)
    second = Process(first.filesystem.process(), first.clock, max_bytes=512 * KIB)
    second.spill("x")
    first.adopt()
    assert first.disk.folder.share_bytes == 256 * KIB
    assert first.disk.folder.used_bytes > 300 * KIB
    assert first.lost == {}

    for n in range(20):
        second.spill(str(n), size=8 * KIB)
    first.adopt()

    both = [process.disk.folder.used_bytes for process in (first, second)]
    assert sum(both) <= 512 * KIB
    assert both[0] >= 256 * KIB
    assert (first.lost.keys(), second.lost) == ({"spool_full"}, {})


def test_what_is_too_old_goes():
    """Counted as expired."""
    process = Process(max_age=3600.0)
    process.spill("old", 4)
    process.clock.advance(3600 + 601)
    process.spill("new")

    process.spool.expire(process.clock.now())
    process.note()

    assert process.lost == {"expired": 4}
    assert process.drain() == ["new"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_says_no_is_asked_again_later(number, caplog):
    """One line at the beginning, one at the end; nothing is raised."""
    caplog.set_level(logging.WARNING, "surgetank.spool")
    process = Process()
    process.filesystem.faults.append(Fault("write", error=number, times=1, torn=0.5))

    assert process.append("a") is None
    assert process.append("b") is None
    process.clock.advance(6)
    assert process.append("c") is not None

    assert len(caplog.records) == 2
    assert "nothing more is stored" in caplog.text
    assert "written again" in caplog.text


def test_half_a_record_of_a_full_disk_is_written_over():
    """And costs nothing after a crash."""
    process = Process()
    process.spill("a")
    process.filesystem.faults.append(Fault("write", error=errno.ENOSPC, times=1, torn=0.5))
    process.append("lost")
    process.clock.advance(6)
    process.spill("b")
    heir = Process(process.die(), process.clock)

    heir.adopt()

    assert heir.drain() == ["a", "b"]
    assert heir.lost == {}


def test_acks_need_no_room():
    """Their slots were taken when the segment was made."""
    process = Process()
    records = [process.append(str(n)) for n in range(4)]
    process.filesystem.free = 0

    process.spool.ack(records[1])
    heir = Process(process.die(), process.clock)
    heir.adopt()

    assert heir.drain() == ["0", "2", "3"]


def test_below_the_reserve_nothing_is_stored():
    """The volume is not ours alone."""
    process = Process(reserve_bytes=1024 * KIB)
    process.filesystem.free = 512 * KIB

    assert process.append("a") is None


def test_a_folder_that_cannot_be_made_is_no_error():
    """Memory only, until it can."""
    process = Process()
    process.filesystem.faults.append(Fault("make_folder", error=errno.EACCES, times=1))

    assert process.append("a") is None
    process.clock.advance(6)
    assert process.append("b") is not None


def test_a_failed_sync_is_never_retried_on_the_same_file():
    """The kernel would say yes without having written anything."""
    process = Process(durability="disk")
    first = process.append("a")
    process.filesystem.faults.append(Fault("sync", times=1, path=".segment"))

    process.spool.sync()

    assert first.is_durable
    assert first.segment.path.endswith("0000000002.segment")
    process.filesystem.lose_power(random.Random(0))
    heir = Process(process.filesystem, process.clock)
    heir.adopt()
    assert heir.drain() == ["a"]


def test_a_batch_is_durable_only_after_the_sync():
    """With durability `disk`; with `os` it is at once."""
    process = Process(durability="disk")
    record = process.append("a")
    assert not record.is_durable

    process.spool.sync()

    assert record.is_durable
    assert Process().append("b").is_durable


def test_parts_are_stored_before_the_whole_is_done():
    """A crash in between repeats, and loses nothing."""
    process = Process()
    record = process.append("whole", 2)

    process.spool.replace(record, [batch(1, name="wholea"), batch(1, name="wholeb")])
    heir = Process(process.die(), process.clock)
    heir.adopt()

    assert heir.drain() == ["wholea", "wholeb"]


def test_reading_stops_where_there_is_no_room():
    """Replay holds no more in memory than it is allowed."""
    process = Process()
    process.spill("a")

    assert process.spool.lease(0.0, lambda items, size: False) is None
    assert process.drain() == ["a"]


def test_a_batch_that_was_set_aside_is_passed_over():
    """Until its time comes."""
    process = Process()
    process.spill("a")
    process.spill("b")
    held = process.lease()
    held.attempts, held.due_at = 3, process.clock.monotonic() + 10
    process.spool.release(held.record, held)

    assert process.lease().batch.id == "b"
    process.clock.advance(10)
    assert process.lease().batch.id == "a"


def test_the_folders_own_name_survives_the_loss_of_power():
    """A batch that is durable is not lost with the name of a folder that it lies below."""
    process = Process(durability="disk", path="/home/user/state/spool")
    process.append("a")
    process.spool.sync()

    for seed in range(20):
        process.filesystem.lose_power(random.Random(seed))
    heir = Process(process.filesystem, process.clock, path="/home/user/state/spool")
    heir.adopt()

    assert heir.drain() == ["a"]


def test_a_part_that_the_disk_did_not_take_cannot_wait_there_alone():
    """Memory is told to keep it, and nothing is raised."""
    process = Process()
    whole = process.append("whole", 2)
    process.filesystem.faults.append(Fault("write"))
    remainder, other = process.spool.replace(whole, [batch(1, name="a"), batch(1, name="b")])
    assert other is remainder

    assert not process.spool.release(remainder, HeldBatch(batch=batch(1, name="a"), first_seq=1))

    process.spool.ack(remainder)
    assert not whole.is_done
    process.spool.ack(remainder)
    assert whole.is_done


def test_a_newcomer_beyond_the_limit_stops_nobody_else():
    """What cannot displace anything stays in memory; the disk is not taken to be broken."""
    process = Process(max_bytes=256 * KIB)
    while process.disk.folder.used_bytes < 200 * KIB:
        process.spill("dear", size=8 * KIB, lane=Lane.CRITICAL)
    assert process.append("plain", size=60 * KIB) is None

    assert process.append("dear too", size=8 * KIB, lane=Lane.CRITICAL) is not None


def test_a_segment_that_could_not_be_read_is_tried_again():
    """After a minute."""
    process = Process()
    process.spill("a")
    process.filesystem.faults.append(Fault("read", times=1, path=".segment"))
    assert process.lease() is None
    assert process.lease() is None

    process.clock.advance(61)
    process.spool.expire(process.clock.now())

    assert process.drain() == ["a"]


def test_a_fork_waits_for_what_is_going_on_on_the_disk():
    """Or the child would inherit the lock of a folder that nobody knows it holds."""
    process = Process()
    process.disk.before_fork()
    process.spill("a")
    process.disk.after_fork_in_parent()

    assert process.drain() == ["a"]


def test_a_clock_that_is_put_right_expires_nothing():
    """A machine without a battery begins in 1970."""
    process = Process(max_age=3600.0)
    process.spill("a")
    process.spool.expire(process.clock.now() + 40 * 365 * 86_400)
    process.note()

    assert process.lost == {}
    assert process.drain() == ["a"]


def test_a_folder_that_is_deleted_under_us_is_begun_anew():
    """What was only there is lost, and counted; what is in memory too is not."""
    process = Process()
    process.spill("lost", 3)
    held = process.append("held", 2)
    for path in [path for path in process.filesystem.files if path.startswith("/spool/owner")]:
        process.filesystem.unlink(path)

    process.adopt()

    assert process.lost == {"damaged": 3}
    assert held.is_done
    process.spill("new")
    assert process.drain() == ["new"]
    assert process.disk.folder.used_bytes == sum(process.filesystem.size_of(path) for path in process.segments())


def test_a_folder_in_the_making_is_left_alone_however_often_it_is_seen():
    """Its maker may be between two calls; after a minute it is taken for dead."""
    process = Process()
    process.filesystem.make_folder("/spool/.new-owner-1-abc")
    sibling = Process(process.filesystem, process.clock)
    for _ in range(5):
        sibling.adopt()
    assert ".new-owner-1-abc" in process.filesystem.names("/spool")

    process.clock.advance(61)
    sibling.adopt()

    assert ".new-owner-1-abc" not in process.filesystem.names("/spool")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.ENOLCK, errno.EMFILE, errno.ETIMEDOUT])
def test_a_folder_that_cannot_be_looked_at_is_not_taken_for_deleted(number):
    """Only a name that is gone, or is another's, means that: all else passes, and what is there is still ours."""
    process = Process()
    process.spill("a", 3)
    before = process.segments()
    process.filesystem.faults.append(Fault("lstat", number, times=2, path="lock"))

    process.adopt()
    process.adopt()

    assert (process.lost, process.recovered) == ({}, 0)
    process.spill("b", 2)
    assert process.segments() == before
    assert process.drain() == ["a", "b"]


def test_a_lock_whose_descriptor_the_application_has_closed_is_taken_again():
    """Daemons close every descriptor; a sibling that looked now would take us for dead."""
    process = Process()
    process.spill("a", 3)
    process.disk.folder._own.lock.close()

    process.adopt()

    sibling = Process(process.filesystem.process(), process.clock)
    sibling.adopt()
    assert (sibling.recovered, process.recovered, process.lost) == (0, 0, {})
    assert process.drain() == ["a"]


def descriptors():
    """Return the numbers of this process's open files, without that of the listing itself."""
    return {int(number) for number in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{number}")}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are listed in /proc")
def test_a_daemon_that_closes_every_descriptor_finds_nothing_of_ours_in_its_files(tmp_path):
    """The numbers of our segment and of our lock are those of its own files afterwards."""
    before = descriptors()
    process = Process(OsFilesystem(), path=str(tmp_path / "spool"))
    process.spill("a", 3)
    numbers = descriptors() - before
    assert len(numbers) == 2
    for number in numbers:
        os.close(number)
    theirs = [os.open(tmp_path / f"application-{number}", os.O_RDWR | os.O_CREAT) for number in numbers]
    assert set(theirs) == numbers

    process.spill("b", 2)
    process.adopt()
    sibling = Process(OsFilesystem(), path=str(tmp_path / "spool"))
    sibling.adopt()
    assert sibling.recovered == 0
    assert process.drain() == ["a", "b"]
    process.disk.close()

    assert [os.fstat(number).st_size for number in theirs] == [0, 0]
    for number in theirs:
        os.close(number)
