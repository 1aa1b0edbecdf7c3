"""The documents say what the code does: every setting, reason, metric and public name is described."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
from docs.tools.metrics_page import PAGE, written
from docs.tools.prometheus_names import prometheus_name
from opentelemetry.sdk import environment_variables
from opentelemetry.sdk._logs import export as logs_export
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import export

import surgetank
from surgetank.config import BufferConfig, Timing
from surgetank.memory.settings import MemoryConfig
from surgetank.otel.instruments import INSTRUMENTS
from surgetank.spool.settings import SpoolConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
DOCS = ROOT / "docs"


@pytest.mark.parametrize("record", [BufferConfig, MemoryConfig, SpoolConfig, Timing])
def test_every_field_is_described(record):
    """By its name, in the configuration reference."""
    for field in dataclasses.fields(record):
        assert f"`{field.name}`" in CONFIGURATION, field.name


def test_every_argument_of_a_tank_is_described():
    """In the reference, but for those that only tests use, and in the docstring."""
    for name in list(inspect.signature(surgetank.Tank).parameters):
        if name not in ("spans", "metrics", "logs", "clock", "outlets", "make_sender", "filesystem", "probe"):
            assert f"`{name}`" in CONFIGURATION, name
        assert f"{name}: " in (surgetank.Tank.__doc__ or ""), name


def test_every_drop_reason_is_named_in_the_readme():
    """They are what an operator reads first."""
    for reason in surgetank.DropReason:
        assert f"`{reason.value}`" in README, reason


def test_every_public_name_is_documented_and_can_be_had():
    """Nothing in `__all__` is missing or mute."""
    for name in surgetank.__all__:
        assert (getattr(surgetank, name).__doc__ or "").strip(), name
    assert sorted(surgetank.__all__) == surgetank.__all__


def test_decisions_are_numbered_without_gaps():
    """So that a reference to one stays right."""
    numbers = sorted(int(path.name[:4]) for path in (ROOT / "docs" / "decisions").glob("*.md"))

    assert numbers == list(range(1, len(numbers) + 1))


def test_the_metrics_page_is_made_of_the_instruments():
    """If this fails: `python -m docs.tools.metrics_page`."""
    page = PAGE.read_text(encoding="utf-8")

    assert written(page) == page
    for instrument in INSTRUMENTS:
        assert f"`{prometheus_name(instrument)}`" in page, instrument.name


def test_metrics_that_the_pages_name_exist():
    """In queries and in prose."""
    known = {prometheus_name(instrument) for instrument in INSTRUMENTS} | {"surgetank_signal"}
    for page in DOCS.glob("*.md"):
        for name in re.findall(r"\b(?:surgetank|otel_sdk)_[a-z_]+\b", page.read_text(encoding="utf-8")):
            assert name in known, f"{page.name}: {name}"


def test_every_public_name_is_on_the_api_page():
    """Once."""
    found = re.findall(r"^::: surgetank\.(\w+)$", (DOCS / "api.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(set(found) - {"testing"}) == surgetank.__all__


def test_every_argument_of_the_stock_classes_has_its_row():
    """On the page about the migration from them, with the variables that say the same."""
    page = (DOCS / "migration.md").read_text(encoding="utf-8")
    for stock in (export.BatchSpanProcessor, logs_export.BatchLogRecordProcessor, PeriodicExportingMetricReader):
        section = page.partition(f"## `{stock.__name__}`")[2].partition("\n## ")[0]
        for name in list(inspect.signature(stock).parameters):
            assert f"`{name}`" in section, f"{stock.__name__}: {name}"
    for variable in vars(environment_variables).values():
        if str(variable).startswith(("OTEL_BSP_", "OTEL_BLRP_", "OTEL_METRIC_EXPORT_")):
            assert f"`{variable}`" in page, variable


def test_every_word_has_its_meaning():
    """Those that code, settings, metrics and log lines have in common."""
    page = (DOCS / "glossary.md").read_text(encoding="utf-8")
    words = "offer intake seal batch lane queue lease ack release verdict breaker half-open cooldown spool segment record pressure adopt drain tank"
    for word in [*words.split(), "dead letter", "accounting law"]:
        assert re.search(rf"^\*\*{word}\*\*\n:   ", page, re.MULTILINE | re.IGNORECASE), word
