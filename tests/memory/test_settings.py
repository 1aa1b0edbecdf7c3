"""The memory's settings: keyword, environment and default; what is refused."""

import pytest

from surgetank.config import Environment
from surgetank.errors import ConfigError
from surgetank.memory.settings import MemoryConfig, MemorySettings, resolve_memory


def resolved(config=None, **variables):
    """Return the settings for a configuration and an environment."""
    names = {
        name: "SURGETANK_ADAPTIVE" if name == "adaptive" else f"SURGETANK_MEMORY_{name.upper()}" for name in variables
    }
    return resolve_memory(config, Environment({names[name]: value for name, value in variables.items()}))


def test_the_defaults():
    """Those of ADR 018: shrink above 0.8, grow below 0.5, look every five seconds."""
    assert resolved() == MemorySettings()
    assert resolved() == MemorySettings(
        adaptive=True, limit_mb=None, reduce_above=0.8, restore_below=0.5, floor=0.1, period=5.0
    )


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("adaptive", "false", False),
        ("adaptive", " No ", False),
        ("adaptive", "0", False),
        ("adaptive", "true", True),
        ("limit_mb", "512.5", 512.5),
        ("reduce_above", "0.9", 0.9),
        ("restore_below", "0.25", 0.25),
        ("floor", "0.5", 0.5),
        ("period", "30", 30.0),
    ],
)
def test_each_variable_is_read(name, text, expected):
    """And a blank one is an unset one."""
    assert getattr(resolved(**{name: text}), name) == expected
    assert resolved(**{name: "  "}) == MemorySettings()


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        ("adaptive", False, "true"),
        ("adaptive", True, "false"),
        ("limit_mb", 100, "200"),
        ("reduce_above", 0.7, "0.9"),
        ("restore_below", 0.2, "0.3"),
        ("floor", 1, "0.2"),
        ("period", 1, "2"),
    ],
)
def test_a_keyword_goes_before_its_variable(name, given, text):
    """Field by field."""
    assert getattr(resolved(MemoryConfig(**{name: given}), **{name: text}), name) == given


RANGES = {
    "limit_mb": (1, 1_048_576),
    "reduce_above": (0.05, 1),
    "restore_below": (0.01, 1),
    "floor": (0.01, 1),
    "period": (0.5, 3600),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range_is_refused(name):
    """With the field as it was written, the value, and what is permitted."""
    low, high = RANGES[name]
    for value in (low, high):
        MemoryConfig(**{name: value})

    for value in (low - 0.005, high + 1, float("nan"), float("inf"), -1):
        with pytest.raises(ConfigError) as caught:
            MemoryConfig(**{name: value})
        assert caught.value.field == f"memory.{name}"
        assert caught.value.value is value
        assert f"{low:,.10g} to {high:,.10g}" in caught.value.permitted
        assert getattr(resolved(**{name: str(value)}), name) == getattr(MemorySettings(), name)


@pytest.mark.parametrize("name", [*RANGES, "adaptive"])
@pytest.mark.parametrize("value", ["many", [1], 2.5j])
def test_what_is_of_another_kind_is_refused(name, value):
    """As a keyword; as a variable it is ignored."""
    with pytest.raises(ConfigError) as caught:
        MemoryConfig(**{name: value})
    assert caught.value.field == f"memory.{name}"
    assert resolved(**{name: str(value)}) == MemorySettings()


def test_the_thresholds_are_in_order():
    """Wherever each of them is from; two that are equal are not in order."""
    for low, high in ((0.8, 0.8), (0.9, 0.7)):
        with pytest.raises(ConfigError) as caught:
            MemoryConfig(reduce_above=high, restore_below=low)
        assert (caught.value.field, caught.value.value) == ("memory.reduce_above", high)
        assert f"{low:g}" in caught.value.permitted

    MemoryConfig(reduce_above=0.4)
    for config in (MemoryConfig(reduce_above=0.4), MemoryConfig(restore_below=0.9)):
        with pytest.raises(ConfigError) as caught:
            resolved(config)
        assert caught.value.field == "memory.reduce_above"


@pytest.mark.parametrize(
    ("config", "variables", "thresholds"),
    [
        (None, {"reduce_above": "0.4"}, (0.8, 0.5)),
        (None, {"restore_below": "0.9"}, (0.8, 0.5)),
        (None, {"reduce_above": "0.4", "restore_below": "0.6"}, (0.8, 0.6)),
        (None, {"reduce_above": "0.4", "restore_below": "0.9"}, (0.8, 0.5)),
        (None, {"reduce_above": "0.4", "restore_below": "0.3"}, (0.4, 0.3)),
        (MemoryConfig(restore_below=0.6), {"reduce_above": "0.55"}, (0.8, 0.6)),
        (MemoryConfig(reduce_above=0.6), {"restore_below": "0.7"}, (0.6, 0.5)),
    ],
)
def test_a_variable_never_makes_the_order_impossible(config, variables, thresholds):
    """It is ignored where another variable, a keyword or a default contradicts it."""
    found = resolved(config, **variables)

    assert (found.reduce_above, found.restore_below) == thresholds
