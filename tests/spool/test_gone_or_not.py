"""What was deleted under us, and what only cannot be seen: the one is counted and let go of, the other kept and tried again."""

import errno

import pytest

from fakes.spools import KIB, Process
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.folder import ADOPT_AGAIN, RETRY_INTERVAL
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import Fault, MemoryFilesystem


def leave(disk, clock, batches, **settings):
    """Have a process store batches, four a segment, and die; return their names."""
    one = Process(disk.process(), clock, slots=4, **settings)
    names = [str(number) for number in range(batches)]
    for name in names:
        assert one.spill(name) is not None
    one.die()
    return names


class _Untried:
    attempts = 0
    is_attempted = False


def pass_time(process, seconds=ADOPT_AGAIN):
    process.clock.advance(seconds)
    process.spool.expire(process.clock.now())
    process.adopt()


@pytest.mark.parametrize("is_adopted", [True, False])
def test_a_segment_that_somebody_deletes_is_counted_and_blocks_nothing(is_adopted):
    """A clean-up of old files takes some and not all; what is left is delivered, and what comes is stored."""
    disk, clock = MemoryFilesystem(), ManualClock()
    if is_adopted:
        names = leave(disk, clock, 12)
        process = Process(disk, clock, slots=4)
        process.adopt()
    else:
        process = Process(disk, clock, slots=4)
        names = [str(number) for number in range(12)]
        for name in names:
            process.spill(name)
    del disk.files[process.segments()[1]]

    sent = process.drain()
    assert sent == names[:4] + names[8:]
    assert process.lost == {"damaged": 4}
    assert not process.spool.is_down
    assert process.append("new") is not None
    assert process.spool.stalled == ""
    pass_time(process)
    assert process.lost == {"damaged": 4}


def test_a_segment_that_is_deleted_while_one_of_its_batches_is_in_flight_is_counted_once():
    """That one is in memory, and its fate is known; the others of the segment are gone."""
    disk, clock = MemoryFilesystem(), ManualClock()
    leave(disk, clock, 8)
    process = Process(disk, clock, slots=4)
    process.adopt()
    held = process.lease()
    del disk.files[process.segments()[0]]

    # The file was open, so that the next one could still be read.
    assert process.drain() == ["1", "4", "5", "6", "7"]
    assert process.lost == {"damaged": 2}
    # Memory keeps it, since the disk does not have it any more.
    assert not process.spool.release(held.record, held)
    assert process.lost == {"damaged": 2}
    assert (process.spool.available_items(), process.spool.used_bytes) == (0, 0)


def test_an_adopted_folder_that_somebody_deletes_is_counted_and_let_go_of():
    """As our own is; its lock too, and others are adopted in its place."""
    disk, clock = MemoryFilesystem(), ManualClock()
    leave(disk, clock, 8)
    process = Process(disk, clock, slots=4)
    process.adopt()
    for path in [path for path in disk.files if "orphan-" in path]:
        del disk.files[path]
    orphan = next(name for name in disk.names("/spool") if name.startswith("orphan-"))
    disk.remove_folder(f"/spool/{orphan}")

    pass_time(process, 1.0)
    assert process.drain() == []
    process.note()
    assert (process.recovered, process.lost) == (8, {"damaged": 8})
    assert (process.spool.used_bytes, process.disk.folder.used_bytes) == (0, 0)
    assert not process.spool.is_down
    assert disk._disk.open == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE, errno.ENOMEM])
def test_an_adopted_folder_that_cannot_be_seen_is_kept(number):
    """Whatever is said about it, but that it is not there."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 8)
    process = Process(disk, clock, slots=4)
    process.adopt()
    disk.faults.append(Fault("lstat", number, times=-1))
    disk.faults.append(Fault("open", number, times=-1))
    for _ in range(5):
        pass_time(process, 1.0)
        assert process.lease() is None
    disk.faults.clear()
    pass_time(process)

    assert process.drain() == names
    assert (process.recovered, process.lost) == (8, {})


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES, errno.EMFILE, errno.ENOMEM])
@pytest.mark.parametrize("operation", ["open", "read"])
def test_a_segment_that_cannot_be_read_keeps_no_other_from_being_stored_or_sent(operation, number):
    """A disk that reads badly may write well; and health says why what waits is not sent."""
    disk, clock = MemoryFilesystem(), ManualClock()
    process = Process(disk, clock, slots=4)
    names = [str(number) for number in range(12)]
    for name in names:
        process.spill(name)
    disk.faults.append(Fault(operation, number, times=-1, path=process.segments()[1][-10:]))
    disk.faults[0].path = process.segments()[1]

    sent = process.drain()
    assert process.append("new") is not None
    assert not process.spool.is_down
    assert process.spool.stalled
    disk.faults.clear()
    pass_time(process)
    assert sorted(sent + process.drain(), key=int) == names
    assert process.lost == {}
    assert process.spool.stalled == ""


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO])
def test_a_descriptor_of_which_nothing_can_be_told_is_not_taken_for_closed(tmp_path, monkeypatch, number):
    """A server of files that has just started says so of each; only a bad number means that the application has closed it."""
    import os

    filesystem = OsFilesystem()
    file = filesystem.create(str(tmp_path / "file"))

    def fails(_):
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fails)
        assert not file.is_lost()
        with pytest.raises(OSError, match=os.strerror(number)):
            file.is_at(str(tmp_path / "file"))
        with pytest.raises(OSError, match=os.strerror(number)):
            file.write_at(0, b"a")
    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fails)
        file.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


@pytest.mark.parametrize("operation", ["ack", "seal", "sync", "expire", "evict"])
def test_whatever_finds_a_segment_deleted_goes_on_storing(operation):
    """A file that is not there is no fault of the disk's: nothing waits five seconds for it, and it is counted once."""
    process = Process(slots=4, durability="disk" if operation == "sync" else "os", max_age=1000.0, max_bytes=100 * KIB)
    for number in range(10):
        process.spill(str(number))
    held = process.lease()
    doomed = process.segments()[{"seal": 2, "sync": 2, "evict": 1}.get(operation, 0)]
    del process.filesystem.files[doomed]

    if operation == "sync":
        process.filesystem.faults.append(Fault("sync", times=1))
        process.spool.sync()
        process.clock.advance(RETRY_INTERVAL)
    elif operation == "expire":
        process.clock.advance(5000.0)
        process.spool.expire(process.clock.now())
    elif operation == "evict":
        for number in range(30):
            process.spill(f"more-{number}", size=8 * KIB)
    elif operation == "seal":
        for number in range(4):
            process.spill(f"more-{number}")
    process.spool.ack(held.record)

    assert process.append("new") is not None
    process.spool.release(process.append("newer"), _Untried)
    assert not process.spool.is_down
    sent = process.drain()
    assert sent[-1] == "newer"
    assert process.spool.available_items() == 0
    # Whatever was to go anyway has gone.
    assert process.lost.get("damaged", 0) <= 4
    stored = 11 + {"seal": 4, "evict": 30}.get(operation, 0)
    assert len(sent) + sum(process.lost.values()) + 1 == stored


def test_what_is_appended_to_a_file_that_was_deleted_is_soon_known_to_be_lost():
    """Writing to it succeeds; the books shall not say for hours that it is on disk, and what memory has is stored anew."""
    process = Process()
    kept = process.append("kept")
    process.spill("gone")
    del process.filesystem.files[process.segments()[0]]
    pass_time(process, 1.0)

    assert process.lost == {"damaged": 1}
    assert kept.is_deleted
    assert process.append("new") is not None
    assert len(process.segments()) == 1


@pytest.mark.parametrize("is_adopted", [True, False])
def test_a_lock_that_is_deleted_alone_is_put_back(is_adopted):
    """Those who clear away what is old take the lock, which nobody writes to, and leave the segments."""
    disk, clock = MemoryFilesystem(), ManualClock()
    if is_adopted:
        names = leave(disk, clock, 5)
        process = Process(disk.process(), clock, slots=4)
        process.adopt()
    else:
        process = Process(disk.process(), clock, slots=4)
        names = [str(number) for number in range(5)]
        for name in names:
            process.spill(name)
    [place] = [path for path in disk.files if path.endswith("/lock")]
    del disk.files[place]
    pass_time(process, 1.0)

    assert place in disk.files
    sibling = Process(disk.process(), clock)
    sibling.adopt()
    assert (sibling.recovered, process.lost) == (0, {})
    assert process.drain() == names
    process.die()
    sibling.adopt()
    assert sibling.lost == {}


def test_a_lock_that_another_process_has_made_anew_is_that_ones():
    """Who was first has the folder; the other lets go of it."""
    disk, clock = MemoryFilesystem(), ManualClock()
    process = Process(disk.process(), clock)
    process.spill("a")
    [place] = [path for path in disk.files if path.endswith("/lock")]
    del disk.files[place]
    heir = Process(disk.process(), clock)
    heir.adopt()
    pass_time(process, 1.0)

    assert heir.drain() == ["a"]
    assert process.drain() == []
    assert process.append("b") is not None


def test_a_segment_that_goes_between_the_listing_and_the_look_keeps_no_orphan_for_ever(monkeypatch):
    """Its folder is removed with the last of the others."""
    disk, clock = MemoryFilesystem(), ManualClock()
    names = leave(disk, clock, 12)
    process = Process(disk, clock, slots=4)
    doomed = process.segments()[1].rpartition("/")[2]
    listed = disk.names

    def late(path):
        found = listed(path)
        if f"{path}/{doomed}" in disk.files and "orphan-" in path:
            del disk.files[f"{path}/{doomed}"]
        return found

    monkeypatch.setattr(disk, "names", late)
    process.adopt()
    monkeypatch.undo()
    assert process.drain() == names[:4] + names[8:]
    assert process.lost == {"damaged": 4}
    assert disk.names("/spool") == []
