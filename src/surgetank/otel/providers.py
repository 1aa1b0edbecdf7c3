"""Wires OpenTelemetry's global providers to a tank's doors; what `surgetank.install` does for the SDK.

Owns: no state. Threads: once, at start-up, from the main thread.
Invariants: an SDK provider that the application has set is extended, never replaced.
"""

from __future__ import annotations

import logging
from typing import Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider

from surgetank.lines import say
from surgetank.otel.shim import (
    LoggerProvider,
    LogRecordProcessor,
    add_reader,
    get_logger_provider,
    set_logger_provider,
)

_logger: Final = logging.getLogger("surgetank")

# The providers that we make do not shut down on exit by themselves: the tank ends
# all signals together, within one deadline, instead of one after the other.


def wire_traces(processor: SpanProcessor, resource: Resource | None) -> None:
    """Send the global tracer provider's spans to `processor`."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    provider.add_span_processor(processor)


def wire_metrics(reader: MetricReader, resource: Resource | None) -> None:
    """Send the global meter provider's metrics to `reader`; where one that the application has set takes no reader, say so."""
    provider = metrics.get_meter_provider()
    if isinstance(provider, MeterProvider):
        try:
            add_reader(provider, reader)
        except Exception as error:
            # Without a provider the reader collects nothing, and the other signals are as well off as before.
            line = (
                "the meter provider that the application has set takes no more readers (%s), so that its metrics do not come "
                "here; name ours where it is made: MeterProvider(metric_readers=[tank.metric_reader])"
            )
            say(_logger, logging.WARNING, line, type(error).__name__)
        return
    metrics.set_meter_provider(
        MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        if resource is not None
        else MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    )


def wire_logs(processor: LogRecordProcessor, resource: Resource | None) -> None:
    """Send the global logger provider's records to `processor`."""
    provider = get_logger_provider()
    if not isinstance(provider, LoggerProvider):
        provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        set_logger_provider(provider)
    provider.add_log_record_processor(processor)
