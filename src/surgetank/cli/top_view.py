"""How tanks look in a terminal: one line of it each for what is said, so that it is known how much fits.

Owns: no state. Threads: any.
Invariants: no line is wider than asked for, nor are there more than asked for; what colours say is said in words or signs
too.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from surgetank.cli.show import counted, duration, size
from surgetank.cli.top_columns import COLOURS, TROUBLE, Cell, Column, Page, chosen, level, percent, rate, short
from surgetank.cli.top_readings import UNREADABLE, SignalReading
from surgetank.cli.top_watch import DIED, ENDED, LOSING, STATES, Shown, Totals, totals
from surgetank.model import Signal

# From this width on, a tank in one line has all its figures.
_ROOMY: Final = 100
# A tank writes at least once a minute, however little happens.
_SILENT: Final = 90.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """What there is to be seen at one moment."""

    tanks: list[Shown]
    now: float
    """Seconds since the epoch."""
    host: str
    folders: Mapping[str, str]
    """Where was looked, and why nothing was found there."""
    is_filtered: bool
    """Whether only some tanks were asked for."""
    note: str
    """How often this changes, and how it ends."""


def draw(frame: Frame, page: Page) -> list[Text]:
    """Return the lines of a frame."""
    head = list(_head(frame, totals(frame.tanks), page))
    if not frame.tanks:
        lines = [*head, Text(), *_nobody(frame, page)]
    else:
        columns = chosen(page.width)
        room = None if page.height is None else page.height - len(head)
        lines = head + _body(frame, page, columns, room)
    return [page.fitted(line) for line in lines[: page.height]]


def _head(frame: Frame, all_of: Totals, page: Page) -> Iterator[Text]:
    line = Text.assemble(
        ("surgetank top", "bold"), f"  {frame.host}  ", (counted(all_of.processes, "process", "processes"), "bold")
    )
    if all_of.tanks != all_of.processes:
        line.append(f", {counted(all_of.tanks, 'tank')}")
    for state in STATES:
        if all_of.states.get(state) and state not in (ENDED, DIED):
            line.append(f"  {page.sign(state)} {all_of.states[state]:,} {state}", COLOURS[state])
    right = f"{time.strftime('%H:%M:%S', time.localtime(frame.now))}  {frame.note}".rstrip()
    gap = page.width - line.cell_len - len(right)
    if gap < 2:
        right, gap = right[:8], page.width - line.cell_len - 8
    if gap >= 2:
        line.append(" " * gap + right, "dim")
    yield line
    for is_long in (True, False):
        figures = _figures(all_of, is_long=is_long)
        if figures.cell_len <= page.width:
            break
    yield figures


def _figures(all_of: Totals, *, is_long: bool) -> Text:
    rates = all_of.rates
    held, disk = (f" ({size(each)})" if is_long else "" for each in (all_of.held_bytes, all_of.spool_bytes))
    figures = [
        ("in", f"{rate(rates.offered)}/s" if rates else "-"),
        ("out", f"{rate(rates.delivered)}/s" if rates else "-"),
        ("held", short(all_of.held) + held),
        ("on disk", short(all_of.on_disk) + disk),
        ("lost", short(all_of.lost) + (f" (+{rate(rates.lost)}/s)" if rates and rates.lost else "")),
    ]
    line = Text()
    for name, figure in figures:
        is_bad = name == "lost" and bool(rates and rates.lost)
        line.append("   " if line else "").append(f"{name} ", "dim").append(figure, "bold red" if is_bad else "bold")
    return line


def _nobody(frame: Frame, page: Page) -> Iterator[Text]:
    if frame.is_filtered:
        yield Text("No process that was asked for has a tank here.", "bold")
    else:
        yield Text("No process with a tank is to be seen.", "bold")
    yield Text("Looked in:")
    for path, trouble in frame.folders.items():
        line = Text.assemble(f"  {path}", (f"  ({trouble})" if trouble else "", "yellow"))
        # Whole, over as many lines as it takes: it is what is to be looked at next.
        yield from line.divide(range(page.width, len(line), page.width))
    yield Text()
    yield Text("A process is seen from the moment it makes a tank, unless")
    yield Text("- SURGETANK_STATUS_ENABLED=false is set for it, or")
    yield Text("- SURGETANK_STATUS_DIR is set for it, and for this command is not (--dir), or")
    yield Text("- it runs as another user (run this as that user, or as root), or")
    yield Text("- it runs in a container (run this inside it, or share a folder: docs/top.md).")


def _body(frame: Frame, page: Page, columns: list[tuple[Column, int]], room: int | None) -> list[Text]:
    """Return as much of the tanks as there is room for: those that fare worst in full, the others in a line each."""
    blocks = [list(_block(tank, frame, page, columns)) for tank in frame.tanks]
    headings = Text()
    for column, width in columns:
        headings += column.cell(Text(column.heading), width)
    headings.stylize("dim underline" if page.is_unicode else "dim")
    # Those that have gone are a line each, and need no room between them.
    are_gone = [tank.is_gone for tank in frame.tanks]
    gaps = [[] if are_gone[number : number + 2] == [True, True] else [Text()] for number in range(len(blocks))]
    spaced = [line for block, gap in zip(blocks, gaps, strict=True) for line in (*block, *gap)][:-1]
    if room is None or len(spaced) + 1 <= room:
        return [headings, *spaced]
    lines = [_line(tank, page) for tank in frame.tanks]
    for full in range(len(blocks), 0, -1):
        found = [line for block in blocks[:full] for line in block] + lines[full:]
        if len(found) + 1 <= room:
            return [headings, *found]
    # Not even a line for each: the worst one in full, and how many are not to be seen.
    if len(blocks[0]) + 3 <= room and not frame.tanks[0].is_gone:
        seen = min(len(lines), room - 1 - len(blocks[0]))
        return [headings, *blocks[0], *lines[1:seen], _more(frame.tanks[seen:])]
    seen = max(0, room - 1)
    return [*lines[:seen], _more(frame.tanks[seen:])]


def _more(hidden: list[Shown]) -> Text:
    by_state = ", ".join(
        f"{count:,} {state}" for state in STATES if (count := sum(tank.state == state for tank in hidden))
    )
    return Text(f"… and {len(hidden):,} more ({by_state}); --pid and --service choose", "bold")


def _title(tank: Shown, page: Page) -> Text:
    word = tank.state.upper() if tank.state == LOSING else tank.state
    reading = tank.reading
    number = str(reading.pid) if reading.pid else "?"
    title = Text.assemble((f"{page.sign(tank.state)} {word:<11}", COLOURS[tank.state]), (f"{number:<8}", "bold"))
    return title.append(reading.name, "bold")


def _line(tank: Shown, page: Page) -> Text:
    """Return a tank in one line, whose figures stand below those of others."""
    books, rates = tank.reading.signals.values(), tank.rates.values()
    figures = Text()
    for name, figure in [
        ("in", rate(sum(each.offered for each in rates)) if rates else "-"),
        ("out", rate(sum(each.delivered for each in rates)) if rates else "-"),
    ]:
        figures.append(f" {name} ", "dim").append(f"{figure:>6}").append("/s", "dim")
    figures.append(" held ", "dim").append(f"{short(sum(each.held for each in books)):>6}")
    if page.width >= _ROOMY:
        figures.append(" on disk ", "dim").append(f"{short(sum(each.on_disk for each in books)):>6}")
    lost = f"{short(sum(each.lost_items for each in books)):>6}"
    figures.append(" lost ", "dim").append(lost, "bold red" if any(tank.growing.values()) else "")
    title = _title(tank, page)
    title.truncate(max(24, page.width - figures.cell_len), overflow="ellipsis", pad=True)
    title += figures
    if tank.is_gone:
        title.stylize("dim")
    return title


def _block(tank: Shown, frame: Frame, page: Page, columns: list[tuple[Column, int]]) -> Iterator[Text]:
    reading = tank.reading
    title = _title(tank, page)
    if reading.command and reading.service and reading.command != reading.service:
        title.append(f" ({reading.command})")
    if reading.host and reading.host != frame.host:
        title.append(f" on {reading.host}")
    title.append(f"  up {duration(tank.uptime(frame.now))}", "dim" if tank.is_gone else "")
    if tank.is_gone:
        title.append(f"  {_ending(tank)}")
        title.stylize("dim")
        yield title
        return
    if tank.state == UNREADABLE:
        yield title.append(f"  {reading.file.rsplit('/', 1)[-1]}: written by another version of surgetank", "magenta")
        return
    used = {signal: books for signal, books in reading.signals.items() if books.is_used}
    title.append(f"  {'→' if page.is_unicode else '->'} {_places(reading.endpoints, used)}")
    state = _conditions(tank, frame.now)
    if title.cell_len + state.cell_len + 3 <= page.width:
        yield title.append("   ") + state
    else:
        yield title
        yield Text("  ") + state
    if not used:
        yield Text("  nothing was offered yet", "dim")
    for signal, books in used.items():
        row = Text()
        for column, width in columns:
            row += column.cell(column.show(Cell(signal, books, tank, frame.now, page, width)), width)
        yield row
    yield from _details(tank, used, has_troubles=all(column is not TROUBLE for column, _ in columns))


def _ending(tank: Shown) -> str:
    if tank.state == ENDED:
        return "it was shut down" if tank.reading.health == ENDED else "it ended in order"
    kept = sum(books.on_disk for books in tank.reading.signals.values())
    left = f"; it left {short(kept)} on disk" if kept else ""
    return f"gone without a shutdown{left}"


def _places(endpoints: Mapping[Signal, str], used: Mapping[Signal, SignalReading]) -> str:
    by_place: dict[str, list[str]] = {}
    for signal in used or endpoints:
        by_place.setdefault(endpoints[signal] or "?", []).append(signal.value)
    if len(by_place) == 1:
        return next(iter(by_place))
    return ", ".join(f"{' and '.join(signals)}: {place}" for place, signals in by_place.items())


def _conditions(tank: Shown, now: float) -> Text:
    """Return how memory and disk stand."""
    reading = tank.reading
    parts = []
    if reading.memory_limit:
        parts.append(_gauge(f"memory {percent(reading.pressure)} of {size(reading.memory_limit)}", reading.pressure))
    if reading.scale < 1:
        parts.append(Text(f"buffers shrunk to {reading.scale:.0%}", "bold yellow"))
    if reading.is_spool_down:
        parts.append(Text("THE SPOOL CANNOT BE WRITTEN", "bold red"))
    elif reading.spool_path is not None:
        part = reading.spool_bytes / reading.spool_limit if reading.spool_limit else 0.0
        used = f"{size(reading.spool_bytes)} of {size(reading.spool_limit)} ({percent(part)})"
        parts.append(_gauge(f"spool {used}", part))
    else:
        parts.append(Text("no spool", "dim"))
    silent = now - reading.written_at
    if silent > _SILENT:
        parts.append(Text(f"silent for {duration(silent)}: is it stopped?", "bold yellow"))
    return Text(" · ", "dim").join(parts)


def _gauge(text: str, part: float) -> Text:
    return Text(text, level(part) if part >= 0.5 else "dim")


def _details(tank: Shown, used: Mapping[Signal, SignalReading], *, has_troubles: bool) -> Iterator[Text]:
    """Return what does not fit into columns: troubles, which signals often share, and reasons."""
    troubles: dict[str, list[str]] = {}
    for signal, books in used.items():
        if books.trouble and has_troubles:
            troubles.setdefault(books.trouble, []).append(signal.value)
    for trouble, signals in troubles.items():
        yield Text.assemble("   ", (f"{', '.join(signals)}: {trouble}", "yellow"))
    for signal, books in used.items():
        if not books.lost and not books.intended:
            continue
        line = Text(f"   {signal.value} lost: " if books.lost else f"   {signal.value} given up as asked: ")
        growing = tank.growing[signal]
        line += Text(", ").join(
            Text(f"{reason} {short(items)} (growing)", "bold red")
            if reason in growing
            else Text(f"{reason} {short(items)}")
            for reason, items in books.lost.items()
        )
        if books.intended:
            asked = ", ".join(f"{reason} {short(items)}" for reason, items in books.intended.items())
            line.append(f"; given up as asked: {asked}" if books.lost else asked, "dim")
        yield line
