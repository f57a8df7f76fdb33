"""What a resize may change of a pod: CPU and memory of its containers and of itself (KEP-1287, KEP-5419). Pure.

Upstream: kubernetes pkg/registry/core/pod/strategy.go (dropNonResizeUpdates), ValidatePodResize.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value
from clusterling.machinery.meta import Object, meta
from clusterling.packs.core.pods_admission import MIRROR
from clusterling.packs.core.pods_defaults import SPEC_CONTAINERS, qos_class
from clusterling.packs.core.podspec.defaults import entries
from clusterling.packs.core.podspec.internal import same

_RESIZABLE: Final = ("cpu", "memory")
_KINDS: Final = ("requests", "limits")
# The field path of a pod itself.

Problems = Iterator[FieldError]


def keep_but_resources(new: Object, old: Object) -> None:
    """Of a resize, only resources and how they are resized are read; where containers do not match, all is left for validation."""
    after, before = new["spec"], old["spec"]
    for field in SPEC_CONTAINERS:
        names = [one.get("name") for one in entries(after, field)]
        if names != [one.get("name") for one in entries(before, field)]:
            return
    kept: Object = orjson.loads(orjson.dumps(before))
    for field in SPEC_CONTAINERS:
        for container, given in zip(entries(kept, field), entries(after, field), strict=True):
            for part in ("resources", "resizePolicy"):
                container.pop(part, None)
                if part in given:
                    container[part] = given[part]
    if after.get("resources") is not None:
        kept["resources"] = after["resources"]
    new["spec"] = kept


def never_resized(old: Object) -> str:
    """Why a pod cannot be resized at all; empty where it can."""
    if MIRROR in (meta(old).get("annotations") or {}):
        return "static pods cannot be resized"
    windows = (old["spec"].get("os") or {}).get("name") == "windows"
    return "windows pods cannot be resized" if windows else ""


def resize_problems(new: Object, old: Object) -> Problems:
    """Nothing is taken away, and the pod's class of service stays."""
    after, before = new["spec"], old["spec"]
    found = []
    was = (old.get("status") or {}).get("qosClass") or qos_class(before)
    if was != qos_class(after):
        why = "Pod QOS Class may not change as a result of resizing"
        found.append(invalid_value("spec", (new.get("status") or {}).get("qosClass", ""), why))
    if not _node_resizes(old):
        found.append(forbidden_field("spec", "Pod running on node without support for resize"))
    found += _whole_problems(after.get("resources"), before.get("resources"))
    moved = list(_order_problems(after, before))
    if not moved:
        found += [problem for field in SPEC_CONTAINERS for problem in _removed_problems(after, before, field)]
        found += _others_problems(after, before)
        found += _others_of_init_problems(after, before)
    yield from found + moved
    if found or moved:
        return
    masked = {**after, **{field: before[field] for field in SPEC_CONTAINERS if field in before}}
    masked["resources"] = before.get("resources")
    if not same(masked, before):
        yield forbidden_field("spec", "only cpu and memory resources are mutable")


def _whole_problems(new: Object | None, old: Object | None) -> Problems:
    """Of the resources of the pod itself."""
    if not any((part or {}).get(kind) for part in (new, old) for kind in _KINDS):
        return
    if new is None:
        yield forbidden_field("spec.resources", "pod-level resources cannot be removed")
        return
    for kind in _KINDS:
        if old is not None and (old.get(kind) or {}).keys() - (new.get(kind) or {}).keys():
            yield forbidden_field(f"spec.resources.{kind}", f"pod-level resource {kind} cannot be removed")
    if not same(_others(new), _others(old or {})):
        yield forbidden_field("spec", "only cpu and memory resources are mutable at pod-level")


def _node_resizes(pod: Object) -> bool:
    for status in entries(pod.get("status") or {}, "containerStatuses"):
        if "running" in (status.get("state") or {}):
            return "resources" in status
    return True


def _order_problems(after: Object, before: Object) -> Problems:
    for field in ("containers", "initContainers"):
        new, old = entries(after, field), entries(before, field)
        if len(new) != len(old):
            yield forbidden_field(f"spec.{field}", f"{field} may not be added or removed on resize")
            continue
        for index, (one, was) in enumerate(zip(new, old, strict=True)):
            if one.get("name") != was.get("name"):
                why = f"{field} may not be renamed or reordered on resize"
                yield forbidden_field(f"spec.{field}[{index}].name", why)


def _removed_problems(after: Object, before: Object, field: str) -> Problems:
    for index, (one, was) in enumerate(zip(entries(after, field), entries(before, field), strict=True)):
        for kind in _KINDS:
            new, old = ((part.get("resources") or {}).get(kind) or {} for part in (one, was))
            if old.keys() - new.keys():
                path = f"spec.{field}[{index}].resources.{kind}"
                yield forbidden_field(path, f"resource {kind} cannot be removed")


def _others_problems(after: Object, before: Object) -> Problems:
    for one, was in zip(entries(after, "containers"), entries(before, "containers"), strict=True):
        if not same(_but_resized(one), _but_resized(was)):
            yield forbidden_field("spec", "only cpu and memory resources are mutable")


def _others_of_init_problems(after: Object, before: Object) -> Problems:
    pairs = zip(entries(after, "initContainers"), entries(before, "initContainers"), strict=True)
    for index, (one, was) in enumerate(pairs):
        path = f"spec.initContainers[{index}]"
        if not same(_but_resized(one), _but_resized(was)):
            why = "only cpu and memory resources for init or sidecar containers are mutable"
            yield forbidden_field(path, why)
        if same(one, was) or one.get("restartPolicy") == "Always":
            continue
        for policy in entries(one, "resizePolicy"):
            if policy.get("restartPolicy") == "RestartContainer":
                why = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized"
                yield forbidden_field(path, why)


def _but_resized(container: Object) -> Object:
    return {**container, "resources": _others(container.get("resources") or {})}


def _others(resources: Object) -> Object:
    """What a resize may not touch of requirements."""
    kept: dict[str, Any] = dict(resources)
    for kind in _KINDS:
        given = resources.get(kind) or {}
        kept[kind] = {name: value for name, value in given.items() if name not in _RESIZABLE}
    return kept
