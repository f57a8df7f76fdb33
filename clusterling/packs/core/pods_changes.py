"""What may change of a pod that is there: by an update, and by its ephemeral containers. Pure.

Upstream: kubernetes pkg/apis/core/validation/validation.go (ValidatePodUpdate, ValidatePodEphemeralContainersUpdate).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import orjson

from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    invalid_value,
    required,
)
from clusterling.machinery.meta import Object, meta
from clusterling.packs.core.pods_admission import MIRROR
from clusterling.packs.core.pods_defaults import APP_ARMOR, SPEC_CONTAINERS
from clusterling.packs.core.podspec.defaults import entries
from clusterling.packs.core.podspec.internal import as_internal, difference, same

INT32_MAX: Final = 2**31 - 1

_UPDATABLE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_REQUIRED_AFFINITY: Final = "requiredDuringSchedulingIgnoredDuringExecution"

Problems = Iterator[FieldError]


# ---------------------------------------------------------------------- updates


def update_problems(new: Object, old: Object) -> Problems:
    """A change of the pod itself: images, a shorter deadline, more tolerations, fewer gates, and what gated pods may."""
    after, before = new["spec"], old["spec"]
    for field in ("containers", "initContainers"):
        if len(entries(after, field)) != len(entries(before, field)):
            yield forbidden_field(f"spec.{field}", "pod updates may not add or remove containers")
            return
        yield from _image_problems(after, field)
    wrong = list(_deadline_problems(after, before))
    yield from wrong
    if wrong and after.get("activeDeadlineSeconds") is not None:
        return
    yield from _toleration_problems(after, before)
    yield from _gate_problems(after, before)
    if same(after, before):
        return
    masked: Object = orjson.loads(orjson.dumps(after))
    for field in SPEC_CONTAINERS:
        for container, was in zip(entries(masked, field), entries(before, field), strict=True):
            _restore(container, was, "image")
    _restore(masked, before, "activeDeadlineSeconds", "schedulingGates", "tolerations")
    if entries(before, "schedulingGates"):
        yield from _gated_problems(masked, before)
    if not same(masked, before):
        changed = difference("PodSpec", before, masked)
        yield forbidden_field("spec", f"pod updates may not change fields other than {_UPDATABLE}\n{changed}")


def _restore(part: Object, before: Object, *fields: str) -> None:
    for field in fields:
        if field in before:
            part[field] = before[field]
        else:
            part.pop(field, None)


def _image_problems(spec: Object, field: str) -> Problems:
    for index, container in enumerate(entries(spec, field)):
        image = container.get("image") or ""
        if not image:
            yield required(f"spec.{field}[{index}].image")
        if image.strip() != image:
            why = "must not have leading or trailing whitespace"
            yield invalid_value(f"spec.{field}[{index}].image", image, why)


def _deadline_problems(after: Object, before: Object) -> Problems:
    path = "spec.activeDeadlineSeconds"
    new, old = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if new is None:
        if old is not None:
            yield invalid_value(path, None, "must not update from a positive integer to nil value")
    elif not 0 <= new <= INT32_MAX:
        yield invalid_value(path, new, f"must be between 0 and {INT32_MAX}, inclusive")
    elif old is not None and old < new:
        yield invalid_value(path, new, "must be less than or equal to previous value")


def lasting_part(toleration: Object) -> tuple[str, ...]:
    """A toleration but for how long it lasts."""
    return tuple(toleration.get(field) or "" for field in ("key", "operator", "value", "effect"))


def _toleration_problems(after: Object, before: Object) -> Problems:
    kept = set(map(lasting_part, entries(after, "tolerations")))
    if any(lasting_part(one) not in kept for one in entries(before, "tolerations")):
        why = "existing toleration can not be modified except its tolerationSeconds"
        yield forbidden_field("spec.tolerations", why)


def _gate_problems(after: Object, before: Object) -> Problems:
    known = {one.get("name") for one in entries(before, "schedulingGates")}
    for index, gate in enumerate(entries(after, "schedulingGates")):
        name = gate.get("name", "")
        if name not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{name}'"
            yield forbidden_field(f"spec.schedulingGates[{index}].name", why)


def _gated_problems(masked: Object, before: Object) -> Problems:
    """A pod that waits may still be held to more nodes' properties. What was judged is put back."""
    new, old = masked.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(new.get(key) != value for key, value in old.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        yield invalid_value("spec.nodeSelector", new or None, why)
    _restore(masked, before, "nodeSelector")
    after_affinity, before_affinity = masked.get("affinity") or {}, before.get("affinity") or {}
    path = f"spec.affinity.nodeAffinity.{_REQUIRED_AFFINITY}.nodeSelectorTerms"
    wanted = _terms(before_affinity)
    given = _terms(after_affinity)
    if wanted and len(wanted) != len(given):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        yield invalid_value(path, as_internal("[]NodeSelectorTerm", given or None), why)
    elif wanted:
        for index, (term, was) in enumerate(zip(given, wanted, strict=True)):
            if not _only_adds(term, was):
                why = "only additions are allowed (no mutations or deletions)"
                yield invalid_value(f"{path}[{index}]", as_internal("NodeSelectorTerm", term), why)
    _restore(after_affinity, before_affinity, "nodeAffinity")
    if after_affinity:
        masked["affinity"] = after_affinity
    else:
        masked.pop("affinity", None)


def _terms(affinity: Object) -> list[Object]:
    needed = (affinity.get("nodeAffinity") or {}).get(_REQUIRED_AFFINITY) or {}
    return entries(needed, "nodeSelectorTerms")


def _only_adds(term: Object, was: Object) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(was.get(field) for field in fields):
        return not any(term.get(field) for field in fields)
    return all(
        same(entries(term, field)[: len(entries(was, field))], entries(was, field)) for field in fields
    )


def annotation_problems(new: Object, old: Object | None) -> Problems:
    """Annotations that mean something: that of mirror pods cannot come or go, nor those of AppArmor profiles."""
    after = meta(new).get("annotations") or {}
    before = after if old is None else meta(old).get("annotations") or {}
    for key in sorted({*after, *before}):
        if after.get(key) == before.get(key):
            continue
        what = "AppArmor annotations" if key.startswith(APP_ARMOR) else ""
        what = "mirror pod annotation" if key == MIRROR else what
        if what:
            how = "add" if key not in before else "remove or update"
            yield forbidden_field(f"metadata.annotations[{key}]", f"may not {how} {what}")


# ---------------------------------------------------------------------- ephemeral containers


def never_joined(old: Object) -> str:
    """Why a pod cannot be given ephemeral containers at all; empty where it can."""
    return "static pods do not support ephemeral containers" if MIRROR in _notes(old) else ""


def _notes(pod: Object) -> Object:
    found: Object = meta(pod).get("annotations") or {}
    return found


def ephemeral_problems(new: Object, old: Object) -> Problems:
    """Ephemeral containers come, and neither change nor go."""
    path = "spec.ephemeralContainers"
    given = {one.get("name"): one for one in entries(new["spec"], "ephemeralContainers")}
    for was in entries(old["spec"], "ephemeralContainers"):
        name = was.get("name", "")
        if name not in given:
            yield forbidden_field(path, f'existing ephemeral containers "{name}" may not be removed\n')
        elif not same(given[name], was):
            changed = difference("EphemeralContainer", was, given[name])
            yield forbidden_field(
                path, f'existing ephemeral containers "{name}" may not be changed\n{changed}'
            )
