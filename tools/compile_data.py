"""The data compiler: upstream's published API → clusterling/packs/data.

Input is the Go module k8s.io/kubernetes of the version that clusterling/version.py pins (`go mod download`, or a
directory given), and for protobuf the four modules that ship generated.proto files. Output is committed; a test compiles again and
compares, so it cannot drift. Facts only: descriptions, which are prose, go to a file that git ignores (`--descriptions`).

    schemas/<package>.zlib    {definition: schema}, the definitions of one Go package; $refs cross packages
    published/<package>.zlib  {definition: what a server publishes of it besides: zero values as defaults, enumerations}
    protobuf/<package>.zlib   {message: {number: [JSON name, type, held]}}; tools/protobuf_tables.py
    markers/<package>.zlib    {struct: {field: {"enum": […], "required": true, …}}}; tools/markers.py
    discovery.zlib            {"version", "resources": {apiVersion: […]}, "definitions": {apiVersion: {kind: definition}}, "packages": …,
                              "options": [the apiVersions that DeleteOptions and WatchEvent are published under]}
    rbac.zlib                 [the roles and bindings of every cluster]; tools/rbac_bootstrap.py
    gotypes/<package>.zlib    {struct: {"types": …, "inside": …, "omits": …, "always": …}}; tools/go_types.py
    internal.zlib             {struct: [[Go name, JSON name, kind]]} of what messages show; tools/internal_types.py
    descriptions.json.zlib    {definition: {"": text, "field": text}}; not committed

Each is JSON, compact, keys sorted, compressed with zlib. Schemas, by which objects are validated and given their defaults, lose
what says nothing of that: descriptions, the `allOf` of one $ref, and defaults that are Go's zero values ("", 0, false, {}) but of
fields that tell items of a list apart.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from clusterling.version import KUBERNETES
from tools import gomodules, rbac_bootstrap
from tools.enumerations import Enumeration, function_of, read_enumerations
from tools.go_types import read_go_types
from tools.internal_types import read_internal_types
from tools.markers import read_markers
from tools.protobuf_tables import read_package

DATA: Final = Path(__file__).parent.parent / "clusterling" / "packs" / "data"
# `api` first: its types.go have the markers.
PROTOBUF_MODULES: Final = ("api", "apimachinery", "apiextensions-apiserver", "kube-aggregator")
DESCRIPTIONS: Final = "descriptions.json.zlib"
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1."
# Where the schema of a list's items stands, or of a map's values.
_HOLDERS: Final = ("items", "additionalProperties")

Json = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="tools.compile_data", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--module", type=Path, help="the directory of k8s.io/kubernetes; default: fetched by Go"
    )
    parser.add_argument("--out", type=Path, default=DATA, help="where the files go")
    parser.add_argument("--descriptions", action="store_true", help="write only the descriptions")
    chosen = parser.parse_args(arguments)
    try:
        module = chosen.module or gomodules.directory("k8s.io/kubernetes", f"v{KUBERNETES}")
        files = descriptions(module) if chosen.descriptions else compile_all(module, protobuf_modules())
    except gomodules.ModuleMissing as error:
        print(f"compile_data: {error}", file=sys.stderr)
        return 1
    write(files, chosen.out)
    total = sum(len(content) for content in files.values())
    print(f"{len(files)} files, {total / 1024:.0f} KB, from Kubernetes {KUBERNETES}")
    return 0


def protobuf_modules() -> list[Path]:
    """The modules with generated.proto files, of the version that goes with `KUBERNETES`."""
    _, _, minor = KUBERNETES.partition(".")
    return [gomodules.directory(f"k8s.io/{name}", f"v0.{minor}") for name in PROTOBUF_MODULES]


def write(files: dict[str, bytes], out: Path) -> None:
    """Writes the files, and removes compiled ones that are no more."""
    for directory in {name.rpartition("/")[0] for name in files if "/" in name}:
        (out / directory).mkdir(parents=True, exist_ok=True)
        for stale in (out / directory).glob("*.zlib"):
            if f"{directory}/{stale.name}" not in files:
                stale.unlink()
    for name, content in files.items():
        (out / name).write_bytes(content)


def compile_all(module: Path, protobuf: list[Path]) -> dict[str, bytes]:
    """Every committed file, by its name under data/."""
    definitions = published_definitions(module)
    enumerations = read_enumerations(module)
    packages: dict[str, Json] = {}
    published: dict[str, Json] = {}
    for name, schema in definitions.items():
        package = name.rpartition(".")[0]
        packages.setdefault(package, {})[name] = stripped(schema)
        besides = published_besides(schema, enumerations.get(function_of(name), ()))
        if besides:
            published.setdefault(package, {})[name] = besides
    for name, key, value in key_defaults(definitions):
        packages[name.rpartition(".")[0]][name]["properties"][key]["default"] = value
    protos = [
        read_package(path) for root in protobuf for path in sorted(root.glob("**/generated.proto"))
        if "testapigroup" not in path.parts
    ]  # fmt: skip
    discovery = {
        "version": KUBERNETES,
        "resources": published_resources(module),
        "definitions": kinds(definitions),
        "packages": {one.api_version: one.name for one in protos if one.api_version},
        "options": option_versions(module),
    }
    return {
        **{f"schemas/{name}.zlib": packed(content) for name, content in packages.items()},
        **{f"published/{name}.zlib": packed(content) for name, content in published.items()},
        **{f"protobuf/{one.name}.zlib": packed(one.table) for one in protos if one.table},
        **{
            f"markers/{name}.zlib": packed(table)
            for name, table in read_markers(protobuf[0]).items()
            if name in packages
        },
        **{
            f"gotypes/{name}.zlib": packed(table)
            for name, table in read_go_types(*protobuf[:2]).items()
            if name in packages
        },
        "discovery.zlib": packed(discovery),
        "rbac.zlib": packed(rbac_bootstrap.objects(module)),
        "internal.zlib": packed(read_internal_types(module, protobuf[0])),
    }


def packed(content: object) -> bytes:
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    return zlib.compress(text.encode(), 9)


def published_definitions(module: Path) -> dict[str, Json]:
    """Every schema of the published OpenAPI v3 documents. Those in several documents differ in their GVK list alone."""
    found: dict[str, Json] = {}
    for path in sorted((module / "api/openapi-spec/v3").glob("*.json")):
        document = json.loads(path.read_text())
        for name, schema in document.get("components", {}).get("schemas", {}).items():
            known = found.setdefault(name, schema)
            if _without_kinds(known) != _without_kinds(schema):
                raise ValueError(f"{name} differs in {path.name}")
    return found


def _without_kinds(schema: Json) -> Json:
    return {key: value for key, value in schema.items() if key != "x-kubernetes-group-version-kind"}


def stripped(schema: Any, *, names: bool = False) -> Any:
    """The schema without what says nothing. `names`: the keys of this map are field names, not keywords."""
    if isinstance(schema, list):
        return [stripped(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if names:
        return {key: stripped(value) for key, value in schema.items()}
    kept = {
        key: stripped(value, names=key == "properties")
        for key, value in schema.items()
        if key != "description" and not (key == "default" and _says_nothing(value))
    }
    branches = kept.get("allOf")
    if isinstance(branches, list) and len(branches) == 1 and list(branches[0]) == ["$ref"]:
        del kept["allOf"]
        kept["$ref"] = branches[0]["$ref"]
    return kept


def _says_nothing(default: object) -> bool:
    return default in ("", 0, False, {}, [])


def key_defaults(definitions: Mapping[str, Json]) -> Iterator[tuple[str, str, object]]:
    """(definition, field, default) of every field that tells items of a list apart and has a zero value by default.

    Server-side apply names items by it; whoever validates them does not look at it.
    """
    for holder in definitions.values():
        for array in _arrays(holder):
            keys = array.get("x-kubernetes-list-map-keys") or [array.get("x-kubernetes-patch-merge-key")]
            items = array["items"]
            reference = items.get("$ref") or (items.get("allOf") or [{}])[0].get("$ref", "")
            name = reference.rpartition("/")[2]
            fields = definitions.get(name, {}).get("properties", {})
            for key in keys:
                default = fields.get(key, {}).get("default")
                if default is not None and _says_nothing(default):
                    yield name, key, default


def _arrays(schema: object) -> Iterator[Json]:
    if isinstance(schema, list):
        for one in schema:
            yield from _arrays(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "array" and isinstance(schema.get("items"), dict):
            yield schema
        for value in schema.values():
            yield from _arrays(value)


def published_besides(schema: Json, enumerations: Iterable[Enumeration] = ()) -> Json:
    """What of a schema `stripped` leaves out and a server publishes, in the schema's own nesting: {} for nothing."""
    told: Json = {}
    if "default" in schema and _says_nothing(schema["default"]):
        told["default"] = schema["default"]
    for key in _HOLDERS:
        if isinstance(schema.get(key), dict) and (inner := published_besides(schema[key])):
            told[key] = inner
    fields = {name: published_besides(one) for name, one in schema.get("properties", {}).items()}
    for one in enumerations:
        holder = next(key for key in _HOLDERS if key in schema["properties"][one.field]) if one.each else ""
        said = fields[one.field].setdefault(holder, {}) if holder else fields[one.field]
        said["enum"] = one.values
    if any(fields.values()):
        told["properties"] = {name: one for name, one in fields.items() if one}
    return told


def option_versions(module: Path) -> list[str]:
    """The apiVersions that DeleteOptions, and events of watches, are published under in OpenAPI v2."""
    definitions = json.loads((module / "api/openapi-spec/swagger.json").read_text())["definitions"]
    told = definitions[f"{_META}DeleteOptions"]["x-kubernetes-group-version-kind"]
    if told != [one | {"kind": "DeleteOptions"} for one in told]:
        raise ValueError("DeleteOptions is told under other names, too")
    return ["/".join(filter(None, (one["group"], one["version"]))) for one in told]


def kinds(definitions: dict[str, Json]) -> dict[str, dict[str, str]]:
    """apiVersion → kind → the definition that says how it looks."""
    found: dict[str, dict[str, str]] = {}
    for name, schema in definitions.items():
        for kind in schema.get("x-kubernetes-group-version-kind", ()):
            group, version = kind["group"], kind["version"]
            found.setdefault(f"{group}/{version}" if group else version, {})[kind["kind"]] = name
    return found


def published_resources(module: Path) -> dict[str, list[Json]]:
    """apiVersion → its resources, subresources within, as discovery tells them."""
    found: dict[str, list[Json]] = {}
    for path in sorted((module / "api/discovery").glob("api*__v*.json")):
        document = json.loads(path.read_text())
        found[document["groupVersion"]] = list(_resources(document["resources"]))
    return found


def _resources(listed: list[Json]) -> Iterator[Json]:
    for one in listed:
        if "/" in one["name"]:
            continue
        below = [other for other in listed if other["name"].startswith(f"{one['name']}/")]
        yield _resource(one) | {
            "subresources": [_resource(other) | {"name": other["name"].partition("/")[2]} for other in below]
        }


def _resource(one: Json) -> Json:
    wanted = (
        "name",
        "kind",
        "group",
        "version",
        "verbs",
        "namespaced",
        "singularName",
        "shortNames",
        "categories",
    )
    return {key: one[key] for key in wanted if one.get(key)}


def descriptions(module: Path) -> dict[str, bytes]:
    """The file of descriptions: what `kubectl explain` prints."""
    texts: dict[str, dict[str, str]] = {}
    enumerations = read_enumerations(module)
    for name, schema in published_definitions(module).items():
        fields = schema.get("properties", {}).items()
        found = {field: one["description"] for field, one in fields if "description" in one}
        found |= {one.field: one.description for one in enumerations.get(function_of(name), ())}
        if "description" in schema:
            found[""] = schema["description"]
        texts[name] = found
    return {DESCRIPTIONS: packed(texts)}


if __name__ == "__main__":
    raise SystemExit(main())
