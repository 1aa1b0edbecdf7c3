"""What a panel of the dashboard is, and what it is painted with.

Owns: no state. Threads: any. Invariants: colours are Okabe and Ito's, which people tell apart whatever their eyes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW, GREY = "#56B4E9", "#CC79A7", "#F0E442", "#999999"
COLOURS: Final = (VERMILION, ORANGE, BLUE, GREEN, PURPLE, SKY, YELLOW, GREY)
BY_SIGNAL: Final = {"spans": BLUE, "metrics": ORANGE, "logs": GREEN}

# Given up against everybody's will: `sampled` was asked for, and what comes after a shutdown was never taken.
LOST: Final = 'error_type!~"sampled|already_shutdown"'
# The SDK's own processors have metrics of the same names; exporters are told apart by the services alone that are chosen.
OURS: Final = 'otel_component_type=~"surgetank.+"'

Thresholds = Sequence[tuple[float | None, str]]
ALARM_ABOVE_0: Final[Thresholds] = ((None, BLUE), (1e-9, VERMILION))
WARN_ABOVE_0: Final[Thresholds] = ((None, BLUE), (1e-9, ORANGE))
FULL: Final[Thresholds] = ((None, BLUE), (0.8, ORANGE), (0.95, VERMILION))
SHRUNK: Final[Thresholds] = ((None, VERMILION), (0.5, ORANGE), (1.0, BLUE))
PLAIN: Final[Thresholds] = ((None, BLUE),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: what it asks, and what its answer means."""

    title: str
    means: str
    queries: Sequence[tuple[str, str]]
    """Expressions, each with its legend; `$HERE` is the choice of jobs and instances."""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    thresholds: Thresholds = PLAIN
    is_stacked: bool = False
    is_dashed_line: bool = False
    """Whether thresholds are drawn into the picture."""
    top: float | None = None
    bottom: float | None = 0
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)
