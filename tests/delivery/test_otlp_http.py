"""The HTTP sender against real servers on loopback: good ones, bad ones, proxies and TLS."""

import gzip
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import tracemalloc
import zlib
from base64 import b64encode
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from fakes.batches import batch
from servers import http
from servers.certificates import Authority
from servers.grpc import GrpcServer
from servers.http import HttpServer
from servers.loopback import Loopback
from servers.proxy import Proxy
from surgetank._version import __version__
from surgetank.clock import SystemClock
from surgetank.config import Environment, OutletConfig
from surgetank.config.outlet import resolve_outlet
from surgetank.delivery.otlp_http import REDIAL_AFTER, RESPONSE_MAX, HttpSender
from surgetank.errors import ConfigError
from surgetank.model import Outcome, Signal
from surgetank.otlp.compression import compress

# What a call may take beyond its time-out, on a busy machine (seconds).
GRACE = 0.5


@pytest.fixture(autouse=True)
def libraries_keep_quiet(caplog):
    """In every test of this file, whatever fails: the tank reports an outage itself, in one line."""
    yield
    loud = [
        record
        for record in caplog.get_records("call")
        if record.levelno >= logging.WARNING and "(415)" not in record.getMessage()
    ]
    assert not loud


@pytest.fixture
def sender_for(opened):
    """Makes senders for a server, with the path that spans have."""

    def make(server, *, scheme="http", user="", **settings):
        url = f"{scheme}://{user}{server.address}/v1/traces"
        return opened(closing(HttpSender(OutletConfig(url=url, **settings), SystemClock())))

    return make


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


def test_what_went_wrong_is_said_without_the_objects_around_it(opened, sender_for, authority):
    """People read it, in a log line and in a table: no classes, no numbers of errors, no host a second time."""
    with HttpServer() as gone:
        pass
    silent = opened(HttpServer(http.hang))
    hanging_up = opened(Loopback(lambda sock, number: None))
    babbling = opened(HttpServer(http.raw(b"garbage\r\n\r\n")))
    strange = opened(HttpServer(tls=authority.server_context()))

    said = [
        sender_for(gone).send(batch(), 5.0),
        sender_for(strange, proxy=f"http://{gone.address}").send(batch(), 5.0),
        sender_for(silent).send(batch(), 0.1),
        sender_for(hanging_up).send(batch(), 5.0),
        sender_for(babbling).send(batch(), 5.0),
        sender_for(strange, scheme="https").send(batch(), 5.0),
        sender_for(silent, scheme="https").send(batch(), 0.1),
    ]

    assert [(each.cause, each.message) for each in said[:3]] == [
        ("connection_refused", "Connection refused"),
        ("proxy", "Connection refused"),
        ("timeout", "no answer in time"),
    ]
    assert said[5].message.startswith("certificate verify failed: ")
    for verdict in said:
        assert verdict.message
        assert not re.search(r"LineHTTP|Pool|Errno|host=|_ssl\.c|Error\(", verdict.message)


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


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize(
    ("make_answer", "outcomes"),
    [
        (http.Hang, {Outcome.RETRY}),
        (lambda: http.Drip(b"HTTP/1."), {Outcome.RETRY}),
        (lambda: http.Drip(b"HTTP/1.1 503 Busy\r\nx: "), {Outcome.RETRY}),
        # Whether the status was read before the abort is a race; if it was, it holds.
        (lambda: http.Drip(b"HTTP/1.1 200 OK\r\nx: "), {Outcome.RETRY, Outcome.DELIVERED}),
        (lambda: http.Drip(b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n"), {Outcome.RETRY, Outcome.DELIVERED}),
    ],
    ids=["hangs", "drips a status", "drips a 503's header", "drips a 200's header", "drips a body"],
)
def test_abort_ends_a_send_that_waits(
    opened, sender_for, in_background, within, authority, make_answer, outcomes, scheme
):
    """A server that drips resets every time-out of a socket; only another thread can end that."""
    answer = make_answer()
    tls = authority.server_context() if scheme == "https" else None
    server = opened(HttpServer(answer, tls=tls))
    sender = sender_for(server, scheme=scheme, certificate_file=authority.certificate_file)

    verdict = in_background(sender.send, batch(), 30.0)
    assert answer.begun.wait(5.0)
    with within(0):
        sender.abort()
        verdict = verdict.result(5.0)

    assert verdict.outcome in outcomes
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


def test_a_port_for_grpc_is_named_as_such(opened, sender_for):
    """Its bytes would tell nobody; the log line of the outage repeats what the verdict says."""
    server = opened(GrpcServer())

    verdict = sender_for(server).send(batch(), 5.0)

    assert failure(verdict) == (Outcome.RETRY, "protocol", False)
    assert "gRPC" in verdict.message
    assert "4318" in verdict.message


def test_an_answer_that_is_cut_off_means_what_its_status_says(opened, sender_for):
    """The receiver has decided by then: sending again what it took would only make duplicates."""
    server = opened(HttpServer(http.raw(b"HTTP/1.1 200 OK\r\ncontent-le", then=http.END)))
    sender = sender_for(server)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

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
    body = (
        ExportTraceServiceResponse(partial_success={"rejected_spans": 3}).SerializeToString() + b"\x1a\x20" + b"u" * 32
    )
    server = opened(HttpServer())
    sender = sender_for(server)

    packed = http.status(200, gzip.compress(body), content_encoding="gzip")
    deflated = http.status(200, zlib.compress(body), content_encoding="deflate")
    for answer in (packed, deflated, chunked(body)):
        server.answer = answer
        assert sender.send(batch(items=5), 5.0).rejected == 3

    assert server.connections == 1


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (b"not gzip", "gzip"),
        (gzip.compress(bytes(100))[:-12], "gzip"),
        (b"\x0a\x02\x08\x01", "br"),
        (b"\x0a\x02\x08\x01", "gzip, gzip"),
        (b"", "gzip"),
    ],
    ids=["another", "cut off", "unknown", "twice", "empty"],
)
def test_an_answer_that_is_not_what_its_encoding_says_keeps_its_status(opened, sender_for, body, encoding):
    """And the next batch still goes through."""
    server = opened(HttpServer(http.status(200, body, content_encoding=encoding)))
    sender = sender_for(server)

    verdict = sender.send(batch(), 5.0)
    assert (verdict.outcome, verdict.rejected) == (Outcome.DELIVERED, 0)

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
    """An address on an interface that there is not: a resolver says so without asking the network."""
    sender = opened(closing(HttpSender(OutletConfig(url="http://[fe80::1%25nowhere0]:4318/"), SystemClock())))

    assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, "dns", False)


def test_a_host_that_cannot_be_reached_is_retried_later(opened):
    """TCP to the broadcast address fails in the kernel, before any packet."""
    sender = opened(closing(HttpSender(OutletConfig(url="http://255.255.255.255:4318/"), SystemClock())))

    assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, "unreachable", False)


def test_an_endpoint_that_names_no_host_is_refused():
    """Now, by name, and without the password that may stand in it."""
    with pytest.raises(ConfigError, match="endpoint") as refused:
        HttpSender(OutletConfig(url="http://ann:secret@[::1/"), SystemClock())
    assert "secret" not in str(refused.value)


def test_tls_is_verified_against_the_authority_of_the_outlet(opened, sender_for, authority):
    """And the connection is kept alive as without TLS."""
    server = opened(HttpServer(tls=authority.server_context()))
    sender = sender_for(server, scheme="https", certificate_file=authority.certificate_file)

    for _ in range(5):
        assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

    assert server.connections == 1
    assert len(server.requests) == 5


@pytest.mark.parametrize("trusts", ["the system's authorities", "another authority"])
def test_a_server_of_an_unknown_authority_is_held(opened, sender_for, authority, stranger, trusts):
    """Certificates get repaired by people; until then nothing is said to that server."""
    server = opened(HttpServer(tls=authority.server_context()))
    own = stranger.certificate_file if trusts == "another authority" else None

    verdict = sender_for(server, scheme="https", certificate_file=own).send(batch(), 5.0)

    assert failure(verdict) == (Outcome.HOLD, "tls", False)
    assert "certificate" in verdict.message.lower()
    assert server.requests == []


def test_a_certificate_for_another_name_is_held(opened, sender_for, authority):
    """A good authority does not make it the right server."""
    server = opened(HttpServer(tls=authority.server_context("collector.test")))

    verdict = sender_for(server, scheme="https", certificate_file=authority.certificate_file).send(batch(), 5.0)

    assert failure(verdict) == (Outcome.HOLD, "tls", False)
    assert server.requests == []


def test_a_server_without_tls_behind_an_https_endpoint_is_retried(opened, sender_for):
    """It may be a load balancer that is starting up."""

    def talk(sock, number):
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    server = opened(Loopback(talk))

    assert failure(sender_for(server, scheme="https").send(batch(), 5.0))[::2] == (Outcome.RETRY, False)


def test_a_handshake_that_hangs_costs_one_time_out(opened, within):
    """The connection stands, but the server never says hello."""
    listener = opened(socket.create_server(("127.0.0.1", 0)))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(HttpSender(OutletConfig(url=url), SystemClock())))

    with within(0.1):
        verdict = sender.send(batch(), 0.1)

    assert failure(verdict) == (Outcome.RETRY, "timeout", False)


def client_settings(own, authority):
    certificate, key = own.client_files()
    return {
        "scheme": "https",
        "certificate_file": authority.certificate_file,
        "client_certificate_file": certificate,
        "client_key_file": key,
    }


def test_a_client_certificate_is_shown_to_a_server_that_asks(opened, sender_for, authority):
    """Certificate and key in files of their own."""
    server = opened(HttpServer(tls=authority.server_context(client_authority=authority)))

    assert sender_for(server, **client_settings(authority, authority)).send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("shows", ["nothing", "another authority's"])
def test_a_client_that_the_server_does_not_know_delivers_nothing(opened, sender_for, authority, stranger, shows):
    """With TLS 1.3 the refusal comes after the handshake, in place of the answer."""
    server = opened(HttpServer(tls=authority.server_context(client_authority=authority)))
    settings = client_settings(stranger, authority)
    if shows == "nothing":
        settings |= {"client_certificate_file": None, "client_key_file": None}

    verdict = sender_for(server, **settings).send(batch(), 5.0)

    assert verdict.outcome is not Outcome.DELIVERED
    # The alert can be overtaken by the reset that follows it.
    assert verdict.cause in ("tls", "connection_reset")
    assert not verdict.reached
    assert server.requests == []


@pytest.mark.parametrize("field", ["certificate_file", "client_certificate_file", "client_key_file"])
@pytest.mark.parametrize("content", [b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_file_that_is_no_pem_is_refused_at_once(tmp_path, authority, field, content):
    """And not at the first connection, when nobody looks."""
    certificate, key = authority.client_files()
    files = {
        "certificate_file": authority.certificate_file,
        "client_certificate_file": certificate,
        "client_key_file": key,
    }
    wrong = tmp_path / "wrong.pem"
    wrong.write_bytes(content)

    with pytest.raises(ConfigError) as refused:
        HttpSender(OutletConfig(url="https://127.0.0.1/", **(files | {field: str(wrong)})), SystemClock())

    # Only together can OpenSSL tell of certificate and key.
    assert refused.value.field == ("certificate_file" if field == "certificate_file" else "client_certificate_file")


def test_a_key_that_does_not_fit_is_refused_at_once(authority, stranger):
    """Of two good files."""
    certificate, _ = authority.client_files()
    _, key = stranger.client_files()
    with pytest.raises(ConfigError, match="client_certificate_file"):
        HttpSender(
            OutletConfig(url="https://127.0.0.1/", client_certificate_file=certificate, client_key_file=key),
            SystemClock(),
        )


def test_a_key_without_its_certificate_is_refused_at_once(authority):
    """Nobody could be shown it."""
    _, key = authority.client_files()
    with pytest.raises(ConfigError, match="client_key_file"):
        HttpSender(OutletConfig(url="https://127.0.0.1/", client_key_file=key), SystemClock())


def test_an_encrypted_key_is_refused_and_nobody_asked_for_its_password(tmp_path, authority):
    """A service has no terminal; OpenSSL would wait at it for ever."""
    certificate, key = authority.client_files()
    loaded = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        loaded.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="client_certificate_file"):
        HttpSender(
            OutletConfig(url="https://127.0.0.1/", client_certificate_file=certificate, client_key_file=str(encrypted)),
            SystemClock(),
        )


def test_a_proxy_is_asked_in_absolute_form_for_an_http_endpoint(opened, sender_for):
    """It needs to know where to; the connection to it is kept alive."""
    server = opened(HttpServer())
    proxy = opened(Proxy())
    sender = sender_for(server, proxy=f"http://{proxy.address}")

    for _ in range(3):
        assert sender.send(batch(body=b"payload"), 5.0).outcome is Outcome.DELIVERED

    assert [line for line, _ in proxy.heads] == [f"POST http://{server.address}/v1/traces HTTP/1.1"] * 3
    assert proxy.connections == 1
    assert server.requests[0].body == b"payload"
    assert server.requests[0].headers["host"] == server.address


def test_a_proxy_is_asked_for_a_tunnel_to_an_https_endpoint(opened, sender_for, authority):
    """Nothing of a request is seen by it, and one tunnel serves many."""
    server = opened(HttpServer(tls=authority.server_context()))
    proxy = opened(Proxy())
    sender = sender_for(
        server, scheme="https", certificate_file=authority.certificate_file, proxy=f"http://{proxy.address}"
    )

    for _ in range(3):
        assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

    [(line, headers)] = proxy.heads
    assert line.startswith(f"CONNECT {server.address} HTTP/1.")
    assert "surgetank-batch-id" not in headers
    assert (server.connections, len(server.requests)) == (1, 3)


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("credentials", ["ann:secret", "ann:p@ss:wörd€"])
def test_a_proxy_is_shown_the_credentials_of_its_url_and_the_server_is_not(
    opened, sender_for, authority, scheme, credentials
):
    """In the request itself or, for a tunnel, in the CONNECT only."""
    server = opened(HttpServer(tls=authority.server_context() if scheme == "https" else None))
    proxy = opened(Proxy(credentials))
    user = ":".join(quote(part, safe="") for part in credentials.split(":", 1))
    sender = sender_for(
        server, scheme=scheme, certificate_file=authority.certificate_file, proxy=f"http://{user}@{proxy.address}"
    )

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert not server.requests[0].headers.keys() & {"proxy-authorization", "authorization"}


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_credentials_is_held(opened, sender_for, authority, scheme):
    """Someone has to write them into its URL; and those that are there stay out of the message."""
    server = opened(HttpServer(tls=authority.server_context() if scheme == "https" else None))
    proxy = opened(Proxy("ann:secret"))
    sender = sender_for(
        server, scheme=scheme, certificate_file=authority.certificate_file, proxy=f"http://ann:wrong@{proxy.address}"
    )

    verdict = sender.send(batch(), 5.0)

    assert verdict.outcome is Outcome.HOLD
    assert "wrong" not in verdict.message
    assert server.connections == 0


def test_a_proxy_that_is_down_is_named_as_the_fault(opened, sender_for, authority):
    """The endpoint itself may be well."""
    server = opened(HttpServer())
    with Proxy() as proxy:
        pass

    for scheme in ("http", "https"):
        sender = sender_for(server, scheme=scheme, proxy=f"http://{proxy.address}")
        assert failure(sender.send(batch(), 5.0)) == (Outcome.RETRY, "proxy", False)


def test_an_endpoint_that_is_not_trusted_is_held_through_a_proxy_too(opened, sender_for, authority, stranger):
    """The fault is the endpoint's and not the proxy's."""
    server = opened(HttpServer(tls=authority.server_context()))
    proxy = opened(Proxy())
    sender = sender_for(
        server, scheme="https", certificate_file=stranger.certificate_file, proxy=f"http://{proxy.address}"
    )

    assert failure(sender.send(batch(), 5.0)) == (Outcome.HOLD, "tls", False)


def test_tls_through_a_proxy_that_itself_speaks_tls(opened, sender_for, in_background, within, authority):
    """A tunnel inside TLS; a send that waits there can be ended from outside as well."""
    answer = http.Hang()
    server = opened(HttpServer(answer, tls=authority.server_context()))
    proxy = opened(Proxy(tls=authority.server_context()))
    sender = sender_for(
        server, scheme="https", certificate_file=authority.certificate_file, proxy=f"https://{proxy.address}"
    )

    verdict = in_background(sender.send, batch(), 30.0)
    assert answer.begun.wait(5.0)
    with within(0):
        sender.abort()
        assert failure(verdict.result(5.0))[::2] == (Outcome.RETRY, False)

    server.answer = http.status(200)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    sender.abandon()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize(
    ("variable", "written"),
    [
        ("HTTP_PROXY", "http://{}"),
        ("http_proxy", "http://{}"),
        ("HTTP_PROXY", "{}"),
        ("ALL_PROXY", "http://{}/"),
    ],
)
def test_the_environment_may_name_the_proxy(opened, sender_for, monkeypatch, variable, written):
    """In all the ways that other HTTP clients understand."""
    server = opened(HttpServer())
    proxy = opened(Proxy())
    monkeypatch.setenv(variable, written.format(proxy.address))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert len(proxy.heads) == 1


def test_the_proxy_of_the_other_scheme_is_not_used(opened, sender_for, monkeypatch):
    """HTTPS_PROXY is for https endpoints."""
    server = opened(HttpServer())
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_the_configured_proxy_is_stronger_than_the_environment(opened, sender_for, monkeypatch):
    """And is used for hosts in NO_PROXY too."""
    server = opened(HttpServer())
    proxy = opened(Proxy())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "*")

    assert sender_for(server, proxy=f"http://{proxy.address}").send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert len(proxy.heads) == 1


def test_an_empty_proxy_switches_the_environment_off(opened, sender_for, monkeypatch):
    """For a collector beside the application."""
    server = opened(HttpServer())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert sender_for(server, proxy="").send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("excepted", ["127.0.0.1", "example.com,127.0.0.1", "*", "127.0.0.1:{port}"])
def test_hosts_in_no_proxy_are_asked_directly(opened, sender_for, monkeypatch, excepted):
    """By host, in a list, all of them, or by host and port."""
    server = opened(HttpServer())
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", excepted.format(port=server.port))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_proxy_that_cannot_be_used_is_refused_at_once():
    """Without repeating the password that may stand in it."""
    for proxy in ("socks5://ann:secret@127.0.0.1:1", "http://ann:secret@[::1", "http://"):
        with pytest.raises(ConfigError, match="proxy") as refused:
            HttpSender(OutletConfig(url="http://127.0.0.1/", proxy=proxy), SystemClock())
        assert "secret" not in str(refused.value)


def in_a_fork(child):
    """Run `child` in a forked process and return whether it ended well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            # Without the interpreter's end, which would end the test run's resources, too.
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_child_that_abandons_leaves_the_parents_connection_alone(opened, sender_for, authority, scheme):
    """Not a byte on the wire, not even TLS's farewell; a second connection only when the child itself sends."""
    server = opened(HttpServer(tls=authority.server_context() if scheme == "https" else None))
    sender = sender_for(server, scheme=scheme, certificate_file=authority.certificate_file)
    sender.send(batch(name="before"), 5.0)

    def leave():
        sender.abandon()
        sender.close()

    def send_something():
        sender.abandon()
        assert sender.send(batch(name="child"), 5.0).outcome is Outcome.DELIVERED

    assert in_a_fork(leave)
    assert sender.send(batch(name="between"), 5.0).outcome is Outcome.DELIVERED
    assert in_a_fork(send_something)
    assert sender.send(batch(name="after"), 5.0).outcome is Outcome.DELIVERED

    sent = [(request.headers["surgetank-batch-id"], request.connection) for request in server.requests]
    assert sent == [("before", 0), ("between", 0), ("child", 1), ("after", 0)]
    assert server.garbled == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_in_the_midst_of_a_send_disturbs_neither_side(opened, sender_for, in_background):
    """The child begins anew; the parent still gets the answer that it waits for."""
    asked, go_on = threading.Event(), threading.Event()

    def wait(sock, request):
        if request.headers["surgetank-batch-id"] == "parent":
            asked.set()
            go_on.wait(5.0)
        return http.status(200)(sock, request)

    server = opened(HttpServer(wait))
    sender = sender_for(server)
    pending = in_background(sender.send, batch(name="parent"), 5.0)
    assert asked.wait(5.0)

    def send_something():
        sender.abandon()
        assert sender.send(batch(name="child"), 5.0).outcome is Outcome.DELIVERED

    assert in_a_fork(send_something)
    go_on.set()

    assert pending.result(5.0).outcome is Outcome.DELIVERED
    assert server.connections == 2
    assert server.garbled == []


def test_abandon_without_a_connection_harms_nothing(opened, sender_for):
    """Before the first batch, twice, and after `close`."""
    server = opened(HttpServer())
    sender = sender_for(server)

    sender.abandon()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    sender.abandon()
    sender.abandon()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    sender.close()
    sender.abandon()
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("scheme", ["http", "https"])
@pytest.mark.parametrize("what_next", ["send", "close", "abandon", "abort"])
def test_a_connection_whose_descriptors_the_application_has_closed_is_left_alone(
    opened, sender_for, authority, tmp_path, scheme, what_next
):
    """Daemons close every descriptor: the numbers are those of files of the application's by then."""
    server = opened(HttpServer(tls=authority.server_context() if scheme == "https" else None))
    sender = sender_for(server, scheme=scheme, certificate_file=authority.certificate_file)
    sender.send(batch(name="before"), 5.0)
    numbers = {sender._line._handle.fileno(), sender._line._sock.fileno()}
    for number in numbers:
        os.close(number)
    files = [os.open(tmp_path / str(number), os.O_RDWR | os.O_CREAT) for number in numbers]
    assert set(files) == numbers

    if what_next == "send":
        assert sender.send(batch(name="after"), 5.0).outcome is Outcome.DELIVERED
    else:
        getattr(sender, what_next)()
    assert sender.send(batch(name="last"), 5.0).outcome is Outcome.DELIVERED

    assert [os.fstat(number).st_size for number in files] == [0, 0]
    for number in files:
        os.close(number)
    assert server.garbled == []


def packed(raw=b"request " * 500, encoding="gzip"):
    """Return a batch that was sealed compressed."""
    return replace(batch(body=compress([raw], encoding), name="packed"), encoding=encoding, raw_size=len(raw))


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_receiver_that_takes_no_compression_gets_the_request_uncompressed(opened, sender_for, caplog, encoding):
    """At once, in the same attempt; what comes after it too, and one line says so."""
    refuse = http.status(415, b"unsupported encoding")
    server = opened(
        HttpServer(lambda sock, r: (refuse if "content-encoding" in r.headers else http.status(200))(sock, r))
    )
    sender = sender_for(server)

    verdicts = [sender.send(packed(encoding=encoding), 5.0).outcome for _ in range(3)]

    assert verdicts == [Outcome.DELIVERED] * 3
    assert [request.headers.get("content-encoding") for request in server.requests] == [encoding, None, None, None]
    assert {request.body for request in server.requests[1:]} == {b"request " * 500}
    [line] = [record.getMessage() for record in caplog.records if record.name == "surgetank.delivery"]
    assert line.endswith(f"does not take {encoding} (415); requests to it go out uncompressed from now on")


def test_a_receiver_that_refuses_the_type_itself_is_held(opened, sender_for):
    """It takes JSON only, or is no receiver: people have to repair that, and nothing is lost until then."""
    server = opened(HttpServer(http.status(415)))
    sender = sender_for(server)

    assert sender.send(packed(), 5.0).outcome is Outcome.HOLD
    assert sender.send(batch(), 5.0).outcome is Outcome.HOLD


@pytest.mark.parametrize("size", [100, 8 << 20])
def test_a_login_page_is_not_delivery(opened, sender_for, size):
    """However long it is, and longer than what is read of an answer."""
    page = b"<html>" + b"x" * size
    server = opened(HttpServer(http.status(200, page, content_type="text/html; charset=utf-8")))

    verdict = sender_for(server).send(batch(), 5.0)

    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.HOLD, "html", True)


@pytest.mark.parametrize("status", [503, 429, 404])
def test_an_address_that_goes_on_failing_on_a_kept_connection_is_dialled_anew(opened, sender_for, status):
    """The name may have moved to another host meanwhile; only a new connection finds out."""
    server = opened(HttpServer(http.status(status)))
    sender = sender_for(server)

    for _ in range(2 * REDIAL_AFTER + 1):
        sender.send(batch(), 5.0)

    assert server.connections == 3


def test_a_name_that_has_moved_is_found_although_the_old_address_still_answers(opened, monkeypatch):
    """Its connection is kept alive, and says 503 for ever."""
    old, new = opened(HttpServer(http.status(503))), opened(HttpServer())
    port = {"collector.test": old.port}
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, _, **more: real("127.0.0.1", port[host], **more))
    sender = opened(
        closing(HttpSender(OutletConfig(url="http://collector.test:4318/v1/traces", proxy=""), SystemClock()))
    )
    sender.send(batch(), 5.0)
    port["collector.test"] = new.port

    verdicts = [sender.send(batch(), 5.0).outcome for _ in range(REDIAL_AFTER)]

    assert verdicts[-1] is Outcome.DELIVERED


def test_a_renewed_authority_is_seen_by_the_next_connection(opened, sender_for, authority, tmp_path):
    """Certificates are renewed while processes live."""
    server, stranger = opened(HttpServer(tls=authority.server_context())), Authority(tmp_path)
    sender = sender_for(server, scheme="https", certificate_file=stranger.certificate_file)
    assert sender.send(batch(), 5.0).outcome is Outcome.HOLD

    shutil.copy(authority.certificate_file, stranger.certificate_file)

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_authorities_are_taken_from_where_requests_takes_them(opened, authority, monkeypatch, tmp_path, variable, kind):
    """The stock exporters read these, and users have set what works with them."""
    place = authority.certificate_file
    if kind == "folder":
        subprocess.run(["openssl", "version"], check=True, capture_output=True)
        shutil.copy(authority.certificate_file, tmp_path / "ca.pem")
        subprocess.run(["openssl", "rehash", str(tmp_path)], check=True, capture_output=True)
        place = str(tmp_path)
    server = opened(HttpServer(tls=authority.server_context()))
    outlet = resolve_outlet(
        Signal.SPANS,
        Environment({variable: place, "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{server.address}"}),
        proxy="",
    )
    sender = opened(closing(HttpSender(outlet, SystemClock())))

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_an_authorities_variable_of_otlps_own_comes_first(authority, stranger, caplog):
    """Then `REQUESTS_CA_BUNDLE`, then `CURL_CA_BUNDLE`; one that names nothing is passed over with a line."""
    ours, theirs = authority.certificate_file, stranger.certificate_file

    def chosen(**variables):
        return resolve_outlet(Signal.SPANS, Environment(variables)).certificate_file

    assert chosen(OTEL_EXPORTER_OTLP_CERTIFICATE=ours, REQUESTS_CA_BUNDLE=theirs) == ours
    assert chosen(REQUESTS_CA_BUNDLE=ours, CURL_CA_BUNDLE=theirs) == ours
    assert chosen(REQUESTS_CA_BUNDLE="/missing", CURL_CA_BUNDLE=theirs) == theirs
    assert chosen(OTEL_EXPORTER_OTLP_PROTOCOL="grpc", REQUESTS_CA_BUNDLE=ours) is None
    assert "REQUESTS_CA_BUNDLE" in caplog.text
    caplog.clear()
