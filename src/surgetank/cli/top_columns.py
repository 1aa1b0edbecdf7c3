"""The columns of `surgetank top`, the page that they are drawn on, and how figures are written.

Owns: no state. Threads: any.
Invariants: a cell is as wide as its column; what colours say is said in words or signs too; a terminal without Unicode gets
ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from rich.text import Text

from surgetank.cli.show import duration, size
from surgetank.cli.top_readings import UNREADABLE, SignalReading
from surgetank.cli.top_watch import DIED, ENDED, LOSING, STATES, Rates, Shown
from surgetank.health import HealthState
from surgetank.model import BreakerState, Signal

COLOURS: Final[Mapping[str, str]] = {
    LOSING: "bold red",
    UNREADABLE: "magenta",
    HealthState.HOLDING.value: "yellow",
    HealthState.DELIVERING.value: "green",
    HealthState.IDLE.value: "dim",
    ENDED: "dim",
    DIED: "dim",
}
_SIGNS: Final = dict(zip(STATES, "✖?◐✔○■†", strict=True))
_ASCII_SIGNS: Final = dict(zip(STATES, "!?~+o-x", strict=True))
_BREAKERS: Final[Mapping[str, tuple[str, str]]] = {
    BreakerState.CLOSED.value: ("closed", "green"),
    BreakerState.HALF_OPEN.value: ("half-open", "yellow"),
    BreakerState.OPEN.value: ("open", "bold red"),
}
_BAR_MIN: Final = 6
_BAR_MAX: Final = 24
_TROUBLE_MIN: Final = 24
_TROUBLE_MAX: Final = 80
_CALM: Final = "green"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What a frame is drawn on."""

    width: int
    height: int | None
    """Lines that there are; None for any number."""
    is_unicode: bool

    def sign(self, state: str) -> str:
        """Return the sign of a state."""
        return (_SIGNS if self.is_unicode else _ASCII_SIGNS)[state]

    def bar(self, part: float, cells: int, style: str) -> Text:
        """Return a bar that is full to that part."""
        part = min(1.0, max(0.0, part))
        eighths = round(part * cells * 8)
        if not self.is_unicode:
            full = "#" * (eighths // 8)
        else:
            full = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        return Text.assemble((full, style), (("·" if self.is_unicode else ".") * (cells - len(full)), "dim"))

    def fitted(self, line: Text) -> Text:
        """Return a line as it can be shown here."""
        line.truncate(self.width, overflow="ellipsis")
        line.rstrip()
        if not self.is_unicode:
            # As long as before, so that every colour stays where it was.
            line.plain = line.plain.replace("…", "~").replace("·", "|").encode("ascii", "replace").decode()
        return line


@dataclass(frozen=True, slots=True)
class Cell:
    """What a column is filled from."""

    signal: Signal
    books: SignalReading
    tank: Shown
    now: float
    page: Page
    width: int

    @property
    def rates(self) -> Rates | None:
        """The signal's, if they are known."""
        return self.tank.rates.get(self.signal)

    def rate(self, name: str, total: int) -> Text:
        """Return items per second: of late, or since the beginning."""
        if self.rates is not None:
            return Text(rate(getattr(self.rates, name)))
        uptime = self.tank.uptime(self.now)
        return Text(f"~{rate(total / uptime)}" if uptime >= 1 else "-", "dim")

    def fill(self, part: float, whole: float) -> Text:
        """Return a bar and a percentage."""
        full = part / whole if whole else 0.0
        books = self.books
        # What is on disk too gives way without a loss, however much of it there is.
        style = level(full * max(0, books.held - books.stored) / books.held if books.held else 0.0)
        return Text.assemble(
            " ", self.page.bar(full, self.width - 6, style), (f"{percent(full):>5}", "" if style == _CALM else style)
        )


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the width that it needs, and what stands below."""

    heading: str
    width: int
    show: Callable[[Cell], Text]
    is_bar: bool = False

    def cell(self, text: Text, width: int) -> Text:
        """Return the text in its place."""
        if text.cell_len > width:
            text.truncate(width, overflow="ellipsis")
        space = " " * (width - text.cell_len)
        return (
            text.append(space)
            if self.is_bar or self.heading in ("signal", " breaker", " trouble")
            else Text(space) + text
        )


def _lost(cell: Cell) -> Text:
    style = "bold red" if cell.tank.growing[cell.signal] else "" if cell.books.lost_items else "dim"
    return Text(short(cell.books.lost_items), style)


def _breaker(cell: Cell) -> Text:
    word, style = _BREAKERS.get(cell.books.breaker, (cell.books.breaker, ""))
    return Text(f" {word}", style)


_COLUMNS: Final[Mapping[str, Column]] = {
    "signal": Column("signal", 8, lambda cell: Text(f" {cell.signal.value}")),
    "in": Column("in/s", 7, lambda cell: cell.rate("offered", cell.books.offered)),
    "out": Column("out/s", 7, lambda cell: cell.rate("delivered", cell.books.delivered)),
    "held": Column("held", 9, lambda cell: Text(short(cell.books.held))),
    "fill": Column(" items/max", 12, lambda cell: cell.fill(cell.books.held, cell.books.max_size), True),
    "bytes": Column("memory", 10, lambda cell: Text(size(cell.books.held_bytes))),
    "memory": Column(" bytes/max", 12, lambda cell: cell.fill(cell.books.held_bytes, cell.books.max_bytes), True),
    "oldest": Column("oldest", 8, lambda cell: Text(duration(cell.books.oldest_age or None))),
    "disk": Column("on disk", 8, lambda cell: Text(short(cell.books.on_disk))),
    "disk bytes": Column("disk bytes", 11, lambda cell: Text(size(cell.books.spool_bytes))),
    "lost": Column("lost", 8, _lost),
    "breaker": Column(" breaker", 10, _breaker),
}
TROUBLE: Final = Column(" trouble", _TROUBLE_MIN, lambda cell: Text(f" {cell.books.trouble}", "yellow"))
# What is given up last stands first.
_BY_WEIGHT: Final = (
    *("signal", "breaker", "lost", "fill", "in", "out", "disk", "oldest", "memory"),
    *("disk bytes", "bytes", "held"),
)


def chosen(width: int) -> list[tuple[Column, int]]:
    """Return the columns that fit, and how wide each is: bars take what is left."""
    names: list[str] = []
    for name in _BY_WEIGHT:
        if sum(_COLUMNS[each].width for each in (*names, name)) > width:
            break
        names.append(name)
    found = [column for name, column in _COLUMNS.items() if name in names]
    left = width - sum(column.width for column in found)
    bars = sum(column.is_bar for column in found)
    more = min(left // bars, _BAR_MAX - _BAR_MIN) if bars else 0
    widths = [(column, column.width + (more if column.is_bar else 0)) for column in found]
    left -= more * bars
    # Where there is room to spare, a trouble stands where it belongs.
    return [*widths, (TROUBLE, min(left, _TROUBLE_MAX))] if left >= _TROUBLE_MIN else widths


def level(part: float) -> str:
    """Return the colour of what is full to that part."""
    return _CALM if part < 0.5 else "yellow" if part < 0.8 else "red"


def percent(part: float) -> str:
    """Return a part in at most four characters."""
    return f"{min(part, 9.99):.0%}" if part == 0 or part >= 0.005 else "<1%"


def short(count: int) -> str:
    """Return a number in at most seven characters."""
    if count < 100_000:
        return f"{count:,}"
    value = float(count)
    for unit in ("k", "M", "G", "T"):
        value /= 1000
        if value < 1000:
            return f"{value:.0f}{unit}" if value >= 100 else f"{value:.1f}{unit}"
    return ">999T"


def rate(per_second: float) -> str:
    """Return items per second in at most seven characters."""
    return f"{per_second:.1f}" if 0 < per_second < 10 else short(round(per_second))
