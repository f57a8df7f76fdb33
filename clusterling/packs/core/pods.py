"""Pods: accepted, defaulted, validated, bound, evicted and deleted as upstream does; nothing here runs them.

Whoever plays scheduler and kubelet through the API finds what it needs: a pod waits Pending until it is bound, its
status is written through `status`, and one that has a node stays for its grace period, until it is deleted with none.
Upstream: kubernetes pkg/registry/core/pod.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import ip_warnings
from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_label
from clusterling.packs import builtin
from clusterling.packs.core import pods_changes, pods_resize
from clusterling.packs.core.bindings import BINDING
from clusterling.packs.core.pods_admission import (
    OVERHEAD_OF_NO_CLASS,
    admit_pod,
    check_ephemeral_secrets,
    refused,
    tolerate_lost_nodes,
)
from clusterling.packs.core.pods_binding import PART as BINDING_PART
from clusterling.packs.core.pods_binding import bind
from clusterling.packs.core.pods_columns import COLUMNS
from clusterling.packs.core.pods_connecting import (
    connecting,
    pod_container,
    pod_itself,
    pod_log,
    pod_proxy,
)
from clusterling.packs.core.pods_defaults import (
    SPEC_CONTAINERS,
    apply_armor,
    complete_status,
    default_pod,
    default_pod_resources,
    qos_class,
    set_condition,
)
from clusterling.packs.core.pods_eviction import EVICTIONS, evict
from clusterling.packs.core.pods_status import drop_disabled_status, status_problems
from clusterling.packs.core.podspec import (
    drop_disabled_fields,
    field_match_problems,
    pod_annotation_problems,
    pod_spec_problems,
    pod_template_warnings,
)
from clusterling.packs.core.podspec.internal import same
from clusterling.registry.resource import Subresource
from clusterling.registry.strategy import Context, Strategy

_KEPT_STATUS: Final = (
    "resourceClaimStatuses",
    "extendedResourceClaimStatus",
    "observedGeneration",
)
# What is written by us, from what is stored: nothing of it is a client's.
_OWN_PARTS: Final = (BINDING_PART, "eviction")


class PodStrategy(Strategy):
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource in _OWN_PARTS:
            complete_status(new)
        else:
            default_pod(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        drop_disabled_fields(new)
        spec = new["spec"]
        new["status"] = {"phase": "Pending"}
        if spec.get("schedulingGates"):
            why = "Scheduling is blocked due to non-empty scheduling gates"
            set_condition(new, ctx.ports.clock.now(), "PodScheduled", "False", "SchedulingGated", why)
        _merge_label_keys(new)
        for text in apply_armor(new):
            ctx.warn(text)
        default_pod_resources(spec)
        new["status"]["qosClass"] = qos_class(spec)

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        if old is None:
            await admit_pod(ctx, new)
        elif ctx.subresource == "ephemeralcontainers":
            await check_ephemeral_secrets(ctx, new)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        part = ctx.subresource
        if part in _OWN_PARTS:
            return
        drop_disabled_fields(new)
        if part == "status":
            _keep_all_but_status(new, old)
            return
        new["status"] = old.get("status", {})
        if part == "ephemeralcontainers":
            given = new["spec"].get("ephemeralContainers")
            new["spec"] = {**old["spec"]}
            new["spec"].pop("ephemeralContainers", None)
            if given:
                new["spec"]["ephemeralContainers"] = given
        elif part == "resize":
            pods_resize.keep_but_resources(new, old)
        if part:
            _keep_metadata(new, old)
        if "resources" not in new["spec"] and "resources" in old["spec"]:
            new["spec"]["resources"] = old["spec"]["resources"]
        if part == "resize":
            default_pod_resources(new["spec"])
        if not part:
            tolerate_lost_nodes(new["spec"])
            for field in ("priority", "preemptionPolicy"):
                if field in old["spec"]:
                    new["spec"].setdefault(field, old["spec"][field])

    @override
    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool | None:
        if ctx.subresource in ("status", *_OWN_PARTS):
            return False
        return not same(new["spec"], old["spec"])

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found = list(_problems(new))
        if new["spec"].get("ephemeralContainers"):
            found.append(forbidden_field("spec.ephemeralContainers", "cannot be set on create"))
        if new["spec"].get("nodeName") and new["spec"].get("schedulingGates"):
            why = "cannot be set until all schedulingGates have been cleared"
            found.append(forbidden_field("spec.nodeName", why))
        found += field_match_problems(meta(new), new["spec"], "spec")
        if not found and new["spec"].get("overhead") and new["spec"].get("runtimeClassName") is None:
            raise refused(new, OVERHEAD_OF_NO_CLASS)
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        part = ctx.subresource
        if part in _OWN_PARTS:
            return ()
        if part == "status":
            return [*pods_changes.annotation_problems(new, old), *status_problems(new, old)]
        never = {"ephemeralcontainers": pods_changes.never_joined, "resize": pods_resize.never_resized}
        why = never[part](old) if part in never else ""
        if why:
            return [forbidden_field("[]", why)]
        common = chain(_problems(new), pods_changes.annotation_problems(new, old))
        if part == "ephemeralcontainers":
            return [*common, *pods_changes.ephemeral_problems(new, old)]
        if part == "resize":
            return [*common, *pods_resize.resize_problems(new, old)]
        return _once([*common, *pods_changes.update_problems(new, old)])

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if old is None:
            return list(_warnings(new))
        if ctx.subresource != "status":
            return ()
        status = new.get("status") or {}
        return [
            text
            for field in ("podIPs", "hostIPs")
            for index, one in enumerate(status.get(field) or ())
            for text in ip_warnings(f"status.{field}[{index}].ip", one.get("ip") or "")
        ]

    @override
    def grace_period_s(self, obj: Object, asked: int | None) -> int | None:
        spec = obj.get("spec") or {}
        if not spec.get("nodeName") or (obj.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            return 0
        period = spec.get("terminationGracePeriodSeconds", 0) if asked is None else asked
        return 1 if period < 0 else int(period)

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        addresses = status.get("podIPs") or ()
        return {
            "spec.nodeName": spec.get("nodeName") or "",
            # The name that it had, and one that upstream lets be asked for and never finds anything by.
            "spec.host": spec.get("nodeName") or "",
            "status.podIPs": "",
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase") or "",
            "status.podIP": (addresses[0].get("ip") or "") if addresses else "",
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        }


def _problems(pod: Object) -> Iterator[FieldError]:
    """What is wrong with a pod as it is. A template may have grace and tokens that a pod may not."""
    spec = pod["spec"]
    yield from pod_annotation_problems(meta(pod), spec, "metadata.annotations")
    yield from pod_spec_problems(spec, "spec", template=False, pod=name_of(pod))
    for field in SPEC_CONTAINERS:
        for index, container in enumerate(spec.get(field) or ()):
            image = container.get("image") or ""
            if image.strip() != image:
                why = "must not have leading or trailing whitespace"
                yield invalid_value(f"spec.{field}[{index}].image", image, why)
    if spec.get("serviceAccountName"):
        return
    for index, volume in enumerate(spec.get("volumes") or ()):
        for at, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if "serviceAccountToken" in source:
                path = f"spec.volumes[{index}].projected.sources[{at}].serviceAccountToken"
                yield forbidden_field(path, "must not be specified when serviceAccountName is not set")


def _warnings(pod: Object) -> Iterator[str]:
    problems = is_dns1123_label(name_of(pod))
    if problems:
        yield (
            "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
            f"a DNS label is recommended: [{' '.join(problems)}]"
        )
    yield from pod_template_warnings(pod, "")


def _once(problems: Sequence[FieldError]) -> list[FieldError]:
    """What the pod and its change are both judged for is told once."""
    return list({(one.type, one.field, one.detail): one for one in reversed(problems)}.values())[::-1]


def _keep_metadata(new: Object, old: Object) -> None:
    """Of metadata, a part of the object writes no more than labels and annotations (upstream: ResetObjectMetaForStatus)."""
    for field in ("finalizers", "ownerReferences"):
        if field in meta(old):
            meta(new)[field] = meta(old)[field]
        else:
            meta(new).pop(field, None)
    for field in ("labels", "annotations"):
        if field in meta(old):
            meta(new)[field] = meta(old)[field]
        else:
            meta(new).pop(field, None)


def _keep_all_but_status(new: Object, old: Object) -> None:
    new["spec"] = old["spec"]
    references = meta(old).get("ownerReferences")
    meta(new).pop("ownerReferences", None)
    if references:
        meta(new)["ownerReferences"] = references
    status, before = new.setdefault("status", {}), old.get("status") or {}
    drop_disabled_status(status)
    if not status.get("qosClass") and before.get("qosClass"):
        status["qosClass"] = before["qosClass"]
    for field in _KEPT_STATUS:
        if not status.get(field) and before.get(field):
            status[field] = before[field]
    seen: dict[str, list[int]] = {}
    for one in before.get("conditions") or ():
        seen.setdefault(one.get("type", ""), []).append(one.get("observedGeneration") or 0)
    for one in status.get("conditions") or ():
        known = seen.get(one.get("type", ""))
        generation = known.pop(0) if known else 0
        if generation and not one.get("observedGeneration"):
            one["observedGeneration"] = generation


def _merge_label_keys(pod: Object) -> None:
    """`matchLabelKeys` become requirements on the labels that the pod has now."""
    labels = meta(pod).get("labels") or {}
    spec = pod["spec"]
    terms: list[Object] = list(spec.get("topologySpreadConstraints") or ())
    for side in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(side) or {}
        preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [one.get("podAffinityTerm") or {} for one in preferred]
        terms += affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    for term in terms:
        selector = term.get("labelSelector")
        if selector is None:
            continue
        for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
            for key in term.get(field) or ():
                if key in labels:
                    added = {"key": key, "operator": operator, "values": [labels[key]]}
                    selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), added]


_FUNCTIONS: Final = {
    "attach": pod_container,
    "exec": pod_container,
    "log": pod_log,
    "portforward": pod_itself,
    "proxy": pod_proxy,
}

PODS: Final = builtin.resource(
    "",
    "v1",
    "pods",
    strategy=PodStrategy(),
    columns=COLUMNS,
    parts=("ephemeralcontainers", "resize"),
    subresources=(
        *(connecting("", "v1", "pods", name, function) for name, function in _FUNCTIONS.items()),
        Subresource("binding", "", "v1", "Binding", ("create",), bind, bodies=(BINDING,)),
        Subresource("eviction", "policy", "v1", "Eviction", ("create",), evict, bodies=EVICTIONS),
    ),
)
