"""Where the memory's limit comes from: control groups, the address space, the configuration, or the machine.

Owns: no state but the mounts of control groups. Threads: any.
Invariants: a probe never raises, keeps no file open, and reads every limit anew each time.

    limits           cgroup_v2, cgroup_v1, rlimit_as, configured: of those that exist, the one with the highest pressure
    without a limit  host: the machine's memory, taken by whomever
    without /proc    the configured limit and the machine, through psutil if it is installed
    otherwise        None
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from surgetank.config import MEBIBYTE
from surgetank.memory.cgroups import ControlGroups, stall
from surgetank.memory.reading import Probe, Reading, contents, number, table

__all__ = ["Probe", "Reading", "choose_probe"]

_KIBIBYTE: Final = 1024
_ADDRESS_SPACE: Final = b"Max address space"
# Where psutil looks; under any other root only the files there are read.
_SYSTEM: Final = "/"


def choose_probe(limit_mb: float | None = None, root: str = _SYSTEM) -> Probe:
    """
    Return what reads the memory's state on this machine.

    Args:
        limit_mb: MiB that the process shall not exceed by much, beside whatever limits the system sets it.
        root: Where `/proc` and `/sys` are; another than `/` is a test's.
    """
    groups = ControlGroups(root)
    configured = None if limit_mb is None else int(limit_mb * MEBIBYTE)

    def probe() -> Reading | None:
        host = _host(root)
        ceiling = None if host is None else host.limit
        limited = [*groups.readings(ceiling), *_limits_of_process(root, configured)]
        if not limited:
            return None if host is None else replace(host, stalled=stall(contents(root, "proc/pressure/memory")))
        # Of equals the first, so the order above decides.
        highest = max(limited, key=lambda reading: reading.pressure)
        return replace(highest, stalled=groups.stalled())

    return probe


def _limits_of_process(root: str, configured: int | None) -> Iterator[Reading]:
    address_space, resident = _process(root)
    ceiling = _address_space_limit(root)
    if ceiling is not None and address_space is not None:
        yield Reading(address_space, ceiling, "rlimit_as")
    if configured is not None and resident is not None:
        yield Reading(resident, configured, "configured")


def _address_space_limit(root: str) -> int | None:
    # The file says what `getrlimit` says, exists exactly where the other figures do, and needs no module that Windows lacks.
    for line in (contents(root, "proc/self/limits") or b"").splitlines():
        if line.startswith(_ADDRESS_SPACE):
            soft = line[len(_ADDRESS_SPACE) :].split()[:1]
            return number(soft[0]) if soft else None
    return None


def _process(root: str) -> tuple[int | None, int | None]:
    """Return the process's bytes of address space and of resident memory."""
    pages = [number(field) for field in (contents(root, "proc/self/statm") or b"").split()[:2]]
    if len(pages) == 2 and pages[0] is not None and pages[1] is not None:
        return pages[0] * mmap.PAGESIZE, pages[1] * mmap.PAGESIZE
    psutil = _psutil(root)
    try:
        return None, psutil and int(psutil.Process().memory_info().rss)
    except Exception:
        return None, None  # A system that psutil does not know well.


def _host(root: str) -> Reading | None:
    # The files first: psutil reads the same ones on Linux, and importing it costs memory.
    figures = table(contents(root, "proc/meminfo"))
    total = figures.get(b"MemTotal", 0)
    free = figures.get(b"MemAvailable")
    if free is None:
        # Before Linux 3.14.
        free = sum(figures.get(name, 0) for name in (b"MemFree", b"Buffers", b"Cached"))
    if total:
        return Reading(max(0, total - free) * _KIBIBYTE, total * _KIBIBYTE, "host")
    psutil = _psutil(root)
    try:
        memory = psutil and psutil.virtual_memory()
        return memory and Reading(int(memory.total - memory.available), int(memory.total), "host")
    except Exception:
        return None  # As above.


def _psutil(root: str) -> Any:
    if root != _SYSTEM:
        return None
    try:
        # Optional (`surgetank[memory]`), and not needed on Linux.
        import psutil
    except Exception:
        return None
    return psutil
