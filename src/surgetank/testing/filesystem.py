"""A file system in memory that forgets what was not synced, tears writes, and fails or stops at any call on order.

Owns: its files, twice: as the processes see them, and as the disk would have them after the loss of power.
Threads: single-threaded tests.
Invariants: what was synced is never lost; `tests/contracts` holds it to the same contract as the operating system's.

    filesystem = MemoryFilesystem()
    filesystem.faults.append(Fault("write", error=errno.ENOSPC, times=3))   # the next three writes fail
    filesystem.stop_at = 17                                                  # the seventeenth call stops the process
    filesystem.die()                                                         # as `kill -9`: locks are dropped
    filesystem.lose_power(random.Random(1))                                  # only what was synced is sure to be left
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from surgetank.spool.filesystem import File

_SECTOR = 512


class Stopped(BaseException):
    """The process stops here, in the middle of whatever it was doing. Not an `Exception`, so that nothing survives it."""


@dataclass(slots=True)
class Fault:
    """A refusal on order."""

    operation: str
    """`write`, `sync`, `create`, `open`, `read`, `rename`, `unlink`, `truncate`, `make_folder`, `names`, or `*`."""
    error: int = errno.EIO
    """The error's number."""
    times: int = 1
    """How often; -1 for ever."""
    path: str = ""
    """Only where the path ends with this."""
    torn: float = 0.0
    """Of a write, the share that is written all the same."""


@dataclass(slots=True, eq=False)
class _Inode:
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """What was done since the last sync: writes (offset, bytes) and truncations (size)."""
    locked_by: object | None = None


class MemoryFilesystem:
    """A disk and its cache."""

    def __init__(self) -> None:
        self.files: dict[str, _Inode] = {}
        self.folders: set[str] = {"/"}
        self.faults: list[Fault] = []
        self.free = 1 << 40
        self.calls: list[str] = []
        """The names of the calls that change something, in order: the points where a process may stop."""
        self.stop_at: int | None = None
        """The number of such a call, counted from 1, before (or, for a write, in the middle of) which to stop."""
        self._synced_names: dict[str, _Inode] = {}
        self._open: list[MemoryFile] = []

    def die(self) -> None:
        """Let the process die: its files are closed and its locks dropped; what it wrote is in the cache."""
        for file in list(self._open):
            file.close()
        self.stop_at = None

    def lose_power(self, rng: random.Random) -> None:
        """Let everything be as after the loss of power: of what was not synced, any part may be there, and torn."""
        self.die()
        names = dict(self._synced_names)
        # Names that were not synced may have come through, or not; so may removals.
        for path, inode in self.files.items():
            if path not in names and rng.random() < 0.5:
                names[path] = inode
        for path in [path for path in names if path not in self.files]:
            if rng.random() < 0.5:
                del names[path]
        self.files = names
        for inode in set(names.values()):
            inode.data = bytearray(inode.synced)
            for change in inode.pending:
                _replay_some(inode.data, change, rng)
            inode.synced, inode.pending = bytes(inode.data), []
        self._synced_names = dict(names)

    def make_folder(self, path: str) -> None:
        """Make a folder and what is missing above it."""
        self._point("make_folder", path)
        if path in self.files:
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", path)
        parts = PurePosixPath(path)
        self.folders.update(str(parent) for parent in [parts, *parts.parents])

    def names(self, path: str) -> list[str]:
        """List a folder."""
        self._fail("names", path)
        if path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        prefix = path.rstrip("/") + "/"
        inside = {each[len(prefix) :].split("/")[0] for each in [*self.files, *self.folders] if each.startswith(prefix)}
        return sorted(inside - {""})

    def create(self, path: str) -> File:
        """Make a file."""
        self._point("create", path)
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "exists", path)
        if str(PurePosixPath(path).parent) not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        self.files[path] = inode = _Inode()
        return self._opened(path, inode)

    def open(self, path: str, *, writable: bool = True) -> File:
        """Open a file."""
        self._fail("open", path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self._opened(path, self.files[path])

    def size_of(self, path: str) -> int:
        """Return a length."""
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return len(self.files[path].data)

    def rename(self, old: str, new: str) -> None:
        """Move a file or a folder with what is in it."""
        self._point("rename", old)
        if old in self.files:
            self.files[new] = self.files.pop(old)
            return
        if old not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", old)
        # Renaming is atomic and, as journals have it, seldom lost; a folder's content goes with it.
        for names in (self.files, self._synced_names):
            for path in [path for path in names if path.startswith(old + "/")]:
                names[new + path[len(old) :]] = names.pop(path)
        self.folders = {
            new + each[len(old) :] if each == old or each.startswith(old + "/") else each for each in self.folders
        }

    def unlink(self, path: str) -> None:
        """Remove a name."""
        self._point("unlink", path)
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        del self.files[path]

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        self._point("remove_folder", path)
        if path not in self.folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder", path)
        if self.names(path):
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        self.folders.discard(path)

    def sync_folder(self, path: str) -> None:
        """Have the names in a folder survive the loss of power."""
        self._point("sync_folder", path)
        inside = {each: inode for each, inode in self.files.items() if str(PurePosixPath(each).parent) == path}
        for gone in [each for each in self._synced_names if str(PurePosixPath(each).parent) == path]:
            del self._synced_names[gone]
        self._synced_names.update(inside)

    def free_bytes(self, path: str) -> int:
        """Return `free`."""
        return self.free

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Damage one byte."""
        self.files[path].data[offset] ^= mask

    def _opened(self, path: str, inode: _Inode) -> File:
        file = MemoryFile(self, path, inode)
        self._open.append(file)
        return file

    def _point(self, operation: str, path: str) -> None:
        """Note a call that changes something: here the process may stop, or the call may fail."""
        self.calls.append(operation)
        if self.stop_at is not None and len(self.calls) >= self.stop_at:
            raise Stopped(operation)
        self._fail(operation, path)

    def _fail(self, operation: str, path: str) -> None:
        fault = self._fault(operation, path)
        if fault is not None:
            raise OSError(fault.error, os.strerror(fault.error), path)

    def _fault(self, operation: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.operation in (operation, "*") and path.endswith(fault.path) and fault.times:
                fault.times -= 1
                return fault
        return None


class MemoryFile:
    """An open file of a `MemoryFilesystem`."""

    def __init__(self, filesystem: MemoryFilesystem, path: str, inode: _Inode) -> None:
        self._filesystem = filesystem
        self._path = path
        self._inode = inode

    def read_at(self, offset: int, size: int) -> bytes:
        """Read from the cache."""
        self._filesystem._fail("read", self._path)
        return bytes(self._inode.data[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:
        """Write to the cache."""
        filesystem = self._filesystem
        filesystem.calls.append("write")
        if filesystem.stop_at is not None and len(filesystem.calls) >= filesystem.stop_at:
            # A process that is killed in a write has written some of it.
            self._put(offset, data[: len(data) // 2])
            raise Stopped("write")
        fault = filesystem._fault("write", self._path)
        if fault is not None:
            self._put(offset, data[: int(len(data) * fault.torn)])
            raise OSError(fault.error, os.strerror(fault.error), self._path)
        # What is there already is written over in place.
        growth = max(0, offset + len(data) - len(self._inode.data))
        if growth > filesystem.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self._path)
        self._put(offset, data)

    def truncate(self, size: int) -> None:
        """Cut the cached file."""
        self._filesystem._point("truncate", self._path)
        del self._inode.data[size:]
        self._inode.pending.append(size)

    def size(self) -> int:
        """Return the cached length."""
        return len(self._inode.data)

    def sync(self) -> None:
        """Have the content survive the loss of power."""
        self._filesystem.calls.append("sync")
        if self._filesystem.stop_at is not None and len(self._filesystem.calls) >= self._filesystem.stop_at:
            raise Stopped("sync")
        fault = self._filesystem._fault("sync", self._path)
        if fault is not None:
            # The kernel gives up on the pages and calls them clean: the next sync will say that all is well.
            self._inode.pending = []
            raise OSError(fault.error, os.strerror(fault.error), self._path)
        self._inode.synced, self._inode.pending = bytes(self._inode.data), []

    def try_lock(self) -> bool:
        """Take the lock."""
        if self._inode.locked_by not in (None, self):
            return False
        self._inode.locked_by = self
        return True

    def is_at(self, path: str) -> bool:
        """Compare identities."""
        return self._filesystem.files.get(path) is self._inode

    def close(self) -> None:
        """Close it and drop its lock."""
        if self._inode.locked_by is self:
            self._inode.locked_by = None
        if self in self._filesystem._open:
            self._filesystem._open.remove(self)

    def forget(self) -> None:
        """The parent's file, and its lock, stay as they are."""

    def _put(self, offset: int, data: bytes) -> None:
        content = self._inode.data
        if len(content) < offset:
            content.extend(bytes(offset - len(content)))
        content[offset : offset + len(data)] = data
        self._inode.pending.append((offset, data))


def _replay_some(content: bytearray, change: tuple[int, bytes] | int, rng: random.Random) -> None:
    """Do one change that was not synced: wholly, not at all, or some of its sectors."""
    if isinstance(change, int):
        if rng.random() < 0.5:
            del content[change:]
        return
    offset, data = change
    share = rng.choice((0.0, 0.5, 1.0))
    for start in range(0, len(data), _SECTOR):
        if rng.random() >= share:
            continue
        part = data[start : start + _SECTOR]
        if len(content) < offset + start:
            content.extend(bytes(offset + start - len(content)))
        content[offset + start : offset + start + len(part)] = part
