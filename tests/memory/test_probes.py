"""The probe: each source, which of them counts, and machines on which nothing is as it should be."""

import os
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.machine import MIB, Machine
from surgetank.memory import probes
from surgetank.memory.probes import Reading, choose_probe
from surgetank.memory.reading import number, table

CGROUP = "/sys/fs/cgroup"


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def read(machine, limit_mb=None):
    """Return what a new probe says of a machine, sizes in MiB."""
    reading = choose_probe(limit_mb, machine.root)()
    return None if reading is None else (reading.used / MIB, reading.limit / MIB, reading.source)


def in_v2(machine, path="/app", base="/"):
    machine.mount_v2(base)
    machine.join_v2(path)


def in_v1(machine, path="/app", base="/"):
    machine.mount_v1(base)
    machine.join_v1(path)


def test_a_limit_of_version_2_is_read(machine):
    """Pages of files that the kernel takes back first are not counted as used."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 80, highest=100, inactive_file=30)

    assert read(machine) == (50, 100, "cgroup_v2")


def test_more_cache_than_usage_is_no_usage(machine):
    """The two figures are read one after the other."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 10, highest=100, inactive_file=30)

    assert read(machine) == (0, 100, "cgroup_v2")


@pytest.mark.parametrize(
    ("highest", "high", "limit"), [(100, 60, 60), (100, "max", 100), ("max", 60, 60), (50, 60, 50)]
)
def test_the_lower_of_max_and_high_counts(machine, highest, high, limit):
    """Beyond `high` the application is throttled long before it is killed."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 30, highest=highest, high=high)

    assert read(machine) == (30, limit, "cgroup_v2")


@pytest.mark.parametrize(
    ("own", "slice_", "top", "expected"),
    [
        ((10, 100), (90, 100), (95, 400), (90, 100)),
        ((10, "max"), (90, "max"), (95, 400), (95, 400)),
        ((40, 50), (90, 150), (95, 400), (40, 50)),
        ((10, 100), (90, "max"), (390, 400), (390, 400)),
        # The tightest limit is not the fullest level.
        ((10, 50), (90, 100), (95, 400), (90, 100)),
    ],
)
def test_the_fullest_level_counts(machine, own, slice_, top, expected):
    """A limit of an ancestor's holds for all that is below it together, so siblings can fill it."""
    in_v2(machine, "/top/middle.slice/own.service")
    for path, (current, highest) in (
        ("top/middle.slice/own.service", own),
        ("top/middle.slice", slice_),
        ("top", top),
    ):
        machine.level_v2(f"{CGROUP}/{path}", current, highest)

    assert read(machine) == (*expected, "cgroup_v2")


def test_each_level_has_its_own_cache(machine):
    """What an ancestor's other children have cached can be taken back as well."""
    in_v2(machine, "/top/own")
    machine.level_v2(f"{CGROUP}/top/own", 40, highest=100, inactive_file=0)
    machine.level_v2(f"{CGROUP}/top", 90, highest=100, inactive_file=60)

    assert read(machine) == (40, 100, "cgroup_v2")


def test_in_a_container_the_mounts_root_is_ours(machine):
    """With a namespace of control groups the path is `/`, and so is what is mounted."""
    in_v2(machine, "/")
    machine.level_v2(CGROUP, 60, highest=100)

    assert read(machine) == (60, 100, "cgroup_v2")


@pytest.mark.parametrize("version", ["v1", "v2"])
@pytest.mark.parametrize(
    ("base", "path", "below"),
    [
        # Without a namespace: the container's part of the hierarchy is mounted, under the machine's names.
        ("/docker/0a1b", "/docker/0a1b", ""),
        ("/docker/0a1b", "/docker/0a1b/inner/own", "/inner/own"),
        # The whole hierarchy is claimed, but what is there is the container's.
        ("/", "/docker/0a1b", ""),
        # The mount was made outside of the namespace, above its root: an ancestor of ours.
        ("/..", "/", ""),
        ("/../..", "/own", ""),
        # The process was moved out of the namespace, and the mount shows where.
        ("/..", "/../beside", "/beside"),
        # Mounted before the namespace began.
        ("/docker/0a1b", "/", ""),
    ],
)
def test_the_own_group_is_found_through_namespaces(machine, version, base, path, below):
    """Whatever the two files call it."""
    (in_v2 if version == "v2" else in_v1)(machine, path, base)
    if version == "v2":
        machine.level_v2(f"{CGROUP}{below}", 60, 100)
    else:
        machine.level_v1(f"{CGROUP}/memory{below}", 60, 100)

    assert read(machine) == (60, 100, f"cgroup_{version}")


@pytest.mark.parametrize(("base", "path"), [("/", "/../beside"), ("/docker/0a1b", "/docker/0a1"), ("/one", "/two")])
def test_a_group_that_is_not_ours_is_not_taken_for_ours(machine, base, path):
    """The process is elsewhere; what is mounted says nothing of it."""
    in_v2(machine, path, base)
    machine.level_v2(CGROUP, 60, highest=100)

    assert read(machine) is None


def test_a_group_that_was_removed_leaves_its_ancestors(machine):
    """The kernel marks it; their limits hold all the same."""
    in_v2(machine, "/top/own (deleted)")
    machine.level_v2(f"{CGROUP}/top", 60, highest=100)

    assert read(machine) == (60, 100, "cgroup_v2")


def test_a_mount_with_a_space_in_its_name(machine):
    """The kernel writes it in octal, and a colon in a group's name as itself."""
    machine.mount_v2("/a\\040b", "/sys/fs/c\\040group")
    machine.join_v2("/a b/own:1")
    machine.level_v2("/sys/fs/c group/own:1", 60, highest=100)

    assert read(machine) == (60, 100, "cgroup_v2")


def test_the_first_mount_that_shows_our_group_is_used(machine):
    """Monitoring containers have the machine's hierarchy mounted beside their own."""
    machine.mount_v2("/someone/else", "/host/cgroup")
    machine.mount_v2("/", CGROUP)
    machine.join_v2("/app")
    machine.level_v2("/host/cgroup", 99, highest=100)
    machine.level_v2(f"{CGROUP}/app", 60, highest=100)

    assert read(machine) == (60, 100, "cgroup_v2")


def test_a_limit_of_version_1_is_read(machine):
    """The cache is that of the whole subtree, as the usage is."""
    in_v1(machine)
    machine.level_v1(f"{CGROUP}/memory/app", 80, limit=100, inactive_file=30)

    assert read(machine) == (50, 100, "cgroup_v1")


def test_version_1_has_ancestors_too(machine):
    """And a huge number means no limit."""
    in_v1(machine, "/top/own")
    machine.level_v1(f"{CGROUP}/memory/top/own", 40)
    machine.level_v1(f"{CGROUP}/memory/top", 90, limit=100)
    machine.level_v1(f"{CGROUP}/memory", 900)

    assert read(machine) == (90, 100, "cgroup_v1")


def test_version_1_tells_the_limit_of_a_hidden_ancestor(machine):
    """The namespace hides its usage, but it is at least ours."""
    in_v1(machine, "/")
    machine.level_v1(f"{CGROUP}/memory", 40, limit=None, hierarchical=50)

    assert read(machine) == (40, 50, "cgroup_v1")


def test_an_ancestor_without_hierarchy_does_not_limit(machine):
    """Before Linux 5.11, version 1 counted children apart unless told otherwise."""
    in_v1(machine, "/top/own")
    machine.level_v1(f"{CGROUP}/memory/top/own", 40, limit=100)
    machine.level_v1(f"{CGROUP}/memory/top", 90, limit=100)
    machine.write(f"{CGROUP}/memory/top/memory.use_hierarchy", "0\n")

    assert read(machine) == (40, 100, "cgroup_v1")


def test_on_a_hybrid_machine_the_memory_is_where_its_controller_is(machine):
    """Version 2 is mounted for the service manager only; it still knows about stalls."""
    machine.mount_v2("/", f"{CGROUP}/unified")
    machine.join_v2("/app")
    machine.write(f"{CGROUP}/unified/app/memory.pressure", "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n")
    in_v1(machine)
    machine.level_v1(f"{CGROUP}/memory/app", 60, limit=100)

    reading = choose_probe(root=machine.root)()

    assert (reading.source, reading.used, reading.stalled) == ("cgroup_v1", 60 * MIB, 0.125)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_limit_beyond_the_machines_memory_is_none(machine, version):
    """The machine is full before it is reached."""
    machine.host(1000, 400)
    if version == "v2":
        in_v2(machine)
        machine.level_v2(f"{CGROUP}/app", 10, highest=1001)
    else:
        in_v1(machine)
        machine.level_v1(f"{CGROUP}/memory/app", 10, limit=1001)
    assert read(machine) == (600, 1000, "host")

    if version == "v2":
        machine.level_v2(f"{CGROUP}/app", 10, highest=1000)
    else:
        machine.level_v1(f"{CGROUP}/memory/app", 10, limit=1000)
    assert read(machine) == (10, 1000, f"cgroup_{version}")


def test_limits_are_read_anew_each_time(machine):
    """They are changed, and processes are moved, while the application runs."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 50, highest=100)
    machine.level_v2(f"{CGROUP}/other", 20, highest=40)
    probe = choose_probe(root=machine.root)
    assert probe() == Reading(50 * MIB, 100 * MIB, "cgroup_v2")

    machine.level_v2(f"{CGROUP}/app", 50, highest=60)
    assert probe() == Reading(50 * MIB, 60 * MIB, "cgroup_v2")
    machine.join_v2("/other")
    assert probe() == Reading(20 * MIB, 40 * MIB, "cgroup_v2")
    machine.level_v2(f"{CGROUP}/other", 20)
    assert probe() is None
    machine.process(80, 10)
    machine.limit_address_space(100)
    assert probe() == Reading(80 * MIB, 100 * MIB, "rlimit_as")


def test_the_address_space_has_a_limit_too(machine):
    """The soft one counts, against what is mapped and not what is resident."""
    machine.process(address_space=80, resident=10)
    machine.limit_address_space(100)
    assert read(machine) == (80, 100, "rlimit_as")

    machine.limit_address_space("unlimited")
    assert read(machine) is None


def test_a_configured_limit_is_for_resident_memory(machine):
    """Fractions of a MiB are possible."""
    machine.process(address_space=800, resident=10)

    assert read(machine, 40) == (10, 40, "configured")
    assert read(machine, 12.5) == (10, 12.5, "configured")


@pytest.mark.parametrize(
    ("resident", "group", "space", "expected"),
    [
        (30, 50, 10, (50, 100, "cgroup_v2")),
        (30, 20, 10, (30, 100, "configured")),
        (30, 20, 90, (90, 100, "rlimit_as")),
        (50, 50, 50, (50, 100, "cgroup_v2")),
        (50, 20, 50, (50, 100, "rlimit_as")),
    ],
)
def test_of_several_limits_the_closest_counts(machine, resident, group, space, expected):
    """Among equals the more binding source is named."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", group, highest=100)
    machine.process(space, resident)
    machine.limit_address_space(100)

    assert read(machine, 100) == expected


def test_without_a_limit_the_machine_counts(machine):
    """By what is available, not by what is free."""
    machine.host(1000, 250)
    machine.process(80, 10)
    machine.write("/proc/pressure/memory", "some avg10=3.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.00\n")

    assert choose_probe(root=machine.root)() == Reading(750 * MIB, 1000 * MIB, "host", 0.03)


def test_an_old_kernel_does_not_say_what_is_available(machine):
    """It is about what is free or cached."""
    machine.write("/proc/meminfo", "MemTotal: 1024 kB\nMemFree: 100 kB\nBuffers: 100 kB\nCached: 56 kB\n")

    assert choose_probe(root=machine.root)() == Reading(768 * 1024, MIB, "host")


def test_the_machine_does_not_count_beside_a_limit(machine):
    """Other processes' memory is not ours to make room for as long as we have a share of our own."""
    machine.host(1000, 10)
    machine.process(80, 10)

    assert read(machine, 100) == (10, 100, "configured")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=5.00 avg60=0 avg300=0 total=0\n", 0.0),
        ("some avg10=99.97 avg60=0.00 avg300=0.00 total=0\n", 0.9997),
        ("full avg10=5.00 avg60=0.00 avg300=0.00 total=0\n", None),
        ("some avg10=many\n", None),
        ("", None),
    ],
)
def test_stalls_are_reported(machine, text, expected):
    """Those of the process's own control group."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 50, highest=100)
    machine.write(f"{CGROUP}/app/memory.pressure", text)

    assert choose_probe(root=machine.root)().stalled == expected


@pytest.mark.parametrize(
    "missing", ["/proc/self/mountinfo", "/proc/self/cgroup", f"{CGROUP}/app/memory.current", f"{CGROUP}/app/memory.max"]
)
def test_a_missing_file_is_a_missing_source(machine, missing):
    """The next one is asked."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 50, highest=100)
    machine.host(1000, 250)
    machine.remove(missing)

    assert read(machine) == (750, 1000, "host")


@pytest.mark.parametrize("missing", ["memory.stat", "memory.high"])
def test_what_is_not_essential_may_be_missing(machine, missing):
    """Without the statistics, all of the usage counts."""
    in_v2(machine)
    machine.level_v2(f"{CGROUP}/app", 50, highest=100)
    machine.remove(f"{CGROUP}/app/{missing}")

    assert read(machine) == (50, 100, "cgroup_v2")


def test_a_folder_in_a_files_place_is_no_file(machine):
    """Nothing raises."""
    for path in ("proc/self/mountinfo", "proc/self/cgroup", "proc/meminfo", "proc/self/statm", "proc/self/limits"):
        os.makedirs(os.path.join(machine.root, path))

    assert read(machine, 100) is None


def test_an_empty_machine_has_nothing_to_read(machine):
    """Nor is a configured limit of use where nobody says what is used."""
    assert read(machine) is None
    assert read(machine, 100) is None


GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"max\n",
            b"-1\n",
            b"1" * 5000,
            b"\xc2\xb2",
            b"1_000",
            b"0::",
            b"0::/a\x00b",
            b"4:memory:",
            b"MemTotal: 0 kB",
            b"MemTotal:",
            b"Max address space",
            b"inactive_file",
            b"35 24 0:30 / / rw - cgroup2 c rw",
            b"35 24 0:30 /\\000 /a\\000b rw - cgroup2 c rw",
            b"35 24 0:30 /\\777 /\\777 rw - cgroup c rw,memory",
        ]
    ),
)


@pytest.fixture(scope="module")
def scrapyard(tmp_path_factory):
    return Machine(tmp_path_factory.mktemp("scrapyard"))


@given(texts=st.lists(GARBAGE, min_size=12, max_size=12))
def test_garbage_is_a_missing_source(scrapyard, texts):
    """Whatever is in the files, nothing raises, and what is said makes sense."""
    scrapyard.__init__(scrapyard.root)
    in_v2(scrapyard)
    in_v1(scrapyard)
    scrapyard.level_v2(f"{CGROUP}/app", 50, highest=100)
    paths = ["self/mountinfo", "self/cgroup", "meminfo", "self/statm", "self/limits", "pressure/memory"]
    files = ["memory.current", "memory.max", "memory.high", "memory.stat", "memory.pressure"]
    everything = [f"/proc/{path}" for path in paths] + [f"{CGROUP}/app/{name}" for name in files]
    for path, text in zip(everything, texts, strict=False):
        # An empty one in three leaves the right content in place, so that the others are reached.
        if text and text[0] % 3:
            scrapyard.write(path, text)

    reading = choose_probe(100, scrapyard.root)()

    assert reading is None or (reading.used >= 0 and reading.limit >= 0 and reading.pressure >= 0)


def test_figures_and_words():
    """Only plain digits are a figure."""
    assert number(b" 12\n") == 12
    assert [number(text) for text in (None, b"", b"max", b"-1", b"1.5", b"1e3", b"1_0", b"9" * 21)] == [None] * 8
    assert table(b"a 1\nb: 2 kB\nc\n\nd x\n") == {b"a": 1, b"b": 2}


def test_a_limit_of_nothing_is_full():
    """And nothing of nothing is not."""
    assert Reading(1, 0, "cgroup_v2").pressure == 1
    assert Reading(0, 0, "none").pressure == 0
    assert Reading(150, 100, "cgroup_v2").pressure == 1.5


class FakePsutil(types.ModuleType):
    """What psutil says on a machine without `/proc`."""

    def __init__(self):
        super().__init__("psutil")

    def virtual_memory(self):
        return types.SimpleNamespace(total=1000 * MIB, available=400 * MIB)

    def Process(self):
        return types.SimpleNamespace(memory_info=lambda: types.SimpleNamespace(rss=30 * MIB))


@pytest.fixture
def elsewhere(machine, monkeypatch):
    """A machine that is no Linux: there is no `/proc`, and psutil knows how else to find out."""
    monkeypatch.setattr(probes, "_SYSTEM", machine.root)
    monkeypatch.setitem(sys.modules, "psutil", FakePsutil())
    return machine


def test_without_proc_psutil_is_asked(elsewhere):
    """For the process, and for the machine."""
    assert read(elsewhere) == (600, 1000, "host")
    assert read(elsewhere, 100) == (30, 100, "configured")


def test_psutil_is_optional(elsewhere, monkeypatch):
    """Without it there is nothing to read."""
    monkeypatch.setitem(sys.modules, "psutil", None)

    assert read(elsewhere) is None
    assert read(elsewhere, 100) is None


def test_a_psutil_that_fails_is_none(elsewhere, monkeypatch):
    """There are systems that it does not know."""

    def fail(self):
        raise NotImplementedError

    monkeypatch.setattr(FakePsutil, "virtual_memory", fail)
    monkeypatch.setattr(FakePsutil, "Process", fail)

    assert read(elsewhere) is None
    assert read(elsewhere, 100) is None


def test_the_real_machine_agrees_with_psutil():
    """Whatever machine this is, a large configured limit is answered with what psutil says is resident."""
    psutil = pytest.importorskip("psutil")

    reading = choose_probe(1)()

    assert reading.source == "configured"
    assert reading.used == pytest.approx(psutil.Process().memory_info().rss, rel=0.05)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no /proc")
def test_no_file_is_kept_open():
    """A probe is for the whole life of the process."""
    probe = choose_probe()
    before = len(os.listdir("/proc/self/fd"))

    for _ in range(5):
        probe()

    assert len(os.listdir("/proc/self/fd")) == before
