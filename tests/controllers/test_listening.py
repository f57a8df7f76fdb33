"""Which changes a controller is told of: those of the collections that it names, where it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from itertools import product
from typing import Any

from typing_extensions import override

from clusterling.controllers.apiservices import ApiServiceController
from clusterling.controllers.clusters import ClusterController
from clusterling.controllers.crds import CrdController
from clusterling.controllers.disruption import DisruptionController
from clusterling.controllers.namespaces import NamespaceController
from clusterling.controllers.provisions import ProvisionController
from clusterling.controllers.quota import QuotaController
from clusterling.controllers.roles import RoleController
from clusterling.controllers.runtime import Controller, Runtime
from clusterling.server import ApiServer, SystemClock
from clusterling.storage import memory
from clusterling.storage.store import Entry, Event, Op
from clusterling.tenancy.authentication.tokens import IssuedTokens
from tests.controllers.conftest import until


class Widgets(Controller[str]):
    """Notes which keys changed in its collection, and what was dropped."""

    name = "widgets"
    workers = 1
    collections = frozenset({"core/widgets"})

    def __init__(self) -> None:
        self.heard: list[str] = []

    @override
    def keys(self, event: Event) -> Iterable[str]:
        self.heard.append(event.key)
        return ()

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[str]:
        nothing: tuple[str, ...] = ()
        for key in nothing:
            yield key

    @override
    async def reconcile(self, key: str) -> float | None:
        return None


async def test_a_controller_hears_of_its_collections_alone_and_of_all_that_is_dropped() -> None:
    controller = Widgets()
    keys = ("a/core/gadgets/-/1", "a/core/widgets/-/2", "~x/core/widgets/-/3", "a/core/widgets", "a/4")
    async with memory.open() as store, asyncio.TaskGroup() as group:
        task = group.create_task(Runtime(store, (controller,), SystemClock()).run())
        for key in keys:
            await store.write([Op(key, b"{}")])
        await store.drop("a/core/gadgets/")

        async def dropped() -> bool:
            return "a/core/gadgets/" in controller.heard

        await until(dropped)
        task.cancel()
    assert controller.heard == ["a/core/widgets/-/2", "~x/core/widgets/-/3", "a/core/gadgets/"]


_OTHERS = {"core/secrets", "apps/deployments", "~owners/a", "~controllers/cursor"}
_NAMES = ("-/a", "a/a", "a/default", "-/default", "a/kube-root-ca.crt", "-/a.example.com")
_CHANGED = b'{"metadata":{"deletionTimestamp":"2026-11-23T00:00:00Z"},"status":{"id":"a"}}'
_REPACKED = b'{"metadata":{},"spec":{"packs":["core"]},"status":{"id":"a"}}'


async def test_nothing_elsewhere_concerns_who_names_collections() -> None:
    async with memory.open() as store, ApiServer(store, run_controllers=False).running() as server:
        pool = server.pool
        controllers: tuple[Controller[Any], ...] = (
            NamespaceController(pool),
            CrdController(pool),
            ApiServiceController(pool),
            QuotaController(pool),
            ProvisionController(store, pool),
            RoleController(pool),
            DisruptionController(pool),
            ClusterController(store, pool, IssuedTokens(store, SystemClock())),
        )
        collections = _OTHERS.union(*(one.collections or () for one in controllers))
        for controller in controllers:
            concerning: set[str] = set()
            for cluster, collection, name, value in product(
                ("root", "a", "~underlay"), sorted(collections), _NAMES, (_CHANGED, _REPACKED, None)
            ):
                key = f"{cluster}/{collection}/{name}"
                entry = None if value is None else Entry(key, value, 2)
                before = Entry(key, b'{"metadata":{}}', 1)
                if list(controller.keys(Event(2, key, entry, before))):
                    concerning.add(collection)
            assert concerning, controller.name
            assert controller.collections is not None, controller.name
            assert concerning <= set(controller.collections), controller.name
