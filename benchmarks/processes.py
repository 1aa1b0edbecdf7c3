"""Runs each measurement in a process of its own, and the endpoints that it talks to."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.workload import MODES


def measure(module: str, **options: Any) -> dict[str, Any]:
    """Run `python -m benchmarks.<module>` with options and return the JSON line that it prints last."""
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    # Installed packages have their bytecode beside them; so shall we, or imports would measure the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    # Not in the system's temporary folder, which may be in memory, and which no spool takes.
    with tempfile.TemporaryDirectory(prefix="surgetank-bench-", dir=_place()) as folder:
        environment["SURGETANK_SPOOL_DIR"] = f"{folder}/spool"
        # The stock exporters log every failure; that is known and not what is measured.
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _place() -> Path:
    place = Path.home() / ".cache"
    place.mkdir(exist_ok=True)
    return place


def rounds(module: str, count: int, modes: tuple[str, ...] = MODES, **options: Any) -> dict[str, list[dict[str, Any]]]:
    """Measure every mode `count` times, interleaved, so that a slow minute of the machine meets them all."""
    results: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    for _ in range(count):
        for mode in modes:
            results[mode].append(measure(module, mode=mode, **options))
    return results


def side_by_side(calls: list[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Run measurements that mostly wait at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(lambda call: measure(call[0], **call[1]), calls))


@contextmanager
def collector_process() -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the endpoint of a collector, and its process."""
    command = [sys.executable, "-m", "surgetank.testing.collector"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}", process
        finally:
            process.terminate()


@contextmanager
def collector() -> Iterator[str]:
    """Yield the endpoint of a collector process."""
    with collector_process() as (endpoint, _):
        yield endpoint


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield an endpoint that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an endpoint where nobody listens."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}"
