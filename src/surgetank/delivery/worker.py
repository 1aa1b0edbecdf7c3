"""The delivery worker of one signal: lease a batch, send it, act on the verdict.

Owns: the outlet (with a lock of its own) and the dissector.
Threads: `step` is called by one thread at a time; the rest from any thread.
Invariants: at most one batch is in flight. A step that is broken off, by whatever was raised and wherever, leaves nothing
behind: its lease and its permission to send are ended in one place (`_end`), at once or by the next step before anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from surgetank import threads
from surgetank.delivery.dissection import Dissection, Dissector
from surgetank.delivery.outlet import Evidence, Outlet
from surgetank.delivery.suspicion import ASIDE_MAX, Suspicion
from surgetank.model import FOREVER, Attempt, BreakerState, Clock, HeldBatch, Outcome, Sender, Verdict

# The shortest time that an attempt is given when a shutdown deadline is near (seconds).
TIMEOUT_MIN: Final = 0.05
# An answer that could not be acted upon in so many attempts is forgotten, and the batch is sent again another time.
ENDINGS_MAX: Final = 2


class Store(Protocol):
    """What the worker needs of whoever holds batches. The seam exists because delivery knows neither buffer nor spool."""

    def lease(self, now: float) -> HeldBatch | None:
        """Take the next batch."""

    def put_back(self, held: HeldBatch) -> None:
        """Release it: it waits again."""

    def reclaim(self) -> None:
        """Have everything that is in flight wait again; called by the one worker after a step that was broken off."""

    def settle(
        self,
        held: HeldBatch,
        *,
        delivered: int,
        rejected: int,
        parts: Sequence[HeldBatch] = (),
        refusal: Verdict | None = None,
    ) -> None:
        """Close the lease; `refusal` says why items were rejected. Does nothing more for a lease that is closed."""

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


@dataclass(slots=True)
class _Lease:
    """A batch that is out, with the permission to send it, and how far its end has come."""

    held: HeldBatch
    began_at: float
    ended_at: float = 0.0
    verdict: Verdict | None = None
    """The answer; None while there is none."""
    outcome: Outcome | None = None
    """What is made of the answer; None before the outlet has learnt from it."""
    allowed_at: float = 0.0
    evidence: Evidence | None = None
    dissection: Dissection | None = None
    endings: int = 0
    """How often its end was begun."""

    @property
    def is_put_back(self) -> bool:
        """Whether the batch waits again, in the same form."""
        return self.outcome in (Outcome.RETRY, Outcome.HOLD)


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
        self._suspicion = Suspicion()
        self._deadline = FOREVER
        self._sending_until = FOREVER
        self._is_under_way = False
        """Whether a step has begun and not ended."""
        self._lease: _Lease | None = None
        """What that step has sent, or is about to."""
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
            self._recover()
        self._is_under_way = True
        try:
            rest = self._step()
        except BaseException:
            self._recover()
            raise
        self._is_under_way = False
        return rest

    def _recover(self) -> None:
        """End the lease and the permission of a step that was broken off: as the answer has it, or as if nothing had been sent."""
        lease = self._lease
        if lease is not None:
            if lease.verdict is not None and lease.endings < ENDINGS_MAX:
                self._end(lease, lease.verdict)
            else:
                # What fails each time, by a defect of ours, shall not keep the others waiting.
                self._suspicion.set_aside(lease.held, self._clock.monotonic(), others_wait=self._store.has_queued())
        with self._lock:
            self._outlet.cancel()
        self._sending_until = FOREVER
        self._store.reclaim()
        self._lease = None
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
        self._lease = lease = _Lease(held, now)
        lease.verdict = verdict = self._send(held, now)
        self._end(lease, verdict)
        self._lease = None
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

    def _end(self, lease: _Lease, verdict: Verdict) -> None:
        """
        End a lease by the answer: the permission to send, then the batch; the only place where that happens.

        Called again after it was broken off, it goes on where it was: what is done is not done twice.
        """
        lease.endings += 1
        if lease.outcome is None:
            lease.ended_at = self._clock.monotonic()
            lease.outcome = self._learn(lease, verdict)
        if lease.is_put_back:
            self._store.put_back(lease.held)
        else:
            self._settle(lease, verdict)
        if verdict.outcome.has_failed:
            self._store.give_up_flushes(lease.allowed_at)
        self.trouble = verdict if verdict.outcome.has_failed else None
        if lease.evidence is not None:
            self._observer.heard(self, lease.evidence)
        self._observer.settled(self, verdict)
        self._tell(lease, verdict)

    def _learn(self, lease: _Lease, verdict: Verdict) -> Outcome:
        """Have everybody who looks ahead learn from an answer; return what is to be done with the batch."""
        held, now, outcome = lease.held, lease.ended_at, verdict.outcome
        if outcome in (Outcome.RETRY, Outcome.HOLD):
            outcome = self._suspicion.fail(held, verdict, now, others_wait=self._store.has_queued())
        elif outcome is Outcome.DELIVERED:
            self._suspicion.deliver()
            self._dissector.delivered(held)
        with self._lock:
            lease.evidence = self._outlet.settle(verdict, now)
            lease.allowed_at = self._outlet.allowed_at()
        if held.due_at > now:
            # From the next attempt on, which shall be another's: a cooldown may be longer than what it was set aside for.
            held.due_at += max(0.0, min(lease.allowed_at, now + ASIDE_MAX) - now)
        return outcome

    def _settle(self, lease: _Lease, verdict: Verdict) -> None:
        held = lease.held
        if lease.outcome is Outcome.DELIVERED:
            rejected = min(verdict.rejected, held.batch.items)
            self._store.settle(held, delivered=held.batch.items - rejected, rejected=rejected)
            return
        if lease.dissection is None:
            assert lease.outcome is not None
            lease.dissection = self._dissect(held, lease.outcome)
        parts, rejected = lease.dissection.parts, lease.dissection.rejected
        self._store.settle(held, delivered=0, rejected=rejected, parts=parts, refusal=verdict)

    def _tell(self, lease: _Lease, verdict: Verdict) -> None:
        began_at, first = lease.began_at, lease.held.first_attempt_at
        attempt = Attempt(
            verdict=verdict,
            seconds=lease.ended_at - began_at,
            operation_seconds=None if lease.is_put_back else lease.ended_at - (began_at if first is None else first),
        )
        try:
            self._measure(attempt)
        except Exception:
            # Whoever measures runs code of the application's (views, exemplars); that must not cost the thread.
            pass

    def _dissect(self, held: HeldBatch, outcome: Outcome) -> Dissection:
        # The request in full, its halves, and their compressed copies, for a moment.
        with self._store.scratch(3 * held.batch.raw_size if held.batch.items > 1 else 0):
            return self._dissector.dissect(held, outcome)
