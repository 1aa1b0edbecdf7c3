"""The dead letters: batches that the receiver refused for good, kept for inspection, the oldest giving way.

Owns: the folder `dead-letters`, as far as this process writes to it.
Threads: the delivery threads; the folder's lock guards it.
Invariants: the letters of all processes together take at most the configured bytes, but for the one just written.

A letter is one line of JSON (what it is, who refused it and why), a line feed, and the batch's body as it was
sent, or encrypted where the spool is. Nothing sends it again; `surgetank spool export --dead-letters` shows it.
"""

from __future__ import annotations

import json
import os
from typing import Any, Final

from surgetank.model import Batch, Lane, Signal, Verdict
from surgetank.spool.encryption import Cipher
from surgetank.spool.folder import DEAD_LETTERS, Folder

LETTER_SUFFIX: Final = ".letter"
# Letters are small, and each costs a name: so many are kept however few bytes they take.
LETTERS_MAX: Final = 1000


class DeadLetters:
    """One process's way into the dead letters."""

    def __init__(self, folder: Folder, cipher: Cipher | None) -> None:
        self._folder = folder
        self._cipher = cipher
        self._path = os.path.join(folder.path, DEAD_LETTERS)

    def bury(self, batch: Batch, refusal: Verdict) -> None:
        """Keep a batch with the reason of its refusal; if that cannot be done, it is only counted."""
        folder = self._folder
        limit = folder.settings.dead_letter_bytes
        with folder.entered():
            if limit <= 0 or len(batch.body) > limit or not folder.may_write():
                return
            payload, key_id = (batch.body, "") if self._cipher is None else self._cipher.encrypt(batch)
            now = folder.clock.now()
            data = json.dumps(describe(batch, refusal, key_id=key_id, buried=now)).encode() + b"\n" + payload
            # The time first, so that the oldest sort first.
            name = f"{int(now * 1000):015d}-{os.getpid()}-{batch.id}{LETTER_SUFFIX}"
            try:
                folder.filesystem.make_folder(folder.path)
                folder.filesystem.make_folder(self._path)
                file = folder.filesystem.create(os.path.join(self._path, name))
                try:
                    file.write_at(0, data)
                finally:
                    file.close()
                self._prune(limit)
            except OSError as error:
                folder.failed(error)

    def _prune(self, limit: int) -> None:
        filesystem = self._folder.filesystem
        names = sorted(name for name in filesystem.names(self._path) if name.endswith(LETTER_SUFFIX))
        sizes = {}
        for name in names:
            try:
                sizes[name] = filesystem.size_of(os.path.join(self._path, name))
            except FileNotFoundError:
                pass  # A sibling was quicker.
        total = sum(sizes.values())
        while len(sizes) > 1 and (total > limit or len(sizes) > LETTERS_MAX):
            oldest = next(iter(sizes))
            total -= sizes.pop(oldest)
            try:
                filesystem.unlink(os.path.join(self._path, oldest))
            except FileNotFoundError:
                pass


def describe(batch: Batch, refusal: Verdict, *, key_id: str, buried: float) -> dict[str, Any]:
    """Return a letter's first line as data."""
    return {
        "version": 1,
        "batch_id": batch.id,
        "signal": batch.signal.value,
        "lane": batch.lane.value,
        "items": batch.items,
        "encoding": batch.encoding,
        "raw_size": batch.raw_size,
        "created": batch.created,
        "buried": buried,
        "status": refusal.cause,
        "reason": refusal.message,
        "key_id": key_id,
    }


def parse(data: bytes) -> tuple[dict[str, Any], Batch]:
    """
    Return a letter's description and the batch, whose body is still encrypted where there is a `key_id`.

    Raises:
        ValueError: The bytes are no letter.
    """
    line, feed, payload = data.partition(b"\n")
    said: dict[str, Any] = json.loads(line)
    if not feed or said.get("version") != 1:
        raise ValueError("this is no dead letter of version 1")
    try:
        batch = Batch(
            id=said["batch_id"],
            signal=Signal(said["signal"]),
            lane=Lane(said["lane"]),
            items=said["items"],
            body=payload,
            raw_size=said["raw_size"],
            encoding=said["encoding"],
            created=said["created"],
        )
    except KeyError as error:
        raise ValueError(f"the letter says nothing of {error}") from None
    return said, batch
