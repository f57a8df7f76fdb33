"""HorizontalPodAutoscalers: judged and stored as v2, whatever version they are written in.

Upstream: kubernetes pkg/registry/autoscaling/horizontalpodautoscaler, pkg/apis/autoscaling/v2/defaults.go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.autoscaling.conversion import DEFAULT_UTILIZATION, complete_status, from_v2, to_v2
from clusterling.packs.autoscaling.validation import spec_problems, status_problems
from clusterling.packs.core.podspec import reading
from clusterling.packs.core.podspec.defaults import entries, read_quantity
from clusterling.packs.core.times import read_time
from clusterling.registry.resource import Converter, Resource
from clusterling.registry.strategy import Context, Strategy

SOURCES: Final = {
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "External": "external",
}


class AutoscalerStrategy(Strategy):
    @override
    def read(self, ctx: Context, new: Object) -> None:
        version = _version(new)
        stored = to_v2(new, version)
        if ctx.subresource:
            status = stored.setdefault("status", {})
            complete_status(status)
            read_time(new, status, "lastScaleTime")
        else:
            with reading(new):
                _default(stored)
        _become(new, from_v2(stored, version))

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        version = _version(new)
        stored = to_v2(new, version)
        stored["status"] = {"currentMetrics": None, "desiredReplicas": 0}
        _become(new, from_v2(stored, version))

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        version = _version(new)
        stored, before = to_v2(new, version), to_v2(old, version)
        if ctx.subresource:
            stored["spec"] = before["spec"]
        else:
            stored["status"] = before.get("status", {})
        _become(new, from_v2(stored, version))

    @override
    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool:
        # In v1 a part of the spec is in annotations.
        now, before = to_v2(new, _version(new)), to_v2(old, _version(old))
        return bool(now["spec"] != before["spec"])

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(spec_problems(to_v2(new, _version(new))["spec"], None))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        stored = to_v2(new, _version(new))
        if ctx.subresource:
            return list(status_problems(stored["status"]))
        return list(spec_problems(stored["spec"], to_v2(old, _version(old))["spec"]))


def _version(obj: Object) -> str:
    return GroupVersion.parse(obj["apiVersion"]).version


def _become(obj: Object, other: Object) -> None:
    if obj is not other:
        obj.clear()
        obj.update(other)


def _default(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("scaleTargetRef", {"kind": "", "name": ""})
    spec.setdefault("minReplicas", 1)
    spec.setdefault("maxReplicas", 0)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": DEFAULT_UTILIZATION}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    for metric in entries(spec, "metrics"):
        for field in SOURCES.values():
            target = (metric.get(field) or {}).get("target") or {}
            read_quantity(target, "value")
            read_quantity(target, "averageValue")
    behavior = spec.get("behavior")
    if behavior is not None:
        up = _rules(
            behavior.get("scaleUp"), {"stabilizationWindowSeconds": 0}, (("Pods", 4), ("Percent", 100))
        )
        behavior["scaleUp"] = up
        behavior["scaleDown"] = _rules(behavior.get("scaleDown"), {}, (("Percent", 100),))


def _rules(given: Object | None, defaults: Object, policies: tuple[tuple[str, int], ...]) -> Object:
    """Scaling rules with what they do not say filled in."""
    found: Object = {
        **defaults,
        "selectPolicy": "Max",
        "policies": [{"type": kind, "value": value, "periodSeconds": 15} for kind, value in policies],
        **(given or {}),
    }
    read_quantity(found, "tolerance")
    return found


def _reference(obj: Object) -> str:
    target = obj["spec"].get("scaleTargetRef") or {}
    return f"{target.get('kind', '')}/{target.get('name', '')}"


_SHOWN_MAX: Final = 2


def _targets(obj: Object) -> str:
    """`cpu: 40%/80%, 3/10 + 1 more...`"""
    metrics = obj["spec"].get("metrics") or ()
    if not metrics:
        return "<none>"
    current = (obj.get("status") or {}).get("currentMetrics") or ()
    shown = [
        _target(metric, current[index] if index < len(current) else {})
        for index, metric in enumerate(metrics[:_SHOWN_MAX])
    ]
    text = ", ".join(shown)
    return f"{text} + {len(metrics) - _SHOWN_MAX} more..." if len(metrics) > _SHOWN_MAX else text


def _target(metric: Object, status: Object) -> str:
    field = SOURCES.get(metric.get("type", ""))
    if field is None:
        return "<unknown type>"
    source, target = metric.get(field) or {}, (metric.get(field) or {}).get("target") or {}
    measured = (status or {}).get(field)
    now = (measured or {}).get("current") or {}
    if field in ("resource", "containerResource"):
        if "averageValue" in target:
            found = now.get("averageValue", "0") if measured is not None else "<unknown>"
            return f"{source.get('name', '')}: {found}/{target['averageValue']}"
        used, wanted = now.get("averageUtilization"), target.get("averageUtilization")
        return (
            f"{source.get('name', '')}: {'<unknown>' if used is None else f'{used}%'}/"
            f"{'<auto>' if wanted is None else f'{wanted}%'}"
        )
    if field == "pods":
        found = now.get("averageValue", "0") if measured is not None else "<unknown>"
        return f"{found}/{target.get('averageValue', '0')}"
    if "averageValue" in target:
        return f"{now.get('averageValue', '<unknown>')}/{target['averageValue']} (avg)"
    found = now.get("value", "0") if measured is not None else "<unknown>"
    return f"{found}/{target.get('value', '0')}"


def _cell(obj: Object) -> Object:
    return to_v2(obj, _version(obj))


def _minimum(obj: Object, _now: datetime) -> str:
    least = (obj.get("spec") or {}).get("minReplicas")
    return "<unset>" if least is None else str(least)


_COLUMNS: Final = (
    NAME_COLUMN,
    Column("Reference", "string", lambda obj, _: _reference(obj)),
    Column("Targets", "string", lambda obj, _: _targets(_cell(obj))),
    Column("MinPods", "string", _minimum),
    Column("MaxPods", "string", lambda obj, _: (obj.get("spec") or {}).get("maxReplicas") or 0),
    Column("Replicas", "string", lambda obj, _: (obj.get("status") or {}).get("currentReplicas") or 0),
    builtin.AGE,
)


def _both() -> Resource:
    strategy = AutoscalerStrategy()
    newer, older = (
        builtin.resource(
            "autoscaling", version, "horizontalpodautoscalers", strategy=strategy, columns=_COLUMNS
        )
        for version in ("v2", "v1")
    )
    return replace(newer, versions=(*newer.versions, *older.versions), converter=Converter(to_v2, from_v2))


HORIZONTALPODAUTOSCALERS: Final = _both()
