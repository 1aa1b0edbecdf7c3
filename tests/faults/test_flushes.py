"""A flush is about what this process was offered before it: not about what others have left, nor about what comes later."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from fakes.pipelines import Rig
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank import BufferConfig, ConfigError, SpoolConfig
from surgetank.model import Signal
from surgetank.otlp.spans import snapshot
from surgetank.testing import ManualClock, delivered, permanent, silence
from surgetank.testing.filesystem import MemoryFilesystem


def leave_backlog(filesystem, clock, items=2000):
    """Have a process die that has delivered nothing."""
    rig = Rig(otherwise=silence(), filesystem=filesystem, clock=clock, max_size=4096)
    rig.offer(*range(items))
    rig.seal()
    filesystem.die()


def heir(answer=None, **more):
    """A process that has adopted a backlog."""
    filesystem, clock = MemoryFilesystem(), ManualClock(1000.0)
    leave_backlog(filesystem, clock)
    rig = Rig(otherwise=answer, filesystem=filesystem, clock=clock, **more)
    rig.tend()
    assert rig.stats.recovered == 2000
    return rig


def slow(rig):
    """Let each request take half a second."""

    def answer(batch):
        rig.clock.advance(0.5)
        return delivered()

    rig.sender.otherwise = answer


def test_a_flush_does_not_wait_for_what_others_have_left():
    """Its own span left at once; the backlog goes on by and by."""
    rig = heir()
    slow(rig)
    rig.offer(5000)
    began = rig.clock.monotonic()

    assert rig.pipeline.force_flush(60.0)

    assert 5000 in rig.sent_numbers()
    assert rig.clock.monotonic() - began <= 1.5
    assert rig.stats.spooled > 0


def test_a_flush_without_anything_of_ours_is_over_at_once():
    rig = heir()
    slow(rig)
    began = rig.clock.monotonic()

    assert rig.pipeline.force_flush(60.0)

    assert rig.clock.monotonic() == began


def test_damage_and_refusals_among_what_others_have_left_do_not_fail_a_flush():
    """Only the heir's own spans count."""
    rig = heir(lambda batch: permanent() if batch.items > 1 else delivered())
    rig.offer(5000)

    assert rig.pipeline.force_flush(60.0)


def test_a_flush_waits_for_what_went_to_disk_of_ours():
    """Memory let go of it long ago."""
    rig = Rig([silence()] * 3, filesystem=MemoryFilesystem(), max_size=64, max_export_batch_size=16)
    for start in range(0, 640, 16):
        rig.offer(*range(start, start + 16))
        rig.seal()
    assert rig.stats.spooled > 500

    assert rig.pipeline.force_flush(60.0)

    assert sorted(set(rig.sent_numbers())) == list(range(640))
    assert (rig.stats.delivered, rig.stats.spooled) == (640, 0)


def test_what_goes_to_disk_during_a_flush_is_waited_for():
    """More comes while the receiver is slow, and pushes out what the flush is about."""
    rig = Rig(filesystem=MemoryFilesystem(), max_size=64, max_export_batch_size=16)
    numbers = iter(range(1000, 10_000))

    def answer(batch):
        rig.offer(*(next(numbers) for _ in range(16)))
        return delivered()

    rig.offer(*range(48))
    rig.sender.script.extend([answer] * 5)

    assert rig.pipeline.force_flush(60.0)

    assert set(range(48)) <= set(rig.sent_numbers())
    assert rig.stats.dropped == {}


def test_what_is_rejected_of_ours_after_it_was_on_disk_fails_the_flush():
    rig = Rig([silence()], permanent(), filesystem=MemoryFilesystem(), max_size=64, max_export_batch_size=16)
    for start in range(0, 320, 16):
        rig.offer(*range(start, start + 16))
        rig.seal()

    assert not rig.pipeline.force_flush(60.0)


@pytest.mark.parametrize("durability", ["os", "disk", "memory"])
def test_until_safe_returns_as_soon_as_everything_is_on_disk(durability):
    """In an outage, at once; nothing is sent for it."""
    filesystem = MemoryFilesystem()
    tank, _ = stepped_tank(
        silence(),
        filesystem=filesystem,
        persistence_enabled=True,
        spool=SpoolConfig(dir="/spool", reserve_mb=0, durability=durability),
    )
    pipeline = tank._pipelines[Signal.SPANS]
    for number in range(100):
        pipeline.offer(snapshot(span(number)))
    began = tank._clock.monotonic()

    # Without threads it is the next call of the keeper that syncs.
    succeeded = tank.force_flush(0.2, until="safe") or tank.force_flush(0.2, until="safe")

    assert succeeded
    assert tank._clock.monotonic() - began <= 0.4
    assert tank.stats().spans.stored == 100


def test_until_safe_stores_metrics_too(monkeypatch):
    """Which are not written ahead by default, and whose signal may be kept off the disk altogether."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    for metrics, is_safe in ((None, True), (BufferConfig(persistence_enabled=False), False)):
        spool = SpoolConfig(dir="/spool", reserve_mb=0)
        tank, _ = stepped_tank(silence(), filesystem=MemoryFilesystem(), spool=spool, metrics=metrics)
        meters = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
        meters.get_meter("app").create_counter("work").add(1)

        assert tank.force_flush(1.0, until="safe") is is_safe
        assert (tank.stats().metrics.stored > 0) is is_safe


def test_until_safe_without_a_spool_waits_for_delivery():
    rig = Rig([silence()] * 3)
    rig.offer(*range(10))

    assert rig.pipeline.force_flush(10.0, "safe")

    assert rig.stats.delivered == 10


def test_what_is_waited_for_is_one_of_two():
    tank, _ = stepped_tank()
    with pytest.raises(ConfigError, match="until"):
        tank.force_flush(1.0, until="sent")


def test_a_large_last_collection_goes_to_disk_in_an_outage(monkeypatch):
    """More points than the buffer holds; each portion makes room by being stored."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    spool = SpoolConfig(dir="/spool", reserve_mb=0)
    metrics = BufferConfig(max_size=100)
    tank, _ = stepped_tank(silence(), filesystem=MemoryFilesystem(), spool=spool, metrics=metrics)
    meters = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    counter = meters.get_meter("app").create_counter("work")
    for number in range(1000):
        counter.add(1, {"n": number})

    assert tank.shutdown(60.0)

    books = tank.stats().metrics
    assert books.spooled == books.offered >= 1000
