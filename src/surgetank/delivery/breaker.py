"""The circuit breaker: after enough failures in a row, stop trying for a while, then try once.

Owns: the state, the count of failures in a row, the end of the cooldown.
Threads: none of its own; the pipeline's lock guards it. It does no I/O and is told the time.
Invariants: the state changes only along `TRANSITIONS`; while half open, at most one probe is out.

              TRIP                      COOL
    closed ─────────▶ open ─────────────────▶ half_open
       ▲                ▲                       │   │
       │                └───────── TRIP ────────┘   │
       └───────────────────────── PASS ─────────────┘

TRIP: the threshold is reached, or one answer that people must repair (401, 404 …).
COOL: the cooldown has passed, or another signal's probe got through to the same endpoint.
PASS: the probe got through.
"""

from __future__ import annotations

import enum
import random
from collections.abc import Mapping
from typing import Final

from surgetank.config import Timing
from surgetank.delivery.backoff import exponential, jittered
from surgetank.model import FOREVER, BreakerState


class Event(enum.Enum):
    """What can move the breaker."""

    TRIP = "trip"
    COOL = "cool"
    PASS = "pass"  # noqa: S105  # not a password


TRANSITIONS: Final[Mapping[BreakerState, Mapping[Event, BreakerState]]] = {
    BreakerState.CLOSED: {Event.TRIP: BreakerState.OPEN},
    BreakerState.OPEN: {Event.COOL: BreakerState.HALF_OPEN},
    BreakerState.HALF_OPEN: {Event.PASS: BreakerState.CLOSED, Event.TRIP: BreakerState.OPEN},
}


class IllegalTransitionError(AssertionError):
    """A move that the table does not hold; a programmer's mistake, and nothing was changed."""


class Breaker:
    """
    One signal's breaker.

    Args:
        threshold: Consecutive failures that open it.
        timing: Cooldowns: `cooldown_initial`, times `cooldown_factor` on each failed
            probe, at most `cooldown_max`, in seconds, jittered.
        rng: The source of jitter.
    """

    def __init__(self, threshold: int, timing: Timing, rng: random.Random) -> None:
        self.state = BreakerState.CLOSED
        self.failures = 0
        self._threshold = threshold
        self._timing = timing
        self._rng = rng
        self._trips = 0
        self._cooled_at = 0.0
        self._probe_is_out = False

    def allowed_at(self) -> float:
        """Return the moment from which a batch may be sent: 0 when closed, infinity while a probe is out."""
        if self.state is BreakerState.OPEN:
            return self._cooled_at
        return FOREVER if self._probe_is_out else 0.0

    def begin(self, now: float) -> None:
        """Note that a batch is being sent; while not closed it is the probe."""
        assert now >= self.allowed_at(), "a batch was sent against the breaker's word"
        if self.state is BreakerState.OPEN:
            self._move(Event.COOL)
        if self.state is BreakerState.HALF_OPEN:
            self._probe_is_out = True

    def cancel(self) -> None:
        """Note that nothing was learnt from what was being sent: another may be the probe."""
        self._probe_is_out = False

    def succeed(self, now: float) -> None:
        """Note that the endpoint took or conclusively answered a batch."""
        self._probe_is_out = False
        self.failures = 0
        if self.state is BreakerState.OPEN:
            # The batch left before other evidence opened the breaker: the endpoint
            # is back, but one late answer is no reason to skip the probe.
            self.hasten(now)
        elif self.state is BreakerState.HALF_OPEN:
            self._move(Event.PASS)
            self._trips = 0

    def fail(self, now: float, *, trip: bool = False) -> None:
        """Note a failure; `trip` opens the breaker whatever the count."""
        self._probe_is_out = False
        self.failures += 1
        has_enough = self.state is BreakerState.CLOSED and (trip or self.failures >= self._threshold)
        if has_enough or self.state is BreakerState.HALF_OPEN:
            self._open(now)

    def hear_failure(self, now: float) -> None:
        """Note that another signal could not reach the same endpoint."""
        if self.state is BreakerState.CLOSED:
            self.fail(now)

    def hear_success(self) -> None:
        """Note that another signal's probe got through: ready for a probe of our own, at once."""
        if self.state is BreakerState.OPEN:
            self._move(Event.COOL)

    def hasten(self, now: float) -> None:
        """End the cooldown now: a late answer came, or the application wants a last try."""
        self._cooled_at = min(self._cooled_at, now)

    def _open(self, now: float) -> None:
        self._move(Event.TRIP)
        self._trips += 1
        timing = self._timing
        cooldown = exponential(
            self._trips, initial=timing.cooldown_initial, factor=timing.cooldown_factor, ceiling=timing.cooldown_max
        )
        self._cooled_at = now + jittered(cooldown, timing.jitter, self._rng)

    def _move(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state][event]
        except KeyError:
            raise IllegalTransitionError(f"{event.value} is not a move from {self.state.value}") from None
