"""What is odd about an environment without being refused: names that nobody reads, and values that are passed over.

Owns: no state. Threads: any. Invariants: no warning repeats a value of ours.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Final

from surgetank import arguments
from surgetank.arguments import OURS
from surgetank.catalogue.effective import Effective
from surgetank.catalogue.entries import variables

_THEIRS: Final = ("OTEL_BSP_", "OTEL_BLRP_", "OTEL_EXPORTER_OTLP_", "OTEL_METRIC_EXPORT_")
# As like as one letter too many or two that have changed places; less would call strangers relatives.
_CLOSE: Final = 0.9


def unread(said: Mapping[str, str] | None = None) -> Iterator[str]:
    """Yield a sentence for each of our variables that nobody reads, and for each of OpenTelemetry's that looks like a slip."""
    names = list(os.environ if said is None else said)
    for name, hint in arguments.unread(names):
        is_idle = not hint
        yield (
            f"{name} has no effect: metrics never wait for room"
            if is_idle
            else f"{name} is set, but there is no such setting; {hint}"
        )
    known = variables()
    for name in sorted(names):
        if name.startswith(_THEIRS) and name not in known and get_close_matches(name, known, 1, _CLOSE):
            yield f"{name} is set, but is not read; {arguments.nearest(name, known, _CLOSE)}"


def passed_over(effective: Effective) -> Iterator[str]:
    """Yield a sentence for each value of OpenTelemetry's variables, or part of one, that is ignored."""
    for name, line in effective.environment.said.items():
        if not name.startswith(OURS):
            yield line
