"""Lives of an object: what updates and applied configurations, in several versions, make of it and of who owns it.

A life is decoded JSON, as the oracle (Go, in `oracle/`) reads it: the schema of each version ("" for all others), and
steps. Fields whose names end in a version (`text_v1`) have another name in each, where the life `renames`.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

from clusterling.machinery.apply import owners as ownership
from clusterling.machinery.apply.declared import object_type
from clusterling.machinery.apply.fieldset import FieldSet, difference_below, ordered, path_text
from clusterling.machinery.apply.owners import Conflicts, Owner, Owners
from clusterling.machinery.apply.types import MapType, TypedError
from clusterling.machinery.schema.node import Node

HERE: Final = Path(__file__).parent

Json = dict[str, Any]

_SUFFIX: Final = re.compile(r"_v\d+$")


class _Versions:
    """The versions of a life's kind, as they are at one step."""

    settled = False
    certain = True

    def __init__(self, life: Json) -> None:
        self._life = life
        self.kinds = _kinds(life["schemas"])
        self.served: list[str] | None = None
        # What a life's object is in; ours tells it by the object, which here has no apiVersion.
        self._spelled = bool(life.get("renames") or life.get("needs"))

    def of(self, version: str) -> MapType:
        return self.kinds.get(version) or self.kinds[""]

    def type(self, api_version: str) -> MapType | None:
        return self.of(api_version) if self.served is None or api_version in self.served else None

    def convert(self, obj: Json, api_version: str) -> Json:
        if not self._spelled:
            return obj
        made: Json = _renamed(obj, api_version)
        needed = (self._life.get("needs") or {}).get(api_version)
        if needed and made.get(needed) is None:
            raise TypedError(f"{needed} is needed")
        return made

    def kept(self, fields: FieldSet, api_version: str) -> FieldSet:
        ignored: Mapping[str, FieldSet] = self._life.get("ignored") or {}
        return difference_below(fields, ignored.get(api_version, {}))


def _kinds(schemas: Json) -> dict[str, MapType]:
    return {version: object_type(Node(schema), metadata=False) for version, schema in schemas.items()}


def _renamed(value: Any, version: str) -> Any:
    if isinstance(value, dict):
        return {_SUFFIX.sub(f"_{version}", key): _renamed(item, version) for key, item in value.items()}
    return [_renamed(item, version) for item in value] if isinstance(value, list) else value


def told(life: Json, theirs: Sequence[Json] | None = None) -> list[Json]:
    """What ours makes of a life, as the oracle tells it; an error only as its words.

    `theirs`: what the oracle made of it, for what a client applies that had read back what it owned.
    """
    versions = _Versions(life)
    live: Json = {}
    owners: Owners = {}
    outcomes = []
    for at, step in enumerate(life["steps"]):
        outcome: Json = {}
        try:
            if "schemas" in step:
                versions.kinds = _kinds(step["schemas"])
            elif "served" in step:
                versions.served = step["served"]
            else:
                given = step["object"]
                if step["op"] == "extract":
                    assert theirs is not None, "what is read back is upstream's clients' to tell"
                    given = outcome["applied"] = theirs[at]["applied"]
                live = versions.convert(live, step["version"])
                live, owners = _taken(versions, live, owners, step, given)
        except Conflicts as conflicts:
            found = [f"{one.owner.manager} {path_text(one.path)}" for one in conflicts.conflicts]
            outcome["conflicts"] = sorted(found)
        except TypedError as error:
            outcome["error"] = str(error)
        outcome["object"] = deepcopy(live)
        outcome["owners"] = {
            owner.manager: {
                "fields": ordered(owned.fields),
                "applied": owned.applied,
                "version": owned.api_version,
            }
            for owner, owned in owners.items()
        }
        outcomes.append(outcome)
    return outcomes


def _taken(versions: _Versions, live: Json, owners: Owners, step: Json, given: Json) -> tuple[Json, Owners]:
    obj, version = deepcopy(given), step["version"]
    owner = Owner(step["manager"], "", "", "")
    kind = versions.of(version)
    updates = step["op"] == "update"
    wrong = list(kind.validate(obj, "", duplicates=updates))
    if wrong:
        raise TypedError(wrong[0] if len(wrong) == 1 else "\n  ".join(["errors:", *wrong]))
    if updates:
        return obj, ownership.update(versions, live, obj, version, dict(owners), owner)
    made, after = ownership.apply(versions, live, obj, version, dict(owners), owner, force=step["force"])
    return live if made is None else made, after


def difference(mine: Sequence[Json], theirs: Sequence[Json]) -> str:
    """What differs first, "" for nothing. Errors are compared as such: Go tells several in the order of its maps."""
    for at, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        if bool(a.get("error")) != bool(b.get("error")):
            return f"step {at}: error {a.get('error')!r}, not {b.get('error')!r}"
        if text(a.get("conflicts")) != text(b.get("conflicts")):
            return f"step {at}: conflicts {a.get('conflicts')}, not {b.get('conflicts')}"
        if text(a["object"]) != text(b["object"] or {}):
            return f"step {at}: object {text(a['object'])}, not {text(b['object'])}"
        for name in {**a["owners"], **b["owners"]}:
            ours, others = a["owners"].get(name), b["owners"].get(name)
            # Spelled and ordered alike, too.
            if json.dumps(ours) != json.dumps(others and {key: others[key] for key in ours or others}):
                return f"step {at}: {name} owns {json.dumps(ours)}, not {json.dumps(others)}"
    return ""


def text(value: object) -> str:
    """A value as JSON that is the same for equal values."""
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


def oracle(asked: Iterable[Json]) -> list[Any]:
    """What structured-merge-diff makes of lives, walks and sets. Needs Go."""
    answers = subprocess.run(
        ["go", "run", "."],
        cwd=HERE / "oracle",
        input="\n".join(map(json.dumps, asked)),
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answers.stdout.splitlines()]


def write(path: Path, answers: Iterable[Any]) -> None:
    """Keeps what the oracle told, a row each."""
    rows = [json.dumps(told, separators=(",", ":"), ensure_ascii=False) for told in answers]
    path.write_text("[\n" + ",\n".join(rows) + "\n]\n")
