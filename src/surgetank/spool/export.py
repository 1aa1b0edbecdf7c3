"""A spool's batches as lines of OTLP JSON, the oldest segment first, as a file exporter would have written them.

Owns: the counts of one export. Threads: one.
Invariants: as `inspect.py`'s; a line is one whole `Export*ServiceRequest`; what cannot be exported is counted and named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from surgetank.errors import SpoolKeyError
from surgetank.model import Batch, Signal
from surgetank.otlp import json as otlp_json
from surgetank.otlp.compression import decompress
from surgetank.spool.dead_letters import parse
from surgetank.spool.encryption import Cipher
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.folder import SegmentName
from surgetank.spool.inspect import (
    Owner,
    Progress,
    UnbornError,
    glimpse,
    letters,
    look_into,
    no_progress,
    owners,
    read_letter,
    read_payload,
)
from surgetank.spool.record import DamageError, RecordHeader, VersionError


@dataclass(slots=True)
class Export:
    """
    One export.

    Args:
        filesystem: The way to the disk.
        path: The spool's folder.
        cipher: Decrypts; None where there is no key.
        signal: Only batches of this signal; None for all.
        has_done: Whether batches that are done, and still there, are exported too.
        progress: Told after each segment, or letter.
    """

    filesystem: Filesystem
    path: str
    cipher: Cipher | None = None
    signal: Signal | None = None
    has_done: bool = False
    progress: Progress = no_progress
    batches: int = 0
    items: int = 0
    locked: dict[str, int] = field(default_factory=dict)
    """Items that were skipped for want of a key, by the key's identifier."""
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """Items of the dead letters that were exported, by the status and the reason that the receiver gave."""
    troubles: list[str] = field(default_factory=list)
    """What else was skipped, and why."""

    @property
    def is_complete(self) -> bool:
        """Whether nothing was skipped."""
        return not self.locked and not self.troubles

    def as_data(self) -> dict[str, Any]:
        """Return the counts as JSON has them."""
        return {
            "path": self.path,
            "batches": self.batches,
            "items": self.items,
            "refused": [
                {"status": status, "reason": reason, "items": items} for (status, reason), items in self.refused.items()
            ],
            "skipped_for_want_of_key": self.locked,
            "troubles": self.troubles,
        }

    def lines(self) -> Iterator[str]:
        """
        Yield a line for each batch, without its line feed.

        Raises:
            OSError: The spool's folder cannot be read.
        """
        found = self._by_age()
        for number, (_, owner, name) in enumerate(found, 1):
            yield from self._segment(owner, name)
            self.progress(number, len(found))

    def letter_lines(self) -> Iterator[str]:
        """Yield a line for each dead letter, the oldest first."""
        found = letters(self.filesystem, self.path)
        for number, path in enumerate(found, 1):
            try:
                said, batch = parse(read_letter(self.filesystem, path))
            except FileNotFoundError:
                continue  # It has given way to a newer one.
            except (OSError, ValueError, TypeError, AttributeError) as error:
                self.troubles.append(f"{os.path.relpath(path, self.path)} cannot be read: {error}")
                continue
            if self.signal in (None, batch.signal):
                refusal = (said.get("status") or "", said.get("reason") or "")
                for line in self._line(batch, said["key_id"], batch.body, os.path.basename(path), said["version"]):
                    self.refused[refusal] = self.refused.get(refusal, 0) + batch.items
                    yield line
            self.progress(number, len(found))

    def _by_age(self) -> list[tuple[float, Owner, SegmentName]]:
        found: list[tuple[float, Owner, SegmentName]] = []
        for owner in owners(self.filesystem, self.path):
            if owner.state == "unreadable":
                self.troubles.append(f"{owner.name} cannot be read; run this as its owner")
            for name in owner.segments:
                if self.signal not in (None, name.signal):
                    continue
                try:
                    seen = look_into(self.filesystem, owner, name)
                except UnbornError:
                    continue
                except (DamageError, VersionError, OSError) as error:
                    self.troubles.append(f"{owner.name}/{name} cannot be read: {error}")
                    continue
                if seen is not None:
                    found.append((seen.head.created, owner, name))
        return sorted(found, key=lambda each: (each[0], each[1].name, str(each[2])))

    def _segment(self, owner: Owner, name: SegmentName) -> Iterator[str]:
        place = f"{owner.name}/{name}"
        try:
            file = self.filesystem.open(owner.place_of(name), writable=False)
        except FileNotFoundError:
            return  # It is done.
        except OSError as error:
            self.troubles.append(f"{place} cannot be read: {error}")
            return
        try:
            seen = glimpse(file, name)
            if seen.found.damaged:
                self.troubles.append(f"{place} is damaged; `surgetank spool check` says where")
            for offset, header in seen.found.records if self.has_done else seen.pending():
                yield from self._record(file, name, offset, header, place)
        except (DamageError, VersionError, OSError) as error:
            self.troubles.append(f"{place} cannot be read: {error}")
        finally:
            file.close()

    def _record(self, file: File, name: SegmentName, offset: int, header: RecordHeader, place: str) -> Iterator[str]:
        try:
            payload = read_payload(file, offset, header)
        except DamageError as error:
            if _is_still_there(file, name, header):
                self.troubles.append(f"{place} at byte {offset}: {error}; {header.items} items are lost")
            return
        place = f"{place} at byte {offset}"
        yield from self._line(header.batch(b""), header.key_id, payload, place, header.version)

    def _line(self, batch: Batch, key_id: str, payload: bytes, place: str, version: int) -> Iterator[str]:
        try:
            body = payload if not key_id else self._decrypted(batch, key_id, payload, version)
        except SpoolKeyError:
            self.locked[key_id] = self.locked.get(key_id, 0) + batch.items
            return
        except DamageError as error:
            self.troubles.append(f"{place}: {error}")
            return
        try:
            line = otlp_json.line(decompress(body, batch.encoding, batch.raw_size), batch.signal)
        except ValueError as error:
            self.troubles.append(f"{place} holds no OTLP request: {error}")
            return
        self.batches += 1
        self.items += batch.items
        yield line

    def _decrypted(self, batch: Batch, key_id: str, payload: bytes, version: int) -> bytes:
        if self.cipher is None:
            raise SpoolKeyError(f"is encrypted with key {key_id!r}, and no key is given")
        return self.cipher.decrypt(batch, key_id, payload, version)


def _is_still_there(file: File, name: SegmentName, header: RecordHeader) -> bool:
    """Whether a record that cannot be read is damaged, and has not been done and overwritten in the meantime."""
    try:
        seen = glimpse(file, name)
    except DamageError:
        return True
    return any(each.sequence == header.sequence for _, each in seen.found.records)
