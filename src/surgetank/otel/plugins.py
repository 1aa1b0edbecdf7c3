"""The doors for those who can only name an exporter: `OTEL_TRACES_EXPORTER=surgetank`, and declarative configuration files.

Owns: no state. Threads: any, as the SDK calls them; `export` never raises or waits.
Invariants: what is exported is offered to the tank once; what a processor of the SDK's holds in front of an exporter is
drawn into the tank before the tank ends.

Entry points name the classes, so nobody of ours imports this module; it stands above the tank.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from surgetank.driver import is_own_thread
from surgetank.model import Signal
from surgetank.otel.mapping import tank_settings
from surgetank.otel.shim import (
    LogRecordExporter,
    LogRecordExportResult,
    ReadableLogRecord,
    get_logger_provider,
    is_registered,
)
from surgetank.process import shared_for
from surgetank.tank import Tank

# A batch processor stands between the thread that logs and us, so it is told at the source which lines are about our own
# requests: they would be telemetry about telemetry, without end.
_CHATTY: Final = ("urllib3.connectionpool", "urllib3.util.retry")


class SurgetankSpanExporter(SpanExporter):
    """
    Hands spans to the process's tank; under a `simple` processor at once, under a `batch` processor when it pleases.

    Args:
        settings: As in `surgetank.otel.mapping.tank_settings`; without any, the environment's.

    Raises:
        ConfigError: A key is not known, or a value is outside its range.
    """

    def __init__(self, **settings: Any) -> None:
        tank = _tank_for(Signal.SPANS, settings)
        tank.add_source(_draw_spans)
        self._door = tank.span_processor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Offer each span; what becomes of it, the tank's books say."""
        for span in spans:
            self._door.on_end(span)
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered."""
        return self._door.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Refuse spans, deliver the rest within the tank's `shutdown_timeout`."""
        self._door.shutdown()


class SurgetankLogRecordExporter(LogRecordExporter):
    """
    Hands log records to the process's tank; under a `simple` processor at once, under a `batch` processor when it pleases.

    Args:
        settings: As in `surgetank.otel.mapping.tank_settings`; without any, the environment's.

    Raises:
        ConfigError: A key is not known, or a value is outside its range.
    """

    def __init__(self, **settings: Any) -> None:
        tank = _tank_for(Signal.LOGS, settings)
        tank.add_source(_draw_logs)
        self._door = tank.log_record_processor
        for name in _CHATTY:
            logging.getLogger(name).addFilter(_is_the_applications)

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        """Offer each record; what becomes of it, the tank's books say."""
        for record in batch:
            self._door.on_emit(record)
        return LogRecordExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered."""
        return self._door.force_flush(timeout_millis)

    def shutdown(self) -> None:
        """Refuse records, deliver the rest within the tank's `shutdown_timeout`."""
        self._door.shutdown()


class SurgetankMetricReader(MetricReader):
    """
    Stands for the tank's own reader, which is what calling this class returns; nothing is ever an instance of it.

    The SDK wants a class: a reader's for `OTEL_METRICS_EXPORTER` and below `pull:`, an exporter's below `periodic:`. The
    tank's reader is all of these.

    Args:
        settings: As in `surgetank.otel.mapping.tank_settings`; without any, the environment's.

    Raises:
        ConfigError: A key is not known, or a value is outside its range.
    """

    def __new__(cls, **settings: Any) -> MetricReader:  # type: ignore[misc]  # see above
        """Return the reader of the tank that has these settings."""
        tank = _tank_for(Signal.METRICS, settings)
        reader = tank.metric_reader

        def draw() -> None:
            if not is_registered(reader):
                # It serves as an exporter, and the reader before it is the SDK's.
                _flush(metrics.get_meter_provider())

        tank.add_source(draw)
        return reader


def _tank_for(signal: Signal, mapping: dict[str, Any]) -> Tank:
    process = shared_for(mapping, tank_settings(mapping))
    # So that `install` does not wire it once more.
    process.claim(signal)
    return process.tank


def _is_the_applications(_: logging.LogRecord) -> bool:
    return not is_own_thread()


def _draw_spans() -> None:
    _flush(trace.get_tracer_provider())


def _draw_logs() -> None:
    _flush(get_logger_provider())


def _flush(provider: object) -> None:
    # What the API gives before the SDK is set up has no such method.
    flush: Callable[[], object] | None = getattr(provider, "force_flush", None)
    if flush is not None:
        flush()
