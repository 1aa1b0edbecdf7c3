"""The table of what an answer means: every status, every `Retry-After`, every body."""

import math
from datetime import datetime, timezone
from email.utils import format_datetime

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from surgetank.delivery import verdicts
from surgetank.model import Outcome

# 1994-11-06 08:49:37 UTC, the moment of RFC 9110's examples.
EXAMPLE = 784111777.0


def judge(status=200, *, retry_after=None, body=b"", items=10, now=EXAMPLE, date=None):
    return verdicts.of_http(status, retry_after=retry_after, body=body, items=items, now=now, date=date)


def retry_after(text, now=EXAMPLE):
    return verdicts.parse_retry_after(text, now)


# Every status that a proxy, a load balancer or a collector may answer, by what is right: OTLP 1.x, RFC 9110, the registry of
# status codes, and what nginx, Cloudflare and the cloud providers' balancers have added.
DELIVERED = {*range(200, 300)}
THIS_REQUEST = {400, 409, 422}
NOT_NOW = {408, 425, 429, 499}
CANNOT_AT_ALL = {501, 505, 510, 511}


def expected(status):
    if status in DELIVERED:
        return Outcome.DELIVERED
    if status in THIS_REQUEST:
        return Outcome.PERMANENT
    if status == 413:
        return Outcome.SPLIT
    if status in CANNOT_AT_ALL or 300 <= status < 400 or (400 <= status < 500 and status not in NOT_NOW):
        return Outcome.HOLD
    return Outcome.RETRY


@pytest.mark.parametrize("hundred", range(1, 10))
def test_the_table_says_what_each_status_means(hundred):
    """Passing faults are retried, what people repair is held, what says that this request is wrong is permanent."""
    statuses = range(100 * hundred, 100 * hundred + 100)
    assert {status: judge(status).outcome for status in statuses} == {status: expected(status) for status in statuses}


@pytest.mark.parametrize(
    "status", [401, 402, 403, 404, 405, 406, 407, 410, 411, 414, 415, 417, 421, 423, 426, 431, 451]
)
def test_nothing_that_people_repair_costs_data(status):
    """An unpaid bill, a wrong route, a header that is too long: all of it can be sent when it is mended."""
    assert judge(status).outcome is Outcome.HOLD


def test_the_four_statuses_that_otlp_calls_retryable_are_retried():
    """OTLP 1.x, section "Failures": 429, 502, 503 and 504."""
    assert all(judge(status).outcome is Outcome.RETRY for status in (429, 502, 503, 504))


def test_an_answer_carries_its_status_as_cause_and_counts_as_reached():
    """The endpoint is alive, whatever it thinks of us."""
    for status in (200, 301, 401, 413, 400, 503):
        verdict = judge(status)
        assert (verdict.cause, verdict.reached) == (str(status), True)


def test_only_a_retry_takes_over_what_the_receiver_asked_to_wait():
    """A `Retry-After` beside anything else is no promise about this batch."""
    with_delay = {status for status in range(100, 1000) if judge(status, retry_after="7").retry_after == 7.0}
    assert with_delay == {status for status in range(100, 1000) if judge(status).outcome is Outcome.RETRY}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        ("06", 6.0),
        ("120", 120.0),
        (" 30 ", 30.0),
        ("1.5", 1.5),
        ("0.001", 0.001),
        ("86400000", 86_400_000.0),
    ],
)
def test_a_number_of_seconds_is_taken_as_it_stands(text, seconds):
    """However long, and with decimals, which some servers send."""
    assert retry_after(text) == seconds


@pytest.mark.parametrize(
    "date",
    ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"],
    ids=["imf-fixdate", "rfc850", "asctime"],
)
def test_the_three_forms_of_a_date_are_read_as_utc(date):
    """RFC 9110, section 5.6.7, has receivers accept all of them."""
    assert retry_after(date, EXAMPLE - 90) == 90.0
    assert retry_after(date, EXAMPLE - 0.5) == 0.5


@pytest.mark.parametrize("skew", [3600.0, -3600.0, 31 * 86_400.0, -25 * 365 * 86_400.0])
def test_a_date_is_relative_to_the_receivers_own_clock(skew):
    """A client whose clock is an hour or a month wrong waits no longer for it."""
    here = EXAMPLE + skew
    said = judge(503, retry_after="Sun, 06 Nov 1994 08:50:37 GMT", now=here, date="Sun, 06 Nov 1994 08:49:37 GMT")
    assert said.retry_after == 60.0
    # One that says nothing of its clock has ours.
    assert judge(503, retry_after="Sun, 06 Nov 1994 08:50:37 GMT", now=EXAMPLE, date="yesterday").retry_after == 60.0


@pytest.mark.parametrize("date", ["Sun, 06 Nov 1994 08:49:37 GMT", "Thu, 01 Jan 1970 00:00:00 GMT"])
def test_a_date_in_the_past_is_no_wait_at_all(date):
    """The receiver's clock may be behind ours."""
    assert retry_after(date, EXAMPLE + 1) == 0.0


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "soon",
        "-1",
        "-0.001",
        "nan",
        "-nan",
        "inf",
        "-inf",
        "Infinity",
        "1e999",
        "1,5",
        "5s",
        "0x10",
        "١٢٠ s",
        "Sun, 06 Nov 1994",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:99 GMT",
        "Sun, 06 Nov 99999999999 08:49:37 GMT",
        ",",
        ":",
        "Sun, 06 Nov 1994 08:49:37 +99999999999999",
        "\x00",
        "9" * 400,
    ],
)
def test_what_names_no_finite_wait_is_as_good_as_nothing(text):
    """Then our own backoff decides."""
    assert retry_after(text) is None


def test_a_huge_wait_is_finite_and_kept():
    """Nothing is sent before then, however long: the receiver was asked to be believed."""
    assert retry_after("1e300") == 1e300
    assert retry_after("99999999999999") == 99999999999999.0


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)), st.integers(0, 10**10))
def test_a_date_from_now_on_is_as_far_away_as_it_says(moment, now):
    """For any date that HTTP can write and any clock."""
    moment = moment.replace(tzinfo=timezone.utc, microsecond=0)
    expected = max(0.0, moment.timestamp() - now)
    assert retry_after(format_datetime(moment, usegmt=True), float(now)) == expected


@given(st.one_of(st.text(), st.from_regex(r"[A-Z][a-z]{2},? ?[0-9-]{1,9}.*GMT"), st.floats().map(str)))
@example("Sun, 06 Nov 1994 08:49:37 -9999999999")
def test_no_text_makes_a_wait_that_is_negative_or_not_finite(text):
    """Whatever a server writes there."""
    seconds = retry_after(text)
    assert seconds is None or (seconds >= 0 and math.isfinite(seconds))


@pytest.mark.parametrize(
    ("response", "name"),
    [
        (ExportTraceServiceResponse, "rejected_spans"),
        (ExportMetricsServiceResponse, "rejected_data_points"),
        (ExportLogsServiceResponse, "rejected_log_records"),
    ],
)
def test_what_a_receiver_rejects_of_a_delivered_batch_is_counted(response, name):
    """The same for the three signals."""
    body = response(partial_success={name: 3, "error_message": "too old"}).SerializeToString()

    verdict = judge(200, body=body)

    assert (verdict.outcome, verdict.rejected, verdict.message) == (Outcome.DELIVERED, 3, "too old")


@pytest.mark.parametrize(("said", "counted"), [(-1, 0), (-(2**63), 0), (0, 0), (10, 10), (11, 10), (2**63 - 1, 10)])
def test_a_receiver_can_reject_no_more_than_it_was_sent(said, counted):
    """The accounting law must hold whatever a receiver claims."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": said}).SerializeToString()
    assert judge(200, body=body, items=10).rejected == counted


def test_a_warning_beside_full_success_is_kept():
    """Nothing rejected, yet something to say."""
    body = ExportTraceServiceResponse(partial_success={"error_message": "use v2"}).SerializeToString()
    verdict = judge(200, body=body)
    assert (verdict.rejected, verdict.message) == (0, "use v2")


@pytest.mark.parametrize(
    "content_type", ["text/html", "text/html; charset=utf-8", "TEXT/HTML", "application/xhtml+xml", ""]
)
@pytest.mark.parametrize("body", [b"<html>sign in</html>", b"\n <!DOCTYPE html>\n<title>Login</title>", None])
def test_a_web_page_is_nobodys_receipt(content_type, body):
    """Captive portals and login pages answer 200; what a receiver has not taken is held."""
    if body is None and not content_type:
        return
    for status in (200, 202, 203):
        verdict = verdicts.of_http(status, retry_after=None, body=body, items=10, now=0.0, content_type=content_type)
        assert (verdict.outcome, verdict.cause, verdict.rejected) == (Outcome.HOLD, "html", 0)


@pytest.mark.parametrize(
    ("status", "content_type"), [(204, "text/html"), (200, "text/html"), (200, ""), (202, "text/plain")]
)
def test_an_empty_answer_is_a_success_whatever_it_is_called(status, content_type):
    """Some servers name a type for nothing at all."""
    verdict = verdicts.of_http(status, retry_after=None, body=b"", items=10, now=0.0, content_type=content_type)
    assert verdict.outcome is Outcome.DELIVERED


@pytest.mark.parametrize("body", [b"", b"{}", b"ok", b"\xff" * 50, None])
def test_a_success_with_an_odd_body_is_a_success(body):
    """Such as from a proxy that answers for the collector."""
    verdict = judge(200, body=body)
    assert (verdict.outcome, verdict.rejected, verdict.message) == (Outcome.DELIVERED, 0, "")


@pytest.mark.parametrize("status", [400, 413, 503])
def test_a_refusal_rejects_no_items(status):
    """What becomes of them is decided later, item by item; a count here would count twice."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 3}).SerializeToString()
    assert judge(status, body=body).rejected == 0


def test_the_message_of_a_status_in_protobuf_is_read():
    """OTLP has error bodies be a google.rpc.Status, and `code` may be left out."""
    assert judge(400, body=Status(code=3, message="bad span").SerializeToString()).message == "bad span"
    assert judge(503, body=Status(message="busy").SerializeToString()).message == "busy"


@pytest.mark.parametrize("length", range(190, 205))
def test_a_long_status_in_protobuf_is_shortened_and_no_more(length):
    """Also where its length takes a second byte."""
    body = Status(code=3, message="x" * length).SerializeToString()
    assert judge(400, body=body).message == "x" * min(length, 200)


def test_a_message_in_plain_text_is_taken_over():
    """From proxies and gateways."""
    assert judge(502, body=b"Bad Gateway\n").message == "Bad Gateway"


def test_a_message_is_one_line_of_printable_characters():
    """It goes into a log, where it must not look like lines of ours."""
    body = b"first\r\n\tsecond\x1b[31m \x00third\xe2\x80\xa8fourth\xc2\xa0fifth\xe2\x80\xae"
    assert judge(500, body=body).message == "first second[31m third fourth fifth"


def test_a_body_that_is_no_text_says_nothing():
    """Compressed, encrypted, or an image."""
    assert judge(500, body=b"\x89PNG\xff\xfe" * 9).message == ""
    assert judge(500, body=b"\x08\x03\x12\xff").message == ""
    assert judge(400, body=b"\x08\x03\x12\x02\xff\xff").message == ""


@pytest.mark.parametrize("shift", range(4))
def test_a_long_text_is_cut_between_characters(shift):
    """Wherever the cut falls in a character of several bytes, the text before it is kept."""
    body = ("a" * shift + "\N{SNOWMAN}\N{GRINNING FACE}" * 4000).encode()
    message = judge(500, body=body).message
    assert len(message) == 200
    assert message.startswith("a" * shift + "\N{SNOWMAN}")


def test_a_failure_on_the_way_is_retried_and_tells_that_nothing_was_reached():
    """Evidence for all signals that share the endpoint."""
    verdict = verdicts.of_failure("timeout", "no answer\nin time")
    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.RETRY, "timeout", False)
    assert (verdict.message, verdict.retry_after, verdict.rejected) == ("no answer in time", None, 0)


def test_a_failure_that_people_repair_is_held():
    """A certificate does not get better by knocking often."""
    verdict = verdicts.of_failure("tls", is_repairable=True)
    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.HOLD, "tls", False)


protobufs = st.builds(
    lambda kind, tail: kind.SerializeToString() + tail,
    st.one_of(
        st.builds(lambda n, m: Status(code=n, message=m), st.integers(0, 20), st.text()),
        st.builds(
            lambda n, m: ExportTraceServiceResponse(partial_success={"rejected_spans": n, "error_message": m}),
            st.integers(-(2**63), 2**63 - 1),
            st.text(),
        ),
    ),
    st.binary(max_size=8),
)


@given(
    status=st.integers(100, 999),
    header=st.none() | st.text() | st.integers().map(str),
    body=st.binary(max_size=2000) | protobufs | st.text(max_size=2000).map(str.encode),
    items=st.integers(0, 100_000),
    now=st.floats(0, 1e11),
)
@example(status=503, header="9" * 5000, body=b"\x12" * 5000, items=1, now=0.0)
def test_every_answer_has_a_verdict_that_keeps_the_rules(status, header, body, items, now):
    """Total, with counts and waits inside their ranges and a message fit for a log line."""
    verdict = judge(status, retry_after=header, body=body, items=items, now=now)

    assert isinstance(verdict.outcome, Outcome)
    assert verdict.cause == str(status)
    assert verdict.reached
    assert 0 <= verdict.rejected <= items
    assert verdict.rejected == 0 or verdict.outcome is Outcome.DELIVERED
    assert verdict.retry_after is None or (verdict.retry_after >= 0 and math.isfinite(verdict.retry_after))
    assert len(verdict.message) <= verdicts.MESSAGE_MAX
    assert verdict.message.isprintable()


@given(st.text(), st.text(max_size=3000), st.booleans())
def test_every_failure_has_a_verdict_that_keeps_the_rules(cause, message, is_repairable):
    """Whatever a library puts into its exceptions."""
    verdict = verdicts.of_failure(cause, message, is_repairable=is_repairable)

    assert verdict.outcome is (Outcome.HOLD if is_repairable else Outcome.RETRY)
    assert not verdict.reached
    assert len(verdict.message) <= verdicts.MESSAGE_MAX
    assert verdict.message.isprintable()


def judge_grpc(code="OK", *, details="", status=b"", body=b"", items=10):
    return verdicts.of_grpc(code, details=details, status=status, body=body, items=items)


def status_with(*details, code=14):
    """Return a `google.rpc.Status` with these messages among its details, serialised by the official classes."""
    status = Status(code=code, message="later")
    for detail in details:
        status.details.add().Pack(detail)
    return status.SerializeToString()


def retry_info(seconds=0, nanos=0):
    info = RetryInfo()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    return info


@pytest.mark.parametrize(
    ("outcome", "codes"),
    [
        (Outcome.DELIVERED, ["OK"]),
        (Outcome.RETRY, ["CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"]),
        (Outcome.RETRY, ["UNKNOWN", "INTERNAL", "RESOURCE_EXHAUSTED", "A_CODE_OF_THE_FUTURE"]),
        (Outcome.HOLD, ["UNAUTHENTICATED", "PERMISSION_DENIED", "UNIMPLEMENTED", "NOT_FOUND", "FAILED_PRECONDITION"]),
        (Outcome.PERMANENT, ["INVALID_ARGUMENT", "ALREADY_EXISTS"]),
    ],
)
def test_the_table_says_what_each_grpc_code_means(outcome, codes):
    """OTLP's retryable ones and those that look like a crash are retried, what people repair is held."""
    assert {code: judge_grpc(code).outcome for code in codes} == dict.fromkeys(codes, outcome)


def test_every_grpc_code_has_a_verdict_and_is_its_own_cause():
    """The table forgets none that gRPC knows."""
    assert {code.name for code in grpc.StatusCode} == set(verdicts.GRPC_OUTCOMES)
    for code in grpc.StatusCode:
        assert (judge_grpc(code.name).cause, judge_grpc(code.name).reached) == (code.name, True)


def test_a_grpc_success_may_be_a_partial_one():
    """As over HTTP, and never of more items than there were."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 3
    answer.partial_success.error_message = "no room"

    verdict = judge_grpc(body=answer.SerializeToString())

    assert (verdict.outcome, verdict.rejected, verdict.message) == (Outcome.DELIVERED, 3, "no room")
    assert judge_grpc(body=answer.SerializeToString(), items=2).rejected == 2


@pytest.mark.parametrize(
    "details",
    [
        "SERVER: Received message larger than max (5242880 vs. 4194304)",
        "grpc: received message larger than max (5242880 vs. 4194304)",
        "grpc: received message after decompression larger than max 4194304",
        "gRPC message exceeds maximum size 4194304: 5242880",
        "Received message exceeds the maximum configured message size.",
        "Error, decoded message length too large: found 5242880 bytes, the limit is: 4194304 bytes",
    ],
)
def test_a_message_that_is_too_large_is_split_whatever_the_server_is_written_in(details):
    """It has no code of its own; Rust's answers another than the others."""
    assert judge_grpc("RESOURCE_EXHAUSTED", details=details).outcome is Outcome.SPLIT
    assert judge_grpc("OUT_OF_RANGE", details=details).outcome is Outcome.SPLIT
    assert judge_grpc("UNAVAILABLE", details=details).outcome is Outcome.RETRY


def test_an_answer_that_is_too_large_for_us_does_not_split_the_request():
    """Smaller requests would not make it smaller."""
    said = "CLIENT: Received message larger than max (5242880 vs. 4194304)"

    assert judge_grpc("RESOURCE_EXHAUSTED", details=said).outcome is Outcome.RETRY


def test_a_size_with_retry_info_is_waited_for():
    """Whoever says when to come again does not mean the size."""
    verdict = judge_grpc("RESOURCE_EXHAUSTED", details="queue too large", status=status_with(retry_info(2)))

    assert (verdict.outcome, verdict.retry_after) == (Outcome.RETRY, 2.0)


@given(seconds=st.integers(0, 315_576_000_000), nanos=st.integers(0, 999_999_999), before=st.booleans())
def test_retry_info_is_read_as_the_official_classes_write_it(seconds, nanos, before):
    """Wherever it stands among the details."""
    others = [ErrorInfo(reason="busy")] if before else []
    status = status_with(*others, retry_info(seconds, nanos), ErrorInfo())

    assert verdicts.parse_retry_info(status) == pytest.approx(seconds + nanos / 1e9)


def test_only_a_grpc_retry_takes_over_what_the_receiver_asked_to_wait():
    """Beside anything else it is no promise about this batch."""
    status = status_with(retry_info(7))
    with_delay = {code for code in verdicts.GRPC_OUTCOMES if judge_grpc(code, status=status).retry_after == 7.0}

    assert with_delay == {code for code, outcome in verdicts.GRPC_OUTCOMES.items() if outcome is Outcome.RETRY}


def test_retry_info_that_says_nothing_or_nonsense():
    """No delay is none at all; a negative one, or another detail, is as if there were no `RetryInfo`."""
    assert verdicts.parse_retry_info(status_with(RetryInfo())) == 0.0
    assert verdicts.parse_retry_info(status_with(retry_info(-1))) is None
    assert verdicts.parse_retry_info(status_with(retry_info(1, -5))) is None
    assert verdicts.parse_retry_info(status_with(ErrorInfo(reason="busy"))) is None
    assert verdicts.parse_retry_info(b"") is None


@given(st.binary(max_size=80))
@example(b"\x1a\x05\x0a\xff\xff\xff\x7f")
def test_any_bytes_may_come_as_a_grpc_status(status):
    """Nothing that a server says is raised."""
    for code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        verdict = judge_grpc(code, status=status)
        assert verdict.retry_after is None or 0 <= verdict.retry_after < math.inf
