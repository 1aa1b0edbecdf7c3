"""A pipeline without threads or sockets, of spans unless said otherwise, and what a receiver has seen of it."""

import random

from fakes.requests import span, span_numbers
from fakes.spools import settings
from surgetank.config import BufferConfig, Environment, Timing, resolve_limits
from surgetank.delivery.endpoint import Endpoint
from surgetank.model import Signal
from surgetank.otlp.logs import LogCodec
from surgetank.otlp.spans import SpanCodec, snapshot
from surgetank.pipeline import Pipeline
from surgetank.spool.disk import Disk
from surgetank.testing import ManualClock, ScriptedSender


class Rig:
    """A stepped pipeline under a manual clock, with a receiver that decodes what it takes."""

    def __init__(
        self,
        script=(),
        otherwise=None,
        *,
        timing=None,
        seed=0,
        is_threaded=False,
        filesystem=None,
        clock=None,
        spool=None,
        signal=Signal.SPANS,
        **limits,
    ):
        self.clock = clock or ManualClock(1000.0)
        self.filesystem = filesystem
        self.disk = None
        if filesystem is not None:
            self.disk = Disk(settings(**(spool or {})), filesystem, self.clock, slots=8)
        else:
            limits.setdefault("persistence_enabled", False)
        self.sender = ScriptedSender(script, otherwise)
        self.endpoint = Endpoint("http://collector:4318", self.clock)
        self.limits = resolve_limits(signal, BufferConfig(**limits), Environment({}))
        self.pipeline = Pipeline(
            limits=self.limits,
            timing=timing or Timing(),
            codec=LogCodec() if signal is Signal.LOGS else SpanCodec(),
            sender=self.sender,
            endpoint=self.endpoint,
            clock=self.clock,
            rng=random.Random(seed),
            is_threaded=is_threaded,
            spool=self.disk and self.disk.spools[signal],
            is_write_ahead=self.disk is None or self.disk.settings.is_write_ahead,
            dead_letters=self.disk and self.disk.dead_letters,
        )

    def offer(self, *numbers, size=0, **more):
        """Offer numbered spans, each with an attribute of `size` characters."""
        for number in numbers:
            attributes = {"payload": "x" * size} if size else None
            self.pipeline.offer(snapshot(span(number, attributes=attributes, **more)))

    def seal(self, steps=10_000):
        """Encode all that waits and seal it, letting the schedule delay pass."""
        for _ in range(steps):
            rest = self.pipeline.seal_step()
            if rest == float("inf"):
                return
            self.clock.advance(max(rest, 0.0))
        raise AssertionError("the sealer never came to rest")

    def tend(self):
        """Do what the keeper does once a second."""
        self.disk.adopt_orphans()
        self.pipeline.tend()

    def deliver(self, steps=200):
        """Send until nothing is left to send, letting time pass as the worker asks."""
        for _ in range(steps):
            rest = self.pipeline.deliver_step()
            if rest == float("inf"):
                return
            self.clock.advance(rest)
        raise AssertionError("the worker never came to rest")

    def sent_numbers(self):
        """Return the numbers in all requests that were sent, in order."""
        return [number for batch in self.sender.sent for number in span_numbers(batch)]

    @property
    def stats(self):
        return self.pipeline.stats()
