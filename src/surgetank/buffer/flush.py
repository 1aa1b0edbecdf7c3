"""One caller's wait for everything that was offered before it asked.

Owns: whether the wait is over and how it ended.
Threads: the buffer's lock guards the changes; `wait` is called by the thread that asked.
Invariants: it ends once; it is a success only if every watched item was delivered or is safe on disk.
"""

from __future__ import annotations

import threading


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
        self._ended = threading.Event()

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self._ended.is_set()

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
        self._ended.set()

    def fail(self) -> None:
        """No attempt can come before the deadline, or everything was given up."""
        self._ended.set()
