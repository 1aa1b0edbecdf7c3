"""What may be repeated of a value that people see: in a repr, a log line, an error, a status file or the command's output.

Owns: no state. Threads: any; never raises.
Invariants: user and password of a URL, the values of its query, and the values of headers never come out. This is the one
place that decides so; whoever shows a setting to somebody calls it.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping
from typing import Any, Final

MASK: Final = "***"
"""Stands for what is not shown."""
# Longer values are cut: a file's content in the place of its path is not worth a page of log.
_LONGEST: Final = 200
# Whatever stands before the last @ may belong to a password, in which people write slashes, too.
_USER: Final = re.compile(r"^((?:[^/@:]*:)?//)?.*@", re.DOTALL)
_QUERY_VALUE: Final = re.compile(r"=[^&;]*")


def url(text: str) -> str:
    """Return a URL, or what was meant to be one, without user, password, and the values of its query and fragment."""
    rest, sharp, _ = text.partition("#")
    place, question, query = rest.partition("?")
    if "@" in query or "@" in text.partition("#")[2]:
        # An unescaped ? or # in a password; what comes before the @ is not a host.
        return _USER.sub(lambda found: f"{found[1] or ''}{MASK}@", text).partition("?")[0].partition("#")[0]
    shown = _USER.sub(lambda found: f"{found[1] or ''}{MASK}@", place)
    if question:
        parts = (_QUERY_VALUE.sub(f"={MASK}", part) if "=" in part else MASK for part in query.split("&"))
        shown += "?" + "&".join(parts)
    return shown + (f"#{MASK}" if sharp else "")


def headers(given: Mapping[str, str]) -> dict[str, str]:
    """Return headers with their names only."""
    return {str(name): MASK for name in given}


def shown(value: object) -> Any:
    """
    Return what may be shown of any value: numbers and words as they are, URLs without credentials, texts in mappings masked.

    Of an object that is none of these the name of its class is left, for nobody knows what its repr says.
    """
    if isinstance(value, (bool, int, float, enum.Enum, type(None))):
        return value
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return {
            _text(str(name)): MASK if isinstance(each, (str, bytes)) else shown(each) for name, each in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [MASK if isinstance(each, (str, bytes)) else shown(each) for each in value]
    return Unshown(type(value).__name__)


def _text(text: str) -> str:
    if any(mark in text for mark in "@?#") or "://" in text:
        text = url(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


class Unshown(str):
    """The name of a class, for an object that is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"a {self}"
