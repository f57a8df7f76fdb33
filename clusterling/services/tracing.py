"""Traces of requests, by OpenTelemetry's API. Loaded only where a provider of tracers was given: else nothing is paid.

A request's span begins when it came and ends with its answer, but is made once it is known who asks: only the platform's
own callers continue the trace that their `traceparent` names. Everybody else's is linked to, so no tenant decides what is
recorded, or writes into another's trace (upstream: KEP-647, apiserver/pkg/endpoints/filters/traces.go).

Names and attributes are upstream's where it has them, and of the semantic conventions for HTTP where those have them.
Never recorded: queries, header fields besides User-Agent, bodies, what errors say.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Mapping, Sequence
from contextvars import copy_context
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from clusterling.machinery.errors import ApiError
from clusterling.services import filters
from clusterling.services.barrier import with_barrier
from clusterling.services.request import StreamingResponse
from clusterling.telemetry.spans import CURRENT, Span, Value, as_part, traced
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.names import ROOT_ID
from clusterling.version import __version__

if TYPE_CHECKING:
    from clusterling.services.app import App, Handler
    from clusterling.services.request import Request, Response

SCOPE: Final = "clusterling"
TEXT_CHARACTERS_MAX: Final = 256  # Of a name or an attribute, which a client may have chosen.

_MONITORING: Final = "system:monitoring"
_PROPAGATOR: Final = TraceContextTextMapPropagator()
_NOBODY: Final = otel.Context()
_VERBS: Final = {
    "get": "Get",
    "list": "List",
    "watch": "Watch",
    "create": "Create",
    "update": "Update",
    "patch": "Patch",
    "delete": "Delete",
    "deletecollection": "Delete",
}


class Recorded:
    """A span that is recorded. Implements `telemetry.spans.Span`."""

    __slots__ = ("_tracer", "span")

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self.span = span

    @property
    def trace_id(self) -> str:
        """As it is written everywhere: 32 hexadecimal digits."""
        return trace.format_trace_id(self.span.get_span_context().trace_id)

    @property
    def is_open(self) -> bool:
        return self.span.is_recording()

    @property
    def traceparent(self) -> str:
        of = self.span.get_span_context()
        return (
            f"00-{trace.format_trace_id(of.trace_id)}-{trace.format_span_id(of.span_id)}-{of.trace_flags:02x}"
        )

    def child(
        self, name: str, attributes: Mapping[str, Value] | None = None, *, began_s: float | None = None
    ) -> Recorded:
        above = trace.set_span_in_context(self.span, _NOBODY)
        start = None if began_s is None else _epoch_ns(began_s)
        span = self._tracer.start_span(name, above, attributes=attributes, start_time=start)
        return Recorded(self._tracer, span)

    def note(self, name: str, value: Value) -> None:
        self.span.set_attribute(name, value[:TEXT_CHARACTERS_MAX] if isinstance(value, str) else value)

    def link(self, other: Span) -> None:
        assert isinstance(other, Recorded), "one server has one tracer"
        self.span.add_link(other.span.get_span_context())

    def failed(self, error: BaseException) -> None:
        if isinstance(error, ApiError) and error.code < 500:
            self.span.set_attribute("error.type", str(error.code))
            return
        self.span.set_attribute("error.type", type(error).__name__)
        self.span.set_status(trace.StatusCode.ERROR)

    def answered(self, response: Response) -> None:
        """Ends with the answer: when all of a stream was written."""
        span = self.span
        span.set_attribute("http.response.status_code", response.status)
        if response.status >= 500:
            span.set_attribute("error.type", str(response.status))
            span.set_status(trace.StatusCode.ERROR)
        if isinstance(response, StreamingResponse):
            response.ended.append(span.end)
        else:
            span.set_attribute("http.response.body.size", response.size)
            span.end()

    def past(self, name: str, began_s: float, ended_s: float) -> None:
        """A part that is over."""
        self.child(name, began_s=began_s).span.end(_epoch_ns(ended_s))

    def end(self) -> None:
        if self.is_open:
            self.span.end()

    def enter(self) -> None:
        otel.attach(trace.set_span_in_context(self.span))


class Tracing:
    """Makes the spans that have none above them. One for a server."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        self._tracer = provider.get_tracer(SCOPE, __version__)

    def request(self, request: Request) -> Recorded | None:
        """The span of a request whose user is known; None where it is not to be recorded."""
        above, links = self._above(request)
        # What it takes to describe a request is done for those that are recorded; samplers see what is at hand.
        span = self._tracer.start_span(
            request.method,
            above,
            trace.SpanKind.SERVER,
            attributes={
                "http.request.method": request.method,
                "url.path": request.path[:TEXT_CHARACTERS_MAX],
            },
            links=links,
            start_time=_epoch_ns(request.came_s),
        )
        if not span.is_recording():
            return None
        span.update_name(_name(request))
        span.set_attributes(_attributes(request))
        return Recorded(self._tracer, span)

    def _above(self, request: Request) -> tuple[otel.Context, list[trace.Link]]:
        """What the request is part of, and what it is only linked to."""
        within = CURRENT.get() if request.authenticated_as is not None else None
        if isinstance(within, Recorded):
            # One that has ended is of a task that outlives the request that began it.
            return (trace.set_span_in_context(within.span, _NOBODY) if within.is_open else _NOBODY), []
        header = request.headers.get("traceparent")
        if header is None:
            return (_NOBODY if request.authenticated_as is None else otel.get_current()), []
        if request.authenticated_as is None and not is_trusted(request):
            remote = trace.get_current_span(
                _PROPAGATOR.extract({"traceparent": header}, _NOBODY)
            ).get_span_context()
            return _NOBODY, [trace.Link(remote)] if remote.is_valid else []
        carrier = {"traceparent": header, "tracestate": request.headers.get("tracestate", "")}
        return _PROPAGATOR.extract(carrier, _NOBODY), []

    def work(self, name: str, attributes: Mapping[str, Value]) -> Recorded | None:
        """The span of work that no request asked for; None where it is not to be recorded."""
        span = self._tracer.start_span(name, _NOBODY, attributes=attributes)
        return Recorded(self._tracer, span) if span.is_recording() else None


def is_trusted(request: Request) -> bool:
    """Whether a caller may say what its request is part of: the platform's administrators and its monitoring."""
    user = request.user
    return user.realm == ROOT_ID and (MASTERS in user.groups or _MONITORING in user.groups)


def among(order: Sequence[filters.Filter]) -> list[filters.Filter]:
    """The filters of a request with those between them that trace it."""
    behind = {
        filters.with_telemetry: with_answers,
        with_barrier: with_waited,
        filters.with_user: with_span,
        order[-1]: with_verb,
    }
    return [one for each in order for one in (each, behind.get(each)) if one is not None]


def with_answers(_app: App, handle: Handler) -> Handler:
    """Ends a request's span with its answer, whatever made that."""

    async def answers(request: Request) -> Response:
        try:
            response = await handle(request)
        except BaseException as error:
            if request.span is not None:
                request.span.failed(error)
                request.span.end()
            raise
        if request.span is not None:
            request.span.answered(response)
        return response

    return answers


def with_waited(_app: App, handle: Handler) -> Handler:
    """Notes until when a request had waited for the barrier."""

    def waited(request: Request) -> Awaitable[Response]:
        request.believed_s = time.perf_counter()
        return handle(request)

    return waited


def with_span(app: App, handle: Handler) -> Handler:
    """Makes a request's span, and runs the rest of it there."""
    tracing, replicated = app.tracing, app.barrier is not None
    assert tracing is not None, "it is here where there is one"

    def span(request: Request) -> Awaitable[Response]:
        recorded = request.span
        if recorded is None:
            recorded = request.span = tracing.request(request)
            if recorded is None:
                if CURRENT.get() is not None and request.authenticated_as is None:
                    # Who tells several requests that they may begin may be at it for one that is traced.
                    return traced(copy_context(), None, _coroutine(handle, request))
                return handle(request)
            if replicated:
                recorded.past("barrier", request.came_s, request.believed_s)
            if request.authenticated_as is None:
                recorded.past("authentication", request.believed_s, time.perf_counter())
        else:
            recorded.note("answered_again", True)
        return traced(copy_context(), recorded, _coroutine(handle, request))

    return span


async def _coroutine(handle: Handler, request: Request) -> Response:
    return await handle(request)


def with_verb(_app: App, handle: Handler) -> Handler:
    """Tells the verb's own work from what stands before it (upstream: endpoints/handlers)."""

    def verb(request: Request) -> Awaitable[Response]:
        span = request.span
        if span is None:
            return handle(request)
        return _within(span.child(_VERBS.get(request.info.verb, request.method)), handle, request)

    return verb


async def _within(span: Span, handle: Handler, request: Request) -> Response:
    with as_part(span):
        return await handle(request)


def _epoch_ns(at_s: float) -> int:
    """The time of day of a moment of `time.perf_counter`."""
    return time.time_ns() - int((time.perf_counter() - at_s) * 1e9)


def _name(request: Request) -> str:
    """The method and the shape of the path, as upstream has it: no names of objects."""
    info = request.info
    if not info.is_resource:
        return request.method
    parts = [f"/apis/{info.group}" if info.group else "/api", info.version]
    if info.namespace:
        parts.append("namespaces/{:namespace}")
    parts.append(info.resource)
    if info.name:
        parts.append("{:name}")
    if info.subresource:
        parts.append(info.subresource)
    return f"{request.method} {'/'.join(parts)}"[:TEXT_CHARACTERS_MAX]


def _attributes(request: Request) -> dict[str, Value]:
    """What is known of a request before it is let in."""
    info, user = request.info, request.user
    found: dict[str, Value] = {
        "client.address": request.peer.address,
        "user_agent.original": request.headers.get("User-Agent", ""),
        "user.name": user.name,
        "audit-id": request.id,
        "k8s.cluster.name": info.cluster,
        "verb": info.verb,
    }
    if info.is_resource:
        found |= {
            "api-group": info.group,
            "api-version": info.version,
            "resource": info.resource,
            "subresource": info.subresource,
            "k8s.namespace.name": info.namespace,
            "name": info.name,
        }
    return {key: _text(value) if isinstance(value, str) else value for key, value in found.items() if value}


def _text(value: str) -> str:
    """Bounded, and text: a target or a header may have had bytes that are none."""
    return value[:TEXT_CHARACTERS_MAX].encode("utf-8", "replace").decode()
