"""How long to wait after the n-th failure: exponential, capped, with jitter.

Owns: no state. Threads: any. Invariants: pure, given the random source.
"""

from __future__ import annotations

import random


def jittered(seconds: float, jitter: float, rng: random.Random) -> float:
    """Return `seconds` stretched or shrunk by a random share of at most `jitter`, so that a fleet does not march in step."""
    return seconds * rng.uniform(1 - jitter, 1 + jitter)


def exponential(count: int, *, initial: float, factor: float, ceiling: float) -> float:
    """
    Return the nominal wait in seconds after `count` failures in a row (1 and up).

    The exponent is capped because `factor ** count` overflows a float long
    before an outage ends.
    """
    return min(ceiling, initial * factor ** min(count - 1, 64))
