"""Export: every batch that waits is a line, the oldest first; what cannot be exported is counted and named."""

import dataclasses
import json
from base64 import b64encode

from fakes.batches import batch
from fakes.requests import span_batch
from fakes.spools import Process
from surgetank.model import Lane, Outcome, Signal, Verdict
from surgetank.spool.encryption import Cipher
from surgetank.spool.export import Export
from surgetank.testing.filesystem import MemoryFilesystem

SPOOL = "/spool"
KEYS = "first:" + b64encode(b"k" * 32).decode()
OTHER_KEYS = "second:" + b64encode(b"o" * 32).decode()
REFUSAL = Verdict(outcome=Outcome.PERMANENT, cause="400", message="no")


def real(numbers, name="b"):
    """Return a sealed batch of numbered spans."""
    return dataclasses.replace(span_batch(numbers).batch, id=name, lane=Lane.NORMAL)


def process_with(*batches, **settings):
    process = Process(**settings)
    return process, [process.spool.append(each) for each in batches]


def numbers(line):
    """Return the numbers of the spans in a line."""
    return [
        int(span["spanId"], 16) - 1
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]


def test_each_batch_is_a_line():
    """Beside a living owner, of which nothing is changed."""
    process, _ = process_with(real([1, 2]), real([3]))
    exporting = Export(process.filesystem.process(), SPOOL)
    calls = len(process.filesystem.calls)

    assert [numbers(line) for line in exporting.lines()] == [[1, 2], [3]]

    assert (exporting.batches, exporting.items, exporting.is_complete) == (2, 3, True)
    assert len(process.filesystem.calls) == calls


def test_the_oldest_segment_comes_first():
    """Whoever it belongs to."""
    first, _ = process_with(real([1]))
    first.die()
    clock = first.clock
    clock.advance(10)
    second = Process(first.filesystem.process(), clock)
    second.spool.append(real([2]))
    second.die()

    assert [numbers(line) for line in Export(first.filesystem, SPOOL).lines()] == [[1], [2]]


def test_what_is_done_is_exported_on_demand():
    """As long as it is still there."""
    process, records = process_with(real([1]), real([2]))
    process.spool.ack(records[0])

    assert [numbers(line) for line in Export(process.filesystem, SPOOL).lines()] == [[2]]
    assert [numbers(line) for line in Export(process.filesystem, SPOOL, has_done=True).lines()] == [[1], [2]]


def test_one_signal_is_exported_on_demand():
    """The others are passed over."""
    process, _ = process_with(real([1]))
    process.disk.spools[Signal.LOGS].append(batch(signal=Signal.LOGS, body=b""))

    assert list(Export(process.filesystem, SPOOL, signal=Signal.LOGS).lines()) == ["{}"]
    assert len(list(Export(process.filesystem, SPOOL, signal=Signal.SPANS).lines())) == 1
    assert list(Export(process.filesystem, SPOOL, signal=Signal.METRICS).lines()) == []


def test_dead_letters_are_exported_instead():
    """The oldest first."""
    process, _ = process_with(real([1]))
    process.disk.dead_letters.bury(real([7, 8]), REFUSAL)
    exporting = Export(process.filesystem, SPOOL)

    assert [numbers(line) for line in exporting.letter_lines()] == [[7, 8]]
    assert exporting.items == 2
    assert exporting.refused == {("400", "no"): 2}
    assert exporting.as_data()["refused"] == [{"status": "400", "reason": "no", "items": 2}]
    assert list(Export(process.filesystem, SPOOL, signal=Signal.LOGS).letter_lines()) == []


def test_what_is_encrypted_is_exported_with_its_key_and_counted_without():
    """By the key's identifier, so that people know which one to look for."""
    process, _ = process_with(real([1, 2]), key_text=lambda: KEYS)
    process.disk.dead_letters.bury(real([7]), REFUSAL)

    with_key = Export(process.filesystem, SPOOL, Cipher(OTHER_KEYS + "\n" + KEYS))
    assert [numbers(line) for line in with_key.lines()] == [[1, 2]]
    assert [numbers(line) for line in with_key.letter_lines()] == [[7]]
    for cipher in (None, Cipher(OTHER_KEYS)):
        without = Export(process.filesystem, SPOOL, cipher)
        assert list(without.lines()) == []
        assert without.locked == {"first": 2}
        assert not without.is_complete
        assert list(without.letter_lines()) == []
        assert without.locked == {"first": 3}


def test_a_key_of_the_same_name_that_is_another_one_is_no_key():
    """It is skipped, as if the key were missing."""
    process, _ = process_with(real([1]), key_text=lambda: KEYS)
    wrong = Export(process.filesystem, SPOOL, Cipher("first:" + b64encode(b"w" * 32).decode()))

    assert list(wrong.lines()) == []
    assert wrong.locked == {"first": 1}


def test_damage_is_named_and_the_rest_exported():
    """With its place and its cost."""
    process, records = process_with(real([1]), real([2, 3]), real([4]))
    (path,) = process.segments()
    process.die()
    process.filesystem.flip(path, records[1].offset + 80)
    exporting = Export(process.filesystem, SPOOL)

    assert [numbers(line) for line in exporting.lines()] == [[1], [4]]
    (trouble,) = exporting.troubles
    assert f"at byte {records[1].offset}" in trouble
    assert "2 items are lost" in trouble


def test_what_is_no_request_is_named():
    """The bytes are as they were stored, but nothing can be made of them."""
    process, _ = process_with(batch(3, body=b"\xff\xff"))
    process.disk.dead_letters.bury(batch(1, body=b"\xff\xff"), REFUSAL)
    process.filesystem.create(f"{SPOOL}/dead-letters/1-x.letter").write_at(0, b"nonsense")
    exporting = Export(process.filesystem, SPOOL)

    assert list(exporting.lines()) == []
    assert list(exporting.letter_lines()) == []
    assert ["no OTLP request" in trouble for trouble in exporting.troubles] == [True, True, False]


def test_a_segment_that_is_done_meanwhile_is_no_trouble():
    """Its owner has removed it between two looks, or emptied it."""
    for is_removed in (True, False):
        process, records = process_with(real([1]), real([2]))
        (path,) = process.segments()
        looks = 0

        class Working(MemoryFilesystem):
            def open(self, place, *, writable=True):
                nonlocal looks
                if place == path:  # noqa: B023
                    looks += 1
                    if looks == 2:
                        for record in records:  # noqa: B023
                            process.spool.ack(record)  # noqa: B023
                        if is_removed:  # noqa: B023
                            process.filesystem.unlink(path)  # noqa: B023
                return super().open(place, writable=writable)

        exporting = Export(Working(process.filesystem._disk), SPOOL)

        assert list(exporting.lines()) == []
        assert exporting.is_complete
        assert looks == 2
