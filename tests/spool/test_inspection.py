"""Looking into a spool: who lives, what waits, what is damaged; and nothing is changed by it."""

import os
import random

import pytest

from fakes.spools import KIB, Process
from surgetank.config import Environment
from surgetank.model import Lane, Signal
from surgetank.spool.check import Kind, check
from surgetank.spool.folder import SegmentName
from surgetank.spool.inspect import glimpse, owners, spool_folders
from surgetank.spool.record import BOUND, HEAD_SIZE, RECORD_FIXED, SLOT_SIZE, crc32
from surgetank.spool.survey import survey
from surgetank.testing.filesystem import Fault, MemoryFilesystem

SPOOL = "/spool"
SLOTS = 8


def dead_process(count=4, items=3, **settings):
    """Return a process that died with records of so many items, and the path of its first segment."""
    process = Process(slots=SLOTS, **settings)
    records = [process.spill(str(n), items) for n in range(count)]
    path = process.segments()[0]
    process.die()
    return process, path, records


def checked(process):
    """Return what a check finds, having seen that it changes nothing."""
    files = process.filesystem.files
    before = {path: bytes(inode.data) for path, inode in files.items()}
    calls = len(process.filesystem.calls)
    report = check(process.filesystem, SPOOL)
    assert {path: bytes(inode.data) for path, inode in files.items()} == before
    assert len(process.filesystem.calls) == calls
    return report


def found(report):
    """Return kind, offset and cost of each finding."""
    return [(finding.kind, finding.offset, finding.items) for finding in report.findings]


def test_the_living_are_told_from_the_dead():
    """By their locks, which stay as they are."""
    first = Process()
    first.spill("a")
    first.die()
    second = Process(first.filesystem.process(), first.clock)
    second.spill("b")

    states = [owner.state for owner in owners(first.filesystem, SPOOL)]

    assert sorted(states) == ["dead", "living"]
    heir = Process(first.filesystem.process(), first.clock)
    heir.adopt()
    assert heir.drain() == ["a"]


def test_a_folder_without_its_lock_file_is_a_dead_owners():
    """An heir would make a new lock for it."""
    process, _, _ = dead_process()
    (lock,) = [path for path in process.filesystem.files if path.endswith("/lock")]
    del process.filesystem.files[lock]

    assert [owner.state for owner in owners(process.filesystem, SPOOL)] == ["dead"]


def test_a_folder_that_may_not_be_read_is_named():
    """Another user's, say."""
    process, _, _ = dead_process()
    process.filesystem.faults.append(Fault("open", error=13, times=-1, path="/lock"))

    (owner,) = owners(process.filesystem, SPOOL)
    report = check(process.filesystem, SPOOL)

    assert owner.state == "unreadable"
    assert [finding.kind for finding in report.damage] == [Kind.UNREADABLE]


def test_an_owner_that_is_adopted_while_it_is_looked_for_is_found_under_its_new_name():
    """An heir renames the folder."""
    process, _, _ = dead_process()
    names = process.filesystem.names(SPOOL)
    heir = Process(process.filesystem.process(), process.clock)
    heir.disk.adopt_orphans()

    class Stale(MemoryFilesystem):
        def names(self, path):
            return names if path == SPOOL else super().names(path)

    (owner,) = owners(Stale(process.filesystem._disk), SPOOL)

    assert owner.name.startswith("orphan-")
    assert owner.state == "living"
    assert owner.segments


def test_status_counts_what_waits():
    """Per signal and lane: batches and items that are not done, bytes, the oldest."""
    process = Process(slots=SLOTS)
    process.clock.advance(100)
    records = [process.append(str(n), 2) for n in range(10)]
    process.append("critical", 5, lane=Lane.CRITICAL)
    process.spool.ack(records[1])

    found = survey(process.filesystem, SPOOL, now=500.0)

    (holding,) = found.holdings
    critical, normal = holding.piles
    assert (critical.lane, critical.segments, critical.pending_records, critical.pending_items) == (
        Lane.CRITICAL,
        1,
        1,
        5,
    )
    assert (normal.segments, normal.records, normal.pending_records, normal.pending_items) == (2, 10, 9, 18)
    assert normal.bytes + critical.bytes == process.disk.folder.used_bytes
    assert normal.oldest == 0.0
    data = found.as_data()
    assert data["totals"]["pending_items"] == 23
    assert data["owners"][0]["piles"][0]["oldest_seconds"] == 500.0


def test_status_does_not_count_what_was_emptied():
    """Records below the floor are done."""
    process = Process(slots=SLOTS)
    for record in [process.append(str(n)) for n in range(3)]:
        process.spool.ack(record)

    found = survey(process.filesystem, SPOOL, now=0.0)

    assert found.total("pending_items") == 0
    assert found.total("segments") == 1


def test_status_reads_a_segment_at_a_time():
    """However many there are, no more than one file is open."""
    process, _, _ = dead_process(40)
    most = 0

    def progress(done, total):
        nonlocal most
        most = max(most, len(process.filesystem._disk.open))

    survey(process.filesystem, SPOOL, 0.0, progress)

    assert most == 0


def test_a_segment_that_is_emptied_while_it_is_read_is_read_again():
    """Its head tells."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n)) for n in range(3)]
    (path,) = process.segments()
    file = process.filesystem.process().open(path, writable=False)
    name = SegmentName.parse(os.path.basename(path))
    reads = 0

    class Interrupted:
        """The owner acknowledges everything in the middle of the first look."""

        def read_at(self, offset, size):
            nonlocal reads
            reads += 1
            if reads == 4:
                for record in records:
                    process.spool.ack(record)
            return file.read_at(offset, size)

        def size(self):
            return file.size()

    seen = glimpse(Interrupted(), name)

    assert list(seen.pending()) == []
    assert not seen.found.damaged


def test_a_sound_spool_has_no_damage():
    """Several segments, acks, two lanes."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n), 2) for n in range(20)]
    process.append("c", lane=Lane.CRITICAL)
    process.spool.ack(records[9])
    process.die()

    report = checked(process)

    assert report.findings == []
    assert (report.segments, report.records) == (4, 21)


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_every_flipped_byte_of_a_record_is_found_where_it_is(victim):
    """Its cost is what an heir would count."""
    size = dead_process()[2][victim].size
    for place in range(size):
        process, path, records = dead_process()
        record = records[victim]
        process.filesystem.flip(path, record.offset + place, 0x40)

        report = checked(process)

        heir = Process(process.filesystem.process(), process.clock, slots=SLOTS)
        heir.adopt()
        heir.drain()
        assert report.lost_items == heir.lost.get("damaged", 0), place
        (finding,) = report.damage
        in_trailer = place >= size - SLOT_SIZE
        assert finding.offset == record.offset + (size - SLOT_SIZE if in_trailer else 0), place


def test_every_flipped_byte_of_a_head_is_found():
    """And costs nothing, for the name and the first record say the same."""
    for offset in range(HEAD_SIZE):
        process, path, _ = dead_process()
        process.filesystem.flip(path, offset)

        assert found(checked(process)) == [(Kind.HEAD, 0, 0)], offset


def test_a_damaged_ack_is_found():
    """It may repeat a batch."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n)) for n in range(3)]
    process.spool.ack(records[1])
    (path,) = process.segments()
    process.die()
    slot = HEAD_SIZE
    assert process.filesystem.files[path].data[slot : slot + SLOT_SIZE] != b"\xff" * SLOT_SIZE
    process.filesystem.flip(path, slot + 3)

    assert found(checked(process)) == [(Kind.ACKS, slot, 0)]


def test_damage_in_a_batch_that_is_done_costs_nothing():
    """It was delivered."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n), 3) for n in range(3)]
    process.spool.ack(records[1])
    (path,) = process.segments()
    process.die()
    process.filesystem.flip(path, records[1].offset + 60)

    assert found(checked(process)) == [(Kind.PAYLOAD, records[1].offset, 0)]


def test_a_torn_tail_is_no_damage():
    """A kill in the middle of a write leaves one by rights."""
    process, path, records = dead_process()
    del process.filesystem.files[path].data[records[3].offset + 20 :]

    report = checked(process)

    assert found(report) == [(Kind.TORN, records[3].offset, 0)]
    assert report.damage == []


def test_a_file_of_no_length_is_no_damage():
    """Its maker died before it had a head."""
    process, path, _ = dead_process()
    del process.filesystem.files[path].data[:]

    report = checked(process)

    assert found(report) == [(Kind.TORN, 0, 0)]
    assert survey(process.filesystem, SPOOL, 0.0).total("unreadable_segments") == 0


def test_a_file_of_nonsense_is_damage():
    """Nobody knows what was in it."""
    process, path, _ = dead_process()
    process.filesystem.files[path].data[:] = b"nonsense" * 1000

    assert found(checked(process)) == [(Kind.NOTHING, 0, 0)]
    assert survey(process.filesystem, SPOOL, 0.0).total("unreadable_segments") == 1


def test_the_missing_end_of_a_sealed_segment_is_counted():
    """Its head says how far it went."""
    process, path, records = dead_process(9, 2)
    del process.filesystem.files[path].data[records[6].offset :]

    assert found(checked(process)) == [(Kind.RECORD, records[6].offset, 4)]


def test_nonsense_between_records_costs_nothing():
    """The reader finds its way again."""
    process, path, records = dead_process()
    process.filesystem.files[path].data[records[2].offset : records[2].offset] = b"\xf5SRG nonsense" * 100

    assert found(checked(process)) == [(Kind.RECORD, records[2].offset, 0)]


def test_a_missing_segment_is_counted():
    """By the distance between the sequences around it."""
    process, _, _ = dead_process(20, 2)
    del process.filesystem.files[process.segments()[1]]

    (finding,) = checked(process).damage

    assert (finding.kind, finding.items) == (Kind.MISSING, 16)


def test_an_unknown_version_is_named():
    """Of a head, or of a record."""
    for place, end in ((8, HEAD_SIZE - 4), (None, None)):
        process, path, records = dead_process()
        data = process.filesystem.files[path].data
        start = 0
        if place is None:
            start = records[1].offset
            place, end = start + 4, start + RECORD_FIXED + 1
        data[place] = BOUND + 1
        data[end : end + 4] = crc32(bytes(data[start:end])).to_bytes(4, "little")

        (finding,) = checked(process).damage

        assert finding.kind is Kind.VERSION
        assert "version 3" in finding.text


def test_a_damaged_dead_letter_is_found():
    """Its first line is no description, or its body is not what it should be."""
    process, _, _ = dead_process()
    filesystem = process.filesystem
    filesystem.make_folder(f"{SPOOL}/dead-letters")
    filesystem.create(f"{SPOOL}/dead-letters/000000000001000-1-b.letter").write_at(0, b"nonsense")

    assert [finding.kind for finding in checked(process).damage] == [Kind.LETTER]
    counted = survey(filesystem, SPOOL, 11.0)
    assert (counted.letters, counted.letter_bytes, counted.oldest_letter) == (1, 8, 1.0)


def test_a_write_under_way_beside_a_living_owner_is_no_damage():
    """What is found once, and not a second time, was a write."""
    process = Process(slots=SLOTS)
    process.append("a", 3)
    record = process.append("b", 3)
    (path,) = process.segments()
    data = process.filesystem.files[path].data
    looks = 0

    class Writing(MemoryFilesystem):
        def open(self, place, *, writable=True):
            nonlocal looks
            if place == path:
                looks += 1
                # The first look sees half of a payload's bytes.
                data[record.offset + 70] ^= 0x40 if looks <= 2 else 0
            return super().open(place, writable=writable)

    report = check(Writing(process.filesystem._disk), SPOOL)

    assert looks == 2
    assert report.damage == []


def test_damage_beside_a_living_owner_is_found():
    """It is found twice."""
    process = Process(slots=SLOTS)
    record = process.append("a", 3)
    (path,) = process.segments()
    process.filesystem.flip(path, record.offset + 70)

    assert found(check(process.filesystem.process(), SPOOL)) == [(Kind.PAYLOAD, record.offset, 3)]


def test_any_damage_costs_what_an_heir_counts():
    """Whatever is in the files: a check ends, a status too, and both tell what a tank will tell."""
    rng = random.Random(7)
    for _ in range(100):
        process, _, _ = dead_process(20, 2)
        for path in process.segments():
            data = process.filesystem.files[path].data
            for _ in range(rng.choice([0, 1, 3, 30])):
                data[rng.randrange(len(data))] = rng.randrange(256)
            if rng.random() < 0.3:
                del data[rng.randrange(len(data)) :]

        report = checked(process)
        waiting = survey(process.filesystem, SPOOL, 0.0)
        if any(finding.kind is Kind.VERSION for finding in report.findings):
            continue
        broken = sum(finding.items for finding in report.findings if finding.kind is Kind.PAYLOAD)

        heir = Process(process.filesystem.process(), process.clock, slots=SLOTS)
        heir.adopt()
        names = heir.drain()
        assert report.lost_items == heir.lost.get("damaged", 0)
        assert waiting.total("pending_items") - broken == 2 * len(names)


def test_the_folder_is_the_given_one_or_the_environments_or_a_default_one(tmp_path):
    """In this order."""
    filesystem = MemoryFilesystem()
    for name in ("aa", "bb"):
        filesystem.make_folder(f"/state/surgetank/{name}/owner-1-x")
    filesystem.make_folder("/state/surgetank/other")
    state = {"XDG_STATE_HOME": "/state"}

    assert spool_folders(filesystem, Environment({**state, "SURGETANK_SPOOL_DIR": "/b"}), "/a") == ["/a"]
    assert spool_folders(filesystem, Environment({**state, "SURGETANK_SPOOL_DIR": "/b"}), None) == ["/b"]
    assert spool_folders(filesystem, Environment(state), None) == ["/state/surgetank/aa", "/state/surgetank/bb"]
    assert spool_folders(filesystem, Environment({"XDG_STATE_HOME": "/none"}), None) == []


def test_status_tells_the_signals_apart():
    """Three spools share the folder."""
    process = Process(signal=Signal.LOGS, segment_bytes=64 * KIB)
    process.append("a", 4)

    found = survey(process.filesystem, SPOOL, 0.0)

    assert found.total("pending_items", signal=Signal.LOGS) == 4
    assert found.total("pending_items", signal=Signal.SPANS) == 0
    assert found.total("pending_items", state="living") == 4
