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

from benchmarks.workload import MODES, RESOURCE


def measure(module: str, **options: Any) -> dict[str, Any]:
    """
    Run `python -m benchmarks.<module>` with options and return the JSON line that it prints last.

    With `door="zero"` it runs under `opentelemetry-instrument`, configured by ours or by the stock configurator.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}"]
    if options.get("door") == "zero":
        command.insert(0, os.path.join(os.path.dirname(sys.executable), "opentelemetry-instrument"))
    for name, value in options.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    # Installed packages have their bytecode beside them; so shall we, or imports would measure the compiler.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if options.get("door") == "zero":
        environment |= _settings(**options)
    # Not in the system's temporary folder, which may be in memory, and which no spool takes.
    with tempfile.TemporaryDirectory(prefix="surgetank-bench-", dir=_place()) as folder:
        environment["SURGETANK_SPOOL_DIR"] = f"{folder}/spool"
        # The stock exporters log every failure; that is known and not what is measured.
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _settings(
    *,
    mode: str,
    endpoint: str,
    max_size: int,
    max_memory_mb: float = 4096,
    protocol: str = "http/protobuf",
    compression: str = "gzip",
    **_: Any,
) -> dict[str, str]:
    """Return what `workload.processor` says in code; for ours and for stock the same, but for the configurator's name."""
    return {
        "OTEL_PYTHON_CONFIGURATOR": "surgetank" if mode == "ours" else "configurator",
        "OTEL_TRACES_EXPORTER": "none" if mode == "none" else "otlp",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_COMPRESSION": compression,
        "OTEL_BSP_MAX_QUEUE_SIZE": str(max_size),
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": str(min(512, max_size)),
        "OTEL_RESOURCE_ATTRIBUTES": ",".join(f"{name}={value!s}" for name, value in RESOURCE.attributes.items()),
        "SURGETANK_SPANS_MAX_MEMORY_MB": str(max_memory_mb),
    }


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
def collector_process(protocol: str = "http/protobuf") -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the endpoint of a collector, and its process."""
    module = "benchmarks.grpc_collector" if protocol == "grpc" else "surgetank.testing.collector"
    command = [sys.executable, "-m", module]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{json.loads(process.stdout.readline())['port']}", process
        finally:
            process.terminate()


@contextmanager
def collector(protocol: str = "http/protobuf") -> Iterator[str]:
    """Yield the endpoint of a collector process."""
    with collector_process(protocol) as (endpoint, _):
        yield endpoint


@contextmanager
def black_hole() -> Iterator[str]:
    """Yield an endpoint that accepts connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        return int(placeholder.getsockname()[1])


@contextmanager
def refusing() -> Iterator[str]:
    """Yield an endpoint where nobody listens."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}"
