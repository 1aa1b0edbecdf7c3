"""The waits of callers for everything that was offered before they asked.

Owns: whether the wait is over and how it ended.
Threads: the buffer's lock guards the changes; `wait` is called by the thread that asked.
Invariants: it ends once; it is a success only if every watched item was delivered or is safe on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from surgetank.model import Lane
from surgetank.threads import Gate

Until = Literal["delivered", "safe"]


class Flush:
    """
    A watch over the items with offer numbers up to `mark`.

    Args:
        mark: The highest offer number that is watched.
        deadline: Monotonic seconds after which nobody waits any more.
        is_content_with_safety: Whether a failed attempt ends it when everything is safe on disk.
        until: `delivered`, or `safe`: then it ends as soon as everything is delivered or safe on disk.
        is_for_all: Whether what other processes have left on disk counts, too.
    """

    def __init__(
        self,
        *,
        mark: int,
        deadline: float,
        is_content_with_safety: bool = False,
        until: Until = "delivered",
        is_for_all: bool = False,
    ) -> None:
        self.mark = mark
        self.deadline = deadline
        self.is_content_with_safety = is_content_with_safety
        self.until = until
        self.is_for_all = is_for_all
        self.ends: Mapping[Lane, int] = {}
        """Where the watched items that are on disk alone end there."""
        self.is_safe = False
        """Whether, in the end, what was not delivered was safe on disk."""
        self.has_lost = False
        """Whether a watched item was dropped or rejected."""
        self._is_delivered = False
        self._ended = Gate()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self._ended.is_open

    @property
    def has_succeeded(self) -> bool:
        """Whether every watched item was delivered, or is safe on disk at the configured durability."""
        return (self._is_delivered or self.is_safe) and not self.has_lost

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds of real time; return whether it succeeded."""
        self._ended.wait(max(0.0, timeout))
        return self.has_succeeded

    def be_safe(self) -> None:
        """Every watched item has left, or is safe on disk, and that is what was asked for."""
        self.is_safe = True
        self._ended.open()

    def finish(self) -> None:
        """Every watched item has left."""
        self._is_delivered = True
        self._ended.open()

    def fail(self) -> None:
        """No attempt can come before the deadline, or everything was given up."""
        self._ended.open()


class Flushes:
    """The flushes that somebody waits for."""

    def __init__(self) -> None:
        self._flushes: list[Flush] = []

    def __bool__(self) -> bool:
        return bool(self._flushes)

    def add(self, flush: Flush) -> None:
        """Watch for it."""
        self._flushes.append(flush)

    def remove(self, flush: Flush) -> None:
        """Watch for it no more."""
        if flush in self._flushes:
            self._flushes.remove(flush)

    @property
    def mark(self) -> int:
        """The highest offer number that somebody waits for; 0 when nobody does."""
        return max((flush.mark for flush in self._flushes), default=0)

    def lose(self, seq: int) -> None:
        """An item with that offer number was dropped or rejected."""
        for flush in self._flushes:
            if seq <= flush.mark:
                flush.has_lost = True

    def __iter__(self) -> Iterator[Flush]:
        return iter(self._flushes)

    @property
    def are_for_safety(self) -> bool:
        """Whether somebody waits for everything to be safe on disk."""
        return any(flush.until == "safe" and not flush.is_over for flush in self._flushes)

    def went_to_disk(self, first_seq: int, ends: Mapping[Lane, int]) -> None:
        """Watch, on disk, what memory has let go of; it was stored before those ends."""
        for flush in self._flushes:
            if first_seq <= flush.mark:
                flush.ends = ends

    def give_up(self, not_before: float, oldest_unsafe: float) -> None:
        """No attempt comes before that moment; what has a lower offer number than `oldest_unsafe` is safe on disk."""
        for flush in self._flushes:
            # Being stored does not wait for an attempt.
            is_hopeless = flush.deadline <= not_before and flush.until == "delivered"
            if is_hopeless or (flush.is_content_with_safety and oldest_unsafe > flush.mark):
                flush.fail()

    def fail(self, *, has_lost: bool) -> None:
        """Everything was given up."""
        for flush in self._flushes:
            flush.has_lost = flush.has_lost or has_lost
            flush.fail()
