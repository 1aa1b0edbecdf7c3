"""The span that is measured, and the three ways to process it.

The span is a server span with ten attributes and one event of three, as HTTP instrumentations make them.
"""

from __future__ import annotations

import argparse
from typing import Any

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Tracer

import surgetank

MODES = ("none", "stock", "ours")
RESOURCE = Resource(
    {
        "service.name": "checkout",
        "service.version": "1.4.2",
        "service.instance.id": "checkout-7d9f",
        "deployment.environment.name": "production",
        "host.name": "node-17",
        "telemetry.sdk.language": "python",
    }
)


def make_span(tracer: Tracer, number: int, extra: dict[str, Any] | None = None) -> None:
    """Start and end one span; values vary as they do in life."""
    span = tracer.start_span(
        "GET /items/{id}",
        kind=SpanKind.SERVER,
        attributes={
            "http.request.method": "GET",
            "url.scheme": "https",
            "url.path": f"/items/{number % 5000}",
            "http.route": "/items/{id}",
            "http.response.status_code": 200,
            "server.address": "shop.example.org",
            "server.port": 443,
            "client.address": f"10.0.{number % 250}.{number % 199}",
            "user_agent.original": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
            "network.protocol.version": "1.1",
            **(extra or {}),
        },
    )
    span.add_event("cache.lookup", {"cache.hit": number % 3 == 0, "cache.key": f"item:{number % 5000}", "ms": 0.31})
    span.end()


def processor(mode: str, endpoint: str, *, max_size: int, max_memory_mb: float = 4096, **more: Any) -> SpanProcessor:
    """Return the processor of a mode, with a buffer of `max_size` spans and gzip."""
    if mode == "none":
        return SpanProcessor()
    if mode == "stock":
        exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=Compression.Gzip)
        return BatchSpanProcessor(exporter, max_queue_size=max_size, max_export_batch_size=min(512, max_size))
    tank = surgetank.Tank(
        endpoint=endpoint, spans=surgetank.BufferConfig(max_size=max_size, max_memory_mb=max_memory_mb), **more
    )
    span_processor = tank.span_processor
    span_processor.tank = tank  # type: ignore[attr-defined]  # for measurements that ask for statistics
    return span_processor


def provider(span_processor: SpanProcessor) -> tuple[TracerProvider, Tracer]:
    """Return a provider with that processor and a tracer of it."""
    tracer_provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    tracer_provider.add_span_processor(span_processor)
    return tracer_provider, tracer_provider.get_tracer("shop.http", "2.0.1")


def arguments(**defaults: Any) -> argparse.Namespace:
    """Parse the options of one measuring process; each default also gives the option's type."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mode", choices=MODES, default="ours")
    parser.add_argument("--endpoint", default="http://127.0.0.1:9")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()
