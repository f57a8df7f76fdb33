"""Where a pod may run: affinity, tolerations, spreading. Upstream: validateAffinity and what it calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clusterling.machinery.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_label_value,
    is_qualified_name,
)
from clusterling.packs.core.podspec.rules import Problems, items, named, one_of

_WEIGHT: Final = "must be in the range 1-100"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"
TAINT_EFFECTS: Final = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_OPERATOR: Final = "not a valid selector operator"
_NOT_POSITIVE: Final = "must be greater than zero"


def affinity_problems(affinity: Object, path: str) -> Problems:
    nodes = affinity.get("nodeAffinity")
    if nodes is not None:
        if nodes.get(_REQUIRED) is not None:
            yield from node_selector_problems(nodes[_REQUIRED], f"{path}.nodeAffinity.{_REQUIRED}")
        for here, term in items(nodes, _PREFERRED, f"{path}.nodeAffinity"):
            yield from _weight(term, here)
            yield from node_term_problems(term.get("preference") or {}, f"{here}.preference", any_value=True)
    for field in ("podAffinity", "podAntiAffinity"):
        pods = affinity.get(field) or {}
        for here, term in items(pods, _REQUIRED, f"{path}.{field}"):
            yield from _pod_term_problems(term, here)
        for here, term in items(pods, _PREFERRED, f"{path}.{field}"):
            yield from _weight(term, here)
            yield from _pod_term_problems(term.get("podAffinityTerm") or {}, f"{here}.podAffinityTerm")


def _weight(term: Object, path: str) -> Problems:
    if not 0 < term.get("weight", 0) <= 100:
        yield invalid_value(f"{path}.weight", term.get("weight", 0), _WEIGHT)


def node_selector_problems(selector: Object, path: str) -> Problems:
    """A core/v1 NodeSelector (also of persistent volumes)."""
    if not selector.get("nodeSelectorTerms"):
        yield required(f"{path}.nodeSelectorTerms", "must have at least one node selector term")
    for here, term in items(selector, "nodeSelectorTerms", path):
        yield from node_term_problems(term, here)


def node_term_problems(term: Object, path: str, *, any_value: bool = False) -> Problems:
    for here, one in items(term, "matchExpressions", path):
        yield from _node_requirement_problems(one, here, any_value=any_value)
    for here, one in items(term, "matchFields", path):
        key, values = one.get("key") or "", one.get("values") or ()
        if one.get("operator") not in ("In", "NotIn"):
            yield invalid_value(f"{here}.operator", one.get("operator", ""), _OPERATOR)
        elif len(values) != 1:
            yield required(
                f"{here}.values",
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )
        if key != "metadata.name":
            yield invalid_value(f"{here}.key", key, "not a valid field selector key")
        else:
            for index, value in enumerate(values):
                yield from named(value, f"{here}.values[{index}]", is_dns1123_subdomain)


def _node_requirement_problems(one: Object, path: str, *, any_value: bool) -> Problems:
    operator, values = one.get("operator") or "", one.get("values") or ()
    if operator in ("In", "NotIn"):
        if not values:
            yield required(f"{path}.values", "must be specified when `operator` is 'In' or 'NotIn'")
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            yield forbidden_field(f"{path}.values", why)
    elif operator in ("Gt", "Lt"):
        if len(values) != 1:
            yield required(f"{path}.values", "must be specified single value when `operator` is 'Lt' or 'Gt'")
    else:
        yield invalid_value(f"{path}.operator", operator, _OPERATOR)
    yield from named(one.get("key") or "", f"{path}.key", is_qualified_name)
    if not any_value:
        for index, value in enumerate(values):
            yield from named(value, f"{path}.values[{index}]", is_label_value)


def _pod_term_problems(term: Object, path: str) -> Problems:
    yield from label_selector_problems(term.get("labelSelector"), f"{path}.labelSelector")
    yield from label_selector_problems(term.get("namespaceSelector"), f"{path}.namespaceSelector")
    for name in term.get("namespaces") or ():
        yield from named(name, f"{path}.namespace", is_dns1123_label)
    mismatched = term.get("mismatchLabelKeys") or ()
    yield from _label_keys_problems(term, path, mismatched)
    topology = term.get("topologyKey") or ""
    if not topology:
        yield required(f"{path}.topologyKey", "can not be empty")
    yield from named(topology, f"{path}.topologyKey", is_qualified_name)


def _label_keys_problems(term: Object, path: str, mismatched: Sequence[str] = ()) -> Problems:
    """`matchLabelKeys` and `mismatchLabelKeys` beside a selector, into which the first have been merged."""
    matched: Sequence[str] = term.get("matchLabelKeys") or ()
    selector = term.get("labelSelector")
    for field, keys in (("matchLabelKeys", matched), ("mismatchLabelKeys", mismatched)):
        if keys and selector is None:
            yield forbidden_field(f"{path}.{field}", "must not be specified when labelSelector is not set")
        elif keys:
            for index, key in enumerate(keys):
                yield from named(key, f"{path}.{field}[{index}]", is_qualified_name)
    if selector is not None:
        places = {key: index for index, key in enumerate(matched)}
        seen = set(selector.get("matchLabels") or ())
        for one in selector.get("matchExpressions") or ():
            key = (one or {}).get("key") or ""
            if key in places and key in seen:
                yield invalid_value(
                    f"{path}[{places[key]}]", key, "exists in both matchLabelKeys and labelSelector"
                )
            seen.add(key)
    both = set(mismatched)
    for index, key in enumerate(matched):
        if key in both:
            yield invalid_value(
                f"{path}.matchLabelKeys[{index}]", key, "exists in both matchLabelKeys and mismatchLabelKeys"
            )


def spread_problems(spec: Object, path: str) -> Problems:
    """`topologySpreadConstraints`."""
    pairs = [
        (one.get("topologyKey") or "", one.get("whenUnsatisfiable") or "")
        for _, one in items(spec, "topologySpreadConstraints", path)
    ]
    last = {pair: index for index, pair in enumerate(pairs)}
    for index, (here, one) in enumerate(items(spec, "topologySpreadConstraints", path)):
        topology, action = pairs[index]
        if one.get("maxSkew", 0) <= 0:
            yield invalid_value(f"{here}.maxSkew", one.get("maxSkew", 0), _NOT_POSITIVE)
        if not topology:
            yield required(f"{here}.topologyKey", "can not be empty")
        yield from one_of(action, f"{here}.whenUnsatisfiable", ("DoNotSchedule", "ScheduleAnyway"))
        if last[pairs[index]] != index:
            yield duplicate(f"{here}.{{topologyKey, whenUnsatisfiable}}", f"{{{topology}, {action}}}")
        yield from _domains_problems(one.get("minDomains"), f"{here}.minDomains", action)
        for field in ("nodeAffinityPolicy", "nodeTaintsPolicy"):
            if one.get(field) is not None:
                yield from one_of(one[field], f"{here}.{field}", ("Honor", "Ignore"))
        yield from _label_keys_problems(one, here)
        yield from label_selector_problems(one.get("labelSelector"), f"{here}.labelSelector")


def _domains_problems(domains: int | None, path: str, action: str) -> Problems:
    if domains is None:
        return
    if domains <= 0:
        yield invalid_value(path, domains, _NOT_POSITIVE)
    if action != "DoNotSchedule":
        why = f"can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}"
        yield invalid_value(path, domains, why)


def toleration_problems(owner: Object, path: str, field: str = "tolerations") -> Problems:
    """The tolerations of a pod spec (or of a RuntimeClass' scheduling)."""
    for here, one in items(owner, field, path):
        key, operator, value = one.get("key") or "", one.get("operator") or "", one.get("value") or ""
        if key:
            yield from named(key, f"{here}.key", is_qualified_name)
        if not key and operator != "Exists":
            why = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            yield invalid_value(f"{here}.operator", operator, why)
        effect = one.get("effect") or ""
        if one.get("tolerationSeconds") is not None and effect != "NoExecute":
            why = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            yield invalid_value(f"{here}.effect", effect, why)
        if operator in ("Equal", ""):
            problems = is_label_value(value)
            if problems:
                yield invalid_value(f"{here}.operator", value, ";".join(problems))
        elif operator == "Exists":
            if value:
                why = "value must be empty when `operator` is 'Exists'"
                yield invalid_value(f"{here}.operator", value, why)
        else:
            # Lt and Gt are known upstream, and wait for a feature gate (TaintTolerationComparisonOperators).
            known = ("Equal", "Exists", "Lt", "Gt") if operator in ("Lt", "Gt") else ("Equal", "Exists")
            yield not_supported(f"{here}.operator", operator, known)
        if effect:
            yield from one_of(effect, f"{here}.effect", TAINT_EFFECTS)


def gate_problems(spec: Object, path: str) -> Problems:
    """Readiness gates and scheduling gates."""
    for here, gate in items(spec, "readinessGates", path):
        yield from named(gate.get("conditionType") or "", f"{here}.conditionType", is_qualified_name)
    seen: set[str] = set()
    for here, gate in items(spec, "schedulingGates", path):
        name = gate.get("name") or ""
        yield from named(name, here, is_qualified_name)
        if name in seen:
            yield duplicate(here, name)
        seen.add(name)
