"""Writes `docs/dashboards/surgetank.json`: python -m docs.tools.grafana_dashboard. A test says so when the file is behind.

A dashboard's JSON is too long to be kept right by hand; what matters of it, the questions, the queries and the words, stands in
`rows_of_flow.py` and `rows_of_state.py`.

Owns: the file. Threads: one. Invariants: panels fill rows of 24 columns without overlapping; no state is told by colour alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from surgetank.model import DropReason

from . import rows_of_flow, rows_of_state
from .panels import BY_SIGNAL, COLOURS, GREY, Panel, Thresholds

OUTPUT: Final = Path(__file__).parents[1] / "dashboards" / "surgetank.json"

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_HERE: Final = 'job=~"$job", instance=~"$instance"'


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
    if "{{surgetank_signal}}" in legends or set(legends) & set(BY_SIGNAL):
        for name, colour in BY_SIGNAL.items():
            yield name, [_fixed(colour)]
    if "{{error_type}}" in legends:
        for place, name in enumerate(("rejected", *(reason.value for reason in DropReason))):
            dash = [{"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}}]
            yield name, [_fixed(COLOURS[place % len(COLOURS)]), *(dash if place >= len(COLOURS) else [])]
    if "limit" in legends:
        yield "limit", [_fixed(GREY), {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [4, 4]}}]


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
    for title, panels in {**rows_of_flow.ROWS, **rows_of_state.ROWS}.items():
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
