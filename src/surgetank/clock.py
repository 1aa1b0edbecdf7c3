"""The operating system's clocks behind the `Clock` seam; no other module reads the time.

Owns: no state. Threads: any.
Invariants: `monotonic` never goes back, and goes on while a test of the application's has frozen Python's clocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from surgetank import threads


def _real(name: str, clock_id: str) -> Callable[[], float]:
    """
    Return what a function of `time` does while nobody has replaced it.

    freezegun replaces the functions by name, in every module that has them; a deadline on a clock that stands still never
    comes. It leaves the system's clocks alone. Where there are none, as on Windows, the function as it was when the
    package was imported has to do, or what freezegun remembers.
    """
    if hasattr(time, clock_id):
        return partial(time.clock_gettime, getattr(time, clock_id))
    frozen: Any = sys.modules.get("freezegun.api")
    real: Callable[[], float] = getattr(frozen, f"real_{name}", getattr(time, name))
    return real


# On macOS, Python's monotonic clock is the one that stands still while the machine sleeps.
monotonic: Final = _real("monotonic", "CLOCK_UPTIME_RAW" if hasattr(time, "CLOCK_UPTIME_RAW") else "CLOCK_MONOTONIC")
now: Final = _real("time", "CLOCK_REALTIME")


def ahead() -> float:
    """Return the seconds by which the real time is ahead of what Python's `time` says: 0 unless that has been replaced."""
    return now() - time.time()


class SystemClock:
    """Real time. Thread-safe."""

    monotonic = staticmethod(monotonic)
    now = staticmethod(now)
    sleep = staticmethod(threads.sleep)
