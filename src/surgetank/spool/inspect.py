"""Looking into a spool without changing anything in it, beside owners that are at work.

Owns: no state. Threads: any.
Invariants: nothing is written, renamed, removed or kept locked; what goes away while it is looked at counts as
gone, not as damage; memory is bounded by one segment, however large the spool.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from surgetank.config import Environment
from surgetank.spool.dead_letters import LETTER_MAX, LETTER_SUFFIX
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.folder import DEAD_LETTERS, LOCK_NAME, ORPHAN_PREFIX, OWNER_PREFIX, SegmentName
from surgetank.spool.record import (
    HEAD_SIZE,
    SLOT_SIZE,
    DamageError,
    Head,
    RecordHeader,
    VersionError,
    check_payload,
    read_head,
    read_slot,
)
from surgetank.spool.scan import Scan, guess_head, read_acks, scan
from surgetank.spool.settings import private_folder, state_folder

BACKUP_PREFIX: Final = "backup-"

Progress = Callable[[int, int], None]
"""Told after each step how many steps are done, and of how many."""

# An owner may change a segment's head while we read what is behind it; then we look again, so often at most.
_LOOKS: Final = 5
# How much is read at a time of what is only verified.
_PIECE: Final = 256 * 1024
# A slot that was never written.
_BLANK_SLOT: Final = b"\xff" * SLOT_SIZE


def no_progress(done: int, total: int) -> None:
    """Tell nobody."""


class UnbornError(DamageError):
    """A segment's maker died before the segment had a head: there never was anything in it."""


@dataclass(frozen=True, slots=True)
class Owner:
    """One process's folder in a spool."""

    name: str
    path: str
    state: Literal["living", "dead", "unreadable"]
    segments: list[SegmentName] = field(default_factory=list)
    """In order: signal, lane, number."""

    def place_of(self, name: SegmentName) -> str:
        """Return the path of a segment."""
        return os.path.join(self.path, str(name))


@dataclass(slots=True)
class Glimpse:
    """What is in one segment at one moment."""

    head: Head
    size: int
    """The file's length."""
    is_head_guessed: bool = False
    """Whether the file's own head is damaged."""
    done: dict[int, int] = field(default_factory=dict)
    """What is acknowledged: sequence to items."""
    damaged_slots: list[int] = field(default_factory=list)
    """Slots that hold neither an ack nor nothing."""
    found: Scan = field(default_factory=Scan)

    def pending(self) -> Iterator[tuple[int, RecordHeader]]:
        """Yield offset and header of each record that is not done."""
        return (each for each in self.found.records if each[1].sequence not in self.done)


def spool_folders(filesystem: Filesystem, environment: Environment, given: str | None) -> list[str]:
    """Return the spools that a command is about: the one that was given, or that the environment names, or all default ones."""
    chosen = given or environment.text("SURGETANK_SPOOL_DIR")
    if chosen is not None:
        path = os.path.abspath(os.path.expanduser(chosen))
        return [path if is_spool(filesystem, path) else private_folder(path)]
    above = state_folder(environment)
    try:
        names = filesystem.names(above)
    except OSError:
        return []
    return [path for name in sorted(names) if is_spool(filesystem, path := os.path.join(above, name))]


def is_spool(filesystem: Filesystem, path: str) -> bool:
    """Whether a folder has in it what a spool has."""
    try:
        names = filesystem.names(path)
    except OSError:
        return False
    prefixes = (OWNER_PREFIX, ORPHAN_PREFIX, BACKUP_PREFIX)
    return any(name == DEAD_LETTERS or name.startswith(prefixes) for name in names)


def owners(filesystem: Filesystem, path: str) -> list[Owner]:
    """
    Return the folders of all processes, living ones and dead ones.

    Raises:
        OSError: The spool's folder cannot be read.
    """
    names = sorted(name for name in filesystem.names(path) if name.startswith((OWNER_PREFIX, ORPHAN_PREFIX)))
    return [owner for name in names if (owner := _owner(filesystem, path, name)) is not None]


def _owner(filesystem: Filesystem, spool: str, name: str) -> Owner | None:
    path = os.path.join(spool, name)
    try:
        state: Literal["living", "dead"] = "living" if _is_locked(filesystem, path) else "dead"
        parsed = [SegmentName.parse(each) for each in filesystem.names(path)]
    except (FileNotFoundError, NotADirectoryError):
        # Its owner has ended, or an heir has given it the other name since the folder was listed.
        if name.startswith(OWNER_PREFIX):
            return _owner(filesystem, spool, ORPHAN_PREFIX + name.removeprefix(OWNER_PREFIX))
        return None
    except OSError:
        return Owner(name, path, "unreadable")
    segments = sorted(
        (each for each in parsed if each), key=lambda each: (each.signal.value, each.lane.value, each.number)
    )
    return Owner(name, path, state, segments)


def _is_locked(filesystem: Filesystem, path: str) -> bool:
    try:
        lock = filesystem.open(os.path.join(path, LOCK_NAME), writable=False)
    except FileNotFoundError:
        return False
    try:
        return lock.is_locked()
    finally:
        lock.close()


def glimpse(file: File, name: SegmentName) -> Glimpse:
    """
    Look into an open segment.

    Raises:
        UnbornError: It is shorter than a head.
        DamageError: There is neither a head nor a record in it.
        VersionError: Some of it was written by a version that this code does not know.
        OSError: It cannot be read.
    """
    for _ in range(_LOOKS - 1):
        before = file.read_at(0, HEAD_SIZE)
        try:
            found = _look(file, name)
        except (DamageError, VersionError):
            if file.read_at(0, HEAD_SIZE) == before:
                raise
            continue
        if file.read_at(0, HEAD_SIZE) == before:
            return found
    return _look(file, name)


def _look(file: File, name: SegmentName) -> Glimpse:
    is_guessed = False
    try:
        head = read_head(file.read_at(0, HEAD_SIZE))
    except DamageError:
        if file.size() < HEAD_SIZE:
            raise UnbornError("its maker died before it had a head; nothing is lost") from None
        head = guess_head(file, name.signal, name.lane, name.number)
        is_guessed = True
    found = scan(file, head)
    done, _ = read_acks(file, head)
    end = max((sequence + items for sequence, items in done.items()), default=0)
    if not head.is_sealed and end > found.end:
        # As an heir does: without power, an ack may have come through and its record not.
        found.gaps.append((found.end, end - found.end))
        found.end = end
    return Glimpse(
        head=head,
        size=file.size(),
        is_head_guessed=is_guessed,
        done=done,
        damaged_slots=_damaged_slots(file, head),
        found=found,
    )


def _damaged_slots(file: File, head: Head) -> list[int]:
    data = file.read_at(HEAD_SIZE, head.slots * SLOT_SIZE)
    slots = (data[start : start + SLOT_SIZE] for start in range(0, len(data) - SLOT_SIZE + 1, SLOT_SIZE))
    return [number for number, slot in enumerate(slots) if slot != _BLANK_SLOT and read_slot(slot) is None]


def look_into(filesystem: Filesystem, owner: Owner, name: SegmentName) -> Glimpse | None:
    """Open a segment and look into it; None when it is gone. Raises as `glimpse`."""
    try:
        file = filesystem.open(owner.place_of(name), writable=False)
    except FileNotFoundError:
        return None
    try:
        return glimpse(file, name)
    finally:
        file.close()


def read_payload(file: File, offset: int, header: RecordHeader) -> bytes:
    """
    Return the payload of a record.

    Raises:
        DamageError: It is not what its header vouches for.
        OSError: It cannot be read.
    """
    payload = file.read_at(offset + header.header_size, header.payload_size)
    check_payload(header, (payload,))
    return payload


def verify_payload(file: File, offset: int, header: RecordHeader) -> None:
    """Raise as `read_payload`, without holding more than a piece of it."""
    begin, end = offset + header.header_size, offset + header.header_size + header.payload_size
    places = range(begin, end, _PIECE)
    check_payload(header, (file.read_at(place, min(_PIECE, end - place)) for place in places))


def letters(filesystem: Filesystem, path: str) -> list[str]:
    """Return the paths of the dead letters, the oldest first."""
    folder = os.path.join(path, DEAD_LETTERS)
    try:
        names = filesystem.names(folder)
    except OSError:
        return []  # There are none, which is the usual thing.
    return [os.path.join(folder, name) for name in sorted(names) if name.endswith(LETTER_SUFFIX)]


def read_letter(filesystem: Filesystem, path: str) -> bytes:
    """
    Return a dead letter's content.

    Raises:
        ValueError: It is longer than any letter.
        OSError: It cannot be read.
    """
    file = filesystem.open(path, writable=False)
    try:
        size = file.size()
        if size > LETTER_MAX:
            raise ValueError(f"it is longer than any letter ({size:,} bytes)")
        return file.read_at(0, size)
    finally:
        file.close()


def backups(filesystem: Filesystem, path: str) -> list[str]:
    """Return the names of the backups that `repair` has made. Raises OSError."""
    return sorted(name for name in filesystem.names(path) if name.startswith(BACKUP_PREFIX))
