"""A clock that was wrong, or is put right, expires nothing; what is old by any clock still goes."""

import pytest

from fakes.spools import Process
from surgetank.spool.spool import SEGMENT_MAX_AGE
from surgetank.spool.survey import survey
from surgetank.testing import ManualClock

DAY = 86_400.0
YEAR_2026 = 1_780_000_000.0
MAX_AGE = 2 * DAY


def boot(start, **changes):
    """Return a process on a machine whose clock says this at boot."""
    return Process(clock=ManualClock(start), max_age=MAX_AGE, **changes)


def next_boot(process, start, *, uptime=30.0):
    """Return a process after the machine was started again."""
    clock = ManualClock(start)
    clock.advance(uptime)
    return Process(process.die(), clock, max_age=MAX_AGE)


def tended(process, seconds=0.0):
    """Let time pass as the process sees it, and have it tend its spool."""
    process.clock.advance(seconds)
    process.spool.expire(process.clock.now())
    process.note()
    return process


def test_what_a_clock_of_1970_has_dated_is_not_old():
    """The machine has no battery: the process ended before the clock was put right."""
    process = boot(0.0)
    for n in range(300):
        process.spill(str(n))

    heir = next_boot(process, YEAR_2026)
    heir.adopt()
    tended(heir)

    assert heir.lost == {}
    assert len(heir.drain()) == 300


def test_what_a_clock_of_1970_has_dated_ages_from_its_adoption_on():
    """By whoever adopts it next, too."""
    process = boot(0.0)
    process.spill("a", 3)
    heir = next_boot(process, YEAR_2026)
    heir.adopt()
    last = next_boot(heir, YEAR_2026 + MAX_AGE + SEGMENT_MAX_AGE + 100)
    last.adopt()

    assert tended(last).lost == {"expired": 3}


@pytest.mark.parametrize("slow", [30 * DAY, 600 * DAY])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_clock_that_is_put_right_in_a_life_makes_nothing_old(slow, is_killed):
    """The process sees it, and dates what it has stored anew: whoever adopts it goes by that."""
    process = boot(YEAR_2026 - slow)
    for n in range(300):
        process.spill(str(n))
    tended(process, 5)
    process.clock.set(YEAR_2026)
    if is_killed:
        tended(process, 1)
    else:
        process.disk.close()
    process.note()
    assert process.lost == {}

    heir = next_boot(process, YEAR_2026 + 60)
    heir.adopt()

    assert tended(heir).lost == {}
    assert len(heir.drain()) == 300


def test_what_was_adopted_under_a_wrong_clock_is_dated_anew_too():
    """The heir lives when it is put right."""
    process = boot(YEAR_2026 - 30 * DAY)
    process.spill("a")
    heir = next_boot(process, YEAR_2026 - 30 * DAY + 60)
    heir.adopt()
    tended(heir, 10)
    heir.clock.set(YEAR_2026)
    assert tended(heir, 1).lost == {}

    last = next_boot(heir, YEAR_2026 + 60)
    last.adopt()
    assert tended(last).lost == {}
    assert last.drain() == ["a"]


def test_what_a_clock_has_dated_in_the_future_is_not_kept_for_ever():
    """From its adoption on it ages."""
    process = boot(YEAR_2026 + 1000 * DAY)
    process.spill("a", 3)
    heir = next_boot(process, YEAR_2026)
    heir.adopt()

    assert tended(heir, MAX_AGE).lost == {}
    assert tended(heir, SEGMENT_MAX_AGE + 1).lost == {"expired": 3}


def test_a_segment_is_rolled_by_the_monotonic_clock_too():
    """Set back, the system's clock would keep one open for days, and what is fresh in it would go with what is old."""
    process = boot(YEAR_2026)
    process.spill("old", 2)
    process.clock.set(YEAR_2026 - 30 * DAY)
    process.clock.advance(MAX_AGE + SEGMENT_MAX_AGE - 10)
    process.spill("fresh")

    tended(process, 20)

    assert process.lost == {"expired": 2}
    assert process.drain() == ["fresh"]


def test_a_machine_that_slept_does_not_expire_what_is_fresh():
    """The monotonic clock stood still, and the segment that was open has what was sealed before and after."""
    process = boot(YEAR_2026)
    process.spill("before")
    process.clock.set(YEAR_2026 + 5 * DAY)
    process.spill("after")
    tended(process, 1)

    heir = next_boot(process, process.clock.now())
    heir.adopt()

    assert tended(heir).lost == {}
    assert heir.drain() == ["before", "after"]


def test_what_is_old_by_a_right_clock_expires():
    """As ever: in a life, and after it."""
    process = boot(YEAR_2026)
    process.spill("a", 3)
    heir = next_boot(process, YEAR_2026 + MAX_AGE + SEGMENT_MAX_AGE + 1)
    heir.adopt()
    assert tended(heir).lost == {"expired": 3}


def test_a_backlog_is_not_said_to_be_older_than_the_software():
    """Neither by the process, nor by who looks at its folder."""
    process = boot(0.0)
    process.spill("a")
    tended(process, 10)
    process.clock.set(YEAR_2026)
    tended(process, 10)

    assert process.clock.now() - process.spool.oldest_available() == pytest.approx(20, abs=1)
    found = survey(process.filesystem, "/spool", process.clock.now()).as_data()
    assert found["owners"][0]["piles"][0]["oldest_seconds"] == pytest.approx(20, abs=1)
