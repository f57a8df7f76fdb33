"""A group-version's OpenAPI v3 document, put together from fragments of bytes.

A resource's paths and schemas are one fragment, a shared definition another; each is encoded once per content and
kept, so a document is a concatenation, and one more CRD in a group costs its own fragment only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.steps import Steps
from clusterling.registry.resource import Served
from clusterling.services.openapi import schemas
from clusterling.services.openapi.operations import (
    TEXT,
    Operation,
    Parameter,
    Path,
    kubernetes_extensions,
    paths_of,
    told_beside,
    told_of,
)
from clusterling.services.openapi.schemas import Definitions

# Upstream tells documents of custom kinds so: openapi/builder/builder.go.
_CUSTOM_INFO: Final = {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"}
_SECURITY: Final = (
    b',"securitySchemes":{"BearerToken":{"description":"Bearer Token authentication",'
    b'"in":"header","name":"authorization","type":"apiKey"}}'
)
_UNAUTHORIZED: Final = {"description": "Unauthorized"}


class Fragment:
    """What one resource adds to a document: members of `paths` and of `schemas`, and the definitions both refer to."""

    __slots__ = ("paths", "references", "schemas")

    def __init__(self, paths: bytes, own: bytes, references: frozenset[str]) -> None:
        self.paths = paths
        self.schemas = own
        self.references = references

    @property
    def size(self) -> int:
        return len(self.paths) + len(self.schemas)


def fragment(served: Served, definitions: Definitions) -> Steps[Fragment]:
    """A resource's part of its group-version's document."""
    paths = paths_of(served, definitions)
    own, references = yield from told_beside(served, definitions, paths, v2=False)
    told = {path.path: path_item(path, definitions, own) for path in paths if path.operations}
    yield
    return Fragment(orjson.dumps(told)[1:-1], orjson.dumps(own)[1:-1], references)


def head_fragment(path: Path, definitions: Definitions) -> Fragment:
    """A path of discovery, or of the version."""
    told = {path.path: path_item(path, definitions, {})}
    return Fragment(orjson.dumps(told)[1:-1], b"", told_of(path, definitions))


def document(
    fragments: Iterable[Fragment], definitions: Definitions, shared: Iterable[bytes], *, info: Object | None
) -> bytes:
    """The whole document. `shared` are the encoded members of all definitions that the fragments reach; `info` None:
    a group of custom kinds."""
    parts = list(fragments)
    paths = b",".join(part.paths for part in parts if part.paths)
    members = b",".join([*(part.schemas for part in parts if part.schemas), *shared])
    return b'{"openapi":"3.0.0","info":%b,"paths":{%b},"components":{"schemas":{%b}%b}}' % (
        orjson.dumps(info or _CUSTOM_INFO),
        paths,
        members,
        _SECURITY if info else b"",
    )


def member(name: str, schema: Object) -> bytes:
    """A member of `schemas`."""
    return orjson.dumps({name: schema})[1:-1]


def path_item(path: Path, definitions: Definitions, own: Object) -> Object:
    """One member of `paths`."""
    item: Object = {}
    for operation in path.operations:
        item[operation.method] = _operation(operation, definitions, own)
    if path.parameters:
        item["parameters"] = [_parameter(one) for one in path.parameters]
    return item


def _operation(operation: Operation, definitions: Definitions, own: Object) -> Object:
    told: Object = {
        "tags": [operation.tag],
        "description": operation.description,
        "operationId": operation.id,
    }
    if operation.parameters:
        told["parameters"] = [_parameter(one) for one in operation.parameters]
    if operation.body_types:
        schema = _schema(operation.body, definitions, own)
        told["requestBody"] = {"content": {media: {"schema": schema} for media in operation.body_types}}
        if operation.body_required:
            told["requestBody"]["required"] = True
    schema = _schema(operation.answer, definitions, own)
    content = {media: {"schema": schema} for media in operation.answer_types}
    responses: Object = {
        str(status): {"description": meaning, "content": content} for status, meaning in operation.responses()
    }
    told["responses"] = responses | {"401": _UNAUTHORIZED}
    return told | kubernetes_extensions(operation)


def _schema(name: str | None, definitions: Definitions, own: Object) -> Object:
    if name == TEXT:
        return {"type": "string"}
    # Without upstream's definitions at hand, what refers to them is any object.
    known = name is not None and (name in own or name in definitions.source)
    return {"$ref": f"{schemas.V3_PREFIX}{name}"} if known else {"type": "object"}


def _parameter(parameter: Parameter) -> Object:
    told: Object = {"name": parameter.name, "in": parameter.where}
    if parameter.description:
        told["description"] = parameter.description
    if parameter.where == "path":
        told["required"] = True
    return told | {"schema": {"type": parameter.type, "uniqueItems": True}}
