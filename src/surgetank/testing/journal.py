"""The collector's memory beyond its own death: accepted requests, appended before they are answered.

Owns: the open file. Threads: the collector's lock guards it.
Invariants: an accepted request is whole in the file before its 200 is sent; a torn tail is ignored.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from surgetank.model import Signal

# Signal, items to skip, length of the body that follows.
_HEAD: Final = struct.Struct("<BII")
_SIGNALS: Final = list(Signal)


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
    data = path.read_bytes() if path.exists() else b""
    at = 0
    while at + _HEAD.size <= len(data):
        signal, skip, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):
            return
        yield _SIGNALS[signal], data[at : at + length], skip
        at += length
