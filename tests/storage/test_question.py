"""How far the store has come: who shares an answer with whom, and what becomes of those who wait when there is none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from clusterling.storage import question
from clusterling.storage.feed import Feed
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.question import Question, Questions
from clusterling.storage.store import Unavailable


class Asked:
    """A store's end of it: each question waits until it is answered, with the number of the question."""

    def __init__(self) -> None:
        self.feed = Feed(MemoryBackend())
        self.questions = Questions(self._ask, self.feed)
        self.count = 0
        self._open: asyncio.Future[int] | None = None

    async def _ask(self) -> int:
        assert self._open is None, "one question at a time"
        self.count += 1
        self._open = asyncio.get_running_loop().create_future()
        try:
            return await self._open
        finally:
            self._open = None

    async def answer(self, outcome: int | Exception) -> None:
        """Answers the question that is under way, or the next."""
        while self._open is None:
            await asyncio.sleep(0)
        if isinstance(outcome, Exception):
            self._open.set_exception(outcome)
        else:
            self._open.set_result(outcome)
        while self._open is not None:
            await asyncio.sleep(0)

    async def under_way(self) -> None:
        while self._open is None:
            await asyncio.sleep(0)


@asynccontextmanager
async def asked() -> AsyncIterator[Asked]:
    store = Asked()
    try:
        yield store
    finally:
        await store.questions.close()
        store.feed.close()


async def test_who_came_before_a_question_shares_it_and_who_comes_later_waits_for_the_next() -> None:
    async with asked() as store:
        early = [store.questions.next() for _ in range(3)]
        await store.under_way()
        late = [store.questions.next() for _ in range(2)]
        await store.answer(0)
        assert [await one for one in early] == [0, 0, 0]
        assert not any(one.answered for one in late)
        await store.answer(1)
        assert [await one for one in late] == [1, 1]
        assert store.count == 2


async def test_who_stops_waiting_leaves_the_answer_to_the_others() -> None:
    async with asked() as store:
        first = store.questions.next()
        leaving = asyncio.ensure_future(_awaited(first))
        staying = asyncio.ensure_future(_awaited(store.questions.next()))
        await store.under_way()
        leaving.cancel()
        await store.answer(1)
        assert await staying == 1
        assert leaving.cancelled()


async def _awaited(asked: Question) -> int:
    return await asked


async def test_an_error_is_for_all_who_shared_the_question_and_for_nobody_else() -> None:
    async with asked() as store:
        early = [store.questions.next() for _ in range(2)]
        await store.under_way()
        late = store.questions.next()
        await store.answer(Unavailable("cut off"))
        for one in early:
            for _ in range(2):
                with pytest.raises(Unavailable, match="cut off"):
                    await one
        await store.answer(1)
        assert await late == 1


async def test_an_answer_waits_until_watches_have_come_as_far_and_the_next_question_does_not() -> None:
    async with asked() as store:
        first = store.questions.next()
        await store.answer(2)  # More than anybody here has been told.
        second = store.questions.next()
        await store.answer(3)
        assert not first.answered and not second.answered
        store.feed.publish([], 2)
        assert await first == 2
        assert not second.answered
        store.feed.publish([], 3)
        assert await second == 3


async def test_a_crowd_that_comes_back_shares_the_next_question_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(question, "GATHER_MAX_S", 30.0)
    async with asked() as store:

        async def ask_again_and_again(number: int) -> None:
            for _ in range(5):
                await store.questions.next()
                for _ in range(number):  # They do not come back at once, nor together.
                    await asyncio.sleep(0)

        async def answer_all() -> None:
            while True:
                await store.under_way()
                await asyncio.sleep(0.2)  # As long as one that comes may take.
                await store.answer(0)

        answering = asyncio.ensure_future(answer_all())
        await asyncio.gather(*(ask_again_and_again(number) for number in range(16)))
        answering.cancel()
        assert store.count == 5


async def test_who_asks_alone_is_not_kept_waiting_for_others_who_do_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with asked() as store:
        crowd = [store.questions.next() for _ in range(16)]
        await store.answer(0)
        assert all([await one == 0 for one in crowd])
        alone = store.questions.next()  # What the crowd left is waited for once.
        await store.answer(0)
        assert await alone == 0
        monkeypatch.setattr(question, "GATHER_MAX_S", 1e9)
        for _ in range(5):
            alone = store.questions.next()
            await store.answer(0)
            assert await alone == 0
        assert store.count == 7


async def test_callers_are_called_in_the_order_in_which_they_came() -> None:
    async with asked() as store:
        heard: list[int] = []
        for number in range(5):
            store.questions.next().then(partial(heard.append, number))
        await store.answer(0)
        await asyncio.sleep(0)
        assert heard == [0, 1, 2, 3, 4]


async def test_callers_are_called_after_a_while_even_where_the_store_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(question, "PATIENCE_S", 0.01)
    async with asked() as store:
        one = store.questions.next()
        early, late = asyncio.Event(), asyncio.Event()
        one.then(early.set)
        await early.wait()
        assert not one.answered
        one.then(late.set)
        await late.wait()
        assert not one.answered
        await store.answer(0)
        assert await one == 0


async def test_closing_refuses_who_waits_and_who_comes() -> None:
    store = Asked()
    under_way = store.questions.next()
    await store.under_way()
    waiting = store.questions.next()
    await store.questions.close()
    store.feed.close()
    for one in (under_way, waiting, store.questions.next()):
        with pytest.raises(Unavailable, match="closed"):
            await one


async def test_a_store_that_answers_by_a_coroutine_is_asked_once_for_each_question() -> None:
    async def seven() -> int:
        return 7

    async def cut_off() -> int:
        raise Unavailable("cut off")

    answered, refused = Question.of(seven()), Question.of(cut_off())
    told = asyncio.Event()
    answered.then(told.set)
    await told.wait()
    assert answered.answered
    assert [await answered, await answered] == [7, 7]
    assert Question.of(answered) is answered
    with pytest.raises(Unavailable):
        await refused
    assert not refused.answered
