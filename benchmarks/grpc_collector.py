"""A collector over gRPC, in this process or as one of its own: counts spans by identity, goes away and comes back."""

from __future__ import annotations

import argparse
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from typing_extensions import Self

from surgetank.model import Signal
from surgetank.testing.tally import REQUESTS, Tally

_SERVICES: Final = {"TraceService": Signal.SPANS, "MetricsService": Signal.METRICS, "LogsService": Signal.LOGS}


class GrpcCollector(grpc.GenericRpcHandler):
    """
    Stands in for `surgetank.testing.collector.Collector`, as far as it is asked here.

    Args:
        port: 0 for any free one.
    """

    def __init__(self, *, port: int = 0) -> None:
        self.port = port
        self._tally = Tally()
        self._lock = threading.Lock()
        self._server: Any = None
        self.listen_again()

    def __enter__(self) -> Self:
        """Listen already."""
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.stop_listening()

    @property
    def endpoint(self) -> str:
        """The URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    def stop_listening(self) -> None:
        """Refuse connections and end those that are open."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(None).wait()

    def listen_again(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = grpc.server(ThreadPoolExecutor(4), handlers=[self], options=[("grpc.so_reuseport", 0)])
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def report(self) -> dict[str, Any]:
        """Return the counts."""
        with self._lock:
            return self._tally.report()

    def service(self, handler_call_details: Any) -> Any:
        """Return what takes a call; called by gRPC."""
        name = handler_call_details.method.split("/")[1].rpartition(".")[2]
        return grpc.unary_unary_rpc_method_handler(lambda body, _: self._take(_SERVICES[name], body))

    def _take(self, kind: Signal, body: bytes) -> bytes:
        request = REQUESTS[kind].FromString(body)
        with self._lock:
            self._tally.add(kind, request)
        return b""


def main() -> None:
    """Run one until SIGTERM; prints its port as a JSON line when it is ready."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.parse_args()
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with GrpcCollector() as collector:
        print(json.dumps({"port": collector.port}), flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
