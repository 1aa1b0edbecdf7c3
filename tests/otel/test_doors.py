"""The doors into the SDK, with real providers on a tank without threads or sockets."""

import logging
import threading

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Status, StatusCode

from fakes.tanks import stepped_tank
from surgetank.driver import own_work
from surgetank.model import Signal
from surgetank.otel.shim import suppressed
from surgetank.testing import delivered, hold, silence


def traced(tank, **kwargs):
    provider = TracerProvider(shutdown_on_exit=False, **kwargs)
    provider.add_span_processor(tank.span_processor)
    return provider, provider.get_tracer("test")


def logged(tank):
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(tank.log_record_processor)
    return provider


def measured(tank, **kwargs):
    provider = MeterProvider(metric_readers=[tank.metric_reader], shutdown_on_exit=False, **kwargs)
    return provider, provider.get_meter("test")


def test_spans_arrive():
    """From `end` to the request's bytes."""
    tank, received = stepped_tank()
    _, tracer = traced(tank)
    with tracer.start_as_current_span("parent"), tracer.start_as_current_span("child"):
        pass

    assert tank.force_flush(5.0)

    assert sorted(span.name for span in received.spans()) == ["child", "parent"]
    assert tank.stats().spans.delivered == 2


def test_unsampled_spans_are_not_offered():
    """They are none of our business."""
    tank, received = stepped_tank()
    _, tracer = traced(tank, sampler=ALWAYS_OFF)
    with tracer.start_as_current_span("unseen"):
        pass

    assert tank.force_flush(5.0)

    assert tank.stats().spans.offered == 0
    assert not received.spans()


def test_an_error_span_is_critical():
    """Its batch is its own."""
    tank, received = stepped_tank()
    _, tracer = traced(tank)
    tracer.start_span("fine").end()
    failed = tracer.start_span("failed")
    failed.set_status(Status(StatusCode.ERROR))
    failed.end()

    tank.force_flush(5.0)

    assert [[span.name for span in request] for request in received.span_requests()] in (
        [["failed"], ["fine"]],
        [["fine"], ["failed"]],
    )


def test_log_records_arrive_as_they_were_when_emitted():
    """A later processor that changes the record changes its own copy."""
    tank, received = stepped_tank()
    provider = logged(tank)

    record = LogRecord(body="hello", severity_number=SeverityNumber.INFO, attributes={"n": 1})
    provider.get_logger("app").emit(record)
    tank.force_flush(5.0)

    (arrived,) = received.logs()
    assert arrived.body.string_value == "hello"
    assert arrived.severity_number == 9


@pytest.mark.parametrize("name", ["surgetank", "surgetank.delivery"])
def test_our_own_log_lines_never_enter_the_log_pipeline(name):
    """Otherwise an outage would feed itself."""
    tank, _ = stepped_tank()

    logged(tank).get_logger(name).emit(LogRecord(body="outage began"))

    assert tank.stats().logs.offered == 0


def test_a_logger_that_only_begins_like_ours_is_the_applications():
    """`surgetanker` is not `surgetank`."""
    tank, _ = stepped_tank()

    logged(tank).get_logger("surgetanker").emit(LogRecord(body="mine"))

    assert tank.stats().logs.offered == 1


def test_what_libraries_log_on_our_threads_is_not_taken():
    """The HTTP client's debug lines about our own sends are nobody's telemetry."""
    tank, _ = stepped_tank()
    logger = logged(tank).get_logger("urllib3")

    with own_work(suppressed):
        logger.emit(LogRecord(body="POST /v1/logs"))
    logger.emit(LogRecord(body="POST /orders"))

    assert tank.stats().logs.offered == 1


def test_sends_run_under_instrumentation_suppression():
    """An instrumented HTTP client asks this key before it traces."""
    from opentelemetry import context

    seen = []

    def look(batch):
        seen.append(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
        return delivered()

    tank, _ = stepped_tank(answer=look)
    _, tracer = traced(tank)
    tracer.start_span("x").end()
    tank.force_flush(5.0)

    assert seen == [True]
    assert context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY) is None


def test_metrics_arrive_with_the_flush():
    """A flush collects first."""
    tank, received = stepped_tank()
    _, meter = measured(tank)
    meter.create_counter("orders").add(3, {"kind": "book"})

    assert tank.force_flush(5.0)

    (point,) = received.metric_points("orders")
    assert point.as_int == 3
    assert tank.stats().metrics.delivered == 1


def test_a_reader_without_a_provider_is_silent(caplog):
    """`tank.force_flush` must not warn about a door that nobody opened."""
    tank, _ = stepped_tank()
    _ = tank.metric_reader

    assert tank.force_flush(1.0)
    assert not caplog.records


def test_a_callback_that_fails_costs_one_collection(caplog):
    """The next one is a new chance; nothing is raised into the application."""
    tank, received = stepped_tank()
    _, meter = measured(tank)
    faults = [RuntimeError("defect in the callback")]

    def observe(options):
        if faults:
            raise faults.pop()
        from opentelemetry.metrics import Observation

        return [Observation(7)]

    meter.create_observable_gauge("depth", callbacks=[observe])
    tank.force_flush(5.0)
    tank.force_flush(5.0)

    assert [point.as_int for point in received.metric_points("depth")] == [7]


def test_delta_totals_are_exact_over_failed_sends(monkeypatch):
    """What could not be delivered at first is delivered later, once."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    answers = [silence(), silence(), delivered()]
    tank, received = stepped_tank(answer=lambda batch: answers.pop(0) if answers else delivered())
    _, meter = measured(tank)
    counter = meter.create_counter("orders")
    for amount in (5, 7, 11):
        counter.add(amount)
        tank.force_flush(0.01)
    tank.force_flush(60.0)

    assert sum(point.as_int for point in received.metric_points("orders")) == 23


def test_while_the_outlet_is_closed_off_collections_become_rarer():
    """2, 4, 8, 16, 16 … intervals apart, and at once again when it is open."""
    tank, _ = stepped_tank(answer=hold(), metric_export_interval=1.0)
    reader = tank.metric_reader
    _, meter = measured(tank)
    meter.create_counter("n").add(1)
    tank.force_flush(0.01)
    collections = []
    for second in range(1, 50):
        before = tank.stats().metrics.offered
        tank._clock.advance(1.0)
        reader._tick()
        if tank.stats().metrics.offered > before:
            collections.append(second)

    assert collections == [1, 3, 7, 15, 31, 47]


def test_closing_one_door_closes_that_signal_only():
    """The tracer provider's shutdown leaves logs and metrics alone."""
    tank, _ = stepped_tank()
    provider, tracer = traced(tank)
    tracer.start_span("x").end()
    provider.shutdown()
    logged(tank).get_logger("app").emit(LogRecord(body="still here"))

    assert tank.stats().spans.delivered == 1
    assert tank.stats().logs.queued == 1


def test_doors_that_close_in_a_row_share_one_deadline():
    """Three dead providers cost one `shutdown_timeout`, not three."""
    tank, _ = stepped_tank(answer=silence(), shutdown_timeout=5.0)
    traces, tracer = traced(tank)
    logs = logged(tank)
    meters, meter = measured(tank)
    tracer.start_span("x").end()
    logs.get_logger("app").emit(LogRecord(body="x"))
    meter.create_counter("n").add(1)
    began = tank._clock.monotonic()

    traces.shutdown()
    logs.shutdown()
    meters.shutdown()

    assert tank._clock.monotonic() - began <= 5.0
    assert all(s.unaccounted == 0 and s.dropped["shutdown"] == 1 for s in (tank.stats().spans, tank.stats().logs))


def test_a_whole_outage_is_two_lines(caplog):
    """Three signals, many failures, one beginning and one end with counts."""
    answers = {"up": False}
    tank, _ = stepped_tank(answer=lambda batch: delivered() if answers["up"] else silence())
    _, tracer = traced(tank)
    logger = logged(tank).get_logger("app")
    with caplog.at_level(logging.INFO, logger="surgetank"):
        for _ in range(200):
            tracer.start_span("x").end()
            logger.emit(LogRecord(body="x"))
            for pipeline in tank._pipelines.values():
                pipeline.run_once()
            tank._clock.advance(0.5)
        answers["up"] = True
        for _ in range(400):
            for pipeline in tank._pipelines.values():
                pipeline.run_once()
            tank._clock.advance(0.5)

    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["WARNING", "WARNING"], lines
    assert lines[0][1].startswith("outage began at http://localhost:4318")
    assert "spans delivered 200, rejected 0, dropped 0" in lines[1][1]
    assert "logs delivered 200, rejected 0, dropped 0" in lines[1][1]


def test_the_law_is_logged_once_at_shutdown(caplog):
    """At info when nothing was lost."""
    tank, _ = stepped_tank()
    _, tracer = traced(tank)
    tracer.start_span("x").end()
    with caplog.at_level(logging.INFO, logger="surgetank"):
        tank.shutdown()
        tank.shutdown()

    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "shut down: spans offered 1, delivered 1, rejected 0, dropped 0, unaccounted 0"


def test_signals_share_evidence_about_their_endpoint():
    """When the spans find the endpoint dead, the logs need not find out for themselves."""
    from surgetank import BreakerState, Signal

    tank, _ = stepped_tank(answer=silence())
    _, tracer = traced(tank)
    tracer.start_span("x").end()
    spans = tank._pipelines[Signal.SPANS]
    for _ in range(100):
        tank._clock.advance(max(0.5, min(spans.run_once(), 60)))

    assert tank.stats().spans.breaker is not BreakerState.CLOSED
    assert tank.stats().logs.breaker is BreakerState.OPEN


def test_one_signals_refused_credentials_are_its_own_affair():
    """A 404 for spans says nothing about logs."""
    from surgetank import BreakerState, Signal

    tank, _ = stepped_tank(answer=hold())
    _, tracer = traced(tank)
    tracer.start_span("x").end()
    for _ in range(20):
        tank._pipelines[Signal.SPANS].run_once()
        tank._clock.advance(1.0)

    assert tank.stats().spans.breaker is not BreakerState.CLOSED
    assert tank.stats().logs.breaker is BreakerState.CLOSED


@pytest.mark.parametrize("name", [None, 5, b"app"])
def test_a_logger_may_have_any_object_for_a_name(name):
    """The SDK does not mind, and nothing may be raised into the application."""
    tank, received = stepped_tank()

    logged(tank).get_logger(name).emit(LogRecord(body="hello"))

    assert tank.force_flush()
    assert len(received.logs()) == 1


def test_nobody_waits_on_our_own_threads():
    """A log handler that flushes would have our thread wait for itself, whichever door it asks."""
    tank, _ = stepped_tank(answer=silence())
    _, tracer = traced(tank)
    _, meter = measured(tank)
    meter.create_counter("done").add(1)
    tracer.start_span("a").end()
    began = tank._clock.monotonic()

    with own_work(suppressed):
        assert not tank.force_flush(30.0)
        assert not tank.span_processor.force_flush()
        assert not tank.metric_reader.force_flush()

    assert tank._clock.monotonic() == began


def test_a_door_that_is_closed_from_within_a_change_is_closed_afterwards():
    """A signal handler that shuts a provider down may have interrupted an offer, whose lock everybody needs."""
    tank, received = stepped_tank()
    provider, tracer = traced(tank)
    tracer.start_span("a").end()

    with (buffer := tank._pipelines[Signal.SPANS]._buffer)._lock, buffer._section:
        assert not provider.force_flush()
        provider.shutdown()
        assert not tank._pipelines[Signal.SPANS].is_shut_down or received.spans() == []

    for thread in threading.enumerate():
        if thread.name == "surgetank-shutdown":
            thread.join(10)
    assert [span.name for span in received.spans()] == ["a"]


def test_a_shutdown_beside_another_one_keeps_its_own_deadline():
    """Whoever has less time does not wait for whoever has more."""
    tank, _ = stepped_tank()
    other_may_end = threading.Event()
    with_lock = threading.Event()

    def hold():
        with tank._shutdown_lock:
            with_lock.set()
            other_may_end.wait(10)

    other = threading.Thread(target=hold)
    other.start()
    assert with_lock.wait(10)

    assert not tank.shutdown(0.01)

    other_may_end.set()
    other.join(10)
    assert tank.shutdown(0.01)
