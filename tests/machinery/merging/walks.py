"""Walks over types and sets of fields: the tables of structured-merge-diff's typed and fieldpath suites, as ours (`walks.yaml`).

`walks.json` holds what structured-merge-diff says. To record anew:

    python -m tests.machinery.merging.walks --record
"""

from __future__ import annotations

import argparse
import json
from typing import Any, Final

import yaml

from clusterling.machinery.apply import fieldset
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.fieldset import FieldSet, FieldSetError, ordered, path_text, paths
from clusterling.machinery.apply.types import TypedError
from clusterling.machinery.schema.node import Node
from tests.machinery.merging import lives
from tests.machinery.merging.lives import Json

WALKS: Final = lives.HERE / "walks.yaml"
RECORDED: Final = lives.HERE / "walks.json"


def load() -> tuple[dict[str, Json], Json]:
    """What is asked of each type, by name, and of sets: as the oracle reads it."""
    document = yaml.safe_load(WALKS.read_text())
    asked = {}
    for walk in document["walks"]:
        values = [value for group in walk["groups"] for value in group]
        pairs, first = [], 0
        for group in walk["groups"]:
            many = range(first, first + len(group)) if len(group) > 1 else ()
            pairs += [[a, b] for a in many for b in many]
            first += len(group)
        asked[walk["name"]] = {
            "schema": {"type": "object", **walk["schema"]},
            "values": values,
            "pairs": pairs,
            "removed": [{"value": value, "fields": fields} for value, fields in walk.get("removed", ())],
            "reconciled": walk.get("reconciled", []),
        }
    return asked, {"sets": document["sets"], "texts": document["texts"]}


def told(asked: Json) -> Json:
    """What ours says of a type."""
    kind = object_type(Node(asked["schema"]), metadata=False)
    valid, fields = [], []
    for value in asked["values"]:
        strict = list(kind.validate(value, "", duplicates=False))
        loose = list(kind.validate(value, "", duplicates=True))
        valid.append(("but for duplicates: " if strict and not loose else "") + "\n".join(strict))
        fields.append(_written(None if loose else kind.field_set(value)))
    return {
        "valid": valid,
        "fields": fields,
        "pairs": [_pair(kind, asked["values"][a], asked["values"][b]) for a, b in asked["pairs"]],
        "removed": [kind.remove(asked["values"][one["value"]], one["fields"]) for one in asked["removed"]],
        "reconciled": [_written(kind.reconciled(one)) for one in asked["reconciled"]],
    }


def _pair(kind: Any, left: Any, right: Any) -> Json:
    found: Json = {"merged": None}
    for name, entry in zip(("added", "modified", "removed"), kind.compare(left, right), strict=True):
        if entry is not None:
            found[name] = _written(entry)
    try:
        found["merged"] = kind.merge(left, right)
    except TypedError as error:
        found["error"] = str(error)
    return found


def _written(fields: FieldSet | None) -> Json | None:
    return ordered(fields) if fields else None


def told_of_sets(asked: Json) -> Json:
    """What ours says of sets, two by two, and of how they are read."""
    sets = [fieldset.parse(one) for one in asked["sets"]]
    algebra = {
        "union": fieldset.union,
        "both": fieldset.intersection,
        "difference": fieldset.difference,
        "below": fieldset.difference_below,
    }
    found: Json = {
        name: [[_written(function(a, b)) for b in sets] for a in sets] for name, function in algebra.items()
    }
    found["paths"] = [[path_text(path) for path in paths(one)] for one in sets]
    found["read"] = [_read(text) for text in asked["texts"]]
    return found


def _read(text: str) -> str | None:
    try:
        return json.dumps(ordered(fieldset.parse(json.loads(text))), separators=(",", ":"))
    except FieldSetError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="keep what structured-merge-diff says")
    if parser.parse_args().record:
        walks, sets = load()
        asked = [*({"walks": walk} for walk in walks.values()), {"sets": sets}]
        lives.write(RECORDED, lives.oracle(asked))


if __name__ == "__main__":
    main()
