"""`scripts/environment`, with an interpreter that makes believe to make environments and to install into them."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BASE = getattr(sys, "_base_executable", sys.executable)
# Everything that is no installation is left to a real interpreter.
INTERPRETER = f"""#!/bin/sh
case "$1 $2" in
"-V "*) echo "Python ${{VERSION:-3.11.0}}" ;;
"-m venv") mkdir -p "$3/bin" && : >"$3/pyvenv.cfg" && cp "$0" "$3/bin/python" ;;
"-m pip") shift 3; echo "$@" | sed 's/--quiet --disable-pip-version-check //' >>"$INSTALLED"; eval "${{WHILE_INSTALLING:-}}" ;;
*) exec {BASE} "$@" ;;
esac
"""
PYPROJECT = (
    '[project]\nname = "x"\ndependencies = []\n\n[dependency-groups]\ntests = []\n\n[tool.ruff]\nline-length = 120\n'
)
PIP = "--upgrade pip>=25.1"


class Project:
    """A folder with the script, and what was installed from it."""

    def __init__(self, folder, python):
        self.folder = folder
        self.python = python
        self.log = folder.parent / "installed"
        self.venv = folder / ".venv"

    def start(self, *groups, **variables):
        """Start a script that wants those groups, and prints where Python is."""
        lines = f"set -eu; . scripts/environment; environment {' '.join(groups)}; command -v python"
        environment = {
            "PATH": os.defpath,
            "PYTHON": str(self.python),
            "INSTALLED": str(self.log),
            **variables,
        }
        return subprocess.Popen(
            ["sh", "-c", lines],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def set_up(self, *groups, **variables):
        """Have it run; return what was installed meanwhile."""
        before = len(self.installed())
        process = self.start(*groups, **variables)
        out, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
        assert err == ""
        directory = variables.get("SURGETANK_VENV", str(self.venv))
        assert out.strip() == f"{directory}/bin/python"
        return self.installed()[before:]

    def installed(self):
        return self.log.read_text().splitlines() if self.log.exists() else []

    def change(self, old, new):
        path = self.folder / "pyproject.toml"
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def project(tmp_path):
    """Return a project of which nothing is set up."""
    folder = tmp_path / "a project"
    (folder / "scripts").mkdir(parents=True)
    (folder / "src" / "surgetank").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "environment", folder / "scripts")
    (folder / "src" / "surgetank" / "_version.py").write_text('__version__ = "1"\n')
    (folder / "pyproject.toml").write_text(PYPROJECT)
    python = tmp_path / "python"
    python.write_text(INTERPRETER)
    python.chmod(0o755)
    return Project(folder, python)


def everything(*groups):
    """Return what is installed into a new environment."""
    return [PIP, f"--editable . {' '.join(f'--group {group}' for group in groups)}"]


def until(is_so):
    """Wait for what another process does."""
    deadline = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_is_made_once(project):
    """With all groups in one go; later only what is missing is installed."""
    assert project.set_up("tests", "docs") == everything("tests", "docs")
    assert project.set_up("docs") == []
    assert project.set_up("docs", "demo") == ["--editable . --group demo"]
    assert project.set_up("tests", "docs", "demo") == []


def test_without_groups_it_has_the_project(project):
    """And what that needs."""
    assert project.set_up() == [PIP, "--editable ."]
    assert project.set_up() == []
    assert project.set_up("docs") == ["--editable . --group docs"]


@pytest.mark.parametrize(
    ("old", "new"),
    [("dependencies = []", 'dependencies = ["y"]'), ("tests = []", 'tests = ["y"]'), ('name = "x"', 'name = "z"')],
)
def test_other_dependencies_make_it_anew(project, old, new):
    """What is not asked for any more is gone, or a missing dependency would never be noticed."""
    project.set_up("tests")
    (project.venv / "left behind").touch()
    project.change(old, new)

    assert project.set_up("tests") == everything("tests")
    assert not (project.venv / "left behind").exists()


def test_a_linters_setting_changes_nothing(project):
    """It is in the same file."""
    project.set_up("tests")
    project.change("line-length = 120", "line-length = 100")

    assert project.set_up("tests") == []


def test_another_interpreter_makes_it_anew(project):
    """As an upgrade of the system's does."""
    project.set_up("tests")

    assert project.set_up("tests", VERSION="3.12.0") == everything("tests")


def test_an_interpreter_that_is_gone_makes_it_anew(project):
    """The environment has a link to it."""
    project.set_up("tests")
    (project.venv / "bin" / "python").unlink()
    (project.venv / "bin" / "python").symlink_to("/nowhere/python3")

    assert project.set_up("tests") == everything("tests")


def test_a_moved_folder_makes_it_anew(project):
    """Its scripts and the editable installation name the old place, where another copy may be."""
    project.set_up("tests")
    moved = project.folder.rename(project.folder.parent / "elsewhere")

    assert Project(moved, project.python).set_up("tests") == everything("tests")


@pytest.mark.parametrize("what", ["--upgrade", "--group"])
def test_an_interrupted_installation_makes_it_anew(project, what):
    """Whether pip was being upgraded or brought a group: half of a package may look like all of it."""
    killing = f'case "$*" in *{what}*) kill -KILL 0 ;; esac'
    process = project.start("tests", WHILE_INSTALLING=killing)
    process.communicate(timeout=30)
    assert process.returncode != 0
    (project.venv / "left behind").touch()

    assert project.set_up("tests") == everything("tests")
    assert not (project.venv / "left behind").exists()


def test_a_failed_installation_is_an_error_and_is_tried_again(project):
    """The index may be out of reach."""
    process = project.start("tests", WHILE_INSTALLING="exit 1")
    process.communicate(timeout=30)
    assert process.returncode == 1

    assert project.set_up("tests") == everything("tests")


def test_two_at_once_wait_for_each_other(project, tmp_path):
    """The second says so, and finds what the first has installed."""
    goes_on = tmp_path / "goes on"
    first = project.start("tests", WHILE_INSTALLING=f'while [ ! -e "{goes_on}" ]; do sleep 0.01; done')
    until(project.installed)
    second = project.start("tests", "docs")
    said = second.stderr.readline()
    goes_on.touch()

    assert first.communicate(timeout=30)[1] == ""
    second.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert said == f"waiting for another script that installs into {project.venv}\n"
    assert project.installed() == [*everything("tests"), "--editable . --group docs"]


def test_who_was_killed_keeps_nobody_waiting(project):
    """The lock ends with its holder."""
    first = project.start("tests", WHILE_INSTALLING="sleep 600")
    until(project.installed)
    os.killpg(first.pid, 9)
    first.communicate(timeout=30)

    assert project.set_up("tests") == everything("tests")


def test_a_folder_that_is_something_else_is_left_alone(project, tmp_path):
    """SURGETANK_VENV may name any folder, and what was there would be removed."""
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis").touch()
    process = project.start("tests", SURGETANK_VENV=str(precious))
    _, err = process.communicate(timeout=30)

    assert process.returncode == 1
    assert f"{precious} is not a virtual environment, and is left alone" in err
    assert [path.name for path in precious.iterdir()] == ["thesis"]


def test_the_folder_can_be_chosen(project, tmp_path):
    """One that is missing or empty is used, with all above it."""
    assert project.set_up("tests", SURGETANK_VENV=str(tmp_path / "one" / "two")) == everything("tests")
    (tmp_path / "empty").mkdir()
    assert project.set_up("tests", SURGETANK_VENV=str(tmp_path / "empty")) == everything("tests")


def test_an_environment_that_is_active_can_be_made_anew(project, tmp_path):
    """Its interpreter is the first on the path, and would be gone in the middle of it."""
    subprocess.run([BASE, "-m", "venv", "--without-pip", str(project.venv)], check=True, timeout=60)
    lines = ". scripts/environment; find_python"
    path = f"{project.venv}/bin:{os.defpath}"
    found = subprocess.run(
        ["sh", "-c", lines], cwd=project.folder, env={"PATH": path}, capture_output=True, text=True, timeout=30
    )

    assert not found.stdout.startswith(str(project.venv))
    assert os.access(found.stdout.strip(), os.X_OK)
