"""What a kubelet, or whoever plays one, may not say of a pod. Pure.

Upstream: kubernetes pkg/apis/core/validation/validation.go (ValidatePodStatusUpdate).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clusterling.machinery.addresses import family_of, ip_problems
from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain, is_qualified_name
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.defaults import entries

_SYSTEM_CONDITIONS: Final = frozenset(("PodScheduled", "Ready", "Initialized"))
_CONTAINERS: Final = {
    "containerStatuses": "containers",
    "initContainerStatuses": "initContainers",
    "ephemeralContainerStatuses": "ephemeralContainers",
}
_UINT32_MAX: Final = 2**32 - 1
_INT32_MAX: Final = 2**31 - 1
_HEALTHS: Final = ("Healthy", "Unhealthy", "Unknown")
_HEALTH_MESSAGE_BYTES_MAX: Final = 1024
_NOT_NEGATIVE: Final = "must be a non-negative integer"
_NO_CLAIM_OF_IT: Final = (
    "must match one of the container's resource claims as 'claim:<claimName>/<requestName>' when "
    "container.resources.claims[*].request is set or 'claim:<claimName>' when it is empty"
)
_NO_EXTENDED: Final = (
    "must match the extended resource name of an entry in spec.initContainers.resources.requests or "
    "spec.containers.resources.requests"
)

Problems = Iterator[FieldError]


def status_problems(new: Object, old: Object) -> Problems:
    status, before, spec = new.get("status") or {}, old.get("status") or {}, old["spec"]
    yield from _condition_problems(status)
    yield from _nomination_problems(status, before, spec)
    if (status.get("observedGeneration") or 0) < 0:
        yield invalid_value("status.observedGeneration", status["observedGeneration"], _NOT_NEGATIVE)
    if status.get("qosClass", "") != before.get("qosClass", ""):
        yield immutable_field("status.qosClass", status.get("qosClass", ""))
    yield from _revival_problems(status, before, spec)
    yield from _claim_problems(status, spec)
    yield from _extended_claim_problems(status, spec)
    yield from _address_problems(status, before, "pod")
    yield from _address_problems(status, before, "host")
    for field in _CONTAINERS:
        yield from _user_problems(status, field, spec)
    for field in ("containerStatuses", "initContainerStatuses"):
        yield from _allocation_problems(status, field, spec)
    for index, one in enumerate(entries(status, "ephemeralContainerStatuses")):
        if one.get("allocatedResourcesStatus"):
            path = f"status.ephemeralContainerStatuses[{index}].allocatedResourcesStatus"
            yield forbidden_field(path, "must not be specified in container status")


def drop_disabled_status(status: Object) -> None:
    """Of a status being written, what belongs to features that are off (upstream: dropDisabledPodStatusFields). In place."""
    for field in ("nodeAllocatableResourceClaimStatuses", "volumeHealth"):
        status.pop(field, None)
    for field in _CONTAINERS:
        for one in entries(status, field):
            for mount in entries(one, "volumeMounts"):
                mount.pop("volumeStatus", None)


def _condition_problems(status: Object) -> Problems:
    for index, one in enumerate(entries(status, "conditions")):
        path, kind = f"status.conditions[{index}]", one.get("type", "")
        if (one.get("observedGeneration") or 0) < 0:
            yield invalid_value(f"{path}.observedGeneration", one["observedGeneration"], _NOT_NEGATIVE)
        if kind not in _SYSTEM_CONDITIONS:
            for problem in is_qualified_name(kind):
                yield invalid_value(f"{path}.Type", kind, problem)


def _nomination_problems(status: Object, before: Object, spec: Object) -> Problems:
    path, name = "status.nominatedNodeName", status.get("nominatedNodeName") or ""
    if not name or name == before.get("nominatedNodeName"):
        return
    for problem in is_dns1123_subdomain(name):
        yield invalid_value(path, name, problem)
    if spec.get("nodeName"):
        yield forbidden_field(path, "may not be set on pods that are already bound to a node")


# ---------------------------------------------------------------------- containers that have ended


def _revival_problems(status: Object, before: Object, spec: Object) -> Problems:
    """A container that has ended stays ended, unless it is one that is started again."""
    all_may = _all_may_restart(spec)
    for field, place in _CONTAINERS.items():
        lasting = place == "ephemeralContainers"
        if all_may and not lasting:
            continue
        now = {one.get("name"): one for one in entries(status, field)}
        made = {} if lasting else {one.get("name"): one for one in entries(spec, place)}
        for index, was in enumerate(entries(before, field)):
            ended = (was.get("state") or {}).get("terminated")
            again = now.get(was.get("name"))
            if ended is None or again is None or "terminated" in (again.get("state") or {}):
                continue
            container = made.get(was.get("name"))
            if container is None or not _starts_again(container, spec, ended.get("exitCode") or 0):
                why = "may not be transitioned to non-terminated state"
                yield forbidden_field(f"status.{field}[{index}].state", why)


def _all_may_restart(spec: Object) -> bool:
    """Whether the end of one container may start all of them again."""
    return any(
        rule.get("action") == "RestartAllContainers"
        for field in ("initContainers", "containers")
        for one in entries(spec, field)
        for rule in entries(one, "restartPolicyRules")
    )


def _starts_again(container: Object, spec: Object, exit_code: int) -> bool:
    """Upstream: ContainerShouldRestart, and the rules of a container that say otherwise for some exit codes."""
    if container.get("restartPolicy"):
        for rule in entries(container, "restartPolicyRules"):
            codes = rule.get("exitCodes") or {}
            within = exit_code in (codes.get("values") or ())
            if rule.get("action") == "Restart" and within is (codes.get("operator") == "In"):
                return True
    policy = container.get("restartPolicy") or spec.get("restartPolicy") or "Always"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


# ---------------------------------------------------------------------- resource claims


def _claim_problems(status: Object, spec: Object) -> Problems:
    known = {one.get("name") for one in entries(spec, "resourceClaims")}
    seen: set[str] = set()
    for index, one in enumerate(entries(status, "resourceClaimStatuses")):
        path, name = f"status.resourceClaimStatuses[{index}]", one.get("name") or ""
        if name not in known:
            yield invalid_value(
                f"{path}.name", name, "must match the name of an entry in `spec.resourceClaims`"
            )
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        claim = one.get("resourceClaimName")
        for problem in () if claim is None else is_dns1123_subdomain(claim):
            yield invalid_value(f"{path}.resourceClaimName", claim, problem)


def _extended_claim_problems(status: Object, spec: Object) -> Problems:
    extended, path = status.get("extendedResourceClaimStatus"), "status.extendedResourceClaimStatus"
    if extended is None:
        return
    containers = {
        one.get("name"): one for field in ("initContainers", "containers") for one in entries(spec, field)
    }
    if not extended.get("requestMappings"):
        yield required(f"{path}.requestMappings", "at least one request mapping is required")
    seen: set[tuple[str, ...]] = set()
    for index, one in enumerate(entries(extended, "requestMappings")):
        here = f"{path}.requestMappings[{index}]"
        mapped = {field: one.get(field) or "" for field in ("containerName", "resourceName", "requestName")}
        container = containers.get(mapped["containerName"])
        if container is None:
            why = "must match the name of an entry in spec.initContainers.name or spec.containers.name"
            yield invalid_value(f"{here}.containerName", mapped["containerName"], why)
        elif mapped["resourceName"] not in _requests(container):
            yield invalid_value(f"{here}.resourceName", mapped["resourceName"], _NO_EXTENDED)
        for problem in is_dns1123_label(mapped["requestName"]):
            yield invalid_value(f"{path}.requestName", mapped["requestName"], problem)
        if tuple(mapped.values()) in seen:
            for field, value in mapped.items():
                yield duplicate(f"{here}.{field}", value)
        seen.add(tuple(mapped.values()))
    name = extended.get("resourceClaimName") or ""
    if not name:
        yield required(f"{path}.resourceClaimName")
    for problem in is_dns1123_subdomain(name) if name else ():
        yield invalid_value(f"{path}.resourceClaimName", name, problem)


def _requests(container: Object) -> Object:
    found: Object = (container.get("resources") or {}).get("requests") or {}
    return found


# ---------------------------------------------------------------------- addresses


def _address_problems(status: Object, before: Object, what: str) -> Problems:
    field, path = f"{what}IPs", f"status.{what}IPs"
    texts = [one.get("ip") or "" for one in entries(status, field)]
    known = {one.get("ip") for one in entries(before, field)}
    single = status.get(f"{what}IP") or ""
    if what == "host" and texts and single != texts[0]:
        yield invalid_value(f"{path}[0].ip", texts[0], "must be equal to `hostIP`")
    for index, text in enumerate(texts):
        for problem in () if text in known else ip_problems(text):
            yield invalid_value(f"{path}[{index}]", text, problem)
    if len(texts) > 1 and (len(texts) > 2 or len({family_of(text) for text in texts}) < 2):
        shown = [{"IP": text} for text in texts]
        yield invalid_value(path, shown, "may specify no more than one IP for each IP family")


# ---------------------------------------------------------------------- what runs in a container, and on which devices


def _user_problems(status: Object, field: str, spec: Object) -> Problems:
    system = (spec.get("os") or {}).get("name") or "linux"
    for index, one in enumerate(entries(status, field)):
        user, path = (one.get("user") or {}).get("linux"), f"status.{field}[{index}].user.linux"
        if user is None:
            continue
        if system == "windows":
            yield forbidden_field(path, "cannot be set for a windows pod")
            continue
        uid, gid = user.get("uid", 0), user.get("gid", 0)
        if not 0 <= uid <= _UINT32_MAX:
            yield invalid_value(f"{path}.uid", uid, f"must be between 0 and {_UINT32_MAX}, inclusive")
        others = enumerate(user.get("supplementalGroups") or ())
        groups = {f"{path}.gid": gid, **{f"{path}.supplementalGroups[{at}]": one for at, one in others}}
        for here, group in groups.items():
            if not 0 <= group <= _INT32_MAX:
                yield invalid_value(here, group, f"must be between 0 and {_INT32_MAX}, inclusive")


def _allocation_problems(status: Object, field: str, spec: Object) -> Problems:
    containers = {one.get("name"): one for one in entries(spec, _CONTAINERS[field])}
    extended = status.get("extendedResourceClaimStatus") or {}
    for index, one in enumerate(entries(status, field)):
        container = containers.get(one.get("name"))
        for at, allocated in enumerate(entries(one, "allocatedResourcesStatus")):
            path, name = (
                f"status.{field}[{index}].allocatedResourcesStatus[{at}]",
                allocated.get("name") or "",
            )
            why = "" if container is None else _not_asked_for(name, container, extended)
            if why:
                yield invalid_value(f"{path}.name", name, why)
            yield from _health_problems(allocated, path)


def _not_asked_for(name: str, container: Object, extended: Object) -> str:
    """Why a container cannot have been given this; empty where it can."""
    if not name.startswith("claim:"):
        return "" if name in _requests(container) else "must match one of the container's resource requests"
    for claim in entries(container.get("resources") or {}, "claims"):
        request = claim.get("request")
        if name == f"claim:{claim.get('name', '')}" + (f"/{request}" if request else ""):
            return ""
    claimed, _, request = name.removeprefix("claim:").partition("/")
    if request and claimed == extended.get("resourceClaimName"):
        for one in entries(extended, "requestMappings"):
            amount = _requests(container).get(one.get("resourceName") or "")
            ours = one.get("containerName") == container.get("name") and one.get("requestName") == request
            if ours and amount is not None and Quantity.parse(amount) != Quantity(0):
                return ""
    return _NO_CLAIM_OF_IT


def _health_problems(allocated: Object, path: str) -> Problems:
    seen: set[str] = set()
    for index, one in enumerate(entries(allocated, "resources")):
        here, told, name = f"{path}.resources[{index}]", one.get("message"), one.get("resourceID") or ""
        if one.get("health", "") not in _HEALTHS:
            yield not_supported(f"{here}.health", one.get("health", ""), _HEALTHS)
        if told == "":
            yield required(f"{here}.message", "must be non-empty if specified")
        elif told is not None and len(told.encode()) > _HEALTH_MESSAGE_BYTES_MAX:
            yield too_long(f"{here}.message", _HEALTH_MESSAGE_BYTES_MAX)
        if name in seen:
            yield duplicate(f"{here}.resourceID", name)
        seen.add(name)
