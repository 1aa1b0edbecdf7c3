"""Everything one tank obeys, completed from keywords, environment and defaults.

Owns: no state. Threads: any.
Invariants: a `TankConfig` that exists is complete and possible. A keyword that is wrong was refused with the field, the value
and the permitted range; a variable that is wrong was ignored with one line.

Precedence, highest first: keyword argument, `SURGETANK_*`, `OTEL_*`, default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from surgetank.config.environment import Environment, check_flag, check_kind, check_number
from surgetank.config.limits import BufferConfig, SignalLimits, beside_calls, resolve_limits, within_total
from surgetank.config.outlet import PREFIX, OutletConfig, resolve_outlet
from surgetank.config.timing import Timing, resolve_seconds, resolve_timing
from surgetank.errors import HIDDEN, ConfigError
from surgetank.model import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class TankConfig:
    """Everything one tank obeys, complete; made by `resolve`."""

    limits: Mapping[Signal, SignalLimits]
    outlets: Mapping[Signal, OutletConfig]
    timing: Timing
    shutdown_timeout: float
    metric_export_interval: float
    metric_export_timeout: float


SHUTDOWN_TIMEOUT: Final = 5.0
METRIC_INTERVAL: Final = 60.0
METRIC_INTERVAL_RANGE: Final = (0.001, 86_400.0)
METRIC_TIMEOUT: Final = 30.0
METRIC_TIMEOUT_RANGE: Final = (0.001, 86_400.0)
TEMPORALITIES: Final = ("cumulative", "delta", "lowmemory")
AGGREGATIONS: Final = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")


def resolve(
    *,
    spans: BufferConfig | None = None,
    metrics: BufferConfig | None = None,
    logs: BufferConfig | None = None,
    timing: Timing | None = None,
    shutdown_timeout: float | None = None,
    metric_export_interval: float | None = None,
    persistence_enabled: bool | None = None,
    total_memory_mb: float | None = None,
    variables: Mapping[str, str] | None = None,
    environment: Environment | None = None,
    outlets: Mapping[Signal, OutletConfig] | None = None,
    **outlet: Any,
) -> TankConfig:
    """
    Complete a tank's configuration; `outlet` is what `resolve_outlet` takes, unless complete `outlets` are given.

    Raises:
        ConfigError: Anything is outside its range or contradicts something else.
    """
    environment = environment or Environment(variables)
    buffers = {Signal.SPANS: spans, Signal.METRICS: metrics, Signal.LOGS: logs}
    for each, buffer in buffers.items():
        check_kind(each.value, buffer, BufferConfig, "a BufferConfig, such as BufferConfig(max_size=5000)")
    check_kind("timing", timing, Timing, "a Timing, such as Timing(backoff_max=10.0)")
    interval = metric_export_interval
    if interval is not None:
        check_number("metric_export_interval", interval, *METRIC_INTERVAL_RANGE)
    else:
        interval = environment.number("OTEL_METRIC_EXPORT_INTERVAL", *METRIC_INTERVAL_RANGE, unit=0.001)
    check_flag("persistence_enabled", persistence_enabled)
    limits = {signal: resolve_limits(signal, config, environment) for signal, config in buffers.items()}
    if persistence_enabled is None:
        persistence_enabled = environment.flag("SURGETANK_PERSISTENCE_ENABLED")
    if persistence_enabled is False:
        limits = {signal: replace(each, persist="none") for signal, each in limits.items()}
    if outlets is not None:
        _check_outlets(outlets)
    else:
        outlets = {signal: resolve_outlet(signal, environment, **outlet) for signal in Signal}
    limits = dict(within_total(limits, total_memory_mb, environment))
    return TankConfig(
        limits={signal: beside_calls(each, outlets[signal]) for signal, each in limits.items()},
        outlets=outlets,
        timing=resolve_timing(timing, environment),
        shutdown_timeout=resolve_seconds("shutdown_timeout", shutdown_timeout, environment, SHUTDOWN_TIMEOUT),
        metric_export_interval=METRIC_INTERVAL if interval is None else float(interval),
        metric_export_timeout=environment.number("OTEL_METRIC_EXPORT_TIMEOUT", *METRIC_TIMEOUT_RANGE, unit=0.001)
        or METRIC_TIMEOUT,
    )


def _check_outlets(outlets: object) -> None:
    words = "a mapping from each Signal to an OutletConfig"
    check_kind("outlets", outlets, Mapping, words)
    if not isinstance(outlets, Mapping) or not all(isinstance(outlets.get(each), OutletConfig) for each in Signal):
        raise ConfigError("outlets", HIDDEN, words)


def resolve_self_metrics(given: bool | None, environment: Environment) -> bool:
    """
    Return whether a tank reports metrics of its own: by keyword, `SURGETANK_SELF_METRICS`, the SDK's variable for its own, else no.

    Not unasked, as with the SDK's: they would keep a process waiting at its end in an outage that has no other metrics.

    Raises:
        ConfigError: The keyword is neither None nor a bool.
    """
    check_flag("self_metrics", given)
    if given is None:
        given = environment.flag("SURGETANK_SELF_METRICS")
    if given is None:
        given = environment.flag("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED")
    return bool(given)


def temporality_preference(environment: Environment) -> str:
    """Read `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`: cumulative (default), delta or lowmemory."""
    return _preference("TEMPORALITY_PREFERENCE", TEMPORALITIES, environment)


def aggregation_preference(environment: Environment) -> str:
    """Read `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`; explicit buckets by default."""
    return _preference("DEFAULT_HISTOGRAM_AGGREGATION", AGGREGATIONS, environment)


def _preference(name: str, known: tuple[str, ...], environment: Environment) -> str:
    return environment.choice(f"{PREFIX}METRICS_{name}", known) or known[0]
