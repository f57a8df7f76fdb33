"""Empties namespaces that are being deleted, then lets them go; their conditions say what is left, and why.

Pods go first, and nothing else before the last of them has gone: what they need to end is there until then.
Upstream: pkg/controller/namespace/deletion (KEP 5080 for the order).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers.deletions import DeletionController
from clusterling.controllers.reach import EVERYTHING, context, edit, look_again_s
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.timestamps import parse_rfc3339
from clusterling.registry.cluster import Cluster
from clusterling.registry.deleting import FOREGROUND, ORPHAN
from clusterling.registry.options import DeleteOptions
from clusterling.registry.resource import Served

FINALIZER: Final = "kubernetes"
OTHERS_FIRST_S: Final = 5.0  # Upstream gives everybody else that time; here only who has something to do.
DECODED_AT_ONCE: Final = 100

_BACKGROUND: Final = DeleteOptions(propagation="Background")
_COLLECTED: Final = frozenset({FOREGROUND, ORPHAN})
_ENDED: Final = frozenset({"Succeeded", "Failed"})


class NamespaceController(DeletionController):
    name = "namespaces"
    workers = 4
    group = ""
    plural = "namespaces"

    @override
    async def finish(self, cluster: Cluster, served: Served, obj: Object) -> float | None:
        finalizers = obj.get("spec", {}).get("finalizers") or ()
        if FINALIZER not in finalizers:
            return None
        rest_s = OTHERS_FIRST_S - _age_s(obj, cluster.ports.clock.now())
        if rest_s > 0 and _COLLECTED & set(obj["metadata"].get("finalizers") or ()):
            return (
                rest_s  # The garbage collector lets go of what the namespace owns; then it comes here again.
            )
        left = await _empty(cluster, obj)
        obj = await _tell(cluster, served, obj, left)
        if left.count:
            return look_again_s(left.count)
        obj["spec"]["finalizers"] = [finalizer for finalizer in finalizers if finalizer != FINALIZER]
        await edit(cluster, served, obj, "finalize")
        return None


@dataclass(slots=True)
class Left:
    """What is left after a round of deleting: counts by resource and by finalizer, what failed, and how much there is.

    While pods are left, they alone were looked at, and are not counted by name, as upstream.
    """

    resources: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    count: int = 0


async def _empty(cluster: Cluster, namespace: Object) -> Left:
    kinds = [
        served
        for served in cluster.catalog.storage
        if served.resource.namespaced and "delete" in served.resource.verbs
    ]
    left = Left()
    pods = [served for served in kinds if (served.group, served.plural) == ("", "pods")]
    for served in pods:
        await _clear(cluster, served, namespace, left)
    if left.count:
        return Left(failures=left.failures, count=left.count)
    for served in kinds:
        if served not in pods:
            await _clear(cluster, served, namespace, left)
    return left


async def _clear(cluster: Cluster, served: Served, namespace: Object, left: Left) -> None:
    """Deletes all of a kind, and adds what stays."""
    name = namespace["metadata"]["name"]
    try:
        await cluster.objects.delete_collection(context(cluster), served, name, EVERYTHING, _BACKGROUND)
    except ApiError as error:
        left.failures.append(error.message)
        left.count += 1
        return
    values = (await cluster.objects.list(served, name, EVERYTHING)).values
    if not values:
        return
    left.count += len(values)
    left.resources[f"{served.plural}.{served.group}"] = len(values)
    held: dict[str, int] = {}
    grace_s = 0
    for at, value in enumerate(values):
        if at % DECODED_AT_ONCE == 0:
            await asyncio.sleep(0)
        obj = orjson.loads(value)
        grace_s = max(grace_s, _grace_s(served, obj))
        for finalizer in obj["metadata"].get("finalizers") or ():
            held[finalizer] = held.get(finalizer, 0) + 1
    for finalizer, count in held.items():
        left.finalizers[finalizer] = left.finalizers.get(finalizer, 0) + count
    if not held and grace_s <= _age_s(namespace, cluster.ports.clock.now()):
        kind = f"{served.group}/{served.version.name}, Resource={served.plural}"
        left.failures.append(f"unexpected items still remain in namespace: {name} for gvr: {kind}")


def _grace_s(served: Served, obj: Object) -> int:
    """How long a pod may take to end, if it has not ended."""
    if served.plural != "pods" or obj.get("status", {}).get("phase") in _ENDED:
        return 0
    return int(obj["spec"].get("terminationGracePeriodSeconds") or 0)


def _age_s(namespace: Object, now: datetime) -> float:
    return (now - parse_rfc3339(namespace["metadata"]["deletionTimestamp"])).total_seconds()


# type → (reason and message while all is well, reason while it is not)
_CONDITIONS: Final[Mapping[str, tuple[str, str, str]]] = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered", ""),
    "NamespaceDeletionGroupVersionParsingFailure": (
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
        "",
    ),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
        "ContentDeletionFailed",
    ),
    "NamespaceContentRemaining": (
        "ContentRemoved",
        "All content successfully removed",
        "SomeResourcesRemain",
    ),
    "NamespaceFinalizersRemaining": (
        "ContentHasNoFinalizers",
        "All content-preserving finalizers finished",
        "SomeFinalizersRemain",
    ),
}


def _problems(left: Left) -> dict[str, str]:
    """What is not well, by the type of its condition. Upstream: status_condition_utils.go."""
    found: dict[str, str] = {}
    if left.failures:
        texts = ", ".join(sorted(left.failures))
        found["NamespaceDeletionContentFailure"] = (
            f"Failed to delete all resource types, {len(left.failures)} remaining: {texts}"
        )
    if left.resources:
        counts = sorted(f"{name} has {count} resource instances" for name, count in left.resources.items())
        found["NamespaceContentRemaining"] = f"Some resources are remaining: {', '.join(counts)}"
    if left.finalizers:
        counts = sorted(f"{name} in {count} resource instances" for name, count in left.finalizers.items())
        found["NamespaceFinalizersRemaining"] = (
            f"Some content in the namespace has finalizers remaining: {', '.join(counts)}"
        )
    return found


async def _tell(cluster: Cluster, served: Served, namespace: Object, left: Left) -> Object:
    """Writes the conditions, where they are others than before; the namespace as it is then."""
    problems = _problems(left)
    status = namespace.setdefault("status", {})
    conditions: list[Object] = list(status.get("conditions") or ())
    known = {condition["type"]: condition for condition in conditions}
    now = rfc3339(cluster.ports.clock.now())
    changed = False
    for kind, (fine, message, wrong) in _CONDITIONS.items():
        says = {
            "status": "True" if kind in problems else "False",
            "reason": wrong if kind in problems else fine,
            "message": problems.get(kind, message),
        }
        condition = known.get(kind)
        if condition is None:
            condition = {"type": kind}
            conditions.append(condition)
        elif says == {key: condition.get(key) for key in says}:
            continue
        if condition.get("status") != says["status"]:
            condition["lastTransitionTime"] = now
        condition.update(says)
        changed = True
    if not changed:
        return namespace
    status["conditions"] = conditions
    await edit(cluster, served, namespace, "status")
    return await cluster.objects.read(served, "", namespace["metadata"]["name"]) or namespace
