"""Programs made of what the documentation tells users to write, run through an outage that a SIGTERM falls into."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

from surgetank.model import Signal
from surgetank.testing.collector import Collector

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "frameworks"

# What an application does when it is asked to: a span, a log record and a count, known by their number.
WORK = """
def work(n):
    from opentelemetry import metrics, trace
    from opentelemetry._logs import LogRecord, get_logger

    trace.get_tracer("app").start_span("work", attributes={"n": n}).end()
    get_logger("app").emit(LogRecord(body="worked", attributes={"item.id": str(n)}))
    metrics.get_meter("app").create_counter("work.done").add(1)
"""


def lines(page, number=0):
    """Return a page's block of Python, exactly as users read it."""
    return re.findall(r"```python\n(.*?)```", (PAGES / f"{page}.md").read_text(), re.DOTALL)[number]


def application(page, around, number=0):
    """Return a page's block with a small application around it, in which `work(n)` makes telemetry."""
    return lines(page, number) + WORK + textwrap.dedent(around)


class Stage:
    """A collector (over HTTP, or the one given), a folder for the application, a spool, and the process that is looked at."""

    may_miss_a_signal = False
    """gevent looks for signals and then waits in the kernel; one that comes between the two is seen at the next event only."""

    def __init__(self, folder, collector=None):
        self.folder = folder / "application"
        self.folder.mkdir()
        self.spool = folder / "spool"
        self.collector = collector or Collector(keep=True)
        self.protocol = getattr(self.collector, "protocol", "http/protobuf")
        self.process = None
        self.words = self.folder / "words.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def write(self, name, text):
        """Write one of the application's modules."""
        (self.folder / name).write_text(text)

    def start(self, *arguments, **variables):
        """Start Python with these arguments in the application's folder; what it says goes into a file."""
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))},
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "SURGETANK_PERSISTENCE_ENABLED": "true",
            "SURGETANK_STATUS_ENABLED": "false",
            # Metrics are stored here too, so that they can be counted to the last one.
            "SURGETANK_METRICS_PERSISTENCE_ENABLED": "true",
            "SURGETANK_SPOOL_DIR": str(self.spool),
            **variables,
        }
        with self.words.open("ab") as words:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=words,
                stderr=words,
                # A group of its own, so that a failed test can end the workers too.
                start_new_session=True,
            )

    def said(self):
        """Return everything that the processes have said."""
        return self.words.read_text(errors="replace")

    def until(self, condition, *, seconds=30.0):
        """Wait for a condition, however slow the machine is."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said()
            assert self.process is None or self.process.poll() is None, self.said()
            time.sleep(0.05)

    def get(self, path):
        """Ask the application for something."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read().decode()

    def is_up(self):
        """Whether the application answers."""
        try:
            self.get("/")
        except urllib.error.HTTPError as error:
            return error.code == 404
        except (OSError, http.client.HTTPException):
            return False
        return True

    def ask(self, first, count):
        """Have the application work."""
        for n in range(first, first + count):
            self.get(f"/work/{n}")

    def through_an_outage(self):
        """Half of two hundred requests before the collector goes away, half after; SIGTERM; the collector is back."""
        self.until(self.is_up)
        self.ask(0, 100)
        self.until(lambda: self.collector.report()["logs"]["unique"] > 0)
        self.collector.stop_listening()
        self.ask(100, 100)
        code = self.terminate()
        self.collector.listen_again()
        return code

    def terminate(self, number=signal.SIGTERM):
        """Send SIGTERM to the process, which tells its workers itself; return its exit code."""
        os.kill(self.process.pid, number)
        if self.may_miss_a_signal:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                os.kill(self.process.pid, number)
        return self.ended()

    def ended(self, *, seconds=30.0):
        """Wait for the end; nothing of what it said may be a traceback."""
        code = self.process.wait(seconds)
        for trouble in ("Traceback", "SIGSEGV", "SIGABRT", "SIGKILL"):
            assert trouble not in self.said(), self.said()
        return code

    def drain(self):
        """Deliver what dead processes have left, as an operator would."""
        command = ["spool", "drain", "--endpoint", self.collector.endpoint, "--dir", str(self.spool)]
        done = subprocess.run(
            [sys.executable, "-c", "from surgetank.cli import main; main()", *command, "--apply", "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol},
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def all_arrived(self, count):
        """Everything that was made has arrived, and nothing of it twice but what was in flight when the collector left."""
        spans, logs = Counter(self._spans()), Counter(self._logs())
        for numbers in (spans, logs):
            assert sorted(numbers) == list(range(count)), (sorted(numbers), self.said())
            # A batch whose answer the collector's end cut off comes again, at most once.
            assert max(numbers.values()) <= 2, (numbers, self.said())
        # Frameworks count, too, what is none of our business.
        assert self.collector.report()["delta_sums"].get("work.done") == count, (self.collector.report(), self.said())

    def _spans(self):
        for kind, request in self.collector.requests:
            if kind is Signal.SPANS:
                for resource in request.resource_spans:
                    for scope in resource.scope_spans:
                        # Frameworks make spans of their own.
                        yield from (span.attributes[0].value.int_value for span in scope.spans if span.name == "work")

    def _logs(self):
        for kind, request in self.collector.requests:
            if kind is Signal.LOGS:
                for resource in request.resource_logs:
                    for scope in resource.scope_logs:
                        yield from (int(record.attributes[0].value.string_value) for record in scope.log_records)

    def close(self):
        """End what is still running."""
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()
        self.collector.close()
