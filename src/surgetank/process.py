"""The process's tank: the one that `install` and every entry point of OpenTelemetry share.

Owns: the tanks that were made here, and which signals of theirs have a door into OpenTelemetry already.
Threads: any; `_lock` is held while a tank is made, so that two threads that come at once get the same one.
Invariants: a tank that was shut down is not given out again; no signal of a tank is wired twice, or its items
would be sent twice.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Final

from surgetank import threads
from surgetank.model import Signal
from surgetank.tank import Tank

_logger: Final = logging.getLogger("surgetank")


class Shared:
    """
    A tank, and which of its signals have a door already.

    Args:
        settings: What `Tank` takes.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.tank = Tank(**settings)
        self.settings = dict(settings)
        self._claimed: set[Signal] = set()

    def claim(self, signal: Signal) -> bool:
        """Take the right to wire a signal; only the first to ask has it."""
        with _lock:
            is_free = signal not in self._claimed
            self._claimed.add(signal)
        return is_free


# Re-entrant: making a tank may run a destructor that asks for one.
_lock = threads.new_rlock()
_first: Shared | None = None
_by_mapping: dict[str, Shared] = {}


def shared(settings: Mapping[str, Any]) -> Shared:
    """
    Return the process's tank; where there is none, or it was shut down, make it.

    Args:
        settings: What `Tank` takes; a tank that there is keeps its own.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
    """
    global _first
    with _lock:
        found = _first
        if found is None or found.tank.is_shut_down:
            _first = found = Shared(settings)
            return found
    other = sorted(name for name, value in settings.items() if found.settings.get(name) != value)
    if other:
        _logger.warning(
            "this process has a tank already, and the settings of the first call stay until it is shut down; without effect: %s",
            ", ".join(other),
        )
    return found


def shared_for(mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> Shared:
    """
    Return the tank for a mapping of a configuration file: equal mappings share one, an empty one has the process's.

    Args:
        mapping: As it stands in the file.
        settings: What `Tank` makes of it.

    Raises:
        ConfigError: A setting is outside its range, or two contradict each other.
    """
    global _first
    if not mapping:
        return shared({})
    name = json.dumps(mapping, sort_keys=True, default=repr)
    with _lock:
        found = _by_mapping.get(name)
        if found is None or found.tank.is_shut_down:
            found = _by_mapping[name] = Shared(settings)
        if _first is None or _first.tank.is_shut_down:
            # So that `install` and mappings that are left empty share it.
            _first = found
    return found


def _renew_lock() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threads.new_rlock()


# Not on Windows, where nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
