"""How far has the store come? One question at a time, shared by all who came before it began.

A question costs a store and this process as much as some reads do, so under load fewer are better: the next one waits for
those whom the last one answered (`company.py`). Who asks alone waits for nothing but the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final

from clusterling.storage.company import Company
from clusterling.storage.feed import Feed
from clusterling.storage.store import Unavailable

GATHER_MAX_S: Final = 0.001  # Without anybody, and a question begins; sooner where the last one took less.
PATIENCE_S: Final = 1.0  # Who waits by `then` is called after so long, answer or not.


class Question:
    """An answer to come: a revision. Await it as often as you like; who stops waiting leaves it to the others."""

    __slots__ = ("_answer", "_loop", "_patience", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._answer: asyncio.Future[int] = loop.create_future()
        self._waiting: list[Callable[[], object]] = []
        self._patience: asyncio.TimerHandle | None = loop.call_later(PATIENCE_S, self._tell)

    @classmethod
    def of(cls, answer: Awaitable[int]) -> Question:
        """What a store of somebody else's answers with."""
        if isinstance(answer, cls):
            return answer
        question = cls(asyncio.get_running_loop())
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
    """Asks a backend by `ask`, which is never called again before it has returned. With a feed, its watches come as far first."""

    def __init__(self, ask: Callable[[], Awaitable[int]], feed: Feed | None = None) -> None:
        self._ask = ask
        self._feed = feed
        self._loop = asyncio.get_running_loop()  # Looking for it is a system call each time.
        self._next: Question | None = None
        self._joined = 0  # How many wait for the next question.
        self._company = Company()
        self._closed = False
        self._asking: asyncio.Task[None] | None = None
        self._behind: set[asyncio.Task[None]] = set()

    def next(self) -> Question:
        """The next question that begins. Its answer: every watch has come as far as the store had when it was asked."""
        question = self._next
        if question is None:
            question = Question(self._loop)
            if self._closed:
                question.refuse(_closed())
                return question
            self._next = question
            if self._asking is None:
                self._asking = self._loop.create_task(self._run(), name="storage questions")
        self._joined += 1
        self._company.came(self._joined)
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
        loop = self._loop
        try:
            while self._next is not None:
                await self._company.gather(lambda: self._joined)
                question, self._next = self._next, None
                shared, self._joined = self._joined, 0
                began = loop.time()
                await self._put(question)
                took_s = loop.time() - began
                self._company.served(shared + self._joined, min(took_s, GATHER_MAX_S))
        finally:
            self._asking = None

    async def _put(self, question: Question) -> None:
        try:
            revision = await self._ask()
        except asyncio.CancelledError:
            question.refuse(_closed())
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it is for those who asked
            question.refuse(error)
            return
        feed = self._feed
        if feed is None or revision <= feed.revision:
            question.answer(revision)
        else:
            # The next one need not wait for this: watches come to the answers in their order.
            task = self._loop.create_task(self._reach(feed, question, revision))
            self._behind.add(task)
            task.add_done_callback(self._behind.discard)

    async def _reach(self, feed: Feed, question: Question, revision: int) -> None:
        try:
            await feed.reached(revision)
        except asyncio.CancelledError:
            question.refuse(_closed())
            raise
        except Exception as error:  # noqa: BLE001 - as above
            question.refuse(error)
        else:
            question.answer(revision)


def _closed() -> Unavailable:
    return Unavailable("the store is closed")
