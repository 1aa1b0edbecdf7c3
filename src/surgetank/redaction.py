"""What may be repeated of a value that people see: in a repr, a log line, an error, a status file or the command's output.

Owns: no state. Threads: any; never raises.
Invariants: user and password of a URL, the values of its query, and the values of headers never come out. This is the one
place that decides so; whoever shows a setting to somebody calls it.
"""

from __future__ import annotations

import enum
import os
import re
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final
from urllib.parse import unquote, unquote_to_bytes

MASK: Final = "***"
"""Stands for what is not shown."""
# Longer values are cut: a file's content in the place of its path is not worth a page of log.
_LONGEST: Final = 200
# What is shorter is no credential that is worth anything, and would take words out of sentences.
_SHORTEST: Final = 6
# Whatever stands before the last @ may belong to a password, in which people write slashes, too.
_USER: Final = re.compile(r"^((?:[^/@:]*:)?//)?.*@", re.DOTALL)
_NAME: Final = re.compile(r"[\w.-]{1,60}")
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
    return {_key(name): MASK for name in given}


def _key(name: object) -> str:
    # What looks like no name may be a value that stands in the wrong place.
    return name if isinstance(name, str) and _NAME.fullmatch(name) else MASK


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
        return {_key(name): MASK if isinstance(each, (str, bytes)) else shown(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [MASK if isinstance(each, (str, bytes)) else shown(each) for each in value]
    return Unshown(type(value).__name__)


def record(given: Any) -> str:
    """Return the repr of a record that users write: its fields that are not left out, as far as they may be shown."""
    named = [(each.name, getattr(given, each.name)) for each in fields(given) if each.repr]
    said = ", ".join(f"{name}={shown(value)!r}" for name, value in named if value is not None)
    return f"{type(given).__name__}({said})"


class Scrubber:
    """
    Takes known credentials out of what others say, such as a receiver's complaint that repeats the key that it refuses.

    Args:
        urls: With credentials in them.
        values: Of headers.
    """

    def __init__(self, urls: Iterable[str], values: Iterable[str]) -> None:
        found: set[str] = set()
        for value in values:
            # `Bearer TOKEN` is as often repeated without its first word.
            found |= {value, value.rpartition(" ")[2]}
        for each in urls:
            found |= _secrets_in(each)
        # The longest first, so that no rest of it is left; what is shorter than a credential may be a word of the language.
        self._secrets = sorted((each for each in found if len(each) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """Return a text without these credentials."""
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        # What is said is cut to a length, perhaps in the middle of one.
        for secret in self._secrets:
            for length in range(min(len(secret) - 1, len(text)), _SHORTEST - 1, -1):
                if text.endswith(secret[:length]):
                    return text[:-length] + MASK
        return text

    def __repr__(self) -> str:
        return "Scrubber()"


def _secrets_in(text: str) -> set[str]:
    place, _, query = text.partition("?")
    found = {pair.partition("=")[2] or pair for pair in query.split("&")}
    user = _USER.match(place)
    if user is not None:
        both = user[0][len(user[1] or "") : -1]
        found |= {both, both.partition(":")[2], b64encode(unquote_to_bytes(both)).decode()}
    return found | {unquote(each) for each in found}


def _text(text: str) -> str:
    is_path = text.startswith(("/", "~", ".")) and not text.startswith("//")
    if not is_path and ("://" in text or "@" in text or ("?" in text and "=" in text)):
        text = url(text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


class Unshown(str):
    """The name of a class, for an object that is not shown."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"a {self}"
