"""Sealed bytes as SDK objects again, for exporters that are not ours to replace.

Owns: no state. Threads: any.
Invariants: encoded once more, the objects give the same messages; what OTLP does not carry (a gauge's start time,
the flags of a span that was sampled) has the value that the SDK's own objects have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from surgetank.model import Signal
from surgetank.otel.shim import (
    Buckets,
    LogRecord,
    ReadableLogRecord,
    SeverityNumber,
    bounded_attributes,
    bounded_list,
)
from surgetank.otlp.decode import decode, mapping, value

_IS_REMOTE: Final = 0x200
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_KINDS: Final = {kind.value + 1: kind for kind in SpanKind}
_STATUS_CODES: Final = {code.value: code for code in StatusCode}
_SEVERITIES: Final = {severity.value: severity for severity in SeverityNumber}
_TEMPORALITIES: Final = {temporality.value: temporality for temporality in AggregationTemporality}

_Message = dict[str, Any]


def spans(raw: bytes) -> list[ReadableSpan]:
    """
    Return the spans of a request, in order.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    request = decode(raw, Signal.SPANS)
    return [
        _span(span, resource, scope)
        for resource, _, container in _resources(request, "resourceSpans")
        for scope, inner in _scopes(container, "scopeSpans")
        for span in inner.get("spans", ())
    ]


def log_records(raw: bytes) -> list[ReadableLogRecord]:
    """
    Return the log records of a request, in order.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    request = decode(raw, Signal.LOGS)
    return [
        ReadableLogRecord(log_record=_log_record(record), resource=resource, instrumentation_scope=scope)
        for resource, _, container in _resources(request, "resourceLogs")
        for scope, inner in _scopes(container, "scopeLogs")
        for record in inner.get("logRecords", ())
    ]


def metrics_data(raw: bytes) -> MetricsData:
    """
    Return a request of metrics as one collection.

    Raises:
        ValueError: The bytes are no protobuf message.
    """
    request = decode(raw, Signal.METRICS)
    return MetricsData(
        resource_metrics=[
            ResourceMetrics(
                resource=resource,
                scope_metrics=[
                    ScopeMetrics(
                        scope=scope,
                        metrics=[_metric(metric) for metric in inner.get("metrics", ())],
                        schema_url=scope.schema_url or "",
                    )
                    for scope, inner in _scopes(container, "scopeMetrics")
                ],
                schema_url=schema_url,
            )
            for resource, schema_url, container in _resources(request, "resourceMetrics")
        ]
    )


def _resources(request: _Message, name: str) -> Iterator[tuple[Resource, str, _Message]]:
    for container in request.get(name, ()):
        schema_url = container.get("schemaUrl", "")
        attributes = mapping(container.get("resource", {}).get("attributes", ()))
        yield Resource(attributes, schema_url), schema_url, container


def _scopes(container: _Message, name: str) -> Iterator[tuple[InstrumentationScope, _Message]]:
    for inner in container.get(name, ()):
        scope = inner.get("scope", {})
        attributes = mapping(scope.get("attributes", ()))
        yield (
            InstrumentationScope(
                scope.get("name", ""), scope.get("version"), inner.get("schemaUrl", ""), attributes or None
            ),
            inner,
        )


def _attributes(message: _Message) -> Any:
    return bounded_attributes(mapping(message.get("attributes", ())), message.get("droppedAttributesCount", 0))


def _span(span: _Message, resource: Resource, scope: InstrumentationScope) -> ReadableSpan:
    trace_id = span.get("traceId", 0)
    parent_id = span.get("parentSpanId")
    is_remote = bool(span.get("flags", 0) & _IS_REMOTE)
    return ReadableSpan(
        name=span.get("name", ""),
        # Only sampled spans are ever offered, and so were their parents.
        context=SpanContext(trace_id, span.get("spanId", 0), False, _SAMPLED, _trace_state(span)),
        parent=None if parent_id is None else SpanContext(trace_id, parent_id, is_remote, _SAMPLED),
        resource=resource,
        attributes=_attributes(span),
        events=bounded_list([_event(event) for event in span.get("events", ())], span.get("droppedEventsCount", 0)),
        links=bounded_list([_link(link) for link in span.get("links", ())], span.get("droppedLinksCount", 0)),
        kind=_KINDS.get(span.get("kind", 0), SpanKind.INTERNAL),
        status=_status(span.get("status")),  # type: ignore[arg-type]  # a span without one stays without one
        start_time=span.get("startTimeUnixNano", 0),
        end_time=span.get("endTimeUnixNano", 0),
        instrumentation_scope=scope,
    )


def _trace_state(message: _Message) -> TraceState:
    pairs = (member.partition("=") for member in message.get("traceState", "").split(",") if member)
    return TraceState([(key, content) for key, _, content in pairs])


def _event(event: _Message) -> Event:
    return Event(event.get("name", ""), _attributes(event), event.get("timeUnixNano", 0))


def _link(link: _Message) -> Link:
    is_remote = bool(link.get("flags", 0) & _IS_REMOTE)
    context = SpanContext(link.get("traceId", 0), link.get("spanId", 0), is_remote, _SAMPLED, _trace_state(link))
    return Link(context, _attributes(link))


def _status(status: _Message | None) -> Status | None:
    if status is None:
        return None
    code = _STATUS_CODES.get(status.get("code", 0), StatusCode.UNSET)
    return Status(code, status.get("message") if code is StatusCode.ERROR else None)


def _log_record(record: _Message) -> LogRecord:
    log = LogRecord(
        timestamp=record.get("timeUnixNano"),
        observed_timestamp=record.get("observedTimeUnixNano", 0),
        context=Context(),
        severity_text=record.get("severityText"),
        severity_number=_SEVERITIES.get(record.get("severityNumber", 0)) if "severityNumber" in record else None,
        body=value(record.get("body")),
        attributes=_attributes(record),
        event_name=record.get("eventName"),
    )
    # An empty context counts as none, and then it is the calling thread's that would have a say.
    log.context = Context()
    log.trace_id = record.get("traceId", 0)
    log.span_id = record.get("spanId", 0)
    log.trace_flags = TraceFlags(record.get("flags", 0))
    return log


def _metric(metric: _Message) -> Metric:
    for name, make in _DATA.items():
        if name in metric:
            data = make(metric[name])
            break
    else:
        data = Gauge([])
    return Metric(metric.get("name", ""), metric.get("description", ""), metric.get("unit", ""), data)


def _temporality(data: _Message) -> AggregationTemporality:
    return _TEMPORALITIES.get(data.get("aggregationTemporality", 0), AggregationTemporality.UNSPECIFIED)


def _gauge(data: _Message) -> Gauge:
    return Gauge([_number_point(point) for point in data.get("dataPoints", ())])


def _sum(data: _Message) -> Sum:
    points = [_number_point(point) for point in data.get("dataPoints", ())]
    return Sum(points, _temporality(data), data.get("isMonotonic", False))


def _histogram(data: _Message) -> Histogram:
    return Histogram([_histogram_point(point) for point in data.get("dataPoints", ())], _temporality(data))


def _exponential(data: _Message) -> ExponentialHistogram:
    points = [_exponential_point(point) for point in data.get("dataPoints", ())]
    return ExponentialHistogram(points, _temporality(data))


_DATA: Final[Mapping[str, Callable[[_Message], Any]]] = {
    "gauge": _gauge,
    "sum": _sum,
    "histogram": _histogram,
    "exponentialHistogram": _exponential,
}


def _common(point: _Message) -> dict[str, Any]:
    """Return what the points of all kinds have; attributes as the plain dict that the SDK's points have."""
    return {
        "attributes": mapping(point.get("attributes", ())),
        "start_time_unix_nano": point.get("startTimeUnixNano", 0),
        "time_unix_nano": point.get("timeUnixNano", 0),
        "exemplars": [_exemplar(exemplar) for exemplar in point.get("exemplars", ())],
    }


def _number(message: _Message) -> Any:
    return message["asInt"] if "asInt" in message else message.get("asDouble", 0.0)


def _number_point(point: _Message) -> NumberDataPoint:
    return NumberDataPoint(value=_number(point), **_common(point))


def _histogram_point(point: _Message) -> HistogramDataPoint:
    return HistogramDataPoint(
        count=point.get("count", 0),
        sum=point.get("sum"),  # type: ignore[arg-type]  # which OTLP leaves out for instruments that can go down
        bucket_counts=point.get("bucketCounts", []),
        explicit_bounds=point.get("explicitBounds", []),
        min=point.get("min"),  # type: ignore[arg-type]  # as above
        max=point.get("max"),  # type: ignore[arg-type]  # as above
        **_common(point),
    )


def _exponential_point(point: _Message) -> ExponentialHistogramDataPoint:
    return ExponentialHistogramDataPoint(
        count=point.get("count", 0),
        sum=point.get("sum"),  # type: ignore[arg-type]  # as above
        scale=point.get("scale", 0),
        zero_count=point.get("zeroCount", 0),
        positive=_buckets(point.get("positive", {})),
        negative=_buckets(point.get("negative", {})),
        flags=point.get("flags", 0),
        min=point.get("min"),  # type: ignore[arg-type]  # as above
        max=point.get("max"),  # type: ignore[arg-type]  # as above
        **_common(point),
    )


def _buckets(buckets: _Message) -> Buckets:
    return Buckets(offset=buckets.get("offset", 0), bucket_counts=buckets.get("bucketCounts", []))


def _exemplar(exemplar: _Message) -> Exemplar:
    return Exemplar(
        filtered_attributes=mapping(exemplar.get("filteredAttributes", ())),
        value=_number(exemplar),
        time_unix_nano=exemplar.get("timeUnixNano", 0),
        span_id=exemplar.get("spanId"),
        trace_id=exemplar.get("traceId"),
    )
