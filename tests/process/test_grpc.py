"""Real processes that send over gRPC: forks with live channels, in the middle of calls, and imports."""

import threading
from collections import Counter

import pytest

from process.programs import ended, heard, kill_all, run, start
from servers.grpc import GrpcServer
from servers.grpc_collector import GrpcCollector

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="no fork here"),
]


class Arrived:
    """Answers after a pause, and counts log records by identity."""

    def __init__(self, pause=0.0):
        self.seen = Counter()
        self._pause = threading.Event()
        self._seconds = pause
        self._lock = threading.Lock()

    def __call__(self, call, context):
        if "Logs" in call.method:
            scopes = [scope for resource in call.request.resource_logs for scope in resource.scope_logs]
            items = [record.attributes[0].value.string_value for scope in scopes for record in scope.log_records]
            with self._lock:
                self.seen.update(items)
        self._pause.wait(self._seconds)
        return b""


@pytest.fixture
def serve():
    """Runs a program against a gRPC server with this answer; returns exit code and words."""
    yield lambda answer, program: _serve(answer, program)
    kill_all()


def _serve(answer, program):
    with GrpcServer(answer) as server:
        return run(program, f"http://{server.address}", OTEL_EXPORTER_OTLP_PROTOCOL="grpc")


FORKS = """
    tank = install()
    children = []
    for n in range(8):
        work(n * 100, 100)
        time.sleep(0.05)
        pid = os.fork()
        if pid == 0:
            work(5000 + n * 10, 10)
            ok = tank.shutdown(timeout=8.0)
            os._exit(0 if ok and tank.stats().logs.delivered == 10 else 3)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    say(codes=codes, ok=tank.shutdown(timeout=8.0), books=books(tank))
"""


def test_forks_over_live_channels_lose_and_repeat_nothing(serve):
    """Each child sends its own items over a channel of its own; the parent's goes on."""
    arrived = Arrived()

    code, [words] = serve(arrived, FORKS)

    assert (code, words["codes"], words["ok"]) == (0, [0] * 8, True)
    assert words["books"]["logs"]["delivered"] == 800
    assert len(arrived.seen) == 880
    assert set(arrived.seen.values()) == {1}


def test_forks_in_the_middle_of_calls_lose_nothing(serve):
    """Such calls are broken off and their batches sent again; without that, children would crash or hang."""
    arrived = Arrived(pause=0.5)

    code, [words] = serve(arrived, FORKS)

    assert (code, words["codes"], words["ok"]) == (0, [0] * 8, True)
    assert words["books"]["logs"]["delivered"] == 800
    assert len(arrived.seen) == 880


def test_our_threads_import_nothing_over_grpc_either(serve):
    """A fork in the middle of an import leaves the child with a lock that nobody releases."""
    code, words = serve(
        Arrived(),
        """
        tank = install()
        work(0, 1)
        before = set(sys.modules)
        work(1, 700)
        tank.shutdown(timeout=5.0)
        say(imported=sorted(set(sys.modules) - before))
        """,
    )

    assert code == 0
    assert words == [{"imported": []}]


DROP_INS = """
    from opentelemetry._logs import set_logger_provider
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider

    # As users write it: no argument, for it is the environment that names the endpoint, and without TLS, by its scheme.
    timing = surgetank.Timing(backoff_max=0.5, cooldown_initial=0.1, cooldown_max=0.5)
    spans = surgetank.BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=100, timing=timing)
    logs = surgetank.BatchLogRecordProcessor(OTLPLogExporter(), schedule_delay_millis=100, timing=timing)
    points = surgetank.PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=100, timing=timing)
    tracers, loggers, meters = TracerProvider(), LoggerProvider(), MeterProvider([points])
    tracers.add_span_processor(spans)
    loggers.add_log_record_processor(logs)
    trace.set_tracer_provider(tracers)
    set_logger_provider(loggers)
    metrics.set_meter_provider(meters)

    for part in range(3):
        work(part * 200, 200)
        time.sleep(0.3)
        say(part=part)
        sys.stdin.readline()
    # In the order in which the providers' exit hooks would.
    for each in (tracers, loggers, meters):
        each.shutdown()
    for door, signal in ((spans, "spans"), (logs, "logs"), (points, "metrics")):
        found = books(door.tank)[signal]
        found["is_driven"] = door.tank._is_driven
        say(**found)
"""


def test_drop_ins_read_the_sdks_own_grpc_exporters_and_lose_nothing_in_an_outage():
    """The exporters themselves, not what looks like them; our calls are known by their batch ids."""
    with GrpcCollector() as collector:
        try:
            process = start(DROP_INS, collector.endpoint, stdin=True)
            for change in (collector.stop_listening, collector.listen_again, lambda: None):
                heard(process)
                change()
                process.stdin.write("\n")
                process.stdin.flush()
            code, books = ended(process)
        finally:
            kill_all()

        assert code == 0
        for each in books:
            assert each["delivered"] == each["offered"] > 0, books
            assert not each["is_driven"]
        report = collector.report()
        for signal in ("spans", "logs"):
            assert report[signal] == {"received": 600, "unique": 600, "duplicates": 0}
        assert report["delta_sums"] == {"work.done": 600}
        assert all("surgetank-batch-id" in headers for headers in collector.headers)
