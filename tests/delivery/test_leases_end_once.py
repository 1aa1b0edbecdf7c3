"""Leases end exactly once, whatever raises: an exception is injected at every call inside a step, one run for each.

After each the application goes on, and the same pipeline must deliver everything, count it, and be ready for more.
"""

import contextlib
import os
import sys

import pytest

import surgetank
from fakes.pipelines import Rig
from fakes.requests import span_numbers
from surgetank.delivery import suspicion
from surgetank.model import BreakerState, Outcome, Verdict
from surgetank.testing import delivered, hold, no_answer, permanent, retry, silence, too_large
from surgetank.testing.filesystem import MemoryFilesystem

OURS = os.path.dirname(surgetank.__file__)
# The test's own tools, which are no part of what is tested.
TOOLS = os.path.join(OURS, "testing")
KINDS = (MemoryError, KeyboardInterrupt, OSError)
COUNT = 8


class Injection:
    """Raises at the n-th call that surgetank's code makes, Python's or C's."""

    def __init__(self, at, kind, rig):
        self.at = at
        self.rig = rig
        self.is_answered = False
        self.kind = kind
        self.calls = 0
        self.where = ""

    def __enter__(self):
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *error):
        sys.setprofile(None)

    def _profile(self, frame, event, argument):
        if event == "c_call":
            if argument.__name__ == "__exit__":
                # Of a lock: nothing can be raised between the end of a `with` and this; it would be held for ever.
                return
            caller = frame
        elif event == "call":
            caller = frame.f_back
        else:
            return
        name = "" if caller is None else caller.f_code.co_filename
        if not name.startswith(OURS) or name.startswith(TOOLS):
            return
        self.calls += 1
        if self.calls == self.at:
            sys.setprofile(None)
            called = (
                argument.__qualname__
                if event == "c_call"
                else frame.f_code.co_qualname
                if sys.version_info >= (3, 11)
                else frame.f_code.co_name
            )
            self.is_answered = bool(self.rig.sender.sent)
            self.where = f"{os.path.relpath(name, OURS)}:{caller.f_lineno} calls {called}"
            raise self.kind("injected")


def poison(batch):
    return permanent() if 3 in span_numbers(batch) else delivered()


def large(batch):
    return too_large() if batch.items > 2 else delivered()


def slow(batch):
    return no_answer() if batch.items > 2 else delivered()


def fail(batch):
    raise RuntimeError("a defect of the sender's")


ANSWERS = {
    "delivered": [delivered()],
    "partly rejected": [delivered(rejected=1)],
    "retried": [retry()],
    "asked to wait": [retry(after=3.0)],
    "silent": [silence()],
    "held": [hold()],
    "poison": poison,
    "too large": large,
    "too slow": slow,
    "given up": [Verdict(outcome=Outcome.REJECTED, cause="FAILURE")],
    "the sender fails": [fail],
}


def make(answer, *, has_spool, state):
    """Return a pipeline with sealed batches in it, in a state of its breaker, and how many items it was offered."""
    script = answer if isinstance(answer, list) else []
    otherwise = None if isinstance(answer, list) else answer
    filesystem = MemoryFilesystem() if has_spool else None
    if state == "replaying":
        dead = Rig(filesystem=filesystem, max_size=100, max_export_batch_size=4)
        dead.offer(*range(COUNT))
        dead.seal()
        filesystem.die()
    rig = Rig(
        [silence()] if state == "half open" else [],
        otherwise,
        filesystem=filesystem,
        max_size=100,
        max_export_batch_size=4,
        circuit_breaker_threshold=1 if state == "half open" else 2,
    )
    if state == "replaying":
        rig.tend()
    else:
        rig.offer(*range(COUNT))
        rig.seal()
    if state == "half open":
        rig.clock.advance(rig.pipeline.deliver_step())
        rig.clock.advance(rig.pipeline.deliver_step())
    rig.sender.script.clear()
    rig.sender.script.extend(script)
    return rig


def go_on(rig):
    """Have it deliver whatever it has, as its threads and its keeper would."""
    for _ in range(3):
        rig.deliver(steps=500)
        if rig.disk is not None:
            rig.clock.advance(60.0)
            rig.tend()


def check_at_once(rig, where):
    """Look before anything else has happened."""
    stats = rig.stats
    assert (stats.in_flight, stats.unaccounted) == (0, 0), (where, stats)
    assert stats.offered + stats.recovered == COUNT, where
    assert rig.pipeline._worker._outlet.allowed_at() < float("inf"), where


def check(rig, where, *, rejects):
    stats = rig.stats
    assert (stats.queued, stats.in_flight, stats.spooled) == (0, 0, 0), where
    assert stats.offered + stats.recovered == COUNT, where
    assert stats.delivered + stats.rejected == COUNT, (where, stats)
    assert stats.dropped == {}, where
    assert stats.unaccounted == 0, where
    assert stats.memory_bytes == 0, where
    assert stats.breaker is BreakerState.CLOSED, where
    assert set(rig.sent_numbers()) == set(range(COUNT)), where
    assert stats.rejected in rejects, where
    # And it is as ready as ever.
    rig.offer(*range(100, 104))
    assert rig.pipeline.force_flush(5.0), where
    assert rig.stats.delivered + rig.stats.rejected == COUNT + 4, where
    assert rig.pipeline.shutdown(1.0), where


# An injection into a generator that is being closed is raised nowhere.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("has_spool", "state"),
    [(False, "closed"), (True, "half open"), (True, "replaying")],
)
@pytest.mark.parametrize("answer", ANSWERS)
def test_a_step_that_breaks_off_anywhere_leaves_nothing_stuck(answer, has_spool, state, monkeypatch):
    """Nothing is lost or counted twice, no lease is left, the breaker is not wedged; each kind of exception at every third call."""
    rejects = {"partly rejected": {1}, "poison": {1}, "given up": {0, 4}}.get(answer, {0})
    monkeypatch.setattr(suspicion, "TIMEOUTS_BEFORE_SPLIT", 1)
    monkeypatch.setattr(suspicion, "SPLIT_ITEMS_MIN", 1)
    at, was_reached = 0, True
    while was_reached:
        at += 1
        rig = make(ANSWERS[answer], has_spool=has_spool, state=state)
        kind = KINDS[(at + len(answer)) % len(KINDS)]
        rig.sender.sent.clear()
        injection = Injection(at, kind, rig)
        with contextlib.suppress(kind), injection:
            rig.pipeline.deliver_step()
        was_reached = bool(injection.where)
        where = (at, injection.where)
        check_at_once(rig, where)
        go_on(rig)
        check(rig, where, rejects=rejects)
        if injection.is_answered and answer in ("delivered", "partly rejected"):
            assert len(rig.sent_numbers()) == COUNT + 4, (where, "sent again although it was delivered")
    assert at > 50
