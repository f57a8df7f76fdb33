"""Addresses and families of a service: what its fields mean together before anything is allocated.

Clients give `clusterIP`, `clusterIPs`, `ipFamilies` and `ipFamilyPolicy` in every combination; this makes them agree or
says why they cannot. Every cluster here has one family of service addresses, IPv4.
Upstream: kubernetes pkg/registry/core/service/storage/{storage,alloc}.go, ValidateServiceClusterIPsRelatedFields.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.addresses import IPV4, IPV6, family_of, ip_problems, problems_at
from clusterling.machinery.errors import (
    FieldError,
    duplicate,
    invalid,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object, name_of
from clusterling.packs.core.services_shape import (
    CLUSTER_IP,
    LOAD_BALANCER,
    NO_ADDRESS,
    NODE_PORT,
    cluster_ips,
    families,
    gets_node_ports,
    has_type,
    is_external_name,
    is_headless,
    needs_health_check,
    node_ports,
    ports_of,
    same,
)

CONFIGURED: Final = (IPV4,)
SINGLE: Final = "SingleStack"
PREFER: Final = "PreferDualStack"
REQUIRE: Final = "RequireDualStack"

_IPS: Final = "spec.clusterIPs"
_FAMILIES: Final = "spec.ipFamilies"
_POLICY: Final = "spec.ipFamilyPolicy"
_KNOWN_FAMILIES: Final = (IPV4, IPV6)
_POLICIES: Final = (PREFER, REQUIRE, SINGLE)


def settle(new: Object, old: Object | None) -> None:
    """Makes the fields of a service being written agree, so that what is left to do is to allocate. Raises ApiError 422."""
    after, before = new["spec"], None if old is None else old["spec"]
    if before is not None:
        _keep_allocated(after, before)
    _join_addresses(after, before)
    if is_external_name(after) or _stays_as_preferred(after, before):
        return
    _settle_policy(after, before)
    _refuse(new, address_problems(after, before))
    wrong = [] if before is None else _settle_reduction(after, before)
    wrong += _single_problems(after)
    wrong += _infer_families(after)
    _refuse(new, wrong)
    if after.get("clusterIP") == NO_ADDRESS and not after.get("selector"):
        # Nobody knows what endpoints it will be given, so any families may be asked for.
        found = after.setdefault("ipFamilies", [CONFIGURED[0]])
        if len(found) < 2 and after["ipFamilyPolicy"] != SINGLE:
            after["ipFamilies"] = [*found, IPV6 if found[0] == IPV4 else IPV4]
        return
    wrong = []
    if after["ipFamilyPolicy"] == REQUIRE:
        wrong.append(
            invalid_value(_POLICY, REQUIRE, "this cluster is not configured for dual-stack services")
        )
    wrong += [
        invalid_value(f"{_FAMILIES}[{index}]", one, "not configured on this cluster")
        for index, one in enumerate(families(after))
        if one not in CONFIGURED
    ]
    _refuse(new, wrong)
    after.setdefault("ipFamilies", [CONFIGURED[0]])


def _refuse(new: Object, wrong: list[FieldError]) -> None:
    if wrong:
        raise invalid("Service", "", name_of(new), wrong)


def _keep_allocated(after: Object, before: Object) -> None:
    """What was allocated for a client stays, where the client does not repeat it (upstream: patchAllocatedValues)."""
    if not is_external_name(before) and not is_external_name(after):
        for field in ("clusterIP", "clusterIPs"):
            if not after.get(field) and before.get(field):
                after[field] = before[field]
    if gets_node_ports(before) and gets_node_ports(after):
        used = set(node_ports(before)) & set(node_ports(after))
        by_name = {port.get("name", ""): port.get("nodePort", 0) for port in ports_of(before)}
        for port in ports_of(after):
            was = by_name.get(port.get("name", ""), 0)
            if not port.get("nodePort") and was and was not in used:
                port["nodePort"] = was
    if needs_health_check(before) and needs_health_check(after) and not after.get("healthCheckNodePort"):
        after["healthCheckNodePort"] = before.get("healthCheckNodePort", 0)


def _join_addresses(after: Object, before: Object | None) -> None:
    """`clusterIPs` as an old client, which knows `clusterIP` alone, means it (upstream: normalizeClusterIPs)."""
    mine = after.get("clusterIP", "")
    if before is None:
        if mine and not cluster_ips(after):
            after["clusterIPs"] = [mine]
        return
    was = before.get("clusterIP", "")
    if cluster_ips(before) and not cluster_ips(after) and was == mine:
        after["clusterIPs"] = before["clusterIPs"]
    if was != mine and same(after, before, "clusterIPs"):
        if mine or not was:
            after["clusterIPs"] = [mine]
        else:
            after.pop("clusterIPs", None)


def _stays_as_preferred(after: Object, before: Object | None) -> bool:
    """A PreferDualStack service keeps what it has until it is told otherwise."""
    return (
        before is not None
        and after.get("ipFamilyPolicy") == PREFER
        and before.get("ipFamilyPolicy") in (None, PREFER)
        and has_type(after, CLUSTER_IP, NODE_PORT, LOAD_BALANCER)
        and same(after, before, "type", "clusterIPs", "ipFamilies")
    )


def _settle_policy(after: Object, before: Object | None) -> None:
    if after.get("ipFamilyPolicy") is not None:
        return
    if before is not None and before.get("ipFamilyPolicy") is not None:
        after["ipFamilyPolicy"] = before["ipFamilyPolicy"]
    else:
        open_ended = after.get("clusterIP") == NO_ADDRESS and not after.get("selector")
        after["ipFamilyPolicy"] = REQUIRE if open_ended else SINGLE


def _settle_reduction(after: Object, before: Object) -> list[FieldError]:
    policy = after["ipFamilyPolicy"]
    found = []
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        mine, was = after.get(field) or [], before.get(field) or []
        if policy == SINGLE and mine == was and len(mine) > 1:
            after[field] = mine[:1]
        elif policy != SINGLE and mine and len(mine) < len(was):
            why = f"must be 'SingleStack' to release the secondary {what}"
            found.append(invalid_value(_POLICY, policy, why))
    return found


def _single_problems(after: Object) -> list[FieldError]:
    if after["ipFamilyPolicy"] != SINGLE:
        return []
    why = "must be 'RequireDualStack' or 'PreferDualStack' when multiple"
    return [
        invalid_value(_POLICY, SINGLE, f"{why} {what} are specified")
        for what, given in (("cluster IPs", cluster_ips(after)), ("IP families", families(after)))
        if len(given) == 2
    ]


def _infer_families(after: Object) -> list[FieldError]:
    """Families of the addresses given, in place; what is wrong with those that no cluster here has."""
    found = []
    for index, text in enumerate(cluster_ips(after)):
        if text == NO_ADDRESS:
            break
        if index < len(families(after)):
            continue
        mine = family_of(text)
        if mine in CONFIGURED:
            after["ipFamilies"] = [*families(after), mine]
        else:
            why = f"{mine} is not configured on this cluster"
            found.append(invalid_value(f"{_IPS}[{index}]", cluster_ips(after), why))
    return found


def address_problems(after: Object, before: Object | None) -> list[FieldError]:
    """What of a service's addresses and families cannot be, wherever it is served."""
    if is_external_name(after):
        return []
    ips, single = cluster_ips(after), after.get("clusterIP", "")
    found = _agreement_problems(ips, single)
    seen: set[str] = set()
    for index, one in enumerate(families(after)):
        path = f"{_FAMILIES}[{index}]"
        if one not in _KNOWN_FAMILIES:
            found.append(not_supported(path, one, _KNOWN_FAMILIES))
        if one in seen:
            found.append(duplicate(path, one))
        seen.add(one)
    policy = after.get("ipFamilyPolicy")
    if policy is not None and policy not in _POLICIES:
        found.append(not_supported(_POLICY, policy, _POLICIES))
    wrong = _ip_problems(ips, [] if before is None else cluster_ips(before))
    found += wrong
    if len(ips) > 2:
        found.append(invalid_value(_IPS, ips, "may only hold up to 2 values"))
    return found if wrong else found + _stack_problems(after, ips)


def _agreement_problems(ips: list[str], single: str) -> list[FieldError]:
    if single and not ips:
        return [required(_IPS)]
    if single and ips[0] != single:
        return [invalid_value(_IPS, ips, "first value must match `clusterIP`")]
    if ips and not single:
        return [invalid_value(_IPS, ips, "must be empty when `clusterIP` is not specified")]
    return []


def _ip_problems(ips: list[str], known: list[str]) -> list[FieldError]:
    found = []
    for index, text in enumerate(ips):
        if not index and text == NO_ADDRESS:
            if len(ips) > 1:
                found.append(invalid_value(_IPS, ips, "'None' must be the first and only value"))
        elif text not in known:
            found += problems_at(f"{_IPS}[{index}]", text, ip_problems(text))
    return found


def _stack_problems(after: Object, ips: list[str]) -> list[FieldError]:
    found = []
    stacks = [family_of(text) for text in ips]
    if len(ips) > 1 and set(stacks) != set(_KNOWN_FAMILIES):
        why = "may specify no more than one IP for each IP family"
        found.append(invalid_value(_IPS, ips, why))
    if is_headless(after):
        return found
    for index, (text, stack, wanted) in enumerate(zip(ips, stacks, families(after), strict=False)):
        if wanted in _KNOWN_FAMILIES and stack != wanted:
            why = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
            found.append(invalid_value(f"{_IPS}[{index}]", text, why))
    return found


def change_problems(after: Object, before: Object) -> list[FieldError]:
    """What of addresses and families may not change once it is set."""
    if is_external_name(after) or is_external_name(before):
        return []
    found = []
    if not (is_headless(after) and is_headless(before)):
        found += _address_changes(after, before)
    if not is_headless(after) and not is_headless(before):
        found += _family_changes(after, before)
    return found


def _address_changes(after: Object, before: Object) -> list[FieldError]:
    mine, was = cluster_ips(after), cluster_ips(before)
    changed = "may not change once set"
    if len(mine) == len(was):
        return [
            invalid_value(f"{_IPS}[{index}]", mine, changed)
            for index, text in enumerate(was)
            if text != mine[index]
        ]
    if not mine:
        return [invalid_value(f"{_IPS}[0]", None, "primary clusterIP can not be unset")]
    found = [invalid_value(f"{_IPS}[0]", mine, changed)] if was and mine[0] != was[0] else []
    if len(mine) < len(was) and len(mine) == 1 and after.get("ipFamilyPolicy") != SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        found.append(invalid_value(_POLICY, after.get("ipFamilyPolicy"), why))
    return found


def _family_changes(after: Object, before: Object) -> list[FieldError]:
    mine, was = families(after), families(before)
    path, changed = f"{_FAMILIES}[0]", "may not change once set"
    if len(mine) == len(was):
        return [invalid_value(path, mine, changed) for index, one in enumerate(was) if one != mine[index]]
    found = []
    if len(mine) < len(was) and not cluster_ips(after):
        found.append(invalid_value(path, mine or None, "primary ipFamily can not be unset"))
    if mine and was and mine[0] != was[0]:
        found.append(invalid_value(path, cluster_ips(after) or None, changed))
    if len(mine) < len(was) and len(mine) == 1 and after.get("ipFamilyPolicy") != SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        found.append(invalid_value(_POLICY, after.get("ipFamilyPolicy"), why))
    return found
