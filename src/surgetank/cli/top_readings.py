"""What a status file says, made sense of: the one place where it is read as what anybody may have written.

Owns: no state. Threads: any.
Invariants: total over whatever stands in a file: wrong types count as missing, numbers are finite and not negative, text is
printable, of one line and short.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from surgetank.health import INTENDED, HealthState
from surgetank.lines import printable
from surgetank.model import BreakerState, Signal
from surgetank.presence import VERSION, Sighting

UNREADABLE: Final = "unreadable"
_HEALTH: Final = frozenset(state.value for state in HealthState)
_BREAKERS: Final = frozenset(state.value for state in BreakerState)
# Larger numbers are nobody's; these are exact as JSON numbers everywhere.
_MOST: Final = 2.0**53
_TEXT_MAX: Final = 200
_REASONS_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReading:
    """One signal's books as its tank wrote them down."""

    offered: int
    delivered: int
    held: int
    """In memory: waiting and in flight."""
    max_size: int
    held_bytes: int
    max_bytes: int
    spooled: int
    """On disk only."""
    stored: int
    """Of what memory holds, what is on disk too."""
    spool_bytes: int
    oldest_age: float
    lost: Mapping[str, int]
    """What was dropped or refused for good, by reason."""
    intended: Mapping[str, int]
    """What was given up because somebody asked for it."""
    breaker: str
    trouble: str

    @property
    def is_used(self) -> bool:
        """Whether there is anything to be said of it."""
        return bool(self.offered or self.held or self.spooled or self.lost)

    @property
    def on_disk(self) -> int:
        """What a `kill -9` would leave."""
        return self.spooled + self.stored

    @property
    def lost_items(self) -> int:
        """All reasons together."""
        return sum(self.lost.values())

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {**asdict(self), "on_disk": self.on_disk, "is_used": self.is_used}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One tank, as its file had it."""

    file: str
    version: int
    pid: int
    host: str
    command: str
    service: str
    started_at: float
    written_at: float
    endpoints: Mapping[Signal, str]
    signals: Mapping[Signal, SignalReading]
    health: str
    """How the tank fares, in its own judgement; `UNREADABLE` where it does not say, or in a way that we do not know."""
    reasons: tuple[str, ...]
    memory_used: int
    memory_limit: int
    memory_source: str
    pressure: float
    scale: float
    spool_path: str | None
    """None without a spool."""
    spool_limit: int
    is_spool_down: bool

    @property
    def name(self) -> str:
        """What people call it."""
        return self.service or self.command or "?"

    @property
    def spool_bytes(self) -> int:
        """Taken on disk, over all signals."""
        return sum(books.spool_bytes for books in self.signals.values())

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it, but for the signals."""
        spool = {
            "path": self.spool_path,
            "bytes": self.spool_bytes,
            "limit_bytes": self.spool_limit,
            "is_down": self.is_spool_down,
        }
        return {
            "pid": self.pid,
            "host": self.host,
            "command": self.command,
            "service": self.service,
            "file": self.file,
            "version": self.version,
            "started_at": self.started_at,
            "written_at": self.written_at,
            "endpoints": {signal.value: place for signal, place in self.endpoints.items()},
            "health": {"state": self.health, "reasons": list(self.reasons)},
            "memory": {
                "used": self.memory_used,
                "limit": self.memory_limit,
                "source": self.memory_source,
                "pressure": self.pressure,
                "scale": self.scale,
            },
            "spool": None if self.spool_path is None else spool,
        }


def read(sighting: Sighting) -> Reading:
    """Make sense of what a file says; what makes none counts as missing."""
    said = sighting.said
    memory, spool, health = _part(said, "memory"), _part(said, "spool"), _part(said, "health")
    signals, endpoints = _part(said, "signals"), _part(said, "endpoints")
    state = _text(health, "state")
    reasons = health.get("reasons")
    return Reading(
        file=printable(sighting.path),
        version=min(max(sighting.version, 0), 1_000_000),
        pid=_count(said, "pid"),
        host=_text(said, "host"),
        command=_text(said, "command"),
        service=_text(said, "service"),
        started_at=_number(said, "started_at"),
        written_at=_number(said, "written_at"),
        endpoints={signal: _text(endpoints, signal.value) for signal in Signal},
        signals={signal: _books(_part(signals, signal.value)) for signal in Signal},
        health=state if state in _HEALTH and sighting.version == VERSION else UNREADABLE,
        reasons=tuple(printable(each, _TEXT_MAX) for each in reasons[:_REASONS_MAX] if isinstance(each, str))
        if isinstance(reasons, list)
        else (),
        memory_used=_count(memory, "used"),
        memory_limit=_count(memory, "limit"),
        memory_source=_text(memory, "source"),
        pressure=_number(said, "pressure"),
        scale=_number(said, "scale") if "scale" in said else 1.0,
        spool_path=_text(spool, "path") if spool else None,
        spool_limit=_count(spool, "limit_bytes"),
        is_spool_down=spool.get("is_down") is True,
    )


def _books(said: Mapping[str, Any]) -> SignalReading:
    dropped, rejected = _counts(said, "dropped"), _counts(said, "rejected_by_cause")
    unaccounted = said.get("unaccounted")
    lost = {reason: items for reason, items in dropped.items() if reason not in INTENDED}
    lost |= {f"refused ({cause})": items for cause, items in rejected.items()}
    if isinstance(unaccounted, int) and unaccounted:
        lost["unaccounted"] = int(min(abs(unaccounted), _MOST))
    breaker = _text(said, "breaker")
    return SignalReading(
        offered=_count(said, "offered"),
        delivered=_count(said, "delivered"),
        held=_count(said, "queued") + _count(said, "in_flight"),
        max_size=_count(said, "max_size"),
        held_bytes=_count(said, "memory_bytes"),
        max_bytes=_count(said, "max_memory_bytes"),
        spooled=_count(said, "spooled"),
        stored=_count(said, "stored"),
        spool_bytes=_count(said, "spool_bytes"),
        oldest_age=_number(said, "oldest_age"),
        lost=lost,
        intended={reason: items for reason, items in dropped.items() if reason in INTENDED},
        breaker=breaker if breaker in _BREAKERS else "?",
        trouble=_text(said, "trouble"),
    )


def _part(said: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}


def _text(said: Mapping[str, Any], name: str) -> str:
    found = said.get(name)
    return printable(found, _TEXT_MAX) if isinstance(found, str) else ""


def _number(said: Mapping[str, Any], name: str) -> float:
    found = said.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float):
        return 0.0
    # Compared before it is converted: an integer may be too large for that.
    return float(found) if 0 <= found <= _MOST and math.isfinite(found) else 0.0


def _count(said: Mapping[str, Any], name: str) -> int:
    return int(_number(said, name))


def _counts(said: Mapping[str, Any], name: str) -> dict[str, int]:
    found = _part(said, name)
    names = [each for each in list(found)[:_REASONS_MAX] if _count(found, each)]
    return {printable(each, 40): _count(found, each) for each in names}
