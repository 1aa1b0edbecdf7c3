"""Writes `docs/dashboards/surgetank.json`: python docs/tools/grafana_dashboard.py. A test says so when the file is behind.

A dashboard's JSON is too long to be kept right by hand; what matters of it, the questions, the queries and the words, stands here.

Owns: the file. Threads: one. Invariants: panels fill rows of 24 columns without overlapping; colours are Okabe and Ito's, which
people tell apart whatever their eyes, and no state is told by colour alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from surgetank.model import DropReason

OUTPUT: Final = Path(__file__).parents[1] / "dashboards" / "surgetank.json"

_BLUE, _ORANGE, _GREEN, _VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
_SKY, _PURPLE, _YELLOW, _GREY = "#56B4E9", "#CC79A7", "#F0E442", "#999999"
_COLOURS: Final = (_VERMILION, _ORANGE, _BLUE, _GREEN, _PURPLE, _SKY, _YELLOW, _GREY)
_BY_SIGNAL: Final = {"spans": _BLUE, "metrics": _ORANGE, "logs": _GREEN}

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HERE: Final = 'job=~"$job", instance=~"$instance"'
# Given up against everybody's will: `sampled` was asked for, and what comes after a shutdown was never taken.
_LOST: Final = 'error_type!~"sampled|already_shutdown"'
# The SDK's own processors have metrics of the same names; exporters are told apart by the services alone that are chosen.
_OURS: Final = 'otel_component_type=~"surgetank.+"'

Thresholds = Sequence[tuple[float | None, str]]
_ALARM_ABOVE_0: Final[Thresholds] = ((None, _BLUE), (1e-9, _VERMILION))
_WARN_ABOVE_0: Final[Thresholds] = ((None, _BLUE), (1e-9, _ORANGE))
_FULL: Final[Thresholds] = ((None, _BLUE), (0.8, _ORANGE), (0.95, _VERMILION))
_SHRUNK: Final[Thresholds] = ((None, _VERMILION), (0.5, _ORANGE), (1.0, _BLUE))
_PLAIN: Final[Thresholds] = ((None, _BLUE),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel: what it asks, and what its answer means."""

    title: str
    means: str
    queries: Sequence[tuple[str, str]]
    """Expressions, each with its legend; `$HERE` is the choice of jobs and instances."""
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    thresholds: Thresholds = _PLAIN
    is_stacked: bool = False
    is_dashed_line: bool = False
    """Whether thresholds are drawn into the picture."""
    top: float | None = None
    bottom: float | None = 0
    states: Mapping[int, tuple[str, str]] = field(default_factory=dict)


_ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Is anything lost?": (
        Panel(
            title="Lost in this range",
            means="Items that were given up or refused for good in the dashboard's time range. 0 is the promise. Otherwise the panel beside it "
            "says why; `queue_full`, `memory_limit`, `spool_full`: more room, or a spool; a status code: ask whoever runs the receiver.",
            kind="stat",
            width=4,
            height=5,
            thresholds=_ALARM_ABOVE_0,
            queries=[
                (
                    (
                        f"sum(increase(surgetank_dropped_total{{$HERE, {_LOST}}}[$__range]))"
                        " + sum(increase(surgetank_rejected_total{$HERE}[$__range]))"
                    ),
                    "lost",
                )
            ],
        ),
        Panel(
            title="Unaccounted",
            means="What the accounting law leaves over. Anything but 0 is a defect of surgetank's: please report it, with `tank.stats()`.",
            kind="stat",
            width=4,
            height=5,
            thresholds=_ALARM_ABOVE_0,
            queries=[("sum(abs(surgetank_unaccounted{$HERE}))", "unaccounted")],
        ),
        Panel(
            title="Breakers not closed",
            means="Signals, over all processes, whose endpoint does not take telemetry. It is held, not lost; see Holding for how long there is "
            "room, and Delivery for what the endpoint answers.",
            kind="stat",
            width=4,
            height=5,
            thresholds=_WARN_ABOVE_0,
            queries=[('sum(surgetank_breaker_state{$HERE, surgetank_breaker_state!="closed"})', "not closed")],
        ),
        Panel(
            title="Oldest item",
            means="How long the oldest item has been waiting, in memory or on disk. In an outage it grows with the clock; when it grows without one, "
            "delivery is slower than what is offered.",
            kind="stat",
            unit="s",
            width=4,
            height=5,
            thresholds=((None, _BLUE), (300, _ORANGE), (3600, _VERMILION)),
            queries=[("max(surgetank_oldest_age_seconds{$HERE})", "oldest")],
        ),
        Panel(
            title="Held",
            means="Items that wait or are under way, in memory and on disk. (Of metrics, what waits in memory is not counted here.)",
            kind="stat",
            width=4,
            height=5,
            queries=[
                (
                    (
                        "sum({__name__=~"
                        '"otel_sdk_processor_(span|log)_queue_size|otel_sdk_exporter_(span|log|metric_data_point)_inflight|surgetank_spool_items"'
                        ", $HERE})"
                    ),
                    "held",
                )
            ],
        ),
        Panel(
            title="Processes that report",
            means="Processes with a tank from which metrics arrive. Fewer than there should be: they are gone, or what carries their metrics is.",
            kind="stat",
            width=4,
            height=5,
            queries=[("count(count by (job, instance) (surgetank_spool_down{$HERE}))", "processes")],
        ),
        Panel(
            title="Lost, by reason",
            means="Items per second that were given up, by reason, or refused by the receiver for good (`rejected`). Reasons: docs/guarantees.md.",
            unit="cps",
            width=24,
            queries=[
                (
                    f"sum by (error_type) (rate(surgetank_dropped_total{{$HERE, {_LOST}}}[$__rate_interval]))",
                    "{{error_type}}",
                ),
                ("sum(rate(surgetank_rejected_total{$HERE}[$__rate_interval]))", "rejected"),
            ],
        ),
    ),
    "Flow": (
        Panel(
            title="Offered",
            means="Items per second that the applications hand over.",
            unit="cps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_offered_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Delivered",
            means="Items per second that the receivers have taken. Below Offered for long: something is in the way. Above it: what was held is catching up.",
            unit="cps",
            queries=[
                (
                    f'sum(rate(otel_sdk_exporter_{noun}_exported_total{{$HERE, error_type=""}}[$__rate_interval]))',
                    signal,
                )
                for noun, signal in (("span", "spans"), ("metric_data_point", "metrics"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Dropped, all reasons",
            means="Items per second that were given up, those included that the strategy `sampling` thins out and those offered after a shutdown.",
            unit="cps",
            queries=[
                ("sum by (error_type) (rate(surgetank_dropped_total{$HERE}[$__rate_interval]))", "{{error_type}}")
            ],
        ),
        Panel(
            title="Failed exports, by cause",
            means="Items per second that ended after an attempt without being delivered: refused with that status code, or given up later for that reason. "
            "A series begins with its first failure, so a single one shows in Lost, by reason, and not here.",
            unit="cps",
            queries=[
                (
                    (
                        'sum by (error_type) (rate({__name__=~"otel_sdk_exporter_(span|log|metric_data_point)_exported_total"'
                        ', $HERE, error_type!=""}[$__rate_interval]))'
                    ),
                    "{{error_type}}",
                )
            ],
        ),
        Panel(
            title="Processed",
            means="Spans and log records per second that left the processor: handed to the sender for the first time, or given up before (with a reason).",
            unit="cps",
            queries=[
                (
                    f"sum by (error_type) (rate(otel_sdk_processor_{noun}_processed_total{{$HERE, {_OURS}}}[$__rate_interval]))",
                    f"{signal} {{{{error_type}}}}",
                )
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Recovered",
            means="Items per second that were found on disk: left by a process that ended, or died, before it could deliver them.",
            unit="cps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_recovered_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Sealed bytes",
            means="Bytes per second of compressed requests: what network, memory and disk carry. Times an outage's length: the room that it takes.",
            unit="Bps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_sealed_size_bytes_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Bytes per item",
            means="Compressed bytes of one item, on average. A jump: attributes have grown; see docs/configuration.md for the limits.",
            unit="bytes",
            queries=[
                (
                    (
                        "sum by (surgetank_signal) (rate(surgetank_sealed_size_bytes_total{$HERE}[$__rate_interval]))"
                        " / sum by (surgetank_signal) (rate(surgetank_sealed_total{$HERE}[$__rate_interval]))"
                    ),
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Bytes given up",
            means="What dropped items were charged for since their processes began, by reason. What was damaged on disk counts as 0.",
            unit="bytes",
            queries=[("sum by (error_type) (surgetank_dropped_size_bytes_total{$HERE})", "{{error_type}}")],
        ),
    ),
    "Holding": (
        Panel(
            title="Queue fill, fullest process",
            means="Items in memory against `max_size`, of the process where it is worst. At 1 the drop strategy decides, or, with a spool, batches wait on disk alone.",
            unit="percentunit",
            thresholds=_FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    f"max(otel_sdk_processor_{noun}_queue_size{{$HERE, {_OURS}}} / otel_sdk_processor_{noun}_queue_capacity{{$HERE}})",
                    signal,
                )
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Memory fill, fullest process",
            means="Bytes in memory against `max_memory_mb` as far as memory pressure leaves it, of the process where it is worst.",
            unit="percentunit",
            thresholds=_FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    "max by (surgetank_signal) (surgetank_memory_usage_bytes{$HERE} / surgetank_memory_limit_bytes{$HERE})",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Memory held",
            means="Bytes that tanks hold, over all processes and copies.",
            unit="bytes",
            is_stacked=True,
            queries=[("sum by (surgetank_signal) (surgetank_memory_usage_bytes{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Oldest item, by signal",
            means="How long the oldest item has been waiting, in the process where it is worst. Compare with the spool's `max_age`, after which it expires.",
            unit="s",
            queries=[("max by (surgetank_signal) (surgetank_oldest_age_seconds{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Waiting in memory",
            means="Spans and log records that wait in memory, over all processes.",
            is_stacked=True,
            queries=[
                (f"sum(otel_sdk_processor_{noun}_queue_size{{$HERE, {_OURS}}})", signal)
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Waiting on disk",
            means="Items that wait on disk alone. They outlive the process; a sibling or the next process delivers them.",
            is_stacked=True,
            queries=[("sum by (surgetank_signal) (surgetank_spool_items{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Spool fill, fullest process",
            means="Bytes on disk against the process's part of the spool's limit. At 1 the oldest batches give way (`spool_full`): raise `max_mb`, or repair the endpoint.",
            unit="percentunit",
            thresholds=_FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    (
                        "max(sum by (job, instance, otel_component_name) (surgetank_spool_usage_bytes{$HERE})"
                        " / (sum by (job, instance, otel_component_name) (surgetank_spool_limit_bytes{$HERE}) > 0))"
                    ),
                    "fullest",
                )
            ],
        ),
        Panel(
            title="Disk used",
            means="What the spools take on disk by signal, and what they may take, over all processes.",
            unit="bytes",
            queries=[
                ("sum by (surgetank_signal) (surgetank_spool_usage_bytes{$HERE})", "{{surgetank_signal}}"),
                ("sum(surgetank_spool_limit_bytes{$HERE})", "limit"),
            ],
        ),
        Panel(
            title="Spools that cannot be written",
            means="Processes whose disk is full, read-only or gone. What they hold is in memory only, and `kill -9` would lose it: look at the volume, "
            "then at the application's log.",
            thresholds=_ALARM_ABOVE_0,
            queries=[("sum by (job) (surgetank_spool_down{$HERE})", "{{job}}")],
        ),
    ),
    "Delivery": (
        Panel(
            title="Circuit breakers, worst process",
            means="Whether the endpoint takes telemetry. Open: nothing is sent but a probe now and then; half open: a probe decides.",
            kind="state-timeline",
            width=24,
            height=6,
            states={0: ("closed", _BLUE), 1: ("half open", _ORANGE), 2: ("open", _VERMILION)},
            queries=[
                (
                    (
                        'max by (job, surgetank_signal) (surgetank_breaker_state{$HERE, surgetank_breaker_state="half_open"}'
                        " + ignoring (surgetank_breaker_state) 2 * "
                        'surgetank_breaker_state{$HERE, surgetank_breaker_state="open"})'
                    ),
                    "{{job}} {{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Duration of an attempt",
            means="How long one request takes, failed ones included. Near the timeout (10 s by default): the endpoint is overloaded, or a black hole.",
            unit="s",
            queries=[
                (
                    f"histogram_quantile({quantile}, sum by (le) (rate(surgetank_attempt_duration_seconds_bucket{{$HERE}}[$__rate_interval])))",
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            title="Duration of an operation",
            means="From a batch's first attempt to its end, waits included. After an outage it shows how long batches were held.",
            unit="s",
            queries=[
                (
                    (
                        "histogram_quantile("
                        f"{quantile}, sum by (le) (rate(otel_sdk_exporter_operation_duration_seconds_bucket{{$HERE}}[$__rate_interval])))"
                    ),
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            title="Under way",
            means="Items that are being sent at this moment.",
            queries=[
                (f"sum(otel_sdk_exporter_{noun}_inflight{{$HERE}})", signal)
                for noun, signal in (("span", "spans"), ("metric_data_point", "metrics"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Failed attempts, by cause",
            means="Requests per second that failed: a status code, or `connection_refused`, `timeout` and their kin. Failed is not lost: the batch is tried again.",
            unit="reqps",
            queries=[
                (
                    'sum by (error_type) (rate(surgetank_attempt_duration_seconds_count{$HERE, error_type!=""}[$__rate_interval]))',
                    "{{error_type}}",
                )
            ],
        ),
        Panel(
            title="Answers, by status",
            means="Requests per second by the receiver's status; a status without a code is no answer at all.",
            unit="reqps",
            queries=[
                (
                    (
                        "sum by (http_response_status_code, rpc_response_status_code)"
                        " (rate(surgetank_attempt_duration_seconds_count{$HERE}[$__rate_interval]))"
                    ),
                    "status {{http_response_status_code}}{{rpc_response_status_code}}",
                )
            ],
        ),
        Panel(
            title="Attempts that fail",
            means="The part of all requests that fail, by endpoint. In an outage 1.",
            unit="percentunit",
            top=1,
            queries=[
                (
                    (
                        'sum by (server_address, server_port) (rate(surgetank_attempt_duration_seconds_count{$HERE, error_type!=""}[$__rate_interval]))'
                        " / sum by (server_address, server_port) (rate(surgetank_attempt_duration_seconds_count{$HERE}[$__rate_interval]))"
                    ),
                    "{{server_address}}:{{server_port}}",
                )
            ],
        ),
    ),
    "Memory": (
        Panel(
            title="Memory pressure, worst process",
            means="The part of the memory limit (control group's, process's or host's) that is used, by everybody. Above 0.8 buffers shrink, below 0.5 they grow back.",
            unit="percentunit",
            thresholds=_FULL,
            is_dashed_line=True,
            top=1,
            queries=[('max by (job) ({__name__=~"surgetank_memory_pressure(_ratio)?", $HERE})', "{{job}}")],
        ),
        Panel(
            title="Size of the buffers, smallest process",
            means="The part of their full size that buffers may have. Below 1 memory is short: an outage that used to fit may not.",
            unit="percentunit",
            thresholds=_SHRUNK,
            top=1,
            queries=[('min by (job) ({__name__=~"surgetank_memory_scale(_ratio)?", $HERE})', "{{job}}")],
        ),
        Panel(
            title="Traces kept, smallest process",
            means="The part of the traces that the strategy `sampling` keeps. Below 1 buffers are more than half full; counts in the backend stay right.",
            unit="percentunit",
            top=1,
            queries=[("min by (surgetank_signal) (surgetank_sampling_ratio{$HERE})", "{{surgetank_signal}}")],
        ),
    ),
}


def _target(number: int, panel: Panel, query: tuple[str, str]) -> dict[str, Any]:
    expression, legend = query
    once = {"instant": True, "range": False} if panel.kind == "stat" else {"instant": False, "range": True}
    return {
        "refId": chr(ord("A") + number),
        "datasource": _SOURCE,
        "expr": expression.replace("$HERE", _HERE),
        "legendFormat": legend,
        "editorMode": "code",
        **once,
    }


def _thresholds(steps: Thresholds) -> dict[str, Any]:
    return {"mode": "absolute", "steps": [{"value": value, "color": colour} for value, colour in steps]}


def _named(panel: Panel) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """One colour for each name that is known beforehand, over all panels; where colours run out, a dashed line too."""
    legends = [legend for _, legend in panel.queries]
    if "{{surgetank_signal}}" in legends or set(legends) & set(_BY_SIGNAL):
        for name, colour in _BY_SIGNAL.items():
            yield name, [_fixed(colour)]
    if "{{error_type}}" in legends:
        for place, name in enumerate(("rejected", *(reason.value for reason in DropReason))):
            dash = [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}]
            yield name, [_fixed(_COLOURS[place % len(_COLOURS)]), *(dash if place >= len(_COLOURS) else [])]
    if "limit" in legends:
        yield "limit", [_fixed(_GREY), {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [4, 4]}}]


def _fixed(colour: str) -> dict[str, Any]:
    return {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}


def _custom(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {}
    if panel.kind == "state-timeline":
        return {"custom": {"lineWidth": 0, "fillOpacity": 80}}
    return {
        "custom": {
            "drawStyle": "line",
            "lineWidth": 2,
            "fillOpacity": 30 if panel.is_stacked else 0,
            "showPoints": "auto",
            "spanNulls": False,
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "dashed" if panel.is_dashed_line else "off"},
        }
    }


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduced = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {
            "reduceOptions": reduced,
            "orientation": "auto",
            "colorMode": "value",
            "graphMode": "none",
            "justifyMode": "auto",
            "textMode": "auto",
        }
    legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
    tooltip = {"mode": "multi", "sort": "desc"}
    if panel.kind == "state-timeline":
        rows = {"showValue": "auto", "rowHeight": 0.9, "mergeValues": True, "alignValue": "left"}
        return {**rows, "legend": legend, "tooltip": tooltip}
    return {"legend": legend, "tooltip": tooltip}


def _panel(panel: Panel, identity: int, x: int, y: int) -> dict[str, Any]:
    mode = "palette-classic" if panel.kind == "timeseries" else "thresholds"
    bounds = {"min": panel.bottom, "max": panel.top} if panel.kind == "timeseries" else {}
    states = {
        str(value): {"text": text, "color": colour, "index": value} for value, (text, colour) in panel.states.items()
    }
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.means,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height},
        "targets": [_target(number, panel, query) for number, query in enumerate(panel.queries)],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "noValue": "no data",
                "color": {"mode": mode},
                "thresholds": _thresholds(panel.thresholds),
                "mappings": [{"type": "value", "options": states}] if states else [],
                **{name: value for name, value in bounds.items() if value is not None},
                **_custom(panel),
            },
            "overrides": [
                {"matcher": {"id": "byName", "options": name}, "properties": properties}
                for name, properties in (_named(panel) if panel.kind == "timeseries" else ())
            ],
        },
        "options": _options(panel),
    }


def _panels() -> Iterator[dict[str, Any]]:
    identity = 0
    y = 0
    for title, panels in _ROWS.items():
        identity += 1
        yield {
            "id": identity,
            "type": "row",
            "title": title,
            "collapsed": False,
            "gridPos": {"x": 0, "y": y, "w": 24, "h": 1},
            "panels": [],
        }
        y += 1
        x = tallest = 0
        for panel in panels:
            if x + panel.width > 24:
                x, y, tallest = 0, y + tallest, 0
            identity += 1
            yield _panel(panel, identity, x, y)
            x += panel.width
            tallest = max(tallest, panel.height)
        y += tallest


def _choice(name: str, label: str, query: str, **more: str) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": _SOURCE,
        "definition": query,
        "query": {"query": query, "refId": f"choice-{name}"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        **more,
    }


def dashboard() -> dict[str, Any]:
    """Return it as JSON has it."""
    source = {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        # Grafana asks for it when the file is imported (`__inputs`).
        "current": {"selected": False, "text": "Prometheus", "value": "${DS_PROMETHEUS}"},
    }
    plugins = ("stat", "Stat"), ("state-timeline", "State timeline"), ("timeseries", "Time series")
    return {
        "__inputs": [
            {
                "name": "DS_PROMETHEUS",
                "label": "Prometheus",
                "description": "Where the metrics of processes with a tank arrive.",
                "type": "datasource",
                "pluginId": "prometheus",
                "pluginName": "Prometheus",
            }
        ],
        "__requires": [
            {"type": "grafana", "id": "grafana", "name": "Grafana", "version": "11.0.0"},
            {"type": "datasource", "id": "prometheus", "name": "Prometheus", "version": "1.0.0"},
            *({"type": "panel", "id": name, "name": title, "version": ""} for name, title in plugins),
        ],
        "uid": "surgetank",
        "title": "surgetank",
        "description": "Whether telemetry is lost, where it waits, and why. Each panel says what it means and what to do.",
        "tags": ["opentelemetry", "surgetank"],
        "schemaVersion": 42,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-6h", "to": "now"},
        "refresh": "30s",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                source,
                # All of them, one by one: services without a tank have some of these metrics, too.
                _choice("job", "Service", "label_values(surgetank_offered_total, job)"),
                _choice(
                    "instance",
                    "Instance",
                    'label_values(surgetank_offered_total{job=~"$job"}, instance)',
                    allValue=".*",
                ),
            ]
        },
        "panels": list(_panels()),
    }


def text() -> str:
    """Return the file's contents."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
