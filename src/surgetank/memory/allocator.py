"""Giving memory back: freed pages to the system, and garbage that waits for its collection.

Owns: `Relief` owns the moment before which it collects no more.
Threads: `trim` from any; a `Relief` from one at a time.
Invariants: `trim` never raises; collections that free nothing become rare (one in five minutes), and no more than a
hundredth of the time goes into collections.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Final

from surgetank.clock import SystemClock
from surgetank.model import Clock

FIRST_WAIT: Final = 5.0
"""Seconds after a collection that was worth while; twice as long after one that was not, and so on."""
LONGEST_WAIT: Final = 300.0
"""Seconds after the latest of many collections that were not worth while."""
# A collection that frees less than this part of what was asked for was not worth while.
_WORTH_WHILE: Final = 0.05
# A full collection holds the GIL for as long as it takes, so after one the application runs undisturbed for this many times as long.
_PAUSES: Final = 99.0


def trim() -> bool:
    """
    Return freed memory to the system; say whether any was.

    glibc keeps what is freed between blocks that are in use, which is where bodies of requests lie. Other allocators
    give back by themselves or not at all, so there this does nothing.
    """
    try:
        # Not part of every Python, and not needed until memory runs short.
        import ctypes

        return bool(ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0)))
    except Exception:
        return False


class Relief:
    """
    Collects garbage when memory runs short, as long as that helps.

    Args:
        used: Returns the bytes that are used, or None; a probe's figure.
        clock: Tells the time.
        collect: Collects garbage.
        give_back: Returns freed memory to the system, without which a collection would not show.
    """

    def __init__(
        self,
        used: Callable[[], int | None],
        clock: Clock | None = None,
        *,
        collect: Callable[[], object] = gc.collect,
        give_back: Callable[[], object] = trim,
    ) -> None:
        self._used = used
        self._clock = SystemClock() if clock is None else clock
        self._collect = collect
        self._give_back = give_back
        self._wait = FIRST_WAIT
        self._ready_at = float("-inf")

    def relieve(self, asked: int) -> int:
        """
        Try to free `asked` bytes, unless it is too early to try again; return how many were freed.

        An application that has turned automatic collection off has its reasons, and is left alone.
        """
        began = self._clock.monotonic()
        if began < self._ready_at or not gc.isenabled():
            return 0
        before = self._used()
        self._collect()
        self._give_back()
        after = self._used()
        freed = 0 if before is None or after is None else max(0, before - after)
        ended = self._clock.monotonic()
        is_worth_while = freed > 0 and freed >= asked * _WORTH_WHILE
        self._wait = FIRST_WAIT if is_worth_while else min(LONGEST_WAIT, self._wait * 2)
        self._ready_at = ended + max(self._wait, (ended - began) * _PAUSES)
        return freed
