"""Draining: dead owners' batches go out, oldest first, with a worker's verdicts; the living keep theirs; it always ends."""

import dataclasses
from base64 import b64encode

import pytest

from fakes.batches import batch
from fakes.requests import span_batch, span_numbers
from fakes.spools import Process
from surgetank.drain import Drain
from surgetank.model import Lane, Signal
from surgetank.spool.export import Export
from surgetank.testing import ScriptedSender, delivered, hold, permanent, retry, silence, too_large

SPOOL = "/spool"
KEYS = "first:" + b64encode(b"k" * 32).decode()


def dead_process(*batches, **settings):
    process = Process(**settings)
    for each in batches:
        assert process.disk.spools[each.signal].append(each) is not None
    process.die()
    return process


def real(numbers, name="b", lane=Lane.NORMAL):
    return dataclasses.replace(span_batch(numbers).batch, id=name, lane=lane)


class Drained:
    """One drain of a spool in memory, and what came of it."""

    def __init__(self, process, *script, otherwise=None, **options):
        self.sender = ScriptedSender(script, otherwise)
        senders = dict.fromkeys(Signal, self.sender)
        self.told = []
        began = process.clock.monotonic()
        drain = Drain(SPOOL, process.filesystem.process(), process.clock, senders, **options)
        self.results = drain.run(lambda done, total: self.told.append((done, total)))
        self.seconds = process.clock.monotonic() - began
        self.spans = self.results[Signal.SPANS]
        for result in self.results.values():
            assert result.books.unaccounted == 0


def waiting(process):
    """Return the names of what an heir would find."""
    heir = Process(process.filesystem.process(), process.clock)
    heir.adopt()
    return heir.drain()


def test_what_dead_owners_left_is_sent_and_gone():
    """Critical batches first, then the oldest; every signal."""
    process = dead_process(batch(2, name="a"), batch(3, name="b"), batch(name="c", lane=Lane.CRITICAL))
    other = Process(process.filesystem.process(), process.clock)
    other.disk.spools[Signal.LOGS].append(batch(5, name="l", signal=Signal.LOGS))
    other.die()

    drained = Drained(process)

    assert [each.id for each in drained.sender.sent if each.signal is Signal.SPANS] == ["c", "a", "b"]
    assert drained.spans.books.delivered == 6
    assert drained.results[Signal.LOGS].books.delivered == 5
    assert drained.told[-1] == (11, 11)
    assert not [path for path in process.filesystem.files if path.endswith(".segment")]
    assert drained.sender.is_closed


def test_living_owners_are_left_alone():
    """Their batches are theirs."""
    process = Process()
    process.append("a")

    drained = Drained(process)

    assert drained.sender.sent == []
    assert drained.spans.books.recovered == 0


def test_an_empty_spool_is_drained_at_once():
    """And one that is not there."""
    drained = Drained(Process())

    assert drained.told[-1] == (0, 0)
    assert drained.seconds == 0


def test_old_batches_are_sent_and_not_expired():
    """The spool of a host that died months ago is what this is for."""
    process = dead_process(batch(2))
    process.clock.advance(300 * 86_400)

    assert Drained(process).spans.books.delivered == 2


def test_a_batch_larger_than_our_own_limits_is_sent():
    """They were another process's limits."""
    process = dead_process(batch(90_000, body=b"x" * 50_000))

    assert Drained(process).spans.books.delivered == 90_000


def test_passing_faults_are_retried_with_backoff():
    """And the count starts again with each success."""
    process = dead_process(batch(name="a"), batch(name="b"))

    drained = Drained(process, retry(), silence(), delivered(), retry(), retry(), attempts=3)

    assert drained.spans.books.delivered == 2
    assert drained.spans.stopped == ""
    assert drained.seconds > 1.0


def test_it_gives_up_after_so_many_failures():
    """What is left stays where it is, for the next who comes."""
    process = dead_process(batch(2, name="a"), batch(3, name="b"))

    drained = Drained(process, otherwise=silence(), attempts=4)

    assert len(drained.sender.sent) == 4
    assert drained.spans.left == 5
    assert "4 failures" in drained.spans.stopped
    assert sorted(waiting(process)) == ["a", "b"]


def test_what_people_must_repair_is_not_tried_again():
    """Credentials, say."""
    process = dead_process(batch())

    drained = Drained(process, otherwise=hold())

    assert len(drained.sender.sent) == 1
    assert "mended" in drained.spans.stopped
    assert waiting(process) == ["b"]


def test_a_receiver_that_asks_for_too_much_patience_is_left_for_another_time():
    """A short wait is kept."""
    process = dead_process(batch())
    assert Drained(process, retry(after=30.0)).seconds >= 30.0

    process = dead_process(batch())
    drained = Drained(process, otherwise=retry(after=3600.0))
    assert "patience" in drained.spans.stopped
    assert drained.seconds < 10.0


def test_one_signal_that_is_refused_does_not_stop_the_others():
    """Each has its own patience."""
    process = dead_process(batch(name="a"), batch(name="l", signal=Signal.LOGS))

    def answer(sent):
        return hold() if sent.signal is Signal.SPANS else delivered()

    drained = Drained(process, otherwise=answer)

    assert drained.spans.left == 1
    assert drained.results[Signal.LOGS].left == 0


def test_too_large_batches_are_halved():
    """As a tank does it."""
    process = dead_process(real([1, 2, 3, 4]))

    drained = Drained(process, too_large())

    assert [span_numbers(each) for each in drained.sender.sent[1:]] == [[1, 2], [3, 4]]
    assert drained.spans.books.delivered == 4
    assert waiting(process) == []


def test_refused_items_go_to_the_dead_letters():
    """Their neighbours are delivered."""
    process = dead_process(real([1, 2, 3, 4]))

    drained = Drained(process, otherwise=lambda sent: permanent() if 3 in span_numbers(sent) else delivered())

    assert (drained.spans.books.delivered, drained.spans.books.rejected) == (3, 1)
    assert drained.spans.left == 0
    (line,) = Export(process.filesystem, SPOOL).letter_lines()
    assert '"span 3"' in line


def test_halves_that_could_not_be_sent_stay_on_disk():
    """They have records of their own by then."""
    process = dead_process(real([1, 2, 3, 4]))

    drained = Drained(process, too_large(), otherwise=silence(), attempts=2)

    assert drained.spans.left == 4
    assert waiting(process) == ["ba", "bb"]


@pytest.mark.parametrize("keys", [None, "second:" + b64encode(b"o" * 32).decode()])
def test_what_is_encrypted_needs_its_key(keys):
    """Without it nothing is sent, and it ends all the same."""
    process = dead_process(batch(2), key_text=lambda: KEYS)

    drained = Drained(process, key_text=None if keys is None else lambda: keys)

    assert drained.sender.sent == []
    assert drained.spans.left == 2
    assert "key" in drained.spans.stopped
    assert Drained(process, key_text=lambda: KEYS).spans.books.delivered == 2


def test_damage_is_counted_as_lost():
    """And the rest is sent."""
    process = Process()
    records = [process.append(name, 2) for name in "abc"]
    (path,) = process.segments()
    process.die()
    process.filesystem.flip(path, records[1].offset)

    drained = Drained(process)

    assert [each.id for each in drained.sender.sent] == ["a", "c"]
    assert dict(drained.spans.books.dropped) == {"damaged": 2}


def test_an_interrupted_drain_loses_nothing():
    """Somebody has had enough of waiting."""
    process = dead_process(batch(name="a"), batch(name="b"))

    def interrupt(sent):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Drained(process, delivered(), interrupt)

    assert waiting(process) == ["b"]
