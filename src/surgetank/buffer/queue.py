"""The queue: sealed batches in memory, two lanes, oldest first.

Owns: the batches that wait, and their sums in items and bytes.
Threads: none of its own; the pipeline's lock guards it.
Invariants: `items` and `memory_bytes` are the sums over what is held; a batch is in one lane once.

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
        self._lanes[held.batch.lane].append(held)
        self._count(held, +1)

    def put_back(self, held: HeldBatch) -> None:
        """Return a leased batch to the place that its age gives it."""
        lane = self._lanes[held.batch.lane]
        place = next((i for i, other in enumerate(lane) if other.first_seq >= held.first_seq), len(lane))
        lane.insert(place, held)
        self._count(held, +1)

    def take(self, now: float) -> HeldBatch | None:
        """
        Remove and return the next batch to send; None when there is none.

        That is the oldest of the critical lane, then of the normal lane. Batches
        that were set aside come before their time only when nothing else waits.
        """
        ready = next((held for held in self if held.due_at <= now), None)
        held = ready or min(self, key=lambda held: held.due_at, default=None)
        if held is not None:
            self._lanes[held.batch.lane].remove(held)
            self._count(held, -1)
        return held

    def evict(self, lane: Lane) -> HeldBatch | None:
        """Remove and return the oldest batch of a lane, due or not; None when there is none."""
        if not self._lanes[lane]:
            return None
        held = self._lanes[lane].popleft()
        self._count(held, -1)
        return held

    def evict_stored(self) -> HeldBatch | None:
        """Remove and return the oldest batch that is on disk too, normal lane first; None when there is none."""
        for lane in (Lane.NORMAL, Lane.CRITICAL):
            for held in self._lanes[lane]:
                if held.is_stored:
                    self._lanes[lane].remove(held)
                    self._count(held, -1)
                    return held
        return None

    def _count(self, held: HeldBatch, sign: int) -> None:
        self.items += sign * held.batch.items
        self.memory_bytes += sign * held.memory_bytes
        assert self.items >= 0
        assert self.memory_bytes >= 0
