"""What an earlier version has left under a name that a token was part of is sent; what lives there is left alone."""

import os

import pytest

from fakes.batches import batch
from fakes.spools import Process
from surgetank.config import Environment, OutletConfig
from surgetank.model import Signal
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.settings import SpoolConfig, SpoolSettings, default_folder, former_folder, resolve_spool
from surgetank.testing import ManualClock
from surgetank.testing.filesystem import Fault

URL = "https://collector.example/v1/traces"
OUTLETS = [OutletConfig(url=URL, headers={"authorization": "Bearer s3cret"})]


def left(filesystem, path, name):
    """Return the process that has left a batch in a folder."""
    process = Process(filesystem, path=path)
    process.spill(name)
    return process


def heir_in(process, *formers):
    return Process(process.filesystem, process.clock, path="/state/new", formers=formers)


def test_the_backlog_under_the_former_name_is_adopted():
    """Of all that are dead, and the folder goes."""
    first = left(None, "/state/old", "a")
    second = left(first.filesystem, "/state/old", "b")
    first.die()
    assert heir_in(first, "/state/old").disk.has_others()
    heir = heir_in(second, "/state/old", "/state/older")

    heir.adopt()

    assert sorted(heir.drain()) == ["a", "b"]
    assert not [path for path in heir.filesystem.files if path.startswith("/state/old/")]
    assert heir.filesystem.names("/state") == ["new"]


def test_who_lives_under_the_former_name_is_left_alone():
    """It is of the earlier version, and sends it itself; when it has died, that is noticed."""
    living = Process(path="/state/old")
    living.spill("a")
    heir = Process(living.filesystem.process(), living.clock, path="/state/new", formers=("/state/old",))

    heir.adopt()
    assert heir.drain() == []
    assert living.append("b") is not None

    living.die()
    heir.clock.advance(61)
    heir.adopt()
    assert sorted(heir.drain()) == ["a", "b"]


@pytest.mark.parametrize("operation", ["rename", "open", "names", "lock", "make_folder"])
def test_what_cannot_be_brought_is_tried_again(operation):
    """And nothing is lost meanwhile."""
    process = left(None, "/state/old", "a")
    process.die()
    heir = heir_in(process, "/state/old")
    heir.filesystem.faults.append(Fault(operation, times=1))
    for _ in range(3):
        heir.adopt()
        heir.clock.advance(61)

    assert heir.drain() == ["a"]
    assert heir.lost == {}


def test_where_it_was_comes_from_the_configuration(tmp_path):
    """Of a tank, and of a drop-in class, which has a folder for its one destination; not of a folder that was named."""
    environment = Environment({"XDG_STATE_HOME": str(tmp_path)})
    former = former_folder(environment, OUTLETS)
    assert former != default_folder(environment, OUTLETS)

    assert resolve_spool(None, environment, OUTLETS).formers == (former,)
    three = [*OUTLETS, OutletConfig(url=URL), OutletConfig(url=URL)]
    one = SpoolConfig(dir=default_folder(environment, OUTLETS))
    assert resolve_spool(one, environment, three).formers == (former,)
    assert resolve_spool(SpoolConfig(dir=tmp_path), environment, OUTLETS).formers == ()


def test_no_credential_can_be_guessed_from_a_name(tmp_path):
    """Whoever may list the folder's names learns nothing of the token, not even whether a guess is right."""
    environment = Environment({"XDG_STATE_HOME": str(tmp_path)})
    names = {
        default_folder(environment, [OutletConfig(url=URL.replace("//", f"//u:{token}@"), headers={"X-Key": token})])
        for token in ("one", "two", "three")
    }
    assert len(names) == 1


def test_on_a_real_disk(tmp_path):
    """Names, locks and modes."""
    filesystem, clock = OsFilesystem(), ManualClock()
    old, new = tmp_path / "old", tmp_path / "new"
    first = Disk(SpoolSettings(path=str(old), reserve_bytes=0), filesystem, clock)
    record = first.spools[Signal.SPANS].append(batch(name="a"))
    assert record is not None
    first.close()

    heir = Disk(SpoolSettings(path=str(new), formers=(str(old),), reserve_bytes=0), filesystem, clock)
    heir.adopt_orphans()

    held = heir.spools[Signal.SPANS].lease(0.0, lambda items, size: True)
    assert held.batch.id == "a"
    assert not old.exists()
    assert oct(os.stat(new).st_mode & 0o777) == "0o700"
    heir.close()
