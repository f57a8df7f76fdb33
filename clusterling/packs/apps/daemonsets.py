"""DaemonSets. Upstream: kubernetes pkg/registry/apps/daemonset."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    go_quote,
    immutable_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.podspec import reading
from clusterling.packs.core.podspec.internal import as_internal
from clusterling.packs.core.podspec.rules import Problems, non_negative
from clusterling.packs.workloads import (
    WorkloadStrategy,
    collision_problems,
    container_columns,
    count_column,
    count_problems,
    kept_running_problems,
    labels_text,
    read_selector,
    selector_column,
    selector_text,
    share_of,
    share_value_problems,
    within_all_problems,
)
from clusterling.registry.strategy import Context

_PATH: Final = "spec.updateStrategy"
# A field of long ago, which v1 shows as an annotation.
_TEMPLATE_GENERATION: Final = "deprecated.daemonset.template.generation"
_is_int64 = re.compile(r"[+-]?[0-9]{1,18}").fullmatch


class DaemonSetStrategy(WorkloadStrategy):
    @override
    def default(self, obj: Object) -> None:
        spec = obj["spec"]
        update = spec.setdefault("updateStrategy", {})
        if not update.get("type"):
            update["type"] = "RollingUpdate"
        if update["type"] == "RollingUpdate":
            rolling = update.setdefault("rollingUpdate", {})
            rolling.setdefault("maxUnavailable", 1)
            rolling.setdefault("maxSurge", 0)
        spec.setdefault("revisionHistoryLimit", 10)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        super().prepare_for_create(ctx, new)
        with reading(new):
            _count(new, max(_counted(new), 1))

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        super().prepare_for_update(ctx, new, old)
        changed = not ctx.subresource and new["spec"]["template"] != old["spec"]["template"]
        _count(new, _counted(old) + changed)

    @override
    def spec_problems(self, new: Object, old: Object | None) -> Iterable[FieldError]:
        spec = new["spec"]
        selector = spec.get("selector")
        if old is not None and selector != old["spec"].get("selector"):
            yield immutable_field("spec.selector", as_internal("*LabelSelector", selector))
        yield from label_selector_problems(selector, "spec.selector")
        labels, read = spec["template"]["metadata"].get("labels"), read_selector(selector)
        if read is not None and not read.matches(labels or {}):
            why = "`selector` does not match template `labels`"
            yield invalid_value("spec.template.metadata.labels", labels, why)
        if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
            shown = as_internal("*LabelSelector", selector)
            yield invalid_value("spec.selector", shown, "empty selector is invalid for daemonset")
        yield from kept_running_problems(spec, "DaemonSet")
        yield from non_negative(spec, "spec", "minReadySeconds")
        yield from _update_problems(spec["updateStrategy"])
        yield from non_negative(spec, "spec", "revisionHistoryLimit")

    @override
    def status_problems(self, new: Object, old: Object) -> Iterable[FieldError]:
        yield from count_problems(
            new["status"], "currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady",
            "observedGeneration", "updatedNumberScheduled", "numberAvailable", "numberUnavailable", "collisionCount",
        )  # fmt: skip
        yield from collision_problems(new, old)


def _counted(obj: Object) -> int:
    """How often the template changed. Raises ValueError, in Go's words, where the annotation is no number."""
    text = (meta(obj).get("annotations") or {}).get(_TEMPLATE_GENERATION, "0")
    if not _is_int64(text):
        raise ValueError(f"strconv.ParseInt: parsing {go_quote(text)}: invalid syntax")
    return int(text)


def _count(obj: Object, generation: int) -> None:
    notes = meta(obj).get("annotations") or {}
    meta(obj)["annotations"] = {**notes, _TEMPLATE_GENERATION: str(generation)}


def _update_problems(update: Object) -> Problems:
    rolling, here = update.get("rollingUpdate"), f"{_PATH}.rollingUpdate"
    if update["type"] == "OnDelete":
        return
    if update["type"] != "RollingUpdate":
        shown = as_internal("DaemonSetUpdateStrategy", update)
        yield not_supported(_PATH, shown, ("RollingUpdate", "OnDelete"))
        return
    assert rolling is not None, "defaulted"
    least, most = rolling["maxUnavailable"], rolling["maxSurge"]
    for rule in (share_value_problems, within_all_problems):
        yield from rule(least, f"{here}.maxUnavailable")
        yield from rule(most, f"{here}.maxSurge")
    if share_of(least) and share_of(most):
        yield invalid_value(f"{here}.maxSurge", most, "may not be set when maxUnavailable is non-zero")
    elif not share_of(least) and not share_of(most):
        yield required(f"{here}.maxUnavailable", "cannot be 0 when maxSurge is 0")


def _node_selector(obj: Object) -> str:
    template = (obj.get("spec") or {}).get("template") or {}
    return labels_text((template.get("spec") or {}).get("nodeSelector"))


DAEMONSETS: Final = builtin.resource(
    "apps",
    "v1",
    "daemonsets",
    strategy=DaemonSetStrategy(),
    columns=(
        NAME_COLUMN,
        count_column("Desired", "status", "desiredNumberScheduled"),
        count_column("Current", "status", "currentNumberScheduled"),
        count_column("Ready", "status", "numberReady"),
        count_column("Up-to-date", "status", "updatedNumberScheduled"),
        count_column("Available", "status", "numberAvailable"),
        Column("Node Selector", "string", lambda obj, _: _node_selector(obj)),
        builtin.AGE,
        *container_columns(),
        selector_column(lambda obj, _: selector_text((obj.get("spec") or {}).get("selector"))),
    ),
)
