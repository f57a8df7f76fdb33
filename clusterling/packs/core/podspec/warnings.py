"""Warnings about pod templates: deprecated, ineffective or ambiguous, yet valid. Upstream: pkg/api/pod/warnings.go."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from clusterling.machinery.addresses import ip_warnings
from clusterling.machinery.errors import go_quote
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_label, is_label_value
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.annotations import APPARMOR, SECCOMP_CONTAINER, SECCOMP_POD
from clusterling.packs.core.podspec.defaults import CONTAINER_LISTS
from clusterling.packs.core.podspec.overlaps import overlap_warnings
from clusterling.packs.core.podspec.resources import is_whole, quantities
from clusterling.packs.core.podspec.rules import items

NODE_LABELS: Final = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
    "app.kubernetes.io/created-by": "deprecated since v1.9",
    "scheduler.alpha.kubernetes.io/preferAvoidPods": "deprecated since v1.22; use Taints and Tolerations instead",
    "node-role.kubernetes.io/master": 'use "node-role.kubernetes.io/control-plane" instead',
}
_ANNOTATIONS: Final = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
}
# Source of a volume → (how the path spells it, since when).
_VOLUMES: Final = {
    "photonPersistentDisk": ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    "gitRepo": ("gitRepo", "deprecated in v1.11, and disabled by default in v1.33+"),
    "scaleIO": ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    "flocker": ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    "storageos": ("storageOS", "deprecated in v1.22, non-functional in v1.25+"),
    "quobyte": ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    "glusterfs": ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    "cephfs": ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    "rbd": ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
}
# Ports of one number that a further one is held against; comparing all with all costs a hostile tenant nothing.
_COMPARED_MAX: Final = 64
_NO_PODS: Final = "a null labelSelector results in matching no pod"
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


def name_warnings(name: str) -> list[str]:
    """Of a workload whose pods are called after it."""
    problems = is_dns1123_label(name)
    if not problems:
        return []
    return [
        "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; "
        f"a DNS label is recommended: [{' '.join(problems)}]"
    ]


def pod_template_warnings(template: Object, path: str) -> list[str]:
    """What to tell whoever writes this template; `path` is the template's, nothing that of a pod itself."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    start = f"{path}." if path else ""
    here, notes = f"{start}spec", f"{start}metadata.annotations"
    containers = [one for field in CONTAINER_LISTS for one in items(spec, field, here)]
    return [
        *_of_scheduling(spec, here),
        *_of_annotations(metadata, notes),
        *_of_volumes(spec, here),
        *overlap_warnings(spec),
        *_of_lists(spec, here),
        *_fractions(quantities(spec, "overhead"), f"{here}.overhead"),
        *_of_security(metadata, spec, containers, notes),
        *(text for place, one in containers for text in _of_container(one, place)),
        *_of_ports(containers),
        *_of_port_names(containers),
        *_of_grace(spec, here),
        *_of_pod_affinity(spec, here),
        *_of_addresses(spec, here),
    ]


def _of_scheduling(spec: Object, path: str) -> Iterator[str]:
    for key in spec.get("nodeSelector") or ():
        if key in NODE_LABELS:
            yield f"{path}.nodeSelector[{key}]: {NODE_LABELS[key]}"
    nodes = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    here = f"{path}.affinity.nodeAffinity"
    for place, term in items(nodes.get(_REQUIRED) or {}, "nodeSelectorTerms", f"{here}.{_REQUIRED}"):
        yield from node_term_warnings(term, place)
    for place, term in items(nodes, _PREFERRED, here):
        yield from node_term_warnings(term.get("preference") or {}, f"{place}.preference", values=True)
    for place, one in items(spec, "topologySpreadConstraints", path):
        key = one.get("topologyKey") or ""
        if key in NODE_LABELS:
            yield f"{place}.topologyKey: {key} is {NODE_LABELS[key]}"
        if one.get("labelSelector") is None:
            yield f"{place}.labelSelector: {_NO_PODS}"


def node_term_warnings(term: Object, path: str, *, values: bool = False) -> Iterator[str]:
    """Of a NodeSelectorTerm. `values`: those that no label can have, where they are no error."""
    for place, one in items(term, "matchExpressions", path):
        key = one.get("key") or ""
        if key in NODE_LABELS:
            yield f"{place}.key: {key} is {NODE_LABELS[key]}"
        for index, value in enumerate(one.get("values") or () if values else ()):
            for problem in is_label_value(value):
                yield f"{place}.values[{index}]: {value} is invalid, {problem}"


def _of_annotations(metadata: Object, path: str) -> Iterator[str]:
    given = metadata.get("annotations") or {}
    for key, text in _ANNOTATIONS.items():
        if key in given:
            yield f"{path}[{key}]: {text}"


def _of_volumes(spec: Object, path: str) -> Iterator[str]:
    for place, volume in items(spec, "volumes", path):
        for source, (told, text) in _VOLUMES.items():
            if volume.get(source) is not None:
                yield f"{place}.{told}: {text}"
        claim = (volume.get("ephemeral") or {}).get("volumeClaimTemplate")
        if claim is not None:
            here = f"{place}.ephemeral.volumeClaimTemplate.spec"
            yield from claim_spec_warnings(claim.get("spec") or {}, here)


def claim_spec_warnings(spec: Object, path: str) -> Iterator[str]:
    """Of a PersistentVolumeClaimSpec: less than a byte cannot be had."""
    for field in ("requests", "limits"):
        yield from _fractions(
            quantities(spec.get("resources") or {}, field), f"{path}.resources.{field}", ("storage",)
        )


def _fractions(
    amounts: Mapping[str, Quantity], path: str, names: Sequence[str] = ("memory", "ephemeral-storage")
) -> Iterator[str]:
    for name in names:
        if name in amounts and not is_whole(amounts[name]):
            text = go_quote(str(amounts[name]))
            yield f"{path}[{name}]: fractional byte value {text} is invalid, must be an integer"


def _of_lists(spec: Object, path: str) -> Iterator[str]:
    yield from _repeated(spec, path, "hostAliases", "ip")
    yield from _repeated(spec, path, "imagePullSecrets", "name")
    for place, one in items(spec, "imagePullSecrets", path):
        if not one.get("name"):
            yield f'{place}.name: invalid empty name ""'


def _repeated(spec: Object, path: str, field: str, key: str) -> Iterator[str]:
    seen: set[str] = set()
    for place, one in items(spec, field, path):
        value = one.get(key) or ""
        if value in seen:
            yield f"{place}.{key}: duplicate {key} {go_quote(value)}"
        seen.add(value)


def _of_security(
    metadata: Object, spec: Object, containers: Iterable[tuple[str, Object]], notes: str
) -> Iterator[str]:
    given = metadata.get("annotations") or {}
    of_pod = spec.get("securityContext") or {}
    seccomp = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    if of_pod.get("seccompProfile") is None and SECCOMP_POD in given:
        yield f"{notes}[{SECCOMP_POD}]: {seccomp}"
    for _, container in containers:
        context, name = container.get("securityContext") or {}, container.get("name") or ""
        if context.get("seccompProfile") is None and f"{SECCOMP_CONTAINER}{name}" in given:
            yield f"{notes}[{SECCOMP_CONTAINER}{name}]: {seccomp}"
        if context.get("appArmorProfile") is None and f"{APPARMOR}{name}" in given:
            same = _apparmor_field(given[f"{APPARMOR}{name}"]) == of_pod.get("appArmorProfile")
            if of_pod.get("appArmorProfile") is None or not same:
                text = 'deprecated since v1.30; use the "appArmorProfile" field instead'
                yield f"{notes}[{APPARMOR}{name}]: {text}"


def _apparmor_field(annotation: str) -> Object | None:
    if annotation.startswith("localhost/"):
        return {"type": "Localhost", "localhostProfile": annotation.removeprefix("localhost/")}
    kinds = {"unconfined": "Unconfined", "runtime/default": "RuntimeDefault"}
    return {"type": kinds[annotation]} if annotation in kinds else None


def _of_container(container: Object, path: str) -> Iterator[str]:
    resources = container.get("resources") or {}
    for name in ("memory", "ephemeral-storage"):
        for field in ("limits", "requests"):
            yield from _fractions(quantities(resources, field), f"{path}.resources.{field}", (name,))
    seen: set[str] = set()
    for place, variable in items(container, "env", path):
        name = variable.get("name") or ""
        reference, value = f"$({name})", variable.get("value") or ""
        again = reference in value and value != reference and variable.get("valueFrom") is None
        if name in seen and not again:
            yield (
                f"{place}: hides previous definition of {go_quote(name)}, which may be dropped when using apply"
            )
        seen.add(name)


def _of_ports(containers: Iterable[tuple[str, Object]]) -> Iterator[str]:
    known: dict[tuple[object, object], list[tuple[str, int, str]]] = {}
    for path, container in containers:
        for place, port in items(container, "ports", path):
            address, host = port.get("hostIP") or "", port.get("hostPort") or 0
            if address and not host:
                yield f"{place}: hostIP set without hostPort: {_go_port(port)}"
            others = known.setdefault((port.get("containerPort"), port.get("protocol")), [])
            for other_address, other_host, other in others:
                if (address, host) == (other_address, other_host):
                    yield f"{place}: duplicate port definition with {other}"
                elif not host or not other_host:
                    yield f"{place}: overlapping port definition with {other}"
                elif host == other_host and bool(address) != bool(other_address):
                    yield f"{place}: dangerously ambiguous port definition with {other}"
            if len(others) < _COMPARED_MAX:
                others.append((address, host, place))


def _go_port(port: Object) -> str:
    return (
        f"{{Name:{port.get('name') or ''} HostPort:{port.get('hostPort') or 0} "
        f"ContainerPort:{port.get('containerPort') or 0} Protocol:{port.get('protocol') or ''} "
        f"HostIP:{port.get('hostIP') or ''}}}"
    )


def _of_port_names(containers: Iterable[tuple[str, Object]]) -> Iterator[str]:
    known: dict[str, str] = {}
    for path, container in containers:
        for place, port in items(container, "ports", path):
            name = port.get("name") or ""
            if name and name in known:
                other = known[name]
                yield (
                    f"{place}: duplicate port name {go_quote(name)} with {other}, "
                    f"services and probes that select ports by name will use {other}"
                )
            elif name:
                known[name] = place


def _of_grace(spec: Object, path: str) -> Iterator[str]:
    if (spec.get("terminationGracePeriodSeconds") or 0) < 0:
        text = "must be >= 0; negative values are invalid and will be treated as 1"
        yield f"{path}.terminationGracePeriodSeconds: {text}"


def _of_pod_affinity(spec: Object, path: str) -> Iterator[str]:
    for field in ("podAffinity", "podAntiAffinity"):
        affinity = (spec.get("affinity") or {}).get(field) or {}
        for place, term in items(affinity, _REQUIRED, f"{path}.affinity.{field}"):
            if term.get("labelSelector") is None:
                yield f"{place}.labelSelector: {_NO_PODS}"
        for place, term in items(affinity, _PREFERRED, f"{path}.affinity.{field}"):
            if (term.get("podAffinityTerm") or {}).get("labelSelector") is None:
                yield f"{place}.podAffinityTerm.labelSelector: {_NO_PODS}"


def _of_addresses(spec: Object, path: str) -> Iterator[str]:
    config, here = spec.get("dnsConfig") or {}, f"{path}.dnsConfig"
    for index, server in enumerate(config.get("nameservers") or ()):
        yield from ip_warnings(f"{here}.nameservers[{index}]", server)
    for place, alias in items(spec, "hostAliases", path):
        yield from ip_warnings(f"{place}.ip", alias.get("ip") or "")
