"""The accounting law under any order of offers, answers, clock steps, flushes and shutdown.

The model is a receiver that remembers every item that it took, refused, or never saw. Limits
are tiny, so that eviction, splitting, tripping and giving up happen in every run.
"""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fakes.pipelines import Rig
from fakes.requests import span_numbers
from surgetank.config import Timing
from surgetank.model import Outcome
from surgetank.testing import delivered, hold, permanent, retry, silence, too_large

VERDICTS = st.sampled_from(
    [
        delivered(),
        delivered(),
        delivered(rejected=1),
        retry(),
        retry(after=3.0),
        hold(),
        silence(),
        permanent(),
        too_large(),
    ]
)
# For `sampling`: the first to go, one that stays for a while, one that always stays.
TRACE_IDS = st.sampled_from([1, 0xD0 << 48, 2**56 - 1])
SIZES = st.sampled_from([0, 10, 5_000, 70_000, 120_000, 400_000])


class PipelineMachine(RuleBasedStateMachine):
    """A pipeline of at most 20 items and a quarter of a MiB."""

    @initialize(
        strategy=st.sampled_from(["oldest", "newest", "sampling"]),
        threshold=st.integers(1, 4),
        batch=st.integers(1, 8),
        seed=st.integers(0, 9),
    )
    def begin(self, strategy, threshold, batch, seed):
        self.answer = delivered()
        self.next_number = 0
        self.is_shut_down = False
        self.arrived = []
        self.rejected = 0
        self.flushes = []
        self.broken_in_flight = []
        self.rig = Rig(
            otherwise=self.receive,
            timing=Timing(cooldown_initial=1.0, cooldown_max=4.0, backoff_max=1.0),
            seed=seed,
            max_size=20,
            max_memory_mb=0.25,
            max_export_batch_size=batch,
            drop_strategy=strategy,
            circuit_breaker_threshold=threshold,
            schedule_delay=1.0,
        )

    def receive(self, batch):
        """Judge as told; remember what was taken."""
        try:
            self.check_limits()
        except AssertionError as broken:
            # The worker survives whatever a sender raises, so this must not be raised here.
            self.broken_in_flight.append(broken)
        numbers = span_numbers(batch)
        assert len(numbers) == batch.items
        answer = self.answer
        if answer.outcome is Outcome.DELIVERED:
            self.arrived.extend(numbers[answer.rejected :])
            self.rejected += len(numbers[: answer.rejected])
        return answer

    @rule(count=st.integers(1, 12), size=SIZES, is_error=st.booleans(), trace_id=TRACE_IDS)
    def offer(self, count, size, is_error, trace_id):
        for _ in range(count):
            self.rig.offer(self.next_number, size=size, is_error=is_error, trace_id=trace_id)
            self.next_number += 1

    @rule()
    def offer_something_that_is_no_span(self):
        self.rig.pipeline.offer(object())
        self.next_number += 1

    @rule(steps=st.integers(1, 8))
    def seal(self, steps):
        for _ in range(steps):
            self.rig.pipeline.seal_step()

    @rule(steps=st.integers(1, 4), verdict=VERDICTS)
    def deliver(self, steps, verdict):
        self.answer = verdict
        for _ in range(steps):
            self.rig.pipeline.deliver_step()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 5.0, 60.0]))
    def time_passes(self, seconds):
        self.rig.clock.advance(seconds)

    @rule(timeout=st.sampled_from([0.0, 0.5, 5.0]), verdict=VERDICTS)
    def flush(self, timeout, verdict):
        self.answer = verdict
        lost_before = self.lost()
        began = self.rig.clock.monotonic()

        has_succeeded = self.rig.pipeline.force_flush(timeout)

        assert self.rig.clock.monotonic() <= began + timeout + 1e-6
        if has_succeeded:
            assert self.rig.stats.queued == 0
            assert self.lost() == lost_before

    @precondition(lambda self: len(self.flushes) < 3)
    @rule()
    def begin_a_flush_that_is_left_to_itself(self):
        self.flushes.append(self.rig.pipeline.begin_flush(5.0))

    @precondition(lambda self: not self.is_shut_down and self.next_number > 30)
    @rule(timeout=st.sampled_from([0.0, 1.0, 5.0]), verdict=VERDICTS)
    def shut_down(self, timeout, verdict):
        self.answer = verdict
        self.is_shut_down = True
        began = self.rig.clock.monotonic()

        dropped_before = sum(self.rig.stats.dropped.values())

        is_clean = self.rig.pipeline.shutdown(timeout)

        assert self.rig.clock.monotonic() <= began + timeout + 1e-6
        assert is_clean == (sum(self.rig.stats.dropped.values()) == dropped_before)
        assert self.rig.stats.queued == 0
        assert self.rig.stats.memory_bytes == 0

    def lost(self):
        stats = self.rig.stats
        return stats.rejected + sum(stats.dropped.values())

    def check_limits(self):
        stats = self.rig.stats
        assert stats.unaccounted == 0
        assert sum(stats.rejected_by_cause.values()) == stats.rejected
        gone = stats.delivered + stats.rejected + sum(stats.dropped_attempted.values())
        assert gone <= stats.attempted <= stats.offered + stats.recovered
        assert stats.dropped.keys() == stats.dropped_bytes.keys() >= stats.dropped_attempted.keys()
        assert all(items <= stats.dropped[reason] for reason, items in stats.dropped_attempted.items())
        assert stats.queued + stats.in_flight <= 20
        assert 0 <= stats.memory_bytes <= stats.memory_peak_bytes <= 256 * 1024

    @invariant()
    def the_law_and_the_limits_hold(self):
        if not hasattr(self, "rig"):
            return
        self.check_limits()
        assert not self.broken_in_flight
        assert self.rig.stats.offered == self.next_number

    @invariant()
    def what_was_tried_is_delivered_refused_lost_or_held(self):
        if not hasattr(self, "rig"):
            return
        stats, buffer = self.rig.stats, self.rig.pipeline._buffer
        held = sum(each.batch.items for each in (*buffer._queue, *buffer._leases.values()) if each.is_attempted)
        lost = sum(stats.dropped_attempted.values())
        assert stats.attempted == stats.delivered + stats.rejected + lost + held
        assert stats.dropped.keys() == stats.dropped_bytes.keys() >= stats.dropped_attempted.keys()

    @invariant()
    def the_books_agree_with_the_receiver(self):
        if not hasattr(self, "rig"):
            return
        stats = self.rig.stats
        assert stats.delivered == len(self.arrived)
        assert len(set(self.arrived)) == len(self.arrived)
        # Beside what the receiver named, single items that it would not take at all.
        assert stats.rejected >= self.rejected

    @invariant()
    def what_is_charged_is_what_is_held(self):
        if not hasattr(self, "rig"):
            return
        buffer = self.rig.pipeline._buffer
        open_charge = sum(part.charge for part in self.rig.pipeline._sealer._open.values())
        if not self.is_shut_down:
            assert buffer._books.memory_bytes == buffer._intake.memory_bytes + buffer._queue.memory_bytes + open_charge

    def teardown(self):
        if not hasattr(self, "rig"):
            return
        self.answer = delivered()
        if not self.is_shut_down:
            self.rig.clock.advance(1000.0)
            self.rig.pipeline.force_flush(60.0)
            stats = self.rig.stats
            assert stats.queued == 0, "with a healthy endpoint everything leaves"
            assert stats.delivered + stats.rejected + sum(stats.dropped.values()) == self.next_number


TestPipelineMachine = PipelineMachine.TestCase
TestPipelineMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
