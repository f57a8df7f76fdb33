"""What decoding into a Go type refuses, and how it reads null: for built-in kinds, whose schemas describe such types.

Upstream decodes a built-in kind before it validates anything, so a value of the wrong JSON type is a 400 in the words of
encoding/json, not a 422. The published schema tells enough of the Go type for those words.

`compile_fits` makes the check that spares nearly every object all of this, and pruning: one walk that says "certainly as
the Go type would write it".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from clusterling.machinery.gotext import json_type
from clusterling.machinery.schema.checking import Check
from clusterling.machinery.schema.node import Node
from clusterling.machinery.schema.shaping import CONTAINERS

_DEFINED: Final = "io.k8s."
_REF: Final = "#/components/schemas/"
_NUMBERS: Final = {"int32": 2**31, "int64": 2**63}
_ZERO: Final = {"string": "", "integer": 0, "number": 0, "boolean": False}
_NUMERIC: Final = frozenset({int, float})
QUANTITY: Final = [{"type": "string"}, {"type": "number"}]


def compile_fits(node: Node, *, skip: frozenset[str] = frozenset()) -> Check:
    """True: no value is null, empty, unknown or of a wrong type. False says nothing: look with the functions below.

    `skip` names properties of this level that are not looked at.
    """
    if skip:
        return _fits_of(node, skip)

    def later(value: object) -> bool:
        fits: Check = node.compiled["fits"]
        return fits(value)

    def make() -> Check:
        return _fits_of(node, skip)

    return node.derived("fits", make, later)


def _fits_of(node: Node, skip: frozenset[str]) -> Check:
    match node.types:
        case ("string",):
            return _is_text
        case ("boolean",):
            return lambda value: value is True or value is False
        case ("integer",):
            bound = _NUMBERS.get(node.source.get("format", ""), 2**63)
            return lambda value: type(value) is int and -bound <= value < bound
        case ("number",):
            return lambda value: type(value) in _NUMERIC
        case ("integer", "string"):
            return lambda value: type(value) is str or (type(value) is int and _fits_int32(value))
        case () if node.source.get("oneOf") == QUANTITY:
            # What is none is told by whoever reads it.
            return lambda value: type(value) is str or type(value) in _NUMERIC
        case ("array",) if node.items is not None:
            fits = compile_fits(node.items)
            return lambda value: type(value) is list and bool(value) and all(map(fits, value))
        case ("object",) if not node.preserve and not node.embedded:
            return _fits_map(node, skip)
    return lambda value: False


def _fits_int32(value: int) -> bool:
    return -_NUMBERS["int32"] <= value < _NUMBERS["int32"]


_TEXT: Final = frozenset({str})


def _is_text(value: object) -> bool:
    return type(value) is str


def _fits_texts(value: object) -> bool:
    return type(value) is dict and bool(value) and _TEXT.issuperset(map(type, value.values()))


def _fits_map(node: Node, skip: frozenset[str]) -> Check:
    # None stands for text, by far the commonest: a comparison instead of a call.
    known: dict[str, Check | None] = {
        name: None if child.types == ("string",) else compile_fits(child)
        for name, child in node.properties.items()
        if name not in skip
    }
    known |= dict.fromkeys(skip, lambda value: True)
    further = node.additional
    beyond = None if further is None or further.types == ("string",) else compile_fits(further)
    knows_all_of = frozenset(known).issuperset
    get = known.get
    is_map = _is_map(node)
    if not known and further is not None and beyond is None:
        return _fits_texts

    def fits(value: object) -> bool:
        if type(value) is not dict or (further is None and not knows_all_of(value)) or (is_map and not value):
            return False
        for name, item in value.items():
            below = get(name, beyond)
            if below is None:
                if type(item) is not str:
                    return False
            elif not below(item):
                return False
        return True

    return fits


GoTypes = Callable[[str], Mapping[str, Any]]
"""What is known of a struct, by its definition's name, beyond its schema: `types` of text, fields `inside` others (tools/go_types.py)."""


def mismatch(node: Node, obj: Any, kind: str, go_types: GoTypes) -> str | None:
    """Go's message for the first value that does not fit, None where all do. Costs a walk: ask when something is wrong."""
    return _Looking(go_types).look(node, obj, (), "", kind)


def _is_map(node: Node) -> bool:
    """A map of Go, not a struct: one that is empty is nil."""
    return node.additional is not None and not node.properties


def settle_nulls(node: Node | None, value: Any) -> None:
    """Reads nulls as Go does, in place: a field that is null is absent; in a map or list it is the zero value.

    Lists and maps that are empty and may be absent are: upstream stores in protobuf, which knows no other emptiness.
    """
    if type(value) is dict:
        properties = node.properties if node is not None else {}
        further = node.additional if node is not None else None
        if None in value.values():
            for key in [key for key, item in value.items() if item is None]:
                zero = _zero(further) if further is not None and key not in properties else None
                if zero == "" and further is not None and further.source.get("format") == "date-time":
                    # A time that was never set is written as null again.
                    continue
                if zero is None:
                    del value[key]
                else:
                    value[key] = zero
        for key, item in list(value.items()):
            if type(item) in CONTAINERS:
                child = properties.get(key)
                settle_nulls(child or further, item)
                if not item and node and child and key not in node.required and _is_nil(child, item):
                    del value[key]
    elif type(value) is list:
        items = node.items if node is not None else None
        if None in value and items is not None:
            is_struct = bool(items.properties)
            value[:] = [({} if is_struct else _zero(items)) if item is None else item for item in value]
        for item in value:
            if type(item) in CONTAINERS:
                settle_nulls(items, item)


def _is_nil(node: Node, item: Any) -> bool:
    """Of an empty item: whether that is what the field holds, and not a mistake to tell."""
    if type(item) is list:
        return node.types == ("array",)
    return node.types == ("object",) and _is_map(node)


def _zero(node: Node) -> Any:
    return _ZERO.get(node.types[0]) if len(node.types) == 1 else None


class _Looking:
    """A walk that goes on until something does not fit."""

    def __init__(self, go_types: GoTypes) -> None:
        self._go_types = go_types

    def look(self, node: Node, value: Any, path: tuple[str, ...], holder: str, struct: str) -> str | None:
        """`holder` is the struct that has the field being looked at, `struct` the field's own type where that is one."""
        if value is None:
            return None
        if not node.types and node.properties:
            return self._union(node, value, path, holder, struct)
        if node.types == ("integer", "string"):
            if isinstance(value, str) or (type(value) is int and _fits_int32(value)):
                return None
            got = f"number {value}" if type(value) in _NUMERIC else json_type(value)
            return _refused(got, path, holder, "int32")
        if len(node.types) != 1:
            return None
        match node.types[0]:
            case "object" if node.preserve:
                return None
            case "object" if isinstance(value, dict):
                return self._into(node, value, path, holder, struct)
            case "array" if isinstance(value, list) and node.items is not None:
                return next(
                    (text for item in value if (text := self.look(node.items, item, path, holder, struct))),
                    None,
                )
            case "integer" if isinstance(value, int) and not isinstance(value, bool):
                bound = _NUMBERS.get(node.source.get("format", ""), 2**63)
                fits = -bound <= value < bound
                return None if fits else _refused(f"number {value}", path, holder, _go_type(node, struct))
            case "integer" if isinstance(value, float):
                return _refused(f"number {value}", path, holder, _go_type(node, struct))
            case "number" if isinstance(value, int | float) and not isinstance(value, bool):
                return None
            case "string" if isinstance(value, str):
                return None
            case "boolean" if isinstance(value, bool):
                return None
            case "array" if isinstance(value, list):
                return None
        return _refused(json_type(value), path, holder, _go_type(node, struct))

    def _union(self, node: Node, value: Any, path: tuple[str, ...], holder: str, struct: str) -> str | None:
        """A struct or something else, named after both: JSONSchemaPropsOrArray, JSONSchemaPropsOrBool."""
        if isinstance(value, dict):
            return self._into(node, value, path, holder, struct.partition("Or")[0])
        if isinstance(value, list) and node.items is not None:
            items, inner = node.items, struct.partition("Or")[0]
            return next(
                (text for item in value if (text := self.look(items, item, path, holder, inner))), None
            )
        return None

    def _into(
        self, node: Node, value: dict[str, Any], path: tuple[str, ...], holder: str, struct: str
    ) -> str | None:
        """Map keys are not part of Go's path; metadata is decoded apart."""
        sources = node.source.get("properties") or {}
        known = self._go_types(struct)
        named, inside = known.get("types", {}), known.get("inside", {})
        for key, item in value.items():
            child = node.properties.get(key)
            if child is not None:
                skipped = not path and key == "metadata"
                here = (*path, inside[key], key) if key in inside else (*path, key)
                kind = named.get(key) or named_type(sources.get(key))
                text = None if skipped else self.look(child, item, here, struct, kind)
            else:
                further = node.additional
                text = self.look(further, item, path, holder, struct) if further is not None else None
            if text is not None:
                return text
        return None


def _refused(got: str, path: tuple[str, ...], holder: str, wanted: str) -> str:
    return f"json: cannot unmarshal {got} into Go struct field {_short(holder)}.{'.'.join(path)} of type {wanted}"


def _go_type(node: Node, struct: str) -> str:
    match node.types[0]:
        case "array":
            items = node.items
            return f"[]{_go_type(items, struct) if items is not None and len(items.types) == 1 else 'interface {}'}"
        case "object" if node.additional is not None and len(node.additional.types) == 1:
            return f"map[string]{_go_type(node.additional, struct)}"
        case "object":
            return _typed(struct)
        case "integer":
            return str(node.source.get("format") or "int64")
        case "string" if node.source.get("format") == "byte":
            return "[]uint8"
        case "number":
            return "float64"
        case "boolean":
            return "bool"
        case other:
            return other if struct.startswith(_DEFINED) else struct or other


def _typed(struct: str) -> str:
    """`v2.MetricSpec`: the definition by the last of its package's name, as Go calls it."""
    return ".".join(struct.split(".")[-2:]) if struct.startswith(_DEFINED) else f"v1.{struct}"


def _short(struct: str) -> str:
    return struct.rpartition(".")[2]


def named_type(source: Any) -> str:
    """The Go type that a published schema refers to, by itself, in an `allOf`, or as items."""
    if not isinstance(source, dict):
        return ""
    reference = source.get("$ref") or next((one.get("$ref") for one in source.get("allOf") or ()), None)
    if isinstance(reference, str):
        return reference.removeprefix(_REF)
    return named_type(source.get("items")) or named_type(source.get("additionalProperties"))
