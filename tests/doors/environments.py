"""Fresh virtual environments with the wheel and released packages."""

import os
import subprocess
import sys
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASED = ("opentelemetry-distro", "opentelemetry-exporter-otlp", "opentelemetry-configuration")


def pip(*arguments):
    """Run pip; returns the process."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def make(folder, *packages):
    """Make an environment and install packages; returns pip's process."""
    # Our pip serves it too, which saves the seconds that one of its own would take.
    venv.create(folder)
    return install(folder, *packages)


def install(folder, *packages):
    """Install packages into an environment; returns pip's process."""
    return pip("--python", str(folder / "bin" / "python"), "install", "--no-compile", *packages)


def build_all(folder):
    """
    Return three environments: `bare`, with what `pip install surgetank` brings, `small`, with the distribution but without
    gRPC, and `full`, with all released packages.

    Skips where the released packages cannot be had, except in CI, which must have them; all that fails after that is ours.
    """
    bare, small, full, wheels = (folder / name for name in ("bare", "small", "full", "wheels"))
    with ThreadPoolExecutor() as pool:
        others = pool.submit(make, full, *RELEASED)
        # Only what builds the wheel, and what the wheel depends on.
        first = pool.submit(make, bare, "opentelemetry-sdk", "urllib3")
        second = pool.submit(make, small, "opentelemetry-distro", "urllib3")
        built = pip("wheel", "--no-deps", "--wheel-dir", str(wheels), str(ROOT))
    for process in (others.result(), first.result(), second.result()):
        if process.returncode != 0:
            reason = f"released packages cannot be installed: {process.stderr.strip().splitlines()[-1]}"
            # A check that is left out looks as one that has passed.
            (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    assert built.returncode == 0, built.stderr
    (wheel,) = wheels.glob("surgetank-*.whl")
    for each in (bare, small, full):
        process = install(each, str(wheel))
        assert process.returncode == 0, process.stderr
    return {"bare": bare, "small": small, "full": full}


def variables_for(folder, **variables):
    """Return what a shell has in that environment, without the settings of whoever runs the tests."""
    ours = ("OTEL_", "SURGETANK_", "PYTHON")
    others = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**others, "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}", **variables}
