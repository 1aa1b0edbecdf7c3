"""`surgetank.install`: one call that protects all three signals, configured by the environment.

Owns: no state. Threads: once, at start-up.
Invariants: what the environment switches off (`OTEL_SDK_DISABLED`, `OTEL_*_EXPORTER=none`) stays off.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.resources import Resource

from surgetank.config import Environment
from surgetank.otel.providers import wire_logs, wire_metrics, wire_traces
from surgetank.tank import Tank


def install(*, resource: Resource | None = None, **settings: Any) -> Tank:
    """
    Make a tank and wire the global tracer, meter and logger providers to it.

    Providers that the application has set already are extended; where there are none, they are made.
    A signal whose `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` or `OTEL_LOGS_EXPORTER` is `none` is
    left alone, and so is everything when `OTEL_SDK_DISABLED` is `true`.

    Args:
        resource: For the providers that are made; default: the SDK's own, from `OTEL_RESOURCE_ATTRIBUTES` and detectors.
        settings: What `Tank` takes.

    Returns:
        The tank. Keep it to ask for `stats()`; it ends by itself when the process does.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
    """
    tank = Tank(**settings)
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
