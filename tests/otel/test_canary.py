"""
What we rely on of OpenTelemetry although it is private or unstable: a case for each, so that a new version says what it has changed.

A case that fails is no defect by itself: where a name is gone there is a slower or a poorer way, which its message
names. `test_private_names.py` holds that the names are in two modules; here each of them has a case.
"""

from __future__ import annotations

import importlib
import inspect
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from opentelemetry import context, metrics
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.trace import Event, ReadableSpan, Status, TracerProvider
from opentelemetry.sdk.util import BoundedList
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from fakes.tanks import stepped_tank
from otel.names import SHIMS, defined, modules, of_others, private_imports
from surgetank.otel import exporters, shim
from surgetank.otel.reader import TankMetricReader
from surgetank.otlp import sdk


class Reliance(NamedTuple):
    """One thing that we rely on."""

    names: str
    """The private names, apart by spaces, as the source has them."""
    used_by: str
    cost: str
    """What happens without it."""
    check: Callable[[], bool]


def ended_span() -> ReadableSpan:
    """Return a span as processors get it."""
    span = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s", kind=SpanKind.CLIENT)
    span.set_attribute("a", 1)
    span.add_event("e", {"b": 2})
    span.set_status(Status(StatusCode.ERROR, "why"))
    span.end()
    return span._readable_span()  # type: ignore[attr-defined]


def kinds_are(pairs: dict[str, Any]) -> bool:
    """Whether attributes of an ended span are of these types, exactly."""
    span = ended_span()
    return all(type(getattr(span, name)) is kind for name, kind in pairs.items())


def is_at(kind: type, module: str, name: str) -> bool:
    return (kind.__module__, kind.__qualname__) == (module, name)


def registered() -> tuple[MeterProvider, Any, Any]:
    """Return a provider with a counter and a gauge that have measured, its reader, and the reader's consumer."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    meter = provider.get_meter("t")
    meter.create_counter("c").add(1)
    meter.create_observable_gauge("g", [lambda _: [metrics.Observation(1)]])
    reader.get_metrics_data()
    return provider, reader, reader._collect.__self__  # type: ignore[union-attr,attr-defined]


def stands_in() -> bool:
    """Whether a stand-in for a meter knows the real one once there is one."""
    from opentelemetry.metrics import _internal

    early = _internal._ProxyMeter("t")
    provider = MeterProvider(shutdown_on_exit=False)
    before = early._real_meter
    early.on_set_meter_provider(provider)
    return before is None and early._real_meter is provider.get_meter("t")


def storage_of() -> Any:
    _, reader, consumer = registered()
    return consumer._reader_storages[reader]


def matches_of() -> list[Any]:
    return [match for matches in storage_of()._instrument_view_instrument_matches.values() for match in matches]


def is_lock(thing: Any) -> bool:
    return hasattr(thing, "acquire") and hasattr(thing, "release")


def exporter(protocol: str, **more: Any) -> Any:
    module = pytest.importorskip(f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter")
    return module.OTLPSpanExporter(endpoint="http://127.0.0.1:9", headers={"x-a": "1"}, timeout=3, **more)


def read_by(protocol: str) -> bool:
    made = exporter(protocol)
    outlet = exporters.read_outlet(made)
    return exporters.is_otlp(made) and outlet.timeout == 3 and dict(outlet.headers) == {"x-a": "1"}


def takes(name: str, protocol: str, argument: str, value: Any) -> bool:
    """Whether an exporter keeps an argument under a private name, where its version has the argument."""
    kind = type(exporter(protocol))
    if argument not in inspect.signature(kind.__init__).parameters:
        return True
    kept = getattr(exporter(protocol, **{argument: value}), name)
    return kept == value or set(kept) == set(value)


def metric_limit(protocol: str) -> Any:
    module = importlib.import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.metric_exporter")
    more = {"insecure": True} if protocol == "grpc" else {}
    return module.OTLPMetricExporter(max_export_batch_size=5, **more)._max_export_batch_size


def source_has(module: str, text: str) -> bool:
    pytest.importorskip(module.split(".")[0] + "." + module.split(".")[1])
    return text in inspect.getsource(importlib.import_module(module))


def finds_us() -> bool:
    find = importlib.import_module("opentelemetry.sdk._configuration")._import_exporters
    found = find(["surgetank"], ["surgetank"], ["surgetank"])
    return [kinds["surgetank"].__module__ for kinds in found] == ["surgetank.otel.plugins"] * 3


SLOW_SPANS = "each span is read through properties: `on_end` takes several times as long, nothing is lost"
SNAPSHOT = "otlp/sdk.py: _read_own_span, on the application's thread"
RENEWAL = "otel/shim.py: renew_after_fork"
TWICE = (
    "a forked child reports again what its parent had measured and not yet collected, or meets a lock that nobody opens"
)
DRIVEN = "the drop-in classes drive the exporter as it is (docs/drop-in.md), at least once in place of all guarantees"
NO_READER = (
    "without add_metric_reader, an application that sets a provider itself has to name our reader there; a line says so"
)

RELIANCES = {
    "where a span is": Reliance(
        "", SNAPSHOT, SLOW_SPANS, lambda: is_at(type(ended_span()), "opentelemetry.sdk.trace", "ReadableSpan")
    ),
    "a span's fields": Reliance(
        "_name _start_time _end_time",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: kinds_are({"_name": str, "_start_time": int, "_end_time": int}),
    ),
    "a span's kind": Reliance(
        "_kind _value_", SNAPSHOT, SLOW_SPANS, lambda: ended_span()._kind._value_ == SpanKind.CLIENT.value == 2
    ),
    "a span's resource and scope": Reliance(
        "_resource _instrumentation_scope",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: (span := ended_span())._resource is span.resource and span._instrumentation_scope.name == "t",
    ),
    "a span's containers": Reliance(
        "_attributes _events _links",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: kinds_are({"_attributes": BoundedAttributes, "_events": BoundedList, "_links": BoundedList}),
    ),
    "a span's contexts": Reliance(
        "_context _parent",
        "otlp/sdk.py: is_sampled, _read_own_span",
        SLOW_SPANS,
        lambda: kinds_are({"_context": SpanContext, "_parent": type(None)}),
    ),
    "a context is a tuple": Reliance(
        "",
        "otlp/sdk.py: is_sampled, _read_own_span, by position",
        SLOW_SPANS,
        lambda: (
            tuple(SpanContext(1, 2, True, TraceFlags(1), TraceState()))[:4] == (1, 2, True, 1)
            and is_at(SpanContext, "opentelemetry.trace.span", "SpanContext")
        ),
    ),
    "a trace state": Reliance(
        "_dict",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: (
            dict(TraceState([("a", "b")])._dict) == {"a": "b"}
            and is_at(TraceState, "opentelemetry.trace.span", "TraceState")
        ),
    ),
    "a span's status": Reliance(
        "_status _status_code _description",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: (
            (status := ended_span()._status)._status_code._value_ == 2
            and status._description == "why"
            and is_at(type(status), "opentelemetry.trace.status", "Status")
        ),
    ),
    "an attribute container": Reliance(
        "_dict _immutable",
        "otlp/sdk.py: everywhere; otel/shim.py: bounded_attributes",
        SLOW_SPANS + "; what driven exporters get is cleaned once more",
        lambda: (
            type((made := BoundedAttributes(attributes={"a": 1}))._dict) is dict
            and type(made.dropped) is int
            and made._immutable is True
            and is_at(BoundedAttributes, "opentelemetry.attributes", "BoundedAttributes")
        ),
    ),
    "a list of events": Reliance(
        "_dq",
        "otlp/sdk.py: _read_own_span; otel/shim.py: bounded_list",
        SLOW_SPANS,
        lambda: (
            type((made := BoundedList.from_seq(None, [1]))._dq) is deque
            and type(made.dropped) is int
            and is_at(BoundedList, "opentelemetry.sdk.util", "BoundedList")
        ),
    ),
    "an event": Reliance(
        "_timestamp",
        SNAPSHOT,
        SLOW_SPANS,
        lambda: (
            (event := Event("e", BoundedAttributes(attributes={}), 5))._timestamp == 5
            and event._name == "e"
            and type(event._attributes) is BoundedAttributes
            and is_at(Event, "opentelemetry.sdk.trace", "Event")
        ),
    ),
    "the suppress key": Reliance(
        "_SUPPRESS_INSTRUMENTATION_KEY",
        "otel/shim.py: suppressed",
        "instrumentations of urllib3 and gRPC make spans of our own sends",
        lambda: type(context._SUPPRESS_INSTRUMENTATION_KEY) is str and shim._SUPPRESS_KEY is not None,
    ),
    "the configurator": Reliance(
        "_OTelSDKConfigurator _configure _configuration",
        "otel/configurator.py, through otel/shim.py: sdk_configurator",
        "OTEL_PYTHON_CONFIGURATOR=surgetank fails; the exporter `surgetank` and `surgetank run` do not need it",
        lambda: callable(shim.sdk_configurator()._configure),
    ),
    "the log signal": Reliance(
        "_logs",
        "otel/shim.py, for the doors for logs",
        "no import, until the shim has the new names",
        lambda: all(hasattr(shim, name) for name in ("LoggerProvider", "ReadableLogRecord", "get_logger_provider")),
    ),
    "a histogram's buckets": Reliance(
        "_internal",
        "otel/objects.py, through otel/shim.py: Buckets",
        "no import, until the shim has the new place",
        lambda: shim.Buckets(offset=1, bucket_counts=[2]).bucket_counts == [2],
    ),
    "entry points of exporters": Reliance(
        "",
        "pyproject.toml: opentelemetry_{traces,metrics,logs}_exporter",
        "OTEL_*_EXPORTER=surgetank names nothing; the SDK says so at start",
        finds_us,
    ),
    "entry points of pulled metrics": Reliance(
        "",
        "pyproject.toml: opentelemetry_pull_metric_exporter",
        "`pull:` in a configuration file does not find us",
        lambda: source_has("opentelemetry.configuration._meter_provider", "opentelemetry_pull_metric_exporter"),
    ),
    "entry points of configurators": Reliance(
        "",
        "pyproject.toml: opentelemetry_configurator",
        "OTEL_PYTHON_CONFIGURATOR=surgetank names nothing",
        lambda: source_has("opentelemetry.instrumentation.auto_instrumentation._load", "opentelemetry_configurator"),
    ),
    "a reader's callback": Reliance(
        "_collect _set_collect_callback",
        "otel/shim.py: is_registered, renew_after_fork, add_reader",
        "a reader without a provider logs a warning at each flush; " + TWICE,
        lambda: stepped_tank()[0].metric_reader._collect is None and registered()[1]._collect is not None,
    ),
    "a reader as an exporter": Reliance(
        "_preferred_temporality _preferred_aggregation",
        "otel/shim.py: prefer_as_exporter, preferences",
        "behind a periodic reader of the SDK's, temporality and aggregation are the defaults",
        lambda: (
            "_preferred_temporality" in vars(metric_exporter()) and "_preferred_aggregation" in vars(metric_exporter())
        ),
    ),
    "a meter before its provider": Reliance(
        "_real_meter",
        "otel/shim.py: real_meter",
        "a tank made before the global provider is reported, one made after it is not",
        stands_in,
    ),
    "what a reader asks for": Reliance(
        "_instrument_class_temporality _instrument_class_aggregation",
        "otel/shim.py: add_reader, where providers have no add_metric_reader",
        NO_READER,
        lambda: all(
            type(getattr(InMemoryMetricReader(), name)) is dict
            for name in ("_instrument_class_temporality", "_instrument_class_aggregation")
        ),
    ),
    "a provider's consumer": Reliance(
        "_measurement_consumer _sdk_config",
        "otel/shim.py: add_reader, where providers have no add_metric_reader",
        NO_READER,
        lambda: (made := registered())[0]._measurement_consumer is made[2] and made[2]._sdk_config is not None,
    ),
    "a consumer's storages": Reliance(
        "_reader_storages _lock",
        RENEWAL + ", add_reader",
        TWICE,
        lambda: type((consumer := registered()[2])._reader_storages) is dict and is_lock(consumer._lock),
    ),
    "a storage's instruments": Reliance(
        "_instrument_view_instrument_matches",
        RENEWAL,
        TWICE,
        lambda: (
            type((storage := storage_of())._instrument_view_instrument_matches) is dict
            and len(storage._instrument_view_instrument_matches) >= 2
            and is_lock(storage._lock)
        ),
    ),
    "an instrument's aggregations": Reliance(
        "_attributes_aggregation",
        RENEWAL,
        TWICE,
        lambda: all(
            type(match._attributes_aggregation) is dict
            and is_lock(match._lock)
            and all(is_lock(each._lock) for each in match._attributes_aggregation.values())
            for match in matches_of()
        ),
    ),
    "an HTTP exporter": Reliance(
        "_client _transport _session _endpoint _headers _timeout _compression _certificate_file _client_cert",
        "otel/shim.py: http_parts",
        DRIVEN,
        lambda: read_by("http"),
    ),
    "a gRPC exporter": Reliance(
        "_endpoint _insecure _headers _timeout _compression _channel_options",
        "otel/shim.py: grpc_parts",
        DRIVEN,
        lambda: read_by("grpc"),
    ),
    "a gRPC exporter's codes": Reliance(
        "_retryable_error_codes _RETRYABLE_ERROR_CODES",
        "otel/shim.py: _has_own_codes",
        "a drop-in class drives every gRPC exporter as it is, or takes the place of one with status codes of its own",
        lambda: takes("_retryable_error_codes", "grpc", "retryable_error_codes", [7]) and read_by("grpc"),
    ),
    "an exporter's limits": Reliance(
        "_max_export_batch_size _max_request_size",
        "otel/shim.py: request_limits",
        "a drop-in class sends larger requests than the exporter that it takes the place of would",
        lambda: (
            takes("_max_request_size", "http", "max_request_size", 5)
            and metric_limit("http") == metric_limit("grpc") == 5
        ),
    ),
}


def metric_exporter() -> Any:
    from opentelemetry.sdk.metrics.export import ConsoleMetricExporter

    return ConsoleMetricExporter()


def examine(name: str, reliance: Reliance) -> None:
    """Fail, with all that whoever reads it must know, unless it is as expected."""
    error = "of another type or shape"
    try:
        if reliance.check():
            return
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    pytest.fail(
        f"{name} ({reliance.names or 'public, but unstable'}) is not as expected: {error}\n"
        f"used by {reliance.used_by}\nwithout it: {reliance.cost}",
        pytrace=False,
    )


@pytest.mark.parametrize("name", RELIANCES)
def test_the_installed_opentelemetry_has(name):
    """What it says, with the expected type and shape."""
    examine(name, RELIANCES[name])


def test_a_case_that_fails_says_what_it_costs():
    """Whoever meets it did not write it."""
    with pytest.raises(pytest.fail.Exception) as caught:
        examine("a thing", Reliance("_gone", "a/module.py: a function", "it is slow", lambda: object()._gone))

    assert all(text in str(caught.value) for text in ("_gone", "a/module.py: a function", "it is slow"))


def test_every_private_name_has_a_case():
    """Whoever names one more says here what that costs."""
    trees = modules()
    named = set()
    for path in SHIMS:
        looked_up = {name for name, _ in of_others(trees[path])} - defined(trees[path])
        named |= {name.removeprefix("super().") for name in looked_up}
        named |= {part for name, _ in private_imports(trees[path]) for part in name.split(".") if part.startswith("_")}
    covered = {name for reliance in RELIANCES.values() for name in reliance.names.split()}

    # Named tuples', which have no other name.
    assert named - covered == {"_make", "_replace"}
    assert covered <= named


def test_our_reader_has_no_private_name_that_the_sdks_has():
    """A subclass shares its base's names: one that is used for two things breaks both."""
    ours = defined(modules()["otel/reader.py"])
    theirs = set(vars(InMemoryMetricReader())) & set(vars(stepped_tank()[0].metric_reader))
    methods = {name for name in dir(MetricReader) if not name.startswith("__")}

    assert ours & (theirs | methods) == {"_receive_metrics"}
    assert issubclass(TankMetricReader, MetricReader)


def test_spans_are_read_the_short_way(monkeypatch):
    """From the second on; the first one's parts had to be met."""
    tank, _ = stepped_tank()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(tank.span_processor)
    tracer = provider.get_tracer("app")

    def make():
        with tracer.start_as_current_span("parent", attributes={"a": 1}) as parent:
            parent.add_event("e", {"b": 2})
            tracer.start_span("child", links=[]).end()

    make()
    taken = []
    monkeypatch.setattr(sdk, "_read_public_span", lambda span: taken.append(span))
    make()

    assert taken == []
    assert tank.stats().spans.offered == 4


def test_a_forked_childs_measurements_are_renewed():
    """Storages, locks and sums are found: what the parent has measured is gone, what is observed stays."""
    _, reader, consumer = registered()
    storage = consumer._reader_storages[reader]
    locks = [consumer._lock, storage._lock]

    shim.renew_after_fork(reader)

    assert all(new is not old for new, old in zip([consumer._lock, storage._lock], locks, strict=True))
    kept = {
        instrument.name: len(match._attributes_aggregation)
        for instrument, matches in storage._instrument_view_instrument_matches.items()
        for match in matches
    }
    # Version 1.41 measures itself, too.
    assert kept.items() >= {"c": 0, "g": 1}.items()
