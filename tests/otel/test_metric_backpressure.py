"""Metrics under pressure: collections become rarer, and no part of a total is lost."""

from opentelemetry.sdk.metrics import MeterProvider

import surgetank
from fakes.tanks import stepped_tank
from surgetank.testing import delivered, silence

DELTA = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


def metered_tank(answers, **limits):
    """Return a stepped tank whose reader collects once a second, a counter of it, and what it delivered."""
    tank, received = stepped_tank(
        lambda batch: answers[0],
        metrics=surgetank.BufferConfig(**{"max_size": 64, "max_export_batch_size": 8, **limits}),
        metric_export_interval=1.0,
    )
    provider = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    return tank, provider.get_meter("app"), received


def pass_seconds(tank, seconds, each_second=lambda second: None):
    """Let the reader tick, and the pipeline do its work, once a second."""
    for second in range(seconds):
        each_second(second)
        tank._clock.advance(1.0)
        tank.metric_reader._tick()
        for _ in range(20):
            tank._pipelines[surgetank.Signal.METRICS].run_once()


def collections(tank):
    """Return how many there were; counted in points they would include what some versions measure of themselves."""
    return tank.metric_reader._collection


def test_the_deltas_delivered_after_an_outage_add_up_to_what_was_recorded(monkeypatch):
    """However long it was, and however small the buffer."""
    monkeypatch.setenv(DELTA, "delta")
    answers = [silence()]
    tank, meter, received = metered_tank(answers)
    counter = meter.create_counter("work.done")
    recorded = 0

    def work(second):
        nonlocal recorded
        for series in range(5):
            counter.add(series + 1, {"series": series})
            recorded += series + 1

    pass_seconds(tank, 2000, work)
    assert tank.stats().metrics.dropped == {}
    answers[0] = delivered()
    pass_seconds(tank, 120, work)
    tank.force_flush(60.0)

    assert tank.stats().metrics.dropped == {}
    assert sum(point.as_int for point in received.metric_points("work.done")) == recorded
    assert tank.stats().metrics.unaccounted == 0


def test_collections_become_rarer_in_an_outage_and_come_back(monkeypatch):
    """Up to sixteen intervals apart; afterwards each second again."""
    monkeypatch.setenv(DELTA, "cumulative")
    answers = [silence()]
    tank, meter, received = metered_tank(answers, max_size=5000)
    counter = meter.create_counter("work.done")
    pass_seconds(tank, 200, lambda second: counter.add(1))
    collected = collections(tank)
    assert 10 < collected < 30

    answers[0] = delivered()
    # The breaker's cooldown and what is left of the stretch are some fifty seconds at most.
    pass_seconds(tank, 120, lambda second: counter.add(1))

    assert collections(tank) - collected > 60
    assert max(point.as_int for point in received.metric_points("work.done")) >= 300


def test_another_strategy_collects_as_ever(monkeypatch):
    """Then the oldest points give way."""
    tank, meter, _ = metered_tank([silence()], drop_strategy="oldest")
    counter = meter.create_counter("work.done")

    pass_seconds(tank, 100, lambda second: counter.add(1))

    assert collections(tank) == 100
    assert tank.stats().metrics.unaccounted == 0
