"""The file-system seam, and the operating system behind it; nothing else in `spool/` touches a file.

Owns: no state. Threads: any, but one at a time per file.
Invariants: folders are the user's own and closed to others (0700), files likewise (0600); no symbolic link is
followed in either; a write is whole or an OSError; a lock is dropped by the kernel when its holder dies.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from typing import Final, Protocol

try:
    import fcntl
except ImportError:  # pragma: no cover  # Windows has no such locks; the spool says so and stays off.
    fcntl = None  # type: ignore[assignment]

HAS_LOCKS: Final = fcntl is not None

_FOLDER_MODE: Final = 0o700
_FILE_MODE: Final = 0o600
_FOLDER_FLAGS: Final = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
_FLAGS: Final = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
# Whoever only reads may come upon a pipe that somebody has planted, and shall not wait until it is written to.
_READ_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
)


class File(Protocol):
    """An open file."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes; fewer only at the file's end. Raises OSError."""

    def write_at(self, offset: int, data: bytes) -> None:
        """Write all of it. Raises OSError, and part of it may then be there."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes. Raises OSError."""

    def size(self) -> int:
        """Return the length in bytes. Raises OSError."""

    def sync(self) -> None:
        """Have it survive the loss of power. Raises OSError; nothing can then be said of what was written."""

    def try_lock(self) -> bool:
        """Take the exclusive lock, or return False when a living process has it. Raises OSError."""

    def is_locked(self) -> bool:
        """Whether somebody else has the exclusive lock; leaves everything as it is. Not for its holder. Raises OSError."""

    def is_at(self, path: str) -> bool:
        """
        Whether the path still names this very file, and the file is still open here.

        False only when that is certain: the name is gone, or is another file's. Raises OSError when it cannot be told.
        """

    def is_lost(self) -> bool:
        """Whether the application has closed the descriptor, as daemons close all; its number may be another file's by now."""

    def close(self) -> None:
        """Let go of it, and with it of its lock; nothing happens to a file that is not ours any more."""

    def forget(self) -> None:
        """Close the inherited descriptor in a forked child; the parent's lock stays the parent's."""


class Filesystem(Protocol):
    """
    What a spool asks of a file system.

    The seam exists so that tests can fail any call, tear any write and forget what was not synced. A
    fake must keep what was synced, whatever happens.
    """

    def make_folder(self, path: str) -> None:
        """Make a folder, and what is missing above it; accept one that is there if it is ours and closed to others. Raises OSError."""

    def close_to_others(self, path: str) -> bool:
        """Give a folder that others can enter mode 0700, if it is ours and no temporary one of all users; return whether that was done. Raises OSError."""

    def names(self, path: str) -> list[str]:
        """Return the names in a folder, in any order. Raises OSError."""

    def create(self, path: str) -> File:
        """Make a file that is not there yet. Raises OSError."""

    def open(self, path: str, *, writable: bool = True) -> File:
        """Open a file that is there. Raises OSError."""

    def size_of(self, path: str) -> int:
        """Return a file's length in bytes. Raises OSError."""

    def rename(self, old: str, new: str) -> None:
        """Move a file or a folder. Raises OSError."""

    def unlink(self, path: str) -> None:
        """Remove a file. Raises OSError."""

    def remove_folder(self, path: str) -> None:
        """Remove an empty folder. Raises OSError."""

    def sync_folder(self, path: str) -> None:
        """Have the names in it survive the loss of power. Raises OSError."""

    def free_bytes(self, path: str) -> int:
        """Return the bytes that we may still write on its volume. Raises OSError."""


class OsFile:
    """A file of the operating system."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._identity = _identity(os.fstat(descriptor))

    def read_at(self, offset: int, size: int) -> bytes:
        """Read at an offset."""
        self._check_open()
        parts = []
        while size > 0:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def write_at(self, offset: int, data: bytes) -> None:
        """Write at an offset."""
        self._check_open()
        written = os.pwrite(self._descriptor, data, offset)
        while written < len(data):
            # A full disk takes what fits before it says no.
            written += os.pwrite(self._descriptor, memoryview(data)[written:], offset + written)

    def truncate(self, size: int) -> None:
        """Cut it."""
        self._check_open()
        os.ftruncate(self._descriptor, size)

    def size(self) -> int:
        """Ask for its length."""
        self._check_open()
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Flush data and length."""
        self._check_open()
        if sys.platform == "darwin":
            # There, fsync only reaches the drive's cache.
            fcntl.fcntl(self._descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(self._descriptor)

    def try_lock(self) -> bool:
        """Lock the open file: the lock belongs to it, not to the process, and no other descriptor can drop it."""
        self._check_open()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_locked(self) -> bool:
        """
        Ask by taking a shared lock for an instant, the one way to ask that there is.

        Those who ask do not disturb each other, nor an owner, who has its lock before the folder has its name. An
        heir that tries in that very instant is told that the owner lives, and tries again at its next look.
        """
        self._check_open()
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    def is_at(self, path: str) -> bool:
        """Compare identities."""
        if not self._is_open():
            return False
        try:
            return _identity(os.lstat(path)) == self._identity
        except (FileNotFoundError, NotADirectoryError):
            return False

    def is_lost(self) -> bool:
        """Compare what the number stands for with what was opened."""
        try:
            return not self._is_open()
        except OSError:
            # As when a server of files has started anew: that says nothing of the descriptor.
            return False

    def _is_open(self) -> bool:
        """Whether the number stands for what was opened. Raises OSError when that cannot be told."""
        try:
            return self._descriptor >= 0 and _identity(os.fstat(self._descriptor)) == self._identity
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            return False

    def close(self) -> None:
        """Close it once."""
        is_lost = self.is_lost()
        descriptor, self._descriptor = self._descriptor, -1
        if not is_lost:
            try:
                os.close(descriptor)
            except OSError:
                # What a close has to report, a sync has reported before, or nobody asked for.
                pass

    def _check_open(self) -> None:
        # Writing to a number that stands for a file of the application's would destroy that.
        if not self._is_open():
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))

    # A descriptor that a fork has doubled shares the lock; closing the copy leaves it with the parent.
    forget = close


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


class OsFilesystem:
    """The operating system's file system."""

    def make_folder(self, path: str) -> None:
        """Make it with mode 0700, and look at what is really there."""
        try:
            os.makedirs(path, mode=_FOLDER_MODE)
        except FileExistsError:
            pass
        found = os.lstat(path)
        if not stat.S_ISDIR(found.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "it is no folder; symbolic links are not followed", path)
        if found.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user", path)
        if stat.S_IMODE(found.st_mode) & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise PermissionError(errno.EACCES, f"it is open to other users, mode {mode:04o}; 0700 is needed", path)

    def close_to_others(self, path: str) -> bool:
        """Change the mode of what was opened and looked at, whatever has its name by then."""
        descriptor = os.open(path, os.O_RDONLY | _FOLDER_FLAGS)
        try:
            found = os.fstat(descriptor)
            is_ours = found.st_uid == os.geteuid() and not found.st_mode & stat.S_ISVTX
            if not is_ours or not stat.S_IMODE(found.st_mode) & 0o077:
                return False
            os.fchmod(descriptor, _FOLDER_MODE)
        finally:
            os.close(descriptor)
        return True

    def names(self, path: str) -> list[str]:
        """List it."""
        return os.listdir(path)

    def create(self, path: str) -> File:
        """Make it with mode 0600; a name that is taken, by a link too, is refused."""
        return OsFile(os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, _FILE_MODE))

    def open(self, path: str, *, writable: bool = True) -> File:
        """Open it; a symbolic link is refused."""
        return OsFile(os.open(path, _FLAGS if writable else _READ_FLAGS))

    def size_of(self, path: str) -> int:
        """Ask for its length."""
        return os.lstat(path).st_size

    def rename(self, old: str, new: str) -> None:
        """Move it."""
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        """Remove it."""
        os.unlink(path)

    def remove_folder(self, path: str) -> None:
        """Remove it."""
        os.rmdir(path)

    def sync_folder(self, path: str) -> None:
        """Flush its names."""
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def free_bytes(self, path: str) -> int:
        """Ask for the blocks that are not reserved for root."""
        volume = os.statvfs(path)
        return volume.f_bavail * volume.f_frsize
