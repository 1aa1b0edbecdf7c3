"""`python -m surgetank.measuring`: measures, and prints one JSON object.

Owns: a folder of its own for the spool, removed at the end. Threads: the tank's.
Invariants: no more time than it was given, but for one turn of each measurement; nothing leaves the machine; no setting of
the environment's has a say.

Making a span costs several times what is measured. So spans with and without a tank take turns in one process, and what is
reported is the median over the turns of how much more the ones with it cost.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from surgetank import BufferConfig, Tank
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.senders import sender_for
from surgetank.measuring.sink import running
from surgetank.measuring.workload import RESOURCE, attributes, log_record, make_span
from surgetank.model import Batch, Outcome, Signal, Verdict
from surgetank.otel.shim import LoggerProvider
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import HAS_LOCKS, OsFilesystem
from surgetank.spool.settings import SpoolSettings

_BATCH: Final = 512
_SPANS: Final = 4 * _BATCH
_ROOMY: Final = BufferConfig(max_size=1_000_000, max_memory_mb=1024)
_SETTINGS: Final[dict[str, Any]] = {
    "persistence_enabled": False,
    "self_metrics": False,
    "handle_sigterm": False,
    "spans": _ROOMY,
    "metrics": _ROOMY,
    "logs": _ROOMY,
}
# Of the time that is given; what is left is for starting up.
_CPU_SHARE: Final = 0.5
_SPOOL_SHARE: Final = 0.2
_DELIVERY_SHARE: Final = 0.15
# As little as a disk with next to nothing free shall be given.
_SPOOL_BYTES_MAX: Final = 256 * 1024 * 1024


class _Keeper:
    """A way to the network that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Keep it."""
        self.batches.append(batch)
        return Verdict(outcome=Outcome.DELIVERED, cause="200")

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def sealed(count: int) -> tuple[dict[Signal, list[Batch]], dict[str, float]]:
    """Return sealed batches of each signal, and the bytes that a span has while it waits as an object."""
    keepers: list[_Keeper] = []

    def keep(*_: Any) -> _Keeper:
        keepers.append(_Keeper())
        return keepers[-1]

    tank = Tank(is_threaded=False, make_sender=keep, **_SETTINGS)
    tracers = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    tracers.add_span_processor(tank.span_processor)
    tracer = tracers.get_tracer("shop.http", "2.0.1")
    loggers = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    loggers.add_log_record_processor(tank.log_record_processor)
    logger = loggers.get_logger("shop")
    meters = MeterProvider([tank.metric_reader], resource=RESOURCE, shutdown_on_exit=False)
    counter = meters.get_meter("shop").create_counter("shop.items.sold", "{item}", "Items that were sold")
    for number in range(_BATCH):
        make_span(tracer, count, number)
    held = tank.stats().spans
    for number in range(_BATCH):
        logger.emit(log_record(count, number))
        counter.add(
            number * 7919 % 10_007, {"shop.item": number, "shop.aisle": number % 17, "http.request.method": "GET"}
        )
    tank.force_flush(10.0)
    tank.shutdown(1.0)
    batches: dict[Signal, list[Batch]] = {signal: [] for signal in Signal}
    for keeper in keepers:
        for batch in keeper.batches:
            batches[batch.signal].append(batch)
    return batches, {"waiting_bytes": held.memory_bytes / max(1, held.queued)}


class _Timed(SpanProcessor):
    """Measures how long another processor keeps the application's thread."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.nanoseconds: list[int] = []

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        """Pass it on."""
        self._inner.on_start(span, parent_context)

    def on_end(self, span: Any) -> None:
        """Pass it on, and look at the clock."""
        began = time.perf_counter_ns()
        self._inner.on_end(span)
        self.nanoseconds.append(time.perf_counter_ns() - began)


def cost(endpoint: str, count: int, seconds: float) -> dict[str, float]:
    """Return what a span costs with a tank, beyond what it costs without."""
    tank = Tank(endpoint=endpoint, **_SETTINGS)
    timed = _Timed(tank.span_processor)
    with_tank, without = (TracerProvider(resource=RESOURCE, shutdown_on_exit=False) for _ in range(2))
    with_tank.add_span_processor(timed)
    without.add_span_processor(SpanProcessor())
    beyond: list[float] = []
    medians: list[float] = []
    deadline = time.monotonic() + seconds
    # The first turn fills caches and opens the connection, and does not count.
    while len(beyond) < 4 or time.monotonic() < deadline:
        gc.collect()
        plain = _cpu(without, count, lambda: None)
        timed.nanoseconds.clear()
        beyond.append(_cpu(with_tank, count, lambda: tank.force_flush(30.0)) - plain)
        medians.append(statistics.median(timed.nanoseconds) / 1000)
        if time.monotonic() > deadline + seconds:
            break  # A slow machine gives fewer turns.
    tank.shutdown(5.0)
    return {
        "on_end_us": statistics.median(medians[1:] or medians),
        "cpu_us": statistics.median(beyond[1:] or beyond),
        "turns": max(1, len(beyond) - 1),
    }


def _cpu(provider: TracerProvider, count: int, flush: Callable[[], object]) -> float:
    tracer = provider.get_tracer("shop.http", "2.0.1")
    began = time.process_time()
    for number in range(_SPANS):
        make_span(tracer, count, number)
    flush()
    return (time.process_time() - began) / _SPANS * 1e6


def delivery(endpoint: str, batch: Batch, seconds: float) -> dict[str, float]:
    """Return how fast sealed batches go to a receiver on loopback, one after the other."""
    sender = sender_for(OutletConfig(url=f"{endpoint}/v1/traces", proxy=""), SystemClock())
    began = time.monotonic()
    sent = 0
    while time.monotonic() < began + seconds:
        if sender.send(batch, 5.0).outcome is not Outcome.DELIVERED:
            break
        sent += 1
    taken = time.monotonic() - began
    sender.close()
    return {"items_per_second": sent * batch.items / taken, "bytes_per_second": sent * len(batch.body) / taken}


def spooling(folder: str, batch: Batch, seconds: float) -> dict[str, Any] | None:
    """Return how fast batches are stored in a folder and read again by an heir; None where there is no spool."""
    if not HAS_LOCKS:
        return None
    place = tempfile.mkdtemp(prefix="surgetank-bench-", dir=folder)
    try:
        filesystem, clock = OsFilesystem(), SystemClock()
        settings = SpoolSettings(path=place, max_bytes=2 * _SPOOL_BYTES_MAX, dead_letter_bytes=0)
        writer = Disk(settings, filesystem, clock)
        began = time.monotonic()
        stored = 0
        while time.monotonic() < began + seconds / 2 and stored * len(batch.body) < _SPOOL_BYTES_MAX:
            if writer.spools[batch.signal].append(batch) is None:
                break
            stored += 1
        written = max(1e-9, time.monotonic() - began)
        writer.close()
        reader = Disk(settings, filesystem, clock)
        began = time.monotonic()
        reader.adopt_orphans()
        replayed = 0
        while time.monotonic() < began + seconds:
            held = reader.spools[batch.signal].lease(time.monotonic(), lambda *_: True)
            if held is None or held.record is None:
                break
            reader.spools[batch.signal].ack(held.record)
            replayed += 1
        read = max(1e-9, time.monotonic() - began)
        reader.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return {
        "folder": folder,
        "written_items_per_second": stored * batch.items / written,
        "written_bytes_per_second": stored * len(batch.body) / written,
        "replayed_items_per_second": replayed * batch.items / read,
        "replayed_bytes_per_second": replayed * len(batch.body) / read,
    }


def measure(count: int, seconds: float, folder: str) -> dict[str, Any]:
    """
    Measure everything.

    Args:
        count: Attributes a span and log record.
        seconds: About so long.
        folder: Where the spool's folder is made.
    """
    batches, waiting = sealed(count)
    spans = batches[Signal.SPANS][0]
    with running() as endpoint:
        costs = cost(endpoint, count, seconds * _CPU_SHARE)
        delivered = delivery(endpoint, spans, seconds * _DELIVERY_SHARE)
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "attributes": len(attributes(count, 0)),
        "span": {
            **costs,
            **waiting,
            "sealed_bytes": len(spans.body) / spans.items,
            "encoded_bytes": spans.raw_size / spans.items,
        },
        "sealed_bytes": {
            signal.value: sum(len(each.body) for each in found) / sum(each.items for each in found)
            for signal, found in batches.items()
            if found
        },
        "spool": spooling(folder, spans, seconds * _SPOOL_SHARE),
        "delivery": delivered,
    }


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m surgetank.measuring")
    parser.add_argument("--attributes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    given = parser.parse_args()
    for name in list(os.environ):
        # Measured is what surgetank costs, not what somebody has configured.
        if name.startswith(("OTEL_", "SURGETANK_")):
            del os.environ[name]
    os.environ["SURGETANK_STATUS_ENABLED"] = "false"
    sys.stdout.write(json.dumps(measure(given.attributes, given.seconds, given.folder)) + "\n")


if __name__ == "__main__":
    main()
