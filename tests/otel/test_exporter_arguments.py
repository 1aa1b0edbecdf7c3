"""What an OTLP exporter was told is done by ours in its place, or by the exporter itself, or named in the documentation."""

import inspect
from importlib.metadata import version
from pathlib import Path

import grpc
import pytest
import requests
from opentelemetry._logs import LogRecord
from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc_logs
from opentelemetry.exporter.otlp.proto.grpc import metric_exporter as grpc_metrics
from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc_traces
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http import _log_exporter as http_logs
from opentelemetry.exporter.otlp.proto.http import metric_exporter as http_metrics
from opentelemetry.exporter.otlp.proto.http import trace_exporter as http_traces
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import Counter, MeterProvider
from opentelemetry.sdk.metrics._internal.instrument import _Counter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import DropAggregation
from opentelemetry.sdk.trace import TracerProvider

from otel.exporter_arguments import RELEASED
from surgetank import BatchLogRecordProcessor, BatchSpanProcessor, BufferConfig, PeriodicExportingMetricReader
from surgetank.testing import ManualClock, ScriptedSender

DOCS = Path(__file__).parents[2] / "docs" / "drop-in.md"
CLASSES = {
    ("http", "OTLPSpanExporter"): (http_traces.OTLPSpanExporter, BatchSpanProcessor),
    ("http", "OTLPLogExporter"): (http_logs.OTLPLogExporter, BatchLogRecordProcessor),
    ("http", "OTLPMetricExporter"): (http_metrics.OTLPMetricExporter, PeriodicExportingMetricReader),
    ("grpc", "OTLPSpanExporter"): (grpc_traces.OTLPSpanExporter, BatchSpanProcessor),
    ("grpc", "OTLPLogExporter"): (grpc_logs.OTLPLogExporter, BatchLogRecordProcessor),
    ("grpc", "OTLPMetricExporter"): (grpc_metrics.OTLPMetricExporter, PeriodicExportingMetricReader),
}


def door_of(key, exporter, **ours):
    """Return a drop-in without threads around an exporter."""
    return CLASSES[key][1](exporter, is_threaded=False, handle_sigterm=False, clock=ManualClock(), **ours)


class Seen:
    """What a tank makes of an exporter."""

    def __init__(self, key, **arguments):
        kind = CLASSES[key][0]
        insecure = {"insecure": True} if key[0] == "grpc" and not {"insecure", "credentials"} & set(arguments) else {}
        self.door = door_of(key, kind(**insecure, **arguments))
        self.is_driven = self.door.tank._is_driven
        signal = self.door.tank.pipeline.signal
        self.outlet = self.door.tank.outlets[signal]
        self.limits = self.door.tank.pipeline.limits
        self.door.tank.shutdown(0.1)


@pytest.fixture
def certificate(tmp_path):
    path = tmp_path / "file.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n")
    return str(path)


def is_read(name, value, expected=None):
    """The outlet has it."""

    def check(key):
        return getattr(Seen(key, **{name: value}).outlet, name) == (value if expected is None else expected)

    return check


def is_driven(name, value, **other):
    """The exporter does it itself."""
    return lambda key: Seen(key, **{name: value}, **other).is_driven


def has_limit(name, value, limit, expected):
    """The buffer keeps it."""

    def check(key):
        seen = Seen(key, **{name: value})
        return not seen.is_driven and getattr(seen.limits, limit) == expected

    return check


def has_url(key):
    url = "http://collector:4318/v1/x" if key[0] == "http" else "http://collector:4317"
    return Seen(key, endpoint=url).outlet.url == url


def is_compressed(key):
    outlet = Seen(key, compression=Compression.Gzip if key[0] == "http" else grpc.Compression.Gzip).outlet
    return (outlet.compression if key[0] == "http" else outlet.call_compression) == "gzip"


def has_temporality(key):
    asked = Seen(key, preferred_temporality={Counter: AggregationTemporality.DELTA}).door
    unasked = Seen(key).door._instrument_class_temporality
    return [k for k, t in asked._instrument_class_temporality.items() if t is not unasked[k]] == [_Counter]


def has_aggregation(key):
    chosen = DropAggregation()
    return Seen(key, preferred_aggregation={Counter: chosen}).door._instrument_class_aggregation[_Counter] is chosen


def is_documented(name):
    return lambda key: f"`{name}`" in DOCS.read_text("utf-8")


class OwnTransport:
    """What may do anything."""

    def request(self, *_, **__):
        raise AssertionError

    def close(self):
        pass


def with_session(key):
    session = requests.Session()
    session.headers["x-tenant"] = "a"
    return Seen(key, session=session).outlet.headers["x-tenant"] == "a"


# What proves that an argument is honoured, the exporter driven, or the difference named. Files have tests of their own
# (test_drop_in.py), for three of them only mean something together.
PROOFS = {
    "endpoint": has_url,
    "headers": is_read("headers", {"x-tenant": "a"}),
    "timeout": is_read("timeout", 7.0),
    "compression": is_compressed,
    "session": with_session,
    "_transport": is_driven("_transport", OwnTransport()),
    "insecure": lambda key: not Seen(key, insecure=True).is_driven and Seen(key, insecure=False).is_driven,
    "credentials": is_driven("credentials", grpc.ssl_channel_credentials(), endpoint="https://collector:4317"),
    "channel_options": is_driven("channel_options", (("grpc.max_send_message_length", 1000),)),
    "retryable_error_codes": is_driven("retryable_error_codes", [grpc.StatusCode.NOT_FOUND]),
    "max_export_batch_size": has_limit("max_export_batch_size", 7, "max_export_batch_size", 7),
    "max_request_size": has_limit("max_request_size", 64 * 1024, "max_batch_bytes", 32 * 1024),
    "preferred_temporality": has_temporality,
    "preferred_aggregation": has_aggregation,
    "meter_provider": is_documented("meter_provider"),
}
FILES = {"certificate_file", "client_key_file", "client_certificate_file"}


def arguments(kind):
    return list(inspect.signature(kind.__init__).parameters)[1:]


def numbers(text):
    return tuple(int(part) for part in text.split("."))


@pytest.mark.parametrize("key", CLASSES, ids="-".join)
def test_the_installed_exporters_have_the_arguments_of_the_table(key):
    """Or a release has brought one that nobody has decided about: read its source, extend the table, prove it below."""
    installed = numbers(version(f"opentelemetry-exporter-otlp-proto-{key[0]}"))
    last = max((each for each in RELEASED[key] if numbers(each) <= installed), key=numbers)
    assert set(arguments(CLASSES[key][0])) == set(RELEASED[key][last])


def test_every_argument_that_was_ever_released_has_a_proof():
    """Also those of versions that are not installed here."""
    released = {name for table in RELEASED.values() for names in table.values() for name in names}
    assert released == set(PROOFS) | FILES


PRESENT = [(key, name) for key, (kind, _) in CLASSES.items() for name in arguments(kind) if name not in FILES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("key", "name"), PRESENT, ids=[f"{'-'.join(key)}-{name}" for key, name in PRESENT])
def test_an_argument_is_honoured_or_the_exporter_driven_or_the_difference_named(key, name):
    assert PROOFS[name](key)


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_file_is_read(name, certificate):
    both = {"client_certificate_file", "client_key_file"}
    files = dict.fromkeys(both if name in both else {name}, certificate)
    assert getattr(Seen(("http", "OTLPSpanExporter"), **files).outlet, name) == certificate


@pytest.mark.skipif("max_request_size" not in arguments(http_traces.OTLPSpanExporter), reason="since 1.45")
class TestMaxRequestSize:
    LIMIT = 4096

    def sent(self, key, offer, **ours):
        """Return what goes out, and the books."""
        sender = ScriptedSender([])
        exporter = CLASSES[key][0](max_request_size=self.LIMIT, compression=Compression.NoCompression)
        door = door_of(key, exporter, make_sender=lambda *_: sender, **ours)
        offer(door)
        while door.tank.pipeline.run_once() <= 0 or door.tank.force_flush(1.0) is None:
            pass
        stats = door.tank.pipeline.stats()
        door.tank.shutdown(0.1)
        return sender, stats

    def spans(self, sizes):
        def offer(door):
            provider = TracerProvider(shutdown_on_exit=False)
            provider.add_span_processor(door)
            for size in sizes:
                provider.get_tracer("t").start_span("s", attributes={"a": "x" * size}).end()

        return offer

    def test_no_request_is_larger_and_nothing_is_lost(self):
        """The exporter would drop the whole batch of 512."""
        sender, stats = self.sent(("http", "OTLPSpanExporter"), self.spans([100] * 300))
        assert all(batch.raw_size <= self.LIMIT for batch in sender.sent)
        assert (stats.delivered, stats.rejected) == (300, 0)

    def test_what_is_cut_is_cut_small_enough_whatever_the_sizes(self):
        """The last item of a batch comes on top of what made it due."""
        sender, stats = self.sent(("http", "OTLPSpanExporter"), self.spans([10, 3000, 2000, 10, 3500, 900] * 10))
        assert all(batch.raw_size <= self.LIMIT for batch in sender.sent)
        assert stats.delivered == 60

    def test_an_item_that_is_larger_by_itself_is_rejected_and_counted(self):
        """As the exporter drops it, but alone."""
        sender, stats = self.sent(("http", "OTLPSpanExporter"), self.spans([10, 9000, 10]))
        assert all(batch.raw_size <= self.LIMIT for batch in sender.sent)
        assert (stats.delivered, stats.rejected) == (2, 1)

    @pytest.mark.parametrize("size", [0, -1, 64 * 1024 * 1024])
    def test_no_limit_and_a_high_one_leave_batches_as_they_are(self, size):
        seen = Seen(("http", "OTLPSpanExporter"), max_request_size=size)
        assert (seen.is_driven, seen.limits) == (False, Seen(("http", "OTLPSpanExporter")).limits)

    def test_logs_keep_it_too(self):
        def offer(door):
            provider = LoggerProvider(shutdown_on_exit=False)
            provider.add_log_record_processor(door)
            for _ in range(300):
                provider.get_logger("t").emit(LogRecord(body="x" * 100, observed_timestamp=1))

        sender, stats = self.sent(("http", "OTLPLogExporter"), offer)
        assert all(batch.raw_size <= self.LIMIT for batch in sender.sent)
        assert stats.delivered == 300


@pytest.mark.parametrize("key", [key for key in CLASSES if key[1] == "OTLPMetricExporter"], ids="-".join)
def test_a_metric_exporters_batch_size_bounds_its_requests(key):
    """Data points, as the exporter counts them; the smaller of its own and ours counts."""
    sender = ScriptedSender([])
    insecure = {"insecure": True} if key[0] == "grpc" else {}
    exporter = CLASSES[key][0](max_export_batch_size=7, **insecure)
    reader = door_of(key, exporter, make_sender=lambda *_: sender)
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    counter = provider.get_meter("t").create_counter("c")
    for n in range(50):
        counter.add(1, {"n": n})
    reader.force_flush(1000)
    assert sum(batch.items for batch in sender.sent) >= 50
    assert all(batch.items <= 7 for batch in sender.sent)
    provider.shutdown()

    smaller = door_of(
        key, CLASSES[key][0](max_export_batch_size=7, **insecure), metrics=BufferConfig(max_export_batch_size=3)
    )
    assert smaller.tank.pipeline.limits.max_export_batch_size == 3
    smaller.tank.shutdown(0.1)


def test_a_batch_size_of_nothing_leaves_the_exporter_to_itself():
    """Nobody knows what it means."""
    key = ("http", "OTLPMetricExporter")
    assert Seen(key, max_export_batch_size=0).is_driven
