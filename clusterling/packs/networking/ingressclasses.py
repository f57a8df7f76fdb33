"""IngressClasses: which controller serves an ingress. Upstream: kubernetes pkg/registry/networking/ingressclass."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    forbidden_field,
    immutable_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_label, is_dns1123_subdomain, is_path_segment_name
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry.strategy import Context, Strategy

DEFAULT_ANNOTATION: Final = "ingressclass.kubernetes.io/is-default-class"

_CONTROLLER: Final = "spec.controller"
_CONTROLLER_BYTES_MAX: Final = 250
_PARAMETERS: Final = "spec.parameters"
_SCOPES: Final = ("Cluster", "Namespace")
_PATH_WORDS: Final = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+"
_is_path: Final = re.compile(_PATH_WORDS).fullmatch


class IngressClassStrategy(Strategy):
    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        if not spec.get("controller"):
            spec.pop("controller", None)
        parameters = spec.get("parameters")
        if parameters is not None:
            parameters.setdefault("scope", "Cluster")

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        spec = new["spec"]
        return _controller_problems(spec.get("controller", "")) + _parameter_problems(spec.get("parameters"))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        controller = new["spec"].get("controller", "")
        same = controller == old["spec"].get("controller", "")
        changed = [] if same else [immutable_field(_CONTROLLER, controller)]
        return [*changed, *self.validate(ctx, new)]


def is_default(obj: Object) -> bool:
    """Ingresses that name no class get this one."""
    return bool((meta(obj).get("annotations") or {}).get(DEFAULT_ANNOTATION) == "true")


def _controller_problems(controller: str) -> list[FieldError]:
    long = len(controller.encode()) > _CONTROLLER_BYTES_MAX
    found = [too_long(_CONTROLLER, _CONTROLLER_BYTES_MAX)] if long else []
    if not controller:
        return [*found, required(_CONTROLLER)]
    # apimachinery pkg/util/validation: IsDomainPrefixedPath
    host, _, path = controller.partition("/")
    if not host or not path:
        why = 'must be a domain-prefixed path (such as "acme.io/foo")'
        return [*found, invalid_value(_CONTROLLER, controller, why)]
    found += [invalid_value(_CONTROLLER, host, problem) for problem in is_dns1123_subdomain(host)]
    if not _is_path(path):
        why = f"Invalid path (regex used for validation is '{_PATH_WORDS}')"
        found.append(invalid_value(_CONTROLLER, path, why))
    return found


def _parameter_problems(parameters: Object | None) -> list[FieldError]:
    if parameters is None:
        return []
    found = reference_problems(parameters, _PARAMETERS)
    wrong = [one for one in found if one.detail]
    # Upstream's declarative rules come after those that are code.
    return wrong + _scope_problems(parameters) + [one for one in found if not one.detail]


def reference_problems(reference: Object, path: str) -> list[FieldError]:
    """What is wrong with a reference by group, kind and name (upstream: validateIngressTypedLocalObjectReference)."""
    found = []
    group = reference.get("apiGroup")
    if group is not None:
        found += [
            invalid_value(f"{path}.apiGroup", group, problem) for problem in is_dns1123_subdomain(group)
        ]
    for field in ("kind", "name"):
        text = reference.get(field, "")
        if not text:
            found.append(required(f"{path}.{field}"))
        found += [invalid_value(f"{path}.{field}", text, problem) for problem in is_path_segment_name(text)]
    return found


def _scope_problems(parameters: Object) -> list[FieldError]:
    scope, namespace, path = parameters["scope"], parameters.get("namespace"), f"{_PARAMETERS}.namespace"
    if scope not in _SCOPES:
        return [not_supported(f"{_PARAMETERS}.scope", scope, _SCOPES)]
    if scope == "Cluster":
        why = "`parameters.scope` is set to 'Cluster'"
        return [] if namespace is None else [forbidden_field(path, why)]
    if namespace is None:
        return [required(path, "`parameters.scope` is set to 'Namespace'")]
    return [invalid_value(path, namespace, problem) for problem in is_dns1123_label(namespace)]


def _name(obj: Object, _now: datetime) -> str:
    return f"{name_of(obj)} (default)" if is_default(obj) else name_of(obj)


def _parameters(obj: Object, _now: datetime) -> str:
    parameters = (obj.get("spec") or {}).get("parameters")
    if parameters is None:
        return "<none>"
    group = parameters.get("apiGroup")
    kind = parameters.get("kind", "")
    return f"{kind if group is None else f'{kind}.{group}'}/{parameters.get('name', '')}"


INGRESSCLASSES: Final = builtin.resource(
    "networking.k8s.io",
    "v1",
    "ingressclasses",
    strategy=IngressClassStrategy(),
    columns=(
        Column("Name", "string", _name, "name", NAME_COLUMN.description),
        Column(
            "Controller",
            "string",
            lambda obj, _: (obj.get("spec") or {}).get("controller", ""),
            "",
            "Controller that is responsible for handling this class",
        ),
        Column(
            "Parameters", "string", _parameters, "", "A reference to a resource with additional parameters"
        ),
        builtin.AGE,
    ),
)
