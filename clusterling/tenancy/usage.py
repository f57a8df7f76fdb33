"""What a logical cluster uses of its quota: the subresource `usage` of a LogicalCluster, and warnings near the limits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import not_found
from clusterling.machinery.meta import Object
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.resource import Served, Subresource, SubresourceCall
from clusterling.registry.strategy import Context
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Measure, Store, Usage
from clusterling.storage.usage import counts
from clusterling.tenancy.cluster import GROUP, PLURAL, VERSION
from clusterling.tenancy.quota import BYTES, OBJECTS, Quotas, count_name, limits_of

KIND: Final = "ClusterUsage"
KNOWN_MAX: Final = 1024
KNOWN_FOR_S: Final = 1.0


def used_of(usage: Sequence[Usage]) -> dict[str, int]:
    """Figures by the names that quotas have, from what a cluster's own keyspace tells."""
    objects = [one for one in usage if counts("", Measure.OBJECTS, one.collection)]
    used = {OBJECTS: sum(one.objects for one in objects), BYTES: sum(one.bytes for one in usage)}
    used.update({count_name(one.collection): one.objects for one in objects if one.objects})
    return used


def usage_part(store: Store, quotas: Quotas, online: Callable[[str], Mapping[str, int]]) -> Subresource:
    """The subresource. `store` sees the whole server; `online`: what is not kept but held, by a cluster's id (watches)."""

    async def call(ctx: Context, call: SubresourceCall) -> Object:
        if call.parent is None:
            raise not_found(PLURAL, GROUP, call.name)
        cluster_id = call.parent["status"]["id"]
        usage = await Keyspace(store, cluster_id).usage("")
        quota = quotas.of(cluster_id)
        return {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {"name": call.name},
            "hard": dict(sorted(quota.hard.items())),
            "soft": dict(sorted(quota.soft.items())),
            "used": dict(sorted({**used_of(usage), **online(cluster_id)}.items())),
        }

    return Subresource("usage", GROUP, VERSION, KIND, ("get",), call)


class SoftQuota(Admission):
    """Warns of what is over a soft limit. The figures may be a second old."""

    def __init__(self, store: Store, quotas: Quotas, now: Callable[[], float]) -> None:
        self._store = store
        self._quotas = quotas
        self._now = now
        self._known: OrderedDict[str, tuple[float, Sequence[Usage]]] = OrderedDict()

    @override
    def looks_inside(self, ctx: Context) -> bool:
        return False

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        if operation == "DELETE":
            return
        soft = self._quotas.of(ctx.cluster_id).soft
        if not soft:
            return
        usage = await self._usage(ctx.cluster_id)
        collection = f"{ctx.cluster_id}/{served.resource.collection}"
        for name, limit in limits_of(soft, ctx.cluster_id):
            if not collection.startswith(limit.prefix):
                continue
            parts = [one for one in usage if counts(limit.prefix, limit.what, one.collection)]
            used = sum(one.bytes if name == BYTES else one.objects for one in parts)
            more = operation == "CREATE" and name != BYTES
            if used + more > limit.most:
                ctx.warn(
                    f"{ctx.cluster} is over its soft quota: used: {name}={used + more}, limited: {name}={limit.most}"
                )

    async def _usage(self, cluster_id: str) -> Sequence[Usage]:
        now = self._now()
        known = self._known.get(cluster_id)
        if known is None or now - known[0] > KNOWN_FOR_S:
            known = self._known[cluster_id] = now, await self._store.usage(f"{cluster_id}/")
            self._known.move_to_end(cluster_id)
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return known[1]
