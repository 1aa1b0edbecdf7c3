"""What a process cannot deliver at its end is on disk, of every signal, wherever there is a folder to store it in."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider

from fakes.pipelines import Rig
from fakes.spools import settings
from fakes.tanks import stepped_tank
from process.programs import ended, heard, kill_all, own_sums, run, start, terminate
from surgetank import BufferConfig, SpoolConfig
from surgetank.model import Signal
from surgetank.spool.disk import Disk
from surgetank.testing import ManualClock, silence
from surgetank.testing.collector import Collector
from surgetank.testing.filesystem import MemoryFilesystem

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


def inherited(filesystem, signal=Signal.SPANS):
    """Return the items of a signal that a later process finds."""
    heir = Disk(settings(), filesystem.process(), ManualClock())
    heir.adopt_orphans()
    return heir.spools[signal].changes().recovered


def metrics_tank(monkeypatch, filesystem, **more):
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    tank, _ = stepped_tank(silence(), filesystem=filesystem, spool=SpoolConfig(dir="/spool", reserve_mb=0), **more)
    meter = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False).get_meter("app")
    return tank, meter


def test_the_last_collection_of_metrics_is_stored_in_an_outage(monkeypatch):
    """With default settings metrics are not written ahead; at the end there is nowhere else for them."""
    filesystem = MemoryFilesystem()
    tank, meter = metrics_tank(monkeypatch, filesystem)
    meter.create_counter("work").add(3)

    assert tank.shutdown()

    books = tank.stats().metrics
    assert (books.spooled, dict(books.dropped), books.unaccounted) == (books.offered, {}, 0)
    assert books.offered == inherited(filesystem, Signal.METRICS) > 0


def test_what_was_collected_before_the_end_is_stored_too(monkeypatch):
    """A collection that has waited in memory through the outage."""
    filesystem = MemoryFilesystem()
    tank, meter = metrics_tank(monkeypatch, filesystem)
    counter = meter.create_counter("work")
    counter.add(3)
    tank.force_flush(1.0)
    counter.add(4)

    assert tank.shutdown()

    books = tank.stats().metrics
    assert books.spooled == books.offered == inherited(filesystem, Signal.METRICS) > 1


def test_a_signal_that_is_to_stay_off_the_disk_stays_off_it(monkeypatch):
    """Who says `persistence_enabled=False` has a reason, and it holds at the end too."""
    filesystem = MemoryFilesystem()
    tank, meter = metrics_tank(monkeypatch, filesystem, metrics=BufferConfig(persistence_enabled=False))
    meter.create_counter("work").add(3)

    assert not tank.shutdown()

    assert tank.stats().metrics.dropped == {"shutdown": tank.stats().metrics.offered}
    assert inherited(filesystem, Signal.METRICS) == 0


def test_at_the_end_the_normal_lane_is_stored_where_only_the_critical_one_was():
    filesystem = MemoryFilesystem()
    rig = Rig(otherwise=silence(), filesystem=filesystem, persist="critical")
    rig.offer(*range(10))
    rig.offer(10, is_error=True)

    assert rig.pipeline.shutdown(5.0)
    rig.disk.close()

    assert (rig.stats.spooled, inherited(filesystem)) == (11, 11)


def test_a_batch_in_the_hands_of_a_sender_that_hangs_is_stored():
    """It would be lost with the process, which does not wait for the sender."""
    filesystem = MemoryFilesystem()
    rig = Rig(otherwise=silence(), filesystem=filesystem, spool={"durability": "memory"})
    rig.offer(*range(10))
    rig.seal()
    assert rig.pipeline._reservoir.lease(rig.clock.monotonic()) is not None
    rig.clock.advance(1)

    assert rig.pipeline.shutdown(0.0)
    rig.disk.close()

    assert (rig.stats.spooled, inherited(filesystem)) == (10, 10)


def test_what_there_was_no_time_to_seal_is_stored():
    """A deadline that has passed before anything was encoded costs nothing either."""
    filesystem = MemoryFilesystem()
    rig = Rig(otherwise=silence(), filesystem=filesystem)
    rig.offer(*range(1000))

    assert rig.pipeline.shutdown(0.0)
    rig.disk.close()

    assert (rig.stats.spooled, inherited(filesystem)) == (1000, 1000)


def test_an_end_in_an_outage_does_not_wait_for_what_it_can_store(monkeypatch):
    """One attempt, then the disk: metrics keep nobody waiting until the deadline."""
    tank, meter = metrics_tank(monkeypatch, MemoryFilesystem(), shutdown_timeout=60.0)
    meter.create_counter("work").add(3)
    began = tank._clock.monotonic()

    assert tank.shutdown()

    assert tank._clock.monotonic() - began < 2.0


def test_a_sigterm_that_does_not_end_the_process_stores_all_the_same(monkeypatch):
    """Process 1 of a container is spared, and a SIGKILL follows."""
    filesystem = MemoryFilesystem()
    tank, meter = metrics_tank(monkeypatch, filesystem)
    meter.create_counter("work").add(3)

    tank.expect_kill()

    filesystem.die()
    assert inherited(filesystem, Signal.METRICS) == tank.stats().metrics.offered > 0


@pytest.mark.slow
@pytest.mark.parametrize("durability", ["os", "memory"])
def test_sigterm_in_an_outage_and_the_next_process_delivers_every_signal(collector, tmp_path, durability):
    """The last collection of metrics included, with the settings that everybody has."""
    stored = {
        "SURGETANK_PERSISTENCE_ENABLED": "true",
        "SURGETANK_SPOOL_DIR": str(tmp_path / "spool"),
        "SURGETANK_SPOOL_DURABILITY": durability,
        "SURGETANK_SHUTDOWN_TIMEOUT": "3",
    }
    process = start("install(); work(0, 100); say(ready=1); idle()", NOBODY, **stored)
    heard(process)
    terminate(process)
    assert ended(process)[0] == -15

    code, (words,) = run(
        """
        tank = install()
        until = time.monotonic() + 20
        wanted = {"spans": 100, "metrics": 1, "logs": 100}
        while time.monotonic() < until:
            stats = tank.stats().by_signal()
            if all(stats[signal].delivered >= wanted[signal.value] for signal in stats): break
            time.sleep(0.02)
        tank.shutdown(20.0)
        say(**books(tank))
        """,
        collector.endpoint,
        **stored,
    )

    assert code == 0
    report = collector.report()
    for signal in ("spans", "logs"):
        assert report[signal] == {"received": 100, "unique": 100, "duplicates": 0}, (report, words)
    assert own_sums(report) == {"work.done": 100}, (report, words)
