"""Classes that take the place of the SDK's batch processors and periodic reader, with the same arguments in the same order.

Owns: a tank for each of them (`one_signal.py`).
Threads: as the doors' (`otel/processors.py`, `otel/reader.py`).
Invariants: an OTLP exporter that can be copied is read and replaced by our sender; every other exporter is driven as it
is, at least once and a bounded number of times; what one exporter was given never leaves through another one.

It stands beside `wiring.py` and not in `otel/`, because it makes tanks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
from opentelemetry.sdk.trace.export import SpanExporter

from surgetank.arguments import DropInSettings
from surgetank.config import Environment
from surgetank.config.environment import parse_positive_int
from surgetank.config.resolve import METRIC_INTERVAL_RANGE
from surgetank.config.timing import EXPORT_TIMEOUT, resolve_export_timeout
from surgetank.model import Signal
from surgetank.one_signal import OneSignalTank
from surgetank.otel.processors import TankLogRecordProcessor, TankSpanProcessor
from surgetank.otel.reader import TankMetricReader
from surgetank.otel.shim import preferences

if TYPE_CHECKING:
    from typing_extensions import Unpack

_TIMEOUT_MILLIS: Final = EXPORT_TIMEOUT * 1000
_INTERVAL_MILLIS: Final = 60_000.0
_BATCH_MAX: Final = 100_000


class BatchSpanProcessor(TankSpanProcessor):
    """
    Takes the place of `opentelemetry.sdk.trace.export.BatchSpanProcessor`.

    Args:
        span_exporter: Read and replaced if it is one of the SDK's OTLP exporters, else driven as it is.
        max_queue_size: Spans in memory. Default `OTEL_BSP_MAX_QUEUE_SIZE`, 2048.
        schedule_delay_millis: When a batch that is not full is due. Default `OTEL_BSP_SCHEDULE_DELAY`, 800.
        max_export_batch_size: Default `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`, 512.
        export_timeout_millis: How long one call of an exporter that is driven is waited for. Default 30000.
        meter_provider: Taken for the signature's sake.
        ours: What `Tank` takes, and `exporter_attempts`; see `docs/drop-in.md`.

    Raises:
        ValueError: A setting is outside its range, or two contradict each other.
    """

    def __init__(
        self,
        span_exporter: SpanExporter,
        max_queue_size: int | None = None,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,
        *,
        meter_provider: Any = None,
        **ours: Unpack[DropInSettings],
    ) -> None:
        limits = _limits("OTEL_BSP_", max_queue_size, schedule_delay_millis, max_export_batch_size)
        timeout = resolve_export_timeout("OTEL_BSP_EXPORT_TIMEOUT", export_timeout_millis, Environment())
        self._span_exporter = span_exporter
        self.tank = OneSignalTank(Signal.SPANS, span_exporter, limits, timeout, **ours)
        """The tank behind it, for `stats()` and the like."""
        super().__init__(self.tank.pipeline, self.tank.close_door)

    @property
    def span_exporter(self) -> SpanExporter:
        """The exporter that it was given."""
        return self._span_exporter

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered or is safe on disk."""
        return self.tank.flush_door(_TIMEOUT_MILLIS if timeout_millis is None else timeout_millis)


class BatchLogRecordProcessor(TankLogRecordProcessor):
    """
    Takes the place of `opentelemetry.sdk._logs.export.BatchLogRecordProcessor`.

    Args:
        exporter: Read and replaced if it is one of the SDK's OTLP exporters, else driven as it is.
        schedule_delay_millis: When a batch that is not full is due. Default `OTEL_BLRP_SCHEDULE_DELAY`, 800.
        max_export_batch_size: Default `OTEL_BLRP_MAX_EXPORT_BATCH_SIZE`, 512.
        export_timeout_millis: How long one call of an exporter that is driven is waited for. Default 30000.
        max_queue_size: Records in memory. Default `OTEL_BLRP_MAX_QUEUE_SIZE`, 5000.
        meter_provider: Taken for the signature's sake.
        ours: What `Tank` takes, and `exporter_attempts`; see `docs/drop-in.md`.

    Raises:
        ValueError: A setting is outside its range, or two contradict each other.
    """

    def __init__(
        self,
        exporter: Any,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,
        max_queue_size: int | None = None,
        *,
        meter_provider: Any = None,
        **ours: Unpack[DropInSettings],
    ) -> None:
        limits = _limits("OTEL_BLRP_", max_queue_size, schedule_delay_millis, max_export_batch_size)
        timeout = resolve_export_timeout("OTEL_BLRP_EXPORT_TIMEOUT", export_timeout_millis, Environment())
        self.tank = OneSignalTank(Signal.LOGS, exporter, limits, timeout, **ours)
        """The tank behind it, for `stats()` and the like."""
        super().__init__(self.tank.pipeline, self.tank.close_door)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Deliver what was offered before; return by the time-out, True only if everything was delivered or is safe on disk."""
        return self.tank.flush_door(_TIMEOUT_MILLIS if timeout_millis is None else timeout_millis)


class PeriodicExportingMetricReader(TankMetricReader):
    """
    Takes the place of `opentelemetry.sdk.metrics.export.PeriodicExportingMetricReader`.

    Args:
        exporter: Read and replaced if it is one of the SDK's OTLP exporters, else driven as it is.
        export_interval_millis: Between collections; infinity for none. Default `OTEL_METRIC_EXPORT_INTERVAL`, 60000.
        export_timeout_millis: For one collection, and for one call of an exporter that is driven. Default
            `OTEL_METRIC_EXPORT_TIMEOUT`, 30000.
        cardinality_limits: As the SDK's reader takes them, where it does.
        ours: What `Tank` takes, and `exporter_attempts`; see `docs/drop-in.md`.

    Raises:
        ValueError: A setting is outside its range, or two contradict each other.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        export_interval_millis: float | None = None,
        export_timeout_millis: float | None = None,
        cardinality_limits: Any = None,
        **ours: Unpack[DropInSettings],
    ) -> None:
        interval = export_interval_millis
        if interval is None:
            seconds = Environment().number("OTEL_METRIC_EXPORT_INTERVAL", *METRIC_INTERVAL_RANGE, unit=0.001)
            interval = _INTERVAL_MILLIS if seconds is None else seconds * 1000
        if not interval > 0:
            raise ValueError(f"interval value {interval} is invalid and needs to be larger than zero.")
        timeout = resolve_export_timeout("OTEL_METRIC_EXPORT_TIMEOUT", export_timeout_millis, Environment())
        temporality, aggregation = preferences(exporter)
        self.tank = OneSignalTank(Signal.METRICS, exporter, {}, timeout, **ours)
        """The tank behind it, for `stats()` and the like."""
        super().__init__(
            self.tank.pipeline,
            self.tank.close_door,
            self.tank.clock,
            interval=interval / 1000,
            timeout=timeout,
            preferred_temporality=temporality,
            preferred_aggregation=aggregation,
            is_threaded=ours.get("is_threaded", True),
            cardinality_limits=cardinality_limits,
        )
        self.tank.adopt(self)

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        """Take a collection; deliver one that somebody asked for by `collect` before that returns, as the SDK's reader does."""
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)
        if not self.is_collecting_itself:
            # By the time-out, or later: `force_flush` tells the two apart.
            self.tank.flush_door(timeout_millis)

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Collect now and deliver; return by the time-out, True only if everything was delivered or is safe on disk."""
        clock = self.tank.clock
        deadline = clock.monotonic() + timeout_millis / 1000
        is_collected = self.collect_within(timeout_millis / 1000)
        return self.tank.flush_door(1000 * (deadline - clock.monotonic())) and is_collected


def _limits(prefix: str, size: Any, delay: Any, batch: Any) -> dict[str, Any]:
    """Check the positional arguments as the SDK does, and return those that were given as a buffer's limits."""
    environment = Environment()
    if size is None and delay is None and batch is None:
        return {}
    sizes = {"MAX_QUEUE_SIZE": 2048, "MAX_EXPORT_BATCH_SIZE": 512}
    permitted = "a whole number above 0"
    known = {
        name: environment.read(prefix + name, parse_positive_int, permitted) or default
        for name, default in sizes.items()
    }
    max_size = known["MAX_QUEUE_SIZE"] if size is None else size
    max_batch = known["MAX_EXPORT_BATCH_SIZE"] if batch is None else batch
    if max_size <= 0:
        raise ValueError("max_queue_size must be a positive integer.")
    if delay is not None and delay <= 0:
        raise ValueError("schedule_delay_millis must be positive.")
    if max_batch <= 0:
        raise ValueError("max_export_batch_size must be a positive integer.")
    if max_batch > max_size:
        raise ValueError("max_export_batch_size must be less than or equal to max_queue_size.")
    given: dict[str, Any] = {}
    if size is not None:
        given["max_size"] = size
    if batch is not None:
        given["max_export_batch_size"] = min(batch, _BATCH_MAX)
    if delay is not None:
        given["schedule_delay"] = min(max(delay / 1000, 0.001), 3600.0)
    return given
