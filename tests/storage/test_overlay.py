"""What shows through from below, and what a cluster's own writes make of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from clusterling.storage import memory
from clusterling.storage.cache import CachedStore
from clusterling.storage.guarded import Guarded
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.metered import MeteredStore
from clusterling.storage.overlay import Overlay
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    Entry,
    Guard,
    GuardFailed,
    KeyExists,
    Op,
    RevisionConflict,
    Store,
)
from clusterling.testing.store_contract import put, remove, shown, take

THINGS = "core/namespaces/"


def derive(key: str, value: bytes) -> bytes:
    return value + b" of mine"


@dataclass
class Layers:
    base: Store
    lower: Store
    upper: Store
    overlay: Store
    other: Store


@pytest.fixture(params=["plain", "read through a cache", "under a cache"])
async def layers(request: pytest.FixtureRequest) -> AsyncIterator[Layers]:
    async with memory.open() as base:
        lower, upper = Keyspace(base, "lower"), Keyspace(base, "mine")
        for name in ("default", "kube-public", "kube-system"):
            await put(lower, f"{THINGS}-/{name}", name.encode())
        async with CachedStore(lower) as reads:
            overlay: Store = Overlay(upper, lower, derive, reads=None if request.param == "plain" else reads)
            other = Overlay(Keyspace(base, "other"), lower, derive)
            if request.param != "under a cache":
                yield Layers(base, lower, upper, overlay, other)
            else:
                async with CachedStore(overlay) as cached:
                    yield Layers(base, lower, upper, cached, other)


async def names(store: Store) -> list[str]:
    entries = (await store.list(THINGS)).entries
    for entry in entries:
        assert await store.get(entry.key) == entry
    assert await store.count(THINGS) == len(entries)
    return [entry.key.rpartition("/")[2] for entry in entries]


async def test_lower_entries_show_derived_at_the_revision_of_their_lower_write(layers: Layers) -> None:
    lower = (await layers.lower.list(THINGS)).entries
    entries = (await layers.overlay.list(THINGS)).entries
    assert [(e.key, e.value, e.revision) for e in entries] == [
        (e.key, e.value + b" of mine", e.revision) for e in lower
    ]
    assert await names(layers.overlay) == ["default", "kube-public", "kube-system"]


async def test_pages_merge_both_in_order(layers: Layers) -> None:
    for name in ("a", "e", "kube-node-lease", "z"):
        await put(layers.overlay, f"{THINGS}-/{name}", b"own")
    await remove(layers.overlay, f"{THINGS}-/kube-public")
    expected = ["a", "default", "e", "kube-node-lease", "kube-system", "z"]
    for limit in range(1, 8):
        seen: list[str] = []
        after, revision = "", 0
        while True:
            page = await layers.overlay.list(THINGS, after=after, limit=limit, revision=revision)
            assert len(page.entries) <= limit
            assert page.remaining in {None, len(expected) - len(seen) - len(page.entries)}
            seen += [entry.key.rpartition("/")[2] for entry in page.entries]
            if len(page.entries) < limit:
                break
            after, revision = page.entries[-1].key, page.revision
        assert seen == expected


async def test_writing_copies_up_and_nobody_else_sees_it(layers: Layers) -> None:
    key = f"{THINGS}-/default"
    below = await layers.overlay.get(key)
    assert below is not None
    revision = await put(layers.overlay, key, b"changed", below.revision)
    assert await layers.overlay.get(key) == Entry(key, b"changed", revision)
    assert shown((await layers.other.list(THINGS)).entries)[0] == (key, b"default of mine")
    assert shown((await layers.lower.list(THINGS)).entries)[0] == (key, b"default")


async def test_deleting_leaves_a_hole_that_can_be_filled(layers: Layers) -> None:
    key = f"{THINGS}-/default"
    below = await layers.overlay.get(key)
    assert below is not None
    gone = await remove(layers.overlay, key, below.revision)
    assert await layers.overlay.get(key) is None
    assert await names(layers.overlay) == ["kube-public", "kube-system"]
    for expected in (None, ABSENT, gone, below.revision):
        with pytest.raises(RevisionConflict):
            await remove(layers.overlay, key, expected)
    for expected in (gone, below.revision):
        with pytest.raises(RevisionConflict):
            await put(layers.overlay, key, b"", expected)
    await put(layers.overlay, key, b"back", ABSENT)
    with pytest.raises(KeyExists):
        await put(layers.overlay, key, b"", ABSENT)
    assert await names(layers.overlay) == ["default", "kube-public", "kube-system"]
    await remove(layers.overlay, key)
    assert await names(layers.overlay) == ["kube-public", "kube-system"]
    assert await names(layers.other) == ["default", "kube-public", "kube-system"]


async def test_a_lower_key_exists_for_those_who_create(layers: Layers) -> None:
    with pytest.raises(KeyExists):
        await put(layers.overlay, f"{THINGS}-/default", b"", ABSENT)
    with pytest.raises(RevisionConflict):
        await put(layers.overlay, f"{THINGS}-/default", b"", layers.overlay.head() + 5)


async def test_of_many_that_copy_one_key_up_one_wins(layers: Layers) -> None:
    key = f"{THINGS}-/default"
    below = await layers.overlay.get(key)
    assert below is not None
    results = await asyncio.gather(
        *(put(layers.overlay, key, bytes([n]), below.revision) for n in range(8)),
        *(remove(layers.overlay, key, below.revision) for _ in range(8)),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["RevisionConflict"] * 15 + ["int"]


async def test_guards_hold_on_lower_keys_and_holes(layers: Layers) -> None:
    key = f"{THINGS}-/default"
    below = await layers.overlay.get(key)
    assert below is not None
    await layers.overlay.write([Op("core/things/-/a", b"")], [Guard(key, below.revision)])
    with pytest.raises(GuardFailed):
        await layers.overlay.write([Op("core/things/-/b", b"")], [Guard(key, ABSENT)])
    gone = await remove(layers.overlay, key)
    await layers.overlay.write([Op("core/things/-/b", b"")], [Guard(key, ABSENT)])
    for revision in (below.revision, gone):
        with pytest.raises(GuardFailed) as caught:
            await layers.overlay.write([Op("core/things/-/c", b"")], [Guard(key, revision)])
        assert caught.value.args[0] == key
    back = await put(layers.overlay, key, b"back")
    await layers.overlay.write([Op("core/things/-/c", b"")], [Guard(key, back)])


async def test_a_watch_tells_what_shows(layers: Layers) -> None:
    key = f"{THINGS}-/default"
    start = layers.overlay.head()
    async with layers.overlay.watch(THINGS, after=start) as watch:
        copied = await put(layers.overlay, key, b"copied")
        gone = await remove(layers.overlay, key)
        back = await put(layers.overlay, key, b"back")
        gone_too = await remove(layers.overlay, f"{THINGS}-/kube-public")
        live = await take(watch, 4)
    async with layers.overlay.watch(THINGS, after=start) as watch:
        replayed = await take(watch, 4)
    for events in (live, replayed):
        assert [(e.revision, e.entry and e.entry.value) for e in events] == [
            (copied, b"copied"),
            (gone, None),
            (back, b"back"),
            (gone_too, None),
        ]
        before = [event.previous() for event in events]
        assert [entry and entry.value for entry in before] == [
            b"default of mine",
            b"copied",
            None,
            b"kube-public of mine",
        ]


async def test_changes_below_show_where_nothing_hides_them(layers: Layers) -> None:
    await put(layers.overlay, f"{THINGS}-/default", b"own")
    await remove(layers.overlay, f"{THINGS}-/kube-public")
    start = layers.overlay.head()
    async with layers.overlay.watch(THINGS, after=start) as watch:
        await put(layers.lower, f"{THINGS}-/default", b"hidden by a copy")
        await put(layers.lower, f"{THINGS}-/kube-public", b"hidden by a hole")
        changed = await put(layers.lower, f"{THINGS}-/kube-system", b"changed")
        own = await put(layers.overlay, f"{THINGS}-/kube-system", b"own", changed)
        await put(layers.lower, f"{THINGS}-/kube-system", b"hidden now")
        events = await take(watch, 2)
    assert [(e.revision, e.entry and e.entry.value) for e in events] == [
        (changed, b"changed of mine"),
        (own, b"own"),
    ]
    before = [event.previous() for event in events]
    assert [entry and entry.value for entry in before] == [b"kube-system of mine", b"changed of mine"]
    removed = await remove(layers.lower, f"{THINGS}-/kube-public")
    assert removed <= layers.overlay.head()
    assert await names(layers.overlay) == ["default", "kube-system"]
    with pytest.raises(RevisionConflict):
        await remove(layers.overlay, f"{THINGS}-/kube-public")
    await put(layers.overlay, f"{THINGS}-/kube-public", b"own", ABSENT)
    assert await names(layers.overlay) == ["default", "kube-public", "kube-system"]


async def test_a_key_new_below_makes_watchers_list_again(layers: Layers) -> None:
    async with layers.overlay.watch(THINGS, after=layers.overlay.head()) as watch:
        await put(layers.lower, f"{THINGS}-/new", b"new")
        with pytest.raises(Compacted):
            await take(watch, 1)
    assert "new" in await names(layers.overlay)


async def test_a_dropped_range_hides_what_is_below(layers: Layers) -> None:
    await put(layers.overlay, f"{THINGS}-/own", b"own")
    await remove(layers.overlay, f"{THINGS}-/default")
    async with layers.overlay.watch(THINGS, after=layers.overlay.head()) as watch:
        await layers.overlay.drop(THINGS)
        assert await names(layers.overlay) == []
        await put(layers.overlay, f"{THINGS}-/default", b"again", ABSENT)
        dropped, created = await take(watch, 2)
        assert watch.take() is None
    assert dropped.dropped and created.previous() is None
    assert await names(layers.overlay) == ["default"]
    assert await names(layers.other) == ["default", "kube-public", "kube-system"]


async def test_a_list_at_an_older_revision_shows_what_showed_then(layers: Layers) -> None:
    then = layers.overlay.head()
    await put(layers.overlay, f"{THINGS}-/default", b"own")
    await remove(layers.overlay, f"{THINGS}-/kube-public")
    page = await layers.overlay.list(THINGS, revision=then)
    assert shown(page.entries) == [
        (f"{THINGS}-/{name}", name.encode() + b" of mine")
        for name in ("default", "kube-public", "kube-system")
    ]


async def test_what_a_wrapper_below_refuses_is_refused_at_once() -> None:
    async with memory.open() as base:
        fence = await put(base, "root/fence", b"")
        counted = MeteredStore(base)
        overlay = Overlay(Keyspace(Guarded(counted, "root/fence"), "mine"), Keyspace(base, "lower"), derive)
        await put(overlay, "a/b/c", b"")
        await remove(base, "root/fence", fence)
        with pytest.raises(GuardFailed) as caught:
            await put(overlay, "a/b/c", b"late")
        assert caught.value.args[0] == "root/fence"
        assert counted.figures.calls["write"] == 2
