"""The sealer of one signal: encodes waiting objects in small slices, and seals batches when they are due.

Owns: the request under construction of each lane.
Threads: `step` is called by one thread at a time, the sealer's.
Invariants: an object that was taken is, after the step, in an open request, in a sealed
batch or dropped with a reason; a collection of metrics is never merged with another.

It never waits for the network, so that objects (kilobytes) become bytes (tens of
bytes) at the same pace during an outage as before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final

from surgetank.buffer.buffer import Buffer
from surgetank.buffer.intake import CHARGED_ONCE_MAX, Entry
from surgetank.config import Compression, SignalLimits
from surgetank.model import FOREVER, Batch, Clock, HeldBatch, Lane
from surgetank.otlp.codec import Codec, OpenRequest
from surgetank.otlp.compression import compress

# Objects that are encoded before the GIL is offered to the application's threads.
# Four ordinary spans take some 50 µs; the stock encoder's 512 stall threads for 5 to 10 ms.
SLICE_ITEMS: Final = 4
# For each so many waiting objects the slice grows by `SLICE_ITEMS`: falling behind loses data, which is worse than a stall.
BACKLOG_PER_SLICE: Final = 256

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


class Sealer:
    """
    One signal's sealer.

    Args:
        is_closed_off: Asks whether batches cannot leave at the moment.
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
        on_sealed: Callable[[], None],
    ) -> None:
        self._buffer = buffer
        self._codec = codec
        self._limits = limits
        self._clock = clock
        self._encoding = "identity" if compression == "none" else compression
        self._is_closed_off = is_closed_off
        self._on_sealed = on_sealed
        self.reset()

    def reset(self) -> None:
        """Forget what is under construction: construction, and a forked child."""
        self._open: dict[Lane, OpenBatch] = {}
        # Unique over processes and restarts without a registry: 64 random bits and a counter.
        self._id_prefix = os.urandom(8).hex()
        self._id_counter = count(1)

    def step(self) -> float:
        """
        Encode one slice and seal what is due.

        Returns:
            Seconds until the next call is worth while: 0 at once, infinity when woken.
        """
        self._buffer.wake_at = 0
        backlog = sum(self._buffer.waiting())
        if backlog:
            lane, entries = self._buffer.take_slice(SLICE_ITEMS * (1 + backlog // BACKLOG_PER_SLICE))
            self._encode(lane, entries)
        now = self._clock.monotonic()
        if self._open:
            mark = self._buffer.flush_mark()
            for lane, open_batch in list(self._open.items()):
                if self._is_due(lane, open_batch, now, mark):
                    self._seal(lane, next_seq=None)
        return self._doze()

    def _doze(self) -> float:
        """Say when to come again; set the mark before the last look, so that no offer falls between the two."""
        self._buffer.wake_at = WAKE_AT if self._open else 1
        if any(self._buffer.waiting()):
            return 0.0
        return PERIOD if self._open else FOREVER

    def _is_due(self, lane: Lane, open_batch: OpenBatch, now: float, flush_mark: int) -> bool:
        if self._is_full(open_batch) or now - open_batch.opened_at >= self._limits.schedule_delay:
            return True
        normal, critical = self._buffer.waiting()
        if critical if lane is Lane.CRITICAL else normal:
            return False
        # Nobody else is coming at the moment: critical items do not wait, and neither does a flush.
        return lane is Lane.CRITICAL or open_batch.first_seq <= flush_mark

    def _is_full(self, open_batch: OpenBatch) -> bool:
        limit = self._limits.max_export_batch_size
        if self._is_closed_off():
            limit = min(limit, max(GRAIN_MIN, self._limits.max_size // GRAIN))
        return open_batch.request.items >= limit or open_batch.request.size >= self._limits.max_batch_bytes

    def _encode(self, lane: Lane, entries: list[Entry]) -> None:
        released = charged = failed = failed_seq = 0
        # Taken from the list one by one, so that a large object is free as soon as it is bytes.
        entries.reverse()
        while entries:
            item, charge, seq = entries.pop()
            open_batch = self._open.get(lane)
            if open_batch is not None and self._must_seal_before(open_batch, item, charge):
                self._exchange(lane, released, charged, failed, failed_seq)
                released = charged = failed = 0
                self._seal(lane, next_seq=seq)
                open_batch = None
            if open_batch is None:
                open_batch = OpenBatch(self._codec.open(), seq, self._clock.monotonic())
            try:
                # Twice: the bytes now and their compressed copy when they are sealed.
                size = 2 * open_batch.request.add(item)
            except Exception:
                failed, failed_seq = failed + 1, failed_seq if failed else seq
            else:
                self._open[lane] = open_batch
                open_batch.charge += size
                charged += size
            released += charge
            del item
        self._exchange(lane, released, charged, failed, failed_seq)

    def _exchange(self, lane: Lane, released: int, charged: int, failed: int, failed_seq: int) -> None:
        if released:
            self._buffer.encoded(lane, released=released, charged=charged, failed=failed, failed_seq=failed_seq)

    def _must_seal_before(self, open_batch: OpenBatch, item: Any, charge: int) -> bool:
        if self._is_full(open_batch) or not open_batch.request.accepts(item):
            return True
        is_large = charge > CHARGED_ONCE_MAX
        return is_large and open_batch.request.size + charge // 2 > self._limits.max_batch_bytes

    def _seal(self, lane: Lane, *, next_seq: int | None) -> None:
        open_batch = self._open.pop(lane)
        request = open_batch.request
        try:
            body = compress(request.pieces(), self._encoding)
        except Exception:
            self._buffer.encoded(
                lane, released=open_batch.charge, charged=0, failed=request.items, failed_seq=open_batch.first_seq
            )
            return
        batch = Batch(
            id=f"{self._id_prefix}-{next(self._id_counter)}",
            signal=self._codec.signal,
            lane=lane,
            items=request.items,
            body=body,
            raw_size=request.size,
            encoding=self._encoding,
            created=self._clock.now(),
        )
        held = HeldBatch(batch=batch, first_seq=open_batch.first_seq)
        self._buffer.sealed(held, released=open_batch.charge, next_seq=next_seq)
        self._on_sealed()
