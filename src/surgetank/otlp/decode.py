"""OTLP's wire format as plain Python: what `json.py` reads, with numbers, bytes and identifiers left as they are.

Owns: no state. Threads: any.
Invariants: what our encoder wrote is read without a loss; names are those of the JSON form; a field that has its
default value and no presence of its own is left out, as there; what is no protobuf raises ValueError and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from surgetank.model import Signal
from surgetank.otlp import json
from surgetank.otlp.json import signed
from surgetank.otlp.wire import FIXED64, LENGTH_DELIMITED, VARINT

# The largest batch that can be configured has no more: what is lost by a limit here is lost for good.
_VALUES_MAX: Final = 2**23
_PLAIN: Final = {
    json._BYTES: json._Kind(LENGTH_DELIMITED, bytes, b""),
    json._HEX: json._Kind(LENGTH_DELIMITED, lambda content: int.from_bytes(content, "big"), None),
    json._INT64: json._Kind(VARINT, lambda value: signed(value, 64), 0),
    json._UINT64: json._Kind(VARINT, int, 0),
    json._FIXED64: json._Kind(FIXED64, lambda content: struct.unpack("<Q", content)[0], 0),
    json._SFIXED64: json._Kind(FIXED64, lambda content: struct.unpack("<q", content)[0], 0),
    json._DOUBLE: json._Kind(FIXED64, lambda content: struct.unpack("<d", content)[0], 0.0),
}
"""The kinds that JSON has no numbers or bytes for. An identifier is the SDK's int; 0 is one, and not the same as none."""
_MESSAGES: Final[json.Messages] = {
    name: {
        number: entry if isinstance(entry.kind, str) else replace(entry, kind=_PLAIN.get(entry.kind, entry.kind))
        for number, entry in entries.items()
    }
    for name, entries in json.MESSAGES.items()
}


def decode(raw: bytes, signal: Signal) -> dict[str, Any]:
    """
    Return a serialised Export*ServiceRequest as dicts, lists and numbers.

    Raises:
        ValueError: The bytes are no protobuf message, or hold more values than any batch of ours.
    """
    return json.read(raw, signal, _MESSAGES, _VALUES_MAX)


def value(message: dict[str, Any] | None) -> Any:
    """Return what an AnyValue holds; None for an empty one. Arrays become tuples, as the SDK keeps them in attributes."""
    for name, content in (message or {}).items():
        if name == "arrayValue":
            return tuple(map(value, content.get("values", ())))
        if name == "kvlistValue":
            return mapping(content.get("values", ()))
        return content
    return None


def mapping(pairs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return KeyValue messages as a dict."""
    return {pair.get("key", ""): value(pair.get("value")) for pair in pairs}
