"""One logical cluster with all built-in kinds, over a memory store that has their underlay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import orjson
import pytest

from clusterling.machinery.codec import encode_stored
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs import choose
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.objects import ObjectStore
from clusterling.registry.options import DeleteOptions, ListOptions, WriteOptions
from clusterling.registry.ports import Ports
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context, User
from clusterling.storage import memory
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Op, Store
from tests.registry.conftest import NoKubeconfigs, NoTokens, TurnedClock


@dataclass
class Cluster:
    """The verbs as tests speak them: kinds by plural (`events.k8s.io/events`), objects as dicts."""

    objects: ObjectStore
    store: Store
    clock: TurnedClock
    catalog: Catalog
    warnings: list[str] = field(default_factory=list)

    def served(self, plural: str) -> Served:
        group, _, name = plural.rpartition("/")
        found = self.catalog.find(group, "v1", name)
        assert found is not None, plural
        return found

    def context(self, subresource: str = "") -> Context:
        ports = Ports(self.clock, NoTokens(), NoKubeconfigs())
        return Context(
            User("tester"), "test", "c1", self.objects, self.catalog, ports, False, self.warnings, subresource
        )

    def _object(self, plural: str, name: str, fields: Object) -> tuple[Served, str, Object]:
        served = self.served(plural)
        namespace = "default" if served.resource.namespaced else ""
        obj = {
            "apiVersion": str(served.group_version),
            "kind": served.kind,
            **fields,
            "metadata": {"name": name, **fields.get("metadata", {})},
        }
        return served, namespace, obj

    async def create(self, plural: str, name: str, **fields: Any) -> Object:
        served, namespace, obj = self._object(plural, name, fields)
        return _decoded(await self.objects.create(self.context(), served, namespace, obj, WriteOptions()))

    async def update(self, plural: str, name: str, subresource: str = "", **fields: Any) -> Object:
        served, namespace, obj = self._object(plural, name, fields)
        ctx = self.context(subresource)
        value, _ = await self.objects.update(ctx, served, namespace, name, obj, WriteOptions())
        return _decoded(value)

    async def delete(self, plural: str, name: str) -> tuple[Object, bool]:
        served, namespace, _ = self._object(plural, name, {})
        value, gone = await self.objects.delete(self.context(), served, namespace, name, DeleteOptions())
        return _decoded(value), gone

    async def get(self, plural: str, name: str) -> Object:
        served, namespace, _ = self._object(plural, name, {})
        return _decoded(await self.objects.get(served, namespace, name))

    async def found(self, plural: str, options: ListOptions) -> list[Object]:
        served = self.served(plural)
        namespace = "default" if served.resource.namespaced else ""
        return [_decoded(value) for value in (await self.objects.list(served, namespace, options)).values]

    async def refused(self, plural: str, name: str, **fields: Any) -> ApiError:
        """The error of a create that must not succeed."""
        with pytest.raises(ApiError) as caught:
            await self.create(plural, name, **fields)
        return caught.value

    def row(self, plural: str, obj: Object) -> list[object]:
        return [column.cell(obj, self.clock.now()) for column in self.served(plural).version.columns]


def _decoded(value: bytes) -> Object:
    found: Object = orjson.loads(value)
    return found


def causes(error: ApiError) -> list[tuple[str, str]]:
    """(field, message) of each cause."""
    assert error.details is not None
    return [(cause["field"], cause["message"]) for cause in error.details["causes"]]


@cache
def _started_with() -> tuple[Catalog, tuple[Op, ...]]:
    packs = choose("all")
    catalog = Catalog(resource for pack in packs for resource in pack.resources)
    ops = []
    for obj in (obj for pack in packs for obj in pack.bootstrap):
        group, _, version = obj["apiVersion"].rpartition("/")
        served = catalog.by_kind(group, version, obj["kind"])
        assert served is not None, obj["kind"]
        metadata = obj["metadata"]
        name = metadata["name"]
        key = served.resource.key(metadata.get("namespace", ""), name)
        ops.append(Op(key, encode_stored({**obj, "metadata": {**metadata, "uid": f"uid-{name}"}})))
        if served.plural == "namespaces":
            ops.append(Op(NAMESPACE_FENCE + name, ACTIVE_FENCE))
    return catalog, tuple(ops)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    clock = TurnedClock()
    catalog, ops = _started_with()
    async with memory.open() as store:
        records = Keyspace(store, "c1")
        for start in range(0, len(ops), 50):
            await records.write(ops[start : start + 50])
        async with CachedStore(records, finish=views.finish) as cache:
            yield Cluster(ObjectStore(cache, records, Admission(), clock), records, clock, catalog)
