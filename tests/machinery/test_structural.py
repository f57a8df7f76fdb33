"""What a CRD's schema may not be. What kube-apiserver says of each rule is in tests/registry/test_crd_recorded.json."""

from __future__ import annotations

import pytest

from clusterling.machinery.meta import Object
from clusterling.machinery.structural import (
    LEVELS_MAX,
    NODES_MAX,
    Field,
    Leniency,
    field_of,
    is_structural,
    structural_errors,
    unrecognized_formats,
    validate_schema,
)


def under(spec: Object) -> Object:
    return {"type": "object", "properties": {"spec": spec}}


def said(schema: Object, leniency: Leniency | None = None) -> list[str]:
    return [str(error) for error in validate_schema(schema, "s", leniency or Leniency())]


def test_a_plain_schema_is_structural() -> None:
    schema = under({"type": "array", "items": {"type": "object", "additionalProperties": {"type": "string"}}})
    assert is_structural(schema)
    assert said(schema) == []


def test_a_branch_at_the_root_may_only_narrow_what_is_defined_outside() -> None:
    """Upstream looks at the root's branches alone (complete.go starts there and follows branches only)."""
    inner = {"type": "object", "properties": {"a": {"type": "string"}}}
    branches = [{"properties": {"a": {"pattern": "^x"}}}, {"properties": {"b": {"minLength": 1}}}]
    assert said({**inner, "oneOf": branches}) == [
        "s.properties[b]: Required value: because it is defined in s.oneOf[1].properties[b]"
    ]
    assert said(under({**inner, "oneOf": branches})) == []


def test_structural_errors_are_sorted_by_their_text() -> None:
    found = [
        str(error)
        for error in structural_errors(under({"type": "object", "properties": {"b": {}, "a": {}}}), "s")
    ]
    assert found == sorted(found)
    assert len(found) == 2


@pytest.mark.parametrize(
    "branches",
    [
        {"anyOf": [{"type": "integer"}, {"type": "string"}]},
        {"allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"pattern": "a"}]},
    ],
)
def test_int_or_string_may_say_so_in_the_two_ways_that_upstream_knows(branches: Object) -> None:
    assert said(under({"x-kubernetes-int-or-string": True, **branches})) == []


def test_types_in_any_other_branch_are_forbidden() -> None:
    schema = under({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "string"}, {"type": "integer"}]})
    assert said(schema) == [
        "s.properties[spec].anyOf[0].type: Forbidden: must be empty to be structural",
        "s.properties[spec].anyOf[1].type: Forbidden: must be empty to be structural",
    ]


def test_defaults_are_held_against_their_schema() -> None:
    schema = under(
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "maxLength": 1, "default": "xx"},
                "b": {"type": "object", "properties": {}, "default": {"unknown": 1}},
            },
        }
    )
    assert said(schema) == [
        "s.properties[spec].properties[a].default: Too long: may not be more than 1 byte",
        's.properties[spec].properties[b].default: Invalid value: {"unknown":1}: must not have unknown fields',
    ]


def test_an_update_may_keep_the_faults_that_are_stored_already() -> None:
    unpruned = under({"type": "object", "properties": {"b": {"type": "object", "default": {"x": 1}}}})
    assert said(unpruned, Leniency(unpruned_defaults=True)) == []
    assert said(under({}), Leniency(structural=True)) == []
    assert said(under({"type": "thing"}), Leniency(property_types=True)) == []
    objects = {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}
    assert said(under(objects), Leniency(set_items=True)) == []
    keyed = {
        "type": "array",
        "items": {"type": "object", "properties": {"k": {"type": "string"}}},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["k"],
    }
    assert said(under(keyed), Leniency(map_keys=True)) == []
    for schema in (unpruned, under({}), under({"type": "thing"}), under(objects), under(keyed)):
        assert said(schema) != []


def test_a_schema_nested_too_deeply_is_refused() -> None:
    schema: Object = {"type": "object"}
    for _ in range(LEVELS_MAX):
        schema = {"type": "object", "properties": {"a": schema}}
    assert said(schema) == [f"s: Forbidden: must not be nested more than {LEVELS_MAX} schemas deep"]


def test_a_schema_at_the_limit_of_depth_is_taken_in_every_form_of_nesting() -> None:
    negated: Object = {"required": ["a"]}
    for _ in range(LEVELS_MAX - 2):
        negated = {"not": negated}
    assert said({"type": "object", "properties": {}, **negated}) == []


def test_a_schema_with_too_many_parts_is_refused() -> None:
    wide = {"type": "object", "properties": {f"f{at}": {"type": "string"} for at in range(NODES_MAX)}}
    assert said(wide) == [f"s: Forbidden: must not have more than {NODES_MAX} schemas"]


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.a", Field(("spec", "a"), {"type": "string"})),
        (".spec['a']", Field(("spec", "a"), {"type": "string"})),
        (".spec.m.any", Field(("spec", "m", "any"), {"type": "integer"})),
        (".spec.none", "does not refer to a valid field"),
        (".spec.a.b", "does not refer to a valid field"),
        ("spec", "expected [ or . but got: spec"),
        (".spec[0]", "expected single quoted string but got 0"),
        (".spec['a'", "unexpected end of JSON path"),
    ],
)
def test_a_path_finds_its_field_in_the_schema(path: str, found: Field | str) -> None:
    schema = under(
        {
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "m": {"type": "object", "additionalProperties": {"type": "integer"}},
            },
        }
    )
    assert field_of(schema, path) == found


def test_formats_that_nobody_checks_are_named() -> None:
    schema = under(
        {
            "type": "object",
            "properties": {
                "a": {"type": "string", "format": "date-time"},
                "b": {"type": "string", "format": "int32"},
                "c": {"type": "integer", "format": "int16"},
            },
        }
    )
    assert sorted(unrecognized_formats(schema)) == ["int16", "int32"]
