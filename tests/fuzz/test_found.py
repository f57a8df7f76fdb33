"""What fuzzing and thinking like an attacker have found: each input once ended in a 500, a hang, or memory without bound."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import orjson
import pytest

from clusterling.machinery import codec, jsonpath, strictjson, table
from clusterling.machinery.apply import fieldset, managed
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.types import MapType
from clusterling.machinery.codec import Expected
from clusterling.machinery.errors import (
    INVALID_CHARACTERS_MAX,
    PATH_CHARACTERS_MAX,
    SHOWN_CHARACTERS_MAX,
    ApiError,
    invalid,
    invalid_value,
    path_below,
)
from clusterling.machinery.fieldorder import order_of, place_of
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.objectmeta import validate_object_meta
from clusterling.machinery.protobuf import NESTED_LEVELS
from clusterling.machinery.schema import compile_schema
from clusterling.machinery.schema.explaining import explain
from clusterling.machinery.schema.node import Node
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.structural import drop_unreadable, validate_schema
from clusterling.machinery.timestamps import normal_rfc3339
from clusterling.machinery.yaml import TAG_DIRECTIVES_MAX
from clusterling.packs import builtin
from clusterling.registry.crd import CustomResourceStrategy, resource_of
from clusterling.services.parameters import version_problem
from tests.machinery.test_protobuf import body, field

CODEC = builtin.protobuf_codec()
HEAD = b"apiVersion: v1\nkind: ConfigMap\n"


def refused(read: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read()
    assert 400 <= caught.value.code < 500
    return caught.value


# --------------------------------------------------------------------------- YAML


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be"])
def test_yaml_of_many_tag_directives_is_refused_before_libyaml_compares_each_with_all_others(
    encoding: str,
) -> None:
    """A megabyte of them held the process for twenty seconds."""
    text = "".join(f"%TAG !{at}! a\n" for at in range(TAG_DIRECTIVES_MAX + 1)) + "---\nkind: A\n"
    marked = text if encoding == "utf-8" else f"\ufeff{text}"
    assert "tag directives" in refused(lambda: codec.decode_yaml(marked.encode(encoding))).message


def test_a_yaml_tag_whose_escapes_are_no_utf_8_is_refused() -> None:
    assert "tag" in refused(lambda: codec.decode_yaml(b"a: !%ed%a0%80 b\n")).message


def test_yaml_that_nests_by_aliases_is_as_deep_as_what_they_stand_for() -> None:
    """Twice 150 levels could be read, and not be written."""
    deep = b"a: &a %b%b\nb: %b*a%b\n" % (b"[" * 150, b"]" * 150, b"[" * 150, b"]" * 150)
    assert "nested deeper" in refused(lambda: codec.decode_yaml(HEAD + deep)).message
    shallow = b"a: &a %b%b\nb: %b*a%b\n" % (b"[" * 100, b"]" * 100, b"[" * 90, b"]" * 90)
    obj, _ = codec.decode_yaml(HEAD + shallow)
    assert orjson.loads(orjson.dumps(obj)) == obj


def test_a_long_text_that_aliases_repeat_counts_as_often_as_it_is_used() -> None:
    """Twenty kilobytes of text and thirty of aliases became 100 MB when they were written as JSON."""
    text = HEAD + b"a: &a " + b"x" * 20_000 + b"\nb: [" + b",".join([b"*a"] * 5_000) + b"]\n"
    assert "aliasing" in refused(lambda: codec.decode_yaml(text)).message
    few, _ = codec.decode_yaml(HEAD + b"a: &a " + b"x" * 20_000 + b"\nb: [*a, *a]\n")
    assert few["b"] == [few["a"], few["a"]]


def test_a_long_key_that_aliases_give_again_and_again_is_not_told_of_each_time() -> None:
    text = HEAD + b"? &a " + b"x" * 20_000 + b"\n: 1\n" + b"*a : 1\n" * 5_000
    assert "aliasing" in refused(lambda: codec.decode_yaml(text)).message


# --------------------------------------------------------------------------- protobuf


def test_protobuf_objects_within_objects_end_before_their_copies_fill_the_memory() -> None:
    """Each level holds the rest of the body once more: a hundred levels of three megabytes were 600 MB."""
    inner = body("v1", "ConfigMap", field(2, field(1, "a") + field(2, "b")))
    fine = body("v1", "List", field(2, field(1, inner)))
    assert CODEC.decode(fine)["items"][0]["data"] == {"a": "b"}
    for _ in range(100 // NESTED_LEVELS + 1):
        inner = body("v1", "List", field(2, field(1, inner)))
    assert "nested deeper" in refused(lambda: CODEC.decode(inner, Expected("v1", "List"))).message


def _crd_with(schema: bytes) -> bytes:
    version = field(1, "v1") + field(4, field(1, schema))
    return body("apiextensions.k8s.io/v1", "CustomResourceDefinition", field(2, field(7, version)))


def test_json_within_protobuf_is_no_deeper_than_both_together_may_be() -> None:
    """Eighty schemas with a default of 190 levels in the last could be read, and not be written."""
    schema = field(8, field(1, b"[" * 190 + b"]" * 190))
    for _ in range(80):
        schema = field(29, field(1, "a") + field(2, schema))
    assert "nested deeper" in refused(lambda: CODEC.decode(_crd_with(schema))).message


@pytest.mark.parametrize("number", [30, 32], ids=["a schema or a boolean", "dependencies"])
def test_every_protobuf_field_counts_in_whatever_message_it_is(number: int) -> None:
    many = field(2, b"") * 600_000
    schema = field(number, many if number == 30 else field(1, "a") + field(2, many))
    assert refused(lambda: CODEC.decode(_crd_with(schema))).code == 413


# --------------------------------------------------------------------------- paths of columns


@pytest.mark.parametrize("path", [r'"\ud800"', r'"\UFFFFFFFF"', "1" * 400])
def test_a_columns_path_holds_no_text_or_number_that_could_not_be_written(path: str) -> None:
    """Half a surrogate pair, and a number beyond all floats, made every list of the kind a 500."""
    with pytest.raises(ValueError, match=r"invalid syntax|cannot parse number"):
        jsonpath.compile_path(path)


def test_a_columns_path_may_spell_any_character() -> None:
    column = table.column_from_jsonpath("a", "string", r'"\u00e9\U0001f600"')
    assert table.cells([column], {}, datetime.now(UTC)) == ["é😀"]


# --------------------------------------------------------------------------- field sets, selectors


@pytest.mark.parametrize("step", ["v:%s", 'k:{"a":%s}'])
def test_a_step_of_a_field_set_that_is_too_deep_to_be_written_is_no_field_set(step: str) -> None:
    with pytest.raises(fieldset.FieldSetError):
        fieldset.parse({step % ("[" * 300 + "]" * 300): {}})


def test_the_bound_of_a_selector_may_have_any_number_of_zeros_in_front_as_far_as_it_is_a_value() -> None:
    with pytest.raises(ValueError, match="must be no more than 63 bytes"):
        LabelSelector.parse("a>" + "0" * 5_000)
    assert LabelSelector.parse("a>" + "0" * 60 + "12").matches({"a": "13"})


def test_a_selector_with_many_values_finds_one_among_them() -> None:
    values = [f"v{at}" for at in range(5_000)]
    chosen = LabelSelector.parse(f"a in ({','.join(values)})")
    assert [one for one in (*values, "v5000", "u", "w", "") if not chosen.matches({"a": one})] == [
        "v5000",
        "u",
        "w",
        "",
    ]
    assert not chosen.matches({})
    spared = LabelSelector.parse(f"a notin ({','.join(values)})")
    assert spared.matches({"a": "w"})
    assert spared.matches({})
    assert not spared.matches({"a": "v4999"})


# --------------------------------------------------------------------------- server-side apply


class _Kind:
    """One kind, of one version."""

    settled = certain = False

    def __init__(self, schema: Object) -> None:
        self._type = object_type(compile_schema(schema).node)

    def type(self, api_version: str) -> MapType | None:
        return self._type if api_version == "v1" else None

    def convert(self, obj: Object, api_version: str) -> Object:
        return obj

    def kept(self, fields: fieldset.FieldSet, api_version: str) -> fieldset.FieldSet:
        return fields


def _applied_as(manager: str, schema: Object, live: Object, applied: Object) -> Object:
    head: Object = {"apiVersion": "v1", "kind": "A"}
    return managed.apply(
        _Kind(schema),
        {**head, **live},
        {**head, "metadata": {}, **applied},
        managed.Writer(manager, "v1"),
        "2026-01-01T00:00:00Z",
        empty=head,
        force=False,
    )


def test_what_is_applied_to_an_object_that_is_none_of_its_type_any_more_is_refused_in_words() -> None:
    """A list that became one of maps by key, in an object that nobody owns: its items have no keys."""
    items: Object = {"type": "object", "properties": {"name": {"type": "string"}}}
    keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": items, **keyed}}}
    with pytest.raises(ApiError, match="null element") as caught:
        _applied_as("me", schema, {"metadata": {}, "a": [None]}, {"a": [{"name": "x"}]})
    assert (caught.value.code, caught.value.reason) == (500, "")


@pytest.mark.parametrize("depth", [250, 500, 1_000])
def test_a_last_applied_annotation_that_is_nested_too_deeply_is_not_looked_at(depth: int) -> None:
    """`kubectl apply --server-side` over such an object, with a conflict, ended in a recursion error."""
    last = '{"apiVersion":"v1","kind":"A","a":' + "[" * depth + "]" * depth + "}"
    entry = {"manager": "b", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    live = {
        "metadata": {
            "annotations": {managed.LAST_APPLIED: last},
            "managedFields": [{**entry, "fieldsV1": {"f:a": {}}}],
        },
        "a": "1",
    }
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    with pytest.raises(ApiError) as caught:
        _applied_as("kubectl", schema, live, {"a": "2"})
    assert caught.value.code == 409


# --------------------------------------------------------------------------- parameters, duplicates


@pytest.mark.parametrize("digits", [65, 5_000, 30_000])
def test_a_resource_version_of_thousands_of_digits_is_out_of_range(digits: int) -> None:
    assert "value out of range" in version_problem("1" * digits)
    assert version_problem("0" * 40 + "7") == ""


def test_the_paths_of_fields_given_twice_fill_no_memory() -> None:
    """A hundred paths below a key of a megabyte were 100 MB."""
    fields = b",".join(b'"%d":1,"%d":1' % (at, at) for at in range(1_000))
    _, told = codec.parse_json(b'{"%b":{%b}}' % (b"x" * 1_000_000, fields))
    assert 1 <= len(told) < 5
    _, short = codec.parse_json(b'{"x":{%b}}' % fields)
    assert len(short) == strictjson.DUPLICATES_MAX


# --------------------------------------------------------------------------- unknown fields


def _sorted_by_place(count: int) -> list[str]:
    order = order_of({f"k.{at}": {"[0]": 1} for at in range(count)})
    return sorted((f"k.{at}" for at in reversed(range(count))), key=lambda path: place_of(path, order))


def test_of_many_unknown_fields_each_is_looked_up_not_looked_for() -> None:
    """Four thousand of them, in forty kilobytes, held the process for six seconds, ten times as many for ten minutes."""
    assert _sorted_by_place(15_000) == [f"k.{at}" for at in range(15_000)]


@pytest.mark.parametrize(
    "path", ["a[" + "1" * 5_000 + "]", "a[x]", "a[0]b", ".", "", "[", "a" + ".b" * 100_000]
)
def test_a_path_that_leads_nowhere_has_a_place(path: str) -> None:
    order = order_of({"a": [1, 2], "b.c": {"d": 1}})
    assert place_of(path, order)[:1] in ((0,), ())
    assert place_of("b.c.d", order) == (1, 0)


def test_the_paths_of_unknown_fields_fill_no_memory() -> None:
    """A thousand fields below a key of a megabyte were a gigabyte."""
    schema = {"type": "object", "additionalProperties": {"type": "object", "properties": {"b": {}}}}
    obj = {"x" * 1_000_000: {f"u{at}": 1 for at in range(1_000)}}
    told = compile_schema({"type": "object", "properties": {"a": schema}}).prune({"a": obj})
    assert 1 <= len(told) < 5
    assert obj["x" * 1_000_000] == {}


@pytest.mark.parametrize("text", ["0001-01-01T0:00:00Z", "0001-01-01T01:00:00+01:00"])
def test_every_way_to_write_gos_zero_time_is_none(text: str) -> None:
    assert normal_rfc3339(text) == ""


# --------------------------------------------------------------------------- the paths of fields


def test_a_path_grows_until_it_is_too_long_to_be_told() -> None:
    """Each of a million items below a key of a megabyte had its path made anew: hours, for one object."""
    assert path_below("spec.a", "[3]") == "spec.a[3]"
    cut = path_below("spec", "." + "x" * 5_000)
    assert len(cut) == PATH_CHARACTERS_MAX + 3
    assert path_below(path_below(cut, "[0]"), ".b") == cut


def test_of_many_errors_below_a_long_key_a_thousand_are_told_with_the_beginning_of_their_path() -> None:
    below = {"type": "array", "items": {"type": "string"}}
    schema = {"type": "object", "additionalProperties": {"type": "object", "additionalProperties": below}}
    obj = {"a": {"x" * 1_000_000: {str(at): [1] for at in range(5_000)}}}
    errors = compile_schema({"type": "object", "properties": {"a": schema}}).validate(obj)
    assert 1 <= len(errors) <= 1_000
    assert all(len(error.field) <= PATH_CHARACTERS_MAX + 3 for error in errors)


def test_metadata_of_embedded_objects_is_pruned_in_all_of_them_and_told_of_in_a_thousand() -> None:
    embedded = {
        "type": "object",
        "x-kubernetes-embedded-resource": True,
        "x-kubernetes-preserve-unknown-fields": True,
    }
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": embedded}}}
    obj = {"a": [{"apiVersion": "v1", "kind": "A", "metadata": {"u": 1}} for _ in range(3_000)]}
    assert len(compile_schema(schema).prune(obj)) == 1_000
    assert all(one["metadata"] == {} for one in obj["a"])


# --------------------------------------------------------------------------- errors that quote


def test_of_many_controllers_a_few_are_told() -> None:
    """Each was told with all references: two thousand of them took ten seconds, twenty thousand a quarter of an hour."""
    references = [
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": str(at), "controller": True}
        for at in range(10_000)
    ]
    metadata = {"name": "a", "ownerReferences": references}
    errors = validate_object_meta(metadata, namespaced=False, name_problems=is_dns1123_subdomain)
    assert 1 <= len(errors) <= 16


def test_errors_that_quote_much_are_told_until_there_is_a_megabyte() -> None:
    errors = [invalid_value(f"spec.a[{at}]", "x" * 10_000, "is wrong") for at in range(1_000)]
    told = invalid("A", "", "a", errors)
    assert told.details is not None
    assert 50 < len(told.details["causes"]) < 200
    assert len(told.message) < 2 * INVALID_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("accepted", "fitting", "strange"),
    [
        (["a", "b"], ["a", 97], ["c", 1, True, None, 99]),
        ([1, 2.5], [1, 1.0, 2.5, 1.9], [2, "1", True, None, 3.5]),
        ([True], [True], [1, "true", False]),
        ([{"a": 1}, [1]], [{"a": 1}, [1]], [{"a": 2}, [2], {}, []]),
    ],
)
def test_an_enumeration_has_what_equals_one_of_its_values_in_gos_types(
    accepted: list[object], fitting: list[object], strange: list[object]
) -> None:
    """Values are looked up: held against each of ten thousand, a hundred thousand items took minutes."""
    node = Node({"enum": accepted})
    assert [value for value in fitting if explain(node, value)] == []
    assert [value for value in strange if not explain(node, value)] == []
    assert explain(Node({"enum": [None]}), None)


def test_a_long_enumeration_is_told_as_far_as_it_fits() -> None:
    [error] = explain(Node({"enum": ["v" * at for at in range(2_000)]}), "x")
    assert len(str(error)) < 3 * SHOWN_CHARACTERS_MAX
    assert str(error).endswith('"..."')


def test_who_uses_a_deprecated_version_is_pointed_to_the_foremost_that_is_not() -> None:
    def version(name: str, **more: object) -> Object:
        return {"name": name, "served": True, "storage": name == "v1", **more}

    versions = [
        version("v1alpha1", deprecated=True),
        version("v1"),
        version("v2"),
        version("v3", deprecated=True),
    ]
    names = {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"}
    crd = {
        "metadata": {"name": "as.x"},
        "spec": {"group": "x", "scope": "Cluster", "names": names, "versions": versions},
    }
    kind = resource_of(crd, schema_revision=1, guard_key="", strategy=CustomResourceStrategy())
    assert [one.deprecation_warning for one in kind.versions] == [
        "x/v1alpha1 A is deprecated; use x/v2 A", "", "", "x/v3 A is deprecated",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "items",
    [{"properties": True}, {"type": 5}, {"required": 7}, {"allOf": "x"}, {"not": []}, {"dependencies": [1]}],
)
def test_a_schema_of_items_whose_keywords_are_of_wrong_types_is_refused(items: Object) -> None:
    """What stands below `items` no type check had seen: such a definition was a 500."""
    schema = {"type": "object", "properties": {"a": {"type": "array", "items": items}}}
    drop_unreadable(schema)
    assert validate_schema(schema, "spec")
