"""YAML answers: every reader gets back the value that went in."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from clusterling.machinery.yaml import parse_yaml
from clusterling.machinery.yamltext import dump

TEXTS = ["", "y", "N", "on", "Off", "yes", "null", "~", "1", "1e3", "0o17", "017", "0x1F", "1_000", ".5", ".inf", "-", "- a",
         "a: b", " lead", "trail ", "two\nlines", "two\nlines\n", "\n", "tab\t", "é", "2020-01-01", "=", "<<", "#c", "a #b",
         "'q'", '"', "*a", "&a", "!t", "%d", "@x", "`", "{", "[", "?", ":", "| x", "\u2028", "x" * 300 + " " + "y" * 90]  # fmt: skip

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda number: not number.is_integer())
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")))
    | st.sampled_from(TEXTS),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1), inner, max_size=4
        )
    ),
    max_leaves=20,
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_string_stays_that_string_for_go_and_for_yaml_1_1(text: str) -> None:
    written = dump({"k": text})
    assert parse_yaml(written)[0] == {"k": text}
    assert yaml.safe_load(written) == {"k": text}


@given(st.dictionaries(st.sampled_from(["a", "y", "1", "null", "<<"]), json_values, max_size=4))
def test_what_is_written_reads_back_as_it_was(value: dict[str, Any]) -> None:
    assert parse_yaml(dump(value)) == (value, [])


def test_keys_are_sorted_and_numbers_carry_no_tags() -> None:
    assert (
        dump({"b": 1e22, "a": [1.5, None, True], "c": {}})
        == b"a:\n- 1.5\n- null\n- true\nb: 1.0e+22\nc: {}\n"
    )
