"""Metrics: data points as items, and our bytes against the official encoder's message."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import Exemplar, MeterProvider
from opentelemetry.sdk.metrics._internal.point import (
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from strategies import sdk_objects as sdk
from surgetank.otlp.metrics import MetricCodec, flatten

CUMULATIVE = AggregationTemporality.CUMULATIVE
DELTA = AggregationTemporality.DELTA


def collection(*metrics: Metric) -> MetricsData:
    scope = ScopeMetrics(InstrumentationScope("m"), metrics, "")
    return MetricsData([ResourceMetrics(Resource({}), [scope], "")])


def number(value: Any, **fields: Any) -> NumberDataPoint:
    return NumberDataPoint(
        **{"attributes": {}, "start_time_unix_nano": 1, "time_unix_nano": 2, "value": value, **fields}
    )


def gauge(*values: Any, **fields: Any) -> Metric:
    return Metric("g", None, None, Gauge([number(value, **fields) for value in values]))


def check(data: MetricsData) -> None:
    sdk.assert_same(sdk.encode(MetricCodec(), flatten(data, 1)), encode_metrics(data))


def parse(items: list[Any]) -> ExportMetricsServiceRequest:
    return ExportMetricsServiceRequest.FromString(sdk.encode(MetricCodec(), items))


@settings(max_examples=150, deadline=None)
@given(sdk.metrics_data())
def test_any_collection_becomes_the_official_message(data):
    """The law of this package, over the whole space of metrics."""
    check(data)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1e9), sdk.plain_attributes), max_size=5),
    st.sampled_from([CUMULATIVE, DELTA]),
)
def test_collections_of_a_real_meter_become_the_official_message(measurements, temporality):
    """As a reader gets them, exponential histograms and several scopes included."""
    from opentelemetry.sdk.metrics import Counter
    from opentelemetry.sdk.metrics import Histogram as HistogramInstrument

    reader = InMemoryMetricReader(preferred_temporality={Counter: temporality, HistogramInstrument: temporality})
    view = View(instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation())
    provider = MeterProvider([reader], Resource({"service.name": "s"}), shutdown_on_exit=False, views=[view])
    for scope in ("one", "two"):
        meter = provider.get_meter(scope, "1", "https://e.com", {"k": scope})
        counter = meter.create_counter("counter", "1", "counts")
        changes = meter.create_up_down_counter("changes")
        gauge = meter.create_gauge("gauge", "s")
        explicit = meter.create_histogram("explicit", "ms", "times")
        exponential = meter.create_histogram("exponential")
        for whole, real, attributes in measurements:
            # Aggregation needs hashable attribute values.
            plain = {key: str(value) for key, value in attributes.items()}
            counter.add(whole, plain)
            changes.add(-real, plain)
            gauge.set(real, plain)
            explicit.record(real, plain)
            exponential.record(real, plain)
    data = reader.get_metrics_data()
    if data is not None:
        check(data)


def histogram_point(**fields: Any) -> HistogramDataPoint:
    given = {
        "attributes": {},
        "start_time_unix_nano": 1,
        "time_unix_nano": 2,
        "count": 3,
        "sum": 4.5,
        "bucket_counts": [1, 2],
        "explicit_bounds": [0.5],
        "min": 1,
        "max": 2,
    }
    return HistogramDataPoint(**{**given, **fields})


def exponential_point(**fields: Any) -> ExponentialHistogramDataPoint:
    given = {
        "attributes": {},
        "start_time_unix_nano": 1,
        "time_unix_nano": 2,
        "count": 3,
        "sum": 4.5,
        "scale": -3,
        "zero_count": 0,
        "positive": Buckets(-5, [0, 1, 300]),
        "negative": Buckets(0, []),
        "flags": 0,
        "min": -1.0,
        "max": 2.0,
    }
    return ExponentialHistogramDataPoint(**{**given, **fields})


ODD_DATA = {
    "int 0": Gauge([number(0)]),
    "float 0": Gauge([number(0.0)]),
    "minus 0": Gauge([number(-0.0)]),
    "nan": Gauge([number(float("nan"))]),
    "smallest int": Gauge([number(-(2**63))]),
    "int subclass": Gauge([number(sdk.OwnInt(7))]),
    "no times": Sum([number(1, start_time_unix_nano=None, time_unix_nano=None)], CUMULATIVE, True),
    "times of 0": Sum([number(1, start_time_unix_nano=0, time_unix_nano=0)], DELTA, False),
    "unspecified temporality": Sum([number(1)], AggregationTemporality.UNSPECIFIED, False),
    "no attributes": Sum([number(1, attributes=None)], DELTA, False),
    "exemplars": Sum(
        [
            number(
                1,
                exemplars=[
                    Exemplar({"a": "b"}, 1, 5, 6, 7),
                    Exemplar(None, 0, 0, 0, 0),
                    Exemplar({}, 0.0, 5),
                    Exemplar({}, -1, 5, 6, None),
                    Exemplar({}, float("inf"), 5, None, 7),
                ],
            )
        ],
        DELTA,
        True,
    ),
    "histogram": Histogram([histogram_point()], DELTA),
    "histogram without optional fields": Histogram([histogram_point(sum=None, min=None, max=None)], DELTA),
    "histogram with optional zeros": Histogram([histogram_point(sum=0, min=0.0, max=-0.0, count=0)], DELTA),
    "histogram without buckets": Histogram([histogram_point(bucket_counts=[], explicit_bounds=[])], DELTA),
    "histogram with tuples": Histogram([histogram_point(bucket_counts=(1, 2), explicit_bounds=(5,))], DELTA),
    "infinite minimum": Histogram([histogram_point(min=float("inf"), max=float("-inf"))], DELTA),
    "exponential": ExponentialHistogram([exponential_point()], CUMULATIVE),
    "exponential, empty": ExponentialHistogram(
        [exponential_point(positive=Buckets(0, []), zero_count=5, scale=0, min=None, max=None)], CUMULATIVE
    ),
    "exponential, both signs": ExponentialHistogram([exponential_point(negative=Buckets(2**31 - 1, [0]))], CUMULATIVE),
    "exponential, flags": ExponentialHistogram([exponential_point(flags=1, scale=20)], CUMULATIVE),
    "exponential, no sum": ExponentialHistogram([exponential_point(sum=None)], CUMULATIVE),
}


@pytest.mark.parametrize("data", ODD_DATA.values(), ids=ODD_DATA.keys())
def test_odd_data_becomes_the_official_message(data):
    """The corners that random search may miss."""
    check(collection(Metric("m", None, "", data)))


def test_points_of_one_metric_share_its_message():
    """Name, unit and temporality are written once for a run of points."""
    message = parse(flatten(collection(gauge(1, 2, 3), gauge(4)), 1))
    metrics = message.resource_metrics[0].scope_metrics[0].metrics
    assert [len(metric.gauge.data_points) for metric in metrics] == [3, 1]


def test_points_that_were_taken_out_in_between_leave_the_rest_together():
    """A drop strategy may have thinned the run out."""
    items = flatten(collection(gauge(1, 2, 3)), 1)
    message = parse([items[0], items[2]])
    points = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    assert [point.as_int for point in points] == [1, 3]


def test_collections_are_never_merged():
    """Two points of one series in one request are a mistake to receivers."""
    first, second = flatten(collection(gauge(1)), 1)[0], flatten(collection(gauge(2)), 2)[0]
    request = MetricCodec().open()
    assert request.accepts(first) and request.accepts(second)
    request.add(first)
    assert request.accepts(first) and not request.accepts(second)
    with pytest.raises(ValueError, match="one collection"):
        request.add(second)
    assert request.items == 1


def test_a_metric_without_points_is_not_sent():
    """There is nothing in it for a receiver: the official encoder's message has a name and no data."""
    assert flatten(collection(Metric("empty", None, None, Gauge([]))), 1) == []


def test_an_empty_collection_has_no_items():
    """Some readers hand one over."""
    assert flatten(MetricsData([]), 1) == []


def test_an_int_beyond_int64_becomes_a_double():
    """The nearest number that OTLP has."""
    message = parse(flatten(collection(gauge(2**70, -(10**400))), 1))
    points = message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    assert [point.as_double for point in points] == [2.0**70, float("-inf")]


def test_a_bool_is_an_int():
    """The official encoder's protobuf refuses it; to Python it is a number."""
    message = parse(flatten(collection(gauge(True)), 1))
    assert message.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].as_int == 1


def test_numbers_out_of_range_are_made_to_fit():
    """Negative counts become 0; what is too large, the largest."""
    point = histogram_point(count=-1, bucket_counts=[-1, 2**70], sum=10**400, time_unix_nano=-1)
    message = parse(flatten(collection(Metric("h", None, None, Histogram([point], DELTA))), 1))
    found = message.resource_metrics[0].scope_metrics[0].metrics[0].histogram.data_points[0]
    assert (found.count, list(found.bucket_counts)) == (0, [0, 2**64 - 1])
    assert (found.sum, found.time_unix_nano) == (float("inf"), 0)


@pytest.mark.parametrize(
    "metric", [gauge("many"), Metric("m", None, None, object()), gauge(1, exemplars=[Exemplar({}, None, 5)])]
)
def test_a_point_that_is_no_number_is_refused_alone(metric):
    """The request goes on without it."""
    good = flatten(collection(gauge(1)), 1)[0]
    bad = flatten(collection(gauge(2)), 1)[0]
    bad.metric = metric
    bad.point = metric.data.data_points[0] if hasattr(metric.data, "data_points") else bad.point
    request = MetricCodec().open()
    request.add(good)
    before = (request.items, request.size, b"".join(request.pieces()))
    with pytest.raises((ValueError, TypeError)):
        request.add(bad)
    assert (request.items, request.size, b"".join(request.pieces())) == before
    request.add(good)
    assert len(ExportMetricsServiceRequest.FromString(b"".join(request.pieces())).resource_metrics) == 1


def test_a_subclass_of_a_data_type_has_its_form():
    """Recognised by the name of a base class."""

    class OwnGauge(Gauge):
        pass

    data = collection(gauge(1))
    own = collection(replace(gauge(1), data=OwnGauge([number(1)])))
    assert parse(flatten(own, 1)) == encode_metrics(data)


def test_no_point_is_critical():
    """Metrics have one lane."""
    assert not MetricCodec().is_critical(flatten(collection(gauge(1)), 1)[0])
