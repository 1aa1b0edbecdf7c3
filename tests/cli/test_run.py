"""`surgetank run`, as a process, with a program that knows nothing of us."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from surgetank.cli.run import SITE, environment_for
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

MAIN = "import sys; from surgetank.cli import main; main()"
WORK = """
from opentelemetry import trace
trace.get_tracer("app").start_span("work").end()
"""


def start(*arguments, **variables):
    others = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))}
    environment = {**others, "SURGETANK_PERSISTENCE_ENABLED": "false", **variables}
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, "run", *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments, **variables):
    process = start(*arguments, **variables)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out, errors


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector


def test_a_program_is_protected_and_its_exit_code_is_its_own(collector):
    """It takes the command's place."""
    code, _, _ = run(
        "--", sys.executable, "-c", WORK + "raise SystemExit(7)", OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint
    )

    assert code == 7
    assert collector.report()["spans"]["received"] == 1


def test_a_child_of_the_program_is_protected_too(collector):
    """Such as the workers that a server starts anew."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WORK!r}], check=True)"

    code, _, errors = run(sys.executable, "-c", child, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)

    assert code == 0, errors
    assert collector.report()["spans"]["received"] == 1


def test_the_programs_arguments_are_left_alone():
    """Options and dashes that look like ours included."""
    program = "import json, sys; print(json.dumps(sys.argv[1:]))"

    _, out, _ = run("--", sys.executable, "-c", program, "--instrument", "--", "--help", "a b")

    assert json.loads(out) == ["--instrument", "--", "--help", "a b"]


def test_a_failure_costs_one_line_and_not_the_program():
    """Here one of the SDK's own settings, which it refuses itself."""
    code, out, errors = run(sys.executable, "-c", "print('ran')", OTEL_SPAN_EVENT_COUNT_LIMIT="many")

    assert (code, out) == (0, "ran\n")
    assert errors.count("\n") == 1
    assert errors.startswith("surgetank: telemetry is not protected: ValueError: OTEL_SPAN_EVENT_COUNT_LIMIT")


def test_a_python_without_surgetank_is_named():
    """Most likely the command is in one environment and the program in another."""
    code, out, errors = run(sys.executable, "-S", "-c", "import sitecustomize; print('ran')")

    assert (code, out) == (0, "ran\n")
    assert "No module named 'surgetank'; install it for the program's Python, " + sys.executable in errors


def test_a_sitecustomize_that_is_hidden_runs_too(tmp_path):
    """And finds itself as `sitecustomize`, as it would without us."""
    (tmp_path / "sitecustomize.py").write_text("mine = 1")
    program = "import sitecustomize; print(sitecustomize.mine)"

    _, out, errors = run(sys.executable, "-c", program, PYTHONPATH=str(tmp_path))

    assert out == "1\n", errors


def test_what_a_hidden_sitecustomize_raises_is_shown_as_python_does(tmp_path):
    """It is not ours to swallow; the program runs, as it would without us."""
    (tmp_path / "sitecustomize.py").write_text("raise ValueError('mine')")

    code, out, errors = run(sys.executable, "-c", "print('ran')", PYTHONPATH=str(tmp_path))

    assert (code, out) == (0, "ran\n")
    assert "mine" in errors


@pytest.mark.parametrize(
    ("arguments", "expected", "text"),
    [
        (("no-such-program-anywhere",), 127, "there is no program no-such-program-anywhere"),
        ((), 2, "the following arguments are required: command"),
    ],
)
def test_what_cannot_be_run_is_said(arguments, expected, text):
    """With the exit codes that shells have."""
    code, _, errors = run(*arguments)

    assert code == expected
    assert text in errors


def test_the_command_needs_no_extra():
    """A production image has no need of tables."""
    text = textwrap.dedent(
        """
        import sys
        sys.modules["typer"] = sys.modules["rich"] = None
        sys.argv = ["surgetank", "run", sys.executable, "-c", "print('ran')"]
        from surgetank.cli import main
        main()
        """
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, timeout=30)

    assert done.stdout == "ran\n", done.stderr


def test_the_path_of_the_program_is_kept_behind_ours():
    """Once, however often the command is nested."""
    once = environment_for({"PYTHONPATH": "mine"}, is_instrumented=False)

    assert once["PYTHONPATH"] == os.pathsep.join([SITE, "mine"])
    assert environment_for(once, is_instrumented=False) == once


def test_instrumented_programs_get_the_configurator_instead():
    """Two doors would be one too many."""
    assert environment_for({}, is_instrumented=True) == {"OTEL_PYTHON_CONFIGURATOR": "surgetank"}


def test_the_help_names_it():
    """Among the other commands."""
    variables = {**os.environ, "COLUMNS": "200", "TERM": "dumb"}
    command = [sys.executable, "-c", MAIN, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=variables)

    assert "surgetank run -- python app.py" in done.stdout
