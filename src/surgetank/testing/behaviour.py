"""How a collector answers: well, badly, slowly or not at all; as data that a test or a control request sets.

Owns: no state. Threads: any. Invariants: a behaviour is immutable and says everything about one answer.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One way to answer. The default is to take everything at once."""

    status: int = 200
    """What to answer; anything but 200 takes nothing."""
    retry_after: str | None = None
    """The `Retry-After` header."""
    location: str | None = None
    """The `Location` header, for redirects."""
    body: str = ""
    """The body of an answer that is not 200."""
    delay: float = 0.0
    """Seconds before answering."""
    hangs: bool = False
    """Never answer; the connection ends when the behaviour changes or the collector closes."""
    resets: bool = False
    """Read the request, then reset the connection."""
    rejects: int = 0
    """Take all but the first so many items, and say so (`partial_success`)."""
    max_raw_bytes: int | None = None
    """Answer 413 to a request that is larger than this when decompressed."""
    poison_key: str | None = None
    """Answer 400 to a request in which any item has an attribute of this name."""


OK = Behaviour()
HANG = Behaviour(hangs=True)
RESET = Behaviour(resets=True)


def status(code: int, *, retry_after: str | None = None, body: str = "") -> Behaviour:
    """Return the behaviour of a receiver that answers `code` to everything."""
    return Behaviour(status=code, retry_after=retry_after, body=body)


def slow(seconds: float) -> Behaviour:
    """Return the behaviour of a receiver that takes everything after a while."""
    return Behaviour(delay=seconds)


def partial(rejects: int) -> Behaviour:
    """Return the behaviour of a receiver that rejects the first items of each request."""
    return Behaviour(rejects=rejects)
