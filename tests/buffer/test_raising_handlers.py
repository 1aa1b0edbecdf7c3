"""Signal handlers that raise wherever the main thread happens to be: time-outs of task queues, Ctrl-C."""

import gc
import signal

import pytest

from fakes.pipelines import Rig
from fakes.requests import span
from surgetank.otlp.spans import snapshot
from surgetank.testing import silence

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="there are no such signals here")


@pytest.fixture(autouse=True)
def _no_callbacks_of_collections():
    """What a handler raises inside one of these, such as Hypothesis has, interrupts nothing and is only printed."""
    # Nor in those of weak references to what other tests have left behind.
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class SoftTimeLimitError(Exception):
    """What a task queue raises into a task that takes too long."""


def test_a_signal_handler_that_raises_leaves_the_lock_free_and_the_books_right():
    """Whichever line it interrupts: no other thread hangs afterwards, and the law and the sums hold."""
    tank = Rig(otherwise=silence(), max_size=50)
    buffer, item, is_armed = tank.pipeline._buffer, snapshot(span(1)), [False]

    def handler(*_):
        if is_armed[0]:
            is_armed[0] = False
            raise SoftTimeLimitError

    # A function, because from Python 3.13 on the end of a loop that is in a `try` itself is not covered by it.
    def work():
        is_armed[0] = True
        # It comes again, because a system that has much to do may lose it.
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.05)
        # It may be raised where any exception is taken for a fault in the item; then nothing is interrupted.
        while is_armed[0]:
            tank.pipeline.offer(item)
            tank.pipeline.stats()

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(1000):
            try:
                work()
            except SoftTimeLimitError:
                pass
            assert not buffer._lock._is_owned()
            tank.pipeline.offer(item)
            stats = tank.stats
            assert stats.unaccounted == 0
            assert stats.queued <= 50
            assert buffer._books.memory_bytes == buffer._intake.memory_bytes
            assert not buffer._parked
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
