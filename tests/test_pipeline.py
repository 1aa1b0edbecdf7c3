"""One signal's pipeline, stepped: limits, strategies, lanes, flush and shutdown."""

import pytest

from fakes.pipelines import Rig
from fakes.requests import span, span_numbers
from surgetank.model import BreakerState
from surgetank.otlp.spans import snapshot
from surgetank.testing import delivered, hold, permanent, retry, silence
from surgetank.testing.filesystem import MemoryFilesystem


def test_what_is_offered_is_delivered():
    """The plain case, all the way."""
    rig = Rig()
    rig.offer(*range(1000))

    assert rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == list(range(1000))
    stats = rig.stats
    assert (stats.offered, stats.delivered, stats.queued, stats.unaccounted) == (1000, 1000, 0, 0)
    assert stats.memory_bytes == 0
    assert stats.memory_peak_bytes > 0


def test_batches_are_sealed_at_the_batch_size():
    """512 by default, the rest when its time has come."""
    rig = Rig()
    rig.offer(*range(1200))

    rig.pipeline.force_flush(5.0)

    assert [batch.items for batch in rig.sender.sent] == [512, 512, 176]


def test_a_small_batch_waits_for_the_schedule_delay():
    """Nothing is due before, everything after."""
    rig = Rig(schedule_delay=2.0)
    rig.offer(1, 2, 3)
    rig.pipeline.run_once()
    rig.clock.advance(1.9)
    rig.pipeline.run_once()
    assert not rig.sender.sent

    rig.clock.advance(0.2)
    rig.pipeline.run_once()

    assert rig.sent_numbers() == [1, 2, 3]


def test_waiting_objects_become_bytes_at_once():
    """Long before the batch is due, the objects are gone and a tenth of their size is left."""
    rig = Rig()
    rig.offer(*range(64))
    as_objects = rig.stats.memory_bytes

    for _ in range(64):
        rig.pipeline.seal_step()

    assert rig.stats.queued == 64
    assert rig.stats.memory_bytes < as_objects / 3


def test_critical_items_travel_in_batches_of_their_own_on_the_schedule_of_all():
    """A span with status ERROR makes no request of its own: errors come in dozens."""
    rig = Rig()
    rig.offer(1, 2)
    for number in range(3, 28):
        rig.offer(number, is_error=True)
        rig.pipeline.run_once()
        rig.clock.advance(0.02)
    assert rig.sender.sent == []

    rig.clock.advance(0.5)
    rig.seal()
    rig.deliver()

    assert [len(span_numbers(batch)) for batch in rig.sender.sent] == [25, 2]


@pytest.mark.parametrize("is_killed", [True, False])
def test_critical_items_are_stored_before_they_are_sealed(is_killed):
    """At once, and again every tenth of a second; a kill costs what came since, and without one nothing is sent twice."""
    rig = Rig(filesystem=MemoryFilesystem())
    for number in range(30):
        rig.offer(number, is_error=True)
        for _ in range(3):
            rig.pipeline.seal_step()
        rig.clock.advance(0.02)
    assert rig.stats.sealed == 0
    if not is_killed:
        rig.seal()
        rig.deliver()
        assert sorted(rig.sent_numbers()) == list(range(30))
        assert (rig.stats.spooled, rig.stats.unaccounted) == (0, 0)

    rig.filesystem.die()
    heir = Rig(filesystem=rig.filesystem, clock=rig.clock)
    heir.tend()
    heir.deliver()

    assert sorted(heir.sent_numbers()) == list(range(heir.stats.recovered))
    assert heir.stats.recovered >= 25 if is_killed else heir.stats.recovered == 0


def test_a_users_predicate_decides_what_is_critical_and_may_fail():
    """Its exception costs the item its lane, nothing else."""
    from surgetank.pipeline import _guarded

    def broken(item):
        raise RuntimeError("defect in the predicate")

    assert _guarded(lambda item: item == 1)(1)
    assert not _guarded(broken)(1)


def test_a_full_buffer_drops_the_oldest():
    """`oldest`: after 300 offers to a buffer of 100, about the last hundred are left."""
    rig = Rig(max_size=100, drop_strategy="oldest")
    for start in range(0, 300, 10):
        rig.offer(*range(start, start + 10))
        rig.seal()

    assert rig.pipeline.force_flush(5.0)

    arrived = rig.sent_numbers()
    assert arrived == list(range(300 - len(arrived), 300))
    assert len(arrived) >= 60
    assert dict(rig.stats.dropped) == {"queue_full": 300 - len(arrived)}


def test_a_full_intake_drops_the_oldest_object():
    """Before anything is sealed, exactly the excess goes."""
    rig = Rig(max_size=100, drop_strategy="oldest")
    rig.offer(*range(130))

    rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == list(range(30, 130))
    assert dict(rig.stats.dropped) == {"queue_full": 30}


def test_a_full_buffer_refuses_the_newest():
    """`newest`: the first hundred stay."""
    rig = Rig(max_size=100, drop_strategy="newest")
    rig.offer(*range(130))

    rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == list(range(100))
    assert dict(rig.stats.dropped) == {"queue_full": 30}


def test_in_an_outage_batches_are_fine_grained_so_that_little_is_lost_at_once():
    """With the outlet closed off, an eviction gives up a sixteenth of the buffer at most."""
    rig = Rig(otherwise=hold(), max_size=2048)
    rig.offer(0)
    rig.seal()
    rig.pipeline.deliver_step()
    for start in range(1, 10_000, 100):
        rig.offer(*range(start, start + 100))
        while rig.pipeline.seal_step() == 0:
            pass

    assert rig.stats.queued >= 2048 - 2 * 128


def test_the_critical_lane_gives_way_last():
    """Normal items that come later do not displace critical ones that wait."""
    rig = Rig(max_size=50)
    rig.offer(*range(20), is_error=True)
    rig.seal()
    rig.offer(*range(100, 300))

    rig.pipeline.force_flush(5.0)

    assert set(range(20)) <= set(rig.sent_numbers())


def test_a_critical_newcomer_displaces_normal_items_first():
    """And, when only critical ones are left, the oldest of those."""
    rig = Rig(max_size=50)
    rig.offer(*range(50))
    rig.offer(*range(100, 160), is_error=True)

    rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == list(range(110, 160))


def test_bytes_are_bounded_over_all_copies():
    """A thousand spans of 10 kB never hold more than the limit of 1 MiB, in any stage."""
    rig = Rig(otherwise=silence(), max_size=10_000, max_memory_mb=1)
    peak = 0
    for number in range(1000):
        rig.offer(number, size=10_000)
        if number % 7 == 0:
            rig.pipeline.run_once()
        peak = max(peak, rig.stats.memory_bytes)

    assert peak == rig.stats.memory_peak_bytes or peak <= rig.stats.memory_peak_bytes
    assert rig.stats.memory_peak_bytes <= 1024 * 1024
    assert rig.stats.dropped["memory_limit"] > 0
    assert rig.stats.unaccounted == 0


def test_an_item_larger_than_the_whole_budget_is_dropped_at_once():
    """It gets its own reason and displaces nothing."""
    rig = Rig(max_memory_mb=1)
    rig.offer(1, 2, 3)

    rig.offer(4, size=2_000_000)

    assert dict(rig.stats.dropped) == {"too_large": 1}
    assert rig.stats.queued == 3


def test_a_large_item_that_fits_is_delivered():
    """A 300 kB attribute in a budget of 1 MiB."""
    rig = Rig(max_memory_mb=1)
    rig.offer(1, size=300_000)
    rig.offer(2)

    assert rig.pipeline.force_flush(5.0)

    assert sorted(rig.sent_numbers()) == [1, 2]
    assert rig.stats.memory_peak_bytes <= 1024 * 1024


def test_an_item_that_cannot_be_encoded_is_dropped_with_its_reason_and_costs_no_neighbour():
    """Something that is no span at all."""
    rig = Rig()
    rig.offer(1)
    rig.pipeline.offer(object())
    rig.offer(2)

    assert not rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == [1, 2]
    assert dict(rig.stats.dropped) == {"unencodable": 1}
    assert rig.stats.memory_bytes == 0


def test_force_flush_is_false_at_its_deadline_when_the_endpoint_is_silent():
    """It takes the time it was given and no more."""
    rig = Rig(otherwise=silence())
    rig.offer(*range(100))
    began = rig.clock.monotonic()

    assert not rig.pipeline.force_flush(1.0)

    assert rig.clock.monotonic() - began <= 1.0
    assert rig.stats.queued == 100


def test_force_flush_does_not_wait_for_what_cannot_come_in_time():
    """A receiver that asks for a minute makes a flush of five seconds pointless."""
    rig = Rig(otherwise=retry(after=60.0))
    rig.offer(1)
    began = rig.clock.monotonic()

    assert not rig.pipeline.force_flush(5.0)

    assert rig.clock.monotonic() - began < 0.1


def test_force_flush_is_false_when_something_was_rejected():
    """True is a promise that everything arrived."""
    assert not _flushed(Rig([delivered(rejected=1)]))
    assert not _flushed(Rig([permanent(), permanent(), delivered()]))
    assert _flushed(Rig([retry(), silence(), delivered()]))


def _flushed(rig):
    rig.offer(1, 2)
    return rig.pipeline.force_flush(5.0)


def test_force_flush_knocks_even_while_the_breaker_is_open():
    """The application that asks for a flush gets an attempt at once."""
    rig = Rig([hold()])
    rig.offer(1)
    rig.seal()
    rig.pipeline.deliver_step()
    assert rig.stats.breaker is BreakerState.OPEN

    assert rig.pipeline.force_flush(0.5)


def test_items_offered_after_a_flush_began_do_not_prolong_it():
    """A flush watches what was there when it was asked."""
    rig = Rig(otherwise=lambda batch: (rig.offer(span_numbers(batch)[0] + 1), delivered())[1])
    rig.offer(0)

    assert rig.pipeline.force_flush(5.0)

    assert rig.stats.queued == 1


def test_shutdown_delivers_what_it_can_and_refuses_the_rest():
    """After it, offers are counted and dropped."""
    rig = Rig()
    rig.offer(*range(100))

    assert rig.pipeline.shutdown(5.0)
    rig.offer(100)

    assert rig.stats.delivered == 100
    assert dict(rig.stats.dropped) == {"already_shutdown": 1}
    assert rig.sender.is_closed


def test_shutdown_gives_up_at_its_deadline_and_counts():
    """A silent endpoint costs the deadline, and every item has its reason."""
    rig = Rig(otherwise=silence())
    rig.offer(*range(100))
    began = rig.clock.monotonic()

    assert not rig.pipeline.shutdown(5.0)

    assert rig.clock.monotonic() - began <= 5.0
    stats = rig.stats
    assert (dict(stats.dropped), stats.queued, stats.memory_bytes, stats.unaccounted) == ({"shutdown": 100}, 0, 0, 0)


def test_shutdown_keeps_knocking_so_that_a_restarting_collector_gets_everything():
    """An endpoint that is back within the deadline receives all."""
    rig = Rig([silence()] * 6)
    rig.offer(*range(100))

    assert rig.pipeline.shutdown(5.0)

    assert rig.stats.delivered == 100


def test_a_second_shutdown_does_nothing():
    """It is idempotent and still clean."""
    rig = Rig()
    assert rig.pipeline.shutdown(1.0)

    assert rig.pipeline.shutdown(1.0)


def test_more_points_than_the_buffer_holds_pass_through_while_the_endpoint_answers():
    """A reader's collection of three times `max_size` loses nothing."""
    rig = Rig(max_size=100)

    rig.pipeline.offer_all([snapshot(span(n)) for n in range(300)], timeout=5.0)
    rig.pipeline.force_flush(5.0)

    assert rig.sent_numbers() == list(range(300))


def test_an_offer_from_within_a_change_is_parked_and_counted():
    """A destructor that ends a span while the buffer is busy neither deadlocks nor is lost."""
    rig = Rig()
    buffer = rig.pipeline._buffer
    with buffer._lock, buffer._section:
        rig.offer(1)
        assert rig.stats.offered == 0

    assert rig.stats.offered == 1
    assert rig.pipeline.force_flush(1.0)
    assert rig.sent_numbers() == [1]


def test_a_forked_child_starts_with_nothing():
    """No items, no outage, no lock that somebody holds."""
    rig = Rig([hold()])
    rig.offer(*range(10))
    rig.seal()
    rig.pipeline.deliver_step()
    rig.pipeline._buffer._lock.acquire()

    rig.pipeline.after_fork_in_child()
    rig.offer(99)

    assert rig.pipeline.force_flush(1.0)
    assert rig.sent_numbers() == [99]
    assert rig.stats.offered == 1
    assert rig.stats.breaker is BreakerState.CLOSED


def test_a_waiting_item_is_tens_of_bytes():
    """Sealed, ordinary spans take less than 100 bytes each."""
    rig = Rig(otherwise=silence(), max_size=10_000)
    rig.offer(*range(5120))
    rig.seal()

    assert rig.stats.memory_bytes / rig.stats.queued < 100


def test_a_thread_that_is_just_being_started_counts_as_one():
    """A flush in that moment must not do the thread's work beside it: each stage has one owner at a time."""
    rig = Rig(is_threaded=True)
    loops = (rig.pipeline._sealer_loop, rig.pipeline._delivery_loop)
    for loop in loops:
        loop._is_starting = True
    rig.pipeline.offer(snapshot(span(1)))

    assert not rig.pipeline.force_flush(0.05)

    assert all(loop.is_manned for loop in loops)
    assert rig.sender.sent == []


def test_a_defect_on_the_way_to_disk_costs_no_batch(caplog):
    """It is held in memory, as without a disk, and so is what was to be encoded after it."""
    rig = Rig(otherwise=delivered(), max_export_batch_size=2, max_size=100)

    def fail(held):
        raise ValueError("a key that is none")

    rig.pipeline._sealer._keep = fail
    rig.offer(*range(10))
    rig.seal()
    rig.deliver()

    assert sorted(rig.sent_numbers()) == list(range(10))
    assert len(caplog.records) == 1
