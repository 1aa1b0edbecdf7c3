"""Flush and shutdown on real sockets, with a full buffer, against endpoints that refuse, stay silent, drag or decline."""

import socket
import time
from contextlib import contextmanager

import pytest

from fakes.requests import span
from surgetank import BufferConfig, Tank
from surgetank.testing import behaviour
from surgetank.testing.collector import Collector

pytestmark = pytest.mark.slow


@contextmanager
def refusing():
    """Nobody listens there."""
    with socket.socket() as placeholder:
        placeholder.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{placeholder.getsockname()[1]}"


@contextmanager
def black_hole():
    """The kernel completes the handshake, and nobody ever reads."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def collecting(how):
    @contextmanager
    def endpoint():
        with Collector() as collector:
            collector.behave(how)
            yield collector.endpoint

    return endpoint


ENDPOINTS = {
    "refusing": refusing,
    "black hole": black_hole,
    "slow": collecting(behaviour.slow(30.0)),
    "503": collecting(behaviour.status(503)),
    "503 with a long Retry-After": collecting(behaviour.status(503, retry_after="3600")),
    "reset": collecting(behaviour.RESET),
}


@pytest.mark.parametrize("kind", ENDPOINTS)
def test_flush_and_shutdown_keep_their_deadlines(kind):
    """A flush of half a second and a shutdown of one, with a full buffer, and the books balance after each."""
    with ENDPOINTS[kind]() as endpoint:
        tank = Tank(endpoint=endpoint, handle_sigterm=False, spans=BufferConfig(max_size=2048))
        for number in range(3000):
            tank.span_processor.on_end(span(number))
        began = time.monotonic()

        assert not tank.force_flush(timeout=0.5)
        flushed = time.monotonic() - began
        assert tank.stats().spans.unaccounted == 0
        assert not tank.shutdown(timeout=1.0)
        ended = time.monotonic() - began - flushed

        stats = tank.stats().spans
        assert flushed < 0.7
        assert ended < 1.5
        assert (stats.unaccounted, stats.queued, stats.in_flight, stats.memory_bytes) == (0, 0, 0, 0)
        assert stats.dropped["shutdown"] + stats.dropped.get("queue_full", 0) == 3000


def test_a_slow_receiver_gets_everything_within_the_deadline():
    """Slow is not dead."""
    with Collector() as collector:
        collector.behave(behaviour.slow(0.3))
        tank = Tank(endpoint=collector.endpoint, handle_sigterm=False)
        for number in range(600):
            tank.span_processor.on_end(span(number))

        assert tank.force_flush(timeout=5.0)
        assert tank.shutdown(timeout=5.0)

        assert collector.report()["spans"] == {"received": 600, "unique": 600, "duplicates": 0}
