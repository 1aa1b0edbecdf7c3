"""Backpressure at the source: a sampler that starts fewer traces, and a log filter that lets less through, while pressure lasts.

Owns: how far each of them has closed.
Threads: any; the state is one number that whoever comes first in a second moves by one step.
Invariants: a trace that has begun is never torn; what is let through at a lower ratio says so in its tracestate;
without pressure both are as if they were not there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, get_current_span
from opentelemetry.trace.span import TraceState

from surgetank.model import Clock
from surgetank.otlp.probability import BITS, thinned

__all__ = ["PressureLogFilter", "PressureSampler", "Sampler", "Valve"]

# How full a buffer, or memory, must be for pressure to begin, and to end: the ADR's two marks.
CLOSE_ABOVE: Final = 0.8
OPEN_BELOW: Final = 0.5
# The valve moves at most once in so many seconds …
STEP_SECONDS: Final = 1.0
# … to a half when it closes, and by a tenth of the whole when it opens.
CLOSE_FACTOR: Final = 0.5
OPEN_STEP: Final = 0.1


class Valve:
    """
    How much is let through: 1 is everything.

    Args:
        pressure: Asked at most once a second; 0 is none, 1 is full.
        clock: Time.
        floor: The least that is let through.
    """

    def __init__(self, pressure: Callable[[], float], clock: Clock, *, floor: float) -> None:
        self._pressure = pressure
        self._clock = clock
        self._floor = floor
        self._next_at = float("-inf")
        self.opening = 1.0

    def look(self) -> float:
        """Move by at most one step, and return how much is let through."""
        now = self._clock.monotonic()
        if now >= self._next_at:
            # Two threads that come at once take two steps in place of one, and the next second puts it right.
            self._next_at = now + STEP_SECONDS
            pressure = self._pressure()
            if pressure > CLOSE_ABOVE:
                self.opening = max(self._floor, self.opening * CLOSE_FACTOR)
            elif pressure < OPEN_BELOW:
                self.opening = min(1.0, self.opening + OPEN_STEP)
        return self.opening


class PressureSampler(Sampler):
    """
    Starts fewer traces while pressure lasts, so that spans that would be dropped are never made. Made by `Tank.sampler`.

    A span with a parent follows its parent, as the wrapped sampler decides. A root span that the wrapped sampler
    takes goes by its trace's own randomness, and carries the threshold in its tracestate (`ot=th:…`), so that a
    backend's estimates of counts stay right. Thread-safe; never raises on its own account.

    Args:
        root: The sampler to wrap; None for the SDK's default, which samples all and follows parents.
        valve: How much is let through.
    """

    def __init__(self, root: Sampler | None, valve: Valve) -> None:
        self._root = DEFAULT_ON if root is None else root
        self._valve = valve

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """Decide as the wrapped sampler does, and let fewer root spans through while pressure lasts."""
        result = self._root.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        opening = self._valve.look()
        if opening >= 1.0 or result.decision is not Decision.RECORD_AND_SAMPLE:
            return result
        if get_current_span(parent_context).get_span_context().is_valid:
            return result
        threshold = int((1.0 - opening) * 2**BITS)
        state = dict(result.trace_state.items()) if result.trace_state else {}
        kept = thinned(trace_id, state, threshold)
        if kept is None:
            return SamplingResult(Decision.DROP, trace_state=result.trace_state)
        return SamplingResult(result.decision, result.attributes, TraceState(list(kept.items())))

    def get_description(self) -> str:
        """Name the wrapped sampler too."""
        return f"surgetank.PressureSampler({self._root.get_description()})"


class PressureLogFilter(logging.Filter):
    """
    Lets fewer of the application's log records into OpenTelemetry while pressure lasts. Made by `Tank.log_filter`.

    Added to the handler that feeds OpenTelemetry: `handler.addFilter(tank.log_filter())`. The level rises from DEBUG to
    INFO to WARNING as the valve closes, and falls again; WARNING and above always pass. Thread-safe.
    """

    def __init__(self, valve: Valve) -> None:
        super().__init__()
        self._valve = valve

    @property
    def level(self) -> int:
        """The level below which records are refused at the moment."""
        opening = self._valve.look()
        if opening >= 1.0:
            return logging.NOTSET
        return logging.INFO if opening > CLOSE_FACTOR else logging.WARNING

    def filter(self, record: logging.LogRecord) -> bool:
        """Refuse what is below the present level."""
        return record.levelno >= self.level
