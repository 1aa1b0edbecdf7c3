"""The end of the play: do the books balance, and the table that says so.

Owns: no state. Threads: any.
Invariants: pure; the same evidence gives the same verdict. The application's own count, the tank's books and
the collector's count come from three places that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from demo.figures import MEBIBYTE, Mode, Report, Status, books_as_data
from surgetank.model import Signal

# A collector that is killed after it took a batch and before it answered leaves one batch per signal in
# doubt, and delivery at least once sends it again: `max_export_batch_size`, whose default this is.
IN_DOUBT_MAX: Final = 512

TITLES: Final[Mapping[Mode, str]] = {"ours": "surgetank", "stock": "stock SDK"}
_ABSENT: Final = "-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one application, its telemetry and its collector say at the end."""

    status: Status
    """The application's last line."""
    report: Report
    """The collector's count."""
    kills: int = 1
    """How often the collector was killed."""
    worst_unaccounted: int = 0
    """The most that the books left over in any status line of the run."""
    log_lines: int = 0
    """Lines that the application logged."""

    def lost(self, signal: Signal) -> int:
        """Return items that were made and never arrived; for metrics, what is missing from the counter's total."""
        if signal is Signal.METRICS:
            return int(self.status.counter_total - self.report.counter_total)
        return self.status.made[signal] - self.report.arrived[signal].unique


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    section: str
    figure: str
    values: tuple[str, ...]
    """One for each application."""


def judge(evidence: Evidence) -> list[str]:
    """Return what is wrong, a sentence each; nothing when the books balance."""
    if not evidence.status.books:
        return ["no books were kept"]
    faults = [fault for signal in Signal for fault in _faults(signal, evidence)]
    if evidence.worst_unaccounted:
        faults.append(f"the books left over {evidence.worst_unaccounted:,} items at some moment of the run")
    return faults


def _faults(signal: Signal, evidence: Evidence) -> Iterator[str]:
    name = signal.value
    books, limits = evidence.status.books[signal], evidence.status.limits[signal]
    arrived = evidence.report.arrived[signal]
    gone = sum(books.dropped.values()) + books.rejected
    if books.unaccounted:
        yield f"{name}: {books.unaccounted:,} items are unaccounted for"
    if books.offered != books.delivered + gone:
        yield f"{name}: {books.offered:,} offered, but {books.delivered:,} delivered and {gone:,} dropped or rejected"
    if arrived.unique != books.delivered:
        yield f"{name}: {books.delivered:,} delivered by the books, but {arrived.unique:,} arrived"
    if arrived.duplicates > IN_DOUBT_MAX * evidence.kills:
        yield f"{name}: {arrived.duplicates:,} came twice, which {evidence.kills} killed collectors cannot explain"
    if books.memory_peak_bytes > limits.max_bytes:
        yield f"{name}: {books.memory_peak_bytes:,} bytes were held, {limits.max_bytes:,} are allowed"
    if signal is Signal.METRICS:
        yield from _counter_faults(evidence, gone)
        return
    made = evidence.status.made[signal]
    if made != books.offered:
        yield f"{name}: {made:,} made, but {books.offered:,} offered"
    if made != arrived.unique + gone:
        yield f"{name}: {made:,} made, but {arrived.unique:,} arrived and {gone:,} dropped or rejected"


def _counter_faults(evidence: Evidence, gone: int) -> Iterator[str]:
    recorded, came = evidence.status.counter_total, evidence.report.counter_total
    # A data point that was dropped, and counted as such, takes its part of the total with it.
    if came > recorded or (came < recorded and not gone):
        yield f"metrics: the counter recorded {recorded:,}, but the deltas that arrived add up to {came:,}"


def table(cast: Mapping[Mode, Evidence]) -> list[Row]:
    """Return the final table, a column for each application."""
    rows = []

    def add(section: str, figure: str, values: list[str]) -> None:
        rows.append(Row(section, figure, tuple(values)))

    everyone = list(cast.values())
    for signal in Signal:
        name = signal.value
        if signal is Signal.METRICS:
            add(name, "counted by the application", [f"{it.status.counter_total:,}" for it in everyone])
            add(name, "arrived, as the sum of all deltas", [f"{it.report.counter_total:,}" for it in everyone])
            add(name, "data points made", [_offered(it) for it in everyone])
            add(name, "data points delivered once", [f"{it.report.arrived[signal].unique:,}" for it in everyone])
        else:
            add(name, "made", [f"{it.status.made[signal]:,}" for it in everyone])
            add(name, "delivered once", [f"{it.report.arrived[signal].unique:,}" for it in everyone])
        add(name, "duplicates", [f"{it.report.arrived[signal].duplicates:,}" for it in everyone])
        add(name, "dropped, by reason", [_dropped(it, signal) for it in everyone])
        if any(not it.status.books for it in everyone):
            add(name, "lost", [f"{it.lost(signal):,}" for it in everyone])
        add(name, "peak memory of the limit", [_peak(it, signal) for it in everyone])
    add("process", "peak memory, resident", [f"{it.status.rss_peak_bytes / MEBIBYTE:,.0f} MiB" for it in everyone])
    add("process", "lines logged", [f"{it.log_lines:,}" for it in everyone])
    return rows


def sentence(evidence: Evidence) -> str:
    """Return the verdict on balanced books in one line."""
    signals = (Signal.SPANS, Signal.LOGS)
    made = sum(evidence.status.made[signal] for signal in signals)
    arrived = sum(evidence.report.arrived[signal].unique for signal in signals)
    again = sum(evidence.report.arrived[signal].duplicates for signal in Signal)
    twice = "nothing twice" if not again else f"{again:,} items twice (in doubt when the collector was killed)"
    return (
        f"The books balance: {made:,} spans and log records made = {arrived:,} delivered + {made - arrived:,} dropped; "
        f"{twice}; metrics total {evidence.report.counter_total:,} of {evidence.status.counter_total:,}."
    )


def as_data(evidence: Evidence) -> dict[str, Any]:
    """Return the evidence as plain data, for JSON."""
    status, report = evidence.status, evidence.report
    data: dict[str, Any] = {
        signal.value: {
            "made": status.made[signal],
            "arrived": asdict(report.arrived[signal]),
            "lost": evidence.lost(signal),
            "books": books_as_data(status.books[signal]) if status.books else None,
            "limits": asdict(status.limits[signal]) if status.limits else None,
        }
        for signal in Signal
    }
    return {
        **data,
        "counter": {"recorded": status.counter_total, "arrived": report.counter_total},
        "kills": evidence.kills,
        "worst_unaccounted": evidence.worst_unaccounted,
        "rss_peak_bytes": status.rss_peak_bytes,
        "log_lines": evidence.log_lines,
    }


def _offered(evidence: Evidence) -> str:
    books = evidence.status.books
    return f"{books[Signal.METRICS].offered:,}" if books else _ABSENT


def _dropped(evidence: Evidence, signal: Signal) -> str:
    books = evidence.status.books.get(signal)
    if books is None:
        return "not counted"
    reasons = {**books.dropped, **({"rejected": books.rejected} if books.rejected else {})}
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items())) or "0"


def _peak(evidence: Evidence, signal: Signal) -> str:
    books, limits = evidence.status.books.get(signal), evidence.status.limits.get(signal)
    if books is None or limits is None:
        return "no limit"
    return f"{books.memory_peak_bytes / MEBIBYTE:.2f} of {limits.max_bytes / MEBIBYTE:.0f} MiB"
