"""Where fields stand: what is told of a body is told in the order in which it is read."""

from __future__ import annotations

import pytest

from clusterling.machinery.errors import go_quote
from clusterling.machinery.fieldorder import PLACED_MAX, is_within, order_of, place_of, quoted_path

DOCUMENT = {"b": {"x": 1, "a.b": {"c": 2}, "a": [1, {"z": 1, "y": 2}], "": 3}, "a": {"0": [[{"q": 1}]]}}


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ("b.x", "b.a.b"),
        ("b.a.b.c", "b.a[1].y"),
        ("b.a[0]", "b.a[1].z"),
        ("b.a[1].z", "b.a[1].y"),
        ("b.a[1].y", "b."),
        ("b.", "a"),
        ("b", "b.x"),
        ("b.a[1].y", "a.0[0][0].q"),
    ],
)
def test_fields_stand_in_the_order_in_which_they_were_read(first: str, then: str) -> None:
    order = order_of(DOCUMENT)
    assert place_of(first, order) < place_of(then, order)


def test_sorted_keys_stand_before_what_was_read_before_them() -> None:
    order = order_of(DOCUMENT, by_keys=True)
    paths = ["b.x", "b.a[1].z", "b.a[1].y", "b.", "a.0", "b.a.b"]
    assert sorted(paths, key=lambda path: place_of(path, order)) == [
        "a.0",
        "b.",
        "b.a[1].y",
        "b.a[1].z",
        "b.a.b",
        "b.x",
    ]


def test_a_document_of_more_fields_than_are_placed_has_its_first_levels_in_order() -> None:
    wide = {"a": {str(at): [] for at in range(PLACED_MAX + 1)}, "b": {"c": 1}}
    order = order_of(wide)
    assert place_of("a.7", order) == (0,)
    assert place_of("b.c", order) > place_of("a.7", order)
    deep: list[object] = []
    for _ in range(PLACED_MAX * 2):
        deep = [deep]
    assert order_of(deep)


def test_a_path_is_within_a_field_and_not_within_another_that_begins_alike() -> None:
    fields = {"spec.a", "spec.b[0]", "spec.c.d"}
    assert all(
        is_within(path, fields) for path in ("spec.a", "spec.a.x", "spec.a[3]", "spec.b[0].x", "spec.c.d")
    )
    assert not any(
        is_within(path, fields) for path in ("spec", "spec.ab", "spec.b[01]", "spec.c", "spec.c.dx")
    )
    assert not is_within("." * 3_000_000, fields)


@pytest.mark.parametrize("path", ["spec.x", 'a"b', "back\\slash", "émile", ""])
def test_a_path_is_read_back_from_its_quotes(path: str) -> None:
    assert quoted_path(f"unknown field {go_quote(path)}") == path
