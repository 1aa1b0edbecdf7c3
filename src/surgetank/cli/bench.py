"""`surgetank bench`: what a span costs on this machine; measured by a process of its own (`surgetank.measuring`).

Owns: that process. Threads: one.
Invariants: it is given a time and ended when that is over; with `--json` there is one JSON object on standard output.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from surgetank.catalogue.effective import audit
from surgetank.cli import show
from surgetank.doctor.storage import existing

# Beyond the seconds that were asked for: starting up, a slow machine's one turn of each, cleaning up.
_PATIENCE: Final = 60.0


def bench(
    attributes: Annotated[int, typer.Option(min=0, max=1000, help="Attributes of each span and log record.")] = 10,
    seconds: Annotated[float, typer.Option(min=0.5, max=600, help="About how long to measure.")] = 8.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Measure what a span costs here: time on the application's thread, CPU, memory, disk and delivery on loopback.

    Settings have no say, but that disk is measured in a temporary folder next to the configured spool.
    """
    folder = _folder()
    console = show.terminal(is_error=True)
    with console.status(f"measuring for about {seconds:.0f} s") if console.is_terminal else console:
        found = _measure(folder, ["--attributes", str(attributes), "--seconds", str(seconds)], seconds + _PATIENCE)
    if as_json:
        show.data(found)
    else:
        _print(found)


def _folder() -> str:
    effective, _ = audit()
    folder = existing(os.path.dirname(effective.spool.path))
    if os.access(folder, os.W_OK | os.X_OK):
        return folder
    show.warn(f"{folder} cannot be written; the disk is measured in the folder for temporary files")
    return os.environ.get("TMPDIR") or "/tmp"  # noqa: S108  # a folder with a random name is made in it


def _measure(folder: str, arguments: list[str], timeout: float) -> dict[str, Any]:
    # The folder is ours and not the measuring process's, which may be ended in the middle.
    with tempfile.TemporaryDirectory(prefix="surgetank-bench-", dir=folder, ignore_cleanup_errors=True) as place:
        command = [sys.executable, "-m", "surgetank.measuring", *arguments, "--folder", place]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)  # noqa: S603  # our own module
        except subprocess.TimeoutExpired:
            show.error(
                f"nothing came of it within {timeout:.0f} s; try again when the machine is less busy, or with fewer --seconds"
            )
            raise typer.Exit(2) from None
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or ["it ended without a word"]
        show.error(f"measuring failed: {reason[0]}; `python -m surgetank.measuring` shows all of it")
        raise typer.Exit(2)
    found: dict[str, Any] = json.loads(done.stdout)
    if found["spool"] is not None:
        found["spool"]["folder"] = folder
    return found


def _print(found: dict[str, Any]) -> None:
    console = show.terminal()
    span, sizes, spool, delivery = found["span"], found["sealed_bytes"], found["spool"], found["delivery"]
    console.print(
        f"[bold]surgetank bench[/]  {found['python']}, spans with {found['attributes']} attributes and an event"
    )
    core = span["cpu_us"] / 1e6 * 1000
    _section(
        console,
        "time",
        ("on_end", f"{span['on_end_us']:.1f} µs", "on the application's thread, median"),
        ("CPU per span, all threads", f"{span['cpu_us']:.0f} µs", f"{core:.0%} of a core for 1,000 spans/s"),
    )
    _section(
        console,
        "size",
        ("a span that waits in memory", f"{span['waiting_bytes']:,.0f} B", "for less than a second"),
        ("a span encoded", f"{span['encoded_bytes']:,.0f} B", ""),
        *((f"{_ITEMS[name]} sealed", f"{size:,.0f} B", "gzip") for name, size in sizes.items()),
    )
    if spool is not None:
        _section(
            console,
            "spool",
            ("stored", *_pace(spool, "written_")),
            ("read again", *_pace(spool, "replayed_")),
            note=f"in {spool['folder']}, which survives the process, not the loss of power",
        )
    _section(console, "delivery", ("to a receiver on loopback", *_pace(delivery, "")))
    given = ",".join(f"{name}={size:.0f}" for name, size in sizes.items())
    console.print()
    console.print("How long an outage you could survive with these sizes, at rates of yours:")
    for line in ("  surgetank doctor --outage 2h --rate spans=500,logs=200 \\", f"    --size {given}"):
        console.print(line, style="cyan", markup=False)


_ITEMS: Final = {"spans": "a span", "metrics": "a metric point", "logs": "a log record"}


def _pace(found: dict[str, Any], prefix: str) -> tuple[str, str]:
    items, size = found[f"{prefix}items_per_second"], found[f"{prefix}bytes_per_second"]
    return f"{items:,.0f} spans/s", f"{show.size(int(size))}/s"


def _section(console: Console, heading: str, *rows: tuple[str, str, str], note: str = "") -> None:
    console.print()
    console.print(f"[bold]{heading}[/]" + (f"  [dim]{note}[/]" if note else ""))
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(min_width=30)
    table.add_column(justify="right", min_width=10)
    table.add_column(style="dim")
    for row in rows:
        table.add_row("  " + row[0], *row[1:])
    console.print(table, soft_wrap=False)
