"""NetworkPolicies: who may talk to which pods; stored and validated, as nothing here carries traffic.

Upstream: kubernetes pkg/registry/networking/networkpolicy, pkg/apis/networking/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import cidr_problems, cidr_warnings, contains, parse_cidr, problems_at
from clusterling.machinery.errors import FieldError, forbidden_field, invalid_value, not_supported, required
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_port_name, is_port_number
from clusterling.machinery.selectors import LabelSelector
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry.strategy import Context, Strategy

_PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
_TYPES: Final = ("Ingress", "Egress")
_SELECTORS: Final = ("podSelector", "namespaceSelector")
_PEERS: Final = {"ingress": "from", "egress": "to"}


class NetworkPolicyStrategy(Strategy):
    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        _shape_selector(spec.setdefault("podSelector", {}))
        if not spec.get("policyTypes"):
            spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]
        for direction, peers in _PEERS.items():
            if not spec.get(direction):
                spec.pop(direction, None)
            for rule in spec.get(direction) or ():
                for field in ("ports", peers):
                    if not rule.get(field):
                        rule.pop(field, None)
                for port in rule.get("ports") or ():
                    port.setdefault("protocol", "TCP")
                for peer in rule.get(peers) or ():
                    for field in _SELECTORS:
                        _shape_selector(peer.get(field) or {})

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return _spec_problems(new["spec"], any_value=False, known=frozenset())

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        # What older rules let in may stay.
        any_value = bool(label_selector_problems(old["spec"].get("podSelector"), ""))
        known = frozenset(text for _, block in _blocks(old) for text in _cidrs(block))
        return _spec_problems(new["spec"], any_value=any_value, known=known)

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        found = []
        for path, block in _blocks(new):
            found += cidr_warnings(f"{path}.cidr", block.get("cidr", ""))
            for index, text in enumerate(block.get("except") or ()):
                found += cidr_warnings(f"{path}.except[{index}]", text)
        return found


def _shape_selector(selector: Object) -> None:
    """Leaves out what upstream's encoder leaves out."""
    for field in ("matchLabels", "matchExpressions"):
        if not selector.get(field):
            selector.pop(field, None)


def _blocks(obj: Object) -> Iterator[tuple[str, Object]]:
    """Each ipBlock of a policy, and its path."""
    for direction, peers in _PEERS.items():
        for number, rule in enumerate(obj["spec"].get(direction) or ()):
            for index, peer in enumerate(rule.get(peers) or ()):
                block = peer.get("ipBlock")
                if block is not None:
                    yield f"spec.{direction}[{number}].{peers}[{index}].ipBlock", block


def _cidrs(block: Object) -> list[str]:
    return [block.get("cidr", ""), *(block.get("except") or ())]


def _spec_problems(spec: Object, *, any_value: bool, known: frozenset[str]) -> list[FieldError]:
    found = label_selector_problems(spec.get("podSelector"), "spec.podSelector", any_value=any_value)
    for direction, peers in _PEERS.items():
        for number, rule in enumerate(spec.get(direction) or ()):
            path = f"spec.{direction}[{number}]"
            for index, port in enumerate(rule.get("ports") or ()):
                found += _port_problems(port, f"{path}.ports[{index}]")
            for index, peer in enumerate(rule.get(peers) or ()):
                found += _peer_problems(peer, f"{path}.{peers}[{index}]", any_value=any_value, known=known)
    found += _type_problems(spec["policyTypes"])
    # Upstream's declarative rules come after those that are code.
    return found + [
        required(f"{path}.cidr") for path, block in _blocks({"spec": spec}) if not block.get("cidr")
    ]


def _type_problems(types: Sequence[str]) -> list[FieldError]:
    path = "spec.policyTypes"
    if len(types) > len(_TYPES):
        return [invalid_value(path, list(types), "may not specify more than two policyTypes")]
    return [
        not_supported(f"{path}[{index}]", one, _TYPES) for index, one in enumerate(types) if one not in _TYPES
    ]


def _port_problems(port: Object, path: str) -> list[FieldError]:
    protocol, number, end = port["protocol"], port.get("port"), port.get("endPort")
    found = []
    if protocol not in _PROTOCOLS:
        found.append(not_supported(f"{path}.protocol", protocol, _PROTOCOLS))
    at, until = f"{path}.port", f"{path}.endPort"
    if number is None or isinstance(number, str):
        if end is not None:
            why = "is not specified" if number is None else "is non-numeric"
            found.append(invalid_value(until, end, f"may not be specified when `port` {why}"))
        if number is not None:
            found += [invalid_value(at, number, problem) for problem in is_port_name(number)]
        return found
    found += [invalid_value(at, number, problem) for problem in is_port_number(number)]
    if end is not None:
        if end < number:
            found.append(invalid_value(until, end, "must be greater than or equal to `port`"))
        found += [invalid_value(until, end, problem) for problem in is_port_number(end)]
    return found


def _peer_problems(peer: Object, path: str, *, any_value: bool, known: frozenset[str]) -> list[FieldError]:
    found, block = [], peer.get("ipBlock")
    for field in _SELECTORS:
        found += label_selector_problems(peer.get(field), f"{path}.{field}", any_value=any_value)
    if block is not None:
        found += _block_problems(block, f"{path}.ipBlock", known)
    given = sum(peer.get(field) is not None for field in (*_SELECTORS, "ipBlock"))
    if not given:
        found.append(required(path, "must specify a peer"))
    elif given > 1 and block is not None:
        found.append(forbidden_field(path, "may not specify both ipBlock and another peer"))
    return found


def _block_problems(block: Object, path: str, known: frozenset[str]) -> list[FieldError]:
    cidr = block.get("cidr", "")
    if not cidr:
        return []  # Told last: upstream's rule is declarative.
    found = [] if cidr in known else problems_at(f"{path}.cidr", cidr, cidr_problems(cidr))
    outer = parse_cidr(cidr)
    if outer is None:
        return found
    for index, text in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        found += [] if text in known else problems_at(at, text, cidr_problems(text))
        inner = parse_cidr(text)
        if inner is not None and not contains(outer, inner):
            found.append(invalid_value(at, text, "must be a strict subset of `cidr`"))
    return found


def _pod_selector(obj: Object, _now: datetime) -> str:
    try:
        return str(LabelSelector.from_object((obj.get("spec") or {}).get("podSelector") or {})) or "<none>"
    except ValueError:
        return "<error>"


NETWORKPOLICIES: Final = builtin.resource(
    "networking.k8s.io",
    "v1",
    "networkpolicies",
    strategy=NetworkPolicyStrategy(),
    columns=(NAME_COLUMN, Column("Pod-Selector", "string", _pod_selector), builtin.AGE),
)
