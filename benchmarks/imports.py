"""Import time beyond the SDK's own, in milliseconds: the package, and the first `Tank`."""

from __future__ import annotations

import json
import time


def main() -> None:
    """Import the SDK, then ours, and print what ours took."""
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
