"""The kernel's own control groups: a child process with a limit, and what its probe says."""

import os
import subprocess
import sys

import pytest

from surgetank.memory.cgroups import V1, V2, ControlGroups

MIB = 1024 * 1024
LIMIT = 256 * MIB
BALLAST = 64 * MIB

# The child enters by itself, so that all its memory is charged to the new group.
PROGRAM = """
import os, sys

with open(os.path.join(sys.argv[1], "cgroup.procs"), "w") as file:
    file.write(str(os.getpid()))
from surgetank.memory.probes import choose_probe

probe = choose_probe()
before = probe()
ballast = b"x" * int(sys.argv[2])
after = probe()
print(before.used, before.limit, before.source, after.used, after.limit, after.source, len(ballast))
"""


@pytest.fixture(params=[V2, V1], ids=["v2", "v1"])
def group(request):
    """A control group of our own below the one that runs the tests, with a limit; removed afterwards."""
    version = request.param
    own = ControlGroups().own_folders(version)
    if not own:
        pytest.skip(f"{version.source}: no hierarchy is mounted")
    path = os.path.join(own[0], f"surgetank-test-{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError as error:
        pytest.skip(f"{version.source}: no group can be made ({error})")
    try:
        if not os.path.exists(os.path.join(path, version.limits[0])):
            pytest.skip(f"{version.source}: the hierarchy has no memory controller here")
        with open(os.path.join(path, version.limits[0]), "w", encoding="ascii") as file:
            file.write(str(LIMIT))
        yield version, path
    finally:
        os.rmdir(path)


def test_a_child_in_a_group_finds_its_limit(group):
    """And its usage grows by what it allocates."""
    version, path = group

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, path, str(BALLAST)], capture_output=True, text=True, timeout=60, check=True
    )

    used, limit, source, used_after, limit_after, source_after, _ = done.stdout.split()
    assert (source, source_after) == (version.source, version.source)
    assert (int(limit), int(limit_after)) == (LIMIT, LIMIT)
    assert MIB < int(used) < 64 * MIB
    assert BALLAST * 0.95 < int(used_after) - int(used) < BALLAST * 1.2
