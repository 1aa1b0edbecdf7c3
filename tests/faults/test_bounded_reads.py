"""Whatever lies in a spool's folder, and however long it says it is: reading it takes bounded memory and bounded time."""

import json
import os
import time
import tracemalloc
import zlib
from contextlib import contextmanager

import pytest

from fakes.batches import batch
from fakes.spools import settings
from surgetank.model import Lane, Outcome, Signal, Verdict
from surgetank.otlp import decode
from surgetank.otlp import json as otlp_json
from surgetank.otlp.split import split
from surgetank.spool.check import Kind, check
from surgetank.spool.disk import Disk
from surgetank.spool.export import Export
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.record import (
    FREE_SLOT,
    PAYLOAD_MAX,
    RECORD_MAGIC,
    Head,
    write_head,
    write_record,
    write_slot,
    write_trailer,
)
from surgetank.spool.repair import repair
from surgetank.spool.survey import survey
from surgetank.testing import ManualClock

MIB = 1024 * 1024
TIB = 1024 * 1024 * MIB
NAME = "spans-normal-0000000001.segment"
# Seconds; a search that looks at every byte of what is there for a record takes minutes.
SOON = 30.0


@contextmanager
def at_most(mebibytes):
    """Fail when more than so much memory is allocated inside, or when it takes long."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < mebibytes * MIB, f"{peak / MIB:.1f} MiB"
    assert time.monotonic() - began < SOON


def head(*, slots=8, floor=1, end=0, base=1):
    return Head(
        signal=Signal.SPANS, lane=Lane.NORMAL, slots=slots, number=1, base=base, floor=floor, end=end, created=1.7e9
    )


def segment(given=None, *pieces):
    """Return a segment's bytes."""
    given = given or head()
    return write_head(given) + FREE_SLOT * given.slots + b"".join(pieces)


def record(sequence, items=1, body=b"x" * 100, name="b"):
    return write_record(batch(items, name=name, body=body), sequence, body)


def spool_with(tmp_path, content, *, size=None, name=NAME):
    """Return a spool that a dead process left with one segment in it, made longer by a hole."""
    owner = tmp_path / "spool" / "owner-1-0123456789ab"
    owner.mkdir(parents=True, mode=0o700)
    (tmp_path / "spool").chmod(0o700)
    (owner / "lock").touch(mode=0o600)
    (owner / name).write_bytes(content)
    if size is not None:
        os.truncate(owner / name, size)
    return str(tmp_path / "spool")


def look_with_everything(path):
    """Have every reader look at a spool; returns what a process that adopts it says it found, lost and delivered."""
    filesystem, clock = OsFilesystem(), ManualClock()
    survey(filesystem, path, clock.now())
    check(filesystem, path)
    export = Export(filesystem, path)
    for _ in export.lines():
        pass
    for _ in export.letter_lines():
        pass
    disk = Disk(settings(path=path, max_bytes=1024 * MIB), filesystem, clock)
    disk.adopt_orphans()
    delivered = 0
    spool = disk.spools[Signal.SPANS]
    while (held := spool.lease(clock.monotonic(), lambda items, size: True)) is not None:
        delivered += held.batch.items
        spool.ack(held.record)
    changes = spool.changes()
    disk.close()
    return changes.recovered, sum(changes.lost.values()), delivered


def test_a_hole_after_the_last_record_costs_nothing(tmp_path):
    """A sparse file of 4 KiB took as much memory as it said it was long."""
    path = spool_with(tmp_path, segment(None, record(1), record(2)), size=TIB)

    with at_most(16):
        found = look_with_everything(path)

    assert found == (2, 0, 2)


def test_a_hole_in_place_of_everything_costs_nothing(tmp_path):
    """No head, no record."""
    path = spool_with(tmp_path, b"", size=TIB)

    with at_most(16):
        assert look_with_everything(path) == (0, 0, 0)


def test_records_are_found_after_a_hole_of_bounded_length(tmp_path):
    """Of a damaged header the next good record is still looked for."""
    owner = tmp_path / "spool" / "owner-1-0123456789ab"
    path = spool_with(tmp_path, segment(None, record(1)), size=20 * MIB)
    with (owner / NAME).open("ab") as file:
        file.write(record(3))

    with at_most(16):
        assert look_with_everything(path) == (3, 1, 2)


def test_a_record_that_says_it_is_long_is_read_only_when_there_is_room(tmp_path):
    """The header's checksum is right, and the payload is a hole."""
    payload_size = PAYLOAD_MAX
    zeroes = bytes(MIB)
    checksum = 0
    for _ in range(payload_size // MIB):
        checksum = zlib.crc32(zeroes, checksum)
    data = bytearray(record(1, body=b""))
    data = _with_payload(bytes(data), payload_size, checksum)
    path = spool_with(
        tmp_path, segment(None, data), size=len(segment()) + len(data) + payload_size + len(write_trailer(1, 1))
    )
    filesystem = OsFilesystem()

    with at_most(8):
        survey(filesystem, path, 0.0)
        check(filesystem, path)
        disk = Disk(settings(path=path, max_bytes=1024 * MIB), filesystem, ManualClock())
        disk.adopt_orphans()
        asked = []
        assert disk.spools[Signal.SPANS].lease(0.0, lambda items, size: asked.append(size)) is None

    assert asked == [len(data) + payload_size + len(write_trailer(1, 1))]
    with at_most(PAYLOAD_MAX / MIB + 8):
        held = disk.spools[Signal.SPANS].lease(0.0, lambda items, size: True)
        assert len(held.batch.body) == payload_size


def _with_payload(data, size, checksum):
    """Return a record's header, changed to speak of another payload, with the checksum that vouches for it."""
    fixed = bytearray(data[:49])
    fixed[40:44] = size.to_bytes(4, "little")
    fixed[44:48] = checksum.to_bytes(4, "little")
    return bytes(fixed) + zlib.crc32(fixed).to_bytes(4, "little")


@pytest.mark.parametrize(
    "decoy",
    [RECORD_MAGIC, (1).to_bytes(8, "little"), bytes(8)],
    ids=["beginnings", "ends", "zeroes"],
)
def test_what_only_looks_like_records_is_given_up_soon(tmp_path, decoy):
    """A file of nothing but the first bytes of records, or the first of their ends."""
    path = spool_with(tmp_path, segment(None, decoy * (16 * MIB // len(decoy))))

    with at_most(16):
        recovered, lost, delivered = look_with_everything(path)

    assert (recovered - lost, delivered) == (0, 0)


def test_a_segment_has_no_more_records_than_it_can_have_slots(tmp_path):
    """A million empty records would take a gigabyte to list."""
    records = b"".join(record(number, body=b"", name="") for number in range(1, 70_001))
    path = spool_with(tmp_path, segment(None, records))

    found = survey(OsFilesystem(), path, 0.0)

    assert found.total("records") == 65_535
    assert [(each.kind, each.file) for each in check(OsFilesystem(), path).findings] == [
        (Kind.TORN, f"owner-1-0123456789ab/{NAME}")
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(segment(None, record(2**62)), id="a leap"),
        pytest.param(segment(head(floor=2**63 - 1, base=0), record(2**63 - 1)), id="the last sequence"),
        pytest.param(segment(head(end=2**40), record(1)), id="a head that promises too much"),
        pytest.param(segment(head(floor=9, end=3), record(9)), id="an end before the beginning"),
        pytest.param(segment(head(end=3), record(1, items=1000)), id="a record beyond the end"),
        pytest.param(segment(None, record(1, items=2**32 - 1), record(2**32, items=2**32 - 1)), id="many items"),
        pytest.param(segment(None, write_trailer(1, 2**32 - 1) * 3), id="ends that promise too much"),
        pytest.param(
            write_head(head()) + write_slot(1, 7) + write_slot(2, 7) * 7 + record(1, 10), id="acks that overlap"
        ),
        pytest.param(write_head(head()) + write_slot(2**62, 7) * 8 + record(1), id="acks of nothing"),
        pytest.param(write_head(head(end=11)) + write_slot(2, 3) + FREE_SLOT * 7 + record(1, 10), id="half a record"),
    ],
)
def test_numbers_that_cannot_be_are_damage(tmp_path, content):
    """Checksums are no secret: a file that somebody else wrote may say anything, and the books balance all the same."""
    path = spool_with(tmp_path, content)

    recovered, lost, delivered = look_with_everything(path)

    assert recovered >= 0
    assert recovered == lost + delivered
    repair(OsFilesystem(), path, ManualClock())


@pytest.mark.parametrize(
    "name", ["spans-normal-1.segment", f"spans-normal-{2**64}.segment", f"spans-normal-{'9' * 60}.segment"]
)
def test_a_name_that_is_none_of_ours_is_passed_over(tmp_path, name):
    """A number that no head can hold, or that another name has."""
    path = spool_with(tmp_path, b"x" * 100 + record(1), name=name)

    assert look_with_everything(path) == (0, 0, 0)


def letter(said, payload=b""):
    return json.dumps(said).encode() + b"\n" + payload


GOOD = {
    "version": 1,
    "batch_id": "b",
    "signal": "spans",
    "lane": "normal",
    "items": 1,
    "encoding": "identity",
    "raw_size": 0,
    "created": 0.0,
    "buried": 0.0,
    "status": "400",
    "reason": "",
    "key_id": "",
    "stored": 0,
}


@pytest.mark.parametrize(
    ("content", "size"),
    [
        pytest.param(b"", TIB, id="a hole"),
        pytest.param(letter(GOOD), TIB, id="a hole for a payload"),
        pytest.param(b"[" * 60_000 + b"\n", None, id="nested"),
        pytest.param(b'{"version": 1, "items": ' + b"9" * 60_000 + b"}\n", None, id="a long number"),
        pytest.param(b'{"' + b"a" * (8 * MIB) + b'": 1}\n', None, id="a long line"),
        pytest.param(letter({**GOOD, "items": -5}), None, id="less than nothing"),
        pytest.param(letter({**GOOD, "created": float("nan")}), None, id="no time"),
        pytest.param(letter({**GOOD, "batch_id": "\ud800", "key_id": "\ud800"}), None, id="half a character"),
        pytest.param(
            letter(
                {**GOOD, "encoding": "gzip", "raw_size": 10, "stored": len(zlib.compress(bytes(64 * MIB), 9, 31))},
                zlib.compress(bytes(64 * MIB), 9, 31),
            ),
            None,
            id="a bomb",
        ),
    ],
)
def test_a_letter_is_read_within_bounds(tmp_path, content, size):
    """Or it is named as one that cannot be read."""
    path = spool_with(tmp_path, segment())
    folder = tmp_path / "spool" / "dead-letters"
    folder.mkdir(mode=0o700)
    (folder / "000000000000001-1-b.letter").write_bytes(content)
    if size is not None:
        os.truncate(folder / "000000000000001-1-b.letter", size)

    with at_most(16):
        export = Export(OsFilesystem(), path)
        assert list(export.letter_lines()) == []
        check(OsFilesystem(), path)
        survey(OsFilesystem(), path, 0.0)

    assert not export.is_complete


def test_a_letter_names_its_batch_with_what_a_name_may_have(tmp_path):
    """The identifier may have come from a file that somebody else wrote."""
    disk = Disk(settings(path=str(tmp_path / "spool")), OsFilesystem(), ManualClock())
    refusal = Verdict(outcome=Outcome.REJECTED, cause="400", message="x" * 10 * MIB)

    disk.dead_letters.bury(batch(name="../../\0\ud800" + "n" * 300), refusal)

    (found,) = (tmp_path / "spool" / "dead-letters").iterdir()
    assert set(found.name) <= set("0123456789abcdefghijklmnopqrstuvwxyz._-")
    assert len(found.name) < 200
    assert found.stat().st_size < 64 * 1024


@pytest.mark.parametrize("depth", [0, 1])
def test_a_request_of_empty_messages_is_no_object_of_gigabytes(depth):
    """Two bytes each, and a hundred times as many as objects."""
    raw = b"\x0a\x00" * (3 * MIB)
    if depth:
        raw = b"\x0a" + _varint(len(raw)) + raw

    with pytest.raises(ValueError, match="values"):
        otlp_json.line(raw, Signal.SPANS)


def test_packed_numbers_are_counted_before_they_are_read():
    """A megabyte of them takes a hundred in objects."""
    buckets = b"\x12" + _varint(16 * MIB) + bytes(16 * MIB)
    raw = buckets
    for field in (8, 1, 10, 2, 2, 1):
        raw = bytes([field << 3 | 2]) + _varint(len(raw)) + raw

    with at_most(256), pytest.raises(ValueError, match="values"):
        decode.decode(raw, Signal.METRICS)


def test_a_request_of_too_many_items_is_not_cut():
    """Each costs memory while it is."""
    spans = b"\x12\x00" * (MIB + 1)
    scope = b"\x12" + _varint(len(spans)) + spans
    raw = b"\x0a" + _varint(len(scope)) + scope

    with pytest.raises(ValueError, match="no halves"):
        split(raw, Signal.SPANS)


def _varint(value):
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    data.append(value)
    return bytes(data)
