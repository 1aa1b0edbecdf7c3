"""An argument that is wrong is named, with its value and what would be right: by the type checker, or at construction."""

import inspect
import logging
import subprocess
import sys
import textwrap
from typing import get_type_hints

import pytest

import surgetank
from surgetank import BatchSpanProcessor, BufferConfig, ConfigError, MemoryConfig, SpoolConfig, Tank, Timing, process
from surgetank.arguments import DropInSettings, TankSettings
from surgetank.testing import ManualClock


class Exporter:
    """Takes everything."""

    def export(self, spans):
        return 0

    def shutdown(self):
        pass


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"spans": {"max_size": 1}}, "spans", "(got {'max_size': 1})"),
        ({"metrics": 5}, "metrics", "a BufferConfig"),
        ({"logs": SpoolConfig()}, "logs", "(got a SpoolConfig)"),
        ({"endpoint": 5}, "endpoint", "(got 5)"),
        ({"endpoint": b"http://c"}, "endpoint", "URL"),
        ({"headers": "a=b"}, "headers", "a mapping from names to values"),
        ({"headers": {"a": 5}}, "headers[a]", "text"),
        ({"headers": {5: "a"}}, "headers", "names"),
        ({"timeout": "3"}, "timeout", "a number from 0.001 to 3,600 (got '3')"),
        ({"timeout": True}, "timeout", "(got True)"),
        ({"compression": ["gzip"]}, "compression", "'gzip'"),
        ({"protocol": {}}, "protocol", "'grpc'"),
        ({"certificate_file": 0}, "certificate_file", "(got 0)"),
        ({"proxy": 3128}, "proxy", "(got 3128)"),
        ({"timing": {"jitter": 0.1}}, "timing", "a Timing"),
        ({"spool": "/data"}, "spool", "SpoolConfig(dir="),
        ({"memory": 512}, "memory", "MemoryConfig(limit_mb=512)"),
        ({"persistence_enabled": "no"}, "persistence_enabled", "True or False (got 'no')"),
        ({"self_metrics": 1}, "self_metrics", "True or False"),
        ({"shutdown_timeout": None, "metric_export_interval": "60"}, "metric_export_interval", "(got '60')"),
        ({"total_memory_mb": 0}, "total_memory_mb", "0.25 to 1,048,576 (got 0)"),
        ({"is_critical": "errors"}, "is_critical", "a function"),
        ({"handle_sigterm": None}, "handle_sigterm", "True or False"),
        ({"clock": 0.5}, "clock", "monotonic"),
        ({"outlets": {}}, "outlets", "each Signal"),
        ({"make_sender": 5}, "make_sender", "a function"),
        ({"filesystem": "/"}, "filesystem", "the methods"),
        ({"probe": 512}, "probe", "a function"),
    ],
)
def test_an_argument_of_the_wrong_kind_is_named_with_what_would_be_right(given, field, words):
    """Not accepted and ignored, and not an error from deep inside."""
    common = {"is_threaded": False, "handle_sigterm": False, "clock": ManualClock()}
    with pytest.raises(ConfigError) as caught:
        Tank(**{**common, **given})

    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field} must be ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Tank(5), "endpoint"),
        (lambda: BufferConfig(max_size="5"), "max_size"),
        (lambda: BufferConfig(drop_strategy=[]), "drop_strategy"),
        (lambda: BufferConfig(persistence_enabled=1), "persistence_enabled"),
        (lambda: SpoolConfig(dir=5), "spool.dir"),
        (lambda: SpoolConfig(encryption_key=b"id:key"), "spool.encryption_key"),
        (lambda: SpoolConfig(encryption_key_file=5), "spool.encryption_key_file"),
        (lambda: MemoryConfig(adaptive="no"), "memory.adaptive"),
        (lambda: Timing(jitter=None), "jitter"),
    ],
)
def test_records_check_their_fields(make, field):
    """At once, where the user wrote them."""
    with pytest.raises(ConfigError) as caught:
        make()

    assert caught.value.field == field


def test_nothing_is_made_for_arguments_that_are_refused(monkeypatch, tmp_path):
    """No folder, and no descriptor that would be held until somebody collects the garbage."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    with pytest.raises(ConfigError):
        Tank(spool=SpoolConfig(dir=tmp_path / "spool"), memory=512)

    assert list(tmp_path.iterdir()) == []


def test_the_types_of_settings_that_are_passed_on_are_those_of_the_tank():
    """`install` and the drop-in classes list no arguments of their own."""
    signature = inspect.signature(Tank.__init__)
    arguments = {name: each.annotation for name, each in signature.parameters.items() if name != "self"}
    typed = {
        name: annotation.__forward_arg__ for kind in TankSettings.__mro__ for name, annotation in annotations_of(kind)
    }

    assert typed == arguments
    assert set(dict(annotations_of(DropInSettings))) - set(typed) == {"exporter_attempts"}


def annotations_of(kind):
    return getattr(kind, "__annotations__", {}).items()


@pytest.mark.parametrize("name", ["endpont", "max_size", "span"])
def test_an_argument_that_there_is_not_is_named(monkeypatch, name):
    """With the one that was probably meant; also where the process has a tank already."""
    monkeypatch.setattr(process, "_first", None)
    with pytest.raises(TypeError, match=f"install has no argument '{name}'") as caught:
        surgetank.install(**{name: 5})
    assert ("did you mean 'endpoint'?" in str(caught.value)) == (name == "endpont")
    assert process._first is None

    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        BatchSpanProcessor(Exporter(), timout=5.0)


@pytest.mark.slow
def test_a_type_checker_sees_slips(tmp_path):
    """mypy, on what an application writes."""
    pytest.importorskip("mypy")
    good = """
        import surgetank
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        tank = surgetank.install(endpoint="http://c:4318", spans=surgetank.BufferConfig(max_size=5), headers={"a": "b"})
        with surgetank.Tank("http://c:4318", timeout=3.0) as other:
            assert other.stats().spans.offered == 0
        surgetank.BatchSpanProcessor(ConsoleSpanExporter(), 100, exporter_attempts=3, shutdown_timeout=1.0)
    """
    bad = [
        'surgetank.install(endpont="http://c:4318")',
        'surgetank.install(timeout="3")',
        'surgetank.install(spans={"max_size": 5})',
        "surgetank.Tank(5)",
        'surgetank.Tank(spool="/data")',
        'surgetank.BatchSpanProcessor(ConsoleSpanExporter(), endpoint="http://c:4318")',
        "surgetank.BatchSpanProcessor(ConsoleSpanExporter(), shutdown_timout=3.0)",
    ]
    file = tmp_path / "application.py"
    lines = textwrap.dedent(good).strip().splitlines() + bad
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path / "cache"),
        file,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)

    found = [int(line.split(":")[1]) for line in done.stdout.splitlines() if ": error:" in line]
    assert sorted(set(found)) == list(range(len(lines) - len(bad) + 1, len(lines) + 1)), done.stdout


def test_a_variable_that_nobody_reads_is_named_once(monkeypatch, caplog):
    """With the one that was probably meant."""
    caplog.set_level(logging.WARNING, "surgetank")
    monkeypatch.setenv("SURGETANK_SPANS_MAXSIZE", "S3CRET")
    monkeypatch.setenv("SURGETANK_ZZZ", "5")
    monkeypatch.setenv("SURGETANK_METRICS_ON_FULL", "block")
    for _ in range(2):
        Tank(is_threaded=False, handle_sigterm=False).shutdown(0)

    assert [record.getMessage() for record in caplog.records] == [
        "SURGETANK_METRICS_ON_FULL has no effect: metrics never wait for room",
        "SURGETANK_SPANS_MAXSIZE is set, but there is no such setting; did you mean SURGETANK_SPANS_MAX_SIZE?",
        "SURGETANK_ZZZ is set, but there is no such setting; `surgetank config` lists those that there are",
    ]


def test_every_argument_has_a_type_that_can_be_resolved():
    """For tools that read annotations while the program runs."""
    assert get_type_hints(Tank.__init__)["endpoint"] == (str | None)
    assert get_type_hints(TankSettings) == {
        name: hint for name, hint in get_type_hints(Tank.__init__).items() if name != "return"
    }
