"""What one check has found.

Owns: no state. Threads: any. Invariants: whatever is not well says what to do next.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any


class State(enum.Enum):
    """How it stands, from best to worst."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One sentence about one thing."""

    check: str
    """What was looked at, such as `endpoint of spans`."""
    state: State
    text: str
    advice: str = ""
    """What to do next; empty where nothing need be done."""

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"check": self.check, "state": self.state.value, "text": self.text, "advice": self.advice}


def ok(check: str, text: str) -> Finding:
    """Return what is well."""
    return Finding(check=check, state=State.OK, text=text)


def warning(check: str, text: str, advice: str) -> Finding:
    """Return what may become trouble."""
    return Finding(check=check, state=State.WARNING, text=text, advice=advice)


def failed(check: str, text: str, advice: str) -> Finding:
    """Return what loses telemetry, or will."""
    return Finding(check=check, state=State.FAILED, text=text, advice=advice)
