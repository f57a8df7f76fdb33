"""JSONPath: what a path finds and how it is refused (checked against client-go 0.37)."""

from __future__ import annotations

from typing import Any

import pytest

from clusterling.machinery.jsonpath import (
    NESTING_MAX,
    PATH_CHARACTERS_MAX,
    VALUES_MAX,
    compile_path,
    printed,
)

OBJECT: dict[str, Any] = {
    "metadata": {"name": "a", "labels": {"x.y/z": "1"}},
    "spec": {
        "replicas": 3,
        "none": None,
        "items": [{"n": 1, "v": "a"}, {"n": 2, "v": "b"}, {"v": "c"}],
        "list": [1, 2, 3, 4],
    },
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Synced", "status": "False", "why": "it's"},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.replicas", [3]),
        ("spec.replicas", None),
        ("$.spec.replicas", [3]),
        (".spec['replicas']", [3]),
        (".spec.none", [None]),
        (".spec.absent", []),
        (".spec.absent.deeper", []),
        (".spec.replicas.deeper", []),
        (".metadata.labels['x\\.y/z']", ["1"]),
        (".metadata.labels.x\\.y/z", ["1"]),
        (".spec.list[0]", [1]),
        (".spec.list[-1]", [4]),
        (".spec.list[1:3]", [2, 3]),
        (".spec.list[::2]", [1, 3]),
        (".spec.list[-2:]", [3, 4]),
        (".spec.list[*]", [1, 2, 3, 4]),
        (".spec.list[0,2]", [1, 3]),
        (".spec.list[2:2]", []),
        (".spec.items[*].v", ["a", "b", "c"]),
        (".spec.items[*]['n','v']", [1, 2, "a", "b", "c"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type!='Ready')].status", ["False"]),
        (".status.conditions[?(@.why)].type", ["Synced"]),
        (".status.conditions[?(@.why=='it\\'s')].type", ["Synced"]),
        (".spec.items[?(@.n>=2)].v", ["b"]),
        (".spec.list[?(@<3)]", [1, 2]),
        ("..n", [1, 2]),
        (".metadata.*", ["a", {"x.y/z": "1"}]),
        ("", [OBJECT]),
    ],
)
def test_a_path_finds_what_client_gos_finds(path: str, found: list[object] | None) -> None:
    if found is None:
        with pytest.raises(ValueError, match="unrecognized identifier spec"):
            compile_path(path).find(OBJECT)
        return
    assert compile_path(path).find(OBJECT) == found


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (".spec.list[4]", "array index out of bounds: index 4, length 4"),
        (".spec.list[-5]", "array index out of bounds: index -1, length 4"),
        (".spec.list[3:1]", "starting index 3 is greater than ending index 1"),
        (".spec[0]", "map[string]interface {} is not array or slice"),
        (".spec.list[?(@>'a')]", "incompatible types for comparison"),
        (".spec.list[0:2:0]", "step must be > 0"),
        (".spec.items[?(@.v=~1)].v", "unrecognized filter operator"),
    ],
)
def test_a_path_that_does_not_suit_the_object_says_why(path: str, error: str) -> None:
    if "=~" in path:
        with pytest.raises(ValueError, match="unrecognized character in action"):
            compile_path(path)
        return
    with pytest.raises(ValueError, match=r".") as caught:
        compile_path(path).find(OBJECT)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("path", "error"),
    [
        (".a[", "unterminated array"),
        (".a[x]", "invalid array index x"),
        (".a[1:2:3:4]", "invalid array index 1:2:3:4"),
        (".a[?(@.b", "unterminated filter"),
        (".a[?(@.b)x]", "unclosed array expect ]"),
        ("....a", "invalid multiple recursive descent"),
        (".a[?('b)]", "unterminated filter"),
        ("'a", "unterminated quoted string"),
        (".a(", None),
        ("(", "unrecognized character in action: U+0028 '('"),
        (".a\n", "unclosed action"),
        ("-", "cannot parse number -"),
        (".a}{(", "unrecognized character in action: U+0028 '('"),
    ],
)
def test_a_malformed_path_is_refused_in_client_gos_words(path: str, error: str | None) -> None:
    if error is None:
        assert compile_path(path).find({"a(": 1}) == [1]
        return
    with pytest.raises(ValueError, match=r".") as caught:
        compile_path(path)
    assert str(caught.value) == error


def test_paths_are_bounded_in_length_and_depth() -> None:
    with pytest.raises(ValueError, match="characters"):
        compile_path("." + "a" * PATH_CHARACTERS_MAX)
    nested = "@.a"
    for _ in range(NESTING_MAX + 1):
        nested = f"@[?({nested})]"
    with pytest.raises(ValueError, match=r"nested deeper|array|filter"):
        compile_path("." + nested)


def test_a_path_that_multiplies_is_stopped() -> None:
    wide: dict[str, Any] = {"a": {str(i): {"b": i} for i in range(2000)}}
    unions = "[" + ",".join(["*"] * 50) + "]"
    with pytest.raises(ValueError, match=f"more than {VALUES_MAX} values"):
        compile_path("...*...*...*").find({"x": [wide, wide, wide]})
    with pytest.raises(ValueError, match=f"more than {VALUES_MAX} values"):
        compile_path(".l" + unions * 4).find({"l": [[[[1] * 9] * 9] * 9] * 9})


def test_recursive_descent_has_no_depth_that_it_fails_at() -> None:
    deep: dict[str, Any] = {"leaf": 1}
    for _ in range(5000):
        deep = {"a": deep}
    assert compile_path("..leaf").find(deep) == [1]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "<no value>"),
        (True, "true"),
        (5, "5"),
        (1.5, "1.5"),
        (1234567.125, "1.234567125e+06"),
        (1e21, "1e+21"),
        (1e-7, "1e-07"),
        (0.0001, "0.0001"),
        (100000.0, "100000"),
        (-2.0, "-2"),
        (0.0, "0"),
        ("x", "x"),
        ({"b": 1.0, "a": [None, "<"]}, '{"a":[null,"\\u003c"],"b":1}'),
        ([], "[]"),
    ],
)
def test_values_are_printed_as_go_prints_them(value: object, text: str) -> None:
    assert printed(value) == text
