"""Defects that the status files had: each test failed once."""

import json
import os
import threading
import zlib

import pytest

from surgetank.presence import Presence, sightings
from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing import ManualClock


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
