"""Requests: what shares a resource and a scope, in which order, and in which pieces."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from strategies import sdk_objects as sdk
from surgetank.otlp.request import JOIN_BYTES, PIECE_BYTES, joined
from surgetank.otlp.spans import SpanCodec

CONTEXT = SpanContext(1, 2, is_remote=False)


def span(resource: Any, scope: Any = None, **fields: Any) -> ReadableSpan:
    return ReadableSpan("n", CONTEXT, resource=resource, instrumentation_scope=scope, **fields)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(sdk.resources, st.none() | sdk.scopes), max_size=12))
def test_items_are_grouped_as_the_official_encoder_does(places):
    """By the SDK's equality, in the order in which resources and scopes were first seen."""
    spans = [span(resource, scope) for resource, scope in places]
    sdk.assert_same(sdk.encode(SpanCodec(), spans), encode_spans(spans))


def test_a_codec_remembers_heads_over_requests():
    """The caches live longer than a request and must not mix them up."""
    codec = SpanCodec()
    for number in range(200):
        spans = [span(Resource({"n": number % 50}), InstrumentationScope(f"lib{number % 45}")) for _ in range(2)]
        sdk.assert_same(sdk.encode(codec, spans), encode_spans(spans))


def test_many_resources_in_one_request_stay_grouped():
    """More than the caches hold."""
    spans = [span(Resource({"n": number % 100}), InstrumentationScope(f"lib{number % 3}")) for number in range(400)]
    sdk.assert_same(sdk.encode(SpanCodec(), spans), encode_spans(spans))


def test_a_resource_that_cannot_be_compared_is_its_own():
    """The SDK hashes a resource by writing it as JSON, which fails for some attributes."""

    class Unhashable(Resource):
        def __hash__(self) -> int:
            raise TypeError("not JSON")

    first, second = Unhashable({"a": 1}), Unhashable({"a": 1})
    raw = sdk.encode(SpanCodec(), [span(first), span(second), span(first)])
    message = sdk.REQUESTS[SpanCodec().signal].FromString(raw)
    assert [len(group.scope_spans[0].spans) for group in message.resource_spans] == [2, 1]


def test_an_item_without_a_resource_is_sent():
    """The official encoder refuses it."""
    item = span(None)
    item._resource = None
    message = sdk.REQUESTS[SpanCodec().signal].FromString(sdk.encode(SpanCodec(), [item]))
    assert message.resource_spans[0].HasField("resource")


def test_an_empty_request_is_empty():
    """Nothing was added, nothing is said."""
    request = SpanCodec().open()
    assert (request.items, request.size, list(request.pieces())) == (0, 0, [])


def test_small_items_are_joined_and_large_values_are_not():
    """A value of a MiB is handed on as the one copy that was encoded."""
    large = "x" * (1 << 20)
    spans = [span(Resource({})) for _ in range(3000)] + [
        span(Resource({}), attributes={"a": "b", "large": large, "c": 1})
    ]
    request = SpanCodec().open()
    for item in spans:
        request.add(sdk.kept(item))
    pieces = list(request.pieces())
    assert pieces.count(large.encode()) == 1
    assert all(len(piece) <= JOIN_BYTES for piece in pieces if len(piece) != len(large))
    assert len(pieces) < 10
    sdk.assert_same(b"".join(pieces), encode_spans(spans))
    assert all(
        first is second
        for first, second in zip(request.pieces(), request.pieces(), strict=True)
        if len(first) == len(large)
    )


def test_a_large_bytes_value_is_not_copied_at_all():
    """Bytes are already what they become, at whatever depth they stand."""
    large = bytes(1 << 20)
    request = SpanCodec().open()
    request.add(sdk.kept(span(Resource({}), attributes={"list": [1, {"k": large}], "c": 1})))
    assert sum(piece is large for piece in request.pieces()) == 1


def test_medium_values_that_make_a_large_item_are_right():
    """Around the sizes at which values and items stop being joined."""
    for size in (63, 64, 65, 127, 128, 16_383, 16_384, 16_385, 40_000, 65_535, 65_536, 70_000):
        spans = [
            span(
                Resource({}),
                attributes={"a": "x" * size, "b": ["y" * size, 1], "c": b"z" * size, "d": {"k": "é" * size}},
            )
        ]
        sdk.assert_same(sdk.encode(SpanCodec(), spans), encode_spans(spans))


@given(st.lists(st.sampled_from([0, 1, 100, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1]), max_size=20))
def test_joining_keeps_the_bytes(sizes):
    """And no joined piece is longer than the limit."""
    pieces = [bytes([index % 256]) * size for index, size in enumerate(sizes)]
    found = list(joined(iter(pieces)))
    assert b"".join(found) == b"".join(pieces)
    assert all(len(piece) <= JOIN_BYTES for piece in found)
