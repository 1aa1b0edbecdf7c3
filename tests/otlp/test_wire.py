"""The wire format's numbers and texts."""

from __future__ import annotations

import pytest
from google.protobuf.internal import encoder
from hypothesis import example, given
from hypothesis import strategies as st

from surgetank.otlp import wire


def official_varint(value: int) -> bytes:
    out: list[bytes] = []
    encoder._EncodeVarint(out.append, value)
    return b"".join(out)


@given(st.integers(0, 2**64 - 1) | st.integers(0, 2**29))
@example(0)
@example(2047)
@example(2048)
@example(2**14 - 1)
@example(2**14)
@example(2**21 - 1)
@example(2**21)
@example(2**28 - 1)
@example(2**28)
@example(2**64 - 1)
def test_varints_are_the_official_ones(value):
    """At every length, and on both sides of every border."""
    assert wire.varint(value) == official_varint(value)


@given(st.integers(-(2**63), 2**63 - 1))
def test_negative_varints_take_ten_bytes(value):
    """Two's complement in 64 bits."""
    assert wire.signed_varint(value) == official_varint(value % 2**64)


@given(st.integers(-(2**31), 2**31 - 1))
def test_zigzag_puts_small_numbers_first(value):
    """0, -1, 1, -2 are 0, 1, 2, 3."""
    assert wire.zigzag(value) == official_varint(2 * value if value >= 0 else -2 * value - 1)


numbers = st.none() | st.integers() | st.floats() | st.text(max_size=5) | st.booleans() | st.complex_numbers()


@given(numbers)
def test_every_number_fits_its_field(value):
    """Clamped or cut, but never an exception."""
    assert 0 <= wire.uint32(value) < 2**32
    assert 0 <= wire.uint64(value) < 2**64
    assert len(wire.fixed64(value)) == 8
    assert len(wire.identifier(value, 16)) == 16


@given(st.text(st.characters()))
def test_every_text_is_valid_utf8(value):
    """Only lone surrogates are replaced."""
    expected = "".join("\ufffd" if "\ud800" <= character <= "\udfff" else character for character in value)
    assert wire.text(value).decode() == expected


@pytest.mark.parametrize(("value", "expected"), [(None, ""), (5, "5"), (b"b\xff", "b\ufffd"), ("é", "é")])
def test_what_is_no_string_has_a_text(value, expected):
    """Names in SDK objects are not checked by the SDK."""
    assert wire.text(value).decode() == expected
