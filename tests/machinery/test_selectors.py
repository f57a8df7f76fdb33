"""Selectors: grammar, texts and matching as upstream's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.selectors import (
    REQUIREMENTS_MAX,
    SELECTOR_BYTES_MAX,
    FieldSelector,
    LabelSelector,
)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        ("a", "a"),
        ("!a", "!a"),
        ("a=b", "a=b"),
        ("a==b", "a=b"),
        (" a = b ", "a=b"),
        ("a=", "a="),
        ("a!=b", "a!=b"),
        ("b=1,a=2", "a=2,b=1"),
        ("a in (c,b,b)", "a in (b,c)"),
        ("a notin ()", "a notin ()"),
        ("a in (,b)", "a in (,b)"),
        ("a in (b,)", "a in (,b)"),
        ("a in (b,,c)", "a in (,b,c)"),
        ("x.io/y>5,z<7", "x.io/y>5,z<7"),
        ("in in (notin)", "in in (notin)"),
        ("notin", "notin"),
        ("a,\tb\n", "a,b"),
    ],
)
def test_a_selector_is_read_and_written_canonically(text: str, canonical: str) -> None:
    selector = LabelSelector.parse(text)
    assert selector.canonical == canonical
    assert LabelSelector.parse(canonical) == selector
    assert selector.is_everything == (canonical == "")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a in", "unable to parse requirement: found '' expected: '('"),
        ("a==b,,", "found ',', expected: identifier after ','"),
        (
            "a>b",
            "unable to parse requirement: values[0]: Invalid value: \"b\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a foo (b)", "unable to parse requirement: found 'foo', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in ((b)", "unable to parse requirement: found '(', expected: ',', ')' or identifier"),
        ("a=(b)", "unable to parse requirement: found '(', expected: identifier"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("!", "unable to parse requirement: found '', expected: identifier"),
    ],
)
def test_a_malformed_selector_is_refused_in_upstreams_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"expected|must be") as caught:
        LabelSelector.parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("-a=b", 'unable to parse requirement: <nil>: Invalid value: "-a": name part must consist of'),
        ("a=-b", 'unable to parse requirement: values[0][a]: Invalid value: "-b": a valid label must be'),
    ],
)
def test_keys_and_values_must_be_those_of_labels(text: str, beginning: str) -> None:
    with pytest.raises(ValueError, match=r"regex used") as caught:
        LabelSelector.parse(text)
    assert str(caught.value).startswith(beginning)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a", {"a": ""}, True),
        ("a", {}, False),
        ("!a", {}, True),
        ("!a", {"a": ""}, False),
        ("a=b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a=", {}, False),
        ("a!=b", {}, True),
        ("a!=b", {"a": "b"}, False),
        ("a in (b,c)", {"a": "c"}, True),
        ("a notin (b,c)", {"a": "d"}, True),
        ("a notin (b,c)", {"a": "b"}, False),
        ("a>1", {"a": "2"}, True),
        ("a>1", {"a": "1"}, False),
        ("a>1", {"a": "x"}, False),
        ("a>1", {}, False),
        ("a<1", {"a": "-5"}, True),
        ("a<1", {"a": "99999999999999999999"}, False),
        ("a=b,c", {"a": "b"}, False),
    ],
)
def test_matching(text: str, labels: dict[str, str], matches: bool) -> None:
    assert LabelSelector.parse(text).matches(labels) is matches


def test_requirements_and_length_are_bounded() -> None:
    with pytest.raises(ValueError, match="at most"):
        LabelSelector.parse(",".join(f"a{i}" for i in range(REQUIREMENTS_MAX + 1)))
    with pytest.raises(ValueError, match="at most"):
        LabelSelector.parse("a" * (SELECTOR_BYTES_MAX + 1))
    with pytest.raises(ValueError, match="at most"):
        FieldSelector.parse("a" * (SELECTOR_BYTES_MAX + 1))


def test_a_selector_object_means_the_same_as_its_text() -> None:
    selector = LabelSelector.from_object(
        {
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["x", "y"]},
                {"key": "d", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector == LabelSelector.parse("a=b,c in (x,y),!d")
    assert hash(selector) == hash(LabelSelector.parse("!d,a=b,c in (y,x)"))


def test_no_selector_object_selects_nothing_and_an_empty_one_everything() -> None:
    assert not LabelSelector.from_object(None).matches({})
    assert not LabelSelector.from_object(None).is_everything
    assert LabelSelector.from_object({}).is_everything
    assert LabelSelector.from_object(None) != LabelSelector.from_object({})


@pytest.mark.parametrize(
    ("selector", "error"),
    [
        (
            {"matchExpressions": [{"key": "a", "operator": "Foo"}]},
            '"Foo" is not a valid label selector operator',
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
        ),
        (
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]},
            'values: Invalid value: ["b"]: values set must be empty for exists and does not exist',
        ),
        ({"matchLabels": {"a": 1}}, "in a label selector keys, operators and values are strings"),
        ({"matchLabels": []}, None),
        ({"matchLabels": [1]}, "in a label selector matchLabels is a map, matchExpressions a list"),
        ({"matchExpressions": [1]}, "in a label selector matchExpressions has objects"),
    ],
)
def test_a_selector_object_is_checked(selector: dict[str, Any], error: str | None) -> None:
    if error is None:
        assert LabelSelector.from_object(selector).is_everything
        return
    with pytest.raises(ValueError, match=r".") as caught:
        LabelSelector.from_object(selector)
    assert str(caught.value) == error


def test_the_one_value_a_label_must_have_is_told() -> None:
    assert LabelSelector.parse("a=b").exact("a") == "b"
    assert LabelSelector.parse("a in (b)").exact("a") == "b"
    assert LabelSelector.parse("a in (b,c)").exact("a") is None
    assert LabelSelector.parse("a!=b").exact("a") is None
    assert LabelSelector.parse("a=b").exact("c") is None


@settings(deadline=None)
@given(
    st.text(alphabet="ab/.-_ in,()=!<>\t\0", max_size=30),
    st.dictionaries(st.sampled_from("ab"), st.sampled_from("ab")),
)
def test_a_selector_that_parses_matches_as_its_canonical_text_does(text: str, labels: dict[str, str]) -> None:
    try:
        selector = LabelSelector.parse(text)
    except ValueError:
        return
    assert LabelSelector.parse(selector.canonical).matches(labels) == selector.matches(labels)


@pytest.mark.parametrize(
    ("text", "requirements"),
    [
        ("", ()),
        ("metadata.name=a", (("metadata.name", "=", "a"),)),
        ("b==1,a!=2", (("a", "!=", "2"), ("b", "=", "1"))),
        (r"a=x\,y\=\\", (("a", "=", "x,y=\\"),)),
        (",,a=,", (("a", "=", ""),)),
        ("=", ()),
    ],
)
def test_a_field_selector_is_read(text: str, requirements: tuple[tuple[str, str, str], ...]) -> None:
    selector = FieldSelector.parse(text)
    assert selector.requirements == requirements
    assert FieldSelector.parse(selector.canonical) == selector
    assert selector.is_everything == (not requirements)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a", "invalid selector: 'a'; can't understand 'a'"),
        ("a=b\\c", "invalid field selector: invalid escape sequence: \\c"),
        ("a=b\\", "invalid field selector: invalid escape sequence: \\"),
        ("a=b=c", "invalid field selector: unescaped character in value: 61"),
    ],
)
def test_a_malformed_field_selector_is_refused_in_upstreams_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"^invalid") as caught:
        FieldSelector.parse(text)
    assert str(caught.value) == error


def test_a_field_that_is_missing_is_the_empty_string() -> None:
    assert FieldSelector.parse("a=").matches({})
    assert FieldSelector.parse("a!=b").matches({})
    assert not FieldSelector.parse("a=b").matches({})
    assert FieldSelector.parse("a=b,c!=d").matches({"a": "b", "c": "x"})
    assert not FieldSelector.parse("a=b,c!=d").matches({"a": "b", "c": "d"})


def test_the_one_value_a_field_must_have_is_told() -> None:
    selector = FieldSelector.parse("metadata.name=a,metadata.namespace!=b")
    assert selector.exact("metadata.name") == "a"
    assert selector.exact("metadata.namespace") is None
