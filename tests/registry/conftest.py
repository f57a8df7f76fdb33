"""One logical cluster over a memory store, with two plain kinds: enough to try every verb."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from clusterling.machinery.meta import Object
from clusterling.machinery.schema import compile_schema
from clusterling.registry import views
from clusterling.registry.admission import Admission
from clusterling.registry.catalog import Catalog
from clusterling.registry.crd import CustomResourceStrategy
from clusterling.registry.objects import ObjectStore
from clusterling.registry.options import WriteOptions
from clusterling.registry.ports import Ports
from clusterling.registry.resource import Names, Resource, Served, Version
from clusterling.registry.strategy import Context, User
from clusterling.storage import memory
from clusterling.storage.cache import CachedStore
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Store

WIDGET_SCHEMA: Object = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "size": {"type": "integer", "minimum": 0},
                "colour": {"type": "string", "default": "red"},
            },
        },
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    },
}


class TurnedClock:
    """A clock that stands until it is turned."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def turn(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class NoTokens:
    async def issue(self, cluster_id: str, user: str, groups: tuple[str, ...], **_more: object) -> str:
        raise AssertionError("these tests issue no tokens")


class NoKubeconfigs:
    def kubeconfig(self, cluster: str, token: str) -> Object:
        raise AssertionError("these tests make no kubeconfigs")

    def url(self, cluster: str) -> str:
        return ""


def widgets(**changes: Any) -> Resource:
    schema = compile_schema(WIDGET_SCHEMA)
    versions = (Version("v1", schema, status=True), Version("v2", schema, status=True))
    fields: dict[str, Any] = {
        "group": "example.com",
        "names": Names("widgets", "widget", "Widget", "WidgetList"),
        "namespaced": True,
        "versions": versions,
        "storage_version": "v1",
        "strategy": CustomResourceStrategy(versions),
        "builtin": False,
    }
    return Resource(**{**fields, **changes})


@dataclass
class World:
    """A cluster's ObjectStore and what a test does with it."""

    objects: ObjectStore
    store: Store
    resource: Resource
    clock: TurnedClock
    catalog: Catalog
    warnings: list[str] = field(default_factory=list)

    @property
    def served(self) -> Served:
        return Served(self.resource, self.resource.versions[0])

    def at(self, version: str) -> Served:
        return Served(self.resource, self.resource.version(version))

    def context(self, *, dry_run: bool = False, subresource: str = "") -> Context:
        ports = Ports(self.clock, NoTokens(), NoKubeconfigs())
        return Context(
            User("tester"),
            "test",
            "c1",
            self.objects,
            self.catalog,
            ports,
            dry_run,
            self.warnings,
            subresource,
        )

    def widget(self, name: str, **more: Any) -> Object:
        metadata = {"name": name, "namespace": "default", **more.pop("metadata", {})}
        return {"apiVersion": "example.com/v1", "kind": "Widget", "metadata": metadata, **more}

    async def create(self, name: str, **more: Any) -> Object:
        obj = self.widget(name, **more)
        value = await self.objects.create(self.context(), self.served, "default", obj, WriteOptions())
        created: Object = orjson.loads(value)
        return created


@pytest.fixture
async def world() -> AsyncIterator[World]:
    clock = TurnedClock()
    async with memory.open() as store:
        records = Keyspace(store, "c1")
        async with CachedStore(records, finish=views.finish) as cache:
            resource = widgets()
            objects = ObjectStore(cache, records, Admission(), clock)
            yield World(objects, records, resource, clock, Catalog([resource]))
