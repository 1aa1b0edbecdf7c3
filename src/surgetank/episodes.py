"""Stretches of time in which something is wrong, outages and losses: when they began, who was told, when they are over.

Owns: `Losses` owns what was lost when it was last looked at. Threads: an `Episode` belongs to whoever guards it; `Losses` any.
Invariants: an episode is told at its beginning once, and at its end only if it was told at its beginning; the counts at its
end are exact. Log lines and health ask the same episodes, so that they never contradict each other.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from surgetank import threads
from surgetank.lines import say
from surgetank.model import FOREVER, Clock, DropReason, Signal, SignalStats

_logger: Final = logging.getLogger("surgetank")

LATELY: Final = 60.0
"""A loss is over when nothing more was lost for so many seconds."""
OUTAGE_TOLD_AFTER: Final = 3.0
"""An outage is told so many seconds after its first failure, unless it is certain, or over, before that."""

REMEDIES: Final[Mapping[DropReason, str]] = {
    DropReason.QUEUE_FULL: "raise SURGETANK_{signal}_MAX_SIZE, or give it a spool (SURGETANK_{signal}_PERSISTENCE_ENABLED=true)",
    DropReason.MEMORY_LIMIT: "raise SURGETANK_{signal}_MAX_MEMORY_MB, or the memory limit of the process if that runs short",
    DropReason.SAMPLED: "raise SURGETANK_{signal}_MAX_SIZE, or choose another SURGETANK_{signal}_DROP_STRATEGY",
    DropReason.TOO_LARGE: "raise SURGETANK_{signal}_MAX_MEMORY_MB, or make the items smaller",
    DropReason.UNENCODABLE: "no setting helps: find what makes items that are no OpenTelemetry values",
    DropReason.SHUTDOWN: "raise SURGETANK_SHUTDOWN_TIMEOUT, or give it a spool (SURGETANK_{signal}_PERSISTENCE_ENABLED=true)",
    DropReason.SPOOL_FULL: "raise SURGETANK_SPOOL_MAX_MB",
    DropReason.EXPIRED: "raise SURGETANK_SPOOL_MAX_AGE",
    DropReason.DAMAGED: "run `surgetank spool check`, or choose another disk with SURGETANK_SPOOL_DIR",
    DropReason.ALREADY_SHUTDOWN: "no setting helps: shut down after whatever still makes telemetry",
}
"""What to do about each kind of loss, with the setting that changes it where there is one."""
_Key: TypeAlias = tuple[Signal, str]
_UNACCOUNTED: Final = "unaccounted for, a defect of surgetank's"
_REFUSED: Final = "refused for good"


class Episode:
    """
    One stretch of time in which something is wrong.

    Args:
        now: When it began, in monotonic seconds.
        told_after: Seconds after its beginning from which people are told.
    """

    def __init__(self, now: float, *, told_after: float = 0.0) -> None:
        self.began_at = self.latest_at = now
        """When the latest sign of it came, in monotonic seconds."""
        self.is_told = False
        self._tell_at = now + told_after

    def go_on(self, now: float) -> None:
        """Note another sign of it."""
        self.latest_at = now

    def left_until_told(self, now: float) -> float:
        """Return the seconds until people are to be told of its beginning: 0 for now, infinity when they were."""
        return FOREVER if self.is_told else max(0.0, self._tell_at - now)

    @property
    def seconds(self) -> float:
        """From its beginning to the latest sign of it."""
        return self.latest_at - self.began_at

    def is_quiet(self, now: float) -> bool:
        """Whether there was no sign of it lately."""
        return now - self.latest_at >= LATELY


@dataclass(slots=True)
class _Loss:
    episode: Episode
    before: int
    """What was lost for this reason before it began."""
    items: int
    """What was lost for this reason in all."""
    is_ended: bool = False
    """Whether its end was told, at the end of the tank."""

    @property
    def lost(self) -> int:
        """Items lost since it began."""
        return self.items - self.before


class Losses:
    """
    The losses of one tank, by signal and reason.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """Start anew, as the books of a forked child do."""
        # Re-entrant, for signal handlers that ask for the health.
        self._lock = threads.new_rlock()
        self._seen: dict[_Key, int] = {}
        self._on: dict[_Key, _Loss] = {}

    def observe(self, books: Mapping[Signal, SignalStats]) -> list[str]:
        """Compare the books with what they were when last looked at; return a sentence for each loss that is going on."""
        with self._lock:
            self._note(books)
            return [
                f"{signal.value}: {loss.items} lost so far, the latest within a minute: {reason}"
                for (signal, reason), loss in self._on.items()
            ]

    def tell(self, books: Mapping[Signal, SignalStats], *, is_final: bool = False) -> None:
        """
        Log which losses have begun and which are over since the last call; never on the application's threads, if that can be helped.

        Args:
            books: As of now.
            is_final: Whether nobody will ask later: what goes on ends now.
        """
        with self._lock:
            begun, over = self._news(books, is_final=is_final)
        for (signal, reason), items, seconds in over:
            end = "no longer losing %s: %d dropped in %.1f s (%s)"
            say(_logger, logging.WARNING, end, signal.value, items, seconds, reason)
        for (signal, reason), items in begun:
            line = "losing %s: %d dropped so far (%s); %s"
            say(_logger, logging.WARNING, line, signal.value, items, reason, _remedy(signal, reason))

    def _news(
        self, books: Mapping[Signal, SignalStats], *, is_final: bool
    ) -> tuple[list[tuple[_Key, int]], list[tuple[_Key, int, float]]]:
        over = [(key, loss) for key, loss in self._note(books) if loss.episode.is_told and not loss.is_ended]
        begun = []
        for key, loss in self._on.items():
            if is_final and loss.episode.is_told and not loss.is_ended:
                loss.is_ended = True
                over.append((key, loss))
            elif not loss.episode.is_told and not key[1].startswith(_REFUSED):
                # Of what is refused the endpoint speaks, which knows the receiver's words.
                loss.episode.is_told = True
                begun.append((key, loss.lost))
        return begun, [(key, loss.lost, loss.episode.seconds) for key, loss in over]

    @property
    def is_on(self) -> bool:
        """Whether anything was lost lately, as of the last look."""
        return bool(self._on)

    def _note(self, books: Mapping[Signal, SignalStats]) -> list[tuple[_Key, _Loss]]:
        """Begin and continue episodes; end, and return, those that are over and have not been returned."""
        now = self._clock.monotonic()
        over = [(key, loss) for key, loss in self._on.items() if loss.episode.is_quiet(now)]
        for key, _ in over:
            del self._on[key]
        for signal, each in books.items():
            for reason, items in _losses(each):
                key = signal, reason
                before = self._seen.get(key, 0)
                if items <= before:
                    continue
                self._seen[key] = items
                loss = self._on.get(key)
                if loss is None:
                    self._on[key] = _Loss(Episode(now), before, items)
                else:
                    loss.items = items
                    loss.episode.go_on(now)
        return over


def _remedy(signal: Signal, reason: str) -> str:
    return "please report it" if reason == _UNACCOUNTED else REMEDIES[DropReason(reason)].format(signal=signal.name)


def _losses(books: SignalStats) -> Iterator[tuple[str, int]]:
    yield from books.dropped.items()
    for cause, items in books.rejected_by_cause.items():
        yield f"{_REFUSED} ({cause})", items
    if books.unaccounted:
        yield _UNACCOUNTED, abs(books.unaccounted)
