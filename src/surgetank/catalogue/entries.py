"""The catalogue: every setting, once.

Owns: no state. Threads: any.
Invariants: every variable that the code reads is here, and none that it does not (`tests/catalogue`).
"""

from __future__ import annotations

from functools import cache

from surgetank.catalogue.setting import Setting
from surgetank.catalogue.signals import buffers, outlets
from surgetank.catalogue.tank import doors, memory, seen, spool, tank, timing


@cache
def settings() -> tuple[Setting, ...]:
    """Return every setting, in the order in which they are shown."""
    return (*buffers(), *outlets(), *tank(), *timing(), *spool(), *memory(), *seen(), *doors())


@cache
def variables() -> frozenset[str]:
    """Return the name of every variable that says something."""
    return frozenset(variable for setting in settings() for variable in setting.variables)
