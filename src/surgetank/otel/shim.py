"""The one module that does to OpenTelemetry what it keeps private; how its objects are read is in `otlp/sdk.py` (decision 15).

Owns: no state. Threads: as each function says.
Invariants: where a private name is gone, the fallback is the public behaviour, not an error.
"""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry._logs import LogRecord, SeverityNumber, get_logger_provider, set_logger_provider
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.metrics import Asynchronous
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics._internal.point import Buckets
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricReader
from opentelemetry.sdk.metrics.view import Aggregation
from opentelemetry.sdk.util import BoundedList

__all__ = [
    "OWN_SCOPE",
    "Buckets",
    "GrpcParts",
    "HttpParts",
    "LogRecord",
    "LogRecordExportResult",
    "LogRecordExporter",
    "LogRecordProcessor",
    "LoggerProvider",
    "ReadWriteLogRecord",
    "ReadableLogRecord",
    "SeverityNumber",
    "add_reader",
    "bounded_attributes",
    "bounded_list",
    "can_add_readers",
    "get_logger_provider",
    "grpc_parts",
    "http_parts",
    "is_registered",
    "new_logging_handler",
    "prefer_as_exporter",
    "preferences",
    "real_meter",
    "renew_after_fork",
    "request_limits",
    "sdk_configurator",
    "set_logger_provider",
    "suppressed",
]

OWN_SCOPE: Final = "surgetank"
"""The instrumentation scope of our own metrics."""
# The key that instrumentations ask for before they trace a request.
_SUPPRESS_KEY: str | None = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", None)


@contextmanager
def suppressed() -> Iterator[None]:
    """Run with instrumentation suppressed on the calling thread, so that our sends make no spans of their own."""
    if _SUPPRESS_KEY is None:
        yield
        return
    token = otel_context.attach(otel_context.set_value(_SUPPRESS_KEY, True))
    try:
        yield
    finally:
        otel_context.detach(token)


def can_add_readers() -> bool:
    """Whether a meter provider that there is takes one more reader; older ones take them when they are made."""
    return hasattr(MeterProvider, "add_metric_reader")


def add_reader(provider: MeterProvider, reader: MetricReader) -> None:
    """
    Give a meter provider that there is one more reader; what its instruments measured before is not in it.

    Raises:
        Exception: This version is built otherwise; nothing was changed.
    """
    if can_add_readers():
        provider.add_metric_reader(reader)
        return
    from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage

    # As the method of later versions does it: a copy takes the place of the mapping, over which other threads may
    # be iterating at the moment without a lock.
    consumer: Any = provider._measurement_consumer
    collect: Any = consumer.collect
    preferred: Any = (reader._instrument_class_temporality, reader._instrument_class_aggregation)
    with consumer._lock:
        storage = MetricReaderStorage(consumer._sdk_config, *preferred)
        consumer._reader_storages = {**consumer._reader_storages, reader: storage}
    reader._set_collect_callback(collect)


def real_meter(meter: Any) -> Any:
    """Return the meter that one made before the global provider was set stands in for since; None while there is none."""
    return getattr(meter, "_real_meter", None)


def new_logging_handler() -> logging.Handler | None:
    """Return OpenTelemetry's handler for `logging`, for the global logger provider; None where there is none any more."""
    try:
        with warnings.catch_warnings():
            # The SDK's is deprecated in favour of one that is not installed with it.
            warnings.simplefilter("ignore", DeprecationWarning)
            from opentelemetry.sdk._logs import LoggingHandler

            return LoggingHandler()
    except ImportError:
        try:
            separate = import_module("opentelemetry.instrumentation.logging.handler")
            handler: logging.Handler = separate.LoggingHandler()
        except (ImportError, AttributeError):
            return None
        return handler


def sdk_configurator() -> Any:
    """
    Return the SDK's own configurator, from which distributions derive theirs though it is private, as a class to derive from.

    Its hook is `configure_with(configure, arguments)`: `configure(**arguments)` does what the SDK does.
    """
    # Imported when asked for: nobody pays for it, or depends on it, who configures the SDK in another way.
    from opentelemetry.sdk._configuration import _OTelSDKConfigurator

    class Configurator(_OTelSDKConfigurator):
        def _configure(self, **arguments: Any) -> None:
            self.configure_with(super()._configure, arguments)

        def configure_with(self, configure: Callable[..., None], arguments: dict[str, Any]) -> None:
            configure(**arguments)

    return Configurator


def is_registered(reader: MetricReader) -> bool:
    """Whether a meter provider has adopted the reader; collecting before that only logs a warning."""
    return getattr(reader, "_collect", True) is not None


def prefer_as_exporter(
    reader: Any, temporality: dict[type, AggregationTemporality], aggregation: dict[type, Aggregation]
) -> None:
    """Say what a periodic reader of the SDK's asks its exporter for, on a reader that may serve as one."""
    reader._preferred_temporality = temporality
    reader._preferred_aggregation = aggregation


def renew_after_fork(reader: MetricReader) -> None:
    """
    Give a forked child measurements of its own.

    The child inherits what the parent has recorded and not yet collected, and would report it a
    second time. It also inherits locks that another thread of the parent may have held. Synchronous
    instruments therefore start from zero; asynchronous ones keep their last observation,
    from which their deltas are computed.
    """
    consumer: Any = getattr(getattr(reader, "_collect", None), "__self__", None)
    storages = getattr(consumer, "_reader_storages", None)
    if storages is None:
        return
    consumer._lock = threading.Lock()
    storage = storages.get(reader)
    matches = getattr(storage, "_instrument_view_instrument_matches", None)
    if matches is None:
        return
    storage._lock = threading.RLock()
    for instrument, view_matches in list(matches.items()):
        for match in view_matches:
            # What we observe of ourselves begins at zero in the child, as synchronous instruments do.
            is_ours = getattr(getattr(instrument, "instrumentation_scope", None), "name", "") == OWN_SCOPE
            _renew_match(match, is_from_zero=is_ours or not isinstance(instrument, Asynchronous))


def _renew_match(match: Any, *, is_from_zero: bool) -> None:
    aggregations = getattr(match, "_attributes_aggregation", None)
    if aggregations is None:
        return
    if hasattr(match, "_lock"):
        match._lock = threading.Lock()
    if is_from_zero:
        aggregations.clear()
        return
    for aggregation in aggregations.values():
        if hasattr(aggregation, "_lock"):
            aggregation._lock = threading.Lock()


def bounded_attributes(values: dict[str, Any], dropped: int) -> BoundedAttributes:
    """Return the SDK's container of attributes that were cleaned long ago, with its count of those that were dropped."""
    container = BoundedAttributes(immutable=False)
    inner = getattr(container, "_dict", None)
    if isinstance(inner, dict):
        # Past the cleaning, which would take nested values for mistakes in older versions.
        inner.update(values)
    else:
        container = BoundedAttributes(attributes=values, immutable=False)
    container.dropped = dropped
    container._immutable = True
    return container


def bounded_list(items: Sequence[Any], dropped: int) -> BoundedList[Any]:
    """Return the SDK's list of events or links, with its count of those that were dropped."""
    container = BoundedList.from_seq(None, items)
    container.dropped = dropped
    return container


def preferences(exporter: Any) -> tuple[dict[type, AggregationTemporality], dict[type, Aggregation]]:
    """Return the temporality and aggregation that a metric exporter asks its reader for."""
    temporality = getattr(exporter, "_preferred_temporality", None)
    return dict(temporality or {}), dict(getattr(exporter, "_preferred_aggregation", None) or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpParts:
    """What the SDK's OTLP/HTTP exporters keep to themselves."""

    endpoint: str
    headers: dict[str, Any]
    timeout: float
    compression: str
    verify: Any
    """What `requests` takes: True, False, or the path of CA certificates."""
    cert: Any
    """What `requests` takes: None, a path, or a pair of certificate and key."""
    session: Any
    """The `requests.Session`."""
    transport: type | None
    """The class of what sends with the session; None where the exporter does so itself."""


def http_parts(exporter: Any) -> HttpParts:
    """
    Read one of the SDK's OTLP/HTTP exporters, of any version from 1.41 on.

    Raises:
        Exception: This version is built otherwise.
    """
    # Since 1.44 most of it is in a client of the exporter's, and the session in a transport of the client's.
    client = getattr(exporter, "_client", None) or exporter
    transport = getattr(client, "_transport", None)
    session = client._session if transport is None else transport._session
    return HttpParts(
        endpoint=exporter._endpoint,
        headers=dict(client._headers),
        timeout=float(client._timeout),
        compression=str(client._compression.value).lower(),
        verify=exporter._certificate_file if transport is None else session.verify,
        cert=exporter._client_cert if transport is None else session.cert,
        session=session,
        transport=None if transport is None else type(transport),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcParts:
    """What the SDK's OTLP/gRPC exporters keep to themselves."""

    endpoint: str
    """Host and port, or a target of gRPC's own kinds."""
    is_insecure: bool
    headers: list[tuple[str, Any]]
    timeout: float
    compression: str
    """The name in `grpc.Compression`."""
    options: list[str]
    """The names of the channel's options."""
    has_own_codes: bool
    """Whether it was told which status codes to retry."""


def grpc_parts(exporter: Any) -> GrpcParts:
    """
    Read one of the SDK's OTLP/gRPC exporters, of any version from 1.41 on.

    Raises:
        Exception: This version is built otherwise.
    """
    return GrpcParts(
        endpoint=exporter._endpoint,
        is_insecure=bool(exporter._insecure),
        headers=[(name, content) for name, content in exporter._headers],
        timeout=float(exporter._timeout),
        compression=exporter._compression.name,
        options=[name for name, _ in exporter._channel_options],
        has_own_codes=_has_own_codes(exporter),
    )


def _has_own_codes(exporter: Any) -> bool:
    """Return whether a gRPC exporter retries other status codes than it does unasked; before 1.42 nobody could ask."""
    chosen = getattr(exporter, "_retryable_error_codes", None)
    if chosen is None:
        return False
    homes = [sys.modules.get(kind.__module__) for kind in type(exporter).__mro__]
    defaults = [getattr(home, "_RETRYABLE_ERROR_CODES") for home in homes if hasattr(home, "_RETRYABLE_ERROR_CODES")]  # noqa: B009
    return set(chosen) not in map(set, defaults)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLimits:
    """How much one of the SDK's OTLP exporters puts into a request."""

    max_items: int | None
    """Data points; None for no limit, and for spans and logs, whose processors say it."""
    max_bytes: int | None
    """Serialised, before compression; None for no limit."""


def request_limits(exporter: Any) -> RequestLimits:
    """Read what an OTLP exporter was told about the size of its requests; versions that cannot be told have no limit."""
    items, size = getattr(exporter, "_max_export_batch_size", None), getattr(exporter, "_max_request_size", None)
    # As the exporters take them: no size, and none above nought, is no limit.
    return RequestLimits(
        max_items=None if items is None else int(items), max_bytes=int(size) if size is not None and size > 0 else None
    )
