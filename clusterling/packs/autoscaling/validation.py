"""What is wrong with an autoscaler in its v2 form. Upstream: kubernetes pkg/apis/autoscaling/validation."""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import forbidden_field, invalid_value, not_supported, required
from clusterling.machinery.meta import GroupVersion, Object
from clusterling.machinery.names import is_path_segment_name
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.resources import container_resource_name
from clusterling.packs.core.podspec.rules import NEGATIVE, Problems, items, label, named, non_negative, one_of

_TYPES: Final = ("ContainerResource", "External", "Object", "Pods", "Resource")
_SOURCE_ORDER: Final = ("object", "external", "pods", "resource", "containerResource")
_WINDOW_MAX: Final = 3600
_PERIOD_MAX: Final = 1800
_ZERO: Final = Quantity(0)


def spec_problems(spec: Object, old: Object | None) -> Problems:
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and most < least:
        why = "must be greater than or equal to `minReplicas`"
        yield invalid_value("spec.maxReplicas", most, why)
    target = spec.get("scaleTargetRef") or {}
    before = (old or {}).get("scaleTargetRef") or {}
    same = old is not None and all(before.get(key) == target.get(key) for key in ("apiVersion", "kind"))
    in_core = target.get("kind") == "ReplicationController"
    yield from _reference_problems(target, "spec.scaleTargetRef", any_version=same, may_be_core=in_core)
    yield from _metrics_problems(spec)
    for field in ("scaleUp", "scaleDown"):
        rules = (spec.get("behavior") or {}).get(field)
        if rules is not None:
            yield from _rules_problems(rules, f"spec.behavior.{field}")
    # Rules that upstream declares come after those that it spells out.
    if least is not None and least < 0:
        yield invalid_value("spec.minReplicas", least, NEGATIVE)
    if not most:
        yield required("spec.maxReplicas")
    elif most < 0:
        yield invalid_value("spec.maxReplicas", most, "must be greater than or equal to 1")


def _reference_problems(
    reference: Object, path: str, *, any_version: bool = False, may_be_core: bool = True
) -> Problems:
    for field in ("kind", "name"):
        if not reference.get(field):
            yield required(f"{path}.{field}")
        else:
            yield from named(reference[field], f"{path}.{field}", is_path_segment_name)
    version = reference.get("apiVersion") or ""
    if any_version:
        return
    try:
        group = GroupVersion.parse(version).group
    except ValueError as error:
        yield invalid_value(f"{path}.apiVersion", version, str(error))
        return
    if not group and not may_be_core:
        yield invalid_value(f"{path}.apiVersion", version, "apiVersion must specify API group")


def _metrics_problems(spec: Object) -> Problems:
    kinds = set()
    for here, metric in items(spec, "metrics", "spec"):
        yield from _metric_problems(metric, here)
        kinds.add(metric.get("type"))
    if spec.get("minReplicas") == 0 and not kinds & {"Object", "External"}:
        why = "must specify at least one Object or External metric to support scaling to zero replicas"
        yield forbidden_field("spec.metrics", why)


def _metric_problems(metric: Object, path: str) -> Problems:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
    if kind not in _TYPES:
        yield not_supported(f"{path}.type", kind, _TYPES)
    given = [field for field in _SOURCE_ORDER if metric.get(field) is not None]
    if given:
        yield from _source_problems(given[0], metric[given[0]], f"{path}.{given[0]}")
    expected = kind[:1].lower() + kind[1:]
    if kind in _TYPES and expected not in given:
        yield required(f"{path}.{expected}", "must populate information for the given metric source")
    if len(given) != 1:
        for field in sorted(set(given) - {expected}):
            yield forbidden_field(f"{path}.{field}", "must populate the given metric source only")


def _source_problems(kind: str, source: Object, path: str) -> Problems:
    target, here = source.get("target") or {}, f"{path}.target"
    if kind == "object":
        yield from _reference_problems(source.get("describedObject") or {}, f"{path}.describedObject")
    if kind in ("object", "external", "pods"):
        name = (source.get("metric") or {}).get("name") or ""
        if not name:
            yield required(f"{path}.metric.name", "must specify a metric name")
        else:
            yield from named(name, f"{path}.metric.name", is_path_segment_name)
    else:
        yield from _resource_problems(kind, source, path)
    yield from _target_problems(target, here)
    value, average = target.get("value"), target.get("averageValue")
    used = target.get("averageUtilization")
    if kind == "object" and value is None and average is None:
        yield required(f"{here}.averageValue", "must set either a target value or averageValue")
    elif kind == "external":
        if value is None and average is None:
            why = "must set either a target value for metric or a per-pod target"
            yield required(f"{here}.averageValue", why)
        if value is not None and average is not None:
            why = "may not set both a target value for metric and a per-pod target"
            yield forbidden_field(f"{here}.value", why)
    elif kind == "pods" and average is None:
        yield required(f"{here}.averageValue", "must specify a positive target averageValue")
    elif kind in ("resource", "containerResource"):
        if used is None and average is None:
            why = "must set either a target raw value or a target utilization"
            yield required(f"{here}.averageUtilization", why)
        if used is not None and average is not None:
            why = "may not set both a target raw value and a target utilization"
            yield forbidden_field(f"{here}.averageValue", why)


def _resource_problems(kind: str, source: Object, path: str) -> Problems:
    name = source.get("name") or ""
    if not name:
        yield required(f"{path}.name", "must specify a resource name")
    elif kind == "containerResource":
        yield from container_resource_name(name, f"{path}.name")
    if kind == "containerResource":
        if not source.get("container"):
            yield required(f"{path}.container", "must specify a container")
        else:
            yield from label(source["container"], f"{path}.container")


def _target_problems(target: Object, path: str) -> Problems:
    kind = target.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric target type")
    if kind not in ("Utilization", "Value", "AverageValue"):
        yield invalid_value(f"{path}.type", kind, "must be either Utilization, Value, or AverageValue")
    for field in ("value", "averageValue"):
        if target.get(field) is not None and Quantity.parse(target[field]) <= _ZERO:
            yield invalid_value(f"{path}.{field}", target[field], "must be positive")
    used = target.get("averageUtilization")
    if used is not None and used < 1:
        yield invalid_value(f"{path}.averageUtilization", used, "must be greater than 0")


def _rules_problems(rules: Object, path: str) -> Problems:
    window, here = rules.get("stabilizationWindowSeconds"), f"{path}.stabilizationWindowSeconds"
    if window is not None and window < 0:
        yield invalid_value(here, window, "must be greater than or equal to zero")
    if window is not None and window > _WINDOW_MAX:
        yield invalid_value(here, window, f"must be less than or equal to {_WINDOW_MAX}")
    if rules.get("selectPolicy") is not None:
        yield from one_of(rules["selectPolicy"], f"{path}.selectPolicy", ("Disabled", "Max", "Min"))
    if not rules.get("policies"):
        yield required(f"{path}.policies", "must specify at least one Policy")
    for place, policy in items(rules, "policies", path):
        yield from one_of(policy.get("type", ""), f"{place}.type", ("Percent", "Pods"))
        for field in ("value", "periodSeconds"):
            if policy.get(field, 0) <= 0:
                yield invalid_value(f"{place}.{field}", policy.get(field, 0), "must be greater than zero")
        if policy.get("periodSeconds", 0) > _PERIOD_MAX:
            why = f"must be less than or equal to {_PERIOD_MAX}"
            yield invalid_value(f"{place}.periodSeconds", policy["periodSeconds"], why)
    tolerance = rules.get("tolerance")
    if tolerance is not None and Quantity.parse(tolerance) < _ZERO:
        yield invalid_value(f"{path}.tolerance", tolerance, NEGATIVE)


def status_problems(status: Object) -> Problems:
    for here, condition in items(status, "conditions", "status"):
        yield from non_negative(condition, here, "observedGeneration")
    yield from non_negative(status, "status", "currentReplicas", "desiredReplicas")
