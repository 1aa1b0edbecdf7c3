"""What a mapping in a declarative configuration file says, as arguments of `Tank`.

Owns: no state. Threads: any.
Invariants: a key that is not known is refused by name, with the one that was probably meant; no message repeats its value,
which may be a credential.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Final

from surgetank.config import BufferConfig, Timing
from surgetank.errors import ConfigError
from surgetank.memory.settings import MemoryConfig
from surgetank.spool.settings import SpoolConfig

_TANK_KEYS: Final = (
    "endpoint",
    "headers",
    "timeout",
    "protocol",
    "compression",
    "certificate_file",
    "client_key_file",
    "client_certificate_file",
    "proxy",
    "total_memory_mb",
    "shutdown_timeout",
    "metric_export_interval",
)
# Which record a key belongs to, and under which name. Where two records have a field of the same name, a prefix tells them apart.
_PREFIXES: Final[Mapping[type, str]] = {BufferConfig: "", Timing: "", SpoolConfig: "spool_", MemoryConfig: "memory_"}
_RECORD_KEYS: Final[Mapping[str, tuple[type, str]]] = {
    prefix + field.name: (record, field.name) for record, prefix in _PREFIXES.items() for field in fields(record)
}
_SIGNAL_PATHS: Final = ("/v1/traces", "/v1/metrics", "/v1/logs")


def tank_settings(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return what `Tank` takes.

    The limits of a buffer hold for each of the signals that use the mapping.

    Args:
        mapping: Arguments of `Tank`, fields of `BufferConfig` and `Timing`, `spool_` and `memory_` with those of
            `SpoolConfig` and `MemoryConfig`. A null means the default.

    Raises:
        ConfigError: A key is not known, or a value is outside its range.
    """
    found: dict[str, Any] = {}
    records: dict[type, dict[str, Any]] = {record: {} for record in _PREFIXES}
    for key, value in mapping.items():
        if key in _TANK_KEYS:
            found[key] = value
        elif key in _RECORD_KEYS:
            record, name = _RECORD_KEYS[key]
            records[record][name] = value
        else:
            raise ConfigError(key, "…", _permitted(key))
    if "headers" in found:
        found["headers"] = _headers(found["headers"])
    if isinstance(found.get("endpoint"), str):
        found["endpoint"] = _base_url(found["endpoint"])
    buffer = BufferConfig(**records[BufferConfig])
    timing = {name: value for name, value in records[Timing].items() if value is not None}
    return {
        **found,
        "spans": buffer,
        "metrics": buffer,
        "logs": buffer,
        "timing": Timing(**timing) if timing else None,
        "spool": SpoolConfig(**records[SpoolConfig]),
        "memory": MemoryConfig(**records[MemoryConfig]),
    }


def _permitted(key: str) -> str:
    known = [*_TANK_KEYS, *_RECORD_KEYS]
    near = get_close_matches(key, known, n=1)
    if near:
        return f"{near[0]!r}, which is probably what was meant"
    return "one of " + ", ".join(sorted(known))


def _headers(given: Any) -> dict[str, Any] | None:
    """Read headers as a mapping, or as the list of names and values that the SDK's own exporters have."""
    if given is None:
        return None
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list) and all(isinstance(each, Mapping) and "name" in each for each in given):
        return {each["name"]: each.get("value") or "" for each in given}
    # What was given may hold a credential, so the message does not repeat it.
    raise ConfigError("headers", "…", "a mapping from names to values, or a list of name and value")


def _base_url(endpoint: str) -> str:
    """Return an endpoint without a signal's path, with which the SDK's own exporters are written in such files."""
    for path in _SIGNAL_PATHS:
        if endpoint.rstrip("/").endswith(path):
            return endpoint.rstrip("/").removesuffix(path)
    return endpoint
