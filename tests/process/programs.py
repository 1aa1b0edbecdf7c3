"""Runs small application programs as real processes against a collector in the test."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

PREAMBLE = """
import json, logging, os, signal, sys, threading, time
import surgetank
from opentelemetry import metrics, trace
from opentelemetry._logs import LogRecord, get_logger

SETTINGS = dict(schedule_delay=0.1)
def install(**settings):
    return surgetank.install(
        spans=surgetank.BufferConfig(max_size=20_000, **SETTINGS),
        logs=surgetank.BufferConfig(max_size=20_000, **SETTINGS),
        metrics=surgetank.BufferConfig(**SETTINGS),
        **settings,
    )

def work(first, count):
    tracer, logger = trace.get_tracer("app"), get_logger("app")
    counter = metrics.get_meter("app").create_counter("work.done")
    for n in range(first, first + count):
        tracer.start_span("work", attributes={"n": n}).end()
        logger.emit(LogRecord(body="worked", attributes={"item.id": f"{os.getpid()}-{n}"}))
        counter.add(1)

def idle():
    # Short sleeps, because a signal that arrives just before a long one is handled only after it.
    while True: time.sleep(0.02)

def say(**words):
    print(json.dumps(words), flush=True)

def books(tank):
    stats = tank.stats()
    return {
        name: {
            "offered": s.offered, "delivered": s.delivered, "dropped": dict(s.dropped),
            "queued": s.queued, "in_flight": s.in_flight, "unaccounted": s.unaccounted,
            "rejected": s.rejected, "recovered": s.recovered, "spooled": s.spooled,
        }
        for name, s in (("spans", stats.spans), ("metrics", stats.metrics), ("logs", stats.logs))
    }
"""


def start(program, endpoint, *, stdin=False, **variables):
    """Start a program; it finds `install`, `work`, `say` and `books`, and can be spoken to if `stdin` is set."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))},
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_METRIC_EXPORT_INTERVAL": "60000",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "SURGETANK_PERSISTENCE_ENABLED": "false",
        "SURGETANK_STATUS_ENABLED": "false",
        **variables,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", PREAMBLE + textwrap.dedent(program)],
        env=environment,
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _started.append(process)
    return process


_started = []


def kill_all():
    """End what a failed test has left running."""
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()
        process.communicate()


def heard(process):
    """Return the next line that a program says."""
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    return json.loads(line)


def told(process):
    """Let a program go on that reads a line."""
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until(condition, seconds):
    """Wait for a condition, for so long at most; return whether it holds."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def ended(process, *, timeout=30.0):
    """Wait for the end; return the exit code and all further words."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert "Traceback" not in err, err
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def run(program, endpoint, **variables):
    """Run a program to its end."""
    return ended(start(program, endpoint, **variables))


def own_sums(report):
    """Return a report's sums of the application's metrics: a tank measures itself, and so does version 1.41 of OpenTelemetry."""
    measured = ("otel.sdk.", "surgetank.")
    return {name: total for name, total in report["delta_sums"].items() if not name.startswith(measured)}


def terminate(process):
    """Send SIGTERM."""
    os.kill(process.pid, signal.SIGTERM)
