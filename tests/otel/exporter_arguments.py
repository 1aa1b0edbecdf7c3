"""Every argument of every released OTLP exporter that surgetank can meet, with what becomes of it."""

from __future__ import annotations

_HTTP = [
    "endpoint",
    "certificate_file",
    "client_key_file",
    "client_certificate_file",
    "headers",
    "timeout",
    "compression",
    "session",
]
_GRPC = ["endpoint", "insecure", "credentials", "headers", "timeout", "compression"]
_PREFERENCES = ["preferred_temporality", "preferred_aggregation"]
_SIGNALS = ("OTLPSpanExporter", "OTLPLogExporter")

# From the sources of the releases on PyPI: the first version that has these arguments, and the arguments.
RELEASED = {
    **{
        ("http", name): {
            "1.27.0": _HTTP,
            "1.42.0": [*_HTTP, "meter_provider"],
            "1.45.0": [*_HTTP, "max_request_size", "meter_provider", "_transport"],
        }
        for name in _SIGNALS
    },
    ("http", "OTLPMetricExporter"): {
        "1.27.0": [*_HTTP, *_PREFERENCES],
        "1.41.0": [*_HTTP, *_PREFERENCES, "max_export_batch_size"],
        "1.42.0": [*_HTTP, *_PREFERENCES, "max_export_batch_size", "meter_provider"],
        "1.45.0": [
            *_HTTP,
            *_PREFERENCES,
            "max_export_batch_size",
            "max_request_size",
            "meter_provider",
            "_transport",
        ],
    },
    **{
        ("grpc", name): {
            "1.20.0": _GRPC,
            "1.38.0": [*_GRPC, "channel_options"],
            "1.42.0": [*_GRPC, "channel_options", "retryable_error_codes", "meter_provider"],
        }
        for name in _SIGNALS
    },
    ("grpc", "OTLPMetricExporter"): {
        "1.20.0": [*_GRPC, *_PREFERENCES, "max_export_batch_size"],
        "1.38.0": [*_GRPC, *_PREFERENCES, "max_export_batch_size", "channel_options"],
        "1.42.0": [
            *_GRPC,
            *_PREFERENCES,
            "max_export_batch_size",
            "channel_options",
            "retryable_error_codes",
            "meter_provider",
        ],
    },
}
