"""Random lives of an object: a schema, and what updates and applied configurations make of the object, one after another.

`recorded.json` holds some, with what structured-merge-diff (Go) made of them. To record anew, or to compare many more:

    python -m tests.machinery.merging.cases --record
    python -m tests.machinery.merging.cases --first 1000 --count 20000
"""

from __future__ import annotations

import argparse
import json
import sys
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.machinery.merging import lives

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
                "version": "v1",
                "force": random.random() < 0.4,
                "object": deepcopy(value),
            }
        )
    return {"schemas": {"": root}, "steps": _varied(Random(-seed - 1), root, steps)}


def _varied(random: Random, root: Json, steps: list[Json]) -> list[Json]:
    """The same in several versions, or under a schema that changes, now and then."""
    if random.random() < 0.3:
        for step in steps:
            step["version"] = random.choice(["v1", "v2"])
    if random.random() < 0.2:
        # The whole object is never owned as a whole.
        changed = {name: _toggled(random, below) for name, below in root["properties"].items()}
        schema = {"type": "object", "properties": changed}
        steps.insert(random.randint(1, len(steps)), {"schemas": {"": schema}})
    return steps


def _toggled(random: Random, schema: Any) -> Any:
    """The schema with maps that are owned as wholes now and were not, or the other way about."""
    if not isinstance(schema, dict):
        return schema
    made = {
        key: {name: _toggled(random, one) for name, one in value.items()}
        if key == "properties"
        else _toggled(random, value)
        for key, value in schema.items()
    }
    is_map = made.get("type") == "object" and ("properties" in made or "additionalProperties" in made)
    if is_map and random.random() < 0.3 and made.pop("x-kubernetes-map-type", "") != "atomic":
        made["x-kubernetes-map-type"] = "atomic"
    return made


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
        lives.write(RECORDED, lives.oracle(map(case, seeds)))
        return
    seeds = range(args.first, args.first + args.count)
    cases = [case(seed) for seed in seeds]
    wrong = 0
    for seed, given, theirs in zip(seeds, cases, lives.oracle(cases), strict=True):
        what = lives.difference(lives.told(given), theirs)
        if what:
            wrong += 1
            print(f"case {seed}: {what}")
    print(f"{args.count - wrong} of {args.count} cases alike")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
