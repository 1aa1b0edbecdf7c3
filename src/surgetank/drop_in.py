"""Classes that take the place of the SDK's batch processors and periodic reader, with the same arguments in the same order.

Owns: one tank for each of them, with one signal in use, and the deadline that those which close in a row share.
Threads: as the doors' (`otel/processors.py`, `otel/reader.py`).
Invariants: an OTLP exporter that can be copied is read and replaced by our sender; every other exporter is driven as it
is, at least once and a bounded number of times; what one exporter was given never leaves through another one.

It stands beside `wiring.py` and not in `otel/`, because it makes tanks.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from surgetank.config import BufferConfig, Environment, OutletConfig, check_choice, check_number
from surgetank.errors import ConfigError
from surgetank.model import Batch, Clock, Outcome, Sender, Signal, Verdict
from surgetank.otel.exporter_sender import ATTEMPTS, ExporterSender
from surgetank.otel.exporters import NotCopiableError, is_otlp, name_of, read_outlet
from surgetank.otel.processors import TankLogRecordProcessor, TankSpanProcessor
from surgetank.otel.reader import TankMetricReader
from surgetank.otel.shim import preferences
from surgetank.otlp.codec import Codec
from surgetank.pipeline import Pipeline
from surgetank.spool.settings import SpoolConfig, default_folder, resolve_spool
from surgetank.tank import SAME_SHUTDOWN, Tank

_logger: Final = logging.getLogger("surgetank")

# Arguments of `Tank` that would say once more, or otherwise, what exporter and positional arguments say …
_SAID_ELSEWHERE: Final = (
    "endpoint",
    "protocol",
    "headers",
    "certificate_file",
    "client_key_file",
    "client_certificate_file",
    "metric_export_interval",
    "outlets",
)
# … and those that may be chosen anew for an exporter that is replaced.
_CHOICES: Final = ("compression", "timeout", "proxy")
_TIMEOUT_MILLIS: Final = 30_000.0
_INTERVAL_MILLIS: Final = 60_000.0
_BATCH_MAX: Final = 100_000
# As little as can be, so that it takes nothing of a limit that all signals have together.
_UNUSED: Final = BufferConfig(
    max_size=1, max_export_batch_size=1, max_memory_mb=0.0625, max_batch_mb=0.001, persistence_enabled=False
)


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
        **ours: Any,
    ) -> None:
        limits = _limits("OTEL_BSP_", max_queue_size, schedule_delay_millis, max_export_batch_size)
        timeout = _timeout("OTEL_BSP_EXPORT_TIMEOUT", export_timeout_millis)
        self._span_exporter = span_exporter
        self.tank = _OneSignalTank(Signal.SPANS, span_exporter, limits, timeout, **ours)
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
        **ours: Any,
    ) -> None:
        limits = _limits("OTEL_BLRP_", max_queue_size, schedule_delay_millis, max_export_batch_size)
        timeout = _timeout("OTEL_BLRP_EXPORT_TIMEOUT", export_timeout_millis)
        self.tank = _OneSignalTank(Signal.LOGS, exporter, limits, timeout, **ours)
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
        **ours: Any,
    ) -> None:
        interval = export_interval_millis
        if interval is None:
            interval = Environment().theirs("OTEL_METRIC_EXPORT_INTERVAL", float)
        if interval is None:
            interval = _INTERVAL_MILLIS
        if not interval > 0:
            raise ValueError(f"interval value {interval} is invalid and needs to be larger than zero.")
        timeout = _timeout("OTEL_METRIC_EXPORT_TIMEOUT", export_timeout_millis)
        temporality, aggregation = preferences(exporter)
        self.tank = _OneSignalTank(Signal.METRICS, exporter, {}, timeout, **ours)
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

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Collect now and deliver; return by the time-out, True only if everything was delivered or is safe on disk."""
        clock = self.tank.clock
        deadline = clock.monotonic() + timeout_millis / 1000
        is_collected = self.collect_within(timeout_millis / 1000)
        return self.tank.flush_door(1000 * (deadline - clock.monotonic())) and is_collected


class _OneSignalTank(Tank):
    """
    A tank of which one signal is used, with an exporter's destination.

    Args:
        signal: The signal.
        exporter: Whose place we take, or whom we drive.
        limits: What the positional arguments say.
        timeout: Seconds that a call of a driven exporter is waited for; by position only, for there is a setting of that name.
        exporter_attempts: Failures after which a driven exporter's batch may be given up.
        settings: What `Tank` takes.
    """

    def __init__(
        self,
        signal: Signal,
        exporter: Any,
        limits: Mapping[str, Any],
        timeout: float,
        /,
        *,
        exporter_attempts: int = ATTEMPTS,
        **settings: Any,
    ) -> None:
        check_number("exporter_attempts", exporter_attempts, 1, 1000, whole=True)
        self._signal = signal
        self._exporter = exporter
        self._driven: ExporterSender | None = None
        self._has_taken_leave = False
        outlet = _copied(exporter, settings)
        self._is_driven = outlet is None
        if outlet is None:
            outlet = OutletConfig(url=f"exporter:{name_of(exporter)}", timeout=timeout)
            settings.setdefault("make_sender", lambda _, clock: self._drive(clock, exporter_attempts))
        spool = _spool(signal, outlet, settings.pop("spool", None), is_driven=self._is_driven)
        buffer: BufferConfig = replace(settings.pop(signal.value, None) or BufferConfig(), **limits)
        settings |= dict.fromkeys((other.value for other in Signal), _UNUSED)
        settings[signal.value] = buffer if spool is not None else replace(buffer, persistence_enabled=False)
        outlets = {other: outlet if other is signal else OutletConfig(url="unused:") for other in Signal}
        super().__init__(outlets=outlets, spool=spool, **settings)

    @property
    def pipeline(self) -> Pipeline:
        """The one that is used."""
        return self._pipelines[self._signal]

    @property
    def clock(self) -> Clock:
        """The time that this tank goes by."""
        return self._clock

    def adopt(self, reader: TankMetricReader) -> None:
        """Collect with this reader at flushes, forks and the end."""
        self._metric_reader = reader

    def flush_door(self, timeout_millis: float) -> bool:
        """Deliver what was offered before, and have a driven exporter flush what it holds itself."""
        if self.pipeline.is_shut_down or self.is_entered_here():
            return False
        deadline = self._clock.monotonic() + timeout_millis / 1000
        if not self.pipeline.force_flush(timeout_millis / 1000):
            return False
        return self._driven is None or self._driven.flush(deadline - self._clock.monotonic())

    def close_door(self) -> None:
        """Shut down, as the provider asks."""
        self.shutdown()

    def shutdown(self, timeout: float | None = None) -> bool:
        """Shut down as a tank does; tanks that do so in a row, one for each signal, share one deadline."""
        if timeout is None:
            timeout = _shared.budget(self._signal, self._clock.monotonic(), self._config.shutdown_timeout)
        try:
            return super().shutdown(timeout)
        finally:
            _shared.ended(self._clock.monotonic())
            self._take_leave()

    def _make_pipeline(
        self,
        codec: Codec,
        is_critical: Callable[[Any], bool] | None,
        make_sender: Callable[[OutletConfig, Clock], Sender],
    ) -> Pipeline:
        is_used = codec.signal is self._signal
        return super()._make_pipeline(codec, is_critical, make_sender if is_used else _no_sender)

    def _drive(self, clock: Clock, attempts: int) -> Sender:
        self._driven = ExporterSender(
            self._exporter, self._signal, clock, attempts=attempts, is_threaded=self._is_threaded
        )
        return self._driven

    def _take_leave(self) -> None:
        """Let an exporter whose place we took close what it has opened."""
        if self._is_driven or self._has_taken_leave:
            return
        self._has_taken_leave = True
        try:
            self._exporter.shutdown()
        except Exception:
            # It sent nothing, so there is nothing that could be lost.
            _logger.debug("shutting down %s failed", name_of(self._exporter), exc_info=True)


class _SharedDeadline:
    """The deadline of tanks that shut down one right after the other, each with a signal of its own."""

    def __init__(self) -> None:
        self._deadline = self._ended_at = float("-inf")
        self._signals: set[Signal] = set()

    def budget(self, signal: Signal, now: float, timeout: float) -> float:
        """Return how many of its seconds a tank may use."""
        if signal in self._signals or not 0 <= now - self._ended_at <= SAME_SHUTDOWN:
            self._deadline = now + timeout
            self._signals.clear()
        self._signals.add(signal)
        return min(timeout, max(0.0, self._deadline - now))

    def ended(self, now: float) -> None:
        """Note that a tank has shut down."""
        self._ended_at = now


_shared: Final = _SharedDeadline()


class _NoSender:
    """The way out of a signal that is not used."""

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Answer as nobody does."""
        return Verdict(outcome=Outcome.HOLD, cause="unused")

    def abort(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    def abandon(self) -> None:
        """Do nothing."""


def _no_sender(_: OutletConfig, __: Clock) -> Sender:
    return _NoSender()


def _copied(exporter: Any, settings: dict[str, Any]) -> OutletConfig | None:
    """Return an OTLP exporter's outlet with what the settings have to say about it; None for one that must be driven."""
    for name in _SAID_ELSEWHERE:
        if name in settings:
            raise TypeError(f"{name} is said by the exporter or by the other arguments")
    chosen: dict[str, Any] = {name: settings.pop(name) for name in _CHOICES if name in settings}
    if "compression" in chosen:
        check_choice("compression", chosen["compression"], ("none", "gzip", "deflate"))
    if "timeout" in chosen:
        check_number("timeout", chosen["timeout"], 0.001, 3600)
    if not is_otlp(exporter):
        return None
    try:
        outlet = read_outlet(exporter)
        if outlet.protocol == "grpc" and "compression" in chosen:
            chosen["call_compression"] = chosen.pop("compression")
        return replace(outlet, **chosen)
    except NotCopiableError as error:
        _logger.warning(
            "%s is driven as it is, with a bounded number of attempts for each batch: %s cannot be copied",
            name_of(exporter),
            error,
        )
        return None


def _spool(signal: Signal, outlet: OutletConfig, given: SpoolConfig | None, *, is_driven: bool) -> SpoolConfig | None:
    """
    Return the spool's settings with a folder that only this signal and this destination have; None for no spool.

    Processes that share a folder send what the dead among them have left, so a folder must say where its batches go.
    """
    environment = Environment()
    base = given.dir if given is not None and given.dir is not None else environment.text("SURGETANK_SPOOL_DIR")
    if base is not None:
        # Refuses a folder that all users share, which one inside it would not be taken for.
        resolve_spool(SpoolConfig(dir=base), environment, ())
        name = f"{signal.value}-{outlet.url.partition(':')[2]}" if is_driven else signal.value
        return replace(given or SpoolConfig(), dir=os.path.join(os.fspath(base), re.sub(r"[^\w.-]", "_", name)))
    if not is_driven:
        return replace(given or SpoolConfig(), dir=default_folder(environment, [outlet]))
    if given is not None:
        raise ConfigError("spool.dir", None, "a folder: nothing tells whose batches this exporter may be given")
    return None


def _limits(prefix: str, size: Any, delay: Any, batch: Any) -> dict[str, Any]:
    """Check the positional arguments as the SDK does, and return those that were given as a buffer's limits."""
    environment = Environment()
    if size is None and delay is None and batch is None:
        return {}
    sizes = {"MAX_QUEUE_SIZE": 2048, "MAX_EXPORT_BATCH_SIZE": 512}
    known = {name: environment.theirs(prefix + name, int) or default for name, default in sizes.items()}
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


def _timeout(variable: str, millis: float | None) -> float:
    """Return a time-out in seconds; the SDK's own are not checked, so neither are these."""
    if millis is None:
        millis = Environment().theirs(variable, float)
    if millis is None or not millis > 0:
        millis = _TIMEOUT_MILLIS
    return min(max(millis / 1000, 0.001), 3600.0)
