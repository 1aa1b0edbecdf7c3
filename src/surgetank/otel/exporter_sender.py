"""A way out through somebody else's exporter: sealed bytes become SDK objects again, and the exporter is called with them.

Owns: the exporter, the thread that calls it, and how often each batch has failed.
Threads: `send` by one thread at a time; `abort` from any; `flush` by whoever flushes; `abandon` in a forked child.
Invariants: the exporter is never called twice at once, but for its `shutdown`, which ends an `export` under way; a call that was not waited for to its end has its result
remembered, so that a batch that arrived after all is not sent again; nothing that an exporter raises gets out.

A FAILURE says nothing about why. So a batch is tried again, with the usual backoff and breaker, and given up as a whole
(to the dead letters) when it has failed both often enough and for long enough. The second condition is what keeps
a hurried shutdown, which tries briskly, from using up the patience that the next process is to have.
"""

from __future__ import annotations

import inspect
import logging
from _queue import SimpleQueue
from collections.abc import Callable
from typing import Any, Final

from surgetank import threads
from surgetank.driver import own_work
from surgetank.model import Batch, Clock, Outcome, Signal, Verdict
from surgetank.otel import objects
from surgetank.otel.shim import suppressed
from surgetank.otlp.compression import decompress

_logger: Final = logging.getLogger("surgetank")

ATTEMPTS: Final = 5
"""Failures after which a batch may be given up …"""
PATIENCE: Final = 10.0
"""… but not before so many seconds have passed since the first."""
# What is remembered of batches; those that fail are few at a time, for the same one is tried until it is through.
_REMEMBERED_MAX: Final = 256
# How long the exporter's own shutdown is waited for (seconds), when it is not in the middle of a call …
_CLOSE_WAIT: Final = 1.0
# … and when it is.
_CLOSE_WAIT_BUSY: Final = 0.1
# How long a call that has been interrupted is waited for (seconds), so that what came of it is known when the books are closed.
_INTERRUPTED_WAIT: Final = 0.15

_DECODERS: Final[dict[Signal, Callable[[bytes], Any]]] = {
    Signal.SPANS: objects.spans,
    Signal.METRICS: objects.metrics_data,
    Signal.LOGS: objects.log_records,
}


class _Call:
    """One call of a method of the exporter's."""

    def __init__(self, work: Callable[[], Any], batch_id: str = "") -> None:
        self.batch_id = batch_id
        self.result: Any = None
        self.error: Exception | None = None
        self.is_done = False
        # Not an `Event`: `abort` may be called by a signal handler, and only this is re-entrant.
        self.bell = threads.Bell()
        self._work = work

    def run(self) -> None:
        """Do it; called by the thread that calls the exporter."""
        try:
            self.result = self._work()
        except Exception as error:
            self.error = error
        self.is_done = True
        self.bell.ring()

    def wait(self, timeout: float) -> bool:
        """Wait until it is done, the time has passed, or somebody rings; return whether it is done."""
        if not self.is_done:
            self.bell.wait(timeout)
        return self.is_done


class ExporterSender:
    """
    A `Sender` that drives an exporter of the SDK's kind.

    Args:
        exporter: Has `export`, and perhaps `force_flush` and `shutdown`.
        signal: What it exports.
        clock: Time.
        attempts: Failures after which a batch may be given up.
        is_threaded: False: everything happens on the caller's thread, and no deadline is kept.
        is_ending: Whether there will be no further `send`, so that `abort` may shut the exporter down.
    """

    def __init__(
        self,
        exporter: Any,
        signal: Signal,
        clock: Clock,
        *,
        attempts: int = ATTEMPTS,
        is_threaded: bool = True,
        is_ending: Callable[[], bool] = lambda: False,
    ) -> None:
        self._exporter = exporter
        self._signal = signal
        self._clock = clock
        self._attempts = attempts
        self._is_threaded = is_threaded
        self._is_ending = is_ending
        self._is_closed = False
        self.abandon()

    def abandon(self) -> None:
        """Forget the parent's thread and its calls."""
        self._jobs: SimpleQueue[_Call | None] | None = None
        self._running: _Call | None = None
        self._ending: _Call | None = None
        """The call of `shutdown` that interrupts another one."""
        self._results: dict[str, Verdict] = {}
        self._failures: dict[str, tuple[int, float]] = {}
        self._start_lock = threads.new_lock()

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Have a batch exported, and judge what came of it; a call that takes too long goes on by itself."""
        deadline = self._clock.monotonic() + timeout
        if not self._has_ended_before(deadline):
            return _unanswered()
        known = self._results.pop(batch.id, None)
        if known is not None:
            return known
        try:
            items = _DECODERS[self._signal](decompress(batch.body, batch.encoding, batch.raw_size))
        except ValueError as error:
            return Verdict(outcome=Outcome.REJECTED, cause="undecodable", message=str(error)[:200])
        call = self._running = self._call(lambda: self._export(items, timeout), batch.id)
        has_ended = call.wait(deadline - self._clock.monotonic())
        if not has_ended and self._ending is not None:
            has_ended = call.wait(_INTERRUPTED_WAIT)
        if not has_ended:
            return _unanswered()
        self._running = None
        return self._judge(call)

    def abort(self) -> None:
        """
        Let a `send` that is under way return.

        Only its `shutdown` can interrupt an exporter, and ends it for good. So that is called at the end, as the SDK's processors
        do: what comes of the export is then known, or soon. Before, the exporter ends its call in its own time.
        """
        running = self._running
        if running is None:
            return
        if self._is_ending():
            self._interrupt()
        running.bell.ring()

    def _interrupt(self) -> None:
        """Shut the exporter down while another call is under way, on a thread of its own: it may wait for that call."""
        shutdown = getattr(self._exporter, "shutdown", None)
        if shutdown is None or self._is_closed:
            return
        self._is_closed = True
        call = self._ending = _Call(lambda: _timed(shutdown, _CLOSE_WAIT_BUSY))
        try:
            threads.start(lambda: _run_one(call), f"surgetank-{self._signal.value}-exporter-end")
        except RuntimeError:
            # Nobody can interrupt it: `close` shuts it down, in its turn.
            self._ending, self._is_closed = None, False

    def flush(self, timeout: float) -> bool:
        """Pass a flush on to the exporter; False if it said so or did not end in time."""
        force_flush = getattr(self._exporter, "force_flush", None)
        if force_flush is None:
            return True
        call = self._call(lambda: _timed(force_flush, timeout))
        # `SpanExporter.force_flush` is a stub that returns None.
        return call.wait(timeout) and call.error is None and call.result is not False

    def close(self) -> None:
        """Shut the exporter down; it gets a moment for that, and goes on by itself if it takes longer."""
        shutdown = getattr(self._exporter, "shutdown", None)
        if shutdown is not None and not self._is_closed:
            self._is_closed = True
            is_busy = self._running is not None and not self._running.is_done
            wait = _CLOSE_WAIT_BUSY if is_busy else _CLOSE_WAIT
            call = self._call(lambda: _timed(shutdown, wait))
            if call.wait(wait) and call.error is not None:
                _logger.warning("shutting down %s failed: %s", _name(self._exporter), call.error)
        elif self._ending is not None and self._ending.wait(_CLOSE_WAIT_BUSY) and self._ending.error is not None:
            _logger.warning("shutting down %s failed: %s", _name(self._exporter), self._ending.error)
        if self._jobs is not None:
            self._jobs.put(None)
            self._jobs = None

    def _has_ended_before(self, deadline: float) -> bool:
        """Wait for the call that an earlier `send` left behind, and remember what came of it."""
        call = self._running
        if call is None:
            return True
        # A ring that is left over was for an earlier wait.
        call.bell.wait(0)
        if not call.wait(deadline - self._clock.monotonic()):
            return False
        self._running = None
        _remember(self._results, call.batch_id, self._judge(call))
        return True

    def _export(self, items: Any, timeout: float) -> Any:
        if self._signal is Signal.METRICS:
            return self._exporter.export(items, timeout_millis=timeout * 1000)
        return self._exporter.export(items)

    def _judge(self, call: _Call) -> Verdict:
        failed = call.error is not None or getattr(call.result, "name", None) == "FAILURE"
        if not failed:
            # Also None: the SDK's own processors do not look at the result, so some exporters return nothing.
            self._failures.pop(call.batch_id, None)
            return Verdict(outcome=Outcome.DELIVERED, cause="SUCCESS")
        cause, message = "FAILURE", ""
        if call.error is not None:
            cause, message = type(call.error).__name__, str(call.error)[:200]
        now = self._clock.monotonic()
        count, first = self._failures.pop(call.batch_id, (0, now))
        has_waited = now - first >= PATIENCE or self._attempts == 1
        if count + 1 >= self._attempts and has_waited:
            return Verdict(outcome=Outcome.REJECTED, cause=cause, message=message)
        _remember(self._failures, call.batch_id, (count + 1, first))
        return Verdict(outcome=Outcome.RETRY, cause=cause, message=message)

    def _call(self, work: Callable[[], Any], batch_id: str = "") -> _Call:
        """Begin a call; it is over at once where there is no thread for it."""
        call = _Call(work, batch_id)
        jobs = self._queue()
        if jobs is None:
            with own_work(suppressed):
                call.run()
        else:
            jobs.put(call)
        return call

    def _queue(self) -> SimpleQueue[_Call | None] | None:
        if not self._is_threaded:
            return None
        with self._start_lock:
            if self._jobs is None:
                jobs: SimpleQueue[_Call | None] = SimpleQueue()
                name = f"surgetank-{self._signal.value}-exporter"
                try:
                    threads.start(lambda: _run(jobs), name)
                except RuntimeError:
                    # The interpreter is ending and starts no more threads.
                    return None
                self._jobs = jobs
            return self._jobs


def _timed(method: Callable[..., Any], timeout: float) -> Any:
    """Call an exporter's method with the time that it has if it takes one; many do not, for the SDK looks before it calls."""
    try:
        takes_timeout = "timeout_millis" in inspect.signature(method).parameters
    except (TypeError, ValueError):
        takes_timeout = False
    return method(timeout_millis=max(1, int(timeout * 1000))) if takes_timeout else method()


def _run(jobs: SimpleQueue[_Call | None]) -> None:
    with own_work(suppressed):
        while (call := jobs.get()) is not None:
            call.run()


def _run_one(call: _Call) -> None:
    with own_work(suppressed):
        call.run()


def _unanswered() -> Verdict:
    return Verdict(
        outcome=Outcome.RETRY, cause="timeout", reached=False, sent=False, message="the exporter has not returned"
    )


def _remember(known: dict[str, Any], batch_id: str, what: Any) -> None:
    if len(known) >= _REMEMBERED_MAX:
        known.pop(next(iter(known)))
    known[batch_id] = what


def _name(exporter: Any) -> str:
    return type(exporter).__qualname__
