"""`on_full="block"`: who may wait for room, in which turn, and how it ends."""

import asyncio
import logging
import os
import signal
import threading
import time
from functools import partial

import pytest

from fakes.pipelines import Rig
from surgetank.driver import may_wait, own_work
from surgetank.testing import delivered, silence


def rig(**limits):
    return Rig(otherwise=silence(), **{"max_size": 10, "on_full": "block", "block_timeout": 30.0, **limits})


class Offerer(threading.Thread):
    """A thread that offers one span."""

    def __init__(self, rig, number, *, is_error=False):
        super().__init__(daemon=True)
        self._rig, self._number, self._is_error = rig, number, is_error
        self.start()

    def run(self):
        self._rig.offer(self._number, is_error=self._is_error)

    @property
    def is_waiting(self):
        return self.is_alive()


def wait_until(condition):
    """Meet a thread at a condition that it is about to fulfil."""
    for _ in range(2000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("the thread never came there")


def waiting(tank):
    return len(tank.pipeline._buffer._waiters)


def test_an_offer_to_a_full_buffer_waits_for_room():
    """And nothing is dropped."""
    tank = rig()
    tank.offer(*range(10))
    thread = Offerer(tank, 10)
    wait_until(lambda: waiting(tank) == 1)
    tank.sender.otherwise = delivered()

    tank.seal()
    tank.deliver()
    thread.join(5)

    assert not thread.is_waiting
    assert tank.stats.offered == 11
    assert tank.stats.dropped == {}


def test_those_who_wait_are_served_in_their_turn():
    """First come, first served, newcomers included."""
    tank = rig()
    tank.offer(*range(10))
    threads = []
    for number in range(10, 14):
        threads.append(Offerer(tank, number))
        wait_until(lambda: waiting(tank) == len(threads))
    tank.sender.otherwise = delivered()

    tank.seal()
    tank.deliver()
    for thread in threads:
        thread.join(5)
    tank.seal()
    tank.deliver()

    assert tank.sent_numbers()[-4:] == [10, 11, 12, 13]


def test_after_the_time_out_the_strategy_decides():
    """Something is dropped, and counted."""
    tank = rig(block_timeout=0.02)
    tank.offer(*range(10))

    tank.offer(10)

    assert tank.stats.offered == 11
    assert tank.stats.dropped == {"queue_full": 1}


def test_shutdown_lets_those_who_wait_go():
    """Refused, counted, at once."""
    tank = rig()
    tank.offer(*range(10))
    thread = Offerer(tank, 10)
    wait_until(lambda: waiting(tank) == 1)

    tank.pipeline.begin_shutdown(tank.clock.monotonic() + 1.0)
    thread.join(5)

    assert not thread.is_waiting
    assert tank.stats.dropped == {"already_shutdown": 1}


def test_an_item_that_could_never_fit_does_not_wait():
    """It would wait in vain, and others behind it."""
    tank = rig(max_memory_mb=0.25)
    tank.offer(*range(8))

    tank.offer(99, size=400_000)

    assert tank.stats.dropped == {"too_large": 1}


def test_our_own_threads_do_not_wait():
    """They are the ones that make room."""
    from contextlib import nullcontext

    with own_work(nullcontext):
        assert not may_wait()
    assert may_wait()


def test_an_event_loop_does_not_wait():
    """All its tasks would stand still."""

    async def ask():
        return may_wait()

    assert asyncio.run(ask()) is False


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals here")
def test_a_signal_handler_does_not_wait():
    """It may have interrupted whoever would make room."""
    said = []

    def handler(number, frame):
        said.append(may_wait())

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_until(lambda: said)
    finally:
        signal.signal(signal.SIGUSR1, before)

    assert said == [False]


def test_a_shrunken_buffer_holds_what_its_scale_says():
    """Spilled or dropped, by the strategy; and it grows again."""
    tank = Rig(otherwise=silence(), max_size=100)
    tank.offer(*range(100))

    tank.pipeline.resize(0.1)

    assert tank.stats.queued == 10
    assert tank.stats.dropped == {"queue_full": 90}
    tank.pipeline.resize(1.0)
    tank.offer(*range(200, 290))
    assert tank.stats.queued == 100
    assert tank.stats.unaccounted == 0


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals here")
def test_nor_does_one_that_is_an_object_or_a_partial():
    """Whatever can be called may be a handler."""
    said = []

    class Handler:
        def __call__(self, number, frame):
            said.append(may_wait())

    def handler(word, number, frame):
        said.append(may_wait())

    for each in (Handler(), partial(handler, "word")):
        before = signal.signal(signal.SIGUSR1, each)
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            wait_until(lambda: said)
        finally:
            signal.signal(signal.SIGUSR1, before)

        assert said == [False]
        said.clear()


def test_a_destructor_does_not_wait():
    """It may run on any thread, between any two steps, with any lock held."""
    said = []

    class Dying:
        def __del__(self):
            said.append(may_wait())

    Dying()

    assert said == [False]


def test_a_handler_of_logging_does_not_wait():
    """Its lock is wanted by everybody who logs: by event loops, and by our own threads, which make the room."""
    said = []

    class Handler(logging.Handler):
        def emit(self, record):
            said.append(may_wait())

    Handler().handle(logging.makeLogRecord({}))

    assert said == [False]


def test_who_interrupted_us_inside_the_buffer_does_not_wait():
    """Without the buffer's lock nobody can make room."""
    tank = rig(block_timeout=30.0)
    tank.offer(*range(10))

    began = time.monotonic()
    with (buffer := tank.pipeline._buffer)._lock, buffer._section:
        tank.offer(10)

    assert time.monotonic() - began < 10
    assert tank.stats.dropped == {"queue_full": 1}
