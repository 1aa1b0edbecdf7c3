"""`surgetank doctor` and `surgetank config`, as a user gives them: against endpoints of every kind, folders and mistakes."""

import json
import os
import re
import socket
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from typer.testing import CliRunner

import surgetank
from fakes.requests import span
from servers.certificates import Authority
from servers.grpc import GrpcServer, abort
from servers.http import HttpServer, hang, status
from surgetank.catalogue.effective import load
from surgetank.cli.app import app
from surgetank.doctor.finding import State
from surgetank.doctor.memory import check_memory
from surgetank.doctor.processes import loads_between
from surgetank.doctor.storage import check_spool, filesystem_of
from surgetank.memory.reading import Reading
from surgetank.model import Signal
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

DOCUMENT = Path(__file__).parents[2] / "docs" / "doctor.md"
OTLP = "OTEL_EXPORTER_OTLP_"


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("OTEL_", "SURGETANK_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path / "spool"))
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path / "status"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def examined(*arguments):
    """Return exit code and what the doctor found, by check."""
    done = run("doctor", "--json", "--timeout", "2", *arguments)
    found = json.loads(done.stdout)
    checks = {}
    for each in found["checks"]:
        checks.setdefault(each["check"], []).append(each)
    return done.exit_code, checks, found


def sentences(checks, name):
    return " ".join(f"{each['state']}: {each['text']} {each['advice']}" for each in checks[name])


def test_all_is_well_with_a_collector(monkeypatch):
    """Each signal's empty request is taken, and nothing else is sent."""
    with Collector() as collector:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", collector.endpoint)
        code, checks, found = examined()
        report = collector.report()
    assert code == 0
    assert found["is_well"]
    for signal in Signal:
        assert checks[f"endpoint of {signal.value}"][0]["state"] == "ok"
    assert report["requests_made"] == 3
    assert (
        sum(each for name, each in report.items() if name in ("spans", "metrics", "logs") and isinstance(each, int))
        == 0
    )


@pytest.mark.parametrize(
    ("answer", "said", "advice"),
    [
        (behaviour.status(401), "does not know us (401)", "HEADERS"),
        (behaviour.status(403), "does not let us in (403)", "HEADERS"),
        (behaviour.status(404), "nothing is there (404)", "path"),
        (behaviour.status(405), "takes no POST (405)", "path"),
        (behaviour.status(413), "too large (413)", "limit"),
        (behaviour.status(400, body="no"), "the answer is 400: “no”", "refused for good"),
        (behaviour.status(500), "the answer is 500", "sent again"),
        (behaviour.status(503, body="warming up"), "not ready (503): “warming up”", "log"),
        (behaviour.status(404, body="<html><body>nginx</body></html>"), "with a web page", "path"),
        (behaviour.Behaviour(status=302, location="http://elsewhere"), "redirects are not followed", "path"),
        (behaviour.HANG, "did not answer in time", "overloaded"),
    ],
)
def test_what_a_receiver_answers_is_explained(monkeypatch, answer, said, advice):
    """In a sentence, with what to do next; exit code 1."""
    with Collector() as collector:
        collector.behave(answer)
        monkeypatch.setenv(f"{OTLP}ENDPOINT", collector.endpoint)
        code, checks, _ = examined("--timeout", "0.3")
    assert code == 1
    for signal in Signal:
        (finding,) = checks[f"endpoint of {signal.value}"]
        assert finding["state"] == "failed"
        assert said in finding["text"]
        assert advice in finding["advice"]


def test_a_web_page_with_200_is_no_receiver(monkeypatch):
    """Telemetry would be lost there without a word."""
    page = status(200, b"<!doctype html><p>Welcome", content_type="text/html; charset=utf-8")
    with HttpServer(page) as server:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://{server.address}")
        code, checks, _ = examined()
    assert code == 1
    assert "answers with a web page" in sentences(checks, "endpoint of spans")


def test_nobody_listens(monkeypatch):
    """Said once, of the way, and no signal is asked in vain."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        code, checks, _ = examined()
    assert code == 1
    (way,) = (each for name, each in checks.items() if name.startswith("way to"))
    assert "connection refused" in way[0]["text"]
    assert not any(name.startswith("endpoint of") for name in checks)


def test_a_name_that_does_not_resolve(monkeypatch):
    """`.invalid` never does."""
    monkeypatch.setenv(f"{OTLP}ENDPOINT", "http://collector.invalid:4318")
    code, checks, _ = examined()
    assert code == 1
    assert "does not resolve" in sentences(checks, "way to http://collector.invalid:4318")


def test_a_black_hole_takes_no_longer_than_its_time(monkeypatch):
    """A listener whose queue is full answers no handshake."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://127.0.0.1:{full.getsockname()[1]}")
        code, checks, _ = examined("--timeout", "0.3")
        for each in waiting:
            each.close()
    (way,) = (each for name, each in checks.items() if name.startswith("way to"))
    assert code == 1
    assert "Nothing answered within 0.3 s" in way[0]["text"]


def test_a_grpc_port_is_recognised_when_http_is_spoken(monkeypatch):
    """4317 in the place of 4318."""
    with GrpcServer() as server:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://{server.address}")
        code, checks, _ = examined()
    assert code == 1
    assert "a gRPC port?" in sentences(checks, "endpoint of spans")
    assert f"{OTLP}PROTOCOL=grpc" in sentences(checks, "endpoint of spans")


def test_an_http_port_is_recognised_when_grpc_is_spoken(monkeypatch):
    """4318 in the place of 4317."""
    with Collector() as collector:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", collector.endpoint)
        monkeypatch.setenv(f"{OTLP}PROTOCOL", "grpc")
        code, checks, _ = examined()
    assert code == 1
    assert "does not speak gRPC" in sentences(checks, "endpoint of logs")


def test_grpc_is_asked_by_grpc(monkeypatch):
    """And what it answers is explained."""
    import grpc

    with GrpcServer() as server:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://{server.address}")
        monkeypatch.setenv(f"{OTLP}PROTOCOL", "grpc")
        code, checks, _ = examined()
        assert (code, {call.body for call in server.calls}) == (0, {b""})
        server.answer = abort(grpc.StatusCode.UNAUTHENTICATED, "who are you")
        code, checks, _ = examined()
    assert code == 1
    assert "does not know us (UNAUTHENTICATED): “who are you”" in sentences(checks, "endpoint of spans")


def test_a_certificate_nobody_vouches_for_and_one_that_somebody_does(monkeypatch, tmp_path):
    """The handshake of the way, and that of the sender."""
    authority = Authority(tmp_path)
    with HttpServer(tls=authority.server_context()) as server:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"https://{server.address}")
        code, checks, _ = examined()
        assert code == 1
        assert "does not verify" in sentences(checks, f"way to https://{server.address}")
        monkeypatch.setenv(f"{OTLP}CERTIFICATE", authority.certificate_file)
        code, checks, _ = examined()
    assert code == 0
    assert "the certificate is good for" in sentences(checks, f"way to https://{server.address}")


def test_nothing_is_sent_when_nothing_may_be(monkeypatch):
    """The way is walked all the same."""
    with HttpServer(hang) as server:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://{server.address}")
        code, checks, _ = examined("--no-send")
        assert server.requests == []
    assert code == 0
    assert sentences(checks, "endpoint").startswith("ok: No request was sent")


def test_credentials_are_neither_printed_nor_sent_in_the_clear_unsaid(monkeypatch):
    """In whatever form they are given."""
    with Collector() as collector:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", f"http://user:hunter2@127.0.0.1:{collector.port}")
        monkeypatch.setenv(f"{OTLP}HEADERS", "api-key=hunter3")
        monkeypatch.setenv("SURGETANK_SPOOL_ENCRYPTION_KEY", "hunter4")
        texts = [run(*each).output for each in (["doctor"], ["doctor", "--json"], ["config"], ["config", "--json"])]
    assert not re.search("hunter[234]", "".join(texts))


def folder_findings(monkeypatch, path, **variables):
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return [*check_spool(load())]


def test_a_folder_that_is_open_to_others_is_no_spool(monkeypatch, tmp_path):
    """As the tank itself has it."""
    tmp_path.chmod(0o755)
    (tmp_path / "other").touch()
    found = folder_findings(monkeypatch, tmp_path)
    assert found[0].state is State.FAILED
    assert "open to others" in found[0].text
    assert found[0].advice == f"chmod 0700 {tmp_path}"


def test_a_folder_that_cannot_be_written(monkeypatch, tmp_path):
    """Found by writing, for root may by the mode."""
    tmp_path.chmod(0o700)

    def refuse(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("surgetank.doctor.storage.probe", refuse)
    found = folder_findings(monkeypatch, tmp_path)
    assert "cannot be written (Read-only file system)" in found[0].text


@pytest.mark.skipif(not os.path.isdir("/proc/sys"), reason="a folder that nobody can write is needed")
def test_a_folder_that_nobody_can_write(monkeypatch):
    """`/proc/sys` takes no files, not even root's; it is open to others, which is found first."""
    found = folder_findings(monkeypatch, "/proc/sys/surgetank/spool")
    assert found[0].state is State.FAILED
    assert "telemetry is held in memory only" in found[0].text


def test_a_spool_that_is_well_is_left_as_it_was(monkeypatch, tmp_path):
    """The probe is gone."""
    folder = tmp_path / "spool"
    folder.mkdir(mode=0o700)
    found = folder_findings(monkeypatch, folder)
    assert all(each.state is not State.FAILED for each in found)
    assert list(folder.iterdir()) == []


def test_a_spool_that_is_not_there_is_not_made(monkeypatch, tmp_path):
    """The first process makes it."""
    found = folder_findings(monkeypatch, tmp_path / "none" / "yet")
    assert "is not there yet" in found[0].text
    assert list(tmp_path.iterdir()) == []


def test_a_limit_beyond_what_the_volume_has(monkeypatch, tmp_path):
    """With the value that would fit."""
    found = folder_findings(monkeypatch, tmp_path / "x", SURGETANK_SPOOL_MAX_MB="1000000")
    assert any("set SURGETANK_SPOOL_MAX_MB=" in each.advice for each in found)


def test_what_dead_processes_have_left_is_said(monkeypatch, tmp_path):
    """And how to send it."""
    folder = tmp_path / "spool"
    monkeypatch.setenv(f"{OTLP}ENDPOINT", "http://127.0.0.1:9")
    tank = surgetank.Tank(is_threaded=False, handle_sigterm=False)
    for number in range(5):
        tank.span_processor.on_end(span(number))
    tank.shutdown(0.1)
    found = folder_findings(monkeypatch, folder)
    assert any("Dead processes have left 5 items" in each.text and "drain" in each.advice for each in found)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("tmpfs", "gone after a restart"), ("nfs4", "network file system"), ("overlay", "container's own layer")],
)
def test_file_systems_that_are_no_good_place(monkeypatch, tmp_path, kind, said):
    """As the mount table has them; the longest that fits counts."""
    root = tmp_path / "root"
    (root / "proc" / "self").mkdir(parents=True)
    lines = ["1 0 0:1 / / rw - ext4 /dev/sda rw", f"2 1 0:2 / {tmp_path} rw shared:1 - {kind} none rw", "garbage"]
    (root / "proc" / "self" / "mountinfo").write_text("\n".join(lines))
    assert filesystem_of("/etc", str(root)) == "ext4"
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path / "spool"))
    found = [*check_spool(load(), str(root))]
    assert any(said in each.text and each.state is State.WARNING for each in found)


@pytest.mark.parametrize(("limit", "state"), [(64, State.FAILED), (128, State.WARNING), (1024, State.OK)])
def test_buffers_are_held_against_the_memory_that_there_is(limit, state):
    """100 MiB of buffers in a small control group."""
    reading = Reading(0, limit * 1024 * 1024, "cgroup_v2")
    found = [*check_memory(load({}), lambda: reading)]
    assert found[0].state is state
    assert f"100 MiB, {100 / limit:.0%} of the {limit:,} MiB of the control group" in found[0].text
    if state is not State.OK:
        assert f"SURGETANK_TOTAL_MEMORY_MB={limit // 4}" in found[0].advice


def test_memory_that_is_not_known_or_not_watched():
    """Both are warnings."""
    assert [each.state for each in check_memory(load({}), lambda: None)] == [State.WARNING]
    unwatched = load({"SURGETANK_ADAPTIVE": "no"})
    reading = Reading(0, 10**12, "host")
    assert [each.state for each in check_memory(unwatched, lambda: reading)] == [State.OK, State.WARNING]


def test_a_value_that_is_refused_fails_the_configuration_and_costs_no_other_check(monkeypatch):
    """All of them are named."""
    monkeypatch.setenv("SURGETANK_SPANS_MAX_SIZE", "0")
    monkeypatch.setenv("SURGETANK_MEMORY_RESTORE_BELOW", "0.9")
    code, checks, _ = examined("--no-send")
    assert code == 1
    text = sentences(checks, "configuration")
    assert "SURGETANK_SPANS_MAX_SIZE must be a whole number from 1 to 100,000,000 (got '0'); it is ignored." in text
    assert "SURGETANK_MEMORY_RESTORE_BELOW" in text
    assert "spool" in checks


def test_what_is_switched_off_is_said(monkeypatch):
    """Whoever looks for telemetry that does not arrive finds it here."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    _, checks, _ = examined("--no-send")
    text = sentences(checks, "configuration")
    assert "warning: OTEL_SDK_DISABLED=true: nothing is sent." in text
    assert "ok: OTEL_LOGS_EXPORTER=none: no logs are sent, as asked for." in text


def test_another_configurator_or_several_distros_are_said(monkeypatch):
    """Who is asked for configures OpenTelemetry."""
    monkeypatch.setattr("surgetank.doctor.configuration.entry_points", lambda group: entries_of(group))
    monkeypatch.setenv("OTEL_PYTHON_CONFIGURATOR", "surgetank")
    _, checks, _ = examined("--no-send")
    assert "surgetank configures OpenTelemetry" in sentences(checks, "configurator")
    assert "several distros (one, other)" in sentences(checks, "configurator")
    monkeypatch.setenv("OTEL_PYTHON_CONFIGURATOR", "other")
    monkeypatch.setenv("OTEL_PYTHON_DISTRO", "one")
    _, checks, _ = examined("--no-send")
    assert "does not protect telemetry" in sentences(checks, "configurator")
    assert "distros" not in sentences(checks, "configurator")


def entries_of(group):
    names = {"opentelemetry_configurator": ["surgetank", "other"], "opentelemetry_distro": ["one", "other"]}[group]
    return [EntryPoint(name, "nowhere", group) for name in names]


def test_living_tanks_are_seen_and_measured(monkeypatch):
    """By two readings of what they say of themselves."""
    with Collector() as collector:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", collector.endpoint)
        tank = surgetank.Tank(handle_sigterm=False)
        try:
            code, checks, _ = examined()
        finally:
            tank.shutdown(2.0)
    assert code == 0
    assert "is idle" in sentences(checks, "processes")


def test_a_tank_with_other_limits_than_the_forecasts_is_named(monkeypatch):
    """Its settings may be in its code, where nobody else can see them."""
    with Collector() as collector:
        monkeypatch.setenv(f"{OTLP}ENDPOINT", collector.endpoint)
        tank = surgetank.Tank(handle_sigterm=False, spans=surgetank.BufferConfig(max_size=10, max_memory_mb=1))
        try:
            code, checks, _ = examined()
        finally:
            tank.shutdown(2.0)
    assert code == 0
    assert "has other limits than this environment: spans.max_size 10, here 2048, spans.max_memory_mb 1, here 50" in (
        sentences(checks, "processes")
    )


def test_rates_are_what_came_in_between_two_readings():
    """Of all tanks together; bytes are those that items have had so far."""

    def said(at, offered, sealed):
        return {
            "written_at": at,
            "signals": {"spans": {"offered": offered, "sealed": sealed, "sealed_bytes": sealed * 80}},
        }

    pairs = [(said(10.0, 0, 0), said(12.0, 100, 90)), (said(10.0, 50, 50), said(11.0, 150, 150))]
    found = loads_between(pairs)
    assert set(found) == {Signal.SPANS}
    assert (found[Signal.SPANS].rate, found[Signal.SPANS].size) == (150.0, 80.0)
    assert loads_between([({}, {"signals": "garbage"})]) == {}


def test_metric_points_come_in_bursts_so_that_their_average_counts():
    """Between two readings there is a collection or none."""
    books = {"offered": 6000, "sealed": 6000, "sealed_bytes": 60_000}
    said = {"written_at": 1600.0, "started_at": 1000.0, "signals": {"metrics": books}}
    found = loads_between([(said, said)])
    assert (found[Signal.METRICS].rate, found[Signal.METRICS].size) == (10.0, 10.0)


def test_the_forecast_is_printed_with_what_would_be_enough(monkeypatch):
    """As text and as JSON."""
    text = run("doctor", "--no-send", "--rate", "spans=500,metrics=100", "--outage", "1h").output
    assert "355,000 metrics would be lost, from 50 s on." in text
    assert "SURGETANK_METRICS_PERSISTENCE_ENABLED=true" in text
    _, _, found = examined("--no-send", "--rate", "spans=500", "--size", "spans=200", "--outage", "30min")
    assert found["forecast"]["signals"]["spans"]["bytes_per_item"] == 200
    assert found["forecast"]["lost_items"] == 0


def test_a_spool_that_cannot_be_written_holds_nothing(monkeypatch, tmp_path):
    """The forecast does not count on it."""
    tmp_path.chmod(0o755)
    (tmp_path / "other").touch()
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path))
    _, _, found = examined("--no-send", "--rate", "spans=100", "--outage", "1h")
    assert found["forecast"]["signals"]["spans"]["lasts_seconds"]["spool"] == 0
    assert found["forecast"]["lost_items"] > 0


@pytest.mark.parametrize("wrong", [("--rate", "traces=5"), ("--outage", "soon"), ("--size", "spans")])
def test_options_that_make_no_sense_end_with_2(wrong):
    """And say what would."""
    done = run("doctor", *wrong)
    assert done.exit_code == 2
    assert "is not understood; permitted is" in done.output


def test_a_check_that_goes_wrong_itself_is_a_finding(monkeypatch):
    """And costs none of the others."""

    def break_down(*_, **__):
        yield from ()
        raise RuntimeError("oh")

    monkeypatch.setattr("surgetank.doctor.examination.check_memory", break_down)
    code, checks, _ = examined("--no-send")
    assert code == 1
    assert "could not be completed (RuntimeError: oh)" in sentences(checks, "memory")
    assert "processes" in checks


@pytest.mark.parametrize("command", ["doctor", "config", "bench"])
def test_every_option_is_documented(command):
    """In `docs/doctor.md`, and in the command's own help."""
    wide = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [command, "--help"])
    assert wide.exit_code == 0
    text = DOCUMENT.read_text(encoding="utf-8")
    assert f"surgetank {command}" in text
    for option in set(re.findall(r"--[a-z][a-z-]+", wide.output)) - {"--help"}:
        assert option in text, option


def test_config_does_not_call_an_exporter_none_that_is_not_named(monkeypatch):
    """`none` would switch the signal off."""
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    text = run("config").output
    assert re.search(r"spans\.exporter +not set +default", text)
    assert re.search(r"logs\.exporter +none +OTEL_LOGS_EXPORTER", text)


def test_config_says_where_each_value_comes_from(monkeypatch):
    """As text and as JSON; `--changed` and `--signal` choose."""
    monkeypatch.setenv("SURGETANK_LOGS_MAX_SIZE", "777")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "1500")
    done = run("config", "--changed", "--json")
    found = {each["name"]: each for each in json.loads(done.stdout)["settings"]}
    assert set(found) == {"logs.max_size", "spans.schedule_delay", "spool.dir", "status_dir"}
    assert (found["logs.max_size"]["value"], found["logs.max_size"]["source"]) == (777, "SURGETANK_LOGS_MAX_SIZE")
    assert found["spans.schedule_delay"]["value"] == 1.5
    text = run("config", "--signal", "logs").output
    assert re.search(r"logs\.max_size +777 items +SURGETANK_LOGS_MAX_SIZE", text)
    assert "spans.max_size" not in text
    assert "max_mb" not in text


def test_config_refuses_what_a_tank_would_refuse_and_warns_of_slips(monkeypatch):
    """Variable, value, range; exit code 2."""
    monkeypatch.setenv("SURGETANK_JITTER", "7")
    monkeypatch.setenv("SURGETANK_SPOOL_MAXMB", "7")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZES", "7")
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "soon")
    monkeypatch.setenv("SURGETANK_METRICS_ON_FULL", "block")
    done = run("config")
    assert done.exit_code == 2
    assert "SURGETANK_JITTER must be a number from 0 to 0.9 (got '7'); it is ignored" in done.output
    assert (
        "SURGETANK_SPOOL_MAXMB is set, but there is no such setting; did you mean SURGETANK_SPOOL_MAX_MB?"
        in done.output
    )
    assert "did you mean OTEL_BSP_MAX_QUEUE_SIZE?" in done.output
    assert (
        "OTEL_BLRP_SCHEDULE_DELAY must be a number from 1 to 3,600,000 (milliseconds) (got 'soon'); it is ignored"
        in done.output
    )
    assert "SURGETANK_METRICS_ON_FULL has no effect" in done.output
