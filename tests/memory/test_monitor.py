"""The monitor: its hysteresis, its pace, and what subscribers hear."""

import logging
from itertools import pairwise

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from surgetank.memory.monitor import QUICKEST, Monitor
from surgetank.memory.reading import NO_READING, Reading
from surgetank.memory.settings import MemorySettings
from surgetank.model import FOREVER
from surgetank.testing import ManualClock

LIMIT = 1_000_000


class Bench:
    """A monitor, its clock, and a memory whose level is set by hand."""

    def __init__(self, **settings):
        self.level = 0.0
        self.source = "cgroup_v2"
        self.failure = None
        self.samples = 0
        self.clock = ManualClock()
        self.monitor = Monitor(self.probe, self.clock, MemorySettings(**settings))

    def probe(self):
        self.samples += 1
        if self.failure is not None:
            raise self.failure
        return None if self.level is None else Reading(round(self.level * LIMIT), LIMIT, self.source)

    def sample(self, level):
        """Let a long time pass, sample at this level, and return the scale."""
        self.clock.advance(3600)
        self.level = level
        self.monitor.step()
        return self.monitor.scale

    def samples_at(self, level, count):
        return [self.sample(level) for _ in range(count)]


def test_buffers_have_their_full_size_at_first():
    """Nothing is known before the first sample."""
    current = Bench().monitor.current

    assert (current.level, current.scale, current.reading) == (0.0, 1.0, NO_READING)


def test_each_sample_above_halves_the_scale_down_to_the_floor():
    """And no further."""
    assert Bench().samples_at(0.9, 6) == [0.5, 0.25, 0.125, 0.1, 0.1, 0.1]
    assert Bench(floor=0.3).samples_at(0.9, 3) == [0.5, 0.3, 0.3]


def test_each_sample_below_adds_a_tenth_up_to_the_full_size():
    """Growing takes longer than shrinking."""
    bench = Bench()
    bench.samples_at(0.9, 4)

    scales = bench.samples_at(0.3, 11)

    assert scales == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.0, 1.0])
    # Not a rounding error below it.
    assert scales[8:] == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("level", [0.5, 0.65, 0.8])
def test_between_the_thresholds_nothing_moves(level):
    """The thresholds themselves lie between."""
    bench = Bench()
    assert bench.samples_at(level, 3) == [1.0, 1.0, 1.0]
    bench.samples_at(0.9, 2)
    assert bench.samples_at(level, 3) == [0.25, 0.25, 0.25]


def test_just_beyond_a_threshold_it_moves():
    """By any amount."""
    bench = Bench()

    assert bench.sample(0.800001) == 0.5
    assert bench.sample(0.499999) == 0.6


def test_the_thresholds_are_settings():
    """Of whoever runs the application."""
    bench = Bench(reduce_above=0.3, restore_below=0.2)

    assert [bench.sample(level) for level in (0.31, 0.25, 0.19)] == [0.5, 0.5, 0.6]


def test_a_level_beyond_the_limit_is_above():
    """The kernel lets `memory.high` be exceeded."""
    bench = Bench()

    assert bench.sample(1.7) == 0.5
    assert bench.monitor.current.level == 1.7


def test_the_rest_is_a_period():
    """Five seconds unless told otherwise."""
    bench = Bench()
    bench.level = 0.9
    assert bench.monitor.step() == 5.0
    bench.clock.advance(5.0)
    assert bench.monitor.step() == 5.0
    assert Bench(period=60.0).monitor.step() == 60.0


def test_a_step_before_its_time_samples_nothing():
    """Or whoever wakes the thread would quicken the pace of shrinking."""
    bench = Bench()
    bench.level = 0.9
    bench.monitor.step()
    bench.clock.advance(2.0)

    assert bench.monitor.step() == pytest.approx(3.0)
    assert (bench.samples, bench.monitor.scale) == (1, 0.5)

    bench.clock.advance(3.0)
    bench.monitor.step()
    assert (bench.samples, bench.monitor.scale) == (2, 0.25)


@pytest.mark.parametrize(
    ("first", "second", "rest"),
    [
        # 10 % in 5 s, 80 % left: 40 s.
        (0.1, 0.2, 5.0),
        # 40 % in 5 s, 40 % left: 5 s.
        (0.2, 0.6, 2.5),
        # 30 % in 5 s, 60 % left: 10 s, which is two periods.
        (0.1, 0.4, 5.0),
        (0.1, 0.41, 4.758),
        # Almost there, and beyond.
        (0.2, 0.99, QUICKEST),
        (0.2, 1.2, QUICKEST),
        # Falling, and level.
        (0.9, 0.5, 5.0),
        (0.99, 0.99, 5.0),
    ],
)
def test_it_samples_sooner_when_the_limit_is_near(first, second, rest):
    """At half of the time that is left at the present rate, if that is less than two periods."""
    bench = Bench()
    bench.level = first
    bench.clock.advance(bench.monitor.step())
    bench.level = second

    assert bench.monitor.step() == pytest.approx(rest, abs=0.001)


def test_whoever_takes_much_memory_can_have_it_looked_at_sooner():
    """As soon as two samples may follow each other, and no sooner."""
    bench = Bench()
    bench.monitor.step()
    bench.clock.advance(0.2)
    bench.monitor.hasten()

    assert bench.monitor.step() == pytest.approx(QUICKEST - 0.2)
    bench.clock.advance(QUICKEST)
    bench.monitor.step()
    assert bench.samples == 2


def test_shrinking_is_done_before_a_fast_climb_reaches_the_limit():
    """A process that fills its memory in twenty seconds finds buffers at their floor before the end."""
    bench = Bench()
    scales = {}
    for _ in range(40):
        bench.level = min(1.0, 0.05 * (bench.clock.monotonic() - 1_000_000.0))
        rest = bench.monitor.step()
        scales[bench.level] = bench.monitor.scale
        if bench.level == 1.0:
            break
        bench.clock.advance(rest)

    assert min(scale for level, scale in scales.items() if level < 1.0) <= 0.125


def test_a_period_shorter_than_the_quickest_rest_stays():
    """The quick pace is never slower than the usual one."""
    bench = Bench(period=0.5)
    bench.level = 0.2
    bench.clock.advance(bench.monitor.step())
    bench.level = 0.99

    assert bench.monitor.step() == 0.5


def test_another_source_is_no_climb():
    """Their figures have nothing to do with each other."""
    bench = Bench()
    bench.level = 0.1
    bench.clock.advance(bench.monitor.step())
    bench.level, bench.source = 0.9, "host"

    assert bench.monitor.step() == 5.0


def heard(bench):
    levels = []
    return levels, bench.monitor.subscribe(lambda pressure: levels.append(pressure.level))


def test_subscribers_hear_of_changes_that_matter():
    """A change of less than a tenth since they last heard is none, and small ones add up."""
    bench = Bench()
    levels, _ = heard(bench)

    for level in (0.3, 0.35, 0.39, 0.4, 0.45, 0.31, 0.3, 0.9, 0.85, 0.81, 0.8):
        bench.sample(level)

    assert levels == [0.3, 0.4, 0.3, 0.9, 0.8]


def test_subscribers_are_given_all_there_is_to_know():
    """Level, scale and reading, as `current` has them."""
    bench = Bench()
    seen = []
    bench.monitor.subscribe(seen.append)

    bench.sample(0.9)

    assert seen == [bench.monitor.current]
    assert (seen[0].level, seen[0].scale, seen[0].reading.source) == (0.9, 0.5, "cgroup_v2")


def test_a_subscription_ends():
    """Ending it twice is ending it once, and others stay."""
    bench = Bench()
    one, end = heard(bench)
    other, _ = heard(bench)
    bench.sample(0.3)
    end()
    end()
    bench.sample(0.6)

    assert (one, other) == ([0.3], [0.3, 0.6])


def test_the_same_callback_can_subscribe_twice():
    """Each subscription is its own."""
    bench = Bench()
    levels = []
    callback = lambda pressure: levels.append(pressure.level)  # noqa: E731
    ends = [bench.monitor.subscribe(callback) for _ in range(2)]
    bench.sample(0.3)
    ends[0]()
    bench.sample(0.6)

    assert levels == [0.3, 0.3, 0.6]


def test_a_callback_may_subscribe_unsubscribe_and_ask():
    """It holds no lock of ours; whoever it ended is not called any more."""
    bench = Bench()
    levels = []
    ends = []

    def first(pressure):
        assert bench.monitor.current is pressure
        ends[0]()
        bench.monitor.subscribe(lambda pressure: levels.append(("late", pressure.level)))

    bench.monitor.subscribe(first)
    ends.append(bench.monitor.subscribe(lambda pressure: levels.append(("second", pressure.level))))
    bench.sample(0.3)
    assert levels == []

    bench.sample(0.6)
    assert levels == [("late", 0.6)]


def test_a_callback_that_raises_hurts_nobody(caplog):
    """The others are called, the monitor goes on, and one line is logged."""
    bench = Bench()

    def fail(pressure):
        raise RuntimeError("mine")

    bench.monitor.subscribe(fail)
    levels, _ = heard(bench)
    with caplog.at_level(logging.DEBUG, "surgetank"):
        for level in (0.3, 0.6, 0.9):
            bench.sample(level)

    assert levels == [0.3, 0.6, 0.9]
    assert [record.exc_text is not None or bool(record.exc_info) for record in caplog.records] == [True]
    assert "subscriber" in caplog.text


@pytest.mark.parametrize("failure", [None, OSError("gone")])
def test_knowing_nothing_changes_nothing(caplog, failure):
    """No pressure, the scale as it was, the source `none`, and one line however long it lasts."""
    bench = Bench()
    bench.samples_at(0.9, 2)
    with caplog.at_level(logging.DEBUG, "surgetank"):
        bench.failure = failure
        assert bench.samples_at(None, 3) == [0.25, 0.25, 0.25]
        current = bench.monitor.current
        assert (current.level, current.reading.source) == (0.0, "none")
        assert bench.monitor.step() == 5.0
        bench.failure = None
        assert bench.sample(0.3) == 0.35
        bench.sample(None)

    assert len(caplog.records) == 1


def test_what_is_not_adaptive_is_never_sampled():
    """And there is no next step."""
    bench = Bench(adaptive=False)
    bench.level = 0.99

    assert bench.monitor.step() == FOREVER
    assert (bench.samples, bench.monitor.scale) == (0, 1.0)


class MonitorMachine(RuleBasedStateMachine):
    """Any memory, any pace: the scale obeys the thresholds, the rest its bounds, subscribers hear what matters."""

    @initialize(
        thresholds=st.tuples(st.integers(1, 99), st.integers(1, 99)).filter(lambda pair: pair[0] < pair[1]),
        floor=st.integers(1, 100),
        period=st.sampled_from([0.5, 1.0, 5.0, 60.0]),
    )
    def begin(self, thresholds, floor, period):
        self.below, self.above = (each / 100 for each in thresholds)
        self.floor, self.period = floor / 100, period
        self.bench = Bench(reduce_above=self.above, restore_below=self.below, floor=self.floor, period=period)
        self.levels, _ = heard(self.bench)
        self.rest = 0.0

    @rule(level=st.none() | st.integers(0, 1200), early=st.booleans())
    def step(self, level, early):
        before, samples = self.bench.monitor.scale, self.bench.samples
        is_early = early and self.rest > 0.01
        self.bench.clock.advance(self.rest / 2 if is_early else self.rest)
        self.bench.level = None if level is None else level / 1000
        self.rest = self.bench.monitor.step()

        scale = self.bench.monitor.scale
        assert self.bench.samples == samples + (not is_early)
        if is_early or level is None or self.below <= level / 1000 <= self.above:
            assert scale == before
        elif level / 1000 > self.above:
            assert scale == max(self.floor, before / 2)
        else:
            assert scale == pytest.approx(min(1.0, before + 0.1))

    @invariant()
    def bounds(self):
        assert self.floor <= self.bench.monitor.scale <= 1.0
        assert self.rest <= self.period

    @invariant()
    def subscribers_hear_steps_of_a_tenth(self):
        assert all(abs(one - two) > 0.1 - 1e-6 for one, two in pairwise(self.levels))
        if self.levels:
            assert abs(self.levels[-1] - self.bench.monitor.current.level) < 0.1


TestMonitorMachine = MonitorMachine.TestCase
TestMonitorMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None, derandomize=True)
