"""Any terminal, or none: narrow encodings, closed outputs, and names that would be commands to it."""

import json
import logging
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from fakes.spools import Process
from surgetank.cli.app import app
from surgetank.lines import escaped, printable, say
from surgetank.spool.filesystem import OsFilesystem

ESCAPES = "\x1b[31mred\x1b[0m\x07\x1b]0;title\x07\u202ebackwards"
COMMANDS = [
    ["doctor", "--no-send"],
    ["config"],
    ["top", "--once"],
    ["spool", "status"],
    ["--help"],
    ["spool", "--help"],
]


def surgetank(*arguments, **environment):
    """Run `python -m surgetank` as a process."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_", "LC_", "LANG"))
    }
    return subprocess.run(
        [sys.executable, "-m", "surgetank", *arguments],
        env={**kept, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_every_command_works_in_a_narrow_encoding(arguments, encoding, tmp_path):
    """What the encoding lacks becomes something else; it is no reason to die."""
    done = surgetank(*arguments, PYTHONIOENCODING=encoding, LC_ALL="C", HOME=str(tmp_path))

    assert done.returncode in (0, 1, 2)
    assert b"Traceback" not in done.stderr + done.stdout
    assert done.stdout + done.stderr


@pytest.mark.slow
def test_a_closed_output_is_no_reason_to_die(tmp_path):
    """Neither one that is closed from the beginning nor one that nobody reads to its end."""
    line = f'"{sys.executable}" -m surgetank config'
    for shell in (f"{line} >&-", f"{line} 2>&-", f"{line} | head -c 1"):
        done = subprocess.run(["sh", "-c", shell], capture_output=True, timeout=60)
        assert done.returncode == 0, done
        assert b"Traceback" not in done.stderr + done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["config"], ["doctor"], ["top"], ["spool", "status"]], ids=" ".join)
def test_help_shows_no_type_for_a_flag(arguments):
    """`--json <bool>` would be typed as it stands there."""
    done = surgetank(*arguments, "--help", COLUMNS="120")

    assert done.returncode == 0
    assert b"--json" in done.stdout
    assert b"bool" not in done.stdout.lower()


@pytest.fixture
def hostile(tmp_path):
    """A spool whose folder and owner have names that would be commands to a terminal, with a damaged segment."""
    folder = tmp_path / f"spool-{ESCAPES.replace('/', '')}"
    process = Process(OsFilesystem(), path=str(folder))
    process.spill("a", 3)
    process.disk.close()
    (owner,) = folder.glob("owner-*")
    owner = owner.rename(folder / f"owner-1-{ESCAPES}")
    (segment,) = owner.glob("*.segment")
    segment.write_bytes(segment.read_bytes()[:-5])
    return str(folder)


@pytest.mark.parametrize(
    "arguments", [["status"], ["check"], ["repair"], ["export"], ["drain", "--endpoint", "http://127.0.0.1:1"]]
)
@pytest.mark.parametrize("as_json", [True, False])
def test_names_from_the_file_system_do_nothing_to_the_terminal(hostile, arguments, as_json):
    """They are printed as escapes that can be read."""
    done = CliRunner().invoke(app, ["spool", *arguments, "--dir", hostile, *(["--json"] if as_json else [])])

    shown = done.output + done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert not set(shown) & {"\x1b", "\x07", "\u202e"}
    if as_json and arguments[0] == "status":
        assert json.loads(done.stdout)["spools"][0]["path"] == hostile


def test_one_place_makes_text_from_outside_harmless(caplog):
    """A line for people, a text with its lines, and what is logged."""
    assert printable(f"a\n{ESCAPES}\t b") == "a [31mred[0m]0;titlebackwards b"
    assert printable("x" * 10_000, 5) == "xxxxx"
    assert escaped(f"a\n{ESCAPES}") == "a\n\\x1b[31mred\\x1b[0m\\x07\\x1b]0;title\\x07\\u202ebackwards"
    say(logging.getLogger("surgetank"), logging.WARNING, f"the spool at {ESCAPES} %s", ESCAPES)
    assert not set(caplog.text) & {"\x1b", "\x07", "\u202e"}
