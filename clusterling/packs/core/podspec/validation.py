"""What is wrong with a pod spec or a template of one: the themes beside this file, in upstream's order.

Upstream: ValidatePodSpec, ValidatePodTemplateSpec. What an update of a stored object may keep although it is wrong by
now is not told apart: all that was ever stored here has passed these rules.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.objectmeta import validate_annotations, validate_labels
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec import dns
from clusterling.packs.core.podspec.annotations import field_match_problems, pod_annotation_problems
from clusterling.packs.core.podspec.containers import Surroundings, container_problems
from clusterling.packs.core.podspec.defaults import CONTAINER_LISTS
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.resources import (
    HUGE_PAGES,
    pod_resource_name,
    quantities,
    requirement_problems,
)
from clusterling.packs.core.podspec.rules import Problems, items, label, named, one_of_needed
from clusterling.packs.core.podspec.scheduling import (
    affinity_problems,
    gate_problems,
    spread_problems,
    toleration_problems,
)
from clusterling.packs.core.podspec.security import (
    host_process_problems,
    os_problems,
    pod_security_problems,
)
from clusterling.packs.core.podspec.volumes import volume_problems

RESTART_POLICIES: Final = ("Always", "OnFailure", "Never")
_PREEMPTION: Final = ("PreemptLowerPriority", "Never")
_SECONDS_MAX: Final = 2**31 - 1
_ONE_CLAIM: Final = "`resourceClaimName`, `resourceClaimTemplateName`"


def pod_template_problems(template: Object, path: str) -> list[FieldError]:
    """What is wrong with a defaulted PodTemplateSpec."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    found = validate_labels(metadata.get("labels") or {}, f"{path}.labels")
    found += validate_annotations(metadata.get("annotations") or {}, f"{path}.annotations")
    found += pod_annotation_problems(metadata, spec, f"{path}.annotations")
    found += pod_spec_problems(spec, f"{path}.spec", template=True)
    found += field_match_problems(metadata, spec, f"{path}.spec")
    if spec.get("ephemeralContainers"):
        why = "ephemeral containers not allowed in pod template"
        found.append(forbidden_field(f"{path}.spec.ephemeralContainers", why))
    return found


def pod_spec_problems(spec: Object, path: str, *, template: bool, pod: str = "") -> list[FieldError]:
    """What is wrong with a defaulted PodSpec. `template`: host ports may still wait for their defaults.

    `pod`: the pod's name, after which the claims of its ephemeral volumes are called.
    """
    if spec.get("terminationGracePeriodSeconds") is None:
        found = [required(f"{path}.terminationGracePeriodSeconds")]
    else:
        found = []
    volumes, wrong = volume_problems(spec, path, pod)
    found += wrong
    claims = frozenset(one["name"] for _, one in items(spec, "resourceClaims", path) if one.get("name"))
    around = Surroundings(
        volumes=volumes,
        claims=claims,
        grace=spec.get("terminationGracePeriodSeconds"),
        restart_policy=spec.get("restartPolicy", ""),
        host_users=spec.get("hostUsers") is not False,
    )
    containers = all_containers(spec, path)
    found += _claim_problems(spec, path)
    found += container_problems(spec, path, around)
    found += _pod_resource_problems(spec, path, claims)
    found += _host_network_problems(spec, path, template=template)
    found += one_of_needed(spec.get("restartPolicy"), f"{path}.restartPolicy", RESTART_POLICIES)
    found += dns.policy_problems(spec, path)
    found += validate_labels(spec.get("nodeSelector") or {}, f"{path}.nodeSelector")
    found += pod_security_problems(spec, f"{path}.securityContext")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        why = "ShareProcessNamespace and HostPID cannot both be enabled"
        found.append(invalid_value(f"{path}.shareProcessNamespace", True, why))
    found += affinity_problems(spec.get("affinity") or {}, f"{path}.affinity")
    found += dns.dns_problems(spec, path)
    found += gate_problems(spec, path)
    found += spread_problems(spec, path)
    found += host_process_problems(spec, path, containers)
    found += _host_users_problems(spec, path, containers)
    found += dns.hostname_problems(spec, path)
    found += _name_problems(spec, path)
    found += os_problems(spec, path, containers)
    found += _file_key_problems(spec, containers)
    return found


def all_containers(spec: Object, path: str) -> list[tuple[str, Object]]:
    """Every container with its path, as upstream visits them: those of the start first."""
    return [one for field in CONTAINER_LISTS for one in items(spec, field, path)]


def _claim_problems(spec: Object, path: str) -> Problems:
    seen: set[str] = set()
    for here, claim in items(spec, "resourceClaims", path):
        name = claim.get("name") or ""
        if not name:
            yield required(f"{here}.name")
        elif name in seen:
            yield duplicate(f"{here}.name", name)
        else:
            yield from label(name, f"{here}.name")
            seen.add(name)
        given = [
            one for one in ("resourceClaimName", "resourceClaimTemplateName") if claim.get(one) is not None
        ]
        if len(given) > 1:
            why = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            yield invalid_value(here, as_internal("PodResourceClaim", claim), why)
        if not given:
            yield invalid_value(
                here, as_internal("PodResourceClaim", claim), f"must specify one of: {_ONE_CLAIM}"
            )
        for field in given:
            yield from named(claim[field], f"{here}.{field}", is_dns1123_subdomain)


def _pod_resource_problems(spec: Object, path: str, claims: frozenset[str]) -> Problems:
    """Requests and limits of the pod as a whole (KEP-2837)."""
    resources, here = spec.get("resources"), f"{path}.resources"
    if resources is None:
        return
    if (spec.get("os") or {}).get("name") == "windows":
        yield forbidden_field(here, "may not be set for a windows pod")
        return
    if resources.get("claims") is not None:
        yield forbidden_field(f"{here}.claims", "claims may not be set for Resources at pod-level")
    yield from requirement_problems(resources, here, claims, pod_resource_name)
    yield from _share_problems(spec, resources, here)


def _share_problems(spec: Object, resources: Object, path: str) -> Problems:
    """What containers ask for together fits into the pod, and so does each one's limit."""
    limits, requests = quantities(resources, "limits"), quantities(resources, "requests")
    asked = _aggregate(spec, "requests")
    for name, whole in requests.items():
        if name in asked and asked[name] > whole:
            why = f"must be greater than or equal to aggregate container requests of {asked[name]}"
            yield invalid_value(f"{path}.requests[{name}]", str(whole), why)
    most = _aggregate(spec, "limits")
    for name, whole in limits.items():
        if name.startswith(HUGE_PAGES) and name in most and most[name] > whole:
            why = f"must be greater than or equal to aggregate container limits of {most[name]}"
            yield invalid_value(f"{path}.limits[{name}]", str(whole), why)
    for here, container in items(spec, "containers", path):
        for name, limit in quantities(container.get("resources") or {}, "limits").items():
            if name in limits and limit > limits[name]:
                why = f"must be less than or equal to pod limits of {limits[name]}"
                yield invalid_value(f"{here}[{name}].limits", str(limit), why)


def _aggregate(spec: Object, kind: str) -> dict[str, Quantity]:
    """What the containers need at once: sidecars stay, other init containers run one by one before the rest."""
    sidecars: dict[str, Quantity] = {}
    most: dict[str, Quantity] = {}
    for _, one in items(spec, "initContainers", ""):
        amounts = quantities(one.get("resources") or {}, kind)
        for name, amount in amounts.items():
            total = sidecars[name] + amount if name in sidecars else amount
            most[name] = max(most.get(name, total), total)
            if one.get("restartPolicy") == "Always":
                sidecars[name] = total
    for _, one in items(spec, "containers", ""):
        for name, amount in quantities(one.get("resources") or {}, kind).items():
            sidecars[name] = sidecars[name] + amount if name in sidecars else amount
    return {name: max(most.get(name, total), total) for name, total in (most | sidecars).items()}


def _host_network_problems(spec: Object, path: str, *, template: bool) -> Problems:
    if not spec.get("hostNetwork"):
        return
    for here, container in items(spec, "containers", path):
        for place, port in items(container, "ports", here):
            host = port.get("hostPort") or 0
            if host != port.get("containerPort", 0) and (host or not template):
                why = "must match `containerPort` when `hostNetwork` is true"
                yield invalid_value(f"{place}.hostPort", host, why)


def _host_users_problems(spec: Object, path: str, containers: list[tuple[str, Object]]) -> Problems:
    if spec.get("hostUsers") is not False:
        return
    why = "when `hostUsers` is false"
    for field, told in (("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")):
        if spec.get(field):
            yield forbidden_field(f"{path}.{told}", why)
    for here, container in containers:
        if container.get("volumeDevices"):
            yield forbidden_field(f"{here}.volumeDevices", why)


def _name_problems(spec: Object, path: str) -> Problems:
    """What the pod refers to by name, how long it may run, and the small closed sets."""
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            yield from named(spec[field], f"{path}.{field}", is_dns1123_subdomain)
    seconds = spec.get("activeDeadlineSeconds")
    if seconds is not None and not 1 <= seconds <= _SECONDS_MAX:
        why = f"must be between 1 and {_SECONDS_MAX}, inclusive"
        yield invalid_value(f"{path}.activeDeadlineSeconds", seconds, why)
    yield from dns.label_names_problems(spec, path)
    yield from toleration_problems(spec, path)
    yield from dns.alias_problems(spec, path)
    if spec.get("priorityClassName"):
        yield from named(spec["priorityClassName"], f"{path}.priorityClassName", is_dns1123_subdomain)
    if spec.get("runtimeClassName") is not None:
        yield from named(spec["runtimeClassName"], f"{path}.runtimeClassName", is_dns1123_subdomain)
    policy = spec.get("preemptionPolicy")
    if policy == "":
        yield required(f"{path}.preemptionPolicy")
    elif policy is not None and policy not in _PREEMPTION:
        yield not_supported(f"{path}.preemptionPolicy", policy, _PREEMPTION)
    if spec.get("overhead") is not None:
        yield from requirement_problems({"limits": spec["overhead"]}, f"{path}.overhead")


def _file_key_problems(spec: Object, containers: list[tuple[str, Object]]) -> Problems:
    """Volumes that variables are read from: there, and an emptyDir."""
    volumes = {one.get("name"): one for _, one in items(spec, "volumes", "")}
    for path, container in containers:
        for here, variable in items(container, "env", path):
            reference = (variable.get("valueFrom") or {}).get("fileKeyRef")
            if reference is None:
                continue
            name, place = reference.get("volumeName") or "", f"{here}.valueFrom.fileKeyRef.volumeName"
            if name not in volumes:
                yield FieldError(FieldErrorType.NOT_FOUND, place, name)
            elif volumes[name].get("emptyDir") is None:
                yield invalid_value(place, name, "referenced volume must be of type emptyDir")
