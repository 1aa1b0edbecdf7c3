"""The catalogue and the code say the same: of every setting, of every variable, in both directions."""

import re
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

import surgetank
from surgetank import arguments
from surgetank.arguments import OURS, WITHOUT_EFFECT
from surgetank.catalogue.effective import load
from surgetank.catalogue.entries import settings, variables
from surgetank.catalogue.page import filled
from surgetank.config import MEBIBYTE
from surgetank.model import Signal
from surgetank.redaction import MASK

ROOT = Path(__file__).parents[2]
KEY = "first:" + b64encode(b"k" * 32).decode()
FILE = "<a file>"
FOLDER = "<a folder>"
# By keyword, what a variable is set to, and what its value is then. Two of each, so that precedence shows.
SAMPLES = {
    "max_size": [("3000", 3000), ("4000", 4000)],
    "max_memory_mb": [("40", 40.0)],
    "drop_strategy": [("newest", "newest")],
    "persist": [("critical", "critical")],
    "on_full": [("block", "block"), ("drop", "drop")],
    "block_timeout": [("2.5", 2.5), ("1500", 1.5)],
    "circuit_breaker_threshold": [("7", 7)],
    "max_export_batch_size": [("17", 17), ("18", 18)],
    "max_batch_mb": [("0.5", 0.5)],
    "schedule_delay": [("0.25", 0.25), ("1500", 1.5)],
    "protocol": [("grpc", "grpc"), ("http/protobuf", "http/protobuf")],
    "headers": [("a=b", {"a": MASK}), ("c=d", {"c": MASK})],
    "timeout": [("3", 3.0), ("4", 4.0)],
    "compression": [("none", "none"), ("deflate", "deflate")],
    "certificate_file": [(FILE + n, FILE + n) for n in ("", "2", "3", "4")],
    "client_key_file": [(FILE, FILE), (FILE + "2", FILE + "2")],
    "client_certificate_file": [(FILE, FILE), (FILE + "2", FILE + "2")],
    "insecure": [("true", True), ("false", False)],
    "proxy": [("http://u:secret@proxy:3128", f"http://{MASK}@proxy:3128")],
    "total_memory_mb": [("64", 64.0)],
    "shutdown_timeout": [("7", 7.0)],
    "metric_export_interval": [("1500", 1.5)],
    "metric_export_timeout": [("2500", 2.5)],
    "temporality_preference": [("delta", "delta")],
    "default_histogram_aggregation": [("base2_exponential_bucket_histogram", "base2_exponential_bucket_histogram")],
    "backoff_initial": [("0.7", 0.7)],
    "backoff_factor": [("1.7", 1.7)],
    "backoff_max": [("7", 7.0)],
    "retry_after_max": [("70", 70.0)],
    "cooldown_initial": [("1.7", 1.7)],
    "cooldown_factor": [("2.7", 2.7)],
    "cooldown_max": [("70", 70.0)],
    "jitter": [("0.3", 0.3)],
    "dir": [(FOLDER, FOLDER)],
    "max_mb": [("256", 256.0)],
    "max_age": [("3600", 3600.0)],
    "reserve_mb": [("32", 32.0)],
    "dead_letter_mb": [("8", 8.0)],
    "durability": [("disk", "disk")],
    "encryption_key": [(KEY, MASK)],
    "encryption_key_file": [(FILE, FILE)],
    "adaptive": [("false", False)],
    "limit_mb": [("500", 500.0)],
    "reduce_above": [("0.9", 0.9)],
    "restore_below": [("0.4", 0.4)],
    "floor": [("0.2", 0.2)],
    "period": [("3", 3.0)],
    "self_metrics": [("true", True), ("true", True)],
    "status_enabled": [("false", False)],
    "status_dir": [(FOLDER, FOLDER)],
    "spans.export_timeout": [("1500", 1.5)],
    "logs.export_timeout": [("1500", 1.5)],
    "spans.exporter": [("none", "none")],
    "metrics.exporter": [("none", "none")],
    "logs.exporter": [("none", "none")],
    "sdk_disabled": [("true", True)],
    "configurator": [("surgetank", "surgetank")],
}


@pytest.fixture
def place(tmp_path):
    """Put real paths in the places of samples."""
    for name in ("file", "file2", "file3", "file4"):
        (tmp_path / name).write_text(KEY)

    def put(sample):
        if not isinstance(sample, str):
            return sample
        return sample.replace(FILE, str(tmp_path / "file")).replace(FOLDER, str(tmp_path / "folder"))

    return put


def samples_of(setting):
    """Return what each of a setting's variables is set to, and the value that it then has."""
    if setting.keyword == "persistence_enabled":
        value = not setting.default
        return [(str(value).lower(), value)]
    if setting.keyword == "endpoint":
        path = str(setting.default).removeprefix("http://localhost:4318")
        return [("http://own:1/x", "http://own:1/x"), ("http://base:2", f"http://base:2{path}")]
    if setting.keyword == "proxy":
        # The endpoint of the default is reached by HTTP; HTTPS_PROXY is tried below.
        return [SAMPLES["proxy"][0], ("", None), ("", None)]
    return SAMPLES[setting.keyword]


@pytest.mark.parametrize("setting", settings(), ids=lambda setting: setting.name)
def test_every_variable_changes_what_a_tank_obeys_and_is_named_as_the_source(setting, place):
    """Each alone, and the first of several."""
    before = load({})
    assert setting.default in (None, setting.read(before)) or setting.keyword == "max_batch_mb"
    assert setting.source(before) is None
    said = {}
    samples = samples_of(setting)
    assert len(samples) >= len(setting.variables)
    pairs = list(zip(setting.variables, samples, strict=False))
    for variable, (text, value) in reversed(pairs):
        if not text:
            continue
        said[variable] = place(text)
        for environment in ({variable: place(text)}, said):
            found = load(environment)
            assert setting.value(found) == place(value), (setting.name, environment)
            assert setting.source(found) == variable
    assert setting.read(load(said)) != setting.read(before)


def test_the_proxy_is_the_one_for_the_endpoints_scheme():
    """As the sender chooses it."""
    (setting,) = (each for each in settings() if each.name == "spans.proxy")
    for name, scheme in (("HTTPS_PROXY", "https"), ("ALL_PROXY", "http"), ("http_proxy", "http")):
        found = load({name: "http://proxy:1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}://c:1"})
        assert (setting.value(found), setting.source(found)) == ("http://proxy:1", name)
    assert setting.source(load({"HTTPS_PROXY": "http://proxy:1"})) is None


def test_settings_are_what_a_real_tank_has(monkeypatch, tmp_path):
    """A sample of each kind, through the constructor."""
    monkeypatch.delenv("SURGETANK_PERSISTENCE_ENABLED")
    monkeypatch.setenv("SURGETANK_SPANS_MAX_SIZE", "3000")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "77")
    monkeypatch.setenv("SURGETANK_TOTAL_MEMORY_MB", "10")
    monkeypatch.setenv("SURGETANK_SPOOL_DIR", str(tmp_path / "spool"))
    tank = surgetank.Tank(is_threaded=False, handle_sigterm=False)
    found = load()
    try:
        for signal in Signal:
            assert tank._config.limits[signal] == found.tank.limits[signal]
            assert tank.outlets[signal] == found.tank.outlets[signal]
        assert tank._config == found.tank
        assert tank._disk.settings == found.spool
        assert found.tank.limits[Signal.SPANS].max_bytes == 5 * MEBIBYTE
    finally:
        tank.shutdown(0)


def occurrences():
    """Return every name of a variable of ours that is written somewhere in the code."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        if path.parent.name != "catalogue":
            found |= set(re.findall(r"SURGETANK_[A-Z_]+", path.read_text(encoding="utf-8")))
    return found


def test_every_variable_in_the_code_is_in_the_catalogue():
    """A prefix stands for those that begin with it."""
    for name in occurrences():
        if name.endswith("_"):
            assert any(each.startswith(name) for each in variables()), name
        else:
            assert name in variables(), name


def test_a_tank_knows_the_same_variables_as_the_catalogue():
    """It names those that are none, without loading the catalogue."""
    assert arguments.variables() == {name for name in variables() if name.startswith(OURS)}


def test_no_variable_is_catalogued_twice_for_different_things():
    """But for those that all signals share."""
    seen = {}
    for setting in settings():
        for name in setting.variables:
            seen.setdefault(name, set()).add(setting.keyword)
    assert {name: words for name, words in seen.items() if len(words) > 1} == {}
    assert not set(WITHOUT_EFFECT) & set(seen)


def test_every_setting_is_described():
    """With what is permitted, where that is not said by the effect."""
    for setting in settings():
        assert setting.effect, setting.name
        assert setting.permitted or setting.section == "doors", setting.name


def test_the_reference_is_up_to_date():
    """`scripts/reference` writes it."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert filled(page) == page


def test_applications_do_not_import_the_catalogue():
    """Nor what only the command needs."""
    code = (
        "import sys, surgetank; surgetank.Tank(is_threaded=False, handle_sigterm=False, persistence_enabled=False).shutdown(0);"
        "print([name for name in sys.modules if name.startswith(('surgetank.catalogue', 'surgetank.doctor', 'surgetank.sizing'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
