"""Where one signal's batches go and how: endpoint, protocol, headers, TLS files, as keywords and OTLP's variables say.

Owns: no state. Threads: any. Invariants: no message repeats a password or a header's value.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from importlib.util import find_spec
from typing import Final, Literal, TypeVar
from urllib.parse import urlsplit

from surgetank import redaction
from surgetank.config.environment import OTLP, Environment, check_choice, check_kind, check_number
from surgetank.config.headers import resolve_headers
from surgetank.config.tls import resolve_tls_files
from surgetank.errors import HIDDEN, ConfigError
from surgetank.frozen import FrozenDict
from surgetank.model import Signal

_T = TypeVar("_T", bound=str)
_V = TypeVar("_V")
_logger = logging.getLogger(__name__)


Compression = Literal["none", "gzip", "deflate"]
Protocol = Literal["http/protobuf", "grpc"]
COMPRESSIONS: Final[tuple[Compression, ...]] = ("none", "gzip", "deflate")
PROTOCOLS: Final[tuple[Protocol, ...]] = ("http/protobuf", "grpc")

PREFIX: Final = OTLP
TIMEOUT_RANGE: Final = (0.001, 3600.0)
DEFAULT_TIMEOUT: Final = 10.0
HTTP_ENDPOINT: Final = "http://localhost:4318"
GRPC_ENDPOINT: Final = "http://localhost:4317"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OutletConfig:
    """Where one signal's batches go, and how."""

    url: str
    headers: Mapping[str, str] = field(default_factory=FrozenDict)
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

    def __post_init__(self) -> None:
        check_kind("outlet.url", self.url, str, "a URL")
        words = "a mapping from names to values"
        check_kind("outlet.headers", self.headers, Mapping, words)
        if not all(isinstance(each, str) for pair in self.headers.items() for each in pair):
            raise ConfigError("outlet.headers", HIDDEN, words)
        check_number("outlet.timeout", self.timeout, *TIMEOUT_RANGE)
        check_choice("outlet.compression", self.compression, COMPRESSIONS)
        check_choice("outlet.call_compression", self.call_compression, COMPRESSIONS)
        check_choice("outlet.protocol", self.protocol, PROTOCOLS)
        for name in ("certificate_file", "client_key_file", "client_certificate_file", "proxy"):
            check_kind(f"outlet.{name}", getattr(self, name), str, "a text")

    def __repr__(self) -> str:
        shown = [f"url={redaction.url(self.url)!r}", f"protocol={self.protocol!r}"]
        if self.headers:
            shown.append(f"headers={redaction.headers(self.headers)!r}")
        plain = (
            "timeout",
            "compression",
            "call_compression",
            "certificate_file",
            "client_key_file",
            "client_certificate_file",
        )
        defaults = {each.name: each.default for each in fields(self)}
        shown += [f"{name}={value!r}" for name in plain if (value := getattr(self, name)) != defaults[name]]
        if self.proxy is not None:
            shown.append(f"proxy={redaction.url(self.proxy)!r}")
        return f"OutletConfig({', '.join(shown)})"

    def scrubber(self) -> redaction.Scrubber:
        """Return what takes this outlet's credentials out of a text."""
        return redaction.Scrubber((self.url, self.proxy or ""), self.headers.values())


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
    if protocol is None:
        protocol = environment_protocol(signal, environment, endpoint)
    check_choice("protocol", protocol, PROTOCOLS)
    if timeout is None:
        timeout = _first(infix, "TIMEOUT", lambda name: environment.number(name, *TIMEOUT_RANGE)) or DEFAULT_TIMEOUT
    check_number("timeout", timeout, *TIMEOUT_RANGE)
    if endpoint is not None:
        check_url("endpoint", endpoint, needs_scheme=protocol != "grpc")
    url = (_grpc_url if protocol == "grpc" else _http_url)(signal, environment, endpoint)
    if compression is None:
        usual: Compression = "none" if protocol == "grpc" else "gzip"
        compression = _sdk_choice(infix, "COMPRESSION", COMPRESSIONS, usual, environment)
    check_choice("compression", compression, COMPRESSIONS)
    if proxy is not None:
        _check_proxy(proxy)
    files = resolve_tls_files(
        infix,
        environment,
        certificate_file=certificate_file,
        client_key_file=client_key_file,
        client_certificate_file=client_certificate_file,
        is_used=url.startswith("https:"),
        is_http=protocol != "grpc",
    )
    return OutletConfig(
        url=url,
        headers=FrozenDict(resolve_headers(infix, headers, environment, protocol)),
        timeout=float(timeout),
        # What is sealed for gRPC is compressed whatever a call is, so that memory and disk hold as much (decision 14).
        compression="gzip" if protocol == "grpc" else compression,
        protocol=protocol,
        call_compression=compression if protocol == "grpc" else "none",
        certificate_file=files.certificate,
        client_key_file=files.client_key,
        client_certificate_file=files.client_certificate,
        proxy=proxy,
    )


def environment_protocol(signal: Signal, environment: Environment, endpoint: str | None) -> Protocol:
    """Return the protocol that the variables name; HTTP where that is gRPC and gRPC is not installed."""
    protocol: Protocol = _sdk_choice(OTLP_INFIX[signal], "PROTOCOL", PROTOCOLS, "http/protobuf", environment)
    if protocol == "grpc" and find_spec("grpc") is None:
        # opentelemetry-distro sets the variable where the user has not. Without gRPC nobody else could have spoken it
        # either, so the user's settings need not be made for it.
        protocol = "http/protobuf"
        if endpoint is not None:
            check_url("endpoint", endpoint)
        # What stands before the @ may be a password.
        _say_http_is_spoken(urlsplit(_http_url(signal, environment, endpoint)).netloc.rpartition("@")[2])
    return protocol


def _first(infix: str, name: str, read: Callable[[str], _V | None]) -> _V | None:
    """Return what the signal's own variable says; where that is unset or ignored, what the common one does."""
    own = read(f"{PREFIX}{infix}{name}")
    return own if own is not None else read(f"{PREFIX}{name}")


def _http_url(signal: Signal, environment: Environment, endpoint: str | None) -> str:
    """Return the URL that requests are posted to."""
    if endpoint is None:
        # A per-signal endpoint is used as it stands; only the base form gets the path.
        own = _read_url(f"{PREFIX}{OTLP_INFIX[signal]}ENDPOINT", environment)
        if own is not None:
            return own
        endpoint = _read_url(f"{PREFIX}ENDPOINT", environment)
    return (endpoint or HTTP_ENDPOINT).rstrip("/") + OTLP_PATH[signal]


def _grpc_url(signal: Signal, environment: Environment, endpoint: str | None) -> str:
    """Return scheme, host and port as a URL; without a scheme, TLS is spoken unless `OTEL_EXPORTER_OTLP_INSECURE`."""
    if endpoint is None:
        endpoint = _first(OTLP_INFIX[signal], "ENDPOINT", lambda name: _read_url(name, environment, needs_scheme=False))
    text = endpoint or GRPC_ENDPOINT
    if "://" in text:
        return text
    return ("http://" if is_insecure(signal, environment) else "https://") + text


def _read_url(name: str, environment: Environment, *, needs_scheme: bool = True) -> str | None:
    def parse(text: str) -> str:
        check_url(name, text, needs_scheme=needs_scheme)
        return text

    return environment.read(name, parse, _URL)


def is_insecure(signal: Signal, environment: Environment) -> bool:
    """Whether a gRPC endpoint without a scheme is spoken to in the clear: `OTEL_EXPORTER_OTLP_INSECURE`, or the signal's own."""
    return _first(OTLP_INFIX[signal], "INSECURE", lambda name: environment.choice(name, ("true", "false"))) == "true"


_URL: Final = "an http:// or https:// URL with a host"


def check_url(name: str, url: object, *, needs_scheme: bool = True) -> None:
    """Refuse what is no http:// or https:// URL, or cannot be asked for."""
    if not isinstance(url, str):
        raise ConfigError(name, url, _URL)
    text = url if needs_scheme or "://" in url else f"https://{url}"
    try:
        parts = urlsplit(text)
        _ = parts.port  # A port that is not a number is only found out when it is asked for.
        host = parts.hostname or ""
        text.encode()  # Bytes that are no UTF-8 come out of the environment as half characters.
        if not host.isascii():
            _check_host(host)
    except ValueError:
        raise ConfigError(name, url, _URL) from None
    has_gaps = any(character <= " " or character == "\x7f" for character in text)
    if parts.scheme not in ("http", "https") or not host or has_gaps or _ODD_IN_HOST.search(host):
        raise ConfigError(name, url, _URL)


# A quotation mark at the end of a URL that begins with one fails for its scheme; one that only ends with it, here.
_ODD_IN_HOST: Final = re.compile(r"[\"'<>\\^`{|}]")


def _check_host(host: str) -> None:
    # Only who has such a name pays for the import.
    from urllib3.exceptions import LocationParseError
    from urllib3.util import parse_url

    try:
        parse_url(f"http://{host}")
    except LocationParseError:
        raise ValueError(host) from None


def _check_proxy(proxy: object) -> None:
    if proxy != "":
        check_url("proxy", proxy)


def _sdk_choice(infix: str, name: str, known: tuple[_T, ...], default: _T, environment: Environment) -> _T:
    """Read one of the SDK's words; one that means nothing here is logged, and stands for the default."""
    for variable in (f"{PREFIX}{infix}{name}", f"{PREFIX}{name}"):
        text = environment.text(variable)
        if text is None:
            continue
        for each in known:
            if text.lower() == each:
                return each
        environment.ignore(variable, f"one of {', '.join(map(repr, known))}", then=f"{default} is used")
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
