"""Dead letters: what the receiver refused for good is kept for inspection, within bounds, and troubles nobody."""

import errno
import logging

import pytest

from fakes.batches import batch
from fakes.spools import KIB, Process
from surgetank.model import Lane, Outcome, Signal, Verdict
from surgetank.spool import dead_letters
from surgetank.spool.dead_letters import parse
from surgetank.testing.filesystem import Fault, Stopped

REFUSAL = Verdict(outcome=Outcome.PERMANENT, cause="400", message='no "such" field\nat all: \ud800')
FOLDER = "/spool/dead-letters"


def letters(process):
    """Return the letters as they are stored, the oldest first."""
    files = process.filesystem.files
    return [bytes(files[path].data) for path in sorted(files) if path.startswith(FOLDER)]


def ids(process):
    """Return the identifiers of the batches that are buried."""
    return [parse(letter)[1].id for letter in letters(process)]


def bury(process, name, *, size=100):
    process.disk.dead_letters.bury(batch(name=name, body=b"x" * size), REFUSAL)
    process.clock.advance(0.01)


def test_a_letter_says_what_was_refused_and_why():
    """And holds the body as it was sent."""
    process = Process()
    given = batch(3, name="b1", body=b"\x00\n\xff body", lane=Lane.CRITICAL, signal=Signal.LOGS)

    process.disk.dead_letters.bury(given, REFUSAL)

    (letter,) = letters(process)
    said, buried = parse(letter)
    assert buried == given
    assert (said["status"], said["reason"], said["key_id"]) == ("400", REFUSAL.message, "")
    assert said["buried"] == process.clock.now()
    (name,) = process.filesystem.names(FOLDER)
    assert name.endswith("-b1.letter")


def test_every_prefix_of_a_letter_is_refused():
    """One that was cut off by the end of its writer is no batch."""
    process = Process()
    bury(process, "b1", size=30)
    (letter,) = letters(process)

    for size in range(len(letter)):
        with pytest.raises(ValueError):
            parse(letter[:size])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"no json\nbody",
        b"[]\nbody",
        b"1\nbody",
        b'{"version": 3}\n',
        b'{"version": 1}\n',
        b"\xff\xfe\n",
        b"null\n",
    ],
)
def test_what_is_no_letter_is_refused(data):
    """With one kind of error, whatever it is."""
    with pytest.raises(ValueError):
        parse(data)


@pytest.mark.parametrize(
    ("field", "value"), [("signal", "smells"), ("lane", 7), ("items", "many"), ("batch_id", None), ("created", "then")]
)
def test_a_letter_that_says_nonsense_is_refused(field, value):
    """Or it would be handed on."""
    import json

    process = Process()
    bury(process, "b1")
    line, _, body = letters(process)[0].partition(b"\n")

    with pytest.raises(ValueError):
        parse(json.dumps({**json.loads(line), field: value}).encode() + b"\n" + body)


def test_the_oldest_letters_give_way_to_bytes():
    """All together take no more than they may."""
    process = Process(dead_letter_bytes=10 * KIB)
    for n in range(30):
        bury(process, f"b{n:02}", size=1500)
        assert sum(map(len, letters(process))) <= 10 * KIB

    assert ids(process) == [f"b{n:02}" for n in range(30 - len(ids(process)), 30)]
    assert len(ids(process)) >= 5


def test_the_oldest_letters_give_way_to_number(monkeypatch):
    """Each costs a name, however small it is."""
    monkeypatch.setattr(dead_letters, "LETTERS_MAX", 7)
    process = Process()
    for n in range(20):
        bury(process, f"b{n:02}")

    assert ids(process) == [f"b{n:02}" for n in range(13, 20)]


def test_processes_share_the_limit():
    """The letters of one give way to those of another."""
    first = Process(dead_letter_bytes=4 * KIB)
    second = Process(first.filesystem.process(), first.clock, dead_letter_bytes=4 * KIB)
    for n in range(6):
        bury(first, f"first{n}", size=1000)
    for n in range(6):
        bury(second, f"second{n}", size=1000)

    assert ids(first) == ["second3", "second4", "second5"]


def test_what_is_larger_than_the_limit_is_not_kept():
    """It would push out everything else."""
    process = Process(dead_letter_bytes=4 * KIB)
    bury(process, "small")
    bury(process, "large", size=5 * KIB)

    assert ids(process) == ["small"]


def test_without_a_limit_nothing_is_kept():
    """Zero turns dead letters off."""
    assert Process(dead_letter_bytes=0).disk.dead_letters is None


def test_a_batch_that_is_buried_twice_is_kept_once():
    """And that is no error of the disk's."""
    process = Process()
    for _ in range(2):
        process.disk.dead_letters.bury(batch(name="b1"), REFUSAL)

    assert ids(process) == ["b1"]
    assert not process.disk.folder.is_down


@pytest.mark.parametrize("operation", ["make_folder", "create", "write", "names", "unlink"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_disk_that_says_no_costs_the_letter_and_nothing_else(operation, number, caplog):
    """Nothing is raised, one line says so, and telemetry is stored as before."""
    caplog.set_level(logging.WARNING, "surgetank.spool")
    process = Process(dead_letter_bytes=1 * KIB)
    bury(process, "b0", size=500)
    process.filesystem.faults.append(
        Fault(operation, number, times=-1, path="" if operation != "make_folder" else "letters", torn=0.5)
    )

    for n in range(3):
        bury(process, f"b{n + 1}", size=500)
    process.filesystem.faults.clear()

    assert len(caplog.records) == 1
    assert "dead letters" in caplog.text
    assert not process.disk.folder.is_down
    assert process.append("telemetry") is not None
    bury(process, "last", size=500)
    assert ids(process)[-1] == "last"
    assert sum(map(len, letters(process))) <= 1 * KIB


def test_a_sibling_that_prunes_at_the_same_time_is_no_error():
    """A letter that is gone already is gone."""
    process = Process(dead_letter_bytes=2 * KIB)
    for n in range(3):
        bury(process, f"b{n}", size=500)
    filesystem, size_of = process.filesystem, process.filesystem.size_of

    def slow_size_of(path):
        size = size_of(path)
        if "-b0" in path or "-b1" in path:
            del filesystem.files[path]
        return size

    filesystem.size_of = slow_size_of
    bury(process, "b3", size=1700)
    filesystem.size_of = size_of

    assert ids(process) == ["b3"]
    assert not process.disk.folder.is_down


def test_a_writer_that_is_killed_leaves_nothing_that_is_taken_for_a_letter():
    """It is removed with the oldest, like any other."""
    process = Process(dead_letter_bytes=2 * KIB)
    bury(process, "b0")
    for stop_at in range(1, 10):
        process.filesystem.stop_at = len(process.filesystem.calls) + stop_at
        try:
            bury(process, f"killed{stop_at}", size=300)
        except Stopped:
            pass
        process.die()
        heir = Process(process.filesystem, process.clock, dead_letter_bytes=2 * KIB)
        for letter in letters(heir):
            try:
                assert len(parse(letter)[1].body) in (100, 300)
            except ValueError:
                continue
        process = heir
    for n in range(5):
        bury(process, f"new{n}", size=1000)

    assert ids(process) == ["new4"]


def test_after_the_end_nothing_is_buried():
    """The folder is not ours any more."""
    process = Process()
    process.disk.close()
    bury(process, "late")

    assert letters(process) == []
