"""Values that the official encoder refuses, and what becomes of them; the OpenTelemetry specification names the forms."""

from __future__ import annotations

import sys
import threading
from collections import UserDict, deque
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics._internal.point import Gauge, Metric, NumberDataPoint
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext

from strategies import sdk_objects as sdk
from surgetank.otlp.attributes import AttributeEncoder
from surgetank.otlp.metrics import MetricCodec, MetricPoint
from surgetank.otlp.spans import SpanCodec

CONTEXT = SpanContext(1, 2, is_remote=False)


def encoded(attributes: Any) -> dict[str, AnyValue]:
    span = ReadableSpan("n", CONTEXT, attributes=attributes, resource=Resource({}))
    raw = sdk.encode(SpanCodec(), [span])
    message = ExportTraceServiceRequest.FromString(raw).resource_spans[0].scope_spans[0].spans[0]
    return {pair.key: pair.value for pair in message.attributes}


def value_of(value: Any) -> AnyValue:
    return encoded({"k": value})["k"]


class Raises:
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


class Speaks:
    def __str__(self) -> str:
        return "spoken"


class Chained(Sequence):
    """A sequence without end: each element is another one."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> Any:
        if index > 1:
            raise IndexError(index)
        return Chained()


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**30])
def test_an_int_beyond_int64_is_written_out(number):
    """As a decimal string, in which nothing is lost."""
    assert value_of(number).string_value == str(number)
    assert value_of([number]).array_value.values[0].string_value == str(number)


def test_an_int_too_long_for_decimal_is_written_in_hexadecimal():
    """Python refuses to write out thousands of digits, for their cost."""
    if not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("this Python writes out every int")
    assert value_of(10**5000).string_value == hex(10**5000)


def test_undecodable_text_is_sent_as_its_original_bytes():
    """What `os.fsdecode` made of a file name in Latin-1."""
    assert value_of(b"caf\xe9".decode("utf-8", "surrogateescape")).bytes_value == b"caf\xe9"
    assert value_of("x" * 100 + "\udcff").bytes_value == b"x" * 100 + b"\xff"
    assert value_of("x" * 100_000 + "\udcff").bytes_value == b"x" * 100_000 + b"\xff"


def test_surrogates_that_stand_for_no_bytes_are_passed_through():
    """Neither do those whose bytes would be valid UTF-8 after all, which would say something else."""
    assert value_of("\ud800").bytes_value == b"\xed\xa0\x80"
    assert value_of("\udcc3\udca9").bytes_value == b"\xed\xb3\x83\xed\xb2\xa9"


def test_a_key_with_lone_surrogates_is_repaired():
    """A string field must be valid UTF-8, or a receiver refuses the whole request."""
    assert encoded({"k\udcff": 1})["k\ufffd"].int_value == 1
    assert value_of({"k\ud800": 1}).kvlist_value.values[0].key == "k\ufffd"


def test_resource_and_scope_texts_with_lone_surrogates_are_repaired():
    """One bad service name must not cost every request of the process."""
    span = ReadableSpan(
        "n",
        CONTEXT,
        resource=Resource({"k\udcff": "v\udcff"}, "https://s\udcff"),
        instrumentation_scope=InstrumentationScope("l\udcff", "1\udcff"),
    )
    message = ExportTraceServiceRequest.FromString(sdk.encode(SpanCodec(), [span])).resource_spans[0]
    assert message.resource.attributes[0].value.bytes_value == b"v\xff"
    assert (message.schema_url, message.scope_spans[0].scope.name) == ("https://s\ufffd", "l\ufffd")


def test_a_value_of_unknown_type_is_sent_as_its_text():
    """As the SDK itself does since 1.45."""
    assert value_of(Speaks()).string_value == "spoken"
    assert value_of([Speaks(), {"a": Speaks()}]).array_value.values[0].string_value == "spoken"
    assert value_of(2 + 3j).string_value == "(2+3j)"


def test_a_value_without_a_text_is_left_out_alone():
    """Its neighbours, before and behind, arrive in order."""
    assert list(encoded({"a": 1, "bad": Raises(), "b": "x", "worse": [1, {"x": Raises()}], "c": True})) == [
        "a",
        "b",
        "c",
    ]


def test_a_key_of_unknown_type_is_sent_as_its_text():
    """None is the empty key, as it is officially; a key without a text is left out."""
    assert list(encoded({1: "a", None: "b", ("t",): "c", b"bytes": "d", Raises(): "e"})) == ["1", "", "('t',)", "bytes"]


def test_keys_that_are_equal_but_not_the_same_are_told_apart():
    """`1 == 1.0 == True`, and the caches must not care."""
    codec = AttributeEncoder()
    for attributes in ({1: 1}, {True: 1}, {1.0: 1}, {"k": 1}, {"k": True}, {"k": 1.0}, {"k": sdk.OwnInt(1)}):
        ours: list[bytes] = []
        fresh: list[bytes] = []
        codec.encode(attributes, b"\x0a", ours)
        AttributeEncoder().encode(attributes, b"\x0a", fresh)
        assert ours == fresh


def test_every_sequence_and_mapping_is_taken():
    """Whatever the abstract base classes of the standard library call one."""
    for sequence in ([1, 2], (1, 2), deque([1, 2]), range(1, 3), bytearray([1, 2]), memoryview(bytes([1, 2]))):
        assert [element.int_value for element in value_of(sequence).array_value.values] == [1, 2]
    for mapping in ({"a": 1}, UserDict(a=1), sdk.MappingProxyType({"a": 1})):
        assert value_of(mapping).kvlist_value.values[0].key == "a"


def nested(levels: int, wrap: Any) -> Any:
    value: Any = "leaf"
    for _ in range(levels):
        value = wrap(value)
    return value


@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"k": inner}, lambda inner: ({"k": inner},)])
@pytest.mark.parametrize("levels", [18, 30, 45, 64, 5000])
def test_deep_nesting_is_cut_where_receivers_could_not_follow(wrap, levels):
    """At every place where a value can stand, the request stays one that a decoder with the usual limit of 100 takes."""
    deep = {"a": nested(levels, wrap)}
    span = ReadableSpan(
        "n", CONTEXT, attributes=deep, events=[Event("e", deep, 1)], links=[Link(CONTEXT, deep)], resource=Resource({})
    )
    assert b"leaf" in sdk.encode(SpanCodec(), [span]) or levels > 18
    ExportTraceServiceRequest.FromString(sdk.encode(SpanCodec(), [span]))
    point = NumberDataPoint(deep, 1, 2, 3, [Exemplar(deep, 1, 2)])
    item = MetricPoint(1, Resource({}), None, Metric("m", None, None, Gauge([point])), point)
    sdk.REQUESTS[MetricCodec().signal].FromString(sdk.encode(MetricCodec(), [item]))


def test_a_container_that_holds_itself_ends():
    """Said in words where it begins again."""
    circle: list[Any] = [1]
    circle.append(circle)
    assert value_of(circle).array_value.values[1].string_value == "<contains itself>"
    ring: dict[str, Any] = {}
    ring["again"] = [ring]
    inner = value_of(ring).kvlist_value.values[0].value.array_value.values[0]
    assert inner.string_value == "<contains itself>"


def test_a_container_that_is_shared_is_sent_each_time():
    """Sharing is no circle."""
    shared = [1]
    assert value_of([shared, shared]).array_value.values[1].array_value.values[0].int_value == 1


def test_containers_that_stand_for_too_much_are_replaced():
    """Forty levels of pairs are a hundred objects and a million million elements."""
    wide: Any = "leaf"
    for _ in range(40):
        wide = [wide, wide]
    values = encoded({"before": 1, "wide": wide, "endless": Chained(), "after": 2})
    assert values["wide"].string_value == values["endless"].string_value == "<too many elements>"
    assert (values["before"].int_value, values["after"].int_value) == (1, 2)


def test_attributes_that_break_are_left_out():
    """An object that only claims to be a mapping costs itself, not its span."""

    class Broken(Mapping):
        def __len__(self) -> int:
            raise RuntimeError

        def __iter__(self):
            raise RuntimeError

        def __getitem__(self, key):
            raise RuntimeError

    out: list[bytes] = []
    assert AttributeEncoder().encode(Broken(), b"\x0a", out) == 0
    assert AttributeEncoder().encode(12, b"\x0a", out) == 0
    assert out == []


def test_attributes_that_change_meanwhile_are_still_sent():
    """Another thread may add attributes to what was handed over."""

    class Growing(dict):
        def items(self):
            for pair in super().items():
                yield pair
                self[f"new{len(self)}"] = 1

    out: list[bytes] = []
    AttributeEncoder().encode(Growing(a=1, b=2), b"\x0a", out)
    assert b"a" in b"".join(out) and b"b" in b"".join(out)


def test_attributes_are_encoded_while_another_thread_changes_them():
    """The law holds for what is read; nothing raises."""
    attributes = {f"k{number}": number for number in range(50)}
    done = threading.Event()

    def churn() -> None:
        number = 0
        while not done.is_set():
            attributes[f"x{number % 100}"] = number
            attributes.pop(f"x{(number + 50) % 100}", None)
            number += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        encoder = AttributeEncoder()
        for _ in range(200):
            out: list[bytes] = []
            assert encoder.encode(attributes, b"\x0a", out) == len(b"".join(out))
    finally:
        done.set()
        thread.join()


wild_scalars = (
    sdk.scalars
    | st.text(st.characters())
    | st.integers()
    | st.just(Speaks())
    | st.just(Raises())
    | st.complex_numbers()
)
wild_values = st.recursive(
    wild_scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(wild_scalars, inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(st.characters()) | st.integers() | st.none(), wild_values, max_size=5))
def test_whatever_the_attributes_the_request_can_be_read(attributes):
    """No value makes the bytes unreadable, and no readable attribute is lost."""
    found = encoded(attributes)
    plain = [key for key, value in attributes.items() if type(value) in (bool, float, bytes) and isinstance(key, str)]
    assert len(found) >= len({key for key in plain if key.isascii()})


@settings(max_examples=60, deadline=None)
@given(sdk.plain_attributes)
def test_a_set_is_encoded_the_same_from_the_caches(attributes):
    """The second time, everything that can be remembered is."""
    encoder = AttributeEncoder()
    first: list[bytes] = []
    second: list[bytes] = []
    assert encoder.encode(attributes, b"\x4a", first) == encoder.encode(attributes, b"\x4a", second)
    assert b"".join(first) == b"".join(second)
