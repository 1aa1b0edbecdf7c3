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
    yield from _oldest_first(newcomer, intake, queue)


def victims_for_ourselves(strategy: DropStrategy, intake: Intake, queue: BatchQueue) -> Iterator[HeldBatch | Entry]:
    """
    Remove and yield what gives way when our own working copies need room.

    Where nothing old may give way (`newest`), it is what came last: it would have been
    refused, had the copies been known when it was offered.
    """
    if strategy == "newest":
        for lane in (Lane.NORMAL, Lane.CRITICAL):
            while (entry := intake.take_newest(lane)) is not None:
                yield entry
        return
    # The limit is strict, so the critical lane too, when nothing else is left.
    yield from _oldest_first(Lane.CRITICAL, intake, queue)


def _oldest_first(newcomer: Lane, intake: Intake, queue: BatchQueue) -> Iterator[HeldBatch | Entry]:
    lanes = (Lane.NORMAL,) if newcomer is Lane.NORMAL else (Lane.NORMAL, Lane.CRITICAL)
    for lane in lanes:
        while (held := queue.evict(lane)) is not None:
            yield held
        while (entry := intake.take(lane)) is not None:
            yield entry
