"""Memory pressure acted upon: the monitor is stepped, buffers obey its scale, and memory is given back.

Owns: the monitor, the loop that steps it, and how much buffers held at the latest look.
Threads: `look` from one at a time; `notice_growth` from any of ours.
Invariants: nothing is looked at where `adaptive` is false.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Final, Protocol

from surgetank.driver import Loop
from surgetank.memory.allocator import Relief, trim
from surgetank.memory.monitor import Monitor
from surgetank.memory.reading import Probe
from surgetank.memory.settings import MemorySettings
from surgetank.model import Clock

# Growth of our buffers, as a part of the memory limit, that is looked at before its time.
GROWTH_SHARE: Final = 0.05


class Adjustable(Protocol):
    """What holds memory and can do with less. The seam exists because whoever watches memory knows no pipeline."""

    @property
    def memory_bytes(self) -> int:
        """What is held now."""

    @property
    def used_share(self) -> float:
        """The part of the configured limits that is used."""

    def resize(self, scale: float) -> None:
        """Obey that part of the limits from now on."""


class MemoryWatch:
    """
    Watches the memory of one process for one tank.

    Args:
        settings: Thresholds, floor and period.
        probe: Reads the memory.
        clock: Time.
        buffers: What is to obey.
        on_look: Called before each look, for what is to be done from time to time on a thread that is there.
        is_threaded: False: somebody calls `look`.
    """

    def __init__(
        self,
        settings: MemorySettings,
        probe: Probe,
        clock: Clock,
        buffers: Iterable[Adjustable],
        on_look: Callable[[], object] = lambda: None,
        *,
        is_threaded: bool,
    ) -> None:
        self._settings = settings
        self._on_look = on_look
        self._buffers = tuple(buffers)
        self.monitor = Monitor(probe, clock, settings, in_use=lambda: max(each.used_share for each in self._buffers))
        self._relief = Relief(lambda: reading.used if (reading := probe()) else None, clock)
        self._held_at_look = 0
        self.loop = Loop("surgetank-memory", self.look, nullcontext, is_threaded=is_threaded)

    def start(self) -> None:
        """Begin to look, where that is wanted."""
        if self._settings.adaptive:
            self.loop.wake()

    def look(self) -> float:
        """Step the monitor, and have the buffers obey it; return the seconds until the next look."""
        self._on_look()
        before = self.monitor.scale
        rest = self.monitor.step()
        self._held_at_look = self._held()
        scale = self.monitor.scale
        if scale != before:
            for each in self._buffers:
                each.resize(scale)
        level, reading = self.monitor.current.level, self.monitor.current.reading
        if scale < before:
            # What buffers have let go of is the allocator's until it is told to give it back.
            trim()
        if level > self._settings.reduce_above:
            self._relief.relieve(int((level - self._settings.reduce_above) * reading.limit))
        return rest

    def notice_growth(self) -> None:
        """Have memory looked at before its time, when our own buffers have taken much of it since the last look."""
        limit = self.monitor.current.reading.limit
        held = self._held()
        if limit and held > self._held_at_look + GROWTH_SHARE * limit:
            self._held_at_look = held
            self.monitor.hasten()
            self.loop.wake()

    def _held(self) -> int:
        return sum(each.memory_bytes for each in self._buffers)
