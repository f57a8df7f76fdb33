"""The watch response: what reaches the client, and what happens when it does not read."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable

import orjson
import pytest
from typing_extensions import override

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.services import watch as watching
from clusterling.services.request import Headers, Request, StreamingResponse
from clusterling.services.turnstile import ROUNDS, SLICE_S
from tests.peers import Taker
from tests.services.serving import ADMIN, CONFIGMAPS, WIDGETS, Serving, configmap, widget


class Recorder(Taker):
    """Says it is as full as it is told to be."""

    def __init__(self) -> None:
        super().__init__()
        self.full = 0
        self.drain: Callable[[], None] | None = None

    @property
    @override
    def buffered(self) -> int:
        return self.full

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        self.drain = callback

    def events(self) -> list[Object]:
        return [orjson.loads(line) for line in b"".join(self.writes).splitlines()]


async def opened(world: Serving, query: str, *, chunked: bool = False, accept: str = "") -> StreamingResponse:
    async def read(limit: int) -> list[bytes]:
        return []

    headers = Headers({"Accept": accept} if accept else {})
    request = Request(
        "GET",
        f"/clusters/team-a{CONFIGMAPS}",
        f"watch=1&{query}",
        headers,
        read,
        chunked=chunked,
        authenticated_as=ADMIN,
    )
    response = await world.app(request)
    assert isinstance(response, StreamingResponse), response.body
    return response


async def settle() -> None:
    """Lets everything that is ready run."""
    for _ in range(20 * ROUNDS):
        await asyncio.sleep(0)


async def test_changes_arrive_in_order_with_their_revisions(world: Serving) -> None:
    client = world.client()
    async with client.watching(CONFIGMAPS) as events:
        made = await client.post(CONFIGMAPS, configmap("a", x="1"))
        changed = await client.patch(f"{CONFIGMAPS}/a", {"data": {"x": "2"}})
        await client.delete(f"{CONFIGMAPS}/a")
        found = [await anext(events) for _ in range(3)]
    assert [event["type"] for event in found] == ["ADDED", "MODIFIED", "DELETED"]
    assert found[0]["object"] == made
    assert found[1]["object"] == changed
    assert int(found[2]["object"]["metadata"]["resourceVersion"]) > int(
        changed["metadata"]["resourceVersion"]
    )


async def test_a_watch_from_a_revision_tells_what_came_after(world: Serving) -> None:
    client = world.client()
    first = await client.post(CONFIGMAPS, configmap("a"))
    await client.post(CONFIGMAPS, configmap("b"))
    async with client.watching(CONFIGMAPS, resourceVersion=first["metadata"]["resourceVersion"]) as events:
        event = await anext(events)
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")


async def test_initial_events_end_with_a_bookmark_that_says_so(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a"))
    async with client.watching(
        CONFIGMAPS, sendInitialEvents=True, resourceVersionMatch="NotOlderThan", allowWatchBookmarks=True
    ) as events:
        found = [await anext(events) for _ in range(2)]
    assert [event["type"] for event in found] == ["ADDED", "BOOKMARK"]
    assert found[1]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_ends_cleanly_when_its_time_is_over(world: Serving) -> None:
    client = world.client()
    await client.post(CONFIGMAPS, configmap("a"))
    found = [event async for event in client.watch(CONFIGMAPS, timeoutSeconds=1)]
    assert [event["type"] for event in found] == ["ADDED"]
    assert len(world.app.streams) == 0


async def test_a_watch_by_name_tells_of_that_object_alone(world: Serving) -> None:
    client = world.client()
    for name in "ab":
        await client.post(CONFIGMAPS, configmap(name))
    path = "/api/v1/watch/namespaces/default/configmaps/b?timeoutSeconds=1"
    found = [event["object"]["metadata"]["name"] async for event in client.watch(path)]
    assert found == ["b"]


async def test_history_that_is_gone_is_told_in_the_stream(world: Serving) -> None:
    client = world.client()
    for number in range(3):
        await client.post(CONFIGMAPS, configmap(f"c{number}"))
    await world.store.compact(world.store.head())
    await client.delete(f"{CONFIGMAPS}/c0")
    await world.store.compact(world.store.head())
    response = await opened(world, "resourceVersion=1")
    sink = Recorder()
    await response.stream.run(sink)
    await response.close()
    assert response.status == 200
    (event,) = sink.events()
    status = event["object"]
    assert (event["type"], status["kind"], status["apiVersion"]) == ("ERROR", "Status", "v1")
    assert (status["code"], status["reason"]) == (410, "Expired")
    with pytest.raises(ApiError) as caught:
        async for _ in client.watch(CONFIGMAPS, resourceVersion=1):
            pass
    assert (caught.value.code, caught.value.reason) == (410, "Expired")


async def test_frames_are_chunks_for_http_and_lines_in_process(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    for chunked in (True, False):
        response = await opened(world, "timeoutSeconds=5", chunked=chunked)
        sink = Recorder()
        task = asyncio.create_task(response.stream.run(sink))
        await settle()
        response.stream.stop()
        await task
        await response.close()
        (data,) = sink.writes
        if chunked:
            size, _, rest = data.partition(b"\r\n")
            data, end = rest[: int(size, 16)], rest[int(size, 16) :]
            assert end == b"\r\n"
        assert orjson.loads(data)["type"] == "ADDED"


async def test_a_watch_of_tables_tells_tables(world: Serving) -> None:
    await world.client().post(CONFIGMAPS, configmap("a"))
    response = await opened(
        world, "timeoutSeconds=5", accept="application/json;as=Table;g=meta.k8s.io;v=v1,application/json"
    )
    sink = Recorder()
    task = asyncio.create_task(response.stream.run(sink))
    await settle()
    response.stream.stop()
    await task
    await response.close()
    (event,) = sink.events()
    assert event["object"]["kind"] == "Table"
    assert event["object"]["rows"][0]["cells"][0] == "a"


async def test_only_the_first_table_of_each_watch_names_the_columns(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "PAUSE_S_MAX", 0.0)
    accept = "application/json;as=Table;g=meta.k8s.io;v=v1"
    client = world.client()
    early = [await opened(world, "timeoutSeconds=30&resourceVersion=0", accept=accept) for _ in range(2)]
    sinks = [Recorder() for _ in range(3)]
    tasks = [asyncio.create_task(one.stream.run(sink)) for one, sink in zip(early, sinks, strict=False)]
    for name in "ab":
        await client.post(CONFIGMAPS, configmap(name))
        await settle()
    late = await opened(world, "timeoutSeconds=30", accept=accept)
    tasks.append(asyncio.create_task(late.stream.run(sinks[2])))
    await settle()
    await client.post(CONFIGMAPS, configmap("c"))
    await settle()
    for response in (*early, late):
        response.stream.stop()
    await asyncio.gather(*tasks)
    for response in (*early, late):
        await response.close()
    for sink in sinks:
        tables = [event["object"] for event in sink.events()]
        assert [table["rows"][0]["cells"][0] for table in tables] == ["a", "b", "c"]
        assert tables[0]["columnDefinitions"][0]["name"] == "Name"
        assert [table["columnDefinitions"] for table in tables[1:]] == [None, None]


async def test_who_does_not_read_is_left_alone_until_there_is_room(world: Serving) -> None:
    client = world.client()
    response = await opened(world, "timeoutSeconds=30")
    sink = Recorder()
    task = asyncio.create_task(response.stream.run(sink))
    await settle()
    sink.full = watching.BUFFERED_BYTES_MAX + 1
    await client.post(CONFIGMAPS, configmap("a"))
    await settle()
    before = len(sink.writes)
    for name in "bcd":
        await client.post(CONFIGMAPS, configmap(name))
    await settle()
    assert (before, len(sink.writes)) == (1, 1)
    sink.full = 0
    assert sink.drain is not None
    sink.drain()
    await settle()
    response.stream.stop()
    await task
    await response.close()
    assert [event["object"]["metadata"]["name"] for event in sink.events()] == list("abcd")


class Unwilling(Recorder):
    """A sink that is full, and of which the peer reads a little, so many times."""

    def __init__(self, reads: int) -> None:
        super().__init__()
        self.reads = reads
        self.left = watching.BUFFERED_BYTES_MAX + 1 + reads

    @property
    @override
    def buffered(self) -> int:
        if self.reads:
            self.reads -= 1
            self.left -= 1
        return self.left


async def test_who_reads_nothing_more_loses_the_connection_and_who_reads_little_does_not(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "STALLED_S", 0.0)
    client = world.client()
    response = await opened(world, "timeoutSeconds=30")
    sink = Unwilling(reads=100)
    task = asyncio.create_task(response.stream.run(sink))
    await settle()
    await client.post(CONFIGMAPS, configmap("a"))
    with pytest.raises(ConnectionAbortedError):
        await task
    await response.close()
    assert sink.reads == 0
    assert len(world.app.streams) == 0


async def test_what_came_together_is_written_together(world: Serving) -> None:
    client = world.client()
    first = await client.post(CONFIGMAPS, configmap("a"))
    for name in "bcdef":
        await client.post(CONFIGMAPS, configmap(name))
    response = await opened(
        world, f"timeoutSeconds=30&resourceVersion={first['metadata']['resourceVersion']}"
    )
    sink = Recorder()
    task = asyncio.create_task(response.stream.run(sink))
    await settle()
    response.stream.stop()
    await task
    await response.close()
    assert len(sink.writes) == 1
    assert len(sink.events()) == 5


async def test_a_bookmark_comes_once_the_watch_has_moved(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "BOOKMARK_TICK_S", 0.000_1)
    client = world.client()
    now = (await client.get(CONFIGMAPS))["metadata"]["resourceVersion"]
    asked = f"resourceVersion={now}&timeoutSeconds=30&labelSelector=none=such"
    wanted = await opened(world, f"{asked}&allowWatchBookmarks=true")
    unwanted = await opened(world, asked)
    sinks = (Recorder(), Recorder())
    tasks = [
        asyncio.create_task(response.stream.run(sink))
        for response, sink in zip((wanted, unwanted), sinks, strict=True)
    ]
    await settle()
    made = await client.post(CONFIGMAPS, configmap("a"))
    async with asyncio.timeout(10):
        while not sinks[0].writes:
            await asyncio.sleep(0.001)
    for response in (wanted, unwanted):
        response.stream.stop()
    await asyncio.gather(*tasks)
    for response in (wanted, unwanted):
        await response.close()
    event = sinks[0].events()[0]
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
    assert sinks[1].writes == []


async def test_each_watch_gets_one_bookmark_in_sixty_ticks_of_a_second(
    world: Serving,
) -> None:
    client = world.client()
    loop = asyncio.get_running_loop()
    asked = "timeoutSeconds=30&labelSelector=none=such&allowWatchBookmarks=true"
    opened_ones = [await opened(world, asked) for _ in range(3)]
    sinks = [Recorder() for _ in opened_ones]
    tasks = [
        asyncio.create_task(response.stream.run(sink))
        for response, sink in zip(opened_ones, sinks, strict=True)
    ]
    await settle()
    revisions: list[str] = []
    for minute in range(2):
        made = await client.post(CONFIGMAPS, configmap(f"a{minute}"))
        revisions.append(made["metadata"]["resourceVersion"])
        await settle()
        for _ in range(60):
            world.app.streams._send_bookmarks(loop)
        await settle()
    for response in opened_ones:
        response.stream.stop()
    await asyncio.gather(*tasks)
    for response, sink in zip(opened_ones, sinks, strict=True):
        await response.close()
        told = [event["object"]["metadata"]["resourceVersion"] for event in sink.events()]
        assert told[1:] == revisions  # The first ends the initial events, of which there are none.
    assert (watching.BOOKMARK_TICK_S, watching.BOOKMARK_TICKS) == (1.0, 60)


async def test_the_last_that_a_watch_tells_is_how_far_it_has_come(world: Serving) -> None:
    client = world.client()
    response = await opened(world, "timeoutSeconds=1&labelSelector=none=such&allowWatchBookmarks=true")
    sink = Recorder()
    task = asyncio.create_task(response.stream.run(sink))
    await settle()
    made = await client.post(CONFIGMAPS, configmap("a"))
    await task
    await response.close()
    last = sink.events()[-1]
    assert last["type"] == "BOOKMARK"
    assert last["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


async def test_stopping_ends_every_watch_and_refuses_to_begin_more(world: Serving) -> None:
    client = world.client()
    ended: list[int] = []

    async def follow(number: int) -> None:
        async for _ in client.watch(CONFIGMAPS):
            pass
        ended.append(number)

    tasks = [asyncio.create_task(follow(number)) for number in range(20)]
    async with asyncio.timeout(10):
        while len(world.app.streams) < 20:
            await asyncio.sleep(0)
        await world.app.streams.stop(0.05)
        await asyncio.gather(*tasks)
        await follow(20)
    assert sorted(ended) == list(range(21))
    assert world.limits.in_flight == 0


async def test_a_watch_that_is_left_is_closed(world: Serving) -> None:
    client = world.client()
    with pytest.raises(LookupError):
        async with client.watching(WIDGETS) as events:
            await client.post(WIDGETS, widget("w"))
            await anext(events)
            raise LookupError
    assert len(world.app.streams) == 0
    assert world.limits.in_flight == 0


async def test_a_watch_that_was_opened_and_never_run_gives_everything_back(world: Serving) -> None:
    response = await opened(world, "")
    await response.close()
    await response.close()
    assert world.limits.in_flight == 0
    sink = Recorder()
    await response.stream.run(sink)
    assert sink.writes == []


async def test_a_thousand_watches_see_each_change_once(world: Serving) -> None:
    client = world.client()
    responses = [await opened(world, "timeoutSeconds=60") for _ in range(1000)]
    sinks = [Recorder() for _ in responses]
    tasks = [
        asyncio.create_task(response.stream.run(sink))
        for response, sink in zip(responses, sinks, strict=True)
    ]
    await settle()
    for number in range(5):
        await client.post(CONFIGMAPS, configmap(f"c{number}"))
    async with asyncio.timeout(30):
        while any(len(sink.events()) < 5 for sink in sinks):
            await asyncio.sleep(0.01)
    for response in responses:
        response.stream.stop()
    await asyncio.gather(*tasks)
    for response in responses:
        await response.close()
    names = [[event["object"]["metadata"]["name"] for event in sink.events()] for sink in sinks]
    assert all(one == [f"c{number}" for number in range(5)] for one in names)


class Watcher:
    """One client of a story: its sink, and what it has to have seen."""

    def __init__(self, response: StreamingResponse, seen: int) -> None:
        self.response = response
        self.sink = Recorder()
        self.first = seen
        self.task = asyncio.create_task(response.stream.run(self.sink))

    def names(self) -> list[str]:
        return [
            event["object"]["metadata"]["name"] for event in self.sink.events() if event["type"] != "BOOKMARK"
        ]

    def revisions(self) -> list[int]:
        return [int(event["object"]["metadata"]["resourceVersion"]) for event in self.sink.events()]

    def drain(self) -> None:
        self.sink.full = 0
        if self.sink.drain is not None:
            self.sink.drain()

    async def end(self) -> None:
        self.response.stream.stop()
        await self.task
        await self.response.close()


class Story:
    """Watchers that come and go while a collection is written to, over a clock that lets each turn serve a few."""

    def __init__(self, world: Serving, few: int = 1) -> None:
        self.world = world
        self.client = world.client()
        self.watchers: list[Watcher] = []
        self.written = 0
        self.revision = ""
        ticks = itertools.count()
        world.app.streams.clock = world.app.turnstile.clock = lambda: next(ticks) * SLICE_S / few

    async def write(self) -> None:
        made = await self.client.post(CONFIGMAPS, configmap(f"c{self.written}"))
        self.revision = made["metadata"]["resourceVersion"]
        self.written += 1

    async def open(self) -> Watcher:
        if not self.revision:
            await self.write()
        seen = self.written
        query = f"timeoutSeconds=60&allowWatchBookmarks=true&resourceVersion={self.revision}"
        watcher = Watcher(await opened(self.world, query), seen)
        self.watchers.append(watcher)
        return watcher

    async def told(self, watchers: list[Watcher]) -> None:
        """Waits until they have been written all there is, and holds that to be each change once, in order."""
        async with asyncio.timeout(10):
            while any(len(one.names()) < self.written - one.first for one in watchers):
                await asyncio.sleep(0.001)
        for one in watchers:
            assert one.names() == [f"c{number}" for number in range(one.first, self.written)]
            assert one.revisions() == sorted(one.revisions())

    async def end(self) -> None:
        for one in self.watchers:
            await one.end()


async def test_the_slow_among_equals_holds_nobody_up_and_misses_nothing(
    world: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "LOOK_BYTES", 1)
    story = Story(world)
    slow, *others = [await story.open() for _ in range(4)]
    await settle()
    slow.sink.full = watching.BUFFERED_BYTES_MAX + 1
    for _ in range(5):
        await story.write()
        await story.told(others)
    assert len(slow.names()) == 1
    slow.drain()
    await story.told([slow, *others])
    await story.write()
    await story.told([slow, *others])
    await story.end()


async def test_equals_are_looked_at_again_before_much_is_left_unread(world: Serving) -> None:
    story = Story(world)
    slow, other = await story.open(), await story.open()
    await story.write()
    await story.told([slow, other])
    slow.sink.full = watching.BUFFERED_BYTES_MAX + 1
    big = configmap("", text="x" * 20_000)
    for number in range(10):
        big["metadata"]["name"] = f"big{number}"
        await story.client.post(CONFIGMAPS, big)
        async with asyncio.timeout(10):
            while f"big{number}" not in other.names():
                await asyncio.sleep(0.001)
    assert sum(map(len, slow.sink.writes)) < watching.LOOK_BYTES + 50_000
    slow.drain()
    await settle()
    assert slow.names() == other.names()
    await story.end()


async def test_what_is_written_during_a_round_follows_it(world: Serving) -> None:
    story = Story(world, few=3)
    watchers = [await story.open() for _ in range(300)]
    for turns in range(0, 80, 20):
        await story.write()
        for _ in range(turns):
            await asyncio.sleep(0)
        await story.write()
        await story.told(watchers)
    await story.end()


async def test_whoever_leaves_the_others_go_on(world: Serving) -> None:
    story = Story(world)
    watchers = [await story.open() for _ in range(5)]
    while watchers:
        await story.write()
        await story.told(watchers)
        await story.write()  # They leave before it has reached them all.
        gone = watchers.pop(0)
        gone.response.stream.stop()
        written = len(gone.sink.writes)
        await story.told(watchers)
        assert len(gone.sink.writes) == written
    await story.end()
    assert len(world.app.streams) == 0


@pytest.mark.parametrize("seed", range(20))
async def test_watchers_that_come_stall_and_go_see_each_change_once_and_in_order(
    world: Serving, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(watching, "LOOK_BYTES", 1)
    monkeypatch.setattr(watching, "BOOKMARK_TICK_S", 0.0)
    monkeypatch.setattr(watching, "PAUSE_S_MAX", 0.001)
    chance = random.Random(seed)
    story = Story(world, few=1 + seed % 5)
    there: list[Watcher] = []
    for _ in range(60):
        match chance.choice(("write", "write", "write", "open", "open", "stall", "drain", "leave", "wait")):
            case "write":
                await story.write()
            case "open":
                there.append(await story.open())
            case "stall" if there:
                chance.choice(there).sink.full = watching.BUFFERED_BYTES_MAX + 1
            case "drain" if there:
                chance.choice(there).drain()
            case "leave" if there:
                await there.pop(chance.randrange(len(there))).end()
            case _:
                await asyncio.sleep(chance.random() * 0.002)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
    for one in there:
        one.drain()
    await story.told(there)
    await story.write()
    await story.told(there)
    await story.end()
    assert len(world.app.streams) == 0


async def test_when_the_collection_is_dropped_all_equals_end(world: Serving) -> None:
    story = Story(world)
    watchers = [await story.open() for _ in range(3)]
    await story.write()
    await story.told(watchers)
    (entry,) = (await world.store.list("", limit=1)).entries
    await world.store.drop(entry.key.partition("/")[0] + "/")
    async with asyncio.timeout(10):
        await asyncio.gather(*(one.task for one in watchers))
    assert [len(one.names()) for one in watchers] == [1, 1, 1]
    await story.end()
