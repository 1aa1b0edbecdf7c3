"""What a mapping of a configuration file becomes."""

import dataclasses
import inspect

import pytest

import surgetank
from surgetank.errors import ConfigError
from surgetank.memory.settings import MemoryConfig
from surgetank.otel.mapping import tank_settings
from surgetank.spool.settings import SpoolConfig


def test_a_key_goes_to_the_record_that_it_belongs_to():
    """A buffer's limits hold for each signal; spool and memory have prefixes."""
    found = tank_settings(
        {"max_memory_mb": 64, "spool_dir": "/somewhere", "memory_limit_mb": 300, "backoff_max": 2, "timeout": 3}
    )

    assert found["spans"] == found["metrics"] == found["logs"] == surgetank.BufferConfig(max_memory_mb=64)
    assert found["spool"].dir == "/somewhere"
    assert found["memory"].limit_mb == 300
    assert found["timing"].backoff_max == 2
    assert found["timeout"] == 3


def test_a_tank_can_be_made_of_it():
    """Whatever is left out, or null, takes its default."""
    tank = surgetank.Tank(**tank_settings({"endpoint": None, "max_size": 7, "backoff_max": None}), is_threaded=False)

    tank.shutdown()


@pytest.mark.parametrize("key", ["max_memroy_mb", "enpoint", "spool.dir"])
def test_a_key_that_is_not_known_is_refused_by_name_without_its_value(key):
    """The value may be a credential; the key that was probably meant is named."""
    with pytest.raises(ConfigError, match="probably") as refused:
        tank_settings({key: "secret"})

    assert refused.value.field == key
    assert "secret" not in str(refused.value)


def test_a_key_like_none_is_refused_with_all_that_there_are():
    """So that one need not look them up."""
    with pytest.raises(ConfigError, match="max_size") as refused:
        tank_settings({"zzz": 1})

    assert "endpoint" in str(refused.value)


def test_a_value_outside_its_range_is_refused_by_its_field():
    """As everywhere."""
    with pytest.raises(ConfigError, match=r"max_size must be .* \(got 0\)"):
        tank_settings({"max_size": 0})


@pytest.mark.parametrize("given", [{"a": "1"}, [{"name": "a", "value": "1"}]])
def test_headers_may_be_a_mapping_or_the_sdks_list(given):
    """Files are changed from one exporter to another."""
    assert tank_settings({"headers": given})["headers"] == {"a": "1"}


def test_other_headers_are_refused_without_their_text():
    """It may be a credential."""
    with pytest.raises(ConfigError) as refused:
        tank_settings({"headers": "authorization=secret"})

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("http://host:4318", "http://host:4318"),
        ("http://host:4318/v1/traces", "http://host:4318"),
        ("http://host/prefix/v1/logs/", "http://host/prefix"),
    ],
)
def test_an_endpoint_with_a_signals_path_is_taken_for_its_base(given, base):
    """The SDK's own exporters have it in such files."""
    assert tank_settings({"endpoint": given})["endpoint"] == base


def test_every_field_has_a_key():
    """A new one is found here."""
    for prefix, record in (("", surgetank.BufferConfig), ("spool_", SpoolConfig), ("memory_", MemoryConfig)):
        for field in dataclasses.fields(record):
            tank_settings({prefix + field.name: None})


def test_every_setting_of_a_tank_that_can_be_written_in_a_file_has_a_key():
    """What is left are functions, switches for programs, and records that have keys of their own."""
    written = {f"{kind} | None" for kind in ("str", "float", "Mapping[str, str]", "Compression", "Protocol")}
    names = [name for name, each in inspect.signature(surgetank.Tank).parameters.items() if each.annotation in written]

    assert len(names) > 8
    for name in names:
        tank_settings({name: None})
