"""`surgetank top`: every process on the host that has a tank, live, or as one JSON object a frame.

Owns: the terminal, for as long as it is watched. Threads: one.
Invariants: reads status files and nothing else; the terminal is left as it was found, whatever ends it; with `--json`
there is one JSON object a line on standard output and nothing else.
"""

from __future__ import annotations

import json
import os
import signal as signals
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group
from rich.live import Live

from surgetank.cli import show
from surgetank.cli.keys import keys
from surgetank.cli.show import harmless
from surgetank.cli.top_columns import Page
from surgetank.cli.top_readings import Reading
from surgetank.cli.top_view import Frame, draw
from surgetank.cli.top_watch import LOSING, Shown, Watcher, totals
from surgetank.clock import SystemClock
from surgetank.config import Environment
from surgetank.presence import folders_on_host, sightings
from surgetank.spool.filesystem import HAS_LOCKS

SCHEMA: Final = 1
_WIDE: Final = 120


def top(
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="Time from one look to the next.")
    ] = 1.0,
    once: Annotated[
        bool, typer.Option("--once", help="Look once, print, and exit: with 1 if a tank is losing telemetry, else 0.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line for each look instead (docs/top.md).")
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option(
            "--dir",
            metavar="FOLDER",
            help="Where the status files are. Default: SURGETANK_STATUS_DIR, else all users'.",
        ),
    ] = None,
    pid: Annotated[int | None, typer.Option(metavar="N", help="Only the process with this number.")] = None,
    service: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only processes whose service has exactly this name.")
    ] = None,
) -> None:
    """Show every process on this host that has a tank: what it holds, sends and loses, live.

    It reads the file that each tank writes about once a second, so it works while the collector is down. `q` or Ctrl-C
    ends it, with exit code 0. With `--once` the exit code is 1 if any tank shown has lost telemetry within the last minute.
    2: it could not be run.
    """
    if not HAS_LOCKS:
        show.error("there are no status files on this platform, which has no advisory locks")
        raise typer.Exit(2)

    def is_wanted(reading: Reading) -> bool:
        return (pid is None or reading.pid == pid) and (service is None or reading.service == service)

    watching = _Watching(folder, is_wanted, interval=interval, is_filtered=pid is not None or service is not None)
    try:
        if once:
            tanks = watching.tanks()
            if as_json:
                _say(watching.data(tanks))
            else:
                _print(_console(), watching.frame(tanks, ""))
            raise typer.Exit(1 if any(tank.state == LOSING for tank in tanks) else 0)
        if as_json:
            while True:
                _say(watching.data(watching.tanks()))
                time.sleep(interval)
        _live(watching, interval)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter would complain of what it cannot flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Watching:
    """Looks, and says what was seen."""

    def __init__(
        self, folder: str | None, is_wanted: Callable[[Reading], bool], *, interval: float, is_filtered: bool
    ) -> None:
        self._folder = None if folder is None else os.path.abspath(os.path.expanduser(folder))
        self._interval = interval
        self._is_filtered = is_filtered
        self._clock = SystemClock()
        self._host = socket.gethostname()
        self._watcher = Watcher(self._clock, lambda: sightings(self._folders()), is_wanted)

    def tanks(self) -> list[Shown]:
        """Look."""
        return self._watcher.tanks()

    def frame(self, tanks: list[Shown], note: str) -> Frame:
        """Return it for people."""
        return Frame(
            tanks=tanks,
            now=self._clock.now(),
            host=self._host,
            folders={folder: _trouble(folder) for folder in self._folders()},
            is_filtered=self._is_filtered,
            note=note,
        )

    def data(self, tanks: list[Shown]) -> dict[str, Any]:
        """Return it for programs."""
        now = self._clock.now()
        all_of = totals(tanks)
        rates = all_of.rates
        return {
            "schema": SCHEMA,
            "time": now,
            "host": self._host,
            "interval": self._interval,
            "folders": [{"path": path, "trouble": _trouble(path)} for path in self._folders()],
            "is_losing": any(tank.state == LOSING for tank in tanks),
            "totals": {
                "processes": all_of.processes,
                "tanks": all_of.tanks,
                "states": dict(all_of.states),
                "in_per_second": None if rates is None else rates.offered,
                "out_per_second": None if rates is None else rates.delivered,
                "lost_per_second": None if rates is None else rates.lost,
                "held": all_of.held,
                "held_bytes": all_of.held_bytes,
                "on_disk": all_of.on_disk,
                "spool_bytes": all_of.spool_bytes,
                "lost": all_of.lost,
            },
            "tanks": [tank.as_data(now) for tank in tanks],
        }

    def _folders(self) -> list[str]:
        # Asked for each time: a user's folder comes with the user's first tank.
        if self._folder is not None:
            return [self._folder]
        # Whether a tank of this process would have a file is no business of whoever only looks.
        variables = {name: value for name, value in os.environ.items() if name != "SURGETANK_STATUS_ENABLED"}
        return folders_on_host(Environment(variables))


def _trouble(folder: str) -> str:
    if not os.path.isdir(folder):
        return "not there"
    return "" if os.access(folder, os.R_OK | os.X_OK) else "closed to this user"


def _say(data: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(data, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def _console() -> Console:
    is_told = sys.stdout.isatty() or os.environ.get("COLUMNS")
    return harmless(Console(file=sys.stdout, width=None if is_told else _WIDE, highlight=False))


def _page(console: Console, *, is_whole: bool) -> Page:
    is_unicode = console.encoding.startswith("utf") and not console.is_dumb_terminal
    return Page(width=console.width, height=None if is_whole else console.height, is_unicode=is_unicode)


def _print(console: Console, frame: Frame) -> None:
    for line in draw(frame, _page(console, is_whole=True)):
        console.print(line, no_wrap=True, overflow="crop")


def _live(watching: _Watching, interval: float) -> None:
    console = _console()
    if not console.is_terminal or console.is_dumb_terminal:
        # A file, or a terminal that cannot be painted anew: frame below frame.
        while True:
            _print(console, watching.frame(watching.tanks(), f"every {interval:g} s"))
            console.print()
            time.sleep(interval)
    with _told_of_signals():
        while True:
            try:
                _paint(watching, interval, console)
            except _Suspended:
                os.kill(os.getpid(), signals.SIGSTOP)
                # Somebody has brought us back to the foreground.
            else:
                return


def _paint(watching: _Watching, interval: float, console: Console) -> None:
    note = f"every {interval:g} s, q quits"
    with keys() as typed, Live(console=console, screen=True, auto_refresh=False) as live:
        is_going = True
        while is_going:
            lines = draw(watching.frame(watching.tanks(), note), _page(console, is_whole=False))
            live.update(Group(*lines), refresh=True)
            is_going = not typed.pressed("q", interval)


class _Suspended(Exception):  # noqa: N818  # No error.
    """Ctrl-Z was typed."""


@contextmanager
def _told_of_signals() -> Iterator[None]:
    """Have what ends or stops us by a signal give the terminal back first."""

    def end(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    def suspend(_: int, __: FrameType | None) -> None:
        raise _Suspended

    handlers = {signals.SIGTERM: end, signals.SIGHUP: end, signals.SIGTSTP: suspend}
    before = {number: signals.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signals.signal(number, handler)
