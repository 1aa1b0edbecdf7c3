"""Several processes on one disk against a plain model, under any order of appends, ends, damage, faults and forks.

The model knows of each batch who has it and whether it was acknowledged; of each process, what it has let go of
and taken back. Limits are tiny, so that segments are sealed, emptied, evicted and adopted in every run.
"""

import errno
import logging
from unittest.mock import patch

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.batches import batch
from fakes.spools import KIB, Process, numbered_names
from surgetank.model import HeldBatch, Lane
from surgetank.spool.spool import Remainder
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import Fault, MemoryFilesystem

MOST_ITEMS = 5
SLOTS = 4
LIMITS = {"slots": SLOTS, "max_bytes": 320 * KIB, "max_age": 1000.0}


class Stored:
    """A batch that `append` has returned a record for."""

    def __init__(self, name, items, owner):
        self.name = name
        self.items = items
        self.owner = owner
        """The process that has it; None for an orphan."""
        self.record = None
        """While it is in memory or in flight."""
        self.held = None
        self.remainder = None
        """What stands for its parts that the disk did not take."""
        self.is_acked = False
        self.is_memory_only = False
        """Taken by the limits while it was in memory: from then on memory's alone."""

    @property
    def is_in_hand(self):
        return self.record is not None


class SpoolMachine(RuleBasedStateMachine):
    """At most three processes at a time."""

    @initialize(may_fail=st.booleans(), may_flip=st.booleans(), count=st.integers(1, 3))
    def begin(self, may_fail, may_flip, count):
        # Where nothing fails, more can be said.
        self.may_fail, self.most_flips = may_fail, 3 if may_flip else 0
        logging.getLogger("surgetank.spool").disabled = True
        self.names = patch("surgetank.spool.folder.os.urandom", numbered_names())
        self.names.start()
        self.disk = MemoryFilesystem()
        self.clock = ManualClock()
        self.processes = []
        self.stored = {}
        self.spilled, self.leased = {}, {}
        self.lost = 0
        """Items that processes of the past have counted."""
        self.flipped = []
        self.repeatable = set()
        """What was acknowledged while the disk refused something."""
        self.repeats = 0
        self.has_failed = False
        self.has_deleted = False
        self.number = 0
        for _ in range(count):
            self.start()

    def enter(self, process):
        self.processes.append(process)
        self.spilled[process] = self.leased[process] = 0

    def one(self, choice):
        return self.processes[choice % len(self.processes)]

    def in_hand(self, choice):
        """Return some batch that is in memory or in flight."""
        candidates = [each for each in self.stored.values() if each.is_in_hand]
        return candidates[choice % len(candidates)]

    def has_in_hand(self):
        return any(each.is_in_hand for each in self.stored.values())

    def refusals(self):
        return sum(fault.times for fault in self.disk.faults)

    def add(self, process, items, record, name):
        each = self.stored[name] = Stored(name, items, process)
        each.record = record
        each.held = HeldBatch(batch=batch(items, name=name), first_seq=1, record=record)
        return each

    def new_name(self):
        self.number += 1
        return f"b{self.number}"

    @precondition(lambda self: len(self.processes) < 3)
    @rule()
    def start(self):
        self.enter(Process(self.disk.process(), self.clock, **LIMITS))

    @rule(
        who=st.integers(0, 2),
        items=st.integers(1, MOST_ITEMS),
        size=st.sampled_from([10, 10, 1000, 20 * KIB]),
        lane=st.sampled_from(Lane),
        is_spilled=st.booleans(),
        count=st.integers(1, 5),
    )
    def append(self, who, items, size, lane, is_spilled, count):
        process = self.one(who)
        for _ in range(count):
            name = self.new_name()
            record = process.append(name, items, size=size, lane=lane)
            if record is not None:
                each = self.add(process, items, record, name)
                if is_spilled:
                    self.let_go(each)

    @rule(
        who=st.integers(0, 2),
        count=st.integers(3, 14),
        acked=st.integers(0, (1 << 14) - 1),
        spilled=st.integers(0, (1 << 14) - 1),
        lane=st.sampled_from(Lane),
    )
    def append_many(self, who, count, acked, spilled, lane):
        """Over several segments, some of which are done as a whole, some in places, some not at all."""
        process = self.one(who)
        added = []
        for n in range(count):
            name = self.new_name()
            items = n % MOST_ITEMS + 1
            record = process.append(name, items, size=10 + 37 * n, lane=lane)
            if record is not None:
                added.append((n, self.add(process, items, record, name)))
        for n, each in added:
            if acked >> n & 1:
                self.acknowledge(each)
            elif spilled >> n & 1:
                self.let_go(each)

    @precondition(has_in_hand)
    @rule(which=st.integers(0, 99), attempts=st.integers(0, 2), delay=st.sampled_from([0.0, 5.0]))
    def release(self, which, attempts, delay):
        each = self.in_hand(which)
        each.held.attempts, each.held.due_at = attempts, self.clock.monotonic() + delay
        self.let_go(each)

    def let_go(self, each):
        if each.owner.spool.release(each.record, each.held):
            self.spilled[each.owner] += each.items
        else:
            assert each.record.is_done
            each.is_memory_only = True
        each.record = each.held = None

    @rule(who=st.integers(0, 2), count=st.integers(1, 6), is_acked=st.booleans())
    def lease(self, who, count, is_acked):
        process = self.one(who)
        for _ in range(count):
            each = self.take(process)
            if each is not None and is_acked:
                self.acknowledge(each)

    def take(self, process):
        held = process.lease()
        if held is None:
            return None
        each = self.stored[held.batch.id]
        assert held.batch.items == each.items
        assert not each.is_in_hand, "in two hands"
        assert not each.is_memory_only
        assert each.owner in (None, process), "another process has it"
        if each.is_acked and each.name not in self.repeatable:
            self.repeats += 1
        self.leased[process] += each.items
        each.owner, each.record, each.held, each.is_acked = process, held.record, held, False
        return each

    @precondition(has_in_hand)
    @rule(which=st.integers(0, 99), count=st.integers(1, 6))
    def ack(self, which, count):
        for _ in range(count):
            if self.has_in_hand():
                self.acknowledge(self.in_hand(which))

    def acknowledge(self, each):
        before = self.refusals()
        each.owner.spool.ack(each.record)
        each.record = each.held = None
        self.done(each, before)

    @precondition(has_in_hand)
    @rule(which=st.integers(0, 99))
    def replace(self, which):
        whole = self.in_hand(which)
        if whole.items < 2:
            return
        before = self.refusals()
        sizes = [1, whole.items - 1]
        names = [self.new_name(), self.new_name()]
        parts = [batch(n, name=name) for n, name in zip(sizes, names, strict=True)]
        records = whole.owner.spool.replace(whole.record, parts)
        for items, name, record in zip(sizes, names, records, strict=True):
            if isinstance(record, Remainder):
                whole.remainder = record
            else:
                self.add(whole.owner, items, record, name)
        if whole.remainder is None:
            assert whole.record.is_done
            self.done(whole, before)
        whole.record = whole.held = None

    @precondition(lambda self: any(each.remainder for each in self.stored.values()))
    @rule()
    def ack_what_stood_for_a_part(self):
        """The parts that the disk did not take are done one by one, and with the last one the whole."""
        for whole in [each for each in self.stored.values() if each.remainder]:
            before, parts = self.refusals(), whole.remainder.parts
            whole.owner.spool.ack(whole.remainder)
            if parts == 1:
                whole.is_memory_only = False
                self.done(whole, before)
                whole.remainder = None

    def done(self, each, refusals_before):
        each.is_acked = True
        if self.refusals() != refusals_before:
            self.repeatable.add(each.name)

    @rule(seconds=st.sampled_from([1.0, 6.0, 700.0, 3000.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule(who=st.integers(0, 2))
    def tend(self, who):
        process = self.one(who)
        process.spool.expire(self.clock.now())
        process.spool.sync()

    @rule(who=st.integers(0, 2))
    def adopt(self, who):
        self.one(who).adopt()

    @precondition(lambda self: len(self.processes) < 3)
    @rule(who=st.integers(0, 2))
    def fork(self, who):
        parent = self.one(who)
        before = set(self.disk.files)
        child = parent.fork()
        self.enter(child)
        assert child.spool.available_items() == 0
        assert child.disk.folder.used_bytes == 0
        assert set(self.disk.files) == before

    @precondition(lambda self: self.processes)
    @rule(who=st.integers(0, 2), is_orderly=st.booleans())
    def end(self, who, is_orderly):
        self.leave(self.one(who), is_orderly=is_orderly)
        if not self.processes:
            self.start()

    def leave(self, process, *, is_orderly):
        if is_orderly:
            process.disk.close()
        process.die()
        process.note()
        self.processes.remove(process)
        self.lost += sum(process.lost.values())
        for each in self.stored.values():
            if each.owner is process:
                record = each.remainder.whole if each.remainder else each.record
                if record is not None and record.is_done:
                    each.is_memory_only = True
                each.owner = each.record = each.held = each.remainder = None

    @rule(
        who=st.integers(0, 2),
        is_orderly=st.booleans(),
        count=st.integers(0, 6),
        flips=st.integers(0, 2),
        which=st.integers(0, 99),
        where=st.integers(0, 1 << 20),
    )
    def succeed(self, who, is_orderly, count, flips, which, where):
        """One ends, something is damaged, and another one takes over at once."""
        self.leave(self.one(who), is_orderly=is_orderly)
        for n in range(min(flips, self.most_flips - len(self.flipped))):
            self.flip(which + n, where * (n + 1), (which + n) % 8)
        self.start()
        self.processes[-1].adopt()
        self.lease(-1, count, True)

    @precondition(lambda self: len(self.flipped) < self.most_flips)
    @rule(which=st.integers(0, 99), where=st.integers(0, 1 << 20), bit=st.integers(0, 7))
    def flip(self, which, where, bit):
        """Damage a byte of a dead owner's segment, one in each at most."""
        files = self.disk.files
        dead = [
            path
            for path, inode in files.items()
            if path.endswith(".segment")
            and inode.data
            and inode not in self.flipped
            and not any(path.startswith(estate.path) for each in self.processes for estate in estates(each))
        ]
        if dead:
            path = sorted(dead)[which % len(dead)]
            self.flipped.append(files[path])
            self.disk.flip(path, where % len(files[path].data), 1 << bit)

    @precondition(lambda self: self.may_fail and not any(fault.times for fault in self.disk.faults))
    @rule(
        operation=st.sampled_from(
            [
                *("write", "write", "truncate", "unlink", "create", "rename", "read", "open", "names", "make_folder"),
                *("lock", "lstat", "*"),
            ]
        ),
        number=st.sampled_from([errno.EIO, errno.ENOSPC, errno.EACCES, errno.EMFILE, errno.ESTALE, errno.ENOLCK]),
        times=st.integers(1, 3),
        torn=st.sampled_from([0.0, 0.5, 0.95]),
    )
    def fail(self, operation, number, times, torn):
        self.has_failed = True
        self.disk.faults.append(Fault(operation, number, times, torn=torn))

    @precondition(lambda self: self.may_fail and self.processes[0].segments())
    @rule(which=st.integers(0, 99))
    def delete(self, which):
        """Somebody clears away a segment, of the living too; what nobody has noticed when its owner ends cannot be counted."""
        self.has_failed = self.has_deleted = True
        files = self.processes[0].segments()
        del self.disk.files[files[which % len(files)]]

    @precondition(lambda self: self.may_fail)
    @rule()
    def recover(self):
        self.disk.faults.clear()

    @invariant()
    def what_waits_is_what_was_found_and_let_go_and_neither_taken_nor_lost(self):
        for process in getattr(self, "processes", ()):
            process.note()
            expected = process.recovered + self.spilled[process] - self.leased[process] - sum(process.lost.values())
            assert process.spool.available_items() == expected
            assert process.spool.has_available <= (expected > 0)

    @invariant()
    def nothing_is_damaged_that_nobody_has_damaged(self):
        for process in getattr(self, "processes", ()):
            assert self.flipped or self.has_failed or "damaged" not in process.lost

    @invariant()
    def every_byte_is_counted(self):
        for process in getattr(self, "processes", ()):
            segments = list(process.spool._homes)
            sizes = [
                segment.size
                if segment._is_ragged or segment.path not in self.disk.files
                else self.disk.size_of(segment.path)
                for segment in segments
            ]
            assert process.disk.folder.used_bytes == sum(sizes)
            if not self.has_failed:
                paths = {estate.path for estate in estates(process)}
                files = [path for path in process.segments() if path.rsplit("/", 1)[0] in paths]
                assert sorted(files) == sorted(segment.path for segment in segments)

    @invariant()
    def few_files_are_open(self):
        for process in getattr(self, "processes", ()):
            files = [file for file in self.disk._disk.open if file._filesystem is process.filesystem]
            in_flight = sum(each.is_in_hand and each.owner is process for each in self.stored.values())
            # A lock for each folder, what is appended to, what is in flight, and what was just looked at.
            assert len(files) <= len(estates(process)) + len(Lane) + in_flight + 1

    @invariant()
    def the_limit_holds(self):
        for process in getattr(self, "processes", ()):
            if not self.has_failed:
                # Its share may have shrunk since it last looked, to what it only finds out by looking.
                assert process.disk.folder.used_bytes <= LIMITS["max_bytes"]

    @invariant()
    def repetitions_are_accounted_for(self):
        if hasattr(self, "processes"):
            assert self.repeats <= len(self.flipped) or self.has_failed

    def teardown(self):
        if not hasattr(self, "processes"):
            return
        try:
            self.end_all()
        finally:
            self.names.stop()
            logging.getLogger("surgetank.spool").disabled = False

    def end_all(self):
        self.disk.faults.clear()
        while self.processes:
            self.leave(self.processes[0], is_orderly=False)
        last = Process(self.disk.process(), self.clock, **{**LIMITS, "max_bytes": 1 << 30})
        self.enter(last)
        last.adopt()
        # What was set aside waits for nothing in another process.
        while (each := self.take(last)) is not None:
            self.acknowledge(each)
        self.what_waits_is_what_was_found_and_let_go_and_neither_taken_nor_lost()
        self.repetitions_are_accounted_for()
        self.nothing_is_damaged_that_nobody_has_damaged()
        assert last.spool.available_items() == 0
        assert last.disk.folder.used_bytes == 0
        self.leave(last, is_orderly=True)
        missing = sum(each.items for each in self.stored.values() if not each.is_acked and not each.is_memory_only)
        assert missing <= self.lost or self.has_deleted, "lost and not counted"
        if not self.has_failed:
            # Damage may have brought back what was done, and that may have been lost later on.
            most = len(self.flipped) * MOST_ITEMS * (1 if len(self.flipped) < 2 else SLOTS)
            assert self.lost <= missing + most, "counted and not lost"
            assert [path for path in self.disk.files if path.endswith(".segment")] == []


def estates(process):
    return process.disk.folder._estates()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(max_examples=250, stateful_step_count=40, deadline=None, derandomize=True)
