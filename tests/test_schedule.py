"""What may not run at the same time is run by one worker; this file is among it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("number", range(6))
def test_which_worker_runs_this(number):
    """It leaves its name where it is told to; for the test below."""
    place = os.environ.get("SCHEDULE_PLACE")
    if place:
        (Path(place) / f"{os.environ['PYTEST_XDIST_WORKER']}-{number}").touch()


@pytest.mark.slow
def test_what_is_kept_together_has_one_worker(tmp_path):
    """As `scripts/test` runs it, whatever the versions of pytest and xdist are."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadgroup"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(
        [*command, "-k", "which_worker", "tests/test_schedule.py"],
        cwd=ROOT,
        env={**kept, "SCHEDULE_PLACE": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 0, done.stdout
    names = [path.name.partition("-")[0] for path in tmp_path.iterdir()]
    assert len(names) == 6
    assert len(set(names)) == 1


def test_every_group_is_of_files_that_are_there(request):
    """A file that was moved would be kept together with nothing."""
    plugins = request.config.pluginmanager.get_plugins()
    (conftest,) = (each for each in plugins if getattr(each, "__file__", None) == str(ROOT / "tests" / "conftest.py"))

    assert all((ROOT / place).exists() for places in conftest.TOGETHER.values() for place in places)
