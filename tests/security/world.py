"""A server with two tenants, for those who mean it harm; and a count of how often others get the loop meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.server import ApiServer
from clusterling.services.client import Client
from clusterling.services.request import Response
from clusterling.services.workers.pool import WorkerLimits
from clusterling.storage import memory
from clusterling.storage.store import Store

CONFIGMAPS: Final = "/api/v1/namespaces/default/configmaps"
CRDS: Final = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
JSON: Final = {"Content-Type": "application/json"}
TABLE: Final = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


@dataclass(frozen=True, slots=True)
class World:
    server: ApiServer
    tenant: Client
    other: Client
    store: Store

    async def ask(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Object, Response]:
        """One request of the tenant: status, document, response. `body`: bytes as they are, else as JSON."""
        sent = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        response = await self.tenant.request(method, path, None, sent, {**JSON, **(headers or {})})
        return response.status, orjson.loads(response.body) if response.body else {}, response


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with (
        memory.open() as store,
        ApiServer(store, external_url="http://127.0.0.1", workers=WorkerLimits()).running() as server,
    ):
        await server.clusters.create("mallory")
        await server.clusters.create("alice")
        yield World(server, server.client("mallory"), server.client("alice"), store)


class Turns:
    """Counts how often the loop came round while the context lasted."""

    def __init__(self) -> None:
        self.count = 0

    async def __aenter__(self) -> Turns:
        self._task = asyncio.get_running_loop().create_task(self._run())
        await asyncio.sleep(0)
        self.count = 0
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.count += 1


def crd(
    plural: str, spec: Object, *, names: Object | None = None, columns: list[Object] | None = None
) -> Object:
    """A namespaced kind of the group `x.io` whose `spec` has that schema."""
    version: Object = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
    }
    if columns:
        version["additionalPrinterColumns"] = columns
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.x.io"},
        "spec": {
            "group": "x.io",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural.capitalize(), **(names or {})},
            "versions": [version],
        },
    }
