"""The bytes of a segment: what is written is read back, what is not whole is refused, and the document says the same."""

import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from surgetank.model import Batch, Lane, Signal
from surgetank.spool import record as bytes_of
from surgetank.spool.record import (
    HEAD_SIZE,
    PAYLOAD_MAX,
    RAW_MAX,
    RECORD_FIXED,
    RECORD_HEADER_MAX,
    SEALED_MIN,
    SLOT_SIZE,
    TRAILER_SIZE,
    DamageError,
    Head,
    Mark,
    VersionError,
    check_payload,
    read_head,
    read_record_header,
    read_slot,
    read_trailer,
    write_head,
    write_record,
    write_slot,
    write_trailer,
)

# Each example tries every byte.
EVERY_BYTE = settings(max_examples=25, deadline=None)

FORMAT = (Path(__file__).parents[2] / "docs" / "spool-format.md").read_text()

U64 = st.integers(0, 2**64 - 1)
SEQUENCE = st.integers(0, 2**62)
U32 = st.integers(0, 2**32 - 1)
# Until the year 2200.
MILLIS = st.integers(0, 7_258_118_400_000)
# What stands in a request's header, and in a file's name.
IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="/"), max_size=60)


def laid_out(head, gaps):
    """Return a head whose sequences follow each other."""
    before, span = gaps
    floor = head.floor + before
    return dataclasses.replace(head, base=head.floor, floor=floor, end=0 if span is None else floor + span)


HEADS = st.builds(
    Head,
    signal=st.sampled_from(Signal),
    lane=st.sampled_from(Lane),
    slots=st.integers(0, 2**16 - 1),
    number=U64,
    base=st.just(0),
    floor=SEQUENCE,
    records=U32,
    created=MILLIS.map(lambda n: n / 1e3),
)
HEADS = st.builds(laid_out, HEADS, st.tuples(U32, st.none() | st.integers(1, 2**32 - 1)))
BATCHES = st.builds(
    Batch,
    id=IDS,
    signal=st.sampled_from(Signal),
    lane=st.sampled_from(Lane),
    items=st.integers(1, 2**32 - 1),
    body=st.binary(max_size=300),
    raw_size=st.integers(0, RAW_MAX),
    encoding=st.sampled_from(["identity", "gzip", "deflate"]),
    created=st.integers(0, 7_258_118_400_000_000).map(lambda n: n / 1e6),
)


def a_batch(**changes):
    given = {
        "id": "b1",
        "signal": Signal.LOGS,
        "lane": Lane.CRITICAL,
        "items": 7,
        "body": b"the body",
        "raw_size": 8,
        "encoding": "identity",
        "created": 1_700_000_000.5,
    }
    return Batch(**{**given, **changes})


def read_record(data):
    """Return header and payload of a whole record, or raise DamageError."""
    header = read_record_header(data)
    payload = data[header.header_size : header.header_size + header.payload_size]
    check_payload(header, [payload])
    if read_trailer(data[header.size - TRAILER_SIZE : header.size]) != Mark(header.sequence, header.items):
        raise DamageError("trailer")
    return header, payload


def with_crc(data, end):
    """Return bytes with the CRC that belongs at `end`."""
    return data[:end] + bytes_of._CRC.pack(bytes_of.crc32(data[:end])) + data[end + 4 :]


@given(head=HEADS)
def test_a_head_is_read_as_it_was_written(head):
    """In 64 bytes."""
    data = write_head(head)

    assert len(data) == HEAD_SIZE == 64
    assert read_head(data) == head
    assert read_head(data + b"whatever follows") == head


@given(sequence=SEQUENCE, items=U32)
def test_a_mark_is_read_as_it_was_written(sequence, items):
    """Ack and end of a record have one form, and are never taken for each other."""
    slot, trailer = write_slot(sequence, items), write_trailer(sequence, items)

    assert len(slot) == len(trailer) == SLOT_SIZE == TRAILER_SIZE
    assert read_slot(slot) == read_trailer(trailer) == Mark(sequence, items)
    assert read_slot(trailer) is None
    assert read_trailer(slot) is None


@given(batch=BATCHES, sequence=SEQUENCE, key_id=IDS)
@example(batch=a_batch(created=1_732_550_400.123457), sequence=1, key_id="")
@example(batch=a_batch(id="n" * 255), sequence=1, key_id="k" * 255)
def test_a_record_is_read_as_it_was_written(batch, sequence, key_id):
    """To the microsecond; what follows it does not matter."""
    batch = dataclasses.replace(batch, body=batch.body + bytes(SEALED_MIN))
    data = write_record(batch, sequence, batch.body, key_id=key_id)

    header, payload = read_record(data + b"whatever follows")

    assert header.size == len(data)
    assert header.header_size <= RECORD_HEADER_MAX
    assert header.batch(payload) == batch
    assert (header.sequence, header.key_id) == (sequence, key_id)
    # Moved to another segment, it is the same again.
    assert write_record(header.batch(payload), sequence, payload, key_id=key_id) == data


@pytest.mark.parametrize("what", ["id", "key_id"])
def test_an_identifier_that_does_not_fit_is_refused(what):
    """Its length has one byte."""
    batch = a_batch(id="x" * 256) if what == "id" else a_batch()

    with pytest.raises(ValueError, match="255 bytes"):
        write_record(batch, 1, b"", key_id="x" * 256 if what == "key_id" else "")


@EVERY_BYTE
@given(batch=BATCHES, key_id=IDS)
def test_every_prefix_of_a_record_is_refused(batch, key_id):
    """A record is there wholly or not at all."""
    data = write_record(batch, 3, batch.body, key_id=key_id)

    for size in range(len(data)):
        with pytest.raises(DamageError):
            read_record(data[:size])


@EVERY_BYTE
@given(batch=BATCHES, key_id=IDS, mask=st.integers(1, 255))
def test_every_flipped_byte_of_a_record_is_refused(batch, key_id, mask):
    """Whichever bits are flipped in it."""
    data = write_record(batch, 3, batch.body, key_id=key_id)

    for place in range(len(data)):
        with pytest.raises(DamageError):
            read_record(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])


@EVERY_BYTE
@given(head=HEADS, mask=st.integers(1, 255))
def test_every_prefix_and_every_flipped_byte_of_a_head_is_refused(head, mask):
    """As damage, not as an unknown version."""
    data = write_head(head)

    for place in range(len(data)):
        with pytest.raises(DamageError):
            read_head(data[:place])
        with pytest.raises(DamageError):
            read_head(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :])


@EVERY_BYTE
@given(sequence=SEQUENCE, items=U32, mask=st.integers(1, 255))
def test_every_prefix_and_every_flipped_byte_of_a_mark_is_refused(sequence, items, mask):
    """A slot that cannot be read is a free one."""
    data = write_slot(sequence, items)

    for place in range(len(data)):
        assert read_slot(data[:place]) is None
        assert read_slot(data[:place] + bytes([data[place] ^ mask]) + data[place + 1 :]) is None
    assert read_slot(b"\xff" * SLOT_SIZE) is None
    assert read_slot(bytes(SLOT_SIZE)) is None


@pytest.mark.parametrize("place", [9, 10, *range(40, 44)])
@pytest.mark.parametrize("value", [0xFF, 0x80])
def test_no_length_is_trusted_before_its_checksum(place, value):
    """One that is wrong is found out by the header's CRC, however much it asks for."""
    data = bytearray(write_record(a_batch(), 1, b"the body"))
    data[place] = value

    with pytest.raises(DamageError, match="crc mismatch"):
        read_record_header(bytes(data) + bytes(2 * RECORD_HEADER_MAX))


def test_a_payload_that_is_too_long_to_be_true_is_refused_even_with_a_good_checksum():
    """Nobody allocates gigabytes on a file's word."""
    data = bytearray(write_record(a_batch(), 1, b"the body"))
    data[40:44] = (PAYLOAD_MAX + 1).to_bytes(4, "little")

    with pytest.raises(DamageError, match="out of range"):
        read_record_header(with_crc(bytes(data), RECORD_FIXED + 2))


@pytest.mark.parametrize(("place", "value"), [(5, 3), (6, 2), (7, 3)])
def test_a_record_of_no_known_kind_is_refused_even_with_a_good_checksum(place, value):
    """Signal, lane and encoding."""
    data = bytearray(write_record(a_batch(), 1, b"the body"))
    data[place] = value

    with pytest.raises(DamageError, match="out of range"):
        read_record_header(with_crc(bytes(data), RECORD_FIXED + 2))


@pytest.mark.parametrize(("place", "value"), [(10, 3), (11, 2)])
def test_a_head_of_no_known_kind_is_refused_even_with_a_good_checksum(place, value):
    """Signal and lane."""
    data = bytearray(write_head(Head(signal=Signal.SPANS, lane=Lane.NORMAL, slots=1, number=1, base=1, floor=1)))
    data[place] = value

    with pytest.raises(DamageError, match="no such"):
        read_head(with_crc(bytes(data), HEAD_SIZE - 4))


def test_a_good_head_or_record_of_another_version_is_told_from_damage():
    """Whoever wrote it may want it back."""
    head = bytearray(write_head(Head(signal=Signal.SPANS, lane=Lane.NORMAL, slots=1, number=1, base=1, floor=1)))
    head[8] = 2
    record = bytearray(write_record(a_batch(), 1, b"the body"))
    record[4] = 3

    with pytest.raises(VersionError, match="version 2"):
        read_head(with_crc(bytes(head), HEAD_SIZE - 4))
    with pytest.raises(VersionError, match="version 3"):
        read_record_header(with_crc(bytes(record), RECORD_FIXED + 2))


def documented_segment():
    """Return the bytes of the example in the document."""
    (dump,) = re.findall(r"```hexdump\n(.*?)```", FORMAT, re.DOTALL)
    data = bytearray()
    for line in dump.splitlines():
        offset, *rest = line.split("  ", 1)
        assert int(offset, 16) == len(data), line
        if rest:
            digits, _, shown = rest[0].partition("|")
            part = bytes.fromhex(digits)
            assert shown == "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part) + "|"
            data += part
    return bytes(data)


HEAD = Head(
    signal=Signal.SPANS,
    lane=Lane.NORMAL,
    slots=2,
    number=1,
    base=1,
    floor=1,
    end=6,
    records=2,
    created=1_700_000_000.0,
)


def documented_batch(name, items, body):
    return Batch(
        id=name,
        signal=Signal.SPANS,
        lane=Lane.NORMAL,
        items=items,
        body=body,
        raw_size=len(body),
        encoding="identity",
        created=1_700_000_000.25,
    )


def test_the_documents_example_is_read_as_the_document_says():
    """Head, slots, two records, and nothing after them."""
    data = documented_segment()

    assert read_head(data) == HEAD
    assert HEAD.records_at == 0x60
    assert read_slot(data[0x40:0x50]) == Mark(1, 3)
    assert read_slot(data[0x50:0x60]) is None
    first, payload = read_record(data[0x60:])
    assert first.batch(payload) == documented_batch("b1", 3, b"hello")
    assert (first.sequence, first.size) == (1, 0xAB - 0x60)
    assert read_trailer(data[0x9B:0xAB]) == Mark(1, 3)
    second, payload = read_record(data[0xAB:])
    assert second.batch(payload) == documented_batch("b2", 2, b"tank")
    assert (second.sequence, 0xAB + second.size) == (4, len(data))


def test_the_documents_example_is_written_byte_for_byte():
    """What the document shows is what we write."""
    written = (
        write_head(HEAD)
        + write_slot(1, 3)
        + b"\xff" * SLOT_SIZE
        + write_record(documented_batch("b1", 3, b"hello"), 1, b"hello")
        + write_record(documented_batch("b2", 2, b"tank"), 4, b"tank")
    )

    assert written.hex(" ") == documented_segment().hex(" ")


def test_the_document_names_the_checksums_that_it_explains():
    """In its words after the dump."""
    data = documented_segment()

    assert f"CRC `{int.from_bytes(data[60:64], 'little'):08x}`" in FORMAT
    assert f"CRC `{int.from_bytes(data[0x8C:0x90], 'little'):08x}`" in FORMAT
    assert f"0x{bytes_of._SLOT_SEED:08X}" in FORMAT
    assert f"0x{bytes_of._TRAILER_SEED:08X}" in FORMAT
