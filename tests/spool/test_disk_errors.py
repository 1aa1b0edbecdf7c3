"""A disk that refuses single calls: nothing is raised, nothing promised is lost, nothing is given up for nothing."""

import errno
import random

import pytest

from fakes.batches import batch
from fakes.spools import KIB, Process
from surgetank.model import Lane
from surgetank.testing.filesystem import Fault


def heir_after_power_loss(process, seed, **changes):
    """Return a process that has adopted what is left."""
    process.filesystem.lose_power(random.Random(seed))
    heir = Process(process.filesystem, process.clock, **changes)
    heir.adopt()
    return heir


def size_on_disk(process):
    """Return the bytes in all segment files."""
    return sum(process.filesystem.size_of(path) for path in process.segments())


@pytest.mark.parametrize("seed", range(8))
def test_a_segment_whose_name_could_not_be_synced_is_not_used(seed):
    """Or what is durable in it would be lost with its name."""
    process = Process(durability="disk")
    process.append("normal")
    process.filesystem.faults.append(Fault("sync_folder"))

    assert process.append("refused", lane=Lane.CRITICAL) is None
    process.clock.advance(6)
    record = process.append("dear", lane=Lane.CRITICAL)
    process.spool.sync()

    assert record.is_durable
    assert process.disk.folder.used_bytes == size_on_disk(process)
    assert "dear" in heir_after_power_loss(process, seed).drain()


@pytest.mark.parametrize("seed", range(8))
def test_what_a_failed_sync_leaves_in_doubt_is_durable_only_after_one_that_wrote_it(seed):
    """However many fail: each time it is written again into another file."""
    process = Process(durability="disk")
    records = [process.append(name) for name in "abc"]
    process.filesystem.faults.append(Fault("sync", times=2))

    process.spool.sync()
    process.spool.sync()
    assert not any(record.is_durable for record in records)
    process.clock.advance(6)
    process.spool.sync()

    assert all(record.is_durable for record in records)
    assert process.spool.available_items() == 0
    assert process.disk.folder.used_bytes == size_on_disk(process)
    assert heir_after_power_loss(process, seed).drain() == ["a", "b", "c"]


@pytest.mark.parametrize("seed", range(8))
def test_what_was_in_doubt_when_its_segment_was_full_is_written_again_too(seed):
    """Nobody syncs that segment any more."""
    process = Process(durability="disk", slots=4)
    records = [process.append(str(n)) for n in range(4)]
    process.filesystem.faults.append(Fault("sync"))
    records.append(process.append("4"))
    process.clock.advance(6)

    process.spool.sync()

    assert all(record.is_durable for record in records if record)
    left = heir_after_power_loss(process, seed, slots=4).drain()
    assert sorted(left) == sorted(str(n) for n, record in enumerate(records) if record)


def test_a_record_that_is_moved_stays_one_even_if_its_old_place_cannot_be_acknowledged():
    """It is in memory, so it must not be leased from disk as well."""
    process = Process(durability="disk")
    records = [process.append(name) for name in "ab"]
    process.filesystem.faults += [Fault("sync"), Fault("write", path="0000000001.segment")]

    process.spool.sync()

    assert process.spool.available_items() == 0
    assert process.lease() is None
    for record in records:
        process.spool.ack(record)
    assert process.spool.available_items() == 0


def test_what_was_in_doubt_and_is_done_is_forgotten():
    """Its file is gone, and the disk is not blamed for it."""
    process = Process(durability="disk")
    record = process.append("a")
    process.filesystem.faults.append(Fault("sync", times=2))
    process.spool.sync()
    process.spool.ack(record)
    process.clock.advance(6)
    assert process.append("b") is not None

    process.spool.sync()
    process.spool.sync()

    assert not process.disk.folder.is_down
    assert len(process.segments()) == 1


def test_a_name_that_is_taken_is_passed_over():
    """A segment that could neither be made whole nor removed is in nobody's way."""
    process = Process()
    process.filesystem.faults += [Fault("write", path=".segment"), Fault("unlink", path=".segment")]

    assert process.append("a") is None
    process.clock.advance(6)
    assert process.append("b") is not None

    process.die()
    heir = Process(process.filesystem, process.clock)
    heir.adopt()
    assert heir.drain() == ["b"]
    assert heir.lost == {}
    assert heir.filesystem.names("/spool") == []


def test_a_segment_that_could_not_be_removed_is_removed_later():
    """Or all that come after it would stay as well."""
    process = Process()
    records = [process.append(str(n)) for n in range(24)]
    process.filesystem.faults.append(Fault("unlink"))

    for record in records[:8]:
        process.spool.ack(record)
    assert len(process.segments()) == 3
    assert process.disk.folder.used_bytes == size_on_disk(process)
    for record in records[8:16]:
        process.spool.ack(record)

    assert len(process.segments()) == 1


def test_what_is_done_in_a_segment_that_could_not_be_removed_is_not_repeated():
    """Its head says so."""
    process = Process()
    records = [process.append(str(n)) for n in range(9)]
    process.filesystem.faults.append(Fault("unlink"))
    for record in records[:8]:
        process.spool.ack(record)

    process.die()
    heir = Process(process.filesystem, process.clock)
    heir.adopt()

    assert heir.drain() == ["8"]


def test_a_file_that_somebody_has_removed_blocks_nothing():
    """What was to be removed is gone."""
    process = Process()
    records = [process.append(str(n)) for n in range(17)]
    del process.filesystem.files[process.segments()[0]]

    for record in records[:16]:
        process.spool.ack(record)

    assert len(process.segments()) == 1
    assert process.disk.folder.used_bytes == size_on_disk(process)


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_nothing_is_given_up_on_a_disk_that_removes_nothing(number):
    """It would make no room."""
    process = Process(max_bytes=256 * KIB)
    names = []
    while process.disk.folder.used_bytes < 220 * KIB:
        names.append(str(len(names)))
        assert process.spill(names[-1], size=8 * KIB)
    # A critical newcomer must not take its own kind either.
    process.filesystem.faults += [Fault(each, number, times=-1) for each in ("unlink", "truncate", "write")]

    for lane in Lane:
        for _ in range(3):
            assert process.append("newcomer", size=60 * KIB, lane=lane) is None
            process.clock.advance(6)
    process.disk.adopt_orphans()
    process.note()
    assert process.lost == {}

    process.filesystem.faults.clear()
    assert process.drain() == names


def test_nothing_expires_on_a_disk_that_removes_nothing():
    """It is tried again."""
    process = Process(max_age=60.0)
    process.spill("a")
    process.clock.advance(3600)
    process.filesystem.faults += [Fault(each, errno.EROFS, times=-1) for each in ("unlink", "truncate", "write")]

    process.spool.expire(process.clock.now())
    process.note()
    assert process.lost == {}

    process.filesystem.faults.clear()
    process.spool.expire(process.clock.now())
    process.note()
    assert process.lost == {"expired": 1}
    assert process.lease() is None


def test_what_is_left_of_a_record_is_cut_off_before_the_next_one():
    """Even if that could not be done at once: the file is as long as is said."""
    process = Process()
    process.append("a")
    process.filesystem.faults += [Fault("write", torn=0.9), Fault("truncate")]

    assert process.append("long", size=4000) is None
    process.clock.advance(6)
    assert process.append("b", size=10) is not None

    assert process.disk.folder.used_bytes == size_on_disk(process)
    process.die()
    heir = Process(process.filesystem, process.clock)
    heir.adopt()
    assert heir.drain() == ["a", "b"]
    assert heir.lost == {}


def test_an_ack_that_comes_after_the_end_touches_nothing():
    """What it is about may have been adopted."""
    process = Process()
    for n in range(3):
        process.spill(str(n))
    process.die()
    first = Process(process.filesystem.process(), process.clock)
    first.adopt()
    leases = [first.lease() for _ in range(3)]
    first.disk.close()
    second = Process(process.filesystem.process(), process.clock)
    second.adopt()

    for held in leases:
        first.spool.ack(held.record)

    assert first.spool.append(batch()) is None
    assert second.recovered == 3
    assert second.drain() == ["0", "1", "2"]
    assert second.lost == {}


def test_a_child_that_settles_its_parents_record_touches_nothing():
    """Even where the file has been closed and would be opened again."""
    parent = Process()
    for n in range(9):
        parent.spill(str(n))
    parent.leases = [parent.lease(), parent.lease()]
    # As `unload` does for a segment of which nothing is in flight.
    parent.leases[0].record.segment.close()
    child = parent.fork()

    child.spool.ack(child.leases[0].record)
    assert not child.spool.release(child.leases[1].record, child.leases[1])
    child.spool.replace(child.leases[1].record, [])

    assert child.filesystem.calls == []
    for held in parent.leases:
        parent.spool.release(held.record, held)
    assert parent.drain() == [str(n) for n in range(9)]


def test_the_folder_that_a_sweeper_took_away_is_made_again():
    """A maker that sleeps between two steps finds somebody else's lock, or no folder, and raises nothing."""
    process = Process()
    filesystem, sibling = process.filesystem, process.filesystem.process()
    create, thief = filesystem.create, []

    def create_slowly(path):
        file = create(path)
        if path.endswith("lock") and not thief:
            thief.append(sibling.open(path))
            assert thief[0].try_lock()
        return file

    filesystem.create = create_slowly
    assert process.append("a") is None
    process.clock.advance(6)
    assert process.append("b") is not None


def test_a_folder_whose_lock_is_swept_away_under_its_maker_is_not_used():
    """Others would take it for an orphan's."""
    process = Process()
    filesystem = process.filesystem
    rename = filesystem.rename

    def rename_too_late(old, new):
        filesystem.rename = rename
        filesystem.unlink(f"{old}/lock")
        rename(old, new)

    filesystem.rename = rename_too_late
    assert process.append("a") is None
    process.clock.advance(6)
    assert process.append("b") is not None
    sibling = Process(filesystem.process(), process.clock)
    sibling.adopt()
    assert sibling.recovered == 0


def test_an_empty_folder_that_its_owner_did_not_come_to_remove_is_no_living_process():
    """Or it would halve the others' share, and cost them what they have stored."""
    process = Process(max_bytes=256 * KIB)
    while process.disk.folder.used_bytes < 200 * KIB:
        process.spill("x", size=8 * KIB)
    process.filesystem.make_folder("/spool/owner-1-abc")

    process.adopt()

    assert process.disk.folder.owners == 1
    assert process.lost == {}
