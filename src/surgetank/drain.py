"""Delivery of what dead processes have left in a spool, by somebody who waits for it: until it is gone, or no patience is left.

Owns: the disk, and for each signal a buffer, a reservoir and a worker, for as long as it lasts.
Threads: the caller's alone.
Invariants: living owners' folders are left alone; what is not delivered or refused stays on disk, and nothing is
given up for its age or for want of room; each signal stops after so many failures in a row.

The worker is the one that every tank has, so retries, halves, poison and dead letters are what they are there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from surgetank.buffer.buffer import Buffer
from surgetank.config import MEBIBYTE, SignalLimits, Timing
from surgetank.delivery.outlet import Evidence, Outlet
from surgetank.delivery.worker import Worker
from surgetank.model import FOREVER, Clock, Outcome, Sender, Signal, SignalStats, Verdict
from surgetank.reservoir import Reservoir
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import Filesystem
from surgetank.spool.settings import SpoolSettings
from surgetank.spool.spool import Spool

# Failures in a row after which a signal is given up for this time.
ATTEMPTS: Final = 8
# A receiver that asks for more patience than this (seconds) is left for another time.
PATIENCE: Final = 60.0
# The longest single wait (seconds), after which batches that were set aside are looked for again.
_REST_MAX: Final = 1.0
# Room for whatever one batch may be: the limits of the process that sealed it are not known.
_ROOM: Final = 1024 * MEBIBYTE
_ITEMS_MAX: Final = 100_000_000
# A year, or a petabyte: what lies there is to be sent, not judged.
_NEVER: Final = 1e12
_NO_LIMIT: Final = 2**50


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of one signal."""

    books: SignalStats
    stopped: str
    """Why it ended before everything was sent; empty if it did not."""

    @property
    def left(self) -> int:
        """Items that are still on disk."""
        return self.books.spooled + self.books.queued + self.books.in_flight

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "found": self.books.recovered,
            "delivered": self.books.delivered,
            "rejected": self.books.rejected,
            "lost": dict(self.books.dropped),
            "left": self.left,
            "stopped": self.stopped or None,
        }


class Drain:
    """
    One draining of a spool; used once.

    Args:
        path: The spool's folder.
        filesystem: The way to the disk.
        clock: Time.
        senders: Each signal's way to the network.
        timeout: Seconds for one attempt.
        attempts: Failures in a row after which a signal is given up.
        key_text: Returns the encryption keys; None for none.
        timing: Backoff; the cooldown never comes, since we stop before.

    Raises:
        ConfigError: The encryption key is not usable.
    """

    def __init__(
        self,
        path: str,
        filesystem: Filesystem,
        clock: Clock,
        senders: Mapping[Signal, Sender],
        *,
        timeout: float = 10.0,
        attempts: int = ATTEMPTS,
        key_text: Callable[[], str] | None = None,
        timing: Timing | None = None,
    ) -> None:
        settings = SpoolSettings(
            path=path,
            max_bytes=_NO_LIMIT,
            max_age=_NEVER,
            reserve_bytes=0,
            dead_letter_bytes=_ROOM,
            key_text=key_text,
        )
        self._clock = clock
        self._senders = senders
        self._disk = Disk(settings, filesystem, clock)
        self._lines = {
            signal: _Line(self._disk, signal, sender, clock, timeout, attempts, timing or Timing())
            for signal, sender in senders.items()
        }

    def run(self, progress: Callable[[int, int], None]) -> dict[Signal, Delivery]:
        """
        Adopt what dead owners have left, and deliver it.

        Args:
            progress: Told after each attempt how many items are dealt with, and of how many.

        Returns:
            What became of each signal.
        """
        try:
            self._disk.adopt_orphans()
            while True:
                if self._disk.folder.has_place:
                    self._disk.adopt_orphans()
                    for line in self._lines.values():
                        line.go_on()
                rests = [line.step() for line in self._lines.values() if not line.is_over]
                books = [line.delivery().books for line in self._lines.values()]
                progress(sum(map(_settled, books)), sum(each.recovered for each in books))
                if not rests:
                    break
                if (rest := min(rests)) > 0:
                    self._clock.sleep(min(rest, _REST_MAX))
            return {signal: line.delivery() for signal, line in self._lines.items()}
        finally:
            # What is held in memory is on disk as well; it waits there for the next who comes.
            self._disk.close()
            for sender in self._senders.values():
                sender.close()


def _settled(books: SignalStats) -> int:
    return books.delivered + books.rejected + sum(books.dropped.values())


class _Line:
    """One signal's delivery, and the observer of its worker."""

    def __init__(
        self,
        disk: Disk,
        signal: Signal,
        sender: Sender,
        clock: Clock,
        timeout: float,
        attempts: int,
        timing: Timing,
    ) -> None:
        self._spool: Spool = disk.spools[signal]
        self._attempts = attempts
        self._clock = clock
        self._failures = 0
        self._stopped = ""
        self.is_over = False
        self._buffer = Buffer(_limits(attempts), on_work=lambda: None)
        self._reservoir = Reservoir(self._buffer, clock, self._spool, persist="all", dead_letters=disk.dead_letters)
        # The breaker would only make us wait for what is given up before.
        outlet = Outlet(attempts + 1, timing, random.Random())
        self._worker = Worker(self._reservoir, sender, outlet, self, clock, timeout=timeout)

    def step(self) -> float:
        """Send at most one batch; return the seconds until the next step is worth while."""
        rest = self._worker.step()
        if rest == FOREVER:
            # What is still there has been set aside, for others to go first.
            self.is_over = not self._spool.has_available
        elif rest > PATIENCE and not self._stopped:
            self._stopped = f"the endpoint asks for {rest:.0f} s of patience"
        self.is_over = self.is_over or bool(self._stopped)
        return 0.0 if self.is_over else rest

    def go_on(self) -> None:
        """Look again: more was adopted."""
        self.is_over = bool(self._stopped)

    def delivery(self) -> Delivery:
        """Return the books so far."""
        left = self._spool.available_items()
        stopped = self._stopped
        if self.is_over and not stopped and left:
            stopped = "the rest is encrypted with a key that was not given, or cannot be read"
        return Delivery(self._buffer.stats(self._worker.breaker), stopped)

    def heard(self, worker: Worker, evidence: Evidence) -> None:
        """Each signal finds out for itself: it may have a URL of its own."""

    def settled(self, worker: Worker, verdict: Verdict) -> None:
        """Count failures; what people must repair is not tried again."""
        said = f"{verdict.cause}: {verdict.message}" if verdict.message else verdict.cause
        if verdict.outcome is Outcome.HOLD:
            self._stopped = f"the endpoint must be mended first ({said})"
        elif verdict.outcome is Outcome.RETRY:
            self._failures += 1
            if self._failures >= self._attempts:
                self._stopped = f"{self._failures} failures in a row ({said})"
        else:
            self._failures = 0


def _limits(attempts: int) -> SignalLimits:
    return SignalLimits(
        max_size=_ITEMS_MAX,
        max_bytes=_ROOM,
        drop_strategy="oldest",
        persist="all",
        circuit_breaker_threshold=attempts + 1,
        max_export_batch_size=512,
        max_batch_bytes=4 * MEBIBYTE,
        schedule_delay=1.0,
    )
