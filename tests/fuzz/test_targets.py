"""Every target for a moment: with its seeds, with bytes that Hypothesis thinks of, and with what was found before."""

import logging
import random
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.targets import TARGETS, seeds

# What any of them may take for inputs of a few hundred bytes: in memory, and in seconds on a machine that is busy.
MEMORY_MAX = 16 * 1024 * 1024
SECONDS_MAX = 10.0
# Each starts seven commands.
SLOW = {"commands": 3}
TIMES = {"segment": 40, "segment_made": 60, "segments_made": 30, "letter": 40, "letter_made": 40, "names": 60}

FOUND = [("status_made", "0101000000000100000101")]
"""Target and input (hexadecimal) of every failure that was ever found, so that it is not found again."""


@pytest.fixture(autouse=True)
def _quiet():
    """Nobody reads the lines, and there are many."""
    logger = logging.getLogger("surgetank")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def within_bounds(target, data):
    """Run a target; fail where it takes too much."""
    began = time.monotonic()
    tracemalloc.start()
    try:
        TARGETS[target](data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY_MAX, f"{peak:,} bytes"
    assert time.monotonic() - began < SECONDS_MAX


def drawn(seed):
    """Return some hundred bytes: what Hypothesis thinks of by itself has few decisions in it."""
    rng = random.Random(seed)
    return rng.randbytes(rng.randrange(600))


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_its_seeds(target):
    """Within bounds."""
    for data in seeds(target)[: SLOW.get(target)]:
        within_bounds(target, data)


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_takes_anything(target):
    """Nothing is raised, whatever it is given."""

    @settings(
        max_examples=SLOW.get(target, TIMES.get(target, 100)),
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.binary(max_size=600) | st.integers(0, 2**32).map(drawn))
    def take(data):
        TARGETS[target](data)

    take()


@pytest.mark.parametrize(("target", "data"), FOUND)
def test_what_was_found_once_is_not_found_again(target, data):
    """Each failed in a longer run."""
    within_bounds(target, bytes.fromhex(data))
