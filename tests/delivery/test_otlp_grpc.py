"""The gRPC sender against real servers on loopback: good ones, bad ones, TLS and forks."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import freezegun
import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from fakes.batches import batch
from fakes.requests import span
from servers import grpc as servers
from servers.certificates import Authority
from servers.grpc import GrpcServer, Hang, abort, respond
from servers.http import HttpServer
from servers.loopback import Loopback
from servers.proxy import Proxy
from surgetank import BufferConfig, Signal, Tank, Timing
from surgetank._version import __version__
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery import otlp_grpc
from surgetank.delivery.otlp_grpc import GrpcSender
from surgetank.delivery.verdicts import GRPC_OUTCOMES
from surgetank.errors import ConfigError
from surgetank.model import Outcome
from surgetank.otlp.compression import compress

# What a call may take beyond its time-out, on a busy machine (seconds).
GRACE = 1.0

CODES = [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK]


@pytest.fixture
def sender_for(opened):
    """Makes senders for a server."""

    def make(server, *, scheme="http", user="", **settings):
        outlet = OutletConfig(url=f"{scheme}://{user}{server.address}", protocol="grpc", **settings)
        return opened(closing(GrpcSender(outlet, SystemClock())))

    return make


def failure(verdict):
    return verdict.outcome, verdict.cause, verdict.reached


@pytest.mark.parametrize("kind", Signal)
def test_a_batch_goes_out_as_one_call_of_its_signals_service(opened, sender_for, kind):
    """With the raw request, whatever it was sealed as, and the batch's own identity."""
    server = opened(GrpcServer())
    body = bytes(range(256)) * 40
    outside = batch(body=compress([body], "gzip"), name="0123-4567", signal=kind)
    sealed = replace(outside, encoding="gzip", raw_size=len(body))

    verdict = sender_for(server).send(sealed, 5.0)

    assert failure(verdict) == (Outcome.DELIVERED, "OK", True)
    [call] = server.calls
    assert call.method == otlp_grpc.METHODS[kind]
    assert call.body == body
    assert call.metadata["surgetank-batch-id"] == "0123-4567"
    assert call.metadata["user-agent"].startswith(f"surgetank/{__version__} Python/3.")


@pytest.mark.parametrize("frozen", ["2020-01-01", "2100-01-01"])
def test_a_call_has_its_time_under_a_frozen_clock(opened, sender_for, frozen):
    """As in tests of the application's: grpc makes a deadline of Python's time, and its core knows the real one."""
    hang = Hang()
    with GrpcServer() as server, GrpcServer(hang) as silent, freezegun.freeze_time(frozen):
        good, bad = sender_for(server), sender_for(silent)
        assert good.send(batch(), 5.0).outcome is Outcome.DELIVERED
        began = SystemClock.monotonic()
        assert bad.send(batch(), 0.2).cause == "timeout"
        assert SystemClock.monotonic() - began < 0.2 + GRACE
        hang.go_on.set()


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
@pytest.mark.parametrize("call_compression", ["none", "gzip", "deflate"])
def test_any_sealed_encoding_meets_any_compression_of_the_call(opened, sender_for, encoding, call_compression):
    """A spool may hold what another configuration has sealed."""
    server = opened(GrpcServer())
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(name="work " * 100)
    body = compress([request.SerializeToString()], encoding)

    sender = sender_for(server, call_compression=call_compression)
    assert sender.send(replace(batch(body=body), encoding=encoding), 5.0).outcome is Outcome.DELIVERED

    assert server.calls[0].request == request


def test_a_body_that_is_not_what_it_says_is_permanent(opened, sender_for):
    """Sending it again would not mend it."""
    server = opened(GrpcServer())

    verdict = sender_for(server).send(replace(batch(body=b"no gzip"), encoding="gzip"), 5.0)

    assert failure(verdict) == (Outcome.PERMANENT, "unreadable", False)
    assert server.calls == []


def test_headers_are_sent_as_metadata_with_every_batch(opened, sender_for):
    """Among them a user agent, which then stands before gRPC's, and binary ones."""
    server = opened(GrpcServer())
    sender = sender_for(server, headers={"x-tenant": "blue", "user-agent": "mine/1", "x-trace-bin": "ü"})

    for _ in range(2):
        sender.send(batch(), 5.0)

    for call in server.calls:
        assert call.metadata["x-tenant"] == "blue"
        assert call.metadata["x-trace-bin"] == "ü".encode()
        assert call.metadata["user-agent"].startswith("mine/1")


@pytest.mark.parametrize("header", [{"x!": "a"}, {"x": "ü"}, {"grpc-timeout": "1"}])
def test_a_header_that_cannot_be_metadata_is_refused_without_its_value(header):
    """At once, and not by every call."""
    with pytest.raises(ConfigError, match="headers") as refused:
        GrpcSender(OutletConfig(url="http://127.0.0.1:1", headers=header), SystemClock())

    assert "ü" not in str(refused.value)


def test_a_user_in_the_endpoint_becomes_basic_authentication(opened, sender_for):
    """As over HTTP; a header of the outlet is stronger."""
    server = opened(GrpcServer())

    sender_for(server, user="ann:p%40ss@").send(batch(), 5.0)
    sender_for(server, user="ann:p%40ss@", headers={"authorization": "Bearer t"}).send(batch(), 5.0)

    sent = [call.metadata["authorization"] for call in server.calls]
    assert sent == ["Basic " + b64encode(b"ann:p@ss").decode(), "Bearer t"]


def test_many_batches_share_one_connection(opened, sender_for):
    """Also after answers that are refusals."""
    server = opened(GrpcServer())
    sender = sender_for(server)

    for answer in (servers.succeed, abort(grpc.StatusCode.UNAVAILABLE, "busy"), servers.succeed, abort(CODES[2])):
        server.answer = answer
        sender.send(batch(), 5.0)

    assert len({call.peer for call in server.calls}) == 1


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_each_code_is_judged_by_the_table(opened, sender_for, code):
    """A server that answers was reached, whatever it says."""
    server = opened(GrpcServer(abort(code, "because")))

    verdict = sender_for(server).send(batch(), 5.0)

    assert failure(verdict) == (GRPC_OUTCOMES[code.name], code.name, True)
    assert verdict.message == "because"


def test_a_service_that_the_server_does_not_have_is_held(opened, sender_for):
    """Like a 404 over HTTP: somebody adds it, or corrects the endpoint."""
    server = opened(GrpcServer(methods=()))

    assert failure(sender_for(server).send(batch(), 5.0)) == (Outcome.HOLD, "UNIMPLEMENTED", True)


def test_a_server_that_crashes_in_the_call_is_tried_again(opened, sender_for):
    """UNKNOWN, which OTLP would not retry."""

    def crash(call, context):
        raise RuntimeError("boom")

    server = opened(GrpcServer(crash))

    assert failure(sender_for(server).send(batch(), 5.0)) == (Outcome.RETRY, "UNKNOWN", True)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_retry_info_in_the_trailers_is_what_we_wait_for(opened, sender_for, code):
    """Where real servers put it, as real servers write it."""
    server = opened(GrpcServer(abort(code, "failed to connect, says somebody behind it", retry_after=61.5)))

    verdict = sender_for(server).send(batch(), 5.0)

    assert (verdict.outcome, verdict.retry_after, verdict.reached) == (Outcome.RETRY, 61.5, True)


def test_a_partial_success_is_counted(opened, sender_for):
    """And what the server says about it is kept."""
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = 2
    answer.partial_success.error_message = "two were old"
    server = opened(GrpcServer(respond(answer.SerializeToString())))

    verdict = sender_for(server).send(batch(items=5), 5.0)

    assert (verdict.outcome, verdict.rejected, verdict.message) == (Outcome.DELIVERED, 2, "two were old")


def test_an_answer_that_is_no_message_is_a_success(opened, sender_for):
    """The code says enough."""
    server = opened(GrpcServer(respond(b"\xff\xff\xff")))

    verdict = sender_for(server).send(batch(), 5.0)

    assert (verdict.outcome, verdict.rejected) == (Outcome.DELIVERED, 0)


def test_a_message_above_the_servers_limit_is_split(opened, sender_for):
    """It is sent all the same: the limit is the server's to set."""
    server = opened(GrpcServer())

    verdict = sender_for(server).send(batch(body=bytes(5 * 1024 * 1024)), 10.0)

    assert failure(verdict) == (Outcome.SPLIT, "RESOURCE_EXHAUSTED", True)


def test_a_refused_connection_is_retried_later_and_dialled_at_once(sender_for, within):
    """Without the pauses that gRPC itself would make between dials."""
    server = GrpcServer()
    with server:
        pass
    sender = sender_for(server)

    with within(0):
        for _ in range(3):
            verdict = sender.send(batch(), 5.0)
            assert failure(verdict) == (Outcome.RETRY, "connection_refused", False)
            # What people read of it begins with the fault.
            assert "addresses" not in verdict.message
            assert server.address not in verdict.message
    with server:
        assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_server_that_was_restarted_is_found_again(opened, sender_for):
    """The first call after it may fail, the second does not."""
    server = opened(GrpcServer())
    sender = sender_for(server)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED

    server.stop()
    assert sender.send(batch(), 5.0).reached is False
    server.listen()
    outcomes = [sender.send(batch(), 5.0).outcome for _ in range(2)]

    assert outcomes[-1] is Outcome.DELIVERED


@pytest.mark.parametrize("host", ["[::1]", "localhost"])
def test_a_host_may_be_a_name_or_an_address_of_six(opened, sender_for, host):
    """In brackets, as URLs have it."""
    if host == "[::1]":
        try:
            socket.create_server(("::1", 0), family=socket.AF_INET6).close()
        except OSError:
            pytest.skip("no IPv6 here")
    server = opened(GrpcServer(host=host))

    assert sender_for(server).send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_name_that_nobody_knows_is_a_fault_of_dns():
    """Reserved for that by RFC 6761."""
    with closing(GrpcSender(OutletConfig(url="http://nobody.invalid:4317"), SystemClock())) as sender:
        verdict = sender.send(batch(), 5.0)

    assert verdict.outcome is Outcome.RETRY
    assert (verdict.cause, verdict.reached) in [("dns", False), ("timeout", False)]


def test_a_listener_that_never_accepts_costs_one_time_out(opened, within):
    """The kernel takes the connection; nobody ever reads from it."""
    listener = opened(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(GrpcSender(OutletConfig(url=url), SystemClock())))

    with within(0.1):
        assert failure(sender.send(batch(), 0.1)) == (Outcome.RETRY, "timeout", False)


def test_a_server_that_never_answers_costs_one_time_out(opened, sender_for, within):
    """And the next call goes over a connection of its own."""
    server = opened(GrpcServer(Hang()))
    sender = sender_for(server)

    with within(0.2):
        assert failure(sender.send(batch(), 0.2)) == (Outcome.RETRY, "timeout", False)

    server.answer = servers.succeed
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_deadline_that_the_server_itself_has_missed_is_an_answer(opened, sender_for):
    """A collector says so of what stands behind it."""
    server = opened(GrpcServer(abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")))

    assert failure(sender_for(server).send(batch(), 5.0)) == (Outcome.RETRY, "DEADLINE_EXCEEDED", True)


@pytest.mark.parametrize("server", [HttpServer, lambda: Loopback(lambda sock, number: sock.recv(10))])
def test_a_server_of_another_protocol_is_not_reached(opened, sender_for, server):
    """OTLP/HTTP's port instead of gRPC's, say."""
    verdict = sender_for(opened(server())).send(batch(), 5.0)

    assert (verdict.outcome, verdict.reached) == (Outcome.RETRY, False)


def test_abort_ends_a_send_that_waits(opened, sender_for, in_background, within):
    """From another thread, long before its time-out; the next send is well."""
    answer = Hang()
    server = opened(GrpcServer(answer))
    sender = sender_for(server)

    verdict = in_background(sender.send, batch(), 30.0)
    assert answer.begun.wait(5.0)
    with within(0):
        sender.abort()
        assert failure(verdict.result(5.0)) == (Outcome.RETRY, "timeout", False)

    server.answer = servers.succeed
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_abort_ends_a_send_that_connects(opened, in_background, within):
    """Before there is a connection."""
    listener = opened(socket.create_server(("127.0.0.1", 0)))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    sender = opened(closing(GrpcSender(OutletConfig(url=url), SystemClock())))

    verdict = in_background(sender.send, batch(), 30.0)
    opened(listener.accept()[0])
    with within(0):
        sender.abort()
        assert failure(verdict.result(5.0)) == (Outcome.RETRY, "timeout", False)


def test_abort_close_and_abandon_without_a_send_harm_nothing(opened, sender_for):
    """Before the first, between two, and twice."""
    server = opened(GrpcServer())
    sender = sender_for(server)

    for end in (sender.abort, sender.close, sender.abandon):
        end()
        end()
        assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_tls_with_an_authority_of_our_own(opened, sender_for, authority):
    """Trusted because it was named."""
    server = opened(GrpcServer(credentials=authority.server_credentials()))
    sender = sender_for(server, scheme="https", certificate_file=authority.certificate_file)

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_certificate_that_is_not_trusted_is_held(opened, sender_for, authority, stranger):
    """Somebody has to repair it."""
    server = opened(GrpcServer(credentials=authority.server_credentials()))
    sender = sender_for(server, scheme="https", certificate_file=stranger.certificate_file)

    assert failure(sender.send(batch(), 5.0)) == (Outcome.HOLD, "tls", False)


def test_a_certificate_for_another_name_is_held(opened, sender_for, authority):
    """Whoever has signed it."""
    server = opened(GrpcServer(credentials=authority.server_credentials("elsewhere.example")))
    sender = sender_for(server, scheme="https", certificate_file=authority.certificate_file)

    assert failure(sender.send(batch(), 5.0)) == (Outcome.HOLD, "tls", False)


def test_a_client_certificate_is_shown_where_it_is_demanded(opened, sender_for, authority):
    """And without one nothing is delivered."""
    server = opened(GrpcServer(credentials=authority.server_credentials(client_authority=authority)))
    certificate, key = authority.client_files()
    trusting = {"scheme": "https", "certificate_file": authority.certificate_file}

    with_one = sender_for(server, client_certificate_file=certificate, client_key_file=key, **trusting)
    without = sender_for(server, **trusting)

    assert with_one.send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert without.send(batch(), 5.0).reached is False
    assert len(server.calls) == 1


def test_a_certificate_file_without_one_is_refused_at_once(tmp_path):
    """And not by every call."""
    file = tmp_path / "ca.pem"
    file.write_text("nothing")

    with pytest.raises(ConfigError, match="certificate_file"):
        GrpcSender(OutletConfig(url="https://127.0.0.1:1", certificate_file=str(file)), SystemClock())


def test_a_proxy_is_asked_for_a_tunnel(opened, sender_for):
    """The one that is configured, or none."""
    server = opened(GrpcServer())
    proxy = opened(Proxy("ann:secret"))

    through = sender_for(server, proxy=f"http://ann:secret@{proxy.address}")
    assert through.send(batch(), 5.0).outcome is Outcome.DELIVERED

    assert [line for line, _ in proxy.heads] == [f"CONNECT {server.address} HTTP/1.1"]


def test_an_empty_proxy_switches_the_environment_off(opened, sender_for, monkeypatch):
    """For a collector beside the application."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server = opened(GrpcServer())

    assert sender_for(server, proxy="").send(batch(), 5.0).outcome is Outcome.DELIVERED


def test_a_proxy_that_speaks_tls_is_refused_without_its_password():
    """There is no TLS to proxies in gRPC."""
    with pytest.raises(ConfigError, match="proxy") as refused:
        GrpcSender(OutletConfig(url="http://127.0.0.1:1", proxy="https://ann:secret@127.0.0.1:1"), SystemClock())

    assert "secret" not in str(refused.value)


def in_a_fork(child):
    """Run `child` in a forked process and return whether it ended well within five seconds."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        finally:
            # Without the interpreter's end, which would end the test run's resources, too.
            os._exit(code)
    watch = threading.Timer(5.0, os.kill, (pid, signal.SIGKILL))
    watch.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        watch.cancel()


# A server in the same process would have its threads inside gRPC when the process forks.
SERVER = """
import sys, threading
from servers.certificates import Authority
from servers.grpc import GrpcServer
calls = threading.Event()
def answer(call, context):
    print(call.metadata["surgetank-batch-id"], call.peer, flush=True)
    if call.body == b"slow": threading.Event().wait(0.4)
    if call.body == b"never": threading.Event().wait(8)
    return b""
with GrpcServer(answer) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""


class OtherProcess:
    """A server in a process of its own; `next_call` returns the batch id and the peer of each call in order."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVER], env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __enter__(self):
        self.address = f"127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(self, *error):
        self._process.kill()
        self._process.communicate()

    def next_call(self):
        return tuple(self._process.stdout.readline().split())


forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
quietly = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@contextmanager
def told(sender):
    """The hooks that a tank calls around a fork, on the parent's side."""
    sender.before_fork()
    try:
        yield
    finally:
        sender.after_fork_in_parent()


@forks
@quietly
@pytest.mark.slow
def test_a_child_makes_a_channel_of_its_own_and_the_parents_goes_on(opened, sender_for):
    """A second connection only when the child itself sends; the parent's is the same before and after."""
    server = opened(OtherProcess())
    sender = sender_for(server)

    def leave():
        sender.abandon()
        sender.close()

    def send_something():
        sender.abandon()
        assert sender.send(batch(name="child"), 3.0).outcome is Outcome.DELIVERED

    assert sender.send(batch(name="before"), 5.0).outcome is Outcome.DELIVERED
    for child in (leave, send_something):
        with told(sender):
            assert in_a_fork(child)
    assert sender.send(batch(name="after"), 5.0).outcome is Outcome.DELIVERED

    (first, peer), (second, other), (third, again) = (server.next_call() for _ in range(3))
    assert (first, second, third) == ("before", "child", "after")
    assert peer == again != other


@forks
@quietly
@pytest.mark.slow
def test_a_fork_waits_briefly_for_a_call_under_way_and_then_breaks_it_off(opened, sender_for, in_background, within):
    """With a thread inside gRPC the child could crash at its first call; the batch is sent again."""
    server = opened(OtherProcess())
    sender = sender_for(server)
    pending = in_background(sender.send, batch(name="parent", body=b"never"), 5.0)
    assert server.next_call()[0] == "parent"

    def send_something():
        sender.abandon()
        assert sender.send(batch(name="child"), 3.0).outcome is Outcome.DELIVERED

    with within(2 * otlp_grpc.FORK_PATIENCE):
        with told(sender):
            assert in_a_fork(send_something)

    assert failure(pending.result(5.0)) == (Outcome.RETRY, "timeout", False)
    assert sender.send(batch(name="again"), 5.0).outcome is Outcome.DELIVERED


@forks
@quietly
@pytest.mark.slow
def test_many_forks_beside_a_busy_sender_harm_neither_side(opened, sender_for, in_background):
    """Each child gets through, and the parent's calls are answered or broken off."""
    server = opened(OtherProcess())
    sender = sender_for(server)
    ended = threading.Event()

    def keep_sending():
        causes = set()
        while not ended.is_set():
            causes.add(sender.send(batch(name="parent"), 5.0).cause)
        return causes

    def send_something():
        sender.abandon()
        assert sender.send(batch(name="child"), 3.0).outcome is Outcome.DELIVERED

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    causes = in_background(keep_sending)
    drain = threading.Thread(target=lambda: all(server.next_call() for _ in iter(int, 1)), daemon=True)
    drain.start()
    try:
        for _ in range(20):
            with told(sender):
                well = in_a_fork(send_something)
            assert well
    finally:
        ended.set()
    assert causes.result(6.0) <= {"OK", "timeout"}


@forks
@quietly
@pytest.mark.slow
def test_a_child_says_what_is_wrong_where_grpcs_fork_support_is_off(opened, sender_for, monkeypatch):
    """A call there would never return, whatever its time-out."""
    server = opened(OtherProcess())
    sender = sender_for(server)
    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    monkeypatch.setenv("GRPC_ENABLE_FORK_SUPPORT", "false")

    def send_something():
        sender.abandon()
        verdict = sender.send(batch(), 3.0)
        assert failure(verdict) == (Outcome.HOLD, "fork", False)
        assert "GRPC_ENABLE_FORK_SUPPORT" in verdict.message

    with told(sender):
        assert in_a_fork(send_something)


def tank_for(server, **settings):
    """Return a tank that retries soon."""
    return Tank(
        endpoint=f"http://{server.address}",
        protocol="grpc",
        spans=BufferConfig(schedule_delay=0.05, **settings),
        persistence_enabled=False,
        timing=Timing(backoff_initial=0.02, backoff_max=0.05, cooldown_initial=0.02, cooldown_max=0.1),
        handle_sigterm=False,
    )


def numbers_in(call):
    """Return the numbers of the spans in a call, in order."""
    scopes = [scope for resource in call.request.resource_spans for scope in resource.scope_spans]
    return [int.from_bytes(span.span_id, "big") - 1 for scope in scopes for span in scope.spans]


def offer(tank, numbers, **attributes):
    """Offer numbered spans through the tank's own door."""
    for number in numbers:
        tank.span_processor.on_end(span(number, attributes=attributes or None))


def test_a_request_above_the_servers_limit_arrives_in_parts(opened):
    """Through everything: door, sealer, queue, verdict, halves."""
    server = opened(GrpcServer())
    tank = tank_for(server, max_batch_mb=16, max_memory_mb=256)

    offer(tank, range(24), payload="x" * 300_000)

    assert tank.force_flush(20.0)
    assert tank.shutdown()
    sizes = [len(call.body) for call in server.calls]
    assert max(sizes) <= 4 * 1024 * 1024
    assert sorted(number for call in server.calls for number in numbers_in(call)) == list(range(24))
    assert tank.stats().spans.delivered == 24


def test_an_outage_loses_and_repeats_nothing(opened):
    """Refused, gone, back on the same port; one of the items is poison."""
    server = opened(GrpcServer(abort(grpc.StatusCode.UNAVAILABLE, "busy")))
    tank = tank_for(server)
    offer(tank, range(30))
    assert not tank.force_flush(0.3)
    server.stop()
    offer(tank, range(30, 60))
    assert not tank.force_flush(0.3)

    def refuse_poison(call, context):
        if 13 in numbers_in(call):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "poison")
        taken.extend(numbers_in(call))
        return b""

    taken = []
    server.answer = refuse_poison
    server.listen()

    # What was refused for good was not delivered.
    assert not tank.force_flush(20.0)
    assert tank.shutdown()
    assert sorted(taken) == [number for number in range(60) if number != 13]
    books = tank.stats().spans
    assert (books.delivered, books.rejected, books.unaccounted) == (59, 1, 0)


def test_grpc_is_imported_only_where_it_is_chosen():
    """It is large, and starts threads; and without it, choosing it says what to install."""
    program = """
import sys
from surgetank import ConfigError, Tank
Tank(persistence_enabled=False).shutdown()
assert "grpc" not in sys.modules
sys.modules["grpc"] = None
try:
    Tank(persistence_enabled=False, protocol="grpc")
except ConfigError as error:
    assert "pip install 'surgetank[grpc]'" in str(error), error
else:
    raise AssertionError("no error")
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "SURGETANK_"))}
    done = subprocess.run([sys.executable, "-c", program], env=clean, capture_output=True, text=True, timeout=30)

    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("is_told", [False, True], ids=["gevent", "grpc.experimental.gevent"])
def test_under_gevent_a_thread_of_ours_that_waits_for_a_fork_goes_on_after_it(is_told):
    """Whether or not the application has told gRPC of gevent: if so, gRPC gives it a hub of its own, and nobody else does."""
    pytest.importorskip("gevent")
    program = f"""
import gevent.monkey
gevent.monkey.patch_all()
import grpc.experimental.gevent
if {is_told}:
    grpc.experimental.gevent.init_gevent()
from gevent._hub_local import get_hub_if_exists
from fakes.batches import batch
from surgetank import threads
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.otlp_grpc import GrpcSender

sender = GrpcSender(OutletConfig(url="http://127.0.0.1:9", protocol="grpc"), SystemClock())
sender.before_fork()
begun, hubs = threads.Gate(), []
def run():
    begun.open()
    print(sender.send(batch(), 5.0).cause)
    hubs.append(get_hub_if_exists())
thread = threads.start(run, "one")
assert begun.wait(30.0)
# Time enough to come to the lock; too little would only leave a defect unseen.
threads.sleep(0.2)
sender.after_fork_in_parent()
thread.join(30.0)
assert len(hubs) == 1
assert {is_told} or hubs == [None], hubs
"""
    path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout == "connection_refused\n"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (grpc.StatusCode.UNIMPLEMENTED, 'grpc: Decompressor is not installed for grpc-encoding "gzip"'),
        (grpc.StatusCode.UNIMPLEMENTED, "Content is encoded with compression algorithm `gzip` which isn't supported"),
        (grpc.StatusCode.INTERNAL, "Compression algorithm 'gzip' is disabled"),
    ],
)
def test_a_server_that_takes_no_compression_gets_the_call_uncompressed(opened, sender_for, caplog, code, words):
    """As over HTTP after a 415: in the same attempt, and said once."""
    tries = []

    def answer(call, context):
        tries.append(call)
        return abort(code, words)(call, context) if len(tries) == 1 else servers.succeed(call, context)

    sender = sender_for(opened(GrpcServer(answer)), call_compression="gzip")

    assert [sender.send(batch(), 5.0).outcome for _ in range(3)] == [Outcome.DELIVERED] * 3
    assert len(tries) == 4
    assert [record.name for record in caplog.records].count("surgetank.delivery") == 1


def test_a_server_that_does_not_know_the_service_is_held(opened, sender_for):
    """UNIMPLEMENTED for another reason is no matter of compression."""
    server = opened(GrpcServer(methods=()))
    assert sender_for(server, call_compression="gzip").send(batch(), 5.0).outcome is Outcome.HOLD


def test_an_address_that_goes_on_failing_is_dialled_anew(opened, sender_for):
    """The name may have moved to another host meanwhile."""
    server = opened(GrpcServer(abort(grpc.StatusCode.UNAVAILABLE, "draining")))
    sender = sender_for(server)

    for _ in range(2 * otlp_grpc.REDIAL_AFTER + 1):
        sender.send(batch(), 5.0)

    assert len({call.peer for call in server.calls}) == 3


def test_renewed_certificates_are_seen_by_the_next_channel(opened, sender_for, authority, tmp_path):
    """The authority, and our own certificate with its key; files that are just being replaced are no mistake for good."""
    server = opened(GrpcServer(credentials=authority.server_credentials(client_authority=authority)))
    stranger = Authority(tmp_path)
    certificate, key = stranger.client_files()
    settings = {
        "certificate_file": stranger.certificate_file,
        "client_certificate_file": certificate,
        "client_key_file": key,
    }
    sender = sender_for(server, scheme="https", **settings)
    assert not sender.send(batch(), 5.0).reached

    own_certificate, own_key = authority.client_files()
    os.unlink(key)
    assert failure(sender.send(batch(), 5.0))[:2] == (Outcome.HOLD, "tls")
    shutil.copy(authority.certificate_file, stranger.certificate_file)
    shutil.copy(own_certificate, certificate)
    shutil.copy(own_key, key)

    assert sender.send(batch(), 10.0).outcome is Outcome.DELIVERED
