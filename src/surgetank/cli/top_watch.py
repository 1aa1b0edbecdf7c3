"""Who has a tank on this host, from one look at the status files to the next: rates, what is lost lately, and who is gone.

Owns: the last reading of each tank, its rates, and since when it has been gone.
Threads: one.
Invariants: a rate is the difference of two readings of the same tank over the time between their writings, and never
negative; who is gone is told by the lock and the file alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from surgetank.cli.top_readings import UNREADABLE, Reading, read
from surgetank.episodes import LATELY
from surgetank.health import HealthState
from surgetank.model import Clock, Signal
from surgetank.presence import Sighting

LINGER: Final = 10.0
"""So many seconds a tank is still shown after it has gone."""
LOSING: Final = HealthState.LOSING.value
ENDED: Final = HealthState.ENDED.value
DIED: Final = "died"
STATES: Final = (
    LOSING,
    UNREADABLE,
    HealthState.HOLDING.value,
    HealthState.DELIVERING.value,
    HealthState.IDLE.value,
    ENDED,
    DIED,
)
"""Those that somebody should look at first."""


@dataclass(frozen=True, slots=True)
class Rates:
    """Items per second between two readings."""

    offered: float
    delivered: float
    lost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One tank, and what became of it since it was first seen."""

    reading: Reading
    state: str
    """One of `STATES`."""
    rates: Mapping[Signal, Rates]
    """Empty until there have been two readings."""
    growing: Mapping[Signal, frozenset[str]]
    """The reasons by which items were lost lately."""

    @property
    def is_gone(self) -> bool:
        """Whether its process has it no more, or is about to."""
        return self.state in (ENDED, DIED)

    def uptime(self, now: float) -> float:
        """Seconds that it has lived, or had when it last wrote."""
        return max(0.0, (self.reading.written_at if self.is_gone else now) - self.reading.started_at)

    def as_data(self, now: float) -> dict[str, Any]:
        """Return it as JSON has it."""
        rates = {signal: self.rates.get(signal) for signal in Signal}
        return {
            "state": self.state,
            "uptime": self.uptime(now),
            "age": max(0.0, now - self.reading.written_at),
            **self.reading.as_data(),
            "signals": {
                signal.value: {
                    **books.as_data(),
                    "growing": sorted(self.growing[signal]),
                    "in_per_second": None if (found := rates[signal]) is None else found.offered,
                    "out_per_second": None if found is None else found.delivered,
                    "lost_per_second": None if found is None else found.lost,
                }
                for signal, books in self.reading.signals.items()
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What the living tanks come to together."""

    processes: int
    tanks: int
    states: Mapping[str, int]
    """Tanks by state, the gone included."""
    rates: Rates | None
    """None while nothing was read twice."""
    held: int
    held_bytes: int
    on_disk: int
    spool_bytes: int
    lost: int


def totals(tanks: Iterable[Shown]) -> Totals:
    """Add them up."""
    tanks = list(tanks)
    living = [tank for tank in tanks if not tank.is_gone]
    books = [each for tank in living for each in tank.reading.signals.values()]
    rates = [each for tank in living for each in tank.rates.values()]
    return Totals(
        processes=len({(tank.reading.host, tank.reading.pid) for tank in living}),
        tanks=len(living),
        states=Counter(tank.state for tank in tanks),
        rates=Rates(
            offered=sum(each.offered for each in rates),
            delivered=sum(each.delivered for each in rates),
            lost=sum(each.lost for each in rates),
        )
        if rates
        else None,
        held=sum(each.held for each in books),
        held_bytes=sum(each.held_bytes for each in books),
        on_disk=sum(each.on_disk for each in books),
        spool_bytes=sum(each.spool_bytes for each in books),
        lost=sum(each.lost_items for each in books),
    )


@dataclass(slots=True)
class _Track:
    reading: Reading
    rates: Mapping[Signal, Rates] = field(default_factory=dict)
    lost_at: dict[tuple[Signal, str], float] = field(default_factory=dict)
    gone: str = ""
    gone_at: float = 0.0


class Watcher:
    """
    Looks again and again.

    Args:
        clock: Time.
        look: Returns the sightings of this moment.
        is_wanted: Which tanks to show; default: all.
    """

    def __init__(
        self,
        clock: Clock,
        look: Callable[[], Iterable[Sighting]],
        is_wanted: Callable[[Reading], bool] = lambda _: True,
    ) -> None:
        self._clock = clock
        self._look = look
        self._is_wanted = is_wanted
        # A process that was started again under the same number has another beginning.
        self._tracks: dict[tuple[str, float], _Track] = {}

    def tanks(self) -> list[Shown]:
        """Look, and return the tanks: those that fare worst first, then by process."""
        now = self._clock.monotonic()
        seen = set()
        for sighting in self._look():
            reading = read(sighting)
            if self._is_wanted(reading):
                key = reading.file, reading.started_at
                seen.add(key)
                track = self._tracks.setdefault(key, _Track(reading))
                self._notice(track, reading, now)
                if sighting.is_alive:
                    # It was only missed once, in the middle of a writing.
                    track.gone = ""
                elif not track.gone:
                    track.gone, track.gone_at, track.rates = DIED, now, {}
        for key in self._tracks.keys() - seen:
            track = self._tracks[key]
            if not track.gone:
                # Only who ends in order takes the file along.
                track.gone, track.gone_at, track.rates = ENDED, now, {}
            elif now - track.gone_at >= LINGER:
                del self._tracks[key]
        shown = [_shown(each) for each in self._tracks.values() if not each.gone or now - each.gone_at < LINGER]
        return sorted(shown, key=lambda tank: (STATES.index(tank.state), tank.reading.pid, tank.reading.file))

    def _notice(self, track: _Track, reading: Reading, now: float) -> None:
        is_first = track.reading is reading
        track.lost_at = {key: moment for key, moment in track.lost_at.items() if now - moment < LATELY}
        for signal, books in reading.signals.items():
            before = track.reading.signals[signal].lost
            for reason, items in books.lost.items():
                # When it is first seen, it says itself whether some of it was lost lately.
                if reading.health == LOSING if is_first else items > before.get(reason, 0):
                    track.lost_at[signal, reason] = now
        if not is_first and reading.written_at != track.reading.written_at:
            track.rates = _rates(track.reading, reading)
            track.reading = reading


def _shown(track: _Track) -> Shown:
    return Shown(
        reading=track.reading,
        state=track.gone or track.reading.health,
        rates=track.rates,
        growing={signal: frozenset(reason for each, reason in track.lost_at if each is signal) for signal in Signal},
    )


def _rates(before: Reading, after: Reading) -> dict[Signal, Rates]:
    seconds = after.written_at - before.written_at
    found = {}
    for signal, books in after.signals.items():
        was = before.signals[signal]
        steps = (books.offered - was.offered, books.delivered - was.delivered, books.lost_items - was.lost_items)
        # Otherwise somebody has set the clock, or these are not the same counts.
        if seconds > 0 and min(steps) >= 0:
            found[signal] = Rates(*(step / seconds for step in steps))
    return found
