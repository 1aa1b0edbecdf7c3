"""Everything of ours that reads what somebody else may have written, each as a function of some bytes that must not raise.

    TARGETS["segment"](b"…")

`test_targets.py` runs them briefly, with Hypothesis; `scripts/fuzz` for as long as it is told, guided by coverage where atheris can be had.
A target fails by raising: what it calls must not, and its books must balance.
"""

import copy
import json
import math
import os
import random
import shutil
import tempfile
import zlib
from base64 import b64encode
from pathlib import Path

from typer.testing import CliRunner

from fakes.batches import batch
from fakes.spools import settings
from surgetank.cli.app import app
from surgetank.cli.top_columns import Page
from surgetank.cli.top_view import Frame, draw
from surgetank.cli.top_watch import Watcher
from surgetank.config import BufferConfig, Environment
from surgetank.config.limits import resolve_limits
from surgetank.delivery.dissection import halve
from surgetank.doctor.processes import check_processes, loads_between
from surgetank.model import HeldBatch, Lane, Signal
from surgetank.otlp import decode
from surgetank.otlp import json as otlp_json
from surgetank.otlp.compression import compress, decompress
from surgetank.otlp.partial_success import parse as read_partial_success
from surgetank.otlp.split import count, split
from surgetank.presence import sightings
from surgetank.spool.check import check
from surgetank.spool.disk import Disk
from surgetank.spool.encryption import Cipher
from surgetank.spool.export import Export
from surgetank.spool.folder import SegmentName
from surgetank.spool.record import (
    FREE_SLOT,
    HEAD_SIZE,
    RECORD_FIXED,
    Head,
    crc32,
    write_head,
    write_record,
    write_slot,
    write_trailer,
)
from surgetank.spool.repair import repair
from surgetank.spool.survey import survey
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import MemoryFilesystem

KEYS = "k:" + b64encode(b"k" * 32).decode()
NAME = "spans-normal-0000000001.segment"
OWNER = "/spool/owner-1-0123456789ab"
SIGNALS = list(Signal)
LANES = list(Lane)
ENCODINGS = ["identity", "gzip", "deflate"]
INTERESTING = [
    0,
    1,
    2,
    3,
    7,
    8,
    255,
    256,
    65_535,
    65_536,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


class Source:
    """Bytes, taken for decisions one after the other; when they have run out, all decisions are zero."""

    def __init__(self, data):
        self._data = data
        self._at = 0

    def bytes(self, size):
        found = self._data[self._at : self._at + size]
        self._at += size
        return found

    def below(self, limit):
        width = max(1, (limit - 1).bit_length() + 7 >> 3)
        return int.from_bytes(self.bytes(width), "little") % limit

    def pick(self, choices):
        return choices[self.below(len(choices))]

    def number(self, most=2**64 - 1):
        """Return a number that may be wrong in an interesting way."""
        kind = self.below(4)
        value = self.pick(INTERESTING) if kind == 0 else self.below(2**64) if kind == 1 else self.below(16)
        return min(value, most)

    @property
    def is_spent(self):
        return self._at >= len(self._data)


def with_crc(data, start, end):
    """Have the checksum at `end` vouch for what is before it."""
    data[end : end + 4] = crc32(bytes(data[start:end])).to_bytes(4, "little")
    return bytes(data)


def a_head(source):
    """Return a head whose checksum is right, whatever it says."""
    base = Head(signal=Signal.SPANS, lane=Lane.NORMAL, slots=source.pick([0, 1, 4, 64, 512]), number=1, base=1, floor=1)
    data = bytearray(write_head(base))
    for _ in range(source.below(4)):
        at, size = source.pick(
            [(8, 2), (10, 1), (11, 1), (12, 2), (14, 2), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8), (56, 4)]
        )
        data[at : at + size] = source.number(256**size - 1).to_bytes(size, "little")
    slots = int.from_bytes(data[12:14], "little")
    return with_crc(data, 0, HEAD_SIZE - 4), slots


def a_record(source, sequence, cipher):
    """Return a record whose checksums are right, whatever it says, and the sequence after it."""
    items = 1 + source.below(4)
    body = source.bytes(source.below(64))
    encoding = source.pick(ENCODINGS)
    if source.below(2):
        body = compress([body], encoding)
    given = batch(items, name=f"b{source.below(100)}", body=body, signal=source.pick(SIGNALS), lane=source.pick(LANES))
    payload, key = (body, "") if source.below(4) else (cipher.encrypt(given)[0], source.pick(["k", "other"]))
    data = bytearray(write_record(given, sequence, payload, key_id=key))
    end = RECORD_FIXED + len(given.id) + len(key)
    data[7] = ENCODINGS.index(encoding)
    for _ in range(source.below(3)):
        at, size = source.pick(
            [(4, 1), (5, 1), (6, 1), (7, 1), (8, 1), (12, 4), (16, 8), (24, 8), (32, 8), (40, 4), (44, 4), (48, 1)]
        )
        data[at : at + size] = source.number(256**size - 1).to_bytes(size, "little")
    return with_crc(data, 0, end) if source.below(8) else bytes(data), sequence + items


def a_segment(data):
    """Return a segment as a decision of these bytes: well made in most places, and wrong in some."""
    source = Source(data)
    cipher = Cipher(KEYS)
    head, slots = a_head(source)
    marks = [write_slot(source.number(), source.number(2**32 - 1)) for _ in range(min(slots, source.below(5)))]
    pieces = [head, *marks, FREE_SLOT * (slots - len(marks))]
    sequence = 1 if source.below(4) else source.number(2**63)
    while not source.is_spent and len(pieces) < 64:
        kind = source.below(8)
        if kind < 5:
            piece, sequence = a_record(source, sequence, cipher)
            pieces.append(piece)
        elif kind == 5:
            pieces.append(write_trailer(source.number(), source.number(2**32 - 1)))
        elif kind == 6:
            pieces.append(source.bytes(source.below(40)))
        else:
            pieces.append(bytes(source.below(200)))
    made = bytearray(b"".join(pieces))
    for _ in range(source.below(4)):
        made[source.below(len(made))] ^= 1 << source.below(8)
    return bytes(made[: len(made) - source.below(40)] if source.below(4) == 0 else made)


def disk_with(files):
    """Return a disk with what a dead process left, and somebody has changed."""
    filesystem = MemoryFilesystem()
    filesystem.make_folder(OWNER)
    filesystem.make_folder("/spool/dead-letters")
    filesystem.create(f"{OWNER}/lock").close()
    for path, content in files.items():
        file = filesystem.create(path)
        file.write_at(0, content)
        file.close()
    return filesystem


def look(filesystem, keys):
    """Have everything that only looks at a spool look at it; the result is data that can be printed."""
    cipher = Cipher(keys) if keys else None
    said = [survey(filesystem, "/spool", 1.8e9).as_data(), check(filesystem, "/spool").as_data()]
    for signal in (None, Signal.LOGS):
        for has_done in (False, True):
            export = Export(filesystem, "/spool", cipher, signal, has_done)
            lines = [*export.lines(), *export.letter_lines()]
            for line in lines:
                json.loads(line)
            said.append(export.as_data())
    json.dumps(said)


def take_over(filesystem, keys):
    """Have another process adopt and deliver everything, dissecting some; its books must balance."""
    clock = ManualClock(1.8e9)
    given = settings(max_bytes=64 * 1024 * 1024, key_text=(lambda: keys) if keys else None)
    disk = Disk(given, filesystem, clock)
    for _ in range(2):
        disk.adopt_orphans()
        clock.advance(61)
    for signal, spool in disk.spools.items():
        delivered = 0
        for number in range(1000):
            held = spool.lease(clock.monotonic(), lambda items, size: size < 1024 * 1024)
            if held is None:
                break
            assert held.batch.signal in SIGNALS
            held.batch.id.encode("ascii")
            if number % 3 == 0:
                use(held.batch)
            if number % 5 == 1:
                spool.release(held.record, held)
                continue
            delivered += held.batch.items
            spool.ack(held.record)
        waiting = spool.available_items()
        spool.expire(clock.now())
        changes = spool.changes()
        lost = sum(changes.lost.values())
        assert waiting >= 0, waiting
        assert changes.recovered >= 0, changes
        assert min(changes.lost.values(), default=0) >= 0, changes
        assert changes.recovered == delivered + lost + spool.available_items(), (signal, changes, delivered)
        spool.oldest_available()
    assert disk.folder.used_bytes >= 0
    disk.close()


def use(given):
    """Do with a batch what senders do."""
    try:
        raw = decompress(given.body, given.encoding, given.raw_size)
    except ValueError:
        raw = given.body
    for attempt in (count, split, otlp_json.line, decode.decode):
        try:
            attempt(raw, given.signal)
        except ValueError:
            pass
    if given.items > 1:
        try:
            halve(HeldBatch(batch=given, first_seq=1))
        except ValueError:
            pass


def spool_with(files):
    """Look at a spool, take it over, and repair it, with its key and without."""
    filesystem = disk_with(files)
    for keys in (KEYS, None):
        look(filesystem, keys)
        take_over(copy.deepcopy(filesystem), keys)
    repair(filesystem, "/spool", ManualClock(1.8e9))
    look(filesystem, KEYS)
    take_over(filesystem, KEYS)


def segment(data):
    """A segment's bytes as they are."""
    spool_with({f"{OWNER}/{NAME}": data})


def segment_made(data):
    """A segment whose checksums are right, whatever it says."""
    spool_with({f"{OWNER}/{NAME}": a_segment(data)})


def segments_made(data):
    """Two of them, one after the other."""
    half = len(data) // 2
    first, second = a_segment(data[:half]), bytearray(a_segment(data[half:]))
    second[16:24] = (2).to_bytes(8, "little")
    second = with_crc(second, 0, HEAD_SIZE - 4) if len(second) >= HEAD_SIZE else bytes(second)
    spool_with({f"{OWNER}/{NAME}": first, f"{OWNER}/{NAME.replace('1.', '2.')}": second})


def letter(data):
    """A dead letter's bytes as they are."""
    spool_with({"/spool/dead-letters/000000000000001-1-b.letter": data})


LETTER = {
    "version": 1,
    "batch_id": "b",
    "signal": "spans",
    "lane": "normal",
    "items": 1,
    "encoding": "identity",
    "raw_size": 4,
    "created": 1.7e9,
    "buried": 1.7e9,
    "status": "400",
    "reason": "no",
    "key_id": "",
    "stored": 4,
}
VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2,
    2**53,
    2**64,
    10**30,
    1e308,
    -0.5,
    math.nan,
    math.inf,
    "",
    "\ud800",
    "\x1b[2J",
    "gzip",
    "logs",
    [],
    {},
    "k",
    [[]],
]


def letter_made(data):
    """A letter that is JSON, with values that nobody would write."""
    source = Source(data)
    payload = source.bytes(source.below(64))
    said = {**LETTER, "stored": len(payload), "signal": source.pick(SIGNALS).value}
    for _ in range(source.below(5)):
        said[source.pick(list(said))] = source.pick(VALUES)
    letter(json.dumps(said).encode() + b"\n" + payload)


def names(data):
    """Names of folders and files in a spool, of whatever bytes a file system takes."""
    source = Source(data)
    files = {}
    for _ in range(source.below(6)):
        text = source.bytes(source.below(40)).replace(b"/", b"").replace(b"\0", b"").decode("utf-8", "surrogateescape")
        stem = source.pick(["owner-", "orphan-", ".new-", "backup-", "", "owner-1-"])
        name = source.pick([text, NAME, "lock", f"{text}.segment", f"{text}.letter", f"spans-normal-{text}.segment"])
        if name not in ("", ".", "..") and stem + text not in ("", ".", ".."):
            files.setdefault(f"/spool/{stem}{text}/{name}", source.bytes(16))
        SegmentName.parse(name)
    filesystem = disk_with({})
    for path, content in files.items():
        try:
            filesystem.make_folder(os.path.dirname(path))
            file = filesystem.create(path)
        except OSError:
            continue
        file.write_at(0, content)
        file.close()
    look(filesystem, None)
    take_over(filesystem, None)


def read_status(content):
    filesystem = MemoryFilesystem()
    filesystem.make_folder("/status")
    file = filesystem.create("/status/1-0.status")
    file.write_at(0, content)
    found = list(sightings(["/status"], filesystem))
    watcher = Watcher(ManualClock(), lambda: found)
    for _ in range(2):
        tanks = watcher.tanks()
    json.dumps([tank.as_data(1.8e9) for tank in tanks])
    frame = Frame(tanks=tanks, now=1.8e9, host="host", folders={"/status": ""}, is_filtered=False, note="")
    for page in (Page(width=80, height=24, is_unicode=True), Page(width=200, height=None, is_unicode=False)):
        for line in draw(frame, page):
            assert line.plain.isprintable(), line.plain
    limits = {signal: resolve_limits(signal, BufferConfig(), Environment({})) for signal in Signal}
    for finding in check_processes(found, limits):
        str(finding)
    loads_between([(each.said, each.said) for each in found])


def as_status(said):
    body = json.dumps(said).encode()
    return b"surgetank-status 1 %d %08x\n" % (len(body), zlib.crc32(body)) + body


def status(data):
    """A status file's bytes as they are, and as what a good checksum vouches for."""
    read_status(data)
    read_status(b"surgetank-status 1 %d %08x\n" % (len(data), zlib.crc32(data)) + data)


STATUS = {
    "pid": 1,
    "service": "shop",
    "command": "python",
    "version": "1",
    "started_at": 1.7e9,
    "written_at": 1.7e9,
    "scale": 1.0,
    "health": {"state": "holding", "reasons": ["a"]},
    "endpoints": {"spans": "http://host"},
    "memory": {"used": 1, "limit": 2},
    "signals": {
        "spans": {
            "offered": 1,
            "held": 1,
            "max_size": 1,
            "dropped": {"memory": 1},
            "rejected": {"400": 1},
            "breaker": "open",
        }
    },
    "spool": {"path": "/spool", "bytes": 1},
}


def status_made(data):
    """A status file with values that nobody would write."""
    source = Source(data)
    said = copy.deepcopy(STATUS)
    for _ in range(1 + source.below(6)):
        place = said
        while source.below(3) and any(isinstance(each, dict) and each for each in place.values()):
            place = source.pick([each for each in place.values() if isinstance(each, dict) and each])
        place[source.pick(list(place))] = copy.deepcopy(source.pick([*VALUES, STATUS["signals"]]))
    read_status(as_status(said))


def request(data):
    """A request's bytes, of each signal, to all that walk them."""
    for signal in Signal:
        for items in (1, 5):
            use(batch(items, body=data, signal=signal))


def compressed(data):
    """A compressed body."""
    for encoding in ENCODINGS:
        for size in (0, len(data), 2**40):
            try:
                raw = decompress(data, encoding, size)
            except ValueError:
                continue
            assert len(raw) <= 2 * size + 4096


def response(data):
    """A receiver's answer."""
    read_partial_success(data)


def commands(data):
    """The commands, on a real disk, as text and as JSON."""
    source = Source(data)
    folder = Path(tempfile.mkdtemp())
    try:
        owner = folder / "spool" / source.pick(["owner-1-0123456789ab", "orphan-1-0123456789ab", "owner-\x1b[31m"])
        letters = folder / "spool" / "dead-letters"
        for each in (owner, letters):
            each.mkdir(parents=True, mode=0o700)
        (owner / "lock").touch()
        (owner / NAME).write_bytes(a_segment(source.bytes(400)))
        (letters / "000000000000001-1-b.letter").write_bytes(source.bytes(200))
        (folder / "1-0.status").write_bytes(as_status({**STATUS, source.pick(list(STATUS)): source.pick(VALUES)}))
        with_json = ["--json"] if source.below(2) else []
        for arguments in (
            ["spool", "status", "--dir", str(folder / "spool"), *with_json],
            ["spool", "check", "--dir", str(folder / "spool"), *with_json],
            ["spool", "export", "--dir", str(folder / "spool"), "--output", str(folder / "out")],
            ["spool", "export", "--dir", str(folder / "spool"), "--dead-letters", "--output", str(folder / "letters")],
            ["spool", "repair", "--dir", str(folder / "spool"), *with_json],
            ["spool", "repair", "--apply", "--dir", str(folder / "spool"), *with_json],
            ["top", "--once", "--dir", str(folder), *with_json],
        ):
            said = CliRunner().invoke(app, arguments)
            if said.exception is not None and not isinstance(said.exception, SystemExit):
                raise said.exception
            assert "\x1b" not in said.output, said.output
    finally:
        shutil.rmtree(folder)


TARGETS = {
    each.__name__: each
    for each in (
        segment,
        segment_made,
        segments_made,
        letter,
        letter_made,
        names,
        status,
        status_made,
        request,
        compressed,
        response,
        commands,
    )
}


def seeds(name):
    """Return what to begin with."""
    rng = random.Random(1)
    random_ones = [rng.randbytes(size) for size in (0, 1, 40, 200, 800)]
    spans = (
        b"\x0a\x1a\x12\x18\x12\x0a\x0a\x04" + b"\x01" * 4 + b"\x2a\x02hi\x12\x0a\x0a\x04" + b"\x02" * 4 + b"\x2a\x02ho"
    )
    found = {
        "segment": [a_segment(rng.randbytes(size)) for size in (0, 50, 200, 400, 800, 800)],
        "letter": [json.dumps(LETTER).encode() + b"\nbody"],
        "status": [json.dumps(STATUS).encode(), as_status(STATUS)],
        "request": [spans],
        "compressed": [compress([spans * 9], encoding) for encoding in ENCODINGS],
        "response": [b"\x0a\x06\x08\x01\x12\x02no"],
    }
    return [*found.get(name, ()), *random_ones]
