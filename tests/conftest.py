"""Fixtures for every test: nothing of the environment's leaks in, and nothing is stored unless a test asks for it."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent

# What lands is judged by the same examples each time; whoever works on it tries new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


# What starts processes, or watches the clock that the others' work is to be done by: one after the other, by one worker.
_IN_LINE = (
    "process",
    "frameworks",
    "doors",
    "crash",
    "interop",
    "test_demo.py",
    "test_hanging_disk.py",
    "test_examples.py",
)


def pytest_collection_modifyitems(items):
    """Have `--dist loadgroup` keep those together."""
    for item in items:
        place = item.path.relative_to(HERE).parts[0]
        if place in _IN_LINE or item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.xdist_group("in line"))


@pytest.fixture(autouse=True)
def _every_line_is_news(monkeypatch):
    """What is logged once in a process is logged once in a test."""
    monkeypatch.setattr("surgetank.config.environment._told", set())


@pytest.fixture(autouse=True)
def _memory_only(monkeypatch):
    """Tanks made by tests hold in memory only; those that have a spool say so, and where."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "false")
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "false")
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
