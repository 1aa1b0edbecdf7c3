"""The one table of what an answer means, for every transport.

Owns: no state. Threads: any.
Invariants: total over all answers; `Verdict.retry_after` is None or a finite number of seconds from 0.

The retryable statuses are OTLP/HTTP's (429, 502, 503, 504) and those that servers and
proxies use for passing faults all the same (408, 425, 499, 500, other 5xx). Whatever people
repair without touching the application (credentials, routes, redirects, proxies, plans) is held like an
outage: every 4xx that is not about the request's content, and the 5xx that are about the server's abilities. Only
what says that this request is wrong (400, 409, 422) is refused for good. A web page is nobody's
receipt, whatever its status: captive portals and login pages answer 200.

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

from surgetank.lines import printable
from surgetank.model import Outcome, Verdict
from surgetank.otlp import partial_success
from surgetank.otlp.fields import Field, fields
from surgetank.otlp.wire import INT64_MAX, LENGTH_DELIMITED, VARINT

STATUS_OUTCOMES: Final[Mapping[int, Outcome]] = {
    # This request is wrong.
    400: Outcome.PERMANENT,
    409: Outcome.PERMANENT,
    422: Outcome.PERMANENT,
    413: Outcome.SPLIT,
    # Not now.
    408: Outcome.RETRY,
    425: Outcome.RETRY,
    429: Outcome.RETRY,
    499: Outcome.RETRY,
    # The server cannot do this at all, or a portal wants a login first.
    501: Outcome.HOLD,
    505: Outcome.HOLD,
    510: Outcome.HOLD,
    511: Outcome.HOLD,
}
# For the rest, by the hundreds. A 1xx as a final answer is a broken peer.
CLASS_OUTCOMES: Final[Mapping[int, Outcome]] = {
    1: Outcome.RETRY,
    2: Outcome.DELIVERED,
    3: Outcome.HOLD,
    4: Outcome.HOLD,
    5: Outcome.RETRY,
}
UNSUPPORTED_ENCODING: Final = 415
"""What a receiver answers that does not take the request's compression."""
# With one of these an answer is a page for people.
_PAGES: Final = ("text/html", "application/xhtml+xml")
_PAGE_BEGINS: Final = (b"<!doctype html", b"<html")

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
    "FAILED_PRECONDITION": Outcome.HOLD,
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


def of_http(
    status: int,
    *,
    retry_after: str | None,
    body: bytes | None,
    items: int,
    now: float,
    date: str | None = None,
    content_type: str = "",
) -> Verdict:
    """
    Judge an HTTP answer.

    Args:
        status: The status code.
        retry_after: The `Retry-After` header as received.
        body: The response's body, decompressed; None for one that could not be read, or is too long.
        items: Items in the request; a receiver cannot reject more.
        now: Seconds since the epoch, for a `Retry-After` that is a date where the answer has none of its own.
        date: The `Date` header as received: the receiver's clock, by which it named a date.
        content_type: The `Content-Type` header as received.
    """
    outcome = STATUS_OUTCOMES.get(status) or CLASS_OUTCOMES.get(status // 100, Outcome.RETRY)
    if outcome is Outcome.DELIVERED:
        if _is_page(content_type, body):
            message = "a web page answered, and no receiver: a login page or a proxy's"
            return Verdict(outcome=Outcome.HOLD, cause="html", message=message)
        said = partial_success.parse(body or b"")
        rejected = min(max(said.rejected, 0), items)
        return Verdict(outcome=outcome, cause=str(status), rejected=rejected, message=_shortened(said.message))
    has_to_wait = outcome is Outcome.RETRY
    return Verdict(
        outcome=outcome,
        cause=str(status),
        retry_after=parse_retry_after(retry_after, _moment(date, now)) if has_to_wait else None,
        message=_shortened(_explanation(body or b"")),
    )


def _is_page(content_type: str, body: bytes | None) -> bool:
    """Whether a body is a web page; an empty one is nothing at all, whatever it is called."""
    if body == b"":
        return False
    kind = content_type.partition(";")[0].strip().lower()
    return kind in _PAGES or (body or b"").lstrip()[:20].lower().startswith(_PAGE_BEGINS)


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


def of_failure(cause: str, message: str = "", *, is_repairable: bool = False, sent: bool = False) -> Verdict:
    """
    Judge an attempt that no answer came to.

    Args:
        cause: The kind of fault, for `error.type`: `connection_refused`, `timeout` …
        message: What the library said.
        is_repairable: Whether people must act (a certificate that does not verify).
        sent: Whether the request may have arrived, so that the fault may be this batch's own.
    """
    outcome = Outcome.HOLD if is_repairable else Outcome.RETRY
    return Verdict(outcome=outcome, cause=cause, reached=False, sent=sent, message=_shortened(message))


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
    moment = _moment(date, math.nan)
    return max(0.0, moment - now) if math.isfinite(moment - now) else None


def _moment(date: str | None, otherwise: float) -> float:
    """Return a header's date in seconds since the epoch; `otherwise` for what is none."""
    try:
        moment = parsedate_to_datetime(date or "")
        if moment.tzinfo is None:
            # The forms without a zone are in UTC by definition.
            moment = moment.replace(tzinfo=timezone.utc)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return otherwise


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
    return printable(text, MESSAGE_MAX)
