"""The arguments of `Tank` as types, for the functions and classes that pass them on; and the variables that stand for them.

Owns: no state. Threads: any.
Invariants: `TankSettings` and the signature of `Tank` have the same names and types; `variables` are those of the catalogue
that are ours (`tests/faults/test_wrong_arguments.py`, `tests/catalogue`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypedDict

from surgetank.config import BufferConfig, Compression, Environment, OutletConfig, Protocol, Timing
from surgetank.config.limits import OWN_PARSERS
from surgetank.config.timing import TIMING_RANGES
from surgetank.memory.reading import Probe
from surgetank.memory.settings import RANGES as MEMORY_RANGES
from surgetank.memory.settings import MemoryConfig
from surgetank.model import Clock, Sender, Signal
from surgetank.spool.filesystem import Filesystem
from surgetank.spool.settings import RANGES as SPOOL_RANGES
from surgetank.spool.settings import SpoolConfig


class CommonSettings(TypedDict, total=False):
    """What `Tank` takes that does not say where telemetry goes."""

    spans: BufferConfig | None
    metrics: BufferConfig | None
    logs: BufferConfig | None
    timeout: float | None
    compression: Compression | None
    proxy: str | None
    timing: Timing | None
    spool: SpoolConfig | None
    persistence_enabled: bool | None
    memory: MemoryConfig | None
    self_metrics: bool | None
    total_memory_mb: float | None
    shutdown_timeout: float | None
    is_critical: Callable[[Any], bool] | None
    handle_sigterm: bool
    is_threaded: bool
    clock: Clock | None
    make_sender: Callable[[OutletConfig, Clock], Sender] | None
    filesystem: Filesystem | None
    probe: Probe | None


class TankSettings(CommonSettings, total=False):
    """What `Tank` takes."""

    endpoint: str | None
    headers: Mapping[str, str] | None
    protocol: Protocol | None
    certificate_file: str | None
    client_key_file: str | None
    client_certificate_file: str | None
    metric_export_interval: float | None
    outlets: Mapping[Signal, OutletConfig] | None


class DropInSettings(CommonSettings, total=False):
    """What the drop-in classes take beside the SDK's arguments; where telemetry goes, the exporter says."""

    exporter_attempts: int


OURS: Final = "SURGETANK_"
"""What our own variables begin with."""
_SINGLE: Final = (
    "PERSISTENCE_ENABLED",
    "TOTAL_MEMORY_MB",
    "SHUTDOWN_TIMEOUT",
    "SPOOL_DIR",
    "SPOOL_DURABILITY",
    "SPOOL_ENCRYPTION_KEY",
    "SPOOL_ENCRYPTION_KEY_FILE",
    "ADAPTIVE",
    "SELF_METRICS",
    "STATUS_ENABLED",
    "STATUS_DIR",
)
_IDLE_FOR_METRICS: Final = ("on_full", "block_timeout")
WITHOUT_EFFECT: Final = tuple(f"{OURS}METRICS_{name.upper()}" for name in _IDLE_FOR_METRICS)
"""Variables that are read and checked, but say nothing: metrics never wait for room."""
# Of the project's own scripts and tests; they say nothing to a tank.
_ELSEWHERE: Final = frozenset(OURS + name for name in ("VENV", "PYTHONS", "TEST_KILLS"))
# Less alike than this, two names are strangers.
_LIKE: Final = 0.6


def variables() -> frozenset[str]:
    """Return the names of our variables."""
    names = [f"{signal.name}_{keyword.upper()}" for signal in Signal for keyword in OWN_PARSERS]
    names += [keyword.upper() for keyword in TIMING_RANGES]
    names += [f"SPOOL_{keyword.upper()}" for keyword in SPOOL_RANGES]
    names += [f"MEMORY_{keyword.upper()}" for keyword in MEMORY_RANGES]
    return frozenset(OURS + name for name in (*names, *_SINGLE)) - set(WITHOUT_EFFECT)


def unread(names: list[str]) -> Iterator[tuple[str, str]]:
    """
    Yield each of our variables that nobody reads, and what is to be said of it; empty for one that has no effect by design.

    Args:
        names: Of the variables that are set.
    """
    known = variables()
    for name in sorted(names):
        if name in WITHOUT_EFFECT:
            yield name, ""
        elif name.startswith(OURS) and name not in known and name not in _ELSEWHERE:
            # The prefix, which they have in common, would make strangers alike.
            yield name, nearest(name.removeprefix(OURS), [each.removeprefix(OURS) for each in known], _LIKE, OURS)


def nearest(name: str, known: Iterable[str], cutoff: float, prefix: str = "") -> str:
    """Return a question about the name that was probably meant, or where the names are."""
    from difflib import get_close_matches  # Who makes no slip need not wait for it.

    near = get_close_matches(name, sorted(known), 1, cutoff)
    return f"did you mean {prefix}{near[0]}?" if near else "`surgetank config` lists those that there are"


def tell_unread(environment: Environment) -> None:
    """Log a line for each of our variables that nobody reads."""
    for name, hint in unread(environment.names()):
        about = f"{name} is unread"
        if hint:
            environment.say_once(about, "", "%s is set, but there is no such setting; %s", name, hint)
        else:
            environment.say_once(about, "", "%s has no effect: metrics never wait for room", name)


def check_names(function: str, given: Mapping[str, object], known: type) -> None:
    """
    Refuse an argument that there is not, and name the one that was probably meant.

    Raises:
        TypeError: As Python does for a function that lists its arguments.
    """
    names = [name for each in known.__mro__ for name in getattr(each, "__annotations__", ())]
    for name in given:
        if name not in names:
            from difflib import get_close_matches

            near = get_close_matches(name, names, 1)
            raise TypeError(f"{function} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
