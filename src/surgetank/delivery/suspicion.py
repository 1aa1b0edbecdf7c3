"""Who is at fault when a batch fails: the way to the receiver, which fails every batch alike, or this batch.

Owns: how many attempts got through and how many failed; what is counted of one batch is in its `HeldBatch`.
Threads: one delivery thread. It does no I/O and is told the time.
Invariants: a failure that others share never costs a batch anything. Only what fails while others get through is taken for poison.

An overloaded or flapping receiver fails good batches, too. So "others got through" means that more than
`DELIVERIES_PER_FAILURE` batches were delivered for each other one that failed since this one was last tried.
"""

from __future__ import annotations

from typing import Final

from surgetank.delivery.backoff import exponential
from surgetank.model import HeldBatch, Outcome, Verdict

# A batch that fails this often in a row steps behind the others, so that another one is the next to be tried …
FAILURES_BEFORE_ASIDE: Final = 3
# … for this long (seconds), doubling each time.
ASIDE_INITIAL: Final = 5.0
ASIDE_MAX: Final = 300.0
# One that was refused this often while others got through is taken for poison …
STRIKES_MAX: Final = 5
# … or cut off, or left without an answer, this often.
STRIKES_MAX_UNANSWERED: Final = 10
DELIVERIES_PER_FAILURE: Final = 4
# One that gets no answer in time this often is cut in halves, for a receiver that is slow …
TIMEOUTS_BEFORE_SPLIT: Final = 3
# … by our clock, or by its own, or by that of a gateway in front of it …
TIMEOUT_CAUSES: Final = frozenset({"timeout", "408", "504", "DEADLINE_EXCEEDED"})
# … and so is one that the receiver puts off ("try again in …") this often while others get through …
DEFERRALS_BEFORE_SPLIT: Final = 10
# … down to so many items, or an outage in which nothing answers would turn a backlog into crumbs.
SPLIT_ITEMS_MIN: Final = 32


class Suspicion:
    """One signal's."""

    def __init__(self) -> None:
        self._deliveries = 0
        self._failures = 0

    def deliver(self) -> None:
        """Note that a batch got through."""
        self._deliveries += 1

    def fail(self, held: HeldBatch, verdict: Verdict, now: float, *, others_wait: bool) -> Outcome:
        """
        Note that a batch failed.

        Args:
            held: The batch; it is set aside when it has failed too often in a row.
            verdict: The answer, if any came.
            now: Monotonic seconds.
            others_wait: Whether there is another batch to try in its place.

        Returns:
            What is to be done with it: `RETRY` or `HOLD`, `SPLIT`, or `PERMANENT` for what is taken for poison.
        """
        is_alone = self._has_failed_alone(held)
        self._failures += 1
        if verdict.sent:
            held.refused_after, held.failed_after = self._deliveries, self._failures
            self._count(held, verdict, is_alone=is_alone)
            if self._is_poison(held, verdict):
                return Outcome.PERMANENT
            if _is_too_slow(held) and held.batch.items >= 2 * SPLIT_ITEMS_MIN:
                return Outcome.SPLIT
            self.set_aside(held, now, others_wait=others_wait)
        return verdict.outcome

    def set_aside(self, held: HeldBatch, now: float, *, others_wait: bool) -> None:
        """Count a failure that nothing is learnt from but that the batch was in it; let others go first when there are too many."""
        held.failures_in_a_row += 1
        if held.failures_in_a_row >= FAILURES_BEFORE_ASIDE and others_wait:
            held.failures_in_a_row = 0
            times = held.strikes + held.deferrals + 1
            held.due_at = now + exponential(times, initial=ASIDE_INITIAL, factor=2, ceiling=ASIDE_MAX)

    def _has_failed_alone(self, held: HeldBatch) -> bool:
        deliveries, failures = self._deliveries - held.refused_after, self._failures - held.failed_after
        return held.refused_after >= 0 and deliveries > DELIVERIES_PER_FAILURE * failures

    def _count(self, held: HeldBatch, verdict: Verdict, *, is_alone: bool) -> None:
        held.timeouts += verdict.cause in TIMEOUT_CAUSES
        if verdict.retry_after is None:
            held.strikes += is_alone
        else:
            # Good batches are put off, too; it never costs one.
            held.deferrals += is_alone

    def _is_poison(self, held: HeldBatch, verdict: Verdict) -> bool:
        limit = STRIKES_MAX if verdict.reached else STRIKES_MAX_UNANSWERED
        return verdict.retry_after is None and held.strikes >= limit


def _is_too_slow(held: HeldBatch) -> bool:
    return held.timeouts >= TIMEOUTS_BEFORE_SPLIT or held.deferrals >= DEFERRALS_BEFORE_SPLIT
