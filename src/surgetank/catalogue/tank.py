"""The settings of a whole tank: shared limits, timing, spool, memory, being seen, and what doors read.

Owns: no state. Threads: any.
Invariants: ranges, defaults and choices are those of the code that obeys them; texts are Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from surgetank.catalogue.effective import Effective
from surgetank.catalogue.setting import YES_OR_NO, Setting, between, one_of
from surgetank.config import MEBIBYTE, Timing
from surgetank.config.limits import (
    SDK_PREFIX,
    TOTAL_RANGE,
    total_memory,
)
from surgetank.config.outlet import (
    OTLP_INFIX,
    PREFIX,
)
from surgetank.config.resolve import (
    AGGREGATIONS,
    METRIC_INTERVAL,
    METRIC_INTERVAL_RANGE,
    METRIC_TIMEOUT,
    SHUTDOWN_TIMEOUT,
    TEMPORALITIES,
)
from surgetank.config.timing import EXPORT_TIMEOUT, SECONDS_RANGE, TIMING_RANGES, resolve_export_timeout
from surgetank.memory.settings import RANGES as MEMORY_RANGES
from surgetank.memory.settings import MemorySettings
from surgetank.spool.settings import DURABILITIES
from surgetank.spool.settings import RANGES as SPOOL_RANGES

_SPOOL: Final[Mapping[str, tuple[str, str]]] = {
    "max_mb": (
        "MiB",
        (
            "over all processes that share the folder, an equal part each; then the oldest normal segments go, reason "
            "`spool_full`, critical ones last"
        ),
    ),
    "max_age": ("seconds", "older segments (give or take ten minutes) go, reason `expired`"),
    "reserve_mb": ("MiB", "kept free on the volume; below it memory only"),
    "dead_letter_mb": (
        "MiB",
        "batches that the receiver refused for good, with status and reason; at most 1000; the oldest go. 0: none are kept",
    ),
}
_SPOOL_READ: Final[Mapping[str, Callable[[Effective], Any]]] = {
    "max_mb": lambda found: found.spool.max_bytes / MEBIBYTE,
    "max_age": lambda found: found.spool.max_age,
    "reserve_mb": lambda found: found.spool.reserve_bytes / MEBIBYTE,
    "dead_letter_mb": lambda found: found.spool.dead_letter_bytes / MEBIBYTE,
}
_MEMORY: Final[Mapping[str, tuple[str, str]]] = {
    "limit_mb": ("MiB", "resident size that the process should stay within, beside the system's own limits"),
    "reduce_above": (
        "of the limit",
        "above it buffers shrink by half at each sample; what does not fit goes to disk, else the strategy decides",
    ),
    "restore_below": ("of the limit", "below it they grow back by a tenth of their full size at each sample"),
    "floor": ("of their full size", "what they keep whatever happens"),
    "period": ("seconds", "between two samples; down to 0.5 while memory climbs fast"),
}
_TIMING: Final[Mapping[str, tuple[str, str]]] = {
    "backoff_initial": ("seconds", "the first wait after a failure"),
    "backoff_factor": ("times", "each further wait is so much longer"),
    "backoff_max": ("seconds", "and no longer than this; at least `backoff_initial`"),
    "retry_after_max": (
        "seconds",
        "the longest that a receiver is left alone because it asked to (`Retry-After`); then one batch goes out",
    ),
    "cooldown_initial": ("seconds", "the first rest of an open breaker, before one probe"),
    "cooldown_factor": ("times", "each further rest is so much longer"),
    "cooldown_max": ("seconds", "and no longer than this; at least `cooldown_initial`"),
    "jitter": ("of each wait", "each is drawn from so much less to so much more than its length"),
}


def tank() -> Iterator[Setting]:
    """Yield what all signals share."""
    one = partial(Setting, section="tank")
    yield one(
        keyword="persistence_enabled",
        variables=("SURGETANK_PERSISTENCE_ENABLED",),
        read=lambda found: any(limits.is_stored for limits in found.tank.limits.values()),
        default=True,
        permitted=YES_OR_NO,
        effect="no: nothing is stored, whatever the signals say",
    )
    yield one(
        keyword="total_memory_mb",
        variables=("SURGETANK_TOTAL_MEMORY_MB",),
        read=lambda found: total_memory(None, found.environment),
        unit="MiB",
        permitted=between(*TOTAL_RANGE),
        effect="for the buffers of all signals together; where their own limits add up to more, each shrinks in proportion",
    )
    yield one(
        keyword="shutdown_timeout",
        variables=("SURGETANK_SHUTDOWN_TIMEOUT",),
        read=lambda found: found.tank.shutdown_timeout,
        default=SHUTDOWN_TIMEOUT,
        unit="seconds",
        permitted=between(*SECONDS_RANGE),
        effect="all signals together",
    )
    yield one(
        keyword="metric_export_interval",
        variables=("OTEL_METRIC_EXPORT_INTERVAL",),
        read=lambda found: found.tank.metric_export_interval,
        default=METRIC_INTERVAL,
        unit="seconds",
        permitted=between(*METRIC_INTERVAL_RANGE),
        effect="between two collections; the variable is in milliseconds",
    )
    yield one(
        keyword="metric_export_timeout",
        variables=("OTEL_METRIC_EXPORT_TIMEOUT",),
        read=lambda found: found.tank.metric_export_timeout,
        default=METRIC_TIMEOUT,
        unit="seconds",
        permitted="above 0",
        effect="a variable only, in milliseconds: for one collection",
    )
    yield one(
        keyword="temporality_preference",
        variables=(f"{PREFIX}METRICS_TEMPORALITY_PREFERENCE",),
        read=lambda found: found.temporality,
        default=TEMPORALITIES[0],
        permitted=one_of(TEMPORALITIES),
        effect="a variable only: which instruments report differences",
    )
    yield one(
        keyword="default_histogram_aggregation",
        variables=(f"{PREFIX}METRICS_DEFAULT_HISTOGRAM_AGGREGATION",),
        read=lambda found: found.aggregation,
        default=AGGREGATIONS[0],
        permitted=one_of(AGGREGATIONS),
        effect="a variable only",
    )


def timing() -> Iterator[Setting]:
    """Yield the waits between attempts."""
    for keyword, (low, high) in TIMING_RANGES.items():
        unit, effect = _TIMING[keyword]
        yield Setting(
            section="timing",
            keyword=keyword,
            variables=(f"SURGETANK_{keyword.upper()}",),
            default=getattr(Timing(), keyword),
            unit=unit,
            permitted=between(low, high),
            effect=effect,
            read=lambda found, name=keyword: getattr(found.tank.timing, name),  # type: ignore[misc]  # a default is how a loop's value is kept
        )


def spool() -> Iterator[Setting]:
    """Yield the disk."""
    yield Setting(
        section="spool",
        keyword="dir",
        variables=("SURGETANK_SPOOL_DIR",),
        read=lambda found: found.spool.path,
        permitted="a folder of your own",
        effect="by default a folder per destination below `$XDG_STATE_HOME/surgetank` or `~/.local/state/surgetank`; made with mode 0700. "
        "Processes that share it adopt each other's orphans. Missing, read-only, full, or open to others: memory only, one warning, "
        "tried again every 5 s. In one that others write to as well (`/tmp`, a mounted volume) it is `surgetank-spool-<user id>`",
    )
    for keyword, (unit, effect) in _SPOOL.items():
        low, high, default = SPOOL_RANGES[keyword]
        yield Setting(
            section="spool",
            keyword=keyword,
            variables=(f"SURGETANK_SPOOL_{keyword.upper()}",),
            default=default,
            unit=unit,
            permitted=between(low, high),
            effect=effect,
            read=_SPOOL_READ[keyword],
        )
    yield Setting(
        section="spool",
        keyword="durability",
        variables=("SURGETANK_SPOOL_DURABILITY",),
        read=lambda found: found.spool.durability,
        default="os",
        permitted=one_of(DURABILITIES),
        effect="`memory`: disk only when memory is half full, and at shutdown. `os`: survives the process. `disk`: survives the loss of "
        "power, from 0.1 s after sealing",
    )
    yield Setting(
        section="spool",
        keyword="encryption_key",
        variables=("SURGETANK_SPOOL_ENCRYPTION_KEY",),
        is_secret=True,
        yields_to="SURGETANK_SPOOL_ENCRYPTION_KEY_FILE",
        read=lambda found: _key(found, is_file=False),
        permitted="lines id:base64",
        effect="`id:base64` or `id:algorithm:base64` lines with keys of 32 bytes (`aes-256-gcm`, the default, or `chacha20-poly1305`), or a "
        "function that returns them; the first encrypts, all decrypt. Needs `surgetank[encryption]`",
    )
    yield Setting(
        section="spool",
        keyword="encryption_key_file",
        variables=("SURGETANK_SPOOL_ENCRYPTION_KEY_FILE",),
        read=lambda found: _key(found, is_file=True),
        permitted="a readable file",
        effect="a file with such lines, in place of `encryption_key`",
    )


def _key(found: Effective, *, is_file: bool) -> str | None:
    path = found.environment.text("SURGETANK_SPOOL_ENCRYPTION_KEY_FILE")
    if is_file:
        return path
    is_ignored = "SURGETANK_SPOOL_ENCRYPTION_KEY" in found.environment.ignored
    return None if path or is_ignored or found.spool.key_text is None else found.spool.key_text()


def memory() -> Iterator[Setting]:
    """Yield the watch over memory."""
    yield Setting(
        section="memory",
        keyword="adaptive",
        variables=("SURGETANK_ADAPTIVE",),
        read=lambda found: found.memory.adaptive,
        default=MemorySettings().adaptive,
        permitted=YES_OR_NO,
        effect="no: memory is not watched, and buffers keep their size",
    )
    for keyword, (low, high) in MEMORY_RANGES.items():
        unit, effect = _MEMORY[keyword]
        yield Setting(
            section="memory",
            keyword=keyword,
            variables=(f"SURGETANK_MEMORY_{keyword.upper()}",),
            default=getattr(MemorySettings(), keyword),
            unit=unit,
            permitted=between(low, high),
            effect=effect,
            read=lambda found, name=keyword: getattr(found.memory, name),  # type: ignore[misc]  # as above
        )


def seen() -> Iterator[Setting]:
    """Yield how others see a tank."""
    yield Setting(
        section="seen",
        keyword="self_metrics",
        variables=("SURGETANK_SELF_METRICS", "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED"),
        read=lambda found: found.has_self_metrics,
        default=False,
        permitted=YES_OR_NO,
        effect="the tank reports metrics of its own through the application's meter provider "
        "([decision 16](decisions/0016-what-an-operation-is.md))",
    )
    yield Setting(
        section="seen",
        keyword="status_enabled",
        variables=("SURGETANK_STATUS_ENABLED",),
        read=lambda found: found.status_folder is not None,
        default=True,
        permitted=YES_OR_NO,
        effect="a variable only: each tank has a small file by which other programs on the host see it "
        "([decision 17](decisions/0017-seen-from-outside.md))",
    )
    yield Setting(
        section="seen",
        keyword="status_dir",
        variables=("SURGETANK_STATUS_DIR",),
        read=lambda found: found.status_folder,
        permitted="a folder",
        effect="a variable only: where these files are; by default `$XDG_RUNTIME_DIR/surgetank`, or `surgetank-<user id>` in the folder for "
        "temporary files",
    )


def doors() -> Iterator[Setting]:
    """Yield what only some doors into OpenTelemetry read."""
    for signal, prefix in SDK_PREFIX.items():
        if prefix is not None:
            yield Setting(
                section="doors",
                keyword=f"{signal.value}.export_timeout",
                variables=(f"{prefix}EXPORT_TIMEOUT",),
                read=lambda found, name=f"{prefix}EXPORT_TIMEOUT": resolve_export_timeout(
                    name, None, found.environment
                ),  # type: ignore[misc]  # as above
                default=EXPORT_TIMEOUT,
                unit="seconds",
                effect="for one call of an exporter that a [drop-in class](drop-in.md) drives; the variable is in milliseconds",
            )
    for signal, infix in OTLP_INFIX.items():
        yield Setting(
            section="doors",
            keyword=f"{signal.value}.exporter",
            variables=(f"OTEL_{infix}EXPORTER",),
            read=lambda found, name=f"OTEL_{infix}EXPORTER": found.environment.text(name),  # type: ignore[misc]  # as above
            effect="`none`: `install` leaves the signal alone; under the configurator the exporters for OTLP are replaced "
            "([zero code](zero-code.md))",
        )
    yield Setting(
        section="doors",
        keyword="sdk_disabled",
        variables=("OTEL_SDK_DISABLED",),
        read=lambda found: found.environment.is_true("OTEL_SDK_DISABLED"),
        default=False,
        permitted=YES_OR_NO,
        effect="`install` leaves everything alone",
    )
    yield Setting(
        section="doors",
        keyword="configurator",
        variables=("OTEL_PYTHON_CONFIGURATOR",),
        read=lambda found: found.environment.text("OTEL_PYTHON_CONFIGURATOR"),
        effect="`surgetank`: [zero code](zero-code.md)",
    )
