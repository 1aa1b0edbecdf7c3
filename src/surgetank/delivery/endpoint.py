"""One endpoint as several signals see it: shared evidence, and the two log lines of an outage.

Owns: the list of its members, and the outage that is going on.
Threads: any; a lock of its own, never held while a member is called or a line is logged.
Invariants: an outage is two lines at warning level, one within seconds of its first failure and one at its end, with the
counts since that failure; refusals for good are
one line in five minutes for each signal.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from surgetank import threads
from surgetank.delivery.outlet import Evidence
from surgetank.delivery.worker import Worker
from surgetank.episodes import OUTAGE_TOLD_AFTER, Episode
from surgetank.lines import say
from surgetank.model import FOREVER, BreakerState, Clock, Outcome, Signal, SignalStats, Verdict

_logger: Final = logging.getLogger("surgetank.delivery")


# What is refused for good is said once in so many seconds for each signal: an application may make nothing else.
REFUSAL_PERIOD: Final = 300.0


@dataclass(frozen=True, slots=True)
class Member:
    """One signal at this endpoint."""

    signal: Signal
    worker: Worker
    stats: Callable[[], SignalStats]
    has_left: Callable[[int], bool]
    """Whether everything up to an offer number has left."""


class Endpoint:
    """
    What the signals of one tank that share a host and port know together.

    Args:
        name: Scheme, host and port, for the log lines; never credentials.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self.name = name
        self._clock = clock
        self._members: dict[Worker, Member] = {}
        self._lock = threads.new_lock()
        self.on_news: Callable[[], None] = lambda: None
        """Called when an outage is to be told of in a while, by somebody who calls `tell`."""
        self.is_losing: Callable[[], bool] = lambda: False
        """Asks whether telemetry is being lost."""
        self._outage: Episode | None = None
        self._latest: tuple[Worker, Verdict] | None = None
        """The latest failure."""
        self._failing: set[Worker] = set()
        """Whose last attempt failed, until the outage is told of."""
        self._refusal_told_at: dict[Signal, float] = {}
        self._at_start: dict[Worker, SignalStats] = {}
        self._marks: dict[Worker, int] | None = None
        """What had been offered when the first answer came after the outage."""

    def join(self, member: Member) -> None:
        """Add a signal."""
        self._members[member.worker] = member

    def heard(self, worker: Worker, evidence: Evidence) -> None:
        """Pass on what one worker learnt to the others."""
        for other in list(self._members):
            if other is not worker:
                other.hear(evidence)

    def settled(self, worker: Worker, verdict: Verdict) -> None:
        """Tell people when an outage begins and when it is over, and when something was refused for good."""
        if verdict.rejected or verdict.outcome is Outcome.PERMANENT:
            self._note_refusal(worker, verdict)
        if verdict.outcome.has_failed:
            self._marks = None
            self._note_failure(worker, verdict)
            # A breaker that is not closed is certain of it.
            self.tell(is_final=worker.breaker is not BreakerState.CLOSED)
        elif self._outage is not None:
            if self._outage.is_told:
                self._end_if_over()
            else:
                self._note_success(worker)

    def forget(self) -> None:
        """Start anew in a forked child: its parent's outage is its parent's to report."""
        self._lock = threads.new_lock()
        self._members.clear()
        self._outage = self._latest = None
        self._failing.clear()
        self._refusal_told_at.clear()

    def tell(self, *, is_final: bool = False) -> float:
        """
        Log that an outage has begun, if it is time to; return the seconds until it is.

        Args:
            is_final: Whether it is told whenever it began: it is certain, or nobody will ask later.
        """
        now = self._clock.monotonic()
        with self._lock:
            outage, latest = self._outage, self._latest
            if outage is None or latest is None or outage.is_told:
                return FOREVER
            left = outage.left_until_told(now)
            if left > 0 and not is_final:
                return left
            outage.is_told = True
        worker, verdict = latest
        said = f": {verdict.message}" if verdict.message else ""
        say(
            _logger,
            logging.WARNING,
            "outage began at %s: %s are refused or unanswered (%s%s); telemetry is %s",
            self.name,
            self._members[worker].signal.value,
            verdict.cause,
            said,
            "being lost" if self.is_losing() else "held",
        )
        return FOREVER

    def _note_failure(self, worker: Worker, verdict: Verdict) -> None:
        began = None
        if self._outage is None:
            # The counts of an outage begin with its first failure.
            began = {w: member.stats() for w, member in self._members.items()}
        with self._lock:
            if self._outage is None and began is not None:
                self._outage, self._at_start = Episode(self._clock.monotonic(), told_after=OUTAGE_TOLD_AFTER), began
                self._failing.clear()
            self._latest = worker, verdict
            self._failing.add(worker)
        if began is not None:
            self.on_news()

    def _note_success(self, worker: Worker) -> None:
        """Forget a failure that was not told of when no signal fails any more: it was no outage."""
        with self._lock:
            self._failing.discard(worker)
            if not self._failing and self._outage is not None and not self._outage.is_told:
                self._outage = None

    def _note_refusal(self, worker: Worker, verdict: Verdict) -> None:
        signal, now = self._members[worker].signal, self._clock.monotonic()
        with self._lock:
            if now < self._refusal_told_at.get(signal, float("-inf")) + REFUSAL_PERIOD:
                return
            self._refusal_told_at[signal] = now
        said = f": {verdict.message}" if verdict.message else ""
        line = "%s refuses %s for good (%s%s); they are counted as rejected and not sent again"
        say(_logger, logging.WARNING, line, self.name, signal.value, verdict.cause, said)

    def _end_if_over(self) -> None:
        now_stats = {worker: member.stats() for worker, member in self._members.items()}
        # The breaker closes with the first answer; the outage is over for people when
        # what waited then has left, for only then are the counts final.
        marks = self._marks = self._marks or {worker: stats.offered for worker, stats in now_stats.items()}
        if not all(member.has_left(marks.get(worker, 0)) for worker, member in self._members.items()):
            return
        with self._lock:
            if self._outage is None:
                return
            seconds = self._clock.monotonic() - self._outage.began_at
            self._outage = None
            lines = [self._account(self._members[w], self._at_start.get(w), stats) for w, stats in now_stats.items()]
        account = "; ".join(filter(None, lines))
        say(_logger, logging.WARNING, "outage ended at %s after %.1f s: %s", self.name, seconds, account)

    @staticmethod
    def _account(member: Member, before: SignalStats | None, after: SignalStats) -> str:
        before = before or SignalStats()
        lost = {
            reason: count - before.dropped.get(reason, 0)
            for reason, count in after.dropped.items()
            if count > before.dropped.get(reason, 0)
        }
        delivered, rejected = after.delivered - before.delivered, after.rejected - before.rejected
        if not (delivered or rejected or lost):
            return ""
        dropped = ", ".join(f"{reason} {count}" for reason, count in sorted(lost.items())) or "0"
        return f"{member.signal.value} delivered {delivered}, rejected {rejected}, dropped {dropped}"
