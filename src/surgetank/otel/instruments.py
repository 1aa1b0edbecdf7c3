"""A tank's own instruments: the one list of them all, from which `docs/metrics.md` is made.

Owns: no state. Threads: any. Invariants: names, units and attributes are the semantic conventions' where those have any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from surgetank.model import BreakerState, DropReason, Signal, SignalStats, TankStats

Kind = Literal["counter", "updowncounter", "gauge", "histogram"]
Component = Literal["processor", "exporter", "tank"]
Attributes = Mapping[str, Any]
# A value, and what tells it from others of its instrument.
Point = tuple[float, Attributes]

_NOUNS: Final[Mapping[Signal, tuple[str, str]]] = {
    Signal.SPANS: ("span", "{span}"),
    Signal.METRICS: ("metric_data_point", "{data_point}"),
    Signal.LOGS: ("log", "{log_record}"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Instrument:
    """One of our instruments."""

    name: str
    kind: Kind
    unit: str
    description: str
    component: Component
    """Whose attributes its points have, beside those that are named in `attributes`."""
    signals: tuple[Signal, ...] = tuple(Signal)
    attributes: tuple[str, ...] = ()
    observe: Callable[[SignalStats], Iterable[Point]] | None = None
    """Reads the books of each signal …"""
    observe_tank: Callable[[TankStats], Iterable[Point]] | None = None
    """… or those of the tank as a whole."""
    boundaries: tuple[float, ...] = ()
    """A histogram's buckets end there; the SDK's own boundaries are meant for milliseconds."""


def _one(read: Callable[[SignalStats], float]) -> Callable[[SignalStats], Iterable[Point]]:
    return lambda books: ((read(books), {}),)


def _whole(read: Callable[[TankStats], float]) -> Callable[[TankStats], Iterable[Point]]:
    return lambda stats: ((read(stats), {}),)


def _by_error(counts: Mapping[str, int]) -> Iterator[Point]:
    for reason, items in counts.items():
        yield items, {"error.type": reason}


def _dropped(books: SignalStats) -> Iterator[Point]:
    # Every reason from the start: whoever asks for the increase of a series does not see the value that it begins with.
    yield from _by_error({reason.value: books.dropped.get(reason.value, 0) for reason in DropReason})


def _processed(books: SignalStats) -> Iterator[Point]:
    yield books.attempted, {}
    tried = books.dropped_attempted
    yield from _by_error({reason: items - tried.get(reason, 0) for reason, items in books.dropped.items()})


def _exported(books: SignalStats) -> Iterator[Point]:
    yield books.delivered, {}
    # A reason of ours and an answer of the receiver's may have one name.
    causes = {*books.rejected_by_cause, *books.dropped_attempted}
    yield from _by_error(
        {cause: books.rejected_by_cause.get(cause, 0) + books.dropped_attempted.get(cause, 0) for cause in causes}
    )


def _breaker(books: SignalStats) -> Iterator[Point]:
    for state in BreakerState:
        yield int(books.breaker is state), {"surgetank.breaker.state": state.value}


def _of_semantic_conventions() -> Iterator[Instrument]:
    for signal, (noun, unit) in _NOUNS.items():
        plural = {"span": "spans", "log": "log records"}.get(noun, "metric data points")
        if signal is not Signal.METRICS:
            base = f"otel.sdk.processor.{noun}"
            yield Instrument(
                name=f"{base}.processed",
                kind="counter",
                unit=unit,
                description=f"{plural.capitalize()} that were handed to the sender for the first time, or, with `error.type`, given up before.",
                component="processor",
                signals=(signal,),
                attributes=("error.type",),
                observe=_processed,
            )
            yield Instrument(
                name=f"{base}.queue.size",
                kind="updowncounter",
                unit=unit,
                description=f"{plural.capitalize()} that wait in memory: as objects, encoded or sealed.",
                component="processor",
                signals=(signal,),
                observe=_one(lambda books: books.queued),
            )
            yield Instrument(
                name=f"{base}.queue.capacity",
                kind="updowncounter",
                unit=unit,
                description=f"{plural.capitalize()} that memory may hold at the moment; less than configured under memory pressure.",
                component="processor",
                signals=(signal,),
                observe=_one(lambda books: books.max_size),
            )
        yield Instrument(
            name=f"otel.sdk.exporter.{noun}.exported",
            kind="counter",
            unit=unit,
            description=f"{plural.capitalize()} that were delivered, or, with `error.type`, refused for good or given up after an attempt. "
            "A failed attempt that is followed by another counts nowhere.",
            component="exporter",
            signals=(signal,),
            attributes=("error.type",),
            observe=_exported,
        )
        yield Instrument(
            name=f"otel.sdk.exporter.{noun}.inflight",
            kind="updowncounter",
            unit=unit,
            description=f"{plural.capitalize()} that are being sent.",
            component="exporter",
            signals=(signal,),
            observe=_one(lambda books: books.in_flight),
        )


_WITHIN_TIMEOUTS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# An operation lasts as long as the outage that it was caught in.
_WITHIN_OUTAGES: Final = (*_WITHIN_TIMEOUTS, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
OPERATION: Final = Instrument(
    name="otel.sdk.exporter.operation.duration",
    kind="histogram",
    unit="s",
    description="From a batch's first attempt to its end, waits included; with `error.type` where it was refused.",
    component="exporter",
    attributes=("error.type", "http.response.status_code", "rpc.response.status_code"),
    boundaries=_WITHIN_OUTAGES,
)
ATTEMPT: Final = Instrument(
    name="surgetank.attempt.duration",
    kind="histogram",
    unit="s",
    description="One attempt at sending a batch; with `error.type` where it failed.",
    component="exporter",
    attributes=("error.type", "http.response.status_code", "rpc.response.status_code"),
    boundaries=_WITHIN_TIMEOUTS,
)
_OURS: Final = (
    Instrument(
        name="surgetank.offered",
        kind="counter",
        unit="{item}",
        description="Items that the application has handed over.",
        component="tank",
        observe=_one(lambda books: books.offered),
    ),
    Instrument(
        name="surgetank.recovered",
        kind="counter",
        unit="{item}",
        description="Items of earlier processes that were found on disk.",
        component="tank",
        observe=_one(lambda books: books.recovered),
    ),
    Instrument(
        name="surgetank.dropped",
        kind="counter",
        unit="{item}",
        description="Items that were given up, by reason; each reason is there from the start, at 0.",
        component="tank",
        attributes=("error.type",),
        observe=_dropped,
    ),
    Instrument(
        name="surgetank.dropped.size",
        kind="counter",
        unit="By",
        description="What those were charged for, by reason; what is damaged on disk counts as 0.",
        component="tank",
        attributes=("error.type",),
        observe=lambda books: _by_error(books.dropped_bytes),
    ),
    Instrument(
        name="surgetank.rejected",
        kind="counter",
        unit="{item}",
        description="Items that the receiver refused for good; by cause they are in `otel.sdk.exporter.*.exported`, from the first one on.",
        component="tank",
        observe=_one(lambda books: books.rejected),
    ),
    Instrument(
        name="surgetank.sealed",
        kind="counter",
        unit="{item}",
        description="Items that were turned into requests.",
        component="tank",
        observe=_one(lambda books: books.sealed),
    ),
    Instrument(
        name="surgetank.sealed.size",
        kind="counter",
        unit="By",
        description="The bytes of those requests, compressed. Over `surgetank.sealed`: what an item takes in an outage.",
        component="tank",
        observe=_one(lambda books: books.sealed_bytes),
    ),
    Instrument(
        name="surgetank.unaccounted",
        kind="updowncounter",
        unit="{item}",
        description="What the accounting law leaves over: 0, or a defect of surgetank's.",
        component="tank",
        observe=_one(lambda books: books.unaccounted),
    ),
    Instrument(
        name="surgetank.memory.usage",
        kind="updowncounter",
        unit="By",
        description="What is held in memory, over all copies.",
        component="tank",
        observe=_one(lambda books: books.memory_bytes),
    ),
    Instrument(
        name="surgetank.memory.limit",
        kind="updowncounter",
        unit="By",
        description="What memory may hold at the moment; less than configured under memory pressure.",
        component="tank",
        observe=_one(lambda books: books.max_memory_bytes),
    ),
    Instrument(
        name="surgetank.memory.pressure",
        kind="gauge",
        unit="1",
        description="The part of the process's (or control group's, or host's) memory limit that is used.",
        component="tank",
        observe_tank=_whole(lambda stats: stats.pressure),
    ),
    Instrument(
        name="surgetank.memory.scale",
        kind="gauge",
        unit="1",
        description="The part of their full size that the buffers may have.",
        component="tank",
        observe_tank=_whole(lambda stats: stats.scale),
    ),
    Instrument(
        name="surgetank.spool.queue.size",
        kind="updowncounter",
        unit="{item}",
        description="Items that wait on disk alone.",
        component="tank",
        observe=_one(lambda books: books.spooled),
    ),
    Instrument(
        name="surgetank.spool.usage",
        kind="updowncounter",
        unit="By",
        description="What the spool's files take on disk.",
        component="tank",
        observe=_one(lambda books: books.spool_bytes),
    ),
    Instrument(
        name="surgetank.spool.limit",
        kind="updowncounter",
        unit="By",
        description="What this process may take on disk: the limit, shared with the other living processes of the folder.",
        component="tank",
        observe_tank=_whole(lambda stats: stats.spool_limit_bytes),
    ),
    Instrument(
        name="surgetank.spool.down",
        kind="updowncounter",
        unit="1",
        description="1 while the spool cannot be written, else 0.",
        component="tank",
        observe_tank=_whole(lambda stats: int(stats.is_spool_down)),
    ),
    Instrument(
        name="surgetank.oldest.age",
        kind="gauge",
        unit="s",
        description="The age of the oldest item that waits, in memory or on disk; 0 when nothing waits.",
        component="tank",
        observe=_one(lambda books: books.oldest_age),
    ),
    Instrument(
        name="surgetank.breaker.state",
        kind="updowncounter",
        unit="1",
        description="1 for the state that the circuit breaker is in, 0 for the two others.",
        component="tank",
        attributes=("surgetank.breaker.state",),
        observe=_breaker,
    ),
    Instrument(
        name="surgetank.sampling.ratio",
        kind="gauge",
        unit="1",
        description="The part of the traces that the strategy `sampling` keeps at the moment; 1 is all.",
        component="tank",
        signals=(Signal.SPANS, Signal.LOGS),
        observe=_one(lambda books: books.sampling_ratio),
    ),
)

INSTRUMENTS: Final = (*_of_semantic_conventions(), OPERATION, ATTEMPT, *_OURS)
