"""The accounting law over processes that come and go on one disk, with any order of offers, answers, faults, kills and ends.

The model is a receiver that remembers what it took, and a ledger of what each process had said when it ended. In
these steps nothing is in flight at a kill, so nothing may arrive twice, unless the disk refused an ack.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from fakes.pipelines import Rig
from fakes.requests import span_numbers
from surgetank.config import Timing
from surgetank.model import Outcome
from surgetank.testing import ManualClock, delivered, hold, permanent, retry, silence, too_large
from surgetank.testing.filesystem import Fault, MemoryFilesystem

VERDICTS = st.sampled_from([delivered(), delivered(), retry(), hold(), silence(), permanent(), too_large()])
SIZES = st.sampled_from([0, 10, 5_000, 30_000])
KIB = 1024


class ReservoirMachine(RuleBasedStateMachine):
    """Pipelines of at most 20 items in memory and half a MiB on disk."""

    @initialize(
        durability=st.sampled_from(["os", "memory", "disk"]),
        persist=st.sampled_from(["all", "critical"]),
        batch=st.integers(1, 8),
    )
    def begin(self, durability, persist, batch):
        self.filesystem, self.clock = MemoryFilesystem(), ManualClock(1000.0)
        self.settings = {"durability": durability, "max_bytes": 512 * KIB}
        self.limits = {"persist": persist, "max_export_batch_size": batch}
        self.answer = delivered()
        self.next_number = 0
        self.arrived = []
        self.may_repeat = False
        """Whether an ack may have failed, so that a kill can repeat its batch."""
        self.past = {"offered": 0, "delivered": 0, "rejected": 0, "dropped": 0, "memory_lost": 0}
        self.start()

    def start(self):
        self.rig = Rig(
            otherwise=self.receive,
            timing=Timing(cooldown_initial=1.0, cooldown_max=4.0, backoff_max=1.0),
            filesystem=self.filesystem,
            clock=self.clock,
            spool=self.settings,
            max_size=20,
            max_memory_mb=0.5,
            circuit_breaker_threshold=3,
            **self.limits,
        )

    def say(self, verdict):
        self.answer = verdict
        if verdict.outcome in (Outcome.PERMANENT, Outcome.SPLIT):
            # A part that cannot be stored leaves the whole on disk, which may repeat it; that has tests of its own.
            self.filesystem.faults = []

    def receive(self, batch):
        numbers = span_numbers(batch)
        if self.answer.outcome is Outcome.DELIVERED:
            self.arrived.extend(numbers)
        return self.answer

    @rule(count=st.integers(1, 12), size=SIZES, is_error=st.booleans())
    def offer(self, count, size, is_error):
        for _ in range(count):
            self.rig.offer(self.next_number, size=size, is_error=is_error)
            self.next_number += 1

    @rule(steps=st.integers(1, 8))
    def seal(self, steps):
        for _ in range(steps):
            self.rig.pipeline.seal_step()

    @rule(steps=st.integers(1, 6), verdict=VERDICTS)
    def deliver(self, steps, verdict):
        self.say(verdict)
        for _ in range(steps):
            self.rig.pipeline.deliver_step()

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 60.0]))
    def time_passes(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def tend(self):
        self.rig.tend()

    @rule(timeout=st.sampled_from([0.0, 0.5, 5.0]), verdict=VERDICTS)
    def flush(self, timeout, verdict):
        self.say(verdict)
        lost_before = self.lost()
        began = self.clock.monotonic()

        has_succeeded = self.rig.pipeline.force_flush(timeout)

        assert self.clock.monotonic() <= began + timeout + 1e-6
        if has_succeeded:
            assert self.lost() == lost_before
            assert self.memory_only() == 0

    @rule(operation=st.sampled_from(["write", "create", "truncate", "unlink", "sync", "*"]), times=st.integers(1, 3))
    def disk_says_no(self, operation, times):
        self.may_repeat = True
        self.filesystem.faults = [Fault(operation, times=times)]

    @rule()
    def disk_is_well(self):
        self.filesystem.faults = []

    @rule(timeout=st.sampled_from([0.0, 5.0]), verdict=VERDICTS)
    def end(self, timeout, verdict):
        self.filesystem.faults = []
        self.answer = verdict
        self.rig.pipeline.shutdown(timeout)
        stats = self.rig.stats
        assert stats.queued == stats.in_flight == stats.memory_bytes == 0
        spooled = stats.spooled
        self.bank(stats)
        self.rig.disk.close()
        self.start()
        self.rig.tend()
        self.check_recovered(spooled)

    @rule()
    def kill(self):
        self.filesystem.faults = []
        stats = self.rig.stats
        on_disk = stats.spooled + stats.queued - self.memory_only()
        assert stats.spooled + stats.stored == on_disk
        self.past["memory_lost"] += self.memory_only()
        self.bank(stats)
        self.filesystem.die()
        self.start()
        self.rig.tend()
        self.check_recovered(on_disk)

    def check_recovered(self, expected):
        recovered = self.rig.stats.recovered
        assert recovered >= expected if self.may_repeat else recovered == expected

    def bank(self, stats):
        self.past["offered"] += stats.offered
        self.past["delivered"] += stats.delivered
        self.past["rejected"] += stats.rejected
        self.past["dropped"] += sum(stats.dropped.values())

    def memory_only(self):
        buffer = self.rig.pipeline._buffer
        stored = sum(held.batch.items for held in buffer._queue if held.is_stored)
        stored += self.rig.pipeline._sealer.stored_items()
        return self.rig.stats.queued - stored

    def lost(self):
        stats = self.rig.stats
        return stats.rejected + sum(stats.dropped.values())

    @invariant()
    def the_law_and_the_limits_hold(self):
        if not hasattr(self, "rig"):
            return
        stats = self.rig.stats
        assert stats.unaccounted == 0
        assert sum(stats.rejected_by_cause.values()) == stats.rejected
        gone = stats.delivered + stats.rejected + sum(stats.dropped_attempted.values())
        assert gone <= stats.attempted <= stats.offered + stats.recovered
        assert stats.dropped.keys() == stats.dropped_bytes.keys() >= stats.dropped_attempted.keys()
        assert all(items <= stats.dropped[reason] for reason, items in stats.dropped_attempted.items())
        assert stats.queued + stats.in_flight <= 20
        assert 0 <= stats.memory_bytes <= stats.memory_peak_bytes <= 512 * KIB
        assert self.rig.disk.folder.used_bytes <= 512 * KIB

    @invariant()
    def nothing_arrives_twice(self):
        if hasattr(self, "rig"):
            assert self.may_repeat or len(set(self.arrived)) == len(self.arrived)
            assert self.past["delivered"] + self.rig.stats.delivered == len(self.arrived)

    @invariant()
    def the_books_agree_with_the_disk(self):
        if not hasattr(self, "rig"):
            return
        self.rig.pipeline._reservoir._tell_of_spills()
        self.rig.pipeline._reservoir._balance()
        assert self.rig.stats.spooled == self.rig.disk.spools[self.rig.pipeline.signal].available_items()

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        self.filesystem.faults = []
        self.answer = delivered()
        for _ in range(30):
            self.clock.advance(400.0)
            self.rig.pipeline.force_flush(60.0)
            self.rig.tend()
            self.rig.deliver()
        stats = self.rig.stats
        assert stats.queued == stats.spooled == 0, "with a healthy endpoint everything leaves"
        self.bank(stats)
        past = self.past
        assert past["offered"] == self.next_number
        gone = past["delivered"] + past["rejected"] + past["dropped"] + past["memory_lost"]
        assert past["offered"] <= gone if self.may_repeat else past["offered"] == gone


TestReservoirMachine = ReservoirMachine.TestCase
TestReservoirMachine.settings = settings(
    max_examples=120, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
