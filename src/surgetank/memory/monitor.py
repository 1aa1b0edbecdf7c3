"""The monitor: how hard memory is pressed, and which part of their full size buffers may have.

Owns: the scale, the latest reading, the subscribers.
Threads: `step` from one thread at a time; the rest from any. No lock: what others see is one reference or one
operation on a dict, so a fork finds nothing half done and no callback is called under a lock.
Invariants: `floor <= scale <= 1`; the scale falls only at a sample above `reduce_above` and rises only at one below
`restore_below`.

    level       0 ──────────── restore_below ──────────── reduce_above ────────▶
    scale         + 0.1 a sample            as it is            half of what is used
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from surgetank.clock import SystemClock
from surgetank.memory.reading import NO_READING, Probe, Reading
from surgetank.memory.settings import MemorySettings
from surgetank.model import FOREVER, Clock

_logger: Final = logging.getLogger("surgetank")

QUICKEST: Final = 0.5
"""The shortest rest between two samples, in seconds."""
_SHRINK: Final = 0.5
_GROW: Final = 0.1
# Subscribers hear of a level that differs by this much from the one they heard of last.
_NOTEWORTHY: Final = 0.1
# What sums of decimal fractions are off by.
_ROUNDING: Final = 1e-9
# A thread that slept until a step was due may wake up a little early (seconds).
_EARLY: Final = 0.001


@dataclass(frozen=True, slots=True)
class Pressure:
    """How memory stands, as of the latest sample."""

    level: float
    """The part of the limit that is used; 0 when nothing is known."""
    scale: float
    """The part of their full size that buffers may have."""
    reading: Reading
    """What it was computed from; its source is `none` when nothing is known."""


class Monitor:
    """
    Samples a probe and turns what it says into a scale, with hysteresis.

    Args:
        probe: Reads the memory; None where there is nothing to read. It may raise.
        clock: Tells the time.
        settings: Thresholds, floor and period; where `adaptive` is false nothing is ever sampled.
        in_use: Asked which part of their full size buffers use at the moment. Shrinking begins there: to halve
            what nobody uses would help nobody.
    """

    def __init__(
        self,
        probe: Probe,
        clock: Clock | None = None,
        settings: MemorySettings | None = None,
        in_use: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self._probe = probe
        self._in_use = in_use
        self._clock = SystemClock() if clock is None else clock
        self._settings = settings or MemorySettings()
        self._current = Pressure(0.0, 1.0, NO_READING)
        self._sampled_at = self._due_at = float("-inf")
        self._told: float | None = None
        self._subscribers: dict[object, Callable[[Pressure], object]] = {}
        self._has_logged_blindness = False
        self._has_logged_subscriber = False

    @property
    def current(self) -> Pressure:
        """How memory stood at the latest sample."""
        return self._current

    @property
    def scale(self) -> float:
        """The part of their full size that buffers may have, from `floor` to 1."""
        return self._current.scale

    def subscribe(self, callback: Callable[[Pressure], object]) -> Callable[[], None]:
        """
        Have `callback` called whenever the level has changed by 0.1 or more since subscribers last heard of it.

        It is called on the thread that steps the monitor, which it holds up for as long as it takes. The scale also
        moves between two calls; `current` has it. What is returned ends the subscription.
        """
        token = object()
        self._subscribers[token] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(token, None)

        return unsubscribe

    def hasten(self) -> None:
        """Have the next sample taken as soon as may be: much memory has been taken since the latest. From any thread."""
        self._due_at = min(self._due_at, self._sampled_at + QUICKEST)

    def step(self) -> float:
        """Sample if it is time to, and return the seconds until the next sample."""
        if not self._settings.adaptive:
            return FOREVER
        now = self._clock.monotonic()
        if now < self._due_at - _EARLY:
            # Woken for another reason: the pace of shrinking and growing is part of the hysteresis.
            return self._due_at - now
        reading = self._read()
        level = reading.pressure
        rest = self._rest(reading, now)
        self._current = Pressure(level, self._scale(reading, level), reading)
        self._sampled_at = now
        self._due_at = now + rest
        self._tell()
        return rest

    def _read(self) -> Reading:
        try:
            reading = self._probe()
        except Exception as error:
            reading = None
            reason = f"the probe failed: {error!r}"
        else:
            reason = "there is nothing to read on this system"
        if reading is not None:
            return reading
        if not self._has_logged_blindness:
            self._has_logged_blindness = True
            _logger.warning("memory is not watched (%s); buffers keep the size that they have", reason)
        return NO_READING

    def _scale(self, reading: Reading, level: float) -> float:
        scale = self._current.scale
        if reading is NO_READING:
            return scale  # Knowing nothing is no reason to grow.
        if level > self._settings.reduce_above:
            return max(self._settings.floor, min(scale, self._in_use()) * _SHRINK)
        if level < self._settings.restore_below:
            grown = scale + _GROW
            return grown if grown < 1.0 - _ROUNDING else 1.0
        return scale

    def _rest(self, reading: Reading, now: float) -> float:
        """Return a period, or half the time until the limit is reached at the present rate, if that is shorter."""
        period = self._settings.period
        before = self._current.reading
        elapsed = now - self._sampled_at
        climbed = reading.used - before.used
        if before.source != reading.source or reading is NO_READING or climbed <= 0 or elapsed <= 0:
            return period
        until_full = (reading.limit - reading.used) * elapsed / climbed
        return min(period, max(QUICKEST, until_full / 2))

    def _tell(self) -> None:
        current = self._current
        if self._told is not None and abs(current.level - self._told) < _NOTEWORTHY - _ROUNDING:
            return
        self._told = current.level
        for token, callback in list(self._subscribers.items()):
            if token not in self._subscribers:
                continue  # Another callback has just ended this subscription.
            try:
                callback(current)
            except Exception:
                if not self._has_logged_subscriber:
                    self._has_logged_subscriber = True
                    _logger.exception("a subscriber to memory pressure raised; further such errors are not logged")
