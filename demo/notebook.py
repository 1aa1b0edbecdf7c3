"""What the application has begun to make, noted where a `kill -9` cannot reach: in a file that is mapped into memory.

Owns: the mapped file. Threads: the one that makes items; anybody may read.
Invariants: noted before it is made, so the note is never less than what can have arrived.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import Final

# Requests, and the sum of all additions to the counter.
_NOTE: Final = struct.Struct("<qq")


class Notebook:
    """
    The note that one application keeps.

    Status lines come four times a second; what is made between the last of them and a kill would otherwise be
    anybody's guess, and a guess cannot be balanced.
    """

    def __init__(self, path: Path) -> None:
        path.write_bytes(_NOTE.pack(0, 0))
        with path.open("r+b") as file:
            self._pages = mmap.mmap(file.fileno(), _NOTE.size)

    def note(self, requests: int, counter_total: int) -> None:
        """Write down what there will be when the request that begins now is over."""
        _NOTE.pack_into(self._pages, 0, requests, counter_total)


def read_note(path: Path) -> tuple[int, int]:
    """Return the requests and the counter's total that were noted last."""
    requests, counter_total = _NOTE.unpack(path.read_bytes())
    return requests, counter_total
