"""A steady application through an outage of thirty seconds: how much arrives."""

from __future__ import annotations

import json
import time
from typing import Any

from benchmarks.grpc_collector import GrpcCollector
from benchmarks.workload import arguments, make_span, opened
from surgetank.testing.collector import Collector


def main() -> None:
    """Make spans at a steady rate; the collector is away in the middle; print made and arrived."""
    given = arguments(rate=450, before=5.0, away=30.0, after=15.0, port=0, max_size=22_500)
    kind: Any = GrpcCollector if given.protocol == "grpc" else Collector
    with kind(port=given.port) as collector:
        given.endpoint = collector.endpoint
        _, tracer_provider, tracer = opened(given, max_memory_mb=50)
        began, made = time.monotonic(), 0
        while (elapsed := time.monotonic() - began) < given.before + given.away + given.after:
            is_away = given.before <= elapsed < given.before + given.away
            if is_away and collector.is_listening:
                collector.stop_listening()
            elif not is_away and not collector.is_listening:
                collector.listen_again()
            while made < elapsed * given.rate:
                make_span(tracer, made)
                made += 1
            time.sleep(0.005)
        tracer_provider.shutdown()
        spans = collector.report()["spans"]
    print(json.dumps({"made": made, "arrived": spans["unique"], "duplicates": spans["duplicates"]}))


if __name__ == "__main__":
    main()
