"""The waits of callers for everything that was offered before they asked.

Owns: whether the wait is over and how it ended.
Threads: the buffer's lock guards the changes; `wait` is called by the thread that asked.
Invariants: it ends once; it is a success only if every watched item was delivered or is safe on disk.
"""

from __future__ import annotations

from surgetank.threads import Gate


class Flush:
    """
    A watch over the items with offer numbers up to `mark`.

    Args:
        mark: The highest offer number that is watched.
        deadline: Monotonic seconds after which nobody waits any more.
        is_content_with_safety: Whether a failed attempt ends it when everything is safe on disk.
    """

    def __init__(self, *, mark: int, deadline: float, is_content_with_safety: bool = False) -> None:
        self.mark = mark
        self.deadline = deadline
        self.is_content_with_safety = is_content_with_safety
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

    def finish_below(self, oldest: float) -> None:
        """Everything with a lower offer number than `oldest` has left."""
        for flush in self._flushes:
            if oldest > flush.mark:
                flush.finish()

    def give_up(self, not_before: float, oldest_unsafe: float) -> None:
        """No attempt comes before that moment; what has a lower offer number than `oldest_unsafe` is safe on disk."""
        for flush in self._flushes:
            if flush.deadline <= not_before or (flush.is_content_with_safety and oldest_unsafe > flush.mark):
                flush.fail()

    def fail(self, *, has_lost: bool) -> None:
        """Everything was given up."""
        for flush in self._flushes:
            flush.has_lost = flush.has_lost or has_lost
            flush.fail()
