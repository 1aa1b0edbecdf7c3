"""A listening socket on loopback whose connections each get a thread; what is said there is up to the caller.

Owns: the listener, the accepted sockets and their threads; all are gone when the `with` ends.
Threads: one that accepts, one for each connection.
Invariants: a peer that vanishes ends its own conversation and nothing else.
"""

import select
import socket
import ssl
import threading


class Loopback:
    """
    A server for any protocol.

    Args:
        talk: Called with (socket, number of the connection from 0); the socket is closed when it returns.
        tls: Wraps every connection; a handshake that fails ends only that connection.
        family: `AF_INET`, or `AF_INET6` for the loopback of IPv6.
    """

    def __init__(self, talk, *, tls=None, family=socket.AF_INET):
        self._talk = talk
        self._tls = tls
        host = "127.0.0.1" if family == socket.AF_INET else "::1"
        self._listener = socket.create_server((host, 0), family=family)
        self._ending, self._end = socket.socketpair()
        self._lock = threading.Lock()
        self._live = set()
        self._threads = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self.port = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}" if family == socket.AF_INET else f"[::1]:{self.port}"
        self.connections = 0

    def __enter__(self):
        self._acceptor.start()
        return self

    def __exit__(self, *error):
        self._end.close()
        self._acceptor.join()
        self.hang_up()
        for thread in self._threads:
            thread.join()
        self._ending.close()
        self._listener.close()

    def hang_up(self):
        """End every connection that is open now, in the orderly way, from this side."""
        with self._lock:
            for sock in self._live:
                try:
                    # Not the TLS socket's own `shutdown`: another thread may be inside OpenSSL.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass

    def _accept(self):
        while True:
            ready, _, _ = select.select([self._listener, self._ending], [], [])
            if self._ending in ready:
                return
            sock, _ = self._listener.accept()
            number, self.connections = self.connections, self.connections + 1
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock, number):
        with self._lock:
            self._live.add(sock)
        current = sock
        try:
            if self._tls is not None:
                # Without the handshake, so that `hang_up` can already reach the socket that replaces the first.
                current = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
                with self._lock:
                    self._live.discard(sock)
                    self._live.add(current)
                current.do_handshake()
            self._talk(current, number)
        except (OSError, ssl.SSLError):
            pass  # The peer went away, or `hang_up` did it.
        finally:
            with self._lock:
                self._live.discard(current)
                self._live.discard(sock)
            current.close()
