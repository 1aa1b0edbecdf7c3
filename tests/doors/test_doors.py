"""The doors that need no code, as `docs/zero-code.md` shows them, from the wheel, in fresh environments, through an outage."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from doors.environments import ROOT, build_all, variables_for
from servers.grpc_collector import GrpcCollector
from surgetank.testing.collector import Collector

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="the blocks are for sh")]

SECTIONS = re.split(r"^## ", (ROOT / "docs" / "zero-code.md").read_text(), flags=re.MULTILINE)[1:]
COUNT = 600
# It knows nothing of us. The end of each third is said, and answered when the collector is down, or back.
APPLICATION = f"""
import sys, time
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger

tracer, logger = trace.get_tracer("app"), get_logger("app")
counter = metrics.get_meter("app").create_counter("work.done")
for n in range({COUNT}):
    tracer.start_span("work", attributes={{"n": n}}).end()
    logger.emit(LogRecord(body="worked", attributes={{"item.id": str(n)}}))
    counter.add(1)
    time.sleep(0.002)
    if n in ({COUNT // 3}, {COUNT * 2 // 3}):
        time.sleep(0.3)
        print(n, flush=True)
        sys.stdin.readline()
"""
# Quick at everything, so that the test is.
QUICK = {
    "OTEL_METRIC_EXPORT_INTERVAL": "200",
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
    "OTEL_BSP_SCHEDULE_DELAY": "100",
    "OTEL_BLRP_SCHEDULE_DELAY": "100",
    "SURGETANK_PERSISTENCE_ENABLED": "false",
    "SURGETANK_STATUS_ENABLED": "false",
    "SURGETANK_BACKOFF_MAX": "0.5",
    "SURGETANK_COOLDOWN_INITIAL": "0.1",
    "SURGETANK_COOLDOWN_MAX": "0.5",
    "SURGETANK_SHUTDOWN_TIMEOUT": "15",
}


@pytest.fixture(scope="module")
def environments(tmp_path_factory):
    return build_all(tmp_path_factory.mktemp("environments"))


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


def blocks(section, kind):
    return re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)


def prepare(section, folder, endpoint):
    """Write what the section needs into a folder; return its commands, and the environment that its `pip` line asks for."""
    (folder / "app.py").write_text(APPLICATION)
    for block in blocks(section, "yaml"):
        name = block.partition("\n")[0].removeprefix("# ")
        (folder / name).write_text(block.replace("http://localhost:4318", endpoint))
    (commands,) = blocks(section, "sh")
    installs, _, rest = commands.partition("\n")
    assert installs.startswith("pip install surgetank")
    return rest.replace("http://localhost:4318", endpoint), "bare" if installs == "pip install surgetank" else "full"


def through_an_outage(process, collector):
    """Take the collector away in the second third of the work."""
    try:
        for change in (collector.stop_listening, collector.listen_again):
            assert process.stdout.readline(), process.communicate()[1]
            change()
            process.stdin.write("\n")
            process.stdin.flush()
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    return errors


def start(commands, environment, folder, **variables):
    return subprocess.Popen(
        ["sh", "-ec", commands],
        cwd=folder,
        env=variables_for(environment, **QUICK, **variables),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def all_arrived_once(collector, errors):
    report = collector.report()
    for signal in ("spans", "logs"):
        assert report[signal] == {"received": COUNT, "unique": COUNT, "duplicates": 0}, (report, errors)
    assert report["delta_sums"]["work.done"] == COUNT, (report, errors)


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.partition("\n")[0])
def test_everything_arrives_once_through(section, environments, collector, tmp_path):
    """The block as it stands in the document, but for the collector's port."""
    commands, name = prepare(section, tmp_path, collector.endpoint)

    errors = through_an_outage(start(commands, environments[name], tmp_path), collector)

    all_arrived_once(collector, errors)


def test_the_document_has_five_doors():
    """Or the test above would say less than it seems to."""
    assert len(SECTIONS) == 5


def test_everything_arrives_once_over_grpc(environments, tmp_path):
    """The first door's block, with the other protocol: it is the one that `opentelemetry-distro` names by default."""
    (tmp_path / "app.py").write_text(APPLICATION)
    with GrpcCollector() as collector:
        process = start(
            "exec opentelemetry-instrument python app.py",
            environments["full"],
            tmp_path,
            OTEL_PYTHON_CONFIGURATOR="surgetank",
            OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        )
        errors = through_an_outage(process, collector)

        all_arrived_once(collector, errors)
        assert all("surgetank-batch-id" in headers for headers in collector.headers)


def test_without_grpc_the_distributions_default_is_http_for_the_children_too(environments, collector, tmp_path):
    """`opentelemetry-distro` says `grpc` where nobody has, also where there is none: all of them speak HTTP then, and nobody's variables change."""
    (tmp_path / "app.py").write_text(
        """
import os, subprocess, sys
from opentelemetry import trace
trace.get_tracer("app").start_span("one").end()
print(os.environ["OTEL_EXPORTER_OTLP_PROTOCOL"], flush=True)
if len(sys.argv) == 1:
    subprocess.run([sys.executable, "app.py", "child"], check=True, timeout=20)
"""
    )
    process = start(
        "exec opentelemetry-instrument python app.py",
        environments["small"],
        tmp_path,
        OTEL_PYTHON_CONFIGURATOR="surgetank",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_METRICS_EXPORTER="none",
    )
    out, errors = process.communicate(timeout=40)

    assert process.returncode == 0, errors
    assert out == "grpc\ngrpc\n"
    assert collector.report()["spans"]["unique"] == 2, errors
    # The endpoint is not at HTTP's own port, so it may have been meant for gRPC.
    assert errors.count("pip install 'surgetank[grpc]'") == 2, errors
    assert "Traceback" not in errors


def test_a_file_may_have_batch_processors_and_a_periodic_reader(environments, collector, tmp_path):
    """What the SDK's queues hold at the end of the process is drawn into the tank before it ends."""
    (section,) = [each for each in SECTIONS if blocks(each, "yaml")]
    commands, name = prepare(section, tmp_path, collector.endpoint)
    file = tmp_path / "otel.yaml"
    text = file.read_text().replace("simple:", "batch:").replace("pull:", "periodic:")
    file.write_text(text)

    errors = through_an_outage(start(commands, environments[name], tmp_path), collector)

    all_arrived_once(collector, errors)


def test_a_wrong_key_in_a_file_is_named_and_the_application_runs(environments, collector, tmp_path):
    """With the key that was probably meant."""
    (section,) = [each for each in SECTIONS if blocks(each, "yaml")]
    commands, name = prepare(section, tmp_path, collector.endpoint)
    file = tmp_path / "otel.yaml"
    file.write_text(file.read_text().replace("max_memory_mb", "max_memroy_mb"))
    (tmp_path / "app.py").write_text("print('ran')")

    out, errors = start(commands, environments[name], tmp_path).communicate(timeout=30)

    assert out == "ran\n"
    assert "max_memroy_mb" in errors
    assert "'max_memory_mb'" in errors


def test_without_the_variable_the_stock_configurator_is_used(environments, collector, tmp_path):
    """To be installed is not to be asked for: here the stock exporter loses what the outage costs it, or not, but sends it itself."""
    (tmp_path / "app.py").write_text("from opentelemetry import trace\ntrace.get_tracer('app').start_span('one').end()")

    process = start(
        "exec opentelemetry-instrument python app.py",
        environments["full"],
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_METRICS_EXPORTER="none",
    )
    process.communicate(timeout=30)

    assert collector.report()["spans"]["unique"] == 1
    assert not any("surgetank-batch-id" in headers for headers in collector.headers)


def test_the_wheel_has_what_the_doors_need(environments):
    """The folder for the interpreter's path is no package, and is easily left out."""
    (site,) = Path(environments["bare"]).glob("lib/python*/site-packages/surgetank/cli/site/sitecustomize.py")

    assert site.stat().st_size > 0
