"""The chart's values.schema.json and the table of values in its README, both from the comments in values.yaml.

    python -m tools.chart_docs            writes them
    python -m tools.chart_docs --check    says whether they are as they would be written

In values.yaml a comment above a key that begins with `# -- ` is what the key is for, and `# @schema` says of its value what the
default does not: a JSON schema in YAML's flow style, or `labels` (a map of texts), `strings`, `object` (of any content) and
`objects` (a list of them). A map that has neither may have only the keys that it has here.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).resolve().parent.parent / "deploy" / "helm" / "clusterling"

SHORT: Final[dict[str, dict[str, Any]]] = {
    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
    "strings": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object"},
    "objects": {"type": "array", "items": {"type": "object"}},
}
TYPES: Final = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}

BEGIN, END = "<!-- values: begin -->\n", "<!-- values: end -->\n"


class ValuesError(Exception):
    """values.yaml does not say of a key what it must; the message names the line."""


@dataclass(frozen=True, slots=True)
class Value:
    """A key of values.yaml. `inner`: the keys below it, where those are all there may be."""

    path: str
    default: Any
    description: str
    schema: dict[str, Any]
    inner: tuple[Value, ...]


def read(text: str) -> tuple[Value, ...]:
    """The values in the order they are in. Raises ValuesError."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(node, yaml.MappingNode):
        raise ValuesError("values.yaml must be a map")
    return tuple(_values(node, text.splitlines(), ""))


def _values(node: yaml.MappingNode, lines: list[str], above: str) -> Iterator[Value]:
    for key, value in node.value:
        path = f"{above}{key.value}"
        line = key.start_mark.line
        description, annotation = _comment(lines, line)
        default = yaml.safe_load(yaml.serialize(value))
        inner: tuple[Value, ...] = ()
        if isinstance(value, yaml.MappingNode) and annotation is None:
            if description or not value.value:
                raise ValuesError(f"line {line + 1}: {path}: say what may be in this map with @schema")
            inner = tuple(_values(value, lines, f"{path}."))
        elif not description:
            raise ValuesError(f"line {line + 1}: {path} has no description")
        schema = {"type": TYPES[type(default)], **(annotation or {})}
        if schema["type"] == "array" and "items" not in schema:
            raise ValuesError(f"line {line + 1}: {path}: say what may be in this list with @schema")
        if "enum" in schema and annotation is not None and "type" not in annotation:
            del schema["type"]
        yield Value(path, default, description, schema, inner)


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any] | None]:
    """The description and the schema in the comments right above a line."""
    first = line
    while first and lines[first - 1].lstrip().startswith("#"):
        first -= 1
    description, schema = "", None
    for text in (one.strip().removeprefix("#").strip() for one in lines[first:line]):
        if text.startswith("-- "):
            description = text[3:]
        elif text.startswith("@schema "):
            said = yaml.safe_load(text.removeprefix("@schema "))
            schema = SHORT[said] if isinstance(said, str) else said
    return description, schema


def schema_of(values: tuple[Value, ...]) -> dict[str, Any]:
    """The JSON schema of values.yaml: nothing that is not in it may be given."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Clusterling chart",
        **_object(values),
    }


def _object(values: tuple[Value, ...]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {value.path.rpartition(".")[2]: _property(value) for value in values},
    }


def _property(value: Value) -> dict[str, Any]:
    if value.inner:
        return _object(value.inner)
    return {"description": value.description, **value.schema, "default": value.default}


def table(values: tuple[Value, ...]) -> str:
    """The values as Markdown, a table for each map at the top and one for what is in none."""
    maps = [value for value in values if value.inner]
    parts = [_rows([value for value in values if not value.inner])]
    parts += [f"### {value.path}\n\n{_rows(_leaves(value.inner))}" for value in maps]
    return "\n".join(parts)


def _leaves(values: tuple[Value, ...]) -> list[Value]:
    found: list[Value] = []
    for value in values:
        found += _leaves(value.inner) if value.inner else [value]
    return found


def _rows(values: list[Value]) -> str:
    rows = ["| value | default | |", "|---|---|---|"]
    for value in values:
        default = json.dumps(value.default, ensure_ascii=False)
        one_of = value.schema.get("enum")
        choice = f" One of {', '.join(f'`{json.dumps(one)}`' for one in one_of)}." if one_of else ""
        text = f"{value.description}{choice}".replace("|", "\\|")
        rows.append(f"| `{value.path}` | `{default}` | {text} |".replace("`\\|", "`|"))
    return "\n".join(rows) + "\n"


def generated(chart: Path) -> dict[Path, str]:
    """What the generated files should hold, by path. Raises ValuesError."""
    values = read((chart / "values.yaml").read_text())
    readme = chart / "README.md"
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValuesError(f"{readme} has no place for the table")
    return {
        chart / "values.schema.json": json.dumps(schema_of(values), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{BEGIN}\n{table(values)}\n{END}{after}",
    }


def main(arguments: list[str]) -> int:
    stale = [path for path, text in generated(CHART).items() if not path.exists() or path.read_text() != text]
    if arguments == ["--check"]:
        for path in stale:
            print(f"{path} is not what values.yaml says: run `make chart`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in generated(CHART).items():
        if path in stale:
            path.write_text(text)
            print(re.sub(r"^.*/deploy/", "deploy/", str(path)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
