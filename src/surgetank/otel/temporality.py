"""Which temporality and aggregation the OTLP variables ask for; the reader's half of `OTEL_EXPORTER_OTLP_METRICS_*`.

Owns: no state. Threads: any. Invariants: instruments that a preference does not name stay cumulative.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

from surgetank.config import Environment

_logger = logging.getLogger(__name__)

_DELTA: Final = AggregationTemporality.DELTA
_PREFERENCES: Final[Mapping[str, dict[type, AggregationTemporality]]] = {
    "cumulative": {},
    "delta": {Counter: _DELTA, Histogram: _DELTA, ObservableCounter: _DELTA},
    "lowmemory": {Counter: _DELTA, Histogram: _DELTA},
}
_AGGREGATIONS: Final = ("explicit_bucket_histogram", "base2_exponential_bucket_histogram")


def preferred_temporality(environment: Environment) -> dict[type, AggregationTemporality]:
    """Read `OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE`: cumulative (default), delta or lowmemory."""
    name = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    wanted = (environment.text(name) or "cumulative").lower()
    if wanted not in _PREFERENCES:
        _logger.warning("%s=%r is not one of %s; cumulative is used", name, wanted, ", ".join(_PREFERENCES))
        wanted = "cumulative"
    return dict(_PREFERENCES[wanted])


def preferred_aggregation(environment: Environment) -> dict[type, Aggregation]:
    """Read `OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION`; explicit buckets by default."""
    name = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION"
    wanted = (environment.text(name) or _AGGREGATIONS[0]).lower()
    if wanted not in _AGGREGATIONS:
        _logger.warning("%s=%r is not one of %s; explicit buckets are used", name, wanted, ", ".join(_AGGREGATIONS))
    return {Histogram: ExponentialBucketHistogramAggregation()} if wanted == _AGGREGATIONS[1] else {}
