"""Resident memory over time in a long outage at a steady rate, ours and stock, as a plot; and what each strategy keeps.

    python -m benchmarks.soak --minutes 60 --rate 5000 --plot docs/images/outage.png      # both side by side
    python -m benchmarks.soak --what kept                                                 # 50 MB, by strategy

The spans are the benchmark's: ten attributes and one event. The endpoint refuses from the beginning.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

from benchmarks.processes import refusing
from benchmarks.workload import make_span, processor, provider

# The stock queue is given room for as much of an outage as would be some use, and still fits a large machine.
STOCK_MINUTES = 3
BUFFER_MB = 50.0


def application(given: argparse.Namespace) -> None:
    """Make spans at a steady rate, and say once a second what is resident and what is held."""
    queue = int(given.rate * 60 * STOCK_MINUTES)
    options: dict[str, Any] = {"max_size": queue, "persistence_enabled": given.mode == "spool"}
    if given.mode == "stock":
        options = {"max_size": queue}
    inner = processor("stock" if given.mode == "stock" else "ours", given.endpoint, max_memory_mb=BUFFER_MB, **options)
    _, tracer = provider(inner)
    process, tank = psutil.Process(), getattr(inner, "tank", None)
    made, next_line, began = 0, 0.0, time.monotonic()
    while (elapsed := time.monotonic() - began) < given.minutes * 60:
        while made < elapsed * given.rate:
            make_span(tracer, made)
            made += 1
        if elapsed >= next_line:
            next_line += 1.0
            books = tank.stats().spans if tank else None
            line = {
                "elapsed": elapsed,
                "made": made,
                "rss": process.memory_info().rss,
                "kept": books.queued + books.in_flight + books.spooled if books else min(made, queue),
                "unaccounted": books.unaccounted if books else 0,
            }
            print(json.dumps(line), flush=True)
        time.sleep(0.002)
    os._exit(0)


def soak(given: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """Run the modes at the same time; return what each said."""
    said: dict[str, list[dict[str, Any]]] = {mode: [] for mode in given.modes.split(",")}
    place = Path.home() / ".cache"
    place.mkdir(exist_ok=True)
    with refusing() as endpoint, tempfile.TemporaryDirectory(dir=place) as folder:
        threads = []
        for mode, lines in said.items():
            command = [sys.executable, "-m", "benchmarks.soak", "--what", "application", "--mode", mode]
            command += ["--rate", str(given.rate), "--minutes", str(given.minutes), "--endpoint", endpoint]
            environment = {**os.environ, "SURGETANK_SPOOL_DIR": f"{folder}/{mode}", "SURGETANK_SPOOL_MAX_MB": "4096"}
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
            )
            assert process.stdout is not None
            thread = threading.Thread(target=_listen, args=(process, lines))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()
    return said


def _listen(process: subprocess.Popen[str], lines: list[dict[str, Any]]) -> None:
    assert process.stdout is not None
    lines.extend(map(json.loads, process.stdout))
    process.wait()


def plot(said: dict[str, list[dict[str, Any]]], path: str, rate: float) -> None:
    """Draw resident memory over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    names = {
        "stock": f"stock SDK, a queue for {STOCK_MINUTES} minutes",
        "ours": f"surgetank, {BUFFER_MB:g} MB in memory",
        "spool": f"surgetank, {BUFFER_MB:g} MB in memory and a spool",
    }
    figure, axes = plt.subplots(figsize=(9, 4.2))
    for mode, lines in said.items():
        axes.plot(
            [line["elapsed"] / 60 for line in lines], [line["rss"] / 2**20 for line in lines], label=names[mode], lw=1.6
        )
    axes.set_xlabel("minutes without a collector")
    axes.set_ylabel("resident memory, MiB (logarithmic)")
    axes.set_yscale("log")
    axes.set_title(f"An outage at {rate:,.0f} spans/s")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.tight_layout()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def kept(given: argparse.Namespace) -> dict[str, Any]:
    """Fill 50 MB three times over with each strategy; return what is left of it, and how much of an outage that is."""
    import surgetank

    found = {}
    with refusing() as endpoint:
        for strategy in ("oldest", "newest", "sampling"):
            tank = surgetank.Tank(
                endpoint=endpoint,
                spans=surgetank.BufferConfig(max_size=10_000_000, max_memory_mb=BUFFER_MB, drop_strategy=strategy),
                persistence_enabled=False,
                handle_sigterm=False,
            )
            _, tracer = provider(tank.span_processor)
            for number in range(given.spans):
                make_span(tracer, number)
                if number % 200 == 199:
                    # A steady application, not one that starves the sealer.
                    time.sleep(0.004)
            stats = tank.stats().spans
            found[strategy] = {
                "offered": stats.offered,
                "kept": stats.queued + stats.in_flight,
                "dropped": dict(stats.dropped),
                "minutes_at_rate": (stats.queued + stats.in_flight) / given.rate / 60,
                "peak_mb": stats.memory_peak_bytes / 2**20,
            }
    return found


def main() -> None:
    """Parse, and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--what", choices=("soak", "application", "kept"), default="soak")
    parser.add_argument("--mode", choices=("stock", "ours", "spool"), default="ours")
    parser.add_argument("--modes", default="stock,ours,spool")
    parser.add_argument("--endpoint", default="http://127.0.0.1:9")
    parser.add_argument("--rate", type=float, default=5000.0)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--spans", type=int, default=1_500_000)
    parser.add_argument("--plot", default="outage.png")
    given = parser.parse_args()
    if given.what == "application":
        application(given)
    elif given.what == "kept":
        print(json.dumps(kept(given)))
        os._exit(0)
    else:
        said = soak(given)
        plot(said, given.plot, given.rate)
        print(json.dumps({mode: lines[-1] if lines else None for mode, lines in said.items()}))


if __name__ == "__main__":
    main()
