"""Splitting serialised requests."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, Summary, SummaryDataPoint

from strategies import sdk_objects as sdk
from surgetank.model import Signal
from surgetank.otlp.split import count, split

requests = (
    st.tuples(st.just(Signal.SPANS), st.lists(sdk.spans, max_size=5).map(encode_spans))
    | st.tuples(st.just(Signal.LOGS), st.lists(sdk.log_records(), max_size=5).map(encode_logs))
    | st.tuples(st.just(Signal.METRICS), sdk.metrics_data().map(encode_metrics))
)


def leaves(signal: Signal, message: Any) -> list[tuple[bytes, ...]]:
    """Return every item with what its containers say around it, without the other items."""
    found = []
    for outer in getattr(message, "resource_" + signal.value):
        for inner in getattr(outer, "scope_" + signal.value):
            around = (outer.resource, outer.schema_url, inner.scope, inner.schema_url)
            if signal is Signal.METRICS:
                for metric in inner.metrics:
                    found += [(*around, *point) for point in points(metric)]
            else:
                items = inner.spans if signal is Signal.SPANS else inner.log_records
                found += [(*around, item) for item in items]
    return [
        tuple(part if isinstance(part, (str, bytes)) else part.SerializeToString(deterministic=True) for part in leaf)
        for leaf in found
    ]


def points(metric: Any) -> list[tuple[Any, ...]]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return []
    shell = Metric.FromString(metric.SerializeToString())
    del getattr(shell, kind).data_points[:]
    return [(shell, point) for point in getattr(metric, kind).data_points]


@settings(max_examples=120, deadline=None)
@given(requests)
def test_the_halves_are_the_request(request_):
    """Every item, in order, with its resource, scope, schema URLs and metric description; none twice."""
    signal, message = request_
    raw = message.SerializeToString()
    items = leaves(signal, message)
    assert count(raw, signal) == len(items)
    if len(items) < 2:
        with pytest.raises(ValueError, match="no halves"):
            split(raw, signal)
        return
    halves = split(raw, signal)
    found = [leaves(signal, type(message).FromString(half)) for half, _ in halves]
    assert found[0] + found[1] == items
    assert [len(half) for half in found] == [size for _, size in halves] == [len(items) // 2, -(-len(items) // 2)]
    assert [count(half, signal) for half, _ in halves] == [size for _, size in halves]


@settings(max_examples=60, deadline=None)
@given(requests)
def test_bisection_ends_at_every_single_item(request_):
    """Which is how one poison item is found among its neighbours."""
    signal, message = request_
    waiting = [message.SerializeToString()]
    found = []
    while waiting:
        raw = waiting.pop()
        if count(raw, signal) > 1:
            (first, _), (second, _) = split(raw, signal)
            waiting += (second, first)
        else:
            found += leaves(signal, type(message).FromString(raw))
    assert found == leaves(signal, message)


def test_summaries_are_split_too():
    """The SDK makes none, but other senders do."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="s")
    metric.summary.CopyFrom(Summary(data_points=[SummaryDataPoint(count=number) for number in range(3)]))
    (first, _), (second, _) = split(request.SerializeToString(), Signal.METRICS)
    metric = ExportMetricsServiceRequest.FromString(second).resource_metrics[0].scope_metrics[0].metrics[0]
    assert (metric.name, [point.count for point in metric.summary.data_points]) == ("s", [1, 2])
    assert count(first, Signal.METRICS) == 1


def test_fields_that_we_do_not_know_are_kept():
    """In both halves, since they may belong to what is around the items."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    scope.spans.add(name="a")
    scope.spans.add(name="b")
    unknown = b"\xfa\x07\x03new" + b"\xf8\x07\x05" + b"\xf5\x07abcd" + b"\xf1\x07abcdefgh"
    for half, _ in split(request.SerializeToString() + unknown, Signal.SPANS):
        assert half.endswith(unknown)


def test_empty_containers_are_dropped():
    """A half holds only the resources and scopes of its own items."""
    request = ExportTraceServiceRequest()
    for name in ("a", "b"):
        request.resource_spans.add(schema_url=name).scope_spans.add().spans.add(name=name)
    request.resource_spans.add(schema_url="empty")
    halves = [
        ExportTraceServiceRequest.FromString(half) for half, _ in split(request.SerializeToString(), Signal.SPANS)
    ]
    assert [[outer.schema_url for outer in half.resource_spans] for half in halves] == [["a"], ["b"]]


MALFORMED = {
    "cut tag": b"\x8a",
    "cut length": b"\x0a\x80",
    "too long": b"\x0a\x05ab",
    "endless varint": b"\x08" + b"\xff" * 10,
    "group": b"\x0b\x0c",
    "reserved wire type": b"\x0f",
    "field 0": b"\x02\x00",
    "cut fixed": b"\x09abc",
    "json": b'{"resourceSpans": []}',
    "cut inside": b"\x0a\x04\x12\x05ab",
}


@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED.keys())
@pytest.mark.parametrize("signal", list(Signal))
def test_malformed_bytes_are_refused(raw, signal):
    """With ValueError, the one exception that a caller must expect."""
    with pytest.raises(ValueError):
        count(raw, signal)
    with pytest.raises(ValueError):
        split(raw, signal)


@given(st.binary(max_size=60), st.sampled_from(list(Signal)))
def test_no_bytes_raise_anything_else(raw, signal):
    """Bytes from a damaged disk may say anything."""
    try:
        halves = split(raw, signal)
    except ValueError:
        return
    assert sum(items for _, items in halves) == count(raw, signal)
