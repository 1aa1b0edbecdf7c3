"""`surgetank bench`, and what the shell completes: processes of their own, as a user starts them."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

MAIN = "import sys; from surgetank.cli import main; main()"


def run(*arguments, code=MAIN, **variables):
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**others, "PYTHONIOENCODING": "utf-8", **variables},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_it_measures_and_leaves_nothing_behind(tmp_path):
    """Whatever the environment configures, sound or not."""
    done = run(
        "bench",
        "--seconds",
        "0.5",
        "--attributes",
        "3",
        "--json",
        SURGETANK_SPOOL_DIR=str(tmp_path / "spool"),
        SURGETANK_SPANS_MAX_SIZE="1",
        SURGETANK_JITTER="7",
        OTEL_SDK_DISABLED="true",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["attributes"] == 3
    assert found["span"]["on_end_us"] > 0
    assert set(found["sealed_bytes"]) == {"spans", "metrics", "logs"}
    assert 0 < found["span"]["sealed_bytes"] < found["span"]["encoded_bytes"] < found["span"]["waiting_bytes"]
    assert found["spool"]["folder"] == str(tmp_path)
    assert found["spool"]["written_items_per_second"] > 0
    assert found["spool"]["replayed_items_per_second"] > 0
    assert found["delivery"]["items_per_second"] > 0
    assert list(tmp_path.iterdir()) == []


def test_it_prints_what_to_do_with_the_numbers():
    """For the forecast."""
    done = run("bench", "--seconds", "0.5")
    assert done.returncode == 0, done.stderr
    assert "CPU per span, all threads" in done.stdout
    assert "surgetank doctor --outage 2h --rate spans=500,logs=200" in done.stdout
    assert "--size spans=" in done.stdout


def test_it_needs_no_protobuf():
    """As nothing of ours at run time does."""
    code = (
        "import sys, runpy; sys.modules['google'] = None;"
        "sys.argv = ['measuring', '--seconds', '0.3']; runpy.run_module('surgetank.measuring', run_name='__main__')"
    )
    done = run(code=code)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["span"]["cpu_us"]


def test_a_measurement_that_fails_says_where_to_look(tmp_path):
    """In a line, with exit code 2."""
    code = "import surgetank.cli.bench as b; b.sys.executable = '/bin/false';" + MAIN
    done = run("bench", code=code)
    assert done.returncode == 2
    assert "measuring failed" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_printed(shell):
    """For the shell that is named, here in the place of the one that is found out."""
    done = run("--show-completion", shell, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert done.returncode == 0, done.stderr
    assert "_SURGETANK_COMPLETE" in done.stdout
    assert shell in done.stdout or shell == "zsh"


@pytest.mark.parametrize(("words", "completed"), [("surgetank do", "doctor"), ("surgetank spool dr", "drain")])
def test_what_is_begun_is_completed(words, completed):
    """As bash asks for it."""
    number = str(len(words.split()) - 1)
    done = run(_SURGETANK_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=number)
    assert done.stdout.split() == [completed]


def test_run_needs_none_of_the_extras():
    """A production image has no need of tables and colours."""
    code = "import sys; sys.modules.update(typer=None, rich=None, click=None);" + MAIN
    done = run("run", "--", sys.executable, "-c", "print('here')", code=code, SURGETANK_PERSISTENCE_ENABLED="false")
    assert (done.returncode, done.stdout.strip()) == (0, "here"), done.stderr
