"""The way to an endpoint, step by step: the name resolves, something listens, TLS holds, and which protocol is spoken there.

Owns: no state. Threads: any.
Invariants: every step but the name server's answer is bounded by a time-out; nothing but a handshake is sent.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

from surgetank import clock
from surgetank.config import OutletConfig
from surgetank.config.tls import locations
from surgetank.doctor.finding import Finding, failed, ok, warning

_DAY: Final = 86_400.0
# Renewal is usually automatic some weeks before.
_EXPIRES_SOON: Final = 14.0
# The client's first words in HTTP/2, and an empty frame of settings.
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
_SETTINGS: Final = 4


def place_of(outlet: OutletConfig) -> tuple[str, str, int]:
    """Return scheme, host and port."""
    parts = urlsplit(outlet.url)
    return parts.scheme, parts.hostname or "", parts.port or _usual_port(parts)


def _usual_port(parts: SplitResult) -> int:
    return 443 if parts.scheme == "https" else 80


def name_of(outlet: OutletConfig) -> str:
    """Return the place as people write it, without a password."""
    scheme, host, port = place_of(outlet)
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def check_way(outlet: OutletConfig, timeout: float) -> Iterator[Finding]:
    """
    Walk up to the endpoint; the last finding that is yielded is a failure if it cannot be reached.

    Args:
        outlet: Where to.
        timeout: Seconds for a connection, and again for a handshake.
    """
    scheme, host, port = place_of(outlet)
    name = f"way to {name_of(outlet)}"
    began = clock.monotonic()
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        yield failed(
            name,
            f"The name {host} does not resolve ({_said(error)}).",
            "Check the endpoint's spelling and the name server; in a container, whether both are in one network.",
        )
        return
    try:
        sock = _connected(addresses, timeout)
    except TimeoutError:
        yield failed(
            name,
            f"Nothing answered within {timeout:g} s; a firewall may drop what is sent.",
            "Check that the port is open between here and there.",
        )
        return
    except ConnectionRefusedError:
        yield failed(
            name,
            f"Nobody listens on port {port} (connection refused).",
            "Start the collector, or correct OTEL_EXPORTER_OTLP_ENDPOINT: OTLP/HTTP is on 4318 by default, gRPC on 4317.",
        )
        return
    except OSError as error:
        yield failed(name, f"It cannot be reached ({_said(error)}).", "Check the route from this host.")
        return
    with sock:
        seconds = clock.monotonic() - began
        if scheme == "http":
            yield ok(name, f"Connected in {_milliseconds(seconds)}, in the clear.")
            if outlet.headers and not _is_near(host):
                yield warning(
                    name, "Headers, which may hold credentials, travel in the clear.", "Use an https:// endpoint."
                )
            return
        yield from _check_tls(name, sock, outlet, host, seconds)


def _connected(addresses: Sequence[tuple[Any, ...]], timeout: float) -> socket.socket:
    trouble: OSError | None = None
    deadline = clock.monotonic() + timeout
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(max(0.05, deadline - clock.monotonic()))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            # A refusal says more than a family that this host has no route for.
            trouble = error if trouble is None or isinstance(error, ConnectionRefusedError) else trouble
        else:
            sock.settimeout(timeout)
            return sock
    raise trouble or OSError("no address")


def _check_tls(name: str, sock: socket.socket, outlet: OutletConfig, host: str, seconds: float) -> Iterator[Finding]:
    file, folder = locations(outlet.certificate_file)
    context = ssl.create_default_context(cafile=file, capath=folder)
    try:
        if outlet.client_certificate_file is not None:
            context.load_cert_chain(outlet.client_certificate_file, outlet.client_key_file, password=lambda: "")
        with context.wrap_socket(sock, server_hostname=host) as secured:
            certificate = secured.getpeercert() or {}
            version = secured.version()
    except ssl.SSLCertVerificationError as error:
        yield failed(
            name,
            f"Its certificate does not verify ({error.verify_message}).",
            "Name the authority that signed it with OTEL_EXPORTER_OTLP_CERTIFICATE, or renew it if it has expired.",
        )
        return
    except (OSError, ValueError) as error:
        yield failed(
            name,
            f"There is no TLS to be had there ({_said(error)}).",
            "If it speaks in the clear, write http:// in the endpoint; if it demands a client's certificate, name one with "
            "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY.",
        )
        return
    until = certificate.get("notAfter")
    days = (ssl.cert_time_to_seconds(str(until)) - clock.now()) / _DAY if until else float("inf")
    if days < _EXPIRES_SOON:
        yield warning(name, f"Its certificate expires in {days:.0f} days.", "Have it renewed before then.")
    else:
        yield ok(
            name, f"Connected in {_milliseconds(seconds)} with {version}; the certificate is good for {days:.0f} days."
        )


def speaks_http2(outlet: OutletConfig, timeout: float) -> bool:
    """Whether what listens there answers the first words of HTTP/2 in kind, as a gRPC server does. Never raises."""
    scheme, host, port = place_of(outlet)
    try:
        sock = socket.create_connection((host, port), timeout)
        with sock:
            if scheme == "https":
                file, folder = locations(outlet.certificate_file)
                context = ssl.create_default_context(cafile=file, capath=folder)
                context.set_alpn_protocols(["h2"])
                sock = context.wrap_socket(sock, server_hostname=host)
            sock.sendall(_PREFACE)
            head = sock.recv(9)
            return len(head) >= 4 and head[3] == _SETTINGS and not head.startswith(b"HTTP")
    except (OSError, ValueError):
        return False


def _is_near(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def _said(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
