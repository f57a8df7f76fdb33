"""How far has the store come? One question at a time, shared by all who came before it began.

A question costs a store and this process as much as some reads do, so under load fewer are better: where the last one
was shared, the next one waits until nobody joins it any more, which is when this process has nothing else to do. Who
asks alone waits for nothing but the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from clusterling.storage.feed import Feed
from clusterling.storage.store import Unavailable

GATHER_S: Final = 0.004  # How long a question waits for more to join it, at most.
# Of the loop without anybody joining: in the first one, some loops have not looked at their sockets yet.
QUIET_TURNS: Final = 2
PATIENCE_S: Final = 1.0  # Who waits by `then` is called after so long, answer or not.


class Question:
    """An answer to come: a revision. Await it as often as you like; who stops waiting leaves it to the others."""

    __slots__ = ("_answer", "_loop", "_patience", "_waiting")

    def __init__(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[int] = loop.create_future()
        self._waiting: list[Callable[[], object]] = []
        self._patience: asyncio.TimerHandle | None = loop.call_later(PATIENCE_S, self._tell)

    @classmethod
    def of(cls, answer: Awaitable[int]) -> Question:
        """What a store of somebody else's answers with."""
        if isinstance(answer, cls):
            return answer
        question = cls()
        question._answer = future = asyncio.ensure_future(answer)
        future.add_done_callback(question._settled)
        return question

    def __await__(self) -> Generator[Any, Any, int]:
        if not self._answer.done():
            return (yield from asyncio.shield(self._answer).__await__())
        return self._answer.result()

    @property
    def answered(self) -> bool:
        """It has been, and not refused."""
        answer = self._answer
        return answer.done() and not answer.cancelled() and answer.exception() is None

    def then(self, callback: Callable[[], object]) -> None:
        """Has `callback` called by the loop once this is answered or refused, or has not been for `PATIENCE_S`.

        All who wait are called in one turn, in the order in which they came.
        """
        if self._patience is None:
            self._loop.call_soon(callback)
        else:
            self._waiting.append(callback)

    def answer(self, revision: int) -> None:
        self._answer.set_result(revision)
        self._tell()

    def refuse(self, error: Exception) -> None:
        """Whoever awaits it gets the error."""
        self._answer.set_exception(error)
        self._settled(self._answer)

    def _settled(self, answer: asyncio.Future[int]) -> None:
        if not answer.cancelled():
            answer.exception()  # Looked at, so that nobody logs it where none waits any more.
        self._tell()

    def _tell(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        waiting, self._waiting = self._waiting, []
        for callback in waiting:
            self._loop.call_soon(callback)


class Questions:
    """Asks a backend by `ask`, which is never called again before it has returned."""

    def __init__(self, ask: Callable[[], Awaitable[int]], feed: Feed) -> None:
        self._ask = ask
        self._feed = feed
        self._next: Question | None = None
        self._joined = 0  # Who waits for the next question,
        self._shared = 0  # and who waited for the last one.
        self._closed = False
        self._asking: asyncio.Task[None] | None = None
        self._behind: set[asyncio.Task[None]] = set()

    def next(self) -> Question:
        """The next question that begins. Its answer: every watch has come as far as the store had when it was asked."""
        question = self._next
        if question is None:
            question = Question()
            if self._closed:
                question.refuse(_closed())
                return question
            self._next = question
            if self._asking is None:
                self._asking = asyncio.get_running_loop().create_task(self._run(), name="storage questions")
        self._joined += 1
        return question

    async def close(self) -> None:
        """Refuses those who wait."""
        self._closed = True
        tasks = [task for task in (self._asking, *self._behind) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._next is not None:
            self._next.refuse(_closed())
            self._next = None

    async def _run(self) -> None:
        """Asks until nobody waits."""
        try:
            while self._next is not None:
                if self._shared > 1:
                    await self._gather()
                question, self._next = self._next, None
                self._shared, self._joined = self._joined, 0
                await self._put(question)
        finally:
            self._asking = None

    async def _gather(self) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + GATHER_S
        joined = quiet = 0
        while quiet < QUIET_TURNS and loop.time() < until:
            await asyncio.sleep(0)
            quiet = quiet + 1 if self._joined == joined else 0
            joined = self._joined

    async def _put(self, question: Question) -> None:
        try:
            revision = await self._ask()
        except asyncio.CancelledError:
            question.refuse(_closed())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who asked
            question.refuse(error)
            return
        if revision <= self._feed.revision:
            question.answer(revision)
        else:
            # The next one need not wait for this: watches come to the answers in their order.
            task = asyncio.get_running_loop().create_task(self._reach(question, revision))
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def _reach(self, question: Question, revision: int) -> None:
        try:
            await self._feed.reached(revision)
        except asyncio.CancelledError:
            question.refuse(_closed())
            raise
        except Exception as error:  # noqa: BLE001 - as above
            question.refuse(error)
        else:
            question.answer(revision)


def _closed() -> Unavailable:
    return Unavailable("the store is closed")
