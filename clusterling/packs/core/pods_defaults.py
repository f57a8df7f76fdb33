"""What pods have beyond a pod spec: defaults that templates do not get, the class of their service, the form of their status.

All of it is pure and in place. Upstream: kubernetes pkg/apis/core/v1/{defaults,conversion}.go (SetDefaults_Pod,
SetDefaults_PodStatus), pkg/api/pod/util.go (DefaultPodLevelResources), pkg/apis/core/helper/qos.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import chain
from typing import Any, Final

from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec import default_pod_spec, reading
from clusterling.packs.core.podspec.omitting import write_as_go
from clusterling.packs.core.times import read_time

SPEC_CONTAINERS: Final = ("initContainers", "containers")
_STATUS: Final = "io.k8s.api.core.v1.PodStatus"
_STATUSES: Final = ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses")
_TOLD_EMPTY: Final = ("containers", "nodeSelectorTerms")
_ZERO: Final = Quantity(0)
_HUGE_PAGES: Final = "hugepages-"
APP_ARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"
_ARMOR_TYPES: Final = {"runtime/default": "RuntimeDefault", "unconfined": "Unconfined"}
_ARMOR_LOCALHOST: Final = "localhost/"
_ARMOR_NAME_BYTES_MAX: Final = 4095
_QOS_RESOURCES: Final = ("cpu", "memory")


def default_pod(pod: Object) -> None:
    """Everything that decoding a pod gives it. Raises ApiError 400 for a quantity or a time that is none."""
    spec = pod.setdefault("spec", {})
    _drop_empty_lists(spec)
    with reading(pod):
        default_pod_spec(spec)
    if spec["terminationGracePeriodSeconds"] < 0:
        spec["terminationGracePeriodSeconds"] = 1
    for container in containers(spec):
        limits = container["resources"].get("limits")
        if limits:
            container["resources"]["requests"] = {**limits, **(container["resources"].get("requests") or {})}
        if spec.get("hostNetwork"):
            for port in container.get("ports") or ():
                if not port.get("hostPort"):
                    port["hostPort"] = port.get("containerPort", 0)
    spec.setdefault("enableServiceLinks", True)
    complete_status(pod)


def _drop_empty_lists(part: Any) -> None:
    """Go leaves them out, but for the few that it always tells."""
    for inner in list(part.values()) if isinstance(part, dict) else part:
        if isinstance(inner, dict | list):
            _drop_empty_lists(inner)
    if isinstance(part, dict):
        for field in [key for key, inner in part.items() if inner == [] and key not in _TOLD_EMPTY]:
            del part[field]


def containers(spec: Object) -> Iterator[Object]:
    """The containers that a pod is made with: those for its start, then those for its life."""
    for field in SPEC_CONTAINERS:
        yield from spec.get(field) or ()


# ---------------------------------------------------------------------- resources of the pod as a whole


def default_pod_resources(spec: Object) -> None:
    """What a pod's own resources do not say follows from those of its containers and from its limits."""
    resources = spec.get("resources") or {}
    if not (resources.get("requests") or resources.get("limits")):
        return
    requests, limits = dict(resources.get("requests") or {}), dict(resources.get("limits") or {})
    most = _needed(spec, "limits")
    for name, quantity in most.items():
        if name.startswith(_HUGE_PAGES) and name not in requests:
            limits.setdefault(name, quantity.canonical)
    for name, quantity in _needed(spec, "requests").items():
        if name in _QOS_RESOURCES:
            requests.setdefault(name, quantity.canonical)
    for name, text in limits.items():
        if _is_of_pods(name):
            requests.setdefault(name, text)
    for name, text in requests.items():
        if name not in limits and _is_of_pods(name) and _all_limit(spec, name):
            limits[name] = text if Quantity.parse(text) > most[name] else most[name].canonical
    for field, values in (("limits", limits), ("requests", requests)):
        if values:
            resources[field] = values
    spec["resources"] = resources


def _is_of_pods(name: str) -> bool:
    return name in _QOS_RESOURCES or name.startswith(_HUGE_PAGES)


def _all_limit(spec: Object, name: str) -> bool:
    """Whether every container has a limit of a resource."""
    every = chain(containers(spec), spec.get("ephemeralContainers") or ())
    return all(name in ((one.get("resources") or {}).get("limits") or {}) for one in every)


def _needed(spec: Object, field: str) -> dict[str, Quantity]:
    """What all containers need at once at most: those that run side by side, or those for the start, one after another.

    Upstream: component-helpers/resource, AggregateContainerRequests.
    """
    total: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        _add(total, container, field)
    sidecars: dict[str, Quantity] = {}
    peak: dict[str, Quantity] = {}
    for container in spec.get("initContainers") or ():
        if container.get("restartPolicy") == "Always":
            _add(total, container, field)
            _add(sidecars, container, field)
            _raise(peak, sidecars)
        else:
            alone = dict(sidecars)
            _add(alone, container, field)
            _raise(peak, alone)
    _raise(total, peak)
    return total


def _add(total: dict[str, Quantity], container: Object, field: str) -> None:
    for name, text in (container.get("resources") or {}).get(field, {}).items():
        total[name] = total.get(name, _ZERO) + Quantity.parse(text)


def _raise(total: dict[str, Quantity], others: dict[str, Quantity]) -> None:
    for name, quantity in others.items():
        if total.get(name, _ZERO) < quantity:
            total[name] = quantity


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort: from the pod's own resources where it has some, else its containers'."""
    own = spec.get("resources") or {}
    if own.get("requests") or own.get("limits"):
        return _qos_of(own)
    classes = {_qos_of(container.get("resources") or {}) for container in containers(spec)}
    if len(classes) > 1:
        return "Burstable"
    return classes.pop() if classes else "BestEffort"


def _qos_of(resources: Object) -> str:
    requests, limits = _counted(resources, "requests"), _counted(resources, "limits")
    if not requests and not limits:
        return "BestEffort"
    full = set(limits) == set(_QOS_RESOURCES) and requests == limits
    return "Guaranteed" if full else "Burstable"


def _counted(resources: Object, field: str) -> dict[str, Quantity]:
    found = {name: Quantity.parse(text) for name, text in (resources.get(field) or {}).items()}
    return {name: one for name, one in found.items() if name in _QOS_RESOURCES and one > _ZERO}


# ---------------------------------------------------------------------- AppArmor


def apply_armor(pod: Object) -> Iterator[str]:
    """What the old annotations say of containers' AppArmor profiles goes into fields; the warnings for those that use them."""
    spec = pod["spec"]
    notes = (pod.get("metadata") or {}).get("annotations") or {}
    if (spec.get("os") or {}).get("name") == "windows":
        return
    of_pod = (spec.get("securityContext") or {}).get("appArmorProfile")
    for container in chain(containers(spec), spec.get("ephemeralContainers") or ()):
        key = f"{APP_ARMOR}{container.get('name', '')}"
        if key not in notes or (container.get("securityContext") or {}).get("appArmorProfile") is not None:
            continue
        profile = _armor_of(notes[key])
        if profile is not None and profile == of_pod:
            continue
        if profile is not None:
            container.setdefault("securityContext", {})["appArmorProfile"] = profile
        yield f'metadata.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'


def _armor_of(note: str) -> Object | None:
    """The profile that an annotation means; None where it means none, or one that could not be."""
    if note in _ARMOR_TYPES:
        return {"type": _ARMOR_TYPES[note]}
    name = note.removeprefix(_ARMOR_LOCALHOST)
    usable = name and name.strip() == name and len(name) <= _ARMOR_NAME_BYTES_MAX
    if not note.startswith(_ARMOR_LOCALHOST) or not usable:
        return None
    return {"type": "Localhost", "localhostProfile": name}


# ---------------------------------------------------------------------- status


def complete_status(pod: Object) -> None:
    """The status as Go writes it: both forms of the pod's address, times in their one form, zeros that are always told."""
    status = pod.get("status")
    if not status:
        return
    address, addresses = status.get("podIP"), status.get("podIPs")
    if address and (not addresses or addresses[0].get("ip") != address):
        status["podIPs"] = [{"ip": address}]
    elif addresses and not address:
        status["podIP"] = addresses[0].get("ip", "")
    if "startTime" in status:
        read_time(pod, status, "startTime")
    for condition in status.get("conditions") or ():
        _told_times(pod, condition, "lastProbeTime", "lastTransitionTime")
    for field in _STATUSES:
        for one in status.get(field) or ():
            _complete_container(pod, one)
    write_as_go(status, _STATUS)


def _complete_container(pod: Object, status: Object) -> None:
    for field, zero in (("ready", False), ("restartCount", 0), ("image", ""), ("imageID", "")):
        status.setdefault(field, zero)
    for field in ("state", "lastState"):
        state = status.setdefault(field, {})
        if "running" in state:
            _told_times(pod, state["running"], "startedAt")
        if "terminated" in state:
            state["terminated"].setdefault("exitCode", 0)
            _told_times(pod, state["terminated"], "startedAt", "finishedAt")


def _told_times(pod: Object, part: Object, *fields: str) -> None:
    """Times of no pointer: null where there is none."""
    for field in fields:
        part.setdefault(field, None)
        read_time(pod, part, field)


def set_condition(
    pod: Object, now: datetime, kind: str, value: str, reason: str = "", message: str = ""
) -> None:
    """Adds or replaces a condition; when it last changed stays where its status does (upstream: UpdatePodCondition)."""
    conditions: list[Object] = pod.setdefault("status", {}).setdefault("conditions", [])
    made: Object = {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": rfc3339(now)}
    if reason:
        made["reason"] = reason
    if message:
        made["message"] = message
    for index, old in enumerate(conditions):
        if old.get("type") == kind:
            if old.get("status") == value:
                made["lastTransitionTime"] = old.get("lastTransitionTime")
            conditions[index] = made
            return
    conditions.append(made)


def condition_of(pod: Object, kind: str) -> Object | None:
    """The first condition of a type."""
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition.get("type") == kind:
            found: Object = condition
            return found
    return None


def is_ready(pod: Object) -> bool:
    condition = condition_of(pod, "Ready")
    return condition is not None and condition.get("status") == "True"
