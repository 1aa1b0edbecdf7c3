"""Where one signal's batches go and how: endpoint, protocol, headers, TLS files, as keywords and OTLP's variables say.

Owns: no state. Threads: any. Invariants: no message repeats a password or a header's value.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from surgetank.config.environment import Environment, check_choice, check_number
from surgetank.errors import ConfigError
from surgetank.model import Signal

_T = TypeVar("_T", bound=str)
_logger = logging.getLogger(__name__)


Compression = Literal["none", "gzip", "deflate"]
Protocol = Literal["http/protobuf", "grpc"]
COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "deflate")
PROTOCOLS: Final[tuple[Protocol, ...]] = ("http/protobuf", "grpc")

PREFIX: Final = "OTEL_EXPORTER_OTLP_"
TIMEOUT_RANGE: Final = (0.001, 3600.0)
DEFAULT_TIMEOUT: Final = 10.0
HTTP_ENDPOINT: Final = "http://localhost:4318"
GRPC_ENDPOINT: Final = "http://localhost:4317"


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletConfig:
    """Where one signal's batches go, and how."""

    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout: float = DEFAULT_TIMEOUT
    compression: Compression = "gzip"
    """Of sealed batches and, with HTTP, on the wire, where they go as they are."""
    protocol: Protocol = "http/protobuf"
    call_compression: Compression = "none"
    """gRPC: of each call, which begins from the uncompressed request."""
    certificate_file: str | None = None
    client_key_file: str | None = None
    client_certificate_file: str | None = None
    proxy: str | None = None
    """None: as the environment says; empty: no proxy."""


OTLP_INFIX: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "TRACES_",
    Signal.METRICS: "METRICS_",
    Signal.LOGS: "LOGS_",
}
# Where collectors speak HTTP; they speak gRPC at 4317.
_HTTP_PORT: Final = ":4318"
OTLP_PATH: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "/v1/traces",
    Signal.METRICS: "/v1/metrics",
    Signal.LOGS: "/v1/logs",
}


def resolve_outlet(
    signal: Signal,
    environment: Environment,
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
    compression: Compression | None = None,
    protocol: Protocol | None = None,
    certificate_file: str | None = None,
    client_key_file: str | None = None,
    client_certificate_file: str | None = None,
    proxy: str | None = None,
) -> OutletConfig:
    """
    Complete one signal's outlet from keyword, environment and default.

    Raises:
        ConfigError: The endpoint is not an http or https URL, or a value is outside its range.
    """
    infix = OTLP_INFIX[signal]

    def variable(name: str) -> str | None:
        return environment.text(f"{PREFIX}{infix}{name}") or environment.text(f"{PREFIX}{name}")

    if protocol is None:
        protocol = _sdk_choice(infix, "PROTOCOL", PROTOCOLS, "http/protobuf", environment)
        if protocol == "grpc" and find_spec("grpc") is None:
            # opentelemetry-distro sets the variable where the user has not. Without gRPC nobody else could have spoken it
            # either, so the user's settings need not be made for it.
            protocol = "http/protobuf"
            # What stands before the @ may be a password.
            _say_http_is_spoken(urlsplit(_http_url(signal, environment, endpoint)).netloc.rpartition("@")[2])
    check_choice("protocol", protocol, PROTOCOLS)
    if timeout is None:
        timeout = _sdk_timeout(infix, environment)
    check_number("timeout", timeout, *TIMEOUT_RANGE)
    url = (_grpc_url if protocol == "grpc" else _http_url)(signal, environment, endpoint)
    if compression is None:
        usual: Compression = "none" if protocol == "grpc" else "gzip"
        compression = _sdk_choice(infix, "COMPRESSION", COMPRESSIONS, usual, environment)
    check_choice("compression", compression, COMPRESSIONS)
    if proxy:
        _checked_url("proxy", proxy)
    merged = {**_parse_headers(variable("HEADERS") or ""), **(headers or {})}
    return OutletConfig(
        url=url,
        headers=MappingProxyType({_checked_header(name, value): value for name, value in merged.items()}),
        timeout=float(timeout),
        # What is sealed for gRPC is compressed whatever a call is, so that memory and disk hold as much (decision 14).
        compression="gzip" if protocol == "grpc" else compression,
        protocol=protocol,
        call_compression=compression if protocol == "grpc" else "none",
        certificate_file=_existing_file("certificate_file", certificate_file or variable("CERTIFICATE")),
        client_key_file=_existing_file("client_key_file", client_key_file or variable("CLIENT_KEY")),
        client_certificate_file=_existing_file(
            "client_certificate_file", client_certificate_file or variable("CLIENT_CERTIFICATE")
        ),
        proxy=proxy,
    )


def _http_url(signal: Signal, environment: Environment, endpoint: str | None) -> str:
    """Return the URL that requests are posted to."""
    if endpoint is not None:
        return _signal_url("endpoint", endpoint, signal)
    name = f"{PREFIX}{OTLP_INFIX[signal]}ENDPOINT"
    if own := environment.text(name):
        # A per-signal endpoint is used as it stands; only the base form gets the path.
        return _checked_url(name, own)
    base = environment.text(f"{PREFIX}ENDPOINT") or HTTP_ENDPOINT
    return _signal_url(f"{PREFIX}ENDPOINT", base, signal)


def _grpc_url(signal: Signal, environment: Environment, endpoint: str | None) -> str:
    """Return scheme, host and port as a URL; without a scheme, TLS is spoken unless `OTEL_EXPORTER_OTLP_INSECURE`."""
    prefixes = (f"{PREFIX}{OTLP_INFIX[signal]}", PREFIX)
    written = [("endpoint", endpoint), *((f"{each}ENDPOINT", environment.text(f"{each}ENDPOINT")) for each in prefixes)]
    name, text = next(((name, text) for name, text in written if text is not None), ("", GRPC_ENDPOINT))
    if "://" not in text:
        text = ("http://" if is_insecure(signal, environment) else "https://") + text
    return _checked_url(name, text)


def is_insecure(signal: Signal, environment: Environment) -> bool:
    """Whether a gRPC endpoint without a scheme is spoken to in the clear: `OTEL_EXPORTER_OTLP_INSECURE`, or the signal's own."""
    own = environment.text(f"{PREFIX}{OTLP_INFIX[signal]}INSECURE") or environment.text(f"{PREFIX}INSECURE")
    return (own or "").lower() == "true"


def _checked_url(name: str, url: str) -> str:
    permitted = "an http:// or https:// URL with a host"
    # What stands before the @ may be a password, so the message leaves it out.
    shown = re.sub(r"//[^/]*@", "//…@", url)
    try:
        parts = urlsplit(url)
        _ = parts.port  # A port that is not a number is only found out when it is asked for.
    except ValueError:
        raise ConfigError(name, shown, permitted) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or " " in url:
        raise ConfigError(name, shown, permitted)
    return url


def _signal_url(name: str, base: str, signal: Signal) -> str:
    return _checked_url(name, base).rstrip("/") + OTLP_PATH[signal]


def _sdk_timeout(infix: str, environment: Environment) -> float:
    # The specification says milliseconds, the SDK reads seconds; users have set what works with the SDK.
    def parse(text: str) -> float:
        value = float(text)
        if not 0 < value <= 3600:
            raise ValueError(text)
        return value

    own = environment.theirs(f"{PREFIX}{infix}TIMEOUT", parse)
    return own or environment.theirs(f"{PREFIX}TIMEOUT", parse) or DEFAULT_TIMEOUT


def _sdk_choice(infix: str, name: str, known: tuple[_T, ...], default: _T, environment: Environment) -> _T:
    """Read one of the SDK's words; one that means nothing here is logged, and stands for the default."""
    for variable in (f"{PREFIX}{infix}{name}", f"{PREFIX}{name}"):
        text = environment.text(variable)
        if text is None:
            continue
        for each in known:
            if text.lower() == each:
                return each
        environment.ignored[variable] = text
        _logger.warning("OTLP %s %r is not spoken here; %s is used", name.lower(), text, default)
        return default
    return default


@cache
def _say_http_is_spoken(address: str) -> None:
    """Say it once for each address; at HTTP's own port it is what was meant, and elsewhere perhaps a mistake."""
    is_meant = address.endswith(_HTTP_PORT)
    _logger.log(
        logging.INFO if is_meant else logging.WARNING,
        "OTEL_EXPORTER_OTLP_PROTOCOL is grpc, but gRPC is not installed: HTTP is spoken to %s%s; for gRPC: pip install 'surgetank[grpc]'",
        address,
        "" if is_meant else ", which may speak gRPC only (collectors have HTTP at port 4318)",
    )


def _parse_headers(text: str) -> dict[str, str]:
    """Read `name=value,name=value` with percent-encoding, as `OTEL_EXPORTER_OTLP_HEADERS` is written."""
    headers = {}
    for pair in text.split(","):
        if not pair.strip():
            continue
        name, equals, value = pair.partition("=")
        name = unquote(name).strip().lower()
        if not equals or not name:
            # The pair may hold a credential, so the line does not repeat it.
            _logger.warning("a header in OTEL_EXPORTER_OTLP_HEADERS has no name=value form and is ignored")
            continue
        headers[name] = unquote(value).strip()
    return headers


_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS: Final = ("content-type", "content-encoding", "content-length", "transfer-encoding", "host")


def _checked_header(name: str, value: object) -> str:
    lowered = name.lower() if isinstance(name, str) else name
    if not isinstance(lowered, str) or not _HEADER_NAME.fullmatch(lowered) or lowered in _OWN_HEADERS:
        raise ConfigError("headers", name, "header names (RFC 9110 tokens) other than " + ", ".join(_OWN_HEADERS))
    if not isinstance(value, str) or any(ord(character) < 32 and character != "\t" for character in value):
        # The value may be a credential, so the message names the header only.
        raise ConfigError(f"headers[{lowered}]", "…", "text without line breaks and control characters")
    return lowered


def _existing_file(name: str, path: str | None) -> str | None:
    if path is not None and not os.path.isfile(path):
        raise ConfigError(name, path, "the path of a file that exists")
    return path
