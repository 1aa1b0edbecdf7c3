"""The configurator: `OTEL_PYTHON_CONFIGURATOR=surgetank opentelemetry-instrument …` puts the tank where OTLP exporters would be.

Owns: no state. Threads: once, at start-up, before the application.
Invariants: everything else is the SDK's own configurator's work (samplers, resources, id generators, handlers, exporters
beside OTLP); no item goes both ways; a process that did not name us is configured as if we were not installed.

An entry point names the class, so nobody of ours imports this module; it stands above the tank.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any, Final

from surgetank.config import Environment
from surgetank.model import Signal
from surgetank.otel.providers import wire_logs, wire_metrics, wire_traces
from surgetank.otel.shim import can_add_readers, sdk_configurator
from surgetank.process import shared
from surgetank.tank import Tank

_GROUP: Final = "opentelemetry_configurator"
_NAME: Final = "surgetank"
_VARIABLES: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "OTEL_TRACES_EXPORTER",
    Signal.METRICS: "OTEL_METRICS_EXPORTER",
    Signal.LOGS: "OTEL_LOGS_EXPORTER",
}
_WIRES: Final[Mapping[Signal, Callable[[Tank], None]]] = {
    Signal.SPANS: lambda tank: wire_traces(tank.span_processor, None),
    Signal.METRICS: lambda tank: wire_metrics(tank.metric_reader, None),
    Signal.LOGS: lambda tank: wire_logs(tank.log_record_processor, None),
}
# The exporters whose place the tank takes, and the tank by its own name.
_OURS: Final = ("otlp", "otlp_proto_grpc", "otlp_proto_http", _NAME)


_SdkConfigurator: Any = sdk_configurator()


class SurgetankConfigurator(_SdkConfigurator):  # type: ignore[misc]  # the SDK's class has no types
    """
    Configures the SDK as its own configurator does, with the process's tank in place of the OTLP exporters.

    Chosen by `OTEL_PYTHON_CONFIGURATOR=surgetank`. Of the exporters that `OTEL_TRACES_EXPORTER`, `OTEL_METRICS_EXPORTER` and
    `OTEL_LOGS_EXPORTER` name, those for OTLP are replaced and the others stay; where a variable names none, OTLP is meant.
    """

    def configure_with(self, configure: Callable[..., None], arguments: dict[str, Any]) -> None:
        """Have the SDK configured, and put the tank where OTLP exporters would be."""
        environment = Environment()
        if environment.text("OTEL_PYTHON_CONFIGURATOR") != _NAME:
            # The loader takes the first configurator that it finds. That is not what the user has asked for, who may
            # have installed us for something else.
            _configure_without_us(configure, arguments)
            return
        if environment.text("OTEL_CONFIG_FILE"):
            # The file says it all; it names us as an exporter, or does not want us.
            configure(**arguments)
            return
        signals = [signal for signal, name in _VARIABLES.items() if _is_ours(environment, name)]
        if environment.is_true("OTEL_SDK_DISABLED"):
            signals = []
        # Where a reader cannot be added any more when there is a provider, the SDK makes it, by our other entry point.
        is_early = Signal.METRICS in signals and not can_add_readers()
        with _without_otlp({Signal.METRICS} if is_early else set()):
            configure(**arguments)
        if not signals:
            return
        # After the SDK's providers, whose exit hooks then run after the tank's: it ends all signals within one deadline.
        process = shared({})
        for signal in signals:
            if process.claim(signal):
                _WIRES[signal](process.tank)


def _configure_without_us(configure: Callable[..., None], arguments: dict[str, Any]) -> None:
    for other in entry_points(group=_GROUP):
        if other.name != _NAME:
            other.load()().configure(**arguments)
            return
    configure(**arguments)


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "otlp").split(",")]


def _is_ours(environment: Environment, variable: str) -> bool:
    return any(name in _OURS for name in _names(environment.text(variable)))


@contextmanager
def _without_otlp(early: AbstractSet[Signal]) -> Iterator[None]:
    """
    Have the exporter variables name only what the tank does not replace, and the tank for the signals that are `early`.

    The SDK adds what they name to what it is given, so this is the one way to take something away. They are as before
    afterwards, for the application and for the processes that it starts.
    """
    before = {variable: os.environ.get(variable) for variable in _VARIABLES.values()}
    try:
        for signal, variable in _VARIABLES.items():
            others = [name for name in _names((before[variable] or "").strip()) if name not in _OURS]
            if signal in early:
                others.append(_NAME)
            os.environ[variable] = ",".join(others) or "none"
        yield
    finally:
        for variable, text in before.items():
            if text is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = text
