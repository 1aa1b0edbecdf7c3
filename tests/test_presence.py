"""The status file: whole or not read, locked while its tank lives, and no trouble to the application."""

import json
import os
import signal as signals
import stat
import subprocess
import sys
import textwrap
import time

import pytest

import surgetank
from surgetank.config import Environment
from surgetank.model import FOREVER
from surgetank.presence import (
    IDLE_PERIOD,
    PERIOD,
    Presence,
    folder_for,
    folders_on_host,
    service_name,
    sightings,
)
from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing import ManualClock


class Said:
    """What a tank has to say."""

    def __init__(self):
        self.words = {"pid": os.getpid(), "offered": 1}

    def __call__(self):
        return dict(self.words)


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path / "status")


def present(folder, said=None, **more):
    return Presence(folder, said or Said(), ManualClock(), is_threaded=False, **more)


def seen(folder):
    return list(sightings([folder]))


def test_what_is_announced_is_seen_while_its_owner_lives(folder):
    presence = present(folder)
    presence.announce()
    (sighting,) = seen(folder)
    assert sighting.is_alive
    assert sighting.said["offered"] == 1
    assert sighting.said["written_at"] == 1_000_000.0
    presence.withdraw()
    assert seen(folder) == []
    assert os.listdir(folder) == []


def test_only_the_user_may_read_it(folder):
    presence = present(folder)
    presence.announce()
    (name,) = os.listdir(folder)
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode) == 0o600
    presence.withdraw()


def test_two_tanks_of_a_process_have_a_file_each(folder):
    one, other = present(folder), present(folder)
    one.announce()
    other.announce()
    assert len(seen(folder)) == 2
    one.withdraw()
    assert len(seen(folder)) == 1
    other.withdraw()


def test_a_shorter_report_hides_what_is_left_of_a_longer_one(folder):
    said = Said()
    presence = present(folder, said)
    said.words["long"] = "x" * 5000
    presence.announce()
    del said.words["long"]
    presence.publish()
    assert "long" not in seen(folder)[0].said
    presence.withdraw()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"surgetank-status",
        b"surgetank-status 1 2 00000000\n{}",
        b"surgetank-status 1 99999999 00000000\n{}",
        b"surgetank-status 1 -1 00000000\n{}",
        b"surgetank-status one two three\n{}",
        b"\xff" * 100_000,
    ],
)
def test_what_is_not_whole_is_not_read(folder, content):
    OsFilesystem().make_folder(folder)
    with open(os.path.join(folder, "1-0.status"), "wb") as file:
        file.write(content)
    assert seen(folder) == []


def test_every_byte_that_is_changed_is_noticed(folder):
    presence = present(folder)
    presence.announce()
    (name,) = os.listdir(folder)
    path = os.path.join(folder, name)
    with open(path, "rb") as file:
        whole = file.read()
    presence.withdraw()
    readable = []
    for place in range(len(whole)):
        torn = bytearray(whole)
        torn[place] ^= 0x55
        with open(path, "wb") as file:
            file.write(torn)
        readable += seen(folder)
    assert readable == []


def test_the_rest_grows_when_nothing_changes(folder):
    said = Said()
    presence = present(folder, said)
    assert [presence.step() for _ in range(8)].count(IDLE_PERIOD) == 4
    said.words["offered"] = 2
    assert presence.step() == PERIOD
    presence.withdraw()


def test_the_rest_grows_though_the_hosts_memory_moves(folder):
    said = Said()
    presence = present(folder, said)
    rests = []
    for used in range(8):
        said.words |= {"memory": {"used": used}, "pressure": used / 100}
        rests.append(presence.step())
    assert rests.count(IDLE_PERIOD) == 4
    assert seen(folder)[0].said["memory"] == {"used": 7}
    presence.withdraw()


def test_a_tank_that_is_busy_publishes_once_a_second_all_the_same(folder):
    """Each sealed batch says that there is something to see; the loop is rung once for all of them."""
    presence = present(folder)
    rung = []
    presence.loop.wake = lambda: rung.append(None)
    for _ in range(100):
        presence.wake()
    assert len(rung) == 1
    while presence.step() == PERIOD:
        pass
    presence.wake()
    assert len(rung) == 2
    presence.withdraw()


@pytest.mark.parametrize("obstacle", ["file", "open", "missing"])
def test_where_no_file_can_be_made_nothing_happens(tmp_path, obstacle):
    """A folder that others can enter is as good as none: it could be theirs."""
    folder = tmp_path / "status"
    if obstacle == "file":
        folder.write_text("")
    elif obstacle == "open":
        folder.mkdir(mode=0o755)
        folder.chmod(0o755)
    else:
        folder = tmp_path / "file" / "status"
        (tmp_path / "file").write_text("")
    presence = present(str(folder))
    assert presence.step() == FOREVER
    presence.publish()
    presence.withdraw()


def test_a_link_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (tmp_path / "status").symlink_to(tmp_path / "elsewhere")
    present(str(tmp_path / "status")).announce()
    assert os.listdir(tmp_path / "elsewhere") == []


def test_the_folder_is_the_named_one_or_one_of_the_users_own(tmp_path):
    def found(**variables):
        return folder_for(Environment(variables))

    assert found(SURGETANK_STATUS_ENABLED="false") is None
    assert found(SURGETANK_STATUS_DIR="/a", XDG_RUNTIME_DIR=str(tmp_path)) == "/a"
    assert found(XDG_RUNTIME_DIR=str(tmp_path)) == str(tmp_path / "surgetank")
    assert found(XDG_RUNTIME_DIR="relative").endswith(f"surgetank-{os.geteuid()}")
    assert found(XDG_RUNTIME_DIR="/does/not/exist").endswith(f"surgetank-{os.geteuid()}")
    assert folders_on_host(Environment({"SURGETANK_STATUS_DIR": "/a"})) == ["/a"]
    assert found(SURGETANK_STATUS_ENABLED="perhaps") is not None


def test_the_service_is_called_what_opentelemetry_calls_it():
    def name(**variables):
        return service_name(Environment(variables))

    assert name() == ""
    assert name(OTEL_RESOURCE_ATTRIBUTES="a=b,service.name=shop%20front") == "shop front"
    assert name(OTEL_RESOURCE_ATTRIBUTES="service.name=a", OTEL_SERVICE_NAME="b") == "b"


PROGRAM = textwrap.dedent(
    """
    import os, sys, time
    import surgetank
    from opentelemetry.sdk.trace import TracerProvider

    tank = surgetank.Tank(endpoint="http://127.0.0.1:9", headers={"authorization": "a secret"}, shutdown_timeout=0.1)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(tank.span_processor)
    tracer = provider.get_tracer("test")
    pid = os.fork() if "fork" in sys.argv else 0
    tracer.start_span("one").end()
    print("ready", flush=True)
    sys.stdin.readline()
    if pid:
        os.waitpid(pid, 0)
    """
)


def run_program(tmp_path, *arguments):
    environment = {
        **os.environ,
        "SURGETANK_STATUS_ENABLED": "true",
        "SURGETANK_STATUS_DIR": str(tmp_path / "status"),
        "OTEL_SERVICE_NAME": "shop",
    }
    script = tmp_path / "app.py"
    script.write_text(PROGRAM)
    return subprocess.Popen(
        [sys.executable, str(script), *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def offered(folder):
    return [sighting.said["signals"]["spans"]["offered"] for sighting in seen(folder) if sighting.is_alive]


@pytest.mark.slow
def test_a_process_is_seen_in_an_outage_dies_and_is_swept(tmp_path):
    """What it holds can be read from outside; `kill -9` leaves a file that says it is nobody's; the next tank removes it."""
    folder = str(tmp_path / "status")
    program = run_program(tmp_path)
    try:
        assert program.stdout.readline() == "ready\n"
        assert wait_until(lambda: offered(folder) == [1])
        (sighting,) = seen(folder)
        assert (sighting.said["pid"], sighting.said["command"], sighting.said["service"]) == (
            program.pid,
            "app.py",
            "shop",
        )
        assert "secret" not in json.dumps(sighting.said)
        assert wait_until(lambda: seen(folder)[0].said["health"]["state"] == "holding")
    finally:
        program.send_signal(signals.SIGKILL)
        program.communicate()
    assert [sighting.is_alive for sighting in seen(folder)] == [False]
    heir = present(folder)
    heir.announce()
    assert [sighting.is_alive for sighting in seen(folder)] == [True]
    heir.withdraw()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")
def test_a_forked_child_shows_itself_and_leaves_its_parents_file_alone(tmp_path):
    folder = str(tmp_path / "status")
    program = run_program(tmp_path, "fork")
    try:
        assert wait_until(lambda: offered(folder) == [1, 1])
        assert len({sighting.said["pid"] for sighting in seen(folder)}) == 2
    finally:
        program.communicate("\n\n", timeout=30)
    assert wait_until(lambda: seen(folder) == [])


def test_a_tank_that_is_not_to_be_seen_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path / "status"))
    tank = surgetank.Tank(endpoint="http://127.0.0.1:9", shutdown_timeout=0.0)
    assert not (tmp_path / "status").exists()
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "true")
    other = surgetank.Tank(endpoint="http://127.0.0.1:9", shutdown_timeout=0.0)
    assert len(seen(str(tmp_path / "status"))) == 1
    tank.shutdown()
    other.shutdown()
    assert seen(str(tmp_path / "status")) == []
