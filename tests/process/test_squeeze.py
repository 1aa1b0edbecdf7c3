"""A real memory cgroup, really filled: the application lives, its books balance, and its own work goes on."""

import argparse

import pytest
from benchmarks.pressure import measure, memory_controller

pytestmark = pytest.mark.slow


def squeezed(**changes):
    given = {
        "mode": "ours",
        "limit_mb": 160.0,
        "buffer_mb": 400.0,
        "kib": 32,
        "before": 3.0,
        "away": 9.0,
        "spool": False,
        **changes,
    }
    return measure(argparse.Namespace(**given))


@pytest.mark.skipif(
    memory_controller() is None, reason="a memory cgroup needs root, and Linux with its controller mounted"
)
def test_an_application_in_a_memory_cgroup_lives_through_an_outage():
    """Four threads at full speed, buffers configured far above the limit, and no collector."""
    result = squeezed()
    if not result["has_cgroup"]:
        pytest.skip("this root may make no memory cgroup")

    assert result["survived"], result
    assert result["balanced"], result
    assert result["peak_rss_mb"] < 160, result
    assert result["lowest_scale"] < 1.0, result
    assert result["source"].startswith("cgroup"), result


def test_a_configured_limit_works_everywhere(monkeypatch):
    """Without any control group: what was configured is obeyed."""
    monkeypatch.setattr("benchmarks.pressure.memory_controller", lambda: None)
    result = squeezed()

    assert result["survived"], result
    assert result["balanced"], result
    assert result["peak_rss_mb"] < 160, result
    assert result["source"] == "configured", result


def test_with_a_spool_nothing_is_lost_either(tmp_path, monkeypatch):
    """What memory has no room for goes to disk."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "true")
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path / "spool"))
    # As much as the sealer can keep up with beside four threads that never pause: what is not sealed cannot go to disk.
    result = squeezed(spool=True, away=8.0, kib=4, limit_mb=90.0)

    assert result["survived"], result
    assert result["balanced"], result
    assert result["peak_rss_mb"] < 90, result
    assert result["dropped"] == {}, result
