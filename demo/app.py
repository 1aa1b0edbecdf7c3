"""The application of the demo: makes spans, metrics and logs at a steady rate and says every quarter second how it is.

Run by the stage as `python -m demo.app --mode ours|stock --endpoint URL`; prints JSON lines (`figures.Status`).

Owns: the providers, its own count of what it made, the highest memory seen.
Threads: one, which makes everything; those of the telemetry library come on top.
Invariants: the count goes up by what was made, whatever becomes of it; the last line comes after the shutdown,
unless the process is killed: then its notebook says how far it had come.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Final

import psutil
from opentelemetry import _logs, metrics, trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context

from demo.figures import COUNTER, STATUS_INTERVAL, Mode, Status, made_with
from demo.notebook import Notebook
from demo.telemetry import Ours, Telemetry
from surgetank.model import Signal

ROUTES: Final = ("/items/{id}", "/cart", "/cart/{id}", "/orders", "/search")


class Shop:
    """
    The work that is observed: requests of two spans, two log records and two additions to the counter each.

    Args:
        offset: The first request's number; where an earlier life of the application left off, so that none repeats.
        notebook: Where to note what is begun; None for nowhere.
    """

    def __init__(self, offset: int = 0, notebook: Notebook | None = None) -> None:
        self._offset = offset
        self._notebook = notebook
        self._tracer = trace.get_tracer("shop.http", "2.0.1")
        self._logger = _logs.get_logger("shop.http", "2.0.1")
        meter = metrics.get_meter("shop.http", "2.0.1")
        self._handled = meter.create_counter(COUNTER, unit="{item}")
        self._duration = meter.create_histogram("shop.request.duration", unit="ms")
        self.requests = 0
        self.counter_total = 0

    def made(self) -> dict[Signal, int]:
        """Return what was made so far, two of each signal with every request."""
        return made_with(self.requests)

    def serve(self) -> None:
        """Handle one request."""
        number = self._offset + self.requests
        # Two additions of different size, so that the total is more than a count of calls.
        additions = (1, number % 7)
        if self._notebook is not None:
            self._notebook.note(self.requests + 1, self.counter_total + sum(additions))
        route = ROUTES[number % len(ROUTES)]
        request = self._tracer.start_span(
            "GET " + route, kind=trace.SpanKind.SERVER, attributes=_attributes(number, route)
        )
        inside = trace.set_span_in_context(request)
        query = self._tracer.start_span(
            "SELECT items", inside, kind=trace.SpanKind.CLIENT, attributes=_attributes(number, route)
        )
        query.add_event("cache.lookup", {"cache.hit": number % 3 == 0, "cache.key": f"item:{number % 5000}"})
        query.end()
        request.add_event("rendered", {"template": "item.html", "bytes": 4096 + number % 999})
        request.end()
        for step, body in enumerate(("looked up", "answered")):
            self._log(f"{number}-{step}", body, route, inside)
        for value in additions:
            self._handled.add(value, {"http.route": route})
            self._duration.record(5 + number % 40, {"http.route": route})
            self.counter_total += value
        self.requests += 1

    def _log(self, item_id: str, body: str, route: str, context: Context) -> None:
        record = LogRecord(
            timestamp=time.time_ns(),
            context=context,
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            body=f"request {body}",
            attributes={"item.id": item_id, "http.route": route, "user.id": f"u{int(item_id[:-2]) % 977}"},
        )
        self._logger.emit(record)


def _attributes(number: int, route: str) -> dict[str, str | int]:
    return {
        "http.request.method": "GET",
        "url.scheme": "https",
        "url.path": f"/items/{number % 5000}",
        "http.route": route,
        "http.response.status_code": 200,
        "server.address": "shop.example.org",
        "server.port": 443,
        "client.address": f"10.0.{number % 250}.{number % 199}",
        "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
        "network.protocol.version": "1.1",
    }


class Reporter:
    """Prints status lines."""

    def __init__(self, shop: Shop, telemetry: Telemetry) -> None:
        self._shop = shop
        self._telemetry = telemetry
        self._process = psutil.Process()
        self._rss_peak_bytes = 0
        self._limits = telemetry.limits()

    def say(self, elapsed: float, *, is_final: bool = False) -> None:
        """Print one line."""
        rss_bytes = self._process.memory_info().rss
        self._rss_peak_bytes = max(self._rss_peak_bytes, rss_bytes)
        status = Status(
            elapsed=elapsed,
            made=self._shop.made(),
            counter_total=self._shop.counter_total,
            rss_bytes=rss_bytes,
            rss_peak_bytes=self._rss_peak_bytes,
            books=self._telemetry.books(),
            limits=self._limits,
            is_final=is_final,
        )
        print(status.to_json(), flush=True)


def work(shop: Shop, reporter: Reporter, rate: float, seconds: float) -> float:
    """
    Serve requests, so that each signal is made at `rate` items a second, and report; return the seconds it took.

    Every request has its moment on the schedule. One that is late is served at once, so the rate holds on
    average whatever a single pause costs.
    """
    began = time.monotonic()
    next_status = 0.0
    while (elapsed := time.monotonic() - began) < seconds:
        next_request = shop.requests * 2 / rate
        if elapsed >= next_status:
            reporter.say(elapsed)
            next_status = elapsed + STATUS_INTERVAL
        if elapsed >= next_request:
            shop.serve()
        else:
            time.sleep(max(0.0, min(next_request, next_status, seconds) - elapsed))
    return elapsed


def telemetry_of(mode: Mode, endpoint: str, max_size: int, spool: Path | None) -> Telemetry:
    """Wire the global providers."""
    if mode == "ours":
        return Ours(endpoint, max_size, spool)
    # Only now: the stock exporters' own memory must not be counted as ours.
    from demo.stock import Stock

    return Stock(endpoint, max_size)


def main() -> None:
    """Run for a while, shut down, and print the last line."""
    parser = argparse.ArgumentParser(prog="python -m demo.app", description=main.__doc__)
    parser.add_argument("--mode", choices=("ours", "stock"), default="ours")
    parser.add_argument("--endpoint", default="http://127.0.0.1:4318")
    parser.add_argument("--rate", type=float, default=450.0, help="items a second, per signal")
    parser.add_argument("--seconds", type=float, default=45.0)
    parser.add_argument("--max-size", type=int, default=18_000, help="items that the buffer of spans or logs holds")
    parser.add_argument("--spool", type=Path, metavar="FOLDER", help="where to store what is sealed (only ours can)")
    parser.add_argument("--notebook", type=Path, metavar="FILE", help="where to note what is begun")
    parser.add_argument("--offset", type=int, default=0, help="the number of the first request (default 0)")
    given = parser.parse_args()
    # What a service writes when nobody changes anything: warnings and worse.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    telemetry = telemetry_of(given.mode, given.endpoint, given.max_size, given.spool)
    shop = Shop(given.offset, None if given.notebook is None else Notebook(given.notebook))
    reporter = Reporter(shop, telemetry)
    elapsed = work(shop, reporter, given.rate, given.seconds)
    telemetry.shutdown()
    reporter.say(elapsed, is_final=True)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        # Whoever listened is gone, and so is the reason to run.
        raise SystemExit(1) from None
