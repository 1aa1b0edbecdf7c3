"""Compression piece by piece."""

from __future__ import annotations

import gzip
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from surgetank.otlp import compression
from surgetank.otlp.compression import compress, decompress

ENCODINGS = ["identity", "gzip", "deflate"]


@given(st.lists(st.binary(max_size=200), max_size=6), st.sampled_from(ENCODINGS))
def test_decompressing_gives_the_joined_pieces_back(pieces, encoding):
    """However the message was cut."""
    raw = b"".join(pieces)
    assert decompress(compress(iter(pieces), encoding), encoding, len(raw)) == raw


def test_the_standard_library_reads_what_we_wrote():
    """Gzip is gzip, and HTTP's deflate is zlib."""
    assert gzip.decompress(compress([b"ab", b"c"], "gzip")) == b"abc"
    assert zlib.decompress(compress([b"ab", b"c"], "deflate")) == b"abc"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_result_takes_no_more_memory_than_it_says(encoding):
    """A sealed batch waits for long, so slack in its buffer would be held for long."""
    pieces = [str(number).encode() * 50 for number in range(2000)]
    compress(pieces, encoding)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        body = compress(pieces, encoding)
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held <= sys.getsizeof(body) + 4096


def test_the_message_is_never_joined_to_be_compressed():
    """The peak is the pieces that are under way, not a second raw copy."""
    piece = bytes(64 * 1024)
    tracemalloc.start()
    try:
        compress((piece for _ in range(256)), "gzip")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize(
    "damage", [lambda body: b"", lambda body: body[:-3], lambda body: body + b"x", lambda body: b"{}"]
)
def test_a_damaged_body_is_refused(encoding, damage):
    """Cut off, followed by something, or not compressed at all."""
    with pytest.raises(ValueError, match=encoding):
        decompress(damage(compress([b"message" * 100], encoding)), encoding, 700)


def test_an_unknown_encoding_is_refused():
    """In both directions."""
    with pytest.raises(ValueError, match="brotli"):
        compress([b""], "brotli")
    with pytest.raises(ValueError, match="brotli"):
        decompress(b"", "brotli", 0)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@pytest.mark.parametrize("claimed", [0, 1000, 2**60])
def test_a_body_that_is_far_longer_than_it_says_is_refused_in_little_memory(monkeypatch, encoding, claimed):
    """A few hundred KiB may come to hundreds of MiB; who wrote the file may have written any size beside it, too."""
    monkeypatch.setattr(compression, "RAW_MAX", 8 * 1024 * 1024)
    bomb = compress((bytes(64 * 1024) for _ in range(1024)), encoding)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="far longer"):
            decompress(bomb, encoding, claimed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * 1024 * 1024


def test_a_plain_body_that_is_far_longer_than_it_says_is_refused():
    """The same for what is not compressed."""
    with pytest.raises(ValueError, match="far longer"):
        decompress(bytes(100_000), "identity", 10)
