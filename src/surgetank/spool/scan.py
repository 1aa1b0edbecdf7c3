"""What is in a segment's file: its records, its acks, and what must have been there and is not.

Owns: no state. Threads: any; it only reads.
Invariants: every record found was vouched for by its header's checksum; every item between two records is in a gap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from surgetank.model import Lane, Signal
from surgetank.spool.filesystem import File
from surgetank.spool.record import (
    FREE_SLOT,
    HEAD_SIZE,
    PAYLOAD_MAX,
    RECORD_HEADER_MAX,
    RECORD_MAGIC,
    SEQUENCE_MAX,
    SLOT_SIZE,
    SLOTS_MAX,
    SPAN_MAX,
    TRAILER_SIZE,
    DamageError,
    Head,
    Mark,
    RecordHeader,
    read_record_header,
    read_slot,
    read_trailer,
)

# How much is searched at a time for the next good record after a damaged one, or for the ends of those that were there.
_SEARCH_STEP: Final = 64 * 1024
# So many places of a segment are looked at closely that look like a record, or the end of one, and are none. In what we have
# written there is hardly ever one; of bytes that are made of them, the rest is no record, or a search would take minutes.
_DECOYS_MAX: Final = 16 * 1024
_SEQUENCE: Final = struct.Struct("<Q")
# A segment rolls before it is longer than this, unless it is by its only record.
_ROLLS_AT: Final = 4 * 1024 * 1024

SEGMENT_MAX: Final = HEAD_SIZE + SLOTS_MAX * SLOT_SIZE + _ROLLS_AT + RECORD_HEADER_MAX + PAYLOAD_MAX + TRAILER_SIZE
"""Bytes of the longest segment. What is beyond is not looked at: a sparse file costs nothing, and may be as long as you please."""


@dataclass(slots=True)
class Scan:
    """What is in a segment."""

    records: list[tuple[int, RecordHeader]] = field(default_factory=list)
    """Offset and header of each good record at or above the floor, in order; at most `SLOTS_MAX`."""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    """Sequence and items of what must have been there and is not."""
    end: int = 0
    """The sequence after the last item that is known of."""
    torn_bytes: int = 0
    """Bytes at the end that are no whole record: an append that was cut off."""
    damaged: list[tuple[int, int]] = field(default_factory=list)
    """Where stretches of bytes that are no record begin and end."""


def scan(file: File, head: Head) -> Scan:
    """
    Walk a segment's records, finding the way again after damage.

    Raises:
        VersionError: A record was written by a version that this code does not know.
        OSError: The file cannot be read.
    """
    found = Scan(end=head.floor)
    size = file.size()
    search = _Search(file, min(size, SEGMENT_MAX), head.end or head.floor + SPAN_MAX)
    offset = head.records_at
    steps = 0
    while offset < size:
        steps += 1
        try:
            header = search.header_at(offset)
        except DamageError:
            following = search.next_record(offset + 1)
            if following is None or steps > SLOTS_MAX:
                _note_tail(search, found, offset, size)
                break
            found.damaged.append((offset, following))
            offset = following
            continue
        if steps > SLOTS_MAX:
            # Each record needs a slot; what comes now cannot have been written by us.
            found.torn_bytes = size - offset
            break
        if header.sequence > found.end:
            found.gaps.append((found.end, header.sequence - found.end))
            found.end = header.sequence
        if offset + header.size > size:
            found.torn_bytes = size - offset
            break
        if header.sequence >= found.end:
            found.records.append((offset, header))
            found.end = header.sequence + header.items
        offset += header.size
    if head.end > found.end:
        found.gaps.append((found.end, head.end - found.end))
        found.end = head.end
    return found


def _note_tail(search: _Search, found: Scan, offset: int, size: int) -> None:
    """Judge the bytes after the last good record: damaged as far as they hold the ends of records, else torn."""
    begin = offset
    while len(found.damaged) <= SLOTS_MAX and (trailer := search.trailer(found.end, begin)) is not None:
        # The end of a record repeats with which sequence it began, and the one before it says which that must be.
        end, mark = trailer
        _note_damaged(found, mark, (begin, end))
        begin = end
    last = search.trailer_at(size - TRAILER_SIZE) if size - TRAILER_SIZE >= begin else None
    if last is not None and last.sequence > found.end:
        _note_damaged(found, last, (begin, size))
    else:
        found.torn_bytes = size - begin


def _note_damaged(found: Scan, trailer: Mark, place: tuple[int, int]) -> None:
    end = trailer.sequence + trailer.items
    found.damaged.append(place)
    found.gaps.append((found.end, end - found.end))
    found.end = end


class _Search:
    """
    The search for records, and for the ends of those that were there, of one segment; its patience is limited.

    Args:
        file: The segment.
        size: How far it is searched.
        limit: The sequence after the last item that the segment can have: what goes beyond is not believed.
    """

    def __init__(self, file: File, size: int, limit: int) -> None:
        self._file = file
        self._size = size
        self._limit = limit
        self._decoys = 0

    def header_at(self, offset: int) -> RecordHeader:
        """Return the header of the record at an offset. Raises DamageError, VersionError, OSError."""
        if offset >= self._size:
            raise DamageError("beyond the end")
        return self._believed(self._file.read_at(offset, RECORD_HEADER_MAX))

    def _believed(self, data: bytes) -> RecordHeader:
        header = read_record_header(data)
        if header.sequence + header.items > self._limit:
            raise DamageError("record header: a sequence that cannot be here")
        return header

    def next_record(self, offset: int) -> int | None:
        """Return where the next good record begins. Raises VersionError, OSError."""
        while offset < self._size:
            chunk = self._file.read_at(offset, min(_SEARCH_STEP + RECORD_HEADER_MAX, self._size - offset))
            place = chunk.find(RECORD_MAGIC)
            while 0 <= place < _SEARCH_STEP:
                try:
                    self._believed(chunk[place : place + RECORD_HEADER_MAX])
                except DamageError:
                    if self._is_weary():
                        return None
                    place = chunk.find(RECORD_MAGIC, place + 1)
                else:
                    return offset + place
            offset += _SEARCH_STEP
        return None

    def trailer(self, sequence: int, offset: int) -> tuple[int, Mark] | None:
        """Return the next end of a record that began with this sequence, and the offset after it. Raises OSError."""
        wanted = _SEQUENCE.pack(sequence)
        while offset < self._size:
            chunk = self._file.read_at(offset, min(_SEARCH_STEP + TRAILER_SIZE, self._size - offset))
            place = chunk.find(wanted)
            while 0 <= place < _SEARCH_STEP:
                end = place + TRAILER_SIZE
                mark = self._plausible(chunk[place:end])
                if mark is not None and mark.items:
                    return offset + end, mark
                if self._is_weary():
                    return None
                place = chunk.find(wanted, place + 1)
            offset += _SEARCH_STEP
        return None

    def trailer_at(self, offset: int) -> Mark | None:
        """Return the end of a record that is at an offset, if one is. Raises OSError."""
        return self._plausible(self._file.read_at(offset, TRAILER_SIZE))

    def _plausible(self, data: bytes) -> Mark | None:
        mark = read_trailer(data)
        return mark if mark is not None and mark.sequence + mark.items <= self._limit else None

    def _is_weary(self) -> bool:
        self._decoys += 1
        return self._decoys > _DECOYS_MAX


def guess_head(file: File, signal: Signal, lane: Lane, number: int) -> Head:
    """
    Return a head for a segment whose own is damaged, from its name and its first record.

    Raises:
        DamageError: There is no record in it.
        OSError: The file cannot be read.
    """
    search = _Search(file, min(file.size(), SEGMENT_MAX), SEQUENCE_MAX)
    first = search.next_record(HEAD_SIZE)
    if first is None:
        raise DamageError("neither head nor record")
    header = search.header_at(first)
    slots, rest = divmod(first - HEAD_SIZE, SLOT_SIZE)
    if slots > SLOTS_MAX:
        slots, rest = SLOTS_MAX, 1
    data = file.read_at(HEAD_SIZE, slots * SLOT_SIZE)
    places = [data[place : place + SLOT_SIZE] for place in range(0, len(data), SLOT_SIZE)]
    is_whole = rest == 0 and all(each == FREE_SLOT or read_slot(each) is not None for each in places)
    return Head(
        signal=signal,
        lane=lane,
        slots=slots,
        number=number,
        # With nothing but slots before it, this is the first record since the segment was made or emptied, and it is
        # not known which; else there was one before it, and who knows the segment before this one knows how much is missing.
        base=0 if is_whole else header.sequence,
        floor=header.sequence,
        created=header.created,
    )


def read_acks(file: File, head: Head) -> tuple[dict[int, int], list[int]]:
    """Return what is acknowledged, sequence to items, and the slots that are free, last one first."""
    data = file.read_at(HEAD_SIZE, head.slots * SLOT_SIZE)
    limit = head.end or head.floor + SPAN_MAX
    done: dict[int, int] = {}
    free: list[int] = []
    for slot in range(head.slots - 1, -1, -1):
        found = data[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE]
        # Nearly all of them are as they were made.
        mark = None if found == FREE_SLOT else read_slot(found)
        # What is below the floor was said before the segment was emptied; what is beyond the end, by nobody of ours.
        if mark is None or not mark.items or not head.floor <= mark.sequence <= limit - mark.items:
            free.append(slot)
        else:
            done[mark.sequence] = mark.items
    return done, free


def holes(sequence: int, items: int, done: Mapping[int, int]) -> Iterator[tuple[int, int]]:
    """Yield those parts of a gap that are not done."""
    end = sequence + items
    for start, count in sorted(done.items()):
        if sequence < start < end:
            yield sequence, start - sequence
        if start < end:
            sequence = max(sequence, start + count)
    if sequence < end:
        yield sequence, end - sequence
