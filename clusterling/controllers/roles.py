"""Fills in the rules of aggregated cluster roles whenever a role changes that may be part of them.

What they come to is worked out in memory and written once (packs/rbac_aggregation.py). Those that every cluster begins
with are filled in the underlay, so that a cluster has nothing of its own until its own roles make a difference.
Upstream: kubernetes pkg/controller/clusterroleaggregation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from time import perf_counter
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, Clusters, edit, place, reach
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError
from clusterling.packs.rbac_aggregation import Aggregation, Unsettled
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served
from clusterling.storage.store import Event
from clusterling.tenancy.underlay import UNDERLAY_ID

logger = logging.getLogger(__name__)

ROLES_BYTES_MAX: Final = 16 << 20  # Of one cluster: more are not held in memory at once.
SLICE_S: Final = 0.001

_GROUP: Final = "rbac.authorization.k8s.io"
_PLURAL: Final = "clusterroles"
_KEY: Final = f"/{_GROUP}/{_PLURAL}/-/"


class RoleController(Controller[str]):
    """Its keys are clusters' ids."""

    name = "roles"
    workers = 2
    collections = frozenset({f"{_GROUP}/{_PLURAL}"})

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters

    @override
    def keys(self, event: Event) -> Iterable[str]:
        where = place(event.key) if _KEY in event.key else None
        return () if where is None or where.cluster == UNDERLAY_ID else (where.cluster,)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[str]:
        # Where all roles are those that every cluster begins with, nothing is to be done.
        async for cluster_id in self._clusters.ids(f"{_GROUP}/{_PLURAL}/", of=cluster):
            yield cluster_id

    @override
    async def reconcile(self, key: str) -> float | None:
        reached = await reach(self._clusters, key, _GROUP, _PLURAL)
        if reached is None:
            return None
        try:
            await _fill(*reached)
        except (Unsettled, ValueError) as error:
            # It stays as it is until one of them changes.
            logger.info("roles-unsettled cluster=%s error=%s", reached[0].name, error)
        return None


async def _fill(cluster: Cluster, served: Served) -> None:
    values = (await cluster.objects.list(served, "", EVERYTHING)).values
    if sum(map(len, values)) > ROLES_BYTES_MAX:
        raise Unsettled("the roles are too large together")
    likely = [orjson.loads(value) for value in values if b'"aggregationRule"' in value]
    aggregation = Aggregation(role for role in likely if role.get("aggregationRule") is not None)
    until = perf_counter() + SLICE_S
    for value in values:
        aggregation.add(orjson.loads(value))
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
    for _ in aggregation.settle():
        await asyncio.sleep(0)
    if aggregation.restless:
        logger.info(
            "roles-restless cluster=%s roles=%s", cluster.name, ",".join(sorted(aggregation.restless))
        )
    refused: ApiError | None = None
    for name, rules in aggregation.changed():
        role = await cluster.objects.read(served, "", name)
        if role is None or role.get("aggregationRule") is None:
            continue
        role["rules"] = list(rules) or None
        try:
            await edit(cluster, served, role)
        except ApiError as error:
            refused = error
    if refused is not None:
        raise refused
