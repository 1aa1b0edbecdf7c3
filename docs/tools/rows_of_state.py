"""The dashboard's questions about how things stand: what is held, how delivery goes, how memory is.

Owns: no state. Threads: any. Invariants: each panel says what it means and what to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from .panels import ALARM_ABOVE_0, BLUE, FULL, ORANGE, OURS, SHRUNK, VERMILION, Panel

ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Holding": (
        Panel(
            title="Queue fill, fullest process",
            means="Items in memory against `max_size`, of the process where it is worst. At 1 the drop strategy decides, or, with a spool, batches wait on disk alone.",
            unit="percentunit",
            thresholds=FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    f"max(otel_sdk_processor_{noun}_queue_size{{$HERE, {OURS}}} / otel_sdk_processor_{noun}_queue_capacity{{$HERE}})",
                    signal,
                )
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Memory fill, fullest process",
            means="Bytes in memory against `max_memory_mb` as far as memory pressure leaves it, of the process where it is worst.",
            unit="percentunit",
            thresholds=FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    "max by (surgetank_signal) (surgetank_memory_usage_bytes{$HERE} / surgetank_memory_limit_bytes{$HERE})",
                    "{{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Memory held",
            means="Bytes that tanks hold, over all processes and copies.",
            unit="bytes",
            is_stacked=True,
            queries=[("sum by (surgetank_signal) (surgetank_memory_usage_bytes{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Oldest item, by signal",
            means="How long the oldest item has been waiting, in the process where it is worst. Compare with the spool's `max_age`, after which it expires.",
            unit="s",
            queries=[("max by (surgetank_signal) (surgetank_oldest_age_seconds{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Waiting in memory",
            means="Spans and log records that wait in memory, over all processes.",
            is_stacked=True,
            queries=[
                (f"sum(otel_sdk_processor_{noun}_queue_size{{$HERE, {OURS}}})", signal)
                for noun, signal in (("span", "spans"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Waiting on disk",
            means="Items that wait on disk alone. They outlive the process; a sibling or the next process delivers them.",
            is_stacked=True,
            queries=[("sum by (surgetank_signal) (surgetank_spool_queue_size{$HERE})", "{{surgetank_signal}}")],
        ),
        Panel(
            title="Spool fill, fullest process",
            means="Bytes on disk against the process's part of the spool's limit. At 1 the oldest batches give way (`spool_full`): raise `max_mb`, or repair the endpoint.",
            unit="percentunit",
            thresholds=FULL,
            is_dashed_line=True,
            top=1,
            queries=[
                (
                    (
                        "max(sum by (job, instance, otel_component_name) (surgetank_spool_usage_bytes{$HERE})"
                        " / (sum by (job, instance, otel_component_name) (surgetank_spool_limit_bytes{$HERE}) > 0))"
                    ),
                    "fullest",
                )
            ],
        ),
        Panel(
            title="Disk used",
            means="What the spools take on disk by signal, and what they may take, over all processes.",
            unit="bytes",
            queries=[
                ("sum by (surgetank_signal) (surgetank_spool_usage_bytes{$HERE})", "{{surgetank_signal}}"),
                ("sum(surgetank_spool_limit_bytes{$HERE})", "limit"),
            ],
        ),
        Panel(
            title="Spools that cannot be written",
            means="Processes whose disk is full, read-only or gone. What they hold is in memory only, and `kill -9` would lose it: look at the volume, "
            "then at the application's log.",
            thresholds=ALARM_ABOVE_0,
            queries=[("sum by (job) (surgetank_spool_down{$HERE})", "{{job}}")],
        ),
    ),
    "Delivery": (
        Panel(
            title="Circuit breakers, worst process",
            means="Whether the endpoint takes telemetry. Open: nothing is sent but a probe now and then; half open: a probe decides.",
            kind="state-timeline",
            width=24,
            height=6,
            states={0: ("closed", BLUE), 1: ("half open", ORANGE), 2: ("open", VERMILION)},
            queries=[
                (
                    (
                        'max by (job, surgetank_signal) (surgetank_breaker_state{$HERE, surgetank_breaker_state="half_open"}'
                        " + ignoring (surgetank_breaker_state) 2 * "
                        'surgetank_breaker_state{$HERE, surgetank_breaker_state="open"})'
                    ),
                    "{{job}} {{surgetank_signal}}",
                )
            ],
        ),
        Panel(
            title="Duration of an attempt",
            means="How long one request takes, failed ones included. Near the timeout (10 s by default): the endpoint is overloaded, or a black hole.",
            unit="s",
            queries=[
                (
                    f"histogram_quantile({quantile}, sum by (le) (rate(surgetank_attempt_duration_seconds_bucket{{$HERE}}[$__rate_interval])))",
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            title="Duration of an operation",
            means="From a batch's first attempt to its end, waits included. After an outage it shows how long batches were held.",
            unit="s",
            queries=[
                (
                    (
                        "histogram_quantile("
                        f"{quantile}, sum by (le) (rate(otel_sdk_exporter_operation_duration_seconds_bucket{{$HERE}}[$__rate_interval])))"
                    ),
                    f"p{quantile * 100:g}",
                )
                for quantile in (0.5, 0.95, 0.99)
            ],
        ),
        Panel(
            title="Under way",
            means="Items that are being sent at this moment.",
            queries=[
                (f"sum(otel_sdk_exporter_{noun}_inflight{{$HERE}})", signal)
                for noun, signal in (("span", "spans"), ("metric_data_point", "metrics"), ("log", "logs"))
            ],
        ),
        Panel(
            title="Failed attempts, by cause",
            means="Requests per second that failed: a status code, or `connection_refused`, `timeout` and their kin. Failed is not lost: the batch is tried again.",
            unit="reqps",
            queries=[
                (
                    'sum by (error_type) (rate(surgetank_attempt_duration_seconds_count{$HERE, error_type!=""}[$__rate_interval]))',
                    "{{error_type}}",
                )
            ],
        ),
        Panel(
            title="Answers, by status",
            means="Requests per second by the receiver's status; a status without a code is no answer at all.",
            unit="reqps",
            queries=[
                (
                    (
                        "sum by (http_response_status_code, rpc_response_status_code)"
                        " (rate(surgetank_attempt_duration_seconds_count{$HERE}[$__rate_interval]))"
                    ),
                    "status {{http_response_status_code}}{{rpc_response_status_code}}",
                )
            ],
        ),
        Panel(
            title="Attempts that fail",
            means="The part of all requests that fail, by endpoint. In an outage 1.",
            unit="percentunit",
            top=1,
            queries=[
                (
                    (
                        'sum by (server_address, server_port) (rate(surgetank_attempt_duration_seconds_count{$HERE, error_type!=""}[$__rate_interval]))'
                        " / sum by (server_address, server_port) (rate(surgetank_attempt_duration_seconds_count{$HERE}[$__rate_interval]))"
                    ),
                    "{{server_address}}:{{server_port}}",
                )
            ],
        ),
    ),
    "Memory": (
        Panel(
            title="Memory pressure, worst process",
            means="The part of the memory limit (control group's, process's or host's) that is used, by everybody. Above 0.8 buffers shrink, below 0.5 they grow back.",
            unit="percentunit",
            thresholds=FULL,
            is_dashed_line=True,
            top=1,
            queries=[('max by (job) ({__name__=~"surgetank_memory_pressure(_ratio)?", $HERE})', "{{job}}")],
        ),
        Panel(
            title="Size of the buffers, smallest process",
            means="The part of their full size that buffers may have. Below 1 memory is short: an outage that used to fit may not.",
            unit="percentunit",
            thresholds=SHRUNK,
            top=1,
            queries=[('min by (job) ({__name__=~"surgetank_memory_scale(_ratio)?", $HERE})', "{{job}}")],
        ),
        Panel(
            title="Traces kept, smallest process",
            means="The part of the traces that the strategy `sampling` keeps. Below 1 buffers are more than half full; counts in the backend stay right.",
            unit="percentunit",
            top=1,
            queries=[("min by (surgetank_signal) (surgetank_sampling_ratio{$HERE})", "{{surgetank_signal}}")],
        ),
    ),
}
