"""Runs each command of the README in a fresh clone, in an environment of its own; `scripts/readme` starts it.

The tests have far more installed than a command installs for itself, so a command that lacks something passes there and fails
on a newcomer's machine. Here it finds nothing but git, sh and Python: no virtual environment, no settings, and a clone of what is
committed. So is every `python -m surgetank...`, without any extra and with all of them.

A script that the README or the scripts' folder has and that stands neither in `RUN` nor in `LEFT_OUT` is an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUN = {
    "check": ["scripts/check"],
    "docs": ["scripts/docs"],
    # The quickest figure: what imports cost.
    "bench": ["scripts/bench", "imports"],
    "demo": ["scripts/demo"],
}
LEFT_OUT = {
    "test": "`.ci/run` runs it, in an environment of its own",
    "matrix": "`.ci/run` runs a selection of it, which makes an environment for each session",
    "reference": "changes a file; tests/catalogue compares what it writes",
    "readme": "is this",
    "environment": "is read by the others",
    "fuzz": "runs for as long as it is told; the tests run its targets briefly",
    "simulate": "runs for as long as it is told; the tests run some of its seeds",
    "site_hooks.py": "is read by mkdocs",
    "readme_commands.py": "is this",
}
EXTRAS = "cli,encryption,grpc,memory,testing"
# What a command may take at most (seconds).
PATIENCE = 900


def named_in_readme() -> set[str]:
    """Return the names of the scripts that the README tells to run."""
    return set(re.findall(r"scripts/([a-z_]+)", (ROOT / "README.md").read_text(encoding="utf-8")))


def unknown() -> set[str]:
    """Return the scripts that nobody has said what to do with."""
    there = {path.name for path in (ROOT / "scripts").iterdir() if path.is_file()}
    return (named_in_readme() | there) - RUN.keys() - LEFT_OUT.keys()


def modules(source: Path) -> list[str]:
    """Return every module that can be run with `python -m`."""
    found = []
    for path in sorted(source.rglob("*.py")):
        name = ".".join(path.relative_to(source.parent).with_suffix("").parts)
        if path.name == "__main__.py":
            found.append(name.removesuffix(".__main__"))
        elif '\nif __name__ == "__main__":' in path.read_text(encoding="utf-8"):
            found.append(name)
    return found


def bare_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without any virtual environment, and without settings of Python's, OpenTelemetry's or ours."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "SURGETANK_", "PYTHON", "VIRTUAL_ENV", "COVERAGE", "PYTEST"))
        or name == "PYTHON"
    }
    places = kept.get("PATH", os.defpath).split(os.pathsep)
    kept["PATH"] = os.pathsep.join(place for place in places if not (Path(place).parent / "pyvenv.cfg").exists())
    return {**kept, "PYTHONNOUSERSITE": "1", **more}


def run(name: str, command: list[str], where: Path, environment: dict[str, str]) -> bool:
    """Run a command; say how it went, with all that it printed if it failed."""
    began = time.monotonic()
    done = subprocess.run(  # noqa: S603  # the project's own scripts
        command, cwd=where, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    sys.stdout.write(f"{name}: exit {done.returncode} after {time.monotonic() - began:.0f} s\n")
    if done.returncode != 0:
        sys.stdout.write(done.stdout + done.stderr)
    sys.stdout.flush()
    return done.returncode == 0


def run_script(name: str, clone: Path, place: Path) -> bool:
    """Run one of the scripts, with an environment that it makes itself."""
    return run(" ".join(RUN[name]), RUN[name], clone, bare_environment(SURGETANK_VENV=str(place / f"venv-{name}")))


def installed(clone: Path, folder: Path, extras: str) -> str | None:
    """Make an environment with what `pip install surgetank[extras]` brings; return its interpreter, None if that failed."""
    environment, python = bare_environment(), str(folder / "bin" / "python")
    wanted = f"{clone}[{extras}]" if extras else str(clone)
    steps = (
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted],
    )
    return python if all(run(f"install [{extras}]", step, clone, environment) for step in steps) else None


def is_helpful(python: str, module: str, where: Path, *, may_lack: bool) -> bool:
    """Whether `python -m module --help` helps; without its extra it may say instead, in one line, which one to install."""
    command = [python, "-m", module, "--help"]
    done = subprocess.run(  # noqa: S603  # our own modules
        command, cwd=where, env=bare_environment(), capture_output=True, text=True, timeout=60, check=False
    )
    helps = done.returncode == 0 and "usage" in (done.stdout + done.stderr).lower()
    lines = done.stderr.strip().splitlines()
    says_what_is_missing = done.returncode == 2 and len(lines) == 1 and "pip install 'surgetank[" in lines[0]
    is_well = helps or (may_lack and says_what_is_missing)
    sys.stdout.write(
        f"python -m {module} --help, {'no extra' if may_lack else 'all extras'}: {'ok' if is_well else 'FAILED'}\n"
    )
    if not is_well:
        sys.stdout.write(done.stdout + done.stderr)
    return is_well


def run_entry_points(clone: Path, place: Path) -> bool:
    """Run every module that can be run, without any extra and with all of them, outside of the clone."""
    is_well = True
    for extras in ("", EXTRAS):
        python = installed(clone, place / f"venv-[{extras}]", extras)
        if python is None:
            return False
        for module in modules(clone / "src" / "surgetank"):
            is_well = is_helpful(python, module, place, may_lack=not extras) and is_well
        script = str(Path(python).parent / "surgetank")
        is_well = (
            run(
                "surgetank --version" if extras else "surgetank run --help",
                [script, *(["--version"] if extras else ["run", "--help"])],
                place,
                bare_environment(),
            )
            and is_well
        )
    return is_well


def main(wanted: list[str]) -> int:
    """Run what is asked for, all by default; return the exit status."""
    if unknown():
        sys.stdout.write(f"scripts that stand neither in RUN nor in LEFT_OUT: {', '.join(sorted(unknown()))}\n")
        return 1
    for name, reason in sorted(LEFT_OUT.items()):
        if name in named_in_readme():
            sys.stdout.write(f"scripts/{name} is left out: {reason}\n")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        clone = place / "clone"
        if not run("git clone", ["git", "clone", "--quiet", str(ROOT), str(clone)], place, bare_environment()):
            return 1
        results = [run_script(name, clone, place) for name in RUN if not wanted or name in wanted]
        if not wanted or "entry-points" in wanted:
            results.append(run_entry_points(clone, place))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
