"""The end of the play: do the books balance, and the table that says so.

Owns: no state. Threads: any.
Invariants: pure; the same evidence gives the same verdict. The application's own count, the tank's books and
the collector's count come from three places that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from demo.evidence import Evidence
from demo.figures import MEBIBYTE, Mode
from surgetank.model import Signal

TITLES: Final[Mapping[Mode, str]] = {"ours": "surgetank", "stock": "stock SDK"}
# The figures of a table that ought to be 0.
LOSSES: Final = ("lost", "lost of what was sealed")
# What is not known or does not apply.
ABSENT: Final = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    section: str
    figure: str
    values: tuple[str, ...]
    """One for each application."""


def exit_code(*acts: Sequence[str]) -> int:
    """Return the demo's exit code, given what is wrong with each of its acts: 0 if nothing is, and 1 otherwise."""
    return 1 if any(acts) else 0


def judge(evidence: Evidence) -> list[str]:
    """Return what is wrong, a sentence each; nothing when the books balance."""
    if not evidence.has_books:
        return ["no books were kept"]
    faults = [fault for signal in Signal for fault in _faults(signal, evidence)]
    if evidence.worst_unaccounted:
        faults.append(f"the books left over {evidence.worst_unaccounted:,} items at some moment of the run")
    return faults


def _faults(signal: Signal, evidence: Evidence) -> Iterator[str]:
    name = signal.value
    delivered, arrived = evidence.delivered(signal), evidence.report.arrived[signal]
    limit = evidence.status.limits[signal].max_bytes
    for books in evidence.books(signal):
        if books.unaccounted:
            yield f"{name}: {books.unaccounted:,} items are unaccounted for"
        if books.memory_peak_bytes > limit:
            yield f"{name}: {books.memory_peak_bytes:,} bytes were held, {limit:,} are allowed"
    yield from _end_faults(signal, evidence)
    if arrived.unique != delivered:
        yield f"{name}: {delivered:,} delivered by the books, but {arrived.unique:,} arrived"
    if arrived.duplicates > evidence.duplicates_max:
        yield f"{name}: {arrived.duplicates:,} came twice, more than the batches that the kills left in doubt"
    if evidence.killed is not None:
        yield from _kill_faults(signal, evidence)
    if lost := evidence.lost_of_sealed(signal):
        yield f"{name}: {lost:,} items were sealed, and are lost"
    yield from _counter_faults(evidence) if signal is Signal.METRICS else _item_faults(signal, evidence)


def _end_faults(signal: Signal, evidence: Evidence) -> Iterator[str]:
    """Yield what is wrong with the books of the process that ended by itself, which may hold nothing any more."""
    books = evidence.status.books[signal]
    gone = sum(books.dropped.values()) + books.rejected
    came = f"{books.offered:,} offered" + (f" and {books.recovered:,} recovered" if books.recovered else "")
    if books.offered + books.recovered != books.delivered + gone:
        yield (
            f"{signal.value}: {came}, but {books.delivered:,} delivered, {gone:,} dropped or rejected "
            f"and {books.spooled:,} still on disk at the end"
        )


def _kill_faults(signal: Signal, evidence: Evidence) -> Iterator[str]:
    """Yield what the kill of the application cost beyond what it must."""
    assert evidence.killed is not None
    name, died = signal.value, evidence.died(signal)
    sealed, recovered = evidence.sealed(signal), evidence.recovered(signal)
    if recovered < sealed:
        yield f"{name}: {sealed:,} were on disk before the kill, but {recovered:,} recovered after it"
    # When data points are made is the reader's business, and no rate says how many.
    if signal is not Signal.METRICS and not 0 <= died <= evidence.killed.unsealed_max:
        yield f"{name}: {died:,} died unsealed with the process; 0 to {evidence.killed.unsealed_max:,} can be explained"


def _item_faults(signal: Signal, evidence: Evidence) -> Iterator[str]:
    name = signal.value
    for status in evidence.lives:
        made, offered = status.made[signal], status.books[signal].offered
        if made != offered:
            yield f"{name}: {made:,} made, but {offered:,} offered"
    made, arrived = evidence.made(signal), evidence.report.arrived[signal].unique
    gone, died = evidence.gone(signal), evidence.died(signal)
    if made != arrived + gone + died:
        yield f"{name}: {made:,} made, but {arrived:,} arrived, {gone:,} dropped or rejected and {died:,} died"


def _counter_faults(evidence: Evidence) -> Iterator[str]:
    recorded, came = evidence.counter_total, evidence.report.counter_total
    # A data point that was dropped, and counted as such, takes its part of the total with it.
    may_miss = evidence.gone(Signal.METRICS) > 0
    if came > recorded or (came < recorded and not may_miss and evidence.killed is None):
        yield f"metrics: the counter recorded {recorded:,}, but the deltas that arrived add up to {came:,}"
    # What was neither collected nor sealed died with the process, and how much that was nobody knows. So the
    # total may fall short, but never by anything that the second life has added.
    second = evidence.status.counter_total
    if evidence.killed is not None and came < second and not may_miss:
        yield f"metrics: the second life alone recorded {second:,}, but the deltas that arrived add up to {came:,}"


def table(cast: Mapping[Mode, Evidence]) -> list[Row]:
    """Return the final table, a column for each application."""
    everyone = list(cast.values())
    is_compared = any(not it.has_books for it in everyone)
    was_killed = any(it.killed is not None for it in everyone)
    rows: list[Row] = []

    def add(section: str, figure: str, value: Callable[[Evidence], str]) -> None:
        rows.append(Row(section, figure, tuple(value(it) for it in everyone)))

    for signal in Signal:
        for figure, value in _figures(signal, is_compared=is_compared, was_killed=was_killed).items():
            add(signal.value, figure, value)
    add("process", "peak memory, resident", lambda it: f"{it.rss_peak_bytes / MEBIBYTE:,.0f} MiB")
    add("process", "lines logged", lambda it: f"{it.log_lines:,}")
    return rows


def _figures(signal: Signal, *, is_compared: bool, was_killed: bool) -> dict[str, Callable[[Evidence], str]]:
    """Return a signal's rows: the figure's name and how to read it from the evidence."""
    is_metrics = signal is Signal.METRICS
    unit = "data points " if is_metrics else ""
    figures: dict[str, Callable[[Evidence], str]] = {}
    if is_metrics:
        figures["counted by the application"] = lambda it: f"{it.counter_total:,}"
        figures["arrived, as the sum of all deltas"] = lambda it: f"{it.report.counter_total:,}"
        if was_killed:
            figures["died uncollected with the process"] = _of_books(lambda it: it.lost(signal))
        figures["data points made"] = _of_books(lambda it: it.offered(signal))
    else:
        figures["made"] = lambda it: f"{it.made(signal):,}"
    figures[f"{unit}delivered once"] = lambda it: f"{it.report.arrived[signal].unique:,}"
    if was_killed:
        figures[f"{unit}recovered from disk"] = _of_books(lambda it: it.recovered(signal))
        figures["data points died unsealed" if is_metrics else "died unsealed with the process"] = _of_books(
            lambda it: it.died(signal)
        )
        figures["lost of what was sealed"] = _of_books(lambda it: it.lost_of_sealed(signal))
    figures["duplicates"] = lambda it: f"{it.report.arrived[signal].duplicates:,}"
    figures["dropped, by reason"] = lambda it: _dropped(it, signal)
    if is_compared:
        figures["lost"] = lambda it: f"{it.lost(signal):,}"
    figures["peak memory of the limit"] = lambda it: _peak(it, signal)
    return figures


def _of_books(figure: Callable[[Evidence], int]) -> Callable[[Evidence], str]:
    """Return how to read a figure that only books can tell."""
    return lambda evidence: f"{figure(evidence):,}" if evidence.has_books else ABSENT


def sentence(evidence: Evidence) -> str:
    """Return the verdict on balanced books in one line, and another about a kill."""
    signals = (Signal.SPANS, Signal.LOGS)
    made, gone, died = (sum(map(figure, signals)) for figure in (evidence.made, evidence.gone, evidence.died))
    recovered = sum(map(evidence.recovered, Signal))
    arrived = sum(evidence.report.arrived[signal].unique for signal in signals)
    again = sum(evidence.report.arrived[signal].duplicates for signal in Signal)
    twice = "nothing twice" if not again else f"{again:,} items twice (in doubt at a kill)"
    total = f"metrics total {evidence.report.counter_total:,} of {evidence.counter_total:,}"
    fates = f"{arrived:,} delivered + {gone:,} dropped"
    if evidence.killed is None:
        return f"The books balance: {made:,} spans and log records made = {fates}; {twice}; {total}."
    return (
        f"The books balance: {made:,} spans and log records made = {fates} + {died:,} died unsealed; {twice}.\n"
        f"Of what was sealed when the application was killed, 0 lost: {recovered:,} items recovered from disk.\n"
        f"Checked one way only: {total}; what was not yet collected and sealed died with the process."
    )


def _dropped(evidence: Evidence, signal: Signal) -> str:
    if not evidence.has_books:
        return "not counted"
    return ", ".join(f"{reason} {count:,}" for reason, count in evidence.dropped(signal).items()) or "0"


def _peak(evidence: Evidence, signal: Signal) -> str:
    if not evidence.has_books:
        return "no limit"
    peak = max(books.memory_peak_bytes for books in evidence.books(signal))
    return f"{peak / MEBIBYTE:.2f} of {evidence.status.limits[signal].max_bytes / MEBIBYTE:.0f} MiB"
