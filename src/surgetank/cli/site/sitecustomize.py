"""Calls `surgetank.install()` before a program starts; `surgetank run` puts this folder on the program's path.

Owns: no state. Threads: one, before the program's first line.
Invariants: the program starts whatever happens here; a `sitecustomize` of its own that this one hides is run too.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


def _start() -> None:
    # Not for processes that an import might start: those that the program starts are protected again.
    path = os.environ.get("PYTHONPATH")
    if path is not None:
        others = [each for each in path.split(os.pathsep) if os.path.abspath(each) != _HERE]
        os.environ["PYTHONPATH"] = os.pathsep.join(others)
    try:
        import surgetank

        surgetank.install()
    except Exception as error:
        # Nothing is set up for logging yet; what is at hand for that prints the bare line to standard error.
        text = str(error).partition("\n")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == "surgetank":
            text = f"{text}; install it for the program's Python, {sys.executable}"
        line = f"surgetank: telemetry is not protected: {type(error).__name__}: {text}"
        logging.getLogger("surgetank").error(line)  # noqa: TRY400  # one line, not a traceback
    finally:
        if path is not None:
            os.environ["PYTHONPATH"] = path


def _run_hidden() -> None:
    """Run the `sitecustomize` that would have been found if this one were not there, as Python does with its own."""
    others = [each for each in sys.path if os.path.abspath(each) != _HERE]
    if others == sys.path:
        return
    before, sys.path[:] = list(sys.path), others
    ours = sys.modules.pop(__name__, None)
    try:
        importlib.import_module("sitecustomize")
    except ModuleNotFoundError as error:
        if error.name != "sitecustomize":
            raise
        if ours is not None:
            sys.modules[__name__] = ours
    finally:
        sys.path[:] = before


if __name__ == "sitecustomize":
    _start()
    _run_hidden()
