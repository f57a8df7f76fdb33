"""Random lives of an object: a schema, and what updates and applied configurations make of the object, one after another.

`recorded.json` holds some, with what structured-merge-diff (Go) made of them. To record anew, or to compare many more:

    python -m tests.machinery.merging.cases --record
    python -m tests.machinery.merging.cases --first 1000 --count 20000
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

from clusterling.machinery.apply import owners as ownership
from clusterling.machinery.apply.fieldset import FieldSet, ordered, path_text
from clusterling.machinery.apply.owners import Conflicts, Owner, Owners
from clusterling.machinery.apply.types import MapType, TypedError, object_type
from clusterling.machinery.schema.node import Node

HERE: Final = Path(__file__).parent
RECORDED: Final = HERE / "recorded.json"
RECORDED_COUNT: Final = 160

Json = dict[str, Any]


# --------------------------------------------------------------------------- making cases


def case(seed: int) -> Json:
    random = Random(seed)
    root = {
        "type": "object",
        "properties": {name: _schema(random) for name in "abcd"[: random.randint(1, 4)]},
    }
    faulty = random.random() < 0.4
    steps: list[Json] = []
    value: Any = {}
    for _ in range(random.randint(2, 6)):
        value = _changed(random, root, value, faulty)
        steps.append(
            {
                "op": random.choice(["apply", "apply", "update"]),
                "manager": random.choice(["m1", "m2", "m3"]),
                "force": random.random() < 0.4,
                "object": deepcopy(value),
            }
        )
    return {"schema": root, "steps": steps}


def _schema(random: Random, depth: int = 0) -> Json:
    kind = 0 if depth >= 3 else random.random()
    if kind < 0.25:
        return _shallow(random)
    if kind < 0.5:
        made: Json = {"type": "object", "properties": _properties(random, depth, 1)}
        if random.random() < 0.15:
            made["x-kubernetes-map-type"] = "atomic"
        if random.random() < 0.1:
            made["x-kubernetes-preserve-unknown-fields"] = True
        return made
    if kind < 0.65:
        made = {"type": "object", "additionalProperties": _schema(random, depth + 1)}
        return {**made, "x-kubernetes-map-type": "atomic"} if random.random() < 0.2 else made
    if kind < 0.75:
        return {"type": "array", "items": _schema(random, depth + 1)}
    if kind < 0.85:
        items = {"type": random.choice(["string", "integer"])}
        return {"type": "array", "items": items, "x-kubernetes-list-type": "set"}
    return _keyed(random, depth)


def _shallow(random: Random) -> Json:
    kind = random.random()
    if kind < 0.1:
        return {"x-kubernetes-int-or-string": True}
    if kind < 0.18:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    if kind < 0.22:
        return {"type": "object"}
    if kind < 0.26:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return {"type": random.choice(["string", "integer", "boolean", "number"])}


def _properties(random: Random, depth: int, least: int) -> Json:
    return {name: _schema(random, depth + 1) for name in random.sample("abcde", random.randint(least, 3))}


def _keyed(random: Random, depth: int) -> Json:
    properties = _properties(random, depth, 0)
    keys = random.sample(["k1", "k2"], random.choice([1, 1, 2]))
    properties |= {key: {"type": random.choice(["string", "integer"])} for key in keys}
    if len(keys) == 2 or random.random() < 0.3:
        properties[keys[0]]["default"] = "d" if properties[keys[0]]["type"] == "string" else 7
    return {
        "type": "array",
        "items": {"type": "object", "properties": properties},
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": keys,
    }


def _changed(random: Random, schema: Json, value: Any, faulty: bool) -> Any:
    """Another object, rather like the one before."""
    other = _value(random, schema, faulty)
    if not isinstance(other, dict):
        return {}
    made = {}
    for name in {**value, **other}:
        chance = random.random()
        if chance < 0.45 and name in value:
            made[name] = value[name]
        elif chance < 0.85 and name in other:
            made[name] = other[name]
    return made


def _anything(random: Random, depth: int = 0) -> Any:
    kind = random.random()
    if depth > 2 or kind < 0.5:
        return random.choice(["x", "y", 1, 2, True, False, 1.5, None])
    if kind < 0.75:
        return {name: _anything(random, depth + 1) for name in random.sample("abc", random.randint(0, 3))}
    return [_anything(random, depth + 1) for _ in range(random.randint(0, 2))]


def _value(random: Random, schema: Json, faulty: bool) -> Any:
    if faulty and random.random() < 0.02:
        return _anything(random)
    if random.random() < 0.04:
        return None
    match schema.get("type"):
        case "string":
            return random.choice(["x", "y", "z<&", "d"])
        case "integer":
            return random.choice([1, 2, 3, 7])
        case "number":
            return random.choice([1, 1.5, 2])
        case "boolean":
            return random.choice([True, False])
        case "object":
            return _map(random, schema, faulty)
        case "array":
            return _list(random, schema, faulty)
    return random.choice(["x", "y", 1, 2]) if "x-kubernetes-int-or-string" in schema else _anything(random)


def _map(random: Random, schema: Json, faulty: bool) -> Json:
    properties = schema.get("properties", {})
    made = {
        name: _value(random, below, faulty) for name, below in properties.items() if random.random() < 0.6
    }
    additional = schema.get("additionalProperties")
    if additional:
        for name in random.sample("pqrs", random.randint(0, 3)):
            made[name] = _value(random, additional, faulty)
    elif "x-kubernetes-preserve-unknown-fields" in schema or not properties:
        for name in random.sample("uvw", random.randint(0, 2)):
            made[name] = _anything(random)
    elif faulty and random.random() < 0.03:
        made["unknown"] = 1
    return made


def _list(random: Random, schema: Json, faulty: bool) -> list[Any]:
    items, count = schema["items"], random.randint(0, 3)
    if schema.get("x-kubernetes-list-type") == "set":
        pool: list[Any] = ["x", "y", "z"] if items["type"] == "string" else [1, 2, 3]
        if faulty and random.random() < 0.1:
            return [random.choice(pool) for _ in range(count)]
        return random.sample(pool, count)
    made = [_value(random, items, faulty) for _ in range(count)]
    if schema.get("x-kubernetes-list-type") != "map":
        return made
    kept: list[Any] = []
    seen = set()
    for item in made:
        if not isinstance(item, dict):
            kept += [item] if faulty else []
            continue
        key = _keys(random, schema, item)
        if key not in seen or (faulty and random.random() < 0.2):
            kept.append(item)
        seen.add(key)
    return kept


def _keys(random: Random, schema: Json, item: Json) -> str:
    """Gives an item its keys, or leaves one to its default; what tells it from others."""
    properties = schema["items"]["properties"]
    keys = schema["x-kubernetes-list-map-keys"]
    for key in keys:
        if "default" in properties[key] and random.random() < 0.4:
            item.pop(key, None)
        else:
            item[key] = random.choice(["x", "y", "d"] if properties[key]["type"] == "string" else [1, 2, 7])
    return json.dumps([item.get(key, properties[key].get("default")) for key in keys])


# --------------------------------------------------------------------------- telling what comes of them


class _OneVersion:
    settled = False
    certain = True

    def __init__(self, kind: MapType) -> None:
        self._kind = kind

    def type(self, api_version: str) -> MapType:
        return self._kind

    def convert(self, obj: Json, api_version: str) -> Json:
        return obj

    def kept(self, fields: FieldSet, api_version: str) -> FieldSet:
        return fields


def told(given: Json) -> list[Json]:
    """What ours makes of a case, as the oracle tells it; an error only as its words."""
    kind = object_type(Node(given["schema"]), metadata=False)
    live: Json = {}
    owners: Owners = {}
    outcomes = []
    for step in given["steps"]:
        outcome: Json = {}
        try:
            live, owners = _taken(kind, live, owners, step)
        except Conflicts as conflicts:
            found = [f"{one.owner.manager} {path_text(one.path)}" for one in conflicts.conflicts]
            outcome["conflicts"] = sorted(found)
        except TypedError as error:
            outcome["error"] = str(error)
        outcome["object"] = deepcopy(live)
        outcome["owners"] = {
            owner.manager: {"fields": ordered(owned.fields), "applied": owned.applied}
            for owner, owned in owners.items()
        }
        outcomes.append(outcome)
    return outcomes


def _taken(kind: MapType, live: Json, owners: Owners, step: Json) -> tuple[Json, Owners]:
    obj = deepcopy(step["object"])
    owner = Owner(step["manager"], "", "", "")
    updates = step["op"] == "update"
    wrong = list(kind.validate(obj, "", duplicates=updates))
    if wrong:
        raise TypedError(wrong[0] if len(wrong) == 1 else "\n  ".join(["errors:", *wrong]))
    versions = _OneVersion(kind)
    if updates:
        return obj, ownership.update(versions, live, obj, "v1", dict(owners), owner)
    made, after = ownership.apply(versions, live, obj, "v1", dict(owners), owner, force=step["force"])
    return live if made is None else made, after


def difference(mine: Sequence[Json], theirs: Sequence[Json]) -> str:
    """What differs first, "" for nothing. Errors are compared as such: Go tells several in the order of its maps."""
    for at, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if bool(a.get("error")) != bool(b.get("error")):
            return f"step {at}: error {a.get('error')!r}, not {b.get('error')!r}"
        if _text(a.get("conflicts")) != _text(b.get("conflicts")):
            return f"step {at}: conflicts {a.get('conflicts')}, not {b.get('conflicts')}"
        if _text(a["object"]) != _text(b["object"] or {}):
            return f"step {at}: object {_text(a['object'])}, not {_text(b['object'])}"
        for name in {**a["owners"], **b["owners"]}:
            # Spelled and ordered alike, too.
            ours, others = (json.dumps(one["owners"].get(name), sort_keys=False) for one in (a, b))
            if json.loads(ours) is None or json.loads(others) is None or not _alike(ours, others):
                return f"step {at}: {name} owns {ours}, not {others}"
    return ""


def _alike(ours: str, others: str) -> bool:
    a, b = json.loads(ours), json.loads(others)
    return a["applied"] == b["applied"] and json.dumps(a["fields"]) == json.dumps(b["fields"])


def _text(value: object) -> str:
    return json.dumps(_whole(value), sort_keys=True)


def _whole(value: object) -> object:
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case list():
            return [_whole(item) for item in value]
    return value


def oracle(cases: Iterable[Json]) -> list[list[Json]]:
    """What structured-merge-diff makes of cases. Needs Go."""
    answers = subprocess.run(
        ["go", "run", "."],
        cwd=HERE / "oracle",
        input="\n".join(map(json.dumps, cases)),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answers.stdout.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--first", type=int, default=0, help="the first case's seed")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--record", action="store_true", help="keep the first cases with their outcomes")
    args = parser.parse_args()
    if args.record:
        seeds = range(RECORDED_COUNT)
        answers = oracle(map(case, seeds))
        rows = [json.dumps(told, separators=(",", ":")) for told in answers]
        RECORDED.write_text("[\n" + ",\n".join(rows) + "\n]\n")
        return
    seeds = range(args.first, args.first + args.count)
    cases = [case(seed) for seed in seeds]
    wrong = 0
    for seed, given, theirs in zip(seeds, cases, oracle(cases), strict=True):
        what = difference(told(given), theirs)
        if what:
            wrong += 1
            print(f"case {seed}: {what}")
    print(f"{args.count - wrong} of {args.count} cases alike")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
