"""A spool on a volume that others can write to, or that Kubernetes has opened to a group, works and stays private."""

import logging
import os
import stat

import pytest
from typer.testing import CliRunner

from fakes.batches import batch
from surgetank.catalogue.effective import load
from surgetank.cli.app import app
from surgetank.config import Environment
from surgetank.doctor.finding import State
from surgetank.doctor.storage import check_spool
from surgetank.model import Outcome, Signal, Verdict
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.settings import SpoolConfig, resolve_spool
from surgetank.testing import ManualClock

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="modes are Unix's")


def disk_in(path, **given):
    """Return a process's disk, as an application configures it."""
    return Disk(resolve_spool(SpoolConfig(dir=path, **given), Environment({}), ()), OsFilesystem(), ManualClock())


def store(disk, name="a"):
    """Store a batch that memory lets go of, as an outage does."""
    spool = disk.spools[Signal.SPANS]
    record = spool.append(batch(1, name=name))
    assert record is not None, "memory only"
    record.is_held = False
    record.segment.unpin(record)
    disk.close()


def adopted(disk):
    disk.adopt_orphans()
    spool = disk.spools[Signal.SPANS]
    names = []
    while (held := spool.lease(0.0, lambda items, size: True)) is not None:
        names.append(held.batch.id)
        spool.ack(held.record)
    disk.close()
    return names


def mode_of(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


def closed(path):
    """Return whether only the owner can enter; a folder takes the bit of its group's from the one around it."""
    return mode_of(path) & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o2777], ids=oct)
@pytest.mark.parametrize("durability", ["os", "disk"])
def test_a_volume_that_everybody_writes_to_has_a_private_folder(tmp_path, mode, durability):
    """Docker's `--tmpfs` is of mode 1777, Kubernetes's `emptyDir` of mode 777; neither is changed."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(mode)

    store(disk_in(volume, durability=durability))

    own = volume / f"surgetank-spool-{os.geteuid()}"
    assert [each.name for each in volume.iterdir()] == [own.name]
    assert (mode_of(volume), closed(own)) == (mode, True)
    assert adopted(disk_in(volume)) == ["a"]


def test_a_private_folder_that_somebody_else_has_planted_is_refused(tmp_path, monkeypatch, caplog):
    """Whoever may write to the volume may have made it first, and could read what is stored there."""
    caplog.set_level(logging.WARNING, "surgetank.spool")
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o1777)
    user = os.geteuid()
    (volume / f"surgetank-spool-{user + 1}").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)

    disk = disk_in(volume)

    assert disk.settings.path == str(volume / f"surgetank-spool-{user + 1}")
    assert disk.spools[Signal.SPANS].append(batch()) is None
    assert "belongs to another user" in caplog.text
    assert list((volume / f"surgetank-spool-{user + 1}").iterdir()) == []


def test_a_planted_folder_around_ours_is_refused(tmp_path, monkeypatch):
    """As the drop-in classes have it, which make one for each destination."""
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o1777)
    user = os.geteuid()
    planted = volume / f"surgetank-spool-{user}"
    planted.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir(mode=0o700)

    disk = disk_in(planted / "spans")

    assert disk.spools[Signal.SPANS].append(batch()) is None
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("mode", [0o2770, 0o2775, 0o750, 0o777], ids=oct)
def test_a_spool_that_was_opened_to_a_group_is_closed_again(tmp_path, mode, caplog):
    """A second pod has its volume given to `fsGroup`; what the first one left is delivered."""
    caplog.set_level(logging.INFO, "surgetank.spool")
    path = tmp_path / "spool"
    first = disk_in(path)
    first.dead_letters.bury(batch(), Verdict(outcome=Outcome.REJECTED, cause="400"))
    store(first)
    for each in (path, path / "dead-letters", *path.glob("o*")):
        each.chmod(mode)

    second = disk_in(path)
    assert second.spools[Signal.SPANS].append(batch(name="b")) is not None
    second.dead_letters.bury(batch(name="c"), Verdict(outcome=Outcome.REJECTED, cause="400"))

    assert mode_of(path) == mode_of(path / "dead-letters") == 0o700
    assert len(list((path / "dead-letters").iterdir())) == 2
    lines = [each.getMessage() for each in caplog.records]
    assert lines == [
        f"the spool at {each} was open to other users; it is closed to them again (mode 0700)"
        for each in (path, path / "dead-letters")
    ]
    second.adopt_orphans()
    assert second.spools[Signal.SPANS].lease(0.0, lambda items, size: True).batch.id == "a"
    second.close()
    assert len(caplog.records) == 2


def test_a_folder_with_other_things_in_it_is_left_as_it_is(tmp_path, caplog):
    """Closing a home folder, say, would lock out the web server."""
    path = tmp_path / "home"
    path.mkdir()
    path.chmod(0o755)
    (path / "public").mkdir()

    assert disk_in(path).spools[Signal.SPANS].append(batch()) is None
    assert mode_of(path) == 0o755
    assert "mode 0755; 0700 is needed" in caplog.text


def test_the_commands_look_where_the_processes_store(tmp_path, monkeypatch):
    """With the folder's name as it was given to them."""
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "true")
    volume = tmp_path / "volume"
    volume.mkdir()
    volume.chmod(0o1777)
    store(disk_in(volume))

    for arguments in (["--dir", str(volume)], []):
        monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(volume))
        said = CliRunner().invoke(app, ["spool", "check", *arguments, "--json"], catch_exceptions=False)
        assert '"records": 1' in said.stdout
    own = volume / f"surgetank-spool-{os.geteuid()}"
    own.chmod(0o2770)
    found = next(each for each in check_spool(load()) if "open to others" in each.text)
    assert (found.state, "closes it" in found.text) == (State.WARNING, True)
