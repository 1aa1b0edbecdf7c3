"""The way from the command line to the network: outlets and senders for a drain.

Owns: no state. Threads: one.
Invariants: whatever the command line leaves out, the environment says, as it does for a tank.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from surgetank.clock import SystemClock
from surgetank.config import Environment, OutletConfig, resolve_outlet
from surgetank.delivery.senders import sender_for
from surgetank.drain import Delivery, Drain
from surgetank.model import Signal
from surgetank.spool.filesystem import Filesystem


def outlets_for(endpoint: str, headers: Mapping[str, str], timeout: float | None) -> dict[Signal, OutletConfig]:
    """
    Return each signal's outlet.

    Raises:
        ConfigError: The endpoint is no URL, or a header, the time-out or a file is refused.
    """
    environment = Environment()
    return {
        signal: resolve_outlet(signal, environment, endpoint=endpoint, headers=headers, timeout=timeout)
        for signal in Signal
    }


def deliver(
    filesystem: Filesystem,
    path: str,
    outlets: Mapping[Signal, OutletConfig],
    *,
    attempts: int,
    key_text: Callable[[], str] | None,
    progress: Callable[[int, int], None],
) -> dict[Signal, Delivery]:
    """
    Drain a spool.

    Raises:
        ConfigError: A TLS file or the key is not usable.
    """
    clock = SystemClock()
    senders = {signal: sender_for(outlet, clock) for signal, outlet in outlets.items()}
    timeout = next(iter(outlets.values())).timeout
    draining = Drain(path, filesystem, clock, senders, timeout=timeout, attempts=attempts, key_text=key_text)
    return draining.run(progress)
