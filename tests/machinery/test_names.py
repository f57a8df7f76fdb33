"""Names: what is allowed, and the words of a refusal."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery import names
from clusterling.machinery.names import ClusterName, generate_name

SUBDOMAIN = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
KEY = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)

RIGHT: list[tuple[Callable[[str], list[str]], list[str]]] = [
    (names.is_dns1123_label, ["a", "a1", "1", "a-b", "x" * 63]),
    (names.is_dns1123_subdomain, ["a", "a.b", "1.2-3.c", ("a" * 63 + ".") * 3 + "a" * 61]),
    (names.is_dns1035_label, ["a", "a-1", "a" * 63]),
    (names.is_qualified_name, ["simple", "A_.b", "a/b", "example.com/Up_1", "a" * 253 + "/" + "b" * 63]),
    (names.is_label_value, ["", "a", "A_.-b", "1" * 63]),
    (names.is_path_segment_name, ["", "...", "system:node", "é"]),
    (names.is_c_identifier, ["_", "a_1", "A"]),
    (names.is_config_map_key, ["a", ".a", "_-.", "a..b", "x" * 253]),
    (names.is_port_name, ["http", "a-1", "1a"]),
    (names.is_wildcard_dns1123_subdomain, ["*.a", "*.a.b"]),
    (names.is_percent, ["0%", "100%"]),
]


@pytest.mark.parametrize(("rule", "values"), RIGHT)
def test_right_values_have_no_problems(rule: Callable[[str], list[str]], values: list[str]) -> None:
    assert {value: rule(value) for value in values} == {value: [] for value in values}


@pytest.mark.parametrize(
    ("rule", "value", "problems"),
    [
        (names.is_dns1123_subdomain, "A_", [SUBDOMAIN]),
        (names.is_dns1123_subdomain, "a\n", [SUBDOMAIN]),
        (names.is_dns1123_subdomain, "a" * 254, ["must be no more than 253 characters"]),
        (names.is_dns1123_subdomain, "é" * 127, ["must be no more than 253 characters", SUBDOMAIN]),
        (names.is_dns1123_label, "a.b", ["must not contain dots"]),
        (names.is_dns1123_label, "a" * 64, ["must be no more than 63 characters"]),
        (names.is_qualified_name, "-", [f"name part {KEY}"]),
        (names.is_qualified_name, "/a", ["prefix part must be non-empty"]),
        (names.is_qualified_name, "a/", ["name part must be non-empty", f"name part {KEY}"]),
        (names.is_qualified_name, "A/a", [f"prefix part {SUBDOMAIN}"]),
        (names.is_qualified_name, "a" * 254 + "/a", ["prefix part must be no more than 253 bytes"]),
        (names.is_qualified_name, "a" * 64, ["name part must be no more than 63 bytes"]),
        (
            names.is_qualified_name,
            "x/y/z",
            [
                f"a valid label key {KEY} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            ],
        ),
        (names.is_label_value, "a" * 64, ["must be no more than 63 bytes"]),
        (names.is_path_segment_name, ".", ["may not be '.'"]),
        (names.is_path_segment_name, "..", ["may not be '..'"]),
        (names.is_path_segment_name, "a/b%", ["may not contain '/'", "may not contain '%'"]),
        (names.is_config_map_key, "..", ["must not be '..'"]),
        (names.is_config_map_key, "..a", ["must not start with '..'"]),
        (
            names.is_port_name,
            "--1",
            [
                "must contain at least one letter (a-z)",
                "must not contain consecutive hyphens",
                "must not begin or end with a hyphen",
            ],
        ),
        (
            names.is_port_name,
            "A" * 16,
            [
                "must be no more than 15 characters",
                "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                "must contain at least one letter (a-z)",
            ],
        ),
    ],
)
def test_a_wrong_value_is_refused_in_upstreams_words(
    rule: Callable[[str], list[str]], value: str, problems: list[str]
) -> None:
    assert rule(value) == problems


@settings(deadline=None)
@given(st.text(alphabet="aZ0-._/%é\n", max_size=70))
def test_the_short_way_for_keys_agrees_with_the_rule_spelled_out(value: str) -> None:
    prefix, slash, name = value.rpartition("/")
    right = (
        bool(names._key(name)) and len(name) <= 63 and (not slash or not names.is_dns1123_subdomain(prefix))
    )
    assert (names.is_qualified_name(value) == []) == right


def test_a_generated_name_is_the_base_and_five_characters_without_vowels() -> None:
    name = generate_name("web-", random.Random(1).randrange)
    assert name.startswith("web-")
    assert len(name) == 9
    assert set(name[4:]) <= set("bcdfghjklmnpqrstvwxz2456789")


def test_a_long_base_is_cut_so_that_the_name_fits_a_label() -> None:
    assert len(generate_name("a" * 100, random.Random(1).randrange)) == 63


@pytest.mark.parametrize("text", ["a", "team-a", "0", "a" * 63])
def test_a_cluster_name_is_a_dns_label(text: str) -> None:
    assert ClusterName.parse(text) == text


@pytest.mark.parametrize(
    "text", ["", "A", "a.b", "-a", "a-", "a" * 64, "a/b", "..", "%61", "a\n", "ａ", "a\0"]
)
def test_nothing_else_is_a_cluster_name(text: str) -> None:
    with pytest.raises(ValueError, match=r"must"):
        ClusterName.parse(text)
