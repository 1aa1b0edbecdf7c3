"""Real processes killed at random moments, on a real disk: what was sealed arrives, and little arrives twice.

`SURGETANK_TEST_KILLS` sets the rounds; the project's record was made with 200.
"""

import os
import random
import time
from collections import Counter

import pytest

from process.nursery import Nursery, arrived, kill
from process.programs import ended, heard, kill_all, run, start, terminate, wait_until
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("SURGETANK_TEST_KILLS", "25"))
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


@pytest.fixture
def disk(tmp_path):
    """The variables of a process that has a spool; metrics, which have none, are given up on soon."""
    return {
        "SURGETANK_PERSISTENCE_ENABLED": "true",
        "SURGETANK_SPOOL_DIR": str(tmp_path / "spool"),
        "SURGETANK_SHUTDOWN_TIMEOUT": "1.5",
    }


def drain(collector, disk):
    """Have a process without any telemetry of its own deliver what the dead have left."""
    process = start(
        """
        tank = install()
        began = time.monotonic()
        while time.monotonic() < began + 60 and not (
            time.monotonic() > began + 2.5 and all(s["spooled"] == s["in_flight"] == 0 for s in books(tank).values())
        ):
            time.sleep(0.05)
        tank.shutdown(timeout=5.0); say(**books(tank))
        """,
        collector.endpoint,
        **disk,
    )
    code, (books,) = ended(process, timeout=90)
    assert code == 0
    for signal in books.values():
        assert signal["unaccounted"] == signal["spooled"] == 0, books
        assert signal["dropped"] == {}, books
    return books


def files(disk):
    """Return the segments that are left."""
    return [name for _, _, names in os.walk(disk["SURGETANK_SPOOL_DIR"]) for name in names if name.endswith(".segment")]


def repeated_batches(collector):
    """Return how many requests repeated an earlier one's batch."""
    ids = Counter(headers.get("surgetank-batch-id") for headers in collector.headers)
    return sum(count - 1 for count in ids.values())


def test_what_was_sealed_survives_kill_9_at_any_moment(collector, disk, tmp_path):
    """Under load, with the collector up and down in turn; each worker adopts what the one before it left."""
    rng = random.Random(18)
    nursery = Nursery(collector.endpoint, tmp_path / "notes", **disk)
    for number in range(ROUNDS):
        if number % 3 == 1:
            collector.stop_listening()
        elif number % 3 == 2:
            collector.listen_again()
        before = len(nursery.sealed())
        pid = nursery.spawn()
        if number % 5:
            # Some die before they have sealed anything; most after that, however slow the machine is.
            wait_until(lambda before=before: len(nursery.sealed()) > before, 10)
        time.sleep(rng.uniform(0.05, 0.4))
        kill(pid)
    nursery.end()
    if not collector.is_listening:
        collector.listen_again()

    drain(collector, disk)

    sealed = nursery.sealed()
    assert len(sealed) > 20 * ROUNDS
    assert sealed - arrived(collector) == set()
    report = collector.report()
    # At most one batch per signal was in flight at each kill, of at most 512 items, and far fewer here.
    assert report["logs"]["duplicates"] <= 512 * ROUNDS
    assert repeated_batches(collector) <= 2 * ROUNDS
    assert files(disk) == []
    print(
        f"{ROUNDS} kills, {len(sealed)} sealed, {report['logs']} logs, {repeated_batches(collector)} batches repeated"
    )


def test_four_workers_killed_at_random_lose_nothing_that_was_sealed(collector, disk, tmp_path):
    """As a pre-fork server's; whoever is alive adopts the dead one's folder, and only one does."""
    rng = random.Random(4)
    nursery = Nursery(collector.endpoint, tmp_path / "notes", **disk)
    workers = [nursery.spawn() for _ in range(4)]
    kills = max(8, ROUNDS // 3)
    for number in range(kills):
        time.sleep(rng.uniform(0.1, 0.4))
        if number == kills // 3:
            collector.stop_listening()
        if number == 2 * kills // 3:
            collector.listen_again()
        victim = rng.randrange(4)
        kill(workers[victim])
        workers[victim] = nursery.spawn()
    time.sleep(2.5)
    for pid in workers:
        kill(pid)
    nursery.end()

    drain(collector, disk)

    assert nursery.sealed() - arrived(collector) == set()
    assert repeated_batches(collector) <= 2 * (kills + 4)
    assert files(disk) == []


def test_sigterm_in_an_outage_with_a_spool_is_quick_and_loses_nothing(collector, disk):
    """The next process delivers it, without a single item of its own."""
    process = start("install(); work(0, 2000); say(ready=1); idle()", NOBODY, **disk)
    heard(process)
    time.sleep(1.5)

    terminate(process)

    assert ended(process)[0] == -15
    drain(collector, disk)
    assert collector.report()["spans"] == {"received": 2000, "unique": 2000, "duplicates": 0}
    assert collector.report()["logs"] == {"received": 2000, "unique": 2000, "duplicates": 0}


def test_a_process_that_ends_right_after_its_work_loses_nothing(collector, disk):
    """What was not yet sealed is sealed on the way out."""
    code, _ = run("install(); work(0, 1000)", NOBODY, **disk)

    assert code == 0
    drain(collector, disk)
    assert collector.report()["spans"]["unique"] == collector.report()["logs"]["unique"] == 1000


@pytest.mark.parametrize("end", ["sys.exit(0)", "os._exit(0)", "os.kill(os.getpid(), 9)"])
def test_a_forked_child_leaves_its_living_parents_data_alone(collector, disk, end):
    """Whichever way it ends: nothing of the parent's is deleted, repeated or adopted."""
    process = start(
        f"""
        tank = install(); work(0, 500); time.sleep(1.2)
        pid = os.fork()
        if pid == 0:
            work(10_000, 50); time.sleep(2.5)
            say(child=books(tank))
            {end}
        os.waitpid(pid, 0)
        say(parent=books(tank))
        tank.shutdown()
        say(parent=books(tank))
        """,
        NOBODY,
        **disk,
    )
    code, words = ended(process)

    assert code == 0
    assert words[0]["child"]["spans"]["recovered"] == 0
    assert words[0]["child"]["spans"]["offered"] == 50
    assert words[1]["parent"]["spans"]["queued"] + words[1]["parent"]["spans"]["in_flight"] == 500 + (
        words[1]["parent"]["spans"]["recovered"] - words[1]["parent"]["spans"]["spooled"]
    )
    drain(collector, disk)
    assert collector.report()["spans"] == {"received": 550, "unique": 550, "duplicates": 0}
    assert collector.report()["logs"] == {"received": 550, "unique": 550, "duplicates": 0}


def test_a_burst_that_memory_cannot_hold_goes_to_disk(collector, disk):
    """The buffer holds 2,048 items by default; the outage makes ten times as many."""
    process = start(
        """
        tank = surgetank.install()
        for n in range(0, 20_000, 100):
            work(n, 100); time.sleep(0.01)
        time.sleep(1.5)
        say(**books(tank)); tank.shutdown()
        """,
        NOBODY,
        **disk,
    )
    code, (books,) = ended(process, timeout=60)

    assert code == 0
    assert books["spans"]["dropped"] == books["logs"]["dropped"] == {}
    assert books["spans"]["spooled"] > 15_000
    drain(collector, disk)
    assert collector.report()["spans"]["unique"] == collector.report()["logs"]["unique"] == 20_000
