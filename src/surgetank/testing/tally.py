"""Counts what a collector received, by identity: what is new, and what came twice.

Owns: the identities seen and the sums. Threads: the collector's lock guards it.
Invariants: per signal, `received = unique + duplicates`.

Identity is what the producer cannot repeat by accident: a span's trace and span id, a log
record's `item.id` attribute (or, without one, its whole content), a data point's metric,
attributes and times.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from surgetank.model import Signal

ITEM_ID: Final = "item.id"

REQUESTS: Final[dict[Signal, Any]] = {
    Signal.SPANS: ExportTraceServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
}


class Tally:
    """One collector's count."""

    def __init__(self) -> None:
        self.received: dict[Signal, int] = dict.fromkeys(Signal, 0)
        self.seen: dict[Signal, set[Any]] = {signal: set() for signal in Signal}
        self.delta_sums: dict[str, float] = {}
        """Per metric, the sum of all delta sums that arrived, each point once."""
        self.cumulative: dict[str, dict[Any, float]] = {}
        """Per metric and series, the highest cumulative sum that arrived."""

    def add(self, signal: Signal, request: Any, *, skip: int = 0) -> None:
        """Count a decoded request's items; `skip` leaves out the first so many, which were rejected."""
        for number, (identity, note) in enumerate(_items(signal, request)):
            if number < skip:
                continue
            self.received[signal] += 1
            if identity in self.seen[signal]:
                continue
            self.seen[signal].add(identity)
            if note is not None:
                self._sum(*note)

    def report(self) -> dict[str, Any]:
        """Return the counts as plain data, for JSON."""
        report: dict[str, Any] = {
            signal.value: {
                "received": self.received[signal],
                "unique": len(self.seen[signal]),
                "duplicates": self.received[signal] - len(self.seen[signal]),
            }
            for signal in Signal
        }
        report["delta_sums"] = dict(self.delta_sums)
        report["cumulative_sums"] = {name: sum(series.values()) for name, series in self.cumulative.items()}
        return report

    def _sum(self, name: str, series: Any, value: float, is_delta: bool) -> None:
        if is_delta:
            self.delta_sums[name] = self.delta_sums.get(name, 0) + value
        else:
            known = self.cumulative.setdefault(name, {})
            known[series] = max(known.get(series, value), value)


def count_items(signal: Signal, request: Any) -> int:
    """Return the number of items in a decoded request."""
    return sum(1 for _ in _items(signal, request))


def attribute_keys(signal: Signal, request: Any) -> Iterator[str]:
    """Yield every attribute key of every item, for receivers that object to one."""
    for item in _raw_items(signal, request):
        for pair in item.attributes:
            yield pair.key


def _items(signal: Signal, request: Any) -> Iterator[tuple[Any, tuple[str, Any, float, bool] | None]]:
    if signal is Signal.SPANS:
        for span in _raw_items(signal, request):
            yield (span.trace_id, span.span_id), None
    elif signal is Signal.LOGS:
        for record in _raw_items(signal, request):
            yield _log_identity(record), None
    else:
        yield from _points(request)


def _raw_items(signal: Signal, request: Any) -> Iterator[Any]:
    if signal is Signal.SPANS:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                yield from scope.spans
    elif signal is Signal.LOGS:
        for resource in request.resource_logs:
            for scope in resource.scope_logs:
                yield from scope.log_records
    else:
        for _, metric in _metrics(request):
            yield from _data(metric).data_points


def _log_identity(record: Any) -> Any:
    for pair in record.attributes:
        if pair.key == ITEM_ID:
            return pair.value.SerializeToString()
    return hash(record.SerializeToString(deterministic=True))


def _metrics(request: Any) -> Iterator[tuple[Any, Any]]:
    for resource in request.resource_metrics:
        owner = resource.resource.SerializeToString(deterministic=True)
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                if metric.WhichOneof("data") is not None:
                    yield owner, metric


def _data(metric: Any) -> Any:
    return getattr(metric, metric.WhichOneof("data"))


def _points(request: Any) -> Iterator[tuple[Any, tuple[str, Any, float, bool] | None]]:
    for owner, metric in _metrics(request):
        data = _data(metric)
        is_sum = metric.WhichOneof("data") == "sum"
        for point in data.data_points:
            attributes = tuple(sorted((pair.key, pair.value.SerializeToString()) for pair in point.attributes))
            series = (owner, metric.name, attributes)
            identity = (*series, point.start_time_unix_nano, point.time_unix_nano)
            note = None
            if is_sum:
                # 1 is AGGREGATION_TEMPORALITY_DELTA.
                value = point.as_int if point.WhichOneof("value") == "as_int" else point.as_double
                note = (metric.name, (series, point.start_time_unix_nano), value, data.aggregation_temporality == 1)
            yield identity, note
