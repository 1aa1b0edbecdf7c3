"""When a batch may go: backoff, Retry-After, pace and evidence together."""

import random

import pytest

from surgetank.config import Timing
from surgetank.delivery.backoff import exponential
from surgetank.delivery.outlet import Evidence, Outlet
from surgetank.delivery.pacer import RATE_FREE, RATE_INITIAL, RATE_MIN, Pacer
from surgetank.model import BreakerState
from surgetank.testing import delivered, hold, permanent, retry, silence

STEADY = Timing(
    backoff_initial=0.5, backoff_factor=2.0, backoff_max=4.0, cooldown_initial=1.0, cooldown_max=30.0, jitter=0.0
)


def outlet(threshold=100):
    return Outlet(threshold, STEADY, random.Random(0))


def attempt(way_out, verdict, now):
    way_out.begin(now)
    return way_out.settle(verdict, now)


def test_backoff_grows_to_its_ceiling_and_survives_any_count():
    """A count that would overflow a float gives the ceiling."""
    waits = [exponential(n, initial=0.5, factor=2.0, ceiling=4.0) for n in (1, 2, 3, 4, 5, 10_000)]

    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0, 4.0]


def test_failures_space_out_the_attempts():
    """Each failure in a row lengthens the wait."""
    way_out, now, waits = outlet(), 0.0, []
    for _ in range(5):
        attempt(way_out, retry(), now)
        waits.append(way_out.allowed_at() - now)
        now = way_out.allowed_at()

    assert waits == [0.5, 1.0, 2.0, 4.0, 4.0]


@pytest.mark.parametrize(("asked", "waited"), [(60.0, 60.0), (3600.0, 3600.0), (86_400.0, 3600.0), (1e18, 3600.0)])
def test_retry_after_is_kept_up_to_a_ceiling(asked, waited):
    """A receiver with a wrong clock may ask for a month: after an hour one batch goes out to see."""
    way_out = outlet()

    attempt(way_out, retry(after=asked), 0.0)

    assert way_out.allowed_at() == waited
    assert way_out.receivers_wait(10.0) == waited - 10.0
    assert way_out.receivers_wait(waited + 1.0) == 0.0


def test_retry_after_zero_does_not_undercut_the_backoff():
    """`Retry-After: 0` forever must not become a busy loop."""
    way_out = outlet()

    attempt(way_out, retry(after=0.0), 0.0)

    assert way_out.allowed_at() == 0.5


def test_neither_a_flush_nor_evidence_undercuts_retry_after():
    """What the receiver asked for holds; what we chose ourselves gives way."""
    way_out = outlet()
    attempt(way_out, retry(after=60.0), 0.0)

    way_out.hurry(1.0)
    way_out.hear(Evidence.RESPONSIVE, 1.0)

    assert way_out.allowed_at() == 60.0


def test_a_flush_knocks_at_once_and_goes_on_briskly():
    """Hurry cuts backoff and cooldown short, and keeps later waits to half a second."""
    way_out = outlet(threshold=1)
    attempt(way_out, silence(), 0.0)
    assert way_out.allowed_at() >= 1.0

    way_out.hurry(0.1)
    assert way_out.allowed_at() <= 0.1
    attempt(way_out, silence(), 0.1)

    assert way_out.allowed_at() <= 0.1 + 0.5


def test_silence_is_evidence_for_everyone_and_an_answer_is_not():
    """A refused connection concerns the endpoint; one signal's 503 or 401 concerns that signal."""
    assert attempt(outlet(), silence(), 0.0) is Evidence.UNREACHABLE
    assert attempt(outlet(), retry(), 0.0) is None
    assert attempt(outlet(), hold(), 0.0) is None


def test_a_probe_that_gets_through_is_evidence_and_starts_the_pacing():
    """The breaker closes, the others hear of it, and the backlog leaves slowly at first."""
    way_out = outlet()
    attempt(way_out, hold(), 0.0)

    evidence = attempt(way_out, delivered(), 1.0)

    assert evidence is Evidence.RESPONSIVE
    assert way_out.state is BreakerState.CLOSED
    assert way_out.allowed_at() == 1.0 + 1 / RATE_INITIAL


def test_a_refused_probe_closes_the_breaker_too():
    """400 is an answer: the endpoint lives, the batch is at fault."""
    way_out = outlet()
    attempt(way_out, hold(), 0.0)

    attempt(way_out, permanent(), 1.0)

    assert way_out.state is BreakerState.CLOSED


def test_a_healthy_outlet_does_not_pace():
    """Without an outage there is no speed limit."""
    way_out = outlet()

    attempt(way_out, delivered(), 5.0)

    assert way_out.allowed_at() <= 5.0


def test_the_pace_grows_by_steps_and_halves_on_failure():
    """Additive increase, multiplicative decrease, within the bounds; at the top it ends."""
    pacer = Pacer()
    pacer.begin()
    for _ in range(3):
        pacer.succeed()
    assert pacer.rate == 20.0
    pacer.fail()
    assert pacer.rate == 10.0
    for _ in range(10):
        pacer.fail()
    assert pacer.rate == RATE_MIN
    for _ in range(100):
        pacer.succeed()

    assert pacer.rate == RATE_FREE
    assert not pacer.is_pacing
