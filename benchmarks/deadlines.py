"""How long `force_flush(1 s)` and `shutdown()` take with a full buffer and a bad endpoint."""

from __future__ import annotations

import json
import os
import time

from benchmarks.workload import arguments, make_span, opened


def main() -> None:
    """Fill a buffer of 2048, then call one of the two and print the seconds that it took."""
    given = arguments(call="flush", max_size=2048)
    inner, tracer_provider, tracer = opened(given)
    for number in range(2048):
        make_span(tracer, number)
    began = time.monotonic()
    if given.call == "flush":
        inner.force_flush(1000)
    else:
        tracer_provider.shutdown()
    print(json.dumps({"seconds": time.monotonic() - began}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
