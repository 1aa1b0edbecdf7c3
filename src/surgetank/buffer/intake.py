"""The intake: live objects handed over by the application, waiting to be encoded.

Owns: the waiting objects, each with its charge in bytes.
Threads: none of its own; the pipeline's lock guards it.
Invariants: within a lane, offer numbers ascend.
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
        self.normal: deque[Entry] = deque()
        self.critical: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self.normal) + len(self.critical)

    @property
    def memory_bytes(self) -> int:
        """The sum of the charges, added up anew: for checks, so that an offer need not keep it."""
        return sum(entry[1] for lane in (self.normal, self.critical) for entry in lane)

    def lane(self, lane: Lane) -> deque[Entry]:
        """Return one lane's waiting objects, oldest first."""
        return self.critical if lane is Lane.CRITICAL else self.normal

    def append(self, entry: Entry, lane: Lane) -> None:
        """Let an object wait."""
        self.lane(lane).append(entry)

    def take(self, lane: Lane) -> Entry | None:
        """Remove and return the oldest object of a lane; None when there is none."""
        entries = self.lane(lane)
        return entries.popleft() if entries else None

    def take_newest(self, lane: Lane) -> Entry | None:
        """Remove and return the newest object of a lane; None when there is none."""
        entries = self.lane(lane)
        return entries.pop() if entries else None
