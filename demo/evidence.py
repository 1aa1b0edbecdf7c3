"""What can be known at the end of the play: the words of each life of an application, and its collector's count.

Owns: no state. Threads: any.
Invariants: pure. Sums are over both lives, that of the killed process as far as it could still tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from demo.figures import STATUS_INTERVAL, Report, Status
from surgetank.model import DropReason, Signal, SignalStats

# A process that is killed after a batch was taken and before it was known to be leaves one batch per signal
# in doubt, and delivery at least once sends it again: `max_export_batch_size`, whose default this is.
IN_DOUBT_MAX: Final = 512
# A batch is sealed at the latest 0.8 s (`schedule_delay`) after its first item; the rest is for sealing and storing it.
UNSEALED_SECONDS: Final = 1.0
# Reasons for which only what was on disk is given up.
_OFF_DISK: Final = (DropReason.SPOOL_FULL.value, DropReason.EXPIRED.value, DropReason.DAMAGED.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """An application that was killed."""

    status: Status
    """Its last line before."""
    made: Mapping[Signal, int]
    """What it had made when it died, by its notebook; an item that was just being made is among it."""
    counter_total: int
    """The same for the counter."""
    unsealed_max: int
    """How many spans, or log records, of it may not have been sealed."""


def unsealed_max(rate: float) -> int:
    """Return how many of the items that are made at `rate` a second may die unsealed."""
    return int(rate * (UNSEALED_SECONDS + STATUS_INTERVAL))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one application, its telemetry and its collector say at the end."""

    status: Status
    """The application's last line."""
    report: Report
    """The collector's count."""
    killed: Killed | None = None
    """The application's first life, if it was killed."""
    kills: int = 1
    """How often the collector was killed."""
    worst_unaccounted: int = 0
    """The most that the books left over in any status line of the run."""
    log_lines: int = 0
    """Lines that the application logged."""

    @property
    def lives(self) -> list[Status]:
        """The last line of each life."""
        return [self.status] if self.killed is None else [self.killed.status, self.status]

    @property
    def has_books(self) -> bool:
        """Whether the telemetry accounts for what it is given."""
        return all(status.books for status in self.lives)

    @property
    def counter_total(self) -> int:
        """The sum of everything that was added to the counter."""
        return self.status.counter_total + (self.killed.counter_total if self.killed else 0)

    @property
    def rss_peak_bytes(self) -> int:
        """The highest resident memory of either process."""
        return max(status.rss_peak_bytes for status in self.lives)

    @property
    def duplicates_max(self) -> int:
        """How many items of a signal may have come twice."""
        return IN_DOUBT_MAX * (self.kills + (self.killed is not None))

    def books(self, signal: Signal) -> list[SignalStats]:
        """Return a signal's books, one for each life."""
        return [status.books[signal] for status in self.lives]

    def made(self, signal: Signal) -> int:
        """Return what the application made."""
        return self.status.made[signal] + (self.killed.made[signal] if self.killed else 0)

    def offered(self, signal: Signal) -> int:
        """Return what was handed to the tank, as far as a line could still tell."""
        return sum(books.offered for books in self.books(signal))

    def delivered(self, signal: Signal) -> int:
        """Return what the receiver has taken, by the books."""
        return sum(books.delivered for books in self.books(signal))

    def dropped(self, signal: Signal) -> dict[str, int]:
        """Return what was given up, by reason, and what was `rejected`."""
        reasons: Counter[str] = Counter()
        for books in self.books(signal):
            reasons.update({**books.dropped, "rejected": books.rejected})
        return {reason: count for reason, count in sorted(reasons.items()) if count}

    def gone(self, signal: Signal) -> int:
        """Return what was given up or rejected, and counted as such."""
        return sum(self.dropped(signal).values())

    def sealed(self, signal: Signal) -> int:
        """Return what the first life had on disk when it last spoke."""
        return self.killed.status.on_disk(signal) if self.killed else 0

    def recovered(self, signal: Signal) -> int:
        """Return what the second life found on disk."""
        return self.status.books[signal].recovered

    def died(self, signal: Signal) -> int:
        """
        Return what died with the first life: made, never settled, and not found on disk.

        Of the data points, which the SDK makes on its own, only those are known that a line still told of.
        """
        if self.killed is None:
            return 0
        books = self.killed.status.books[signal]
        made = books.offered if signal is Signal.METRICS else self.killed.made[signal]
        settled = books.delivered + books.rejected + sum(books.dropped.values())
        died = made - settled - self.recovered(signal)
        return max(0, died) if signal is Signal.METRICS else died

    def lost_of_sealed(self, signal: Signal) -> int:
        """Return what was sealed and is gone: not found again, given up on disk, or delivered by the books only."""
        not_found = max(0, self.sealed(signal) - self.recovered(signal))
        given_up = sum(self.dropped(signal).get(reason, 0) for reason in _OFF_DISK)
        not_arrived = max(0, self.delivered(signal) - self.report.arrived[signal].unique)
        return not_found + given_up + not_arrived

    def lost(self, signal: Signal) -> int:
        """Return items that were made and never arrived; for metrics, what is missing from the counter's total."""
        if signal is Signal.METRICS:
            return int(self.counter_total - self.report.counter_total)
        return self.made(signal) - self.report.arrived[signal].unique


def as_data(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence as plain data, for JSON."""
    return {
        **{signal.value: _signal_as_data(evidence, signal) for signal in Signal},
        "counter": {"recorded": evidence.counter_total, "arrived": evidence.report.counter_total},
        "kills": {"collector": evidence.kills, "application": int(evidence.killed is not None)},
        "worst_unaccounted": evidence.worst_unaccounted,
        "rss_peak_bytes": evidence.rss_peak_bytes,
        "log_lines": evidence.log_lines,
    }


def _signal_as_data(evidence: Evidence, signal: Signal) -> dict[str, Any]:
    data: dict[str, Any] = {
        "made": evidence.made(signal),
        "arrived": asdict(evidence.report.arrived[signal]),
        "lost": evidence.lost(signal),
    }
    if not evidence.has_books:
        return data
    return {
        **data,
        "sealed_before_kill": evidence.sealed(signal),
        "recovered": evidence.recovered(signal),
        "died_unsealed": evidence.died(signal),
        "lost_of_sealed": evidence.lost_of_sealed(signal),
        "books": [books.as_data() for books in evidence.books(signal)],
        "limits": asdict(evidence.status.limits[signal]),
    }
