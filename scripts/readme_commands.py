"""Runs each command of the README in an environment that holds only what it installs itself; `scripts/readme` starts it.

The tests have far more installed than a command installs for itself, so a command that lacks something passes there and fails on a
newcomer's machine. Here it finds nothing but git, sh and Python: a clone of the project as it is (what is not known to git is
not there), an empty home, no settings, and a path without anything that was installed by hand. What pip has downloaded
before is kept, and so is where it looks.

The commands are read from the README's blocks of shell and from its text, so a new one is run without being named here, and so is a script
that the README does not name. Those that run for hours, or until somebody ends them, are run as `INSTEAD` says; the few that are not
run have their reason in `LEFT_OUT`. Besides: every `python -m surgetank...`, without any extra and with all of them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Command of the README: what is run instead, and why.
INSTEAD = {
    "scripts/bench": ("scripts/bench imports", "all figures take fifteen minutes, this one takes seconds"),
    "scripts/matrix": ("scripts/matrix --list", "all sessions take an hour; `.ci/run` runs a selection"),
    "scripts/reference": ("scripts/reference && git diff --exit-code docs", "what it writes is to be there already"),
    "surgetank spool status": ("surgetank run -- python app.py && surgetank spool status", "a spool has to be there"),
    "surgetank top": ("surgetank top --once", "it shows what it sees until somebody ends it"),
}
LEFT_OUT = {
    ".ci/run": "runs this",
    "scripts/docs serve": "serves what `scripts/docs` builds until somebody ends it",
    "scripts/environment": "is read by the others",
    "scripts/fuzz": "runs for as long as it is told; the tests run its targets briefly",
    "scripts/readme": "is this",
    "scripts/simulate": "runs for as long as it is told; the tests run some of its seeds",
}
# They measure, so nothing else runs beside them. All others run two at a time, because pip waits more than it works.
ALONE = ("scripts/demo", "scripts/bench", "scripts/test")
# What they print shows how far they are, and takes minutes to come to its end.
AT_LENGTH = ("scripts/test",)
# Exit with 1 where they find something, which on a machine without a collector they do.
FINDING = ("surgetank doctor", "surgetank top")
EXTRAS = "cli,encryption,grpc,memory,testing"
# What a newcomer has installed, and in which order, for a command of which this is the beginning. The first that fits counts.
NEEDS = {
    "surgetank run": "surgetank",
    "surgetank": "surgetank[cli]",
    "opentelemetry-instrument": "surgetank opentelemetry-distro opentelemetry-configuration",
}
# What a newcomer has: any program with telemetry in it.
APP = """
import logging
from opentelemetry import trace
with trace.get_tracer("shop").start_as_current_span("checkout"):
    logging.getLogger("shop").warning("low stock")
"""
# What a command may take at most (seconds).
PATIENCE = 1200
# What says how pip and other programs reach the outside, and no more.
KEPT = re.compile(
    r"PIP_.*|(HTTPS?|ALL|NO)_PROXY|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CI|TMPDIR|PYTHON|PYTHONDONTWRITEBYTECODE|PYENV_ROOT|SURGETANK_PYTHONS",
    re.IGNORECASE,
)
_BLOCK = re.compile(r"^```(?:sh|bash|shell|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ANY_BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`((?:scripts/|\.ci/|pip install |python -m |surgetank )[^`]+)`")


def commands(page: str) -> list[str]:
    """Return the commands of a page once each, in its order: the lines of its blocks of shell, then those in its text."""
    found: list[str] = []
    for block in _BLOCK.findall(page):
        lines = block.replace("\\\n", " ").splitlines()
        # What goes on over several lines is one command.
        found += [block.strip()] if "<<" in block else [_bare(line) for line in lines]
    found += _SPAN.findall(_ANY_BLOCK.sub("", page))
    return [each for each in dict.fromkeys(found) if each]


def _bare(line: str) -> str:
    """Return a line without its prompt and its comment."""
    return re.sub(r"(^|\s+)#.*", "", line.strip().removeprefix("$ ")).strip()


def unnamed(folder: Path, page: Iterable[str]) -> list[str]:
    """Return the scripts of a folder that a page's commands leave out."""
    named = {each.partition(" ")[0] for each in page}
    there = [f"{folder.name}/{path.name}" for path in sorted(folder.iterdir()) if path.is_file() and not path.suffix]
    return [each for each in there if each not in named]


def outdated(found: Iterable[str]) -> set[str]:
    """Return the commands that are said here to be run in another way, and are not there any more."""
    return INSTEAD.keys() - set(found)


def program(command: str) -> str:
    """Return a command without the variables before it."""
    words = shlex.split(command)
    while words and re.fullmatch(r"\w+=.*", words[0]):
        del words[0]
    return " ".join(words)


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


@dataclass
class Machine:
    """A newcomer's: a folder with a home, a clone, and environments that are made when they are first needed."""

    place: Path
    environments: dict[str, Path | None] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def clone(self) -> Path:
        """Where the project is."""
        return self.place / "clone"

    @property
    def home(self) -> Path:
        """Where the newcomer's program is."""
        return self.place / "home"

    def set_up(self) -> None:
        """Clone the project, with what is changed and not committed; write the newcomer's program."""
        self.home.mkdir()
        tools = self.place / "bin"
        tools.mkdir()
        for name, path in (("python3", _interpreter()), ("git", shutil.which("git"))):
            # A link would have the interpreter look for its library beside the link.
            (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(str(path))} "$@"\n')
            (tools / name).chmod(0o755)
        git = ["git", "-C", str(ROOT)]
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(self.clone)], check=True)  # noqa: S603,S607  # ours
        changes = subprocess.run([*git, "diff", "--binary", "HEAD"], check=True, capture_output=True).stdout  # noqa: S603  # ours
        if changes:
            subprocess.run(["git", "apply"], cwd=self.clone, input=changes, check=True)  # noqa: S607  # ours
        (self.home / "app.py").write_text(APP)
        written = re.search(
            r"^# otel\.yaml\n(.*?)^```", (ROOT / "docs/zero-code.md").read_text(), re.MULTILINE | re.DOTALL
        )
        if written:
            (self.home / "otel.yaml").write_text(written[1])

    def variables(self, **more: str) -> dict[str, str]:
        """Return the variables that a command has."""
        kept = {name: value for name, value in os.environ.items() if KEPT.fullmatch(name)}
        home = Path.home()
        settings = [path for path in (home / ".config/pip/pip.conf", home / ".pip/pip.conf") if path.exists()]
        pip = {"PIP_CONFIG_FILE": str(settings[0])} if settings else {}
        cache = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "pip"
        path = os.pathsep.join([str(self.place / "bin"), "/usr/bin", "/bin"])
        return {"PIP_CACHE_DIR": str(cache), **pip, **kept, "HOME": str(self.home), "PATH": path, **more}

    def run(self, command: str, *, fine: tuple[int, ...] = (0,), where: Path | None = None, **more: str) -> bool:
        """Run a command; say how it went, and all that it printed if it failed."""
        began = time.monotonic()
        is_shown = command.startswith(AT_LENGTH)
        done = subprocess.run(  # noqa: S603  # the README's own commands
            ["/bin/sh", "-c", command],
            cwd=where or self.home,
            env=self.variables(**more),
            stdin=subprocess.DEVNULL,
            stdout=None if is_shown else subprocess.PIPE,
            stderr=None if is_shown else subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
        is_well = done.returncode in fine and "Traceback" not in (done.stdout or "")
        said = "ok" if is_well else f"FAILED, exit {done.returncode}"
        sys.stdout.write(f"{command}: {said}, {time.monotonic() - began:.0f} s\n")
        if not is_well:
            sys.stdout.write(done.stdout or "")
        sys.stdout.flush()
        return is_well

    def installed(self, wanted: str) -> dict[str, str] | None:
        """Make an environment with what `pip install` of that brings; return the variables that put it first on the path, None if that failed."""
        # One at a time: two may want the same.
        with self.lock:
            if wanted not in self.environments:
                folder = self.place / f"environment-{len(self.environments)}"
                # What is on no index yet is taken from the clone.
                there = (re.sub(r"^surgetank(?=\[|$)", str(self.clone), each) for each in shlex.split(wanted))
                pip = f"{folder}/bin/python -m pip install --quiet --disable-pip-version-check {shlex.join(there)}"
                is_well = self.run(f"python3 -m venv {folder} && {pip}")
                self.environments[wanted] = folder if is_well else None
            made = self.environments[wanted]
        return made and {"PATH": os.pathsep.join([f"{made}/bin", "/usr/bin", "/bin"])}

    def run_readme(self, command: str) -> bool:
        """Run a command as a newcomer has to."""
        told, _ = INSTEAD.get(command, (command, ""))
        doing = program(told)
        if doing.startswith(("scripts/", ".ci/", "python -m ")):
            name = re.sub(r"\W+", "-", command)
            return self.run(told, where=self.clone, SURGETANK_VENV=str(self.place / f"venv-{name}"))
        if doing.startswith("pip install "):
            variables = self.installed(doing.removeprefix("pip install "))
            return variables is not None and self.run("python -c 'import surgetank; surgetank.Tank'", **variables)
        needs = next((needs for start, needs in NEEDS.items() if program(command).startswith(start)), None)
        if needs is None:
            sys.stdout.write(f"{command}: FAILED, nobody has said in NEEDS what has to be installed for it\n")
            return False
        variables = self.installed(needs)
        fine = (0, 1) if doing.startswith(FINDING) else (0,)
        return variables is not None and self.run(told, fine=fine, **variables)

    def run_entry_points(self) -> bool:
        """Run every module that can be run, outside of the clone: it helps, or without its extra says in a line which one to install."""
        results: list[bool] = []
        for wanted in ("surgetank", f"surgetank[{EXTRAS}]"):
            variables = self.installed(wanted)
            if variables is None:
                return False
            results += [
                self.is_helpful(module, may_lack=wanted == "surgetank", **variables)
                for module in modules(self.clone / "src" / "surgetank")
            ]
        return all(results)

    def is_helpful(self, module: str, *, may_lack: bool, **variables: str) -> bool:
        """Whether `python -m module --help` does what it should."""
        command = ["python", "-m", module, "--help"]
        path = variables["PATH"].partition(os.pathsep)[0]
        done = subprocess.run(  # noqa: S603  # our own modules
            [f"{path}/python", *command[1:]],
            cwd=self.home,
            env=self.variables(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        helps = done.returncode == 0 and "usage" in (done.stdout + done.stderr).lower()
        lines = done.stderr.strip().splitlines()
        says_what_is_missing = done.returncode == 2 and len(lines) == 1 and "pip install 'surgetank[" in lines[0]
        is_well = helps or (may_lack and says_what_is_missing)
        with_what = "no extra" if may_lack else "all extras"
        sys.stdout.write(f"{' '.join(command)}, {with_what}: {'ok' if is_well else 'FAILED'}\n")
        if not is_well:
            sys.stdout.write(done.stdout + done.stderr)
        return is_well


def _interpreter() -> str:
    """Return the interpreter that stands behind a virtual environment's."""
    return str(getattr(sys, "_base_executable", None) or sys.executable)


def main(wanted: list[str]) -> int:
    """Run what is asked for, all by default; return the exit status. `entry-points` are the modules."""
    known = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    known += unnamed(ROOT / "scripts", known)
    strangers = outdated(known) | set(wanted) - {*known, "entry-points"}
    if strangers:
        sys.stdout.write(f"there is no {', '.join(sorted(strangers))}; there are\n  " + "\n  ".join(known) + "\n")
        return 2
    for command, reason in LEFT_OUT.items():
        sys.stdout.write(f"{command}: not run, {reason}\n")
    for command, (told, reason) in INSTEAD.items():
        sys.stdout.write(f"{command}: run as `{told}`, {reason}\n")
    with tempfile.TemporaryDirectory(prefix="surgetank-readme-") as folder:
        machine = Machine(Path(folder))
        machine.set_up()
        chosen = [each for each in known if each not in LEFT_OUT and (not wanted or each in wanted)]
        with ThreadPoolExecutor(2) as pool:
            modules_are_well = pool.submit(machine.run_entry_points) if not wanted or "entry-points" in wanted else None
            results = list(pool.map(machine.run_readme, (each for each in chosen if each not in ALONE)))
            results += [modules_are_well.result()] if modules_are_well else []
        # Those that take longest come last, and not at all after a failure.
        for command in sorted(set(chosen).intersection(ALONE), key=ALONE.index):
            results.append(all(results) and machine.run_readme(command))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
