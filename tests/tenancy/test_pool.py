"""Clusters that are served, and what becomes of one that is let go of while someone is about to use it."""

from __future__ import annotations

import asyncio
from typing import Any

from clusterling.packs import choose
from clusterling.server import ApiServer
from clusterling.storage import memory

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
