"""A tank of which one signal is used, behind a class that takes an exporter: the exporter is read and replaced, or driven.

Owns: the deadline that those which close in a row share.
Threads: as a tank's.
Invariants: an OTLP exporter that can be copied never sends; what one exporter was given never leaves through another one,
not from the disk either.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from surgetank.arguments import TankSettings, check_names
from surgetank.config import MEBIBYTE, BufferConfig, Environment, OutletConfig, check_choice, check_number
from surgetank.config.limits import BUFFER_RANGES, choose_limits
from surgetank.errors import ConfigError
from surgetank.model import Batch, Clock, Outcome, Sender, Signal, Verdict
from surgetank.otel.exporter_sender import ATTEMPTS, ExporterSender
from surgetank.otel.exporters import NotCopiableError, is_otlp, name_of, read_limits, read_outlet
from surgetank.otel.reader import TankMetricReader
from surgetank.otlp.codec import Codec
from surgetank.pipeline import Pipeline
from surgetank.spool.settings import SpoolConfig, default_folder, named_folder
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
# As little as can be, so that it takes nothing of a limit that all signals have together.
_UNUSED: Final = BufferConfig(
    max_size=1, max_export_batch_size=1, max_memory_mb=0.0625, max_batch_mb=0.001, persistence_enabled=False
)


class OneSignalTank(Tank):
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
        # What says where telemetry goes has a message of its own.
        check_names("the drop-in class", settings, TankSettings)
        check_number("exporter_attempts", exporter_attempts, 1, 1000, whole=True)
        self._signal = signal
        self._exporter = exporter
        self._driven: ExporterSender | None = None
        self._has_taken_leave = False
        outlet = _copied(exporter, settings)
        self._max_request_bytes: int | None = None
        self._is_driven = outlet is None
        if outlet is None:
            outlet = OutletConfig(url=f"exporter:{name_of(exporter)}", timeout=timeout)
            settings.setdefault("make_sender", lambda _, clock: self._drive(clock, exporter_attempts))
        spool = _spool(signal, outlet, settings.pop("spool", None), is_driven=self._is_driven)
        buffer: BufferConfig = replace(settings.pop(signal.value, None) or BufferConfig(), **limits)
        if outlet is not None and not self._is_driven:
            buffer = self._keep_to(exporter, buffer)
        settings |= dict.fromkeys((other.value for other in Signal), _UNUSED)
        settings[signal.value] = buffer if spool is not None else replace(buffer, persistence_enabled=False)
        outlets = {other: outlet if other is signal else OutletConfig(url="unused:") for other in Signal}
        super().__init__(outlets=outlets, spool=spool, **settings)

    @property
    def pipeline(self) -> Pipeline:
        """The one that is used."""
        return self._pipelines[self._signal]

    @property
    def _in_use(self) -> list[Signal]:
        return [self._signal]

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
        make = make_sender if codec.signal is self._signal else _no_sender
        if self._is_driven and is_critical is None:
            # One lane: consoles and files show records in the order in which they came.
            is_critical = _nothing
        most = self._max_request_bytes
        if most is None:
            return super()._make_pipeline(codec, is_critical, make)
        return super()._make_pipeline(codec, is_critical, lambda outlet, clock: _Limited(make(outlet, clock), most))

    def _keep_to(self, exporter: Any, buffer: BufferConfig) -> BufferConfig:
        """Return the buffer's limits with batches no larger than the exporter's requests."""
        limits = read_limits(exporter)
        chosen: Any = choose_limits(self._signal, buffer, Environment())
        self._max_request_bytes = limits.max_bytes
        if limits.max_items is not None and limits.max_items < chosen.max_export_batch_size:
            buffer = replace(buffer, max_export_batch_size=limits.max_items)
        # Half of it, because a batch is due once it has reached its limit, and its last item comes on top.
        if limits.max_bytes is not None and limits.max_bytes / 2 < chosen.max_batch_mb * MEBIBYTE:
            buffer = replace(
                buffer, max_batch_mb=max(BUFFER_RANGES["max_batch_mb"][0], limits.max_bytes / 2 / MEBIBYTE)
            )
        return buffer

    def _drive(self, clock: Clock, attempts: int) -> Sender:
        self._driven = ExporterSender(
            self._exporter,
            self._signal,
            clock,
            attempts=attempts,
            is_threaded=self._is_threaded,
            is_ending=lambda: self.pipeline.is_shut_down,
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
        self.forget()

    def forget(self) -> None:
        """Start anew in a forked child: what its parent shut down took none of the child's time."""
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
# Not on Windows, where nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_shared.forget)


def _nothing(_: Any) -> bool:
    return False


class _Limited:
    """A sender whose requests have a limit before compression, as the exporter's had: what is larger is cut."""

    def __init__(self, sender: Sender, max_bytes: int) -> None:
        self._sender = sender
        self._max_bytes = max_bytes
        self.abort = sender.abort
        self.close = sender.close
        self.abandon = sender.abandon

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Send what the exporter would send; a single item that is larger is rejected, and counted."""
        if batch.raw_size > self._max_bytes:
            message = f"{batch.raw_size} bytes exceed the exporter's max_request_size"
            return Verdict(outcome=Outcome.SPLIT, cause="max_request_size", sent=False, message=message)
        return self._sender.send(batch, timeout)


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
        read_limits(exporter)
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
    # In one that all users share it is a folder of our own: what is inside that would not be taken for one.
    base = named_folder(given, environment)
    if base is not None:
        name = f"{signal.value}-{outlet.url.partition(':')[2]}" if is_driven else signal.value
        return replace(given or SpoolConfig(), dir=os.path.join(base, re.sub(r"[^\w.-]", "_", name)))
    if not is_driven:
        return replace(given or SpoolConfig(), dir=default_folder(environment, [outlet]))
    if given is not None:
        raise ConfigError("spool.dir", None, "a folder: nothing tells whose batches this exporter may be given")
    return None
