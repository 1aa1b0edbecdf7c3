"""The sender's one connection: its deadline, its cutting from outside, its answers and its forks."""

import os
import socket
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from fakes.batches import batch
from servers import http
from servers.http import HttpServer
from servers.loopback import Loopback
from surgetank.clock import SystemClock
from surgetank.config import OutletConfig
from surgetank.delivery.otlp_http import HttpSender
from surgetank.model import Outcome

# What a call may take beyond its time, on a busy machine (seconds).
GRACE = 0.5

DRIPPING_BODIES = {
    "with a length": b"HTTP/1.1 200 OK\r\ncontent-length: 99999\r\n\r\n",
    "until the end": b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n",
}


@pytest.fixture
def opened():
    """What this opens is closed when the test ends, in reverse."""
    with ExitStack() as stack:
        yield stack.enter_context


@pytest.fixture
def sender_at():
    """Makes senders without a proxy, closed when the test ends."""
    with ExitStack() as stack:

        def make(url, **settings):
            sender = HttpSender(OutletConfig(url=url, proxy="", **settings), SystemClock())
            stack.callback(sender.close)
            return sender

        yield make


@pytest.fixture
def full_listener(opened):
    """The address of a listener whose backlog is full: connecting to it never ends."""
    if sys.platform != "linux":
        pytest.skip("elsewhere a full backlog refuses or takes more")
    listener = opened(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(3):
        waiting = opened(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listener.getsockname())
    return listener.getsockname()


def seconds_of(call):
    began = time.monotonic()
    verdict = call()
    return time.monotonic() - began, verdict


def cut_soon(sender):
    """Abort from another thread, shortly after the test has begun to wait."""
    timer = threading.Timer(0.1, sender.abort)
    timer.start()
    return timer


def until_closed(sock, number):
    while sock.recv(4096):
        pass


@pytest.mark.parametrize("status", [101, 102, 103])
def test_an_answer_that_follows_a_1xx_is_not_taken_for_the_next_batchs(opened, sender_at, status):
    """Or a batch that was refused would be counted as delivered."""
    follow = threading.Event()
    refusal = http.status(400)

    def hint_first(sock, request):
        if request.headers["surgetank-batch-id"] != "first":
            return refusal(sock, request)
        sock.sendall(b"HTTP/1.1 %d Hint\r\n\r\n" % status)
        follow.wait(5.0)
        return http.status(200)(sock, request)

    server = opened(HttpServer(hint_first))
    sender = sender_at(f"http://{server.address}/")

    first = sender.send(batch(name="first"), 5.0)
    second = sender.send(batch(name="second"), 5.0)
    follow.set()

    assert first.outcome is Outcome.RETRY
    assert second.outcome is Outcome.PERMANENT


@pytest.mark.parametrize("head", DRIPPING_BODIES.values(), ids=DRIPPING_BODIES)
def test_a_body_that_drips_ends_with_the_time_out(opened, sender_at, head):
    """Each byte comes in time, all of them do not; the status has said what there is to know."""
    server = opened(HttpServer(http.Drip(head)))
    sender = sender_at(f"http://{server.address}/")

    seconds, verdict = seconds_of(lambda: sender.send(batch(), 0.2))

    assert seconds < 0.2 + GRACE
    assert verdict.outcome is Outcome.DELIVERED


@pytest.mark.parametrize("head", DRIPPING_BODIES.values(), ids=DRIPPING_BODIES)
def test_abort_ends_a_body_that_drips(opened, sender_at, head):
    """Also when urllib3 has given the connection up already, and only the response reads from it."""
    server = opened(HttpServer(http.Drip(head)))
    sender = sender_at(f"http://{server.address}/")

    timer = cut_soon(sender)
    seconds, _ = seconds_of(lambda: sender.send(batch(), 5.0))
    timer.join()

    assert seconds < 0.1 + GRACE


def test_abort_ends_a_connection_that_is_not_established(full_listener, sender_at):
    """Packets that vanish, as behind a firewall."""
    sender = sender_at(f"http://127.0.0.1:{full_listener[1]}/")

    timer = cut_soon(sender)
    seconds, verdict = seconds_of(lambda: sender.send(batch(), 5.0))
    timer.join()

    assert seconds < 0.1 + GRACE
    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.RETRY, "timeout", False)


def test_abort_ends_a_tls_handshake(opened, sender_at):
    """While it lasts, the socket belongs to OpenSSL and to nobody else."""
    server = opened(Loopback(until_closed))
    sender = sender_at(f"https://{server.address}/")

    timer = cut_soon(sender)
    seconds, verdict = seconds_of(lambda: sender.send(batch(), 5.0))
    timer.join()

    assert seconds < 0.1 + GRACE
    assert (verdict.outcome, verdict.cause, verdict.reached) == (Outcome.RETRY, "timeout", False)


def test_the_addresses_of_a_name_share_one_time_out(full_listener, sender_at, monkeypatch):
    """A service of ten dead instances costs no more than one of one."""
    entry = (socket.AF_INET, socket.SOCK_STREAM, 6, "", full_listener)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [entry] * 10)
    sender = sender_at("http://collector.test:4318/")

    seconds, verdict = seconds_of(lambda: sender.send(batch(), 0.3))

    assert seconds < 0.3 + GRACE
    assert (verdict.outcome, verdict.cause) == (Outcome.RETRY, "timeout")


def test_a_dead_address_leaves_time_for_one_that_answers(full_listener, opened, sender_at, monkeypatch):
    """Such as IPv6 that leads nowhere before IPv4 that works."""
    server = opened(HttpServer())
    entries = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in (full_listener, ("127.0.0.1", server.port))]
    sender = sender_at("http://collector.test:4318/")

    with monkeypatch.context() as patched:
        patched.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
        verdict = sender.send(batch(), 0.4)

    assert verdict.outcome is Outcome.DELIVERED


def test_what_the_application_is_handling_does_not_name_our_fault(opened, sender_at):
    """A flush in an `except` clause has that exception as its context."""
    server = opened(HttpServer(http.reset))
    sender = sender_at(f"http://{server.address}/")

    try:
        raise socket.gaierror(-2, "the application's own")
    except OSError:
        verdict = sender.send(batch(), 5.0)

    assert verdict.cause == "connection_reset"


def test_a_header_may_hold_any_text(opened, sender_at):
    """What is not ASCII goes out as UTF-8."""
    server = opened(HttpServer())
    sender = sender_at(f"http://{server.address}/", headers={"x-tenant": "Łódź"})

    assert sender.send(batch(), 5.0).outcome is Outcome.DELIVERED
    assert server.requests[0].headers["x-tenant"].encode("latin-1").decode() == "Łódź"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors are counted in /proc")
def test_no_descriptor_stays_behind(opened, sender_at):
    """Whether a connection ends well, badly, by `close` or by `abandon`."""
    server = opened(HttpServer())
    answers = [http.status(200), http.status(200, connection="close"), http.reset, http.raw(b"no HTTP", then=http.END)]

    def use_a_sender(let_go):
        sender = sender_at(f"http://{server.address}/")
        for answer in answers:
            server.answer = answer
            sender.send(batch(), 5.0)
        server.answer = http.status(200)
        sender.send(batch(), 5.0)
        let_go(sender)

    before = client_sockets(server.port)
    use_a_sender(HttpSender.close)
    use_a_sender(HttpSender.abandon)

    assert client_sockets(server.port) == before


def client_sockets(port):
    """Count this process's descriptors of connections to a port."""
    count = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            copy = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue
        with copy:
            try:
                count += copy.getpeername()[1] == port
            except (OSError, IndexError):
                pass
    return count


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_waits_for_no_lock_of_its_parents(opened, sender_at):
    """Whoever held one in the parent does not exist in the child, and will not let go."""
    server = opened(HttpServer())
    sender = sender_at(f"http://{server.address}/")
    sender.send(batch(), 5.0)
    held, let_go = threading.Event(), threading.Event()

    def hold_them_all():
        with ExitStack() as stack:
            for lock in locks_below(sender):
                stack.enter_context(lock)
            held.set()
            let_go.wait(10.0)

    holder = threading.Thread(target=hold_them_all)
    holder.start()
    assert held.wait(5.0)
    child = os.fork()
    if child == 0:
        sender.abandon()
        os._exit(0 if sender.send(batch(), 5.0).outcome is Outcome.DELIVERED else 1)
    status = wait_for(child, 3.0)
    let_go.set()
    holder.join()

    assert status == 0


def locks_below(sender):
    """Return the locks that a send takes: the sender's own, and those of urllib3's queue if it has any."""
    pools = sender._manager.pools
    queues = [pools[key].pool for key in list(pools.keys())]
    found = [getattr(place, "mutex", None) for place in queues] + [getattr(sender._line, "_lock", None)]
    return [lock for lock in found if lock is not None]


def wait_for(child, seconds):
    """Return the exit status, or None after killing a child that hangs."""
    ended = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        ended.wait(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return None
