"""Checks of the processes on this host that have a tank, and what they bring.

Owns: no state. Threads: any. Invariants: status files are read, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from surgetank.catalogue.effective import Effective
from surgetank.clock import SystemClock
from surgetank.config import MEBIBYTE, SignalLimits
from surgetank.doctor.finding import Finding, failed, ok, warning
from surgetank.model import Signal
from surgetank.presence import Sighting, folders_on_host, sightings
from surgetank.sizing import SIZES, Load

_NAME: Final = "processes"
_LISTED: Final = 10


def living(effective: Effective) -> list[Sighting]:
    """Return the tanks that live on this host."""
    return [each for each in sightings(folders_on_host(effective.environment)) if each.is_alive]


def check_processes(found: list[Sighting], limits: Mapping[Signal, SignalLimits]) -> Iterator[Finding]:
    """
    Say how each tank fares, and where its limits are not those of the forecast.

    Args:
        found: The tanks that live on this host.
        limits: Those of the environment, which the forecast goes by.
    """
    if not found:
        yield ok(_NAME, "No tank lives on this host, as far as this user can see.")
    for sighting in found[:_LISTED]:
        said = sighting.said
        health = _mapping(said, "health")
        name = f"{said.get('service') or said.get('command') or 'a process'} ({said.get('pid')})"
        given = health.get("reasons")
        reasons = "; ".join(map(str, given[:_LISTED])) if isinstance(given, list) else ""
        state = health.get("state")
        if state == "losing":
            yield failed(
                _NAME, f"{name} is losing telemetry: {reasons}.", "See the forecast below for what would hold it."
            )
        elif state == "holding":
            yield warning(_NAME, f"{name} is holding telemetry: {reasons}.", "See what is said of the endpoint above.")
        else:
            yield ok(_NAME, f"{name} is {state or 'silent'}.")
        other = list(_other_limits(said, limits))
        if other:
            yield warning(
                _NAME,
                f"{name} has other limits than this environment: {', '.join(other)}.",
                "Run doctor with that process's SURGETANK_* variables; the forecast below goes by this environment's.",
            )
    if len(found) > _LISTED:
        yield ok(_NAME, f"{len(found) - _LISTED} more are not listed.")


def _other_limits(said: Mapping[str, Any], limits: Mapping[Signal, SignalLimits]) -> Iterator[str]:
    if _number(said, "scale") != 1:
        # They are smaller for the moment, because memory runs short.
        return
    for signal, ours in limits.items():
        theirs = _signal(said, signal)
        for name, of_ours, unit in (("max_size", ours.max_size, 1), ("max_memory_bytes", ours.max_bytes, MEBIBYTE)):
            of_theirs = _number(theirs, name)
            if of_theirs and of_theirs != of_ours:
                shown = name.replace("_bytes", "_mb")
                yield f"{signal.value}.{shown} {of_theirs / unit:g}, here {of_ours / unit:g}"


def measure(
    effective: Effective, seconds: float, sleep: Callable[[float], None] = SystemClock.sleep
) -> tuple[dict[Signal, Load], int]:
    """
    Return what the living tanks bring, by two readings of their status, and how many brought something in between.

    Args:
        effective: The configuration.
        seconds: Between the two; status files are written once a second.
        sleep: Waits.
    """
    first = {each.path: each.said for each in living(effective)}
    if not first:
        return {}, 0
    sleep(seconds)
    pairs = [(first[each.path], each.said) for each in living(effective) if each.path in first]
    return loads_between(pairs), max(1, sum(_offered(after) > _offered(before) for before, after in pairs))


def loads_between(pairs: list[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> dict[Signal, Load]:
    """Return what comes in per second, by two readings of each tank, and the bytes that an item has had so far."""
    found = {}
    for signal in Signal:
        rate, sealed, size = 0.0, 0, 0
        for before, after in pairs:
            # Points come in a burst with each collection, so what counts is the average over the process's life.
            began = before if signal is not Signal.METRICS else {"written_at": _number(after, "started_at")}
            span = _number(after, "written_at") - _number(began, "written_at")
            old, new = _signal(began, signal), _signal(after, signal)
            if span > 0:
                rate += max(0.0, _number(new, "offered") - _number(old, "offered")) / span
            sealed += int(_number(new, "sealed"))
            size += int(_number(new, "sealed_bytes"))
        if rate > 0:
            found[signal] = Load(rate=rate, size=size / sealed if sealed else SIZES[signal])
    return found


def _offered(said: Mapping[str, Any]) -> float:
    return sum(_number(_signal(said, signal), "offered") for signal in Signal)


def _signal(said: Mapping[str, Any], signal: Signal) -> Mapping[str, Any]:
    return _mapping(_mapping(said, "signals"), signal.value)


def _mapping(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = said.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(said: Mapping[str, Any], name: str) -> float:
    value = said.get(name)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0.0
