"""The receiver's answer: how many items of a request it did not take, and why.

Owns: no state. Threads: any.
Invariants: `parse` returns for every input; what cannot be read counts as full success.

Export{Trace,Metrics,Logs}ServiceResponse have one shape: field 1 is
partial_success, in which field 1 is the count of rejected items and field 2
the message.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from surgetank.otlp.fields import fields
from surgetank.otlp.wire import INT64_MAX, LENGTH_DELIMITED, VARINT

_MESSAGE_MAX: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialSuccess:
    """What a receiver said about a request that it took."""

    rejected: int = 0
    """Spans, log records or data points that it did not take."""
    message: str = ""
    """Its reason or, with nothing rejected, its warning; at most 4096 characters."""


_NOTHING: Final = PartialSuccess()


def parse(body: bytes) -> PartialSuccess:
    """Read a response's body; one that is no such message, a JSON or HTML page say, means nothing was rejected."""
    try:
        return _parse(body)
    except ValueError:
        return _NOTHING


def _parse(body: bytes) -> PartialSuccess:
    rejected = 0
    message = b""
    for outer in fields(body, 0, len(body)):
        if outer.number != 1:
            continue
        if outer.wire_type != LENGTH_DELIMITED:
            raise ValueError("partial_success is not a message")
        for inner in fields(body, outer.start, outer.end):
            if inner.number == 1 and inner.wire_type == VARINT:
                rejected = inner.value
            elif inner.number == 2 and inner.wire_type == LENGTH_DELIMITED:
                message = body[inner.start : inner.end]
    if rejected > INT64_MAX:
        # A negative count, which means nothing.
        return _NOTHING
    return PartialSuccess(rejected=rejected, message=message.decode("utf-8", "replace")[:_MESSAGE_MAX])
