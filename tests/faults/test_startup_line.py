"""A tank says once, when it starts, where telemetry goes and what holds it."""

import logging

import pytest
from opentelemetry.sdk.trace.export import ConsoleSpanExporter

from surgetank import BatchSpanProcessor, BufferConfig, SpoolConfig, Tank


@pytest.fixture
def lines(caplog):
    """What was logged at level INFO, in the order in which it was."""
    caplog.set_level(logging.INFO, "surgetank")
    return lambda: [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]


def made(**settings):
    Tank(is_threaded=False, handle_sigterm=False, **settings).shutdown(0)


def test_a_tank_tells_destination_spool_and_limits(monkeypatch, tmp_path, lines):
    """Together what goes to one place; what is obeyed, and no credential."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://user:s3cret@logs.example/in?key=s3cret")
    made(
        endpoint="http://user:s3cret@collector:4318",
        headers={"api-key": "s3cret"},
        spans=BufferConfig(max_size=10_000, max_memory_mb=2.5),
        spool=SpoolConfig(dir=tmp_path / "a\nb", max_mb=100),
        total_memory_mb=None,
    )

    (line,) = lines()
    assert line == (
        "started: spans, metrics and logs to http://collector:4318 (http/protobuf); "
        f"spool '{tmp_path}/a\\nb' (at most 100 MiB, durability os, for spans and logs); "
        "in memory spans 10,000 items or 2.5 MiB, metrics 5,000 items or 20 MiB, logs 5,000 items or 30 MiB"
    )


def test_signals_that_go_elsewhere_are_told_apart(monkeypatch, lines):
    """By the variables of each; without a spool it says so."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://user:s3cret@logs.example/in?key=s3cret")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
    made()

    (line,) = lines()
    assert line.startswith(
        "started: spans to http://localhost:4318 (http/protobuf), metrics to http://localhost:4317 (grpc), "
        "logs to https://logs.example:443 (http/protobuf); no spool, held in memory only; in memory spans 2,048 items or 50 MiB"
    )
    assert "s3cret" not in line


def test_a_drop_in_class_tells_of_its_own_signal_only(lines):
    """An exporter that is driven stands in the place of the endpoint."""
    BatchSpanProcessor(ConsoleSpanExporter(), is_threaded=False, handle_sigterm=False).shutdown()

    line = lines()[0]
    assert line.startswith("started: spans to exporter:opentelemetry.sdk.trace.export.ConsoleSpanExporter; no spool")
    assert "logs" not in line
