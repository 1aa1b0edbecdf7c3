"""Defects of the spool that are known and not mended yet; each test says what should be so."""

import pytest

from fakes.spools import Process

SLOTS = 8


def heir_of(process):
    heir = Process(process.filesystem.process(), process.clock, slots=SLOTS)
    heir.adopt()
    return heir


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
