"""A resource's part of the OpenAPI v2 document, which tells all of a cluster's groups at once.

The document is made as JSON members and, from the same values, as members of gnostic's protobuf messages; both are
joined from fragments. Clients read v2 only where v3 is missing: what they look at is kept, the rest is terse.

Upstream: kube-openapi/pkg/{builder,handler}.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import orjson

from clusterling.machinery.meta import Object
from clusterling.machinery.steps import Steps, at_once
from clusterling.registry.resource import Served
from clusterling.services.openapi import gnostic, schemas
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
from clusterling.version import KUBERNETES

_SECURITY: Final[Object] = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "type": "apiKey",
        "name": "authorization",
        "in": "header",
    }
}
INFO: Final = {"title": "Kubernetes", "version": KUBERNETES.rpartition(".")[0]}


class Fragment:
    """What one resource adds: members of `paths` and `definitions` as JSON and as protobuf, and what they refer to."""

    __slots__ = ("json_definitions", "json_paths", "proto_definitions", "proto_paths", "references")

    def __init__(self, paths: Object, own: Object, proto: bytes, references: frozenset[str]) -> None:
        """`proto`: what `own` is as protobuf."""
        self.json_paths = orjson.dumps(paths)[1:-1]
        self.json_definitions = orjson.dumps(own)[1:-1]
        self.proto_paths = gnostic.path_members(paths)
        self.proto_definitions = proto
        self.references = references

    @property
    def size(self) -> int:
        return (
            len(self.json_paths)
            + len(self.json_definitions)
            + len(self.proto_paths)
            + len(self.proto_definitions)
        )


def fragment(served: Served, definitions: Definitions) -> Steps[Fragment]:
    """A resource's part of the document."""
    paths = paths_of(served, definitions)
    own, references = yield from told_beside(served, definitions, paths, v2=True)
    proto = yield from gnostic.definition_members(own)
    told = {path.path: _path_item(path, definitions, own) for path in paths if path.operations}
    return Fragment(told, own, proto, references)


def head_fragment(path: Path, definitions: Definitions) -> Fragment:
    """A path of discovery, or of the version."""
    return Fragment({path.path: _path_item(path, definitions, {})}, {}, b"", told_of(path, definitions))


def shared_fragment(name: str, definitions: Definitions) -> Fragment:
    """One of upstream's definitions, which this document tells once for all groups."""
    told = schemas.of_versions(name, definitions.published(name), definitions.option_versions)
    own = {name: schemas.definition_v2(told)}
    return Fragment({}, own, at_once(gnostic.definition_members(own)), frozenset())


def json_document(fragments: Iterable[Fragment]) -> bytes:
    """The document as JSON."""
    parts = list(fragments)
    paths = b",".join(part.json_paths for part in parts if part.json_paths)
    definitions = b",".join(part.json_definitions for part in parts if part.json_definitions)
    tail = orjson.dumps({"securityDefinitions": _SECURITY, "security": [{"BearerToken": []}]})
    return b'{"swagger":"2.0","info":%b,"paths":{%b},"definitions":{%b},%b' % (
        orjson.dumps(INFO),
        paths,
        definitions,
        tail[1:],
    )


def proto_document(fragments: Iterable[Fragment]) -> bytes:
    """The document as gnostic's protobuf (openapi.v2.Document)."""
    parts = list(fragments)
    return gnostic.document(
        INFO,
        b"".join(part.proto_paths for part in parts),
        b"".join(part.proto_definitions for part in parts),
        _SECURITY,
    )


def _path_item(path: Path, definitions: Definitions, own: Object) -> Object:
    item: Object = {one.method: _operation(one, definitions, own) for one in path.operations}
    if path.parameters:
        item["parameters"] = [_parameter(one) for one in path.parameters]
    return item


def _operation(operation: Operation, definitions: Definitions, own: Object) -> Object:
    parameters = [_parameter(one) for one in operation.parameters]
    told: Object = {"description": operation.description}
    taken = operation.body_types or operation.taken
    if taken:
        told["consumes"] = list(taken)
    if operation.body_types:
        body: Object = {"name": "body", "in": "body"}
        if operation.body_required:
            body["required"] = True
        parameters.insert(0, body | {"schema": _schema(operation.body, definitions, own)})
    told |= {
        "produces": list(operation.answer_types),
        "schemes": ["https"],
        "tags": [operation.tag],
        "operationId": operation.id,
    }
    if parameters:
        told["parameters"] = parameters
    schema = _schema(operation.answer, definitions, own)
    responses: Object = {
        str(status): {"description": meaning, "schema": schema} for status, meaning in operation.responses()
    }
    told["responses"] = responses | {"401": {"description": "Unauthorized"}}
    return told | kubernetes_extensions(operation)


def _schema(name: str | None, definitions: Definitions, own: Object) -> Object:
    if name == TEXT:
        return {"type": "string"}
    known = name is not None and (name in own or name in definitions.source)
    return {"$ref": f"{schemas.V2_PREFIX}{name}"} if known else {"type": "object"}


def _parameter(parameter: Parameter) -> Object:
    told: Object = {
        "uniqueItems": True,
        "type": parameter.type,
        "name": parameter.name,
        "in": parameter.where,
    }
    if parameter.description:
        told["description"] = parameter.description
    if parameter.where == "path":
        told["required"] = True
    return told
