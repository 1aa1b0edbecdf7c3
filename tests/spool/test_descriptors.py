"""How many files the spool has open: a few, whatever waits, whatever fails, and whatever was tried before."""

import errno

import pytest

from fakes.spools import KIB, Process
from surgetank.model import Lane
from surgetank.spool.folder import ADOPT_AGAIN, ORPHANS_MAX, RETRY_INTERVAL
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import Fault, MemoryFilesystem

# The own lock, and an open segment for each lane of the one signal.
OWN = 1 + len(Lane)


def leave(disk, clock, processes, batches=1, *, is_killed=True, **settings):
    """Have processes store batches, four a segment, and end; return the names of the batches."""
    names = []
    for process in range(processes):
        one = Process(disk.process(), clock, slots=4, **settings)
        for number in range(batches):
            names.append(f"{process}-{number}")
            assert one.spill(names[-1]) is not None
        if is_killed:
            one.die()
        else:
            one.disk.close()
    return names


def is_open(process):
    """Return how many files are open."""
    return len(process.filesystem._disk.open)


def set_aside(process, count):
    """Lease that many batches, one after the other, each of which fails and is to be tried again later; return their names."""
    names = []
    for _ in range(count):
        held = process.lease()
        held.attempts += 1
        held.due_at = process.clock.monotonic() + 10.0
        names.append(held.batch.id)
        assert process.spool.release(held.record, held)
    return names


@pytest.mark.parametrize("is_killed", [True, False])
def test_batches_that_were_tried_and_set_aside_hold_no_file_open(is_killed):
    """A receiver that times out on each has every batch of a backlog tried once; each may be in a segment of its own."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 1, 400, is_killed=is_killed)
    heir = Process(disk, clock)
    heir.adopt()

    assert set_aside(heir, 400) == names
    assert is_open(heir) <= 1 + OWN
    clock.advance(10.0)
    assert heir.drain() == names


def test_our_own_batches_that_were_tried_and_set_aside_hold_no_file_open():
    """The same, of a process that has stored them itself."""
    process = Process(slots=4)
    for number in range(400):
        process.spill(str(number))
    set_aside(process, 400)

    assert is_open(process) <= OWN
    process.clock.advance(10.0)
    assert len(process.drain()) == 400


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_segments_that_cannot_be_sealed_when_they_are_adopted_are_not_left_open(number):
    """On a volume that writes elsewhere what is written over, even that needs room: its quota may be used up."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 40, 2)
    heir = Process(disk, clock)
    disk.faults.append(Fault("write", number, times=-1))
    heir.adopt()
    assert is_open(heir) <= ORPHANS_MAX
    disk.faults.clear()

    sent = heir.drain()
    clock.advance(RETRY_INTERVAL)
    heir.adopt()
    assert sorted(sent + heir.drain()) == sorted(names)
    assert (heir.recovered, heir.lost) == (80, {})


def test_a_disk_that_never_syncs_does_not_use_up_the_descriptors():
    """Each failed sync has another segment begun; there may be hundreds until the disk is mended."""
    process = Process(durability="disk")
    process.filesystem.faults.append(Fault("sync", errno.EIO, times=-1))
    stored = 0
    for number in range(300):
        stored += process.append(str(number)) is not None
        process.spool.sync()
        process.clock.advance(RETRY_INTERVAL)

    assert stored > 100
    assert is_open(process) <= OWN


def test_a_lost_segment_in_each_of_many_folders_leaves_no_file_open():
    """What is missing is noted in the segment after it, which is opened for that."""
    disk, clock = MemoryFilesystem(), ManualClock()
    leave(disk, clock, 20, 12)
    for path in [path for path in disk.files if path.endswith("0000000002.segment")]:
        del disk.files[path]
    heir = Process(disk, clock)
    heir.adopt()

    assert heir.lost == {"damaged": 20 * 4}
    assert is_open(heir) <= 20


def test_dropping_the_oldest_at_the_limit_holds_no_file_open():
    """Every segment is given up in its turn."""
    process = Process(slots=4, max_bytes=256 * KIB)
    for number in range(1000):
        process.spill(str(number), size=4 * KIB)

    assert process.lost or process.spool.changes().lost
    assert is_open(process) <= OWN


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_what_waits_is_read_again_soon_after_the_descriptors_have_come_back(number):
    """It says nothing of any segment that there was no descriptor; none is set aside for a minute, and not a line for each."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 5, 40)
    heir = Process(disk, clock)
    heir.adopt()
    disk.faults.append(Fault("open", number, times=-1))
    before = len(heir.disk.folder._lines)
    for _ in range(20):
        assert heir.lease() is None
    assert heir.spool.has_available
    assert "descriptor" in heir.spool.stalled
    assert len(heir.disk.folder._lines) == before
    assert not heir.spool.is_down

    disk.faults.clear()
    clock.advance(RETRY_INTERVAL)
    assert sorted(heir.drain()) == sorted(names)
    assert heir.spool.stalled == ""
    assert ADOPT_AGAIN > RETRY_INTERVAL
