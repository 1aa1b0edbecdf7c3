"""The operating system's clocks behind the `Clock` seam; no other module reads the time.

Owns: no state. Threads: any. Invariants: `monotonic` never goes back.
"""

from __future__ import annotations

import time

from surgetank import threads


class SystemClock:
    """Real time. Thread-safe."""

    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)
    sleep = staticmethod(threads.sleep)
