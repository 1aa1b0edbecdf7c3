"""The caches: bounded in bytes whatever comes, and never a reason for other bytes."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from strategies import sdk_objects as sdk
from surgetank.otlp.attributes import AttributeEncoder
from surgetank.otlp.spans import SpanCodec

CONTEXT = SpanContext(1, 2, is_remote=False)
LIMIT = 2 * 1024 * 1024

FLOODS = {
    "values": lambda number: {"k": f"value {number}"},
    "wide values": lambda number: {"k": f"{number}" + "\U0001f600" * 50},
    "ints": lambda number: {"k": number},
    "keys": lambda number: {f"key {number}": 1.5},
    "wide keys": lambda number: {f"{number}" + "\U0001f600" * 50: f"x{number}"},
    "long keys": lambda number: {"k" * 70 + str(number): "x"},
    "long values": lambda number: {"k": "v" * 100 + str(number)},
}


@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS.keys())
def test_attributes_without_end_do_not_fill_the_memory(flood):
    """High cardinality is an everyday mistake of applications."""
    encoder = AttributeEncoder()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        held = 0
        for number in range(12_000):
            encoder.encode(flood(number), b"\x4a", [])
            if number % 50 == 0:
                held = max(held, tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert held < LIMIT


def test_names_resources_and_scopes_without_end_do_not_fill_the_memory():
    """A codec as a whole stays under 2 MiB."""
    codec = SpanCodec()

    def encode(number: int) -> None:
        span = ReadableSpan(
            f"span {number}",
            CONTEXT,
            resource=Resource({"n": "x" * 3000 + str(number)}),
            instrumentation_scope=InstrumentationScope("s" * 3000 + str(number)),
        )
        codec.open().add(sdk.kept(span))

    encode(0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            encode(number)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < LIMIT


def test_the_bytes_stay_right_when_the_caches_start_again():
    """Many spans of many values, over several fillings of the caches."""
    codec = SpanCodec()
    for start in range(0, 12_000, 2000):
        spans = [
            ReadableSpan(
                f"n{number}",
                CONTEXT,
                attributes={"k": f"v{number}", "i": number, "f": 1.5, "b": True},
                resource=Resource({}),
            )
            for number in range(start, start + 2000)
        ]
        sdk.assert_same(sdk.encode(codec, spans), encode_spans(spans))


def test_one_span_with_more_attributes_than_the_caches_hold_is_right():
    """The caches start again while the span is being encoded."""
    attributes: dict[str, Any] = {f"key {number}": f"value {number}" for number in range(8000)}
    span = ReadableSpan("n", CONTEXT, attributes=attributes, resource=Resource({}))
    sdk.assert_same(sdk.encode(SpanCodec(), [span, span]), encode_spans([span, span]))
