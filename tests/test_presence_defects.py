"""Defects that the status files had: each test failed once."""

import errno
import json
import os
import threading
import zlib

import pytest

import surgetank
from fakes.requests import span
from surgetank.config import Environment
from surgetank.presence import Presence, folder_for, sightings
from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing import ManualClock, ScriptedSender, delivered
from surgetank.testing.filesystem import Fault, Hang, MemoryFilesystem


def plant(folder, name, body, *, version=1):
    folder.mkdir(exist_ok=True, mode=0o700)
    head = b"surgetank-status %d %d %08x\n" % (version, len(body), zlib.crc32(body))
    (folder / name).write_bytes(head + body)


def test_a_pipe_in_the_folder_does_not_hold_up_who_reads(tmp_path):
    """Opening one waits until somebody writes to it, which nobody does."""
    os.mkfifo(tmp_path / "1-0.status")
    found = []
    reading = threading.Thread(target=lambda: found.append(list(sightings([str(tmp_path)]))), daemon=True)

    reading.start()
    reading.join(10)

    assert found == [[]]


def test_what_is_nested_too_deeply_is_passed_over(tmp_path):
    """The parser has a limit of its own, and an error of its own for it."""
    plant(tmp_path, "1-0.status", b"[" * 100_000)
    plant(tmp_path, "2-0.status", b'{"pid":2}')

    assert [sighting.said for sighting in sightings([str(tmp_path)])] == [{"pid": 2}]


def test_a_file_of_another_version_is_seen_and_not_read(tmp_path):
    """Somebody is there, of whom no more can be said."""
    plant(tmp_path, "1-0.status", b"what version 2 has", version=2)

    [found] = sightings([str(tmp_path)])

    assert (found.version, found.said) == (2, {})


def test_no_folder_has_more_files_read_than_is_reasonable(tmp_path, monkeypatch):
    """Whoever plants a million shall not keep the reader busy for ever."""
    monkeypatch.setattr("surgetank.presence._MOST_FILES", 3)
    for number in range(10):
        plant(tmp_path, f"{number}-0.status", b"{}")

    assert len(list(sightings([str(tmp_path)]))) == 3


class Asked(OsFilesystem):
    """Takes down whose lock is asked for."""

    def __init__(self):
        self.paths = []

    def open(self, path, *, writable=True):
        file = super().open(path, writable=writable)
        ask = file.is_locked
        file.is_locked = lambda: self.paths.append(path) or ask()
        return file


def test_a_sweep_does_not_ask_for_the_lock_of_a_file_that_is_being_made(tmp_path):
    """It would have it for an instant, in which the maker is refused its own."""
    tmp_path.chmod(0o700)
    (tmp_path / "1-0.status").touch()
    filesystem = Asked()
    presence = Presence(str(tmp_path), lambda: {"pid": 1}, ManualClock(), filesystem=filesystem)

    presence.announce()

    assert filesystem.paths == []
    presence.withdraw()


def test_a_sweep_that_cannot_ask_for_locks_leaves_no_file_open():
    """On a network disk without locks each look would cost a descriptor for each file; and none is taken for a dead process's."""
    filesystem = MemoryFilesystem()
    filesystem.make_folder("/status")
    for number in range(10):
        file = filesystem.create(f"/status/{number}-0.status")
        file.write_at(0, b"x")
        file.close()
    filesystem.faults.append(Fault("lock", errno.ENOLCK, times=-1))
    presence = Presence("/status", lambda: {"pid": 1}, ManualClock(), filesystem=filesystem)

    presence.announce()

    assert len(filesystem._disk.open) <= 1
    assert len(filesystem.names("/status")) >= 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_began_when_it_was_forked(tmp_path, monkeypatch):
    """Its counts begin anew, and so does the time that they are of."""
    from surgetank import Tank

    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "false")
    clock = ManualClock()
    tank = Tank(endpoint="http://127.0.0.1:9", is_threaded=False, persistence_enabled=False, clock=clock)
    before = tank._describe()["started_at"]
    clock.advance(60)

    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, json.dumps(tank._describe()["started_at"]).encode())
        os._exit(0)
    os.waitpid(child, 0)

    assert json.loads(os.read(reading, 100)) == before + 60
    tank.shutdown()


@pytest.mark.parametrize("odd", [{"argv": [None]}, {"argv": [b"-c"]}, {"argv": ["-c"], "executable": None}])
def test_an_interpreter_that_is_embedded_oddly_still_gets_its_tank(tmp_path, monkeypatch, odd):
    """Some set neither the program's arguments nor the interpreter's path; and a tank that cannot be described is still one."""
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "true")
    monkeypatch.setenv("SURGETANK_STATUS_DIR", str(tmp_path / "status"))
    for name, value in odd.items():
        monkeypatch.setattr(f"sys.{name}", value)

    tank = surgetank.Tank(endpoint="http://127.0.0.1:9", shutdown_timeout=0.0)

    assert len(list(sightings([str(tmp_path / "status")]))) == 1
    tank.shutdown()


def test_what_cannot_be_described_costs_the_application_nothing(tmp_path):
    def describe():
        raise OSError("the host has no name")

    presence = Presence(str(tmp_path / "status"), describe, ManualClock(), is_threaded=False)
    presence.announce()

    assert presence.step() > 0
    presence.withdraw()


def test_a_descriptor_that_the_application_has_closed_and_got_again_is_left_alone(tmp_path):
    """As daemons do, which close all there are: the number may be a file of the application's since."""
    presence = Presence(str(tmp_path / "status"), lambda: {"pid": 1}, ManualClock(), is_threaded=False)
    presence.announce()
    theirs = tmp_path / "theirs"
    theirs.write_bytes(b"precious")
    number = presence._file._descriptor
    own = os.open(theirs, os.O_RDWR)
    os.dup2(own, number)
    os.close(own)

    presence.step()
    presence.step()
    presence.withdraw()

    assert theirs.read_bytes() == b"precious"
    assert os.pread(number, 8, 0) == b"precious"
    os.close(number)


def test_a_file_that_somebody_has_removed_is_made_again_but_not_for_ever(tmp_path):
    folder = tmp_path / "status"
    presence = Presence(str(folder), lambda: {"pid": 1}, ManualClock(), is_threaded=False)
    presence.announce()
    open_before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(50):
        for path in folder.iterdir():
            path.unlink()
        presence.step()
        presence.step()
    if open_before:
        assert len(os.listdir("/proc/self/fd")) < open_before + 10

    presence = Presence(str(folder), lambda: {"pid": 2}, ManualClock(), is_threaded=False)
    presence.announce()
    for path in folder.iterdir():
        path.unlink()
    presence.step()
    presence.step()
    assert [sighting.said["pid"] for sighting in sightings([str(folder)])] == [2]
    presence.withdraw()


@pytest.mark.parametrize("operation", ["write", "unlink"])
def test_a_shutdown_does_not_wait_for_a_folder_that_hangs(monkeypatch, operation):
    """The status file may be on a network disk whose server is gone."""
    monkeypatch.setenv("SURGETANK_STATUS_ENABLED", "true")
    monkeypatch.setenv("SURGETANK_STATUS_DIR", "/status")
    filesystem, hang = MemoryFilesystem(), Hang(operation, path=".status")
    tank = surgetank.Tank(
        handle_sigterm=False,
        filesystem=filesystem,
        persistence_enabled=False,
        shutdown_timeout=0.2,
        spans=surgetank.BufferConfig(schedule_delay=0.01),
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=delivered()),
    )
    filesystem.hangs.append(hang)
    tank.span_processor.on_end(span(1))
    if operation == "write":
        assert hang.reached.wait(10)
    ending = threading.Thread(target=tank.shutdown, daemon=True)
    ending.start()
    ending.join(10)
    try:
        assert not ending.is_alive()
        assert tank.stats().spans.delivered == 1
    finally:
        hang.released.open()
        tank._presence.loop.join(10)
    assert filesystem.names("/status") == []


def test_another_users_runtime_folder_is_not_written_to(tmp_path, monkeypatch):
    """`sudo -E` and `su` keep the variable: what root makes in there, its owner cannot write to any more."""
    environment = Environment({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert folder_for(environment) == str(tmp_path / "surgetank")

    monkeypatch.setattr("os.geteuid", lambda: os.stat(tmp_path).st_uid + 1)

    assert not folder_for(environment).startswith(str(tmp_path))
