"""How much is thinned out: the level and what it follows; and how logs are judged."""

import itertools
import random
import threading
from types import SimpleNamespace

import pytest
from opentelemetry._logs import SeverityNumber

from surgetank.buffer.sampling import CALM, HYSTERESIS, LOOK_EVERY, STEPS, Level, Thinning, thin_log
from surgetank.testing import ManualClock

TRACE, DEBUG, INFO, WARN, ERROR, FATAL = (
    SeverityNumber[name] for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
)


def level_after(*moments):
    """Return the level after these pairs of fill and time."""
    level = Level()
    for fill, now in moments:
        level.follow(fill, now)
    return level.number


@pytest.mark.parametrize(
    ("fill", "number"), [(0, 0), (0.49, 0), (0.5, 1), (0.59, 1), (0.6, 2), (0.75, 3), (0.8, 4), (0.9, 5), (1.5, 5)]
)
def test_the_level_rises_at_once(fill, number):
    """Long before the wall, and as far as the fill says."""
    assert level_after((fill, 0.0)) == number


def test_the_level_stays_while_the_fill_moves_within_a_step():
    """Or traces would be torn by each item that comes and goes."""
    moments = [(0.62 + random.Random(1).uniform(-0.1, 0.07), now / 10) for now in range(1000)]

    assert level_after((0.62, 0.0), *moments) == 2


def test_the_level_falls_a_step_at_a_time():
    """Each step lasts its five seconds."""
    level = Level()
    level.follow(0.95, 0.0)
    seen = []
    for tenth in range(1, 300):
        level.follow(0.0, tenth / 10)
        seen.append(level.number)

    assert [number for number, _ in itertools.groupby(seen)] == [5, 4, 3, 2, 1, 0]
    assert all(len(list(run)) >= CALM * 10 - 1 for number, run in itertools.groupby(seen) if number)


def test_the_level_falls_no_further_than_the_fill_does():
    """With a margin, so that it does not rise again at once."""
    assert level_after((0.9, 0.0), *((0.65, float(now)) for now in range(100))) == 3
    assert level_after((0.9, 0.0), (0.9 - HYSTERESIS, 100.0)) == len(STEPS)


def test_the_level_has_fallen_after_a_long_silence():
    """Nobody was there to see it become calm."""
    assert level_after((0.9, 0.0), (0.0, 1000.0)) == 0


class Full:
    """A buffer whose fill is as told."""

    def __init__(self, fill=0.0):
        self.fill = fill
        self.looks = 0
        self.counted = 0

    def is_filling(self):
        return self.fill >= 0.5

    def unsaved_fill(self):
        self.looks += 1
        return self.fill

    def thin_out(self, estimate):
        self.counted += 1


def make(buffer, clock, *, thin=lambda item, estimate, level: (item, estimate)):
    taken = []
    return Thinning(buffer, clock, thin, lambda *offer: taken.append(offer)), taken


def test_the_fill_is_looked_at_seldom_while_it_is_steady():
    """It costs a lock and a walk along the queue."""
    buffer, clock = Full(0.7), ManualClock()
    thinning, taken = make(buffer, clock)
    for _ in range(1000):
        thinning.offer("item", 1, False)
    assert (len(taken), buffer.looks) == (1000, 1)

    clock.advance(LOOK_EVERY)
    thinning.offer("item", 1, False)
    buffer.fill = 0.8
    thinning.offer("item", 1, False)

    assert (buffer.looks, thinning.level) == (3, 4)


def test_what_cannot_be_judged_is_passed_on():
    """It is counted where it cannot be encoded."""

    def thin(item, estimate, level):
        raise TypeError

    buffer = Full(1.0)
    thinning, taken = make(buffer, ManualClock(), thin=thin)

    thinning.offer(None, 7, False)

    assert taken == [(None, 7, False)]
    assert not buffer.counted


def test_while_one_thread_revises_the_level_the_others_go_by_the_old_one():
    """Nobody waits, a signal handler in the middle of it least of all."""
    buffer, clock = Full(0.5), ManualClock()
    thinning, taken = make(buffer, clock)
    thinning.offer("first", 1, False)
    buffer.fill = 1.0
    seen = []

    def visit():
        offerer = threading.Thread(target=thinning.offer, args=("other thread", 1, False))
        offerer.start()
        offerer.join(10)
        thinning.offer("this thread", 1, False)
        seen.append(thinning.level)
        return 1.0

    buffer.unsaved_fill = visit
    thinning.offer("second", 1, False)

    assert [item for item, *_ in taken] == ["first", "other thread", "this thread", "second"]
    assert (seen, thinning.level) == ([1], 5)


def test_a_forked_child_begins_without_thinning():
    """Its buffer is empty."""
    buffer = Full(1.0)
    thinning, _ = make(buffer, ManualClock())
    thinning.offer("item", 1, False)
    assert thinning.level

    thinning.reset()

    assert not thinning.level


def record(severity, trace_id=0, timestamp=None, observed=None):
    return SimpleNamespace(
        severity_number=severity, trace_id=trace_id, timestamp=timestamp, observed_timestamp=observed
    )


def is_kept(log, level):
    return thin_log(log, 1, level) is not None


def test_the_lowest_severity_goes_first():
    """At every level, of one trace: who stays, stays with everything graver."""
    severities = [TRACE, DEBUG, INFO, WARN, ERROR, FATAL]
    rng = random.Random(2)
    for trace_id, level in itertools.product([rng.getrandbits(128) for _ in range(500)], range(1, 6)):
        kept = [is_kept(record(severity, trace_id), level) for severity in severities]
        assert kept == sorted(kept)
    shares = [
        [
            sum(is_kept(record(severity, 1 << 56 | number << 44), level) for number in range(4096))
            for severity in severities
        ]
        for level in range(1, 6)
    ]
    assert shares[0] == [1024, 2048, 4096, 4096, 4096, 4096]
    assert shares[2] == [64, 128, 1024, 2048, 4096, 4096]
    assert shares[4] == [4, 8, 64, 256, 1024, 1024]


def test_logs_of_one_trace_and_severity_stay_together():
    """Whatever else they say."""
    rng = random.Random(3)
    for trace_id in [rng.getrandbits(128) for _ in range(200)]:
        kept = {is_kept(record(INFO, trace_id, timestamp=number), 4) for number in range(10)}
        assert len(kept) == 1


@pytest.mark.parametrize("severity", [None, SimpleNamespace(value=0), SimpleNamespace(value=99), INFO])
def test_a_severity_that_is_not_known_counts_as_info(severity):
    """Neither the first to go nor the last."""
    kept = [is_kept(record(severity, 1 << 56 | number << 44), 3) for number in range(4096)]

    assert sum(kept) == 1024


@pytest.mark.parametrize("step", [0, 1, 1000, 16_000_000])
def test_logs_without_a_trace_are_thinned_out_by_chance(step):
    """Even of those that a coarse clock gives one time."""
    logs = [
        record(INFO, None, timestamp=1_700_000_000 * 10**9 + number * step, observed=None) for number in range(8192)
    ]

    kept = sum(is_kept(log, 3) for log in logs)

    assert abs(kept - 2048) < 5 * (8192 * 0.25 * 0.75) ** 0.5
