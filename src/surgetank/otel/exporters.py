"""Reading the SDK's OTLP exporters: where they would send, and how, so that our sender can take their place.

Owns: no state. Threads: any; called when a drop-in is made.
Invariants: an exporter is replaced only if everything that it does on the wire can be done by ours; of one that
cannot be read for certain nothing is taken, and it is driven as it is; no credential is logged.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from surgetank.config import Compression, OutletConfig
from surgetank.config.tls import REQUESTS
from surgetank.frozen import FrozenDict
from surgetank.otel.shim import HttpParts, RequestLimits, grpc_parts, http_parts, request_limits

_HTTP_MODULES: Final = re.compile(r"opentelemetry\.exporter\.otlp\.proto\.http\.(trace|_log|metric)_exporter(\.|$)")
_GRPC_MODULES: Final = re.compile(r"opentelemetry\.exporter\.otlp\.proto\.grpc\.")
_OTLP_MODULES: Final = re.compile(r"opentelemetry\.exporter\.otlp\.")
_NAMES: Final = ("OTLPSpanExporter", "OTLPLogExporter", "OTLPMetricExporter")
_COMPRESSIONS: Final[Mapping[str, Compression]] = {"none": "none", "gzip": "gzip", "deflate": "deflate"}
_GRPC_COMPRESSIONS: Final[Mapping[str, Compression]] = {"NoCompression": "none", "Gzip": "gzip", "Deflate": "deflate"}
# gRPC's targets can be much more than a host and a port.
_HOST_AND_PORT: Final = re.compile(r"([\w.-]+|\[[0-9a-fA-F:]+\])(:\d+)?")
# What the SDK sets itself, and what ours says in another way.
_GRPC_OPTIONS: Final = ("grpc.primary_user_agent",)
# Set by our sender itself, or by HTTP.
_OWN_HEADERS: Final = ("content-type", "content-encoding", "content-length", "transfer-encoding", "host")
# What `requests` sends unasked.
_LIBRARY_HEADERS: Final = ("accept", "accept-encoding", "connection", "user-agent")
_SDK_USER_AGENT: Final = "OTel-OTLP-Exporter-Python/"
# Where `requests` looks for CA certificates when it was told of none.


# What sends with a session; others may do anything.
_TRANSPORTS: Final = (("opentelemetry", "RequestsHTTPTransport"),)


class NotCopiableError(Exception):
    """An OTLP exporter does something that our sender could not do in its place; the message says what, without values."""


def is_otlp(exporter: object) -> bool:
    """Whether an exporter is one of the SDK's own OTLP exporters; a subclass is not, for it may do anything."""
    kind = type(exporter)
    return kind.__qualname__ in _NAMES and _OTLP_MODULES.match(kind.__module__) is not None


def name_of(exporter: object) -> str:
    """Return an exporter's class with its module, for log lines and folders."""
    kind = type(exporter)
    return f"{kind.__module__}.{kind.__qualname__}"


def read_outlet(exporter: object) -> OutletConfig:
    """
    Return where one of the SDK's OTLP exporters sends to, and how.

    Raises:
        NotCopiableError: It has something that cannot be copied, or is of a version that cannot be read.
    """
    module = type(exporter).__module__
    try:
        if _GRPC_MODULES.match(module) is not None:
            return _read_grpc(exporter)
        if _HTTP_MODULES.match(module) is not None:
            return _read_http(exporter)
    except NotCopiableError:
        raise
    except Exception as error:
        raise NotCopiableError(f"what this version keeps ({type(error).__name__})") from None
    raise NotCopiableError("its protocol")


def read_limits(exporter: object) -> RequestLimits:
    """
    Return how much one of the SDK's OTLP exporters puts into a request.

    Raises:
        NotCopiableError: It has a limit that no batch of ours could keep.
    """
    try:
        limits = request_limits(exporter)
    except Exception as error:
        raise NotCopiableError(f"what this version keeps ({type(error).__name__})") from None
    if limits.max_items is not None and limits.max_items < 1:
        raise NotCopiableError("batches of less than one item")
    return limits


def _read_grpc(exporter: object) -> OutletConfig:
    parts = grpc_parts(exporter)
    if not parts.is_insecure:
        # They are an object that says nothing of what it was made of.
        raise NotCopiableError("channel credentials")
    if any(name not in _GRPC_OPTIONS for name in parts.options):
        raise NotCopiableError("a channel with options")
    if parts.has_own_codes:
        raise NotCopiableError("status codes of its own to retry")
    if _HOST_AND_PORT.fullmatch(parts.endpoint) is None:
        raise NotCopiableError("an endpoint that is more than host and port")
    return OutletConfig(
        url=f"http://{parts.endpoint}",
        headers=FrozenDict({name.lower(): _text(content) for name, content in parts.headers}),
        timeout=_seconds(parts.timeout),
        # Sealed batches are compressed whatever a call is, so that memory and disk hold as much.
        compression="gzip",
        protocol="grpc",
        call_compression=_GRPC_COMPRESSIONS[parts.compression],
    )


def _read_http(exporter: object) -> OutletConfig:
    parts = http_parts(exporter)
    if parts.transport is not None and _class_of(parts.transport) not in _TRANSPORTS:
        raise NotCopiableError("a transport of another class")
    _check_session(parts.session)
    certificate, key = _client_files(parts.cert)
    if parts.compression not in _COMPRESSIONS:
        raise NotCopiableError("a compression that is not known here")
    return OutletConfig(
        url=_checked_url(parts.endpoint),
        headers=FrozenDict(_headers(parts)),
        timeout=_seconds(parts.timeout),
        compression=_COMPRESSIONS[parts.compression],
        certificate_file=_certificate_file(parts),
        client_certificate_file=certificate,
        client_key_file=key,
    )


def _seconds(timeout: float) -> float:
    return min(max(timeout, 0.001), 3600.0)


def _text(content: Any) -> str:
    return content.decode("latin-1") if isinstance(content, bytes) else str(content)


def _check_session(session: Any) -> None:
    """Refuse a session that does more than send: credential providers and customised sessions are such."""
    if _class_of(type(session)) != ("requests", "Session"):
        raise NotCopiableError("a session of another class")
    adapters = [type(adapter) for adapter in session.adapters.values()]
    if len(adapters) != 2 or any(adapter.__module__ != "requests.adapters" for adapter in adapters):
        raise NotCopiableError("a session with adapters of its own")
    for name in ("auth", "proxies", "params"):
        if getattr(session, name):
            raise NotCopiableError(f"a session with {name}")
    if len(session.cookies) or any(session.hooks.values()):
        raise NotCopiableError("a session with cookies or hooks")
    if not session.trust_env:
        raise NotCopiableError("a session that does not look at the environment")


def _class_of(kind: type) -> tuple[str, str]:
    """Return a class's library and name."""
    return kind.__module__.partition(".")[0], kind.__qualname__


def _checked_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or " " in url:
        raise NotCopiableError("an endpoint that is no http:// or https:// URL")
    return url


def _headers(parts: HttpParts) -> dict[str, str]:
    """Return the headers that the exporter or its session was given, without those that HTTP and the libraries set."""
    given = {name.lower(): value for name, value in parts.session.headers.items() if value is not None}
    found = {name: value for name, value in given.items() if name not in _LIBRARY_HEADERS}
    found |= {name.lower(): value for name, value in parts.headers.items()}
    kept = {}
    for name, value in found.items():
        text = _text(value)
        is_sdks = name == "user-agent" and text.startswith(_SDK_USER_AGENT)
        if name not in _OWN_HEADERS and not is_sdks:
            kept[name] = text
    return kept


def _certificate_file(parts: HttpParts) -> str | None:
    if parts.verify is False:
        raise NotCopiableError("certificates that are not verified")
    path = parts.verify if isinstance(parts.verify, str) else None
    if path is None:
        path = next((os.environ[name] for name in REQUESTS if os.environ.get(name)), None)
        if path is not None and os.path.isdir(path):
            return path
    return _checked_file(path)


def _client_files(cert: Any) -> tuple[str | None, str | None]:
    certificate, key = cert if isinstance(cert, tuple) else (cert, None)
    return _checked_file(certificate), _checked_file(key)


def _checked_file(path: Any) -> str | None:
    if path is not None and not (isinstance(path, str) and os.path.isfile(path)):
        raise NotCopiableError("a certificate or key that is no file")
    return path
