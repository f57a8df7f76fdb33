"""Kinds to tell of: upstream's built-in ones that are served, and a CRD that uses every word of the schema language."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from clusterling.machinery.meta import Object
from clusterling.machinery.schema import compile_schema
from clusterling.machinery.table import NAME_COLUMN, column_from_jsonpath
from clusterling.packs import builtin
from clusterling.registry.catalog import Catalog
from clusterling.registry.resource import Names, Resource, Scale, Served, Version
from clusterling.registry.strategy import Strategy
from clusterling.version import KUBERNETES

WIDGET_SCHEMA: Object = {
    "type": "object",
    "description": "A widget.",
    "required": ["spec"],
    "x-kubernetes-validations": [{"rule": "has(self.spec)", "message": "no"}],
    "properties": {
        "apiVersion": {"type": "string", "description": "mine"},
        "kind": {"type": "string"},
        "metadata": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 10}}},
        "spec": {
            "type": "object",
            "required": ["color", "blob"],
            "properties": {
                "color": {
                    "type": "string",
                    "enum": ["red", "blue"],
                    "default": "red",
                    "description": "Its color.",
                },
                "replicas": {
                    "type": "integer",
                    "format": "int32",
                    "minimum": 0,
                    "maximum": 100,
                    "default": 1,
                },
                "port": {"x-kubernetes-int-or-string": True, "default": 80},
                "port2": {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                    "pattern": "^x",
                },
                "port3": {"x-kubernetes-int-or-string": True, "anyOf": [{"pattern": "^x"}]},
                "any": {"x-kubernetes-preserve-unknown-fields": True},
                "blob": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "nullable": True},
                "emb": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "x-kubernetes-preserve-unknown-fields": True,
                },
                "list": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name"],
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string"},
                            "v": {"type": "number", "multipleOf": 0.5},
                        },
                    },
                },
                "map": {"type": "object", "additionalProperties": {"type": "string", "nullable": True}},
                "anymap": {"type": "object", "additionalProperties": True},
                "comb": {"type": "object", "oneOf": [{"required": ["a"]}], "not": {"required": ["z"]}},
            },
        },
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    },
}


def names(plural: str, kind: str, **more: Any) -> Names:
    return Names(plural, kind.lower(), kind, f"{kind}List", **more)


def widgets() -> Resource:
    """A namespaced kind with two versions, status, scale, a selectable field and a column of its own."""
    color = column_from_jsonpath("Color", "string", ".spec.color", description="Its color")
    v1 = Version(
        "v1",
        compile_schema(WIDGET_SCHEMA),
        columns=(NAME_COLUMN, color),
        status=True,
        scale=Scale("spec.replicas", "status.replicas"),
        selectable_fields=("spec.color",),
    )
    beta = Version(
        "v1beta1", compile_schema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    )
    return Resource(
        "example.com",
        names("widgets", "Widget", short_names=("wd",), categories=("all",)),
        True,
        (v1, beta),
        "v1",
        Strategy(),
        builtin=False,
    )


def gadgets() -> Resource:
    """A cluster-scoped kind with nothing special."""
    schema = compile_schema({"type": "object", "properties": {"spec": {"type": "object"}}})
    return Resource(
        "example.com",
        names("gadgets", "Gadget"),
        False,
        (Version("v1", schema),),
        "v1",
        Strategy(),
        builtin=False,
    )


def builtins() -> tuple[Resource, ...]:
    """The kinds of this release, as their packs make them but for behaviour."""
    events = builtin.resource("", "v1", "events")
    return (
        builtin.resource("", "v1", "namespaces", parts=("finalize",)),
        *(builtin.resource("", "v1", plural) for plural in ("configmaps", "secrets", "serviceaccounts")),
        events,
        builtin.resource("coordination.k8s.io", "v1", "leases"),
        builtin.resource("events.k8s.io", "v1", "events", storage=events),
    )


def served(resource: Resource, version: str = "v1") -> Served:
    return Served(resource, resource.version(version))


def whole_catalog() -> Catalog:
    return Catalog([widgets(), gadgets()], parent=Catalog(builtins()))


def published(*parts: str) -> Path:
    """A file that upstream publishes in its Go module."""
    cache = (
        os.environ.get("GOMODCACHE") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "pkg" / "mod"
    )
    found = Path(cache).joinpath(f"k8s.io/kubernetes@v{KUBERNETES}", "api", *parts)
    if not found.exists():
        pytest.skip(f"the Go module k8s.io/kubernetes v{KUBERNETES} is not on this machine")
    return found
