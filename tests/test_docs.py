"""The documents say what the code does: examples run, every setting and every reason is described."""

import dataclasses
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import surgetank
from surgetank.config import BufferConfig, Timing
from surgetank.memory.settings import MemoryConfig
from surgetank.spool.settings import SpoolConfig
from surgetank.testing.collector import Collector

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_the_readmes_examples_run(number):
    """Each in a process of its own, against a collector."""
    with Collector() as collector:
        code = EXAMPLES[number].replace("http://localhost:4318", collector.endpoint)
        environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=30)

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_there_are_examples():
    """Or the test above would say nothing."""
    assert len(EXAMPLES) == 3


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
