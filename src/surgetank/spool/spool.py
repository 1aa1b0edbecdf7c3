"""One signal's batches on disk: append, lease, ack, release, adopt, expire, give up.

Owns: the segments of one signal, our own and those adopted; what was found and what was lost since last asked.
Threads: any of ours; the folder's lock guards everything, over file I/O too.
Invariants: a record is in one of five states (held in memory, leased, available, done, gone); segments of one
owner and lane are removed in the order of their numbers, so that a missing number is a loss and not a success.

    append ──▶ held ──── ack ────▶ done            held: the batch is in memory too and leased from there
                │ spilled            ▲
                ▼                    │
    adopt ─▶ available ─ lease ─▶ leased ── release ─▶ available
                │
                └─ expired, over the limit, damaged ─▶ gone, counted
"""

from __future__ import annotations

import logging
from bisect import insort
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from surgetank.errors import SpoolKeyError
from surgetank.model import FAR, FAR_OURS, FOREVER, Batch, DropReason, HeldBatch, Lane, Signal, StoredRecord
from surgetank.spool.encryption import Cipher
from surgetank.spool.folder import NO_DESCRIPTORS, Estate, Folder, SegmentName
from surgetank.spool.record import DamageError, Head, RecordHeader, VersionError, is_plausible
from surgetank.spool.segment import SLOTS, Record, Segment

# An open segment is sealed at this age (seconds), so that age limits have something to hold on to.
SEGMENT_MAX_AGE: Final = 600.0
# The system's clock has been set when it goes more than this (seconds) before or behind the monotonic one.
CLOCK_TOLERANCE: Final = 60.0
# A segment that the disk could not read is tried again after this long (seconds).
READ_AGAIN: Final = 60.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What happened on disk since last asked, in items that are not held in memory."""

    recovered: int
    """Found in the segments of dead owners, damaged ones included."""
    lost: dict[DropReason, int]
    """Given up, by reason."""
    lost_bytes: dict[DropReason, int]
    """The bytes of those on disk, as far as they are known: not of what is damaged or missing."""
    has_lost_ours: bool = False
    """Whether any of those had been offered to this process."""


@dataclass(slots=True, eq=False)
class Remainder:
    """What stands for the record of a part that could not be stored: the whole stays on disk until no part needs it."""

    whole: Record
    parts: int

    @property
    def is_deleted(self) -> bool:
        """False: the whole stays."""
        return False

    @property
    def is_durable(self) -> bool:
        """Not the part: only the whole is."""
        return False

    @property
    def is_done(self) -> bool:
        """True: memory cannot do without the part."""
        return True


class Spool:
    """
    One signal's spool.

    Args:
        signal: Whose batches these are.
        folder: Where they are; shared with the other signals.
        cipher: Encrypts and decrypts; None leaves payloads as they are.
        slots: Records a segment; for tests.
    """

    def __init__(self, signal: Signal, folder: Folder, cipher: Cipher | None = None, *, slots: int = SLOTS) -> None:
        self.signal = signal
        self._folder = folder
        self._cipher = cipher
        self._slots = slots
        self._reset()
        folder.join(self)

    def _reset(self) -> None:
        self._open: dict[Lane, Segment] = {}
        self._next: dict[Lane, tuple[int, int]] = {}
        """The number and the first sequence of the next segment of our own."""
        self._line: dict[Lane, list[Segment]] = {Lane.CRITICAL: [], Lane.NORMAL: []}
        """All segments, the oldest first."""
        self._streams: dict[tuple[int, Lane], deque[Segment]] = {}
        """Segments by owner and lane, in the order of their numbers."""
        self._homes: dict[Segment, Estate] = {}
        self._doubtful: list[Segment] = []
        """Segments of our own that a sync has failed for, until what was not synced is elsewhere."""
        self._unreadable: dict[Segment, float] = {}
        """Segments that the disk could not read, and when to try again (monotonic seconds)."""
        self._recovered = 0
        self._lost: dict[DropReason, int] = {}
        self._is_given_up = False
        self._lost_bytes: dict[DropReason, int] = {}
        self._has_lost_ours = False
        self._offset = self._folder.clock.now() - self._folder.clock.monotonic()
        """The system's clock less the monotonic one, when what is stored was last dated (seconds)."""

    def append(self, batch: Batch) -> Record | None:
        """
        Store a batch that is also held in memory.

        Returns:
            Its record, or None when it cannot be stored now: it is in memory only.
        """
        folder = self._folder
        with folder.saying, folder.lock:
            if self._was_given_up() or not folder.may_write():
                return None
            try:
                segment = self._segment_for(batch.lane, len(batch.body))
                if segment is None:
                    return None
                record = self._write(segment, batch, is_held=True)
            except OSError as error:
                folder.failed(error)
                return None
            try:
                if self._was_given_up():
                    # Meanwhile, and the batch is counted as lost.
                    self._done(record)
                    return None
                folder.worked()
            except BaseException:
                # Whoever asked does not know of it, and it must not be sent twice.
                self._done(record)
                raise
            return record

    def _write(self, segment: Segment, batch: Batch, *, is_held: bool = False) -> Record:
        payload, key_id = (batch.body, "") if self._cipher is None else self._cipher.encrypt(batch)
        is_durable = not self._folder.settings.is_synced
        record = segment.append(batch, payload, key_id, is_durable=is_durable, is_held=is_held)
        self._folder.used_bytes += record.size
        return record

    def _segment_for(self, lane: Lane, size: int) -> Segment | None:
        """Return the segment to append to, or None when the limits leave no room. Raises OSError."""
        folder, settings = self._folder, self._folder.settings
        segment = self._open.get(lane)
        if segment is not None and (
            segment.is_full
            or segment.size + size > settings.segment_bytes
            # By whichever clock: one stands still while the machine sleeps, the other may be set back.
            or folder.clock.now() - segment.head.created > SEGMENT_MAX_AGE
            or segment.age(folder.clock.monotonic()) > SEGMENT_MAX_AGE
        ):
            self._roll(lane)
            segment = None
        # A record's frame, and a new segment's head and acks, are at most this much.
        if not folder.make_room(size + 16 * 1024, lane):
            return None
        # Making room may have taken the open segment.
        return self._open.get(lane) or self._begin(lane)

    def _begin(self, lane: Lane) -> Segment:
        folder = self._folder
        number, sequence = self._next.get(lane, (1, 1))
        path, estate = folder.place(SegmentName(self.signal, lane, number))
        # Whatever comes of it: a file that cannot be made whole may not be removable either.
        self._next[lane] = (number + 1, sequence)
        head = Head(
            signal=self.signal,
            lane=lane,
            slots=self._slots,
            number=number,
            base=sequence,
            floor=sequence,
            created=folder.clock.now(),
        )
        segment = Segment.create(folder.filesystem, path, head)
        if folder.settings.is_synced:
            try:
                folder.filesystem.sync_folder(estate.path)
            except OSError:
                # Nothing can be durable in a file whose name is not.
                segment.remove()
                raise
        segment.born_at = folder.clock.monotonic()
        folder.used_bytes += segment.size
        estate.live += 1
        self._open[lane] = segment
        self._enlist(segment, estate)
        return segment

    def _roll(self, lane: Lane) -> None:
        """Seal the open segment; the next append begins another."""
        segment = self._open.pop(lane)
        self._next[lane] = (segment.head.number + 1, segment.end)
        try:
            if self._folder.settings.is_synced:
                segment.sync()
            segment.seal()
        except OSError as error:
            # Sealing only helps whoever may adopt it; what was not synced is not durable and not said to be.
            self._could_not_write(segment, error)
            if segment.is_doubtful:
                self._doubtful.append(segment)
        self._settle(segment)
        segment.unload()
        # What is in memory pins its segment, and memory may hold batches of hundreds: no descriptor for each.
        segment.close()

    def _enlist(self, segment: Segment, estate: Estate) -> None:
        lane = segment.head.lane
        insort(self._line[lane], segment, key=_age_key)
        # Nearly always the last; not what an heir could only read later.
        insort(self._streams.setdefault((id(estate), lane), deque()), segment, key=_number)
        self._homes[segment] = estate

    def lease(self, now: float, has_room: Callable[[int, int], bool]) -> HeldBatch | None:
        """
        Read the oldest batch that waits on disk alone, critical ones first; it is in flight until `ack` or `release`.

        Args:
            now: Monotonic seconds: batches that were set aside until later are passed over.
            has_room: Asked whether a batch of so many items and bytes may be read into memory.
        """
        with self._folder.saying, self._folder.lock:
            if self._is_given_up or self._folder.is_closed or not self._folder.may_read():
                return None
            for lane in (Lane.CRITICAL, Lane.NORMAL):
                for segment in list(self._line[lane]):
                    for record in self._available(segment, now):
                        if not has_room(record.items, record.size):
                            return None
                        held = self._take(record)
                        if held is not None:
                            return held
                        if segment.is_locked or segment not in self._homes:
                            break
                    if not self._folder.may_read():
                        return None
                    segment.unload()
        return None

    def _available(self, segment: Segment, now: float) -> Iterator[Record]:
        if segment.is_locked or segment.available_items <= 0:
            return
        try:
            lost, again = segment.load()
            self._recovered += again
            self._lose(DropReason.DAMAGED, lost, is_ours=segment.is_ours)
        except VersionError as error:
            self._lock_up(segment, str(error))
            return
        except OSError as error:
            self._could_not_read(segment, error)
            return
        if segment.is_empty:
            self._settle(segment)
            return
        for record in list(segment.records or ()):
            if record.is_available and (record.held is None or record.held.due_at <= now):
                yield record

    def _take(self, record: Record) -> HeldBatch | None:
        segment = record.segment
        try:
            header, payload = segment.read(record)
            body = self._decrypted(header, payload)
        except SpoolKeyError as error:
            self._lock_up(segment, str(error))
            return None
        except VersionError as error:
            self._lock_up(segment, str(error))
            return None
        except DamageError:
            self._give_up(record, DropReason.DAMAGED)
            return None
        except OSError as error:
            self._could_not_read(segment, error)
            return None
        self._folder.fed()
        batch = header.batch(body)
        held = record.held or HeldBatch(batch=batch, first_seq=FAR)
        segment.pin(record)
        held.batch = batch
        held.first_seq = FAR_OURS if segment.is_ours else FAR
        held.record = record
        return held

    def _could_not_read(self, segment: Segment, error: OSError) -> None:
        """Judge an error of a segment's: gone for good, nothing to read it with for the moment, or unreadable for a while."""
        segment.close()
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            self._mourn(segment)
        elif error.errno in NO_DESCRIPTORS:
            self._folder.starved()
        else:
            # The disk may be able to read it another time; nothing is said of writing.
            self._lock_up(segment, f"cannot be read ({error.strerror or error})")
            self._unreadable[segment] = self._folder.clock.monotonic() + READ_AGAIN

    def _could_not_write(self, segment: Segment, error: OSError) -> None:
        """Judge an error of a segment's: gone for good, or nothing can be written for a while."""
        if isinstance(error, FileNotFoundError | NotADirectoryError) and segment in self._homes:
            self._mourn(segment)
        else:
            self._folder.failed(error)

    def _mourn(self, segment: Segment) -> None:
        """Count what was in a segment that somebody has deleted, and let go of it."""
        estate, lane = self._homes[segment], segment.head.lane
        stream = self._streams[id(estate), lane]
        place = stream.index(segment)
        if 0 < place < len(stream) - 1:
            # It has been counted, and whoever adopts what is left shall not count it again.
            self._extend_back(stream[place + 1], segment.head.base)
        self._folder.say(logging.WARNING, f"{segment.path} was deleted; what was only there is lost")
        self._forget(segment)
        if self._open.get(lane) is segment:
            self._next[lane] = (segment.head.number + 1, self._open.pop(lane).end)
        self._folder.leave(estate)

    def _forget(self, segment: Segment) -> None:
        """Let go of a segment that is not there any more: what was only there is lost."""
        estate, lane = self._homes.pop(segment), segment.head.lane
        self._lose(DropReason.DAMAGED, segment.available_items, is_ours=segment.is_ours)
        for record in segment.records or ():
            record.is_done = record.is_deleted = True
        segment.records, segment.pending_items, segment.pinned_items = [], 0, 0
        segment.close()
        self._line[lane].remove(segment)
        self._unreadable.pop(segment, None)
        stream = self._streams[id(estate), lane]
        stream.remove(segment)
        if not stream:
            del self._streams[id(estate), lane]
        self._folder.used_bytes -= segment.size
        estate.live -= 1

    def _extend_back(self, segment: Segment, sequence: int) -> None:
        try:
            segment.extend_back(sequence)
        except OSError as error:
            self._could_not_write(segment, error)
        self._rest(segment)

    def _rest(self, segment: Segment) -> None:
        """Close a segment, unless it is the one that is appended to: a backlog may have thousands."""
        if self._open.get(segment.head.lane) is not segment:
            segment.close()

    def _decrypted(self, header: RecordHeader, payload: bytes) -> bytes:
        if not header.key_id:
            return payload
        if self._cipher is None:
            raise SpoolKeyError(f"is encrypted with key {header.key_id!r}, and no key is configured")
        return self._cipher.decrypt(header.batch(b""), header.key_id, payload, header.version)

    def _lock_up(self, segment: Segment, reason: str) -> None:
        segment.is_locked = True
        segment.locked_because = f"a segment {reason}"
        self._folder.say(logging.WARNING, f"{segment.path} {reason}; it stays where it is and is passed over")

    def ack(self, record: StoredRecord) -> None:
        """Note that a batch is done: delivered, rejected, or living on in others."""
        with self._folder.saying, self._folder.lock:
            if isinstance(record, Remainder):
                record.parts -= 1
                if record.parts == 0:
                    self._done(record.whole)
            else:
                assert isinstance(record, Record)
                self._done(record)

    def _done(self, record: Record) -> None:
        if record.is_done:
            return
        segment = record.segment
        if segment not in self._homes:
            # Our parent's, before a fork made us.
            record.is_done = True
            return
        if self._folder.is_closed:
            # Whoever has adopted it meanwhile is the only one to write to it: better twice than torn.
            segment.unpin(record)
            record.is_done = True
            segment.pending_items -= record.items
            return
        try:
            segment.ack(record)
        except OSError as error:
            self._could_not_write(segment, error)
        self._settle(segment)
        self._rest(segment)

    def release(self, record: StoredRecord, held: HeldBatch) -> bool:
        """
        Note that a batch that was held or in flight waits on disk alone again.

        Returns:
            False when its record is gone meanwhile, or it never had one of its own: it must be kept in memory.
        """
        with self._folder.saying, self._folder.lock:
            if not isinstance(record, Record) or record.is_done or record.segment not in self._homes:
                return False
            record.segment.unpin(record)
            self._rest(record.segment)
            if held.attempts or held.is_attempted:
                record.held = held
            return True

    def replace(self, record: StoredRecord, batches: list[Batch]) -> list[StoredRecord]:
        """
        Store the parts of a batch that was cut up, then note that the whole is done.

        Where the disk does not take a part, the whole remains until that part is done: twice is better than never.
        """
        if isinstance(record, Remainder):
            record.parts += len(batches) - 1
            return [record] * len(batches)
        assert isinstance(record, Record)
        with self._folder.saying, self._folder.lock:
            stored: list[Record | None] = [None] * len(batches)
            try:
                for place, batch in enumerate(batches):
                    stored[place] = self.append(batch)
                remainder = Remainder(record, stored.count(None))
                found: list[StoredRecord] = [remainder if part is None else part for part in stored]
            except BaseException:
                # The whole is still there, and the parts are nobody's.
                for part in stored:
                    if part is not None:
                        self._done(part)
                raise
            if not remainder.parts:
                self._done(record)
            return found

    def reclaim(self) -> None:
        """Have what is in flight wait on disk again: whoever leased it was broken off, and knows nothing of it."""
        with self._folder.saying, self._folder.lock:
            for segment in list(self._homes):
                for record in segment.records or ():
                    if record.is_leased:
                        segment.unpin(record)

    def settle(self) -> None:
        """Remove what is done and still there, because whoever did it was broken off."""
        with self._folder.saying, self._folder.lock:
            for segment in list(self._homes):
                if segment.size > segment.head.records_at:
                    self._settle(segment)

    def sync(self) -> None:
        """Have what was appended survive the loss of power; what a failed sync leaves in doubt is written again elsewhere."""
        folder = self._folder
        if not folder.settings.is_synced:
            return
        with folder.saying, folder.lock:
            if folder.is_closed:
                return
            # A failed sync has the disk left alone for a while, but not before what it left in doubt was tried elsewhere.
            may_write = folder.may_write()
            for lane, segment in list(self._open.items()):
                self._sync(lane, segment)
            if may_write:
                for segment in list(self._doubtful):
                    self._rewrite(segment.head.lane, segment)

    def _sync(self, lane: Lane, segment: Segment) -> None:
        try:
            segment.sync()
        except OSError as error:
            self._folder.failed(error)
            # After a failed sync the kernel calls the pages clean, so another sync of the same file
            # would succeed without having written them.
            self._open.pop(lane)
            self._next[lane] = (segment.head.number + 1, segment.end)
            self._doubtful.append(segment)
            segment.close()

    def _rewrite(self, lane: Lane, segment: Segment) -> None:
        """Write what a failed sync left in doubt into another segment, and sync that."""
        folder = self._folder
        try:
            if segment in self._homes and segment.unsynced:
                if lane in self._open:
                    self._roll(lane)
                target = self._begin(lane)
                for record in segment.unsynced:
                    header, payload = segment.read(record)
                    body = self._decrypted(header, payload)
                    copy = self._write(target, header.batch(body))
                    self._move(record, copy, segment, target)
                self._sync(lane, target)
            if segment in self._homes:
                segment.seal()
        except OSError as error:
            # Not durable, and not said to be; it is tried again.
            if segment in self._homes and segment.is_deleted():
                self._mourn(segment)
                self._doubtful.remove(segment)
            else:
                folder.failed(error)
                self._rest(segment)
            return
        except (ValueError, SpoolKeyError) as error:
            # What is in memory stays there until it is delivered.
            folder.failed(str(error))
        if segment in self._doubtful:
            self._doubtful.remove(segment)
        self._settle(segment)
        self._rest(segment)

    def _move(self, record: Record, copy: Record, source: Segment, target: Segment) -> None:
        is_held, is_leased = record.is_held, record.is_leased
        source.unpin(record)
        sequence = record.sequence
        source.hand_over(record)
        record.segment, record.offset, record.size, record.sequence = target, copy.offset, copy.size, copy.sequence
        target.adopt_record(copy, record)
        if is_held or is_leased:
            target.pin(record)
            record.is_held, record.is_leased = is_held, is_leased
        try:
            source.note_done(sequence, record.items)
        except OSError as error:
            self._folder.failed(error)

    def adopt(self, estate: Estate, names: list[SegmentName]) -> None:
        """Take over this signal's segments of a dead owner; called with the lock held."""
        expected: dict[Lane, tuple[int, int]] = {}
        headless: dict[Lane, list[str]] = {Lane.NORMAL: [], Lane.CRITICAL: []}
        for name in names:
            if name.signal is not self.signal:
                continue
            path = f"{estate.path}/{name}"
            try:
                segment, lost = Segment.adopt(self._folder.filesystem, path, name.signal, name.lane, name.number)
            except FileNotFoundError:
                # Deleted since the folder was listed: what is missing shows in the next one.
                estate.live -= 1
                continue
            except (VersionError, OSError) as error:
                # What is in it is not missing.
                expected.pop(name.lane, None)
                if isinstance(error, VersionError):
                    self._folder.say(logging.WARNING, f"{path} cannot be adopted ({error}); it stays where it is")
                elif self._folder.could_not_read(estate, name, error):
                    self._folder.say(logging.WARNING, f"{path} cannot be adopted ({error}); it is tried again")
                continue
            except DamageError:
                headless[name.lane].append(path)
                continue
            self._date(segment)
            self._folder.used_bytes += segment.size
            self._found(segment.pending_items, lost)
            self._note_missing(expected.get(name.lane), segment, is_lost=not headless[name.lane])
            while headless[name.lane]:
                self._bury(estate, headless[name.lane].pop())
            expected[name.lane] = (name.number + 1, segment.end)
            self._enlist(segment, estate)
            self._settle(segment)
            self._rest(segment)
        for path in [path for paths in headless.values() for path in paths]:
            self._bury(estate, path)

    def _date(self, segment: Segment) -> None:
        """Judge how old an adopted segment is; as new, where the clock that dated it, or our own, must have been wrong."""
        clock = self._folder.clock
        now, created = clock.now(), segment.head.created
        segment.adopted_at = clock.monotonic()
        if is_plausible(created, now):
            segment.age_then = max(0.0, now - created)
        elif created < now:
            # From now on it can be told, by whoever adopts it next, too.
            self._write_date(segment, now)

    def _write_date(self, segment: Segment, created: float) -> None:
        try:
            segment.date(created)
        except OSError as error:
            self._could_not_write(segment, error)
        self._rest(segment)

    def _bury(self, estate: Estate, path: str) -> None:
        """Remove a file with neither head nor record: its maker died while making it, or everything in it was done."""
        estate.live -= 1
        try:
            self._folder.filesystem.unlink(path)
        except OSError:
            pass

    def _note_missing(self, expected: tuple[int, int] | None, segment: Segment, *, is_lost: bool) -> None:
        if expected is None:
            return
        number, sequence = expected
        # One after the other they join without a gap; a segment whose head had to be guessed may have lost its beginning.
        if segment.head.number >= number and segment.head.base > sequence:
            missing = segment.head.base - sequence
            self._extend_back(segment, sequence)
            if not is_lost:
                return
            self._found(0, missing)
            self._folder.say(logging.WARNING, f"before {segment.path} there is a segment missing ({missing} items)")

    def _found(self, pending: int, lost: int) -> None:
        self._recovered += pending + lost
        self._lose(DropReason.DAMAGED, lost)

    def _lose(self, reason: DropReason, items: int, size: int = 0, *, is_ours: bool = False) -> None:
        if items:
            self._has_lost_ours |= is_ours
            self._lost[reason] = self._lost.get(reason, 0) + items
            self._lost_bytes[reason] = self._lost_bytes.get(reason, 0) + size

    def _give_up(self, record: Record, reason: DropReason) -> None:
        """Give up a record that waits on disk alone."""
        self._lose(reason, record.items, record.size, is_ours=record.segment.is_ours)
        self._done(record)

    def _settle(self, segment: Segment) -> None:
        """Empty or remove a segment in which everything is done."""
        if not segment.is_empty or segment not in self._homes:
            return
        lane = segment.head.lane
        try:
            if self._open.get(lane) is segment:
                self._empty(segment, self._folder.clock.now())
                return
            self._trim(self._streams[id(self._homes[segment]), lane])
            if segment in self._homes and segment.size > segment.head.records_at:
                self._empty(segment, segment.head.created)
                segment.seal()
                segment.close()
        except OSError as error:
            self._could_not_write(segment, error)

    def _empty(self, segment: Segment, created: float) -> None:
        before = segment.size
        segment.empty(created)
        if segment.born_at is not None:
            segment.born_at = self._folder.clock.monotonic()
        self._folder.used_bytes += segment.size - before

    def _trim(self, stream: deque[Segment]) -> None:
        """Remove the first segments of one owner and lane as long as everything in them is done."""
        try:
            while stream and stream[0].is_empty and self._open.get(stream[0].head.lane) is not stream[0]:
                self._remove(stream[0], stream)
        except OSError as error:
            # It is tried again when another one is done.
            self._folder.failed(error)

    def _remove(self, segment: Segment, stream: deque[Segment]) -> None:
        size = segment.size
        segment.remove()
        stream.popleft()
        self._folder.used_bytes -= size
        lane, estate = segment.head.lane, self._homes.pop(segment)
        self._line[lane].remove(segment)
        estate.live -= 1
        if not stream:
            del self._streams[id(estate), lane]
        self._folder.leave(estate)

    def oldest(self, lane: Lane) -> float | None:
        """See `folder.Member`."""
        return next((segment.head.created for segment in self._line[lane] if not segment.is_empty), None)

    def evict_oldest(self, lane: Lane) -> bool:
        """See `folder.Member`."""
        segment = next((segment for segment in self._line[lane] if not segment.is_empty), None)
        return segment is not None and self._discard(segment, DropReason.SPOOL_FULL)

    def expire(self, now: float) -> None:
        """Try again what could not be read; give up segments whose youngest record must be older than the age limit; `now` is in seconds since the epoch."""
        with self._folder.saying, self._folder.lock:
            if self._folder.is_closed:
                return
            for segment, again_at in list(self._unreadable.items()):
                if self._folder.clock.monotonic() >= again_at:
                    del self._unreadable[segment]
                    segment.is_locked = False
            self._keep_time(now)
            limit = self._folder.settings.max_age + SEGMENT_MAX_AGE
            monotonic = self._folder.clock.monotonic()
            for line in self._line.values():
                for segment in [each for each in line if each.age(monotonic) > limit and not each.is_empty]:
                    self._discard(segment, DropReason.EXPIRED)
            # What is written to a file without a name succeeds, and is lost.
            for segment in [each for each in self._open.values() if each.is_deleted()]:
                self._mourn(segment)

    def _keep_time(self, now: float) -> None:
        """
        Date everything anew when the system's clock has been set.

        Whoever adopts it goes by these dates. After the machine has slept this makes it younger than it is, which only keeps it longer.
        """
        monotonic = self._folder.clock.monotonic()
        offset = now - monotonic
        if abs(offset - self._offset) <= CLOCK_TOLERANCE:
            return  # Drift adds up until it is worth while.
        self._offset = offset
        for line in self._line.values():
            for segment in list(line):
                self._write_date(segment, now - segment.age(monotonic))
            line.sort(key=_age_key)

    def disown(self, estate: Estate) -> None:
        """Note that a folder of ours is gone, which somebody has deleted under us; called with the lock held."""
        for segment in [each for each, home in self._homes.items() if home is estate]:
            self._forget(segment)
        if estate.is_own:
            self._open.clear()
            self._next.clear()
        self._doubtful = [each for each in self._doubtful if each in self._homes]

    def _discard(self, segment: Segment, reason: DropReason) -> bool:
        """
        Give up everything in a segment; what is in memory too lives on there, without a record.

        Returns:
            False when the disk does not let go of it: nothing is given up that can still be delivered.
        """
        lane = segment.head.lane
        if self._open.get(lane) is segment:
            self._roll(lane)
        stream = self._streams[id(self._homes[segment]), lane]
        records, items = segment.records or [], segment.available_items
        size = segment.available_bytes
        try:
            if stream[0] is segment:
                self._remove(segment, stream)
            else:
                self._empty(segment, segment.head.created)
        except OSError as error:
            self._could_not_write(segment, error)
            self._rest(segment)
            return False
        self._lose(reason, items, size, is_ours=segment.is_ours)
        for record in records:
            record.is_done = True
        segment.records = []
        segment.pending_items = segment.pinned_items = 0
        if segment in self._homes:
            self._settle(segment)
            segment.unload()
            self._rest(segment)
        else:
            self._trim(stream)
        return True

    def changes(self) -> Changes:
        """Return what happened on disk since the last call."""
        with self._folder.saying, self._folder.lock:
            changes = Changes(self._recovered, self._lost, self._lost_bytes, self._has_lost_ours)
            self._recovered, self._lost, self._lost_bytes, self._has_lost_ours = 0, {}, {}, False
            return changes

    @property
    def is_down(self) -> bool:
        """Whether the disk could not be written when it was last tried."""
        return self._folder.is_down

    @property
    def has_available(self) -> bool:
        """Whether a batch waits on disk alone. A look without the lock: it may be out of date."""
        return any(
            segment.available_items > 0 and not segment.is_locked
            for line in self._line.values()
            for segment in list(line)
        )

    def ends(self) -> Mapping[Lane, int]:
        """Return the sequence after the last item that this process has stored, by lane. A look without the lock."""
        opened, later = dict(self._open), dict(self._next)
        return {lane: opened[lane].end if lane in opened else later.get(lane, (0, 0))[1] for lane in Lane}

    def holds_below(self, ends: Mapping[Lane, int]) -> bool:
        """Whether anything that this process stored before those ends is not done yet. A look without the lock."""
        return any(
            segment.is_ours and not segment.is_empty and segment.oldest_sequence() < ends[lane]
            for lane, line in self._line.items()
            for segment in list(line)
        )

    @property
    def stalled(self) -> str:
        """Why something that waits on disk alone is passed over; empty when nothing is. A look without the lock."""
        if self._folder.is_starved and self.has_available:
            return "no file descriptor is left to read it with"
        segments = [segment for line in self._line.values() for segment in list(line)]
        found = {segment.locked_because: segment.available_items for segment in segments if segment.is_locked}
        waiting = [(reason, items) for reason, items in found.items() if items > 0]
        return waiting[0][0] if waiting else ""

    @property
    def used_bytes(self) -> int:
        """What its files take on disk, in bytes. A look without the lock."""
        return sum(segment.size for line in self._line.values() for segment in list(line))

    def oldest_available(self) -> float:
        """
        Return when the oldest batch was sealed that waits on disk alone, in seconds since the epoch; infinity when none does.

        A look without the lock, so that whoever asks never waits for the disk.
        """
        segments = [segment for line in self._line.values() for segment in list(line)]
        return min((at for segment in segments if (at := segment.oldest_available()) is not None), default=FOREVER)

    def available_items(self) -> int:
        """Return the items that wait on disk alone."""
        with self._folder.saying, self._folder.lock:
            return sum(segment.available_items for line in self._line.values() for segment in line)

    def is_free(self, timeout: float) -> bool:
        """Whether nobody is busy with the disk, or in at most `timeout` seconds nobody is any more."""
        return self._folder.is_free(timeout)

    def give_up(self) -> None:
        """Take no more batches, nor return any, without waiting for whoever is busy; what is just being stored is taken back."""
        self._is_given_up = True
        self._folder.hangs()

    def _was_given_up(self) -> bool:
        # Asked, and not looked at: another thread says so at any moment.
        return self._is_given_up

    def close(self) -> None:
        """Seal what is open, so that whoever adopts it need not scan it; close the files."""
        with self._folder.saying, self._folder.lock:
            self._keep_time(self._folder.clock.now())
            for lane in list(self._open):
                self._roll(lane)
            for segment in list(self._homes):
                segment.close()

    def after_fork_in_child(self) -> None:
        """Forget the parent's segments."""
        for segment in self._homes:
            segment.forget()
        self._reset()


def _number(segment: Segment) -> int:
    return segment.head.number


def _age_key(segment: Segment) -> tuple[float, int]:
    return segment.head.created, segment.head.number
