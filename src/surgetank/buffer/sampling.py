"""The strategy `sampling` for spans and logs: thin out before memory is full, whole traces at a time.

Owns: the level of thinning.
Threads: `Thinning.offer` any, at once; who finds the level being revised goes by the one there is.
Invariants: a critical item is never thinned out; with a steady level a trace goes or stays as a whole; a span that
stays says what share of its like stays (`otlp/probability.py`), unless that is all of them.

The level is a small number of steps and not a function of each offer's fill, because whenever it moves, the traces
under way whose randomness lies between the old threshold and the new one are torn.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from surgetank import threads
from surgetank.buffer.buffer import Buffer
from surgetank.model import Clock, Signal
from surgetank.otlp.probability import RANDOMNESS, thinned, threshold_of_one_in, threshold_text
from surgetank.otlp.sdk import SpanFields

STEPS: Final = (0.5, 0.6, 0.7, 0.8, 0.9)
"""At the first of these fills one trace in two is kept, at the next one in four … The upper half thus lasts twelve times as long."""
HYSTERESIS: Final = 0.1
"""A level ends only when the fill is so much below the one at which it began …"""
CALM: Final = 5.0
"""… and has been for so many seconds, then the next: longer than most traces take, so that few see two levels."""
LOOK_EVERY: Final = 0.05
"""The fill is looked at as often as this (seconds) …"""
LOOK_GROWTH: Final = 0.05
"""… and whenever it has grown by so much."""


class Level:
    """How much to thin out: 0 nothing, n to keep one trace in `2**n`. It rises at once and falls a step at a time."""

    def __init__(self) -> None:
        self.number = 0
        self._pressed_at = float("-inf")

    def follow(self, fill: float, now: float) -> None:
        """
        Revise it.

        Args:
            fill: How full the buffer is; 1 is full.
            now: Monotonic seconds.
        """
        wanted, held = bisect_right(STEPS, fill), bisect_right(STEPS, fill + HYSTERESIS)
        if held >= self.number:
            self.number = max(self.number, wanted)
            self._pressed_at = now
        elif (steps := int((now - self._pressed_at) / CALM)) > 0:
            # More than one after a silence: nobody was here to see the buffer become empty.
            self.number = max(held, self.number - steps)
            self._pressed_at = now


# Item, estimate and level to item and estimate, or to None for an item that is thinned out.
Thin: TypeAlias = Callable[[Any, int, int], "tuple[Any, int] | None"]


class Thinning:
    """
    Stands before a buffer and keeps part of what is offered.

    Args:
        buffer: Where it asks how full it is, and has counted what it keeps out.
        clock: Time.
        thin: The signal's own way, of `THIN`.
        take: Takes what stays; called as `Buffer.offer` is.
    """

    def __init__(self, buffer: Buffer, clock: Clock, thin: Thin, take: Callable[[Any, int, bool], None]) -> None:
        self._buffer = buffer
        self._is_filling = buffer.is_filling
        self._monotonic = clock.monotonic
        self._thin = thin
        self._take = take
        self.reset()

    def reset(self) -> None:
        """Begin anew: construction, and a forked child, whose buffer is empty."""
        self._level = Level()
        self._is_revised = threads.new_lock()
        self._look_at = float("-inf")
        self._look_fill = 0.0

    @property
    def level(self) -> int:
        """How much is thinned out at the moment; 0 is nothing."""
        return self._level.number

    def offer(self, item: Any, estimate: int, is_critical: bool) -> None:
        """Take an item as `Buffer.offer` does, or thin it out. Never raises, never waits."""
        if is_critical or (not self._level.number and not self._is_filling()):
            self._take(item, estimate, is_critical)
            return
        self._look()
        level = self._level.number
        if level:
            try:
                kept = self._thin(item, estimate, level)
            except Exception:
                # What cannot be read will not be encoded either, and is counted as that.
                kept = item, estimate
            if kept is None:
                self._buffer.thin_out(estimate)
                return
            item, estimate = kept
        self._take(item, estimate, False)

    def _look(self) -> None:
        now, fill = self._monotonic(), self._buffer.fill
        if now < self._look_at and fill < self._look_fill:
            return
        # Not waited for: others, and a signal handler in the middle of this, go by the level that there is.
        if self._is_revised.acquire(blocking=False):
            try:
                self._look_at, self._look_fill = now + LOOK_EVERY, fill + LOOK_GROWTH
                self._level.follow(self._buffer.unsaved_fill(), now)
            finally:
                self._is_revised.release()


_LEVELS: Final = range(len(STEPS) + 1)
_THRESHOLDS: Final = tuple(map(threshold_of_one_in, _LEVELS))
# Most spans have no tracestate, and all of those share one.
_TRACE_STATES: Final[tuple[Mapping[str, str], ...]] = tuple(
    MappingProxyType({"ot": f"th:{threshold_text(threshold)}"}) for threshold in _THRESHOLDS
)
_TRACE_ID: Final = SpanFields._fields.index("trace_id")
_TRACE_STATE: Final = SpanFields._fields.index("trace_state")
_MERGED_BYTES: Final = 350
"""A dict of a few members and a text (measured, CPython 3.11)."""


def thin_span(span: Any, estimate: int, level: int) -> tuple[Any, int] | None:
    """Thin out a span (`SpanFields`) by its trace; what stays says so in its tracestate."""
    threshold, trace_state = _THRESHOLDS[level], span[_TRACE_STATE]
    if not trace_state:
        if span[_TRACE_ID] & RANDOMNESS < threshold:
            return None
        kept: Mapping[str, str] | None = _TRACE_STATES[level]
    else:
        kept = thinned(span[_TRACE_ID], trace_state, threshold)
        if kept is None:
            return None
        if kept is trace_state:
            return span, estimate
        estimate += _MERGED_BYTES
    # Past `_replace`, which takes four times as long.
    return tuple.__new__(SpanFields, (*span[:_TRACE_STATE], kept, *span[_TRACE_STATE + 1 :])), estimate


# One row for each range of four severity numbers, TRACE to FATAL: at each level one record in `2**n` is kept. ERROR and
# FATAL are critical, so their rows are for those whose own idea of critical says otherwise.
_KEPT_OF_LOGS: Final = (
    (0, 2, 4, 6, 8, 10),
    (0, 1, 3, 5, 7, 9),
    (0, 0, 1, 2, 4, 6),
    (0, 0, 0, 1, 2, 4),
    (0, 0, 0, 0, 1, 2),
    (0, 0, 0, 0, 1, 2),
)
_LOG_THRESHOLDS: Final = tuple(tuple(map(threshold_of_one_in, row)) for row in _KEPT_OF_LOGS)
_INFO: Final = 9
_64_BITS: Final = 2**64 - 1


def thin_log(record: Any, estimate: int, level: int) -> tuple[Any, int] | None:
    """Thin out a log record (`LogItem`) by its severity and its trace; without a trace, by chance."""
    number = getattr(record.severity_number, "value", 0)
    # Of one that does not say how grave it is, nothing is known but that somebody wrote it.
    threshold = _LOG_THRESHOLDS[((number if 1 <= number <= 24 else _INFO) - 1) // 4][level]
    if threshold:
        randomness = record.trace_id & RANDOMNESS if record.trace_id else _scattered(record)
        if randomness < threshold:
            return None
    return record, estimate


def _scattered(record: Any) -> int:
    """Return 56 bits that differ between records written at the same moment, and between the moments of one address."""
    seed = (record.timestamp or 0) ^ (record.observed_timestamp or 0) << 1 ^ id(record)
    # Twice, since the product alone of numbers that are alike is spread too evenly to be chance.
    mixed = seed * 0x9E37_79B9_7F4A_7C15 & _64_BITS
    return ((mixed ^ mixed >> 29) * 0xBF58_476D_1CE4_E5B9 & _64_BITS) >> 8


THIN: Final[Mapping[Signal, Thin]] = MappingProxyType({Signal.SPANS: thin_span, Signal.LOGS: thin_log})
"""How each signal is thinned out; metrics are collected less often instead."""
