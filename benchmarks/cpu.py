"""Process CPU per span, all threads, endpoint up, gzip; and the wall time of `on_end` on the application's thread."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.workload import arguments, make_span, processor, provider


def main() -> None:
    """Make spans at full speed, flush, and print µs per span."""
    given = arguments(spans=20_000)
    inner: Any = processor(given.mode, given.endpoint, max_size=2 * given.spans)
    timed: list[int] = []
    on_end = inner.on_end

    def timed_on_end(span: Any) -> None:
        began = time.perf_counter_ns()
        on_end(span)
        timed.append(time.perf_counter_ns() - began)

    inner.on_end = timed_on_end
    tracer_provider, tracer = provider(inner)
    for number in range(2_000):
        make_span(tracer, number)
    inner.force_flush(60_000)
    timed.clear()
    began = time.process_time()
    for number in range(given.spans):
        make_span(tracer, number)
    inner.force_flush(60_000)
    used = time.process_time() - began
    timed.sort()
    print(
        json.dumps(
            {
                "cpu_us": used / given.spans * 1e6,
                "on_end_p50_us": timed[len(timed) // 2] / 1000,
                "on_end_mean_us": sum(timed) / len(timed) / 1000,
            }
        )
    )
    tracer_provider.shutdown()


if __name__ == "__main__":
    main()
