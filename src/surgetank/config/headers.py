"""Headers of requests: as keywords and OTLP's variables say, and as HTTP and gRPC can carry them.

Owns: no state. Threads: any.
Invariants: no message repeats a header's value, or a name that is none; a header of a variable that cannot be sent is left out with one line,
and the others stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from surgetank.config.environment import OTLP, Environment
from surgetank.errors import HIDDEN, ConfigError

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# They describe the body or the connection, and are set where these are made.
OWN_HEADERS: Final = ("content-type", "content-encoding", "content-length", "transfer-encoding", "host")
_NOT_OURS: Final = "header names (RFC 9110 tokens) other than " + ", ".join(OWN_HEADERS)
_GRPC_NAME: Final = re.compile(r"[0-9a-z_.-]+")
_GRPC_NAMES: Final = "for gRPC lower-case letters, digits, _ . - and no name that begins with grpc-"
_GRPC_VALUE: Final = re.compile(r"[\x20-\x7e]*")


def resolve_headers(
    infix: str, given: Mapping[str, str] | None, environment: Environment, protocol: str
) -> dict[str, str]:
    """
    Return what the variables and the keyword say; the keyword counts.

    Args:
        infix: Of the signal's own variable, which counts before the common one.
        given: The keyword.
        environment: The variables.
        protocol: What carries them.

    Raises:
        ConfigError: The keyword is no mapping, or has a header that cannot be sent.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ConfigError("headers", HIDDEN, 'a mapping from names to values, such as {"api-key": "…"}')
    found = _read(infix, environment, protocol)
    for name, value in (given or {}).items():
        found[checked_header(name, value, protocol)] = value
    return found


def checked_header(name: object, value: object, protocol: str) -> str:
    """
    Return a header's name in small letters.

    Raises:
        ConfigError: It cannot be sent.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ConfigError("headers", HIDDEN, _NOT_OURS)
    lowered = name.lower()
    if lowered in OWN_HEADERS:
        raise ConfigError("headers", lowered, _NOT_OURS)
    # The value may be a credential, so the message names the header only.
    if not isinstance(value, str) or not _is_text(value):
        raise ConfigError(f"headers[{lowered}]", HIDDEN, "text without line breaks and control characters")
    if protocol != "grpc":
        return lowered
    if _GRPC_NAME.fullmatch(lowered) is None or lowered.startswith("grpc-"):
        raise ConfigError("headers", lowered, _GRPC_NAMES)
    if not lowered.endswith("-bin") and _GRPC_VALUE.fullmatch(value) is None:
        raise ConfigError(f"headers[{lowered}]", HIDDEN, "printable ASCII, which is all that gRPC carries")
    return lowered


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        # Bytes that are no UTF-8 come out of the environment as half characters.
        return False
    return not any((ord(character) < 32 and character != "\t") or character == "\x7f" for character in value)


def _read(infix: str, environment: Environment, protocol: str) -> dict[str, str]:
    for variable in (f"{OTLP}{infix}HEADERS", f"{OTLP}HEADERS"):
        text = environment.text(variable)
        if text is None:
            continue
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
            # An environment file of Docker's keeps quotation marks. Without the first and the last header nobody is let in, and
            # what could be guessed at is a credential.
            environment.ignore(variable, "name=value,name=value", is_shown=False)
            continue
        return dict(_usable(variable, text, environment, protocol))
    return {}


def _usable(variable: str, text: str, environment: Environment, protocol: str) -> Iterator[tuple[str, str]]:
    """Yield the headers in `name=value,name=value` with percent-encoding, without those that cannot be sent."""
    for number, pair in enumerate(text.split(","), 1):
        if not pair.strip():
            continue
        name, equals, value = pair.partition("=")
        name, value = unquote(name).strip(), unquote(value).strip()
        try:
            lowered = checked_header(name if equals else "", value, protocol)
        except ConfigError as error:
            # The pair may hold a credential, so the line does not repeat it.
            is_nameless = error.field == "headers" and error.value == HIDDEN
            which = f"number {number}" if is_nameless else repr(name.lower())
            permitted = "name=value, with a name that HTTP takes" if is_nameless else error.permitted
            line = "header %s in %s must be %s; it is left out"
            environment.say_once(f"{variable}/{number}", text, line, which, variable, permitted)
            continue
        yield lowered, value
