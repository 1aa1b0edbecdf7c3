"""What all settings come to in one environment, and what is wrong with it.

Owns: no state. Threads: any.
Invariants: resolved by the very functions that a tank calls; nothing is opened, made or sent.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

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
from surgetank.spool.encryption import Cipher
from surgetank.spool.settings import SpoolConfig, SpoolSettings, resolve_spool

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

    Raises:
        ConfigError: A value is outside its range, or two contradict each other.
    """
    environment = Environment(variables)
    tank = resolve(environment=environment)
    effective = Effective(
        environment=environment,
        tank=tank,
        chosen={signal: choose_limits(signal, None, environment) for signal in Signal},
        spool=resolve_spool(SpoolConfig(), environment, tank.outlets.values()),
        memory=resolve_memory(None, environment),
        has_self_metrics=resolve_self_metrics(None, environment),
        status_folder=folder_for(environment),
        temporality=temporality_preference(environment),
        aggregation=aggregation_preference(environment),
    )
    if effective.spool.key_text is not None:
        # As the disk does: a key that is of no use is refused when a tank is made.
        Cipher(effective.spool.key_text())
    return effective


def audit(variables: Mapping[str, str] | None = None) -> tuple[Effective, list[ConfigError]]:
    """
    Resolve everything, and say of each value that is refused by what it should be replaced.

    Returns:
        What the other values come to, with the default in place of each that is refused; and the refusals, by variable.
    """
    left = dict(os.environ if variables is None else variables)
    refused: list[ConfigError] = []
    # Each round takes a variable away.
    for _ in range(len(left)):
        try:
            with quiet():
                return load(left), refused
        except ConfigError as error:
            guilty = _guilty(error.field, left)
            if guilty is None:
                break
            del left[guilty]
            refused.append(ConfigError(guilty, error.value, error.permitted))
    with quiet():
        return load({}), refused


def _guilty(field: str, left: Mapping[str, str]) -> str | None:
    """
    Return the variable to blame for a refusal.

    What is checked together with others is refused under its keyword, but the user wrote a variable.
    """
    from surgetank.catalogue.entries import settings  # Stands above this module.

    if field in left:
        return field
    keyword = field.rpartition(".")[2].partition("[")[0]
    named = [setting for setting in settings() if setting.keyword == keyword]
    sections = {setting.section for setting in named}
    kin = [setting for setting in settings() if setting.section in sections]
    names = [name for each in named for name in (each.yields_to, *each.variables)]
    # A default may be refused because of what was said of something else beside it.
    names += [name for each in kin for name in each.variables]
    return next((name for name in names if left.get(name, "").strip()), None)


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
