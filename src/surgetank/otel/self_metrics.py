"""A tank's own metrics, through the application's meter provider: the semantic conventions' names where there are any.

Owns: one set of instruments per meter provider, and which tanks report through it.
Threads: callbacks run on the threads of the application's readers; `record` on our delivery threads.
Invariants: what is observed is read from the books, which are kept anyway, so an offer costs the same with and without; a
collection makes the same number of points however many there were before it, so nothing feeds on itself; a tank that is
gone is no longer reported.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary, WeakSet

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

from surgetank import threads
from surgetank._version import __version__
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.lines import say
from surgetank.model import PARTIALLY_REJECTED, Attempt, Clock, Outcome, Signal, TankStats
from surgetank.otel.instruments import ATTEMPT, INSTRUMENTS, OPERATION, Attributes, Component, Instrument
from surgetank.otel.shim import OWN_SCOPE, real_meter

_logger: Final = logging.getLogger("surgetank")

# Callbacks of one collection shall see one state of the books, and look for it once.
_SAME_COLLECTION: Final = 0.05

_PROCESSORS: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "surgetank.otel.processors.TankSpanProcessor",
    Signal.LOGS: "surgetank.otel.processors.TankLogRecordProcessor",
}
_EXPORTERS: Final[Mapping[Signal, str]] = {
    Signal.SPANS: "span_exporter",
    Signal.METRICS: "metric_exporter",
    Signal.LOGS: "log_exporter",
}


class Reported(Protocol):
    """What is reported of a tank. The seam exists because this module stands below it."""

    def stats(self) -> TankStats:
        """Return the books."""

    @property
    def outlets(self) -> Mapping[Signal, OutletConfig]:
        """Where each signal goes."""

    def is_used(self, signal: Signal) -> bool:
        """Whether a signal has a door, or has had items."""

    def measure(self, signal: Signal, record: Callable[[Attempt], None]) -> None:
        """Have `record` called with each attempt at delivery."""


def report(tank: Reported, meter_provider: Any = None) -> None:
    """Report a tank through a meter provider (default: the global one), and through no other from now on. Never raises."""
    try:
        if meter_provider is None:
            meter_provider = metrics.get_meter_provider()
        with _lock:
            group = _group(meter_provider)
            for other in _groups.values():
                other.leave(tank)
            group.join(tank)
    except Exception:
        # A provider that is not the SDK's may refuse anything.
        say(_logger, logging.WARNING, "the meter provider refuses surgetank's own metrics", is_error=True)


def _group(meter_provider: Any) -> Reports:
    """Return the instruments of a meter provider, made when it is first asked for."""
    group = _groups.get(meter_provider)
    if group is None:
        # Those that were made before the provider was set are its own since; a second set of them would observe nothing.
        meter = meter_provider.get_meter(OWN_SCOPE, __version__)
        group = next((each for each in _groups.values() if real_meter(each.meter) is meter), None)
    if group is None:
        group = _groups[meter_provider] = Reports(meter_provider)
    return group


class Reports:
    """
    The instruments of one meter provider.

    Args:
        meter_provider: Whose they are; the global one may still be a stand-in for one that is set later.
        clock: Time.
    """

    def __init__(self, meter_provider: Any, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._tanks: WeakSet[Reported] = WeakSet()
        self._seen: WeakKeyDictionary[Reported, tuple[float, TankStats]] = WeakKeyDictionary()
        self.meter = meter = meter_provider.get_meter(OWN_SCOPE, __version__)
        for instrument in INSTRUMENTS:
            if instrument.kind != "histogram":
                make = {
                    "counter": meter.create_observable_counter,
                    "updowncounter": meter.create_observable_up_down_counter,
                    "gauge": meter.create_observable_gauge,
                }[instrument.kind]
                make(instrument.name, [self._callback(instrument)], instrument.unit, instrument.description)
        self._operations, self._attempts = (
            meter.create_histogram(
                each.name, each.unit, each.description, explicit_bucket_boundaries_advisory=each.boundaries
            )
            for each in (OPERATION, ATTEMPT)
        )

    def join(self, tank: Reported) -> None:
        """Report a tank too."""
        if tank not in _numbers:
            _numbers[tank] = next(_next_number)
        self._tanks.add(tank)
        for signal in Signal:
            is_grpc = tank.outlets[signal].protocol == "grpc"
            tank.measure(signal, self._recorder(self._attributes("exporter", tank, signal), is_grpc=is_grpc))

    def leave(self, tank: Reported) -> None:
        """Report it no more."""
        self._tanks.discard(tank)

    def _callback(self, instrument: Instrument) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value, {**self._attributes(instrument.component, tank, signal), **more})
                for tank in list(self._tanks)
                for signal, value, more in self._points(instrument, tank)
            ]

        return observe

    def _points(self, instrument: Instrument, tank: Reported) -> Iterator[tuple[Signal | None, float, Attributes]]:
        stats = self._stats(tank)
        if instrument.observe_tank is not None:
            for value, more in instrument.observe_tank(stats):
                yield None, value, more
        elif instrument.observe is not None:
            books = stats.by_signal()
            for signal in instrument.signals:
                if tank.is_used(signal):
                    for value, more in instrument.observe(books[signal]):
                        yield signal, value, more

    def _stats(self, tank: Reported) -> TankStats:
        now = self._clock.monotonic()
        seen = self._seen.get(tank)
        if seen is None or now - seen[0] > _SAME_COLLECTION:
            seen = self._seen[tank] = now, tank.stats()
        return seen[1]

    def forget(self) -> None:
        """Look anew in a forked child: what was seen are its parent's books."""
        self._seen.clear()

    def _attributes(self, component: Component, tank: Reported, signal: Signal | None) -> dict[str, Any]:
        number = _numbers[tank]
        if component == "tank" or signal is None:
            named = {"otel.component.name": f"{OWN_SCOPE}/{number}"}
            return named if signal is None else {**named, "surgetank.signal": signal.value}
        if component == "processor":
            return _component(_PROCESSORS[signal], number)
        outlet = tank.outlets[signal]
        parts = urlsplit(outlet.url)
        if parts.hostname is None:
            # The name of an exporter that we drive, in place of a URL.
            return _component(outlet.url, number)
        transport = "grpc" if outlet.protocol == "grpc" else "http"
        return {
            **_component(f"otlp_{transport}_{_EXPORTERS[signal]}", number),
            "server.address": parts.hostname,
            "server.port": parts.port or (443 if parts.scheme == "https" else 80),
        }

    def _recorder(self, attributes: Attributes, *, is_grpc: bool) -> Callable[[Attempt], None]:
        operations, attempts = self._operations, self._attempts

        def record(attempt: Attempt) -> None:
            described = {**attributes, **_outcome(attempt, is_grpc=is_grpc)}
            with _recorded():
                attempts.record(attempt.seconds, described)
                if attempt.operation_seconds is not None:
                    operations.record(attempt.operation_seconds, described)

        return record


def _component(kind: str, number: int) -> dict[str, Any]:
    return {"otel.component.type": kind, "otel.component.name": f"{kind}/{number}"}


def _outcome(attempt: Attempt, *, is_grpc: bool) -> dict[str, Any]:
    verdict = attempt.verdict
    found: dict[str, Any] = {}
    if verdict.outcome is not Outcome.DELIVERED:
        found["error.type"] = verdict.cause
    elif verdict.rejected:
        found["error.type"] = PARTIALLY_REJECTED
    if is_grpc and verdict.reached:
        found["rpc.response.status_code"] = verdict.cause
    elif verdict.cause.isdecimal():
        found["http.response.status_code"] = int(verdict.cause)
    return found


# Re-entrant: making instruments may run a destructor that makes a tank.
_lock = threads.new_rlock()
_groups: WeakKeyDictionary[Any, Reports] = WeakKeyDictionary()
# A tank keeps its number whichever provider it reports through, so that its series go on.
_numbers: WeakKeyDictionary[Reported, int] = WeakKeyDictionary()
_next_number = count()


# Held while we are inside a histogram, and while the process forks: a child would find the histogram's own locks taken, by a
# thread that it does not have, for ever. Whoever is in there may run code of the application's, so nobody waits for long.
_recording = threads.new_rlock()
_WAIT: Final = 0.1


@contextmanager
def _recorded() -> Iterator[None]:
    lock = _recording
    is_ours = lock.acquire(timeout=_WAIT)
    try:
        yield
    finally:
        if is_ours:
            lock.release()


# Two threads may fork at the same time, and only one of them holds the lock.
_forking: Final[set[int]] = set()


def _before_fork() -> None:
    if _recording.acquire(timeout=_WAIT):
        _forking.add(threads.get_ident())


def _after_fork_in_parent() -> None:
    if threads.get_ident() in _forking:
        _forking.discard(threads.get_ident())
        _recording.release()


def _after_fork_in_child() -> None:
    # Another thread of the parent may have held them.
    global _lock, _recording
    _forking.clear()
    _lock, _recording = threads.new_rlock(), threads.new_rlock()
    for group in _groups.values():
        group.forget()


# Not on Windows, where nothing forks.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
