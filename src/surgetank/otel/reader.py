"""The door for metrics: a periodic reader that collects and hands the data points to a pipeline.

Owns: the collection number and the ticker thread.
Threads: the ticker's own; `force_flush` and `shutdown` from any thread.
Invariants: one collection at a time, and none while the process forks; points of two
collections are never merged.

While the strategy is `sampling` and the outlet is closed off, or the buffer is more than half full, collections
become rarer (twice the interval, four times … up to sixteen), and when it is nearly full there are none: the
SDK's aggregators keep the sums meanwhile, so delta totals stay exact and only resolution is lost. What is stored
on disk need not be held back that way, for as long as there is room.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricExportResult, MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation

from surgetank import threads
from surgetank.driver import Loop, is_own_thread, start_unstarted
from surgetank.lines import say
from surgetank.model import FOREVER, Clock
from surgetank.otel.shim import is_registered, prefer_as_exporter, renew_after_fork
from surgetank.otlp.metrics import flatten
from surgetank.pipeline import Pipeline

_logger: Final = logging.getLogger("surgetank")

# At most so many intervals between two collections while the outlet is closed off.
STRETCH_MAX: Final = 16
# From this fill on collections become rarer, and from this one on there are none: a point that were dropped would take
# its part of a delta's total with it.
RARER_ABOVE: Final = 0.5
NONE_ABOVE: Final = 0.8
# How long a fork waits for a collection to end (seconds): collections take
# milliseconds, and a hanging callback of the user's must not hang the fork.
FORK_WAIT_MAX: Final = 1.0


class TankMetricReader(MetricReader):
    """
    Collects every `interval` seconds. Made by `Tank.metric_reader`; do not construct it yourself.

    Args:
        pipeline: Where the data points go.
        shutdown: Closes the pipeline within the tank's deadline.
        interval: Seconds between collections.
        timeout: Seconds for one collection and for passing its points on.
        cardinality_limits: As the SDK's readers take them.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        shutdown: Callable[[], None],
        clock: Clock,
        *,
        interval: float,
        timeout: float,
        preferred_temporality: dict[type, AggregationTemporality],
        preferred_aggregation: dict[type, Aggregation],
        is_threaded: bool = True,
        cardinality_limits: Any = None,
    ) -> None:
        # Which older versions of the SDK do not know.
        more = {} if cardinality_limits is None else {"cardinality_limits": cardinality_limits}
        super().__init__(
            preferred_temporality=preferred_temporality, preferred_aggregation=preferred_aggregation, **more
        )
        prefer_as_exporter(self, preferred_temporality, preferred_aggregation)
        self._pipeline = pipeline
        self._shutdown_pipeline = shutdown
        self._clock = clock
        self._interval = interval
        self._timeout = timeout
        self._stretches = pipeline.limits.drop_strategy == "sampling"
        self._collection = 0
        self._is_shut_down = False
        self._has_collected_last = True
        self._collect_lock = threads.new_lock()
        self._collector = 0
        """The thread that holds the lock, while it collects."""
        # Two threads may fork at the same time, and only one of them holds the lock.
        self._forking: set[int] = set()
        # Not one of our own threads in the sense of `own_work`: it runs the application's callbacks.
        self._ticker = Loop("surgetank-metrics-reader", self._tick, nullcontext, is_threaded=is_threaded)
        self._begin_ticking()

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        """Collect now and deliver; return by the time-out, True only if everything was delivered."""
        if self._pipeline.is_entered_here() or is_own_thread():
            # As in `Pipeline.force_flush`.
            return False
        deadline = self._clock.monotonic() + timeout_millis / 1000
        if not self.collect_within(deadline - self._clock.monotonic()):
            return False
        return self._pipeline.force_flush(deadline - self._clock.monotonic())

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Collect a last time, then close the pipeline within the tank's `shutdown_timeout`."""
        self._shutdown_pipeline()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        """Take a collection of a periodic reader's, where this serves as an exporter behind one."""
        self._receive_metrics(metrics_data, timeout_millis)
        return MetricExportResult.SUCCESS

    def stop(self, timeout: float) -> bool:
        """
        Collect a last time, in at most `timeout` seconds, and stop ticking.

        Returns:
            As `collect_within`; a second call does nothing and returns what the first one did.
        """
        if not self._is_shut_down:
            self._is_shut_down = True
            # Until it is known to have succeeded: the application's signal handler may raise out of the wait.
            self._has_collected_last = False
            self._ticker.stop()
            self._has_collected_last = self.collect_within(timeout)
        return self._has_collected_last

    def collect_within(self, timeout: float) -> bool:
        """
        Collect once on a thread of its own, because callbacks are the application's and may hang.

        Args:
            timeout: Seconds to wait for it.

        Returns:
            Whether the collection ended in time, without an error and without a loss at a limit.
        """
        if not is_registered(self):
            return True
        # The ticker's, too, which only the other loops ask for again.
        start_unstarted()
        done = threads.Gate()
        lost = self._pipeline.lost
        has_collected = False

        def collect() -> None:
            nonlocal has_collected
            has_collected = self._collect_once(timeout)
            done.open()

        try:
            threads.start(collect, "surgetank-metrics-collect")
        except RuntimeError:
            # The interpreter is ending and starts no more threads.
            collect()
        return done.wait(timeout) and has_collected and self._pipeline.lost == lost

    def before_fork(self) -> None:
        """Let a collection end, so that the child does not inherit the SDK's locks held by a thread that it lacks."""
        if self._collect_lock.acquire(timeout=FORK_WAIT_MAX):
            self._forking.add(threads.get_ident())

    def after_fork_in_parent(self) -> None:
        """Go on collecting."""
        if threads.get_ident() in self._forking:
            self._forking.discard(threads.get_ident())
            self._collect_lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew: measurements from zero, a thread of our own."""
        self._collect_lock = threads.new_lock()
        self._collector = 0
        self._forking.clear()
        renew_after_fork(self)
        self._ticker.reset()
        if not self._is_shut_down:
            self._begin_ticking()

    def _begin_ticking(self) -> None:
        self._next_at = self._clock.monotonic() + self._interval
        self._stretch = 1
        self._skips_left = 0
        if self._interval != FOREVER:
            self._ticker.wake()

    def _tick(self) -> float:
        now = self._clock.monotonic()
        if now >= self._next_at:
            # Ticks that were missed (a slow callback, a sleeping laptop) are not made up for.
            self._next_at = now + self._interval
            if is_registered(self) and not self._must_skip():
                self._collect_once(self._timeout)
        return max(0.0, self._next_at - self._clock.monotonic())

    def _must_skip(self) -> bool:
        if not self._stretches:
            return False
        fill = self._pipeline.fill
        if fill > NONE_ABOVE:
            return True
        is_held_up = self._pipeline.is_closed_off and not self._pipeline.stores_everything
        if not is_held_up and fill <= RARER_ABOVE:
            self._stretch, self._skips_left = 1, 0
            return False
        if self._skips_left:
            self._skips_left -= 1
            return True
        self._stretch = min(self._stretch * 2, STRETCH_MAX)
        self._skips_left = self._stretch - 1
        return False

    def _collect_once(self, timeout: float) -> bool:
        if not self._collect_lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX))):
            # Another collection hangs, or a process is being forked.
            return False
        try:
            self._collector = threads.get_ident()
            self.collect(timeout_millis=timeout * 1000)
        except Exception:
            # The user's callback, or the SDK's own time-out; the next collection is a new chance.
            say(_logger, logging.WARNING, "a metric collection failed", is_error=True)
            return False
        finally:
            self._collector = 0
            self._collect_lock.release()
        return True

    @property
    def is_collecting_itself(self) -> bool:
        """Whether the calling thread is in a collection of the reader's own, and not in one that somebody asked for by `collect`."""
        return self._collector == threads.get_ident()

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        self._collection += 1
        self._pipeline.offer_all(flatten(metrics_data, self._collection), timeout_millis / 1000)
