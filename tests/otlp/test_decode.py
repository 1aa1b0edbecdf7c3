"""What was encoded can be made into SDK objects again: encoded once more, they are the same messages."""

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from strategies.sdk_objects import REQUESTS, encode, log_records, metrics_data, spans
from surgetank.model import Signal
from surgetank.otel import objects
from surgetank.otel.shim import bounded_attributes
from surgetank.otlp.decode import decode
from surgetank.otlp.logs import LogCodec
from surgetank.otlp.logs import snapshot as snapshot_of_log
from surgetank.otlp.metrics import MetricCodec, flatten
from surgetank.otlp.spans import SpanCodec

CONTAINERS = {
    Signal.SPANS: ("resource_spans", "scope_spans", "spans"),
    Signal.LOGS: ("resource_logs", "scope_logs", "log_records"),
    Signal.METRICS: ("resource_metrics", "scope_metrics", "metrics"),
}
slow_to_make = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)


def flat(raw, signal):
    """Each item with its resource and scope, as the official classes read them; containers that say the same are one."""
    outer, middle, inner = CONTAINERS[signal]
    return sorted(
        (
            resource.resource.SerializeToString(deterministic=True),
            resource.schema_url,
            scope.scope.SerializeToString(deterministic=True),
            scope.schema_url,
            item.SerializeToString(deterministic=True),
        )
        for resource in getattr(REQUESTS[signal].FromString(raw), outer)
        for scope in getattr(resource, middle)
        for item in getattr(scope, inner)
    )


def assert_stable(first, again, signal):
    """The same items in the same places at first, and from then on the same bytes."""
    second = again(first)
    assert flat(second, signal) == flat(first, signal)
    assert again(second) == second


@slow_to_make
@given(st.lists(spans, min_size=1, max_size=4))
def test_spans_survive(items):
    """Whatever the SDK's objects hold."""
    assert_stable(encode(SpanCodec(), items), lambda raw: encode(SpanCodec(), objects.spans(raw)), Signal.SPANS)


@slow_to_make
@given(st.lists(log_records(), min_size=1, max_size=4))
def test_log_records_survive(items):
    """Whatever the SDK's objects hold."""

    def again(raw):
        return encode(LogCodec(), map(snapshot_of_log, objects.log_records(raw)))

    assert_stable(encode(LogCodec(), map(snapshot_of_log, items)), again, Signal.LOGS)


@slow_to_make
@given(metrics_data())
def test_metrics_survive(data):
    """All kinds of points, with their exemplars."""

    def again(raw):
        return encode(MetricCodec(), flatten(objects.metrics_data(raw), 1))

    assert_stable(encode(MetricCodec(), flatten(data, 1)), again, Signal.METRICS)


def test_a_span_is_what_it_was():
    """As an exporter sees it, property by property."""
    resource = Resource({"service.name": "shop"}, "https://example.com/schema")
    scope = InstrumentationScope("lib", "1.0", "https://example.com/scope", {"k": 1})
    context = SpanContext(0xA, 0xB, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState([("v", "x")]))
    link = Link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)), bounded_attributes({"l": (1, 2)}, 3))
    events = BoundedList.from_seq(None, [Event("e", bounded_attributes({"n": None}, 4), 7)])
    events.dropped = 5
    span = ReadableSpan(
        name="GET /",
        context=context,
        parent=SpanContext(0xA, 0xC, is_remote=True, trace_flags=TraceFlags(1)),
        resource=resource,
        attributes=bounded_attributes({"a": "b", "nested": {"deep": (1, "two", b"\x03")}}, 6),
        events=events,
        links=(link,),
        kind=SpanKind.SERVER,
        status=Status(StatusCode.ERROR, "went wrong"),
        start_time=10,
        end_time=20,
        instrumentation_scope=scope,
    )

    (found,) = objects.spans(encode(SpanCodec(), [span]))

    assert found.name == span.name
    assert found.context == context
    assert found.context.trace_state == context.trace_state
    assert found.parent == span.parent
    assert found.parent.is_remote
    assert found.resource == resource
    assert found.instrumentation_scope == scope
    assert dict(found.attributes) == {"a": "b", "nested": {"deep": (1, "two", b"\x03")}}
    assert (found.dropped_attributes, found.dropped_events, found.dropped_links) == (6, 5, 0)
    (event,) = found.events
    assert (event.name, event.timestamp, dict(event.attributes), event.dropped_attributes) == ("e", 7, {"n": None}, 4)
    (found_link,) = found.links
    assert found_link.context == link.context
    assert (dict(found_link.attributes), found_link.dropped_attributes) == ({"l": (1, 2)}, 3)
    assert (found.kind, found.status.status_code, found.status.description) == (
        SpanKind.SERVER,
        StatusCode.ERROR,
        "went wrong",
    )
    assert (found.start_time, found.end_time) == (10, 20)


def test_a_root_span_has_no_parent():
    """And one whose parent's identifier is zero has."""
    root = ReadableSpan("root", SpanContext(1, 2, is_remote=False), resource=Resource({}))
    child = ReadableSpan(
        "child",
        SpanContext(1, 2, is_remote=False),
        parent=SpanContext(1, 0, is_remote=False),
        resource=Resource({}),
    )

    found = objects.spans(encode(SpanCodec(), [root, child]))

    assert found[0].parent is None
    assert found[0].to_json()
    assert found[1].parent.span_id == 0


def test_a_log_record_does_not_take_the_reading_threads_span():
    """It belongs to where it was written, or to nothing."""
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.trace import TracerProvider

    record = LogRecord(timestamp=5, observed_timestamp=6, body={"a": [1]}, severity_number=SeverityNumber.WARN)
    raw = encode(LogCodec(), [snapshot_of_log(ReadableLogRecord(log_record=record, resource=Resource({})))])

    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("elsewhere"):
        (found,) = objects.log_records(raw)

    assert (found.log_record.trace_id, found.log_record.span_id) == (0, 0)
    assert (found.log_record.timestamp, found.log_record.observed_timestamp) == (5, 6)
    assert found.log_record.severity_number is SeverityNumber.WARN
    assert found.log_record.body == {"a": (1,)}
    assert found.to_json()


def test_not_a_number_stays_what_it_is():
    """And infinity, and minus zero: this form has no words for numbers."""
    span = ReadableSpan(
        "n",
        SpanContext(1, 2, is_remote=False),
        attributes={"v": (math.nan, math.inf, -0.0)},
        resource=Resource({}),
    )

    (found,) = objects.spans(encode(SpanCodec(), [span]))
    nan, inf, zero = found.attributes["v"]

    assert math.isnan(nan)
    assert inf == math.inf
    assert math.copysign(1, zero) == -1


@pytest.mark.parametrize("signal", Signal)
def test_what_is_no_message_is_a_value_error(signal):
    """And nothing else, for bytes come from a disk."""
    with pytest.raises(ValueError):
        decode(b"\x0a\xff", signal)


@given(st.binary(max_size=60), st.sampled_from(list(Signal)))
def test_any_bytes_are_read_or_refused(raw, signal):
    """Never another exception."""
    make = {Signal.SPANS: objects.spans, Signal.LOGS: objects.log_records, Signal.METRICS: objects.metrics_data}[signal]
    try:
        make(raw)
    except ValueError:
        pass
