"""A large definition is read no further than it has to be, and then means what it says."""

from __future__ import annotations

from typing import Any

import msgspec
import orjson
import pytest

from clusterling.machinery.codec import OUTLINED_BYTES_MIN, as_written, outlined
from clusterling.machinery.meta import Object
from clusterling.machinery.schema import LARGE_BYTES, Schema, compile_schema, compile_text
from clusterling.registry.crd import decoded

SCHEMA: Object = {
    "type": "object",
    "required": ["spec"],
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                **{f"p{at}": {"type": "string", "default": f"d{at}", "maxLength": 9} for at in range(1_000)},
                "list": {
                    "type": "array",
                    "x-kubernetes-list-type": "set",
                    "items": {"type": "string", "enum": ["a", "b"]},
                },
                "either": {
                    "x-kubernetes-int-or-string": True,
                    "anyOf": [{"type": "integer"}, {"type": "string"}],
                },
                "more": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "properties": {"x": {"type": "integer"}}},
                },
                "inner": {
                    "type": "object",
                    "x-kubernetes-embedded-resource": True,
                    "x-kubernetes-preserve-unknown-fields": True,
                },
            },
        }
    },
}
OBJECTS: list[Object] = [
    {},
    {"spec": {}},
    {"spec": {"p1": 3, "other": 1, "list": ["a", "a", "c"]}},
    {"spec": {"p2": "much too long", "p3": None, "more": {"k": {"x": "y", "z": 1}}, "either": []}},
    {"spec": {"inner": {"kind": "K", "metadata": {"name": 3, "strange": 1}}}},
]


def outcome(schema: Schema, obj: Object) -> object:
    """What the schema makes of an object and says of it."""
    mine: Object = orjson.loads(orjson.dumps(obj))
    pruned = schema.prune(mine)
    schema.default(mine)
    return pruned, mine, [str(error) for error in schema.validate(mine)], schema.embedded_mismatch(mine)


@pytest.mark.parametrize("preserve", [False, True])
def test_a_schema_that_is_read_late_and_compiled_in_steps_is_the_same(preserve: bool) -> None:
    text = orjson.dumps({**SCHEMA, "description": str(preserve)})
    late = compile_text(text, preserve_unknown=preserve)
    waits = not late.is_compiled
    assert waits
    assert compile_text(text, preserve_unknown=preserve) is late
    steps = sum(1 for _ in late.compiling())
    assert late.is_compiled
    assert steps > 2_000
    at_once = compile_schema(orjson.loads(text), preserve_unknown=preserve)
    assert late.source == at_once.source
    for obj in OBJECTS:
        assert outcome(late, obj) == outcome(at_once, obj)


def test_what_a_schema_keeps_is_not_what_another_keeps_that_is_written_alike() -> None:
    text = orjson.dumps({"type": "object", "properties": {"a": {"type": "string"}}})
    unknown: Object = {"b": 1}
    assert outcome(compile_text(text), unknown) != outcome(compile_text(text, preserve_unknown=True), unknown)


def definition(**version: object) -> Object:
    return {"metadata": {"name": "x"}, "spec": {"group": "g", "versions": [{"name": "v1", **version}]}}


@pytest.mark.parametrize(
    "obj",
    [
        definition(schema={"openAPIV3Schema": SCHEMA}, served=True),
        definition(schema=None, note="n" * LARGE_BYTES),
        definition(schema={"openAPIV3Schema": None}, note="n" * LARGE_BYTES),
        definition(note="n" * LARGE_BYTES),
        {"spec": {"versions": "none"}, "note": "n" * LARGE_BYTES},
        {"note": "n" * LARGE_BYTES},
    ],
)
def test_a_definition_is_decoded_whole_but_for_its_schemas(obj: Object) -> None:
    found = decoded(orjson.dumps(obj))
    versions = found.get("spec", {}).get("versions")
    for at, version in enumerate(versions if isinstance(versions, list) else ()):
        schema: Any = (version.get("schema") or {}).get("openAPIV3Schema")
        given = (obj["spec"]["versions"][at].get("schema") or {}).get("openAPIV3Schema")
        assert isinstance(schema, msgspec.Raw) is (given is not None)
        if given is not None:
            assert orjson.loads(bytes(schema)) == given
            version["schema"]["openAPIV3Schema"] = given
    assert found == obj


def test_each_versions_schema_is_its_own() -> None:
    first = {"name": "v1", "schema": {"openAPIV3Schema": SCHEMA}}
    small = {"name": "v2", "schema": {"openAPIV3Schema": {"type": "object"}}}
    other = {"name": "v4", "schema": {"openAPIV3Schema": {**SCHEMA, "description": "another"}}}
    obj: Object = {
        "metadata": {"annotations": {"a": orjson.dumps(SCHEMA).decode()}},
        "spec": {"versions": [first, small, {**first, "name": "v3"}, other]},
    }
    value = orjson.dumps(obj)
    found = decoded(value)
    kept = [version["schema"]["openAPIV3Schema"] for version in found["spec"]["versions"]]
    assert [isinstance(schema, msgspec.Raw) for schema in kept] == [True, False, True, True]
    assert orjson.dumps(found, default=as_written) == value


@pytest.mark.parametrize("large", [False, True])
def test_an_outline_is_written_as_it_was(large: bool) -> None:
    more = "x" * OUTLINED_BYTES_MIN if large else "x"
    metadata: Object = {
        "name": "a",
        "finalizers": ["f"],
        "annotations": {"a": more},
        "managedFields": [
            {"manager": "m", "fieldsV1": {"f:spec": {f"f:{more}": {}}}},
            {"manager": "n", "fieldsV1": {}},
        ],
    }
    obj = {
        "apiVersion": "v1",
        "kind": "K",
        "metadata": metadata,
        "spec": {"a": more},
        "data": [more],
        "status": {"s": 1},
    }
    value = orjson.dumps(obj)
    found = outlined(value)
    assert orjson.dumps(found, default=as_written) == value
    assert found["metadata"]["finalizers"] == ["f"]
    assert isinstance(found["spec"], msgspec.Raw) is isinstance(found["data"], msgspec.Raw) is large
    first, second = found["metadata"]["managedFields"]
    assert (first["manager"], isinstance(first["fieldsV1"], msgspec.Raw)) == ("m", large)
    assert (found["status"], second) == ({"s": 1}, {"manager": "n", "fieldsV1": {}})
