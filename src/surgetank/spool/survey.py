"""What is in a spool, counted: owners, segments, batches and items, dead letters.

Owns: no state. Threads: any.
Invariants: as `inspect.py`'s; a batch counts as waiting until its ack is on disk, so one that is in flight does, too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

from surgetank.model import Lane, Signal
from surgetank.spool.filesystem import Filesystem
from surgetank.spool.folder import SegmentName
from surgetank.spool.inspect import Owner, Progress, UnbornError, backups, letters, look_into, no_progress, owners
from surgetank.spool.record import DamageError, VersionError, is_plausible


@dataclass(slots=True)
class Pile:
    """What one owner has of one signal in one lane."""

    signal: Signal
    lane: Lane
    segments: int = 0
    bytes: int = 0
    records: int = 0
    """Batches in the files, those that are done and still there included."""
    pending_records: int = 0
    pending_items: int = 0
    encrypted_records: int = 0
    """Of the pending ones."""
    unreadable_segments: int = 0
    """Of another version, without head and records, or refused by the operating system."""
    oldest: float | None = None
    """When the oldest pending batch was sealed, in seconds since the epoch."""

    def as_data(self, now: float) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "signal": self.signal.value,
            "lane": self.lane.value,
            "segments": self.segments,
            "bytes": self.bytes,
            "records": self.records,
            "pending_records": self.pending_records,
            "pending_items": self.pending_items,
            "encrypted_records": self.encrypted_records,
            "unreadable_segments": self.unreadable_segments,
            "oldest_seconds": age(self.oldest, now),
        }


@dataclass(slots=True)
class Holdings:
    """What one owner has."""

    owner: Owner
    piles: list[Pile] = field(default_factory=list)

    def as_data(self, now: float) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "name": self.owner.name,
            "state": self.owner.state,
            "piles": [pile.as_data(now) for pile in self.piles],
        }


@dataclass(slots=True)
class Survey:
    """What is in one spool."""

    path: str
    now: float
    holdings: list[Holdings] = field(default_factory=list)
    letters: int = 0
    letter_bytes: int = 0
    oldest_letter: float | None = None
    backups: list[str] = field(default_factory=list)

    def total(self, attribute: str, *, state: str | None = None, signal: Signal | None = None) -> int:
        """Return the sum of a pile's field, over all owners or those of one state, all signals or one."""
        return sum(
            getattr(pile, attribute)
            for holding in self.holdings
            if state in (None, holding.owner.state)
            for pile in holding.piles
            if signal in (None, pile.signal)
        )

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "path": self.path,
            "owners": [holding.as_data(self.now) for holding in self.holdings],
            "dead_letters": {
                "count": self.letters,
                "bytes": self.letter_bytes,
                "oldest_seconds": age(self.oldest_letter, self.now),
            },
            "backups": self.backups,
            "totals": {
                name: self.total(name)
                for name in ("segments", "bytes", "records", "pending_records", "pending_items", "unreadable_segments")
            },
        }


def age(moment: float | None, now: float) -> float | None:
    """Return the seconds since a moment; a clock that was set back makes nothing younger than now."""
    return None if moment is None else round(max(0.0, now - moment), 3)


def survey(filesystem: Filesystem, path: str, now: float, progress: Progress = no_progress) -> Survey:
    """
    Count what is in a spool.

    Args:
        filesystem: The way to the disk.
        path: The spool's folder.
        now: Seconds since the epoch.
        progress: Told after each segment.

    Raises:
        OSError: The folder cannot be read.
    """
    found = Survey(path, now)
    all_owners = owners(filesystem, path)
    total = sum(len(owner.segments) for owner in all_owners)
    done = 0
    for owner in all_owners:
        piles: dict[tuple[Signal, Lane], Pile] = {}
        for name in owner.segments:
            pile = piles.setdefault((name.signal, name.lane), Pile(name.signal, name.lane))
            _count(filesystem, owner, name, pile)
            done += 1
            progress(done, total)
        found.holdings.append(Holdings(owner, list(piles.values())))
    _count_letters(filesystem, found)
    found.backups = backups(filesystem, path)
    return found


def _count(filesystem: Filesystem, owner: Owner, name: SegmentName, pile: Pile) -> None:
    try:
        seen = look_into(filesystem, owner, name)
        if seen is None:
            return
        pile.bytes += seen.size
    except (DamageError, VersionError, OSError) as error:
        pile.segments += 1
        pile.unreadable_segments += not isinstance(error, UnbornError)
        try:
            pile.bytes += filesystem.size_of(owner.place_of(name))
        except OSError:
            pass  # It is gone, or may not even be looked at.
        return
    pile.segments += 1
    pile.records += len(seen.found.records)
    for _, header in seen.pending():
        pile.pending_records += 1
        pile.pending_items += header.items
        pile.encrypted_records += bool(header.key_id)
        # As the process itself tells it: a segment whose clock was put right is dated anew, its records are not.
        sealed = header.created if is_plausible(header.created, seen.head.created) else seen.head.created
        pile.oldest = sealed if pile.oldest is None else min(pile.oldest, sealed)


def _count_letters(filesystem: Filesystem, found: Survey) -> None:
    for path in letters(filesystem, found.path):
        try:
            found.letter_bytes += filesystem.size_of(path)
        except OSError:
            continue  # It has given way to a newer one.
        found.letters += 1
        if found.oldest_letter is None:
            found.oldest_letter = _moment_of(path)


def _moment_of(path: str) -> float | None:
    """Return when a letter was buried, which its name begins with."""
    text = os.path.basename(path).partition("-")[0]
    return int(text) / 1000 if text.isdigit() else None
