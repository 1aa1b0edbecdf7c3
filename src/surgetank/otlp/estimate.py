"""What a live SDK object costs: the bytes of memory it keeps alive while it waits to be encoded.

Owns: the short keys that were met, at most `_KEYS_MAX`.
Threads: any; this runs on the application's thread for every item.
Invariants: large strings, bytes, ints and containers count at least their real
size; what is reachable on several ways counts once per value; nothing recurses.

The constants are what 64-bit CPython allocates for the SDK's objects, measured
with `tracemalloc`. Small values are counted by their characters, because
`sys.getsizeof` costs the application's thread 0.1 µs for each.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from sys import getsizeof
from typing import Any, Final

FAILED: Final = 4096
"""What an object is taken to cost when it cannot be measured: an ordinary span."""

_SMALL: Final = frozenset({float, bool, type(None)})
_LEAVES: Final = frozenset({str, int, float, bool, bytes, type(None)})
_KEY_LENGTH: Final = 64
"""Characters of a key from which it is taken to be made for this item alone."""
_KEYS_MAX: Final = 1024
SHORT_TEXT: Final = 512
"""Characters in one attribute set up to which it does not matter that a character may take four bytes."""
_ATTRIBUTE_BYTES: Final = 60
"""A short value (50 and its characters as a string, 28 as a number, nothing as a bool) and its slot in a dict."""
_SLOT_BYTES: Final = 40


# Asking whether all of a dict's keys are in a set takes half as long as adding up their lengths.
_short_keys: Final[set[Any]] = set()
_are_short: Final = _short_keys.issuperset


def estimate_attributes(attributes: Any) -> int:
    """Return the bytes that a dict of attributes keeps alive; short keys are constants of the program."""
    characters = 0
    bits = 0
    for value in attributes.values():
        kind = type(value)
        if kind is str:
            characters += len(value)
        elif kind is int:
            bits |= value
        elif kind not in _SMALL:
            return _exact(attributes)
    count = len(attributes)
    if characters > SHORT_TEXT or bits.bit_length() > 64 or not (_are_short(attributes) or _learn(attributes)):
        return _exact(attributes)
    return _ATTRIBUTE_BYTES * count + characters


def _learn(attributes: Mapping[Any, Any]) -> bool:
    """Return whether all keys are short, and remember that while there is room."""
    if any(type(key) is not str or len(key) > _KEY_LENGTH for key in attributes):
        return False
    if len(_short_keys) + len(attributes) <= _KEYS_MAX:
        _short_keys.update(attributes)
    return True


def _exact(attributes: Mapping[Any, Any]) -> int:
    long_keys = [key for key in attributes if type(key) is not str or len(key) > _KEY_LENGTH]
    values = sum(map(estimate_value, attributes.values()))
    return values + sum(map(estimate_value, long_keys)) + _SLOT_BYTES * len(attributes)


def estimate_text(value: Any) -> int:
    """Return the bytes of a string, or of any object by itself."""
    if type(value) is str and len(value) <= SHORT_TEXT:
        return 60 + len(value)
    return 0 if value is None else getsizeof(value)


def estimate_value(value: Any) -> int:
    """Return the bytes of a value and of everything in it, each container once."""
    if type(value) in _LEAVES:
        return getsizeof(value)
    seen: set[int] = set()
    waiting = [value]
    size = 0
    while waiting:
        current = waiting.pop()
        if type(current) not in _LEAVES:
            if id(current) in seen:
                continue
            seen.add(id(current))
            if isinstance(current, Mapping):
                waiting += current.keys()
                waiting += current.values()
            elif isinstance(current, Collection) and not isinstance(current, (str, bytes, bytearray, memoryview)):
                waiting += current
        size += getsizeof(current)
    return size
