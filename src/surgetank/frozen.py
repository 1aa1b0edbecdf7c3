"""Mappings that nobody changes, and that can be copied, pickled and turned into JSON as a `dict` can.

Owns: no state. Threads: any.
Invariants: no method changes one. `types.MappingProxyType` would do for that, but neither `copy`, `pickle`, `json` nor
`dataclasses.asdict` take it.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class FrozenDict(dict[_K, _V]):
    """A `dict` that cannot be changed."""

    __slots__ = ()

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise TypeError(f"a {type(self).__name__} cannot be changed; make a dict of it first")

    __setitem__ = __delitem__ = _refuse
    __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __copy__(self) -> FrozenDict[_K, _V]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> FrozenDict[_K, _V]:
        # What is in one are words and numbers.
        return self

    def __reduce__(self) -> tuple[type[FrozenDict[_K, _V]], tuple[dict[_K, _V]]]:
        return type(self), (dict(self),)


class Counts(FrozenDict[str, int]):
    """Numbers by name; one that is not there reads 0."""

    __slots__ = ()

    def __missing__(self, name: str) -> int:
        return 0
