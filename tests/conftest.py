"""Fixtures for every test: nothing of the environment's leaks in, and nothing is stored unless a test asks for it."""

import os

import pytest
from hypothesis import settings

# What lands is judged by the same examples each time; whoever works on it tries new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


@pytest.fixture(autouse=True)
def _memory_only(monkeypatch):
    """Tanks made by tests hold in memory only; those that have a spool say so, and where."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "false")
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "false")
