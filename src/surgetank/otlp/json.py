"""OTLP's wire format as OTLP's JSON: a request's bytes become the object that a file exporter would have written.

Owns: tables of the messages and their fields. Threads: any.
Invariants: the object is what the official classes' JSON form is, with OTLP's two exceptions (trace and span
identifiers are hexadecimal, enums are numbers); what the tables do not know is skipped; what is no
protobuf raises ValueError and nothing else.
"""

from __future__ import annotations

import json
import math
import struct
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from surgetank.model import Signal
from surgetank.otlp.fields import Field, fields, read_varint
from surgetank.otlp.wire import FIXED32, FIXED64, LENGTH_DELIMITED, VARINT

# Values nest in values; protobuf's own readers stop at this depth, too.
_DEPTH_MAX: Final = 100

VALUES_MAX: Final = 2**21
"""The messages and repeated values of a request that is read; some 500 MiB of objects."""
# The fewest bytes of a number that is packed with others.
_LEAST: Final = {VARINT: 1, FIXED32: 4, FIXED64: 8}

_unpack_double: Final = struct.Struct("<d").unpack
_unpack_fixed32: Final = struct.Struct("<I").unpack
_unpack_fixed64: Final = struct.Struct("<Q").unpack
_unpack_sfixed64: Final = struct.Struct("<q").unpack


@dataclass(frozen=True, slots=True)
class _Kind:
    """A scalar type: how it stands on the wire, and what it is in JSON."""

    wire_type: int
    convert: Callable[[Any], Any]
    """Takes a varint's number, and the bytes of everything else."""
    default: Any
    """What is left out where the field has no presence of its own."""

    def read(self, data: bytes, field: Field) -> Any:
        """Return a field's value as it is in JSON."""
        return self.convert(field.value if self.wire_type == VARINT else data[field.start : field.end])


@dataclass(frozen=True, slots=True)
class _Entry:
    """One field of a message."""

    name: str
    kind: _Kind | str
    """A scalar, or the name of a message."""
    is_repeated: bool = False
    choice: str = ""
    """The `oneof` that it belongs to. An optional field is alone in one: it is written even when it is the default."""


Messages: TypeAlias = Mapping[str, Mapping[int, _Entry]]
"""Of each message, its fields by number."""


def signed(value: int, bits: int) -> int:
    """Return a varint's lowest bits as two's complement."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _double(content: bytes) -> float | str:
    value: float = _unpack_double(content)[0]
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _zigzag(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value >> 1 ^ -(value & 1)


_TEXT: Final = _Kind(LENGTH_DELIMITED, lambda content: content.decode("utf-8", "replace"), "")
_BYTES: Final = _Kind(LENGTH_DELIMITED, lambda content: b64encode(content).decode(), "")
_HEX: Final = _Kind(LENGTH_DELIMITED, bytes.hex, "")
_BOOL: Final = _Kind(VARINT, bool, default=False)
_ENUM: Final = _Kind(VARINT, lambda value: signed(value, 32), 0)
_INT32: Final = _ENUM
_UINT32: Final = _Kind(VARINT, lambda value: value & 0xFFFF_FFFF, 0)
_SINT32: Final = _Kind(VARINT, _zigzag, 0)
# Numbers of 64 bits are decimal strings, since JavaScript's have 53.
_INT64: Final = _Kind(VARINT, lambda value: str(signed(value, 64)), "0")
_UINT64: Final = _Kind(VARINT, str, "0")
_FIXED32: Final = _Kind(FIXED32, lambda content: _unpack_fixed32(content)[0], 0)
_FIXED64: Final = _Kind(FIXED64, lambda content: str(_unpack_fixed64(content)[0]), "0")
_SFIXED64: Final = _Kind(FIXED64, lambda content: str(_unpack_sfixed64(content)[0]), "0")
_DOUBLE: Final = _Kind(FIXED64, _double, 0.0)


def _one(name: str, kind: _Kind | str) -> _Entry:
    return _Entry(name, kind)


def _many(name: str, kind: _Kind | str) -> _Entry:
    return _Entry(name, kind, is_repeated=True)


def _choices(choice: str, entries: Mapping[int, _Entry]) -> dict[int, _Entry]:
    return {number: replace(entry, choice=choice) for number, entry in entries.items()}


def _optional(name: str, kind: _Kind) -> _Entry:
    return _Entry(name, kind, choice=name)


_ATTRIBUTES: Final = _many("attributes", "KeyValue")
_DROPPED_ATTRIBUTES: Final = _one("droppedAttributesCount", _UINT32)
_SCHEMA_URL: Final = _one("schemaUrl", _TEXT)
_RESOURCE: Final = _one("resource", "Resource")
_SCOPE: Final = _one("scope", "InstrumentationScope")
_TIME: Final = _one("timeUnixNano", _FIXED64)
_START_TIME: Final = _one("startTimeUnixNano", _FIXED64)
_TRACE_ID: Final = _one("traceId", _HEX)
_SPAN_ID: Final = _one("spanId", _HEX)
_TEMPORALITY: Final = _one("aggregationTemporality", _ENUM)

_COMMON: Final[Mapping[str, Mapping[int, _Entry]]] = {
    "Resource": {1: _ATTRIBUTES, 2: _DROPPED_ATTRIBUTES, 3: _many("entityRefs", "EntityRef")},
    "EntityRef": {
        1: _SCHEMA_URL,
        2: _one("type", _TEXT),
        3: _many("idKeys", _TEXT),
        4: _many("descriptionKeys", _TEXT),
    },
    "InstrumentationScope": {
        1: _one("name", _TEXT),
        2: _one("version", _TEXT),
        3: _ATTRIBUTES,
        4: _DROPPED_ATTRIBUTES,
    },
    "KeyValue": {1: _one("key", _TEXT), 2: _one("value", "AnyValue"), 3: _one("keyStrindex", _INT32)},
    "AnyValue": _choices(
        "value",
        {
            1: _one("stringValue", _TEXT),
            2: _one("boolValue", _BOOL),
            3: _one("intValue", _INT64),
            4: _one("doubleValue", _DOUBLE),
            5: _one("arrayValue", "ArrayValue"),
            6: _one("kvlistValue", "KeyValueList"),
            7: _one("bytesValue", _BYTES),
            8: _one("stringValueStrindex", _INT32),
        },
    ),
    "ArrayValue": {1: _many("values", "AnyValue")},
    "KeyValueList": {1: _many("values", "KeyValue")},
}
_TRACES: Final[Mapping[str, Mapping[int, _Entry]]] = {
    "ExportTraceServiceRequest": {1: _many("resourceSpans", "ResourceSpans")},
    "ResourceSpans": {1: _RESOURCE, 2: _many("scopeSpans", "ScopeSpans"), 3: _SCHEMA_URL},
    "ScopeSpans": {1: _SCOPE, 2: _many("spans", "Span"), 3: _SCHEMA_URL},
    "Span": {
        1: _TRACE_ID,
        2: _SPAN_ID,
        3: _one("traceState", _TEXT),
        4: _one("parentSpanId", _HEX),
        5: _one("name", _TEXT),
        6: _one("kind", _ENUM),
        7: _START_TIME,
        8: _one("endTimeUnixNano", _FIXED64),
        9: _ATTRIBUTES,
        10: _DROPPED_ATTRIBUTES,
        11: _many("events", "Event"),
        12: _one("droppedEventsCount", _UINT32),
        13: _many("links", "Link"),
        14: _one("droppedLinksCount", _UINT32),
        15: _one("status", "Status"),
        16: _one("flags", _FIXED32),
    },
    "Event": {1: _TIME, 2: _one("name", _TEXT), 3: _ATTRIBUTES, 4: _DROPPED_ATTRIBUTES},
    "Link": {
        1: _TRACE_ID,
        2: _SPAN_ID,
        3: _one("traceState", _TEXT),
        4: _ATTRIBUTES,
        5: _DROPPED_ATTRIBUTES,
        6: _one("flags", _FIXED32),
    },
    "Status": {2: _one("message", _TEXT), 3: _one("code", _ENUM)},
}
_LOGS: Final[Mapping[str, Mapping[int, _Entry]]] = {
    "ExportLogsServiceRequest": {1: _many("resourceLogs", "ResourceLogs")},
    "ResourceLogs": {1: _RESOURCE, 2: _many("scopeLogs", "ScopeLogs"), 3: _SCHEMA_URL},
    "ScopeLogs": {1: _SCOPE, 2: _many("logRecords", "LogRecord"), 3: _SCHEMA_URL},
    "LogRecord": {
        1: _TIME,
        2: _one("severityNumber", _ENUM),
        3: _one("severityText", _TEXT),
        5: _one("body", "AnyValue"),
        6: _ATTRIBUTES,
        7: _DROPPED_ATTRIBUTES,
        8: _one("flags", _FIXED32),
        9: _TRACE_ID,
        10: _SPAN_ID,
        11: _one("observedTimeUnixNano", _FIXED64),
        12: _one("eventName", _TEXT),
    },
}
_METRICS: Final[Mapping[str, Mapping[int, _Entry]]] = {
    "ExportMetricsServiceRequest": {1: _many("resourceMetrics", "ResourceMetrics")},
    "ResourceMetrics": {1: _RESOURCE, 2: _many("scopeMetrics", "ScopeMetrics"), 3: _SCHEMA_URL},
    "ScopeMetrics": {1: _SCOPE, 2: _many("metrics", "Metric"), 3: _SCHEMA_URL},
    "Metric": {
        1: _one("name", _TEXT),
        2: _one("description", _TEXT),
        3: _one("unit", _TEXT),
        12: _many("metadata", "KeyValue"),
        **_choices(
            "data",
            {
                5: _one("gauge", "Gauge"),
                7: _one("sum", "Sum"),
                9: _one("histogram", "Histogram"),
                10: _one("exponentialHistogram", "ExponentialHistogram"),
                11: _one("summary", "Summary"),
            },
        ),
    },
    "Gauge": {1: _many("dataPoints", "NumberDataPoint")},
    "Sum": {1: _many("dataPoints", "NumberDataPoint"), 2: _TEMPORALITY, 3: _one("isMonotonic", _BOOL)},
    "Histogram": {1: _many("dataPoints", "HistogramDataPoint"), 2: _TEMPORALITY},
    "ExponentialHistogram": {1: _many("dataPoints", "ExponentialHistogramDataPoint"), 2: _TEMPORALITY},
    "Summary": {1: _many("dataPoints", "SummaryDataPoint")},
    "NumberDataPoint": {
        2: _START_TIME,
        3: _TIME,
        5: _many("exemplars", "Exemplar"),
        7: _ATTRIBUTES,
        8: _one("flags", _UINT32),
        **_choices("value", {4: _one("asDouble", _DOUBLE), 6: _one("asInt", _SFIXED64)}),
    },
    "HistogramDataPoint": {
        2: _START_TIME,
        3: _TIME,
        4: _one("count", _FIXED64),
        5: _optional("sum", _DOUBLE),
        6: _many("bucketCounts", _FIXED64),
        7: _many("explicitBounds", _DOUBLE),
        8: _many("exemplars", "Exemplar"),
        9: _ATTRIBUTES,
        10: _one("flags", _UINT32),
        11: _optional("min", _DOUBLE),
        12: _optional("max", _DOUBLE),
    },
    "ExponentialHistogramDataPoint": {
        1: _ATTRIBUTES,
        2: _START_TIME,
        3: _TIME,
        4: _one("count", _FIXED64),
        5: _optional("sum", _DOUBLE),
        6: _one("scale", _SINT32),
        7: _one("zeroCount", _FIXED64),
        8: _one("positive", "Buckets"),
        9: _one("negative", "Buckets"),
        10: _one("flags", _UINT32),
        11: _many("exemplars", "Exemplar"),
        12: _optional("min", _DOUBLE),
        13: _optional("max", _DOUBLE),
        14: _one("zeroThreshold", _DOUBLE),
    },
    "Buckets": {1: _one("offset", _SINT32), 2: _many("bucketCounts", _UINT64)},
    "SummaryDataPoint": {
        2: _START_TIME,
        3: _TIME,
        4: _one("count", _FIXED64),
        5: _one("sum", _DOUBLE),
        6: _many("quantileValues", "ValueAtQuantile"),
        7: _ATTRIBUTES,
        8: _one("flags", _UINT32),
    },
    "ValueAtQuantile": {1: _one("quantile", _DOUBLE), 2: _one("value", _DOUBLE)},
    "Exemplar": {
        2: _TIME,
        4: _SPAN_ID,
        5: _TRACE_ID,
        7: _many("filteredAttributes", "KeyValue"),
        **_choices("value", {3: _one("asDouble", _DOUBLE), 6: _one("asInt", _SFIXED64)}),
    },
}
MESSAGES: Final[Messages] = {**_COMMON, **_TRACES, **_LOGS, **_METRICS}
"""Every message that a request can hold, by its name in the protocol's files."""
_ROOTS: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "ExportTraceServiceRequest",
    Signal.METRICS: "ExportMetricsServiceRequest",
    Signal.LOGS: "ExportLogsServiceRequest",
}


def decode(raw: bytes, signal: Signal) -> dict[str, Any]:
    """
    Return a serialised Export*ServiceRequest as the object that its JSON form is.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    return read(raw, signal, MESSAGES)


def line(raw: bytes, signal: Signal) -> str:
    """
    Return a request as one line of JSON, without its line feed.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    return json.dumps(decode(raw, signal), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def read(raw: bytes, signal: Signal, messages: Messages, most: int = VALUES_MAX) -> dict[str, Any]:
    """
    Return a serialised Export*ServiceRequest as an object, its values as these tables convert them.

    Args:
        raw: The request.
        signal: Its signal.
        messages: The tables.
        most: The messages and repeated values in it: a message may have two bytes, and takes a hundred times as many here.

    Raises:
        ValueError: The bytes are no protobuf message, or there are more values in it.
    """
    found: dict[str, Any] = {}
    _read(raw, 0, len(raw), (messages, _Budget(most), _ROOTS[signal]), found, 0)
    return found


class _Budget:
    """How many more values may be read."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = most

    def spend(self, count: int) -> None:
        """Note so many. Raises ValueError."""
        self._left -= count
        if self._left < 0:
            raise ValueError(f"there are more than {self._most:,} values in it")


def _read(
    data: bytes, start: int, end: int, kind: tuple[Messages, _Budget, str], into: dict[str, Any], depth: int
) -> None:
    """Read a message into an object that may hold what an earlier occurrence of it said, as protobuf merges them."""
    if depth > _DEPTH_MAX:
        raise ValueError(f"messages nest deeper than {_DEPTH_MAX} levels")
    messages, budget, message = kind
    budget.spend(1)
    entries = messages[message]
    for field in fields(data, start, end):
        entry = entries.get(field.number)
        if entry is None:
            continue
        if isinstance(entry.kind, str):
            if field.wire_type == LENGTH_DELIMITED:
                place = _place_for(entry, entries, into)
                _read(data, field.start, field.end, (messages, budget, entry.kind), place, depth + 1)
        elif entry.is_repeated:
            if field.wire_type == LENGTH_DELIMITED != entry.kind.wire_type:
                budget.spend((field.end - field.start) // _LEAST[entry.kind.wire_type])
            else:
                budget.spend(1)
            values = list(_repeated(data, field, entry.kind))
            if values:
                into.setdefault(entry.name, []).extend(values)
        elif field.wire_type == entry.kind.wire_type:
            _set(entry, entries, into, entry.kind.read(data, field), entry.kind.default)


def _place_for(entry: _Entry, entries: Mapping[int, _Entry], into: dict[str, Any]) -> dict[str, Any]:
    """Return the object that a message is read into."""
    if entry.is_repeated:
        element: dict[str, Any] = {}
        into.setdefault(entry.name, []).append(element)
        return element
    _clear_rivals(entry, entries, into)
    place: dict[str, Any] = into.setdefault(entry.name, {})
    return place


def _set(entry: _Entry, entries: Mapping[int, _Entry], into: dict[str, Any], value: Any, default: Any) -> None:
    _clear_rivals(entry, entries, into)
    # Minus zero equals zero, but is not the default.
    is_default = value == default and not (isinstance(value, float) and math.copysign(1.0, value) < 0)
    if entry.choice or not is_default:
        into[entry.name] = value
    else:
        into.pop(entry.name, None)


def _clear_rivals(entry: _Entry, entries: Mapping[int, _Entry], into: dict[str, Any]) -> None:
    """Of a `oneof`, the last that stands in the bytes is the one that counts."""
    if entry.choice:
        for rival in entries.values():
            if rival.choice == entry.choice and rival.name != entry.name:
                into.pop(rival.name, None)


def _repeated(data: bytes, field: Field, kind: _Kind) -> list[Any]:
    """Return a repeated scalar's values: one of its own, or many packed into one field."""
    if field.wire_type == kind.wire_type:
        return [kind.read(data, field)]
    if field.wire_type != LENGTH_DELIMITED:
        return []
    if kind.wire_type == VARINT:
        return [kind.read(data, each) for each in _packed_varints(data, field)]
    size = 8 if kind.wire_type == FIXED64 else 4
    if (field.end - field.start) % size:
        raise ValueError(f"the packed field at byte {field.tag_start} ends in the middle of a number")
    return [
        kind.read(data, field._replace(wire_type=kind.wire_type, start=start, end=start + size))
        for start in range(field.start, field.end, size)
    ]


def _packed_varints(data: bytes, field: Field) -> list[Field]:
    found: list[Field] = []
    position = field.start
    while position < field.end:
        value, position = read_varint(data, position, field.end)
        found.append(field._replace(wire_type=VARINT, value=value))
    return found
