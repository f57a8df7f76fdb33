"""Ingresses: hosts and paths that lead to services; stored and validated, as nothing here carries traffic.

Upstream: kubernetes pkg/registry/networking/ingress, pkg/apis/networking/validation,
plugin/pkg/admission/network/defaultingressclass.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery.addresses import ip_problems, ip_warnings, parse_ip, problems_at
from clusterling.machinery.errors import FieldError, invalid_value, not_supported, required
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_port_name,
    is_port_number,
    is_wildcard_dns1123_subdomain,
)
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.networking.ingressclasses import INGRESSCLASSES, is_default, reference_problems
from clusterling.packs.split import SplitStrategy
from clusterling.registry.options import ListOptions
from clusterling.registry.strategy import Context

CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"

_PATH_TYPES: Final = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_SEQUENCES: Final = ("//", "/./", "/../", "%2f", "%2F")
_BAD_ENDINGS: Final = ("/..", "/.")
_NOT_AN_ADDRESS: Final = "must be a DNS name, not an IP address"
_HOSTS_SHOWN: Final = 3


class IngressStrategy(SplitStrategy):
    @override
    def complete(self, ctx: Context, new: Object) -> None:
        _shape(new)

    @override
    def complete_status(self, new: Object) -> None:
        new.setdefault("status", {}).setdefault("loadBalancer", {})

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        spec = new["spec"]
        if old is not None or "ingressClassName" in spec or CLASS_ANNOTATION in _annotations(new):
            return
        served = ctx.catalog.find(INGRESSCLASSES.group, "v1", INGRESSCLASSES.names.plural)
        if served is None:
            return
        listing = await ctx.objects.list(served, "", ListOptions())
        classes: list[Object] = [orjson.loads(value) for value in listing.values]
        # The newest, and of two of one second the first by name.
        defaults = sorted((one for one in classes if is_default(one)), key=name_of)
        if defaults:
            spec["ingressClassName"] = name_of(max(defaults, key=lambda one: meta(one)["creationTimestamp"]))

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found, annotation = _spec_problems(new["spec"]), _annotations(new).get(CLASS_ANNOTATION)
        named = new["spec"].get("ingressClassName")
        if annotation is not None and named is not None and annotation != named:
            why = "must match `ingressClassName` when both are specified"
            found.append(invalid_value(f"annotations.{CLASS_ANNOTATION}", annotation, why))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return _status_problems(new, old)
        return _spec_problems(new["spec"])

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        if old is None and CLASS_ANNOTATION in _annotations(new) and "ingressClassName" not in new["spec"]:
            return [
                f"annotation \"{CLASS_ANNOTATION}\" is deprecated, please use 'spec.ingressClassName' instead"
            ]
        return status_ip_warnings(new) if ctx.subresource == "status" else ()


def _annotations(obj: Object) -> dict[str, str]:
    found: dict[str, str] = meta(obj).get("annotations") or {}
    return found


def _shape(new: Object) -> None:
    """Leaves out what upstream's encoder leaves out."""
    spec = new.setdefault("spec", {})
    _without_empty(spec, "rules", "tls")
    for rule in spec.get("rules") or ():
        _without_empty(rule, "host")
        for path in (rule.get("http") or {}).get("paths") or ():
            _without_empty(path, "path")
    for tls in spec.get("tls") or ():
        _without_empty(tls, "hosts", "secretName")


def _without_empty(obj: Object, *fields: str) -> None:
    for field in fields:
        if not obj.get(field):
            obj.pop(field, None)


def _spec_problems(spec: Object) -> list[FieldError]:
    rules, backend = spec.get("rules") or (), spec.get("defaultBackend")
    found = []
    if not rules and backend is None:
        why = "either `defaultBackend` or `rules` must be specified"
        found.append(invalid_value("spec", None, why))
    if backend is not None:
        found += _backend_problems(backend, "spec.defaultBackend")
    for index, rule in enumerate(rules):
        found += _rule_problems(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        found += _tls_problems(tls, f"spec.tls[{index}]")
    named = spec.get("ingressClassName")
    if named is not None:
        found += problems_at("spec.ingressClassName", named, is_dns1123_subdomain(named))
    return found


def _host_problems(host: str, path: str) -> list[FieldError]:
    judge = is_wildcard_dns1123_subdomain if "*" in host else is_dns1123_subdomain
    return problems_at(path, host, judge(host))


def _tls_problems(tls: Object, path: str) -> list[FieldError]:
    found = []
    for index, host in enumerate(tls.get("hosts") or ()):
        found += _host_problems(host, f"{path}.hosts[{index}]")
    secret = tls.get("secretName") or ""
    return found + (problems_at(f"{path}.secretName", secret, is_dns1123_subdomain(secret)) if secret else [])


def _rule_problems(rule: Object, path: str) -> list[FieldError]:
    host, found = rule.get("host") or "", []
    if host:
        if parse_ip(host) is not None:
            found.append(invalid_value(f"{path}.host", host, _NOT_AN_ADDRESS))
        found += _host_problems(host, f"{path}.host")
    http = rule.get("http")
    if http is None:
        return found
    paths = http.get("paths") or ()
    if not paths:
        found.append(required(f"{path}.http.paths"))
    for index, one in enumerate(paths):
        found += _path_problems(one, f"{path}.http.paths[{index}]")
    return found


def _path_problems(one: Object, path: str) -> list[FieldError]:
    kind, text = one.get("pathType"), one.get("path") or ""
    if kind is None:
        return [required(f"{path}.pathType", "pathType must be specified")]
    found = []
    if kind not in _PATH_TYPES:
        found.append(not_supported(f"{path}.pathType", kind, _PATH_TYPES))
    else:
        anything = kind == "ImplementationSpecific"
        problems = []
        if not text.startswith("/") and (text or not anything):
            problems.append("must be an absolute path")
        if not anything:
            problems += [f"must not contain '{part}'" for part in _BAD_SEQUENCES if part in text]
            problems += [f"cannot end with '{end}'" for end in _BAD_ENDINGS if text.endswith(end)]
        found += problems_at(f"{path}.path", text, problems)
    return found + _backend_problems(one.get("backend") or {}, f"{path}.backend")


def _backend_problems(backend: Object, path: str) -> list[FieldError]:
    resource, service = backend.get("resource"), backend.get("service")
    if resource is not None and service is not None:
        return [invalid_value(path, "", "cannot set both resource and service backends")]
    if resource is not None:
        return reference_problems(resource, f"{path}.resource")
    if service is None:
        return [invalid_value(path, "", "resource or service backend is required")]
    name, port = service.get("name") or "", service.get("port") or {}
    at = f"{path}.service.name"
    found = problems_at(at, name, is_dns1123_label(name)) if name else [required(at)]
    by_name, number = port.get("name") or "", port.get("number") or 0
    if by_name and number:
        return [*found, invalid_value(path, "", "cannot set both port name & port number")]
    if by_name:
        return found + problems_at(f"{path}.service.port.name", by_name, is_port_name(by_name))
    if number:
        wrong = is_port_number(number)
        return found + [invalid_value(f"{path}.service.port.number", number, one) for one in wrong]
    return [*found, required(path, "port name or number is required")]


def _points(obj: Object) -> Sequence[Object]:
    """Where a load balancer is reached, by an ingress's or a service's status."""
    found: Sequence[Object] = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ()
    return found


def _status_problems(new: Object, old: Object) -> list[FieldError]:
    known = {point["ip"] for point in _points(old) if point.get("ip")}
    found = []
    for index, point in enumerate(_points(new)):
        path, ip = f"status.loadBalancer.ingress[{index}]", point.get("ip") or ""
        if ip and ip not in known:
            found += problems_at(f"{path}.ip", ip, ip_problems(ip))
        found += hostname_problems(point, path)
    return found


def hostname_problems(point: Object, path: str) -> list[FieldError]:
    """What is wrong with the name by which a load balancer is reached."""
    host = point.get("hostname") or ""
    if not host:
        return []
    found = is_dns1123_subdomain(host) + ([_NOT_AN_ADDRESS] if parse_ip(host) is not None else [])
    return problems_at(f"{path}.hostname", host, found)


def status_ip_warnings(obj: Object) -> list[str]:
    """What is told of unusual addresses in the status of an ingress or a service."""
    return [
        text
        for index, point in enumerate(_points(obj))
        if point.get("ip")
        for text in ip_warnings(f"status.loadBalancer.ingress[{index}]", point["ip"])
    ]


def balancer_addresses(obj: Object) -> str:
    """Where the load balancer is reached, as tables show it: sorted, each once."""
    return ",".join(sorted({point.get("ip") or point.get("hostname") or "" for point in _points(obj)} - {""}))


def _class(obj: Object, _now: datetime) -> str:
    return str((obj.get("spec") or {}).get("ingressClassName", "<none>"))


def _hosts(obj: Object, _now: datetime) -> str:
    rules = (obj.get("spec") or {}).get("rules") or ()
    shown: list[str] = []
    for rule in rules:
        if len(shown) == _HOSTS_SHOWN:
            return f"{','.join(shown)} + {len(rules) - _HOSTS_SHOWN} more..."
        if rule.get("host"):
            shown.append(rule["host"])
    return ",".join(shown) or "*"


def _ports(obj: Object, _now: datetime) -> str:
    return "80, 443" if (obj.get("spec") or {}).get("tls") else "80"


INGRESSES: Final = builtin.resource(
    "networking.k8s.io",
    "v1",
    "ingresses",
    strategy=IngressStrategy(),
    columns=(
        NAME_COLUMN,
        Column(
            "Class",
            "string",
            _class,
            "",
            "The name of the IngressClass resource that should be used for additional configuration",
        ),
        Column(
            "Hosts",
            "string",
            _hosts,
            "",
            "Hosts that incoming requests are matched against before the ingress rule",
        ),
        Column(
            "Address",
            "string",
            lambda obj, _: balancer_addresses(obj),
            "",
            "Address is a list containing ingress points for the load-balancer",
        ),
        Column("Ports", "string", _ports, "", "Ports of TLS configurations that open"),
        builtin.AGE,
    ),
)
