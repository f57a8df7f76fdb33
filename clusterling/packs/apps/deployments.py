"""Deployments. Upstream: kubernetes pkg/registry/apps/deployment."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from typing_extensions import override

from clusterling.machinery.apply.fieldset import only
from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    go_quote,
    immutable_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import NEGATIVE, Problems, non_negative
from clusterling.packs.core.podspec.warnings import name_warnings
from clusterling.packs.workloads import (
    WorkloadStrategy,
    available_problems,
    collision_problems,
    container_columns,
    count_column,
    count_problems,
    kept_running_problems,
    matching_problems,
    read_selector,
    ready_of,
    selector_column,
    selector_problems,
    share_of,
    share_problems,
    share_value_problems,
    with_scale,
    within_all_problems,
)
from clusterling.registry.strategy import RESETS, Context

_PATH: Final = "spec.strategy"
# A field of long ago, which v1 shows as an annotation.
_ROLLBACK: Final = "deprecated.deployment.rollback.to"
_is_int64 = re.compile(r"[+-]?[0-9]{1,18}").fullmatch


class DeploymentStrategy(WorkloadStrategy):
    resets: ClassVar = {**RESETS, "status": only(("metadata", "labels"), ("spec",))}

    @override
    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        _rollback(obj)
        spec.setdefault("replicas", 1)
        strategy = spec.setdefault("strategy", {})
        if not strategy.get("type"):
            strategy["type"] = "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", "25%")
            rolling.setdefault("maxSurge", "25%")
        spec.setdefault("revisionHistoryLimit", 10)
        spec.setdefault("progressDeadlineSeconds", 600)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        super().prepare_for_update(ctx, new, old)
        if ctx.subresource == "status":
            # So that no controller can free itself from those who select it.
            meta(new).pop("labels", None)
            if "labels" in meta(old):
                meta(new)["labels"] = meta(old)["labels"]

    @override
    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool:
        # Annotations are copied to the replica sets, so a change of them has to be observed too.
        if ctx.subresource:
            return False
        notes = [meta(one).get("annotations") or {} for one in (new, old)]
        return new["spec"] != old["spec"] or notes[0] != notes[1]

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        yield from non_negative(spec, "spec", "replicas")
        yield from selector_problems(spec, "deployment")
        if read_selector(spec.get("selector")) is not None:
            yield from matching_problems(spec)
            yield from kept_running_problems(spec, "ReplicaSet")
        yield from _strategy_problems(spec["strategy"])
        ready, deadline = spec.get("minReadySeconds", 0), spec["progressDeadlineSeconds"]
        yield from non_negative(
            spec, "spec", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"
        )
        if deadline <= ready:
            why = "must be greater than minReadySeconds"
            yield invalid_value("spec.progressDeadlineSeconds", deadline, why)
        revision = _rollback(new)
        if revision is not None and revision < 0:
            yield invalid_value("spec.rollback.version", revision, NEGATIVE)
        if old is not None and spec.get("selector") != old["spec"].get("selector"):
            yield immutable_field("spec.selector", as_internal("*LabelSelector", spec.get("selector")))

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        status = new["status"]
        yield from count_problems(
            status, "observedGeneration", "replicas", "updatedReplicas", "readyReplicas", "availableReplicas",
            "unavailableReplicas", "terminatingReplicas", "collisionCount",
        )  # fmt: skip
        yield from share_problems(status, "updatedReplicas", "readyReplicas", "availableReplicas")
        yield from available_problems(status)
        yield from collision_problems(new, old)

    @override
    def spec_warnings(self, new: Object, old: Object | None) -> Sequence[str]:
        of_name = name_warnings(name_of(new)) if old is None else []
        return [*of_name, *super().spec_warnings(new, old)]


def _rollback(obj: Object) -> int | None:
    """The revision that a rollback is asked to. Raises ValueError, in Go's words, where it is no number."""
    text = (meta(obj).get("annotations") or {}).get(_ROLLBACK)
    if not text:
        return None
    if not _is_int64(text):
        why = f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax"
        raise ValueError(f"failed to parse annotation[{_ROLLBACK}]={text} as int64: {why}")
    return int(text)


def _strategy_problems(strategy: Object) -> Problems:
    kind, rolling = strategy["type"], strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is not None:
            why = "may not be specified when strategy `type` is 'Recreate'"
            yield forbidden_field(f"{_PATH}.rollingUpdate", why)
    elif kind != "RollingUpdate":
        shown = as_internal("DeploymentStrategy", strategy)
        yield not_supported(_PATH, shown, ("Recreate", "RollingUpdate"))
    elif rolling is None:
        yield required(f"{_PATH}.rollingUpdate", "this should be defaulted and never be nil")
    else:
        least, most = rolling["maxUnavailable"], rolling["maxSurge"]
        here = f"{_PATH}.rollingUpdate.maxUnavailable"
        yield from share_value_problems(least, here)
        yield from share_value_problems(most, f"{_PATH}.rollingUpdate.maxSurge")
        if not share_of(least) and not share_of(most):
            yield invalid_value(here, least, "may not be 0 when `maxSurge` is 0")
        yield from within_all_problems(least, here)


def _selector(obj: Object) -> str:
    found = read_selector((obj.get("spec") or {}).get("selector"))
    if found is None:
        return "<invalid>"
    return "" if found.nothing else str(found)


DEPLOYMENTS: Final = with_scale(
    builtin.resource(
        "apps",
        "v1",
        "deployments",
        strategy=DeploymentStrategy(),
        columns=(
            NAME_COLUMN,
            Column("Ready", "string", ready_of, "", "Number of the pod with ready state"),
            count_column("Up-to-date", "status", "updatedReplicas", type="string"),
            count_column("Available", "status", "availableReplicas", type="string"),
            builtin.AGE,
            *container_columns(),
            selector_column(lambda obj, _: _selector(obj)),
        ),
    )
)
