"""The dashboard and the alert rules ask for what our instruments can answer, in PromQL and JSON that their readers take."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml
from docs.tools import grafana_dashboard
from docs.tools.prometheus_names import (
    TARGET_LABELS,
    attribute_names,
    label_name,
    label_names,
    prometheus_name,
    prometheus_names,
    series_names,
)
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import REGISTRY

import surgetank
from fakes.requests import span
from fakes.tanks import stepped_tank
from surgetank.model import BreakerState, DropReason, Signal
from surgetank.otel import self_metrics
from surgetank.otel.instruments import INSTRUMENTS
from surgetank.otlp.spans import snapshot
from surgetank.testing import permanent

FOLDER = Path(__file__).parents[1] / "docs" / "dashboards"
DASHBOARD = json.loads((FOLDER / "surgetank.json").read_text(encoding="utf-8"))
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
README = (FOLDER / "README.md").read_text(encoding="utf-8")

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
ALERTS = [(rule["alert"], rule["expr"]) for rule in RULES]
SERIES = {name: instrument for instrument in INSTRUMENTS for name in series_names(instrument)}
CHOICES = {"$__rate_interval": "5m", "$__range": "6h", "$job": "shop", "$instance": "a"}


def parsed(expression):
    """Return the expression's tree, as Prometheus would see it after Grafana has put in what was chosen."""
    for name, value in CHOICES.items():
        expression = expression.replace(name, value)
    return promql_parser.parse(expression)


def nodes(tree):
    """Return the tree's nodes: a node's parts are its attributes."""
    if isinstance(tree, (list, tuple)):
        return [node for each in tree for node in nodes(each)]
    if not isinstance(tree, promql_parser.Expr):
        return []
    parts = ("expr", "lhs", "rhs", "args", "vector_selector", "param")
    return [tree, *(node for part in parts for node in nodes(getattr(tree, part, None)))]


def asked(expression):
    """Return (instruments, matchers) of each selector in the expression."""
    found = []
    for node in nodes(parsed(expression)):
        if isinstance(node, promql_parser.VectorSelector):
            matchers = list(node.matchers.matchers)
            patterns = [matcher.value for matcher in matchers if matcher.name == "__name__"] or [node.name]
            names = [name for name in SERIES if any(re.fullmatch(pattern, name) for pattern in patterns)]
            found.append((patterns, names, [matcher for matcher in matchers if matcher.name != "__name__"]))
    return found


def grouped_by(expression):
    """Return the labels that the expression names in `by`, `on` and `ignoring`."""
    return {
        label
        for listed in re.findall(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)", expression)
        for label in re.split(r"[,\s]+", listed)
        if label
    }


# --- the translation


@pytest.mark.parametrize(
    ("instrument", "name"),
    [
        ("surgetank.dropped", "surgetank_dropped_total"),
        ("surgetank.dropped.size", "surgetank_dropped_size_bytes_total"),
        ("surgetank.memory.usage", "surgetank_memory_usage_bytes"),
        ("surgetank.memory.pressure", "surgetank_memory_pressure_ratio"),
        ("surgetank.sampling.ratio", "surgetank_sampling_ratio"),
        ("surgetank.spool.down", "surgetank_spool_down"),
        ("surgetank.oldest.age", "surgetank_oldest_age_seconds"),
        ("otel.sdk.exporter.operation.duration", "otel_sdk_exporter_operation_duration_seconds"),
        ("otel.sdk.processor.span.queue.size", "otel_sdk_processor_span_queue_size"),
    ],
)
def test_names_are_the_collectors(instrument, name):
    """As `prometheus/otlptranslator` gives them, with suffixes and underscores."""
    (found,) = [each for each in INSTRUMENTS if each.name == instrument]
    assert prometheus_name(found) == name


def test_names_are_also_those_of_the_exporter_in_python():
    """Run, not believed: what a process with a tank shows to a scrape."""
    provider = MeterProvider([PrometheusMetricReader()], shutdown_on_exit=False)
    tanks = exercise(provider)
    seen = {}
    # The registry that all versions of the exporter know; the client's own metrics are there too.
    for family in REGISTRY.collect():
        for sample in family.samples if family.name.startswith(("surgetank_", "otel_sdk_")) else ():
            seen.setdefault(sample.name, set()).update(name for name, value in sample.labels.items() if value)
    del tanks
    provider.shutdown()

    assert set(seen) <= set(SERIES)
    assert {SERIES[name].name for name in seen} == {instrument.name for instrument in INSTRUMENTS}
    for name, labels in seen.items():
        assert labels <= label_names(SERIES[name]), name


def exercise(provider):
    """Return tanks that report through the provider, with something in every instrument; one that is gone reports nothing."""
    refused, _ = stepped_tank(permanent(), self_metrics=False)
    _ = refused.metric_reader, refused.log_record_processor
    small, _ = stepped_tank(self_metrics=False, spans=surgetank.BufferConfig(max_size=1, max_export_batch_size=1))
    for tank in (refused, small):
        tank.report_to(provider)
        for number in range(3):
            tank._pipelines[Signal.SPANS].offer(snapshot(span(number)))
        tank.force_flush(5.0)
    return refused, small


def test_attributes_are_those_that_points_have():
    reader = InMemoryMetricReader()
    tanks = exercise(MeterProvider([reader], shutdown_on_exit=False))
    by_name = {instrument.name: instrument for instrument in INSTRUMENTS}
    seen = {}
    for resource in reader.get_metrics_data().resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.data.data_points:
                    seen.setdefault(metric.name, set()).update(point.attributes)
    del tanks
    for name, attributes in seen.items():
        assert attributes <= set(attribute_names(by_name[name])), name
    optional = {"error.type", "http.response.status_code", "rpc.response.status_code"}
    for name, attributes in seen.items():
        assert set(attribute_names(by_name[name])) - optional <= attributes, name


def test_no_two_instruments_share_a_name():
    assert len(SERIES) == sum(len(series_names(instrument)) for instrument in INSTRUMENTS)


# --- queries


@pytest.mark.parametrize(("title", "expression"), QUERIES + ALERTS)
def test_queries_parse_and_ask_for_what_there_is(title, expression):
    selectors = asked(expression)
    assert selectors
    labels = grouped_by(expression) - {"le"}
    available = set()
    for patterns, names, matchers in selectors:
        assert names, patterns
        for name in names:
            assert {matcher.name for matcher in matchers} <= label_names(SERIES[name]), name
            available |= label_names(SERIES[name])
    # Made by the rule itself.
    available |= set(re.findall(r'label_replace\([^"]*(?:"[^"]*"[^"]*?)*?,\s*"(\w+)",\s*"\w+",\s*"",', expression))
    assert labels <= available


@pytest.mark.parametrize(("title", "expression"), QUERIES + ALERTS)
def test_every_alternative_of_a_name_is_one(title, expression):
    """A pattern may not hide a name that does not exist."""
    for patterns, names, _ in asked(expression):
        for pattern in patterns:
            # Neither is nested in ours.
            options = re.sub(r"\(([^()]*)\)\?", r"(\1|)", pattern)
            alternatives = [options] if "(" not in options else expanded(options)
            for alternative in [each for one in alternatives for each in one.split("|")]:
                assert alternative in names, alternative


def expanded(pattern):
    """Return the texts that a pattern of plain text, groups and alternatives stands for."""
    outside = re.split(r"\|(?![^(]*\))", pattern)
    if len(outside) > 1:
        return [text for part in outside for text in expanded(part)]
    group = re.search(r"\(([^()]*)\)", pattern)
    if not group:
        return [pattern]
    return [
        text
        for option in group.group(1).split("|")
        for text in expanded(pattern[: group.start()] + option + pattern[group.end() :])
    ]


@pytest.mark.parametrize(("title", "expression"), QUERIES + ALERTS)
def test_values_of_labels_are_ones_that_occur(title, expression):
    """A reason that is spelt wrongly would exclude nothing, and say nothing."""
    known = {
        "error_type": {reason.value for reason in DropReason} | {""},
        "surgetank_breaker_state": {state.value for state in BreakerState},
        "surgetank_signal": {signal.value for signal in Signal},
    }
    for _, _, matchers in asked(expression):
        for matcher in matchers:
            if matcher.name in known:
                assert set(matcher.value.split("|")) <= known[matcher.name]


@pytest.mark.parametrize(("title", "expression"), QUERIES + ALERTS)
def test_counters_are_asked_for_their_rate_and_levels_are_not(title, expression):
    """Many instances and restarts: a counter's value means nothing by itself. What was dropped in bytes is shown as it stands."""
    for _, names, _ in asked(expression):
        for name in names:
            is_cumulative = SERIES[name].kind in ("counter", "histogram")
            if name != "surgetank_dropped_size_bytes_total":
                wanted = rf"(rate|increase)\(\s*({re.escape(name)}\b|{{__name__=~)"
                assert bool(re.search(wanted, expression)) == is_cumulative, name


@pytest.mark.parametrize(("title", "expression"), QUERIES)
def test_panels_keep_to_what_was_chosen(title, expression):
    for _, _, matchers in asked(expression):
        assert {"job", "instance"} <= {matcher.name for matcher in matchers}


def test_every_instrument_is_on_the_dashboard():
    used = {SERIES[name].name for _, expression in QUERIES for _, names, _ in asked(expression) for name in names}
    assert used == {instrument.name for instrument in INSTRUMENTS}


# --- the dashboard


def test_the_file_is_what_its_tool_writes():
    """Otherwise: `python -m docs.tools.grafana_dashboard`."""
    assert (FOLDER / "surgetank.json").read_text(encoding="utf-8") == grafana_dashboard.text()


def differences(ours, theirs, path=""):
    """Return where what Grafana's classes kept differs from what we wrote."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        lost = [f"{path}/{key}" for key in ours if key not in theirs]
        return lost + [
            found for key in ours if key in theirs for found in differences(ours[key], theirs[key], f"{path}/{key}")
        ]
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        return [
            found
            for number, pair in enumerate(zip(ours, theirs, strict=True))
            for found in differences(*pair, f"{path}/{number}")
        ]
    return [] if ours == theirs else [path]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Grafana's classes need Python 3.11")
def test_grafana_knows_every_field():
    """Grafana's own classes read the file and write it again: what they do not know they would leave out."""
    encoder = pytest.importorskip("grafana_foundation_sdk.cog.encoder")
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    again = json.loads(encoder.JSONEncoder(sort_keys=True).encode(Dashboard.from_json(DASHBOARD)))
    # Read by the import and the editor, and not part of the model.
    apart = {"/__inputs", "/__requires", "/templating/list/1/definition", "/templating/list/2/definition"}
    assert set(differences(DASHBOARD, again)) == apart


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(identities) == len(set(identities))
    taken = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert taken.setdefault(cell, panel["title"]) == panel["title"]


def test_every_panel_says_what_it_means_and_asks_the_chosen_source():
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    for panel in PANELS:
        assert len(panel["description"]) > 30, panel["title"]
        assert panel["datasource"] == chosen
        assert [target["datasource"] for target in panel["targets"]] == [chosen] * len(panel["targets"])
        references = [target["refId"] for target in panel["targets"]]
        assert len(references) == len(set(references))
    source, *choices = DASHBOARD["templating"]["list"]
    assert source["current"]["value"] == "${" + DASHBOARD["__inputs"][0]["name"] + "}"
    assert [choice["name"] for choice in choices] == ["job", "instance"]
    for choice in choices:
        assert re.search(r"label_values\((\w+)", choice["definition"]).group(1) in SERIES


def test_the_sdks_own_processors_are_left_out():
    """They have metrics of the same names."""
    expressions = [each for _, each in QUERIES + ALERTS if "otel_sdk_processor" in each and "__name__" not in each]
    assert expressions
    for expression in expressions:
        for _, names, matchers in asked(expression):
            types = [matcher.value for matcher in matchers if matcher.name == "otel_component_type"]
            if any(name.startswith("otel_sdk_processor") and not name.endswith("capacity") for name in names):
                assert types == ["surgetank.+"]
    assert all(re.fullmatch("surgetank.+", kind) for kind in self_metrics._PROCESSORS.values())


def test_every_kind_of_panel_is_declared():
    kinds = {each["id"] for each in DASHBOARD["__requires"] if each["type"] == "panel"}
    assert kinds == {panel["type"] for panel in PANELS}


# --- the alerts


def test_every_alert_is_explained():
    """In the README, under the anchor that the alert names."""
    anchors = {title.lower() for title in re.findall(r"^## (Surgetank\w+)$", README, re.MULTILINE)}
    assert anchors == {rule["alert"].lower() for rule in RULES}
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/dashboards/README.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_speak_only_of_labels_that_they_have(rule):
    spoken = set(re.findall(r"\$labels\.(\w+)", " ".join(rule["annotations"].values())))
    assert spoken <= grouped_by(rule["expr"]) | set(re.findall(r'"(error_type|surgetank_signal)"', rule["expr"]))


def test_every_reason_to_lose_something_is_explained():
    silent = {"sampled", "already_shutdown"}
    for reason in DropReason:
        assert f"`{reason.value}`" in README, reason
    assert silent <= {reason.value for reason in DropReason}


def test_every_alert_has_a_test_in_which_it_fires():
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}


@pytest.mark.parametrize("command", [["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]])
def test_promtool_agrees(command):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, which is part of Prometheus, is not installed")
    done = subprocess.run([promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_labels_of_targets_are_known():
    """What comes from the resource and the scope, and from no instrument."""
    assert {"job", "instance"} < TARGET_LABELS
    assert label_name("surgetank.breaker.state") == "surgetank_breaker_state"
    for instrument in INSTRUMENTS:
        assert prometheus_names(instrument)[0] == prometheus_name(instrument)
