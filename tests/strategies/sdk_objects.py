"""Hypothesis strategies for OpenTelemetry SDK objects, and the official encoder as the oracle to compare with.

Whatever these strategies make, the official encoder can encode; what it cannot
is tested by name, case by case.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk._logs import ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk.metrics import Exemplar
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
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from surgetank.model import Signal
from surgetank.otlp.spans import snapshot

REQUESTS: dict[Signal, type[Message]] = {
    Signal.SPANS: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}


class Colour(str, enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class OwnStr(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not the content"


class OwnInt(int):
    def __str__(self) -> str:
        return "not the number"


def kept(item: Any) -> Any:
    """Return what a pipeline keeps of an item: of a span, a snapshot."""
    return snapshot(item) if isinstance(item, ReadableSpan) else item


def encode(codec: Any, items: Iterable[Any]) -> bytes:
    """Encode items into one request, checking that its books are right on the way."""
    request = codec.open()
    for number, item in enumerate(map(kept, items), 1):
        assert request.accepts(item)
        before = request.size
        assert request.add(item) == request.size - before > 0
        assert request.items == number
    raw = b"".join(request.pieces())
    assert raw == b"".join(request.pieces())
    # What `size` leaves out is one tag and one length for every container.
    assert request.size <= len(raw) <= request.size + 24 * (request.items + 1)
    return raw


def assert_same(raw: bytes, official: Message) -> None:
    """Parse our bytes with the official classes and compare; as bytes, because NaN is unequal to itself."""
    ours = type(official).FromString(raw)
    if not TAKES_NONE:
        _clear_empty_values(ours)
        _clear_empty_values(official)
    if ours.SerializeToString(deterministic=True) != official.SerializeToString(deterministic=True):
        assert str(ours) == str(official)
        raise AssertionError("the messages differ where their text does not")


def _clear_empty_values(message: Message) -> None:
    """Make an empty AnyValue absent, which is how the official encoder before 1.45 writes None."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        if isinstance(value, Message):
            _clear_empty_values(value)
            if field.message_type.name == "AnyValue" and not value.ListFields():
                message.ClearField(field.name)
        else:
            for element in value:
                _clear_empty_values(element)


def _official_takes_none() -> bool:
    """Before 1.45 the official encoder had no form for None; an empty AnyValue means the same."""
    context = SpanContext(1, 2, is_remote=False)
    message = encode_spans([ReadableSpan("n", context, attributes={"a": (None,)}, resource=Resource({}))])
    attributes = message.resource_spans[0].scope_spans[0].spans[0].attributes
    return len(attributes) == 1 and len(attributes[0].value.array_value.values) == 1


logging.getLogger("opentelemetry.exporter.otlp.proto.common._internal").addFilter(lambda record: False)
TAKES_NONE = _official_takes_none()


uint32s = st.integers(0, 2**32 - 1) | st.integers(0, 3)
uint64s = st.integers(0, 2**64 - 1) | st.integers(0, 300)
int64s = st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | st.sampled_from([2**63 - 1, -(2**63), -1, 0])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
names = texts | st.sampled_from(["GET /", "SELECT", ""])
keys = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=70) | st.sampled_from(
    ["http.request.method", "url.path", "http.response.status_code", "a", "b"]
)
odd_scalars = st.sampled_from(
    [Colour.RED, Level.HIGH, OwnStr("kept"), OwnInt(7), True, False, 0, 1, 0.0, 1.0, -0.0, "", b""]
)
nones = st.none() if TAKES_NONE else st.nothing()
# The older SDK makes None of bytes in a sequence that are no text.
binaries = st.binary(max_size=40) if TAKES_NONE else texts.map(str.encode)
scalars = texts | st.booleans() | int64s | st.floats() | binaries | nones | odd_scalars
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(inner, max_size=4).map(tuple) | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=8,
)
plain_attributes = st.dictionaries(keys, values, max_size=6)
# What an application gives; the SDK drops what has no name, and counts it.
given_attributes = st.dictionaries(keys | st.just(""), values, max_size=6)


@st.composite
def attribute_sets(draw: st.DrawFn) -> Any:
    """Attributes in every container in which the SDK hands them over."""
    attributes = draw(given_attributes)
    form = draw(st.integers(0, 4))
    if form == 0:
        return None
    if form == 1:
        return attributes
    if form == 2:
        return MappingProxyType(attributes)
    return BoundedAttributes(maxlen=draw(st.sampled_from([None, 2, 0])), attributes=attributes, immutable=form == 3)


urls = st.none() | st.sampled_from(["", "https://opentelemetry.io/schemas/1.44.0", "https://example.com/é"])
# Few distinct values, so that equal but not identical resources and scopes are common.
resources = st.builds(
    Resource,
    st.dictionaries(st.sampled_from(["service.name", "n"]), st.sampled_from(["a", "b", 1, 1.0, True, "é"]), max_size=2),
    urls,
)
scopes = st.builds(
    InstrumentationScope,
    st.sampled_from(["", "lib", "é"]),
    st.sampled_from([None, "", "1.0"]),
    urls,
    st.none() | st.dictionaries(st.sampled_from(["k", "l"]), st.sampled_from([1, 1.0, True, "x"]), max_size=2),
)
trace_states = st.none() | st.sampled_from(
    [TraceState(), TraceState([("a", "1")]), TraceState([("b", "2"), ("c@d", "e")])]
)
span_contexts = st.builds(
    SpanContext,
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.sampled_from([None, TraceFlags(0), TraceFlags(1)]),
    trace_states,
)
timestamps = st.none() | uint64s


@st.composite
def sequences(draw: st.DrawFn, elements: st.SearchStrategy[Any]) -> Any:
    """Events or links in every container in which the SDK hands them over."""
    items = draw(st.lists(elements, max_size=3))
    form = draw(st.integers(0, 4))
    if form == 0:
        return tuple(items)
    if form == 1:
        return items
    return BoundedList.from_seq({2: 2, 3: 0}.get(form), items)


statuses = st.sampled_from([StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR]).map(Status) | st.builds(
    Status, st.just(StatusCode.ERROR), st.none() | texts
)
spans = st.builds(
    ReadableSpan,
    name=names,
    context=span_contexts,
    parent=st.none() | span_contexts,
    resource=resources,
    attributes=attribute_sets(),
    events=sequences(st.builds(Event, names, attribute_sets(), uint64s)),
    links=sequences(st.builds(Link, span_contexts, attribute_sets())),
    kind=st.sampled_from(list(SpanKind)),
    status=statuses | st.none(),
    start_time=timestamps,
    end_time=timestamps,
    instrumentation_scope=st.none() | scopes,
)


@st.composite
def log_records(draw: st.DrawFn) -> Any:
    """Records as `on_emit` gets them, and as exporters get them."""
    record = LogRecord(
        timestamp=draw(timestamps),
        observed_timestamp=draw(uint64s),
        severity_text=draw(st.none() | texts),
        severity_number=draw(st.none() | st.sampled_from(list(SeverityNumber))),
        body=draw(values),
        attributes=draw(attribute_sets()),
        event_name=draw(st.none() | names),
    )
    record.trace_id = draw(st.sampled_from([0, 1]) | st.integers(0, 2**128 - 1))
    record.span_id = draw(st.sampled_from([0, 1]) | st.integers(0, 2**64 - 1))
    record.trace_flags = TraceFlags(draw(st.integers(0, 255)))
    kind = draw(st.sampled_from([ReadableLogRecord, ReadWriteLogRecord]))
    return kind(log_record=record, resource=draw(resources), instrumentation_scope=draw(st.none() | scopes))


exemplars = st.builds(
    Exemplar,
    filtered_attributes=st.none() | plain_attributes,
    value=int64s | st.floats(),
    time_unix_nano=uint64s,
    span_id=st.none() | st.integers(0, 2**64 - 1),
    trace_id=st.none() | st.integers(0, 2**128 - 1),
)
point_attributes = st.none() | plain_attributes
number_points = st.builds(
    NumberDataPoint,
    attributes=point_attributes,
    start_time_unix_nano=timestamps,
    time_unix_nano=uint64s,
    value=int64s | st.floats() | st.just(Level.HIGH),
    exemplars=st.lists(exemplars, max_size=2),
)
optional_doubles = st.none() | st.floats() | st.just(0.0) | st.integers(-5, 5)
histogram_points = st.builds(
    HistogramDataPoint,
    attributes=point_attributes,
    start_time_unix_nano=timestamps,
    time_unix_nano=uint64s,
    count=uint64s,
    sum=optional_doubles,
    bucket_counts=st.lists(uint64s, max_size=5),
    explicit_bounds=st.lists(st.floats(), max_size=4) | st.just((0, 5, 10)),
    min=optional_doubles,
    max=optional_doubles,
    exemplars=st.lists(exemplars, max_size=2),
)
int32s = st.integers(-(2**31), 2**31 - 1) | st.integers(-20, 20)
buckets = st.builds(Buckets, offset=int32s, bucket_counts=st.lists(uint64s, max_size=5))
exponential_points = st.builds(
    ExponentialHistogramDataPoint,
    attributes=point_attributes,
    start_time_unix_nano=timestamps,
    time_unix_nano=uint64s,
    count=uint64s,
    sum=optional_doubles,
    scale=int32s,
    zero_count=uint64s,
    positive=buckets,
    negative=buckets,
    flags=uint32s,
    min=optional_doubles,
    max=optional_doubles,
    exemplars=st.lists(exemplars, max_size=2),
)
temporalities = st.sampled_from(list(AggregationTemporality))
metric_data = (
    st.builds(Gauge, data_points=st.lists(number_points, min_size=1, max_size=3))
    | st.builds(
        Sum,
        data_points=st.lists(number_points, min_size=1, max_size=3),
        aggregation_temporality=temporalities,
        is_monotonic=st.booleans(),
    )
    | st.builds(
        Histogram,
        data_points=st.lists(histogram_points, min_size=1, max_size=3),
        aggregation_temporality=temporalities,
    )
    | st.builds(
        ExponentialHistogram,
        data_points=st.lists(exponential_points, min_size=1, max_size=3),
        aggregation_temporality=temporalities,
    )
)
metrics = st.builds(Metric, name=names, description=st.none() | texts, unit=st.none() | texts, data=metric_data)


def unique(elements: list[Any]) -> list[Any]:
    """Leave out what the SDK calls equal to an earlier one."""
    return list(dict.fromkeys(elements))


@st.composite
def metrics_data(draw: st.DrawFn) -> MetricsData:
    """One collection; as in the SDK's, no resource and no scope of a resource stands twice, and none is empty."""
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(
                resource=resource,
                scope_metrics=[
                    ScopeMetrics(
                        scope=scope,
                        metrics=draw(st.lists(metrics, min_size=1, max_size=3)),
                        schema_url=scope.schema_url,
                    )
                    for scope in unique(draw(st.lists(scopes, min_size=1, max_size=2)))
                ],
                schema_url=resource.schema_url,
            )
            for resource in unique(draw(st.lists(resources, max_size=2)))
        ]
    )
