"""The span that work belongs to, and its parts. Where nothing is traced, asking costs one look-up of a context variable.

Spans are made above: a request's by `services/tracing.py`, with OpenTelemetry. What stands below names parts of what it
does for somebody (a question to the store, a turn that it waited for) and need not know whether anybody looks. Only work
that is recorded has a span here, so a part is recorded if and only if the whole is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator, Mapping
from contextlib import nullcontext
from contextvars import Context, ContextVar, Token
from types import TracebackType
from typing import Any, Final, Protocol, TypeVar

Value = str | int | float | bool

_T = TypeVar("_T")


class Span(Protocol):
    """Work that is recorded. Times are those of `time.perf_counter`."""

    @property
    def is_open(self) -> bool:
        """It has not ended."""

    @property
    def traceparent(self) -> str:
        """What tells another server that this is what its work is part of (W3C Trace Context)."""

    def child(
        self, name: str, attributes: Mapping[str, Value] | None = None, *, began_s: float | None = None
    ) -> Span:
        """A part that begins now, or began at `began_s`. Who asks for it ends it."""

    def note(self, name: str, value: Value) -> None:
        """Sets an attribute."""

    def link(self, other: Span) -> None:
        """Says that this has to do with another, which may be of another trace."""

    def failed(self, error: BaseException) -> None:
        """Says what kind of error ended this. Its words are nobody's: they may quote what a tenant keeps."""

    def end(self) -> None:
        """Ends it now. Safe to repeat."""

    def enter(self) -> None:
        """Makes it the one that libraries of tracing find in this context."""


CURRENT: Final[ContextVar[Span | None]] = ContextVar("clusterling_span", default=None)


def current() -> Span | None:
    """What is traced now. Tasks and timers that a request began, and that outlive it, are no part of it."""
    span = CURRENT.get()
    return span if span is None or span.is_open else None


class _Part:
    """The body of a `with` as a part of a span. What raises ends it as failed."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span) -> None:
        self._span = span

    def __enter__(self) -> Span:
        self._token: Token[Span | None] = CURRENT.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        CURRENT.reset(self._token)
        if error is not None:
            self._span.failed(error)
        self._span.end()


_NOTHING: Final = nullcontext[None]()


def part(name: str, attributes: Mapping[str, Value] | None = None) -> _Part | nullcontext[None]:
    """The body of a `with` as a part of what is traced now; nothing where nothing is."""
    above = current()
    return _NOTHING if above is None else _Part(above.child(name, attributes))


def as_part(span: Span | None) -> _Part | nullcontext[None]:
    """The body of a `with` as the span that was made for it."""
    return _NOTHING if span is None else _Part(span)


async def traced(context: Context, span: Span | None, work: Coroutine[Any, Any, _T]) -> _T:
    """Runs `work` in a context of its own, in which `span` is the current one.

    Requests are begun in callbacks and finished in tasks (`services/http.py`), so a variable that one sets would be seen by
    the next and lost by itself. So each step of a traced one is run in the context that is given here. None: nothing is traced.
    """
    context.run(_enter, span)
    driven: Awaitable[_T] = _Driven(context, work)
    return await driven


def _enter(span: Span | None) -> None:
    CURRENT.set(span)
    if span is not None:
        span.enter()


class _Driven:
    """Awaits a coroutine whose every step runs in a context."""

    __slots__ = ("_context", "_work")

    def __init__(self, context: Context, work: Coroutine[Any, Any, Any]) -> None:
        self._context = context
        self._work = work

    def __await__(self) -> Generator[Any, Any, Any]:
        run, work = self._context.run, self._work
        try:
            waits_for = run(work.send, None)
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    run(work.close)
                    raise
                except BaseException as error:  # noqa: BLE001 - it is the coroutine's to handle, cancellation included
                    waits_for = run(work.throw, error)
                else:
                    waits_for = run(work.send, sent)
        except StopIteration as done:
            return done.value
