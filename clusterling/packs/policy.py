"""policy/v1: PodDisruptionBudgets. Who counts pods writes their status; evictions count it down (core/pods_eviction.py).

Upstream: kubernetes pkg/registry/policy/poddisruptionbudget, pkg/apis/policy/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    GoStruct,
    invalid_value,
    not_supported,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_percent
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.conditions import condition_problems
from clusterling.packs.core.times import read_time
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

_COUNTS: Final = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
_POLICIES: Final = ("AlwaysAllow", "IfHealthyBudget")
_NEGATIVE: Final = "must be greater than or equal to 0"

Problems = Iterator[FieldError]


def _read_status(new: Object, status: Object) -> None:
    for field in _COUNTS:
        status.setdefault(field, 0)
    pods = status.get("disruptedPods") or {}
    for name in pods:
        read_time(new, pods, name)
    for condition in status.get("conditions") or ():
        condition.setdefault("reason", "")
        condition.setdefault("message", "")
        condition.setdefault("lastTransitionTime", None)
        read_time(new, condition, "lastTransitionTime")


class BudgetStrategy(Strategy):
    allow_unconditional_update = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {})
        if ctx.subresource == "status":
            _read_status(new, new.setdefault("status", {}))

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = dict.fromkeys(_COUNTS, 0)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
        else:
            new["status"] = old["status"]

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_spec_problems(new["spec"]))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return [*condition_problems(new["status"]), *_count_problems(new["status"])]
        return self.validate(ctx, new)


def _spec_problems(spec: Object) -> Problems:
    if spec.get("minAvailable") is not None and spec.get("maxUnavailable") is not None:
        shown = {
            field[0].upper() + field[1:]: spec.get(field)
            for field in ("minAvailable", "selector", "maxUnavailable", "unhealthyPodEvictionPolicy")
        }
        yield invalid_value("spec", GoStruct(shown), "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        if spec.get(field) is not None:
            yield from _share_problems(spec[field], f"spec.{field}")
    yield from label_selector_problems(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None and policy not in _POLICIES:
        yield not_supported("spec.unhealthyPodEvictionPolicy", policy, _POLICIES)


def _share_problems(value: int | str, path: str) -> Problems:
    """A number of pods, or a share of them up to all."""
    if isinstance(value, int):
        if value < 0:
            yield invalid_value(path, value, _NEGATIVE)
        return
    wrong = is_percent(value)
    for problem in wrong:
        yield invalid_value(path, value, problem)
    if not wrong and (len(value) > 5 or int(value[:-1]) > 100):
        yield invalid_value(path, value, "must not be greater than 100%")


def _count_problems(status: Object) -> Problems:
    for field in _COUNTS:
        if status[field] < 0:
            yield invalid_value(f"status.{field}", status[field], _NEGATIVE)


def _share_cell(obj: Object, field: str) -> str:
    value = (obj.get("spec") or {}).get(field)
    return "N/A" if value is None else str(value)


PODDISRUPTIONBUDGETS: Final = builtin.resource(
    "policy",
    "v1",
    "poddisruptionbudgets",
    strategy=BudgetStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Min Available", "string", lambda obj, _: _share_cell(obj, "minAvailable")),
        Column("Max Unavailable", "string", lambda obj, _: _share_cell(obj, "maxUnavailable")),
        Column("Allowed Disruptions", "integer", lambda obj, _: obj["status"].get("disruptionsAllowed", 0)),
        builtin.AGE,
    ),
)

PACK: Final = Pack("policy", (PODDISRUPTIONBUDGETS,))
