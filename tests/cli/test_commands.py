"""The commands as a user gives them: what they print, as text and as JSON, and how they exit."""

import dataclasses
import json
import os
import re
import stat
import subprocess
import sys
import time
from base64 import b64encode
from pathlib import Path

import pytest
from typer.testing import CliRunner

import surgetank
from fakes.requests import span_batch
from surgetank.cli.app import app
from surgetank.clock import SystemClock
from surgetank.model import Lane, Outcome, Signal, Verdict
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.settings import SpoolSettings
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

COMMANDS = ["status", "check", "export", "drain", "repair"]
DOCUMENT = Path(__file__).parents[2] / "docs" / "spool-tools.md"
KEYS = "first:" + b64encode(b"k" * 32).decode()


@pytest.fixture(autouse=True)
def _nothing_from_outside(monkeypatch, tmp_path):
    for name in list(os.environ):
        if name.startswith(("OTEL_", "SURGETANK_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def run(*arguments):
    """Run a command in this process."""
    return CliRunner().invoke(app, ["spool", *map(str, arguments)], catch_exceptions=False)


def data_of(*arguments):
    """Return the one JSON object that a command prints."""
    return json.loads(run(*arguments, "--json").stdout)


def test_the_version_is_said():
    """The first thing that a defect's report needs."""
    said = CliRunner().invoke(app, ["--version"])
    assert (said.exit_code, said.stdout) == (0, f"surgetank {surgetank.__version__}\n")


class Owner:
    """A process's disk in a real folder."""

    def __init__(self, path, **settings):
        self.path = path
        settings = SpoolSettings(path=str(path), reserve_bytes=0, **settings)
        self.disk = Disk(settings, OsFilesystem(), SystemClock())

    def store(self, *groups, lane=Lane.NORMAL):
        """Store a batch for each group of numbers; returns the last record."""
        for number, numbers in enumerate(groups):
            batch = span_batch(numbers).batch
            batch = dataclasses.replace(batch, id=f"b{number}", lane=lane, created=time.time() - 100)
            record = self.disk.spools[Signal.SPANS].append(batch)
        return record

    def bury(self, numbers):
        verdict = Verdict(outcome=Outcome.PERMANENT, cause="400", message="no")
        self.disk.dead_letters.bury(span_batch(numbers).batch, verdict)

    def die(self):
        """Let go of everything without a word, as a process that is killed does."""
        for estate in self.disk.folder._estates():
            estate.lock.close()
        for spool in self.disk.spools.values():
            for segment in spool._homes:
                segment.close()

    def damage(self, offset):
        """Damage a byte of the one segment."""
        (path,) = self.path.glob("o*/*.segment")
        content = bytearray(path.read_bytes())
        content[offset] ^= 0x40
        path.write_bytes(content)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def dead(folder):
    """A dead owner with two batches of five spans."""
    owner = Owner(folder)
    owner.record = owner.store([1, 2], [3, 4, 5])
    owner.die()
    return owner


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_is_documented(command):
    """Each of its options, too."""
    wide = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, ["spool", command, "--help"])

    assert wide.exit_code == 0
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text.split(f"## `surgetank spool {command}`")[1].split("\n## ")[0]
    assert "```console" in section
    # Some continuous-integration services have colours forced upon everything.
    plain = re.sub(r"\x1b\[[0-9;]*m", "", wide.stdout)
    options = set(re.findall(r"--[a-z-]+(?= )", plain.replace("│", " ")))
    assert "--json" in options
    for option in options - {"--help"}:
        assert f"`{option}" in section or f"`{option}" in text.split("\n## ")[0], option


def test_the_groups_have_help():
    """Without arguments, that is all they do."""
    for arguments in ([], ["spool"], ["--help"], ["spool", "--help"]):
        assert "Usage" in CliRunner().invoke(app, arguments).output


def test_status_shows_the_living_and_the_dead(folder, dead):
    """With what waits; the owner that lives is this very process."""
    living = Owner(folder)
    living.store([6], lane=Lane.CRITICAL)
    living.bury([7])

    result = run("status", "--dir", folder)

    assert result.exit_code == 0
    (dead_line,) = [line for line in result.stdout.splitlines() if line.startswith("owner-") and " dead " in line]
    (living_line,) = [line for line in result.stdout.splitlines() if line.startswith("owner-") and " living " in line]
    assert dead_line.split()[2:7] == ["spans", "normal", "1", "2", "5"]
    assert living_line.split()[2:7] == ["spans", "critical", "1", "1", "1"]
    assert "1 dead letter (" in result.stdout
    assert "2 min" in dead_line or "1.7 min" in dead_line
    (found,) = data_of("status", "--dir", folder)["spools"]
    assert found["totals"]["pending_items"] == 6
    assert {owner["state"] for owner in found["owners"]} == {"living", "dead"}


def test_status_shows_all_default_folders_and_others_ask_which(tmp_path):
    """There is one for each destination."""
    assert run("status").exit_code == 2
    assert "there is no spool below" in run("status").stderr
    state = tmp_path / "state" / "surgetank"
    for name in ("aa", "bb"):
        owner = Owner(state / name)
        owner.store([1])
        owner.die()

    result = run("status")
    assert str(state / "aa") in result.stdout
    assert str(state / "bb") in result.stdout
    for command in ("check", "export", "repair"):
        result = run(command)
        assert result.exit_code == 2
        assert f"--dir {state / 'aa'}" in result.stderr
    # The folder above is easily taken for a spool.
    assert run("check", "--dir", state).exit_code == 2
    assert run("check", "--dir", state / "aa").exit_code == 0


def test_the_folder_may_come_from_the_environment(monkeypatch, folder, dead):
    """As for a tank."""
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(folder))

    assert data_of("check")["records"] == 2


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """Rather than taken for an empty one."""
    result = run("check", "--dir", tmp_path / "none")

    assert result.exit_code == 2
    assert "there is no folder" in result.stderr
    assert "--dir" in result.stderr


def test_check_says_where_the_damage_is_and_exits_with_1(folder, dead):
    """And with 0 where there is none."""
    assert run("check", "--dir", folder).exit_code == 0
    dead.damage(dead.record.offset + 80)

    result = run("check", "--dir", folder)

    assert result.exit_code == 1
    assert f"at byte {dead.record.offset:,}" in result.stdout
    assert "costs 3 items" in result.stdout
    found = data_of("check", "--dir", folder)
    assert (found["damaged"], found["lost_items"]) == (1, 3)


def test_export_writes_lines(folder, dead):
    """To standard output; the counts go to standard error."""
    before = content(folder)

    result = run("export", "--dir", folder)

    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    spans = [span for line in lines for span in line["resourceSpans"][0]["scopeSpans"][0]["spans"]]
    assert [span["spanId"] for span in spans] == [f"{number + 1:016x}" for number in range(1, 6)]
    assert "2 batches with 5 items exported" in result.stderr
    assert content(folder) == before
    assert json.loads(run("export", "--dir", folder, "--json").stderr)["items"] == 5


def test_export_into_a_file_that_is_closed_to_others(folder, dead, tmp_path):
    """And never over one that is there."""
    target = tmp_path / "out.jsonl"

    counts = data_of("export", "--dir", folder, "--output", target)

    assert counts["batches"] == len(target.read_text().splitlines()) == 2
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    again = run("export", "--dir", folder, "--output", target)
    assert again.exit_code == 2
    assert "is there already" in again.stderr


def test_export_of_one_signal_and_of_dead_letters(folder, dead):
    """Instead of what waits."""
    Owner(folder).bury([9])

    assert run("export", "--dir", folder, "--signal", "logs").stdout == ""
    assert len(run("export", "--dir", folder, "--signal", "spans").stdout.splitlines()) == 2
    (line,) = run("export", "--dir", folder, "--dead-letters").stdout.splitlines()
    assert '"span 9"' in line
    assert run("export", "--dir", folder, "--signal", "nonsense").exit_code == 2


def test_export_of_what_is_encrypted(folder, tmp_path, monkeypatch):
    """Needs the key, and says which."""
    owner = Owner(folder, key_text=lambda: KEYS)
    owner.store([1, 2])
    keys = tmp_path / "keys"
    keys.write_text(KEYS)

    without = run("export", "--dir", folder)
    assert without.exit_code == 1
    assert "2 items encrypted with key 'first' skipped" in without.stderr
    assert run("export", "--dir", folder, "--key-file", keys).exit_code == 0
    assert run("export", "--dir", folder, "--key-file", tmp_path / "none").exit_code == 2
    monkeypatch.setenv("SURGETANK_SPOOL_ENCRYPTION_KEY", KEYS)
    assert len(run("export", "--dir", folder).stdout.splitlines()) == 1


def test_a_drain_is_planned_first(folder, dead):
    """Nothing is sent and nothing changed."""
    Owner(folder).store([9])
    before = content(folder)
    with Collector() as collector:
        result = run("drain", "--dir", folder, "--endpoint", collector.endpoint)
        planned = data_of("drain", "--dir", folder, "--endpoint", collector.endpoint)

        assert collector.requests_made == 0
    assert result.exit_code == 0
    assert "--apply" in result.stdout
    assert "1 living owner left alone" in result.stdout
    assert planned["applied"] is False
    assert planned["planned"]["spans"] == {"batches": 2, "items": 5}
    assert planned["urls"]["logs"] == f"{collector.endpoint}/v1/logs"
    assert content(folder) == before


def test_a_drain_delivers(folder, dead):
    """With the headers that were given."""
    with Collector() as collector:
        result = run(
            "drain", "--dir", folder, "--endpoint", collector.endpoint, "--header", "api-key=secret", "--apply"
        )

        assert collector.report()["spans"] == {"received": 5, "unique": 5, "duplicates": 0}
        assert collector.headers[0]["api-key"] == "secret"
    assert result.exit_code == 0
    (line,) = [line for line in result.stdout.splitlines() if line.startswith("spans")]
    assert line.split() == ["spans", "5", "5", "0", "0", "0"]
    assert not list(folder.glob("o*"))


def test_a_drain_that_fails_leaves_everything(folder, dead):
    """And says why, with exit code 1."""
    with Collector() as collector:
        collector.behave(behaviour.status(401))
        result = run("drain", "--dir", folder, "--endpoint", collector.endpoint, "--apply")
        applied = data_of("drain", "--dir", folder, "--endpoint", collector.endpoint, "--apply")

    assert result.exit_code == 1
    assert "must be mended first (401" in result.stdout
    assert applied["signals"]["spans"] == {
        "found": 5,
        "delivered": 0,
        "rejected": 0,
        "lost": {},
        "left": 5,
        "stopped": "the endpoint must be mended first (401)",
    }
    assert data_of("status", "--dir", folder)["spools"][0]["totals"]["pending_items"] == 5


def test_headers_and_endpoints_that_make_no_sense_are_refused(folder, dead):
    """No message repeats a secret."""
    result = run("drain", "--dir", folder, "--endpoint", "http://h", "--header", "secret")
    assert result.exit_code == 2
    assert "secret" not in result.output
    result = run("drain", "--dir", folder, "--endpoint", "http://me:secret@")
    assert result.exit_code == 2
    assert "secret" not in result.output
    assert run("drain", "--dir", folder).exit_code == 2


def test_a_repair_is_planned_first(folder, dead):
    """Then it is done, and the original kept."""
    dead.damage(dead.record.offset + 80)
    before = content(folder)

    planned = run("repair", "--dir", folder)
    assert content(folder) == before
    assert "1 batch with 2 items can be kept; 3 items lost" in planned.stdout
    assert data_of("repair", "--dir", folder)["segments"][0]["kept_items"] == 2

    done = run("repair", "--dir", folder, "--apply")
    assert done.exit_code == 0
    assert "written anew with 1 batch with 2 items; 3 items lost" in done.stdout
    (backup,) = folder.glob("backup-*")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o700
    assert [path.read_bytes() for path in backup.rglob("*.segment")] == [
        each for path, each in before.items() if path.suffix == ".segment"
    ]
    assert run("check", "--dir", folder).exit_code == 0
    assert "nothing to repair" in run("repair", "--dir", folder, "--apply").stdout
    assert backup.name in run("status", "--dir", folder).stdout


def test_log_lines_are_warnings(folder):
    """Such as what becomes of encrypted segments."""
    owner = Owner(folder, key_text=lambda: KEYS)
    owner.store([1])
    owner.die()
    with Collector() as collector:
        result = run("drain", "--dir", folder, "--endpoint", collector.endpoint, "--apply")

    assert result.exit_code == 1
    assert "warning: " in result.stderr
    assert "no key is configured" in result.stderr


def test_without_the_extra_it_says_what_to_install(tmp_path):
    """In one line, and exits with 2."""
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in ("typer", "rich"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in ("typer", "rich") else found(name, package)
from surgetank.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'surgetank[cli]'" in done.stderr


def test_the_installed_command_runs():
    """Its name is in the wheel's metadata."""
    done = subprocess.run(
        [sys.executable, "-c", "from surgetank.cli import main; main()", "spool", "status", "--help"],
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0
    assert "Usage: surgetank spool status" in done.stdout


def test_the_command_line_does_not_load_the_sdk():
    """A tool must start at once."""
    program = "import sys, surgetank.cli.app; sys.exit(any(n.startswith('opentelemetry') for n in sys.modules))"

    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
