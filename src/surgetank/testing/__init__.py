"""Fakes for tests, public and documented: a clock stepped by hand, and a sender that follows a script.

Owns: nothing shared. Threads: single-threaded tests, unless a class says otherwise.
Invariants: each fake is held to the real thing's contract by `tests/contracts/`.

`surgetank.testing.collector` is a real OTLP/HTTP collector that counts by identity and
misbehaves on order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from surgetank.model import Batch, Outcome, Verdict

__all__ = [
    "ManualClock",
    "ScriptedSender",
    "cut_off",
    "delivered",
    "hold",
    "no_answer",
    "permanent",
    "retry",
    "silence",
    "too_large",
]


class ManualClock:
    """
    A clock that moves only when told to.

    Args:
        start: Both clocks' first reading, in seconds.
    """

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._monotonic = start
        self._now = start

    def monotonic(self) -> float:
        """Seconds, never going back."""
        return self._monotonic

    def now(self) -> float:
        """Seconds since the epoch, as far as this clock knows."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let time pass without waiting for it."""
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises ValueError when asked to go back."""
        if seconds < 0:
            raise ValueError(f"a monotonic clock cannot go back {-seconds} s")
        self._monotonic += seconds
        self._now += seconds

    def set(self, now: float) -> None:
        """Set the system's clock, as NTP does: the seconds since the epoch, forwards or back."""
        self._now = now


def delivered(rejected: int = 0) -> Verdict:
    """Return the verdict of a 200, with `rejected` items of a partial success."""
    return Verdict(outcome=Outcome.DELIVERED, cause="200", rejected=rejected)


def retry(after: float | None = None) -> Verdict:
    """Return the verdict of a 503, with `Retry-After` in seconds if given."""
    return Verdict(outcome=Outcome.RETRY, cause="503", retry_after=after)


def silence() -> Verdict:
    """Return the verdict of a refused connection."""
    return Verdict(outcome=Outcome.RETRY, cause="connection_refused", reached=False, sent=False)


def cut_off() -> Verdict:
    """Return the verdict of a connection that the receiver has reset while it had the request."""
    return Verdict(outcome=Outcome.RETRY, cause="connection_reset", reached=False)


def no_answer() -> Verdict:
    """Return the verdict of a request that no answer came to in time."""
    return Verdict(outcome=Outcome.RETRY, cause="timeout", reached=False)


def hold() -> Verdict:
    """Return the verdict of a 401."""
    return Verdict(outcome=Outcome.HOLD, cause="401")


def too_large() -> Verdict:
    """Return the verdict of a 413."""
    return Verdict(outcome=Outcome.SPLIT, cause="413")


def permanent() -> Verdict:
    """Return the verdict of a 400."""
    return Verdict(outcome=Outcome.PERMANENT, cause="400")


class ScriptedSender:
    """
    A sender that answers as told and remembers what it was given.

    Args:
        script: Answers in order: verdicts, or functions from batch to verdict.
        otherwise: What it answers when the script has run out; default `delivered()`.

    It keeps the contract of `surgetank.model.Sender`: it does not retry, does not raise and returns at once.
    """

    def __init__(
        self,
        script: Iterable[Verdict | Callable[[Batch], Verdict]] = (),
        otherwise: Verdict | Callable[[Batch], Verdict] | None = None,
    ) -> None:
        self.script = deque(script)
        self.otherwise = delivered() if otherwise is None else otherwise
        self.sent: list[Batch] = []
        self.timeouts: list[float] = []
        self.is_closed = False
        self.aborts = 0

    def send(self, batch: Batch, timeout: float) -> Verdict:
        """Answer the next verdict of the script."""
        self.sent.append(batch)
        self.timeouts.append(timeout)
        answer = self.script.popleft() if self.script else self.otherwise
        return answer(batch) if callable(answer) else answer

    def abort(self) -> None:
        """Count the call; no send is ever under way."""
        self.aborts += 1

    def close(self) -> None:
        """Note it."""
        self.is_closed = True

    def abandon(self) -> None:
        """Forget what was sent: another process did that."""
        self.sent = []
