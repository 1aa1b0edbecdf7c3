"""Every checksum of a spool verified: what is damaged, where, and what it costs.

Owns: no state. Threads: any.
Invariants: as `inspect.py`'s; beside a living owner only what is found twice is damage, for the first look may
have come in the middle of a write.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from surgetank.model import Lane, Signal
from surgetank.otlp.compression import decompress
from surgetank.spool.dead_letters import parse
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.folder import DEAD_LETTERS, SegmentName
from surgetank.spool.inspect import (
    Glimpse,
    Owner,
    Progress,
    UnbornError,
    glimpse,
    letters,
    no_progress,
    owners,
    read_letter,
    verify_payload,
)
from surgetank.spool.record import HEAD_SIZE, SLOT_SIZE, TRAILER_SIZE, DamageError, VersionError, read_trailer


class Kind(enum.Enum):
    """What was found."""

    HEAD = "head"
    """A segment's head is damaged; its name and its first record say the same."""
    NOTHING = "nothing"
    """A segment without head and without records."""
    ACKS = "acks"
    """Ack slots are damaged."""
    RECORD = "record"
    """Bytes that are no record, or records that should be there."""
    PAYLOAD = "payload"
    """A record whose payload is not what its header vouches for."""
    TRAILER = "trailer"
    """A record with another end than its own."""
    MISSING = "missing"
    """A segment is missing between two others."""
    VERSION = "version"
    """Written by a version that this one does not know."""
    UNREADABLE = "unreadable"
    """The operating system does not let us read it."""
    LETTER = "letter"
    """A damaged dead letter."""
    TORN = "torn"
    """The end of a segment whose owner was killed in the middle of a write: nothing had been promised."""


# What a crash leaves behind by rights.
_NOTES: Final = (Kind.TORN,)
# What a new segment with the good records mends.
REPAIRABLE: Final = (Kind.HEAD, Kind.ACKS, Kind.RECORD, Kind.PAYLOAD, Kind.TRAILER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    file: str
    """Below the spool's folder."""
    offset: int | None = None
    """In bytes; None for what is about the whole file."""
    items: int = 0
    """How many are lost by it."""
    text: str

    @property
    def is_damage(self) -> bool:
        """Whether it is more than what a crash leaves behind by rights."""
        return self.kind not in _NOTES

    @property
    def key(self) -> tuple[Kind, str, int | None]:
        """What two looks have in common that find the same."""
        return self.kind, self.file, self.offset

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "kind": self.kind.value,
            "file": self.file,
            "offset": self.offset,
            "items": self.items,
            "is_damage": self.is_damage,
            "text": self.text,
        }


@dataclass(slots=True)
class Report:
    """What a check has found."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    segments: int = 0
    records: int = 0
    bytes: int = 0
    letters: int = 0

    @property
    def damage(self) -> list[Finding]:
        """The findings that are damage."""
        return [finding for finding in self.findings if finding.is_damage]

    @property
    def lost_items(self) -> int:
        """Items that the damage has cost."""
        return sum(finding.items for finding in self.findings)

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "segments": self.segments,
            "records": self.records,
            "bytes": self.bytes,
            "dead_letters": self.letters,
            "damaged": len(self.damage),
            "lost_items": self.lost_items,
            "findings": [finding.as_data() for finding in self.findings],
        }


def check(filesystem: Filesystem, path: str, progress: Progress = no_progress) -> Report:
    """
    Verify a whole spool.

    Raises:
        OSError: The folder cannot be read.
    """
    report = Report(path)
    all_owners = owners(filesystem, path)
    all_letters = letters(filesystem, path)
    total = sum(len(owner.segments) for owner in all_owners) + len(all_letters)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(min(done, total), total)

    for owner in all_owners:
        report.findings += _check_twice(filesystem, owner, report, step)
    for letter in all_letters:
        report.findings += _check_letter(filesystem, letter)
        report.letters += 1
        step()
    return report


def _check_twice(filesystem: Filesystem, owner: Owner, report: Report, step: Any) -> list[Finding]:
    found = list(check_owner(filesystem, owner, report, step))
    if owner.state != "living" or not found:
        return found
    again = {each.key for each in check_owner(filesystem, owner, Report(""), lambda: None)}
    return [each for each in found if each.key in again and each.is_damage]


def check_owner(filesystem: Filesystem, owner: Owner, report: Report, step: Any = lambda: None) -> Iterator[Finding]:
    """Verify one owner's segments; counts them in the report, and yields what is wrong."""
    if owner.state == "unreadable":
        yield Finding(kind=Kind.UNREADABLE, file=owner.name, text="the folder cannot be read; run this as its owner")
    expected: dict[tuple[Signal, Lane], tuple[int, int] | None] = {}
    headless: set[tuple[Signal, Lane]] = set()
    for name in owner.segments:
        stream = (name.signal, name.lane)
        place = os.path.join(owner.name, str(name))
        try:
            file = filesystem.open(owner.place_of(name), writable=False)
        except FileNotFoundError:
            expected[stream] = None  # It was done and removed since the folder was listed.
            continue
        except OSError as error:
            expected[stream] = None
            yield _unreadable(place, error)
            continue
        try:
            seen = glimpse(file, name)
            if stream not in headless:
                yield from _missing(expected.get(stream), name, seen, place)
            headless.discard(stream)
            expected[stream] = (name.number + 1, seen.found.end)
            report.segments += 1
            report.records += len(seen.found.records)
            report.bytes += seen.size
            yield from check_segment(file, seen, place)
        except UnbornError as error:
            headless.add(stream)
            yield Finding(kind=Kind.TORN, file=place, offset=0, text=str(error))
        except DamageError:
            # As an heir sees it: most likely everything in it was done.
            headless.add(stream)
            text = "neither a head nor a record; whether there were any items is not known"
            yield Finding(kind=Kind.NOTHING, file=place, offset=0, text=text)
        except VersionError as error:
            expected[stream] = None
            yield Finding(kind=Kind.VERSION, file=place, text=f"{error}: read it with the version that wrote it")
        except OSError as error:
            expected[stream] = None
            yield _unreadable(place, error)
        finally:
            file.close()
            step()


def _unreadable(place: str, error: OSError) -> Finding:
    return Finding(kind=Kind.UNREADABLE, file=place, text=f"cannot be read: {error.strerror or type(error).__name__}")


def _missing(expected: tuple[int, int] | None, name: SegmentName, seen: Glimpse, place: str) -> Iterator[Finding]:
    # Segments go in the order of their numbers, so one that is missing between two others was not done.
    if expected is not None and name.number >= expected[0] and seen.head.base > expected[1]:
        items = seen.head.base - expected[1]
        yield Finding(kind=Kind.MISSING, file=place, items=items, text="a segment before this one is missing")


def check_segment(file: File, seen: Glimpse, place: str) -> Iterator[Finding]:
    """Yield what is wrong in one segment. Raises OSError."""
    if seen.is_head_guessed:
        text = "the head is damaged; the name and the first record say the same"
        yield Finding(kind=Kind.HEAD, file=place, offset=0, text=text)
    if seen.damaged_slots:
        count = len(seen.damaged_slots)
        offset = HEAD_SIZE + seen.damaged_slots[0] * SLOT_SIZE
        text = f"{count} ack slot{'s' * (count > 1)} damaged; as many batches may be sent again"
        yield Finding(kind=Kind.ACKS, file=place, offset=offset, text=text)
    yield from _check_gaps(seen, place)
    for offset, header in seen.found.records:
        try:
            verify_payload(file, offset, header)
        except DamageError as error:
            items = 0 if header.sequence in seen.done else header.items
            text = f"{str(error).removeprefix('payload: ')} (batch {header.batch_id})"
            yield Finding(kind=Kind.PAYLOAD, file=place, offset=offset, items=items, text=text)
            continue
        end = offset + header.size
        trailer = read_trailer(file.read_at(end - TRAILER_SIZE, TRAILER_SIZE))
        if trailer is None or trailer.sequence != header.sequence:
            text = "the end of the record is damaged, which costs nothing"
            yield Finding(kind=Kind.TRAILER, file=place, offset=end - TRAILER_SIZE, text=text)


def _check_gaps(seen: Glimpse, place: str) -> Iterator[Finding]:
    found = seen.found
    torn_at = seen.size - found.torn_bytes
    starts = {header.sequence: offset for offset, header in found.records}
    costs: dict[int, int] = {}
    for sequence, items in found.gaps:
        # What is acknowledged is gone by rights, and what was counted as lost has been told already.
        lost = items - sum(n for start, n in seen.done.items() if sequence <= start < sequence + items)
        if lost > 0:
            # The bytes that should hold them end where the next good record begins.
            before = starts.get(sequence + items, torn_at if found.torn_bytes else seen.size)
            offset = max((start for start, end in found.damaged if end <= before), default=before)
            costs[offset] = costs.get(offset, 0) + lost
    for start, end in found.damaged:
        text = f"{end - start:,} bytes are no record"
        yield Finding(kind=Kind.RECORD, file=place, offset=start, items=costs.pop(start, 0), text=text)
    if found.torn_bytes and torn_at not in costs:
        text = f"the last write was cut off ({found.torn_bytes:,} bytes); nothing had been promised"
        yield Finding(kind=Kind.TORN, file=place, offset=torn_at, text=text)
    for offset, items in costs.items():
        yield Finding(kind=Kind.RECORD, file=place, offset=offset, items=items, text="records are missing here")


def _check_letter(filesystem: Filesystem, path: str) -> Iterator[Finding]:
    place = os.path.join(DEAD_LETTERS, os.path.basename(path))
    try:
        said, batch = parse(read_letter(filesystem, path))
        if not said.get("key_id"):
            decompress(batch.body, batch.encoding, batch.raw_size)
    except FileNotFoundError:
        return  # It has given way to a newer one.
    except OSError as error:
        yield _unreadable(place, error)
    except (ValueError, TypeError, AttributeError) as error:
        yield Finding(kind=Kind.LETTER, file=place, text=f"cannot be read: {error}")
