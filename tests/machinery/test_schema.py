"""Schemas at work: what is defaulted, pruned and refused, and what a hostile schema or object may cost."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clusterling.machinery.meta import Object
from clusterling.machinery.schema import ANY, SchemaError, compile_schema
from clusterling.machinery.schema.checking import compile_check
from clusterling.machinery.schema.explaining import explain
from clusterling.machinery.schema.formats import FORMATS, PatternError, compile_pattern
from clusterling.machinery.schema.node import Node

RECORDED = json.loads((Path(__file__).parent / "test_schema_recorded.json").read_text())


def typed(spec: Object) -> Object:
    return {
        "apiVersion": "example.com/v1",
        "kind": "Widget",
        "metadata": {"name": "obj0"},
        **copy.deepcopy(spec),
    }


def causes(errors: Any) -> list[list[str]]:
    found = [error.cause() for error in errors]
    return sorted([cause["field"], cause["reason"], cause["message"]] for cause in found)


def rows(group: str) -> list[Any]:
    return [
        pytest.param(case, row, id=f"{case['name']}-{at}")
        for case in RECORDED[group]
        for at, row in enumerate(case["rows"])
    ]


@pytest.mark.parametrize(("case", "row"), rows("created"))
def test_a_created_object_is_kept_warned_of_and_refused_as_kube_apiserver_does(
    case: Object, row: Object
) -> None:
    """Recorded from kube-apiserver 1.37.2: POST ?dryRun=All&fieldValidation=Warn under a CRD with this schema."""
    schema = compile_schema(case["schema"])
    obj = typed(row["object"])
    assert sorted(schema.prune(obj)) == sorted(row.get("unknown", []))
    schema.default(obj)
    assert causes(schema.validate(obj)) == row["causes"]
    if not row["causes"]:
        kept: Any = row.get("kept", row["object"])
        assert {**obj, **kept} == obj


@pytest.mark.parametrize(("case", "row"), rows("updated"))
def test_an_update_is_forgiven_what_it_left_as_it_was_as_kube_apiserver_does(
    case: Object, row: Object
) -> None:
    """Recorded from kube-apiserver 1.37.2: objects stored before their CRD's schema was tightened, then PUT."""
    schema = compile_schema(case["schema"])
    old, new = typed(case["old"]), typed(row["new"])
    for obj in (old, new):
        schema.prune(obj)
        schema.default(obj)
    assert causes(schema.validate(new, old)) == row["causes"]


STATUS = compile_schema(
    {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "status": {
                "type": "object",
                "required": ["phase"],
                "properties": {
                    "n": {"type": "integer"},
                    "phase": {"type": "string"},
                    "l": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                },
            }
        },
    }
)


@pytest.mark.parametrize(
    ("status", "wrong"),
    [
        ({}, ["status.phase: Required value"]),
        (
            {"n": "x", "phase": "p"},
            ['status.n: Invalid value: "string": n in body must be of type integer: "string"'],
        ),
        ({"l": ["a", "a"], "phase": "p"}, ['status.l[1]: Duplicate value: "a"']),
        ("x", ['status: Invalid value: "string":  in body must be of type object: "string"']),
        ({"phase": "p"}, []),
    ],
)
def test_a_write_of_the_status_answers_for_nothing_but_the_status(status: object, wrong: list[str]) -> None:
    assert list(map(str, STATUS.validate_status({"status": status}, {}))) == wrong


def test_metadata_of_the_object_itself_is_left_alone() -> None:
    schema = compile_schema(
        {"type": "object", "properties": {"metadata": {"type": "object", "properties": {}}}}
    )
    obj = typed({"metadata": {"name": "a", "labels": None, "strange": 1}})
    assert schema.prune(obj) == []
    schema.default(obj)
    assert obj["metadata"] == {"name": "a", "labels": None, "strange": 1}


def test_defaults_are_copied_into_each_object() -> None:
    schema = compile_schema(
        {"type": "object", "properties": {"spec": {"type": "object", "default": {"a": []}}}}
    )
    first, second = typed({}), typed({})
    schema.default(first)
    first["spec"]["a"].append(1)
    schema.default(second)
    assert second["spec"] == {"a": []}


def test_the_same_schema_is_compiled_once_whoever_asks() -> None:
    source = {"type": "object", "properties": {"spec": {"type": "string", "maxLength": 7}}}
    reordered = {"properties": {"spec": {"maxLength": 7, "type": "string"}}, "type": "object"}
    assert compile_schema(source) is compile_schema(reordered)
    assert compile_schema(source) is not compile_schema({**source, "title": "another"})


def test_a_compiled_schema_does_not_follow_changes_of_its_source() -> None:
    source: Object = {"type": "object", "properties": {"spec": {"type": "integer", "title": "mine"}}}
    schema = compile_schema(source)
    source["properties"]["spec"]["type"] = "string"
    assert schema.validate({"spec": "text"}) != []


def test_any_accepts_and_keeps_everything() -> None:
    obj = typed({"x": {"y": [None, 1, {"z": True}]}})
    before = copy.deepcopy(obj)
    assert ANY.prune(obj) == []
    ANY.default(obj)
    assert (ANY.validate(obj), obj) == ([], before)


def test_rules_are_noticed_wherever_they_stand() -> None:
    ruled = {"type": "string", "x-kubernetes-validations": [{"rule": "true"}]}
    assert compile_schema({"properties": {"a": {"items": ruled}}}).has_rules
    assert not compile_schema({"properties": {"a": {"items": {"type": "string"}}}}).has_rules


def test_unknown_fields_can_be_preserved_for_a_whole_kind() -> None:
    source = {"type": "object", "properties": {"spec": {"type": "object", "properties": {}}}}
    obj = typed({"more": 1})
    assert compile_schema(source, preserve_unknown=True).prune(obj) == []
    assert compile_schema(source).prune(obj) == ["more"]


# Published schemas of built-in kinds: references, some recursive, zero values for defaults.
DEFINITIONS: dict[str, Object] = {
    "Tree": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "default": ""},
            "port": {"type": "integer", "default": 80},
            "left": {"$ref": "#/components/schemas/Tree"},
            "right": {"allOf": [{"$ref": "#/components/schemas/Tree"}], "default": {}},
            "raw": {"type": "object"},
            "data": {"type": "string", "format": "byte"},
        },
    }
}


def tree() -> Any:
    return compile_schema({"$ref": "#/components/schemas/Tree"}, definitions=DEFINITIONS)


def test_a_built_in_kind_may_be_recursive() -> None:
    obj: Object = {"left": {"right": {"left": {"name": 1, "odd": 2}}}}
    assert tree().prune(obj) == ["left.right.left.odd"]
    assert list(map(str, tree().validate(obj))) == [
        'left.right.left.name: Invalid value: "integer": left.right.left.name in body must be of type string: "integer"'
    ]


def test_a_published_default_counts_only_if_it_says_something() -> None:
    obj: Object = {"left": {}}
    tree().default(obj)
    assert obj == {"left": {"port": 80}, "port": 80}


def test_a_built_in_map_without_properties_holds_anything_and_bytes_may_be_empty() -> None:
    obj: Object = {"raw": {"kind": {"of": ["thing"]}}, "data": ""}
    assert (tree().prune(obj), tree().validate(obj)) == ([], [])


def test_a_reference_to_nothing_is_an_error_of_the_schema() -> None:
    with pytest.raises(SchemaError, match="no definition Gone"):
        compile_schema({"$ref": "#/components/schemas/Gone"}, definitions=DEFINITIONS)


def test_a_schema_of_endless_depth_is_refused() -> None:
    source: Object = {"type": "object"}
    for _ in range(1000):
        source = {"type": "object", "properties": {"a": source}}
    with pytest.raises(SchemaError):
        compile_schema(source)


def test_an_object_deeper_than_the_interpreter_s_stack_is_refused_and_not_fatal() -> None:
    deep: Object = {"port": "wrong"}
    for _ in range(500):
        deep = {"left": deep}
    assert [error.detail for error in tree().validate(deep)] == ["nested too deeply to be validated"]


def test_a_hostile_object_gets_a_bounded_report() -> None:
    schema = compile_schema({"type": "object", "additionalProperties": {"type": "integer"}})
    assert 100 <= len(schema.validate({f"field{at}": "x" for at in range(50_000)})) <= 1000


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf", "allOf"])
def test_branches_that_multiply_with_items_are_cut_off(keyword: str) -> None:
    branches = [{"properties": {"a": {"pattern": f"^{at}$"}}, "required": ["a"]} for at in range(300)]
    items = {"type": "object", "properties": {"a": {"type": "string"}}, keyword: branches}
    schema = compile_schema({"type": "object", "properties": {"l": {"type": "array", "items": items}}})
    hostile = {"l": [{"a": "none of them"}] * 20_000}
    assert [error.detail for error in schema.validate(hostile)] == [
        "too costly to be validated by a schema with so many branches"
    ]
    assert schema.validate({"l": [{"a": "7"}] * 3} if keyword != "allOf" else {"l": []}) == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[a", "error parsing regexp: missing closing ]: `[a`"),
        ("(?=a)", "error parsing regexp: invalid or unsupported Perl syntax: `(?=`"),
        ("a{1001}", "error parsing regexp: invalid repeat count: `{1001}`"),
        ("(a)\\1", "error parsing regexp: invalid escape sequence: `\\1`"),
    ],
)
def test_a_pattern_beyond_re2_is_refused_in_go_s_words(pattern: str, text: str) -> None:
    with pytest.raises(PatternError) as caught:
        compile_pattern(pattern)
    assert str(caught.value) == text


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(.*)*x", r"^(\w+\s?)*$"])
def test_patterns_that_ruin_a_backtracking_engine_are_harmless(pattern: str) -> None:
    schema = compile_schema({"type": "string", "pattern": pattern})
    assert schema.validate("a" * 50_000 + "!")  # type: ignore[arg-type]


GOOD_AND_BAD = [
    (
        "uri",
        ["https://a:80/x?y=%zz", "/a", "mailto:a@b", "http://[::1]/"],
        ["a", "", "http://a b", "/%zz", ":a"],
    ),
    ("email", ["a@b", "A B <a@b.c>", '"q q"@b'], ["a", "a@", "<a@b", "a b@c"]),
    ("hostname", ["a", "a.example", "1a.de"], ["-a", "a_b", "a." + "b" * 64]),
    ("ipv4", ["1.2.3.4", "010.1.1.1", "::ffff:1.2.3.4"], ["1.2.3", "256.1.1.1", "::1", ""]),
    ("ipv6", ["::1", "fe80::1"], ["1.2.3.4", "::1%eth0", "g::"]),
    ("cidr", ["10.0.0.0/8", "::/0"], ["10.0.0.0/33", "10.0.0.0", "::/129", "/8"]),
    (
        "mac",
        ["01:23:45:67:89:ab", "0123.4567.89ab", "01-23-45-67-89-ab-cd-ef"],
        ["01:23", "01:23:45:67:89:zz"],
    ),
    ("date", ["2024-02-29", "0000-01-01"], ["2023-02-29", "2024-1-1", "2024-13-01", "x"]),
    (
        "datetime",
        ["2020-01-01T00:00:00Z", "2020-01-01t23:59:59.5+01:00"],
        ["2020-01-01", "2020-01-01T24:00:00Z", "2020-01-01T00:00:00"],
    ),
    ("duration", ["1h30m", "0", "-1.5s", "5 days", "22 ns", "1 week"], ["1", "x", "", "5 moons"]),
    ("byte", ["aGk=", "aGkh"], ["", "a", "aGk"]),
    ("creditcard", ["4111 1111 1111 1111"], ["4111 1111 1111 1112", "x"]),
    ("isbn", ["0321751043", "978-0321751041"], ["0321751044", "9780321751042"]),
    ("ssn", ["111-22-3333"], ["11122333", "111-22-33333"]),
    ("hexcolor", ["#fff", "FFFFFF"], ["#ff", "#ggg"]),
    ("rgbcolor", ["rgb(255, 0,1)"], ["rgb(256,0,0)"]),
    ("bsonobjectid", ["507f1f77bcf86cd799439011"], ["507f1f77bcf86cd79943901"]),
    ("uuid4", ["123e4567-e89b-42d3-a456-426614174000"], ["123e4567-e89b-12d3-a456-426614174000"]),
    ("k8sshortname", ["a-1"], ["A", "a.b", "a" * 64]),
    ("k8slongname", ["a.b-1"], ["a..b", "-a"]),
]


@pytest.mark.parametrize(("name", "good", "bad"), GOOD_AND_BAD)
def test_formats_accept_what_upstream_s_accept(name: str, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not FORMATS[name](text)] == []
    assert [text for text in bad if FORMATS[name](text)] == []


_SCALAR_SCHEMAS = st.sampled_from(
    [
        {"type": "string"},
        {"type": "string", "minLength": 2, "maxLength": 3},
        {"type": "string", "enum": ["a", "A", "bb"]},
        {"type": "string", "format": "date"},
        {"type": "string", "nullable": True, "pattern": "^a"},
        {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 65},
        {"type": "integer", "multipleOf": 3, "format": "int32"},
        {"type": "integer", "enum": [1, 65]},
        {"type": "number", "maximum": 1.5},
        {"type": "number"},
        {"type": "boolean", "nullable": True},
        {"x-kubernetes-int-or-string": True},
        {"x-kubernetes-preserve-unknown-fields": True},
        {"minimum": 0},
        {"enum": ["a", 1, None]},
    ]
)


def _bigger(inner: st.SearchStrategy[Object]) -> st.SearchStrategy[Object]:
    names = st.sampled_from(["a", "b", "c"])
    branch = st.sampled_from(["allOf", "anyOf", "oneOf"])
    return st.one_of(
        st.builds(
            lambda properties, needed: {"type": "object", "properties": properties, "required": needed},
            st.dictionaries(names, inner, max_size=3),
            st.lists(names, max_size=1),
        ),
        st.builds(lambda items, most: {"type": "array", "items": items, "maxItems": most}, inner, st.just(2)),
        st.builds(lambda below: {"type": "object", "additionalProperties": below, "minProperties": 1}, inner),
        st.builds(
            lambda base, key, one, two: {**base, key: [one, two]},
            inner,
            branch,
            inner,
            st.sampled_from([{"required": ["a"]}, {"not": {"required": ["b"]}}]),
        ),
        st.builds(lambda below: {"not": below}, inner),
    )


_SCHEMAS = st.recursive(_SCALAR_SCHEMAS, _bigger, max_leaves=6)
_VALUES = st.recursive(
    st.sampled_from([None, True, 0, 1, 3, 65, 66, 1.0, 1.5, 3e9, 2**70, "", "a", "A", "aa", "2020-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=400, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_the_fast_check_never_passes_what_the_thorough_one_refuses(schema: Object, value: object) -> None:
    node = Node(schema)
    check = compile_check(node)
    if check is None or check(value):
        assert explain(node, value) == []


@settings(max_examples=400, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_what_fits_a_built_in_kind_is_neither_refused_nor_changed(schema: Object, value: object) -> None:
    compiled = compile_schema({"type": "object", "properties": {"spec": schema}}, definitions=DEFINITIONS)
    obj = {"spec": value}
    if compiled.fits(obj):
        compiled.settle_nulls(obj)
        assert (compiled.mismatch(obj, "Thing"), compiled.prune(obj), obj) == (None, [], {"spec": value})


@pytest.mark.parametrize(
    ("obj", "fits"),
    [
        ({"name": "a", "left": {"right": {"port": 1}}, "data": "", "metadata": {"odd": None}}, True),
        ({"left": {"right": {"port": "1"}}}, False),
        ({"left": {"name": None}}, False),
        ({"left": {"odd": 1}}, False),
    ],
)
def test_a_built_in_object_of_right_types_without_nulls_and_strangers_fits(obj: Object, fits: bool) -> None:
    assert tree().fits(obj) is fits


@settings(max_examples=200, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_pruning_and_defaulting_twice_changes_nothing_more(schema: Object, value: object) -> None:
    compiled = compile_schema({"type": "object", "properties": {"spec": schema}})
    obj = typed({"spec": value})
    compiled.prune(obj)
    compiled.default(obj)
    before = copy.deepcopy(obj)
    assert compiled.prune(obj) == []
    compiled.default(obj)
    assert obj == before


@settings(max_examples=200, deadline=None)
@given(_SCHEMAS, _VALUES)
def test_an_update_that_changes_nothing_of_a_typed_field_is_never_refused(
    schema: Object, value: object
) -> None:
    compiled = compile_schema({"type": "object", "properties": {"spec": {**schema, "nullable": True}}})
    obj = {"spec": value}
    compiled.prune(obj)
    # A field without a schema has no counterpart, so what holds it counts as changed (upstream too).
    assume(not isinstance(value, dict))
    assert compiled.validate(obj, copy.deepcopy(obj)) == []
