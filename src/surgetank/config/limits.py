"""The limits of each signal's buffer: the record that users write, the defaults, and what they come to once complete.

Owns: no state. Threads: any. Invariants: `SignalLimits` that `resolve_limits` returns are complete and possible.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Final, Literal

from surgetank.config.environment import (
    MEBIBYTE,
    Environment,
    check_choice,
    check_flag,
    check_number,
    in_words,
    parse_bool,
    parse_positive_int,
    parse_positive_millis,
)
from surgetank.config.outlet import OutletConfig
from surgetank.errors import ConfigError
from surgetank.model import Signal

DropStrategy = Literal["oldest", "newest", "sampling"]
Persist = Literal["none", "shutdown", "critical", "all"]
OnFull = Literal["drop", "block"]
DROP_STRATEGIES: Final = ("oldest", "newest", "sampling")
PERSISTS: Final = ("critical", "all")
ON_FULL: Final[tuple[OnFull, ...]] = ("drop", "block")


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferConfig:
    """
    The limits of one signal. A field left out takes that signal's default.

    Args:
        max_size: Items in memory, all stages together (metrics: data points).
            Default 2048 spans, 5000 metric points, 5000 logs. 1 to 100 million.
        max_memory_mb: MiB in memory over all copies: waiting objects (estimated),
            encoded and sealed bytes, scratch space, in flight. Default 50, 20, 30.
            0.0625 to 1048576.
        drop_strategy: Who gives way when full: `oldest` (sealed batches first,
            then waiting items, the critical lane last), `newest` (the item on
            offer) or `sampling`: from half full on, keep fewer and fewer traces,
            and logs of low severity, so that what is kept stays a fair picture;
            metrics: collect less often while the outlet is closed. At the wall
            it acts as `oldest`. Default `oldest`; metrics `sampling`.
        persistence_enabled: Whether this signal's sealed batches are stored in the
            spool, so that they survive outages, restarts and crashes. Default
            yes for spans and logs. Metrics, by default, are stored only at shutdown,
            when they could not be delivered, where there is a spool. `False` keeps
            a signal off the disk altogether.
        persist: Which of them: `all` (default), or `critical` for those of the
            critical lane only.
        circuit_breaker_threshold: Consecutive failures that open the breaker.
            Default 10, 20, 10. 1 to 10000.
        max_export_batch_size: Items that make a batch due. Default 512, never
            more than `max_size`. 1 to 100000.
        max_batch_mb: Encoded MiB that make a batch due. Default 4, the most
            that a gRPC receiver takes by default. 0.001 to 64.
        on_full: What happens to the thread that offers when nothing can give way
            without a loss: `drop` (default) leaves it to the drop strategy at once;
            `block` lets it wait for room in its turn, for batch jobs that would rather be
            slow than lose telemetry. Never on our own threads, in signal handlers or
            in a running event loop. Spans and logs only.
        block_timeout: Seconds that it waits; then the drop strategy decides.
            Default 5. 0.001 to 3600.
        schedule_delay: Seconds after which a smaller batch is due. Default 0.8.
            0.001 to 3600. Critical items do not wait.

    Raises:
        ConfigError: A value is outside its range.
    """

    max_size: int | None = None
    max_memory_mb: float | None = None
    drop_strategy: DropStrategy | None = None
    persistence_enabled: bool | None = None
    persist: Literal["critical", "all"] | None = None
    on_full: OnFull | None = None
    block_timeout: float | None = None
    circuit_breaker_threshold: int | None = None
    max_export_batch_size: int | None = None
    max_batch_mb: float | None = None
    schedule_delay: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high, whole) in BUFFER_RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, low, high, whole=whole)
        if self.drop_strategy is not None:
            check_choice("drop_strategy", self.drop_strategy, DROP_STRATEGIES)
        check_flag("persistence_enabled", self.persistence_enabled)
        if self.on_full is not None:
            check_choice("on_full", self.on_full, ON_FULL)
        if self.persist is not None:
            check_choice("persist", self.persist, PERSISTS)
        if self.max_size is not None and self.max_export_batch_size is not None:
            check_number("max_export_batch_size", self.max_export_batch_size, 1, self.max_size, whole=True)


TOTAL_RANGE: Final = (0.25, 1_048_576.0)
"""MiB that all signals' buffers together may be given."""
BUFFER_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "max_size": (1, 100_000_000, True),
    # Less than 64 KiB could not hold one request and its encoding copy.
    "max_memory_mb": (0.0625, 1_048_576, False),
    "circuit_breaker_threshold": (1, 10_000, True),
    "max_export_batch_size": (1, 100_000, True),
    "max_batch_mb": (0.001, 64, False),
    "schedule_delay": (0.001, 3600, False),
    "block_timeout": (0.001, 3600, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalLimits:
    """A `BufferConfig` with nothing left out: what one pipeline obeys."""

    max_size: int
    max_bytes: int
    drop_strategy: DropStrategy
    persist: Persist
    on_full: OnFull = "drop"
    block_timeout: float = 5.0
    circuit_breaker_threshold: int
    max_export_batch_size: int
    max_batch_bytes: int
    schedule_delay: float

    @property
    def is_stored(self) -> bool:
        """Whether batches are stored while the process runs, and not only what is left at its end."""
        return self.persist in PERSISTS


_COMMON_DEFAULTS: Final[Mapping[str, Any]] = {
    "persist": "all",
    "on_full": "drop",
    "block_timeout": 5.0,
    "circuit_breaker_threshold": 10,
    "max_export_batch_size": 512,
    "max_batch_mb": 4.0,
    # With the sealer's rest that is within a second of the offer, which is what a crash may cost.
    "schedule_delay": 0.8,
}
DEFAULT_LIMITS: Final[Mapping[Signal, Mapping[str, Any]]] = {
    Signal.SPANS: {
        **_COMMON_DEFAULTS,
        "max_size": 2048,
        "max_memory_mb": 50.0,
        "drop_strategy": "oldest",
        "persistence_enabled": True,
    },
    Signal.METRICS: {
        **_COMMON_DEFAULTS,
        "max_size": 5000,
        "max_memory_mb": 20.0,
        "drop_strategy": "sampling",
        "persistence_enabled": False,
        "circuit_breaker_threshold": 20,
    },
    Signal.LOGS: {
        **_COMMON_DEFAULTS,
        "max_size": 5000,
        "max_memory_mb": 30.0,
        "drop_strategy": "oldest",
        "persistence_enabled": True,
    },
}

SDK_PREFIX: Final[Mapping[Signal, str | None]] = {
    Signal.SPANS: "OTEL_BSP_",
    Signal.METRICS: None,
    Signal.LOGS: "OTEL_BLRP_",
}


OWN_PARSERS: Final[Mapping[str, Callable[[str], Any]]] = {
    "max_size": int,
    "max_memory_mb": float,
    "drop_strategy": str.lower,
    "persistence_enabled": parse_bool,
    "persist": str.lower,
    "on_full": str.lower,
    "block_timeout": float,
    "circuit_breaker_threshold": int,
    "max_export_batch_size": int,
    "max_batch_mb": float,
    "schedule_delay": float,
}
SDK_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "max_size": ("MAX_QUEUE_SIZE", parse_positive_int),
    "max_export_batch_size": ("MAX_EXPORT_BATCH_SIZE", parse_positive_int),
    "schedule_delay": ("SCHEDULE_DELAY", parse_positive_millis),
    # As proposed to the specification (open-telemetry/opentelemetry-specification#5178).
    "on_full": ("ON_QUEUE_FULL", str.lower),
    "block_timeout": ("BLOCK_ON_QUEUE_FULL_TIMEOUT", parse_positive_millis),
}


def choose_limits(signal: Signal, config: BufferConfig | None, environment: Environment) -> BufferConfig:
    """
    Return what keyword, environment and default say of one signal, with no field left out.

    Raises:
        ConfigError: A keyword is outside its range, or contradicts another or a default.
    """
    names = [each.name for each in fields(BufferConfig)]
    given = {name: value for name in names if (value := getattr(config, name, None)) is not None}
    theirs, ours = _read_sdk_limits(signal, environment), _read_own_limits(signal, environment)
    chosen = {**DEFAULT_LIMITS[signal], **theirs, **ours, **given}
    batch, size = "max_export_batch_size", "max_size"
    if chosen[batch] > chosen[size]:
        if batch not in given:
            if batch in ours:
                environment.ignore(_variable(signal, batch), f"at most max_size, which is {chosen[size]:,}")
            # A small buffer makes small batches; only a stated contradiction is an error.
            chosen[batch] = min({**DEFAULT_LIMITS[signal], **theirs}[batch], chosen[size])
        elif size not in given:
            # The argument counts; a variable beside it must not be what makes it impossible.
            for variable in _said_in(signal, size, ours, theirs):
                environment.ignore(variable, f"at least max_export_batch_size, which is {chosen[batch]:,}")
            chosen[size] = DEFAULT_LIMITS[signal][size]
    # `BufferConfig` validates each range, and once more what the layers add up to.
    return BufferConfig(**chosen)


def _variable(signal: Signal, name: str) -> str:
    return f"SURGETANK_{signal.name}_{name.upper()}"


def _said_in(signal: Signal, name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Return the variables that say something of a limit."""
    found = [_variable(signal, name)] if name in ours else []
    return found + ([f"{SDK_PREFIX[signal]}{SDK_PARSERS[name][0]}"] if name in theirs else [])


def resolve_limits(signal: Signal, config: BufferConfig | None, environment: Environment) -> SignalLimits:
    """
    Complete one signal's limits from keyword, environment and default.

    Raises:
        ConfigError: A value is outside its range, or two contradict each other.
    """
    chosen: Any = choose_limits(signal, config, environment)
    max_bytes = int(chosen.max_memory_mb * MEBIBYTE)
    return SignalLimits(
        max_size=chosen.max_size,
        max_bytes=max_bytes,
        drop_strategy=chosen.drop_strategy,
        persist=_persist(signal, config, environment, chosen),
        on_full="drop" if signal is Signal.METRICS else chosen.on_full,
        block_timeout=chosen.block_timeout,
        circuit_breaker_threshold=chosen.circuit_breaker_threshold,
        max_export_batch_size=chosen.max_export_batch_size,
        # A batch under construction and its compressed copy are at most a quarter of the
        # budget, so that sealing can never be what breaks the limit.
        max_batch_bytes=min(int(chosen.max_batch_mb * MEBIBYTE), max_bytes // 8),
        schedule_delay=chosen.schedule_delay,
    )


def _persist(signal: Signal, config: BufferConfig | None, environment: Environment, chosen: BufferConfig) -> Persist:
    if chosen.persistence_enabled:
        return chosen.persist or "all"
    # Only somebody who says so forbids the disk; the default spares a healthy process the writes, and loses nothing at its end.
    is_stated = getattr(config, "persistence_enabled", None) is not None
    is_stated |= "persistence_enabled" in _read_own_limits(signal, environment)
    return "none" if is_stated else "shutdown"


def _read_own_limits(signal: Signal, environment: Environment) -> dict[str, Any]:
    return _read(environment, {name: (_variable(signal, name), parse) for name, parse in OWN_PARSERS.items()})


def _read_sdk_limits(signal: Signal, environment: Environment) -> dict[str, Any]:
    prefix = SDK_PREFIX[signal]
    if prefix is None:
        return {}
    return _read(environment, {name: (prefix + suffix, parse) for name, (suffix, parse) in SDK_PARSERS.items()})


def _read(environment: Environment, variables: Mapping[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """Read one variable for each of these limits, as far as what they say is possible."""
    found = {}
    for name, (variable, parse) in variables.items():
        value = environment.read(variable, partial(_parsed, name, parse), _permitted(name, variable))
        if value is not None:
            found[name] = value
    return found


def _parsed(name: str, parse: Callable[[str], Any], text: str) -> Any:
    value = parse(text)
    try:
        BufferConfig(**{name: value})
    except ConfigError as error:
        # In the variable's own unit, which is not always the limit's.
        raise error if name not in BUFFER_RANGES else ValueError(text) from None
    return value


def _permitted(name: str, variable: str) -> str:
    if name not in BUFFER_RANGES:
        return "true or false"
    low, high, whole = BUFFER_RANGES[name]
    if variable.startswith("OTEL_") and not whole:
        return in_words(max(low * 1000, 1), high * 1000) + " (milliseconds)"
    return in_words(low, high, whole=whole)


def total_memory(given: float | None, environment: Environment) -> float | None:
    """Return the MiB for the buffers of all signals together, from keyword or environment; None for no such limit. Raises ConfigError."""
    if given is None:
        return environment.number("SURGETANK_TOTAL_MEMORY_MB", *TOTAL_RANGE)
    check_number("total_memory_mb", given, *TOTAL_RANGE)
    return given


def within_total(
    limits: Mapping[Signal, SignalLimits], given: float | None, environment: Environment
) -> Mapping[Signal, SignalLimits]:
    """Shrink all byte limits in proportion, where together they are above `total_memory_mb`."""
    total = total_memory(given, environment)
    if total is None:
        return limits
    share = total * MEBIBYTE / sum(each.max_bytes for each in limits.values())
    if share >= 1:
        return limits
    return {signal: _shrunk(each, int(each.max_bytes * share)) for signal, each in limits.items()}


def beside_calls(limits: SignalLimits, outlet: OutletConfig) -> SignalLimits:
    """Set room aside for a gRPC call: the uncompressed request is held twice while it lasts, by us and by gRPC."""
    if outlet.protocol != "grpc":
        return limits
    return replace(limits, max_bytes=limits.max_bytes - 2 * limits.max_batch_bytes)


def _shrunk(limits: SignalLimits, max_bytes: int) -> SignalLimits:
    return replace(limits, max_bytes=max_bytes, max_batch_bytes=min(limits.max_batch_bytes, max_bytes // 8))
