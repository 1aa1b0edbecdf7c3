"""Spans: snapshots of ended spans, and SpanFields to Span messages.

Owns: one pipeline's caches for spans.
Threads: `snapshot`, `estimate` and `is_critical` any, at once; the rest one at a time.
Invariants: a span that the official encoder can encode comes out equal to the official message.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from surgetank.model import Signal
from surgetank.otlp.attributes import AttributeEncoder, TextCache
from surgetank.otlp.estimate import FAILED
from surgetank.otlp.request import PIECE_BYTES, Heads, ItemRequest
from surgetank.otlp.sdk import SpanFields, read_status, snapshot
from surgetank.otlp.wire import (
    delimited,
    fixed64,
    identifier,
    masked,
    pack_fixed32,
    text,
    uint32,
    uint64,
    varint,
)

# Every span has these fields, of fixed length, so one `pack` writes them with their tags:
# trace_id 1, span_id 2, [parent_span_id 4], kind 6, start 7, end 8, flags 16.
_pack_child: Final = struct.Struct("<H16sH8sH8sHBQBQHI").pack
_pack_root: Final = struct.Struct("<H16sH8sHBQBQHI").pack
_TRACE_ID: Final = 0x100A
_SPAN_ID: Final = 0x0812
_PARENT_ID: Final = 0x0822
_KINDS: Final = {kind: 0x30 | kind << 8 for kind in range(6)}
_START: Final = 0x39
_END: Final = 0x41
_FLAGS: Final = 0x0185

_HAS_IS_REMOTE: Final = 0x100
_IS_REMOTE: Final = 0x200
_ERROR: Final = 2

_UNSET_STATUS: Final = b"\x7a\x00"
_OK_STATUS: Final = b"\x7a\x02\x18\x01"


__all__ = ["SpanCodec", "SpanFields", "snapshot"]


class SpanCodec:
    """The codec of the spans' pipeline; its items are `SpanFields`."""

    def __init__(self) -> None:
        self._attributes = AttributeEncoder()
        self._names = TextCache()
        self._heads = Heads(self._attributes)

    @property
    def signal(self) -> Signal:
        """Spans."""
        return Signal.SPANS

    def open(self) -> ItemRequest:
        """Begin an empty request."""
        return ItemRequest(self._heads, self._encode)

    def is_critical(self, item: Any) -> bool:
        """Return whether the span ended with status ERROR."""
        try:
            is_error: bool = item.status_code == _ERROR
        except Exception:
            return False
        return is_error

    def estimate(self, item: Any) -> int:
        """Return about how many bytes of memory a snapshot keeps alive."""
        try:
            size: int = item.size
        except Exception:
            return FAILED
        return size

    def _encode(self, span: SpanFields) -> tuple[Any, Any, list[bytes], int]:
        """Return resource, scope, and the span as pieces with their length; small spans are one piece."""
        (
            name,
            kind,
            start,
            end,
            attributes,
            dropped_attributes,
            dropped_events,
            dropped_links,
            status,
            status_code,
            resource,
            scope,
            trace_id,
            span_id,
            trace_state,
            parent_id,
            parent_is_remote,
            events,
            links,
            _,
        ) = span
        try:
            fixed = _fixed(trace_id, span_id, parent_id, parent_is_remote, kind + 1, start, end)
        except Exception:
            fixed = _fixed(*_repaired(trace_id, span_id, parent_id, parent_is_remote, kind + 1, start, end))
        fixed += b"\x2a" + self._names[name]
        if trace_state:
            fixed += delimited(b"\x1a", text(",".join([f"{key}={value}" for key, value in trace_state.items()])))
        fixed += _status(*read_status(status)) if status_code != 0 else _UNSET_STATUS
        if dropped_attributes or dropped_events or dropped_links:
            fixed += _dropped_counts(dropped_attributes, dropped_events, dropped_links)
        parts = [b"", fixed]
        size = len(fixed)
        if attributes:
            size += self._attributes.encode(attributes, b"\x4a", parts)
        for event in events:
            size += self._append_event(event, parts)
        for link in links:
            size += self._append_link(link, parts)
        parts[0] = head = b"\x12" + varint(size)
        size += len(head)
        return resource, scope, [b"".join(parts)] if size < PIECE_BYTES else parts, size

    def _append_event(self, event: Any, parts: list[bytes]) -> int:
        name, timestamp, attributes, dropped = event
        head = b"\x09" + fixed64(timestamp) + b"\x12" + self._names[name]
        if dropped:
            head += b"\x20" + varint(uint32(dropped))
        return self._append_message(b"\x5a", head, attributes, b"\x1a", parts)

    def _append_link(self, link: Any, parts: list[bytes]) -> int:
        trace_id, span_id, is_remote, attributes, dropped = link
        flags = _HAS_IS_REMOTE | _IS_REMOTE if is_remote else _HAS_IS_REMOTE
        head = b"\x0a\x10" + identifier(trace_id, 16) + b"\x12\x08" + identifier(span_id, 8)
        head += b"\x35" + pack_fixed32(flags)
        if dropped:
            head += b"\x28" + varint(uint32(dropped))
        return self._append_message(b"\x6a", head, attributes, b"\x22", parts)

    def _append_message(
        self, tag: bytes, head: bytes, attributes: Any, attribute_tag: bytes, parts: list[bytes]
    ) -> int:
        slot = len(parts)
        parts.append(b"")
        size = self._attributes.encode(attributes, attribute_tag, parts)
        parts[slot] = opening = tag + varint(len(head) + size) + head
        return len(opening) + size


def _fixed(
    trace_id: Any, span_id: Any, parent_id: Any, parent_is_remote: Any, kind: Any, start: Any, end: Any
) -> bytes:
    """
    Return the fields of fixed length.

    Raises:
        Exception: A value does not fit its field.
    """
    flags = _HAS_IS_REMOTE | _IS_REMOTE if parent_is_remote else _HAS_IS_REMOTE
    trace = trace_id.to_bytes(16, "big")
    own = span_id.to_bytes(8, "big")
    kind = _KINDS[kind]
    if parent_id is None:
        return _pack_root(_TRACE_ID, trace, _SPAN_ID, own, kind, _START, start, _END, end, _FLAGS, flags)
    parent = parent_id.to_bytes(8, "big")
    return _pack_child(
        _TRACE_ID, trace, _SPAN_ID, own, _PARENT_ID, parent, kind, _START, start, _END, end, _FLAGS, flags
    )


def _repaired(
    trace_id: Any, span_id: Any, parent_id: Any, parent_is_remote: Any, kind: Any, start: Any, end: Any
) -> tuple[int, int, int | None, Any, int, int, int]:
    """Return `_fixed`'s arguments so that they fit; 0 means the field's default, as if it were not there."""
    return (
        masked(trace_id, 128),
        masked(span_id, 64),
        None if parent_id is None else masked(parent_id, 64),
        parent_is_remote,
        kind if kind in _KINDS else 0,
        uint64(start),
        uint64(end),
    )


def _status(code: Any, description: Any) -> bytes:
    if code is None:
        return b""
    if code == 1 and not description:
        return _OK_STATUS
    body = delimited(b"\x12", text(description)) if description else b""
    if code:
        body += b"\x18" + varint(uint32(code))
    return delimited(b"\x7a", body)


def _dropped_counts(attributes: Any, events: Any, links: Any) -> bytes:
    counts = ((b"\x50", attributes), (b"\x60", events), (b"\x70", links))
    return b"".join(field_tag + varint(uint32(count)) for field_tag, count in counts if count)
