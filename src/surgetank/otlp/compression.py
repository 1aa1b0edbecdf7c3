"""Compression of a request's body, piece by piece.

Owns: no state. Threads: any.
Invariants: `decompress(compress(pieces, e), e, size) == b"".join(pieces)`; what `compress` returns takes no more memory than
it says; no body, whoever wrote it, makes `decompress` take more than its batch's size allows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import Final

# Level 1: on telemetry a higher level costs two to six times the CPU for a few per cent fewer bytes.
_LEVEL: Final = 1
# zlib's window bits also choose the wrapper: 31 is gzip, 15 is zlib, which HTTP calls deflate.
_WINDOW_BITS: Final = {"gzip": 31, "deflate": 15}

RAW_MAX: Final = 128 * 1024 * 1024
"""Bytes of the longest message that is made of a compressed one: twice the largest batch that can be configured."""
# What the frames around groups of items come to at least; a group has an item, which is as long as its frames.
_FRAMES: Final = 4096


def compress(pieces: Iterable[bytes], encoding: str) -> bytes:
    """
    Compress a message that is given in pieces, without joining them first.

    Args:
        pieces: The message in order.
        encoding: `identity`, `gzip` or `deflate` (HTTP's names).

    Raises:
        ValueError: The encoding is none of these.
    """
    if encoding == "identity":
        return b"".join(pieces)
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _window_bits(encoding))
    chunks = [chunk for piece in pieces if (chunk := compressor.compress(piece))]
    chunks.append(compressor.flush())
    return b"".join(chunks)


def decompress(body: bytes, encoding: str, raw_size: int) -> bytes:
    """
    Undo `compress`.

    Args:
        body: What it returned.
        encoding: As it was given.
        raw_size: About the bytes of the message, as its batch says: without the frames around its groups. Nothing much longer
            is made, nor anything longer than `RAW_MAX`, whatever body and batch claim: they may be from a file that
            somebody else wrote.

    Raises:
        ValueError: The encoding is unknown, or the body is not, or not wholly, of that encoding, or too long.
    """
    most = min(2 * raw_size + _FRAMES, RAW_MAX)
    if encoding == "identity":
        raw = body
    else:
        decompressor = zlib.decompressobj(_window_bits(encoding))
        try:
            # One more, by which a longer one is told.
            raw = decompressor.decompress(body, most + 1)
        except zlib.error as error:
            raise ValueError(f"the body is not {encoding}: {error}") from None
        if len(raw) <= most and (not decompressor.eof or decompressor.unused_data):
            raise ValueError(f"the body is not one whole {encoding} stream")
    if len(raw) > most:
        raise ValueError(f"the body is far longer than the {raw_size} bytes that its batch says")
    return raw


def _window_bits(encoding: str) -> int:
    try:
        return _WINDOW_BITS[encoding]
    except KeyError:
        raise ValueError(f"content encoding {encoding!r} is not one of identity, gzip, deflate") from None
