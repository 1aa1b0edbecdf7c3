"""Data points: number, histogram and exponential histogram points, and the data message around them.

Owns: which data types were recognised.
Threads: one at a time, but for `kind_of`.
Invariants: optional fields (sum, min, max) are written exactly when the SDK
has a value, and the number of a number point always, 0 too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from surgetank.otlp.attributes import AttributeEncoder
from surgetank.otlp.wire import (
    INT64_MAX,
    INT64_MIN,
    delimited,
    fixed64,
    identifier,
    pack_double,
    pack_sfixed64,
    signed_varint,
    uint32,
    uint64,
    varint,
    whole,
    zigzag,
)

_INT32_MIN: Final = -(2**31)
_INT32_MAX: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DataKind:
    """One of the forms that a metric's data takes in OTLP."""

    tag: bytes
    """The field of Metric."""
    attributes_tag: bytes
    exemplars_tag: bytes
    fields: Callable[[Any], bytes]
    """The point's own fields, attributes and exemplars apart."""


def kind_of(data: Any) -> DataKind:
    """
    Return the form of a metric's data, by the name of its class or of one that it derives from.

    Raises:
        ValueError: There is none.
    """
    for base in type(data).__mro__:
        kind = DATA_KINDS.get(base.__name__)
        if kind is not None:
            return kind
    raise ValueError(f"metric data of type {type(data).__name__} has no form in OTLP")


def data_head(data: Any) -> bytes:
    """Return the fields of the data message beside the points: temporality and monotonicity."""
    head = b""
    temporality = getattr(data, "aggregation_temporality", None)
    if temporality:
        head += b"\x10" + signed_varint(whole(temporality, _INT32_MIN, _INT32_MAX))
    if getattr(data, "is_monotonic", False):
        head += b"\x18\x01"
    return head


def encode_point(point: Any, kind: DataKind, attributes: AttributeEncoder, out: list[bytes]) -> int:
    """
    Append a data point with its tag and length, and return its whole length.

    Raises:
        Exception: The point has a value that is no number.
    """
    fields = kind.fields(point)
    slot = len(out)
    out.append(b"")
    size = len(fields) + attributes.encode(point.attributes, kind.attributes_tag, out)
    for exemplar in point.exemplars or ():
        size += _append_exemplar(exemplar, kind.exemplars_tag, attributes, out)
    head = b"\x0a" + varint(size)
    out[slot] = head + fields
    return len(head) + size


def _append_exemplar(exemplar: Any, tag: bytes, attributes: AttributeEncoder, out: list[bytes]) -> int:
    fields = b"\x11" + fixed64(exemplar.time_unix_nano) + _number(exemplar.value, b"\x19")
    if exemplar.span_id is not None and exemplar.trace_id is not None:
        fields += b"\x22\x08" + identifier(exemplar.span_id, 8) + b"\x2a\x10" + identifier(exemplar.trace_id, 16)
    slot = len(out)
    out.append(b"")
    size = attributes.encode(exemplar.filtered_attributes, b"\x3a", out)
    out[slot] = opening = tag + varint(len(fields) + size) + fields
    return len(opening) + size


def _number(value: Any, double_tag: bytes) -> bytes:
    """Return as_int or as_double (field 6 in both messages that have it, and the field given)."""
    if isinstance(value, int):
        if INT64_MIN <= value <= INT64_MAX:
            return b"\x31" + pack_sfixed64(value)
        return double_tag + pack_double(_double(value))
    return double_tag + pack_double(float(value))


def _double(value: Any) -> float:
    """Return a number as a float; an int beyond its range is infinite."""
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def _optional_double(tag: bytes, value: Any) -> bytes:
    return b"" if value is None else tag + pack_double(_double(value))


def _times(point: Any) -> bytes:
    return b"\x11" + fixed64(point.start_time_unix_nano) + b"\x19" + fixed64(point.time_unix_nano)


def _gauge_fields(point: Any) -> bytes:
    # A gauge has no start time of its own; the SDK's points carry one, and the official encoder leaves it out.
    return b"\x19" + fixed64(point.time_unix_nano) + _number(point.value, b"\x21")


def _sum_fields(point: Any) -> bytes:
    return _times(point) + _number(point.value, b"\x21")


def _histogram_fields(point: Any) -> bytes:
    return b"".join(
        (
            _times(point),
            b"\x21",
            fixed64(point.count),
            _optional_double(b"\x29", point.sum),
            _packed(b"\x32", "Q", [uint64(count) for count in point.bucket_counts or ()]),
            _packed(b"\x3a", "d", [_double(bound) for bound in point.explicit_bounds or ()]),
            _optional_double(b"\x59", point.min),
            _optional_double(b"\x61", point.max),
        )
    )


def _exponential_fields(point: Any) -> bytes:
    flags = uint32(point.flags)
    return b"".join(
        (
            _times(point),
            b"\x21",
            fixed64(point.count),
            _optional_double(b"\x29", point.sum),
            b"\x30" + zigzag(whole(point.scale, _INT32_MIN, _INT32_MAX)),
            b"\x39",
            fixed64(point.zero_count),
            _buckets(b"\x42", point.positive),
            _buckets(b"\x4a", point.negative),
            b"\x50" + varint(flags) if flags else b"",
            _optional_double(b"\x61", point.min),
            _optional_double(b"\x69", point.max),
        )
    )


def _packed(tag: bytes, code: str, numbers: list[Any]) -> bytes:
    if not numbers:
        return b""
    return delimited(tag, struct.pack(f"<{len(numbers)}{code}", *numbers))


def _buckets(tag: bytes, buckets: Any) -> bytes:
    """Return one half of an exponential histogram; without counts there is no such message."""
    if buckets is None or not buckets.bucket_counts:
        return b""
    counts = b"".join([varint(uint64(count)) for count in buckets.bucket_counts])
    offset = whole(buckets.offset, _INT32_MIN, _INT32_MAX)
    return delimited(tag, b"\x08" + zigzag(offset) + delimited(b"\x12", counts))


DATA_KINDS: Final = {
    "Gauge": DataKind(tag=b"\x2a", attributes_tag=b"\x3a", exemplars_tag=b"\x2a", fields=_gauge_fields),
    "Sum": DataKind(tag=b"\x3a", attributes_tag=b"\x3a", exemplars_tag=b"\x2a", fields=_sum_fields),
    "Histogram": DataKind(tag=b"\x4a", attributes_tag=b"\x4a", exemplars_tag=b"\x42", fields=_histogram_fields),
    "ExponentialHistogram": DataKind(
        tag=b"\x52", attributes_tag=b"\x0a", exemplars_tag=b"\x5a", fields=_exponential_fields
    ),
}
