"""
Process CPU per span, all threads, endpoint up, gzip; and the wall time of `on_end` on the application's thread.

Making a span costs several times what is measured, and between two processes it differs by more than that. So
all ways of processing take turns in one process (through the zero-code door, which a process has once, one of them and none), and what is reported is the median over the turns of how
much more than making them the spans of one turn took.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import Tracer

from benchmarks.workload import MODES, arguments, make_span, opened, provider


class Subject:
    """One way of processing, with its own provider, and what its turns took."""

    def __init__(self, inner: Any, tracer_provider: Any, tracer: Tracer, spans: int) -> None:
        self._spans = spans
        self._timed: list[int] = []
        self._on_end = inner.on_end
        self._force_flush = inner.force_flush
        inner.on_end = self._timed_on_end
        self._provider, self._tracer = tracer_provider, tracer
        self.cpu_us: list[float] = []
        self.on_end_p50_us: list[float] = []
        self.on_end_mean_us: list[float] = []
        self.collections: list[float] = []

    def _timed_on_end(self, span: Any) -> None:
        began = time.perf_counter_ns()
        self._on_end(span)
        self._timed.append(time.perf_counter_ns() - began)

    def take_turn(self) -> None:
        """Make spans at full speed and flush."""
        gc.collect()
        self._timed.clear()
        collected = _collections()
        began = time.process_time()
        for number in range(self._spans):
            make_span(self._tracer, number)
        self._force_flush(60_000)
        self.cpu_us.append((time.process_time() - began) / self._spans * 1e6)
        self.collections.append(_collections() - collected)
        self.on_end_p50_us.append(statistics.median(self._timed) / 1000)
        self.on_end_mean_us.append(statistics.mean(self._timed) / 1000)

    def forget_turns(self) -> None:
        """Begin anew: the first turn fills caches and opens connections."""
        for results in (self.cpu_us, self.on_end_p50_us, self.on_end_mean_us, self.collections):
            results.clear()

    def shutdown(self) -> None:
        """End its threads."""
        self._provider.shutdown()


def _collections() -> int:
    """Return how often the garbage collector has run."""
    return sum(generation["collections"] for generation in gc.get_stats())


def main() -> None:
    """Let them take turns, and print µs per span and how often garbage was collected."""
    given = arguments(spans=4_000, turns=9, max_size=8_000)
    subjects = {}
    for mode in MODES:
        if given.door == "code" or mode == given.mode:
            opening = argparse.Namespace(**{**vars(given), "mode": mode})
            subjects[mode] = Subject(*opened(opening), given.spans)
        elif mode == "none":
            plain = SpanProcessor()
            subjects[mode] = Subject(plain, *provider(plain), given.spans)
    for subject in subjects.values():
        subject.take_turn()
        subject.forget_turns()
    for _ in range(given.turns):
        for subject in subjects.values():
            subject.take_turn()
    making = subjects["none"].cpu_us
    results = {
        mode: {
            "cpu_us": statistics.median(subject.cpu_us),
            "beyond_us": statistics.median(own - none for own, none in zip(subject.cpu_us, making, strict=True)),
            "on_end_p50_us": statistics.median(subject.on_end_p50_us),
            "on_end_mean_us": statistics.median(subject.on_end_mean_us),
            "collections": statistics.median(subject.collections),
        }
        for mode, subject in subjects.items()
    }
    print(json.dumps(results), flush=True)
    for subject in subjects.values():
        subject.shutdown()


if __name__ == "__main__":
    main()
