"""A program that forks workers on request, which work until they are killed and write down what they had sealed.

The nursery has no tank of its own, as a pre-fork server that does not preload; each worker makes one. What a worker
has sealed goes into a file of its own with one `write` a batch, so that it survives the worker as the spool does.
"""

import os
import signal
from pathlib import Path

from process.programs import heard, start

PROGRAM = """
import random

def watch(tank, path):
    "Note after each batch of logs how many items have been stored so far; they are stored in the order of their making."
    reservoir = tank._pipelines[surgetank.Signal.LOGS]._reservoir
    file, keep, stored = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND), reservoir.keep, 0
    def noting(held):
        nonlocal stored
        keep(held)
        if held.record is not None:
            stored += held.batch.items
            os.write(file, b"%d\\n" % stored)
    reservoir.keep = noting
    tank._pipelines[surgetank.Signal.LOGS]._sealer._keep = tank._pipelines[surgetank.Signal.LOGS]._keep

def worker(folder):
    tank = install(timing=surgetank.Timing(backoff_max=0.5, cooldown_initial=0.1, cooldown_max=0.5))
    watch(tank, os.path.join(folder, str(os.getpid())))
    n = 0
    while True:
        work(n, 20)
        n += 20
        time.sleep(0.01)

signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        worker(line.strip())
    say(pid=pid)
"""


class Nursery:
    """The program, and the workers that it has been asked for."""

    def __init__(self, endpoint, folder, **variables):
        self.folder = Path(folder)
        self.folder.mkdir()
        self._process = start(PROGRAM, endpoint, stdin=True, **variables)
        self.pids = []

    def spawn(self):
        """Have a worker forked; return its process id."""
        self._process.stdin.write(f"{self.folder}\n")
        self._process.stdin.flush()
        pid = heard(self._process)["pid"]
        self.pids.append(pid)
        return pid

    def end(self):
        """End the program, whose workers have been killed."""
        self._process.stdin.close()
        # `communicate` would flush it.
        self._process.stdin = None
        _, errors = self._process.communicate(timeout=10)
        assert "Traceback" not in errors, errors

    def sealed(self):
        """Return the identities of the log records that were in the spool when their worker was killed."""
        found = set()
        for pid in self.pids:
            path = self.folder / str(pid)
            counts = path.read_text().split() if path.exists() else []
            if counts:
                found.update(f"{pid}-{n}" for n in range(int(counts[-1])))
        return found


def kill(pid):
    """As the kernel's memory killer does."""
    os.kill(pid, signal.SIGKILL)


def arrived(collector):
    """Return the identities of the log records that the collector has."""
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    from surgetank.model import Signal

    return {AnyValue.FromString(each).string_value for each in collector.tally.seen[Signal.LOGS]}
