"""The seam between a pipeline and OTLP: what a pipeline asks of an encoder.

Owns: no state.
Threads: `estimate` and `is_critical` are called from application threads, at
once and beside everything else; the rest is called by one thread at a time.
Invariants: an item that cannot be encoded leaves its request as it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from surgetank.model import Signal


class OpenRequest(Protocol):
    """One OTLP request under construction."""

    @property
    def items(self) -> int:
        """Spans, log records or metric data points added so far."""

    @property
    def size(self) -> int:
        """Bytes of encoded items and heads so far: the message but for its containers' tags and lengths."""

    def accepts(self, item: Any) -> bool:
        """Return False when the item belongs in another request (metrics: to another collection)."""

    def add(self, item: Any) -> int:
        """
        Encode an item and return how many bytes `size` grew by.

        Raises:
            Exception: The item cannot be encoded even after repair; the request is as before.
        """

    def pieces(self) -> Iterator[bytes]:
        """Yield the message in order: small items joined to at most 512 KiB, large values as they are."""


class Codec(Protocol):
    """One signal's encoder with its caches; one per pipeline."""

    @property
    def signal(self) -> Signal:
        """The signal whose items this codec takes."""

    def estimate(self, item: Any) -> int:
        """Return about how many bytes of memory the live object keeps alive; never raises."""

    def is_critical(self, item: Any) -> bool:
        """Return whether the item belongs in the critical lane; never raises."""

    def open(self) -> OpenRequest:
        """Begin an empty request."""
