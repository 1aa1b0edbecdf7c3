"""What becomes of a batch that the receiver will not take as it is: halves, down to the poison item.

Owns: how much patience is left with a receiver that refuses everything.
Threads: one delivery thread.
Invariants: every item of a refused batch ends in exactly one part or is rejected.

A 413 means "smaller, please": two halves. A 400 means that some item is
poison, so the batch is bisected; neighbours are delivered and the item that is refused
on its own is rejected. A receiver that refuses everything would draw two requests for
every item that way, so after `PATIENCE` single rejections without one success in the
family the rest of the family is rejected together, and the next family gets less.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

from surgetank.model import Batch, Family, HeldBatch, Outcome
from surgetank.otlp.compression import compress, decompress
from surgetank.otlp.split import split

PATIENCE: Final = 64


@dataclass(frozen=True, slots=True)
class Dissection:
    """What a refused batch turns into."""

    parts: tuple[HeldBatch, ...] = ()
    rejected: int = 0


class Dissector:
    """One signal's dissector."""

    def __init__(self) -> None:
        self._patience = PATIENCE

    def dissect(self, held: HeldBatch, outcome: Outcome) -> Dissection:
        """Cut a batch that was answered with `SPLIT` or `PERMANENT`, or reject what cannot be cut or shall not be."""
        items = held.batch.items
        if outcome is Outcome.REJECTED:
            return Dissection(rejected=items)
        if outcome is Outcome.PERMANENT and held.family is None:
            held.family = Family()
        if items == 1:
            if held.family is not None:
                held.family.rejected += 1
            return Dissection(rejected=1)
        if outcome is Outcome.PERMANENT and self._is_hopeless(held.family):
            self._patience = max(1, self._patience // 4)
            return Dissection(rejected=items)
        try:
            return Dissection(parts=halve(held))
        except ValueError:
            # Bytes that cannot be walked cannot be mended by sending them again.
            return Dissection(rejected=items)

    def delivered(self, held: HeldBatch) -> None:
        """Note that the receiver took a batch: what it refuses is worth a search again."""
        self._patience = PATIENCE
        if held.family is not None:
            held.family.has_delivered = True

    def _is_hopeless(self, family: Family | None) -> bool:
        return family is not None and not family.has_delivered and family.rejected >= self._patience


def halve(held: HeldBatch) -> tuple[HeldBatch, HeldBatch]:
    """
    Return the two halves of a batch of at least two items, in order, as batches of their own.

    Raises:
        ValueError: The bytes are not a request of the batch's signal.
    """
    batch = held.batch
    raw = decompress(batch.body, batch.encoding, batch.raw_size)
    first, second = split(raw, batch.signal)
    return _part(held, "a", *first), _part(held, "b", *second)


def _part(held: HeldBatch, suffix: str, raw: bytes, items: int) -> HeldBatch:
    batch: Batch = dataclasses.replace(
        held.batch,
        # The parent's identifier with a suffix: as stable as the parent's, and telling where it came from.
        id=held.batch.id + suffix,
        items=items,
        raw_size=len(raw),
        body=compress([raw], held.batch.encoding),
    )
    return HeldBatch(
        batch=batch,
        first_seq=held.first_seq,
        family=held.family,
        # A part of a batch that was taken for poison need not prove it from the start again,
        # but one more refusal while others get through it must be.
        strikes=max(0, held.strikes - 1),
        refused_after=held.refused_after,
        failed_after=held.failed_after,
    )
