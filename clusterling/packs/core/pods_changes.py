"""What may change of a pod that is there: by an update, by its status, by its ephemeral containers, by a resize. Pure.

Upstream: kubernetes pkg/apis/core/validation/validation.go (ValidatePodUpdate, ValidatePodStatusUpdate,
ValidatePodEphemeralContainersUpdate, ValidatePodResize). Where upstream shows the difference of two Go structs, here
it is that of the two documents.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from clusterling.machinery.addresses import family_of, ip_problems
from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    immutable_field,
    invalid_value,
    required,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import is_dns1123_subdomain, is_qualified_name
from clusterling.packs.core.pods_admission import MIRROR
from clusterling.packs.core.pods_defaults import APP_ARMOR, SPEC_CONTAINERS, qos_class

INT32_MAX: Final = 2**31 - 1
CONTEXT_LINES: Final = 3
DIFFERENCE_LINES_MAX: Final = 100
DIFFERENCE_CHARACTERS_MAX: Final = 4096

_UPDATABLE: Final = (
    "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,"
    "`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_SYSTEM_CONDITIONS: Final = frozenset(("PodScheduled", "Ready", "Initialized"))
_RESIZABLE: Final = ("cpu", "memory")
_REQUIRED_AFFINITY: Final = "requiredDuringSchedulingIgnoredDuringExecution"

Problems = Iterator[FieldError]


def same(one: object, other: object) -> bool:
    """Whether two parts say the same: what is empty is as good as absent (Go's Semantic.DeepEqual)."""
    return _told(one) == _told(other)


def _told(value: object) -> object:
    if isinstance(value, dict):
        kept = {key: _told(inner) for key, inner in value.items()}
        return {key: inner for key, inner in kept.items() if inner not in (None, "", {}, [])} or None
    if isinstance(value, list):
        return [_told(inner) for inner in value] or None
    return value


def _difference(old: object, new: object) -> str:
    """Both as indented JSON, from the first line that differs to the last, with the lines around them.

    One hunk of a unified diff, found in one pass: looking for the smallest difference takes the square of a tenant's lines.
    """
    before, after = (
        orjson.dumps(one, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode().splitlines()
        for one in (old, new)
    )
    shorter = min(len(before), len(after))
    same_first = next((at for at in range(shorter) if before[at] != after[at]), shorter)
    most = shorter - same_first
    same_last = next((at for at in range(most) if before[-1 - at] != after[-1 - at]), most)
    start = max(same_first - CONTEXT_LINES, 0)
    gone, come = before[same_first : len(before) - same_last], after[same_first : len(after) - same_last]
    tail = before[len(before) - same_last :][:CONTEXT_LINES]
    kept = same_first - start + len(tail)
    lines = [
        f"@@ -{start + 1},{kept + len(gone)} +{start + 1},{kept + len(come)} @@",
        *(f" {line}" for line in before[start:same_first]),
        *(f"-{line}" for line in gone[:DIFFERENCE_LINES_MAX]),
        *(f"+{line}" for line in come[:DIFFERENCE_LINES_MAX]),
        *(f" {line}" for line in tail),
    ]
    return "\n".join(lines)[:DIFFERENCE_CHARACTERS_MAX] + "\n"


def _list(part: Object, field: str) -> list[Object]:
    found: list[Object] = part.get(field) or []
    return found


# ---------------------------------------------------------------------- updates


def update_problems(new: Object, old: Object) -> Problems:
    """A change of the pod itself: images, a shorter deadline, more tolerations, fewer gates, and what gated pods may."""
    after, before = new["spec"], old["spec"]
    for field in ("containers", "initContainers"):
        if len(_list(after, field)) != len(_list(before, field)):
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
        for container, was in zip(_list(masked, field), _list(before, field), strict=True):
            _restore(container, was, "image")
    _restore(masked, before, "activeDeadlineSeconds", "schedulingGates", "tolerations")
    if _list(before, "schedulingGates"):
        yield from _gated_problems(masked, before)
    if not same(masked, before):
        why = f"pod updates may not change fields other than {_UPDATABLE}\n{_difference(before, masked)}"
        yield forbidden_field("spec", why)


def _restore(part: Object, before: Object, *fields: str) -> None:
    for field in fields:
        if field in before:
            part[field] = before[field]
        else:
            part.pop(field, None)


def _image_problems(spec: Object, field: str) -> Problems:
    for index, container in enumerate(_list(spec, field)):
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
    kept = set(map(lasting_part, _list(after, "tolerations")))
    if any(lasting_part(one) not in kept for one in _list(before, "tolerations")):
        why = "existing toleration can not be modified except its tolerationSeconds"
        yield forbidden_field("spec.tolerations", why)


def _gate_problems(after: Object, before: Object) -> Problems:
    known = {one.get("name") for one in _list(before, "schedulingGates")}
    for index, gate in enumerate(_list(after, "schedulingGates")):
        name = gate.get("name", "")
        if name not in known:
            why = f"only deletion is allowed, but found new scheduling gate '{name}'"
            yield forbidden_field(f"spec.schedulingGates[{index}].name", why)


def _gated_problems(masked: Object, before: Object) -> Problems:
    """A pod that waits may still be held to more nodes' properties. What was judged is put back."""
    new, old = masked.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(new.get(key) != value for key, value in old.items()):
        why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        yield invalid_value("spec.nodeSelector", new, why)
    _restore(masked, before, "nodeSelector")
    after_affinity, before_affinity = masked.get("affinity") or {}, before.get("affinity") or {}
    path = f"spec.affinity.nodeAffinity.{_REQUIRED_AFFINITY}.nodeSelectorTerms"
    wanted = _terms(before_affinity)
    given = _terms(after_affinity)
    if wanted and len(wanted) != len(given):
        why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        yield invalid_value(path, given, why)
    elif wanted:
        for index, (term, was) in enumerate(zip(given, wanted, strict=True)):
            if not _only_adds(term, was):
                why = "only additions are allowed (no mutations or deletions)"
                yield invalid_value(f"{path}[{index}]", term, why)
    _restore(after_affinity, before_affinity, "nodeAffinity")
    if after_affinity:
        masked["affinity"] = after_affinity
    else:
        masked.pop("affinity", None)


def _terms(affinity: Object) -> list[Object]:
    needed = (affinity.get("nodeAffinity") or {}).get(_REQUIRED_AFFINITY) or {}
    return _list(needed, "nodeSelectorTerms")


def _only_adds(term: Object, was: Object) -> bool:
    fields = ("matchExpressions", "matchFields")
    if not any(was.get(field) for field in fields):
        return not any(term.get(field) for field in fields)
    return all(same(_list(term, field)[: len(_list(was, field))], _list(was, field)) for field in fields)


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


# ---------------------------------------------------------------------- status


def status_problems(new: Object, old: Object) -> Problems:
    """What a kubelet (or whoever plays one) may not say of a pod."""
    status, before, spec = new.get("status") or {}, old.get("status") or {}, old["spec"]
    for index, one in enumerate(_list(status, "conditions")):
        path, kind = f"status.conditions[{index}]", one.get("type", "")
        if (one.get("observedGeneration") or 0) < 0:
            yield invalid_value(
                f"{path}.observedGeneration", one["observedGeneration"], "must be a non-negative integer"
            )
        if kind not in _SYSTEM_CONDITIONS:
            for problem in is_qualified_name(kind):
                yield invalid_value(f"{path}.Type", kind, problem)
    yield from _nomination_problems(status, before, spec)
    if (status.get("observedGeneration") or 0) < 0:
        yield invalid_value(
            "status.observedGeneration", status["observedGeneration"], "must be a non-negative integer"
        )
    if status.get("qosClass", "") != before.get("qosClass", ""):
        yield immutable_field("status.qosClass", status.get("qosClass", ""))
    yield from _revival_problems(status, before, spec)
    yield from _address_problems(status, before, "pod")
    yield from _address_problems(status, before, "host")


def _nomination_problems(status: Object, before: Object, spec: Object) -> Problems:
    path, name = "status.nominatedNodeName", status.get("nominatedNodeName") or ""
    if not name or name == before.get("nominatedNodeName"):
        return
    for problem in is_dns1123_subdomain(name):
        yield invalid_value(path, name, problem)
    if spec.get("nodeName"):
        yield forbidden_field(path, "may not be set on pods that are already bound to a node")


def _revival_problems(status: Object, before: Object, spec: Object) -> Problems:
    """A container that has ended stays ended, unless it is one that is started again."""
    for field, place in (
        ("containerStatuses", "containers"),
        ("initContainerStatuses", "initContainers"),
        ("ephemeralContainerStatuses", ""),
    ):
        now = {one.get("name"): one for one in _list(status, field)}
        made = {one.get("name"): one for one in _list(spec, place)} if place else {}
        for index, was in enumerate(_list(before, field)):
            ended = (was.get("state") or {}).get("terminated")
            again = now.get(was.get("name"))
            if ended is None or again is None or "terminated" in (again.get("state") or {}):
                continue
            container = made.get(was.get("name"))
            if container is None or not _starts_again(container, spec, ended.get("exitCode") or 0):
                why = "may not be transitioned to non-terminated state"
                yield forbidden_field(f"status.{field}[{index}].state", why)


def _starts_again(container: Object, spec: Object, exit_code: int) -> bool:
    """Upstream: ContainerShouldRestart, and the rules of a container that say otherwise for some exit codes."""
    for rule in _list(container, "restartPolicyRules"):
        codes = rule.get("exitCodes") or {}
        within = exit_code in (codes.get("values") or ())
        if rule.get("action") in ("Restart", "RestartAllContainers") and within is (
            codes.get("operator") == "In"
        ):
            return True
    policy = container.get("restartPolicy") or spec.get("restartPolicy") or "Always"
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


def _address_problems(status: Object, before: Object, what: str) -> Problems:
    field, path = f"{what}IPs", f"status.{what}IPs"
    texts = [one.get("ip") or "" for one in _list(status, field)]
    known = {one.get("ip") for one in _list(before, field)}
    single = status.get(f"{what}IP") or ""
    if what == "host" and texts and single != texts[0]:
        yield invalid_value(f"{path}[0].ip", texts[0], "must be equal to `hostIP`")
    for index, text in enumerate(texts):
        for problem in () if text in known else ip_problems(text):
            yield invalid_value(f"{path}[{index}]", text, problem)
    if len(texts) > 1 and (len(texts) > 2 or len({family_of(text) for text in texts}) < 2):
        shown = [{"IP": text} for text in texts]
        yield invalid_value(path, shown, "may specify no more than one IP for each IP family")


# ---------------------------------------------------------------------- ephemeral containers


def ephemeral_problems(new: Object, old: Object) -> Problems:
    """Ephemeral containers come, and neither change nor go."""
    path = "spec.ephemeralContainers"
    given = {one.get("name"): one for one in _list(new["spec"], "ephemeralContainers")}
    for was in _list(old["spec"], "ephemeralContainers"):
        name = was.get("name", "")
        if name not in given:
            yield forbidden_field(path, f'existing ephemeral containers "{name}" may not be removed\n')
        elif not same(given[name], was):
            difference = _difference(was, given[name])
            yield forbidden_field(
                path, f'existing ephemeral containers "{name}" may not be changed\n{difference}'
            )


# ---------------------------------------------------------------------- resize


def keep_but_resources(new: Object, old: Object) -> None:
    """Of a resize, only resources and how they are resized are read; where containers do not match, all is left for validation."""
    after, before = new["spec"], old["spec"]
    for field in SPEC_CONTAINERS:
        names = [one.get("name") for one in _list(after, field)]
        if names != [one.get("name") for one in _list(before, field)]:
            return
    kept: Object = orjson.loads(orjson.dumps(before))
    for field in SPEC_CONTAINERS:
        for container, given in zip(_list(kept, field), _list(after, field), strict=True):
            _restore(container, given, "resources", "resizePolicy")
    if after.get("resources") is not None:
        kept["resources"] = after["resources"]
    new["spec"] = kept


def resize_problems(new: Object, old: Object) -> Problems:
    """CPU and memory of containers, neither taken away nor so that the pod's class of service changes."""
    after, before = new["spec"], old["spec"]
    if MIRROR in (meta(old).get("annotations") or {}):
        yield forbidden_field("<nil>", "static pods cannot be resized")
        return
    if (before.get("os") or {}).get("name") == "windows":
        yield forbidden_field("<nil>", "windows pods cannot be resized")
        return
    was = (old.get("status") or {}).get("qosClass") or qos_class(before)
    if was != qos_class(after):
        why = "Pod QOS Class may not change as a result of resizing"
        yield invalid_value("spec", (new.get("status") or {}).get("qosClass", ""), why)
    if not _node_resizes(old):
        yield forbidden_field("spec", "Pod running on node without support for resize")
    moved = list(_order_problems(after, before))
    yield from moved
    if moved:
        return
    wrong = [problem for field in SPEC_CONTAINERS for problem in _removed_problems(after, before, field)]
    wrong += [problem for field in SPEC_CONTAINERS for problem in _other_problems(after, before, field)]
    yield from wrong
    if wrong:
        return
    masked = {**after, **{field: before[field] for field in SPEC_CONTAINERS if field in before}}
    _restore(masked, before, "resources")
    if not same(masked, before):
        yield forbidden_field("spec", "only cpu and memory resources are mutable")


def _node_resizes(pod: Object) -> bool:
    for status in _list(pod.get("status") or {}, "containerStatuses"):
        if "running" in (status.get("state") or {}):
            return "resources" in status
    return True


def _order_problems(after: Object, before: Object) -> Problems:
    for field in ("containers", "initContainers"):
        new, old = _list(after, field), _list(before, field)
        if len(new) != len(old):
            yield forbidden_field(f"spec.{field}", f"{field} may not be added or removed on resize")
            continue
        for index, (one, was) in enumerate(zip(new, old, strict=True)):
            if one.get("name") != was.get("name"):
                why = f"{field} may not be renamed or reordered on resize"
                yield forbidden_field(f"spec.{field}[{index}].name", why)


def _may_resize(container: Object, field: str) -> bool:
    return field == "containers" or container.get("restartPolicy") == "Always"


def _removed_problems(after: Object, before: Object, field: str) -> Problems:
    for index, (one, was) in enumerate(zip(_list(after, field), _list(before, field), strict=True)):
        if not _may_resize(was, field):
            continue
        for kind in ("requests", "limits"):
            new, old = ((part.get("resources") or {}).get(kind) or {} for part in (one, was))
            if old.keys() - new.keys():
                path = f"spec.{field}[{index}].resources.{kind}"
                yield forbidden_field(path, f"resource {kind} cannot be removed")


def _other_problems(after: Object, before: Object, field: str) -> Problems:
    for index, (one, was) in enumerate(zip(_list(after, field), _list(before, field), strict=True)):
        if not _may_resize(one, field):
            if not same(one, was):
                yield forbidden_field("spec", "resources for non-sidecar init containers are immutable")
        elif not same(_without_resized(one), _without_resized(was)):
            if field == "containers":
                yield forbidden_field("spec", "only cpu and memory resources are mutable")
            else:
                why = "only cpu and memory resources for init or sidecar containers are mutable"
                yield forbidden_field(f"spec.initContainers[{index}]", why)


def _without_resized(container: Object) -> Object:
    resources: dict[str, Any] = dict(container.get("resources") or {})
    for kind in ("requests", "limits"):
        resources[kind] = {
            name: value for name, value in (resources.get(kind) or {}).items() if name not in _RESIZABLE
        }
    return {**container, "resources": resources}
