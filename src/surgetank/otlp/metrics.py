"""Metrics: one item is one data point; points of one metric in a row share its Metric message.

Owns: one pipeline's caches for metrics.
Threads: `flatten`, `estimate` and `is_critical` any, at once; the rest one at a time.
Invariants: points of different collections never share a request, because
receivers take two points of one series in one request for a mistake.

A metric without points yields no item, and so nothing is sent for it: the official
encoder sends a Metric message with a name and no data, which tells a receiver nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from surgetank.model import Signal
from surgetank.otlp.attributes import AttributeEncoder, TextCache
from surgetank.otlp.estimate import FAILED, estimate_attributes
from surgetank.otlp.points import data_head, encode_point, kind_of
from surgetank.otlp.request import PIECE_BYTES, Container, Grouping, Heads, joined

_POINT_BYTES: Final = 350
_EXEMPLAR_BYTES: Final = 500
_NUMBER_BYTES: Final = 40
"""An int or float in a list: the object and its slot."""


class MetricPoint:
    """One data point with what it belongs to."""

    __slots__ = ("collection", "metric", "point", "resource", "scope")

    def __init__(self, collection: int, resource: Any, scope: Any, metric: Any, point: Any) -> None:
        self.collection = collection
        self.resource = resource
        self.scope = scope
        self.metric = metric
        self.point = point


def flatten(metrics_data: Any, collection: int) -> list[MetricPoint]:
    """
    Take the SDK's `MetricsData` apart into data points, in order.

    Args:
        metrics_data: What a reader's `_receive_metrics` was given.
        collection: A number of the caller's that is different for every collection.
    """
    return [
        MetricPoint(collection, resource_metrics.resource, scope_metrics.scope, metric, point)
        for resource_metrics in metrics_data.resource_metrics
        for scope_metrics in resource_metrics.scope_metrics
        for metric in scope_metrics.metrics
        for point in getattr(metric.data, "data_points", None) or ()
    ]


class MetricCodec:
    """The codec of the metrics' pipeline; its items are `MetricPoint`s."""

    def __init__(self) -> None:
        self._attributes = AttributeEncoder()
        self._texts = TextCache()
        self._heads = Heads(self._attributes)

    @property
    def signal(self) -> Signal:
        """Metrics."""
        return Signal.METRICS

    def open(self) -> MetricRequest:
        """Begin an empty request."""
        return MetricRequest(self._heads, self._attributes, self._texts)

    def is_critical(self, item: Any) -> bool:
        """Return False: no data point is dearer than another."""
        return False

    def estimate(self, item: Any) -> int:
        """Return about how many bytes of memory a data point keeps alive."""
        try:
            return _estimate(item.point)
        except Exception:
            return FAILED


def _estimate(point: Any) -> int:
    size = _POINT_BYTES
    if point.attributes:
        size += estimate_attributes(point.attributes)
    for exemplar in point.exemplars:
        size += _EXEMPLAR_BYTES
        if exemplar.filtered_attributes:
            size += estimate_attributes(exemplar.filtered_attributes)
    if hasattr(point, "explicit_bounds"):
        size += _NUMBER_BYTES * (len(point.bucket_counts) + len(point.explicit_bounds))
    elif hasattr(point, "positive"):
        size += _NUMBER_BYTES * (len(point.positive.bucket_counts) + len(point.negative.bucket_counts))
    return size


class MetricRequest:
    """An `OpenRequest` of data points of one collection."""

    __slots__ = ("_attributes", "_collection", "_groups", "_metric", "_place", "_points", "_texts", "items", "size")

    def __init__(self, heads: Heads, attributes: AttributeEncoder, texts: TextCache) -> None:
        self._attributes = attributes
        self._texts = texts
        self._groups = Grouping(heads)
        self._collection: int | None = None
        self._metric: Any = None
        self._place: Container | None = None
        self._points: Container | None = None
        self.items = 0
        self.size = 0

    def accepts(self, item: Any) -> bool:
        """Return whether the item is of the collection that this request began with."""
        return self._collection is None or bool(item.collection == self._collection)

    def add(self, item: MetricPoint) -> int:
        """
        Encode a data point and return how many bytes `size` grew by.

        Raises:
            ValueError: The point is of another collection, or its metric is of no kind that OTLP has.
        """
        if not self.accepts(item):
            raise ValueError("a request takes data points of one collection only")
        kind = kind_of(item.metric.data)
        pieces: list[bytes] = []
        size = encode_point(item.point, kind, self._attributes, pieces)
        heads = self._groups.head_bytes
        grown = 0
        place = self._groups.place(item.resource, item.scope)
        points = self._points
        if points is None or item.metric is not self._metric or place is not self._place:
            metric_head = self._metric_head(item.metric)
            head = data_head(item.metric.data)
            metric, points = Container(b"\x12", metric_head), Container(kind.tag, head)
            metric.nest(points)
            place.nest(metric)
            self._metric, self._place, self._points = item.metric, place, points
            grown = len(metric_head) + len(head)
        points.extend(pieces if size >= PIECE_BYTES else [b"".join(pieces)], size)
        grown += size + self._groups.head_bytes - heads
        self._collection = item.collection
        self.items += 1
        self.size += grown
        return grown

    def _metric_head(self, metric: Any) -> bytes:
        head = b""
        for field_tag, value in ((b"\x0a", metric.name), (b"\x12", metric.description), (b"\x1a", metric.unit)):
            if value:
                head += field_tag + self._texts[value]
        return head

    def pieces(self) -> Iterator[bytes]:
        """Yield the message in order, small items joined, large values as they are."""
        return joined(self._groups.pieces())
