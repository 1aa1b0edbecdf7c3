"""The demo in a terminal: the live view of a scene, and the final table.

Owns: no state. Threads: any.
Invariants: pure; a view fits 80 columns and 24 lines, also with two applications.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.figures import MEBIBYTE
from demo.stage import Plan, Player, Scene
from demo.verdict import LOSSES, TITLES, Row
from surgetank.model import BreakerState, Signal

_ACT_STYLES: Final = {
    "warm-up": "green",
    "outage": "red",
    "crash": "bright_white",
    "restart": "magenta",
    "recovery": "yellow",
    "drain": "cyan",
}
_BREAKER_STYLES: Final = {
    BreakerState.CLOSED: "green",
    BreakerState.OPEN: "bold red",
    BreakerState.HALF_OPEN: "yellow",
}
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
# The first column, and what the three others leave between each other.
_LABEL_WIDTH: Final = 10
_GAP: Final = 2
_BAR_MAX: Final = 16
# What a dead process holds.
_NOBODY: Final = Text("-", style="dim")


def scene_view(scene: Scene, plan: Plan, width: int) -> RenderableType:
    """Return the live view for a terminal of `width` columns."""
    parts: list[RenderableType] = [_headline(scene, plan, width), _timeline(scene, plan, width), Text()]
    for player in scene.players:
        parts += [_player_table(player, width), _process(player), Text()]
    ours = scene.players[0]
    parts += [Text(f"{line}", style="dim", no_wrap=True, overflow="ellipsis") for line in ours.log]
    return Group(*parts)


def final_table(titles: Sequence[str], rows: Sequence[Row]) -> RenderableType:
    """Return the final table."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("", style="bold")
    table.add_column("")
    for title in titles:
        table.add_column(title, justify="right")
    section = ""
    for row in rows:
        if section and row.section != section:
            table.add_row()
        style = "bold red" if row.figure in LOSSES else ""
        cells = [Text(value, style=style if value != "0" else "green") for value in row.values]
        table.add_row(row.section if row.section != section else "", row.figure, *cells)
        section = row.section
    return table


def _headline(scene: Scene, plan: Plan, width: int) -> RenderableType:
    act = scene.act
    left = Text.assemble(("surgetank demo  ", "bold"), (act.name, f"bold {_ACT_STYLES[act.name]}"), f": {act.text}")
    if act.left:
        left.append(f", {act.left:.0f} s left")
    right = f"{min(scene.elapsed, plan.seconds):.0f} of {plan.seconds:.0f} s"
    left.truncate(width - len(right) - 1, overflow="ellipsis", pad=True)
    return left.append(" " + right)


def _timeline(scene: Scene, plan: Plan, width: int) -> RenderableType:
    """Return a line as long as the play, coloured by act, drawn fat as far as it has got."""
    line = Text()
    reached = scene.elapsed / plan.seconds * width
    for column in range(width):
        act = plan.act((column + 0.5) / width * plan.seconds)
        line.append(
            "━" if column < reached else "─", style=_ACT_STYLES[act.name] + ("" if column < reached else " dim")
        )
    return line


def _player_table(player: Player, width: int) -> RenderableType:
    column = (width - _LABEL_WIDTH) // 3 - _GAP
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="bold", pad_edge=False, collapse_padding=True)
    table.add_column(TITLES[player.mode], width=_LABEL_WIDTH - _GAP + 1, style="dim", no_wrap=True)
    for signal in Signal:
        table.add_column(signal.value, width=column, no_wrap=True)
    cells = _OUR_CELLS if player.status.books else _STOCK_CELLS
    for label, cell in cells.items():
        drawn = [cell(player, signal) for signal in Signal]
        table.add_row(label, *(it.drawn(column) if isinstance(it, _Gauge) else it for it in drawn))
    return table


def _made(player: Player, signal: Signal) -> Text:
    """Return what was made, and how fast; metrics are made as additions to the counter."""
    made, rate = player.made[signal], player.rates[signal]
    return Text(f"{made:,} at {rate:.0f}/s" if rate else f"{made:,}")


def _process(player: Player) -> RenderableType:
    """Return which process it is and what it takes, in a line."""
    line = Text(f"{'process':{_LABEL_WIDTH + 1}}{player.pid}: ", style="dim", no_wrap=True, overflow="ellipsis")
    if player.is_app_up:
        line.append(f"{player.status.rss_bytes / MEBIBYTE:.0f} MiB resident")
    else:
        line.append("killed", style="bold red not dim")
    if player.status.books:
        line.append(f", {player.disk_bytes / MEBIBYTE:.2f} MiB on disk")
    return line


def _held(player: Player, signal: Signal) -> _Gauge | Text:
    if not player.is_app_up:
        return _NOBODY
    books, limits = player.status.books[signal], player.status.limits[signal]
    held = books.queued + books.in_flight
    return _Gauge(held / limits.max_size, f"{held:,}/{limits.max_size:,}")


def _bytes(player: Player, signal: Signal) -> _Gauge | Text:
    if not player.is_app_up:
        return _NOBODY
    held, limit = player.status.books[signal].memory_bytes, player.status.limits[signal].max_bytes
    return _Gauge(held / limit, f"{held / MEBIBYTE:.2f}/{limit / MEBIBYTE:.0f} MiB")


def _on_disk(player: Player, signal: Signal) -> Text:
    """Return what a kill could not reach, and what of it is on disk alone; after a kill, as last told."""
    on_disk = player.status.on_disk(signal)
    spooled = player.status.books[signal].spooled if player.is_app_up else on_disk
    return Text(f"{on_disk:,}" + (f" ({spooled:,} spooled)" if spooled else ""))


def _recovered(player: Player, signal: Signal) -> Text:
    recovered = player.status.books[signal].recovered
    return Text(f"{recovered:,}", style="bold green" if recovered else "")


def _breaker(player: Player, signal: Signal) -> Text:
    if not player.is_app_up:
        return _NOBODY
    state = player.status.books[signal].breaker
    return Text("● " + state.value.replace("_", "-"), style=_BREAKER_STYLES[state])


def _delivered(player: Player, signal: Signal) -> Text:
    if player.report is None:
        return Text("?")
    unit = " points" if signal is Signal.METRICS else ""
    count = f"{player.report.arrived[signal].unique:,}{unit}"
    return Text(count) if player.is_collector_up else Text(f"{count} (down)", style="dim")


def _dropped(player: Player, signal: Signal) -> Text:
    books = player.status.books[signal]
    dropped = sum(books.dropped.values()) + books.rejected
    return Text(f"{dropped:,}", style="red" if dropped else "green")


def _missing(player: Player, signal: Signal) -> Text:
    """Return what was made and has not arrived; for metrics, as far as the counter's total tells."""
    if player.report is None:
        return Text("?")
    if signal is Signal.METRICS:
        return Text(f"{player.counter_total - player.report.counter_total:,} of the total")
    return Text(f"{player.made[signal] - player.report.arrived[signal].unique:,}")


@dataclass(frozen=True, slots=True)
class _Gauge:
    """A bar and the words that say the same exactly."""

    share: float
    words: str

    def drawn(self, width: int) -> Text:
        """Return both in `width` columns; the bar gets what the words leave."""
        bar_width = max(3, min(_BAR_MAX, width - len(self.words) - 1))
        eighths = round(min(1.0, self.share) * bar_width * 8)
        if self.share > 0:
            # What is there must be seen, however little it is.
            eighths = max(1, eighths)
        bar = "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")
        style = "red" if self.share > 0.9 else "yellow" if self.share > 0.6 else "green"
        return Text.assemble((bar.ljust(bar_width), f"{style} on grey23"), " ", self.words)


_Cell = Callable[[Player, Signal], "Text | _Gauge"]
_OUR_CELLS: Final[Mapping[str, _Cell]] = {
    "made": _made,
    "held": _held,
    "bytes": _bytes,
    "on disk": _on_disk,
    "recovered": _recovered,
    "breaker": _breaker,
    "delivered": _delivered,
    "dropped": _dropped,
}
# Without books nobody can say what of the missing is held and what is gone.
_STOCK_CELLS: Final[Mapping[str, _Cell]] = {"made": _made, "delivered": _delivered, "missing": _missing}
