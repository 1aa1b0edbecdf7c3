"""Consistent probability sampling, as a tracestate tells it: a trace's randomness, and the threshold it has passed.

Owns: no state. Threads: any.
Invariants: what is written is a valid `ot` member; the other members stay as they were and in their order, behind ours.

Randomness and threshold are numbers of 56 bits; a span is kept where its randomness is not below the threshold,
so it stands for `2**56 / (2**56 - threshold)` spans. Whoever decides by the same randomness keeps the same traces.
The format is described at https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

BITS: Final = 56
THRESHOLD_MAX: Final = 2**BITS
"""What nothing would pass."""
RANDOMNESS: Final = THRESHOLD_MAX - 1
"""The part of a trace id that is random, as a mask."""

_DIGITS: Final = BITS // 4
# W3C's limits: a longer list or value may be cut off or thrown away by whoever gets it next.
_MEMBERS_MAX: Final = 32
_VALUE_MAX: Final = 256
_SUB_KEY: Final = re.compile(r"([a-z][a-z0-9]*):([A-Za-z0-9._-]*)")
_is_hexadecimal: Final = re.compile(r"[0-9A-Fa-f]+").fullmatch


def threshold_of_one_in(power: int) -> int:
    """Return the threshold that one trace in `2**power` passes."""
    return THRESHOLD_MAX - (THRESHOLD_MAX >> power)


def threshold_text(threshold: int) -> str:
    """Return a threshold as `th` has it: hexadecimal, without trailing zeros."""
    return f"{threshold:0{_DIGITS}x}".rstrip("0") or "0"


def sub_keys(value: Any) -> dict[str, str]:
    """Return what the value of an `ot` member says; what is malformed in it is left out, `rv` and `th` only if they are numbers."""
    found: dict[str, str] = {}
    if not isinstance(value, str):
        return found
    for part in value.split(";"):
        if match := _SUB_KEY.fullmatch(part):
            found.setdefault(match[1], match[2])
    if not (_is_hexadecimal(found.get("rv", "")) and len(found["rv"]) == _DIGITS):
        found.pop("rv", None)
    if not (_is_hexadecimal(found.get("th", "")) and len(found["th"]) <= _DIGITS):
        found.pop("th", None)
    return found


def thinned(trace_id: int, trace_state: Mapping[str, str], threshold: int) -> Mapping[str, str] | None:
    """
    Return the tracestate with which a span is kept, or None when it is not.

    Args:
        trace_id: Random in its lowest 56 bits, unless the tracestate has an `rv`.
        trace_state: The span's; returned as it is when somebody has thinned out at least as much before.
        threshold: What the span has to pass.
    """
    known = sub_keys(trace_state.get("ot"))
    if _threshold(known) >= threshold:
        # It has passed that one, so it passes ours; and to claim that it stands for fewer would be wrong.
        return trace_state
    if _randomness(trace_id, known) < threshold:
        return None
    return _merged(trace_state, known, threshold)


def _randomness(trace_id: int, known: Mapping[str, str]) -> int:
    return int(known["rv"], 16) if "rv" in known else trace_id & RANDOMNESS


def _threshold(known: Mapping[str, str]) -> int:
    return int(known.get("th", "").ljust(_DIGITS, "0"), 16)


def _merged(trace_state: Mapping[str, str], known: dict[str, str], threshold: int) -> Mapping[str, str]:
    known["th"] = threshold_text(threshold)
    value = _joined(known)
    if len(value) > _VALUE_MAX:
        # Without these two, counts and traces would be wrong; without the others, what nobody has specified yet.
        value = _joined({key: known[key] for key in ("rv", "th") if key in known})
    others = [(key, member) for key, member in trace_state.items() if key != "ot"]
    return {"ot": value, **dict(others[: _MEMBERS_MAX - 1])}


def _joined(known: Mapping[str, str]) -> str:
    return ";".join([f"{key}:{value}" for key, value in known.items()])
