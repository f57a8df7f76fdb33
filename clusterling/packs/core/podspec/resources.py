"""Requests and limits of containers and pods. Upstream: validateResourceRequirements, pkg/apis/core/helper."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    FieldErrorType,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_qualified_name
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.rules import NEGATIVE, Problems, items, label

HUGE_PAGES: Final = "hugepages-"
_ZERO: Final = Quantity(0)
_CONTAINER_RESOURCES: Final = frozenset(("cpu", "memory", "ephemeral-storage"))
_INTEGER_RESOURCES: Final = frozenset(
    (
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    )
)  # fmt: skip
_STANDARD_RESOURCES: Final = (
    _CONTAINER_RESOURCES
    | _INTEGER_RESOURCES
    | frozenset(f"{kind}.{name}" for kind in ("requests", "limits") for name in _CONTAINER_RESOURCES)
    | {"requests.storage", "storage"}
)
_POD_RESOURCES: Final = ("cpu", "hugepages-", "memory")

NameRule = Callable[[str, str], Problems]


def container_resource_name(name: str, path: str) -> Problems:
    wrong = list(_resource_name(name, path))
    yield from wrong
    if "/" not in name:
        if name not in _CONTAINER_RESOURCES and not name.startswith(HUGE_PAGES):
            yield invalid_value(path, name, "must be a standard resource for containers")
    elif not is_native(name) and not is_extended(name):
        yield invalid_value(path, name, "doesn't follow extended resource name standard")


def pod_resource_name(name: str, path: str) -> Problems:
    wrong = list(_resource_name(name, path))
    yield from wrong
    if not wrong and not (name in ("cpu", "memory") or name.startswith(HUGE_PAGES)):
        yield not_supported(path, name, _POD_RESOURCES)


def _resource_name(name: str, path: str) -> Problems:
    problems = is_qualified_name(name)
    for problem in problems:
        yield invalid_value(path, name, problem)
    standard = name in _STANDARD_RESOURCES or name.startswith((HUGE_PAGES, f"requests.{HUGE_PAGES}"))
    if not problems and "/" not in name and not standard:
        yield invalid_value(path, name, "must be a standard resource type or fully qualified")


def is_native(name: str) -> bool:
    return "/" not in name or "kubernetes.io/" in name


def is_extended(name: str) -> bool:
    """A resource of a device plugin: `example.com/gpu`."""
    if is_native(name) or name.startswith("requests."):
        return False
    return not is_qualified_name(f"requests.{name}")


def may_overcommit(name: str) -> bool:
    return is_native(name) and not name.startswith(HUGE_PAGES)


def quantity_problems(name: str, value: Quantity, path: str) -> Problems:
    if value < _ZERO:
        yield invalid_value(path, str(value), NEGATIVE)
    if (name in _INTEGER_RESOURCES or is_extended(name)) and not is_whole(value):
        yield invalid_value(path, str(value), "must be an integer")


def is_whole(value: Quantity) -> bool:
    return value.exponent >= 0 or value.unscaled % 10**-value.exponent == 0


def requirement_problems(
    requirements: Object,
    path: str,
    claims: frozenset[str] = frozenset(),
    name_rule: NameRule = container_resource_name,
) -> Problems:
    """What is wrong with a ResourceRequirements whose quantities have been read. `claims`: those of the pod."""
    limits, requests = quantities(requirements, "limits"), quantities(requirements, "requests")
    for kind, amounts in (("limits", limits), ("requests", requests)):
        for name, value in amounts.items():
            here = f"{path}.{kind}[{name}]"
            yield from name_rule(name, here)
            yield from quantity_problems(name, value, here)
            if kind == "requests":
                yield from _against_limit(name, value, limits.get(name), path)
            if name.startswith(HUGE_PAGES) and not _is_multiple(name, value):
                yield invalid_value(here, str(value), f"{value} is not positive integer multiple of {name}")
    named = limits.keys() | requests.keys()
    if any(name.startswith(HUGE_PAGES) for name in named) and not named & {"cpu", "memory"}:
        yield forbidden_field(path, "HugePages require cpu or memory")
    yield from _claim_problems(requirements, path, claims)


def quantities(part: Object, field: str) -> Mapping[str, Quantity]:
    """The quantities of a map that defaulting has read."""
    return {name: Quantity.parse(value) for name, value in (part.get(field) or {}).items()}


def _against_limit(name: str, request: Quantity, limit: Quantity | None, path: str) -> Problems:
    if limit is None:
        if not may_overcommit(name):
            yield required(f"{path}.limits", "Limit must be set for non overcommitable resources")
    elif request != limit and not may_overcommit(name):
        yield invalid_value(f"{path}.requests", str(request), f"must be equal to {name} limit of {limit}")
    elif request > limit:
        yield invalid_value(
            f"{path}.requests", str(request), f"must be less than or equal to {name} limit of {limit}"
        )


def _is_multiple(name: str, value: Quantity) -> bool:
    try:
        page = Quantity.parse(name.removeprefix(HUGE_PAGES))
    except ValueError:
        return False
    if page <= _ZERO or not is_whole(page) or not is_whole(value):
        return False
    return value.rounded_up() % page.rounded_up() == 0


def _claim_problems(requirements: Object, path: str, known: frozenset[str]) -> Problems:
    if not requirements.get("claims"):
        return
    # Made once: it names every claim of the pod, in each error.
    among = f": {', '.join(sorted(known))}" if known else " which is empty"
    detail = f"must be one of the names in pod.spec.resourceClaims{among}"
    whole: set[str] = set()
    requests: dict[str, set[str]] = {}
    for here, claim in items(requirements, "claims", path):
        name, request = claim.get("name") or "", claim.get("request") or ""
        if not name:
            yield required(here)
            continue
        if name in whole:
            yield duplicate(here, name)
        elif request:
            yield from label(request, f"{here}.request")
            if request in requests.setdefault(name, set()):
                yield duplicate(here, f"{name}/{request}")
            requests[name].add(request)
        else:
            for _ in requests.get(name, ()):
                yield duplicate(here, name)
            whole.add(name)
        if name not in known:
            yield FieldError(FieldErrorType.NOT_FOUND, here, name, detail)
