"""Fields and resources of the pod itself, as environment variables and downward API files refer to them.

Upstream: validateObjectFieldSelector, validateContainerResourceFieldSelector.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import invalid_value, not_supported, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_qualified_name
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core.podspec.rules import Problems, named

ENVIRONMENT_FIELDS: Final = (
    "metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
    "status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs",
)  # fmt: skip
FILE_FIELDS: Final = (
    "metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid",
)  # fmt: skip
_KNOWN_FIELDS: Final = frozenset(
    (*ENVIRONMENT_FIELDS, *FILE_FIELDS, "spec.restartPolicy", "spec.schedulerName", "status.phase")
)
_RESOURCES: Final = tuple(
    f"{kind}.{name}" for kind in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_HUGE_PAGES: Final = ("limits.hugepages-", "requests.hugepages-")
_BYTES: Final = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_IN_BYTES: Final = {
    "memory": "memory",
    "ephemeral-storage": "local ephemeral storage",
    "hugepages": "hugepages",
}
_ZERO: Final = Quantity(0)


def field_problems(reference: Object, path: str, fields: tuple[str, ...]) -> Problems:
    """A fieldRef; `fields`: those that can be had here."""
    for field in ("apiVersion", "fieldPath"):
        if not reference.get(field):
            yield required(f"{path}.{field}")
            return
    asked = reference["fieldPath"]
    before, bracket, key = asked.removesuffix("']").partition("['")
    subscripted = asked.endswith("']") and bracket and before
    why = ""
    if reference["apiVersion"] != "v1":
        why = f"unsupported pod version: {reference['apiVersion']}"
    elif subscripted and before not in ("metadata.annotations", "metadata.labels"):
        why = f"field label does not support subscript: {asked}"
    elif not subscripted and asked not in _KNOWN_FIELDS and asked != "spec.host":
        why = f"field label not supported: {asked}"
    if why:
        yield invalid_value(f"{path}.fieldPath", asked, f"error converting fieldPath: {why}")
    elif subscripted:
        yield from named(key.lower() if before == "metadata.annotations" else key, path, is_qualified_name)
    elif (found := "spec.nodeName" if asked == "spec.host" else asked) not in fields:
        yield not_supported(f"{path}.fieldPath", found, fields)


def resource_problems(reference: Object, path: str, *, of_container: bool) -> Problems:
    """A resourceFieldRef. `of_container`: it stands where no container is meant by itself."""
    name = reference.get("resource") or ""
    if of_container and not reference.get("containerName"):
        yield required(f"{path}.containerName")
    elif not name:
        yield required(f"{path}.resource")
    elif name not in _RESOURCES and not name.startswith(_HUGE_PAGES):
        yield not_supported(f"{path}.resource", name, _RESOURCES)
    yield from _divisor_problems(name, Quantity.parse(reference.get("divisor", "0")), path)


def _divisor_problems(name: str, divisor: Quantity, path: str) -> Problems:
    if divisor == _ZERO:
        return
    kind = name.partition(".")[2]
    if kind == "cpu":
        if divisor.canonical not in ("1m", "1"):
            why = "only divisor's values 1m and 1 are supported with the cpu resource"
            yield invalid_value(f"{path}.divisor", name, why)
        return
    what = _IN_BYTES.get("hugepages" if kind.startswith("hugepages-") else kind)
    if what is not None and divisor.canonical not in _BYTES:
        why = f"only divisor's values {', '.join(_BYTES)} are supported with the {what} resource"
        yield invalid_value(f"{path}.divisor", name, why)
