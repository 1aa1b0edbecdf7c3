"""Requests under construction: items under their scope, scopes under their resource, in the order of arrival.

Owns: the encoded items of one open request, and one codec's cache of encoded heads.
Threads: one at a time.
Invariants: two items share a resource or scope message exactly when the SDK
calls their resources or scopes equal; an item is placed only once it is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from surgetank.otlp.attributes import AttributeEncoder
from surgetank.otlp.wire import delimited, text, varint

PIECE_BYTES: Final = 64 * 1024
"""From where on an item is not joined to one piece."""
JOIN_BYTES: Final = 512 * 1024
"""
What small pieces are joined up to, so that an ordinary batch is compressed in one call: each call lets the
GIL go, and beside a thread that never pauses it takes 5 ms to get it back.
"""

# Heads are kept with a strong reference to their object, or its id could come to mean another.
_HEADS_MAX: Final = 32
_HEAD_BYTES_MAX: Final = 4 * 1024
_PLACES_MAX: Final = 64


class Container:
    """A message with a head of its own and a repeated field of encoded items or further containers."""

    __slots__ = ("_children", "_head", "_item_bytes", "_tag")

    def __init__(self, tag: bytes, head: bytes) -> None:
        self._tag = tag
        self._head = head
        self._children: list[bytes | Container] = []
        self._item_bytes = 0

    def nest(self, container: Container) -> None:
        """Append a container."""
        self._children.append(container)

    def extend(self, pieces: Iterable[bytes], size: int) -> None:
        """Append an encoded item of `size` bytes, tag and length included."""
        self._children += pieces
        self._item_bytes += size

    def _length(self) -> int:
        nested = sum(child.total() for child in self._children if type(child) is Container)
        return len(self._head) + self._item_bytes + nested

    def total(self) -> int:
        """Return the length in bytes with tag and length prefix."""
        length = self._length()
        return len(self._tag) + len(varint(length)) + length

    def pieces(self) -> Iterator[bytes]:
        """Yield the whole field."""
        yield self._tag + varint(self._length()) + self._head
        for child in self._children:
            if type(child) is Container:
                yield from child.pieces()
            else:
                yield child  # type: ignore[misc]  # what is no container is bytes


def joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces to at most `JOIN_BYTES`; hand large ones on as they are."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if waiting and (size + len(piece) > JOIN_BYTES or len(piece) >= PIECE_BYTES):
            yield b"".join(waiting)
            waiting = []
            size = 0
        if len(piece) >= PIECE_BYTES:
            yield piece
        else:
            waiting.append(piece)
            size += len(piece)
    if waiting:
        yield b"".join(waiting)


class Heads:
    """Encoded resources and scopes, remembered by identity; at most 32 of each, of at most 4 KiB."""

    def __init__(self, attributes: AttributeEncoder) -> None:
        self._attributes = attributes
        self._resources: dict[int, tuple[object, bytes]] = {}
        self._scopes: dict[int, tuple[object, bytes]] = {}

    def resource(self, resource: Any) -> bytes:
        """Return what a Resource{Spans,Logs,Metrics} holds but for its scopes: resource and schema URL."""
        found = self._resources.get(id(resource))
        if found is not None:
            return found[1]
        attributes = getattr(resource, "attributes", None)
        head = delimited(b"\x0a", self._encode(attributes, b"\x0a")) + _schema_url(resource)
        _remember(self._resources, resource, head)
        return head

    def scope(self, scope: Any) -> bytes:
        """Return what a Scope{Spans,Logs,Metrics} holds but for its items: scope and schema URL."""
        found = self._scopes.get(id(scope))
        if found is not None:
            return found[1]
        body = b""
        if scope is not None:
            for field_tag, value in ((b"\x0a", scope.name), (b"\x12", scope.version)):
                if value:
                    body += delimited(field_tag, text(value))
            body += self._encode(scope.attributes, b"\x1a")
        head = delimited(b"\x0a", body) + _schema_url(scope)
        _remember(self._scopes, scope, head)
        return head

    def _encode(self, attributes: Any, field_tag: bytes) -> bytes:
        out: list[bytes] = []
        self._attributes.encode(attributes, field_tag, out)
        return b"".join(out)


def _schema_url(owner: Any) -> bytes:
    url = getattr(owner, "schema_url", None)
    return delimited(b"\x1a", text(url)) if url else b""


def _remember(heads: dict[int, tuple[object, bytes]], owner: object, head: bytes) -> None:
    if len(head) > _HEAD_BYTES_MAX:
        return
    if len(heads) >= _HEADS_MAX:
        heads.clear()
    heads[id(owner)] = (owner, head)


def _equality_key(owner: Any) -> Any:
    """Return a dict key that is equal when the SDK calls the objects equal, or the identity if it cannot say."""
    try:
        hash(owner)
    except Exception:
        return id(owner)
    return owner


class Grouping:
    """The resources and scopes of one request; finds an item's place."""

    def __init__(self, heads: Heads) -> None:
        self.head_bytes = 0
        self._heads = heads
        self._resources: dict[Any, tuple[object, Container, dict[Any, tuple[object, Container]]]] = {}
        self._places: dict[tuple[int, int], tuple[object, object, Container]] = {}

    def place(self, resource: Any, scope: Any) -> Container:
        """Return the container of the items of this resource and scope; new ones are charged to `head_bytes`."""
        found = self._places.get((id(resource), id(scope)))
        if found is not None:
            return found[2]
        container = self._find(resource, scope)
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[id(resource), id(scope)] = (resource, scope, container)
        return container

    def _find(self, resource: Any, scope: Any) -> Container:
        resource_key = _equality_key(resource)
        known = self._resources.get(resource_key)
        if known is None:
            head = self._heads.resource(resource)
            known = self._resources[resource_key] = (resource, Container(b"\x0a", head), {})
            self.head_bytes += len(head)
        _, outer, scopes = known
        scope_key = _equality_key(scope)
        inner = scopes.get(scope_key)
        if inner is None:
            head = self._heads.scope(scope)
            inner = scopes[scope_key] = (scope, Container(b"\x12", head))
            outer.nest(inner[1])
            self.head_bytes += len(head)
        return inner[1]

    def pieces(self) -> Iterator[bytes]:
        """Yield the request."""
        for _, container, _ in self._resources.values():
            yield from container.pieces()


class ItemRequest:
    """An `OpenRequest` of items that stand directly in their scope: spans, log records."""

    __slots__ = ("_encode", "_groups", "_place", "_resource", "_scope", "items", "size")

    def __init__(self, heads: Heads, encode: Callable[[Any], tuple[Any, Any, list[bytes], int]]) -> None:
        self._groups = Grouping(heads)
        self._encode = encode
        self._place: Container | None = None
        self._resource: Any = None
        self._scope: Any = None
        self.items = 0
        self.size = 0

    def accepts(self, item: Any) -> bool:
        """Return True: any spans may travel together, and any logs."""
        return True

    def add(self, item: Any) -> int:
        """Encode an item and return how many bytes `size` grew by."""
        resource, scope, pieces, grown = self._encode(item)
        place = self._place
        if place is None or resource is not self._resource or scope is not self._scope:
            heads = self._groups.head_bytes
            self._place = place = self._groups.place(resource, scope)
            self._resource = resource
            self._scope = scope
            place.extend(pieces, grown)
            grown += self._groups.head_bytes - heads
        else:
            place.extend(pieces, grown)
        self.size += grown
        self.items += 1
        return grown

    def pieces(self) -> Iterator[bytes]:
        """Yield the message in order, in pieces of at most `JOIN_BYTES`, but for large values."""
        return joined(self._groups.pieces())
