from __future__ import annotations

import pytest

from clusterling.machinery.addresses import (
    canonical_cidr_problems,
    canonical_ip_problems,
    cidr_problems,
    cidr_warnings,
    contains,
    family_of,
    ip_problems,
    ip_warnings,
    parse_cidr,
    parse_ip,
    special_ip_problems,
)

NO_ADDRESS = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
NO_RANGE = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"


@pytest.mark.parametrize(
    ("text", "means", "strict", "canonical"),
    [
        ("10.0.0.1", "10.0.0.1", [], []),
        ("100.20.0.10", "100.20.0.10", [], []),
        ("010.00.0.1", "10.0.0.1", ["must not have leading 0s"], ["must not have leading 0s"]),
        ("FD00::1", "fd00::1", [], ['must be in canonical form ("fd00::1")']),
        ("::ffff:1.2.3.4", "1.2.3.4", *(2 * (["must not be an IPv4-mapped IPv6 address"],))),
        *((wrong, None, [NO_ADDRESS], [NO_ADDRESS]) for wrong in (
            "", "x", "1.2.3", "1.2.3.4.5", "256.0.0.1", "1.2.3.4/8", "fe80::1%eth0", "0" * 10_000 + "1.2.3.4", "-1.0.0.0",
        )),
    ],
)  # fmt: skip
def test_addresses_are_read_leniently_and_taken_strictly(
    text: str, means: str | None, strict: list[str], canonical: list[str]
) -> None:
    found = parse_ip(text)
    assert (None if found is None else str(found)) == means
    assert (ip_problems(text), canonical_ip_problems(text)) == (strict, canonical)


@pytest.mark.parametrize(
    ("text", "means", "strict", "canonical"),
    [
        ("10.0.0.0/8", "10.0.0.0/8", [], []),
        ("10.0.0.1/8", "10.0.0.0/8", *(2 * (["must not have bits set beyond the prefix length"],))),
        ("010.0.0.0/8", "10.0.0.0/8", *(2 * (["must not have leading 0s in IP or prefix length"],))),
        ("10.0.0.0/08", "10.0.0.0/8", *(2 * (["must not have leading 0s in IP or prefix length"],))),
        ("FD00::/64", "fd00::/64", [], ['must be in canonical form ("fd00::/64")']),
        ("::ffff:1.2.3.0/120", "::ffff:102:300/120", *(2 * (["must not have an IPv4-mapped IPv6 address"],))),
        *((wrong, None, [NO_RANGE], [NO_RANGE]) for wrong in (
            "", "x", "10.0.0.0", "10.0.0.0/", "10.0.0.0/33", "::/129", "10.0.0.0/-1", "10.0.0.0/٣", "1.2.3.4/8/8",
        )),
    ],
)  # fmt: skip
def test_ranges_are_read_leniently_and_taken_strictly(
    text: str, means: str | None, strict: list[str], canonical: list[str]
) -> None:
    found = parse_cidr(text)
    assert (None if found is None else str(found)) == means
    assert (cidr_problems(text), canonical_cidr_problems(text)) == (strict, canonical)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.1", []),
        ("x", []),
        ("010.0.0.1", ['p: non-standard IP address "010.0.0.1" is invalid: use "10.0.0.1"']),
        ("FD00::1", ['p: IPv6 address "FD00::1" should be in RFC 5952 canonical format ("fd00::1")']),
    ],
)
def test_unusual_addresses_are_told_of(text: str, told: list[str]) -> None:
    assert ip_warnings("p", text) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("10.0.0.0/8", []),
        ("x", []),
        ("10.0.0.1/8",
         ['p: CIDR value "10.0.0.1/8" is ambiguous in this context (should be "10.0.0.0/8" or "10.0.0.1/32"?)']),
        ("10.0.0.0/08", ['p: non-standard CIDR value "10.0.0.0/08" is invalid: use "10.0.0.0/8"']),
        ("FD00::/64", ['p: IPv6 CIDR value "FD00::/64" should be in RFC 5952 canonical format ("fd00::/64")']),
    ],
)  # fmt: skip
def test_unusual_ranges_are_told_of(text: str, told: list[str]) -> None:
    assert cidr_warnings("p", text) == told


@pytest.mark.parametrize("text", ["::", "127.0.0.1", "::1", "169.254.1.1", "fe80::1", "224.0.0.1", "ff02::1"])
def test_addresses_that_lead_nowhere_from_outside_are_none_to_send_to(text: str) -> None:
    assert [error.field for error in special_ip_problems(text, "p")] == ["p"]


def test_a_range_contains_smaller_ones_of_its_family() -> None:
    outer, inner, other = parse_cidr("10.0.0.0/8"), parse_cidr("10.1.0.0/16"), parse_cidr("fd00::/64")
    assert outer is not None and inner is not None and other is not None
    assert contains(outer, inner)
    assert not contains(outer, outer)
    assert not contains(inner, outer)
    assert not contains(outer, other)
    assert (family_of("10.0.0.1"), family_of("::1"), family_of("x")) == ("IPv4", "IPv6", "")
