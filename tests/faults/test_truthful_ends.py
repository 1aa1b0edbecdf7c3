"""A flush and a shutdown return True only if what they stand for has happened; asked again, a shutdown says the same."""

import os
import threading
from contextlib import contextmanager

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider

from fakes.pipelines import Rig
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank import BufferConfig, Tank
from surgetank.otlp.spans import snapshot
from surgetank.testing import ScriptedSender, delivered, silence
from surgetank.testing.filesystem import MemoryFilesystem


@contextmanager
def hanging_callback(**settings):
    """A tank whose only callback hangs until the end; and its meter provider."""
    tank = Tank(handle_sigterm=False, make_sender=lambda outlet, clock: ScriptedSender(), **settings)
    meters = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    may_go = threading.Event()

    def hang(_):
        may_go.wait(30)
        yield Observation(1)

    meters.get_meter("app").create_observable_gauge("depth", callbacks=[hang])
    try:
        yield tank
    finally:
        may_go.set()
        tank.shutdown(5.0)


def test_a_flush_whose_collection_hangs_has_not_succeeded():
    with hanging_callback() as tank:
        assert not tank.force_flush(0.2)


def test_a_flush_behind_a_collection_that_hangs_has_not_succeeded():
    """It could not collect at all, because one collection is made at a time."""
    with hanging_callback() as tank:
        tank.force_flush(0.1)

        assert not tank.force_flush(0.2)
        assert not tank.metric_reader.force_flush(200)


def test_a_shutdown_without_its_last_collection_is_not_clean():
    """Nor the second one, and not either when the provider has shut the reader down before."""
    with hanging_callback(shutdown_timeout=0.5) as tank:
        assert not tank.shutdown()
        assert not tank.shutdown()


def test_a_shutdown_after_the_readers_own_knows_that_its_last_collection_never_came():
    with hanging_callback(shutdown_timeout=0.5) as tank:
        tank.metric_reader.shutdown()

        assert not tank.shutdown()


def test_a_collection_that_raises_has_not_succeeded():
    """As the SDK does when a callback came back too late."""
    tank, _ = stepped_tank()
    meters = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    meters.get_meter("app").create_counter("work").add(1)
    tank.metric_reader._set_collect_callback(fail)

    assert not tank.force_flush(1.0)
    assert not tank.shutdown()


def fail(*_, **__):
    raise TimeoutError("Timed out while executing callback")


def test_a_collection_that_does_not_fit_has_not_succeeded():
    """Its points are part of what a flush stands for."""
    tank, _ = stepped_tank(silence(), metrics=BufferConfig(max_size=10))
    meters = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    counter = meters.get_meter("app").create_counter("work")
    for number in range(50):
        counter.add(1, {"n": number})

    assert not tank.metric_reader.collect_within(1.0)


@pytest.mark.parametrize("answer", [silence(), delivered()], ids=["lost", "delivered"])
def test_a_second_shutdown_says_what_the_first_one_did(answer):
    """Of a tank and of a pipeline."""
    tank, _ = stepped_tank(answer)
    tank.span_processor.on_end(span(1))
    rig = Rig(otherwise=answer)
    rig.offer(1)

    assert [tank.shutdown(1.0) for _ in range(3)] == [answer == delivered()] * 3
    assert [rig.pipeline.shutdown(1.0) for _ in range(3)] == [answer == delivered()] * 3


def test_a_shutdown_knows_what_a_door_has_lost_before():
    """The provider's shutdown came first and could deliver nothing."""
    tank, _ = stepped_tank(silence())
    tank.span_processor.on_end(span(1))
    tank.span_processor.shutdown()

    assert not tank.shutdown()


def test_a_shutdown_that_made_room_on_disk_by_a_loss_is_not_clean():
    """What it stored cost what was there before."""
    spool = {"max_bytes": 256 * 1024, "durability": "memory"}
    rig = Rig(otherwise=silence(), filesystem=MemoryFilesystem(), spool=spool, max_size=100_000, max_memory_mb=16)
    for number in range(1000):
        rig.pipeline.offer(snapshot(span(number, attributes={"payload": os.urandom(400).hex()})))
        rig.seal()

    is_clean = rig.pipeline.shutdown(5.0)

    assert sum(rig.stats.dropped.values()) > 0
    assert not is_clean


def test_what_was_lost_before_the_end_does_not_make_it_unclean():
    """The end itself gave up nothing."""
    rig = Rig(max_size=10)
    rig.offer(*range(20))

    assert rig.pipeline.shutdown(5.0)
    assert rig.stats.dropped == {"queue_full": 10}
