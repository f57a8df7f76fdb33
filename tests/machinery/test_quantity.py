"""Quantities: what is read, and the one way it is written (checked against apimachinery 0.37)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterling.machinery.quantity import CHARACTERS_MAX, EXPONENT_MAX, Format, Quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("1", "1"),
        ("100m", "100m"),
        ("1000m", "1"),
        ("0.1", "100m"),
        ("1.5", "1500m"),
        ("1.5Gi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1025Mi", "1025Mi"),
        ("512", "512"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1.3Mi", "1363148800m"),
        ("12e6", "12e6"),
        ("1200e4", "12e6"),
        ("100e-3", "100e-3"),
        ("0.1m", "100u"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1E", "1E"),
        ("1000P", "1E"),
        ("5E3", "5E3"),
        ("-1Gi", "-1Gi"),
        (".5", "500m"),
        ("5.", "5."),
        ("100000", "100k"),
        ("1001", "1001"),
        ("9Ei", "9223372036854775807"),
        ("-9Ei", "-9223372036854775807"),
        ("8Ei", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("0Ki", "0"),
        ("00", "0"),
    ],
)
def test_a_quantity_is_written_canonically(text: str, canonical: str) -> None:
    quantity = Quantity.parse(text)
    assert quantity.canonical == canonical
    assert Quantity.parse(canonical).canonical == canonical


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "quantities must match the regular expression"),
        ("a", "quantities must match the regular expression"),
        ("1 ", "quantities must match the regular expression"),
        ("1.1.1", "quantities must match the regular expression"),
        ("1Kii", "unable to parse quantity's suffix"),
        ("1mm", "unable to parse quantity's suffix"),
        ("1e", "unable to parse quantity's suffix"),
        ("1+5", "unable to parse quantity's suffix"),
        (".e-10", "unable to parse numeric part of quantity"),
        (f"1e{EXPONENT_MAX + 1}", "unable to parse quantity's suffix"),
        ("1e999999999999999999999", "unable to parse quantity's suffix"),
        ("1" * (CHARACTERS_MAX + 1), "quantities must match the regular expression"),
        ("٣", "quantities must match the regular expression"),
    ],
)
def test_what_is_no_quantity_is_refused_in_upstreams_words(text: str, error: str) -> None:
    with pytest.raises(ValueError, match=r"quantit") as caught:
        Quantity.parse(text)
    assert str(caught.value).startswith(error)


def test_numbers_are_quantities() -> None:
    assert Quantity.parse(2).canonical == "2"
    assert Quantity.parse(0.5).canonical == "500m"


def test_quantities_compare_as_numbers() -> None:
    assert Quantity.parse("1") == Quantity.parse("1000m")
    assert hash(Quantity.parse("1")) == hash(Quantity.parse("1000m"))
    assert Quantity.parse("1Ki") > Quantity.parse("1k")
    assert Quantity.parse("-1") < Quantity.parse("1n")
    assert Quantity.parse("1e3") <= Quantity.parse("1k")
    assert Quantity.parse("1") != "1"


def test_a_sum_is_written_as_its_first_part_is() -> None:
    assert str(Quantity.parse("1Gi") + Quantity.parse("1024Mi")) == "2Gi"
    assert str(Quantity.parse("0") + Quantity.parse("1Ki")) == "1Ki"
    assert str(Quantity.parse("1") - Quantity.parse("250m")) == "750m"
    assert (Quantity.parse("1Gi") - Quantity.parse("1Gi")).format is Format.BINARY_SI


@pytest.mark.parametrize(
    ("text", "whole"), [("1500m", 2), ("-1500m", -2), ("1k", 1000), ("1n", 1), ("0", 0), ("1Ki", 1024)]
)
def test_a_whole_number_is_rounded_away_from_zero(text: str, whole: int) -> None:
    assert Quantity.parse(text).rounded_up() == whole


QUANTITIES = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "-"]),
    st.decimals(min_value=0, max_value=10**12, places=3),
    st.sampled_from(["", "n", "m", "k", "E", "Ki", "Gi", "e3", "e-6"]),
).map(Quantity.parse)


@settings(deadline=None)
@given(QUANTITIES)
def test_the_canonical_text_is_a_fixed_point_and_loses_nothing(quantity: Quantity) -> None:
    again = Quantity.parse(quantity.canonical)
    assert again.canonical == quantity.canonical
    assert again == quantity


@settings(deadline=None)
@given(QUANTITIES, QUANTITIES)
def test_addition_is_exact(left: Quantity, right: Quantity) -> None:
    assert left + right == right + left
    assert (left + right) - right == left
    assert (left < left + right) == (Quantity(0) < right)
