"""The delivery worker against a scripted sender: every verdict, and what becomes of the batch."""

import contextlib
import random
from contextlib import closing

import pytest

from fakes.batches import held
from fakes.requests import span_batch, span_numbers
from servers import http
from servers.http import HttpServer
from surgetank.buffer.buffer import Buffer
from surgetank.clock import SystemClock
from surgetank.config import BufferConfig, Environment, OutletConfig, Timing, resolve_limits
from surgetank.delivery.otlp_http import HttpSender
from surgetank.delivery.outlet import Outlet
from surgetank.delivery.suspicion import FAILURES_BEFORE_ASIDE, SPLIT_ITEMS_MIN
from surgetank.delivery.worker import Worker
from surgetank.model import BreakerState, Outcome, Signal, Verdict
from surgetank.reservoir import Reservoir
from surgetank.testing import (
    ManualClock,
    ScriptedSender,
    cut_off,
    delivered,
    hold,
    no_answer,
    permanent,
    retry,
    silence,
    too_large,
)

STEADY = Timing(jitter=0.0)


class Listener:
    """An observer that only remembers."""

    def __init__(self):
        self.evidence = []
        self.verdicts = []

    def heard(self, worker, evidence):
        self.evidence.append(evidence)

    def settled(self, worker, verdict):
        self.verdicts.append(verdict)


class Bench:
    """A worker on a buffer that is filled with sealed batches directly."""

    def __init__(self, script=(), otherwise=None, threshold=1000):
        self.clock = ManualClock(0.0)
        self.sender = ScriptedSender(script, otherwise)
        limits = resolve_limits(Signal.SPANS, BufferConfig(max_size=100_000), Environment({}))
        self.buffer = Buffer(limits, on_work=lambda: None)
        self.listener = Listener()
        outlet = Outlet(threshold, STEADY, random.Random(0))
        self.worker = Worker(
            Reservoir(self.buffer, self.clock), self.sender, outlet, self.listener, self.clock, timeout=10.0
        )

    def queue(self, batch):
        """Bring a sealed batch in by the front door, so that the books know it."""
        for _ in range(batch.batch.items):
            self.buffer.offer(object(), 100, is_critical=False)
        _, entries = self.buffer.take_slice(batch.batch.items)
        batch.first_seq = entries[0][2]
        self.buffer.sealed(batch, released=100 * len(entries), next_seq=None)

    def run(self, steps=1000, until=None):
        """Step, letting time pass as the worker asks, until nothing is left or `until` holds."""
        for _ in range(steps):
            if until is not None and until():
                return
            rest = self.worker.step()
            if rest == float("inf"):
                return
            self.clock.advance(rest)
        raise AssertionError(f"not done after {steps} steps")

    @property
    def stats(self):
        return self.buffer.stats(self.worker.breaker)


def test_a_delivered_batch_leaves_the_books_and_the_memory():
    """Nothing is charged for it any more."""
    bench = Bench()
    bench.queue(held(3))

    bench.run()

    stats = bench.stats
    assert (stats.delivered, stats.queued, stats.memory_bytes, stats.unaccounted) == (3, 0, 0, 0)


def test_rejected_items_of_a_partial_success_are_counted_and_not_sent_again():
    """200 with `rejected: 2` of five is three delivered, two rejected."""
    bench = Bench([delivered(rejected=2)])
    bench.queue(held(5))

    bench.run()

    assert (bench.stats.delivered, bench.stats.rejected) == (3, 2)
    assert len(bench.sender.sent) == 1


def test_the_same_bytes_are_sent_on_every_attempt():
    """A retry is the same batch with the same identifier."""
    bench = Bench([retry(), silence(), retry()])
    bench.queue(held(2, body=b"payload"))

    bench.run()

    assert len(bench.sender.sent) == 4
    assert len({id(batch) for batch in bench.sender.sent}) == 1
    assert bench.stats.delivered == 2


def test_an_item_in_flight_is_in_the_books_as_such():
    """Between lease and verdict the items are neither queued nor gone."""
    seen = []

    def look(batch):
        seen.append(bench.stats)
        return delivered()

    bench = Bench([look])
    bench.queue(held(4))

    bench.run()

    assert (seen[0].in_flight, seen[0].queued, seen[0].unaccounted) == (4, 0, 0)
    assert seen[0].memory_bytes > 0


def test_batches_leave_oldest_first():
    """First in, first out, through retries too."""
    bench = Bench([retry(), delivered(), silence()])
    for name in ("one", "two", "three"):
        bench.queue(held(name=name))

    bench.run()

    order = [batch.id for batch in bench.sender.sent]
    assert order == ["one", "one", "two", "two", "three"]


def test_a_batch_that_is_too_large_is_sent_in_halves_until_it_fits():
    """413 above three items: eight arrive as parts, none is lost, none twice."""
    bench = Bench(otherwise=lambda batch: too_large() if batch.items > 3 else delivered())
    bench.queue(span_batch(range(8)))

    bench.run()

    assert bench.stats.delivered == 8
    assert [batch.items for batch in bench.sender.sent] == [8, 4, 2, 2, 4, 2, 2]


def test_a_single_item_that_is_too_large_is_rejected():
    """There is nothing left to cut."""
    bench = Bench(otherwise=too_large())
    bench.queue(span_batch(range(4)))

    bench.run()

    assert (bench.stats.delivered, bench.stats.rejected, bench.stats.queued) == (0, 4, 0)


@pytest.mark.parametrize("poison", [{0}, {7}, {3, 4}, {1, 6}, set(range(4, 8))])
def test_poison_items_are_rejected_and_their_neighbours_delivered(poison):
    """A receiver that answers 400 to any request with a poison item gets all the others."""
    from fakes.requests import span_numbers

    arrived = []

    def receiver(batch):
        numbers = span_numbers(batch)
        if poison & set(numbers):
            return permanent()
        arrived.extend(numbers)
        return delivered()

    bench = Bench(otherwise=receiver)
    bench.queue(span_batch(range(8)))

    bench.run()

    assert arrived == [n for n in range(8) if n not in poison]
    assert (bench.stats.delivered, bench.stats.rejected) == (8 - len(poison), len(poison))


def test_a_receiver_that_refuses_everything_does_not_draw_a_request_per_item():
    """Patience runs out after 64 single rejections, and sooner the next time."""
    bench = Bench(otherwise=permanent())
    bench.queue(span_batch(range(512)))
    bench.run()
    first = len(bench.sender.sent)
    bench.queue(span_batch(range(512)))
    bench.run()
    second = len(bench.sender.sent) - first

    assert bench.stats.rejected == 1024
    assert first < 200
    assert second < 60


def test_a_batch_that_is_not_a_request_is_rejected_whole():
    """Bytes that cannot be cut (a defect, or damage) must not block the line for ever."""
    bench = Bench(otherwise=permanent())
    bench.queue(held(2, body=b"\xff\xff\xff"))

    bench.run()

    assert bench.stats.rejected == 2


def test_a_batch_that_is_given_up_as_a_whole_is_rejected_uncut_and_counts_as_a_failure():
    """A way that never says why it fails gives no reason to look for one item."""
    given_up = Verdict(outcome=Outcome.REJECTED, cause="FAILURE")
    bench = Bench(otherwise=given_up, threshold=2)
    bench.queue(span_batch([1, 2, 3]))
    bench.queue(span_batch([4, 5]))

    bench.run()

    assert (bench.stats.rejected, bench.stats.queued) == (5, 0)
    assert len(bench.sender.sent) == 2
    assert bench.worker.breaker is BreakerState.OPEN


@pytest.mark.parametrize(
    "fault", [retry(), hold(), cut_off(), no_answer()], ids=["refused", "held", "reset", "timeout"]
)
def test_one_batch_that_keeps_failing_does_not_block_the_others(fault):
    """After three failures it steps aside; after enough strikes it is cut like poison."""
    bench = Bench(otherwise=lambda batch: fault if 666 in span_numbers(batch) else delivered())
    bench.queue(span_batch([665, 666]))
    for number in range(20):
        bench.queue(span_batch([number]))
    bench.run(until=lambda: bench.stats.delivered == 20)
    assert len(bench.sender.sent) <= 20 + FAILURES_BEFORE_ASIDE
    for number in range(100, 120):
        bench.run(until=lambda end=1000 * (number - 98): bench.clock.monotonic() > end, steps=100_000)
        bench.queue(span_batch([number]))
    bench.run(steps=100_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (41, 1)


def test_a_batch_that_times_out_again_and_again_is_sent_in_halves():
    """A receiver that is too slow for 512 spans in ten seconds takes a few of them; it does not get the same ones for ever."""
    bench = Bench(otherwise=lambda batch: no_answer() if batch.items > 100 else delivered())
    bench.queue(span_batch(range(512)))

    bench.run(steps=10_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (512, 0)
    assert len(bench.sender.sent) <= 3 * 7 + 8


def test_an_outage_without_answers_neither_rejects_nor_crumbles_anything():
    """However long: nothing gets through, so nothing is taken for poison, and parts stay at a size worth a request."""
    bench = Bench([no_answer()] * 500 + [cut_off()] * 500, threshold=5)
    for number in range(4):
        bench.queue(span_batch(range(number * 512, number * 512 + 512)))

    bench.run(steps=100_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (2048, 0)
    assert min(batch.items for batch in bench.sender.sent) >= SPLIT_ITEMS_MIN


@pytest.mark.parametrize("fault", [hold(), cut_off(), no_answer(), retry()])
def test_on_a_network_that_drops_every_second_request_nothing_is_lost(fault):
    """A bad network fails good batches, too, but not the same one each time."""
    rng = random.Random(7)
    bench = Bench(otherwise=lambda batch: fault if rng.random() < 0.5 else delivered())
    for number in range(200):
        bench.queue(span_batch([number]))

    bench.run(steps=100_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (200, 0)


@pytest.mark.parametrize("fault", [retry(), hold(), cut_off(), no_answer()])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_receiver_that_is_overloaded_for_an_hour_costs_nothing(fault, share):
    """Most fail while some get through: that speaks of the receiver, and of no batch."""
    rng = random.Random(3)
    is_over = False
    bench = Bench(otherwise=lambda batch: fault if not is_over and rng.random() < share else delivered())
    for number in range(400):
        bench.queue(span_batch([number]))
        bench.run(until=lambda end=10.0 * number: bench.clock.monotonic() >= end, steps=100_000)
        bench.clock.advance(max(0.0, 10.0 * number - bench.clock.monotonic()))
    is_over = True
    bench.run(steps=100_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (400, 0)


@pytest.mark.parametrize("after", [0.0, 1.0, 30.0])
def test_one_batch_that_is_put_off_again_and_again_neither_blocks_the_others_nor_is_rejected(after):
    """A receiver with a limit of bytes a second says "later" to what exceeds it, each time; in halves it takes it."""
    bench = Bench(otherwise=lambda batch: retry(after=after) if batch.items > 40 else delivered())
    bench.queue(span_batch(range(70)))
    for number in range(20):
        bench.queue(span_batch([number]))
    bench.run(until=lambda: bench.stats.delivered == 20)
    assert len(bench.sender.sent) <= 20 + FAILURES_BEFORE_ASIDE
    for number in range(100, 120):
        bench.run(until=lambda end=1000 * (number - 98): bench.clock.monotonic() > end, steps=100_000)
        bench.queue(span_batch([number]))
    bench.run(steps=100_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (110, 0)


@pytest.mark.parametrize("cause", ["504", "408", "DEADLINE_EXCEEDED"])
def test_a_batch_that_times_out_behind_a_gateway_is_sent_in_halves_too(cause):
    """The gateway answers where the receiver does not: the same 512 spans would go out for ever."""
    late = Verdict(outcome=Outcome.RETRY, cause=cause)
    bench = Bench(otherwise=lambda batch: late if batch.items > 100 else delivered())
    bench.queue(span_batch(range(512)))

    bench.run(steps=10_000)

    assert (bench.stats.delivered, bench.stats.rejected) == (512, 0)
    assert len(bench.sender.sent) <= 3 * 7 + 8


@pytest.mark.parametrize("kind", [MemoryError, RuntimeError, KeyboardInterrupt])
def test_a_batch_that_we_fail_on_ourselves_does_not_block_the_others(monkeypatch, kind):
    """A defect of ours, or too little memory to cut this one batch up: it steps aside, and is sent again."""

    def broken(held, outcome):
        raise kind("injected")

    bench = Bench(otherwise=lambda batch: too_large() if batch.items > 1 else delivered())
    monkeypatch.setattr(bench.worker._dissector, "dissect", broken)
    bench.queue(span_batch([1, 2]))
    for number in range(10, 20):
        bench.queue(span_batch([number]))
    for _ in range(60):
        with contextlib.suppress(kind):
            bench.clock.advance(min(bench.worker.step(), 0.1))

    assert bench.stats.delivered == 10
    monkeypatch.undo()
    bench.run()
    assert (bench.stats.delivered, bench.stats.unaccounted) == (12, 0)


RECEIVERS = {
    "resets the connection": http.reset,
    "ends the connection": lambda sock, request: http.END,
    "hangs": http.hang,
    "answers 503": http.status(503),
    "asks for patience": http.status(429, retry_after="1"),
    "answers 504": http.status(504),
    "wants credentials": http.status(401),
    "answers with a page": http.status(200, b"<html>", content_type="text/html"),
    "speaks nonsense": http.raw(b"nonsense\r\n\r\n", then=http.END),
}


@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("answer", RECEIVERS)
def test_a_real_receiver_that_fails_on_one_batch_gets_the_others(opened, authority, answer, is_secure):
    """One bad batch, fifty good ones, and a server that cannot stand the bad one."""

    def receive(sock, request):
        bad = request.headers["surgetank-batch-id"].startswith("bad")
        return (RECEIVERS[answer] if bad else http.status(200))(sock, request)

    server = opened(HttpServer(receive, tls=authority.server_context() if is_secure else None))
    bench = bench_to(server, opened, authority if is_secure else None)
    bench.queue(held(2, name="bad"))
    for number in range(50):
        bench.queue(held(1, name=f"good-{number}"))

    bench.run(until=lambda: bench.stats.delivered == 50)

    assert len([request for request in server.requests if request.headers["surgetank-batch-id"] == "bad"]) <= 5


class Cutter(HttpServer):
    """Ends the connection of a large request before it has read it."""

    def _read(self, reader, number):
        request = super()._read(Head(reader), number)
        if request is None or int(request.headers["content-length"]) > 1_000_000:
            return None
        reader.read(int(request.headers["content-length"]))
        return request


class Head:
    """Of a request, with nothing behind it."""

    def __init__(self, reader):
        self.readline = reader.readline

    def read(self, size):
        """Leave the body where it is."""
        return b""


@pytest.mark.parametrize("is_secure", [False, True], ids=["http", "https"])
def test_a_real_receiver_that_cuts_a_request_off_while_it_is_sent_gets_the_others(opened, authority, is_secure):
    """With TLS the error looks like one of the handshake; but there was a connection, and the request was on it."""
    server = opened(Cutter(tls=authority.server_context() if is_secure else None))
    bench = bench_to(server, opened, authority if is_secure else None)
    bench.queue(held(2, name="bad", body=bytes(8_000_000)))
    for number in range(50):
        bench.queue(held(1, name=f"good-{number}"))

    bench.run(until=lambda: bench.stats.delivered == 50)

    assert len(bench.listener.verdicts) <= 50 + 5


def bench_to(server, opened, authority=None):
    """Return a bench that sends to a real server."""
    bench = Bench()
    url = f"{'https' if authority else 'http'}://{server.address}/"
    settings = OutletConfig(url=url, proxy="", certificate_file=authority and authority.certificate_file)
    bench.worker._sender, bench.worker._timeout = opened(closing(HttpSender(settings, SystemClock()))), 0.2
    return bench


def test_in_an_outage_no_batch_is_taken_for_poison():
    """Refusals count against a batch only when others get through meanwhile."""
    bench = Bench([retry()] * 200, threshold=10)
    for number in range(4):
        bench.queue(span_batch([number]))

    bench.run()

    assert (bench.stats.delivered, bench.stats.rejected) == (4, 0)


def test_a_hold_opens_the_breaker_at_once_and_keeps_the_batch():
    """401 is not an attempt to repeat soon; people repair it."""
    bench = Bench([hold()])
    bench.queue(held(2))

    bench.worker.step()

    assert bench.worker.breaker is BreakerState.OPEN
    assert bench.stats.queued == 2


def test_while_the_breaker_is_open_nothing_is_sent():
    """One attempt per cooldown, as a probe."""
    bench = Bench(otherwise=silence(), threshold=2)
    bench.queue(held())
    for _ in range(10_000):
        rest = bench.worker.step()
        bench.clock.advance(max(rest, 0.01))
        if bench.clock.monotonic() > 300:
            break

    # 2 to open it, then probes after 1, 2, 4, 8, 16 and then every 30 seconds.
    assert len(bench.sender.sent) <= 2 + 5 + 300 // 30


def test_a_sender_that_raises_costs_neither_the_batch_nor_the_thread():
    """A defect in the sender is a failed attempt."""

    def broken(batch):
        raise OSError("defect")

    bench = Bench([broken])
    bench.queue(held(2))

    bench.run()

    assert bench.listener.verdicts[0].cause == "OSError"
    assert bench.stats.delivered == 2


def test_a_verdict_that_claims_too_many_rejections_is_not_believed():
    """A receiver cannot reject more than it was sent."""
    bench = Bench([Verdict(outcome=Outcome.DELIVERED, cause="200", rejected=99)])
    bench.queue(held(2))

    bench.run()

    assert (bench.stats.delivered, bench.stats.rejected, bench.stats.unaccounted) == (0, 2, 0)


def test_no_attempt_outlasts_a_shutdown_deadline():
    """The sender is given what is left, and a little at least."""
    bench = Bench([retry(), retry(), retry()])
    bench.queue(held())
    bench.worker.hurry(deadline=0.7)

    bench.run()

    assert bench.sender.timeouts[0] == pytest.approx(0.7)
    assert bench.sender.timeouts[1] == pytest.approx(0.2)
    assert bench.sender.timeouts[-1] == pytest.approx(0.05)


def test_a_lease_that_was_given_up_is_void():
    """An answer that comes after the shutdown deadline changes nothing."""

    def too_late(batch):
        bench.buffer.abandon()
        return delivered()

    bench = Bench([too_late])
    bench.queue(held(3))

    bench.worker.step()

    assert (bench.stats.delivered, dict(bench.stats.dropped), bench.stats.unaccounted) == (0, {"shutdown": 3}, 0)
