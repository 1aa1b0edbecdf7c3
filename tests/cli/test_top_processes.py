"""`surgetank top` beside real processes in an outage, and in a real terminal."""

import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

import pytest

from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow

PATIENCE = 30.0

# Port 9 is nobody's on loopback; a line on standard input ends it, or has it fork, or make another tank.
PROGRAM = """
import os, sys
import surgetank
from opentelemetry import trace
tank = surgetank.install(endpoint="http://127.0.0.1:9")
tracer = trace.get_tracer("top")
def spans():
    for _ in range(10):
        with tracer.start_as_current_span("x"):
            pass
spans()
print(os.getpid(), flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        child = os.fork()
        spans()
        if child == 0:
            sys.stdin.readline()
            os._exit(0)
        print(child, flush=True)
    else:
        break
os._exit(0)
"""


@pytest.fixture
def environment(tmp_path):
    """What the processes and `top` share."""
    found = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    found |= {"SURGETANK_STATUS_DIR": str(tmp_path / "status"), "SURGETANK_SPOOL_DIR": str(tmp_path / "spool")}
    found |= {"TERM": "xterm-256color", "PYTHONWARNINGS": "ignore"}
    for name in ("COLUMNS", "LINES", "NO_COLOR", "SURGETANK_STATUS_ENABLED", "SURGETANK_PERSISTENCE_ENABLED"):
        found.pop(name, None)
    return found


@pytest.fixture
def start(environment):
    """Starts processes, and kills them when the test ends."""
    started = []

    def start(service):
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**environment, "OTEL_SERVICE_NAME": service},
        )
        started.append(process)
        assert process.stdout.readline() == f"{process.pid}\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate(timeout=PATIENCE)


@pytest.fixture
def top(environment):
    """Returns the tanks that `top` sees once they are as wanted."""

    def top(is_wanted):
        until = time.monotonic() + PATIENCE
        while True:
            found = subprocess.run(
                [sys.executable, "-c", "from surgetank.cli import main; main()", "top", "--once", "--json"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            tanks = {tank["pid"]: tank for tank in json.loads(found.stdout)["tanks"]}
            if is_wanted(tanks):
                return tanks
            assert time.monotonic() < until, (tanks, found.stderr)

    return top


def test_processes_in_an_outage_are_seen_and_the_killed_one_is_gone(start, top, tmp_path):
    """Both hold what they have; a later tank sweeps what the dead one left."""
    first, second = start("first"), start("second")

    def are_both_holding(tanks):
        return [tanks.get(each.pid, {}).get("state") for each in (first, second)] == ["holding", "holding"]

    tanks = top(are_both_holding)
    assert {tanks[first.pid]["service"], tanks[second.pid]["service"]} == {"first", "second"}
    books = tanks[first.pid]["signals"]["spans"]
    assert (books["offered"], books["held"], books["lost"]) == (10, 10, {})
    assert books["trouble"] == "connection_refused: Connection refused"

    first.kill()
    first.wait(PATIENCE)
    tanks = top(lambda tanks: tanks.get(first.pid, {}).get("state") == "died")
    assert tanks[second.pid]["state"] == "holding"

    third = start("third")
    tanks = top(lambda tanks: third.pid in tanks)
    assert first.pid not in tanks
    names = os.listdir(tmp_path / "status")
    assert sorted(names) == sorted(f"{each.pid}-0.status" for each in (second, third))


def test_a_forked_child_shows_up_on_its_own(start, top):
    """With its own counts, and a beginning of its own."""
    parent = start("parent")
    parent.stdin.write("fork\n")
    parent.stdin.flush()
    child = int(parent.stdout.readline())

    tanks = top(lambda tanks: child in tanks and tanks.get(parent.pid, {})["signals"]["spans"]["offered"] == 20)

    assert tanks[child]["signals"]["spans"]["offered"] == 10
    assert tanks[child]["started_at"] > tanks[parent.pid]["started_at"]
    os.kill(child, signal.SIGKILL)


@pytest.fixture
def terminal(environment):
    """Runs `top` in a terminal of 80 by 24."""
    opened = []

    def terminal(**more):
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80)) if hasattr(termios, "tcsetwinsize") else _set_size(theirs)
        process = subprocess.Popen(
            [sys.executable, "-c", "from surgetank.cli import main; main()", "top", "--interval", "0.2"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**environment, **more},
            start_new_session=True,
        )
        found = Terminal(process, ours, theirs)
        opened.append(found)
        return found

    yield terminal
    for each in opened:
        each.process.kill()
        each.process.wait(PATIENCE)
        os.close(each.ours)
        os.close(each.theirs)


def _set_size(descriptor):
    import fcntl

    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))


class Terminal:
    def __init__(self, process, ours, theirs):
        self.process, self.ours, self.theirs = process, ours, theirs
        self.mode = termios.tcgetattr(theirs)
        self.output = b""

    def read_until(self, wanted):
        until = time.monotonic() + PATIENCE
        while wanted not in self.output:
            assert time.monotonic() < until, self.output
            if select.select([self.ours], [], [], 0.2)[0]:
                self.output += os.read(self.ours, 65536)

    def wait_until_stopped(self):
        until = time.monotonic() + PATIENCE
        while True:
            pid, status = os.waitpid(self.process.pid, os.WUNTRACED | os.WNOHANG)
            if pid:
                assert os.WIFSTOPPED(status)
                return
            assert time.monotonic() < until
            time.sleep(0.01)

    def ends_with(self, code):
        until = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < until
            if select.select([self.ours], [], [], 0.1)[0]:
                self.output += os.read(self.ours, 65536)
        while select.select([self.ours], [], [], 0)[0]:
            self.output += os.read(self.ours, 65536)
        assert self.process.returncode == code, self.output
        assert termios.tcgetattr(self.theirs) == self.mode


ALTERNATE, BACK, CURSOR = b"\x1b[?1049h", b"\x1b[?1049l", b"\x1b[?25h"


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (lambda terminal: os.write(terminal.ours, b"xq"), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGINT), 0),
        (lambda terminal: terminal.process.send_signal(signal.SIGTERM), 128 + signal.SIGTERM),
        (lambda terminal: terminal.process.send_signal(signal.SIGHUP), 128 + signal.SIGHUP),
    ],
    ids=["q", "Ctrl-C", "SIGTERM", "SIGHUP"],
)
def test_whatever_ends_it_the_terminal_is_as_it_was(start, terminal, end, code):
    """Its screen, its cursor, its mode; what a user does to end it is no failure."""
    process = start("shop")
    watched = terminal()
    watched.read_until(str(process.pid).encode())
    assert ALTERNATE in watched.output

    end(watched)
    watched.ends_with(code)

    assert BACK in watched.output
    assert watched.output.rindex(CURSOR) > watched.output.index(ALTERNATE)
    assert b"Traceback" not in watched.output


def test_a_suspended_one_gives_the_terminal_back_and_takes_it_again(start, terminal):
    """Ctrl-Z, and `fg`."""
    process = start("shop")
    watched = terminal()
    watched.read_until(str(process.pid).encode())

    watched.process.send_signal(signal.SIGTSTP)
    watched.read_until(BACK)
    watched.wait_until_stopped()
    assert termios.tcgetattr(watched.theirs) == watched.mode

    watched.output = b""
    watched.process.send_signal(signal.SIGCONT)
    watched.read_until(ALTERNATE)
    watched.read_until(str(process.pid).encode())
    os.write(watched.ours, b"q")
    watched.ends_with(0)


def test_a_terminal_that_can_do_nothing_gets_plain_lines(start, terminal):
    """Frame below frame, in ASCII, without an escape."""
    process = start("shop")
    watched = terminal(TERM="dumb")
    watched.read_until(str(process.pid).encode())

    watched.process.send_signal(signal.SIGINT)
    watched.ends_with(0)

    assert b"\x1b" not in watched.output
    assert watched.output.isascii()


def test_without_colours_there_are_none(start, terminal):
    """And all is still said."""
    start("shop")
    watched = terminal(NO_COLOR="1")
    watched.read_until("◐ holding".encode())

    os.write(watched.ours, b"q")
    watched.ends_with(0)

    assert b"\x1b[31m" not in watched.output
    assert b";31m" not in watched.output


def test_a_reader_that_has_seen_enough_is_no_failure(start, environment):
    """`surgetank top --json | head -1`."""
    start("shop")
    process = subprocess.Popen(
        [sys.executable, "-c", "from surgetank.cli import main; main()", "top", "--json", "--interval", "0.2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )
    try:
        assert json.loads(process.stdout.readline())["tanks"]
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
        assert process.stderr.read() == b""
    finally:
        process.kill()
        process.wait(PATIENCE)
        process.stderr.close()


ADOPTER = """
import os, sys
import surgetank
tank = surgetank.install(endpoint=sys.argv[1])
print(os.getpid(), flush=True)
sys.stdin.readline()
os._exit(0)
"""


def test_a_process_that_only_delivers_what_another_left_is_shown_as_it_is(start, top, environment):
    """It seals nothing, which is what wakes the status file of others: it was up to a minute behind."""
    dead = start("dead")
    top(lambda tanks: tanks.get(dead.pid, {}).get("state") == "holding")
    dead.kill()
    dead.wait(PATIENCE)
    with Collector() as collector:
        process = subprocess.Popen(
            [sys.executable, "-c", ADOPTER, collector.endpoint],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "OTEL_SERVICE_NAME": "heir"},
        )
        try:
            assert process.stdout.readline() == b"%d\n" % process.pid
            began = time.monotonic()

            def has_delivered(tanks):
                return tanks.get(process.pid, {}).get("signals", {}).get("spans", {}).get("delivered") == 10

            assert top(has_delivered)[process.pid]["state"] == "delivering"
            assert time.monotonic() - began < PATIENCE / 2
        finally:
            process.kill()
            process.communicate(timeout=PATIENCE)


def test_a_process_that_only_helps_others_is_idle(top, environment):
    """The parent of a server's workers has a tank, and nothing to do."""
    process = subprocess.Popen(
        [sys.executable, "-c", ADOPTER, "http://127.0.0.1:9"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    )
    try:
        assert process.stdout.readline() == b"%d\n" % process.pid
        assert top(lambda tanks: process.pid in tanks)[process.pid]["state"] == "idle"
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)
