"""How long telemetry can be held in an outage, what would be lost in a longer one, and which settings would be enough.

Owns: no state. Threads: any.
Invariants: pure arithmetic; what a remedy says, `forecast` agrees with.

    memory lasts   min(max_size / rate, max_memory / (rate x bytes)), where bytes is an item's share of its sealed batch, and
                   max_memory is without the 0.75 MiB that encoding needs
    the spool lasts   room / (sum of rate x bytes of all signals that are stored), and no longer than max_age
    a signal lasts   the longer of the two, for a stored batch is in memory too for as long as there is room;
                     with durability `memory`, where disk comes after memory, the two together
    lost             rate x what the outage is longer

In an outage every item is sealed within a second, so an item costs its part of a compressed batch, not an object's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from surgetank.buffer.buffer import SCRATCH_SLICES, SLICE_BYTES, bytes_for_batches
from surgetank.config import MEBIBYTE, SignalLimits
from surgetank.config.limits import BUFFER_RANGES
from surgetank.model import BATCH_OVERHEAD, FOREVER, Signal
from surgetank.spool.settings import RANGES

RECORD_OVERHEAD: Final = 200
"""What a batch takes on disk beside its body: the record's frame, and its part of a segment's head (bytes)."""
# What is recommended is a round number, and this much more than what it would just take.
_MARGIN: Final = 1.1
_DIGITS: Final = 2

SIZES: Final[Mapping[Signal, float]] = {Signal.SPANS: 110.0, Signal.METRICS: 40.0, Signal.LOGS: 75.0}
"""Bytes an item, sealed and gzipped, where nothing better is known: half as much again as `surgetank bench` measures for a span
with ten attributes, and twice and more for the rest, for batches of one kind of item compress better than an application's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one signal brings, over all processes together."""

    rate: float
    """Items a second."""
    size: float
    """Bytes an item, as part of a sealed batch."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffer:
    """What one signal may have in memory, in each process."""

    max_size: int
    max_bytes: int
    """For what is sealed, beside what encoding needs."""
    batch_size: int
    delay: float
    """Seconds after which a batch is sealed that is not full."""
    is_stored: bool
    """Whether all of it is stored in the spool."""

    @classmethod
    def of(cls, limits: SignalLimits) -> Buffer:
        """Return what a signal's limits come to."""
        return cls(
            max_size=limits.max_size,
            max_bytes=bytes_for_batches(limits.max_bytes),
            batch_size=limits.max_export_batch_size,
            delay=limits.schedule_delay,
            is_stored=limits.persist == "all",
        )

    def per_item(self, load: Load, processes: int, overhead: int) -> float:
        """Return the bytes that an item takes, with its part of what its batch takes beside the body."""
        batch = min(self.batch_size, max(1.0, load.rate / processes * self.delay))
        return load.size + overhead / batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """What the spool may take, over all processes together."""

    limit: int
    """Bytes that the spool may take."""
    used: int = 0
    """Bytes that it takes already."""
    free: float = FOREVER
    """Bytes that the volume has left, beyond the reserve."""
    max_age: float = FOREVER
    """Seconds after which what is stored is given up."""
    is_write_ahead: bool = True
    """Whether a batch is on disk while it is in memory too."""

    @property
    def room(self) -> float:
        """Bytes that may still be written."""
        return max(0.0, min(self.limit - self.used, self.free))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """What an outage would do to one signal. Seconds are `inf` where nothing comes."""

    load: Load
    memory_lasts: float
    spool_lasts: float
    """0 where it is not stored."""
    lasts: float
    lost: int

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it, which knows no infinity."""
        lasts = {"memory": self.memory_lasts, "spool": self.spool_lasts, "both": self.lasts}
        return {
            "rate": self.load.rate,
            "bytes_per_item": self.load.size,
            "lasts_seconds": {name: None if value == FOREVER else round(value, 1) for name, value in lasts.items()},
            "lost_items": self.lost,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """Settings with which nothing would be lost, to be set together."""

    settings: Mapping[str, str]
    """By variable."""
    note: str = ""
    """What they need beside."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What an outage would do."""

    outage: float
    processes: int
    signals: Mapping[Signal, Prospect] = field(default_factory=dict)
    remedies: tuple[Remedy, ...] = ()
    """Each would be enough; empty where nothing is lost, or no setting is enough."""

    @property
    def lost(self) -> int:
        """Items of all signals that would be lost."""
        return sum(each.lost for each in self.signals.values())

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "outage_seconds": self.outage,
            "processes": self.processes,
            "signals": {signal.value: each.as_data() for signal, each in self.signals.items()},
            "lost_items": self.lost,
            "remedies": [{"settings": dict(each.settings), "note": each.note} for each in self.remedies],
        }


def forecast(
    loads: Mapping[Signal, Load],
    buffers: Mapping[Signal, Buffer],
    disk: Disk | None,
    *,
    outage: float,
    processes: int = 1,
) -> Forecast:
    """
    Say what an outage would do.

    Args:
        loads: What comes in; a signal that is left out brings nothing.
        buffers: What each signal may have in memory, in each process.
        disk: The spool; None where there is none.
        outage: Seconds.
        processes: So many share the load and the spool equally. At least 1.
    """
    signals = _prospects(loads, buffers, disk, outage, processes)
    lossy = [signal for signal, each in signals.items() if each.lost]
    remedies = _remedies(lossy, loads, buffers, disk, outage, processes) if lossy else []
    return Forecast(
        outage=outage,
        processes=processes,
        signals=signals,
        remedies=tuple(each for each in remedies if _is_permitted(each)),
    )


def _prospects(
    loads: Mapping[Signal, Load],
    buffers: Mapping[Signal, Buffer],
    disk: Disk | None,
    outage: float,
    processes: int,
) -> dict[Signal, Prospect]:
    stored = sum(_stored_rate(loads[signal], buffers[signal], processes) for signal in loads)
    found = {}
    for signal, load in loads.items():
        buffer = buffers[signal]
        memory = FOREVER
        if load.rate > 0:
            by_bytes = buffer.max_bytes / (load.rate * buffer.per_item(load, processes, BATCH_OVERHEAD))
            memory = processes * min(buffer.max_size / load.rate, by_bytes)
        spool = 0.0
        if disk is not None and buffer.is_stored:
            spool = min(disk.room / stored if stored > 0 else FOREVER, disk.max_age)
        is_beside = disk is None or disk.is_write_ahead
        lasts = max(memory, spool) if is_beside else memory + spool
        lost = math.ceil(load.rate * (outage - lasts)) if outage > lasts else 0
        found[signal] = Prospect(load=load, memory_lasts=memory, spool_lasts=spool, lasts=lasts, lost=lost)
    return found


def _stored_rate(load: Load, buffer: Buffer, processes: int) -> float:
    """Return bytes a second on disk."""
    return load.rate * buffer.per_item(load, processes, RECORD_OVERHEAD) if buffer.is_stored else 0.0


def _remedies(
    lossy: list[Signal],
    loads: Mapping[Signal, Load],
    buffers: Mapping[Signal, Buffer],
    disk: Disk | None,
    outage: float,
    processes: int,
) -> list[Remedy]:
    """Return ways out, the one that costs least memory first."""
    found = []
    if disk is not None:
        on_disk = dict(buffers) | {signal: replace(buffers[signal], is_stored=True) for signal in lossy}
        settings = {
            f"SURGETANK_{signal.name}_PERSISTENCE_ENABLED": "true" for signal in lossy if not buffers[signal].is_stored
        }
        rate = sum(_stored_rate(loads[signal], on_disk[signal], processes) for signal in loads)
        needed = rate * outage * _MARGIN
        if disk.used + needed > disk.limit:
            settings["SURGETANK_SPOOL_MAX_MB"] = _rounded((disk.used + needed) / MEBIBYTE)
        if disk.max_age < outage:
            settings["SURGETANK_SPOOL_MAX_AGE"] = _rounded(outage * _MARGIN)
        lacking = needed - disk.free
        note = f"needs {_rounded(lacking / MEBIBYTE)} MiB more free space on the volume" if lacking > 0 else ""
        found.append(Remedy(settings=settings, note=note))
    if not any(buffers[signal].is_stored for signal in lossy) or disk is None:
        settings = {}
        for signal in lossy:
            load, buffer = loads[signal], buffers[signal]
            items = load.rate / processes * outage * _MARGIN
            size = items * buffer.per_item(load, processes, BATCH_OVERHEAD)
            if items > buffer.max_size:
                settings[f"SURGETANK_{signal.name}_MAX_SIZE"] = _rounded(items)
            if size > buffer.max_bytes:
                needed = size + SCRATCH_SLICES * SLICE_BYTES
                settings[f"SURGETANK_{signal.name}_MAX_MEMORY_MB"] = _rounded(needed / MEBIBYTE)
        found.append(Remedy(settings=settings, note="takes memory in each process"))
    return found


def _is_permitted(remedy: Remedy) -> bool:
    """Whether a tank would take all of these values."""
    highest = {name.upper(): limits[1] for name, limits in BUFFER_RANGES.items()}
    highest |= {f"SPOOL_{name.upper()}": limits[1] for name, limits in RANGES.items()}
    return all(
        float(value) <= most
        for name, value in remedy.settings.items()
        for suffix, most in highest.items()
        if name.endswith(suffix)
    )


def _rounded(value: float) -> str:
    """Return a number that is not less, with two digits that count."""
    if value <= 0:
        return "0"
    step = 10.0 ** max(0, math.floor(math.log10(value)) + 1 - _DIGITS)
    return f"{math.ceil(value / step) * step:.0f}"


def parse_duration(text: str) -> float:
    """Read `90`, `90s`, `30min`, `2h` or `1d` and return seconds; raises ValueError for anything else."""
    units = {"min": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
    text = text.strip().lower()
    unit = next((each for each in units if text.endswith(each)), "")
    value = float(text.removesuffix(unit)) * units.get(unit, 1.0)
    if not 0 < value < FOREVER:
        raise ValueError(text)
    return value


def parse_rates(text: str) -> dict[Signal, float]:
    """Read `spans=500,logs=200`, items a second; raises ValueError for anything else."""
    found = {}
    for pair in text.split(","):
        name, _, value = pair.partition("=")
        rate = float(value)
        if not 0 <= rate < FOREVER:
            raise ValueError(text)
        found[Signal(name.strip())] = rate
    return found
