"""`surgetank config`: every setting, what it comes to in this environment, and where that comes from.

Owns: no state. Threads: one.
Invariants: nothing is made, opened for writing or sent; no secret is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from surgetank.catalogue.effective import Effective, audit
from surgetank.catalogue.entries import settings
from surgetank.catalogue.setting import SECTIONS, Setting, plain
from surgetank.catalogue.warnings import passed_over, unread
from surgetank.cli import show
from surgetank.model import Signal

_DEFAULT: Final = "default"
_SHORT: Final = {"seconds": "s"}


def config(
    signal: Annotated[Signal | None, typer.Option(help="Only what this signal has of its own.")] = None,
    is_changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show what the environment configures: each setting, its value, and the variable that it comes from.

    Exits with 2 if a value is refused. Secrets are masked.
    """
    effective, refused = audit()
    warnings = [*unread(), *passed_over(effective)]
    chosen = [
        each
        for each in settings()
        if signal in (None, each.signal) and not (is_changed and each.source(effective) is None)
    ]
    if as_json:
        show.data(
            {
                "settings": [_as_data(each, effective) for each in chosen],
                "warnings": warnings,
                "errors": [
                    {"variable": each.field, "value": str(each.value), "permitted": each.permitted} for each in refused
                ],
            }
        )
    else:
        _print(chosen, effective, is_changed=is_changed)
        for warning in warnings:
            show.warn(warning)
        for error in refused:
            show.error(f"{error.field}={error.value} is refused; permitted is {error.permitted}")
        if refused:
            show.error("a tank cannot be made in this environment; above, defaults stand where a value is refused")
    raise typer.Exit(2 if refused else 0)


def _as_data(setting: Setting, effective: Effective) -> dict[str, Any]:
    return {
        "name": setting.name,
        "section": setting.section,
        "signal": setting.signal and setting.signal.value,
        "value": setting.value(effective),
        "unit": setting.unit,
        "source": setting.source(effective) or _DEFAULT,
        "variables": list(setting.variables),
        "permitted": setting.permitted,
        "note": setting.note(effective),
    }


def _print(chosen: Sequence[Setting], effective: Effective, *, is_changed: bool) -> None:
    console = show.terminal()
    if not chosen:
        console.print("everything is the default" if is_changed else "there is no such setting")
    for number, (section, group) in enumerate(groupby(chosen, key=lambda each: each.section)):
        if number:
            console.print()
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column(SECTIONS[section], overflow="fold", min_width=29)
        table.add_column("value", overflow="fold", min_width=20)
        table.add_column("from", overflow="fold", style="green")
        notes: list[str] = []
        for _, kin in groupby(group, key=lambda each: each.keyword):
            _add_rows(table, list(kin), effective, notes)
        _show(console, table)
        for note in notes:
            console.print(f"[dim]{escape(note)}[/]", soft_wrap=False)


def _show(console: Console, table: Table) -> None:
    # The console does not fold lines of text; a table's cells are to be folded.
    console.print(table, soft_wrap=False)


def _add_rows(table: Table, kin: list[Setting], effective: Effective, notes: list[str]) -> None:
    """Add a row for each signal, or one for all where they say the same."""
    sources = [each.source(effective) for each in kin]
    values = [each.value(effective) for each in kin]
    is_one = len(kin) > 1 and len(set(sources)) == 1 and all(value == values[0] for value in values)
    shown: Callable[[Setting], str] = (lambda each: each.keyword) if is_one else (lambda each: each.name)
    for setting, source, value in list(zip(kin, sources, values, strict=True))[: 1 if is_one else None]:
        name = shown(setting).removeprefix(f"{setting.section}.")
        unit = _SHORT.get(setting.unit, setting.unit)
        text = f"{plain(value)} {unit}" if _has_unit(setting, value) else plain(value)
        table.add_row(escape(name), escape(text), escape(source) if source else f"[dim]{_DEFAULT}[/]")
    notes += [f"{each.name}: {note}" for each in kin if (note := each.note(effective))]


def _has_unit(setting: Setting, value: Any) -> bool:
    return bool(setting.unit) and isinstance(value, (int, float)) and not isinstance(value, bool)
