"""An HTTP/1.1 server that notes every request down to its order on the wire, and answers as it is told.

Owns: the list of requests received.
Threads: one for each connection; `requests` is appended to before the answer is sent.
Invariants: what is no request ends the connection and stands in `garbled`.
"""

import socket
import struct
import threading
from dataclasses import dataclass

from servers.loopback import Loopback


@dataclass(frozen=True, kw_only=True)
class Request:
    """One request as it came over the wire."""

    connection: int
    method: str
    target: str
    version: str
    headers: dict
    """By lower-case name; a request in which a name comes twice counts as garbled."""
    body: bytes


class HttpServer(Loopback):
    """
    A server whose answers are functions of (socket, request); see those below.

    Args:
        answer: How every request is answered, until `answer` is set to something else.
        outside: What `Loopback` takes.
    """

    def __init__(self, answer=None, **outside):
        super().__init__(self._converse, **outside)
        self.answer = answer or status(200)
        self.requests = []
        self.garbled = []
        self.ended = threading.Semaphore(0)
        """Released once for each connection that is over."""

    def _converse(self, sock, number):
        reader = sock.makefile("rb")
        try:
            while (request := self._read(reader, number)) is not None:
                self.requests.append(request)
                if self.answer(sock, request) is END:
                    return
        finally:
            reader.close()
            # Before the semaphore tells of it, so that whoever waited finds the connection ended.
            sock.close()
            self.ended.release()

    def _read(self, reader, number):
        head = read_head(reader)
        if not head:
            return None
        try:
            method, target, version = head[0].split(" ")
            headers = parse_headers(head[1:])
        except ValueError:
            self.garbled.append(head)
            return None
        body = reader.read(int(headers.get("content-length", 0)))
        return Request(connection=number, method=method, target=target, version=version, headers=headers, body=body)


def read_head(reader):
    """Return the lines up to the empty one; none at all when the peer is gone."""
    lines = []
    while (line := reader.readline()) not in (b"\r\n", b""):
        lines.append(line.rstrip(b"\r\n").decode("latin-1"))
    return lines


def parse_headers(lines):
    """Return the headers by lower-case name; raises ValueError for a line that is none, and for one that is repeated."""
    headers = {}
    for line in lines:
        name, value = line.split(": ", 1)
        if name.lower() in headers:
            raise ValueError(f"{name} twice")
        headers[name.lower()] = value
    return headers


# What an answer returns when the connection shall end with it.
END = object()


def status(code, body=b"", **headers):
    """Answer properly; `retry_after="1"` becomes the header `retry-after: 1`."""
    lines = [f"HTTP/1.1 {code} X", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return raw("\r\n".join([*lines, "", ""]).encode() + body)


def raw(data, *, then=None):
    """Send these bytes, whatever they are; `then` is END or None."""

    def answer(sock, request):
        sock.sendall(data)
        return then

    return answer


def hang(sock, request):
    """Never answer; returns when the connection ends."""
    while sock.recv(4096):
        pass
    return END


def reset(sock, request):
    """End the connection with an RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return END


def one_after_the_other(*answers):
    """Answer each request by the next of these; the last one stays."""
    waiting = list(answers)

    def answer(sock, request):
        return (waiting.pop(0) if len(waiting) > 1 else waiting[0])(sock, request)

    return answer


class Drip:
    """Begin with `start` and go on without end, a byte every 10 ms; `begun` is set by the first."""

    def __init__(self, start):
        self._start = start
        self.begun = threading.Event()
        self._pause = threading.Event()

    def __call__(self, sock, request):
        sock.sendall(self._start)
        while True:
            sock.sendall(b"z")
            self.begun.set()
            self._pause.wait(0.01)


class Hang:
    """Like `hang`, but tells when the request is there."""

    def __init__(self):
        self.begun = threading.Event()

    def __call__(self, sock, request):
        self.begun.set()
        return hang(sock, request)
