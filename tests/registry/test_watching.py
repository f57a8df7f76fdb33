"""What a watcher of one kind sees."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any

import orjson
import pytest

from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.selectors import LabelSelector
from clusterling.registry.options import DeleteOptions, WatchOptions, WriteOptions
from clusterling.registry.views import Selection
from clusterling.registry.watching import LOOKED_AT, ObjectWatch
from clusterling.storage.store import Entry, Op
from tests.registry.conftest import World


class Lines:
    """Frames as lines of JSON."""

    key: Hashable = "lines"

    @property
    def following(self) -> Lines:
        return self

    def frame(self, event_type: str, value: bytes) -> bytes:
        return orjson.dumps({"type": event_type, "object": orjson.loads(value)}) + b"\n"

    def join(self, frames: Sequence[bytes]) -> bytes:
        return b"".join(frames)


def taken(watch: ObjectWatch) -> list[tuple[str, Object]]:
    events = []
    while (data := watch.take()) is not None:
        for line in data.splitlines():
            event = orjson.loads(line)
            events.append((event["type"], event["object"]))
    return events


def brief(events: list[tuple[str, Object]]) -> list[tuple[str, str]]:
    return [(kind, obj["metadata"].get("name", "")) for kind, obj in events]


async def label(world: World, name: str, value: str) -> Object:
    def change(current: Object) -> Object:
        current["metadata"]["labels"] = {"on": value}
        return current

    answer = await world.objects.patch(world.context(), world.served, "default", name, change, WriteOptions())
    labelled: Object = orjson.loads(answer)
    return labelled


async def test_a_watch_from_a_revision_replays_then_follows(world: World) -> None:
    first = await world.create("a")
    await world.create("b")
    options = WatchOptions(resource_version=first["metadata"]["resourceVersion"])
    async with world.objects.watch(world.served, "default", options, Lines()) as watch:
        assert brief(taken(watch)) == [("ADDED", "b")]
        await label(world, "a", "x")
        _, gone = await world.objects.delete(world.context(), world.served, "default", "b", DeleteOptions())
        assert gone
        events = taken(watch)
        assert brief(events) == [("MODIFIED", "a"), ("DELETED", "b")]
        # The deletion has a revision of its own, above all that came before (semantics: C7).
        revisions = [int(obj["metadata"]["resourceVersion"]) for _, obj in events]
        assert revisions == sorted(set(revisions))


async def test_a_watch_without_a_revision_begins_with_what_is_there(world: World) -> None:
    await world.create("a")
    async with world.objects.watch(world.served, "", WatchOptions(), Lines()) as watch:
        await world.create("b")
        assert brief(taken(watch)) == [("ADDED", "a"), ("ADDED", "b")]


async def test_initial_events_end_with_an_annotated_bookmark(world: World) -> None:
    created = await world.create("a")
    options = WatchOptions(send_initial_events=True, resource_version_match="NotOlderThan", bookmarks=True)
    async with world.objects.watch(world.served, "", options, Lines()) as watch:
        events = taken(watch)
    assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK"]
    mark = events[1][1]
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(mark["metadata"]["resourceVersion"]) >= int(created["metadata"]["resourceVersion"])


async def test_watches_that_begin_alike_look_for_what_they_select_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    matches = Selection.matches

    def looking(selection: Selection, entry: Entry) -> bool:
        looked.append(entry.key)
        return matches(selection, entry)

    names = [f"c{number:03}" for number in range(LOOKED_AT * 2 + 10)]
    for name in names:
        await world.create(name, metadata={"labels": {"on": "yes" if name.endswith("5") else "no"}})
    chosen = [("ADDED", name) for name in names if name.endswith("5")]
    options = WatchOptions(label_selector=LabelSelector.parse("on=yes"))
    others = WatchOptions(label_selector=LabelSelector.parse("on=no"))
    monkeypatch.setattr(Selection, "matches", looking)
    watching = partial(world.objects.watch, world.served, "default")
    async with watching(options, Lines()) as one, watching(options, Lines()) as two:
        for _ in range(2):
            one.take()
            two.take()
        async with watching(options, Lines()) as three, watching(others, Lines()) as four:
            assert brief(taken(three)) == chosen
            assert len(looked) == len(names)
            assert len(taken(four)) == len(names) - len(chosen)
            assert len(looked) == 2 * len(names)
    await label(world, "c000", "yes")
    async with watching(options, Lines()) as after:
        assert brief(taken(after)) == [("ADDED", "c000"), *chosen]


async def test_who_begins_while_another_does_gets_all_that_it_selects(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusterling.registry.watching.SLICE_S", 0.0)
    names = [f"c{number:03}" for number in range(LOOKED_AT * 2 + 10)]
    for name in names:
        await world.create(name, metadata={"labels": {"on": "yes" if name.endswith("5") else "no"}})
    chosen = [("ADDED", name) for name in names if name.endswith("5")]
    options = WatchOptions(label_selector=LabelSelector.parse("on=yes"))
    watching = partial(world.objects.watch, world.served, "default", options, Lines())
    async with watching() as one, watching() as two:
        frames: dict[ObjectWatch, bytes] = {one: b"", two: b""}
        going = [one, two, two]
        while going:
            watch = going[len(frames[one]) % len(going)]
            data = watch.take()
            if data is None:
                going = [other for other in going if other is not watch]
            else:
                frames[watch] += data
        for sent in frames.values():
            assert [orjson.loads(line)["object"]["metadata"]["name"] for line in sent.splitlines()] == [
                name for _, name in chosen
            ]


async def test_leaving_a_selection_is_deleted_and_entering_is_added(world: World) -> None:
    await world.create("a", metadata={"labels": {"on": "yes"}})
    await world.create("b")
    options = WatchOptions(label_selector=LabelSelector.parse("on=yes"))
    async with world.objects.watch(world.served, "default", options, Lines()) as watch:
        assert brief(taken(watch)) == [("ADDED", "a")]
        left = await label(world, "a", "no")
        entered = await label(world, "b", "yes")
        events = taken(watch)
    assert brief(events) == [("DELETED", "a"), ("ADDED", "b")]
    assert events[0][1]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
    assert events[0][1]["metadata"]["labels"] == {"on": "yes"}
    assert events[1][1] == entered


async def test_bookmarks_tell_nothing_of_what_others_write(world: World) -> None:
    options = WatchOptions(bookmarks=True)
    async with world.objects.watch(world.served, "", options, Lines()) as watch:
        created = await world.create("a")
        taken(watch)
        await world.store.write([Op("other/things/-/x", b"{}")])
        mark = orjson.loads(watch.bookmark() or b"{}")
        assert mark["object"]["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
        await world.store.write([Op("other/things/-/y", b"{}")])
        assert watch.bookmark() is None


async def test_a_bookmark_comes_only_when_something_moved(world: World) -> None:
    options = WatchOptions(bookmarks=True)
    async with world.objects.watch(world.served, "", options, Lines()) as watch:
        taken(watch)
        assert watch.bookmark() is None
        created = await world.create("a")
        taken(watch)
        mark = orjson.loads(watch.bookmark() or b"{}")
        assert mark["type"] == "BOOKMARK"
        assert int(mark["object"]["metadata"]["resourceVersion"]) >= int(
            created["metadata"]["resourceVersion"]
        )
        assert watch.bookmark() is None


async def test_history_that_is_gone_answers_410_expired(world: World) -> None:
    first = await world.create("a")
    for number in range(5):
        await label(world, "a", str(number))
    store: Any = world.store
    await store.compact(world.store.head())
    fresh = WatchOptions(resource_version=str(int(first["metadata"]["resourceVersion"]) - 1))
    with pytest.raises(ApiError) as refused:
        async with world.objects.watch(world.served, "default", fresh, Lines()):
            pass
    assert (refused.value.code, refused.value.reason) == (410, "Expired")
    assert refused.value.message.startswith("too old resource version: ")


async def test_equal_watchers_share_their_frames(world: World) -> None:
    async with (
        world.objects.watch(world.served, "", WatchOptions(), Lines()) as one,
        world.objects.watch(world.served, "", WatchOptions(), Lines()) as other,
    ):
        taken(one)
        taken(other)
        await world.create("a")
        assert one.take() is other.take()
