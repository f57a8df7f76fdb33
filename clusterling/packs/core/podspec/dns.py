"""How a pod resolves names, and what it is called. Upstream: validatePodDNSConfig, ValidateHostAliases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from clusterling.machinery.errors import forbidden_field, invalid_value, required, too_long
from clusterling.machinery.meta import Object
from clusterling.machinery.names import SUBDOMAIN_BYTES_MAX, is_dns1123_subdomain
from clusterling.packs.core.podspec.rules import Problems, address, items, label, named, one_of_needed

POLICIES: Final = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
NAMESERVERS_MAX: Final = 3
SEARCHES_MAX: Final = 32
SEARCH_BYTES_MAX: Final = 2048
HOSTNAME_BYTES_MAX: Final = 64

_LABEL: Final = "_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_DOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_is_domain = re.compile(_DOMAIN.replace("(", "(?:")).fullmatch


def dns_problems(spec: Object, path: str) -> Problems:
    policy, config, here = spec.get("dnsPolicy"), spec.get("dnsConfig"), f"{path}.dnsConfig"
    if policy == "None" and config is None:
        yield required(here, "must provide `dnsConfig` when `dnsPolicy` is None")
        return
    servers: Sequence[str] = (config or {}).get("nameservers") or ()
    if policy == "None" and not servers:
        why = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        yield required(f"{here}.nameservers", why)
        return
    if config is None:
        return
    if len(servers) > NAMESERVERS_MAX:
        why = f"must not have more than {NAMESERVERS_MAX} nameservers"
        yield invalid_value(f"{here}.nameservers", servers, why)
    for index, server in enumerate(servers):
        yield from address(server, f"{here}.nameservers[{index}]")
    yield from _search_problems(config.get("searches") or (), f"{here}.searches")
    for place, option in items(config, "options", here):
        if not option.get("name"):
            yield required(place, "must not be empty")


def _search_problems(searches: Sequence[str], path: str) -> Problems:
    if len(searches) > SEARCHES_MAX:
        yield invalid_value(path, searches, f"must not have more than {SEARCHES_MAX} search paths")
    if len(" ".join(searches).encode()) > SEARCH_BYTES_MAX:
        why = f"must not have more than {SEARCH_BYTES_MAX} characters (including spaces) in the search list"
        yield invalid_value(path, searches, why)
    for index, search in enumerate(searches):
        if search != ".":
            yield from named(search.removesuffix("."), f"{path}[{index}]", _domain_problems)


def _domain_problems(value: str) -> Sequence[str]:
    found = []
    if len(value.encode()) > SUBDOMAIN_BYTES_MAX:
        found.append(f"must be no more than {SUBDOMAIN_BYTES_MAX} characters")
    if not _is_domain(value):
        found.append(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', "
            "and must start and end with an alphanumeric character "
            f"(e.g. 'example.com', regex used for validation is '{_DOMAIN}')"
        )
    return found


def policy_problems(spec: Object, path: str) -> Problems:
    yield from one_of_needed(spec.get("dnsPolicy"), f"{path}.dnsPolicy", POLICIES)


def hostname_problems(spec: Object, path: str) -> Problems:
    """`hostnameOverride` and what excludes it."""
    name, here = spec.get("hostnameOverride"), f"{path}.hostnameOverride"
    if name is None:
        return
    if spec.get("setHostnameAsFQDN"):
        yield forbidden_field(here, "may not be specified when setHostnameAsFQDN is true")
    if spec.get("hostNetwork"):
        yield forbidden_field(here, "may not be specified when hostNetwork is true")
    if len(name.encode()) > HOSTNAME_BYTES_MAX:
        yield too_long(here, HOSTNAME_BYTES_MAX)
    yield from named(name, here, is_dns1123_subdomain)


def label_names_problems(spec: Object, path: str) -> Problems:
    """`hostname` and `subdomain`."""
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            yield from label(spec[field], f"{path}.{field}")


def alias_problems(spec: Object, path: str) -> Problems:
    for here, alias in items(spec, "hostAliases", path):
        yield from address(alias.get("ip") or "", f"{here}.ip")
        for index, host in enumerate(alias.get("hostnames") or ()):
            yield from named(host, f"{here}.hostnames[{index}]", is_dns1123_subdomain)
