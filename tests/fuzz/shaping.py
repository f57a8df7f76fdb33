"""Targets: schemas, and what objects become by them."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from itertools import islice
from typing import Any, Final

import orjson

from clusterling.machinery.errors import FieldError
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.objectmeta import (
    coerce_object_meta,
    validate_object_meta,
    validate_object_meta_update,
)
from clusterling.machinery.schema import Schema, SchemaError, compile_schema
from clusterling.machinery.structural import (
    drop_unreadable,
    is_structural,
    unrecognized_formats,
    validate_schema,
)
from clusterling.machinery.table import cells
from clusterling.packs import builtin
from clusterling.registry.crd import (
    CustomResourceStrategy,
    crd_warnings,
    default_crd,
    resource_of,
    validate_crd,
)
from tests.fuzz import seeds, values
from tests.fuzz.targets import target, written
from tests.fuzz.values import Source

_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)


def _told(errors: list[FieldError]) -> None:
    """Every error can be written, and takes no more room than it may."""
    for error in errors:
        assert len(orjson.dumps(error.cause())) < 1 << 20
        str(error)


def _schemas() -> Iterator[tuple[Object, Object]]:
    """Schemas that were sent, each with an object."""
    for crd in seeds.of_kind("CustomResourceDefinition"):
        for version in (crd.get("spec") or {}).get("versions") or ():
            schema = (
                (version.get("schema") or {}).get("openAPIV3Schema") if isinstance(version, dict) else None
            )
            if isinstance(schema, dict):
                yield schema, {"spec": {"a": 1, "b": [{"name": "a"}]}, "metadata": {"name": "a"}}
    for keyword, given in (
        ("pattern", "(a+)+$"), ("format", "date-time"), ("enum", ["a", 1]), ("multipleOf", 0.1), ("maximum", 1e308),
        ("x-kubernetes-list-type", "set"), ("default", {"a": 1}), ("nullable", True), ("not", {"required": ["a"]}),
        ("oneOf", [{"required": ["a"]}, {"minProperties": 1}]), ("x-kubernetes-int-or-string", True),
    ):  # fmt: skip
        for kind in ("string", "integer", "array", "object", "number"):
            below: Object = {"type": kind, keyword: given}
            if kind == "array":
                below["items"] = {"type": "string"}
            yield {"type": "object", "properties": {"a": below, "b": below}}, {"a": "x", "b": [1, "a", "a"]}


@target(lambda: (values.value(schema) + values.value(obj) for schema, obj in _schemas()))
def schemas(data: bytes) -> None:
    """A schema that is taken shapes any object: what it pruned and defaulted stays so, and every error can be told."""
    source = Source(data)
    schema, obj, old = source.object(), source.object(), source.object()
    around = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    fitting = _fitting(_crd_kind(), around, "CustomResourceDefinition")
    if fitting is None:
        return
    schema = fitting["spec"]["versions"][0].get("schema", {}).get("openAPIV3Schema") or {}
    drop_unreadable(schema)
    before = written(schema)
    errors = validate_schema(schema, "spec.validation.openAPIV3Schema")
    assert written(schema) == before
    _told(errors)
    if errors:
        return
    is_structural(schema)
    unrecognized_formats(schema)
    try:
        compiled = compile_schema(schema)
    except SchemaError:
        return
    _shapes(compiled, obj, old)


def _shapes(schema: Schema, obj: Object, old: Object) -> None:
    obj = {**obj, "apiVersion": "example.com/v1", "kind": "A", "metadata": {"name": "a"}}
    old = {**old, "apiVersion": "example.com/v1", "kind": "A", "metadata": {"name": "a"}}
    for one in (obj, old):
        schema.prune(one)
        schema.default(one)
        assert not [path for path in schema.prune(one) if not path.startswith("metadata")]
        text = written(one)
        schema.default(one)
        assert written(one) == text
    before = written([obj, old])
    _told(schema.validate(obj))
    _told(schema.validate(obj, old))
    _told(schema.validate_status(obj, old))
    assert written([obj, old]) == before
    if not schema.validate(obj):
        assert not schema.validate(obj, obj)


def _crds() -> Iterator[bytes]:
    for crd in seeds.of_kind("CustomResourceDefinition")[::4]:
        yield values.value(crd) + values.value({"spec": {"replicas": 1}})


@cache
def _crd_kind() -> Schema:
    return builtin.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions").versions[0].schema


@target(_crds)
def definitions(data: bytes) -> None:
    """A CustomResourceDefinition is refused with errors that can be told, or makes a kind that any object can be held against."""
    source = Source(data)
    crd, obj = source.object(), source.object()
    fitting = _fitting(_crd_kind(), crd, "CustomResourceDefinition")
    if fitting is None:
        return
    old = deepcopy(fitting)
    default_crd(fitting)
    default_crd(old)
    fitting.setdefault("status", {})
    for before in (None, old):
        errors = validate_crd(fitting, before)
        _told(errors)
    if validate_crd(fitting):
        return
    crd_warnings(fitting)
    kind = resource_of(fitting, schema_revision=1, guard_key="", strategy=CustomResourceStrategy())
    for version in kind.versions:
        _shapes(version.schema, deepcopy(obj), {})
        orjson.dumps(cells(version.columns, {**obj, "metadata": {"name": "a"}}, _NOW))


def _fitting(schema: Schema, given: Object, kind: str) -> Object | None:
    """The object as it is after decoding into a Go type, None where it does not decode."""
    try:
        metadata, _ = coerce_object_meta(given.get("metadata"), kind=kind)
    except ValueError:
        return None
    obj = {**given, "apiVersion": "v1", "kind": kind, "metadata": metadata}
    schema.prune(obj)
    schema.settle_nulls(obj)
    if schema.mismatch(obj, kind) is not None:
        return None
    schema.default(obj)
    return obj


def _metadata() -> Iterator[bytes]:
    for obj in islice(seeds.objects(), 0, None, 40):
        yield values.value(obj["metadata"]) * 2


@target(_metadata)
def metadata(data: bytes) -> None:
    """Metadata is read or refused; what was read reads as itself, and every rule has an answer to it."""
    source = Source(data)
    found: list[Any] = []
    for given in (source.value(), source.value()):
        try:
            kept, _ = coerce_object_meta(given)
        except ValueError:
            return
        again, unknown = coerce_object_meta(kept)
        assert written(again) == written(kept)
        assert not unknown
        found.append(kept)
    one, other = found
    for namespaced in (True, False):
        _told(list(validate_object_meta(one, namespaced=namespaced, name_problems=is_dns1123_subdomain)))
    _told(list(validate_object_meta_update(one, other)))
