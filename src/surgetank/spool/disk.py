"""The disk of one process: the folder, the three signals' spools in it, and the dead letters.

Owns: all of these. Threads: any of ours. Invariants: a folder that is adopted is handed to all three signals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from surgetank.model import Clock, Signal
from surgetank.spool.dead_letters import DeadLetters
from surgetank.spool.encryption import Cipher
from surgetank.spool.filesystem import Filesystem
from surgetank.spool.folder import DEAD_LETTERS, NO_DESCRIPTORS, Estate, Folder, SegmentName
from surgetank.spool.segment import SLOTS
from surgetank.spool.settings import SpoolSettings
from surgetank.spool.spool import Spool

# Seconds between two looks for orphans, expired segments and a disk that can be written again …
_PERIOD: Final = 1.0
# … while orphans wait to be adopted, and some of those that were adopted before are delivered …
_ADOPT_PERIOD: Final = 0.1
# … and between two group syncs, where the loss of power is to cost no more than this.
_SYNC_PERIOD: Final = 0.1


class Disk:
    """
    One process's disk.

    Args:
        settings: Where, how much, how durable.
        filesystem: The way to the disk.
        clock: Time.
        slots: Records a segment; for tests.

    Raises:
        ConfigError: The encryption key is not usable.
    """

    def __init__(self, settings: SpoolSettings, filesystem: Filesystem, clock: Clock, *, slots: int = SLOTS) -> None:
        self.settings = settings
        self.folder = Folder(settings, filesystem, clock)
        cipher = Cipher(settings.key_text()) if settings.key_text is not None else None
        self.spools: Mapping[Signal, Spool] = {
            signal: Spool(signal, self.folder, cipher, slots=slots) for signal in Signal
        }
        self.dead_letters = DeadLetters(self.folder, cipher) if settings.dead_letter_bytes else None

    @property
    def period(self) -> float:
        """Seconds between two looks."""
        if self.settings.is_synced:
            return _SYNC_PERIOD
        return _ADOPT_PERIOD if self.folder.has_place else _PERIOD

    def has_others(self) -> bool:
        """Whether there is anybody else's folder, who may be dead; takes as long as listing a handful of names."""
        return any(map(self._has_others, (self.settings.path, *self.settings.formers)))

    def _has_others(self, path: str) -> bool:
        try:
            return any(name != DEAD_LETTERS for name in self.folder.filesystem.names(path))
        except OSError as error:
            # Without a descriptor nothing can be told, and the keeper tries again.
            return error.errno in NO_DESCRIPTORS

    def adopt_orphans(self) -> None:
        """Take over what dead processes have left."""
        with self.folder.saying, self.folder.lock:
            if self.folder.is_closed:
                return
            self.folder.adopt_orphans(self._take)
            self.folder.shrink()

    def _take(self, estate: Estate, names: list[SegmentName]) -> None:
        for spool in self.spools.values():
            spool.adopt(estate, names)

    def is_free(self, timeout: float) -> bool:
        """Whether nobody is busy with it, or in at most `timeout` seconds nobody is any more."""
        return self.folder.is_free(timeout)

    def close(self) -> None:
        """Let go of the folder; what is left can be adopted at once."""
        with self.folder.saying, self.folder.lock:
            for spool in self.spools.values():
                spool.close()
            self.folder.close()

    def before_fork(self) -> None:
        """Come to a state that can be copied."""
        self.folder.before_fork()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self.folder.after_fork_in_parent()

    def after_fork_in_child(self, *, is_closed: bool) -> None:
        """Start anew, with nothing of the parent's."""
        for spool in self.spools.values():
            spool.after_fork_in_child()
        self.folder.after_fork_in_child()
        self.folder.is_closed = is_closed
