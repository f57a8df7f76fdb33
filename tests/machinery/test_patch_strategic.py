"""Strategic merge patch. The cases in strategic_cases.json are the facts of upstream's own tables

(`apimachinery/pkg/util/strategicpatch/patch_test.go`): a document, a patch, and what becomes of them.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.errors import ApiError
from clusterling.machinery.patch import NESTING_MAX
from clusterling.machinery.strategic import PatchMeta, strategic_merge, strategic_merge_left

CASES = json.loads(Path(__file__).with_name("strategic_cases.json").read_text())

_REFERENCE = "#/components/schemas/"
_BY_NAME = {"x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name"}
_STRINGS = {"type": "object", "additionalProperties": {"type": "string"}}
_INTS = {"type": "array", "items": {"type": "integer"}}


def _items(**extensions: str) -> dict[str, Any]:
    return {"type": "array", "items": {"allOf": [{"$ref": _REFERENCE + "test.Item"}]}, **extensions}


DEFINITIONS: dict[str, Any] = {
    "test.Item": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "string"},
            "other": {"type": "string"},
            "mergingList": _items(**_BY_NAME),
            "nonMergingList": _items(),
            "mergingIntList": {**_INTS, "x-kubernetes-patch-strategy": "merge"},
            "nonMergingIntList": _INTS,
            "mergeItemPtr": _items(**_BY_NAME),
            "simpleMap": _STRINGS,
            "replacingItem": {"type": "object", "x-kubernetes-patch-strategy": "replace"},
            "jsonItem": {"type": "object"},
            "retainKeysMap": {
                "$ref": _REFERENCE + "test.RetainKeys",
                "x-kubernetes-patch-strategy": "retainKeys",
            },
            "retainKeysMergingList": _items(
                **{**_BY_NAME, "x-kubernetes-patch-strategy": "merge,retainKeys"}
            ),
        },
    },
    "test.RetainKeys": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "string"},
            "other": {"type": "string"},
            "simpleMap": _STRINGS,
            "mergingIntList": {**_INTS, "x-kubernetes-patch-strategy": "merge"},
            "mergingList": _items(**_BY_NAME),
            "nonMergingList": _items(),
        },
    },
}
ITEM = PatchMeta.from_openapi({"$ref": _REFERENCE + "test.Item"}, DEFINITIONS)


@pytest.mark.parametrize("case", [case for case in CASES if "result" in case], ids=lambda case: case["id"])
def test_a_patch_of_upstreams_tables_leads_to_its_result(case: dict[str, Any]) -> None:
    before = copy.deepcopy(case)
    assert strategic_merge(case["doc"], case["patch"], ITEM) == case["result"]
    assert case == before


@pytest.mark.parametrize("case", [case for case in CASES if "error" in case], ids=lambda case: case["id"])
def test_a_patch_that_upstreams_tables_refuse_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge(case["doc"], case["patch"], ITEM)
    assert case["error"] in caught.value.message


def test_upstreams_tables_are_there() -> None:
    assert len(CASES) >= 190


FULL = {
    "mergingIntList": [1, 2],
    "mergingList": [{"name": "a", "value": "1"}],
    "nonMergingIntList": [1],
    "simpleMap": {"a": "b"},
    "value": "x",
}


@pytest.mark.parametrize(
    ("patch", "code", "text"),
    [
        ([1], 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ({"simpleMap": {"$retainKeys": "x"}}, 400, "invalid patch format of retainKeys"),
        ({"simpleMap": {"$retainKeys": ["a"], "b": "c"}}, 400, "invalid patch format of retainKeys"),
        ({"$deleteFromPrimitiveList": [1]}, 400, "invalid patch format of primitive list"),
        ({"$setElementOrder": [1]}, 400, "invalid patch format of setElementOrder list"),
        ({"$setElementOrderX/mergingIntList": [1]}, 400, "invalid patch format of setElementOrder list"),
        ({"simpleMap": {"$patch": "foo"}}, 500, "unknown patch type: foo in map: map[$patch:foo]"),
        ({"simpleMap": {"$patch": None}}, 500, "unknown patch type: %!s(<nil>) in map: map[$patch:<nil>]"),
        ({"mergingList": [{"$patch": 1}]}, 500, "unknown patch type: %!s(int64=1) in map: map[$patch:1]"),
        ({"mergingList": [{"$patch": "merge"}]}, 500, "merging lists cannot yet be specified in the patch"),
        (
            {"mergingList": [{"$patch": "x", "name": "a"}]},
            500,
            "unknown patch type: x in map: map[$patch:x name:a]",
        ),
        (
            {"mergingList": [{"value": "b"}]},
            500,
            "map: map[value:b] does not contain declared merge key: name",
        ),
        (
            {"mergingList": [{"$patch": "delete", "value": "b"}]},
            500,
            "map: map[$patch:delete value:b] does not contain declared merge key: name",
        ),
        (
            {"mergingIntList": ["a"]},
            500,
            "list element types are not identical: [[1 2] [a]]",
        ),
        ({"mergingList": [1]}, 500, "list element types are not identical: [[map[name:a value:1]] [1]]"),
        ({"$setElementOrder/mergingIntList": "x"}, 500, "expected a []interface {}, but received a string"),
        ({"$setElementOrder/value": ["x"]}, 500, "expected a []interface {}, but received a string"),
        ({"$setElementOrder/mergingList": [1]}, 500, "value for key 0 is not a map"),
        (
            {"$setElementOrder/mergingList": [{"value": 1}]},
            500,
            "map: map[value:1] does not contain declared merge key: name",
        ),
        (
            {"mergingIntList": [3], "$setElementOrder/mergingIntList": [4]},
            500,
            "The order in patch list:\n[3]\n doesn't match $setElementOrder list:\n[4]\n",
        ),
        (
            {"$setElementOrder/foo": [1]},
            500,
            'unable to find api field in struct Item for the json field "foo"',
        ),
        (
            {"simpleMap": {"$setElementOrder/foo": []}},
            500,
            "merging an object in json but data type is not struct, instead is: map",
        ),
    ],
)
def test_a_malformed_patch_is_answered_as_upstream_answers(patch: object, code: int, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge(copy.deepcopy(FULL), patch, ITEM)
    assert (caught.value.code, caught.value.message) == (code, text)
    assert caught.value.reason == ("BadRequest" if code == 400 else "")


def test_an_order_of_items_that_only_delete_makes_an_empty_list_of_none() -> None:
    patch = {"mergingList": [{"$patch": "delete"}], "$setElementOrder/mergingList": [{"name": "a"}]}
    assert strategic_merge({}, patch, ITEM) == {"mergingList": []}


def test_null_changes_nothing() -> None:
    assert strategic_merge(FULL, None, ITEM) == FULL


def test_what_is_left_of_a_patch_lacks_the_directives_that_were_carried_out() -> None:
    patch = {
        "simpleMap": {"$retainKeys": ["a"], "a": "x"},
        "mergingIntList": [3],
        "$setElementOrder/mergingIntList": [3],
        "new": {"x": None, "y": 1},
    }
    before = copy.deepcopy(patch)
    _, left = strategic_merge_left(copy.deepcopy(FULL), patch, ITEM)
    assert left == {"simpleMap": {"a": "x"}, "new": {"y": 1}}
    assert patch == before


def test_lists_of_lists_are_422() -> None:
    with pytest.raises(ApiError) as caught:
        strategic_merge({"mergingIntList": [[1]]}, {"mergingIntList": [[2]]}, ITEM)
    assert caught.value.code == 422


def test_depth_is_bounded() -> None:
    deep: Any = {}
    for _ in range(NESTING_MAX):
        deep = {"a": deep}
    with pytest.raises(ApiError) as caught:
        strategic_merge({}, deep, ITEM)
    assert caught.value.code == 400


def test_long_lists_merge_in_linear_work() -> None:
    # Quadratic work would take minutes here.
    doc = {"mergingList": [{"name": f"n{i}"} for i in range(30_000)]}
    patch = {
        "mergingList": [{"name": f"n{i}", "value": "x"} for i in range(30_000)],
        "$setElementOrder/mergingList": [{"name": f"n{i}"} for i in range(30_000)],
    }
    merged = strategic_merge(doc, patch, ITEM)
    assert merged["mergingList"][29_999] == {"name": "n29999", "value": "x"}


def test_an_item_deleted_makes_room_for_one_added_behind_the_live_ones() -> None:
    doc = {"mergingList": [{"name": "a"}, {"name": "b"}, {"name": "d"}]}
    patch = {
        "$setElementOrder/mergingList": [{"name": "b"}, {"name": "c"}],
        "mergingList": [{"name": "c"}, {"name": "a", "$patch": "delete"}],
    }
    merged = strategic_merge(doc, patch, ITEM)
    assert [item["name"] for item in merged["mergingList"]] == ["b", "d", "c"]


@pytest.mark.parametrize(
    ("live", "sent", "merged"),
    [("cd", "n", "cdn"), ("cd", "nm", "cdmn"), ("cd", "dn", "ncd"), ("", "nm", "mn")],
)
def test_items_that_an_empty_order_does_not_place_go_where_upstreams_sort_leaves_them(
    live: str, sent: str, merged: str
) -> None:
    patch = {"mergingList": [{"name": name} for name in sent], "$setElementOrder/mergingList": []}
    found = strategic_merge({"mergingList": [{"name": name} for name in live]}, patch, ITEM)
    assert "".join(item["name"] for item in found["mergingList"]) == merged


def test_numbers_of_different_types_are_different_items() -> None:
    assert strategic_merge({"mergingIntList": [1]}, {"mergingIntList": [2]}, ITEM) == {
        "mergingIntList": [2, 1]
    }
    doc = {"mergingList": [{"name": 1}]}
    merged = strategic_merge(doc, {"mergingList": [{"name": 1.0, "value": "x"}]}, ITEM)
    assert merged == {"mergingList": [{"name": 1.0, "value": "x"}, {"name": 1}]}


def test_what_is_changed_in_the_result_is_not_changed_in_the_patch() -> None:
    patch: dict[str, Any] = {
        "nonMergingList": [{"name": "a", "simpleMap": {}}],
        "mergingList": [{"name": "b", "simpleMap": {}}],
        "replacingItem": {"x": {}},
        "simpleMap": {"$patch": "replace", "a": "b"},
    }
    before = copy.deepcopy(patch)
    doc = {
        "nonMergingList": [{"name": "c"}],
        "mergingList": [{"name": "c"}],
        "replacingItem": {"y": 1},
        "simpleMap": {},
    }
    merged = strategic_merge(doc, patch, ITEM)
    merged["nonMergingList"][0]["simpleMap"]["z"] = 1
    merged["mergingList"][0]["simpleMap"]["z"] = 1
    merged["replacingItem"]["x"]["z"] = 1
    merged["simpleMap"]["z"] = 1
    assert patch == before


def test_a_schema_is_read_through_references_and_is_kept() -> None:
    field = ITEM.field("mergingList")
    assert (field.strategy, field.merge_key) == ("merge", "name")
    assert field is ITEM.field("mergingList")
    assert field.items.field("retainKeysMap").value.field("mergingIntList").strategy == "merge"
    assert ITEM.field("retainKeysMergingList").strategy == "merge"
    assert ITEM.field("nonMergingList").strategy == ""
    with pytest.raises(LookupError, match="unable to find api field in struct Item"):
        ITEM.field("nope")


def test_without_a_schema_maps_merge_and_lists_are_replaced() -> None:
    untyped = PatchMeta.from_openapi({}, {})
    doc = {"a": {"b": 1, "l": [1]}}
    assert strategic_merge(doc, {"a": {"c": 2, "l": [2]}}, untyped) == {"a": {"b": 1, "c": 2, "l": [2]}}


NAMES = st.sampled_from("abcd")
ITEMS = st.lists(NAMES, unique=True, min_size=1, max_size=4).flatmap(
    lambda names: st.tuples(
        *(
            st.fixed_dictionaries({"name": st.just(name)}, optional={"value": NAMES, "other": NAMES})
            for name in names
        )
    ).map(list)
)
OBJECTS = st.fixed_dictionaries(
    {},
    optional={
        "value": NAMES,
        "mergingList": ITEMS,
        "nonMergingList": ITEMS,
        "mergingIntList": st.lists(st.integers(0, 4), unique=True, min_size=1, max_size=4),
        "nonMergingIntList": st.lists(st.integers(0, 4), max_size=4),
        "simpleMap": st.dictionaries(NAMES, NAMES, max_size=3),
        "mergeItemPtr": ITEMS,
    },
)


def strategic_diff(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A patch from one object to another, in the manner of kubectl's; lists that merge are never empty."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if before is None or not isinstance(value, dict | list) or key.startswith("nonMerging"):
            patch[key] = value
        elif isinstance(value, dict):
            patch[key] = {**dict.fromkeys(before.keys() - value.keys()), **value}
        elif key == "mergingIntList":
            patch[key] = value
            patch[f"$setElementOrder/{key}"] = value
            if gone := [item for item in before if item not in value]:
                patch[f"$deleteFromPrimitiveList/{key}"] = gone
        else:
            olds = {item["name"]: item for item in before}
            patch[f"$setElementOrder/{key}"] = [{"name": item["name"]} for item in value]
            names = {item["name"] for item in value}
            changes = [
                {**dict.fromkeys(olds.get(item["name"], {}).keys() - item.keys()), **item} for item in value
            ]
            patch[key] = changes + [{"name": name, "$patch": "delete"} for name in olds if name not in names]
    return patch


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_merging_a_difference_leads_to_the_other_object(old: dict[str, Any], new: dict[str, Any]) -> None:
    patch = strategic_diff(old, new)
    before = repr((old, patch))
    merged = strategic_merge(old, patch, ITEM)
    assert merged == new
    assert repr((old, patch)) == before


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_patch_without_directives_applied_again_changes_nothing_more(
    doc: dict[str, Any], patch: dict[str, Any]
) -> None:
    once = strategic_merge(doc, patch, ITEM)
    assert strategic_merge(once, patch, ITEM) == once


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_what_the_patch_does_not_name_stays(doc: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = strategic_merge(doc, patch, ITEM)
    assert {key: merged[key] for key in doc.keys() - patch.keys()} == {
        key: doc[key] for key in doc.keys() - patch.keys()
    }
    for key in ("mergingList", "mergeItemPtr"):
        wanted = {item["name"] for item in doc.get(key, [])} | {item["name"] for item in patch.get(key, [])}
        assert {item["name"] for item in merged.get(key, [])} == wanted


FIELDS = st.sampled_from(
    ["value", "mergingList", "nonMergingList", "mergingIntList", "simpleMap", "retainKeysMap", "name"]
)
DIRECTIVES = st.one_of(
    st.sampled_from(["$patch", "$retainKeys", "$setElementOrder", "$deleteFromPrimitiveList/"]),
    st.builds("{}/{}".format, st.sampled_from(["$setElementOrder", "$deleteFromPrimitiveList"]), FIELDS),
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.sampled_from(["a", "delete", "replace", "merge", 1.5]),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(FIELDS | DIRECTIVES, children, max_size=4)
    ),
    max_leaves=20,
)


@settings(deadline=None)
@given(
    st.dictionaries(FIELDS, ANYTHING, max_size=5), st.dictionaries(FIELDS | DIRECTIVES, ANYTHING, max_size=5)
)
def test_whatever_is_sent_the_answer_is_an_object_or_an_api_error(
    doc: dict[str, Any], patch: dict[str, Any]
) -> None:
    before = repr((doc, patch))
    try:
        assert isinstance(strategic_merge(doc, patch, ITEM), dict)
    except ApiError as error:
        assert error.code in {400, 422, 500}
    assert repr((doc, patch)) == before
