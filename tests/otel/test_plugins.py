"""The classes that OpenTelemetry's loaders call, on tanks without threads."""

import logging

import pytest
from opentelemetry._logs import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from fakes.tanks import stepped_tank
from surgetank import process
from surgetank.driver import own_work
from surgetank.otel.plugins import SurgetankLogRecordExporter, SurgetankMetricReader, SurgetankSpanExporter
from surgetank.otel.shim import suppressed


@pytest.fixture
def found(monkeypatch):
    """Put a stepped tank where the process's is made."""
    tank, received = stepped_tank()
    monkeypatch.setattr(process, "_first", None)
    monkeypatch.setattr(process, "_by_mapping", {})
    monkeypatch.setattr(process, "Tank", lambda **settings: tank)
    return tank, received


def test_a_simple_processor_hands_a_span_over_at_once(found):
    """Before `end` returns."""
    tank, _ = found
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(SurgetankSpanExporter()))

    provider.get_tracer("app").start_span("one").end()

    assert tank.stats().spans.offered == 1


def test_a_simple_processor_hands_a_log_record_over_at_once(found):
    """Our own lines are not taken there either."""
    tank, received = found
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(SurgetankLogRecordExporter()))

    provider.get_logger("app").emit(LogRecord(body="hello"))
    provider.get_logger("surgetank").emit(LogRecord(body="not this one"))
    tank.force_flush(5.0)

    assert [record.body.string_value for record in received.logs()] == ["hello"]


def test_a_flush_of_the_tank_draws_what_a_batch_processor_holds(found, monkeypatch):
    """The provider that is global knows the processor; the exporter does not."""
    tank, received = found
    provider = TracerProvider(shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.trace.get_tracer_provider", lambda: provider)
    processor = BatchSpanProcessor(SurgetankSpanExporter(), schedule_delay_millis=60_000)
    provider.add_span_processor(processor)
    provider.get_tracer("app").start_span("one").end()
    assert tank.stats().spans.offered == 0

    assert tank.force_flush(5.0)

    assert [span.name for span in received.spans()] == ["one"]
    processor.shutdown()


def test_the_metrics_class_is_a_readers_and_gives_the_tanks_own(found):
    """The SDK asks `issubclass` before it calls it."""
    tank, received = found
    reader = SurgetankMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    provider.get_meter("app").create_counter("work").add(3)
    tank.force_flush(5.0)

    assert issubclass(SurgetankMetricReader, MetricReader)
    assert reader is tank.metric_reader
    assert [point.as_int for point in received.metric_points("work")] == [3]


def test_the_reader_serves_as_an_exporter_behind_a_periodic_reader(found, monkeypatch):
    """Which is what a file's `periodic:` makes of it; a flush of the tank has the SDK's reader collect."""
    tank, received = found
    periodic = PeriodicExportingMetricReader(SurgetankMetricReader(), export_interval_millis=60_000)
    provider = MeterProvider(metric_readers=[periodic], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter_provider", lambda: provider)
    provider.get_meter("app").create_counter("work").add(3)

    assert tank.force_flush(5.0)

    assert received.metric_points("work")[0].as_int == 3
    provider.shutdown()


def test_a_source_that_fails_does_not_keep_a_tank_from_its_end(found):
    """A provider may raise, and the others are drawn all the same; what it held may be lost, so the end is no clean one."""
    tank, _ = found
    drawn = []
    tank.add_source(lambda: 1 / 0)
    tank.add_source(lambda: drawn.append(1))

    assert not tank.shutdown(5.0)

    assert drawn == [1]


def test_lines_about_our_own_requests_are_stopped_at_their_source(found):
    """Behind a batch processor nobody could tell any more whose thread they came from."""
    SurgetankLogRecordExporter()
    logger = logging.getLogger("urllib3.connectionpool")
    record = logger.makeRecord(logger.name, logging.DEBUG, __file__, 1, "POST /v1/logs", (), None)

    assert logger.filter(record)
    with own_work(suppressed):
        assert not logger.filter(record)


def test_a_wrong_key_makes_no_tank(found):
    """The error is the loader's to log."""
    with pytest.raises(ValueError, match="max_sise"):
        SurgetankSpanExporter(max_sise=1)

    assert process._first is None
