"""The tables of `docs/configuration.md`, made from the catalogue: `python -m surgetank.catalogue.page FILE` writes them into it.

Owns: no state. Threads: one.
Invariants: what stands outside the markers `<!-- settings: NAME -->` and `<!-- end -->` is left as it is.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Final

from surgetank.catalogue.entries import settings
from surgetank.catalogue.setting import Setting, plain
from surgetank.config.outlet import PREFIX
from surgetank.model import Signal

_BLOCK: Final = re.compile(r"(<!-- settings: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(text: str) -> str:
    """Return a page with each of its tables as the catalogue has it."""
    return _BLOCK.sub(lambda block: block[1] + "\n" + "\n".join(_table(block[2])) + "\n\n" + block[3], text)


def _table(section: str) -> Iterator[str]:
    rows = [each for each in settings() if each.section == section]
    is_buffer = section == "buffer"
    heads = [signal.value for signal in Signal] if is_buffer else ["default"]
    yield "| " + " | ".join(["setting", *heads, "permitted", "unit", "effect", "variables"]) + " |"
    yield "| --- " * (5 + len(heads)) + "|"
    for keyword, group in groupby(rows, key=lambda each: each.keyword):
        kin = list(group)
        first = kin[0]
        by_signal = {each.signal: each for each in kin}
        if is_buffer:
            defaults = [plain(by_signal[signal].default) if signal in by_signal else "" for signal in Signal]
        else:
            defaults = [_default(first)]
        cells = [f"`{keyword}`", *defaults, first.permitted, first.unit, first.effect, _variables(kin)]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(setting: Setting) -> str:
    if setting.keyword == "endpoint":
        # Without the path, which each signal adds.
        return "`" + str(setting.default).removesuffix("/v1/traces") + "`"
    return "" if setting.default is None and not setting.unit else plain(setting.default)


def _variables(kin: list[Setting]) -> str:
    """Return the variables in the order in which they count; those that differ in the signal's name alone stand together."""
    if kin[0].section == "outlet" and kin[0].variables[0].startswith(PREFIX):
        others = "".join(f", `{name}`" for name in kin[0].variables[2:])
        return f"`{PREFIX}[TRACES_|METRICS_|LOGS_]{kin[0].variables[1].removeprefix(PREFIX)}`{others}"
    if kin[0].section == "buffer":
        ours = "`SURGETANK_<SIGNAL>_" + kin[0].keyword.upper() + "`"
        theirs = [f"`{name}`" for each in kin for name in each.variables[1:]]
        millis = " (milliseconds)" if theirs and kin[0].unit == "seconds" else ""
        return ", ".join([ours, *theirs]) + millis
    return ", ".join(f"`{name}`" for name in dict.fromkeys(name for each in kin for name in each.variables))


def main() -> None:
    """Write the tables into the files that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m surgetank.catalogue.page", description=main.__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="a page with the markers of tables in it")
    for path in parser.parse_args().files:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
