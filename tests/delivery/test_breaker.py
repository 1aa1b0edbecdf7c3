"""The circuit breaker: its table, its cooldowns, its one probe."""

import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from surgetank.config import Timing
from surgetank.delivery.breaker import TRANSITIONS, Breaker, Event, IllegalTransitionError
from surgetank.model import FOREVER, BreakerState

STEADY = Timing(cooldown_initial=1.0, cooldown_factor=2.0, cooldown_max=30.0, jitter=0.0)


def breaker(threshold=3, timing=STEADY):
    return Breaker(threshold, timing, random.Random(1))


def open_breaker(**kwargs):
    b = breaker(**kwargs)
    b.fail(0.0, trip=True)
    return b


def test_it_opens_after_exactly_the_threshold_of_failures_in_a_row():
    """Two failures leave a breaker of threshold three closed, the third opens it."""
    b = breaker()
    b.fail(0.0)
    b.fail(0.0)
    assert b.state is BreakerState.CLOSED

    b.fail(0.0)

    assert b.state is BreakerState.OPEN


def test_a_success_begins_the_count_anew():
    """Failures that are not consecutive never open it."""
    b = breaker()
    for _ in range(5):
        b.fail(0.0)
        b.fail(0.0)
        b.succeed(0.0)

    assert b.state is BreakerState.CLOSED


def test_an_answer_that_people_must_repair_opens_it_at_once():
    """`trip` does not wait for the threshold."""
    assert open_breaker().state is BreakerState.OPEN


def test_nothing_may_be_sent_before_the_cooldown_has_passed():
    """The open breaker names the moment of its probe."""
    assert open_breaker().allowed_at() == 1.0


def test_the_probe_is_one_batch():
    """While it is out, nothing else may go, however long it takes."""
    b = open_breaker()

    b.begin(1.0)

    assert b.state is BreakerState.HALF_OPEN
    assert b.allowed_at() == FOREVER


def test_a_probe_that_gets_through_closes_it():
    """One success is enough."""
    b = open_breaker()
    b.begin(1.0)

    b.succeed(1.5)

    assert b.state is BreakerState.CLOSED
    assert b.allowed_at() == 0.0


def test_each_failed_probe_doubles_the_cooldown_up_to_the_maximum():
    """1, 2, 4 … seconds, and never more than `cooldown_max`."""
    b, now, cooldowns = open_breaker(), 0.0, []
    for _ in range(8):
        cooldowns.append(b.allowed_at() - now)
        now = b.allowed_at()
        b.begin(now)
        b.fail(now)

    assert cooldowns == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_next_outage_begins_with_the_first_cooldown_again():
    """A success forgets how long the last outage was."""
    b = open_breaker()
    b.begin(1.0)
    b.fail(1.0)
    b.begin(3.0)
    b.succeed(3.0)

    b.fail(10.0, trip=True)

    assert b.allowed_at() == 11.0


def test_cooldowns_of_a_fleet_are_spread_by_jitter():
    """Each is drawn from 1 - jitter to 1 + jitter times the nominal length."""
    timing = Timing(cooldown_initial=10.0, jitter=0.2)
    drawn = set()
    for seed in range(50):
        b = Breaker(1, timing, random.Random(seed))
        b.fail(0.0)
        drawn.add(b.allowed_at())

    assert len(drawn) == 50
    assert all(8 <= cooldown <= 12 for cooldown in drawn)


def test_another_signals_probe_ends_the_cooldown():
    """It lets our probe go at once, and does not replace it."""
    b = open_breaker()

    b.hear_success()

    assert b.state is BreakerState.HALF_OPEN
    assert b.allowed_at() == 0.0
    b.begin(0.25)
    assert b.allowed_at() == FOREVER


def test_an_application_that_waits_ends_the_cooldown():
    """`hasten` lets the probe go now; the state moves when it goes."""
    b = open_breaker()

    b.hasten(0.25)

    assert b.allowed_at() == 0.25
    assert b.state is BreakerState.OPEN


def test_a_late_success_hastens_the_probe_but_does_not_replace_it():
    """A batch that left before the breaker opened is good news, not proof."""
    b = open_breaker()

    b.succeed(0.5)

    assert b.state is BreakerState.OPEN
    assert b.allowed_at() == 0.5


def test_what_others_could_not_reach_counts_while_closed_only():
    """Shared evidence opens a closed breaker and lengthens nobody's cooldown."""
    b = breaker()
    for _ in range(3):
        b.hear_failure(0.0)
    cooled_at = b.allowed_at()

    b.hear_failure(0.5)

    assert b.state is BreakerState.OPEN
    assert b.allowed_at() == cooled_at


@pytest.mark.parametrize("state", BreakerState)
@pytest.mark.parametrize("event", Event)
def test_a_move_that_the_table_does_not_hold_raises_and_changes_nothing(state, event):
    """Every pair of state and event is either in the table or refused."""
    b = breaker()
    b.state = state
    if event in TRANSITIONS[state]:
        b._move(event)
        assert b.state is TRANSITIONS[state][event]
    else:
        with pytest.raises(IllegalTransitionError):
            b._move(event)
        assert b.state is state


class BreakerMachine(RuleBasedStateMachine):
    """Any order of attempts, answers and evidence."""

    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(3, Timing(cooldown_initial=1.0, cooldown_max=8.0), random.Random(0))
        self.out = 0

    @rule(seconds=st.floats(0, 20))
    def time_passes(self, seconds):
        self.now += seconds

    @precondition(lambda self: self.breaker.allowed_at() <= self.now and not self.out)
    @rule()
    def a_batch_goes(self):
        self.breaker.begin(self.now)
        self.out += 1

    @precondition(lambda self: self.out)
    @rule(ok=st.booleans(), trip=st.booleans())
    def an_answer_comes(self, ok, trip):
        self.out -= 1
        was = self.breaker.state
        if ok:
            self.breaker.succeed(self.now)
            assert self.breaker.failures == 0
            if was is BreakerState.HALF_OPEN:
                assert self.breaker.state is BreakerState.CLOSED
        else:
            self.breaker.fail(self.now, trip=trip)
            if trip:
                assert self.breaker.state is BreakerState.OPEN

    @rule()
    def another_signal_fails(self):
        self.breaker.hear_failure(self.now)

    @rule()
    def another_signal_gets_through(self):
        self.breaker.hear_success()

    @rule()
    def the_application_waits(self):
        self.breaker.hasten(self.now)

    @invariant()
    def a_probe_is_out_only_while_half_open_and_something_can_always_go_some_day(self):
        if self.breaker.allowed_at() == FOREVER:
            assert self.breaker.state is BreakerState.HALF_OPEN
            assert self.out == 1
        else:
            assert self.breaker.allowed_at() <= self.now + 8.0 * 1.2


TestBreakerMachine = BreakerMachine.TestCase
