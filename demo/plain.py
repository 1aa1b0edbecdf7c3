"""The demo without a terminal: a status line now and then, and the final table as text.

Owns: no state. Threads: any. Invariants: pure; needs no library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from demo.figures import MEBIBYTE
from demo.stage import Player, Scene
from demo.verdict import Row
from surgetank.model import Signal

_GAP: Final = "  "


def status_line(scene: Scene) -> str:
    """Return one moment of the play in a line for each application."""
    head = f"{scene.elapsed:5.1f} s  {scene.act.name:8}"
    return "\n".join(f"{head}  {player.mode:5}  {_account(player)}" for player in scene.players)


def _account(player: Player) -> str:
    words = []
    for signal in (Signal.SPANS, Signal.LOGS):
        words.append(f"{signal.value}: {player.made[signal]:,} made")
        if player.report is not None:
            words[-1] += f", {player.report.arrived[signal].unique:,} delivered"
        books = player.status.books.get(signal)
        if books is not None:
            words[-1] += f", {player.status.on_disk(signal):,} on disk"
            if books.recovered:
                words[-1] += f", {books.recovered:,} recovered"
            if player.is_app_up:
                held = books.queued + books.in_flight
                words[-1] += f", {held:,} held ({books.memory_bytes / MEBIBYTE:.2f} MiB), breaker {books.breaker.value}"
    if not player.is_app_up:
        words.insert(0, "killed")
    return "; ".join(words)


def lines(titles: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Return the table as text, each section's name once."""
    heads = ["", "", *titles]
    cells, section = [heads], ""
    for row in rows:
        cells.append([row.section if row.section != section else "", row.figure, *row.values])
        section = row.section
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    return [
        _GAP.join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
