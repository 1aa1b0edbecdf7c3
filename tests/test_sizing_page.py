"""The calculator's arithmetic is what the page "Sizing" says it is, and what `surgetank.sizing` recommends."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest

from surgetank.config import MEBIBYTE
from surgetank.model import Signal
from surgetank.spool.settings import SpoolSettings

ROOT = Path(__file__).parents[1]
# A rate, minutes, bytes per item, processes: small and large outages, with batches that are full and that are not.
CASES = [(2000, 120, 110, 4), (0.5, 1, 90, 1), (5000, 20, 66, 1), (1234.5, 2880, 43, 16), (7e4, 60, 600, 3)]


def calculated(case):
    """Return what the calculator says."""
    script = f"console.log(JSON.stringify(require({str(ROOT / 'docs/assets/sizing.js')!r}).needed(...{list(case)})))"
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def rounded(value):
    """Return a number that is not less, with two digits that count."""
    step = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return math.ceil(value / step) * step


def needed(rate, minutes, size, processes):
    """Return what the page says in words."""
    seconds = minutes * 60
    batch = min(512, max(1, rate / processes * 0.8))
    items = rate / processes * seconds * 1.1
    spool = rounded(rate * (size + 200 / batch) * seconds * 1.1 / MEBIBYTE)
    settings = SpoolSettings(path="")
    return {
        "items": math.ceil(rate * seconds),
        "spoolMb": spool,
        "volumeMb": spool + (settings.reserve_bytes + settings.dead_letter_bytes) // MEBIBYTE,
        "maxAge": rounded(seconds * 1.1),
        "maxSize": rounded(items),
        "maxMemoryMb": rounded(items * (size + 512 / batch) / MEBIBYTE + 0.75),
    }


needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="there is no node to run the calculator with")


@needs_node
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_calculator_and_the_page_agree(case):
    """In the same numbers."""
    assert calculated(case) == pytest.approx(needed(*case))


@needs_node
@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_calculator_and_the_command_agree(case):
    """What `surgetank.sizing` recommends, where the limits are too small, is what the page shows."""
    sizing = pytest.importorskip("surgetank.sizing")
    rate, minutes, size, processes = case
    loads = {Signal.SPANS: sizing.Load(rate=rate, size=size)}
    buffers = {Signal.SPANS: sizing.Buffer(max_size=1, max_bytes=1, batch_size=512, delay=0.8, is_stored=False)}
    disk = sizing.Disk(limit=1, max_age=1.0)
    settings = {}
    for each in (disk, None):
        for remedy in sizing.forecast(loads, buffers, each, outage=minutes * 60, processes=processes).remedies:
            settings |= remedy.settings

    shown = calculated(case)
    assert float(settings["SURGETANK_SPOOL_MAX_MB"]) == pytest.approx(shown["spoolMb"])
    assert float(settings["SURGETANK_SPANS_MAX_SIZE"]) == pytest.approx(shown["maxSize"])
    assert float(settings["SURGETANK_SPANS_MAX_MEMORY_MB"]) == pytest.approx(shown["maxMemoryMb"])
