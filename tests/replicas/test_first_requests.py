"""A replica that has never heard of a cluster is asked for it by many at once: each gets what the last will get."""

from __future__ import annotations

import asyncio

from typing_extensions import override

from clusterling.server import ApiServer
from clusterling.storage import memory
from clusterling.storage.store import Page
from tests.replicas.test_two_replicas import CRDS, WIDGETS, widget, widget_crd
from tests.storage.trouble import Troubled


class Slow(Troubled):
    """A store that takes a moment for every list."""

    @override
    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        await asyncio.sleep(0.01)
        return await super().list(prefix, after=after, limit=limit, revision=revision)


async def test_kinds_of_a_cluster_are_served_to_whoever_comes_while_its_catalog_is_being_built() -> None:
    async with memory.open() as store, ApiServer(store).running() as one:
        await one.clusters.create("team")
        await one.client("team").post(CRDS, widget_crd("widgets", "Widget"))
        await one.client("team").post(WIDGETS, widget("a"))
        async with ApiServer(Slow(store), run_controllers=False).running() as two:
            answers = []
            for _ in range(20):
                answers.append(asyncio.create_task(two.client("team").get(WIDGETS)))
                await asyncio.sleep(0.002)
            for answer in answers:
                assert [item["metadata"]["name"] for item in (await answer)["items"]] == ["a"]
