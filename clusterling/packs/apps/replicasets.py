"""ReplicaSets. Upstream: kubernetes pkg/registry/apps/replicaset."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, immutable_field
from clusterling.machinery.meta import Object, name_of
from clusterling.packs import builtin
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import non_negative
from clusterling.packs.core.podspec.warnings import name_warnings
from clusterling.packs.workloads import (
    WorkloadStrategy,
    available_problems,
    count_problems,
    kept_running_problems,
    matching_problems,
    read_selector,
    replica_columns,
    selector_problems,
    selector_text,
    share_problems,
    with_scale,
)


class ReplicaSetStrategy(WorkloadStrategy):
    @override
    def default(self, obj: Object) -> None:
        obj["spec"].setdefault("replicas", 1)

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        yield from non_negative(spec, "spec", "replicas", "minReadySeconds")
        yield from selector_problems(spec, "deployment")
        if read_selector(spec.get("selector")) is not None:
            yield from matching_problems(spec)
            yield from kept_running_problems(spec, "ReplicaSet")
        if old is not None and spec.get("selector") != old["spec"].get("selector"):
            yield immutable_field("spec.selector", as_internal("*LabelSelector", spec.get("selector")))

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        status = new["status"]
        yield from count_problems(
            status, "replicas", "fullyLabeledReplicas", "readyReplicas", "availableReplicas",
            "observedGeneration", "terminatingReplicas",
        )  # fmt: skip
        yield from share_problems(status, "fullyLabeledReplicas", "readyReplicas", "availableReplicas")
        yield from available_problems(status)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        of_name = name_warnings(name_of(new)) if old is None else []
        return [*of_name, *super().spec_warnings(new, old)]


REPLICASETS: Final = with_scale(
    builtin.resource(
        "apps",
        "v1",
        "replicasets",
        strategy=ReplicaSetStrategy(),
        columns=replica_columns(selector_text),
    )
)
