"""The delivery worker of one signal: lease a batch, send it, act on the verdict.

Owns: the outlet (with a lock of its own) and the dissector.
Threads: `step` is called by one thread at a time; the rest from any thread.
Invariants: at most one batch is in flight. A step that is broken off, by whatever was raised and wherever, leaves nothing
behind: its lease and its permission to send are ended at once, or by the next step before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol

from surgetank import threads
from surgetank.delivery.backoff import exponential
from surgetank.delivery.dissection import Dissection, Dissector
from surgetank.delivery.outlet import Evidence, Outlet
from surgetank.model import FOREVER, Attempt, BreakerState, Clock, HeldBatch, Outcome, Sender, Verdict

# A batch that fails this often in a row steps behind the others, so that another one is the next to be tried …
FAILURES_BEFORE_ASIDE: Final = 3
# … for this long (seconds), doubling each time …
ASIDE_INITIAL: Final = 5.0
ASIDE_MAX: Final = 300.0
# … and when it was refused this often while others got through, it is taken for poison …
STRIKES_MAX: Final = 5
# … or cut off, or left without an answer, this often: on a bad network good batches are, too.
STRIKES_MAX_UNANSWERED: Final = 10
# A batch that gets no answer in time this often is cut in halves, for a receiver that is slow …
TIMEOUTS_BEFORE_SPLIT: Final = 3
# … down to so many items, or an outage in which nothing answers would turn a backlog into crumbs.
SPLIT_ITEMS_MIN: Final = 32

# The shortest time that an attempt is given when a shutdown deadline is near (seconds).
TIMEOUT_MIN: Final = 0.05


class Store(Protocol):
    """What the worker needs of whoever holds batches. The seam exists because delivery knows neither buffer nor spool."""

    def lease(self, now: float) -> HeldBatch | None:
        """Take the next batch."""

    def put_back(self, held: HeldBatch) -> None:
        """Release it: it waits again."""

    def reclaim(self) -> None:
        """Have everything that is in flight wait again; called by the one worker, when it has nothing in flight."""

    def settle(
        self,
        held: HeldBatch,
        *,
        delivered: int,
        rejected: int,
        parts: Sequence[HeldBatch] = (),
        refusal: Verdict | None = None,
    ) -> None:
        """Close the lease; `refusal` says why items were rejected."""

    def scratch(self, size: int) -> AbstractContextManager[None]:
        """Charge for working memory."""

    def has_queued(self) -> bool:
        """Whether another batch waits."""

    def give_up_flushes(self, not_before: float) -> None:
        """Fail the flushes that no attempt can come in time for."""


class Observer(Protocol):
    """Whoever speaks for the endpoint that several workers share; called without any lock held."""

    def heard(self, worker: Worker, evidence: Evidence) -> None:
        """Pass `evidence` on to the other workers."""

    def settled(self, worker: Worker, verdict: Verdict) -> None:
        """Take note of an answer, after the worker has acted on it."""


class Worker:
    """
    One signal's worker.

    Args:
        store: Where batches come from.
        sender: What carries them.
        outlet: When one may go.
        observer: Who shares evidence and tells people.
        timeout: Seconds for one attempt.
        measure: Told of each attempt, without any lock held.
    """

    def __init__(
        self,
        store: Store,
        sender: Sender,
        outlet: Outlet,
        observer: Observer,
        clock: Clock,
        *,
        timeout: float,
        measure: Callable[[Attempt], None] = lambda _: None,
    ) -> None:
        self._measure = measure
        self.trouble: Verdict | None = None
        """The answer to the last attempt, where that failed."""
        self._store = store
        self._sender = sender
        self._outlet = outlet
        self._observer = observer
        self._clock = clock
        self._timeout = timeout
        self._dissector = Dissector()
        self._deliveries = 0
        self._deadline = FOREVER
        self._sending_until = FOREVER
        self._is_under_way = False
        """Whether a step has begun and not ended."""
        # Re-entrant, for signal handlers that flush.
        self._lock = threads.new_rlock()

    @property
    def breaker(self) -> BreakerState:
        """The breaker's state."""
        return self._outlet.state

    @property
    def is_closed_off(self) -> bool:
        """Whether the last attempt failed or the breaker is not closed."""
        return self._outlet.is_closed_off

    def receivers_wait(self) -> float:
        """Return the seconds for which the receiver has asked to be left alone, from now. A look without the lock."""
        return self._outlet.receivers_wait(self._clock.monotonic())

    def step(self) -> float:
        """
        Send at most one batch.

        Returns:
            Seconds until the next call is worth while: 0 at once, infinity when woken.
        """
        if self._is_under_way:
            self._reclaim()
        self._is_under_way = True
        try:
            rest = self._step()
        except BaseException:
            self._reclaim()
            raise
        self._is_under_way = False
        return rest

    def _reclaim(self) -> None:
        """End the lease and the permission of a step that was broken off."""
        with self._lock:
            self._outlet.cancel()
        self._sending_until = FOREVER
        self._store.reclaim()
        self._is_under_way = False

    def _step(self) -> float:
        now = self._clock.monotonic()
        with self._lock:
            allowed_at = self._outlet.allowed_at()
        if allowed_at > now:
            self._store.give_up_flushes(allowed_at)
            return allowed_at - now
        held = self._store.lease(now)
        if held is None:
            return FOREVER
        with self._lock:
            # Evidence from another signal may have come since the first look.
            may_send = self._outlet.allowed_at() <= now
            if may_send:
                self._outlet.begin(now)
        if not may_send:
            self._store.put_back(held)
            return 0.0
        verdict = self._send(held, now)
        ended_at = self._clock.monotonic()
        has_ended = self._settle(held, verdict)
        self._tell(held, verdict, now, ended_at, has_ended=has_ended)
        return 0.0

    def hear(self, evidence: Evidence) -> None:
        """Learn from another signal's attempt at the same endpoint."""
        now = self._clock.monotonic()
        with self._lock:
            self._outlet.hear(evidence, now)

    def hurry(self, deadline: float | None = None) -> None:
        """Knock now and briskly: somebody waits; with a deadline (monotonic seconds), no attempt outlasts it."""
        now = self._clock.monotonic()
        with self._lock:
            self._outlet.hurry(now)
            if deadline is not None:
                self._deadline = deadline

    def begin_slowly(self) -> None:
        """Speed up step by step, as after an outage."""
        with self._lock:
            self._outlet.begin_slowly()

    def relax(self) -> None:
        """Nobody waits any more."""
        with self._lock:
            self._outlet.relax()

    def overdue_at(self) -> float:
        """Return the moment after which the attempt under way should be aborted; infinity when none is."""
        return min(self._sending_until, self._deadline) if self._sending_until != FOREVER else FOREVER

    def abort(self) -> None:
        """Break off the attempt under way."""
        self._sending_until = FOREVER
        self._sender.abort()

    def _send(self, held: HeldBatch, now: float) -> Verdict:
        timeout = max(TIMEOUT_MIN, min(self._timeout, self._deadline - now))
        held.attempts += 1
        if held.first_attempt_at is None:
            held.first_attempt_at = now
        # A receiver that drips bytes can outlast every socket time-out; the watch is for that.
        self._sending_until = now + timeout + 1.0
        try:
            return self._sender.send(held.batch, timeout)
        except Exception as error:
            # A sender's defect must cost neither the batch nor the thread.
            return Verdict(outcome=Outcome.RETRY, cause=type(error).__name__, reached=False, message=str(error)[:200])
        finally:
            self._sending_until = FOREVER

    def _tell(self, held: HeldBatch, verdict: Verdict, began_at: float, ended_at: float, *, has_ended: bool) -> None:
        first = began_at if held.first_attempt_at is None else held.first_attempt_at
        attempt = Attempt(
            verdict=verdict,
            seconds=ended_at - began_at,
            operation_seconds=ended_at - first if has_ended else None,
        )
        try:
            self._measure(attempt)
        except Exception:
            # Whoever measures runs code of the application's (views, exemplars); that must not cost the thread.
            pass

    def _settle(self, held: HeldBatch, verdict: Verdict) -> bool:
        """Act on an answer; return whether the batch has come to its end, in this form."""
        now = self._clock.monotonic()
        outcome = verdict.outcome
        if outcome in (Outcome.RETRY, Outcome.HOLD):
            outcome = self._suspect(held, verdict, now)
        if outcome is Outcome.DELIVERED:
            self._deliveries += 1
            self._dissector.delivered(held)
            rejected = min(verdict.rejected, held.batch.items)
            self._store.settle(held, delivered=held.batch.items - rejected, rejected=rejected)
        elif outcome in (Outcome.RETRY, Outcome.HOLD):
            self._store.put_back(held)
        else:
            dissection = self._dissect(held, outcome)
            self._store.settle(held, delivered=0, rejected=dissection.rejected, parts=dissection.parts, refusal=verdict)
        with self._lock:
            evidence = self._outlet.settle(verdict, now)
            allowed_at = self._outlet.allowed_at()
        if held.due_at > now:
            # From the next attempt on, which shall be another's: a cooldown may be longer than what it was set aside for.
            held.due_at += max(0.0, min(allowed_at, now + ASIDE_MAX) - now)
        if verdict.outcome.has_failed:
            self._store.give_up_flushes(allowed_at)
        self.trouble = verdict if verdict.outcome.has_failed else None
        if evidence is not None:
            self._observer.heard(self, evidence)
        self._observer.settled(self, verdict)
        return outcome not in (Outcome.RETRY, Outcome.HOLD)

    def _dissect(self, held: HeldBatch, outcome: Outcome) -> Dissection:
        # The request in full, its halves, and their compressed copies, for a moment.
        with self._store.scratch(3 * held.batch.raw_size if held.batch.items > 1 else 0):
            return self._dissector.dissect(held, outcome)

    def _suspect(self, held: HeldBatch, verdict: Verdict, now: float) -> Outcome:
        """
        Keep count of a batch's failures, and return what is to be done with it.

        An outage fails every batch alike, and never costs one: only what fails while others get through is taken for poison.
        """
        if not verdict.sent or verdict.retry_after is not None:
            return verdict.outcome
        held.failures_in_a_row += 1
        if 0 <= held.refused_after < self._deliveries:
            held.strikes += 1
        held.refused_after = self._deliveries
        if held.strikes >= (STRIKES_MAX if verdict.reached else STRIKES_MAX_UNANSWERED):
            return Outcome.PERMANENT
        held.timeouts += verdict.cause == "timeout"
        if held.timeouts >= TIMEOUTS_BEFORE_SPLIT and held.batch.items >= 2 * SPLIT_ITEMS_MIN:
            return Outcome.SPLIT
        if held.failures_in_a_row >= FAILURES_BEFORE_ASIDE and self._store.has_queued():
            held.failures_in_a_row = 0
            held.due_at = now + exponential(held.strikes + 1, initial=ASIDE_INITIAL, factor=2, ceiling=ASIDE_MAX)
        return verdict.outcome
