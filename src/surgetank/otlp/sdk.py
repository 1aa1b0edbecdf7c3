"""The SDK's objects, read fast, by private attributes; what is done to the SDK is in `otel/shim.py` (decision 15).

Owns: which types were recognised as the SDK's own.
Threads: any.
Invariants: a private name is used only on an object whose type is exactly the
SDK's own, so that a subclass or a wrapper that overrides a public property is
obeyed; where a private name is missing, the public way is taken.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any, Final, NamedTuple

from surgetank.otlp.estimate import FAILED, SHORT_TEXT, estimate_attributes, estimate_text, estimate_value
from surgetank.otlp.wire import whole

_OWN: Final[set[type]] = set()
"""The SDK's own types that were met so far, of every kind."""


class _Recognised(dict[type, bool]):
    """Whether a type is the one that is meant; asked by name, since nothing here imports the SDK."""

    def __init__(self, module: str, name: str) -> None:
        self._names = (module, name)

    def __missing__(self, kind: type) -> bool:
        found = (kind.__module__, kind.__qualname__) == self._names
        if len(self) < 64:
            # Programs that make types without end must not fill this table without end.
            self[kind] = found
            if found:
                _OWN.add(kind)
        return found


_IS_SPAN: Final = _Recognised("opentelemetry.sdk.trace", "ReadableSpan")
_IS_EVENT: Final = _Recognised("opentelemetry.sdk.trace", "Event")
_IS_STATUS: Final = _Recognised("opentelemetry.trace.status", "Status")
_IS_CONTEXT: Final = _Recognised("opentelemetry.trace.span", "SpanContext")
_IS_TRACE_STATE: Final = _Recognised("opentelemetry.trace.span", "TraceState")
_IS_ATTRIBUTES: Final = _Recognised("opentelemetry.attributes", "BoundedAttributes")
_IS_LIST: Final = _Recognised("opentelemetry.sdk.util", "BoundedList")


# Measured, as the constants in `estimate`.
_SPAN_BYTES: Final = 560
_EVENT_BYTES: Final = 260
_LINK_BYTES: Final = 250
_STATUS_BYTES: Final = 200


class SpanFields(NamedTuple):
    """
    What is kept of an ended span: everything that its message is made of, and nothing else.

    Containers are the innermost plain ones that could be had. One flat tuple takes the place of the fifteen
    objects with locks, limits and counters that the SDK makes of a span, so that those are freed at once, while
    the processor's cache still holds them, and the garbage collector never gets to see them.
    """

    name: Any
    kind: Any
    """The SDK's number, which is OTLP's less one; -1 when unknown."""
    start_time: Any
    end_time: Any
    attributes: Any
    dropped_attributes: Any
    dropped_events: Any
    dropped_links: Any
    status: Any
    """The SDK's object; None for a span without a status."""
    status_code: Any
    """0 unset, 1 ok, 2 error; None for a span without a status."""
    resource: Any
    scope: Any
    trace_id: Any
    span_id: Any
    trace_state: Any
    """A mapping, or None."""
    parent_id: Any
    """None for a root span."""
    parent_is_remote: Any
    events: Any
    """Tuples of name, timestamp, attributes, count of dropped attributes."""
    links: Any
    """Tuples of trace id, span id, whether it is remote, attributes, count of dropped attributes."""
    size: int
    """About how many bytes of memory all this keeps alive."""


def plain_attributes(attributes: Any) -> Any:
    """Return the dict inside the SDK's attribute container, else what was given."""
    if _IS_ATTRIBUTES[type(attributes)]:
        return getattr(attributes, "_dict", attributes)
    return attributes


def snapshot(span: Any) -> Any:
    """
    Return what is kept of an ended span, as `SpanFields`.

    What cannot be read is returned as it is: to be counted as unencodable, not to raise into the application.
    """
    try:
        fields = _read_own_span(span)
        if fields is not None:
            return fields
    except Exception:
        # This version of the SDK is built otherwise, or a value resists being measured.
        pass
    try:
        return _read_public_span(span)
    except Exception:
        return span


def is_sampled(span: Any) -> bool:
    """Return whether an ended span is to be exported."""
    context = span._context if type(span) in _OWN else span.context
    if type(context) in _OWN:
        # The SDK's is a tuple; its properties are Python functions.
        sampled: bool = context[3] & 1 == 1
        return sampled
    return context is not None and bool(context.trace_flags & 1)


# One call in C in place of twelve look-ups. This runs on the application's thread, which has filled the
# processor's caches with other things, so that what counts is how much code there is.
_fields_of: Final = attrgetter(
    "_name",
    "_kind._value_",
    "_start_time",
    "_end_time",
    "_attributes._dict",
    "_attributes.dropped",
    "_events.dropped",
    "_links.dropped",
    "_status",
    "_status._status_code._value_",
    "_resource",
    "_instrumentation_scope",
)


def _read_own_span(span: Any) -> SpanFields | None:
    """Read private attributes; None when one of them is not of the SDK's own type."""
    own = _OWN
    if type(span) not in own:
        return None
    context, parent = span._context, span._parent
    attributes, events, links = span._attributes, span._events, span._links
    if (
        type(context) not in own
        or type(attributes) not in own
        or type(events) not in own
        or type(links) not in own
        or type(span._status) not in own
    ):
        return None
    # The ids and not the contexts: those would be two objects more for the garbage collector.
    trace_id, span_id, trace_state = context[0], context[1], context[4]._dict
    parent_id = parent_is_remote = None
    if parent is not None:
        if type(parent) not in own:
            return None
        parent_id, parent_is_remote = parent[1], parent[2]
    fields: tuple[Any, ...] = _fields_of(span)
    size = _SPAN_BYTES + estimate_attributes(attributes._dict)
    names = len(span._name)
    kept_events = []
    for event in events._dq:
        attributes = event._attributes
        if type(event) not in own or type(attributes) not in own:
            return None
        kept_events.append((event._name, event._timestamp, attributes._dict, attributes.dropped))
        names += len(event._name)
        size += _EVENT_BYTES + estimate_attributes(attributes._dict)
    # Adding takes half the time of unpacking.
    fields += (trace_id, span_id, trace_state, parent_id, parent_is_remote, tuple(kept_events))
    if links._dq or fields[9] or names > SHORT_TEXT or trace_state:
        return _measured(SpanFields._make((*fields, tuple(map(read_link, links._dq)), 0)))
    # Past the generated constructor, which takes twice as long.
    return tuple.__new__(SpanFields, fields + ((), size + names))  # noqa: RUF005  # as above


def _read_public_span(span: Any) -> SpanFields:
    attributes = span.attributes
    if _IS_SPAN[type(span)]:
        _meet(span)
        # The property is a view that would keep the container alive.
        attributes = plain_attributes(getattr(span, "_attributes", attributes))
    trace_id, span_id, trace_state = _read_context(span.get_span_context())
    parent = span.parent
    fields = SpanFields(
        name=span.name,
        kind=whole(getattr(span.kind, "value", -1), -1, 2**31),
        start_time=span.start_time,
        end_time=span.end_time,
        attributes=attributes,
        dropped_attributes=span.dropped_attributes,
        events=tuple(map(read_event, span.events)),
        dropped_events=span.dropped_events,
        links=tuple(map(read_link, span.links)),
        dropped_links=span.dropped_links,
        status=span.status,
        status_code=read_status(span.status)[0],
        resource=span.resource,
        scope=span.instrumentation_scope,
        trace_id=trace_id,
        span_id=span_id,
        trace_state=trace_state,
        parent_id=parent.span_id if parent else None,
        parent_is_remote=parent.is_remote if parent else None,
        size=0,
    )
    return _measured(fields)


def _read_context(context: Any) -> tuple[Any, Any, Any]:
    if context is None:
        return 0, 0, None
    trace_state = context.trace_state
    plain = trace_state._dict if _IS_TRACE_STATE[type(trace_state)] else trace_state
    return context.trace_id, context.span_id, plain


def _measured(span: SpanFields) -> SpanFields:
    try:
        size = _estimate(span)
    except Exception:
        size = FAILED
    return span._replace(size=size)


def _meet(span: Any) -> None:
    """Recognise the types of a span's parts, so that the next one is read the short way."""
    _ = _IS_CONTEXT[type(getattr(span, "_context", None))]
    for name in ("_events", "_links"):
        _ = _IS_LIST[type(getattr(span, name, None))]


def _estimate(span: SpanFields) -> int:
    """Return the size of a span of any kind."""
    size = _SPAN_BYTES + estimate_text(span.name) + estimate_text(read_status(span.status)[1])
    if span.status_code:
        size += _STATUS_BYTES
    if span.attributes:
        size += estimate_attributes(span.attributes)
    for event in span.events:
        size += _EVENT_BYTES + estimate_text(event[0])
        if event[2]:
            size += estimate_attributes(event[2])
    for link in span.links:
        size += _LINK_BYTES
        if link[3]:
            size += estimate_attributes(link[3])
    return size + estimate_value(span.trace_state) if span.trace_state else size


def read_event(event: Any) -> tuple[Any, Any, Any, Any]:
    """Return an event's name, timestamp, attributes and count of dropped attributes."""
    if _IS_EVENT[type(event)]:
        try:
            attributes = event._attributes
            if _IS_ATTRIBUTES[type(attributes)]:
                return event._name, event._timestamp, attributes._dict, attributes.dropped
        except AttributeError:
            pass
    return event.name, event.timestamp, event.attributes, event.dropped_attributes


def read_link(link: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Return a link's trace id, span id, whether it is remote, attributes and count of dropped attributes."""
    context = link.context
    attributes = plain_attributes(link.attributes)
    return context.trace_id, context.span_id, context.is_remote, attributes, link.dropped_attributes


def read_status(status: Any) -> tuple[Any, Any]:
    """Return a status' code (0 unset, 1 ok, 2 error) and description; None twice for no status."""
    if status is None:
        return None, None
    if _IS_STATUS[type(status)]:
        try:
            return status._status_code._value_, status._description
        except AttributeError:
            pass
    return status.status_code.value, status.description
