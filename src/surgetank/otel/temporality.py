"""Which temporality and aggregation the OTLP variables ask for; the reader's half of `OTEL_EXPORTER_OTLP_METRICS_*`.

Owns: no state. Threads: any. Invariants: instruments that a preference does not name stay cumulative.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from opentelemetry.sdk.metrics import Counter, Histogram, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation

from surgetank.config import Environment
from surgetank.config.resolve import AGGREGATIONS, aggregation_preference, temporality_preference

_DELTA: Final = AggregationTemporality.DELTA
_PREFERENCES: Final[Mapping[str, dict[type, AggregationTemporality]]] = {
    "cumulative": {},
    "delta": {Counter: _DELTA, Histogram: _DELTA, ObservableCounter: _DELTA},
    "lowmemory": {Counter: _DELTA, Histogram: _DELTA},
}


def preferred_temporality(environment: Environment) -> dict[type, AggregationTemporality]:
    """Return the temporality of each kind of instrument that the preference names."""
    return dict(_PREFERENCES[temporality_preference(environment)])


def preferred_aggregation(environment: Environment) -> dict[type, Aggregation]:
    """Return exponential buckets for histograms, if they are preferred."""
    is_exponential = aggregation_preference(environment) == AGGREGATIONS[1]
    return {Histogram: ExponentialBucketHistogramAggregation()} if is_exponential else {}
