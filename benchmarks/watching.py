"""What the memory monitor costs: CPU for the samples of a minute, and what an offer costs more because limits can move."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.sampling import snapshots
from surgetank.buffer.buffer import Buffer
from surgetank.clock import SystemClock
from surgetank.config import BufferConfig, Environment, resolve_limits
from surgetank.memory.monitor import Monitor
from surgetank.memory.probes import choose_probe
from surgetank.model import Signal

SAMPLES = 200
OFFERS = 50_000


def ms_a_minute() -> float:
    """Return the CPU of one sample, times those of a minute at the usual period."""
    clock = SystemClock()
    monitor = Monitor(choose_probe(), clock)
    began = time.process_time()
    for _ in range(SAMPLES):
        monitor.hasten()
        monitor._sampled_at = float("-inf")
        monitor._due_at = float("-inf")
        monitor.step()
    return (time.process_time() - began) / SAMPLES * 12 * 1000


def offer_ns(spans: list[Any], *, scale: float | None) -> float:
    """Return what an offer takes, to a buffer that was resized before or never was."""
    limits = resolve_limits(Signal.SPANS, BufferConfig(max_size=10_000_000, max_memory_mb=100_000), Environment({}))
    buffer = Buffer(limits, on_work=lambda: None)
    buffer.wake_at = 0
    if scale is not None:
        buffer.resize(scale)
    began = time.perf_counter_ns()
    for span in spans:
        buffer.offer(span, 1500, False)
    return (time.perf_counter_ns() - began) / len(spans)


def main() -> None:
    """Measure both."""
    spans = snapshots(OFFERS)
    plain = min(offer_ns(spans, scale=None) for _ in range(7))
    resized = min(offer_ns(spans, scale=0.5) for _ in range(7))
    print(json.dumps({"ms_a_minute": ms_a_minute(), "offer_ns": resized - plain, "offer_plain_ns": plain}))


if __name__ == "__main__":
    main()
