"""Hypothesis strategies for any message of the official classes: each field may be set, to any value of its type."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

_DEPTH_MAX = 7
_F = FieldDescriptor
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    _F.TYPE_STRING: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    _F.TYPE_BYTES: st.binary(max_size=16),
    _F.TYPE_BOOL: st.booleans(),
    _F.TYPE_ENUM: st.integers(0, 25),
    _F.TYPE_INT32: st.integers(-(2**31), 2**31 - 1) | st.just(0),
    _F.TYPE_SINT32: st.integers(-(2**31), 2**31 - 1) | st.just(0),
    _F.TYPE_UINT32: st.integers(0, 2**32 - 1) | st.just(0),
    _F.TYPE_FIXED32: st.integers(0, 2**32 - 1) | st.just(0),
    _F.TYPE_INT64: st.integers(-(2**63), 2**63 - 1) | st.just(0),
    _F.TYPE_SFIXED64: st.integers(-(2**63), 2**63 - 1) | st.just(0),
    _F.TYPE_UINT64: st.integers(0, 2**64 - 1) | st.just(0),
    _F.TYPE_FIXED64: st.integers(0, 2**64 - 1) | st.just(0),
    _F.TYPE_DOUBLE: st.floats() | st.sampled_from([0.0, -0.0, 1.0]),
}


@st.composite
def messages(draw: st.DrawFn, kind: type[Message]) -> Message:
    """Any message of a class."""
    message = kind()
    _fill(draw, message, kind.DESCRIPTOR, 0)
    return message


def _fill(draw: st.DrawFn, message: Message, descriptor: Descriptor, depth: int) -> None:
    for field in descriptor.fields:
        # Containers above the items are nearly always there, or there would be no items.
        if draw(st.integers(0, 9)) >= (9 if field.is_repeated and depth < 3 else 4):
            continue
        if field.message_type is None:
            _set(draw, message, field)
        elif depth < _DEPTH_MAX:
            for _ in range(draw(st.integers(1, 2)) if field.is_repeated else 1):
                place = getattr(message, field.name)
                inner = place.add() if field.is_repeated else place
                inner.SetInParent()
                _fill(draw, inner, field.message_type, depth + 1)


def _set(draw: st.DrawFn, message: Message, field: FieldDescriptor) -> None:
    values = _SCALARS[field.type]
    if field.is_repeated:
        getattr(message, field.name).extend(draw(st.lists(values, max_size=3)))
    else:
        setattr(message, field.name, draw(values))
