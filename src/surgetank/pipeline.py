"""One signal's pipeline: intake, sealing, queue and delivery joined, with flush, shutdown and fork.

Owns: the stages and the two threads that step them; the stages own their state.
Threads: `offer`, `stats`, `force_flush` and `shutdown` from any thread.
Invariants: `offer` never raises and never waits; `force_flush` and `shutdown` keep their deadline.

Sealing and sending have a thread each, because a send may wait for ten seconds on a
silent endpoint, and the objects that arrive meanwhile must become bytes all the same.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Final

from surgetank import threads
from surgetank.buffer.buffer import Buffer
from surgetank.buffer.flush import Flush, Until
from surgetank.buffer.sampling import THIN, Thinning
from surgetank.config import Compression, SignalLimits, Timing
from surgetank.delivery.endpoint import Endpoint, Member
from surgetank.delivery.outlet import Outlet
from surgetank.delivery.worker import Worker
from surgetank.driver import Loop, is_own_thread, may_wait, own_work
from surgetank.model import FOREVER, Attempt, Clock, ForkAware, HeldBatch, Sender, SignalStats, Verdict
from surgetank.otlp.codec import Codec
from surgetank.reservoir import Reservoir
from surgetank.sealer import Sealer
from surgetank.spool.dead_letters import DeadLetters
from surgetank.spool.spool import Spool

# What a thread gets to end by itself after shutdown has done its work (seconds).
JOIN_TIMEOUT: Final = 0.2
# What the threads of all signals, side by side, get after the deadline to store what is left and to end (seconds).
END_TIMEOUT: Final = 0.4
# The share of a deadline that is for the disk, where nothing is written ahead.
STORE_SHARE: Final = 0.1
# Below this fill an offer is not asked whether it may wait, which takes a microsecond.
WAIT_AT: Final = 0.5
# When everything is safe on disk and the endpoint was not answering anyway, shutdown knocks once more, for this long (seconds).
LAST_KNOCK: Final = 1.0


class Pipeline:
    """
    One signal's way from the application to the endpoint.

    Args:
        limits: Items, bytes, strategy, batch size and delay.
        timing: Backoff and cooldown.
        codec: Estimates and encodes the signal's items.
        sender: Carries sealed batches.
        endpoint: Shared with the signals that go to the same host and port.
        clock: Time.
        timeout: Seconds for one attempt.
        compression: How batches are sealed.
        is_critical: The user's own idea of what is critical; None for the codec's.
        context: Surrounds our threads' lives.
        rng: The source of jitter.
        is_threaded: False: nothing happens by itself; `run_once`, `force_flush` and `shutdown` do the
            work on their caller's thread. For tests, and for platforms without threads.
        spool: Holds batches on disk; None for memory only.
        is_write_ahead: Whether batches are stored before their first attempt, or only when memory fills up.
        dead_letters: Keeps what is refused for good.
        on_stored: Called on the sealer's thread after each batch that the spool was asked to store.
    """

    def __init__(
        self,
        *,
        limits: SignalLimits,
        timing: Timing,
        codec: Codec,
        sender: Sender,
        endpoint: Endpoint,
        clock: Clock,
        timeout: float = 10.0,
        compression: Compression = "gzip",
        is_critical: Callable[[Any], bool] | None = None,
        context: Callable[[], AbstractContextManager[object]] = nullcontext,
        rng: random.Random | None = None,
        is_threaded: bool = True,
        spool: Spool | None = None,
        is_write_ahead: bool = True,
        dead_letters: DeadLetters | None = None,
        on_stored: Callable[[], None] = lambda: None,
    ) -> None:
        self.signal: Final = codec.signal
        self.measure: Callable[[Attempt], None] = lambda _: None
        """Told of each attempt at delivery, on the delivery thread."""
        self.on_drop: Callable[[], None] = lambda: None
        """Told that something was dropped, on any thread; must be re-entrant and quick."""
        self.limits: Final = limits
        self._clock = clock
        # Threads of ours are known as such, so that what libraries log on them is not taken for the application's.
        self._context: Callable[[], AbstractContextManager[object]] = lambda: own_work(context)
        self._sender = sender
        self._endpoint = endpoint
        self._buffer = Buffer(limits, on_work=self._wake_sealer)
        self._buffer.on_drop = self._dropped
        self._has_spool = spool is not None
        self._store_share = STORE_SHARE if spool is not None and not is_write_ahead else 0.0
        self._on_stored = on_stored
        self._reservoir = Reservoir(
            self._buffer,
            clock,
            spool,
            persist=limits.persist,
            is_write_ahead=is_write_ahead,
            dead_letters=dead_letters,
        )
        self._make_worker: Callable[[], Worker] = lambda: Worker(
            self._reservoir,
            sender,
            Outlet(limits.circuit_breaker_threshold, timing, rng or random.Random()),
            endpoint,
            clock,
            timeout=timeout,
            measure=self._measure,
        )
        self._worker = self._make_worker()
        self._sealer = Sealer(
            self._buffer,
            codec,
            limits,
            clock,
            compression=compression,
            is_closed_off=lambda: self._worker.is_closed_off,
            keep=self._keep,
            check_in=self._reservoir.check_in,
            take_back=self._reservoir.take_back,
            on_sealed=self._wake_delivery,
        )
        self._sealer_loop, self._delivery_loop = (
            Loop(f"surgetank-{self.signal.value}-{name}", step, self._context, is_threaded=is_threaded)
            for name, step in (("sealer", self.seal_step), ("delivery", self.deliver_step))
        )
        # Re-entrant, for signal handlers.
        self._shutdown_lock = threads.new_rlock()
        self._is_ending = False
        self._lost_before_end = 0
        self._has_ended_cleanly = False
        self.is_shut_down = False
        """Whether shutdown has begun."""
        self._deadline = FOREVER
        """Of the shutdown."""
        self._end_by = FOREVER
        """When not even the disk is waited for any longer; set when the threads are told to end."""
        self._estimate = codec.estimate
        self._is_critical = codec.is_critical if is_critical is None else _guarded(is_critical)
        self._offer = self._buffer.offer
        if limits.on_full == "block":
            self._offer = self._offer_or_wait
        self._thinning = None
        if limits.drop_strategy == "sampling" and self.signal in THIN:
            self._thinning = Thinning(self._buffer, clock, THIN[self.signal], self._offer)
            self._offer = self._thinning.offer
        self._join_endpoint()

    def offer(self, item: Any) -> None:
        """Take an item, as the codec's `snapshot` made it. Never raises, never waits; what does not fit is dropped."""
        self._offer(item, self._estimate(item), self._is_critical(item))

    def _offer_or_wait(self, item: Any, estimate: int, is_critical: bool) -> None:
        # One that interrupted us inside the buffer holds its lock, without which nobody makes room.
        if self._buffer.fill < WAIT_AT or self.is_entered_here() or not may_wait():
            self._buffer.offer(item, estimate, is_critical)
        else:
            self._buffer.wait_for_room(item, estimate, is_critical, self.limits.block_timeout)

    def offer_all(self, items: Sequence[Any], timeout: float) -> None:
        """
        Take many items from a thread that can wait, such as the metric reader's.

        While the endpoint answers, more than the buffer holds at once is passed through in portions.

        Args:
            items: The items.
            timeout: Seconds to wait for room, in all.
        """
        deadline = self._clock.monotonic() + timeout
        portion = max(1, self.limits.max_size // 2)
        for start in range(0, len(items), portion):
            part = items[start : start + portion]
            if self.stats().queued + len(part) > self.limits.max_size:
                # What is on disk makes room without a loss; what is in memory only can be delivered, unless there is an outage.
                if self.stores_everything:
                    self.force_flush(deadline - self._clock.monotonic(), "safe")
                elif not self._worker.is_closed_off:
                    self.force_flush(deadline - self._clock.monotonic())
            for item in part:
                self.offer(item)

    def stats(self) -> SignalStats:
        """Return a consistent snapshot of the books, and beside it what is no matter of counting. Never waits for the disk."""
        worker, books = self._worker, self._buffer.stats(self._worker.breaker)
        return replace(
            books,
            stored=min(books.queued + books.in_flight, books.stored + self._sealer.stored_items()),
            spool_bytes=self._reservoir.spool_bytes,
            oldest_age=self._oldest_age(),
            sampling_ratio=1.0 if self._thinning is None else 1 / 2**self._thinning.level,
            retry_after=worker.receivers_wait(),
            stalled=self._reservoir.stalled,
            trouble="" if worker.trouble is None else _said(worker.trouble),
        )

    @property
    def has_had_items(self) -> bool:
        """Whether anything was ever offered or found on disk. A look without the lock."""
        return self._buffer.has_had_items

    def _dropped(self) -> None:
        # Asked for each time, as below.
        self.on_drop()

    def _measure(self, attempt: Attempt) -> None:
        # Asked for each time: whoever measures may come later than the worker.
        self.measure(attempt)

    def _oldest_age(self) -> float:
        sealed, opened = self._reservoir.oldest_sealed(), self._sealer.opened_at()
        return max(0.0, self._clock.now() - sealed, self._clock.monotonic() - opened)

    @property
    def is_closed_off(self) -> bool:
        """Whether batches cannot leave at the moment."""
        return self._worker.is_closed_off

    def is_entered_here(self) -> bool:
        """Whether the calling thread is inside this pipeline: true only in signal handlers and destructors."""
        return self._buffer.is_entered_here()

    def force_flush(self, timeout: float, until: Until = "delivered") -> bool:
        """
        Deliver what was offered to this process before this call.

        Args:
            timeout: Seconds after which to return, whatever the endpoint does.
            until: `safe` returns as soon as everything is delivered or safe on disk.

        Returns:
            True only if every one of those items was delivered, or is safe on disk at the configured durability;
            `stats` tells the two apart.
        """
        if self.is_entered_here() or is_own_thread():
            # A signal handler that interrupted us, or a log handler on a thread of ours: what it waits for could not happen.
            return False
        timeout = max(0.0, timeout)
        flush = self.begin_flush(timeout, until)
        return self.end_flush(flush)

    def begin_flush(self, timeout: float, until: Until = "delivered") -> Flush:
        """Start delivering, or storing, what was offered before this call; `end_flush` waits for it."""
        if not self._reservoir.can_store:
            until = "delivered"
        flush = self._buffer.begin_flush(self._clock.monotonic() + timeout, until=until)
        if not flush.is_over:
            if until == "delivered":
                self._worker.hurry()
            self._sealer_loop.wake()
            self._delivery_loop.wake()
        return flush

    def end_flush(self, flush: Flush) -> bool:
        """Wait for a flush until its deadline; return whether everything was delivered or is safe on disk."""
        self._wait(flush)
        self._buffer.end_flush(flush)
        if not self._buffer.flush_mark():
            self._worker.relax()
        return flush.has_succeeded

    @property
    def lost(self) -> int:
        """Items given up so far that nobody wanted given up. A look without the lock."""
        return self._buffer.lost

    @property
    def has_ended_cleanly(self) -> bool:
        """Whether shutdown is over and nothing had to be given up in it."""
        return self._has_ended_cleanly

    def store_from_now_on(self) -> None:
        """Store what cannot be delivered from now on, whatever the signal's default says: the process is ending."""
        if not self._is_ending:
            self._is_ending = True
            self._lost_before_end = self.lost
        self._reservoir.store_from_now_on()

    def begin_shutdown(self, deadline: float) -> Flush | None:
        """Refuse offers and start delivering the rest; None when that was done before."""
        with self._shutdown_lock:
            if self.is_shut_down:
                return None
            self.is_shut_down = True
        self._deadline = deadline
        self.store_from_now_on()
        self._buffer.close()
        deliver_until = deadline - self._store_share * max(0.0, deadline - self._clock.monotonic())
        flush = self._buffer.begin_flush(deliver_until, is_content_with_safety=self._has_spool, is_for_all=True)
        if not flush.is_over:
            self._worker.hurry(self._last_attempt_until(deliver_until))
            for loop in (self._sealer_loop, self._delivery_loop):
                loop.wake()
                loop.give_up_starting()
        return flush

    def _last_attempt_until(self, deadline: float) -> float:
        if self._reservoir.stores_everything and self._worker.is_closed_off:
            return min(deadline, self._clock.monotonic() + LAST_KNOCK)
        return deadline

    def deliver_last(self, flush: Flush) -> None:
        """Wait for the deliveries of a shutdown, until its deadline."""
        self._wait(flush)

    def stop(self) -> None:
        """Have the threads end, and the last of them store what is left; does not wait for it."""
        if self._end_by == FOREVER:
            self._end_by = max(self._deadline, self._clock.monotonic()) + END_TIMEOUT
        self._delivery_loop.stop()
        # A request under way would keep its thread until it times out.
        self._worker.abort()
        # Not on the calling thread, which could not leave a disk that hangs.
        self._sealer_loop.stop(self._store_last if self._has_spool else None)

    def end_shutdown(self, flush: Flush) -> int:
        """
        Wait until the deadline, store or give up what is left, and let go of threads and connections.

        Returns:
            The items given up; what is on disk is not among them.
        """
        try:
            self._wait(flush)
        finally:
            # Also when the application's signal handler raises out of the wait (Ctrl-C does): what can be stored, is.
            given_up = self._end()
        return given_up

    def _end(self) -> int:
        self.stop()
        has_ended = self._sealer_loop.end(self._left_to_end(), self._reservoir.is_free)
        if not has_ended:
            self._reservoir.give_up()
        self._delivery_loop.join(min(JOIN_TIMEOUT, self._left_to_end()))
        given_up = self._buffer.abandon()
        self._has_ended_cleanly = self.lost == self._lost_before_end
        self._sender.close()
        return given_up

    def _left_to_end(self) -> float:
        return max(0.0, self._end_by - self._clock.monotonic())

    def _store_last(self) -> None:
        # What is in flight may come back.
        self._delivery_loop.join(min(JOIN_TIMEOUT, self._left_to_end()))
        # What there was no time to seal, on a busy machine: this thread is the sealer's, or there is none.
        step = self._sealer.step if self._sealer_loop.is_manned else self._sealer_loop.step_here
        while self._left_to_end() > 0 and step() <= 0:
            pass
        self._reservoir.close()

    def shutdown(self, timeout: float) -> bool:
        """
        Refuse offers, deliver what there is until the deadline, give up the rest.

        Args:
            timeout: Seconds in all, whatever the endpoint does.

        Returns:
            True if nothing had to be given up. A second call does nothing and returns what the first one did.
        """
        flush = self.begin_shutdown(self._clock.monotonic() + timeout)
        if flush is not None:
            self.end_shutdown(flush)
        return self._has_ended_cleanly

    def before_fork(self) -> None:
        """Have the sender come to a state that can be copied."""
        if isinstance(self._sender, ForkAware):
            self._sender.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if isinstance(self._sender, ForkAware):
            self._sender.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        """Start anew: no items, no threads, no locks and no sockets of the parent's."""
        self._sender.abandon()
        self._buffer.reset()
        self._reservoir.after_fork_in_child()
        if self._thinning is not None:
            self._thinning.reset()
        self._sealer.reset()
        self._worker = self._make_worker()
        self._is_ending = self.is_shut_down
        self._sealer_loop.reset()
        self._delivery_loop.reset()
        self._shutdown_lock = threads.new_rlock()
        if self.is_shut_down:
            self._buffer.close()
        self._join_endpoint()

    def run_once(self) -> float:
        """Step sealing and delivery on the calling thread; return the seconds until the next step is worth while."""
        return min(self.seal_step(), self.deliver_step())

    def deliver_step(self) -> float:
        """Send at most one batch on the calling thread; return the seconds until the next step is worth while."""
        if self._is_ending and self._worker.is_closed_off:
            # What was not stored for want of a reason now has one, and nobody need wait for the endpoint any longer.
            self._reservoir.save_unsaved()
        rest = self._worker.step()
        self._buffer.tell_of_drops()
        return rest

    def seal_step(self) -> float:
        """Encode a slice and seal what is due, on the calling thread; return as `deliver_step` does."""
        rest = self._sealer.step()
        if self._buffer.is_to_be_safe:
            self._reservoir.save_unsaved(is_asked_for=True)
        self._buffer.tell_of_drops()
        overdue_at = self._worker.overdue_at()
        if overdue_at == FOREVER:
            return rest
        left = overdue_at - self._clock.monotonic()
        if left <= 0:
            self._worker.abort()
            return rest
        return min(rest, left)

    def resize(self, scale: float) -> None:
        """Obey that part of the limits from now on; what does not fit goes to disk if it can, else gives way."""
        self._buffer.resize(scale)
        self._buffer.tell_of_drops()

    @property
    def memory_bytes(self) -> int:
        """What is held in memory now, over all copies. A look without the lock."""
        return self._buffer.memory_bytes

    @property
    def used_share(self) -> float:
        """The part of the configured limits that is used, in items or bytes, whichever is more. A look without the lock."""
        return self._buffer.used_share

    @property
    def stores_everything(self) -> bool:
        """Whether every sealed batch is expected to be on disk."""
        return self._reservoir.stores_everything

    @property
    def fill(self) -> float:
        """How full memory is with what cannot make room without a loss, in items or bytes, whichever is more; 1 is full."""
        return self._buffer.unsaved_fill()

    def tend(self) -> bool:
        """Do for the spool what is due from time to time, and have what waits on disk sent; return whether anything does, or did."""
        recovered = self._buffer.recovered
        self._reservoir.tend()
        self._buffer.tell_of_drops()
        # What was synced is safe now.
        self._buffer.check_flushes()
        has_found = self._buffer.recovered > recovered
        if has_found:
            # Whoever left it met an outage, or a crash that the whole fleet may have met.
            self._worker.begin_slowly()
        has_backlog = self._reservoir.has_backlog
        if has_backlog and not self.is_shut_down:
            self._delivery_loop.wake()
        return has_found or has_backlog

    def _keep(self, held: HeldBatch) -> None:
        self._reservoir.keep(held)
        self._on_stored()

    def _wait(self, flush: Flush) -> None:
        if self._sealer_loop.is_manned and self._delivery_loop.is_manned:
            flush.wait(flush.deadline - self._clock.monotonic())
            return
        # There are no threads, or the interpreter is ending and starts none any more.
        with self._context():
            while not flush.is_over and (left := flush.deadline - self._clock.monotonic()) > 0:
                # Who hangs on the disk has to be waited for, and might be for ever.
                if not self._reservoir.is_free(left):
                    return
                if (rest := self._run_unmanned()) > 0 and not flush.is_over:
                    self._clock.sleep(min(rest, left))

    def _run_unmanned(self) -> float:
        """Do what no thread does: each stage has one owner at a time."""
        return min(self._sealer_loop.step_here(), self._delivery_loop.step_here())

    def _wake_sealer(self) -> None:
        self._buffer.wake_at = 0
        try:
            self._sealer_loop.wake()
        finally:
            # Also when a signal handler has raised in there.
            if self._sealer_loop.is_to_be_started_again:
                # Nobody has been woken, so the next offer tries again.
                self._buffer.wake_at = 1

    def _wake_delivery(self) -> None:
        self._delivery_loop.wake()

    def _join_endpoint(self) -> None:
        self._endpoint.join(Member(self.signal, self._worker, self.stats, self._buffer.has_left))


def _said(verdict: Verdict) -> str:
    return f"{verdict.cause}: {verdict.message}" if verdict.message else verdict.cause


def _guarded(is_critical: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Return the user's predicate so that a fault in it costs the item its lane, not the application an exception."""

    def guarded(item: Any) -> bool:
        try:
            return bool(is_critical(item))
        except Exception:
            return False

    return guarded
