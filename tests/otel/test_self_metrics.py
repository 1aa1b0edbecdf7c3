"""A tank's own metrics: the conventions' names, `error.type` where it belongs, no feeding on themselves."""

import gc
import os
import threading
import time

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.semconv._incubating.metrics import otel_metrics

import surgetank
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.config import resolve_self_metrics
from surgetank.model import Signal
from surgetank.otel import self_metrics
from surgetank.otel.instruments import INSTRUMENTS
from surgetank.otel.self_metrics import Reports
from surgetank.otlp.spans import snapshot
from surgetank.testing import ManualClock, delivered, permanent, retry, silence


class Metered:
    """A tank that reports through a provider of the test's, collected when asked."""

    def __init__(self, answer, **settings):
        self.answer = answer
        self.tank, self.received = stepped_tank(lambda batch: self.answer, **settings)
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self.reader], shutdown_on_exit=False)
        self.clock = ManualClock()
        self.reports = Reports(self.provider, self.clock)
        self.reports.join(self.tank)

    def offer(self, count):
        for number in range(count):
            self.tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))

    def attempt(self):
        """Let what was offered become due, and be tried once."""
        for _ in range(3):
            self.tank._pipelines[Signal.SPANS].seal_step()
            self.tank._clock.advance(0.5)
        self.tank._pipelines[Signal.SPANS].deliver_step()

    def points(self):
        """Return (name, attributes) -> value, as of now."""
        self.clock.advance(1.0)
        data = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    for point in metric.data.data_points:
                        value = getattr(point, "value", None)
                        found[metric.name, frozenset(point.attributes.items())] = (
                            point.count if value is None else value
                        )
        return found

    def values(self, name):
        """Return the values of a metric by the attribute that tells them apart; None for the points without."""
        found = {}
        for (metric, attributes), value in self.points().items():
            if metric == name:
                told = dict(attributes)
                found[told.get("error.type") or told.get("surgetank.breaker.state")] = value
        return found


def test_delivered_items_are_processed_and_exported_without_an_error():
    metered = Metered(delivered())
    metered.offer(5)
    metered.tank.force_flush(5.0)
    assert metered.values("otel.sdk.processor.span.processed")[None] == 5
    assert metered.values("otel.sdk.exporter.span.exported")[None] == 5
    assert not [key for key in metered.values("otel.sdk.exporter.span.exported") if key and key != "rejected"]
    assert metered.values("otel.sdk.exporter.operation.duration") == {None: 1}
    assert metered.values("surgetank.sealed")[None] == 5
    assert metered.values("surgetank.unaccounted")[None] == 0


@pytest.mark.parametrize(
    ("answer", "cause", "items"), [(permanent(), "400", 4), (delivered(rejected=3), "rejected", 3)]
)
def test_what_the_receiver_refuses_is_exported_with_its_cause(answer, cause, items):
    """The stock HTTP exporters count a final 400 as exported without an error."""
    metered = Metered(answer)
    metered.offer(4)
    metered.tank.force_flush(5.0)
    exported = metered.values("otel.sdk.exporter.span.exported")
    assert exported[cause] == items
    assert exported[None] == 4 - items


def test_a_failed_attempt_that_is_followed_by_another_counts_nowhere():
    metered = Metered(retry())
    metered.offer(3)
    metered.attempt()
    assert not any(metered.values("otel.sdk.exporter.span.exported").values())
    assert metered.values("surgetank.attempt.duration") == {"503": 1}
    assert metered.values("otel.sdk.exporter.operation.duration") == {}
    metered.answer = delivered()
    metered.tank._clock.advance(60.0)
    metered.tank.force_flush(60.0)
    assert metered.values("otel.sdk.exporter.span.exported")[None] == 3
    assert metered.values("otel.sdk.exporter.operation.duration") == {None: 1}


def test_an_operation_lasts_from_the_first_attempt_to_the_last():
    metered = Metered(retry())
    metered.offer(1)
    metered.attempt()
    metered.tank._clock.advance(90.0)
    metered.answer = delivered()
    metered.tank.force_flush(60.0)
    data = metered.reader.get_metrics_data()
    (sums,) = [
        [point.sum for point in metric.data.data_points]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "otel.sdk.exporter.operation.duration"
    ]
    assert 90.0 <= sums[0] < 91.0


def test_drops_are_counted_in_items_and_bytes_by_reason():
    metered = Metered(silence(), spans=surgetank.BufferConfig(max_size=8, max_export_batch_size=4))
    metered.offer(20)
    assert metered.values("otel.sdk.processor.span.processed")["queue_full"] == 12
    assert metered.values("surgetank.dropped")["queue_full"] == 12
    assert metered.values("surgetank.dropped.size")["queue_full"] >= 12 * 500
    assert metered.values("otel.sdk.processor.span.queue.capacity")[None] == 8
    assert metered.values("otel.sdk.processor.span.queue.size")[None] == 8


def test_what_was_tried_and_then_dropped_is_the_exporters_loss_and_not_the_processors():
    """Counted once, where it was last."""
    metered = Metered(silence(), spans=surgetank.BufferConfig(max_size=8, max_export_batch_size=4))
    metered.offer(4)
    metered.attempt()
    metered.offer(8)
    assert metered.values("otel.sdk.processor.span.processed")[None] == 4
    assert metered.values("otel.sdk.processor.span.processed").get("queue_full", 0) == 0
    assert metered.values("otel.sdk.exporter.span.exported")["queue_full"] == 4


def test_the_breakers_state_is_one_of_three():
    metered = Metered(silence(), spans=surgetank.BufferConfig(circuit_breaker_threshold=1))
    assert metered.values("surgetank.breaker.state") == {}
    metered.offer(1)
    assert metered.values("surgetank.breaker.state") == {"closed": 1, "open": 0, "half_open": 0}
    metered.attempt()
    assert metered.values("surgetank.breaker.state") == {"closed": 0, "open": 1, "half_open": 0}


def test_age_grows_with_what_waits_and_ends_with_it():
    metered = Metered(silence())
    metered.offer(1)
    metered.attempt()
    metered.tank._clock.advance(42.0)
    assert 42.0 <= metered.values("surgetank.oldest.age")[None] < 43.0
    metered.answer = delivered()
    metered.tank.force_flush(60.0)
    assert metered.values("surgetank.oldest.age")[None] == 0


def test_names_units_and_descriptions_are_the_conventions():
    """Whatever of ours has a conventional name has the conventional unit."""
    conventional = {value: name for name, value in vars(otel_metrics).items() if name.startswith("OTEL_SDK_")}
    ours = [instrument for instrument in INSTRUMENTS if instrument.name.startswith("otel.")]
    assert len(ours) == 13
    for instrument in ours:
        assert instrument.name in conventional
        source = getattr(otel_metrics, f"create_{conventional[instrument.name].lower()}").__code__.co_consts
        assert instrument.unit in source
    assert len({instrument.name for instrument in INSTRUMENTS}) == len(INSTRUMENTS)


def test_every_instrument_is_observed_where_it_can_be():
    metered = Metered(delivered())
    metered.offer(1)
    metered.tank.force_flush(5.0)
    _ = metered.tank.metric_reader, metered.tank.log_record_processor
    seen = {name for name, _ in metered.points()}
    assert seen == {instrument.name for instrument in INSTRUMENTS} - {
        "surgetank.dropped",
        "surgetank.dropped.size",
    } | (seen & {"surgetank.dropped", "surgetank.dropped.size"})


def test_signals_without_a_door_are_not_reported():
    metered = Metered(delivered())
    assert {dict(attributes).get("surgetank.signal") for _, attributes in metered.points()} <= {None}
    metered.offer(1)
    assert {dict(attributes).get("surgetank.signal") for _, attributes in metered.points()} == {None, "spans"}


def test_they_do_not_feed_on_themselves():
    """Through the tank's own reader, each collection makes as many points as the one before, and none by itself."""
    tank, _ = stepped_tank(metric_export_interval=1.0, self_metrics=False)
    provider = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False)
    tank.report_to(provider)
    counts = []
    for _ in range(30):
        before = tank.stats().metrics.offered
        tank._clock.advance(1.0)
        tank.metric_reader._tick()
        for _ in range(20):
            tank._pipelines[Signal.METRICS].run_once()
        counts.append(tank.stats().metrics.offered - before)
    assert counts[5:] == counts[5:6] * 25
    assert 0 < counts[5] < 60
    assert tank.stats().metrics.unaccounted == 0


def test_a_tank_reports_through_one_provider_at_a_time():
    metered = Metered(delivered())
    metered.tank.report_to(metered.provider)
    metered.offer(1)
    other_reader = InMemoryMetricReader()
    other = MeterProvider(metric_readers=[other_reader], shutdown_on_exit=False)
    metered.reports.leave(metered.tank)
    metered.tank.report_to(other)
    assert not [name for name, _ in metered.points() if name.startswith("surgetank")]
    assert other_reader.get_metrics_data() is not None


def test_a_tank_that_is_gone_is_reported_no_more():
    metered = Metered(delivered())
    metered.offer(1)
    assert metered.points()
    metered.tank.shutdown()
    metered.tank = None
    gc.collect()
    assert not [name for name, _ in metered.points() if name.startswith("surgetank.memory")]


def test_a_provider_that_raises_costs_nothing(caplog):
    class Raising:
        def get_meter(self, *_):
            raise RuntimeError("no meters here")

    tank, received = stepped_tank()
    tank.report_to(Raising())
    tank._pipelines[Signal.SPANS].offer(snapshot(span(0)))
    assert tank.force_flush(5.0)
    assert len(received.spans()) == 1
    assert "refuses surgetank's own metrics" in caplog.text


def test_a_histogram_that_raises_costs_no_delivery():
    metered = Metered(delivered())

    def raising(attempt):
        raise RuntimeError("a view of the application's")

    metered.tank.measure(Signal.SPANS, raising)
    metered.offer(2)
    assert metered.tank.force_flush(5.0)
    assert metered.tank.stats().spans.delivered == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_fork_waits_until_nobody_is_inside_a_histogram():
    """A child would find its locks taken for ever, and its own delivery would stand still at the first attempt."""
    metered = Metered(delivered())
    record, began, held = metered.reports._attempts.record, threading.Event(), threading.Lock()

    def slow(*arguments):
        with held:
            began.set()
            time.sleep(0.03)
            record(*arguments)

    metered.reports._attempts.record = slow
    metered.offer(1)
    delivery = threading.Thread(target=metered.attempt)
    delivery.start()
    assert began.wait(10)

    child = os.fork()
    if not child:
        os._exit(held.locked())
    delivery.join(10)

    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not self_metrics._recording._is_owned()


def test_whether_they_are_wanted(monkeypatch):
    environment = surgetank.config.Environment({"SURGETANK_SELF_METRICS": "no"})
    assert resolve_self_metrics(None, environment) is False
    assert resolve_self_metrics(True, environment) is True
    assert resolve_self_metrics(None, surgetank.config.Environment({})) is False
    of_the_sdk = {"OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true"}
    assert resolve_self_metrics(None, surgetank.config.Environment(of_the_sdk)) is True
    assert (
        resolve_self_metrics(None, surgetank.config.Environment({**of_the_sdk, "SURGETANK_SELF_METRICS": "0"})) is False
    )
    assert resolve_self_metrics(None, surgetank.config.Environment({"SURGETANK_SELF_METRICS": "maybe"})) is False


@pytest.fixture
def _no_global_provider(monkeypatch):
    from opentelemetry.metrics import _internal
    from opentelemetry.util._once import Once

    monkeypatch.setattr(_internal, "_METER_PROVIDER", None)
    monkeypatch.setattr(_internal, "_METER_PROVIDER_SET_ONCE", Once())
    monkeypatch.setattr(_internal, "_PROXY_METER_PROVIDER", _internal._ProxyMeterProvider())


@pytest.mark.usefixtures("_no_global_provider")
def test_a_tank_before_the_global_provider_and_one_after_it_are_both_reported():
    """The provider lets a second set of the same instruments observe nothing, without a word."""
    before, _ = stepped_tank(self_metrics=True)
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    after, _ = stepped_tank(self_metrics=True)

    [points] = [
        metric.data.data_points
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == "surgetank.memory.scale"
    ]

    assert len({point.attributes["otel.component.name"] for point in points}) == 2
    assert before is not after


@pytest.mark.usefixtures("_no_global_provider")
def test_the_global_provider_may_be_set_later():
    """`install` makes the tank first and the provider after it."""
    tank, _ = stepped_tank(self_metrics=True)
    tank._pipelines[Signal.SPANS].offer(snapshot(span(0)))
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
    names = {
        metric.name
        for resource in reader.get_metrics_data().resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert {"otel.sdk.processor.span.queue.size", "surgetank.memory.usage"} <= names
