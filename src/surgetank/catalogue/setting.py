"""What is known of one setting, and what all of them come to in one environment.

Owns: no state. Threads: any.
Invariants: values are read from what the tank itself resolves, so that what is shown is what is obeyed; a secret is never shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from surgetank import redaction
from surgetank.catalogue.effective import Effective
from surgetank.model import Signal

YES_OR_NO: Final = "true or false"
SECTIONS: Final[Mapping[str, str]] = {
    "buffer": "buffers",
    "outlet": "delivery",
    "tank": "tank",
    "timing": "timing",
    "spool": "spool",
    "memory": "memory",
    "seen": "status and self-metrics",
    "doors": "doors",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, of one signal or of the whole tank."""

    section: str
    keyword: str
    variables: tuple[str, ...]
    """The first that is set counts."""
    read: Callable[[Effective], Any]
    """Returns the value that is obeyed."""
    default: Any = None
    unit: str = ""
    permitted: str = ""
    effect: str = ""
    """What it does, in Markdown."""
    signal: Signal | None = None
    is_secret: bool = False
    ends_at_ignored: bool = False
    """Whether a variable that is not understood means the default, and not the next variable."""
    yields_to: str = ""
    """A variable beside which this setting has no say."""
    origin: Callable[[Effective], str | None] | None = None
    """Returns the variable that the value comes from, where that is not simply the first that is set."""
    chosen: Callable[[Effective], Any] | None = None
    """Returns what was asked for, where what is obeyed may be less."""
    because: str = ""
    """Why it may be less."""

    @property
    def name(self) -> str:
        """Its name among all settings, such as `spans.max_size`."""
        owner = self.signal.value if self.signal is not None else self.section
        return self.keyword if owner in ("tank", "doors", "seen") else f"{owner}.{self.keyword}"

    def source(self, effective: Effective) -> str | None:
        """Return the variable that the value comes from; None for the default."""
        if self.origin is not None:
            return self.origin(effective)
        environment = effective.environment
        if self.yields_to and environment.text(self.yields_to) is not None:
            return None
        for variable in self.variables:
            if environment.text(variable) is None:
                continue
            if variable not in environment.ignored:
                return variable
            if self.ends_at_ignored:
                return None
        return None

    def value(self, effective: Effective) -> Any:
        """Return the value that is obeyed, as JSON has it and without secrets."""
        return self._safe(self.read(effective))

    def note(self, effective: Effective) -> str:
        """Say why the value is not what was asked for; empty where it is."""
        asked = None if self.chosen is None else self.chosen(effective)
        return "" if asked is None or asked == self.read(effective) else f"{plain(asked)} asked for: {self.because}"

    def _safe(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: redaction.MASK if self.is_secret else text for name, text in value.items()}
        if self.is_secret and value is not None:
            return redaction.MASK
        return redaction.shown(value) if isinstance(value, str) else value


def plain(value: Any) -> str:
    """Return a value as people read it."""
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if value < 10_000 else f"{value:.0f}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={text}" for name, text in value.items())
    return str(value)


def between(low: float, high: float) -> str:
    """Return a range as people read it."""
    # A number of millions is easier to read with its digits than with an exponent.
    return f"{low:,.10g} to {high:,.10g}".replace(",", " ")


def one_of(choices: tuple[str, ...]) -> str:
    """Return the words that are permitted."""
    return ", ".join(choices)
