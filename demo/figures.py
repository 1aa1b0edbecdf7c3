"""What the processes tell the demo: an application's status lines and a collector's report, as records.

Owns: no state. Threads: any.
Invariants: `Status.to_json` and `Status.from_json` are each other's inverse.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from surgetank.model import BreakerState, Signal, SignalStats

Mode = Literal["ours", "stock"]

MEBIBYTE: Final = 1024 * 1024
# Seconds between two status lines.
STATUS_INTERVAL: Final = 0.25
# The counter whose recorded total must come out as the sum of all deltas that arrived.
COUNTER: Final = "shop.items.handled"


def made_with(requests: int) -> dict[Signal, int]:
    """Return what is made with so many requests: two of each signal with every one."""
    return dict.fromkeys(Signal, 2 * requests)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one signal's buffer may hold."""

    max_size: int
    """Items."""
    max_bytes: int
    """Bytes, over all copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One status line of an application process; the last one is written after its shutdown."""

    elapsed: float
    """Seconds since it began to make items."""
    made: Mapping[Signal, int]
    """By the application's own count: spans ended, records emitted, additions to the counter."""
    counter_total: int
    """The sum of everything that was added to the counter."""
    rss_bytes: int
    """Resident memory of the process now."""
    rss_peak_bytes: int
    """The highest `rss_bytes` of any line so far."""
    books: Mapping[Signal, SignalStats] = field(default_factory=dict)
    """`Tank.stats()` by signal; empty with the stock SDK, which keeps no books."""
    limits: Mapping[Signal, Limits] = field(default_factory=dict)
    """The tank's limits by signal; empty with the stock SDK."""
    is_final: bool = False
    """Whether the application has shut down."""

    def on_disk(self, signal: Signal) -> int:
        """Return how many items a kill could not reach: on disk alone, or in memory and on disk too."""
        books = self.books[signal]
        return books.spooled + books.stored

    def to_json(self) -> str:
        """Return the line."""
        plain: dict[str, Any] = {name: getattr(self, name) for name in self.__slots__}
        plain["made"] = {signal.value: count for signal, count in self.made.items()}
        plain["limits"] = {signal.value: asdict(limits) for signal, limits in self.limits.items()}
        plain["books"] = {signal.value: books.as_data() for signal, books in self.books.items()}
        return json.dumps(plain)

    @classmethod
    def from_json(cls, line: str) -> Status:
        """Read a line."""
        plain = json.loads(line)
        plain["made"] = {Signal(name): count for name, count in plain["made"].items()}
        plain["limits"] = {Signal(name): Limits(**limits) for name, limits in plain["limits"].items()}
        plain["books"] = {Signal(name): _books(books) for name, books in plain["books"].items()}
        return cls(**plain)


def _books(plain: dict[str, Any]) -> SignalStats:
    kept = {name: value for name, value in plain.items() if name != "unaccounted"}
    return SignalStats(**{**kept, "breaker": BreakerState(plain["breaker"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What a collector has counted of one signal."""

    unique: int = 0
    """Items by identity, each once."""
    duplicates: int = 0
    """Items that came again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a collector has counted."""

    arrived: Mapping[Signal, Arrived]
    """By signal; of metrics, the data points."""
    counter_total: float = 0
    """The sum of all deltas of `COUNTER`, each data point once."""

    @classmethod
    def from_data(cls, plain: Mapping[str, Any]) -> Report:
        """Read the answer to `GET /report`."""
        arrived = {
            signal: Arrived(unique=plain[signal.value]["unique"], duplicates=plain[signal.value]["duplicates"])
            for signal in Signal
        }
        return cls(arrived=arrived, counter_total=plain["delta_sums"].get(COUNTER, 0))
