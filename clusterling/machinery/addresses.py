"""IP addresses and ranges as upstream reads them: leniently in what it compares, strictly in what it takes anew.

Two readings of one text: `parse_ip` and `parse_cidr` take what old fields were allowed to hold (leading zeros,
IPv4 within IPv6), `*_problems` say what a new value may not be. Upstream: apimachinery pkg/util/validation/ip.go,
k8s.io/utils/net.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from clusterling.machinery.errors import FieldError, go_quote, invalid_value

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

IPV4: Final = "IPv4"
IPV6: Final = "IPv6"

_CHARACTERS_MAX: Final = 64  # No address is longer, leading zeros aside.
_LEADING_ZEROS: Final = re.compile(r"(?<![0-9A-Fa-f:])0+(?=[0-9])")
_LINK_LOCAL_MULTICAST: Final = (ip_network("224.0.0.0/24"), ip_network("ff02::/16"))


def parse_ip(text: str) -> Address | None:
    """The address, with leading zeros or not; IPv4 within IPv6 is IPv4. None where it is none."""
    found = _literal(_LEADING_ZEROS.sub("", text) if _is_dotted(text) else text)
    return _plain(found)


def _literal(text: str) -> Address | None:
    if len(text) > _CHARACTERS_MAX or "%" in text or "/" in text:
        return None
    try:
        return ip_address(text)
    except ValueError:
        return None


def _plain(address: Address | None) -> Address | None:
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_dotted(text: str) -> bool:
    return len(text) <= _CHARACTERS_MAX and ":" not in text


def family_of(text: str) -> str:
    """`IPv4`, `IPv6`, or "" where the text is no address."""
    address = parse_ip(text)
    return "" if address is None else family(address)


def family(of: Address | Network) -> str:
    return IPV6 if of.version == 6 else IPV4


def ip_problems(text: str) -> list[str]:
    """What is wrong with an address in a field that was once read leniently, in upstream's words."""
    if parse_ip(text) is None:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    strict = _literal(text)
    if strict is None:
        return ["must not have leading 0s"]
    return ["must not be an IPv4-mapped IPv6 address"] if _is_mapped(strict) else []


def canonical_ip_problems(text: str) -> list[str]:
    """The same where the form must be the canonical one."""
    found = ip_problems(text)
    if not found and (canonical := str(parse_ip(text))) != text:
        found.append(f"must be in canonical form ({go_quote(canonical)})")
    return found


def ip_warnings(path: str, text: str) -> list[str]:
    """What is told of an address that is valid and unusual."""
    address, strict = parse_ip(text), _literal(text)
    if address is None:
        return []
    if strict is None or _is_mapped(strict):
        return [f"{path}: non-standard IP address {go_quote(text)} is invalid: use {go_quote(str(address))}"]
    if strict.version == 6 and str(strict) != text:
        return [
            f"{path}: IPv6 address {go_quote(text)} should be in RFC 5952 canonical format ({go_quote(str(strict))})"
        ]
    return []


def special_ip_problems(text: str, path: str) -> list[FieldError]:
    """What no traffic is sent to from outside a machine (upstream: ValidateEndpointIP)."""
    address = parse_ip(text)
    if address is None:
        return [invalid_value(path, text, "must be a valid IP address")]
    found = []
    if address.is_unspecified:
        found.append(f"may not be unspecified ({text})")
    if address.is_loopback:
        found.append("may not be in the loopback range (127.0.0.0/8, ::1/128)")
    if address.is_link_local:
        found.append("may not be in the link-local range (169.254.0.0/16, fe80::/10)")
    if any(address in network for network in _LINK_LOCAL_MULTICAST):
        found.append("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
    return [invalid_value(path, text, problem) for problem in found]


def parse_cidr(text: str) -> Network | None:
    """The range that the text lies in, with leading zeros or bits beyond the prefix or not. None where it is none."""
    found = _split(text)
    return None if found is None else found[1]


def _split(text: str) -> tuple[Address, Network] | None:
    """The address before the slash, and the range."""
    before, slash, bits = text.partition("/")
    lenient = _LEADING_ZEROS.sub("", before) if _is_dotted(before) else before
    address = _literal(lenient)
    if address is None or not slash or not (bits.isascii() and bits.isdigit()) or len(bits) > 8:
        return None
    if int(bits) > address.max_prefixlen:
        return None
    return address, ip_network(f"{address}/{int(bits)}", strict=False)


def cidr_problems(text: str) -> list[str]:
    """What is wrong with a range in a field that was once read leniently, in upstream's words."""
    found = _split(text)
    if found is None:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    before, _, bits = text.partition("/")
    address, network = found
    if _literal(before) is None or (len(bits) > 1 and bits[0] == "0"):
        return ["must not have leading 0s in IP or prefix length"]
    if _is_mapped(address):
        return ["must not have an IPv4-mapped IPv6 address"]
    if address != network.network_address:
        return ["must not have bits set beyond the prefix length"]
    return []


def canonical_cidr_problems(text: str) -> list[str]:
    """The same where the form must be the canonical one."""
    found = cidr_problems(text)
    if not found and (canonical := str(parse_cidr(text))) != text:
        found.append(f"must be in canonical form ({go_quote(canonical)})")
    return found


def cidr_warnings(path: str, text: str) -> list[str]:
    """What is told of a range that is valid and unusual."""
    split = _split(text)
    if split is None:
        return []
    address, network = split
    found = []
    if address != network.network_address:
        single = go_quote(f"{address}/{address.max_prefixlen}")
        found.append(
            f"{path}: CIDR value {go_quote(text)} is ambiguous in this context "
            f"(should be {go_quote(str(network))} or {single}?)"
        )
    wrong = [one for one in cidr_problems(text) if "bits set" not in one]
    if wrong:
        found.append(
            f"{path}: non-standard CIDR value {go_quote(text)} is invalid: use {go_quote(str(network))}"
        )
    if not found and network.version == 6 and str(network) != text:
        found.append(
            f"{path}: IPv6 CIDR value {go_quote(text)} should be in RFC 5952 canonical format ({go_quote(str(network))})"
        )
    return found


def contains(outer: Network, inner: Network) -> bool:
    """`inner` begins within `outer`, and is smaller."""
    return (
        outer.version == inner.version
        and inner.network_address in outer
        and outer.prefixlen < inner.prefixlen
    )


def problems_at(path: str, text: str, found: Sequence[str]) -> list[FieldError]:
    """The problems of one value, as errors of its field."""
    return [invalid_value(path, text, problem) for problem in found]


def _is_mapped(address: Address) -> bool:
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None
