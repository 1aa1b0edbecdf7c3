"""The loops: what they survive."""

import logging
import threading
from contextlib import contextmanager, nullcontext

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider

from fakes.pipelines import Rig
from fakes.requests import span
from fakes.spools import Process
from fakes.tanks import stepped_tank
from surgetank import Tank, threads
from surgetank.driver import REST_UNMANNED, Loop
from surgetank.testing import ScriptedSender, delivered, hold


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
    with raising_handler(), process.disk.folder.saying, process.disk.folder.lock:
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


def test_a_ticker_that_could_not_be_started_is_started_when_another_loop_is(monkeypatch):
    """It has no offers that would ask again; whichever loop is woken asks for all that are still without a thread."""
    relent = unstartable(monkeypatch)
    monkeypatch.setattr("surgetank.driver.START_AGAIN", 0.0)
    has_ticked = threading.Event()
    ticker = Loop("ticker", lambda: has_ticked.set() or 10.0, nullcontext)
    ticker.wake()
    relent()

    other = Loop("other", lambda: 10.0, nullcontext)
    other.wake()

    assert has_ticked.wait(5)
    for loop in (ticker, other):
        loop.stop()
        loop.join(5)


def test_a_loop_that_runs_asks_for_the_threads_of_those_that_do_not(monkeypatch):
    """Also when nobody wakes anybody any more."""
    monkeypatch.setattr("surgetank.driver.START_AGAIN", 0.01)
    other = Loop("other", lambda: 0.01, nullcontext)
    other.wake()
    relent = unstartable(monkeypatch)
    has_ticked = threading.Event()
    ticker = Loop("ticker", lambda: has_ticked.set() or 10.0, nullcontext)
    ticker.wake()
    relent()

    assert has_ticked.wait(5)
    for loop in (ticker, other):
        loop.stop()
        loop.join(5)


def test_the_metric_readers_ticker_is_started_later(monkeypatch):
    """A process at its limit of threads when the reader is made collects all the same, once it is not."""
    relent = unstartable(monkeypatch)
    monkeypatch.setattr("surgetank.driver.START_AGAIN", 0.0)
    tank = Tank(
        handle_sigterm=False,
        persistence_enabled=False,
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=delivered()),
        metric_export_interval=0.01,
    )
    provider = MeterProvider([tank.metric_reader], shutdown_on_exit=False)
    has_been_asked = threading.Event()
    provider.get_meter("test").create_observable_gauge("g", [lambda options: has_been_asked.set() or []])
    relent()
    tank.span_processor.on_end(span(1))

    assert has_been_asked.wait(5)
    tank.shutdown(1.0)


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_signal_handler_that_raises_while_the_thread_is_started_does_not_make_two(has_begun, monkeypatch):
    """Ctrl-C comes before the thread has begun, or after it: in either case, one thread steps, and it can be waited for."""
    start, crews, has_stepped = threads.start, set(), threading.Event()

    def interrupt(target, name):
        if has_begun:
            start(target, name)
        raise KeyboardInterrupt

    def step():
        crews.add(threading.get_ident())
        has_stepped.set()
        return 0.001

    loop = Loop("test", step, nullcontext)
    monkeypatch.setattr(threads, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        loop.wake()
    started = []
    monkeypatch.setattr(threads, "start", lambda target, name: started.append(start(target, name)) or started[-1])
    for _ in range(3):
        # Whether or not the first has been at the post by now.
        loop.wake()
        assert has_stepped.wait(5)
    # A second one that was started ends, having found the post taken.
    threads_left = [thread for thread in threading.enumerate() if thread.name == "test"]
    for thread in threads_left:
        if thread.ident not in crews:
            thread.join(5)
            assert not thread.is_alive()

    assert loop.is_manned
    loop.stop()
    loop.join(5)
    assert not loop.is_manned
    assert len(crews) == 1


def test_a_second_thread_finds_the_post_taken_and_ends(monkeypatch):
    """Two that were started by whatever means are one at work."""
    start, crews, has_stepped = threads.start, set(), threading.Event()
    both = []

    def twice(target, name):
        both.extend([start(target, name), start(target, name)])
        return both[1]

    monkeypatch.setattr(threads, "start", twice)
    loop = Loop("test", lambda: crews.add(threading.get_ident()) or has_stepped.set() or 0.001, nullcontext)
    loop.wake()
    assert has_stepped.wait(5)
    loop.stop()
    loop.join(5)

    assert not loop.is_manned
    for thread in both:
        thread.join(5)
        assert not thread.is_alive()
    assert len(crews) == 1


def test_an_offer_that_ctrl_c_interrupts_while_the_sealer_is_started_is_not_left_alone(monkeypatch):
    """The next offer asks for the thread again."""
    rig = Rig(otherwise=delivered(), is_threaded=True)
    start = threads.start

    def interrupt(*arguments, **named):
        monkeypatch.setattr(threads, "start", start)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        rig.offer(1)
    rig.offer(2)

    assert rig.pipeline._sealer_loop._has_thread
    rig.pipeline.shutdown(5.0)
    assert rig.stats.delivered == 2


def test_two_flushes_without_threads_take_turns_at_each_stage():
    """Who comes while another does the work looks again a moment later."""
    rig = Rig(otherwise=delivered())
    step, inside, most = rig.pipeline._sealer.step, [], []
    is_inside, may_go = threading.Event(), threading.Event()

    def slowly():
        inside.append(1)
        most.append(len(inside))
        is_inside.set()
        may_go.wait(10)
        inside.pop()
        return step()

    rig.pipeline._sealer.step = slowly
    rig.offer(1, 2, 3)
    first = threading.Thread(target=lambda: rig.pipeline.force_flush(5.0))
    first.start()
    assert is_inside.wait(5)
    rig.pipeline.force_flush(0.1)
    may_go.set()
    first.join(10)

    assert most == [1] * len(most)
    assert rig.stats.delivered == 3


def test_a_step_in_the_middle_of_a_step_waits_until_that_has_ended():
    """A signal handler that flushes has interrupted the very step that it waits for."""
    loop = Loop("test", lambda: steps.append(loop.step_here()) or 7.0, nullcontext, is_threaded=False)
    steps = []

    assert loop.step_here() == 7.0
    assert steps == [REST_UNMANNED]
