"""An HTTP proxy: forwards requests in absolute form, and opens tunnels for CONNECT.

Owns: the list of what it was asked for.
Threads: one for each connection, and one more for the way back through a tunnel.
Invariants: without the credentials that it demands, nothing passes.
"""

import socket
import threading
from base64 import b64encode
from urllib.parse import urlsplit

from servers.http import parse_headers, read_head
from servers.loopback import Loopback


class Proxy(Loopback):
    """
    A proxy on loopback.

    Args:
        credentials: `user:password` that every request must bring; None lets everyone in.
        outside: What `Loopback` takes; with `tls` the way to the proxy itself is encrypted.
    """

    def __init__(self, credentials=None, **outside):
        super().__init__(self._pass_on, **outside)
        self._credentials = credentials
        self.heads = []
        """Request line and headers of each request, as (line, headers)."""

    def _pass_on(self, sock, number):
        with sock.makefile("rb") as reader:
            while lines := read_head(reader):
                headers = parse_headers(lines[1:])
                self.heads.append((lines[0], headers))
                if not self._admits(headers):
                    body = reader.read(int(headers.get("content-length", 0)))
                    sock.sendall(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
                    continue
                method, target, _ = lines[0].split(" ")
                if method == "CONNECT":
                    tunnel(sock, target)
                    return
                body = reader.read(int(headers.get("content-length", 0)))
                sock.sendall(forward(method, target, headers, body))

    def _admits(self, headers):
        if self._credentials is None:
            return True
        expected = "Basic " + b64encode(self._credentials.encode()).decode()
        return headers.get("proxy-authorization") == expected


def forward(method, target, headers, body):
    """Return the raw answer of the server that the absolute URL `target` names."""
    url = urlsplit(target)
    kept = [f"{name}: {value}" for name, value in headers.items() if name != "proxy-authorization"]
    head = "\r\n".join([f"{method} {url.path} HTTP/1.1", *kept, "", ""]).encode("latin-1")
    with socket.create_connection((url.hostname, url.port)) as onward:
        onward.sendall(head + body)
        with onward.makefile("rb") as reader:
            lines = read_head(reader)
            answer = reader.read(int(parse_headers(lines[1:]).get("content-length", 0)))
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer


def tunnel(sock, target):
    """Carry bytes both ways until either side ends."""
    host, _, port = target.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(port))) as onward:
        sock.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = threading.Thread(target=carry, args=(onward, sock), daemon=True)
        back.start()
        carry(sock, onward)
        back.join()


def carry(source, sink):
    """Copy until the source ends, then end the sink."""
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    for sock in (source, sink):
        try:
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        except OSError:
            pass
