"""Every exception that surgetank raises, and nothing else.

Owns: no state. Threads: any.

Nothing here is ever raised by `offer`, `on_end`, `on_emit` or a background
thread: a full buffer, an open breaker or a refused batch is a value that the
statistics report, not an exception in the host application.
"""

from __future__ import annotations


class SurgetankError(Exception):
    """The base of every exception that surgetank raises."""


class ConfigError(SurgetankError, ValueError):
    """
    A configuration that cannot work, raised when it is constructed.

    Args:
        field: The field's name, as the user wrote it (keyword or variable).
        value: The value that was refused.
        permitted: What would have been accepted, in words or as a range.
    """

    def __init__(self, field: str, value: object, permitted: str) -> None:
        super().__init__(f"{field}={value!r} is refused: permitted is {permitted}")
        self.field = field
        self.value = value
        self.permitted = permitted


class SpoolKeyError(SurgetankError):
    """A stored batch is encrypted with a key that is not at hand, or with another one; it stays where it is."""
