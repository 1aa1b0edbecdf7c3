"""The file system in memory keeps the contract of the operating system's: one suite, run over both."""

import errno
import os
import stat

import pytest

from surgetank.spool.filesystem import OsFilesystem
from surgetank.testing.filesystem import MemoryFilesystem


class Place:
    """A file system and a folder in it to work in."""

    def __init__(self, filesystem, root):
        self.filesystem = filesystem
        self.root = root

    def path(self, *names):
        return os.path.join(self.root, *names)

    def file(self, *names, data=b""):
        """Make a file with something in it, and return it open."""
        file = self.filesystem.create(self.path(*names))
        file.write_at(0, data)
        return file


@pytest.fixture(params=["memory", "os"])
def place(request, tmp_path):
    if request.param == "memory":
        filesystem = MemoryFilesystem()
        root = "/root/place"
    else:
        filesystem = OsFilesystem()
        root = str(tmp_path / "root" / "place")
    filesystem.make_folder(root)
    return Place(filesystem, root)


@pytest.fixture
def real(tmp_path):
    filesystem = OsFilesystem()
    root = str(tmp_path / "root")
    filesystem.make_folder(root)
    return Place(filesystem, root)


def refused(call, *arguments):
    """Return the number of the error that a call raises."""
    with pytest.raises(OSError) as caught:
        call(*arguments)
    return caught.value.errno


def test_a_file_is_made_once(place):
    """A name that is taken is refused, a folder's too."""
    place.file("a").close()
    place.filesystem.make_folder(place.path("folder"))

    assert refused(place.filesystem.create, place.path("a")) == errno.EEXIST
    assert refused(place.filesystem.create, place.path("folder")) == errno.EEXIST
    assert refused(place.filesystem.create, place.path("missing", "a")) == errno.ENOENT


def test_what_is_missing_is_refused_as_missing(place):
    """By every call that takes a path."""
    filesystem, missing = place.filesystem, place.path("missing")

    for call in (
        filesystem.open,
        filesystem.size_of,
        filesystem.unlink,
        filesystem.names,
        filesystem.remove_folder,
        filesystem.sync_folder,
        filesystem.free_bytes,
    ):
        assert refused(call, missing) == errno.ENOENT, call
    assert refused(filesystem.rename, missing, place.path("other")) == errno.ENOENT


def test_a_missing_file_is_a_file_not_found_error(place):
    """The spool tells it from the others."""
    with pytest.raises(FileNotFoundError):
        place.filesystem.open(place.path("missing"))
    with pytest.raises(FileNotFoundError):
        place.filesystem.open(place.path("missing", "too"))


def test_a_folder_is_no_file(place):
    """And a file no folder."""
    place.file("a").close()
    place.filesystem.make_folder(place.path("folder"))

    assert refused(place.filesystem.open, place.path("folder")) == errno.EISDIR
    assert refused(place.filesystem.names, place.path("a")) == errno.ENOTDIR
    assert refused(place.filesystem.remove_folder, place.path("a")) == errno.ENOTDIR
    with pytest.raises(NotADirectoryError):
        place.filesystem.make_folder(place.path("a"))


def test_a_folder_is_made_with_what_is_missing_above_it_and_made_again_without_harm(place):
    """What is in it stays."""
    place.filesystem.make_folder(place.path("one", "two"))
    place.file("one", "two", "a").close()
    place.filesystem.make_folder(place.path("one", "two"))

    assert place.filesystem.names(place.path("one")) == ["two"]
    assert place.filesystem.names(place.path("one", "two")) == ["a"]


def test_reading_past_the_end_returns_what_there_is(place):
    """Fewer bytes, or none; no error."""
    file = place.file("a", data=b"0123456789")

    assert file.read_at(0, 4) == b"0123"
    assert file.read_at(7, 100) == b"789"
    assert file.read_at(10, 1) == b""
    assert file.read_at(1000, 5) == b""
    assert file.read_at(3, 0) == b""


def test_a_write_makes_the_file_longer_and_fills_what_is_between_with_zeroes(place):
    """In place where there is something already."""
    file = place.file("a", data=b"abc")

    file.write_at(1, b"X")
    assert file.read_at(0, 10) == b"aXc"
    file.write_at(5, b"yz")
    assert file.read_at(0, 10) == b"aXc\0\0yz"
    assert file.size() == 7
    assert place.filesystem.size_of(place.path("a")) == 7
    file.write_at(20, b"")
    assert file.size() == 7


def test_a_file_is_cut_and_made_longer(place):
    """Longer with zeroes."""
    file = place.file("a", data=b"abcdef")

    file.truncate(2)
    assert file.read_at(0, 10) == b"ab"
    file.truncate(4)
    assert file.read_at(0, 10) == b"ab\0\0"


def test_two_openings_see_one_file(place):
    """At once, synced or not."""
    file = place.file("a", data=b"abc")
    other = place.filesystem.open(place.path("a"))

    file.write_at(3, b"def")
    file.sync()

    assert other.read_at(0, 10) == b"abcdef"


def test_a_file_that_was_opened_for_reading_is_only_read(place):
    """Tools that look at a living process's spool must not harm it."""
    place.file("a", data=b"abc").close()
    file = place.filesystem.open(place.path("a"), writable=False)

    assert file.read_at(0, 3) == b"abc"
    assert refused(file.write_at, 0, b"x") == errno.EBADF
    with pytest.raises(OSError):
        file.truncate(0)


def test_a_closed_file_is_refused(place):
    """It may be closed and forgotten again without harm."""
    file = place.file("a", data=b"abc")
    file.close()
    file.close()
    file.forget()

    for call, arguments in (
        (file.read_at, (0, 1)),
        (file.write_at, (0, b"x")),
        (file.truncate, (0,)),
        (file.size, ()),
        (file.sync, ()),
        (file.try_lock, ()),
    ):
        assert refused(call, *arguments) == errno.EBADF, call
    assert not file.is_at(place.path("a"))


def test_of_two_openings_one_has_the_lock(place):
    """Until it is closed; who has it may take it again."""
    first = place.file("lock")
    second = place.filesystem.open(place.path("lock"))

    assert first.try_lock()
    assert first.try_lock()
    assert not second.try_lock()
    first.close()
    assert second.try_lock()


def test_whoever_asks_for_a_lock_leaves_it_as_it_is(place):
    """The tools ask, the owner keeps its lock, and an heir can take it afterwards."""
    lock = place.file("lock")
    asking = place.filesystem.open(place.path("lock"), writable=False)

    assert not asking.is_locked()
    assert lock.try_lock()
    assert asking.is_locked()
    assert asking.is_locked()
    assert not place.filesystem.open(place.path("lock")).try_lock()
    lock.close()
    assert not asking.is_locked()
    assert place.filesystem.open(place.path("lock")).try_lock()


def test_an_opening_that_has_no_lock_drops_none(place):
    """Closing another descriptor of the same file leaves the lock where it is."""
    first = place.file("lock")
    assert first.try_lock()

    place.filesystem.open(place.path("lock")).close()

    assert not place.filesystem.open(place.path("lock")).try_lock()


def test_a_lock_outlives_the_renaming_of_its_folder(place):
    """And the removal of its name."""
    place.filesystem.make_folder(place.path("owner"))
    lock = place.file("owner", "lock")
    assert lock.try_lock()

    place.filesystem.rename(place.path("owner"), place.path("orphan"))

    other = place.filesystem.open(place.path("orphan", "lock"))
    assert not other.try_lock()
    place.filesystem.unlink(place.path("orphan", "lock"))
    assert not other.try_lock()
    lock.close()
    assert other.try_lock()
    assert not other.is_at(place.path("orphan", "lock"))


def test_a_path_names_a_file_until_it_is_renamed_removed_or_replaced(place):
    """`is_at` compares identities, not names."""
    file = place.file("a")
    a, b = place.path("a"), place.path("b")
    assert file.is_at(a)

    place.filesystem.rename(a, b)
    assert not file.is_at(a)
    assert file.is_at(b)
    place.file("a").close()
    assert not file.is_at(a)
    place.filesystem.unlink(b)
    assert not file.is_at(b)


def test_names_are_those_of_files_and_folders(place):
    """Of this folder alone."""
    assert place.filesystem.names(place.root) == []
    place.file("a").close()
    place.filesystem.make_folder(place.path("folder"))
    place.file("folder", "inside").close()

    assert sorted(place.filesystem.names(place.root)) == ["a", "folder"]


def test_a_folder_is_renamed_with_its_open_files(place):
    """They are read and written as before, and found under the new name."""
    place.filesystem.make_folder(place.path("old"))
    file = place.file("old", "a", data=b"abc")

    place.filesystem.rename(place.path("old"), place.path("new"))
    file.write_at(3, b"def")

    assert place.filesystem.open(place.path("new", "a")).read_at(0, 10) == b"abcdef"
    assert place.filesystem.names(place.root) == ["new"]
    assert refused(place.filesystem.open, place.path("old", "a")) == errno.ENOENT


def test_a_folder_takes_the_place_of_an_empty_one_only(place):
    """Or something would be lost."""
    for name in ("one", "full", "empty"):
        place.filesystem.make_folder(place.path(name))
    place.file("full", "a").close()

    assert refused(place.filesystem.rename, place.path("one"), place.path("full")) in (errno.ENOTEMPTY, errno.EEXIST)
    place.filesystem.rename(place.path("full"), place.path("empty"))

    assert place.filesystem.names(place.path("empty")) == ["a"]


def test_a_file_that_is_removed_while_it_is_open_is_still_there_for_who_has_it_open(place):
    """Nobody else can open it."""
    file = place.file("a", data=b"abc")

    place.filesystem.unlink(place.path("a"))

    assert file.read_at(0, 3) == b"abc"
    file.write_at(3, b"d")
    assert file.size() == 4
    assert place.filesystem.names(place.root) == []


def test_only_an_empty_folder_is_removed(place):
    """What is in another one stays."""
    place.filesystem.make_folder(place.path("folder"))
    place.file("folder", "a").close()

    assert refused(place.filesystem.remove_folder, place.path("folder")) in (errno.ENOTEMPTY, errno.EEXIST)
    place.filesystem.unlink(place.path("folder", "a"))
    place.filesystem.remove_folder(place.path("folder"))

    assert place.filesystem.names(place.root) == []


def test_a_volume_says_how_much_is_free(place):
    """In bytes, of any folder on it; and its folders can be synced."""
    assert place.filesystem.free_bytes(place.root) > 0
    place.filesystem.sync_folder(place.root)


def test_folders_and_files_are_closed_to_others(real):
    """Folders 0700, files 0600, whatever the mask allows."""
    before = os.umask(0)
    try:
        real.filesystem.make_folder(real.path("folder"))
        real.file("folder", "a").close()
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(real.path("folder")).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(real.path("folder", "a")).st_mode) == 0o600


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777, 0o1777])
def test_a_folder_that_others_can_enter_is_refused(real, mode):
    """What lies in it could be read, or planted."""
    os.mkdir(real.path("open"))
    os.chmod(real.path("open"), mode)

    with pytest.raises(PermissionError, match="open to other users") as refused:
        real.filesystem.make_folder(real.path("open"))
    # The log line says no more than this.
    assert refused.value.strerror == f"it is open to other users, mode {mode:04o}; 0700 is needed"


@pytest.mark.parametrize("mode", [0o2770, 0o755])
def test_a_folder_of_ours_is_closed_to_others(real, mode):
    """Once; not one of all users, nor what is no folder."""
    os.mkdir(real.path("open"))
    os.chmod(real.path("open"), mode)
    os.symlink(real.path("open"), real.path("link"))
    real.file("file").close()

    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            real.filesystem.close_to_others(real.path(name))
    assert real.filesystem.close_to_others(real.path("open"))
    assert not real.filesystem.close_to_others(real.path("open"))
    assert stat.S_IMODE(os.stat(real.path("open")).st_mode) == 0o700
    os.chmod(real.path("open"), 0o1777)
    assert not real.filesystem.close_to_others(real.path("open"))


def test_a_folder_of_another_user_is_not_closed(real, monkeypatch):
    """It is theirs."""
    os.mkdir(real.path("open"))
    os.chmod(real.path("open"), 0o755)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    assert not real.filesystem.close_to_others(real.path("open"))
    assert stat.S_IMODE(os.stat(real.path("open")).st_mode) == 0o755


def test_a_folder_of_another_user_is_refused(real, monkeypatch):
    """Even if it is closed to others."""
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(PermissionError, match="belongs to another user") as refused:
        real.filesystem.make_folder(real.root)
    assert refused.value.strerror == "it belongs to another user"


def test_symbolic_links_are_refused(real):
    """As a folder, as a file to open, as a file to make, even if they lead nowhere."""
    real.file("target", data=b"abc").close()
    real.filesystem.make_folder(real.path("folder"))
    os.symlink(real.path("target"), real.path("link"))
    os.symlink(real.path("nowhere"), real.path("dangling"))
    os.symlink(real.path("folder"), real.path("folder-link"))

    for name in ("link", "dangling"):
        assert refused(real.filesystem.open, real.path(name)) == errno.ELOOP
        assert refused(real.filesystem.create, real.path(name)) == errno.EEXIST
    with pytest.raises(NotADirectoryError):
        real.filesystem.make_folder(real.path("folder-link"))
    assert not os.path.exists(real.path("nowhere"))


def test_a_descriptor_that_the_application_has_closed_is_left_alone(real):
    """Its number is another file's by now: nothing of ours is written there, and it stays open."""
    file = real.file("ours", data=b"ours")
    descriptor = file._descriptor
    os.close(descriptor)
    # The lowest number that is free.
    assert os.open(real.path("theirs"), os.O_RDWR | os.O_CREAT) == descriptor

    assert file.is_lost()
    assert not file.is_at(real.path("ours"))
    calls = (lambda: file.write_at(0, b"damage"), lambda: file.truncate(0), file.sync, file.try_lock, file.size)
    assert [refused(call) for call in (*calls, lambda: file.read_at(0, 1))] == [errno.EBADF] * 6
    file.close()

    assert os.fstat(descriptor).st_size == 0
    os.close(descriptor)


def test_only_a_name_that_is_gone_or_anothers_says_that_a_file_is_elsewhere(place):
    """Anything else that goes wrong says nothing about the file."""
    file = place.file("folder-less")
    assert file.is_at(place.path("folder-less"))
    assert not file.is_at(place.path("missing", "a"))
    assert not file.is_at(place.path("folder-less", "a"))
    place.file("other").close()
    assert not file.is_at(place.path("other"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter any folder")
def test_a_folder_above_that_is_closed_to_us_says_nothing(real):
    real.filesystem.make_folder(real.path("above"))
    file = real.file("above", "a")
    os.chmod(real.path("above"), 0)
    try:
        assert refused(file.is_at, real.path("above", "a")) == errno.EACCES
    finally:
        os.chmod(real.path("above"), 0o700)
