"""`surgetank config`: every setting, what it comes to in this environment, and where that comes from.

Owns: no state. Threads: one.
Invariants: nothing is made, opened for writing or sent; no secret is printed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.markup import escape

from surgetank.catalogue.effective import Effective, audit
from surgetank.catalogue.entries import settings
from surgetank.catalogue.setting import SECTIONS, Setting, plain
from surgetank.catalogue.warnings import passed_over, unread
from surgetank.cli import show
from surgetank.model import Signal

_DEFAULT: Final = "default"
_SHORT: Final = {"seconds": "s"}
_NAME_WIDTH: Final = 35
# Columns of values: those that are longer than the second stick out.
_VALUE_MIN: Final = 12
_VALUE_MAX: Final = 32


def config(
    signal: Annotated[Signal | None, typer.Option(help="Only what this signal has of its own.")] = None,
    is_changed: Annotated[bool, typer.Option("--changed", help="Only what is not the default.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Show what the environment configures: each setting, its value, and the variable that it comes from.

    Exits with 2 if a value of a SURGETANK_* variable is ignored. Secrets are masked.
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
            show.error(effective.environment.said[error.field])
        if refused:
            show.error("above, defaults stand in the place of what is ignored")
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
        rows: list[tuple[str, str, str]] = []
        notes: list[str] = []
        for _, kin in groupby(group, key=lambda each: each.keyword):
            members = list(kin)
            rows += _rows(members, effective)
            notes += [f"{each.name}: {note}" for each in members if (note := each.note(effective))]
        width = max(_VALUE_MIN, *(len(value) for _, value, _ in rows if len(value) <= _VALUE_MAX), 0)
        console.print(f"[bold]{SECTIONS[section]:<{_NAME_WIDTH}}{'value':<{width}}  from[/]")
        for row in rows:
            _print_row(console, *row, width)
        for note in notes:
            console.print(f"[dim]{escape(note)}[/]", soft_wrap=False)


def _print_row(console: Console, name: str, value: str, source: str, width: int) -> None:
    """Print a setting in a line, or in two where it is too narrow: the name of a variable is not broken, so that it can be copied."""
    style = "dim" if source == _DEFAULT else "green"
    start = f"{escape(name):<{_NAME_WIDTH}}{escape(value):<{width}}"
    if len(start) + 2 + len(source) <= console.width:
        console.print(f"{start}  [{style}]{escape(source)}[/]")
        return
    console.print(start.rstrip())
    console.print(f"    [dim]from[/] [{style}]{escape(source)}[/]")


def _rows(kin: list[Setting], effective: Effective) -> list[tuple[str, str, str]]:
    """Return name, value and source for each signal, or once for all where they say the same."""
    found = [(each.source(effective) or _DEFAULT, each.value(effective)) for each in kin]
    is_one = len(kin) > 1 and all(each == found[0] for each in found)
    rows = []
    for setting, (source, value) in zip(kin, found, strict=True):
        unit = _SHORT.get(setting.unit, setting.unit)
        text = f"{plain(value)} {unit}" if _has_unit(setting, value) else plain(value)
        if value is None and setting.section == "doors":
            # There `none` is a word with a meaning: OTEL_TRACES_EXPORTER=none sends no spans.
            text = "not set"
        name = setting.keyword if is_one else setting.name.removeprefix(f"{setting.section}.")
        rows.append((name, text, source))
    return rows[:1] if is_one else rows


def _has_unit(setting: Setting, value: Any) -> bool:
    return bool(setting.unit) and isinstance(value, (int, float)) and not isinstance(value, bool)
