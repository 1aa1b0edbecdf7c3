"""The play: warm-up, outage, recovery, drain; with a collector that is really killed and really started again.

Owns: the processes, the temporary directory, and which act it is.
Threads: the caller's.
Invariants: whatever happens, no process and no file outlives the stage.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from typing_extensions import Self

from demo.figures import Mode, Report, Status
from demo.processes import AppProcess, CollectorProcess, StageError
from demo.verdict import Evidence
from surgetank.model import Signal

# Seconds between two scenes, and the most that an application may take to start and to drain. The stock
# SDK's three providers shut down one after the other, each with its own half minute.
TICK: Final = 0.25
_START_TIMEOUT: Final = 30.0
_DRAIN_TIMEOUT: Final = 120.0
# The share of the time with a collector that comes before the outage.
_WARM_UP_SHARE: Final = 0.4
# The buffers hold what is made in the outage and in so many seconds more.
_ROOM_BEYOND_OUTAGE: Final = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is played."""

    seconds: float = 45.0
    """How long the applications make items."""
    outage: float = 20.0
    """How long of that the collector is dead."""
    rate: float = 450.0
    """Items a second, of each signal."""
    modes: tuple[Mode, ...] = ("ours",)
    """Who plays, at the same time."""

    @property
    def outage_begins(self) -> float:
        """In seconds from the beginning."""
        return (self.seconds - self.outage) * _WARM_UP_SHARE

    @property
    def outage_ends(self) -> float:
        """In seconds from the beginning."""
        return self.outage_begins + self.outage

    @property
    def max_size(self) -> int:
        """Items that a buffer of spans or logs holds."""
        return int(self.rate * (self.outage + _ROOM_BEYOND_OUTAGE))

    def act(self, elapsed: float) -> Act:
        """Return the act of a moment."""
        if elapsed < self.outage_begins:
            return Act(name="warm-up", text="everything flows", left=self.outage_begins - elapsed)
        if elapsed < self.outage_ends:
            return Act(name="outage", text="collector killed (SIGKILL)", left=self.outage_ends - elapsed)
        if elapsed < self.seconds:
            return Act(name="recovery", text="collector is back", left=self.seconds - elapsed)
        return Act(name="drain", text="the application shuts down", left=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One part of the play."""

    name: str
    """`warm-up`, `outage`, `recovery` or `drain`."""
    text: str
    """What goes on."""
    left: float
    """Seconds until the next act; 0 when that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """One application and its collector, as they are at one moment."""

    mode: Mode
    status: Status
    rates: dict[Signal, float]
    """Items made a second."""
    report: Report | None
    """The collector's latest count; None before the first."""
    is_collector_up: bool
    log_lines: int
    log: list[str]
    """The application's last log lines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Everything that can be seen at one moment."""

    elapsed: float
    act: Act
    players: list[Player]


class Pair:
    """An application and the collector that it sends to."""

    def __init__(self, mode: Mode, plan: Plan, directory: Path) -> None:
        self.mode: Mode = mode
        self.collector = CollectorProcess(directory / f"{mode}.journal")
        self.app: AppProcess | None = None
        self._plan = plan
        self._report: Report | None = None

    def start(self) -> None:
        """Start the collector, then the application."""
        self.collector.start()
        plan = self._plan
        self.app = AppProcess(
            self.mode,
            endpoint=self.collector.endpoint,
            rate=plan.rate,
            seconds=plan.seconds,
            max_size=plan.max_size,
        )

    def player(self) -> Player | None:
        """Return how the two are; None before the application has said anything."""
        assert self.app is not None
        status = self.app.status
        if status is None:
            return None
        report = self.collector.report()
        self._report = report or self._report
        return Player(
            mode=self.mode,
            status=status,
            rates=self.app.rates(),
            report=self._report,
            is_collector_up=report is not None,
            log_lines=self.app.log_lines,
            log=self.app.log(2),
        )

    def has_ended(self) -> bool:
        """Whether the application has ended well. Raises StageError when it has ended otherwise."""
        assert self.app is not None
        return self.app.has_ended()

    def evidence(self) -> Evidence:
        """Return what the two say at the end. Raises StageError when the collector is not there to be asked."""
        report = self.collector.report()
        assert self.app is not None
        assert self.app.status is not None
        if report is None:
            raise StageError("the collector does not answer at the end")
        return Evidence(
            status=self.app.status,
            report=report,
            kills=self.collector.kills,
            worst_unaccounted=self.app.worst_unaccounted,
            log_lines=self.app.log_lines,
        )

    def end(self) -> None:
        """End both."""
        if self.app is not None:
            self.app.end()
        self.collector.end()


class Stage:
    """
    Plays a plan; a context manager that leaves nothing behind.

    Raises:
        StageError: A process did not start, or ended when it should not have.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._directory = tempfile.TemporaryDirectory(prefix="surgetank-demo-")
        self._pairs = [Pair(mode, plan, Path(self._directory.name)) for mode in plan.modes]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for pair in self._pairs:
            pair.end()
        self._directory.cleanup()

    def play(self) -> Iterator[Scene]:
        """Yield a scene every quarter second until all applications have ended."""
        for pair in self._pairs:
            pair.start()
        self._wait_for_all()
        began = time.monotonic()
        is_dead = False
        while self._running():
            elapsed = time.monotonic() - began
            if elapsed > self._plan.seconds + _DRAIN_TIMEOUT:
                raise StageError(f"an application has not ended {_DRAIN_TIMEOUT:g} s after its last item")
            act = self._plan.act(elapsed)
            if is_dead != (act.name == "outage"):
                is_dead = not is_dead
                self._turn(is_dead=is_dead)
            yield self._scene(elapsed, act)
            time.sleep(max(0.0, TICK - (time.monotonic() - began - elapsed)))
        yield self._scene(time.monotonic() - began, self._plan.act(self._plan.seconds))

    def evidence(self) -> dict[Mode, Evidence]:
        """Return what the processes say at the end of the play."""
        return {pair.mode: pair.evidence() for pair in self._pairs}

    def _running(self) -> list[Pair]:
        # Each is asked, so that one that has failed is noticed while another still runs.
        return [pair for pair in self._pairs if not pair.has_ended()]

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT
        while any(pair.player() is None for pair in self._pairs):
            if len(self._running()) < len(self._pairs) or time.monotonic() > deadline:
                raise StageError(f"an application did not begin within {_START_TIMEOUT:g} s")
            time.sleep(0.02)

    def _turn(self, *, is_dead: bool) -> None:
        # Kill all before anything else, so that the outage begins for everyone at once.
        for pair in self._pairs:
            if is_dead:
                pair.collector.kill()
            else:
                pair.collector.start()

    def _scene(self, elapsed: float, act: Act) -> Scene:
        players = [player for pair in self._pairs if (player := pair.player())]
        return Scene(elapsed=elapsed, act=act, players=players)
