"""The support matrix: the tests on each Python that is there, and with the oldest and the newest OpenTelemetry.

Run by `scripts/matrix`, which sets itself up:

    scripts/matrix                      # all sessions
    scripts/matrix -- --fast            # a selection, in about a minute for each; not on the interpreter that `scripts/test` has
    scripts/matrix -s tests-3.12 -- tests/process -k fork
    SURGETANK_PYTHONS=/opt/py/bin/python3.13:/usr/bin/python3.12 scripts/matrix

Interpreters are taken from SURGETANK_PYTHONS, the path, and pyenv's versions. One that is not there is skipped, and a line says so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
# The oldest that is supported, and what was released with it; the tests' own requirements are the newest.
OLDEST = (
    "opentelemetry-sdk==1.41.*",
    "opentelemetry-proto==1.41.*",
    "opentelemetry-exporter-otlp-proto-http==1.41.*",
    "opentelemetry-exporter-otlp-proto-grpc==1.41.*",
    "opentelemetry-instrumentation==0.62b0",
)
NEWEST = ("opentelemetry-sdk", "opentelemetry-configuration")
# What OpenTelemetry has a part in; the doors make environments of their own, with what is released.
FACING = (
    "tests/otel",
    "tests/otlp",
    "tests/delivery",
    "tests/process",
    "tests/frameworks",
    "tests/interop",
    "tests/test_driver.py",
    "tests/test_fork_hooks.py",
    "tests/test_lifecycle.py",
    "tests/test_pressure.py",
    "tests/test_sampling.py",
)
# Where seconds count: what showed most of the differences there are, but for real processes, which would run beside others.
FAST_FACING = ("tests/otel", "tests/otlp", "tests/test_lifecycle.py")
FAST = (
    "tests/otel/test_canary.py",
    "tests/otel/test_doors.py",
    "tests/otel/test_providers.py",
    "tests/buffer",
    "tests/test_driver.py",
    "tests/test_fork_hooks.py",
    "tests/test_lifecycle.py",
    "tests/test_pipeline.py",
    "tests/test_threads.py",
)


def _is(python: str, version: str) -> bool:
    """Whether it runs, and is that version: shims of version managers are there, and fail."""
    code = "import sys, venv; print('{}.{}'.format(*sys.version_info))"
    try:
        found = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and found.stdout.strip() == version


@cache
def _pyenv() -> Path | None:
    root = os.environ.get("PYENV_ROOT")
    if root:
        return Path(root)
    try:
        found = subprocess.run(["pyenv", "root"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(found.stdout.strip()) if found.returncode == 0 and found.stdout.strip() else None


def _candidates(version: str) -> list[str]:
    given = [path for path in os.environ.get("SURGETANK_PYTHONS", "").split(os.pathsep) if path]
    root = _pyenv() or Path.home() / ".pyenv"
    installed = sorted(root.glob(f"versions/{version}.*/bin/python"), reverse=True)
    return [*given, f"python{version}", *map(str, installed)]


@cache
def _python(version: str) -> str | None:
    return next((each for each in _candidates(version) if _is(each, version)), None)


def _run(session: nox.Session, packages: tuple[str, ...], paths: tuple[str, ...], fast: tuple[str, ...]) -> None:
    is_fast = "--fast" in session.posargs
    arguments = [each for each in session.posargs if each != "--fast"]
    groups = ("tests",) if is_fast else ("tests", "frameworks")
    # Dependency groups need pip 25.1.
    session.install("--upgrade", "pip>=25.1")
    session.install("--editable", ".", *packages, *(part for group in groups for part in ("--group", group)))
    chosen = () if any(os.path.exists(each.partition("::")[0]) for each in arguments) else fast if is_fast else paths
    session.run("pytest", "-p", "no:cacheprovider", *chosen, *arguments)


def _on(version: str) -> None:
    """Make the session for a version of Python; its name says which, whatever the interpreter that was found is called."""
    python = _python(version)
    # Decided before nox makes an environment.
    is_had = "--fast" in sys.argv and _is(sys.executable, version)

    def tests(session: nox.Session) -> None:
        if python is None:
            session.skip(f"there is no Python {version} with venv here; SURGETANK_PYTHONS may name one")
        if is_had:
            session.skip(f"`scripts/test` runs everything on Python {version}")
        _run(session, (), ("tests",), FAST)

    tests.__doc__ = f"All tests on Python {version}, with the newest OpenTelemetry."
    nox.session(name=f"tests-{version}", python=False if is_had else python or False)(tests)


for _version in VERSIONS:
    _on(_version)


@nox.session(python=sys.executable)
@nox.parametrize("release", [nox.param(OLDEST, id="oldest"), nox.param(NEWEST, id="newest")])
def opentelemetry(session: nox.Session, release: tuple[str, ...]) -> None:
    """The tests that OpenTelemetry has a part in, with a release of it, on the interpreter that runs nox."""
    _run(session, release, FACING, FAST_FACING)
