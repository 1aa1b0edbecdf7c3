"""Many orphans, few descriptors, and a limit that is the folder's: nothing that fits is given up, and everything is delivered."""

import errno
import itertools

import pytest

from fakes.spools import KIB, Process
from surgetank.spool.folder import ADOPT_AGAIN, ORPHANS_MAX, RETRY_INTERVAL
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import Fault, MemoryFilesystem


def leave(disk, clock, processes, batches=1, *, size=100, **settings):
    """Have processes store batches and die; return the names of the batches."""
    names = []
    for process in range(processes):
        one = Process(disk.process(), clock, **settings)
        for number in range(batches):
            names.append(f"{process}-{number}")
            assert one.spill(names[-1], size=size) is not None
        one.die()
    return names


def drain(*heirs):
    """Have heirs deliver and adopt in turn, as the keeper has them, until nothing is left; return what was sent."""
    sent = []
    for _ in range(1000):
        found = [name for heir in heirs for name in heir.drain()]
        sent += found
        for heir in heirs:
            heir.clock.advance(1.0 / len(heirs))
            heir.adopt()
        if not found and not any(heir.disk.folder.waiting for heir in heirs):
            return sent
    raise AssertionError("it never came to an end")


@pytest.mark.parametrize("orphans", [1, ORPHANS_MAX, ORPHANS_MAX + 1, 150])
@pytest.mark.parametrize("heirs", [1, 3])
def test_however_many_orphans_there_are_each_heir_holds_a_few_descriptors(orphans, heirs):
    """All is delivered once; those that have to wait for their turn are known to wait."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, orphans)
    living = [Process(disk.process(), clock) for _ in range(heirs)]

    living[0].adopt()

    assert len(disk._disk.open) <= ORPHANS_MAX + 1
    assert living[0].disk.folder.waiting == max(0, orphans - ORPHANS_MAX)
    assert sorted(drain(*living)) == sorted(names)
    assert [heir.lost for heir in living] == [{}] * heirs
    assert sum(heir.recovered for heir in living) == orphans
    assert disk.names("/spool") == []


@pytest.mark.parametrize(("killed", "heirs"), [(3, 3), (5, 1), (4, 4), (15, 1), (40, 2)])
def test_nothing_is_given_up_while_the_folder_is_under_its_limit(killed, heirs):
    """A survivor that adopts everything is far above its own part, and the folder is not above its limit."""
    disk, clock = MemoryFilesystem(), ManualClock()
    settings = {"max_bytes": 4096 * KIB, "segment_bytes": 32 * KIB}
    siblings = [Process(disk.process(), clock, **settings) for _ in range(killed + heirs)]
    names = []
    for number in range(3400 * KIB // (8 * KIB) // len(siblings)):
        for place, each in enumerate(siblings):
            names.append(f"{place}-{number}")
            assert each.spill(names[-1], size=8 * KIB) is not None
    for each in siblings[:killed]:
        each.die()
    survivors = siblings[killed:]

    for each in survivors:
        each.adopt()
        each.adopt()
    # A few more, within the limit and with no time for another look.
    for number in range(10):
        names.append(f"more-{number}")
        assert survivors[number % heirs].spill(names[-1], size=8 * KIB) is not None

    assert [each.lost for each in survivors] == [{}] * heirs
    assert sum(len(inode.data) for path, inode in disk.files.items()) <= 4096 * KIB
    assert sorted(drain(*survivors)) == sorted(names)


def test_the_folder_stays_under_its_limit_when_everybody_writes():
    """Each goes on writing what is far more than fits; each keeps at least its part, but for what its last look missed."""
    disk, clock = MemoryFilesystem(), ManualClock()
    settings = {"max_bytes": 1024 * KIB, "segment_bytes": 16 * KIB}
    siblings = [Process(disk.process(), clock, **settings) for _ in range(4)]
    for number in range(150):
        for each in siblings[: 1 + number // 30]:
            each.spill(str(number), size=4 * KIB)
        if number % 5 == 0:
            clock.advance(1.0)
            for each in siblings:
                each.adopt()

    used = [each.disk.folder.used_bytes for each in siblings]
    assert sum(used) <= (1024 + 4 * 5 * 4) * KIB
    assert min(used) >= 200 * KIB


def test_orphans_over_a_limit_that_was_lowered_give_way_before_what_is_new():
    """The oldest goes first, although most of them wait to be adopted; and it is counted."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 100, 4, size=8 * KIB)
    heir = Process(disk.process(), clock, max_bytes=512 * KIB)
    for _ in range(60):
        clock.advance(1.0)
        heir.adopt()
    assert heir.spill("new", size=8 * KIB) is not None

    assert sum(len(inode.data) for inode in disk.files.values()) <= 512 * KIB
    sent = drain(heir)
    assert "new" in sent
    assert len(sent) + heir.lost["spool_full"] == len(names) + 1
    assert len(sent) * 8 * KIB > 300 * KIB


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("operation", ["open", "names", "rename"])
def test_without_descriptors_nobody_is_taken_for_living_or_for_dead(number, operation):
    """The application has used them up; it is tried again after a while, and not at each look."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 5)
    heir = Process(disk.process(), clock)
    disk.faults.append(Fault(operation, number, times=3))

    heir.adopt()
    heir.adopt()
    assert (heir.disk.folder.owners, heir.lost) == (1, {})
    assert disk.faults[0].times >= 1

    for _ in range(4):
        clock.advance(RETRY_INTERVAL)
        heir.adopt()
    clock.advance(ADOPT_AGAIN)
    heir.adopt()
    assert sorted(heir.drain()) == sorted(names)
    assert (heir.recovered, heir.lost) == (5, {})


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ESTALE, errno.ENOLCK, errno.ENOMEM, errno.EMFILE])
@pytest.mark.parametrize("operation", ["open", "read", "names", "rename", "lock", "*"])
def test_an_orphan_that_cannot_be_adopted_now_is_tried_again(number, operation):
    """Whatever the disk had against it: nothing is lost, and nothing is refused for good."""
    for times in range(1, 5):
        disk, clock = MemoryFilesystem(), ManualClock()
        names = leave(disk, clock, 2, 5)
        heir = Process(disk.process(), clock)
        disk.faults.append(Fault(operation, number, times=times))
        sent = []
        for _ in itertools.repeat(None, 5):
            heir.adopt()
            sent += heir.drain()
            clock.advance(ADOPT_AGAIN)
            heir.spool.expire(clock.now())

        assert sorted(sent) == sorted(names), times
        assert (heir.recovered, heir.lost) == (10, {}), times


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("operation", ["lock", "create", "rename", "lstat"])
def test_a_folder_that_cannot_be_made_leaves_no_beginning_behind(number, operation):
    """Where there are no locks it is tried every five seconds, for as long as the process lives."""
    process = Process()
    process.filesystem.faults.append(Fault(operation, number, times=-1))
    for _ in range(10):
        assert process.append("a") is None
        process.clock.advance(RETRY_INTERVAL)

    assert process.filesystem.names("/spool") == []
    process.filesystem.faults.clear()
    assert process.append("a") is not None
