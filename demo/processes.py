"""The two kinds of process that the stage moves: a collector that can be killed, and an application that says how it is.

Owns: the child processes and what was read from them.
Threads: the stage's; an application has two more that read its output, and `_lock` guards what they share.
Invariants: a process that was started here is ended here, by its own handle.
"""

from __future__ import annotations

import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import IO, Final

from demo.figures import Mode, Report, Status
from surgetank.model import Signal

_ROOT: Final = Path(__file__).parents[1]
# Seconds for a report, and for a process to start or to end.
_REPORT_TIMEOUT: Final = 1.0
_END_TIMEOUT: Final = 5.0
# Below every system's range of ephemeral ports: while the collector is dead, no client may be given its
# port, least of all the application itself, whose attempts could then connect to themselves.
_PORTS: Final = range(20_000, 30_000)
# Status lines over which the rate is taken; they come every quarter second.
_RATE_WINDOW: Final = 9
_LOG_LINES_KEPT: Final = 50


class StageError(Exception):
    """A process did not start, or ended when it should not have."""


def free_port() -> int:
    """Return a loopback port on which nobody listens."""
    for _ in range(100):
        port = random.choice(_PORTS)
        with socket.socket() as probe:
            # As the collector does, so that connections of a past run that are not forgotten yet do not matter.
            if sys.platform != "win32":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise StageError("no free port was found")


def _environment() -> dict[str, str]:
    """Return ours without what would configure telemetry, and with delta temporality."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))}
    return {
        **kept,
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        # The collector is on this machine; a proxy could not reach it.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }


def start(arguments: list[str], stderr: int | IO[bytes], *, has_own_session: bool = False) -> subprocess.Popen[str]:
    """Start a module of ours, deaf to what our environment says about telemetry."""
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=_ROOT,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=has_own_session,
    )


class CollectorProcess:
    """
    A collector on a fixed port, which remembers over its own death what it took.

    Args:
        journal: The file in which it remembers.
    """

    def __init__(self, journal: Path) -> None:
        self.port = free_port()
        self.kills = 0
        self._journal = journal
        self._process: subprocess.Popen[str] | None = None

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it listens. Raises StageError when it does not."""
        errors = self._journal.with_suffix(".errors")
        with errors.open("wb") as stderr:
            arguments = ["surgetank.testing.collector", "--port", str(self.port), "--journal", str(self._journal)]
            self._process = start(arguments, stderr)
        assert self._process.stdout is not None
        if not self._process.stdout.readline():
            raise StageError(f"the collector did not start:\n{errors.read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a crash does: at once, with SIGKILL, in the middle of whatever it was doing."""
        if self._process is None:
            return
        self._process.kill()
        self._process.communicate()
        self._process = None
        self.kills += 1

    def report(self) -> Report | None:
        """Return what it has counted, or None when it does not answer."""
        if self._process is None:
            return None
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_REPORT_TIMEOUT)
        try:
            connection.request("GET", "/report")
            return Report.from_data(json.load(connection.getresponse()))
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def end(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.communicate(timeout=_END_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


class AppProcess:
    """
    An application process, and what it has said so far.

    Args:
        mode: Whose telemetry it uses.
        options: Further command-line options of `demo.app`.
    """

    def __init__(self, mode: Mode, **options: float | str | Path) -> None:
        arguments = ["demo.app", "--mode", mode]
        for name, value in options.items():
            arguments += [f"--{name.replace('_', '-')}", str(value)]
        self._lock = threading.Lock()
        # The lock guards everything below.
        self._recent: deque[Status] = deque(maxlen=_RATE_WINDOW)
        self._log: deque[str] = deque(maxlen=_LOG_LINES_KEPT)
        self._log_lines = 0
        self._worst_unaccounted = 0
        self._start_seconds = 0.0
        self._started_at = time.monotonic()
        self._process = start(arguments, subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read_status, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._read_log, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        """Its process identifier."""
        return self._process.pid

    @property
    def start_seconds(self) -> float:
        """How long it took from its start to its first line; 0 before that."""
        with self._lock:
            return self._start_seconds

    @property
    def status(self) -> Status | None:
        """Its latest line; None before the first."""
        with self._lock:
            return self._recent[-1] if self._recent else None

    @property
    def log_lines(self) -> int:
        """How many lines it has logged."""
        with self._lock:
            return self._log_lines

    @property
    def worst_unaccounted(self) -> int:
        """The most that its books have left over in any line: 0, or a defect."""
        with self._lock:
            return self._worst_unaccounted

    def log(self, count: int) -> list[str]:
        """Return the last lines that it logged."""
        with self._lock:
            return list(self._log)[-count:]

    def rates(self) -> dict[Signal, float]:
        """Return items made a second, by signal, over the last two seconds."""
        with self._lock:
            first, last = (self._recent[0], self._recent[-1]) if self._recent else (None, None)
        if first is None or last is None or last.is_final or last.elapsed <= first.elapsed:
            return dict.fromkeys(Signal, 0.0)
        return {signal: (last.made[signal] - first.made[signal]) / (last.elapsed - first.elapsed) for signal in Signal}

    def has_ended(self) -> bool:
        """Whether it has ended well. Raises StageError when it has ended otherwise."""
        code = self._process.poll()
        if code is None:
            return False
        for reader in self._readers:
            reader.join(_END_TIMEOUT)
        if code != 0 or self.status is None or not self.status.is_final:
            raise StageError(f"the application ended with {code}:\n" + "\n".join(self.log(_LOG_LINES_KEPT)))
        return True

    def strike(self) -> None:
        """Kill it with SIGKILL, whatever it is doing, and return at once."""
        self._process.kill()

    def end(self) -> None:
        """Kill it, if it has not ended by itself, and read what it has said: nobody waits for its telemetry any more."""
        self.strike()
        self._process.wait()
        for reader in self._readers:
            reader.join(_END_TIMEOUT)

    def _read_status(self, lines: IO[str]) -> None:
        for line in lines:
            if not line.endswith("\n"):
                # It was killed in the middle of a word.
                break
            status = Status.from_json(line)
            left_over = max((abs(books.unaccounted) for books in status.books.values()), default=0)
            with self._lock:
                self._start_seconds = self._start_seconds or time.monotonic() - self._started_at
                self._recent.append(status)
                self._worst_unaccounted = max(self._worst_unaccounted, left_over)
        lines.close()

    def _read_log(self, lines: IO[str]) -> None:
        for line in lines:
            with self._lock:
                self._log.append(line.rstrip())
                self._log_lines += 1
        lines.close()
