"""Resident memory in an outage: per waiting span, and with a large attribute on each."""

from __future__ import annotations

import gc
import json
import os
import time

import psutil

from benchmarks.workload import arguments, make_span, opened


def main() -> None:
    """Make spans against a dead endpoint and print what the process grew by, in MB, at most and in the end."""
    given = arguments(spans=200_000, attribute_kib=0, max_size=200_000, max_memory_mb=50.0)
    process = psutil.Process()
    inner, _, tracer = opened(given, max_memory_mb=given.max_memory_mb)
    for number in range(100):
        make_span(tracer, number)
    gc.collect()
    before = peak = process.memory_info().rss
    for number in range(given.spans):
        # A string of its own each time, and not one that compresses to nothing.
        extra = {"payload": os.urandom(given.attribute_kib * 512).hex()} if given.attribute_kib else None
        make_span(tracer, number, extra)
        if number % 16 == 0:
            peak = max(peak, process.memory_info().rss)
            if given.mode == "ours" and number % 2048 == 0:
                # At full speed the producer starves every other thread of the GIL; a real one waits for something.
                time.sleep(0.02)
    time.sleep(1.0)
    gc.collect()
    after = process.memory_info().rss
    tank = getattr(inner, "tank", None)
    held = tank.stats().spans.queued + tank.stats().spans.in_flight if tank else min(given.spans, given.max_size)
    peak = max(peak, after)
    print(
        json.dumps(
            {
                "held": held,
                "grown_mb": (after - before) / 1e6,
                "peak_mb": (peak - before) / 1e6,
                "per_span_kb": (after - before) / held / 1000,
                "counted_peak_mb": tank.stats().spans.memory_peak_bytes / 1e6 if tank else None,
            }
        ),
        flush=True,
    )
    # Leave without a shutdown, which is measured elsewhere and takes the stock SDK half a minute.
    os._exit(0)


if __name__ == "__main__":
    main()
