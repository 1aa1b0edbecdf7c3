"""When the next batch may go: one signal's breaker, backoff, `Retry-After` and pace, in one answer.

Owns: the breaker, the pacer, and the moments before which nothing may be sent.
Threads: none of its own; the pipeline's lock guards it. It does no I/O and is told the time.
Invariants: a moment that the receiver named is never undercut, neither by a flush nor by shutdown, unless it is further
away than `Timing.retry_after_max`.
"""

from __future__ import annotations

import enum
import random

from surgetank.config import Timing
from surgetank.delivery.backoff import exponential, jittered
from surgetank.delivery.breaker import Breaker
from surgetank.delivery.pacer import Pacer
from surgetank.model import BreakerState, Outcome, Verdict

# While the application waits for a flush or a shutdown, retries come at least this
# often (seconds): it has said that it would rather knock again than lose data.
HURRIED_WAIT = 0.5


class Evidence(enum.Enum):
    """What one signal learns about an endpoint that the others should hear."""

    UNREACHABLE = "unreachable"
    """No answer came at all; it counts as a failure for every signal there."""
    RESPONSIVE = "responsive"
    """A probe got through; every signal there may probe at once."""


class Outlet:
    """One signal's way out."""

    def __init__(self, threshold: int, timing: Timing, rng: random.Random) -> None:
        self.breaker = Breaker(threshold, timing, rng)
        self.pacer = Pacer()
        self._timing = timing
        self._rng = rng
        self._backoff_until = float("-inf")
        self._receiver_says = float("-inf")
        self._hurried = False

    @property
    def state(self) -> BreakerState:
        """The breaker's state."""
        return self.breaker.state

    @property
    def is_closed_off(self) -> bool:
        """Whether there is reason to believe that a batch would not get through now."""
        state = self.breaker.state
        return state is BreakerState.OPEN or (state is BreakerState.CLOSED and self.breaker.failures > 0)

    def allowed_at(self) -> float:
        """Return the moment (monotonic seconds) from which a batch may be sent; infinity while a probe is out."""
        pace = float("-inf") if self._hurried else self.pacer.allowed_at()
        return max(self.breaker.allowed_at(), self._backoff_until, self._receiver_says, pace)

    def receivers_wait(self, now: float) -> float:
        """Return the seconds for which the receiver has asked to be left alone, from now; 0 when it has not."""
        return max(0.0, self._receiver_says - now)

    def begin(self, now: float) -> None:
        """Note that a batch is being sent."""
        self.breaker.begin(now)
        self.pacer.sent(now)

    def cancel(self) -> None:
        """Note that what was being sent came to nothing: there is no answer to learn from."""
        self.breaker.cancel()

    def settle(self, verdict: Verdict, now: float) -> Evidence | None:
        """Learn from an answer; returns what the other signals of this endpoint should hear."""
        if verdict.outcome.has_failed:
            return self._fail(verdict, now)
        # A refusal of this one batch (400, 413) is a live endpoint all the same.
        was_probe = self.breaker.state is not BreakerState.CLOSED
        self.breaker.succeed(now)
        self._backoff_until = float("-inf")
        if was_probe:
            self.pacer.begin()
            return Evidence.RESPONSIVE
        self.pacer.succeed()
        return None

    def hear(self, evidence: Evidence, now: float) -> None:
        """Learn from another signal's attempt at the same endpoint."""
        if evidence is Evidence.UNREACHABLE:
            self.breaker.hear_failure(now)
        elif self.breaker.state is BreakerState.OPEN:
            self.breaker.hear_success()
            self._backoff_until = min(self._backoff_until, now)

    def hurry(self, now: float) -> None:
        """Try now, and go on trying briskly: someone waits. What the receiver asked for still holds."""
        self._hurried = True
        self._backoff_until = min(self._backoff_until, now)
        self.breaker.hasten(now)

    def begin_slowly(self) -> None:
        """Speed up step by step: there is a backlog of another process, and every process of a fleet may have one."""
        self.pacer.begin()

    def relax(self) -> None:
        """Nobody waits any more."""
        self._hurried = False

    def _fail(self, verdict: Verdict, now: float) -> Evidence | None:
        self.breaker.fail(now, trip=verdict.outcome is Outcome.HOLD)
        self.pacer.fail()
        timing = self._timing
        wait = exponential(
            self.breaker.failures,
            initial=timing.backoff_initial,
            factor=timing.backoff_factor,
            ceiling=timing.backoff_max,
        )
        if self._hurried:
            wait = min(wait, HURRIED_WAIT)
        self._backoff_until = now + jittered(wait, timing.jitter, self._rng)
        if self._hurried:
            self.breaker.hasten(self._backoff_until)
        if verdict.retry_after is not None:
            wait = min(verdict.retry_after, timing.retry_after_max)
            self._receiver_says = max(self._receiver_says, now + wait)
        return None if verdict.reached else Evidence.UNREACHABLE
