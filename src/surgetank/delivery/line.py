"""The one connection of a sender: dialled and timed by us, cut from any thread, forgotten in a forked child.

Owns: the connection's descriptors, and the moment by which an attempt must be over.
Threads: `cut` from any; `forget` in a forked child; the rest by the thread that sends.
Invariants: the second descriptor is open exactly as long as the connection may be read from;
nothing here waits for a lock that a forked child could find taken.
"""

from __future__ import annotations

import codecs
import http.client
import os
import queue
import select
import socket
from collections.abc import Iterable
from typing import Any, Final

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError

from surgetank import threads
from surgetank.model import Clock

# `getaddrinfo` looks this codec up when it is first given a name, and that is an import: a fork in the middle
# of it would leave the child an import lock that is never released, or a codec that is said not to exist.
codecs.lookup("idna")

# A socket's time-out is never 0, which would mean "do not wait" (seconds).
_WAIT_MIN: Final = 0.001
# Of one answer; headers are limited to 100, and lines to this length, by `http.client`.
_INTERIM_MAX: Final = 16
_TRAILERS_MAX: Final = 100
_LINE_MAX: Final = 65_536


class Line:
    """
    The connection of one sender, as whoever may have to cut it knows it, and the time that an attempt has left.

    It holds a second descriptor of the connection: TLS takes the socket away from whoever opened it, and the number of
    a descriptor that urllib3 closes may be another file's a moment later.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deadline = float("inf")
        self._identity: tuple[int, int] | None = None
        """Of the connection, by which it is known from whatever else has its descriptor's number by now."""
        self._sock: socket.socket | None = None
        """What is read from: with TLS, if there is any."""
        # Guards everything below. Re-entrant, for signal handlers.
        self._lock = threads.new_rlock()
        self._handle: socket.socket | None = None
        self.is_cut = False
        self.is_up = False
        """Whether there was a connection to send a request on: dialled, through a proxy's tunnel if need be, and with its TLS."""

    def begin(self, timeout: float) -> None:
        """An attempt begins, and has so many seconds."""
        self._deadline = self._clock.monotonic() + timeout
        self.is_cut = False
        self.let_go_of_lost()

    def end(self) -> None:
        """An attempt is over; let go of a connection that its answer has ended."""
        if self._sock is None or self._sock.fileno() < 0:
            self.drop()

    def drop(self) -> None:
        """Let go of the connection, whatever urllib3 still does with it."""
        self.let_go_of_lost()
        self.is_up = False
        self._sock = None
        self._hold(None)

    def time_left(self) -> float:
        """Seconds, never none at all."""
        return max(_WAIT_MIN, self._deadline - self._clock.monotonic())

    def may_wait(self) -> bool:
        """Have the next read end in time; False when it is too late for one."""
        if self._sock is not None and self._sock.fileno() >= 0:
            self._sock.settimeout(self.time_left())
        return self._clock.monotonic() < self._deadline

    def listen(self, sock: socket.socket) -> None:
        """Answers come from there."""
        self._sock = sock

    def cut(self) -> None:
        """Shut the connection down, in whatever state it is."""
        with self._lock:
            self.is_cut = True
            if self._handle is not None and not self._is_lost(self._handle):
                try:
                    self._handle.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass  # The peer did that already.

    def forget(self) -> None:
        """Close the descriptors in a forked child, without the lock, which a thread of the parent may have held."""
        self._detach_lost()
        for sock in (self._handle, self._sock):
            inner = _inner(sock)
            if inner is not None and (descriptor := inner.detach()) >= 0:
                socket.close(descriptor)

    def dial(self, host: str, port: int, options: Iterable[Any]) -> socket.socket:
        """
        Connect to the first address that answers, each having its share of the time that is left.

        Raises:
            OSError: None did, or the line was cut.
        """
        self.drop()
        # Under gevent, too, our threads wait in the operating system and not in a hub.
        new_socket: type[socket.socket] = threads.native("socket", "socket")
        addresses = threads.native("socket", "getaddrinfo")(host.strip("[]"), port, type=socket.SOCK_STREAM)
        fault: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
        for index, (family, kind, protocol, _, address) in enumerate(addresses):
            sock = new_socket(family, kind, protocol)
            try:
                for option in options:
                    sock.setsockopt(*option)
                sock.settimeout(self.time_left() / (len(addresses) - index))
                self._identity = _identity(sock)
                self._hold(sock)
                sock.connect(address)
                sock.settimeout(self.time_left())
            except OSError as error:
                sock.close()
                fault = error
            else:
                return sock
            if self.is_cut:
                break
        self.drop()
        raise fault

    def _is_lost(self, sock: socket.socket) -> bool:
        try:
            return _identity(sock) != self._identity
        except OSError:
            return True

    def let_go_of_lost(self) -> None:
        """
        Forget descriptors that the application has closed, as daemons close all, without closing what has their numbers now.

        urllib3 has the same socket, and would send the next request into a file of the application's.
        """
        with self._lock:
            self._detach_lost()

    def _detach_lost(self) -> None:
        for sock in (self._handle, self._sock):
            inner = _inner(sock)
            if inner is not None and inner.fileno() >= 0 and self._is_lost(inner):
                inner.detach()

    def _hold(self, sock: socket.socket | None) -> None:
        with self._lock:
            if self._handle is not None:
                if self._is_lost(self._handle):
                    self._handle.detach()
                self._handle.close()
            self._handle = None if sock is None else sock.dup()
            if self.is_cut and sock is not None:
                raise TimeoutError("broken off")


def _inner(sock: Any) -> Any:
    # TLS inside the TLS of an https proxy is an object around the socket.
    return getattr(sock, "socket", sock)


def _identity(sock: socket.socket) -> tuple[int, int]:
    found = os.fstat(sock.fileno())
    return found.st_dev, found.st_ino


class _Response(http.client.HTTPResponse):
    """
    A response without the flaws in its headers, of which urllib3 would log every one with a traceback.

    And with an end: `http.client` limits headers, but neither interim answers (1xx) nor what comes after the last chunk.
    """

    _interim = 0

    def begin(self) -> None:
        super().begin()
        self.msg.defects.clear()
        self.msg.set_payload("")

    def _read_status(self) -> tuple[str, int, str]:
        self._interim += 1
        if self._interim > _INTERIM_MAX:
            raise http.client.HTTPException("too many interim answers")
        found: tuple[str, int, str] = super()._read_status()  # type: ignore[misc]  # in no stub, and there in every version
        return found

    def _read_and_discard_trailer(self) -> None:
        for _ in range(_TRAILERS_MAX):
            line = self.fp.readline(_LINE_MAX + 1)
            if len(line) > _LINE_MAX:
                raise http.client.LineTooLong("trailer line")
            if line in (b"", b"\n", b"\r\n"):
                return
        raise http.client.HTTPException("too many trailers")


class _Slot(queue.LifoQueue[Any]):
    """The place of one idle connection, without the locks of a queue, which a forked child might find taken for ever."""

    def __init__(self, maxsize: int = 0) -> None:
        self._idle: list[Any] = []

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        self._idle.append(item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        if not self._idle:
            raise queue.Empty
        return self._idle.pop()

    def qsize(self) -> int:
        return len(self._idle)


def pool_classes(line: Line) -> dict[str, type[HTTPConnectionPool]]:
    """Return urllib3's pools with connections that are dialled by `line` and keep its deadline."""

    class LineHTTPConnection(HTTPConnection):
        response_class = _Response

        @property
        def is_connected(self) -> bool:
            new_poll = threads.native("select", "poll")
            if self.sock is None or self.sock.fileno() < 0:
                return False
            if new_poll is None:
                return super().is_connected
            # An idle connection that can be read from has been closed, or has bytes that nobody asked for.
            poll = new_poll()
            poll.register(self.sock, select.POLLIN)
            return not poll.poll(0)

        def _new_conn(self) -> socket.socket:
            # urllib3 expects these three, and tells by them that there was no connection yet.
            try:
                return line.dial(self._dns_host, self.port or self.default_port, self.socket_options or ())
            except socket.gaierror as error:
                raise NameResolutionError(self.host, self, error) from error
            except TimeoutError as error:
                raise ConnectTimeoutError(self, str(error)) from error
            except OSError as error:
                raise NewConnectionError(self, str(error)) from error

        def connect(self) -> None:
            super().connect()
            line.is_up = True

        def getresponse(self) -> Any:
            line.listen(self.sock)
            self.timeout = line.time_left()
            return super().getresponse()

    class LineHTTPSConnection(LineHTTPConnection, HTTPSConnection):
        pass

    class HTTPPool(HTTPConnectionPool):
        ConnectionCls = LineHTTPConnection
        QueueCls = _Slot

    class HTTPSPool(HTTPSConnectionPool):
        ConnectionCls = LineHTTPSConnection
        QueueCls = _Slot

    return {"http": HTTPPool, "https": HTTPSPool}
