"""Logs: snapshots of log records, and LogItem to LogRecord messages.

Owns: one pipeline's caches for logs.
Threads: `snapshot`, `estimate` and `is_critical` any, at once; the rest one at a time.
Invariants: a snapshot shares nothing with the record that a later processor
could change but the values themselves, and does not keep the record's context alive.
"""

from __future__ import annotations

from typing import Any, Final

from surgetank.model import Signal
from surgetank.otlp.attributes import AttributeEncoder, TextCache
from surgetank.otlp.estimate import FAILED, estimate_attributes, estimate_text, estimate_value
from surgetank.otlp.request import PIECE_BYTES, Heads, ItemRequest
from surgetank.otlp.values import append_value
from surgetank.otlp.wire import fixed64, identifier, pack_fixed32, signed_varint, uint32, varint, whole

_SEVERITY_ERROR: Final = 17
"""The lowest of the four ERROR numbers of the OpenTelemetry log data model."""
_INT32_MAX: Final = 2**31 - 1
_ITEM_BYTES: Final = 450


class LogItem:
    """What is kept of a log record; fields as in the SDK's, containers copied one level deep."""

    __slots__ = (
        "attributes",
        "body",
        "dropped_attributes",
        "event_name",
        "observed_timestamp",
        "resource",
        "scope",
        "severity_number",
        "severity_text",
        "span_id",
        "timestamp",
        "trace_flags",
        "trace_id",
    )

    def __init__(
        self,
        timestamp: Any,
        observed_timestamp: Any,
        trace_id: Any,
        span_id: Any,
        trace_flags: Any,
        severity_text: Any,
        severity_number: Any,
        body: Any,
        attributes: Any,
        dropped_attributes: Any,
        event_name: Any,
        resource: Any,
        scope: Any,
    ) -> None:
        self.timestamp = timestamp
        self.observed_timestamp = observed_timestamp
        self.trace_id = trace_id
        self.span_id = span_id
        self.trace_flags = trace_flags
        self.severity_text = severity_text
        self.severity_number = severity_number
        self.body = body
        self.attributes = attributes
        self.dropped_attributes = dropped_attributes
        self.event_name = event_name
        self.resource = resource
        self.scope = scope


def snapshot(record: Any) -> Any:
    """
    Return what is kept of a ReadWriteLogRecord or ReadableLogRecord, as `LogItem`.

    What cannot be read is returned as it is: to be counted as unencodable, not to raise into the application.

    Args:
        record: As given to `LogRecordProcessor.on_emit`; may be changed afterwards.
    """
    try:
        return _snapshot(record)
    except Exception:
        return record


def _snapshot(record: Any) -> LogItem:
    log = record.log_record
    attributes = log.attributes
    # Of an empty container, too: everything in it may have been dropped.
    dropped = 0 if attributes is None else record.dropped_attributes
    if attributes:
        # Both a dict and the SDK's container have it; other mappings may not.
        attributes = attributes.copy() if hasattr(attributes, "copy") else dict(attributes)
    return LogItem(
        log.timestamp,
        log.observed_timestamp,
        log.trace_id,
        log.span_id,
        log.trace_flags,
        log.severity_text,
        log.severity_number,
        log.body,
        attributes,
        dropped,
        log.event_name,
        record.resource,
        record.instrumentation_scope,
    )


class LogCodec:
    """The codec of the logs' pipeline; its items are `LogItem`s."""

    def __init__(self) -> None:
        self._attributes = AttributeEncoder()
        self._texts = TextCache()
        self._heads = Heads(self._attributes)

    @property
    def signal(self) -> Signal:
        """Logs."""
        return Signal.LOGS

    def open(self) -> ItemRequest:
        """Begin an empty request."""
        return ItemRequest(self._heads, self._encode)

    def is_critical(self, item: Any) -> bool:
        """Return whether the severity is ERROR or above."""
        try:
            return bool(item.severity_number.value >= _SEVERITY_ERROR)
        except Exception:
            return False

    def estimate(self, item: Any) -> int:
        """Return about how many bytes of memory a snapshot keeps alive."""
        try:
            size = _ITEM_BYTES + estimate_value(item.body) + estimate_text(item.event_name)
            return size + estimate_attributes(item.attributes) if item.attributes else size
        except Exception:
            return FAILED

    def _encode(self, item: LogItem) -> tuple[Any, Any, list[bytes], int]:
        """Return resource, scope, and the record as pieces with their length; small records are one piece."""
        body: list[bytes] = []
        body_size = append_value(item.body, body)
        fixed = self._fixed(item) + b"\x2a" + varint(body_size)
        parts = [b"", fixed, *body]
        size = len(fixed) + body_size
        if item.attributes:
            size += self._attributes.encode(item.attributes, b"\x32", parts)
        parts[0] = head = b"\x12" + varint(size)
        size += len(head)
        return item.resource, item.scope, [b"".join(parts)] if size < PIECE_BYTES else parts, size

    def _fixed(self, item: LogItem) -> bytes:
        """Return all fields but body and attributes."""
        fields = b"\x09" + fixed64(item.timestamp) + b"\x59" + fixed64(item.observed_timestamp)
        severity = getattr(item.severity_number, "value", None)
        if severity:
            fields += b"\x10" + signed_varint(whole(severity, -_INT32_MAX, _INT32_MAX))
        if item.severity_text:
            fields += b"\x1a" + self._texts[item.severity_text]
        if item.dropped_attributes:
            fields += b"\x38" + varint(uint32(item.dropped_attributes))
        if item.trace_flags:
            fields += b"\x45" + pack_fixed32(uint32(item.trace_flags))
        if item.trace_id:
            fields += b"\x4a\x10" + identifier(item.trace_id, 16)
        if item.span_id:
            fields += b"\x52\x08" + identifier(item.span_id, 8)
        if item.event_name:
            fields += b"\x62" + self._texts[item.event_name]
        return fields
