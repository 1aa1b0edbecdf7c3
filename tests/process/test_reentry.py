"""Offers from signal handlers and destructors that interrupt an offer on the same thread."""

import pytest

from process.programs import kill_all, run
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


def test_a_signal_handler_that_makes_spans_neither_deadlocks_nor_loses_any(collector):
    """A timer interrupts the main thread every quarter of a millisecond, in the middle of offers to a full buffer too."""
    code, (words,) = run(
        """
        tank = surgetank.install(spans=surgetank.BufferConfig(max_size=300, schedule_delay=0.1))
        tracer = trace.get_tracer("app")
        made = {"main": 0, "handler": 0}
        def handler(*_):
            tracer.start_span("from the handler").end()
            made["handler"] += 1
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, 0.00025, 0.00025)
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            tracer.start_span("from the loop").end()
            made["main"] += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        tank.force_flush(5.0)
        spans = tank.stats().spans
        say(offered=spans.offered, delivered=spans.delivered, dropped=dict(spans.dropped),
            unaccounted=spans.unaccounted, **made)
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words["handler"] > 100
    assert words["offered"] == words["main"] + words["handler"]
    assert words["unaccounted"] == 0
    assert words["delivered"] + sum(words["dropped"].values()) == words["offered"]
    assert collector.report()["spans"]["unique"] == words["delivered"]


def test_a_destructor_that_makes_spans_is_admitted(collector):
    """The garbage collector may run it on any thread, also on ours, at any allocation."""
    code, (words,) = run(
        """
        import gc
        gc.set_threshold(5)
        tank = surgetank.install(spans=surgetank.BufferConfig(max_size=1000, schedule_delay=0.1))
        tracer = trace.get_tracer("app")
        class Cycle:
            def __init__(self): self.me = self
            def __del__(self): tracer.start_span("last words").end()
        for n in range(2000):
            Cycle()
            tracer.start_span("work").end()
        gc.collect()
        tank.force_flush(5.0)
        spans = tank.stats().spans
        say(offered=spans.offered, unaccounted=spans.unaccounted)
        gc.set_threshold(700)
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words == {"offered": 4000, "unaccounted": 0}
