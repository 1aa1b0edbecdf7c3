"""An application of four threads at full speed in a memory cgroup, with its collector gone: does it live, and how fast?

Run by `python -m benchmarks pressure`, or by hand: `python -m benchmarks.pressure --mode ours --limit-mb 160`. As root on
Linux it makes a real cgroup (v2, or v1 where only that is mounted); elsewhere the limit is only configured.

The process that measures forks the application, puts it into the cgroup and reads what it says; it prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import collector_process

THREADS = 4
POOL = os.urandom(64 * 1024).hex()
MEBIBYTE = 1 << 20


def memory_controller() -> tuple[Path, str] | None:
    """Return the folder in which a cgroup can be made, and the name of its limit's file; None where there is none."""
    v1 = Path("/sys/fs/cgroup/memory")
    v2 = Path("/sys/fs/cgroup")
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    if (v2 / "cgroup.controllers").exists() and "memory" in (v2 / "cgroup.controllers").read_text():
        return v2, "memory.max"
    return (v1, "memory.limit_in_bytes") if (v1 / "memory.limit_in_bytes").exists() else None


@contextmanager
def cgroup(limit_mb: float) -> Iterator[Path | None]:
    """Make a memory cgroup with a limit and without swap, and remove it."""
    found = memory_controller()
    if found is None:
        yield None
        return
    folder = found[0] / f"surgetank-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / found[1]).write_text(str(int(limit_mb * MEBIBYTE)))
    except OSError:
        yield None
        return
    try:
        yield folder
    finally:
        for _ in range(100):
            try:
                folder.rmdir()
                break
            except OSError:
                time.sleep(0.05)


def unit() -> int:
    """Do some half a millisecond of the application's own work."""
    return sum(n * n for n in range(8_000))


class Producer(threading.Thread):
    """Works and makes spans until told to stop."""

    def __init__(self, tracer: Any, number: int, kib: int) -> None:
        super().__init__(daemon=True)
        self.units = 0
        self.is_stopping = False
        self._tracer, self._number, self._kib = tracer, number, kib

    def run(self) -> None:
        size = self._kib * 1024
        while not self.is_stopping:
            unit()
            at = (self.units * 7919 + self._number * 31) % (len(POOL) - size)
            span = self._tracer.start_span("work", attributes={"n": self.units, "payload": POOL[at : at + size]})
            span.end()
            self.units += 1


def processor(given: argparse.Namespace) -> Any:
    """Return the processor of a mode; the stock SDK's queue has the same bytes as ours."""
    from benchmarks.workload import processor as of_mode

    if given.mode == "ours":
        memory = {} if given.in_cgroup else {"memory": _memory_config(given.limit_mb)}
        return of_mode(
            "ours",
            given.endpoint,
            max_size=1_000_000,
            max_memory_mb=given.buffer_mb,
            persistence_enabled=given.spool,
            **memory,
        )
    return of_mode(given.mode, given.endpoint, max_size=int(given.buffer_mb * 1024 / given.kib))


def _memory_config(limit_mb: float) -> Any:
    from surgetank import MemoryConfig

    return MemoryConfig(limit_mb=limit_mb)


def resident(process: psutil.Process, *, is_charged: bool) -> int:
    """Return the resident bytes; in a control group without the pages of files, which are charged to whoever touched them first."""
    status = Path("/proc/self/status")
    if is_charged and status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    return process.memory_info().rss


def application(given: argparse.Namespace) -> None:
    """Say every half second how many units were done and how much memory is resident; the last line has the books."""
    sys.stdin.readline()  # Until we are in the cgroup.
    from benchmarks.workload import provider

    inner = processor(given)
    _, tracer = provider(inner)
    producers = [Producer(tracer, number, given.kib) for number in range(THREADS)]
    process = psutil.Process()
    for producer in producers:
        producer.start()
    began = time.monotonic()
    tank = getattr(inner, "tank", None)
    while (elapsed := time.monotonic() - began) < given.before + given.away:
        time.sleep(0.5)
        line = {
            "elapsed": elapsed,
            "units": sum(producer.units for producer in producers),
            "rss": resident(process, is_charged=given.in_cgroup),
            "held": tank.stats().spans.memory_bytes if tank else 0,
            "scale": tank.pressure.current.scale if tank else 1.0,
        }
        print(json.dumps(line), flush=True)
    for producer in producers:
        producer.is_stopping = True
    for producer in producers:
        producer.join()
    books = tank.stats().spans if tank else None
    made = sum(producer.units for producer in producers)
    last = {
        "made": made,
        "balanced": books is not None and books.unaccounted == 0 and books.offered == made,
        "dropped": dict(books.dropped) if books else None,
        "peak_held": books.memory_peak_bytes if books else None,
        "source": tank.pressure.current.reading.source if tank and tank.pressure.current.reading else None,
    }
    print(json.dumps(last), flush=True)
    os._exit(0)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Run the application in a cgroup, with a collector that goes away."""
    command = [sys.executable, "-m", "benchmarks.pressure", "--role", "application"]
    for name in ("mode", "limit_mb", "buffer_mb", "kib", "before", "away"):
        command += [f"--{name.replace('_', '-')}", str(getattr(given, name))]
    if given.spool:
        command.append("--spool")
    with cgroup(given.limit_mb) as folder, collector_process() as (endpoint, collector):
        command += ["--endpoint", endpoint, *(["--in-cgroup"] if folder else [])]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            if folder is not None:
                (folder / "cgroup.procs").write_text(str(process.pid))
            process.stdin.write("\n")
            process.stdin.flush()
            lines = []
            is_up = True
            for text in process.stdout:
                lines.append(json.loads(text))
                if is_up and lines[-1].get("elapsed", 0) > given.before:
                    # As a collector goes: killed, with everything it had.
                    collector.kill()
                    is_up = False
        return verdict(given, lines, process.returncode, has_cgroup=folder is not None)


def verdict(
    given: argparse.Namespace, lines: list[dict[str, Any]], code: int | None, *, has_cgroup: bool
) -> dict[str, Any]:
    """Judge what the application said."""
    steps = [line for line in lines if "elapsed" in line]
    healthy = [line for line in steps if 1.0 < line["elapsed"] <= given.before]
    outage = [line for line in steps if line["elapsed"] > given.before]

    def rate(some: list[dict[str, Any]]) -> float:
        if len(some) < 2:
            return 0.0
        return float((some[-1]["units"] - some[0]["units"]) / (some[-1]["elapsed"] - some[0]["elapsed"]))

    return {
        "has_cgroup": has_cgroup,
        "survived": code == 0,
        "code": code,
        "lived_seconds": steps[-1]["elapsed"] if steps else 0.0,
        "rate_before": rate(healthy),
        "rate_away": rate(outage),
        "peak_rss_mb": max((line["rss"] for line in steps), default=0) / MEBIBYTE,
        "lowest_scale": min((line["scale"] for line in steps), default=1.0),
        **(lines[-1] if lines and "made" in lines[-1] else {}),
    }


def main() -> None:
    """Parse, and play the role."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--role", choices=("measure", "application"), default="measure")
    parser.add_argument("--mode", choices=("none", "stock", "ours"), default="ours")
    parser.add_argument("--endpoint", default="http://127.0.0.1:9")
    parser.add_argument("--limit-mb", type=float, default=160.0)
    parser.add_argument("--buffer-mb", type=float, default=400.0)
    parser.add_argument("--kib", type=int, default=16)
    parser.add_argument("--before", type=float, default=8.0)
    parser.add_argument("--away", type=float, default=60.0)
    parser.add_argument("--spool", action="store_true")
    parser.add_argument("--in-cgroup", action="store_true")
    given = parser.parse_args()
    if given.role == "application":
        application(given)
    else:
        print(json.dumps(measure(given)))


if __name__ == "__main__":
    main()
