"""The HTTP sender against real servers on loopback: good ones, bad ones, proxies and TLS."""

import gzip
import logging
import os
import socket
import sys
import threading
import time
import tracemalloc
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest
from fakes.batches import batch
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from servers import http
from servers.certificates import Authority
from servers.http import HttpServer
from servers.proxy import Proxy

from surgetank._version import __version__
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.otlp_http import RESPONSE_MAX, HttpSender
from surgetank.errors import ConfigError
from surgetank.model import Outcome

# What a call may take beyond its time-out, on a busy machine (seconds).
GRACE = 0.5


@pytest.fixture(autouse=True)
def no_proxies_from_outside(monkeypatch):
    """The machine's own settings are no part of a test."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "request_method"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(autouse=True)
def libraries_keep_quiet(caplog):
    """In every test of this file, whatever fails: the tank reports an outage itself, in one line."""
    yield
    loud = [record for record in caplog.get_records("call") if record.levelno >= logging.WARNING]
    assert not loud


@pytest.fixture
def opened():
    """What this opens is closed when the test ends, in reverse."""
    with ExitStack() as stack:
        yield stack.enter_context


@contextmanager
def closing(sender):
    try:
        yield sender
    finally:
        sender.close()


@pytest.fixture
def sender_for(opened):
    """Makes senders for a server, with the path that spans have."""

    def make(server, *, scheme="http", user="", **settings):
        url = f"{scheme}://{user}{server.address}/v1/traces"
        return opened(closing(HttpSender(OutletConfig(url=url, **settings), SystemClock())))

    return make


@pytest.fixture
def within():
    """Asserts that what stands inside takes at most so many seconds, and the grace."""

    @contextmanager
    def within(seconds):
        start = time.monotonic()
        yield
        assert time.monotonic() - start < seconds + GRACE

    return within


@pytest.fixture
def in_background():
    """Runs a call on another thread and returns its future."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"))


def failure(verdict):
    return verdict.outcome, verdict.cause, verdict.reached


def test_a_batch_goes_out_as_one_post_with_its_bytes_unchanged(opened, sender_for):
    """To the path of the URL, with the type that OTLP asks for and the batch's own identity."""
    server = opened(HttpServer())
    sender = sender_for(server)
    body = bytes(range(256)) * 40

    verdict = sender.send(batch(body=body, name="0123-4567"), 5.0)

    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.DELIVERED, "200", True)
    [request] = server.requests
    assert (request.method, request.target, request.version) == ("POST", "/v1/traces", "HTTP/1.1")
    assert request.body == body
    assert request.headers["host"] == server.address
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["content-length"] == str(len(body))
    assert request.headers["surgetank-batch-id"] == "0123-4567"
    assert request.headers["user-agent"].startswith(f"surgetank/{__version__} Python/3.")
    assert not request.headers.keys() & {"content-encoding", "authorization", "transfer-encoding", "expect"}


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_batch_says_so(opened, sender_for, encoding):
    """And its bytes are not touched again."""
    server = opened(HttpServer())
    sent = replace(batch(body=b"\x1f\x8b no real one"), encoding=encoding)

    sender_for(server).send(sent, 5.0)

    assert server.requests[0].headers["content-encoding"] == encoding
    assert server.requests[0].body == sent.body


def test_headers_of_the_outlet_are_sent_with_every_batch(opened, sender_for):
    """Among them a user agent, which then stands for ours."""
    server = opened(HttpServer())
    sender = sender_for(server, headers={"x-tenant": "blue", "user-agent": "mine/1"})

    for _ in range(2):
        sender.send(batch(), 5.0)

    for request in server.requests:
        assert (request.headers["x-tenant"], request.headers["user-agent"]) == ("blue", "mine/1")


def test_the_query_of_the_endpoint_is_kept(opened):
    """Some receivers are told the tenant or a token there."""
    server = opened(HttpServer())
    url = f"http://{server.address}/in/put?tenant=a%20b&x=1"
    sender = opened(closing(HttpSender(OutletConfig(url=url), SystemClock())))

    sender.send(batch(), 5.0)

    assert server.requests[0].target == "/in/put?tenant=a%20b&x=1"


@pytest.mark.parametrize(
    ("user", "decoded"),
    [
        ("ann:secret@", b"ann:secret"),
        ("ann:p%40ss%3Aword@", b"ann:p@ss:word"),
        ("ann:%E2%82%AC%C3%BC@", "ann:€ü".encode()),
        ("token@", b"token"),
    ],
)
def test_a_user_in_the_endpoint_becomes_basic_authentication(opened, sender_for, user, decoded):
    """With percent-encoding undone, and the name nowhere else in the request."""
    server = opened(HttpServer())

    sender_for(server, user=user).send(batch(), 5.0)

    [request] = server.requests
    assert request.headers["authorization"] == "Basic " + b64encode(decoded).decode()
    assert (request.target, request.headers["host"]) == ("/v1/traces", server.address)


def test_an_authorization_header_of_the_outlet_is_stronger_than_the_endpoint(opened, sender_for):
    """Whoever wrote it meant it."""
    server = opened(HttpServer())

    sender_for(server, user="ann:secret@", headers={"authorization": "Bearer t"}).send(batch(), 5.0)

    assert server.requests[0].headers["authorization"] == "Bearer t"


def test_many_batches_share_one_connection(opened, sender_for):
    """Also after answers that are refusals, and after bodies that were not empty."""
    server = opened(HttpServer())
    sender = sender_for(server)
    answers = [http.status(200), http.status(503, b"busy"), http.status(400, b"x" * 70_000), http.status(204)]

    for number in range(20):
        server.answer = answers[number % len(answers)]
        sender.send(batch(name=str(number)), 5.0)

    assert [request.headers["surgetank-batch-id"] for request in server.requests] == [str(n) for n in range(20)]
    assert server.connections == 1


def test_a_connection_that_the_server_closed_in_between_is_replaced(opened, sender_for):
    """Collectors and load balancers end idle connections; no batch fails for that."""
    server = opened(HttpServer())
    sender = sender_for(server)

    for _ in range(3):
        assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
        server.hang_up()
        assert server.ended.acquire(timeout=5.0)

    assert server.connections == 3
    assert len(server.requests) == 3


def test_an_answer_that_ends_the_connection_is_an_answer(opened, sender_for):
    """`Connection: close`, with a length and without one."""
    server = opened(HttpServer())
    sender = sender_for(server)
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 1}).SerializeToString()

    server.answer = http.raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body, then=http.END)
    assert sender.send(batch(), 5.0).rejected == 1
    server.answer = http.status(200, connection="close")
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

    assert server.connections == 2


def test_after_close_the_next_batch_opens_a_connection(opened, sender_for):
    """And the server sees the first one end."""
    server = opened(HttpServer())
    sender = sender_for(server)

    sender.send(batch(), 5.0)
    sender.close()
    sender.close()
    assert server.ended.acquire(timeout=5.0)

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert server.connections == 2


def test_a_refused_connection_is_retried_later(sender_for, within):
    """Nobody listens there."""
    with HttpServer() as server:
        pass

    with within(0):
        verdict = sender_for(server).send(batch(), 5.0)

    assert failure(verdict) == (Outcome.RETRY, "connection_refused", False)


def test_a_listener_that_never_accepts_costs_one_time_out(opened, within):
    """The kernel takes the connection and the request; nobody ever reads them."""
    listener = opened(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(HttpSender(OutletConfig(url=url), SystemClock())))

    with within(0.1):
        verdict = sender.send(batch(), 0.1)

    assert failure(verdict) == (Outcome.RETRY, "timeout", False)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a full backlog refuses or takes more")
def test_a_connection_that_is_not_established_costs_one_time_out(opened, within):
    """Packets that vanish, as behind a firewall: here the listener's backlog is full."""
    listener = opened(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        waiting = opened(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(HttpSender(OutletConfig(url=url), SystemClock())))

    with within(0.1):
        verdict = sender.send(batch(), 0.1)

    assert failure(verdict) == (Outcome.RETRY, "timeout", False)


def test_a_server_that_stops_reading_costs_one_time_out(opened, within):
    """The body is larger than what the kernels buffer."""
    listener = opened(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(HttpSender(OutletConfig(url=url), SystemClock())))

    with within(0.1):
        verdict = sender.send(batch(body=bytes(16_000_000)), 0.1)

    assert failure(verdict) == (Outcome.RETRY, "timeout", False)


def test_a_server_that_never_answers_costs_one_time_out(opened, sender_for, within):
    """Its connection is not used again, so that a late answer is not taken for the next batch's."""
    server = opened(HttpServer(http.hang))
    sender = sender_for(server)

    with within(0.1):
        assert failure(sender.send(batch(), 0.1)) == (Outcome.RETRY, "timeout", False)

    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert server.connections == 2


def test_an_answer_that_is_slow_but_in_time_counts(opened, sender_for):
    """The time-out is the caller's, and nothing shorter applies."""
    pause = threading.Event()

    def slow(sock, request):
        pause.wait(0.2)
        return http.status(200)(sock, request)

    server = opened(HttpServer(slow))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_success_whose_body_never_comes_is_a_success(opened, sender_for, within):
    """The status has arrived: sending again would only make duplicates."""

    def silent(sock, request):
        sock.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n")
        return http.hang(sock, request)

    server = opened(HttpServer(silent))

    with within(0.1):
        verdict = sender_for(server).send(batch(), 0.1)

    assert (verdict.outcome, verdict.rejected) == (Outcome.DELIVERED, 0)


@pytest.mark.parametrize("answer", [http.Hang, http.Drip], ids=["hangs", "drips a header"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_abort_ends_a_send_that_waits(opened, sender_for, in_background, within, authority, answer, scheme):
    """A server that drips resets every time-out of a socket; only another thread can end that."""
    answer = answer()
    tls = authority.server_context() if scheme == "https" else None
    server = opened(HttpServer(answer, tls=tls))
    sender = sender_for(server, scheme=scheme, certificate_file=authority.certificate_file)

    verdict = in_background(sender.send, batch(), 30.0)
    assert answer.begun.wait(5.0)
    with within(0):
        sender.abort()
        verdict = verdict.result(5.0)

    assert verdict.outcome is Outcome.RETRY
    assert not verdict.reached
    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_abort_without_a_send_harms_nothing(opened, sender_for):
    """Before the first, between two, and after `close`."""
    server = opened(HttpServer())
    sender = sender_for(server)

    sender.abort()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    sender.abort()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    sender.close()
    sender.abort()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (http.reset, "connection_reset"),
        (http.raw(b"", then=http.END), "connection_reset"),
        (http.raw(b"HTTP/1.1 20", then=http.END), "protocol"),
        (http.raw(b"SSH-2.0-OpenSSH_9.6\r\n", then=http.END), "protocol"),
        (http.raw(b"\x00\xff\xfe\r\n\r\n", then=http.END), "protocol"),
        (http.raw(b"HTTP/1.1 OK 200\r\n\r\n", then=http.END), "protocol"),
        (http.raw(b"HTTP/1.1 200 " + b"x" * 70_000 + b"\r\n\r\n", then=http.END), "protocol"),
        (http.raw(b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 101 + b"\r\n", then=http.END), "protocol"),
        (http.raw(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", then=http.END), "protocol"),
    ],
    ids=[
        "reset",
        "nothing",
        "part of a line",
        "another protocol",
        "noise",
        "words swapped",
        "long status",
        "many headers",
        "long header",
    ],
)
def test_what_is_no_answer_is_retried_later(opened, sender_for, answer, cause):
    """And the connection is not used again."""
    server = opened(HttpServer(answer))
    sender = sender_for(server)

    assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, cause, False)

    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def reset_within(head):
    def answer(sock, request):
        sock.sendall(head)
        return http.reset(sock, request)

    return answer


def test_a_reset_inside_an_answer_leaves_what_its_status_says(opened, sender_for):
    """Inside the head there is none yet; inside the body there is."""
    server = opened(HttpServer(reset_within(b"HTTP/1.1 200 OK\r\ncontent-le")))
    sender = sender_for(server)
    assert failure(sender.send(batch(), 5.0))[2] is False

    server.answer = http.raw(b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n\x0a\x02\x08\x01", then=http.END)
    verdict = sender.send(batch(), 5.0)
    assert (verdict.outcome, verdict.rejected) == (Outcome.DELIVERED, 0)

    server.answer = http.raw(b"HTTP/1.1 503 Busy\r\ncontent-length: 50\r\n\r\nbu", then=http.END)
    assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, "503", True)


@pytest.mark.parametrize("head", [b"no header at all\r\n", b": nameless\r\n", b"content-length: many\r\n"])
def test_odd_header_lines_do_not_spoil_an_answer(opened, sender_for, head):
    """The status is what counts, and nobody's log is filled with their headers."""
    server = opened(HttpServer(http.raw(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", then=http.END)))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_held_and_not_followed(opened, sender_for, code):
    """Telemetry and its credentials go where the user said, and nowhere else."""
    elsewhere = opened(HttpServer())
    server = opened(HttpServer(http.status(code, location=f"http://{elsewhere.address}/v1/traces")))

    verdict = sender_for(server).send(batch(), 5.0)

    assert failure(verdict) == (Outcome.HOLD, str(code), True)
    assert elsewhere.connections == 0
    assert len(server.requests) == 1


def test_a_retryable_status_is_not_retried_here(opened, sender_for):
    """There is one owner of retries, and it is not this one."""
    server = opened(HttpServer(http.status(503, b"busy", retry_after="17")))

    verdict = sender_for(server).send(batch(), 5.0)

    assert (verdict.outcome, verdict.retry_after, verdict.message) == (Outcome.RETRY, 17.0, "busy")
    assert len(server.requests) == 1


def test_a_retry_after_with_a_date_is_reckoned_from_the_clock(opened):
    """From the one that the sender was given."""

    class Clock(SystemClock):
        now = staticmethod(lambda: 784111777.0 - 60)

    server = opened(HttpServer(http.status(429, retry_after="Sun, 06 Nov 1994 08:49:37 GMT")))
    sender = opened(closing(HttpSender(OutletConfig(url=f"http://{server.address}/"), Clock())))

    assert sender.send(batch(), 5.0).retry_after == 60.0


def test_a_partial_success_is_read(opened, sender_for):
    """Rejected items are counted, the batch is delivered."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 3, "error_message": "late"})
    server = opened(HttpServer(http.status(200, body.SerializeToString())))

    verdict = sender_for(server).send(batch(items=5), 5.0)

    assert (verdict.outcome, verdict.rejected, verdict.message) == (Outcome.DELIVERED, 3, "late")


def chunked(body):
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(body[i : i + 5]), body[i : i + 5]) for i in range(0, len(body), 5))
    return http.raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")


def test_an_answer_may_be_compressed_or_in_chunks(opened, sender_for):
    """As proxies make them; the connection lives on."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 3}).SerializeToString() + b"\x1a\x20" + b"u" * 32
    server = opened(HttpServer())
    sender = sender_for(server)

    for answer in (http.status(200, gzip.compress(body), content_encoding="gzip"), chunked(body)):
        server.answer = answer
        assert sender.send(batch(items=5), 5.0).rejected == 3

    assert server.connections == 1


def test_an_answer_that_is_not_what_its_encoding_says_keeps_its_status(opened, sender_for):
    """And the next batch still goes through."""
    server = opened(HttpServer(http.status(200, b"not gzip", content_encoding="gzip")))
    sender = sender_for(server)

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("size", [RESPONSE_MAX, RESPONSE_MAX + 1, RESPONSE_MAX + 1_000_000])
def test_an_answer_beyond_4_mib_counts_by_its_status_alone(opened, sender_for, size):
    """A count inside is only believed in a body that was read to its end."""
    body = ExportTraceServiceResponse(partial_success={"rejected_spans": 1}).SerializeToString()
    body += b"\x1a" + varint(size - len(body) - 5) + bytes(size - len(body) - 5)
    assert len(body) == size
    server = opened(HttpServer(http.status(200, body)))
    sender = sender_for(server)

    verdict = sender.send(batch(), 5.0)
    server.answer = http.status(200)
    again = sender.send(batch(), 5.0)

    assert (verdict.outcome, verdict.rejected) == (Outcome.DELIVERED, 1 if size == RESPONSE_MAX else 0)
    assert again.outcome is Outcome.DELIVERED


def varint(value):
    return bytes([*(value >> shift & 0x7F | 0x80 for shift in (0, 7, 14)), value >> 21])


def test_a_compressed_answer_that_grows_without_end_does_not_fill_the_memory(opened, sender_for):
    """64 MiB of zeros in 64 KiB: no more than a few times the limit is ever unpacked."""
    server = opened(HttpServer(http.status(500, gzip.compress(bytes(64 << 20), 1), content_encoding="gzip")))
    sender = sender_for(server)

    tracemalloc.start()
    try:
        verdict = sender.send(batch(), 5.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert failure(verdict) == (Outcome.RETRY, "500", True)
    assert peak < 6 * RESPONSE_MAX


def has_ipv6():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on the loopback here")
def test_an_endpoint_may_be_an_ipv6_address(opened, sender_for):
    """In brackets, as URLs have them, and so in the Host header."""
    server = opened(HttpServer(family=socket.AF_INET6))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED

    assert server.requests[0].headers["host"] == server.address


def test_a_name_that_does_not_resolve_is_retried_later(opened):
    """The invalid top-level domain is reserved for this."""
    sender = opened(closing(HttpSender(OutletConfig(url="http://collector.invalid/v1/traces"), SystemClock())))

    assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, "dns", False)
