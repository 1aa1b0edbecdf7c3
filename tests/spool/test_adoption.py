"""Two heirs at once: whatever the one is doing, the other one looks for orphans in between."""

import pytest

from fakes.spools import KIB, Process
from surgetank.model import Lane
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import MemoryFile, MemoryFilesystem


class Interrupted:
    """Calls something before the n-th call of a process, whatever kind of call it is."""

    def __init__(self, monkeypatch, filesystem, at, action):
        self.calls = 0
        self.was_reached = False
        mine = [
            (MemoryFilesystem, name)
            for name in ("make_folder", "names", "create", "open", "size_of", "rename", "unlink", "remove_folder")
        ]
        files = [(MemoryFile, name) for name in ("read_at", "write_at", "try_lock", "is_at", "size", "close")]
        for kind, name in [*mine, *files]:
            monkeypatch.setattr(kind, name, self.wrapped(getattr(kind, name), filesystem, at, action))

    def wrapped(self, method, filesystem, at, action):
        def call(this, *arguments, **named):
            if (this if isinstance(this, MemoryFilesystem) else this._filesystem) is filesystem:
                self.calls += 1
                if self.calls == at:
                    self.was_reached = True
                    action()
            return method(this, *arguments, **named)

        return call


def orphans():
    """Return a disk with three orphans on it: one with batches, one that holds nothing, one without a lock."""
    disk, clock = MemoryFilesystem(), ManualClock()
    first = Process(disk.process(), clock, slots=4)
    for n in range(6):
        first.spill(str(n))
    first.spill("dear", lane=Lane.CRITICAL)
    second = Process(disk.process(), clock, slots=4)
    second.spool.ack(second.append("done"))
    third = Process(disk.process(), clock, slots=4)
    third.spill("lockless")
    for each in (first, second, third):
        each.die()
    (path,) = [path for path in disk.files if third.disk.folder._own.path in path and path.endswith("lock")]
    del disk.files[path]
    return disk, clock


ALL = sorted([*map(str, range(6)), "dear", "lockless"])


@pytest.mark.parametrize("how", ["adopts", "delivers", "ends", "is killed"])
def test_each_orphan_is_adopted_by_exactly_one_whenever_the_other_comes(monkeypatch, how):
    """Before each call of the first one, the second one adopts what it can get; nothing is sent twice, nothing is left."""
    at, was_reached = 0, True
    while was_reached:
        at += 1
        disk, clock = orphans()
        one, other = (Process(disk.process(), clock, slots=4) for _ in range(2))
        sent = []

        def come(other=other, sent=sent):
            other.adopt()
            if how != "adopts":
                sent += other.drain()
            if how == "ends":
                other.disk.close()
            elif how == "is killed":
                other.die()

        with monkeypatch.context() as patched:
            interrupted = Interrupted(patched, one.filesystem, at, come)
            one.adopt()
            sent += one.drain()
            was_reached = interrupted.was_reached
        if how == "adopts":
            sent += other.drain()
        one.adopt()
        sent += one.drain()

        assert sorted(sent) == ALL, at
        assert one.lost == other.lost == {}, at
        assert one.recovered + other.recovered == len(ALL), at
        assert one.disk.folder.used_bytes == 0
        one.disk.close()
        if how == "adopts":
            other.disk.close()
        assert disk.names("/spool") == [], at
    assert at > 30


def test_a_folder_that_is_being_made_is_never_taken_for_an_orphans(monkeypatch):
    """Whenever somebody looks, twice, which is when they sweep."""
    at, was_reached = 0, True
    while was_reached:
        at += 1
        disk, clock = MemoryFilesystem(), ManualClock()
        maker, other = (Process(disk.process(), clock, slots=4) for _ in range(2))

        def look(other=other):
            other.adopt()
            other.adopt()

        with monkeypatch.context() as patched:
            interrupted = Interrupted(patched, maker.filesystem, at, look)
            record = maker.append("a")
            was_reached = interrupted.was_reached
        if record is None:
            clock.advance(6)
            assert maker.append("a") is not None

        other.adopt()
        assert other.recovered == 0, at
        maker.die()
        other.adopt()
        assert other.drain() == ["a"], at
    assert at > 5


@pytest.mark.parametrize("name", ["owner-1-abc", "orphan-1-abc", ".new-owner-1-abc"])
def test_a_file_in_a_folders_place_is_nobodys_life(name):
    """It is left alone, and takes no share of the limit."""
    process = Process(max_bytes=256 * KIB)
    process.filesystem.make_folder("/spool")
    process.filesystem.create(f"/spool/{name}").close()
    while process.disk.folder.used_bytes < 200 * KIB:
        assert process.spill("x", size=8 * KIB) is not None

    for _ in range(3):
        process.adopt()

    assert process.disk.folder.owners == 1
    assert process.lost == {}
    assert name in process.filesystem.names("/spool")
