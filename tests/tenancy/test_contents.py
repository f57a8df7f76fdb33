"""What is wrong in a store is found, on every kind of store; what is right is left in peace."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import orjson
import pytest

from clusterling.server import ApiServer
from clusterling.storage import bulk, sqlite
from clusterling.storage.bulk import Finding
from clusterling.storage.store import Op, Store
from clusterling.tenancy import contents
from clusterling.tenancy.names import cluster_id, fence_key
from clusterling.testing.store_contract import PATIENCE_S


def silent(_done: int, _total: int) -> None:
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


async def life(store: Store) -> str:
    """Two clusters with objects, owners, a CRD, tokens, deletions; a third one deleted. The id of the first."""
    async with ApiServer(store).running() as server:
        for name in ("team-a", "team-b", "team-c"):
            await server.clusters.create(name)
        team = server.client("team-a")
        owner = await team.post(
            "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "owner"}, "data": {"a": "b"}}
        )
        reference = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "name": "owner",
            "uid": owner["metadata"]["uid"],
        }
        for number in range(5):
            metadata = {"name": f"owned-{number}", "ownerReferences": [reference]}
            await team.post("/api/v1/namespaces/default/configmaps", {"metadata": metadata})
        await team.delete("/api/v1/namespaces/default/configmaps/owned-0")
        await team.post("/api/v1/namespaces", {"metadata": {"name": "more"}})
        await server.clusters.delete("team-c")
        async with asyncio.timeout(PATIENCE_S):
            while await store.count(contents.LOGICAL_CLUSTERS) > 3:  # root, team-a, team-b
                await asyncio.sleep(0.01)
        found = await server.client("root").get(
            "/apis/tenancy.clusterling.io/v1alpha1/logicalclusters/team-a"
        )
    return str(found["status"]["id"])


async def checked(path: Path) -> list[Finding]:
    async with bulk.snapshot(f"sqlite://{path}") as snapshot:
        return [one async for one in contents.check(snapshot, silent)]


@asynccontextmanager
async def lived(path: Path) -> AsyncIterator[tuple[Store, str]]:
    async with sqlite.open(path) as store:
        yield store, await life(store)


def kinds(findings: Sequence[Finding]) -> set[str]:
    return {one.kind for one in findings}


async def test_a_store_that_was_served_has_nothing_wrong(path: Path) -> None:
    async with lived(path) as (store, _):
        assert await checked(path) == []
        await store.compact(store.head())
        assert await checked(path) == []
    assert await checked(path) == []


async def test_what_belongs_to_no_cluster_is_named_with_its_size(path: Path) -> None:
    lost = cluster_id(str(uuid.uuid4()))
    async with lived(path) as (store, _):
        await store.write([Op(f"{lost}/~fence/x/-/{n}", b"{}") for n in range(3)])
        await store.write([Op(f"~tokens/{lost}/-/-/ab", b"{}")])
    assert await checked(path) == [
        Finding(lost, "orphan", "3 records of 6 bytes belong to no cluster that is there"),
        Finding(lost, "orphan", "1 records of 2 bytes belong to no cluster that is there"),
    ]


async def test_fences_stand_for_clusters_that_live_and_no_others(path: Path) -> None:
    async with lived(path) as (store, mine):
        await store.write([Op(f"root/{fence_key('gone')}", b"{}"), Op(f"root/{fence_key(mine)}", None)])
    findings = await checked(path)
    assert [(one.where, one.kind) for one in findings] == [
        (f"root/{fence_key('gone')}", "fence-stray"),
        (mine, "fence-missing"),
    ]


async def test_the_index_of_dependents_is_what_the_objects_say(path: Path) -> None:
    async with lived(path) as (store, mine):
        index = (await store.list(f"{mine}/~owners/")).entries
        assert len(index) == 4
        stray = index[1].key.replace("owned", "nobody")
        await store.write([Op(index[0].key, None), Op(stray, b"{}")])
    findings = await checked(path)
    assert sorted((one.where, one.kind) for one in findings) == [
        (f"{mine}/configmaps/default/nobody-2", "owner-stray"),
        (f"{mine}/configmaps/default/owned-1", "owner-not-indexed"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "kind"),
    [
        ("core/configmaps/default/x", b"{", "value"),
        ("core/configmaps/default/x", b"[]", "value"),
        ("core/configmaps/default/x", b"{}", "value"),
        ("core/configmaps/default/x", b'{"metadata": {"name": "x", "namespace": "default"}}', "value"),
        ("core/configmaps/default/x", {"name": "y", "namespace": "default"}, "value"),
        ("core/configmaps/default/x", {"name": "x", "namespace": "other"}, "value"),
        ("core/namespaces/-/x", {"name": "x", "namespace": "default"}, "value"),
        ("core/configmaps/default", {"name": "x", "namespace": "default"}, "key"),
        ("core/configmaps/default/x/y", {"name": "x", "namespace": "default"}, "key"),
        ("core/configmaps/../x", {"name": "x", "namespace": ".."}, "key"),
        ("~owners/uid/-/x", b"{}", "key"),
    ],
)
async def test_keys_and_values_are_those_of_objects(
    key: str, value: bytes | dict[str, str], kind: str, path: Path
) -> None:
    if isinstance(value, dict):
        value = orjson.dumps({"apiVersion": "v1", "kind": "X", "metadata": value})
    async with lived(path) as (store, mine):
        await store.write([Op(f"{mine}/{key}", value)])
    assert [(one.where, one.kind) for one in await checked(path)] == [(f"{mine}/{key}", kind)]


async def test_whiteouts_and_envelopes_of_the_store_are_left_in_peace(path: Path) -> None:
    async with lived(path) as (store, mine):
        await store.write([Op(f"{mine}/core/namespaces/-/default", b"\x18")])
    assert await checked(path) == []


# What SQL stores keep twice does agree. PostgreSQL's questions are the same (tests/storage/test_checking.py).


@pytest.mark.parametrize(
    ("damage", "kinds_found"),
    [
        (
            "DELETE FROM log WHERE revision = (SELECT revision FROM state WHERE live LIMIT 1)",
            {"state-without-log"},
        ),
        ("UPDATE state SET live = 0 WHERE key LIKE '%/owned-3'", {"state-against-log"}),
        ("DELETE FROM state WHERE key LIKE '%/owned-3'", {"log-without-state"}),
        ("UPDATE log SET previous = revision WHERE key LIKE '%/owned-3'", {"log-chain"}),
        ("INSERT INTO drops VALUES ('nothing/', 3)", {"drop-without-log"}),
        ("UPDATE meta SET value = 1000000 WHERE name = 'horizon'", {"counters", "history-gap"}),
        ("DELETE FROM log WHERE revision = 5", {"history-gap"}),
    ],
)
async def test_what_a_file_keeps_twice_agrees(damage: str, kinds_found: set[str], path: Path) -> None:
    async with lived(path):
        pass
    db = apsw.Connection(str(path))
    db.execute(damage)
    assert db.changes() == 1
    db.close()
    assert kinds(await checked(path)) >= kinds_found


async def test_a_summary_names_the_largest_clusters_and_every_kind(path: Path) -> None:
    async with lived(path) as (store, mine):
        count = await store.count("")
    async with bulk.snapshot(f"sqlite://{path}") as snapshot:
        summary = await contents.summarize(snapshot, 2, silent)
        figures = await snapshot.figures()
    assert summary.records == count
    assert summary.cluster_count == 3
    assert [(one.name, one.id) for one in summary.clusters if one.id != "root"] == [("team-a", mine)]
    by_kind = {one.name: one.objects for one in summary.kinds}
    assert by_kind["core/configmaps"] == 5 + 1
    assert by_kind["~owners"] == 4
    assert sum(by_kind.values()) == count
    assert sum(one.bytes for one in summary.kinds) == summary.bytes
    assert figures.disk_bytes is not None and figures.disk_bytes >= path.stat().st_size
    assert figures.log_rows is not None and figures.log_rows >= count
