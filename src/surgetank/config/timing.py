"""Waits between attempts, and other lengths of time.

Owns: no state. Threads: any. Invariants: a `Timing` that exists is possible.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Final

from surgetank.config.environment import Environment, check_number

_DAY: Final = 86_400.0
EXPORT_TIMEOUT: Final = 30.0
"""Seconds that the drop-in classes give an exporter, as the SDK's classes do."""
SECONDS_RANGE: Final = (0.0, _DAY)
EXPORT_TIMEOUT_RANGE: Final = (0.001, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Waits between attempts, in seconds; `delivery/backoff.py` and `delivery/breaker.py` say how they are used."""

    backoff_initial: float = 0.5
    backoff_factor: float = 1.5
    backoff_max: float = 5.0
    cooldown_initial: float = 1.0
    cooldown_factor: float = 2.0
    cooldown_max: float = 30.0
    retry_after_max: float = 3600.0
    """The longest that a receiver is left alone because it asked to (`Retry-After`, `RetryInfo`); then one batch goes out."""
    jitter: float = 0.2
    """Each wait is drawn from `1 - jitter` to `1 + jitter` times its nominal length."""

    def __post_init__(self) -> None:
        for name, (low, high) in TIMING_RANGES.items():
            check_number(name, getattr(self, name), low, high)
        check_number("backoff_max", self.backoff_max, self.backoff_initial, _DAY)
        check_number("cooldown_max", self.cooldown_max, self.cooldown_initial, _DAY)


TIMING_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "backoff_initial": (0.001, _DAY),
    "backoff_factor": (1, 10),
    "backoff_max": (0.001, _DAY),
    "cooldown_initial": (0.001, _DAY),
    "cooldown_factor": (1, 10),
    "cooldown_max": (0.001, _DAY),
    "retry_after_max": (0.0, _DAY),
    "jitter": (0, 0.9),
}


def resolve_timing(given: Timing | None, environment: Environment) -> Timing:
    """Return what was given, or the defaults with `SURGETANK_BACKOFF_*`, `SURGETANK_COOLDOWN_*`, `SURGETANK_RETRY_AFTER_MAX` and `SURGETANK_JITTER`."""
    if given is not None:
        return given
    read = {
        each.name: environment.number(f"SURGETANK_{each.name.upper()}", *TIMING_RANGES[each.name])
        for each in fields(Timing)
    }
    chosen = {name: value for name, value in read.items() if value is not None}
    for kind in ("backoff", "cooldown"):
        _reconcile(kind, chosen, environment)
    return Timing(**chosen)


def _reconcile(kind: str, chosen: dict[str, float], environment: Environment) -> None:
    """Pass over what makes a longest wait shorter than the first one."""
    initial, longest = f"{kind}_initial", f"{kind}_max"
    defaults = Timing()
    first = chosen.get(initial, getattr(defaults, initial))
    if chosen.get(longest, getattr(defaults, longest)) >= first:
        return
    if chosen.pop(longest, None) is not None:
        environment.ignore(f"SURGETANK_{longest.upper()}", f"at least {initial}, which is {first:g}")
    if first > getattr(defaults, longest):
        chosen.pop(initial)
        environment.ignore(
            f"SURGETANK_{initial.upper()}", f"at most {longest}, which is {getattr(defaults, longest):g}"
        )


def resolve_export_timeout(variable: str, millis: float | None, environment: Environment) -> float:
    """Return the drop-in classes' time-out in seconds; the SDK's own are not checked, so neither are these."""
    if millis is None:
        seconds = environment.number(variable, *EXPORT_TIMEOUT_RANGE, unit=0.001)
        millis = None if seconds is None else seconds * 1000
    if millis is None or not millis > 0:
        millis = EXPORT_TIMEOUT * 1000
    low, high = EXPORT_TIMEOUT_RANGE
    return min(max(millis / 1000, low), high)


def resolve_seconds(name: str, given: float | None, environment: Environment, default: float) -> float:
    """Complete one duration in seconds from keyword, `SURGETANK_<NAME>` and default."""
    if given is not None:
        check_number(name, given, *SECONDS_RANGE)
        return float(given)
    read = environment.number(f"SURGETANK_{name.upper()}", *SECONDS_RANGE)
    return default if read is None else read
