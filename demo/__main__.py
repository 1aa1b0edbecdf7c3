"""An outage and a `kill -9` in the middle of it, with real processes, then another in little memory: `python -m demo`.

Exits with 0 if the books balance and memory held.

Owns: no state. Threads: the main one.
Invariants: it parses and prints; the rest decides.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from demo import plain, squeeze, verdict
from demo.evidence import Evidence, as_data
from demo.figures import Mode
from demo.processes import StageError
from demo.stage import Plan, Scene, Stage

# Seconds between two lines without a terminal.
_PLAIN_INTERVAL: Final = 3.0
# A shorter outage has no room for an application that says something, is killed and comes back.
_OUTAGE_MIN: Final = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Play, show, and return the exit code: 0 if all is well, 1 if not, 2 if it could not be played."""
    given = _parse(arguments)
    modes: tuple[Mode, ...] = ("ours", "stock") if given.compare else ("ours",)
    plan = Plan(seconds=given.seconds, outage=given.outage, rate=given.rate, modes=modes, kills_app=not given.no_kill)
    is_plain = given.plain or not sys.stdout.isatty()
    # A SIGTERM must end the processes too, so it takes the way of a Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    squeeze_faults: list[str] = []
    try:
        cast = _play(plan, is_plain=is_plain)
        faults = verdict.judge(cast["ours"])
        _print_result(plan, cast, faults, is_plain=is_plain)
        data = _as_data(plan, cast, faults)
        if not given.no_squeeze:
            results = squeeze.run(modes, _say)
            squeeze_faults = squeeze.judge(results["ours"])
            _print_squeeze(results, squeeze_faults, is_plain=is_plain)
            data["memory"] = squeeze.as_data(results, squeeze_faults)
    except StageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted; its processes have been ended", file=sys.stderr)
        return 130
    if given.json is not None:
        given.json.write_text(json.dumps(data, indent=2) + "\n")
    return verdict.exit_code(faults, squeeze_faults)


def _play(plan: Plan, *, is_plain: bool) -> dict[Mode, Evidence]:
    with Stage(plan) as stage:
        with _plain_view() if is_plain else _live_view(plan) as show:
            for scene in stage.play():
                show(scene)
        return stage.evidence()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    default = Plan()
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--compare", action="store_true", help="run the stock SDK beside ours")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="in all (default %(default)g)")
    parser.add_argument("--outage", type=float, default=default.outage, help="seconds of it (default %(default)g)")
    parser.add_argument(
        "--rate", type=float, default=default.rate, help="items a second of each signal (default %(default)g)"
    )
    parser.add_argument("--no-kill", action="store_true", help="leave the application alive during the outage")
    parser.add_argument("--no-squeeze", action="store_true", help="leave out the last act, in little memory")
    parser.add_argument("--plain", action="store_true", help="lines instead of the live view")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the final figures")
    given = parser.parse_args(arguments)
    if not 0 < given.outage < given.seconds:
        parser.error("the outage must be shorter than the whole")
    if given.outage < _OUTAGE_MIN and not given.no_kill:
        parser.error(f"an outage with a kill in it takes {_OUTAGE_MIN:g} s or more")
    if given.rate <= 0:
        parser.error("the rate must be positive")
    return given


@contextmanager
def _live_view(plan: Plan) -> Iterator[Callable[[Scene], None]]:
    # Imported here and not at the top, because without a terminal nobody needs it.
    from rich.console import Console
    from rich.live import Live

    from demo.view import scene_view

    console = Console()
    # The alternate screen survives resizing, and leaves the terminal as it was.
    with Live(console=console, screen=True, auto_refresh=False) as live:
        yield lambda scene: live.update(scene_view(scene, plan, console.width), refresh=True)


@contextmanager
def _plain_view() -> Iterator[Callable[[Scene], None]]:
    next_at, act = 0.0, ""

    def show(scene: Scene) -> None:
        nonlocal next_at, act
        # The beginning of each act, too: some are shorter than the interval.
        if scene.elapsed >= next_at or scene.act.name != act:
            print(plain.status_line(scene), flush=True)
            next_at, act = scene.elapsed + _PLAIN_INTERVAL, scene.act.name

    yield show


def _say(line: str) -> None:
    print(line, flush=True)


def _print_result(plan: Plan, cast: Mapping[Mode, Evidence], faults: list[str], *, is_plain: bool) -> None:
    killed = ", in the middle of which the application was killed and started again" if plan.kills_app else ""
    print(
        f"\n{plan.rate:g} items a second of each signal for {plan.seconds:g} s; "
        f"no collector for {plan.outage:g} s{killed}.\n"
    )
    _print_table(cast, verdict.table(cast), is_plain=is_plain)
    _print_conclusion(_conclusion(cast["ours"], faults), is_good=not faults, is_plain=is_plain)


def _print_squeeze(results: Mapping[Mode, squeeze.Result], faults: list[str], *, is_plain: bool) -> None:
    print(
        f"\nFour threads at full speed in {squeeze.LIMIT:g} MiB, with buffers of {squeeze.BUFFER:g} MiB; "
        f"no collector for the last {squeeze.AWAY:g} s."
    )
    if not results["ours"]["has_cgroup"]:
        print("No control group can be made here (it takes root, and Linux), so the limit is only configured.")
    print()
    _print_table(results, squeeze.table(results), is_plain=is_plain)
    words = ["Memory did not hold:", *(f"  {fault}" for fault in faults)] if faults else []
    _print_conclusion(words or [squeeze.sentence(results["ours"])], is_good=not faults, is_plain=is_plain)


def _print_table(modes: Iterable[Mode], rows: list[verdict.Row], *, is_plain: bool) -> None:
    titles = [verdict.TITLES[mode] for mode in modes]
    if is_plain:
        print("\n".join(plain.lines(titles, rows)))
        return
    from rich.console import Console

    from demo.view import final_table

    Console(highlight=False).print(final_table(titles, rows))


def _print_conclusion(words: list[str], *, is_good: bool, is_plain: bool) -> None:
    if is_plain:
        print("\n".join(["", *words, ""]), flush=True)
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print()
    for line in words:
        console.print(line, style="bold green" if is_good else "bold red", markup=False)
    console.print()


def _conclusion(evidence: Evidence, faults: list[str]) -> list[str]:
    if faults:
        return ["The books do not balance:", *(f"  {fault}" for fault in faults)]
    return verdict.sentence(evidence).splitlines()


def _as_data(plan: Plan, cast: Mapping[Mode, Evidence], faults: list[str]) -> dict[str, Any]:
    return {
        "plan": {"seconds": plan.seconds, "outage": plan.outage, "rate": plan.rate, "kills_app": plan.kills_app},
        "balanced": not faults,
        "faults": faults,
        **{mode: as_data(evidence) for mode, evidence in cast.items()},
    }


if __name__ == "__main__":
    raise SystemExit(main())
