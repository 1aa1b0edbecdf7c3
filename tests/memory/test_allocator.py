"""What gives memory back: the allocator's pages, and collections that are worth while."""

import gc
import subprocess
import sys
from itertools import pairwise

import pytest

from surgetank.memory.allocator import FIRST_WAIT, LONGEST_WAIT, Relief, trim
from surgetank.testing import ManualClock

MIB = 1024 * 1024

# Bodies of requests come and go between what stays: glibc returns what is free at the heap's end by itself, the rest not.
PROGRAM = """
from surgetank.memory.allocator import trim
from surgetank.memory.probes import choose_probe

probe = choose_probe(limit_mb=1)
bodies = [bytes(4096) for _ in range(20_000)]
stays = bodies[::100]
del bodies
before = probe().used
is_trimmed = trim()
print(before - probe().used, is_trimmed)
"""


def test_trimming_gives_back_what_is_free_between_what_stays():
    """With glibc most of what was freed; with others it does no harm."""
    import platform

    if platform.libc_ver()[0] != "glibc":
        assert trim() is False
        pytest.skip("no glibc: there is nothing to measure")
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)

    freed, is_trimmed = done.stdout.split()
    assert is_trimmed == "True"
    assert int(freed) > 40 * MIB  # Of 80.


def test_where_it_cannot_trim_it_does_nothing(monkeypatch):
    """Not every system has `malloc_trim`, and not every Python has `ctypes`."""
    monkeypatch.setitem(sys.modules, "ctypes", None)

    assert trim() is False


class Heap:
    """A process with so much garbage, and what was done to it."""

    def __init__(self, garbage, seconds=0.0):
        self.clock = ManualClock()
        self.used = 1000
        self.garbage = garbage
        self.seconds = seconds
        self.collections = self.trims = 0
        self.relief = Relief(lambda: self.used, self.clock, collect=self.collect, give_back=self.give_back)

    def collect(self):
        self.collections += 1
        self.clock.advance(self.seconds)

    def give_back(self):
        self.trims += 1
        if self.used is not None:
            self.used -= self.garbage

    def moments(self, asked, until):
        """Ask every second, and return the seconds at which it collected."""
        found = []
        for second in range(until):
            before = self.collections
            self.relief.relieve(asked)
            if self.collections > before:
                found.append(second)
            self.clock.advance(1.0)
        return found


def test_relief_collects_trims_and_says_what_it_freed():
    """Without trimming, what was collected would not show."""
    heap = Heap(garbage=100)

    assert heap.relief.relieve(200) == 100
    assert (heap.collections, heap.trims) == (1, 1)


def test_collections_that_free_enough_go_on():
    """Five percent of what was asked for is enough."""
    assert Heap(garbage=5).moments(asked=100, until=20) == [0, 5, 10, 15]
    assert FIRST_WAIT == 5


@pytest.mark.parametrize("garbage", [0, 4, -50])
def test_collections_that_free_too_little_become_rare(garbage):
    """Each wait is twice the one before, up to five minutes."""
    moments = Heap(garbage=garbage).moments(asked=100, until=1500)

    waits = [after - before for before, after in pairwise(moments)]
    assert waits == [10, 20, 40, 80, 160, LONGEST_WAIT, LONGEST_WAIT, LONGEST_WAIT]


def test_one_that_was_worth_while_begins_anew():
    """The application has made garbage again."""
    heap = Heap(garbage=0)
    heap.moments(asked=100, until=100)
    heap.garbage = 50
    heap.clock.advance(LONGEST_WAIT)

    assert heap.moments(asked=100, until=11) == [0, 5, 10]


def test_a_slow_collection_is_followed_by_a_long_pause():
    """It stops the whole application, so no more than a hundredth of the time goes into them."""
    heap = Heap(garbage=50, seconds=1.0)
    heap.relief.relieve(100)
    heap.clock.advance(98.5)
    assert heap.relief.relieve(100) == 0

    heap.clock.advance(0.5)
    assert heap.relief.relieve(100) == 50


def test_nothing_known_is_nothing_freed():
    """Without a probe there is no telling whether it helps, so it becomes rare."""
    heap = Heap(garbage=0)
    heap.used = None

    assert heap.moments(asked=0, until=31) == [0, 10, 30]


def test_an_application_without_collections_is_left_alone():
    """It has turned them off for a reason."""
    heap = Heap(garbage=50)
    gc.disable()
    try:
        assert heap.relief.relieve(100) == 0
    finally:
        gc.enable()

    assert heap.collections == 0
