"""Every call that changes something on disk is a point where the process is killed, or the power fails; then the next ones look what is left.

The same life is lived again and again, up to a different point each time. What was promised by then is known
from the journal; what is delivered afterwards must be that, and nothing that was acknowledged.
"""

import random

import pytest

from fakes.lives import Journal, Life, live
from fakes.spools import numbered_names
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import MemoryFilesystem, Stopped

START = 1_000_000.0


@pytest.fixture(autouse=True)
def _same_names_in_every_run(monkeypatch):
    monkeypatch.setattr("surgetank.spool.folder.os.urandom", numbered_names())


def lived(stop_at, durability="os"):
    """Live until the given call and return the disk, the time, the journal, and whether the end was reached."""
    filesystem, clock, journal = MemoryFilesystem(), ManualClock(START), Journal()
    filesystem.stop_at = stop_at
    try:
        live(filesystem, clock, journal, durability=durability)
    except Stopped:
        return filesystem, clock, journal, False
    return filesystem, clock, journal, True


def points(durability="os"):
    """Return how many points a whole life has."""
    filesystem, _, _, has_ended = lived(None, durability)
    assert has_ended
    return len(filesystem.calls)


def succeed(filesystem, clock, journal, **given):
    """Adopt what is there and deliver all of it."""
    heir = Life(filesystem, clock, journal, **given)
    heir.process.adopt()
    heir.check_bytes()
    heir.deliver()
    return heir


def succeed_until(calls, filesystem, clock, journal, **given):
    """Adopt and deliver, but be stopped at so many calls from now; returns whether it came to that."""
    filesystem.stop_at = len(filesystem.calls) + calls
    try:
        # An heir stores something of its own too.
        heir = Life(filesystem, clock, journal, **given)
        heir.process.adopt()
        heir.append(f"own-{len(filesystem.calls)}", 2, is_spilled=True)
        heir.process.spool.sync()
        heir.deliver()
    except Stopped:
        return True
    return False


def check_nothing_is_left(filesystem, clock, heir):
    """After two more looks: the second one, a minute later, sweeps up the folders that somebody had only begun to make."""
    heir.process.disk.close()
    last = Life(filesystem, clock, Journal())
    last.process.adopt()
    clock.advance(61.0)
    last.process.adopt()
    last.process.disk.close()
    if "spool" in filesystem.names("/"):
        assert filesystem.names("/spool") == []


POINTS = points()
SYNCED_POINTS = points("disk")


def test_a_life_has_every_kind_of_point():
    """Or the matrix would say less than it seems to."""
    filesystem = lived(None, "disk")[0]

    assert set(filesystem.calls) == {
        "make_folder",
        "create",
        "rename",
        "write",
        "truncate",
        "sync",
        "sync_folder",
        "unlink",
        "remove_folder",
    }
    assert POINTS > 120
    assert SYNCED_POINTS > POINTS


@pytest.mark.parametrize("block", range(8))
def test_killed_at_any_point_it_keeps_what_it_promised(block):
    """Everything that `append` returned a record for is delivered, nothing that was acknowledged is sent again, nothing counts as lost."""
    for stop_at in range(1 + block, POINTS + 1, 8):
        filesystem, clock, journal, _ = lived(stop_at)
        promised = journal.promised()
        filesystem.die()

        heir = succeed(filesystem, clock, journal)

        journal.check_delivered(promised)
        journal.check_cuts()
        heir.check_books()
        assert heir.process.lost == {}, stop_at
        assert heir.process.disk.folder.used_bytes == 0, stop_at
        check_nothing_is_left(filesystem, clock, heir)


@pytest.mark.parametrize("block", range(8))
def test_killed_three_times_in_a_row_it_keeps_what_it_promised(block):
    """The heir is killed in the middle of its recovery, and the heir's heir too."""
    rng = random.Random(block)
    for stop_at in range(1 + block, POINTS + 1, 8):
        filesystem, clock, journal, _ = lived(stop_at)
        for _ in range(2):
            filesystem.die()
            # Most of what can go wrong in a recovery goes wrong at its beginning.
            succeed_until(rng.choice((1, 2, 3, 4, 5, 6, 8, 11, 16, 25, 40)), filesystem, clock, journal)
        promised = journal.promised()
        filesystem.die()

        heir = succeed(filesystem, clock, journal)

        journal.check_delivered(promised)
        journal.check_cuts()
        heir.check_books()
        assert heir.process.lost == {}, stop_at
        check_nothing_is_left(filesystem, clock, heir)


@pytest.mark.parametrize("stop_at", [POINTS // 3, POINTS // 2, 2 * POINTS // 3])
def test_killed_at_any_point_of_a_recovery_it_keeps_what_it_promised(stop_at):
    """Each call of the heir, and for each of these some of the heir's heir."""
    calls, was_stopped = 0, True
    while was_stopped:
        calls += 1
        for second in (1, 2, 3, 5, 8, 13):
            filesystem, clock, journal, _ = lived(stop_at)
            filesystem.die()
            was_stopped = succeed_until(calls, filesystem, clock, journal)
            filesystem.die()
            succeed_until(second, filesystem, clock, journal)
            promised = journal.promised()
            filesystem.die()

            heir = succeed(filesystem, clock, journal)

            journal.check_delivered(promised)
            journal.check_cuts()
            heir.check_books()
            assert heir.process.lost == {}, (calls, second)
    assert calls > 10


@pytest.mark.parametrize("block", range(8))
def test_without_power_it_keeps_what_was_durable(block):
    """With durability `disk`: what a sync has reached is delivered, whatever becomes of the rest; what was acknowledged may be repeated."""
    for stop_at in range(1 + block, SYNCED_POINTS + 1, 8):
        for seed in range(3):
            filesystem, clock, journal, _ = lived(stop_at, "disk")
            durable = journal.durable()
            before = journal.sent.copy()
            filesystem.lose_power(random.Random(seed))

            heir = succeed(filesystem, clock, journal, may_repeat=True)

            assert sorted(name for name in durable if journal.sent[name] == before[name]) == [], (stop_at, seed)
            heir.check_books()
            check_nothing_is_left(filesystem, clock, heir)


@pytest.mark.parametrize("block", range(8))
def test_without_power_three_times_in_a_row_it_keeps_what_was_durable(block):
    """In the middle of recoveries as well, mixed with kills."""
    rng = random.Random(block)
    for stop_at in range(1 + block, SYNCED_POINTS + 1, 8):
        filesystem, clock, journal, _ = lived(stop_at, "disk")
        for n in range(2):
            if rng.random() < 0.3 or n == 0:
                durable = journal.durable()
                filesystem.lose_power(rng)
                # What was not durable then may be gone.
                for name in set(journal.records) - durable:
                    journal.endangered.add(name)
            else:
                filesystem.die()
            calls = rng.choice((1, 2, 3, 4, 5, 6, 8, 11, 16, 25, 40))
            succeed_until(calls, filesystem, clock, journal, may_repeat=True, durability="disk")
        durable = journal.durable()
        filesystem.lose_power(rng)

        heir = succeed(filesystem, clock, journal, may_repeat=True)

        journal.check_delivered(durable)
        heir.check_books()


@pytest.mark.parametrize("seed", range(20))
def test_without_power_at_the_end_it_keeps_everything_that_was_synced(seed):
    """An orderly end syncs what it stores."""
    filesystem, clock, journal, has_ended = lived(None, "disk")
    assert has_ended
    promised = journal.promised()
    assert promised <= journal.durable()
    filesystem.lose_power(random.Random(seed))

    succeed(filesystem, clock, journal, may_repeat=True)

    journal.check_delivered(promised)
