"""Import time beyond the SDK's own, in milliseconds: the package, and the first `Tank`."""

from __future__ import annotations

import json
import time

# Imported for their time only: an application that exports telemetry has the SDK and all that it imports
# loaded before us, so that is no cost of ours.
import opentelemetry.sdk._logs.export
import opentelemetry.sdk.metrics.export
import opentelemetry.sdk.trace.export  # noqa: F401


def main() -> None:
    """Import ours after the SDK, and print what ours took."""
    began = time.perf_counter()
    import surgetank

    named = time.perf_counter()
    _ = surgetank.Tank, surgetank.install, surgetank.BufferConfig
    imported = time.perf_counter()
    surgetank.Tank(handle_sigterm=False)
    made = time.perf_counter()
    print(
        json.dumps(
            {
                "package_ms": (named - began) * 1000,
                "with_tank_ms": (imported - began) * 1000,
                "first_tank_ms": (made - imported) * 1000,
            }
        )
    )


if __name__ == "__main__":
    main()
