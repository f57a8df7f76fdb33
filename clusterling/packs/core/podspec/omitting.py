"""An object as Go writes it: without fields that hold nothing where the type says `omitempty`, and with those it always has.

Whoever sends `stdin: false` reads it back nowhere; `privileged: false`, a pointer in Go, stays. Facts of the types, compiled
from upstream's types.go (tools/go_types.py), so no field is listed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from clusterling.machinery.meta import Object
from clusterling.packs import builtin

POD_SPEC: Final = "io.k8s.api.core.v1.PodSpec"
_REF: Final = "#/components/schemas/"


@dataclass(frozen=True, slots=True)
class _Struct:
    """Of a Go struct: its fields that hold other structs, those left out where empty, those that are always told."""

    below: dict[str, str]
    omits: frozenset[str]
    always: dict[str, Any]


@cache
def _struct(definition: str) -> _Struct:
    fields = (builtin.definitions.get(definition) or {}).get("properties") or {}
    below = {name: struct for name, one in fields.items() if (struct := _struct_of(one))}
    known = builtin.go_types(definition)
    return _Struct(below, frozenset(known.get("omits", ())), known.get("always", {}))


def _struct_of(schema: Object) -> str:
    """The definition of what a field holds, by itself, in an `allOf`, or as items; empty where it is none with fields."""
    for one in (schema, *(schema.get("allOf") or ()), schema.get("items") or {}):
        if "$ref" in one:
            name = str(one["$ref"]).removeprefix(_REF)
            return name if "properties" in (builtin.definitions.get(name) or {}) else ""
    return ""


def write_as_go(value: Object, definition: str = POD_SPEC) -> None:
    """Of a struct that has its defaults, in place, whatever it holds included."""
    struct = _struct(definition)
    for field, zero in struct.always.items():
        if field not in value:
            value[field] = {} if zero == {} else zero
    for field in struct.below.keys() & value.keys():
        held = value[field]
        for one in held if isinstance(held, list) else (held,):
            if isinstance(one, dict):
                write_as_go(one, struct.below[field])
    for field in struct.omits & value.keys():
        if not value[field]:
            del value[field]
