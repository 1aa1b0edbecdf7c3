"""Disks in memory, and processes that come and go on them."""

import copy
import itertools
import threading

from fakes.batches import batch
from surgetank.model import Lane, Signal
from surgetank.spool.disk import Disk
from surgetank.spool.settings import SpoolSettings
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import MemoryFilesystem

KIB = 1024


def settings(**changes):
    """Return settings for a small spool."""
    given = {
        "path": "/spool",
        "max_bytes": 1024 * KIB,
        "reserve_bytes": 0,
        "segment_bytes": 64 * KIB,
        **changes,
    }
    return SpoolSettings(**given)


class Process:
    """One process with a disk, as far as its spans are concerned."""

    def __init__(self, filesystem=None, clock=None, *, slots=8, signal=Signal.SPANS, **changes):
        self.filesystem = filesystem or MemoryFilesystem()
        self.clock = clock or ManualClock()
        self.disk = Disk(settings(**changes), self.filesystem, self.clock, slots=slots)
        self.spool = self.disk.spools[signal]
        self.signal = signal
        self.recovered = 0
        self.lost = {}

    def append(self, name, items=1, *, size=100, lane=Lane.NORMAL):
        """Store a batch and return its record."""
        body = (name.encode() * size)[:size]
        return self.spool.append(batch(items, name=name, body=body, lane=lane, signal=self.signal))

    def spill(self, name, items=1, **outside):
        """Store a batch that memory then lets go of; returns its record."""
        record = self.append(name, items, **outside)
        if record is not None:
            self.spool.release(record, _Forgotten)
        return record

    def adopt(self):
        """Look for orphans, and note what was found."""
        self.disk.adopt_orphans()
        self.note()

    def note(self):
        changes = self.spool.changes()
        self.recovered += changes.recovered
        for reason, items in changes.lost.items():
            self.lost[reason.value] = self.lost.get(reason.value, 0) + items

    def lease(self):
        """Lease a batch, with room for any."""
        held = self.spool.lease(self.clock.monotonic(), lambda items, size: True)
        self.note()
        return held

    def drain(self):
        """Lease and acknowledge everything; return the names in order."""
        names = []
        while (held := self.lease()) is not None:
            names.append(held.batch.id)
            self.spool.ack(held.record)
        return names

    def fork(self):
        """Return the child: a copy of everything, with descriptors of its own for the same open files."""
        filesystem = self.filesystem.process()
        folder = self.disk.folder
        memo = {id(self.filesystem): filesystem, id(self.clock): self.clock, id(folder.lock): threading.RLock()}
        if self.spool._cipher is not None:
            memo[id(self.spool._cipher)] = self.spool._cipher
        child = copy.deepcopy(self, memo)
        child.disk.after_fork_in_child(is_closed=False)
        child.recovered, child.lost = 0, {}
        return child

    def die(self):
        """End as `kill -9` does. Returns the file system, for whoever comes next."""
        self.filesystem.die()
        return self.filesystem

    def segments(self):
        """Return the paths of all segment files."""
        return sorted(path for path in self.filesystem.files if path.endswith(".segment"))


def numbered_names():
    """Return what makes the names of folders the same in every run; in place of `os.urandom`."""
    numbers = itertools.count(1)
    return lambda size: next(numbers).to_bytes(size, "big")


class _Forgotten:
    attempts = 0
    is_attempted = False
