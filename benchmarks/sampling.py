"""
What the offer of a span costs the application's thread, by strategy: `oldest`, `sampling` that thins out nothing, and that does.

What is offered is a snapshot made before, and nothing is encoded or sent meanwhile, so that nothing else is
measured. The ways take turns, and of each the best turn counts: the others were interrupted.
"""

from __future__ import annotations

import gc
import json
import random
import time
from typing import Any

from opentelemetry.sdk.trace import SpanProcessor

from benchmarks.workload import arguments, make_span, provider
from surgetank.clock import SystemClock
from surgetank.config import BufferConfig, DropStrategy, Environment, Timing, resolve_limits
from surgetank.delivery.endpoint import Endpoint
from surgetank.model import Signal
from surgetank.otlp.sdk import snapshot
from surgetank.otlp.spans import SpanCodec
from surgetank.pipeline import Pipeline
from surgetank.testing import ScriptedSender


class Keeper(SpanProcessor):
    """Keeps a span's snapshot."""

    def on_end(self, span: Any) -> None:
        self.kept = snapshot(span)


def snapshots(count: int) -> list[Any]:
    """Return snapshots of one span with random trace ids."""
    keeper = Keeper()
    make_span(provider(keeper)[1], 1)
    rng = random.Random(1)
    return [keeper.kept._replace(trace_id=rng.getrandbits(128)) for _ in range(count)]


def microseconds_an_offer(strategy: DropStrategy, spans: list[Any], full: float) -> float:
    """Return what offering the spans to a buffer takes that is full to a part, too large to become much fuller."""
    clock = SystemClock()
    config = BufferConfig(max_size=20 * len(spans), max_memory_mb=100_000, drop_strategy=strategy)
    pipeline = Pipeline(
        limits=resolve_limits(Signal.SPANS, config, Environment({})),
        timing=Timing(),
        codec=SpanCodec(),
        sender=ScriptedSender([]),
        endpoint=Endpoint("http://127.0.0.1:9", clock),
        clock=clock,
        is_threaded=False,
    )
    never_thinned_out = spans[0]._replace(trace_id=2**56 - 1)
    for _ in range(int(full * config.max_size) if config.max_size else 0):
        pipeline.offer(never_thinned_out)
    offer = pipeline.offer
    gc.collect()
    began = time.perf_counter()
    for span in spans:
        offer(span)
    return (time.perf_counter() - began) / len(spans) * 1e6


def main() -> None:
    """Let them take turns, and print µs an offer."""
    given = arguments(spans=5_000, turns=15)
    spans = snapshots(given.spans)
    ways: dict[str, tuple[DropStrategy, float]] = {
        "oldest": ("oldest", 0.0),
        "idle": ("sampling", 0.0),
        "thinning": ("sampling", 0.52),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(given.turns):
        for name, (strategy, full) in ways.items():
            best[name] = min(best[name], microseconds_an_offer(strategy, spans, full))
    print(json.dumps(best), flush=True)


if __name__ == "__main__":
    main()
