"""The books of one signal: what came, what went, what is held; in items, and in bytes for what is held.

Owns: the counters.
Threads: none of its own; the buffer's lock guards it.
Invariants: the accounting law. Entries and exits are counted here; what is held is
counted where it is held, so that the law is a check and not a definition.
"""

from __future__ import annotations

from collections.abc import Mapping

from surgetank.frozen import Counts
from surgetank.model import BreakerState, DropReason, SignalStats


class Books:
    """Counts since the tank began in this process."""

    def __init__(self) -> None:
        self.offered = 0
        self.recovered = 0
        self.sealed = 0
        self.sealed_bytes = 0
        self.attempted = 0
        self.delivered = 0
        self.rejected = 0
        self.rejected_by_cause: dict[str, int] = {}
        """What `rejected` is made up of, by what the receiver answered."""
        self.dropped: dict[DropReason, int] = {}
        self.dropped_attempted: dict[DropReason, int] = {}
        """Of the dropped items, those that had been handed to the sender before."""
        self.has_dropped = False
        """Whether anything was dropped since whoever tells of it last looked."""
        self.dropped_bytes: dict[DropReason, int] = {}
        """What the dropped items were charged for, as far as that was known."""
        self.spooled = 0
        """On disk and not in memory: told by whoever moves them."""
        self.memory_items = 0
        """In memory, all stages together: what `max_size` limits."""
        self.memory_bytes = 0
        """Charged now, all copies together: what `max_memory_mb` limits."""
        self.memory_peak_bytes = 0

    def charge(self, items: int, size: int) -> None:
        """Note that more (or, with negative numbers, less) is held in memory."""
        self._note_peak()
        self.memory_items += items
        self.memory_bytes += size
        assert self.memory_items >= 0
        assert self.memory_bytes >= 0

    def _note_peak(self) -> None:
        # Before it can fall, and when it is asked for: an offer, which only raises it, need not look.
        if self.memory_bytes > self.memory_peak_bytes:
            self.memory_peak_bytes = self.memory_bytes

    def drop(self, reason: DropReason, items: int, size: int, *, attempted: int = 0) -> None:
        """Count items that are given up, the bytes that they were charged for, and how many were handed to the sender before."""
        self.has_dropped = True
        self.dropped[reason] = self.dropped.get(reason, 0) + items
        self.dropped_bytes[reason] = self.dropped_bytes.get(reason, 0) + size
        if attempted:
            self.dropped_attempted[reason] = self.dropped_attempted.get(reason, 0) + attempted

    def snapshot(
        self,
        *,
        queued: int,
        in_flight: int,
        stored: int,
        max_size: int,
        max_memory_bytes: int,
        breaker: BreakerState,
    ) -> SignalStats:
        """Return the books as one immutable record."""
        self._note_peak()
        return SignalStats(
            offered=self.offered,
            recovered=self.recovered,
            sealed=self.sealed,
            sealed_bytes=self.sealed_bytes,
            attempted=self.attempted,
            delivered=self.delivered,
            rejected=self.rejected,
            rejected_by_cause=Counts(dict(self.rejected_by_cause)),
            dropped=_by_name(self.dropped),
            dropped_attempted=_by_name(self.dropped_attempted),
            dropped_bytes=_by_name(self.dropped_bytes),
            queued=queued,
            in_flight=in_flight,
            spooled=self.spooled,
            stored=stored,
            memory_bytes=self.memory_bytes,
            memory_peak_bytes=self.memory_peak_bytes,
            max_size=max_size,
            max_memory_bytes=max_memory_bytes,
            breaker=breaker,
        )


def _by_name(counts: Mapping[DropReason, int]) -> Mapping[str, int]:
    return Counts({reason.value: count for reason, count in counts.items()})
