"""What a tank tells is plain data: copied, pickled, compared, printed and turned into JSON like any other."""

import copy
import dataclasses
import importlib
import json
import pickle

import pytest
from opentelemetry.sdk.trace import TracerProvider

import surgetank
from fakes.tanks import stepped_tank
from surgetank import (
    BreakerState,
    BufferConfig,
    DropReason,
    HealthState,
    OutletConfig,
    Signal,
    SignalStats,
    Tank,
    TankStats,
)
from surgetank.frozen import Counts
from surgetank.testing import ManualClock, silence


@pytest.fixture
def tank():
    """One in an outage, which has lost something."""
    tank, _ = stepped_tank(silence(), spans=BufferConfig(max_size=2), headers={"api-key": "s3cret"})
    provider = TracerProvider()
    provider.add_span_processor(tank.span_processor)
    for _ in range(5):
        provider.get_tracer("app").start_span("work").end()
    tank.force_flush(0.1)
    yield tank
    tank.shutdown(0)


def told(tank):
    """Return everything that a tank hands out."""
    stats = tank.stats()
    return [stats, stats.spans, tank.health(), tank.pressure.current, *tank.outlets.values()]


def test_whatever_a_tank_tells_can_be_copied_and_pickled(tank):
    """And is then equal to what it was."""
    for each in told(tank):
        assert copy.copy(each) == each
        assert copy.deepcopy(each) == each
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            assert pickle.loads(pickle.dumps(each, protocol)) == each
        assert json.loads(json.dumps(dataclasses.asdict(each)))
        assert dataclasses.replace(each) == each


def test_statistics_are_data_with_every_field(tank):
    """For status pages and tests of the application's own."""
    stats = tank.stats()
    data = stats.as_data()

    assert json.loads(json.dumps(data)) == data
    assert set(data) == {field.name for field in dataclasses.fields(TankStats)}
    assert set(data["spans"]) == {field.name for field in dataclasses.fields(SignalStats)} | {"unaccounted"}
    assert data["spans"] == stats.spans.as_data()
    assert (data["spans"]["offered"], data["spans"]["unaccounted"]) == (5, 0)
    data["spans"]["dropped"]["queue_full"] = 0
    assert stats.spans.dropped["queue_full"] == 3


def test_a_reason_for_which_nothing_was_dropped_reads_0(tank):
    """By its word or by its name."""
    dropped = tank.stats().spans.dropped

    assert dropped[DropReason.QUEUE_FULL] == dropped["queue_full"] == 3
    assert (dropped[DropReason.EXPIRED], dropped["spool_full"], SignalStats().rejected_by_cause["400"]) == (0, 0, 0)
    assert dict(dropped) == {"queue_full": 3}


@pytest.mark.parametrize(
    "change",
    [
        lambda counts: counts.__setitem__("a", 1),
        lambda counts: counts.__delitem__("a"),
        lambda counts: counts.update(a=1),
        lambda counts: counts.clear(),
        lambda counts: counts.pop("a"),
        lambda counts: counts.popitem(),
        lambda counts: counts.setdefault("b", 1),
        lambda counts: counts.__ior__({"b": 1}),
    ],
)
def test_statistics_are_a_snapshot_that_nobody_changes(change):
    """By mistake at least."""
    counts = Counts(a=5)
    with pytest.raises(TypeError, match="cannot be changed"):
        change(counts)

    assert counts == {"a": 5}


def test_states_are_words(tank):
    """They compare with text, and are printed as it."""
    assert tank.health().state == "losing"
    assert tank.stats().spans.breaker in ("closed", "open", "half_open")
    assert BreakerState.OPEN == "open"
    assert BreakerState.OPEN != "closed"
    for word in (*BreakerState, *DropReason, *HealthState, *Signal):
        assert (f"{word}", str(word), f"{word:>4}".strip(), json.loads(json.dumps(word))) == (word.value,) * 4
        assert {word: 1}[word.value] == 1


def test_a_repr_is_a_short_line(tank):
    """With what is not as it is by default, and no secret."""
    stats = tank.stats()

    assert repr(SignalStats()) == "SignalStats()"
    assert repr(stats.spans).startswith("SignalStats(offered=5, dropped={'queue_full': 3}, queued=2")
    assert "metrics=" not in repr(stats)
    assert repr(tank).startswith("<Tank to http://localhost:4318: losing; offered spans 5,")
    for each in (*told(tank), tank):
        assert len(repr(each)) < 300
        assert "\n" not in repr(each)
        assert "s3cret" not in repr(each)
    assert "unaccounted=-1" in repr(SignalStats(delivered=1))


def test_a_tank_ends_with_its_with_block():
    """Delivered or given up, as by `shutdown`, and whatever was raised in it."""
    with Tank(is_threaded=False, handle_sigterm=False, clock=ManualClock()) as tank:
        assert not tank.is_shut_down
    assert tank.is_shut_down
    assert tank.health().state == "ended"

    with pytest.raises(ZeroDivisionError), Tank(is_threaded=False, handle_sigterm=False) as other:
        raise ZeroDivisionError
    assert other.is_shut_down


def test_types_that_annotations_need_can_be_imported():
    """Whatever a public method takes or returns, and whatever a callback is given."""
    for name in ("Health", "HealthState", "SpanFields", "LogItem", "OutletConfig", "TankSettings", "BreakerState"):
        assert name in surgetank.__all__
    for name in surgetank.__all__:
        found = getattr(surgetank, name)
        assert getattr(importlib.import_module(found.__module__), found.__name__) is found
        assert name in dir(surgetank)


def test_equal_outlets_are_equal_whatever_their_headers_are_kept_in():
    """The headers that a user gives may be any mapping."""
    assert OutletConfig(url="http://c", headers={"a": "b"}) == OutletConfig(url="http://c", headers=Counts({"a": "b"}))
