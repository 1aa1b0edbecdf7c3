"""Defects of the spool that its tools brought to light; each test says what should be so."""

import pytest

from fakes.spools import Process
from surgetank.spool.record import read_head

SLOTS = 8


def heir_of(process):
    heir = Process(process.filesystem.process(), process.clock, slots=SLOTS)
    heir.adopt()
    return heir


@pytest.mark.xfail(strict=True, reason="an heir that seals a segment notes the records that it appended itself: none")
def test_the_head_of_a_segment_that_an_heir_sealed_says_how_many_records_there_are():
    """As the format says: records above the floor."""
    process = Process(slots=SLOTS)
    for n in range(3):
        process.spill(str(n), 2)
    process.die()

    heir = heir_of(process)

    (path,) = heir.segments()
    head = read_head(bytes(heir.filesystem.files[path].data))
    assert head.is_sealed
    assert head.records == 3


@pytest.mark.xfail(
    strict=True, reason="the head is guessed from the second record, and nobody asks where the segment began"
)
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
