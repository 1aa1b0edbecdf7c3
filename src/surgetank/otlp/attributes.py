"""Attributes and values: KeyValue and AnyValue messages, with bounded caches of what comes again and again.

Owns: one codec's caches of encoded keys and of short encoded pairs.
Threads: one at a time.
Invariants: `encode` and `encode_value` never raise; a value that OTLP has
no form for is repaired as the OpenTelemetry specification says ("Mapping
Arbitrary Data to OTLP AnyValue") or, if even its `str` fails, left out.
The caches of one `AttributeEncoder` hold at most `CACHE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from sys import getsizeof
from typing import Any, Final

from surgetank.otlp.sdk import plain_attributes
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
"""Characters or bytes from which a value stays a piece of its own, so that it is encoded once and never copied."""

CACHE_BYTES: Final = 1536 * 1024
"""What the remembered pairs of one `AttributeEncoder` may take up."""

_SHORT: Final = 64
"""Characters up to which a key or a value is worth remembering."""
_SMALL_INT: Final = 1 << 16
"""Status codes, ports and line numbers come again; durations and sizes above this do not."""
_SLOT_BYTES: Final = 100
"""A dict slot with its share of the table's slack."""
_KEY_BYTES: Final = 900
"""A `_Pairs` with its first table and its five encoded forms."""

# Protobuf decoders refuse messages nested more than 100 levels deep (the default in the C++,
# Python and Java libraries), and a request that is refused takes 511 innocent items with it.
# The deepest place of a value is an exemplar's attribute, ten levels down.
_MAX_LEVELS: Final = 90
_ARRAY_LEVELS: Final = 2
_MAP_LEVELS: Final = 3
_MAX_NODES: Final = 1 << 18
"""Elements of one value; containers that share their members can otherwise stand for exponentially many."""

_TRUE: Final = b"\x10\x01"
_FALSE: Final = b"\x10\x00"
_TOO_DEEP: Final = "<nested too deeply>"
_CIRCULAR: Final = "<contains itself>"
_TOO_MANY: Final = "<too many elements>"


class _TooManyElementsError(Exception):
    """A value has more than `_MAX_NODES` elements."""


def _string_body(value: str) -> tuple[bytes, bytes]:
    """
    Return the AnyValue field (tag, data) that a string becomes.

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


def _int_body(value: int) -> bytes:
    number = int.__index__(value)
    if INT64_MIN <= number <= INT64_MAX:
        return b"\x18" + signed_varint(number)
    try:
        digits = str(number).encode()
    except ValueError:
        # Python refuses to write out more than some 4300 digits, for their cost.
        digits = hex(number).encode()
    return b"\x0a" + varint(len(digits)) + digits


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
            return self._small(_TRUE if value else _FALSE)
        if isinstance(value, str):
            return self._data(*_string_body(value))
        if isinstance(value, int):
            return self._small(_int_body(value))
        if isinstance(value, float):
            return self._small(b"\x21" + pack_double(value))
        if isinstance(value, bytes):
            return self._data(b"\x3a", value)
        if isinstance(value, Sequence):
            return self._container(value, levels - _ARRAY_LEVELS, b"\x2a")
        if isinstance(value, Mapping):
            return self._container(value, levels - _MAP_LEVELS, b"\x32")
        return self._data(*_string_body(printable(value)))

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
            return self._data(*_string_body(_TOO_DEEP))
        if id(value) in self._path:
            return self._data(*_string_body(_CIRCULAR))
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


class _Pairs(dict[Any, bytes]):
    """
    One key's KeyValue messages: short strings and small ints remembered by value, the rest by form.

    Strings and ints share the table because they are never equal to each
    other. Bools and floats are kept out of it: `True == 1 == 1.0`.
    """

    __slots__ = ("_cache", "_generation", "double", "false", "head", "true")

    def __init__(self, key: bytes, cache: _PairCache | None) -> None:
        self._cache = cache
        self._generation = cache.generation if cache is not None else 0
        self.head = b"\x0a" + varint(len(key)) + key + b"\x12"
        self.true = self.around(_TRUE)
        self.false = self.around(_FALSE)
        self.double = varint(len(self.head) + 10) + self.head + b"\x09\x21"

    def around(self, body: bytes) -> bytes:
        """Return the KeyValue, with its length, around the body of an AnyValue."""
        value = self.head + varint(len(body)) + body
        return varint(len(value)) + value

    def string(self, value: str) -> bytes:
        """Return the KeyValue of a string, not remembered."""
        field_tag, data = _string_body(value)
        return self.around(field_tag + varint(len(data)) + data)

    def integer(self, value: int) -> bytes:
        """Return the KeyValue of an int, not remembered."""
        if not 0 <= value <= INT64_MAX:
            return self.around(_int_body(value))
        digits = varint(value)
        size = len(digits)
        return varint(len(self.head) + size + 2) + self.head + VARINTS[size + 1] + b"\x18" + digits

    def __missing__(self, value: Any) -> bytes:
        pair = self.string(value) if type(value) is str else self.integer(value)
        cache = self._cache
        if cache is not None and self._generation == cache.generation:
            self[value] = pair
            cache.admit(getsizeof(value) + getsizeof(pair) + _SLOT_BYTES)
        return pair


class _PairCache(dict[Any, _Pairs]):
    """
    Key to `_Pairs`. When the budget is used up it starts again from nothing.

    Starting again costs some 0.1 ms, and it takes thousands of values that
    were never seen before to get there, so nothing cleverer pays.
    """

    __slots__ = ("_charge", "generation")

    def __init__(self) -> None:
        self.generation = 0
        self._charge = 0

    def __missing__(self, key: Any) -> _Pairs:
        if type(key) is not str or len(key) > _SHORT:
            return _Pairs(text(key), None)
        self[key] = pairs = _Pairs(text(key), self)
        self.admit(getsizeof(key) + _KEY_BYTES + 5 * len(key))
        return pairs

    def admit(self, size: int) -> None:
        """Charge for what was added, and start again when that is too much."""
        self._charge += size
        if self._charge > CACHE_BYTES:
            self.generation += 1
            self._charge = 0
            self.clear()


class TextCache(dict[Any, bytes]):
    """Short strings that come again (span and event names), as length and UTF-8; holds at most 256 KiB."""

    __slots__ = ("_charge",)

    def __init__(self) -> None:
        self._charge = 0

    def __missing__(self, value: Any) -> bytes:
        data = text(value)
        field = varint(len(data)) + data
        if type(value) is str and len(value) <= _SHORT:
            self._charge += getsizeof(value) + getsizeof(field) + _SLOT_BYTES
            if self._charge > 256 * 1024:
                self.clear()
                self._charge = 0
            self[value] = field
        return field


class AttributeEncoder:
    """Encodes attribute sets and single values."""

    def __init__(self) -> None:
        self._pairs = _PairCache()

    def encode(self, attributes: Any, field_tag: bytes, out: list[bytes]) -> int:
        """
        Append a repeated KeyValue field and return its length in bytes.

        Args:
            attributes: A mapping, or None.
            field_tag: The field's one-byte tag in the message around it.
            out: Takes the pieces.
        """
        before = len(out)
        try:
            if type(attributes) is not dict:
                attributes = plain_attributes(attributes)
            if not attributes:
                return 0
            return self._encode(attributes.items(), field_tag, out)
        except Exception:
            # Something changed the mapping meanwhile, or a key or value has methods that raise.
            del out[before:]
            return self._encode_carefully(attributes, field_tag, out)

    def _encode(self, items: Iterable[tuple[Any, Any]], field_tag: bytes, out: list[bytes]) -> int:
        keys = self._pairs
        size = 0
        # The empty first element makes `join` put the tag before every pair.
        pairs = [b""]
        append = pairs.append
        for key, value in items:
            kind = type(value)
            if kind is str and len(value) <= _SHORT:
                append(keys[key][value])
            elif kind is int:
                append(keys[key][value] if 0 <= value < _SMALL_INT else keys[key].integer(value))
            elif kind is bool:
                append(keys[key].true if value else keys[key].false)
            elif kind is float:
                append(keys[key].double + pack_double(value))
            elif kind is str and len(value) < LARGE:
                append(keys[key].string(value))
            else:
                pieces, length = _walk_pair(keys[key].head, value)
                if length < LARGE:
                    append(b"".join(pieces))
                    continue
                joined = field_tag.join(pairs)
                out.append(joined + field_tag)
                out += pieces
                size += len(joined) + len(field_tag) + length
                pairs = [b""]
                append = pairs.append
        joined = field_tag.join(pairs)
        out.append(joined)
        return size + len(joined)

    def _encode_carefully(self, attributes: Mapping[Any, Any], field_tag: bytes, out: list[bytes]) -> int:
        """Do as `_encode`, one attribute at a time, leaving out those that cannot be had."""
        size = 0
        for key in _snapshot(attributes):
            before = len(out)
            try:
                size += self._encode([(key, attributes[key])], field_tag, out)
            except Exception:
                del out[before:]
        return size

    def encode_value(self, value: Any, out: list[bytes]) -> int:
        """Append the body of one AnyValue and return its length; a value that cannot be had is empty."""
        before = len(out)
        try:
            return _Walk(out).value(value, _MAX_LEVELS)
        except Exception as error:
            del out[before:]
            if isinstance(error, _TooManyElementsError):
                return _Walk(out).value(_TOO_MANY, _MAX_LEVELS)
            return 0


def _walk_pair(head: bytes, value: Any) -> tuple[list[bytes], int]:
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


def _snapshot(attributes: Mapping[Any, Any]) -> list[Any]:
    for _ in range(8):
        try:
            return list(attributes)
        except RuntimeError:
            # Resized by another thread while it was copied; that is over in a moment.
            continue
        except Exception:
            break
    return []
