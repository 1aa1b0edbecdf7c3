"""What our instruments are called in Prometheus: the one translation, for the documents, the dashboard, the alert rules and their tests.

The rules are those of OpenTelemetry's "Prometheus and OpenMetrics compatibility", as the Collector's exporters and Prometheus'
own OTLP receiver apply them (`prometheus/otlptranslator`, compared instrument by instrument). `opentelemetry-exporter-prometheus`
departs from them in one point, which `prometheus_names` knows: gauges of the unit `1` have no `_ratio`.

Owns: no state. Threads: any. Invariants: nothing of it is needed at run time, so it stands beside the documents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from surgetank.otel.instruments import Component, Instrument

_UNITS: Final[Mapping[str, str]] = {"s": "seconds", "By": "bytes", "1": ""}
_COMPONENTS: Final[Mapping[Component, tuple[str, ...]]] = {
    "tank": ("otel.component.name",),
    "processor": ("otel.component.name", "otel.component.type"),
    "exporter": ("otel.component.name", "otel.component.type", "server.address", "server.port"),
}
# What every series has from the scope, and from the resource (or, where Prometheus scrapes the process, from its configuration).
TARGET_LABELS: Final = frozenset({"job", "instance", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"})


def prometheus_name(instrument: Instrument) -> str:
    """Return the metric's name behind a Collector, or in Prometheus' own OTLP receiver; a histogram's without its suffixes."""
    words = _words(instrument)
    if instrument.kind == "gauge" and instrument.unit == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    return "_".join(words)


def prometheus_names(instrument: Instrument) -> tuple[str, ...]:
    """Return every name that the metric may have: first the above, then that of `opentelemetry-exporter-prometheus` where it differs."""
    return tuple(dict.fromkeys((prometheus_name(instrument), "_".join(_words(instrument)))))


def series_names(instrument: Instrument) -> tuple[str, ...]:
    """Return what a query may select: the names, or, of a histogram, those of its parts."""
    suffixes = ("_bucket", "_sum", "_count") if instrument.kind == "histogram" else ("",)
    return tuple(name + suffix for name in prometheus_names(instrument) for suffix in suffixes)


def label_name(attribute: str) -> str:
    """Return what an attribute is called as a label."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", attribute)


def attribute_names(instrument: Instrument) -> tuple[str, ...]:
    """Return every attribute that the instrument's points may have."""
    is_by_signal = instrument.component == "tank" and instrument.observe_tank is None
    of_signal = ("surgetank.signal",) if is_by_signal else ()
    return (*_COMPONENTS[instrument.component], *of_signal, *instrument.attributes)


def label_names(instrument: Instrument) -> frozenset[str]:
    """Return every label that the instrument's series may have."""
    of_buckets = {"le"} if instrument.kind == "histogram" else set()
    return TARGET_LABELS | of_buckets | {label_name(each) for each in attribute_names(instrument)}


def _words(instrument: Instrument) -> list[str]:
    words = label_name(instrument.name).split("_")
    # A unit in braces is a remark.
    unit = "" if instrument.unit.startswith("{") else _UNITS[instrument.unit]
    if unit and unit not in words:
        words.append(unit)
    if instrument.kind == "counter":
        words = [*(word for word in words if word != "total"), "total"]
    return words
