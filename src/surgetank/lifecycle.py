"""What happens to a process: forks, SIGTERM, and the ways to exit that skip `atexit`.

Owns: the register of living tanks, and the hooks that are installed once per process.
Threads: installation from any thread; signal handlers run on the main thread.
Invariants: a signal disposition that is not the default is never replaced; every hook
is a no-op once its tank is shut down or gone.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol
from weakref import WeakSet

from surgetank import threads
from surgetank.lines import say

_logger: Final = logging.getLogger("surgetank")

# What a container runs without an init of its own.
_FIRST_PROCESS: Final = 1
# How soon a SIGTERM is delivered again (seconds) when it interrupted us in the middle of a change.
REDELIVERY: Final = 0.01


class Living(Protocol):
    """What a tank does when its process forks or ends."""

    def before_fork(self) -> None:
        """Come to a state that can be copied."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Start anew."""

    def is_entered_here(self) -> bool:
        """Whether the calling thread is in the middle of a change."""

    def is_ending_here(self) -> bool:
        """Whether the calling thread is in the middle of a shutdown."""

    def expect_kill(self) -> None:
        """Deliver, or store, what is held, and go on."""

    def shutdown(self) -> bool:
        """End within the configured deadline."""

    def tell_last(self) -> None:
        """Say what became of items that came after the end."""


_living: WeakSet[Any] = WeakSet()
# They still refuse offers, under locks that a forked child must not find taken.
_ended: WeakSet[Any] = WeakSet()
_postponed: list[int] = []
"""Signals that came in the middle of a shutdown, or of a change when no thread could be started to send them again."""
_install_lock = threads.new_lock()
_is_installed = False


def watch(living: Living, *, handle_sigterm: bool) -> None:
    """
    Tell `living` of forks and of the end of the process, for as long as it exists.

    Args:
        living: Held weakly.
        handle_sigterm: Whether to act on a SIGTERM whose disposition is the default.
    """
    _living.add(living)
    _install_once()
    if handle_sigterm:
        _handle_sigterm()
    _handle_multiprocessing_exit()
    _expect_multiprocessing()


def forget(living: Living) -> None:
    """Stop telling `living` of the end of the process."""
    _ended.add(living)
    _living.discard(living)


def _install_once() -> None:
    global _is_installed
    with _install_lock:
        if _is_installed:
            return
        _is_installed = True
    atexit.register(_end_all)
    if not threads.may_be_daemons():
        # The interpreter waits for our threads before it calls what is registered with `atexit`.
        threads.at_interpreter_end(_end_all)
    # Not on Windows, where nothing forks.
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)


def _end_all() -> None:
    _have_all(lambda living: living.shutdown())
    _have_all(lambda ended: ended.tell_last(), _ended)


def _have_all(act: Callable[[Living], object], among: WeakSet[Any] = _living) -> None:
    for living in list(among):
        try:
            act(living)
        except Exception:
            say(_logger, logging.ERROR, "a defect at the end of the process; it goes on", is_error=True)


def _on_worker_process_shutdown(**_: object) -> None:
    _end_all()


def _before_fork() -> None:
    for living in list(_living | _ended):
        living.before_fork()


def _after_in_parent() -> None:
    for living in list(_living | _ended):
        living.after_fork_in_parent()


def _after_in_child() -> None:
    global _install_lock
    _install_lock = threads.new_lock()
    # They were sent to the parent.
    _postponed.clear()
    for living in list(_living | _ended):
        living.after_fork_in_child()
    if _living:
        _expect_multiprocessing()
    # Celery's pool leaves by `os._exit` too, and runs no finalizers either; but it says so.
    signals = sys.modules.get("celery.signals")
    if signals is not None and _living:
        signals.worker_process_shutdown.connect(_on_worker_process_shutdown, weak=False, dispatch_uid=__name__)


class _ForkMark:
    """A lasting object for `multiprocessing` to hold weakly."""

    instance: _ForkMark


_ForkMark.instance = _ForkMark()


def _handle_multiprocessing_exit() -> None:
    """In a `multiprocessing` child, have the tanks end before it leaves by `os._exit`."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        # The lowest priority: queues and pools of the application's end first, and may make telemetry.
        util.Finalize(None, _end_all, exitpriority=-100)


def deliver_postponed() -> None:
    """Let a signal that was postponed come again; called when a shutdown is over, and by a tank's watcher from time to time."""
    while _postponed:
        try:
            number = _postponed.pop()
        except IndexError:
            # Another thread has just delivered it.
            return
        os.kill(os.getpid(), number)


def _expect_multiprocessing() -> None:
    """
    Have the same done when a `multiprocessing` child begins.

    It clears the registered exit functions after the fork hooks and, under `forkserver`, after it has imported the
    program's module, which may have made a tank; and it leaves by `os._exit`, which runs no `atexit`.
    """
    util = sys.modules.get("multiprocessing.util")
    if util is not None:
        util.register_after_fork(_ForkMark.instance, lambda _: _handle_multiprocessing_exit())


def _handle_sigterm() -> None:
    """Install our handler where SIGTERM would simply kill, and only there."""
    if threading.current_thread() is not threading.main_thread():
        return  # Python installs handlers from the main thread only.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        try:
            signal.signal(signal.SIGTERM, _on_sigterm)
        except ValueError:
            # The main thread of a subinterpreter: Python delivers signals to the main interpreter only.
            return


def _send_again(number: int) -> None:
    threads.Gate().wait(REDELIVERY)
    os.kill(os.getpid(), number)


def _on_sigterm(number: int, _: FrameType | None) -> None:
    tanks = list(_living)
    if any(tank.is_entered_here() for tank in tanks):
        # The signal arrived between two steps of a change of ours, which cannot end
        # before this handler does: let it end, and come again.
        if not threads.start_to_end(lambda: _send_again(number), "surgetank-signal"):
            _postponed.append(number)
        return
    if any(tank.is_ending_here() for tank in tanks):
        # It interrupted a shutdown, which has a deadline of its own: that comes first.
        _postponed.append(number)
        return
    if os.getpid() == _FIRST_PROCESS:
        # The kernel spares it what its disposition would do to any other, so it lives on without us, and with us: until it is
        # killed, or ends by itself.
        _have_all(lambda living: living.expect_kill())
        return
    _end_all()
    # Die of the signal, as the process would have without us: the exit status says so.
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
