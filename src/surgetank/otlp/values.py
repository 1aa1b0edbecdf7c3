"""Values: AnyValue messages of any Python object, cut where receivers could not follow.

Owns: no state.
Threads: any.
Invariants: what has no form in OTLP takes the form that the OpenTelemetry
specification gives it ("Mapping Arbitrary Data to OTLP AnyValue"); nothing
recurses beyond `_MAX_LEVELS`; a container that holds itself, or stands for more
than `_MAX_NODES` elements, is replaced by words; large strings and bytes are
pieces of their own, encoded once and never copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from surgetank.otlp.wire import (
    INT64_MAX,
    INT64_MIN,
    VARINTS,
    pack_double,
    printable,
    signed_varint,
    text,
    varint,
)

LARGE: Final = 16 * 1024
"""Characters or bytes from which a value stays a piece of its own."""
SHORT: Final = 64
"""Characters up to which a string is worth a short way: remembering it, or an array's fast path."""
TRUE: Final = b"\x10\x01"
FALSE: Final = b"\x10\x00"

# Protobuf decoders refuse messages nested more than 100 levels deep (the default in the C++,
# Python and Java libraries), and a request that is refused takes 511 innocent items with it.
# The deepest place of a value is an exemplar's attribute, nine levels down.
_MAX_LEVELS: Final = 90
_ARRAY_LEVELS: Final = 2
_MAP_LEVELS: Final = 3
_MAX_NODES: Final = 1 << 18
"""Elements of one value; containers that share their members can otherwise stand for exponentially many."""

_FLAT_TYPES: Final = (tuple, list)
_FLAT_MAX: Final = 4096

_TOO_DEEP: Final = "<nested too deeply>"
_CIRCULAR: Final = "<contains itself>"
_TOO_MANY: Final = "<too many elements>"


class _TooManyElementsError(Exception):
    """A value has more than `_MAX_NODES` elements."""


def string_body(value: str) -> tuple[bytes, bytes]:
    """
    Return the field of AnyValue that a string becomes: its tag and its data.

    A string with lone surrogates has no UTF-8; it was made from bytes that were
    not UTF-8 (`os.fsdecode`), so the specification's form for those is used:
    bytes_value with the original bytes.
    """
    try:
        return b"\x0a", str.encode(value)
    except UnicodeEncodeError:
        return b"\x3a", _undecoded(str.__str__(value))


def _undecoded(value: str) -> bytes:
    try:
        data = value.encode("utf-8", "surrogateescape")
        if data.decode("utf-8", "surrogateescape") == value:
            return data
    except UnicodeEncodeError:
        pass
    return value.encode("utf-8", "surrogatepass")


def int_body(value: int) -> bytes:
    """Return the body of an AnyValue for an int; one beyond int64 becomes a string of its decimal digits."""
    number = int.__index__(value)
    if INT64_MIN <= number <= INT64_MAX:
        return b"\x18" + signed_varint(number)
    try:
        digits = str(number).encode()
    except ValueError:
        # Python refuses to write out more than some 4300 digits, for their cost.
        digits = hex(number).encode()
    return b"\x0a" + varint(len(digits)) + digits


def _flat_array(values: Sequence[Any]) -> bytes | None:
    """Return the body of an ArrayValue of a few short scalars, the common case, or None for any other."""
    if len(values) > _FLAT_MAX:
        return None
    # The empty first element makes `join` put the tag before every element.
    elements = [b""]
    for value in values:
        kind = type(value)
        if kind is str and len(value) <= SHORT and value.isascii():
            body = b"\x0a" + VARINTS[len(value)] + value.encode()
        elif kind is int and 0 <= value <= INT64_MAX:
            body = b"\x18" + varint(value)
        elif kind is float:
            body = b"\x21" + pack_double(value)
        elif kind is bool:
            body = TRUE if value else FALSE
        else:
            return None
        elements.append(VARINTS[len(body)] + body)
    return b"\x0a".join(elements)


class _Walk:
    """One descent into one value: appends pieces, knows where it is and how far it may still go."""

    __slots__ = ("_nodes", "_out", "_path")

    def __init__(self, out: list[bytes]) -> None:
        self._out = out
        self._nodes = _MAX_NODES
        self._path: set[int] = set()

    def value(self, value: Any, levels: int) -> int:
        """Append the body of an AnyValue and return its length."""
        if value is None:
            return 0
        if isinstance(value, bool):
            return self._small(TRUE if value else FALSE)
        if isinstance(value, str):
            return self._data(*string_body(value))
        if isinstance(value, int):
            return self._small(int_body(value))
        if isinstance(value, float):
            return self._small(b"\x21" + pack_double(value))
        if isinstance(value, bytes):
            return self._data(b"\x3a", value)
        if isinstance(value, Sequence):
            flat = _flat_array(value) if levels >= _ARRAY_LEVELS and type(value) in _FLAT_TYPES else None
            if flat is not None:
                self._nodes -= len(value)
                return self._data(b"\x2a", flat)
            return self._container(value, levels - _ARRAY_LEVELS, b"\x2a")
        if isinstance(value, Mapping):
            return self._container(value, levels - _MAP_LEVELS, b"\x32")
        return self._data(*string_body(printable(value)))

    def _small(self, body: bytes) -> int:
        self._out.append(body)
        return len(body)

    def _data(self, field_tag: bytes, data: bytes) -> int:
        head = field_tag + varint(len(data))
        if len(data) < LARGE:
            return self._small(head + data)
        self._out += (head, data)
        return len(head) + len(data)

    def _container(self, value: Any, levels: int, field_tag: bytes) -> int:
        if levels < 0:
            return self._data(*string_body(_TOO_DEEP))
        if id(value) in self._path:
            return self._data(*string_body(_CIRCULAR))
        self._path.add(id(value))
        slot = len(self._out)
        self._out.append(b"")
        if field_tag == b"\x32":
            size = sum(self.pair(text(printable(key)), element, levels) for key, element in value.items())
        else:
            size = sum(self._element(element, levels) for element in value)
        self._path.discard(id(value))
        return size + self._close(slot, field_tag, size)

    def _element(self, value: Any, levels: int) -> int:
        """Append one AnyValue of an ArrayValue."""
        self._nodes -= 1
        if self._nodes < 0:
            raise _TooManyElementsError
        slot = len(self._out)
        self._out.append(b"")
        size = self.value(value, levels)
        return size + self._close(slot, b"\x0a", size)

    def pair(self, key: bytes, value: Any, levels: int) -> int:
        """Append one KeyValue of a KeyValueList, with its tag and length."""
        self._nodes -= 1
        if self._nodes < 0:
            raise _TooManyElementsError
        slot = len(self._out)
        self._out += (b"", b"")
        size = self.value(value, levels)
        size += self._close(slot + 1, b"\x0a" + varint(len(key)) + key + b"\x12", size)
        return size + self._close(slot, b"\x0a", size)

    def _close(self, slot: int, head: bytes, size: int) -> int:
        """Fill in the head that was left open until the length was known."""
        self._out[slot] = head = head + varint(size)
        return len(head)


def append_value(value: Any, out: list[bytes]) -> int:
    """Append the body of one AnyValue and return its length; a value whose `str` raises is empty."""
    before = len(out)
    try:
        return _Walk(out).value(value, _MAX_LEVELS)
    except Exception as error:
        del out[before:]
        if isinstance(error, _TooManyElementsError):
            return _Walk(out).value(_TOO_MANY, _MAX_LEVELS)
        return 0


def value_pair(head: bytes, value: Any) -> tuple[list[bytes], int]:
    """Return the pieces and the length of a KeyValue, its own length first, for a value of any kind."""
    pieces = [b""]
    try:
        size = _Walk(pieces).value(value, _MAX_LEVELS)
    except _TooManyElementsError:
        pieces = [b""]
        size = _Walk(pieces).value(_TOO_MANY, _MAX_LEVELS)
    opening = head + varint(size)
    pieces[0] = opening = varint(len(opening) + size) + opening
    return pieces, len(opening) + size
