"""Stories: the cases of structured-merge-diff's own suite, told with our schemas and values (`stories.yaml`).

`stories.json` holds what structured-merge-diff made of them. To record anew; or to list what upstream's suite (the
module's directory) has that there is nothing of here:

    python -m tests.machinery.merging.stories --record
    python -m tests.machinery.merging.stories --missing DIRECTORY
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.machinery.merging import lives
from tests.machinery.merging.lives import Json

STORIES: Final = lives.HERE / "stories.yaml"
RECORDED: Final = lives.HERE / "stories.json"

# Versions in which a story is told whose fields have other names in each: X, Y and Z.
_ORDERS: Final = ("123", "112", "121", "211", "111", "312")
_OPS: Final = {"": "apply", "!": "apply", "=": "update", "+": "extract"}
_WHO: Final = re.compile(r"(?P<manager>\w+?)(?P<way>[!=+]?)(?:@(?P<version>v\d+))?(?P<late>!?)")


def load() -> dict[str, Json]:
    """The life of each story, by its name."""
    document = yaml.safe_load(STORIES.read_text())
    kinds = {name: {"type": "object", **schema} for name, schema in document["kinds"].items()}
    return {name: _life(story, kinds) for story in document["stories"] for name, story in _told(story)}


def _told(story: Json) -> Iterator[tuple[str, Json]]:
    """The story itself, or as it is told in several orders of versions."""
    if not story.get("renamed"):
        yield story["name"], story
        return
    for order in _ORDERS:
        text = json.dumps(story["steps"])
        for letter, version in zip("XYZ", order, strict=True):
            text = re.sub(rf"(?<=[@_]){letter}\b", f"v{version}", text)
        kinds = {f"v{version}": f"renamed_v{version}" for version in "123"}
        name = f"{story['name']}, in versions {', '.join(order)}"
        yield name, {**story, "name": name, "steps": json.loads(text), "kinds": kinds, "renames": True}


def _life(story: Json, kinds: Json) -> Json:
    named = story.get("kinds") or {"": story["kind"]}
    made: Json = {"schemas": {version: kinds[kind] for version, kind in named.items()}}
    for key in ("renames", "needs", "ignored"):
        if key in story:
            made[key] = story[key]
    made["steps"] = [_step(who, what, kinds) for step in story["steps"] for who, what in step.items()]
    return made


def _step(who: str, what: Any, kinds: Json) -> Json:
    if who == "kinds":
        return {"schemas": {"": kinds[what]}}
    if who == "served":
        return {"served": what}
    match = _WHO.fullmatch(who)
    assert match is not None, who
    way = match["way"] or match["late"]
    force = way in ("!", "+")
    return {
        "op": _OPS[way],
        "manager": match["manager"],
        "version": match["version"] or "v1",
        "force": force,
        "object": what,
    }


def missing(upstream: Path) -> list[str]:
    """Upstream's cases (`file/case`) that no story is told of and that are not explained."""
    document = yaml.safe_load(STORIES.read_text())
    told: set[str] = set()
    for story in document["stories"]:
        told.update([story["of"]] if isinstance(story["of"], str) else story["of"])
    found = []
    for path in sorted((upstream / "merge").glob("*_test.go")):
        file = path.name.removesuffix("_test.go")
        text = path.read_text()
        names = re.findall(r'^\t\t"([^"]+)": \{', text, re.MULTILINE)
        if not names or file == "multiple_appliers":
            names += re.findall(r"^func (Test\w+)", text, re.MULTILINE)
        explained = document["elsewhere"].get(file, {})
        found += [
            f"{file}/{name}"
            for name in names
            if f"{file}/{name}" not in told
            and name not in explained
            and "*" not in explained
            and not (file == "multiple_appliers" and name.startswith("TestMultiple"))
        ]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="keep what structured-merge-diff makes of them")
    parser.add_argument("--missing", type=Path, metavar="DIRECTORY", help="list what is not told of here")
    asked = parser.parse_args()
    if asked.missing:
        print("\n".join(missing(asked.missing)))
    if asked.record:
        lives.write(RECORDED, lives.oracle(load().values()))


if __name__ == "__main__":
    main()
