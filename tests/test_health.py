"""How a tank fares: held is not lost, lately is a minute, and a collector's outage is not the application's."""

from dataclasses import replace

import surgetank
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.episodes import LATELY
from surgetank.health import HealthState, Watch
from surgetank.model import BreakerState, Signal, SignalStats, TankStats
from surgetank.otlp.spans import snapshot
from surgetank.testing import ManualClock, delivered, permanent, silence

NOTHING = SignalStats()


def stats(**spans):
    return TankStats(spans=SignalStats(**spans), metrics=NOTHING, logs=NOTHING)


def judge(watch, **spans):
    return watch.judge(stats(**spans), is_ended=False)


def test_a_tank_that_has_nothing_to_do_is_well():
    watch = Watch(ManualClock())
    assert judge(watch).state is HealthState.IDLE
    assert judge(watch, offered=1, delivered=1).state is HealthState.DELIVERING
    assert judge(watch, recovered=1, delivered=1).state is HealthState.DELIVERING


def test_an_outage_is_held_and_the_application_stays_ready():
    health = judge(Watch(ManualClock()), offered=7, queued=7, breaker=BreakerState.OPEN, trouble="503: come back later")
    assert (health.state, health.is_ready) == (HealthState.HOLDING, True)
    assert health.reasons == ("spans: 7 held, the endpoint does not take them: 503: come back later",)


def test_a_signal_with_nothing_to_send_is_no_outage():
    """Its breaker has heard of the others' outage, and will only learn of the end when it has something to try."""
    assert (
        judge(Watch(ManualClock()), offered=3, delivered=3, breaker=BreakerState.OPEN).state is HealthState.DELIVERING
    )


def test_a_loss_is_reported_for_a_minute():
    clock = ManualClock()
    watch = Watch(clock)
    assert judge(watch, offered=9, delivered=9).state is HealthState.DELIVERING
    lost = {"offered": 12, "delivered": 9, "dropped": {"queue_full": 3}}
    assert judge(watch, **lost).state is HealthState.LOSING
    clock.advance(LATELY - 1)
    assert judge(watch, **lost).reasons == ("spans: 3 lost so far, the latest within a minute: queue_full",)
    clock.advance(1)
    assert judge(watch, **lost).state is HealthState.DELIVERING
    again = {**lost, "offered": 13, "dropped": {"queue_full": 4}}
    assert judge(watch, **again).state is HealthState.LOSING


def test_what_is_thinned_out_is_lost_all_the_same():
    """It was asked for, and people want to know while it happens."""
    health = judge(Watch(ManualClock()), offered=5, dropped={"sampled": 3})
    assert (health.state, health.is_losing) == (HealthState.LOSING, True)


def test_a_refusal_for_good_is_a_loss_and_names_the_answer():
    health = judge(Watch(ManualClock()), offered=2, rejected=2, rejected_by_cause={"400": 2})
    assert health.state is HealthState.LOSING
    assert "refused for good (400)" in health.reasons[0]


def test_a_backlog_that_is_not_sent_although_the_endpoint_answers_is_held_and_says_why():
    health = judge(Watch(ManualClock()), recovered=5, spooled=5, stalled="memory has no room for the next batch")
    assert health.state is HealthState.HOLDING
    assert health.reasons == ("spans: 5 wait on disk and are not sent: memory has no room for the next batch",)


def test_a_disk_and_a_memory_that_fail_are_named():
    found = replace(stats(), is_spool_down=True, is_spool_starved=True, orphans_waiting=7, pressure=0.93, scale=0.25)
    health = Watch(ManualClock()).judge(found, is_ended=False)
    assert health.state is HealthState.HOLDING
    assert [reason.split(";")[0] for reason in health.reasons] == [
        "7 folders of dead processes wait to be taken over, a few at a time",
        "the spool cannot be written",
        "no file descriptor is left: what waits on disk is not read, and dead processes' folders are not taken over",
        "memory runs short (93% of its limit)",
    ]


def test_a_tank_says_how_it_fares_from_first_offer_to_shutdown():
    answers = [silence()]
    tank, _ = stepped_tank(lambda batch: answers[0], spans=surgetank.BufferConfig(max_size=8, max_export_batch_size=4))

    def offer(count):
        for number in range(count):
            tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))

    assert tank.health().state is HealthState.IDLE
    offer(4)
    tank.force_flush(0.0)
    tank._pipelines[Signal.SPANS].run_once()
    assert tank.health().state is HealthState.HOLDING
    offer(20)
    assert tank.health().state is HealthState.LOSING
    answers[0] = delivered()
    tank._clock.advance(120.0)
    tank.force_flush(60.0)
    tank._clock.advance(LATELY)
    assert tank.health().as_data() == {"state": "delivering", "is_ready": True, "reasons": []}
    tank.shutdown()
    assert (tank.health().state, tank.health().is_ready) == (HealthState.ENDED, False)


def test_refusals_are_counted_by_what_the_receiver_answered():
    """A request refused as a whole by its status, items of one that was taken as `rejected`."""
    for answer, causes in ((delivered(rejected=1), {"rejected": 1}), (permanent(), {"400": 2})):
        tank, _ = stepped_tank(answer)
        for number in range(2):
            tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))
        tank.force_flush(5.0)
        assert tank.stats().spans.rejected_by_cause == causes


def test_a_forked_childs_first_loss_is_a_loss_though_its_parent_lost_more():
    watch = Watch(clock := ManualClock())
    judge(watch, dropped={"full": 10})
    clock.advance(2 * LATELY)
    assert judge(watch, offered=10, dropped={"full": 10}).state is HealthState.DELIVERING

    watch.forget()

    assert judge(watch, dropped={"full": 1}).state is HealthState.LOSING


def test_whoever_comes_with_older_books_does_not_renew_a_loss():
    """Two threads ask: one has read the books before the other, and is judged after it."""
    watch = Watch(clock := ManualClock())
    judge(watch, dropped={"full": 10})
    clock.advance(2 * LATELY)

    judge(watch, dropped={"full": 9})

    assert judge(watch, offered=10, dropped={"full": 10}).state is HealthState.DELIVERING
