"""StatefulSets. Upstream: kubernetes pkg/registry/apps/statefulset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, immutable_field, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label
from clusterling.machinery.objectmeta import validate_annotations, validate_labels
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec import pod_annotation_problems, pod_template_problems
from clusterling.packs.core.podspec.claims import claim_spec_problems
from clusterling.packs.core.podspec.defaults import default_claim_spec, entries, read_metadata
from clusterling.packs.core.podspec.internal import as_internal, same
from clusterling.packs.core.podspec.rules import NEGATIVE, Problems, items, label, non_negative, one_of
from clusterling.packs.core.podspec.warnings import claim_spec_warnings
from clusterling.packs.workloads import (
    WorkloadStrategy,
    always_problems,
    available_problems,
    collision_problems,
    container_columns,
    count_problems,
    immutable_problems,
    matching_problems,
    read_selector,
    ready_of,
    selector_problems,
    share_of,
    share_problems,
    share_value_problems,
    with_scale,
    within_all_problems,
)

_RETENTIONS: Final = ("Retain", "Delete")
_HISTORY: Final = "spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended"


class StatefulSetStrategy(WorkloadStrategy):
    name_problems = staticmethod(is_dns1123_label)

    @override
    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        if not spec.get("podManagementPolicy"):
            spec["podManagementPolicy"] = "OrderedReady"
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
            update.setdefault("rollingUpdate", {})
        if update["type"] == "RollingUpdate" and "rollingUpdate" in update:
            update["rollingUpdate"].setdefault("partition", 0)
            update["rollingUpdate"].setdefault("maxUnavailable", 1)
        retention = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for field in ("whenDeleted", "whenScaled"):
            if not retention.get(field):
                retention[field] = "Retain"
        spec.setdefault("replicas", 1)
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("serviceName", "")
        for claim in entries(spec, "volumeClaimTemplates"):
            claim["apiVersion"], claim["kind"] = "v1", "PersistentVolumeClaim"
            read_metadata(claim.setdefault("metadata", {}))
            default_claim_spec(claim.setdefault("spec", {}))
            status = claim.setdefault("status", {})
            if not status.get("phase"):
                status["phase"] = "Pending"

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        yield from _policy_problems(spec)
        for here, claim in items(spec, "volumeClaimTemplates", "spec") if old is None else ():
            yield from claim_spec_problems(claim["spec"], f"{here}.spec")
        yield from non_negative(spec, "spec", "replicas", "minReadySeconds")
        start = (spec.get("ordinals") or {}).get("start") or 0
        if start < 0:
            yield invalid_value("spec.ordinals.start", start, NEGATIVE)
        if old is None and spec.get("serviceName"):
            yield from label(spec["serviceName"], "spec.serviceName")
        yield from selector_problems(spec, "statefulset", "")
        if read_selector(spec.get("selector")) is not None:
            yield from _template_problems(spec)
        yield from always_problems(spec, "StatefulSet")
        if old is not None:
            yield from immutable_problems(new, old, "selector")
            claims = spec.get("volumeClaimTemplates")
            if not same(claims, old["spec"].get("volumeClaimTemplates")):
                shown = as_internal("[]PersistentVolumeClaim", claims)
                yield immutable_field("spec.volumeClaimTemplates", shown)
            yield from immutable_problems(new, old, "serviceName", "podManagementPolicy")

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        status = new["status"]
        parts = ("readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas")
        yield from count_problems(status, "replicas", *parts, "observedGeneration", "collisionCount")
        yield from share_problems(status, *parts)
        yield from available_problems(status, "status.readyReplicas")
        yield from collision_problems(new, old)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        found = list(super().spec_warnings(new, old))
        for here, claim in items(new["spec"], "volumeClaimTemplates", "spec"):
            # Upstream spells the path of an update so.
            found += claim_spec_warnings(claim["spec"], here if old is None else f"{here}.Spec")
        if new["spec"]["revisionHistoryLimit"] < 0:
            found.append(_HISTORY)
        return found


def _policy_problems(spec: Object) -> Problems:
    management = spec["podManagementPolicy"]
    if management not in ("OrderedReady", "Parallel"):
        yield invalid_value("spec.podManagementPolicy", management, "must be 'OrderedReady' or 'Parallel'")
    update, path = spec["updateStrategy"], "spec.updateStrategy"
    rolling = update.get("rollingUpdate")
    if update["type"] == "OnDelete":
        if rolling is not None:
            why = "only allowed for updateStrategy 'RollingUpdate'"
            shown = as_internal("RollingUpdateStatefulSetStrategy", rolling)
            yield invalid_value(f"{path}.rollingUpdate", shown, why)
    elif update["type"] != "RollingUpdate":
        shown = as_internal("StatefulSetUpdateStrategy", update)
        yield invalid_value(path, shown, "must be 'RollingUpdate' or 'OnDelete'")
    elif rolling is not None:
        here, most = f"{path}.rollingUpdate", rolling["maxUnavailable"]
        yield from non_negative(rolling, here, "partition")
        yield from share_value_problems(most, f"{here}.maxUnavailable")
        if not share_of(most):
            yield invalid_value(f"{here}.maxUnavailable", most, "cannot be 0")
        yield from within_all_problems(most, f"{here}.maxUnavailable")
    for field in ("whenDeleted", "whenScaled"):
        value = spec["persistentVolumeClaimRetentionPolicy"][field]
        yield from one_of(value, f"spec.persistentVolumeClaimRetentionPolicy.{field}", _RETENTIONS)


def _template_problems(spec: Object) -> Problems:
    """The template with a volume for each claim; who the pods are is not up to it."""
    yield from matching_problems(spec)
    template = spec["template"]
    claims = {one["metadata"].get("name") or "": one for _, one in items(spec, "volumeClaimTemplates", "")}
    volumes = [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in claims]
    own = [one for one in template["spec"].get("volumes") or () if one.get("name") not in claims]
    pod = {key: value for key, value in template["spec"].items() if key not in ("hostname", "subdomain")}
    if claims:
        pod["volumes"] = [*volumes, *own]
    completed = {**template, "spec": pod}
    yield from pod_template_problems(completed, "spec.template")
    metadata = template["metadata"]
    yield from validate_labels(metadata.get("labels") or {}, "spec.template.labels")
    annotations = metadata.get("annotations") or {}
    yield from validate_annotations(annotations, "spec.template.annotations")
    yield from pod_annotation_problems(metadata, pod, "spec.template.annotations")


STATEFULSETS: Final = with_scale(
    builtin.resource(
        "apps",
        "v1",
        "statefulsets",
        strategy=StatefulSetStrategy(),
        columns=(
            NAME_COLUMN,
            Column("Ready", "string", ready_of, "", "Number of the pod with ready state"),
            builtin.AGE,
            *container_columns(),
        ),
    )
)
