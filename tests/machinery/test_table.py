"""Tables: cells as kube-apiserver 1.37.2 computes them (its answers were recorded)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from clusterling.machinery.table import (
    DEFAULT_COLUMNS,
    NAME_COLUMN,
    Column,
    age,
    column_from_jsonpath,
    human_duration,
    row,
    table,
)

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
OBJECT: dict[str, Any] = {
    "apiVersion": "v1",
    "kind": "Thing",
    "metadata": {"name": "a", "creationTimestamp": "2026-11-22T15:00:00Z"},
    "spec": {"x": 1},
}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-2, "<invalid>"),
        (-1.5, "0s"),
        (0, "0s"),
        (1.9, "1s"),
        (119, "119s"),
        (120, "2m"),
        (121, "2m1s"),
        (599, "9m59s"),
        (600, "10m"),
        (3 * 3600 - 1, "179m"),
        (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600 - 1, "7h59m"),
        (8 * 3600, "8h"),
        (48 * 3600 - 1, "47h"),
        (48 * 3600, "2d"),
        (49 * 3600, "2d1h"),
        (8 * 86400 - 1, "7d23h"),
        (8 * 86400, "8d"),
        (2 * 365 * 86400 - 1, "729d"),
        (2 * 365 * 86400, "2y"),
        ((2 * 365 + 1) * 86400, "2y1d"),
        (8 * 365 * 86400 - 1, "7y364d"),
        (8 * 365 * 86400, "8y"),
        (30 * 365 * 86400, "30y"),
    ],
)
def test_a_duration_has_two_or_three_figures(seconds: float, text: str) -> None:
    assert human_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<unknown>"),
        ("", "<unknown>"),
        ("null", "<unknown>"),
        ("bad", "<invalid>"),
        ("2026-11-22", "<invalid>"),
        ("2026-11-22T15:59:59Z", "1s"),
        ("2026-11-22T15:59:59.123456789Z", "0s"),
        ("2026-11-22T17:59:58+02:00", "2s"),
    ],
)
def test_an_age_is_the_time_since(value: str | None, text: str) -> None:
    assert age(value, NOW) == text


def cells(json_path: str, column_type: str, *specs: Any) -> list[object]:
    column = column_from_jsonpath("C", column_type, json_path)
    return [column.cell({"spec": spec}, NOW) for spec in specs]


@pytest.mark.parametrize(
    ("column_type", "values", "expected"),
    [
        ("string", [5, None, False, 1234567.125, {"b": 1.5, "a": [None, "<"]}, 1e21, "x"], ["5", "<no value>", "false", "1.234567125e+06", '{"a":[null,"\\u003c"],"b":1.5}', "1e+21", "x"]),
        ("integer", [2.7, "x", 7, None, True], [2, None, 7, None, None]),
        ("number", [3.0, 1e25, 123456789012345678, 1.5, "x", True], [3, 1e25, 123456789012345680, 1.5, None, None]),
        ("boolean", ["x", True, False, 1], [None, True, False, None]),
        ("date", ["2020-01-01T00:00:00Z", "bad", "", "null", 5], ["6y327d", "<invalid>", "<unknown>", "<unknown>", None]),
        ("unheard-of", ["x"], [None]),
    ],
)  # fmt: skip
def test_a_cell_suits_its_columns_type(column_type: str, values: list[Any], expected: list[object]) -> None:
    found = cells(".spec.v", column_type, *[{"v": value} for value in values])
    assert found == expected
    assert [type(cell) for cell in found] == [type(cell) for cell in expected]


def test_a_cell_is_empty_where_the_path_finds_nothing_or_does_not_suit() -> None:
    assert cells(".spec.absent", "string", {}) == [None]
    assert cells(".spec.list[-1]", "string", {"list": ["a", "b"]}, {"list": []}, {"list": 1}, None) == [
        "b",
        None,
        None,
        None,
    ]
    ready = '.spec.conditions[?(@.type=="Ready")].status'
    assert cells(
        ready,
        "string",
        {"conditions": [{"type": "Ready", "status": "True"}]},
        {"conditions": None},
        {"conditions": [{"type": 1, "status": "x"}, {"type": "Ready"}]},
        {"conditions": [{"status": "x"}, {"type": "Ready", "status": "y"}]},
    ) == ["True", None, None, "y"]


def test_of_several_values_the_first_is_shown() -> None:
    assert cells(".spec.list[*]", "string", {"list": [1.0, 2]}) == ["1"]


def test_a_column_without_a_description_is_described_by_its_path() -> None:
    column = column_from_jsonpath("S", "string", ".spec.s", priority=1)
    assert column.definition() == {
        "name": "S",
        "type": "string",
        "format": "",
        "description": "Custom resource definition column (in JSONPath format): .spec.s",
        "priority": 1,
    }


def test_a_column_with_a_malformed_path_is_refused() -> None:
    with pytest.raises(ValueError, match="unterminated array"):
        column_from_jsonpath("S", "string", ".spec[")


def test_the_default_columns_are_name_and_age() -> None:
    found = table(
        DEFAULT_COLUMNS, [OBJECT, {"metadata": {"name": "b"}}], now=NOW, list_meta={"resourceVersion": "7"}
    )
    assert found["kind"] == "Table"
    assert found["apiVersion"] == "meta.k8s.io/v1"
    assert found["metadata"] == {"resourceVersion": "7"}
    assert [(column["name"], column["type"], column["format"]) for column in found["columnDefinitions"]] == [
        ("Name", "string", "name"),
        ("Age", "date", ""),
    ]
    assert [one["cells"] for one in found["rows"]] == [["a", "60m"], ["b", None]]


def test_a_row_carries_metadata_the_object_or_nothing() -> None:
    assert row((NAME_COLUMN,), OBJECT, now=NOW)["object"] == {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": OBJECT["metadata"],
    }
    assert row((NAME_COLUMN,), OBJECT, now=NOW, include="Object")["object"] == OBJECT
    assert row((NAME_COLUMN,), OBJECT, now=NOW, include="None")["object"] is None


def test_without_headers_the_definitions_are_null_and_no_objects_are_no_rows() -> None:
    found = table(DEFAULT_COLUMNS, [], now=NOW, headers=False)
    assert found["columnDefinitions"] is None
    assert found["rows"] == []
    assert found["metadata"] == {}


def test_a_column_of_ones_own_computes_from_object_and_time() -> None:
    column = Column("Data", "string", lambda obj, now: f"{len(obj['spec'])} at {now.year}")
    assert table((column,), [OBJECT], now=NOW)["rows"][0]["cells"] == ["1 at 2026"]
