"""The doors for spans and logs: SDK processors that hand items to a pipeline.

Owns: no state. Threads: any, as the SDK calls them; nothing here raises or waits, except flush and shutdown.
Invariants: every sampled span and every log record of the application is offered once; our own log lines never are.
"""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from surgetank.driver import is_own_thread
from surgetank.otel.shim import LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from surgetank.otlp.logs import snapshot as snapshot_of_log
from surgetank.otlp.sdk import is_sampled
from surgetank.otlp.spans import snapshot as snapshot_of_span
from surgetank.pipeline import Pipeline

OWN_LOGGER = "surgetank"


class TankSpanProcessor(SpanProcessor):
    """
    Takes ended spans. Made by `Tank.span_processor`; do not construct it yourself.

    Args:
        pipeline: Where they go.
        shutdown: Closes the pipeline within the tank's deadline.
    """

    def __init__(self, pipeline: Pipeline, shutdown: Callable[[], None]) -> None:
        self._pipeline = pipeline
        self._offer = pipeline.offer
        self._shutdown = shutdown

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span matters when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Offer a sampled span; about 6 µs, never raises, never waits."""
        if is_sampled(span):
            self._offer(snapshot_of_span(span))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered."""
        return self._pipeline.force_flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Refuse spans, deliver the rest within the tank's `shutdown_timeout`."""
        self._shutdown()


class TankLogRecordProcessor(LogRecordProcessor):
    """
    Takes log records. Made by `Tank.log_record_processor`; do not construct it yourself.

    Args:
        pipeline: Where they go.
        shutdown: Closes the pipeline within the tank's deadline.
    """

    def __init__(self, pipeline: Pipeline, shutdown: Callable[[], None]) -> None:
        self._pipeline = pipeline
        self._offer = pipeline.offer
        self._shutdown = shutdown

    def on_emit(self, log_record: ReadWriteLogRecord | ReadableLogRecord) -> None:
        """Offer a record, as it is now; never raises, never waits. Our own log lines are not taken."""
        scope = log_record.instrumentation_scope
        name = getattr(scope, "name", None)
        # The SDK takes any object for a name.
        is_own_line = isinstance(name, str) and name.partition(".")[0] == OWN_LOGGER
        if is_own_line or is_own_thread():
            return
        self._offer(snapshot_of_log(log_record))

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered."""
        return self._pipeline.force_flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Refuse records, deliver the rest within the tank's `shutdown_timeout`."""
        self._shutdown()
