"""Whatever a variable says, telemetry does not stop the application: one line says that it is ignored, and the tank works."""

import logging
import re
import subprocess
import sys

import pytest
from opentelemetry.sdk.trace import TracerProvider

import surgetank
from fakes.tanks import stepped_tank
from servers.certificates import Authority
from surgetank import BatchSpanProcessor, PeriodicExportingMetricReader, Signal, Tank
from surgetank.catalogue.effective import load
from surgetank.catalogue.entries import settings, variables
from surgetank.config import OutletConfig
from surgetank.delivery.senders import sender_for
from surgetank.testing import ManualClock

OTLP = "OTEL_EXPORTER_OTLP_"
# None of these is a number, a word that means something, a URL, a file or a header.
SHAPES = [
    '"5"',
    "'http://c:4318'",
    "many",
    "-1",
    "nan",
    "1e999",
    "1_0_",
    "[",
    "http://",
    "//c",
    "\udcff",
    "a\x01b",
    "=",
    '"',
]
# Free text: everything is right, or the setting is read by others.
FREE = {"dir", "status_dir", "configurator", "encryption_key_file"}


def is_free(setting):
    return setting.keyword in FREE or setting.keyword.endswith(".exporter")


@pytest.fixture
def lines(caplog):
    """What was logged, from level WARNING up."""
    caplog.set_level(logging.WARNING, "surgetank")

    def said():
        return [record.getMessage() for record in caplog.records]

    return said


def made(**settings):
    """Return a tank with all its doors, as an application has them."""
    tank = Tank(is_threaded=False, handle_sigterm=False, clock=ManualClock(), **settings)
    assert tank.span_processor and tank.log_record_processor and tank.metric_reader
    return tank


@pytest.mark.parametrize("variable", sorted(variables()))
def test_no_value_of_any_variable_is_raised(monkeypatch, tmp_path, variable):
    """With the spool as it is by default, so that its settings are read, too."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path / "status"))
    monkeypatch.chdir(tmp_path)
    for text in SHAPES:
        monkeypatch.setenv(variable, text)
        made().shutdown(0)


@pytest.mark.parametrize("setting", [each for each in settings() if not is_free(each)], ids=lambda each: each.name)
def test_a_bad_value_is_named_once_and_the_default_counts(monkeypatch, caplog, lines, setting):
    """Every setting of the catalogue, by each of its variables."""
    for variable in setting.variables:
        if variable.endswith("_PROXY"):
            continue  # Read by whoever sends; below.
        for text in SHAPES:
            if setting.section == "outlet" and setting.keyword == "endpoint" and text == "many":
                continue  # A host for gRPC.
            before = load({})
            found = load({variable: text})
            assert setting.read(found) == setting.read(before), (variable, text)
            # Of headers, each is judged for itself.
            assert setting.source(found) is None or setting.keyword == "headers"
            told = [line for line in lines() if variable in line]
            assert len(told) == 1, (variable, text, lines())
            assert "\n" not in told[0]
            monkeypatch.setattr("surgetank.config.environment._told", set())
            caplog.clear()


def test_a_missing_certificate_is_of_no_matter_to_http(monkeypatch, lines):
    """As with the stock exporter; the receiver gets what is offered."""
    monkeypatch.setenv(f"{OTLP}CERTIFICATE", "/nowhere/ca.pem")
    tank, received = stepped_tank()
    provider = TracerProvider()
    provider.add_span_processor(tank.span_processor)
    provider.get_tracer("app").start_span("work").end()

    assert tank.force_flush()

    assert [span.name for span in received.spans()] == ["work"]
    assert lines() == [
        f"{OTLP}CERTIFICATE must be the path of a file that exists (got '/nowhere/ca.pem'); it is ignored"
    ]


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_files_that_tls_cannot_use_are_ignored(monkeypatch, tmp_path, lines, protocol):
    """Empty ones, a key without a certificate, and a pair that is none."""
    certificate, _ = Authority(tmp_path).client_files()
    junk = tmp_path / "junk.pem"
    junk.write_text("SECRET", encoding="utf-8")
    monkeypatch.setenv(f"{OTLP}ENDPOINT", "https://collector:4318")
    monkeypatch.setenv(f"{OTLP}PROTOCOL", protocol)
    for named in (
        {"CERTIFICATE": junk},
        {"CLIENT_CERTIFICATE": junk},
        {"CLIENT_KEY": junk},
        {"CLIENT_CERTIFICATE": certificate, "CLIENT_KEY": junk},
    ):
        with monkeypatch.context() as patch:
            for name, path in named.items():
                patch.setenv(OTLP + name, str(path))
            tank = made()
            outlet = tank.outlets[Signal.SPANS]
            assert (outlet.certificate_file, outlet.client_certificate_file, outlet.client_key_file) == (
                None,
                None,
                None,
            )
            tank.shutdown(0)
    assert len(lines()) == 4
    assert "SECRET" not in str(lines())


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_header_that_cannot_be_sent_is_left_out_and_the_others_stay(monkeypatch, lines, protocol):
    """By its name, or its number; never with its value."""
    text = "api-key=a%20b,Content-Type=text/SECRET,tenant=x,SECRET,b d=SECRET,line=SECRET%0Ax,half=SECRET\udcff"
    monkeypatch.setenv(f"{OTLP}HEADERS", text)
    monkeypatch.setenv(f"{OTLP}PROTOCOL", protocol)
    tank = made()

    assert dict(tank.outlets[Signal.LOGS].headers) == {"api-key": "a b", "tenant": "x"}
    assert [re.search(r"^header (.*) in OTEL_EXPORTER_OTLP_HEADERS", line)[1] for line in lines()] == [
        "'content-type'",
        "number 4",
        "number 5",
        "'line'",
        "'half'",
    ]
    assert "SECRET" not in str(lines())


def test_quotation_marks_of_an_environment_file_are_named_as_the_cause(monkeypatch, lines):
    """Docker keeps them; what is in between is a credential, and is neither shown nor sent in parts."""
    monkeypatch.setenv(f"{OTLP}HEADERS", '"authorization=Bearer SECRET,tenant=x"')
    tank = made()

    assert dict(tank.outlets[Signal.SPANS].headers) == {}
    assert lines() == [f"{OTLP}HEADERS must be name=value,name=value; remove the quotation marks; it is ignored"]


def test_what_grpc_cannot_carry_is_left_out(monkeypatch, lines):
    """Metadata knows less than HTTP."""
    monkeypatch.setenv(f"{OTLP}PROTOCOL", "grpc")
    monkeypatch.setenv(f"{OTLP}HEADERS", "grpc-x=1,a!b=2,word=%C3%BC,ok=3")

    assert dict(made().outlets[Signal.SPANS].headers) == {"ok": "3"}
    assert len(lines()) == 3


def test_a_proxy_of_another_kind_in_the_environment_is_ignored(monkeypatch, lines):
    """SOCKS, which another program may have been told to use; as an argument it is refused."""
    monkeypatch.setenv("ALL_PROXY", "socks5://user:SECRET@proxy:1080")
    sender_for(OutletConfig(url="http://c:4318/v1/traces"), ManualClock()).close()

    (line,) = lines()
    assert "'socks5://***@proxy:1080'" in line
    with pytest.raises(surgetank.ConfigError, match="proxy"):
        made(proxy="socks5://proxy:1080")


@pytest.mark.parametrize("variable", ["SURGETANK_SPOOL_ENCRYPTION_KEY", "SURGETANK_SPOOL_ENCRYPTION_KEY_FILE"])
def test_without_its_key_nothing_is_stored(monkeypatch, tmp_path, lines, variable):
    """Rather than in the clear."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv(variable, "id:SECRET")
    made().shutdown(0)

    assert not (tmp_path / "spool").exists()
    (line,) = (each for each in lines() if variable in each)
    assert line.endswith("; nothing is stored, because it would not be encrypted")
    assert "SECRET" not in line


def test_drop_in_classes_ignore_bad_variables_too(monkeypatch, lines):
    """Their arguments are checked as the SDK checks its own."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    spans, points = OTLPSpanExporter("http://127.0.0.1:9"), OTLPMetricExporter("http://127.0.0.1:9")
    for text in ("-5", "0", "many"):
        for name in ("BSP_MAX_QUEUE_SIZE", "BSP_SCHEDULE_DELAY", "BSP_EXPORT_TIMEOUT", "METRIC_EXPORT_INTERVAL"):
            monkeypatch.setenv(f"OTEL_{name}", text)
        BatchSpanProcessor(spans, max_export_batch_size=10, is_threaded=False).shutdown()
        PeriodicExportingMetricReader(points, is_threaded=False).shutdown()

    assert len([line for line in lines() if "it is ignored" in line]) == 12


@pytest.mark.slow
def test_install_survives_an_environment_in_which_everything_is_wrong(tmp_path):
    """In a process of its own, which says so on standard error and goes on."""
    code = (
        "import surgetank; from opentelemetry import trace; tank = surgetank.install(shutdown_timeout=0.0);"
        "trace.get_tracer('app').start_span('work').end(); print(tank.stats().spans.offered)"
    )
    names = variables() - {"OTEL_PYTHON_CONFIGURATOR"}
    environment = {**dict.fromkeys(names, '"wrong"'), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert done.stdout.strip() == "1"
    assert "Traceback" not in done.stderr
    for variable in ("SURGETANK_SPANS_MAX_SIZE", "OTEL_BSP_MAX_QUEUE_SIZE", f"{OTLP}ENDPOINT", "OTEL_TRACES_EXPORTER"):
        assert done.stderr.count(f"{variable} must be") == 1
