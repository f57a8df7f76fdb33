"""LimitRanges: bounds and defaults for what the pods, containers and claims of a namespace ask for.

Upstream: kubernetes pkg/registry/core/limitrange, pkg/apis/core/{v1/defaults.go,validation}.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, duplicate, forbidden_field, invalid_value, required
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import is_qualified_name
from clusterling.machinery.quantity import Quantity
from clusterling.machinery.table import CREATED_DESCRIPTION, NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core import amounts
from clusterling.packs.core.amounts import ONE, Amounts
from clusterling.packs.core.podspec.defaults import read_resources, reading
from clusterling.packs.core.podspec.resources import container_resource_name, may_overcommit
from clusterling.packs.core.resourcequotas import resource_name_problems
from clusterling.registry.strategy import Context, Strategy

_FIELDS: Final = ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio")
_TYPES: Final = ("Pod", "Container", "PersistentVolumeClaim")
# (the smaller, the greater, which of them is told, how)
_ORDERED: Final = (
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    ("min", "defaultRequest", "defaultRequest", "defaultRequest", "min value {} is greater than default request value {}"),
    ("defaultRequest", "max", "defaultRequest", "defaultRequest", "default request value {} is greater than max value {}"),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
)  # fmt: skip


class LimitRangeStrategy(Strategy):
    has_generation = False
    allow_create_on_update = True

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        metadata = meta(new)
        if not metadata.get("name"):
            metadata["name"] = metadata["uid"]

    @override
    def read(self, ctx: Context, new: Object) -> None:
        _default(new)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found: list[FieldError] = []
        seen: set[str] = set()
        for index, item in enumerate((new.get("spec") or {}).get("limits") or ()):
            path, kind = f"spec.limits[{index}]", item.get("type", "")
            found += _type_problems(kind, f"{path}.type")
            if kind in seen:
                found.append(duplicate(f"{path}.type", kind))
            seen.add(kind)
            found += _item_problems(kind, item, path)
        return found


def _default(obj: Object) -> None:
    """Upstream: SetDefaults_LimitRangeItem."""
    spec = obj.setdefault("spec", {})
    # Always told, and null where there are none.
    spec["limits"] = spec.get("limits") or None
    for item in spec["limits"] or ():
        if item.get("type") == "Container":
            limits = item.setdefault("default", {})
            for name, amount in (item.get("max") or {}).items():
                limits.setdefault(name, amount)
            requests = item.setdefault("defaultRequest", {})
            for more in (limits, item.get("min") or {}):
                for name, amount in more.items():
                    requests.setdefault(name, amount)
        with reading(obj):
            for field in _FIELDS:
                read_resources(item, field)
        for field in _FIELDS:
            if not item.get(field):
                item.pop(field, None)


# ---------------------------------------------------------------------- validation


def _type_problems(kind: str, path: str) -> Iterator[FieldError]:
    wrong = is_qualified_name(kind)
    for problem in wrong:
        yield invalid_value(path, kind, problem)
    if not wrong and "/" not in kind and kind not in _TYPES:
        yield invalid_value(path, kind, "must be a standard limit type or fully qualified")


def _item_problems(kind: str, item: Object, path: str) -> Iterator[FieldError]:
    rule = container_resource_name if kind in ("Pod", "Container") else resource_name_problems
    given = {field: amounts.read(item.get(field)) for field in _FIELDS}
    for field in ("max", "min"):
        for name in sorted(given[field]):
            yield from rule(name, f"{path}.{field}[{name}]")
    for field in ("default", "defaultRequest"):
        if kind == "Pod":
            if given[field]:
                yield forbidden_field(f"{path}.{field}", "may not be specified when `type` is 'Pod'")
            given[field] = {}
        for name in sorted(given[field]):
            yield from rule(name, f"{path}.{field}[{name}]")
    if kind == "PersistentVolumeClaim" and not {"storage"} & (given["min"].keys() | given["max"].keys()):
        why = "either minimum or maximum storage value is required, but neither was provided"
        yield required(f"{path}.limits", why)
    for name in sorted(given["maxLimitRequestRatio"]):
        yield from rule(name, f"{path}.maxLimitRequestRatio[{name}]")
    for name in sorted(set().union(*given.values())):
        yield from _amount_problems(name, given, path)


def _amount_problems(name: str, given: dict[str, Amounts], path: str) -> Iterator[FieldError]:
    """Whether the bounds of one resource leave something between them."""
    for smaller, greater, field, told, why in _ORDERED:
        low, high = given[smaller].get(name), given[greater].get(name)
        if low is not None and high is not None and low > high:
            yield invalid_value(f"{path}.{field}[{name}]", str(given[told][name]), why.format(low, high))
    yield from _ratio_problems(name, given, path)
    limit, request = given["default"].get(name), given["defaultRequest"].get(name)
    if limit is not None and request is not None and limit != request and not may_overcommit(name):
        why = f"default value {limit} must equal to defaultRequest value {request} in {name}"
        yield invalid_value(f"{path}.defaultRequest[{name}]", str(request), why)


def _ratio_problems(name: str, given: dict[str, Amounts], path: str) -> Iterator[FieldError]:
    ratio, low, high = (given[field].get(name) for field in ("maxLimitRequestRatio", "min", "max"))
    if ratio is None:
        return
    here = f"{path}.maxLimitRequestRatio[{name}]"
    if ratio < ONE:
        yield invalid_value(here, str(ratio), f"ratio {ratio} is less than 1")
    if low is not None and high is not None:
        most = quotient(high, low)
        if quotient(ratio, ONE) > most:
            yield invalid_value(here, str(ratio), f"ratio {ratio} is greater than max/min = {most:f}")


def quotient(left: Quantity, right: Quantity) -> float:
    """As Go divides them: in thousandths."""
    above, below = (Quantity(one.unscaled, one.exponent + 3).rounded_up() for one in (left, right))
    if below:
        return above / below
    return float("inf") if above else float("nan")


# ---------------------------------------------------------------------- the kind


def _created(obj: Object, _now: datetime) -> object:
    return obj["metadata"].get("creationTimestamp")


LIMITRANGES: Final = builtin.resource(
    "",
    "v1",
    "limitranges",
    strategy=LimitRangeStrategy(),
    columns=(NAME_COLUMN, Column("Created At", "date", _created, description=CREATED_DESCRIPTION)),
)
