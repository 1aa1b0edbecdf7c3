"""Backlogs of every size, and processes that come and go in an outage: nothing is lost while the folder is under its limit.

A few cells of each matrix run always; all of them with `SURGETANK_SCALE=full`, which takes some minutes and prints a line for each.
"""

import os
import time

import pytest

from fakes.requests import span_batch
from process.programs import ended, heard, kill_all, start, told, wait_until
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


FULL_WORKER = """
import random
tank = install(timing=surgetank.Timing(backoff_max=0.5, cooldown_initial=0.1, cooldown_max=0.5))
logger, first, count = get_logger("app"), int(os.environ["FIRST"]), int(os.environ["COUNT"])
for n in range(first, first + count):
    # What does not compress.
    logger.emit(LogRecord(body=random.randbytes(SIZE // 2).hex(), attributes={"item.id": f"item-{n}"}))
until = time.monotonic() + 60
while tank.stats().logs.offered != count or tank.stats().logs.stored + tank.stats().logs.spooled < count:
    assert time.monotonic() < until, books(tank)
    time.sleep(0.01)
say(ready=True)
# What is asked later is answered then.
for line in sys.stdin:
    stats = tank.stats()
    say(dropped=dict(stats.logs.dropped), held=stats.logs.spooled + stats.logs.queued + stats.logs.in_flight,
        unaccounted=stats.logs.unaccounted, health=tank.health().state.value)
"""
SIZE = 32 * 1024


@pytest.mark.parametrize("workers", [1, 2, 4, 8, 16] if IS_FULL else [2])
@pytest.mark.parametrize("fill", [0.5, 0.85] if IS_FULL else [0.85])
def test_rolling_restarts_near_the_limit_lose_nothing(collector, tmp_path, workers, fill):
    """What all generations leave fits, and no survivor's own part of the limit matters: only a worker after the other is killed."""
    began, path, max_mb, generations = time.monotonic(), tmp_path / "spool", 32, 3
    each = max(1, int(fill * max_mb * 1024 * 1024 / (SIZE // 2 * 1.07) / (generations * workers)))
    variables = spool_variables(path, SURGETANK_SPOOL_MAX_MB=str(max_mb), COUNT=str(each))
    collector.behave(behaviour.status(503))
    running, biggest, descriptors = [], 0, 0
    for generation in range(generations):
        last, running = running, []
        for place in range(workers):
            first = (generation * workers + place) * each
            program = FULL_WORKER.replace("SIZE", str(SIZE))
            running.append(start(program, collector.endpoint, stdin=True, FIRST=str(first), **variables))
            heard(running[-1])
            if last:
                last[place].kill()
                last[place].communicate()
            biggest = max(biggest, bytes_in(path))
            descriptors = max([descriptors, *(spool_files(each.pid, path) for each in running)])
    count = generations * workers * each
    # By now everything has been taken over, or waits for it within the limit.
    assert wait_until(lambda: sum(said["held"] for said in answers(running)) == count, 30.0), answers(running)
    for said in answers(running):
        assert (said["dropped"], said["unaccounted"], said["health"]) == ({}, 0, "holding")
    biggest = max(biggest, bytes_in(path))
    collector.behave(behaviour.OK)

    assert wait_until(lambda: collector.report()["logs"]["unique"] == count, 60.0), (
        collector.report(),
        answers(running),
    )
    assert wait_until(lambda: {said["health"] for said in answers(running)} == {"delivering"}, 30.0), answers(running)
    report = collector.report()["logs"]
    descriptors = max([descriptors, *(spool_files(each.pid, path) for each in running)])
    tell(
        f"workers {workers}, restarted {generations - 1} times, folder {biggest / 2**20 / max_mb:.0%} full",
        lost=count - report["unique"],
        duplicates=report["duplicates"],
        descriptors=descriptors,
        seconds=f"{time.monotonic() - began:.1f}",
    )
    assert biggest <= max_mb * 2**20
    assert report["duplicates"] == 0
    assert descriptors <= DESCRIPTORS


def answers(running):
    """Ask each worker for its books."""
    for each in running:
        told(each)
    return [heard(each) for each in running]


def bytes_in(path):
    """Return what the segments take together; some may go while they are looked at."""
    total = 0
    for file in path.rglob("*.segment"):
        try:
            total += file.stat().st_size
        except OSError:
            pass
    return total


def spool_files(pid, path):
    """Return how many files of the spool's a process has open."""
    found = 0
    for descriptor in os.listdir(f"/proc/{pid}/fd"):
        try:
            found += os.readlink(f"/proc/{pid}/fd/{descriptor}").startswith(str(path))
        except OSError:
            pass
    return found


LARGE = """
limits = surgetank.BufferConfig(max_size=20_000, max_memory_mb=float(os.environ["MAX_MEMORY_MB"]))
tank = surgetank.install(spans=limits)
states, reasons, until = set(), set(), time.monotonic() + 60
while tank.stats().spans.delivered < int(os.environ["COUNT"]) and time.monotonic() < until:
    health = tank.health()
    states.add(health.state.value)
    reasons.update(health.reasons)
    time.sleep(0.002)
say(books=books(tank)["spans"], states=sorted(states), reasons=sorted(reasons))
"""


@pytest.mark.parametrize("memory_mb", [1, 4, 50] if IS_FULL else [1])
@pytest.mark.parametrize("kibibytes", [64, 1024, 4000] if IS_FULL else [1024])
def test_batches_as_large_as_their_maker_may_have_come_through_heirs_of_any_size(
    collector, tmp_path, kibibytes, memory_mb
):
    """One alone may be more than the heir may hold; those behind it are not kept back, and nothing is said to be wrong for long."""
    began, per_batch = time.monotonic(), 4
    disk = Disk(SpoolSettings(path=str(tmp_path / "spool"), reserve_bytes=0), OsFilesystem(), SystemClock())
    for number in range(6):
        numbers = range(number * per_batch, (number + 1) * per_batch)
        batch = span_batch(numbers, filling=2 * kibibytes * 1024 // per_batch).batch
        assert disk.spools[Signal.SPANS].append(batch) is not None
    disk.close()
    count = 6 * per_batch
    variables = spool_variables(tmp_path / "spool", COUNT=str(count), MAX_MEMORY_MB=str(memory_mb))
    code, [found] = ended(start(LARGE, collector.endpoint, **variables), timeout=90.0)

    report = collector.report()["spans"]
    tell(
        f"batches of {kibibytes} KiB, heir's max_memory_mb {memory_mb}",
        lost=count - report["unique"],
        duplicates=report["duplicates"],
        seconds=f"{time.monotonic() - began:.1f}",
    )
    assert code == 0
    assert (report["unique"], report["duplicates"]) == (count, 0)
    assert (found["books"]["delivered"], found["books"]["dropped"], found["books"]["unaccounted"]) == (count, {}, 0)
    assert set(found["states"]) <= {"idle", "holding", "delivering"}


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
