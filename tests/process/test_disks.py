"""Real disks that are full, read-only, or not ours: the application notices nothing, and what can be saved is saved."""

import json
import os
import signal
import subprocess
import time

import pytest

from process.programs import ended, heard, kill_all, run, start
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow


@pytest.fixture
def collector():
    with Collector() as collector:
        yield collector
    kill_all()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one MiB, and the way to mount it again with other options."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("mounting a file system needs root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=0755", "surgetank-test", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this root may not mount")
    yield place
    kill_all()
    subprocess.run(["umount", "-l", str(place)], check=True)


def lines_until(process, beginning):
    """Return the lines that a program says before the one that begins like this, and that one."""
    lines = []
    while line := process.stdout.readline():
        if line.startswith(beginning):
            return lines, line
        lines.append(line)
    raise AssertionError(process.communicate()[1])


def go_on(process, *, is_last=False):
    """Let a program that reads a line go on."""
    process.stdin.write("\n")
    process.stdin.flush()
    if is_last:
        process.stdin.close()
        # `communicate` would flush it.
        process.stdin = None


def variables(folder):
    return {
        "SURGETANK_PERSISTENCE_ENABLED": "true",
        "SURGETANK_SPOOL_DIR": str(folder),
        "SURGETANK_SPOOL_RESERVE_MB": "0",
        "SURGETANK_SHUTDOWN_TIMEOUT": "5",
    }


def everything_arrived(collector, count):
    report = collector.report()
    assert report["spans"]["unique"] == report["logs"]["unique"] == count, report


def test_a_full_disk_means_memory_and_comes_back_by_itself(collector, small_disk):
    """One line when it begins, one when it ends; all that memory can hold is delivered."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(1024 * 1024 - 64 * 1024))
    process = start(
        """
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
        tank = install()
        for n in range(40): work(n * 100, 100); time.sleep(0.02)
        time.sleep(1.0); print(json.dumps({"full": 1}), flush=True)
        sys.stdin.readline()
        for n in range(40, 50): work(n * 100, 100)
        time.sleep(7.0)
        s = tank.stats(); print(json.dumps({"stored": s.spans.stored, "queued": s.spans.queued, "dropped": dict(s.spans.dropped)}), flush=True)
        sys.stdin.readline()
        tank.shutdown()
        """,
        "http://127.0.0.1:9",
        stdin=True,
        **variables(small_disk / "spool"),
    )
    before, _ = lines_until(process, '{"full')
    assert sum("nothing more is stored" in line for line in before) == 1, before
    filler.unlink()
    go_on(process)
    after, said = lines_until(process, '{"stored')
    books = json.loads(said)
    assert sum("can be written again" in line for line in after) == 1, after
    assert books["dropped"] == {}
    assert books["stored"] == books["queued"]
    go_on(process, is_last=True)
    process.communicate(timeout=20)
    assert process.returncode == 0
    run("tank = install(); time.sleep(2.5); tank.shutdown()", collector.endpoint, **variables(small_disk / "spool"))
    everything_arrived(collector, 5000)


def test_a_read_only_disk_means_memory(collector, small_disk):
    """A warning, and everything works as without a spool."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    code, _ = run("install(); work(0, 1000); time.sleep(1.0)", collector.endpoint, **variables(small_disk / "spool"))

    assert code == 0
    everything_arrived(collector, 1000)


def test_a_disk_that_becomes_read_only_costs_nothing(collector, small_disk):
    """In the middle of an outage, with batches on it and in memory."""
    process = start(
        """
        tank = install(); work(0, 1000); time.sleep(1.2); say(now="ro"); sys.stdin.readline()
        work(1000, 1000); time.sleep(1.0); say(now="up"); sys.stdin.readline()
        tank.shutdown(timeout=15.0); say(**books(tank))
        """,
        collector.endpoint,
        stdin=True,
        **variables(small_disk / "spool"),
    )
    collector.stop_listening()
    heard(process)
    subprocess.run(["mount", "-o", "remount,ro,size=1m", str(small_disk)], check=False)
    go_on(process)
    heard(process)
    collector.listen_again()
    go_on(process, is_last=True)

    code, (books,) = ended(process)

    assert code == 0
    assert books["spans"]["unaccounted"] == 0
    assert books["spans"]["dropped"] == {}
    everything_arrived(collector, 2000)


def test_a_folder_of_ours_that_others_can_enter_is_closed_to_them(collector, tmp_path):
    """It is ours, and there is nothing of anybody else's in it."""
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    code, _ = run("install(); work(0, 100)", collector.endpoint, **variables(folder))

    assert code == 0
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o777 == 0o700
    everything_arrived(collector, 100)


def test_a_link_in_place_of_the_folder_is_not_followed(collector, tmp_path):
    """Whoever planted it gets nothing."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / "spool").symlink_to(elsewhere)
    code, _ = run("install(); work(0, 100)", collector.endpoint, **variables(tmp_path / "spool"))

    assert code == 0
    assert list(elsewhere.iterdir()) == []
    everything_arrived(collector, 100)


# A disk as a network disk is whose server is gone: from a moment on, no call that reaches it returns.
HANGING_DISK = """
from surgetank.spool.filesystem import OsFile, OsFilesystem

is_gone = threading.Event()
def hanging(call):
    def hang(*arguments):
        if is_gone.is_set():
            threading.Event().wait()
        return call(*arguments)
    return hang
for name in ("write_at", "sync", "truncate", "read_at"):
    setattr(OsFile, name, hanging(getattr(OsFile, name)))
for name in ("create", "rename", "unlink", "remove_folder", "sync_folder", "names", "free_bytes"):
    setattr(OsFilesystem, name, hanging(getattr(OsFilesystem, name)))

began = []
def watch_the_time(tank):
    # Before `shutdown`, whoever calls it.
    shut = tank._shut
    def noting(*arguments):
        began.append(time.monotonic())
        return shut(*arguments)
    tank._shut = noting
    report = tank._report
    def reporting():
        report()
        say(took=time.monotonic() - began[0], **books(tank))
    tank._report = reporting
"""


@pytest.mark.parametrize("end", ["exit", "sigterm", "sys.exit", "multiprocessing"])
@pytest.mark.parametrize("durability", ["os", "disk"])
def test_a_process_whose_disk_hangs_ends_within_the_deadline(durability, end, tmp_path):
    """Whichever way it ends, and whichever thread of ours hangs; the books balance, and the application works until then."""
    program = (
        HANGING_DISK
        + {
            "exit": "def main(): run()",
            "sigterm": "def main(): run(); os.kill(os.getpid(), signal.SIGTERM); idle()",
            "sys.exit": "def main(): run(); sys.exit(0)",
            "multiprocessing": """
import multiprocessing
def main():
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start(); child.join(20)
    assert child.exitcode == 0, child.exitcode
""",
        }[end]
        + """
def run():
    tank = install(shutdown_timeout=1.0)
    watch_the_time(tank)
    work(0, 200); time.sleep(0.6)
    is_gone.set()
    began = time.monotonic()
    work(200, 200)
    assert time.monotonic() - began < 1.0
    # Until somebody hangs in it.
    time.sleep(0.5)
    work(400, 200)
main()
"""
    )
    began = time.monotonic()
    process = start(
        program, "http://127.0.0.1:9", **{**variables(tmp_path / "spool"), "SURGETANK_SPOOL_DURABILITY": durability}
    )
    code, said = ended(process)
    took = time.monotonic() - began

    assert code == (-signal.SIGTERM if end == "sigterm" else 0)
    (books,) = said
    assert books["took"] < 1.0 + 1.2
    assert took < 15
    for signal_books in (books["spans"], books["logs"]):
        assert signal_books["offered"] == 600
        assert signal_books["unaccounted"] == 0
        assert signal_books["spooled"] >= 200
        assert signal_books["spooled"] + sum(signal_books["dropped"].values()) == 600
