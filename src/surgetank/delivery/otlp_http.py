"""OTLP over HTTP: carries one sealed batch to the endpoint, once, on a connection that is kept alive.

Owns: the connection pool (of one connection) of one signal, and the line that it runs over (`line.py`).
Threads: `send` by one thread at a time; `abort` from any; `abandon` in a forked child.
Invariants: no retries and no redirects inside; nothing that a network or a server does is raised;
no answer is ever taken for another batch's; a forked child waits for no lock of its parent's.
"""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.request import getproxies_environment, proxy_bypass_environment  # type: ignore[attr-defined]  # in no stub, but documented in the source as public

import urllib3
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    LocationParseError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    ReadTimeoutError,
)
from urllib3.exceptions import SSLError as UrllibSSLError
from urllib3.util import Timeout, Url, parse_url

from surgetank.config import OutletConfig
from surgetank.config.environment import say_once
from surgetank.config.tls import locations
from surgetank.delivery import verdicts
from surgetank.delivery.credentials import BATCH_ID_HEADER, USER_AGENT, basic, check_tls_files
from surgetank.delivery.line import Line, pool_classes
from surgetank.errors import ConfigError
from surgetank.lines import say
from surgetank.model import Batch, Clock, Verdict
from surgetank.otlp.compression import decompress

_logger: Final = logging.getLogger("surgetank.delivery")

# The most of a response that is looked at; the OTLP specification has clients limit it to 4 MiB.
RESPONSE_MAX: Final = 4 * 1024 * 1024
_READ_STEP: Final = 64 * 1024
# Failures in a row after which the next attempt dials anew, and asks the name server.
REDIAL_AFTER: Final = 3

# zlib's window size, and 32 for "gzip or zlib, whichever the header says".
_EITHER_HEADER: Final = 32 + zlib.MAX_WBITS


class HttpSender:
    """
    One signal's way to an OTLP/HTTP endpoint.

    Args:
        outlet: URL, headers, TLS files, proxy.
        clock: Tells today's date, for `Retry-After`.

    Raises:
        ConfigError: A certificate or key file does not hold what it should, or a URL has no host that could be asked.
    """

    def __init__(self, outlet: OutletConfig, clock: Clock) -> None:
        self._outlet = outlet
        self._clock = clock
        url = _parsed("endpoint", outlet.url)
        self._url = Url(url.scheme, None, url.host, url.port, url.path, url.query).url
        self._headers = {"content-type": "application/x-protobuf", "user-agent": USER_AGENT}
        # What is not ASCII goes out as UTF-8; `http.client` writes Latin-1 and fails on the rest.
        self._headers |= {name: value.encode().decode("latin-1") for name, value in outlet.headers.items()}
        if url.auth and "authorization" not in self._headers:
            self._headers["authorization"] = basic(url.auth)
        self._proxy = _proxy_for(url, outlet.proxy)
        self._scrub = outlet.scrubber()
        if url.scheme == "https":
            check_tls_files(outlet)
        self._place = f"{url.scheme}://{url.netloc.rpartition('@')[2]}" if url.netloc else outlet.url
        self._takes_compressed = True
        """Whether the receiver has not refused compression (415)."""
        self._failures = 0
        """In a row, since the connection was dialled or one attempt did not fail."""
        self._line = Line(clock)
        self._manager = self._make_manager()
        self.content_type = ""
        """What the last answer said it was: a web page is no receiver's, whatever its status."""

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """
        Send a batch and judge the answer.

        Args:
            batch: Its bytes go out as they are.
            timeout: Seconds for everything together. Two things can take longer: a name server that does
                not answer, and a server that drips the head of its answer or a TLS handshake; `abort` ends the latter.
        """
        self._line.begin(timeout)
        try:
            verdict = self._post(batch, *self._on_the_wire(batch))
            if self._has_refused_encoding(verdict) and self._takes_compressed and batch.encoding != "identity":
                verdict = self._post_uncompressed(batch)
        except (HTTPError, OSError, http.client.HTTPException, ValueError) as error:
            is_ours, was_up = self._line.is_cut, self._line.is_up
            self._line.drop()
            verdict = _judge(TimeoutError("broken off") if is_ours else error, sent=was_up and not is_ours)
        finally:
            self._line.end()
        self._count(verdict)
        return replace(verdict, message=self._scrub(verdict.message))

    def _on_the_wire(self, batch: Batch) -> tuple[bytes, str]:
        """Return a batch's bytes and their encoding: as they are, but for a receiver that takes no compression."""
        if self._takes_compressed or batch.encoding == "identity":
            return batch.body, batch.encoding
        return decompress(batch.body, batch.encoding, batch.raw_size), "identity"

    def _has_refused_encoding(self, verdict: Verdict) -> bool:
        return verdict.cause == str(verdicts.UNSUPPORTED_ENCODING)

    def _post_uncompressed(self, batch: Batch) -> Verdict:
        """Post what was refused compressed; where that is not refused, everything after it goes out uncompressed, too."""
        verdict = self._post(batch, decompress(batch.body, batch.encoding, batch.raw_size), "identity")
        if not self._has_refused_encoding(verdict):
            self._takes_compressed = False
            line = "%s does not take %s (415); requests to it go out uncompressed from now on"
            say(_logger, logging.WARNING, line, self._place, batch.encoding)
        return verdict

    def _post(self, batch: Batch, body: bytes, encoding: str) -> Verdict:
        """Post once, and judge the answer; raises what urllib3 raises."""
        headers = {**self._headers, BATCH_ID_HEADER: batch.id}
        if encoding != "identity":
            headers["content-encoding"] = encoding
        response = self._manager.urlopen(
            "POST",
            self._url,
            body=body,
            headers=headers,
            timeout=Timeout(total=self._line.time_left()),
            retries=False,
            redirect=False,
            preload_content=False,
            decode_content=False,
        )
        self.content_type = response.headers.get("content-type", "")
        return verdicts.of_http(
            response.status,
            retry_after=response.headers.get("retry-after"),
            body=self._read(response),
            items=batch.items,
            now=self._clock.now(),
            date=response.headers.get("date"),
            content_type=self.content_type,
        )

    def _count(self, verdict: Verdict) -> None:
        """
        Let go of the connection after a few failures on it, so that the next attempt asks the name server again.

        An address that was taken out of service may go on answering 503 on a connection that is kept.
        """
        self._failures = self._failures + 1 if verdict.outcome.has_failed else 0
        if self._failures >= REDIAL_AFTER:
            self._failures = 0
            self.close()

    def abort(self) -> None:
        """Cut the live connection, so that a `send` that waits on it returns at once; thread-safe, never raises."""
        self._line.cut()

    def close(self) -> None:
        """Let go of the connection; a later `send` opens a new one."""
        self._line.let_go_of_lost()
        # By name, for a failure's traceback may keep a pool alive until the collector comes by.
        for key in list(self._manager.pools.keys()):
            self._manager.pools[key].close()
        self._manager.clear()
        self._line.drop()

    def abandon(self) -> None:
        """Forget the parent's connection: closes our copies of the descriptor, says nothing on the wire."""
        self._line.forget()
        self._line = Line(self._clock)
        self._manager = self._make_manager()

    def _make_manager(self) -> urllib3.PoolManager:
        outlet = self._outlet
        options: dict[str, Any] = {"num_pools": 1, "maxsize": 1}
        if self._url.startswith("https:"):
            file, folder = locations(outlet.certificate_file)
            options |= {
                "cert_reqs": "CERT_REQUIRED",
                "ca_certs": file,
                "ca_cert_dir": folder,
                "cert_file": outlet.client_certificate_file,
                "key_file": outlet.client_key_file,
            }
        manager: urllib3.PoolManager
        if self._proxy is None:
            manager = urllib3.PoolManager(**options)
        else:
            auth = self._proxy.auth
            proxy_headers = {"proxy-authorization": basic(auth)} if auth else None
            manager = urllib3.ProxyManager(_without_auth(self._proxy), proxy_headers=proxy_headers, **options)
        manager.pool_classes_by_scheme = pool_classes(self._line)
        return manager

    def _read(self, response: urllib3.BaseHTTPResponse) -> bytes | None:
        """Return a response's body; None for one that is too long, too late or garbled: the status says enough."""
        body = bytearray()
        try:
            # After a 1xx the answer proper may still come, and would be taken for the next batch's.
            is_whole = response.status >= 200
            while is_whole and (part := response.read1(_READ_STEP)):
                body += part
                is_whole = len(body) <= RESPONSE_MAX and self._line.may_wait()
            if is_whole:
                response.release_conn()
                return _inflated(bytes(body), response.headers.get("content-encoding", ""))
        except (HTTPError, OSError, http.client.HTTPException, ValueError, zlib.error):
            pass
        response.close()
        return None


def _inflated(body: bytes, encoding: str) -> bytes | None:
    """Undo an encoding that we did not ask for; None for what would be longer than the limit, or is not known."""
    encoding = encoding.strip().lower() or "identity"
    if encoding == "identity" or not body:
        return body
    if encoding not in ("gzip", "x-gzip", "deflate"):
        return None
    inflater = zlib.decompressobj(_EITHER_HEADER)
    inflated = inflater.decompress(body, RESPONSE_MAX)
    return None if inflater.unconsumed_tail else inflated


def _judge(error: BaseException, *, sent: bool) -> Verdict:
    chain = list(_causes(error))
    is_repairable = any(isinstance(cause, ssl.SSLCertVerificationError) or _wants_login(cause) for cause in chain)
    message = _OTHER_VERSION if any(_is_http_2(cause) for cause in chain) else _words(chain)
    return verdicts.of_failure(_kind(chain), message, is_repairable=is_repairable, sent=sent)


# A frame of settings, flags and stream 0, after three bytes for its length: what servers of HTTP/2 begin with.
_SETTINGS: Final = "\x04\0\0\0\0\0"
_OTHER_VERSION: Final = "the answer is HTTP/2, as for OTLP over gRPC: name the endpoint's port for HTTP (4318 by default) or the protocol grpc"


def _is_http_2(error: BaseException) -> bool:
    return isinstance(error, http.client.BadStatusLine) and str(error.args[0])[3:9] == _SETTINGS


def _wants_login(error: BaseException) -> bool:
    # A proxy's answer to CONNECT is told by http.client in words only; without a tunnel it is a status like others.
    return "Tunnel connection failed: 407" in str(error)


# The first that fits any exception in the chain names the fault.
_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (ProxyError, "proxy"),
    (NameResolutionError, "dns"),
    (socket.gaierror, "dns"),
    (UrllibSSLError, "tls"),
    (ssl.SSLError, "tls"),
    (ConnectionRefusedError, "connection_refused"),
    # To urllib3 this is a connect time-out, which is why it stands before those.
    (NewConnectionError, "unreachable"),
    (ConnectTimeoutError, "timeout"),
    (ReadTimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (ConnectionError, "connection_reset"),
    (http.client.HTTPException, "protocol"),
)


def _kind(chain: list[BaseException]) -> str:
    for kind, name in _KINDS:
        if any(isinstance(cause, kind) for cause in chain):
            return name
    return type(chain[0]).__name__


def _words(chain: list[BaseException]) -> str:
    """Return what went wrong in the words of the innermost cause, without the objects that libraries print around it."""
    cause = chain[-1]
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.replace("_", " ").lower()
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    if isinstance(cause, TimeoutError) and "timed out" in str(cause):
        is_dialling = any(isinstance(each, ConnectTimeoutError) for each in chain)
        return "no connection in time" if is_dialling else "no answer in time"
    if isinstance(cause, http.client.HTTPException) and not isinstance(cause, OSError):
        return f"{type(cause).__name__}: {cause}"
    return str(cause)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it was raised from or wraps, each once."""
    waiting: list[BaseException] = [error]
    seen: set[int] = set()
    while waiting:
        current = waiting.pop(0)
        if id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        # urllib3 hands the original on in one of these two ways. `__context__` may be an
        # exception that our caller's caller is handling, which has nothing to do with ours.
        linked = (current.__cause__, *current.args)
        waiting.extend(cause for cause in linked if isinstance(cause, BaseException))


def _proxy_for(url: Url, configured: str | None) -> Url | None:
    """Return the proxy to use: the configured one, none if that is empty, else what `HTTP_PROXY` and its kin say."""
    if configured is None:
        proxies = getproxies_environment()
        if proxy_bypass_environment(f"{url.host}:{url.port}" if url.port else url.host or "", proxies):
            return None
        configured = proxies.get(url.scheme or "") or proxies.get("all") or ""
        if configured and "://" not in configured:
            # `HTTP_PROXY=proxy:3128` is what other clients understand, too.
            configured = f"http://{configured}"
        try:
            return _checked_proxy(configured)
        except ConfigError as error:
            # SOCKS, for one, which other programs may have been told to use.
            say_once(
                "proxy",
                configured,
                "the proxy that the environment names must be %s (got %r); it is ignored",
                error.permitted,
                error.value,
            )
            return None
    return _checked_proxy(configured)


def _checked_proxy(configured: str) -> Url | None:
    if not configured:
        return None
    proxy = _parsed("proxy", configured)
    if proxy.scheme not in ("http", "https") or not proxy.host:
        raise ConfigError("proxy", configured, "an http:// or https:// URL with a host")
    return proxy


def _parsed(field: str, url: str) -> Url:
    try:
        return parse_url(url)
    except LocationParseError:
        # The URL may hold a password, so the message does not repeat it.
        raise ConfigError(field, "…", "an http:// or https:// URL with a host") from None


def _without_auth(url: Url) -> str:
    return Url(url.scheme, None, url.host, url.port).url
