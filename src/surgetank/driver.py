"""The threads that step the core: named daemon loops that sleep until rung or due.

Owns: its thread, its bell, the mark of the threads that are ours, and the register of the loops that want one.
Threads: `wake` from any thread, also from signal handlers and destructors.
Invariants: a loop never dies of an exception; a loop that was reset in a forked child has no thread until it is woken;
a loop's step is taken by one thread at a time.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from types import FrameType
from typing import Any, Final

from surgetank import clock, threads
from surgetank.lines import say
from surgetank.model import PRESSING

_logger: Final = logging.getLogger("surgetank")

# The longest single sleep (seconds): threads cannot wait for infinity, nor for the years a receiver may ask for.
REST_MAX: Final = 3600.0
# When the system starts no more threads, it is asked again after this long (seconds).
START_AGAIN: Final = 1.0
# After a defect of ours, wait this long (seconds) rather than spin.
REST_AFTER_DEFECT: Final = 1.0
# How often whoever does the work of one thread looks for what another has done (seconds).
REST_UNMANNED: Final = 0.02

# Local to the thread, so that the mark ends with it: a forked child gives the idents of threads that it lacks to new ones.
_mark: Final[Any] = threads.new_local()
_unstarted: set[Loop] = set()
"""Loops that were woken when the system started no thread. Whichever loop is woken or steps next asks again for all of them."""


def is_own_thread() -> bool:
    """Whether the calling thread does surgetank's own work, so that what it logs is not the application's telemetry."""
    return getattr(_mark, "is_ours", False)


def may_wait() -> bool:
    """
    Whether the calling thread may be made to wait for room.

    Not ours, which make the room; not one that runs an event loop or greenlets, whose other tasks would stand still; not one
    in a signal handler or a destructor, which may have interrupted somebody whom it would wait for; not one inside a
    handler of `logging`, whose lock everybody wants who logs: event loops, and ours, too.
    """
    if is_own_thread() or threads.are_greenlets():
        return False
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None and asyncio._get_running_loop() is not None:
        return False
    return not _is_inside(_signal_handlers() if threading.current_thread() is threading.main_thread() else set())


def _signal_handlers() -> set[object]:
    """Return the code of what is installed as signal handlers."""
    handlers = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if callable(handler):
            if not hasattr(handler, "__code__") and not hasattr(handler, "__func__"):
                handler = getattr(type(handler), "__call__", handler)  # noqa: B004  # An object that is called like a function.
            handlers.add(getattr(getattr(handler, "__func__", handler), "__code__", None))
    return handlers


def _is_inside(codes: set[object]) -> bool:
    """Whether one of these, a destructor, or a handler of `logging` that holds its lock is on the calling thread's stack."""
    codes.add(logging.Handler.handle.__code__)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        # Python's own handler of SIGINT is in C, and has no code.
        if frame.f_code in codes or frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


@contextmanager
def own_work(context: Callable[[], AbstractContextManager[object]]) -> Iterator[None]:
    """Mark the calling thread as ours, inside `context`, for as long as it lasts."""
    was_ours = is_own_thread()
    _mark.is_ours = True
    try:
        with context():
            yield
    finally:
        _mark.is_ours = was_ours


def start_unstarted() -> None:
    """Ask again for the threads that the system did not start, where that is due."""
    for loop in tuple(_unstarted):
        loop._start()


class Loop:
    """
    One background thread.

    Args:
        name: The thread's name, as profilers and debuggers show it.
        step: Does a bit of work and returns the seconds until the next is worth while.
        context: Surrounds the thread's whole life.
        is_threaded: False where there shall be no thread: the loop then only takes note of being woken.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float],
        context: Callable[[], AbstractContextManager[object]],
        *,
        is_threaded: bool = True,
    ) -> None:
        self._is_threaded = is_threaded
        self._name = name
        self._step = step
        self._context = context
        self.reset()

    def reset(self) -> None:
        """Forget the thread: construction, and a forked child, where only the forking thread lives on."""
        _unstarted.discard(self)
        self._asked: threads.Running | None = None
        """The thread that was asked for last: the one at work, unless a signal handler raised while it was started."""
        self._shift: threads.Gate | None = None
        """Open when the thread at work has ended; None before it has begun."""
        self._ident = 0
        # Held over each step. Re-entrant, for signal handlers, which find `_is_stepping`.
        self._post = threads.new_rlock()
        self._is_stepping = False
        self._bell = threads.Bell()
        self._is_stopping = False
        self._last_act: Callable[[], object] | None = None
        self._can_start = self._is_threaded
        self._is_starting = False
        self._start_again_at: float | None = None
        self._has_failed = False

    @property
    def is_manned(self) -> bool:
        """Whether a thread does the work, or will: one that another thread is just starting counts."""
        return self._can_start or self._is_alive

    def wake(self) -> None:
        """Make the loop take its next step now, starting the thread if need be."""
        if _unstarted:
            start_unstarted()
        if not self._has_thread:
            self._start()
        if self._has_thread:
            self._bell.ring()

    @property
    def is_to_be_started_again(self) -> bool:
        """Whether no thread has come of its being woken, and one may another time."""
        return self._can_start and not self._has_thread

    def give_up_starting(self) -> None:
        """Leave the work to whoever flushes, if the system starts no thread for us: the end is near, and it is the last chance."""
        if not self._has_thread and self._start_again_at is not None:
            self._can_start = False
            _unstarted.discard(self)

    def step_here(self) -> float:
        """Take a step on the calling thread where no thread does the work, nor anybody else just now; return as `step` does."""
        if self.is_manned or not self._post.acquire(blocking=False):
            return REST_UNMANNED
        try:
            if self._is_stepping:
                # By whom we have interrupted.
                return REST_UNMANNED
            self._is_stepping = True
            try:
                return self._step()
            finally:
                self._is_stepping = False
        finally:
            self._post.release()

    def stop(self, last_act: Callable[[], object] | None = None) -> None:
        """
        Let the thread end after its present step; does not wait for it.

        Args:
            last_act: What it does before it ends; a thread is started for that if there is none. Must bear being done twice.
        """
        if last_act is not None:
            self._last_act = last_act
            if not self._has_thread:
                self._start()
        self._is_stopping = True
        self._can_start = False
        _unstarted.discard(self)
        self._bell.ring()

    def join(self, timeout: float) -> None:
        """Wait for a stopped thread, at most `timeout` seconds; not for ourselves."""
        until = clock.monotonic() + timeout
        if self._asked is not None:
            self._asked.join(max(0.0, timeout))
        if self._shift is not None and self._ident != threads.get_ident():
            self._shift.wait(until - clock.monotonic())

    def end(self, timeout: float, may_act_here: Callable[[float], bool]) -> bool:
        """
        Wait until a stopped loop has done its last act; without a thread, do it here.

        Args:
            timeout: Seconds to wait, at most.
            may_act_here: Asked whether the act would not have to wait for anybody, after so many seconds at most.

        Returns:
            Whether it is done.
        """
        until = clock.monotonic() + timeout
        self.join(timeout)
        if self._is_alive:
            return False
        if self._last_act is not None and not may_act_here(until - clock.monotonic()):
            return False
        self._act_for_the_last_time()
        return True

    @property
    def _has_thread(self) -> bool:
        return self._asked is not None or self._shift is not None

    @property
    def _is_alive(self) -> bool:
        if self._shift is not None:
            return not self._shift.is_open
        return self._asked is not None and self._asked.is_alive()

    def _start(self) -> None:
        # Without waiting: somebody else, or whom we have interrupted, may be starting the thread.
        if not self._can_start or self._has_thread or self._is_starting:
            return
        if self._start_again_at is not None and clock.monotonic() < self._start_again_at:
            return
        try:
            self._is_starting = True
            # What a signal handler raises in here may come after the thread has begun, and before we know of it. Another is
            # started the next time; whichever of the two comes second finds the post taken, and ends.
            self._asked = threads.start(self._run, self._name)
            _unstarted.discard(self)
        except RuntimeError as error:
            if "interpreter shutdown" in str(error):
                # No thread can be started any more (since CPython 3.12); flush and
                # shutdown then do the work on their caller's thread.
                self._can_start = False
                _unstarted.discard(self)
            else:
                # The process, or its container, has as many threads as it may have: for the moment.
                self._start_again_at = clock.monotonic() + START_AGAIN
                _unstarted.add(self)
        finally:
            self._is_starting = False

    def _run(self) -> None:
        with self._context():
            with self._post:
                if self._shift is not None:
                    return
                self._ident = threads.get_ident()
                self._shift = shift = threads.Gate()
            try:
                self._work()
                self._act_for_the_last_time()
            finally:
                shift.open()

    def _work(self) -> None:
        while not self._is_stopping:
            try:
                with self._post:
                    rest = self._step()
            except BaseException:
                # Of any kind: what a callback of the application's raises to end its own thread must not end ours.
                rest = REST_AFTER_DEFECT
                self._note_defect()
            if _unstarted:
                start_unstarted()
                rest = min(rest, START_AGAIN)
            if rest > 0:
                self._bell.wait(min(rest, REST_MAX))
            elif rest != PRESSING:
                # Offer the GIL to the application's threads.
                threads.sleep(0)

    def _act_for_the_last_time(self) -> None:
        last_act, self._last_act = self._last_act, None
        if last_act is not None:
            try:
                last_act()
            except Exception:
                self._note_defect()

    def _note_defect(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            say(_logger, logging.ERROR, "a defect in %s; it goes on", self._name, is_error=True)
