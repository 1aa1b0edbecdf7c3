"""The one table of what an answer means, for every transport.

Owns: no state. Threads: any.
Invariants: total over all answers; `Verdict.retry_after` is None or a finite number of seconds from 0.

The retryable statuses are OTLP/HTTP's (429, 502, 503, 504) and those that servers and
proxies use for passing faults all the same (408, 500, other 5xx). What people
repair without touching the application (credentials, routes, redirects) is held like an
outage. Everything else will not be better next time.

For gRPC the same is done by status code. Where that differs from OTLP's table: UNKNOWN and INTERNAL are retried, for
they are what a server's crash and a broken stream look like (a batch that is refused by itself is found out by its
repetition); RESOURCE_EXHAUSTED without `RetryInfo` is retried too, because collectors answer it when a
queue is full, unless it says that the message is too large; credentials and routes are held.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Iterator, Mapping
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Final

from surgetank.model import Outcome, Verdict
from surgetank.otlp import partial_success
from surgetank.otlp.fields import Field, fields
from surgetank.otlp.wire import INT64_MAX, LENGTH_DELIMITED, VARINT

STATUS_OUTCOMES: Final[Mapping[int, Outcome]] = {
    401: Outcome.HOLD,
    403: Outcome.HOLD,
    404: Outcome.HOLD,
    405: Outcome.HOLD,
    407: Outcome.HOLD,
    408: Outcome.RETRY,
    413: Outcome.SPLIT,
    429: Outcome.RETRY,
    501: Outcome.PERMANENT,
    505: Outcome.PERMANENT,
}
# For the rest, by the hundreds. A 1xx as a final answer is a broken peer.
CLASS_OUTCOMES: Final[Mapping[int, Outcome]] = {
    1: Outcome.RETRY,
    2: Outcome.DELIVERED,
    3: Outcome.HOLD,
    4: Outcome.PERMANENT,
    5: Outcome.RETRY,
}

GRPC_OUTCOMES: Final[Mapping[str, Outcome]] = {
    "OK": Outcome.DELIVERED,
    "CANCELLED": Outcome.RETRY,
    "UNKNOWN": Outcome.RETRY,
    "INVALID_ARGUMENT": Outcome.PERMANENT,
    "DEADLINE_EXCEEDED": Outcome.RETRY,
    "NOT_FOUND": Outcome.HOLD,
    "ALREADY_EXISTS": Outcome.PERMANENT,
    "PERMISSION_DENIED": Outcome.HOLD,
    "RESOURCE_EXHAUSTED": Outcome.RETRY,
    "FAILED_PRECONDITION": Outcome.PERMANENT,
    "ABORTED": Outcome.RETRY,
    "OUT_OF_RANGE": Outcome.RETRY,
    "UNIMPLEMENTED": Outcome.HOLD,
    "INTERNAL": Outcome.RETRY,
    "UNAVAILABLE": Outcome.RETRY,
    "DATA_LOSS": Outcome.RETRY,
    "UNAUTHENTICATED": Outcome.HOLD,
}
# A message that is too large has no code of its own; each implementation has words of its own for it: C++ and Go,
# Java and .NET, Rust (which answers OUT_OF_RANGE).
_SIZE_CODES: Final = ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE")
_TOO_LARGE: Final = re.compile(r"larger than max|exceeds (the )?(configured )?max|too large", re.IGNORECASE)

_RETRY_INFO: Final = b"type.googleapis.com/google.rpc.RetryInfo"
_NANOSECOND: Final = 1e-9

MESSAGE_MAX: Final = 200


def of_http(status: int, *, retry_after: str | None, body: bytes, items: int, now: float) -> Verdict:
    """
    Judge an HTTP answer.

    Args:
        status: The status code.
        retry_after: The `Retry-After` header as received.
        body: The response's body, decompressed.
        items: Items in the request; a receiver cannot reject more.
        now: Seconds since the epoch, for a `Retry-After` that is a date.
    """
    outcome = STATUS_OUTCOMES.get(status) or CLASS_OUTCOMES.get(status // 100, Outcome.RETRY)
    if outcome is Outcome.DELIVERED:
        said = partial_success.parse(body)
        rejected = min(max(said.rejected, 0), items)
        return Verdict(outcome=outcome, cause=str(status), rejected=rejected, message=_shortened(said.message))
    return Verdict(
        outcome=outcome,
        cause=str(status),
        retry_after=parse_retry_after(retry_after, now) if outcome is Outcome.RETRY else None,
        message=_shortened(_explanation(body)),
    )


def of_grpc(code: str, *, details: str, status: bytes, body: bytes, items: int) -> Verdict:
    """
    Judge a gRPC answer.

    Args:
        code: The status code's name; one that is not known counts as `UNKNOWN`, as gRPC has it.
        details: The status message.
        status: The `grpc-status-details-bin` of the trailers (a `google.rpc.Status`), or nothing.
        body: The response, if the code is `OK`.
        items: Items in the request; a receiver cannot reject more.
    """
    outcome = GRPC_OUTCOMES.get(code, Outcome.RETRY)
    if outcome is Outcome.DELIVERED:
        said = partial_success.parse(body)
        rejected = min(max(said.rejected, 0), items)
        return Verdict(outcome=outcome, cause=code, rejected=rejected, message=_shortened(said.message))
    retry_after = parse_retry_info(status) if outcome is Outcome.RETRY else None
    # What our own library says of an answer that is too large for it is no reason to send less.
    if retry_after is None and code in _SIZE_CODES and _TOO_LARGE.search(details) and not details.startswith("CLIENT:"):
        outcome = Outcome.SPLIT
    return Verdict(outcome=outcome, cause=code, retry_after=retry_after, message=_shortened(details))


def of_failure(cause: str, message: str = "", *, is_repairable: bool = False) -> Verdict:
    """
    Judge an attempt that no answer came to.

    Args:
        cause: The kind of fault, for `error.type`: `connection_refused`, `timeout` …
        message: What the library said.
        is_repairable: Whether people must act (a certificate that does not verify).
    """
    outcome = Outcome.HOLD if is_repairable else Outcome.RETRY
    return Verdict(outcome=outcome, cause=cause, reached=False, message=_shortened(message))


def parse_retry_after(text: str | None, now: float) -> float | None:
    """
    Return the seconds to wait that a `Retry-After` header names (RFC 9110: a number of seconds, or a date).

    A date in the past is 0; what is neither, or makes no sense (negative, not finite), is None.
    """
    if text is None:
        return None
    text = text.strip()
    try:
        seconds = float(text)
    except ValueError:
        return _seconds_until(text, now)
    return seconds if 0 <= seconds < math.inf else None


def parse_retry_info(status: bytes) -> float | None:
    """
    Return the seconds to wait that a `google.rpc.Status` names in a `google.rpc.RetryInfo` among its details.

    0 for one that names no delay; None without one, and for what makes no sense (negative, no such message).
    """
    try:
        for detail in _messages(status, 0, len(status), 3):
            kinds = _messages(status, detail.start, detail.end, 1)
            if any(status[kind.start : kind.end] == _RETRY_INFO for kind in kinds):
                return _retry_delay(status, detail)
    except ValueError:
        pass
    return None


def _retry_delay(status: bytes, detail: Field) -> float | None:
    """Read `RetryInfo.retry_delay`, a `google.protobuf.Duration`, out of the value of an `Any`."""
    parts = {1: 0, 2: 0}
    for value in _messages(status, detail.start, detail.end, 2):
        for delay in _messages(status, value.start, value.end, 1):
            for part in fields(status, delay.start, delay.end):
                if part.number in parts and part.wire_type == VARINT:
                    parts[part.number] = part.value
    # A negative number is one of 64 bits here, with the highest set.
    is_negative = any(part > INT64_MAX for part in parts.values())
    return None if is_negative else parts[1] + parts[2] * _NANOSECOND


def _messages(data: bytes, start: int, end: int, number: int) -> Iterator[Field]:
    return (each for each in fields(data, start, end) if each.number == number and each.wire_type == LENGTH_DELIMITED)


def _seconds_until(date: str, now: float) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
        if moment.tzinfo is None:
            # The forms without a zone are in UTC by definition.
            moment = moment.replace(tzinfo=timezone.utc)
        seconds = moment.timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _explanation(body: bytes) -> str:
    """Return what an error's body says to people: a `google.rpc.Status` message, or text."""
    if body[:1] in (b"\x08", b"\x12"):
        try:
            for field in fields(body, 0, len(body)):
                if field.number == 2 and field.wire_type == LENGTH_DELIMITED:
                    return body[field.start : field.end].decode()
        except ValueError:
            pass
    try:
        # A character that the cut goes through is left out, and is no reason to take the text for something else.
        text, _ = codecs.utf_8_decode(body[: 4 * MESSAGE_MAX], "strict")
    except ValueError:
        return ""
    return text


def _shortened(text: str) -> str:
    """Return one printable line of at most `MESSAGE_MAX` characters: it comes from outside and goes into a log."""
    line = " ".join(text.split())
    return "".join(filter(str.isprintable, line))[:MESSAGE_MAX]
