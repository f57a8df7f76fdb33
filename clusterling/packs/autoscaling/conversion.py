"""HorizontalPodAutoscalers between v1 and v2: what v1 has no field for travels in its annotations.

An annotation that does not read as what it should be is ignored, as upstream does. Upstream: pkg/apis/autoscaling/v1/conversion.go.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Final

import orjson

from clusterling.machinery.gotext import go_json
from clusterling.machinery.meta import Object
from clusterling.machinery.schema import Schema
from clusterling.packs import builtin

_PREFIX: Final = "autoscaling.alpha.kubernetes.io/"
_METRICS: Final = f"{_PREFIX}metrics"
_CURRENT: Final = f"{_PREFIX}current-metrics"
_CONDITIONS: Final = f"{_PREFIX}conditions"
_BEHAVIOR: Final = f"{_PREFIX}behavior"
_TRAVELLING: Final = (
    _METRICS, _CURRENT, _CONDITIONS, _BEHAVIOR, f"{_PREFIX}scale-down-tolerance", f"{_PREFIX}scale-up-tolerance",
)  # fmt: skip
DEFAULT_UTILIZATION: Final = 80

# The field of a v2 metric's source (or status) that v1 has elsewhere: v1 name → path in v2.
_Paths = dict[str, tuple[str, ...]]
_SPECS: Final[dict[str, _Paths]] = {
    "resource": {
        "name": ("name",),
        "targetAverageUtilization": ("target", "averageUtilization"),
        "targetAverageValue": ("target", "averageValue"),
    },
    "containerResource": {
        "name": ("name",),
        "targetAverageUtilization": ("target", "averageUtilization"),
        "targetAverageValue": ("target", "averageValue"),
        "container": ("container",),
    },
    "pods": {
        "metricName": ("metric", "name"),
        "targetAverageValue": ("target", "averageValue"),
        "selector": ("metric", "selector"),
    },
    "object": {
        "target": ("describedObject",),
        "metricName": ("metric", "name"),
        "targetValue": ("target", "value"),
        "selector": ("metric", "selector"),
        "averageValue": ("target", "averageValue"),
    },
    "external": {
        "metricName": ("metric", "name"),
        "metricSelector": ("metric", "selector"),
        "targetValue": ("target", "value"),
        "targetAverageValue": ("target", "averageValue"),
    },
}
_STATUSES: Final[dict[str, _Paths]] = {
    "resource": {
        "name": ("name",),
        "currentAverageUtilization": ("current", "averageUtilization"),
        "currentAverageValue": ("current", "averageValue"),
    },
    "containerResource": {
        "name": ("name",),
        "currentAverageUtilization": ("current", "averageUtilization"),
        "currentAverageValue": ("current", "averageValue"),
        "container": ("container",),
    },
    "pods": {
        "metricName": ("metric", "name"),
        "currentAverageValue": ("current", "averageValue"),
        "selector": ("metric", "selector"),
    },
    "object": {
        "target": ("describedObject",),
        "metricName": ("metric", "name"),
        "currentValue": ("current", "value"),
        "selector": ("metric", "selector"),
        "averageValue": ("current", "averageValue"),
    },
    "external": {
        "metricName": ("metric", "name"),
        "metricSelector": ("metric", "selector"),
        "currentValue": ("current", "value"),
        "currentAverageValue": ("current", "averageValue"),
    },
}
_RULES: Final = ("stabilizationWindowSeconds", "selectPolicy", "policies", "tolerance")


def to_v2(obj: Object, version: str) -> Object:
    """A HorizontalPodAutoscaler as v2, from v1 (or v2 itself)."""
    if version != "v1":
        return obj
    metadata = dict(obj["metadata"])
    notes = dict(metadata.get("annotations") or {})
    spec, status = dict(obj.get("spec") or {}), dict(obj.get("status") or {})
    target = spec.pop("targetCPUUtilizationPercentage", None)
    current = status.pop("currentCPUUtilizationPercentage", None)
    others = _annotated(notes, _METRICS, _specs_back, "metrics") or []
    spec["metrics"] = [*others, *([] if target is None else [_cpu_target(target)])]
    if not spec["metrics"]:
        spec["metrics"] = [_cpu_target(DEFAULT_UTILIZATION)]
    behavior = _annotated(notes, _BEHAVIOR, _behavior_back, "behavior")
    if behavior:
        spec["behavior"] = behavior
    if current is not None:
        name = {"name": "cpu", "current": {"averageUtilization": current}}
        status["currentMetrics"] = [{"type": "Resource", "resource": name}]
    measured = _annotated(notes, _CURRENT, _statuses_back, "currentMetrics")
    if measured is not None:
        status["currentMetrics"] = measured
    conditions = _annotated(notes, _CONDITIONS, lambda value: value, "conditions")
    if conditions is not None:
        status["conditions"] = conditions
    if status:
        complete_status(status)
    for key in _TRAVELLING:
        notes.pop(key, None)
    _keep_notes(metadata, notes)
    converted = {**obj, "apiVersion": "autoscaling/v2", "metadata": metadata, "spec": spec}
    return {**converted, "status": status} if "status" in obj or status else converted


def from_v2(obj: Object, version: str) -> Object:
    """A stored HorizontalPodAutoscaler as v1 shows it (or v2 itself)."""
    if version != "v1":
        return obj
    metadata = dict(obj["metadata"])
    notes = dict(metadata.get("annotations") or {})
    for key in _TRAVELLING:
        notes.pop(key, None)
    given, was = obj.get("spec") or {}, obj.get("status") or {}
    spec = {key: given[key] for key in ("scaleTargetRef", "minReplicas", "maxReplicas") if key in given}
    others = []
    for metric in given.get("metrics") or ():
        utilization = _cpu_utilization(metric)
        if utilization is None:
            others.append(_moved(metric, _SPECS, back=False))
        else:
            spec.setdefault("targetCPUUtilizationPercentage", utilization)
    status: Object = {
        "currentReplicas": was.get("currentReplicas", 0),
        "desiredReplicas": was.get("desiredReplicas", 0),
    }
    for field in ("observedGeneration", "lastScaleTime"):
        if field in was:
            status[field] = was[field]
    for metric in was.get("currentMetrics") or ():
        used = ((metric.get("resource") or {}).get("current") or {}).get("averageUtilization")
        if (
            metric.get("type") == "Resource"
            and (metric.get("resource") or {}).get("name") == "cpu"
            and used is not None
        ):
            status["currentCPUUtilizationPercentage"] = used
    if others:
        notes[_METRICS] = go_json(others, sort_keys=False)
    if was.get("currentMetrics"):
        moved = [_moved(metric, _STATUSES, back=False) for metric in was["currentMetrics"]]
        notes[_CURRENT] = go_json(moved, sort_keys=False)
    if given.get("behavior") is not None:
        notes[_BEHAVIOR] = go_json(_behavior_as_go(given["behavior"]), sort_keys=False)
    if was.get("conditions"):
        notes[_CONDITIONS] = go_json(was["conditions"], sort_keys=False)
    _keep_notes(metadata, notes)
    return {**obj, "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status}


def complete_status(status: Object) -> None:
    """A status of v2 as Go writes it, in place."""
    status.setdefault("currentMetrics", None)
    status.setdefault("desiredReplicas", 0)
    for field in ("currentReplicas", "observedGeneration"):
        if not status.get(field):
            status.pop(field, None)


def _keep_notes(metadata: Object, notes: Object) -> None:
    """What is no other version's field stays an annotation."""
    metadata.pop("annotations", None)
    if notes:
        metadata["annotations"] = notes


def _annotated(notes: Object, key: str, convert: Callable[[Any], Any], field: str) -> Any:
    """What an annotation holds for a field of v2; None where it is not of its type."""
    text = notes.get(key)
    if text is None:
        return None
    try:
        value = convert(orjson.loads(text))
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    part = "spec" if field in ("metrics", "behavior") else "status"
    candidate = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", part: {field: value}}
    _schema().settle_nulls(candidate)
    return value if _schema().mismatch(candidate, "HorizontalPodAutoscaler") is None else None


@cache
def _schema() -> Schema:
    return builtin.schema_of("autoscaling", "v2", "HorizontalPodAutoscaler")


def _cpu_target(utilization: int) -> Object:
    target = {"type": "Utilization", "averageUtilization": utilization}
    return {"type": "Resource", "resource": {"name": "cpu", "target": target}}


def _cpu_utilization(metric: Object) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    found: int | None = (resource.get("target") or {}).get("averageUtilization")
    return found


def _moved(metric: Object, table: dict[str, _Paths], *, back: bool) -> Object:
    """A metric with its fields where the other version has them."""
    found: Object = {"type": metric.get("type", "")}
    for kind, paths in table.items():
        source = metric.get(kind)
        if source is not None:
            found[kind] = _back(source, paths) if back else _forth(source, paths)
    return found


def _forth(source: Object, paths: _Paths) -> Object:
    found: Object = {}
    for name, path in paths.items():
        value: Any = source
        for step in path:
            value = (value or {}).get(step)
        if value is not None:
            found[name] = value
    return found


def _back(source: Object, paths: _Paths) -> Object:
    found: Object = {}
    for name, path in paths.items():
        if source.get(name) is None:
            continue
        place = found
        for step in path[:-1]:
            place = place.setdefault(step, {})
        place[path[-1]] = source[name]
    return found


def _specs_back(value: Any) -> list[Object]:
    metrics = [_moved(metric, _SPECS, back=True) for metric in value]
    for metric in metrics:
        for kind in _SPECS:
            if kind in metric:
                target = metric[kind].setdefault("target", {})
                target["type"] = _target_type(kind, target)
    return metrics


def _target_type(kind: str, target: Object) -> str:
    if "averageUtilization" in target and kind in ("resource", "containerResource"):
        return "Utilization"
    return (
        "Value"
        if "value" in target and (kind == "external" or "averageValue" not in target)
        else "AverageValue"
    )


def _statuses_back(value: Any) -> list[Object]:
    return [_moved(metric, _STATUSES, back=True) for metric in value]


def _behavior_as_go(behavior: Object) -> Object:
    """The internal type, which has no JSON names, is what upstream writes."""
    found: Object = {}
    for field in ("scaleUp", "scaleDown"):
        rules = behavior.get(field)
        found[_capital(field)] = rules and {_capital(key): _policies_as_go(rules.get(key)) for key in _RULES}
    return found


def _policies_as_go(value: Any) -> Any:
    if isinstance(value, list):
        return [{_capital(key): one.get(key) for key in ("type", "value", "periodSeconds")} for one in value]
    return value


def _behavior_back(value: Any) -> Object:
    found: Object = {}
    for field, rules in value.items():
        if rules is not None:
            known = {_small(key): item for key, item in rules.items() if item is not None}
            if isinstance(known.get("policies"), list):
                known["policies"] = [
                    {_small(key): item for key, item in one.items()} for one in known["policies"]
                ]
            found[_small(field)] = known
    return found


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _small(name: str) -> str:
    return name[:1].lower() + name[1:]
