"""Each kind of damage by name: what it costs, and that it is counted."""

import pytest

from fakes.spools import Process
from surgetank.spool import record as bytes_of
from surgetank.spool.record import HEAD_SIZE, RECORD_FIXED, SLOT_SIZE

SLOTS = 8
RECORDS_AT = HEAD_SIZE + SLOTS * SLOT_SIZE


def dead_process(count=4, items=3, **settings):
    """Return a process that died with one segment of records in it, and the segment's path."""
    process = Process(slots=SLOTS, **settings)
    records = [process.spill(str(n), items) for n in range(count)]
    (path,) = process.segments()
    process.die()
    return process, path, records


def heir_of(process, **settings):
    """Return a new process that has adopted what the dead one left."""
    heir = Process(process.filesystem, process.clock, slots=SLOTS, **settings)
    heir.adopt()
    return heir


def test_a_torn_tail_costs_the_torn_record():
    """The process was killed in the middle of an append, so nothing had been promised."""
    process, path, records = dead_process()
    del process.filesystem.files[path].data[records[3].offset + 20 :]

    heir = heir_of(process)

    assert heir.drain() == ["0", "1", "2"]
    assert heir.recovered == 9
    assert heir.lost == {}
    assert heir.segments() == []


@pytest.mark.parametrize("victim", [0, 1, 3])
def test_a_flipped_byte_in_a_record_costs_that_record(victim):
    """In whichever byte of header or payload it is; the last record, which nothing follows, is told by its trailer."""
    size = dead_process()[2][victim].size
    for offset in range(size):
        process, path, records = dead_process()
        process.filesystem.flip(path, records[victim].offset + offset, 0x40)

        heir = heir_of(process)

        # The trailer only matters when the header is damaged.
        lost = set() if offset >= size - SLOT_SIZE else {str(victim)}
        assert heir.drain() == [each for each in "0123" if each not in lost], offset
        assert heir.recovered == 12, offset
        assert heir.lost == ({"damaged": 3} if lost else {}), offset


def test_a_flipped_byte_in_the_head_costs_nothing():
    """The name and the first record say what it said."""
    for offset in range(HEAD_SIZE):
        process, path, _ = dead_process()
        process.filesystem.flip(path, offset)

        heir = heir_of(process)

        assert heir.drain() == ["0", "1", "2", "3"], offset
        assert heir.lost == {}, offset


def test_a_flipped_byte_in_an_ack_repeats_that_record():
    """Twice is better than never."""
    for offset in range(SLOT_SIZE):
        process = Process(slots=SLOTS)
        records = [process.append(str(n)) for n in range(3)]
        process.spool.ack(records[1])
        (path,) = process.segments()
        process.die()
        process.filesystem.flip(path, HEAD_SIZE + offset)

        assert heir_of(process).drain() == ["0", "1", "2"]


def test_a_sealed_segments_damage_is_found_when_it_is_read():
    """And counted then: recovered, and lost."""
    process = Process(slots=SLOTS)
    records = [process.spill(str(n), 2) for n in range(9)]
    path = process.segments()[0]
    process.die()
    process.filesystem.flip(path, records[5].offset + 8)

    heir = heir_of(process)

    assert heir.recovered == 18
    assert heir.drain() == [str(n) for n in range(9) if n != 5]
    assert heir.lost == {"damaged": 2}


def test_the_end_of_a_sealed_segment_is_missed():
    """Its head says how far it went."""
    process = Process(slots=SLOTS)
    records = [process.spill(str(n), 2) for n in range(9)]
    path = process.segments()[0]
    process.die()
    del process.filesystem.files[path].data[records[6].offset :]

    heir = heir_of(process)

    assert heir.drain() == ["0", "1", "2", "3", "4", "5", "8"]
    assert heir.lost == {"damaged": 4}


def test_a_file_of_no_length_is_removed():
    """Its maker died before it had a head."""
    process, path, _ = dead_process()
    del process.filesystem.files[path].data[:]

    heir = heir_of(process)

    assert heir.drain() == []
    assert heir.filesystem.names("/spool") == []


def test_an_unknown_version_is_refused_and_left_alone():
    """It is not guessed at, and not lost either."""
    process, path, _ = dead_process()
    data = process.filesystem.files[path].data
    data[8] = 2
    data[HEAD_SIZE - 4 : HEAD_SIZE] = bytes_of._CRC.pack(bytes_of.crc32(bytes(data[: HEAD_SIZE - 4])))
    before = bytes(data)

    heir = heir_of(process)

    assert heir.recovered == 0
    assert heir.drain() == []
    assert bytes(heir.filesystem.files[heir.segments()[0]].data) == before


def test_a_record_of_an_unknown_version_is_left_alone():
    """The whole segment waits for somebody who knows."""
    process, path, records = dead_process()
    data = process.filesystem.files[path].data
    start = records[1].offset
    data[start + 4] = 9
    end = start + RECORD_FIXED + 1
    data[end : end + 4] = bytes_of._CRC.pack(bytes_of.crc32(bytes(data[start:end])))

    heir = heir_of(process)

    assert heir.drain() == []
    assert heir.segments()


def test_a_missing_segment_is_counted_once():
    """By the distance between the sequences around it."""
    process = Process(slots=SLOTS)
    for n in range(20):
        process.spill(str(n), 2)
    missing = process.segments()[1]
    process.die()
    del process.filesystem.files[missing]

    heir = heir_of(process)

    assert heir.recovered == 40
    assert heir.lost == {"damaged": 16}
    second = heir_of(heir) if heir.die() else None
    assert second.recovered == 24
    assert second.drain() == [str(n) for n in [*range(8), *range(16, 20)]]
    assert second.lost == {}


def test_nonsense_between_records_costs_nothing():
    """The reader finds the next record again."""
    process, path, records = dead_process()
    data = process.filesystem.files[path].data
    data[records[2].offset : records[2].offset] = b"\xf5SRG nonsense" * 100

    heir = heir_of(process)

    assert heir.drain() == ["0", "1", "2", "3"]
    assert heir.lost == {}


def test_damage_is_counted_once_over_several_heirs():
    """An heir that dies has told already."""
    process, path, records = dead_process()
    process.filesystem.flip(path, records[1].offset)
    heir = heir_of(process)
    assert heir.lost == {"damaged": 3}
    heir.die()

    second = heir_of(heir)

    assert second.recovered == 9
    assert second.lost == {}
    assert second.drain() == ["0", "2", "3"]


@pytest.mark.parametrize("torn", [20, 80, 150])
def test_damage_before_a_torn_tail_is_counted(torn):
    """The last record that was promised is damaged, and after it the process died in an append."""
    for offset in range(60):
        process, path, records = dead_process()
        data = process.filesystem.files[path].data
        del data[records[3].offset + torn :]
        process.filesystem.flip(path, records[2].offset + offset)

        heir = heir_of(process)

        assert heir.drain() == ["0", "1"], offset
        assert heir.recovered == 9, offset
        assert heir.lost == {"damaged": 3}, offset


def test_a_damaged_head_of_a_segment_that_was_emptied_costs_nothing():
    """There was nothing in it, and the distance to the next one is no loss."""
    for offset in range(HEAD_SIZE):
        process = Process(slots=SLOTS)
        records = [process.append(str(n)) for n in range(24)]
        for record in records[8:16]:
            process.spool.ack(record)
        middle = process.segments()[1]
        process.die()
        process.filesystem.flip(middle, offset)

        heir = heir_of(process)
        assert (heir.recovered, heir.lost) == (16, {}), offset
        heir.die()
        second = heir_of(heir)

        assert (second.recovered, second.lost) == (16, {}), offset
        assert second.drain() == [str(n) for n in [*range(8), *range(16, 24)]]


def test_a_segment_of_an_unknown_version_is_not_missing():
    """It is there, and nobody has lost it."""
    process = Process(slots=SLOTS)
    for n in range(24):
        process.spill(str(n))
    path = process.segments()[1]
    process.die()
    data = process.filesystem.files[path].data
    before = bytes(data)
    data[8] = 2
    data[HEAD_SIZE - 4 : HEAD_SIZE] = bytes_of._CRC.pack(bytes_of.crc32(bytes(data[: HEAD_SIZE - 4])))

    heir = heir_of(process)
    assert (heir.recovered, heir.lost) == (16, {})
    heir.die()
    process.filesystem.files[heir.segments()[1]].data[:] = before
    second = heir_of(heir)

    assert (second.recovered, second.lost) == (24, {})
    assert second.drain() == [str(n) for n in range(24)]


def test_damage_beside_what_is_done_is_counted_once():
    """The mark of what is missing must not take the place of the ack of what is done."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n), 3) for n in range(5)]
    process.spool.ack(records[1])
    (path,) = process.segments()
    process.die()
    for each in (1, 2):
        process.filesystem.flip(path, records[each].offset)

    heir = heir_of(process)
    assert (heir.recovered, heir.lost) == (12, {"damaged": 3})
    heir.die()
    second = heir_of(heir)

    assert (second.recovered, second.lost) == (9, {})
    assert second.drain() == ["0", "3", "4"]


def test_what_was_counted_as_damaged_and_can_be_read_again_is_not_counted_again():
    """A disk may give back later what it could not read before."""
    process, path, records = dead_process(5)
    for each in (1, 2):
        process.filesystem.flip(path, records[each].offset)
    heir = heir_of(process)
    assert heir.lost == {"damaged": 6}
    heir.die()
    for each in (1, 2):
        process.filesystem.flip(heir.segments()[0], records[each].offset)

    second = heir_of(heir)

    assert second.recovered == 9
    assert second.drain() == ["0", "3", "4"]
    assert second.segments() == []


def test_an_ack_whose_record_is_not_there_counts_for_nothing():
    """Without power the disk may have taken the one and not the other."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n), 2) for n in range(4)]
    process.spool.ack(records[3])
    (path,) = process.segments()
    process.die()
    del process.filesystem.files[path].data[records[1].offset :]

    heir = heir_of(process)

    # What was before it is missing, as far as is known.
    assert (heir.recovered, heir.lost) == (6, {"damaged": 4})
    assert heir.drain() == ["0"]
    assert heir.spool.available_items() == 0


def test_a_first_record_that_is_damaged_with_its_head_is_counted():
    """The segment before it says with which sequence it began."""
    process = Process(slots=SLOTS)
    records = [process.spill(str(n), 2) for n in range(12)]
    second = process.segments()[1]
    process.die()
    process.filesystem.flip(second, 0)
    process.filesystem.flip(second, records[8].offset)

    heir = heir_of(process)

    assert sorted(heir.drain(), key=int) == [str(n) for n in range(12) if n != 8]
    assert heir.recovered == 24
    assert heir.lost == {"damaged": 2}


def test_a_damaged_head_of_a_segment_that_was_emptied_and_filled_again_costs_nothing():
    """That its first record is not the first that was ever in it is no loss."""
    for offset in range(HEAD_SIZE):
        process = Process(slots=SLOTS)
        records = [process.append(str(n), 2) for n in range(11)]
        for record in records[8:11]:
            process.spool.ack(record)
        records += [process.append(str(n), 2) for n in range(11, 14)]
        process.spool.ack(records[12])
        second = process.segments()[1]
        process.die()
        process.filesystem.flip(second, offset)

        heir = heir_of(process)
        assert (heir.recovered, heir.lost) == (20, {}), offset
        heir.die()
        again = heir_of(heir)

        assert (again.recovered, again.lost) == (20, {}), offset
        # When it began is guessed as well, and with that its turn.
        assert sorted(again.drain(), key=int) == [*map(str, range(8)), "11", "13"]
