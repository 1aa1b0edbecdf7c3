"""The fakes keep the contracts of the real things: one suite, run over both."""

import socket

import pytest

from fakes.batches import batch
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.otlp_http import HttpSender
from surgetank.model import Outcome
from surgetank.testing import (
    ManualClock,
    ScriptedSender,
    behaviour,
    delivered,
    hold,
    permanent,
    retry,
    silence,
    too_large,
)
from surgetank.testing.collector import Collector


@pytest.mark.parametrize("make", [SystemClock, ManualClock])
def test_a_clock_goes_forward_and_sleeping_takes_the_time_it_says(make):
    """Monotonic never goes back, and `sleep` moves both readings."""
    clock = make()
    monotonic, now = clock.monotonic(), clock.now()

    clock.sleep(0.01)

    assert 0.01 <= clock.monotonic() - monotonic < 0.5
    assert clock.now() - now >= 0.009


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


def answered(collector, how):
    """Return what the real sender makes of a collector that behaves like this."""
    collector.behave(how)
    sender = HttpSender(OutletConfig(url=f"{collector.endpoint}/v1/traces"), SystemClock())
    try:
        return sender.send(batch(body=b""), 2.0)
    finally:
        sender.close()


@pytest.mark.parametrize(
    ("fake", "how"),
    [
        (delivered(), behaviour.OK),
        (delivered(rejected=1), behaviour.partial(1)),
        (retry(), behaviour.status(503)),
        (retry(after=7.0), behaviour.status(503, retry_after="7")),
        (hold(), behaviour.status(401)),
        (too_large(), behaviour.status(413)),
        (permanent(), behaviour.status(400)),
    ],
    ids=str,
)
def test_a_scripted_verdict_is_what_a_real_answer_is_judged_to_be(collector, fake, how):
    """Outcome, cause, rejected items, the wait that was asked for, and whether anybody answered."""
    real = answered(collector, how)

    for name in ("outcome", "cause", "rejected", "retry_after", "reached"):
        assert getattr(fake, name) == getattr(real, name), name


def test_scripted_silence_is_what_a_refused_connection_is_judged_to_be():
    """No answer at all."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{placeholder.getsockname()[1]}/v1/traces"
        sender = HttpSender(OutletConfig(url=url), SystemClock())
        real = sender.send(batch(), 2.0)
        sender.close()

    fake = silence()
    assert (fake.outcome, fake.cause, fake.reached) == (real.outcome, real.cause, real.reached)


def test_both_senders_take_abort_close_and_abandon_at_any_time(collector):
    """Before a send, after one, and again; and a send after `close` opens anew."""
    outlet = OutletConfig(url=f"{collector.endpoint}/v1/traces")
    for sender in (ScriptedSender(), HttpSender(outlet, SystemClock())):
        for end in (sender.abort, sender.close, sender.abandon):
            end()
            end()
            assert sender.send(batch(body=b""), 2.0).outcome is Outcome.DELIVERED
        sender.close()
