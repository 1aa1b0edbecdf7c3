"""The configurator in processes of their own, as the auto-instrumentation's loader calls it."""

import pytest

from process.programs import ended, heard, kill_all, run, start
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

CONFIGURE = """
os.environ.setdefault("OTEL_PYTHON_CONFIGURATOR", "surgetank")
from surgetank.otel.configurator import SurgetankConfigurator
SurgetankConfigurator().configure(auto_instrumentation_version="1.2.3")
"""
STOCK = """
from opentelemetry.sdk._configuration import _OTelSDKConfigurator
_OTelSDKConfigurator().configure()
"""
SURGETANK = {f"OTEL_{signal}_EXPORTER": "surgetank" for signal in ("TRACES", "METRICS", "LOGS")}


@pytest.fixture
def collector():
    with Collector(keep=True) as collector:
        yield collector
    kill_all()


def program(text):
    """Return a program that the configurator is loaded for."""
    return CONFIGURE + text


def counts(collector):
    report = collector.report()
    sums = report["delta_sums"].get("work.done", 0)
    return report["spans"]["received"], report["logs"]["received"], sums


def resources(collector):
    return [
        {attribute.key: attribute.value.string_value for attribute in each.resource.attributes}
        for _, request in collector.requests
        for field in ("resource_spans", "resource_metrics", "resource_logs")
        for each in getattr(request, field, ())
    ]


def test_all_three_signals_arrive_once(collector):
    """Where no exporter is named, OTLP is meant."""
    code, _ = run(program("work(0, 300)"), collector.endpoint)

    assert code == 0
    assert counts(collector) == (300, 300, 300)


def test_where_readers_cannot_be_added_later_the_sdk_makes_ours(collector):
    """As in the oldest version that is supported."""
    older = "from surgetank.otel import shim; shim.can_add_readers = lambda: False\n"

    code, _ = run(older + program("work(0, 30)"), collector.endpoint)

    assert code == 0
    assert counts(collector) == (30, 30, 30)


def test_an_otlp_exporter_is_replaced_and_console_stays(collector):
    """Even where the packages of the OTLP exporters are not there, since nobody loads them."""
    process = start(
        program("work(0, 3)"),
        collector.endpoint,
        OTEL_TRACES_EXPORTER="otlp,console",
        OTEL_LOGS_EXPORTER="otlp_proto_http",
        OTEL_METRICS_EXPORTER="otlp_proto_grpc , surgetank",
    )
    out, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert out.count('"name": "work"') == 3
    assert counts(collector) == (3, 3, 3)


def test_what_is_none_or_another_exporters_stays_so(collector):
    """The tank is not put where nobody asked for OTLP."""
    process = start(
        program("work(0, 3)"),
        collector.endpoint,
        OTEL_TRACES_EXPORTER="console",
        OTEL_LOGS_EXPORTER="none",
        OTEL_METRICS_EXPORTER="otlp",
    )
    out, errors = process.communicate(timeout=30)

    assert process.returncode == 0, errors
    assert out.count('"name": "work"') == 3
    assert counts(collector) == (0, 0, 3)


def test_the_variables_are_as_before_afterwards(collector):
    """For the processes that the application starts."""
    text = """
say(traces=os.environ["OTEL_TRACES_EXPORTER"], logs=os.environ.get("OTEL_LOGS_EXPORTER"))
"""
    _, words = run(program(text), collector.endpoint, OTEL_TRACES_EXPORTER="otlp,console")

    assert words == [{"traces": "otlp,console", "logs": None}]


def test_the_sdks_own_settings_hold(collector):
    """Resource, version of the auto-instrumentation, sampler and id generator are the SDK's configurator's business."""
    text = """
tracer = trace.get_tracer("app")
tracer.start_span("dropped").end()
say(sampler=trace.get_tracer_provider().sampler.get_description())
get_logger("app").emit(LogRecord(body="hello"))
"""
    _, words = run(
        program(text),
        collector.endpoint,
        OTEL_SERVICE_NAME="shop",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
        OTEL_TRACES_SAMPLER="always_off",
        OTEL_PYTHON_ID_GENERATOR="random",
    )

    assert words == [{"sampler": "AlwaysOffSampler"}]
    assert counts(collector) == (0, 1, 0)
    found = resources(collector)
    assert found
    for resource in found:
        assert resource["service.name"] == "shop"
        assert resource["deployment.environment"] == "test"
        assert resource["telemetry.auto.version"] == "1.2.3"


def test_the_sdk_can_be_disabled(collector):
    """No tank is made, so that none is found."""
    text = """
from surgetank import process
work(0, 3)
say(tank=process._first)
"""
    _, words = run(program(text), collector.endpoint, OTEL_SDK_DISABLED="true")

    assert words == [{"tank": None}]
    assert counts(collector) == (0, 0, 0)


def test_the_logging_handler_of_the_sdk_feeds_the_tank(collector):
    """Its lines arrive, ours do not."""
    text = """
logging.getLogger("app").warning("hello")
logging.getLogger("surgetank").warning("not this one")
# From Python 3.12 on the SDK's handler fails to start a thread at the end of the process; `logging` would print that.
logging.raiseExceptions = False
"""
    code, _ = run(
        program(text),
        collector.endpoint,
        OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED="true",
        PYTHONWARNINGS="ignore",
    )

    assert code == 0
    assert counts(collector) == (0, 1, 0)


def test_install_returns_the_configurators_tank_and_wires_nothing_twice(collector):
    """There is one tank in the process; settings that come too late are named."""
    text = """
tank = surgetank.install(timeout=3.0)
work(0, 5)
say(same=tank is surgetank.install(), flushed=tank.force_flush(5.0), offered=tank.stats().spans.offered)
"""
    process = start(program(text), collector.endpoint)
    out, errors = process.communicate(timeout=30)

    assert '"same": true, "flushed": true, "offered": 5' in out, errors
    assert "without effect: timeout" in errors
    assert counts(collector) == (5, 5, 5)


def test_a_process_that_did_not_name_it_is_configured_as_if_it_were_not_installed(collector):
    """The loader takes the first configurator that it finds, and that may be ours by chance."""
    text = """
say(processors=len(trace.get_tracer_provider()._active_span_processor._span_processors))
"""
    _, words = run(program(text), collector.endpoint, OTEL_PYTHON_CONFIGURATOR="another")

    assert words == [{"processors": 0}]


def test_a_forked_child_has_the_tank_too(collector):
    """It inherits the wiring, and delivers its own items once."""
    text = """
work(0, 10)
pid = os.fork()
if pid == 0:
    work(10, 10)
    assert surgetank.install().shutdown(5.0)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""
    code, _ = run(program(text), collector.endpoint)

    assert code == 0
    assert counts(collector) == (20, 20, 20)


def test_named_exporters_hand_over_everything_before_the_process_ends(collector):
    """The SDK's batch processors hold it for five seconds, and end after the tank."""
    code, _ = run(STOCK + "work(0, 300)", collector.endpoint, **SURGETANK)

    assert code == 0
    assert counts(collector) == (300, 300, 300)


def test_named_exporters_hand_over_everything_at_sigterm(collector):
    """Which runs no exit hooks."""
    process = start(STOCK + "work(0, 300); say(ready=1); idle()", collector.endpoint, **SURGETANK)
    heard(process)

    process.terminate()

    assert ended(process)[0] == -15
    assert counts(collector) == (300, 300, 300)


def test_install_adds_nothing_to_named_exporters(collector):
    """Each signal has its door already; a flush of the tank draws what the SDK's queues hold."""
    text = """
tank = surgetank.install()
work(0, 5)
say(flushed=tank.force_flush(5.0), offered=tank.stats().spans.offered)
"""
    _, words = run(STOCK + text, collector.endpoint, **SURGETANK)

    assert words == [{"flushed": True, "offered": 5}]
    assert counts(collector) == (5, 5, 5)
