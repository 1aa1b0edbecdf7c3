"""What holds items in front of a door, such as a batch processor before an exporter: emptied before a tank is.

Owns: the list of one tank's sources.
Threads: any; each drawing has a thread of its own, because a source is not ours and may hang, and because the caller may
be a signal handler that interrupted the very source.
Invariants: a drawing returns in time, and never raises.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

_logger: Final = logging.getLogger("surgetank")


class Sources:
    """The sources of one tank; each is drawn once, however often it was named."""

    def __init__(self) -> None:
        self._flushes: dict[Callable[[], object], None] = {}

    def add(self, flush: Callable[[], object]) -> None:
        """Name a source by what has it hand over what it holds."""
        self._flushes[flush] = None

    def draw(self, timeout: float) -> bool:
        """Have all hand over what they hold; returns whether they did so in `timeout` seconds, and none raised."""
        if not self._flushes:
            return True
        done = threading.Event()
        failed: list[Callable[[], object]] = []

        def draw() -> None:
            failed.extend(flush for flush in list(self._flushes) if not _succeeds(flush))
            done.set()

        try:
            threading.Thread(target=draw, name="surgetank-sources", daemon=True).start()
        except RuntimeError:
            # The interpreter is ending and starts no more threads.
            draw()
        return done.wait(max(0.0, timeout)) and not failed


def _succeeds(flush: Callable[[], object]) -> bool:
    try:
        flush()
    except Exception:
        # A provider raises where an exporter of the application's fails; the others are drawn all the same.
        _logger.debug("flushing what stands before the tank failed", exc_info=True)
        return False
    return True
