"""Clusters that are served, and what becomes of one that is let go of while someone is about to use it."""

from __future__ import annotations

import asyncio
from typing import Any

from clusterling.packs import choose
from clusterling.server import ApiServer
from clusterling.storage import memory
from clusterling.storage.cache import GETS_BEFORE_LOAD
from clusterling.tenancy.names import fence_key

_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_WIDGETS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.example.com"},
    "spec": {
        "group": "example.com",
        "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


async def test_a_cluster_that_is_closed_before_it_was_brought_up_to_date_does_not_hold_whoever_asks_for_it() -> (
    None
):
    async with (
        memory.open() as store,
        ApiServer(store, packs=choose("default"), run_controllers=False).running() as server,
    ):
        await server.clusters.create("a")
        cluster = await server.pool.find("a")
        assert cluster is not None
        await cluster.ready()
        before = cluster.catalog
        heard = asyncio.Event()
        async with cluster.store.watch("", after=await cluster.store.fresh()) as watch:
            watch.notify(heard.set)
            await server.client("a").post(_CRDS, _WIDGETS)
            await heard.wait()
        await cluster.aclose()
        # What turns round without a pause here would not be stopped by a timeout.
        await cluster.ready()
        assert cluster.catalog is before


async def test_deleting_clusters_keeps_nothing_of_all_the_others_in_memory() -> None:
    """Each deletion looks at its cluster's fence, beside which are those of a hundred thousand."""
    async with (
        memory.open() as store,
        ApiServer(store, packs=choose("default"), run_controllers=False).running() as server,
    ):
        names = [f"a{number}" for number in range(3 * GETS_BEFORE_LOAD)]
        for name in names:
            await server.clusters.create(name)
        for name in names:
            await server.clusters.delete(name)
        root = await server.pool.find("root")
        assert root is not None
        assert root.store.known_count(fence_key("")) is None
