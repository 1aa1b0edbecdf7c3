"""A request's JSON form is what the official classes make of it, with OTLP's exceptions; the tables are complete."""

import base64
import json

import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.json_format import MessageToDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from strategies.protobuf import messages
from strategies.sdk_objects import REQUESTS, encode, log_records, spans
from surgetank.model import Signal
from surgetank.otlp import json as otlp_json
from surgetank.otlp import logs
from surgetank.otlp.spans import SpanCodec

IDENTIFIERS = ("traceId", "spanId", "parentSpanId")
F = FieldDescriptor
KINDS = {
    F.TYPE_STRING: otlp_json._TEXT,
    F.TYPE_BYTES: otlp_json._BYTES,
    F.TYPE_BOOL: otlp_json._BOOL,
    F.TYPE_ENUM: otlp_json._ENUM,
    F.TYPE_INT32: otlp_json._INT32,
    F.TYPE_UINT32: otlp_json._UINT32,
    F.TYPE_SINT32: otlp_json._SINT32,
    F.TYPE_INT64: otlp_json._INT64,
    F.TYPE_UINT64: otlp_json._UINT64,
    F.TYPE_FIXED32: otlp_json._FIXED32,
    F.TYPE_FIXED64: otlp_json._FIXED64,
    F.TYPE_SFIXED64: otlp_json._SFIXED64,
    F.TYPE_DOUBLE: otlp_json._DOUBLE,
}


def official(message):
    """Return the official JSON form with OTLP's exceptions applied."""
    return _with_hexadecimal(MessageToDict(message, use_integers_for_enums=True))


def _with_hexadecimal(value):
    if isinstance(value, list):
        return [_with_hexadecimal(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64decode(each).hex() if key in IDENTIFIERS else _with_hexadecimal(each)
        for key, each in value.items()
    }


def same(ours, theirs):
    """Compare as text, where minus zero is not zero and 1 is not true."""
    return json.dumps(ours, sort_keys=True) == json.dumps(theirs, sort_keys=True)


def descriptors():
    """Yield each message that a request can hold, once."""
    found = {}
    waiting = [request.DESCRIPTOR for request in REQUESTS.values()]
    while waiting:
        message = waiting.pop()
        if message.name not in found:
            found[message.name] = message
            waiting += [field.message_type for field in message.fields if field.message_type]
    return found


@pytest.mark.parametrize("message", descriptors().values(), ids=lambda message: message.name)
def test_the_tables_say_what_the_protocols_files_say(message):
    """Name, type, how often and in which `oneof`, of each field of each message."""
    ours = otlp_json.MESSAGES[message.name]
    for field in message.fields:
        entry = ours[field.number]
        assert entry.name == field.json_name
        assert entry.is_repeated == field.is_repeated
        assert bool(entry.choice) == (field.containing_oneof is not None), field.name
        if field.containing_oneof is not None:
            rivals = {each.number for each in field.containing_oneof.fields}
            assert {number for number, each in ours.items() if each.choice == entry.choice} >= rivals
        if field.message_type:
            assert entry.kind == field.message_type.name
        elif entry.name in IDENTIFIERS:
            assert entry.kind is otlp_json._HEX
        else:
            assert entry.kind is KINDS[field.type], field.name


@pytest.mark.parametrize("signal", list(Signal))
def test_any_request_is_what_the_official_classes_make_of_it(signal):
    """Every field with every value, whether an SDK would write it or not."""

    @settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages(REQUESTS[signal]))
    def run(message):
        assert same(otlp_json.decode(message.SerializeToString(), signal), official(message))

    run()


@pytest.mark.parametrize("signal", list(Signal))
def test_requests_one_behind_the_other_are_merged_as_protobuf_does(signal):
    """Which is what the format says of concatenated messages."""

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(messages(REQUESTS[signal]), messages(REQUESTS[signal]))
    def run(first, second):
        raw = first.SerializeToString() + second.SerializeToString()
        assert same(otlp_json.decode(raw, signal), official(REQUESTS[signal].FromString(raw)))

    run()


@settings(max_examples=30, deadline=None)
@given(st.lists(spans, min_size=1, max_size=3))
def test_what_our_encoder_makes_of_spans(items):
    """The bytes that are really stored."""
    raw = encode(SpanCodec(), items)

    assert same(otlp_json.decode(raw, Signal.SPANS), official(ExportTraceServiceRequest.FromString(raw)))


@settings(max_examples=30, deadline=None)
@given(st.lists(log_records(), min_size=1, max_size=3))
def test_what_our_encoder_makes_of_logs(items):
    """Likewise."""
    raw = encode(logs.LogCodec(), map(logs.snapshot, items))

    assert same(otlp_json.decode(raw, Signal.LOGS), official(ExportLogsServiceRequest.FromString(raw)))


@given(st.binary(max_size=60))
def test_nonsense_raises_value_errors_only(raw):
    """Whatever the disk has made of it."""
    for signal in Signal:
        try:
            otlp_json.decode(raw, signal)
        except ValueError:
            pass


def test_unknown_fields_are_skipped():
    """What a later version of the protocol adds."""
    assert otlp_json.decode(b"\xa2\x06\x03abc\x0a\x00", Signal.SPANS) == {"resourceSpans": [{}]}


def test_values_that_nest_without_end_are_refused():
    """Rather than overflow the stack."""
    value = b"\x0a\x01x"
    for _ in range(60):
        array = b"\x0a" + _varint(len(value)) + value
        value = b"\x2a" + _varint(len(array)) + array
    log = b"\x2a" + _varint(len(value)) + value
    for _ in range(3):
        tag = b"\x0a" if _ == 2 else b"\x12"
        log = tag + _varint(len(log)) + log

    with pytest.raises(ValueError, match="nest deeper"):
        otlp_json.decode(log, Signal.LOGS)


def _varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_a_packed_field_may_also_come_unpacked():
    """As the format allows."""
    message = ExportMetricsServiceRequest()
    point = message.resource_metrics.add().scope_metrics.add().metrics.add().histogram.data_points.add()
    point.bucket_counts.append(7)
    packed = message.SerializeToString()
    plain = b"\x31" + (7).to_bytes(8, "little")
    assert packed.endswith(b"\x32\x08" + plain[1:])
    raw = packed[:-10]
    for length in range(len(raw)):
        # Each container is one byte shorter with the unpacked form.
        if raw[length] == len(packed) - length - 1:
            raw = raw[:length] + bytes([raw[length] - 1]) + raw[length + 1 :]

    points = otlp_json.decode(raw + plain, Signal.METRICS)["resourceMetrics"][0]["scopeMetrics"][0]["metrics"][0]
    assert points["histogram"]["dataPoints"][0]["bucketCounts"] == ["7"]


def test_a_line_has_no_line_feed():
    """Or it would be two."""
    message = ExportTraceServiceRequest()
    message.resource_spans.add().scope_spans.add().spans.add(name="a\nb\u2028é", trace_id=b"\x01" * 16, kind=2)

    line = otlp_json.line(message.SerializeToString(), Signal.SPANS)

    assert "\n" not in line
    (resource,) = json.loads(line)["resourceSpans"]
    assert resource["scopeSpans"][0]["spans"] == [{"traceId": "01" * 16, "name": "a\nb\u2028é", "kind": 2}]
