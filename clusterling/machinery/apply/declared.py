"""Types from schemas: what a kind's schema says of how its objects are merged.

    object_type(schema.node) → MapType

A place's type is made when a walk first comes to it, and kept at its node.

Upstream: kube-openapi pkg/schemaconv (openapi.go, smd.go).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from clusterling.machinery.apply.types import (
    ATOMIC,
    DEDUCED,
    UNTYPED_SCALAR,
    Deduced,
    ListType,
    MapType,
    Scalar,
    Type,
    TypedError,
    nothing_declared,
)
from clusterling.machinery.schema.node import Node

_STRING: Final = Scalar("string")
_META_SOURCE: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "annotations": {"type": "object", "additionalProperties": {"type": "string"}},
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionGracePeriodSeconds": {"type": "integer"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
        "finalizers": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
        "generateName": {"type": "string"},
        "generation": {"type": "integer"},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "managedFields": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "x-kubernetes-list-type": "atomic",
        },
        "name": {"type": "string"},
        "namespace": {"type": "string"},
        "ownerReferences": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "apiVersion": {"type": "string"},
                    "blockOwnerDeletion": {"type": "boolean"},
                    "controller": {"type": "boolean"},
                    "kind": {"type": "string"},
                    "name": {"type": "string"},
                    "uid": {"type": "string", "default": ""},
                },
                "x-kubernetes-map-type": "atomic",
            },
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["uid"],
        },
        "resourceVersion": {"type": "string"},
        "selfLink": {"type": "string"},
        "uid": {"type": "string"},
    },
}


@dataclass(frozen=True, slots=True)
class _Root:
    """The fields of a whole object: its own, and those that every object has."""

    own: Callable[[str], Type | None]

    def __call__(self, name: str) -> Type | None:
        if name == "metadata":
            return OBJECT_META
        return _STRING if name in ("apiVersion", "kind") else self.own(name)


def object_type(node: Node, *, metadata: bool = True) -> MapType:
    """The type of a kind's objects, from its schema: a CRD's, or the published one of a built-in kind.

    `metadata`: they have a kind and metadata, whatever the schema says of these. Raises TypedError for what holds no maps.
    """
    found = _type(node, preserve=False)
    mapping = found.map if isinstance(found, Deduced) else found
    if not isinstance(mapping, MapType):
        raise TypedError("a kind's objects are maps")
    if not metadata:
        return mapping
    mixed = _is_mixed(node, with_metadata=True) or bool(
        node.source.get("x-kubernetes-preserve-unknown-fields")
    )
    return MapType(_Root(mapping.declared), mapping.element, atomic=mapping.atomic, mixed=mixed)


def _type(node: Node, *, preserve: bool) -> Type:
    """`preserve`: a place above keeps unknown fields, and so do all below it, but for those of named definitions."""
    preserve = preserve or bool(node.source.get("x-kubernetes-preserve-unknown-fields"))
    what = "apply/preserving" if preserve else "apply"
    found: Type | None = node.compiled.get(what)
    if found is None:
        found = node.compiled[what] = _made(node, preserve)
    return found


def _made(node: Node, preserve: bool) -> Type:
    kind = node.source.get("type") or ""
    match kind:
        case "object":
            if node.builtin and node.preserve:
                return ATOMIC  # RawExtension
            return _map_of(node, preserve)
        case "array":
            return _list_of(node, preserve)
        case "integer" | "number":
            return Scalar("numeric")
        case "boolean":
            return Scalar("boolean")
        case "string":
            return _STRING if (node.source.get("format") or "") in ("", "byte") else UNTYPED_SCALAR
        case _:
            return Deduced(UNTYPED_SCALAR, _list_of(node, preserve), _map_of(node, preserve))


def _map_of(node: Node, preserve: bool) -> MapType:
    def declared(name: str) -> Type | None:
        child = node.properties.get(name)
        return None if child is None else _type(child, preserve=preserve)

    own: Callable[[str], Type | None] = declared if node.properties else nothing_declared
    if node.embedded:
        own = _Root(own)
    additional = node.source.get("additionalProperties")
    element: Type | None = None
    if node.additional is not None:
        element = _type(node.additional, preserve=preserve)
    elif additional is True or (additional is None and (preserve or not node.properties)):
        element = DEDUCED
    atomic = node.source.get("x-kubernetes-map-type") == "atomic"
    deduced = element is DEDUCED and not node.properties
    return MapType(own, element, atomic=atomic, deduced=deduced, mixed=_mixed(node, preserve))


def _list_of(node: Node, preserve: bool) -> ListType:
    items = node.items
    element = ATOMIC if items is None else _type(items, preserve=preserve)
    kind = node.source.get("x-kubernetes-list-type")
    strategy = "" if kind else node.source.get("x-kubernetes-patch-strategy") or ""
    merging = kind in ("set", "map") or strategy.startswith("merge")
    keys: tuple[str, ...] = node.map_keys if kind == "map" else ()
    merge_key = node.source.get("x-kubernetes-patch-merge-key")
    if strategy.startswith("merge") and merge_key:
        keys = (merge_key,)
    defaults = {} if items is None else {key: _default_of(items, key) for key in keys}
    return ListType(element, atomic=not merging, keys=keys, defaults=defaults, mixed=_mixed(node, preserve))


def _mixed(node: Node | None, preserve: bool) -> bool:
    """Whether values of any type may be in the place or below it. A type within itself adds nothing to that."""
    if node is None:
        return True
    if preserve or node.source.get("x-kubernetes-preserve-unknown-fields"):
        return True
    found: bool | None = node.compiled.get("apply/mixed")
    if found is None:
        node.compiled["apply/mixed"] = False
        found = node.compiled["apply/mixed"] = _is_mixed(node)
    return found


def _is_mixed(node: Node, *, with_metadata: bool = False) -> bool:
    """`with_metadata`: it is an object, whose metadata is of its own type whatever the schema says."""
    match node.source.get("type") or "":
        case "object":
            below = dict(node.properties)
            if "ownerReferences" in below:
                below.pop("managedFields", None)  # Nobody's, and owned as a whole.
            if with_metadata or node.embedded:
                below.pop("metadata", None)
            if node.additional is not None:
                below[""] = node.additional
            elif not node.properties or node.source.get("additionalProperties") is True:
                return True
            return any(_mixed(one, False) for one in below.values())
        case "array":
            return _mixed(node.items, False)
        case "":
            return not (node.source.get("x-kubernetes-int-or-string") or node.source.get("oneOf"))
        case _:
            return False


def _default_of(items: Node, key: str) -> object:
    """What a key counts as where an item does not have it: for built-in kinds Go's zero value, too, where that is published."""
    child = items.properties.get(key)
    return None if child is None else child.source.get("default")


OBJECT_META: Final = _map_of(Node(_META_SOURCE), preserve=False)
