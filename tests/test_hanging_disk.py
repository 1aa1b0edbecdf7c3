"""A disk that hangs, as a network disk does whose server is gone: offers do not notice, deadlines are kept, the books say what was lost."""

import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from fakes.requests import span
from fakes.spools import settings
from surgetank import BufferConfig, SpoolConfig, Tank
from surgetank.spool.disk import Disk
from surgetank.testing import ManualClock, ScriptedSender, delivered, hold
from surgetank.testing.filesystem import Hang, MemoryFilesystem

# What a shutdown may take beyond its deadline, on a machine that has much else to do (seconds).
SLACK = 1.2


@contextmanager
def hanging(operation, *, verdict=None, durability="disk", **spans):
    """A tank with threads, whose disk hangs in the first such call; it is released in the end."""
    filesystem, hang = MemoryFilesystem(), Hang(operation, path=".segment")
    filesystem.hangs.append(hang)
    tank = Tank(
        handle_sigterm=False,
        filesystem=filesystem,
        persistence_enabled=True,
        spool=SpoolConfig(dir="/spool", reserve_mb=0, durability=durability),
        spans=BufferConfig(schedule_delay=0.1, **spans),
        shutdown_timeout=0.2,
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=verdict or hold()),
    )
    try:
        yield tank, filesystem, hang
    finally:
        hang.released.open()
        tank.shutdown(5.0)


def offer(tank, *numbers):
    for number in numbers:
        tank.span_processor.on_end(span(number))


def taken(action):
    """Return how long an action takes, which is not waited for for longer than ten seconds, and what it returns."""
    said, began = [], time.monotonic()
    thread = threading.Thread(target=lambda: said.append(action()), daemon=True)
    thread.start()
    thread.join(10)
    assert said, "it hangs"
    return time.monotonic() - began, said[0]


def threads_of_ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("surgetank-sp")]


def inherited(filesystem):
    """Return the items that a later process finds."""
    heir = Disk(settings(), filesystem.process(), ManualClock())
    heir.adopt_orphans()
    return sum(spool.changes().recovered for spool in heir.spools.values())


@pytest.mark.parametrize("operation", ["sync", "write", "create", "truncate"])
def test_a_shutdown_keeps_its_deadline_and_the_books_tell_what_a_later_process_finds(operation):
    """Whoever hangs comes back after it and does nothing that contradicts them: what was counted as lost is not sent, what was spooled is."""
    verdict = delivered() if operation == "truncate" else hold()
    with hanging(operation, verdict=verdict) as (tank, filesystem, hang):
        before = set(threads_of_ours())
        offer(tank, *range(10))
        assert hang.reached.wait(5)
        offer(tank, *range(10, 20))
        took, is_clean = taken(lambda: tank.shutdown(0.3))

        books = tank.stats().spans
        assert took < 0.3 + SLACK
        assert books.unaccounted == books.queued == books.in_flight == books.memory_bytes == 0
        assert books.offered == 20 == books.delivered + books.spooled + sum(books.dropped.values())
        assert is_clean == (not books.dropped)

        hang.released.open()
        for thread in set(threads_of_ours()) - before:
            thread.join(10)
            assert not thread.is_alive()
        # What its files take, and how old they are, is no matter of counting.
        after = replace(tank.stats().spans, spool_bytes=books.spool_bytes, oldest_age=books.oldest_age)
        assert after == books
        assert inherited(filesystem) == books.spooled


def test_what_was_stored_before_the_disk_hung_is_not_given_up():
    """A sync that hangs holds up the disk; what was written before is there."""
    with hanging("sync") as (tank, _, hang):
        offer(tank, *range(10))
        assert hang.reached.wait(5)
        taken(lambda: tank.shutdown(0.2))

        assert tank.stats().spans.spooled == 10
        assert tank.stats().spans.dropped == {}


def test_one_line_says_that_the_disk_does_not_answer(caplog):
    """Not one for each signal."""
    with hanging("write") as (tank, _, hang):
        offer(tank, 1)
        assert hang.reached.wait(5)
        taken(lambda: tank.shutdown(0.1))

    assert sum("does not answer" in record.getMessage() for record in caplog.records) == 1


def test_a_flush_keeps_its_deadline():
    """And says that not everything is safe."""
    with hanging("write") as (tank, _, hang):
        offer(tank, *range(10))
        assert hang.reached.wait(5)
        took, has_succeeded = taken(lambda: tank.force_flush(0.2))

        assert took < 0.2 + SLACK
        assert not has_succeeded
        assert tank.stats().spans.unaccounted == 0


def test_a_door_keeps_the_deadline():
    """A provider shuts its processor down, and only that."""
    with hanging("write") as (tank, _, hang):
        offer(tank, *range(10))
        assert hang.reached.wait(5)
        took, _ = taken(tank.span_processor.shutdown)

        assert took < 0.2 + SLACK
        assert not tank.is_shut_down


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_offers_never_wait_for_the_disk(operation):
    """Not even when memory is full of what is on disk too, or of what is not, and something has to give way."""
    with hanging(operation, max_size=50, max_export_batch_size=10) as (tank, _, hang):
        offer(tank, *range(20))
        assert hang.reached.wait(5)
        took, _ = taken(lambda: offer(tank, *range(20, 2000)))

        assert took < 5
        assert tank.stats().spans.offered == 2000
        assert tank.stats().spans.unaccounted == 0


@contextmanager
def hanging_elsewhere(disk):
    """Let another thread be busy with a disk."""
    is_inside, may_go = threading.Event(), threading.Event()

    def hang():
        with disk.folder.lock:
            is_inside.set()
            may_go.wait(10)

    thread = threading.Thread(target=hang)
    thread.start()
    assert is_inside.wait(5)
    try:
        yield
    finally:
        may_go.set()
        thread.join(5)


def stepped(filesystem):
    return Tank(
        is_threaded=False,
        handle_sigterm=False,
        filesystem=filesystem,
        persistence_enabled=True,
        spool=SpoolConfig(dir="/spool", reserve_mb=0),
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=hold()),
    )


def test_a_flush_and_a_shutdown_on_their_callers_thread_wait_for_nobody_who_hangs():
    """As at the interpreter's end, where no thread can be started any more."""
    tank = stepped(MemoryFilesystem())
    offer(tank, *range(10))
    with hanging_elsewhere(tank._disk):
        flushed, has_succeeded = taken(lambda: tank.force_flush(0.2))
        took, is_clean = taken(lambda: tank.shutdown(0.2))

    assert flushed < 0.2 + SLACK
    assert took < 0.2 + SLACK
    assert not has_succeeded
    assert not is_clean
    assert tank.stats().spans.dropped == {"shutdown": 10}
    assert tank.stats().spans.unaccounted == 0


def test_a_batch_that_was_stored_too_late_is_taken_back():
    """It was given up between its storing and its taking into memory: a later process must not send it."""
    filesystem = MemoryFilesystem()
    tank = stepped(filesystem)
    pipeline = tank._pipelines[next(iter(tank._pipelines))]
    keep = pipeline._sealer._keep

    def too_late(held):
        keep(held)
        pipeline._buffer.abandon()

    pipeline._sealer._keep = too_late
    offer(tank, *range(10))
    pipeline._buffer.begin_flush(float("inf"))
    for _ in range(20):
        pipeline.seal_step()
    tank.shutdown(0.1)

    assert tank.stats().spans.dropped == {"shutdown": 10}
    assert inherited(filesystem) == 0
