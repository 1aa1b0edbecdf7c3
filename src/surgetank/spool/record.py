"""The bytes of a segment: pure functions from structs to bytes and back; `docs/spool-format.md` is its twin.

Owns: no state. Threads: any.
Invariants: what is parsed was vouched for by its checksum; nothing is guessed at; no length is trusted before its CRC.

    0     ┌───────────────────────────────────────────────────┐
          │ head: who wrote what, and how far it is done      │ 64 bytes, rewritten in place
    64    ├───────────────────────────────────────────────────┤
          │ acks: one slot of 16 bytes for each record        │ 16 bytes per slot, each written once
          ├───────────────────────────────────────────────────┤
          │ record: header, CRC │ payload │ trailer           │ appended, never changed
          │ record …                                          │
          └───────────────────────────────────────────────────┘

All numbers are little-endian. A sequence counts items, not records, so that the distance between
two records says how many items are missing between them, whatever has become of the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from surgetank.model import Batch, Lane, Signal

VERSION: Final = 1
"""Of a segment's head."""
PLAIN: Final = 1
"""The version of a record that is not encrypted; and that of encrypted ones once, whose payloads were bound in another way."""
BOUND: Final = 2
"""The version of an encrypted record: other readers leave it alone, and do not take it for damaged."""

HEAD_MAGIC: Final = b"SURGESEG"
# magic, version, signal, lane, slots, sealed, number, base, floor, end, created (ms), records; then the CRC.
_HEAD: Final = struct.Struct("<8sHBBHHQQQQQI")
_CRC: Final = struct.Struct("<I")
HEAD_SIZE: Final = _HEAD.size + _CRC.size

RECORD_MAGIC: Final = b"\xf5SRG"
# magic, version, signal, lane, encoding, encrypted, id length, key id length, reserved, items, sequence,
# raw size, created (µs), payload length, payload CRC; then identifier, key identifier, and the header's CRC.
_RECORD: Final = struct.Struct("<4sBBBBBBBBIQQQII")
RECORD_FIXED: Final = _RECORD.size
RECORD_HEADER_MAX: Final = RECORD_FIXED + 255 + 255 + _CRC.size
# A length above this is not believed even with a good CRC; twice the largest batch that can be configured.
PAYLOAD_MAX: Final = 128 * 1024 * 1024
RAW_MAX: Final = 128 * 1024 * 1024
"""Likewise, bytes of a batch before compression."""

# sequence, items; then the CRC.
_MARK: Final = struct.Struct("<QI")
SLOT_SIZE: Final = _MARK.size + _CRC.size
# Not zeroes: file systems that store those as holes would need room for the acks when it is too late.
FREE_SLOT: Final = b"\xff" * SLOT_SIZE
TRAILER_SIZE: Final = SLOT_SIZE
SEALED_MIN: Final = 12 + 16
"""Bytes of an encrypted payload without any content: nonce and tag."""
SLOTS_MAX: Final = 2**16 - 1
"""Records of a segment: its head has 16 bits for the number of slots, and each record needs one."""
SPAN_MAX: Final = 2**32 - 1
"""Items of a segment, those that are missing included: what a slot can say."""
SEQUENCE_MAX: Final = 2**63
_NUMBER_MAX: Final = 2**64 - 1
# Two kinds of marks have the same form; the start of their checksums tells them apart.
_SLOT_SEED: Final = 0x41434B45
_TRAILER_SEED: Final = 0x54524C52

# Before this (2020-01-01) nothing of ours was written; clocks without a battery begin in 1970.
_FIRST: Final = 1_577_836_800.0

_SIGNALS: Final = (Signal.SPANS, Signal.METRICS, Signal.LOGS)
_LANES: Final = (Lane.NORMAL, Lane.CRITICAL)
_ENCODINGS: Final = ("identity", "gzip", "deflate")
_SIGNAL_CODES: Final[Mapping[Signal, int]] = {signal: code for code, signal in enumerate(_SIGNALS)}
_LANE_CODES: Final[Mapping[Lane, int]] = {lane: code for code, lane in enumerate(_LANES)}


def is_plausible(moment: float, now: float) -> bool:
    """Whether a stored time and the present one (both in seconds since the epoch) can be of clocks that are both right, or both wrong."""
    return (moment < _FIRST) == (now < _FIRST)


class DamageError(ValueError):
    """The bytes are not what their checksum says, or there are too few of them."""


class VersionError(ValueError):
    """The bytes were written by a version that this one does not know; they are left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A segment's head."""

    signal: Signal
    lane: Lane
    slots: int
    """Records that fit; one ack slot each."""
    number: int
    """Ascending within one owner, signal and lane."""
    base: int
    """The sequence of the first item that was ever in this segment; 0 when that is not known any more."""
    floor: int
    """Everything below is done."""
    end: int = 0
    """The sequence after the last item; 0 while the segment is open."""
    records: int = 0
    """Records above the floor; 0 while the segment is open."""
    created: float = 0.0
    """Seconds since the epoch."""

    @property
    def is_sealed(self) -> bool:
        """Whether nothing will be appended any more."""
        return self.end > 0

    @property
    def records_at(self) -> int:
        """The offset of the first record."""
        return HEAD_SIZE + self.slots * SLOT_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordHeader:
    """What a record says about its payload."""

    signal: Signal
    lane: Lane
    encoding: str
    items: int
    sequence: int
    raw_size: int
    created: float
    batch_id: str
    payload_size: int
    payload_crc: int
    key_id: str = ""
    """The key that the payload was encrypted with; empty for none."""
    version: int = PLAIN
    """How the payload is bound to the batch, if it is encrypted."""
    header_size: int = 0
    """Bytes before the payload."""

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return self.header_size + self.payload_size + TRAILER_SIZE

    def batch(self, body: bytes) -> Batch:
        """Return the batch that was stored."""
        return Batch(
            id=self.batch_id,
            signal=self.signal,
            lane=self.lane,
            items=self.items,
            body=body,
            raw_size=self.raw_size,
            encoding=self.encoding,
            created=self.created,
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """An ack slot or a trailer: these items, and no others, are done or complete."""

    sequence: int
    items: int


def write_head(head: Head) -> bytes:
    """Return a head's 64 bytes."""
    body = _HEAD.pack(
        HEAD_MAGIC,
        VERSION,
        _SIGNAL_CODES[head.signal],
        _LANE_CODES[head.lane],
        head.slots,
        int(head.is_sealed),
        head.number,
        head.base,
        head.floor,
        head.end,
        min(max(0, round(head.created * 1e3)), _NUMBER_MAX),
        head.records,
    )
    return body + _CRC.pack(crc32(body))


def read_head(data: bytes) -> Head:
    """
    Return the head of a segment.

    Raises:
        DamageError: Too short, another magic, a CRC that differs, values that cannot be.
        VersionError: A version that this code does not know.
    """
    if len(data) < HEAD_SIZE or data[: len(HEAD_MAGIC)] != HEAD_MAGIC:
        raise DamageError("this is no segment")
    body = data[: _HEAD.size]
    if _CRC.unpack_from(data, _HEAD.size)[0] != crc32(body):
        raise DamageError("segment head: crc mismatch")
    _, version, signal, lane, slots, _, number, base, floor, end, created, records = _HEAD.unpack(body)
    # After the CRC: a flipped byte is damage, only a good head of another version is a version.
    if version != VERSION:
        raise VersionError(f"segment of version {version}; this is version {VERSION}")
    if signal >= len(_SIGNALS) or lane >= len(_LANES):
        raise DamageError("segment head: no such signal or lane")
    # A good CRC only says that nothing has changed since, not who wrote it.
    if max(base, floor, end) > SEQUENCE_MAX or base > floor or (end and not 0 <= end - floor <= SPAN_MAX):
        raise DamageError("segment head: sequences that cannot be")
    return Head(
        signal=_SIGNALS[signal],
        lane=_LANES[lane],
        slots=slots,
        number=number,
        base=base,
        floor=floor,
        end=end,
        records=records,
        created=created / 1e3,
    )


def write_slot(sequence: int, items: int) -> bytes:
    """Return the ack of a record."""
    return _write_mark(sequence, items, _SLOT_SEED)


def read_slot(data: bytes) -> Mark | None:
    """Return the ack in a slot, or None for a slot that holds none: empty, or damaged, which repeats one record."""
    return _read_mark(data, _SLOT_SEED)


def write_record(batch: Batch, sequence: int, payload: bytes, *, key_id: str = "") -> bytes:
    """
    Return a whole record.

    Args:
        batch: What the payload is.
        sequence: The number of its first item.
        payload: The body as it is stored: the batch's own, or encrypted.
        key_id: The key that it was encrypted with.
    """
    batch_id, key = batch.id.encode(), key_id.encode()
    if len(batch_id) > 255 or len(key) > 255:
        raise ValueError("identifiers take at most 255 bytes")
    header = (
        _RECORD.pack(
            RECORD_MAGIC,
            BOUND if key else PLAIN,
            _SIGNAL_CODES[batch.signal],
            _LANE_CODES[batch.lane],
            _ENCODINGS.index(batch.encoding),
            int(bool(key)),
            len(batch_id),
            len(key),
            0,
            batch.items,
            sequence,
            batch.raw_size,
            min(max(0, round(batch.created * 1e6)), _NUMBER_MAX),
            len(payload),
            crc32(payload),
        )
        + batch_id
        + key
    )
    return b"".join((header, _CRC.pack(crc32(header)), payload, write_trailer(sequence, batch.items)))


def read_record_header(data: bytes) -> RecordHeader:
    """
    Return the header at the beginning of `data`, of which `RECORD_HEADER_MAX` bytes are always enough.

    Raises:
        DamageError: Too short, another magic, a CRC that differs, a value out of range.
        VersionError: A version that this code does not know.
    """
    if len(data) < RECORD_FIXED or data[: len(RECORD_MAGIC)] != RECORD_MAGIC:
        raise DamageError("this is no record")
    (
        _,
        version,
        signal,
        lane,
        encoding,
        _,
        id_length,
        key_length,
        _,
        items,
        sequence,
        raw_size,
        created,
        payload_size,
        payload_crc,
    ) = _RECORD.unpack_from(data)
    end = RECORD_FIXED + id_length + key_length
    if len(data) < end + _CRC.size or _CRC.unpack_from(data, end)[0] != crc32(data[:end]):
        raise DamageError("record header: crc mismatch")
    if version not in (PLAIN, BOUND):
        raise VersionError(f"record of version {version}; this is version {BOUND}")
    if signal >= len(_SIGNALS) or lane >= len(_LANES) or encoding >= len(_ENCODINGS):
        raise DamageError("record header: a value out of range")
    # A good CRC only says that nothing has changed since, not who wrote it.
    if not items or sequence + items > SEQUENCE_MAX or payload_size > PAYLOAD_MAX or raw_size > RAW_MAX:
        raise DamageError("record header: a value out of range")
    return RecordHeader(
        signal=_SIGNALS[signal],
        lane=_LANES[lane],
        encoding=_ENCODINGS[encoding],
        items=items,
        sequence=sequence,
        raw_size=raw_size,
        created=created / 1e6,
        batch_id=_printable(data[RECORD_FIXED : RECORD_FIXED + id_length]),
        key_id=data[RECORD_FIXED + id_length : end].decode("utf-8", "replace"),
        version=version,
        payload_size=payload_size,
        payload_crc=payload_crc,
        header_size=end + _CRC.size,
    )


def _printable(identifier: bytes) -> str:
    # It becomes a header of a request, and a part of a file's name.
    text = identifier.decode("ascii", "replace")
    return "".join(each if "!" <= each <= "~" and each != "/" else "?" for each in text)


def check_payload(header: RecordHeader, payload: Iterable[bytes]) -> None:
    """Raise DamageError unless the payload, given in pieces, is the one that its header vouches for."""
    size = checksum = 0
    for piece in payload:
        size += len(piece)
        checksum = crc32(piece, checksum)
    if size != header.payload_size:
        raise DamageError(f"payload: {size} of {header.payload_size} bytes")
    if checksum != header.payload_crc:
        raise DamageError("payload: crc mismatch")
    if header.key_id and size < SEALED_MIN:
        raise DamageError(f"payload: {size} bytes, which is less than an encrypted one has")


def write_trailer(sequence: int, items: int) -> bytes:
    """Return the end of a record."""
    return _write_mark(sequence, items, _TRAILER_SEED)


def read_trailer(data: bytes) -> Mark | None:
    """Return what a trailer says, or None: a record that ends otherwise was never completely written."""
    return _read_mark(data, _TRAILER_SEED)


def _write_mark(sequence: int, items: int, seed: int) -> bytes:
    body = _MARK.pack(sequence, items)
    return body + _CRC.pack(crc32(body, seed))


def _read_mark(data: bytes, seed: int) -> Mark | None:
    if len(data) != SLOT_SIZE or _CRC.unpack_from(data, _MARK.size)[0] != crc32(data[: _MARK.size], seed):
        return None
    mark = Mark(*_MARK.unpack_from(data))
    return mark if mark.sequence + mark.items <= SEQUENCE_MAX else None
