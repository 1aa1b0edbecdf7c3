"""The last act: an application at full speed in little memory, with its collector gone; its judge and its table.

Runs `python -m benchmarks.pressure`, which makes the control group, once for each mode.

Owns: the measuring process while it runs. Threads: the caller's.
Invariants: the judge and the table are pure; an interruption leaves no process and no control group. Only ours is
judged: that others are killed is what the comparison is about.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Final

import psutil

from demo.figures import Mode
from demo.processes import StageError, start
from demo.verdict import ABSENT, TITLES, Row

# MiB of the limit, and of the buffer of spans: far more than there is, so that only what watches the memory can help.
LIMIT: Final = 160.0
BUFFER: Final = 400.0
# Seconds with a collector and without.
BEFORE: Final = 4.0
AWAY: Final = 12.0
# The size of a span. Four threads make them faster than a collector's one core could take them.
_SPAN_KIB: Final = 16
# Seconds between two lines of progress, and how long starting, ending and tidying up may take.
_INTERVAL: Final = 4.0
_TIMEOUT: Final = 60.0
_END_TIMEOUT: Final = 10.0

# What `benchmarks.pressure` says of one application.
Result = Mapping[str, Any]


def run(modes: Iterable[Mode], say: Callable[[str], None]) -> dict[Mode, Result]:
    """Run one application after the other, for they would take each other's time. Raises StageError."""
    results: dict[Mode, Result] = {}
    for mode in modes:
        say(
            f"memory: {TITLES[mode]}, four threads at full speed, {LIMIT:g} MiB, buffers of {BUFFER:g} MiB, "
            f"{BEFORE:g} s with a collector and {AWAY:g} s without"
        )
        results[mode] = _measured(mode, say)
    return results


def _measured(mode: Mode, say: Callable[[str], None]) -> Result:
    options = {"mode": mode, "limit-mb": LIMIT, "buffer-mb": BUFFER, "kib": _SPAN_KIB, "before": BEFORE, "away": AWAY}
    arguments = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    # In a session of its own, because a Ctrl-C must not end who measures before who is measured.
    process = start(["benchmarks.pressure", *arguments], subprocess.PIPE, has_own_session=True)
    began = time.monotonic()
    try:
        while True:
            try:
                output, errors = process.communicate(timeout=_INTERVAL)
                break
            except subprocess.TimeoutExpired:
                elapsed = time.monotonic() - began
                if elapsed > BEFORE + AWAY + _TIMEOUT:
                    raise StageError("the application in little memory has not ended") from None
                say(f"{elapsed:5.1f} s  memory")
    finally:
        _end(process)
    if process.returncode:
        raise StageError(f"the application in little memory could not be measured:\n{errors[-2000:]}")
    result: dict[str, Any] = json.loads(output)
    return result


def _end(process: subprocess.Popen[str]) -> None:
    """End who is measured until who measures has nothing to wait for, removes the control group and ends too."""
    deadline = time.monotonic() + _END_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        time.sleep(0.1)
    process.kill()
    process.wait()


def judge(result: Result) -> list[str]:
    """Return what is wrong with ours, a sentence each; nothing when it lived within the limit and its books balance."""
    faults = []
    if not result["survived"]:
        faults.append(f"memory: the application did not survive: {_fate(result)}")
    elif not result["balanced"]:
        faults.append(f"memory: {result['made']:,} made, and the books do not account for them")
    if result["peak_rss_mb"] > LIMIT:
        faults.append(f"memory: {result['peak_rss_mb']:,.1f} MiB were resident, {LIMIT:g} MiB are the limit")
    return faults


def sentence(result: Result) -> str:
    """Return the verdict on an application without faults in one line."""
    return (
        f"It lived in {LIMIT:g} MiB with buffers of {BUFFER:g} MiB: {result['made']:,} spans made, all accounted for; "
        f"its own work went on{_change(result, ', {} in the outage')}."
    )


def table(results: Mapping[Mode, Result]) -> list[Row]:
    """Return the act's table, a column for each application."""
    figures: dict[str, Callable[[Mode, Result], str]] = {
        "limit": _limit,
        "survived": lambda _, it: "yes" if it["survived"] else f"no, {_fate(it)}",
        "resident at its peak": lambda _, it: f"{it['peak_rss_mb']:,.1f} of {LIMIT:g} MiB",
        "lowest scale of the buffers": lambda mode, it: f"{it['lowest_scale']:g}" if mode == "ours" else ABSENT,
        "spans made": lambda _, it: f"{it['made']:,}" if "made" in it else "not known",
        "books": _books,
        "dropped, by reason": _dropped,
        "own work before the outage": lambda _, it: _rate(it["rate_before"]),
        "own work in the outage": lambda _, it: f"{_rate(it['rate_away'])}{_change(it, ' ({})')}",
    }
    return [Row("memory", name, tuple(figure(*it) for it in results.items())) for name, figure in figures.items()]


def as_data(results: Mapping[Mode, Result], faults: list[str]) -> dict[str, Any]:
    """Return the act as plain data, for JSON."""
    plan = {"limit_mb": LIMIT, "buffer_mb": BUFFER, "before": BEFORE, "away": AWAY}
    return {"plan": plan, "faults": faults, **{mode: dict(result) for mode, result in results.items()}}


def _limit(mode: Mode, result: Result) -> str:
    if result["has_cgroup"]:
        return "control group"
    # The stock SDK has nothing that a limit could be told to.
    return "configured" if mode == "ours" else "none"


def _fate(result: Result) -> str:
    """Return how an application ended that did not survive."""
    lived = result["lived_seconds"]
    if not lived:
        return "it ended before it said anything"
    how = "killed" if result["has_cgroup"] else "died"
    return f"{how} after {lived:.1f} s, {'in the outage' if lived > BEFORE else 'before the outage'}"


def _books(mode: Mode, result: Result) -> str:
    if mode != "ours":
        return "none"
    if "made" not in result:
        return "died with it"
    return "balance" if result["balanced"] else "do not balance"


def _dropped(mode: Mode, result: Result) -> str:
    if mode != "ours" or "made" not in result:
        return "not counted"
    return ", ".join(f"{reason} {count:,}" for reason, count in sorted(result["dropped"].items()) if count) or "0"


def _rate(rate: float) -> str:
    return f"{rate:,.0f} units/s" if rate else ABSENT


def _change(result: Result, words: str) -> str:
    """Return in words how the rate of the application's own work has changed; none where one of the two is not known."""
    before, away = result["rate_before"], result["rate_away"]
    # Rounded first, because there is no such thing as a change of minus nothing.
    return words.format(f"{round((away / before - 1) * 100):+d} %") if before and away else ""
