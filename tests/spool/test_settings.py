"""The spool's settings: keyword, environment and default; what is refused; which folder is whose."""

import os
from base64 import b64encode

import pytest

from surgetank import Tank
from surgetank.config import MEBIBYTE, Environment, OutletConfig
from surgetank.errors import ConfigError
from surgetank.spool.encryption import KEY_BYTES
from surgetank.spool.settings import SpoolConfig, is_homeless, resolve_spool

KEY = f"k1:{b64encode(bytes(KEY_BYTES)).decode()}"
URL = "https://collector.example:4318/v1/traces"


def resolved(config=None, *outlets, **variables):
    """Return the settings for a configuration and an environment."""
    variables = {f"SURGETANK_SPOOL_{name.upper()}": value for name, value in variables.items()}
    variables.setdefault("XDG_STATE_HOME", "/state")
    return resolve_spool(config, Environment(variables), outlets or [OutletConfig(url=URL)])


def folder(state="/state", variables=None, **outlet):
    """Return the default folder for one destination."""
    variables = {**(variables or {}), **({} if state is None else {"XDG_STATE_HOME": state})}
    return resolve_spool(None, Environment(variables), [OutletConfig(**{"url": URL, **outlet})]).path


def test_the_defaults():
    """Half a GiB, two days, and what was written survives the process."""
    found = resolved()

    assert found.max_bytes == 512 * MEBIBYTE
    assert found.max_age == 172_800
    assert found.reserve_bytes == 64 * MEBIBYTE
    assert found.durability == "os"
    assert found.dead_letter_bytes == 16 * MEBIBYTE
    assert found.key_text is None
    assert found.is_write_ahead
    assert not found.is_synced


@pytest.mark.parametrize(
    ("name", "text", "field", "expected"),
    [
        ("dir", "/var/spool/app", "path", "/var/spool/app"),
        ("max_mb", "20", "max_bytes", 20 * MEBIBYTE),
        ("max_mb", "1.5", "max_bytes", 3 * MEBIBYTE // 2),
        ("max_age", "3600", "max_age", 3600.0),
        ("reserve_mb", "0", "reserve_bytes", 0),
        ("durability", "disk", "durability", "disk"),
        ("durability", " Memory ", "durability", "memory"),
        ("dead_letter_mb", "0.5", "dead_letter_bytes", MEBIBYTE // 2),
    ],
)
def test_each_variable_is_read(name, text, field, expected):
    """And a blank one is an unset one."""
    assert getattr(resolved(**{name: text}), field) == expected
    default = getattr(resolved(), field)
    assert getattr(resolved(**{name: "  "}), field) == default


@pytest.mark.parametrize(
    ("name", "given", "text", "field", "expected"),
    [
        ("dir", "/given", "/variable", "path", "/given"),
        ("max_mb", 2, "3", "max_bytes", 2 * MEBIBYTE),
        ("max_age", 5, "6", "max_age", 5.0),
        ("reserve_mb", 0, "7", "reserve_bytes", 0),
        ("durability", "disk", "memory", "durability", "disk"),
        ("dead_letter_mb", 0, "1", "dead_letter_bytes", 0),
    ],
)
def test_a_keyword_goes_before_its_variable(name, given, text, field, expected):
    """Zero is a value, too."""
    assert getattr(resolved(SpoolConfig(**{name: given}), **{name: text}), field) == expected


RANGES = {
    "max_mb": (1, 1_048_576),
    "max_age": (1, 31_536_000),
    "reserve_mb": (0, 1_048_576),
    "dead_letter_mb": (0, 1024),
}


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range_is_refused(name):
    """With the field as it was written, the value, and what is permitted."""
    low, high = RANGES[name]
    for value in (low, high):
        resolved(SpoolConfig(**{name: value}))
        resolved(**{name: str(value)})

    for value in (low - 0.5, high + 1, float("nan"), float("inf"), -1):
        with pytest.raises(ConfigError) as caught:
            SpoolConfig(**{name: value})
        assert caught.value.field == f"spool.{name}"
        assert caught.value.value is value
        assert f"{low:,.10g} to {high:,.10g}" in caught.value.permitted
        assert resolved(**{name: str(value)}) == resolved()


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", ["many", True, [1]])
def test_what_is_no_number_is_refused(name, value):
    """As a keyword; as a variable it is ignored."""
    with pytest.raises(ConfigError) as caught:
        SpoolConfig(**{name: value})
    assert caught.value.field == f"spool.{name}"
    assert resolved(**{name: str(value)}) == resolved()


def test_a_durability_that_does_not_exist_is_refused():
    """With those that do."""
    with pytest.raises(ConfigError) as caught:
        SpoolConfig(durability="tape")
    assert (caught.value.field, caught.value.value) == ("spool.durability", "tape")
    for each in ("memory", "os", "disk"):
        assert repr(each) in caught.value.permitted
    assert resolved(durability="tape") == resolved()


@pytest.mark.parametrize(
    ("durability", "is_write_ahead", "is_synced"), [("memory", 0, 0), ("os", 1, 0), ("disk", 1, 1)]
)
def test_what_a_durability_means(durability, is_write_ahead, is_synced):
    """Whether batches are stored before their first attempt, and whether they are synced."""
    found = resolved(durability=durability)

    assert (found.is_write_ahead, found.is_synced) == (is_write_ahead, is_synced)


@pytest.mark.parametrize("megabytes", [1, 2, 16, 512, 4096])
def test_a_spool_has_room_for_several_segments(megabytes):
    """Or it could not keep the oldest while the newest is written."""
    found = resolved(SpoolConfig(max_mb=megabytes))

    assert 64 * 1024 <= found.segment_bytes <= found.max_bytes // 4
    assert found.segment_bytes <= 4 * MEBIBYTE


def test_in_a_folder_that_all_users_share_it_is_one_of_our_own(tmp_path):
    """What lies in the shared one can be planted and read by everybody; a folder of one's own below it is used as it is."""
    shared = tmp_path / "tmp"
    shared.mkdir()
    shared.chmod(0o1777)
    link = tmp_path / "link"
    link.symlink_to(shared)
    own = f"surgetank-spool-{os.geteuid()}"

    for path in (str(shared), f"{shared}/", f"{shared}/.", shared):
        assert resolved(SpoolConfig(dir=path)).path == str(shared / own)
    assert resolved(SpoolConfig(dir=str(link))).path == str(link / own)
    assert resolved(dir=str(shared)).path == str(shared / own)
    assert resolved(SpoolConfig(dir=shared / "app")).path == str(shared / "app")


@pytest.mark.skipif(
    not os.path.isdir("/tmp") or os.stat("/tmp").st_mode & 0o1002 != 0o1002, reason="another kind of /tmp"
)
def test_tmp_is_such_a_folder():
    """The one that everybody tries first."""
    assert resolved(SpoolConfig(dir="/tmp")).path == f"/tmp/surgetank-spool-{os.geteuid()}"


def test_a_relative_folder_is_made_absolute():
    """The process may change its working directory later."""
    assert resolved(SpoolConfig(dir="spool")).path == os.path.join(os.getcwd(), "spool")


def test_the_default_folder_lies_below_the_users_state():
    """As `XDG_STATE_HOME` says, or in the home folder."""
    assert folder().startswith("/state/surgetank/")
    assert folder(state=None).startswith(os.path.join(os.path.expanduser("~"), ".local", "state", "surgetank") + os.sep)


def test_each_destination_has_a_default_folder_of_its_own():
    """Processes send each other's orphans to their own endpoint, with their own credentials."""
    secret = {"authorization": "Bearer one"}
    folders = [
        folder(),
        folder(url="https://other.example/v1/traces"),
        folder(url="https://collector.example:4318/tenants/a/v1/traces"),
        folder(headers=secret),
        folder(headers=secret, variables={"OTEL_SERVICE_NAME": "shop"}),
        folder(headers=secret, variables={"OTEL_RESOURCE_ATTRIBUTES": "a=b,service.name=mail"}),
        folder(headers={"x-api-key": "Bearer one"}),
        folder(headers={"x-scope-orgid": "one"}),
        folder(headers={"X-Scope-OrgID": "two"}),
        folder(client_certificate_file="/etc/client.pem"),
    ]

    assert len(set(folders)) == len(folders)


def test_without_credentials_all_services_share_a_destinations_folder():
    """A job that never runs again has its backlog sent by any other."""
    assert folder(variables={"OTEL_SERVICE_NAME": "shop"}) == folder(variables={"OTEL_SERVICE_NAME": "mail"})
    tenant = {"x-scope-orgid": "one"}
    assert folder(headers=tenant, variables={"OTEL_SERVICE_NAME": "shop"}) == folder(headers=tenant)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"headers": {"authorization": "Bearer 1"}}, {"headers": {"Authorization": "Bearer 2"}}),
        ({"headers": {"x-api-key": "1", "a": "b"}}, {"headers": {"x-api-key": "2", "a": "c"}}),
        ({"url": "https://user:one@collector.example/v1"}, {"url": "https://user:two@collector.example/v1"}),
        ({"url": "https://collector.example/v1?key=one"}, {"url": "https://collector.example/v1?key=two"}),
    ],
)
def test_a_new_token_has_the_same_folder(one, two):
    """What waited for the old one to be accepted again is sent with the new one."""
    assert folder(**one) == folder(**two)


def test_what_does_not_change_the_destination_does_not_change_the_folder():
    """Or an update of the application would leave its orphans behind."""
    assert folder(timeout=3.0) == folder(compression="none") == folder(proxy="") == folder()
    one, two = {"a": "1", "b": "2"}, {"b": "2", "a": "1"}
    assert folder(headers=one) == folder(headers=two)


def test_the_default_folder_names_neither_endpoint_nor_credentials():
    """Its name is a digest."""
    path = folder(headers={"authorization": "Bearer s3cret"})

    for part in ("collector", "example", "4318", "s3cret", "authorization", "Bearer"):
        assert part not in path
    assert len(os.path.basename(path)) == 16
    assert set(os.path.basename(path)) <= set("0123456789abcdef")


def test_a_key_is_taken_from_wherever_it_is(tmp_path):
    """Text, function, file; keyword before variable, and nothing is read before it is needed."""
    file = tmp_path / "key"
    other = tmp_path / "other"
    file.write_text(KEY)
    other.write_text("other")

    assert resolved(SpoolConfig(encryption_key=KEY)).key_text() == KEY
    assert resolved(SpoolConfig(encryption_key=lambda: KEY)).key_text() == KEY
    assert resolved(SpoolConfig(encryption_key_file=str(file))).key_text() == KEY
    assert resolved(encryption_key=KEY).key_text() == KEY
    assert resolved(encryption_key_file=str(file)).key_text() == KEY
    assert resolved(encryption_key_file=str(file), encryption_key="text").key_text() == KEY
    assert resolved(SpoolConfig(encryption_key=KEY), encryption_key_file=str(other)).key_text() == KEY
    assert resolved(SpoolConfig(encryption_key_file=str(file)), encryption_key="text").key_text() == KEY


def test_two_keys_in_two_keywords_are_refused_without_being_repeated():
    """Which one was meant?"""
    with pytest.raises(ConfigError) as caught:
        SpoolConfig(encryption_key=KEY, encryption_key_file="/etc/key")

    assert caught.value.field == "spool.encryption_key_file"
    assert KEY not in str(caught.value)


def test_a_key_file_that_cannot_be_read_is_refused(tmp_path):
    """When the key is needed, with the file's name."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\xfd")

    for path in (str(tmp_path / "missing"), str(tmp_path), str(binary)):
        found = resolved(encryption_key_file=path)
        with pytest.raises(ConfigError) as caught:
            found.key_text()
        assert caught.value.field == "spool.encryption_key_file"
        assert caught.value.value == path


def test_neither_configuration_nor_settings_show_the_key():
    """They end up in logs."""
    config = SpoolConfig(encryption_key=KEY)

    for each in (config, resolved(config), resolved(encryption_key=KEY)):
        assert KEY not in repr(each)


def test_a_relative_state_folder_is_ignored():
    """So the specification of `XDG_STATE_HOME` has it."""
    assert folder(state="state") == folder(state=None)


def test_without_a_home_nothing_is_stored(monkeypatch, tmp_path, caplog):
    """A container's user has no entry in the system's list: `~` would become a folder of that name, wherever we run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("SURGETANK_PERSISTENCE_ENABLED", "true")

    tank = Tank(is_threaded=False, handle_sigterm=False)
    tank.shutdown(0.0)

    assert [record.getMessage().partition(" and ")[0] for record in caplog.records] == [
        "there is no home folder for a spool"
    ]
    assert tank._disk is None


@pytest.mark.parametrize(
    ("config", "variables"),
    [
        (SpoolConfig(dir="/spool"), {}),
        (None, {"SURGETANK_SPOOL_DIR": "/spool"}),
        (None, {"XDG_STATE_HOME": "/state"}),
    ],
)
def test_who_names_a_folder_needs_no_home(monkeypatch, config, variables):
    """However it is named."""
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)

    assert not is_homeless(config, Environment(variables))
