"""Forks of real processes with live pipelines: own items once, the parent's untouched, no shared socket."""

import pytest

from process.programs import ended, heard, kill_all, own_sums, run, start
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


def all_arrived(collector, count):
    report = collector.report()
    for signal in ("spans", "logs"):
        assert report[signal] == {"received": count, "unique": count, "duplicates": 0}, report
    assert own_sums(report) == {"work.done": count}, report


def test_a_child_sends_its_own_items_once_and_the_parent_loses_none(collector):
    """The parent has items in every stage when it forks: waiting, encoded, queued."""
    code, words = run(
        """
        tank = install()
        work(0, 700)
        pid = os.fork()
        if pid == 0:
            assert books(tank)["spans"]["offered"] == 0
            work(10_000, 50)
            ok = tank.shutdown(timeout=5.0)
            say(child=books(tank), ok=ok)
            os._exit(0)
        os.waitpid(pid, 0)
        work(700, 300)
        tank.shutdown(timeout=5.0)
        say(parent=books(tank))
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words[0]["child"]["spans"]["delivered"] == 50
    assert words[1]["parent"]["spans"]["delivered"] == 1000
    all_arrived(collector, 1050)


def test_our_threads_import_nothing(collector):
    """A fork in the middle of an import leaves the child with a lock that nobody releases."""
    code, words = run(
        """
        tank = install()
        work(0, 1)
        before = set(sys.modules)
        work(1, 700)
        tank.shutdown(timeout=5.0)
        say(imported=sorted(set(sys.modules) - before))
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words == [{"imported": []}]


def test_many_forks_over_a_live_connection_garble_and_repeat_nothing(collector):
    """Each child has its own socket; the parent goes on sending on its own."""
    code, _ = run(
        """
        tank = install()
        children = []
        for n in range(8):
            work(n * 100, 100)
            tank.force_flush(5.0)
            work(5000 + n * 10, 10)
            pid = os.fork()
            if pid == 0:
                work(100_000 + n * 1000, 20)
                sys.exit(0)
            children.append(pid)
        for pid in children: os.waitpid(pid, 0)
        """,
        collector.endpoint,
    )

    assert code == 0
    all_arrived(collector, 8 * 110 + 8 * 20)


def test_a_child_forked_while_a_send_hangs_works_on_its_own(collector):
    """The parent's sender waits on a silent endpoint; the child's begins anew."""
    collector.behave(behaviour.HANG)
    process = start(
        """
        tank = install()
        work(0, 100)
        until = time.monotonic() + 10
        # On a slow machine they are more than one batch, and one is in flight at a time.
        while not books(tank)["spans"]["in_flight"] and time.monotonic() < until:
            time.sleep(0.02)
        assert books(tank)["spans"]["in_flight"]
        pid = os.fork()
        if pid == 0:
            say(forked=1)
            time.sleep(0.3)
            work(10_000, 10)
            tank.shutdown(timeout=5.0)
            say(child=books(tank))
            os._exit(0)
        os.waitpid(pid, 0)
        tank.shutdown(timeout=10.0)
        say(parent=books(tank))
        """,
        collector.endpoint,
    )
    heard(process)
    collector.behave(behaviour.OK)

    code, words = ended(process)

    assert code == 0
    assert words[0]["child"]["spans"]["delivered"] == 10
    assert words[1]["parent"]["spans"]["delivered"] == 100
    report = collector.report()
    assert report["spans"]["unique"] == report["logs"]["unique"] == 110
    assert report["spans"]["duplicates"] == 0


def test_a_child_forked_while_the_reader_collects_still_exports_metrics(collector):
    """A collection is let finish before the fork, so the child inherits no lock that nobody will release."""
    code, words = run(
        """
        from opentelemetry.metrics import Observation
        tank = install(metric_export_interval=0.05)
        collecting = threading.Event()
        def slowly(options):
            collecting.set(); time.sleep(0.2)
            return [Observation(1)]
        metrics.get_meter("app").create_observable_gauge("slow", callbacks=[slowly])
        work(0, 10)
        collecting.wait(5.0)
        pid = os.fork()
        if pid == 0:
            work(1000, 5)
            ok = tank.shutdown(timeout=5.0)
            say(ok=ok, child=books(tank))
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words[0]["ok"]
    assert words[0]["child"]["metrics"]["delivered"] > 0
    assert own_sums(collector.report()) == {"work.done": 15}


def test_a_prefork_server_delivers_every_workers_items(collector):
    """A master that has a tank forks workers that fork nothing; all end by SIGTERM."""
    code, words = run(
        """
        tank = install()
        work(0, 10)
        pids = []
        for n in range(4):
            pid = os.fork()
            if pid == 0:
                for part in range(5):
                    work(1000 * (n + 1) + part * 50, 50); time.sleep(0.02)
                idle()
            pids.append(pid)
        time.sleep(1.0)
        for pid in pids: os.kill(pid, signal.SIGTERM)
        say(codes=[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words == [{"codes": [-15] * 4}]
    all_arrived(collector, 10 + 4 * 250)


def test_threads_of_a_child_are_not_taken_for_ours(collector):
    """The kernel gives the idents of our threads, which the child lacks, to the child's new threads."""
    code, words = run(
        """
        import threading
        tank = install()
        work(0, 100)
        tank.force_flush(5.0)
        pid = os.fork()
        if pid == 0:
            threads = [threading.Thread(target=work, args=(10_000 + n * 100, 100)) for n in range(8)]
            for each in threads: each.start()
            for each in threads: each.join()
            ok = tank.shutdown(timeout=5.0)
            say(child=books(tank), ok=ok)
            os._exit(0)
        os.waitpid(pid, 0)
        tank.shutdown(timeout=5.0)
        """,
        collector.endpoint,
    )

    assert code == 0
    assert words[0]["child"]["logs"]["delivered"] == 800
    assert words[0]["child"]["spans"]["delivered"] == 800


def test_what_a_parent_has_shut_down_takes_nothing_of_a_childs_time(collector):
    """Drop-in classes that close in a row share one deadline, within one process."""
    code, words = run(
        """
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
        from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter

        class Hanging(SpanExporter):
            def export(self, spans): time.sleep(30)

        class Slow(InMemoryLogRecordExporter):
            def export(self, batch):
                time.sleep(0.2)
                return super().export(batch)

        spans = surgetank.BatchSpanProcessor(Hanging(), shutdown_timeout=0.5)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(spans)
        provider.get_tracer("t").start_span("s").end()
        spans.shutdown()
        pid = os.fork()
        if pid == 0:
            logs = surgetank.BatchLogRecordProcessor(Slow(), shutdown_timeout=0.5)
            provider = LoggerProvider(shutdown_on_exit=False)
            provider.add_log_record_processor(logs)
            provider.get_logger("t").emit(LogRecord(body="b", observed_timestamp=1))
            logs.shutdown()
            say(delivered=logs.tank.stats().logs.delivered)
            os._exit(0)
        os.waitpid(pid, 0)
        os._exit(0)
        """,
        collector.endpoint,
    )

    assert (code, words) == (0, [{"delivered": 1}])


def test_a_childs_own_metrics_are_not_its_parents(collector):
    """Its first collection may come right after one of the parent's, whose books were just looked at."""
    code, words = run(
        """
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from surgetank.otel import self_metrics
        self_metrics._SAME_COLLECTION = 60.0  # However long the fork takes.
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader], shutdown_on_exit=False))
        tank = install(self_metrics=True)
        work(0, 100)

        def offered():
            return sum(
                point.value
                for resource in reader.get_metrics_data().resource_metrics
                for scope in resource.scope_metrics
                for metric in scope.metrics
                if metric.name == "surgetank.offered"
                for point in metric.data.data_points
                if point.attributes.get("surgetank.signal") == "spans"
            )

        before = offered()
        pid = os.fork()
        if pid == 0:
            say(parent=before, child=offered(), books=tank.stats().spans.offered)
            os._exit(0)
        os.waitpid(pid, 0)
        """,
        collector.endpoint,
    )

    assert (code, words) == (0, [{"parent": 100, "child": 0, "books": 0}])


def test_threads_of_a_multiprocessing_child_are_not_taken_for_ours(collector):
    """As above, where the child ends by `os._exit` and nobody shuts the tank down."""
    code, _ = run(
        """
        import multiprocessing
        install()
        work(0, 100)
        def many():
            threads = [threading.Thread(target=work, args=(10_000 + n * 100, 100)) for n in range(8)]
            for each in threads: each.start()
            for each in threads: each.join()
        child = multiprocessing.get_context("fork").Process(target=many)
        child.start(); child.join()
        sys.exit(child.exitcode)
        """,
        collector.endpoint,
    )

    assert code == 0
    all_arrived(collector, 900)
