"""What exporting does to the application's thread: the slowest of many small units of work, each in a span."""

from __future__ import annotations

import json
import time

from benchmarks.workload import arguments, make_span, opened


def work() -> int:
    """Take some 150 µs of pure Python."""
    return sum(n * n for n in range(2_500))


def main() -> None:
    """Do units at a steady rate for a while, and print the distribution of their durations in µs."""
    given = arguments(seconds=8.0, rate=1500, max_size=20_000)
    _, tracer_provider, tracer = opened(given)
    durations: list[float] = []
    began = time.perf_counter()
    for number in range(int(given.seconds * given.rate)):
        due = began + number / given.rate
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)
        start = time.perf_counter()
        work()
        make_span(tracer, number)
        durations.append((time.perf_counter() - start) * 1e6)
    durations.sort()
    at = {
        name: durations[int(len(durations) * share)] for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
    }
    print(json.dumps({**at, "max": durations[-1]}))
    tracer_provider.shutdown()


if __name__ == "__main__":
    main()
