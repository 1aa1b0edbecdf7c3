"""The spool beside sqlite3 in WAL mode: a batch's cost by durability, replay, start time and memory against backlog.

Run by `python -m benchmarks spool`; prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

import surgetank
from benchmarks.workload import make_span, provider
from surgetank.clock import SystemClock
from surgetank.model import Batch, Lane, Signal
from surgetank.spool.disk import Disk
from surgetank.spool.filesystem import OsFilesystem
from surgetank.spool.settings import SpoolSettings

GIBIBYTE = 1 << 30
# What 512 spans of ten attributes and an event come to with gzip.
BODY_BYTES = 32 * 1024


def disk_bytes() -> int:
    """Return what this process has had written to disk, without what was cut off again before the kernel came to it."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counters["write_bytes"]) - int(counters["cancelled_write_bytes"])


def batch(number: int, body: bytes) -> Batch:
    """Return a batch of 512 spans with an opaque body."""
    return Batch(
        id=f"bench-{number}",
        signal=Signal.SPANS,
        lane=Lane.NORMAL,
        items=512,
        body=body,
        raw_size=8 * len(body),
        encoding="gzip",
        created=time.time(),
    )


def disk(folder: str, durability: str = "os") -> Disk:
    """Return a disk with room for everything."""
    settings = SpoolSettings(
        path=folder,
        max_bytes=64 * GIBIBYTE,
        durability=durability,  # type: ignore[arg-type]  # the command line's choices
    )
    return Disk(settings, OsFilesystem(), SystemClock())


def appending(kind: str, folder: str) -> tuple[Callable[[Batch], Any], Callable[[Any], Any]]:
    """Return how a batch is stored and acknowledged."""
    if kind.startswith("sqlite"):
        base = sqlite3.connect(os.path.join(folder, "queue.db"), isolation_level=None)
        base.execute("PRAGMA journal_mode=WAL")
        base.execute("PRAGMA synchronous=" + ("FULL" if kind == "sqlite-full" else "OFF"))
        base.execute("CREATE TABLE queue (id INTEGER PRIMARY KEY, batch TEXT, items INTEGER, body BLOB)")
        insert = "INSERT INTO queue (batch, items, body) VALUES (?, ?, ?)"
        return (
            lambda b: base.execute(insert, (b.id, b.items, b.body)).lastrowid,
            lambda row: base.execute("DELETE FROM queue WHERE id = ?", (row,)),
        )
    spool = disk(folder, kind).spools[Signal.SPANS]
    if kind == "disk":

        def store(b: Batch) -> Any:
            record = spool.append(b)
            # A group of one: the dearest case.
            spool.sync()
            return record

        return store, spool.ack
    return spool.append, spool.ack


def append(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Store and acknowledge batches one after the other, as a healthy process does, or pile them up."""
    store, ack = appending(given.kind, folder)
    bodies = [os.urandom(BODY_BYTES) for _ in range(64)]
    durations, waiting = [], []
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    written = disk_bytes()
    for number in range(given.batches):
        one = batch(number, bodies[number % 64])
        start = time.perf_counter()
        waiting.append(store(one))
        durations.append(time.perf_counter() - start)
        if len(waiting) > given.depth:
            ack(waiting.pop(0))
    seconds = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_SELF)
    durations.sort()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "cpu_us": cpu / given.batches * 1e6,
        "p50_us": durations[len(durations) // 2] * 1e6,
        "p99_us": durations[int(len(durations) * 0.99)] * 1e6,
        "max_us": durations[-1] * 1e6,
        "batches_a_second": given.batches / seconds,
        "disk_kib_a_batch": (disk_bytes() - written) / given.batches / 1024,
    }


def fill(folder: str, gigabytes: float) -> int:
    """Leave a dead process's backlog; returns the batches."""
    pid = os.fork()
    batches = int(gigabytes * GIBIBYTE / BODY_BYTES)
    if pid == 0:
        spool = disk(folder).spools[Signal.SPANS]
        bodies = [os.urandom(BODY_BYTES) for _ in range(64)]
        for number in range(batches):
            spool.append(batch(number, bodies[number % 64]))
        os._exit(0)
    os.waitpid(pid, 0)
    return batches


def replay(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Adopt a backlog and lease and acknowledge all of it."""
    batches = fill(folder, given.gigabytes)
    heir = disk(folder)
    spool = heir.spools[Signal.SPANS]
    process = psutil.Process()
    rss = peak = process.memory_info().rss
    began = time.perf_counter()
    heir.adopt_orphans()
    adopted = time.perf_counter()
    recovered = spool.changes().recovered
    count = 0
    while (held := spool.lease(0.0, lambda items, size: True)) is not None:
        assert held.record is not None
        spool.ack(held.record)
        count += 1
        if count % 64 == 0:
            peak = max(peak, process.memory_info().rss)
    seconds = time.perf_counter() - adopted
    assert count == batches
    assert recovered == 512 * batches
    return {
        "adoption_ms": (adopted - began) * 1000,
        "batches_a_second": count / seconds,
        "mib_a_second": count * BODY_BYTES / seconds / 2**20,
        "rss_growth_mb": (peak - rss) / 1e6,
    }


def start(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Make a tank on a backlog; the time until it can be used, and what the process has grown by when all is adopted."""
    batches = fill(folder, given.gigabytes) if given.gigabytes else 0
    process = psutil.Process()
    # The first tank pays for imports.
    surgetank.Tank(endpoint="http://127.0.0.1:9", persistence_enabled=False, handle_sigterm=False)
    rss = process.memory_info().rss
    began = time.perf_counter()
    tank = surgetank.Tank(
        endpoint="http://127.0.0.1:9",
        spool=surgetank.SpoolConfig(dir=folder, max_mb=1_048_576),
        handle_sigterm=False,
    )
    ready = time.perf_counter()
    while tank.stats().spans.recovered < 512 * batches:
        time.sleep(0.002)
    adopted = time.perf_counter()
    return {
        "start_ms": (ready - began) * 1000,
        "adopted_ms": (adopted - began) * 1000,
        "rss_growth_mb": (process.memory_info().rss - rss) / 1e6,
    }


def cpu(given: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Make spans against a healthy endpoint: CPU per span and bytes that reach the disk, without and with the spool, in turn."""
    results: dict[str, list[float]] = {"none": [], "memory": [], "spool": []}
    traffic = 0.0
    processors: dict[str, Any] = {"none": surgetank_free()}
    tanks = {}
    for kind in ("memory", "spool"):
        tanks[kind] = surgetank.Tank(
            endpoint=given.endpoint,
            spans=surgetank.BufferConfig(max_size=4 * given.spans),
            persistence_enabled=kind == "spool",
            spool=surgetank.SpoolConfig(dir=folder),
            handle_sigterm=False,
        )
        processors[kind] = tanks[kind].span_processor
    tracers = {kind: provider(processor)[1] for kind, processor in processors.items()}
    for round_number in range(given.rounds + 1):
        for kind, tracer in tracers.items():
            written = disk_bytes()
            began = time.process_time()
            for number in range(given.spans):
                make_span(tracer, number)
                if number % 100 == 99:
                    # A steady application, not one that starves every other thread.
                    time.sleep(0.002)
            processors[kind].force_flush(60_000)
            used = (time.process_time() - began) / given.spans * 1e6
            if round_number:
                results[kind].append(used)
                if kind == "spool":
                    traffic += disk_bytes() - written
    none, memory, spool = (sorted(results[kind])[len(results[kind]) // 2] for kind in results)
    return {
        "memory_us": memory - none,
        "spool_us": spool - none,
        "disk_bytes_a_span": traffic / (given.rounds * given.spans),
    }


def surgetank_free() -> Any:
    """Return a processor that does nothing."""
    from opentelemetry.sdk.trace import SpanProcessor

    return SpanProcessor()


def main() -> None:
    """Measure one thing in the folder that `processes.measure` has made and removes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("append", "replay", "start", "cpu"), required=True)
    parser.add_argument("--kind", choices=("os", "disk", "sqlite-off", "sqlite-full"), default="os")
    parser.add_argument("--endpoint", default="http://127.0.0.1:9")
    parser.add_argument("--batches", type=int, default=4000)
    parser.add_argument("--depth", type=int, default=0)
    parser.add_argument("--gigabytes", type=float, default=0.25)
    parser.add_argument("--spans", type=int, default=4000)
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    folder = os.environ["SURGETANK_SPOOL_DIR"]
    os.makedirs(folder, mode=0o700)
    print(json.dumps(globals()[given.what](given, folder)), flush=True)
    # Without a shutdown, which is measured elsewhere.
    os._exit(0)


if __name__ == "__main__":
    main()
