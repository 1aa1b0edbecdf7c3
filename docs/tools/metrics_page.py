"""The tables of `docs/metrics.md`, made of the list of instruments: `python -m docs.tools.metrics_page` writes them anew.

Owns: what stands between the page's two markers. Threads: one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from surgetank.otel.instruments import INSTRUMENTS, Instrument

from .prometheus_names import prometheus_name

PAGE: Final = Path(__file__).resolve().parents[1] / "metrics.md"
BEGIN: Final = "<!-- made by docs/tools/metrics_page.py: begin -->\n"
END: Final = "<!-- made by docs/tools/metrics_page.py: end -->\n"

_GROUPS: Final = {
    "processor": "What stands in the place of a processor: `otel.sdk.processor.…`",
    "exporter": "What stands in the place of an exporter",
    "tank": "The tank itself: `surgetank.…`",
}


def tables() -> str:
    """Return the tables as Markdown, a heading before each."""
    return "\n".join(_table(heading, component) for component, heading in _GROUPS.items())


def _table(heading: str, component: str) -> str:
    rows = "".join(_row(each) for each in INSTRUMENTS if each.component == component)
    return f"### {heading}\n\n| instrument, and its name in Prometheus | kind, unit | what it says |\n| --- | --- | --- |\n{rows}"


def _row(instrument: Instrument) -> str:
    names = f"`{instrument.name}`<br>`{prometheus_name(instrument)}`"
    return f"| {names} | {instrument.kind}, `{instrument.unit}` | {instrument.description}{_attributes(instrument.attributes)} |\n"


def _attributes(names: Iterable[str]) -> str:
    told = ", ".join(f"`{name}`" for name in names)
    return f" Told apart by {told}." if told else ""


def written(page: str) -> str:
    """Return a page with the tables as they should be."""
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{tables()}\n{END}", page, flags=re.DOTALL
    )


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
