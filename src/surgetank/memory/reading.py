"""What a probe says, and the seam to the kernel's files that it says it from.

Owns: no state. Threads: any.
Invariants: nothing here raises; a file that is missing, forbidden or garbage is None. No file descriptor outlives its call.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

# No file of the kernel's that is read here is longer, the table of mounts of a machine with thousands of containers included.
_CONTENT_MAX = 4 * 1024 * 1024
# No figure of the kernel's is longer; `int` would refuse one of thousands of digits.
_DIGITS_MAX = 20


@dataclass(frozen=True, slots=True)
class Reading:
    """One look at the memory."""

    used: int
    """Bytes that cannot be taken back without being freed or swapped."""
    limit: int
    """Bytes at which the process is throttled, refused or killed."""
    source: str
    """Whose limit: `cgroup_v2`, `cgroup_v1`, `rlimit_as`, `configured`, `host` or `none`."""
    stalled: float | None = None
    """The share of the last ten seconds in which some task waited for memory; None where the kernel does not say."""

    @property
    def pressure(self) -> float:
        """The part of the limit that is used; above 1 where the kernel lets it be exceeded for a while."""
        return self.used / self.limit if self.limit > 0 else float(self.used > 0)


Probe = Callable[[], Reading | None]

NO_READING = Reading(0, 0, "none")


def contents(*path: str) -> bytes | None:
    """Return what is in a file of the kernel's, or None."""
    try:
        with open(os.path.join(*path), "rb") as file:
            return file.read(_CONTENT_MAX)
    except (OSError, ValueError):
        # `ValueError` is a path with a null byte in it: garbage in the mount table.
        return None


def number(text: bytes | None) -> int | None:
    """Return a figure of the kernel's; None for `max`, `unlimited`, garbage and None."""
    text = (text or b"").strip()
    return int(text) if text.isdigit() and len(text) <= _DIGITS_MAX else None


def table(text: bytes | None) -> dict[bytes, int]:
    """Return the lines `name figure` or `name: figure kB` by name, in the unit that they are in; other lines are left out."""
    found = {}
    for line in (text or b"").splitlines():
        words = line.split()
        figure = number(words[1]) if len(words) > 1 else None
        if figure is not None:
            found[words[0].rstrip(b":")] = figure
    return found
