"""The file by which other programs on the host see a tank: what it holds, where it sends, how it fares, as of the last second.

Owns: one small file per tank, locked for as long as the tank lives.
Threads: `announce`, `publish` and `withdraw` from one at a time; reading from any process.
Invariants: nothing here raises into the application or syncs, and nobody but its own thread waits for the folder, except
who makes a tank; a file without its lock belongs to a process that is gone; what is read is whole, or it is not returned.

It is a file and not a socket so that it can be read whatever the process is doing, needs no thread to answer and no port,
and outlives nobody: the kernel drops the lock with the process. It says nothing that a log line would not: no header, no
credential, no telemetry.

    A line `surgetank-status 1 <length> <crc32>`, then one of JSON.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final

from surgetank.config import Environment
from surgetank.driver import Loop
from surgetank.model import FOREVER, Clock
from surgetank.spool.filesystem import HAS_LOCKS, File, Filesystem, OsFilesystem

VERSION: Final = 1
PERIOD: Final = 1.0
"""Seconds between two writings while anything changes …"""
IDLE_PERIOD: Final = 60.0
"""… and when nothing has for a while, unless woken."""
_STEADY: Final = 5
# What moves on any host all the time, whatever the tank does: no reason to write.
_RESTLESS: Final = frozenset({"memory", "pressure"})
_MAGIC: Final = b"surgetank-status"
_SUFFIX: Final = ".status"
# No tank has as much to say; whoever plants a larger file shall not fill the reader's memory.
_LARGEST: Final = 256 * 1024
# Likewise for files, in one folder, and for folders of other users.
_MOST_FILES: Final = 1000
_MOST_FOLDERS: Final = 100
# A reader may come between two bytes of a writing.
_LOOKS: Final = 3
# Who removes files from that folder shall not be fought.
_MOST_REPLACEMENTS: Final = 3
_NAME: Final = "surgetank"


def folder_for(environment: Environment) -> str | None:
    """
    Return the folder of the status files; None where they are switched off.

    `SURGETANK_STATUS_DIR`, else `$XDG_RUNTIME_DIR/surgetank` where that is the user's own, else `surgetank-<user id>` in the folder for temporary files.
    """
    if environment.flag("SURGETANK_STATUS_ENABLED") is False:
        return None
    named = environment.text("SURGETANK_STATUS_DIR")
    if named is not None:
        return os.path.abspath(os.path.expanduser(named))
    runtime = environment.text("XDG_RUNTIME_DIR")
    if runtime is not None and os.path.isabs(runtime) and _is_own(runtime):
        return os.path.join(runtime, _NAME)
    return os.path.join(_temporary(environment), f"{_NAME}-{_user()}")


def _is_own(folder: str) -> bool:
    # Who has become root keeps the variable: what root made in there would lock its owner out.
    try:
        found = os.stat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


def folders_on_host(environment: Environment) -> list[str]:
    """Return the folders that status files may be in: our own, and, as far as we may read them, other users'."""
    own = folder_for(environment)
    found = [own] if own is not None else []
    if environment.text("SURGETANK_STATUS_DIR") is None:
        found += [os.path.join("/run/user", name, _NAME) for name in _names("/run/user")[:_MOST_FOLDERS]]
        shared = _temporary(environment)
        names = [name for name in _names(shared) if name.startswith(f"{_NAME}-")]
        found += [os.path.join(shared, name) for name in names[:_MOST_FOLDERS]]
    return list(dict.fromkeys(found))


def _names(path: str) -> list[str]:
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def _temporary(environment: Environment) -> str:
    # Not by `tempfile`, whose import takes milliseconds: where there are locks, this is what it comes to.
    return environment.text("TMPDIR") or "/tmp"  # noqa: S108  # The folder in it is the user's own, and is checked to be.


def _user() -> str:
    # Windows has no numbers for users, and a folder for temporary files for each.
    return str(os.geteuid()) if hasattr(os, "geteuid") else "user"


class Presence:
    """
    One tank's status file.

    Args:
        folder: Where it is; None for nowhere.
        describe: Returns what is to be said, as JSON has it.
        clock: Time.
        is_threaded: False: somebody calls `step`.
        filesystem: The way to the disk; for tests.
    """

    def __init__(
        self,
        folder: str | None,
        describe: Callable[[], Mapping[str, Any]],
        clock: Clock,
        *,
        is_threaded: bool = True,
        filesystem: Filesystem | None = None,
    ) -> None:
        self._folder = folder
        self._describe = describe
        self._clock = clock
        self._filesystem = filesystem or OsFilesystem()
        self._file: File | None = None
        self._path = ""
        self._is_off = folder is None or not HAS_LOCKS
        self._replacements = 0
        self._said: Mapping[str, Any] = {}
        self._steady = 0
        self._is_awake = False
        """Whether it looks every second anyway."""
        self.loop = Loop("surgetank-status", self.step, nullcontext, is_threaded=is_threaded)
        """Steps it; woken when there is something to see."""

    def wake(self) -> None:
        """Have it published from now on, until nothing changes any more. Cheap: it is called for every sealed batch."""
        if self._is_off or self._is_awake:
            return
        self._steady = 0
        self.loop.wake()
        self._is_awake = not self.loop.is_to_be_started_again

    def step(self) -> float:
        """Publish, and return the seconds until it is worth while again."""
        self.announce()
        before = self._said
        self.publish()
        if self._is_off:
            return FOREVER
        self._steady = self._steady + 1 if _news(self._said) == _news(before) else 0
        self._is_awake = self._steady < _STEADY
        return PERIOD if self._is_awake else IDLE_PERIOD

    def announce(self) -> None:
        """Make the file, unless there is one or none is wanted. Where it cannot be made, none is tried again in this process."""
        if self._file is not None or self._is_off or self._folder is None:
            return
        try:
            self._filesystem.make_folder(self._folder)
            self._sweep(self._folder)
            self._file, self._path = self._create(self._folder)
            self._file.try_lock()
        except OSError:
            # A full or foreign folder: nobody sees this process, and it is none the worse for it.
            self.withdraw()
            self._is_off = True
            return
        self.publish()

    def publish(self) -> None:
        """Write what there is to be said."""
        file = self._file
        if file is None:
            return
        try:
            self._said = self._describe()
            body = json.dumps({**self._said, "written_at": self._clock.now()}, separators=(",", ":")).encode() + b"\n"
            head = b"%s %d %d %08x\n" % (_MAGIC, VERSION, len(body), zlib.crc32(body))
            if file.is_at(self._path):
                file.write_at(0, head + body)
            else:
                self._lose()
        except Exception:
            # The disk is full, or the host has no name; the next writing may go through.
            pass

    def _lose(self) -> None:
        """Let go of a file that is not at its place any more; the next step makes another."""
        if self._file is not None:
            self._file.close()
        self._file = None
        self._replacements += 1
        self._is_off = self._replacements > _MOST_REPLACEMENTS

    def stop(self) -> None:
        """Have the loop remove the file and end; does not wait for it."""
        # On its thread: the folder may hang.
        self.loop.stop(None if self._is_off else self.withdraw)

    def end(self, timeout: float) -> None:
        """Wait until that is done, at most `timeout` seconds; where no thread can be had, it is done here."""
        self.loop.end(timeout, lambda _: True)

    def withdraw(self) -> None:
        """Remove the file."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if file.is_at(self._path):
                self._filesystem.unlink(self._path)
        except OSError:
            pass  # Whoever reads it will find that it is nobody's.
        file.close()

    def after_fork_in_child(self) -> None:
        """Leave the parent's file to the parent; one of our own is made when there is something to see."""
        self.loop.reset()
        self._is_awake = False
        file, self._file = self._file, None
        if file is not None:
            file.forget()

    def _create(self, folder: str) -> tuple[File, str]:
        number = 0
        while True:
            path = os.path.join(folder, f"{os.getpid()}-{number}{_SUFFIX}")
            try:
                return self._filesystem.create(path), path
            except FileExistsError:
                # Another tank's of this process, or that of a process in another container that shares the folder.
                number += 1
                if number > 1000:
                    raise

    def _sweep(self, folder: str) -> None:
        """Remove what dead processes have left."""
        for name in self._filesystem.names(folder):
            path = os.path.join(folder, name)
            if not name.endswith(_SUFFIX):
                continue
            try:
                file = self._filesystem.open(path)
            except OSError:
                continue  # Another user's, or somebody was quicker.
            try:
                # An empty one is being made; asking for its lock could keep its owner from it.
                if file.size() > 0 and not file.is_locked():
                    self._filesystem.unlink(path)
            except OSError:
                pass  # It may be a living process's: there may be no locks here.
            finally:
                file.close()


def _news(said: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if name not in _RESTLESS}


@dataclass(frozen=True, slots=True)
class Sighting:
    """A tank that was seen."""

    path: str
    is_alive: bool
    """Whether its process still has it."""
    said: Mapping[str, Any]
    """What it said last; empty where the version is not ours."""
    version: int = VERSION
    """The version of what it said."""


def sightings(folders: list[str], filesystem: Filesystem | None = None) -> Iterator[Sighting]:
    """
    Read the status files in these folders; those that cannot be read, or are not whole, are passed over.

    Changes nothing. What is said is as it was found: of any type, and by whoever may write there.
    """
    filesystem = filesystem or OsFilesystem()
    for folder in folders:
        try:
            names = sorted(filesystem.names(folder))
        except OSError:
            continue
        for name in [name for name in names if name.endswith(_SUFFIX)][:_MOST_FILES]:
            found = _sight(filesystem, os.path.join(folder, name))
            if found is not None:
                yield found


def _sight(filesystem: Filesystem, path: str) -> Sighting | None:
    try:
        file = filesystem.open(path, writable=False)
    except OSError:
        return None
    try:
        for _ in range(_LOOKS):
            parsed = _parsed(file.read_at(0, _LARGEST))
            if parsed is not None:
                version, said = parsed
                return Sighting(path, file.is_locked(), said, version)
    except OSError:
        pass
    finally:
        file.close()
    return None


def _parsed(data: bytes) -> tuple[int, Mapping[str, Any]] | None:
    """Return version and content; None for what is not whole."""
    head, _, rest = data.partition(b"\n")
    words = head.split()
    try:
        magic, version = words[0], int(words[1])
        if magic != _MAGIC:
            return None
        if version != VERSION:
            return version, {}
        length, checksum = int(words[2]), int(words[3], 16)
        body = rest[:length]
        if len(body) != length or zlib.crc32(body) != checksum:
            return None
        said = json.loads(body)
    except (ValueError, IndexError, RecursionError):
        return None
    return (version, said) if isinstance(said, dict) else None


def service_name(environment: Environment) -> str:
    """Return what the application calls itself; empty where it does not say."""
    return environment.service_name()


def command() -> str:
    """Return what this process is called in a list: the program's name without its arguments, which may hold secrets."""
    # Whoever embeds an interpreter may have set neither, or something else.
    arguments = getattr(sys, "argv", None)
    path = arguments[0] if arguments and isinstance(arguments[0], str) else ""
    if os.path.basename(path) == "__main__.py":
        path = os.path.dirname(path)
    # `-c` and `-m` stand there while their program is being read.
    return os.path.basename(path if path and not path.startswith("-") else sys.executable or "")[:80]
