"""A collector that nobody here wrote: rotel takes all three signals by OTLP over HTTP and gRPC, forwards them, and nothing is different."""

import importlib.util
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from surgetank import Signal, Tank
from surgetank.delivery.senders import sender_for
from surgetank.otlp.compression import decompress
from surgetank.testing.collector import Collector
from surgetank.testing.tally import REQUESTS

pytestmark = pytest.mark.slow

# What a process exits with whose shared libraries are not found: the agent wants those of an interpreter that was built so.
CANNOT_BE_LOADED = 127


def agent_path():
    """Return the agent's path, or None where the wheel has no build for this platform."""
    spec = importlib.util.find_spec("rotel")
    if spec is None:
        return None
    path = Path(spec.origin).parent / "rotel-agent"
    return path if path.exists() and os.access(path, os.X_OK) else None


def free_port():
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        return placeholder.getsockname()[1]


def wait_for(condition, seconds):
    """Look every few milliseconds until the condition holds; real processes give no other sign."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def accepts_connections(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def rotel(tmp_path):
    """Run the agent between a port of its own and a collector; yield its endpoint for each protocol and the collector."""
    path = agent_path()
    if path is None:
        pytest.skip("the rotel wheel has no build for this platform")
    grpc, http = free_port(), free_port()
    with Collector(keep=True) as collector:
        command = [
            *(path, "start", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}", "--otlp-http-endpoint", f"127.0.0.1:{http}"),
            *("--exporter", "otlp", "--otlp-exporter-endpoint", collector.endpoint, "--otlp-exporter-protocol", "http"),
            *("--batch-timeout", "100ms", "--log-file", tmp_path / "rotel.log"),
        ]
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: accepts_connections(http) or agent.poll() is not None, 15)
            if agent.poll() == CANNOT_BE_LOADED:
                pytest.skip(f"the agent does not run with this interpreter: {agent.stderr.read().strip()}")
            assert agent.poll() is None, agent.stderr.read()
            yield {"http/protobuf": f"http://127.0.0.1:{http}", "grpc": f"http://127.0.0.1:{grpc}"}, collector
        finally:
            agent.kill()
            agent.communicate()


class Recorder:
    """Has senders remember what they sent, for real."""

    def __init__(self):
        self.sent = []

    def sender_for(self, outlet, clock):
        """Return the sender that a tank would make, which is listened to."""
        sender = sender_for(outlet, clock)
        send = sender.send

        def remember(batch, timeout):
            raw = decompress(batch.body, batch.encoding, batch.raw_size)
            self.sent.append((batch.signal, REQUESTS[batch.signal].FromString(raw)))
            return send(batch, timeout)

        sender.send = remember
        return sender


def canonical(requests):
    """Return every item with its resource and scope, free of order."""
    found = {signal: [] for signal in Signal}
    for signal, request in requests:
        for resource_items in next(iter(request.ListFields()), (None, []))[1]:
            resource = text(resource_items.resource)
            for scope_items in list(resource_items.ListFields())[1][1]:
                owner = (resource, text(scope_items.scope), scope_items.schema_url)
                found[signal] += [(*owner, *words) for words in items(signal, scope_items)]
    return {signal: sorted(entries) for signal, entries in found.items()}


def items(signal, scope_items):
    if signal is Signal.SPANS:
        return [(text(span),) for span in scope_items.spans]
    if signal is Signal.LOGS:
        return [(text(record),) for record in scope_items.log_records]
    points = []
    for metric in scope_items.metrics:
        kind = metric.WhichOneof("data")
        data = getattr(metric, kind)
        about = (
            *(metric.name, metric.description, metric.unit, kind),
            *(str(getattr(data, "aggregation_temporality", "")), str(getattr(data, "is_monotonic", ""))),
        )
        points += [(*about, text(point)) for point in data.data_points]
    return points


def text(message):
    return message.SerializeToString(deterministic=True).hex()


def make_spans(tank):
    for service in ("shop", "billing"):
        provider = TracerProvider(resource=Resource({"service.name": service}), shutdown_on_exit=False)
        provider.add_span_processor(tank.span_processor)
        for scope in ("http", "db"):
            tracer = provider.get_tracer(scope, "1.0", "https://example.org/schema", {"scope.kind": scope})
            far = SpanContext(1 << 100, 77, is_remote=True, trace_flags=TraceFlags(1))
            for number in range(100):
                with tracer.start_as_current_span(
                    f"work {number}", kind=list(SpanKind)[number % 5], links=[Link(far, {"why": "asked"})]
                ) as span:
                    span.set_attributes(
                        {"n": number, "neg": -number, "f": number / 7, "b": True, "s": "größe", "l": [1, 2]}
                    )
                    span.add_event("step", {"at": number})
                    if number % 10 == 0:
                        span.set_status(Status(StatusCode.ERROR, "did not work"))


def make_logs(tank):
    provider = LoggerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_log_record_processor(tank.log_record_processor)
    logger = provider.get_logger("app", "2.0")
    for number, body in enumerate(["plain", 5, -5, 2.5, True, b"raw", ["a", 1], {"k": {"deep": [1, "x"]}}] * 20):
        logger.emit(
            LogRecord(
                timestamp=1_700_000_000_000_000_000 + number,
                body=body,
                severity_number=list(SeverityNumber)[1 + number % 24],
                severity_text="SOME",
                attributes={"n": number, "s": "x"},
                event_name="happened" if number % 2 else None,
            )
        )


def make_metrics(tank):
    views = [View(instrument_name="exp", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider(
        metric_readers=[tank.metric_reader],
        views=views,
        resource=Resource({"service.name": "shop"}),
        shutdown_on_exit=False,
    )
    meter = provider.get_meter("app")
    counter, updown = meter.create_counter("count", "1", "how many"), meter.create_up_down_counter("level")
    histogram, exponential, gauge = meter.create_histogram("h"), meter.create_histogram("exp"), meter.create_gauge("g")
    for number in range(1, 50):
        labels = {"kind": str(number % 5)}
        counter.add(number, labels)
        updown.add(-number / 2, labels)
        histogram.record(number, labels)
        exponential.record(number * 1.5, labels)
        gauge.set(number, labels)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_what_another_collector_forwards_is_what_we_sent(rotel, protocol):
    """Item by item, in all three signals."""
    endpoints, collector = rotel
    recorder = Recorder()
    tank = Tank(endpoint=endpoints[protocol], protocol=protocol, handle_sigterm=False, make_sender=recorder.sender_for)
    make_spans(tank)
    make_logs(tank)
    make_metrics(tank)

    assert tank.force_flush(timeout=10.0)
    assert tank.shutdown(timeout=5.0)

    stats = tank.stats()
    assert (stats.spans.delivered, stats.logs.delivered) == (400, 160)
    expected = canonical(recorder.sent)
    wait_for(lambda: {s: len(e) for s, e in canonical(collector.requests).items()} == counts(expected), 15)
    arrived = canonical(collector.requests)
    for signal in Signal:
        assert arrived[signal] == expected[signal], signal
        assert len(expected[signal]) > 0


def counts(entries):
    return {signal: len(found) for signal, found in entries.items()}
