"""How memory is watched: the record that users write, and what it comes to once it is complete.

Owns: no state. Threads: any. Invariants: `MemorySettings` that `resolve_memory` returns are complete and possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from surgetank.config import Environment, check_flag, check_kind, check_number
from surgetank.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryConfig:
    """
    Whether and how buffers shrink when memory runs short. A field left out is read from `SURGETANK_MEMORY_*`
    (`adaptive`: `SURGETANK_ADAPTIVE`), or takes its default.

    Args:
        adaptive: Whether memory is watched at all. Default True.
        limit_mb: MiB that the process should stay within, beside the limits that the system sets it (control
            groups, `RLIMIT_AS`); whichever is closest counts. Default: none of our own. 1 to 1048576.
        reduce_above: The part of the limit above which buffers shrink, by half at each sample. Default 0.8. 0.05 to 1.
        restore_below: The part of the limit below which they grow back, by a tenth of their full size at each sample.
            Default 0.5. 0.01 to 1, and less than `reduce_above`.
        floor: The part of their full size that they keep whatever happens. Default 0.1. 0.01 to 1.
        period: Seconds between samples; fewer, down to 0.5, while usage climbs so fast that the limit would be
            reached within two periods. Default 5. 0.5 to 3600.

    Raises:
        ConfigError: A value is outside its range, or `reduce_above` is not above `restore_below`.
    """

    adaptive: bool | None = None
    limit_mb: float | None = None
    reduce_above: float | None = None
    restore_below: float | None = None
    floor: float | None = None
    period: float | None = None

    def __post_init__(self) -> None:
        check_flag("memory.adaptive", self.adaptive)
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_number(f"memory.{name}", value, low, high)
        if self.reduce_above is not None and self.restore_below is not None:
            _check_order("memory.reduce_above", self.reduce_above, self.restore_below)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemorySettings:
    """A `MemoryConfig` with nothing left out."""

    adaptive: bool = True
    limit_mb: float | None = None
    reduce_above: float = 0.8
    restore_below: float = 0.5
    floor: float = 0.1
    period: float = 5.0


RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "limit_mb": (1, 1_048_576),
    "reduce_above": (0.05, 1),
    "restore_below": (0.01, 1),
    "floor": (0.01, 1),
    "period": (0.5, 3600),
}


def resolve_memory(given: MemoryConfig | None, environment: Environment) -> MemorySettings:
    """
    Complete the memory's configuration from keyword, `SURGETANK_MEMORY_*`, `SURGETANK_ADAPTIVE` and default.

    Raises:
        ConfigError: A keyword is outside its range, or the two thresholds are the wrong way round.
    """
    check_kind("memory", given, MemoryConfig, "a MemoryConfig, such as MemoryConfig(limit_mb=512)")
    given = given or MemoryConfig()
    chosen = {name: _number(name, given, environment) for name in RANGES}
    adaptive = given.adaptive
    if adaptive is None:
        adaptive = environment.flag("SURGETANK_ADAPTIVE")
    _reconcile(chosen, given, environment)
    settings = MemorySettings(
        adaptive=True if adaptive is None else adaptive,
        **{name: value for name, value in chosen.items() if value is not None},
    )
    _check_order("memory.reduce_above", settings.reduce_above, settings.restore_below)
    return settings


def _reconcile(chosen: dict[str, float | None], given: MemoryConfig, environment: Environment) -> None:
    """Pass over variables with which a threshold is not above the other, be that a keyword's or the default's."""
    defaults = MemorySettings()
    pair = ("reduce_above", "restore_below")
    for name, word in zip(pair, ("above `restore_below`", "below `reduce_above`"), strict=True):
        high, low = (chosen[each] or getattr(defaults, each) for each in pair)
        if high <= low and getattr(given, name) is None and chosen[name] is not None:
            environment.ignore(f"SURGETANK_MEMORY_{name.upper()}", f"{word} ({low if name == pair[0] else high:g})")
            chosen[name] = None


def _number(name: str, given: MemoryConfig, environment: Environment) -> float | None:
    value: float | None = getattr(given, name)
    if value is None:
        value = environment.number(f"SURGETANK_MEMORY_{name.upper()}", *RANGES[name])
    return None if value is None else float(value)


def _check_order(name: str, reduce_above: float, restore_below: float) -> None:
    # Without a gap between them, one sample's shrinking would be the next one's growing.
    if reduce_above <= restore_below:
        raise ConfigError(name, reduce_above, f"a number above `restore_below` ({restore_below:g})")
