"""ReplicationControllers: replica sets of before there were groups. Upstream: kubernetes pkg/registry/core/replicationcontroller."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value, required
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.packs import builtin
from clusterling.packs.core.podspec.rules import non_negative
from clusterling.packs.core.podspec.warnings import name_warnings
from clusterling.packs.workloads import (
    WorkloadStrategy,
    available_problems,
    count_problems,
    kept_running_problems,
    labels_text,
    replica_columns,
    share_problems,
    with_scale,
)
from clusterling.registry.resource import Scale


class ReplicationControllerStrategy(WorkloadStrategy):
    default_propagation = "orphan"

    @override
    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        spec.setdefault("replicas", 1)
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels and not spec.get("selector"):
            spec["selector"] = dict(labels)
        if labels and not meta(obj).get("labels"):
            meta(obj)["labels"] = dict(labels)

    @override
    def has_template(self, obj: Object) -> bool:
        return obj["spec"].get("template") is not None

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        selector = spec.get("selector") or {}
        if not selector:
            yield required("spec.selector")
        if not self.has_template(new):
            yield required("spec.template")
        else:
            labels = spec["template"]["metadata"].get("labels")
            if not selector.items() <= (labels or {}).items():
                why = "`selector` does not match template `labels`"
                yield invalid_value("spec.template.metadata.labels", labels, why)
            yield from kept_running_problems(spec, "ReplicationController")
        # Rules that upstream declares come after those that it spells out.
        yield from non_negative(spec, "spec", "replicas", "minReadySeconds")

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        status = new["status"]
        parts = ("fullyLabeledReplicas", "readyReplicas", "availableReplicas")
        yield from count_problems(status, "replicas", *parts, "observedGeneration")
        yield from share_problems(status, *parts)
        yield from available_problems(status)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        of_name = name_warnings(name_of(new)) if old is None else []
        return [*of_name, *super().spec_warnings(new, old)]

    @override
    def field_values(self, obj: Object) -> dict[str, str]:
        return {"status.replicas": str((obj.get("status") or {}).get("replicas") or 0)}


REPLICATIONCONTROLLERS: Final = with_scale(
    builtin.resource(
        "",
        "v1",
        "replicationcontrollers",
        strategy=ReplicationControllerStrategy(),
        columns=replica_columns(labels_text),
    ),
    Scale("spec.replicas", "status.replicas", "spec.selector", selector_is_map=True),
)
