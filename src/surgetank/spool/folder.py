"""The spool's folder, which several processes of one user share: who owns what, what is orphaned, how much may be used.

Owns: this process's own folder and its lock, the orphans that it has adopted, the running total of bytes, and
whether the disk can be written at the moment.
Threads: any of ours; one lock for everything on disk, held over file I/O. No thread of the application ever takes it.
Invariants: only the holder of a folder's lock changes anything in it; a folder is taken over by one process at
a time, and only when the kernel says that its owner is dead; a forked child holds nothing of its parent's.

    spool/                            0700
    ├── owner-4711-5f3a…/             a living process, or one that nobody has found dead yet
    │   ├── lock                      held for as long as its owner lives
    │   └── spans-normal-0000000001.segment
    ├── orphan-4242-09c1…/            adopted, or to be adopted again
    └── dead-letters/
"""

from __future__ import annotations

import errno
import logging
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Final, Protocol

from surgetank import threads
from surgetank.lines import say
from surgetank.model import Clock, Lane, Signal
from surgetank.spool.filesystem import File, Filesystem
from surgetank.spool.settings import OUR_NAMES, PRIVATE_PREFIX, SpoolSettings

_logger: Final = logging.getLogger("surgetank.spool")

LOCK_NAME: Final = "lock"
SEGMENT_SUFFIX: Final = ".segment"
OWNER_PREFIX: Final = "owner-"
ORPHAN_PREFIX: Final = "orphan-"
_NEW_PREFIX: Final = ".new-"
DEAD_LETTERS: Final = "dead-letters"

# How long a fork waits for a write or a sync to end (seconds).
FORK_WAIT_MAX: Final = 0.2
# How long (seconds) a folder may be in the making; a maker takes a millisecond, unless it is stopped in the middle.
STALE_AFTER: Final = 60.0
# How long (seconds) nothing is written after the disk has said no, nor looked for when there was no descriptor for it.
RETRY_INTERVAL: Final = 5.0
# What a dead owner left and could not be read is tried again after this long (seconds).
ADOPT_AGAIN: Final = 60.0
# So many orphans are adopted at a time: each costs a descriptor, for its lock, and an application has 1,024 in all by default.
# The others wait until one of these is delivered.
ORPHANS_MAX: Final = 32
# There is none to be had, in this process or on this machine: for the moment, and it says nothing about any file.
NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


@dataclass(frozen=True, slots=True)
class SegmentName:
    """What a segment's name says."""

    signal: Signal
    lane: Lane
    number: int

    def __str__(self) -> str:
        return f"{self.signal.value}-{self.lane.value}-{self.number:010d}{SEGMENT_SUFFIX}"

    @classmethod
    def parse(cls, name: str) -> SegmentName | None:
        """Return what a name says; None for the name of anything else."""
        parts = name.removesuffix(SEGMENT_SUFFIX).split("-")
        if not name.endswith(SEGMENT_SUFFIX) or len(parts) != 3 or not parts[2].isdigit():
            return None
        try:
            found = cls(Signal(parts[0]), Lane(parts[1]), int(parts[2]))
        except ValueError:
            return None
        # A number has one name, and room in a head.
        return found if str(found) == name and found.number < 2**64 else None


@dataclass(slots=True, eq=False)
class Estate:
    """A folder that this process holds the lock of: its own, or an orphan's."""

    path: str
    lock: File
    is_own: bool
    names: list[SegmentName] = field(default_factory=list)
    """What was in it when it was adopted, in order."""
    live: int = 0
    """Segments that are still there."""
    unread: list[SegmentName] = field(default_factory=list)
    """Of those, what the disk could not read when it was adopted."""
    read_again_at: float = 0.0
    """When those are tried again (monotonic seconds)."""
    was_unreadable: bool = False
    """Whether that was logged."""


class Member(Protocol):
    """One signal's spool, as the folder sees it."""

    def oldest(self, lane: Lane) -> float | None:
        """Return when its oldest segment with anything in it began (seconds since the epoch); None without one."""

    def evict_oldest(self, lane: Lane) -> bool:
        """Give up that segment; returns False when the disk does not let go of it, and nothing was given up."""

    def disown(self, estate: Estate) -> None:
        """Forget everything in a folder that is gone."""


class _Saying:
    """
    Logs what was noted under the folder's lock when that is free again: `with folder.saying, folder.lock:`.

    Two things and not one, because the lock must be taken and dropped by the `with` statement itself: something that is raised
    in a method of ours would leave it taken for ever.
    """

    __slots__ = ("_folder",)

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, *_: object) -> None:
        self._folder.say_lines()


class Folder:
    """
    The folder of one process's spools.

    Args:
        settings: Where, how much, how durable.
        filesystem: The way to the disk.
        clock: Time.
    """

    def __init__(self, settings: SpoolSettings, filesystem: Filesystem, clock: Clock) -> None:
        self.settings = settings
        self.filesystem = filesystem
        self.clock = clock
        self.path = settings.path
        self._members: list[Member] = []
        self.saying = _Saying(self)
        self._reset()

    def _reset(self) -> None:
        # Guards everything below, and everything in the members. Re-entrant.
        self.lock = threads.new_rlock()
        # Two threads may fork at the same time, and only one of them holds the lock.
        self._forking: set[int] = set()
        self._pid = os.getpid()
        self.used_bytes = 0
        """In all segments that we own or have adopted."""
        self.owners = 1
        """Living processes that share the folder, as far as is known."""
        self._own: Estate | None = None
        self._orphans: list[Estate] = []
        self._refused: dict[str, float] = {}
        """Orphans that could not be adopted, and when to try again (monotonic seconds)."""
        self._foreign: dict[str, int] = {}
        """The folders that living processes hold, their own and what they have adopted, and the bytes in each when last looked at."""
        self._waiting: dict[str, int] = {}
        """Orphans that nobody has adopted yet, and the bytes in each, which nobody changes."""
        self._look_again_at = float("-inf")
        self._formers = self.settings.formers
        self._fetch_again_at = float("-inf")
        self.is_starved = False
        """Whether there was no descriptor when one was last asked for, to read with."""
        self._stale: dict[str, float] = {}
        """Folders that are being made, and when they were first seen (monotonic seconds)."""
        self._down_until: float | None = None
        self._lines: deque[tuple[int, str]] = deque()
        self._has_hung = False
        self.is_closed = False

    def say_lines(self) -> None:
        """Log what was noted under the lock; not while it is held by us."""
        while self._lines and not self.lock._is_owned():
            try:
                level, line = self._lines.popleft()
            except IndexError:
                return  # Another thread of ours has just said the last one.
            say(_logger, level, line)

    def join(self, member: Member) -> None:
        """Add a signal."""
        self._members.append(member)

    def is_free(self, timeout: float) -> bool:
        """Whether nobody is busy with the disk, or in at most `timeout` seconds nobody is any more."""
        if not self.lock.acquire(timeout=max(0.0, timeout)):
            return False
        self.lock.release()
        return True

    def hangs(self) -> None:
        """Say, once, that somebody waits for the disk who cannot wait any longer; without the lock, which is what is waited for."""
        if not self._has_hung:
            self._has_hung = True
            line = "the spool at %s does not answer; what is not stored there by now is given up"
            say(_logger, logging.WARNING, line, self.path)

    def say(self, level: int, line: str) -> None:
        """Have a line logged when the lock is free."""
        self._lines.append((level, line))

    @property
    def waiting(self) -> int:
        """Orphans that wait to be adopted, because as many as are adopted at a time are. A look without the lock."""
        return len(self._waiting)

    @property
    def has_place(self) -> bool:
        """Whether an orphan waits that can be adopted now."""
        return len(self._orphans) < ORPHANS_MAX and not self._waiting.keys() <= self._refused.keys()

    @property
    def share_bytes(self) -> int:
        """What this process may use whatever the others do: its part of the whole limit, less its part of what nobody has adopted yet."""
        share = self.settings.max_bytes // self.owners
        return max(share // 2, share - sum(self._waiting.values()) // self.owners)

    @property
    def limit_bytes(self) -> int:
        """What this process may use at the moment: its share, and what nobody else uses. A look without the lock."""
        return max(self.share_bytes, self.settings.max_bytes - self._others_bytes())

    def _others_bytes(self) -> int:
        return sum(self._foreign.values()) + sum(self._waiting.values())

    @property
    def is_down(self) -> bool:
        """Whether the disk could not be written when it was last tried."""
        return self._down_until is not None

    def may_write(self) -> bool:
        """Whether it is worth trying to write."""
        if self.is_closed or os.getpid() != self._pid:
            return False
        return self._down_until is None or self.clock.monotonic() >= self._down_until

    def failed(self, error: OSError | str) -> None:
        """Note that the disk could not be written; one line per episode."""
        if self._down_until is None:
            reason = error if isinstance(error, str) else (error.strerror or type(error).__name__)
            self.say(
                logging.WARNING,
                f"the spool at {self.path} cannot be written ({reason}); nothing more is stored until it can",
            )
        self._down_until = self.clock.monotonic() + RETRY_INTERVAL

    def worked(self) -> None:
        """Note that the disk could be written; one line when it could not before."""
        if self._down_until is not None:
            self._down_until = None
            self.say(logging.WARNING, f"the spool at {self.path} can be written again")

    def may_read(self) -> bool:
        """Whether it is worth trying to open a file for reading."""
        return self.clock.monotonic() >= self._look_again_at

    def starved(self) -> None:
        """Note that there was no descriptor to read with: nothing is looked for, nor read, for a while. One line per episode."""
        if not self.is_starved:
            self.is_starved = True
            self.say(
                logging.WARNING,
                f"no file descriptor is left for the spool at {self.path}; what waits there is read once there is one",
            )
        self._look_again_at = self.clock.monotonic() + RETRY_INTERVAL

    def fed(self) -> None:
        """Note that there was a descriptor."""
        self.is_starved = False

    def make_room(self, size: int, lane: Lane) -> bool:
        """
        Give up the oldest segments until `size` more bytes may be written.

        Nothing is given up while the folder as a whole is under its limit, whoever uses it, nor while we use less than our
        share. Normal segments go first; critical ones only for a critical newcomer. Returns whether there is room.

        Raises:
            OSError: The volume's reserve is reached, or it cannot be asked how much is free.
        """
        victims = (Lane.NORMAL, Lane.CRITICAL) if lane is Lane.CRITICAL else (Lane.NORMAL,)
        while not self._may_use(self.used_bytes + size):
            if not self._evict_oldest(*victims):
                return False
        if self.filesystem.free_bytes(self._ensure_own().path) < size + self.settings.reserve_bytes:
            raise OSError(errno.ENOSPC, "the volume's reserve is reached")
        return True

    def shrink(self) -> None:
        """Give up the oldest segments while the folder exceeds its limit and we use more than our share."""
        while not self._may_use(self.used_bytes):
            if not self._evict_oldest(Lane.NORMAL, Lane.CRITICAL):
                return

    def _may_use(self, size: int) -> bool:
        if size <= self.share_bytes:
            return True
        # Looked at anew each time: what a sibling wrote, or delivered, a moment ago counts before anything is given up.
        self._foreign = {name: self._bytes_in(name) for name in self._foreign}
        if size > self.limit_bytes and self._waiting:
            self._waiting = {name: self._bytes_in(name) for name in self._waiting}
        return size <= self.limit_bytes

    def _bytes_in(self, name: str) -> int:
        """Return the bytes of the segments in a folder that others hold; as last known, where that cannot be asked."""
        path = os.path.join(self.path, name)
        try:
            names = self.filesystem.names(path)
        except (FileNotFoundError, NotADirectoryError):
            return 0  # Delivered and removed meanwhile, or renamed by an heir.
        except OSError:
            return self._foreign.get(name, self._waiting.get(name, 0))
        total = 0
        for each in names:
            if each.endswith(SEGMENT_SUFFIX):
                try:
                    total += self.filesystem.size_of(os.path.join(path, each))
                except OSError:
                    pass  # That one was delivered meanwhile; the others are still there.
        return total

    def _evict_oldest(self, *lanes: Lane) -> bool:
        """Give up the oldest segment of the first of these lanes that has one; returns whether that made any room."""
        for lane in lanes:
            began: list[tuple[float, Member]] = []
            for member in self._members:
                oldest = member.oldest(lane)
                if oldest is not None:
                    began.append((oldest, member))
            if began:
                before = self.used_bytes
                # On a disk that lets go of nothing, no other would make room either.
                return min(began, key=lambda pair: pair[0])[1].evict_oldest(lane) and self.used_bytes < before
        return False

    def place(self, name: SegmentName) -> tuple[str, Estate]:
        """
        Return the path for a segment of our own, making our folder if need be.

        Raises:
            OSError: It cannot be made.
        """
        estate = self._ensure_own()
        return os.path.join(estate.path, str(name)), estate

    def _ensure_own(self) -> Estate:
        if self._own is not None:
            return self._own
        filesystem = self.filesystem
        self._make_root()
        name = f"{OWNER_PREFIX}{self._pid}-{os.urandom(6).hex()}"
        # Under another name until it is locked, so that nobody takes it for an orphan's.
        making, path = os.path.join(self.path, _NEW_PREFIX + name), os.path.join(self.path, name)
        filesystem.make_folder(making)
        lock: File | None = None
        try:
            lock = filesystem.create(os.path.join(making, LOCK_NAME))
            is_ours = lock.try_lock()
            if is_ours:
                filesystem.rename(making, path)
            # Or we slept for so long that another process has removed our folder.
            is_ours = is_ours and lock.is_at(os.path.join(path, LOCK_NAME))
            if self.settings.is_synced:
                filesystem.sync_folder(self.path)
        except OSError:
            # There may be no locks here: what was begun goes, or another beginning would be left behind at each attempt.
            for beginning in (making, path):
                self._remove_folder(beginning)
            if lock is not None:
                lock.close()
            raise
        if not is_ours:
            lock.close()
            raise OSError(errno.EAGAIN, "another process has removed our folder while it was made")
        self._own = Estate(path, lock, is_own=True)
        return self._own

    def _make_root(self) -> None:
        """Make the folder that all share, with names that survive the loss of power if what is in it must. Raises OSError."""
        filesystem, path = self.filesystem, PurePath(self.path)
        if not self.settings.is_synced:
            self.make_private(self.path)
            return
        parents = [path.parent]
        for each in (path, *path.parents[:-1]):
            try:
                filesystem.names(str(each))
                break
            except FileNotFoundError:
                parents.append(each.parent)
        is_new = len(parents) > 1
        self.make_private(self.path)
        for parent in dict.fromkeys(parents):
            try:
                filesystem.sync_folder(str(parent))
            except OSError:
                # What was there before may be in a folder that we cannot open, and is safe but for the blink of an eye.
                if is_new:
                    raise

    def make_private(self, path: str) -> None:
        """
        Make a folder of the spool's that nobody else can enter.

        One that is ours and has become open is closed again, as long as nothing is in it but what is ours: Kubernetes gives a whole
        volume to its `fsGroup` each time that it is mounted.

        Raises:
            OSError: It cannot be made, or others can enter it.
        """
        for above in PurePath(path).parents:
            if above.name.startswith(PRIVATE_PREFIX):
                self._close(str(above))
        self._close(path)

    def _close(self, path: str) -> None:
        try:
            self.filesystem.make_folder(path)
        except PermissionError:
            # The others are inside it, or only ours by their names.
            ours = OUR_NAMES if path == self.path else ("",)
            has_others = not all(name.startswith(ours) for name in self.filesystem.names(path))
            if has_others or not self.filesystem.close_to_others(path):
                raise
            self.filesystem.make_folder(path)
            self.say(
                logging.WARNING, f"the spool at {path} was open to other users; it is closed to them again (mode 0700)"
            )

    def _check_estates(self) -> None:
        """Let go of folders that have been deleted under us; what was in them and not in memory is lost, and counted."""
        for estate in self._estates():
            if self._is_there(estate):
                continue
            for member in self._members:
                member.disown(estate)
            estate.lock.close()
            if estate.is_own:
                self._own = None
                self.say(
                    logging.WARNING,
                    f"the spool at {estate.path} was deleted; what was only there is lost, and a new one is begun",
                )
            else:
                self._orphans.remove(estate)
                self.say(logging.WARNING, f"{estate.path} was deleted; what was only there is lost")

    def _is_there(self, estate: Estate) -> bool:
        """Whether a folder is still ours; also when that cannot be told."""
        place = os.path.join(estate.path, LOCK_NAME)
        try:
            if estate.lock.is_lost():
                self._lock_again(estate, place)
            return estate.lock.is_at(place) or self._put_back_lock(estate, place)
        except OSError:
            # As when a folder above it has been closed to us: it may well be there.
            return True

    def _put_back_lock(self, estate: Estate, place: str) -> bool:
        """
        Make a lock in place of one that was deleted alone, as by those who clear away old files.

        Returns whether the folder is ours again; not when it is gone, or another process has made a lock before us. Raises OSError.
        """
        try:
            names = self.filesystem.names(estate.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        if LOCK_NAME in names or not any(name.endswith(SEGMENT_SUFFIX) for name in names):
            return False
        lock = self._new_lock(place)
        if lock is None:
            return False
        estate.lock.close()
        estate.lock = lock
        return True

    def _lock_again(self, estate: Estate, place: str) -> None:
        """Take a lock of ours again, of which the application has closed the descriptor; unless another process was quicker. Raises OSError."""
        try:
            lock = self.filesystem.open(place)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if lock.try_lock():
                estate.lock = lock
                return
        except OSError:
            lock.close()
            raise
        lock.close()

    def adopt_orphans(self, take: Callable[[Estate, list[SegmentName]], None]) -> None:
        """
        Take over the folders of owners that have died, at most `ORPHANS_MAX` at a time, and count those that live.

        Args:
            take: Called with each folder and what is in it, and again with what could not be read the first time.
        """
        now = self.clock.monotonic()
        if not self.may_read():
            return
        self._check_estates()
        self._read_again(take, now)
        self._fetch(now)
        try:
            names = self.filesystem.names(self.path)
            known = {PurePath(estate.path).name for estate in self._estates()}
            self._look_at([name for name in sorted(names) if name not in known], take, now)
        except OSError as error:
            # Nobody has made the folder yet, or we may not read it: nothing to adopt. Without a descriptor, nothing can be
            # told of anybody, and what the application has left is not ours to take.
            if error.errno in NO_DESCRIPTORS:
                self.starved()
        else:
            if self.may_read():
                self.fed()

    def _fetch(self, now: float) -> None:
        """Bring here what dead processes of an earlier version have left under the folder's former name."""
        if not self._formers or now < self._fetch_again_at:
            return
        self._fetch_again_at = now + STALE_AFTER
        for former in self._formers:
            try:
                names = self.filesystem.names(former)
            except OSError:
                continue  # There is none, which is the usual thing.
            for name in names:
                if name.startswith((OWNER_PREFIX, ORPHAN_PREFIX)):
                    self._bring(os.path.join(former, name))
            try:
                self.filesystem.remove_folder(former)
            except OSError:
                pass  # Somebody lives there, or has left dead letters.

    def _bring(self, path: str) -> None:
        name = PurePath(path).name
        orphan = os.path.join(self.path, ORPHAN_PREFIX + name.removeprefix(OWNER_PREFIX).removeprefix(ORPHAN_PREFIX))
        try:
            lock = self._lock_of(path)
            if lock is None:
                return
            try:
                self._make_root()
                self.filesystem.rename(path, orphan)
            finally:
                lock.close()
            if self.settings.is_synced:
                self.filesystem.sync_folder(self.path)
        except OSError:
            pass  # It is tried again.

    def _look_at(self, names: list[str], take: Callable[[Estate, list[SegmentName]], None], now: float) -> None:
        waiting: dict[str, int] = {}
        foreign: list[str] = []
        for name in names:
            if name.startswith(_NEW_PREFIX):
                self._sweep(name)
            elif name in self._refused and now < self._refused[name]:
                waiting[name] = self._bytes_of(name)
            elif name.startswith((OWNER_PREFIX, ORPHAN_PREFIX)):
                if (held := self._adopt(name, take)) is True:
                    foreign.append(name)
                elif held is None:
                    waiting[name] = self._bytes_of(name)
        self._foreign, self._waiting = {name: self._bytes_in(name) for name in foreign}, waiting
        self.owners = 1 + sum(name.startswith(OWNER_PREFIX) for name in foreign)

    def _bytes_of(self, name: str) -> int:
        # Of what nobody holds, nobody changes anything.
        return self._waiting.get(name) or self._bytes_in(name)

    def _read_again(self, take: Callable[[Estate, list[SegmentName]], None], now: float) -> None:
        for estate in list(self._orphans):
            if estate.unread and now >= estate.read_again_at:
                names, estate.unread = estate.unread, []
                take(estate, names)
                self.leave(estate)

    def could_not_read(self, estate: Estate, name: SegmentName, error: OSError) -> bool:
        """Have a segment of an orphan tried again later; returns whether that is news."""
        estate.unread.append(name)
        if error.errno in NO_DESCRIPTORS:
            self.starved()
            estate.read_again_at = self._look_again_at
            return False
        is_news = not estate.was_unreadable
        estate.was_unreadable = True
        estate.read_again_at = self.clock.monotonic() + ADOPT_AGAIN
        return is_news

    def _adopt(self, name: str, take: Callable[[Estate, list[SegmentName]], None]) -> bool | None:
        """
        Adopt a folder.

        Returns:
            True when a living process holds it, None when it has to wait, else False.

        Raises:
            OSError: There is no descriptor.
        """
        path = os.path.join(self.path, name)
        try:
            lock = self._lock_of(path)
            if lock is None:
                return not self._is_gone(path)
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                raise
            # Another user's, or there are no locks: as long as it cannot be told, its owner lives.
            return True
        if len(self._orphans) >= ORPHANS_MAX:
            lock.close()
            return None
        try:
            orphan = path
            if name.startswith(OWNER_PREFIX):
                # So that everybody can tell living owners from what they have left.
                orphan = os.path.join(self.path, ORPHAN_PREFIX + name.removeprefix(OWNER_PREFIX))
                self.filesystem.rename(path, orphan)
            found = [SegmentName.parse(each) for each in self.filesystem.names(orphan)]
        except OSError as error:
            lock.close()
            if error.errno in NO_DESCRIPTORS:
                raise
            if name not in self._refused:
                self.say(
                    logging.WARNING,
                    f"the spool of a dead process at {path} cannot be adopted ({error.strerror}); it is tried again",
                )
            self._refused[name] = self.clock.monotonic() + ADOPT_AGAIN
            return False
        self._refused.pop(name, None)
        segments = sorted(
            (each for each in found if each), key=lambda each: (each.signal.value, each.lane.value, each.number)
        )
        estate = Estate(orphan, lock, is_own=False, names=segments, live=len(segments))
        self._orphans.append(estate)
        take(estate, segments)
        self.leave(estate)
        return False

    def _is_gone(self, path: str) -> bool:
        # Removed just now, or renamed by another heir, or no folder at all: nobody lives there.
        try:
            self.filesystem.names(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                raise
        return False

    def _lock_of(self, path: str) -> File | None:
        """
        Return a dead owner's lock, taken; None when its owner lives, or somebody else is just taking over.

        Raises:
            OSError: It cannot be told.
        """
        place = os.path.join(path, LOCK_NAME)
        try:
            lock = self.filesystem.open(place)
        except NotADirectoryError:
            return None
        except FileNotFoundError:
            try:
                # An heir that died between its last two steps leaves an empty folder.
                self.filesystem.remove_folder(path)
            except FileNotFoundError:
                return None
            except OSError:
                return self._new_lock(place)
            return None
        try:
            if lock.try_lock() and lock.is_at(place):
                return lock
        except OSError:
            lock.close()
            raise
        lock.close()
        return None

    def _new_lock(self, place: str) -> File | None:
        try:
            lock = self.filesystem.create(place)
        except (FileNotFoundError, FileExistsError, NotADirectoryError):
            return None
        try:
            if lock.try_lock():
                return lock
        except OSError:
            lock.close()
            raise
        lock.close()
        return None

    def _sweep(self, name: str) -> None:
        """Remove the beginnings of a folder whose maker has died: those that are still there after a minute."""
        now = self.clock.monotonic()
        if now < self._stale.setdefault(name, now) + STALE_AFTER:
            return
        path = os.path.join(self.path, name)
        try:
            lock = self._lock_of(path)
        except OSError as error:
            if error.errno in NO_DESCRIPTORS:
                raise
            return
        if lock is not None:
            self._remove(Estate(path, lock, is_own=False))

    def leave(self, estate: Estate) -> None:
        """Remove an orphan's folder when nothing is left in it."""
        if estate.is_own or estate.live > 0:
            return
        if estate in self._orphans:
            self._orphans.remove(estate)
        self._remove(estate)

    def _remove(self, estate: Estate) -> None:
        # Whoever opens the lock between the two steps finds that its path names nothing.
        self._remove_folder(estate.path)
        estate.lock.close()

    def _remove_folder(self, path: str) -> None:
        try:
            self.filesystem.unlink(os.path.join(path, LOCK_NAME))
        except OSError:
            pass  # It is not there, or the disk says no.
        try:
            self.filesystem.remove_folder(path)
        except OSError:
            pass  # Something is left in it that is not ours to remove.

    def close(self) -> None:
        """Let go of everything, at the end of the process; what is left can be adopted at once."""
        self.is_closed = True
        for estate in self._estates():
            if estate.live <= 0:
                self._remove(estate)
            estate.lock.close()
        self._own = None
        self._orphans.clear()

    def before_fork(self) -> None:
        """Let what is going on end, so that the child does not inherit a lock that nobody else knows it holds; not for long."""
        if self.lock.acquire(timeout=FORK_WAIT_MAX):
            self._forking.add(threads.get_ident())

    def after_fork_in_parent(self) -> None:
        """Go on."""
        if threads.get_ident() in self._forking:
            self._forking.discard(threads.get_ident())
            self.lock.release()

    def after_fork_in_child(self) -> None:
        """Start anew: the parent's folders stay the parent's, whatever becomes of us."""
        for estate in self._estates():
            estate.lock.forget()
        self._reset()

    def _estates(self) -> list[Estate]:
        return [*([self._own] if self._own else []), *self._orphans]
