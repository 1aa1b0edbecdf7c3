"""Fixtures for every test: nothing of the environment's leaks in, and nothing is stored unless a test asks for it."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# What lands is judged by the same examples each time; whoever works on it tries new ones. Neither is judged by the clock: a busy
# machine is no fault.
_UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", derandomize=True, **_UNHURRIED)
settings.register_profile("unhurried", **_UNHURRIED)
settings.load_profile("ci" if os.environ.get("CI") else "unhurried")


# What two workers never do at the same time, by the name of its group: what measures or has little time, so that nothing of its kind
# runs beside it, and what shares something that takes long to make.
TOGETHER = {
    "measures": (
        "tests/cli/test_bench.py",
        "tests/process/test_deadlines.py",
        "tests/process/test_squeeze.py",
        "tests/test_demo.py",
        "tests/test_hanging_disk.py",
        "tests/test_schedule.py",
        "tests/test_sizing.py",
    ),
    "doors": ("tests/doors/",),
}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Have `--dist loadgroup` keep those together; its own way, by marks, does nothing with pytest 9.2 and xdist 3.8."""
    if config.getvalue("dist") != "loadgroup":
        return None
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            groups = (group for group, places in TOGETHER.items() if nodeid.startswith(places))
            return next(groups, nodeid)

    return Scheduling(config, log)


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
