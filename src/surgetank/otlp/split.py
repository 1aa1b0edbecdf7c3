"""Splitting a serialised request in two, so that a receiver takes the halves, or one poison item is found.

Owns: no state. Threads: any.
Invariants: the halves' items are the request's items in order, the first half
having as many as the second or one fewer; each item stands in a copy of its own
containers, whose other fields, unknown ones too, are all kept; empty containers are dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from surgetank.model import Signal
from surgetank.otlp.fields import fields
from surgetank.otlp.wire import LENGTH_DELIMITED, tag, varint

# Ten times the most that makes a batch due; each costs memory while a request is cut, and may have two bytes.
_ITEMS_MAX: Final = 2**20


@dataclass(frozen=True, slots=True)
class _Level:
    """A message on the way to the items: which of its fields lead on, and where to. None: that field is an item."""

    paths: Mapping[int, _Level | None]


def _signal_path(scope: _Level) -> _Level:
    # Export*ServiceRequest.resource_* = 1, Resource*.scope_* = 2.
    return _Level({1: _Level({2: scope})})


_ITEMS_ARE_TWO: Final = _Level({2: None})
_POINTS: Final = _Level({1: None})
# Metric's data: gauge 5, sum 7, histogram 9, exponential_histogram 10, summary 11.
_METRIC: Final = _Level({5: _POINTS, 7: _POINTS, 9: _POINTS, 10: _POINTS, 11: _POINTS})
_ROOTS: Final[Mapping[Signal, _Level]] = {
    Signal.SPANS: _signal_path(_ITEMS_ARE_TWO),
    Signal.LOGS: _signal_path(_ITEMS_ARE_TWO),
    Signal.METRICS: _signal_path(_Level({2: _METRIC})),
}


def count(raw: bytes, signal: Signal) -> int:
    """
    Return how many spans, log records or data points a serialised request has.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    return _count(raw, 0, len(raw), _ROOTS[signal])


def _count(raw: bytes, start: int, end: int, level: _Level) -> int:
    total = 0
    for field in fields(raw, start, end):
        if field.number in level.paths and field.wire_type == LENGTH_DELIMITED:
            below = level.paths[field.number]
            total += 1 if below is None else _count(raw, field.start, field.end, below)
    return total


def split(raw: bytes, signal: Signal) -> tuple[tuple[bytes, int], tuple[bytes, int]]:
    """
    Return the two halves of a serialised Export*ServiceRequest, each with its number of items.

    Raises:
        ValueError: The bytes are no protobuf message, or have fewer than two items, or more than any request of ours.
    """
    items = count(raw, signal)
    if not 2 <= items <= _ITEMS_MAX:
        raise ValueError(f"a request of {items} items has no halves")
    middle = items // 2
    return (_cut(raw, signal, 0, middle), middle), (_cut(raw, signal, middle, items), items - middle)


def _cut(raw: bytes, signal: Signal, first: int, last: int) -> bytes:
    """Return the request with the items `first..last` only."""
    return b"".join(_Cutter(raw, first, last).message(0, len(raw), _ROOTS[signal])[0])


class _Cutter:
    """One pass over a request that copies the items of a range and what is around them."""

    def __init__(self, raw: bytes, first: int, last: int) -> None:
        self._raw = raw
        self._first = first
        self._last = last
        self._seen = 0

    def message(self, start: int, end: int, level: _Level) -> tuple[list[bytes], int]:
        """Return a message's pieces without the items that are not wanted, and how many items are in it."""
        pieces: list[bytes] = []
        items = 0
        for field in fields(self._raw, start, end):
            if field.number not in level.paths or field.wire_type != LENGTH_DELIMITED:
                pieces.append(self._raw[field.tag_start : field.end])
                continue
            below = level.paths[field.number]
            if below is None:
                if self._first <= self._seen < self._last:
                    pieces.append(self._raw[field.tag_start : field.end])
                    items += 1
                self._seen += 1
                continue
            nested, nested_items = self.message(field.start, field.end, below)
            if nested_items:
                length = sum(map(len, nested))
                pieces += (tag(field.number, LENGTH_DELIMITED), varint(length), *nested)
                items += nested_items
        return pieces, items
