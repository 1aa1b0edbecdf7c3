"""Everything that one signal holds in memory, under one lock: offer, encode, seal, lease, settle.

Owns: the intake, the queue, the books, and the note of what is between the two.
Threads: any; each method is atomic. The lock is held for memory work only: no I/O,
no logging, no user code, no second lock.
Invariants: `Books.memory_bytes` never exceeds `max_bytes`, nor `Books.memory_items`
`max_size`, times the scale that memory pressure asks for; the accounting law.

    offer        take_slice     encoded        sealed        lease        settle
    ─────▶ intake ────────▶ encoding ────▶ open ─────▶ queue ─────▶ in flight ─────▶
              │                                          │ ▲            │
              └───────────── victims ────────────────────┘ └─ put_back ─┘

The lock is re-entrant because Python runs signal handlers and destructors between
any two calls, on a thread that may be in here already, and those may end spans or
write logs. Such an offer is parked while a longer section is under way and admitted
when that section ends; `offer`'s own fast path makes no call between its first and
last change, so it needs no parking.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, Protocol

from surgetank import threads
from surgetank.buffer.books import Books
from surgetank.buffer.drop import victims, victims_for_ourselves
from surgetank.buffer.flush import Flush, Flushes, Until
from surgetank.buffer.intake import CHARGED_ONCE_MAX, Entry, Intake, charge_of
from surgetank.buffer.queue import BatchQueue
from surgetank.config import SignalLimits
from surgetank.model import (
    FAR,
    FAR_OURS,
    FOREVER,
    INTENDED_DROPS,
    PARTIALLY_REJECTED,
    BreakerState,
    DropReason,
    HeldBatch,
    Lane,
    SignalStats,
    StoredRecord,
)

NO_BYTES: Final[Mapping[DropReason, int]] = MappingProxyType({})

# At most so many bytes of objects are encoded at a time; of a tiny budget, a sixteenth.
SLICE_BYTES: Final = 256 * 1024
# As much again and again is kept free of waiting objects: for the bytes that come of a
# slice, and for joining small pieces before they are compressed.
SCRATCH_SLICES: Final = 3


def slice_bytes(max_bytes: int) -> int:
    """Return how many bytes of objects are encoded at a time within a budget."""
    return min(SLICE_BYTES, max_bytes // 16)


def bytes_for_batches(max_bytes: int) -> int:
    """Return what of a budget is left for what is held, beside what encoding needs."""
    return max(slice_bytes(max_bytes), max_bytes - SCRATCH_SLICES * slice_bytes(max_bytes))


class OnDisk(Protocol):
    """What a buffer asks of the disk, without waiting for it. The seam exists because buffers know no disk."""

    @property
    def has_available(self) -> bool:
        """Whether anything waits there alone that could be sent, whoever has left it."""

    def ends(self) -> Mapping[Lane, int]:
        """Return where that ends now which this process has stored."""

    def holds_below(self, ends: Mapping[Lane, int]) -> bool:
        """Whether anything that this process has stored before those ends is not done yet."""


class Nothing:
    """No disk."""

    has_available = False

    def ends(self) -> Mapping[Lane, int]:
        """Return that there is nothing."""
        return {}

    def holds_below(self, ends: Mapping[Lane, int]) -> bool:
        """Return that there is nothing."""
        return False


# In the place of an item that was thinned out and is only to be counted.
THINNED_OUT: Final = object()


class _Section:
    """
    A stretch of changes that belong together, for `with`.

    A class and not a generator, because it is entered several times a slice. The lock is taken beside it and not
    in it (`with self._lock, self._section`): between two lines of Python a signal handler may raise, and the lock of
    a section that was broken off there would never be released.
    """

    __slots__ = ("_buffer", "_depth")

    def __init__(self, buffer: Buffer) -> None:
        self._buffer = buffer
        self._depth = 0

    def __enter__(self) -> None:
        # Entered again by a signal handler or a destructor on the thread that is in
        # here already, it only counts: such a visitor may look, and what it offers is parked.
        self._depth += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        buffer = self._buffer
        try:
            if kind is not None:
                buffer._reconcile()
                buffer._check_flushes()
            if self._depth == 1:
                while buffer._parked:
                    buffer._admit(*buffer._parked.popleft())
                if buffer._waiters:
                    buffer._serve_waiters()
        finally:
            self._depth -= 1

    def restart(self) -> None:
        """Forget the count: a signal handler that raised may have broken it off in the middle."""
        self._depth = 0


class Waiter:
    """A thread that waits for room, with what it brings."""

    __slots__ = ("admitted", "charge", "is_critical", "item")

    def __init__(self, item: Any, charge: int, is_critical: bool) -> None:
        self.item = item
        self.charge = charge
        self.is_critical = is_critical
        self.admitted = threads.Gate()


class Buffer:
    """
    One signal's memory.

    Args:
        limits: Items and bytes, and who gives way.
        on_work: Called without the lock, from the offering thread, when enough waits
            for the sealer to be woken; must be re-entrant and quick.
    """

    def __init__(self, limits: SignalLimits, on_work: Callable[[], None]) -> None:
        self._limits = limits
        self._on_work = on_work
        self.on_disk: OnDisk = Nothing()
        """What is on disk; set by whoever joins the two. Asked with the lock held."""
        self.on_drop: Callable[[], None] = lambda: None
        """Called without the lock, on any thread, when something was dropped; must be re-entrant and quick."""
        self._slice_bytes = slice_bytes(limits.max_bytes)
        self._scale = 1.0
        self.reset()

    def reset(self) -> None:
        """Forget everything, locks included: construction, and the first act of a forked child."""
        self._lock = threads.new_rlock()
        self._section = _Section(self)
        # The lock guards everything below.
        self._books = Books()
        self._intake = Intake()
        self._queue = BatchQueue()
        self._parked: deque[tuple[Any, int, bool]] = deque()
        self._is_closed = False
        self._is_abandoned = False
        self._waiters: deque[Waiter] = deque()
        """Threads that wait for room, first come, first served."""
        self._between: dict[Lane, int] = {Lane.NORMAL: 0, Lane.CRITICAL: 0}
        """Items taken from the intake and not yet in the queue: being encoded, encoded, being sealed."""
        self._between_seq: dict[Lane, int] = {}
        """The lowest offer number among those."""
        self._leases: dict[int, HeldBatch] = {}
        """In flight, by identity, so that a lease that was given up is known to be void."""
        self._between_bytes = self._reading_bytes = self._scratch_bytes = 0
        """What is charged for those, for batches that are being read, and for working memory."""
        self._oversized: HeldBatch | None = None
        """A batch that was read although it exceeds the limits by itself, while it is in flight."""
        self._extra_items = self._extra_bytes = 0
        """What the limits are raised by for that one, so that nothing else has to give way to it."""
        self._set_limits()
        self._reading = 0
        """Items that are being read from disk into memory; they count as in flight."""
        self.spilled: deque[HeldBatch] = deque()
        """Batches that memory has let go of because they are on disk too, until the disk's side is told."""
        self._flushes = Flushes()
        self.wake_at = 1
        """Waiting items at which the sealer wants to be woken; 0 when it is awake anyway."""

    def _set_limits(self) -> None:
        limits = self._limits
        self._room_items = max(1, int(limits.max_size * self._scale)) + self._extra_items
        # For offers, which are refused once it is closed; what is read from disk is not.
        self._max_items = 0 if self._is_closed else self._room_items
        self._max_bytes = int(limits.max_bytes * self._scale) + self._extra_bytes
        self._admit_bytes = max(self._slice_bytes, self._max_bytes - SCRATCH_SLICES * self._slice_bytes)
        self._half_items, self._half_bytes = self._max_items / 2, self._admit_bytes / 2

    def resize(self, scale: float) -> None:
        """
        Obey a part of the limits from now on: what does not fit any more goes to disk if it can, else gives way.

        Args:
            scale: Of the configured limits, 0.05 to 1.
        """
        with self._lock, self._section:
            self._scale = scale
            self._set_limits()
            if self._is_closed:
                return
            while self._overflow() is not None and self._spill_one():
                pass
            givers = victims_for_ourselves(self._limits.drop_strategy, self._intake, self._queue)
            while (reason := self._overflow()) is not None and (victim := next(givers, None)) is not None:
                self._evict(victim, reason)

    def _overflow(self) -> DropReason | None:
        """Return the limit that is exceeded, or None."""
        if self._books.memory_items > self._max_items:
            return DropReason.QUEUE_FULL
        return DropReason.MEMORY_LIMIT if self._books.memory_bytes > self._max_bytes else None

    def wait_for_room(self, item: Any, estimate: int, is_critical: bool, timeout: float) -> None:
        """
        Take an item as `offer` does, but while there is no room, let the calling thread wait for it in its turn.

        Args:
            item: The object; from now on the buffer's.
            estimate: Its size in memory, in bytes.
            is_critical: Whether it goes into the critical lane.
            timeout: Seconds after which the drop strategy decides.
        """
        charge = charge_of(estimate)
        with self._lock, self._section:
            must_wait = (
                not self._is_closed
                and charge <= self._admit_bytes
                and (bool(self._waiters) or self._lacks(charge) is not None)
            )
            if must_wait:
                waiter = Waiter(item, charge, is_critical)
                self._waiters.append(waiter)
        if not must_wait:
            self.offer(item, estimate, is_critical)
            return
        self._on_work()
        try:
            waiter.admitted.wait(timeout)
        finally:
            # Also when a signal handler has raised meanwhile, or nobody behind it would ever be served.
            with self._lock, self._section:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
                    self._admit(item, charge, is_critical)
            self.tell_of_drops()

    def _serve_waiters(self) -> None:
        """Let in those who wait for room, in the order of their coming, as far as there is room or no hope."""
        while self._waiters and (self._is_closed or self._spill_for(self._waiters[0].charge)):
            waiter = self._waiters.popleft()
            self._admit(waiter.item, waiter.charge, waiter.is_critical)
            waiter.admitted.open()

    def _spill_for(self, charge: int) -> bool:
        while self._lacks(charge) is not None:
            if not self._spill_one():
                return False
        return True

    def offer(self, item: Any, estimate: int, is_critical: bool) -> None:
        """
        Take an item, or drop it (or something older) with a reason. Never raises, never waits.

        Args:
            item: The object; from now on the buffer's.
            estimate: Its size in memory, in bytes.
            is_critical: Whether it goes into the critical lane.
        """
        charge = estimate if estimate <= CHARGED_ONCE_MAX else 2 * estimate
        is_visitor = self._lock._is_owned()
        with self._lock:
            if is_visitor:
                self._parked.append((item, charge, is_critical))
                return
            books = self._books
            memory_bytes = books.memory_bytes + charge
            if memory_bytes <= self._admit_bytes and books.memory_items < self._max_items:
                try:
                    seq = books.offered = books.offered + 1
                    books.memory_items += 1
                    books.memory_bytes = memory_bytes
                    intake = self._intake
                    (intake.critical if is_critical else intake.normal).append((item, charge, seq))
                except BaseException:
                    # CPython 3.10 lets signal handlers in between these lines, too, and this one has raised.
                    self._reconcile()
                    raise
            else:
                self._section.restart()
                with self._section:
                    self._admit(item, charge, is_critical)
            if self._parked:
                # By a visitor between two lines of the above.
                self._section.restart()
                with self._section:
                    pass
        if self._books.has_dropped:
            self.tell_of_drops()
        wake_at = self.wake_at
        if wake_at and (is_critical or len(self._intake.normal) >= wake_at):
            self._on_work()

    def tell_of_drops(self) -> None:
        """Have somebody told if anything was dropped since the last call; for whoever has just left the lock."""
        if self._books.has_dropped:
            self._books.has_dropped = False
            self.on_drop()

    def thin_out(self, estimate: int) -> None:
        """Count an item of that size as offered and as thinned out (`sampling.py`). Never raises, never waits."""
        is_visitor = self._lock._is_owned()
        with self._lock:
            if is_visitor:
                self._parked.append((THINNED_OUT, estimate, False))
                return
            self._section.restart()
            with self._section:
                self._admit(THINNED_OUT, estimate, False)
        self.tell_of_drops()

    def _admit(self, item: Any, charge: int, is_critical: bool) -> None:
        """Admit with every rule applied: when something is full, or the offer had to be parked."""
        books = self._books
        books.offered += 1
        if self._is_closed:
            books.drop(DropReason.ALREADY_SHUTDOWN, 1, charge)
            return
        if item is THINNED_OUT:
            books.drop(DropReason.SAMPLED, 1, charge)
            return
        if charge > self._admit_bytes:
            books.drop(DropReason.TOO_LARGE, 1, charge)
            return
        lane = Lane.CRITICAL if is_critical else Lane.NORMAL
        reason = self._lacks(charge)
        while reason is not None and self._spill_one():
            reason = self._lacks(charge)
        givers = victims(self._limits.drop_strategy, lane, self._intake, self._queue)
        while reason is not None and (victim := next(givers, None)) is not None:
            self._evict(victim, reason)
            reason = self._lacks(charge)
        if reason is not None:
            books.drop(reason, 1, charge)
            return
        books.charge(1, charge)
        self._intake.append((item, charge, books.offered), lane)

    def _lacks(self, charge: int) -> DropReason | None:
        """Return the limit that stands against one more item, or None when there is room."""
        if self._books.memory_items >= self._max_items:
            return DropReason.QUEUE_FULL
        if self._books.memory_bytes + charge > self._admit_bytes:
            return DropReason.MEMORY_LIMIT
        return None

    def _evict(self, victim: HeldBatch | Entry, reason: DropReason) -> None:
        if isinstance(victim, HeldBatch):
            items, size = victim.batch.items, victim.memory_bytes
            seq = 0 if victim.first_seq == FAR_OURS else victim.first_seq
            attempted = items if victim.is_attempted else 0
        else:
            items, size, seq, attempted = 1, victim[1], victim[2], 0
        self._books.charge(-items, -size)
        self._books.drop(reason, items, size, attempted=attempted)
        self._flushes.lose(seq)
        if isinstance(victim, HeldBatch):
            self._has_left_memory(victim)

    def _spill_one(self) -> bool:
        """Let go of the oldest batch that is on disk too; returns whether there was one."""
        held = self._queue.evict_stored()
        if held is None:
            return False
        self._spill(held)
        return True

    def _spill(self, held: HeldBatch) -> None:
        self._books.charge(-held.batch.items, -held.memory_bytes)
        self._books.spooled += held.batch.items
        if self._flushes and held.first_seq != FAR:
            self._flushes.went_to_disk(0 if held.is_read else held.first_seq, self.on_disk.ends())
        # The body goes now; the rest until the disk's side has taken note.
        held.batch = replace(held.batch, body=b"")
        self.spilled.append(held)
        self._has_left_memory(held)

    def _make_room(self, growth: int) -> None:
        """Evict until our own copies may grow by so many bytes without breaking the limit."""
        while self._books.memory_bytes + growth > self._max_bytes and self._spill_one():
            pass
        if self._books.memory_bytes + growth <= self._max_bytes:
            return
        givers = victims_for_ourselves(self._limits.drop_strategy, self._intake, self._queue)
        while self._books.memory_bytes + growth > self._max_bytes and (victim := next(givers, None)) is not None:
            self._evict(victim, DropReason.MEMORY_LIMIT)

    def take_slice(self, max_items: int) -> tuple[Lane, list[Entry]]:
        """Take up to `max_items` waiting objects of one lane, critical first, of some `SLICE_BYTES` (but at least one)."""
        with self._lock, self._section:
            lane = Lane.CRITICAL if self._intake.critical else Lane.NORMAL
            taken: list[Entry] = []
            size = 0
            while (
                len(taken) < max_items and size < self._slice_bytes and (entry := self._intake.take(lane)) is not None
            ):
                taken.append(entry)
                size += entry[1]
            if taken:
                self._between_bytes += size
                self._between[lane] += len(taken)
                self._between_seq.setdefault(lane, taken[0][2])
            return lane, taken

    def encoded(
        self, lane: Lane, *, released: int, charged: int, failed: int, failed_bytes: int, failed_seq: int
    ) -> None:
        """
        Exchange the charge of encoded objects for that of their bytes.

        Args:
            lane: Their lane.
            released: The objects' charge.
            charged: What their bytes are charged for until sealed.
            failed: How many of them could not be encoded and are dropped.
            failed_bytes: What those were charged for.
            failed_seq: The lowest offer number among those.
        """
        with self._lock, self._section:
            if self._is_abandoned:
                return
            self._make_room(charged - released)
            self._between_bytes += charged - released
            self._books.charge(-failed, charged - released)
            if failed:
                self._between[lane] -= failed
                self._books.drop(DropReason.UNENCODABLE, failed, failed_bytes)
                self._flushes.lose(failed_seq)
                if not self._between[lane]:
                    self._between_seq.pop(lane, None)
                self._check_flushes()

    def sealed(self, held: HeldBatch, *, released: int, next_seq: int | None) -> bool:
        """
        Queue a sealed batch in exchange for the charge of its parts.

        Args:
            held: The batch.
            released: What its parts were charged for.
            next_seq: The lowest offer number that is still being encoded in its lane, None when nothing is.

        Returns:
            False when everything was given up meanwhile, and its items with it.
        """
        with self._lock, self._section:
            if self._is_abandoned:
                return False
            lane = held.batch.lane
            self._between[lane] -= held.batch.items
            assert self._between[lane] >= 0
            if next_seq is None:
                self._between_seq.pop(lane, None)
            else:
                self._between_seq[lane] = next_seq
            self._make_room(held.memory_bytes - released)
            self._between_bytes -= released
            self._queue.append(held)
            self._books.charge(0, held.memory_bytes - released)
            self._books.sealed += held.batch.items
            self._books.sealed_bytes += len(held.batch.body)
            self._check_flushes()
            return True

    def waiting(self) -> tuple[int, int]:
        """Return how many objects wait to be encoded: in the normal lane, in the critical lane."""
        return len(self._intake.normal), len(self._intake.critical)

    def lease(self, now: float) -> HeldBatch | None:
        """Take the next batch; it stays in the books, in flight, until it is settled."""
        with self._lock, self._section:
            held = self._queue.next(now)
            if held is not None:
                key = id(held)
                self._queue.remove(held)
                # From here on nothing is called: what raises leaves it in the queue or in flight.
                self._leases[key] = held
                if not held.is_attempted:
                    held.is_attempted = True
                    self._books.attempted += held.batch.items
            return held

    def lease_ready(self, now: float) -> HeldBatch | None:
        """Lease as `lease` does, but no batch that was set aside until later."""
        with self._lock, self._section:
            return self.lease(now) if any(held.due_at <= now for held in self._queue) else None

    def put_back(self, held: HeldBatch) -> None:
        """Release a leased batch: it waits again, where its age places it."""
        with self._lock, self._section:
            key = id(held)
            if key in self._leases:
                self._queue.put_back(held)
                del self._leases[key]

    def reserve(self, items: int, size: int) -> bool:
        """
        Charge for a batch that is about to be read from disk, if there is room for it without a loss.

        A batch that exceeds the limits by itself, because they were larger when it was stored, is let in
        when nothing else that was read is in flight: the limits are raised by its size until it is settled.
        """
        with self._lock, self._section:
            if self._is_abandoned:
                return False
            self._forget_stale_limits()
            if items > self._room_items or size > self._admit_bytes:
                if self._extra_items or self._reading or any(held.is_read for held in self._leases.values()):
                    return False
                self._raise_limits(items, size)
            while self._lacks_for(items, size):
                if not self._spill_one():
                    if self._extra_items and self._oversized is None:
                        self._raise_limits(0, 0)
                    return False
            self._books.charge(items, size)
            # From here on nothing is called.
            self._reading += items
            self._reading_bytes += size
            self._books.spooled -= items
            return True

    def _raise_limits(self, items: int, size: int) -> None:
        self._extra_items, self._extra_bytes = items, size
        self._set_limits()

    def _forget_stale_limits(self) -> None:
        """Lower the limits again when whoever raised them was broken off before the batch was in flight."""
        if self._extra_items and self._oversized is None and not self._reading:
            self._raise_limits(0, 0)

    def _has_left_memory(self, held: HeldBatch) -> None:
        """Lower the limits again when it was the oversized batch that has left."""
        if held is self._oversized:
            self._oversized = None
            self._raise_limits(0, 0)

    def _lacks_for(self, items: int, size: int) -> bool:
        books = self._books
        return books.memory_items + items > self._room_items or books.memory_bytes + size > self._admit_bytes

    def cancel(self, items: int, size: int) -> None:
        """Undo `reserve`: the batch stays on disk."""
        with self._lock, self._section:
            if self._is_abandoned:
                return
            self._books.charge(-items, -size)
            self._reading -= items
            self._reading_bytes -= size
            self._books.spooled += items
            self._forget_stale_limits()

    def cancel_reading(self) -> None:
        """Undo every `reserve` that came to nothing: whoever reserved was broken off."""
        with self._lock, self._section:
            if self._reading:
                self.cancel(self._reading, self._reading_bytes)

    def leased(self) -> list[HeldBatch]:
        """Return the batches in flight."""
        with self._lock, self._section:
            return list(self._leases.values())

    def is_leased(self, held: HeldBatch) -> bool:
        """Whether a batch is in flight."""
        return id(held) in self._leases

    def lease_read(self, held: HeldBatch, size: int) -> None:
        """Begin the lease of a batch that was read from disk, for which `size` bytes were reserved."""
        with self._lock, self._section:
            if self._is_abandoned:
                return
            key = id(held)
            self._books.charge(0, held.memory_bytes - size)
            # From here on nothing is called.
            self._reading -= held.batch.items
            self._reading_bytes -= size
            if self._extra_items and self._oversized is None:
                self._oversized = held
            self._leases[key] = held
            if not held.is_attempted:
                held.is_attempted = True
                self._books.attempted += held.batch.items

    def return_read(self, held: HeldBatch) -> None:
        """End the lease of a batch that waits on disk alone again; its body goes, what is known of it stays."""
        with self._lock, self._section:
            key = id(held)
            if key in self._leases:
                without_body = replace(held.batch, body=b"")
                self._books.charge(-held.batch.items, -held.memory_bytes)
                # From here on nothing is called.
                del self._leases[key]
                self._books.spooled += held.batch.items
                held.batch = without_body
                self._has_left_memory(held)

    def changed_on_disk(
        self,
        *,
        recovered: int,
        lost: Mapping[DropReason, int],
        lost_bytes: Mapping[DropReason, int] = NO_BYTES,
        has_lost_ours: bool = False,
    ) -> None:
        """Take note of what was found on disk, and of what waits there no more."""
        with self._lock, self._section:
            self._books.recovered += recovered
            self._books.spooled += recovered
            for reason, items in lost.items():
                self._books.spooled -= items
                self._books.drop(reason, items, lost_bytes.get(reason, 0))
            if has_lost_ours:
                self._flushes.lose(0)
            self._check_flushes()

    def queued(self) -> list[HeldBatch]:
        """Return the batches that wait in memory, the oldest of each lane first."""
        with self._lock, self._section:
            return list(self._queue)

    def in_flight(self) -> list[HeldBatch]:
        """Return the batches that are leased."""
        with self._lock, self._section:
            return list(self._leases.values())

    def attach(self, held: HeldBatch, record: StoredRecord) -> bool:
        """Note that a batch is on disk too; False when it has left memory meanwhile."""
        with self._lock, self._section:
            if id(held) not in self._leases and held not in self._queue:
                return False
            held.record = record
            self._check_flushes()
            return True

    @property
    def memory_bytes(self) -> int:
        """What is charged now, over all copies. A look without the lock."""
        return self._books.memory_bytes

    @property
    def used_share(self) -> float:
        """The part of the configured limits that is used, in items or bytes, whichever is more. A look without the lock."""
        books, limits = self._books, self._limits
        return max(books.memory_items / limits.max_size, books.memory_bytes / limits.max_bytes)

    @property
    def recovered(self) -> int:
        """Items that were found on disk so far. A look without the lock."""
        return self._books.recovered

    @property
    def lost(self) -> int:
        """Items given up so far, but for those that were to be given up. A look without the lock."""
        # Copied in one step: another thread may add a reason meanwhile.
        return sum(items for reason, items in list(self._books.dropped.items()) if reason not in INTENDED_DROPS)

    @property
    def has_had_items(self) -> bool:
        """Whether anything was ever offered or found on disk. A look without the lock."""
        return bool(self._books.offered or self._books.recovered)

    @property
    def fill(self) -> float:
        """How full memory is, in items or bytes, whichever is more; 1 is full. A look without the lock."""
        books = self._books
        return max(books.memory_items / max(1, self._max_items), books.memory_bytes / self._max_bytes)

    def is_filling(self) -> bool:
        """Whether memory is at least half full. A look without the lock, for each offer."""
        books = self._books
        return books.memory_items >= self._half_items or books.memory_bytes >= self._half_bytes

    def unsaved_fill(self) -> float:
        """How full memory is with what cannot make room without a loss: not counting what waits and is on disk too; 1 is full."""
        with self._lock, self._section:
            books, stored = self._books, [held for held in self._queue if held.is_stored]
            items = books.memory_items - sum(held.batch.items for held in stored)
            size = books.memory_bytes - sum(held.memory_bytes for held in stored)
            return max(items / max(1, self._max_items), size / self._admit_bytes)

    def settle(
        self,
        held: HeldBatch,
        *,
        delivered: int,
        rejected: int,
        parts: Sequence[HeldBatch] = (),
        cause: str = PARTIALLY_REJECTED,
    ) -> bool:
        """
        Close a lease: its items were delivered, rejected, or live on in smaller batches.

        Args:
            held: The leased batch.
            delivered: Items that the receiver took.
            rejected: Items that it refused for good.
            parts: Batches that hold the remaining items.
            cause: What the receiver answered, where it refused the batch.

        Returns:
            False when the lease was given up meanwhile; then nothing happens.
        """
        with self._lock, self._section:
            key = id(held)
            if key not in self._leases:
                return False
            left = sum(part.batch.items for part in parts)
            assert delivered + rejected + left == held.batch.items
            growth = sum(part.memory_bytes for part in parts) - held.memory_bytes
            self._make_room(growth)
            if rejected and held.first_seq != FAR:
                # What was read from disk may have been offered before any flush.
                self._flushes.lose(0 if held.is_read else held.first_seq)
            if self._flushes and parts and held.first_seq == FAR_OURS:
                # Wherever they are stored, it is before the present end.
                self._flushes.went_to_disk(0, self.on_disk.ends())
            for part in parts:
                part.is_attempted = True
            books, by_cause = self._books, self._books.rejected_by_cause.get(cause, 0) + rejected
            books.charge(0, 0)
            self._queue.put_back(*parts)
            # From here on nothing is called: it is in flight, or settled in every respect.
            del self._leases[key]
            books.delivered += delivered
            books.rejected += rejected
            if rejected:
                books.rejected_by_cause[cause] = by_cause
            books.memory_items += left - held.batch.items
            books.memory_bytes += growth
            self._has_left_memory(held)
            self._check_flushes()
            return True

    @contextmanager
    def scratch(self, size: int) -> Iterator[None]:
        """Charge for working memory while the context lasts, making room for it where the strategy can."""
        is_charged = False
        try:
            with self._lock, self._section:
                self._make_room(size)
                self._books.charge(0, size)
                # From here on nothing is called.
                self._scratch_bytes += size
                is_charged = True
            yield
        finally:
            if is_charged:
                # Without a single call, which something could be raised in.
                with self._lock:
                    if not self._is_abandoned:
                        self._scratch_bytes -= size
                        self._books.memory_bytes -= size

    def begin_flush(
        self,
        deadline: float,
        *,
        is_content_with_safety: bool = False,
        until: Until = "delivered",
        is_for_all: bool = False,
    ) -> Flush:
        """Watch everything that was offered up to now until it has left (`Flush.wait`)."""
        with self._lock, self._section:
            flush = Flush(
                mark=self._books.offered,
                deadline=deadline,
                is_content_with_safety=is_content_with_safety,
                until=until,
                is_for_all=is_for_all,
            )
            flush.ends = self.on_disk.ends()
            self._flushes.add(flush)
            self._check_flushes()
            return flush

    def flush_mark(self) -> int:
        """Return the highest offer number that somebody waits for; 0 when nobody does."""
        with self._lock, self._section:
            return self._flushes.mark

    def end_flush(self, flush: Flush) -> None:
        """Stop watching: done, hopeless or out of time; what is not delivered may be safe all the same."""
        with self._lock, self._section:
            flush.is_safe = self._oldest_seq(is_safe_too=False) > flush.mark
            self._flushes.remove(flush)

    def give_up_flushes(self, not_before: float) -> None:
        """End every flush that no attempt can come in time for, or that asks no more than that everything is safe."""
        with self._lock, self._section:
            if self._flushes:
                self._flushes.give_up(not_before, self._oldest_seq(is_safe_too=False))

    @property
    def is_to_be_safe(self) -> bool:
        """Whether somebody waits for everything to be safe on disk. A look without the lock."""
        return self._flushes.are_for_safety

    def check_flushes(self) -> None:
        """End the flushes that have come true by what happened on disk."""
        with self._lock, self._section:
            self._check_flushes()

    def has_queued(self) -> bool:
        """Whether a sealed batch waits."""
        return len(self._queue) > 0

    def has_left(self, mark: int) -> bool:
        """Whether nothing with an offer number up to `mark` is held any more."""
        with self._lock, self._section:
            return self._oldest_seq() > mark

    def close(self) -> None:
        """Refuse offers from now on, counted."""
        with self._lock, self._section:
            self._is_closed = True
            self._set_limits()

    def abandon(self) -> int:
        """
        Give up everything that is held: what is on disk too counts as spooled, the rest is dropped for reason `shutdown`.

        Leases become void. Returns the items that are lost.
        """
        with self._lock, self._section:
            self._is_abandoned = True
            items: int = self._books.memory_items
            lost_bytes = self._books.memory_bytes
            while self._intake.take(Lane.NORMAL) or self._intake.take(Lane.CRITICAL):
                pass
            held_batches = [*self._queue, *self._leases.values()]
            while self._queue.evict(Lane.NORMAL) or self._queue.evict(Lane.CRITICAL):
                pass
            self._leases.clear()
            self._between = {Lane.NORMAL: 0, Lane.CRITICAL: 0}
            self._between_seq.clear()
            self._books.charge(-items, -self._books.memory_bytes)
            stored: int = self._reading + sum(held.batch.items for held in held_batches if held.is_stored)
            self._reading = 0
            self._books.spooled += stored
            lost = items - stored
            if lost:
                lost_bytes -= self._reading_bytes + self._scratch_bytes
                lost_bytes -= sum(held.memory_bytes for held in held_batches if held.is_stored)
                attempted = sum(held.batch.items for held in held_batches if held.is_attempted and not held.is_stored)
                self._books.drop(DropReason.SHUTDOWN, lost, lost_bytes, attempted=attempted)
            self._flushes.fail(has_lost=lost > 0)
            return lost

    def _reconcile(self) -> None:
        """
        Count anew what is held, after a signal handler of the application's has raised in the middle of a change.

        Whatever item it was about: if it is nowhere, it was never offered.
        """
        if self._is_abandoned:
            return
        self._forget_stale_limits()
        books, leased = self._books, self._leases.values()
        held_items = self._reading + sum(held.batch.items for held in leased)
        held_items += len(self._intake) + sum(self._between.values()) + self._queue.items
        books.memory_items = held_items
        books.memory_bytes = (
            self._intake.memory_bytes
            + self._between_bytes
            + self._queue.memory_bytes
            + sum(held.memory_bytes for held in leased)
            + self._reading_bytes
            + self._scratch_bytes
        )
        gone = books.delivered + books.rejected + sum(books.dropped.values())
        books.offered = gone + held_items + books.spooled - books.recovered

    def stats(self, breaker: BreakerState) -> SignalStats:
        """Return a consistent snapshot of the books."""
        with self._lock, self._section:
            in_flight = self._reading + sum(held.batch.items for held in self._leases.values())
            queued = len(self._intake) + sum(self._between.values()) + self._queue.items
            held_batches = [*self._queue, *self._leases.values()]
            stored = self._reading + sum(held.batch.items for held in held_batches if held.is_stored)
            return self._books.snapshot(
                queued=queued,
                in_flight=in_flight,
                stored=stored,
                max_size=self._room_items - self._extra_items,
                max_memory_bytes=self._max_bytes - self._extra_bytes,
                breaker=breaker,
            )

    def oldest_sealed(self) -> float:
        """Return when the oldest batch in memory was sealed, in seconds since the epoch; infinity when there is none."""
        with self._lock, self._section:
            oldest = (*self._queue.oldest(), *self._leases.values())
            return min((held.batch.created for held in oldest), default=FOREVER)

    def is_entered_here(self) -> bool:
        """Whether the calling thread is inside this buffer: true only in signal handlers and destructors."""
        return bool(self._lock._is_owned())  # stdlib-internal, but what `threading.Condition` itself relies on

    def _check_flushes(self) -> None:
        if not self._flushes:
            return
        oldest = self._oldest_seq()
        for flush in self._flushes:
            if oldest > flush.mark and not self._is_on_disk(flush):
                flush.finish()
            elif flush.until == "safe" and self._oldest_seq(is_safe_too=False) > flush.mark:
                flush.be_safe()

    def _is_on_disk(self, flush: Flush) -> bool:
        """Whether anything that a flush watches waits on disk alone, or may do so."""
        if self._is_abandoned:
            return False
        if flush.is_for_all and (self._reading or self.on_disk.has_available):
            return True
        return bool(self.spilled) or self.on_disk.holds_below(flush.ends)

    def _oldest_seq(self, *, is_safe_too: bool = True) -> float:
        """Return the lowest offer number that is still held; of all, or of what is not safe on disk; infinity for none."""
        heads = [lane[0][2] for lane in (self._intake.normal, self._intake.critical) if lane]
        heads += self._between_seq.values()
        for batches in (self._queue, self._leases.values()):
            heads += [held.first_seq for held in batches if is_safe_too or not held.is_safe]
        return min(heads, default=FOREVER)
