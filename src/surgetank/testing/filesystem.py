"""A file system in memory that forgets what was not synced, tears writes, and fails, hangs or stops at any call on order.

Owns: its files, twice: as the processes see them, and as the disk would have them after the loss of power.
Threads: one at a time, as the folder's lock has it.
Invariants: what was synced is never lost, and what a failed sync gave up is never written; `tests/contracts`
holds it to the same contract as the operating system's.

    filesystem = MemoryFilesystem()
    filesystem.faults.append(Fault("write", error=errno.ENOSPC, times=3))   # the next three writes fail
    filesystem.hangs.append(hang := Hang("sync"))                            # the next sync waits for `hang.released`
    filesystem.stop_at = 17                                                  # the seventeenth call stops the process
    filesystem.die()                                                         # as `kill -9`: locks are dropped
    filesystem.lose_power(random.Random(1))                                  # only what was synced is sure to be left
    sibling = filesystem.process()                                           # the same disk, seen by another process
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

from surgetank.spool.filesystem import File
from surgetank.threads import Gate

_SECTOR = 512
# A test that forgets to release a call gets it back after so long (seconds).
_HANG_MAX = 60.0


class Stopped(BaseException):
    """The process stops here, in the middle of whatever it was doing. Not an `Exception`, so that nothing survives it."""


@dataclass(slots=True)
class Fault:
    """A refusal on order."""

    operation: str
    """`write`, `sync`, `sync_folder`, `create`, `open`, `read`, `rename`, `unlink`, `truncate`, `make_folder`,
    `remove_folder`, `names`, `lock`, `lstat`, or `*`."""
    error: int = errno.EIO
    """The error's number."""
    times: int = 1
    """How often; -1 for ever."""
    path: str = ""
    """Only where the path ends with this."""
    torn: float = 0.0
    """Of a write, the share that is written all the same."""


@dataclass(slots=True, eq=False)
class Hang:
    """A call that does not come back until it is released, as on a network disk that is gone; then it is done."""

    operation: str
    """As a fault's."""
    path: str = ""
    """Only where the path ends with this."""
    reached: Gate = field(default_factory=Gate)
    """Opened when somebody hangs."""
    released: Gate = field(default_factory=Gate)
    """To be opened."""


@dataclass(slots=True, eq=False)
class _Inode:
    data: bytearray = field(default_factory=bytearray)
    synced: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, bytes] | int] = field(default_factory=list)
    """What was done since the last sync: writes (offset, bytes) and truncations (size)."""
    locked_by: _Description | None = None


@dataclass(slots=True, eq=False)
class _Change:
    """Of a folder's names, since it was synced: something was made (no old name), renamed, or removed (no new one)."""

    node: _Inode | _Folder
    new: str | None

    def apply(self, entries: dict[str, _Inode | _Folder]) -> None:
        # A rename is atomic: at no time are there two names, or none.
        for name in [name for name, node in entries.items() if node is self.node]:
            del entries[name]
        if self.new is not None:
            entries[self.new] = self.node


@dataclass(slots=True, eq=False)
class _Folder:
    entries: dict[str, _Inode | _Folder] = field(default_factory=dict)
    synced: dict[str, _Inode | _Folder] = field(default_factory=dict)
    pending: list[_Change] = field(default_factory=list)

    def change(self, node: _Inode | _Folder, new: str | None) -> None:
        change = _Change(node, new)
        change.apply(self.entries)
        self.pending.append(change)

    def sync(self) -> None:
        for change in self.pending:
            change.apply(self.synced)
        self.pending = []

    def lose_power(self, rng: random.Random) -> None:
        for change in self.pending:
            if rng.random() < 0.5:
                change.apply(self.synced)
        self.entries, self.pending = dict(self.synced), []
        for node in self.entries.values():
            if isinstance(node, _Folder):
                node.lose_power(rng)
                continue
            node.locked_by = None
            for done in node.pending:
                _replay_some(node.synced, done, rng)
            node.data, node.pending = bytearray(node.synced), []


@dataclass(slots=True, eq=False)
class _Description:
    """What an `open` makes and a fork shares; the lock is its, not the descriptor's."""

    inode: _Inode
    is_writable: bool
    descriptors: int = 1


class _Disk:
    """What all processes share."""

    def __init__(self) -> None:
        self.root = _Folder()
        self.faults: list[Fault] = []
        self.hangs: list[Hang] = []
        self.free = 1 << 40
        self.open: list[MemoryFile] = []


class _Files(MutableMapping[str, _Inode]):
    """All files by path; for tests that look at them, or meddle with them, behind the processes' backs."""

    def __init__(self, root: _Folder) -> None:
        self._root = root

    def __getitem__(self, path: str) -> _Inode:
        folder, name = _walk(self._root, path)
        node = None if folder is None else folder.entries.get(name)
        if not isinstance(node, _Inode):
            raise KeyError(path)
        return node

    def __setitem__(self, path: str, inode: _Inode) -> None:
        folder, name = _walk(self._root, path)
        if folder is None:
            raise KeyError(path)
        folder.entries[name] = folder.synced[name] = inode

    def __delitem__(self, path: str) -> None:
        inode = self[path]
        folder, _ = _walk(self._root, path)
        assert folder is not None
        change = _Change(inode, None)
        change.apply(folder.entries)
        change.apply(folder.synced)

    def __iter__(self) -> Iterator[str]:
        return _paths(self._root, "")

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _paths(folder: _Folder, prefix: str) -> Iterator[str]:
    for name, node in list(folder.entries.items()):
        if isinstance(node, _Folder):
            yield from _paths(node, f"{prefix}/{name}")
        else:
            yield f"{prefix}/{name}"


def _walk(root: _Folder, path: str) -> tuple[_Folder | None, str]:
    """Return the folder that a path's last name is in, if there is one, and that name."""
    *parents, name = path.strip("/").split("/")
    folder = root
    for each in parents:
        node = folder.entries.get(each)
        if not isinstance(node, _Folder):
            return None, name
        folder = node
    return folder, name


class MemoryFilesystem:
    """A disk and its cache, as one process sees them."""

    def __init__(self, disk: _Disk | None = None) -> None:
        self._disk = _Disk() if disk is None else disk
        self.files = _Files(self._disk.root)
        self.faults = self._disk.faults
        self.hangs = self._disk.hangs
        self.calls: list[str] = []
        """The names of this process's calls that change something, in order: the points where it may stop."""
        self.stop_at: int | None = None
        """The number of such a call, counted from 1, before (or, for a write, in the middle of) which to stop."""

    @property
    def free(self) -> int:
        """Bytes by which a write may make a file longer."""
        return self._disk.free

    @free.setter
    def free(self, size: int) -> None:
        self._disk.free = size

    def process(self) -> MemoryFilesystem:
        """Return the same disk as another process sees it, with its own open files and its own end."""
        return MemoryFilesystem(self._disk)

    def die(self) -> None:
        """Let the process die: its files are closed and its locks dropped; what it wrote is in the cache."""
        for file in [file for file in self._disk.open if file._filesystem is self]:
            file.close()
        self.stop_at = None

    def lose_power(self, rng: random.Random) -> None:
        """Let everything be as after the loss of power: of what was not synced, any part may be there, and torn."""
        for file in list(self._disk.open):
            file.close()
        self.stop_at = None
        self._disk.root.lose_power(rng)

    def make_folder(self, path: str) -> None:
        """Make a folder and what is missing above it."""
        self._point("make_folder", path)
        folder = self._disk.root
        for name in path.strip("/").split("/"):
            node = folder.entries.get(name)
            if node is None:
                node = _Folder()
                folder.change(node, name)
            if not isinstance(node, _Folder):
                raise _error(errno.ENOTDIR, path)
            folder = node

    def close_to_others(self, path: str) -> bool:
        """Return False: there is nobody else here."""
        self._folder(path)
        return False

    def names(self, path: str) -> list[str]:
        """List a folder."""
        self._fail("names", path)
        return sorted(self._folder(path).entries)

    def create(self, path: str) -> File:
        """Make a file."""
        self._point("create", path)
        folder, name = self._parent(path)
        if name in folder.entries:
            raise _error(errno.EEXIST, path)
        inode = _Inode()
        folder.change(inode, name)
        return self._opened(path, inode, is_writable=True)

    def open(self, path: str, *, writable: bool = True) -> File:
        """Open a file."""
        self._fail("open", path)
        return self._opened(path, self._inode(path), is_writable=writable)

    def size_of(self, path: str) -> int:
        """Return a length."""
        return len(self._inode(path).data)

    def rename(self, old: str, new: str) -> None:
        """Move a file or a folder with what is in it; open files stay open."""
        self._point("rename", old)
        (source, name), (target, new_name) = self._parent(old), self._parent(new)
        node, there = source.entries.get(name), target.entries.get(new_name)
        if node is None:
            raise _error(errno.ENOENT, old)
        if node is there:
            return
        if isinstance(node, _Folder) and isinstance(there, _Inode):
            raise _error(errno.ENOTDIR, new)
        if isinstance(there, _Folder) and isinstance(node, _Inode):
            raise _error(errno.EISDIR, new)
        if isinstance(there, _Folder) and there.entries:
            raise _error(errno.ENOTEMPTY, new)
        if source is not target:
            # Across folders, power may take either half: nothing of ours does that.
            source.change(node, None)
        target.change(node, new_name)

    def unlink(self, path: str) -> None:
        """Remove a name; who has the file open keeps it."""
        self._point("unlink", path)
        inode = self._inode(path)
        self._parent(path)[0].change(inode, None)

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder."""
        self._point("remove_folder", path)
        folder = self._folder(path)
        if folder.entries:
            raise _error(errno.ENOTEMPTY, path)
        self._parent(path)[0].change(folder, None)

    def sync_folder(self, path: str) -> None:
        """Have the names in a folder survive the loss of power, if its own does."""
        self._point("sync_folder", path)
        self._folder(path).sync()

    def free_bytes(self, path: str) -> int:
        """Return `free`."""
        self._fail("free_bytes", path)
        self._folder(path)
        return self._disk.free

    def flip(self, path: str, offset: int, mask: int = 1) -> None:
        """Damage one byte, in the cache and on the disk."""
        inode = self.files[path]
        inode.data[offset] ^= mask
        if offset < len(inode.synced):
            inode.synced[offset] ^= mask

    def _parent(self, path: str) -> tuple[_Folder, str]:
        folder, name = _walk(self._disk.root, path)
        if folder is None:
            raise _error(errno.ENOENT, path)
        return folder, name

    def _folder(self, path: str) -> _Folder:
        if not path.strip("/"):
            return self._disk.root
        folder, name = self._parent(path)
        node = folder.entries.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(node, _Folder):
            raise _error(errno.ENOTDIR, path)
        return node

    def _inode(self, path: str) -> _Inode:
        folder, name = self._parent(path)
        node = folder.entries.get(name)
        if node is None:
            raise _error(errno.ENOENT, path)
        if not isinstance(node, _Inode):
            raise _error(errno.EISDIR, path)
        return node

    def _opened(self, path: str, inode: _Inode, *, is_writable: bool) -> MemoryFile:
        return MemoryFile(self, path, _Description(inode, is_writable))

    def _point(self, operation: str, path: str) -> None:
        """Note a call that changes something: here the process may stop, or the call may fail."""
        self._stop(operation)
        self._fail(operation, path)

    def _stop(self, operation: str) -> None:
        self.calls.append(operation)
        if self.stop_at is not None and len(self.calls) >= self.stop_at:
            raise Stopped(operation)

    def _fail(self, operation: str, path: str) -> None:
        fault = self._fault(operation, path)
        if fault is not None:
            raise _error(fault.error, path)

    def _fault(self, operation: str, path: str) -> Fault | None:
        for hang in self.hangs:
            if hang.operation in (operation, "*") and path.endswith(hang.path):
                hang.reached.open()
                hang.released.wait(_HANG_MAX)
        for fault in self.faults:
            if fault.operation in (operation, "*") and path.endswith(fault.path) and fault.times:
                fault.times -= 1
                return fault
        return None


class MemoryFile:
    """An open file of a `MemoryFilesystem`: a process's descriptor."""

    def __init__(self, filesystem: MemoryFilesystem, path: str, description: _Description) -> None:
        self._filesystem = filesystem
        self._path = path
        self._description = description
        self._is_open = True
        filesystem._disk.open.append(self)

    def __deepcopy__(self, memo: dict[int, object]) -> MemoryFile:
        """Return what a forked child has: a descriptor of its own for the same open file, and so for the same lock."""
        child = memo[id(self._filesystem)]
        assert isinstance(child, MemoryFilesystem)
        copy = MemoryFile(child, self._path, self._description)
        self._description.descriptors += 1
        if not self._is_open:
            copy.close()
        return copy

    def read_at(self, offset: int, size: int) -> bytes:
        """Read from the cache."""
        inode = self._checked()
        self._filesystem._fail("read", self._path)
        return bytes(inode.data[offset : offset + size])

    def write_at(self, offset: int, data: bytes) -> None:
        """Write to the cache."""
        inode = self._checked(is_to_write=True)
        try:
            self._filesystem._stop("write")
        except Stopped:
            # A process that is killed in a write has written some of it.
            _put(inode, offset, data[: len(data) // 2])
            raise
        fault = self._filesystem._fault("write", self._path)
        if fault is not None:
            _put(inode, offset, data[: int(len(data) * fault.torn)])
            raise _error(fault.error, self._path)
        # What is there already is written over in place.
        growth = max(0, offset + len(data) - len(inode.data))
        if growth > self._filesystem.free:
            raise _error(errno.ENOSPC, self._path)
        _put(inode, offset, data)

    def truncate(self, size: int) -> None:
        """Cut the cached file, or make it longer with zeroes."""
        inode = self._checked(is_to_write=True)
        self._filesystem._point("truncate", self._path)
        _cut(inode.data, size)
        inode.pending.append(size)

    def size(self) -> int:
        """Return the cached length."""
        return len(self._checked().data)

    def sync(self) -> None:
        """Have the content survive the loss of power."""
        inode = self._checked()
        self._filesystem._stop("sync")
        fault = self._filesystem._fault("sync", self._path)
        if fault is not None:
            # The kernel gives up on the pages and calls them clean: the next sync will say that all is well.
            inode.pending = []
            raise _error(fault.error, self._path)
        for change in inode.pending:
            _replay(inode.synced, change)
        inode.pending = []

    def try_lock(self) -> bool:
        """Take the lock."""
        inode = self._checked()
        self._filesystem._fail("lock", self._path)
        if inode.locked_by not in (None, self._description):
            return False
        inode.locked_by = self._description
        return True

    def is_locked(self) -> bool:
        """Look at the lock."""
        inode = self._checked()
        self._filesystem._fail("lock", self._path)
        return inode.locked_by not in (None, self._description)

    def is_at(self, path: str) -> bool:
        """Compare identities."""
        if not self._is_open:
            return False
        self._filesystem._fail("lstat", path)
        return self._filesystem.files.get(path) is self._description.inode

    def is_lost(self) -> bool:
        """Whether it was closed, by whomever."""
        return not self._is_open

    def close(self) -> None:
        """Close it once; the last descriptor drops the lock."""
        if not self._is_open:
            return
        self._is_open = False
        self._filesystem._disk.open.remove(self)
        description = self._description
        description.descriptors -= 1
        if not description.descriptors and description.inode.locked_by is description:
            description.inode.locked_by = None

    # As with the operating system's: the copy goes, the parent keeps its own and the lock.
    forget = close

    def _checked(self, *, is_to_write: bool = False) -> _Inode:
        if not self._is_open or (is_to_write and not self._description.is_writable):
            raise _error(errno.EBADF, self._path)
        return self._description.inode


def _error(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)


def _put(inode: _Inode, offset: int, data: bytes) -> None:
    _write(inode.data, offset, data)
    inode.pending.append((offset, bytes(data)))


def _write(content: bytearray, offset: int, data: bytes) -> None:
    if data and len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _cut(content: bytearray, size: int) -> None:
    del content[size:]
    content.extend(bytes(size - len(content)))


def _replay(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        _cut(content, change)
    else:
        _write(content, *change)


def _replay_some(content: bytearray, change: tuple[int, bytes] | int, rng: random.Random) -> None:
    """Do one change that was not synced: wholly, not at all, or some of its sectors."""
    if isinstance(change, int):
        if rng.random() < 0.5:
            _cut(content, change)
        return
    offset, data = change
    share = rng.choice((0.0, 0.5, 1.0))
    start = 0
    while start < len(data):
        # A sector is written whole or not at all, wherever in it the write began.
        end = min(len(data), start + _SECTOR - (offset + start) % _SECTOR)
        if rng.random() < share:
            _write(content, offset + start, data[start:end])
        start = end
