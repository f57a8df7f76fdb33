"""Types and sets of fields, held to what structured-merge-diff was recorded to say of the same."""

from __future__ import annotations

import json

import pytest

from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.fieldset import ordered, union
from clusterling.machinery.apply.types import TypedError
from clusterling.machinery.schema.node import Node
from tests.machinery.merging import walks
from tests.machinery.merging.lives import Json, text

ASKED, SETS = walks.load()
*TOLD, TOLD_OF_SETS = json.loads(walks.RECORDED.read_text())
RECORDED = dict(zip(ASKED, TOLD, strict=True))


def told(name: str, part: str) -> tuple[list[Json], list[Json]]:
    return walks.told(ASKED[name])[part], RECORDED[name][part]


@pytest.mark.parametrize("name", ASKED)
def test_the_same_values_are_valid(name: str) -> None:
    ours, theirs = told(name, "valid")
    assert [(bool(one), str(one)[:3] == "but") for one in ours] == [
        (bool(one), str(one)[:3] == "but") for one in theirs
    ]


@pytest.mark.parametrize("name", ASKED)
def test_one_thing_that_is_wrong_is_told_in_the_same_words(name: str) -> None:
    ours, theirs = told(name, "valid")
    for value, one, other in zip(ASKED[name]["values"], ours, theirs, strict=True):
        if "\n" not in str(other):
            assert (value, one) == (value, other)


@pytest.mark.parametrize("name", ASKED)
def test_values_have_the_same_fields(name: str) -> None:
    ours, theirs = told(name, "fields")
    for value, one, other in zip(ASKED[name]["values"], ours, theirs, strict=True):
        assert (value, json.dumps(one)) == (value, json.dumps(other))


@pytest.mark.parametrize("name", ASKED)
def test_what_comes_after_another_adds_changes_removes_and_merges_the_same(name: str) -> None:
    ours, theirs = told(name, "pairs")
    for (a, b), one, other in zip(ASKED[name]["pairs"], ours, theirs, strict=True):
        before, after = (ASKED[name]["values"][at] for at in (a, b))
        # What is laid over another is valid: what comes of others is not asked here.
        asked = [key for key in other if key != "error" and ("error" not in other or key != "merged")]
        assert text([one.get(key) for key in asked]) == text([other[key] for key in asked]), (before, after)
        assert one.keys() - {"merged"} <= {*asked, "error"}, (before, after)


@pytest.mark.parametrize("name", ASKED)
def test_what_a_map_gains_is_what_a_comparison_says_was_added_or_modified(name: str) -> None:
    kind = object_type(Node(ASKED[name]["schema"]), metadata=False)
    for a, b in ASKED[name]["pairs"]:
        before, after = (ASKED[name]["values"][at] for at in (a, b))
        if type(before) is not dict or type(after) is not dict:
            continue
        try:
            added, modified, _ = kind.compare(before, after)
        except TypedError:
            with pytest.raises(TypedError):
                kind.gained(before, after)
        else:
            assert ordered(kind.gained(before, after)) == ordered(union(modified or {}, added or {}))


@pytest.mark.parametrize("name", ASKED)
def test_the_same_is_left_without_some_fields(name: str) -> None:
    ours, theirs = told(name, "removed")
    for asked, one, other in zip(ASKED[name]["removed"], ours, theirs, strict=True):
        assert text(one) == text(other), asked


@pytest.mark.parametrize("name", ASKED)
def test_sets_that_another_schema_made_become_the_same(name: str) -> None:
    ours, theirs = told(name, "reconciled")
    for asked, one, other in zip(ASKED[name]["reconciled"], ours, theirs, strict=True):
        assert json.dumps(one) == json.dumps(other), asked


@pytest.mark.parametrize("what", ["union", "both", "difference", "below", "paths"])
def test_of_two_sets_comes_the_same(what: str) -> None:
    ours = walks.told_of_sets(SETS)[what]
    for a, row, other in zip(SETS["sets"], ours, TOLD_OF_SETS[what], strict=True):
        assert json.dumps(row) == json.dumps(other), a


def test_the_same_sets_are_read_and_written_the_same() -> None:
    ours = walks.told_of_sets(SETS)["read"]
    assert dict(zip(SETS["texts"], ours, strict=True)) == dict(
        zip(SETS["texts"], TOLD_OF_SETS["read"], strict=True)
    )
