"""Fixtures for every test: nothing of the environment's leaks in, and nothing is stored unless a test asks for it."""

import pytest


@pytest.fixture(autouse=True)
def _memory_only(monkeypatch):
    """Tanks made by tests hold in memory only; those that have a spool say so, and where."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "false")
