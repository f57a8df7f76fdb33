"""Targets: patches, and who owns what."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import islice, pairwise
from typing import Any, Final

import orjson

from clusterling.machinery import patch, strategic
from clusterling.machinery.apply import fieldset, managed
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.fieldset import FieldSet, FieldSetError
from clusterling.machinery.apply.managed import Writer
from clusterling.machinery.apply.types import MapType, TypedError
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.machinery.schema import compile_schema
from clusterling.machinery.strategic import PatchMeta
from clusterling.packs import builtin
from tests.fuzz import seeds, values
from tests.fuzz.targets import foreseen, target, written
from tests.fuzz.values import Source

_NOW: Final = "2026-01-01T00:00:00Z"


def _pairs(limit: int = 150) -> Iterator[bytes]:
    """An object and another of its kind."""
    last: dict[str, Any] = {}
    for obj in islice(seeds.objects(), 0, None, 12):
        before = last.get(obj.get("kind", ""))
        if before is not None:
            limit -= 1
            yield values.value(before) + values.value(obj)
        last[obj.get("kind", "")] = obj
        if limit == 0:
            return


# --------------------------------------------------------------------------- patches


def _json_patches() -> Iterator[bytes]:
    doc = {"metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {"items": [1, {"a": [2]}]}}
    for body in [one for one in seeds.bodies() if isinstance(one, list)]:
        yield values.value(doc) + values.value(body)
    for op in ("add", "remove", "replace", "move", "copy", "test"):
        for path in ("/metadata/labels/a", "/spec/items/-", "/spec/items/0", "", "/spec/items/1/a/-1"):
            operation = {"op": op, "path": path, "from": "/spec/items/1", "value": {"a": 1}}
            yield values.value(doc) + values.value([operation, operation])


@target(_json_patches)
def json_patch(data: bytes) -> None:
    """A JSON patch changes neither document nor patch, comes to the same each time, and to what can be written."""
    source = Source(data)
    doc, operations = source.object(), source.value()
    before = written([doc, operations])
    outcomes = []
    for _ in range(2):
        try:
            outcomes.append(written(patch.json_patch(doc, operations)))
        except ApiError as error:
            foreseen(error)
            outcomes.append(error.message.encode())
        assert written([doc, operations]) == before
    assert outcomes[0] == outcomes[1]
    patch.json_patch_unknown_fields(operations)


@target(_pairs)
def merge_patch(data: bytes) -> None:
    """A merge patch changes no argument; what it made it makes again of that, where no list of it holds nulls."""
    source = Source(data)
    doc, change = source.object(), source.value()
    before = written([doc, change])
    try:
        made = patch.merge_patch(doc, change)
    except ApiError as error:
        foreseen(error)
        return
    assert written([doc, change]) == before
    _scribble(change)
    assert written(doc) == before[1 : len(written(doc)) + 1]
    change = orjson.loads(before)[1]
    if not _nulls_in_lists(change):
        assert written(patch.merge_patch(made, change)) == written(made)


def _scribble(value: Any) -> None:
    """Changes every container: what shares one with it changes, too."""
    if isinstance(value, dict):
        for one in value.values():
            _scribble(one)
        value["scribbled"] = True
    elif isinstance(value, list):
        for one in value:
            _scribble(one)
        value.append("scribbled")


def _nulls_in_lists(value: Any, inside: bool = False) -> bool:
    if isinstance(value, dict):
        return any((one is None and inside) or _nulls_in_lists(one, inside) for one in value.values())
    return isinstance(value, list) and any(_nulls_in_lists(one, True) for one in value)


_PATCHED: Final = (("", "v1", "Pod"), ("apps", "v1", "Deployment"), ("", "v1", "Service"), ("", "v1", "ConfigMap"), ("", "v1", "Node"))  # fmt: skip


@cache
def _rules(at: int) -> PatchMeta:
    if at == len(_PATCHED):
        return PatchMeta.from_openapi({}, {})
    return PatchMeta.from_openapi(
        builtin.definitions[builtin.definition_of(*_PATCHED[at])], builtin.definitions
    )


def _strategic_seeds() -> Iterator[bytes]:
    for at, (_, _, kind) in enumerate(_PATCHED):
        found = seeds.of_kind(kind)[:40]
        for one, other in pairwise(found):
            yield bytes([at]) + values.value(one) + values.value(other)
    pod = {
        "spec": {"containers": [{"name": "a", "image": "x"}, {"name": "b"}]},
        "metadata": {"finalizers": ["a", "b"]},
    }
    for change in (
        {
            "spec": {
                "$setElementOrder/containers": [{"name": "b"}, {"name": "a"}],
                "containers": [{"name": "a"}],
            }
        },
        {"spec": {"containers": [{"name": "a", "$patch": "delete"}]}},
        {"spec": {"containers": [{"$patch": "replace"}, {"name": "c"}]}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}},
        {"spec": {"$retainKeys": ["containers"], "containers": []}},
        {"spec": {"$patch": "replace", "a": 1}},
    ):
        yield b"\x00" + values.value(pod) + values.value(change)


@target(_strategic_seeds)
def strategic_merge(data: bytes) -> None:
    """A strategic merge patch changes no argument and shares nothing of the patch; an empty one changes nothing."""
    source = Source(data)
    rules = _rules(source.below(len(_PATCHED) + 1))
    doc, change = source.object(), source.value()
    before = written([doc, change])
    try:
        made = strategic.strategic_merge(doc, change, rules)
    except ApiError as error:
        foreseen(error, upstreams=True)
        return
    finally:
        assert written([doc, change]) == before
    text = written(made)
    _scribble(change)
    assert written(made) == text
    assert written(strategic.strategic_merge(doc, {}, rules)) == written(doc)


# --------------------------------------------------------------------------- field sets


def _set_seeds() -> Iterator[bytes]:
    last: Any = {}
    for obj in islice(seeds.objects(), 0, None, 10):
        for entry in obj["metadata"].get("managedFields") or ():
            if isinstance(entry, dict):
                fields = entry.get("fieldsV1", {})
                yield values.value(last) + values.value(fields)
                last = fields
    keyed: dict[str, Any] = {
        "f:spec": {
            "f:a": {".": {}, 'k:{"name":"a"}': {".": {}, "f:b": {}}, 'v:"x"': {}, "v:1": {}, "i:0": {}}
        }
    }
    yield values.value(keyed) + values.value(
        {"f:spec": {".": {}, "f:a": {'k:{"name":"b"}': {}, "v:true": {}}}}
    )


def _paths(fields: FieldSet) -> set[fieldset.Steps]:
    found = list(fieldset.paths(fields))
    assert len(found) == len(set(found)), "no field is told of twice"
    return set(found)


@target(_set_seeds)
def field_sets(data: bytes) -> None:
    """Field sets are sets: of paths, with the laws of sets; and what is written of one reads as it."""
    source = Source(data)
    try:
        a, b = fieldset.parse(source.value()), fieldset.parse(source.value())
    except FieldSetError:
        return
    for one in (a, b):
        assert fieldset.parse(orjson.loads(orjson.dumps(fieldset.ordered(one)))) == one
        fieldset.path_text(next(fieldset.paths(one), ()))
    ours, theirs = _paths(a), _paths(b)
    assert _paths(fieldset.union(a, b)) == ours | theirs
    assert _paths(fieldset.union(b, a)) == ours | theirs
    assert _paths(fieldset.intersection(a, b)) == ours & theirs
    assert _paths(fieldset.difference(a, b)) == ours - theirs
    below = {path for path in ours if any(path[:end] in theirs for end in range(1, len(path) + 1))}
    assert _paths(fieldset.difference_below(a, b)) == ours - below
    assert all(fieldset.has(a, path) for path in ours)


# --------------------------------------------------------------------------- server-side apply

_CUSTOM: Final[Object] = {
    "type": "object",
    "properties": {
        "spec": {
            "type": "object",
            "properties": {
                "a": {"type": "string", "default": "x"},
                "items": {
                    "type": "array",
                    "x-kubernetes-list-type": "map",
                    "x-kubernetes-list-map-keys": ["name", "key"],
                    "items": {
                        "type": "object",
                        "properties": {
                            "name": {"type": "string"},
                            "key": {"type": "integer", "default": 1},
                            "a": {},
                        },
                    },
                },
                "values": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                "data": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": True},
                "b": {"x-kubernetes-int-or-string": True},
                "c": {"x-kubernetes-preserve-unknown-fields": True},
                "labels": {
                    "type": "object",
                    "additionalProperties": {"type": "object", "additionalProperties": True},
                },
            },
        }
    },
}


class _OneVersion:
    settled = certain = False
    certain = True

    def __init__(self, kind: MapType) -> None:
        self._kind = kind

    def type(self, api_version: str) -> MapType | None:
        return self._kind if api_version == "v1" else None

    def convert(self, obj: Object, api_version: str) -> Object:
        return obj

    def kept(self, fields: FieldSet, api_version: str) -> FieldSet:
        return fields


@cache
def _versions(at: int) -> _OneVersion:
    if at == len(_PATCHED):
        return _OneVersion(object_type(compile_schema(_CUSTOM).node))
    schema = builtin.definitions[builtin.definition_of(*_PATCHED[at])]
    return _OneVersion(object_type(compile_schema(schema, definitions=builtin.definitions).node))


def _applied_seeds() -> Iterator[bytes]:
    for seed in _strategic_seeds():
        yield seed[:1] + seed
    spec = {
        "items": [{"name": "a"}, {"name": "b", "key": 2, "a": [1]}],
        "values": ["a", "b"],
        "data": {"a": {}},
        "b": 1,
    }
    for other in (
        {"items": [{"name": "b", "key": 2}, {"name": "c"}]},
        {"values": ["c", "a"]},
        {"c": {"x": []}, "labels": {"a": {}}},
    ):
        yield bytes([len(_PATCHED), 0]) + values.value({"spec": spec}) + values.value({"spec": other})


@target(_applied_seeds)
def server_side_apply(data: bytes) -> None:
    """What is applied a second time changes nothing; entries are read as they were written; walks of a type agree."""
    source = Source(data)
    versions = _versions(source.below(len(_PATCHED) + 1))
    options = source.byte()
    live, applied = _headed(source.object()), _headed(source.object())
    before = written([live, applied])
    manager = "kubectl" if options & 2 else "someone"
    writer = Writer(manager, "v1", "status" if options & 4 else "")

    def once(obj: Object) -> Object:
        return managed.apply(
            versions, obj, deepcopy(applied), writer, _NOW, empty={"apiVersion": "v1", "kind": "A"}, force=bool(options & 1)
        )  # fmt: skip

    try:
        made = once(live)
    except ApiError as error:
        foreseen(error, upstreams=True)
        return
    finally:
        assert written([live, applied]) == before
    made = orjson.loads(orjson.dumps(made))
    assert written(once(made)) == written(made)
    _entries_hold(made)
    _updates_hold(versions, made, live)


def _headed(obj: Object) -> Object:
    """With what the decoder sees to: a kind, and metadata, whose entries were read when they came in."""
    metadata = obj.get("metadata")
    entries: list[Object] = []
    if not isinstance(metadata, dict):
        metadata = {}
    metadata = {
        name: value
        for name, value in metadata.items()
        if name in ("name", "labels", "annotations", "finalizers")
    }
    labels = {name: {k: v for k, v in metadata[name].items() if isinstance(v, str)}
              for name in ("labels", "annotations") if isinstance(metadata.get(name), dict)}  # fmt: skip
    metadata = {
        **{name: value for name, value in metadata.items() if name not in ("labels", "annotations")},
        **labels,
    }
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "apiVersion": "v1", "kind": "A", "metadata": metadata}


def _entries_hold(obj: Object) -> None:
    for entry in obj["metadata"].get("managedFields") or ():
        assert fieldset.ordered(fieldset.parse(entry["fieldsV1"])) == entry["fieldsV1"]


def _updates_hold(versions: _OneVersion, old: Object, new: Object) -> None:
    """An update by somebody else: told of, and told of in the same way when it is told again."""
    changed = {**deepcopy(new), "metadata": {**deepcopy(new["metadata"]), "uid": "u"}}
    before = {**deepcopy(old), "metadata": {**deepcopy(old["metadata"]), "uid": "u"}}
    changed["metadata"].pop("managedFields", None)
    managed.track(versions, before, changed, Writer("other", "v1"), _NOW)
    _entries_hold(changed)
    again = deepcopy(changed)
    managed.track(versions, changed, again, Writer("other", "v1"), _NOW)
    assert written(again) == written(changed)


@target(_applied_seeds)
def typed_walks(data: bytes) -> None:
    """The walks of a type over values that are valid: nothing differs from itself, and what is claimed can be taken away."""
    source = Source(data)
    versions = _versions(source.below(len(_PATCHED) + 1))
    source.byte()
    one, other = source.object(), source.object()
    kind = versions.type("v1")
    assert kind is not None
    for value in (one, other):
        if any(kind.validate(value, "", duplicates=True)):
            return
    try:
        assert not any(kind.compare(one, one))
        merged = kind.merge(one, other)
        claimed = kind.field_set(other) or {}
        change = kind.compare(one, merged)
    except TypedError:
        return
    assert not any(kind.validate(merged, "", duplicates=True))
    orjson.dumps(kind.remove(merged, claimed))
    for entry in change:
        if entry is not None:
            assert fieldset.parse(fieldset.ordered(entry)) == entry
    assert fieldset.difference(claimed, kind.named(claimed)) == {}
