"""Reading SDK objects: the private names exist, and without them the public way gives the same."""

from __future__ import annotations

import pytest
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util import BoundedList
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceState

from surgetank.otlp import estimate, sdk


def build() -> ReadableSpan:
    return ReadableSpan(
        "n",
        SpanContext(1, 2, is_remote=False, trace_state=TraceState([("a", "b")])),
        SpanContext(3, 4, is_remote=True),
        Resource({}),
        BoundedAttributes(1, {"a": 1, "b": 2}),
        BoundedList.from_seq(1, [Event("f", None, 6), Event("e", BoundedAttributes(1, {"a": 1, "b": 2}), 5)]),
        BoundedList.from_seq(1, []),
        SpanKind.CLIENT,
        None,
        Status(StatusCode.ERROR, "m"),
        7,
        8,
        InstrumentationScope("s"),
    )


def comparable(fields: sdk.SpanFields) -> dict:
    plain = fields._asdict()
    for name in ("attributes", "trace_state"):
        plain[name] = dict(plain[name])
    for name in ("events", "links"):
        plain[name] = list(plain[name])
    return plain


def test_both_ways_of_reading_a_span_give_the_same():
    """The short one through private names, the public one through properties."""
    span = build()
    public = comparable(sdk._read_public_span(span))
    own = sdk._read_own_span(span)
    assert own is not None
    assert comparable(own) == public


@pytest.mark.parametrize("name", ["_attributes", "_context", "_kind", "_start_time"])
def test_a_span_without_a_private_name_is_read_in_public(name, monkeypatch):
    """As a later SDK may rename what is private."""
    span = build()
    expected = comparable(sdk.snapshot(span))
    monkeypatch.setattr(sdk, "_read_own_span", lambda _: object().missing)
    assert comparable(sdk.snapshot(span)) == expected


def test_the_private_names_exist_in_this_sdk():
    """A warning to ourselves: without them everything works, but slowly."""
    span = build()
    assert sdk._IS_SPAN[type(span)]
    assert isinstance(sdk.snapshot(span).attributes, dict)
    assert isinstance(sdk.snapshot(span).trace_state, dict)
    assert sdk._read_own_span(span) is not None
    assert all(
        (
            sdk._IS_EVENT[Event],
            sdk._IS_STATUS[Status],
            sdk._IS_CONTEXT[SpanContext],
            sdk._IS_TRACE_STATE[TraceState],
            sdk._IS_ATTRIBUTES[BoundedAttributes],
            sdk._IS_LIST[BoundedList],
        )
    )


class OwnAttributes(BoundedAttributes):
    def __iter__(self):
        return iter(())

    def __len__(self):
        return 0


@pytest.mark.parametrize("where", ["span", "event"])
def test_a_container_of_a_type_of_its_own_is_obeyed(where):
    """A redacting subclass, say: what it hides stays hidden."""
    sdk.snapshot(build())
    span = build()
    hidden = OwnAttributes(attributes={"secret": 1})
    if where == "span":
        span._attributes = hidden
    else:
        span._events = BoundedList.from_seq(1, [Event("e", hidden, 5)])
    read = sdk.snapshot(span)
    assert not dict(read.attributes if where == "span" else read.events[0][2])


def test_a_long_key_counts_however_many_short_ones_were_met():
    """The memory of short keys is bounded, and what is not in it is looked at."""
    for number in range(3 * estimate._KEYS_MAX):
        estimate.estimate_attributes({f"k{number}": 1})
    assert len(estimate._short_keys) <= estimate._KEYS_MAX
    assert estimate.estimate_attributes({"x" * 100_000: 1}) > 100_000
    assert estimate.estimate_attributes({"unmet": 1}) < 1000


def test_the_table_of_types_is_bounded():
    """Some programs make types without end."""
    for number in range(500):
        assert sdk.plain_attributes(type(f"Made{number}", (dict,), {})(a=1)) == {"a": 1}
    assert len(sdk._IS_ATTRIBUTES) <= 64
    assert sdk.plain_attributes(BoundedAttributes(attributes={"a": 1})) == {"a": 1}


def test_a_subclass_of_the_attribute_container_keeps_its_own_ways():
    """What it overrides is what counts."""

    class Own(BoundedAttributes):
        def items(self):
            return [("own", 1)]

    own = Own(attributes={"a": 1})
    assert sdk.plain_attributes(own) is own
