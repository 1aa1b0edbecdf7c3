"""What people are told of a receiver that refuses for good: the first time, and seldom after that."""

import logging

import pytest

from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.delivery.endpoint import REFUSAL_PERIOD
from surgetank.model import Outcome, Signal, Verdict
from surgetank.otlp.spans import snapshot
from surgetank.testing import delivered


def refusals(caplog):
    return [record.getMessage() for record in caplog.records if "for good" in record.getMessage()]


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (Verdict(outcome=Outcome.PERMANENT, cause="400", message="no such attribute"), "400: no such attribute"),
        (Verdict(outcome=Outcome.DELIVERED, cause="200", rejected=1, message="one is too old"), "200: one is too old"),
    ],
)
def test_a_refusal_for_good_is_said_with_the_receivers_words(caplog, answer, cause):
    """Once in five minutes: the next thousand say nothing new."""
    caplog.set_level(logging.WARNING, "surgetank")
    tank, _ = stepped_tank(answer)

    def offer():
        tank._pipelines[Signal.SPANS].offer(snapshot(span(0)))
        tank.force_flush(5.0)

    for _ in range(20):
        offer()
    (line,) = refusals(caplog)
    assert f"refuses spans for good ({cause})" in line
    tank._clock.advance(REFUSAL_PERIOD)
    offer()
    assert len(refusals(caplog)) == 2


def test_what_is_taken_is_not_spoken_of(caplog):
    tank, _ = stepped_tank(delivered())
    tank._pipelines[Signal.SPANS].offer(snapshot(span(0)))
    tank.force_flush(5.0)
    assert refusals(caplog) == []
