"""Attribute sets: KeyValue messages, with bounded caches of keys and pairs that come again and again.

Owns: one codec's caches of encoded keys, of short encoded pairs and of names.
Threads: one at a time.
Invariants: `encode` never raises; an attribute that cannot be had, because its
key or value has methods that raise, is left out alone. What an encoder
remembers takes at most `CACHE_BYTES`, a `TextCache` at most `TEXT_CACHE_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof
from typing import Any, Final

from surgetank.otlp.sdk import plain_attributes
from surgetank.otlp.values import FALSE, LARGE, SHORT, TRUE, int_body, string_body, value_pair
from surgetank.otlp.wire import INT64_MAX, VARINTS, pack_double, text, varint

CACHE_BYTES: Final = 1536 * 1024
"""What the remembered pairs of one `AttributeEncoder` may take up."""
TEXT_CACHE_BYTES: Final = 256 * 1024

_VALUES_MAX: Final = 1024
"""Values of one key that are remembered at a time; a key with more is of the kind that seldom repeats itself."""
_MISSES_MAX: Final = 4096
"""Values of a full key that were not remembered, after which its memory starts anew: what repeats may have changed."""
_SMALL_INT: Final = 1 << 16
"""Status codes, ports and line numbers come again; durations and sizes above this do not."""
_SLOT_BYTES: Final = 100
"""A dict slot with its share of the table's slack."""
_KEY_BYTES: Final = 900
"""A `_Pairs` with its first table and its five encoded forms."""


class _Pairs(dict[Any, bytes]):
    """
    One key's KeyValue messages: short strings and small ints remembered by value, the rest by form.

    Strings and ints share the table because they are never equal to each
    other. Bools and floats are kept out of it: `True == 1 == 1.0`.
    """

    __slots__ = ("_cache", "_generation", "_misses", "double", "false", "head", "true")

    def __init__(self, key: bytes, cache: _PairCache | None) -> None:
        self._cache = cache
        self._generation = cache.generation if cache is not None else 0
        self._misses = 0
        self.head = b"\x0a" + varint(len(key)) + key + b"\x12"
        self.true = self.around(TRUE)
        self.false = self.around(FALSE)
        self.double = varint(len(self.head) + 10) + self.head + b"\x09\x21"

    def around(self, body: bytes) -> bytes:
        """Return the KeyValue, with its length, around the body of an AnyValue."""
        value = self.head + varint(len(body)) + body
        return varint(len(value)) + value

    def string(self, value: str) -> bytes:
        """Return the KeyValue of a string, not remembered."""
        head = self.head
        size = len(value)
        if size <= SHORT and value.isascii() and len(head) <= SHORT:
            # All lengths are one byte each, and look-ups in a table.
            return b"%b%b%b\x0a%b%b" % (
                VARINTS[len(head) + size + 3],
                head,
                VARINTS[size + 2],
                VARINTS[size],
                value.encode(),
            )
        field_tag, data = string_body(value)
        return self.around(field_tag + varint(len(data)) + data)

    def integer(self, value: int) -> bytes:
        """Return the KeyValue of an int, not remembered."""
        if not 0 <= value <= INT64_MAX:
            return self.around(int_body(value))
        digits = varint(value)
        size = len(digits)
        return varint(len(self.head) + size + 2) + self.head + VARINTS[size + 1] + b"\x18" + digits

    def __missing__(self, value: Any) -> bytes:
        pair = self.string(value) if type(value) is str else self.integer(value)
        if len(self) >= _VALUES_MAX:
            self._misses += 1
            if self._misses >= _MISSES_MAX:
                # What was charged stays charged until the whole cache starts anew.
                self.clear()
                self._misses = 0
            return pair
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
        if type(key) is not str or len(key) > SHORT:
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
    """Short strings that come again (span and event names), as length and UTF-8."""

    __slots__ = ("_charge",)

    def __init__(self) -> None:
        self._charge = 0

    def __missing__(self, value: Any) -> bytes:
        data = text(value)
        field = varint(len(data)) + data
        if type(value) is str and len(value) <= SHORT:
            self._charge += getsizeof(value) + getsizeof(field) + _SLOT_BYTES
            if self._charge > TEXT_CACHE_BYTES:
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
        if type(attributes) is not dict:
            attributes = plain_attributes(attributes)
        try:
            return self._encode(attributes.items(), field_tag, out) if attributes else 0
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
            if kind is str and len(value) <= SHORT:
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
                pieces, length = value_pair(keys[key].head, value)
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
