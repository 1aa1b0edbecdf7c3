"""An OTLP/gRPC server that notes every call, decodes it with the official classes, and answers as it is told.

Owns: the server, and the list of calls received.
Threads: gRPC's own; `calls` is appended to before the answer is given.
Invariants: it listens on the same port after a restart.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

REQUESTS = {
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": ExportTraceServiceRequest,
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export": ExportMetricsServiceRequest,
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export": ExportLogsServiceRequest,
}


@dataclass(frozen=True, kw_only=True)
class Call:
    """What arrived."""

    method: str
    metadata: dict
    body: bytes
    peer: str = field(compare=False)

    @property
    def request(self):
        """The request, decoded by the official class of its service."""
        return REQUESTS[self.method].FromString(self.body)


class GrpcServer(grpc.GenericRpcHandler):
    """
    A server on loopback.

    Args:
        answer: Called with (call, context); returns the response's bytes or aborts. Default: full success.
        credentials: What it shows and demands; without them it speaks in the clear.
        methods: Those that it knows; others are UNIMPLEMENTED.
        host: Where it listens.
    """

    def __init__(self, answer=None, *, credentials=None, methods=tuple(REQUESTS), host="127.0.0.1"):
        self._host = host
        self.answer = answer or succeed
        self.calls = []
        self.port = 0
        self._methods = methods
        self._credentials = credentials
        self._server = None

    @property
    def address(self):
        return f"{self._host}:{self.port}"

    def __enter__(self):
        self.listen()
        return self

    def __exit__(self, *error):
        self.stop()

    def listen(self):
        """Begin, on the same port as before."""
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self], options=[("grpc.so_reuseport", 0)])
        if self._credentials is None:
            self.port = self._server.add_insecure_port(self.address)
        else:
            self.port = self._server.add_secure_port(self.address, self._credentials)
        self._server.start()

    def stop(self):
        """End, and every call with it."""
        self._server.stop(None).wait()

    def service(self, details):
        """Return what handles a call; called by gRPC."""
        if details.method not in self._methods:
            return None
        metadata = dict(details.invocation_metadata)

        def handle(body, context):
            call = Call(method=details.method, metadata=metadata, body=body, peer=context.peer())
            self.calls.append(call)
            return self.answer(call, context)

        return grpc.unary_unary_rpc_method_handler(handle)


def succeed(call, context):
    """Take everything."""
    return b""


def respond(body):
    """Answer OK with these bytes."""
    return lambda call, context: body


def abort(code, details="", *, retry_after=None):
    """Answer with an error; with `retry_after` as gRPC servers do, in a `google.rpc.Status` among the trailers."""

    def answer(call, context):
        if retry_after is not None:
            info = RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_after * 1e9))
            status = Status(code=code.value[0], message=details)
            status.details.add().Pack(info)
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, details)

    return answer


class Hang:
    """Do not answer before the call has ended or `go_on` is set; `begun` tells that it is there."""

    def __init__(self):
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, call, context):
        context.add_callback(self.go_on.set)
        self.begun.set()
        self.go_on.wait(30.0)
        return b""
