"""The spans, log records and metric points that are measured, as instrumentations make them.

Owns: no state. Threads: any. Invariants: values vary as they do in life; the same number makes the same item.
"""

from __future__ import annotations

from typing import Any, Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind, Tracer

from surgetank.otel.shim import LogRecord, SeverityNumber

RESOURCE: Final = Resource(
    {
        "service.name": "checkout",
        "service.version": "1.4.2",
        "service.instance.id": "checkout-7d9f",
        "deployment.environment.name": "production",
        "telemetry.sdk.language": "python",
    }
)


# Knuth's multiplier: consecutive numbers are scattered, so that compression finds no more of a pattern than in life.
_SCATTER: Final = 2_654_435_761


def _scattered(number: int) -> int:
    return number * _SCATTER % 2**32 >> 4


def attributes(count: int, number: int) -> dict[str, Any]:
    """Return so many attributes, of the kinds that a request has."""
    number = _scattered(number)
    found: dict[str, Any] = {
        "http.request.method": "GET",
        "url.path": f"/items/{number % 5000}",
        "http.route": "/items/{id}",
        "http.response.status_code": 200,
        "server.address": "shop.example.org",
        "server.port": 443,
        "client.address": f"10.0.{number % 250}.{number % 199}",
        "url.scheme": "https",
        "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64)",
        "network.protocol.version": "1.1",
    }
    names = list(found)[:count]
    more = {f"app.field.{each}": f"value {number % (7 + each)}" for each in range(len(found), count)}
    return {**{name: found[name] for name in names}, **more}


def make_span(tracer: Tracer, count: int, number: int) -> None:
    """Start and end a server span with one event."""
    span = tracer.start_span("GET /items/{id}", kind=SpanKind.SERVER, attributes=attributes(count, number))
    number = _scattered(number)
    span.add_event("cache.lookup", {"cache.hit": number % 3 == 0, "cache.key": f"item:{number % 5000}"})
    span.end()


def log_record(count: int, number: int) -> LogRecord:
    """Return a log record."""
    varied = _scattered(number)
    return LogRecord(
        body=f"item {varied % 5000} was sold for {varied % 97}.{varied % 89:02d}",
        severity_number=SeverityNumber.INFO,
        severity_text="INFO",
        timestamp=1_700_000_000_000_000_000 + number * 1_000_000 + varied % 1_000_000,
        attributes=attributes(count, number),
    )
