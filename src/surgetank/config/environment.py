"""What the environment says, and how each kind of mistake in it is treated.

Owns: what was ignored. Threads: any.
Invariants: a bad `SURGETANK_*` value is refused with its name, the value and the permitted range; a bad `OTEL_*` value is
logged and ignored, because that is how the SDK reads its own variables.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from surgetank.errors import ConfigError

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


MEBIBYTE: Final = 1024 * 1024


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is not a number in `low..high`; bool is not a number here."""
    kind = "a whole number" if whole else "a number"
    permitted = f"{kind} from {low:.10g} to {high:.10g}"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(name, value, permitted)
    if not low <= value <= high:
        raise ConfigError(name, value, permitted)


def check_choice(name: str, value: object, permitted: tuple[str, ...]) -> None:
    """Refuse what is none of these words."""
    if value not in permitted:
        raise ConfigError(name, value, "one of " + ", ".join(map(repr, permitted)))


class Environment:
    """Reads variables once, remembering how each kind of mistake is treated."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.ignored: dict[str, str] = {}
        """Variables of the SDK's whose values are not understood, and these values."""

    def text(self, name: str) -> str | None:
        """Return the value, or None where it is unset or blank (the specification treats the two alike)."""
        value = self._variables.get(name, "").strip()
        return value or None

    def ours(self, name: str, parse: Callable[[str], _T], permitted: str) -> _T | None:
        """Read one of our own variables; a value that does not parse is refused."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            raise ConfigError(name, value, permitted) from None

    def theirs(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """Read one of the SDK's variables; a value that does not parse is logged and ignored, as the SDK does."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            self.ignored[name] = value
            _logger.warning("%s=%r is not understood and ignored", name, value)
            return None


def parse_bool(text: str) -> bool:
    """Read yes or no; raises ValueError for any other word."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def parse_positive_int(text: str) -> int:
    """Read a whole number above 0; raises ValueError for anything else."""
    value = int(text)
    if value <= 0:
        raise ValueError(text)
    return value


def parse_positive_millis(text: str) -> float:
    """Read milliseconds above 0 and return seconds; raises ValueError for anything else."""
    value = float(text)
    if not (0 < value < math.inf):
        raise ValueError(text)
    return value / 1000
