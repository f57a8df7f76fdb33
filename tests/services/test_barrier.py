"""The barrier as clients of a socket meet it: what waits for the store's answer, what does not, and what it finds then."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

import pytest

from clusterling.services import barrier
from clusterling.services.barrier import Barrier
from clusterling.services.http import Listener
from clusterling.services.request import Headers, Request
from clusterling.storage import question
from clusterling.storage.question import Question
from clusterling.storage.store import Unavailable
from tests.services.serving import CONFIGMAPS, Serving, configmap, serving
from tests.services.test_http import TEAM, connected, get, listening, post


class Answers:
    """The store's end: all who ask share a question until it is answered."""

    def __init__(self) -> None:
        self.open: Question | None = None
        self.count = 0
        self.askers = 0

    def fresh(self) -> Question:
        self.askers += 1
        if self.open is None:
            self.open = Question(asyncio.get_running_loop())
            self.count += 1
        return self.open

    async def asked(self) -> Question:
        while self.open is None:
            await asyncio.sleep(0.001)
        return self.open

    async def answer(self) -> None:
        (await self.asked()).answer(1)
        self.open = None

    async def refuse(self) -> None:
        (await self.asked()).refuse(Unavailable("cut off"))
        self.open = None


@asynccontextmanager
async def among_replicas(**options: float) -> AsyncIterator[tuple[Serving, Answers, Listener]]:
    """A server whose memory has the ConfigMap `a`."""
    store = Answers()
    async with serving(barrier=Barrier(store.fresh, monotonic), **options) as world:
        making = asyncio.ensure_future(world.client().post(CONFIGMAPS, configmap("a")))
        await store.answer()
        await making
        store.count = 0
        async with listening(world) as listener:
            yield world, store, listener


ONE = get(f"{TEAM}{CONFIGMAPS}/a")


async def test_no_request_is_begun_before_the_store_has_answered() -> None:
    begun: list[str] = []
    async with among_replicas() as (world, store, listener), connected(listener) as wire:
        world.app.audit = lambda request, response: begun.append(request.path)
        await wire.send(ONE)
        await store.asked()
        for _ in range(20):
            await asyncio.sleep(0)
        assert begun == [] and world.app.recorder.busy == 0
        await store.answer()
        assert (await wire.answer())[0] == 200
        assert begun == [f"{TEAM}{CONFIGMAPS}/a"]


async def test_all_who_wait_share_one_question() -> None:
    async with among_replicas() as (_, store, listener):
        async with connected(listener) as one, connected(listener) as two, connected(listener) as three:
            store.askers = 0
            for wire in (one, two, three):
                await wire.send(ONE)
            while store.askers < 3:
                await asyncio.sleep(0.001)
            await store.answer()
            assert [(await wire.answer())[0] for wire in (one, two, three)] == [200] * 3
        assert store.count == 1


async def test_requests_sent_in_a_heap_are_answered_in_order_each_by_a_question_of_its_time() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(post(f"{TEAM}{CONFIGMAPS}", json.dumps(configmap("b")).encode()))
        await wire.send(get(f"{TEAM}{CONFIGMAPS}/b") + get("/version") + get(f"{TEAM}{CONFIGMAPS}/none"))
        for _ in range(3):
            await store.answer()
        assert [(await wire.answer())[0] for _ in range(4)] == [201, 200, 200, 404]
        assert store.count == 3


async def test_a_store_that_refuses_is_told_to_each_who_waits() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(ONE)
        await store.refuse()
        status, _, body = await wire.answer()
        assert (status, json.loads(body)["reason"]) == (503, "ServiceUnavailable")
        await wire.send(ONE)
        await store.answer()
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/version", 200),
        ("/livez", 200),
        (f"{TEAM}/readyz", 200),
        (f"{TEAM}/livez/api", 404),  # It has the look of what waits, and is begun all the same.
    ],
)
async def test_what_believes_nothing_is_answered_while_the_store_says_nothing(
    monkeypatch: pytest.MonkeyPatch, target: str, status: int
) -> None:
    monkeypatch.setattr(question, "PATIENCE_S", 0.01)
    async with among_replicas() as (_, _store, listener), connected(listener) as wire:
        await wire.send(get(target))
        assert (await wire.answer())[0] == status


async def test_who_has_no_credential_is_refused_without_a_question() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(f"GET {TEAM}{CONFIGMAPS} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await wire.answer())[0] == 401
        assert store.count == 0


async def test_reads_of_what_is_at_hand_ask_nothing_however_the_parameter_is_spelled() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?resourceVersion=0"))
        assert (await wire.answer())[0] == 200
        assert store.count == 0
        await wire.send(get(f"{TEAM}{CONFIGMAPS}?resource%56ersion=0"))
        await store.answer()
        assert (await wire.answer())[0] == 200


@pytest.mark.parametrize("query", ["", "?timeout=20ms", "?time%6fut=20ms"])
async def test_a_deadline_ends_the_wait_for_a_store_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(question, "PATIENCE_S", 0.01)
    allowed_s = 0.5 if not query else 60.0
    async with among_replicas(request_timeout_s=allowed_s) as (_, store, listener):
        async with connected(listener) as wire:
            await wire.send(get(f"{TEAM}{CONFIGMAPS}/a{query}"))
            status, _, body = await wire.answer()
            assert (status, json.loads(body)["reason"]) == (504, "Timeout")
            # The connection is as good as before, also while the store is silent.
            await wire.send(get("/version"))
            assert (await wire.answer())[0] == 200
        await store.answer()


async def test_an_answer_that_comes_late_serves_who_has_waited_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "PATIENCE_S", 0.01)
    async with among_replicas() as (world, store, listener), connected(listener) as wire:
        await wire.send(ONE)
        while world.app.recorder.busy == 0:  # Begun for want of an answer, and still waiting for it.
            await asyncio.sleep(0.001)
        await store.answer()
        assert (await wire.answer())[0] == 200
        assert store.count == 1


async def test_a_write_whose_client_has_gone_meanwhile_is_not_begun() -> None:
    async with among_replicas() as (world, store, listener):
        async with connected(listener) as wire:
            await wire.send(post(f"{TEAM}{CONFIGMAPS}", json.dumps(configmap("b")).encode()))
            await store.asked()
        while listener.connections:
            await asyncio.sleep(0.001)
        await store.answer()
        async with connected(listener) as wire:
            await wire.send(get(f"{TEAM}{CONFIGMAPS}/b"))
            await store.answer()
            assert (await wire.answer())[0] == 404
        assert world.app.recorder.requests().keys() == {
            ("POST", "", "configmaps", 201),
            ("GET", "", "configmaps", 404),
        }


async def test_a_request_that_waits_when_the_listener_closes_is_answered_before_the_end() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(ONE)
        await store.asked()
        closing = asyncio.ensure_future(listener.close(grace_s=10.0, spread_s=0.0))
        while not listener.closing:
            await asyncio.sleep(0)
        await store.answer()
        status, fields, _ = await wire.answer()
        assert (status, fields["Connection"]) == (200, "close")
        assert await wire.ended()
        await closing


async def test_a_connection_that_is_broken_off_while_its_request_waits_leaves_nothing() -> None:
    async with among_replicas() as (_, store, listener), connected(listener) as wire:
        await wire.send(ONE)
        await store.asked()
        [connection] = listener.open
        connection.abort()
        await store.answer()
        assert await wire.ended()
        while listener.connections:
            await asyncio.sleep(0.001)
        assert connection.task.done()


async def test_the_time_a_request_waits_counts_as_its_own() -> None:
    async with among_replicas() as (world, store, listener), connected(listener) as wire:
        await wire.send(ONE)
        await store.asked()
        await asyncio.sleep(0.05)
        await store.answer()
        assert (await wire.answer())[0] == 200
        taken = [one for one in world.app.recorder.series.values() if one.labels[0] == "GET"]
        assert [one.seconds.total >= 0.05 for one in taken] == [True]


def write() -> Request:
    async def read(_limit: int) -> list[bytes]:
        return [b"{}"]

    return Request("POST", f"{TEAM}{CONFIGMAPS}", "", Headers({"Authorization": "Bearer t"}), read)


async def test_writes_that_come_together_where_nobody_else_writes_begin_together_and_ask_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(barrier, "ALONE_S", 0.0)
    store, others = Answers(), [1]
    alone = Barrier(store.fresh, monotonic, lambda: others[0])
    assert alone.ahead(write()) is store.open  # What there was before the first one is not known yet.
    await asyncio.sleep(0.01)
    began: list[int] = []
    store.askers = 0
    for number in range(3):
        turn = alone.ahead(write())
        assert turn is not None
        turn.then(partial(began.append, number))
    assert began == []
    while len(began) < 3:
        await asyncio.sleep(0.001)
    assert began == [0, 1, 2] and store.askers == 0
    others[0] += 1
    assert alone.ahead(write()) is store.open and store.askers == 1
