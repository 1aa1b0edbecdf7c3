"""Backlogs of every size, and processes that come and go in an outage: nothing is lost while the folder is under its limit.

A few cells of each matrix run always; all of them with `SURGETANK_SCALE=full`, which takes some minutes and prints a line for each.
"""

import os
import time

import pytest

from fakes.requests import span_batch
from process.programs import ended, heard, kill_all, start, wait_until
from surgetank.clock import SystemClock
from surgetank.model import Signal
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.folder import ORPHANS_MAX
from surgetank.spool.settings import SpoolSettings
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

IS_FULL = os.environ.get("SURGETANK_SCALE") == "full"
# What the documentation says: at most so many files are open for the spool, whatever waits.
DESCRIPTORS = 64
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


def tell(cell, **figures):
    """Print a cell's figures, for whoever runs the whole matrix."""
    print(f"\n{cell}: " + ", ".join(f"{name} {value}" for name, value in figures.items()))


def spool_variables(path, **more):
    return {"SURGETANK_PERSISTENCE_ENABLED": "true", "SURGETANK_SPOOL_DIR": str(path), **more}


def leave(path, orphans, batches, items, max_mb=512):
    """Leave a backlog of that many dead processes behind; return how many spans are in it."""
    settings = SpoolSettings(path=str(path), max_bytes=max_mb * 1024 * 1024, reserve_bytes=0)
    number = 0
    for _ in range(orphans):
        disk = Disk(settings, OsFilesystem(), SystemClock())
        for _ in range(batches):
            batch = span_batch(range(number, number + items)).batch
            number += items
            assert disk.spools[Signal.SPANS].append(batch) is not None
        disk.close()
    return number


HEIR = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
tank = surgetank.install(spans=surgetank.BufferConfig(max_size=int(sys.argv[1]) if len(sys.argv) > 1 else MAX_SIZE))
most, states, failed, goal = 0, set(), 0, GOAL
until = time.monotonic() + 120
while tank.stats().spans.delivered < goal and time.monotonic() < until:
    most = max(most, len(os.listdir("/proc/self/fd")))
    states.add(tank.health().state.value)
    try:
        files = [open(os.devnull) for _ in range(100)]
    except OSError:
        failed += 1
    else:
        for each in files: each.close()
    time.sleep(0.05)
ok = tank.shutdown()
say(most=most, failed=failed, states=sorted(states), books=books(tank)["spans"], ok=ok)
"""
ORPHANS = [1, ORPHANS_MAX, ORPHANS_MAX + 1, 500, 2000] if IS_FULL else [1, 120]
SHAPES = [(1, 1), (8, 64), (2, 512)] if IS_FULL else [(2, 8)]
SIZES = [16, 20_000] if IS_FULL else [16]


@pytest.mark.parametrize("max_size", SIZES)
@pytest.mark.parametrize(("batches", "items"), SHAPES)
@pytest.mark.parametrize("orphans", ORPHANS)
def test_an_heir_with_few_descriptors_delivers_any_backlog(collector, tmp_path, orphans, batches, items, max_size):
    """With 256 in all, of which the application wants a hundred: it gets them, and the spool keeps within its number."""
    if orphans * batches * items > 200_000:
        pytest.skip("more of the same")
    count = leave(tmp_path / "spool", orphans, batches, items)
    began = time.monotonic()
    program = HEIR.replace("MAX_SIZE", str(max_size)).replace("GOAL", str(count))
    code, [found] = ended(start(program, collector.endpoint, **spool_variables(tmp_path / "spool")), timeout=150.0)

    books, report = found["books"], collector.report()["spans"]
    tell(
        f"orphans {orphans}, batches of each {batches}, spans of each {items}, heir's max_size {max_size}",
        lost=count - report["unique"],
        duplicates=report["duplicates"],
        descriptors=found["most"],
        seconds=f"{time.monotonic() - began:.1f}",
    )
    assert code == 0
    assert (report["unique"], report["duplicates"]) == (count, 0)
    assert (books["delivered"], books["dropped"], books["unaccounted"]) == (count, {}, 0)
    assert found["failed"] == 0
    # Beside the spool's: the standard three, the listing's own, connections, and what the interpreter has.
    assert found["most"] <= DESCRIPTORS + 16
    assert set(found["states"]) <= {"idle", "holding", "delivering"}


WORKER = """
tank = install(timing=surgetank.Timing(backoff_max=0.5, cooldown_initial=0.1, cooldown_max=0.5))
first = int(os.environ["FIRST"])
work(first, 200)
until = time.monotonic() + 30
def is_safe(stats):
    return stats.sealed == 200 and stats.stored == stats.queued + stats.in_flight
while not (is_safe(tank.stats().logs) and is_safe(tank.stats().spans)):
    assert time.monotonic() < until, books(tank)
    time.sleep(0.01)
say(ready=True, dropped=books(tank)["logs"]["dropped"], health=tank.health().state.value)
idle()
"""


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16] if IS_FULL else [1, 4])
def test_rolling_restarts_in_an_outage_lose_nothing(collector, tmp_path, workers):
    """Each generation is killed (kill -9) when the next one has begun; the last one finds the collector back."""
    began = time.monotonic()
    variables = spool_variables(tmp_path / "spool", SURGETANK_SPOOL_MAX_MB="64")
    collector.behave(behaviour.status(503))
    running, generations = [], 3
    for generation in range(generations):
        last, running = running, []
        for place in range(workers):
            first = (generation * workers + place) * 1000
            running.append(start(WORKER, collector.endpoint, FIRST=str(first), **variables))
            if place < len(last):
                last[place].kill()
                last[place].wait()
        words = [heard(each) for each in running]
        assert [each["dropped"] for each in words] == [{}] * workers
        assert all(each["health"] in ("holding", "delivering") for each in words)
    collector.behave(behaviour.OK)
    count = generations * workers * 200

    assert wait_until(lambda: collector.report()["logs"]["unique"] == count, 60.0), collector.report()
    report = collector.report()["logs"]
    tell(
        f"workers {workers}, restarted {generations - 1} times",
        lost=count - report["unique"],
        duplicates=report["duplicates"],
        seconds=f"{time.monotonic() - began:.1f}",
    )
    # A process that is killed while it sends has its batch sent again by its heir; here the receiver had refused it.
    assert report["duplicates"] == 0


JOB = """
tank = install()
work(int(os.environ["FIRST"]), 50)
ok = tank.shutdown(timeout=1.0)
say(books=books(tank), ok=ok)
"""
SERVICE = """
tank = install(timing=surgetank.Timing(backoff_max=0.5, cooldown_initial=0.1, cooldown_max=0.5))
work(900_000, 1)
say(ready=True)
idle()
"""


def test_what_short_jobs_leave_is_delivered_by_the_service_beside_them(collector, tmp_path):
    """A job ends in the outage, with everything on disk; the service that runs on takes it over and delivers it."""
    variables = spool_variables(tmp_path / "spool")
    collector.behave(behaviour.status(503))
    service = start(SERVICE, collector.endpoint, **variables)
    heard(service)
    jobs = 8 if IS_FULL else 3
    for number in range(jobs):
        code, [words] = ended(start(JOB, collector.endpoint, FIRST=str(number * 1000), **variables))
        assert (code, words["ok"]) == (0, True)
        assert [each["dropped"] for each in words["books"].values()] == [{}, {}, {}]
    collector.behave(behaviour.OK)

    count = jobs * 50 + 1
    assert wait_until(lambda: collector.report()["spans"]["unique"] == count, 30.0), collector.report()
    assert wait_until(lambda: collector.report()["logs"]["unique"] == count, 30.0), collector.report()
    assert collector.report()["spans"]["duplicates"] == collector.report()["logs"]["duplicates"] == 0
