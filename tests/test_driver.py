"""The loops: what they survive."""

import logging
import threading
from contextlib import contextmanager, nullcontext

import pytest
from opentelemetry.sdk.trace import TracerProvider

from fakes.spools import Process
from fakes.tanks import stepped_tank
from surgetank.driver import Loop
from surgetank.testing import hold


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
