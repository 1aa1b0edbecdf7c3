"""A tank without threads or sockets, and what its receiver has seen."""

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from surgetank import Signal, Tank
from surgetank.model import Outcome
from surgetank.otlp.compression import decompress
from surgetank.testing import ManualClock, ScriptedSender, delivered


class Received:
    """Decodes what was delivered."""

    def __init__(self):
        self.batches = []

    def _requests(self, signal, kind):
        return [
            kind.FromString(decompress(batch.body, batch.encoding, batch.raw_size))
            for batch in self.batches
            if batch.signal is signal
        ]

    def span_requests(self):
        return [
            [span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans]
            for request in self._requests(Signal.SPANS, ExportTraceServiceRequest)
        ]

    def spans(self):
        return [span for request in self.span_requests() for span in request]

    def logs(self):
        return [
            record
            for request in self._requests(Signal.LOGS, ExportLogsServiceRequest)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def metric_points(self, name):
        return [
            point
            for request in self._requests(Signal.METRICS, ExportMetricsServiceRequest)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in getattr(metric, metric.WhichOneof("data")).data_points
        ]


def stepped_tank(answer=None, **settings):
    """Return a tank under a manual clock, and what it delivered."""
    received = Received()
    answer = delivered() if answer is None else answer

    def receive(batch):
        verdict = answer(batch) if callable(answer) else answer
        if verdict.outcome is Outcome.DELIVERED:
            received.batches.append(batch)
        return verdict

    tank = Tank(
        is_threaded=False,
        handle_sigterm=False,
        clock=ManualClock(),
        make_sender=lambda outlet, clock: ScriptedSender(otherwise=receive),
        **settings,
    )
    return tank, received
