"""A life of processes on one disk, written down as it goes, so that after any crash it is known what was promised."""

from collections import Counter

from fakes.batches import batch
from fakes.spools import KIB, Process
from surgetank.model import Lane
from surgetank.spool.spool import Remainder


class Journal:
    """What was promised, of which batch, by its name."""

    def __init__(self):
        self.items = {}
        self.records = {}
        """Of the batches whose `append` has returned a record."""
        self.acking = set()
        """Whose `ack` was called."""
        self.acked = set()
        """Whose `ack` has returned."""
        self.endangered = set()
        """What the limits may take."""
        self.cutting = {}
        """Wholes whose `replace` was called and has not returned, with their parts."""
        self.sent = Counter()

    def promised(self):
        """Return what must be delivered after a kill: stored, neither acknowledged nor given up, not even partly."""
        whole = set(self.records) - self.acking - self.endangered
        return whole - set(self.cutting)

    def durable(self):
        """Return what must be delivered after the loss of power."""
        return {name for name in self.promised() if self.records[name].is_durable and not self.records[name].is_done}

    def check_delivered(self, names):
        """Assert that each of these was sent, and of what was being cut up, the whole or all parts."""
        missing = sorted(name for name in names if not self.sent[name])
        assert not missing, f"lost: {missing}"

    def check_cuts(self):
        for whole, parts in self.cutting.items():
            if whole not in self.endangered:
                assert self.sent[whole] or all(self.sent[part] for part in parts), whole


class Life:
    """A process that writes down what it does."""

    def __init__(self, filesystem, clock, journal, *, may_repeat=False, **settings):
        self.process = Process(filesystem, clock, slots=4, **settings)
        self.journal = journal
        self.may_repeat = may_repeat
        self.handled = 0

    def append(self, name, items=1, *, size=100, lane=Lane.NORMAL, is_spilled=False):
        self.journal.items[name] = items
        record = self.process.append(name, items, size=size, lane=lane)
        if record is not None:
            self.journal.records[name] = record
            if is_spilled:
                self.process.spool.release(record, _Untried)

    def ack(self, name):
        """Acknowledge what is in memory."""
        self.journal.acking.add(name)
        self.process.spool.ack(self.journal.records[name])
        self.journal.acked.add(name)

    def cut(self, name):
        """Replace what is in memory by two halves."""
        record = self.journal.records[name]
        parts = [name + "-1", name + "-2"]
        self.journal.items.update(dict.fromkeys(parts, 1))
        self.journal.cutting[name] = parts
        records = self.process.spool.replace(record, [batch(1, name=part, body=b"x" * 50) for part in parts])
        del self.journal.cutting[name]
        assert not any(isinstance(record, Remainder) for record in records)
        self.journal.records.update(zip(parts, records, strict=True))
        self.journal.acking.add(name)
        self.journal.acked.add(name)

    def lease(self):
        held = self.process.lease()
        if held is not None:
            name = held.batch.id
            assert held.batch.items == self.journal.items[name]
            assert self.may_repeat or name not in self.journal.acked, f"{name} was acknowledged"
        return held

    def deliver(self, count=1 << 30):
        """Lease, send and acknowledge."""
        while count and (held := self.lease()) is not None:
            count -= 1
            name = held.batch.id
            self.journal.sent[name] += 1
            self.journal.acking.add(name)
            self.process.spool.ack(held.record)
            self.journal.acked.add(name)
            self.handled += held.batch.items

    def put_back(self):
        held = self.lease()
        if held is not None:
            held.attempts = 1
            self.process.spool.release(held.record, held)

    def endanger(self):
        """Note that the limits may take anything that is stored now."""
        self.journal.endangered |= set(self.journal.records)

    def check_books(self):
        """Assert that what was found is what was delivered, lost, or still waits; and that each byte is counted."""
        process = self.process
        process.note()
        lost = sum(process.lost.values())
        found, waiting = process.recovered, process.spool.available_items()
        assert found == self.handled + lost + waiting, f"{found} != {self.handled} + {lost} + {waiting}"
        self.check_bytes()

    def check_bytes(self):
        filesystem = self.process.filesystem
        mine = {estate.path for estate in self.process.disk.folder._estates()}
        sizes = [
            filesystem.size_of(path) for path in self.process.segments() if any(path.startswith(each) for each in mine)
        ]
        used = self.process.disk.folder.used_bytes
        assert used == sum(sizes), f"{used} bytes are said to be used, of {sizes}"


class _Untried:
    attempts = 0
    is_attempted = False


def live(filesystem, clock, journal, *, durability="os"):
    """
    Live through everything that changes something on disk.

    Two lanes over several segments, batches in memory and on disk alone, a batch that is cut up, an end without
    warning, two heirs, an orderly end, age and size limits.
    """
    given = {"durability": durability, "max_age": 1000.0, "max_bytes": 256 * KIB, "may_repeat": durability == "disk"}
    first = Life(filesystem, clock, journal, **given)
    for n in range(6):
        first.append(f"n{n}", n + 1)
    first.append("c0", 2, lane=Lane.CRITICAL)
    first.append("c1", 3, lane=Lane.CRITICAL, is_spilled=True)
    first.process.spool.sync()
    for n in range(6, 11):
        first.append(f"n{n}", is_spilled=True)
    first.ack("n1")
    first.ack("c0")
    first.deliver(2)
    first.put_back()
    first.cut("n3")
    first.process.spool.sync()
    for name in ("n0", "n2"):
        first.ack(name)
    first.check_bytes()
    # A segment is sealed for its age, and one that was all done begins anew.
    clock.advance(601)
    for n in range(2):
        first.append(f"m{n}", 2, lane=Lane.CRITICAL)
        first.ack(f"m{n}")
    first.append("m2", 2, lane=Lane.CRITICAL)
    first.append("n11", 2)
    filesystem.die()

    heir = Life(filesystem, clock, journal, **given)
    heir.process.adopt()
    heir.append("h0", 2)
    heir.deliver(3)
    heir.put_back()
    heir.append("h1", 3, is_spilled=True)
    heir.process.spool.sync()
    heir.process.disk.close()

    second = Life(filesystem, clock, journal, **given)
    second.process.adopt()
    second.check_bytes()
    second.deliver(4)
    second.endanger()
    clock.advance(1700)
    second.append("e0", 2, is_spilled=True)
    second.append("e1", 2)
    second.process.spool.expire(clock.now())
    second.endanger()
    for n in range(11):
        second.endanger()
        second.append(f"large{n}", size=24 * KIB, is_spilled=True)
        second.process.spool.sync()
    second.check_bytes()
    second.append("last", 2, lane=Lane.CRITICAL)
    second.process.spool.sync()
    second.process.disk.close()
