"""The drop-in classes: the SDK's arguments, OTLP exporters read and replaced, all others driven as they are."""

import enum
import inspect
import io
import logging
import math
import os
import threading
import time

import pytest
import requests
import trustme
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as sdk_logs
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics import export as sdk_metrics
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import surgetank
from surgetank import BatchLogRecordProcessor, BatchSpanProcessor, PeriodicExportingMetricReader, Signal, SpoolConfig
from surgetank.otel.exporter_sender import PATIENCE, ExporterSender
from surgetank.otel.exporters import NotCopiableError, is_otlp, read_outlet
from surgetank.testing import ManualClock
from surgetank.testing.collector import Collector

PAIRS = [
    (BatchSpanProcessor, sdk_trace.export.BatchSpanProcessor),
    (BatchLogRecordProcessor, sdk_logs.BatchLogRecordProcessor),
    (PeriodicExportingMetricReader, sdk_metrics.PeriodicExportingMetricReader),
]


class Failing(SpanExporter):
    """An exporter that fails so often, in the way that it is told."""

    def __init__(self, failures=10**9, fault=None):
        self.failures = failures
        self.fault = fault
        self.calls = []
        self.is_shut_down = False

    def export(self, spans):
        self.calls.append([span.name for span in spans])
        if len(self.calls) > self.failures:
            return SpanExportResult.SUCCESS
        if self.fault is not None:
            raise self.fault
        return SpanExportResult.FAILURE

    def shutdown(self):
        self.is_shut_down = True

    def force_flush(self, timeout_millis=30_000):
        return True


class InMemoryMetricExporter(sdk_metrics.MetricExporter):
    """Keeps what it is given."""

    def __init__(self, **preferences):
        super().__init__(**preferences)
        self.collections = []

    def export(self, metrics_data, timeout_millis=10_000, **kwargs):
        self.collections.append(metrics_data)
        return sdk_metrics.MetricExportResult.SUCCESS

    def shutdown(self, timeout_millis=30_000, **kwargs):
        pass

    def force_flush(self, timeout_millis=10_000):
        return True


@pytest.fixture(autouse=True)
def _no_authorities(monkeypatch):
    """What the machine says to `requests` is not what these tests are about."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def made():
    """Shut down what a test makes."""
    doors = []
    yield lambda door: doors.append(door) or door
    for door in doors:
        door.tank.shutdown(1.0)


@pytest.fixture
def collector():
    with Collector(keep=True) as collector:
        yield collector


def stepped(kind, *arguments, **ours):
    """Return a drop-in without threads, under a manual clock."""
    return kind(*arguments, is_threaded=False, handle_sigterm=False, clock=ManualClock(), **ours)


def tracer(processor):
    provider = TracerProvider(shutdown_on_exit=False, resource=Resource({"service.name": "shop"}))
    provider.add_span_processor(processor)
    return provider.get_tracer("lib", "1.0")


def logger(processor):
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(processor)
    return provider.get_logger("app")


def meter(reader):
    return MeterProvider(metric_readers=[reader], shutdown_on_exit=False).get_meter("lib")


def run(door, seconds):
    """Let so much time pass, doing what is due."""
    pipeline, clock = door.tank.pipeline, door.tank.clock
    end = clock.monotonic() + seconds
    while clock.monotonic() < end:
        clock.advance(min(max(pipeline.run_once(), 0.01), 1.0))


# The arguments.


@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_arguments_have_the_sdks_names_order_kinds_and_defaults(ours, theirs):
    """All of theirs, and then only keywords of our own."""
    expected = list(inspect.signature(theirs).parameters.values())
    found = list(inspect.signature(ours).parameters.values())
    if ours is PeriodicExportingMetricReader and len(expected) == 3:
        # Before 1.45 there was no `cardinality_limits`.
        found.pop(3)

    assert [(p.name, p.kind, p.default) for p in found[:-1]] == [(p.name, p.kind, p.default) for p in expected]
    assert found[-1].kind is inspect.Parameter.VAR_KEYWORD


def test_the_span_processors_positions_are_the_sdks(made):
    """Queue, delay, batch, time-out."""
    processor = made(BatchSpanProcessor(InMemorySpanExporter(), 100, 250, 50, 7000))

    limits = processor.tank.pipeline.limits
    assert (limits.max_size, limits.schedule_delay, limits.max_export_batch_size) == (100, 0.25, 50)
    assert processor.tank._config.outlets[Signal.SPANS].timeout == 7.0


def test_the_log_processors_positions_are_the_sdks(made):
    """Delay, batch, time-out, queue: another order than the spans'."""
    processor = made(BatchLogRecordProcessor(sdk_logs.InMemoryLogRecordExporter(), 250, 50, 7000, 100))

    limits = processor.tank.pipeline.limits
    assert (limits.max_size, limits.schedule_delay, limits.max_export_batch_size) == (100, 0.25, 50)
    assert processor.tank._config.outlets[Signal.LOGS].timeout == 7.0


def test_the_readers_positions_are_the_sdks(made):
    """Interval, time-out."""
    reader = made(PeriodicExportingMetricReader(InMemoryMetricExporter(), 5000, 2000))

    assert (reader._interval, reader._timeout) == (5.0, 2.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_queue_size": 0},
        {"max_queue_size": -1},
        {"schedule_delay_millis": 0},
        {"max_export_batch_size": 0},
        {"max_queue_size": 10},
        {"max_queue_size": 10, "max_export_batch_size": 11},
    ],
)
@pytest.mark.parametrize(("ours", "theirs"), PAIRS[:2])
def test_what_the_sdk_refuses_is_refused_in_the_same_words(ours, theirs, arguments):
    """As ValueError."""
    with pytest.raises(ValueError) as expected:
        theirs(Failing(), **arguments)
    with pytest.raises(ValueError) as found:
        ours(Failing(), **arguments)

    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("interval", [0, -1.0])
def test_a_reader_without_an_interval_is_refused(interval):
    """As the SDK's."""
    for kind in PAIRS[2]:
        with pytest.raises(ValueError, match="needs to be larger than zero"):
            kind(InMemoryMetricExporter(), interval)


def test_an_infinite_interval_collects_on_demand_only(made):
    """As the SDK's."""
    exporter = InMemoryMetricExporter()
    reader = made(stepped(PeriodicExportingMetricReader, exporter, math.inf))
    meter(reader).create_counter("n").add(1)

    assert reader.force_flush()
    assert len(exporter.collections) == 1


def test_the_sdks_variables_count_where_an_argument_is_left_out(monkeypatch, made):
    """And arguments win over them."""
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1000")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "300")
    processor = made(BatchSpanProcessor(InMemorySpanExporter(), schedule_delay_millis=200))

    limits = processor.tank.pipeline.limits
    assert (limits.max_size, limits.schedule_delay) == (1000, 0.2)


def test_our_own_settings_are_keywords(made):
    """Those of `Tank`, with the positional arguments over the signal's own."""
    buffer = surgetank.BufferConfig(max_size=700, max_memory_mb=3, drop_strategy="newest")
    processor = made(BatchSpanProcessor(InMemorySpanExporter(), 800, spans=buffer, shutdown_timeout=2.0))

    limits = processor.tank.pipeline.limits
    assert (limits.max_size, limits.max_bytes, limits.drop_strategy) == (800, 3 * 1024 * 1024, "newest")


@pytest.mark.parametrize("name", ["endpoint", "headers", "certificate_file", "outlets"])
def test_what_the_exporter_says_cannot_be_said_again(name):
    """One of the two would be ignored."""
    with pytest.raises(TypeError, match=name):
        BatchSpanProcessor(InMemorySpanExporter(), **{name: None})


def test_an_unknown_setting_is_refused():
    """As everywhere in Python."""
    with pytest.raises(TypeError, match="colour"):
        BatchSpanProcessor(InMemorySpanExporter(), colour="red")


def test_the_environment_of_other_exporters_does_not_matter(monkeypatch, made):
    """An endpoint without a scheme is right for a gRPC exporter, and none of a console's business."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")

    made(BatchSpanProcessor(InMemorySpanExporter()))


def test_the_exporter_can_be_asked_for(made):
    """`span_exporter` is a public property of the SDK's."""
    exporter = InMemorySpanExporter()

    assert made(BatchSpanProcessor(exporter)).span_exporter is exporter


# Reading OTLP exporters.


def test_endpoint_headers_timeout_and_compression_are_read():
    """As the exporter resolved them; what HTTP and the libraries set is left out."""
    exporter = OTLPSpanExporter(
        endpoint="https://collector:4318/custom/path",
        headers={"Authorization": "Bearer secret", "x-tenant": "a"},
        timeout=3,
        compression=Compression.Gzip,
    )
    outlet = read_outlet(exporter)

    assert outlet.url == "https://collector:4318/custom/path"
    assert dict(outlet.headers) == {"authorization": "Bearer secret", "x-tenant": "a"}
    assert (outlet.timeout, outlet.compression) == (3.0, "gzip")
    assert (outlet.certificate_file, outlet.client_certificate_file, outlet.client_key_file) == (None, None, None)


@pytest.mark.parametrize(
    ("kind", "signal", "path"),
    [
        (OTLPSpanExporter, "TRACES", "/v1/traces"),
        (OTLPLogExporter, "LOGS", "/v1/logs"),
        (OTLPMetricExporter, "METRICS", "/v1/metrics"),
    ],
)
def test_what_the_exporter_took_from_the_environment_is_read(monkeypatch, kind, signal, path):
    """The base endpoint gets the path, a signal's own does not; per-signal variables win."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://base:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-a=1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "4")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "deflate")
    base = read_outlet(kind())
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", "http://own:4318/here")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_HEADERS", "x-b=2")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_TIMEOUT", "5")
    monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{signal}_COMPRESSION", "gzip")
    own = read_outlet(kind())

    assert (base.url, dict(base.headers), base.timeout, base.compression) == (
        f"http://base:4318{path}",
        {"x-a": "1"},
        4.0,
        "deflate",
    )
    assert (own.url, dict(own.headers), own.timeout, own.compression) == (
        "http://own:4318/here",
        {"x-b": "2"},
        5.0,
        "gzip",
    )


@pytest.fixture
def files(tmp_path):
    """CA, certificate and key, as files."""
    authority = trustme.CA()
    issued = authority.issue_cert("client")
    paths = [str(tmp_path / name) for name in ("ca.pem", "client.pem", "key.pem")]
    authority.cert_pem.write_to_path(paths[0])
    issued.cert_chain_pems[0].write_to_path(paths[1])
    issued.private_key_pem.write_to_path(paths[2])
    return paths


def test_certificates_and_keys_are_read(files):
    """For TLS and mutual TLS."""
    authority, certificate, key = files
    outlet = read_outlet(
        OTLPSpanExporter(
            "https://collector:4318/v1/traces",
            certificate_file=authority,
            client_key_file=key,
            client_certificate_file=certificate,
        )
    )

    assert (outlet.certificate_file, outlet.client_certificate_file, outlet.client_key_file) == (
        authority,
        certificate,
        key,
    )


def test_the_authorities_that_requests_would_ask_are_asked(files, monkeypatch):
    """`REQUESTS_CA_BUNDLE` is how many set-ups say it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", files[0])

    assert read_outlet(OTLPSpanExporter("https://collector:4318")).certificate_file == files[0]


def with_auth(session):
    session.auth = ("user", "password")
    return session


def with_adapter(session):
    session.mount("https://special", requests.adapters.HTTPAdapter())
    return session


def with_proxy(session):
    session.proxies = {"https": "http://proxy:3128"}
    return session


def with_hook(session):
    session.hooks["response"].append(print)
    return session


def with_cookie(session):
    session.cookies.set("a", "b")
    return session


class OwnSession(requests.Session):
    pass


@pytest.mark.parametrize("change", [with_auth, with_adapter, with_proxy, with_hook, with_cookie])
def test_a_session_that_does_more_than_send_is_not_copied(change):
    """Credentials that are made afresh for each request, proxies, adapters of its own."""
    with pytest.raises(NotCopiableError, match="session"):
        read_outlet(OTLPSpanExporter("http://collector:4318", session=change(requests.Session())))


def test_a_session_of_another_class_is_not_copied():
    """A credential provider hands out such."""
    with pytest.raises(NotCopiableError, match="another class"):
        read_outlet(OTLPSpanExporter("http://collector:4318", session=OwnSession()))


def test_the_headers_of_a_plain_session_are_copied():
    """They would have been sent."""
    session = requests.Session()
    session.headers["x-api-key"] = "k"

    assert read_outlet(OTLPSpanExporter("http://collector:4318", session=session)).headers["x-api-key"] == "k"


def test_certificates_that_are_not_verified_are_not_copied():
    """Ours are always verified."""
    with pytest.raises(NotCopiableError, match="verified"):
        read_outlet(_unverified())


def _unverified():
    exporter = OTLPSpanExporter("https://collector:4318")
    transport = getattr(getattr(exporter, "_client", None), "_transport", None)
    if transport is None:
        exporter._certificate_file = False
    else:
        transport._session.verify = False
    return exporter


def test_a_version_that_is_built_otherwise_is_driven(caplog, made):
    """Nothing is guessed; one line says so."""
    exporter = OTLPSpanExporter("http://collector:4318")
    del exporter._endpoint

    processor = made(BatchSpanProcessor(exporter))

    assert isinstance(processor.tank._driven, ExporterSender)
    assert len(caplog.records) == 1
    assert "driven as it is" in caplog.text


def test_versions_that_keep_everything_in_the_exporter_are_read(files):
    """As they were before 1.44."""
    older = type("OTLPSpanExporter", (SpanExporter,), {"__module__": OTLPSpanExporter.__module__})()
    older._endpoint = "https://collector:4318/v1/traces"
    older._headers = {"X-A": "1"}
    older._timeout = 5
    older._compression = Compression.Gzip
    older._session = requests.Session()
    older._session.headers.update({"X-A": "1", "Content-Encoding": "gzip", "User-Agent": "OTel-OTLP-Exporter-Python/1"})
    older._certificate_file = files[0]
    older._client_cert = (files[1], files[2])

    outlet = read_outlet(older)

    assert (outlet.url, dict(outlet.headers), outlet.timeout) == ("https://collector:4318/v1/traces", {"x-a": "1"}, 5.0)
    assert (outlet.certificate_file, outlet.client_certificate_file, outlet.client_key_file) == tuple(files)


def grpc_exporter(**changes):
    """Return what looks like the SDK's OTLP/gRPC exporter, without gRPC."""
    module = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"
    exporter = type("OTLPSpanExporter", (SpanExporter,), {"__module__": module})()
    exporter._endpoint = "collector:4317"
    exporter._insecure = True
    exporter._headers = (("X-Tenant", "a"),)
    exporter._timeout = 4
    exporter._compression = enum.Enum("Compression", ["NoCompression", "Deflate", "Gzip"]).Gzip
    exporter._channel_options = (("grpc.primary_user_agent", "OTel-OTLP-Exporter-Python/1"),)
    for name, value in changes.items():
        setattr(exporter, name, value)
    return exporter


def test_a_grpc_exporter_without_tls_is_read():
    """Host and port, headers, time-out and the calls' compression."""
    outlet = read_outlet(grpc_exporter())

    assert (outlet.url, outlet.protocol, dict(outlet.headers)) == ("http://collector:4317", "grpc", {"x-tenant": "a"})
    assert (outlet.timeout, outlet.compression, outlet.call_compression) == (4.0, "gzip", "gzip")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"_insecure": False}, "channel credentials"),
        ({"_channel_options": (("grpc.keepalive_time_ms", 1),)}, "options"),
        ({"_endpoint": "unix:/run/collector.sock"}, "host and port"),
        ({"_endpoint": "dns:///collector:4317"}, "host and port"),
        ({"_compression": None}, "this version"),
    ],
)
def test_what_a_grpc_exporter_does_beyond_that_is_not_copied(changes, reason, caplog, made):
    """It is driven, and one line says so."""
    with pytest.raises(NotCopiableError, match=reason):
        read_outlet(grpc_exporter(**changes))
    processor = made(BatchSpanProcessor(grpc_exporter(**changes)))

    assert isinstance(processor.tank._driven, ExporterSender)
    assert len(caplog.records) == 1


def test_a_subclass_is_not_read():
    """It may do anything."""

    class OwnExporter(OTLPSpanExporter):
        pass

    assert is_otlp(OTLPSpanExporter())
    assert not is_otlp(OwnExporter())


def test_a_custom_session_is_driven_and_no_credential_is_logged(caplog, made):
    """One line says what could not be copied."""
    session = with_auth(requests.Session())
    exporter = OTLPSpanExporter("http://user:secret@collector:4318", headers={"x-key": "secret"}, session=session)
    made(BatchSpanProcessor(exporter))

    (record,) = caplog.records
    assert "a session with auth cannot be copied" in record.getMessage()
    assert "secret" not in caplog.text
    assert "password" not in caplog.text


def test_choices_of_our_own_win_over_the_exporters(made):
    """An exporter that was not told to compress is not one that must not."""
    processor = made(BatchSpanProcessor(OTLPSpanExporter("http://collector:4318"), compression="gzip", timeout=2.0))

    outlet = processor.tank._config.outlets[Signal.SPANS]
    assert (outlet.compression, outlet.timeout) == ("gzip", 2.0)


def test_temporality_and_aggregation_are_the_exporters(made):
    """The reader asks its exporter, as the SDK's does."""
    delta = sdk_metrics.AggregationTemporality.DELTA
    aggregation = ExponentialBucketHistogramAggregation()
    exporter = OTLPMetricExporter(
        "http://collector:4318",
        preferred_temporality={Counter: delta},
        preferred_aggregation={Histogram: aggregation},
    )
    theirs = sdk_metrics.PeriodicExportingMetricReader(exporter, math.inf)
    ours = made(PeriodicExportingMetricReader(exporter, math.inf))

    assert ours._instrument_class_temporality == theirs._instrument_class_temporality
    kinds, expected = (
        {instrument: type(chosen) for instrument, chosen in reader._instrument_class_aggregation.items()}
        for reader in (ours, theirs)
    )
    assert kinds == expected
    assert aggregation in ours._instrument_class_aggregation.values()


# Delivery in the place of an OTLP exporter.


@pytest.mark.slow
def test_all_three_signals_arrive_at_the_exporters_endpoint(collector):
    """With the exporters' headers, without the exporters."""
    headers = {"x-tenant": "a"}
    processor = BatchSpanProcessor(OTLPSpanExporter(f"{collector.endpoint}/v1/traces", headers=headers))
    records = BatchLogRecordProcessor(OTLPLogExporter(f"{collector.endpoint}/v1/logs", headers=headers))
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(f"{collector.endpoint}/v1/metrics", headers=headers))
    tracer(processor).start_span("GET /").end()
    logger(records).emit(LogRecord(body="hello"))
    meter(reader).create_counter("orders").add(3)

    assert all(door.force_flush(5000) for door in (processor, records, reader))

    assert {signal for signal, _ in collector.requests} == set(Signal)
    assert all(sent["x-tenant"] == "a" for sent in collector.headers)
    assert all("surgetank" in sent["user-agent"] for sent in collector.headers)
    for door, signal in ((processor, "spans"), (records, "logs"), (reader, "metrics")):
        assert getattr(door.tank.stats(), signal).delivered == 1
        door.shutdown()
        assert not door.force_flush(1000)


def test_a_replaced_exporter_is_shut_down_with_us():
    """It may have opened something."""
    exporter = OTLPSpanExporter("http://collector:4318")
    processor = stepped(BatchSpanProcessor, exporter)
    processor.shutdown()

    assert exporter._shutdown


@pytest.mark.slow
def test_flush_and_shutdown_keep_their_deadlines_with_a_dead_endpoint():
    """Where the SDK's take half a minute, and say that all went well."""
    processor = BatchSpanProcessor(OTLPSpanExporter("http://127.0.0.1:9/v1/traces"), shutdown_timeout=1.0)
    tracer(processor).start_span("GET /").end()
    began = time.monotonic()

    assert not processor.force_flush(500)
    processor.shutdown()

    assert time.monotonic() - began < 3.0
    assert processor.tank.stats().spans.dropped == {"shutdown": 1}


def test_processors_that_close_in_a_row_share_one_deadline():
    """One for each signal; the second of a signal has a deadline of its own."""
    clock = ManualClock()

    def door(kind, exporter):
        return kind(
            exporter, is_threaded=False, handle_sigterm=False, clock=clock, shutdown_timeout=5.0, make_sender=silent
        )

    def silent(outlet, clock):
        from surgetank.testing import ScriptedSender, silence

        return ScriptedSender(otherwise=silence())

    first = door(BatchSpanProcessor, OTLPSpanExporter("http://collector:4318"))
    second = door(BatchLogRecordProcessor, OTLPLogExporter("http://collector:4318"))
    third = door(BatchSpanProcessor, OTLPSpanExporter("http://collector:4318"))
    tracer(first).start_span("a").end()
    logger(second).emit(LogRecord(body="b"))
    tracer(third).start_span("c").end()
    began = clock.monotonic()
    first.shutdown()
    second.shutdown()
    assert clock.monotonic() - began <= 5.0

    third.shutdown()
    assert 5.0 < clock.monotonic() - began <= 10.0


# Driving other exporters.


def test_spans_reach_an_exporter_as_the_sdks_objects(made):
    """Decoded from the sealed bytes."""
    exporter = InMemorySpanExporter()
    processor = made(stepped(BatchSpanProcessor, exporter))
    with tracer(processor).start_as_current_span("parent", attributes={"a": (1, 2)}) as parent:
        tracer(processor).start_span("child").end()

    assert processor.force_flush()

    child, found = sorted(exporter.get_finished_spans(), key=lambda span: span.name)
    assert child.parent.span_id == found.context.span_id == parent.get_span_context().span_id
    assert dict(found.attributes) == {"a": (1, 2)}
    assert found.resource.attributes["service.name"] == "shop"
    assert (found.instrumentation_scope.name, found.instrumentation_scope.version) == ("lib", "1.0")
    assert processor.tank.stats().spans.delivered == 2


def test_spans_reach_a_console(made):
    """Whose JSON needs every property."""
    out = io.StringIO()
    processor = made(stepped(BatchSpanProcessor, ConsoleSpanExporter(out=out)))
    tracer(processor).start_span("GET /").end()

    assert processor.force_flush()
    assert '"name": "GET /"' in out.getvalue()


def test_log_records_reach_an_exporter_as_the_sdks_objects(made):
    """In memory, and on a console."""
    exporter, out = sdk_logs.InMemoryLogRecordExporter(), io.StringIO()
    processor = made(stepped(BatchLogRecordProcessor, exporter))
    console = made(stepped(BatchLogRecordProcessor, sdk_logs.ConsoleLogRecordExporter(out=out)))
    for door in (processor, console):
        logger(door).emit(
            LogRecord(timestamp=1, body="hello", severity_number=SeverityNumber.INFO, attributes={"n": 1})
        )
        assert door.force_flush()

    (found,) = exporter.get_finished_logs()
    assert (found.log_record.body, found.log_record.severity_number) == ("hello", SeverityNumber.INFO)
    assert dict(found.log_record.attributes) == {"n": 1}
    assert '"body": "hello"' in out.getvalue()


def test_metrics_reach_an_exporter_as_the_sdks_objects(made):
    """With the temporality that it prefers."""
    exporter = InMemoryMetricExporter(preferred_temporality={Counter: sdk_metrics.AggregationTemporality.DELTA})
    reader = made(stepped(PeriodicExportingMetricReader, exporter))
    instruments = meter(reader)
    instruments.create_counter("orders", unit="1", description="d").add(3, {"kind": "book"})
    instruments.create_histogram("latency").record(7.5)

    assert reader.force_flush()

    (data,) = exporter.collections
    orders, latency = data.resource_metrics[0].scope_metrics[0].metrics
    assert (orders.name, orders.unit, orders.description) == ("orders", "1", "d")
    assert orders.data.aggregation_temporality is sdk_metrics.AggregationTemporality.DELTA
    assert (orders.data.data_points[0].value, orders.data.data_points[0].attributes) == (3, {"kind": "book"})
    assert (latency.data.data_points[0].count, latency.data.data_points[0].sum) == (1, 7.5)
    assert data.to_json()


def test_metrics_reach_a_console(made):
    """Whose JSON needs every field."""
    out = io.StringIO()
    reader = made(stepped(PeriodicExportingMetricReader, sdk_metrics.ConsoleMetricExporter(out=out)))
    meter(reader).create_counter("orders").add(3)

    assert reader.force_flush()
    assert '"name": "orders"' in out.getvalue()


@pytest.mark.parametrize("fault", [None, RuntimeError("no route")])
def test_what_fails_at_first_is_delivered_later_once(made, fault):
    """The same batch, again, after the usual backoff."""
    exporter = Failing(failures=3, fault=fault)
    processor = made(stepped(BatchSpanProcessor, exporter))
    tracer(processor).start_span("GET /").end()

    run(processor, 30.0)

    assert exporter.calls == [["GET /"]] * 4
    assert processor.tank.stats().spans.delivered == 1


def test_an_exporter_that_keeps_failing_is_tried_a_bounded_number_of_times(made):
    """Then the batch is rejected as a whole, and the next has its turn."""
    exporter = Failing()
    processor = made(stepped(BatchSpanProcessor, exporter, max_export_batch_size=2))
    for number in range(4):
        tracer(processor).start_span(str(number)).end()

    run(processor, 600.0)

    stats = processor.tank.stats().spans
    assert (stats.rejected, stats.queued, stats.unaccounted) == (4, 0, 0)
    assert len({tuple(names) for names in exporter.calls}) == 2
    assert 10 <= len(exporter.calls) <= 16
    assert processor.tank.pipeline.stats().breaker is not surgetank.BreakerState.CLOSED


def test_the_number_of_attempts_can_be_chosen(made):
    """One: no second try."""
    exporter = Failing()
    processor = made(stepped(BatchSpanProcessor, exporter, exporter_attempts=1))
    tracer(processor).start_span("GET /").end()

    run(processor, 60.0)

    assert len(exporter.calls) == 1
    assert processor.tank.stats().spans.rejected == 1


def test_what_was_given_up_is_kept_as_a_dead_letter(made, tmp_path):
    """Where a spool was asked for."""
    spool = SpoolConfig(dir=tmp_path / "spool", reserve_mb=0)
    processor = made(stepped(BatchSpanProcessor, Failing(), persistence_enabled=True, spool=spool))
    tracer(processor).start_span("GET /").end()

    run(processor, 600.0)

    (letter,) = (tmp_path / "spool").rglob("*.letter")
    assert b'"FAILURE"' in letter.read_bytes()


def test_a_hurried_shutdown_leaves_the_patience_to_the_next_process(tmp_path, made):
    """What is in the spool is delivered by whoever comes next with an exporter of the same class."""
    spool = SpoolConfig(dir=tmp_path / "spool", reserve_mb=0)
    settings = {"persistence_enabled": True, "spool": spool}
    first = stepped(BatchSpanProcessor, Failing(), **settings)
    tracer(first).start_span("GET /").end()
    first.shutdown()
    assert first.tank.stats().spans.spooled == 1

    exporter = Failing(failures=0)
    second = made(stepped(BatchSpanProcessor, exporter, **settings))
    assert second.tank.force_flush(5.0)
    run(second, 10.0)

    assert exporter.calls == [["GET /"]]
    assert second.tank.stats().spans.recovered == 1


def test_another_class_of_exporter_does_not_find_them(tmp_path, made):
    """What one destination was given never leaves through another one."""
    spool = SpoolConfig(dir=tmp_path / "spool", reserve_mb=0)
    first = stepped(BatchSpanProcessor, Failing(), persistence_enabled=True, spool=spool)
    tracer(first).start_span("GET /").end()
    first.shutdown()

    exporter = InMemorySpanExporter()
    second = made(stepped(BatchSpanProcessor, exporter, persistence_enabled=True, spool=spool))
    second.tank.force_flush(5.0)
    run(second, 10.0)

    assert not exporter.get_finished_spans()


def test_without_a_folder_a_driven_exporter_has_no_spool(made):
    """Nothing would tell whose batches it may be given."""
    processor = made(stepped(BatchSpanProcessor, InMemorySpanExporter(), persistence_enabled=True))

    assert processor.tank._disk is None
    with pytest.raises(surgetank.ConfigError, match=r"spool\.dir"):
        BatchSpanProcessor(InMemorySpanExporter(), spool=SpoolConfig(max_mb=10))


def test_in_a_folder_that_all_users_share_it_is_one_of_our_own(made, tmp_path):
    """Also when that is only the folder around ours."""
    tmp_path.chmod(0o1777)
    spool = SpoolConfig(dir=tmp_path, reserve_mb=0)
    processor = made(stepped(BatchSpanProcessor, InMemorySpanExporter(), spool=spool, persistence_enabled=True))

    assert processor.tank._disk.settings.path.startswith(f"{tmp_path}/surgetank-spool-{os.geteuid()}/spans")


def test_exports_run_under_instrumentation_suppression(made):
    """Also on a thread of our own."""
    from opentelemetry import context

    seen = []

    class Looking(InMemorySpanExporter):
        def export(self, spans):
            seen.append(context.get_value(context._SUPPRESS_INSTRUMENTATION_KEY))
            return super().export(spans)

    for is_threaded in (False, True):
        processor = made(BatchSpanProcessor(Looking(), is_threaded=is_threaded, handle_sigterm=False))
        tracer(processor).start_span("x").end()
        assert processor.force_flush(5000)

    assert seen == [True, True]


def test_an_exporter_that_returns_nothing_is_believed(made):
    """The SDK's processors never look at the result, so there are such."""
    exporter = Failing()
    exporter.export = lambda spans: None
    processor = made(stepped(BatchSpanProcessor, exporter))
    tracer(processor).start_span("x").end()

    assert processor.force_flush()


@pytest.mark.slow
def test_an_exporter_that_hangs_holds_up_neither_flush_nor_shutdown():
    """It cannot be interrupted, but it need not be waited for."""
    release = threading.Event()

    class Hanging(InMemorySpanExporter):
        def export(self, spans):
            release.wait(20)
            return super().export(spans)

    processor = BatchSpanProcessor(Hanging(), shutdown_timeout=0.5, handle_sigterm=False)
    tracer(processor).start_span("x").end()
    began = time.monotonic()
    try:
        assert not processor.force_flush(300)
        processor.shutdown()
        assert time.monotonic() - began < 3.0
        assert processor.tank.stats().spans.unaccounted == 0
    finally:
        release.set()


@pytest.mark.slow
def test_what_arrives_late_is_not_sent_again():
    """The batch's next attempt learns what came of the call that was not waited for."""
    release = threading.Event()
    calls = []

    class Slow(InMemorySpanExporter):
        def export(self, spans):
            calls.append(len(spans))
            release.wait(20)
            return super().export(spans)

    exporter = Slow()
    processor = BatchSpanProcessor(exporter, export_timeout_millis=200, handle_sigterm=False)
    tracer(processor).start_span("x").end()
    assert not processor.force_flush(600)
    release.set()

    assert processor.force_flush(5000)
    assert calls == [1]
    assert len(exporter.get_finished_spans()) == 1
    processor.shutdown()


def test_the_exporter_is_shut_down_and_flushed_with_us(made):
    """With the time that it has, if it takes one."""
    flushes, ends = [], []

    class Noting(InMemorySpanExporter):
        def force_flush(self, timeout_millis=30_000):
            flushes.append(timeout_millis)
            return False

        def shutdown(self, timeout_millis=30_000):
            ends.append(timeout_millis)

    processor = stepped(BatchSpanProcessor, Noting())
    tracer(processor).start_span("x").end()

    assert not processor.force_flush(1000)
    processor.shutdown()
    processor.shutdown()

    assert len(flushes) == len(ends) == 1
    assert 0 < flushes[0] <= 1000


def test_an_exporter_whose_methods_take_no_time_is_called_without(made):
    """The SDK's span processor never passes one on, so there are such."""
    ends = []

    class Short(InMemorySpanExporter):
        def force_flush(self):
            return True

        def shutdown(self):
            ends.append(True)

    processor = stepped(BatchSpanProcessor, Short())
    tracer(processor).start_span("x").end()

    assert processor.force_flush(1000)
    processor.shutdown()
    assert ends == [True]


def test_after_a_fork_the_child_has_a_thread_of_its_own(made):
    """And none of the parent's calls."""
    exporter = InMemorySpanExporter()
    sender = ExporterSender(exporter, Signal.SPANS, ManualClock())
    assert sender.flush(5.0)
    sender.abandon()

    assert sender.flush(5.0)
    sender.close()


def test_bytes_that_cannot_be_read_are_given_up_at_once():
    """They will not be better next time."""
    from fakes.batches import batch
    from surgetank.model import Outcome

    sender = ExporterSender(InMemorySpanExporter(), Signal.SPANS, ManualClock(), is_threaded=False)

    assert sender.send(batch(body=b"\x0a\xff"), 1.0).outcome is Outcome.REJECTED


def test_patience_outlasts_the_default_shutdown():
    """Or a shutdown in an outage would bury what the next process could deliver."""
    assert surgetank.Tank(handle_sigterm=False, is_threaded=False)._config.shutdown_timeout < PATIENCE


def test_our_drop_ins_are_silent_about_exporters_that_nobody_expects_to_be_read(caplog, made):
    """A console exporter is meant to be driven."""
    with caplog.at_level(logging.INFO, logger="surgetank"):
        made(BatchSpanProcessor(ConsoleSpanExporter(out=io.StringIO())))

    assert all("started:" in record.getMessage() for record in caplog.records)


# The SDK's contract for exporters.


class Retrying(SpanExporter):
    """Goes on trying until it is shut down, as the OTLP exporters do; it sends at the end of its wait."""

    def __init__(self, answer=SpanExportResult.FAILURE, *, obeys=True):
        self.began, self.is_told = threading.Event(), threading.Event()
        self.answer, self.obeys = answer, obeys
        self.sent = []
        self.release = threading.Event()

    def export(self, spans):
        self.began.set()
        if self.obeys:
            if self.is_told.wait(20):
                if self.answer is SpanExportResult.SUCCESS:
                    self.sent += spans
                return self.answer
        else:
            self.release.wait(20)
        self.sent += spans
        return SpanExportResult.SUCCESS

    def shutdown(self):
        self.is_told.set()

    def force_flush(self, timeout_millis=30_000):
        return True


@pytest.mark.slow
@pytest.mark.parametrize("answer", list(SpanExportResult))
def test_shutdown_interrupts_an_export_under_way_and_its_result_counts(answer):
    """Nothing is counted as dropped that is sent afterwards, or the other way round."""
    exporter = Retrying(answer)
    processor = BatchSpanProcessor(exporter, shutdown_timeout=0.3, schedule_delay_millis=1, handle_sigterm=False)
    tracer(processor).start_span("x").end()
    assert exporter.began.wait(10)
    began = time.monotonic()
    processor.shutdown()

    assert time.monotonic() - began < 3
    assert exporter.is_told.is_set()
    stats = processor.tank.stats().spans
    assert (stats.delivered, len(exporter.sent)) == ((1, 1) if answer is SpanExportResult.SUCCESS else (0, 0))
    assert stats.dropped.get("shutdown", 0) == 1 - stats.delivered


@pytest.mark.slow
def test_an_export_that_nothing_interrupts_does_not_hold_up_a_shutdown():
    """Its items are given up, for nobody knows; the exporter is shut down once."""
    exporter = Retrying(obeys=False)
    processor = BatchSpanProcessor(exporter, shutdown_timeout=0.3, schedule_delay_millis=1, handle_sigterm=False)
    tracer(processor).start_span("x").end()
    try:
        assert exporter.began.wait(10)
        began = time.monotonic()
        processor.shutdown()
        assert time.monotonic() - began < 3
        assert exporter.is_told.is_set()
        assert processor.tank.stats().spans.dropped["shutdown"] == 1
    finally:
        exporter.release.set()


def test_an_overdue_export_does_not_shut_the_exporter_down(made):
    """Only the end does: the next batch is to be exported."""
    exporter = Retrying()
    sender = ExporterSender(exporter, Signal.SPANS, ManualClock())
    sender._running = sender._call(lambda: exporter.export([]))
    assert exporter.began.wait(10)
    sender.abort()

    assert not exporter.is_told.is_set()
    exporter.is_told.set()
    sender.close()


@pytest.mark.parametrize("order", ["ewew", "wwee", "eeww"])
def test_a_console_shows_records_in_the_order_in_which_they_were_logged(made, order):
    """An error does not overtake, as it would on its way to a collector."""
    stream = io.StringIO()
    exporter = sdk_logs.ConsoleLogRecordExporter(out=stream, formatter=lambda record: f"{record.log_record.body}\n")
    processor = made(stepped(BatchLogRecordProcessor, exporter))
    log = logger(processor)
    severities = {"e": SeverityNumber.ERROR, "w": SeverityNumber.WARN}
    for number, letter in enumerate(order):
        log.emit(LogRecord(observed_timestamp=1, body=str(number), severity_number=severities[letter]))
    assert processor.force_flush()

    assert stream.getvalue().split() == list("0123")


def test_a_lane_that_was_asked_for_is_kept(made):
    """Whoever says what is critical wants it first."""
    exporter = InMemorySpanExporter()
    processor = made(stepped(BatchSpanProcessor, exporter, is_critical=lambda span: span.name == "b"))
    for name in "ab":
        tracer(processor).start_span(name).end()
    assert processor.force_flush()

    assert [span.name for span in exporter.get_finished_spans()] == ["b", "a"]


def test_a_collection_is_exported_before_it_returns(made):
    """As by the SDK's reader."""
    exporter = InMemoryMetricExporter()
    reader = made(PeriodicExportingMetricReader(exporter, math.inf, handle_sigterm=False))
    meter(reader).create_counter("c").add(1)
    reader.collect()

    assert len(exporter.collections) == 1


@pytest.mark.slow
def test_a_collection_that_cannot_be_exported_returns_by_its_time_out(made):
    """And the reader's own collections wait for nobody."""
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter("http://127.0.0.1:9/v1/metrics"), 50, handle_sigterm=False, shutdown_timeout=0.3
    )
    meter(reader).create_counter("c").add(1)
    began = time.monotonic()
    reader.collect(timeout_millis=300)
    assert time.monotonic() - began < 2
    reader.shutdown()
    assert time.monotonic() - began < 4
