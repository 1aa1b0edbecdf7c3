"""The SDK's objects, read fast: the one module that names private attributes of OpenTelemetry.

Owns: which types were recognised as the SDK's own.
Threads: any.
Invariants: a private name is used only on an object whose type is exactly the
SDK's own, so that a subclass or a wrapper that overrides a public property is
obeyed; where a private name is missing, the public way is taken.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from surgetank.otlp.wire import whole


class _Recognised(dict[type, bool]):
    """Whether a type is the one that is meant; asked by name, since nothing here imports the SDK."""

    def __init__(self, module: str, name: str) -> None:
        self._names = (module, name)

    def __missing__(self, kind: type) -> bool:
        found = (kind.__module__, kind.__qualname__) == self._names
        if len(self) < 64:
            # Programs that make types without end must not fill this table without end.
            self[kind] = found
        return found


_IS_SPAN: Final = _Recognised("opentelemetry.sdk.trace", "ReadableSpan")
_IS_EVENT: Final = _Recognised("opentelemetry.sdk.trace", "Event")
_IS_LINK: Final = _Recognised("opentelemetry.trace", "Link")
_IS_STATUS: Final = _Recognised("opentelemetry.trace.status", "Status")
_IS_CONTEXT: Final = _Recognised("opentelemetry.trace.span", "SpanContext")
_IS_TRACE_STATE: Final = _Recognised("opentelemetry.trace.span", "TraceState")
_IS_ATTRIBUTES: Final = _Recognised("opentelemetry.attributes", "BoundedAttributes")
_IS_LIST: Final = _Recognised("opentelemetry.sdk.util", "BoundedList")


class SpanFields(NamedTuple):
    """
    What is kept of an ended span: everything that its message is made of, and nothing else.

    Containers are the innermost plain ones that could be had. One flat tuple takes the place of the fifteen
    objects with locks, limits and counters that the SDK makes of a span, so that those are freed at once, while
    the processor's cache still holds them, and the garbage collector never gets to see them.
    """

    name: Any
    trace_id: Any
    span_id: Any
    parent_id: Any
    """None for a root span."""
    parent_is_remote: Any
    kind: Any
    """OTLP's number, which is the SDK's plus one; 0 when unknown."""
    start_time: Any
    end_time: Any
    trace_state: Any
    """A mapping, or None."""
    attributes: Any
    dropped_attributes: Any
    events: Any
    """Tuples of name, timestamp, attributes, count of dropped attributes."""
    dropped_events: Any
    links: Any
    """Tuples of trace id, span id, whether it is remote, attributes, count of dropped attributes."""
    dropped_links: Any
    status_code: Any
    """0 unset, 1 ok, 2 error; None for a span without a status."""
    status_description: Any
    resource: Any
    scope: Any


def plain_attributes(attributes: Any) -> Any:
    """Return the dict inside the SDK's attribute container, else what was given."""
    if _IS_ATTRIBUTES[type(attributes)]:
        return getattr(attributes, "_dict", attributes)
    return attributes


def read_span(span: Any) -> SpanFields:
    """Read a finished span."""
    if _IS_SPAN[type(span)]:
        try:
            return _read_own_span(span)
        except (AttributeError, ValueError):
            # This version of the SDK is built otherwise.
            pass
    return _read_public_span(span)


def _read_own_span(span: Any) -> SpanFields:
    attributes = span._attributes
    dropped_attributes = 0
    if _IS_ATTRIBUTES[type(attributes)]:
        dropped_attributes = attributes.dropped
        attributes = attributes._dict
    events = span._events
    dropped_events = 0
    if _IS_LIST[type(events)]:
        dropped_events = events.dropped
        events = events._dq
    links = span._links
    dropped_links = 0
    if _IS_LIST[type(links)]:
        dropped_links = links.dropped
        links = links._dq
    context = span._context
    if _IS_CONTEXT[type(context)]:
        # The SDK's span context is a tuple; its properties are Python functions.
        trace_id, span_id, _, _, trace_state, _ = context
    else:
        trace_id, span_id, trace_state = _read_context(context)
    parent = span._parent
    parent_id = parent_is_remote = None
    if parent is not None:
        parent_id, parent_is_remote = (
            (parent[1], parent[2]) if _IS_CONTEXT[type(parent)] else (parent.span_id, parent.is_remote)
        )
    # Past the generated constructor, which takes twice as long.
    return tuple.__new__(
        SpanFields,
        (
            span._name,
            trace_id,
            span_id,
            parent_id,
            parent_is_remote,
            span._kind._value_ + 1,
            span._start_time,
            span._end_time,
            trace_state._dict if _IS_TRACE_STATE[type(trace_state)] else trace_state,
            attributes,
            dropped_attributes,
            tuple([read_event(event) for event in events]) if events else (),
            dropped_events,
            tuple([read_link(link) for link in links]) if links else (),
            dropped_links,
            *read_status(span._status),
            span._resource,
            span._instrumentation_scope,
        ),
    )


def _read_context(context: Any) -> tuple[Any, Any, Any]:
    if context is None:
        return 0, 0, None
    return context.trace_id, context.span_id, context.trace_state


def _read_public_span(span: Any) -> SpanFields:
    trace_id, span_id, trace_state = _read_context(span.get_span_context())
    parent = span.parent
    return SpanFields(
        name=span.name,
        trace_id=trace_id,
        span_id=span_id,
        trace_state=trace_state,
        parent_id=parent.span_id if parent else None,
        parent_is_remote=parent.is_remote if parent else None,
        kind=whole(getattr(span.kind, "value", -1), -1, 2**31) + 1,
        start_time=span.start_time,
        end_time=span.end_time,
        attributes=span.attributes,
        dropped_attributes=span.dropped_attributes,
        events=tuple(map(read_event, span.events)),
        dropped_events=span.dropped_events,
        links=tuple(map(read_link, span.links)),
        dropped_links=span.dropped_links,
        status_code=read_status(span.status)[0],
        status_description=read_status(span.status)[1],
        resource=span.resource,
        scope=span.instrumentation_scope,
    )


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
