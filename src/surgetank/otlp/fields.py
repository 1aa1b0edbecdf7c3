"""Reading protobuf without a schema: the fields of a message, one after the other.

Owns: no state. Threads: any.
Invariants: every span of bytes that is returned lies inside the message; what
is no protobuf raises ValueError and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from surgetank.otlp.wire import FIXED32, FIXED64, LENGTH_DELIMITED, UINT64_MAX, VARINT

_FIELD_MAX: Final = 2**29 - 1
_VARINT_BYTES_MAX: Final = 10
_FIXED_LENGTHS: Final = {FIXED32: 4, FIXED64: 8}


class Field(NamedTuple):
    """One field as it stands in the message."""

    number: int
    wire_type: int
    value: int
    """A varint's value; 0 for other wire types."""
    tag_start: int
    start: int
    """Where the content begins, behind tag and length."""
    end: int


def fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """
    Yield the fields of the message at `data[start:end]`.

    Raises:
        ValueError: The bytes are no message; groups, which OTLP never had, count as none.
    """
    position = start
    while position < end:
        tag_start = position
        key, position = read_varint(data, position, end)
        number, wire_type = key >> 3, key & 7
        if not 1 <= number <= _FIELD_MAX:
            raise ValueError(f"field number {number} at byte {tag_start}")
        value = 0
        if wire_type == VARINT:
            content = position
            value, position = read_varint(data, position, end)
        elif wire_type == LENGTH_DELIMITED:
            length, content = read_varint(data, position, end)
            position = content + length
        elif wire_type in _FIXED_LENGTHS:
            content = position
            position += _FIXED_LENGTHS[wire_type]
        else:
            raise ValueError(f"wire type {wire_type} at byte {tag_start}")
        if position > end:
            raise ValueError(f"the field at byte {tag_start} goes beyond its message")
        yield Field(number, wire_type, value, tag_start, content, position)


def read_varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """Return the value and the position behind it."""
    value = 0
    for index in range(_VARINT_BYTES_MAX):
        if position >= end:
            raise ValueError("a varint is cut off")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value & UINT64_MAX, position
    raise ValueError("a varint is longer than ten bytes")
