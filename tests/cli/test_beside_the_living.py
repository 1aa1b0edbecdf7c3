"""The tools beside real processes that write all the time: they disturb nobody, and see no damage where there is work."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from surgetank.cli.app import app
from surgetank.clock import SystemClock
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.inspect import owners
from surgetank.spool.settings import SpoolSettings

pytestmark = pytest.mark.slow

# Stores, acknowledges, rolls and empties segments as fast as it can.
PROGRAM = """
import sys, collections, itertools
from surgetank.clock import SystemClock
from surgetank.model import Batch, Lane, Signal
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.settings import SpoolSettings
disk = Disk(SpoolSettings(path=sys.argv[1], reserve_bytes=0, segment_bytes=64 * 1024), OsFilesystem(), SystemClock(), slots=16)
spool = disk.spools[Signal.SPANS]
held = collections.deque()
for number in itertools.count():
    batch = Batch(id=str(number), signal=Signal.SPANS, lane=Lane.NORMAL, items=1, body=b"\\x1a\\x02ab" * 500,
                  raw_size=2000, encoding="identity", created=SystemClock().now())
    held.append(spool.append(batch))
    assert held[-1] is not None
    if number == 20:
        print("ready", flush=True)
    for _ in range(5 if number % 50 == 0 else len(held) > 20):
        if held:
            spool.ack(held.popleft())
"""

ASKING = """
import sys
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.inspect import owners
while True:
    owners(OsFilesystem(), sys.argv[1])
"""


@pytest.fixture
def process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "spool")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n", process.communicate()
    yield process
    process.kill()
    process.communicate()


def run(*arguments):
    return CliRunner().invoke(app, ["spool", *map(str, arguments)], catch_exceptions=False)


def test_status_check_and_export_beside_a_busy_owner(process, tmp_path):
    """Again and again, for seconds."""
    folder = tmp_path / "spool"
    until = time.monotonic() + 4
    rounds = 0
    while time.monotonic() < until:
        found = json.loads(run("status", "--dir", folder, "--json").stdout)["spools"][0]
        (owner,) = found["owners"]
        assert owner["state"] == "living"
        assert found["totals"]["unreadable_segments"] == 0
        check = run("check", "--dir", folder)
        assert check.exit_code == 0, check.stdout
        export = run("export", "--dir", folder)
        assert export.exit_code == 0, export.stderr
        assert run("repair", "--dir", folder, "--apply").exit_code == 0
        rounds += 1
    assert rounds >= 3
    assert process.poll() is None, process.communicate()


def test_who_is_killed_is_dead_at_once_and_can_be_adopted_while_others_ask(process, tmp_path):
    """Asking all the time costs an heir a look at most."""
    folder = str(tmp_path / "spool")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert [owner.state for owner in owners(OsFilesystem(), folder)] == ["dead"]
    asking = subprocess.Popen(
        [
            sys.executable,
            "-c",
            ASKING,
            folder,
        ]
    )
    try:
        time.sleep(0.5)
        heir = Disk(SpoolSettings(path=folder, reserve_bytes=0), OsFilesystem(), SystemClock())
        for _ in range(50):
            heir.adopt_orphans()
            if heir.folder._orphans:
                break
            time.sleep(0.01)
        assert heir.folder._orphans
        assert [owner.state for owner in owners(OsFilesystem(), folder)] == ["living"]
        heir.close()
    finally:
        asking.kill()
        asking.wait()
