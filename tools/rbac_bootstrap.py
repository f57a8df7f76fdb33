"""The roles and bindings that every cluster begins with, from the files upstream tests its own bootstrap policy against."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from clusterling.machinery.yaml import parse_yaml

_POLICY: Final = "plugin/pkg/auth/authorizer/rbac/bootstrappolicy/testdata"
_FILES: Final = (
    "cluster-roles",
    "controller-roles",
    "cluster-role-bindings",
    "controller-role-bindings",
    "namespace-roles",
    "namespace-role-bindings",
)


def objects(module: Path) -> list[dict[str, Any]]:
    """Every bootstrap object, in the order of the files; those for feature gates that are off by default are not among them."""
    found: list[dict[str, Any]] = []
    for name in _FILES:
        document, _ = parse_yaml((module / _POLICY / f"{name}.yaml").read_bytes())
        for one in document["items"]:
            one["metadata"].pop("creationTimestamp", None)
            found.append(one)
    return found
