"""Who gives way when the buffer is full: the drop strategies, as pure decisions over what is held.

Owns: no state. Threads: none of its own; the buffer's lock guards what it looks at.
Invariants: a newcomer of the normal lane never displaces a critical item.
"""

from __future__ import annotations

from collections.abc import Iterator

from surgetank.buffer.intake import Entry, Intake
from surgetank.buffer.queue import BatchQueue
from surgetank.config import DropStrategy
from surgetank.model import HeldBatch, Lane


def victims(strategy: DropStrategy, newcomer: Lane, intake: Intake, queue: BatchQueue) -> Iterator[HeldBatch | Entry]:
    """
    Remove and yield what gives way for a newcomer, one at a time, in order of least regret.

    `newest` yields nothing: the newcomer itself is refused. `oldest` (and `sampling`,
    once it has come to the wall) yields the oldest sealed batches of the normal lane,
    then the oldest waiting objects of the normal lane, and then, for a critical
    newcomer only, the critical lane in the same order. The caller stops asking as
    soon as there is room.
    """
    if strategy == "newest":
        return
    lanes = (Lane.NORMAL,) if newcomer is Lane.NORMAL else (Lane.NORMAL, Lane.CRITICAL)
    for lane in lanes:
        while (held := queue.evict(lane)) is not None:
            yield held
        while (entry := intake.take(lane)) is not None:
            yield entry
