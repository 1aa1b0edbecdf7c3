"""Repair: what the checksums vouch for is kept, the original too, and whoever adopts it counts exactly what is there."""

import errno
import random

import pytest

from fakes.spools import Process
from surgetank.spool import repair as repairs
from surgetank.spool.check import check
from surgetank.spool.record import HEAD_SIZE
from surgetank.testing.filesystem import Fault, Stopped

SPOOL = "/spool"
SLOTS = 8


def dead_process(count=20, items=2, *, done=()):
    """Return a process that died with some records, of which some were done, and the paths of its segments."""
    process = Process(slots=SLOTS)
    records = [process.append(str(n), items) for n in range(count)]
    for number in done:
        process.spool.ack(records[number])
    paths = process.segments()
    process.die()
    return process, paths, records


def heir_of(process):
    heir = Process(process.filesystem.process(), process.clock, slots=SLOTS)
    heir.adopt()
    return heir


def content(process):
    return {path: bytes(inode.data) for path, inode in process.filesystem.files.items()}


def repaired(process):
    """Repair a spool, as a process that then ends."""
    tool = process.filesystem.process()
    result = repairs.repair(tool, SPOOL, process.clock)
    assert not tool._disk.open
    return result


def test_a_plan_changes_nothing():
    """It says what can be kept."""
    process, paths, records = dead_process()
    process.filesystem.flip(paths[0], records[3].offset)
    before = content(process)

    plan = repairs.plan(process.filesystem.process(), SPOOL)

    assert content(process) == before
    (patient,) = plan.patients
    assert (patient.kept_records, patient.kept_items, patient.lost_items) == (7, 14, 2)


def test_what_is_repaired_is_sound_and_the_original_is_kept():
    """Byte for byte, in a folder that nobody adopts."""
    process, paths, records = dead_process()
    process.filesystem.flip(paths[0], records[3].offset)
    original = bytes(process.filesystem.files[paths[0]].data)

    result = repaired(process)

    assert all(patient.is_repaired for patient in result.patients)
    assert check(process.filesystem, SPOOL).findings == []
    (owner,) = {patient.owner.name for patient in result.patients}
    name = paths[0].rsplit("/", 1)[1]
    kept = f"{SPOOL}/{result.backup}/{owner}/{name}"
    assert bytes(process.filesystem.files[kept].data) == original
    heir = heir_of(process)
    assert heir.drain() == [str(n) for n in range(20) if n != 3]
    assert heir.recovered == 38
    assert heir.lost == {}
    assert [path for path in process.filesystem.files if not path.startswith(f"{SPOOL}/owner-")] == [kept]


@pytest.mark.parametrize("victims", [[0], [7], [0, 1, 2], [2, 5], list(range(8))])
@pytest.mark.parametrize("done", [[], [1], [0, 1, 6], [3, 4]])
@pytest.mark.parametrize("is_payload", [False, True])
def test_an_heir_recovers_exactly_what_is_there(victims, done, is_payload):
    """Wherever the damage is, and whatever was done."""
    process, paths, records = dead_process(done=done)
    for victim in victims:
        process.filesystem.flip(paths[0], records[victim].offset + (70 if is_payload else 5))

    result = repaired(process)

    heir = heir_of(process)
    gone = {*victims, *done}
    assert heir.drain() == [str(n) for n in range(20) if n not in gone]
    assert heir.lost == {}
    assert heir.recovered == 2 * (20 - len(gone))
    if sum(victim not in done for victim in victims) < 8:
        assert sum(patient.lost_items for patient in result.patients) == 2 * sum(each not in done for each in victims)


@pytest.mark.parametrize("offset", [0, 20, HEAD_SIZE - 1, HEAD_SIZE + 3])
def test_damaged_heads_and_acks_are_written_anew(offset):
    """Nothing is lost by them; a damaged ack repeats its batch."""
    process, paths, _ = dead_process(done=[1])
    process.filesystem.flip(paths[0], offset, 0x10)

    result = repaired(process)

    assert [patient.lost_items for patient in result.patients] == [0]
    assert check(process.filesystem, SPOOL).findings == []
    repeats = offset > HEAD_SIZE
    assert heir_of(process).drain() == [str(n) for n in range(20) if n != 1 or repeats]


def test_an_open_segment_with_a_torn_tail_is_left_to_its_heir():
    """It is as a crash leaves it by rights."""
    process, paths, records = dead_process(4)
    del process.filesystem.files[paths[0]].data[records[3].offset + 20 :]
    before = content(process)

    assert repaired(process).patients == []
    assert content(process) == before


def test_what_has_neither_head_nor_records_is_left_to_its_heir():
    """There is nothing to salvage, and the heir takes it for one in which everything was done."""
    process, paths, _ = dead_process()
    process.filesystem.files[paths[1]].data[:] = b"nonsense" * 1000

    result = repaired(process)

    assert result.patients == []
    assert [finding.kind.value for finding in result.others] == ["nothing"]
    heir = heir_of(process)
    assert heir.drain() == [str(n) for n in range(20) if not 8 <= n < 16]
    assert heir.lost == {}


def test_an_ack_without_its_record_costs_nothing():
    """Without power, the one may come through and the other not."""
    process, paths, records = dead_process(4, done=[3])
    process.filesystem.flip(paths[0], records[0].offset)
    del process.filesystem.files[paths[0]].data[records[2].offset :]

    result = repaired(process)

    # The third record is missing as well: the ack of the fourth says that it was there.
    assert sum(patient.lost_items for patient in result.patients) == 4
    heir = heir_of(process)
    assert heir.drain() == ["1"]
    assert (heir.recovered, heir.lost) == (2, {})


def test_living_owners_are_left_alone():
    """Whatever is in their segments."""
    process = Process(slots=SLOTS)
    record = process.append("a")
    (path,) = process.segments()
    process.filesystem.flip(path, record.offset)
    before = content(process)

    result = repairs.repair(process.filesystem.process(), SPOOL, process.clock)

    assert result.patients == []
    assert len(result.living) == 1
    assert content(process) == before


def test_a_folder_that_somebody_takes_over_meanwhile_is_left_alone(monkeypatch):
    """Its lock is taken between the plan and the repair."""
    process, paths, records = dead_process()
    process.filesystem.flip(paths[0], records[3].offset)
    plan = repairs.plan(process.filesystem.process(), SPOOL)
    (lock,) = [path for path in process.filesystem.files if path.endswith("/lock")]
    assert process.filesystem.process().open(lock).try_lock()
    monkeypatch.setattr(repairs, "plan", lambda *arguments: plan)

    result = repairs.repair(process.filesystem.process(), SPOOL, process.clock)

    assert "taken it over" in result.patients[0].trouble
    assert result.backup == ""


def test_a_full_disk_leaves_the_segment_as_it_was():
    """There is no room for the copy."""
    process, paths, records = dead_process()
    process.filesystem.flip(paths[0], records[3].offset)
    before = bytes(process.filesystem.files[paths[0]].data)
    process.filesystem.faults.append(Fault("write", error=errno.ENOSPC, times=-1))

    result = repairs.repair(process.filesystem.process(), SPOOL, process.clock)

    assert "No space" in result.patients[0].trouble
    assert bytes(process.filesystem.files[paths[0]].data) == before


def test_a_repair_that_is_killed_or_loses_its_power_costs_nothing():
    """At whichever call: the name has the original or the new one, and both keep the same batches."""
    calls = len(killed_repair(None)[1].calls)
    for stop_at in range(1, calls + 1):
        for loses_power in (False, True):
            process, tool = killed_repair(stop_at)
            if loses_power:
                process.filesystem.lose_power(random.Random(stop_at))
            else:
                tool.die()

            heir = heir_of(process)

            assert heir.drain() == [str(n) for n in range(20) if n != 3], (stop_at, loses_power)


def killed_repair(stop_at):
    process, paths, records = dead_process()
    filesystem = process.filesystem
    damaged = filesystem.open(paths[0])
    damaged.write_at(records[3].offset, b"damage")
    # The owner's writes survive, and the damage; this is about the tool's.
    for path in paths:
        filesystem.open(path).sync()
    for folder in (paths[0].rsplit("/", 1)[0], SPOOL, "/"):
        filesystem.sync_folder(folder)
    process.die()
    tool = process.filesystem.process()
    tool.stop_at = stop_at
    try:
        repairs.repair(tool, SPOOL, process.clock)
    except Stopped:
        pass
    return process, tool


def test_a_second_repair_in_the_same_second_has_a_backup_of_its_own():
    """Nothing is written over."""
    process, paths, records = dead_process()
    process.filesystem.flip(paths[0], records[3].offset)
    first = repaired(process)
    process.filesystem.flip(paths[1], records[12].offset)

    second = repaired(process)

    assert second.backup == first.backup + "-2"


def test_what_cannot_be_repaired_is_said():
    """A missing segment, say, is counted by the heir."""
    process, paths, _ = dead_process()
    del process.filesystem.files[paths[1]]

    result = repaired(process)

    assert result.patients == []
    assert [finding.kind.value for finding in result.others] == ["missing"]
