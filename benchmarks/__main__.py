"""Measures the README's table: `python -m benchmarks [figure ...]`; without arguments, all of it (some fifteen minutes)."""

from __future__ import annotations

import argparse
import platform
import statistics
from collections.abc import Callable
from typing import Any

import psutil
from opentelemetry.sdk.version import __version__ as sdk_version

from benchmarks.processes import black_hole, collector, free_port, measure, refusing, rounds, side_by_side
from benchmarks.workload import MODES

# Figure, stock, ours, what ours is to reach.
Row = tuple[str, str, str, str]


def median(results: list[dict[str, Any]], name: str) -> float:
    """Return the median of one measured value over the rounds."""
    return float(statistics.median(result[name] for result in results))


def cpu(**how: Any) -> list[Row]:
    """CPU per span and `on_end`; `how` is a door, a protocol, a compression."""
    with collector(how.get("protocol", "http/protobuf")) as endpoint:
        options = {"endpoint": endpoint, "max_size": 8_000, **how}
        if how.get("door") == "zero":
            # There is one such door in a process, so stock and ours have one each, with their own spans without export.
            pairs = [{mode: measure("cpu", mode=mode, **options) for mode in ("stock", "ours")} for _ in range(3)]
            results = [{mode: pair[mode][mode] for mode in pair} | {"none": pair["ours"]["none"]} for pair in pairs]
        else:
            results = [measure("cpu", **options) for _ in range(3)]
    at = {
        name: {mode: median([result[mode] for result in results], name) for mode in MODES}
        for name in ("cpu_us", "beyond_us", "on_end_p50_us", "on_end_mean_us")
    }
    ratio = {
        name: statistics.median(result["ours"][name] / result["stock"][name] for result in results)
        for name in ("beyond_us", "on_end_p50_us")
    }
    beyond, on_end, mean = at["beyond_us"], at["on_end_p50_us"], at["on_end_mean_us"]
    return [
        (
            f"process CPU per span beyond making it ({at['cpu_us']['none']:.0f} µs), endpoint up, {how.get('compression', 'gzip')}",
            f"{beyond['stock']:.1f} µs",
            f"{beyond['ours']:.1f} µs (1/{1 / ratio['beyond_us']:.1f})",
            "≤ 1/4, aim 1/6",
        ),
        (
            "`on_end` on the application's thread, median",
            f"{on_end['stock']:.2f} µs",
            f"{on_end['ours']:.2f} µs ({ratio['on_end_p50_us']:.1f} times)",
            "≤ 3 µs where stock takes 1.1 (2.7 times)",
        ),
        ("… mean, while the spans are encoded beside it", f"{mean['stock']:.2f} µs", f"{mean['ours']:.2f} µs", ""),
    ]


def tail(**how: Any) -> list[Row]:
    """Stalls of the application's thread."""
    with collector(how.get("protocol", "http/protobuf")) as endpoint:
        results = rounds("tail", 3, endpoint=endpoint, max_size=20_000, **how)
    p999 = {mode: median(results[mode], "p999") / 1000 for mode in results}
    worst = {mode: max(r["max"] for r in results[mode]) / 1000 for mode in results}
    return [
        (
            f"application-thread stall, p99.9 of a 0.2 ms unit (no export: {p999['none']:.2f} ms)",
            f"{p999['stock']:.2f} ms",
            f"{p999['ours']:.2f} ms",
            "≤ 1 ms",
        ),
        ("… worst of 36,000", f"{worst['stock']:.1f} ms", f"{worst['ours']:.1f} ms", ""),
    ]


def memory(**how: Any) -> list[Row]:
    """Resident memory per waiting span."""
    options = {"max_size": 200_000, "max_memory_mb": 50.0, **how}
    with refusing() as endpoint:
        results = {mode: measure("memory", mode=mode, endpoint=endpoint, **options) for mode in ("stock", "ours")}
    return [
        (
            f"resident memory per waiting span in an outage ({results['ours']['held']:,} of 200,000 held)",
            f"{results['stock']['per_span_kb']:.2f} KB",
            f"{results['ours']['per_span_kb']:.2f} KB",
            "≤ 0.2 KB",
        )
    ]


def large() -> list[Row]:
    """Spans with a large attribute."""
    options = {"spans": 4096, "attribute_kib": 1024, "max_size": 2048}
    with refusing() as endpoint:
        results = {mode: measure("memory", mode=mode, endpoint=endpoint, **options) for mode in ("stock", "ours")}
    return [
        (
            "4096 spans with a 1 MiB attribute each, endpoint down: peak growth of resident memory",
            f"{results['stock']['peak_mb']:,.0f} MB",
            f"{results['ours']['peak_mb']:.0f} MB",
            "≤ 50 MiB + 30 MB",
        )
    ]


def deadlines(**how: Any) -> list[Row]:
    """Flush and shutdown with a dead endpoint."""
    rows: list[Row] = []
    with refusing() as refused, black_hole() as silent:
        cases = [
            (call, kind, mode)
            for call in ("flush", "shutdown")
            for kind in ("refused", "silent")
            for mode in ("stock", "ours")
        ]
        endpoints = {"refused": refused, "silent": silent}
        results = side_by_side(
            [
                ("deadlines", {"mode": m, "endpoint": endpoints[k], "call": c, "max_size": 2048, **how})
                for c, k, m in cases
            ]
        )
    seconds = {case: result["seconds"] for case, result in zip(cases, results, strict=True)}
    for call, name, goal in (("flush", "force_flush(1 s)", "≤ 1.2 s"), ("shutdown", "shutdown()", "≤ 5.5 s")):
        stock, ours = (
            " / ".join(f"{seconds[call, kind, mode]:.1f} s" for kind in ("refused", "silent"))
            for mode in ("stock", "ours")
        )
        rows.append((f"`{name}` with a full buffer, endpoint refusing / black-holed", stock, ours, goal))
    return rows


def outage(**how: Any) -> list[Row]:
    """Thirty seconds without a collector."""
    calls = []
    for mode in ("stock", "ours"):
        port = free_port()
        options = {"mode": mode, "port": port, "endpoint": f"http://127.0.0.1:{port}", "max_size": 22_500, **how}
        calls.append(("outage", options))
    results = dict(zip(("stock", "ours"), side_by_side(calls), strict=True))
    lost = {
        mode: f"{r['made'] - r['arrived']:,} of {r['made']:,} lost ({1 - r['arrived'] / r['made']:.0%}), {r['duplicates']} twice"
        for mode, r in results.items()
    }
    return [("30 s outage at 450 spans/s, buffer sized for it", lost["stock"], lost["ours"], "0 lost")]


def spool() -> list[Row]:
    """What the disk costs; the column of the stock SDK, which has none, is sqlite3's (WAL)."""
    kinds = {kind: measure("spool", what="append", kind=kind) for kind in ("os", "disk", "sqlite-off", "sqlite-full")}
    with collector() as endpoint:
        healthy = [measure("spool", what="cpu", endpoint=endpoint, rounds=15) for _ in range(3)]
    share = statistics.median(result["spool_us"] / result["memory_us"] for result in healthy)
    traffic = statistics.median(result["disk_bytes_a_span"] for result in healthy)
    replay = measure("spool", what="replay", gigabytes=1.0)
    starts = {gigabytes: measure("spool", what="start", gigabytes=gigabytes) for gigabytes in (0.0, 5.0)}

    def cost(kind: str) -> str:
        return f"{kinds[kind]['cpu_us']:.0f} µs, {kinds[kind]['p99_us']:.0f} µs"

    return [
        (
            "process CPU per span with the spool, as a ratio to memory only; bytes that reach the disk per span",
            "-",
            f"{share:.2f}; {traffic:.1f} B",
            "≤ 1.10",
        ),
        (
            "a batch of 512 spans stored and acknowledged, durability `os`: CPU, p99 of the append",
            f"sqlite3: {cost('sqlite-off')}",
            cost("os"),
            "",
        ),
        ("… durability `disk`, a group of one", f"sqlite3: {cost('sqlite-full')}", cost("disk"), ""),
        (
            "replay of 1 GiB: rate, growth of resident memory",
            "-",
            f"{replay['mib_a_second']:.0f} MiB/s, {replay['rss_growth_mb']:.1f} MB",
            "bounded by what is in flight",
        ),
        (
            "start with a backlog of 0 / 5 GiB; growth of resident memory when all of it is adopted",
            "-",
            f"{starts[0.0]['start_ms']:.1f} ms / {starts[5.0]['start_ms']:.1f} ms; {starts[5.0]['rss_growth_mb']:.1f} MB",
            "constant",
        ),
    ]


def sampling() -> list[Row]:
    """What thinning out costs whoever offers."""
    result = measure("sampling")
    return [
        (
            "offer of a snapshot: `oldest` / `sampling` below half full / one trace in two kept",
            "-",
            " / ".join(f"{result[way]:.2f} µs" for way in ("oldest", "idle", "thinning")),
            "≤ 0.3 µs more below half full",
        )
    ]


def pressure() -> list[Row]:
    """An application in a memory cgroup of 160 MiB, with buffers far above it and its collector gone; and the monitor's cost."""
    results = {mode: measure("pressure", mode=mode) for mode in ("none", "stock", "ours")}

    def lived(mode: str) -> str:
        result = results[mode]
        if not result["survived"]:
            return f"killed after {result['lived_seconds']:.0f} s"
        change = result["rate_away"] / result["rate_before"] - 1
        return f"lived; {result['peak_rss_mb']:.0f} MiB at most; own work {change:+.0%}"

    bare = results["none"]["rate_away"] / results["none"]["rate_before"] - 1
    watching = measure("watching")
    return [
        (
            f"four threads at full speed in a control group of 160 MiB, a minute without a collector (no export: {bare:+.0%})",
            lived("stock"),
            lived("ours"),
            "never killed, work -10 % at most",
        ),
        (
            "CPU of watching memory, per minute; of the limits' being adaptive, per offer",
            "-",
            f"{watching['ms_a_minute']:.1f} ms; {watching['offer_ns']:+.0f} ns",
            "",
        ),
    ]


def kept() -> list[Row]:
    """How much of an outage 50 MB keep, by strategy."""
    found = measure("soak", what="kept")
    return [
        (
            f"kept of {found['oldest']['offered']:,} spans in 50 MB of memory without a spool; minutes at 5,000 spans/s",
            "-",
            "; ".join(f"{name} {it['kept']:,} ({it['minutes_at_rate']:.1f} min)" for name, it in found.items()),
            "",
        )
    ]


def imports() -> list[Row]:
    """Import time."""
    results = [measure("imports") for _ in range(10)]
    best = {name: min(result[name] for result in results) for name in results[0]}
    return [
        (
            "import time beyond the SDK's own, best of ten: `import surgetank` / with `Tank`",
            "-",
            f"{best['package_ms']:.1f} ms / {best['with_tank_ms']:.1f} ms",
            "≤ 40 ms",
        ),
        ("… the first `Tank()`, urllib3's import included", "-", f"{best['first_tank_ms']:.0f} ms", ""),
    ]


def _all_of(name: str, **how: Any) -> list[Row]:
    rows = [row for figure in (cpu, tail, memory, deadlines, outage) for row in figure(**how)]
    return [(f"{name}: {row[0]}", *row[1:]) for row in rows]


def zero() -> list[Row]:
    """Ours and stock as `opentelemetry-instrument` sets them up, from the same variables."""
    return _all_of("zero code", door="zero")


def over_grpc() -> list[Row]:
    """Ours and stock over gRPC; not compressed, as both do by default, and compressed."""
    return [*_all_of("gRPC", protocol="grpc", compression="none"), cpu(protocol="grpc", compression="gzip")[0]]


def sizes() -> list[Row]:
    """What is downloaded and installed."""
    found = {name: size / 1000 for name, size in measure("sizes").items()}
    extras = ", ".join(
        f"`[{name.removeprefix('ours_')}]` {(size - found['ours']) / 1000:.1f}"
        for name, size in found.items()
        if name.startswith("ours_")
    )
    return [
        ("the wheel", "-", f"{found['wheel']:,.0f} KB", ""),
        (
            "installed beyond `opentelemetry-sdk`: alone / with what it needs (stock: the exporters for HTTP / gRPC)",
            f"{found['stock_http']:,.0f} KB / {found['stock_grpc']:,.0f} KB",
            f"{found['alone']:,.0f} KB / {found['ours']:,.0f} KB",
            "",
        ),
        ("… more with each extra, MB", "-", extras, ""),
    ]


FIGURES: dict[str, Callable[[], list[Row]]] = {
    figure.__name__: figure
    for figure in (cpu, tail, memory, large, deadlines, outage, spool, sampling, imports, zero, over_grpc, sizes)
}


def main() -> None:
    """Measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], metavar="figure", help=", ".join(FIGURES))
    wanted = parser.parse_args().figures or list(FIGURES)
    memory_gib = psutil.virtual_memory().total / 2**30
    print(
        f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release().split('-')[0]}, "
        f"CPython {platform.python_version()}, OpenTelemetry {sdk_version}\n"
    )
    print("| figure | stock | surgetank | goal |\n| --- | --- | --- | --- |", flush=True)
    for name in wanted:
        for row in FIGURES[name]():
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
