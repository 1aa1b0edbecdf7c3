"""The same place filled by the SDK's own batch processors, metric reader and OTLP/HTTP exporters.

Owns: the three providers. Threads: the application's.
Invariants: queues as large as the tank's, everything else as it is by default (gzip apart, which both use).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from opentelemetry import _logs, metrics, trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from demo.figures import Limits
from demo.telemetry import METRIC_INTERVAL, RESOURCE
from surgetank.model import Signal, SignalStats


class Stock:
    """The SDK's own batch processors, reader and OTLP/HTTP exporters, with as large a queue."""

    def __init__(self, endpoint: str, max_size: int) -> None:
        gzip = Compression.Gzip
        spans = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces", compression=gzip)
        points = OTLPMetricExporter(endpoint=f"{endpoint}/v1/metrics", compression=gzip)
        logs = OTLPLogExporter(endpoint=f"{endpoint}/v1/logs", compression=gzip)
        batch_size = min(512, max_size)
        self._tracer_provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
        self._tracer_provider.add_span_processor(
            BatchSpanProcessor(spans, max_queue_size=max_size, max_export_batch_size=batch_size)
        )
        self._logger_provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
        self._logger_provider.add_log_record_processor(
            BatchLogRecordProcessor(logs, max_queue_size=max_size, max_export_batch_size=batch_size)
        )
        reader = PeriodicExportingMetricReader(points, export_interval_millis=METRIC_INTERVAL * 1000)
        self._meter_provider = MeterProvider([reader], resource=RESOURCE, shutdown_on_exit=False)
        trace.set_tracer_provider(self._tracer_provider)
        _logs.set_logger_provider(self._logger_provider)
        metrics.set_meter_provider(self._meter_provider)

    def books(self) -> dict[Signal, SignalStats]:
        """Return nothing: the SDK does not account for what it drops."""
        return {}

    def limits(self) -> dict[Signal, Limits]:
        """Return nothing: the SDK's queues are bounded in items only."""
        return {}

    def shutdown(self) -> None:
        """Shut the three providers down, one after the other, as their exit hooks would."""
        steps: list[Callable[[], None]] = [
            self._tracer_provider.shutdown,
            self._logger_provider.shutdown,
            self._meter_provider.shutdown,
        ]
        for step in steps:
            try:
                step()
            except Exception:
                # The meter provider raises when its last export fails; the others must still end.
                logging.getLogger("demo").warning("a provider's shutdown failed", exc_info=True)
