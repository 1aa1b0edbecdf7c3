"""The dashboard's questions about what moves: whether anything is lost, and what comes and goes.

Owns: no state. Threads: any. Invariants: each panel says what it means and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .panels import ALARM_ABOVE_0, BLUE, LOST, ORANGE, OURS, VERMILION, WARN_ABOVE_0, Panel

ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Is anything lost?": (
        Panel(
            title="Lost in this range",
            means="Items that were given up or refused for good in the dashboard's time range. 0 is the promise. Otherwise the panel beside it "
            "says why; `queue_full`, `memory_limit`, `spool_full`: more room, or a spool; a status code: ask whoever runs the receiver.",
            kind="stat",
            width=4,
            height=5,
            thresholds=ALARM_ABOVE_0,
            queries=[
                (
                    (
                        f"sum(increase(surgetank_dropped_total{{$HERE, {LOST}}}[$__range]))"
                        " + sum(increase(surgetank_rejected_total{$HERE}[$__range]))"
                    ),
                    "lost",
                )
            ],
        ),
        Panel(
            title="Unaccounted",
            means="What the accounting law leaves over. Anything but 0 is a defect of surgetank's: please report it, with `tank.stats()`.",
            kind="stat",
            width=4,
            height=5,
            thresholds=ALARM_ABOVE_0,
            queries=[("sum(abs(surgetank_unaccounted{$HERE}))", "unaccounted")],
        ),
        Panel(
            title="Breakers not closed",
            means="Signals, over all processes, whose endpoint does not take telemetry. It is held, not lost; see Holding for how long there is "
            "room, and Delivery for what the endpoint answers.",
            kind="stat",
            width=4,
            height=5,
            thresholds=WARN_ABOVE_0,
            queries=[('sum(surgetank_breaker_state{$HERE, surgetank_breaker_state!="closed"})', "not closed")],
        ),
        Panel(
            title="Oldest item",
            means="How long the oldest item has been waiting, in memory or on disk. In an outage it grows with the clock; when it grows without one, "
            "delivery is slower than what is offered.",
            kind="stat",
            unit="s",
            width=4,
            height=5,
            thresholds=((None, BLUE), (300, ORANGE), (3600, VERMILION)),
            queries=[("max(surgetank_oldest_age_seconds{$HERE})", "oldest")],
        ),
        Panel(
            title="Held",
            means="Items that wait or are under way, in memory and on disk. (Of metrics, what waits in memory is not counted here.)",
            kind="stat",
            width=4,
            height=5,
            queries=[
                (
                    (
                        "sum({__name__=~"
                        '"otel_sdk_processor_(span|log)_queue_size|otel_sdk_exporter_(span|log|metric_data_point)_inflight|surgetank_spool_queue_size"'
                        ", $HERE})"
                    ),
                    "held",
                )
            ],
        ),
        Panel(
            title="Processes that report",
            means="Processes with a tank from which metrics arrive. Fewer than there should be: they are gone, or what carries their metrics is.",
            kind="stat",
            width=4,
            height=5,
            queries=[("count(count by (job, instance) (surgetank_spool_down{$HERE}))", "processes")],
        ),
        Panel(
            title="Lost, by reason",
            means="Items per second that were given up, by reason, or refused by the receiver for good (`rejected`). Reasons: docs/guarantees.md.",
            unit="cps",
            width=24,
            queries=[
                (
                    f"sum by (error_type) (rate(surgetank_dropped_total{{$HERE, {LOST}}}[$__rate_interval]))",
                    "{{error_type}}",
                ),
                ("sum(rate(surgetank_rejected_total{$HERE}[$__rate_interval]))", "rejected"),
            ],
        ),
    ),
    "Flow": (
        Panel(
            title="Offered",
            means="Items per second that the applications hand over.",
            unit="cps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_offered_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Delivered",
            means="Items per second that the receivers have taken. Below Offered for long: something is in the way. Above it: what was held is catching up.",
            unit="cps",
            queries=[
                (
                    f'sum(rate(otel_sdk_exporter_{noun}_exported_total{{$HERE, error_type=""}}[$__rate_interval]))',
                    signal,
                )
                for noun, signal in (("span", "spans"), ("metric_data_point", "metrics"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Dropped, all reasons",
            means="Items per second that were given up, those included that the strategy `sampling` thins out and those offered after a shutdown.",
            unit="cps",
            queries=[
                ("sum by (error_type) (rate(surgetank_dropped_total{$HERE}[$__rate_interval]))", "{{error_type}}")
            ],
        ),
        Panel(
            title="Failed exports, by cause",
            means="Items per second that ended after an attempt without being delivered: refused with that status code, or given up later for that reason. "
            "A series begins with its first failure, so a single one shows in Lost, by reason, and not here.",
            unit="cps",
            queries=[
                (
                    (
                        'sum by (error_type) (rate({__name__=~"otel_sdk_exporter_(span|log|metric_data_point)_exported_total"'
                        ', $HERE, error_type!=""}[$__rate_interval]))'
                    ),
                    "{{error_type}}",
                )
            ],
        ),
        Panel(
            title="Processed",
            means="Spans and log records per second that left the processor: handed to the sender for the first time, or given up before (with a reason).",
            unit="cps",
            queries=[
                (
                    f"sum by (error_type) (rate(otel_sdk_processor_{noun}_processed_total{{$HERE, {OURS}}}[$__rate_interval]))",
                    f"{signal} {{{{error_type}}}}",
                )
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Recovered",
            means="Items per second that were found on disk: left by a process that ended, or died, before it could deliver them.",
            unit="cps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_recovered_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Sealed bytes",
            means="Bytes per second of compressed requests: what network, memory and disk carry. Times an outage's length: the room that it takes.",
            unit="Bps",
            queries=[
                (
                    "sum by (surgetank_signal) (rate(surgetank_sealed_size_bytes_total{$HERE}[$__rate_interval]))",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Bytes per item",
            means="Compressed bytes of one item, on average. A jump: attributes have grown; see docs/configuration.md for the limits.",
            unit="bytes",
            queries=[
                (
                    (
                        "sum by (surgetank_signal) (rate(surgetank_sealed_size_bytes_total{$HERE}[$__rate_interval]))"
                        " / sum by (surgetank_signal) (rate(surgetank_sealed_total{$HERE}[$__rate_interval]))"
                    ),
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Bytes given up",
            means="What dropped items were charged for since their processes began, by reason. What was damaged on disk counts as 0.",
            unit="bytes",
            queries=[("sum by (error_type) (surgetank_dropped_size_bytes_total{$HERE})", "{{error_type}}")],
        ),
    ),
}
