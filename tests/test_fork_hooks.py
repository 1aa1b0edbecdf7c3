"""The fork hooks, one by one: who holds which lock when two threads fork at the same time, or after the end."""

import threading
from weakref import WeakSet

from fakes.spools import Process
from fakes.tanks import stepped_tank
from surgetank import lifecycle
from surgetank.model import Signal


def on_another_thread(action):
    """Return what an action returns on a thread of its own."""
    said = []
    thread = threading.Thread(target=lambda: said.append(action()))
    thread.start()
    thread.join(10)
    return said[0]


def fork_at_the_same_time(hooks, monkeypatch):
    """Let another thread come to fork while we are doing so and wait in vain for us, and both be done."""
    hooks.before_fork()
    has_waited, may_go = threading.Event(), threading.Event()
    faults = []

    def fork():
        try:
            hooks.before_fork()
            has_waited.set()
            may_go.wait(10)
            hooks.after_fork_in_parent()
        except Exception as error:
            faults.append(error)

    other = threading.Thread(target=fork)
    other.start()
    assert has_waited.wait(10)
    hooks.after_fork_in_parent()
    may_go.set()
    other.join(10)
    assert faults == []


def test_two_forks_at_the_same_time_leave_the_disk_free(monkeypatch):
    """Each gives back what it holds and nothing else, or the disk would be locked for good."""
    monkeypatch.setattr("surgetank.spool.folder.FORK_WAIT_MAX", 0.01)
    folder = Process().disk.folder

    fork_at_the_same_time(folder, monkeypatch)

    assert on_another_thread(lambda: folder.lock.acquire(timeout=0.01))


def test_two_forks_at_the_same_time_leave_collections_free(monkeypatch):
    """Or no metric would ever be collected again."""
    monkeypatch.setattr("surgetank.otel.reader.FORK_WAIT_MAX", 0.01)
    reader = stepped_tank()[0].metric_reader

    fork_at_the_same_time(reader, monkeypatch)

    assert on_another_thread(lambda: reader._collect_lock.acquire(timeout=0.01))


def test_a_tank_that_is_shut_down_has_free_locks_in_a_forked_child():
    """Its doors still refuse what they are offered, and a thread may be just doing so when the process forks."""
    tank, _ = stepped_tank()
    tank.shutdown(0.0)
    buffer = tank._pipelines[Signal.SPANS]._buffer
    on_another_thread(buffer._lock.acquire)  # And never released: that thread does not exist in the child.

    lifecycle._after_in_child()

    assert buffer._lock.acquire(blocking=False)
    assert buffer._is_closed


def test_a_signal_that_the_parent_has_postponed_is_not_the_childs(monkeypatch):
    """The child's watcher would deliver it, and end the child."""
    monkeypatch.setattr(lifecycle, "_postponed", [15])
    monkeypatch.setattr(lifecycle, "_living", WeakSet())
    monkeypatch.setattr(lifecycle, "_ended", WeakSet())

    lifecycle._after_in_child()

    assert lifecycle._postponed == []
