"""The collector's memory beyond its own death: accepted requests, appended before they are answered.

Owns: the open file. Threads: the collector's lock guards it.
Invariants: an accepted request is whole in the file before its 200 is sent; a torn tail is ignored.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from surgetank.model import Signal

# Signal, items to skip, length of the body that follows.
_HEAD: Final = struct.Struct("<BII")
_SIGNALS: Final = list(Signal)
REQUEST_MAX: Final = 256 * 1024 * 1024
"""Bytes of a request; no longer one is taken."""


class Journal:
    """An append-only file of requests."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Unbuffered: the kernel has it when `write` returns, and a kill -9 costs nothing.
        self._file = path.open("ab", buffering=0)

    def append(self, signal: Signal, body: bytes, skip: int) -> None:
        """Add one request."""
        self._file.write(_HEAD.pack(_SIGNALS.index(signal), skip, len(body)) + body)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def replay(path: Path) -> Iterator[tuple[Signal, bytes, int]]:
    """Yield the requests of a journal: signal, body, items to skip."""
    if not path.exists():
        return
    with path.open("rb") as file:
        # One request at a time: a journal may be longer than memory.
        rest = os.fstat(file.fileno()).st_size
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            signal, skip, length = _HEAD.unpack(head)
            rest -= _HEAD.size + length
            if rest < 0 or length > REQUEST_MAX or signal >= len(_SIGNALS):
                return
            yield _SIGNALS[signal], file.read(length), skip
