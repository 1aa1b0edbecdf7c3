"""A tank under memory pressure: buffers shrink and grow back, sources are turned down, everybody who asks is told."""

import logging

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

import surgetank
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.config import MEBIBYTE
from surgetank.memory.reading import Reading
from surgetank.model import Signal
from surgetank.otel.backpressure import Valve
from surgetank.otlp.probability import BITS, RANDOMNESS, sub_keys
from surgetank.otlp.spans import snapshot
from surgetank.testing import ManualClock, silence
from surgetank.testing.filesystem import MemoryFilesystem

LIMIT = 1000 * MEBIBYTE


class Memory:
    """A probe that says what it is told to."""

    def __init__(self, level=0.3):
        self.level = level

    def __call__(self):
        return Reading(int(self.level * LIMIT), LIMIT, "test")


def tank_with(probe, **settings):
    tank, received = stepped_tank(
        silence(), probe=probe, spans=surgetank.BufferConfig(max_size=1000, schedule_delay=0.1), **settings
    )
    return tank, received


def offer(tank, count):
    for number in range(count):
        tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))


def look(tank, times=1):
    for _ in range(times):
        tank._clock.advance(5.0)
        tank._memory.look()


def test_buffers_shrink_step_by_step_and_grow_back():
    """By half above 0.8, not below a tenth; by a tenth of the whole below 0.5; in between nothing moves."""
    memory = Memory(0.9)
    tank, _ = tank_with(memory)
    offer(tank, 1000)
    scales = []
    for level in (0.9, 0.85, 0.7, 0.7, 0.95, 0.95, 0.95, 0.6, 0.4, 0.4, 0.4):
        memory.level = level
        look(tank)
        scales.append(round(tank.stats().scale, 3))

    assert scales == [0.5, 0.25, 0.25, 0.25, 0.125, 0.1, 0.1, 0.1, 0.2, 0.3, 0.4]


def test_shrinking_begins_at_what_is_used():
    """To halve what nobody uses would help nobody, while memory runs out."""
    tank, _ = tank_with(Memory(0.9))
    offer(tank, 400)

    look(tank)

    assert tank.stats().scale == pytest.approx(0.2)
    assert tank.stats().spans.queued == 200


def test_a_shrinking_buffer_drops_by_its_strategy():
    """Counted, and the law holds."""
    memory = Memory(0.9)
    tank, _ = tank_with(memory)
    offer(tank, 1000)

    look(tank)

    stats = tank.stats().spans
    assert stats.queued == 500
    assert stats.dropped == {"queue_full": 500}
    assert stats.unaccounted == 0


def test_with_a_spool_nothing_is_dropped(monkeypatch):
    """What is on disk too is let go of first."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "true")
    memory = Memory(0.3)
    tank, _ = tank_with(
        memory,
        filesystem=MemoryFilesystem(),
        spool=surgetank.SpoolConfig(dir="/spool", reserve_mb=0),
    )
    offer(tank, 1000)
    for _ in range(600):
        tank._pipelines[Signal.SPANS].seal_step()
        tank._clock.advance(0.01)
    assert tank.stats().spans.stored == 1000
    memory.level = 0.95

    look(tank, 4)

    stats = tank.stats().spans
    assert stats.dropped == {}
    assert stats.queued <= 100
    assert stats.queued + stats.spooled == 1000


def test_it_can_be_turned_off():
    """Then nothing is watched and nothing shrinks."""
    memory = Memory(0.99)
    tank, _ = tank_with(memory, memory=surgetank.MemoryConfig(adaptive=False))
    offer(tank, 1000)

    look(tank, 5)

    assert tank.stats().scale == 1.0
    assert tank.stats().spans.queued == 1000


def test_the_application_can_subscribe():
    """For example to let go of caches; a change under a tenth is no event."""
    memory = Memory(0.3)
    tank, _ = tank_with(memory)
    heard = []
    end = tank.pressure.subscribe(lambda pressure: heard.append(round(pressure.level, 2)))
    for level in (0.3, 0.35, 0.45, 0.9, 0.95, 0.5):
        memory.level = level
        look(tank)
    end()
    memory.level = 0.1
    look(tank)

    assert heard == [0.3, 0.45, 0.9, 0.5]
    assert tank.stats().pressure == pytest.approx(0.1)


def test_all_buffers_together_stay_within_the_total():
    """Each shrinks in proportion."""
    tank, _ = stepped_tank(silence(), total_memory_mb=10)
    limits = [pipeline.limits for pipeline in tank._pipelines.values()]

    assert sum(each.max_bytes for each in limits) <= 10 * MEBIBYTE
    assert [each.max_bytes // MEBIBYTE for each in limits] == [5, 2, 3]
    assert all(each.max_batch_bytes <= each.max_bytes // 8 for each in limits)


def test_a_total_that_is_not_reached_changes_nothing():
    """It is a limit and not a size."""
    tank, _ = stepped_tank(silence(), total_memory_mb=1000)

    assert tank._pipelines[Signal.SPANS].limits.max_bytes == 50 * MEBIBYTE


@pytest.mark.parametrize("value", [0, -1, "much", True])
def test_a_bad_total_is_refused(value):
    """By its name."""
    with pytest.raises(surgetank.ConfigError, match="total_memory_mb"):
        stepped_tank(silence(), total_memory_mb=value)


def test_the_valve_closes_by_halves_and_opens_by_tenths():
    """Once a second at most."""
    clock, pressure = ManualClock(), [0.9]
    valve = Valve(lambda: pressure[0], clock, floor=0.1)
    openings = []
    for level in (0.9, 0.9, 0.7, 0.9, 0.9, 0.3, 0.3):
        pressure[0] = level
        openings.append(valve.look())
        assert valve.look() == openings[-1]
        clock.advance(1.0)

    assert openings == pytest.approx([0.5, 0.25, 0.25, 0.125, 0.1, 0.2, 0.3])


def traced(tank, root=None):
    provider = TracerProvider(sampler=tank.sampler(root), shutdown_on_exit=False)
    return provider.get_tracer("app")


def test_without_pressure_the_sampler_is_as_if_it_were_not_there():
    """Every trace, and no tracestate."""
    tank, _ = tank_with(Memory(0.3))
    look(tank)
    begun = [traced(tank).start_span("root") for _ in range(50)]

    assert all(each.is_recording() for each in begun)
    assert not any(each.get_span_context().trace_state for each in begun)


def test_under_pressure_fewer_traces_begin_and_say_so():
    """By their own randomness, so that a backend's estimates stay right."""
    tank, _ = tank_with(Memory(0.95))
    look(tank)
    tracer = traced(tank)
    tank._clock.advance(1.0)
    begun = [tracer.start_span("root") for _ in range(4000)]
    kept = [each for each in begun if each.is_recording()]

    assert 1800 < len(kept) < 2200
    for each in kept:
        threshold = int(sub_keys(each.get_span_context().trace_state["ot"])["th"].ljust(BITS // 4, "0"), 16)
        assert each.get_span_context().trace_id & RANDOMNESS >= threshold
        assert threshold == 2 ** (BITS - 1)


def test_children_follow_their_parent():
    """A trace that has begun is not torn, and one that has not is not begun in the middle."""
    from opentelemetry import trace

    tank, _ = tank_with(Memory(0.95))
    look(tank)
    tracer = traced(tank)
    for _ in range(200):
        root = tracer.start_span("root")
        child = tracer.start_span("child", trace.set_span_in_context(root))
        assert child.is_recording() == root.is_recording()


def test_what_the_wrapped_sampler_refuses_stays_refused():
    """Pressure only ever takes away."""
    tank, _ = tank_with(Memory(0.3))

    assert not traced(tank, ALWAYS_OFF).start_span("root").is_recording()


def test_the_log_filters_level_rises_and_falls():
    """Warnings always pass."""
    memory = Memory(0.3)
    tank, _ = tank_with(memory)
    passes = tank.log_filter().filter

    def levels():
        tank._clock.advance(1.0)
        return [
            level
            for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)
            if passes(logging.LogRecord("app", level, "", 0, "", (), None))
        ]

    look(tank)
    assert len(levels()) == 4
    memory.level = 0.95
    look(tank)
    assert levels() == [logging.WARNING, logging.ERROR]
    memory.level = 0.3
    look(tank)
    for _ in range(3):
        levels()
    assert levels() == [logging.INFO, logging.WARNING, logging.ERROR]
    for _ in range(5):
        levels()
    assert len(levels()) == 4
