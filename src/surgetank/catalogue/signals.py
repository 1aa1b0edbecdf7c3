"""The settings that each signal has of its own: its buffer and the way to its endpoint.

Owns: no state. Threads: any.
Invariants: ranges, defaults and choices are those of the code that obeys them; texts are Markdown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, Final

from surgetank.arguments import WITHOUT_EFFECT
from surgetank.catalogue.effective import Effective
from surgetank.catalogue.setting import YES_OR_NO, Setting, between, one_of
from surgetank.config import MEBIBYTE
from surgetank.config.limits import (
    BUFFER_RANGES,
    DEFAULT_LIMITS,
    DROP_STRATEGIES,
    ON_FULL,
    OWN_PARSERS,
    PERSISTS,
    SDK_PARSERS,
    SDK_PREFIX,
)
from surgetank.config.outlet import (
    COMPRESSIONS,
    DEFAULT_TIMEOUT,
    HTTP_ENDPOINT,
    OTLP_INFIX,
    OTLP_PATH,
    PREFIX,
    PROTOCOLS,
    TIMEOUT_RANGE,
    is_insecure,
)
from surgetank.config.tls import REQUESTS
from surgetank.model import Signal

# keyword: (unit, effect)
_BUFFERS: Final[Mapping[str, tuple[str, str]]] = {
    "max_size": (
        "items",
        "items in memory (metrics: data points), all stages together; then `drop_strategy` decides",
    ),
    "max_memory_mb": (
        "MiB",
        (
            "bytes in memory over all copies (with gRPC, two times `max_batch_mb` of it are set aside for the call under way); "
            "then `drop_strategy` decides, reason `memory_limit`"
        ),
    ),
    "drop_strategy": (
        "",
        (
            "`oldest`: sealed batches, then waiting items, the critical lane last. `newest`: the item on offer. `sampling`: from "
            "half full on, keep one trace in 2, 4 … 32 and logs by severity, reason `sampled` "
            "([decision 11](decisions/0011-thinning-out-before-the-wall.md)); metrics: collect less often while the outlet is closed "
            "off; at the wall as `oldest`"
        ),
    ),
    "persistence_enabled": (
        "",
        "sealed batches are stored in the spool; no, where it is stated: never; metrics by default: at shutdown only",
    ),
    "persist": ("", "which of them: `all`, or `critical` for those of the critical lane only"),
    "on_full": (
        "",
        (
            "what becomes of the thread that offers when nothing can give way without a loss: `drop` leaves it to the strategy, "
            "`block` lets it wait in its turn (not on our threads, in signal handlers, destructors, `logging` handlers or a running "
            "event loop)"
        ),
    ),
    "block_timeout": ("seconds", "how long it waits; then the strategy decides"),
    "circuit_breaker_threshold": ("failures", "so many in a row open the breaker; one probe after each cooldown"),
    "max_export_batch_size": ("items", "so many make a batch due"),
    "max_batch_mb": ("MiB", "so much, encoded, makes a batch due; at most an eighth of `max_memory_mb`"),
    "schedule_delay": (
        "seconds",
        "after it a smaller batch is sealed; critical items are stored 0.1 s after they came, and sent on the same schedule",
    ),
}
_CHOICES: Final[Mapping[str, tuple[str, ...]]] = {
    "drop_strategy": DROP_STRATEGIES,
    "persist": PERSISTS,
    "on_full": ON_FULL,
}
_BECAUSE: Final[Mapping[str, str]] = {
    "max_memory_mb": "total_memory_mb, or room for a gRPC call, is taken off",
    "max_batch_mb": "a batch is at most an eighth of max_memory_mb",
    "persistence_enabled": "SURGETANK_PERSISTENCE_ENABLED turns it off for all",
}


def buffers() -> Iterator[Setting]:
    """Yield the limits of each signal's buffer."""
    for keyword in OWN_PARSERS:
        unit, effect = _BUFFERS[keyword]
        for signal in Signal:
            names = [f"SURGETANK_{signal.name}_{keyword.upper()}"]
            if names[0] in WITHOUT_EFFECT:
                continue
            prefix = SDK_PREFIX[signal]
            if keyword in SDK_PARSERS and prefix is not None:
                names.append(prefix + SDK_PARSERS[keyword][0])
            permitted = YES_OR_NO
            if keyword in BUFFER_RANGES:
                permitted = between(*BUFFER_RANGES[keyword][:2])
            elif keyword in _CHOICES:
                permitted = one_of(_CHOICES[keyword])
            yield Setting(
                section="buffer",
                keyword=keyword,
                signal=signal,
                variables=tuple(names),
                default=DEFAULT_LIMITS[signal][keyword],
                unit=unit,
                permitted=permitted,
                effect=effect,
                read=partial(_limit, signal, keyword),
                chosen=partial(_asked, signal, keyword) if keyword in _BECAUSE else None,
                because=_BECAUSE.get(keyword, ""),
            )


def _limit(signal: Signal, keyword: str, found: Effective) -> Any:
    limits = found.tank.limits[signal]
    if keyword == "max_memory_mb":
        return limits.max_bytes / MEBIBYTE
    if keyword == "max_batch_mb":
        return limits.max_batch_bytes / MEBIBYTE
    if keyword == "persistence_enabled":
        return limits.is_stored
    if keyword == "persist":
        return found.chosen[signal].persist
    return getattr(limits, keyword)


def _asked(signal: Signal, keyword: str, found: Effective) -> Any:
    return getattr(found.chosen[signal], keyword)


def outlets() -> Iterator[Setting]:
    """Yield the settings of each signal's delivery."""
    for keyword, build in _OUTLETS.items():
        for signal in Signal:
            yield build(keyword, signal)


def _outlet(
    keyword: str,
    signal: Signal,
    *,
    suffix: str = "",
    read: Callable[[Effective, Signal], Any] | None = None,
    default: Any = None,
    others: tuple[str, ...] = (),
    **more: Any,
) -> Setting:
    name = suffix or keyword.upper()
    return Setting(
        section="outlet",
        keyword=keyword,
        signal=signal,
        variables=(f"{PREFIX}{OTLP_INFIX[signal]}{name}", f"{PREFIX}{name}", *others),
        default=default(signal) if callable(default) else default,
        read=lambda found: read(found, signal) if read else getattr(found.tank.outlets[signal], keyword),
        **more,
    )


def _proxy(keyword: str, signal: Signal) -> Setting:
    return Setting(
        section="outlet",
        keyword=keyword,
        signal=signal,
        variables=("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"),
        read=lambda found: (found.proxy(signal) or (None, None))[1],
        origin=lambda found: (found.proxy(signal) or (None, None))[0],
        unit="URL",
        permitted="http:// or https://, empty for none",
        effect="an HTTP proxy; `NO_PROXY` names hosts that are reached without one. gRPC: `http://` proxies only, and gRPC's own "
        "reading of `grpc_proxy`, `https_proxy`, `http_proxy`, `no_proxy`",
    )


def _compression(found: Effective, signal: Signal) -> str:
    outlet = found.tank.outlets[signal]
    return outlet.call_compression if outlet.protocol == "grpc" else outlet.compression


_OUTLETS: Final[Mapping[str, Callable[[str, Signal], Setting]]] = {
    "endpoint": partial(
        _outlet,
        read=lambda found, signal: found.tank.outlets[signal].url,
        default=lambda signal: HTTP_ENDPOINT + OTLP_PATH[signal],
        unit="URL",
        permitted="http:// or https:// with a host",
        effect="HTTP: base; each signal adds its path, but a signal's own variable is used as it stands. gRPC: scheme, host and "
        "port, by default `http://localhost:4317`",
    ),
    "protocol": partial(
        _outlet,
        default="http/protobuf",
        permitted=one_of(PROTOCOLS),
        ends_at_ignored=True,
        effect="`grpc` needs `surgetank[grpc]` ([decision 14](decisions/0014-grpc-from-sealed-bytes.md)); in a variable `http/json`, and "
        "`grpc` where it is not installed, are logged and read as http/protobuf",
    ),
    "headers": partial(
        _outlet,
        read=lambda found, signal: dict(found.tank.outlets[signal].headers),
        default=lambda _: {},
        is_secret=True,
        permitted="name=value,name=value",
        effect="sent with every request, percent-encoded in variables; gRPC: metadata, printable ASCII",
    ),
    "timeout": partial(
        _outlet,
        default=DEFAULT_TIMEOUT,
        unit="seconds",
        permitted=between(*TIMEOUT_RANGE),
        effect="one attempt; the variables are read in seconds, as the SDK does",
    ),
    "compression": partial(
        _outlet,
        read=_compression,
        default="gzip",
        permitted=one_of(COMPRESSIONS),
        ends_at_ignored=True,
        effect="with gRPC, by default none: of calls, about 1 ms for 500 spans; what is held is gzip",
    ),
    "certificate_file": partial(
        _outlet,
        suffix="CERTIFICATE",
        unit="PEM file",
        permitted="a file that exists",
        others=REQUESTS,
        effect="CAs to trust in place of the system's; `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`, a file or a folder, count for HTTP only (gRPC: of its own list, or `GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`)",
    ),
    "client_key_file": partial(
        _outlet, suffix="CLIENT_KEY", unit="PEM file", permitted="a file that exists", effect="for mutual TLS"
    ),
    "client_certificate_file": partial(
        _outlet, suffix="CLIENT_CERTIFICATE", unit="PEM file", permitted="a file that exists", effect="for mutual TLS"
    ),
    "insecure": partial(
        _outlet,
        read=lambda found, signal: is_insecure(signal, found.environment),
        default=False,
        permitted=YES_OR_NO,
        effect="a variable only: a gRPC endpoint without a scheme is spoken to in the clear",
    ),
    "proxy": _proxy,
}
