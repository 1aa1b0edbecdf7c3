"""What the environment says. A value that is of no use is ignored, with one line: telemetry must not stop an application.

Owns: what was ignored, and which lines were logged in this process. Threads: any.
Invariants: nothing that a variable says is raised; each mistake is logged once in a process, with the variable's name, the value
where that cannot be a credential, and what would have been accepted.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Final, TypeVar
from urllib.parse import unquote

from surgetank.errors import HIDDEN, ConfigError
from surgetank.lines import say

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


MEBIBYTE: Final = 1024 * 1024
OTLP: Final = "OTEL_EXPORTER_OTLP_"
"""What the variables of OpenTelemetry's exporters begin with."""
# Which lines were logged, by variable and value. Several tanks, and three signals of each, read the same variables.
_told: Final[set[tuple[str, str]]] = set()
_TOLD_MAX: Final = 1000


def in_words(low: float, high: float, *, whole: bool = False) -> str:
    """Return what a number must be."""
    return f"{'a whole number' if whole else 'a number'} from {low:,.10g} to {high:,.10g}"


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is not a number in `low..high`; bool is not a number here."""
    permitted = in_words(low, high, whole=whole)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(name, value, permitted)
    if not low <= value <= high:
        raise ConfigError(name, value, permitted)


def check_choice(name: str, value: object, permitted: tuple[str, ...]) -> None:
    """Refuse what is none of these words."""
    if not isinstance(value, str) or value not in permitted:
        raise ConfigError(name, value, "one of " + ", ".join(map(repr, permitted)))


def check_flag(name: str, value: object) -> None:
    """Refuse what is neither None nor a bool."""
    if value is not None and not isinstance(value, bool):
        raise ConfigError(name, value, "True or False")


def check_kind(name: str, value: object, kind: type | tuple[type, ...], words: str) -> None:
    """Refuse what is neither None nor of this kind; `words` complete "must be"."""
    if value is not None and not isinstance(value, kind):
        raise ConfigError(name, value, words)


class Environment:
    """
    Reads variables, and remembers those that are ignored.

    Args:
        variables: In place of the process's own.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables
        self.ignored: dict[str, ConfigError] = {}
        """Variables whose values are of no use, and why."""
        self.said: dict[str, str] = {}
        """The lines that there were to log about variables, whether or not they had been logged before."""

    def text(self, name: str) -> str | None:
        """Return the value, or None where it is unset or blank (the specification treats the two alike)."""
        value = self._variables.get(name, "").strip()
        return value or None

    def service_name(self) -> str:
        """Return what the application calls itself: `OTEL_SERVICE_NAME`, else `service.name` of `OTEL_RESOURCE_ATTRIBUTES`; else empty."""
        for pair in (self.text("OTEL_RESOURCE_ATTRIBUTES") or "").split(","):
            name, _, value = pair.partition("=")
            if name.strip() == "service.name":
                return self.text("OTEL_SERVICE_NAME") or unquote(value.strip())
        return self.text("OTEL_SERVICE_NAME") or ""

    def names(self) -> list[str]:
        """Return the names of all variables that are set."""
        return list(self._variables)

    def read(self, name: str, parse: Callable[[str], _T], permitted: str) -> _T | None:
        """
        Return what a variable says; None where it is unset, and where it is ignored.

        Args:
            name: The variable.
            parse: Raises ValueError, or ConfigError with a better word than `permitted`, for what is of no use.
            permitted: What would be accepted; completes "must be".
        """
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ConfigError as error:
            self.ignore(name, error.permitted, is_shown=error.value != HIDDEN)
        except ValueError:
            self.ignore(name, permitted)
        return None

    def number(self, name: str, low: float, high: float, *, unit: float = 1.0) -> float | None:
        """Read a number in `low..high`; with a `unit` of 0.001 what is read is milliseconds, and what is returned seconds."""

        def parse(text: str) -> float:
            value = float(text) * unit
            if not low <= value <= high:
                raise ValueError(text)
            return value

        words = in_words(low / unit, high / unit)
        return self.read(name, parse, words if unit == 1.0 else f"{words} (milliseconds)")

    def choice(self, name: str, choices: tuple[_T, ...]) -> _T | None:
        """Read one of some words, in large or small letters."""

        def parse(text: str) -> _T:
            for each in choices:
                if text.lower() == each:
                    return each
            raise ValueError(text)

        return self.read(name, parse, "one of " + ", ".join(map(repr, choices)))

    def flag(self, name: str) -> bool | None:
        """Read yes or no."""
        return self.read(name, parse_bool, "true or false")

    def is_true(self, name: str) -> bool:
        """Read one of OpenTelemetry's own switches, of which only the word `true` turns anything on."""
        return self.choice(name, ("true", "false")) == "true"

    def ignore(self, name: str, permitted: str, *, is_shown: bool = True, then: str = "it is ignored") -> None:
        """
        Pass a variable over, and say so.

        Args:
            name: The variable.
            permitted: What would have been accepted; completes "must be".
            is_shown: False where its value may be a credential.
            then: What comes of it.
        """
        value = self.text(name) or ""
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            permitted += "; remove the quotation marks"
        error = self.ignored[name] = ConfigError(name, value if is_shown else HIDDEN, permitted)
        if is_shown:
            self.say_once(name, value, "%s must be %s (got %r); %s", name, permitted, error.value, then)
        else:
            self.say_once(name, value, "%s must be %s; %s", name, permitted, then)

    def say_once(self, name: str, value: str, line: str, *args: object) -> None:
        """Log a line about a variable's value, once in a process."""
        self.said[name] = line % args
        say_once(name, value, line, *args)


def say_once(name: str, value: str, line: str, *args: object) -> None:
    """Log a line about what is called so, once in a process for each value."""
    if (name, value) in _told or len(_told) >= _TOLD_MAX:
        return
    _told.add((name, value))
    say(_logger, logging.WARNING, line, *args)


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
    value = float(text) / 1000
    # Half of a millisecond's millionth part is above 0, and may be nothing after the division.
    if not (0 < value < math.inf):
        raise ValueError(text)
    return value
