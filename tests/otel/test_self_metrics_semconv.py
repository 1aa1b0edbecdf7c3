"""A tank's own metrics as whoever stores them sees them: increases are seen whole, durations tell apart, series go on."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import surgetank
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.model import DropReason, Signal
from surgetank.otel.instruments import INSTRUMENTS
from surgetank.otlp.spans import snapshot
from surgetank.testing import delivered, permanent


def reported(answer=None, **settings):
    """Return a tank, and a function that collects its points: metric's name -> points."""
    tank, _ = stepped_tank(answer, self_metrics=False, **settings)
    reader = InMemoryMetricReader()
    tank.report_to(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))

    def points():
        return {
            metric.name: list(metric.data.data_points)
            for resource in reader.get_metrics_data().resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    return tank, points


def offer(tank, count):
    for number in range(count):
        tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))


def test_every_reason_to_drop_is_there_before_the_first_drop():
    """An increase is counted from a series' first value: a series that begins with the drop would hide it."""
    tank, points = reported(delivered())
    offer(tank, 1)
    found = {point.attributes["error.type"]: point.value for point in points()["surgetank.dropped"]}
    assert found == {reason.value: 0 for reason in DropReason}


def test_the_rejected_are_there_before_the_first_rejection():
    """Causes cannot be foreseen, so the sum is a metric of its own."""
    tank, points = reported(permanent())
    offer(tank, 3)
    (before,) = points()["surgetank.rejected"]
    assert before.value == 0
    tank.force_flush(5.0)
    assert tank.stats().spans.rejected == 3


def test_the_metrics_hold_every_term_of_the_accounting_law():
    """So that it can be checked from outside, too."""
    names = {instrument.name for instrument in INSTRUMENTS}
    terms = {"offered", "recovered", "rejected", "dropped", "spool.queue.size", "unaccounted"}
    assert {f"surgetank.{term}" for term in terms} <= names
    assert {f"otel.sdk.exporter.span.{term}" for term in ("exported", "inflight")} <= names


@pytest.mark.parametrize(
    ("name", "longest"), [("surgetank.attempt.duration", 10.0), ("otel.sdk.exporter.operation.duration", 86400.0)]
)
def test_durations_are_told_apart_below_a_second_and_up_to_the_longest(name, longest):
    """The SDK's own boundaries are milliseconds': everything below 5 s would be one bucket."""
    tank, points = reported(delivered())
    offer(tank, 1)
    tank.force_flush(5.0)
    (point,) = points()[name]
    assert len([bound for bound in point.explicit_bounds if bound < 1.0]) >= 5
    assert point.explicit_bounds[-1] == longest


def test_a_tank_keeps_its_name_with_another_provider():
    """Or its counters would end and begin anew where nothing has changed."""
    tank, points = reported(delivered())
    offer(tank, 1)
    (before,) = points()["surgetank.offered"]
    reader = InMemoryMetricReader()
    tank.report_to(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    named = {
        point.attributes["otel.component.name"]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("surgetank.") and metric.name != "surgetank.attempt.duration"
        for point in metric.data.data_points
    }
    assert named == {before.attributes["otel.component.name"]}


def test_two_tanks_of_one_provider_have_names_of_their_own():
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    tanks = [stepped_tank(self_metrics=False)[0] for _ in range(2)]
    for tank in tanks:
        tank.report_to(provider)
        offer(tank, 1)
    (series,) = [
        [frozenset(point.attributes.items()) for point in metric.data.data_points]
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "surgetank.offered"
    ]
    assert len(series) == len(set(series)) == 2


def test_counters_never_fall_while_items_are_lost_in_every_way():
    """What was tried before it was dropped is taken out of the processor's count: that may not make it smaller."""
    tank, points = reported(delivered(rejected=1), spans=surgetank.BufferConfig(max_size=8, max_export_batch_size=4))
    names = {instrument.name for instrument in INSTRUMENTS if instrument.kind == "counter"}
    last = {}
    for turn in range(6):
        offer(tank, 10)
        if turn % 2:
            tank.force_flush(5.0)
        for name, found in points().items():
            for point in found if name in names else ():
                key = name, frozenset(point.attributes.items())
                assert point.value >= last.get(key, 0), key
                last[key] = point.value
    assert tank.stats().spans.rejected
    assert tank.stats().spans.dropped["queue_full"]
