"""JSON Patch and merge patch: as evanphx/json-patch v4 behind kube-apiserver 1.37.2 (its answers were recorded)."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.errors import ApiError
from clusterling.machinery.patch import (
    COPIED_BYTES_MAX,
    NESTING_MAX,
    OPERATIONS_MAX,
    json_patch,
    json_patch_unknown_fields,
    merge_patch,
    nesting,
)

REJECTED = "the server rejected our request due to an error in our request"


@pytest.mark.parametrize(
    ("doc", "operations", "result"),
    [
        ({}, [], {}),
        ({}, None, {}),
        ({}, [{"op": "add", "path": "/a", "value": 1}], {"a": 1}),
        ({"a": 1}, [{"op": "add", "path": "/a", "value": 2}], {"a": 2}),
        ({}, [{"op": "add", "path": "/a"}], {"a": None}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-1", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({"a": {"b": 1}}, [{"op": "remove", "path": "/a/b"}], {"a": {}}),
        ({"a/b": {"c~d": 1}}, [{"op": "replace", "path": "/a~1b/c~0d", "value": 2}], {"a/b": {"c~d": 2}}),
        ({"~1": 1}, [{"op": "remove", "path": "/~01"}], {}),
        ({"a": 1}, [{"op": "replace", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/-1", "value": 3}], {"a": [1, 3]}),
        ({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": [1, 2]}, [{"op": "move", "from": "/a/0", "path": "/a/1"}], {"a": [2, 1]}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}], {"a": {"b": 1}, "c": {"b": 1}}),
        ({}, [{"op": "copy", "from": "/a", "path": "/c"}], {"c": None}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1}], {"a": 1}),
        (
            {"a": None},
            [{"op": "test", "path": "/a"}, {"op": "test", "path": "/b", "value": None}],
            {"a": None},
        ),
        (
            {"a": {"b": [1, {}]}},
            [{"op": "test", "path": "/a", "value": {"b": [1, {}]}}],
            {"a": {"b": [1, {}]}},
        ),
        ({"a": 1}, [{"op": "test", "path": "", "value": {"a": 1}}], {"a": 1}),
        ({"data": {}}, [{"op": "add", "path": "x/data/q", "value": "x"}], {"data": {"q": "x"}}),
        (
            {"a": {"b": 1}},
            [
                {"op": "copy", "from": "/a", "path": "/c"},
                {"op": "replace", "path": "/c/b", "value": 2},
                {"op": "copy", "from": "/c", "path": "/d"},
                {"op": "remove", "path": "/c/b"},
            ],
            {"a": {"b": 1}, "c": {}, "d": {"b": 2}},
        ),
    ],
)
def test_operations_apply_in_order(doc: dict[str, Any], operations: Any, result: dict[str, Any]) -> None:
    before = copy.deepcopy((doc, operations))
    assert json_patch(doc, operations) == result
    assert (doc, operations) == before


@pytest.mark.parametrize(
    ("doc", "operation"),
    [
        ({"a": 1}, {"op": "test", "path": "/a", "value": 2}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": 1.0}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": True}),
        ({"a": [1]}, {"op": "test", "path": "/a", "value": [1.0]}),
        ({"a": 1}, {"op": "test", "path": "/a"}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": 1}),
        ({}, {"op": "remove", "path": "/a"}),
        ({}, {"op": "remove", "path": ""}),
        ({}, {"op": "add", "path": "", "value": {}}),
        ({}, {"op": "add", "path": "/a/b", "value": 1}),
        ({"a": None}, {"op": "add", "path": "/a/b", "value": 1}),
        ({"a": "x"}, {"op": "add", "path": "/a/b", "value": 1}),
        ({"a": [1]}, {"op": "add", "path": "/a/3", "value": 1}),
        ({"a": [1]}, {"op": "add", "path": "/a/-3", "value": 1}),
        ({"a": [1]}, {"op": "add", "path": "/a/x", "value": 1}),
        ({"a": [1]}, {"op": "remove", "path": "/a/-"}),
        ({"a": [1]}, {"op": "replace", "path": "/a/1", "value": 1}),
        ({}, {"op": "replace", "path": "", "value": 1}),
        ({"a": {}}, {"op": "move", "from": "/a", "path": "/a/b"}),
        ({}, {"op": "move", "from": "/a", "path": "/b"}),
        ({}, {"op": "move", "path": "/b"}),
        ({}, {"op": "add", "value": 1}),
        ({}, {"op": "jump", "path": "/a"}),
        ({}, {"path": "/a"}),
        ({}, None),
    ],
)
def test_an_operation_that_does_not_apply_is_422_without_details(doc: dict[str, Any], operation: Any) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch(doc, [operation])
    assert (caught.value.code, caught.value.reason, caught.value.message) == (422, "Invalid", REJECTED)
    assert caught.value.status()["details"] == {}
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize(
    ("operations", "text"),
    [
        ({"a": 1}, "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        ("x", "json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"),
        ([1], "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
        ([{"op": 1}], "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"),
        ([{"path": []}], "json: cannot unmarshal array into Go struct field jsonPatchOp.path of type string"),
    ],
)
def test_what_is_no_list_of_operations_is_400(operations: object, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({}, operations)
    assert (caught.value.code, caught.value.message) == (400, f"error decoding patch: {text}")


def test_a_patch_that_fails_late_changes_nothing() -> None:
    doc: dict[str, Any] = {"a": {"b": [1]}}
    with pytest.raises(ApiError):
        json_patch(
            doc, [{"op": "add", "path": "/a/b/0", "value": 0}, {"op": "test", "path": "/a", "value": 1}]
        )
    assert doc == {"a": {"b": [1]}}


def test_a_document_replaced_by_a_list_is_no_object() -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({}, [{"op": "replace", "path": "", "value": []}])
    assert caught.value.code == 422
    assert caught.value.message.startswith(
        ' "" is invalid: patch: Invalid value: "[]": couldn\'t get version/kind; json'
    )


def test_the_number_of_operations_is_bounded() -> None:
    test = {"op": "test", "path": "/a", "value": None}
    assert json_patch({}, [test] * OPERATIONS_MAX) == {}
    with pytest.raises(ApiError) as caught:
        json_patch({}, [test] * (OPERATIONS_MAX + 1))
    assert caught.value.status()["message"] == (
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    )


def test_growth_by_copies_is_bounded() -> None:
    double = [{"op": "copy", "from": "/a", "path": "/a/-"}] * 40
    with pytest.raises(ApiError) as caught:
        json_patch({"a": ["x" * 100]}, double)
    assert caught.value.code == 422
    assert f"exceeding the limit {COPIED_BYTES_MAX}" in str(caught.value.__cause__)


def test_depth_is_bounded_however_it_is_reached() -> None:
    deep: Any = []
    for _ in range(NESTING_MAX):
        deep = [deep]
    with pytest.raises(ApiError) as caught:
        json_patch({}, [{"op": "add", "path": "/a", "value": deep}])
    assert caught.value.code == 400
    step = [
        {"op": "move", "from": "/a", "path": "/b"},
        {"op": "add", "path": "/a", "value": {}},
        {"op": "move", "from": "/b", "path": "/a/x"},
    ]
    with pytest.raises(ApiError) as caught:
        json_patch({"a": {}}, step * NESTING_MAX)
    assert "nested deeper" in str(caught.value.__cause__)


def test_shifting_long_lists_again_and_again_is_bounded() -> None:
    prepend = [{"op": "add", "path": "/a/0", "value": 0}] * OPERATIONS_MAX
    with pytest.raises(ApiError) as caught:
        json_patch({"a": [0] * 500_000}, prepend)
    assert caught.value.code == 413


def test_fields_that_an_operation_does_not_have_are_told() -> None:
    operations = [{"op": "add", "path": "/a", "value": 1}, {"op": "add", "path": "/a", "foo": 1}, 5]
    assert json_patch_unknown_fields(operations) == ['unknown field "[1].foo"']
    assert json_patch_unknown_fields("x") == []


@pytest.mark.parametrize(
    ("doc", "patch", "result"),
    [
        # The cases of RFC 7386 that have a document.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        # Where the library differs from the RFC.
        ({}, {"a": [{"b": None, "c": 1}, None]}, {"a": [{"c": 1}, None]}),
        ({"a": {}}, {"a": [{"b": None}]}, {"a": [{"b": None}]}),
        ({"a": None}, {"a": {"b": None}}, {"a": {}}),
    ],
)
def test_a_merge_patch_merges(doc: dict[str, Any], patch: dict[str, Any], result: dict[str, Any]) -> None:
    before = copy.deepcopy((doc, patch))
    assert merge_patch(doc, patch) == result
    assert (doc, patch) == before


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        (None, "Invalid JSON Patch"),
        (
            [1],
            "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
        ),
        (
            "x",
            "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}",
        ),
        (
            True,
            "error decoding patch: json: cannot unmarshal bool into Go value of type map[string]interface {}",
        ),
    ],
)
def test_what_is_no_merge_patch_is_400(patch: object, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        merge_patch({}, patch)
    assert (caught.value.code, caught.value.message) == (400, text)


@pytest.mark.parametrize(
    ("patch", "code", "text"),
    [
        (1, 400, "Invalid JSON Patch"),
        ("x", 400, "Invalid JSON Patch"),
        ([None, {"a": None}], 422, 'Invalid value: "[null,{}]": couldn\'t get version/kind'),
    ],
)
def test_a_merge_patch_that_is_not_looked_at_may_be_a_list_that_is_no_object(
    patch: object, code: int, text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        merge_patch({}, patch, typed=False)
    assert caught.value.code == code
    assert text in caught.value.message.replace('\\"', '"')


@pytest.mark.parametrize(
    ("operations", "code", "text"),
    [
        (1, 400, "json: cannot unmarshal number into Go value of type jsonpatch.Patch"),
        ([1], 400, "json: cannot unmarshal number into Go value of type jsonpatch.Operation"),
        ([{"op": 1, "path": "/a"}], 422, "the server rejected our request due to an error in our request"),
        (
            [{"op": "remove", "path": 1}],
            422,
            "the server rejected our request due to an error in our request",
        ),
    ],
)
def test_operations_that_are_not_looked_at_fail_where_they_are_applied(
    operations: object, code: int, text: str
) -> None:
    with pytest.raises(ApiError) as caught:
        json_patch({"a": 1}, operations, typed=False)
    assert (caught.value.code, caught.value.message) == (code, text)


SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b"])
JSON = st.recursive(
    SCALARS,
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.sampled_from("abc"), children, max_size=3)
    ),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value


def merge_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The merge patch from one document to another; neither has nulls in its maps."""
    patch: dict[str, Any] = dict.fromkeys(old.keys() - new.keys())
    for key, value in new.items():
        before = old.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            if change := merge_diff(before, value):
                patch[key] = change
        elif key not in old or repr(before) != repr(value):
            patch[key] = value
    return patch


@settings(deadline=None)
@given(DOCUMENTS.map(without_nulls), DOCUMENTS.map(without_nulls))
def test_merging_a_difference_leads_to_the_other_document(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert repr(sorted_keys(merge_patch(old, merge_diff(old, new)))) == repr(sorted_keys(new))


def sorted_keys(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: sorted_keys(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [sorted_keys(item) for item in value]
    return value


def nulls_in_maps_only(value: Any) -> Any:
    """Nulls within a list's items stay or go by what was there before, in the library, so that its patch is not
    idempotent then."""
    if isinstance(value, dict):
        return {key: nulls_in_maps_only(item) for key, item in value.items()}
    return without_nulls(value)


@settings(deadline=None)
@given(DOCUMENTS, DOCUMENTS.map(nulls_in_maps_only))
def test_a_merge_patch_applied_again_changes_nothing_more(doc: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((doc, patch))
    once = merge_patch(doc, patch)
    assert repr(merge_patch(once, patch)) == repr(once)
    assert repr((doc, patch)) == before


@settings(deadline=None)
@given(DOCUMENTS, st.lists(st.tuples(st.sampled_from("abc"), JSON), max_size=4))
def test_operations_undo_one_another(doc: dict[str, Any], added: list[tuple[str, Any]]) -> None:
    before = repr(doc)
    forth = [{"op": "add", "path": f"/new/{key}", "value": value} for key, value in added]
    patched = json_patch(doc, [{"op": "add", "path": "/new", "value": {}}, *forth])
    assert patched["new"] == dict(added)
    assert json_patch(patched, [{"op": "remove", "path": "/new"}]) == doc
    assert repr(doc) == before


def test_nesting_is_counted_in_maps_and_lists() -> None:
    values: list[object] = [1, {}, [1], {"a": [{}]}]
    assert [nesting(value, 10) for value in values] == [0, 1, 1, 3]
    assert nesting([[[[]]]], 2) == 3


POINTERS = st.lists(st.sampled_from(["a", "b", "0", "1", "-1", "-", "~0", "é", ""]), max_size=4).map(
    lambda parts: "".join(f"/{part}" for part in parts)
)
OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]), "path": POINTERS},
    optional={"from": POINTERS, "value": JSON},
)


@settings(deadline=None)
@given(DOCUMENTS, st.lists(OPERATIONS | JSON, max_size=5))
def test_whatever_is_sent_the_answer_is_an_object_or_an_api_error(
    doc: dict[str, Any], operations: list[Any]
) -> None:
    before = repr((doc, operations))
    try:
        assert isinstance(json_patch(doc, operations), dict)
    except ApiError as error:
        assert error.code in {400, 422}
    assert repr((doc, operations)) == before
