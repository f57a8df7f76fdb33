"""YAML bodies. Every expected value and message was printed by sigs.k8s.io/yaml 1.6.0 for the same input."""

from __future__ import annotations

from random import Random
from typing import Any, Final

import orjson
import pytest

from clusterling.machinery import codec
from clusterling.machinery.errors import ApiError
from clusterling.machinery.yaml import YamlError, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (
            "a: [x, y, n, yes, ~, null, 010, 0x1F, 0b11, 0o17, 1_000, 1.5, 1e3, .5, 1:30, 2001-01-01, '1']",
            {"a": ["x", True, False, True, None, None, 8, 31, 3, 15, 1000, 1.5, 1000, 0.5, "1:30", "2001-01-01", "1"]},
        ),
        ("a: 08\nb: 09.5\nd: 0x\nf: -0b11\ng: 1__0\nh: _1\ni: 0_7", {"a": 8, "b": 9.5, "d": "0x", "f": -3, "g": 10, "h": "_1", "i": 7}),
        ("1: a\n1.5: c\n2e3: d\ny: 3", {"1": "a", "1.5": "c", "2000": "d", "true": 3}),
        ("a: 18446744073709551615\nb: -9223372036854775809", {"a": float(2**64), "b": float(-(2**63) - 1)}),
        ("a: !!str 12\nb: !!int '3'\nc: !!float 3\nd: !!bool yes", {"a": "12", "b": 3, "c": 3, "d": True}),
        ("a: !!binary aGVsbG8=", {"a": "hello"}),
        ("a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  e: 2", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        ("a: <<\nb: [<<]", {"a": "<<", "b": ["<<"]}),
        ("a: |\n  text\n  more\nb: >-\n  folded\n  text\n", {"a": "text\nmore\n", "b": "folded text"}),
        ("a: 1\n---\nb: 2\n", {"a": 1}),
        ("", None),
        ("---\n", None),
    ],
)  # fmt: skip
def test_values_are_those_go_yaml_makes(text: str, value: Any) -> None:
    assert parse_yaml(text.encode()) == (value, [])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: b: c\n", "yaml: mapping values are not allowed in this context"),
        ("a:\n\t- b\n", "yaml: line 2: found character that cannot start any token"),
        ("a: [1, 2\n", "yaml: line 1: did not find expected ',' or ']'"),
        ("a: *x\n", "yaml: unknown anchor 'x' referenced"),
        ("a: &x [*x]\n", "yaml: anchor 'x' value contains itself"),
        ("a: .inf\n", "json: unsupported value: +Inf"),
        ("a: !!int x\n", "yaml: cannot decode !!str `x` as a !!int"),
        ("null: d\n", 'unsupported map key of type: %!s(<nil>), key: <nil>, value: "d"'),
        ("? [a]\n: 1\n", 'yaml: invalid map key: []interface {}{"a"}'),
        ("<<: 3\n", "yaml: map merge requires map or sequence of maps as the value"),
        ("a: \x01\n", "yaml: control characters are not allowed"),
        ("%YAML 1.2\n---\na: b\n", "yaml: found incompatible YAML document"),
    ],
)
def test_what_json_cannot_hold_is_refused_in_go_yamls_words(text: str, message: str) -> None:
    with pytest.raises(YamlError) as caught:
        parse_yaml(text.encode())
    assert str(caught.value) == message


def test_text_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(YamlError, match="yaml: invalid leading UTF-8 octet"):
        parse_yaml(b"a: \xff\n")


def test_keys_given_twice_are_one_complaint_with_their_lines() -> None:
    value, duplicates = parse_yaml(b"a: {x: 1, x: 2}\nb: 2\nb: 3\n")
    assert value == {"a": {"x": 2}, "b": 3}
    assert duplicates == [
        'yaml: unmarshal errors:\n  line 1: key "x" already set in map\n  line 3: key "b" already set in map'
    ]


def test_aliases_that_would_blow_up_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(YamlError, match="yaml: document contains excessive aliasing"):
        parse_yaml("\n".join(lines).encode())


def test_merges_that_would_blow_up_are_refused() -> None:
    big = ", ".join(f"k{i}: 1" for i in range(1000))
    body = f"b: &b {{{big}}}\nl: [{', '.join(['{<<: *b}'] * 1000)}]"
    with pytest.raises(YamlError, match="excessive aliasing"):
        parse_yaml(body.encode())


def test_an_alias_shares_nothing_with_its_anchor() -> None:
    value, _ = parse_yaml(b"a: &x {b: 1}\nc: *x\n")
    value["a"]["b"] = 2
    assert value["c"] == {"b": 1}


@pytest.mark.parametrize("text", ["- " * 300 + "x", "[" * 300 + "]" * 300])
def test_nesting_beyond_the_limit_is_refused(text: str) -> None:
    with pytest.raises(YamlError, match="nested deeper than 200 levels"):
        parse_yaml(text.encode())


def test_nesting_of_a_hundred_thousand_levels_is_refused() -> None:
    for text in ("- " * 100_000, "[" * 100_000):
        with pytest.raises(YamlError):
            parse_yaml(text.encode())


def test_a_yaml_body_becomes_an_object() -> None:
    obj, duplicates = codec.decode_yaml(b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n")
    assert obj == {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}
    assert duplicates == []


def test_a_yaml_body_that_is_none_gets_upstreams_message() -> None:
    with pytest.raises(ApiError) as caught:
        codec.decode_yaml(b"a: b: c", codec.Expected("v1", "Pod", typed=True))
    assert caught.value.message == (
        "the object provided is unrecognized (must be of type Pod): "
        "yaml: mapping values are not allowed in this context (613a20623a2063)"
    )


ODD_TEXTS: Final = (
    *("", "a", " ", "\n", "\t", '"', "\\", "/", "é", ":", "#", "- ", "{", "]", ",", "&", "*", "!", "<<", "~"),
    *(
        "null",
        "y",
        "0",
        "\x01",
        "\r",
        "\x7f",
        "\x85",
        "\u2028",
        "\ufeff",
        "\uffff",
        "\u200d",
        "😀",
        "k" * 600,
    ),
)
ODD_NUMBERS: Final = (0, -1, 2**53 - 1, 2**53, -(2**53), 2**63 - 1, 1.0, 1.5, -0.0, 1e300, 1e15)


def _odd_value(random: Random, depth: int = 0) -> Any:
    kind = random.random() if depth < 4 else 1.0
    if kind < 0.3:
        return {_odd_text(random): _odd_value(random, depth + 1) for _ in range(random.randrange(4))}
    if kind < 0.4:
        return [_odd_value(random, depth + 1) for _ in range(random.randrange(4))]
    return random.choice([_odd_text(random), random.choice(ODD_NUMBERS), True, False, None])


def _odd_text(random: Random) -> str:
    return "".join(random.choices(ODD_TEXTS, k=random.randrange(4)))


def _as_yaml(body: bytes) -> tuple[str, list[str]]:
    try:
        value, duplicates = parse_yaml(body)
    except YamlError:
        return "refused", []
    return repr(value), duplicates


def test_json_that_clients_write_means_what_it_means_in_yaml() -> None:
    random = Random(11)
    for _ in range(3000):
        body = orjson.dumps({"k": _odd_value(random), "l": _odd_value(random)})
        body = body.replace(b'"l"', random.choice((b'"l"', b'"l"', b'"k"')))
        # What begins with a space is not taken for what clients write.
        assert _as_yaml(body) == _as_yaml(b" " + body), body
