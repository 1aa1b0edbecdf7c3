"""A pipeline with a disk: written ahead, spilled before dropped, replayed in turn, and handed on at the end."""

import errno
import random
from collections import deque

from fakes.pipelines import Rig
from fakes.requests import span, span_numbers
from surgetank.model import BreakerState
from surgetank.otlp.spans import snapshot
from surgetank.testing import delivered, permanent, retry, silence
from surgetank.testing.filesystem import Fault, MemoryFilesystem

BIG = 20_000


def rig(*script, otherwise=None, filesystem=None, **settings):
    return Rig(
        script,
        otherwise,
        filesystem=filesystem or MemoryFilesystem(),
        **{"max_size": 100, "max_export_batch_size": 10, **settings},
    )


def heir_of(dead, *script, otherwise=None, **settings):
    """Return the next process on the same disk, which has adopted what the dead one left."""
    dead.filesystem.die()
    heir = Rig(
        script,
        otherwise,
        filesystem=dead.filesystem,
        clock=dead.clock,
        **{"max_size": 100, "max_export_batch_size": 10, **settings},
    )
    heir.tend()
    return heir


def segments(rig):
    return [path for path in rig.filesystem.files if path.endswith(".segment")]


def test_a_sealed_batch_is_on_disk_before_its_first_attempt():
    """Whatever the receiver does to us while it answers."""
    seen = []

    def look(batch):
        seen.append(sum(len(tank.filesystem.files[path].data) for path in segments(tank)) > len(batch.body))
        return delivered()

    tank = rig(otherwise=look)
    tank.offer(*range(10))

    tank.pipeline.force_flush(5.0)

    assert seen == [True]
    assert tank.stats.delivered == 10


def test_an_item_in_memory_and_on_disk_counts_once():
    """As queued; `stored` tells that a kill would not cost it."""
    tank = rig(otherwise=silence())
    tank.offer(*range(10))
    assert tank.stats.stored == 0

    tank.seal()

    assert (tank.stats.queued, tank.stats.spooled, tank.stats.unaccounted) == (10, 0, 0)
    assert tank.stats.stored == 10
    assert segments(tank)


def test_a_full_memory_spills_and_drops_nothing():
    """The disk takes what memory cannot."""
    tank = rig(otherwise=silence())
    for first in range(0, 300, 10):
        tank.offer(*range(first, first + 10))
        tank.seal()

    stats = tank.stats
    assert stats.dropped == {}
    assert stats.queued + stats.in_flight <= 100
    assert stats.queued + stats.spooled == 300
    assert stats.unaccounted == 0


def test_what_was_spilled_is_sent_when_the_endpoint_is_back():
    """Each item once, without any new traffic."""
    tank = rig(otherwise=silence())
    for first in range(0, 300, 10):
        tank.offer(*range(first, first + 10))
        tank.seal()
    tank.sender.otherwise = delivered()
    for _ in range(10):
        tank.tend()
        tank.clock.advance(60)
        tank.deliver()

    assert tank.stats.delivered == 300
    assert sorted(tank.sent_numbers()) == list(range(300))
    assert tank.stats.spooled == tank.stats.queued == 0


def test_the_next_process_delivers_what_a_killed_one_had_sealed():
    """Counted as recovered, delivered once, without any new traffic."""
    dead = rig(otherwise=silence())
    dead.offer(*range(30))
    dead.seal()
    heir = heir_of(dead)

    assert (heir.stats.recovered, heir.stats.spooled, heir.stats.unaccounted) == (30, 30, 0)
    heir.deliver()

    assert heir.stats.delivered == 30
    assert heir.sent_numbers() == list(range(30))
    assert not segments(heir)


def test_replay_begins_slowly():
    """A fleet that starts again must not push the collector over."""
    dead = rig(otherwise=silence())
    for first in range(0, 200, 10):
        dead.offer(*range(first, first + 10))
        dead.seal()
    heir = heir_of(dead)
    began = heir.clock.monotonic()

    heir.deliver()

    assert len(heir.sender.sent) == 20
    assert 0.5 < heir.clock.monotonic() - began < 2.0


def test_replay_holds_one_batch_in_memory():
    """However much there is on disk."""
    dead = rig(otherwise=silence())
    for first in range(0, 500, 10):
        dead.offer(*range(first, first + 10), size=2000)
        dead.seal()
    held = []
    heir = heir_of(dead, otherwise=lambda batch: held.append(heir.stats) or delivered())

    heir.deliver()

    assert heir.stats.delivered == 500
    assert max(stats.in_flight + stats.queued for stats in held) == 10


def test_fresh_and_old_share_the_line():
    """One and one, as long as both wait."""
    dead = rig(otherwise=silence())
    dead.offer(*range(40))
    dead.seal()
    heir = heir_of(dead)
    heir.offer(*range(100, 140))
    heir.seal()

    heir.deliver()

    firsts = [span_numbers(batch)[0] for batch in heir.sender.sent]
    assert [number >= 100 for number in firsts] == [False, True] * 4
    assert [number for number in firsts if number < 100] == [0, 10, 20, 30]


def test_a_failed_replay_goes_back_to_disk():
    """Memory is for what is fresh."""
    dead = rig(otherwise=silence())
    dead.offer(*range(10))
    dead.seal()
    heir = heir_of(dead, silence())

    heir.pipeline.deliver_step()

    assert (heir.stats.spooled, heir.stats.queued, heir.stats.in_flight) == (10, 0, 0)
    assert heir.stats.memory_bytes == 0
    heir.deliver()
    assert heir.stats.delivered == 10


def test_shutdown_in_an_outage_is_quick_and_loses_nothing():
    """What is safe need not wait for a deadline."""
    tank = rig(otherwise=silence())
    tank.offer(*range(30))
    began = tank.clock.monotonic()

    is_clean = tank.pipeline.shutdown(5.0)

    assert is_clean
    assert tank.clock.monotonic() - began < 2.0
    assert (tank.stats.spooled, tank.stats.dropped, tank.stats.unaccounted) == (30, {}, 0)


def test_shutdown_with_a_healthy_endpoint_delivers():
    """The disk is not an excuse."""
    tank = rig()
    tank.offer(*range(30))

    assert tank.pipeline.shutdown(5.0)

    assert tank.stats.delivered == 30
    assert tank.stats.spooled == 0


def test_force_flush_succeeds_when_everything_is_safe():
    """`stats` tells delivered from spooled and queued."""
    tank = rig(otherwise=retry(after=60.0))
    tank.offer(*range(10))

    assert tank.pipeline.force_flush(5.0)

    assert tank.stats.delivered == 0


def test_force_flush_delivers_what_was_spilled_too():
    """While the endpoint answers, the disk is no excuse."""
    tank = rig(otherwise=silence())
    for first in range(0, 300, 10):
        tank.offer(*range(first, first + 10))
        tank.seal()
    tank.tend()
    assert tank.stats.spooled
    tank.sender.otherwise = delivered()
    tank.clock.advance(60)

    assert tank.pipeline.force_flush(60.0)

    assert tank.stats.delivered == 300


def test_shutdown_delivers_what_was_spilled_too():
    """The folder of a container may go with it."""
    tank = rig(otherwise=silence())
    for first in range(0, 300, 10):
        tank.offer(*range(first, first + 10))
        tank.seal()
    tank.tend()
    tank.sender.otherwise = delivered()
    tank.clock.advance(60)

    assert tank.pipeline.shutdown(60.0)

    assert (tank.stats.delivered, tank.stats.spooled) == (300, 0)


def test_force_flush_does_not_call_safe_what_is_not_synced():
    """With durability `disk`."""
    tank = rig(otherwise=retry(after=60.0), spool={"durability": "disk"})
    tank.filesystem.faults.append(Fault("sync", times=-1))
    tank.offer(*range(10))

    assert not tank.pipeline.force_flush(5.0)


def test_without_a_disk_that_can_be_written_memory_does():
    """And what came meanwhile is stored when it can be again."""
    tank = rig(otherwise=silence())
    tank.filesystem.faults.append(Fault("write", error=errno.ENOSPC, times=-1))
    tank.offer(*range(20))
    tank.seal()
    tank.filesystem.faults.clear()
    assert tank.stats.queued == 20
    assert not any(held.is_stored for held in tank.pipeline._buffer._queue)

    tank.clock.advance(10)
    tank.tend()

    assert all(held.is_stored for held in tank.pipeline._buffer._queue)
    assert heir_of(tank).stats.recovered == 20


def test_only_critical_batches_are_stored_where_that_is_asked_for():
    """`persist="critical"`."""
    tank = rig(otherwise=silence(), persist="critical")
    tank.offer(*range(10))
    tank.offer(*range(10, 13), is_error=True)
    tank.seal()

    assert heir_of(tank).stats.recovered == 3


def test_where_nothing_is_written_ahead_the_disk_has_its_share_of_the_deadline():
    """Deliveries end before it, or nothing could be stored in time."""
    ahead, late = rig(), rig(spool={"durability": "memory"})
    for tank in (ahead, late):
        tank.offer(1)

    assert ahead.pipeline.begin_shutdown(ahead.clock.monotonic() + 10.0).deadline == ahead.clock.monotonic() + 10.0
    assert late.pipeline.begin_shutdown(late.clock.monotonic() + 10.0).deadline == late.clock.monotonic() + 9.0


def test_durability_memory_writes_nothing_ahead():
    """Only when memory fills up, and at the end."""
    tank = rig(otherwise=silence(), spool={"durability": "memory"})
    tank.offer(*range(20))
    tank.seal()
    assert not segments(tank)
    for first in range(20, 300, 10):
        tank.offer(*range(first, first + 10))
        tank.seal()

    assert segments(tank)
    assert tank.stats.dropped == {}
    tank.pipeline.shutdown(1.0)
    assert tank.stats.dropped == {}
    assert tank.stats.spooled == 300


def test_what_the_receiver_refuses_goes_to_the_dead_letters():
    """The item alone; its neighbours are delivered."""

    def judge(batch):
        return permanent() if 13 in span_numbers(batch) else delivered()

    tank = rig(otherwise=judge)
    tank.offer(*range(10, 20))

    tank.pipeline.force_flush(30.0)

    assert (tank.stats.delivered, tank.stats.rejected) == (9, 1)
    letters = [path for path in tank.filesystem.files if path.endswith(".letter")]
    assert len(letters) == 1
    assert b'"status": "400"' in bytes(tank.filesystem.files[letters[0]].data)


def test_the_parts_of_a_cut_batch_survive_a_crash():
    """They were stored before the whole was done."""
    tank = rig(permanent(), otherwise=silence())
    tank.offer(*range(10))
    tank.seal()
    tank.pipeline.deliver_step()
    heir = heir_of(tank)

    heir.deliver()

    assert sorted(heir.sent_numbers()) == list(range(10))
    assert heir.stats.recovered == 10


def test_parts_that_cannot_be_stored_leave_the_whole_on_disk():
    """Twice is better than never: it goes when the last part has been delivered, or stored."""
    tank = rig(permanent(), otherwise=silence())
    tank.offer(*range(10))
    tank.seal()
    tank.filesystem.faults.append(Fault("write", times=1))
    tank.pipeline.deliver_step()
    assert heir_of(tank).stats.recovered == 10

    tank = rig(permanent())
    tank.offer(*range(10))
    tank.seal()
    tank.filesystem.faults.append(Fault("write", times=1))
    tank.deliver()
    assert tank.stats.delivered == 10
    assert heir_of(tank).stats.recovered == 0


def test_parts_that_could_not_be_stored_are_stored_later():
    """And the whole is gone then."""
    tank = rig(permanent(), otherwise=silence())
    tank.offer(*range(10))
    tank.seal()
    tank.filesystem.faults.append(Fault("write", times=1))
    tank.pipeline.deliver_step()
    tank.clock.advance(10)

    tank.tend()

    assert all(held.is_stored for held in tank.pipeline._buffer._queue)
    heir = heir_of(tank)
    assert heir.stats.recovered == 10
    heir.deliver()
    assert [batch.items for batch in heir.sender.sent] == [5, 5]


def test_a_replayed_batch_that_keeps_failing_does_not_block_the_line():
    """It is set aside, bisected in the end, and the poison buried."""

    def judge(batch):
        return retry() if 3 in span_numbers(batch) else delivered()

    dead = rig(otherwise=silence())
    dead.offer(*range(50))
    dead.seal()
    heir = heir_of(dead, otherwise=judge)
    for n in range(100, 400, 10):
        heir.offer(*range(n, n + 10))
        heir.seal()
        for _ in range(10):
            heir.clock.advance(max(0.0, min(60.0, heir.pipeline.deliver_step())))
    for _ in range(30):
        heir.clock.advance(300)
        heir.tend()
        heir.deliver()

    stats = heir.stats
    assert stats.rejected == 1
    assert stats.delivered == 49 + 300
    assert stats.unaccounted == stats.queued == stats.spooled == 0


def test_a_disk_over_its_limit_gives_up_the_oldest():
    """Counted in items; the law holds."""
    tank = rig(otherwise=silence(), spool={"max_bytes": 512 * 1024})
    for n in range(400):
        # What does not compress, or a limit in bytes would be far away.
        noise = random.Random(n).randbytes(4000).hex()
        tank.pipeline.offer(snapshot(span(n, attributes={"payload": noise})))
        tank.seal()
        tank.tend()

    stats = tank.stats
    assert tank.disk.folder.used_bytes <= 512 * 1024
    assert stats.unaccounted == 0
    assert set(stats.dropped) == {"spool_full"}


def test_a_forked_child_has_a_disk_of_its_own():
    """What it stores is its own; what its parent stored is its parent's."""
    parent = rig(otherwise=silence())
    parent.offer(*range(10))
    parent.seal()
    names = set(parent.filesystem.files)
    parent.pipeline.after_fork_in_child()
    parent.disk.after_fork_in_child(is_closed=False)
    child = parent

    child.offer(*range(50, 60))
    child.seal()
    child.pipeline.shutdown(0.5)
    child.disk.close()

    assert child.stats.offered == 10
    assert child.stats.spooled == 10
    assert names <= set(child.filesystem.files)


def test_an_outage_opens_the_breaker_and_the_backlog_waits_for_it():
    """Nothing spins on the disk while nothing can leave."""
    dead = rig(otherwise=silence())
    dead.offer(*range(10))
    dead.seal()
    heir = heir_of(dead, otherwise=silence(), circuit_breaker_threshold=2)
    for _ in range(4):
        heir.clock.advance(max(0.0, heir.pipeline.deliver_step()))

    assert heir.stats.breaker is not BreakerState.CLOSED
    sent = len(heir.sender.sent)
    for _ in range(10):
        heir.pipeline.deliver_step()
    assert len(heir.sender.sent) <= sent + 1


def test_two_threads_of_ours_may_tell_the_disk_of_the_same_spill():
    """Each looks first and takes then; who comes second finds nothing, and goes on."""
    rig = Rig(filesystem=MemoryFilesystem())

    class JustTaken(deque):
        def __bool__(self):
            return True

    rig.pipeline._buffer.spilled = JustTaken()

    rig.pipeline.tend()


def test_a_stored_batch_larger_than_the_heirs_limits_is_delivered_and_nothing_behind_it_waits():
    """The limits were larger when it was stored; those of the next process do not fit it at all."""
    dead = rig(otherwise=silence(), max_size=1000, max_export_batch_size=400)
    dead.offer(*range(420))
    dead.seal()

    heir = heir_of(dead, max_size=20)
    heir.deliver()

    assert heir.sent_numbers() == list(range(420))
    assert (heir.stats.recovered, heir.stats.delivered, heir.stats.spooled) == (420, 420, 0)
    assert heir.stats.unaccounted == 0


def test_nothing_in_memory_gives_way_to_an_oversized_batch_that_is_in_flight():
    """What is offered meanwhile has as much room as ever."""
    dead = rig(otherwise=silence(), max_size=1000, max_export_batch_size=400)
    dead.offer(*range(400))
    dead.seal()
    offered = iter([range(1000, 1020)])

    def answer(_):
        heir.offer(*next(offered, ()))
        return delivered()

    heir = heir_of(dead, max_size=20, otherwise=answer)
    heir.deliver()
    heir.pipeline.force_flush(5.0)

    assert heir.stats.dropped == {}
    assert heir.stats.delivered == 420
    assert heir.stats.max_size == 20


def test_an_oversized_batch_that_is_put_back_waits_on_disk_again():
    """Limits are what they were, and it is read again when the endpoint is back."""
    dead = rig(otherwise=silence(), max_size=1000, max_export_batch_size=400)
    dead.offer(*range(400))
    dead.seal()

    heir = heir_of(dead, silence(), max_size=20)
    heir.pipeline.deliver_step()
    assert (heir.stats.spooled, heir.stats.in_flight) == (400, 0)
    heir.offer(*range(1000, 1050))
    assert heir.stats.queued == 20

    heir.deliver()
    assert heir.stats.delivered == 400


def test_limits_that_memory_pressure_has_shrunk_block_no_replay():
    """Pressure may last for as long as the process does."""
    dead = rig(otherwise=silence(), max_size=1000, max_export_batch_size=400)
    dead.offer(*range(800))
    dead.seal()

    heir = heir_of(dead, max_size=1000, max_export_batch_size=400)
    heir.pipeline.resize(0.05)
    heir.deliver()

    assert heir.stats.delivered == 800


def test_what_is_in_memory_is_stored_again_when_somebody_has_deleted_the_folder():
    """A clean-up job, or an operator: what would outlive a kill before does so again."""
    tank = rig(otherwise=silence())
    tank.offer(*range(20))
    tank.seal()
    assert tank.stats.stored == 20
    for path in list(tank.filesystem.files):
        tank.filesystem.unlink(path)

    tank.tend()

    assert tank.stats.stored == 20
    assert tank.stats.dropped == {}
    heir = heir_of(tank)
    heir.deliver()
    assert sorted(heir.sent_numbers()) == list(range(20))
