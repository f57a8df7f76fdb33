"""Removes the data of a logical cluster that is being deleted, then lets its object go.

The cluster left the directory, and its fence the store, when its object got a deletionTimestamp: nobody can write
under its id any more, so one drop of the range is enough (decisions 1 and 4).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, QUIET, Clusters, place, stored
from clusterling.controllers.runtime import Controller
from clusterling.storage.store import Event, Store
from clusterling.tenancy.authentication.tokens import IssuedTokens
from clusterling.tenancy.cluster import CONTROLLER, FINALIZER, GROUP, PLURAL
from clusterling.tenancy.names import ROOT_ID

_PREFIX: Final = f"{ROOT_ID}/{GROUP}/{PLURAL}/"


@dataclass(frozen=True, slots=True)
class Key:
    name: str


class ClusterController(Controller[Key]):
    name = "clusters"
    workers = 1

    def __init__(self, store: Store, clusters: Clusters, tokens: IssuedTokens) -> None:
        """`store` sees the whole server: it drops what belonged to the cluster."""
        self._store = store
        self._clusters = clusters
        self._tokens = tokens

    @override
    def keys(self, event: Event) -> Iterable[Key]:
        if not event.key.startswith(_PREFIX) or event.entry is None:
            return ()
        where = place(event.key)
        if where is None or b'"deletionTimestamp"' not in event.entry.value:
            return ()
        return (Key(where.name),)

    @override
    async def walk(self) -> AsyncIterator[Key]:
        root = await self._clusters.by_id(ROOT_ID)
        served = stored(root, GROUP, PLURAL) if root else None
        if root is None or served is None:
            return
        for value in (await root.objects.list(served, "", EVERYTHING)).values:
            metadata = orjson.loads(value)["metadata"]
            if "deletionTimestamp" in metadata:
                yield Key(metadata["name"])

    @override
    async def reconcile(self, key: Key) -> float | None:
        root = await self._clusters.by_id(ROOT_ID)
        served = stored(root, GROUP, PLURAL) if root else None
        if root is None or served is None:
            return None
        obj = await root.objects.read(served, "", key.name)
        if obj is None or "deletionTimestamp" not in obj["metadata"]:
            return None
        if FINALIZER not in (obj["metadata"].get("finalizers") or ()):
            return None
        cluster_id = obj["status"]["id"]
        await self._tokens.revoke_all(cluster_id)
        await self._store.drop(f"{cluster_id}/")
        obj["metadata"]["finalizers"].remove(FINALIZER)
        await root.objects.update(root.context(CONTROLLER), served, "", key.name, obj, QUIET)
        return None
