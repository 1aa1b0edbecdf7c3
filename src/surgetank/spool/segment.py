"""One file of records: made, appended to, acknowledged, emptied, read back, and scanned after a crash.

Owns: the file, and what is known of each record in it.
Threads: none of its own; the folder's lock guards it, over its I/O too.
Invariants: a record is appended whole or not at all; an ack is written once and only for a record that is
done; everything below the head's floor is done; `size` is the file's length as far as it counts.

Two things are written in place: the head (when the segment is emptied or sealed), and the ack slots, whose room
is taken when the segment is made, so that a full disk can still take acks.
"""

from __future__ import annotations

import errno
from bisect import bisect_left
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Final

from surgetank.model import Batch, HeldBatch, Lane, Signal
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.record import (
    FREE_SLOT,
    HEAD_SIZE,
    RECORD_HEADER_MAX,
    SLOT_SIZE,
    DamageError,
    Head,
    RecordHeader,
    check_payload,
    is_plausible,
    read_head,
    read_record_header,
    write_head,
    write_record,
    write_slot,
)
from surgetank.spool.scan import SEGMENT_MAX, Scan, guess_head, holes, read_acks, scan

# Records that a segment takes; 8 KiB of ack slots.
SLOTS: Final = 512


@dataclass(slots=True, eq=False)
class Record:
    """A batch on disk, as this process knows it."""

    segment: Segment
    offset: int
    size: int
    sequence: int
    items: int
    is_held: bool = False
    """Whether the batch is in memory as well, where it is leased and settled."""
    is_leased: bool = False
    """Whether it is in flight, read from here."""
    is_done: bool = False
    """Whether it is acknowledged, or given up."""
    is_durable: bool = True
    """Whether it survives what the configured durability says."""
    is_deleted: bool = False
    """Whether it is done only because somebody has deleted its folder: what is in memory can be stored anew."""
    created: float = 0.0
    """When its batch was sealed, in seconds since the epoch."""
    held: HeldBatch | None = None
    """What is remembered of earlier attempts, with an empty body."""

    @property
    def is_available(self) -> bool:
        """Whether it waits on disk alone."""
        return not (self.is_held or self.is_leased or self.is_done)


class Segment:
    """
    One segment file; made by `create` and `adopt`.

    Args:
        path: Where it is; changes when its folder is renamed.
        file: Open while it is appended to or read.
        head: As it stands in the file.
        size: The file's length in bytes.
    """

    def __init__(self, filesystem: Filesystem, path: str, file: File, head: Head, size: int) -> None:
        self._filesystem = filesystem
        self.path = path
        self.head = head
        self.size = size
        self.end = head.end or head.floor
        """The sequence after the last item."""
        self.pending_items = 0
        """Items that are neither acknowledged nor given up."""
        self.pinned_items = 0
        """Items of records that are in memory or in flight; while there are any, the list of records is kept."""
        self.is_locked = False
        """Whether its records are passed over for now."""
        self.locked_because = ""
        """Why it is, or was: another version's, no key, the disk."""
        self.is_doubtful = False
        """Whether a sync has failed: another one would succeed without having written anything."""
        self.records: list[Record] | None = []
        """All that are not done; None when they are to be read from the file."""
        self.appended = 0
        """Records since it was made or emptied."""
        self.born_at: float | None = None
        """When it was made or emptied, in monotonic seconds; None for an adopted one."""
        self.adopted_at = 0.0
        """When it was adopted, in monotonic seconds …"""
        self.age_then = 0.0
        """… and how old it was, in seconds, as far as that could be told."""
        self._file: File | None = file
        self._free_slots: list[int] | None = None
        """Where acks can be written, the last one first; None when that is to be read from the file."""
        self._unsynced: list[Record] = []
        self._has_unwritten = False
        """Whether an ack could not be written: what is in the file is not all that is known."""
        self._is_ragged = False
        """Whether the file is longer than `size`, by the beginning of a record that could not be written."""

    @classmethod
    def create(cls, filesystem: Filesystem, path: str, head: Head) -> Segment:
        """
        Make an empty segment, with the room for its acks taken.

        Raises:
            OSError: It cannot be made; nothing is left behind, if that could be helped.
        """
        file = filesystem.create(path)
        try:
            file.write_at(0, write_head(head) + FREE_SLOT * head.slots)
        except OSError:
            file.close()
            try:
                filesystem.unlink(path)
            except OSError:
                pass
            raise
        segment = cls(filesystem, path, file, head, head.records_at)
        segment._free_slots = list(range(head.slots - 1, -1, -1))
        return segment

    @classmethod
    def adopt(cls, filesystem: Filesystem, path: str, signal: Signal, lane: Lane, number: int) -> tuple[Segment, int]:
        """
        Open a dead owner's segment, sealing it if its owner did not come to that.

        Reads the head and the acks only, unless the owner died while appending. Returns the segment, and the items
        that damage has cost, which are part of `pending_items` no more and acknowledged in the file.

        Raises:
            VersionError: It was written by a version that this code does not know; nothing was changed.
            DamageError: There is nothing in it.
            OSError: It cannot be read.
        """
        file = filesystem.open(path)
        try:
            try:
                head = read_head(file.read_at(0, HEAD_SIZE))
            except DamageError:
                head = guess_head(file, signal, lane, number)
            segment = cls(filesystem, path, file, head, min(file.size(), SEGMENT_MAX))
            lost = segment._take_stock()
        except BaseException:
            file.close()
            raise
        segment.unload()
        return segment, lost

    def _take_stock(self) -> int:
        done, self._free_slots = read_acks(self._opened(), self.head)
        lost = 0
        if not self.head.is_sealed:
            found = scan(self._opened(), self.head)
            # Without power, an ack may have come through and its record not.
            end = max((sequence + items for sequence, items in done.items()), default=0)
            if end > found.end:
                found.gaps.append((found.end, end - found.end))
                found.end = end
            self.end = found.end
            self.pending_items = self._waiting_of(done)
            self.records = None
            self._list(found, done)
            lost = self._bury_gaps(found.gaps, done)
            try:
                self.seal()
            except OSError:
                pass  # It can be read, and that is what matters; another heir will have to scan it again.
        else:
            self.pending_items = self._waiting_of(done)
        return lost

    def _waiting_of(self, done: dict[int, int]) -> int:
        # Not by a subtraction: acks that overlap, which nobody of ours writes, must not come to less than nothing.
        return sum(items for _, items in holes(self.head.floor, self.end - self.head.floor, done))

    @property
    def available_items(self) -> int:
        """Items that wait on disk alone."""
        return self.pending_items - self.pinned_items

    @property
    def available_bytes(self) -> int:
        """About how many bytes those take: the file's, in proportion, since what each takes is not remembered."""
        items = max(1, self.end - self.head.base)
        return max(0, self.size - self.head.records_at) * self.available_items // items

    def age(self, monotonic: float) -> float:
        """
        Return the seconds since it was made or emptied, at so many monotonic seconds.

        Only at its adoption by the system's clock: putting that right must not make anything old.
        """
        if self.born_at is not None:
            return monotonic - self.born_at
        return self.age_then + monotonic - self.adopted_at

    def oldest_available(self) -> float | None:
        """
        Return when the oldest batch was sealed that waits on disk alone, in seconds since the epoch; None when none does.

        Where the list of records is not at hand, when the segment was begun. A look without the lock.
        """
        if self.available_items <= 0:
            return None
        began = self.head.created
        found = (record.created for record in list(self.records or ()) if record.is_available)
        oldest = next(found, began)
        return oldest if is_plausible(oldest, began) else began

    @property
    def is_ours(self) -> bool:
        """Whether this process has made it, and not adopted it."""
        return self.born_at is not None

    def oldest_sequence(self) -> int:
        """Return the sequence of the first record that is not done, or, where the list is not at hand, of the first. A look without the lock."""
        records = self.records
        return self.head.floor if records is None else next((each.sequence for each in list(records)), self.end)

    @property
    def is_full(self) -> bool:
        """Whether there is no slot for another record's ack."""
        return self.appended >= self.head.slots

    @property
    def is_empty(self) -> bool:
        """Whether everything in it is done."""
        return self.pending_items <= 0

    def append(self, batch: Batch, payload: bytes, key_id: str, *, is_durable: bool, is_held: bool = False) -> Record:
        """
        Add a record; whatever raises, it is there in every respect or not at all.

        Raises:
            OSError: It could not be written; the next one takes its place.
        """
        assert self.records is not None
        data = write_record(batch, self.end, payload, key_id=key_id)
        record = Record(
            self,
            self.size,
            len(data),
            self.end,
            batch.items,
            is_held=is_held,
            is_durable=is_durable,
            created=batch.created,
        )
        file = self._opened()
        if self._is_ragged:
            self._cut(file)
        self._is_ragged = True
        try:
            file.write_at(self.size, data)
        except OSError:
            # What is left of it would only be searched after a crash.
            try:
                self._cut(file)
            except OSError:
                pass  # The next append will try again, before anything is written over it.
            raise
        if not is_durable:
            self._unsynced.append(record)
        self.records.append(record)
        # From here on nothing is called.
        self._is_ragged = False
        self.size += record.size
        self.end += record.items
        self.pending_items += record.items
        if is_held:
            self.pinned_items += record.items
        self.appended += 1
        return record

    def read(self, record: Record) -> tuple[RecordHeader, bytes]:
        """
        Return a record's header and payload.

        Raises:
            DamageError: The bytes are not what they were.
            VersionError: The record is of a version that this code does not know.
            OSError: The file cannot be read.
        """
        file = self._opened()
        header = read_record_header(file.read_at(record.offset, min(record.size, RECORD_HEADER_MAX)))
        if header.size != record.size:
            raise DamageError("it is another record than it was")
        payload = file.read_at(record.offset + header.header_size, header.payload_size)
        check_payload(header, (payload,))
        return header, payload

    def ack(self, record: Record) -> None:
        """
        Note that a record is done.

        Raises:
            OSError: It could not be written down: after a crash the record is sent again.
        """
        if record.is_done:
            return
        if record.is_held or record.is_leased:
            self.pinned_items -= record.items
        record.is_done = True
        record.is_held = record.is_leased = False
        self.pending_items -= record.items
        if self.records is not None and not self.is_empty:
            place = bisect_left(self.records, record.sequence, key=_sequence)
            if place < len(self.records) and self.records[place] is record:
                del self.records[place]
        # Nothing need be written for the last one: the caller empties or removes the segment.
        if not self.is_empty:
            self._write_ack(record.sequence, record.items)

    def pin(self, record: Record) -> None:
        """Note that a record that waited on disk alone is in flight."""
        record.is_leased = True
        self.pinned_items += record.items

    def unpin(self, record: Record) -> None:
        """Note that a record that was in memory or in flight waits on disk alone again."""
        if record.is_held or record.is_leased:
            record.is_held = record.is_leased = False
            self.pinned_items -= record.items

    def _bury_gaps(self, gaps: list[tuple[int, int]], done: dict[int, int]) -> int:
        """Acknowledge what is missing, so that it is counted once; returns the items, without those that were done."""
        assert self.records is not None
        lost = 0
        for gap in gaps:
            for sequence, missing in holes(*gap, done):
                lost += missing
                self.pending_items -= missing
                try:
                    self._write_ack(sequence, missing)
                except OSError:
                    pass  # Another heir will count it again.
        # An ack for a part of a record, which nobody of ours writes, has that record be done, and what it does not say is lost.
        waiting = sum(record.items for record in self.records)
        lost += max(0, self.pending_items - waiting)
        self.pending_items = waiting
        return lost

    def empty(self, created: float) -> None:
        """
        Cut the segment back to its beginning, everything in it being done: what the kernel has not yet written it need never write.

        Raises:
            OSError: It is as it was, but for acks that may be repeated after a crash.
        """
        # First the head: from then on, what is still in the file is below the floor.
        head = replace(self.head, floor=self.end, created=created)
        file = self._opened()
        file.write_at(0, write_head(head))
        self.head = head
        try:
            file.truncate(head.records_at)
        except OSError:
            pass  # It is done all the same, and only takes the room for longer.
        else:
            self.size = head.records_at
            self._is_ragged = False
        self.appended = 0
        self.records = []
        self._unsynced = []
        self._has_unwritten = False
        self._free_slots = list(range(head.slots - 1, -1, -1))

    def seal(self) -> None:
        """
        Say in the head that nothing more will come.

        Raises:
            OSError: It stays open in the file, which only makes a later adoption slower.
        """
        if self.head.is_sealed:
            return
        head = replace(self.head, end=self.end, records=self.appended)
        self._opened().write_at(0, write_head(head))
        self.head = head

    def sync(self) -> None:
        """
        Have everything that was appended survive the loss of power.

        Raises:
            OSError: Nothing is known of what was appended since the last sync: `unsynced` must be written elsewhere.
        """
        if self._unsynced:
            if self.is_doubtful:
                raise OSError(errno.EIO, "an earlier sync has failed")
            try:
                self._opened().sync()
            except OSError:
                self.is_doubtful = True
                raise
            for record in self._unsynced:
                record.is_durable = True
            self._unsynced = []

    @property
    def unsynced(self) -> list[Record]:
        """The records that were appended since the last sync and are not done."""
        return [record for record in self._unsynced if not record.is_done]

    def hand_over(self, record: Record) -> None:
        """Forget a record that lives on in another segment; `note_done` is to follow, when that one knows it."""
        if self.records is not None and record in self.records:
            self.records.remove(record)
        if record in self._unsynced:
            self._unsynced.remove(record)
        self.pending_items -= record.items

    def note_done(self, sequence: int, items: int) -> None:
        """
        Write down that items are done that this segment knows no more of.

        Raises:
            OSError: They are sent again after a crash.
        """
        if not self.is_empty:
            self._write_ack(sequence, items)

    def date(self, created: float) -> None:
        """
        Write down when it was made or emptied, by a clock that has been put right since.

        Raises:
            OSError: Whoever adopts it may take it for older, or younger, than it is.
        """
        head = replace(self.head, created=created)
        self._opened().write_at(0, write_head(head))
        self.head = head

    def extend_back(self, base: int) -> None:
        """
        Have the sequence of this segment begin earlier, for items of a missing one that have been counted as lost.

        Raises:
            OSError: They may be counted again after another crash.
        """
        head = replace(self.head, base=base)
        self._opened().write_at(0, write_head(head))
        self.head = head

    def adopt_record(self, copy: Record, record: Record) -> None:
        """Let a record that was moved here stand for its copy."""
        assert self.records is not None
        self.records[self.records.index(copy)] = record
        if copy in self._unsynced:
            self._unsynced[self._unsynced.index(copy)] = record

    def load(self) -> tuple[int, int]:
        """
        Read which records there are, if that is not known.

        Returns the items that turn out to be missing, and those that wait again because their acks have been damaged since.

        Raises:
            VersionError, OSError: As `scan`.
        """
        if self.records is not None:
            return 0, 0
        file = self._opened()
        done, self._free_slots = read_acks(file, self.head)
        found = scan(file, self.head)
        self._list(found, done)
        before = self.pending_items
        lost = self._bury_gaps(found.gaps, done)
        return lost, max(0, self.pending_items + lost - before)

    def _list(self, found: Scan, done: dict[int, int]) -> None:
        # Each ends at the latest of all ends so far: acks that overlap, which nobody of ours writes, count as one.
        marks = list(
            accumulate(sorted(done.items()), lambda last, mark: (mark[0], max(sum(last), sum(mark)) - mark[0]))
        )

        def is_done(header: RecordHeader) -> bool:
            # A mark may be for several records that were missing once, and can be read again.
            place = bisect_left(marks, header.sequence + header.items, key=_first)
            return place > 0 and header.sequence < sum(marks[place - 1])

        self.records = [
            Record(self, offset, header.size, header.sequence, header.items, created=header.created)
            for offset, header in found.records
            if not is_done(header)
        ]

    def unload(self) -> None:
        """Forget the list of records and close the file, when nothing of it is in memory or in flight."""
        if self.pinned_items or not self.head.is_sealed or self._unsynced:
            return
        if self._has_unwritten:
            self.close()
            return  # Read anew, what is done would wait again.
        if self.records and any(record.held is not None for record in self.records):
            return  # How often they were tried must not be forgotten, or poison would never be found.
        # A backlog may have thousands of segments, and each is to cost next to nothing.
        self.records = None
        self._free_slots = None
        self.close()

    def remove(self) -> None:
        """Delete the file. Raises OSError."""
        self.close()
        try:
            self._filesystem.unlink(self.path)
        except FileNotFoundError:
            pass  # Somebody was quicker; it is gone, which is what was wanted.

    def is_deleted(self) -> bool:
        """Whether somebody has deleted the file, which what is still appended to it would be lost with."""
        try:
            if self._file is None or self._file.is_lost():
                self._filesystem.size_of(self.path)
                return False
            return not self._file.is_at(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the file; it is opened again when needed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def forget(self) -> None:
        """Close the descriptor in a forked child."""
        if self._file is not None:
            self._file.forget()

    def _opened(self) -> File:
        if self._file is not None and self._file.is_lost():
            # The application has closed our descriptor; the file is where it was.
            self._file = None
        if self._file is None:
            self._file = self._filesystem.open(self.path)
        return self._file

    def _cut(self, file: File) -> None:
        file.truncate(self.size)
        self._is_ragged = False

    def _write_ack(self, sequence: int, items: int) -> None:
        was_unwritten = self._has_unwritten
        self._has_unwritten = True
        if self._free_slots is None:
            self._free_slots = read_acks(self._opened(), self.head)[1]
        if not self._free_slots:
            return
        slot = self._free_slots.pop()
        self._opened().write_at(HEAD_SIZE + slot * SLOT_SIZE, write_slot(sequence, items))
        self._has_unwritten = was_unwritten


def _sequence(record: Record) -> int:
    return record.sequence


def _first(mark: tuple[int, int]) -> int:
    return mark[0]
