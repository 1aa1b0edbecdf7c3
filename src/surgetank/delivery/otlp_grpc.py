"""OTLP over gRPC: carries one sealed batch to the endpoint, once, over a channel that is kept.

Owns: the channel of one signal.
Threads: `send` by one thread at a time; `abort` from any; `before_fork` and `after_fork_in_parent` by the thread that forks;
`abandon` in a forked child.
Invariants: no retries inside; nothing that a network or a server does is raised; no thread of ours is inside gRPC
while the process forks; a forked child touches nothing of its parent's.

Calls are made on the sending thread itself: gRPC's futures start one more thread for every call.
What is known of gRPC and forks stands in decision 14.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import logging
import os
import re
from dataclasses import replace
from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import grpc

from surgetank import threads
from surgetank.clock import ahead
from surgetank.config import OutletConfig
from surgetank.config.headers import checked_header
from surgetank.delivery import verdicts
from surgetank.delivery.credentials import BATCH_ID_HEADER, USER_AGENT, basic, check_tls_files
from surgetank.errors import ConfigError
from surgetank.lines import say
from surgetank.model import Batch, Clock, Outcome, Signal, Verdict
from surgetank.otlp.compression import decompress

# gRPC imports this when it makes its first channel, which would be on our thread: a fork in the middle of an import
# leaves the child a lock that is never released. In a version that has no such module there is nothing to be done.
with contextlib.suppress(ImportError):
    importlib.import_module("grpc._channel")

_logger: Final = logging.getLogger("surgetank.delivery")

METHODS: Final = {
    Signal.SPANS: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
# The most of a response that is taken; the OTLP specification has clients limit it to 4 MiB.
# Bytes of a file of certificates; those of all public authorities together take 300 KB.
_CERTIFICATES_MAX: Final = 16 * 1024 * 1024
RESPONSE_MAX: Final = 4 * 1024 * 1024

# Failures in a row after which the next attempt has a new channel, which asks the name server and reads the certificates anew.
REDIAL_AFTER: Final = 3

# How long a fork waits for the answer to a call under way (seconds), and then for the call that was broken off.
FORK_PATIENCE: Final = 0.2

# Pings are left to gRPC's default, which is none: an attempt has a deadline, after which the connection is not used
# again, and servers end connections that ping more often than every five minutes.
_OPTIONS: Final[tuple[tuple[str, Any], ...]] = (
    # Attempts are counted, spaced and repeated by us.
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    # A connection of our own: elsewhere gRPC's pauses between dials, of up to two minutes, would outlast our probes.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", RESPONSE_MAX),
)
_COMPRESSIONS: Final = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}

# What gRPC says when no answer came; the first that fits names the fault.
_FAULTS: Final[tuple[tuple[str, str], ...]] = (
    ("CERTIFICATE_VERIFY_FAILED", "tls"),
    ("handshake", "tls"),
    ("SSL_ERROR", "tls"),
    ("Cannot check peer", "tls"),
    ("Hostname Verification", "tls"),
    ("is not in peer certificate", "tls"),
    ("errors resolving", "dns"),
    ("DNS resolution failed", "dns"),
    ("Connection refused", "connection_refused"),
    ("HTTP proxy returned", "proxy"),
    ("Failed parsing HTTP/2", "protocol"),
    ("Connection reset", "connection_reset"),
    ("Broken pipe", "connection_reset"),
    ("Socket closed", "connection_reset"),
    ("Stream removed", "connection_reset"),
    ("GOAWAY", "connection_reset"),
    ("failed to connect", "unreachable"),
    ("recvmsg", "unreachable"),
    ("sendmsg", "unreachable"),
)
_REPAIRABLE: Final = re.compile(
    "CERTIFICATE_VERIFY_FAILED|Hostname Verification|is not in peer certificate|returned .*407"
)
# What it says before the fault itself, and people know already.
_PREAMBLE: Final = re.compile(
    r"^failed to connect to all addresses; last error: [A-Z]+: (ipv[46]:\S+: )?(Failed to connect to remote host: )?"
)

# What servers say of a compression that they do not know: C++ and Python, Go, Java, Rust.
_ENCODING_REFUSED: Final = re.compile(r"compress|grpc-encoding|content is encoded", re.IGNORECASE)

# An attempt that ends this close (seconds) to its deadline was ended by it, and not by the server's own.
_NEAR: Final = 0.02

# gRPC's words for a variable that says no; anything else leaves its fork handlers in place.
_NO: Final = ("0", "false", "no", "off", "f", "n")

_is_used = False
"""Whether a channel was ever made in this process or the one that it is a fork of."""
_abandoned: Final[list[grpc.Channel]] = []
"""Parents' channels, in a forked child: to let go of one would be to close it."""


class GrpcSender:
    """
    One signal's way to an OTLP/gRPC endpoint.

    Args:
        outlet: URL (scheme, host and port), headers, TLS files, proxy.
        clock: Tells how long a call took.

    Raises:
        ConfigError: A certificate or key file does not hold what it should, or a header cannot be metadata.
    """

    def __init__(self, outlet: OutletConfig, clock: Clock) -> None:
        self._clock = clock
        url = urlsplit(outlet.url)
        self._target = _target(url)
        self._outlet = outlet
        self._is_secure = url.scheme == "https"
        if self._is_secure:
            check_tls_files(outlet)
        self._failures = 0
        """In a row, since the channel was made or one attempt did not fail."""
        self._options = [*_OPTIONS, *_proxy_options(outlet.proxy)]
        self._compression = _COMPRESSIONS[outlet.call_compression]
        self._scrub = outlet.scrubber()
        headers = dict(outlet.headers)
        if url.username is not None and "authorization" not in headers:
            headers["authorization"] = basic(url.netloc.rpartition("@")[0])
        # As metadata it would be lost: gRPC writes one of its own, which begins with this.
        self._options.append(("grpc.primary_user_agent", headers.pop("user-agent", USER_AGENT)))
        self._metadata = tuple(_entry(name, value) for name, value in headers.items())
        self._channel: grpc.Channel | None = None
        self._is_stranded = False
        self._renew_locks()

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """
        Send a batch and judge the answer.

        Args:
            batch: Its bytes go out uncompressed, or compressed anew if the outlet says so.
            timeout: Seconds for everything together.
        """
        if self._is_stranded:
            said = "a forked child cannot use gRPC where GRPC_ENABLE_FORK_SUPPORT is off"
            return verdicts.of_failure("fork", said, is_repairable=True)
        try:
            request = decompress(batch.body, batch.encoding, batch.raw_size)
        except ValueError as error:
            return Verdict(outcome=Outcome.PERMANENT, cause="unreadable", reached=False, message=str(error))
        with self._gate:
            deadline = self._clock.monotonic() + timeout
            try:
                channel = self._begin()
            except OSError as error:
                message = f"a certificate or key file cannot be read: {error.strerror}"
                return verdicts.of_failure("tls", message, is_repairable=True)
            try:
                verdict = self._call(channel, request, batch, timeout)
                if self._has_refused_compression(verdict):
                    self._compression = grpc.Compression.NoCompression
                    line = "%s does not take compressed requests; they go out uncompressed from now on"
                    say(_logger, logging.WARNING, line, self._target.removeprefix("dns:///"))
                    verdict = self._call(channel, request, batch, max(0.0, deadline - self._clock.monotonic()))
            except ValueError as error:
                # The channel was closed by `abort` before the call began.
                verdict = verdicts.of_failure("timeout", str(error))
            self._failures = self._failures + 1 if verdict.outcome.has_failed else 0
            # An address that was taken out of service may go on answering UNAVAILABLE on a connection that is kept.
            is_to_be_dialled_anew = self._failures >= REDIAL_AFTER
            if is_to_be_dialled_anew:
                self._failures = 0
            self._end(channel, may_be_kept=verdict.reached and not is_to_be_dialled_anew)
        return replace(verdict, message=self._scrub(verdict.message))

    def _has_refused_compression(self, verdict: Verdict) -> bool:
        # It has no code of its own: UNIMPLEMENTED by gRPC's specification, INTERNAL in some servers.
        return (
            self._compression is not grpc.Compression.NoCompression
            and verdict.cause in ("UNIMPLEMENTED", "INTERNAL", "INVALID_ARGUMENT")
            and _ENCODING_REFUSED.search(verdict.message) is not None
        )

    def abort(self) -> None:
        """Close the channel under a `send` that waits on it, so that it returns at once; thread-safe, never raises."""
        with self._lock:
            channel = self._calling
            self._is_cut = channel is not None
        if channel is not None:
            channel.close()

    def close(self) -> None:
        """Let go of the channel; a later `send` makes a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def abandon(self) -> None:
        """Leave the parent's channel alone, in a forked child."""
        if self._channel is not None:
            _abandoned.append(self._channel)
        self._channel = None
        self._is_stranded = _is_used and os.environ.get("GRPC_ENABLE_FORK_SUPPORT", "").lower() in _NO
        self._renew_locks()

    def before_fork(self) -> None:
        """
        Have no thread inside gRPC while the process forks, and let none in.

        With one inside, gRPC leaves out what it does at a fork, and the child may crash at its first call. A call under
        way is waited for briefly, then broken off; its batch is sent again.
        """
        self._is_held = self._gate.acquire(timeout=FORK_PATIENCE)
        if not self._is_held:
            self.abort()
            self._is_held = self._gate.acquire(timeout=FORK_PATIENCE)

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if self._is_held:
            self._is_held = False
            self._gate.release()

    def _renew_locks(self) -> None:
        self._gate = threads.new_lock()
        """Held while a call is under way, and while the process forks."""
        self._is_held = False
        # Guards what follows, and which channel there is. Re-entrant, for signal handlers.
        self._lock = threads.new_rlock()
        self._calling: grpc.Channel | None = None
        self._is_cut = False

    def _begin(self) -> grpc.Channel:
        global _is_used
        with self._lock:
            if self._channel is None:
                _is_used = True
                if self._is_secure:
                    # Read anew: certificates are renewed while processes live.
                    self._channel = grpc.secure_channel(self._target, _credentials(self._outlet), self._options)
                else:
                    self._channel = grpc.insecure_channel(self._target, self._options)
            self._calling, self._is_cut = self._channel, False
            return self._channel

    def _end(self, channel: grpc.Channel, *, may_be_kept: bool) -> None:
        with self._lock:
            self._calling = None
            may_be_kept = may_be_kept and not self._is_cut
            if not may_be_kept and self._channel is channel:
                self._channel = None
        if not may_be_kept:
            # A new channel dials at once; this one would pause first, longer each time.
            channel.close()

    def _call(self, channel: grpc.Channel, request: bytes, batch: Batch, timeout: float) -> Verdict:
        # Without serialisers, bytes go out and come in as they are.
        export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHODS[batch.signal])
        metadata = (*self._metadata, (BATCH_ID_HEADER, batch.id))
        deadline = self._clock.monotonic() + timeout
        try:
            # grpc adds Python's time, and its core subtracts the real one.
            patience = timeout + ahead()
            body = export(request, timeout=patience, metadata=metadata, compression=self._compression)
        except grpc.RpcError as error:
            return self._judge(error, is_late=self._clock.monotonic() > deadline - _NEAR)
        return verdicts.of_grpc("OK", details="", status=b"", body=body, items=batch.items)

    def _judge(self, error: Any, *, is_late: bool) -> Verdict:
        code, details = error.code(), error.details() or ""
        if self._is_cut:
            return verdicts.of_failure("timeout", "broken off")
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and is_late:
            return verdicts.of_failure("timeout", details, sent=True)
        trailers = dict(error.trailing_metadata() or ())
        if code is grpc.StatusCode.UNAVAILABLE and not trailers:
            # gRPC does not say whether the server said this or itself, except in its choice of words.
            fault = next((name for words, name in _FAULTS if words in details), None)
            if fault is not None:
                is_repairable = _REPAIRABLE.search(details) is not None
                words = _PREAMBLE.sub("", details)
                return verdicts.of_failure(fault, words, is_repairable=is_repairable, sent=fault == "connection_reset")
        status = trailers.get("grpc-status-details-bin", b"")
        return verdicts.of_grpc(code.name, details=details, status=status, body=b"", items=0)


def _target(url: SplitResult) -> str:
    """Return host and port as gRPC's resolver takes them."""
    host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
    return f"dns:///{host}:{url.port or (443 if url.scheme == 'https' else 80)}"


def _credentials(outlet: OutletConfig) -> grpc.ChannelCredentials:
    """Return what the files hold now. Raises OSError."""
    return grpc.ssl_channel_credentials(
        root_certificates=_content(outlet.certificate_file),
        private_key=_content(outlet.client_key_file or outlet.client_certificate_file),
        certificate_chain=_content(outlet.client_certificate_file),
    )


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        content = file.read(_CERTIFICATES_MAX + 1)
    if len(content) > _CERTIFICATES_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content


def _proxy_options(proxy: str | None) -> list[tuple[str, Any]]:
    """None: gRPC looks at the environment itself; empty: no proxy."""
    if proxy is None:
        return []
    if not proxy:
        return [("grpc.enable_http_proxy", 0)]
    if not proxy.startswith("http://"):
        # The URL may hold a password, so the message does not repeat it.
        raise ConfigError("proxy", "…", "an http:// URL, for gRPC speaks no TLS to proxies")
    return [("grpc.http_proxy", proxy)]


def _entry(name: str, value: str) -> tuple[str, str | bytes]:
    """Return a header as metadata."""
    if checked_header(name, value, "grpc") != name:
        raise ConfigError(
            "headers", name, "for gRPC lower-case letters, digits, _ . - and no name that begins with grpc-"
        )
    # gRPC itself encodes what is called so, in base64.
    return name, value.encode() if name.endswith("-bin") else value
