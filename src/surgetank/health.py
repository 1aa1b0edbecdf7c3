"""How a tank fares, in one word and the reasons for it: what a readiness probe, a live view and a doctor ask.

Owns: the losses of one tank (`episodes.py`), which its log lines speak of, too.
Threads: any; one that asks while another does gets the same answer.
Invariants: never raises, never waits for the disk or the network; an outage alone is no ill health of the application's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from surgetank.episodes import Losses
from surgetank.model import INTENDED_DROPS, BreakerState, Clock, TankStats, Word

INTENDED: Final = frozenset(reason.value for reason in INTENDED_DROPS)
"""What is given up because somebody asked for it, as the books name it."""


class HealthState(Word):
    """How a tank fares, from best to worst."""

    IDLE = "idle"
    """Nothing was ever offered, nor found on disk: a process that only helps others."""
    DELIVERING = "delivering"
    """What is offered is delivered, or nothing is offered any more."""
    HOLDING = "holding"
    """The endpoint refuses or is silent; everything is held and nothing was lost lately."""
    LOSING = "losing"
    """Within the last minute something was dropped at a limit, or refused for good."""
    ENDED = "ended"
    """It was shut down and takes no more telemetry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a tank fares."""

    state: HealthState
    reasons: tuple[str, ...] = ()
    """Why it is not `delivering`, a sentence each."""
    is_losing: bool = False
    """Whether anything was dropped or refused for good within the last minute; also after the shutdown, when `state` is `ended`."""

    @property
    def is_ready(self) -> bool:
        """
        Whether the application may serve as far as its telemetry is concerned: not after the tank was shut down.

        An outage of the collector, and even a loss of telemetry, are no reason to take an application out of service.
        """
        return self.state is not HealthState.ENDED

    def as_data(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"state": self.state.value, "is_ready": self.is_ready, "reasons": list(self.reasons)}


class Watch:
    """
    Judges one tank.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self.losses: Final = Losses(clock)

    def forget(self) -> None:
        """Start anew, as the books of a forked child do."""
        self.losses.forget()

    def judge(self, stats: TankStats, *, is_ended: bool) -> Health:
        """
        Judge the books; what was lost is compared with what it was when last asked.

        Args:
            stats: As of now.
            is_ended: Whether the tank was shut down.
        """
        lost = self.losses.observe(stats.by_signal())
        if is_ended:
            return Health(state=HealthState.ENDED, reasons=("the tank was shut down", *lost), is_losing=bool(lost))
        held = list(_held(stats))
        if lost:
            return Health(state=HealthState.LOSING, reasons=(*lost, *held), is_losing=True)
        if held:
            return Health(state=HealthState.HOLDING, reasons=tuple(held))
        is_used = any(books.offered or books.recovered for books in stats.by_signal().values())
        return Health(state=HealthState.DELIVERING if is_used else HealthState.IDLE)


def _held(stats: TankStats) -> Iterator[str]:
    for signal, books in stats.by_signal().items():
        waiting = books.queued + books.in_flight + books.spooled
        # A signal with nothing to send keeps what its breaker has heard of others until it has something to try.
        if waiting and (books.breaker is not BreakerState.CLOSED or books.trouble):
            wait = f"; it asked to be left alone for {books.retry_after:.0f} s more" if books.retry_after else ""
            yield (
                f"{signal.value}: {waiting} held, the endpoint does not take them: {books.trouble or 'not tried yet'}{wait}"
            )
        elif books.stalled and books.spooled:
            yield f"{signal.value}: {books.spooled} wait on disk and are not sent: {books.stalled}"
    if stats.orphans_waiting:
        yield f"{stats.orphans_waiting} folders of dead processes wait to be taken over, a few at a time"
    if stats.is_spool_down:
        yield "the spool cannot be written; nothing more is stored until it can"
    if stats.is_spool_starved:
        yield "no file descriptor is left: what waits on disk is not read, and dead processes' folders are not taken over"
    if stats.scale < 1:
        yield f"memory runs short ({stats.pressure:.0%} of its limit); buffers have {stats.scale:.0%} of their size"
