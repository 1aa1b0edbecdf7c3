"""An outage and a `kill -9` in the middle of it, with real processes: `python -m demo`; exits 0 if the books balance.

Owns: no state. Threads: the main one.
Invariants: it parses and prints; the rest decides.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from demo import plain, verdict
from demo.evidence import Evidence, as_data
from demo.figures import Mode
from demo.processes import StageError
from demo.stage import Plan, Scene, Stage

# Seconds between two lines without a terminal.
_PLAIN_INTERVAL: Final = 3.0
# A shorter outage has no room for an application that says something, is killed and comes back.
_OUTAGE_MIN: Final = 2.0


def main(arguments: list[str] | None = None) -> int:
    """Play, show, and return the exit code: 0 if the books balance, 1 if not, 2 if it could not be played."""
    given = _parse(arguments)
    modes: tuple[Mode, ...] = ("ours", "stock") if given.compare else ("ours",)
    plan = Plan(seconds=given.seconds, outage=given.outage, rate=given.rate, modes=modes, kills_app=not given.no_kill)
    is_plain = given.plain or not sys.stdout.isatty()
    # A SIGTERM must end the processes too, so it takes the way of a Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Stage(plan) as stage:
            with _plain_view() if is_plain else _live_view(plan) as show:
                for scene in stage.play():
                    show(scene)
            cast = stage.evidence()
    except StageError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("demo: interrupted; its processes have been ended", file=sys.stderr)
        return 130
    faults = verdict.judge(cast["ours"])
    _print_result(plan, cast, faults, is_plain=is_plain)
    if given.json is not None:
        given.json.write_text(json.dumps(_as_data(plan, cast, faults), indent=2) + "\n")
    return 1 if faults else 0


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


def _print_result(plan: Plan, cast: Mapping[Mode, Evidence], faults: list[str], *, is_plain: bool) -> None:
    titles, rows = [verdict.TITLES[mode] for mode in cast], verdict.table(cast)
    killed = ", in the middle of which the application was killed and started again" if plan.kills_app else ""
    print(
        f"\n{plan.rate:g} items a second of each signal for {plan.seconds:g} s; "
        f"no collector for {plan.outage:g} s{killed}.\n"
    )
    if is_plain:
        print("\n".join(plain.lines(titles, rows)))
        print()
        print("\n".join(_conclusion(cast["ours"], faults)))
        return
    from rich.console import Console

    from demo.view import final_table

    console = Console(highlight=False)
    console.print(final_table(titles, rows))
    console.print()
    for line in _conclusion(cast["ours"], faults):
        console.print(line, style="bold red" if faults else "bold green", markup=False)


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
