from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest

from clusterling.machinery.meta import Object
from clusterling.machinery.names import ClusterName
from clusterling.storage import memory
from clusterling.storage.store import ABSENT, Op, Store
from clusterling.tenancy.directory import Directory, Record, key_of
from tests.tenancy.forgetful import Forgetful, opened

BORN = "2026-03-01T12:00:00Z"
TEAM_A = ClusterName.parse("team-a")


def _object(name: str, cluster_id: str, **metadata: str) -> Object:
    return {
        "metadata": {"name": name, "uid": f"uid-of-{cluster_id}", "creationTimestamp": BORN, **metadata},
        "spec": {"displayName": name.upper()},
        "status": {"id": cluster_id, "phase": "Ready"},
    }


def _id_of(record: Record | None) -> str | None:
    return record.id if record else None


async def _write(store: Store, obj: Object, expected: int | None = None) -> int:
    (revision,) = await store.write([Op(key_of(obj["metadata"]["name"]), orjson.dumps(obj), expected)])
    return revision


@asynccontextmanager
async def _running(store: Store) -> AsyncIterator[Directory]:
    directory = Directory(store)
    task = asyncio.create_task(directory.run())
    try:
        await asyncio.wait_for(directory.ready(), 5)
        yield directory
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with memory.open() as opened:
        yield opened


async def test_what_was_there_before_is_known_when_it_is_ready(store: Store) -> None:
    revision = await _write(store, _object("team-a", "aaaa"))
    async with _running(store) as directory:
        assert directory.known("team-a") == Record("aaaa", TEAM_A, "uid-of-aaaa", revision, BORN, None)
        assert directory.by_id("aaaa") is directory.known("team-a")
        assert [record.name for record in directory.records()] == ["team-a"]


async def test_clusters_that_choose_the_same_share_what_they_say(store: Store) -> None:
    for name in ("team-a", "team-b"):
        chosen = _object(name, f"id-of-{name}")
        chosen["spec"]["packs"] = ["core", "-secrets"]
        await _write(store, chosen)
    async with _running(store) as directory:
        one, other = directory.records()
        assert one.packs == ("core", "-secrets")
        assert one.packs is other.packs


async def test_a_cluster_is_known_when_its_write_returns(store: Store) -> None:
    async with _running(store) as directory:
        await _write(store, _object("team-a", "aaaa"))
        found = directory.known("team-a")
        assert found is not None
        assert found.id == "aaaa"


async def test_a_deleted_cluster_is_gone_when_its_write_returns(store: Store) -> None:
    async with _running(store) as directory:
        revision = await _write(store, _object("team-a", "aaaa"))
        await store.write([Op(key_of("team-a"), None, revision)])
        assert directory.known("team-a") is None
        assert directory.by_id("aaaa") is None
        assert await directory.find(TEAM_A) is None


async def test_a_terminating_cluster_is_gone_at_once(store: Store) -> None:
    async with _running(store) as directory:
        await _write(store, _object("team-a", "aaaa"))
        await _write(store, _object("team-a", "aaaa", deletionTimestamp="2026-01-01T00:00:00Z"))
        assert await directory.find(TEAM_A) is None
        assert len(directory) == 0


async def test_an_unready_directory_still_finds_what_the_store_has(store: Store) -> None:
    """Before its watch runs (and, in another replica, before the event arrives) it asks."""
    await _write(store, _object("team-a", "aaaa"))
    found = await Directory(store).find(TEAM_A)
    assert found is not None
    assert found.id == "aaaa"


async def test_a_namesake_is_another_cluster(store: Store) -> None:
    heard: list[tuple[str | None, str | None]] = []
    async with _running(store) as directory:
        directory.listen(lambda old, new: heard.append((_id_of(old), _id_of(new))))
        revision = await _write(store, _object("team-a", "aaaa"))
        await store.write([Op(key_of("team-a"), None, revision)])
        await _write(store, _object("team-a", "bbbb"), ABSENT)
        await _write(store, _object("team-a", "bbbb", label="changed"))
        found = directory.known("team-a")
        assert found is not None
        assert found.id == "bbbb"
        assert directory.by_id("aaaa") is None
    assert heard == [(None, "aaaa"), ("aaaa", None), (None, "bbbb"), ("bbbb", "bbbb")]


async def test_a_dropped_range_takes_every_cluster_with_it(store: Store) -> None:
    async with _running(store) as directory:
        await _write(store, _object("team-a", "aaaa"))
        await _write(store, _object("team-b", "bbbb"))
        await store.drop("tenancy.clusterling.io/")
        assert directory.records() == ()


async def test_an_object_that_is_no_cluster_yet_is_not_served(store: Store) -> None:
    async with _running(store) as directory:
        obj = _object("team-a", "aaaa")
        del obj["status"]
        await _write(store, obj)
        assert await directory.find(TEAM_A) is None


async def test_a_directory_that_fell_behind_reads_everything_again(store: Store) -> None:
    forgetful = Forgetful(store)
    revisions = {
        name: await _write(store, _object(name, f"id-of-{name}")) for name in ("kept", "gone", "changed")
    }
    async with _running(forgetful) as directory:
        heard: list[tuple[str | None, str | None]] = []
        directory.listen(lambda old, new: heard.append((_id_of(old), _id_of(new))))
        (watch,) = forgetful.watches
        watch.deafen()
        await store.write([Op(key_of("gone"), None, revisions["gone"])])
        await _write(store, _object("changed", "id-of-another"))
        await _write(store, _object("new", "id-of-new"))
        assert directory.known("gone") is not None, "it has heard nothing yet"
        watch.lose()
        await opened(forgetful, 2)
        assert {record.id for record in directory.records()} == {"id-of-kept", "id-of-another", "id-of-new"}
        assert directory.by_id("id-of-changed") is None
        assert heard == [
            ("id-of-changed", None),
            (None, "id-of-another"),
            (None, "id-of-new"),
            ("id-of-gone", None),
        ]
        await _write(store, _object("newer", "id-of-newer"))
        assert directory.known("newer") is not None


async def test_what_the_watch_has_not_brought_yet_is_found_by_asking(store: Store) -> None:
    forgetful = Forgetful(store)
    async with _running(forgetful) as directory:
        forgetful.watches[0].deafen()
        await _write(store, _object("team-a", "aaaa"))
        assert directory.known("team-a") is None
        found = await directory.find(TEAM_A)
        assert found is not None
        assert found.id == "aaaa"
