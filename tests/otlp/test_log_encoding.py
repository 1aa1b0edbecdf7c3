"""Logs: snapshots, and our bytes against the official encoder's message."""

from __future__ import annotations

import os
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.common._log_encoder import encode_logs
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import LoggerProvider, LogRecordLimits, LogRecordProcessor, ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from strategies import sdk_objects as sdk
from surgetank.otlp.logs import LogCodec, LogItem, snapshot


def build(**fields: Any) -> ReadWriteLogRecord:
    return ReadWriteLogRecord(LogRecord(**{"observed_timestamp": 1, **fields}), resource=Resource({}))


def check(*records: Any) -> None:
    sdk.assert_same(sdk.encode(LogCodec(), map(snapshot, records)), encode_logs(records))


def only(item: LogItem) -> Any:
    message = ExportLogsServiceRequest.FromString(sdk.encode(LogCodec(), [item]))
    return message.resource_logs[0].scope_logs[0].log_records[0]


class Keeper(LogRecordProcessor):
    def __init__(self) -> None:
        self.records: list[Any] = []

    def on_emit(self, log_record: Any) -> None:
        self.records.append(log_record)

    def shutdown(self) -> None: ...

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
@settings(max_examples=150, deadline=None)
@given(st.lists(sdk.log_records(), max_size=4))
def test_any_log_records_become_the_official_message(records):
    """The law of this package, over the whole space of log records."""
    check(*records)


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(sdk.values, sdk.given_attributes, st.sampled_from(list(SeverityNumber))), max_size=3),
    st.sampled_from(["0", "1", "4", ""]),
)
def test_records_of_a_real_logger_become_the_official_message(plans, limit):
    """As a processor gets them, limits and dropped counts included."""
    keeper = Keeper()
    with mock.patch.dict(os.environ, OTEL_ATTRIBUTE_COUNT_LIMIT=limit):
        provider = LoggerProvider(resource=Resource({"service.name": "s"}), shutdown_on_exit=False)
    provider.add_log_record_processor(keeper)
    for number, (body, attributes, severity) in enumerate(plans):
        logger = provider.get_logger(f"lib{number % 2}", "1", "https://e.com", {"k": number})
        with mock.patch.dict(os.environ, OTEL_ATTRIBUTE_COUNT_LIMIT=limit):
            logger.emit(LogRecord(timestamp=number, body=body, attributes=attributes, severity_number=severity))
    check(*keeper.records)


BODIES = {
    "none": None,
    "empty string": "",
    "string": "é",
    "false": False,
    "true": True,
    "zero": 0,
    "negative": -1,
    "smallest": -(2**63),
    "float zero": 0.0,
    "minus zero": -0.0,
    "nan": float("nan"),
    "infinite": float("-inf"),
    "bytes": b"\xff",
    "empty bytes": b"",
    "empty list": [],
    "list": ["a", 1, None, [True]],
    "empty map": {},
    "map": {"a": {"b": [1.5, {}]}, "": None},
    "map with other keys": {1: "a", None: "b"},
    "str enum": sdk.Colour.RED,
    "int enum": sdk.Level.HIGH,
    "str subclass": sdk.OwnStr("kept"),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_becomes_the_official_message(body):
    """Every type of body, and those whose presence is easily lost."""
    if not sdk.TAKES_NONE and "None" in repr(body):
        pytest.skip("this version of the official encoder has no form for None")
    check(build(body=body))


def test_no_body_is_a_present_empty_value():
    """The official encoder writes an empty AnyValue, and so do we."""
    record = only(snapshot(build(body=None)))
    assert record.HasField("body")
    assert record.body.WhichOneof("value") is None


def test_a_body_with_lone_surrogates_keeps_its_bytes():
    """Text that was decoded with surrogateescape is sent as what it was before."""
    assert only(snapshot(build(body=b"caf\xe9".decode("utf-8", "surrogateescape")))).body.bytes_value == b"caf\xe9"


def test_dropped_attributes_are_counted():
    """The count is the SDK's container's, which the snapshot does not keep."""
    with pytest.warns(UserWarning, match="dropped"):
        record = ReadWriteLogRecord(
            LogRecord(attributes={"a": 1, "b": 2}),
            resource=Resource({}),
            limits=LogRecordLimits(max_attributes=1),
        )
    check(record)
    assert only(snapshot(record)).dropped_attributes_count == 1


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
def test_dropped_attributes_are_counted_where_none_is_left():
    """An empty container still knows how many it refused."""
    limits = LogRecordLimits(max_attributes=0)
    record = ReadWriteLogRecord(LogRecord(attributes={"a": 1, "b": 2}), resource=Resource({}), limits=limits)
    assert not record.log_record.attributes
    check(record)
    assert only(snapshot(record)).dropped_attributes_count == 2


@pytest.mark.filterwarnings("ignore:Log record attributes were dropped")
@pytest.mark.parametrize("attributes", [{"": 1}, {1: "a"}, {None: 2}])
def test_attributes_without_a_usable_key_are_counted_as_the_sdk_counts_them(attributes):
    """What it takes for dropped differs from version to version."""
    record = ReadWriteLogRecord(LogRecord(attributes=attributes), resource=Resource({}))
    assert only(snapshot(record)).dropped_attributes_count == record.dropped_attributes


def test_a_record_without_trace_flags_severity_or_resource_is_sent():
    """What the official encoder refuses, or the SDK may leave out."""
    record = build(body="b")
    record.log_record.trace_flags = None
    record.log_record.trace_id = record.log_record.span_id = None
    record.resource = None
    message = only(snapshot(record))
    assert (message.flags, message.trace_id, message.span_id, message.body.string_value) == (0, b"", b"", "b")


def test_numbers_out_of_range_are_made_to_fit():
    """One wild record does not cost its batch."""
    record = build(timestamp=-1, observed_timestamp=2**65)
    record.log_record.trace_id = 2**128 + 1
    record.log_record.span_id = -1
    record.log_record.trace_flags = -7
    message = only(snapshot(record))
    assert (message.time_unix_nano, message.observed_time_unix_nano, message.flags) == (0, 2**64 - 1, 0)
    assert (message.trace_id, message.span_id) == (bytes(15) + b"\1", b"\xff" * 8)


def test_texts_with_lone_surrogates_are_repaired():
    """A string field must be valid UTF-8."""
    message = only(snapshot(build(severity_text="\udcff", event_name="e\ud800")))
    assert (message.severity_text, message.event_name) == ("\ufffd", "e\ufffd")


def test_a_snapshot_does_not_change_with_its_record():
    """A later processor may redact or enrich the record; what was offered stays what it was."""
    record = build(body="first", attributes={"a": 1})
    item = snapshot(record)
    record.log_record.attributes["a"] = 2
    record.log_record.body = "second"
    assert (item.body, dict(item.attributes)) == ("first", {"a": 1})


def test_a_snapshot_takes_any_mapping_of_attributes():
    """Records that were built by hand may carry what is neither a dict nor the SDK's container."""
    record = build()
    for attributes in (None, {}, {"a": 1}, sdk.MappingProxyType({"a": 1})):
        record.log_record.attributes = attributes
        assert dict(snapshot(record).attributes or {}) == dict(attributes or {})


def test_a_snapshot_does_not_keep_the_context_alive():
    """A context can pin whole request objects."""
    assert "context" not in LogItem.__slots__
    assert not hasattr(snapshot(build()), "__dict__")


@pytest.mark.parametrize(
    ("severity", "critical"),
    [(None, False), (SeverityNumber.WARN4, False), (SeverityNumber.ERROR, True), (SeverityNumber.FATAL4, True)],
)
def test_a_record_is_critical_from_error_upwards(severity, critical):
    """The lane's default rule for logs."""
    assert LogCodec().is_critical(snapshot(build(severity_number=severity))) is critical


def test_an_object_that_is_no_record_is_not_critical():
    """The question never raises."""
    assert not LogCodec().is_critical(object())
