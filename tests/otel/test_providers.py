"""`wire_metrics` where the application has a meter provider already: on every version, by every way, and where there is none."""

import logging

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fakes.tanks import stepped_tank
from process.programs import kill_all, run
from surgetank.otel import providers
from surgetank.testing.collector import Collector

WAYS = ["as this version has it", "as older versions have it"]


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """By the public method where there is one, and without it."""
    if request.param == WAYS[1]:
        monkeypatch.delattr(MeterProvider, "add_metric_reader", raising=False)


def set_by_the_application(monkeypatch):
    theirs = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[theirs], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: provider)
    return provider, theirs


def test_the_applications_provider_gets_one_more_reader(way, monkeypatch):
    """Instruments that were made before count, too; and its own reader goes on."""
    provider, theirs = set_by_the_application(monkeypatch)
    meter = provider.get_meter("app")
    before = meter.create_counter("before")
    meter.create_observable_gauge("depth", callbacks=[lambda _: [Observation(7)]])
    before.add(1)
    tank, received = stepped_tank()

    providers.wire_metrics(tank.metric_reader, None)
    before.add(2)
    meter.create_counter("after").add(3)

    assert tank.force_flush(5.0)
    values = {name: [point.as_int for point in received.metric_points(name)] for name in ("before", "after", "depth")}
    assert values == {"before": [2], "after": [3], "depth": [7]}
    (resource,) = theirs.get_metrics_data().resource_metrics
    (scope,) = resource.scope_metrics
    own = {metric.name: [point.value for point in metric.data.data_points] for metric in scope.metrics}
    assert own == {"before": [3], "after": [3], "depth": [7]}


def without_the_method(monkeypatch, provider):
    monkeypatch.delattr(MeterProvider, "add_metric_reader", raising=False)
    monkeypatch.delattr(provider, "_measurement_consumer")


def with_another_storage(monkeypatch, provider):
    monkeypatch.delattr(MeterProvider, "add_metric_reader", raising=False)
    monkeypatch.setattr(provider._measurement_consumer, "_reader_storages", None)


def with_a_method_that_fails(monkeypatch, provider):
    def fail(*_):
        raise RuntimeError("defect")

    monkeypatch.setattr(MeterProvider, "add_metric_reader", fail, raising=False)


@pytest.mark.parametrize("broken", [without_the_method, with_another_storage, with_a_method_that_fails])
def test_where_there_is_no_way_one_line_says_what_to_do(broken, monkeypatch, caplog):
    """Nothing is raised into the application, whose own metrics go on; ours have nothing to account for."""
    provider, theirs = set_by_the_application(monkeypatch)
    counter = provider.get_meter("app").create_counter("n")
    tank, _ = stepped_tank()

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        broken(patch, provider)
        providers.wire_metrics(tank.metric_reader, None)

    (line,) = [record.getMessage() for record in caplog.records]
    assert "MeterProvider(metric_readers=[tank.metric_reader])" in line
    counter.add(1)
    assert theirs.get_metrics_data() is not None
    assert tank.force_flush(5.0)
    assert tank.shutdown()
    assert tank.stats().metrics.offered == tank.stats().metrics.unaccounted == 0


@pytest.mark.slow
def test_install_extends_the_applications_meter_provider():
    """In a process of its own, where the providers are the global ones."""
    with Collector() as collector:
        try:
            code, _ = run(
                """
                from opentelemetry.sdk.metrics import MeterProvider
                metrics.set_meter_provider(MeterProvider(shutdown_on_exit=False))
                install()
                work(0, 10)
                """,
                collector.endpoint,
            )
        finally:
            kill_all()

        assert code == 0
        # Version 1.41 measures itself, too.
        assert collector.report()["delta_sums"]["work.done"] == 10
