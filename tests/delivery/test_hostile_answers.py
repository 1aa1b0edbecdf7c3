"""Whatever answers: no exception, a verdict in bounded time, and a bounded part of memory.

The constants: an answer costs at most `MEMORY` bytes beside what is sent, and an attempt ends within its time-out and `GRACE`.
"""

import gzip
import time
import tracemalloc
import zlib
from contextlib import closing

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fakes.batches import batch
from servers import http
from servers.http import HttpServer
from servers.loopback import Loopback
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery import verdicts
from surgetank.delivery.otlp_grpc import GrpcSender
from surgetank.delivery.otlp_http import RESPONSE_MAX, HttpSender
from surgetank.model import Outcome, Verdict

MEMORY = 8 * RESPONSE_MAX
TIMEOUT = 0.5
GRACE = 2.0

LINES = st.one_of(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK",
            b"HTTP/1.1 503 Busy",
            b"HTTP/1.1 100 Continue",
            b"HTTP/1.1 -1 x",
            b"HTTP/1.1 99999999999 x",
            b"HTTP/9.9 200",
            b"content-length: 5",
            b"content-length: -5",
            b"content-length: 99999999999999999999",
            b"transfer-encoding: chunked",
            b"content-encoding: gzip",
            b"content-encoding: br",
            b"content-type: text/html",
            b"retry-after: 1e400",
            b"retry-after: Sun, 99 Nov 9999999 08:49:37 GMT",
            b"date: Sun, 06 Nov 1994 08:49:37 GMT",
            b"connection: close",
            b"ffffffffffffffff",
            b"5;x=y",
            b"",
        ]
    ),
    st.binary(max_size=40),
)
ANSWERS = st.one_of(st.lists(LINES, max_size=12).map(b"\r\n".join), st.binary(max_size=300))


@pytest.fixture
def sender_at(opened):
    def make(address, kind=HttpSender):
        protocol = "grpc" if kind is GrpcSender else "http/protobuf"
        outlet = OutletConfig(url=f"http://{address}", proxy="", protocol=protocol)
        return opened(closing(kind(outlet, SystemClock())))

    return make


def judged(sender):
    """Send a batch, and return the verdict; it came in time and in little memory."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        verdict = sender.send(batch(items=10), TIMEOUT)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < TIMEOUT + GRACE
    assert peak < MEMORY
    assert isinstance(verdict, Verdict)
    assert 0 <= verdict.rejected <= 10
    assert verdict.message.isprintable()
    assert len(verdict.message) <= verdicts.MESSAGE_MAX
    assert verdict.retry_after is None or 0 <= verdict.retry_after < float("inf")
    return verdict


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(answer=ANSWERS)
def test_any_bytes_may_answer(opened, sender_at, answer):
    """HTTP's own pieces in any order, and noise."""
    with HttpServer(http.raw(answer, then=http.END)) as server:
        sender = sender_at(server.address)
        judged(sender)
        sender.close()


def endless(piece):
    """Return an answer that never ends."""

    def answer(sock, request):
        until = time.monotonic() + TIMEOUT + GRACE
        try:
            while time.monotonic() < until:
                sock.sendall(piece)
        except OSError:
            pass
        return http.END

    return answer


def after(head, piece):
    def answer(sock, request):
        sock.sendall(head)
        return endless(piece)(sock, request)

    return answer


BOMB = gzip.compress(bytes(64 << 20), 9)
HOSTILE = {
    "an endless status line": endless(b"HTTP/1.1 200 " + b"x" * 60_000),
    "endless headers": after(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n" * 10_000),
    "one endless header": after(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65_000),
    "an endless body": after(b"HTTP/1.1 503 Busy\r\n\r\n", b"z" * 65_000),
    "endless chunks": after(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 10_000),
    "a chunk that claims to be endless": after(
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffff\r\n", b"x" * 65_000
    ),
    "endless trailers": after(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"t: u\r\n" * 10_000),
    "endless continues": endless(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    "a body that inflates to 64 MiB": http.status(200, BOMB, content_encoding="gzip"),
    "a deflated one": http.status(400, zlib.compress(bytes(64 << 20), 9), content_encoding="deflate"),
    "a body longer than is looked at": http.status(500, b"x" * (2 * RESPONSE_MAX)),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE)
def test_an_answer_without_an_end_ends(opened, sender_at, answer):
    """Each costs one attempt, and the next one gets through."""
    server = opened(HttpServer(answer))
    sender = sender_at(server.address)

    judged(sender)

    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


NOISE = st.one_of(
    st.binary(max_size=200),
    st.builds(lambda m, n: Status(code=m, message=n).SerializeToString(), st.integers(0, 99), st.text(max_size=50)),
)


@settings(max_examples=300, deadline=None)
@given(
    code=st.sampled_from(["OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "NO_SUCH_CODE"]),
    details=st.text(max_size=400),
    status=NOISE,
    body=NOISE,
)
def test_any_grpc_answer_has_a_verdict(code, details, status, body):
    """Of the right form, whatever is in the trailers and in the response."""
    verdict = verdicts.of_grpc(code, details=details, status=status, body=body, items=10)

    assert 0 <= verdict.rejected <= 10
    assert verdict.message.isprintable()
    assert verdict.retry_after is None or 0 <= verdict.retry_after < float("inf")


@settings(max_examples=150, deadline=None)
@given(
    status=st.integers(100, 999),
    retry_after=st.one_of(st.none(), st.text(max_size=40), st.floats().map(str)),
    date=st.one_of(st.none(), st.text(max_size=40)),
    body=st.one_of(st.none(), NOISE),
    content_type=st.text(max_size=30),
)
def test_any_http_answer_has_a_verdict(status, retry_after, date, body, content_type):
    """The same for what urllib3 hands on."""
    verdict = verdicts.of_http(
        status, retry_after=retry_after, body=body, items=10, now=1e9, date=date, content_type=content_type
    )

    assert 0 <= verdict.rejected <= 10
    assert verdict.retry_after is None or 0 <= verdict.retry_after < float("inf")


@pytest.mark.parametrize(
    "noise", [b"", b"\x00" * 5000, b"HTTP/1.1 200 OK\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + b"\xff" * 5000]
)
def test_noise_in_place_of_grpc_is_no_answer(opened, sender_at, noise):
    """A proxy, another protocol, a broken frame."""

    def talk(sock, number):
        sock.recv(65_536)
        sock.sendall(noise)

    server = opened(Loopback(talk))
    verdict = judged(sender_at(server.address, GrpcSender))

    assert (verdict.outcome, verdict.reached) == (Outcome.RETRY, False)
