"""The sealer of one signal: encodes waiting objects in small slices, and seals batches when they are due.

Owns: the request under construction of each lane.
Threads: `step` is called by one thread at a time, the sealer's.
Invariants: an object that was taken is, after the step, in an open request, in a sealed
batch or dropped with a reason; a collection of metrics is never merged with another.

It never waits for the network, so that objects (kilobytes) become bytes (tens of
bytes) at the same pace during an outage as before it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Final

from surgetank.buffer.buffer import Buffer
from surgetank.buffer.intake import CHARGED_ONCE_MAX, Entry
from surgetank.config import Compression, SignalLimits
from surgetank.lines import say
from surgetank.model import FOREVER, PRESSING, Batch, Clock, HeldBatch, Lane, StoredRecord
from surgetank.otlp.codec import Codec, OpenRequest
from surgetank.otlp.compression import compress

_logger: Final = logging.getLogger("surgetank")

# Objects that are encoded before the GIL is offered to the application's threads.
# Four ordinary spans take some 50 µs; the stock encoder's 512 stall threads for 5 to 10 ms.
SLICE_ITEMS: Final = 4
# With more waiting than this, and until next to nothing waits, slices are larger and the GIL is
# not offered: a producer that never pauses would take it for 5 ms each time, the sealer would fall
# behind, and waiting objects cost memory, garbage collections and in the end data.
BACKLOG_MAX: Final = 256
PRESSING_ITEMS: Final = 32

# What is under construction of the critical lane is stored at once when none of its kind waits behind it, and then this often
# (seconds). It is sent on the schedule of all others: an application that makes errors shall not make a request for each.
CHECKPOINT_PERIOD: Final = 0.1

# Waiting objects that wake the sealer before its time …
WAKE_AT: Final = 64
# … which otherwise comes this often (seconds) while anything is under way.
PERIOD: Final = 0.2

# While the outlet is closed off, batches are a sixteenth of the buffer, because the
# oldest batch is what gives way when it is full: a fine grain loses little too much.
GRAIN: Final = 16
GRAIN_MIN: Final = 32


@dataclass(slots=True)
class OpenBatch:
    """A request under construction and what the buffer charges for it."""

    request: OpenRequest
    first_seq: int
    opened_at: float
    charge: int = 0
    checkpoint: StoredRecord | None = None
    """What is stored of it already, so that a kill does not cost it; acknowledged when it is sealed."""
    checked_items: int = 0
    checked_at: float = float("-inf")


@dataclass(slots=True)
class _Exchange:
    """What the encoding of some objects changes in the books: their charge for that of their bytes."""

    released: int = 0
    charged: int = 0
    failed: int = 0
    failed_bytes: int = 0
    failed_seq: int = 0

    def fail(self, seq: int, charge: int) -> None:
        """Count an object that cannot be encoded; offer numbers come in ascending order."""
        self.failed_seq = self.failed_seq or seq
        self.failed += 1
        self.failed_bytes += charge

    def settle(self, buffer: Buffer, lane: Lane) -> None:
        """Tell the buffer, and start anew."""
        if self.released:
            buffer.encoded(
                lane,
                released=self.released,
                charged=self.charged,
                failed=self.failed,
                failed_bytes=self.failed_bytes,
                failed_seq=self.failed_seq,
            )
            self.released = self.charged = self.failed = self.failed_bytes = self.failed_seq = 0


class Sealer:
    """
    One signal's sealer.

    Args:
        is_closed_off: Asks whether batches cannot leave at the moment.
        keep: Called with each sealed batch before anybody else can have it, to store it.
        check_in: Called with what is under construction of the critical lane, as a batch, and with what it returned before: stores
            the one and forgets the other.
        take_back: Called with one that was given up while it was stored.
        on_sealed: Called after each sealed batch, to wake the delivery thread.
    """

    def __init__(
        self,
        buffer: Buffer,
        codec: Codec,
        limits: SignalLimits,
        clock: Clock,
        *,
        compression: Compression,
        is_closed_off: Callable[[], bool],
        keep: Callable[[HeldBatch], None],
        check_in: Callable[[Batch | None, StoredRecord | None], StoredRecord | None] = lambda _, __: None,
        take_back: Callable[[HeldBatch], None],
        on_sealed: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._codec = codec
        self._limits = limits
        self._clock = clock
        self._encoding = "identity" if compression == "none" else compression
        self._is_closed_off = is_closed_off
        self._keep = keep
        self._check_in = check_in
        self._take_back = take_back
        self._on_sealed = on_sealed
        self.reset()

    def reset(self) -> None:
        """Forget what is under construction: construction, and a forked child."""
        self._open: dict[Lane, OpenBatch] = {}
        self._is_pressing = False
        self._has_failed = False
        # Unique over processes and restarts without a registry: 64 random bits and a counter.
        self._id_prefix = os.urandom(8).hex()
        self._id_counter = count(1)

    def step(self) -> float:
        """
        Encode one slice and seal what is due.

        Returns:
            Seconds until the next call is worth while: 0 at once, `PRESSING` without pause, infinity when woken.
        """
        self._buffer.wake_at = 0
        backlog = sum(self._buffer.waiting())
        self._is_pressing = backlog > (PRESSING_ITEMS if self._is_pressing else BACKLOG_MAX)
        if backlog:
            lane, entries = self._buffer.take_slice(PRESSING_ITEMS if self._is_pressing else SLICE_ITEMS)
            self._encode(lane, entries)
        now = self._clock.monotonic()
        if self._open:
            mark = self._buffer.flush_mark()
            for lane, open_batch in list(self._open.items()):
                if self._is_due(lane, open_batch, now, mark):
                    self._seal(lane, next_seq=None)
                elif lane is Lane.CRITICAL:
                    self._store_unsealed(open_batch, now)
        return PRESSING if self._is_pressing else self._doze(now)

    def _doze(self, now: float) -> float:
        """Say when to come again; set the mark before the last look, so that no offer falls between the two."""
        self._buffer.wake_at = WAKE_AT if self._open else 1
        if any(self._buffer.waiting()):
            return 0.0
        due = [self._due_at(open_batch) - now for open_batch in self._open.values()]
        due += [
            each.checked_at + CHECKPOINT_PERIOD - now
            for lane, each in self._open.items()
            if lane is Lane.CRITICAL and each.request.items > each.checked_items
        ]
        return max(0.0, min(PERIOD, *due)) if due else FOREVER

    def _is_due(self, lane: Lane, open_batch: OpenBatch, now: float, flush_mark: int) -> bool:
        if self._is_full(open_batch) or now >= self._due_at(open_batch):
            return True
        normal, critical = self._buffer.waiting()
        if critical if lane is Lane.CRITICAL else normal:
            return False
        # Nobody else is coming at the moment: a flush does not wait.
        return open_batch.first_seq <= flush_mark

    def _due_at(self, open_batch: OpenBatch) -> float:
        return open_batch.opened_at + self._limits.schedule_delay

    def _store_unsealed(self, open_batch: OpenBatch, now: float) -> None:
        """Store what is under construction, where that is news and due."""
        is_news = open_batch.request.items > open_batch.checked_items
        if not is_news or now < open_batch.checked_at + CHECKPOINT_PERIOD or self._buffer.waiting()[1]:
            return
        open_batch.checked_items, open_batch.checked_at = open_batch.request.items, now
        try:
            body = compress(open_batch.request.pieces(), self._encoding)
            batch = self._batch(Lane.CRITICAL, open_batch.request, body)
            open_batch.checkpoint = self._check_in(batch, open_batch.checkpoint)
        except Exception:
            self._note_defect()

    def _is_full(self, open_batch: OpenBatch) -> bool:
        return open_batch.request.items >= self._items_max() or open_batch.request.size >= self._limits.max_batch_bytes

    def _items_max(self) -> int:
        limit = self._limits.max_export_batch_size
        return min(limit, max(GRAIN_MIN, self._limits.max_size // GRAIN)) if self._is_closed_off() else limit

    def _encode(self, lane: Lane, entries: list[Entry]) -> None:
        exchange = _Exchange()
        items_max, bytes_max = self._items_max(), self._limits.max_batch_bytes
        open_batch = self._open.get(lane)
        # Taken from the list one by one, so that a large object is free as soon as it is bytes.
        entries.reverse()
        while entries:
            item, charge, seq = entries.pop()
            if open_batch is not None:
                request = open_batch.request
                size = request.size + (charge // 2 if charge > CHARGED_ONCE_MAX else 0)
                if request.items >= items_max or size > bytes_max or not request.accepts(item):
                    exchange.settle(self._buffer, lane)
                    self._seal(lane, next_seq=seq)
                    open_batch = None
            if open_batch is None:
                open_batch = OpenBatch(self._codec.open(), seq, self._clock.monotonic())
            exchange.released += charge
            try:
                # Twice: the bytes now and their compressed copy when they are sealed.
                size = 2 * open_batch.request.add(item)
            except Exception:
                exchange.fail(seq, charge)
                open_batch = self._open.get(lane)
            else:
                self._open[lane] = open_batch
                open_batch.charge += size
                exchange.charged += size
            del item
        exchange.settle(self._buffer, lane)

    def _seal(self, lane: Lane, *, next_seq: int | None) -> None:
        open_batch = self._open.pop(lane)
        request = open_batch.request
        try:
            body = compress(request.pieces(), self._encoding)
        except Exception:
            self._forget_checkpoint(open_batch)
            self._buffer.encoded(
                lane,
                released=open_batch.charge,
                charged=0,
                failed=request.items,
                failed_bytes=open_batch.charge,
                failed_seq=open_batch.first_seq,
            )
            return
        held = HeldBatch(batch=self._batch(lane, request, body), first_seq=open_batch.first_seq)
        try:
            self._keep(held)
        except Exception:
            # A defect on the way to disk, or in a user's key function, costs the batch its place there and nothing else:
            # what else is in this slice would be lost with it.
            self._note_defect()
        # Now that the whole is stored: a crash in between repeats it.
        self._forget_checkpoint(open_batch)
        if self._buffer.sealed(held, released=open_batch.charge, next_seq=next_seq):
            self._on_sealed()
        else:
            self._take_back(held)

    def _forget_checkpoint(self, open_batch: OpenBatch) -> None:
        if open_batch.checkpoint is not None:
            try:
                self._check_in(None, open_batch.checkpoint)
            except Exception:
                self._note_defect()

    def _batch(self, lane: Lane, request: OpenRequest, body: bytes) -> Batch:
        return Batch(
            id=f"{self._id_prefix}-{next(self._id_counter)}",
            signal=self._codec.signal,
            lane=lane,
            items=request.items,
            body=body,
            raw_size=request.size,
            encoding=self._encoding,
            created=self._clock.now(),
        )

    def stored_items(self) -> int:
        """Return the items under construction that are on disk already. Any thread."""
        return sum(each.checked_items for each in list(self._open.values()) if each.checkpoint is not None)

    def opened_at(self) -> float:
        """Return when the oldest request under construction was begun (monotonic seconds); infinity when there is none. Any thread."""
        return min((each.opened_at for each in list(self._open.values())), default=FOREVER)

    def _note_defect(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            say(_logger, logging.ERROR, "a defect while a batch was stored; it is held in memory only", is_error=True)
