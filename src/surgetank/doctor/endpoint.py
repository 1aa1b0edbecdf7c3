"""Whether the endpoint takes what each signal would send: an empty request goes through the tank's own senders.

Owns: one sender a signal for as long as the check lasts. Threads: one a signal.
Invariants: proxy, headers, TLS and transport are the tank's; no telemetry is sent; no answer is taken for another's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from surgetank import redaction
from surgetank.catalogue.effective import Effective
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.senders import sender_for
from surgetank.doctor.finding import Finding, State, failed, ok, warning
from surgetank.doctor.network import check_way, name_of, place_of, speaks_http2
from surgetank.errors import ConfigError
from surgetank.model import Batch, Lane, Outcome, Signal, Verdict
from surgetank.otlp.compression import compress

_ENCODINGS: Final = {"none": "identity"}
_GRPC_PORT: Final = "Set OTEL_EXPORTER_OTLP_PROTOCOL=grpc, or name the port for OTLP/HTTP (4318 by default)."
_HTTP_PORT: Final = "Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or name the port for OTLP/gRPC (4317 by default)."
_CREDENTIALS: Final = "Check the credentials in OTEL_EXPORTER_OTLP_HEADERS; telemetry is held until they are taken."
_ROUTE: Final = "Check the path of the endpoint: each signal adds its own to OTEL_EXPORTER_OTLP_ENDPOINT, but a signal's own variable is used as it stands."
_NEVER: Final = "Look at the receiver's own log; what is answered so is refused for good, and goes to the dead letters."
_LATER: Final = "Look at the receiver's own log; telemetry is held and sent again until it recovers."

# By cause: HTTP's status, gRPC's code, or the kind of fault.
_EXPLAINED: Final[dict[str, tuple[str, str]]] = {
    "401": ("the receiver does not know us (401)", _CREDENTIALS),
    "403": ("the receiver does not let us in (403)", _CREDENTIALS),
    "404": ("nothing is there (404)", _ROUTE),
    "405": ("what is there takes no POST (405), so it is no OTLP receiver", _ROUTE),
    "407": ("the proxy wants a login (407)", "Write it into the proxy's URL: http://user:password@proxy:port."),
    "413": ("even an empty request is too large (413)", "Raise the limit of the receiver or of the proxy before it."),
    "415": (
        "the receiver does not take this type or encoding (415)",
        "Try OTEL_EXPORTER_OTLP_COMPRESSION=none, and check that it is an OTLP receiver.",
    ),
    "429": ("the receiver asks us to slow down (429)", _LATER),
    "503": ("the receiver is not ready (503)", _LATER),
    "UNAUTHENTICATED": ("the receiver does not know us (UNAUTHENTICATED)", _CREDENTIALS),
    "PERMISSION_DENIED": ("the receiver does not let us in (PERMISSION_DENIED)", _CREDENTIALS),
    "UNIMPLEMENTED": (
        "it speaks gRPC, but has no such service (UNIMPLEMENTED)",
        "Check that the receiver has this signal switched on.",
    ),
    "connection_refused": ("nobody listens there", "Start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT."),
    "timeout": (
        "it took the connection and did not answer in time",
        "Check whether the collector is overloaded or a firewall swallows the answer.",
    ),
    "DEADLINE_EXCEEDED": ("it did not answer in time", "Check whether the collector is overloaded."),
    "dns": ("the name does not resolve", "Check the endpoint's spelling and the name server."),
    "tls": ("TLS failed", "See what is said of the way above; name the authority with OTEL_EXPORTER_OTLP_CERTIFICATE."),
    "proxy": ("the proxy did not let it through", "Check HTTP_PROXY and HTTPS_PROXY, or name the host in NO_PROXY."),
    "connection_reset": ("the connection was ended without an answer", "Check what listens there."),
    "protocol": ("what it answers is not the protocol that we speak", "Check what listens there."),
    "unreachable": ("it cannot be reached", "Check the route from this host."),
}


def check_endpoints(effective: Effective, *, timeout: float, may_send: bool) -> Iterator[Finding]:
    """
    Check where each signal goes.

    Args:
        effective: The configuration.
        timeout: Seconds for a connection, a handshake and a request, each.
        may_send: Whether an empty request may be sent.
    """
    outlets = effective.tank.outlets
    is_reached: dict[tuple[str, str, int], bool] = {}
    for signal, outlet in outlets.items():
        place = place_of(outlet)
        if place in is_reached:
            continue
        proxy = effective.proxy(signal)
        if proxy is not None:
            # Whether it is bypassed is the sender's business; through a proxy the way cannot be walked.
            yield ok(
                f"way to {name_of(outlet)}",
                f"By way of the proxy {redaction.url(proxy[1])}, unless NO_PROXY bypasses it.",
            )
            is_reached[place] = True
            continue
        found = list(check_way(outlet, timeout))
        is_reached[place] = all(each.state is not State.FAILED for each in found)
        yield from found
    reached = {signal: outlet for signal, outlet in outlets.items() if is_reached[place_of(outlet)]}
    if may_send:
        yield from _ask_all(reached, timeout)
    elif reached:
        yield ok("endpoint", "No request was sent, as asked for.")


def _ask_all(outlets: dict[Signal, OutletConfig], timeout: float) -> Iterable[Finding]:
    if not outlets:
        return []
    with ThreadPoolExecutor(len(outlets)) as pool:
        return list(pool.map(lambda pair: _ask(pair[0], pair[1], timeout), outlets.items()))


def _ask(signal: Signal, outlet: OutletConfig, timeout: float) -> Finding:
    name = f"endpoint of {signal.value}"
    clock = SystemClock()
    try:
        sender: Any = sender_for(outlet, clock)
    except ConfigError as error:
        return failed(name, f"{error.field} is of no use.", f"Permitted is {error.permitted}.")
    began = clock.monotonic()
    try:
        verdict = sender.send(empty_batch(signal, outlet), min(timeout, outlet.timeout))
    finally:
        sender.close()
    seconds = clock.monotonic() - began
    if verdict.outcome is Outcome.DELIVERED:
        return _delivered(name, outlet, seconds, getattr(sender, "content_type", ""))
    return _refused(name, outlet, verdict, timeout)


def empty_batch(signal: Signal, outlet: OutletConfig) -> Batch:
    """Return a request with nothing in it, compressed as telemetry would be; in OTLP that is a message of no bytes."""
    encoding = _ENCODINGS.get(outlet.compression, outlet.compression)
    return Batch(
        id="surgetank-doctor",
        signal=signal,
        lane=Lane.NORMAL,
        items=0,
        body=compress([], encoding),
        raw_size=0,
        encoding=encoding,
        created=SystemClock.now(),
    )


def _delivered(name: str, outlet: OutletConfig, seconds: float, content_type: str) -> Finding:
    where = redaction.url(outlet.url)
    if content_type.startswith("text/html"):
        return failed(
            name,
            f"{where} answers with a web page: that is no OTLP receiver, and telemetry sent there would be lost.",
            _ROUTE,
        )
    taken = f"{where} takes an empty {outlet.protocol} request in {seconds * 1000:.0f} ms"
    if seconds > outlet.timeout / 2:
        return warning(
            name, f"{taken}, which is slow.", "Check the receiver's load, or raise OTEL_EXPORTER_OTLP_TIMEOUT."
        )
    return ok(name, f"{taken}.")


def _refused(name: str, outlet: OutletConfig, verdict: Verdict, timeout: float) -> Finding:
    where = redaction.url(outlet.url)
    if verdict.cause == "html":
        return failed(name, f"{where} answers with a web page: that is no OTLP receiver, and nothing arrives.", _ROUTE)
    is_grpc = outlet.protocol == "grpc"
    is_garbled = verdict.cause in ("protocol", "connection_reset") or (
        is_grpc and verdict.cause in ("UNAVAILABLE", "unreachable", "UNKNOWN")
    )
    if is_garbled and speaks_http2(outlet, timeout) != is_grpc:
        if is_grpc:
            return failed(name, f"{where} does not speak gRPC; it may be a port for OTLP/HTTP.", _HTTP_PORT)
        return failed(name, f"{where} speaks HTTP/2, as gRPC does, and not OTLP/HTTP: a gRPC port?", _GRPC_PORT)
    unexplained = _NEVER if verdict.outcome is Outcome.PERMANENT else _LATER
    said, advice = _EXPLAINED.get(verdict.cause, (f"the answer is {verdict.cause}", unexplained))
    words = verdict.message
    if "<html" in words.lower() or "<!doctype" in words.lower():
        said, words = f"{said}, with a web page", ""
    quoted = f": “{words}”" if words and verdict.reached else ""
    if verdict.cause.isdecimal() and 300 <= int(verdict.cause) < 400:
        said, advice = f"it sends us elsewhere ({verdict.cause}), and redirects are not followed", _ROUTE
    return failed(name, f"{where}: {said}{quoted}.", advice)
