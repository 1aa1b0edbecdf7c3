"""The forecast's arithmetic: against a real pipeline that is filled until it loses, and against its own remedies."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.pipelines import Rig
from fakes.requests import span
from surgetank.config import MEBIBYTE, Environment, resolve_limits
from surgetank.model import FOREVER, Signal
from surgetank.otlp.spans import snapshot
from surgetank.sizing import Buffer, Disk, Load, forecast, parse_duration, parse_rates
from surgetank.testing.filesystem import MemoryFilesystem

BATCH = 50


def buffers(**variables):
    """Return what each signal may have in an environment."""
    environment = Environment(variables)
    return {signal: Buffer.of(resolve_limits(signal, None, environment)) for signal in Signal}


def held_until_loss(rig, most):
    """Offer batches until something is lost; returns the items offered before, and the bytes that one had when sealed."""
    rng = random.Random(1)
    offered = 0
    while offered < most:
        for number in range(offered, offered + BATCH):
            rig.pipeline.offer(snapshot(span(number, attributes={"payload": rng.randbytes(60).hex()})))
        rig.seal()
        if rig.disk is not None:
            rig.tend()
        if rig.stats.dropped:
            return offered, rig.stats.sealed_bytes / rig.stats.sealed
        offered += BATCH
    raise AssertionError(f"nothing was lost of {most}")


def predicted(rig, size, disk=None):
    """Return the items that are held according to the forecast, at a rate that makes batches of the same size."""
    buffer = Buffer.of(rig.limits)
    found = forecast({Signal.SPANS: Load(rate=1000.0, size=size)}, {Signal.SPANS: buffer}, disk, outage=1.0)
    return found.signals[Signal.SPANS].lasts * 1000.0


def test_memory_holds_as_many_items_as_the_forecast_says():
    """Where their number is the limit."""
    rig = Rig(max_size=1000, max_export_batch_size=BATCH)
    held, size = held_until_loss(rig, 2000)
    assert held == predicted(rig, size) == 1000


def test_memory_holds_as_many_bytes_as_the_forecast_says():
    """Where their size is the limit; the last ones are objects, which are larger."""
    rig = Rig(max_size=100_000, max_memory_mb=2, max_export_batch_size=BATCH)
    held, size = held_until_loss(rig, 100_000)
    assert held == pytest.approx(predicted(rig, size), rel=0.05)


def test_the_spool_holds_as_much_as_the_forecast_says():
    """What memory cannot hold is on disk already; the oldest segment goes first, as a whole."""
    limit = 4 * MEBIBYTE
    spool = {"max_bytes": limit, "segment_bytes": 256 * 1024, "reserve_bytes": 0}
    rig = Rig(filesystem=MemoryFilesystem(), spool=spool, max_size=500, max_export_batch_size=BATCH)
    held, size = held_until_loss(rig, 200_000)
    assert held == pytest.approx(predicted(rig, size, Disk(limit=limit)), rel=0.15)
    assert held > 500


def test_a_signal_that_is_not_stored_has_its_memory_only():
    """By default metrics."""
    loads = {signal: Load(rate=100.0, size=50.0) for signal in Signal}
    found = forecast(loads, buffers(), Disk(limit=512 * MEBIBYTE), outage=3600.0)
    assert found.signals[Signal.METRICS].lasts == 50.0
    assert found.signals[Signal.METRICS].lost == 355_000
    assert found.signals[Signal.SPANS].lost == found.signals[Signal.LOGS].lost == 0
    assert found.remedies[0].settings == {"SURGETANK_METRICS_PERSISTENCE_ENABLED": "true"}
    assert set(found.remedies[1].settings) == {"SURGETANK_METRICS_MAX_SIZE", "SURGETANK_METRICS_MAX_MEMORY_MB"}


def test_processes_have_a_memory_each_and_share_the_disk():
    """Two have twice the memory for the same load, and batches that are half as full."""
    loads = {Signal.SPANS: Load(rate=100.0, size=50.0)}
    one, two = (forecast(loads, buffers(), Disk(limit=MEBIBYTE), outage=60.0, processes=n) for n in (1, 2))
    assert two.signals[Signal.SPANS].memory_lasts == 2 * one.signals[Signal.SPANS].memory_lasts
    assert 0.5 < two.signals[Signal.SPANS].spool_lasts / one.signals[Signal.SPANS].spool_lasts < 1


def test_what_is_too_old_is_lost_even_where_there_is_room():
    """And the remedy says so."""
    disk = Disk(limit=512 * MEBIBYTE, max_age=3600.0)
    found = forecast({Signal.SPANS: Load(rate=10.0, size=50.0)}, buffers(), disk, outage=7200.0)
    assert found.signals[Signal.SPANS].lasts == 3600.0
    assert set(found.remedies[0].settings) == {"SURGETANK_SPOOL_MAX_AGE"}


def test_disk_that_comes_after_memory_adds_to_it():
    """With durability `memory` nothing is in both."""
    loads = {Signal.SPANS: Load(rate=100.0, size=50.0)}
    disk = Disk(limit=MEBIBYTE, is_write_ahead=False)
    found = forecast(loads, buffers(), disk, outage=60.0).signals[Signal.SPANS]
    assert found.lasts == found.memory_lasts + found.spool_lasts


def test_a_volume_without_room_is_a_remedy_with_a_note():
    """No setting makes room on it."""
    disk = Disk(limit=512 * MEBIBYTE, free=MEBIBYTE)
    found = forecast({Signal.SPANS: Load(rate=1000.0, size=100.0)}, buffers(), disk, outage=600.0)
    assert "more free space" in found.remedies[0].note


def test_nothing_comes_and_nothing_is_lost():
    """Without a rate memory lasts for ever, which JSON cannot say."""
    found = forecast({Signal.LOGS: Load(rate=0.0, size=50.0)}, buffers(), None, outage=3600.0)
    assert found.lost == 0
    assert found.signals[Signal.LOGS].memory_lasts == FOREVER
    assert found.as_data()["signals"]["logs"]["lasts_seconds"]["memory"] is None
    assert found.remedies == ()


RATES = st.dictionaries(st.sampled_from(list(Signal)), st.floats(0.01, 20_000), min_size=1)


@settings(max_examples=300, deadline=None)
@given(
    rates=RATES,
    size=st.floats(5, 2000),
    outage=st.floats(1, 200_000),
    limit=st.integers(1, 2000),
    has_disk=st.booleans(),
    is_write_ahead=st.booleans(),
    processes=st.integers(1, 20),
)
def test_each_remedy_would_be_enough(rates, size, outage, limit, has_disk, is_write_ahead, processes):
    """Its settings, resolved as a tank resolves them, make a forecast without a loss."""
    loads = {signal: Load(rate=rate, size=size) for signal, rate in rates.items()}
    disk = None
    if has_disk:
        disk = Disk(limit=limit * MEBIBYTE, max_age=172_800.0, is_write_ahead=is_write_ahead)
    found = forecast(loads, buffers(), disk, outage=outage, processes=processes)
    assert found.lost or not found.remedies
    assert found.remedies or not found.lost or outage * max(rates.values()) > 1e7
    for remedy in found.remedies:
        chosen = dict(remedy.settings)
        after = disk
        if disk is not None:
            after = Disk(
                limit=int(float(chosen.pop("SURGETANK_SPOOL_MAX_MB", limit)) * MEBIBYTE),
                max_age=float(chosen.pop("SURGETANK_SPOOL_MAX_AGE", disk.max_age)),
                is_write_ahead=is_write_ahead,
            )
        again = forecast(loads, buffers(**chosen), after, outage=outage, processes=processes)
        assert again.lost == 0


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("30min", 1800), ("5m", 300), ("2h", 7200), ("1.5d", 129_600)]
)
def test_lengths_of_time_are_read_as_people_write_them(text, seconds):
    """In seconds where nothing is said."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-1h", "0", "nan", "inf", "1 week"])
def test_other_lengths_are_refused(text):
    """With ValueError, which the command turns into words."""
    with pytest.raises(ValueError):
        parse_duration(text)


def test_rates_are_read_by_signal():
    """Any that are known."""
    assert parse_rates("spans=500, logs=0.5") == {Signal.SPANS: 500.0, Signal.LOGS: 0.5}
    for text in ("spans", "traces=1", "spans=-1", "spans=inf", ""):
        with pytest.raises(ValueError):
            parse_rates(text)
    assert math.isclose(parse_rates("metrics=1e3")[Signal.METRICS], 1000)
