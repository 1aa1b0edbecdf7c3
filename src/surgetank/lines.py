"""Our own log lines: logged without ever raising, and never silent where nobody would see them.

Owns: the handler of the logger `surgetank`. Threads: any.
Invariants: nothing here raises; a warning goes to standard error if no handler that a person could read is reachable.

A handler that lacks a `try`, or a filter with a mistake in it, raises out of the call that logs. On a thread of ours that
would come at the worst moment, the beginning of an outage, and between two steps that belong together.

Where an application configures no logging, Python writes warnings to standard error. OpenTelemetry's handler on the root
logger switches that off, and is the very handler whose telemetry may not be getting through.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Final

# So that a line without a logger's name says who speaks.
_PREFIX: Final = "surgetank: "


def printable(text: str, longest: int = 4096) -> str:
    """
    Return what comes from a file system, a server or another process as one line that does nothing to a terminal.

    Args:
        text: From outside: it may hold escape sequences, line breaks, and what turns the reading direction.
        longest: Characters to keep.
    """
    return "".join(filter(str.isprintable, " ".join(text[: 4 * longest].split())))[:longest]


def escaped(text: str) -> str:
    """Return a text with its lines and blanks as they are, and everything else that a terminal obeys as an escape that can be read."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape", "backslashreplace").decode()
        for each in text
    )


def say(logger: logging.Logger, level: int, message: str, *args: object, is_error: bool = False) -> None:
    """Log a line; with `is_error`, and the exception that is being handled. What comes from outside cannot reach a terminal as a command."""
    try:
        plain = (escaped(each) if isinstance(each, str) else each for each in args)
        logger.log(level, escaped(message), *plain, exc_info=is_error)
    except Exception:
        # The application's handler has a defect of its own, and there is no other way to tell anybody.
        pass


class TelemetryHandler(logging.Handler):
    """What a handler of ours is derived from that makes telemetry of records."""


class _LastResort(logging.Handler):
    """Writes warnings to standard error for as long as no handler but OpenTelemetry's is reachable."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, unless somebody else shows it, or was told not to (`NullHandler`)."""
        try:
            if sys.stderr is not None and not is_shown(record, but=self):
                text = self.format(record)
                sys.stderr.write(f"{'' if text.startswith(_PREFIX) else _PREFIX}{text}\n")
                sys.stderr.flush()
        except Exception:
            # Standard error is closed, or somebody else's; nobody is left to be told.
            pass


def is_shown(record: logging.LogRecord, *, but: logging.Handler) -> bool:
    """Whether a handler that a person could read, other than this one, gets a record, or one is there to swallow it."""
    others = (each for each in _reachable(logging.getLogger(record.name)) if each is not but)
    return not all(map(makes_telemetry, others))


def _reachable(logger: logging.Logger | None) -> Iterator[logging.Handler]:
    """Yield the handlers that a record of this logger comes to, as `Logger.callHandlers` finds them."""
    while logger is not None:
        yield from logger.handlers
        logger = logger.parent if logger.propagate else None


def makes_telemetry(handler: logging.Handler) -> bool:
    """
    Whether a handler makes telemetry of records: ours, OpenTelemetry's, and what is derived from it.

    Asked by name, because this module must not import it.
    """
    return isinstance(handler, TelemetryHandler) or any(
        each.__module__.split(".")[0] == "opentelemetry" for each in type(handler).__mro__
    )


def _install() -> None:
    logger = logging.getLogger("surgetank")
    # By name, so that a module that is loaded anew does not add a second one.
    if not any(type(each).__name__ == _LastResort.__name__ for each in logger.handlers):
        logger.addHandler(_LastResort())


_install()
