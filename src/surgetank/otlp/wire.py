"""The protobuf wire format: tags, varints, lengths, and numbers that always fit their field.

Owns: tables of constants. Threads: any.
Invariants: every function returns valid protobuf for every argument.
The format is described at https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import re
import struct
from typing import Any, Final

UINT32_MAX: Final = 2**32 - 1
UINT64_MAX: Final = 2**64 - 1
INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

VARINT: Final = 0
FIXED64: Final = 1
LENGTH_DELIMITED: Final = 2
FIXED32: Final = 5

pack_double: Final = struct.Struct("<d").pack
pack_fixed32: Final = struct.Struct("<I").pack
pack_fixed64: Final = struct.Struct("<Q").pack
pack_sfixed64: Final = struct.Struct("<q").pack

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


def _long_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_TABLE_SIZE: Final = 2048
# Most spans are shorter than this, so most lengths are one look-up.
VARINTS: Final = tuple(_long_varint(value) for value in range(_TABLE_SIZE))


def varint(value: int) -> bytes:
    """Encode `0 <= value < 2**64`."""
    if value < _TABLE_SIZE:
        return VARINTS[value]
    # Spelt out up to four bytes, since many sizes and durations are of that order and the loop is three times slower.
    if value < 0x20_0000:
        if value < 0x4000:
            return bytes((value & 0x7F | 0x80, value >> 7))
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    if value < 0x1000_0000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14 & 0x7F | 0x80, value >> 21))
    return _long_varint(value)


def signed_varint(value: int) -> bytes:
    """Encode an int32, int64 or enum field: a negative number takes ten bytes."""
    return varint(value if value >= 0 else value + 2**64)


def zigzag(value: int) -> bytes:
    """Encode an sint32 field."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def tag(field: int, wire_type: int) -> bytes:
    """Return a field's tag."""
    return varint(field << 3 | wire_type)


def delimited(field_tag: bytes, body: bytes) -> bytes:
    """Return a length-delimited field."""
    return field_tag + varint(len(body)) + body


def text(value: Any) -> bytes:
    """
    Return the UTF-8 of a string field.

    A lone surrogate becomes U+FFFD, because a string field must be valid UTF-8
    or receivers refuse the whole request. None is empty, bytes are decoded,
    other types give their `str`.
    """
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    elif not isinstance(value, str):
        value = "" if value is None else printable(value)
    try:
        return str.encode(value)
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", str.__str__(value)).encode()


def printable(value: object) -> str:
    """
    Return the plain `str` of a value of any type.

    Raises:
        Exception: Whatever the value's own `__str__` raises.
    """
    return str.__str__(str(value))


def whole(value: Any, low: int, high: int) -> int:
    """Return `value` as an int inside `low..high`; 0 for what is no number."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return 0
    return low if number < low else min(number, high)


def uint32(value: Any) -> int:
    """Return `value` clamped to an uint32; 0 for what is no number."""
    return whole(value, 0, UINT32_MAX)


def uint64(value: Any) -> int:
    """Return `value` clamped to an uint64; 0 for what is no number."""
    return whole(value, 0, UINT64_MAX)


def fixed64(value: Any) -> bytes:
    """Return the eight bytes of a fixed64 field, of 0 for None and for what is no number."""
    try:
        return pack_fixed64(value)
    except struct.error:
        return pack_fixed64(uint64(value))


def masked(value: Any, bits: int) -> int:
    """Return the lowest `bits` of a number; 0 for what is no int."""
    return int(value) & ((1 << bits) - 1) if isinstance(value, int) else 0


def identifier(value: Any, length: int) -> bytes:
    """Return a trace or span id in `length` bytes, big-endian; bits that do not fit are cut off."""
    return masked(value, 8 * length).to_bytes(length, "big")
