"""What a request may believe: that memory knows all that any replica acknowledged before it came.

One question to the store, shared by all who wait, asked once for each request and before anything is believed:
credentials, names of clusters, catalogs, objects. Below this no read asks again. Where this process is alone with
its store there is nothing to ask.

Nearly every request waits for that answer and for nothing else. So whoever brings requests from a socket asks for them as
they come (`ahead`) and begins them when the answer is there: they then run through without a wait, and cost no task. What
a request may do without is for the filter alone to say; where `ahead` thinks otherwise, it costs time and nothing else.

Writes that are expected to commit wait for nothing where nobody else has written lately (`Barrier.is_alone`): their commit tells
whether what they believed was so (`storage/others.py`). Where none was made, or it was refused, the store is asked
afterwards, and the answer stands if nobody has written since the request began.

And where a write finds at its commit that the ground it stood on is another (a schema replaced, a cluster deleted since),
the whole request is answered again from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from clusterling.machinery.errors import ApiError
from clusterling.registry.committing import GroundMoved
from clusterling.services.health import ENDPOINTS
from clusterling.services.request import Request, Response
from clusterling.storage.others import Standing
from clusterling.storage.question import Question, Questions

if TYPE_CHECKING:
    from clusterling.services.app import App, Handler

ATTEMPTS_MAX: Final = 8
# Reads at resourceVersion "0" take what is at hand, credentials included, unless the store has not been heard of for so long.
AT_HAND_S: Final = 10.0

ALONE_S: Final = 1.0  # For so long after a write of somebody else writes ask before they begin.

_READS: Final = frozenset({"get", "list", "watch"})
_COMMITS: Final = frozenset({"create", "update", "patch", "delete"})
_WRITING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_NO: Final = frozenset({401, 403, 404})
_OF_ITSELF: Final = ENDPOINTS | {"version", "metrics"}


class Barrier:
    """Asks `fresh`, and remembers when it was last answered. `others` as in `storage/others.py`, where the store can tell."""

    def __init__(
        self,
        fresh: Callable[[], Awaitable[int]],
        monotonic: Callable[[], float],
        others: Callable[[], int] | None = None,
    ) -> None:
        self._fresh = fresh
        self._others = others
        self._count = 0
        self._calming: asyncio.TimerHandle | None = None
        self._together: Questions | None = None
        self._monotonic = monotonic
        self._passed_s = float("-inf")
        self._last: Question | None = None  # Of those that were asked ahead.

    def ahead(self, request: Request) -> Question | None:
        """What a request that has just come should wait for before it is begun; None where it seems not to need it."""
        if _may_go_on(request):
            return None
        if request.method in _WRITING and self.is_alone:
            # Nothing is asked; but writes that are begun one after the other cost less than those begun as they come.
            if self._together is None:
                self._together = Questions(_nothing)
            return self._together.next()
        question = Question.of(self._fresh())
        if question is not self._last:
            self._last = question
            question.then(partial(self._note, question, self._monotonic()))
        request.asked = question
        return question

    def _note(self, question: Question, asked_s: float) -> None:
        if question.answered:
            self._passed_s = max(self._passed_s, asked_s)

    async def passed(self, request: Request) -> None:
        """Returns when memory knows all that was acknowledged before the call, or before the request was asked for ahead.

        Raises StorageError.
        """
        asked, request.asked = request.asked, None
        if asked is not None:
            await asked
            return
        asked_s = self._monotonic()
        await self._fresh()
        self._passed_s = max(self._passed_s, asked_s)

    def others(self) -> int:
        """How often others were seen to write."""
        assert self._others is not None, "asked where `is_alone` said so"
        return self._others()

    @property
    def is_alone(self) -> bool:
        """Nobody else has been seen to write for `ALONE_S`; whoever follows the store has taken what came before."""
        if self._others is None:
            return False
        count = self._others()
        if count != self._count:
            self._count = count
            if self._calming is not None:
                self._calming.cancel()
            self._calming = asyncio.get_running_loop().call_later(ALONE_S, self._calm)
        return self._calming is None

    def _calm(self) -> None:
        self._calming = None

    @property
    def is_recent(self) -> bool:
        """What is at hand is at most `AT_HAND_S` old."""
        return self._monotonic() - self._passed_s <= AT_HAND_S


def with_barrier(app: App, handle: Handler) -> Handler:
    """Takes the barrier, where there is one, and answers again what was computed from what has changed."""
    barrier = app.barrier

    async def again(request: Request) -> Response:
        moved: GroundMoved | None = None
        for _ in range(ATTEMPTS_MAX - 1):
            if barrier is not None:
                await barrier.passed(request)
            try:
                return await handle(request)
            except GroundMoved as error:
                moved = error
        assert moved is not None, "an attempt that did not return has raised"
        raise moved

    def alone(request: Request) -> Awaitable[Response]:
        # Reads stand on no ground that could move.
        return handle(request) if request.info.verb in _READS else written(request)

    async def written(request: Request) -> Response:
        try:
            return await handle(request)
        except GroundMoved:
            return await again(request)

    def among_others(request: Request) -> Awaitable[Response]:
        asked = request.asked
        if asked is not None and asked.answered:
            request.asked = None
            return alone(request)
        assert barrier is not None, "this is for replicas"
        info = request.info
        if asked is None and info.verb in _COMMITS and not info.subresource and barrier.is_alone:
            return _trusting(barrier, handle, again, request)
        return waiting(request)

    async def waiting(request: Request) -> Response:
        assert barrier is not None, "this is for replicas"
        if _believes_nothing(request):
            return await handle(request)
        if not (_takes_what_is_at_hand(request) and barrier.is_recent):
            await barrier.passed(request)
            return await alone(request)
        try:
            response = await handle(request)
        except ApiError as error:
            if error.code not in _NO:
                raise
        else:
            if response.status not in _NO:
                return response
        # A no is said by what is certain.
        return await again(request)

    return alone if barrier is None else among_others


async def _nothing() -> int:
    return 0


async def _trusting(barrier: Barrier, handle: Handler, again: Handler, request: Request) -> Response:
    """Begins at once; its commit, or the store afterwards, tells whether others had written what it should have known."""
    standing = request.standing = Standing(barrier.others())
    refused: ApiError | None = None
    response: Response | None = None
    try:
        response = await handle(request)
    except GroundMoved:
        request.standing = None
        return await again(request)
    except ApiError as error:
        if standing.settled or _believes_nothing(request):
            raise
        refused = error
    request.standing = None
    if not standing.settled:
        await barrier.passed(request)
        if barrier.others() != standing.count:
            return await again(request)
    if refused is not None:
        raise refused
    assert response is not None, "it was answered or refused"
    return response


def _may_go_on(request: Request) -> bool:
    """From the raw request: it does without the barrier, or has a deadline of its own, which the filter keeps."""
    query = request.query
    return (
        ("Authorization" not in request.headers and request.peer.certificate is None)
        or "/api" not in request.path
        or (query != "" and ("resourceVersion=" in query or "timeout=" in query))
    )


def _believes_nothing(request: Request) -> bool:
    """It is refused for want of a credential, or asks for what this process knows of itself."""
    anonymous = request.authenticated_as is None and request.peer.certificate is None
    if anonymous and "Authorization" not in request.headers:
        return True
    info = request.info
    return not info.is_resource and info.path.strip("/").partition("/")[0] in _OF_ITSELF


def _takes_what_is_at_hand(request: Request) -> bool:
    info = request.info
    return info.verb in _READS and info.query.get("resourceVersion") == ["0"]
