"""The strategy `sampling`, all the way: what a receiver can conclude from what it gets."""

import random

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource

from fakes.pipelines import Rig
from fakes.requests import span, spans_in
from surgetank.buffer.sampling import LOOK_EVERY, STEPS
from surgetank.model import Signal
from surgetank.otlp import logs
from surgetank.otlp.compression import decompress
from surgetank.otlp.sdk import snapshot
from surgetank.testing import delivered, silence
from surgetank.testing.filesystem import MemoryFilesystem

ALWAYS = 2**56 - 1
NEVER = 1


def sampling(**limits):
    """Return a rig that samples, with a thousand spans and room for large batches of them."""
    return Rig(**{"max_size": 1000, "drop_strategy": "sampling", "circuit_breaker_threshold": 10_000, **limits})


def fill(rig, part):
    """Fill a rig up to a part of its items with spans that are never thinned out."""
    while rig.stats.queued < part * rig.limits.max_size:
        rig.offer(1_000_000, trace_id=ALWAYS)
    # It is looked at now and then, not for each.
    rig.clock.advance(LOOK_EVERY)


def received(rig):
    """Return the spans that were sent as official messages."""
    return [message for batch in rig.sender.sent for message in spans_in(batch)]


def probability(message):
    """Return the share of its like that a span says is kept."""
    for member in message.trace_state.split(","):
        key, _, value = member.partition("=")
        if key == "ot":
            return 1 - int(dict(part.split(":") for part in value.split(";"))["th"].ljust(14, "0"), 16) / 2**56
    return 1.0


def test_nothing_is_thinned_out_below_half_full():
    """And what is kept does not look like a sample."""
    rig = sampling()
    rig.offer(*range(500), trace_id=NEVER)

    rig.pipeline.force_flush(5.0)

    assert rig.stats.delivered == 500
    assert not any(message.trace_state for message in received(rig))


@pytest.mark.parametrize("level", range(1, len(STEPS) + 1))
def test_what_is_kept_says_how_much_is(level):
    """One in two at the first step, one in 32 at the last."""
    rig = sampling()
    fill(rig, STEPS[level - 1])
    rig.offer(1, trace_id=ALWAYS)
    rig.offer(2, trace_id=NEVER)

    rig.pipeline.force_flush(5.0)

    assert probability(received(rig)[-1]) == 0.5**level
    assert dict(rig.stats.dropped) == {"sampled": 1}
    assert rig.stats.unaccounted == 0


def test_what_others_have_written_into_the_tracestate_is_kept():
    """In its order, behind ours."""
    rig = sampling()
    fill(rig, 0.5)
    rig.offer(1, trace_id=NEVER, trace_state=[("congo", "t61"), ("ot", "rv:fffffffffffff0"), ("rojo", "1")])
    rig.offer(2, trace_id=NEVER, trace_state=[("ot", "th:ff"), ("rojo", "1")])
    before = rig.stats.memory_bytes

    rig.pipeline.force_flush(5.0)

    states = [message.trace_state for message in received(rig)[-2:]]
    assert states == ["ot=rv:fffffffffffff0;th:8,congo=t61,rojo=1", "ot=th:ff,rojo=1"]
    assert before > 0


def traces(count, rng):
    """Return numbered spans of so many traces, one to five each, those under way at the same time mixed up."""
    plan = []
    for number in range(count):
        trace_id = rng.getrandbits(128)
        plan += [(number + rng.expovariate(0.02), trace_id) for _ in range(rng.randint(1, 5))]
    plan.sort()
    return [(number, trace_id, rng.random() < 0.01) for number, (_, trace_id) in enumerate(plan)]


def deliver(rig, items):
    """Send batches until at least so many items more have arrived over the calls so far."""
    rig.allowed = getattr(rig, "allowed", 0) + items
    for _ in range(100):
        if rig.stats.delivered >= rig.allowed or not rig.pipeline._buffer.has_queued():
            rig.allowed = min(rig.allowed, rig.stats.delivered + 100)
            return
        rig.pipeline.deliver_step()


def test_counts_that_are_estimated_from_the_kept_spans_are_right():
    """Twenty thousand traces under load that comes and goes: within four standard deviations."""
    rng = random.Random(20)
    rig = sampling(max_export_batch_size=100)
    template = snapshot(span(0))
    plan, passed = traces(20_000, rng), {}
    for number, trace_id, is_error in plan:
        rig.pipeline.offer(
            template._replace(trace_id=trace_id, span_id=number + 1, status_code=2 if is_error else 0, status=None)
        )
        share = 1.0 if is_error else 0.5**rig.pipeline._thinning.level
        passed.setdefault(trace_id, []).append(share)
        if number % 50 == 0:
            rig.clock.advance(0.05)
            for _ in range(20):
                rig.pipeline.seal_step()
            # The receiver takes by turns a sixteenth and twice as much as what comes.
            deliver(rig, 100 if number // 12_000 % 2 else 3)
    rig.pipeline.force_flush(60.0)

    assert set(rig.stats.dropped) == {"sampled"}
    estimate = sum(1 / probability(message) for message in received(rig))
    # Two spans of one trace are kept together as far as the rarer of them is.
    variance = sum(1 / max(one, other) - 1 for shares in passed.values() for one in shares for other in shares)
    levels = {share for shares in passed.values() for share in shares}
    assert len(levels) >= 4
    assert rig.stats.dropped["sampled"] > len(plan) / 10
    assert abs(estimate - len(plan)) < 4 * variance**0.5


def interleaved(rng, count):
    """Return so many traces of three spans each, in three rounds."""
    trace_ids = [rng.getrandbits(128) for _ in range(count)]
    return [(3 * index + part, trace_id) for part in range(3) for index, trace_id in enumerate(trace_ids)]


def spans_by_trace(rig):
    found = {}
    for message in received(rig):
        found.setdefault(int.from_bytes(message.trace_id, "big"), []).append(message)
    found.pop(ALWAYS, None)
    return found


def test_a_steady_level_tears_no_trace():
    """Its spans go or stay together."""
    rig = sampling(max_size=10_000, otherwise=delivered())
    fill(rig, 0.5)
    plan = interleaved(random.Random(4), 300)
    for number, trace_id in plan:
        rig.offer(number, trace_id=trace_id)
    assert rig.pipeline._thinning.level == 1

    rig.pipeline.force_flush(60.0)

    kept = spans_by_trace(rig)
    assert 100 < len(kept) < 200
    assert all(len(messages) == 3 for messages in kept.values())
    assert rig.stats.dropped == {"sampled": 3 * (300 - len(kept))}


def test_a_rising_level_affects_only_traces_that_have_begun():
    """Those that begin later go or stay as a whole, and of those before, the ones that would have stayed are whole too."""
    rig = sampling(max_size=10_000)
    rng = random.Random(5)
    early, late = interleaved(rng, 100), interleaved(rng, 100)
    for number, trace_id in early[:100]:
        rig.offer(number, trace_id=trace_id)
    fill(rig, 0.55)
    for number, trace_id in [*early[100:], *late]:
        rig.offer(number, trace_id=trace_id)
    assert rig.pipeline._thinning.level == 1

    rig.pipeline.force_flush(60.0)

    kept = spans_by_trace(rig)
    for trace_id in {trace_id for _, trace_id in early}:
        assert len(kept[trace_id]) == (3 if trace_id % 2**56 >= 2**55 else 1)
    for trace_id in {trace_id for _, trace_id in late}:
        assert len(kept.get(trace_id, ())) == (3 if trace_id % 2**56 >= 2**55 else 0)


def test_critical_spans_are_never_thinned_out():
    """Nor marked as if they had been; they give way at the wall only, when nothing else is left."""
    rig = sampling(max_size=100, otherwise=silence())
    fill(rig, 0.95)
    rig.offer(*range(95), trace_id=NEVER, is_error=True)
    assert rig.stats.dropped == {"queue_full": 90}
    rig.offer(*range(100, 110), trace_id=NEVER)
    assert rig.stats.dropped == {"queue_full": 90, "sampled": 10}

    rig.sender.otherwise = delivered()
    rig.clock.advance(100.0)
    rig.pipeline.force_flush(60.0)

    kept = [message for message in received(rig) if message.trace_id == NEVER.to_bytes(16, "big")]
    assert {int.from_bytes(message.span_id, "big") - 1 for message in kept} == set(range(95))
    assert not any(message.trace_state for message in kept)


def test_what_is_on_disk_too_does_not_count_as_filling():
    """It makes room without a loss, so that there is nothing to thin out for."""
    rig = sampling(max_size=320, filesystem=MemoryFilesystem(), otherwise=silence(), max_export_batch_size=32)
    for start in range(0, 1000, 10):
        rig.offer(*range(start, start + 10), trace_id=NEVER)
        rig.seal()

    assert not rig.stats.dropped
    assert rig.stats.spooled > 600


def test_what_cannot_be_read_is_not_counted_as_sampled():
    """But as what it is."""
    rig = sampling()
    fill(rig, 0.9)
    rig.pipeline.offer(object())
    rig.pipeline.force_flush(5.0)

    assert rig.stats.dropped == {"unencodable": 1}


def test_an_offer_from_a_signal_handler_is_counted_when_its_time_comes():
    """The buffer may be in the middle of anything."""
    rig = sampling()
    fill(rig, 0.5)
    buffer = rig.pipeline._buffer
    with buffer._lock, buffer._section:
        offered = buffer._books.offered
        rig.offer(1, trace_id=NEVER)
        assert buffer._books.offered == offered

    assert rig.stats.dropped == {"sampled": 1}
    assert rig.stats.unaccounted == 0


def test_after_shutdown_that_is_the_reason():
    """Even of what would have been thinned out."""
    rig = sampling()
    rig.pipeline.shutdown(1.0)
    rig.offer(1, trace_id=NEVER)

    assert rig.stats.dropped == {"already_shutdown": 1}


def test_a_forked_child_keeps_everything_again():
    """Its buffer is empty."""
    rig = sampling()
    fill(rig, 0.9)
    rig.offer(1, trace_id=NEVER)
    assert rig.stats.dropped == {"sampled": 1}

    rig.pipeline.after_fork_in_child()
    rig.offer(1, trace_id=NEVER)

    assert not rig.stats.dropped


@pytest.mark.parametrize("strategy", ["oldest", "newest"])
def test_other_strategies_do_not_even_look(strategy):
    """Their offers go straight to the buffer."""
    rig = Rig(drop_strategy=strategy)

    assert rig.pipeline._thinning is None
    assert rig.pipeline._offer == rig.pipeline._buffer.offer


def test_logs_go_by_severity_and_stay_with_their_trace():
    """DEBUG is thinned out while INFO is not yet, by the same traces as the spans are."""
    rig = sampling(signal=Signal.LOGS)
    rng = random.Random(6)
    trace_ids = [rng.getrandbits(128) for _ in range(10)]

    def offer(body, severity, trace_id):
        record = LogRecord(observed_timestamp=1, body=body, severity_number=severity, trace_id=trace_id, span_id=1)
        rig.pipeline.offer(logs.snapshot(ReadWriteLogRecord(record, resource=Resource({}))))

    for number in range(510):
        offer(f"filler {number}", SeverityNumber.WARN, ALWAYS)
    for number, trace_id in enumerate(trace_ids * 2):
        for severity in (SeverityNumber.DEBUG, SeverityNumber.INFO, SeverityNumber.ERROR):
            offer(f"{number} {severity.name}", severity, trace_id)
    rig.pipeline.force_flush(5.0)

    bodies = {
        record.body.string_value
        for batch in rig.sender.sent
        for resource in ExportLogsServiceRequest.FromString(
            decompress(batch.body, batch.encoding, batch.raw_size)
        ).resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
        if not record.body.string_value.startswith("filler")
    }
    wanted = {f"{number} {name}" for number in range(20) for name in ("INFO", "ERROR")}
    wanted |= {f"{number} DEBUG" for number in range(20) if trace_ids[number % 10] % 2**56 >= 2**55}
    assert bodies == wanted
    assert rig.stats.dropped == {"sampled": 510 + 60 - 510 - len(wanted)}
