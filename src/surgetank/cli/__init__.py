"""The command `surgetank`; all but `run` needs `surgetank[cli]`, and says so where that is missing.

Owns: no state. Threads: one.
Invariants: what is imported here is there without any extra.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """Run the command line; exits with 0 if all was well, 1 if something was found, left or lost, 2 if it could not be run."""
    if sys.argv[1:2] == ["run"]:
        # Before anything else: a production image has no need of tables and colours.
        from surgetank.cli.run import run

        run(sys.argv[2:])
    if any(find_spec(name) is None for name in ("typer", "rich")):
        sys.stderr.write("surgetank: all commands but `run` need two more packages: pip install 'surgetank[cli]'\n")
        sys.exit(2)
    from surgetank.cli.app import app

    app(prog_name="surgetank")
