"""Kinds that no replica has loaded before: what clusters begin with of them is there at whichever is asked, and once."""

from __future__ import annotations

import asyncio

from clusterling.server import ApiServer
from clusterling.storage.opening import open_store
from clusterling.tenancy.underlay import UNDERLAY_ID
from tests.replicas.stores import SharedStore, store

__all__ = ["store"]  # A fixture.

ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
LEVELS = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations"


async def test_replicas_that_are_asked_at_once_begin_the_same_cluster_alike(store: SharedStore) -> None:
    async with (
        open_store(store.url()) as mine,
        open_store(store.url()) as theirs,
        ApiServer(mine).running() as one,
        ApiServer(theirs).running() as other,
    ):
        await one.clusters.create("full", packs="all")
        clients = (one.client("full"), other.client("full"))
        found = await asyncio.gather(*(each.get(path) for path in (ROLES, LEVELS) for each in clients))
        roles, levels = found[:2], found[2:]
        assert roles[0]["items"] == roles[1]["items"] != []
        assert levels[0]["items"] == levels[1]["items"] != []
        begun = {entry.key: entry.revision for entry in (await mine.list(f"{UNDERLAY_ID}/")).entries}
        async with open_store(store.url()) as later, ApiServer(later).running() as third:
            assert (await third.client("full").get(ROLES))["items"] == roles[0]["items"]
            assert {e.key: e.revision for e in (await later.list(f"{UNDERLAY_ID}/")).entries} == begun
