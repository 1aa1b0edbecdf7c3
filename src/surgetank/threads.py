"""The operating system's threads and locks, whatever has been put in place of Python's.

gevent puts greenlets in place of threads: there a thread of ours would share the application's only thread, stop it while
it waits on its bell, and stand still while the application computes. A server that patches after it has loaded the
application even mixes the two. What is made here is real in either case.

Owns: no state. Threads: any.
Invariants: nothing made here runs in, or waits for, gevent's hub; nor does it give a thread of ours a hub of its own, with
which the interpreter's end would crash.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any, Final, Protocol

_MONKEY: Final = "gevent.monkey"


def native(module: str, name: str) -> Any:
    """
    Return what a module of the standard library had under a name before gevent patched it; None if it had nothing.

    Asked once, when a module is imported, or each time: the answer is the same.
    """
    monkey = sys.modules.get(_MONKEY)
    try:
        return getattr(import_module(module), name) if monkey is None else monkey.get_original(module, name)
    except AttributeError:
        return None


new_lock: Final[Callable[[], threading.Lock]] = native("_thread", "allocate_lock")
new_rlock: Final[Callable[[], Any]] = native("_thread", "RLock")
new_local: Final[Callable[[], Any]] = native("_thread", "_local")
get_ident: Final[Callable[[], int]] = native("_thread", "get_ident")
sleep: Final[Callable[[float], None]] = native("time", "sleep")
_start_new_thread: Final[Callable[..., int]] = native("_thread", "start_new_thread")


def are_greenlets() -> bool:
    """Whether what `threading` calls threads are greenlets, which all stand still when one of them does."""
    monkey = sys.modules.get(_MONKEY)
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def may_be_daemons() -> bool:
    """Whether the interpreter may end before its threads; not so in a subinterpreter with its own lock (since CPython 3.12)."""
    allowed: Callable[[], bool] | None = native("_thread", "daemon_threads_allowed")
    return allowed is None or allowed()


def at_interpreter_end(act: Callable[[], object]) -> None:
    """Have `act` called before the interpreter waits for threads that are no daemons, which `atexit` comes after."""
    register = native("threading", "_register_atexit")
    if register is not None:
        register(act)


class Bell:
    """
    Rung from anywhere, heard by one: rings that nobody has heard yet are one. Re-entrant, for signal handlers.

    A lock, whose holder is the silence. Not `SimpleQueue`, whose `put` is documented as re-entrant: before CPython 3.13 its
    `get` waits for ever where a signal handler has taken longer than what was left of the time-out.
    """

    def __init__(self) -> None:
        self._silence = new_lock()
        self._silence.acquire()

    def ring(self) -> None:
        """Have it heard, now or by whoever waits next."""
        if self._silence.locked():
            try:
                self._silence.release()
            except RuntimeError:
                pass  # By somebody else, in this moment.

    def wait(self, timeout: float) -> bool:
        """Wait for it at most `timeout` seconds; return whether it rang."""
        return self._silence.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX))


class Gate:
    """Opened once and for all; re-entrant, for signal handlers."""

    def __init__(self) -> None:
        self.is_open = False
        """Whether nobody waits any more."""
        self._bell = Bell()

    def open(self) -> None:
        """Let everybody pass."""
        self.is_open = True
        self._bell.ring()

    def wait(self, timeout: float) -> bool:
        """Wait at most `timeout` seconds; return whether it is open."""
        if not self.is_open and self._bell.wait(timeout):
            # For the next in line.
            self._bell.ring()
        return self.is_open


class Running(Protocol):
    """A thread that was started."""

    def is_alive(self) -> bool:
        """Whether it has not ended."""

    def join(self, timeout: float) -> None:
        """Wait for its end, at most `timeout` seconds; not for the calling thread itself."""


def start(target: Callable[[], object], name: str, *, is_daemon: bool = True) -> Running:
    """
    Start a thread.

    Args:
        target: What it does.
        name: As profilers and debuggers show it.
        is_daemon: Whether the interpreter may end before it; always, where gevent is; never, where it allows no such threads.

    Raises:
        RuntimeError: The interpreter is ending and starts no more threads.
    """
    # One that may still patch will not find a thread that `threading` would have to remember.
    return _Beneath(target) if _MONKEY in sys.modules else _Plain(target, name, is_daemon=is_daemon)


def start_to_end(target: Callable[[], object], name: str) -> bool:
    """
    Start a thread that ends something, in place of a calling thread that may not wait; the interpreter waits for it.

    Returns:
        False if no thread can be started: the process is at its end, and its exit hooks do it, or has all the threads it may have.
    """
    try:
        start(target, name, is_daemon=False)
    except RuntimeError:
        return False
    return True


class _Plain:
    """A thread as `threading` knows it."""

    def __init__(self, target: Callable[[], object], name: str, *, is_daemon: bool) -> None:
        self._thread = threading.Thread(target=target, name=name, daemon=is_daemon and may_be_daemons())
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def join(self, timeout: float) -> None:
        if self._thread.ident != get_ident():
            self._thread.join(timeout)


class _Beneath:
    """A thread that `threading` knows nothing of, and therefore cannot confuse with a greenlet."""

    def __init__(self, target: Callable[[], object]) -> None:
        self._target = target
        self._ended = Gate()
        self._ident = 0
        _start_new_thread(self._run, ())

    def is_alive(self) -> bool:
        return not self._ended.is_open

    def join(self, timeout: float) -> None:
        if self._ident != get_ident():
            self._ended.wait(timeout)

    def _run(self) -> None:
        self._ident = get_ident()
        try:
            self._target()
        finally:
            self._ended.open()
