"""`surgetank doctor`: whether telemetry is safe here, and for how long an outage may last; the checks are in `surgetank.doctor`.

Owns: no state. Threads: one.
Invariants: with `--json` there is one JSON object on standard output and nothing else; progress goes to standard error.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Annotated, Final, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from surgetank.catalogue.effective import quiet
from surgetank.cli import show
from surgetank.doctor.examination import Examination, Wishes, examine
from surgetank.doctor.finding import Finding, State
from surgetank.model import FOREVER, Signal
from surgetank.sizing import Forecast, Prospect, parse_duration, parse_rates

_T = TypeVar("_T")
_INDENT: Final = 4
_MARKS: Final = {State.OK: "[green]✓[/]", State.WARNING: "[yellow]![/]", State.FAILED: "[red]✗[/]"}


def doctor(
    outage: Annotated[
        str,
        typer.Option(metavar="TIME", help="Forecast an outage of this length, such as `90s`, `30min`, `2h` or `1d`."),
    ] = "1h",
    rate: Annotated[
        str | None,
        typer.Option(
            metavar="SIGNAL=N,…",
            help="Items a second for the forecast, such as `spans=500,logs=200`. Default: what the living processes bring.",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="SIGNAL=BYTES,…",
            help="Bytes an item, compressed, as `surgetank bench` measures them. Default: typical sizes.",
        ),
    ] = None,
    processes: Annotated[int, typer.Option(min=1, help="With --rate: so many processes share it.")] = 1,
    is_silent: Annotated[bool, typer.Option("--no-send", help="Send no empty requests to the endpoint.")] = False,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds for each step on the network.")] = 5.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check configuration, endpoint, disk, memory and processes, and forecast what an outage would cost.

    Run it as the application's user with the application's environment. Exits with 1 if something failed, 2 if it could
    not be run. Changes nothing; only empty requests are sent, and none with `--no-send`.
    """
    wishes = Wishes(
        may_send=not is_silent,
        timeout=timeout,
        outage=_read(parse_duration, outage, "--outage", "a length of time such as 90s, 30min, 2h or 1d"),
        rates=_read(parse_rates, rate, "--rate", "such as spans=500,logs=200") if rate else {},
        sizes=_read(parse_rates, size, "--size", "such as spans=100,logs=60") if size else {},
        processes=processes,
    )
    with quiet(), _status(is_quiet=as_json) as progress:
        found = examine(wishes, progress)
    if as_json:
        show.data(found.as_data())
    else:
        _print(found)
    raise typer.Exit(0 if found.is_well else 1)


def _read(parse: Callable[[str], _T], text: str, option: str, permitted: str) -> _T:
    try:
        return parse(text)
    except ValueError:
        show.error(f"{option} {text} is not understood; permitted is {permitted}")
        raise typer.Exit(2) from None


@contextmanager
def _status(*, is_quiet: bool) -> Iterator[Callable[[str], None]]:
    """Say on a terminal what is looked at; yields what is to be told."""
    console = show.terminal(is_error=True)
    if is_quiet or not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield lambda what: status.update(f"looking at the {what}")


def _print(found: Examination) -> None:
    console = show.terminal()
    advised = ""
    for check, findings in groupby(found.findings, key=lambda each: each.check):
        console.print(f"[bold]{escape(check)}[/]")
        for each in findings:
            # What is to be done about several things in a row is said once.
            _print_finding(console, each, is_advised=each.advice != advised)
            advised = each.advice
    console.print()
    _print_forecast(console, found)
    console.print()
    failures, warnings = (
        sum(each.state is state for each in found.findings) for state in (State.FAILED, State.WARNING)
    )
    if failures:
        console.print(f"[red]{show.counted(failures, 'check')} failed[/], {show.counted(warnings, 'warning')}")
    else:
        console.print(f"[green]nothing failed[/], {show.counted(warnings, 'warning')}")


def _print_finding(console: Console, finding: Finding, *, is_advised: bool) -> None:
    _print_item(console, _MARKS[finding.state], finding.text)
    if finding.advice and is_advised:
        _print_item(console, "[cyan]→[/]", finding.advice, "cyan")


def _print_item(console: Console, mark: str, text: str, style: str = "default") -> None:
    # By `textwrap`, because a table would fill the lines up with blanks and break paths and names of variables.
    lines = textwrap.wrap(text, max(20, console.width - _INDENT), break_long_words=False, break_on_hyphens=False)
    for number, line in enumerate(lines):
        console.print(f"  {' ' if number else mark} [{style}]{escape(line)}[/]")


def _print_forecast(console: Console, found: Examination) -> None:
    outlook = found.forecast
    if outlook is None:
        console.print("[bold]forecast[/]")
        text = "No living process brings anything now; say what would come in with --rate spans=500,logs=200."
        _print_item(console, "[dim]·[/]", text)
        return
    source = "at the present rate" if found.is_measured else "at the given rate"
    shared = f" of {outlook.processes} processes" if outlook.processes > 1 else ""
    console.print(
        f"[bold]forecast[/] of an outage of {show.duration(outlook.outage)}, {source}{shared}", soft_wrap=False
    )
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in ("signal", "items/s", "bytes each", "memory lasts", "spool lasts", "lost"):
        table.add_column(heading, justify="left" if heading == "signal" else "right")
    for signal, each in outlook.signals.items():
        table.add_row(*_cells(signal, each))
    console.print(Padding(table, (0, 0, 0, 2), expand=False), soft_wrap=False)
    _print_outlook(console, outlook)


def _cells(signal: Signal, each: Prospect) -> tuple[str, ...]:
    lost = f"[red]{each.lost:,}[/]" if each.lost else "[green]0[/]"
    spool = _lasting(each.spool_lasts) if each.spool_lasts else "-"
    return signal.value, f"{each.load.rate:,.1f}", f"{each.load.size:.0f}", _lasting(each.memory_lasts), spool, lost


def _lasting(seconds: float) -> str:
    if seconds == FOREVER:
        return "for ever"
    return f"{seconds:.1f} s" if seconds < 10 else show.duration(seconds)


def _print_outlook(console: Console, outlook: Forecast) -> None:
    if not outlook.lost:
        _print_item(console, _MARKS[State.OK], "Nothing would be lost.")
    for signal, each in outlook.signals.items():
        if each.lost:
            text = f"{each.lost:,} {signal.value} would be lost, from {_lasting(each.lasts)} on."
            _print_item(console, _MARKS[State.FAILED], text)
    if outlook.lost and not outlook.remedies:
        _print_item(console, "[cyan]→[/]", "No setting would be enough: sample, or be ready sooner.", "cyan")
    for number, remedy in enumerate(outlook.remedies):
        words = "This would be enough" if not number else "Or this"
        note = f" ({remedy.note})" if remedy.note else ""
        _print_item(console, "[cyan]→[/]", f"{words}{note}:", "cyan")
        for name, value in remedy.settings.items():
            console.print(f"      [cyan]{name}={value}[/]")
