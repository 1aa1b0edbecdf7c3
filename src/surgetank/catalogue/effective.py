"""What all settings come to in one environment, and what is wrong with it.

Owns: no state. Threads: any.
Invariants: resolved by the very functions that a tank calls; nothing is opened, made or sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from surgetank.arguments import OURS
from surgetank.config import (
    BufferConfig,
    Environment,
    TankConfig,
    resolve,
    resolve_self_metrics,
)
from surgetank.config.limits import choose_limits
from surgetank.config.resolve import aggregation_preference, temporality_preference
from surgetank.errors import ConfigError
from surgetank.memory.settings import MemorySettings, resolve_memory
from surgetank.model import Signal
from surgetank.presence import folder_for
from surgetank.spool.settings import SpoolConfig, SpoolSettings, is_key_usable, resolve_spool

_LOGGERS: Final = "surgetank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """What a tank that is made without arguments obeys."""

    environment: Environment
    tank: TankConfig
    chosen: Mapping[Signal, BufferConfig]
    """What was asked for, before limits are fitted to one another."""
    spool: SpoolSettings
    memory: MemorySettings
    has_self_metrics: bool
    status_folder: str | None
    temporality: str
    aggregation: str

    def proxy(self, signal: Signal) -> tuple[str, str] | None:
        """Return the variable that names a proxy for a signal's endpoint, whether or not that is bypassed, and the proxy."""
        outlet = self.tank.outlets[signal]
        kinds = ("grpc", "https", "http") if outlet.protocol == "grpc" else (outlet.url.partition(":")[0], "all")
        for kind in kinds:
            # In small letters first, as `urllib.request` and gRPC read them.
            for variable in (f"{kind}_proxy", f"{kind}_proxy".upper()):
                text = self.environment.text(variable)
                if text is not None:
                    return variable, text
        return None


def load(variables: Mapping[str, str] | None = None) -> Effective:
    """
    Resolve everything that the environment says.

    Args:
        variables: In place of the process's own.

    """
    environment = Environment(variables)
    tank = resolve(environment=environment)
    spool = SpoolConfig()
    is_key_usable(spool, environment)
    return Effective(
        environment=environment,
        tank=tank,
        chosen={signal: choose_limits(signal, None, environment) for signal in Signal},
        spool=resolve_spool(spool, environment, tank.outlets.values()),
        memory=resolve_memory(None, environment),
        has_self_metrics=resolve_self_metrics(None, environment),
        status_folder=folder_for(environment),
        temporality=temporality_preference(environment),
        aggregation=aggregation_preference(environment),
    )


def audit(variables: Mapping[str, str] | None = None) -> tuple[Effective, list[ConfigError]]:
    """
    Resolve everything, and say of each value of ours that is ignored by what it should be replaced.

    Returns:
        What a tank obeys, with the default in place of each value that is ignored; and these values, by variable.
    """
    with quiet():
        effective = load(variables)
    ignored = effective.environment.ignored
    return effective, [ignored[name] for name in sorted(ignored) if name.startswith(OURS)]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what is logged while settings are resolved from standard error: it is told in another way."""
    logger = logging.getLogger(_LOGGERS)
    before = logger.propagate
    handler = logging.NullHandler()
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
