"""The intake: live objects handed over by the application, waiting to be encoded.

Owns: the waiting objects and their charge in bytes.
Threads: none of its own; the pipeline's lock guards it.
Invariants: `memory_bytes` is the sum of the charges of what waits.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, TypeAlias

from surgetank.model import Lane

# Up to this estimate an object is charged once: while it is encoded its few encoded
# bytes come on top for less than a millisecond, which the pipeline's headroom covers.
# A larger one is charged twice from the start, for the object and its encoded copy.
CHARGED_ONCE_MAX: Final = 64 * 1024


def charge_of(estimate: int) -> int:
    """Return the bytes that an object of this estimated size is charged for until it is sealed."""
    return estimate if estimate <= CHARGED_ONCE_MAX else 2 * estimate


# One waiting object: the object, its charge in bytes, its offer number. A plain tuple,
# because a named one takes three times as long to make, and this is the application's time.
Entry: TypeAlias = tuple[Any, int, int]


class Intake:
    """First in, first out per lane."""

    def __init__(self) -> None:
        self.memory_bytes = 0
        self.normal: deque[Entry] = deque()
        self.critical: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self.normal) + len(self.critical)

    def lane(self, lane: Lane) -> deque[Entry]:
        """Return one lane's waiting objects, oldest first."""
        return self.critical if lane is Lane.CRITICAL else self.normal

    def append(self, entry: Entry, lane: Lane) -> None:
        """Let an object wait."""
        self.memory_bytes += entry[1]
        self.lane(lane).append(entry)

    def take(self, lane: Lane) -> Entry | None:
        """Remove and return the oldest object of a lane; None when there is none."""
        entries = self.lane(lane)
        if not entries:
            return None
        return self._released(entries.popleft())

    def take_newest(self, lane: Lane) -> Entry | None:
        """Remove and return the newest object of a lane; None when there is none."""
        entries = self.lane(lane)
        if not entries:
            return None
        return self._released(entries.pop())

    def _released(self, entry: Entry) -> Entry:
        self.memory_bytes -= entry[1]
        assert self.memory_bytes >= 0
        return entry
