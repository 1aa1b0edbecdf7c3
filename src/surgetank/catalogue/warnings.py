"""What is odd about an environment without being refused: names that nobody reads, and values that are passed over.

Owns: no state. Threads: any. Invariants: no warning repeats a value of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from surgetank.catalogue.effective import OURS, Effective
from surgetank.catalogue.entries import variables
from surgetank.catalogue.signals import WITHOUT_EFFECT

_THEIRS: Final = ("OTEL_BSP_", "OTEL_BLRP_", "OTEL_EXPORTER_OTLP_", "OTEL_METRIC_EXPORT_")
# Of the project's own scripts; they say nothing to a tank.
_ELSEWHERE: Final = frozenset({"SURGETANK_VENV"})
# As like as one letter too many or two that have changed places; less would call strangers relatives.
_CLOSE: Final = 0.9


def unread(said: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a sentence for each of our variables that nobody reads, and for each of OpenTelemetry's that looks like a slip."""
    known = sorted(variables())
    for name in sorted(os.environ if said is None else said):
        if name in known or name in _ELSEWHERE:
            continue
        if name in WITHOUT_EFFECT:
            yield f"{name} has no effect: metrics never wait for room"
        elif name.startswith(OURS):
            yield f"{name} is set, but there is no such setting{_nearest(name, known, 0.6)}"
        elif name.startswith(_THEIRS) and get_close_matches(name, known, 1, _CLOSE):
            yield f"{name} is set, but is not read{_nearest(name, known, _CLOSE)}"


def passed_over(effective: Effective) -> Iterator[str]:
    """Yield a sentence for each value of OpenTelemetry's variables, or part of one, that is ignored."""
    for name, line in effective.environment.said.items():
        if not name.startswith(OURS):
            yield line


def _nearest(name: str, known: list[str], cutoff: float) -> str:
    near = get_close_matches(name, known, 1, cutoff)
    return f"; did you mean {near[0]}?" if near else "; `surgetank config` lists those that there are"
