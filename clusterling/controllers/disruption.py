"""Counts pods for PodDisruptionBudgets, so that evictions know how many more there may be.

All budgets of a namespace are looked at together, at each change of one of them or of a pod there: the pods are decoded
once. A look is followed by a rest in proportion, so that pods which change all the time have a tenth of the loop at most;
what changes meanwhile is looked at together. Clusters without budgets are known after one look, and cost nothing more.

Upstream: kubernetes pkg/controller/disruption, component-helpers/apps/poddisruptionbudget. It tells of what it finds in
events, too, and takes the condition DisruptionTarget back from pods that are not deleted after all: neither is done here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from time import perf_counter
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.reach import EVERYTHING, FENCES, Clusters, edit, ended, place, reach, stored
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError, go_quote
from clusterling.machinery.meta import GroupVersion, Object, rfc3339
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.registry.cluster import Cluster
from clusterling.registry.resource import Served
from clusterling.storage.store import Event

DELETION_S: Final = (
    120  # After which a pod that was evicted and is still there counts again (upstream: DeletionTimeout).
)
REST: Final = 9  # Of so many times a look's own duration,
REST_MAX_S: Final = 1.0
SLICE_S: Final = 0.001

_GROUP: Final = "policy"
_PLURAL: Final = "poddisruptionbudgets"
_BUDGETS: Final = f"/{_GROUP}/{_PLURAL}/"
_PODS: Final = "/core/pods/"
_ALLOWED: Final = "DisruptionAllowed"


class Uncountable(Exception):
    """How many pods there should be cannot be said: the budget then allows nothing. The message is upstream's."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Those of a namespace, by its cluster's id."""

    cluster: str
    namespace: str


@dataclass(frozen=True, slots=True)
class Pod:
    """What budgets need of a pod. `owner`: the reference to what controls it."""

    name: str
    labels: Mapping[str, str]
    ready: bool
    deleting: bool
    owner: Object | None


class DisruptionController(Controller[Budgets]):
    name = "disruption"
    workers = 2
    collections = frozenset({_BUDGETS.strip("/"), _PODS.strip("/"), FENCES})

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        # A cluster is in `_with` from its first event of a budget on, whatever was found before.
        self._with: set[str] = set()
        self._without: set[str] = set()

    @override
    def keys(self, event: Event) -> Iterable[Budgets]:
        key = event.key
        gone = ended(event)
        if gone is not None:
            self._forget(gone)
            return ()
        of_budgets = _BUDGETS in key
        if not of_budgets and _PODS not in key:
            return ()
        cluster = key[: key.index("/")]
        if not of_budgets and cluster in self._without and cluster not in self._with:
            return ()
        where = place(key)
        if where is None:
            return ()
        if of_budgets:
            self._with.add(cluster)
        return (Budgets(cluster, where.namespace),)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Budgets]:
        async for cluster_id in self._clusters.ids(_BUDGETS[1:], of=cluster):
            async for entry in self._clusters.rows(cluster_id, _BUDGETS[1:]):
                where = place(f"{cluster_id}/{entry.key}")
                assert where is not None, "these are objects"
                yield Budgets(cluster_id, where.namespace)

    @override
    async def reconcile(self, key: Budgets) -> float | None:
        if await self._clusters.by_id(key.cluster) is None:
            self._forget(key.cluster)
            return None
        reached = await reach(self._clusters, key.cluster, _GROUP, _PLURAL)
        if reached is None or not (await reached[0].objects.list(reached[1], "", EVERYTHING)).values:
            self._without.add(key.cluster)
            return None
        cluster, served = reached
        values = (await cluster.objects.list(served, key.namespace, EVERYTHING)).values
        if not values:
            return None
        began = perf_counter()
        pods = await _pods(cluster, key.namespace)
        again: list[float] = []
        refused: ApiError | None = None
        for value in values:
            try:
                seconds = await _look_at(cluster, served, orjson.loads(value), pods)
            except ApiError as error:
                refused = error
                continue
            if seconds is not None:
                again.append(seconds)
        await asyncio.sleep(min(REST * (perf_counter() - began), REST_MAX_S))
        if refused is not None:
            # Somebody wrote one of them meanwhile, as evictions do. The others have had their turn.
            raise refused
        return min(again, default=None)

    def _forget(self, cluster: str) -> None:
        self._with.discard(cluster)
        self._without.discard(cluster)


async def _pods(cluster: Cluster, namespace: str) -> Sequence[Pod]:
    served = stored(cluster, "", "pods")
    found: list[Pod] = []
    if served is None:
        return found
    # Where pods are served their module is loaded, and this with it.
    from clusterling.packs.core.pods_defaults import is_ready

    until = perf_counter() + SLICE_S
    for value in (await cluster.objects.list(served, namespace, EVERYTHING)).values:
        pod: Object = orjson.loads(value)
        metadata = pod["metadata"]
        owner = _controller_of(pod)
        labels = metadata.get("labels") or {}
        found.append(Pod(metadata["name"], labels, is_ready(pod), "deletionTimestamp" in metadata, owner))
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
    return found


async def _look_at(cluster: Cluster, served: Served, budget: Object, pods: Sequence[Pod]) -> float | None:
    """Brings one budget's status up to date; seconds after which to look again, if nothing happens. Raises ApiError."""
    now = cluster.ports.clock.now()
    mine = await _selected(budget, pods)
    try:
        expected, desired = await _wanted(cluster, budget, mine)
    except Uncountable as error:
        await _fail(cluster, served, budget, now, str(error))
        return None
    evicted = _still_evicted(budget, mine, now)
    healthy = sum(pod.ready and not pod.deleting and pod.name not in evicted for pod in mine)
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    old = budget.get("status") or {}
    status: Object = {
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "observedGeneration": budget["metadata"].get("generation", 0),
        "conditions": old.get("conditions") or [],
    }
    if evicted:
        status["disruptedPods"] = evicted
    told = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    known = _condition(status) or {}
    if (
        status != {**old, "conditions": status["conditions"]}
        or (known.get("status"), known.get("reason")) != told
    ):
        _set_condition(status, now, *told)
        budget["status"] = status
        await edit(cluster, served, budget, "status")
    ends = [parse_rfc3339(since) + timedelta(seconds=DELETION_S) - now for since in evicted.values()]
    return max(min(ends).total_seconds(), 0.0) + 1.0 if ends else None


async def _selected(budget: Object, pods: Sequence[Pod]) -> Sequence[Pod]:
    try:
        selector = LabelSelector.from_object((budget.get("spec") or {}).get("selector"))
    except ValueError:
        return ()
    found: list[Pod] = []
    until = perf_counter() + SLICE_S
    for pod in pods:
        if selector.matches(pod.labels):
            found.append(pod)
        if perf_counter() >= until:
            await asyncio.sleep(0)
            until = perf_counter() + SLICE_S
    return found


async def _wanted(cluster: Cluster, budget: Object, pods: Sequence[Pod]) -> tuple[int, int]:
    """How many pods there should be, and how many of them healthy. Raises Uncountable."""
    spec = budget.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if most is not None:
        expected = await _scale(cluster, budget["metadata"]["namespace"], pods)
        return expected, max(expected - _share(most, expected), 0)
    if least is None:
        return 0, 0
    if isinstance(least, int):
        return len(pods), least
    expected = await _scale(cluster, budget["metadata"]["namespace"], pods)
    return expected, _share(least, expected)


def _share(value: int | str, whole: int) -> int:
    """A number, or that share of the whole, rounded up."""
    return value if isinstance(value, int) else ceil(int(value.removesuffix("%")) * whole / 100)


async def _scale(cluster: Cluster, namespace: str, pods: Sequence[Pod]) -> int:
    """How many pods those want, together, that control these. A pod that nobody controls does not count."""
    wanted: dict[str, int] = {}
    for pod in pods:
        if pod.owner is None or pod.owner.get("uid") in wanted:
            continue
        found = await _scale_of(cluster, namespace, pod.owner)
        if found is None:
            raise Uncountable(f"found no controllers for pod {go_quote(pod.name)}")
        uid, replicas = found
        wanted[uid] = replicas
    return sum(wanted.values())


async def _scale_of(cluster: Cluster, namespace: str, owner: Object) -> tuple[str, int] | None:
    """The uid of what decides how many there are of an owner's pods, and that number. None: it is not there."""
    try:
        wanted = GroupVersion.parse(owner.get("apiVersion", ""))
    except ValueError as error:
        raise Uncountable(str(error)) from error
    kind = str(owner.get("kind", ""))
    served = cluster.catalog.by_kind(wanted.group, wanted.version, kind)
    if served is None or not served.resource.namespaced:
        raise Uncountable(f"no matches for kind {go_quote(kind)} in version {go_quote(str(wanted))}")
    if served.version.scale is None:
        name = f"{served.plural}.{served.group}".removesuffix(".")
        raise Uncountable(f"{name} does not implement the scale subresource")
    found = await cluster.objects.read(served, namespace, str(owner.get("name", "")))
    if found is None or found["metadata"]["uid"] != owner.get("uid"):
        return None
    if (wanted.group, kind) == ("apps", "ReplicaSet"):
        above = _controller_of(found) or {}
        if above.get("kind") == "Deployment" and str(above.get("apiVersion", "")).startswith("apps/"):
            # The set may be one of several that the deployment is going through.
            try:
                return await _scale_of(cluster, namespace, above) or _replicas(found, served)
            except Uncountable:
                pass
    return _replicas(found, served)


def _replicas(obj: Object, served: Served) -> tuple[str, int]:
    assert served.version.scale is not None, "this has been asked"
    path = served.version.scale.spec_replicas_path.removeprefix(".")
    value: object = obj
    for segment in path.split("."):
        value = value.get(segment) if isinstance(value, dict) else None
    if not isinstance(value, int) or isinstance(value, bool):
        raise Uncountable(f"the spec replicas field {go_quote('.' + path)} does not exist")
    return obj["metadata"]["uid"], value


def _controller_of(obj: Object) -> Object | None:
    references: Sequence[Object] = obj["metadata"].get("ownerReferences") or ()
    return next((one for one in references if one.get("controller")), None)


def _still_evicted(budget: Object, pods: Sequence[Pod], now: datetime) -> dict[str, str]:
    """The pods that were evicted and are not being deleted yet, with when that was; not those it should have reached long ago."""
    since: Mapping[str, str] = (budget.get("status") or {}).get("disruptedPods") or {}
    oldest = now - timedelta(seconds=DELETION_S)
    return {
        pod.name: since[pod.name]
        for pod in pods
        if pod.name in since and not pod.deleting and parse_rfc3339(since[pod.name]) >= oldest
    }


async def _fail(cluster: Cluster, served: Served, budget: Object, now: datetime, why: str) -> None:
    """Nothing is allowed while nobody knows how much there may be; the rest of the status stays."""
    status = budget["status"] = budget.get("status") or {}
    status["disruptionsAllowed"] = 0
    _set_condition(status, now, "False", "SyncFailed", why)
    await edit(cluster, served, budget, "status")


def _condition(status: Object) -> Object | None:
    return next((one for one in status.get("conditions") or () if one.get("type") == _ALLOWED), None)


def _set_condition(status: Object, now: datetime, value: str, reason: str, message: str = "") -> None:
    """Upstream: apimachinery pkg/api/meta/conditions.go, SetStatusCondition."""
    known = _condition(status)
    told: Object = {
        "type": _ALLOWED,
        "status": value,
        "observedGeneration": status.get("observedGeneration") or 0,
        "lastTransitionTime": rfc3339(now),
        "reason": reason,
        "message": message,
    }
    if known is None:
        status["conditions"] = [*(status.get("conditions") or ()), told]
        return
    if known.get("status") == value:
        told["lastTransitionTime"] = known.get("lastTransitionTime")
    status["conditions"] = [told if one is known else one for one in status["conditions"]]
