"""Every limit and every setting: frozen records, validation, and what the environment says.

Owns: no state. Threads: any.
Invariants: a `TankConfig` that exists is complete and possible; whatever is
wrong was refused with the field, the value and the permitted range.

Precedence, highest first: keyword argument, `SURGETANK_*`, `OTEL_*`, default.
A bad `SURGETANK_*` value is refused; a bad `OTEL_*` value is logged and
ignored, because that is how the SDK reads its own variables.
"""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar
from urllib.parse import unquote, urlsplit

from surgetank.errors import ConfigError
from surgetank.model import Signal

DropStrategy = Literal["oldest", "newest", "sampling"]
Compression = Literal["none", "gzip", "deflate"]
Protocol = Literal["http/protobuf", "grpc"]
Persist = Literal["none", "critical", "all"]
OnFull = Literal["drop", "block"]

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)

MEBIBYTE: Final = 1024 * 1024

_DROP_STRATEGIES: Final = ("oldest", "newest", "sampling")
_COMPRESSIONS: Final = ("none", "gzip", "deflate")
_PROTOCOLS: Final = ("http/protobuf", "grpc")
_PERSISTS: Final = ("critical", "all")
_ON_FULL: Final = ("drop", "block")


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """Refuse what is not a number in `low..high`; bool is not a number here."""
    kind = "a whole number" if whole else "a number"
    permitted = f"{kind} from {low:g} to {high:g}"
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(name, value, permitted)
    if not low <= value <= high:
        raise ConfigError(name, value, permitted)


def check_choice(name: str, value: object, permitted: tuple[str, ...]) -> None:
    """Refuse what is none of these words."""
    if value not in permitted:
        raise ConfigError(name, value, "one of " + ", ".join(map(repr, permitted)))


@dataclass(frozen=True, slots=True, kw_only=True)
class BufferConfig:
    """
    The limits of one signal. A field left out takes that signal's default.

    Args:
        max_size: Items in memory, all stages together (metrics: data points).
            Default 2048 spans, 5000 metric points, 5000 logs. 1 to 100 million.
        max_memory_mb: MiB in memory over all copies: waiting objects (estimated),
            encoded and sealed bytes, scratch space, in flight. Default 50, 20, 30.
            0.0625 to 1048576.
        drop_strategy: Who gives way when full: `oldest` (sealed batches first,
            then waiting items, the critical lane last), `newest` (the item on
            offer) or `sampling`: from half full on, keep fewer and fewer traces,
            and logs of low severity, so that what is kept stays a fair picture;
            metrics: collect less often while the outlet is closed. At the wall
            it acts as `oldest`. Default `oldest`; metrics `sampling`.
        persistence_enabled: Whether this signal's sealed batches are stored in the
            spool, so that they survive outages, restarts and crashes. Default
            yes for spans and logs, no for metrics.
        persist: Which of them: `all` (default), or `critical` for those of the
            critical lane only.
        circuit_breaker_threshold: Consecutive failures that open the breaker.
            Default 10, 20, 10. 1 to 10000.
        max_export_batch_size: Items that make a batch due. Default 512, never
            more than `max_size`. 1 to 100000.
        max_batch_mb: Encoded MiB that make a batch due. Default 4, the most
            that a gRPC receiver takes by default. 0.001 to 64.
        on_full: What happens to the thread that offers when nothing can give way
            without a loss: `drop` (default) leaves it to the drop strategy at once;
            `block` lets it wait for room in its turn, for batch jobs that would rather be
            slow than lose telemetry. Never on our own threads, in signal handlers or
            in a running event loop. Spans and logs only.
        block_timeout: Seconds that it waits; then the drop strategy decides.
            Default 5. 0.001 to 3600.
        schedule_delay: Seconds after which a smaller batch is due. Default 0.8.
            0.001 to 3600. Critical items do not wait.

    Raises:
        ConfigError: A value is outside its range.
    """

    max_size: int | None = None
    max_memory_mb: float | None = None
    drop_strategy: DropStrategy | None = None
    persistence_enabled: bool | None = None
    persist: Literal["critical", "all"] | None = None
    on_full: OnFull | None = None
    block_timeout: float | None = None
    circuit_breaker_threshold: int | None = None
    max_export_batch_size: int | None = None
    max_batch_mb: float | None = None
    schedule_delay: float | None = None

    def __post_init__(self) -> None:
        for name, (low, high, whole) in _BUFFER_RANGES.items():
            value = getattr(self, name)
            if value is not None:
                check_number(name, value, low, high, whole=whole)
        if self.drop_strategy is not None:
            check_choice("drop_strategy", self.drop_strategy, _DROP_STRATEGIES)
        if self.persistence_enabled not in (None, True, False):
            raise ConfigError("persistence_enabled", self.persistence_enabled, "True or False")
        if self.on_full is not None:
            check_choice("on_full", self.on_full, _ON_FULL)
        if self.persist is not None:
            check_choice("persist", self.persist, _PERSISTS)
        if self.max_size is not None and self.max_export_batch_size is not None:
            check_number("max_export_batch_size", self.max_export_batch_size, 1, self.max_size, whole=True)


_BUFFER_RANGES: Final[Mapping[str, tuple[float, float, bool]]] = {
    "max_size": (1, 100_000_000, True),
    # Less than 64 KiB could not hold one request and its encoding copy.
    "max_memory_mb": (0.0625, 1_048_576, False),
    "circuit_breaker_threshold": (1, 10_000, True),
    "max_export_batch_size": (1, 100_000, True),
    "max_batch_mb": (0.001, 64, False),
    "schedule_delay": (0.001, 3600, False),
    "block_timeout": (0.001, 3600, False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalLimits:
    """A `BufferConfig` with nothing left out: what one pipeline obeys."""

    max_size: int
    max_bytes: int
    drop_strategy: DropStrategy
    persist: Persist
    on_full: OnFull = "drop"
    block_timeout: float = 5.0
    circuit_breaker_threshold: int
    max_export_batch_size: int
    max_batch_bytes: int
    schedule_delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OutletConfig:
    """Where one signal's batches go, and how."""

    url: str
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeout: float = 10.0
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Waits between attempts, in seconds; `delivery/backoff.py` and `delivery/breaker.py` say how they are used."""

    backoff_initial: float = 0.5
    backoff_factor: float = 1.5
    backoff_max: float = 5.0
    cooldown_initial: float = 1.0
    cooldown_factor: float = 2.0
    cooldown_max: float = 30.0
    jitter: float = 0.2
    """Each wait is drawn from `1 - jitter` to `1 + jitter` times its nominal length."""

    def __post_init__(self) -> None:
        for name in ("backoff_initial", "backoff_max", "cooldown_initial", "cooldown_max"):
            check_number(name, getattr(self, name), 0.001, 86_400)
        for name in ("backoff_factor", "cooldown_factor"):
            check_number(name, getattr(self, name), 1, 10)
        check_number("jitter", self.jitter, 0, 0.9)
        check_number("backoff_max", self.backoff_max, self.backoff_initial, 86_400)
        check_number("cooldown_max", self.cooldown_max, self.cooldown_initial, 86_400)


@dataclass(frozen=True, slots=True, kw_only=True)
class TankConfig:
    """Everything one tank obeys, complete; made by `resolve`."""

    limits: Mapping[Signal, SignalLimits]
    outlets: Mapping[Signal, OutletConfig]
    timing: Timing
    shutdown_timeout: float
    metric_export_interval: float
    metric_export_timeout: float


class Environment:
    """Reads variables once, remembering how each kind of mistake is treated."""

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = os.environ if variables is None else variables

    def text(self, name: str) -> str | None:
        """Return the value, or None where it is unset or blank (the specification treats the two alike)."""
        value = self._variables.get(name, "").strip()
        return value or None

    def ours(self, name: str, parse: Callable[[str], _T], permitted: str) -> _T | None:
        """Read one of our own variables; a value that does not parse is refused."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            raise ConfigError(name, value, permitted) from None

    def theirs(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """Read one of the SDK's variables; a value that does not parse is logged and ignored, as the SDK does."""
        value = self.text(name)
        if value is None:
            return None
        try:
            return parse(value)
        except ValueError:
            _logger.warning("%s=%r is not understood and ignored", name, value)
            return None


_DEFAULT_LIMITS: Final[Mapping[Signal, Mapping[str, Any]]] = {
    Signal.SPANS: {
        "max_size": 2048,
        "max_memory_mb": 50.0,
        "drop_strategy": "oldest",
        "persistence_enabled": True,
        "circuit_breaker_threshold": 10,
    },
    Signal.METRICS: {
        "max_size": 5000,
        "max_memory_mb": 20.0,
        "drop_strategy": "sampling",
        "persistence_enabled": False,
        "circuit_breaker_threshold": 20,
    },
    Signal.LOGS: {
        "max_size": 5000,
        "max_memory_mb": 30.0,
        "drop_strategy": "oldest",
        "persistence_enabled": True,
        "circuit_breaker_threshold": 10,
    },
}
_DEFAULT_BATCH_SIZE: Final = 512
_DEFAULT_BATCH_MB: Final = 4.0
_DEFAULT_BLOCK_TIMEOUT: Final = 5.0
# With the sealer's rest that is within a second of the offer, which is what a crash may cost.
_DEFAULT_SCHEDULE_DELAY: Final = 0.8

_SDK_PREFIX: Final[Mapping[Signal, str | None]] = {
    Signal.SPANS: "OTEL_BSP_",
    Signal.METRICS: None,
    Signal.LOGS: "OTEL_BLRP_",
}
_OTLP_INFIX: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "TRACES_",
    Signal.METRICS: "METRICS_",
    Signal.LOGS: "LOGS_",
}
# Where collectors speak HTTP; they speak gRPC at 4317.
_HTTP_PORT: Final = ":4318"
_OTLP_PATH: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "/v1/traces",
    Signal.METRICS: "/v1/metrics",
    Signal.LOGS: "/v1/logs",
}


def parse_bool(text: str) -> bool:
    """Read yes or no; raises ValueError for any other word."""
    known = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(text) from None


def _parse_positive_int(text: str) -> int:
    value = int(text)
    if value <= 0:
        raise ValueError(text)
    return value


def _parse_on_full(text: str) -> OnFull:
    for known in ("drop", "block"):
        if text.lower() == known:
            return known
    raise ValueError(text)


def _parse_positive_millis(text: str) -> float:
    value = float(text)
    if not (0 < value < math.inf):
        raise ValueError(text)
    return value / 1000


_OWN_PARSERS: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "max_size": (int, "a whole number"),
    "max_memory_mb": (float, "a number"),
    "drop_strategy": (str, "a strategy"),
    "persistence_enabled": (parse_bool, "true or false"),
    "persist": (str, "`critical` or `all`"),
    "on_full": (str, "`drop` or `block`"),
    "block_timeout": (float, "a number"),
    "circuit_breaker_threshold": (int, "a whole number"),
    "max_export_batch_size": (int, "a whole number"),
    "max_batch_mb": (float, "a number"),
    "schedule_delay": (float, "a number"),
}
_SDK_PARSERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    "max_size": ("MAX_QUEUE_SIZE", _parse_positive_int),
    "max_export_batch_size": ("MAX_EXPORT_BATCH_SIZE", _parse_positive_int),
    "schedule_delay": ("SCHEDULE_DELAY", _parse_positive_millis),
    # As proposed to the specification (open-telemetry/opentelemetry-specification#5178).
    "on_full": ("ON_QUEUE_FULL", _parse_on_full),
    "block_timeout": ("BLOCK_ON_QUEUE_FULL_TIMEOUT", _parse_positive_millis),
}


def resolve_limits(signal: Signal, config: BufferConfig | None, environment: Environment) -> SignalLimits:
    """
    Complete one signal's limits from keyword, environment and default.

    Raises:
        ConfigError: A value is outside its range, or two contradict each other.
    """
    given = {name: value for name in _field_names(BufferConfig) if (value := getattr(config, name, None)) is not None}
    from_ours = _read_own_limits(signal, environment)
    from_sdk = _read_sdk_limits(signal, environment)
    # `BufferConfig` validates each range, and once more what the layers add up to.
    chosen: dict[str, Any] = {**_DEFAULT_LIMITS[signal], **from_sdk, **from_ours, **given}
    if "max_export_batch_size" not in given and "max_export_batch_size" not in from_ours:
        # A small buffer makes small batches; only a stated contradiction is an error.
        wanted = chosen.get("max_export_batch_size", _DEFAULT_BATCH_SIZE)
        chosen["max_export_batch_size"] = min(wanted, chosen["max_size"])
    complete = BufferConfig(**chosen)
    max_bytes = int(chosen["max_memory_mb"] * MEBIBYTE)
    return SignalLimits(
        max_size=chosen["max_size"],
        max_bytes=max_bytes,
        drop_strategy=chosen["drop_strategy"],
        persist=chosen.get("persist", "all") if chosen["persistence_enabled"] else "none",
        on_full="drop" if signal is Signal.METRICS else complete.on_full or "drop",
        block_timeout=complete.block_timeout or _DEFAULT_BLOCK_TIMEOUT,
        circuit_breaker_threshold=chosen["circuit_breaker_threshold"],
        max_export_batch_size=chosen["max_export_batch_size"],
        # A batch under construction and its compressed copy are at most a quarter of the
        # budget, so that sealing can never be what breaks the limit.
        max_batch_bytes=min(int((complete.max_batch_mb or _DEFAULT_BATCH_MB) * MEBIBYTE), max_bytes // 8),
        schedule_delay=complete.schedule_delay or _DEFAULT_SCHEDULE_DELAY,
    )


def _field_names(record: type) -> list[str]:
    return [f.name for f in fields(record)]


def _read_own_limits(signal: Signal, environment: Environment) -> dict[str, Any]:
    found = {}
    for name, (parse, permitted) in _OWN_PARSERS.items():
        variable = f"SURGETANK_{signal.name}_{name.upper()}"
        value = environment.ours(variable, parse, permitted)
        if value is None:
            continue
        try:
            BufferConfig(**{name: value})
        except ConfigError as error:
            # The user wrote a variable, so the message must name the variable.
            raise ConfigError(variable, error.value, error.permitted) from None
        found[name] = value
    return found


def _read_sdk_limits(signal: Signal, environment: Environment) -> dict[str, Any]:
    prefix = _SDK_PREFIX[signal]
    if prefix is None:
        return {}
    found = {}
    for name, (suffix, parse) in _SDK_PARSERS.items():
        value = environment.theirs(prefix + suffix, parse)
        if value is not None:
            found[name] = value
    return found


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
    infix = _OTLP_INFIX[signal]

    def variable(name: str) -> str | None:
        return environment.text(f"OTEL_EXPORTER_OTLP_{infix}{name}") or environment.text(f"OTEL_EXPORTER_OTLP_{name}")

    if protocol is None:
        protocol = _sdk_protocol(variable("PROTOCOL"))
        if protocol == "grpc" and find_spec("grpc") is None:
            # opentelemetry-distro sets the variable where the user has not. Without gRPC nobody else could have spoken it
            # either, so the user's settings need not be made for it.
            protocol = "http/protobuf"
            # What stands before the @ may be a password.
            _say_http_is_spoken(urlsplit(_http_url(signal, environment, endpoint)).netloc.rpartition("@")[2])
    check_choice("protocol", protocol, _PROTOCOLS)
    if timeout is None:
        timeout = _sdk_timeout(infix, environment)
    check_number("timeout", timeout, 0.001, 3600)
    url = (_grpc_url if protocol == "grpc" else _http_url)(signal, environment, endpoint)
    if compression is None:
        compression = _sdk_compression(variable("COMPRESSION"), "none" if protocol == "grpc" else "gzip")
    check_choice("compression", compression, _COMPRESSIONS)
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
    name = f"OTEL_EXPORTER_OTLP_{_OTLP_INFIX[signal]}ENDPOINT"
    if own := environment.text(name):
        # A per-signal endpoint is used as it stands; only the base form gets the path.
        return _checked_url(name, own)
    base = environment.text("OTEL_EXPORTER_OTLP_ENDPOINT") or "http://localhost:4318"
    return _signal_url("OTEL_EXPORTER_OTLP_ENDPOINT", base, signal)


def _grpc_url(signal: Signal, environment: Environment, endpoint: str | None) -> str:
    """Return scheme, host and port as a URL; without a scheme, TLS is spoken unless `OTEL_EXPORTER_OTLP_INSECURE`."""
    prefixes = (f"OTEL_EXPORTER_OTLP_{_OTLP_INFIX[signal]}", "OTEL_EXPORTER_OTLP_")
    written = [("endpoint", endpoint), *((f"{each}ENDPOINT", environment.text(f"{each}ENDPOINT")) for each in prefixes)]
    name, text = next(((name, text) for name, text in written if text is not None), ("", "http://localhost:4317"))
    if "://" not in text:
        insecure = next(filter(None, (environment.text(f"{each}INSECURE") for each in prefixes)), "")
        text = ("http://" if insecure.lower() == "true" else "https://") + text
    return _checked_url(name, text)


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
    return _checked_url(name, base).rstrip("/") + _OTLP_PATH[signal]


def _sdk_timeout(infix: str, environment: Environment) -> float:
    # The specification says milliseconds, the SDK reads seconds; users have set what works with the SDK.
    def parse(text: str) -> float:
        value = float(text)
        if not 0 < value <= 3600:
            raise ValueError(text)
        return value

    own = environment.theirs(f"OTEL_EXPORTER_OTLP_{infix}TIMEOUT", parse)
    return own or environment.theirs("OTEL_EXPORTER_OTLP_TIMEOUT", parse) or 10.0


def _sdk_protocol(text: str | None) -> Protocol:
    if text is None:
        return "http/protobuf"
    for known in ("http/protobuf", "grpc"):
        if text.lower() == known:
            return known
    _logger.warning("OTLP protocol %r is not spoken here; http/protobuf is used", text)
    return "http/protobuf"


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


def _sdk_compression(text: str | None, default: Compression) -> Compression:
    if text is None:
        return default
    for known in ("none", "gzip", "deflate"):
        if text.lower() == known:
            return known
    _logger.warning("OTLP compression %r is not known here; %s is used", text, default)
    return default


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


def resolve_timing(given: Timing | None, environment: Environment) -> Timing:
    """Return what was given, or the defaults with `SURGETANK_BACKOFF_*`, `SURGETANK_COOLDOWN_*` and `SURGETANK_JITTER`."""
    if given is not None:
        return given
    read = {
        name: environment.ours(f"SURGETANK_{name.upper()}", float, "a number of seconds")
        for name in _field_names(Timing)
    }
    return Timing(**{name: value for name, value in read.items() if value is not None})


def resolve_seconds(name: str, given: float | None, environment: Environment, default: float) -> float:
    """Complete one duration in seconds from keyword, `SURGETANK_<NAME>` and default."""
    value = given
    if value is None:
        value = environment.ours(f"SURGETANK_{name.upper()}", float, "a number of seconds")
    if value is None:
        value = default
    check_number(name, value, 0, 86_400)
    return float(value)


def _within_total(
    limits: Mapping[Signal, SignalLimits], given: float | None, environment: Environment
) -> Mapping[Signal, SignalLimits]:
    """Shrink all byte limits in proportion, where together they are above `total_memory_mb`."""
    name = "total_memory_mb"
    if given is None:
        name = "SURGETANK_TOTAL_MEMORY_MB"
        given = environment.ours(name, float, "a number of MiB")
    if given is None:
        return limits
    check_number(name, given, 0.25, 1_048_576)
    share = given * MEBIBYTE / sum(each.max_bytes for each in limits.values())
    if share >= 1:
        return limits
    return {signal: _shrunk(each, int(each.max_bytes * share)) for signal, each in limits.items()}


def _beside_calls(limits: SignalLimits, outlet: OutletConfig) -> SignalLimits:
    """Set room aside for a gRPC call: the uncompressed request is held twice while it lasts, by us and by gRPC."""
    if outlet.protocol != "grpc":
        return limits
    return replace(limits, max_bytes=limits.max_bytes - 2 * limits.max_batch_bytes)


def _shrunk(limits: SignalLimits, max_bytes: int) -> SignalLimits:
    return replace(limits, max_bytes=max_bytes, max_batch_bytes=min(limits.max_batch_bytes, max_bytes // 8))


def resolve(
    *,
    spans: BufferConfig | None = None,
    metrics: BufferConfig | None = None,
    logs: BufferConfig | None = None,
    timing: Timing | None = None,
    shutdown_timeout: float | None = None,
    metric_export_interval: float | None = None,
    persistence_enabled: bool | None = None,
    total_memory_mb: float | None = None,
    variables: Mapping[str, str] | None = None,
    outlets: Mapping[Signal, OutletConfig] | None = None,
    **outlet: Any,
) -> TankConfig:
    """
    Complete a tank's configuration; `outlet` is what `resolve_outlet` takes, unless complete `outlets` are given.

    Raises:
        ConfigError: Anything is outside its range or contradicts something else.
    """
    environment = Environment(variables)
    buffers = {Signal.SPANS: spans, Signal.METRICS: metrics, Signal.LOGS: logs}
    sdk_interval = environment.theirs("OTEL_METRIC_EXPORT_INTERVAL", _parse_positive_millis)
    interval = metric_export_interval if metric_export_interval is not None else sdk_interval
    if interval is None:
        interval = 60.0
    check_number("metric_export_interval", interval, 0.001, 86_400)
    limits = {signal: resolve_limits(signal, config, environment) for signal, config in buffers.items()}
    if persistence_enabled is None:
        persistence_enabled = environment.ours("SURGETANK_PERSISTENCE_ENABLED", parse_bool, "true or false")
    if persistence_enabled is False:
        limits = {signal: replace(each, persist="none") for signal, each in limits.items()}
    if outlets is None:
        outlets = {signal: resolve_outlet(signal, environment, **outlet) for signal in Signal}
    limits = dict(_within_total(limits, total_memory_mb, environment))
    return TankConfig(
        limits={signal: _beside_calls(each, outlets[signal]) for signal, each in limits.items()},
        outlets=outlets,
        timing=resolve_timing(timing, environment),
        shutdown_timeout=resolve_seconds("shutdown_timeout", shutdown_timeout, environment, 5.0),
        metric_export_interval=float(interval),
        metric_export_timeout=environment.theirs("OTEL_METRIC_EXPORT_TIMEOUT", _parse_positive_millis) or 30.0,
    )
