"""The loops: what they survive."""

import logging
import threading
from contextlib import contextmanager, nullcontext

import pytest
from opentelemetry.sdk.trace import TracerProvider

from fakes.pipelines import Rig
from fakes.spools import Process
from fakes.tanks import stepped_tank
from surgetank import threads
from surgetank.driver import Loop
from surgetank.testing import delivered, hold


class Raising(logging.Handler):
    """A handler as applications write them: it does not catch what it raises."""

    def emit(self, record):
        raise RuntimeError("no connection to the log server")


@contextmanager
def raising_handler():
    logger, handler = logging.getLogger("surgetank"), Raising()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_a_loop_goes_on_after_whatever_its_step_raises(error, monkeypatch):
    """Of any kind: a callback that ends its own thread must not end ours, nor a handler that cannot log what happened."""
    monkeypatch.setattr("surgetank.driver.REST_AFTER_DEFECT", 0.001)
    steps, has_come_again = [], threading.Event()

    def step():
        steps.append(1)
        if len(steps) == 1:
            raise error
        has_come_again.set()
        return 10.0

    loop = Loop("test", step, nullcontext)
    with raising_handler():
        loop.wake()
        assert has_come_again.wait(5)

    loop.stop()
    loop.join(5)


def test_a_handler_that_raises_costs_the_line_and_nothing_else():
    """An outage begins and ends, and the tank ends, all of which is logged."""
    tank, _ = stepped_tank(answer=hold())
    with raising_handler():
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(tank.span_processor)
        provider.get_tracer("test").start_span("a").end()
        assert not tank.force_flush(1.0)
        tank.shutdown(1.0)

    assert tank.stats().spans.unaccounted == 0


def test_a_line_of_the_disks_is_lost_in_a_handler_that_raises_and_the_work_is_done():
    """It is said between two steps that belong together, such as letting go on disk and in memory."""
    process = Process()
    with raising_handler(), process.disk.folder.entered():
        process.disk.folder.say(logging.WARNING, "a line")


def unstartable(monkeypatch):
    """Have the system start no threads until the returned function is called."""
    start = threads.start

    def refuse(*arguments, **named):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threads, "start", refuse)
    return lambda: monkeypatch.setattr(threads, "start", start)


def test_a_thread_that_could_not_be_started_is_started_later(monkeypatch):
    """A process at its limit of threads has room again a moment later; only the interpreter's end is final."""
    relent = unstartable(monkeypatch)
    monkeypatch.setattr("surgetank.driver.START_AGAIN", 0.0)
    has_stepped = threading.Event()

    def step():
        has_stepped.set()
        return 10.0

    loop = Loop("test", step, nullcontext)
    loop.wake()
    assert loop.is_manned
    relent()
    loop.wake()

    assert has_stepped.wait(5)
    loop.stop()
    loop.join(5)


def test_a_shutdown_without_any_thread_does_the_work_itself(monkeypatch):
    """It is the last chance, and there will be none."""
    relent = unstartable(monkeypatch)
    rig = Rig(otherwise=delivered(), is_threaded=True)
    rig.offer(1, 2, 3)

    assert rig.pipeline.shutdown(5.0)

    relent()
    assert rig.stats.delivered == 3


def test_what_was_offered_while_no_thread_could_be_started_is_delivered(monkeypatch):
    """Each offer asks for the thread until there is one."""
    relent = unstartable(monkeypatch)
    monkeypatch.setattr("surgetank.driver.START_AGAIN", 0.0)
    rig = Rig(otherwise=delivered(), is_threaded=True)
    rig.offer(1, 2)
    relent()
    rig.offer(3)

    assert rig.pipeline.force_flush(5.0)
    rig.pipeline.shutdown(1.0)
    assert rig.stats.delivered == 3
