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
    RECORD_HEADER_MAX,
    RECORD_MAGIC,
    SLOT_SIZE,
    TRAILER_SIZE,
    DamageError,
    Head,
    Mark,
    RecordHeader,
    read_record_header,
    read_slot,
    read_trailer,
)

# How much is searched at a time for the next good record after a damaged one.
_SEARCH_STEP: Final = 64 * 1024
_SEQUENCE: Final = struct.Struct("<Q")


@dataclass(slots=True)
class Scan:
    """What is in a segment."""

    records: list[tuple[int, RecordHeader]] = field(default_factory=list)
    """Offset and header of each good record at or above the floor, in order."""
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
    offset = head.records_at
    while offset < size:
        try:
            header = read_record_header(file.read_at(offset, RECORD_HEADER_MAX))
        except DamageError:
            following = _next_record(file, offset + 1, size)
            if following is None:
                _note_tail(file, found, offset, size)
                break
            found.damaged.append((offset, following))
            offset = following
            continue
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


def _note_tail(file: File, found: Scan, offset: int, size: int) -> None:
    """Judge the bytes after the last good record: damaged as far as they hold the ends of records, else torn."""
    data = file.read_at(offset, size - offset)
    begin = place = 0
    while (place := data.find(_SEQUENCE.pack(found.end), place)) >= 0:
        # The end of a record repeats with which sequence it began, and the one before it says which that must be.
        end = place + TRAILER_SIZE
        trailer = read_trailer(data[place:end])
        place += 1
        if trailer is not None and trailer.items:
            _note_damaged(found, trailer, (offset + begin, offset + end))
            begin = place = end
    trailer = read_trailer(data[-TRAILER_SIZE:])
    if trailer is not None and trailer.sequence > found.end:
        _note_damaged(found, trailer, (offset + begin, size))
    else:
        found.torn_bytes = len(data) - begin


def _note_damaged(found: Scan, trailer: Mark, place: tuple[int, int]) -> None:
    end = trailer.sequence + trailer.items
    found.damaged.append(place)
    found.gaps.append((found.end, end - found.end))
    found.end = end


def _next_record(file: File, offset: int, size: int) -> int | None:
    while offset < size:
        chunk = file.read_at(offset, _SEARCH_STEP + len(RECORD_MAGIC) - 1)
        place = chunk.find(RECORD_MAGIC)
        while place >= 0:
            try:
                read_record_header(file.read_at(offset + place, RECORD_HEADER_MAX))
            except DamageError:
                place = chunk.find(RECORD_MAGIC, place + 1)
            else:
                return offset + place
        offset += _SEARCH_STEP
    return None


def guess_head(file: File, signal: Signal, lane: Lane, number: int) -> Head:
    """
    Return a head for a segment whose own is damaged, from its name and its first record.

    Raises:
        DamageError: There is no record in it.
        OSError: The file cannot be read.
    """
    first = _next_record(file, HEAD_SIZE, file.size())
    if first is None:
        raise DamageError("neither head nor record")
    header = read_record_header(file.read_at(first, RECORD_HEADER_MAX))
    slots, rest = divmod(first - HEAD_SIZE, SLOT_SIZE)
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
    done: dict[int, int] = {}
    free: list[int] = []
    for slot in range(head.slots - 1, -1, -1):
        mark = read_slot(data[slot * SLOT_SIZE : (slot + 1) * SLOT_SIZE])
        # What is below the floor was said before the segment was emptied.
        if mark is None or mark.sequence < head.floor:
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
