"""Configuration: the ADR's names and defaults, what the environment says, and what is refused."""

import dataclasses
import logging

import pytest

from surgetank import BufferConfig, ConfigError, Signal, Timing
from surgetank.config import MEBIBYTE, Environment, resolve, resolve_limits, resolve_outlet
from surgetank.config.outlet import _say_http_is_spoken


def limits(signal, config=None, **variables):
    return resolve_limits(signal, config, Environment(variables))


def outlet(signal=Signal.SPANS, variables=None, **given):
    return resolve_outlet(signal, Environment(variables or {}), **given)


@pytest.mark.parametrize(
    ("signal", "max_size", "megabytes", "strategy", "persistence", "threshold"),
    [
        (Signal.SPANS, 2048, 50, "oldest", True, 10),
        (Signal.METRICS, 5000, 20, "sampling", False, 20),
        (Signal.LOGS, 5000, 30, "oldest", True, 10),
    ],
)
def test_the_defaults_are_the_adrs(signal, max_size, megabytes, strategy, persistence, threshold):
    """ADR 018's table, with the logs that it leaves out."""
    found = limits(signal)

    assert found.max_size == max_size
    assert found.max_bytes == megabytes * MEBIBYTE
    assert found.drop_strategy == strategy
    assert found.is_stored == persistence
    assert found.persist == ("all" if persistence else "shutdown")
    assert found.circuit_breaker_threshold == threshold


def test_a_field_left_out_takes_the_signals_default():
    """The same record means something else for each signal where it is silent."""
    config = BufferConfig(max_size=100)

    assert limits(Signal.SPANS, config).drop_strategy == "oldest"
    assert limits(Signal.METRICS, config).drop_strategy == "sampling"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_size", 0),
        ("max_size", -1),
        ("max_size", 2.5),
        ("max_size", True),
        ("max_size", "2048"),
        ("max_memory_mb", 0),
        ("max_memory_mb", float("nan")),
        ("max_memory_mb", float("inf")),
        ("drop_strategy", "random"),
        ("persistence_enabled", "yes"),
        ("circuit_breaker_threshold", 0),
        ("max_export_batch_size", 0),
        ("max_batch_mb", 65),
        ("schedule_delay", 0),
    ],
)
def test_a_value_outside_its_range_is_refused_with_field_value_and_range(field, value):
    """The message says all three."""
    with pytest.raises(ConfigError) as refused:
        BufferConfig(**{field: value})

    assert refused.value.field == field
    assert repr(value) in str(refused.value)
    assert refused.value.permitted in str(refused.value)


def test_a_batch_larger_than_the_buffer_is_refused():
    """An impossible combination names the field and its range."""
    with pytest.raises(ConfigError, match=r"max_export_batch_size must be .* 1 to 100 \(got 512\)"):
        BufferConfig(max_size=100, max_export_batch_size=512)


def test_a_small_buffer_makes_small_batches_by_itself():
    """Only a stated contradiction is an error."""
    assert limits(Signal.SPANS, BufferConfig(max_size=100)).max_export_batch_size == 100


def test_a_batch_is_at_most_an_eighth_of_the_byte_limit():
    """So that sealing can never be what breaks it."""
    assert limits(Signal.SPANS, BufferConfig(max_memory_mb=1)).max_batch_bytes == MEBIBYTE // 8


def test_every_signal_can_be_sampled():
    """Each in its own way."""
    for signal in Signal:
        assert limits(signal, BufferConfig(drop_strategy="sampling")).drop_strategy == "sampling"


def test_keywords_win_over_our_variables_and_those_over_the_sdks():
    """The most explicit word counts."""
    theirs = {"OTEL_BSP_MAX_QUEUE_SIZE": "1000", "OTEL_BSP_SCHEDULE_DELAY": "2500"}
    ours = {"SURGETANK_SPANS_MAX_SIZE": "3000"}

    assert limits(Signal.SPANS, **theirs).max_size == 1000
    assert limits(Signal.SPANS, **theirs).schedule_delay == 2.5
    assert limits(Signal.SPANS, **theirs, **ours).max_size == 3000
    assert limits(Signal.SPANS, BufferConfig(max_size=4000), **theirs, **ours).max_size == 4000


def test_the_log_processors_variables_are_read_for_logs():
    """`OTEL_BLRP_*`, in milliseconds."""
    variables = {"OTEL_BLRP_MAX_EXPORT_BATCH_SIZE": "64", "OTEL_BLRP_SCHEDULE_DELAY": "200"}

    found = limits(Signal.LOGS, **variables)

    assert (found.max_export_batch_size, found.schedule_delay) == (64, 0.2)


def test_every_field_can_be_set_by_a_variable_of_its_name():
    """`SURGETANK_<SIGNAL>_<FIELD>`."""
    values = {
        "max_size": "77",
        "max_memory_mb": "7.5",
        "drop_strategy": "newest",
        "persistence_enabled": "true",
        "persist": "critical",
        "on_full": "block",
        "block_timeout": "2.5",
        "circuit_breaker_threshold": "7",
        "max_export_batch_size": "17",
        "max_batch_mb": "0.5",
        "schedule_delay": "0.25",
    }
    assert set(values) == {field.name for field in dataclasses.fields(BufferConfig)}

    found = limits(Signal.LOGS, **{f"SURGETANK_LOGS_{name.upper()}": text for name, text in values.items()})

    assert found.max_size == 77
    assert found.max_bytes == int(7.5 * MEBIBYTE)
    assert found.drop_strategy == "newest"
    assert found.persist == "critical"
    assert (found.on_full, found.block_timeout) == ("block", 2.5)
    assert limits(Signal.LOGS, SURGETANK_LOGS_PERSISTENCE_ENABLED="false").persist == "none"
    assert found.circuit_breaker_threshold == 7
    assert found.max_export_batch_size == 17
    assert found.max_batch_bytes == MEBIBYTE // 2
    assert found.schedule_delay == 0.25


@pytest.mark.parametrize("text", ["many", "0", "-3", "1e3", "'5'", "999999999999"])
@pytest.mark.parametrize("variable", ["SURGETANK_SPANS_MAX_SIZE", "OTEL_BSP_MAX_QUEUE_SIZE"])
def test_a_bad_variable_is_ignored_with_its_name_value_and_range(variable, text, caplog):
    """Ours and the SDK's; once, however often it is read."""
    for _ in range(3):
        assert limits(Signal.SPANS, **{variable: text}).max_size == 2048

    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith(f"{variable} must be a whole number from 1 to 100,000,000")
    assert f"(got {text!r}); it is ignored" in line
    assert ("remove the quotation marks" in line) == text.startswith("'")


def test_a_bad_variable_makes_way_for_the_next_source():
    """Ours for the SDK's, and that for the default."""
    variables = {"SURGETANK_SPANS_MAX_SIZE": "many", "OTEL_BSP_MAX_QUEUE_SIZE": "77"}

    assert limits(Signal.SPANS, **variables).max_size == 77


@pytest.mark.parametrize(
    ("config", "variables", "sizes"),
    [
        (None, {"SURGETANK_SPANS_MAX_EXPORT_BATCH_SIZE": "5000"}, (2048, 512)),
        (None, {"SURGETANK_SPANS_MAX_SIZE": "100", "SURGETANK_SPANS_MAX_EXPORT_BATCH_SIZE": "500"}, (100, 100)),
        (BufferConfig(max_size=100), {"SURGETANK_SPANS_MAX_EXPORT_BATCH_SIZE": "500"}, (100, 100)),
        (BufferConfig(max_export_batch_size=500), {"SURGETANK_SPANS_MAX_SIZE": "100"}, (2048, 500)),
        (BufferConfig(max_export_batch_size=500), {"OTEL_BSP_MAX_QUEUE_SIZE": "100"}, (2048, 500)),
    ],
)
def test_a_variable_never_makes_a_keyword_or_a_default_impossible(config, variables, sizes, caplog):
    """What contradicts is ignored, and said."""
    found = limits(Signal.SPANS, config, **variables)

    assert (found.max_size, found.max_export_batch_size) == sizes
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("variables", "backoff"),
    [
        ({"SURGETANK_BACKOFF_MAX": "0.1"}, (0.5, 5)),
        ({"SURGETANK_BACKOFF_INITIAL": "10"}, (0.5, 5)),
        ({"SURGETANK_BACKOFF_INITIAL": "10", "SURGETANK_BACKOFF_MAX": "20"}, (10, 20)),
        ({"SURGETANK_BACKOFF_INITIAL": "3", "SURGETANK_BACKOFF_MAX": "2"}, (3, 5)),
        ({"SURGETANK_BACKOFF_INITIAL": "30", "SURGETANK_BACKOFF_MAX": "20"}, (0.5, 5)),
    ],
)
def test_waits_that_contradict_each_other_are_ignored(variables, backoff):
    """Until what is left is possible."""
    found = resolve(variables=variables).timing

    assert (found.backoff_initial, found.backoff_max) == backoff


def test_a_blank_variable_is_an_unset_one():
    """As the specification has it."""
    assert limits(Signal.SPANS, SURGETANK_SPANS_MAX_SIZE=" ", OTEL_BSP_MAX_QUEUE_SIZE="").max_size == 2048


def test_each_signal_adds_its_path_to_the_base_endpoint():
    """With or without a slash at the end."""
    assert outlet(endpoint="http://c:4318").url == "http://c:4318/v1/traces"
    assert outlet(Signal.LOGS, endpoint="http://c:4318/otlp/").url == "http://c:4318/otlp/v1/logs"
    assert outlet(Signal.METRICS).url == "http://localhost:4318/v1/metrics"


def test_a_per_signal_endpoint_is_used_as_it_stands():
    """Only the base form gets the path."""
    variables = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://base:4318",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://own:9000/here",
    }

    assert outlet(Signal.SPANS, variables).url == "http://own:9000/here"
    assert outlet(Signal.LOGS, variables).url == "http://base:4318/v1/logs"


@pytest.mark.parametrize("url", ["localhost:4318", "ftp://c", "http://", "http://c:port", "", "http:// c"])
def test_an_endpoint_that_is_no_url_is_refused(url):
    """At construction, not at the first send."""
    with pytest.raises(ConfigError, match="endpoint"):
        outlet(endpoint=url)


def test_a_refused_endpoint_does_not_give_its_password_away():
    """The message ends up in logs."""
    with pytest.raises(ConfigError) as refused:
        outlet(endpoint="ftp://user:secret@collector")

    assert "secret" not in str(refused.value)


def test_headers_are_read_decoded_and_overridden_by_keyword():
    """The W3C form, percent-encoded; names are case-insensitive."""
    variables = {"OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b, tenant=x=y,,broken"}

    found = outlet(variables=variables, headers={"Tenant": "z"})

    assert dict(found.headers) == {"api-key": "a b", "tenant": "z"}


def test_a_header_with_a_line_break_is_refused_without_repeating_its_value():
    """The value may be a credential."""
    with pytest.raises(ConfigError) as refused:
        outlet(headers={"authorization": "Bearer secret\r\nx: y"})

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("name", ["content-type", "Content-Encoding", "host", "bad name", ""])
def test_headers_that_are_ours_or_no_headers_are_refused(name):
    """What describes the body is decided where the body is made."""
    with pytest.raises(ConfigError, match="headers"):
        outlet(headers={name: "x"})


def test_timeout_and_compression_come_from_the_environment_with_the_sdks_reading():
    """Seconds, not milliseconds; the signal's own variable first."""
    variables = {
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "4.5",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "Deflate",
    }

    assert (outlet(Signal.SPANS, variables).timeout, outlet(Signal.LOGS, variables).timeout) == (3.0, 4.5)
    assert outlet(Signal.SPANS, variables).compression == "none"
    assert outlet(Signal.LOGS, variables).compression == "deflate"
    assert outlet().compression == "gzip"


def test_a_certificate_that_is_not_there_is_refused():
    """Before anything is sent in the clear or not at all."""
    with pytest.raises(ConfigError, match="certificate_file"):
        outlet(certificate_file="/nowhere/ca.pem")
    with pytest.raises(ConfigError, match="client_key_file"):
        outlet(client_key_file="/nowhere/key.pem")


@pytest.mark.parametrize(
    "bad",
    [
        {"backoff_initial": 0},
        {"backoff_max": 0.1},
        {"cooldown_factor": 0.5},
        {"jitter": 1},
        {"cooldown_max": float("nan")},
    ],
)
def test_impossible_timing_is_refused(bad):
    """Each wait has a range, and no maximum lies below its beginning."""
    with pytest.raises(ConfigError):
        Timing(**bad)


def test_timing_and_deadlines_can_be_set_by_variables():
    """`SURGETANK_<FIELD>` for what belongs to the whole tank."""
    found = resolve(
        variables={
            "SURGETANK_COOLDOWN_MAX": "90",
            "SURGETANK_SHUTDOWN_TIMEOUT": "2",
            "OTEL_METRIC_EXPORT_INTERVAL": "1500",
        }
    )

    assert found.timing.cooldown_max == 90
    assert found.shutdown_timeout == 2
    assert found.metric_export_interval == 1.5


OTLP = "OTEL_EXPORTER_OTLP_"


def test_grpc_has_a_port_of_its_own_and_no_paths():
    """Chosen by keyword, by the common variable or by a signal's own."""
    assert outlet(protocol="grpc").url == "http://localhost:4317"
    assert outlet(variables={f"{OTLP}PROTOCOL": "grpc"}).protocol == "grpc"
    one = {f"{OTLP}LOGS_PROTOCOL": "grpc", f"{OTLP}ENDPOINT": "http://c:4317"}
    assert (outlet(Signal.LOGS, one).protocol, outlet(Signal.LOGS, one).url) == ("grpc", "http://c:4317")
    assert (outlet(Signal.SPANS, one).protocol, outlet(Signal.SPANS, one).url) == (
        "http/protobuf",
        "http://c:4317/v1/traces",
    )


@pytest.mark.parametrize(
    ("variables", "url", "level"),
    [
        ({}, "http://localhost:4318/v1/traces", logging.INFO),
        ({f"{OTLP}ENDPOINT": "http://c:4318"}, "http://c:4318/v1/traces", logging.INFO),
        ({f"{OTLP}ENDPOINT": "http://u:secret@c:4317"}, "http://u:secret@c:4317/v1/traces", logging.WARNING),
        ({f"{OTLP}TRACES_ENDPOINT": "https://c/v1/traces"}, "https://c/v1/traces", logging.WARNING),
    ],
)
def test_where_there_is_no_grpc_the_variable_means_http(monkeypatch, caplog, variables, url, level):
    """The distribution sets it by default. One line says so, louder where the endpoint may be gRPC's, and changes nobody's variables."""
    monkeypatch.setattr("surgetank.config.outlet.find_spec", lambda name: None)
    _say_http_is_spoken.cache_clear()
    caplog.set_level(logging.INFO)

    found = [outlet(variables={**variables, f"{OTLP}PROTOCOL": "grpc"}) for _ in Signal]

    assert {(each.protocol, each.url) for each in found} == {("http/protobuf", url)}
    assert [record.levelno for record in caplog.records] == [level]
    assert "pip install 'surgetank[grpc]'" in caplog.text
    assert ("gRPC only" in caplog.text) == (level == logging.WARNING)
    assert "secret" not in caplog.text


def test_the_argument_is_not_reinterpreted(monkeypatch):
    """It is the application's own word; that gRPC is missing is said where it is needed."""
    monkeypatch.setattr("surgetank.config.outlet.find_spec", lambda name: None)

    assert outlet(protocol="grpc").protocol == "grpc"


def test_an_endpoint_without_a_scheme_is_spoken_to_in_tls_unless_that_is_switched_off():
    """As the specification has it, for gRPC only; a scheme is stronger."""
    assert outlet(protocol="grpc", endpoint="c:4317").url == "https://c:4317"
    assert outlet(Signal.SPANS, {f"{OTLP}INSECURE": "true"}, protocol="grpc", endpoint="c:4317").url == "http://c:4317"
    own = {f"{OTLP}INSECURE": "true", f"{OTLP}TRACES_INSECURE": "false", f"{OTLP}TRACES_ENDPOINT": "c:4317"}
    assert outlet(Signal.SPANS, own, protocol="grpc").url == "https://c:4317"
    schemed = {f"{OTLP}INSECURE": "true", f"{OTLP}ENDPOINT": "https://c:4317"}
    assert outlet(Signal.SPANS, schemed, protocol="grpc").url == "https://c:4317"
    with pytest.raises(ConfigError, match="endpoint"):
        outlet(endpoint="c:4317")


def test_a_protocol_that_is_not_spoken_is_logged_as_a_variable_and_refused_as_a_keyword(caplog):
    """OTLP/JSON among them."""
    assert outlet(variables={f"{OTLP}PROTOCOL": "http/json"}).protocol == "http/protobuf"
    assert "(got 'http/json'); http/protobuf is used" in caplog.text
    with pytest.raises(ConfigError, match="protocol"):
        outlet(protocol="http/json")


def test_with_grpc_what_is_held_is_compressed_and_calls_are_only_if_asked_for():
    """Each attempt would compress anew."""

    def chosen(variables=None, **given):
        found = outlet(variables=variables, protocol="grpc", **given)
        return found.compression, found.call_compression

    assert chosen() == ("gzip", "none")
    assert chosen(compression="gzip") == ("gzip", "gzip")
    assert chosen(compression="none") == ("gzip", "none")
    assert chosen({f"{OTLP}COMPRESSION": "deflate"}) == ("gzip", "deflate")
    assert outlet(compression="none").call_compression == "none"


def test_with_grpc_room_for_the_call_under_way_is_set_aside():
    """The uncompressed request is held twice while it lasts."""
    http, grpc = resolve(variables={}), resolve(variables={}, protocol="grpc")

    for signal in Signal:
        batch = http.limits[signal].max_batch_bytes
        assert grpc.limits[signal].max_batch_bytes == batch
        assert grpc.limits[signal].max_bytes == http.limits[signal].max_bytes - 2 * batch
