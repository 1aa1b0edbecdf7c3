"""Estimates: what a waiting object keeps alive, cheaply and without ever raising."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.metrics._internal.point import Gauge, HistogramDataPoint, Metric, NumberDataPoint
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Link, SpanContext

from strategies import sdk_objects as sdk
from surgetank.otlp.logs import LogCodec, LogItem, snapshot
from surgetank.otlp.metrics import MetricCodec, MetricPoint
from surgetank.otlp.spans import SpanCodec
from surgetank.otlp.spans import snapshot as snapshot_of_span

CONTEXT = SpanContext(1, 2, is_remote=False)
RESOURCE = Resource({})


def span(**fields: Any) -> ReadableSpan:
    return ReadableSpan(**{"name": "n", "context": CONTEXT, "resource": RESOURCE, **fields})


def kept_span(**fields: Any) -> Any:
    return snapshot_of_span(span(**fields))


def retained(make: Callable[[int], Any], count: int = 300) -> tuple[list[Any], float]:
    """Return objects and the bytes that each of them keeps alive."""
    make(0)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        made = [make(number) for number in range(count)]
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return made, (after - before) / count


class Keeper(SpanProcessor, LogRecordProcessor):
    def __init__(self) -> None:
        self.last: Any = None

    def on_end(self, span: ReadableSpan) -> None:
        self.last = snapshot_of_span(span)

    def on_emit(self, log_record: Any) -> None:
        self.last = snapshot(log_record)

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


# Keys are constants of the instrumentation, so a span does not keep them alive by itself.
KEYS = [f"http.request.key{index}" for index in range(40)]


def attributes(number: int, count: int) -> dict[str, Any]:
    kinds: list[Callable[[int], Any]] = [
        lambda seed: f"/users/{seed}",
        lambda seed: 1_000_000 + seed,
        lambda seed: seed / 7,
        lambda seed: seed % 2 == 0,
        lambda seed: "GET",
    ]
    return {key: kinds[index % 5](100 * number + index) for index, key in enumerate(KEYS[:count])}


@pytest.mark.parametrize("count", [0, 3, 10, 40])
@pytest.mark.parametrize("events", [0, 1, 5])
@pytest.mark.parametrize("links", [0, 2])
def test_an_ordinary_span_is_estimated_within_a_fifth_below_and_three_above(count, events, links):
    """0.8 to 1.6 times what it really keeps alive, made by a real tracer."""
    keeper = Keeper()
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(keeper)
    tracer = provider.get_tracer("t")

    def make(number: int) -> Any:
        linked = [Link(CONTEXT, attributes(number, 2)) for _ in range(links)]
        own = tracer.start_span("GET /users", attributes=attributes(number, count), links=linked)
        for _ in range(events):
            own.add_event("retry", attributes(number, 3))
        own.end()
        return keeper.last

    spans, real = retained(make)
    estimated = sum(map(SpanCodec().estimate, spans)) / len(spans)
    assert 0.8 * real <= estimated <= 1.6 * real, (real, estimated)


@pytest.mark.parametrize("count", [0, 5, 20])
def test_an_ordinary_log_is_estimated_within_a_fifth_below_and_three_above(count):
    """As a snapshot, which is what waits."""
    keeper = Keeper()
    provider = LoggerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(keeper)
    logger = provider.get_logger("l")

    def make(number: int) -> LogItem:
        record = LogRecord(
            timestamp=1_700_000_000_000_000_000 + number,
            observed_timestamp=1_700_000_000_000_000_000 + number,
            body=f"user {number} logged in from somewhere",
            severity_number=SeverityNumber.INFO,
            severity_text="INFO",
            attributes=attributes(number, count),
        )
        logger.emit(record)
        return keeper.last

    items, real = retained(make)
    estimated = sum(map(LogCodec().estimate, items)) / len(items)
    assert 0.8 * real <= estimated <= 1.6 * real, (real, estimated)


@pytest.mark.parametrize("buckets", [None, 15, 160])
def test_an_ordinary_data_point_is_estimated_within_a_fifth_below_and_three_above(buckets):
    """Number points and histograms."""
    metric = Metric("m", None, None, Gauge([]))

    def make(number: int) -> MetricPoint:
        stamp = 1_700_000_000_000_000_000 + number
        if buckets is None:
            point: Any = NumberDataPoint(attributes(number, 4), stamp, stamp, 1_000_000 + number)
        else:
            counts = [1000 + number + index for index in range(buckets)]
            bounds = [number + index / 2 for index in range(buckets - 1)]
            point = HistogramDataPoint(
                attributes(number, 4), stamp, stamp, 1000, 1.5 * number, counts, bounds, 0.5, 9.5
            )
        return MetricPoint(1, RESOURCE, None, metric, point)

    points, real = retained(make)
    estimated = sum(map(MetricCodec().estimate, points)) / len(points)
    assert 0.8 * real <= estimated <= 1.6 * real, (real, estimated)


PAYLOADS = {
    "ascii": "x" * 1_000_000,
    "two bytes": "\u0416" * 500_000,
    "four bytes": "\U0001f600" * 250_000,
    "bytes": bytes(1_000_000),
    "list": ["x" * 500_000, "y" * 500_000],
    "map": {"a": {"b": ["x" * 1_000_000]}},
    "map key": {"x" * 1_000_000: 1},
    "many": [str(number) for number in range(20_000)],
    "int": 1 << 8_000_000,
}


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS.keys())
def test_a_large_value_counts_at_its_real_size_wherever_it_stands(payload):
    """Or the limit in bytes would be none."""
    given = {"a": 1, "large": payload, "b": "x"}
    for item in (
        kept_span(attributes=given),
        kept_span(events=[Event("e", given, 1)]),
        kept_span(links=[Link(CONTEXT, given)]),
    ):
        assert 1_000_000 <= SpanCodec().estimate(item) <= 3_000_000
    log = LogItem(0, 0, 0, 0, 0, None, None, payload, given, 0, None, RESOURCE, None)
    assert 2_000_000 <= LogCodec().estimate(log) <= 6_000_000
    point = MetricPoint(1, RESOURCE, None, None, NumberDataPoint(given, 1, 2, 3))
    assert 1_000_000 <= MetricCodec().estimate(point) <= 3_000_000


def test_large_names_and_keys_count_too():
    """Few are large, but nothing limits them."""
    assert SpanCodec().estimate(kept_span(name="\U0001f600" * 250_000)) >= 1_000_000
    assert SpanCodec().estimate(kept_span(events=[Event("x" * 1_000_000, {}, 1)])) >= 1_000_000
    assert SpanCodec().estimate(kept_span(attributes={"\U0001f600" * 250_000: 1})) >= 1_000_000


def test_many_short_values_outside_ascii_count_fully():
    """Four bytes a character add up."""
    given = {f"k{number}": "\U0001f600" * 60 for number in range(100)}
    assert SpanCodec().estimate(kept_span(attributes=given)) >= 100 * 60 * 4


def test_circles_and_shared_containers_are_walked_once():
    """What is one object takes the memory of one object; forty levels of pairs are forty lists."""
    circle: list[Any] = []
    circle.append(circle)
    wide: Any = "leaf"
    for _ in range(40):
        wide = [wide, wide]
    deep: Any = "leaf"
    for _ in range(100_000):
        deep = [deep]
    codec = LogCodec()
    for body, low, high in ((circle, 500, 2000), (wide, 3000, 10_000), (deep, 6_000_000, 20_000_000)):
        assert low <= codec.estimate(LogItem(0, 0, 0, 0, 0, None, None, body, None, 0, None, RESOURCE, None)) <= high
    while isinstance(deep, list):
        # One by one, because an old Python overflows its stack freeing them all at once.
        deep = deep.pop()


class Hostile:
    def __sizeof__(self) -> int:
        raise RuntimeError

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


@pytest.mark.parametrize("item", [None, object(), Hostile(), 5], ids=["none", "object", "hostile", "int"])
def test_an_object_of_any_kind_has_an_estimate(item):
    """It runs on the application's thread, where nothing of ours may raise."""
    for codec in (SpanCodec(), LogCodec(), MetricCodec()):
        assert codec.estimate(item) > 0


def test_hostile_values_have_an_estimate():
    """The same inside attributes."""
    assert SpanCodec().estimate(kept_span(attributes={"a": Hostile(), 5: [Hostile()]})) > 0


@settings(max_examples=60, deadline=None)
@given(st.one_of(sdk.spans.map(sdk.kept), sdk.log_records().map(snapshot)))
def test_an_estimate_is_never_below_the_payload(item):
    """Over the whole space of items: at least as much as the encoded attributes and body take."""
    codec: Any = LogCodec() if isinstance(item, LogItem) else SpanCodec()
    request = codec.open()
    request.add(item)
    assert codec.estimate(item) >= request.size / 2
