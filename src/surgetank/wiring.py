"""`surgetank.install`: one call that protects all three signals, configured by the environment.

Owns: no state; the tank that was installed is in `process.py`. Threads: any.
Invariants: what the environment switches off (`OTEL_SDK_DISABLED`, `OTEL_*_EXPORTER=none`) stays off.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk.resources import Resource

from surgetank.arguments import TankSettings, check_names
from surgetank.config import Environment
from surgetank.config.environment import check_flag
from surgetank.model import Signal
from surgetank.otel.capture import capture_logging
from surgetank.otel.providers import wire_logs, wire_metrics, wire_traces
from surgetank.process import shared
from surgetank.tank import Tank

if TYPE_CHECKING:
    from typing_extensions import Unpack


def install(*, resource: Resource | None = None, logging: bool = False, **settings: Unpack[TankSettings]) -> Tank:
    """
    Make the process's tank and wire the global tracer, meter and logger providers to it.

    Providers that the application has set already are extended; where there are none, they are made.
    A signal whose `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` or `OTEL_LOGS_EXPORTER` is `none` is
    left alone, and so is everything when `OTEL_SDK_DISABLED` is `true`.

    A second call in one process, or in one that was forked since, returns the tank of the first for as long as that is
    not shut down, whatever the settings: providers cannot be unwired, and all telemetry would go out twice. The first may
    also have been an entry point of OpenTelemetry's; a signal that has a door already gets no second one.

    Args:
        resource: For the providers that are made; default: the SDK's own, from `OTEL_RESOURCE_ATTRIBUTES` and detectors.
        logging: Whether what is logged with the standard library's `logging` becomes telemetry, by OpenTelemetry's handler on
            the root logger. Its level counts (WARNING, unless the application has set another). No second handler is added.
        settings: What `Tank` takes.

    Returns:
        The tank. Keep it to ask for `stats()`; it ends by itself when the process does.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
        TypeError: There is no such argument.
    """
    check_names("install", settings, TankSettings)
    check_flag("logging", logging)
    process = shared(settings)
    tank = process.tank
    environment = Environment()
    if environment.is_true("OTEL_SDK_DISABLED"):
        return tank
    if _is_wanted(environment, "OTEL_TRACES_EXPORTER") and process.claim(Signal.SPANS):
        wire_traces(tank.span_processor, resource)
    if _is_wanted(environment, "OTEL_METRICS_EXPORTER") and process.claim(Signal.METRICS):
        wire_metrics(tank.metric_reader, resource)
    if _is_wanted(environment, "OTEL_LOGS_EXPORTER"):
        if process.claim(Signal.LOGS):
            wire_logs(tank.log_record_processor, resource)
        if logging:
            capture_logging()
    return tank


_EXPORTERS: Final = re.compile(r"[\w.-]+(\s*,\s*[\w.-]+)*")


def _is_wanted(environment: Environment, variable: str) -> bool:
    """Whether a signal is not switched off."""

    def parse(text: str) -> str:
        if _EXPORTERS.fullmatch(text) is None:
            raise ValueError(text)
        return text.lower()

    return environment.read(variable, parse, "`none`, or names of exporters with commas between them") != "none"
