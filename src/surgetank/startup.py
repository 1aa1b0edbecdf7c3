"""The line that a tank logs when it starts: where the signals go, where the spool is, what limits hold.

Owns: no state. Threads: any.
Invariants: one line, without credentials; what it says is what is obeyed, not what was asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from surgetank.config import MEBIBYTE, OutletConfig, SignalLimits, TankConfig
from surgetank.model import Signal
from surgetank.spool.settings import SpoolSettings


def place(url: str) -> str:
    """Return scheme, host and port of a URL: what signals share, and what may be logged."""
    parts = urlsplit(url)
    if not parts.netloc:
        # An exporter's name, in place of a URL.
        return url
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def destinations(signals: Iterable[Signal], outlets: Mapping[Signal, OutletConfig]) -> str:
    """Say where signals go, those together that share a place."""
    found: dict[str, list[str]] = {}
    for signal in signals:
        outlet = outlets[signal]
        way = f" ({outlet.protocol})" if urlsplit(outlet.url).netloc else ""
        found.setdefault(place(outlet.url) + way, []).append(signal.value)
    return ", ".join(f"{_listed(names)} to {where}" for where, names in found.items())


def spool(settings: SpoolSettings | None, limits: Mapping[Signal, SignalLimits]) -> str:
    """Say where batches are stored, and how much."""
    if settings is None:
        return "no spool, held in memory only"
    said = [f"at most {_mebibytes(settings.max_bytes)}", f"durability {settings.durability}"]
    if settings.key_text is not None:
        said.append("encrypted")
    ahead = [signal.value for signal, each in limits.items() if each.is_stored]
    said.append(f"for {_listed(ahead)}" if ahead else "at the end only")
    # With quotation marks, so that a line break in a folder's name makes no second line.
    return f"spool {settings.path!r} ({', '.join(said)})"


def memory(limits: Mapping[Signal, SignalLimits]) -> str:
    """Say what may be held in memory."""
    return ", ".join(
        f"{signal.value} {each.max_size:,} items or {_mebibytes(each.max_bytes)}" for signal, each in limits.items()
    )


def sentences(config: TankConfig, signals: list[Signal], stored: SpoolSettings | None) -> tuple[str, str, str]:
    """
    Return what a tank has to say of itself: destinations, spool, limits.

    Args:
        config: What it obeys.
        signals: Those in use.
        stored: The spool's settings; None where there is none.
    """
    limits = {signal: config.limits[signal] for signal in signals}
    return destinations(signals, config.outlets), spool(stored, limits), memory(limits)


def _mebibytes(size: int) -> str:
    return f"{size / MEBIBYTE:,.4g} MiB" if size < 10_000 * MEBIBYTE else f"{size // MEBIBYTE:,} MiB"


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
