"""The command `surgetank`; all but `run` needs `surgetank[cli]`, and says so where that is missing.

Owns: no state. Threads: one.
Invariants: what is imported here is there without any extra.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line; exits with 0 if all was well, 1 if something was found, left or lost, 2 if it could not be run."""
    _prepare_streams()
    if sys.argv[1:2] == ["run"]:
        # Before anything else: a production image has no need of tables and colours.
        from surgetank.cli.run import run

        run(sys.argv[2:])
    if any(find_spec(name) is None for name in ("typer", "rich")):
        sys.stderr.write("surgetank: all commands but `run` need two more packages: pip install 'surgetank[cli]'\n")
        sys.exit(2)
    from surgetank.cli.app import command

    command()(prog_name="surgetank")


def _prepare_streams() -> None:
    """Have output work on any terminal: what its encoding lacks becomes `?`, and what was closed is written nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process lives
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
