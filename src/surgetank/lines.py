"""Our own log lines, said so that nothing an application has hung into `logging` can hurt whoever says them.

Owns: no state. Threads: any. Invariants: never raises.

A handler that lacks a `try`, or a filter with a mistake in it, raises out of the call that logs. On a thread of ours that
would come at the worst moment, the beginning of an outage, and between two steps that belong together.
"""

from __future__ import annotations

import logging


def say(logger: logging.Logger, level: int, message: str, *args: object, is_error: bool = False) -> None:
    """Log a line; with `is_error`, and the exception that is being handled."""
    try:
        logger.log(level, message, *args, exc_info=is_error)
    except Exception:
        # The application's handler has a defect of its own, and there is no other way to tell anybody.
        pass
