"""What upstream's markers say of an object: enums, and the rules of declarative validation.

A strategy asks for the rules that it wants told, of the whole object or of the part where it has no rules by hand:

    found += marked.problems("", "v1", "Service", new, ("enum",), under="spec")

Compiled data (tools/markers.py), read package by package; which fields lead to a rule is worked out once for a definition.
Upstream: apimachinery pkg/api/validate, and the tables of supported values in pkg/apis/*/validation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from clusterling.machinery import names
from clusterling.machinery.codec import same_json
from clusterling.machinery.errors import (
    FieldError,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
    too_many,
)
from clusterling.machinery.meta import Object
from clusterling.packs import builtin

Rules = Mapping[str, Any]

_FORMATS: Final[Mapping[str, Callable[[str], Sequence[str]]]] = {
    "k8s-short-name": names.is_dns1123_label,
    "k8s-long-name": names.is_dns1123_subdomain,
    "k8s-label-key": names.is_qualified_name,
    "k8s-path-segment-name": names.is_path_segment_name,
}
# Told of a field that is absent, too.
_REQUIRED: Final = "required"


@dataclass(frozen=True, slots=True)
class _Plan:
    """Of one definition: what is said of its fields, and the fields below which more is said."""

    rules: tuple[tuple[str, Rules], ...]
    below: tuple[tuple[str, str], ...]


def problems(
    group: str,
    version: str,
    kind: str,
    new: Object,
    wanted: Collection[str],
    *,
    old: Object | None = None,
    under: str = "",
) -> Iterator[FieldError]:
    """What is wrong by the rules `wanted` (`enum`, `required`, `maxItems`, …); `immutable` needs `old`.

    `under`: only that field of the object. What is absent or empty has no unsupported value: defaulting has been here.
    """
    definition = builtin.definition_of(group, version, kind)
    plan = _plan(definition)
    for field, child in plan.below:
        if field in new and under in ("", field):
            before = None if old is None else old.get(field)
            yield from _within(child, new[field], before, frozenset(wanted), field)


def _within(definition: str, value: Any, old: Any, wanted: frozenset[str], path: str) -> Iterator[FieldError]:
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _within(definition, one, None, wanted, f"{path}[{index}]")
        return
    if not isinstance(value, dict):
        return
    plan = _plan(definition)
    before = old if isinstance(old, dict) else None
    for field, rules in plan.rules:
        yield from _told(rules, value.get(field), before, field, wanted, f"{path}.{field}")
    for field, child in plan.below:
        if field in value:
            inner = None if before is None else before.get(field)
            yield from _within(child, value[field], inner, wanted, f"{path}.{field}")


def _told(
    rules: Rules, value: Any, before: Object | None, field: str, wanted: frozenset[str], path: str
) -> Iterator[FieldError]:
    """What the rules of one field say of its value."""
    fixed = "immutable" in rules and "immutable" in wanted
    if fixed and before is not None and not same_json(value, before.get(field)):
        yield immutable_field(path, value)
    if value in (None, "", [], {}):
        if _REQUIRED in rules and _REQUIRED in wanted:
            yield required(path)
        return
    yield from _value_problems(rules, value, wanted, path)
    each = rules.get("each")
    if each and isinstance(value, list):
        for index, one in enumerate(value):
            yield from _value_problems(each, one, wanted, f"{path}[{index}]")
    elif each and isinstance(value, dict):
        for key, one in value.items():
            yield from _value_problems(each, one, wanted, f"{path}[{key}]")


def _value_problems(rules: Rules, value: Any, wanted: frozenset[str], path: str) -> Iterator[FieldError]:
    for rule, bound in rules.items():
        if rule in wanted and rule in _CHECKS:
            yield from _CHECKS[rule](value, bound, path)


def _enum(value: Any, supported: Sequence[str], path: str) -> Iterator[FieldError]:
    if value not in supported:
        yield not_supported(path, value, [one for one in supported if one])


def _max_items(value: Any, bound: int, path: str) -> Iterator[FieldError]:
    if len(value) > bound:
        yield too_many(path, len(value), bound)


def _minimum(value: Any, bound: int, path: str) -> Iterator[FieldError]:
    if value < bound:
        yield invalid_value(path, value, f"must be greater than or equal to {bound}")


def _maximum(value: Any, bound: int, path: str) -> Iterator[FieldError]:
    if value > bound:
        yield invalid_value(path, value, f"must be less than or equal to {bound}")


def _max_length(value: Any, bound: int, path: str) -> Iterator[FieldError]:
    if len(value) > bound:
        yield too_long(path, bound)


def _format(value: Any, name: str, path: str) -> Iterator[FieldError]:
    for problem in _FORMATS[name](value) if name in _FORMATS else ():
        yield invalid_value(path, value, problem)


_CHECKS: Final[Mapping[str, Callable[[Any, Any, str], Iterator[FieldError]]]] = {
    "enum": _enum,
    "maxItems": _max_items,
    "minimum": _minimum,
    "maximum": _maximum,
    "maxLength": _max_length,
    "format": _format,
}


@cache
def _plan(definition: str) -> _Plan:
    rules = builtin.markers_of(definition)
    properties = (
        builtin.definitions[definition].get("properties", {}) if definition in builtin.definitions else {}
    )
    return _Plan(
        tuple((field, rules[field]) for field in properties if field in rules),
        tuple(
            (field, child)
            for field, schema in properties.items()
            if (child := _child(schema)) and _leads_somewhere(child)
        ),
    )


def _child(schema: Object) -> str:
    """The definition of a field's value, or of the elements of its list or map."""
    for held in (schema, schema.get("items"), schema.get("additionalProperties")):
        if isinstance(held, dict) and "$ref" in held:
            return str(held["$ref"]).rpartition("/")[2]
    return ""


@cache
def _leads_somewhere(definition: str) -> bool:
    """Something is said of its fields, or of what is below them."""
    seen, waiting = {definition}, [definition]
    while waiting:
        one = waiting.pop()
        if builtin.markers_of(one):
            return True
        if one in builtin.definitions:
            children = {_child(schema) for schema in builtin.definitions[one].get("properties", {}).values()}
            waiting += children - seen - {""}
            seen |= children
    return False
