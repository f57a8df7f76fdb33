"""ObjectMeta: decoded and validated as kube-apiserver 1.37.2 does (its answers were recorded)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.names import is_dns1123_subdomain, is_path_segment_name
from clusterling.machinery.objectmeta import (
    coerce_object_meta,
    validate_field_manager,
    validate_object_meta,
    validate_object_meta_update,
)


def errors_of(meta: dict[str, Any], **options: Any) -> list[str]:
    found = validate_object_meta(meta, namespaced=True, name_problems=is_dns1123_subdomain, **options)
    return [str(error) for error in found]


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        (
            {"labels": {"a": 1}},
            "cannot unmarshal number into Go struct field ObjectMeta.labels of type string",
        ),
        (
            {"labels": {"a": []}},
            "cannot unmarshal array into Go struct field ObjectMeta.labels of type string",
        ),
        (
            {"labels": {"a": True}},
            "cannot unmarshal bool into Go struct field ObjectMeta.labels of type string",
        ),
        (
            {"labels": "x"},
            "cannot unmarshal string into Go struct field ObjectMeta.labels of type map[string]string",
        ),
        ({"name": 5}, "cannot unmarshal number into Go struct field ObjectMeta.name of type string"),
        ({"uid": 5}, "cannot unmarshal number into Go struct field ObjectMeta.uid of type types.UID"),
        (
            {"finalizers": "x"},
            "cannot unmarshal string into Go struct field ObjectMeta.finalizers of type []string",
        ),
        (
            {"finalizers": [1]},
            "cannot unmarshal number into Go struct field ObjectMeta.finalizers of type string",
        ),
        (
            {"generation": "x"},
            "cannot unmarshal string into Go struct field ObjectMeta.generation of type int64",
        ),
        (
            {"generation": 1.5},
            "cannot unmarshal number 1.5 into Go struct field ObjectMeta.generation of type int64",
        ),
        (
            {"ownerReferences": {}},
            "cannot unmarshal object into Go struct field ObjectMeta.ownerReferences of type []v1.OwnerReference",
        ),
        (
            {"ownerReferences": [1]},
            "cannot unmarshal number into Go struct field ObjectMeta.ownerReferences of type v1.OwnerReference",
        ),
        (
            {"ownerReferences": [{"controller": "x"}]},
            "cannot unmarshal string into Go struct field OwnerReference.ownerReferences.controller of type bool",
        ),
        (
            {"managedFields": [{"time": 5}]},
            "cannot unmarshal number into Go struct field ManagedFieldsEntry.managedFields.time of type string",
        ),
        (
            {"creationTimestamp": 5},
            "cannot unmarshal number into Go struct field ObjectMeta.creationTimestamp of type",
        ),
        ("x", "cannot unmarshal string into Go value of type v1.ObjectMeta"),
        ([], "cannot unmarshal array into Go value of type v1.ObjectMeta"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused_in_the_words_of_gos_decoder(meta: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^json: ") as caught:
        coerce_object_meta(meta)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"labels": {"a": 1}}, "number into Go struct field ObjectMeta.metadata.labels of type string"),
        (
            {"ownerReferences": [{"name": 1}]},
            "number into Go struct field OwnerReference.metadata.ownerReferences.name of type string",
        ),
        ("x", "string into Go struct field ConfigMap.metadata of type v1.ObjectMeta"),
    ],
)
def test_a_builtins_refusal_gives_the_path_from_the_object(meta: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r"^json: ") as caught:
        coerce_object_meta(meta, kind="ConfigMap")
    assert str(caught.value) == f"json: cannot unmarshal {text}"


@pytest.mark.parametrize(
    ("time", "text"),
    [
        ("x", 'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"'),
        ("2020-01-01", 'parsing time "2020-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"'),
        ("2020-13-01T00:00:00Z", 'parsing time "2020-13-01T00:00:00Z": month out of range'),
        ("2020-02-30T00:00:00Z", 'parsing time "2020-02-30T00:00:00Z": day out of range'),
        ("2020-01-01T00:00:00Zx", 'parsing time "2020-01-01T00:00:00Zx": extra text: "x"'),
    ],
)
def test_a_time_that_is_none_is_refused_in_gos_words(time: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"^parsing time") as caught:
        coerce_object_meta({"creationTimestamp": time})
    assert str(caught.value) == text


def test_unknown_fields_are_dropped_and_told() -> None:
    given = {"name": "a", "foo": 1, "Labels": {}, "ownerReferences": [{"uid": "u", "bar": 1}]}
    meta, unknown = coerce_object_meta(given)
    assert unknown == ["metadata.foo", "metadata.Labels", "metadata.ownerReferences[0].bar"]
    assert meta == {"name": "a", "ownerReferences": [{"uid": "u", "apiVersion": "", "kind": "", "name": ""}]}


def test_what_is_empty_is_left_out_and_a_null_label_is_the_empty_string() -> None:
    meta, unknown = coerce_object_meta(
        {
            "name": "a",
            "generateName": "",
            "labels": {"a": None, "b": "c"},
            "annotations": {},
            "finalizers": [],
            "ownerReferences": None,
            "creationTimestamp": None,
            "generation": 0,
            "deletionGracePeriodSeconds": 0,
            "managedFields": [],
        }
    )
    assert unknown == []
    assert meta == {"name": "a", "labels": {"a": "", "b": "c"}, "deletionGracePeriodSeconds": 0}


def test_times_become_utc_and_whole_seconds() -> None:
    meta, _ = coerce_object_meta(
        {
            "creationTimestamp": "2020-01-01T00:00:00+02:00",
            "deletionTimestamp": "2020-01-01T00:00:00.999999999Z",
            "managedFields": [{"time": "2020-01-01T00:00:00-00:30", "fieldsV1": {"f:a": {}}}],
        }
    )
    assert meta == {
        "creationTimestamp": "2019-12-31T22:00:00Z",
        "deletionTimestamp": "2020-01-01T00:00:00Z",
        "managedFields": [{"time": "2020-01-01T00:30:00Z", "fieldsV1": {"f:a": {}}}],
    }


def test_coercing_changes_nothing_that_was_given_and_is_settled_after_once() -> None:
    given = {"name": "a", "labels": {"a": None}, "finalizers": ["x/y", None], "x": 1}
    before = repr(given)
    meta, _ = coerce_object_meta(given)
    assert repr(given) == before
    assert coerce_object_meta(meta) == (meta, [])


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({}, "metadata.name: Required value: name or generateName is required"),
        (
            {"name": "a", "namespace": "A"},
            'metadata.namespace: Invalid value: "A": a lowercase RFC 1123 label must',
        ),
        (
            {"name": "a", "generation": -1},
            "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            {"name": "a", "labels": {"-": ""}},
            'metadata.labels: Invalid value: "-": name part must consist of',
        ),
        ({"name": "a", "labels": {"a": "_"}}, 'metadata.labels: Invalid value: "_": a valid label must be'),
        (
            {"name": "a", "annotations": {"x/y/z": ""}},
            'metadata.annotations: Invalid value: "x/y/z": a valid label',
        ),
        (
            {"name": "a", "annotations": {"a": "x" * 262144}},
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (
            {"name": "a", "finalizers": ["orphan", "foregroundDeletion"]},
            'metadata.finalizers: Invalid value: ["orphan","foregroundDeletion"]: '
            "finalizer orphan and foregroundDeletion cannot be both set",
        ),
        (
            {
                "name": "a",
                "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "a", "uid": "u"}],
            },
            'metadata.ownerReferences[0]: Invalid value: {"apiVersion":"v1","kind":"Event","name":"a","uid":"u"}: '
            "/v1, Kind=Event is disallowed from being an owner",
        ),
        (
            {"name": "a", "ownerReferences": [{"apiVersion": "a/b/c", "kind": "K", "name": "n", "uid": "u"}]},
            'metadata.ownerReferences[0].apiVersion: Invalid value: "a/b/c": must be <group>/<version> or <version>',
        ),
        (
            {
                "name": "a",
                "ownerReferences": [
                    {"uid": "u", "apiVersion": "v1", "kind": "E", "name": "x", "controller": True},
                    {"apiVersion": "v1", "kind": "F", "name": "a", "uid": "u", "controller": True},
                ],
            },
            "metadata.ownerReferences: Invalid value: "
            '[{"apiVersion":"v1","kind":"E","name":"x","uid":"u","controller":true},'
            '{"apiVersion":"v1","kind":"F","name":"a","uid":"u","controller":true}]: '
            'Only one reference can have Controller set to true. Found "true" in references for E/x and F/a',
        ),
        (
            {"name": "a", "managedFields": [{"manager": "a\1", "operation": "Update"}]},
            'metadata.managedFields[0].manager: Invalid value: "a\\x01": invalid character U+0001 (at position 1)',
        ),
        (
            {"name": "a", "managedFields": [{"operation": "Foo"}]},
            'metadata.managedFields[0].operation: Unsupported value: "Foo": supported values: "Apply", "Update"',
        ),
        (
            {"name": "a", "managedFields": [{"operation": "Apply", "fieldsType": "X"}]},
            'metadata.managedFields[0].fieldsType: Invalid value: "X": must be `FieldsV1`',
        ),
        (
            {"name": "a", "managedFields": [{"operation": "Apply", "subresource": "s" * 257}]},
            "metadata.managedFields[0].subresource: Too long: may not be more than 256 bytes",
        ),
    ],
)
def test_wrong_metadata_is_refused_in_upstreams_words(meta: dict[str, Any], text: str) -> None:
    found = errors_of({"namespace": "default", **meta})
    assert len(found) == 1
    assert found[0].startswith(text)


def test_each_missing_part_of_an_owner_reference_is_told() -> None:
    meta, _ = coerce_object_meta({"name": "a", "namespace": "b", "ownerReferences": [None]})
    assert errors_of(meta) == [
        f"metadata.ownerReferences[0].{field}: Required value: must not be empty"
        for field in ("apiVersion", "kind", "name", "uid")
    ]


def test_a_namespace_is_required_exactly_where_the_kind_has_one() -> None:
    assert errors_of({"name": "a"}) == ["metadata.namespace: Required value"]
    found = validate_object_meta(
        {"name": "a", "namespace": "b"}, namespaced=False, name_problems=is_dns1123_subdomain
    )
    assert [str(error) for error in found] == ["metadata.namespace: Forbidden: not allowed on this type"]


def test_a_generate_name_may_end_in_a_dash() -> None:
    assert errors_of({"generateName": "web-", "name": "web-x", "namespace": "a"}) == []
    found = errors_of({"generateName": "_b", "name": "a", "namespace": "a"})
    assert len(found) == 1
    assert found[0].startswith('metadata.generateName: Invalid value: "_b": a lowercase RFC 1123 subdomain')


def test_a_generate_name_of_path_segments_is_judged_as_a_beginning() -> None:
    meta = {"generateName": ".", "name": ".x"}
    assert validate_object_meta(meta, namespaced=False, name_problems=is_path_segment_name) == []


def test_finalizers_of_builtins_need_a_domain_unless_they_are_upstreams() -> None:
    meta = {"name": "a", "namespace": "b", "finalizers": ["orphan", "x.y/z", "x"]}
    assert errors_of(meta) == []
    text = 'metadata.finalizers[2]: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified'
    assert errors_of(meta, builtin=True) == [text]
    update = validate_object_meta_update({**meta, "resourceVersion": "1"}, meta, builtin=True)
    assert [str(error) for error in update] == [text]


def test_an_update_without_changes_is_right() -> None:
    meta = {
        "name": "a",
        "namespace": "b",
        "uid": "u",
        "resourceVersion": "1",
        "labels": {"a": "b"},
        "generation": 2,
    }
    assert validate_object_meta_update(meta, meta) == []


OLD = {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1", "generation": 2}


@pytest.mark.parametrize(
    ("old", "new", "texts"),
    [
        (
            {},
            {"resourceVersion": ""},
            ['metadata.resourceVersion: Invalid value: "": must be specified for an update'],
        ),
        ({}, {"name": "c"}, ['metadata.name: Invalid value: "c": field is immutable']),
        ({}, {"namespace": ""}, ['metadata.namespace: Invalid value: "": field is immutable']),
        ({}, {"uid": "v"}, ['metadata.uid: Invalid value: "v": field is immutable']),
        (
            {},
            {"deletionTimestamp": "2020-01-01T00:00:00Z", "deletionGracePeriodSeconds": 5},
            [
                'metadata.deletionTimestamp: Invalid value: "2020-01-01T00:00:00Z": field is immutable',
                "metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable",
            ],
        ),
        ({}, {"generation": 1}, ["metadata.generation: Invalid value: 1: must not be decremented"]),
        ({}, {"finalizers": ["a/b"]}, []),
        (
            {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a.b/c", "d/e"]},
            {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a.b/c", "x.y/z", "x.y/a"]},
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
                'found new finalizers []string{"x.y/a", "x.y/z"}'
            ],
        ),
        (
            {"deletionTimestamp": "2020-01-01T00:00:00Z", "finalizers": ["a.b/c"]},
            {"deletionTimestamp": "2020-01-01T00:00:00Z"},
            [],
        ),
    ],
)
def test_an_update_may_not_change_what_is_fixed(
    old: dict[str, Any], new: dict[str, Any], texts: list[str]
) -> None:
    found = validate_object_meta_update({**OLD, **new}, {**OLD, **old})
    assert [str(error) for error in found] == texts


def test_a_field_manager_is_short_and_printable() -> None:
    assert validate_field_manager("kubectl-client-side-apply é 世") == []
    assert [str(error) for error in validate_field_manager("x" * 129)] == [
        "fieldManager: Too long: may not be more than 128 bytes"
    ]
    found = validate_field_manager("é\n")
    assert len(found) == 1
    assert str(found[0]).endswith("invalid character U+000A (at position 2)")


KEYS = st.sampled_from(
    [
        "name",
        "namespace",
        "generateName",
        "uid",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "resourceVersion",
        "selfLink",
        "kind",
        "time",
        "manager",
        "x",
    ]
)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just("2020-01-01T00:00:00Z"),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(KEYS, children, max_size=4),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON, max_size=6), st.sampled_from(["", "ConfigMap"]))
def test_whatever_is_sent_is_refused_as_a_value_error_or_can_be_validated(
    given: dict[str, Any], kind: str
) -> None:
    try:
        meta, _ = coerce_object_meta(given, kind=kind)
    except ValueError:
        return
    assert coerce_object_meta(meta, kind=kind) == (meta, [])
    assert isinstance(errors_of(meta), list)
    assert isinstance(validate_object_meta_update(meta, {}), list)
