"""Reading decoded JSON into a Go type without a text between: how upstream reads what a strategic patch made.

Other rules than those of its JSON decoder, and other words: numbers are made to fit, fields are read in the order in
which the Go type declares them, and what does not fit is told of without its place.

Upstream: apimachinery pkg/runtime/converter.go (FromUnstructured).
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any, Final

from clusterling.machinery.gotext import json_type
from clusterling.machinery.quantity import FORMAT_WRONG
from clusterling.machinery.schema.node import Node
from clusterling.machinery.schema.typed import QUANTITY, GoTypes, named_type

# What reflect calls the kinds of decoded JSON; a whole number is one of these by its type.
_KINDS: Final = {"bool": "bool", "string": "string", "array": "slice", "object": "map"}
_BITS: Final = {"int32": 32, "int64": 64}


def unconvertible(node: Node, obj: dict[str, Any], go_types: GoTypes) -> str | None:
    """Upstream's words for the first value that does not fit its type, None where all do. Numbers are converted in place."""
    try:
        for name in ("kind", "apiVersion"):
            if obj.get(name) is not None:
                _text(obj[name], "string")
        _Reading(go_types).struct(node, obj, "")
    except _Unfit as unfit:
        return str(unfit)
    return None


class _Unfit(ValueError):
    """A value does not fit."""


def _kind(value: object) -> str:
    if type(value) is int:
        return "int64"
    return "float64" if type(value) is float else _KINDS[json_type(value)]


def _text(value: object, wanted: str) -> object:
    if type(value) is str:
        return value
    # Go would make a rune of a whole number: that much it can convert.
    raise _Unfit(f"cannot convert int64 to {wanted}" if type(value) is int else "unrecognized type: string")


def _whole(value: object, wanted: str) -> int:
    if type(value) is float:
        if not value.is_integer():
            raise _Unfit(f"cannot convert float64 to {wanted}")
        value = int(value)
    if type(value) is not int:
        raise _Unfit(f"unrecognized type: {wanted}")
    if wanted == "uint8":
        return value % 256
    half = 1 << (_BITS[wanted] - 1)
    return (value + half) % (2 * half) - half  # What is too large loses its upper bits.


def _from_json(value: object, wanted: str, *kinds: type) -> object:
    """What reads itself from JSON: times, numbers or names of ports."""
    if type(value) in kinds:
        return value
    got = f"number {value}" if type(value) is float and wanted != "string" else json_type(value)
    raise _Unfit(f"json: cannot unmarshal {got} into Go value of type {wanted}")


class _Reading:
    def __init__(self, go_types: GoTypes) -> None:
        self._go_types = go_types

    def value(self, node: Node, value: Any, named: str) -> Any:
        """The value as its Go type has it. `named`: that type, where it has a name."""
        if value is None:
            return value
        if node.types == ("integer", "string"):
            return _from_json(value, "int32", str, int)
        if node.source.get("oneOf") == QUANTITY and type(value) in (bool, list, dict):
            raise _Unfit(FORMAT_WRONG)
        if len(node.types) != 1:
            return value
        form = node.source.get("format") or ""
        match node.types[0]:
            case "string" if form == "date-time":
                return _from_json(value, "string", str)
            case "string" if form != "byte":
                return _text(
                    value, named if named and "/" not in named and not named.startswith("io.") else "string"
                )
            case "integer":
                return _whole(value, form if form in _BITS else "int64")
            case "number":
                if type(value) not in (int, float):
                    raise _Unfit("unrecognized type: float64")
            case "boolean":
                if type(value) is not bool:
                    raise _Unfit("unrecognized type: bool")
            case "array":
                return self._list(node, value, named)
            case "object" if not node.preserve:
                return self._map(node, value, named)
            case "string" if type(value) is list:
                return b64encode(bytes(_whole(item or 0, "uint8") for item in value)).decode()
            case "string" if type(value) is not str:
                raise _Unfit(f"cannot restore slice from {_kind(value)}")
        return value

    def _list(self, node: Node, value: Any, named: str) -> Any:
        if type(value) is not list:
            raise _Unfit(f"cannot restore slice from {_kind(value)}")
        if node.items is not None:
            value[:] = [self.value(node.items, item, named) for item in value]
        return value

    def _map(self, node: Node, value: Any, named: str) -> Any:
        if node.properties:
            if type(value) is not dict:
                raise _Unfit(f"cannot restore struct from: {_kind(value)}")
            self.struct(node, value, named)
        elif node.additional is not None:
            if type(value) is not dict:
                raise _Unfit(f"cannot restore map from {_kind(value)}")
            for key, item in value.items():
                value[key] = self.value(node.additional, item, named)
        return value

    def struct(self, node: Node, value: dict[str, Any], definition: str) -> None:
        sources = node.source.get("properties") or {}
        known = self._go_types(definition) if definition else {}
        types = known.get("types", {})
        # An object's metadata first, then its spec, then its status.
        place = {name: at for at, name in enumerate(known.get("order", ("metadata",)))}
        for name in sorted(
            value.keys() & node.properties.keys(), key=lambda name: place.get(name, len(place))
        ):
            named = types.get(name) or named_type(sources.get(name))
            value[name] = self.value(node.properties[name], value[name], named)
