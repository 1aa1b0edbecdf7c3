"""Checks of the disk: the spool's folder, its volume and what is in it; the folder of the status files.

Owns: no state. Threads: any.
Invariants: nothing is changed but one empty file that is made in the spool's folder and removed again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from surgetank import clock
from surgetank.catalogue.effective import Effective
from surgetank.config import MEBIBYTE
from surgetank.doctor.finding import Finding, failed, ok, warning
from surgetank.errors import SurgetankError
from surgetank.sizing import Disk
from surgetank.spool.filesystem import HAS_LOCKS, OsFilesystem
from surgetank.spool.settings import is_homeless, is_to_be_closed
from surgetank.spool.survey import Survey, survey

SPOOL: Final = "spool"
_VOLATILE: Final = ("tmpfs", "ramfs")
_REMOTE: Final = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "fuse.sshfs",
    "virtiofs",
)
# Characters of the kernel's table of mounts that are looked at.
_MOUNTS_MAX: Final = 4 * 1024 * 1024
_LAYERED: Final = ("overlay", "aufs")
_ELSEWHERE: Final = "Name a folder on a local disk with SURGETANK_SPOOL_DIR."


def check_spool(effective: Effective, root: str = "/") -> Iterator[Finding]:
    """
    Check the spool.

    Args:
        effective: The configuration.
        root: Where `/proc` is; another than `/` is a test's.
    """
    if not any(limits.is_stored for limits in effective.tank.limits.values()):
        yield ok(SPOOL, "Nothing is stored: all signals are held in memory only, as configured.")
        return
    if not HAS_LOCKS:
        yield warning(
            SPOOL, "This platform has no advisory locks, so there is no spool.", "Give the buffers memory enough."
        )
        return
    if is_homeless(None, effective.environment):
        yield failed(SPOOL, "There is no home folder, so nothing is stored.", _ELSEWHERE)
        return
    path = effective.spool.path
    if not os.path.lexists(path):
        yield from _to_be_made(path)
    else:
        yield from _folder(path, effective)
    yield from _volume(path, effective, root)


def _age(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def _to_be_made(path: str) -> Iterator[Finding]:
    above = existing(path)
    if os.access(above, os.W_OK | os.X_OK):
        yield ok(SPOOL, f"{path} is not there yet; the first process makes it.")
    else:
        yield failed(
            SPOOL,
            f"{path} is not there, and {above} cannot be written: telemetry is held in memory only.",
            "Make the folder for the application's user with mode 0700, or name another with SURGETANK_SPOOL_DIR.",
        )


def existing(path: str) -> str:
    """Return the path, or the nearest folder above it that is there."""
    while not os.path.lexists(path) and os.path.dirname(path) != path:
        path = os.path.dirname(path)
    return path


def _folder(path: str, effective: Effective) -> Iterator[Finding]:
    trouble = folder_trouble(path)
    if trouble and is_to_be_closed(path):
        yield warning(SPOOL, f"{path} {trouble[0]}; the next process that stores there closes it.", trouble[1])
    elif trouble:
        yield failed(SPOOL, f"{path} {trouble[0]}: telemetry is held in memory only.", trouble[1])
        return
    try:
        probe(path)
    except OSError as error:
        yield failed(
            SPOOL,
            f"{path} cannot be written ({error.strerror}): telemetry is held in memory only.",
            "Let the application's user write there, or name another folder with SURGETANK_SPOOL_DIR.",
        )
    else:
        yield ok(SPOOL, f"{path} is this user's own and can be written.")
    try:
        found = survey(OsFilesystem(), path, clock.now())
    except (OSError, SurgetankError) as error:
        yield failed(SPOOL, f"{path} cannot be read ({error}).", "Run the command as the application's user.")
        return
    yield from _contents(found, effective)


def folder_trouble(path: str) -> tuple[str, str] | None:
    """Return what is wrong with a folder of ours and what to do about it, or None: it must be the user's own and closed to others."""
    found = os.lstat(path)
    if not stat.S_ISDIR(found.st_mode):
        return "is no folder (symbolic links are not followed)", "Remove it, or name another folder."
    if hasattr(os, "geteuid") and found.st_uid != os.geteuid():
        return f"belongs to user {found.st_uid}, not to {os.geteuid()}", "Run as that user, or name another folder."
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        return f"is open to others (mode {mode:04o})", f"chmod 0700 {path}"
    return None


def probe(path: str) -> None:
    """Make a file and remove it. Raises OSError."""
    name = os.path.join(path, f".doctor-{os.getpid()}-{os.urandom(4).hex()}")
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, b"x")
    finally:
        os.close(descriptor)
        os.unlink(name)


def _contents(found: Survey, effective: Effective) -> Iterator[Finding]:
    unreadable = found.total("unreadable_segments")
    if unreadable:
        yield failed(
            SPOOL,
            f"{unreadable} segments cannot be read.",
            "`surgetank spool check` says why, `repair` salvages what is good.",
        )
    left = found.total("pending_items", state="dead")
    if left:
        oldest = max(
            (
                found.now - pile.oldest
                for each in found.holdings
                if each.owner.state == "dead"
                for pile in each.piles
                if pile.oldest
            ),
            default=0.0,
        )
        yield warning(
            SPOOL,
            f"Dead processes have left {left:,} {'item' if left == 1 else 'items'}, the oldest {_age(oldest)} old; older than "
            f"{effective.spool.max_age / 3600:.0f} h they are given up.",
            "The next process that shares the folder sends them; `surgetank spool drain` sends them now.",
        )
    if found.letters:
        yield warning(
            SPOOL,
            f"The receiver refused {found.letters} batches for good.",
            "`surgetank spool export --dead-letters` shows them and why.",
        )


def _volume(path: str, effective: Effective, root: str) -> Iterator[Finding]:
    place = existing(path)
    disk = disk_for(effective)
    kind = filesystem_of(os.path.realpath(place), root)
    if kind in _VOLATILE:
        yield warning(SPOOL, f"It is on {kind}: what is stored is in memory and gone after a restart.", _ELSEWHERE)
    elif kind in _REMOTE:
        yield warning(SPOOL, f"It is on {kind}, a network file system, whose locks and syncs may not hold.", _ELSEWHERE)
    elif kind in _LAYERED:
        yield warning(
            SPOOL,
            f"It is on {kind}, a container's own layer, which goes when the container is removed.",
            "Mount a volume and name it with SURGETANK_SPOOL_DIR.",
        )
    limit, free = disk.limit / MEBIBYTE, disk.free / MEBIBYTE
    reserve = effective.spool.reserve_bytes / MEBIBYTE
    if free <= 0:
        yield failed(
            SPOOL,
            f"The volume has no more than the reserve of {reserve:.0f} MiB left: nothing can be stored.",
            "Free space on the volume, or lower SURGETANK_SPOOL_RESERVE_MB.",
        )
    elif disk.limit - disk.used > disk.free:
        yield warning(
            SPOOL,
            f"The limit is {limit:.0f} MiB, but the volume has only {free:.0f} MiB left beyond the reserve.",
            f"Free space, or set SURGETANK_SPOOL_MAX_MB={max(1, int(free + disk.used / MEBIBYTE))}.",
        )
    else:
        yield ok(
            SPOOL, f"{disk.used / MEBIBYTE:.0f} of {limit:.0f} MiB are taken, and the volume has room for the rest."
        )


def disk_for(effective: Effective) -> Disk:
    """Return what the spool may take."""
    path, filesystem = effective.spool.path, OsFilesystem()
    try:
        used = survey(filesystem, path, clock.now()).total("bytes")
    except (OSError, SurgetankError):
        used = 0
    try:
        free = float(filesystem.free_bytes(existing(path)) - effective.spool.reserve_bytes)
    except (OSError, AttributeError):
        free = float("inf")
    return Disk(
        limit=effective.spool.max_bytes,
        used=used,
        free=max(0.0, free),
        max_age=effective.spool.max_age,
        is_write_ahead=effective.spool.is_write_ahead,
    )


def filesystem_of(path: str, root: str = "/") -> str:
    """Return the kind of file system that a path is on; empty where nobody says."""
    best, kind = "", ""
    try:
        with open(os.path.join(root, "proc/self/mountinfo"), encoding="utf-8", errors="replace") as file:
            lines = file.read(_MOUNTS_MAX).splitlines()
    except OSError:
        return ""
    for line in lines:
        place, _, about = line.partition(" - ")
        fields, words = place.split(), about.split()
        if len(fields) < 5 or not words:
            continue
        folder = fields[4].replace("\\040", " ")
        # A later mount at the same place hides an earlier one.
        if (path == folder or path.startswith(folder.rstrip("/") + "/")) and len(folder) >= len(best):
            best, kind = folder, words[0]
    return kind


def check_status_folder(effective: Effective) -> Iterator[Finding]:
    """Check the folder by which other programs see tanks."""
    name, path = "status folder", effective.status_folder
    if path is None:
        yield ok(name, "Switched off: other programs do not see this application's tanks.")
    elif not os.path.lexists(path):
        if os.access(existing(path), os.W_OK | os.X_OK):
            yield ok(name, f"{path} is not there yet; the first tank makes it.")
        else:
            yield warning(
                name, f"{path} cannot be made: tanks are not seen.", "Name another with SURGETANK_STATUS_DIR."
            )
    elif trouble := folder_trouble(path):
        yield warning(name, f"{path} {trouble[0]}: tanks are not seen.", trouble[1])
    elif not os.access(path, os.W_OK | os.X_OK):
        yield warning(name, f"{path} cannot be written: tanks are not seen.", "Name another with SURGETANK_STATUS_DIR.")
    else:
        yield ok(name, f"{path} is this user's own.")
