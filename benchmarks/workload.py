"""The span that is measured, and the three ways to process it, made here or by the zero-code door.

The span is a server span with ten attributes and one event of three, as HTTP instrumentations make them.
"""

from __future__ import annotations

import argparse
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
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


def processor(
    mode: str,
    endpoint: str,
    *,
    max_size: int,
    max_memory_mb: float = 4096,
    protocol: Any = "http/protobuf",
    compression: Any = "gzip",
    **more: Any,
) -> SpanProcessor:
    """Return the processor of a mode, with a buffer of `max_size` spans."""
    if mode == "none":
        return SpanProcessor()
    if mode == "stock":
        exporter = _stock_exporter(endpoint, protocol, compression)
        return BatchSpanProcessor(exporter, max_queue_size=max_size, max_export_batch_size=min(512, max_size))
    tank = surgetank.Tank(
        endpoint=endpoint,
        protocol=protocol,
        compression=compression,
        spans=surgetank.BufferConfig(max_size=max_size, max_memory_mb=max_memory_mb),
        **more,
    )
    return _with_tank(tank.span_processor, tank)


def _stock_exporter(endpoint: str, protocol: str, compression: str) -> SpanExporter:
    if protocol != "grpc":
        return OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=Compression(compression))
    # Imported here because the demo uses this module without the gRPC packages.
    import grpc
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OTLPGrpcSpanExporter

    calls = grpc.Compression.Gzip if compression == "gzip" else grpc.Compression.NoCompression
    return OTLPGrpcSpanExporter(endpoint=endpoint, insecure=True, compression=calls)


def _with_tank(span_processor: Any, tank: surgetank.Tank) -> SpanProcessor:
    """Put the tank where measurements that ask for statistics find it."""
    span_processor.tank = tank
    found: SpanProcessor = span_processor
    return found


def opened(given: argparse.Namespace, *, max_memory_mb: float = 4096) -> tuple[Any, Any, Tracer]:
    """Return the processor of the mode, its provider and a tracer: made here, or found where the zero-code door has put them."""
    if given.door == "code":
        inner = processor(
            given.mode,
            given.endpoint,
            max_size=given.max_size,
            max_memory_mb=max_memory_mb,
            protocol=given.protocol,
            compression=given.compression,
        )
        return inner, *provider(inner)
    tracer_provider: Any = trace.get_tracer_provider()
    if given.mode == "none":
        tracer_provider.add_span_processor(SpanProcessor())
    (inner,) = tracer_provider._active_span_processor._span_processors
    if given.mode == "ours":
        inner = _with_tank(inner, surgetank.install())
    return inner, tracer_provider, tracer_provider.get_tracer("shop.http", "2.0.1")


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
    parser.add_argument("--door", choices=("code", "zero"), default="code")
    parser.add_argument("--protocol", choices=("http/protobuf", "grpc"), default="http/protobuf")
    parser.add_argument("--compression", choices=("gzip", "none"), default="gzip")
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    return parser.parse_args()
