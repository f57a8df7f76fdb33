"""OpenAPI v2 as protobuf: gnostic's `openapi.v2` messages, written straight from the JSON values.

kubectl and client-go ask for `/openapi/v2` in this form only. A protobuf message is a run of fields, and a repeated
field may be written in any number of pieces, so a document can be joined from its members as JSON is.

Field numbers: github.com/google/gnostic-models/openapiv2/OpenAPIv2.proto (of the messages that we write).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.protowire import content, double, integer
from clusterling.machinery.steps import PIECES, Steps, at_once

_Writer = Callable[[int, Any], bytes]


def _text(field: int, value: Any) -> bytes:
    return content(field, str(value).encode())


def _texts(field: int, values: Any) -> bytes:
    return b"".join(_text(field, value) for value in values)


def _bool(field: int, value: Any) -> bytes:
    return integer(field, 1) if value else b""


def _integer(field: int, value: Any) -> bytes:
    return integer(field, int(value)) if value else b""


def _double(field: int, value: Any) -> bytes:
    return double(field, value) if value else b""


def _any(field: int, value: Any) -> bytes:
    """An `Any`, whose text is YAML, which JSON is."""
    return content(field, content(2, orjson.dumps(value)))


def _anys(field: int, values: Any) -> bytes:
    return b"".join(_any(field, value) for value in values)


def _named(field: int, name: str, value: bytes) -> bytes:
    """A `Named…` message: how gnostic writes one member of a map."""
    return content(field, _text(1, name) + content(2, value))


def _write(value: Object, fields: Mapping[str, tuple[int, _Writer]], extensions: int) -> bytes:
    """A message from a JSON object: its known members in their fields, `x-…` in the field of extensions."""
    told: list[bytes] = []
    for key, one in value.items():
        known = fields.get(key)
        if known is not None:
            told.append(known[1](known[0], one))
        elif key.startswith("x-"):
            told.append(_named(extensions, key, content(2, orjson.dumps(one))))
    return b"".join(told)


def _schema(value: Object) -> Steps[bytes]:
    """A `Schema`."""
    told: list[bytes] = []
    for key, one in value.items():
        if key == "properties":
            properties: list[bytes] = []
            for at, (name, child) in enumerate(one.items()):
                if not at % PIECES:
                    yield
                properties.append(_named(1, name, (yield from _schema(child))))
            told.append(content(25, b"".join(properties)))
        elif key == "items":
            told.append(content(23, content(1, (yield from _schema(one)))))
        elif key == "additionalProperties" and isinstance(one, dict):
            told.append(content(21, content(1, (yield from _schema(one)))))
        else:
            told.append(_write({key: one}, _SCHEMA, 31))
    return b"".join(told)


def _schema_field(field: int, value: Any) -> bytes:
    return content(field, at_once(_schema(value)))


def _schemas(field: int, values: Any) -> bytes:
    return b"".join(_schema_field(field, value) for value in values)


def _type(field: int, value: Any) -> bytes:
    return content(field, _texts(1, [value] if isinstance(value, str) else value))


def _additional(field: int, value: Any) -> bytes:
    # In a oneof the field tells which it is, so false must be written too.
    return content(field, integer(2, int(value)))


def _external_docs(field: int, value: Any) -> bytes:
    return content(field, _write(value, {"description": (1, _text), "url": (2, _text)}, 3))


_SCHEMA: Final[dict[str, tuple[int, _Writer]]] = {
    "$ref": (1, _text),
    "format": (2, _text),
    "title": (3, _text),
    "description": (4, _text),
    "default": (5, _any),
    "multipleOf": (6, _double),
    "maximum": (7, _double),
    "exclusiveMaximum": (8, _bool),
    "minimum": (9, _double),
    "exclusiveMinimum": (10, _bool),
    "maxLength": (11, _integer),
    "minLength": (12, _integer),
    "pattern": (13, _text),
    "maxItems": (14, _integer),
    "minItems": (15, _integer),
    "uniqueItems": (16, _bool),
    "maxProperties": (17, _integer),
    "minProperties": (18, _integer),
    "required": (19, _texts),
    "enum": (20, _anys),
    "additionalProperties": (21, _additional),
    "type": (22, _type),
    "allOf": (24, _schemas),
    "externalDocs": (29, _external_docs),
    "example": (30, _any),
}


def _parameters(field: int, values: Any) -> bytes:
    return b"".join(content(field, content(1, _parameter(value))) for value in values)


def _parameter(value: Object) -> bytes:
    where = value["in"]
    if where == "body":
        return content(1, _write(value, _BODY_PARAMETER, 6))
    fields, number = (_PATH_PARAMETER, 4) if where == "path" else (_QUERY_PARAMETER, 3)
    return content(2, content(number, _write(value, fields, 22 if where == "path" else 23)))


_BODY_PARAMETER: Final[dict[str, tuple[int, _Writer]]] = {
    "description": (1, _text),
    "name": (2, _text),
    "in": (3, _text),
    "required": (4, _bool),
    "schema": (5, _schema_field),
}
_PATH_PARAMETER: Final[dict[str, tuple[int, _Writer]]] = {
    "required": (1, _bool),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (5, _text),
    "uniqueItems": (19, _bool),
}
_QUERY_PARAMETER: Final[dict[str, tuple[int, _Writer]]] = {
    "required": (1, _bool),
    "in": (2, _text),
    "description": (3, _text),
    "name": (4, _text),
    "type": (6, _text),
    "uniqueItems": (20, _bool),
}


def _response_schema(field: int, value: Any) -> bytes:
    return content(field, _schema_field(1, value))


_RESPONSE: Final[dict[str, tuple[int, _Writer]]] = {
    "description": (1, _text),
    "schema": (2, _response_schema),
}


def _responses(field: int, value: Any) -> bytes:
    told = (_named(1, code, content(1, _write(one, _RESPONSE, 5))) for code, one in value.items())
    return content(field, b"".join(told))


_OPERATION: Final[dict[str, tuple[int, _Writer]]] = {
    "tags": (1, _texts),
    "description": (3, _text),
    "operationId": (5, _text),
    "produces": (6, _texts),
    "consumes": (7, _texts),
    "parameters": (8, _parameters),
    "responses": (9, _responses),
    "schemes": (10, _texts),
}


def _operation(field: int, value: Any) -> bytes:
    return content(field, _write(value, _OPERATION, 13))


_PATH_ITEM: Final[dict[str, tuple[int, _Writer]]] = {
    "get": (2, _operation),
    "put": (3, _operation),
    "post": (4, _operation),
    "delete": (5, _operation),
    "options": (6, _operation),
    "head": (7, _operation),
    "patch": (8, _operation),
    "parameters": (9, _parameters),
}


def path_members(paths: Object) -> bytes:
    """Members of a `Paths` message."""
    return b"".join(_named(2, path, _write(item, _PATH_ITEM, 10)) for path, item in paths.items())


def definition_members(definitions: Object) -> Steps[bytes]:
    """Members of a `Definitions` message."""
    members: list[bytes] = []
    for name, one in definitions.items():
        members.append(_named(1, name, (yield from _schema(one))))
    return b"".join(members)


def document(info: Object, paths: bytes, definitions: bytes, security: Object) -> bytes:
    """A `Document`. `paths` and `definitions` are members, joined; `security` API keys by name."""
    keys = {"type": (1, _text), "name": (2, _text), "in": (3, _text), "description": (4, _text)}
    schemes = b"".join(_named(1, name, content(2, _write(one, keys, 5))) for name, one in security.items())
    required = b"".join(_named(1, name, b"") for name in security)
    return b"".join(
        (
            _text(1, "2.0"),
            content(2, _write(info, {"title": (1, _text), "version": (2, _text)}, 7)),
            content(8, paths),
            content(9, definitions),
            content(12, required),
            content(13, schemes),
        )
    )
