"""
Memory-safe telemetry buffering for OpenTelemetry Python.

    import surgetank
    tank = surgetank.install()      # all three signals, configured by the environment

or, by hand,

    tank = surgetank.Tank(endpoint="http://localhost:4318")
    tracer_provider.add_span_processor(tank.span_processor)
    logger_provider.add_log_record_processor(tank.log_record_processor)
    meter_provider = MeterProvider(metric_readers=[tank.metric_reader])

`tank.stats()` accounts for every item; `tank.force_flush(timeout=5.0)` and
`tank.shutdown(timeout=5.0)` keep their deadlines whatever the endpoint does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from surgetank.errors import ConfigError, SpoolKeyError, SurgetankError

if TYPE_CHECKING:
    from surgetank._version import __version__ as __version__
    from surgetank.arguments import TankSettings
    from surgetank.config import BufferConfig, OutletConfig, Timing
    from surgetank.drop_in import BatchLogRecordProcessor, BatchSpanProcessor, PeriodicExportingMetricReader
    from surgetank.health import Health, HealthState
    from surgetank.memory.monitor import Pressure
    from surgetank.memory.settings import MemoryConfig
    from surgetank.model import BreakerState, DropReason, Signal, SignalStats, TankStats
    from surgetank.otlp.logs import LogItem
    from surgetank.otlp.sdk import SpanFields
    from surgetank.spool.settings import SpoolConfig
    from surgetank.tank import Tank
    from surgetank.wiring import install

__all__ = [
    "BatchLogRecordProcessor",
    "BatchSpanProcessor",
    "BreakerState",
    "BufferConfig",
    "ConfigError",
    "DropReason",
    "Health",
    "HealthState",
    "LogItem",
    "MemoryConfig",
    "OutletConfig",
    "PeriodicExportingMetricReader",
    "Pressure",
    "Signal",
    "SignalStats",
    "SpanFields",
    "SpoolConfig",
    "SpoolKeyError",
    "SurgetankError",
    "Tank",
    "TankSettings",
    "TankStats",
    "Timing",
    "install",
]

# Loaded when first asked for: naming the package must cost an application next to nothing,
# while the SDK and urllib3 behind `Tank` take tens of milliseconds.
_HOMES = {
    "BatchLogRecordProcessor": "surgetank.drop_in",
    "BatchSpanProcessor": "surgetank.drop_in",
    "BreakerState": "surgetank.model",
    "BufferConfig": "surgetank.config",
    "DropReason": "surgetank.model",
    "Health": "surgetank.health",
    "HealthState": "surgetank.health",
    "LogItem": "surgetank.otlp.logs",
    "MemoryConfig": "surgetank.memory.settings",
    "OutletConfig": "surgetank.config",
    "PeriodicExportingMetricReader": "surgetank.drop_in",
    "Pressure": "surgetank.memory.monitor",
    "Signal": "surgetank.model",
    "SignalStats": "surgetank.model",
    "SpanFields": "surgetank.otlp.sdk",
    "SpoolConfig": "surgetank.spool.settings",
    "Tank": "surgetank.tank",
    "TankSettings": "surgetank.arguments",
    "TankStats": "surgetank.model",
    "Timing": "surgetank.config",
    "__version__": "surgetank._version",
    "install": "surgetank.wiring",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'surgetank' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
