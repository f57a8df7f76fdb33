"""Sees that every namespace has an account `default` and a ConfigMap that says whom clients of the server trust.

Both are made in the write that makes a namespace (packs/core/namespaces.py), and those of the first namespaces are in
the underlay. What is left for here: to bring back what was deleted, to put right what was changed, and to give them to
namespaces that are older than the server's authority, than their cluster's kinds, or than this release.
Upstream: kubernetes pkg/controller/serviceaccount/serviceaccounts_controller.go, certificates/rootcacertpublisher.

A look at the store's own rows tells that all is well with a namespace, and so a cluster is served for its sake only
where something is to be done. The authority is what the underlay says: replicas may disagree while it is replaced.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, replace
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import (
    CLUSTERS,
    PLAIN_DELETE,
    QUIET,
    Clusters,
    context,
    edit,
    of_other_packs,
    place,
    reach,
    stored,
)
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.packs.core import provisions
from clusterling.packs.core.provisions import ACCOUNT, DESCRIPTION
from clusterling.registry.cluster import Cluster
from clusterling.registry.ports import ROOT_CA
from clusterling.registry.resource import Served
from clusterling.storage.overlay import WHITEOUT
from clusterling.storage.store import Entry, Event, Store
from clusterling.tenancy.underlay import UNDERLAY_ID

_OURS: Final = 500  # The least code of an answer that is not the tenant's doing.
_NAMES: Final = (f"/{ACCOUNT}", f"/{ROOT_CA}")
_NAMESPACES: Final = "core/namespaces/-/"
_COLLECTIONS: Final = frozenset({"core/namespaces", "core/configmaps", "core/serviceaccounts", CLUSTERS})
_AUTHORITY: Final = f"{UNDERLAY_ID}/core/configmaps/{ACCOUNT}/{ROOT_CA}"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """A namespace, by its cluster's id. Without a namespace all of the cluster, without a cluster all there are."""

    cluster: str = ""
    namespace: str = ""


class ProvisionController(Controller[Scope]):
    name = "provisions"
    workers = 2
    collections = _COLLECTIONS

    def __init__(self, store: Store, clusters: Clusters) -> None:
        """`store` sees the whole server."""
        self._store = store
        self._clusters = clusters

    @override
    def keys(self, event: Event) -> Iterable[Scope]:
        key = event.key
        if key.endswith(_NAMES) or _NAMESPACES in key:
            return self._keys_of_provision(event)
        changed = of_other_packs(event)
        return () if changed is None else (Scope(changed),)

    def _keys_of_provision(self, event: Event) -> Iterable[Scope]:
        if event.key == _AUTHORITY:
            return (Scope(),)
        where = place(event.key)
        if where is None or where.cluster == UNDERLAY_ID or where.group:
            return ()
        if where.plural == "namespaces":
            return () if _is_gone(event.entry) else (Scope(where.cluster, where.name),)
        kept = (where.plural, where.name)
        if kept == ("configmaps", ROOT_CA) or (
            kept == ("serviceaccounts", ACCOUNT) and _is_gone(event.entry)
        ):
            return (Scope(where.cluster, where.namespace),)
        return ()

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Scope]:
        async for cluster_id in self._clusters.ids(of=cluster):
            # Who has nothing of its own has what all begin with.
            if await anext(self._clusters.rows(cluster_id), None) is not None:
                yield Scope(cluster_id)

    @override
    async def reconcile(self, key: Scope) -> float | None:
        if not key.cluster:
            async for scope in self.walk():
                await self._reconcile_cluster(scope.cluster)
        elif not key.namespace:
            await self._reconcile_cluster(key.cluster)
        elif not await self._is_provided(key):
            await self._provide(key)
        return None

    async def _reconcile_cluster(self, cluster_id: str) -> None:
        for holder in (cluster_id, UNDERLAY_ID):
            async for entry in self._clusters.rows(holder, _NAMESPACES):
                scope = Scope(cluster_id, entry.key.removeprefix(_NAMESPACES))
                if await self._is_provided(scope):
                    continue
                try:
                    await self._provide(scope)
                except ApiError as error:
                    if error.code >= _OURS:
                        raise
                    # A tenant's own quota, or another write meanwhile: nobody else has to wait for that.
                    logger.info("provision-refused scope=%s error=%s", scope, error)

    async def _authority(self) -> str:
        """What is to be told; "" also while no cluster was asked for that serves ConfigMaps."""
        entry = await self._store.get(_AUTHORITY)
        return "" if entry is None else str(orjson.loads(entry.value)["data"]["ca.crt"])

    async def _is_provided(self, scope: Scope) -> bool:
        """By the store's own rows the namespace is there, and so are both, and right. False says nothing."""
        for key in (_NAMESPACES + scope.namespace, f"core/serviceaccounts/{scope.namespace}/{ACCOUNT}"):
            if await self._row(scope, key) is None:
                return False
        told = await self._row(scope, f"core/configmaps/{scope.namespace}/{ROOT_CA}")
        return told is not None and provisions.tells(orjson.loads(told), await self._authority())

    async def _row(self, scope: Scope, key: str) -> bytes | None:
        entry = await self._store.get(f"{scope.cluster}/{key}")
        if entry is None:
            entry = await self._store.get(f"{UNDERLAY_ID}/{key}")
        return None if entry is None or _is_gone(entry) else entry.value

    async def _provide(self, scope: Scope) -> None:
        reached = await reach(self._clusters, scope.cluster, "", "namespaces")
        if reached is None:
            return
        cluster, namespaces = reached
        # Asked once the cluster is served: from then on it is there.
        authority = await self._authority()
        for obj, plural in (
            (provisions.account(scope.namespace), "serviceaccounts"),
            (provisions.certificates(scope.namespace, authority), "configmaps"),
        ):
            served = stored(cluster, "", plural)
            if served is not None:
                await _ensure(cluster, served, namespaces, obj)


async def _ensure(cluster: Cluster, served: Served, namespaces: Served, wanted: Object) -> None:
    """Brings one of them into order. Raises ApiError, as where the namespace's end or another write came between."""
    name, namespace = wanted["metadata"]["name"], wanted["metadata"]["namespace"]
    found = await cluster.objects.read(served, namespace, name)
    # Read after it: one that is there before its namespace is not is a leftover, never a new one.
    holder = await cluster.objects.read(namespaces, "", namespace)
    if holder is None:
        if found is not None:
            # The underlay's, of a kind that the cluster did not serve yet when the namespace was deleted.
            exactly = replace(PLAIN_DELETE, uid=found["metadata"]["uid"])
            await cluster.objects.delete(context(cluster), served, namespace, name, exactly)
    elif (holder.get("status") or {}).get("phase") != "Active":
        return
    elif found is None:
        await cluster.objects.create(context(cluster), served, namespace, wanted, QUIET)
    elif (
        "data" in wanted
        and not provisions.tells(found, wanted["data"]["ca.crt"])
        and not found.get("immutable")
    ):
        annotations = found["metadata"].get("annotations") or {}
        described = {**annotations, DESCRIPTION: wanted["metadata"]["annotations"][DESCRIPTION]}
        found["metadata"]["annotations"] = described
        found["data"] = wanted["data"]
        await edit(cluster, served, found)


def _is_gone(entry: Entry | None) -> bool:
    return entry is None or entry.value == WHITEOUT
