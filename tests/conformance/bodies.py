"""Bodies with something wrong in them, told to a real kube-apiserver and to this checkout under every field validation.

Unknown fields, fields given twice, names of another case, nulls and wrong types, at any depth of built-in and custom kinds,
in JSON and YAML, created, replaced, patched in all four ways and applied: code, message, Warnings and their order must be
the same. What a request has follows from its number alone; the story `bodies_at_random` is some of them, recorded.

    python -m tests.conformance.bodies [--first N] [--count N] [--record]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import yaml

from clusterling.services.patching import PatchType
from tests.conformance import beside, exchange, recordings
from tests.conformance.exchange import Json, Step

Random = random.Random
JSON: Final = "application/json"
YAML: Final = "application/yaml"


class Fields(list[tuple[str, "Value"]]):
    """A JSON object in which a name may be given more than once."""


Value = Fields | list[Json] | str | int | float | bool | None


@dataclass(frozen=True)
class Kind:
    """A kind to write to. `text` is an object of it, whole and right, as YAML."""

    kind: str
    api_version: str
    plural: str
    text: str
    namespaced: bool = True
    custom: bool = False

    @property
    def path(self) -> str:
        root = "/apis" if "/" in self.api_version else "/api"
        where = "/namespaces/${ns}" if self.namespaced else ""
        return f"{root}/{self.api_version}{where}/{self.plural}"

    @property
    def name(self) -> str:
        """Of the object that is there."""
        return f"{self.plural}.${{group}}2" if self.kind == "CustomResourceDefinition" else "there"

    def object(self) -> Json:
        found: Json = yaml.safe_load(self.text)
        return {"apiVersion": self.api_version, "kind": self.kind, **found}


_POD: Final = """
      containers:
      - {name: a, image: x, env: [{name: E, value: v}], ports: [{containerPort: 80, name: web}], livenessProbe: {exec: {command: [x]}}}
      - {name: b, image: y, securityContext: {runAsUser: 5}}
      volumes: [{name: v, emptyDir: {}}, {name: w, configMap: {name: c, items: [{key: k, path: p}]}}]
"""
KINDS: Final = (
    Kind(
        "ConfigMap",
        "v1",
        "configmaps",
        "metadata: {name: there, labels: {a: b, c: d}, annotations: {x: y}}\ndata: {k: v, l: w}\nimmutable: false\n",
    ),
    Kind(
        "Deployment",
        "apps/v1",
        "deployments",
        "metadata: {name: there, labels: {a: b}}\n"
        "spec:\n  replicas: 2\n  selector: {matchLabels: {a: b}}\n  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1}}\n"
        f"  template:\n    metadata: {{labels: {{a: b}}, annotations: {{x: y}}}}\n    spec:{_POD}"
        "status: {replicas: 1, conditions: [{type: A, status: 'True'}]}\n",
    ),
    Kind(
        "Service",
        "v1",
        "services",
        "metadata: {name: there}\nspec:\n  clusterIP: None\n  selector: {a: b}\n"
        "  ports: [{port: 80, name: x, targetPort: web}, {port: 81, name: y, protocol: TCP}]\n"
        "status: {loadBalancer: {}}\n",
    ),
    Kind(
        "Loose",
        "${group}/v1",
        "looses",
        "metadata: {name: there, labels: {a: b}, finalizers: [example.com/x]}\n"
        "spec:\n  n: 1\n  text: t\n  items: [{k: a, v: 1, inner: {x: y}}, {k: b}]\n  any: {p: {q: 1}}\n  open: {known: {a: x}, r: {s: 1}}\n"
        "  bag: {one: {a: x, b: 1}, two: {a: y}}\n"
        "  embedded: {apiVersion: v1, kind: Other, metadata: {name: e, labels: {l: m}}, spec: {a: x}}\n"
        "  whole: {apiVersion: v1, kind: Other, metadata: {name: e}, spec: {z: 1}}\n"
        "status: {n: 1, conditions: [{type: A, status: 'True'}]}\n",
        custom=True,
    ),
    Kind(
        "CustomResourceDefinition",
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "metadata: {name: 'customresourcedefinitions.${group}2', labels: {a: b}}\n"
        "spec:\n  group: ${group}2\n  scope: Namespaced\n  names: {plural: customresourcedefinitions, kind: Thing}\n"
        "  versions:\n  - name: v1\n    served: true\n    storage: true\n    subresources: {status: {}}\n"
        "    additionalPrinterColumns: [{name: A, type: string, jsonPath: .spec.a}]\n"
        "    schema:\n      openAPIV3Schema:\n        type: object\n        properties:\n"
        "          spec: {type: object, properties: {a: {type: string, enum: [x, y]}, b: {type: array, items: {type: string}}}}\n",
        namespaced=False,
    ),
)
_WEIGHTS: Final = (2, 4, 2, 5, 2)

VALIDATIONS: Final = ("Strict", "Strict", "Strict", "Warn", "Warn", "", "Ignore", "strict", "Nope")
_STRANGE: Final = ("unknown", "extra", "zz", "aa", "a.b", 'q"uote', "back\\slash", "émile", "a[0]", "", "$x")


# ---------------------------------------------------------------------- what goes wrong


def pairs(value: Json) -> Value:
    """A JSON value with its objects as Fields."""
    if isinstance(value, dict):
        return Fields((key, pairs(inner)) for key, inner in value.items())
    return [pairs(inner) for inner in value] if isinstance(value, list) else value


def _inner(value: Any) -> Iterator[Fields]:
    """All objects in it, itself too."""
    if isinstance(value, Fields):
        yield value
        for _, inner in value:
            yield from _inner(inner)
    elif isinstance(value, list):
        for one in value:
            yield from _inner(one)


def _anything(r: Random) -> Value:
    found: Value = r.choice(
        [
            1,
            "x",
            None,
            True,
            1.5,
            [],
            Fields(),
            [1, 2],
            [Fields([("deep", 1)])],
            Fields([("deep", Fields([("er", "x")]))]),
            Fields([("twice", 1), ("twice", 2)]),
        ]
    )
    return found


def _strange(r: Random, place: Fields) -> None:
    place.insert(r.randint(0, len(place)), (r.choice(_STRANGE), _anything(r)))


def _twice(r: Random, place: Fields) -> None:
    if place:
        key, value = r.choice(place)
        # What is told first of a field that is unknown in both, no order of the second can say.
        again = _alike(r, value) if r.random() < 0.5 or isinstance(value, list) else value
        place.insert(r.randint(0, len(place)), (key, again))


def _alike(r: Random, value: Value) -> Value:
    if isinstance(value, bool):
        return not value
    if isinstance(value, list):
        return value
    return value + 1 if isinstance(value, int | float) else r.choice(["RollingUpdate", "x2"])


def _cased(r: Random, place: Fields) -> None:
    if place:
        at = r.randrange(len(place))
        key, value = place[at]
        key = r.choice([key.upper(), key.capitalize(), key[:1] + key[1:].swapcase()])
        if r.random() < 0.5:
            place[at] = (key, value)
        else:
            place.insert(r.randint(0, len(place)), (key, value))


def _null(r: Random, place: Fields) -> None:
    if place:
        at = r.randrange(len(place))
        place[at] = (place[at][0], None)


def _mistyped(r: Random, place: Fields) -> None:
    if place:
        at = r.randrange(len(place))
        place[at] = (place[at][0], _anything(r))


_WRONGS: Final = (_strange, _twice, _cased, _null, _mistyped)
_HOW_OFTEN: Final = (10, 9, 3, 2, 1)
# Of several fields that it does not know an apply tells in no order, each time in another.
_TYPED: Final = (10, 9, 3, 2, 0)
_ONE_STRANGE: Final = (0, 1, 0, 0, 0)


def spoil(r: Random, value: Value, how_often: Sequence[int] = _HOW_OFTEN) -> Value:
    """Does some things to it. What names the object stays at the top, so that there is more to tell than that it does not."""
    for _ in range(r.choice((0, 1, 1, 2, 2, 3, 4, 7))):
        wrong = r.choices(_WRONGS, how_often)[0]
        places = list(_inner(value))
        at = r.randrange(len(places))
        if at and wrong in (_cased, _null, _mistyped) and any(key == "name" for key, _ in places[at]):
            wrong = _strange
        if not at and wrong in (_cased, _null, _mistyped):
            wrong = _twice
        wrong(r, places[at])
    return value


# ---------------------------------------------------------------------- bodies


def to_json(value: Value) -> str:
    """Its text, on one line."""
    if isinstance(value, Fields):
        return (
            "{"
            + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{to_json(one)}" for key, one in value)
            + "}"
        )
    if isinstance(value, list):
        return "[" + ",".join(map(to_json, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def to_yaml(value: Any, indent: str = "") -> str:
    """Its text in block style: a line a field."""
    if isinstance(value, Fields) and value:
        return "".join(
            f"\n{indent}{json.dumps(key, ensure_ascii=False)}: {to_yaml(one, indent + '  ')}"
            for key, one in value
        )
    if isinstance(value, list) and value:
        return "".join(f"\n{indent}- {to_yaml(one, indent + '  ').lstrip()}" for one in value)
    return to_json(value)


# ---------------------------------------------------------------------- requests


def request(number: int) -> Step:
    """One request, a dry run all alone."""
    r = Random(number)
    kind = r.choices(KINDS, _WEIGHTS)[0]
    return r.choices(
        (_create, _replace, _merge, _strategic if not kind.custom else _merge, _json_patch, _apply),
        (5, 4, 4, 4, 2, 4),
    )[0](r, kind)


def _query(r: Random, **more: str) -> str:
    validation = r.choice(VALIDATIONS)
    asked = {"dryRun": "All", **more, **({"fieldValidation": validation} if validation else {})}
    return "?" + urlencode(asked)


def _text(r: Random, value: Value, media_types: tuple[str, str]) -> tuple[bytes, str]:
    if r.random() < 0.6:
        return to_json(value).encode(), media_types[0]
    return to_yaml(value).lstrip().encode() + b"\n", media_types[1]


def _whole(r: Random, kind: Kind, name: str, how_often: Sequence[int] = _HOW_OFTEN) -> Value:
    obj = kind.object()
    if kind.kind != "CustomResourceDefinition":
        obj["metadata"]["name"] = name
    fields = list(obj.items())
    if r.random() < 0.3:
        r.shuffle(fields)
    return spoil(r, pairs(dict(fields)), how_often)


def _create(r: Random, kind: Kind) -> Step:
    body, media_type = _text(r, _whole(r, kind, "new"), (JSON, YAML))
    return Step("POST", kind.path + _query(r), body, {"Content-Type": media_type})


def _replace(r: Random, kind: Kind) -> Step:
    body, media_type = _text(r, _whole(r, kind, kind.name), (JSON, YAML))
    part = "/status" if kind.kind in ("Loose", "Deployment") and r.random() < 0.2 else ""
    return Step("PUT", f"{kind.path}/{kind.name}{part}{_query(r)}", body, {"Content-Type": media_type})


def _part(r: Random, kind: Kind, how_often: Sequence[int] = _HOW_OFTEN) -> Value:
    """Some fields of the object, spoiled: a configuration, or a merge patch."""
    obj = kind.object()
    del obj["apiVersion"], obj["kind"]
    del obj["metadata"]["name"]
    return spoil(r, pairs({key: value for key, value in obj.items() if r.random() < 0.7}), how_often)


def _patch(r: Random, kind: Kind, patch: PatchType, body: bytes, **more: str) -> Step:
    part = "/status" if kind.kind in ("Loose", "Deployment") and r.random() < 0.15 else ""
    path = f"{kind.path}/{kind.name}{part}{_query(r, **more)}"
    return Step("PATCH", path, body, {"Content-Type": str(patch)})


def _merge(r: Random, kind: Kind) -> Step:
    return _patch(r, kind, PatchType.MERGE, to_json(_part(r, kind)).encode())


def _strategic(r: Random, kind: Kind) -> Step:
    return _patch(r, kind, PatchType.STRATEGIC, to_json(_part(r, kind, _TYPED)).encode())


def _json_patch(r: Random, kind: Kind) -> Step:
    changes: list[Json] = []
    for key, value in kind.object().items():
        if key not in ("apiVersion", "kind", "metadata") and r.random() < 0.6:
            spoiled = spoil(r, pairs(value)) if isinstance(value, dict) else value
            changes.append(Fields([("op", "add"), ("path", f"/{key}"), ("value", spoiled)]))
    changes.append(Fields([("op", "add"), ("path", "/metadata/labels"), ("value", Fields([("n", "m")]))]))
    for change in changes:
        if r.random() < 0.3:
            r.choice((_strange, _twice))(r, change)
    return _patch(r, kind, PatchType.JSON, to_json(changes).encode())


def _apply(r: Random, kind: Kind) -> Step:
    value = _whole(r, kind, kind.name, _ONE_STRANGE)
    if r.random() < 0.15:
        _strange(r, r.choice(list(_inner(value))))
    body, _ = _text(r, value, (JSON, YAML))
    return _patch(r, kind, PatchType.APPLY, body, fieldManager="m", force="true")


def there(kinds: tuple[Kind, ...] = KINDS) -> list[Step]:
    """What is replaced and patched comes to be."""
    served = {"answer.status": "a kind is served here when the request that defines it returns"}
    return [
        Step(
            "POST",
            kind.path,
            kind.object(),
            differs=served if kind.kind == "CustomResourceDefinition" else {},
        )
        for kind in kinds
    ]


# ---------------------------------------------------------------------- comparison


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=1, metavar="N")
    parser.add_argument("--count", type=int, default=200, metavar="N")
    parser.add_argument(
        "--record", action="store_true", help="write what the real server says into recordings"
    )
    asked = parser.parse_args()
    made = there()
    steps = [*made, *(request(number) for number in range(asked.first, asked.first + asked.count))]
    return compare(steps, asked.record, len(made))


def compare(steps: list[Step], record: bool, skipped: int) -> int:
    with tempfile.TemporaryDirectory() as directory, beside.theirs(Path(directory)) as real:
        theirs = recordings.tell_bodies(beside.as_peer(real), steps)
    if record:
        recordings.write(recordings.BODIES, exchange.rows(steps, theirs))
    with tempfile.TemporaryDirectory() as directory, beside.ours(Path(directory)) as server:
        ours = recordings.tell_bodies(beside.as_peer(server), steps)
    wrong = [
        text
        for step, row, other in zip(steps, exchange.rows(steps, theirs), ours, strict=True)
        for text in exchange.judge(step, row, other)
    ]
    print("\n".join(wrong[:60]))
    print(f"{len(steps) - skipped} requests, {len(wrong)} differences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
