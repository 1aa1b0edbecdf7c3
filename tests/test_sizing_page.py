"""The calculator's arithmetic is what the page "Sizing" says it is."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from surgetank.config import MEBIBYTE
from surgetank.spool.settings import SpoolSettings

ROOT = Path(__file__).parents[1]
CASES = [(500, 120, 90, 4), (0.5, 1, 90, 1), (5000, 20, 66, 1), (1234.5, 2880, 43, 16), (1e5, 60, 600, 3)]


def needed(rate, minutes, bytes_per_item, processes):
    """Return what the page says in words."""
    items = math.ceil(rate * minutes * 60)
    size = items * bytes_per_item
    batches = math.ceil(items / 512)
    spool = max(16, math.ceil(1.25 * size * processes / MEBIBYTE))
    settings = SpoolSettings(path="")
    return {
        "items": items,
        "bytes": size,
        "spoolMb": spool,
        "volumeMb": spool + (settings.reserve_bytes + settings.dead_letter_bytes) // MEBIBYTE,
        "maxSize": math.ceil(1.25 * items),
        "maxMemoryMb": max(16, math.ceil(1.25 * (size + batches * 512) / MEBIBYTE)),
    }


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the calculator with")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_calculator_and_the_page_agree(case):
    """In the same numbers, for small and large outages."""
    script = f"console.log(JSON.stringify(require({str(ROOT / 'docs/assets/sizing.js')!r}).needed(...{list(case)})))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60, check=True)

    assert json.loads(done.stdout) == needed(*case)
