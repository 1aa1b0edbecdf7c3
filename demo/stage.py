"""The play: warm-up, outage, crash, restart, recovery, drain; with processes that are really killed and really started again.

Owns: the processes, the temporary directory, and which act it is.
Threads: the caller's.
Invariants: whatever happens, no process and no file outlives the stage; the application is killed in the
middle of the outage, so that nothing can be delivered between its last line and its death.
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

from demo.evidence import Evidence, Killed, unsealed_max
from demo.figures import Mode, Report, Status, made_with
from demo.notebook import read_note
from demo.processes import AppProcess, CollectorProcess, StageError
from surgetank.model import Signal

# Seconds between two scenes, and the most that an application may take to start and to drain. The stock
# SDK's three providers shut down one after the other, each with its own half minute.
TICK: Final = 0.25
_START_TIMEOUT: Final = 30.0
_DRAIN_TIMEOUT: Final = 120.0
# The share of the time with a collector that comes before the outage.
_WARM_UP_SHARE: Final = 0.4
# How long a killed application stays dead, at most, and what share of the outage.
_DEAD_SECONDS: Final = 1.0
_DEAD_SHARE: Final = 0.25
# However late it is, the second life gets as many seconds.
_SECOND_LIFE_MIN: Final = 1.0
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
    kills_app: bool = True
    """Whether the applications are killed in the middle of the outage, and started again."""

    @property
    def outage_begins(self) -> float:
        """In seconds from the beginning."""
        return (self.seconds - self.outage) * _WARM_UP_SHARE

    @property
    def outage_ends(self) -> float:
        """In seconds from the beginning."""
        return self.outage_begins + self.outage

    @property
    def crash_begins(self) -> float:
        """When the applications are killed, in seconds from the beginning."""
        return self.outage_begins + self.outage / 2 if self.kills_app else self.outage_ends

    @property
    def crash_ends(self) -> float:
        """When they are started again."""
        return self.crash_begins + (min(_DEAD_SECONDS, self.outage * _DEAD_SHARE) if self.kills_app else 0.0)

    @property
    def max_size(self) -> int:
        """Items that a buffer of spans or logs holds."""
        return int(self.rate * (self.outage + _ROOM_BEYOND_OUTAGE))

    def act(self, elapsed: float) -> Act:
        """Return the act of a moment."""
        for ends, name, text in (
            (self.outage_begins, "warm-up", "everything flows"),
            (self.crash_begins, "outage", "collector killed (SIGKILL)"),
            (self.crash_ends, "crash", "application killed (SIGKILL) as well"),
            (self.outage_ends, "restart", "same spool, still no collector"),
            (self.seconds, "recovery", "collector is back"),
        ):
            if elapsed < ends:
                return Act(name=name, text=text, left=ends - elapsed)
        return Act(name="drain", text="the application shuts down", left=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One part of the play."""

    name: str
    """`warm-up`, `outage`, `crash`, `restart`, `recovery` or `drain`."""
    text: str
    """What goes on."""
    left: float
    """Seconds until the next act; 0 when that is not known."""

    @property
    def has_collector(self) -> bool:
        """Whether the collectors live."""
        return self.name not in {"outage", "crash", "restart"}

    @property
    def has_app(self) -> bool:
        """Whether the applications live."""
        return self.name != "crash"


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """One application and its collector, as they are at one moment."""

    mode: Mode
    status: Status
    """The latest line of the latest life that has spoken."""
    is_app_up: bool
    """Whether that life still goes on."""
    pid: int
    """Its process identifier."""
    made: dict[Signal, int]
    """What was made, over all lives."""
    counter_total: int
    """What was counted, over all lives."""
    disk_bytes: int
    """The size of what is in the spool's folder."""
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
    """An application, in one life or two, and the collector that it sends to."""

    def __init__(self, mode: Mode, plan: Plan, directory: Path) -> None:
        self.mode: Mode = mode
        self.collector = CollectorProcess(directory / f"{mode}.journal")
        self._plan = plan
        self._spool = directory / f"{mode}.spool"
        self._notebook = directory / f"{mode}.notebook"
        self._lives: list[AppProcess] = []
        self._killed: Killed | None = None
        self._requests = 0
        """What the first life had begun, and what the second goes on from."""
        self._report: Report | None = None

    @property
    def app(self) -> AppProcess:
        """The application's latest life."""
        return self._lives[-1]

    def start(self) -> None:
        """Start the collector, then the application."""
        self.collector.start()
        self._begin_life(self._plan.seconds)

    def _begin_life(self, seconds: float) -> None:
        self._lives.append(
            AppProcess(
                self.mode,
                endpoint=self.collector.endpoint,
                rate=self._plan.rate,
                seconds=seconds,
                max_size=self._plan.max_size,
                spool=self._spool,
                notebook=self._notebook,
                offset=self._requests,
            )
        )

    def bury(self) -> None:
        """Wait for the death of the application, which has been struck, and keep what it leaves."""
        self.app.end()
        status = self.app.status
        assert status is not None
        self._requests, counter_total = read_note(self._notebook)
        self._killed = Killed(
            status=status,
            made=made_with(self._requests),
            counter_total=counter_total,
            unsealed_max=unsealed_max(self._plan.rate),
        )

    def restart(self, elapsed: float) -> None:
        """Begin the application's second life, which ends when the first would have."""
        left = self._plan.seconds - elapsed - self.app.start_seconds
        self._begin_life(max(_SECOND_LIFE_MIN, left))

    @property
    def _is_dead(self) -> bool:
        """Whether the first life is over, and the second has not begun."""
        return self._killed is not None and len(self._lives) == 1

    def player(self) -> Player | None:
        """Return how the two are; None before the application has said anything."""
        app = next((life for life in reversed(self._lives) if life.status is not None), None)
        if app is None or app.status is None:
            return None
        report = self.collector.report()
        self._report = report or self._report
        past = self._killed
        is_second = past is not None and app is not self._lives[0]
        made, counter_total = dict(app.status.made), app.status.counter_total
        if past is not None:
            made = {signal: past.made[signal] + (made[signal] if is_second else 0) for signal in Signal}
            counter_total = past.counter_total + (counter_total if is_second else 0)
        is_app_up = past is None or is_second
        return Player(
            mode=self.mode,
            status=app.status,
            is_app_up=is_app_up,
            pid=app.pid,
            made=made,
            counter_total=counter_total,
            disk_bytes=_bytes_below(self._spool),
            rates=app.rates() if is_app_up else dict.fromkeys(Signal, 0.0),
            report=self._report,
            is_collector_up=report is not None,
            log_lines=sum(life.log_lines for life in self._lives),
            log=[line for life in self._lives for line in life.log(2)][-2:],
        )

    def has_ended(self) -> bool:
        """Whether the application has ended well. Raises StageError when it has ended otherwise, unless by our hand."""
        return not self._is_dead and self.app.has_ended()

    def evidence(self) -> Evidence:
        """Return what the two say at the end. Raises StageError when the collector is not there to be asked."""
        report = self.collector.report()
        assert self.app.status is not None
        if report is None:
            raise StageError("the collector does not answer at the end")
        return Evidence(
            status=self.app.status,
            report=report,
            killed=self._killed,
            kills=self.collector.kills,
            worst_unaccounted=max(life.worst_unaccounted for life in self._lives),
            log_lines=sum(life.log_lines for life in self._lives),
        )

    def end(self) -> None:
        """End both."""
        for life in self._lives:
            life.end()
        self.collector.end()


def _bytes_below(folder: Path) -> int:
    """Return the size of all files in a folder, some of which may go while we look."""
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size if path.is_file() else 0
        except OSError:
            continue
    return size


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
        before = self._plan.act(0.0)
        while self._running():
            elapsed = time.monotonic() - began
            if elapsed > self._plan.seconds + _DRAIN_TIMEOUT:
                raise StageError(f"an application has not ended {_DRAIN_TIMEOUT:g} s after its last item")
            act = self._next_act(before, elapsed)
            self._change(before, act, elapsed)
            before = act
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

    def _next_act(self, before: Act, elapsed: float) -> Act:
        """Return the act of a moment; on a machine that has slept through the crash, the crash all the same."""
        act = self._plan.act(elapsed)
        if before.name == "outage" and act.name != "outage" and self._plan.kills_app:
            return self._plan.act(self._plan.crash_begins)
        return act

    def _change(self, before: Act, act: Act, elapsed: float) -> None:
        """Kill and start what lives in one act and not in the other; everyone's at once."""
        if before.has_collector and not act.has_collector:
            for pair in self._pairs:
                pair.collector.kill()
        if before.has_app and not act.has_app:
            for pair in self._pairs:
                pair.app.strike()
            for pair in self._pairs:
                pair.bury()
        if act.has_app and not before.has_app:
            for pair in self._pairs:
                pair.restart(elapsed)
        if act.has_collector and not before.has_collector:
            for pair in self._pairs:
                pair.collector.start()

    def _scene(self, elapsed: float, act: Act) -> Scene:
        players = [player for pair in self._pairs if (player := pair.player())]
        return Scene(elapsed=elapsed, act=act, players=players)
