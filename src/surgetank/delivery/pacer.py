"""How fast a backlog leaves after an outage: additive increase, multiplicative decrease.

Owns: the rate and the moment of the last send.
Threads: none of its own; the pipeline's lock guards it. It is told the time.
Invariants: the rate stays between `RATE_MIN` and `RATE_FREE`; at `RATE_FREE` pacing ends.

A collector that has just come back is met by every process that waited for it.
If each sent its backlog at full speed, they would push it over again, so each
begins slowly and speeds up by a fixed step per success.
"""

from __future__ import annotations

from typing import Final

# Batches a second. At 512 items a batch, the first second after an outage already
# moves 2,500 items, and a receiver that answers has the whole line back after
# twenty batches.
RATE_INITIAL: Final = 5.0
RATE_STEP: Final = 5.0
RATE_MIN: Final = 1.0
RATE_FREE: Final = 100.0


class Pacer:
    """Free (no limit) until `begin` is called; then paced until the rate has grown to `RATE_FREE`."""

    def __init__(self) -> None:
        self.rate = RATE_FREE
        self._last_sent_at = float("-inf")

    @property
    def is_pacing(self) -> bool:
        """Whether sends are being spaced out."""
        return self.rate < RATE_FREE

    def allowed_at(self) -> float:
        """Return the moment from which the next batch may be sent."""
        return self._last_sent_at + 1 / self.rate if self.is_pacing else float("-inf")

    def begin(self) -> None:
        """Start slowly: an outage has just ended."""
        self.rate = RATE_INITIAL

    def sent(self, now: float) -> None:
        """Note a send."""
        self._last_sent_at = now

    def succeed(self) -> None:
        """Speed up by one step."""
        if self.is_pacing:
            self.rate = min(RATE_FREE, self.rate + RATE_STEP)

    def fail(self) -> None:
        """Halve the rate; does nothing when not pacing, where backoff alone decides."""
        if self.is_pacing:
            self.rate = max(RATE_MIN, self.rate / 2)
