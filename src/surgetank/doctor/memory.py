"""Checks of memory: which limit is watched, and whether the buffers fit below it.

Owns: no state. Threads: any. Invariants: nothing is allocated to find out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from surgetank.catalogue.effective import Effective
from surgetank.config import MEBIBYTE
from surgetank.doctor.finding import Finding, failed, ok, warning
from surgetank.memory.reading import Probe

_NAME: Final = "memory"
# An application needs the most of its memory itself; beyond this share the buffers would make it shrink them at once.
_LARGE: Final = 0.5
_FITTING: Final = 0.25
_SOURCES: Final = {
    "cgroup_v2": "the control group",
    "cgroup_v1": "the control group",
    "rlimit_as": "RLIMIT_AS",
    "configured": "SURGETANK_MEMORY_LIMIT_MB",
    "host": "the host",
}


def check_memory(effective: Effective, probe: Probe) -> Iterator[Finding]:
    """
    Check the memory that this command sees, which is the application's where both run in one container.

    Args:
        effective: The configuration.
        probe: Reads it.
    """
    buffers = sum(limits.max_bytes for limits in effective.tank.limits.values())
    reading = probe()
    if reading is None or reading.limit <= 0:
        yield warning(
            _NAME,
            "No limit is known, so buffers cannot shrink when memory runs short.",
            "Set SURGETANK_MEMORY_LIMIT_MB, or pip install 'surgetank[memory]'.",
        )
        return
    limit = f"{reading.limit / MEBIBYTE:,.0f} MiB of {_SOURCES.get(reading.source, reading.source)}"
    share = buffers / reading.limit
    full = f"The buffers may take {buffers / MEBIBYTE:.0f} MiB, {share:.0%} of the {limit}"
    fitting = max(0.25, reading.limit * _FITTING / MEBIBYTE)
    advice = f"Set SURGETANK_TOTAL_MEMORY_MB={fitting:.0f}, or give the application more memory."
    if share >= 1:
        yield failed(_NAME, f"{full}: an outage can have the application killed.", advice)
    elif share > _LARGE:
        yield warning(_NAME, f"{full}.", advice)
    else:
        yield ok(_NAME, f"{full}.")
    settings = effective.memory
    if not settings.adaptive:
        yield warning(
            _NAME,
            "Memory is not watched: buffers keep their size whatever happens.",
            "Unset SURGETANK_ADAPTIVE, or set it to true.",
        )
    elif reading.pressure > settings.reduce_above:
        yield warning(
            _NAME,
            f"{reading.pressure:.0%} of the limit are used, more than {settings.reduce_above:.0%}: a tank here begins with small buffers.",
            "Give the application more memory.",
        )
