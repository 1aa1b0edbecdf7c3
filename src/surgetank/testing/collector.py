"""A real OTLP/HTTP collector for tests and demonstrations: decodes, counts by identity, misbehaves on order.

    with Collector() as collector:
        tank = surgetank.Tank(endpoint=collector.endpoint)
        ...
        collector.behave(behaviour.status(503, retry_after="2"))

or as a process of its own, `python -m surgetank.testing.collector --port 4318 --journal FILE`, with
`GET /report`, `PUT /behaviour` and `GET /health`. It needs `surgetank[testing]`.

Owns: the listening socket, the open connections, the tally, and how it behaves.
Threads: one per connection; `_lock` guards what they share.
Invariants: a request is counted before it is answered with 200, and only then.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import signal as signals
import socket
import struct
import sys
import threading
import zlib
from collections import deque
from collections.abc import Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Final

try:
    from google.protobuf.message import DecodeError
except ModuleNotFoundError:
    if __name__ != "__main__":
        raise
    sys.stderr.write("the collector decodes with the official classes: pip install 'surgetank[testing]'\n")
    sys.exit(2)
from typing_extensions import Self

from surgetank.model import Signal
from surgetank.testing.behaviour import OK, Behaviour
from surgetank.testing.journal import REQUEST_MAX, Journal, replay
from surgetank.testing.tally import REQUESTS, Tally, attribute_keys

PATHS: Final = {"/v1/traces": Signal.SPANS, "/v1/metrics": Signal.METRICS, "/v1/logs": Signal.LOGS}

# What is kept of past requests' headers.
REQUESTS_KEPT: Final = 1000
# The longest a behaviour waits for being changed before it looks again (seconds).
_GLANCE: Final = 0.05


class Collector:
    """
    A collector on a loopback port.

    Args:
        port: 0 for any free one.
        journal: A file that survives the collector's death; what it holds is counted at start.
        keep: Whether to keep decoded requests in `requests`, for comparison item by item.
    """

    def __init__(self, *, port: int = 0, journal: Path | None = None, keep: bool = False) -> None:
        self._lock = threading.Lock()
        # The lock guards everything below.
        self.tally = Tally()
        self.requests: list[tuple[Signal, Any]] = []
        """Decoded requests that were accepted, when `keep` is set."""
        self.headers: deque[dict[str, str]] = deque(maxlen=REQUESTS_KEPT)
        """The headers of the latest requests, lower-case names."""
        self.connections_made = 0
        self.requests_made = 0
        self._keep = keep
        self._behaviours: dict[Signal, Behaviour] = dict.fromkeys(Signal, OK)
        self._script: deque[Behaviour] = deque()
        self._generation = 0
        self._sockets: set[socket.socket] = set()
        for signal, body, skip in replay(journal) if journal else ():
            self.tally.add(signal, REQUESTS[signal].FromString(body), skip=skip)
        self._journal = Journal(journal) if journal else None
        self._server: _Server | None = None
        self.port = port
        self.listen_again()

    @property
    def endpoint(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_listening(self) -> bool:
        """Whether connections are accepted."""
        return self._server is not None

    def behave(self, behaviour: Behaviour, *signals: Signal) -> None:
        """Answer like this from now on, for the given signals or all; ends what hangs."""
        with self._lock:
            self._script.clear()
            self._generation += 1
            for signal in signals or Signal:
                self._behaviours[signal] = behaviour

    def script(self, behaviours: Iterable[Behaviour]) -> None:
        """Answer the next requests like this, one after the other, then as before."""
        with self._lock:
            self._script.extend(behaviours)

    def report(self) -> dict[str, Any]:
        """Return the counts as plain data."""
        with self._lock:
            report = self.tally.report()
            report["requests_made"], report["connections_made"] = self.requests_made, self.connections_made
            return report

    def stop_listening(self) -> None:
        """Refuse connections and drop those that are open, as when the process is gone."""
        server, self._server = self._server, None
        with self._lock:
            self._generation += 1
            sockets = list(self._sockets)
        if server is not None:
            server.shutdown()
            server.server_close()
        for sock in sockets:
            _shut(sock)

    def listen_again(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = _Server(self, self.port)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(_GLANCE,), name="collector", daemon=True).start()

    def close(self) -> None:
        """End."""
        self.stop_listening()
        if self._journal is not None:
            self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def next_behaviour(self, signal: Signal, headers: dict[str, str]) -> tuple[Behaviour, int]:
        """Return how to answer a request, and the generation in which that was so."""
        with self._lock:
            self.requests_made += 1
            self.headers.append(headers)
            behaviour = self._script.popleft() if self._script else self._behaviours[signal]
            return behaviour, self._generation

    def accept(self, signal: Signal, body: bytes, request: Any, skip: int) -> None:
        """Take a request: remember and count it."""
        with self._lock:
            if self._journal is not None:
                self._journal.append(signal, body, skip)
            self.tally.add(signal, request, skip=skip)
            if self._keep:
                self.requests.append((signal, request))

    def wait(self, generation: int, seconds: float) -> None:
        """Wait, but not beyond a change of behaviour or the end."""
        left = seconds
        while left > 0 and self._generation == generation and self._server is not None:
            pause = min(left, _GLANCE)
            threading.Event().wait(pause)
            left -= pause

    def opened(self, sock: socket.socket) -> None:
        """Note a connection."""
        with self._lock:
            self.connections_made += 1
            self._sockets.add(sock)

    def closed(self, sock: socket.socket) -> None:
        """Forget a connection."""
        with self._lock:
            self._sockets.discard(sock)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # Threads that hang on purpose must not be waited for.
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, collector: Collector, port: int) -> None:
        self.collector = collector
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients that vanish are what this collector is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet; without it, Nagle and delayed acks cost 40 ms a request.
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.server.collector.opened(self.connection)

    def finish(self) -> None:
        self.server.collector.closed(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""

    def do_GET(self) -> None:
        collector = self.server.collector
        if self.path == "/report":
            self._answer(200, json.dumps(collector.report()).encode(), "application/json")
        else:
            self._answer(200 if self.path == "/health" else 404, b"")

    def do_PUT(self) -> None:
        body = self._body()
        if body is None:
            return
        try:
            self.server.collector.behave(Behaviour(**json.loads(body)))
        except (TypeError, ValueError) as error:
            self._answer(400, str(error).encode())
        else:
            self._answer(200, b"")

    def do_POST(self) -> None:
        collector = self.server.collector
        body = self._body()
        if body is None:
            return
        signal = PATHS.get(self.path)
        if signal is None:
            self._answer(404, b"no such path")
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour, generation = collector.next_behaviour(signal, headers)
        collector.wait(generation, float("inf") if behaviour.hangs else behaviour.delay)
        if behaviour.hangs:
            self.close_connection = True
        elif behaviour.resets:
            self._reset()
        elif behaviour.status != 200:
            self._refuse(behaviour)
        else:
            self._take(signal, body, behaviour)

    def _body(self) -> bytes | None:
        """Return the request's body; None where it is too long, which is answered."""
        said = self.headers.get("content-length", "0")
        size = int(said) if said.isdecimal() else REQUEST_MAX + 1
        if size > REQUEST_MAX:
            self.close_connection = True
            self._answer(413, b"")
            return None
        return self.rfile.read(size)

    def _take(self, signal: Signal, body: bytes, behaviour: Behaviour) -> None:
        try:
            raw = _decompressed(body, self.headers.get("content-encoding", "identity"))
            request = REQUESTS[signal].FromString(raw)
        except (DecodeError, zlib.error, ValueError) as error:
            self._answer(400, str(error).encode())
            return
        if behaviour.max_raw_bytes is not None and len(raw) > behaviour.max_raw_bytes:
            self._answer(413, b"")
        elif behaviour.poison_key is not None and behaviour.poison_key in attribute_keys(signal, request):
            self._answer(400, b"poison")
        else:
            self.server.collector.accept(signal, raw, request, behaviour.rejects)
            self._answer(200, _partial_success(behaviour.rejects), "application/x-protobuf")

    def _refuse(self, behaviour: Behaviour) -> None:
        extra = {"Retry-After": behaviour.retry_after, "Location": behaviour.location}
        self._answer(behaviour.status, behaviour.body.encode(), headers={k: v for k, v in extra.items() if v})

    def _reset(self) -> None:
        self.close_connection = True
        # Linger for no time: closing then sends RST instead of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _answer(self, code: int, body: bytes, kind: str = "text/plain", headers: dict[str, str] | None = None) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    wbits = {"gzip": 31, "deflate": 15}.get(encoding)
    if wbits is None:
        raise ValueError(f"unknown content-encoding {encoding!r}")
    inflater = zlib.decompressobj(wbits)
    raw = inflater.decompress(body, REQUEST_MAX)
    if not inflater.eof:
        raise ValueError(f"the body is cut off, or comes to more than {REQUEST_MAX} bytes")
    return raw


def _partial_success(rejects: int) -> bytes:
    if not rejects:
        return b""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    # The three signals' responses have the same shape on the wire.
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejects
    answer.partial_success.error_message = f"{rejects} items rejected on order"
    return answer.SerializeToString()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def main(arguments: list[str] | None = None) -> None:
    """Run a collector until SIGTERM or SIGINT; prints its port as a JSON line when it is ready."""
    parser = argparse.ArgumentParser(prog="python -m surgetank.testing.collector", description=main.__doc__)
    parser.add_argument("--port", type=int, default=0, help="0, the default, for any free one")
    parser.add_argument("--journal", type=Path, help="a file of what was received, counted again at the next start")
    parser.add_argument(
        "--behaviour",
        default="{}",
        help='how to answer, such as {"status": 503}: the fields of surgetank.testing.behaviour.Behaviour as JSON',
    )
    given = parser.parse_args(arguments)
    with Collector(port=given.port, journal=given.journal) as collector:
        collector.behave(dataclasses.replace(OK, **json.loads(given.behaviour)))
        ended = threading.Event()
        for number in (signals.SIGTERM, signals.SIGINT):
            signals.signal(number, lambda *_: ended.set())
        print(json.dumps({"port": collector.port}), flush=True)
        ended.wait()
    sys.stdout.close()


if __name__ == "__main__":
    main()
