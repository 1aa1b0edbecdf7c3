"""Reading a receiver's answer."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from strategies.sdk_objects import texts
from surgetank.otlp.partial_success import PartialSuccess, parse

NOTHING = PartialSuccess(rejected=0, message="")
FIELDS = {
    ExportTraceServiceResponse: "rejected_spans",
    ExportMetricsServiceResponse: "rejected_data_points",
    ExportLogsServiceResponse: "rejected_log_records",
}


@given(st.sampled_from(list(FIELDS)), st.integers(0, 2**63 - 1), texts)
def test_count_and_message_are_read(response, rejected, message):
    """The three signals' answers have one shape."""
    body = response(partial_success={FIELDS[response]: rejected, "error_message": message}).SerializeToString()
    assert parse(body) == PartialSuccess(rejected=rejected, message=message)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\x00",
        b"{}",
        b'{"partialSuccess":{"rejectedSpans":"1"}}',
        b"<html><body>OK</body></html>",
        b"OK",
        b"\x08\x05",
        b"\x0a\x05\x08",
        b"\x0a\x02\x08\x80",
        ExportTraceServiceResponse(partial_success={"rejected_spans": -1, "error_message": "m"}).SerializeToString(),
    ],
)
def test_what_rejects_nothing_or_cannot_be_read_is_full_success(body):
    """A 200 with an odd body was still a 200."""
    assert parse(body) == NOTHING


def test_unknown_fields_are_passed_over():
    """Newer receivers may say more."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 3}).SerializeToString()
    assert parse(b"\x10\x01" + body + b"\x1a\x01x").rejected == 3


def test_a_repeated_partial_success_is_merged():
    """As protobuf merges a message field that stands twice."""
    first = ExportTraceServiceResponse(partial_success={"rejected_spans": 3}).SerializeToString()
    second = ExportTraceServiceResponse(partial_success={"error_message": "m"}).SerializeToString()
    assert parse(first + second) == PartialSuccess(rejected=3, message="m")


def test_a_long_message_is_shortened_and_bad_utf8_replaced():
    """It goes to a log line."""
    body = b"\x0a\x83\x80\x02\x12\xff\xff\x01" + b"\xff" * 32767
    assert parse(body).message == "\ufffd" * 4096


@given(st.binary(max_size=80))
@example(b"\x0a" + b"\xff" * 20)
def test_no_body_raises(body):
    """Whatever a receiver, or a proxy before it, may send."""
    result = parse(body)
    assert result.rejected >= 0


@given(st.integers(0, 2**63 - 1), st.integers(0, 40))
def test_no_truncation_raises(rejected, length):
    """An answer that was cut off anywhere."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": rejected, "error_message": "m" * 20})
    assert parse(body.SerializeToString()[:length]).rejected in (0, rejected)
