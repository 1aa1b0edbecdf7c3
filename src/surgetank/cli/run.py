"""`surgetank run -- python app.py`: a program in which nothing of OpenTelemetry is set up, with its telemetry protected.

Owns: no state. Threads: one.
Invariants: works without any extra; the program takes this process's place, so that signals and exit codes are its own.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

SITE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "site")

# As shells have it.
_NOT_FOUND: Final = 127
_NOT_RUN: Final = 126


def run(arguments: Sequence[str]) -> NoReturn:
    """Run the program that the arguments name; exits with 127 if there is none such, 126 if it cannot be run."""
    parser = argparse.ArgumentParser(
        prog="surgetank run",
        description="Run a Python program with its telemetry protected, as if it called surgetank.install() first. "
        "The SURGETANK_* and OTEL_* variables configure it.",
    )
    parser.add_argument(
        "--instrument",
        action="store_true",
        help="run it through opentelemetry-instrument, which instruments its libraries too",
    )
    parser.add_argument("command", help="the program, such as python")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the program is given")
    given = parser.parse_args(_without_dashes(arguments))
    command = [given.command, *given.arguments]
    if given.instrument:
        instrument = _found("opentelemetry-instrument")
        if instrument is None:
            _fail("--instrument needs one more package: pip install opentelemetry-distro")
        command = [instrument, *command]
    executable = _found(command[0])
    if executable is None:
        _fail(f"there is no program {command[0]}", _NOT_FOUND)
    try:
        # Without a shell, which would take the arguments apart once more.
        os.execve(executable, command, environment_for(os.environ, is_instrumented=given.instrument))  # noqa: S606
    except OSError as error:
        _fail(f"{executable}: {error.strerror}", _NOT_RUN)


def environment_for(variables: Mapping[str, str], *, is_instrumented: bool) -> dict[str, str]:
    """Return the program's environment."""
    if is_instrumented:
        return {**variables, "OTEL_PYTHON_CONFIGURATOR": "surgetank"}
    path = [each for each in variables.get("PYTHONPATH", "").split(os.pathsep) if each and each != SITE]
    return {**variables, "PYTHONPATH": os.pathsep.join([SITE, *path])}


def _without_dashes(arguments: Sequence[str]) -> list[str]:
    """Leave out the `--` before the command, which the parser would hand on to it; one that is the command's own stays."""
    found = list(arguments)
    for number, each in enumerate(found):
        if each == "--":
            return found[:number] + found[number + 1 :]
        if not each.startswith("-"):
            break
    return found


def _found(name: str) -> str | None:
    """Find a program, also one that is installed beside this interpreter while the path does not say so."""
    return shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))


def _fail(text: str, code: int = 2) -> NoReturn:
    sys.stderr.write(f"surgetank: {text}\n")
    sys.exit(code)
