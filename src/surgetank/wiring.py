"""`surgetank.install`: one call that protects all three signals, configured by the environment.

Owns: the tank that was installed. Threads: any.
Invariants: there is one such tank at a time; what the environment switches off (`OTEL_SDK_DISABLED`, `OTEL_*_EXPORTER=none`) stays off.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry.sdk.resources import Resource

from surgetank import threads
from surgetank.config import Environment
from surgetank.otel.providers import wire_logs, wire_metrics, wire_traces
from surgetank.tank import Tank

_logger: Final = logging.getLogger("surgetank")

_install_lock: Final = threads.new_lock()
_installed: Tank | None = None
_installed_with: tuple[Any, ...] = ()


def install(*, resource: Resource | None = None, **settings: Any) -> Tank:
    """
    Make a tank and wire the global tracer, meter and logger providers to it.

    Providers that the application has set already are extended; where there are none, they are made.
    A signal whose `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` or `OTEL_LOGS_EXPORTER` is `none` is
    left alone, and so is everything when `OTEL_SDK_DISABLED` is `true`.

    A second call in one process, or in one that was forked since, returns the tank of the first for as long as that is
    not shut down, whatever the settings: providers cannot be unwired, and all telemetry would go out twice.

    Args:
        resource: For the providers that are made; default: the SDK's own, from `OTEL_RESOURCE_ATTRIBUTES` and detectors.
        settings: What `Tank` takes.

    Returns:
        The tank. Keep it to ask for `stats()`; it ends by itself when the process does.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
    """
    global _installed, _installed_with
    with _install_lock:
        if _installed is None or _installed.is_shut_down:
            _installed, _installed_with = _wired(Tank(**settings), resource), (resource, settings)
        elif _installed_with != (resource, settings):
            _logger.warning(
                "install() was called again with other settings; the settings of the first call stay, until its tank is shut down"
            )
        return _installed


def _wired(tank: Tank, resource: Resource | None) -> Tank:
    environment = Environment()
    if (environment.text("OTEL_SDK_DISABLED") or "").lower() == "true":
        return tank
    if environment.text("OTEL_TRACES_EXPORTER") != "none":
        wire_traces(tank.span_processor, resource)
    if environment.text("OTEL_METRICS_EXPORTER") != "none":
        wire_metrics(tank.metric_reader, resource)
    if environment.text("OTEL_LOGS_EXPORTER") != "none":
        wire_logs(tank.log_record_processor, resource)
    return tank
