"""Every exception that surgetank raises, and nothing else.

Owns: no state. Threads: any.

Nothing here is ever raised by `offer`, `on_end`, `on_emit` or a background
thread: a full buffer, an open breaker or a refused batch is a value that the
statistics report, not an exception in the host application.
"""

from __future__ import annotations

from typing import Final

from surgetank import redaction

HIDDEN: Final = "…"
"""In the place of a value that may be a credential."""


class SurgetankError(Exception):
    """The base of every exception that surgetank raises."""


class ConfigError(SurgetankError, ValueError):
    """
    A configuration that cannot work, raised when it is constructed.

    Args:
        field: The field's name, as the user wrote it (keyword or variable).
        value: The value that was refused. What may be a credential in it is not kept; `…` stands for one that is not shown at all.
        permitted: What would have been accepted, in words or as a range; completes "must be".
    """

    def __init__(self, field: str, value: object, permitted: str) -> None:
        self.field = field
        self.value = redaction.shown(value)
        self.permitted = permitted
        got = "" if self.value == HIDDEN else f" (got {self.value!r})"
        super().__init__(f"{field} must be {permitted}{got}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, object, str]]:
        return type(self), (self.field, self.value, self.permitted)


class SpoolKeyError(SurgetankError):
    """A stored batch is encrypted with a key that is not at hand, or with another one; it stays where it is."""
