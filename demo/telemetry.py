"""What stands between the application and the collector: a tank.

Owns: the tank. Threads: the application's.
Invariants: this module imports nothing of the stock exporters, so that the processes' memory can be compared.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

from opentelemetry.sdk.resources import Resource

import surgetank
from demo.figures import Limits
from surgetank.config import Environment, resolve_limits
from surgetank.model import Signal, SignalStats

# Seconds between two metric collections.
METRIC_INTERVAL: Final = 2.0
# Seconds for the shutdown to deliver what is still held.
SHUTDOWN_TIMEOUT: Final = 10.0
# The default ceilings (backoff 5 s, cooldown 30 s) suit outages of minutes. This outage stands for a
# longer one, so the waits between attempts are scaled down with it.
TIMING: Final = surgetank.Timing(backoff_max=1.0, cooldown_max=4.0)

RESOURCE: Final = Resource({"service.name": "shop", "service.version": "1.4.2", "service.instance.id": "shop-7d9f"})


class Telemetry(Protocol):
    """
    What stands between the application and the collector.

    Exists so that the same application runs with ours and with the stock SDK.
    """

    def books(self) -> dict[Signal, SignalStats]:
        """Return the books by signal, or nothing where none are kept."""

    def limits(self) -> dict[Signal, Limits]:
        """Return the limits by signal, or nothing where there are none in bytes."""

    def shutdown(self) -> None:
        """Deliver what can be delivered, and end."""


class Ours:
    """
    A tank wired to the global providers.

    Args:
        endpoint: Where to send.
        max_size: Items that the buffer of spans or logs holds.
        spool: The folder in which to store what is sealed; None to store nothing.
    """

    def __init__(self, endpoint: str, max_size: int, spool: Path | None = None) -> None:
        # Items for the whole outage; bytes and the metrics' buffer as they are by default, except that metrics
        # are stored too, which they are not unless one asks for it.
        self._buffers = {
            Signal.SPANS: surgetank.BufferConfig(max_size=max_size),
            Signal.METRICS: surgetank.BufferConfig(persistence_enabled=True),
            Signal.LOGS: surgetank.BufferConfig(max_size=max_size),
        }
        self._tank = surgetank.install(
            resource=RESOURCE,
            endpoint=endpoint,
            spans=self._buffers[Signal.SPANS],
            metrics=self._buffers[Signal.METRICS],
            logs=self._buffers[Signal.LOGS],
            timing=TIMING,
            spool=surgetank.SpoolConfig(dir=spool),
            persistence_enabled=spool is not None,
            metric_export_interval=METRIC_INTERVAL,
        )

    def books(self) -> dict[Signal, SignalStats]:
        """Return `Tank.stats()` by signal."""
        stats = self._tank.stats()
        return {Signal.SPANS: stats.spans, Signal.METRICS: stats.metrics, Signal.LOGS: stats.logs}

    def limits(self) -> dict[Signal, Limits]:
        """Return what the configuration came to."""
        resolved = {signal: resolve_limits(signal, given, Environment()) for signal, given in self._buffers.items()}
        return {signal: Limits(max_size=it.max_size, max_bytes=it.max_bytes) for signal, it in resolved.items()}

    def shutdown(self) -> None:
        """Shut the tank down, and with it all three signals."""
        self._tank.shutdown(SHUTDOWN_TIMEOUT)
