"""The queue: sealed batches in memory, two lanes, oldest first.

Owns: the batches that wait, and their sums in items and bytes.
Threads: none of its own; the pipeline's lock guards it.
Invariants: `items` and `memory_bytes` are the sums over what is held; a batch is in one lane once. Whatever raises inside a
method, in its own calls too, leaves both as they were: each changes its lane by its last call, and the sums after it.

A batch that is leased leaves the queue but not the books: the pipeline keeps
charging for it until the verdict is known.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from surgetank.model import HeldBatch, Lane


class BatchQueue:
    """First in, first out per lane; the critical lane leaves first and is evicted last."""

    def __init__(self) -> None:
        self.items = 0
        self.memory_bytes = 0
        self._lanes: dict[Lane, deque[HeldBatch]] = {Lane.CRITICAL: deque(), Lane.NORMAL: deque()}

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def __iter__(self) -> Iterator[HeldBatch]:
        for lane in self._lanes.values():
            yield from lane

    def oldest(self) -> list[HeldBatch]:
        """Return the oldest batch of each lane that has one."""
        return [lane[0] for lane in self._lanes.values() if lane]

    def append(self, held: HeldBatch) -> None:
        """Queue a new batch behind the others of its lane."""
        size = held.memory_bytes
        self._lanes[held.batch.lane].append(held)
        self.items += held.batch.items
        self.memory_bytes += size

    def put_back(self, *returned: HeldBatch) -> None:
        """Return a leased batch, or its parts in order, to the place that its age gives it: before what is equally old."""
        if not returned:
            return
        items, size = sum(held.batch.items for held in returned), sum(held.memory_bytes for held in returned)
        key = returned[0].batch.lane
        lane = list(self._lanes[key])
        place = next((i for i, other in enumerate(lane) if other.first_seq >= returned[0].first_seq), len(lane))
        lane[place:place] = returned
        self._lanes[key] = deque(lane)
        self.items += items
        self.memory_bytes += size

    def next(self, now: float) -> HeldBatch | None:
        """
        Return the next batch to send, and leave it where it is; None when there is none.

        That is the oldest of the critical lane, then of the normal lane. Batches
        that were set aside come before their time only when nothing else waits.
        """
        ready = next((held for held in self if held.due_at <= now), None)
        return ready or min(self, key=lambda held: held.due_at, default=None)

    def remove(self, held: HeldBatch) -> None:
        """Remove a batch that is here."""
        size = held.memory_bytes
        self._lanes[held.batch.lane].remove(held)
        self.items -= held.batch.items
        self.memory_bytes -= size
        assert self.items >= 0
        assert self.memory_bytes >= 0

    def evict(self, lane: Lane) -> HeldBatch | None:
        """Remove and return the oldest batch of a lane, due or not; None when there is none."""
        if not self._lanes[lane]:
            return None
        held = self._lanes[lane][0]
        self.remove(held)
        return held

    def evict_stored(self) -> HeldBatch | None:
        """Remove and return the oldest batch that is on disk too, normal lane first; None when there is none."""
        for lane in (Lane.NORMAL, Lane.CRITICAL):
            for held in self._lanes[lane]:
                if held.is_stored:
                    self.remove(held)
                    return held
        return None
