"""The dead letters: batches that the receiver refused for good, kept for inspection, the oldest giving way.

Owns: the folder `dead-letters`, as far as this process writes to it.
Threads: the delivery threads; the folder's lock guards it.
Invariants: the letters of all processes together take at most the configured bytes, but for what is written in the
same instant; that a letter cannot be kept troubles nothing else that is stored.

A letter is one line of JSON (what it is, who refused it and why), a line feed, and the batch's body as it was
sent, or encrypted where the spool is. Nothing sends it again; `surgetank spool export --dead-letters` shows it.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any, Final

from surgetank.model import Batch, Lane, Signal, Verdict
from surgetank.spool.encryption import Cipher
from surgetank.spool.folder import DEAD_LETTERS, Folder
from surgetank.spool.record import BOUND, PAYLOAD_MAX, PLAIN

LETTER_SUFFIX: Final = ".letter"
# Letters are small, and each costs a name: so many are kept however few bytes they take.
LETTERS_MAX: Final = 1000
# What a letter says of its batch is never longer (bytes).
_LINE_MAX: Final = 64 * 1024
# Of what the receiver said, so much is kept (characters).
_REASON_MAX: Final = 4096
# What a name may not have in it, and how much of a batch's identifier it has at most.
_UNFIT: Final = re.compile(r"[^0-9A-Za-z._-]")
_NAME_MAX: Final = 128
LETTER_MAX: Final = _LINE_MAX + PAYLOAD_MAX
"""Bytes of the longest letter."""
# Whole numbers beyond are no count of anything.
_NUMBER_MAX: Final = 2**32
_KINDS: Final[Mapping[tuple[str, ...], type | tuple[type, ...]]] = {
    ("batch_id", "signal", "lane", "encoding", "status", "reason", "key_id"): str,
    ("items", "raw_size", "stored"): int,
    ("created", "buried"): (int, float),
}


class DeadLetters:
    """One process's way into the dead letters."""

    def __init__(self, folder: Folder, cipher: Cipher | None) -> None:
        self._folder = folder
        self._cipher = cipher
        self._path = os.path.join(folder.path, DEAD_LETTERS)
        self._has_failed = False

    def bury(self, batch: Batch, refusal: Verdict) -> None:
        """Keep a batch with the reason of its refusal; if that cannot be done, it is only counted."""
        folder = self._folder
        limit = folder.settings.dead_letter_bytes
        with folder.saying, folder.lock:
            if limit <= 0 or len(batch.body) > limit or not folder.may_write():
                return
            payload, key_id = (batch.body, "") if self._cipher is None else self._cipher.encrypt(batch)
            now = folder.clock.now()
            said = describe(batch, refusal, key_id=key_id, buried=now, stored=len(payload))
            data = json.dumps(said).encode() + b"\n" + payload
            if len(data) > limit:
                return
            # The time first, so that the oldest sort first.
            name = f"{int(now * 1000):015d}-{os.getpid()}-{_in_a_name(batch.id)}{LETTER_SUFFIX}"
            try:
                folder.make_private(folder.path)
                folder.make_private(self._path)
                self._make_room(limit - len(data))
                self._write(os.path.join(self._path, name), data)
            except FileExistsError:
                pass  # It is buried already.
            except OSError as error:
                self._fail(error)
            else:
                self._has_failed = False

    def _fail(self, error: OSError) -> None:
        # Not `folder.failed`: the folder of the letters says nothing of the disk that telemetry is stored on.
        if not self._has_failed:
            self._has_failed = True
            reason = error.strerror or type(error).__name__
            self._folder.say(logging.WARNING, f"dead letters cannot be kept at {self._path} ({reason})")

    def _write(self, path: str, data: bytes) -> None:
        filesystem = self._folder.filesystem
        file = filesystem.create(path)
        try:
            file.write_at(0, data)
        except OSError:
            file.close()
            filesystem.unlink(path)
            raise
        file.close()

    def _make_room(self, limit: int) -> None:
        """Remove the oldest letters until they take no more than so many bytes, and another one may be added. Raises OSError."""
        filesystem = self._folder.filesystem
        names = sorted(name for name in filesystem.names(self._path) if name.endswith(LETTER_SUFFIX))
        sizes = {}
        for name in names:
            try:
                sizes[name] = filesystem.size_of(os.path.join(self._path, name))
            except FileNotFoundError:
                pass  # A sibling was quicker.
        total = sum(sizes.values())
        while sizes and (total > limit or len(sizes) >= LETTERS_MAX):
            oldest = next(iter(sizes))
            total -= sizes.pop(oldest)
            try:
                filesystem.unlink(os.path.join(self._path, oldest))
            except FileNotFoundError:
                pass


def _in_a_name(identifier: str) -> str:
    return _UNFIT.sub("_", identifier)[:_NAME_MAX]


def describe(batch: Batch, refusal: Verdict, *, key_id: str, buried: float, stored: int) -> dict[str, Any]:
    """Return a letter's first line as data."""
    return {
        "version": BOUND if key_id else PLAIN,
        "batch_id": batch.id,
        "signal": batch.signal.value,
        "lane": batch.lane.value,
        "items": batch.items,
        "encoding": batch.encoding,
        "raw_size": batch.raw_size,
        "created": batch.created,
        "buried": buried,
        "status": refusal.cause[:_REASON_MAX],
        "reason": refusal.message[:_REASON_MAX],
        "key_id": key_id,
        "stored": stored,
    }


def parse(data: bytes) -> tuple[dict[str, Any], Batch]:
    """
    Return a letter's description and the batch, whose body is still encrypted where there is a `key_id`.

    Raises:
        ValueError: The bytes are no letter.
    """
    end = data.find(b"\n", 0, _LINE_MAX)
    if end < 0:
        raise ValueError("this is no dead letter")
    payload = data[end + 1 :]
    try:
        said = json.loads(data[:end])
    except RecursionError:
        raise ValueError("the letter's first line nests too deep") from None
    if not isinstance(said, dict) or said.get("version") not in (PLAIN, BOUND):
        raise ValueError(f"this is no dead letter of version {PLAIN} or {BOUND}")
    for names, kinds in _KINDS.items():
        for name in names:
            if not isinstance(said.get(name), kinds):
                raise ValueError(f"the letter does not say what {name} is")  # noqa: TRY004  # The bytes are wrong, not the caller.
            if kinds is not str and not 0 <= said[name] <= _NUMBER_MAX:
                raise ValueError(f"the letter says of {name} what cannot be")
    if said["stored"] != len(payload):
        raise ValueError(f"the letter holds {len(payload)} of {said['stored']} bytes")
    batch = Batch(
        # JSON can spell halves of characters, which nothing can encode.
        id=said["batch_id"].encode("utf-8", "replace").decode(),
        signal=Signal(said["signal"]),
        lane=Lane(said["lane"]),
        items=said["items"],
        body=payload,
        raw_size=said["raw_size"],
        encoding=said["encoding"],
        created=said["created"],
    )
    return said, batch
