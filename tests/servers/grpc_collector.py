"""The collector of `surgetank.testing` as far as tests need it, over gRPC: counts by identity, goes away and comes back.

Owns: the server and the tally. Threads: gRPC's own; `_lock` guards the tally.
Invariants: a request is counted before it is answered.
"""

import threading

from servers.grpc import GrpcServer
from surgetank.model import Signal
from surgetank.testing.tally import Tally

_SERVICES = {"TraceService": Signal.SPANS, "MetricsService": Signal.METRICS, "LogsService": Signal.LOGS}


class GrpcCollector:
    """A collector on loopback, which listens from its construction on."""

    protocol = "grpc"

    def __init__(self):
        self._lock = threading.Lock()
        self._tally = Tally()
        self.requests = []
        """(signal, decoded request), in the order of their arrival."""
        self.headers = []
        """The metadata of each."""
        self._server = GrpcServer(self._take)
        self._server.listen()

    @property
    def endpoint(self):
        return f"http://{self._server.address}"

    def report(self):
        """Return the counts as plain data."""
        with self._lock:
            return self._tally.report()

    def stop_listening(self):
        self._server.stop()

    def listen_again(self):
        self._server.listen()

    def close(self):
        self._server.stop()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def _take(self, call, context):
        (signal,) = (signal for service, signal in _SERVICES.items() if service in call.method)
        request = call.request
        with self._lock:
            self._tally.add(signal, request)
            self.requests.append((signal, request))
            self.headers.append(call.metadata)
        return b""
