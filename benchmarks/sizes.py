"""What is installed: the wheel, what it brings beyond the SDK, and each extra; beside the packages whose place it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("grpc", "cli", "encryption", "memory", "testing")
STOCK = {"http": "opentelemetry-exporter-otlp-proto-http", "grpc": "opentelemetry-exporter-otlp-proto-grpc"}


def pip(*arguments: str) -> None:
    """Run pip."""
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def size(folder: Path, pattern: str = "**/*") -> int:
    """Return the bytes of all files."""
    return sum(each.stat().st_size for each in folder.glob(pattern) if each.is_file())


def installed(folder: Path, *packages: str) -> int:
    """Install packages with all that they depend on where nothing is yet; return the bytes, without bytecode."""
    # As a fresh environment has it: with `--target`, what is installed elsewhere does not count.
    pip("install", "--no-compile", "--target", str(folder), *packages)
    return size(folder)


def main() -> None:
    """Print all sizes in bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pip("wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), str(ROOT))
        (wheel,) = (folder / "wheels").glob("surgetank-*.whl")
        wanted = {
            "sdk": ("opentelemetry-sdk",),
            "ours": (str(wheel),),
            **{f"ours_{extra}": (f"{wheel}[{extra}]",) for extra in EXTRAS},
            **{f"stock_{kind}": ("opentelemetry-sdk", package) for kind, package in STOCK.items()},
        }
        with ThreadPoolExecutor(2) as pool:
            futures = {each: pool.submit(installed, folder / each, *packages) for each, packages in wanted.items()}
            found = {each: future.result() for each, future in futures.items()}
        beyond = {each: total - found["sdk"] for each, total in found.items()}
        alone = size(folder / "ours", "surgetank*/**/*")
        print(json.dumps({"wheel": wheel.stat().st_size, "alone": alone, **beyond}))


if __name__ == "__main__":
    main()
