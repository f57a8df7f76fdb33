"""Counts what is there for each new ResourceQuota, and for each whose limits were changed; from then on writes are charged.

The count is written at the revision it began from. Every write of a kind that the quota limits rewrites a quota it finds
uncounted (packs/core/quota.py), so of a count that missed it nothing comes, and it is made again.
Upstream: kubernetes pkg/controller/resourcequota.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, Clusters, edit, place, reach
from clusterling.controllers.runtime import Controller
from clusterling.machinery.meta import Object
from clusterling.registry.cluster import Cluster
from clusterling.storage.store import Event

if TYPE_CHECKING:
    from clusterling.packs.core.amounts import Amounts
    from clusterling.packs.core.quota import Quota

# A delete that was under way when the quota was made may have been counted as if it had not been.
SECOND_LOOK_S: Final = 5.0
DECODED_AT_ONCE: Final = 100

_QUOTAS: Final = "/core/resourcequotas/"


@dataclass(frozen=True, slots=True)
class Account:
    """One ResourceQuota, by its cluster's id, namespace and name."""

    cluster: str
    namespace: str
    name: str


class QuotaController(Controller[Account]):
    name = "quotas"
    workers = 2
    collections = frozenset({_QUOTAS.strip("/")})

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        # What has been counted and is to be looked at once more, with the limits it had.
        self._again: dict[Account, Mapping[str, str]] = {}

    @override
    def keys(self, event: Event) -> Iterable[Account]:
        if _QUOTAS not in event.key or event.entry is None:
            return ()
        where = place(event.key)
        # Each charge is an event too: these are told by a look at the bytes' own object.
        if where is None or _is_settled(orjson.loads(event.entry.value)):
            return ()
        return (Account(where.cluster, where.namespace, where.name),)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Account]:
        async for cluster_id in self._clusters.ids(_QUOTAS[1:], of=cluster):
            async for entry in self._clusters.rows(cluster_id, _QUOTAS[1:]):
                where = place(f"{cluster_id}/{entry.key}")
                assert where is not None, "these are objects"
                yield Account(cluster_id, where.namespace, where.name)

    @override
    async def reconcile(self, key: Account) -> float | None:
        # Where there is a quota its kind is loaded, and these with it; where there is none they are not needed.
        from clusterling.packs.core import amounts
        from clusterling.packs.core.quota import Quota

        reached = await reach(self._clusters, key.cluster, "", "resourcequotas")
        obj = await reached[0].objects.read(reached[1], key.namespace, key.name) if reached else None
        if reached is None or obj is None:
            self._again.pop(key, None)
            return None
        cluster, served = reached
        limits = (obj.get("spec") or {}).get("hard") or {}
        is_second = self._again.pop(key, None) == limits
        used = await _counted(cluster, Quota.of(obj))
        status = {"hard": limits, "used": amounts.written(used)} if limits else {}
        if status != (obj.get("status") or {}):
            obj["status"] = status
            await edit(cluster, served, obj, "status")
        if is_second:
            return None
        self._again[key] = limits
        return SECOND_LOOK_S


def _is_settled(quota: Object) -> bool:
    spec, status = quota.get("spec") or {}, quota.get("status") or {}
    hard = spec.get("hard") or {}
    return bool(
        "hard" in status and status["hard"] == hard and hard.keys() <= (status.get("used") or {}).keys()
    )


async def _counted(cluster: Cluster, quota: Quota) -> Amounts:
    """What is used of everything that the quota limits; of what no kind has to do with, nothing."""
    from clusterling.packs.core import amounts
    from clusterling.packs.core.usage import evaluator

    found: Amounts = dict.fromkeys(quota.wanted, amounts.ZERO)
    for served in cluster.catalog.storage:
        how = evaluator(served.group, served.plural) if served.resource.namespaced else None
        tracked = frozenset(how.names(quota.wanted)) if how is not None else frozenset()
        if how is None or not tracked:
            continue
        values = (await cluster.objects.list(served, quota.namespace, EVERYTHING)).values
        for at, value in enumerate(values):
            if at % DECODED_AT_ONCE == 0:
                await asyncio.sleep(0)
            obj = orjson.loads(value)
            if how.counts(quota.scopes, obj):
                amounts.add(found, amounts.only(how.usage(obj), tracked))
    return found
