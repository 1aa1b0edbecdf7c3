"""Spans: our bytes against the official encoder's message."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from strategies import sdk_objects as sdk
from surgetank.otlp.spans import SpanCodec

CONTEXT = SpanContext(0x1234, 0x56, is_remote=False, trace_flags=TraceFlags(1))


def build(**fields: Any) -> ReadableSpan:
    given = {"name": "n", "context": CONTEXT, "resource": Resource({}), "start_time": 1, "end_time": 2}
    return ReadableSpan(**{**given, **fields})


def check(*spans: ReadableSpan) -> None:
    sdk.assert_same(sdk.encode(SpanCodec(), spans), encode_spans(spans))


def only(span: Any) -> Any:
    message = ExportTraceServiceRequest.FromString(sdk.encode(SpanCodec(), [span]))
    return message.resource_spans[0].scope_spans[0].spans[0]


class Keeper(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@settings(max_examples=150, deadline=None)
@given(st.lists(sdk.spans, max_size=4))
def test_any_spans_become_the_official_message(spans):
    """The law of this package, over the whole space of spans."""
    check(*spans)


class Wrapped(ReadableSpan):
    """Not the SDK's own type, so that only its public properties are read."""


@settings(max_examples=60, deadline=None)
@given(st.lists(sdk.spans, max_size=3))
def test_spans_of_a_subclass_become_the_official_message(spans):
    """The public way of reading is equal to the short one."""
    for span in spans:
        span.__class__ = Wrapped
    check(*spans)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            sdk.names,
            st.sampled_from(list(SpanKind)),
            sdk.given_attributes,
            st.lists(st.tuples(sdk.names, sdk.given_attributes), max_size=4),
            st.lists(sdk.span_contexts, max_size=3),
            sdk.statuses,
            st.none() | sdk.span_contexts,
        ),
        max_size=3,
    ),
    st.sampled_from([(4, 2, 2, 1, 1), (0, 0, 0, 0, 0), (0, 2, 2, 0, 0), (4, 0, 0, 1, 1)]),
)
def test_spans_of_a_real_tracer_become_the_official_message(plans, limits):
    """As a processor gets them, limits and dropped counts included."""
    keeper = Keeper()
    names = ("max_span_attributes", "max_events", "max_links", "max_event_attributes", "max_link_attributes")
    limits = SpanLimits(**dict(zip(names, limits, strict=True)))
    provider = TracerProvider(resource=Resource({"service.name": "s"}), span_limits=limits, shutdown_on_exit=False)
    provider.add_span_processor(keeper)
    for number, (name, kind, attributes, events, links, status, parent) in enumerate(plans):
        tracer = provider.get_tracer(f"lib{number % 2}", "1", schema_url="https://e.com", attributes={"k": number})
        context = None if parent is None else set_span_in_context(NonRecordingSpan(parent))
        linked = [Link(other, attributes) for other in links]
        span = tracer.start_span(name, context, kind=kind, attributes=attributes, links=linked)
        for event_name, event_attributes in events:
            span.add_event(event_name, event_attributes)
        span.record_exception(ValueError("é"))
        span.set_status(status)
        span.end()
    check(*keeper.spans)


ODD_SPANS = {
    "root": {},
    "local parent": {"parent": SpanContext(1, 2, is_remote=False)},
    "remote parent": {"parent": SpanContext(1, 2, is_remote=True)},
    "parent with id 0": {"parent": SpanContext(0, 0, is_remote=True)},
    "ids of 0": {"context": SpanContext(0, 0, is_remote=False)},
    "largest ids": {"context": SpanContext(2**128 - 1, 2**64 - 1, is_remote=False)},
    "trace state": {"context": SpanContext(1, 2, is_remote=False, trace_state=TraceState([("a", "b"), ("c", "d")]))},
    "no times": {"start_time": None, "end_time": None},
    "times of 0": {"start_time": 0, "end_time": 0},
    "no status": {"status": None},
    "ok": {"status": Status(StatusCode.OK)},
    "error": {"status": Status(StatusCode.ERROR)},
    "error with message": {"status": Status(StatusCode.ERROR, "é")},
    "no scope": {"instrumentation_scope": None},
    "scope with all": {"instrumentation_scope": InstrumentationScope("n", "v", "https://s", {"k": [1, 2]})},
    "scope with nothing": {"instrumentation_scope": InstrumentationScope("")},
    "resource with schema": {"resource": Resource({"a": 1}, "https://s")},
    "empty name": {"name": ""},
    "event without attributes": {"events": [Event("e", None, 5)]},
    "event at 0": {"events": [Event("", {}, 0)]},
    "link with trace state": {"links": [Link(SpanContext(1, 2, is_remote=True, trace_state=TraceState([("a", "b")])))]},
    "link with attributes": {"links": [Link(CONTEXT, {"a": (1, 2)})]},
    **{str(kind): {"kind": kind} for kind in SpanKind},
}


@pytest.mark.parametrize("fields", ODD_SPANS.values(), ids=ODD_SPANS.keys())
def test_an_odd_span_becomes_the_official_message(fields):
    """The corners that random search may miss."""
    check(build(**fields))


def test_status_unset_is_present_and_no_status_is_absent():
    """Presence of a message field is part of equality."""
    assert only(build(status=Status())).HasField("status")
    assert not only(build(status=None)).HasField("status")


def test_a_redacting_wrapper_is_obeyed():
    """A subclass that overrides a public property sends what the property says, not what it hides."""

    class Redacted(ReadableSpan):
        @property
        def attributes(self):
            return {"password": "***"}

    span = Redacted("n", CONTEXT, attributes={"password": "hunter2"}, resource=Resource({}))
    assert only(span).attributes[0].value.string_value == "***"


def test_a_redacted_event_and_link_are_obeyed():
    """The same holds inside a span."""

    class RedactedEvent(Event):
        attributes = {"e": "***"}

    class RedactedLink(Link):
        attributes = {"l": "***"}

    span = only(build(events=[RedactedEvent("e", {"e": "secret"}, 1)], links=[RedactedLink(CONTEXT, {"l": "secret"})]))
    assert span.events[0].attributes[0].value.string_value == "***"
    assert span.links[0].attributes[0].value.string_value == "***"


def test_times_out_of_range_are_clamped():
    """A negative time becomes 0 and one beyond uint64 the largest: the span arrives."""
    span = only(build(start_time=-5, end_time=2**70, events=[Event("e", {}, -1)]))
    assert (span.start_time_unix_nano, span.end_time_unix_nano, span.events[0].time_unix_nano) == (0, 2**64 - 1, 0)


def test_a_time_that_is_no_whole_number_is_taken_as_far_as_it_goes():
    """A float loses its fraction, anything else is left out."""
    span = only(build(start_time=7.9, end_time="soon"))
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (7, 0)


def test_ids_out_of_range_are_masked():
    """The lower bits are kept, so that the span stays recognisable."""
    odd = SpanContext(2**128 + 5, 2**64 + 6, is_remote=False)
    span = only(build(context=odd, parent=odd, links=[Link(odd)]))
    assert (span.trace_id, span.span_id, span.parent_span_id) == (bytes(15) + b"\5", bytes(7) + b"\6", bytes(7) + b"\6")
    assert (span.links[0].trace_id, span.links[0].span_id) == (bytes(15) + b"\5", bytes(7) + b"\6")


def test_a_negative_id_is_masked():
    """Two's complement, cut to the field."""
    assert only(build(context=SpanContext(-1, -1, is_remote=False))).span_id == b"\xff" * 8


def test_a_span_without_context_has_no_ids():
    """Only a span that was built by hand can be so; its neighbours must not suffer."""
    assert only(build(context=None)).span_id == bytes(8)


def test_a_name_with_lone_surrogates_is_repaired():
    """A string field must be valid UTF-8, or a receiver refuses the whole request."""
    span = only(
        build(name="a\udcff\ud800b", events=[Event("\udc00", {}, 1)], status=Status(StatusCode.ERROR, "\ud900"))
    )
    assert (span.name, span.events[0].name, span.status.message) == ("a\ufffd\ufffdb", "\ufffd", "\ufffd")


def test_a_name_that_is_no_string_is_written_out():
    """None is no name; anything else has a `str`."""
    assert only(build(name=None)).name == ""
    assert only(build(name=12)).name == "12"


def test_an_unknown_kind_is_unspecified():
    """A kind that OTLP has no number for is left out."""

    class OtherKind(enum.Enum):
        LARGE = 200
        HUGE = 70000

    assert only(build(kind=None)).kind == 0
    assert only(build(kind=OtherKind.HUGE)).kind == 0
    assert only(build(kind=OtherKind.LARGE)).kind == 0


def test_an_item_that_cannot_be_encoded_leaves_the_request_unchanged():
    """The batch goes on without it."""
    codec = SpanCodec()
    request = codec.open()
    request.add(sdk.kept(build()))
    before = (request.items, request.size, b"".join(request.pieces()))
    with pytest.raises(TypeError):
        request.add(object())
    assert (request.items, request.size, b"".join(request.pieces())) == before


def kept_span(**fields):
    return sdk.kept(build(**fields))


def test_an_error_is_critical_and_nothing_else_is():
    """The lane's default rule for spans."""
    codec = SpanCodec()
    assert codec.is_critical(kept_span(status=Status(StatusCode.ERROR)))
    assert not codec.is_critical(kept_span(status=Status(StatusCode.OK)))
    assert not codec.is_critical(kept_span(status=None))
    assert not codec.is_critical(object())
