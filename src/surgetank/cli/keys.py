"""Single keys from the terminal, without Enter and without an echo.

Owns: the terminal's input mode, for as long as it is entered. Threads: one.
Invariants: the mode is put back, whatever happens inside; without a terminal there are no keys, only time.
"""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

try:
    import termios
    import tty
except ImportError:  # pragma: no cover  # Windows, where Ctrl-C is the only key.
    termios = None  # type: ignore[assignment]


class Keys:
    """What is typed while `keys` is entered."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def pressed(self, key: str, seconds: float) -> bool:
        """Wait that long; return True at once when the key is pressed, whatever else is typed."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if self._descriptor is None:
                time.sleep(left)
            elif select.select([self._descriptor], [], [], left)[0]:
                typed = os.read(self._descriptor, 64)
                if key.encode() in typed.lower():
                    return True
                if not typed:
                    # The terminal has hung up.
                    return True
        return False


@contextmanager
def keys() -> Iterator[Keys]:
    """Have keys arrive one by one."""
    descriptor, mode = None, None
    try:
        if termios is not None and sys.stdin is not None and sys.stdin.isatty():
            descriptor = sys.stdin.fileno()
            mode = termios.tcgetattr(descriptor)
            tty.setcbreak(descriptor)
    except (OSError, ValueError, termios.error):
        descriptor = None  # A terminal that has no modes has no keys either.
    try:
        yield Keys(descriptor)
    finally:
        if descriptor is not None and mode is not None:
            termios.tcsetattr(descriptor, termios.TCSADRAIN, mode)
