"""What the commands print: tables and sentences for people, one JSON object for programs, bars for those who wait.

Owns: no state. Threads: one.
Invariants: results go to standard output, everything else to standard error; bars are shown to terminals only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Final

from rich import progress as bars
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.control import Control
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table

from surgetank.drain import Delivery
from surgetank.lines import escaped
from surgetank.model import Signal
from surgetank.spool.check import Report
from surgetank.spool.export import Export
from surgetank.spool.repair import Repair
from surgetank.spool.survey import Holdings, Pile, Survey, age

# Where the output is no terminal nothing need be folded.
_WIDE: Final = 200
_UNITS: Final = ((86_400.0, "d"), (3600.0, "h"), (60.0, "min"))


def terminal(*, is_error: bool = False) -> Console:
    """Return where text goes to."""
    stream = sys.stderr if is_error else sys.stdout
    console = Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False, soft_wrap=True)
    return harmless(console)


def harmless(console: Console) -> Console:
    """Have a console print what comes from a file system or another process without obeying it, wherever it stands; returns it."""
    console.push_render_hook(_Harmless())
    return console


class _Harmless(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [each if isinstance(each, Control) else _Escaped(each) for each in renderables]


class _Escaped:
    """Something to print, with all that a terminal would obey in its text as escapes that can be read."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(escaped(segment.text), segment.style)


def is_seen() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def error(text: str) -> None:
    """Print why it cannot be done."""
    terminal(is_error=True).print(f"[bold red]error:[/] {escape(text)}")


def warn(text: str) -> None:
    """Print what is to be known."""
    terminal(is_error=True).print(f"[yellow]warning:[/] {escape(text)}")


def data(found: Mapping[str, Any], *, is_error: bool = False) -> None:
    """Print one JSON object."""
    stream = sys.stderr if is_error else sys.stdout
    stream.write(json.dumps(found, indent=2) + "\n")


def by_name(found: Mapping[Signal, Any]) -> dict[str, Any]:
    """Return it as JSON has it."""
    return {signal.value: value for signal, value in found.items()}


@contextmanager
def progress(verb: str, *, is_quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while work goes on, on a terminal; yields what is to be told how far it is."""
    console = terminal(is_error=True)
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True, disable=is_quiet or not console.is_terminal) as bar:
        task = bar.add_task(verb, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size(count: int) -> str:
    """Return bytes as people read them."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def duration(seconds: float | None) -> str:
    """Return a length of time as people read it."""
    if seconds is None:
        return "-"
    for length, unit in _UNITS:
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 10 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def counted(count: int, word: str, plural: str = "") -> str:
    """Return a number with its word."""
    return f"{count:,} {word if count == 1 else plural or word + ('es' if word.endswith('h') else 's')}"


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        is_number = heading in ("segments", "batches", "items", "bytes", "oldest")
        is_number |= heading in ("found", "delivered", "rejected", "lost", "left")
        table.add_column(heading, justify="right" if is_number else "left", no_wrap=True)
    return table


def surveys(found: list[Survey]) -> None:
    """Print the status of spools."""
    console = terminal()
    for number, each in enumerate(found):
        if number:
            console.print()
        _survey(console, each)


def _survey(console: Console, found: Survey) -> None:
    console.print(f"[bold]spool[/] {escape(found.path)}")
    if any(holding.piles for holding in found.holdings):
        console.print(_holdings(found))
    empty = [holding for holding in found.holdings if not holding.piles]
    if empty:
        living = sum(holding.owner.state == "living" for holding in empty)
        console.print(f"{counted(len(empty), 'owner')} with nothing stored ({living:,} living)")
    if not found.holdings:
        console.print("no owners: nothing waits here")
    if found.letters:
        oldest = duration(age(found.oldest_letter, found.now))
        console.print(
            f"{counted(found.letters, 'dead letter')} ({size(found.letter_bytes)}), the oldest {oldest} old; "
            "`surgetank spool export --dead-letters` shows them"
        )
    if found.backups:
        console.print(f"{counted(len(found.backups), 'backup')} of repaired segments: {', '.join(found.backups)}")
    unreadable = found.total("unreadable_segments")
    if unreadable:
        console.print(f"{counted(unreadable, 'segment')} cannot be read; `surgetank spool check` says why")


def _holdings(found: Survey) -> Table:
    table = _table("owner", "state", "signal", "lane", "segments", "batches", "items", "bytes", "oldest")
    for holding in found.holdings:
        for number, pile in enumerate(holding.piles):
            first = ("", "") if number else (holding.owner.name, _state(holding))
            table.add_row(*first, *_pile(pile, found.now))
    totals = [f"{found.total(name):,}" for name in ("segments", "pending_records", "pending_items")]
    table.add_row("total", "", "", "", *totals, size(found.total("bytes")), "", style="bold")
    return table


def _state(holding: Holdings) -> str:
    colour = {"living": "green", "dead": "yellow", "unreadable": "red"}[holding.owner.state]
    return f"[{colour}]{holding.owner.state}[/]"


def _pile(pile: Pile, now: float) -> tuple[str, ...]:
    signal = pile.signal.value + (" (encrypted)" if pile.encrypted_records else "")
    counts = (f"{count:,}" for count in (pile.segments, pile.pending_records, pile.pending_items))
    return signal, pile.lane.value, *counts, size(pile.bytes), duration(age(pile.oldest, now))


def report(found: Report) -> None:
    """Print what a check has found."""
    console = terminal()
    for file, findings in groupby(found.findings, key=lambda finding: finding.file):
        console.print(f"[bold]{escape(file)}[/]")
        for finding in findings:
            place = "" if finding.offset is None else f"at byte {finding.offset:,}: "
            cost = f", costs {counted(finding.items, 'item')}" if finding.items else ""
            word = f"[red]{finding.kind.value}[/]" if finding.is_damage else f"[dim]{finding.kind.value}[/]"
            console.print(f"  {word}  {place}{escape(finding.text)}{cost}")
    looked = (
        f"{counted(found.segments, 'segment')}, {counted(found.records, 'batch')}, {size(found.bytes)} and "
        f"{counted(found.letters, 'dead letter')} checked"
    )
    if not found.damage:
        console.print(f"{looked}: [green]no damage[/]")
        return
    console.print(
        f"{looked}: [red]{counted(len(found.damage), 'place')} damaged[/], {counted(found.lost_items, 'item')} lost; "
        "`surgetank spool repair` salvages what is good in the segments of dead owners"
    )


def exported(found: Export, output: str | None) -> None:
    """Say, on standard error, what was exported and what was not."""
    console = terminal(is_error=True)
    for key_id, items in found.locked.items():
        warn(f"{counted(items, 'item')} encrypted with key {key_id!r} skipped; give that key with --key-file")
    for trouble in found.troubles:
        warn(trouble)
    for (status, reason), items in found.refused.items():
        words = f": {reason}" if reason else ""
        console.print(escape(f"{counted(items, 'item')} refused with {status}{words}"))
    where = f" to {escape(output)}" if output else ""
    console.print(f"{counted(found.batches, 'batch')} with {counted(found.items, 'item')} exported{where}")


def _dead(found: Survey) -> dict[Signal, tuple[int, int]]:
    """Return batches and items of dead owners, by signal."""
    return {
        signal: (
            found.total("pending_records", state="dead", signal=signal),
            found.total("pending_items", state="dead", signal=signal),
        )
        for signal in Signal
    }


def _living(found: Survey) -> list[str]:
    return [holding.owner.name for holding in found.holdings if holding.owner.state == "living"]


def plan_data(found: Survey) -> dict[str, Any]:
    """Return what a drain is about as JSON has it."""
    return {
        "path": found.path,
        "planned": {signal.value: {"batches": pair[0], "items": pair[1]} for signal, pair in _dead(found).items()},
        "living_owners": _living(found),
    }


def plan(found: Survey, urls: Mapping[Signal, str]) -> None:
    """Print what a drain would send."""
    console = terminal()
    dead = _dead(found)
    console.print(f"[bold]spool[/] {escape(found.path)}")
    _say_living(console, found)
    if not any(batches for batches, _ in dead.values()):
        console.print("no dead owner has left anything: there is nothing to send")
        return
    table = _table("signal", "batches", "items", "to")
    for signal, (batches, items) in dead.items():
        if batches:
            table.add_row(signal.value, f"{batches:,}", f"{items:,}", escape(urls[signal]))
    console.print(table)
    console.print("nothing was sent and nothing was changed; [bold]--apply[/] sends it")


def _say_living(console: Console, found: Survey) -> None:
    living = _living(found)
    if living:
        console.print(f"{counted(len(living), 'living owner')} left alone: {', '.join(living)}")


def deliveries(found: Mapping[Signal, Delivery], planned: Survey) -> None:
    """Print what became of a drain."""
    console = terminal()
    _say_living(console, planned)
    if not any(each.books.recovered for each in found.values()):
        console.print("no dead owner has left anything that can be adopted: nothing was sent")
        return
    table = _table("signal", "found", "delivered", "rejected", "lost", "left")
    for signal, each in found.items():
        books = each.books
        lost = sum(books.dropped.values())
        if books.recovered:
            counts = (books.recovered, books.delivered, books.rejected, lost, each.left)
            table.add_row(signal.value, *(f"{count:,}" for count in counts))
    console.print(table)
    if any(each.books.rejected for each in found.values()):
        console.print("what was rejected is among the dead letters: `surgetank spool export --dead-letters`")
    for signal, each in found.items():
        for reason, items in each.books.dropped.items():
            console.print(f"[red]{signal.value}[/]: {counted(items, 'item')} lost: {reason}")
    for reason in dict.fromkeys(each.stopped for each in found.values() if each.stopped):
        # An endpoint that is gone is gone for all.
        signals = ", ".join(signal.value for signal, each in found.items() if each.stopped == reason)
        console.print(f"[yellow]{signals}[/]: {escape(reason)}; what is left stays in the spool")


def repairs(found: Repair, *, is_applied: bool) -> None:
    """Print what was repaired, or would be."""
    console = terminal()
    console.print(f"[bold]spool[/] {escape(found.path)}")
    if found.living:
        console.print(f"{counted(len(found.living), 'living owner')} left alone: {', '.join(found.living)}")
    for patient in found.patients:
        kinds = ", ".join(sorted({finding.kind.value for finding in patient.findings}))
        console.print(f"[bold]{escape(patient.file)}[/] ({kinds})")
        kept = f"{counted(patient.kept_records, 'batch')} with {counted(patient.kept_items, 'item')}"
        if patient.trouble:
            console.print(f"  [red]{escape(patient.trouble)}[/]")
        elif is_applied:
            console.print(f"  written anew with {kept}; {counted(patient.lost_items, 'item')} lost")
        else:
            console.print(f"  {kept} can be kept; {counted(patient.lost_items, 'item')} lost")
    for finding in found.others:
        console.print(f"[bold]{escape(finding.file)}[/]: {escape(finding.text)} (cannot be repaired)")
    if not found.patients:
        console.print("no dead owner has a damaged segment: there is nothing to repair")
    elif is_applied:
        console.print(
            f"the originals are in {escape(found.path)}/{found.backup}; remove them when you need them no more"
        )
    else:
        console.print("nothing was changed; [bold]--apply[/] writes them anew and keeps the originals in a backup")
