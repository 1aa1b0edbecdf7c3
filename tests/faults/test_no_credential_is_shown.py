"""No credential comes out again: planted in every setting that can hold one, and looked for wherever people look."""

import dataclasses
import inspect
import json
import logging
import pickle
import re
import traceback
from base64 import b64encode

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from typer.testing import CliRunner

import surgetank
from fakes.batches import batch
from servers.certificates import Authority
from servers.http import HttpServer, raw
from surgetank import BatchSpanProcessor, BufferConfig, ConfigError, MemoryConfig, SpoolConfig, Tank, Timing
from surgetank.catalogue.effective import audit, load
from surgetank.catalogue.entries import settings
from surgetank.catalogue.warnings import passed_over, unread
from surgetank.cli.app import app
from surgetank.config import OutletConfig
from surgetank.delivery.senders import sender_for
from surgetank.model import Outcome
from surgetank.testing import ManualClock

MARK = re.compile(rb"(?i)S3CRET\w*")
# Paths and words that OpenTelemetry gives a meaning to. Whoever adds a setting of another kind says here that it holds no credential.
HARMLESS = ("a folder of your own", "a folder")
FILES = ("a file that exists", "a readable file")
COMMANDS = (
    ["config"],
    ["config", "--json"],
    ["doctor", "--no-send"],
    ["doctor", "--json", "--timeout", "1"],
    ["spool", "status"],
    ["spool", "status", "--json"],
    ["spool", "check"],
    ["spool", "check", "--json"],
    ["top", "--once", "--json"],
    ["top", "--once"],
)


def secret_for(variable, number):
    return f"S3CRET{number}{variable.replace('_', '')}"


def texts_for(setting, variable, number, address, folder):
    """Return what a variable is set to, in the round of that number; None to leave it alone."""
    secret = secret_for(variable, number)
    if setting.keyword == "encryption_key":
        key = b64encode(secret.encode().ljust(32, b"k")[:32]).decode()
        return (f"id:{key}", f"id:{secret}", secret, f'"id:{secret}"')[number]
    if setting.is_secret:
        return (
            f"authorization=Bearer%20{secret},x-key={secret}",
            f"{secret} x={secret},content-type={secret},a b={secret},{secret}",
            f'"authorization={secret}"',
            f"a={secret}%0A,b={secret}%0Ab",
        )[number]
    if setting.unit == "URL":
        url = f"http://user:{secret}@{address}/x?token={secret}"
        # A proxy would be asked in place of the endpoint.
        valid = url if setting.keyword == "endpoint" else None
        return (
            valid,
            f"socks5://user:{secret}@{address}",
            f'"http://user:{secret}@host"',
            f"user:{secret}@[::1?{secret}",
        )[number]
    if setting.permitted in FILES:
        return str(folder / f"{secret_for(variable, 0).removeprefix('S3CRET')}.pem") if number else None
    if setting.permitted in HARMLESS or setting.section == "doors":
        return None
    is_number_or_word = re.match(r"[\d.]+ to |above |true or false$|[\w/0-9]+(, [\w/0-9]+)+$", setting.permitted)
    assert is_number_or_word, f"{setting.name}: can it hold a credential? If so, is_secret or unit='URL'"
    # Somebody has mistaken it for another setting.
    return None if number == 0 else f"http://user:{secret}@host/?token={secret}"


def environment(number, address, folder):
    """Return a round's variables."""
    said = {}
    for setting in settings():
        for variable in setting.variables:
            text = texts_for(setting, variable, number, address, folder)
            if text is not None and variable != "SURGETANK_SPOOL_ENCRYPTION_KEY_FILE":
                said[variable] = text
    return said


def echo(sock, request):
    """Refuse, and repeat what the client said, as receivers do: now as something to repair, now for good."""
    keys = [text for name, text in request.headers.items() if name in ("authorization", "x-key", "x-auth")]
    said = f"unknown: {' '.join(keys)} at {request.target}".encode()
    code = b"400" if b"poison" in request.body else b"401"
    return raw(b"HTTP/1.1 %s X\r\ncontent-type: text/plain\r\ncontent-length: %d\r\n\r\n%s" % (code, len(said), said))(
        sock, request
    )


@pytest.fixture
def server():
    with HttpServer(echo) as server:
        yield server


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A home of one's own, with a spool and status files, and files with secrets in them."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    monkeypatch.delenv("SURGETANK_STATUS_ENABLED")
    for name in ("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path / "status"))
    for setting in settings():
        if setting.permitted in FILES:
            for variable in setting.variables:
                name = secret_for(variable, 0)
                (tmp_path / f"{name.removeprefix('S3CRET')}.pem").write_text(
                    f"-----BEGIN {name}-----", encoding="utf-8"
                )
    return tmp_path


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG, "surgetank")
    return lambda: "\n".join(
        record.getMessage() + repr(record.args) for record in caplog.records if record.name.startswith("surgetank")
    )


def nothing_in(what, found):
    """Assert that no secret is in a text or in bytes."""
    content = found if isinstance(found, bytes) else str(found).encode("utf-8", "surrogateescape")
    assert MARK.findall(content) == [], what
    for word in re.findall(rb"[A-Za-z0-9+/]{16,}={0,2}", content):
        assert b"S3CRET" not in decoded(word), (what, word)


def decoded(word):
    from base64 import b64decode

    try:
        return b64decode(word + b"=" * (-len(word) % 4))
    except ValueError:
        return b""


def nothing_on_disk(folder):
    """Assert it of names and contents of all files, but for those that hold the secrets."""
    for path in folder.rglob("*"):
        nothing_in("a name", path.relative_to(folder))
        if path.is_file() and path.suffix != ".pem":
            nothing_in(path, path.read_bytes())


def nothing_in_tank(tank):
    """Assert it of everything that a tank shows."""
    config = tank._config
    for shown in (
        tank,
        tank.outlets,
        config,
        tank.stats(),
        tank.health(),
        tank.span_processor,
        tank._environment.ignored,
    ):
        nothing_in(type(shown), repr(shown))
        nothing_in(type(shown), str(shown))
    nothing_in("status", json.dumps(tank._describe()))


def work(tank):
    """Have a span refused for now, and one for good."""
    provider = TracerProvider()
    provider.add_span_processor(tank.span_processor)
    for name in ("poison", "work"):
        provider.get_tracer("app").start_span(name).end()
        tank.force_flush(0.3)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_of_variables(monkeypatch, folder, server, logged, number):
    """All settings of the catalogue at a time, each with a secret of its own, in the right shape and in three wrong ones."""
    said = environment(number, server.address, folder)
    for variable, text in said.items():
        monkeypatch.setenv(variable, text)
    monkeypatch.setenv("SURGETANK_SHUTDOWN_TIMEOUT", "0.2")
    tank = Tank(handle_sigterm=False, timing=Timing(backoff_initial=0.001, backoff_max=0.002), compression="none")
    try:
        work(tank)
        nothing_in_tank(tank)
        nothing_on_disk(folder)
        for command in COMMANDS:
            done = CliRunner(env={"COLUMNS": "300"}).invoke(app, command)
            nothing_in(command, done.output)
            assert done.exit_code in (0, 1, 2), (command, done.output)
    finally:
        tank.shutdown()
    if number == 0:
        assert "S3CRET" in str([request.headers for request in server.requests]), "it was not sent"
    effective, refused = audit()
    for shown in (
        effective,
        refused,
        [*passed_over(effective)],
        [*unread()],
        [each.value(effective) for each in settings()],
    ):
        nothing_in(type(shown), repr(shown))
    nothing_in("log", logged())
    nothing_on_disk(folder)
    drained = CliRunner().invoke(
        app,
        [
            "spool",
            "drain",
            "--endpoint",
            "http://user:S3CRETx@127.0.0.1:9/?t=S3CRETx",
            "--header",
            "a=S3CRETx",
            "--apply",
        ],
    )
    nothing_in("drain", drained.output)


def planted(secret):
    """Yield what might be given by mistake as any argument."""
    yield f"http://user:{secret}@host:1/?token={secret}#{secret}"
    yield f"socks5://user:{secret}@host"
    yield f"user:{secret}/{secret}@host"
    yield {"authorization": secret}
    yield {"content-type": secret}
    yield {secret + " x": secret}
    yield [secret]
    yield secret.encode()

    class Holder:
        def __repr__(self):
            return secret

    yield Holder()


# They are asked for what they do.
OBJECTS = {"clock", "make_sender", "filesystem", "probe", "is_critical", "handle_sigterm", "is_threaded", "outlets"}
RECORDS = (BufferConfig, SpoolConfig, MemoryConfig, Timing)
ARGUMENTS = [
    *((Tank, name) for name in list(inspect.signature(Tank).parameters) if name not in OBJECTS),
    *((record, field.name) for record in RECORDS for field in dataclasses.fields(record)),
]


@pytest.mark.parametrize(("kind", "name"), ARGUMENTS, ids=lambda each: getattr(each, "__name__", each))
def test_of_arguments(kind, name, logged):
    """Each argument of each record, with what does not belong there; whatever is raised is a `ConfigError`."""
    more = {"is_threaded": False, "handle_sigterm": False, "clock": ManualClock()} if kind is Tank else {}
    for value in planted("S3CRETx"):
        try:
            made = kind(**{name: value}, **more)
        except ConfigError as caught:
            error = caught
        else:
            nothing_in((name, value), repr(made))
            if isinstance(made, Tank):
                nothing_in_tank(made)
                made.shutdown(0)
            continue
        told = "".join(traceback.format_exception_only(type(error), error))
        for shown in (told, repr(error), error.args, vars(error), repr(pickle.loads(pickle.dumps(error)))):
            nothing_in((name, value), shown)
    nothing_in("log", logged())


class Proprietary(SpanExporter):
    """An exporter that is driven, with a key of its own."""

    def __init__(self):
        self.key = "S3CRETx"

    def __repr__(self):
        return f"Proprietary({self.key})"

    def export(self, spans):
        return SpanExportResult.FAILURE


@pytest.mark.parametrize(
    "make",
    [
        lambda address: OTLPSpanExporter(
            f"http://user:S3CRETx@{address}/v1/traces?token=S3CRETx", headers={"authorization": "Bearer S3CRETx"}
        ),
        lambda address: OTLPSpanExporter(f"user:S3CRETx@{address}", headers={"x-key": "S3CRETx"}),
        lambda address: Proprietary(),
    ],
)
def test_of_exporters(folder, server, logged, make):
    """One that is read, one that cannot be read, and one that is driven as it is."""
    processor = BatchSpanProcessor(
        make(server.address), handle_sigterm=False, shutdown_timeout=0.2, spool=SpoolConfig(dir=folder / "spool")
    )
    provider = TracerProvider()
    provider.add_span_processor(processor)
    provider.get_tracer("app").start_span("poison").end()
    processor.force_flush(300)

    nothing_in_tank(processor.tank)
    nothing_in("processor", repr(processor))
    processor.shutdown()
    nothing_in("log", logged())
    nothing_on_disk(folder)


@pytest.mark.parametrize("protocol", ["http/protobuf"])
def test_what_the_receiver_repeats_is_taken_out(server, protocol):
    """With the password of the URL, percent-encoded or not, and in the header that it comes to."""
    outlet = OutletConfig(
        url=f"http://us%65r:S3CRET%2Fx@{server.address}/v1?token=S3CRETy",
        headers={"x-key": "S3CRETz", "x-auth": "Bearer S3CRETw"},
        protocol=protocol,
        proxy="",
    )
    sender = sender_for(outlet, ManualClock())
    verdict = sender.send(batch(), 5.0)
    sender.close()

    assert (verdict.outcome, verdict.cause) == (Outcome.HOLD, "401")
    assert "unknown: ***" in verdict.message
    nothing_in("message", verdict.message)


def test_secrets_are_kept_from_a_traceback(tmp_path):
    """An encrypted key's file is asked for nothing, and its content stays in it."""
    certificate, key = Authority(tmp_path).client_files()
    (tmp_path / "bad.key").write_text("-----BEGIN S3CRETx-----", encoding="utf-8")
    for files in ((certificate, str(tmp_path / "bad.key")), (str(tmp_path / "bad.key"), key)):
        with pytest.raises(ConfigError) as caught:
            Tank(
                endpoint="https://collector:1",
                client_certificate_file=files[0],
                client_key_file=files[1],
                is_threaded=False,
                handle_sigterm=False,
            )
        nothing_in("traceback", "".join(traceback.format_exception(caught.value)))


def test_the_whole_catalogue_is_covered():
    """What this file plants changes what is in force, so that it was read at all."""
    found = environment(0, "127.0.0.1:9", surgetank.__path__[0])
    effective = load(found)
    sources = {each.name for each in settings() if each.source(effective)}
    for setting in settings():
        can_hold_one = setting.is_secret or setting.keyword == "endpoint"
        assert not can_hold_one or setting.name in sources or setting.keyword == "encryption_key", setting.name
