"""Real OTLP requests of numbered spans, made with our encoder and read back with the official classes."""

import os

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags, TraceState

from surgetank.model import Batch, HeldBatch, Lane, Signal
from surgetank.otlp.compression import compress, decompress
from surgetank.otlp.spans import SpanCodec, snapshot

_RESOURCE = Resource({"service.name": "test"})
_SCOPE = InstrumentationScope("test")


def span(number, *, attributes=None, is_error=False, trace_id=0xA0, trace_state=()):
    """Return an ended span that carries `number` as its span id (plus one, for zero is no id)."""
    return ReadableSpan(
        name=f"span {number}",
        context=SpanContext(
            trace_id, number + 1, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState(trace_state)
        ),
        resource=_RESOURCE,
        attributes=attributes or {},
        status=Status(StatusCode.ERROR if is_error else StatusCode.UNSET),
        start_time=1,
        end_time=2,
        instrumentation_scope=_SCOPE,
    )


def span_batch(numbers, *, filling=0):
    """Return a sealed, gzip'd batch of numbered spans, each with so many bytes of which half are left when they are compressed."""
    request = SpanCodec().open()
    for number in numbers:
        attributes = {"filling": os.urandom(filling // 2).hex()} if filling else None
        request.add(snapshot(span(number, attributes=attributes)))
    batch = Batch(
        id="batch",
        signal=Signal.SPANS,
        lane=Lane.NORMAL,
        items=request.items,
        body=compress(request.pieces(), "gzip"),
        raw_size=request.size,
        encoding="gzip",
        created=0.0,
    )
    return HeldBatch(batch=batch, first_seq=1)


def spans_in(batch):
    """Return the spans in a batch as official messages, in order."""
    message = ExportTraceServiceRequest.FromString(decompress(batch.body, batch.encoding, batch.raw_size))
    return [span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans]


def span_numbers(batch):
    """Return the numbers of the spans in a batch, in order."""
    return [int.from_bytes(span.span_id, "big") - 1 for span in spans_in(batch)]
