"""Random patches of all types, right and wrong, told to a real kube-apiserver and to this checkout.

Both must answer the same: status codes, messages, objects and who owns their fields. Strategic patches are made from
the published schemas (merge keys, directives, orders), JSON Patches from what the object was created with. What a
sequence consists of follows from its number alone; the story `patches_at_random` is some of them, recorded.

    python -m tests.conformance.patches [--first N] [--count N] [--record]
"""

from __future__ import annotations

import json
import sys
from typing import Final

from clusterling.machinery.strategic import PatchField, PatchMeta
from clusterling.packs import builtin
from clusterling.services.patching import PatchType
from tests.conformance import recordings, sequences
from tests.conformance.configurations import KINDS, WEIGHTS, Kind, Random, anything, metadata
from tests.conformance.exchange import Json, Step

STEPS: Final = 12
_NEEDED: Final = frozenset({"spec", "selector", "template", "containers", "jobTemplate"})
_VALIDATIONS: Final = ("", "", "&fieldValidation=Strict", "&fieldValidation=Warn", "&fieldValidation=Ignore")
# Told as they are: what is no patch at all.
_BROKEN: Final = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"1",
    b'"x"',
    b"[1]",
    b"[null]",
    b"{",
    b'{"a":1}{"b":2}',
    b"\xff",
    b"a: b",
)


def sequence(number: int) -> list[Step]:
    """A creation and patches of what was created."""
    r = Random(number)
    kind = r.choices(KINDS, WEIGHTS)[0]
    version, name = r.choice(kind.versions), f"s{number}"
    config = kind.config(r)
    made = {"apiVersion": version, "kind": kind.kind, "metadata": {"name": name, **metadata(r)}, **config}
    steps = [Step("POST", kind.path(version), made)]
    ways = [(_merge, 3), (_json, 4), (_broken, 0.3)]
    if not kind.custom:
        ways.append((_strategic, 6))
    while len(steps) < STEPS:
        patch = r.choices(*zip(*ways, strict=True))[0]
        steps.append(patch(r, kind, name, made))
    return steps


def _step(r: Random, kind: Kind, name: str, type_: PatchType, body: Json, part: str = "") -> Step:
    path = f"{kind.path(r.choice(kind.versions))}/{name}{part}?fieldManager={r.choice('ab')}{r.choice(_VALIDATIONS)}"
    if r.random() < 0.03 and not isinstance(body, bytes) and part != "/scale":
        body = _twice(r, body)
    return Step("PATCH", path, body, {"Content-Type": str(type_)})


def _part(r: Random, kind: Kind) -> str:
    """Which part of the object is patched."""
    roll = r.random()
    if kind.status is not None and roll < 0.2:
        return "/status"
    return "/scale" if kind.scales and roll < 0.27 else ""


def _broken(r: Random, kind: Kind, name: str, made: Json) -> Step:
    types = [PatchType.JSON, PatchType.MERGE, *([] if kind.custom else [PatchType.STRATEGIC])]
    return _step(r, kind, name, r.choice(types), r.choice(_BROKEN), _part(r, kind))


def _twice(r: Random, body: Json) -> bytes:
    """The text of the body, with one of its keys given twice."""
    text = json.dumps(body)
    places = [at for at, sign in enumerate(text) if sign == "{" and text[at + 1] == '"']
    if not places:
        return text.encode()
    at = r.choice(places) + 1
    key = text[at : text.index(":", at)]
    return f"{text[:at]}{key}: {r.choice(['null', json.dumps('x')])}, {text[at:]}".encode()


# ---------------------------------------------------------------------- bodies of merges


def _wanted(r: Random, kind: Kind, part: str) -> Json:
    """What the object might be patched to, before it is made to be wrong here and there."""
    if part == "/scale":
        # Always another number: see `owners`.
        return {"spec": {"replicas": r.randint(10, 10_000)}}
    if part == "/status":
        assert kind.status is not None, "only kinds with one"
        body = {"status": kind.status(r)}
        return {**body, **kind.config(r)} if r.random() < 0.2 else body
    return kind.config(r)


def _metadata(r: Random) -> Json:
    made: Json = metadata(r)
    if r.random() < 0.15:
        odd: Json = r.choice(
            [
                {"resourceVersion": "1"},
                {"resourceVersion": ""},
                {"resourceVersion": "x"},
                {"resourceVersion": 1},
                {"resourceVersion": None},
                {"uid": "x"},
                {"uid": None},
                {"name": "other"},
                {"name": None},
                {"namespace": "other"},
                {"namespace": None},
                {"generateName": "g-"},
                {"generation": 7},
                {"creationTimestamp": None},
                {"creationTimestamp": "2020-01-01T00:00:00Z"},
                {"creationTimestamp": "x"},
                {"deletionTimestamp": "2020-01-01T00:00:00Z"},
                {"deletionGracePeriodSeconds": 5},
                {"selfLink": "/x"},
                {"labels": {"a": 1}},
                {"labels": {"a": None, "-": "x"}},
                {"labels": []},
                {"annotations": "x"},
                {"annotations": {"a b": "x"}},
                {"finalizers": ["x"]},
                {"finalizers": "x"},
                {"ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}]},
                {"ownerReferences": [{"uid": "1", "$patch": "delete"}]},
                {"managedFields": None},
                {"managedFields": []},
                {"managedFields": [{}]},
                {"managedFields": [{"manager": "z"}]},
                {"managedFields": "x"},
                {"unknown": 1},
            ]
        )
        made |= odd
    return made


def _odd(r: Random, value: Json, chance: float) -> Json:
    """The value, with nulls and values of other types here and there."""
    if r.random() < chance:
        return r.choice([None, None, anything(r), "x", 1, {}, [], True, 1.5, [None], {"a": None}, 2**40, -1])
    if isinstance(value, dict):
        return {key: _odd(r, inner, chance) for key, inner in value.items()}
    if isinstance(value, list):
        return [_odd(r, inner, chance) for inner in value]
    return value


def _body(r: Random, kind: Kind, part: str) -> Json:
    wanted = _wanted(r, kind, part)
    body: Json = _odd(r, wanted, r.choice([0, 0, 0, 0.02, 0.08]))
    if not isinstance(body, dict):
        return body
    for holder in [one for one in (body, body.get("spec")) if isinstance(one, dict)]:
        for field in list(holder):
            if field not in _NEEDED and r.random() < 0.06:
                holder[field] = None
    if r.random() < 0.4:
        body["metadata"] = _metadata(r)
    if r.random() < 0.04:
        body |= r.choice(
            [{"kind": "X"}, {"apiVersion": "v9"}, {"unknown": 1}, {"kind": None}, {"apiVersion": 1}]
        )
    return body


def _merge(r: Random, kind: Kind, name: str, made: Json) -> Step:
    part = _part(r, kind)
    return _step(r, kind, name, PatchType.MERGE, _body(r, kind, part), part)


def _strategic(r: Random, kind: Kind, name: str, made: Json) -> Step:
    part, version = _part(r, kind), kind.versions[0]
    body = _body(r, kind, part)
    if part != "/scale" and isinstance(body, dict):
        group, _, version = version.rpartition("/")
        schema = builtin.definitions[builtin.definition_of(group, version, kind.kind)]
        rate = r.choice([0, 0.02, 0.05, 0.15])
        body = _directed(r, body, PatchMeta.from_openapi(schema, builtin.definitions), rate)
    return _step(r, kind, name, PatchType.STRATEGIC, body, part)


# ---------------------------------------------------------------------- directives


def _directed(r: Random, body: Json, meta: PatchMeta, rate: float) -> Json:
    """The body with directives in it."""
    made: Json = {}
    for key, value in body.items():
        made[key] = value
        try:
            field = meta.field(key)
        except LookupError:
            continue
        if isinstance(value, dict):
            made[key] = _directed(r, value, field.value, rate)
        elif isinstance(value, list):
            _directed_list(r, made, key, field, rate)
    if r.random() < rate / 2:
        made["$patch"] = r.choice(["replace", "delete", "merge", "bogus", None, 1])
    if r.random() < rate / 2:
        names: Json = [key for key in made if not key.startswith("$") and r.random() < 0.95]
        made["$retainKeys"] = r.choice(
            [names, names, names, [*names, "other"], [], None, "x", [1], names[:1]]
        )
    if r.random() < rate / 3:
        made[
            r.choice(["$setElementOrder", "$deleteFromPrimitiveList", "$retainKeys/x", "$setElementOrder/"])
        ] = [1]
    return made


def _directed_list(r: Random, made: Json, name: str, field: PatchField, rate: float) -> None:
    items: Json = [
        _directed(r, item, field.items, rate) if isinstance(item, dict) else item for item in made[name]
    ]
    key = field.merge_key
    if all(isinstance(item, dict) for item in items) and key:
        for item in items:
            if r.random() < rate:
                item["$patch"] = r.choice(["delete", "delete", "delete", "replace", "merge", "bogus"])
            if r.random() < rate / 4:
                item.pop(key, None)
        if r.random() < rate:
            items.append({"$patch": r.choice(["replace", "replace", "delete"])})
        if r.random() < rate:
            items.append({key: r.choice(["zz", 99, None, "A"]), "$patch": "delete"})
        if r.random() < 2 * rate:
            order = [{key: item[key]} for item in items if item.get("$patch") != "delete" and key in item]
            made[f"$setElementOrder/{name}"] = _disordered(r, order, {key: r.choice(["B", "d", 80, "zz"])})
    elif r.random() < 2 * rate:
        scalars = [item for item in items if not isinstance(item, dict | list)]
        gone = [*r.sample(scalars, r.randint(0, len(scalars))), r.choice(["p", "q", 1, "example.com/a"])]
        if r.random() < 0.5:
            made[f"$deleteFromPrimitiveList/{name}"] = r.choice([gone, gone, gone, "x", [{}], None])
        if r.random() < 0.5:
            made[f"$setElementOrder/{name}"] = _disordered(r, scalars, "zz")
    made[name] = items
    if r.random() < rate / 2:
        del made[name]


def _disordered(r: Random, order: list[Json], stranger: Json) -> Json:
    """An order of items: theirs, mostly, or one that does not fit."""
    roll = r.random()
    if roll < 0.25:
        r.shuffle(order)
    if roll > 0.6:
        order.insert(r.randint(0, len(order)), stranger)
    if roll > 0.85:
        return r.choice([order[1:], [*order, *order[:1]], [1, *order], "x", None, {}, []])
    return order


# ---------------------------------------------------------------------- JSON Patch


def _json(r: Random, kind: Kind, name: str, made: Json) -> Step:
    part = _part(r, kind)
    if part == "/scale":
        return _step(
            r,
            kind,
            name,
            PatchType.JSON,
            [{"op": "add", "path": "/spec", "value": _wanted(r, kind, part)["spec"]}],
            part,
        )
    whole = {**made, **_wanted(r, kind, part)}
    operations = [_operation(r, made, whole) for _ in range(r.choice([1, 1, 1, 2, 3]))]
    return _step(r, kind, name, PatchType.JSON, operations, part)


def _operation(r: Random, made: Json, whole: Json) -> Json:
    kind = r.choice(["add", "add", "add", "remove", "replace", "replace", "move", "copy", "test"])
    path, value = _place(r, whole)
    if kind == "test" or r.random() < 0.08:
        path, value = _place(r, made)
    if r.random() < 0.12:
        value = _odd(r, value, 0.5)
    operation: Json = {"op": kind, "path": path}
    if kind in ("add", "replace", "test"):
        operation["value"] = value
    if kind in ("move", "copy"):
        operation["from"] = _place(r, made)[0]
    if r.random() < 0.08:
        operation |= r.choice(
            [
                {"op": "bogus"},
                {"op": None},
                {"op": 1},
                {"path": None},
                {"path": 1},
                {"path": ""},
                {"path": "/"},
                {"path": "spec"},
                {"path": "/spec/"},
                {"path": "/metadata/labels/a~1b"},
                {"path": "/metadata/annotations/a~0b"},
                {"path": "/metadata/labels/~2"},
                {"value": None},
                {"from": 1},
                {"from": ""},
                {"extra": 1},
            ]
        )
        if r.random() < 0.2:
            operation.pop(r.choice(list(operation)))
    return operation


def _place(r: Random, value: Json) -> tuple[str, Json]:
    """A path in the value, mostly, and what is there."""
    path = ""
    while True:
        roll = r.random()
        if isinstance(value, dict) and value and roll < 0.92:
            key = r.choice([key for key in value if key not in ("kind", "apiVersion")] or list(value))
            path += "/" + key.replace("~", "~0").replace("/", "~1")
            value = value[key]
            if r.random() < 0.25 and path not in ("/spec", "/metadata"):
                return path, value
        elif isinstance(value, list) and roll < 0.85:
            if not value or r.random() < 0.3:
                index = r.choice(["-", "0", "1", "9", "-1", "-9", "01", "+0", "x", "", "1.0"])
                return f"{path}/{index}", r.choice(value) if value else "x"
            at = r.randrange(len(value))
            path, value = f"{path}/{at}", value[at]
        elif roll < 0.12 and not isinstance(value, list):
            return f"{path}/{r.choice(['x', 'none', '0'])}", r.choice(["x", 1, {}, ["x"]])
        else:
            return path, value


if __name__ == "__main__":
    sys.exit(sequences.main(__doc__ or "", sequence, STEPS, recordings.PATCHED))
