"""The shared vocabulary: signals, lanes, batches, verdicts, and the snapshots of the books.

Owns: no state; every record here is immutable but `HeldBatch` and `Family`, which belong to whoever holds the batch.
Threads: any.
Invariants: the accounting law, which `SignalStats.unaccounted` computes, per
signal and in items, at every moment:

    offered + recovered = delivered + rejected + dropped{reason}
                          + queued + in_flight + spooled
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Protocol, runtime_checkable

from surgetank.frozen import Counts

# As a number of seconds: until woken. As a moment: never by itself.
FOREVER: Final = float("inf")
# The offer number of what was offered to another process: no flush waits for it.
FAR: Final = 2**62
# Of what this process was offered and has read back from disk: a flush waits for its record there.
FAR_OURS: Final = FAR - 1
# As the rest that a step asks for: none at all, not even to let other threads run.
PRESSING: Final = -1.0


class Word(str, enum.Enum):
    """A word of a fixed list: equal to its text, and printed as it."""

    def __str__(self) -> str:
        return str(self.value)


class Signal(Word):
    """A kind of telemetry; each has a pipeline of its own."""

    SPANS = "spans"
    METRICS = "metrics"
    LOGS = "logs"


class Lane(Word):
    """How dear an item is: the critical lane is sealed first and evicted last."""

    NORMAL = "normal"
    CRITICAL = "critical"


class DropReason(Word):
    """Why an item is gone without having been sent for good."""

    QUEUE_FULL = "queue_full"
    """The item limit (`max_size`) was reached."""
    MEMORY_LIMIT = "memory_limit"
    """The byte limit (`max_memory_mb`) was reached."""
    SAMPLED = "sampled"
    """Thinned out by the strategy `sampling`, before a limit was reached."""
    TOO_LARGE = "too_large"
    """This one item could never fit the byte limit with its encoding copy."""
    UNENCODABLE = "unencodable"
    """The item could not be turned into OTLP."""
    SHUTDOWN = "shutdown"
    """Still held in memory only when the shutdown deadline passed."""
    SPOOL_FULL = "spool_full"
    """Among the oldest on disk when the spool's limit was reached."""
    EXPIRED = "expired"
    """On disk for longer than the age limit."""
    DAMAGED = "damaged"
    """Its bytes on disk are not what they were, or are missing."""
    ALREADY_SHUTDOWN = "already_shutdown"
    """Offered after shutdown."""


INTENDED_DROPS: Final = frozenset({DropReason.SAMPLED, DropReason.ALREADY_SHUTDOWN})
"""What is given up because somebody asked for it: no loss that anybody need act upon."""


class BreakerState(Word):
    """The circuit breaker's three states (`delivery/breaker.py`)."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One OTLP request as immutable bytes: what is queued, stored and sent, unchanged, on every attempt."""

    id: str
    """Stable over every attempt, so that a receiver can recognise a repetition."""
    signal: Signal
    lane: Lane
    items: int
    """Spans, log records or metric data points in the request."""
    body: bytes
    """The request, compressed as `encoding` says."""
    raw_size: int
    """Bytes of the request before compression."""
    encoding: str
    """The HTTP `Content-Encoding`: `identity`, `gzip` or `deflate`."""
    created: float
    """When it was sealed, in seconds since the epoch."""


# Semconv's `error.type` for items that the receiver refused of a batch that it took.
PARTIALLY_REJECTED: Final = "rejected"

# What a batch costs beside its body: the records, the identifier, its place in a deque (measured, CPython 3.11).
BATCH_OVERHEAD: Final = 512


@dataclass(slots=True)
class Family:
    """What is known of a refused batch, over all the parts that it was cut into."""

    rejected: int = 0
    """Single items that were refused on their own."""
    has_delivered: bool = False
    """Whether any part got through, so that looking for the poison item is worth while."""


class StoredRecord(Protocol):
    """A batch's record on disk, as far as whoever holds the batch in memory need know. The seam exists because buffers know no disk."""

    @property
    def is_durable(self) -> bool:
        """Whether it survives what the configured durability says."""

    @property
    def is_done(self) -> bool:
        """Whether it is gone: acknowledged, given up for want of room, or deleted."""

    @property
    def is_deleted(self) -> bool:
        """Whether it is gone because somebody deleted its folder: the batch can be stored again."""


@dataclass(slots=True, kw_only=True, eq=False)
class HeldBatch:
    """A sealed batch and what has happened to it so far."""

    batch: Batch
    first_seq: int
    """The lowest offer number among its items; a flush waits for these."""
    attempts: int = 0
    """Attempts in all."""
    failures_in_a_row: int = 0
    """Refused, cut off or left without an answer since something else was tried."""
    timeouts: int = 0
    """Times that no answer came in time, in this form."""
    strikes: int = 0
    """Times it failed although others got through: the mark of a poison batch."""
    deferrals: int = 0
    """Times it was put off by a receiver that named a time, although others got through."""
    refused_after: int = -1
    """How many batches had been delivered when it last failed; -1 before that."""
    failed_after: int = 0
    """How many attempts had failed, of whatever batch, when it last failed."""
    family: Family | None = None
    """Shared by the parts of a batch that the receiver refused for good."""
    is_attempted: bool = False
    """Whether its items are counted among those that a delivery was attempted of."""
    first_attempt_at: float | None = None
    """When this process first tried it (monotonic seconds)."""
    due_at: float = float("-inf")
    """Set aside until then (monotonic seconds), so that it does not block the line."""
    record: StoredRecord | None = None
    """Its copy on disk; None while it is in memory only."""

    @property
    def is_read(self) -> bool:
        """Whether it was read from disk, and waits there alone when it is put back."""
        return self.first_seq >= FAR_OURS

    @property
    def is_stored(self) -> bool:
        """Whether it is on disk too, so that memory can do without it."""
        return self.record is not None and not self.record.is_done

    @property
    def is_safe(self) -> bool:
        """Whether it would survive what the configured durability says."""
        return self.record is not None and self.record.is_durable and not self.record.is_done

    @property
    def memory_bytes(self) -> int:
        """What it is charged for."""
        return len(self.batch.body) + BATCH_OVERHEAD


class Outcome(Word):
    """What an answer means for the batch that was sent."""

    DELIVERED = "delivered"
    """The receiver has it; `Verdict.rejected` items of it were refused for good."""
    RETRY = "retry"
    """A passing fault: send the same bytes again later."""
    HOLD = "hold"
    """Refused for a reason that people repair (credentials, routes): keep, as in an outage."""
    SPLIT = "split"
    """Too large for the receiver: send it in two halves."""
    PERMANENT = "permanent"
    """The receiver will never take this request: find the item that it objects to."""
    REJECTED = "rejected"
    """Tried often enough on a way that never says why it fails: give up the batch as a whole, and wait as after a fault."""

    @property
    def has_failed(self) -> bool:
        """Whether it speaks against the way to the receiver, and not, as a refusal does, of one batch on a way that is well."""
        return self in (Outcome.RETRY, Outcome.HOLD, Outcome.REJECTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A receiver's answer, judged (`delivery/verdicts.py` holds the one table)."""

    outcome: Outcome
    cause: str
    """The status code as text, or the error's kind (`connection_refused`, `timeout`); semconv's `error.type`."""
    rejected: int = 0
    """Items of a delivered batch that the receiver refused (`partial_success`)."""
    retry_after: float | None = None
    """Seconds that the receiver asked us to wait; None when it did not say."""
    reached: bool = True
    """False when no answer came at all: evidence about the endpoint, for every signal that uses it."""
    sent: bool = True
    """False when the request cannot have arrived (no connection came about) or we broke it off: nothing is learnt about this batch."""
    message: str = ""
    """What the receiver said, shortened; for the log line, never parsed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at delivering a batch, as whoever measures deliveries hears of it."""

    verdict: Verdict
    seconds: float
    """How long the sender took."""
    operation_seconds: float | None
    """From the batch's first attempt in this process to its end; None while it has not come to its end."""


class Sender(Protocol):
    """
    The seam to the network: carries one sealed batch to the endpoint, once.

    Exists so that every delivery rule can be tested without a socket. An
    implementation must not retry, must not raise for anything that a network or
    a server can do, and must return within about `timeout` seconds.
    """

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Send `batch` and judge the answer; called by one thread at a time."""

    def abort(self) -> None:
        """Make a `send` that is under way return soon; callable from any thread, at any time."""

    def close(self) -> None:
        """Let go of connections; a later `send` opens new ones."""

    def abandon(self) -> None:
        """Forget inherited connections without touching them: called in a forked child."""


@runtime_checkable
class ForkAware(Protocol):
    """
    What a sender has beside `Sender` where its library cannot be copied at any moment.

    The seam exists because a fork copies what native threads are in the middle of, and not the threads.
    """

    def before_fork(self) -> None:
        """Have nothing under way, and let nothing begin: called on the thread that forks."""

    def after_fork_in_parent(self) -> None:
        """Go on; the child is told by `Sender.abandon`."""


class Clock(Protocol):
    """
    Time as a dependency, in float seconds.

    Exists so that tests step time by hand. A fake may not run backwards in
    `monotonic`.
    """

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back; for deadlines and delays."""

    def now(self) -> float:
        """Seconds since the epoch; for stamps that leave the process."""

    def sleep(self, seconds: float) -> None:
        """Let that much time pass on the calling thread."""


# What a repr begins with; the rest of the fields is for those who ask for them.
_TOLD: Final = ("offered", "recovered", "delivered", "rejected", "dropped", "queued", "in_flight", "spooled")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SignalStats:
    """One signal's books at one moment. Counts are items since the tank began in this process."""

    offered: int = 0
    """Handed to the tank by the application."""
    recovered: int = 0
    """Found in the spool at start."""
    attempted: int = 0
    """Handed to the sender at least once, by this process."""
    delivered: int = 0
    """Taken by the receiver."""
    rejected: int = 0
    """Refused for good by the receiver."""
    rejected_by_cause: Mapping[str, int] = field(default_factory=Counts)
    """What `rejected` is made up of: by status code, or `rejected` for items of a request that was taken."""
    dropped: Mapping[str, int] = field(default_factory=Counts)
    """Given up by us, by reason (`DropReason`, or its value); a reason that is not there reads 0."""
    dropped_attempted: Mapping[str, int] = field(default_factory=Counts)
    """Of those, what had been handed to the sender before, as far as memory knows of it."""
    dropped_bytes: Mapping[str, int] = field(default_factory=Counts)
    """Bytes that those were charged for, by reason; what is damaged on disk counts as 0."""
    queued: int = 0
    """Held in memory, waiting: as objects, encoded or sealed."""
    in_flight: int = 0
    """In the hands of the sender."""
    spooled: int = 0
    """On disk, waiting."""
    stored: int = 0
    """Of `queued` and `in_flight`, what is on disk too and would outlive a `kill -9`; no term of the law."""
    memory_bytes: int = 0
    """Held in memory now, over all copies."""
    memory_peak_bytes: int = 0
    """The most that was ever held."""
    max_size: int = 0
    """Items that memory may hold at the moment: the limit, as far as memory pressure leaves it."""
    max_memory_bytes: int = 0
    """Bytes that memory may hold at the moment, likewise."""
    spool_bytes: int = 0
    """Taken on disk, in files."""
    oldest_age: float = 0.0
    """Seconds since the oldest of what waits, in memory or on disk, was sealed or, before that, encoded; 0 when nothing waits."""
    sampling_ratio: float = 1.0
    """The part of the traces that the strategy `sampling` keeps at the moment; 1 is all."""
    sealed: int = 0
    """Turned into requests by this process."""
    sealed_bytes: int = 0
    """The bytes of those requests, compressed: what memory, disk and network carry in an outage."""
    breaker: BreakerState = BreakerState.CLOSED
    """The circuit breaker's state."""
    retry_after: float = 0.0
    """Seconds, from now, for which the receiver has asked to be left alone; 0 when it has not."""
    stalled: str = ""
    """Why what waits on disk is not sent although the endpoint would take it; empty when it is."""
    trouble: str = ""
    """Why the last attempt failed (a status code or an error's kind, and what the receiver said); empty when it did not."""

    @property
    def unaccounted(self) -> int:
        """What the accounting law leaves over: 0, or a defect of ours."""
        gone = self.delivered + self.rejected + sum(self.dropped.values())
        return self.offered + self.recovered - gone - self.queued - self.in_flight - self.spooled

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it, `unaccounted` included."""
        found: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {name: dict(value) for name, value in found.items() if isinstance(value, Mapping)}
        return {**found, **plain, "breaker": self.breaker.value, "unaccounted": self.unaccounted}

    @property
    def is_used(self) -> bool:
        """Whether there was ever anything to deliver."""
        return bool(self.offered or self.recovered)

    def __repr__(self) -> str:
        said = [f"{name}={value!r}" for name in _TOLD if (value := getattr(self, name))]
        if self.breaker is not BreakerState.CLOSED:
            said.append(f"breaker={self.breaker.value!r}")
        said += [f"{name}={text!r}" for name in ("trouble", "stalled") if (text := getattr(self, name))]
        if self.unaccounted:
            said.append(f"unaccounted={self.unaccounted}")
        return f"SignalStats({', '.join(said)})"


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class TankStats:
    """The books of the three signals; each is a consistent snapshot of its own. `as_data` and `dataclasses.asdict` give what JSON takes."""

    spans: SignalStats
    metrics: SignalStats
    logs: SignalStats
    pressure: float = 0.0
    """The part of the memory limit that is used; 0 when nothing is known."""
    scale: float = 1.0
    """The part of their full size that the buffers may have at the moment."""
    spool_limit_bytes: int = 0
    """What this process may take on disk, over all signals; 0 without a spool."""
    orphans_waiting: int = 0
    """Folders of dead processes that nobody has adopted yet; what is in them is not counted in the books."""
    is_spool_down: bool = False
    """Whether the disk could not be written when it was last tried."""
    is_spool_starved: bool = False
    """Whether there was no file descriptor to read the disk with when it was last tried."""

    def by_signal(self) -> Mapping[Signal, SignalStats]:
        """Return the books of each signal."""
        return {Signal.SPANS: self.spans, Signal.METRICS: self.metrics, Signal.LOGS: self.logs}

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it, `unaccounted` of each signal included."""
        found: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**found, **{signal.value: books.as_data() for signal, books in self.by_signal().items()}}

    def __repr__(self) -> str:
        own = [each for each in fields(self) if each.name not in (signal.value for signal in Signal)]
        said = [f"{name}={books!r}" for name, books in self.by_signal().items() if books.is_used]
        said += [
            f"{each.name}={getattr(self, each.name)!r}" for each in own if getattr(self, each.name) != each.default
        ]
        return f"TankStats({', '.join(said)})"
