"""One signal's memory and disk joined: written ahead, spilled before dropped, replayed in turn with what is fresh.

Owns: whose turn it is, and the order of the two books (memory's and disk's) when a batch moves between them.
Threads: any of ours. The buffer's lock and the folder's are never held at the same time.
Invariants: a batch that is wanted on disk is there before its first attempt, or the disk was asked and could not;
an item on disk and in memory counts once, as in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Final

from surgetank.buffer.buffer import Buffer
from surgetank.config import Persist
from surgetank.model import (
    BATCH_OVERHEAD,
    FAR_OURS,
    PARTIALLY_REJECTED,
    Batch,
    Clock,
    DropReason,
    HeldBatch,
    Lane,
    StoredRecord,
    Verdict,
)
from surgetank.spool.dead_letters import DeadLetters
from surgetank.spool.spool import Remainder, Spool

# With durability `memory` nothing is written ahead; from this fill on, the oldest batches go to disk.
SPILL_AT: Final = 0.5


class Reservoir:
    """
    What a worker leases from: the buffer alone, or the buffer and a spool.

    Args:
        buffer: What is held in memory.
        spool: What is held on disk; None for memory only.
        persist: Which lanes are stored.
        is_write_ahead: Whether a batch is stored before its first attempt, or only when memory fills up.
        dead_letters: Where refused batches are kept for inspection; None for nowhere.
        clock: Time.
    """

    def __init__(
        self,
        buffer: Buffer,
        clock: Clock,
        spool: Spool | None = None,
        *,
        persist: Persist = "none",
        is_write_ahead: bool = True,
        dead_letters: DeadLetters | None = None,
    ) -> None:
        self._buffer = buffer
        self._clock = clock
        self._spool = spool
        self._configured: Persist = persist
        self._persist: Persist = persist
        self._is_write_ahead = is_write_ahead
        self._dead_letters = dead_letters
        self._is_replays_turn = False
        self._settling: tuple[HeldBatch, StoredRecord | None, Sequence[HeldBatch]] | None = None
        """A batch whose lease is being closed, its record, and its parts."""
        self._has_no_room = False
        """Whether the last batch that was to be read from disk found no room in memory."""
        if spool is not None:
            buffer.on_disk = spool

    def keep(self, held: HeldBatch) -> None:
        """Store a batch that has just been sealed, before anybody can lease it."""
        if self._spool is None or not self._is_wanted(held):
            return
        if self._is_write_ahead:
            held.record = self._spool.append(held.batch)
        elif self._buffer.fill > SPILL_AT:
            self.save_unsaved()
        self._balance()

    def check_in(self, batch: Batch | None, before: StoredRecord | None) -> StoredRecord | None:
        """
        Store what is not sealed yet, in place of what was stored of it before.

        Args:
            batch: Of the critical lane, with everything that it has so far; None when it is sealed.
            before: What this returned the last time.

        Returns:
            Its record; None when there is none: nothing is written ahead here, or the disk did not take it.
        """
        if self._spool is None or self._persist == "none" or not self._is_write_ahead:
            return None
        record = None if batch is None else self._spool.append(batch)
        if before is not None:
            self._spool.ack(before)
        self._balance()
        return record

    def store_from_now_on(self) -> None:
        """Store every batch from now on, because the process is ending; not of a signal that is to stay off the disk."""
        if self._configured != "none":
            self._persist = "all"

    def save_unsaved(self, *, in_flight_too: bool = False, is_asked_for: bool = False) -> None:
        """
        Store the batches that are in memory only although they are wanted on disk, as far as the disk takes them.

        Args:
            in_flight_too: Also those in the hands of the sender.
            is_asked_for: Also those that are not stored of their own accord; not of a signal that is to stay off the disk.
        """
        if self._spool is None or (is_asked_for and self._configured == "none"):
            return
        batches = self._buffer.queued() + (self._buffer.in_flight() if in_flight_too else [])
        for held in batches:
            if not (self._is_unsaved(held) and (is_asked_for or self._is_wanted(held))):
                continue
            record = self._spool.append(held.batch)
            if record is None:
                break
            before = held.record
            has_left = not self._buffer.attach(held, record)
            if has_left:
                self._spool.ack(record)
            elif before is not None:
                self._spool.ack(before)
        self._balance()

    def tend(self) -> None:
        """Do what is due from time to time: tell the disk what memory let go of, sync, expire, store what could not be stored before."""
        if self._spool is None:
            return
        self._tell_of_spills()
        self._spool.expire(self._clock.now())
        self._spool.sync()
        if self._is_write_ahead or self._buffer.fill > SPILL_AT:
            self.save_unsaved()
        self._balance()

    def lease(self, now: float) -> HeldBatch | None:
        """Take the next batch: from memory and from disk in turn, as long as both have one."""
        self._tell_of_spills()
        if self._spool is None or not self._spool.has_available:
            return self._buffer.lease(now)
        self._is_replays_turn = not self._is_replays_turn
        if self._is_replays_turn:
            return self._lease_stored(now) or self._buffer.lease(now)
        return self._buffer.lease_ready(now) or self._lease_stored(now) or self._buffer.lease(now)

    def _lease_stored(self, now: float) -> HeldBatch | None:
        assert self._spool is not None
        reserved: tuple[int, int] | None = None

        def has_room(items: int, size: int) -> bool:
            nonlocal reserved
            if reserved is not None:
                # What it was for turned out to be damaged.
                self._buffer.cancel(*reserved)
            size += BATCH_OVERHEAD
            reserved = (items, size) if self._buffer.reserve(items, size) else None
            self._has_no_room = reserved is None
            return reserved is not None

        try:
            held = self._spool.lease(now, has_room)
        except BaseException:
            if reserved is not None:
                self._buffer.cancel(*reserved)
            raise
        if held is not None:
            assert reserved is not None
            self._buffer.lease_read(held, reserved[1])
        elif reserved is not None:
            self._buffer.cancel(*reserved)
        self._balance()
        if held is None:
            # What was taken for sendable may not be: nobody shall wait for it.
            self._buffer.changed_on_disk(recovered=0, lost={})
        return held

    def reclaim(self) -> None:
        """Have everything that is in flight wait again: the step that leased it was broken off, and nobody will settle it."""
        self._end_settling()
        for held in self._buffer.leased():
            self.put_back(held)
        self._buffer.cancel_reading()
        if self._spool is not None:
            self._spool.reclaim()
            self._spool.settle()
            self._balance()

    def put_back(self, held: HeldBatch) -> None:
        """Release a leased batch: to disk if it was read from there, else to memory."""
        if not self._buffer.is_leased(held):
            return
        spool, record = self._spool, held.record
        if spool is not None and record is not None and held.is_read and spool.release(record, held):
            self._buffer.return_read(held)
        else:
            if held.first_seq == FAR_OURS:
                # Memory alone has it now, and nobody knows any more when it was offered: before any flush.
                held.first_seq = 0
            self._buffer.put_back(held)

    def settle(
        self,
        held: HeldBatch,
        *,
        delivered: int,
        rejected: int,
        parts: Sequence[HeldBatch] = (),
        refusal: Verdict | None = None,
    ) -> None:
        """
        Close a lease, as `Buffer.settle` does; `refusal` says why items were refused, to be noted beside them.

        Called again after it was broken off, it goes on where it was.
        """
        self._end_settling()
        if refusal is not None and rejected and not parts and self._dead_letters is not None:
            self._dead_letters.bury(held.batch, refusal)
        cause = PARTIALLY_REJECTED if refusal is None else refusal.cause
        if self._spool is None:
            self._buffer.settle(held, delivered=delivered, rejected=rejected, parts=parts, cause=cause)
            return
        whole = held.record
        self._settling = held, whole, parts
        if parts and whole is not None and self._buffer.is_leased(held):
            # First the parts, then the end of the whole: a crash in between repeats it.
            records = self._spool.replace(whole, [part.batch for part in parts])
            for part, record in zip(parts, records, strict=True):
                part.record = record
        self._buffer.settle(held, delivered=delivered, rejected=rejected, parts=parts, cause=cause)
        self._end_settling()
        # For flushes that waited for its record.
        self._buffer.check_flushes()
        self._balance()

    def _end_settling(self) -> None:
        """End the records of what is settled; of what was not because something was raised, those of parts that nobody has."""
        if self._settling is None or self._spool is None:
            return
        held, whole, parts = self._settling
        if self._buffer.is_leased(held):
            for part in parts:
                if part.record is not None:
                    self._spool.ack(part.record)
            if parts and whole is not None and whole.is_done:
                # It is in memory only, and can be stored again.
                held.record = None
        elif held.record is not None and not (parts and held.record is whole):
            # With parts, only one that it was given meanwhile, by whoever stored what was in flight.
            self._spool.ack(held.record)
        self._settling = None

    def scratch(self, size: int) -> AbstractContextManager[None]:
        """Charge for working memory."""
        return self._buffer.scratch(size)

    def has_queued(self) -> bool:
        """Whether another batch waits."""
        return self._buffer.has_queued() or (self._spool is not None and self._spool.has_available)

    def give_up_flushes(self, not_before: float) -> None:
        """Fail the flushes that no attempt can come in time for."""
        self._buffer.give_up_flushes(not_before)

    @property
    def stores_everything(self) -> bool:
        """Whether every sealed batch is expected to be on disk."""
        return self._spool is not None and self._persist == "all" and not self._spool.is_down

    @property
    def can_store(self) -> bool:
        """Whether batches may be stored if that is asked for, and the disk takes them."""
        return self._spool is not None and self._configured != "none" and not self._spool.is_down

    @property
    def has_backlog(self) -> bool:
        """Whether something waits on disk alone."""
        return self._spool is not None and self._spool.has_available

    def oldest_sealed(self) -> float:
        """Return when the oldest batch that is held was sealed, in seconds since the epoch; infinity when there is none."""
        oldest = self._buffer.oldest_sealed()
        return oldest if self._spool is None else min(oldest, self._spool.oldest_available())

    @property
    def stalled(self) -> str:
        """Why what waits on disk alone is not sent, though the endpoint would take it; empty when it is. Never waits for the disk."""
        if self._spool is None:
            return ""
        if self._has_no_room and self._spool.has_available:
            return "memory has no room for the next batch"
        return self._spool.stalled

    @property
    def spool_bytes(self) -> int:
        """What is taken on disk."""
        return 0 if self._spool is None else self._spool.used_bytes

    def close(self) -> None:
        """Store what is in memory only, as far as that is wanted, and let go of the files; no batch may be leased any more after that."""
        if self._spool is None:
            return
        self._tell_of_spills()
        # A sender that hangs does not give its batch back in time.
        self.save_unsaved(in_flight_too=True)
        self._spool.sync()
        self._balance()
        self._spool.close()

    def is_free(self, timeout: float) -> bool:
        """Whether nobody is busy with the disk, or in at most `timeout` seconds nobody is any more."""
        return self._spool is None or self._spool.is_free(timeout)

    def give_up(self) -> None:
        """Store nothing more: who waited for the disk cannot wait any longer. Does not wait."""
        if self._spool is not None:
            self._spool.give_up()

    def take_back(self, held: HeldBatch) -> None:
        """Have a batch that was stored and then not taken into memory, where it was given up meanwhile, not sent after all."""
        if self._spool is not None and held.record is not None:
            self._spool.ack(held.record)

    def after_fork_in_child(self) -> None:
        """Forget the parent's records."""
        self._persist = self._configured
        if self._spool is not None:
            self._spool.after_fork_in_child()

    def _is_unsaved(self, held: HeldBatch) -> bool:
        # What the disk has given up for want of room is not offered to it again.
        record = held.record
        return record is None or record.is_deleted or isinstance(record, Remainder)

    def _is_wanted(self, held: HeldBatch) -> bool:
        return self._persist == "all" or (self._persist == "critical" and held.batch.lane is Lane.CRITICAL)

    def _tell_of_spills(self) -> None:
        spilled = self._buffer.spilled
        while self._spool is not None and spilled:
            try:
                held = spilled.popleft()
            except IndexError:
                return  # Another thread of ours has just taken the last one.
            if held.record is not None and not self._spool.release(held.record, held):
                # Its record went between memory's look at it and now.
                # Memory has let go of its body already, so its size is not known any more.
                lost = {DropReason.SPOOL_FULL: held.batch.items}
                self._buffer.changed_on_disk(recovered=0, lost=lost, has_lost_ours=True)

    def _balance(self) -> None:
        """Enter into the books what happened on disk."""
        assert self._spool is not None
        changes = self._spool.changes()
        if changes.recovered or changes.lost:
            self._buffer.changed_on_disk(
                recovered=changes.recovered,
                lost=changes.lost,
                lost_bytes=changes.lost_bytes,
                has_lost_ours=changes.has_lost_ours,
            )
