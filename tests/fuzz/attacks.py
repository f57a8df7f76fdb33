"""Attacks by size: inputs that somebody has thought of to cost more than they are long, each for a number that scales it.

What is tested of each is its outcome and the memory that it takes (test_attacks); `make fuzz ARGS=--scaling` measures the time
of each at doubled sizes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from clusterling.machinery import codec, patch, strictjson
from clusterling.machinery.apply import fieldset
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.types import MapType, TypedError
from clusterling.machinery.errors import ApiError, invalid
from clusterling.machinery.fieldorder import order_of, place_of
from clusterling.machinery.jsonpath import compile_path
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.machinery.objectmeta import validate_object_meta
from clusterling.machinery.protobuf import PREFIX
from clusterling.machinery.protowire import content
from clusterling.machinery.schema import Schema, compile_schema
from clusterling.machinery.selectors import FieldSelector, LabelSelector
from clusterling.machinery.strategic import PatchMeta, strategic_merge
from clusterling.machinery.structural import validate_schema
from clusterling.packs import builtin
from clusterling.registry.crd import CustomResourceStrategy, resource_of
from clusterling.services import requestinfo

# What each may end in: the rest is not foreseen.
_REFUSALS: Final = (ApiError, ValueError)


@dataclass(frozen=True, slots=True)
class Attack:
    """`make(size)` gives what is called and how many bytes were sent for it; `size` is what it begins with in measuring."""

    name: str
    make: Callable[[int], tuple[Callable[[], object], int]]
    size: int


ATTACKS: Final[dict[str, Attack]] = {}

_Make = Callable[[int], tuple[Callable[[], object], int]]


# They cost more for each byte by design, up to a bound that ends them.
EXPLOSIVE: Final = frozenset(
    {
        "JSON patch that doubles by copying",
        "YAML of aliases of aliases",
        "objects of items that a long enumeration has not",
    }
)


def _attack(name: str, size: int) -> Callable[[_Make], _Make]:
    def register(make: _Make) -> _Make:
        ATTACKS[name] = Attack(name, make, size)
        return make

    return register


def carried_out(run: Callable[[], object]) -> None:
    """Runs an attack to its answer, which may be a refusal."""
    try:
        run()
    except _REFUSALS as error:
        assert not isinstance(error, ApiError) or error.code < 500 or not error.reason, error


# --------------------------------------------------------------------------- bodies

_HEAD: Final = b'{"apiVersion":"v1","kind":"ConfigMap","a":'


def _bodies(name: str, size: int, text: Callable[[int], bytes]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        body = text(scale)
        read = codec.decode_yaml if name.startswith("YAML") else codec.decode_json
        return lambda: read(body), len(body)

    ATTACKS[name] = Attack(name, make, size)


_bodies("JSON of brackets that open", 100_000, lambda n: b"[" * n)
_bodies("JSON of maps that open", 20_000, lambda n: b'{"a":' * n)
_bodies("JSON of empty lists", 100_000, lambda n: _HEAD + b"[" + b"[]," * n + b"1]}")
_bodies("JSON of a number of many digits", 300_000, lambda n: _HEAD + b"1" * n + b"}")
_bodies("JSON of a fraction of many digits", 300_000, lambda n: _HEAD + b"0." + b"1" * n + b"}")
_bodies(
    "JSON of a number with many digits in its exponent", 300_000, lambda n: _HEAD + b"1e" + b"1" * n + b"}"
)
_bodies("JSON of a key given again and again", 20_000, lambda n: _HEAD + b"{" + b'"a":1,' * n + b'"b":1}}')
_bodies(
    "JSON of keys given twice below a long one",
    10_000,
    lambda n: (
        _HEAD
        + b'{"'
        + b"x" * 20 * n
        + b'":{'
        + b",".join(b'"%d":1,"%d":1' % (i, i) for i in range(n))
        + b"}}}"
    ),
)
_bodies("JSON of escapes in a key given twice", 50_000, lambda n: b'{"a":"' + b"\\u00e9" * n + b'","a":1}')
_bodies("JSON of halves of surrogate pairs", 50_000, lambda n: b'{"a":"' + b"\\ud800" * n + b'","a":1}')
_bodies("JSON of bytes that are no UTF-8", 200_000, lambda n: b'{"a":"' + b"\xff" * n + b'"}')
_bodies("JSON of spaces", 500_000, lambda n: b" " * n + b'{"a":1,"a":2}')
_bodies("YAML of brackets that open", 300_000, lambda n: b"[" * n)
_bodies("YAML of dashes", 300_000, lambda n: b"- " * n)
_bodies("YAML of question marks", 300_000, lambda n: b"? " * n)
_bodies(
    "YAML of tag directives",
    500,
    lambda n: b"".join(b"%%TAG !%d! a\n" % i for i in range(n)) + b"---\na: 1\n",
)
_bodies("YAML of comments", 200_000, lambda n: b"#\n" * n)
_bodies("YAML of anchors", 10_000, lambda n: b"".join(b"- &a%d x\n" % i for i in range(n)))
_bodies(
    "YAML of an alias of a long text",
    1_000,
    lambda n: b"a: &a " + b"x" * 10 * n + b"\nb: [" + b"*a," * n + b"]",
)
_bodies("YAML of aliases of aliases", 5, lambda n: b"a0: &a0 [x]\n" + b"".join(b"a%d: &a%d [%b]\n" % (i, i, b"*a%d," % (i - 1) * 9) for i in range(1, n)))  # fmt: skip
_bodies("YAML of maps merged into maps", 2_000, lambda n: b"a: &a {b: 1}\n" + b"<<: *a\n" * n)
_bodies("YAML of a key given again and again", 10_000, lambda n: b"a: 1\n" * n)
_bodies("YAML of a text over many lines", 50_000, lambda n: b'a: "' + b"x\n" * n + b'"')
_bodies("YAML of a block over many lines", 50_000, lambda n: b"a: |\n" + b" x\n" * n)
_bodies("YAML of digits", 300_000, lambda n: b"a: " + b"1" * n)
_bodies("YAML of digits with underscores", 150_000, lambda n: b"a: " + b"1_" * n)
_bodies("YAML of flow keys", 10_000, lambda n: b"{" + b"a," * n + b"}")


def _protobuf(name: str, size: int, kind: tuple[str, str], raw: Callable[[int], bytes]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        head = content(1, content(1, kind[0].encode()) + content(2, kind[1].encode()))
        body = PREFIX + head + content(2, raw(scale))
        return lambda: builtin.protobuf_codec().decode(body), len(body)

    ATTACKS[name] = Attack(name, make, size)


def _nested_lists(levels: int) -> bytes:
    raw = content(2, content(1, b"x" * 100_000))
    for _ in range(levels):
        head = content(1, content(1, b"v1") + content(2, b"List"))
        raw = content(2, content(1, PREFIX + head + content(2, raw)))
    return raw


_CRD: Final = ("apiextensions.k8s.io/v1", "CustomResourceDefinition")


def _with_schema(schema: bytes) -> bytes:
    return content(2, content(7, content(1, b"v1") + content(4, content(1, schema))))


_protobuf("protobuf of empty fields", 50_000, ("v1", "Pod"), lambda n: content(2, b"") * n)
_protobuf("protobuf of entries of a map", 20_000, ("v1", "ConfigMap"), lambda n: content(2, b"\x0a\x01a") * n)
_protobuf(
    "protobuf of fields within one entry", 50_000, ("v1", "ConfigMap"), lambda n: content(2, b"\x0a\x00" * n)
)
_protobuf("protobuf of lists in lists", 4, ("v1", "List"), _nested_lists)
_protobuf(
    "protobuf of schemas or booleans", 20_000, _CRD, lambda n: _with_schema(content(30, b"\x10\x01" * n))
)
_protobuf(
    "protobuf of schemas in lists of schemas",
    20_000,
    _CRD,
    lambda n: _with_schema(content(24, content(2, b"") * n)),
)
_protobuf("protobuf of a varint that goes on", 200_000, ("v1", "Pod"), lambda n: b"\xff" * n)


# --------------------------------------------------------------------------- patches


def _patched(
    name: str, size: int, pair: Callable[[int], tuple[Object, Any]], *, strategic: bool = False
) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        doc, change = pair(scale)
        sent = len(orjson.dumps([doc, change]))
        if strategic:
            return lambda: strategic_merge(doc, change, _pods()), sent
        if isinstance(change, list):
            return lambda: patch.json_patch(doc, change), sent
        return lambda: patch.merge_patch(doc, change), sent

    ATTACKS[name] = Attack(name, make, size)


@cache
def _pods() -> PatchMeta:
    return PatchMeta.from_openapi(
        builtin.definitions[builtin.definition_of("", "v1", "Pod")], builtin.definitions
    )


def _op(op: str, path: str, **more: Any) -> Object:
    return {"op": op, "path": path, **more}


def _named(n: int, start: int = 0, **more: Any) -> list[Object]:
    return [{"name": f"c{at}", **more} for at in range(start, start + n)]


_patched(
    "JSON patch that inserts at the front",
    2_000,
    lambda n: ({"a": list(range(n))}, [_op("add", "/a/0", value=1)] * n),
)
_patched(
    "JSON patch that doubles by copying",
    12,
    lambda n: ({"a": {"b": "x"}}, [_op("copy", f"/a/{at}", **{"from": "/a"}) for at in range(n)]),
)
_patched("JSON patch that tests the whole document", 200, lambda n: ({"a": {str(at): at for at in range(n)}}, [_op("test", "/a", value={str(at): at for at in range(n)})] * 20))  # fmt: skip
_patched("JSON patch of long paths", 1_000, lambda n: ({"a": {}}, [_op("add", "/a" * 100, value=1)] * n))
_patched(
    "JSON patch that moves to and fro",
    2_000,
    lambda n: ({"a": list(range(n)), "b": []}, [_op("move", "/b/0", **{"from": "/a/0"})] * n),
)
_patched("JSON patch that changes a wide map", 2_000, lambda n: ({"a": {str(at): at for at in range(n)}}, [_op("add", f"/a/{at}", value=0) for at in range(n)]))  # fmt: skip
_patched("merge patch of nulls", 20_000, lambda n: ({"a": {}}, {"a": {str(at): None for at in range(n)}}))
_patched("strategic patch of items by key", 3_000, lambda n: ({"spec": {"containers": _named(n)}}, {"spec": {"containers": _named(n, n // 2, image="x")}}), strategic=True)  # fmt: skip
_patched("strategic patch that deletes items by key", 3_000, lambda n: ({"spec": {"containers": _named(n)}}, {"spec": {"containers": [{**one, "$patch": "delete"} for one in _named(n)]}}), strategic=True)  # fmt: skip
_patched("strategic patch that turns the order round", 3_000, lambda n: ({"spec": {"containers": _named(n)}}, {"spec": {"$setElementOrder/containers": _named(n)[::-1], "containers": _named(n, 0, image="x")[::-1]}}), strategic=True)  # fmt: skip
_patched("strategic patch that deletes texts", 5_000, lambda n: ({"metadata": {"finalizers": [str(at) for at in range(n)]}}, {"metadata": {"$deleteFromPrimitiveList/finalizers": [str(at) for at in range(n)]}}), strategic=True)  # fmt: skip
_patched("strategic patch of integers with one hash", 3_000, lambda n: ({"metadata": {"finalizers": []}}, {"metadata": {"finalizers": [(1 << 61) * at for at in range(n) if at < 4] + [at << 40 for at in range(n)]}}), strategic=True)  # fmt: skip


# --------------------------------------------------------------------------- apply

_LISTS: Final[Object] = {
    "type": "object",
    "properties": {
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {}},
        "map": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "a": {"type": "string"}}},
        },
        "any": {"x-kubernetes-preserve-unknown-fields": True},
    },
}


@cache
def _type() -> MapType:
    return object_type(compile_schema(_LISTS).node)


def _applied(name: str, size: int, pair: Callable[[int], tuple[Object, Object]]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        live, applied = pair(scale)

        def run() -> None:
            kind = _type()
            try:
                list(kind.validate(applied, "", duplicates=False))
                merged = kind.merge(live, applied)
                claimed = kind.field_set(applied) or {}
                kind.compare(live, merged)
                kind.remove(merged, claimed)
                list(fieldset.paths(fieldset.ordered(claimed)))
            except TypedError:
                return

        return run, len(orjson.dumps([live, applied]))

    ATTACKS[name] = Attack(name, make, size)


_applied(
    "apply of a set of integers", 3_000, lambda n: ({"set": list(range(n))}, {"set": list(range(n, 0, -1))})
)
_applied("apply of a map by keys", 3_000, lambda n: ({"map": _named(n)}, {"map": _named(n, 0, a="x")[::-1]}))
_applied("apply of a set of one value", 3_000, lambda n: ({"set": ["a"] * n}, {"set": ["a"] * n}))
_applied("apply of items without keys", 3_000, lambda n: ({"map": [{}] * n}, {"map": [{"a": "x"}] * n}))
_applied("apply of a wide map", 5_000, lambda n: ({"any": {str(at): {} for at in range(n)}}, {"any": {str(at): {"a": 1} for at in range(n)}}))  # fmt: skip


@_attack("field set of steps in a row", 3_000)
def _steps(size: int) -> tuple[Callable[[], object], int]:
    wire: Object = {
        "f:a": {f'k:{{"name":"{at}"}}': {".": {}, f"v:{at}": {}, f"i:{at}": {}} for at in range(size)}
    }
    return lambda: fieldset.ordered(fieldset.parse(wire)), len(orjson.dumps(wire))


@_attack("field sets of many owners", 20)
def _owners(size: int) -> tuple[Callable[[], object], int]:
    sets: list[Object] = [{"f:data": {f"f:{at}": {} for at in range(own, own + 500)}} for own in range(size)]

    def run() -> object:
        whole: fieldset.FieldSet = {}
        for one in sets:
            whole = fieldset.union(whole, fieldset.parse(one))
        return [fieldset.difference(whole, one) for one in sets]

    return run, len(orjson.dumps(sets))


# --------------------------------------------------------------------------- schemas, paths, selectors


def _checked(name: str, size: int, schema: Object, obj: Callable[[int], Object]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        compiled, given = compile_schema(schema), {"apiVersion": "a/v1", "kind": "A", **obj(scale)}

        def run() -> None:
            _shape(compiled, given)

        return run, len(orjson.dumps(given))

    ATTACKS[name] = Attack(name, make, size)


def _shape(schema: Schema, obj: Object) -> None:
    copy = orjson.loads(orjson.dumps(obj))
    schema.prune(copy)
    schema.default(copy)
    schema.validate(copy)


def _spec(schema: Object) -> Object:
    return {"type": "object", "properties": {"a": schema}}


_ITEMS: Final[Object] = {"type": "object", "properties": {"a": {"type": "integer"}}}
_checked(
    "objects of wrong types",
    5_000,
    _spec({"type": "array", "items": {"type": "string"}}),
    lambda n: {"a": [1] * n},
)
_checked("objects of unknown fields", 5_000, _spec(_ITEMS), lambda n: {"a": {str(at): 1 for at in range(n)}})
_checked("objects in which a set has one value", 3_000, _spec({"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "integer"}}), lambda n: {"a": [1] * n})  # fmt: skip
_checked("objects in which a set has maps", 2_000, _spec({"type": "array", "x-kubernetes-list-type": "set", "items": {**_ITEMS, "x-kubernetes-map-type": "atomic"}}), lambda n: {"a": [{"a": at} for at in range(n)]})  # fmt: skip
_checked("objects in which items are to be unique", 2_000, _spec({"type": "array", "uniqueItems": True, "items": _ITEMS}), lambda n: {"a": [{"a": at} for at in range(n)]})  # fmt: skip
_checked("objects with a pattern that backtracks elsewhere", 20_000, _spec({"type": "string", "pattern": "^(a+)+$"}), lambda n: {"a": "a" * n + "b"})  # fmt: skip
_checked("objects with many defaults", 5_000, _spec({"type": "array", "items": {"type": "object", "properties": {"b": {"type": "object", "default": {"c": 1}, "properties": {"c": {"type": "integer"}}}}}}), lambda n: {"a": [{}] * n})  # fmt: skip
_checked("objects in branches", 300, _spec({"type": "array", "items": {"type": "object", "anyOf": [{"required": [str(at)]} for at in range(50)]}}), lambda n: {"a": [{}] * n})  # fmt: skip


def _long(n: int) -> str:
    return "x" * 20 * n


_BELOW: Final[Object] = {
    "type": "object",
    "additionalProperties": {"type": "array", "items": {"type": "string"}},
}
_SETS: Final[Object] = {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "object", "properties": {"b": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}}}}}}  # fmt: skip
_checked(
    "objects of wrong items below a long key", 2_000, _spec(_BELOW), lambda n: {"a": {_long(n): [1] * n}}
)
_checked(
    "objects of sets below a long key", 2_000, _spec(_SETS), lambda n: {"a": {_long(n): [{"b": ["x"]}] * n}}
)
_checked("objects of unknown fields below a long key", 2_000, _spec({"type": "object", "additionalProperties": _ITEMS}), lambda n: {"a": {_long(n): {str(at): 1 for at in range(n)}}})  # fmt: skip
_checked("embedded objects below a long key", 1_000, _spec({"type": "object", "additionalProperties": {"type": "array", "items": {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True}}}), lambda n: {"a": {_long(n): [{"metadata": {"u": 1}}] * n}})  # fmt: skip


@_attack("applied items below a long key", 2_000)
def _validated(size: int) -> tuple[Callable[[], object], int]:
    kind, applied = (
        object_type(compile_schema(_spec(_SETS)).node),
        {"a": {_long(size): [{"b": ["x"]}] * size}},
    )
    return lambda: list(kind.validate(applied, "", duplicates=False)), len(orjson.dumps(applied))


@_attack("unknown fields, each with its place", 5_000)
def _placed(size: int) -> tuple[Callable[[], object], int]:
    obj = {f"k.{at}": 1 for at in range(size)}

    def run() -> object:
        order = order_of(obj)
        return sorted(obj, key=lambda path: place_of(path, order))

    return run, len(orjson.dumps(obj))


def _judged(name: str, size: int, schema: Callable[[int], Object]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        given = schema(scale)
        return lambda: validate_schema(given, "spec"), len(orjson.dumps(given))

    ATTACKS[name] = Attack(name, make, size)


_judged("schemas of many properties", 1_000, lambda n: {"type": "object", "properties": {str(at): {"type": "string"} for at in range(n)}})  # fmt: skip
_judged(
    "schemas of required names", 3_000, lambda n: {"type": "object", "required": [str(at) for at in range(n)]}
)
_judged("schemas of branches", 500, lambda n: {"type": "object", "properties": {"a": {"type": "string"}}, "allOf": [{"properties": {"a": {"minLength": at}}} for at in range(n)]})  # fmt: skip
_judged("schemas of enumerations", 3_000, lambda n: {"type": "object", "properties": {"a": {"type": "integer", "enum": list(range(n))}}})  # fmt: skip
_judged("schemas of list keys", 300, lambda n: _spec({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [str(at) for at in range(n)], "items": {"type": "object", "properties": {str(at): {"type": "string", "default": "x"} for at in range(n)}}}))  # fmt: skip
_judged("schemas of defaults", 500, lambda n: {"type": "object", "properties": {str(at): {"type": "object", "default": {"a": 1}, "properties": {"a": {"type": "integer"}}} for at in range(n)}})  # fmt: skip


_judged("schemas below a long name", 500, lambda n: {"type": "object", "properties": {_long(n): {"type": "object", "properties": {str(at): {"type": "x"} for at in range(n)}}}})  # fmt: skip


_checked("objects of items that an enumeration has", 3_000, _spec({"type": "array", "items": {"type": "string", "enum": [f"v{at}" for at in range(3_000)]}}), lambda n: {"a": ["v2999"] * n + [1]})  # fmt: skip
_checked("objects of items that a long enumeration has not", 300, _spec({"type": "array", "items": {"type": "string", "enum": ["v" * at for at in range(1_000)]}}), lambda n: {"a": ["x"] * n})  # fmt: skip


@_attack("references to many controllers", 200)
def _controllers(size: int) -> tuple[Callable[[], object], int]:
    references = [
        {"apiVersion": "v1", "kind": "A", "name": "a", "uid": str(at), "controller": True}
        for at in range(size)
    ]
    metadata = {"name": "a", "ownerReferences": references}

    def run() -> None:
        errors = validate_object_meta(metadata, namespaced=False, name_problems=is_dns1123_subdomain)
        raise invalid("A", "", "a", errors)

    return run, len(orjson.dumps(metadata))


@_attack("definitions of many deprecated versions", 300)
def _deprecated(size: int) -> tuple[Callable[[], object], int]:
    versions = [
        {"name": f"v{at + 1}", "served": True, "storage": not at, "deprecated": True} for at in range(size)
    ]
    names = {"plural": "as", "singular": "a", "kind": "A", "listKind": "AList"}
    crd: Object = {"metadata": {"name": "as.example.com"}, "spec": {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions}}  # fmt: skip
    return lambda: resource_of(crd, schema_revision=1, guard_key="", strategy=CustomResourceStrategy()), len(
        orjson.dumps(crd)
    )


@_attack("a path that descends", 500)
def _descends(size: int) -> tuple[Callable[[], object], int]:
    path, obj = "..*" * 50, {"a": [{"b": [at]} for at in range(size)]}
    return lambda: compile_path(path).find(obj), len(path) + len(orjson.dumps(obj))


@_attack("a path of many filters", 20)
def _filters(size: int) -> tuple[Callable[[], object], int]:
    path, obj = '.a[?(@.b=="c")]' * size, {"a": [{"b": "c"}] * 500}
    return lambda: compile_path(path).find(obj), len(path) + len(orjson.dumps(obj))


def _said(name: str, size: int, parse: Callable[[str], object], text: Callable[[int], str]) -> None:
    def make(scale: int) -> tuple[Callable[[], object], int]:
        said = text(scale)
        return lambda: parse(said), len(said)

    ATTACKS[name] = Attack(name, make, size)


_said(
    "a label selector of many values",
    2_000,
    LabelSelector.parse,
    lambda n: f"a in ({','.join(map(str, range(n)))})",
)
_said("a label selector of commas", 5_000, LabelSelector.parse, lambda n: f"a in ({',' * n})")
_said("a label selector of one long word", 10_000, LabelSelector.parse, lambda n: "a" * n)
_said(
    "a label selector of many requirements",
    300,
    LabelSelector.parse,
    lambda n: ",".join(f"k{at}=v" for at in range(n)),
)
_said(
    "a field selector of many terms",
    300,
    FieldSelector.parse,
    lambda n: ",".join(f"k{at}=v" for at in range(n)),
)
_said("a field selector of backslashes", 10_000, FieldSelector.parse, lambda n: "a=" + "\\\\" * n)
_said("a path of slashes", 500, lambda text: requestinfo.parse("GET", text, ""), lambda n: "/a" * n)
_said(
    "a query of escapes",
    3_000,
    lambda text: requestinfo.parse("GET", "/api/v1/pods", text),
    lambda n: "a=" + "%41" * n,
)


@_attack("objects matched by a selector of many values", 500)
def _matched(size: int) -> tuple[Callable[[], object], int]:
    text = f"a in ({','.join(f'v{at}' for at in range(size))})"
    chosen = LabelSelector.parse(text)
    labels = [{"a": f"w{at}"} for at in range(size)]
    return lambda: [chosen.matches(one) for one in labels], len(text) + len(orjson.dumps(labels))


@_attack("exact JSON of deep paths given twice", 2_000)
def _deep(size: int) -> tuple[Callable[[], object], int]:
    body = (
        b'{"a":' * 150
        + b"{"
        + b",".join(b'"%d":1,"%d":1' % (at, at) for at in range(size))
        + b"}"
        + b"}" * 150
    )
    return lambda: strictjson.parse(body), len(body)
