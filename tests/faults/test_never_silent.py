"""Whatever is dropped, the log has said so by then, health says so, and the counts at the end are exact; of every reason there is."""

import logging
import os
import time
from dataclasses import replace

import pytest

from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank import BufferConfig, DropReason, SpoolConfig, Tank
from surgetank.catalogue.entries import variables
from surgetank.episodes import LATELY, OUTAGE_TOLD_AFTER, REMEDIES
from surgetank.health import HealthState
from surgetank.model import Outcome, Signal, Verdict
from surgetank.otlp.spans import snapshot
from surgetank.spool.record import HEAD_SIZE, SLOT_SIZE
from surgetank.spool.segment import SLOTS
from surgetank.testing import ManualClock, ScriptedSender, delivered, hold, retry, silence
from surgetank.testing.filesystem import MemoryFilesystem

HARD = {"spool": SpoolConfig(dir="/spool", reserve_mb=0, max_mb=1), "persistence_enabled": True}


@pytest.fixture(autouse=True)
def _said(caplog):
    caplog.set_level(logging.INFO, "surgetank")


def lines(caplog, beginning):
    return [record.getMessage() for record in caplog.records if record.getMessage().startswith(beginning)]


def make(answer=None, **settings):
    tank, _ = stepped_tank(silence() if answer is None else answer, **settings)
    return tank


def offer(tank, *numbers, **more):
    for number in numbers:
        tank._pipelines[Signal.SPANS].offer(snapshot(span(number, **more)))


def queue_full():
    tank = make(spans=BufferConfig(max_size=10))
    offer(tank, *range(25))
    return tank


def memory_limit():
    tank = make(spans=BufferConfig(max_memory_mb=0.5))
    for number in range(200):
        offer(tank, number, attributes={"payload": "x" * 10_000})
    return tank


def sampled():
    tank = make(spans=BufferConfig(max_size=64, drop_strategy="sampling"))
    for number in range(500):
        offer(tank, number, trace_id=number * 7919 + 1)
    assert "sampled" in tank.stats().spans.dropped
    return tank


def too_large():
    tank = make(spans=BufferConfig(max_memory_mb=0.5))
    offer(tank, 1, attributes={"payload": "x" * 1_000_000})
    return tank


def unencodable():
    tank = make(delivered())
    tank._pipelines[Signal.SPANS].offer(object())
    tank.force_flush(1.0)
    return tank


def shutdown():
    tank = make()
    offer(tank, *range(7))
    tank.shutdown()
    return tank


def already_shutdown():
    tank = make()
    tank.shutdown()
    offer(tank, *range(7))
    return tank


def spool_full():
    tank = make(filesystem=MemoryFilesystem(), spans=BufferConfig(max_size=32, max_export_batch_size=8), **HARD)
    for number in range(0, 1000, 8):
        for each in range(number, number + 8):
            offer(tank, each, attributes={"payload": os.urandom(1000).hex()})
        tank.force_flush(0.1)
    return tank


def expired():
    settings = {**HARD, "spool": replace(HARD["spool"], max_age=60.0)}
    tank = make(filesystem=MemoryFilesystem(), spans=BufferConfig(max_size=16, max_export_batch_size=8), **settings)
    for number in range(0, 64, 8):
        offer(tank, *range(number, number + 8))
        tank.force_flush(0.1)
    tank._clock.advance(10_000)
    tank.force_flush(0.1)
    return tank


def damaged():
    filesystem = MemoryFilesystem()
    tank = make(filesystem=filesystem, spans=BufferConfig(max_size=16, max_export_batch_size=8), **HARD)
    for number in range(0, 64, 8):
        offer(tank, *range(number, number + 8))
        tank.force_flush(0.1)
    for path in [path for path in filesystem.files if path.endswith(".segment")]:
        for offset in range(HEAD_SIZE + SLOTS * SLOT_SIZE, filesystem.size_of(path), 16):
            filesystem.flip(path, offset)
    tank._clock.advance(60)
    tank.force_flush(60)
    return tank


SCENARIOS = {
    DropReason.QUEUE_FULL: queue_full,
    DropReason.MEMORY_LIMIT: memory_limit,
    DropReason.SAMPLED: sampled,
    DropReason.TOO_LARGE: too_large,
    DropReason.UNENCODABLE: unencodable,
    DropReason.SHUTDOWN: shutdown,
    DropReason.SPOOL_FULL: spool_full,
    DropReason.EXPIRED: expired,
    DropReason.DAMAGED: damaged,
    DropReason.ALREADY_SHUTDOWN: already_shutdown,
}
AT_THE_END = {DropReason.SHUTDOWN, DropReason.ALREADY_SHUTDOWN}


@pytest.mark.parametrize("reason", DropReason)
def test_no_loss_is_silent(caplog, reason):
    """A new reason needs a scenario here, and words for what to do about it."""
    tank = SCENARIOS[reason]()
    name = reason.value
    dropped = tank.stats().spans.dropped[name]
    tank.force_flush(0.0)

    (said,) = [line for line in lines(caplog, "losing spans: ") if f"({name})" in line]
    assert REMEDIES[reason].format(signal="SPANS") in said
    assert 0 < int(said.split()[2]) <= dropped
    health = tank.health()
    assert health.is_losing
    assert health.state is (HealthState.ENDED if reason in AT_THE_END else HealthState.LOSING)
    assert any(line.startswith("spans: ") and line.endswith(name) for line in health.reasons)

    tank.shutdown()
    tank.tell_last()
    final = tank.stats().spans
    assert final.unaccounted == 0
    ends = [line for line in lines(caplog, "no longer losing spans: ") if f"({name})" in line]
    if reason is DropReason.SHUTDOWN:
        ends = lines(caplog, "shut down: ")
        assert f"dropped shutdown {dropped}," in ends[0]
    else:
        assert ends[0].split()[4] == str(final.dropped[name])
    assert len(ends) == 1


@pytest.mark.parametrize("reason", DropReason)
def test_every_setting_that_a_line_names_exists(reason):
    words = REMEDIES[reason].format(signal="METRICS").replace("(", " ").replace(")", " ").replace(",", " ").split()
    named = {word.partition("=")[0] for word in words if word.startswith("SURGETANK_")}
    assert named <= variables()


def test_a_loss_is_told_at_its_beginning_and_once_it_is_over(caplog):
    """However often it happens in between; a minute without it ends it, and the next one is another."""
    tank = make(spans=BufferConfig(max_size=10, drop_strategy="newest"))
    offer(tank, *range(15))
    tank.force_flush(0.1)
    for _ in range(10):
        tank._clock.advance(LATELY / 2)
        offer(tank, *range(5))
        tank.force_flush(0.1)
    assert len(lines(caplog, "losing spans")) == 1
    assert lines(caplog, "no longer losing") == []

    lost = tank.stats().spans.dropped["queue_full"]
    tank._clock.advance(LATELY)
    tank.force_flush(0.1)
    (end,) = lines(caplog, "no longer losing")
    assert end.startswith(f"no longer losing spans: {lost} dropped in 3")
    assert tank.health().state is not HealthState.LOSING

    offer(tank, *range(3))
    tank.force_flush(0.1)
    assert len(lines(caplog, "losing spans: 3 dropped so far (queue_full)")) == 1


def test_losses_of_several_kinds_have_a_line_each(caplog):
    tank = make(spans=BufferConfig(max_size=10, max_memory_mb=0.5))
    offer(tank, *range(15))
    offer(tank, 16, attributes={"payload": "x" * 1_000_000})
    tank.force_flush(0.1)

    assert len(lines(caplog, "losing spans")) == 2


def wait_for(condition):
    until = time.monotonic() + 5
    while not condition() and time.monotonic() < until:
        time.sleep(0.005)
    return condition()


def test_a_loss_is_told_while_it_happens_without_anybody_asking(caplog):
    """By a thread of ours, which is started for that."""
    tank = Tank(
        handle_sigterm=False,
        spans=BufferConfig(max_size=10),
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=silence()),
    )
    try:
        for number in range(50):
            tank.span_processor.on_end(span(number))

        assert wait_for(lambda: lines(caplog, "losing spans"))
    finally:
        tank.shutdown(0.1)


def test_what_comes_after_the_end_is_told_once_without_anybody_asking(caplog):
    tank = Tank(handle_sigterm=False, make_sender=lambda outlet, clock: ScriptedSender())
    tank.shutdown(1.0)
    for number in range(50):
        tank.span_processor.on_end(span(number))

    assert wait_for(lambda: lines(caplog, "losing spans"))
    tank.tell_last()
    assert lines(caplog, "no longer losing spans: 50 dropped")


def test_nothing_is_said_to_be_held_while_something_is_lost(caplog):
    """Neither by the line of an outage, nor by that of a disk."""
    tank = make(retry(), spans=BufferConfig(max_size=10))
    offer(tank, *range(30))
    tank.force_flush(10.0)

    (outage,) = lines(caplog, "outage began")
    assert outage.endswith("; telemetry is being lost")
    assert not any("telemetry is held" in record.getMessage() for record in caplog.records)


def outage_tank(answers):
    script = list(answers)
    tank = Tank(
        is_threaded=False,
        handle_sigterm=False,
        clock=ManualClock(),
        make_sender=lambda outlet, clock: ScriptedSender(script),
    )
    return tank, tank._pipelines[Signal.SPANS]


def test_an_outage_is_told_within_seconds_and_its_counts_begin_with_the_first_failure(caplog):
    """Long before the breaker opens."""
    tank, pipeline = outage_tank([silence()] * 5)
    offer(tank, *range(10))
    while not lines(caplog, "outage began"):
        tank._clock.advance(max(0.1, min(1.0, pipeline.run_once())))
        assert tank._clock.monotonic() - ManualClock().monotonic() < 3 * OUTAGE_TOLD_AFTER
    assert lines(caplog, "outage began")[0].endswith("telemetry is held")

    while not lines(caplog, "outage ended"):
        tank._clock.advance(max(0.1, min(1.0, pipeline.run_once())))

    (end,) = lines(caplog, "outage ended")
    assert "spans delivered 10, rejected 0, dropped 0" in end
    assert float(end.split(" after ")[1].split()[0]) > OUTAGE_TOLD_AFTER


def test_a_receiver_that_asks_for_a_minute_is_told_of_within_seconds(caplog):
    """Though no attempt, and so no answer, comes before that."""
    tank, pipeline = outage_tank([retry(after=60.0)])
    offer(tank, 1)
    while not pipeline.run_once() > 5.0:
        tank._clock.advance(0.5)
    assert lines(caplog, "outage began") == []

    tank._clock.advance(OUTAGE_TOLD_AFTER)
    tank._teller.step_here()

    assert len(lines(caplog, "outage began")) == 1


def test_a_single_failure_is_no_outage(caplog):
    tank, pipeline = outage_tank([silence()])
    offer(tank, 1)
    for _ in range(50):
        tank._clock.advance(max(0.1, min(1.0, pipeline.run_once())))
        tank._teller.step_here()

    assert tank.stats().spans.delivered == 1
    assert lines(caplog, "outage") == []


def test_an_answer_that_people_must_act_upon_is_told_at_once(caplog):
    tank, pipeline = outage_tank([hold()])
    offer(tank, 1)
    while not lines(caplog, "outage began"):
        tank._clock.advance(0.5)
        pipeline.run_once()
    assert Verdict(outcome=Outcome.HOLD, cause="401").cause in lines(caplog, "outage began")[0]


def test_a_process_that_ends_in_the_first_seconds_of_an_outage_tells_of_it(caplog):
    tank = make(filesystem=MemoryFilesystem(), **HARD)
    offer(tank, *range(5))

    assert tank.shutdown()

    assert len(lines(caplog, "outage began")) == 1
