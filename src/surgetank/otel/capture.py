"""Standard `logging` as telemetry: OpenTelemetry's handler on the root logger, for `install(logging=True)`.

Owns: the handler that was put on the root logger, and the marks of the threads that are inside it.
Threads: `capture_logging` once, at start-up; the handler from any.
Invariants: a record that is logged while another one is being made into telemetry, or by a thread of ours, makes none; nothing
raises into the call that logs; whoever saw the application's warnings before still sees them.
"""

from __future__ import annotations

import functools
import logging
import logging.config
from collections.abc import Callable
from typing import Any, Final

from surgetank import threads
from surgetank.driver import is_own_thread
from surgetank.lines import TelemetryHandler, is_shown, makes_telemetry, say
from surgetank.otel.processors import OWN_LOGGER
from surgetank.otel.shim import new_logging_handler

_logger: Final = logging.getLogger("surgetank")
# What sets handlers up, and would take ours for the application's.
_SETTERS: Final = ((logging, "basicConfig"), (logging.config, "dictConfig"), (logging.config, "fileConfig"))
_inside: Final[Any] = threads.new_local()


class _Capture(TelemetryHandler):
    """Hands records on to OpenTelemetry's handler, which it surrounds."""

    def __init__(self, inner: logging.Handler) -> None:
        super().__init__()
        self._inner = inner

    def createLock(self) -> None:  # noqa: N802  # the base class's name
        """Have none: there is nothing here to guard, and whoever logs would wait for whoever else does."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Do as the base class does, without the lock."""
        found: Any = self.filter(record)
        if found:
            # Since 3.12 a filter may put another record in the place of the first.
            self.emit(found if isinstance(found, logging.LogRecord) else record)
        return bool(found)

    def emit(self, record: logging.LogRecord) -> None:
        """Make a record into telemetry."""
        if getattr(_inside, "is_inside", False):
            return
        _inside.is_inside = True
        try:
            if not is_own_thread():
                self._inner.emit(record)
        except Exception:
            # Arguments that do not fit the message, as other handlers treat them.
            self.handleError(record)
        finally:
            _inside.is_inside = False
        if record.levelno >= logging.WARNING and record.name.partition(".")[0] != OWN_LOGGER:
            self._show(record)

    def _show(self, record: logging.LogRecord) -> None:
        """Write a warning to standard error where no handler shows it, as Python does where there is none at all."""
        last = logging.lastResort
        if last is not None and not is_shown(record, but=self):
            last.handle(record)


def capture_logging() -> None:
    """Make telemetry of what is logged from now on, unless a handler of OpenTelemetry's does on the root logger already."""
    root = logging.getLogger()
    if any(map(makes_telemetry, root.handlers)):
        return
    inner = new_logging_handler()
    if inner is None:
        line = (
            "this version of OpenTelemetry has no handler for logging, so that logging=True has no effect; "
            "install opentelemetry-instrumentation-logging"
        )
        say(_logger, logging.WARNING, line)
        return
    handler = _Capture(inner)
    root.addHandler(handler)
    for module, name in _SETTERS:
        setattr(module, name, _without(handler, getattr(module, name)))


def _without(handler: logging.Handler, configure: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that sets logging up as if our handler were not there, and leaves it there; the SDK's configurator does so, too."""

    @functools.wraps(configure)
    def configured(*args: Any, **kwargs: Any) -> Any:
        root = logging.getLogger()
        is_there = handler in root.handlers
        if is_there:
            root.removeHandler(handler)
        try:
            return configure(*args, **kwargs)
        finally:
            if is_there:
                root.addHandler(handler)

    return configured
