"""What one object uses of a ResourceQuota: for each kind the names it is counted under, how much, and in which scopes.

Every kind is counted as `count/<resource>.<group>`; some have older names besides; pods, claims and services count more
than themselves. Pure. Upstream: kubernetes pkg/quota/v1/evaluator/core, apiserver pkg/quota/v1/generic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from clusterling.machinery.meta import Object, meta
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core import amounts
from clusterling.packs.core.amounts import ONE, ZERO, Amounts

# Never counted. Upstream: install.DefaultIgnoredResources; what is not stored does not come here.
IGNORED: Final = frozenset((("", "events"), ("events.k8s.io", "events")))
_ALIASES: Final = frozenset(("configmaps", "resourcequotas", "replicationcontrollers", "secrets"))
_KINDS_MAX: Final = 1024

_POD_NAMES: Final = frozenset(
    (
        "count/pods", "pods", "cpu", "memory", "ephemeral-storage", "requests.cpu", "requests.memory",
        "requests.ephemeral-storage", "limits.cpu", "limits.memory", "limits.ephemeral-storage",
    )
)  # fmt: skip
# A quota of these wants every container to say how much it takes.
_SAID_BY_EACH: Final = frozenset(
    ("cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory")
)
_COMPUTE: Final = ("cpu", "memory", "ephemeral-storage")
_STORAGE_CLASS: Final = ".storageclass.storage.k8s.io/"
_OLD_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_DEVICE_CLASS: Final = "requests.deviceclass.resource.kubernetes.io/"
_DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
_DEVICES_MAX: Final = 32  # Of one claim: what a request for all may come to.


@dataclass(frozen=True, slots=True)
class Scope:
    """One requirement of a quota on the objects it counts."""

    name: str
    operator: str = "Exists"
    values: tuple[str, ...] = ()

    def selects(self, found: Iterable[str]) -> bool:
        """Whether the operator holds for what an object has of it (its priority class, or none)."""
        have = set(found)
        match self.operator:
            case "Exists":
                return bool(have)
            case "DoesNotExist":
                return not have
            case "In":
                return bool(have & set(self.values))
            case _:
                return not have or bool(have - set(self.values))


def scopes_of(spec: Object) -> tuple[Scope, ...]:
    """All that a quota asks of the objects it counts. Upstream: getScopeSelectorsFromQuota."""
    selector = (spec.get("scopeSelector") or {}).get("matchExpressions") or ()
    return (
        *(Scope(name) for name in spec.get("scopes") or ()),
        *(
            Scope(one.get("scopeName", ""), one.get("operator", ""), tuple(one.get("values") or ()))
            for one in selector
        ),
    )


def _no_scope(scope: Scope, obj: Object) -> bool:
    return False


def _lacks_nothing(names: Sequence[str], obj: Object) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Evaluator:
    """How one kind is counted.

    `names` picks of a quota's resources those that the kind has to do with; `usage` says how much an object has of each;
    `in_scope` whether a scope holds for it; `lacking` what it must say and does not, for people;
    `varies`: an update can change what it uses.
    """

    names: Callable[[Iterable[str]], list[str]]
    usage: Callable[[Object], Amounts]
    in_scope: Callable[[Scope, Object], bool] = _no_scope
    lacking: Callable[[Sequence[str], Object], str] = _lacks_nothing
    varies: bool = False

    def counts(self, scopes: Sequence[Scope], obj: Object) -> bool:
        return all(self.in_scope(scope, obj) for scope in scopes)


@lru_cache(_KINDS_MAX)
def evaluator(group: str, plural: str) -> Evaluator | None:
    """How a kind is counted; None for those that never are."""
    if (group, plural) in IGNORED:
        return None
    if (group, plural) in _SPECIAL:
        return _SPECIAL[group, plural]
    known = {f"count/{plural}.{group}".removesuffix(".")}
    if group == "" and plural in _ALIASES:
        known.add(plural)
    used = dict.fromkeys(known, ONE)
    return Evaluator(lambda names: [name for name in names if name in known], lambda _: used)


# ---------------------------------------------------------------------- services


_SERVICE_NAMES: Final = ("count/services", "services", "services.nodeports", "services.loadbalancers")


def _service_usage(service: Object) -> Amounts:
    spec = service.get("spec") or {}
    ports, kind = spec.get("ports") or (), spec.get("type")
    node_ports = len(ports) if kind in ("NodePort", "LoadBalancer") else 0
    if kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is False:
        node_ports = sum(1 for port in ports if port.get("nodePort"))
    return {
        "count/services": ONE,
        "services": ONE,
        "services.nodeports": amounts.count(node_ports),
        "services.loadbalancers": ONE if kind == "LoadBalancer" else ZERO,
    }


# ---------------------------------------------------------------------- claims


def _claim_names(names: Iterable[str]) -> list[str]:
    own = ("count/persistentvolumeclaims", "persistentvolumeclaims", "requests.storage")
    return [name for name in names if name in own or name.partition(_STORAGE_CLASS)[2] in own[1:]]


def _claim_usage(claim: Object) -> Amounts:
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    used = {"persistentvolumeclaims": ONE, "count/persistentvolumeclaims": ONE}
    asked = (spec.get("resources") or {}).get("requests") or {}
    if "storage" in asked:
        storage = amounts.rounded_up(Quantity.parse(asked["storage"]))
        given = amounts.read(status.get("allocatedResources")).get("storage")
        if given is not None and given > storage:
            storage = amounts.rounded_up(given)
        used["requests.storage"] = storage
    annotations = meta(claim).get("annotations") or {}
    storage_class = annotations.get(_OLD_CLASS, spec.get("storageClassName"))
    if storage_class:
        for name in ("persistentvolumeclaims", "requests.storage"):
            if name in used:
                used[f"{storage_class}{_STORAGE_CLASS}{name}"] = used[name]
    return used


def _claim_in_scope(scope: Scope, claim: Object) -> bool:
    if scope.name != "VolumeAttributesClass":
        return False
    spec, status = claim.get("spec") or {}, claim.get("status") or {}
    found = (
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        (status.get("modifyVolumeStatus") or {}).get("targetVolumeAttributesClassName"),
    )
    return scope.selects(name for name in found if name)


# ---------------------------------------------------------------------- claims of devices


def _device_names(names: Iterable[str]) -> list[str]:
    return [
        name for name in names if name == "count/resourceclaims.resource.k8s.io" or name.endswith(_DEVICES)
    ]


def _device_usage(claim: Object) -> Amounts:
    """The devices of each class that it may come to have. Upstream: claimEvaluator.Usage; what its gate
    DRAExtendedResource counts besides is not counted here."""
    used = {"count/resourceclaims.resource.k8s.io": ONE}
    for request in ((claim.get("spec") or {}).get("devices") or {}).get("requests") or ():
        worst: dict[str, int] = {}
        for one in request.get("firstAvailable") or (request.get("exactly") or {},):
            name = f"{one.get('deviceClassName', '')}{_DEVICES}"
            worst[name] = max(worst.get(name, 0), _devices(one))
        amounts.add(used, {name: amounts.count(devices) for name, devices in worst.items()})
    return used


def _devices(request: Object) -> int:
    match request.get("allocationMode"):
        case "ExactCount":
            return int(request.get("count", 0))
        case "All":
            return _DEVICES_MAX
        case _:
            return 0


# ---------------------------------------------------------------------- pods


def _pod_names(names: Iterable[str]) -> list[str]:
    return [
        name
        for name in names
        if name in _POD_NAMES
        or name.startswith(("hugepages-", "requests.hugepages-", _DEVICE_CLASS))
        or (name.startswith("requests.") and _is_foreign(name))
    ]


def _is_foreign(name: str) -> bool:
    return "/" in name and "kubernetes.io/" not in name


def _pod_usage(pod: Object) -> Amounts:
    """All that are stored count; what they take, only while they run or may yet. Upstream: PodUsageFunc.

    Upstream no longer counts one whose grace period has passed, either; here nothing changes by time alone.
    """
    used = {"count/pods": ONE}
    if (pod.get("status") or {}).get("phase") not in ("Failed", "Succeeded"):
        amounts.add(used, _compute(amounts.pod_requests(pod), amounts.pod_limits(pod)))
    return used


def _compute(requests: Mapping[str, Quantity], limits: Mapping[str, Quantity]) -> Amounts:
    used = {"pods": ONE}
    for name in _COMPUTE:
        if name in requests:
            used[name] = used[f"requests.{name}"] = requests[name]
        if name in limits:
            used[f"limits.{name}"] = limits[name]
    for name, amount in requests.items():
        if name.startswith("hugepages-"):
            used[name] = used[f"requests.{name}"] = amount
        elif _is_foreign(name) and not name.startswith("requests."):
            used[f"requests.{name}"] = amount
    return used


def _pod_in_scope(scope: Scope, pod: Object) -> bool:
    spec = pod["spec"]
    match scope.name:
        case "Terminating":
            return _has_deadline(spec)
        case "NotTerminating":
            return not _has_deadline(spec)
        case "BestEffort":
            return _is_best_effort(pod)
        case "NotBestEffort":
            return not _is_best_effort(pod)
        case "PriorityClass":
            name = spec.get("priorityClassName")
            return scope.selects((name,) if name else ())
        case "CrossNamespacePodAffinity":
            return _looks_abroad(spec.get("affinity") or {})
        case _:
            return False


def _has_deadline(spec: Object) -> bool:
    seconds = spec.get("activeDeadlineSeconds")
    return seconds is not None and seconds >= 0


def _is_best_effort(pod: Object) -> bool:
    """Nothing in it says what it takes. Upstream: pkg/apis/core/v1/helper/qos."""
    said = (pod.get("status") or {}).get("qosClass")
    if said:
        return bool(said == "BestEffort")
    spec = pod["spec"]
    parts = [spec] if amounts.has_pod_level(pod) else [*_containers(spec)]
    asked = (
        (part.get("resources") or {}).get(field) or {} for part in parts for field in ("requests", "limits")
    )
    return not any(
        Quantity.parse(amount) > ZERO
        for one in asked
        for name, amount in one.items()
        if name in ("cpu", "memory")
    )


def _containers(spec: Object) -> tuple[Object, ...]:
    return (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))


def _looks_abroad(affinity: Object) -> bool:
    """Some term of its (anti)affinity looks at pods of other namespaces."""
    for side in ("podAffinity", "podAntiAffinity"):
        rules = affinity.get(side) or {}
        terms = [
            *(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()),
            *(
                one.get("podAffinityTerm") or {}
                for one in rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
            ),
        ]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def _pod_lacking(names: Sequence[str], pod: Object) -> str:
    """Upstream: podEvaluator.Constraints."""
    wanted = _SAID_BY_EACH.intersection(names)
    if not wanted or amounts.has_pod_level(pod):
        return ""
    missing: dict[str, set[str]] = {}
    for container in _containers(pod["spec"]):
        resources = container.get("resources") or {}
        said = _compute(amounts.read(resources.get("requests")), amounts.read(resources.get("limits")))
        for name in wanted - said.keys():
            missing.setdefault(name, set()).add(container["name"])
    if not missing:
        return ""
    told = (f"{name} for: {','.join(sorted(missing[name]))}" for name in sorted(missing))
    return f"must specify {'; '.join(told)}"


_SPECIAL: Final[Mapping[tuple[str, str], Evaluator]] = {
    ("", "services"): Evaluator(
        lambda names: [name for name in names if name in _SERVICE_NAMES], _service_usage, varies=True
    ),
    ("", "persistentvolumeclaims"): Evaluator(_claim_names, _claim_usage, _claim_in_scope, varies=True),
    ("", "pods"): Evaluator(_pod_names, _pod_usage, _pod_in_scope, _pod_lacking, varies=True),
    ("resource.k8s.io", "resourceclaims"): Evaluator(_device_names, _device_usage),
}
