"""Control groups, version 1 and 2: which the process is in, and how close each of them is to its limit.

Owns: the mounts, as they were at construction; everything else is read anew each time, because processes are moved
and limits are changed while they run.
Threads: any.
Invariants: nothing raises; what cannot be read is not there.

    /sys/fs/cgroup              the mount's root: the machine's, or the outermost that a container can see
    └── app.slice               its limit holds for all that is below it together
        └── app.service         the process's own

The process is stopped by whichever of them is full first, so each level's usage is held against that level's limit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from surgetank.memory.reading import Reading, contents, number, table

# Version 1 has no word for "no limit": it says the largest number of bytes that are whole pages.
_HUGE: Final = 2**60
_ESCAPE: Final = re.compile(rb"\\([0-7]{3})")
_STALL: Final = re.compile(rb"^some .*?avg10=(\d{1,3}(?:\.\d+)?)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Version:
    """The names that one version has for the same things."""

    source: str
    filesystem: bytes
    usage: str
    limits: tuple[str, ...]
    cache: bytes
    """In `memory.stat`: file pages that the kernel takes back first, over the whole subtree."""
    hidden_limit: bytes | None = None
    """In `memory.stat`: the tightest limit from here up, also above what a container can see."""


V2: Final = Version(
    source="cgroup_v2",
    filesystem=b"cgroup2",
    usage="memory.current",
    # Beyond `high` the kernel throttles, which stalls the application before `max` would kill it.
    limits=("memory.max", "memory.high"),
    cache=b"inactive_file",
)
V1: Final = Version(
    source="cgroup_v1",
    filesystem=b"cgroup",
    usage="memory.usage_in_bytes",
    limits=("memory.limit_in_bytes",),
    cache=b"total_inactive_file",
    hidden_limit=b"hierarchical_memory_limit",
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A hierarchy, or the part of it that is visible, and where."""

    version: Version
    base: str
    """The path inside the hierarchy that is mounted; `/..` and the like where it lies above our namespace's root."""
    folder: str

    def own_folders(self, path: str) -> list[str]:
        """Return the folders of the control group `path` and of its visible ancestors, inmost first."""
        own, base = _parts(path), _parts(self.base)
        if own[: len(base)] == base:
            below = own[len(base) :]
        elif not own or ".." in base:
            # The namespace hides the names between the mount's root and us, but that root is above us all the same.
            below = []
        else:
            return []
        if ".." in below:
            return []  # Outside the namespace: what is mounted is not ours.
        return [os.path.join(self.folder, *below[:depth]) for depth in range(len(below), -1, -1)]


class ControlGroups:
    """
    The control groups of this process.

    Args:
        root: Where `/proc` and `/sys` are; another than `/` is a test's.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._mounts = tuple(_mounts(root))

    def readings(self, ceiling: int | None = None) -> Iterator[Reading]:
        """
        Yield a reading for each level that has a limit.

        Args:
            ceiling: The machine's memory in bytes: a limit above it never binds and is none.
        """
        ceiling = min(ceiling or _HUGE, _HUGE)
        for version, folders in self._hierarchies():
            for height, folder in enumerate(folders):
                if height and contents(folder, "memory.use_hierarchy") == b"0\n":
                    break  # Before Linux 5.11, limits of version 1 did not hold for children unless somebody said so.
                reading = _level(version, folder, ceiling)
                if reading is not None:
                    yield reading

    def stalled(self) -> float | None:
        """Return the share of time in which the process's own control group waited for memory; only version 2 knows."""
        for version, folders in self._hierarchies():
            if version is V2:
                return stall(contents(folders[0], "memory.pressure"))
        return None

    def own_folders(self, version: Version) -> list[str]:
        """Return the folders of the process's own control group and its ancestors, inmost first; empty if none is visible."""
        return next((folders for each, folders in self._hierarchies() if each is version), [])

    def _hierarchies(self) -> Iterator[tuple[Version, list[str]]]:
        paths = _own_paths(contents(self._root, "proc/self/cgroup"))
        for version in (V2, V1):
            path = paths.get(version)
            for mount in self._mounts:
                folders = mount.own_folders(path) if mount.version is version and path is not None else []
                if any(os.path.isdir(folder) for folder in folders):
                    yield version, folders
                    break  # Other mounts show the same hierarchy once more.


def stall(text: bytes | None) -> float | None:
    """Return the share of the last ten seconds in a file of pressure stall information."""
    found = _STALL.search(text or b"")
    return None if found is None else min(1.0, float(found[1]) / 100)


def _level(version: Version, folder: str, ceiling: int) -> Reading | None:
    limits = [number(contents(folder, name)) for name in version.limits]
    if version.hidden_limit is None and not any(limit is not None for limit in limits):
        return None  # The usual level: spare the kernel the work of adding up its statistics.
    stat = table(contents(folder, "memory.stat"))
    if version.hidden_limit is not None:
        limits.append(stat.get(version.hidden_limit))
    binding = [limit for limit in limits if limit is not None and limit < _HUGE and limit <= ceiling]
    usage = number(contents(folder, version.usage))
    if usage is None or not binding:
        return None
    return Reading(max(0, usage - stat.get(version.cache, 0)), min(binding), version.source)


def _own_paths(text: bytes | None) -> dict[Version, str]:
    """Read `/proc/self/cgroup`: lines `number:controllers:path`; version 2 has number 0 and no controllers."""
    paths = {}
    for line in (text or b"").splitlines():
        hierarchy, _, rest = line.partition(b":")
        controllers, colon, path = rest.partition(b":")
        if not colon:
            continue
        if b"memory" in controllers.split(b","):
            paths[V1] = os.fsdecode(path)
        elif hierarchy == b"0" and not controllers:
            paths[V2] = os.fsdecode(path)
    return paths


def _mounts(root: str) -> list[Mount]:
    """Read `/proc/self/mountinfo`: `id parent device base folder options [tags…] - filesystem source options`."""
    found = {}
    for line in (contents(root, "proc/self/mountinfo") or b"").splitlines():
        place, _, kind = line.partition(b" - ")
        fields, about = place.split(), kind.split()
        if len(fields) < 6 or len(about) < 3:
            continue
        base, folder = _path(fields[3]), _path(fields[4])
        where = os.path.join(root, folder.lstrip("/"))
        if about[0] == V2.filesystem:
            found[where] = Mount(V2, base, where)
        elif about[0] == V1.filesystem and b"memory" in about[2].split(b","):
            found[where] = Mount(V1, base, where)
    # A later mount at the same place hides an earlier one.
    return list(found.values())


def _path(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda escape: bytes([int(escape[1], 8) & 0xFF]), field))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]
